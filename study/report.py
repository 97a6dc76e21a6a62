"""The report: what the protocol's runs say, as Markdown and figures, from their files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from math import exp, log
from pathlib import Path
from statistics import geometric_mean
from string import Template

import numpy as np
import pandas as pd
import torch

from DataPipeline import load_mnist
from helpers.checkpoint import differences
from helpers.config import PROTOCOLS, TrainingConfig
from helpers.files import write_atomically
from helpers.history import TEST_IMAGES, TRAIN_IMAGES, History
from models import AS_RUN, GOAL, SETTINGS, VARIANTS
from study import figures
from study.analysis import (
    BEST,
    BN,
    CLAIMS,
    EARLY,
    EARLY_BN,
    EFFECTS,
    EPOCHS,
    EPOCHS_RATIO,
    FINAL,
    FINAL_V1,
    FINAL_V2,
    FIRST,
    FIRST_ERROR,
    GAP,
    GAP_ALIKE,
    INCONCLUSIVE,
    INTERACTIONS,
    LATE,
    LATE_BN,
    LOGGED,
    LOGS,
    OTHERS,
    PAGE,
    PAIR,
    PRIMARY,
    PUBLISHED,
    RATIOS,
    SIMPLE,
    SIX,
    SPEED,
    THREE,
    TO_THRESHOLDS,
    TRAIN_1,
    V1_V2,
    WITHOUT_BN,
    Across,
    Contrast,
    Effect,
    Measure,
    Part,
    Quoted,
    Reproduction,
    Verdict,
    across,
    among_themselves,
    answers,
    beyond_these_images,
    disagreement,
    effect,
    effect_of,
    family,
    lies_in,
    measured,
    per_seed,
    predicted,
    reproduction,
    unpaired,
    verdicts,
    vote,
    word,
)
from study.runs import FOLDERS, SEEDS, Runs, load_runs
from study.statistics import ALPHA, Estimate, Interval, estimate, holm, runs_needed, wilson
from Visualization import NotebookFigure

PAGE_SETTING, AS_RUN_SETTING = SETTINGS
RUNS, AS_RUN_RUNS = FOLDERS.values()
PILOT = RUNS.with_name("pilot")
PAGES = Path(__file__).parent
HARDEST = 12  # images that are shown
AS_RUN_NAMES = {"v1": "v1", "v2": "v2", "final": "v2_bn"}
ALL = (*EFFECTS, *INTERACTIONS, *PUBLISHED, *OTHERS)
ALL_RATIOS = (*EFFECTS, WITHOUT_BN, *PUBLISHED, *OTHERS)
ALL_EFFECTS = (*EFFECTS, *INTERACTIONS, *SIMPLE)
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
    files["comparison.md"] = write(runs, load_runs(pilot), others).encode()
    for name, content in files.items():
        write_atomically(Path(out, name), content)
    print(f"{Path(out, 'comparison.md')}: {len(runs) + len(others)} runs compared")


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
    for what in ("commit", "code"):
        found = {history.environment.get(what, history.code) for history in runs.values()}
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


def write(runs: Runs, pilot: Runs, as_run: Runs) -> str:
    """The report, as Markdown.

    runs: the protocol's, from the page. pilot: the pilot's. as_run: as run, or some of them.
    """
    table, before = measured(runs), measured(pilot, (FINAL,))
    found = verdicts(table)
    beyond = beyond_these_images(runs, [*ALL, *map(Contrast, VARIANTS)])
    complete = not _missing(as_run, AS_RUN_SETTING)
    return _fill(
        "report.md",
        publication=_publication(found, verdicts(measured(as_run), LOGGED) if complete else None),
        as_run=_as_run(as_run, table)
        if complete
        else f"{len(as_run)} of {len(SEEDS) * len(AS_RUN)} runs are in; no verdict is computed "
        "before the last.",
        count=len(runs),
        seeds=len(SEEDS),
        goal_accuracy=GOAL,
        never=TrainingConfig.epochs + 1,
        answer=_answer(found, table),
        conditions=_conditions(runs),
        ratios=_ratios(table),
        scales=_scales(table),
        least_margin=f"{max(map(abs, effect(table, LATE, SPEED).narrow)):.3f}",
        averages=_averages(table),
        simple_final=_family(table, SIMPLE, FINAL),
        simple_speed=_family(table, SIMPLE, SPEED),
        claims=_claims(found),
        parts=_parts(found),
        disagreement=on_different_sides(found),
        others_said=_others_said(table),
        others=_family(table, OTHERS, FINAL),
        passing=_passing(runs, dict(zip(VARIANTS, beyond[len(ALL) :], strict=True))),
        final=_variants(table, (FINAL, BEST, GAP_ALIKE)),
        speed=_variants(table, (SPEED, FIRST)),
        thresholds=_variants(table, TO_THRESHOLDS),
        reached=_reached(table),
        contrasts_final=_contrasts(table, FINAL, beyond[: len(ALL)]),
        contrasts_speed=_contrasts(table, SPEED),
        contrasts_ratio=_contrasts(table, EPOCHS_RATIO),
        contrasts_epochs=_contrasts(table, EPOCHS),
        contrasts_first=_contrasts(table, FIRST),
        spread=_spread(table, before),
        ratio=f"{spread_ratio(table):.1f}",
        pilot_ratio=f"{spread_ratio(before):.1f}",
        beside=_beside(table),
        mismatch=_mismatch(table),
        pairs=_pairs(table),
        needed=_needed(table),
        networks=_networks(runs, table),
        churn=_churn(runs),
        floor=_floor(runs),
        runs=_every_run(runs),
        origin=_origin(runs),
    )


def _fill(page: str, **holes: object) -> str:
    """A page of this folder, with its holes filled."""
    return Template((PAGES / page).read_text(encoding="utf-8")).substitute(holes)


def _as_run(runs: Runs, page: pd.DataFrame) -> str:
    """What the runs as run say, as Markdown, beside the table of those from the page."""
    table = measured(runs)
    found = verdicts(table, LOGGED)
    three = {name: histories(runs, v) for name, v in AS_RUN_NAMES.items()}
    held = {name: reproduction(LOGS[name], of) for name, of in three.items()}
    among = [found for of in three.values() for found in among_themselves(of)]
    others = [contrast for contrast in OTHERS if contrast.formula != "final - v2_bn"]
    beyond = beyond_these_images(runs, list(map(Contrast, AS_RUN)))
    curves = held["v1"].curves
    return _fill(
        "as_run.md",
        count=len(runs),
        seeds=len(SEEDS),
        curves=curves,
        farthest=f"{100 / curves:.0f}",
        reproduction=_reproduction(held),
        reproduced=_reproduced(held),
        among=f"{sum(of.reproduced for of in among)} of {len(among)}",
        claims=_claims(found, LOGGED),
        parts=_parts(found),
        disagreement=on_different_sides(found),
        pair=_pair(across(page, table, PAIR)),
        others_said=_others_said(table, others),
        others=_family(table, others, FINAL),
        passing=_passing(runs, dict(zip(AS_RUN, beyond, strict=True))),
        across=_across([across(page, table, part) for part in PARTS]),
        sentences=_across_said([across(page, table, part) for part in PARTS]),
        across_final=_across([across(page, table, Part(c, FINAL, 1)) for c in ALL_EFFECTS]),
        across_speed=_across([across(page, table, Part(c, SPEED, 1)) for c in ALL_EFFECTS]),
        final=_variants(table, (FINAL, BEST, GAP_ALIKE), LOGGED),
        speed=_variants(table, (SPEED, FIRST), LOGGED),
        thresholds=_variants(table, TO_THRESHOLDS, LOGGED),
        ratios=_ratios(table),
        simple_final=_family(table, SIMPLE, FINAL),
        simple_speed=_family(table, SIMPLE, SPEED),
        networks=_networks(runs, table),
        runs=_every_run(runs, AS_RUN_RUNS.name),
        origin=_origin(runs),
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(ends: Interval, write: Callable[[float], str]) -> str:
    """[low, high]"""
    return f"[{write(ends[0])}, {write(ends[1])}]"


def with_interval(found: Estimate, write: Callable[[float], str]) -> str:
    """mean [low, high]"""
    return f"{write(found.mean)} {interval(found.interval(), write)}"


def _p(p: float) -> str:
    """A p value, as exact as it is of use."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _yes(value: bool | None) -> str:
    return {True: "**yes**", False: "no", None: ""}[value]


