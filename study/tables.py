"""The report's tables and sentences: each function takes runs or results, and returns Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd

from helpers.config import TrainingConfig
from helpers.history import TEST_IMAGES
from models import FINAL_AS_RUN, GOAL, VARIANTS
from study import analysis
from study.analysis import INCONCLUSIVE, Across, Reproduction, Verdict, effect
from study.claims import (
    ACCURACY,
    BEST,
    EFFECTS,
    EPOCHS,
    EPOCHS_RATIO,
    FINAL_V2,
    FIRST_ACCURACY,
    FIRST_ERROR,
    GAP,
    GAP_ALIKE,
    INTERACTIONS,
    ITSELF,
    LATE,
    LATE_BN,
    LOGGED,
    OTHERS,
    PAGE,
    PUBLISHED,
    RATIOS,
    SIX,
    SPEED,
    THREE,
    TO_THRESHOLDS,
    TRAIN_1,
    V1_V2,
    WITHOUT_BN,
    Contrast,
    Measure,
    Quoted,
    published,
)
from study.runs import SEEDS, Runs, histories, names
from study.statistics import ALPHA, Estimate, Interval, estimate, holm, runs_needed, wilson

CONTRASTS = (*EFFECTS, *INTERACTIONS, *PUBLISHED, *OTHERS)
OF_RATIOS = (*EFFECTS, WITHOUT_BN, *PUBLISHED, *OTHERS)  # which have no interactions


def variants_by(source: pd.DataFrame) -> list[str]:
    """The variants of the setting that PAGE or LOGGED is of; Final as run by that name alone."""
    return [v for v in VARIANTS if source is PAGE or v != FINAL_AS_RUN]


def contrasts_by(source: pd.DataFrame, contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Those of the contrasts that there are in a setting: as run Final is v2_bn, and no other."""
    return [c for c in contrasts if source is PAGE or c != ITSELF]


# --- words ----------------------------------------------------------------------------------------


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


def p_text(p: float) -> str:
    """A p value, as exact as it is of use."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def yes(value: bool | None) -> str:
    """A bold yes, a no, or nothing."""
    return {True: "**yes**", False: "no", None: ""}[value]


def listed(words: Iterable[str]) -> str:
    """ "a, b and c"; "none of them" of nothing, as a variant is called none"""
    *most, last = list(words) or ["none of them"]
    return f"{', '.join(most)} and {last}" if most else last


def margin(measure: Measure) -> str:
    """The smallest effect of interest, with its unit."""
    return f"{measure.natural(measure.margin):.2f} {measure.effect_unit}"


def share(holds: Iterable[bool]) -> str:
    """How many of how many hold, with Wilson's interval of the share in %."""
    holds = list(holds)
    count, n = sum(holds), len(holds)
    return f"{count} of {n} {interval(wilson(count, n), lambda s: f'{100 * s:.0f}')}"


def bold(variant: str) -> str:
    """A variant's name, bold if it is published."""
    return f"**{variant}**" if variant in THREE else variant


def _means(table: pd.DataFrame, source: pd.DataFrame) -> pd.Series:
    """Every variant's mean final accuracy, without what sums leave over, so that equal is equal."""
    return table[ACCURACY.name].mean()[variants_by(source)].round(9)


def number(measure: Measure, value: float) -> str:
    """One run's number: a test image is 0.01 %, and an epoch a whole number."""
    if isinstance(value, int):
        return "never" if value > TrainingConfig.epochs else f"{value}"
    return measure.level(value) if measure.log else f"{value:.2f}"


# --- claims ---------------------------------------------------------------------------------------


