"""What a checkpoint survives: kills, damage, mutation, other runs, odd places, full disks."""

import contextlib
import inspect
import io
import itertools
import json
import os
import pickle
import random
import re
import reprlib
import signal
import statistics
import sys
import timeit
import warnings
from collections import Counter, OrderedDict, namedtuple
from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest
import torch
from torch import nn

import TrainingHelper
from helpers.checkpoint import differences, load_checkpoint, save_checkpoint
from helpers.files import write_atomically
from tests.helpers import CPU, DRAWN, SEED, counts, full_disk, history, no_rights
from tests.victims import (
    CONFIG,
    PASSES,
    TIMEOUT,
    Run,
    at_pass,
    digest,
    epochs_in,
    left_alone,
    loaded,
    new_run,
    train,
)
from TrainingHelper import set_seed

pytest_plugins = ["tests.victims"]

# --- kill -9 --------------------------------------------------------------------------------------


@counts(5, 20)
def test_a_run_killed_at_random_moments_ends_as_one_left_alone(count, alone, start, places, tell):
    moments, killed = random.Random(SEED), 0
    for checkpoint in places:
        code = None
        while code != 0:
            victim = start(checkpoint, workers=2 if killed % 4 == 3 else 0)
            victim.ended(moments.uniform(0, alone.seconds) if killed < count else TIMEOUT)
            victim.hit(signal.SIGKILL)
            code = victim.ended()
            assert code in (0, -signal.SIGKILL)
            killed += epochs_in(checkpoint) != CONFIG.epochs  # otherwise it had no more to do
        assert victim.outcomes() == [alone.result()]
        assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
        if killed >= count:
            break
    tell(f"kill -9 {DRAWN}: {killed} inflicted, {killed} survived bit-identical")


@contextlib.contextmanager
def killed_while_writing(model, line, number):
    """kill -9 before a line of write_atomically, or at its end, in the number-th checkpoint."""
    calls = itertools.count(1)

    def inside(frame, event, _):
        if (event, frame.f_lineno) == ("line", line) or (event == "return" and line == END):
            os.kill(os.getpid(), signal.SIGKILL)
        return inside

    def outside(frame, *_):
        if frame.f_code is write_atomically.__code__ and next(calls) == number:
            return inside

    sys.settrace(outside)
    try:
        yield
    finally:
        sys.settrace(None)


SOURCE, FIRST = inspect.getsourcelines(write_atomically)
REPLACE, END = (FIRST + [w in s for s in SOURCE].index(True) for w in ("os.replace", "except"))
LINES = {n for *_, n in write_atomically.__code__.co_lines() if FIRST < (n or 0) < END} | {END}


@counts(5, 1000)
def test_a_kill_at_any_line_of_a_write_leaves_the_old_checkpoint_or_the_new(
    count, alone, start, places, tell
):
    aims = list(itertools.product(sorted(LINES), range(1, CONFIG.epochs + 2)))
    aims = random.Random(SEED).sample(aims, min(count, len(aims)))
    killed = 0
    for (line, number), checkpoint in zip([(REPLACE, 1), (END, 2), *aims], places, strict=False):
        victim = start(checkpoint, fault=partial(killed_while_writing, line=line, number=number))
        if victim.ended() == 0:
            continue  # a line for symbolic links
        assert victim.ended() == -signal.SIGKILL
        killed += 1
        epochs = number - (1 if line == END else 2)  # the first is written before an epoch
        assert epochs_in(checkpoint) == (epochs if epochs >= 0 else None)
        assert start(checkpoint).outcomes() == [alone.result()]
        assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
    tell(f"kill -9 in the writing {DRAWN}: {killed} inflicted, {killed} survived bit-identical")


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
    yield from (content + b"\0", bytes(len(content)), b"<!DOCTYPE html>\n<html>404 Not Found")


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
    tell(f"damaged checkpoints {DRAWN}: {len(contents)} tried, all noticed and set aside")


