"""What the publication says of its three networks, in a table beside our runs.

It is https://github.com/roulupen/ERAV4, folder assignment-5; docs/choices.md has its corrections.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers.checkpoint import MNIST_CHECKSUM
from helpers.history import History


class Numbers(NamedTuple):
    """What a source says of a network, or the means of several runs; accuracies in percent."""

    parameters: int
    first_train: float  # accuracy of epoch 1
    first: float  # test accuracy after epoch 1
    to_99: float | None  # the first epoch with a test accuracy of 99% or more
    final: float  # test accuracy


# ReadMe.md at commit 3218c5b; its final accuracies are of the best epochs, a log's of the last.
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
    text = Path(__file__).with_name("published_logs.json").read_text(encoding="utf-8")
    return json.loads(text)["variants"][name]["epochs"]


def of_records(records: list[dict[str, float]], parameters: int) -> Numbers:
    """The numbers of a run or a log, by its records per epoch."""
    test = [record["test_accuracy"] for record in records]
    to_99 = next((epoch for epoch, accuracy in enumerate(test, 1) if accuracy >= 99), None)
    return Numbers(parameters, records[0]["train_accuracy"], test[0], to_99, test[-1])


def beside_published(
    history: History, parameters: int, runs: str | Path = "results/runs.csv"
) -> pd.DataFrame:
    """A table of the page, its log, this run, and the mean of the study's runs of this network.

    A run by another config or on other data than theirs, or of a network that is not in the study,
    stands alone. parameters: the network's count. runs: what study.table writes.
    """
    columns, same = {}, pd.read_csv(runs, low_memory=False)
    expected = history.config | {"network": history.network, "train_images": history.train_images}
    for name in expected.keys() - {"seed"}:
        same = same[same[name] == expected[name]]
    same = same[~same.experiment.str.contains("/|notebooks")]  # but for rounds and teachers
    comparable = len(same) and history.data in (MNIST_CHECKSUM, None)
    name = history.network.removeprefix("original_")
    if comparable and name in PAGE:
        columns["the page"] = PAGE[name]
        columns["its log"] = of_records(published_log(name), LOG_PARAMETERS[name])
    columns["this run"] = of_records(history.epochs, parameters)
    if comparable:
        means = (same[key].mean() for key in Numbers._fields[1:])
        columns[f"mean of {len(same)} runs"] = Numbers(parameters, *means)
    rows = [
        ["never" if value is None else form.format(value) for value in values]
        for form, values in zip(ROWS.values(), zip(*columns.values(), strict=True), strict=True)
    ]
    return pd.DataFrame(rows, list(ROWS), list(columns))
