"""The figures show the numbers given, all of them, and touch nothing else."""

from collections import Counter
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import Visualization as viz
from tests.helpers import history

IMAGES = torch.arange(60 * 784).remainder(251).to(torch.uint8).view(60, 1, 28, 28)


def run(epochs=20, first=8):
    """A run with a test accuracy of 99.2% from epoch first on, and 93.6% before."""
    run = history([93.6 if epoch < first else 99.2 for epoch in range(1, epochs + 1)])
    for epoch, record in enumerate(run.epochs):
        record |= {"train_loss": 0.9 * 0.8**epoch + 0.1, "test_loss": 1 / (epoch + first)}
        record |= {"train_accuracy": 97 - 26 * 0.6**epoch, "learning_rate": 0.1 ** (epoch // 7)}
    return run


def pictures(figure):
    pairs = [(axes.get_title(), axes.images[0]) for axes in figure.axes if axes.images]
    return [(title, image.get_array() * 255 / image.get_clim()[1]) for title, image in pairs]


def values(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return list(line.get_ydata())


@pytest.mark.filterwarnings("error")
def test_figures_are_pictures_and_change_no_global_setting_and_no_random_number():
    settings, random, labels = dict(plt.rcParams), torch.get_rng_state(), torch.arange(60) % 10
    figures = [viz.plot_training_curves(run(1), run().epochs)]
    figures += [viz.plot_confusion_matrix(labels, labels)]
    for figure in figures:
        assert figure._repr_png_().startswith(b"\x89PNG") and figure.bbox.width == 800
    assert not plt.get_fignums() and dict(plt.rcParams) == settings
    assert torch.equal(torch.get_rng_state(), random)


def test_digits_and_augmentations_show_their_images_in_order_on_one_scale_of_gray():
    digits = pictures(viz.plot_digits(IMAGES[:4], torch.tensor([7, 0, 7, 7])))
    assert [caption for caption, _ in digits] == ["0", "7", ""]  # no other digit, no third 7
    augmented = pictures(viz.plot_augmentations(IMAGES[0], IMAGES[1:8] / 255))
    shown = [pixels for _, pixels in digits + augmented]
    np.testing.assert_allclose(shown, IMAGES[[1, 0, 2, *range(8)], 0], rtol=1e-6)


def test_curves_show_a_run_and_a_log():
    log = run(25).epochs
    top, middle, _ = viz.plot_training_curves(run(19), log).axes
    for axes, what in ((top, "accuracy"), (middle, "loss")):
        for part in ("train", "test"):
            key = f"{part}_{what}"
            assert values(axes, part) == [record[key] for record in run(19).epochs]
            assert values(axes, f"{part}, published") == [record[key] for record in log]
    looks = {(line.get_linestyle(), line.get_marker()) for line in top.lines[:4]}
    assert len(looks) == 4 and top.get_xlim()[1] > 25  # in gray, too


def test_99_percent_the_target_and_the_first_epoch_at_99_percent_are_marked():
    top = viz.plot_training_curves(run(20, 8)).axes[0]
    assert values(top, "99%") == [99, 99] and values(top, "the 99.4% target") == [99.4, 99.4]
    assert values(top, "first epoch at 99%: 8") == [99.2]


def test_no_words_of_the_curves_overlap_or_are_cut_off():
    figure = viz.plot_training_curves(run(), run().epochs)
    figure.draw_without_rendering()
    words = [*(legend := figure.legends[0].get_texts())]
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = axis.get_view_interval()
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        words += [axis.label, *(tick.label1 for tick in ticks)]
    boxes = [word.get_window_extent() for word in words if word.get_visible() and word.get_text()]
    assert len(legend) == 7 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.min.min() >= 0 and (box.max <= figure.bbox.size).all() for box in boxes)


def test_errors_are_counted_by_true_digit_in_rows_and_by_predicted_digit_in_columns():
    labels = torch.tensor([0] * 4 + [1] * 10 + [9] * 2)
    predictions = torch.tensor([0, 0, 5, 5] + [1] * 10 + [9, 7])
    (axes,) = viz.plot_confusion_matrix(labels, predictions).axes
    cells = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert cells == Counter(zip(predictions.tolist(), labels.tolist(), strict=True))
    assert axes.get_xlabel() == "predicted digit" and "3 of 16 are errors" in axes.get_title()
    assert axes.images[0].get_array().max() == 2  # an error, not what is right


def test_errors_are_shown_from_the_most_confident_on_and_none_is_called_100_percent_sure():
    # Of a logit's lead over nine others, the softmax is 1 / (1 + 9 exp(-lead)).
    logits = torch.diag(torch.tensor([9.6, 20.0, 30.0, 25.0, 10.4, 2.0])) @ torch.eye(10)[1:7]
    shown = pictures(viz.plot_confident_errors(IMAGES[:6], torch.tensor([0] * 5 + [6]), logits))
    captions = [*(f"0 → {digit}, > 99.9%" for digit in (3, 4, 2, 5)), "0 → 1, 99.9%"]
    assert [caption for caption, _ in shown] == captions
    np.testing.assert_array_equal([pixels for _, pixels in shown], IMAGES[[2, 3, 1, 4, 0], 0])
