"""The report, its figures and README: as the committed runs give them, and no link is dead."""

import re
import shutil

import numpy as np
import pytest

from study import figures
from study.cells import mean_interval, share
from study.experiments import FAST_EPOCHS
from study.inference import estimate, estimates
from study.leaderboard import entries, leaderboard_figure, leaderboard_table
from study.protocol import BN, LATE, LATE_BN
from study.report import PAGES, fill, page_tables, report
from study.table import load
from tests.helpers import PROJECT

RESULTS = PROJECT / "results"
LINKED = [*PROJECT.glob("*.md"), RESULTS / "report.md", PROJECT / "benchmarks" / "README.md"]
LINKED += (PROJECT / "docs").glob("*.md")


@pytest.fixture(scope="module")
def tables():
    return load(RESULTS)


@pytest.fixture(scope="module")
def frame(tables):
    return estimates(tables)


@pytest.fixture(scope="module")
def board(tables):
    return entries(tables)


def test_the_pages_tables_are_what_the_runs_give(tables, frame, board, mnist):
    made, pages = page_tables(tables, mnist, frame, board), {}
    for name in PAGES:
        pages[name] = (PROJECT / name).read_text(encoding="utf-8")
        assert fill(pages[name], made) == pages[name], name
    assert {*re.findall("<!-- (?!end)(.+?) -->", "".join(pages.values()))} == {*made}
    damaged = re.sub(r"(?m)^\| 1\. .*$", "| nonsense |", readme := pages["README.md"])
    assert damaged != readme and fill(damaged, made) == readme
    with pytest.raises(ValueError, match="there is no table 'clams'; choose from claims, "):
        fill(readme.replace("<!-- claims -->", "<!-- clams -->"), made)


def test_what_readme_says_in_words_is_what_the_tables_say(tables, frame):
    """Batch normalization alone matters; FAST_EPOCHS are the first whose interval passes."""
    for setting in ("page", "original"):
        final = frame.loc[setting].loc["final"]
        assert final.loc[BN].low > 0.10 and final.loc[LATE].within and final.loc[LATE_BN].within
    fast = tables.runs[tables.runs.experiment.str.fullmatch(r"fast(-\d)?")].groupby("epochs").final
    lows = {epochs: estimate(values).interval()[0] for epochs, values in fast}
    assert min(epochs for epochs, low in lows.items() if low > 99.4) == FAST_EPOCHS


@pytest.mark.slow
def test_the_command_writes_everything_again_or_nothing(tmp_path):
    heavy = shutil.ignore_patterns("*.csv", "*.png", "*.safetensors", "*.pt")
    shutil.copytree(RESULTS, tmp_path / "results", ignore=heavy)
    for folder in ("docs", "benchmarks"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    (tmp_path / "README.md").write_text("<!-- another -->")
    with pytest.raises(ValueError, match="there is no table 'another'"):
        report(tmp_path)
    assert not list((tmp_path / "results").glob("*.csv"))
    shutil.copy(PROJECT / "README.md", tmp_path)
    (tmp_path / "results" / "report.md").write_text("<!-- claims -->\n<!-- end -->")
    report(tmp_path)
    assert "1. Dropout" in (tmp_path / "results" / "report.md").read_text()
    for name in ("results/runs.csv", "results/epochs.csv", "results/mistakes.csv", "README.md"):
        assert (tmp_path / name).read_bytes() == (PROJECT / name).read_bytes(), name
    for name in ("answer", "effects", "reproduction", "leaderboard", "doubtful"):
        assert (tmp_path / "results" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (RESULTS / f"{name}.png").exists()


def test_numbers_are_written_with_their_intervals():
    assert mean_interval([99.4, 99.5, 99.6]) == "99.500 [99.252, 99.748]"
    assert mean_interval([99.4, 99.5], 1) == "99.5"
    assert share(np.array([True, False, True])) == "2 of 3"


def test_the_effects_figure_shows_the_estimates(frame):
    final, speed, epochs = figures.effects(frame).axes
    drawn = sorted(line.get_xdata()[0] for line in final.lines if line.get_marker() in ("o", "D"))
    expected = [frame.loc[s, "final", f]["mean"] for s in figures.LOOKS for f in figures.EFFECTS]
    assert drawn == pytest.approx(sorted(expected))
    assert (speed.get_xscale(), epochs.get_xscale()) == ("log", "log")
    assert [t.get_text() for t in final.get_yticklabels()] == list(figures.EFFECTS.values())


def test_the_other_figures_show_every_run_and_log(tables):
    axes = figures.reproduction(tables).axes
    assert [a.get_title() for a in axes] == ["v1", "v2", "Final"]
    assert all(len(line.get_xdata()) == 20 for a in axes for line in a.lines)
    rows = {name: tables.of("page", name).final.tolist() for name in ("v1", "final")}
    (axes,) = figures.accuracies(rows).axes
    dots = [x for line in axes.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert dots == [value for values in rows.values() for value in values]


def test_the_leaderboard_has_every_network_whose_runs_are_in_and_their_claims(board):
    assert {"Final", "fast"} <= set(board) and all(len(e.runs) == 10 for e in board.values())
    means = [entry.runs.final.mean() for entry in board.values()]
    assert means == sorted(means, reverse=True)
    assert board["fast"].parameters == 19_370 and board["fast"].claim is None
    assert leaderboard_table(board).count("\n") == len(board) + 1
    claims = [entry.claim for entry in board.values() if entry.claim]
    for axes in leaderboard_figure(board).axes:
        crosses = [line.get_ydata() for line in axes.lines if line.get_marker() == "x"]
        assert [y for [y] in crosses] == claims


@pytest.mark.parametrize("path", LINKED, ids=lambda path: f"{path.relative_to(PROJECT)}")
def test_no_link_is_dead(path):
    text = path.read_text(encoding="utf-8")
    links = [a or b for a, b in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text)]
    for link in links:
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            assert (path.parent / target).exists(), link
            assert not anchor or target or f"# {anchor}".replace("-", " ") in text.lower(), link


def test_every_command_that_readme_names_is_there():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    commands = set(re.findall(r"`make (\w+)", text))
    assert {"lab", "report", "notebooks", "study", "test", "bench"} <= commands
    for command in commands:
        assert re.search(rf"(?m)^{command}:", makefile) or f".PHONY: {command}" in makefile, command
