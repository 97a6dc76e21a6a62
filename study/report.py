"""The report: runs.csv, epochs.csv, mistakes.csv, figures, and the tables of the project's pages.

All of it is written from the runs' files alone. The prose quotes no number; the tables do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from helpers.files import write_atomically
from helpers.mnist_files import MNIST, load_mnist, mnist_writers
from helpers.publication import published_log
from models import NETWORKS, TARGET_ACCURACY, count_parameters
from study import figures, handwriting, inference, leaderboard, protocol
from study.cells import ACCURACY_HEADER, accuracy_cells, cell, markdown, mean_interval
from study.experiments import EXPERIMENTS, RESULTS
from study.inference import estimate
from study.protocol import CLAIMS, CONTRASTS, MEASURES, PUBLISHED, SETTINGS
from study.table import Tables, load, write

TIMES = Path(__file__).parent.parent / "benchmarks" / "epoch_time.json"
PAGES = (  # that hold tables of ours
    "README.md",
    "results/report.md",
    "docs/handwriting.md",
    "docs/recipe.md",
    "benchmarks/README.md",
)
NOTEBOOKS = {
    "v1": "dropout after every block",
    "v2": "dropout after blocks 1 and 2",
    "Final": "batch normalization, dropout after blocks 1 to 3",
}


def report(project: str | Path = ".") -> None:
    """Write a project's CSV files and figures, into its results/, and the tables of its PAGES.

    Raises ValueError, and writes nothing, if a run is missing; OSError if a file cannot be written.
    """
    root = Path(project, RESULTS)
    tables, data = load(root), load_mnist()
    frame, board = inference.estimates(tables), leaderboard.entries(tables)
    drawn = {
        "doubtful": handwriting.hardest_figure(tables, data),
        "answer": figures.effects(frame, ["final"]),
        "effects": figures.effects(frame),
        "reproduction": figures.reproduction(tables),
        "leaderboard": leaderboard.leaderboard_figure(board),
    }
    files = {Path(root, f"{name}.png"): figure.png(figures.DPI) for name, figure in drawn.items()}
    made = page_tables(tables, data, frame, board)
    for path in (Path(project, name) for name in PAGES):
        files[path] = fill(path.read_text(encoding="utf-8"), made).encode()
    write(tables, root)
    for path, content in files.items():
        write_atomically(path, content)
    print(f"{Path(root, 'report.md')}: {len(tables.runs)} runs")


def page_tables(
    tables: Tables, data: MNIST, frame: pd.DataFrame, board: dict[str, leaderboard.Entry]
) -> dict[str, str]:
    """What PAGES name; frame is inference.estimates', board leaderboard.entries'."""
    pair, word = inference.pair_test(frame)
    return {
        "claims": claims_table(frame),
        "parts": parts_table(frame),
        "pair": f"{MEASURES['final'].write(pair.mean, *pair.interval())} points: {word}.",
        "reproduction": reproduction_table(tables),
        "contrasts": contrasts_table(frame),
        "variants": variants_table(tables),
        "peers": leaderboard.claims_of_peers_table(board),
        "notebooks": notebooks_table(tables, data),
        "leaderboard": leaderboard.leaderboard_table(board),
        "experiments": experiments_table(tables),
        "rounds": rounds_table(tables, "rounds/fast-"),
        "candidates": rounds_table(tables, "validation/networks/"),
        "times": times_table(),
        "writers": handwriting.writers_table(tables, data),
        "votes": handwriting.votes_table(tables, data),
    }


def fill(text: str, made: dict[str, str]) -> str:
    """A page with its tables written anew, each between <!-- NAME --> and <!-- end -->.

    Raises ValueError for a name that is not among those made.
    """
    for name in re.findall(r"<!-- (?!end)(.+?) -->", text):
        if name not in made:
            raise ValueError(f"there is no table {name!r}; choose from {', '.join(made)}.")
        pattern = rf"(?s)(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda match, name=name: f"{match[1]}{made[name]}\n{match[2]}", text)
    return text


# --- cells ----------------------------------------------------------------------------------------


def p_value(p: float) -> str:
    """A p value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def estimate_cell(effect: pd.Series, measure: str, formula: str) -> str:
    """An estimate with its interval: of a network's own number without a sign."""
    write = MEASURES[measure].write if formula in CONTRASTS else "{:.3f} [{:.3f}, {:.3f}]".format
    return write(effect["mean"], effect.low, effect.high)


