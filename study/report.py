"""The report: what the protocol's runs say, as Markdown and figures, from their files alone.

The pages are report.md and as_run.md, whose holes the functions of tables.py fill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import exp, log
from pathlib import Path
from string import Template

import pandas as pd
import torch

from DataPipeline import load_mnist
from helpers.checkpoint import differences
from helpers.config import PROTOCOLS, TrainingConfig
from helpers.files import write_atomically
from helpers.history import TRAIN_IMAGES, History
from models import AS_RUN, FINAL_AS_RUN, GOAL, SETTINGS, VARIANTS
from study import figures, tables
from study.analysis import (
    Reproduction,
    Verdict,
    across,
    among_themselves,
    beyond_these_images,
    effect,
    errors,
    reproduction,
    spread_ratio,
    verdicts,
)
from study.claims import (
    ACCURACY,
    BEST,
    BN,
    CLAIMS,
    EARLY,
    EARLY_BN,
    EPOCHS,
    EPOCHS_RATIO,
    FINAL_V1,
    FINAL_V2,
    FIRST_ACCURACY,
    GAP_ALIKE,
    LATE,
    LATE_BN,
    LOGGED,
    LOGS,
    OTHERS,
    PAGE,
    PAIR,
    PRIMARY,
    SIMPLE,
    SPEED,
    TO_THRESHOLDS,
    Contrast,
    Measure,
    Part,
    measured,
    published,
)
from study.runs import FOLDERS, SEEDS, Runs, histories, load_runs, names
from study.statistics import estimate
from Visualization import NotebookFigure

PAGE_SETTING, AS_RUN_SETTING = PROTOCOLS
RUNS, AS_RUN_RUNS = FOLDERS.values()
PILOT = RUNS.with_name("pilot")
PAGES = Path(__file__).parent
HARDEST = 12  # images that are shown
AS_RUN_NAMES = {"v1": "v1", "v2": "v2", "final": FINAL_AS_RUN}
PARTS = [*(part for claim in CLAIMS for part in claim.parts), PAIR]


def report(
    folder: str | Path = RUNS,
    out: str | Path = RUNS.parent,
    pilot: str | Path = PILOT,
    as_run: str | Path = AS_RUN_RUNS,
) -> None:
    """Write comparison.md and its figures into out.

    folder: with the protocol's runs from the page, all of them and no others.
    out: where to write.
    pilot: with the pilot's runs; their spread between seeds is set beside that of these.
    as_run: with the runs as run; nothing is computed from them before the last is in.

    Raises ValueError, and writes nothing, unless the runs are as the protocol says; what load_runs
    and load_mnist raise; OSError if out cannot be written.
    """
    mnist = load_mnist()
    labels = mnist.test_labels.tolist()
    runs, others = load_runs(folder, labels), load_runs(as_run, labels)
    check(runs, folder)
    if missing := _missing(runs, PAGE_SETTING):
        raise ValueError(
            f"{len(missing)} of {len(runs) + len(missing)} runs are missing, the first is "
            f"{missing[0]}: finish them by python -m study run; no verdict is computed before the "
            "last is in."
        )
    check(others, as_run, AS_RUN_SETTING)
    drawn = draw(runs, others, mnist.test_images, labels)
    files = {name: figure.png(dpi=figures.DPI) for name, figure in drawn.items()}
    files["comparison.md"] = render(runs, load_runs(pilot), others).encode()
    for name, content in files.items():
        write_atomically(Path(out, name), content)
    compared = len(runs) + (0 if _missing(others, AS_RUN_SETTING) else len(others))
    print(f"{Path(out, 'comparison.md')}: {compared} runs compared")


# --- are these the runs? --------------------------------------------------------------------------


def _missing(runs: Runs, setting: str) -> list[str]:
    """The protocol's runs in a setting that are not there, in the order they are made."""
    return [f"{v}-{s}" for s, v in product(SEEDS, SETTINGS[setting]) if (v, s) not in runs]


