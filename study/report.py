"""The report: what the protocol's 90 runs say, as Markdown and figures, from their files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from math import exp, log
from pathlib import Path
from statistics import geometric_mean
from string import Template

import numpy as np
import torch

from DataPipeline import load_mnist
from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import History
from helpers.statistics import Summary, summarise
from models import GOAL, VARIANTS
from study import figures, tables
from study.claims import (
    ALPHA,
    CLAIMS,
    INCONCLUSIVE,
    Figure,
    Verdict,
    effect_of,
    predicted,
    verdicts,
)
from study.contrasts import (
    BEST,
    BN,
    EARLY,
    EARLY_BN,
    EPOCHS,
    EPOCHS_RATIO,
    FINAL,
    FINAL_V1,
    FINAL_V2,
    FIRST,
    GAP,
    GAP_ALIKE,
    LATE,
    LATE_BN,
    PRIMARY,
    SPEED,
    TEST_IMAGES,
    TO_THRESHOLDS,
    TRAIN_1,
    Measure,
    Runs,
    mistakes,
    only,
    per_seed,
)
from study.runs import FOLDERS, SEEDS, load_runs
from Visualization import NotebookFigure

TRAIN_IMAGES = 60_000
RUNS = FOLDERS["from the page"]
PILOT = RUNS.with_name("pilot")
TEMPLATE = Path(__file__).with_name("report.md")
HARDEST = 12  # images that are shown


def report(
    folder: str | Path = RUNS, out: str | Path = RUNS.parent, pilot: str | Path = PILOT
) -> None:
    """Write comparison.md and its figures into out.

    folder: with the protocol's runs, all of them and no others.
    out: where to write.
    pilot: with the pilot's runs; their spread between seeds is set beside that of these.

    Raises ValueError, and writes nothing, unless the runs are as the protocol says; what load_runs
    and load_mnist raise; OSError if out cannot be written.
    """
    runs = load_runs(folder)
    check(runs, folder)
    mnist = load_mnist()
    drawn = draw(runs, mnist.test_images, mnist.test_labels.tolist())
    files = {name: figure.png(dpi=figures.DPI) for name, figure in drawn.items()}
    files["comparison.md"] = write(runs, load_runs(pilot)).encode()
    for name, content in files.items():
        write_atomically(Path(out, name), content)
    print(f"{Path(out, 'comparison.md')}: {len(runs)} runs compared")


# --- are these the runs? --------------------------------------------------------------------------


def check(runs: Runs, folder: str | Path) -> None:
    """Raise ValueError, in one sentence, unless these are the protocol's runs."""
    expected = list(product(SEEDS, VARIANTS))
    named = {(seed, variant): f"{variant}-{seed}" for variant, seed in runs}
    if foreign := sorted(set(named) - set(expected)):
        raise ValueError(
            f"{folder} holds {named[foreign[0]]}, which is no run of the protocol; expected "
            f"{', '.join(VARIANTS)} with seeds {SEEDS[0]} to {SEEDS[-1]}: move it away."
        )
    if missing := [
        f"{variant}-{seed}" for seed, variant in expected if (variant, seed) not in runs
    ]:
        raise ValueError(
            f"{len(missing)} of {len(expected)} runs are missing, the first is {missing[0]}: "
            "finish them by python -m study run; no verdict is computed before the last is in."
        )
    for seed, variant in expected:
        if fault := _fault(runs[variant, seed]):
            raise ValueError(
                f"{folder} holds {variant}-{seed} {fault}: delete it and run it again."
            )
    for seed in SEEDS:
        processors = {runs[v, seed].environment["processor"] for v in VARIANTS}
        if len(processors) > 1:
            raise ValueError(
                f"the runs with seed {seed} come from different processors, "
                f"{' and '.join(sorted(processors))}: delete all nine and run them on one."
            )
    commits = {history.environment["commit"] for history in runs.values()}
    if len(commits) > 1:
        raise ValueError(
            f"the runs come from different commits, {' and '.join(sorted(commits))}; expected one "
            "for all: delete those of the others and run them again."
        )


