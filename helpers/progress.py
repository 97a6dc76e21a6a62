"""What fit shows while it trains: a live bar on a terminal, and a line per epoch that stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from helpers.history import History


class Progress:
    """The bar and the lines of one call of fit; inside a with statement the bar is live.

    how: True to show both, False for silence, or a function that is called instead with the history
        after each epoch.
    steps: per epoch, 0 if unknown.
    checkpoint: the file that the history's epochs come from, if there are any.
    """

    def __init__(
        self, how: bool | Callable, history: History, steps: int, checkpoint: str | Path | None
    ) -> None:
        self.how, self.history, self.checkpoint = how, history, checkpoint
        self.epochs = history.config["epochs"]
        # disable=None leaves it to tqdm to look for a terminal: a notebook would keep every state.
        options = {"unit": "step", "leave": False, "disable": None if how is True else True}
        done = len(history.epochs) * steps
        self.live = tqdm(total=self.epochs * steps or None, initial=done, **options)

    def __enter__(self) -> Progress:
        if done := len(self.history.epochs):
            complete = self.history.status != "interrupted"
            end = "complete: delete it to train again" if complete else f"up to epoch {done}"
            self.say(f"{self.checkpoint} holds this run, {end}.")
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        self.live.close()
        if error is None:
            minutes = sum(record["seconds"] for record in self.history.epochs) / 60
            count = len(self.history.epochs)
            self.say(f"{self.history.status} after {count} epochs, {minutes:.1f} minutes")

    def say(self, text: str) -> None:
        """Print a line that stays, clear of the bar."""
        if self.how is True:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def bar(self, batches: Iterable) -> Iterator:
        """The batches of an epoch; the bar moves as they are used."""
        self.live.set_description(f"epoch {len(self.history.epochs) + 1}/{self.epochs}")
        for batch in batches:
            yield batch
            self.live.update()

    def epoch(self) -> None:
        """Print the line of the epoch just ended, or call the function in its place."""
        if callable(self.how):
            self.how(self.history)
        r = self.history.epochs[-1]
        self.say(
            f"epoch {len(self.history.epochs):2}/{self.epochs}  "
            f"train loss {r['train_loss']:.4f}, {r['train_accuracy']:5.2f}%  "
            f"test loss {r['test_loss']:.4f}, {r['test_accuracy']:5.2f}%  "
            f"lr {r['learning_rate']:.0e}  {r['seconds']:.1f} s"
        )
