"""Augmentation and loaders: held against torchvision, and the same batches whatever happens."""

import gc
import itertools
import multiprocessing
import time

import pytest
import torch
import torchvision.transforms.functional as reference
from torch.utils.data import DataLoader
from torchvision.transforms import ColorJitter, InterpolationMode, RandomAffine, RandomRotation

import DataPipeline
from DataPipeline import AUGMENTATION, augment, make_loaders, normalise
from TrainingHelper import TrainingConfig

CONFIG = TrainingConfig()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(mnist):
    return mnist.train_images[:64].float() / 255


# --- augmentation ---------------------------------------------------------------------------------


def test_rotation_is_torchvisions(digits):
    torch.manual_seed(1)
    rotation = AUGMENTATION[0]
    ours = rotation(digits)
    angles = rotation._params["degrees"].tolist()
    theirs = [
        reference.rotate(digit, angle, InterpolationMode.BILINEAR, fill=0)
        for digit, angle in zip(digits, angles, strict=True)
    ]
    assert not torch.equal(ours, digits)
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-3, rtol=0)


def test_affine_is_torchvisions(digits):
    torch.manual_seed(2)
    affine = AUGMENTATION[1]
    ours = affine(digits)
    drawn = affine._params
    theirs = [
        reference.affine(
            digit,
            angle=drawn["angle"][i].item(),
            translate=drawn["translations"][i].tolist(),
            scale=drawn["scale"][i, 0].item(),
            shear=[drawn["shear_x"][i].item(), drawn["shear_y"][i].item()],
            interpolation=InterpolationMode.BILINEAR,
            fill=0,
        )
        for i, digit in enumerate(digits)
    ]
    assert not torch.equal(ours, digits)
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-3, rtol=0)


def test_colour_jitter_is_torchvisions(digits):
    torch.manual_seed(3)
    jitter = AUGMENTATION[2]
    ours = jitter(digits)
    drawn = jitter._params
    steps = {0: "brightness", 1: "contrast"}  # 2 and 3 are saturation and hue: none in grey
    theirs = []
    for i, digit in enumerate(digits):
        for step in drawn["order"].tolist():
            if step in steps:
                adjust = getattr(reference, f"adjust_{steps[step]}")
                digit = adjust(digit, drawn[f"{steps[step]}_factor"][i].item())
        theirs.append(digit)
    assert not torch.equal(ours, digits)
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-3, rtol=0)


def test_ranges_are_torchvisions(mnist):
    """The extremes of many draws agree with those of the transforms every reader knows."""
    draws = 4000
    images = mnist.train_images[:1].expand(draws, -1, -1, -1).float() / 255
    torch.manual_seed(4)
    AUGMENTATION(images)
    rotation, affine, jitter = (transform._params for transform in AUGMENTATION)
    their_rotation = RandomRotation(5)
    their_affine = RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1), shear=5)
    their_jitter = ColorJitter(brightness=0.1, contrast=0.1)

    angles = [their_rotation.get_params(their_rotation.degrees) for _ in range(draws)]
    affines = [
        their_affine.get_params(
            their_affine.degrees,
            their_affine.translate,
            their_affine.scale,
            their_affine.shear,
            [28, 28],
        )
        for _ in range(draws)
    ]
    jitters = [
        their_jitter.get_params(their_jitter.brightness, their_jitter.contrast, None, None)
        for _ in range(draws)
    ]
    pairs = [
        (rotation["degrees"], angles, 0.1),
        (affine["angle"], [angle for angle, *_ in affines], 0.0),
        # torchvision rounds a shift to whole pixels: 1.4 at most becomes 1.
        (affine["translations"][:, 0].round(), [shift[0] for _, shift, *_ in affines], 0.0),
        (affine["translations"][:, 1].round(), [shift[1] for _, shift, *_ in affines], 0.0),
        (affine["scale"][:, 0], [scale for *_, scale, _ in affines], 0.005),
        (affine["shear_x"], [shear[0] for *_, shear in affines], 0.1),
        (affine["shear_y"], [shear[1] for *_, shear in affines], 0.0),
        (jitter["brightness_factor"], [brightness for _, brightness, *_ in jitters], 0.005),
        (jitter["contrast_factor"], [contrast for _, _, contrast, *_ in jitters], 0.005),
    ]
    for ours, theirs, tolerance in pairs:
        assert len(ours) == draws  # p = 1: every image is changed
        assert ours.min().item() == pytest.approx(min(theirs), abs=tolerance)
        assert ours.max().item() == pytest.approx(max(theirs), abs=tolerance)


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


def test_normalisation_is_the_published_one():
    pixels = torch.tensor([0.0, 0.1307, 1.0])
    expected = torch.tensor([-0.1307 / 0.3081, 0.0, 0.8693 / 0.3081])
    torch.testing.assert_close(normalise(pixels), expected)


# --- loaders --------------------------------------------------------------------------------------


def batches(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def several_chunks(mnist):
    """More than two chunks, the last batch incomplete."""
    return mnist.first(4500)._replace(
        test_images=mnist.test_images[:2300], test_labels=mnist.test_labels[:2300]
    )


@pytest.fixture(scope="module")
def expected(several_chunks):
    """Epochs 1 and 2 as made without a worker."""
    loader, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=0)
    return {epoch: batches(loader, epoch) for epoch in (1, 2)}


