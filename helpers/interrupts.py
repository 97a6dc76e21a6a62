"""Ctrl-C and SIGTERM, noted when they arrive and obeyed between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Interrupts:
    """Notes Ctrl-C and SIGTERM, inside a with statement, for fit to obey between two steps.

    An exception raised wherever the signal finds the program is lost while a worker is forked, and
    may leave a lock of the workers' queues held for good. So only a second signal raises at once,
    for a loader that hangs, and none while fit puts things in order.
    """

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.at_once = True
        self.process = os.getpid()
        self.previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self.previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self.previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() == self.process:
            self.arrived.append(number)
            if len(self.arrived) > 1 and self.at_once:
                raise KeyboardInterrupt
        elif number == signal.SIGTERM:  # in a worker just forked; an interrupt is not for it
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def between(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; raises KeyboardInterrupt before the next one if a signal has arrived."""
        for batch in batches:
            if self.arrived:
                raise KeyboardInterrupt
            yield batch

    def hold(self) -> None:
        """Once a signal has arrived, let nothing more raise: no other, and no worker that dies."""
        if not self.arrived:
            return
        self.at_once = False
        if hasattr(signal, "SIGCHLD") and callable(before := signal.getsignal(signal.SIGCHLD)):

            def quiet(number: int, frame: object) -> None:
                with contextlib.suppress(RuntimeError):  # a DataLoader finds it dead later, too
                    before(number, frame)

            signal.signal(signal.SIGCHLD, quiet)
