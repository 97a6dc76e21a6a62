"""What the figures promise: they show the numbers given, all of them, and touch nothing else."""

import io
import math
from collections import Counter
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.image import imread

import Visualization as viz
from models import GOAL, VARIANTS, receptive_fields
from tests.helpers import history


def make_history(epochs=20, first=8, step=7, **changes):
    """A run like v1's: 70 to 97 % in training, 93 to 99.1 % in the test."""
    until = first or epochs + 1  # the first epoch at 99 %, or none
    run = history([(99 if k + 1 >= until else 93.59) + 0.004 * k for k in range(epochs)])
    for k, record in enumerate(run.epochs):
        record["train_loss"], record["test_loss"] = 0.9 * 0.8**k + 0.1, 0.2 * 0.8**k + 0.02
        record["train_accuracy"] = 97 - 26.49 * 0.6**k
        record["learning_rate"] = 0.001 * 0.1 ** (k // step)
        record |= changes
    return run


def make_digits(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    logits = 3 * torch.randn(count, 10, generator=generator)
    return images, labels, logits


def draw(figure):
    """The figure's pixels, [height, width, 4]."""
    return imread(io.BytesIO(figure._repr_png_()))


def pictures(figure):
    """(caption, pixels) of each axes that holds a picture."""
    return [(axes.get_title(), axes.images[0].get_array()) for axes in figure.axes if axes.images]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line


def curves(epochs=20, **changes):
    return viz.training_curves(make_history(epochs, **changes))


@pytest.fixture(scope="module")
def drawn():
    """Every figure, and what a notebook shows of it, drawn with nothing else touched."""
    plt.close("all")
    settings = dict(matplotlib.rcParams)
    history, (images, labels, logits) = make_history(), make_digits()
    predictions, augmented, likely = logits.argmax(1), images[1:4] / 255, logits[:2].softmax(1)
    inputs = [images, labels, logits, predictions, augmented, likely]
    before = [tensor.clone() for tensor in inputs]
    figures = {
        "sample_digits": viz.sample_digits(images, labels),
        "augmentations": viz.augmentations(images[0], augmented),
        "training_curves": viz.training_curves(history, [history] * 10, history.epochs),
        "confusion_matrix": viz.confusion_matrix(labels, predictions),
        "confident_mistakes": viz.confident_mistakes(images, labels, logits),
        "digit_accuracy": viz.digit_accuracy(labels, predictions),
        "reading": viz.reading(images[0], {"v1": likely[0], "v2": likely[1]}),
    }
    figures = {
        name: (figure, DisplayFormatter().format(figure)[0]) for name, figure in figures.items()
    }
    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == settings
    assert all(map(torch.equal, before, inputs)) and history == make_history()
    return figures


def test_a_notebook_shows_each_figure_as_one_picture_and_nothing_else_changes(drawn):
    for name, (_, output) in drawn.items():
        assert set(output) == {"image/png", "text/plain"}, name
        pixels = imread(io.BytesIO(output["image/png"]))
        assert pixels.shape[1] == 800, name
        assert (pixels[0, 0] == 1).all() and (pixels[..., 3] == 1).all(), f"{name}: the ground"


def test_no_text_is_cut_off_or_smaller_than_9_points(drawn):
    for name, (figure, _) in drawn.items():
        for text in figure.findobj(matplotlib.text.Text):
            assert text.get_fontsize() >= 9, (name, text)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height, name


def test_samples_are_the_first_of_each_digit_and_say_which_is_missing():
    images, _, _ = make_digits(19)
    labels = torch.tensor([9, 8, 7, 6, 5, 3, 2, 1, 0] * 2 + [9])
    labels[16] = 9  # so that there is one 1, and no 4
    axes = viz.sample_digits(images, labels).axes
    captions = ["0", "1", "2", "3", "4: none", "5", "6", "7", "8", "9"]
    assert [cell.get_title() for cell in axes] == captions + 10 * [""]
    for place, cell in enumerate(axes):
        row, digit = divmod(place, 10)
        indices = [k for k in range(19) if labels[k] == digit]
        assert bool(cell.images) == (row < len(indices))
        if cell.images:
            pixels = cell.images[0].get_array()
            np.testing.assert_allclose(pixels, images[indices[row], 0].numpy() / 255, atol=1e-6)


@pytest.mark.parametrize("count", [1, 8])
def test_augmentations_follow_their_original_on_one_gray_scale(count):
    images = make_digits(count + 1)[0] // 2  # whose brightest pixel is no white
    augmented = images[1:] / 255 - 0.0004  # which may round past the ends
    figure = viz.augmentations(images[0], augmented)
    captions, shown = zip(*pictures(figure), strict=True)
    assert captions == ("original", *(f"augmented {k}" for k in range(1, count + 1)))
    np.testing.assert_allclose(shown, images[:, 0].numpy() / 255, atol=0.0005)
    assert {axes.images[0].get_clim() for axes in figure.axes if axes.images} == {(0, 1)}
    assert len(figure.axes) == math.ceil((count + 1) / 6) * min(count + 1, 6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("epochs", [1, 20, 200])
def test_curves_show_every_epoch_and_differ_in_more_than_color(epochs):
    history = make_history(epochs, first=None)
    figure = viz.training_curves(history)
    draw(figure)
    *both, rate = figure.axes
    for axes, what in zip(both, ("accuracy", "loss"), strict=True):
        for part in ("train", "test"):
            line = lines(axes, part)
            assert list(line.get_xdata()) == list(range(1, epochs + 1))
            assert list(line.get_ydata()) == [e[f"{part}_{what}"] for e in history.epochs]
            low, high = axes.get_ylim()
            assert low <= min(line.get_ydata()) and max(line.get_ydata()) <= high
            every = line.get_markevery()
            assert 20 <= epochs / every <= 40 if epochs > 40 else every == 1
        train, test = lines(axes, "train"), lines(axes, "test")
        assert train.get_linestyle() != test.get_linestyle()
        assert len({train.get_marker(), test.get_marker(), "", "None"}) == 4
    assert list(rate.lines[0].get_ydata()) == [e["learning_rate"] for e in history.epochs]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low < 1 and epochs < high
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) and 1 <= tick <= epochs for tick in ticks)


@pytest.mark.parametrize(
    ("epochs", "step", "losses"),
    [(1, 7, (2.3, 2.31)), (20, 7, (0.9, 0.2)), (60, 1, (0.001, 0.0011))],
)
def test_no_words_of_the_curves_overlap_or_are_cut_off(epochs, step, losses):
    train, test = losses
    history = make_history(epochs, first=1, step=step, train_loss=train, test_loss=test)
    figure = viz.training_curves(history, [history] * 10, history.epochs)
    figure.draw_without_rendering()
    shown = [axes.title for axes in figure.axes] + figure.texts + figure.legends[0].get_texts()
    for axes in figure.axes:
        for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = [
                tick for tick in axis.get_major_ticks() if ends[0] <= tick.get_loc() <= ends[1]
            ]
            shown += [axis.label] + [tick.label1 for tick in ticks]
    boxes = [text.get_window_extent() for text in shown if text.get_text() and text.get_visible()]
    assert len(boxes) > 20 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    legend, (width, height) = figure.legends[0].get_window_extent(), figure.bbox.size
    assert legend.x0 >= 0 and legend.x1 <= width and legend.y0 >= 0 and legend.y1 <= height


def test_other_runs_are_a_band_with_their_mean_as_far_as_all_go_and_a_log_is_dotted():
    history, published = make_history(19), make_history(20, first=6).epochs
    band = [make_history(n, first) for n, first in ((20, 9), (18, 7), (20, 12))]
    figure = viz.training_curves(history, band, published)
    draw(figure)
    for axes, what in zip(figure.axes, ("accuracy", "loss"), strict=False):
        for part, shade in zip(("train", "test"), axes.collections, strict=True):
            values = np.array([[e[f"{part}_{what}"] for e in run.epochs[:18]] for run in band])
            outline = {tuple(place) for place in shade.get_paths()[0].vertices}
            ends = [*enumerate(values.min(axis=0), 1), *enumerate(values.max(axis=0), 1)]
            assert outline == set(ends)
            mean = lines(axes, f"{part}, mean of them")
            np.testing.assert_allclose(mean.get_ydata(), values.mean(axis=0))
            log = lines(axes, f"{part}, published")
            assert list(log.get_ydata()) == [record[f"{part}_{what}"] for record in published]
            assert list(log.get_xdata()) == list(range(1, 21)) and log.get_linestyle() == ":"
            low, high = axes.get_ylim()
            assert low <= values.min() and values.max() <= high
    assert figure.axes[0].get_xlim()[1] > 20
    assert {"train, range of 3 runs", "test, range of 3 runs"} <= set(legend(figure))


@pytest.mark.parametrize(("epochs", "first"), [(20, 8), (1, 1), (20, 20), (20, None)])
def test_99_per_cent_and_the_goal_are_lines_and_the_first_epoch_at_99_is_marked(epochs, first):
    history = make_history(epochs, first)
    figure = viz.training_curves(history)
    top = figure.axes[0]
    assert set(lines(top, f"{GOAL} %, the goal").get_ydata()) == {GOAL}
    label = "99 %" if first else "99 %, not reached in the test"
    assert set(lines(top, label).get_ydata()) == {99}
    stars = [line.get_xydata().tolist() for line in top.lines if line.get_marker() == "*"]
    named = [text for text in legend(figure) if "first 99 %+" in text]
    if first:
        accuracy = history.epochs[first - 1]["test_accuracy"]
        assert stars == [[[first, accuracy]]]
        assert f"epoch {first}, {accuracy:.2f} %" in named[0]
    else:
        assert not stars and not named


def test_the_learning_rate_falls_between_the_epochs_and_is_named():
    figure = curves(20, step=7)
    for axes in figure.axes:
        marks = [line for line in axes.lines if line.get_color() == "0.5"]
        assert [line.get_xdata()[0] for line in marks] == [7.5, 14.5]
    draw(figure)
    rate = figure.axes[2]
    named = [text.get_text() for text in rate.get_yticklabels()]
    assert named == ["1e\N{MINUS SIGN}05", "0.0001", "0.001"] and rate.get_yscale() == "log"
    assert rate.lines[0].get_drawstyle() == "steps-mid"
    assert not [line for line in curves(20, step=100).axes[0].lines if line.get_color() == "0.5"]


def test_a_rate_that_changes_after_every_batch_is_a_line_on_a_linear_axis():
    history = make_history(6, step=1)
    history.config["schedule"] = "one-cycle"
    top, _, rate = viz.training_curves(history).axes
    assert rate.get_yscale() == "linear" and rate.lines[0].get_drawstyle() == "default"
    assert not [line for line in top.lines if line.get_color() == "0.5"]


def test_the_accuracy_axis_gives_the_last_points_room_and_is_labeled_in_per_cent():
    axes = curves().axes[0]
    height = {a: axes.transData.transform((1, a))[1] for a in (70, 90, 99, 99.5)}
    assert height[99.5] - height[99] > 0.3 * (height[90] - height[70]) > 0
    axes.figure.draw_without_rendering()
    labels = {tick.get_text() for tick in axes.get_yticklabels()}
    assert {"70", "90", "99"} <= labels
    assert "%" in axes.get_ylabel() and "log scale" in axes.get_ylabel()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "extreme",
    [
        {"train_accuracy": 100.0, "test_accuracy": 100.0, "train_loss": 0.0, "test_loss": 0.0},
        {"train_accuracy": 0.0, "test_accuracy": 0.0, "train_loss": 90.0, "test_loss": 9e9},
        {"train_loss": math.nan, "test_loss": math.nan},
    ],
)
def test_perfect_and_diverged_runs_are_drawn_within_the_axes(extreme):
    figure = curves(3, first=None, **extreme)
    draw(figure)
    for axes in figure.axes[:2]:
        low, high = axes.get_ylim()
        assert all(low < y < high or math.isnan(y) for y in lines(axes, "test").get_ydata())
    loss = figure.axes[1]  # logarithmic unless that would hide a loss of 0
    assert loss.get_yscale() == ("log" if extreme["test_loss"] > 0 else "linear")
    assert ("log scale" in loss.get_ylabel()) == (loss.get_yscale() == "log")


