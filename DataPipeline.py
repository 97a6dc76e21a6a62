"""MNIST on its way into the network: augmentation, and loaders that always give the same batches.

load_mnist, which reads MNIST from the disk, is handed on from helpers/mnist_files.py.
"""

from __future__ import annotations

import hashlib
import math
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from kornia.augmentation import ColorJitter, RandomAffine, RandomRotation
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from helpers.config import TrainingConfig, derive_seed
from helpers.mnist_files import MNIST, load_mnist

__all__ = ["MNIST", "ChunkLoader", "augment", "load_mnist", "make_loaders", "normalise"]

# --- augmentation ---------------------------------------------------------------------------------

MEAN, STD = 0.1307, 0.3081  # published; of the training images' pixels in [0, 1]

# The published transforms, in their order. Their ranges are our choice (docs/choices.md). kornia
# fills with 0 and is bilinear by default; p = 1 because torchvision's always apply.
AUGMENTATION = nn.Sequential(
    RandomRotation(5.0, p=1.0),
    # Shear as a 4-tuple: with a scalar or a pair the module cannot leave the CPU (kornia issue
    # 4415). Both spell the same: along x only, as torchvision reads them.
    RandomAffine(
        degrees=0.0, translate=(0.05, 0.05), scale=(0.9, 1.1), shear=(-5.0, 5.0, 0.0, 0.0), p=1.0
    ),
    ColorJitter(brightness=0.1, contrast=0.1, p=1.0),
)


