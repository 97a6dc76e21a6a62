"""The README says what the code and the results say."""

import re
from itertools import pairwise, product
from math import exp, log
from statistics import fmean

import pytest

import Visualization
from models import GOAL, VARIANTS, count_parameters, receptive_fields
from study.analysis import NONE, SHOWN, beyond_these_images, effect, family, verdicts
from study.claims import (
    ACCURACY,
    BN,
    EARLY,
    EARLY_BN,
    FINAL_V2,
    INTERACTIONS,
    LATE,
    LATE_BN,
    OTHERS,
    RATIOS,
    SPEED,
    V1_V2,
    WITHOUT_BN,
    Contrast,
    measured,
)
from study.one_cycle import recipe_runs
from study.runs import FOLDERS, histories, load_runs
from study.statistics import estimate
from study.tables import with_interval
from tests.helpers import PROJECT


@pytest.fixture(scope="module")
def runs():
    return load_runs(PROJECT / FOLDERS["from the page"])


@pytest.fixture(scope="module")
def readme():
    return (PROJECT / "README.md").read_text(encoding="utf-8")


def measured_rows(runs):
    """What the page and the log of each published variant say, and the means over runs."""

    def row(name, parameters, train, test, first, final, gap):
        gap = "" if gap is None else f"{gap:+.2f}"
        return (
            f"| {name} | {parameters:,} | {train:.2f} / {test:.2f} | {first} | {final:.2f} | "
            f"{gap} |".replace("|  |", "| |")
        )

    for variant in ("v1", "v2", "final"):
        published, histories_ = VARIANTS[variant].published, histories(runs, variant)
        name = variant.replace("f", "F")
        for source in ("page", "log"):
            p = getattr(published, source)
            figures = (p.epoch_1_train_accuracy, p.epoch_1_test_accuracy, p.first_epoch_at_99)
            yield row(f"{name}, {source}", p.parameters, *figures, p.final_accuracy, p.gap)
        means = [
            fmean(map(measure, histories_))
            for measure in (
                lambda h: h.epochs[0]["train_accuracy"],
                lambda h: h.epochs[0]["test_accuracy"],
                lambda h: h.first_epoch_at_99 or 21,
                lambda h: h.final_accuracy,
                lambda h: h.gap,
            )
        ]
        means[2] = f"{means[2]:.1f}"
        yield row(f"**{name}, here**", count_parameters(VARIANTS[variant].network()), *means)


def test_the_table_of_measured_figures_is_that_of_the_runs(readme, runs):
    for row in measured_rows(runs):
        assert row in readme


def test_the_verdicts_are_those_on_the_runs(readme, runs):
    for number, verdict in enumerate(verdicts(measured(runs)), start=1):
        figure = verdict.claim.parts[0].write(verdict.effects[0].estimate.mean)
        assert f"| {number}. {verdict.claim} | **{verdict.word}** | {figure} " in readme


def test_the_answer_follows_from_the_runs(readme, runs):
    """Sentence by sentence, with its measure and its interval."""
    table, said = measured(runs), " ".join(readme.split())

    def found(contrast, measure):
        return with_interval(effect(table, contrast, measure).estimate, measure.effect)

    speed, epochs, accuracy, _, first = verdicts(table)
    assert accuracy.word == epochs.word == SHOWN and speed.word == first.word == NONE
    mean, interval = found(BN, ACCURACY).split(" ", 1)
    assert f"{mean} points of final accuracy {interval}" in said
    assert (
        f"ends {effect(table, BN, ACCURACY).estimate.mean:.2f} percentage points more accurate"
        in said
    )
    at_98, _, at_99 = (found(WITHOUT_BN, measure) for measure in RATIOS)
    assert f"takes {at_99} times as many epochs to 99 %, and {at_98} times as many to 98 %" in said
    ratio = exp(epochs.effects[0].estimate.mean)
    assert f"without it the network takes {ratio:.1f} times as many epochs to 99 %" in said

    for contrast, measure in product((LATE, LATE_BN), (ACCURACY, SPEED)):
        assert effect(table, contrast, measure).within
    assert effect(table, V1_V2, ACCURACY).within is False
    mean, interval = found(V1_V2, ACCURACY).split(" ", 1)
    assert f"{mean} points {interval}" in said

    for contrast in (EARLY, EARLY_BN):
        assert found(contrast, ACCURACY).split(" ", 1)[0] in said
        assert found(contrast, ACCURACY).split(" ", 1)[1] in said
    slower, faster = (effect(table, contrast, SPEED) for contrast in (EARLY, EARLY_BN))
    assert slower.estimate.mean > 0 > faster.estimate.mean and slower.within and faster.within
    differ = INTERACTIONS[1]
    assert differ.name == "early dropout: with - without batch normalization"
    assert effect(table, differ, SPEED).p < 0.05
    assert f"the two differ by a factor of {found(differ, SPEED)}" in said

    for claim, excluded in ((epochs, log(4)), (accuracy, 0.17)):
        low, high = claim.effects[0].estimate.interval()
        assert not low <= excluded <= high
    low, high = effect(table, FINAL_V2, ACCURACY).estimate.interval()
    assert low <= 0.17 <= high
    order = table[ACCURACY.name].mean().sort_values(ascending=False)
    assert list(order.index).index("final") == 3
    assert order.filter(["v1", "v2", "final"]).idxmax() == "final"
    assert "first of the published three and fourth of our nine |" in said

    ends = {name: estimate(table[ACCURACY.name, name]) for name in VARIANTS}
    final = with_interval(ends["final"], ACCURACY.level)
    assert f"Final's mean is above it, {final.replace(' [', ' % [')}" in said
    assert ends["final"].interval()[0] > GOAL
    assert all(ends[name].interval()[1] < GOAL for name in ("v1", "v2"))
    norms = [name for name in VARIANTS if VARIANTS[name].batch_norm]
    assert len(norms) == 5 and all(ends[name].mean > GOAL for name in norms)
    others = {c.name: p for c, _, p, _ in family(table, OTHERS, ACCURACY) if c.name.endswith("_bn")}
    assert len(others) == 4 and all(p >= 0.05 for p in others.values())
    [(low, high)] = beyond_these_images(runs, [Contrast("final")])
    assert f"is not shown to pass: [{low:.2f}, {high:.2f}]" in said and low < GOAL


def test_the_recipes_accuracies_are_those_of_its_runs(readme, monkeypatch):
    monkeypatch.chdir(PROJECT)
    six, twenty, _ = (
        estimate([run.final_accuracy for run in runs]) for runs in recipe_runs().values()
    )
    said = " ".join(readme.split())
    assert f"is {six.mean:.2f} % after six epochs, though its interval reaches below" in said
    assert f"and {twenty.mean:.2f} % after twenty." in said
    assert six.interval()[0] < GOAL < six.mean


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
