"""Small runs, left alone or in a process of their own to be hit, for the tests of faults.

A run that resumes after a fault has to end bit for bit as one left alone: every weight, every
buffer of BatchNorm, the history without its times. Tests marked torture inflict more of the same.

A module of tests takes the fixtures by pytest_plugins = ["tests.victims"].
"""

import contextlib
import hashlib
import io
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import re
import signal
import sys
import time
import warnings
from collections import OrderedDict, defaultdict, namedtuple
from functools import partial
from unittest import mock

import pytest
import torch
from torch import nn

import DataPipeline
from DataPipeline import MNIST, make_loaders
from helpers.checkpoint import load_checkpoint
from tests.helpers import CPU, build
from TrainingHelper import TrainingConfig, fit, set_seed

CONFIG = TrainingConfig(epochs=3, batch_size=32)

# Victims are forked, from a process that has imported all they need, in a hundredth of the time
# that a new one would take to import torch.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.victims"])

Run = namedtuple("Run", "model train_loader test_loader config")  # what fit takes, in its order


def new_run(variant="final", data=0, workers=0):
    """A run that nothing has happened to yet, on images that are noise."""
    torch.manual_seed(data)
    parts = []
    for count in (128, 32):
        parts.append(torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8))
        parts.append(torch.randint(0, 10, (count,)))
    with mock.patch.object(DataPipeline, "TRAIN_CHUNK", 32):  # more chunks than workers
        loaders = make_loaders(MNIST(*parts), CONFIG, CPU, workers)
    return Run(build(variant), *loaders, CONFIG)


LAYERS = {
    "entry": partial(nn.Conv2d, 1, 2, 7, stride=7),
    "norm": partial(nn.BatchNorm2d, 2),
    "left": partial(nn.Conv2d, 2, 2, 3, padding=1),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "right": partial(nn.Conv2d, 2, 2, 3, padding=1),
    "flat": nn.Flatten,
    "out": partial(nn.Linear, 32, 10),
}
ORDER = "entry norm left relu right flat out"


class Batches(list):
    """A loader of one's own."""

    def __init__(self, data, count):
        noise = torch.Generator().manual_seed(data)
        labels = torch.arange(4)
        super().__init__((torch.randn(4, 1, 28, 28, generator=noise), labels) for _ in range(count))
        self.checksum = f"noise {data}"


def tiny_run(order=ORDER, config=CONFIG, data=0, count=2):
    """A run of some milliseconds, of a network that has these layers in this order."""
    set_seed(config.seed)
    model = nn.Sequential(OrderedDict((name, LAYERS[name]()) for name in order.split()))
    return Run(model, Batches(data, count), Batches(data, 2), config)


def digest(value):
    """What is compared, and sent to other processes: tensors as SHA-256, dicts without times."""
    if isinstance(value, torch.Tensor):
        sha256 = hashlib.sha256(value.detach().contiguous().numpy()).hexdigest()
        return f"{value.dtype} {list(value.shape)} {sha256}"
    if isinstance(value, dict):
        return {key: digest(part) for key, part in value.items() if key != "seconds"}
    if isinstance(value, list | tuple):
        return [digest(part) for part in value]
    return value


def train(run, checkpoint, progress=False):
    """Train here; the digest of the model and of the history."""
    history = fit(*run, CPU, checkpoint, progress)
    return digest({"model": run.model.state_dict(), "history": history.as_dict()})


def epochs_in(checkpoint):
    """The complete epochs in a checkpoint, which must not be damaged; None if there is none."""
    with warnings.catch_warnings(action="error"):
        state = load_checkpoint(checkpoint)
    return None if state is None else len(state["history"]["epochs"])


@contextlib.contextmanager
def at_pass(model, number, action):
    """Do something when the model is called for the number-th time."""
    calls = itertools.count(1)

    def hook(*_):
        if next(calls) == number:
            action()

    with model.register_forward_pre_hook(hook):
        yield