def _and(words: Iterable[str]) -> str:
    """ "a, b and c"; "none" of nothing"""
    *most, last = list(words) or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def _margin(measure: Measure) -> str:
    """The smallest effect of interest, in words."""
    return f"{measure.natural(measure.margin):.2f} {measure.effect_unit}"


def share(holds: Iterable[bool]) -> str:
    """How many of how many hold, with Wilson's interval of the share in %."""
    holds = list(holds)
    count, n = sum(holds), len(holds)
    return f"{count} of {n} {interval(wilson(count, n), lambda s: f'{100 * s:.0f}')}"


# --- claims ---------------------------------------------------------------------------------------


def _answer(found: Sequence[Verdict], table: pd.DataFrame) -> str:
    """A sentence on each claim."""
    added = _added(table)
    return "\n".join(f"{n}. {sentence(v, added[n - 1])}" for n, v in enumerate(found, 1))


def sentence(verdict: Verdict, added: str) -> str:
    """What a reader can quote of a verdict; added: what else is to be said of it."""
    estimates = [
        with_interval(found.found, part.write)
        for part, found in zip(verdict.claim.parts, verdict.effects, strict=True)
    ]
    quoted = plausibility([q.text() for q in verdict.claim.quoted], verdict.plausible)
    doubt = f" after {len(SEEDS)} seeds" if verdict.word == INCONCLUSIVE else ""
    said = verdict.claim.sentence.format(*estimates)
    return f"{said}: **{verdict.word}**{doubt}; {added}; the published {quoted}."


