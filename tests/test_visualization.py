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
from matplotlib.colors import to_rgb
from matplotlib.image import imread

import Visualization as viz
from helpers.history import History
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


def test_samples_are_the_first_of_each_digit_in_digit_order():
    images, _, _ = make_digits(40)
    labels = torch.arange(39, -1, -1) % 10  # 9, 8, ... 0, 9, ...
    shown = pictures(viz.sample_digits(images, labels, columns=10, rows=3))
    assert [caption for caption, _ in shown] == [str(digit) for digit in range(10)] + [""] * 20
    for place, (_, pixels) in enumerate(shown):
        row, digit = divmod(place, 10)
        index = [k for k in range(40) if labels[k] == digit][row]
        np.testing.assert_allclose(pixels, images[index, 0].numpy() / 255, atol=1e-6)


def test_samples_of_a_small_subset_say_which_digit_is_missing():
    images, _, _ = make_digits(3)
    figure = viz.sample_digits(images, torch.tensor([3, 0, 3]), columns=4, rows=2)
    captions = [axes.get_title() for axes in figure.axes]
    assert captions == ["0", "1: none", "2: none", "3", "", "", "", ""]
    filled = [bool(axes.images) for axes in figure.axes]
    assert filled == [True, False, False, True, False, False, False, True]


@pytest.mark.parametrize("count", [1, 5, 8])
def test_augmentations_follow_their_original_on_one_gray_scale(count):
    images = make_digits(count + 1)[0] // 2  # whose brightest pixel is no white
    figure = viz.augmentations(images[0], images[1:] / 255)
    captions, shown = zip(*pictures(figure), strict=True)
    assert captions == ("original", *(f"augmented {k}" for k in range(1, count + 1)))
    np.testing.assert_allclose(shown, images[:, 0].numpy() / 255, atol=1e-6)
    assert {axes.images[0].get_clim() for axes in figure.axes if axes.images} == {(0, 1)}
    assert len(figure.axes) == math.ceil((count + 1) / 6) * min(count + 1, 6)


def test_augmentations_may_round_past_the_ends():
    images, _, _ = make_digits(2)
    viz.augmentations(images[0], images / 255 * 1.0008 - 0.0004)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("epochs", [1, 2, 20, 200])
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


@pytest.mark.parametrize("losses", [(2.3, 2.31), (0.9, 0.2), (0.001, 0.0011)])
@pytest.mark.parametrize(("epochs", "step"), [(1, 7), (20, 7), (60, 1)])
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
            for edge in (values.min(axis=0), values.max(axis=0)):
                assert set(zip(range(1, 19), edge, strict=True)) <= outline
            assert max(x for x, _ in outline) == 18
            mean = lines(axes, f"{part}, mean of them")
            np.testing.assert_allclose(mean.get_ydata(), values.mean(axis=0))
            log = lines(axes, f"{part}, published")
            assert list(log.get_ydata()) == [record[f"{part}_{what}"] for record in published]
            assert list(log.get_xdata()) == list(range(1, 21)) and log.get_linestyle() == ":"
            low, high = axes.get_ylim()
            assert low <= values.min() and values.max() <= high
    assert figure.axes[0].get_xlim()[1] > 20
    assert {"train, range of 3 runs", "test, range of 3 runs"} <= set(legend(figure))