def saved(state, **options):
    """torch.save's bytes."""
    torch.save(state, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def put(checkpoint, payload):
    """Write a checkpoint with the right SHA-256."""
    checkpoint.write_bytes(sha256(payload).hexdigest().encode() + b"\n" + payload)


def outcome(run, checkpoint):
    """What train gives; or the one sentence that refuses the checkpoint, with nothing touched."""
    before = checkpoint.read_bytes(), digest(run.model.state_dict())
    try:
        return train(run, checkpoint)
    except ValueError as error:
        sentence = f".*{checkpoint} .{{1,700}} It was .{{8,10}}; choose another path, or .{{12,50}}"
        assert re.fullmatch(sentence, str(error)), error
        assert before == (checkpoint.read_bytes(), digest(run.model.state_dict())), error
        return str(error)


def refuses(run, checkpoint, reason):
    """Whether the checkpoint is refused for this reason."""
    return re.search(reason, str(outcome(run, checkpoint)))


class Evil(namedtuple("Evil", "marker")):
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


LEGACY = partial(saved, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("dump", [partial(pickle.dumps, protocol=2), saved, LEGACY])
def test_code_in_a_checkpoint_is_never_run(dump, alone, tmp_path):
    marker, checkpoint = tmp_path / "owned", tmp_path / "run.ckpt"
    payload = dump(loaded(alone.files[1]) | {"history": Evil(marker)})
    put(checkpoint, payload)
    assert refuses(new_run(), checkpoint, "is no checkpoint of this project")
    assert not marker.exists()
    with contextlib.suppress(RuntimeError):  # of a plain pickle, torch takes its first object only
        torch.load(io.BytesIO(payload), weights_only=False)
    assert marker.exists(), "the payload was harmless: this test tested nothing"


def test_a_checkpoint_from_a_gpu_loads_where_there_is_none(tmp_path, monkeypatch):
    """It says of each tensor where that lay; "cuda:9" is nowhere here."""
    weights = torch.rand(3)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:9")
        save_checkpoint(tmp_path / "run.ckpt", {"weights": weights})
    found = load_checkpoint(tmp_path / "run.ckpt")["weights"]
    assert found.device.type == "cpu" and torch.equal(found, weights)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_a_difference(bad):
    here, there = {"weight": torch.zeros(4)}, {"weight": torch.tensor([0, 1, bad, 3])}
    assert differences(there, here) == ["weight holds NaN or infinity there"]


@pytest.mark.parametrize("payload", [b"", b"weights", b'{"model": 1}', saved({})[:-40]])
def test_a_file_that_is_no_checkpoint_is_refused(payload, tmp_path):
    put(tmp_path / "run.ckpt", payload)
    assert refuses(new_run(), tmp_path / "run.ckpt", "is no checkpoint of this project")


# --- other runs -----------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    ("difference", "other"),
    [
        ("parameters.0.0 is 'entry.weight'", {"order": "norm entry left relu right flat out"}),
        ("parameters.4.0 is 'left.weight'", {"order": "entry norm right relu left flat out"}),
        (r"modules is 'Sequential\(", {"order": ORDER.replace("relu", "tanh")}),
        ("config.seed is 42 there and 7 here", {"config": replace(CONFIG, seed=7)}),
        ("config.gamma is 0.1 there and 0.5 here", {"config": replace(CONFIG, gamma=0.5)}),
        ("config.epochs is 3 there and 9 here", {"config": replace(CONFIG, epochs=9)}),
        ("train.checksum is 'noise 0' there and 'noise 1' here", {"data": 1}),
        ("train.batches is 2 there and 1 here", {"count": 1}),
    ],
)
@pytest.mark.parametrize("epochs", [1, CONFIG.epochs])
def test_a_checkpoint_of_another_run_is_left_alone(other, difference, epochs, tmp_path):
    files, _ = left_alone(tiny_run(), tmp_path / "run.ckpt")
    (tmp_path / "run.ckpt").write_bytes(files[epochs])
    assert refuses(tiny_run(**other), tmp_path / "run.ckpt", f"another run: .*{difference}")


def test_variants_and_images_are_told_apart(alone, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(alone.files[1])
    assert refuses(new_run(variant="v1"), checkpoint, "variant is 'final' there and 'v1' here")
    assert refuses(new_run(data=1), checkpoint, "checksum is '[0-9a-f.]+' there and '[0-9a-f.]+'")


@pytest.mark.parametrize("name", ["threads", "torch", "processor", "onednn", "anything new"])
def test_a_checkpoint_from_another_environment_resumes_with_a_warning(name, tmp_path, monkeypatch):
    files, result = left_alone(tiny_run(), tmp_path / "run.ckpt")
    (tmp_path / "run.ckpt").write_bytes(files[2])
    here = TrainingHelper.environment(CPU) | {name: 64}
    monkeypatch.setattr(TrainingHelper, "environment", lambda _: here)
    with pytest.warns(UserWarning, match=f"elsewhere: {name} is .*. Training resumes, but not bit"):
        assert train(tiny_run(), tmp_path / "run.ckpt")["model"] == result["model"]


def resumes(new, checkpoint):
    """A run's checkpoints, from each of which it ends as one left alone."""
    files, result = left_alone(new(), checkpoint)
    for content in files:
        checkpoint.write_bytes(content)
        assert train(new(), checkpoint) == result
    return files


def test_a_one_cycle_run_resumes_where_its_rate_was(tmp_path):
    config = replace(CONFIG, schedule="one-cycle", learning_rate=0.01)
    resumes(partial(tiny_run, config=config), tmp_path / "run.ckpt")


def test_a_loader_without_a_length_resumes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingHelper, "length_hint", lambda _: 0)
    files = resumes(tiny_run, tmp_path / "run.ckpt")
    for more in (1, -8, 1000):
        state = loaded(files[2])
        for adam in state["optimizer"].values():
            adam["step"] += more
        put(tmp_path / "run.ckpt", saved(state))
        assert refuses(tiny_run(), tmp_path / "run.ckpt", "optimizer: the steps it has taken")


def test_a_loader_without_checksum_gets_no_checkpoint(tmp_path):
    run = tiny_run()
    del run.test_loader.checksum
    with pytest.raises(ValueError, match="a loader has no attribute checksum: make the loaders by"):
        train(run, tmp_path / "run.ckpt")
    assert len(train(run, None)["history"]["epochs"]) == CONFIG.epochs


# --- mutations, each with the right SHA-256 -------------------------------------------------------

(ENDLESS := []).append(ENDLESS)
ANYTHING = [
    *(None, True, -1, 0, 1, 7, 2**63, 10**600, 0.5, -0.5, 1e308, float("nan"), float("inf"), 1j),
    *("", "x" * 10**6, "a\nb" * 9, b"x", [], {}, (1,), {1}, [[0]], {"a": 1}, OrderedDict(a=1)),
    *(torch.zeros(()), torch.zeros(3), torch.zeros(0), torch.float16, torch.Size([1]), ENDLESS),
]
KEYS = ("x", "x" * 10**6, 99, 0.5, None, (1,), torch.zeros(2), torch.zeros(1))
DTYPES = (torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool)
DTYPES += (torch.complex64, torch.float8_e4m3fn)


def mutants(value):
    """What to put in a value's place: whatever torch.load lets through, and near misses."""
    found = list(ANYTHING)
    match value:
        case torch.Tensor():
            found += tensor_mutants(value)
        case dict():
            found += [{k: v for k, v in value.items() if k != key} for key in value]
            found += [{**value, key: 0} for key in KEYS]
            found += [{kind(k): v for k, v in value.items()} for kind in (str, repr)]
            found += [{(k,): v for k, v in value.items()}]
            found += [dict(reversed(value.items())), overloaded := OrderedDict(value)]
            overloaded.__dict__.update(get=1, copy=1, _metadata=1)
            if 0 in value:  # Adam's state, with one tensor in several places
                found += [{k: {**v, "step": value[0]["step"]} for k, v in value.items()}]
            if "exp_avg_sq" in value:
                found += [{**value, "exp_avg_sq": -value["exp_avg_sq"] - 1e-6}]
        case list():
            found += [value[:i] + value[i + 1 :] for i in range(len(value))]
            found += [value + value[-1:], [*value, None], value[::-1], tuple(value)]
        case int() | float():
            found += [str(value), [value], value + 1, int(value), float(value)]
        case str():
            found += [[value], value + " ", value.encode()]
    return found


def tensor_mutants(t):
    """Tensors of another dtype, shape, kind or layout, or with a value that cannot be."""
    flat = t.flatten()
    found = [t.to(dtype) for dtype in DTYPES if dtype != t.dtype]
    shapes = [t[None], t[..., None], flat[:0], t.expand(2, *t.shape), flat[:1].expand(2**40)]
    shapes += [flat, t.transpose(0, -1) if t.ndim else flat]
    found += [new for new in shapes if new.shape != t.shape]
    found += [nn.Parameter(t.float()), t.to("meta"), t.to_sparse(), t.untyped_storage(), [t]]
    found += [torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8)]
    for layout in (torch.strided, torch.jagged):
        found.append(torch.nested.nested_tensor([flat.float()] * 2, layout=layout))
    # The same values, which lie elsewhere in memory.
    found += [torch.stack([t, t], -1)[..., 0], t.clone(memory_format=torch.contiguous_format)]
    if t.is_floating_point():
        found += [t.clone().requires_grad_(), torch.complex(t, -t).conj().imag]
        for bad in (torch.nan, torch.inf, -torch.inf):
            found.append(torch.cat([flat[:-1], torch.full((1,), bad)]).view(t.shape))
        found += [-t, t * 0, t + 1, t * 1e30] if t.ndim == 0 else []  # Adam's steps
    return found


