"""The README says what the code and the results say."""

import re

import pytest

from helpers.history import History
from models import LAYOUT, VARIANTS, count_parameters
from tests.helpers import PROJECT


@pytest.fixture(scope="module")
def readme():
    return (PROJECT / "README.md").read_text(encoding="utf-8")


def measured_rows():
    """The rows of the table of published against measured figures, two columns a variant."""
    columns = []
    for name in ("v1", "v2", "final"):
        variant = VARIANTS[name]
        p, h = variant.published, History.load(PROJECT / "results" / f"{name}.json")
        first, reached = h.epochs[0], h.first_epoch_at_99
        rate = f"{h.convergence_rate:.2f}" if reached else "not reached"
        columns.append(
            {
                "parameters": (f"{p.parameters:,}", f"{count_parameters(variant.network()):,}"),
                "epoch 1, train accuracy": (
                    f"{p.epoch_1_train_accuracy:.2f} %",
                    f"{first['train_accuracy']:.2f} %",
                ),
                "epoch 1, test accuracy": (
                    f"{p.epoch_1_test_accuracy:.2f} %",
                    f"{first['test_accuracy']:.2f} %",
                ),
                "first epoch at 99 %+": (f"{p.first_epoch_at_99}", f"{reached or 'not reached'}"),
                "convergence rate": (f"{p.convergence_rate:.2f}", rate),
                "**final test accuracy**": (
                    f"{p.final_accuracy:.2f} %",
                    f"**{h.final_accuracy:.2f} %**",
                ),
                "best epoch (picked on the test set)": ("", f"{h.best_accuracy:.2f} %"),
                "gap, test - train": (
                    "" if p.gap is None else f"{p.gap:+.1f}",
                    f"{h.gap:+.2f}",
                ),
                "epochs run": ("", f"{len(h.epochs)}"),
            }
        )
    for row in columns[0]:
        yield " | ".join(["| " + row, *(f"{c[row][0]} | {c[row][1]}" for c in columns)]) + " |"


def test_the_table_of_measured_figures_is_that_of_the_results(readme):
    for row in measured_rows():
        assert row in readme


@pytest.fixture(scope="module")
def report():
    return (PROJECT / "results" / "pilot" / "comparison.md").read_text(encoding="utf-8")


def test_the_verdicts_are_those_of_the_report(readme, report):
    verdicts = re.findall(r"^### (\d\. .+): (\*\*.+\*\*)$", report, re.MULTILINE)
    assert len(verdicts) == 5
    for claim, verdict in verdicts:
        assert f"| {claim} | {verdict} |" in readme


def test_every_mean_with_its_interval_is_in_the_report(readme, report):
    found = re.findall(r"[+-]?\d+\.\d+ \[[+-]?\d+\.\d+, [+-]?\d+\.\d+\]", readme)
    assert len(found) >= 5
    for interval in found:
        assert f" {interval}" in report, interval


def layout_rows():
    """The rows of the layout table: block, input channels, convolutions, weights, map."""
    channels, size = 1, 28
    for block, convs in enumerate(LAYOUT, start=1):
        given, weights = channels, 0
        for kernel, width in convs:
            weights += channels * width * kernel**2
            channels = width
        spelled = ", ".join(f"{kernel}x{kernel} {width}" for kernel, width in convs)
        yield f"| {block} | {given} | {spelled} | {weights:,} | {size}x{size} |"
        size //= 2


def test_the_layout_table_is_the_network(readme):
    for row in layout_rows():
        assert row in readme


def test_every_make_target_the_readme_names_exists_and_the_other_way_round(readme):
    makefile = (PROJECT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make (?:-j2 )?([a-z]+)\b", readme, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE)) - {"data"}
    assert named == targets


def test_every_file_the_readme_links_exists(readme):
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    assert links
    for link in links:
        assert link.startswith("https://") or (PROJECT / link).exists(), link
