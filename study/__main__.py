"""The study: python -m study run trains what is missing; python -m study report compares the runs.

run can be interrupted and killed: the next call resumes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from study.experiments import EXPERIMENTS
from study.runner import run


def report() -> None:
    """study.report.report, whose libraries the workers, which import this module, do not need."""
    from study.report import report

    report()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. What the user can mend ends it with one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="run | report")
    command = commands.add_parser("run", help="train the runs that are missing")
    command.set_defaults(do=run)
    names = f"one of {', '.join(EXPERIMENTS)}; all unless given"
    command.add_argument("names", nargs="*", metavar="NAME", help=names)
    seeds = "train these seeds instead of each experiment's own"
    command.add_argument("--seeds", nargs="+", type=int, metavar="N", help=seeds)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="runs side by side; one per core")
    where.add_argument("--scheduler", metavar="ADDRESS", help="train on a Dask cluster")
    command = commands.add_parser("report", help="compare the runs that are there")
    command.set_defaults(do=report)
    options = vars(parser.parse_args(arguments))
    logging.disable(logging.CRITICAL)  # Dask's; what matters is raised
    try:
        options.pop("do")(**options)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; run again to resume.")


if __name__ == "__main__":
    main()