def test_confusion_counts_true_on_y_predicted_on_x_and_shades_the_share_of_mistakes():
    labels = torch.tensor([0] * 100 + [1] * 10)
    predictions = torch.tensor([0] * 98 + [5] * 2 + [1] * 9 + [7])
    axes = viz.confusion_matrix(labels, predictions).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    counts = Counter(zip(predictions.tolist(), labels.tolist(), strict=True))
    assert cells == {place: str(counts[place]) for place in np.ndindex(10, 10)}
    assert axes.get_xlabel() == "predicted digit" and axes.get_ylabel() == "true digit"
    assert "3 mistakes in 110 images" in axes.get_title()
    shares = axes.images[0].get_array()
    assert shares.mask.tolist() == np.eye(10, dtype=bool).tolist()
    assert (shares[0, 5], shares[1, 7], shares.sum()) == (2, 10, 12)
    assert [text.get_position() for text in axes.texts if text.get_color() == "white"] == [(7, 1)]


@pytest.mark.filterwarnings("error")
def test_a_perfect_model_and_absent_digits_are_drawn():
    labels = torch.tensor([0, 1, 1, 7])
    for function in (viz.confusion_matrix, viz.digit_accuracy):
        figure = function(labels, labels)
        draw(figure)
        assert "0 mistakes in 4 images" in figure.axes[0].get_title()