def parameters(network: str) -> str:
    """17,938."""
    return f"{count_parameters(NETWORKS[network].build()):,}"


# --- tables ---------------------------------------------------------------------------------------


def claims_table(frame: pd.DataFrame) -> str:
    """Per claim and setting the word and the first part's estimate; and the claimed size."""
    words, rows = {setting: inference.verdicts(frame, setting) for setting in SETTINGS}, []
    for number, claim in enumerate(CLAIMS):
        measure, formula = claim.parts[0].measure, claim.parts[0].formula
        cells, sizes = [], []
        for setting in SETTINGS:
            effect, verdict = frame.loc[setting, measure, formula], words[setting].loc[number]
            ends = [MEASURES[measure].natural(effect[end]) for end in ("low", "high")]
            sizes.append(sum(bool(claim.size and claim.size > end) for end in ends))
            word = f"**{verdict.word}** (p {p_value(verdict.corrected)})"
            cells.append(f"{word}<br>{estimate_cell(effect, measure, formula)} {claim.unit}")
        # Whether the claimed mean lies below, in or above the intervals.
        sizes = {("larger", "not excluded", "smaller")[size] for size in sizes if claim.size}
        rows.append([f"{number + 1}. {claim.text}", *cells, " or ".join(sorted(sizes)) or "-"])
    return markdown(["claim of the page", *SETTINGS, "effect against the claimed size"], rows)


def parts_table(frame: pd.DataFrame) -> str:
    """Every part of every claim: estimate, p values and whether it is within the margin."""
    rows = []
    for number, part in ((n, part) for n, claim in enumerate(CLAIMS, 1) for part in claim.parts):
        cells = [f"{number}. {CONTRASTS.get(part.formula, part.formula)}"]
        for setting in SETTINGS:
            effect = frame.loc[setting, part.measure, part.formula]
            cells.append(estimate_cell(effect, part.measure, part.formula))
            cells.append(f"{p_value(effect.p)}; {p_value(effect.flip_p)}")
            cells.append("yes" if effect.within else "no")
        rows.append(cells)
    header = [f"{s}{column}" for s in SETTINGS for column in ("", " p: t; sign-flip", " within")]
    return markdown(["contrast or level", *header], rows)


def reproduction_table(tables: Tables) -> str:
    """A row per figure of the logs, a column per network."""
    frame, rows = inference.reproduction(tables), []
    marks = {True: "", False: " **outside**"}
    for figure, title in protocol.SIX.items():
        cells = [frame.loc[(network, figure)] for network in PUBLISHED]
        texts = (f"{c.log:.4g} in [{c.low:.4g}, {c.high:.4g}]{marks[c.inside]}" for c in cells)
        rows.append([title, *texts])
    rows.append(["rank of the curve", *(f"{c['rank']} of 11" for c in cells)])
    rows.append(["**reproduced**", *("**yes**" if c.reproduced else "**no**" for c in cells)])
    return markdown(["figure of the log", *PUBLISHED], rows)


