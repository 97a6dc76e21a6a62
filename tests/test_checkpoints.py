"""What a checkpoint survives: kills, damage, mutation by hand, other runs, odd places, full disks."""

import contextlib
import io
import itertools
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import warnings
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

import helpers.files
import TrainingHelper
from DataPipeline import ChunkLoader
from tests.helpers import CPU, PROJECT, history
from tests.victims import (
    CONFIG,
    DRAWN,
    PASSES,
    SEED,
    TIMEOUT,
    Run,
    at_pass,
    counts,
    digest,
    epochs_in,
    half_written,
    left_alone,
    new_run,
    train,
)
from TrainingHelper import fit, load_checkpoint, save_checkpoint, set_seed

pytest_plugins = ["tests.victims"]

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
        assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
        writing += half_written(folder)
        if killed == count:
            break
    tell(
        f"kill -9 {DRAWN}: {killed} inflicted, {writing} of them while a checkpoint was written, "
        f"{killed} survived bit-identical"
    )


@contextlib.contextmanager
def killed_while_writing(model, moment, number):
    """kill -9 at a moment of write_atomically when it writes the number-th checkpoint."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(function, name):
        calls = itertools.count(1)

        def wrapped(*args):
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

    def write_half(file, data):
        io.BufferedWriter.write(file, data[: len(data) // 2])
        file.flush()
        die()

    with (
        mock.patch.object(helpers.files, "open", dying(open, "open"), create=True),
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
        assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
    tell(f"kill -9 aimed at the writing: {len(aims)} inflicted, {len(aims)} survived bit-identical")


def test_what_a_killed_writer_leaves_is_ignored_by_git_and_cleaned_up(start, tmp_path):
    checkpoint = tmp_path / "results" / "runs" / "v1-42.pt"
    fault = partial(killed_while_writing, moment="half way", number=1)
    assert start(checkpoint, fault=fault).ended() == -signal.SIGKILL
    assert half_written(checkpoint.parent) == 1
    for name in (".gitignore", "Makefile"):
        shutil.copy(PROJECT / name, tmp_path)
    git = ["git", "-C", tmp_path, "-c", "core.excludesFile="]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = subprocess.run([*git, "ls-files", "-o", "--exclude-standard"], stdout=subprocess.PIPE)
    assert listed.stdout.split() == [b".gitignore", b"Makefile"]
    subprocess.run(["make", "-s", "-C", tmp_path, "clean"], check=True)
    assert not list(checkpoint.parent.iterdir())


# --- damage and malice ----------------------------------------------------------------------------


def damaged(content, flips):
    """Bad copies: flipped bytes, a quarter of them in the digest; cut; lengthened; replaced."""
    draw = random.Random(SEED)
    for number in range(flips):
        offset = draw.randrange(65 if number % 4 == 0 else len(content))
        flipped = bytes([content[offset] ^ draw.randint(1, 255)])
        yield content[:offset] + flipped + content[offset + 1 :]
    for size in (0, 1, 64, 65, 66, draw.randrange(len(content)), len(content) - 1):
        yield content[:size]
    yield content + b"\0"
    yield bytes(len(content))
    yield b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"


@counts(40, 600)
def test_every_damaged_checkpoint_is_noticed_before_it_is_unpickled_and_set_aside(
    count, alone, tmp_path, monkeypatch, tell
):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
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
def test_a_run_with_a_damaged_checkpoint_starts_from_the_beginning(count, alone, tmp_path, tell):
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


def saved(state, **options):
    """torch.save's bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def loaded(content):
    """The state in a checkpoint's bytes."""
    return torch.load(io.BytesIO(content[65:]))


def put(checkpoint, payload):
    """Write a checkpoint with the right SHA-256."""
    checkpoint.write_bytes(sha256(payload).hexdigest().encode() + b"\n" + payload)


@contextlib.contextmanager
def refused(checkpoint, match, run=None):
    """A run that raises a ValueError, leaving the checkpoint and its own model alone."""
    content, run = checkpoint.read_bytes(), run or new_run()
    before = digest(run.model.state_dict())
    with pytest.raises(ValueError, match=match) as caught:
        yield run
    assert str(checkpoint) in str(caught.value)
    assert checkpoint.read_bytes() == content
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert digest(run.model.state_dict()) == before


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


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
    payload = dump(loaded(alone.files[1]) | {"history": Evil(marker)})
    put(checkpoint, payload)
    with refused(checkpoint, "no checkpoint of this project.*not loaded") as run:
        train(run, checkpoint)
    assert not marker.exists()
    with contextlib.suppress(RuntimeError):  # of a plain pickle, torch takes its first object only
        torch.load(io.BytesIO(payload), weights_only=False)
    assert marker.exists(), "the payload was harmless: this test tested nothing"


@pytest.mark.parametrize(
    "payload",
    [b"", b"weights", b'{"model": 1}', saved([1, 2]), saved(7), saved({}), saved({})[:-40]],
    ids=["nothing", "text", "json", "a list", "a number", "an empty dict", "half a zip"],
)
def test_a_file_that_is_no_checkpoint_is_refused(payload, tmp_path):
    put(tmp_path / "run.ckpt", payload)
    expected = "no checkpoint of.*choose another path|belongs to another run: history: expected"
    with refused(tmp_path / "run.ckpt", expected) as run:
        train(run, tmp_path / "run.ckpt")


# --- mutations, each with the right digest --------------------------------------------------------


