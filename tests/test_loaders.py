"""Augmentation, compared with torchvision's; loaders: the same batches whatever happens."""

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image
from torchvision.transforms import InterpolationMode

import DataPipeline
from DataPipeline import AUGMENTATIONS, MNIST, ChunkLoader, augment, make_loaders
from helpers.config import TrainingConfig
from tests.helpers import CPU, TorchTo, wait_for

CONFIG = TrainingConfig()
STRONG = {"rotation": 30, "shift": 0.2, "scale": (0.6, 1.4), "shear": 20, "jitter": 0.6}


@pytest.fixture(scope="module")
def digits(mnist):
    return mnist.train_images[:200]


@pytest.fixture
def moves(monkeypatch):
    """Lists the name and arguments of each move that augment makes."""
    calls = []

    def listed(name, move):
        return lambda pixels, *args: calls.append((name, *args)) or move(pixels, *args)

    for name in ("rotate", "affine", "blend"):
        monkeypatch.setattr(DataPipeline, name, listed(name, getattr(DataPipeline, name)))
    return calls


def by_torchvision(picture, moves, i):
    """torchvision's transforms of the i-th image, with the numbers that augment drew for it."""
    (_, angle, how), (_, *numbers, _), *jitter = moves
    x, y, scale, shear = (number[i].item() for number in numbers)
    picture = reference.rotate(picture, angle[i].item(), InterpolationMode(how))
    picture = reference.affine(picture, 0, [x, y], scale, [shear, 0.0], InterpolationMode(how))
    for _, factor, average, _ in jitter:
        adjust = reference.adjust_contrast if average else reference.adjust_brightness
        picture = adjust(picture, factor[i].item())
    return picture


@pytest.mark.parametrize("changes", [{}, STRONG])
def test_augmented_images_are_torchvisions_image_by_image(digits, moves, changes):
    augmented = augment(digits, 1, replace(AUGMENTATIONS["page"], **changes))
    expected = [by_torchvision(digit / 255, moves, i) for i, digit in enumerate(digits)]
    torch.testing.assert_close(augmented, torch.stack(expected), atol=5e-5, rtol=0)
    assert (augmented - digits / 255).abs().mean() > 0.01


@pytest.mark.parametrize("changes", [{}, STRONG])
def test_the_originals_are_torchvisions_of_8_bit_pictures(digits, moves, changes):
    augmented = 255 * augment(digits, 1, replace(AUGMENTATIONS["original"], **changes))
    pictures = [Image.fromarray(digit[0].numpy()) for digit in digits]
    expected = [np.array(by_torchvision(p, moves, i)) for i, p in enumerate(pictures)]
    differ = augmented[:, 0] != torch.from_numpy(np.stack(expected))
    # Pillow calculates in doubles: midway between two pixels it may take the other.
    assert differ.sum() <= 1e-4 * differ.numel()