def test_digit_accuracy_shows_each_digit_its_errors_and_the_whole():
    labels = torch.tensor([0] * 4 + [1] * 10 + [9] * 2)
    predictions = torch.tensor([0, 0, 0, 3] + [1] * 9 + [7] + [9] * 2)
    figure = viz.digit_accuracy(labels, predictions)
    (axes,) = figure.axes
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    assert list(points.get_xdata()) == [0, 1, 9]
    assert list(points.get_ydata()) == [75, 90, 100]
    assert texts(axes) == ["75.00", "90.00", "100.00"]
    assert [text.xyann[1] > 0 for text in axes.texts] == [False, True, True]  # clear of the line
    names = [tick.get_text().split("\n") for tick in axes.get_xticklabels()]
    assert names[:3] == [["0", "1 wrong", "of 4"], ["1", "1 wrong", "of 10"], ["2", "no", "images"]]
    assert names[9] == ["9", "0 wrong", "of 2"]
    assert legend(figure) == ["all digits: 87.50 %"]
    assert all(tick <= 100 for tick in axes.get_yticks())


def test_mistakes_are_the_surest_wrong_predictions_in_order():
    images, labels, logits = make_digits(200)
    percents, predicted = (100 * logits.exp() / logits.exp().sum(1, keepdim=True)).max(1)
    order = percents.argsort(descending=True).tolist()
    mistakes = [index for index in order if predicted[index] != labels[index]]
    figure = viz.confident_mistakes(images, labels, logits)
    assert figure.get_suptitle() == f"The surest 12 of {len(mistakes)} mistakes in 200 images"
    shown = pictures(figure)
    for (caption, pixels), index in zip(shown, mistakes[:12], strict=True):
        sure = f"{percents[index]:.1f} %" if percents[index] < 99.95 else "> 99.9 %"
        assert caption == f"true {labels[index]}, predicted {predicted[index]}, {sure}"
        np.testing.assert_allclose(pixels, images[index, 0].numpy() / 255, atol=1e-6)


