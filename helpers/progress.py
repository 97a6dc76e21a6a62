"""What fit shows while it trains: a live bar over the run, and a line per epoch that stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from helpers.history import History


class _NotebookLine:
    """What tqdm takes for a terminal in a notebook: one line of text, replaced in place.

    tqdm's notebook widget does not render on GitHub, and its plain bar leaves every state it went
    through in the saved notebook.
    """

    encoding = "utf-8"
    _handle = None

    def write(self, text: str) -> None:
        """Show text in place of the line before; the blanks that clear a bar are left out."""
        from IPython.display import display

        if not text.strip():
            return
        line = {"text/plain": text.strip()}
        if self._handle is None:
            self._handle = display(line, raw=True, display_id=True)
        else:
            display(line, raw=True, display_id=self._handle.display_id, update=True)

    def flush(self) -> None:
        """Nothing waits: a line is shown as it is written."""


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return bool(ipython) and hasattr(ipython.get_ipython(), "kernel")


class Progress:
    """The bar and the lines of one call of fit; inside a with statement the bar is live.

    how: True to show both, False for silence, or a function that is called instead with the history
        after each epoch.
    history: of the run, with the epochs it has when fit begins.
    steps: per epoch, 0 if unknown.
    checkpoint: the file that those epochs come from, if there are any.
    """

    def __init__(
        self, how: bool | Callable, history: History, steps: int, checkpoint: str | Path | None
    ) -> None:
        self.enabled = how is True
        self.callback = how if callable(how) else None
        self.history, self.steps, self.checkpoint = history, steps, checkpoint
        self.line = _NotebookLine() if self.enabled and _in_notebook() else None

    def __enter__(self) -> Progress:
        done, epochs = len(self.history.epochs), self.history.config["epochs"]
        if done and self.history.status == "interrupted":
            self.say(f"{self.checkpoint} holds this run up to epoch {done}: it resumes.")
        elif done:
            self.say(
                f"{self.checkpoint} holds this run, complete: its weights are loaded, nothing is "
                "trained. Delete it to start from the beginning."
            )
        # disable=None leaves it to tqdm to look for a terminal on stderr.
        disable = None if self.enabled and not self.line else not self.enabled
        self.live = tqdm(
            total=epochs * self.steps or None,
            initial=done * self.steps,
            unit="step",
            leave=False,
            disable=disable,
            **({"file": self.line, "ncols": 88} if self.line else {}),
        )
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        self.live.close()
        history = self.history
        if self.line:
            device = history.environment["device"]
            self.line.write(f"{history.network}, seed {history.seed}, on {device}")
        if error is None:  # fit takes an interrupt itself
            minutes = sum(record["seconds"] for record in history.epochs) / 60
            count = len(history.epochs)
            epochs = "1 epoch" if count == 1 else f"{count} epochs"
            self.say(f"{history.status} after {epochs}, {minutes:.1f} minutes")

    def say(self, text: str) -> None:
        """Print a line that stays, clear of the bar."""
        if self.enabled:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def bar(self, batches: Iterable) -> Iterator:
        """The batches of an epoch; the bar moves as they are used."""
        epoch = f"epoch {len(self.history.epochs) + 1}/{self.history.config['epochs']}"
        self.live.set_description(epoch)
        for batch in batches:
            yield batch
            self.live.update()

    def epoch(self) -> None:
        """Print the line of the epoch just ended."""
        history = self.history
        if self.callback:
            self.callback(history)
        r = history.epochs[-1]
        self.say(
            f"epoch {len(history.epochs):2}/{history.config['epochs']}  "
            f"train loss {r['train_loss']:.4f}, {r['train_accuracy']:5.2f} %  "
            f"test loss {r['test_loss']:.4f}, {r['test_accuracy']:5.2f} %  "
            f"lr {r['learning_rate']:.0e}  {r['seconds']:.1f} s"
        )
