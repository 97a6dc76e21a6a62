"""The study's figures show the numbers given, all of them, and read without color."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from models import VARIANTS
from study import figures
from study.figures import Band, EffectPanel, EffectRow, RunsPanel
from study.statistics import estimate

LATE, BN = (1.1, (0.9, 1.3), (0.95, 1.25)), (0.6, (0.5, 0.7), (0.55, 0.65))
ROWS = [
    EffectRow("late dropout,\nwithout batch normalization", [LATE], True),
    EffectRow("batch normalization", [BN], False),
]
EFFECTS = [
    EffectPanel("Final accuracy", "points", 0.1, False, ROWS),
    EffectPanel("Learning speed", "times", 1.14, True, ROWS),
]
BOTH = [
    panel._replace(rows=[row._replace(settings=[LATE, BN]) for row in ROWS]) for panel in EFFECTS
]
GENERATOR = np.random.default_rng(0)
VALUES = {variant: GENERATOR.normal(99, 0.3, 10).tolist() for variant in VARIANTS}
EPOCHS = {variant: [5, 6, 21] for variant in VARIANTS}
RUNS = [
    RunsPanel("Test accuracy", "%", VALUES, {}, {"v1": 99.36}, line=99.4),
    RunsPanel("Error", "%", VALUES, {}, {}, log=True),
    RunsPanel("First epoch", "epoch", EPOCHS, {}, {}, never=21),
]
RUNS = [
    panel._replace(means={v: estimate(values).ends() for v, values in panel.values.items()})
    for panel in RUNS
]
ERRORS = {  # of the ten runs of a variant, the last ends early
    variant: [
        (8 * 0.85 ** np.arange(20 if run < 9 else 15) * GENERATOR.uniform(0.8, 1.2)).tolist()
        for run in range(10)
    ]
    for variant in VARIANTS
}
MEANS = {v: [estimate(of).ends() for of in zip(*runs, strict=False)] for v, runs in ERRORS.items()}
OURS = [ERRORS["v1"][0], ERRORS["v2"][0], ERRORS["late"][0]]
BANDS = [
    Band(name, {"test": OURS, "train": 3 * np.array(OURS)}, {"test": OURS[1], "train": OURS[2]})
    for name in ("v1", "v2", "Final")
]
IMAGES = torch.randint(0, 256, (12, 1, 28, 28), dtype=torch.uint8)


@pytest.fixture(scope="module")
def drawn():
    cells = [(image, f"a 3; {k} of 90 wrong:\n5 by {k}") for k, image in enumerate(IMAGES)]
    return {
        "forest": figures.forest(EFFECTS),
        "both": figures.forest(BOTH * 2),
        "inside_our_band": figures.inside_our_band(BANDS),
        "every_run": figures.every_run(RUNS),
        "curves": figures.curves(ERRORS, MEANS, [8, 15]),
        "hardest": figures.hardest(cells, 90),
    }


def marked(axes):
    """The lines with markers."""
    return [line for line in axes.lines if line.get_marker() not in ("None", None)]


def points(axes):
    """Where markers are, as (x, y)."""
    found = [point for line in marked(axes) for point in zip(*line.get_data(), strict=True)]
    return [(x, round(y, 9)) for x, y in found]


def test_no_text_is_cut_off_or_smaller_than_9_points(drawn):
    for name, figure in drawn.items():
        for text in figure.findobj(Text):
            assert text.get_fontsize() >= 9, (name, text)
        figure.draw_without_rendering()  # lays it out
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height, name
        assert figures.DPI * width == 1600, name  # twice as fine as GitHub shows it
    assert not plt.get_fignums()


# --- effects --------------------------------------------------------------------------------------


def test_effects_stand_with_both_intervals_before_the_margin(drawn):
    differences, factors = drawn["forest"].axes
    for axes, nothing, band in ((differences, 0, (-0.1, 0.1)), (factors, 1, (1 / 1.14, 1.14))):
        assert points(axes) == [(1.1, 0), (0.6, 1)]
        ends = [tuple(line[:, 0]) for of in axes.collections for line in of.get_segments()]
        assert ends == [(0.9, 1.3), (0.95, 1.25), (0.5, 0.7), (0.55, 0.65)]
        [patch] = axes.patches
        assert (patch.get_x(), patch.get_x() + patch.get_width()) == pytest.approx(band)
        assert nothing in [line.get_xdata()[0] for line in axes.lines]
        deciding, exploratory = (line.get_markerfacecolor() for line in marked(axes))
        assert exploratory == "white" != deciding
    assert [label.get_text() for label in differences.get_yticklabels()] == [r.name for r in ROWS]
    assert (differences.get_xscale(), factors.get_xscale()) == ("linear", "log")


def test_two_settings_stand_below_each_other_with_another_marker(drawn):
    for axes in drawn["both"].axes:
        assert [line.get_marker() for line in marked(axes)] == ["o", "D"] * 2
        assert points(axes) == [(1.1, -0.18), (0.6, 0.18), (1.1, 0.82), (0.6, 1.18)]


# --- the publication ------------------------------------------------------------------------------


def test_published_curves_stand_before_range_and_mean_of_our_runs(drawn):
    for axes, band in zip(drawn["inside_our_band"].axes, BANDS, strict=True):
        assert axes.get_title() == band.title and axes.get_yscale() == "log"
        solid = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "-"]
        dashed = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"]
        for (mean, published), part in ((solid, "test"), (dashed, "train")):
            assert list(published) == list(band.published[part])
            assert mean == pytest.approx(np.prod(band.ours[part], axis=0) ** (1 / 3))
        for shade, part in zip(axes.collections, ("test", "train"), strict=True):
            ys = shade.get_paths()[0].vertices[:, 1]
            assert (ys.min(), ys.max()) == (np.min(band.ours[part]), np.max(band.ours[part]))


# --- runs -----------------------------------------------------------------------------------------


def test_every_run_stands_at_its_variant_with_mean_and_published_figure(drawn):
    top, _, bottom = drawn["every_run"].axes
    for axes, values in ((top, VALUES), (bottom, EPOCHS)):
        for x, variant in enumerate(values):
            runs = [y for at, y in points(axes) if x - 0.45 < at < x + 0.15]
            assert runs == pytest.approx(values[variant])
            [mean] = [y for at, y in points(axes) if at == x + 0.22]
            assert mean == pytest.approx(np.mean(values[variant]))
    [published] = [y for at, y in points(top) if round(at % 1, 2) == 0.38]
    assert published == 99.36
    ticks = bottom.get_yticks().tolist()
    drawn["every_run"].draw_without_rendering()
    assert bottom.get_yticklabels()[ticks.index(21)].get_text() == "never"


def test_variants_differ_without_their_colors():
    looks = [tuple(figures._marker(v).values())[1:] for v in VARIANTS]  # marker, and its filling
    filled = [(marker, face != "none") for marker, face in looks]
    assert len(set(filled)) == len(VARIANTS)
    without, with_bn = (
        [figures._LOOKS[figures._blocks(v)][2] for v in VARIANTS if VARIANTS[v].batch_norm == bn]
        for bn in (False, True)
    )
    for lines in (without, with_bn):  # which share a panel
        assert all(one != other for one, other in combinations(lines, 2))


# --- curves ---------------------------------------------------------------------------------------


def test_curves_show_every_run_to_its_own_end_and_the_means_as_far_as_all_go(drawn):
    without, with_bn, *below = drawn["curves"].axes
    means = {line.get_label(): list(line.get_ydata()) for line in (*without.lines, *with_bn.lines)}
    for axes, batch_norm in ((without, False), (with_bn, True)):
        named = {line.get_label() for line in axes.lines} & set(VARIANTS)
        assert named == {v for v in VARIANTS if VARIANTS[v].batch_norm == batch_norm}
    for axes, (variant, runs) in zip(below, ERRORS.items(), strict=True):
        assert axes.get_title().startswith(f"{variant}: ")
        curves = [list(line.get_ydata()) for line in axes.lines]
        assert all(run in curves for run in runs)
        mean = [mean for mean, *_ in MEANS[variant]]
        assert mean in curves and mean == means[variant] and len(mean) == 15
    for axes in drawn["curves"].axes:
        falls = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert {7.5, 14.5} <= set(falls)
        assert axes.get_yscale() == "log"


# --- images ---------------------------------------------------------------------------------------


def test_the_hardest_images_stand_below_their_captions(drawn):
    shown = [(axes.get_title(), axes.images[0].get_array()) for axes in drawn["hardest"].axes]
    assert len(shown) == 12
    for k, (caption, pixels) in enumerate(shown):
        assert caption == f"a 3; {k} of 90 wrong:\n5 by {k}"
        np.testing.assert_allclose(pixels, IMAGES[k, 0].numpy() / 255, atol=1e-6)
