"""The README says what the code and the results say."""

import json
import re
from collections import Counter
from itertools import pairwise, product
from math import exp, log
from statistics import fmean

import pytest

import Visualization
from helpers.config import TrainingConfig
from models import FINAL_AS_RUN, GOAL, SETTINGS, VARIANTS, count_parameters, receptive_fields
from study.analysis import (
    NONE,
    NOT_SAME,
    NOT_TOLD,
    SAME,
    SHOWN,
    SMALL,
    across,
    among_themselves,
    answers,
    beyond_these_images,
    effect,
    family,
    passes,
    verdicts,
    vote,
    word,
)
from study.claims import (
    ACCURACY,
    BN,
    EARLY,
    EARLY_BN,
    EPOCHS,
    EPOCHS_RATIO,
    FINAL_V2,
    FIRST_ACCURACY,
    LATE,
    LATE_BN,
    LOGGED,
    OTHERS,
    PAGE,
    PAIR,
    RATIOS,
    SIX,
    SPEED,
    WITHOUT_BN,
    Contrast,
    Part,
    aliases,
    measured,
)
from study.one_cycle import LENGTHS, PEERS, VIEWS, first_length, recipe_runs
from study.report import AS_RUN_NAMES, PARTS, reproductions
from study.rounds import ahead
from study.runs import FOLDERS, histories, load_runs, names
from study.statistics import estimate
from study.tables import contrasts_by, share, with_interval
from tests.helpers import PROJECT


@pytest.fixture(scope="module")
def runs():
    """Those of each setting."""
    return {setting: load_runs(PROJECT / folder) for setting, folder in FOLDERS.items()}


@pytest.fixture(scope="module")
def tables(runs):
    """Those of the runs from the page, and of the runs as run."""
    return [measured(of) for of in runs.values()]


@pytest.fixture(scope="module")
def readme():
    return (PROJECT / "README.md").read_text(encoding="utf-8")


def measured_rows(runs):
    """What the page and the log of each published variant say, and the means of each setting."""

    def row(name, parameters, train, test, first, final, gap):
        gap = "" if gap is None else f"{gap:+.2f}"
        return (
            f"| {name} | {parameters:,} | {train:.2f} / {test:.2f} | {first} | {final:.2f} | "
            f"{gap} |".replace("|  |", "| |")
        )

    for variant in ("v1", "v2", "final"):
        published = VARIANTS[variant].published
        name = variant.replace("f", "F")
        for source in ("page", "log"):
            p = getattr(published, source)
            figures = (p.epoch_1_train_accuracy, p.epoch_1_test_accuracy, p.first_epoch_at_99)
            yield row(f"{name}, {source}", p.parameters, *figures, p.final_accuracy, p.gap)
        for setting, of in runs.items():
            here = aliases(of)[variant]
            means = [
                fmean(map(measure, histories(of, here)))
                for measure in (
                    lambda h: h.epochs[0]["train_accuracy"],
                    lambda h: h.epochs[0]["test_accuracy"],
                    lambda h: h.first_epoch_at_99 or 21,
                    lambda h: h.final_accuracy,
                    lambda h: h.gap,
                )
            ]
            means[2] = f"{means[2]:.1f}"
            parameters = count_parameters(SETTINGS[setting][here].network())
            yield row(f"**{name}, {setting}**", parameters, *means)


def test_the_table_of_measured_figures_is_that_of_the_runs(readme, runs):
    for row in measured_rows(runs):
        assert row in readme


def test_the_verdicts_are_those_on_the_runs(readme, tables):
    both = zip(verdicts(tables[0]), verdicts(tables[1], LOGGED), strict=True)
    for number, (page, as_run) in enumerate(both, start=1):
        one, other = (
            f"**{of.word}**: {of.claim.parts[0].write(of.effects[0].estimate.mean)} "
            for of in (page, as_run)
        )
        [row] = re.findall(rf"(?m)^\| {number}\. .*$", readme)
        _, claim, first, second, _ = row.split("|")
        assert claim.strip() == f"{number}. {page.claim}"
        assert f"{first.strip()} ".startswith(one) and f"{second.strip()} ".startswith(other)


def found(table, contrast, measure):
    """An effect with its interval, as the README has it."""
    return with_interval(effect(table, contrast, measure).estimate, measure.effect)


def apart(text, unit=" points"):
    """A mean and its interval, with the unit between them."""
    return text.replace(" [", f"{unit} [")