def answer(found: Sequence[Verdict], table: pd.DataFrame, source: pd.DataFrame = PAGE) -> str:
    """A sentence on each claim, with what the verdict does not say by itself.

    source: what the published numbers are taken from, the page or its logs.
    """
    soon, sooner = (
        with_interval(effect(table, WITHOUT_BN, m).estimate, m.effect) for m in RATIOS[:2]
    )
    (epochs, _, in_epochs), (error, _, in_errors) = (
        analysis.on_scale(table, *of) for of in ((V1_V2, EPOCHS), (LATE, FIRST_ERROR))
    )
    one_pair = interval(found[1].predicted[0], "{:.2f}".format)
    pair_alone = with_interval(effect(table, FINAL_V2, ACCURACY).estimate, ACCURACY.effect)
    added = [
        "that is an average over early dropout, and in epochs to 99 % v1 - v2, the published pair, "
        f"is {with_interval(epochs.estimate, EPOCHS.effect)}: {in_epochs}",
        f"to 98 % it is {soon} and to 98.5 % {sooner} times; a run of v1 and one of Final may give "
        f"anything in {one_pair}",
        "that is an average over four placements of dropout, and final - v2, the published pair, "
        f"is {pair_alone}",
        _beside_the_goal(found[3].effects[0], _means(table, source)),
        "as a factor of the test error it is "
        f"{with_interval(error.estimate, FIRST_ERROR.effect)}: {in_errors}",
    ]
    pairs = enumerate(zip(found, added, strict=True), 1)
    return "\n".join(f"{n}. {sentence(verdict, more, source)}" for n, (verdict, more) in pairs)


def _beside_the_goal(over: analysis.Effect, means: pd.Series) -> str:
    """How far above the goal Final is, and where among the others, by their means (%)."""
    of_bn = [v for v in means.index if VARIANTS[v].batch_norm]
    rank = sum(means[v] > means["final"] for v in of_bn)
    ordinals = ("highest", "second highest", "third highest", "fourth highest")
    ordinal = "lowest" if rank == len(of_bn) - 1 else ordinals[rank]
    return (
        f"Final's mean is {over.estimate.mean - GOAL:+.3f} points from the goal, and "
        f"{'' if over.within else 'not '}shown to be within {margin(ACCURACY)} of it "
        f"(p {p_text(over.equivalence)}); it is "
        f"{'' if means['final'] > max(means['v1'], means['v2']) else 'not '}the most accurate of "
        f"the published three, and of the {len(of_bn)} variants with batch normalization the one "
        f"with the {ordinal} mean"
    )


def sentence(verdict: Verdict, added: str, source: pd.DataFrame = PAGE) -> str:
    """What a reader can quote of a verdict; added: what else is to be said of it."""
    estimates = [with_interval(found.estimate, part.write) for part, found in verdict.found]
    quoted = plausibility(told_apart(verdict.claim.quoted, source), verdict.plausible)
    doubt = f" after {len(SEEDS)} seeds" if verdict.word == INCONCLUSIVE else ""
    said = verdict.claim.sentence.format(*estimates)
    return f"{said}: **{verdict.word}**{doubt}; {added}; the published {quoted}."


def told_apart(quoted: Sequence[Quoted], source: pd.DataFrame) -> list[str]:
    """Published numbers as text, with the variants they are of where two would read the same."""
    texts = [q.text(source) for q in quoted]
    return [
        f"{text} ({q.contrast.name.replace(' - ', ' / ')})" if texts.count(text) > 1 else text
        for q, text in zip(quoted, texts, strict=True)
    ]


def plausibility(texts: Sequence[str], plausible: Sequence[bool]) -> str:
    """Which of some published numbers are plausible single runs, in words."""
    said = []
    for holds in (True, False):
        if named := [text for text, p in zip(texts, plausible, strict=True) if p == holds]:
            verb, noun = (
                ("are", "plausible single runs") if named[1:] else ("is", "a plausible single run")
            )
            said.append(f"{listed(named)} {verb} {'' if holds else 'not '}{noun}")
    return ", ".join(said)


def claims(found: Sequence[Verdict], source: pd.DataFrame = PAGE) -> str:
    """The verdicts: effects and published numbers, by the page or its logs."""
    rows = []
    for n, verdict in enumerate(found, 1):
        quoted = verdict.claim.quoted
        texts = told_apart(quoted, source)
        held = zip(quoted, texts, verdict.plausible, verdict.predicted, strict=True)
        numbers = "<br>".join(
            f"{text}: {'plausible' if plausible else '**not**'}, "
            + interval(ends, f"{{:.{of.measure.decimals}f}}".format)
            for of, text, plausible, ends in held
        )
        word = f"**{verdict.word}**"
        rows.append(
            [
                f"{n}. {verdict.claim}",
                word,
                p_text(verdict.corrected),
                size(verdict, source),
                numbers,
            ]
        )
    head = ["claim, as published", "is there an effect", "p, after Holm", "how large, here"]
    return markdown([*head, "is the published figure a plausible single run"], rows)