def _fault(history: History) -> str | None:
    """What the protocol does not allow in a run, or None."""
    for key, value in TrainingConfig(history.seed).as_dict().items():
        if (found := history.config.get(key)) != value:
            return f"with {key} {found}, where the protocol has {value}"
    if history.train_images != TRAIN_IMAGES:
        return f"with {history.train_images} training images, where the protocol has {TRAIN_IMAGES}"
    if history.mistakes is None or history.clean_train is None:
        return "without its mistakes or its accuracy on the training images as they are"
    if not {"commit", "processor"} <= history.environment.keys():
        return "without its commit or its processor"
    wrong = round(TEST_IMAGES * (1 - history.final_accuracy / 100))
    images = {index for index, _ in history.mistakes if index < TEST_IMAGES}
    if not len(images) == len(history.mistakes) == wrong:
        return (
            f"with {len(history.mistakes)} mistakes, where its last accuracy, "
            f"{history.final_accuracy:.2f} %, means {wrong} of {TEST_IMAGES:,} images"
        )
    return None


# --- text -----------------------------------------------------------------------------------------


def write(runs: Runs, pilot: Runs) -> str:
    """The report, as Markdown.

    runs: the protocol's.
    pilot: the pilot's.
    """
    found = verdicts(runs)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        count=len(runs),
        seeds=len(SEEDS),
        goal_accuracy=GOAL,
        never=TrainingConfig.epochs + 1,
        answer="\n".join(f"{n}. {sentence(verdict)}" for n, verdict in enumerate(found, 1)),
        claims=tables.claims(found),
        parts=tables.parts(found),
        disagreement=_disagreement(found),
        others_said=_others_said(runs),
        others=tables.others(runs),
        goal=tables.goal(runs),
        final=tables.variants(runs, (FINAL, BEST, GAP_ALIKE)),
        speed=tables.variants(runs, (SPEED, FIRST)),
        thresholds=tables.variants(runs, TO_THRESHOLDS),
        reached=tables.reached(runs),
        contrasts_final=tables.contrasts(runs, FINAL, images=True),
        contrasts_speed=tables.contrasts(runs, SPEED),
        contrasts_ratio=tables.contrasts(runs, EPOCHS_RATIO),
        contrasts_epochs=tables.contrasts(runs, EPOCHS),
        contrasts_first=tables.contrasts(runs, FIRST),
        spread=tables.spread(runs, pilot),
        ratio=f"{_spread_ratio(runs):.1f}",
        pilot_ratio=f"{_spread_ratio(pilot):.1f}",
        beside=tables.beside(runs),
        **_mismatch(runs),
        floor=_floor(runs),
        runs=tables.every_run(runs),
        origin=_origin(runs),
    )


def sentence(verdict: Verdict) -> str:
    """What a reader can quote of a verdict."""
    estimates = [
        tables.estimate(effect.summary, part.write)
        for part, effect in zip(verdict.claim.parts, verdict.effects, strict=True)
    ]
    figures_said = plausibility(
        [figure.text for figure in verdict.claim.figures], verdict.plausible
    )
    doubt = f" after {len(SEEDS)} seeds" if verdict.word == INCONCLUSIVE else ""
    return (
        f"{verdict.claim.sentence.format(*estimates)}: **{verdict.word}**{doubt}; the published "
        f"{figures_said}."
    )


def plausibility(texts: Sequence[str], plausible: Sequence[bool]) -> str:
    """Which of some published figures are plausible single runs, in words."""
    said = []
    for holds in (True, False):
        if named := [text for text, p in zip(texts, plausible, strict=True) if p == holds]:
            verb, noun = (
                ("are", "plausible single runs") if named[1:] else ("is", "a plausible single run")
            )
            said.append(f"{_and(named)} {verb} {'' if holds else 'not '}{noun}")
    return ", ".join(said)


def _and(words: Iterable[str]) -> str:
    """ "a, b and c"; "none" of nothing"""
    *most, last = list(words) or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def _others_said(runs: Runs) -> str:
    """Which of the six other variants Final is shown to be more accurate than, in words."""
    found = tables.against_others(runs)
    beaten = [c.below[0] for c, e, p in found if p < ALPHA and e.summary.mean > 0]
    rest = [c.below[0] for c, *_ in found if c.below[0] not in beaten]
    best = max(VARIANTS, key=lambda variant: tables.summary(runs, variant, FINAL).mean)
    return (
        f"Of the six, Final is shown to be more accurate than {_and(beaten)}, and not than "
        f"{_and(rest)}. The highest mean is that of {best}, "
        f"{tables.summary(runs, best, FINAL).mean:.3f} %."
    )


