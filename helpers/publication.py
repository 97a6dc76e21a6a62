"""What the publication says of each variant: by its page, by the page as corrected, by its logs.

Its page, notebooks and logs: https://github.com/roulupen/ERAV4, folder assignment-5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reported:
    """What one source says of one run of a variant; accuracies in per cent, None for not said."""

    parameters: int
    final_accuracy: float
    first_epoch_at_99: int
    accuracy_at_99: float | None
    convergence_rate: float | None
    epoch_1_train_accuracy: float
    epoch_1_test_accuracy: float
    gap: float | None = None  # test - train accuracy, percentage points


@dataclass(frozen=True)
class Published:
    """What is published of a variant: by the page, by the page as corrected, by the notebook's log.

    name: of the log, whose figures are computed from its 20 records.
    parameters_run: as the notebook counts them.
    """

    name: str
    page: Reported
    corrected: Reported
    parameters_run: int

    @property
    def log(self) -> Reported:
        """What the log says; its final accuracy is the last epoch's, as everywhere here."""
        records = published_log(self.name)
        accuracies = [record["test_accuracy"] for record in records]
        first = next(e for e, accuracy in enumerate(accuracies, 1) if accuracy >= 99)
        return Reported(
            self.parameters_run,
            accuracies[-1],
            first,
            accuracies[first - 1],
            None,
            records[0]["train_accuracy"],
            accuracies[0],
            accuracies[-1] - records[-1]["train_accuracy"],
        )


def published_log(name: str) -> list[dict[str, float]]:
    """The 20 records of the log of "v1", "v2" or "final": losses, and accuracies in per cent."""
    path = Path(__file__).with_name("published_logs.json")
    return json.loads(path.read_text(encoding="utf-8"))["variants"][name]["epochs"]


# github.com/roulupen/ERAV4, assignment-5/ReadMe.md at commit 3218c5b, and as f00fe49 corrects it.
V1 = Published(
    "v1",
    Reported(17_938, 99.36, 8, 99.13, 0.75, 70.51, 93.59, gap=2.4),
    Reported(17_938, 99.36, 8, None, 0.9, 70.51, 93.59),
    parameters_run=17_938,
)
V2 = Published(
    "v2",
    Reported(17_938, 99.38, 6, 99.20, 1.0, 77.69, 96.68),
    Reported(17_938, 99.38, 8, None, 0.9, 77.69, 96.68),
    parameters_run=17_938,
)
FINAL = Published(
    "final",
    Reported(18_434, 99.55, 4, 99.18, 1.5, 90.31, 98.76),
    Reported(18_434, 99.55, 5, None, 1.2, 90.31, 98.76),
    parameters_run=18_278,
)