def _added(table: pd.DataFrame) -> list[str]:
    """What the verdict on each claim does not say by itself."""
    soon, sooner = (with_interval(effect(table, WITHOUT_BN, m).found, m.effect) for m in RATIOS[:2])
    (epochs, _, in_epochs), (error, _, in_errors) = (
        _on_scale(table, *of) for of in ((V1_V2, EPOCHS), (LATE, FIRST_ERROR))
    )
    means = table[FINAL.name].mean()
    of_bn = [v for v in VARIANTS if VARIANTS[v].batch_norm]
    rank = 1 + sum(means[v] > means["final"] for v in of_bn)
    return [
        "that is an average over early dropout, and in epochs to 99 % v1 - v2, the published pair, "
        f"is {with_interval(epochs.found, EPOCHS.effect)}: {in_epochs}",
        f"to 98 % it is {soon} and to 98.5 % {sooner} times",
        "that is an average over four placements of dropout",
        f"the most accurate of the published three, that is, and of the {len(of_bn)} variants with "
        f"batch normalization the one with the {_ORDINALS[rank - 1]} mean",
        "as a factor of the test error it is "
        f"{with_interval(error.found, FIRST_ERROR.effect)}: {in_errors}",
    ]


_ORDINALS = ("highest", "second highest", "third highest", "fourth highest", "lowest")


def plausibility(texts: Sequence[str], plausible: Sequence[bool]) -> str:
    """Which of some published numbers are plausible single runs, in words."""
    said = []
    for holds in (True, False):
        if named := [text for text, p in zip(texts, plausible, strict=True) if p == holds]:
            verb, noun = (
                ("are", "plausible single runs") if named[1:] else ("is", "a plausible single run")
            )
            said.append(f"{_and(named)} {verb} {'' if holds else 'not '}{noun}")
    return ", ".join(said)


def _claims(found: Sequence[Verdict], source: pd.DataFrame = PAGE) -> str:
    """The verdicts: effects and published numbers, by the page or its logs."""
    rows = []
    for number, verdict in enumerate(found, 1):
        row = [f"{number}. {verdict.claim}", f"**{verdict.word}**", _p(verdict.corrected)]
        rows.append([*row, size(verdict), _held(verdict, source)])
    head = ["claim, as published", "is there an effect", "p, after Holm", "how large, here"]
    return markdown([*head, "is the published figure a plausible single run"], rows)


def size(verdict: Verdict) -> str:
    """How large the effects of a verdict's parts are; whether a mean as claimed is excluded."""
    said = [
        f"{f'{part.contrast.name}: ' if verdict.effects[1:] else ''}"
        f"{with_interval(of.found, part.write)} "
        + (part.measure.unit if part.contrast.level else part.measure.effect_unit)
        for part, of in zip(verdict.claim.parts, verdict.effects, strict=True)
    ]
    if verdict.claim.of_means:
        quoted, measure = verdict.claim.quoted[0], verdict.claim.parts[0].measure
        ends = tuple(map(measure.natural, verdict.effects[0].found.interval()))
        held = "is not excluded" if lies_in(quoted.number(), ends) else "is excluded"
        said.append(f"a mean of {quoted.text()} {held}")
    return "<br>".join(said)


def _held(verdict: Verdict, source: pd.DataFrame) -> str:
    """The published numbers, each against its prediction interval."""
    held = zip(verdict.claim.quoted, verdict.plausible, verdict.predicted, strict=True)
    return "<br>".join(
        f"{quoted.text(source)}: {'plausible' if plausible else '**not**'}, "
        + interval(ends, f"{{:.{quoted.measure.decimals}f}}".format)
        for quoted, plausible, ends in held
    )


def _parts(found: Sequence[Verdict]) -> str:
    """What the verdicts rest on: the primary contrasts, and claim 4's parts."""
    rows = []
    for number, verdict in enumerate(found, 1):
        for part, of in zip(verdict.claim.parts, verdict.effects, strict=True):
            against = f" against {part.null:g} %" if part.null else ""
            rows.append(
                [
                    f"{number}. {part.contrast.name}{against}",
                    part.measure.meaning,
                    with_interval(of.found, part.write),
                    _p(of.p),
                    _p(of.flip_p),
                    interval(of.narrow, part.write),
                    _margin(part.measure),
                    _yes(of.within),
                ]
            )
    head = ["", "measure", "estimate [95 %]", "p", "sign-flip p", "90 % interval", "margin"]
    return markdown([*head, "within it"], rows)


