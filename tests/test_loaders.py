"""Augmentation, held against torchvision's; loaders: the same batches whatever happens."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as reference
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

import DataPipeline
from DataPipeline import (
    AUGMENTATIONS,
    MNIST,
    affine,
    augment,
    blend,
    make_loaders,
    normalize,
    rotate,
)
from helpers.weights import load_weights
from tests.helpers import CPU, PROJECT, TorchTo, bits, build, same_bits, wait_for
from TrainingHelper import PROTOCOLS, TrainingConfig

CONFIG = TrainingConfig()
PAGE, RUN, *OTHERS = AUGMENTATIONS
COUNT = 200  # images, 156,800 pixels
GENERATOR = torch.Generator().manual_seed(1)


def uniform(low, high):
    return torch.empty(COUNT).uniform_(low, high, generator=GENERATOR)


ANGLE, SCALE, SHEAR = uniform(-5, 5), uniform(0.9, 1.1), uniform(-10, 10)
FACTOR = uniform(0.5, 1.5)
ANY = uniform(-1.4, 1.4), uniform(-1.4, 1.4)
SHIFTS = {"bilinear": ANY, "nearest": [shift.round() for shift in ANY]}  # as each setting has them


@pytest.fixture(scope="module")
def digits(mnist):
    return mnist.train_images[:COUNT]


# Ours, and torchvision's of the i-th image.
MOVES = {
    "rotate": (
        lambda x, how: rotate(x, ANGLE, how),
        lambda x, how, i: reference.rotate(x, ANGLE[i].item(), InterpolationMode(how)),
    ),
    "affine": (
        lambda x, how: affine(x, *SHIFTS[how], SCALE, SHEAR, how),
        lambda x, how, i: reference.affine(
            x,
            angle=0,
            translate=[shift[i].item() for shift in SHIFTS[how]],
            scale=SCALE[i].item(),
            shear=[SHEAR[i].item(), 0.0],
            interpolation=InterpolationMode(how),
        ),
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_each_move_is_torchvisions_image_by_image(digits, move):
    ours, theirs = MOVES[move]
    pixels = digits.float()
    moved = ours(pixels, "bilinear")
    expected = torch.stack([theirs(image, "bilinear", i) for i, image in enumerate(pixels)])
    torch.testing.assert_close(moved, expected, atol=0.02, rtol=0)  # of 255 gray levels
    assert (moved - pixels).abs().mean() > 3

    moved = ours(pixels, "nearest")
    expected = torch.stack([theirs(image, "nearest", i) for i, image in enumerate(digits)])
    assert torch.equal(moved, expected.float())
    # Pillow reckons in doubles: midway between two pixels it may take the other.
    pictures = [theirs(Image.fromarray(d[0].numpy()), "nearest", i) for i, d in enumerate(digits)]
    differ = moved[:, 0] != torch.from_numpy(np.stack(pictures))
    assert differ.sum() <= 5e-5 * differ.numel()


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_brightness_and_contrast_are_torchvisions_on_floats_and_pillows_on_8_bits(digits, name):
    average = name == "contrast"
    adjust = getattr(reference, f"adjust_{name}")
    ours = blend(digits.float(), FACTOR, average, eight_bit=False) / 255
    theirs = [adjust(image / 255, f.item()) for image, f in zip(digits, FACTOR, strict=True)]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)

    ours = blend(digits.float(), FACTOR, average, eight_bit=True)[:, 0]
    pictures = [Image.fromarray(image[0].numpy()) for image in digits]
    theirs = [adjust(image, f.item()) for image, f in zip(pictures, FACTOR, strict=True)]
    assert torch.equal(ours, torch.from_numpy(np.stack(theirs)).float())


@pytest.mark.parametrize("setting", [PAGE, RUN])
def test_parameters_fill_their_ranges_and_jitter_comes_in_either_order(monkeypatch, setting):
    """Each image has its own, of every one."""
    draws, calls = 4000, []

    def remember(name):
        return lambda pixels, *rest: calls.append((name, *rest)) or pixels

    for name in ("rotate", "affine", "blend"):
        monkeypatch.setattr(DataPipeline, name, remember(name))
    augment(torch.zeros(draws, 1, 28, 28, dtype=torch.uint8), 1, AUGMENTATIONS[setting])
    assert [name for name, *_ in calls] == ["rotate", "affine", "blend", "blend", "blend"]
    (_, angle, how), (_, *shifts, scale, shear, also), *jitter = calls
    assert how == also == ("bilinear" if setting == PAGE else "nearest")
    before, contrast, after = (factor for _, factor, *_ in jitter)
    assert [average for _, _, average, _ in jitter] == [False, True, False]
    assert {eight_bit for *_, eight_bit in jitter} == {setting == RUN}
    assert bool(((before == 1) != (after == 1)).all())  # brightness once: before or after
    assert 0.45 < (before == 1).float().mean() < 0.55
    brightness = before * after
    for values, low, high in (
        (angle, -5, 5),
        (scale, 0.9, 1.1),
        (shear, *((-5, 5) if setting == PAGE else (-10, 10))),
        (brightness, 0.9, 1.1),
        (contrast, 0.9, 1.1),
        *((shift, -1.4, 1.4) for shift in shifts if setting == PAGE),
    ):
        extremes = [values.min().item(), values.max().item()]
        assert extremes == pytest.approx([low, high], abs=(high - low) / 100)
        assert abs(values.mean() - (low + high) / 2) < (high - low) / 50
        assert len(values.unique()) > 0.9 * draws
    if setting == RUN:
        for shift in shifts:  # of 2.8 pixels, 1 goes to 0 and 0.9 each to either side
            assert shift.unique().tolist() == [-1, 0, 1]
            assert (shift == 0).float().mean() == pytest.approx(1 / 2.8, abs=0.03)
    parameters = torch.stack([angle, *shifts, scale, shear, brightness, contrast])
    assert (torch.corrcoef(parameters) - torch.eye(7)).abs().max() < 0.06


@pytest.mark.parametrize("setting", AUGMENTATIONS)
def test_augmenting_depends_on_the_seed_alone_and_moves_no_generator(digits, setting):
    before = torch.get_rng_state()
    first = augment(digits, 7, AUGMENTATIONS[setting])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(augment(digits, 7, AUGMENTATIONS[setting]), first)
    assert not torch.equal(augment(digits, 8, AUGMENTATIONS[setting]), first)
    assert first.dtype == torch.float32 and first.shape == digits.shape
    assert first.min() >= 0 and first.max() <= 1
    levels = 255 * first
    assert torch.equal(levels, levels.round()) == (setting == RUN)


@pytest.mark.slow
def test_a_trained_network_cannot_tell_our_augmentation_from_torchvisions_on_pictures(mnist, tell):
    """Its mean loss over the same 20,000 images, as run: the noise is their differences'."""
    images, labels = mnist.train_images[:20_000], mnist.train_labels[:20_000]
    network = load_weights(PROJECT / "results" / "final.safetensors")
    theirs = transforms.Compose(
        [
            transforms.RandomRotation(5),
            transforms.RandomAffine(0, (0.05, 0.05), (0.9, 1.1), shear=10),
            transforms.ColorJitter(0.1, 0.1),
            transforms.PILToTensor(),
        ]
    )
    torch.manual_seed(1)
    pictures = torch.stack([theirs(Image.fromarray(image[0].numpy())) for image in images])

    def losses(pixels):
        with torch.inference_mode():
            logits = torch.cat([network(normalize(part)) for part in pixels.split(500)])
        return F.cross_entropy(logits, labels, reduction="none").double()

    there, here = losses(pictures / 255), losses(augment(images, 1, AUGMENTATIONS[RUN]))
    noise = (here - there).std() / math.sqrt(len(images))  # of the difference of the two means
    tell(f"mean loss {there.mean():.5f} by torchvision, {here.mean():.5f} here, +- {noise:.5f}")
    assert abs(here.mean() - there.mean()) < 3 * noise < 0.25 * there.mean()