def size(verdict: Verdict, source: pd.DataFrame = PAGE) -> str:
    """How large the effects of a verdict's parts are; whether a mean as claimed is excluded.

    source: what the claim's number is taken from, the page or its logs.
    """
    said = [
        f"{f'{part.contrast.name}: ' if verdict.effects[1:] else ''}"
        f"{with_interval(of.estimate, part.write)} {part.unit}"
        for part, of in verdict.found
    ]
    if verdict.claim.of_means:
        quoted, measure = verdict.claim.quoted[0], verdict.claim.parts[0].measure
        ends = tuple(map(measure.natural, verdict.effects[0].estimate.interval()))
        held = "is not excluded" if analysis.lies_in(quoted.number(source), ends) else "is excluded"
        said.append(f"a mean of {quoted.text(source)} {held}")
    return "<br>".join(said)


def parts(found: Sequence[Verdict]) -> str:
    """What the verdicts rest on: the primary contrasts, and claim 4's parts."""
    rows = []
    for n, verdict in enumerate(found, 1):
        for part, of in verdict.found:
            against = f" against {part.null:g} %" if part.null else ""
            rows.append(
                [
                    f"{n}. {part.contrast.name}{against}",
                    part.measure.meaning,
                    with_interval(of.estimate, part.write),
                    p_text(of.p),
                    p_text(of.flip_p),
                    interval(of.narrow, part.write),
                    margin(part.measure),
                    yes(of.within),
                ]
            )
    head = ["", "measure", "estimate [95 %]", "p", "sign-flip p", "90 % interval", "margin"]
    return markdown([*head, "within it"], rows)


def on_different_sides(found: Sequence[Verdict]) -> str:
    """Where t test and sign-flip test do not agree on a part of a claim."""
    named = [
        f"claim {n}, {part.contrast.name}"
        for n, verdict in enumerate(found, 1)
        for part, of in verdict.found
        if of.tests_disagree
    ]
    if not named:
        return "The t test and the sign-flip test fall on the same side of 0.05 in all of them."
    return (
        "The t test, which decides, and the sign-flip test fall on different sides of 0.05 in "
        f"{listed(named)}."
    )


def others_said(table: pd.DataFrame, source: pd.DataFrame = PAGE) -> str:
    """Which of the other variants Final is shown to be more accurate than, in words."""
    others = contrasts_by(source, OTHERS)
    found = analysis.family(table, others, ACCURACY)
    beaten = [c.name for c, e, p, _ in found if p < ALPHA and e.estimate.mean > 0]
    rest = [c.name for c in others if c.name not in beaten]
    beaten, rest = ([f"`{name.removeprefix('final - ')}`" for name in of] for of in (beaten, rest))
    but = f", but not than {listed(rest)}" if beaten and rest else ""
    means = _means(table, source)
    return (
        f"Of the {len(others)} others, Final is shown to be more accurate than {listed(beaten)}"
        f"{but}. The highest mean is that of `{means.idxmax()}`, {means.max():.3f} %."
    )


def family(table: pd.DataFrame, contrasts: Sequence[Contrast], measure: Measure) -> str:
    """Contrasts, with Holm's correction over all of them."""
    rows = [
        [
            contrast.name,
            with_interval(of.estimate, measure.effect),
            p_text(of.p),
            p_text(p),
            interval(of.narrow, measure.effect),
            yes(of.within),
            p_text(of.equivalence),
            p_text(equivalence),
        ]
        for contrast, of, p, equivalence in analysis.family(table, contrasts, measure)
    ]
    over = f"Holm over the {len(contrasts)}"
    head = ["", f"{measure.effect_unit} [95 %]", "p", f"p, {over}", "90 % interval"]
    return markdown([*head, f"within {margin(measure)}", "p, within", f"p, within, {over}"], rows)


def family_said(table: pd.DataFrame, contrasts: Sequence[Contrast], measure: Measure) -> str:
    """Which of the contrasts there is an effect in, after Holm's correction, in words."""
    found = analysis.family(table, contrasts, measure)
    shown = [f"`{c.name}`" for c, _, p, _ in found if p < ALPHA]
    if not shown:
        return f"none of the {len(contrasts)} is shown"
    are = "are" if shown[1:] else "is"
    return f"{len(shown)} of the {len(contrasts)} {are} shown, {listed(shown)}"