def on_different_sides(found: Sequence[Verdict]) -> str:
    """Where t test and sign-flip test do not agree on a part of a claim."""
    named = [
        f"claim {number}, {part.contrast.name}"
        for number, verdict in enumerate(found, 1)
        for part, of in zip(verdict.claim.parts, verdict.effects, strict=True)
        if of.tests_disagree
    ]
    if not named:
        return "The t test and the sign-flip test fall on the same side of 0.05 in all of them."
    return (
        "The t test, which decides, and the sign-flip test fall on different sides of 0.05 in "
        f"{_and(named)}."
    )


def _others_said(table: pd.DataFrame, others: Sequence[Contrast] = OTHERS) -> str:
    """Which of the other variants Final is shown to be more accurate than, in words."""
    found = [
        (c.formula.removeprefix("final - "), e, p) for c, e, p, _ in family(table, others, FINAL)
    ]
    beaten = [other for other, e, p in found if p < ALPHA and e.found.mean > 0]
    rest = [other for other, *_ in found if other not in beaten]
    means = table[FINAL.name].mean()
    return (
        f"Of the {len(others)} others, Final is shown to be more accurate than {_and(beaten)}, and "
        f"not than {_and(rest)}. The highest mean is that of {means.idxmax()}, {means.max():.3f} %."
    )


def _family(table: pd.DataFrame, contrasts: Sequence[Contrast], measure: Measure) -> str:
    """Contrasts, with Holm's correction over all of them."""
    rows = [
        [
            contrast.name,
            with_interval(of.found, measure.effect),
            _p(of.p),
            _p(p),
            interval(of.narrow, measure.effect),
            _yes(of.within),
            _p(of.equivalence),
            _p(equivalence),
        ]
        for contrast, of, p, equivalence in family(table, contrasts, measure)
    ]
    over = f"Holm over the {len(contrasts)}"
    head = ["", f"{measure.effect_unit} [95 %]", "p", f"p, {over}", "90 % interval"]
    return markdown([*head, f"within {_margin(measure)}", "p, within", f"p, within, {over}"], rows)


# --- the publication ------------------------------------------------------------------------------


def _publication(page: Sequence[Verdict], as_run: Sequence[Verdict] | None) -> str:
    """The claims: as first published, corrected, by their own logs, and in our settings."""
    rows = []
    for number, verdict in enumerate(page, 1):
        claim = verdict.claim
        logged = "<br>".join(
            f"{q.contrast.name}: {q.text(LOGGED)}" for q in claim.quoted if q.value is None
        )
        row = [f"{number}. {claim}", claim.corrected, logged]
        of = [verdict, *([as_run[number - 1]] if as_run else [])]
        rows.append(row + [f"**{v.word}**<br>{size(v)}" for v in of])
        if as_run:
            words = [v.word for v in of]
            said = (
                f"{words[0]} in both settings"
                if words[0] == words[1]
                else f"{words[0]} from the page, {words[1]} as run"
            )
            rows[-1].append(f"{'withdrawn; ' if claim.withdrawn else ''}{said}")
    head = ["as first published", "as corrected by its author", "what its own logs say"]
    head += [f"from the page, {len(SEEDS)} seeds"]
    return markdown(head + ([f"as run, {len(SEEDS)} seeds", "in short"] if as_run else []), rows)


def _reproduction(held: Mapping[str, Reproduction]) -> str:
    """The six numbers of each log and where its curve is."""
    rows = []
    for k, measure in enumerate(SIX):
        cells = [
            f"{_number(measure, of.numbers[k])} {interval(of.predicted[k], measure.level)}"
            + ("" if of.inside[k] else " **outside**")
            for of in held.values()
        ]
        rows.append([f"{measure.meaning}, {measure.unit}", *cells])
    rows.append(["rank of the curve's distance", *(f"{of.rank}" for of in held.values())])
    rows.append(["**reproduced**", *(_yes(of.reproduced) for of in held.values())])
    return markdown(["", *held], rows)


def _reproduced(held: Mapping[str, Reproduction]) -> str:
    """Which of the published logs are reproduced, in words."""
    named = [variant for variant, of in held.items() if of.reproduced]
    rest = [variant for variant in held if variant not in named]
    return f"So of the three **{_and(named)}** {'are' if named[1:] else 'is'} reproduced" + (
        f", and {_and(rest)} {'are' if rest[1:] else 'is'} not." if rest else "."
    )


def _pair(found: Across) -> str:
    """The sixth test."""
    part, of = found.part, found.mean
    return (
        f"{part.contrast.name}, the published pair, in the mean of both settings "
        f"({2 * len(SEEDS)} pairs): {with_interval(of.found, part.write)} points, "
        f"p {_p(of.p)}, sign-flip p {_p(of.flip_p)}, 90 % interval "
        f"{interval(of.narrow, part.write)}: **{word([part], [of], of.p)}**."
    )


