"""The public networks of peers/: what their authors claim, and what ten seeds give."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from study.cells import ACCURACY_HEADER, accuracy_cells, markdown, mean_interval
from study.experiments import SEEDS
from study.inference import prediction_interval
from study.network_file import load_network_file
from study.table import Tables


def peers(tables: Tables) -> dict[str, tuple[float, pd.DataFrame]]:
    """The public networks all of whose runs are in: what is claimed (%), and the runs."""
    complete = {}
    for path in sorted(Path(__file__).parent.parent.glob("peers/*.py")):
        file = load_network_file(path)
        runs = tables.runs[tables.runs.network == file.name]
        if len(runs) == len(SEEDS):
            complete[path.stem] = float(re.search(r"CLAIM = ([\d.]+)", file.text)[1]), runs
    return complete


def peers_table(tables: Tables) -> str:
    """The public networks: the claim against one more run, the mean less the claim."""
    rows = []
    for name, (claim, runs) in peers(tables).items():
        low, high = prediction_interval(runs.final)
        plausible = "yes" if low - 1e-9 <= claim <= high + 1e-9 else "**no**"
        source = f"[{name.rpartition('_')[0]}](../peers/{name}.py)"
        difference = mean_interval(runs.final - claim)
        count = f"{int(name.rpartition('_')[2]):,}"
        rows.append([source, count, f"{claim:.2f}", plausible, difference, *accuracy_cells(runs)])
    header = ["parameters", "claim, %", "a plausible run", "mean - claim", *ACCURACY_HEADER]
    return markdown(["public network", *header], rows)