class Net(nn.Module):
    """A tiny network, which defines its layers in an order and has an activation."""

    def __init__(self, order="entry norm left right out", activation=nn.ReLU):
        super().__init__()
        layers = {
            "entry": nn.Conv2d(1, 2, 7, stride=7),
            "norm": nn.BatchNorm2d(2),
            "left": nn.Conv2d(2, 2, 3, padding=1),
            "right": nn.Conv2d(2, 2, 3, padding=1),
            "out": nn.Linear(32, 10),
        }
        for name in order.split():
            self.add_module(name, layers[name])
        self.activation = activation()

    def forward(self, images):
        x = self.activation(self.norm(self.entry(images)))
        return self.out((self.activation(self.left(x)) + self.right(x)).flatten(1))


class Batches(list):
    """A loader of one's own; one more generator of batches knows no length."""

    def __init__(self, data=0):
        noise = torch.Generator().manual_seed(data)
        for _ in range(2):
            images = torch.randn(4, 1, 28, 28, generator=noise)
            self.append((images, torch.randint(10, (4,), generator=noise)))
        self.checksum = f"noise {data}"


class LengthUnknown:
    """The same batches, of which nobody knows how many there are."""

    def __init__(self):
        self.batches = Batches()
        self.checksum = self.batches.checksum

    def __iter__(self):
        return iter(self.batches)


def tiny_run(order="entry norm left right out", activation=nn.ReLU, loader=Batches):
    """A run of some milliseconds."""
    set_seed(CONFIG.seed)
    return Run(Net(order, activation), loader(), loader(), CONFIG)


def places(tree, path=()):
    """The path to every node of a tree of dicts and lists, the root's first."""
    yield path
    if isinstance(tree, (dict, list)):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))


def node(tree, path):
    """What stands at a path."""
    for key in path:
        tree = tree[key]
    return tree


def mutants(value):
    """What to put in a node's place, by name: whatever torch.load lets through, and near misses."""
    endless = []
    endless.append(endless)
    found = {
        repr(new)[:20]: new
        for new in (None, True, -1, 0, 1, 7, 2**63, 10**600, 0.5, -0.5, 1e308, "", b"", 1j, [], {})
        + (float("nan"), float("inf"), float("-inf"), (1,), {1}, [[0]], {"a": 1}, OrderedDict(a=1))
        + (torch.float16, torch.Size([1]), torch.zeros(()), torch.zeros(3), torch.zeros(0))
    }
    found |= {"a long text": "x" * 10**6, "lines": "a\nb" * 9, "endless": endless}
    if isinstance(value, bool | int | float | str):
        found |= {"as text": str(value), "as a list": [value], "more": value + type(value)(1)}
    if isinstance(value, int):
        found |= {"as float": float(value)}
    if isinstance(value, list):
        found |= {f"less {i}": value[:i] + value[i + 1 :] for i in range(len(value))}
        found |= {"the last twice": value + value[-1:], "more": [*value, None]}
        found |= {"reversed": value[::-1], "as a tuple": tuple(value)}
    if isinstance(value, dict):
        found |= {f"less {key}": {k: v for k, v in value.items() if k != key} for key in value}
        new_keys = ("x", "x" * 10**6, 99, 0.5, None, (1,), torch.zeros(2), torch.zeros(1))
        found |= {f"more {key!r:.20}": {**value, key: 0} for key in new_keys}
        found |= {"reversed": dict(reversed(value.items())), "ordered": OrderedDict(value)}
        found |= {f"keys {t.__name__}": {t(k): v for k, v in value.items()} for t in (str, repr)}
        if 0 in value:
            shared = {k: {**v, "step": value[0]["step"]} for k, v in value.items()}
            found |= {"float keys": {float(k): v for k, v in value.items()}, "one step": shared}
        (poisoned := OrderedDict(value)).__dict__.update(get=1, items=1, _metadata=1)
        found |= {"methods": poisoned}
    if isinstance(value, torch.Tensor):
        found |= tensor_mutants(value)
    return found


def tensor_mutants(t):
    """Tensors to put in one's place: kinds, shapes, layouts, what is not finite; never other
    finite values, which nothing could tell, but for a mean of squares or steps below 0."""
    dtypes = "float64 float16 bfloat16 int64 int32 int16 uint8 bool complex64 float8_e4m3fn".split()
    found = {f"as {d}": t.to(getattr(torch, d)) for d in dtypes if getattr(torch, d) != t.dtype}
    shapes = {
        "batched": t[None],
        "flat": t.flatten(),
        "empty": t.flatten()[:0],
        "none": t[..., None],
    }
    shapes |= {"twice": torch.cat([t.flatten()] * 2), "large": torch.zeros(10_000, dtype=t.dtype)}
    shapes |= {"swapped": t.transpose(0, -1) if t.ndim else t[None, None]}
    shapes |= {"vast": torch.zeros(1, dtype=t.dtype).expand(2**40)}
    found |= {name: new for name, new in shapes.items() if new.shape != t.shape}
    found |= {"meta": t.to("meta"), "parameter": nn.Parameter(t.float()), "sparse": t.to_sparse()}
    found |= {"quantised": torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8)}
    found |= {"nested": torch.nested.nested_tensor([t.float(), t.float()])}
    if t.is_floating_point():
        for bad in ("nan", "inf", "-inf"):
            (spoilt := t.clone()).view(-1)[-1:] = float(bad) if t.is_contiguous() else torch.nan
            found[bad] = spoilt
        found |= {
            "grad": t.clone().requires_grad_(),
            "jagged": torch.nested.nested_tensor([t.flatten()] * 2, layout=torch.jagged),
        }
        found |= {"negated": torch.complex(t, -t).conj().imag}
    # The same values, lying elsewhere in memory.
    found |= {
        "strided": torch.stack([t, t], -1)[..., 0],
        "contiguous": t.clone(memory_format=torch.contiguous_format),
    }
    if t.ndim == 4:
        found |= {
            "channels last": t.clone(memory_format=torch.channels_last),
            "matrix": t.to_sparse().coalesce(),
        }
    return found
