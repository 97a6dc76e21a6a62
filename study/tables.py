"""The report's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from helpers.config import TrainingConfig
from helpers.history import History
from helpers.statistics import Interval, Summary, summarise, wilson
from models import GOAL, VARIANTS
from study.claims import Effect, Figure, Verdict, effect_of, holm, predicted
from study.contrasts import (
    BEST,
    EFFECTS,
    EPOCHS,
    FINAL,
    FIRST,
    GAP,
    GAP_ALIKE,
    INTERACTIONS,
    OTHERS,
    PUBLISHED,
    SPEED,
    TO_THRESHOLDS,
    TRAIN_1,
    WITHOUT_BN,
    Contrast,
    Measure,
    Runs,
    beyond_these_images,
    only,
    per_seed,
    unpaired,
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(ends: Interval, write: Callable[[float], str]) -> str:
    """[low, high]"""
    return f"[{write(ends[0])}, {write(ends[1])}]"


def estimate(found: Summary, write: Callable[[float], str]) -> str:
    """mean [low, high]"""
    return f"{write(found.mean)} {interval((found.low, found.high), write)}"


def p_text(p: float) -> str:
    """A p value, as exact as it is of use."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def histories(runs: Runs, variant: str) -> list[History]:
    """A variant's runs, by seed."""
    return [history for (name, _), history in sorted(runs.items()) if name == variant]


def summary(runs: Runs, variant: str, measure: Measure) -> Summary:
    """Of a measure over a variant's runs."""
    return summarise(per_seed(runs, only(variant), measure))


# --- claims ---------------------------------------------------------------------------------------


def claims(found: Sequence[Verdict]) -> str:
    """The verdicts: effect and published figures."""
    rows = []
    for number, verdict in enumerate(found, 1):
        figures = zip(verdict.claim.figures, verdict.plausible, verdict.predicted, strict=True)
        rows.append(
            [
                f"{number}. {verdict.claim}",
                f"**{verdict.word}**",
                p_text(verdict.corrected),
                "<br>".join(
                    f"{figure.text}: {'plausible' if plausible else '**not**'}, "
                    + interval(ends, f"{{:.{figure.measure.decimals}f}}".format)
                    for figure, plausible, ends in figures
                ),
            ]
        )
    head = ["claim, as published", "effect", "p, after Holm", "published figure, as a single run"]
    return table(head, rows)


def parts(found: Sequence[Verdict]) -> str:
    """What the verdicts rest on: the primary contrasts, and claim 4's parts."""
    rows = []
    for number, verdict in enumerate(found, 1):
        for part, effect in zip(verdict.claim.parts, verdict.effects, strict=True):
            against = f" against {part.null:g} %" if part.null else ""
            rows.append(
                [
                    f"{number}. {part.contrast.name}{against}",
                    part.measure.meaning,
                    estimate(effect.summary, part.write),
                    p_text(effect.p),
                    p_text(effect.flip_p),
                    interval(effect.narrow, part.write),
                    margin(part.measure),
                    _yes(effect.within),
                ]
            )
    head = ["", "measure", "estimate [95 %]", "p", "sign-flip p", "90 % interval", "margin"]
    return table([*head, "within it"], rows)


def margin(measure: Measure) -> str:
    """The smallest effect of interest, in words."""
    return f"{measure.natural(measure.margin):.2f} {measure.effect_unit}"


def _yes(value: bool | None) -> str:
    return {True: "**yes**", False: "no", None: ""}[value]


def against_others(runs: Runs) -> list[tuple[Contrast, Effect, float]]:
    """Final against the six variants that the publication does not hold it against.

    Per variant the contrast, its effect, and its p value after Holm's correction over the six.
    """
    effects = [effect_of(per_seed(runs, c, FINAL), FINAL.margin) for c in OTHERS]
    return list(zip(OTHERS, effects, holm([effect.p for effect in effects]), strict=True))


def others(runs: Runs) -> str:
    """The table of against_others."""
    rows = [
        [
            contrast.name,
            estimate(effect.summary, FINAL.effect),
            p_text(effect.p),
            p_text(p),
            interval(effect.narrow, FINAL.effect),
            _yes(effect.within),
        ]
        for contrast, effect, p in against_others(runs)
    ]
    head = ["", "points [95 %]", "p", "p, Holm over the six", "90 % interval"]
    return table([*head, f"within {margin(FINAL)}"], rows)


# --- variants -------------------------------------------------------------------------------------


def variants(runs: Runs, measures: Sequence[Measure]) -> str:
    """Means with intervals of all variants, a column per measure, beside the published figures."""
    head = [""]
    for measure in measures:
        head.append(measure.heading)
        if _published(measure):
            head.append("published")
    rows = []
    for variant in VARIANTS:
        row = [_variant(variant)]
        for measure in measures:
            row.append(estimate(summary(runs, variant, measure), measure.level))
            if published := _published(measure):
                row.append(published.get(variant, ""))
        rows.append(row)
    return table(head, rows)


def _variant(name: str) -> str:
    return f"**{name}**" if VARIANTS[name].published else name


def _published(measure: Measure) -> dict[str, str]:
    """The published figures, written, of the variants that have one."""
    found = {v: measure.published(VARIANTS[v].published) for v in VARIANTS if VARIANTS[v].published}
    return {v: f"{figure:g}" for v, figure in found.items() if figure is not None}