def _across(found: Sequence[Across]) -> str:
    """Contrasts in both settings, their difference and their mean."""
    rows = []
    for of in found:
        measure, write = of.part.measure, of.part.write
        means = [with_interval(e.found, write) for e in (of.page, of.as_run)]
        apart = with_interval(of.difference.found, measure.effect)
        together = with_interval(of.mean.found, write)
        name = f"{of.part.contrast.name}, {measure.name}"
        rows.append([name, *means, apart, together, of.word])
    head = ["", "from the page [95 %]", "as run [95 %]", "difference [95 %]", "mean [95 %]"]
    return markdown([*head, "settings"], rows)


def _across_said(found: Sequence[Across]) -> str:
    """A sentence on each contrast in both settings."""
    lines = []
    for of in found:
        part = of.part
        unit = part.measure.unit if part.contrast.level else part.measure.effect_unit
        page, as_run = (with_interval(e.found, part.write) for e in (of.page, of.as_run))
        against = "; the two point in opposite directions" if of.opposite else ""
        lines.append(
            f"- {part.contrast.name}, {part.measure.meaning}: {page} {unit} from the page and "
            f"{as_run} {unit} as run: {of.word}{against}."
        )
    return "\n".join(lines)


# --- what the words depend on ---------------------------------------------------------------------


def _conditions(runs: Runs) -> str:
    """What all runs have in common, and so what nothing here says anything about."""
    processors = {history.environment["processor"] for history in runs.values()}
    rates = {rate for variant in VARIANTS.values() for rate in variant.dropout if rate}
    return (
        f"{len(SEEDS)} seeds of each variant, "
        f"{'one processor' if len(processors) == 1 else f'{len(processors)} processors'} "
        f"({'; '.join(sorted(processors))}), dropout of rate {_and(f'{r:g}' for r in rates)}, and "
        f"these {TEST_IMAGES:,} test images"
    )


def _ratios(table: pd.DataFrame) -> str:
    """How many times as many epochs it takes to the thresholds without batch normalization."""
    weights = WITHOUT_BN.weights
    rows = []
    for measure, epochs in zip(RATIOS, TO_THRESHOLDS, strict=False):
        found = effect(table, WITHOUT_BN, measure)
        row = [measure.meaning, with_interval(found.found, measure.effect), _p(found.p)]
        for side in (weights > 0, weights < 0):
            cells = table[epochs.name][weights[side].index].to_numpy()
            at_once = (cells == TrainingConfig.step_size + 1).sum()
            row.append(f"{(cells <= TrainingConfig.step_size).sum()}; {at_once} of {cells.size}")
        rows.append(row)
    return markdown(["", "without / with [95 %]", "p", "without", "with"], rows)


def _scales(table: pd.DataFrame) -> str:
    """Claims 1 and 5 on other scales, and of the published pair alone."""
    rows = []
    for number, measures in ((1, (SPEED, EPOCHS_RATIO, EPOCHS)), (5, (FIRST, FIRST_ERROR))):
        for measure, contrast in product(measures, (LATE, V1_V2)):
            found, margin, said = _on_scale(table, contrast, measure)
            decides = (contrast, measure) == (LATE, measures[0])
            rows.append(
                [
                    f"{number}. {contrast.name}",
                    measure.name,
                    with_interval(found.found, measure.effect),
                    interval(found.narrow, measure.effect),
                    f"{measure.natural(margin):.2f} {measure.effect_unit}",
                    f"**{said}**" if decides else said,
                ]
            )
    return markdown(["", "measure", "estimate [95 %]", "90 % interval", "margin", "word"], rows)


def _on_scale(
    table: pd.DataFrame, contrast: Contrast, measure: Measure
) -> tuple[Effect, float, str]:
    """A contrast's effect, the margin and the word, if it were a claim's; without Holm.

    Of epochs, for which no margin was fixed, it is the smallest delay that was claimed.
    """
    margin = CLAIMS[0].quoted[0].number() if measure is EPOCHS else measure.margin
    found = effect_of(per_seed(table, contrast, measure), margin)
    slower = -1 if measure is FIRST else 1
    return found, margin, word([Part(contrast, measure, slower)], [found], found.p)


def _averages(table: pd.DataFrame) -> str:
    """How sure it is that late dropout matters little on average over early dropout."""
    p = [effect(table, c, m).equivalence for c, m in product((LATE, LATE_BN), (FINAL, SPEED))]
    return f"The largest p value of the {len(p)} equivalence tests is {_p(max(p))}, and " + (
        f"{_p(max(holm(p)))} after Holm"
    )


# --- variants -------------------------------------------------------------------------------------


def histories(runs: Runs, variant: str) -> list[History]:
    """A variant's runs, by seed."""
    return [history for (name, _), history in sorted(runs.items()) if name == variant]


