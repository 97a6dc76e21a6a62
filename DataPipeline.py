"""MNIST on its way into the network: augmentation, and loaders that always give the same batches.

load_mnist, which reads MNIST from the disk, comes from helpers/mnist_files.py.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers.config import TrainingConfig, derive_seed
from helpers.mnist_files import MNIST, load_mnist
from models import CLASSES, IMAGE_SHAPE

__all__ = ["AUGMENTATIONS", "MNIST", "ChunkLoader", "augment", "load_mnist", "make_loaders"]

# --- augmentation ---------------------------------------------------------------------------------

MEAN, STD = 0.1307, 0.3081  # published; of the training images' pixels in [0, 1]


@dataclass(frozen=True)
class Augmentation:
    """torchvision's RandomRotation, RandomAffine and ColorJitter, in this order, for digits."""

    rotation: float = 5.0  # degrees, either way
    shift: float = 0.05  # of the side, either way, along each axis
    scale: tuple[float, float] = (0.9, 1.1)
    shear: float = 5.0  # degrees, either way, along x
    jitter: float = 0.1  # of brightness and of contrast, either way
    resampling: str = "bilinear"
    whole_pixels: bool = False  # shifts, as torchvision rounds them
    eight_bit: bool = False  # pictures between the steps, as Pillow has them


# The publication's page names the transforms; ranges and resampling of "page" are our guess, those
# of "original" its notebooks'. The last two are for the one-cycle recipe to choose from.
AUGMENTATIONS = {
    "page": Augmentation(),
    "original": Augmentation(shear=10.0, resampling="nearest", whole_pixels=True, eight_bit=True),
    "wide": Augmentation(rotation=10.0, shift=0.1, shear=10.0),
    "narrow": Augmentation(rotation=2.5, shift=0.05, scale=(0.95, 1.05), shear=2.5, jitter=0.0),
}


def augment(
    images: torch.Tensor, seed: int, augmentation: Augmentation = AUGMENTATIONS["page"]
) -> torch.Tensor:
    """Rotate, shift, scale, shear and jitter each image at random, by the seed alone.

    images: uint8 [N, 1, 28, 28], on any device. Returns float32 [N, 1, 28, 28] in [0, 1].
    """
    a, n = augmentation, len(images)
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    angle, furthest = draw(-a.rotation, a.rotation), a.shift * IMAGE_SHAPE[-1]
    shift_x, shift_y = (draw(-furthest, furthest) for _ in range(2))
    if a.whole_pixels:
        shift_x, shift_y = shift_x.round(), shift_y.round()
    scale, shear = draw(*a.scale), draw(-a.shear, a.shear)
    brightness, contrast = (draw(1 - a.jitter, 1 + a.jitter) for _ in range(2))
    brightness_first = draw(0, 1) < 0.5

    pixels = rotate(images.float(), angle, a.resampling)
    pixels = affine(pixels, shift_x, shift_y, scale, shear, a.resampling)
    # Contrast, and brightness before or after it: the other time its factor is 1.
    before = torch.where(brightness_first, brightness, 1.0)
    after = torch.where(brightness_first, 1.0, brightness)
    for factor, average in ((before, False), (contrast, True), (after, False)):
        pixels = blend(pixels, factor, average, a.eight_bit)
    return pixels / 255


Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # of a matrix per image, float32 [N] each


