"""Augmentation and loaders: held against torchvision, and the same batches whatever happens."""

import gc
import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from torchvision.transforms import InterpolationMode

import DataPipeline
from DataPipeline import AUGMENTATION, MNIST, augment, make_loaders
from tests.helpers import CPU, wait_for
from TrainingHelper import TrainingConfig

CONFIG = TrainingConfig()


BILINEAR = {"interpolation": InterpolationMode.BILINEAR, "fill": 0}


def rotated(digit, drawn, i):
    return reference.rotate(digit, drawn["degrees"][i].item(), **BILINEAR)


def moved(digit, drawn, i):
    angle, scale = drawn["angle"][i].item(), drawn["scale"][i, 0].item()
    shear = [drawn["shear_x"][i].item(), drawn["shear_y"][i].item()]
    shift = drawn["translations"][i].tolist()
    return reference.affine(digit, angle, shift, scale, shear, **BILINEAR)


def jittered(digit, drawn, i):
    steps = {0: "brightness", 1: "contrast"}  # 2 and 3 are saturation and hue: none in grey
    for step in [steps[number] for number in drawn["order"].tolist() if number in steps]:
        adjust = getattr(reference, f"adjust_{step}")
        digit = adjust(digit, drawn[f"{step}_factor"][i].item())
    return digit


@pytest.mark.parametrize(("number", "theirs"), [(0, rotated), (1, moved), (2, jittered)])
def test_each_transform_is_torchvisions(mnist, number, theirs):
    digits = mnist.train_images[:64] / 255
    torch.manual_seed(number)
    ours = AUGMENTATION[number](digits)
    drawn = AUGMENTATION[number]._params
    expected = torch.stack([theirs(digit, drawn, i) for i, digit in enumerate(digits)])
    assert not torch.equal(ours, digits)
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)


def test_every_image_is_changed_within_the_ranges_of_the_protocol(mnist):
    draws = 4000
    torch.manual_seed(4)
    AUGMENTATION(mnist.train_images[:1].expand(draws, -1, -1, -1) / 255)
    rotation, affine, jitter = (transform._params for transform in AUGMENTATION)
    for values, low, high in (
        (rotation["degrees"], -5, 5),
        (affine["angle"], 0, 0),
        (affine["translations"][:, 0], -0.05 * 28, 0.05 * 28),
        (affine["translations"][:, 1], -0.05 * 28, 0.05 * 28),
        (affine["scale"], 0.9, 1.1),
        (affine["shear_x"], -5, 5),
        (affine["shear_y"], 0, 0),
        (jitter["brightness_factor"], 0.9, 1.1),
        (jitter["contrast_factor"], 0.9, 1.1),
    ):
        assert len(values) == draws  # p = 1
        extremes = [values.min().item(), values.max().item()]
        assert extremes == pytest.approx([low, high], abs=(high - low) / 100)


def test_augmenting_depends_on_the_seed_alone_and_moves_no_generator(mnist):
    images = mnist.train_images[:50]
    before = torch.get_rng_state()
    first = augment(images, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(augment(images, seed=7), first)
    assert not torch.equal(augment(images, seed=8), first)
    assert first.dtype == torch.float32 and first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 1


def derived(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def by_hand(data, epoch, seed=42, batch_size=32, chunk=2048):
    """An epoch's batches by their definition; of the project's code only the transforms."""
    generator = torch.Generator().manual_seed(derived(seed, epoch))
    order = torch.randperm(len(data.train_images), generator=generator)
    images = []
    with torch.random.fork_rng():
        for number, indices in enumerate(order.split(chunk)):
            torch.manual_seed(derived(seed, epoch, number))
            images.append((AUGMENTATION(data.train_images[indices] / 255) - 0.1307) / 0.3081)
    labels = data.train_labels[order].split(batch_size)
    return list(zip(torch.cat(images).split(batch_size), labels, strict=True))


def batches(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def several_chunks(mnist):
    """Two training chunks and a part of a third, whose last batch is incomplete."""
    return mnist.first(4500)._replace(
        test_images=mnist.test_images[:2300], test_labels=mnist.test_labels[:2300]
    )


@pytest.fixture(scope="module")
def expected(several_chunks):
    return {epoch: by_hand(several_chunks, epoch) for epoch in (1, 2)}


@pytest.fixture
def workers():
    """A function that gives the worker processes that were started since."""
    before = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - before


@pytest.mark.parametrize(
    ("num_workers", "start"), [(0, None), (1, None), (2, None), (2, "fork"), (2, "spawn")]
)
def test_an_epoch_is_the_one_made_by_hand_and_moves_no_generator(
    several_chunks, expected, num_workers, start
):
    before = torch.get_rng_state()
    train, test = make_loaders(several_chunks, CONFIG, CPU, num_workers, start)
    for epoch in (1, 2):
        assert same(batches(train, epoch), expected[epoch])
    assert len(list(test)) == len(test)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 2048), (50, 2050), (5000, 5000)])