def share(of: Sequence[History], holds: Callable[[History], bool]) -> str:
    """How many runs, of how many, with Wilson's interval of the share in %."""
    count = sum(map(holds, of))
    return f"{count} of {len(of)} {interval(wilson(count, len(of)), lambda s: f'{100 * s:.0f}')}"


def passes(history: History) -> bool:
    """Whether a run ends over the goal."""
    return history.final_accuracy > GOAL


def consistent(history: History) -> bool:
    """Whether each of a run's last five epochs has the goal or more."""
    return all(record["test_accuracy"] >= GOAL for record in history.epochs[-5:])


def goal(runs: Runs) -> str:
    """How many runs of each variant pass the goal, at the end and consistently."""
    rows = [
        [_variant(v), share(histories(runs, v), passes), share(histories(runs, v), consistent)]
        for v in VARIANTS
    ]
    return table(["", f"end over {GOAL} %", f"{GOAL} % or more in each of the last five"], rows)


def reached(runs: Runs) -> str:
    """How many runs of each variant get to the thresholds, and how many before the rate falls."""

    def cell(variant: str, measure: Measure) -> str:
        of = histories(runs, variant)
        early = sum(measure.figure(h) <= TrainingConfig.step_size for h in of)
        return f"{share(of, lambda h: measure.figure(h) <= TrainingConfig.epochs)}; {early}"

    rows = [[_variant(v), *(cell(v, measure) for measure in TO_THRESHOLDS)] for v in VARIANTS]
    return table(["", *(m.name.replace("epochs to", "reach") for m in TO_THRESHOLDS)], rows)


def spread(runs: Runs, pilot: Runs) -> str:
    """The standard deviations over seeds, beside the pilot's."""
    rows = []
    for variant in VARIANTS:
        before = [FINAL.figure(history) for history in histories(pilot, variant)]
        sds = [summary(runs, variant, FINAL).sd, summary(runs, variant, SPEED).sd]
        cells = [f"{sd:.3f}" for sd in sds]
        rows.append([_variant(variant), *cells, f"{summarise(before).sd:.3f}" if before else ""])
    head = ["", "final accuracy, points", "learning speed, ln", "pilot: final accuracy, points"]
    return table(head, rows)


def beside(runs: Runs) -> str:
    """Published figures that depend on what is guessed here, and the interval of one more run."""
    published = [v for v in VARIANTS if VARIANTS[v].published]
    rows = []
    for measure in (TRAIN_1, FIRST, GAP, GAP_ALIKE):
        cells = []
        for variant in published:
            ends = predicted(runs, Figure(only(variant), measure))
            figure = _published(measure).get(variant, "none")
            cells.append(f"{figure} {interval(ends, measure.level)}")
        rows.append([f"{measure.meaning}, {measure.unit}", *cells])
    return table(["", *published], rows)


# --- contrasts ------------------------------------------------------------------------------------


def contrasts(runs: Runs, measure: Measure, images: bool = False) -> str:
    """All contrasts of a measure.

    images: whether to give the interval over seeds and images, which final accuracies have.
    """
    last = (WITHOUT_BN,) if measure.ratio else INTERACTIONS
    of = (*EFFECTS, *last, *PUBLISHED, *OTHERS)
    beyond = beyond_these_images(runs, of) if images else [None] * len(of)
    rows = []
    for contrast, ends in zip(of, beyond, strict=True):
        effect = effect_of(per_seed(runs, contrast, measure), measure.margin)
        row = [
            contrast.name,
            estimate(effect.summary, measure.effect),
            interval(unpaired(runs, contrast, measure), measure.effect),
            p_text(effect.p),
            p_text(effect.flip_p) + (" (!)" if effect.tests_disagree else ""),
        ]
        if measure.margin is not None:
            row += [interval(effect.narrow, measure.effect), _yes(effect.within)]
        rows.append(row + ([interval(ends, measure.effect)] if images else []))
    head = ["", f"{measure.effect_unit}, paired [95 %]", "unpaired [95 %]", "p", "sign-flip p"]
    if measure.margin is not None:
        head += ["90 % interval", f"within {margin(measure)}"]
    return table(head + (["seeds x images [95 %]"] if images else []), rows)


# --- runs -----------------------------------------------------------------------------------------


def every_run(runs: Runs) -> str:
    """All runs, a row each."""
    measures = (FINAL, BEST, SPEED, EPOCHS, FIRST, TRAIN_1, GAP_ALIKE)
    rows = []
    for variant in VARIANTS:
        for h in histories(runs, variant):
            name = f"{variant}-{h.seed}"
            figures = [_exact(measure, h) for measure in measures]
            ended = f"{len(h.epochs)}, {h.status}"
            rows.append([f"[{name}](runs/{name}.json)", *figures, ended])
    return table(["", *(measure.heading for measure in measures), "epochs run"], rows)


def _exact(measure: Measure, history: History) -> str:
    """One run's figure: a test image is 0.01 %, and an epoch a whole number."""
    value = measure.figure(history)
    if isinstance(value, int):
        return "never" if value > TrainingConfig.epochs else f"{value}"
    return measure.level(value) if measure.log else f"{value:.2f}"
