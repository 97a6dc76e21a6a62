"""Faults inflicted on training for real: kills, damage, full disks, dead workers, bad batches.

A run that goes on after a fault has to end bit for bit as one left alone did: every weight, every
buffer of BatchNorm, the optimizer's state, the history without its times. Tests marked torture
inflict more of the same. Moments and offsets are random; FAULT_SEED=<the printed seed> draws the
same ones again.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import io
import itertools
import json
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import random
import re
import resource
import secrets
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch

import DataPipeline
import TrainingHelper
from DataPipeline import MNIST, make_loaders
from models import VARIANTS, SmallMNISTNet4Block
from TrainingHelper import (
    History,
    TrainingConfig,
    delete_finished_checkpoints,
    fit,
    load_checkpoint,
    save_checkpoint,
    set_seed,
    write_atomically,
)

CONFIG = TrainingConfig(epochs=3, batch_size=32)
IMAGES, TEST_IMAGES, CHUNK = 128, 32, 32
STEPS = IMAGES // CONFIG.batch_size
PASSES = STEPS + 1  # forward passes an epoch: the evaluation takes one
TIMEOUT = 60  # seconds for a process that nothing happens to
SEED = int(os.environ.get("FAULT_SEED", secrets.randbits(32)))
DRAWN = f"(FAULT_SEED={SEED})"

# Victims are forked, from a process that has imported all they need, in a hundredth of the time
# that a new one would take to import torch.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([__name__, "torch._dynamo"])


def counts(normal: int, torture: int) -> pytest.MarkDecorator:
    """Parametrizes a test with the number of faults to inflict."""
    return pytest.mark.parametrize(
        "count", [normal, pytest.param(torture, marks=pytest.mark.torture)]
    )


# --- a small run, here or in a process to be hit --------------------------------------------------


class Run(NamedTuple):
    """What fit takes, in its order."""

    model: SmallMNISTNet4Block
    train_loader: DataPipeline.ChunkLoader
    test_loader: DataPipeline.ChunkLoader
    config: TrainingConfig


def new_run(
    config: TrainingConfig = CONFIG, variant: str = "final", data: int = 0, workers: int = 0
) -> Run:
    """A run that nothing has happened to yet, on images that are noise."""
    noise = torch.Generator().manual_seed(data)
    parts = [
        part
        for count in (IMAGES, TEST_IMAGES)
        for part in (
            torch.randint(0, 256, (count, 1, 28, 28), generator=noise, dtype=torch.uint8),
            torch.randint(0, 10, (count,), generator=noise),
        )
    ]
    set_seed(config.seed)
    model = SmallMNISTNet4Block(VARIANTS[variant].dropout, VARIANTS[variant].batch_norm)
    how = {"num_workers": workers, "multiprocessing_context": "fork" if workers else None}
    with mock.patch.object(DataPipeline, "TRAIN_CHUNK", CHUNK):  # more of them than workers
        return Run(model, *make_loaders(MNIST(*parts), config, **how), config)


def bits(value: object) -> object:
    """What is compared: tensors as their SHA-256, dicts without times."""
    if isinstance(value, torch.Tensor):
        digest = hashlib.sha256(value.detach().contiguous().numpy()).hexdigest()
        return f"{value.dtype} {list(value.shape)} {digest}"
    if isinstance(value, dict):
        return {key: bits(part) for key, part in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [bits(part) for part in value]
    return value


def train(run: Run, checkpoint: Path | None) -> dict:
    """Train here; the bits of the model and of the history."""
    history = fit(*run[:3], run.config, "cpu", checkpoint, progress=False)
    return bits({"model": run.model.state_dict(), "history": asdict(history)})


def train_as_victim(
    pipe: multiprocessing.connection.Connection,
    checkpoint: Path,
    workers: int = 0,
    fault: Callable = nullcontext,
    calls: int = 1,
) -> None:
    """What a victim's process does: train under a fault, then, if calls is 2, again without.

    Sends the bits after each call, or the error and the model's.
    """
    os.setpgid(0, 0)  # a group of its own, to be hit as Ctrl-C in a terminal hits one
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    warnings.filterwarnings("error", message="the checkpoint")
    run = new_run(workers=workers)
    outcomes = []
    for context in (fault, nullcontext)[:calls]:
        try:
            with context(run.model):
                outcomes.append(train(run, checkpoint))
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            outcomes.append({"error": message, "model": bits(run.model.state_dict())})
    pipe.send(outcomes)


class Victim:
    """A process that trains."""

    def __init__(self, checkpoint: Path, **options: object) -> None:
        self.checkpoint = checkpoint
        self.pipe, theirs = FORK.Pipe(duplex=False)
        self.process = FORK.Process(
            target=train_as_victim, args=(theirs, checkpoint), kwargs=options
        )
        self.process.start()
        theirs.close()  # now only the victim holds it, and the workers that inherit it

    def ended(self, seconds: float = TIMEOUT) -> int | None:
        """The exit code within so many seconds: 0, minus a signal's number; None if it runs on."""
        self.process.join(seconds)
        return self.process.exitcode

    def outcomes(self) -> list[dict]:
        """What it sent, having ended."""
        assert self.ended() == 0
        return self.pipe.recv()

    def hit(self, number: int, group: bool = False) -> None:
        """Send a signal to it, or to it and its workers alike."""
        with contextlib.suppress(ProcessLookupError):  # it was faster
            (os.killpg if group else os.kill)(self.process.pid, number)

    def is_gone_with_its_workers(self, seconds: float) -> bool:
        """Whether none of its processes is left within so many seconds; ask after outcomes."""
        try:
            while self.pipe.poll(seconds):
                self.pipe.recv()
        except EOFError:
            return True
        return False


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """The process that victims are forked from."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        multiprocessing.forkserver.ensure_running()


@pytest.fixture
def start():
    """Victim, whose process does not outlive the test."""
    victims = []

    def start(*args: object, **options: object) -> Victim:
        victims.append(Victim(*args, **options))
        return victims[-1]

    yield start
    for victim in victims:
        victim.process.kill()
        victim.process.join()
        victim.pipe.close()


@pytest.fixture
def folders(tmp_path):
    """New empty folders, without end."""

    def make() -> Iterator[Path]:
        for number in itertools.count():
            folder = tmp_path / f"run {number}"
            folder.mkdir()
            yield folder

    return make()


@pytest.fixture
def tell(capsys):
    """Says how many faults were inflicted, in pytest's own output."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return tell