def test_any_seed_and_batch_size_work(several_chunks, batch_size, chunk):
    config = TrainingConfig(seed=43, batch_size=batch_size)
    train, _ = make_loaders(several_chunks, config, CPU, num_workers=0)
    found = batches(train, 3)
    assert same(found, by_hand(several_chunks, 3, 43, batch_size, chunk))
    assert len(found) == len(train)


def test_no_two_images_are_augmented_alike(mnist):
    digit = mnist.train_images[:1].expand(4500, -1, -1, -1)
    train, _ = make_loaders(mnist.first(4500)._replace(train_images=digit), CONFIG, CPU, 0)
    images = torch.cat([images for epoch in (1, 2) for images, _ in batches(train, epoch)])
    assert len(images.unique(dim=0)) == 9000


def test_an_epoch_does_not_depend_on_what_ran_before(several_chunks, expected):
    train, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    torch.manual_seed(123)
    assert same(batches(train, 2), expected[2])  # epoch 2 first
    train.set_epoch(1)
    list(itertools.islice(train, 70))  # a broken-off epoch
    assert same(batches(train, 1), expected[1])
    assert same(batches(train, 2), expected[2])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_within_an_epoch_disturbs_neither(several_chunks, expected, num_workers):
    train, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers)
    train.set_epoch(1)
    outer = iter(train)
    first = next(outer)
    assert same(batches(train, 2), expected[2])
    assert same([first, *outer], expected[1])


def test_workers_start_once_outlive_an_interrupt_but_not_their_loader(
    several_chunks, expected, workers
):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    train, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    batches(train, 1)
    started = workers()
    assert len(started) == 2
    for worker in started:
        os.kill(worker.pid, signal.SIGINT)
    assert same(batches(train, 2), expected[2])
    assert workers() == started
    del train
    gc.collect()
    wait_for(lambda: not workers(), seconds=10)


def test_stopping_ends_the_workers_of_an_epoch_that_somebody_still_holds(
    several_chunks, expected, workers
):
    train, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    held = iter(train)  # as a traceback holds it
    next(held)
    assert len(workers()) == 2
    train.stop_workers()
    assert not workers()
    assert next(held, None) is None
    assert same(batches(train, 1), expected[1])


def test_images_as_they_are_come_in_order_and_unchanged(several_chunks):
    train, test = make_loaders(several_chunks, CONFIG, CPU)
    data = several_chunks
    for loader, images, labels in (
        (test, data.test_images, data.test_labels),
        (train.as_they_are(), data.train_images, data.train_labels),
    ):
        found = list(loader)
        assert len(found) == len(loader)
        expected = (images.float() / 255 - 0.1307) / 0.3081
        torch.testing.assert_close(torch.cat([images for images, _ in found]), expected)
        assert torch.equal(torch.cat([labels for _, labels in found]), labels)


def test_batches_are_on_the_device(small):
    for loader in make_loaders(small, CONFIG, "meta", num_workers=0):
        assert {t.device.type for batch in loader for t in batch} == {"meta"}


@pytest.mark.parametrize(("device", "pinned"), [("cuda:0", True), ("cpu", False), ("mps", False)])
def test_memory_is_pinned_for_cuda_alone(small, monkeypatch, device, pinned):
    given = []
    monkeypatch.setattr(DataPipeline, "DataLoader", lambda *_, **options: given.append(options))
    make_loaders(small, CONFIG, device)
    assert {options["pin_memory"] for options in given} == {pinned}


def test_the_checksum_tells_data_apart(small):
    def checksum(data):
        return make_loaders(data, CONFIG, CPU, num_workers=0)[0].checksum

    others = [small._replace(**{name: getattr(small, name).flip(0)}) for name in small._fields]
    blank = [torch.zeros_like(tensor) for tensor in small]
    others += [small.first(100), MNIST(*blank), MNIST(*blank[2:], *blank[:2])]
    assert checksum(small) == checksum(small._replace())
    assert len({checksum(data) for data in (small, *others)}) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": lambda t: t.float()}, r"train set has images torch.float32 \[320, 1, 28"),
        ({"test_images": lambda t: t.squeeze(1)}, r"test set has images torch.uint8 \[100, 28, 28"),
        ({"train_labels": lambda t: t[:-1]}, r"labels torch.int64 \[319\]"),
        ({"test_labels": lambda t: t + 5}, r"labels torch.int64 \[100\] from 5 to 14; expected"),
        ({"test_labels": lambda t: t - 1}, r"labels torch.int64 \[100\] from -1 to 8; expected"),
        ({"train_images": lambda t: t[:0], "train_labels": lambda t: t[:0]}, r"int64 \[0\];"),
    ],
)
def test_data_that_is_no_mnist_is_refused(small, change, message):
    changed = {name: how(getattr(small, name)) for name, how in change.items()}
    with pytest.raises(ValueError, match=message):
        make_loaders(small._replace(**changed), CONFIG, CPU)