# --- the publication ------------------------------------------------------------------------------


def publication(page: Sequence[Verdict], as_run: Sequence[Verdict] | None) -> str:
    """The claims: as first published, corrected, by their own logs, and in our settings."""
    rows = []
    for n, verdict in enumerate(page, 1):
        claim = verdict.claim
        logged = "<br>".join(
            f"{q.contrast.name}: {q.text(LOGGED)}" for q in claim.quoted if q.value is None
        )
        ours = [verdict, *([as_run[n - 1]] if as_run else [])]
        said = [
            f"**{v.word}**<br>{size(v, by)}" for v, by in zip(ours, (PAGE, LOGGED), strict=False)
        ]
        if as_run:
            one, other = (v.word for v in ours)
            same = f"{one} in both settings"
            short = same if one == other else f"{one} from the page; {other} as run"
            said.append(f"{'withdrawn; ' if claim.withdrawn else ''}{short}")
        rows.append([f"{n}. {claim}", claim.corrected, logged, *said])
    head = ["as first published", "as corrected by its author", "what its own logs say"]
    head += [f"from the page, {len(SEEDS)} seeds"]
    return markdown(head + ([f"as run, {len(SEEDS)} seeds", "in short"] if as_run else []), rows)


def _held(measure: Measure, said: float, ends: Interval) -> str:
    """A published number and the prediction interval of one more run; bold if it lies outside."""
    outside = "" if analysis.lies_in(said, ends) else " **outside**"
    return f"{number(measure, said)} {interval(ends, measure.level)}{outside}"


def reproduction(held: Mapping[str, Reproduction]) -> str:
    """The six numbers of each log, and where its curve is."""
    rows = [
        [
            f"{measure.meaning}, {measure.unit}",
            *(_held(measure, of.numbers[k], of.predicted[k]) for of in held.values()),
        ]
        for k, measure in enumerate(SIX)
    ]
    rows.append(["rank of the curve's distance", *(f"{of.rank}" for of in held.values())])
    rows.append(["**reproduced**", *(yes(of.reproduced) for of in held.values())])
    return markdown(["", *held], rows)


def reproduced(held: Mapping[str, Reproduction]) -> str:
    """Which of the published logs are reproduced, in words."""
    named = [variant for variant, of in held.items() if of.reproduced]
    rest = [variant for variant in held if variant not in named]
    return (
        f"So {len(named)} of the {len(held)} {'is' if len(named) == 1 else 'are'} reproduced"
        f"{f': **{listed(named)}**' if named else ''}"
        f"{f', not {listed(rest)}' if named and rest else ''}."
    )


def beside(table: pd.DataFrame) -> str:
    """Published numbers that depend on what was guessed, and the interval of one more run here."""
    rows = []
    for measure in (TRAIN_1, FIRST_ACCURACY, GAP):
        numbers, cells = published(measure), []
        for v in THREE:
            ends = analysis.predicted(table, Quoted(Contrast(v), measure))
            unsaid = f"- {interval(ends, measure.level)}"
            cells.append(_held(measure, numbers[v], ends) if v in numbers else unsaid)
        rows.append([f"{measure.meaning}, {measure.unit}", *cells])
    return markdown(["", *THREE], rows)


def pair(found: Across) -> str:
    """The sixth test."""
    part, of = found.part, found.mean
    page, logs = (Quoted(part.contrast, part.measure).text(source) for source in (PAGE, LOGGED))
    apart = "; the two tests fall on different sides of 0.05" if of.tests_disagree else ""
    return (
        f"{part.contrast.name}, the published pair, in the mean of both settings "
        f"({2 * len(SEEDS)} pairs): {with_interval(of.estimate, part.write)} points, "
        f"p {p_text(of.p)}, sign-flip p {p_text(of.flip_p)}{apart}, 90 % interval "
        f"{interval(of.narrow, part.write)}: **{analysis.word([part], [of], of.p)}**. The way "
        f"claimed is the page's, {page}; the logs have {logs}."
    )