def rotate(
    pixels: torch.Tensor,
    angle: torch.Tensor,
    resampling: str,
    shift_x: torch.Tensor | float = 0.0,
    shift_y: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Each of float32 [N, 1, H, H] turned counterclockwise (degrees), then shifted by pixels."""
    sine, cosine = angle.deg2rad().sin(), angle.deg2rad().cos()
    across = (cosine, -sine, sine * shift_y - cosine * shift_x)
    return _resample(pixels, across, (sine, cosine, -sine * shift_x - cosine * shift_y), resampling)


def affine(
    pixels: torch.Tensor,
    shift_x: torch.Tensor,
    shift_y: torch.Tensor,
    scale: torch.Tensor,
    shear: torch.Tensor,
    resampling: str,
) -> torch.Tensor:
    """Each of float32 [N, 1, H, H] sheared along x (degrees), scaled, and shifted by pixels."""
    slope = shear.deg2rad().tan()
    across = (1 / scale, slope / scale, -(shift_x + slope * shift_y) / scale)
    return _resample(pixels, across, (0 * scale, 1 / scale, -shift_y / scale), resampling)


def _resample(pixels: torch.Tensor, across: Row, down: Row, resampling: str) -> torch.Tensor:
    """Each place (x, y), in pixels from the center, sampled at (across, down) . (x, y, 1)."""
    side = pixels.shape[-1]
    x = torch.arange(side) + 0.5 - side / 2
    coordinates = [
        torch.add((a[:, None] * x)[:, None, :], (b[:, None] * x + c[:, None])[:, :, None])
        for a, b, c in (across, down)
    ]
    grid = torch.stack(coordinates, dim=-1).mul_(2 / side)  # from -1 to 1, as grid_sample has it
    return F.grid_sample(pixels, grid.to(pixels.device), resampling, align_corners=False)


def blend(
    pixels: torch.Tensor, factor: torch.Tensor, average: bool, eight_bit: bool
) -> torch.Tensor:
    """Each of float32 [N, 1, H, W], 0 to 255, times its factor around black or its average."""
    gray = pixels.mean(dim=(1, 2, 3), keepdim=True) if average else 0.0
    if average and eight_bit:
        gray = (gray + 0.5).floor()
    pixels = (gray + factor.to(pixels.device).view(-1, 1, 1, 1) * (pixels - gray)).clamp(0, 255)
    return pixels.floor() if eight_bit else pixels


def normalize(images: torch.Tensor) -> torch.Tensor:
    """(images - 0.1307) / 0.3081, for float32 images in [0, 1] of any shape."""
    return (images - MEAN) / STD


# --- loaders --------------------------------------------------------------------------------------

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
TRAIN_CHUNK = 2048  # images that are augmented at once, rounded up to whole batches
TEST_CHUNK = 250  # with more of them the activations leave the processor's cache


class ChunkLoader(DataLoader):
    """A DataLoader whose batches threads prepare ahead in whole chunks.

    A batch is (images float32 [B, 1, 28, 28], normalized, labels int64 [B]) on the device. What an
    epoch gives depends on the data, the config and set_epoch: not on the threads or on what ran
    before. Without set_epoch, each iteration is the next epoch.

    images, labels: uint8 [N, 1, 28, 28] and int64 [N].
    checksum: the SHA-256 of the data that the images are part of.
    train: whether they are augmented and shuffled, in batches of the config's size.
    config, device, num_workers, own_augment: as for make_loaders.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        config: TrainingConfig,
        device: torch.device,
        checksum: str,
        train: bool,
        num_workers: int = 0,
        own_augment: Augment | None = None,
    ) -> None:
        size = config.batch_size if train else TEST_CHUNK
        super().__init__(TensorDataset(images, labels), size, shuffle=train)
        self.images, self.labels = images, labels
        self.config, self.device, self.checksum, self.train = config, device, checksum, train
        self.num_workers = num_workers if device.type == "cpu" else 0  # an accelerator augments
        self.chunk = size * math.ceil(TRAIN_CHUNK / size) if train else size
        self.own_augment, self.epoch = own_augment, 1
        # Part of a run's identity; an own function is not, as nothing compares two of them.
        self.augmentation = AUGMENTATIONS.get(config.augmentation) if train else None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration gives; fit counts from 1."""
        self.epoch = epoch

    def unaugmented(self) -> ChunkLoader:
        """A loader of the same images in order and without augmentation, to evaluate on."""
        data = (self.images, self.labels, self.config, self.device, self.checksum)
        return ChunkLoader(*data, train=False)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, config, order = self.epoch, self.config, torch.arange(len(self.images))
        self.epoch += 1
        if self.train:
            generator = torch.Generator().manual_seed(derive_seed(config.seed, epoch))
            order = torch.randperm(len(self.images), generator=generator)
        plain = not self.train or config.plain_epochs > max(0, config.epochs - epoch)

        def prepare(chunk: tuple[int, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            number, indices = chunk
            seed, images = derive_seed(config.seed, epoch, number), self.images[indices]
            if plain:
                images = images.to(self.device).float() / 255
            elif self.own_augment:
                images = self.own_augment(images, torch.Generator().manual_seed(seed))
            else:
                images = augment(images.to(self.device), seed, self.augmentation)
            return normalize(images.to(self.device)), self.labels[indices].to(self.device)

        for chunk in _ahead(prepare, enumerate(order.split(self.chunk)), self.num_workers):
            yield from zip(*(tensor.split(self.batch_size) for tensor in chunk), strict=True)


def _ahead(function: Callable, arguments: Iterable, threads: int) -> Iterator:
    """map, where so many threads work on what comes next; torch lets them run side by side."""
    if not threads:
        yield from map(function, arguments)
        return
    arguments = iter(arguments)
    pool = ThreadPoolExecutor(threads)
    try:
        futures = deque(pool.submit(function, a) for a in islice(arguments, threads))
        while futures:
            result = futures.popleft().result()
            for argument in islice(arguments, 1):  # the next one, if there is one
                futures.append(pool.submit(function, argument))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def make_loaders(
    data: MNIST,
    config: TrainingConfig | None = None,
    device: str | torch.device = "cpu",
    num_workers: int = 2,
    own_augment: Augment | None = None,
) -> tuple[ChunkLoader, ChunkLoader]:
    """The train loader (augmented, shuffled) and the test loader (in order) of data.

    data: what load_mnist gives, or a shorter one.
    config: gives seed, batch size and augmentation; the page's protocol unless given.
    device: where the batches are wanted.
    num_workers: threads that augment ahead; 0 for none. An accelerator augments by itself.
    own_augment: in place of the config's augmentation, a function of images, uint8 [N, 1, 28, 28],
        and a generator, that returns float32 [N, 1, 28, 28] in [0, 1]; the config's augmentation
        has to be "own" then.

    Raises ValueError for other data, a negative num_workers, or an unknown augmentation.
    """
    config, device = config or TrainingConfig(), torch.device(device)
    if num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}; expected 0 or more threads.")
    if own_augment and config.augmentation != "own":
        raise ValueError(
            f"own_augment is given and the config's augmentation is {config.augmentation!r}; "
            'expected "own": the history would name another.'
        )
    if config.augmentation not in AUGMENTATIONS and not own_augment:
        choice = f"choose from {', '.join(AUGMENTATIONS)}, or add one to DataPipeline.AUGMENTATIONS"
        raise ValueError(f"there is no augmentation {config.augmentation!r}; {choice}.")
    checksum = hashlib.sha256()
    for part, images, labels in (("train", *data[:2]), ("test", *data[2:])):
        _check_images(part, images, labels)
        for tensor in (images, labels):
            checksum.update(str(tuple(tensor.shape)).encode())
            checksum.update(tensor.contiguous().numpy())
    common = (config, device, checksum.hexdigest())
    train_loader = ChunkLoader(*data[:2], *common, True, num_workers, own_augment)
    return train_loader, ChunkLoader(*data[2:], *common, train=False)


def _check_images(part: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless these are MNIST-like images and their labels."""
    kinds = [
        f"{t.dtype} {list(t.shape)}" if isinstance(t, torch.Tensor) else type(t).__name__
        for t in (images, labels)
    ]
    n = labels.numel() if isinstance(labels, torch.Tensor) else 0
    if n and kinds == [f"torch.uint8 {[n, *IMAGE_SHAPE]}", f"torch.int64 {[n]}"]:
        low, high = labels.aminmax()
        if low >= 0 and high < CLASSES:
            return
        kinds[1] += f" from {low} to {high}"
    raise ValueError(
        f"the {part} set has images {kinds[0]} and labels {kinds[1]}; expected the tensors that "
        "load_mnist gives, not empty: images uint8 [N, 1, 28, 28], labels int64 [N] from 0 to 9."
    )
