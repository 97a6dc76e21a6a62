"""The study: python -m study run trains what is missing, python -m study report compares the runs.

Without arguments run trains the 90 runs from the page, into results/runs; with --setting "as run"
the 80 as run, into results/as_run. It can be interrupted and killed: the next call resumes. rounds
and recipe are for the one-cycle schedule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.config import PROTOCOLS
from models import VARIANTS
from study.one_cycle import recipe
from study.report import report
from study.rounds import rounds
from study.runs import FOLDERS, SEEDS, run


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; what the user can mend ends it with one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="run | report | rounds | recipe")
    command = commands.add_parser("run", help="train the runs that are missing")
    command.set_defaults(do=run)
    command.add_argument(
        "--setting",
        choices=PROTOCOLS,
        default="from the page",
        metavar="SETTING",
        help='"from the page", unless told, or "as run"',
    )
    names = f"which of {', '.join(VARIANTS)}; all unless told"
    command.add_argument("--variants", nargs="+", default=(), metavar="NAME", help=names)
    seeds = f"{SEEDS[0]} to {SEEDS[-1]} unless told"
    command.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED", help=seeds)
    folders = " or ".join(map(str, FOLDERS.values()))
    command.add_argument("--folder", type=Path, help=f"of the runs: {folders} unless told")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, help="runs side by side; one per core unless told")
    where.add_argument("--scheduler", metavar="ADDRESS", help="run on a Dask cluster")
    for name, do, what in (
        ("rounds", rounds, "choose a one-cycle setting on held-out training images, in rounds"),
        ("recipe", recipe, "train the chosen setting with ten seeds, and draw the figure"),
    ):
        command = commands.add_parser(name, help=what)
        command.set_defaults(do=do)
        command.add_argument("--jobs", type=int, help="runs side by side; one per core unless told")
    command = commands.add_parser("report", help="compare the runs that are there")
    command.set_defaults(do=report)
    command.add_argument(
        "--folder", type=Path, default=FOLDERS["from the page"], help="of the runs: %(default)s"
    )
    command.add_argument("--out", type=Path, default=Path("results"), help="%(default)s")
    options = vars(parser.parse_args(arguments))
    do = options.pop("do")
    if do is run:
        options["config"] = PROTOCOLS[options.pop("setting")]
    try:
        do(**options)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run again to resume.")


if __name__ == "__main__":
    main()