def test_mistakes_too_sure_for_float32_are_in_order_and_none_is_called_100_per_cent_sure():
    # Of a logit's lead over nine others: the softmax is 1 / (1 + 9 exp(-lead)).
    leads = torch.tensor([9.6, 20.0, 30.0, 25.0, 10.4])
    logits = torch.diag(leads) @ torch.eye(10)[1:6]
    shown = pictures(viz.confident_mistakes(IMAGES, 0 * LABELS, logits))
    assert [caption for caption, _ in shown] == [
        *(f"true 0, predicted {digit}, > 99.9 %" for digit in (3, 4, 2, 5)),
        "true 0, predicted 1, 99.9 %",
    ]


def test_a_single_mistake_is_shown_and_none_is_said():
    images, labels, _ = make_digits(20)
    right = 5 * torch.nn.functional.one_hot(labels, 10).float()
    figure = viz.confident_mistakes(images, labels, right)
    assert texts(figure) == ["Nothing to show: 0 mistakes in 20 images"]
    assert draw(figure).min() < 0.5  # the words are there to see
    right[4] = right[4].roll(1)
    figure = viz.confident_mistakes(images, labels, right)
    assert len(pictures(figure)) == 1
    assert figure.get_suptitle() == "The surest 1 of 1 mistake in 20 images"


