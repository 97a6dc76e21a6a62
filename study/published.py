"""A stand-in until models.py says what is published of v1, v2 and Final: then delete it.

`published(name)` is then `VARIANTS[name].published`; `published_log` and `AS_RUN` are models' own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from models import VARIANTS
from models import Published as Figures

AS_RUN = {name: VARIANTS[name] for name in VARIANTS if name != "final"}


@dataclass(frozen=True)
class Published:
    """What the page first said of a variant, what it was corrected to, what the log says."""

    page: Figures
    corrected: Figures
    log: Figures


def published_log(variant: str) -> list[dict[str, float]]:
    """The 20 records of a published log, of v1, v2 or final."""
    path = Path(__file__).with_name("published_logs.json")
    return json.loads(path.read_text(encoding="utf-8"))["variants"][variant]["epochs"]


def published(variant: str) -> Published | None:
    """What is published of a variant; None for those of this study's own."""
    page = VARIANTS[variant].published
    if page is None:
        return None
    accuracies = [record["test_accuracy"] for record in published_log(variant)]
    first = next(e for e, accuracy in enumerate(accuracies, 1) if accuracy >= 99)
    corrected = replace(page, first_epoch_at_99=first, gap=None)
    return Published(page, corrected, replace(corrected, final_accuracy=accuracies[-1]))
