"""MNIST on its way into the network: augmentation, and loaders that give the same batches always.

load_mnist, which reads MNIST from the disk, is handed on from helpers/mnist_files.py.
"""

from __future__ import annotations

import hashlib
import math
import signal
from collections.abc import Iterator

import torch
from kornia.augmentation import ColorJitter, RandomAffine, RandomRotation
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from helpers.config import TrainingConfig, derive_seed
from helpers.mnist_files import MNIST, load_mnist

__all__ = ["MNIST", "ChunkLoader", "augment", "load_mnist", "make_loaders", "normalise"]

# --- augmentation ---------------------------------------------------------------------------------

MEAN, STD = 0.1307, 0.3081  # published; of the training images' pixels in [0, 1]

# The published transforms, in their order. Their ranges are our choice (the README says so);
# kornia fills with 0 and is bilinear by default, and p = 1 as torchvision's always apply.
AUGMENTATION = nn.Sequential(
    RandomRotation(5.0, p=1.0),
    # Shear as a 4-tuple: with a scalar or a pair the module cannot leave the CPU (kornia issue
    # 4415). Both spell the same: along x only, as torchvision reads them.
    RandomAffine(
        degrees=0.0,
        translate=(0.05, 0.05),
        scale=(0.9, 1.1),
        shear=(-5.0, 5.0, 0.0, 0.0),
        p=1.0,
    ),
    ColorJitter(brightness=0.1, contrast=0.1, p=1.0),
)


def augment(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Images uint8 [N, 1, 28, 28], each rotated, shifted, scaled, sheared and jittered at random.

    Returns float32 [N, 1, 28, 28] in [0, 1], which depends on the images and the seed only; no
    generator of the caller's is moved.
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


class _Chunks(Dataset):
    """Chunks of images, ready for the network; what a worker process holds."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, seed: int | None) -> None:
        self.images = images
        self.labels = labels
        self.seed = seed  # None: no augmentation

    def __getitem__(self, key: tuple[int, int, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, chunk, indices = key
        images = self.images[indices]
        if self.seed is None:
            images = images.float() / 255
        else:
            images = augment(images, derive_seed(self.seed, epoch, chunk))
        return normalise(images), self.labels[indices]


class _ChunkSampler(Sampler):
    """(epoch, chunk number, indices) for each chunk of an epoch.

    Workers that persist are not seeded again and keep the dataset they started with, so all that
    an epoch's batches depend on travels with the indices.
    """

    def __init__(self, images: int, chunk: int, seed: int | None) -> None:
        self.images = images
        self.chunk = chunk
        self.seed = seed  # None: in order
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.images / self.chunk)

    def __iter__(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        if self.seed is None:
            order = torch.arange(self.images)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
            order = torch.randperm(self.images, generator=generator)
        for number, indices in enumerate(order.split(self.chunk)):
            yield self.epoch, number, indices


def _ignore_interrupts(worker: int) -> None:
    """An interrupt is for the main process, which may go on with its workers afterwards."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class ChunkLoader:
    """Batches of images, which worker processes prepare in whole chunks.

    Iterating it gives batches of (images float32 [B, 1, 28, 28], normalised, labels int64 [B]) on
    the device, which a chunk moves to at once; len() counts the batches. What an epoch gives
    depends on the data, the config's seed and batch size, and the epoch set by set_epoch: not on
    the workers or on what ran before. checksum is the SHA-256 of the data it was made for.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        config: TrainingConfig,
        device: torch.device,
        checksum: str,
        train: bool,
        **options: object,
    ) -> None:
        seed = config.seed if train else None
        if train:
            chunk = config.batch_size * math.ceil(TRAIN_CHUNK / config.batch_size)
            self.images_per_batch = config.batch_size
        else:
            chunk = self.images_per_batch = TEST_CHUNK
        self.config = config
        self.device = device
        self.checksum = checksum
        self._chunks = _Chunks(images, labels, seed)
        self._sampler = _ChunkSampler(len(images), chunk, seed)
        self._options = options
        self._loader: DataLoader | None = None  # made when needed: it holds the workers

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose batches the next iteration gives."""
        self._sampler.epoch = epoch

    def as_they_are(self) -> ChunkLoader:
        """A loader of the same images in order and without augmentation, to evaluate on."""
        images, labels = self._chunks.images, self._chunks.labels
        return ChunkLoader(images, labels, self.config, self.device, self.checksum, train=False)

    def stop_workers(self) -> None:
        """End the worker processes; the next iteration starts new ones."""
        self._loader = None

    def __len__(self) -> int:
        return math.ceil(len(self._chunks.images) / self.images_per_batch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # An epoch that an interrupt or a dead worker breaks off leaves no loader behind.
        loader, self._loader = self._loader or self._new_loader(), None
        for images, labels in loader:
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield from zip(
                images.split(self.images_per_batch),
                labels.split(self.images_per_batch),
                strict=True,
            )
        self._loader = loader

    def _new_loader(self) -> DataLoader:
        return DataLoader(
            self._chunks,
            sampler=self._sampler,
            batch_size=None,  # the sampler's indices are a whole chunk's
            worker_init_fn=_ignore_interrupts,
            pin_memory=self.device.type == "cuda",
            # Otherwise starting an epoch would draw from the global generator.
            generator=torch.Generator(),
            **self._options,
        )


def make_loaders(
    data: MNIST,
    config: TrainingConfig | None = None,
    device: str | torch.device = "cpu",
    num_workers: int = 2,
    multiprocessing_context: str | None = None,
) -> tuple[ChunkLoader, ChunkLoader]:
    """The train loader (augmented, shuffled) and the test loader (in order) of data.

    num_workers: processes that augment training images; 0 for none. They start with the first
    epoch, once, and end with their loader. multiprocessing_context: how they start, "fork" or
    "spawn"; None for the platform's way.

    Raises ValueError if data is not what load_mnist gives (a shorter one will do) or num_workers is
    not an integer of at least 0.
    """
    config = config or TrainingConfig()
    device = torch.device(device)
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"num_workers is {num_workers!r}; expected an integer of at least 0.")
    sums = hashlib.sha256()
    for part, images, labels in (("train", *data[:2]), ("test", *data[2:])):
        _check_images(part, images, labels)
        for tensor in (images, labels):
            sums.update(str(tuple(tensor.shape)).encode())
            sums.update(tensor.contiguous().numpy())
    checksum = sums.hexdigest()
    workers = {}
    if num_workers:
        workers = {
            "num_workers": num_workers,
            "persistent_workers": True,
            "multiprocessing_context": multiprocessing_context,
        }
    train_images, train_labels, test_images, test_labels = data
    return (
        ChunkLoader(train_images, train_labels, config, device, checksum, train=True, **workers),
        ChunkLoader(test_images, test_labels, config, device, checksum, train=False),
    )


def _check_images(part: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless these are MNIST-like images and their labels."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (1, 28, 28):
        wrong = f"images are {images.dtype} {list(images.shape)}"
    elif labels.dtype != torch.int64 or labels.shape != images.shape[:1] or not len(labels):
        wrong = f"labels are {labels.dtype} {list(labels.shape)} for {len(images)} images"
    elif labels.min() < 0 or labels.max() > 9:
        wrong = f"labels run from {labels.min()} to {labels.max()}"
    else:
        return
    raise ValueError(
        f"the {part} {wrong}; expected uint8 [N, 1, 28, 28] images and int64 [N] labels from 0 to "
        "9, at least one, as load_mnist gives them."
    )