def contrasts_table(frame: pd.DataFrame) -> str:
    """A row per contrast of accuracy and of speed: both settings, whether they are the same."""
    rows, header, between = [], ["contrast"], inference.between_settings(frame)
    for formula, title in CONTRASTS.items():
        if formula == protocol.WITHOUT_BN:  # the reverse of BN
            continue
        cells = [title]
        for name in ("final", "log_error"):
            for setting in SETTINGS:
                effect = frame.loc[setting, name, formula]
                mark = "**" if effect.p < inference.ALPHA else ""
                cells.append(f"{mark}{estimate_cell(effect, name, formula)}{mark}")
            cells.append(between.loc[(name, formula), "word"])
        rows.append(cells)
    for title in ("final accuracy", "learning speed"):
        header += [f"{title}: {column}" for column in (*SETTINGS, "between settings")]
    return markdown(header, rows)


def variants_table(tables: Tables) -> str:
    """A row per network of both settings."""
    rows = []
    for setting in SETTINGS:
        for network in EXPERIMENTS[setting].networks:
            runs = tables.of(setting, network)
            more = [f"{runs.final.min():.2f} to {runs.final.max():.2f}"]
            more += [mean_interval(runs["first"], 2), mean_interval(runs.to_99, 1)]
            rows.append([network, parameters(network), *accuracy_cells(runs), *more])
    header = [*ACCURACY_HEADER, "lowest to highest", "after epoch 1, %", "epochs to 99%"]
    return markdown(["network", "parameters", *header], rows)


def experiments_table(tables: Tables) -> str:
    """The recipes' runs on all images: a row per experiment and network."""
    recipes = tables.runs[tables.runs.experiment.str.match("fast|recipe/|networks/")]
    groups = recipes.groupby(["experiment", "network"], sort=False)
    rows = [[*name, f"{len(r)}", f"{r.epochs.iloc[0]}", *accuracy_cells(r)] for name, r in groups]
    return markdown(["experiment", "network", "runs", "epochs", *ACCURACY_HEADER], rows)


def notebooks_table(tables: Tables, data: MNIST) -> str:
    """README's: what each notebook trains, its run, ten seeds, the published log's last epoch."""
    rows, people = [], mnist_writers("test", data.test_labels).writer
    for name, what in NOTEBOOKS.items():
        run, network = tables.of("notebooks", name.lower()), name.lower()
        published = f"{published_log(network)[-1]['test_accuracy']:.2f}"
        values = handwriting.accuracies(tables, "page", network)
        seeds = [
            cell(estimate(values.mean(axis=1))),
            cell(handwriting.over_writers(values, people))[7:],
        ]
        link = f"[{name}](MNIST_Classifier_{name}.ipynb)"
        rows.append([link, what, parameters(network), *map("{:.2f}".format, run.final), *seeds])
        rows[-1].append(published)
    header = ["trains", "parameters", "this run, %", "ten seeds, %", "for other writers"]
    header.append("published log, %")
    return markdown(["notebook", *header], rows)


def rounds_table(tables: Tables, pattern: str) -> str:
    """What was tried on held-out writers: a row per candidate, best first."""
    runs = tables.runs[tables.runs.experiment.str.match(pattern)]
    groups, rows = runs.groupby(["experiment", "epochs"]).final, []
    for (name, epochs), final in sorted(groups, key=lambda group: -group[1].mean()):
        seeds = ", ".join(map("{:.2f}".format, sorted(final)))
        rows.append([name.split("/")[-1], f"{epochs}", f"{final.mean():.3f}", seeds])
    return markdown(["candidate", "epochs", "held-out accuracy, %", "by seed"], rows)


def times_table() -> str:
    """What make bench measured, a row per network and loop."""
    rows = []
    for name, row in json.loads(TIMES.read_text())["loops"].items():
        ratio = "{ratio:.1f} ({ratio_min:.1f} to {ratio_max:.1f})".format(**row)
        target = [f"{row.get(key, '')}" for key in ("epochs_to_target", "seconds_to_target")]
        target[1] = target[1] and f"{float(target[1]):.0f}"
        rows.append([name, f"{row['seconds_per_epoch']:.1f}", *target, ratio])
    header = ["seconds an epoch", f"epochs to {TARGET_ACCURACY}%", "seconds to it", "times as fast"]
    return markdown(["network, loop", *header], rows)
