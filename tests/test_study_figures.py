"""The study's figures show the numbers given, all of them, and read without colour."""

import io
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.image import imread
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
    RunsPanel(
        "Test accuracy",
        "%",
        VALUES,
        {v: estimate(values).ends() for v, values in VALUES.items()},
        {"v1": 99.36},
        line=99.4,
    ),
    RunsPanel(
        "First epoch",
        "epoch",
        EPOCHS,
        {v: estimate(values).ends() for v, values in EPOCHS.items()},
        {},
        never=21,
    ),
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


def all_figures():
    cells = [(image, f"a 3; {k} of 90 wrong:\n5 by {k}") for k, image in enumerate(IMAGES)]
    return {
        "forest": figures.forest(EFFECTS * 2),
        "every_run": figures.every_run(RUNS * 2),
        "both": figures.forest(BOTH * 2),
        "inside_our_band": figures.inside_our_band(BANDS),
        "curves": figures.curves(ERRORS, MEANS, [8, 15]),
        "hardest": figures.hardest(cells, 90),
    }


@pytest.fixture(scope="module")
def drawn():
    return all_figures()


def points(axes):
    """Where markers are, of all lines, as (x, y)."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", None)]
    return [point for line in lines for point in zip(*line.get_data(), strict=True)]


def test_no_text_is_cut_off_or_smaller_than_9_points(drawn):
    for name, figure in drawn.items():
        for text in figure.findobj(Text):
            assert text.get_fontsize() >= 9, (name, text)
        figure.draw_without_rendering()  # lays it out
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height, name


def test_files_are_twice_as_fine_as_github_shows_them_and_the_same_every_time():
    again = all_figures()
    for name, figure in all_figures().items():
        png = figure.png(dpi=figures.DPI)
        assert imread(io.BytesIO(png)).shape[1] == 1600, name
        assert png == again[name].png(dpi=figures.DPI), name
    assert not plt.get_fignums()


# --- effects --------------------------------------------------------------------------------------


def test_effects_stand_with_both_intervals_before_the_margin():
    differences, factors = figures.forest(EFFECTS).axes
    for axes, nothing, band in ((differences, 0, (-0.1, 0.1)), (factors, 1, (1 / 1.14, 1.14))):
        assert points(axes) == [(1.1, 0), (0.6, 1)]
        ends = [tuple(line[:, 0]) for of in axes.collections for line in of.get_segments()]
        assert ends == [(0.9, 1.3), (0.95, 1.25), (0.5, 0.7), (0.55, 0.65)]
        [patch] = axes.patches
        assert (patch.get_x(), patch.get_x() + patch.get_width()) == pytest.approx(band)
        assert nothing in [line.get_xdata()[0] for line in axes.lines]
    assert [label.get_text() for label in differences.get_yticklabels()] == [r.name for r in ROWS]
    assert (differences.get_xscale(), factors.get_xscale()) == ("linear", "log")


def test_a_marker_is_filled_where_a_verdict_rests_on_it():
    axes = figures.forest(EFFECTS).axes[0]
    faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert faces[1] == "white" != faces[0]


def test_two_settings_stand_below_each_other_with_another_marker():
    for axes in figures.forest(BOTH).axes:
        lines = [line for line in axes.lines if line.get_marker() not in ("None", None)]
        found = [(line.get_marker(), *line.get_xdata(), *line.get_ydata()) for line in lines]
        assert [x for _, x, _ in found] == [1.1, 0.6] * 2
        assert [marker for marker, *_ in found] == ["o", "D"] * 2
        assert [round(y, 2) for *_, y in found] == [-0.18, 0.18, 0.82, 1.18]


# --- the publication ------------------------------------------------------------------------------


def test_published_curves_stand_before_range_and_mean_of_our_runs():
    for axes, band in zip(figures.inside_our_band(BANDS).axes, BANDS, strict=True):
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


def test_every_run_stands_at_its_variant_with_mean_and_published_figure():
    top, bottom = figures.every_run(RUNS).axes
    for axes, values in ((top, VALUES), (bottom, EPOCHS)):
        for x, variant in enumerate(values):
            runs = [y for at, y in points(axes) if x - 0.45 < at < x + 0.15]
            assert runs == values[variant]
            [mean] = [y for at, y in points(axes) if at == x + 0.22]
            assert mean == np.mean(values[variant])
    [published] = [y for at, y in points(top) if round(at % 1, 2) == 0.38]
    assert published == 99.36
    ticks = bottom.get_yticks().tolist()
    bottom.figure.draw_without_rendering()
    assert bottom.get_yticklabels()[ticks.index(21)].get_text() == "never"


def test_variants_differ_without_their_colours():
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


def test_curves_show_every_run_to_its_own_end_and_the_means_as_far_as_all_go():
    without, with_bn, *below = figures.curves(ERRORS, MEANS, [8, 15]).axes
    means = {line.get_label(): list(line.get_ydata()) for line in (*without.lines, *with_bn.lines)}
    for axes, (variant, runs) in zip(below, ERRORS.items(), strict=True):
        assert axes.get_title().startswith(f"{variant}: ")
        curves = [list(line.get_ydata()) for line in axes.lines]
        assert all(run in curves for run in runs)
        assert [mean for mean, *_ in MEANS[variant]] in curves
        assert means[variant] == [mean for mean, *_ in MEANS[variant]]
        assert len(means[variant]) == 15


def test_the_falls_of_the_learning_rate_are_marked_between_two_epochs():
    for axes in figures.curves(ERRORS, MEANS, [8, 15]).axes:
        upright = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert {7.5, 14.5} <= set(upright)
        assert axes.get_yscale() == "log"


# --- images ---------------------------------------------------------------------------------------


def test_the_hardest_images_stand_below_their_captions(drawn):
    shown = [(axes.get_title(), axes.images[0].get_array()) for axes in drawn["hardest"].axes]
    assert len(shown) == 12
    for k, (caption, pixels) in enumerate(shown):
        assert caption == f"a 3; {k} of 90 wrong:\n5 by {k}"
        np.testing.assert_allclose(pixels, IMAGES[k, 0].numpy() / 255, atol=1e-6)