@pytest.mark.parametrize("name", ["page", "original"])
def test_parameters_fill_their_ranges_and_jitter_comes_in_either_order(moves, name):
    """Each image has its own, of every one."""
    draws, page = 4000, name == "page"
    augment(torch.zeros(draws, 1, 28, 28, dtype=torch.uint8), 1, AUGMENTATIONS[name])
    assert [name for name, *_ in moves] == ["rotate", "affine", "blend", "blend", "blend"]
    (_, angle, how), (_, *shifts, scale, shear, also), *jitter = moves
    assert how == also == ("bilinear" if page else "nearest")
    before, contrast, after = (factor for _, factor, *_ in jitter)
    assert [average for _, _, average, _ in jitter] == [False, True, False]
    assert {eight_bit for *_, eight_bit in jitter} == {not page}
    assert bool(((before == 1) != (after == 1)).all())  # brightness once: before or after
    assert 0.45 < (before == 1).float().mean() < 0.55
    for values, low, high in (
        (angle, -5, 5),
        (scale, 0.9, 1.1),
        (shear, -5 if page else -10, 5 if page else 10),
        (before * after, 0.9, 1.1),
        (contrast, 0.9, 1.1),
        *((shift, -1.4, 1.4) for shift in shifts if page),
    ):
        extremes = [values.min().item(), values.max().item()]
        assert extremes == pytest.approx([low, high], abs=(high - low) / 100)
        assert abs(values.mean() - (low + high) / 2) < (high - low) / 50
        assert len(values.unique()) > 0.9 * draws
    for shift in shifts if not page else []:  # of 2.8 pixels, 1 goes to 0 and 0.9 to each side
        assert shift.unique().tolist() == [-1, 0, 1]
        assert (shift == 0).float().mean() == pytest.approx(1 / 2.8, abs=0.03)
    parameters = torch.stack([angle, *shifts, scale, shear, before * after, contrast])
    assert (torch.corrcoef(parameters) - torch.eye(7)).abs().max() < 0.06


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmenting_depends_on_the_seed_alone_and_moves_no_generator(digits, name):
    before = torch.get_rng_state()
    first = augment(digits, 7, AUGMENTATIONS[name])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(augment(digits, 7, AUGMENTATIONS[name]), first)
    assert not torch.equal(augment(digits, 8, AUGMENTATIONS[name]), first)
    assert first.dtype == torch.float32 and first.shape == digits.shape
    assert first.min() >= 0 and first.max() <= 1


# --- loaders --------------------------------------------------------------------------------------