class Alone(NamedTuple):
    """The run left alone: its checkpoint's bytes and bits after each epoch, from 0; its time."""

    files: list[bytes]
    states: list[dict]
    seconds: float

    def result(self, epochs: int = CONFIG.epochs) -> dict:
        """What `train` gives after so many epochs."""
        return {key: self.states[epochs][key] for key in ("model", "history")}


@contextmanager
def every_checkpoint_is_kept(model: SmallMNISTNet4Block, folder: Path) -> Iterator[None]:
    numbers = itertools.count()

    def write(path: Path, data: bytes) -> None:
        write_atomically(path, data)
        (folder / str(next(numbers))).write_bytes(data)

    with mock.patch.object(TrainingHelper, "write_atomically", write):
        yield


@pytest.fixture(scope="module")
def alone(fork_server, tmp_path_factory):
    """The run left alone."""
    folder = tmp_path_factory.mktemp("alone")
    checkpoint = folder / "run.ckpt"
    FORK.Process(target=os.getpid).start()  # ready once the imports are done
    multiprocessing.active_children()[-1].join()
    started = time.perf_counter()
    victim = Victim(checkpoint, fault=partial(every_checkpoint_is_kept, folder=folder))
    [outcome] = victim.outcomes()
    seconds = time.perf_counter() - started
    files = [(folder / str(number)).read_bytes() for number in range(CONFIG.epochs + 1)]
    states = [bits(load_checkpoint(folder / str(number))) for number in range(len(files))]
    run = Alone(files, states, seconds)
    assert outcome == run.result()
    assert checkpoint.read_bytes() == files[-1]
    return run