def test_a_full_epoch_has_1875_batches_of_32(mnist):
    train, test = make_loaders(mnist, CONFIG, CPU, num_workers=0)
    assert isinstance(train, DataLoader)
    assert len(train) == 1875
    assert sum(len(labels) for _, labels in test) == 10_000
    images, labels = next(iter(train))
    assert images.shape == (32, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (32,) and labels.dtype == torch.int64


def test_every_image_appears_exactly_once_an_epoch(several_chunks, monkeypatch):
    """Each image's number is written into its first pixels, and augmentation switched off."""
    numbers = torch.arange(4500)
    images = several_chunks.train_images.clone()
    images[:, 0, 0, 0] = numbers // 256
    images[:, 0, 0, 1] = numbers % 256
    monkeypatch.setattr(DataPipeline, "augment", lambda images, seed: images.float() / 255)
    data = several_chunks._replace(train_images=images)
    train, _ = make_loaders(data, CONFIG, CPU, num_workers=0)
    orders = []
    for epoch in (1, 2):
        found = batches(train, epoch)
        assert [len(labels) for _, labels in found] == [32] * 140 + [20]
        assert len(found) == len(train)
        pixels = torch.cat([images for images, _ in found])[:, 0, 0, :2]
        pixels = ((pixels * DataPipeline.STD + DataPipeline.MEAN) * 255).round().long()
        order = pixels[:, 0] * 256 + pixels[:, 1]
        assert torch.equal(order.sort().values, numbers)
        assert torch.equal(torch.cat([y for _, y in found]), several_chunks.train_labels[order])
        orders.append(order)
    assert not torch.equal(*orders)
    assert not torch.equal(orders[0], numbers)


@pytest.mark.parametrize(
    ("num_workers", "start"), [(1, None), (2, None), (2, "fork"), (2, "spawn")]
)
def test_batches_do_not_depend_on_the_workers(several_chunks, expected, num_workers, start):
    loader, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers, start)
    assert same(batches(loader, 1), expected[1])
    assert same(batches(loader, 2), expected[2])


def test_an_epoch_does_not_depend_on_what_ran_before(several_chunks, expected):
    loader, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    torch.manual_seed(123)
    assert same(batches(loader, 2), expected[2])  # epoch 2 first
    loader.set_epoch(1)
    list(itertools.islice(loader, 70))  # a broken-off epoch
    assert same(batches(loader, 1), expected[1])
    assert same(batches(loader, 2), expected[2])
    assert not same(expected[1], expected[2])


def test_another_seed_gives_other_batches(several_chunks, expected):
    loader, _ = make_loaders(several_chunks, TrainingConfig(seed=43), CPU, num_workers=0)
    assert not same(batches(loader, 1), expected[1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterating_moves_no_generator_of_the_main_process(several_chunks, num_workers):
    train, test = make_loaders(several_chunks, CONFIG, CPU, num_workers)
    before = torch.get_rng_state()
    list(train), list(test)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_do_not_depend_on_the_number_of_threads(several_chunks, expected):
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            loader, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=0)
            assert same(batches(loader, 1), expected[1])
    finally:
        torch.set_num_threads(threads)


def test_workers_start_once_and_none_outlives_its_loader(several_chunks):
    before = set(multiprocessing.active_children())
    loader, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    batches(loader, 1)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    batches(loader, 2)
    assert set(multiprocessing.active_children()) - before == workers
    del loader
    gc.collect()
    deadline = time.monotonic() + 10
    while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in workers)


def test_the_test_loader_gives_the_images_in_order_and_unchanged(several_chunks):
    _, test = make_loaders(several_chunks, CONFIG, CPU)
    found = list(test)
    assert len(found) == len(test)
    images = torch.cat([images for images, _ in found])
    expected = (several_chunks.test_images.float() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(images, expected)
    assert torch.equal(torch.cat([labels for _, labels in found]), several_chunks.test_labels)


@pytest.mark.parametrize("batch_size", [1, 32, 50, 5000])
def test_any_batch_size_works(several_chunks, batch_size):
    config = TrainingConfig(batch_size=batch_size)
    loader, _ = make_loaders(several_chunks, config, CPU, num_workers=0)
    sizes = [len(labels) for _, labels in loader]
    assert sum(sizes) == 4500 and set(sizes[:-1]) <= {batch_size}
    assert len(sizes) == len(loader)


def test_the_checksum_tells_data_apart(small):
    def checksum(data):
        return make_loaders(data, CONFIG, CPU, num_workers=0)[0].checksum

    other = small._replace(test_labels=small.test_labels.flip(0))
    assert checksum(small) == checksum(small._replace())
    assert len({checksum(small), checksum(other), checksum(small.first(100))}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": lambda t: t.float()}, r"train images are torch.float32"),
        ({"test_images": lambda t: t.squeeze(1)}, r"test images are torch.uint8 \[100, 28, 28\]"),
        ({"train_labels": lambda t: t[:-1]}, r"train labels are torch.int64 \[319\] for 320"),
        ({"test_labels": lambda t: t + 5}, "test labels run from 5 to 14"),
        ({"train_images": lambda t: t[:0], "train_labels": lambda t: t[:0]}, r"\[0\] for 0 images"),
    ],
)
def test_data_that_is_no_mnist_is_refused(small, change, message):
    changed = {name: how(getattr(small, name)) for name, how in change.items()}
    with pytest.raises(ValueError, match=message):
        make_loaders(small._replace(**changed), CONFIG, CPU)


def test_a_number_of_workers_that_makes_no_sense_is_refused(small):
    with pytest.raises(ValueError, match="num_workers is -1"):
        make_loaders(small, CONFIG, CPU, num_workers=-1)