def test_the_answer_follows_from_the_runs(readme, tables):
    """Sentence by sentence, with its measure and its interval."""
    page, as_run = tables
    said = " ".join(readme.split())
    first, second = (found(table, BN, ACCURACY) for table in tables)
    first = apart(first, " points of final accuracy")
    assert f"{first} from the page and {apart(second)} as run" in said
    low, high = sorted(effect(table, BN, ACCURACY).estimate.mean for table in tables)
    assert f"ends {low:.2f} to {high:.2f} percentage points more accurate" in said
    low, high = sorted(exp(effect(t, WITHOUT_BN, EPOCHS_RATIO).estimate.mean) for t in tables)
    assert f"takes {low:.1f} to {high:.1f} times as many epochs to 99 % test accuracy" in said
    to_98, _, to_99 = (" and ".join(found(t, WITHOUT_BN, m) for t in tables) for m in RATIOS)
    assert f"takes {to_99} times as many epochs to 99 %, and {to_98} times as many to 98 %" in said
    without = [variant for variant in VARIANTS if not VARIANTS[variant].batch_norm]
    for table in tables:
        waited = table[EPOCHS.name][without] == TrainingConfig.step_size + 1
        assert waited.to_numpy().mean() > 0.5

    for table, contrast, measure in product(tables, (LATE, LATE_BN), (ACCURACY, SPEED)):
        assert effect(table, contrast, measure).within
    pair = across(page, as_run, PAIR).mean
    assert pair.within and word([PAIR], [pair], pair.p) == NONE
    difference = apart(with_interval(pair.estimate, ACCURACY.effect))
    assert f"in the mean of both settings: {difference}." in said

    for contrast in (EARLY, EARLY_BN):
        assert all(apart(found(table, contrast, ACCURACY)) in said for table in tables)
        assert found(as_run, contrast, SPEED) in said
        assert effect(as_run, contrast, ACCURACY).estimate.interval()[1] < 0
        assert effect(as_run, contrast, SPEED).estimate.interval()[0] > 0
    assert across(page, as_run, Part(EARLY_BN, ACCURACY, 1)).word == NOT_SAME


def test_what_is_said_of_99_4_percent_follows_from_the_runs(readme, runs, tables):
    said = " ".join(readme.split())
    ends, beyond, ranks, counts = [], [], [], []
    for of, table, source in zip(runs.values(), tables, (PAGE, LOGGED), strict=True):
        over = {variant: estimate(table[ACCURACY.name, variant]) for variant in names(of)}
        final = aliases(of)["final"]
        ends.append(apart(with_interval(over[final], ACCURACY.level), " %"))
        assert over[final].interval()[0] > GOAL
        assert all(over[variant].interval()[1] < GOAL for variant in ("v1", "v2"))
        norms = [variant for variant in over if VARIANTS[variant].batch_norm]
        assert all(over[variant].mean > GOAL for variant in norms)
        contrasts = family(table, contrasts_by(source, OTHERS), ACCURACY)
        others = [(it, p) for contrast, it, p, _ in contrasts if contrast.name.endswith("_bn")]
        assert all(p >= 0.05 or it.estimate.mean < 0 for it, p in others)
        counts.append((len(norms), len(others)))
        beyond += beyond_these_images(of, [Contrast(final)])
        order = sorted(over, key=lambda variant, of=over: -of[variant].mean)
        assert min("v1", "v2", final, key=order.index) == final
        ranks.append((1 + order.index(final), len(order)))
    assert f"above it, {ends[0]} from the page and {ends[1]} as run" in said
    low, high = ([f"{end:.2f}" for end in of] for of in beyond)
    assert f"is not shown to pass: [{', '.join(low)}] and [{', '.join(high)}]." in said
    assert all(low < GOAL for low, _ in beyond)
    assert ranks == [(4, 9), (3, 8)] and counts == [(5, 4), (4, 3)]
    assert "first of the published three and fourth of all nine |" in said
    assert "first of the three and third of all eight |" in said
    less = effect(tables[1], Contrast(f"late_bn - {FINAL_AS_RUN}"), ACCURACY).estimate
    assert f"{less.mean:.3f} points [{', '.join(f'{e:.3f}' for e in less.interval())}]" in said


def test_what_is_said_of_the_publication_follows_from_the_runs(readme, runs, tables):
    said = " ".join(readme.split())
    held = reproductions(runs["as run"])
    assert all(of.reproduced for of in held.values())
    inside = [held_in for of in held.values() for held_in in of.inside]
    assert len(inside) == 18 and inside.count(False) == 1
    outside = held["final"].inside.index(False)
    assert SIX[outside] == FIRST_ACCURACY
    number = held["final"].numbers[outside]
    assert f"(Final's test accuracy after epoch 1, {number:.2f} %)" in said
    among = [
        of
        for variant in AS_RUN_NAMES.values()
        for of in among_themselves(histories(runs["as run"], variant))
    ]
    assert f"{sum(of.reproduced for of in among)} of our own {len(among)} runs pass" in said