def _names(runs: Runs) -> list[str]:
    """The variants that there are runs of."""
    return [v for v in VARIANTS if any(v == variant for variant, _ in runs)]


def _variant(name: str) -> str:
    return f"**{name}**" if name in THREE else name


def _variants(table: pd.DataFrame, measures: Sequence[Measure], source: pd.DataFrame = PAGE) -> str:
    """Means with intervals of all variants, a column per measure, beside the published numbers."""
    twice = "v2_bn" if source is LOGGED else None  # Final as run, which has a row by that name
    head, rows = [""], {v: [_variant(v)] for v in table[FINAL.name] if v != twice}
    for measure in measures:
        numbers = _published(measure, source)
        head += [measure.heading, "published"] if numbers else [measure.heading]
        for variant, row in rows.items():
            row.append(with_interval(estimate(table[measure.name, variant]), measure.level))
            if numbers:
                written = measure.level if measure.log else "{:g}".format
                row.append(written(numbers[variant]) if variant in numbers else "")
    return markdown(head, rows.values())


def _published(measure: Measure, source: pd.DataFrame = PAGE) -> dict[str, float]:
    """The published numbers of the variants that have one, by the page or its logs."""
    return source[measure.name].iloc[0].dropna().to_dict() if measure.name in source else {}


def passes(history: History) -> bool:
    """Whether a run ends over the goal."""
    return history.final_accuracy > GOAL


def consistent(history: History) -> bool:
    """Whether each of a run's last five epochs has the goal or more."""
    return all(record["test_accuracy"] >= GOAL for record in history.epochs[-5:])


def _passing(runs: Runs, beyond: Mapping[str, Interval]) -> str:
    """How many runs of each variant pass the goal, at the end and consistently."""
    rows = [
        [
            _variant(v),
            *(share(map(holds, histories(runs, v))) for holds in (passes, consistent)),
            interval(ends, FINAL.level),
        ]
        for v, ends in beyond.items()
    ]
    head = ["", f"end over {GOAL} %", f"{GOAL} % or more in each of the last five"]
    return markdown([*head, "mean, seeds x images [95 %]"], rows)


def _reached(table: pd.DataFrame) -> str:
    """How many runs of each variant get to the thresholds, and how many before the rate falls."""

    def cell(epochs: pd.Series) -> str:
        early = (epochs <= TrainingConfig.step_size).sum()
        return f"{share(epochs <= TrainingConfig.epochs)}; {early}"

    rows = [[_variant(v), *(cell(table[m.name, v]) for m in TO_THRESHOLDS)] for v in VARIANTS]
    return markdown(["", *(m.name.replace("epochs to", "reach") for m in TO_THRESHOLDS)], rows)


def _spread(table: pd.DataFrame, pilot: pd.DataFrame) -> str:
    """The standard deviations over seeds, beside the pilot's."""
    columns = table[FINAL.name].std(), table[SPEED.name].std(), pilot[FINAL.name].std()
    rows = [
        [_variant(v), *(f"{sds[v]:.3f}" if v in sds else "" for sds in columns)] for v in VARIANTS
    ]
    head = ["", "final accuracy, points", "learning speed, ln", "pilot: final accuracy, points"]
    return markdown(head, rows)


def spread_ratio(table: pd.DataFrame) -> float:
    """How many times as large the sd of the final accuracy is without batch normalization."""
    sds = table[FINAL.name].std()
    return geometric_mean(sds[v] / sds[f"{v}_bn"] for v in sds.index if f"{v}_bn" in sds)


def _beside(table: pd.DataFrame) -> str:
    """Published numbers that depend on what is guessed here, and the interval of one more run."""
    rows = []
    for measure in (TRAIN_1, FIRST, GAP, GAP_ALIKE):
        numbers = _published(measure)
        cells = [
            f"{numbers.get(v, 'none')} "
            + interval(predicted(table, Quoted(Contrast(v), measure)), measure.level)
            for v in THREE
        ]
        rows.append([f"{measure.meaning}, {measure.unit}", *cells])
    return markdown(["", *THREE], rows)


def _mismatch(table: pd.DataFrame) -> str:
    """Which published accuracies of epoch 1, and whether the gap, one run here could have given."""

    def holds(quoted: Quoted) -> bool:
        return lies_in(quoted.number(), predicted(table, quoted))

    said = []
    for measure, what in ((TRAIN_1, "train"), (FIRST, "test")):
        quoted = [Quoted(Contrast(v), measure) for v in THREE]
        texts = [f"{q.text()} ({q.contrast.name})" for q in quoted]
        named = plausibility(texts, list(map(holds, quoted)))
        said.append(f"Of the {what} accuracies of epoch 1, {named}.")
    gaps = [Quoted(Contrast("v1"), measure) for measure in (GAP, GAP_ALIKE)]
    taken, alike = ("a" if holds(gap) else "no" for gap in gaps)
    said.append(
        f"The gap of v1, {gaps[0].text()}, is {taken} plausible single run if the train accuracy "
        f"is taken while training, and {alike} plausible one if it is measured alike."
    )
    return " ".join(said)


