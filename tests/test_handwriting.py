"""Other people's handwriting: intervals over writers, both halves, doubtful labels."""

import re

import numpy as np
import pytest

from helpers.mnist_files import mnist_writers
from study.handwriting import accuracies, hardest, hardest_figure, over_writers, votes_table
from study.inference import estimate
from study.protocol import BN, contrast, wide
from study.table import load
from tests.helpers import PROJECT


@pytest.fixture(scope="module")
def tables():
    return load(PROJECT / "results")


@pytest.fixture(scope="module")
def writers(mnist):
    return mnist_writers("test", mnist.test_labels)


def test_the_test_images_are_by_297_people_in_two_halves(writers, mnist):
    assert writers.writer.nunique() == 297
    assert writers.series.value_counts().to_dict() == {4: 5_001, 0: 4_999}
    train = mnist_writers("train", mnist.train_labels)
    assert train.writer.nunique() == 539 and not set(train.writer) & set(writers.writer)
    late = train.writer[50_000:]
    assert late.nunique() == 305 and late.isin(train.writer[:50_000]).sum() == 4_080
    assert late[late.isin(train.writer[:50_000])].nunique() == 251


def test_held_out_are_all_images_of_some_writers_of_both_series(mnist):
    split = mnist.validation_split()
    assert [len(part) for part in split] == [49_999, 49_999, 10_001, 10_001]
    writers = mnist_writers("train", mnist.train_labels)
    held_out = {image.numpy().tobytes() for image in split.test_images}
    inside = [image.numpy().tobytes() in held_out for image in mnist.train_images]
    # No image is twice in MNIST, so a writer's images are all inside or all outside.
    assert set(writers.groupby("writer").series.agg(lambda s: len(set(s)))) == {1}
    shares = writers.assign(inside=inside).groupby("writer").inside.mean()
    assert set(shares) == {0, 1} and shares.sum() == 90
    assert writers[inside].series.value_counts().to_dict() == {4: 5_238, 0: 4_763}
    with pytest.raises(ValueError, match="not the labels of MNIST's test set"):
        mnist_writers("test", mnist.train_labels)


def test_accuracies_by_image_average_to_those_of_the_runs(tables):
    for setting in ("page", "original"):
        table = wide(tables.of(setting), "final", setting)
        for formula in ("final", BN):
            means = accuracies(tables, setting, formula).mean(axis=1)
            assert means == pytest.approx(contrast(table, formula, "final"), abs=1e-9)


def test_an_estimate_over_writers_is_worked_out_by_hand():
    """Two seeds, three writers of 1, 1 and 2 images: totals over seeds 100, 50, 150."""
    values = np.array([[100, 0, 100, 100], [100, 100, 0, 100.0]])
    mean = over_writers(values, np.array(["a", "b", "c", "c"]))
    moves = [(100 - 75) / 3, (50 - 75) / 3, (150 - 150) / 2]
    assert (mean.mean, mean.freedom) == (75, 1)
    assert mean.error == pytest.approx(np.sqrt(np.square(moves).sum()))  # the seeds are equal


@pytest.mark.slow
def test_intervals_over_writers_cover_where_those_over_images_do_not(writers):
    """2,000 studies of ten seeds: images are hard by writer, errors are by image and seed."""
    generator, truth, hard = np.random.default_rng(0), 99.475, 0.021
    codes, sizes = np.unique(writers.writer, return_inverse=True)[1], np.bincount
    covered = {"writers": 0, "images": 0, "seeds": 0}
    for _ in range(2000):
        hand = np.exp(generator.standard_normal(len(sizes(codes))) - 0.5)[codes]
        chance = generator.beta(0.5, 1.5, len(codes)) * (generator.random(len(codes)) < hard * hand)
        seed = np.exp(0.12 * generator.standard_normal((10, 1)) - 0.0072)
        wrong = np.zeros((10, len(codes)))
        wrong[:, chance > 0] = (
            generator.random((10, (chance > 0).sum())) < (seed * chance)[:, chance > 0]
        )
        values = 100 * (1 - wrong)
        estimates = {
            "writers": over_writers(values, codes),
            "images": over_writers(values, np.arange(len(codes)))._replace(freedom=1e6),
            "seeds": estimate(values.mean(axis=1)),
        }
        for name, mean in estimates.items():
            low, high = mean.interval()
            covered[name] += low <= truth <= high
    assert covered["writers"] >= 0.94 * 2000
    assert covered["images"] < 0.86 * 2000 and covered["seeds"] < 0.60 * 2000


def test_the_hardest_images_and_what_people_say_of_them(tables, mnist):
    table = hardest(tables)
    assert table.wrong.sum() == pytest.approx(100 * (100 - 99.468))  # errors a run
    most = table[table.wrong > 0.5]
    assert most.loc[1901, "vote"] == "4" and mnist.test_labels[1901] == 9
    assert most.loc[2654, "vote"] == "no majority"
    counts = re.findall(r"\| (\d+) \|", votes_table(tables, mnist))
    assert sum(map(int, counts)) == len(most)
    titles = [axes.get_title() for axes in hardest_figure(tables, mnist).axes if axes.images]
    assert len(titles) == len(most) and "9 / 4 / 4" in titles
