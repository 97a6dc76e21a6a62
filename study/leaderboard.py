"""The leaderboard: public networks and ours by the mean of ten seeds; what authors claim."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.publication import published_log
from models import NETWORKS, TARGET_ACCURACY
from study.cells import ACCURACY_HEADER, accuracy_cells, markdown, mean_interval
from study.check import describe
from study.experiments import EXPERIMENTS, SEEDS, Experiment
from study.figures import WIDTH, legend, tidy
from study.inference import estimate, prediction_interval
from study.network_file import find_experiment, from_text
from study.table import Tables
from Visualization import BLUE, GRAY, VERMILLION, NotebookFigure

PROJECT = Path(__file__).parent.parent
OURS = {  # experiment and network; the publication's own is Final in the original setting
    "Final": ("page", "final"),
    "roulupen_final": ("original", "original_final"),
    "fast": ("fast", "fast"),
}


class Entry(NamedTuple):
    """A network: its facts, seconds an epoch by make bench, its runs, its author's claim (%).

    link: the file that defines it.
    """

    link: str
    parameters: int
    multiply_adds: int
    seconds: float
    runs: pd.DataFrame
    claim: float | None


def networks() -> dict[str, tuple[str, str, Experiment]]:
    """Those of peers/, of networks/ and ours: the experiment's name, the network's, and it."""
    files = sorted(PROJECT.glob("peers/*.py")) + sorted(PROJECT.glob("networks/*.py"))
    board = {name: (*place, EXPERIMENTS[place[0]]) for name, place in OURS.items()}
    for path in files:
        experiment = find_experiment(str(path))
        [network] = experiment.networks
        board[path.stem] = f"{path.parent.name}/{network}", network, experiment
    return board


def entries(tables: Tables) -> dict[str, Entry]:
    """The networks whose runs are all in and whose epochs were timed, best first."""
    seconds = json.loads((PROJECT / "benchmarks/epoch_time.json").read_text())["networks"]
    complete, published = {}, {"roulupen_final": published_log("final")[-1]["test_accuracy"]}
    for name, (place, network, experiment) in networks().items():
        runs, text = tables.of(place, network), experiment.text
        if len(runs) == len(SEEDS) and name in seconds:
            build = from_text(name, text).network if text else NETWORKS[network].build
            facts, claim = describe(build()), re.search(r"CLAIM = ([\d.]+)", text)
            claim = float(claim[1]) if claim else published.get(name)
            link = f"{place.partition('/')[0]}/{name}.py" if text else "models.py"
            counts = facts["parameters"], facts["multiply_adds"], seconds[name]
            complete[name] = Entry(link, *counts, runs, claim)
    return dict(sorted(complete.items(), key=lambda item: -item[1].runs.final.mean()))


def leaderboard_table(board: dict[str, Entry]) -> str:
    """README's: a row per network."""
    rows = []
    for name, entry in board.items():
        title = name.rpartition("_")[0] if entry.claim else f"**{name}**"
        link, claim = f"[{title}]({entry.link})", f"{entry.claim:.2f}" if entry.claim else ""
        mean, *shares = accuracy_cells(entry.runs)[:3]
        facts = [
            f"{entry.parameters:,}",
            f"{entry.multiply_adds / 1e6:.2f}",
            f"{entry.seconds:.0f}",
        ]
        rows.append([link, mean, claim, *shares, *facts])
    header = ["claim, %", *ACCURACY_HEADER[1:3], "parameters", "million multiply-adds"]
    return markdown(["network", ACCURACY_HEADER[0], *header, "seconds an epoch"], rows)


def claims_of_peers_table(board: dict[str, Entry]) -> str:
    """The report's: each claim against the 95% interval of one more run, and the mean less it."""
    rows = []
    for name, entry in board.items():
        if entry.claim:
            low, high = prediction_interval(entry.runs.final)
            plausible = "yes" if low - 1e-9 <= entry.claim <= high + 1e-9 else "**no**"
            interval, difference = f"[{low:.2f}, {high:.2f}]", entry.runs.final - entry.claim
            rows.append([name.rpartition("_")[0], f"{entry.claim:.2f}", interval, plausible])
            rows[-1].append(mean_interval(difference))
    header = ["claim, %", "one more run", "a plausible run", "mean - claim"]
    return markdown(["public network", *header], rows)


def leaderboard_figure(board: dict[str, Entry]) -> NotebookFigure:
    """Accuracy against parameters, and against seconds an epoch: seeds, mean, interval, claim."""
    figure = NotebookFigure(6.4, WIDTH)
    panels = zip(figure.subplots(2, 1, sharey=True), ("parameters", "seconds"), strict=True)
    for axes, fact in panels:
        axes.axhline(TARGET_ACCURACY, color=GRAY, linestyle=":", linewidth=1.2)
        for entry in board.values():
            x, final = getattr(entry, fact), entry.runs.final
            dots = {"color": BLUE, "alpha": 0.3, "markersize": 4}
            axes.plot([x] * len(final), final, "o", **dots, label="one seed")
            half = np.ptp(estimate(final).interval()) / 2
            axes.errorbar(x, final.mean(), yerr=half, fmt="kD", label="mean, 95% interval")
            if entry.claim:
                cross = {"color": VERMILLION, "markersize": 8, "markeredgewidth": 2}
                axes.plot(x, entry.claim, "x", **cross, label="claimed")
        axes.set_xlabel(f"{fact}{' an epoch, one thread' * (fact == 'seconds')}", fontsize=10)
        axes.set_ylabel("test accuracy (%)", fontsize=10)
        tidy(axes, "both")
    return legend(figure, 3)