# --- contrasts ------------------------------------------------------------------------------------


def _contrasts(
    table: pd.DataFrame, measure: Measure, beyond: Sequence[Interval] | None = None
) -> str:
    """All contrasts of a measure.

    beyond: the intervals over seeds and images, which final accuracies have.
    """
    of = ALL_RATIOS if measure.ratio else ALL
    rows = []
    for contrast, ends in zip(of, beyond or of, strict=True):
        found = effect(table, contrast, measure)
        row = [
            contrast.name,
            with_interval(found.found, measure.effect),
            interval(unpaired(table, contrast, measure), measure.effect),
            _p(found.p),
            _p(found.flip_p) + (" (!)" if found.tests_disagree else ""),
        ]
        if measure.margin is not None:
            row += [interval(found.narrow, measure.effect), _yes(found.within)]
        rows.append(row + ([interval(ends, measure.effect)] if beyond else []))
    head = ["", f"{measure.effect_unit}, paired [95 %]", "unpaired [95 %]", "p", "sign-flip p"]
    if measure.margin is not None:
        head += ["90 % interval", f"within {_margin(measure)}"]
    return markdown(head + (["seeds x images [95 %]"] if beyond else []), rows)


# --- seeds ----------------------------------------------------------------------------------------


def _pairs(table: pd.DataFrame) -> str:
    """What one run of each published variant would have said."""
    v1, v2, final = (table[FINAL.name, v] for v in ("v1", "v2", "final"))
    wins = [two > one for one, two in product(v1, v2)]
    order = [one < two < three for one, two, three in product(v1, v2, final)]
    return (
        f"v2 is more accurate than v1 in {100 * np.mean(wins):.0f} % of the pairs of their runs, "
        f"and v1, v2 and final come out in the published order in {100 * np.mean(order):.0f} % of "
        "the triples"
    )


def _needed(table: pd.DataFrame) -> str:
    """How many runs of each of two variants tell them apart."""
    final, names = table[FINAL.name], list(VARIANTS)
    rows = []
    for k, one in enumerate(names[1:], 1):
        needed = [runs_needed(final[one], final[other]) for other in names[:k]]
        cells = ["> 10,000" if n is None else f"{n:,}" for n in needed]
        rows.append([_variant(one), *cells, *[""] * (len(names) - 1 - k)])
    return markdown(["", *map(_variant, names[:-1])], rows)


def _networks(runs: Runs, table: pd.DataFrame) -> str:
    """How much the networks of a variant disagree, and what they say together."""
    rows = []
    for variant in _names(runs):
        said = answers(runs, variant)
        apart = np.mean([disagreement(*pair) for pair in combinations(said, 2)])
        mean = table[FINAL.name, variant].mean()
        rows.append([_variant(variant), f"{apart:.2f}", f"{mean:.3f}", f"{vote(said):.3f}"])
    head = ["", "two seeds disagree on, % of images", "mean of single networks, %"]
    return markdown([*head, f"{len(SEEDS)} networks voting, %"], rows)


def _churn(runs: Runs) -> str:
    """How much v1 and v2 disagree, beside how much their own seeds do."""
    v1, v2 = answers(runs, "v1"), answers(runs, "v2")
    own = max(np.mean([disagreement(*pair) for pair in combinations(of, 2)]) for of in (v1, v2))
    across = np.mean([disagreement(one, other) for one, other in product(v1, v2)])
    more = "no more" if across <= own else "more"
    return (
        f"a network of v1 and one of v2 disagree on {across:.2f} % of the images: moving dropout "
        f"changes {more} than changing the seed"
    )


# --- images ---------------------------------------------------------------------------------------


def _floor(runs: Runs) -> str:
    """How many test images which networks get wrong."""
    wrong = {variant: answers(runs, variant) >= 0 for variant in VARIANTS}
    count = sum(of.sum(axis=0) for of in wrong.values())
    never, often = int((count == len(runs)).sum()), int((2 * count > len(runs)).sum())
    floor = int(np.all([2 * of.sum(axis=0) > len(SEEDS) for of in wrong.values()], axis=0).sum())
    always = [f"{v} {int(of.all(axis=0).sum())}" for v, of in wrong.items()]
    most = 100 * count[2 * count > len(runs)].sum() / count.sum()
    return (
        f"Of the {TEST_IMAGES:,} test images, {never or 'none'} {'is' if never < 2 else 'are'} "
        f"wrong in all {len(runs)} networks, and {(count == 0).sum():,} are wrong in none. In more "
        f"than half of them {often} are wrong, which make {most:.0f} % of all mistakes, and in "
        f"more than half of every variant's {floor}: that is the floor under all of it, "
        f"{100 * floor / TEST_IMAGES:.2f} points of error that no variant is spared. In all "
        f"{len(SEEDS)} networks of a variant are wrong: {_and(always)}."
    )


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