def derived(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def by_hand(data, epoch, config=CONFIG, chunk=128, plain=False):
    """An epoch's batches by their definition; of the project's code only augment."""
    generator = torch.Generator().manual_seed(derived(config.seed, epoch))
    order = torch.randperm(len(data.train_images), generator=generator)
    images = []
    for number, indices in enumerate(order.split(chunk)):
        seed, digits = derived(config.seed, epoch, number), data.train_images[indices]
        how = AUGMENTATIONS[config.augmentation]
        images.append(((digits / 255 if plain else augment(digits, seed, how)) - 0.1307) / 0.3081)
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
    return mnist.subset(300)._replace(
        test_images=mnist.test_images[:600], test_labels=mnist.test_labels[:600]
    )


@pytest.fixture
def expected(several_chunks):
    return {epoch: by_hand(several_chunks, epoch) for epoch in (1, 2, 3)}


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
    train.set_epoch(1)
    outer = iter(train)
    first = next(outer)
    assert len(threads()) <= num_workers and bool(threads()) == bool(num_workers)
    assert same(batches(train, 2), expected[2])  # an epoch within an epoch
    assert same([first, *outer], expected[1])
    assert len(list(test)) == len(test) == 3 and len(train) == len(expected[1]) == 10
    assert torch.equal(torch.get_rng_state(), before)
    wait_for(lambda: not threads(), seconds=10)


def test_each_iteration_of_an_own_loop_is_the_next_epoch(several_chunks, expected):
    train, _ = make_loaders(several_chunks, num_workers=0)
    assert train.epoch == 1 and train.batch_size == 32
    for epoch in (1, 2, 3):
        assert same(list(train), expected[epoch])
    next(iter(train))  # a look at one batch counts, too
    assert train.epoch == 5
    assert same(batches(train, 2), expected[2]) and same(list(train), expected[3])


@pytest.mark.parametrize(
    ("config", "chunk", "plain"),
    [
        (TrainingConfig(seed=43, batch_size=1), 128, False),
        (TrainingConfig(batch_size=50), 150, False),
        (TrainingConfig(batch_size=500), 500, False),
        (TrainingConfig(augmentation="original"), 128, False),
        (TrainingConfig(augmentation="narrow", epochs=2), 128, False),  # an own loop goes on
        (TrainingConfig(epochs=4, plain_epochs=1), 128, False),
        (TrainingConfig(epochs=4, plain_epochs=2), 128, True),
        (TrainingConfig(epochs=2, plain_epochs=1), 128, True),
    ],
)
def test_seed_batch_size_augmentation_and_plain_epochs_are_the_configs(
    several_chunks, config, chunk, plain
):
    train, _ = make_loaders(several_chunks, config, CPU, num_workers=0)
    third = batches(train, 3)
    assert same(third, by_hand(several_chunks, 3, config, chunk, plain))
    assert len(third) == len(train) and train.batch_size == config.batch_size


def test_chunks_have_about_2048_images_of_which_no_two_are_augmented_alike(mnist):
    digit = mnist.train_images[:1].expand(2200, -1, -1, -1)
    data = mnist.subset(2200)._replace(train_images=digit)
    for size, chunk in ((32, 2048), (50, 2050)):
        config = TrainingConfig(batch_size=size)
        train, _ = make_loaders(data, config, CPU, num_workers=0)
        first = batches(train, 1)
        assert same(first, by_hand(data, 1, config, chunk))
    both = torch.cat([images for images, _ in first + list(train)])
    assert len(both.unique(dim=0)) == 4400


def test_an_error_in_a_thread_is_raised_and_ends_them_all(several_chunks, monkeypatch, threads):
    monkeypatch.setattr(DataPipeline, "augment", lambda *_: 1 / 0)
    train, _ = make_loaders(several_chunks, CONFIG, CPU, num_workers=2)
    with pytest.raises(ZeroDivisionError):
        list(train)
    wait_for(lambda: not threads(), seconds=10)


def test_unaugmented_and_test_images_come_in_order_and_unchanged(several_chunks):
    train, test = make_loaders(several_chunks, CONFIG, CPU)
    for loader, images, labels in (
        (train.unaugmented(), *several_chunks[:2]),
        (test, *several_chunks[2:]),
    ):
        for _ in range(2):
            inputs, targets = map(torch.cat, zip(*loader, strict=True))
            torch.testing.assert_close(inputs, (images.float() / 255 - 0.1307) / 0.3081)
            assert torch.equal(targets, labels)
        assert isinstance(loader, ChunkLoader) and loader.checksum == train.checksum
        assert len(next(iter(loader))[0]) == loader.batch_size == 250


def test_an_accelerator_gets_raw_images_and_augments_them_without_threads(
    several_chunks, expected, monkeypatch, threads
):
    to = TorchTo(monkeypatch)
    train, test = make_loaders(several_chunks, CONFIG, "cuda:0", num_workers=2)
    first, rest = next(epoch := iter(train)), [batch for batch in epoch if not threads()]
    assert same([first, *rest], expected[1]) and list(test)
    assert {str(target) for target, _ in to.moves} == {"cuda:0"}
    _, elsewhere = make_loaders(several_chunks, CONFIG, "meta")
    assert all(part.device.type == "meta" for part in next(iter(elsewhere)))


def test_the_checksum_differs_for_other_data(small):
    def checksum(data):
        return make_loaders(data, CONFIG, CPU, num_workers=0)[0].checksum

    others = [small._replace(**{name: getattr(small, name).flip(0)}) for name in small._fields]
    blank = [torch.zeros_like(tensor) for tensor in small]
    others += [small.subset(100), MNIST(*blank), MNIST(*blank[2:], *blank[:2])]
    assert checksum(small) == checksum(MNIST(*(tensor.clone() for tensor in small)))
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
        ({"train_images": lambda t: t.numpy(), "train_labels": list}, "images ndarray .* list;"),
    ],
)
def test_data_of_another_kind_is_refused_in_one_sentence(small, change, facts):
    changed = {name: how(getattr(small, name)) for name, how in change.items()}
    with pytest.raises(ValueError, match=f"^the [^\n]*{facts}[^\n]*expected [^\n]*9.$"):
        make_loaders(small._replace(**changed), CONFIG, CPU)


def test_an_unknown_augmentation_and_a_negative_number_of_threads_are_refused(small):
    with pytest.raises(ValueError, match="no augmentation 'none'; choose from page, original, "):
        make_loaders(small, TrainingConfig(augmentation="none"), CPU)
    with pytest.raises(ValueError, match="num_workers is -1; expected 0 or more threads"):
        make_loaders(small, CONFIG, CPU, num_workers=-1)