def check(runs: Runs, folder: str | Path, setting: str = PAGE_SETTING) -> None:
    """Raise ValueError, in one sentence, unless these are runs of the protocol in a setting."""
    named = {(seed, variant): f"{variant}-{seed}" for variant, seed in runs}
    if foreign := sorted(set(named) - set(product(SEEDS, SETTINGS[setting]))):
        raise ValueError(
            f"{folder} holds {named[foreign[0]]}, which is no run of the protocol; expected "
            f"{', '.join(SETTINGS[setting])} with seeds {SEEDS[0]} to {SEEDS[-1]}: move it away."
        )
    first: dict[int, History] = {}  # of every seed
    for (seed, variant), name in sorted(named.items()):
        history = runs[variant, seed]
        if fault := _fault(history, setting):
            raise ValueError(f"{folder} holds {name} {fault}: delete it and run it again.")
        wrong = differences(history.environment, first.setdefault(seed, history).environment)
        if wrong := [place for place in wrong if not place.startswith("commit")]:
            raise ValueError(
                f"the runs with seed {seed} in {folder} come from different environments, "
                f"{wrong[0]}: delete all of them and run them on one machine."
            )
    commits = {history.environment["commit"] for history in runs.values()}
    for what, found in (("commit", commits), ("code", {h.code for h in runs.values()})):
        if len(found) > 1:
            raise ValueError(
                f"the runs in {folder} come from different code, {what} "
                f"{' and '.join(sorted(map(str, found)))}: expected one for all; delete those of "
                "the others and run them again."
            )


def _fault(history: History, setting: str) -> str | None:
    """What the protocol does not allow in a run, or None."""
    here = replace(PROTOCOLS[setting], seed=history.seed).as_dict()
    if wrong := differences(TrainingConfig(**history.config).as_dict(), here):
        return f"by another config: {wrong[0]}"
    if history.train_images != TRAIN_IMAGES:
        return f"with {history.train_images} training images, where the protocol has {TRAIN_IMAGES}"
    if history.mistakes is None or history.clean_train is None:
        return "without its mistakes or its accuracy on the training images as they are"
    if not {"commit", "processor"} <= history.environment.keys():
        return "without its commit or its processor"
    return None


# --- the page -------------------------------------------------------------------------------------


def render(runs: Runs, pilot: Runs, as_run: Runs) -> str:
    """The report, as Markdown.

    runs: the protocol's, from the page. pilot: the pilot's. as_run: as run, or some of them.
    """
    table, before = measured(runs), measured(pilot, (ACCURACY,))
    found = verdicts(table)
    runs_in = f"{len(as_run)} of {len(SEEDS) * len(AS_RUN)} runs are in"
    second, said = None, f"{runs_in}; no verdict is computed before the last."
    if not _missing(as_run, AS_RUN_SETTING):
        other = measured(as_run)
        second = verdicts(other, LOGGED)
        said = _as_run(as_run, other, second, table)
    return _fill(
        "report.md",
        **_of_setting(runs, table, found, PAGE),
        publication=tables.publication(found, second),
        as_run=said,
        goal_accuracy=GOAL,
        never=TrainingConfig.epochs + 1,
        conditions=tables.conditions(runs),
        scales=tables.scales(table),
        least_margin=f"{max(map(abs, effect(table, LATE, SPEED).narrow)):.3f}",
        averages=tables.averages(table),
        contrasts_epochs=tables.contrasts(table, EPOCHS),
        spread=tables.spread(table, before),
        pilot_ratio=f"{spread_ratio(before):.1f}",
        beside=tables.beside(table),
        pairs=tables.pairs(table),
        needed=tables.needed(table),
        churn=tables.churn(runs),
        floor=tables.floor(runs),
        runs=tables.every_run(runs, RUNS.name),
    )


def _fill(page: str, **holes: object) -> str:
    """A page of this folder, with its holes filled."""
    return Template((PAGES / page).read_text(encoding="utf-8")).substitute(holes)