def augment(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Rotate, shift, scale, shear and jitter each image at random.

    images: uint8 [N, 1, 28, 28].
    seed: with the images, all that the result depends on; no generator of the caller's is moved.

    Returns float32 [N, 1, 28, 28] in [0, 1].
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed every accelerator's generator too.
        torch.default_generator.manual_seed(seed)
        return AUGMENTATION(images.float() / 255)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(images - 0.1307) / 0.3081, for float32 images in [0, 1] of any shape."""
    return (images - MEAN) / STD


# --- loaders --------------------------------------------------------------------------------------

TRAIN_CHUNK = 2048  # images that a worker augments at once, about; whole batches of them
TEST_CHUNK = 250  # with more of them the activations leave the processor's cache


@dataclass
class _Chunks(Dataset):
    """Chunks of images, ready for the network; what a worker process holds."""

    images: torch.Tensor
    labels: torch.Tensor
    seed: int | None  # None: no augmentation

    def __getitem__(self, key: tuple[int, int, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, chunk, indices = key
        images = self.images[indices]
        if self.seed is None:
            images = images.float() / 255
        else:
            images = augment(images, derive_seed(self.seed, epoch, chunk))
        return normalise(images), self.labels[indices]


@dataclass
class _ChunkSampler(Sampler):
    """(epoch, chunk number, indices) for each chunk of an epoch.

    Workers that persist are not seeded again and keep the dataset they started with, so all that
    an epoch's batches depend on travels with the indices.
    """

    images: int
    chunk: int
    seed: int | None  # None: in order
    epoch: int = 0

    def __iter__(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        epoch = self.epoch  # set_epoch is for the next iteration, not for this one
        if self.seed is None:
            order = torch.arange(self.images)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            order = torch.randperm(self.images, generator=generator)
        for number, indices in enumerate(order.split(self.chunk)):
            yield epoch, number, indices


def _ignore_interrupts(worker: int) -> None:
    """An interrupt is for the main process, which may go on with its workers afterwards."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class ChunkLoader:
    """Batches of images, which worker processes prepare in whole chunks.

    Iterating it gives batches of (images float32 [B, 1, 28, 28], normalised, labels int64 [B]) on
    the device; len() counts them. What an epoch gives depends on the data, the config's seed and
    batch size, and the epoch set by set_epoch: not on the workers or on what ran before.

    images, labels: uint8 [N, 1, 28, 28] and int64 [N].
    config: gives seed and batch size.
    device: a chunk moves there at once.
    checksum: the SHA-256 of the data that the images are part of.
    train: augmented and shuffled, in batches of the config's size; if not, as they are.
    num_workers, multiprocessing_context: as for make_loaders.
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
        multiprocessing_context: str | None = None,
    ) -> None:
        seed = config.seed if train else None
        self.images_per_batch = size = config.batch_size if train else TEST_CHUNK
        chunk = size * math.ceil(TRAIN_CHUNK / size) if train else TEST_CHUNK
        self.config = config
        self.device = device
        self.checksum = checksum
        self._chunks = _Chunks(images, labels, seed)
        self._sampler = _ChunkSampler(len(images), chunk, seed)
        self._new_loader = partial(
            DataLoader,
            self._chunks,
            sampler=self._sampler,
            batch_size=None,  # the sampler's indices are a whole chunk's
            num_workers=num_workers,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_ignore_interrupts,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # otherwise an epoch would draw from the global one
        )
        self._loader = self._new_loader()  # its workers start with its first iteration
        self._epoch = self._batches()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose batches the next iteration gives."""
        self._sampler.epoch = epoch

    def as_they_are(self) -> ChunkLoader:
        """A loader of the same images in order and without augmentation, to evaluate on."""
        images, labels = self._chunks.images, self._chunks.labels
        return ChunkLoader(images, labels, self.config, self.device, self.checksum, train=False)

    def stop_workers(self) -> None:
        """End the worker processes, and an epoch under way; the next one starts new workers."""
        self._epoch.close()  # a traceback may hold it, and it holds its workers
        self._loader = self._new_loader()

    def __len__(self) -> int:
        return math.ceil(len(self._chunks.images) / self.images_per_batch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self._epoch = self._batches()
        return self._epoch

    def _batches(self) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        # An epoch that is broken off, by an interrupt or a dead worker, leaves a new loader behind.
        loader, self._loader = self._loader, self._new_loader()
        for images, labels in loader:
            images = images.to(self.device, non_blocking=True).split(self.images_per_batch)
            labels = labels.to(self.device, non_blocking=True).split(self.images_per_batch)
            yield from zip(images, labels, strict=True)
        self._loader = loader


def make_loaders(
    data: MNIST,
    config: TrainingConfig | None = None,
    device: str | torch.device = "cpu",
    num_workers: int = 2,
    multiprocessing_context: str | None = None,
) -> tuple[ChunkLoader, ChunkLoader]:
    """The train loader (augmented, shuffled) and the test loader (in order) of data.

    data: what load_mnist gives, or a shorter one.
    config: gives seed and batch size; the published protocol unless given.
    device: where the batches are wanted.
    num_workers: processes that augment training images; 0 for none. They start with the first
        epoch, once, and end with their loader.
    multiprocessing_context: how they start, "fork" or "spawn"; None for the platform's way.

    Raises ValueError if data is of another kind or num_workers is negative.
    """
    config = config or TrainingConfig()
    device = torch.device(device)
    sums = hashlib.sha256()
    for part, images, labels in (("train", *data[:2]), ("test", *data[2:])):
        _check_images(part, images, labels)
        for tensor in (images, labels):
            sums.update(str(tuple(tensor.shape)).encode())
            sums.update(tensor.contiguous().numpy())
    common = (config, device, sums.hexdigest())
    train = ChunkLoader(*data[:2], *common, True, num_workers, multiprocessing_context)
    return train, ChunkLoader(*data[2:], *common, False)


def _check_images(part: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless these are MNIST-like images and their labels."""
    match images, labels:
        case (
            torch.Tensor(dtype=torch.uint8, shape=(n, 1, 28, 28)),
            torch.Tensor(dtype=torch.int64, shape=(m,)),
        ) if n == m > 0 and labels.min() >= 0 and labels.max() <= 9:
            return
    values = f" from {labels.min()} to {labels.max()}" if labels.numel() else ""
    raise ValueError(
        f"the {part} set has images {images.dtype} {list(images.shape)} and labels {labels.dtype} "
        f"{list(labels.shape)}{values}; expected images uint8 [N, 1, 28, 28] and labels int64 [N] "
        "from 0 to 9, at least one of them, as load_mnist gives them."
    )