# --- loaders --------------------------------------------------------------------------------------


def derived(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def by_hand(data, epoch, config=CONFIG, chunk=128):
    """An epoch's batches by their definition; of the project's code only augment."""
    generator = torch.Generator().manual_seed(derived(config.seed, epoch))
    order = torch.randperm(len(data.train_images), generator=generator)
    images = []
    for number, indices in enumerate(order.split(chunk)):
        seed = derived(config.seed, epoch, number)
        digits = data.train_images[indices]
        if 0 < config.plain_from <= epoch:
            digits = digits / 255
        else:
            name = config.augmentation or config.setting
            digits = augment(digits, seed, AUGMENTATIONS[name])
        images.append((digits - 0.1307) / 0.3081)
    labels = data.train_labels[order].split(config.batch_size)
    return list(zip(torch.cat(images).split(config.batch_size), labels, strict=True))


def batches(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.fixture
def several_chunks(mnist, monkeypatch):
    """Two training chunks and a part of a third, whose last batch is incomplete."""
    monkeypatch.setattr(DataPipeline, "TRAIN_CHUNK", 128)
    return mnist.first(300)._replace(
        test_images=mnist.test_images[:600], test_labels=mnist.test_labels[:600]
    )


@pytest.fixture
def expected(several_chunks):
    return {epoch: by_hand(several_chunks, epoch) for epoch in (1, 2)}


@pytest.fixture
def threads():
    """A function that gives the threads that were started since."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) - before


@pytest.mark.parametrize("num_workers", [0, 2, 5])
def test_an_epoch_is_the_one_made_by_hand_whatever_ran_before_and_leaves_no_thread(
    several_chunks, expected, num_workers, threads
):
    train, test = make_loaders(several_chunks, CONFIG, CPU, num_workers)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert same(batches(train, 2), expected[2])  # epoch 2 first
    train.set_epoch(1)
    list(itertools.islice(train, 5))  # a broken-off epoch
    wait_for(lambda: not threads(), seconds=10)
    outer = iter(train)
    first = next(outer)
    assert len(threads()) <= num_workers and bool(threads()) == bool(num_workers)
    assert same(batches(train, 2), expected[2])  # an epoch within an epoch
    assert same([first, *outer], expected[1])
    assert len(list(test)) == len(test) and len(train) == len(expected[1])
    assert torch.equal(torch.get_rng_state(), before)
    wait_for(lambda: not threads(), seconds=10)


@pytest.mark.parametrize(
    ("config", "chunk"),
    [
        (TrainingConfig(seed=43, batch_size=1), 128),
        (TrainingConfig(batch_size=50), 150),
        (TrainingConfig(batch_size=500), 500),
        (PROTOCOLS["as run"], 128),
        (TrainingConfig(augmentation="wide", plain_from=4), 128),
        (TrainingConfig(setting="recipe", plain_from=3, augmentation="narrow"), 128),
    ],
)
def test_any_seed_batch_size_and_setting_work(several_chunks, config, chunk):
    train, _ = make_loaders(several_chunks, config, CPU, num_workers=0)
    found = batches(train, 3)
    assert same(found, by_hand(several_chunks, 3, config, chunk)) and len(found) == len(train)


def test_teachers_give_their_share_of_the_labels_of_the_images_as_augmented(small):
    teachers = [build("none_bn", seed).eval() for seed in (1, 2)]
    config = TrainingConfig(distillation=0.7)
    before = [bits(teacher) for teacher in teachers]
    taught, test = make_loaders(small, config, CPU, 2, teachers)
    alone, _ = make_loaders(small, CONFIG, CPU, 2)
    for (images, shares), (same_images, labels) in zip(
        batches(taught, 1), batches(alone, 1), strict=True
    ):
        assert torch.equal(images, same_images) and shares.dtype == torch.float32
        with torch.no_grad():
            said = torch.stack([F.softmax(teacher(images), 1) for teacher in teachers]).mean(0)
        expected = 0.7 * said + 0.3 * F.one_hot(labels, 10)
        torch.testing.assert_close(shares, expected, atol=1e-5, rtol=0)
    assert not shares.requires_grad
    assert all(same_bits(bits(t), b) for t, b in zip(teachers, before, strict=True))
    assert next(iter(test))[1].dtype == next(iter(taught.as_they_are()))[1].dtype == torch.int64
    others = [make_loaders(small, config, CPU, 0, of)[0] for of in (teachers[:1], teachers[1:])]
    assert len({loader.checksum for loader in (taught, alone, *others)}) == 4
    for asked, given in ((CONFIG, teachers), (config, [])):
        with pytest.raises(ValueError, match=f"{len(given)} teachers, .*distillation is"):
            make_loaders(small, asked, CPU, 0, given)
    with pytest.raises(ValueError, match="training mode"):
        make_loaders(small, config, CPU, 0, [build("none_bn")])


@pytest.mark.parametrize("options", [{"augmentation": "none"}, {"setting": "recipe"}])
def test_an_unknown_augmentation_is_refused_with_those_there_are(small, options):
    with pytest.raises(ValueError, match="expected one of from the page, as run, wide, narrow"):
        make_loaders(small, TrainingConfig(**options), CPU)


def test_chunks_have_about_2048_images_of_which_no_two_are_augmented_alike(mnist):
    digit = mnist.train_images[:1].expand(2200, -1, -1, -1)
    data = mnist.first(2200)._replace(train_images=digit)
    for size, chunk in ((32, 2048), (50, 2050)):
        config = TrainingConfig(batch_size=size)
        train, _ = make_loaders(data, config, CPU, num_workers=0)
        first = batches(train, 1)
        assert same(first, by_hand(data, 1, config, chunk))
    both = torch.cat([images for images, _ in first + batches(train, 2)])
    assert len(both.unique(dim=0)) == 4400


def test_an_error_in_a_thread_is_raised_and_ends_them_all(several_chunks, monkeypatch, threads):
    monkeypatch.setattr(DataPipeline, "augment", lambda *_: 1 / 0)
    train, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    with pytest.raises(ZeroDivisionError):
        list(train)
    wait_for(lambda: not threads(), seconds=10)


def test_images_as_they_are_come_in_order_and_unchanged(several_chunks):
    train, test = make_loaders(several_chunks, CONFIG, CPU)
    data = several_chunks
    for loader, images, labels in (
        (test, data.test_images, data.test_labels),
        (train.as_they_are(), data.train_images, data.train_labels),
    ):
        found = list(loader)
        assert len(found) == len(loader) and loader.checksum == train.checksum
        expected = (images.float() / 255 - 0.1307) / 0.3081
        torch.testing.assert_close(torch.cat([images for images, _ in found]), expected)
        assert torch.equal(torch.cat([labels for _, labels in found]), labels)


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_an_accelerator_gets_plain_images_and_augments_them_without_threads(
    several_chunks, expected, monkeypatch, threads, device
):
    to = TorchTo(monkeypatch)
    train, test = make_loaders(several_chunks, CONFIG, device, num_workers=2)
    train.set_epoch(1)
    found = [(next(loader := iter(train))), *(batch for batch in loader if not threads())]
    assert same(found, expected[1]) and list(test)
    assert {str(target) for target, _ in to.moves} == {device}
    assert not any(non_blocking for _, non_blocking in to.moves)
    _, elsewhere = make_loaders(several_chunks, CONFIG, "meta")
    assert all(part.device.type == "meta" for part in next(iter(elsewhere)))


def test_the_checksum_tells_data_apart(small):
    def checksum(data):
        return make_loaders(data, CONFIG, CPU, num_workers=0)[0].checksum

    others = [small._replace(**{name: getattr(small, name).flip(0)}) for name in small._fields]
    blank = [torch.zeros_like(tensor) for tensor in small]
    others += [small.first(100), MNIST(*blank), MNIST(*blank[2:], *blank[:2])]
    assert checksum(small) == checksum(small._replace())
    assert len({checksum(data) for data in (small, *others)}) == 8


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"train_images": lambda t: t.float()}, r"train .*torch.float32 \[320, 1, 28"),
        ({"test_images": lambda t: t.squeeze(1)}, r"test .*torch.uint8 \[100, 28, 28"),
        ({"train_labels": lambda t: t[:-1]}, r"labels torch.int64 \[319\]"),
        ({"test_labels": lambda t: t + (t == 9)}, "from 0 to 10"),
        ({"test_labels": lambda t: t - 1}, "from -1 to 8"),
        ({"train_images": lambda t: t[:0], "train_labels": lambda t: t[:0]}, r"int64 \[0\]"),
    ],
)
def test_data_that_is_no_mnist_is_refused(small, change, facts):
    changed = {name: how(getattr(small, name)) for name, how in change.items()}
    with pytest.raises(ValueError, match=facts):
        make_loaders(small._replace(**changed), CONFIG, CPU)


def test_a_negative_number_of_threads_is_refused(small):
    with pytest.raises(ValueError, match="num_workers is -1"):
        make_loaders(small, CONFIG, CPU, num_workers=-1)