@pytest.mark.parametrize(("epochs", "first"), [(20, 8), (1, 1), (20, 20)])
def test_the_first_epoch_at_99_is_marked_and_named(epochs, first):
    history = make_history(epochs, first)
    figure = viz.training_curves(history)
    (star,) = (line for line in figure.axes[0].lines if line.get_marker() == "*")
    accuracy = history.epochs[first - 1]["test_accuracy"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([first], [accuracy])
    assert [text for text in legend(figure) if f"epoch {first}, {accuracy:.2f} %" in text]


def test_99_per_cent_and_the_goal_are_lines_and_a_run_that_never_reaches_99_says_so():
    for first, label in ((8, "99 %"), (None, "99 %, not reached in the test")):
        top = curves(first=first).axes[0]
        assert set(lines(top, label).get_ydata()) == {99}
        assert set(lines(top, f"{GOAL} %, the goal").get_ydata()) == {GOAL}
        assert len([line for line in top.lines if line.get_marker() == "*"]) == bool(first)


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


@pytest.mark.parametrize(("loss", "scale"), [(0.1, "log"), (0.0, "linear")])
def test_the_loss_axis_is_logarithmic_unless_that_would_hide_a_loss_of_0(loss, scale):
    axes = curves(3, first=None, test_loss=loss).axes[1]
    assert axes.get_yscale() == scale
    assert ("log scale" in axes.get_ylabel()) == (scale == "log")


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


@pytest.mark.parametrize("accuracy", [100.5, -0.1, math.nan])
def test_curves_refuse_what_is_no_accuracy_and_a_history_without_epochs(accuracy):
    with pytest.raises(ValueError, match="no complete epoch"):
        viz.training_curves(History("v1", 42))
    good, bad = make_history(3), make_history(3, test_accuracy=accuracy)
    for arguments in ((bad,), (good, [good, bad]), (good, [], bad.epochs)):
        with pytest.raises(ValueError, match="expected accuracies from 0 to 100 %"):
            viz.training_curves(*arguments)


def test_confusion_cells_are_the_counts_true_on_y_predicted_on_x():
    _, labels, logits = make_digits(500)
    predictions = torch.where(torch.arange(500) % 3 == 0, logits.argmax(dim=1), labels)
    axes = viz.confusion_matrix(labels, predictions).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    counts = Counter(zip(predictions.tolist(), labels.tolist(), strict=True))
    assert cells == {place: str(counts[place]) for place in np.ndindex(10, 10)}
    assert axes.get_xlabel() == "predicted digit" and axes.get_ylabel() == "true digit"
    wrong = sum(count for (p, t), count in counts.items() if t != p)
    assert f"{wrong} mistakes in 500 images" in axes.get_title()


def test_confusion_shades_the_share_of_mistakes_and_not_the_diagonal():
    labels = torch.tensor([0] * 100 + [1] * 10)
    predictions = torch.tensor([0] * 98 + [5] * 2 + [1] * 9 + [7])
    shares = viz.confusion_matrix(labels, predictions).axes[0].images[0].get_array()
    assert shares.mask.tolist() == np.eye(10, dtype=bool).tolist()
    assert (shares[0, 5], shares[1, 7]) == (2, 10)
    assert shares.sum() == 12


def test_confusion_counts_are_legible_on_every_shade():
    def luminance(color):
        c = np.array(to_rgb(color))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    # Of each digit d, (d + 1) twelfths are taken for the next one.
    labels = torch.arange(10).repeat_interleave(240)
    predictions = torch.where(
        torch.arange(2400) % 240 < 20 * (labels + 1), (labels + 1) % 10, labels
    )
    axes = viz.confusion_matrix(labels, predictions).axes[0]
    shades = axes.images[0].to_rgba(axes.images[0].get_array())
    for text in axes.texts:
        x, y = text.get_position()
        pair = sorted((luminance(shades[y, x, :3]), luminance(text.get_color())))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (y, x)
    assert {text.get_color() for text in axes.texts} == {"black", "white"}


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
    figure = viz.confident_mistakes(images, labels, logits, count=7)
    assert figure.get_suptitle() == f"The surest 7 of {len(mistakes)} mistakes in 200 images"
    shown = pictures(figure)
    for (caption, pixels), index in zip(shown, mistakes[:7], strict=True):
        sure = f"{percents[index]:.1f} %" if percents[index] < 99.95 else "> 99.9 %"
        assert caption == f"true {labels[index]}, predicted {predicted[index]}, {sure}"
        np.testing.assert_allclose(pixels, images[index, 0].numpy() / 255, atol=1e-6)


def test_mistakes_too_sure_for_float32_are_still_in_order():
    images, _, _ = make_digits(3)
    logits = torch.diag(torch.tensor([20.0, 30.0, 25.0])) @ torch.eye(10)[1:4]
    shown = pictures(viz.confident_mistakes(images, torch.zeros(3, dtype=torch.int64), logits))
    assert [caption for caption, _ in shown] == [
        f"true 0, predicted {predicted}, > 99.9 %" for predicted in (2, 3, 1)
    ]


@pytest.mark.parametrize(("sure", "said"), [(0.9994, "99.9 %"), (0.9997, "> 99.9 %")])
def test_no_mistake_is_called_100_per_cent_sure(sure, said):
    likely = torch.full((1, 10), (1 - sure) / 9, dtype=torch.float64)
    likely[0, 3] = sure
    (shown,) = pictures(viz.confident_mistakes(IMAGES[:1], 0 * LABELS[:1], likely.log()))
    assert shown[0] == f"true 0, predicted 3, {said}"


def test_a_single_mistake_is_shown_and_none_is_said():
    images, labels, _ = make_digits(20)
    right = 5 * torch.nn.functional.one_hot(labels, 10).float()
    figure = viz.confident_mistakes(images, labels, right)
    assert texts(figure) == ["Nothing to show: 0 mistakes in 20 images"]
    assert draw(figure).min() < 0.5  # the words are there to see
    right[4] = right[4].roll(1)
    figure = viz.confident_mistakes(images, labels, right, count=12)
    assert len(pictures(figure)) == 1
    assert figure.get_suptitle() == "The surest 1 of 1 mistake in 20 images"


IMAGES, LABELS, LOGITS = make_digits(5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.sample_digits(IMAGES / 255, LABELS), r"images: got .*32 \[5, 1, 28, 28\]"),
        (lambda: viz.sample_digits(IMAGES[:, 0], LABELS), r"images: got uint8 \[5, 28, 28\]"),
        (lambda: viz.sample_digits(IMAGES[:0], LABELS[:0]), r"images: got uint8 \[0, 1, 28, 28\]"),
        (lambda: viz.sample_digits(IMAGES, LABELS[:4]), "'images': 5, 'labels': 4"),
        (lambda: viz.sample_digits(IMAGES, LABELS, columns=11), "got 11 columns"),
        (lambda: viz.sample_digits(IMAGES, LABELS, rows=0), "0 rows"),
        (lambda: viz.augmentations(IMAGES, IMAGES / 255), r"image: got uint8 \[5, 1, 28, 28\]"),
        (lambda: viz.augmentations(IMAGES[0], IMAGES), "augmented: got uint8"),
        (lambda: viz.augmentations(IMAGES[0], IMAGES / 255 - 0.002), "before normalization"),
        (lambda: viz.augmentations(IMAGES[0], IMAGES / 254), "before normalization"),
        (lambda: viz.confusion_matrix(LABELS, LOGITS), r"predictions: got float32 \[5, 10\]"),
        (lambda: viz.confusion_matrix(LABELS.tolist(), LABELS), "labels: got list"),
        (lambda: viz.digit_accuracy(LABELS, 0 * LABELS + 10), "predictions: got digits from 10"),
        (lambda: viz.digit_accuracy(LABELS - 10, LABELS), "labels: got digits from -"),
        (lambda: viz.confident_mistakes(IMAGES, LABELS, LOGITS[:, :9]), r"float \[N, 10\]"),
        (lambda: viz.confident_mistakes(IMAGES, LABELS, LOGITS / 0), "NaN or infinity"),
        (lambda: viz.confident_mistakes(IMAGES, LABELS, LOGITS, count=0), "count: got 0"),
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
    probabilities = dict(zip(("v1", "v2", "final"), logits.softmax(dim=1), strict=True))
    figure = viz.reading(images[0], probabilities)
    given, *others = figure.axes
    np.testing.assert_array_equal(given.images[0].get_array(), images[0, 0].numpy())
    assert given.images[0].get_clim() == (0, 255)
    assert [axes.get_ylabel() for axes in others] == list(probabilities)
    for axes, likely in zip(others, probabilities.values(), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], 100 * likely)
        labeled = [digit for digit, text in enumerate(texts(axes)) if text]
        assert labeled == (likely >= 0.01).nonzero().flatten().tolist()
        assert axes.get_ylim()[1] > 100


def test_a_reading_that_is_all_but_certain_is_not_called_100_per_cent():
    likely = torch.full((10,), 0.0002)
    likely[7] = 1 - likely[:9].sum()
    axes = viz.reading(IMAGES[0], {"v1": likely}).axes[1]
    assert texts(axes) == [""] * 7 + ["> 99 %", "", ""]