@contextmanager
def at_pass(model: SmallMNISTNet4Block, number: int, action: Callable) -> Iterator[None]:
    """Do something when the model is called for the number-th time."""
    calls = itertools.count(1)

    def hook(*_: object) -> None:
        if next(calls) == number:
            action()

    handle = model.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def epochs_in(checkpoint: Path) -> int | None:
    """The whole epochs in a checkpoint, which must not be damaged; None if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = load_checkpoint(checkpoint)
    return None if state is None else len(state["history"]["epochs"])


def half_written(folder: Path) -> int:
    """How many temporary files there are."""
    return len(list(folder.glob(".*.tmp")))


# --- kill -9 --------------------------------------------------------------------------------------


@counts(5, 20)
def test_a_run_killed_at_random_moments_ends_as_one_left_alone(count, alone, start, folders, tell):
    moments = random.Random(SEED)
    killed = writing = 0
    for folder in folders:
        checkpoint, code = folder / "run.ckpt", None
        while code != 0:
            victim = start(checkpoint, workers=2 if killed % 4 == 3 else 0)
            if killed < count:
                left_behind = half_written(folder)
                victim.ended(moments.uniform(0, alone.seconds))
                while (
                    killed % 2 and half_written(folder) == left_behind and victim.ended(0) is None
                ):
                    pass  # every other kill waits for a checkpoint to be begun
                victim.hit(signal.SIGKILL)
            code = victim.ended()
            assert code in (0, -signal.SIGKILL)
            if code:
                killed += epochs_in(checkpoint) != CONFIG.epochs  # otherwise it had no more to do
        assert victim.outcomes() == [alone.result()]
        assert bits(load_checkpoint(checkpoint)) == alone.states[-1]
        writing += half_written(folder)
        if killed == count:
            break
    tell(
        f"kill -9 {DRAWN}: {killed} inflicted, {writing} of them while a checkpoint was written, "
        f"{killed} survived bit-identical"
    )


@contextmanager
def killed_while_writing(model: SmallMNISTNet4Block, moment: str, number: int) -> Iterator[None]:
    """kill -9 at a moment of write_atomically when it writes the number-th checkpoint."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(function: Callable, name: str) -> Callable:
        calls = itertools.count(1)

        def wrapped(*args: object) -> object:
            doomed = next(calls) == number
            if doomed and moment == f"before {name}":
                die()
            result = function(*args)
            if doomed and moment == f"after {name}":
                die()
            if doomed and moment == "half way" and name == "open":
                result.write = partial(write_half, result)
            return result

        return wrapped

    def write_half(file: io.BufferedWriter, data: bytes) -> None:
        io.BufferedWriter.write(file, data[: len(data) // 2])
        file.flush()
        die()

    with (
        mock.patch.object(TrainingHelper, "open", dying(builtins.open, "open"), create=True),
        mock.patch.object(os, "fsync", dying(os.fsync, "fsync")),
        mock.patch.object(os, "replace", dying(os.replace, "replace")),
    ):
        yield


MOMENTS = ("after open", "half way", "before fsync", "before replace", "after replace")
EVERY_WRITE = range(1, CONFIG.epochs + 2)  # one before the first epoch


@pytest.mark.parametrize(
    "aims",
    [
        list(zip(MOMENTS, (1, 2, 3, 4, 2), strict=True)),
        pytest.param(list(itertools.product(MOMENTS, EVERY_WRITE)), marks=pytest.mark.torture),
    ],
    ids=["each moment", "each moment of each checkpoint"],
)
def test_a_kill_at_any_moment_of_a_write_leaves_the_old_checkpoint_or_the_new(
    aims, alone, start, folders, tell
):
    for (moment, number), folder in zip(aims, folders, strict=False):
        checkpoint = folder / "run.ckpt"
        fault = partial(killed_while_writing, moment=moment, number=number)
        assert start(checkpoint, fault=fault).ended() == -signal.SIGKILL
        written = number if moment == "after replace" else number - 1
        assert epochs_in(checkpoint) == (written - 1 if written else None)
        assert half_written(folder) == (moment != "after replace")
        assert start(checkpoint).outcomes() == [alone.result()]
        assert bits(load_checkpoint(checkpoint)) == alone.states[-1]
    tell(f"kill -9 aimed at the writing: {len(aims)} inflicted, {len(aims)} survived bit-identical")


# --- damaged, malicious and foreign checkpoints ---------------------------------------------------


@pytest.fixture
def no_unpickling(monkeypatch):
    """torch.load must not be called."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))


def damaged(content: bytes, flips: int) -> Iterator[bytes]:
    """Bad copies: flipped bytes, a quarter of them in the digest; cut; lengthened; replaced."""
    draw = random.Random(SEED)
    for number in range(flips):
        offset = draw.randrange(65 if number % 4 == 0 else len(content))
        yield b"".join(
            (
                content[:offset],
                bytes([content[offset] ^ draw.randint(1, 255)]),
                content[offset + 1 :],
            )
        )
    for size in (0, 1, 64, 65, 66, draw.randrange(len(content)), len(content) - 1):
        yield content[:size]
    yield content + b"\0"
    yield bytes(len(content))
    yield b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"


@counts(40, 600)
def test_every_damaged_checkpoint_is_noticed_before_it_is_unpickled_and_set_aside(
    count, alone, tmp_path, no_unpickling, tell
):
    checkpoint, aside = tmp_path / "run.ckpt", tmp_path / "run.ckpt.damaged"
    contents = list(damaged(alone.files[1], count))
    for content in contents:
        checkpoint.write_bytes(content)
        with pytest.warns(UserWarning, match=r"is damaged .* it is kept as run\.ckpt\.damaged,"):
            assert load_checkpoint(checkpoint) is None
        assert aside.read_bytes() == content
        aside.unlink()
        assert list(tmp_path.iterdir()) == []
    tried = len(contents)
    tell(f"damaged checkpoints {DRAWN}: {tried} tried, {tried} noticed and set aside")


@counts(1, 8)
def test_a_run_with_a_damaged_checkpoint_starts_afresh(count, alone, tmp_path, tell):
    kept = []
    for content in random.Random(SEED).sample(list(damaged(alone.files[2], 40)), count):
        checkpoint = tmp_path / "run.ckpt"
        checkpoint.write_bytes(content)
        with pytest.warns(UserWarning, match="training starts from the beginning"):
            assert train(new_run(), checkpoint) == alone.result()
        kept.append(content)
    asides = {path.read_bytes() for path in tmp_path.glob("run.ckpt.damaged*")}
    assert asides == set(kept)
    tell(f"runs with a damaged checkpoint {DRAWN}: {count} tried, {count} ended bit-identical")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def saved(state: object, **options: object) -> bytes:
    """torch.save's bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def put(checkpoint: Path, payload: bytes) -> bytes:
    """Write a checkpoint with the right SHA-256; its bytes."""
    content = hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
    checkpoint.write_bytes(content)
    return content


@contextmanager
def refused(checkpoint: Path, match: str, run: Run | None = None) -> Iterator[Run]:
    """A run that raises a ValueError, leaving the checkpoint and its own model alone."""
    content, run = checkpoint.read_bytes(), run or new_run()
    before = bits(run.model.state_dict())
    with pytest.raises(ValueError, match=match) as caught:
        yield run
    assert str(checkpoint) in str(caught.value)
    assert checkpoint.read_bytes() == content
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert bits(run.model.state_dict()) == before


@pytest.mark.parametrize(
    "dump",
    [
        partial(pickle.dumps, protocol=2),
        saved,
        partial(saved, _use_new_zipfile_serialization=False),
    ],
    ids=["pickle", "torch.save", "torch.save, legacy"],
)
def test_code_in_a_checkpoint_is_never_run(dump, alone, tmp_path):
    marker, checkpoint = tmp_path / "owned", tmp_path / "checkpoints" / "run.ckpt"
    checkpoint.parent.mkdir()
    state = torch.load(io.BytesIO(alone.files[1][65:]))
    payload = dump(state | {"early_stopping": Evil(marker)})
    put(checkpoint, payload)
    with refused(checkpoint, "no checkpoint of this project.*not loaded") as run:
        train(run, checkpoint)
    assert not marker.exists()
    with contextlib.suppress(RuntimeError):  # of a plain pickle, torch takes its first object only
        torch.load(io.BytesIO(payload), weights_only=False)
    assert marker.exists(), "the payload was harmless: this test tested nothing"


def without(state: dict, *keys: str) -> dict:
    """A state of a run without the entry found by these keys."""
    *path, last = keys
    inner = state
    for key in path:
        inner = inner[key]
    del inner[last]
    return state


KEYS = [("identity",), ("model",), ("optimizer",), ("scheduler",), ("early_stopping",)]
KEYS += [("history",), ("history", "environment"), ("history", "status"), ("history", "epochs")]
KEYS += [("model", "classifier.weight"), ("optimizer", "param_groups")]


@pytest.mark.parametrize("keys", KEYS, ids=".".join)
def test_a_checkpoint_that_lacks_something_is_refused(keys, alone, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    state = torch.load(io.BytesIO(alone.files[1][65:]))
    save_checkpoint(checkpoint, without(state, *keys))
    with refused(checkpoint, "no checkpoint of fit.*choose another path") as run:
        train(run, checkpoint)


@pytest.mark.parametrize(
    "payload",
    [b"", b"weights", b'{"model": 1}', saved([1, 2]), saved(7), saved({}), saved({})[:-40]],
    ids=["nothing", "text", "json", "a list", "a number", "an empty dict", "half a zip"],
)
def test_a_file_that_is_no_checkpoint_is_refused(payload, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    put(checkpoint, payload)
    with refused(checkpoint, "no checkpoint of.*choose another path") as run:
        train(run, checkpoint)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"variant": "v1"}, "variant is final there and v1 here"),
        ({"config": replace(CONFIG, seed=7)}, "seed is 42 there and 7 here"),
        ({"config": replace(CONFIG, gamma=0.5)}, r"gamma is 0\.1 there and 0\.5 here"),
        ({"config": replace(CONFIG, epochs=9)}, "epochs is 3 there and 9 here"),
        ({"data": 1}, "data is [0-9a-f]{64} there and [0-9a-f]{64} here"),
    ],
    ids=["variant", "seed", "gamma", "epochs", "data"],
)
@pytest.mark.parametrize("epochs", [1, CONFIG.epochs])
def test_a_checkpoint_of_another_run_is_left_alone(options, difference, epochs, alone, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(alone.files[epochs])
    with refused(checkpoint, difference, new_run(**options)) as run:
        train(run, checkpoint)


@pytest.mark.parametrize(("key", "there"), [("threads", 64), ("torch", "9.9.9"), ("kornia", None)])
def test_a_checkpoint_from_another_environment_goes_on_with_a_warning(key, there, alone, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    state = torch.load(io.BytesIO(alone.files[2][65:]))
    state["history"]["environment"][key] = there
    save_checkpoint(checkpoint, state)
    with pytest.warns(UserWarning, match=f"{key} is {there} there and .* here"):
        assert train(new_run(), checkpoint) == alone.result()


# --- no room, no rights ---------------------------------------------------------------------------


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may get more than 4 KB long."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_rights() -> Iterator[None]:
    """Root may write everywhere: be somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_full_disk_costs_no_epoch_that_was_kept(alone, tmp_path):
    checkpoint, run = tmp_path / "run.ckpt", new_run()
    disk = contextlib.ExitStack()
    fills = at_pass(run.model, PASSES + 3, lambda: disk.enter_context(full_disk()))
    with disk, fills, pytest.raises(OSError, match=r"cannot write .*run\.ckpt \(.*\): make room"):
        train(run, checkpoint)
    assert bits(load_checkpoint(checkpoint)) == alone.states[1]
    assert list(tmp_path.iterdir()) == [checkpoint]
    assert bits(run.model.state_dict()) == alone.states[1]["model"]
    assert train(run, checkpoint) == alone.result()


def long_history(path: Path) -> None:
    record = dict.fromkeys(TrainingHelper.RECORD, 1.0)
    History("final", 42, "finished", epochs=[record] * 100).save(path)


def long_checkpoint(path: Path) -> None:
    save_checkpoint(path, {"weights": torch.zeros(10_000)})


@pytest.fixture
def public_folder():
    """A folder that any user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize("fault", [full_disk, no_rights])
@pytest.mark.parametrize("write", [long_checkpoint, long_history])
def test_a_file_that_cannot_be_written_stays_as_it_was(write, fault, public_folder):
    path = public_folder / "file"
    path.write_bytes(b"precious")
    public_folder.chmod(0o555)
    with fault(), pytest.raises(OSError, match=r"cannot write .*file \(.+\): make room there, "):
        write(path)
    assert path.read_bytes() == b"precious"
    assert list(public_folder.iterdir()) == [path]


@pytest.mark.parametrize("place", ["file/run.ckpt", "file/below/run.ckpt"])
def test_a_place_that_cannot_be_written_is_found_before_training(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"precious")
    monkeypatch.setattr(TrainingHelper, "_run_epoch", lambda *_: pytest.fail("it trained"))
    with pytest.raises(OSError, match=r"cannot write .*run\.ckpt \(.+\): make room there, "):
        train(new_run(), tmp_path / place)
    assert (tmp_path / "file").read_bytes() == b"precious"


# --- workers, losses, batches ---------------------------------------------------------------------


@contextmanager
def workers_killed(model: SmallMNISTNet4Block, number: int, workers: int) -> Iterator[None]:
    """kill -9 to some of the loader's workers at the number-th forward pass."""

    def kill() -> None:
        for worker in multiprocessing.active_children()[:workers]:
            os.kill(worker.pid, signal.SIGKILL)

    with at_pass(model, number, kill):
        yield


@counts(2, 12)
def test_a_killed_worker_costs_the_epoch_and_nothing_else(count, alone, start, folders, tell):
    draw = random.Random(SEED)
    for number, folder in zip(range(count), folders, strict=False):
        epoch = draw.randint(1, CONFIG.epochs)
        moment = (epoch - 1) * PASSES + draw.randint(1, STEPS - 1)
        fault = partial(workers_killed, number=moment, workers=1 + number % 2)
        victim = start(folder / "run.ckpt", workers=2, fault=fault, calls=2)
        failed, resumed = victim.outcomes()
        assert re.match(
            rf"RuntimeError: a worker process of the data loader died in epoch {epoch} \(.*"
            r"call fit again to go on from the checkpoint\.$",
            failed["error"],
        )
        assert failed["model"] == alone.states[epoch - 1]["model"]
        assert resumed == alone.result()
    tell(f"workers killed {DRAWN}: {count} runs hit, {count} survived bit-identical")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (PASSES + 3, "the training loss is nan in epoch 2, step 3; lower the learning rate"),
        (PASSES + STEPS, f"the training loss is nan in epoch 2, step {STEPS}; lower"),
        (2 * PASSES, "the test loss is nan after epoch 2; lower the learning rate"),
    ],
    ids=["train", "last step", "test"],
)
def test_a_loss_that_is_not_finite_is_named_and_never_kept(
    number, message, alone, tmp_path, monkeypatch
):
    monkeypatch.setattr(TrainingHelper, "READ_EVERY", 3)
    checkpoint, run = tmp_path / "run.ckpt", new_run()
    spoil = at_pass(run.model, number, lambda: run.model.classifier.bias.data.fill_(torch.nan))
    with spoil, pytest.raises(FloatingPointError, match=re.escape(message)):
        train(run, checkpoint)
    assert bits(load_checkpoint(checkpoint)) == alone.states[1]
    assert bits(run.model.state_dict()) == alone.states[1]["model"]
    assert train(run, checkpoint) == alone.result()


