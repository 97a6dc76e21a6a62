"""What the publication says of its three networks, and one table of that beside our runs.

Its page, notebooks and logs: https://github.com/roulupen/ERAV4, folder assignment-5.
docs/choices.md has what its author corrected on the same day.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from helpers.history import History


class Numbers(NamedTuple):
    """What a source says of a network, or the means of several runs; accuracies in percent."""

    parameters: int
    first_train: float  # accuracy of epoch 1
    first: float  # test accuracy after epoch 1
    to_99: float | None  # the first epoch with a test accuracy of 99% or more
    final: float  # test accuracy


# ReadMe.md at commit 3218c5b. Its final accuracies are those of the best epochs, picked on the test
# set; a log's and ours are the last epoch's.
PAGE = {
    "v1": Numbers(17_938, 70.51, 93.59, 8, 99.36),
    "v2": Numbers(17_938, 77.69, 96.68, 6, 99.38),
    "final": Numbers(18_434, 90.31, 98.76, 4, 99.55),
}
LOG_PARAMETERS = {"v1": 17_938, "v2": 17_938, "final": 18_278}  # as its notebooks count them
ROWS = {
    "parameters": "{:,.0f}",
    "epoch 1, train accuracy, %": "{:.2f}",
    "epoch 1, test accuracy, %": "{:.2f}",
    "first epoch at 99% (test)": "{:.3g}",
    "final test accuracy, %": "{:.2f}",
}


def published_log(name: str) -> list[dict[str, float]]:
    """The 20 records of the log of "v1", "v2" or "final": losses, and accuracies in percent."""
    path = Path(__file__).with_name("published_logs.json")
    return json.loads(path.read_text(encoding="utf-8"))["variants"][name]["epochs"]


def of_records(records: list[dict[str, float]], parameters: int) -> Numbers:
    """The numbers of a run or a log, by its records per epoch."""
    test = [record["test_accuracy"] for record in records]
    to_99 = next((epoch for epoch, accuracy in enumerate(test, 1) if accuracy >= 99), None)
    return Numbers(parameters, records[0]["train_accuracy"], test[0], to_99, test[-1])


def beside_published(
    history: History, parameters: int, runs: str | Path = "results/runs.csv"
) -> pd.DataFrame:
    """A table of the page, its log, this run, and the mean of the study's runs of this network.

    A run by another config than theirs, or of a network that is not in the study, stands alone.

    parameters: the network's count.
    runs: what study.table writes.
    """
    import pandas as pd

    columns, study = {}, pd.read_csv(runs, low_memory=False)
    same = study[study.network == history.network]
    for name, value in history.config.items():
        same = same[same[name] == value] if name != "seed" else same
    same = same[same.train_images == history.train_images]
    same = same[~same.experiment.str.contains("/|notebooks")]  # but for rounds and teachers
    name = history.network.removeprefix("original_")
    if len(same) and name in PAGE:
        columns["the page"] = PAGE[name]
        columns["its log"] = of_records(published_log(name), LOG_PARAMETERS[name])
    columns["this run"] = of_records(history.epochs, parameters)
    if len(same):
        means = (same[key].mean() for key in Numbers._fields[1:])
        columns[f"mean of {len(same)} runs"] = Numbers(parameters, *means)
    texts = {
        column: [
            "never" if v is None else form.format(v)
            for v, form in zip(numbers, ROWS.values(), strict=True)
        ]
        for column, numbers in columns.items()
    }
    return pd.DataFrame(texts, index=list(ROWS))