# --- runs -----------------------------------------------------------------------------------------


def _every_run(runs: Runs, folder: str = RUNS.name) -> str:
    """All runs, a row each, with links into a folder."""
    measures = (FINAL, BEST, SPEED, EPOCHS, FIRST, TRAIN_1, GAP_ALIKE)
    rows = []
    for variant in _names(runs):
        for h in histories(runs, variant):
            name = f"{variant}-{h.seed}"
            ended = f"{len(h.epochs)}, {h.status}"
            rows.append(
                [f"[{name}]({folder}/{name}.json)", *(_number(m, m.of(h)) for m in measures), ended]
            )
    return markdown(["", *(measure.heading for measure in measures), "epochs run"], rows)


def _number(measure: Measure, value: float) -> str:
    """One run's number: a test image is 0.01 %, and an epoch a whole number."""
    if isinstance(value, int):
        return "never" if value > TrainingConfig.epochs else f"{value}"
    return measure.level(value) if measure.log else f"{value:.2f}"


def _origin(runs: Runs) -> str:
    """What trained the runs, and how they ended."""
    first = next(iter(runs.values())).environment
    seeds_on: dict[str, list[str]] = {}
    for seed in SEEDS:
        seeds_on.setdefault(runs["v1", seed].environment["processor"], []).append(f"{seed}")
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
    errors = {
        v: [[100 - r["test_accuracy"] for r in h.epochs] for h in histories(runs, v)]
        for v in VARIANTS
    }
    # zip ends with the shortest run, so that one that stops early does not bend the means.
    means = {
        v: [estimate([log(e) for e in of_epoch]).ends(exp) for of_epoch in zip(*of, strict=False)]
        for v, of in errors.items()
    }
    falls = range(1 + TrainingConfig.step_size, 1 + TrainingConfig.epochs, TrainingConfig.step_size)
    panels = [
        _runs_panel(table, FINAL, "test accuracy (%)", line=GOAL),
        _runs_panel(table, SPEED, "test error (%), log scale", log=True),
        _runs_panel(table, EPOCHS, "epoch", never=TrainingConfig.epochs + 1),
        _runs_panel(table, FIRST, "test accuracy (%)"),
    ]
    cells = [(images[index], caption) for index, caption in _hardest(runs, labels)]
    complete = not _missing(as_run, AS_RUN_SETTING)
    tables = [table, *([measured(as_run)] if complete else [])]
    drawn = {"comparison_band.png": figures.inside_our_band(_bands(as_run))} if complete else {}
    return drawn | {
        "comparison.png": figures.forest([_effects_panel(tables, measure) for measure in PRIMARY]),
        "comparison_runs.png": figures.every_run(panels),
        "comparison_curves.png": figures.curves(errors, means, falls),
        "comparison_hardest.png": figures.hardest(cells, len(runs)),
    }


def _bands(runs: Runs) -> list[figures.Band]:
    """The published logs and our runs of the same."""

    def errors(history: History) -> dict[str, list[float]]:
        epochs = history.epochs + history.epochs[-1:] * (
            TrainingConfig.epochs - len(history.epochs)
        )
        return {
            part: [100 - record[f"{part}_accuracy"] for record in epochs]
            for part in ("test", "train")
        }

    bands = []
    for name, variant in AS_RUN_NAMES.items():
        of = list(map(errors, histories(runs, variant)))
        ours = {part: [run[part] for run in of] for part in ("test", "train")}
        bands.append(figures.Band("Final" if name == "final" else name, ours, errors(LOGS[name])))
    return bands


def _effects_panel(tables: Sequence[pd.DataFrame], measure: Measure) -> figures.EffectPanel:
    """Effects by the table of each setting."""
    deciding = [
        (sign * part.contrast.weights, part.measure)
        for claim in CLAIMS
        for part in claim.parts
        for sign in (1, -1)
    ]
    rows = []
    for contrast in (LATE, LATE_BN, EARLY, EARLY_BN, BN, FINAL_V1, FINAL_V2):
        settings = []
        for found in (effect(table, contrast, measure) for table in tables):
            mean, *ends = found.found.ends(measure.natural)
            settings.append((mean, tuple(ends), tuple(map(measure.natural, found.narrow))))
        decides = any(m == measure and w.equals(contrast.weights) for w, m in deciding)
        name = contrast.name.replace(", ", ",\n")
        rows.append(figures.EffectRow(name, settings, decides))
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
    numbers = _published(measure)
    return figures.RunsPanel(measure.meaning.capitalize(), unit, values, means, numbers, **options)