def _disagreement(found: Sequence[Verdict]) -> str:
    """Where t test and sign-flip test do not agree on a part of a claim."""
    named = [
        f"claim {number}, {part.contrast.name}"
        for number, verdict in enumerate(found, 1)
        for part, effect in zip(verdict.claim.parts, verdict.effects, strict=True)
        if effect.tests_disagree
    ]
    if not named:
        return "The t test and the sign-flip test fall on the same side of 0.05 in all of them."
    return (
        "The t test, which decides, and the sign-flip test fall on different sides of 0.05 in "
        f"{_and(named)}."
    )


def _spread_ratio(runs: Runs) -> float:
    """How many times as large the sd of the final accuracy is without batch normalisation."""
    sds = {v: tables.summary(runs, v, FINAL).sd for v in {variant for variant, _ in runs}}
    pairs = [pair for pair in zip(BN.below, BN.above, strict=True) if set(pair) <= set(sds)]
    return geometric_mean(sds[without] / sds[with_bn] for without, with_bn in pairs)


def _mismatch(runs: Runs) -> dict[str, str]:
    """Which published train accuracies, and whether the gap, one run here could have given."""
    first = [Figure(only(v), TRAIN_1) for v in VARIANTS if VARIANTS[v].published]
    plausible = [figure.lies_in(predicted(runs, figure)) for figure in first]
    off = {f.contrast.name for f, holds in zip(first, plausible, strict=True) if not holds}
    without = {f.contrast.name for f in first if not VARIANTS[f.contrast.name].batch_norm}
    if not off:
        hint = "None of them is off here, so that nothing speaks against the guesses."
    elif off == without:
        hint = (
            "Only those without batch normalisation are off here, which speaks for another "
            "initialisation or layout rather than for another augmentation."
        )
    elif len(off) == len(first):
        hint = "All of them are off here, as another augmentation would have it."
    else:
        hint = f"Off here: only {_and(sorted(off))}; neither guess explains that by itself."
    texts = [f"{figure.text} ({figure.contrast.name})" for figure in first]
    gaps = [Figure(only("v1"), measure) for measure in (GAP, GAP_ALIKE)]
    taken, alike = ("a" if gap.lies_in(predicted(runs, gap)) else "no" for gap in gaps)
    return {
        "hint": hint,
        "mismatch": f"Of the train accuracies of epoch 1, {plausibility(texts, plausible)}. The "
        f"gap of v1, {gaps[0].text}, is {taken} plausible single run if the train accuracy is "
        f"taken while training, and {alike} plausible one if it is measured alike.",
    }


def _floor(runs: Runs) -> str:
    """How many test images which networks get wrong."""
    of_variant = {variant: mistakes(runs, variant) for variant in VARIANTS}
    count = sum(wrong.sum(axis=0) for wrong in of_variant.values())
    never, often = int((count == len(runs)).sum()), int((2 * count > len(runs)).sum())
    mostly = [2 * wrong.sum(axis=0) > len(SEEDS) for wrong in of_variant.values()]
    floor = int(np.all(mostly, axis=0).sum())
    always = [f"{v} {int(wrong.all(axis=0).sum())}" for v, wrong in of_variant.items()]
    return (
        f"Of the {TEST_IMAGES:,} test images, {never or 'none'} {'is' if never < 2 else 'are'} "
        f"wrong in all {len(runs)} networks. In more than half of them {often} are wrong, and in "
        f"more than half of every variant's {floor}: that is the floor under all of it, "
        f"{100 * floor / TEST_IMAGES:.2f} points of error that no variant is spared. In all "
        f"{len(SEEDS)} networks of a variant are wrong: {_and(always)}."
    )