IMAGES, LABELS, LOGITS = make_digits(5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.sample_digits(IMAGES / 255, LABELS), r"images: got .*32 \[5, 1, 28, 28\]"),
        (lambda: viz.sample_digits(IMAGES[:0], LABELS[:0]), r"images: got uint8 \[0, 1, 28, 28\]"),
        (lambda: viz.sample_digits(IMAGES, LABELS[:4]), "'images': 5, 'labels': 4"),
        (lambda: viz.augmentations(IMAGES, IMAGES / 255), r"image: got uint8 \[5, 1, 28, 28\]"),
        (lambda: viz.augmentations(IMAGES[0], IMAGES / 255 - 0.002), "before normalization"),
        (lambda: viz.augmentations(IMAGES[0], IMAGES / 254), "before normalization"),
        (lambda: viz.confusion_matrix(LABELS.tolist(), LABELS), "labels: got list"),
        (lambda: viz.digit_accuracy(LABELS, 0 * LABELS + 10), "predictions: got digits from 10"),
        (lambda: viz.digit_accuracy(LABELS - 10, LABELS), "labels: got digits from -"),
        (lambda: viz.confident_mistakes(IMAGES, LABELS, LOGITS[:, :9]), r"float \[N, 10\]"),
        (lambda: viz.confident_mistakes(IMAGES, LABELS, LOGITS / 0), "NaN or infinity"),
        (lambda: viz.reading(IMAGES, {"v1": LOGITS[0]}), r"image: got uint8 \[5, 1, 28, 28\]"),
        (lambda: viz.reading(IMAGES[0], {"v1": LOGITS}), r"probabilities: got float32 \[5, 10\]"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "expected" in str(error.value) and "\n" not in str(error.value)


def test_the_picture_of_the_network_shows_every_variants_dropout_and_every_block():
    axes = viz.network(VARIANTS).axes[0]
    written = texts(axes)
    for name in VARIANTS:
        assert name in written
    discs = [line for line in axes.lines if line.get_marker() == "o"]
    filled = [disc.get_markerfacecolor() != "white" for disc in discs]
    assert filled == [rate > 0 for variant in VARIANTS.values() for rate in variant.dropout]
    assert written.count("batch norm") == sum(v.batch_norm for v in VARIANTS.values())
    for block, convs in enumerate(VARIANTS["v1"].layout.blocks):
        assert "\n".join(f"{kernel}x{kernel}, {width}" for kernel, width in convs) in written
        assert f"{receptive_fields()[block]}x{receptive_fields()[block]}" in written


def test_a_reading_shows_the_picture_as_given_beside_every_networks_ten_probabilities():
    images, _, logits = make_digits(3)
    images = images // 2  # whose brightest pixel is no white
    sure = torch.full((10,), 0.0002)
    sure[7] = 1 - sure[:9].sum()
    probabilities = dict(zip(("v1", "v2", "final"), [*logits[:2].softmax(1), sure], strict=True))
    given, *others = viz.reading(images[0], probabilities).axes
    np.testing.assert_array_equal(given.images[0].get_array(), images[0, 0].numpy())
    assert given.images[0].get_clim() == (0, 255)
    assert [axes.get_ylabel() for axes in others] == list(probabilities)
    for axes, likely in zip(others, probabilities.values(), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], 100 * likely)
        labeled = [digit for digit, text in enumerate(texts(axes)) if text]
        assert labeled == (likely >= 0.01).nonzero().flatten().tolist()
        assert axes.get_ylim()[1] > 100
    assert texts(others[2])[7] == "> 99 %"
