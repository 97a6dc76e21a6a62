"""Other people's handwriting: intervals over writers, the test set's halves, doubtful labels."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.history import TEST_IMAGES
from helpers.mnist_files import MNIST, mnist_writers
from study.cells import cell, markdown
from study.experiments import EXPERIMENTS
from study.inference import Estimate, estimate
from study.protocol import BN, CONTRASTS, SETTINGS
from study.table import Tables
from Visualization import NotebookFigure, plot_pictures

VOTES = Path(__file__).parent.parent / "helpers" / "mnist_label_votes.csv"
FORMULAS = ("final", "v1", "v2", "final - v1", "final - v2", BN)  # of the claims on accuracy
HARD = ("page", "final")  # the runs whose hardest images are drawn
NO_DIGIT = {"no majority": "?", "not asked": "\N{EN DASH}"}  # and what a caption has for them


def accuracies(tables: Tables, experiment: str, formula: str) -> np.ndarray:
    """A contrast of networks for every seed and test image, in points: float [seeds, images].

    formula: of names as in study.protocol, evaluated on 100 for each correct answer and 0 for each
        misclassified image; or a network's name.
    """
    prefix, correct = SETTINGS.get(experiment, ""), {}
    for network in EXPERIMENTS[experiment].networks:
        runs = tables.of(experiment, network).sort_values("seed").run
        wrong = tables.mistakes[tables.mistakes.run.isin(runs)]
        correct[network.removeprefix(prefix)] = values = np.full((len(runs), TEST_IMAGES), 100.0)
        values[pd.Index(runs).get_indexer(wrong.run), wrong.image] = 0.0
    correct.setdefault("v2_bn", correct.get("final"))  # in the original setting it is Final
    return eval(formula, {}, correct)


def over_writers(values: np.ndarray, of: np.ndarray) -> Estimate:
    """The mean of float [seeds, images], with the error that it has for other seeds and writers.

    of: who wrote each image. The variance is that over seeds plus the jackknife's over writers.
    Either contains the interaction of both, so the sum has it once too often and is a little too
    large, by less than the pigeonhole bootstrap's (Owen 2007, arXiv:0712.1111). The degrees of
    freedom are those of the fewer, as Cameron, Gelbach and Miller (2011) advise.
    """
    codes, mean = pd.factorize(of)[0], values.mean()
    sizes, totals = np.bincount(codes), np.bincount(codes, values.mean(axis=0))
    without = (totals - mean * sizes) / (sizes.sum() - sizes)  # how far each writer moves the mean
    seeds = estimate(values.mean(axis=1))
    error = sqrt(seeds.error**2 + np.square(without).sum())
    return Estimate(float(mean), error, min(seeds.freedom, len(sizes) - 1))


def writers_table(tables: Tables, data: MNIST) -> str:
    """Levels and contrasts of final accuracy over seeds, over seeds and writers, and by half."""
    table, rows = mnist_writers("test", data.test_labels), []
    halves = [table.series == series for series in (4, 0)]
    for setting in SETTINGS:
        for formula in FORMULAS:
            values = accuracies(tables, setting, formula)
            cells = [cell(estimate(values.mean(axis=1)))]
            for part in (table.series >= 0, *halves):
                cells.append(cell(over_writers(values[:, part], table.writer[part])))
            rows.append([f"{CONTRASTS.get(formula, formula)}, {setting}", *cells])
    header = ["over seeds", "over seeds and writers", "students' digits", "employees' digits"]
    return markdown(["final accuracy, %", *header], rows)


def hardest(tables: Tables) -> pd.DataFrame:
    """The test images that some seeds of HARD get wrong: a row each, by index.

    wrong: in what part of the runs; answer: the most frequent one; vote: what people whom
    Northcutt, Athalye and Mueller asked (2021, arXiv:2103.14749) took the digit for, "no majority",
    or "not asked".
    """
    runs = tables.of(*HARD)
    digits = tables.mistakes[tables.mistakes.run.isin(runs.run)].groupby("image").digit
    table = pd.DataFrame(
        {"wrong": digits.size() / len(runs), "answer": digits.agg(lambda d: d.mode()[0])}
    )
    votes = pd.read_csv(VOTES, index_col=0)
    counts = votes[["votes_given", "votes_guessed"]]
    votes["vote"] = np.where(counts.votes_given > counts.votes_guessed, votes.given, votes.guessed)
    clear = 2 * counts.max(axis=1) > votes.filter(like="votes_").sum(axis=1)
    votes["vote"] = votes.vote.astype(str).where(clear, "no majority")
    return table.join(votes.vote).fillna({"vote": "not asked"})


def votes_table(tables: Tables, data: MNIST) -> str:
    """Errors a run by what the vote says of the label."""
    table = hardest(tables)
    labels = data.test_labels[table.index].numpy().astype(str)
    kinds = table.vote.where(table.vote.isin(NO_DIGIT), "another digit")
    groups = table.groupby(kinds.mask(table.vote == labels, "the label")).wrong
    rows = [[kind, f"{(wrong > 0.5).sum()}", f"{wrong.sum():.1f}"] for kind, wrong in groups]
    return markdown(["the vote is for", "images wrong in most runs", "errors a run"], rows)


def hardest_figure(tables: Tables, data: MNIST) -> NotebookFigure:
    """The images that most runs get wrong, with label, vote and answer."""
    cells = []
    for index, row in hardest(tables).query("wrong > 0.5").iterrows():
        vote = NO_DIGIT.get(row.vote, row.vote)
        cells.append(
            (data.test_images[index], f"{data.test_labels[index]} / {vote} / {row.answer}")
        )
    return plot_pictures(cells, 6, "label / people's vote / networks' answer")