def batch(*shape: int, dtype: torch.dtype = torch.float32, labels: object = 4) -> tuple:
    """A batch, good unless told otherwise."""
    labels = torch.arange(labels) if isinstance(labels, int) else torch.tensor(labels)
    return torch.zeros(shape or (4, 1, 28, 28)).to(dtype), labels


BAD_BATCHES = {
    "no channel": batch(4, 28, 28),
    "three channels": batch(4, 3, 28, 28),
    "too large": batch(4, 1, 32, 32),
    "a chunk of batches": batch(2, 2, 1, 28, 28, labels=2),
    "uint8": batch(dtype=torch.uint8),
    "double": batch(dtype=torch.float64),
    "half": batch(dtype=torch.float16),
    "int32 labels": (batch()[0], torch.arange(4, dtype=torch.int32)),
    "float labels": batch(labels=[0.0, 1.0, 2.0, 3.0]),
    "one-hot labels": batch(labels=[[0] * 10] * 4),
    "a label too few": batch(labels=3),
    "no image": (torch.zeros(0, 1, 28, 28), torch.arange(0)),
    "a label of -1": batch(labels=[0, 1, -1, 2]),
    "a label of 10": batch(labels=[0, 1, 10, 2]),
    "not tensors": (batch()[0].numpy(), [0, 1, 2, 3]),
    "three parts": (*batch(), 1),
    "one part": (batch()[0],),
    "nothing": None,
}