def _of_setting(
    runs: Runs, table: pd.DataFrame, found: Sequence[Verdict], source: pd.DataFrame
) -> dict[str, object]:
    """What fills the holes that both pages have, of the setting that PAGE or LOGGED is of."""
    contrasts = tables.contrasts_by(source, tables.CONTRASTS)
    beyond = beyond_these_images(runs, [*contrasts, *map(Contrast, names(runs))])
    return {
        "count": len(runs),
        "seeds": len(SEEDS),
        "answer": tables.answer(found, table, source),
        "claims": tables.claims(found, source),
        "parts": tables.parts(found),
        "disagreement": tables.on_different_sides(found),
        "others_said": tables.others_said(table, source),
        "others": tables.family(table, tables.contrasts_by(source, OTHERS), ACCURACY),
        "passing": tables.passing(runs, beyond[len(contrasts) :]),
        "final": tables.variants(table, (ACCURACY, BEST, GAP_ALIKE), source),
        "speed": tables.variants(table, (SPEED, FIRST_ACCURACY), source),
        "thresholds": tables.variants(table, TO_THRESHOLDS, source),
        "reached": tables.reached(table, source),
        "ratios": tables.ratios(table),
        "simple_final": tables.family(table, SIMPLE, ACCURACY),
        "simple_speed": tables.family(table, SIMPLE, SPEED),
        "simple_final_said": tables.family_said(table, SIMPLE, ACCURACY),
        "simple_speed_said": tables.family_said(table, SIMPLE, SPEED),
        "contrasts_final": tables.contrasts(table, ACCURACY, source, beyond[: len(contrasts)]),
        "contrasts_speed": tables.contrasts(table, SPEED, source),
        "contrasts_ratio": tables.contrasts(table, EPOCHS_RATIO, source),
        "contrasts_first": tables.contrasts(table, FIRST_ACCURACY, source),
        "ratio": f"{spread_ratio(table):.1f}",
        "networks": tables.networks(runs, table),
        "origin": tables.origin(runs),
    }


def _as_run(runs: Runs, table: pd.DataFrame, found: Sequence[Verdict], page: pd.DataFrame) -> str:
    """What the runs as run say, as Markdown.

    table, found: theirs. page: the table of the runs from the page.
    """
    of_claims = [across(page, table, part) for part in PARTS]  # PAIR is the last
    held = reproductions(runs)
    among = [f for v in AS_RUN_NAMES.values() for f in among_themselves(histories(runs, v))]
    curves = held["v1"].curves

    def both(measure: Measure, contrasts: Sequence[Contrast]) -> str:
        once = dict.fromkeys(tables.contrasts_by(LOGGED, contrasts))
        return tables.across([across(page, table, Part(c, measure, 1)) for c in once])

    return _fill(
        "as_run.md",
        **_of_setting(runs, table, found, LOGGED),
        curves=curves,
        farthest=f"{100 / curves:.0f}",
        reproduction=tables.reproduction(held),
        reproduced=tables.reproduced(held),
        among=f"{sum(of.reproduced for of in among)} of {len(among)}",
        pair=tables.pair(of_claims[-1]),
        across=tables.across(of_claims),
        sentences=tables.across_said(of_claims),
        across_final=both(ACCURACY, [*tables.CONTRASTS, *SIMPLE]),
        across_speed=both(SPEED, [*tables.CONTRASTS, *SIMPLE]),
        across_ratio=both(EPOCHS_RATIO, tables.OF_RATIOS),
        across_first=both(FIRST_ACCURACY, tables.CONTRASTS),
        runs=tables.every_run(runs, AS_RUN_RUNS.name),
    )


def reproductions(runs: Runs) -> dict[str, Reproduction]:
    """The published logs, by variant, each held against our runs of it.

    runs: as run, all of them.
    """
    return {
        name: reproduction(LOGS[name], histories(runs, variant))
        for name, variant in AS_RUN_NAMES.items()
    }


# --- figures --------------------------------------------------------------------------------------