def across(found: Sequence[Across]) -> str:
    """Contrasts in both settings, their difference and their mean."""
    rows = []
    for of in found:
        measure, write = of.part.measure, of.part.write
        means = [with_interval(e.estimate, write) for e in (of.page, of.as_run)]
        apart = with_interval(of.difference.estimate, measure.effect)
        together = with_interval(of.mean.estimate, write)
        name = f"{of.part.contrast.name}, {measure.name}"
        rows.append([name, *means, apart, together, of.word])
    head = ["", "from the page [95 %]", "as run [95 %]", "difference [95 %]", "mean [95 %]"]
    return markdown([*head, "settings"], rows)


def across_said(found: Sequence[Across]) -> str:
    """A sentence on each contrast in both settings."""
    lines = []
    for of in found:
        part = of.part
        page, as_run = (
            f"{with_interval(e.estimate, part.write)} {part.unit}" for e in (of.page, of.as_run)
        )
        how = f"lie on opposite sides of {part.null:g} %" if part.null else "differ in sign"
        against = f"; the two {how}" if of.opposite else ""
        lines.append(
            f"- {part.contrast.name}, {part.measure.meaning}: {page} from the page and "
            f"{as_run} as run: {of.word}{against}."
        )
    return "\n".join(lines)


# --- what the words depend on ---------------------------------------------------------------------


def conditions(runs: Runs) -> str:
    """What all runs have in common, and so what nothing here says anything about."""
    processors = {history.environment["processor"] for history in runs.values()}
    rates = {rate for variant in VARIANTS.values() for rate in variant.dropout if rate}
    return (
        f"{len(SEEDS)} seeds of each variant, "
        f"{'one type' if len(processors) == 1 else f'{len(processors)} types'} of processor "
        f"({'; '.join(sorted(processors))}), dropout of rate {listed(f'{r:g}' for r in rates)}, "
        f"and these {TEST_IMAGES:,} test images"
    )


def ratios(table: pd.DataFrame) -> str:
    """How many times as many epochs it takes to the thresholds without batch normalization."""
    weights = WITHOUT_BN.weights
    rows = []
    for measure, epochs in zip(RATIOS, TO_THRESHOLDS, strict=False):  # of the first three
        found = effect(table, WITHOUT_BN, measure)
        row = [measure.meaning, with_interval(found.estimate, measure.effect), p_text(found.p)]
        for side in (weights > 0, weights < 0):
            cells = table[epochs.name][weights[side].index].to_numpy()
            at_once = (cells == TrainingConfig.step_size + 1).sum()
            row.append(f"{(cells <= TrainingConfig.step_size).sum()}; {at_once} of {cells.size}")
        rows.append(row)
    return markdown(["", "without / with [95 %]", "p", "without", "with"], rows)


def scales(table: pd.DataFrame) -> str:
    """Claims 1 and 5 on other scales, and of the published pair alone."""
    rows = []
    for claim, measures in ((1, (SPEED, EPOCHS_RATIO, EPOCHS)), (5, (FIRST_ACCURACY, FIRST_ERROR))):
        for measure, contrast in product(measures, (LATE, V1_V2)):
            found, limit, said = analysis.on_scale(table, contrast, measure)
            decides = (contrast, measure) == (LATE, measures[0])
            rows.append(
                [
                    f"{claim}. {contrast.name}",
                    measure.name,
                    with_interval(found.estimate, measure.effect),
                    interval(found.narrow, measure.effect),
                    f"{measure.natural(limit):.2f} {measure.effect_unit}",
                    f"**{said}**" if decides else said,
                ]
            )
    return markdown(["", "measure", "estimate [95 %]", "90 % interval", "margin", "word"], rows)


def averages(table: pd.DataFrame) -> str:
    """How sure it is that late dropout matters little on average over early dropout."""
    p = [effect(table, c, m).equivalence for c, m in product((LATE, LATE_BN), (ACCURACY, SPEED))]
    return (
        f"The largest p value of the {len(p)} equivalence tests is {p_text(max(p))}, and "
        f"{p_text(max(holm(p)))} after Holm"
    )


# --- variants -------------------------------------------------------------------------------------