@pytest.mark.parametrize("loader", ["train", "test"])
@pytest.mark.parametrize("bad", BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_malformed_batch_is_named_and_trains_nothing(bad, loader):
    loaders = {"train": [batch()] * 3, "test": [batch()] * 3} | {loader: [batch(), batch(), bad]}
    model = new_run().model
    before = bits(model.state_dict())
    expected = (
        rf"^batch 3 of the {loader} loader holds .*; expected images float32 \[B, 1, 28, 28\] and "
        r"labels int64 \[B\] from 0 to 9\.$"
    )
    with pytest.raises(ValueError, match=expected):
        fit(model, loaders["train"], loaders["test"], CONFIG, "cpu", progress=False)
    assert bits(model.state_dict()) == before


@pytest.mark.parametrize("loader", ["train", "test"])
def test_a_loader_without_batches_is_named(loader):
    loaders = {"train": [batch()], "test": [batch()]} | {loader: []}
    model = new_run().model
    before = bits(model.state_dict())
    with pytest.raises(ValueError, match=f"the {loader} loader yields no batch"):
        fit(model, loaders["train"], loaders["test"], CONFIG, "cpu", progress=False)
    assert bits(model.state_dict()) == before


# --- signals --------------------------------------------------------------------------------------


def wait_for(path: Path, victim: Victim) -> None:
    """Wait until a victim has made a file."""
    deadline = time.monotonic() + TIMEOUT
    while not path.exists() and time.monotonic() < deadline:
        victim.ended(0.002)
    assert path.exists()


def hit_at_random_moments(
    number: int, count: int, alone: Alone, start: Callable, folders: Iterator[Path]
) -> Iterator[Victim]:
    """Victims that a signal hit while they trained, so many, each resumed when it is done with.

    Every other one is hit together with its workers. One that was faster does not count.
    """
    moments = random.Random(SEED)
    hits = 0
    for folder in itertools.islice(folders, 10 * count):
        group, workers = ((False, 0), (True, 2), (False, 2), (True, 2))[hits % 4]
        victim = start(folder / "run.ckpt", workers=workers)
        wait_for(victim.checkpoint, victim)
        # In what is left of the run's time, and as often while its workers start.
        victim.ended(moments.uniform(0, moments.choice((0.1, 0.7)) * alone.seconds))
        victim.hit(number, group)
        victim.ended()
        if epochs_in(victim.checkpoint) < CONFIG.epochs:
            hits += 1
            yield victim
            assert start(victim.checkpoint).outcomes() == [alone.result()]
        if hits == count:
            return
    pytest.fail(f"only {hits} runs were hit before they ended")


@counts(3, 24)
def test_an_interrupt_at_a_random_moment_ends_with_whole_epochs(count, alone, start, folders, tell):
    for victim in hit_at_random_moments(signal.SIGINT, count, alone, start, folders):
        [outcome] = victim.outcomes()
        epochs = len(outcome["history"]["epochs"])
        assert outcome == alone.result(epochs)
        assert outcome["history"]["status"] == "interrupted"
        assert epochs_in(victim.checkpoint) == epochs
        assert half_written(victim.checkpoint.parent) == 0
        assert victim.is_gone_with_its_workers(TIMEOUT)
    tell(f"SIGINT {DRAWN}: {count} inflicted, {count} survived bit-identical")


@contextmanager
def hanging(model: SmallMNISTNet4Block, marker: Path) -> Iterator[None]:
    """Hang in the second epoch, and say so."""

    def hang() -> None:
        marker.touch()
        time.sleep(10 * TIMEOUT)

    with at_pass(model, PASSES + 2, hang):
        yield


def test_a_second_interrupt_ends_a_run_that_hangs(alone, start, tmp_path):
    marker = tmp_path / "hangs"
    victim = start(tmp_path / "run.ckpt", fault=partial(hanging, marker=marker))
    wait_for(marker, victim)
    victim.hit(signal.SIGINT)
    assert victim.ended(0.2) is None
    victim.hit(signal.SIGINT)
    assert victim.outcomes() == [alone.result(1)]


@counts(3, 24)
def test_a_run_terminated_at_a_random_moment_dies_of_it_and_goes_on_later(
    count, alone, start, folders, tell
):
    victims = []
    for victim in hit_at_random_moments(signal.SIGTERM, count, alone, start, folders):
        assert victim.ended() == -signal.SIGTERM
        assert half_written(victim.checkpoint.parent) == 0
        victims.append(victim)
    # A worker looks for its parent every five seconds.
    assert all(victim.is_gone_with_its_workers(10) for victim in victims)
    tell(f"SIGTERM {DRAWN}: {count} inflicted, {count} survived bit-identical")


# --- one checkpoint, many readers and writers -----------------------------------------------------


@counts(2, 4)
def test_processes_that_share_a_checkpoint_all_end_as_one_alone(
    count, alone, start, tmp_path, tell
):
    checkpoint = tmp_path / "run.ckpt"
    victims = [start(checkpoint) for _ in range(count)]
    assert [victim.outcomes() for victim in victims] == [[alone.result()]] * count
    assert bits(load_checkpoint(checkpoint)) == alone.states[-1]
    assert list(tmp_path.iterdir()) == [checkpoint]
    tell(f"processes on one checkpoint: {count} at once, {count} ended bit-identical")


def test_a_run_without_a_checkpoint_ends_in_the_same_bits(alone):
    assert train(new_run(), None) == alone.result()


def test_a_finished_run_is_loaded_and_not_trained_again(alone, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(alone.files[-1])
    monkeypatch.setattr(
        DataPipeline.ChunkLoader, "__iter__", lambda _: pytest.fail("a loader was read")
    )
    assert train(new_run(), checkpoint) == alone.result()
    assert checkpoint.read_bytes() == alone.files[-1]


def test_only_the_checkpoints_of_finished_runs_are_deleted(alone, tmp_path):
    for name, epochs in (("broken", 1), ("finished", CONFIG.epochs)):
        (tmp_path / f"{name}.pt").write_bytes(alone.files[epochs])
    (tmp_path / "notes.txt").write_text("mine")
    delete_finished_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pt", "notes.txt"]
    delete_finished_checkpoints(tmp_path / "not there")


def test_writing_a_checkpoint_takes_under_100_ms(alone, tmp_path):
    state = torch.load(io.BytesIO(alone.files[-1][65:]))
    times = []
    for _ in range(9):
        started = time.perf_counter()
        save_checkpoint(tmp_path / "run.ckpt", state)
        times.append(time.perf_counter() - started)
    assert statistics.median(times) < 0.1
    assert json.dumps(state["history"])  # and nothing in it but what JSON holds
