"""The study: check, run and compare networks; report on all runs.

Networks are experiments of study/experiments.py, or files such as examples/my_network.py. run can
be interrupted and killed: the next call resumes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from helpers.history import TRAIN_IMAGES
from models import TARGET_ACCURACY
from study.experiments import EXPERIMENTS, SEEDS
from study.runner import run


def train(names: Sequence[str], seeds: int | None, images: int, **options: object) -> None:
    """study.runner.run; the runs on fewer images go into a folder of their own, for a trial."""
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds is {seeds}; expected at least 1, how many.")
    chosen = seeds and range(SEEDS[0], SEEDS[0] + seeds)
    run(names, chosen, train_images=images, **options)


def later(module: str, name: str) -> Callable:
    """A function of a module that is imported when it is called: workers import this one, too."""
    return lambda **options: getattr(import_module(f"study.{module}"), name)(**options)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. What the user can mend ends it with one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="check | run | compare | report")

    def add(name: str, do: Callable, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(do=do)
        return command

    number = {"type": int, "metavar": "N"}
    trial = number | {"default": TRAIN_IMAGES, "help": "a trial on fewer images, under build/"}
    command = add("check", later("check", "command"), "describe a network before it is trained")
    command.add_argument("name", metavar="FILE", help="a .py file, or a name in models.NETWORKS")
    command.add_argument("--parameters", help="the most that are allowed", **number)
    goal = f"that all seeds have to reach in their last epochs, say {TARGET_ACCURACY}"
    command.add_argument("--accuracy", type=float, metavar="PERCENT", help=goal)
    command.add_argument("--last", default=3, help="epochs (%(default)s)", **number)
    command = add("run", train, "train the runs that are missing")
    names = f"a .py file, or one of {', '.join(EXPERIMENTS)}; all of these unless given"
    command.add_argument("names", nargs="*", metavar="NAME", help=names)
    seeds = f"how many seeds, from {SEEDS[0]} on; each experiment's own unless given"
    command.add_argument("--seeds", help=seeds, **number)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", help="runs side by side; one per core", **number)
    where.add_argument("--scheduler", metavar="ADDRESS", help="train on a Dask cluster")
    command.add_argument("--images", **trial)
    held_out = "measure on held-out writers, to choose settings without the test images"
    command.add_argument("--validation", action="store_true", help=held_out)
    command = add(
        "compare", later("compare", "compare"), "two networks: the difference, and a word"
    )
    sides = "a .py file, a network, EXPERIMENT/NETWORK, or a .csv file of accuracies"
    command.add_argument("one", metavar="ONE", help=sides)
    command.add_argument("other", metavar="OTHER", help="the same")
    looks = "the seeds were added in looks at 5, 10 and 20"
    command.add_argument("--looks", dest="by_looks", action="store_true", help=looks)
    command.add_argument("--to", metavar="FILE", help="also write it, as .json, .md or .png")
    command.add_argument("--images", **trial)
    add("report", later("report", "report"), "the tables, the report and its figures")
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