def variants(table: pd.DataFrame, measures: Sequence[Measure], source: pd.DataFrame = PAGE) -> str:
    """Means with intervals of all variants, a column per measure, beside the published numbers."""
    head, rows = [""], {v: [bold(v)] for v in variants_by(source)}
    for measure in measures:
        numbers = published(measure, source)
        head += [measure.heading, "published"] if numbers else [measure.heading]
        for variant, row in rows.items():
            row.append(with_interval(estimate(table[measure.name, variant]), measure.level))
            if numbers:
                row.append(number(measure, numbers[variant]) if variant in numbers else "")
    return markdown(head, rows.values())


def passing(runs: Runs, beyond: Sequence[Interval]) -> str:
    """How many runs of each variant pass the goal, at the end and consistently.

    beyond: of each variant's mean the interval over seeds and images.
    """
    rows = [
        [
            bold(v),
            *(
                share(map(holds, histories(runs, v)))
                for holds in (analysis.passes, analysis.consistent)
            ),
            interval(ends, ACCURACY.level),
        ]
        for v, ends in zip(names(runs), beyond, strict=True)
    ]
    head = ["", f"end over {GOAL} %", f"{GOAL} % or more in each of the last five"]
    return markdown([*head, "mean, seeds x images [95 %]"], rows)


def reached(table: pd.DataFrame, source: pd.DataFrame = PAGE) -> str:
    """How many runs of each variant get to the thresholds, and how many before the rate falls."""

    def cell(epochs: pd.Series) -> str:
        early = (epochs <= TrainingConfig.step_size).sum()
        return f"{share(epochs <= TrainingConfig.epochs)}; {early}"

    rows = [
        [bold(v), *(cell(table[m.name, v]) for m in TO_THRESHOLDS)] for v in variants_by(source)
    ]
    return markdown(["", *(m.name.replace("epochs to", "reach") for m in TO_THRESHOLDS)], rows)


def contrasts(
    table: pd.DataFrame,
    measure: Measure,
    source: pd.DataFrame = PAGE,
    beyond: Sequence[Interval] | None = None,
) -> str:
    """All contrasts of a measure in the setting that source is of.

    beyond: the intervals over seeds and images, which final accuracies have.
    """
    of = contrasts_by(source, OF_RATIOS if measure.ratio else CONTRASTS)
    rows = []
    for contrast, ends in zip(of, beyond or of, strict=True):
        found = effect(table, contrast, measure)
        row = [
            contrast.name,
            with_interval(found.estimate, measure.effect),
            interval(analysis.unpaired(table, contrast, measure), measure.effect),
            p_text(found.p),
            p_text(found.flip_p) + (" (!)" if found.tests_disagree else ""),
        ]
        if measure.margin is not None:
            row += [interval(found.narrow, measure.effect), yes(found.within)]
        rows.append(row + ([interval(ends, measure.effect)] if beyond else []))
    head = ["", f"{measure.effect_unit}, paired [95 %]", "unpaired [95 %]", "p", "sign-flip p"]
    if measure.margin is not None:
        head += ["90 % interval", f"within {margin(measure)}"]
    return markdown(head + (["seeds x images [95 %]"] if beyond else []), rows)


# --- seeds and images -----------------------------------------------------------------------------


def spread(table: pd.DataFrame, pilot: pd.DataFrame) -> str:
    """The standard deviations over seeds, beside the pilot's."""
    columns = (
        table[ACCURACY.name].std(),
        table[SPEED.name].std(),
        pilot[ACCURACY.name].std(),
    )
    rows = [[bold(v), *(f"{sds[v]:.3f}" if v in sds else "" for sds in columns)] for v in VARIANTS]
    head = ["", "final accuracy, points", "learning speed, ln", "pilot: final accuracy, points"]
    return markdown(head, rows)


def pairs(table: pd.DataFrame) -> str:
    """What one run of each published variant would have said."""
    v1, v2, final = (table[ACCURACY.name, v] for v in ("v1", "v2", "final"))
    wins = [two > one for one, two in product(v1, v2)]
    page, logs = (
        100 * np.mean([worst < middle < best for worst, middle, best in product(*of, final)])
        for of in ((v1, v2), (v2, v1))
    )
    return (
        f"v2 is more accurate than v1 in {100 * np.mean(wins):.0f} % of the pairs of their runs; "
        f"v1, v2 and final come out in the page's order in {page:.0f} % of the triples, and in "
        f"that of the logs' last epochs, v2, v1 and final, in {logs:.0f} %"
    )