def test_what_is_said_of_the_claims_follows_from_the_runs(readme, tables):
    said = " ".join(readme.split())
    page, as_run = verdicts(tables[0]), verdicts(tables[1], LOGGED)
    assert [verdict.word for verdict in page] == [NONE, SHOWN, SHOWN, SHOWN, NONE]
    assert [verdict.word for verdict in as_run] == [NONE, SHOWN, SHOWN, SHOWN + SMALL, NONE]
    assert as_run[3].effects[0].within
    for found_here in (page, as_run):
        low, high = found_here[1].effects[0].estimate.interval()
        assert not low <= log(4) <= high
        low, high = found_here[2].effects[0].estimate.interval()
        assert not low <= 0.17 <= high and (low <= 0.18 <= high) == (found_here is as_run)
    for table in tables:
        low, high = effect(table, FINAL_V2, ACCURACY).estimate.interval()
        assert low <= 0.17 < 0.18 <= high

    ten = [across(*tables, part) for part in PARTS]
    assert Counter(of.word for of in ten) == {SAME: 3, NOT_SAME: 1, NOT_TOLD: 6}
    [other] = [of for of in ten if of.word == NOT_SAME]
    assert other.part.measure == EPOCHS_RATIO
    factor = with_interval(other.difference.estimate, other.part.measure.effect)
    assert f"the factor in epochs to 99 % is {factor} times as large as run" in said


def test_the_recipes_accuracies_are_those_of_its_runs(readme, monkeypatch):
    monkeypatch.chdir(PROJECT)
    found, views = recipe_runs(), json.loads(VIEWS.read_text())
    for name, of in found.items():
        cells = [
            name.removeprefix("recipe, ").replace("final", "Final"),
            with_interval(estimate([run.final_accuracy for run in of]), "{:.3f}".format),
            share(map(passes, of)),
            f"{vote(answers(of)):.2f}",
            f"{fmean(views[name]):.3f}" if name in views else "",
        ]
        assert f"| {' | '.join(cells)} |".replace("  ", " ") in readme
    assert f"over {GOAL} % for sure have **{first_length(found)} epochs**" in readme
    longest, best = f"recipe, {LENGTHS[-1]} epochs", max(peer.accuracy for peer in PEERS)
    alone, taught = found[longest], found[f"{longest}, taught"]
    wrong = [(answers(of) >= 0).sum(axis=0) for of in (alone, taught)]
    images = [of.sum() / len(alone) for of in wrong]
    hard = [(of > len(alone) / 2).sum() for of in wrong]
    ends = [[run.final_accuracy for run in of] for of in (alone, taught)]
    said = " ".join(readme.split())
    half = fmean(run.final_accuracy for run in found["half the size, 15 epochs"])
    small = [peer.accuracy for peer in PEERS if peer.parameters < 10_000]
    assert len(small) == 7
    for words in (
        f"Half the size ends at {half:.3f} %; the seven public networks of under 10,000 parameters "
        f"have {min(small):.2f} to {max(small):.2f} %",
        f"gets {images[0]:.0f} images wrong, a taught one {images[1]:.0f}; {hard[0]} and {hard[1]} "
        "images are wrong in most of the ten",
        f"of the ten taught runs {sum(end >= best for end in ends[1])} reach it",
        f"seed by seed, is {ahead(taught, alone)}",
    ):
        assert words in said
    assert best == 99.6 > max(estimate(of).interval()[1] for of in ends)
    assert "which these seeds cannot tell from nothing" in ahead(taught, alone)


def test_the_layout_table_is_the_network():
    """Block, channels in, convolutions, weights, map, receptive field."""
    choices = (PROJECT / "docs" / "choices.md").read_text(encoding="utf-8")
    channels, size = 1, 28
    blocks = zip(VARIANTS["v1"].layout.blocks, receptive_fields(), strict=True)
    for block, (convs, field) in enumerate(blocks, start=1):
        widths = [channels, *(width for _, width in convs)]
        weights = sum(a * b * k**2 for (a, b), (k, _) in zip(pairwise(widths), convs, strict=True))
        spelled = ", ".join(f"{kernel}x{kernel} {width}" for kernel, width in convs)
        cells = f"{channels} | {spelled} | {weights:,} | {size}x{size} | {field}x{field}"
        assert f"| {block} | {cells} |" in choices
        channels, size = widths[-1], size // 2


def test_every_make_target_the_readme_names_exists_and_the_other_way_round(readme):
    makefile = (PROJECT / "Makefile").read_text()
    pages = readme + (PROJECT / "docs" / "environment.md").read_text()
    named = set(re.findall(r"(?:^|`)make (?:-j2 )?([a-z]+)\b", pages, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE)) - {"data"}
    assert named == targets


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in PROJECT.glob("docs/*.md"))]
)
def test_every_file_a_page_links_exists(page):
    path = PROJECT / page
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize(
    ("picture", "variants"), [("network", Visualization.PUBLISHED), ("variants", VARIANTS)]
)
def test_the_pictures_of_the_network_are_the_networks(picture, variants):
    """Drawn again; python -c 'from Visualization import network; ...' is all it takes."""
    drawn = Visualization.network(variants).png(200)
    assert (PROJECT / "docs" / f"{picture}.png").read_bytes() == drawn