def draw(
    runs: Runs, as_run: Runs, images: torch.Tensor, labels: Sequence[int]
) -> dict[str, NotebookFigure]:
    """The report's figures, by the names of their files.

    runs: the protocol's, from the page.
    as_run: as run; they are shown if they are all there.
    images: the test images, uint8 [N, 1, 28, 28].
    labels: their digits.
    """
    table = measured(runs)
    curves = {
        v: [[100 - r["test_accuracy"] for r in h.epochs] for h in histories(runs, v)]
        for v in VARIANTS
    }
    # zip ends with the shortest run, so that one that stops early does not bend the means.
    means = {
        v: [estimate([log(e) for e in epoch]).ends(exp) for epoch in zip(*of, strict=False)]
        for v, of in curves.items()
    }
    falls = range(1 + TrainingConfig.step_size, 1 + TrainingConfig.epochs, TrainingConfig.step_size)
    panels = [
        _runs_panel(table, ACCURACY, "test accuracy (%)", line=GOAL),
        _runs_panel(table, SPEED, "test error (%), log scale", log=True),
        _runs_panel(table, EPOCHS, "epoch", never=TrainingConfig.epochs + 1),
        _runs_panel(table, FIRST_ACCURACY, "test accuracy (%)"),
    ]
    cells = [(images[index], caption) for index, caption in _hardest(runs, labels)]
    complete = not _missing(as_run, AS_RUN_SETTING)
    settings = [table, *([measured(as_run)] if complete else [])]
    drawn = {"comparison_band.png": figures.inside_our_band(bands(as_run))} if complete else {}
    return drawn | {
        "comparison.png": figures.forest(
            [_effects_panel(settings, measure) for measure in PRIMARY]
        ),
        "comparison_runs.png": figures.every_run(panels),
        "comparison_curves.png": figures.curves(curves, means, falls),
        "comparison_hardest.png": figures.hardest(cells, len(runs)),
    }


def bands(runs: Runs) -> list[figures.Band]:
    """The published logs and our runs of the same."""
    parts = ("test", "train")
    return [
        figures.Band(
            "Final" if name == "final" else name,
            {part: [errors(run, part) for run in histories(runs, variant)] for part in parts},
            {part: errors(LOGS[name], part) for part in parts},
        )
        for name, variant in AS_RUN_NAMES.items()
    ]


def _effects_panel(settings: Sequence[pd.DataFrame], measure: Measure) -> figures.EffectPanel:
    """Effects by the table of each setting."""
    deciding = [
        (sign * part.contrast.weights, part.measure)
        for claim in CLAIMS
        for part in claim.parts
        for sign in (1, -1)
    ]
    rows = []
    for contrast in (LATE, LATE_BN, EARLY, EARLY_BN, BN, FINAL_V1, FINAL_V2):
        shown = []
        for found in (effect(table, contrast, measure) for table in settings):
            mean, *ends = found.estimate.ends(measure.natural)
            shown.append((mean, tuple(ends), tuple(map(measure.natural, found.narrow))))
        decides = any(m == measure and w.equals(contrast.weights) for w, m in deciding)
        name = contrast.name.replace(", ", ",\n")
        rows.append(figures.EffectRow(name, shown, decides))
    return figures.EffectPanel(
        f"{measure.name}:\n{measure.meaning}".capitalize(),
        "times, log scale; left is better" if measure.factor else "points; right is better",
        measure.natural(measure.margin),
        measure.factor,
        rows,
    )


def _runs_panel(
    table: pd.DataFrame, measure: Measure, unit: str, **options: object
) -> figures.RunsPanel:
    scale = exp if measure.log else float
    values = {v: list(map(scale, table[measure.name, v])) for v in VARIANTS}
    means = {v: estimate(table[measure.name, v]).ends(scale) for v in VARIANTS}
    numbers = published(measure)
    return figures.RunsPanel(measure.meaning.capitalize(), unit, values, means, numbers, **options)


def _hardest(runs: Runs, labels: Sequence[int]) -> list[tuple[int, str]]:
    """The images that most networks get wrong, and what the networks take them for."""
    taken_for: dict[int, Counter[int]] = {}
    for history in runs.values():
        for index, digit in history.mistakes:
            taken_for.setdefault(index, Counter())[digit] += 1
    order = sorted(taken_for, key=lambda index: (-taken_for[index].total(), index))
    found = []
    for index in order[:HARDEST]:
        guesses = sorted(taken_for[index].items(), key=lambda guess: (-guess[1], guess[0]))
        said = ", ".join(f"{digit} by {count}" for digit, count in guesses[:3])
        wrong = taken_for[index].total()
        found.append((index, f"a {labels[index]}; {wrong} of {len(runs)} wrong:\n{said}"))
    return found
