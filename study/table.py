"""Every run as one row: results/**/*.json become runs.csv, epochs.csv and mistakes.csv."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.files import write_atomically
from helpers.history import TEST_IMAGES, History
from models import TARGET_ACCURACY
from study.experiments import EXPERIMENTS, RESULTS

THRESHOLDS = (98, 98.5, 99, TARGET_ACCURACY)  # test accuracies, percent


class Tables(NamedTuple):
    """All runs below a folder.

    runs: a row per run: experiment, network, seed, status, the measures of PROTOCOL.md, then the
        config, the environment and the digests. "run" names a run in all three.
    epochs: a row per run and epoch.
    mistakes: a row per run and misclassified test image, with the digit it was taken for.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    mistakes: pd.DataFrame

    def of(self, experiment: str, network: str = "") -> pd.DataFrame:
        """The runs of an experiment, or of one network in it."""
        runs = self.runs[self.runs.experiment == experiment]
        return runs[runs.network == network] if network else runs


def load(root: str | Path = RESULTS) -> Tables:
    """The runs below a folder, in the order of EXPERIMENTS and of their files' names.

    Raises ValueError for a JSON file that is no run, or one whose records contradict each other.
    """
    names = {RESULTS: "notebooks"} | {e.folder: name for name, e in EXPERIMENTS.items()}
    runs, epochs, mistakes = [], [], []
    places = {Path(root, folder.relative_to(RESULTS)): n for n, folder in enumerate(names)}
    paths = Path(root).rglob("*.json")
    for path in sorted(paths, key=lambda path: (places.get(path.parent, len(places)), path)):
        history = History.load(path)
        whole = history.status != "diverged"
        folder = path.parent.relative_to(root)
        experiment = names.get(RESULTS / folder, folder.as_posix())
        run = f"{experiment}/{history.network}-{history.seed}"
        table = pd.DataFrame(history.epochs)
        table.insert(0, "epoch", range(1, len(table) + 1))
        table.insert(0, "run", run)
        runs.append(
            {
                "run": run,
                "experiment": experiment,
                "network": history.network,
                "seed": history.seed,
                "status": history.status,
                **(measures(table, history.config["epochs"]) if whole else {}),
                "train_images": history.train_images,
                "clean_train_accuracy": (history.clean_train or {}).get("accuracy"),
                **{k: v for k, v in history.config.items() if k != "seed"},
                **history.environment,
                **{name: getattr(history, name) for name in ("code", "weights", "data")},
            }
        )
        epochs.append(table)
        wrong = pd.DataFrame(history.misclassified or [], columns=["image", "digit"], dtype=int)
        errors = round(TEST_IMAGES * (1 - history.final_accuracy / 100)) if whole else len(wrong)
        if history.misclassified is not None and len(wrong) != errors:
            raise ValueError(
                f"{path} has {len(wrong)} misclassified images, and by its last test accuracy "
                f"there are {errors}: move it away and run again."
            )
        mistakes.append(wrong.assign(run=run)[["run", "image", "digit"]])
    if not runs:
        raise ValueError(f"{root} holds no runs: python -m study run trains them.")
    tables = Tables(pd.DataFrame(runs), pd.concat(epochs), pd.concat(mistakes))
    if (twice := tables.runs.run[tables.runs.run.duplicated()]).any():
        raise ValueError(f"{root} holds the run {twice.iloc[0]} twice: move one away.")
    return Tables(*(frame.reset_index(drop=True) for frame in tables))


def measures(epochs: pd.DataFrame, planned: int) -> dict[str, float]:
    """The measures of PROTOCOL.md of one run; accuracies and errors in percent.

    epochs: its records, one row each. An accuracy that is never reached counts as reached one epoch
    after the planned ones: the mean over runs is a restricted mean (Royston and Parmar 2013).
    """
    test, train = epochs.test_accuracy, epochs.train_accuracy
    return {
        "epochs_run": len(epochs),
        "final": test.iloc[-1],
        "best": test.max(),
        "first": test.iloc[0],
        "log_error": np.log(100 - test[:7]).mean(),  # before the first drop of the learning rate
        "first_train": train.iloc[0],
        "last_train": train.iloc[-1],
        "gap": test.iloc[-1] - train.iloc[-1],
        **{f"to_{t:g}": _first(test >= t, planned + 1) for t in THRESHOLDS},
        # The assignments behind such networks ask for it "consistently in the last epochs".
        **{f"last_{n}": bool((test[-n:] >= TARGET_ACCURACY).all()) for n in (3, 5)},
    }


def _first(reached: pd.Series, never: int) -> int:
    return int(np.argmax(reached)) + 1 if reached.any() else never


def write(tables: Tables, root: str | Path = RESULTS) -> None:
    """Write the three files; the same runs give the same bytes. Raises OSError if it cannot."""
    for name, frame in tables._asdict().items():
        write_atomically(Path(root, f"{name}.csv"), frame.to_csv(index=False).encode())