class Interrupt:
    """KeyboardInterrupt at the number-th line or call that Python comes to, libraries' included.

    number: None for no interrupt. inside: only while this function runs.
    lines: how many it came to. stations: where it struck, or could have: what inside had called
        then, with the numbers of the lines.
    """

    def __init__(self, number=None, inside=fit):
        self.number, self.inside = number, inside.__code__
        self.lines, self.stations = 0, defaultdict(list)

    def __call__(self, frame, *_):
        self.lines += 1
        if self.number in (None, self.lines):
            station = None
            while frame is not None and frame.f_code is not self.inside:
                station, frame = frame.f_code.co_name, frame.f_back
            if frame is not None:
                self.stations[station].append(self.lines)
                if self.number:
                    raise KeyboardInterrupt  # which ends the tracing
        return self

    @contextlib.contextmanager
    def armed(self):
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(None)


def loaded(content):
    """The state in a checkpoint's bytes."""
    return torch.load(io.BytesIO(content[65:]))


def saved(state):
    """A checkpoint's bytes, with the right SHA-256."""
    torch.save(state, buffer := io.BytesIO())
    return with_digest(buffer.getvalue())


def with_digest(payload):
    return hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def left_alone(run, checkpoint):
    """Train with nothing happening; the checkpoint's bytes after each epoch, from 0; the digest."""
    files = []

    def keep(*_):
        files.append(checkpoint.read_bytes())

    with at_pass(run.model, 1, keep):
        return files, train(run, checkpoint, keep)


def outcome(run, checkpoint):
    """What train gives; or what refuses the checkpoint, with it and the network untouched."""
    before = checkpoint.read_bytes(), digest(run.model.state_dict())
    try:
        return train(run, checkpoint)
    except ValueError as error:
        assert str(checkpoint) in str(error) and len(str(error)) < 1000
        assert before == (checkpoint.read_bytes(), digest(run.model.state_dict())), error
        return str(error)


def refuses(run, checkpoint, reason):
    """Whether the checkpoint is refused for this reason."""
    return re.search(reason, str(outcome(run, checkpoint)))


@contextlib.contextmanager
def interrupted_after(seconds):
    """KeyboardInterrupt by a signal after so many seconds; not by SIGINT, which may be ignored."""
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def train_as_victim(pipe, checkpoint, workers):
    warnings.filterwarnings("error", message="the checkpoint")
    pipe.send(train(new_run(workers=workers), checkpoint))


class Victim:
    """A process that trains the new run, and ends with this one at the latest."""

    def __init__(self, checkpoint, workers=0):
        self.pipe, theirs = FORK.Pipe(duplex=False)
        arguments = (theirs, checkpoint, workers)
        self.process = FORK.Process(target=train_as_victim, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def ended(self, seconds=60):
        """The exit code within so many seconds: 0, minus a signal's number; None if it runs on."""
        self.process.join(seconds)
        return self.process.exitcode

    def result(self):
        """What train gave there."""
        assert self.ended() == 0
        return self.pipe.recv()


@pytest.fixture
def places(tmp_path):
    """Paths for checkpoints, each in a folder that is not there yet, without end."""
    return (tmp_path / f"run {number}" / "run.ckpt" for number in itertools.count())


class Alone(namedtuple("Alone", "files states seconds")):
    """The run left alone: its checkpoint's bytes and digest after each epoch, from 0; its time."""

    def result(self, epochs=CONFIG.epochs):
        """What `train` gives after so many epochs."""
        return {key: self.states[epochs][key] for key in ("model", "history")}


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """The run left alone, here and as a victim that nothing happens to."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        multiprocessing.forkserver.ensure_running()
    (first := FORK.Process(target=os.getpid)).start()  # ready once the imports are done
    first.join()
    folder = tmp_path_factory.mktemp("alone")
    files, result = left_alone(new_run(), folder / "here")
    started = time.perf_counter()
    assert Victim(folder / "there").result() == result
    run = Alone(files, [digest(loaded(f)) for f in files], time.perf_counter() - started)
    assert run.result() == result and len(files) == CONFIG.epochs + 1
    return run