def needed(table: pd.DataFrame) -> str:
    """How many runs of each of two variants tell them apart."""
    final, named = table[ACCURACY.name], list(VARIANTS)
    rows = []
    for k, one in enumerate(named[1:], 1):
        counts = [runs_needed(final[one], final[other]) for other in named[:k]]
        cells = ["> 10,000" if n is None else f"{n:,}" for n in counts]
        rows.append([bold(one), *cells, *[""] * (len(named) - 1 - k)])
    return markdown(["", *map(bold, named[:-1])], rows)


def networks(runs: Runs, table: pd.DataFrame) -> str:
    """How much the networks of a variant disagree, and what they say together."""
    rows = []
    for variant in names(runs):
        said = analysis.answers(histories(runs, variant))
        apart = np.mean([analysis.disagreement(*pair) for pair in combinations(said, 2)])
        mean = table[ACCURACY.name, variant].mean()
        rows.append([bold(variant), f"{apart:.2f}", f"{mean:.3f}", f"{analysis.vote(said):.3f}"])
    head = ["", "two seeds disagree on, % of images", "mean of single networks, %"]
    return markdown([*head, f"{len(SEEDS)} networks voting, %"], rows)


def churn(runs: Runs) -> str:
    """How much v1 and v2 disagree, beside how much their own seeds do."""

    def apart(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
        return np.mean([analysis.disagreement(*pair) for pair in pairs])

    v1, v2 = (analysis.answers(histories(runs, v)) for v in ("v1", "v2"))
    between = apart(zip(v1, v2, strict=True))
    more = between > min(apart(combinations(of, 2)) for of in (v1, v2))
    return (
        f"a network of v1 and that of v2 with the same seed disagree on {between:.2f} % of the "
        f"images: between these two, moving dropout changes {'more' if more else 'no more'} than "
        "changing the seed"
    )


def floor(runs: Runs) -> str:
    """How many test images which networks get wrong."""
    wrong = {variant: analysis.answers(histories(runs, variant)) >= 0 for variant in VARIANTS}
    count = sum(of.sum(axis=0) for of in wrong.values())
    never, often = int((count == len(runs)).sum()), int((2 * count > len(runs)).sum())
    hard = np.all([2 * of.sum(axis=0) > len(SEEDS) for of in wrong.values()], axis=0)
    least, of_one = int(hard.sum()), count[hard].sum() / len(runs)
    always = [f"`{v}` {int(of.all(axis=0).sum())}" for v, of in wrong.items()]
    most = 100 * count[2 * count > len(runs)].sum() / count.sum()
    return (
        f"Of the {TEST_IMAGES:,} test images, {never or 'none'} {'is' if never < 2 else 'are'} "
        f"wrong in all {len(runs)} networks, and {(count == 0).sum():,} are wrong in none. More "
        f"than half of the networks get {often} images wrong; these make {most:.0f} % of all "
        f"mistakes. {least} are wrong in more than half of every variant's networks, and cost a "
        f"single network {100 * of_one / TEST_IMAGES:.2f} points of error on average. All "
        f"{len(SEEDS)} networks of a variant get wrong: {listed(always)}."
    )


# --- runs -----------------------------------------------------------------------------------------


def every_run(runs: Runs, folder: str) -> str:
    """All runs, a row each, with links into a folder."""
    measures = (ACCURACY, BEST, SPEED, EPOCHS, FIRST_ACCURACY, TRAIN_1, GAP_ALIKE)
    rows = []
    for variant in names(runs):
        for h in histories(runs, variant):
            name = f"{variant}-{h.seed}"
            ended = f"{len(h.epochs)}, {h.status}"
            numbers = [number(m, m.of(h)) for m in measures]
            rows.append([f"[{name}]({folder}/{name}.json)", *numbers, ended])
    return markdown(["", *(measure.heading for measure in measures), "epochs run"], rows)


def origin(runs: Runs) -> str:
    """What trained the runs, and how they ended."""
    first = next(iter(runs.values())).environment
    seeds_on: dict[str, list[str]] = {}
    for seed in SEEDS:
        seeds_on.setdefault(runs["v1", seed].environment["processor"], []).append(f"{seed}")
    processors = [
        f"seed{'s' if seeds[1:] else ''} {listed(seeds)} on {name}"
        for name, seeds in seeds_on.items()
    ]
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