def is_undetectable(path, old, new):
    """Whether nothing could tell: plausible numbers in place of those that a past epoch gave.

    Neither could anything tell other finite values in a tensor: no mutant has them.
    """
    match path:
        case ("history", "epochs"):
            return isinstance(new, list) and new == old[::-1]
        case ("history", "epochs", _, "learning_rate"):
            return False  # follows from the config
        case ("history", "epochs" | "train_images" | "mistakes", *_):
            return isinstance(new, list) or (type(new) in (int, float) and new >= 0)
    return False


def places_in(tree, path=()):
    """Every place in a tree of dicts and lists: what holds it, its key there, its path."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key, (*path, key)
        if isinstance(tree[key], dict | list):
            yield from places_in(tree[key], (*path, key))


def try_mutants(pipe, checkpoint, new, epochs, count):
    """Train from mutated checkpoints of a run; send the name of each, then what came of it."""
    warnings.simplefilter("ignore")
    files, expected = left_alone(new(), checkpoint)
    for content in (files[e] for e in epochs):
        checkpoint.write_bytes(content)
        assert outcome(new(), checkpoint) == expected  # unmutated
        sizes = [len(mutants(tree[key])) for tree, key, _ in places_in([loaded(content)])]
        aims = [(place, number) for place, size in enumerate(sizes) for number in range(size)]
        for place, number in random.Random(SEED).sample(aims, min(count, len(aims))):
            tree, key, path = list(places_in(root := [loaded(content)]))[place]
            mutant = mutants(tree[key])[number]
            if is_undetectable(path[1:], tree[key], mutant):
                continue
            pipe.send(f"{path[1:]}, number {number}: {reprlib.repr(mutant)}")
            tree[key] = mutant
            put(checkpoint, saved(root[0]))
            try:
                came = outcome(new(), checkpoint)
                refused = "refused" if isinstance(came, str) else "it trained another run"
                pipe.send("resumed" if came == expected else refused)
            except BaseException as error:
                pipe.send(repr(error))


@pytest.mark.parametrize("new", [tiny_run, new_run])
@counts(100, 2000)
def test_no_mutated_checkpoint_crashes_hangs_or_trains_another_run(
    new, count, start, tmp_path, tell
):
    epochs, count = ((0, 2, 3), count) if new is tiny_run else ((2,), count // 2)
    victim = start(tmp_path / "run.ckpt", target=try_mutants, new=new, epochs=epochs, count=count)
    said = []
    with contextlib.suppress(EOFError):
        while victim.pipe.poll(TIMEOUT):
            said.append(victim.pipe.recv())
    assert victim.ended(0.1 * TIMEOUT) == 0, f"it hangs or died: {said[-1]}"
    tried = list(zip(said[::2], said[1::2], strict=True))
    assert not [(name, came) for name, came in tried if came not in ("refused", "resumed")]
    sums = Counter(came for _, came in tried)
    assert sums["refused"] > sums["resumed"]
    tell(
        f"mutated checkpoints {DRAWN}: {sums.total()} tried, {sums['refused']} refused, "
        f"{sums['resumed']} resumed bit-identical"
    )


# --- no room, no rights, no file ------------------------------------------------------------------


def test_a_full_disk_costs_no_epoch_that_was_kept(alone, tmp_path):
    checkpoint, run = tmp_path / "run.ckpt", new_run()
    disk = contextlib.ExitStack()
    fills = at_pass(run.model, PASSES + 3, lambda: disk.enter_context(full_disk()))
    with disk, fills, pytest.raises(OSError, match=r"cannot write .*run\.ckpt \(.*\): make room"):
        train(run, checkpoint)
    assert digest(load_checkpoint(checkpoint)) == alone.states[1]
    assert list(tmp_path.iterdir()) == [checkpoint]
    assert digest(run.model.state_dict()) == alone.states[1]["model"]
    assert train(run, checkpoint) == alone.result()


def write_checkpoint(path):
    save_checkpoint(path, {"weights": torch.zeros(10_000)})


@pytest.mark.parametrize(
    ("use", "fault", "said"),
    [
        (write_checkpoint, full_disk, "cannot write .*file"),
        (write_checkpoint, no_rights, "cannot write .*file"),
        (history([98.0] * 100).save, full_disk, "cannot write .*file"),
        (history([98.0] * 100).save, no_rights, "cannot write .*file"),
        (load_checkpoint, no_rights, "file is damaged and cannot be renamed"),
    ],
)
def test_a_file_that_cannot_be_written_or_renamed_stays_as_it_was(use, fault, said, public_folder):
    path = public_folder / "file"
    path.write_bytes(b"precious")
    public_folder.chmod(0o555)
    with fault(), pytest.raises(OSError, match=rf"{said} \(.+\): make "):
        use(path)
    assert path.read_bytes() == b"precious"
    assert list(public_folder.iterdir()) == [path]


@pytest.mark.parametrize("place", ["file/run.ckpt", "file/below/run.ckpt"])
def test_a_place_that_cannot_be_written_is_found_before_training(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"precious")
    monkeypatch.setattr(TrainingHelper, "_train_epoch", lambda *_: pytest.fail("it trained"))
    with pytest.raises(OSError, match=r"cannot write .*run\.ckpt \(.+\): make room there, "):
        train(tiny_run(), tmp_path / place)
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_checkpoint_that_is_no_file_is_refused_and_never_waited_for(make, start, tmp_path):
    make(tmp_path / "run.ckpt")
    [outcome] = start(tmp_path / "run.ckpt").outcomes()  # in its own process: a pipe would block
    assert f"ValueError('{tmp_path}/run.ckpt is no file; choose" in outcome["error"]


def test_a_checkpoint_that_is_a_symbolic_link_stays_one(tmp_path):
    link, target = tmp_path / "run.ckpt", tmp_path / "elsewhere" / "run.ckpt"
    link.symlink_to(target)
    _, result = left_alone(tiny_run(), link)
    assert link.is_symlink() and epochs_in(target) == CONFIG.epochs
    target.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"it is kept as run\.ckpt\.damaged"):
        assert train(tiny_run(), link) == result
    assert link.is_symlink() and epochs_in(target) == CONFIG.epochs
    assert (tmp_path / "elsewhere" / "run.ckpt.damaged").read_bytes() == b"damaged"


# --- one checkpoint, many readers and writers -----------------------------------------------------


@counts(2, 4)
def test_processes_that_share_a_checkpoint_all_end_as_one_alone(
    count, alone, start, tmp_path, tell
):
    checkpoint = tmp_path / "run.ckpt"
    victims = [start(checkpoint) for _ in range(count)]
    assert [victim.outcomes() for victim in victims] == [[alone.result()]] * count
    assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
    assert list(tmp_path.iterdir()) == [checkpoint]
    tell(f"processes on one checkpoint: {count} at once, {count} ended bit-identical")


def test_a_run_without_a_checkpoint_ends_in_the_same_bits(alone):
    assert train(new_run(), None) == alone.result()


def test_a_finished_run_is_loaded_and_not_trained_again(alone, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(alone.files[-1])
    run = new_run()
    monkeypatch.delattr(type(run.train_loader), "__iter__")  # no loader can be read
    assert train(run, checkpoint) == alone.result()
    assert checkpoint.read_bytes() == alone.files[-1]


def test_writing_a_checkpoint_takes_under_100_ms(alone, tmp_path):
    state = loaded(alone.files[-1])
    write = partial(save_checkpoint, tmp_path / "run.ckpt", state)
    assert statistics.median(timeit.repeat(write, repeat=9, number=1)) < 0.1
    assert json.dumps(state["history"])  # and nothing in it but what JSON holds