def _origin(runs: Runs) -> str:
    """What trained the runs, and how they ended."""
    first = next(iter(runs.values())).environment
    seeds_on: dict[str, list[str]] = {}
    for seed in SEEDS:
        seeds_on.setdefault(runs["final", seed].environment["processor"], []).append(f"{seed}")
    processors = [f"seeds {_and(seeds)} on {name}" for name, seeds in seeds_on.items()]
    others = {
        ", ".join(f"{k} {v}" for k, v in h.environment.items() if k not in ("commit", "processor"))
        for h in runs.values()
    }
    stopped = sum(history.status == "early stopping" for history in runs.values())
    return (
        f"Commit `{first['commit']}` trained all {len(runs)} runs: {'; '.join(processors)}. The "
        f"rest of the environment: {'; '.join(sorted(others))}. Early stopping ended {stopped} of "
        "the runs."
    )


# --- figures --------------------------------------------------------------------------------------


def draw(runs: Runs, images: torch.Tensor, labels: Sequence[int]) -> dict[str, NotebookFigure]:
    """The report's figures, by the names of their files.

    runs: the protocol's.
    images: the test images, uint8 [N, 1, 28, 28].
    labels: their digits.
    """
    errors = {
        v: [[100 - r["test_accuracy"] for r in h.epochs] for h in tables.histories(runs, v)]
        for v in VARIANTS
    }
    # zip ends with the shortest run, so that one that stops early does not bend the means.
    means = {
        v: [_exp(summarise([log(e) for e in of_epoch])) for of_epoch in zip(*of, strict=False)]
        for v, of in errors.items()
    }
    falls = range(1 + TrainingConfig.step_size, 1 + TrainingConfig.epochs, TrainingConfig.step_size)
    panels = [
        _runs_panel(runs, FINAL, "test accuracy (%)", line=GOAL),
        _runs_panel(runs, SPEED, "test error (%), log scale", log=True),
        _runs_panel(runs, EPOCHS, "epoch", never=TrainingConfig.epochs + 1),
        _runs_panel(runs, FIRST, "test accuracy (%)"),
    ]
    cells = [(images[index], caption) for index, caption in _hardest(runs, labels)]
    return {
        "comparison.png": figures.forest([_effects_panel(runs, measure) for measure in PRIMARY]),
        "comparison_runs.png": figures.every_run(panels),
        "comparison_curves.png": figures.curves(errors, means, falls),
        "comparison_hardest.png": figures.hardest(cells, len(runs)),
    }


def _exp(found: Summary) -> Summary:
    """Of logarithms: mean and interval of what they are the logarithms of."""
    return found._replace(mean=exp(found.mean), low=exp(found.low), high=exp(found.high))


def _effects_panel(runs: Runs, measure: Measure) -> figures.EffectPanel:
    primary = [(part.contrast, part.measure) for claim in CLAIMS for part in claim.parts]
    rows = []
    for contrast in (LATE, LATE_BN, EARLY, EARLY_BN, BN, FINAL_V1, FINAL_V2):
        effect = effect_of(per_seed(runs, contrast, measure), measure.margin)
        decides = any(
            measure == m and {contrast.above, contrast.below} == {c.above, c.below}
            for c, m in primary
        )
        ends = [measure.natural(end) for end in (*effect.summary[3:], *effect.narrow)]
        mean = measure.natural(effect.summary.mean)
        name = contrast.name.replace(", ", ",\n")
        rows.append(figures.EffectRow(name, mean, ends[:2], ends[2:], decides))
    return figures.EffectPanel(
        f"{measure.name}:\n{measure.meaning}".capitalize(),
        "times, log scale; left is better" if measure.factor else "points; right is better",
        measure.natural(measure.margin),
        measure.factor,
        rows,
    )


def _runs_panel(runs: Runs, measure: Measure, unit: str, **options: object) -> figures.RunsPanel:
    values = {v: per_seed(runs, only(v), measure) for v in VARIANTS}
    means = {v: summarise(of) for v, of in values.items()}
    if measure.log:
        values = {v: [exp(value) for value in of] for v, of in values.items()}
        means = {v: _exp(mean) for v, mean in means.items()}
    published = {
        v: figure
        for v, variant in VARIANTS.items()
        if variant.published and (figure := measure.published(variant.published)) is not None
    }
    title = measure.meaning.capitalize()
    return figures.RunsPanel(title, unit, values, means, published, **options)


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
