"""What a checkpoint survives: kills, damage, other runs, odd places, full disks, company."""

import contextlib
import inspect
import io
import json
import os
import pickle
import random
import signal
import sys
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from torch import nn

import TrainingHelper
from helpers import run as run_state
from helpers.checkpoint import code_digest, load_checkpoint, save_checkpoint, weights_digest
from tests.helpers import CPU, DRAWN, SEED, counts, full_disk, no_rights
from tests.victims import (
    CONFIG,
    ORDER,
    Victim,
    at_pass,
    digest,
    epochs_in,
    interrupted_after,
    left_alone,
    loaded,
    new_run,
    outcome,
    refuses,
    saved,
    tiny_run,
    train,
    with_digest,
)

pytest_plugins = ["tests.victims"]

# --- kill -9 --------------------------------------------------------------------------------------


@counts(2, 30)
def test_a_run_killed_at_random_moments_ends_as_one_left_alone(count, alone, places, tell):
    moments, killed = random.Random(SEED), 0
    for checkpoint in places:
        code = None
        while code != 0:
            victim = Victim(checkpoint, workers=killed % 3)
            if killed < count:
                victim.ended(moments.uniform(0, alone.seconds))
                (victim.process.terminate if killed % 2 else victim.process.kill)()
            code = victim.ended()
            assert code in (0, -signal.SIGKILL, -signal.SIGTERM)
            killed += epochs_in(checkpoint) != CONFIG.epochs  # otherwise it had no more to do
        assert victim.result() == alone.result()
        assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
        if killed >= count:
            break
    tell(f"SIGKILL, SIGTERM {DRAWN}: {killed} inflicted, {killed} survived bit-identical")


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
        with pytest.warns(UserWarning, match=r"is damaged .*run\.ckpt\.damaged"):
            assert load_checkpoint(checkpoint) is None
        assert aside.read_bytes() == content
        aside.unlink()
        assert list(tmp_path.iterdir()) == []
    tell(f"damaged checkpoints {DRAWN}: {len(contents)} tried, all noticed and set aside")


class Evil(namedtuple("Evil", "marker")):
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path):
    marker, checkpoint = tmp_path / "owned", tmp_path / "run.ckpt"
    evil = saved(Evil(marker))
    for content in (evil, with_digest(pickle.dumps(Evil(marker), 2)), with_digest(b"{}")):
        checkpoint.write_bytes(content)
        assert refuses(tiny_run(), checkpoint, "is no checkpoint of this project")
    assert not marker.exists()
    torch.load(io.BytesIO(evil[65:]), weights_only=False)
    assert marker.exists(), "the payload was harmless: this test tested nothing"


def test_a_checkpoint_from_a_gpu_loads_where_there_is_none(tmp_path, monkeypatch):
    """It says of each tensor where that lay; "cuda:9" is nowhere here."""
    weights = torch.rand(3)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:9")
        save_checkpoint(tmp_path / "run.ckpt", {"weights": weights})
    found = load_checkpoint(tmp_path / "run.ckpt")["weights"]
    assert found.device.type == "cpu" and torch.equal(found, weights)


# What the right SHA-256 may vouch for, and no run has written.
MUTANTS = [
    lambda state: state["model"].clear(),
    lambda state: state["optimizer"][0].update(exp_avg=torch.zeros(1)),  # fused Adam trusts it
    lambda state: state["history"].update(epochs="x"),
]


@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_mutated_checkpoint_is_refused(mutate, tmp_path):
    files, _ = left_alone(tiny_run(), tmp_path / "run.ckpt")
    state = loaded(files[2])
    mutate(state)
    (tmp_path / "run.ckpt").write_bytes(saved(state))
    assert refuses(tiny_run(), tmp_path / "run.ckpt", "another run")


# --- other runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "other"),
    [
        ("parameters.0.0 is 'entry.weight'", {"order": "norm entry left relu right flat out"}),
        ("parameters.4.0 is 'left.weight'", {"order": "entry norm right relu left flat out"}),
        (r"modules is 'Sequential\(", {"order": ORDER.replace("relu", "tanh")}),
        ("config.seed is 42 there and 7 here", {"config": replace(CONFIG, seed=7)}),
        ("config.setting is 'from the page'", {"config": replace(CONFIG, setting="as run")}),
        ("train.checksum is 'noise 0' there", {"data": 1}),
        ("train.batches is 2 there and 1 here", {"count": 1}),
    ],
)
def test_a_checkpoint_of_another_run_is_left_alone(other, difference, tmp_path):
    left_alone(tiny_run(), tmp_path / "run.ckpt")
    assert refuses(tiny_run(**other), tmp_path / "run.ckpt", f"another run: .*{difference}")


def test_variants_and_images_are_told_apart(alone, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(alone.files[1])
    assert refuses(new_run(variant="v1"), checkpoint, "variant is 'final' there and 'v1' here")
    assert refuses(new_run(data=1), checkpoint, "checksum is '[0-9a-f.]+' there and '[0-9a-f.]+'")


CELL = """
class Multiplied(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * {}

class Mine(Multiplied):
    pass

Multiplied.__module__ = Mine.__module__ = "__main__"  # as in a kernel
"""


def test_another_forward_typed_into_a_notebook_is_another_run(tmp_path):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.user_ns["nn"] = nn

    def run(factor):
        shell.run_cell(CELL.format(factor)).raise_error()
        run = tiny_run()
        return run._replace(model=shell.user_ns["Mine"](*run.model))

    left_alone(run(2), tmp_path / "run.ckpt")
    assert isinstance(outcome(run(2), tmp_path / "run.ckpt"), dict)
    assert refuses(run(3), tmp_path / "run.ckpt", "another run: code is")


@pytest.mark.parametrize(
    "name", ["DataPipeline", "TrainingHelper", "helpers.batches", "helpers.run", "models"]
)
def test_another_source_of_what_a_run_goes_through_is_another_run(
    name, alone, tmp_path, monkeypatch
):
    (tmp_path / "run.ckpt").write_bytes(alone.files[1])
    other, real = sys.modules[name], inspect.getsource
    changed = {other: real(other) + "# changed"}
    monkeypatch.setattr(inspect, "getsource", lambda it: changed.get(it) or real(it))
    assert refuses(new_run(), tmp_path / "run.ckpt", "another run: code is")


def test_the_code_is_ours_alone_and_no_matter_of_order():
    parts = [TrainingHelper, run_state, *new_run().model.modules()]
    assert code_digest(*parts) == code_digest(*parts[::-1], nn.Linear(1, 1))


def test_weights_have_one_digest_whatever_their_layout_and_another_for_every_bit():
    model = new_run().model
    before = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last)) == before
    model.head[-1].bias.data.view(torch.int32)[3] ^= 1
    assert weights_digest(model) != before != weights_digest(new_run().model.double())


def test_a_checkpoint_from_another_environment_resumes_with_a_warning(tmp_path, monkeypatch):
    files, result = left_alone(tiny_run(), tmp_path / "run.ckpt")
    (tmp_path / "run.ckpt").write_bytes(files[2])
    here = TrainingHelper.environment(CPU) | {"threads": 64, "anything new": 1}
    monkeypatch.setattr(run_state, "environment", lambda _: here)
    with pytest.warns(UserWarning, match="threads is 1 there and 64 .*; anything new .*resumes"):
        assert train(tiny_run(), tmp_path / "run.ckpt")["model"] == result["model"]


@pytest.mark.parametrize(
    ("schedule", "has_length"), [("step", True), ("step", False), ("one-cycle", True)]
)
def test_a_run_resumes_from_each_of_its_epochs_to_the_same_end(
    schedule, has_length, tmp_path, monkeypatch
):
    config = replace(CONFIG, schedule=schedule, learning_rate=0.01, step_size=1)
    if not has_length:
        monkeypatch.setattr(run_state, "length_hint", lambda _: 0)
    files, result = left_alone(tiny_run(config=config), tmp_path / "run.ckpt")
    rates = [record["learning_rate"] for record in result["history"]["epochs"]]
    assert len(files) == CONFIG.epochs + 1 and len(set(rates)) == len(rates)
    for content in files:
        (tmp_path / "run.ckpt").write_bytes(content)
        assert train(tiny_run(config=config), tmp_path / "run.ckpt") == result


def test_a_loader_without_checksum_gets_no_checkpoint(tmp_path):
    run = tiny_run()
    del run.test_loader.checksum
    with pytest.raises(ValueError, match="no attribute checksum"):
        train(run, tmp_path / "run.ckpt")
    assert train(run, None)["model"] == train(tiny_run(), tmp_path / "run.ckpt")["model"]


# --- no room, no rights, no file ------------------------------------------------------------------


def test_a_full_disk_costs_no_epoch_that_was_kept(tmp_path):
    files, result = left_alone(tiny_run(), tmp_path / "left alone")
    checkpoint, run = tmp_path / "below" / "run.ckpt", tiny_run()
    disk = contextlib.ExitStack()
    fills = at_pass(run.model, 6, lambda: disk.enter_context(full_disk()))  # in the second epoch
    with disk, fills, pytest.raises(OSError, match=r"cannot write .*run\.ckpt"):
        train(run, checkpoint)
    kept = digest(loaded(files[1]))
    assert digest(load_checkpoint(checkpoint)) == kept
    assert digest(run.model.state_dict()) == kept["model"]
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert train(run, checkpoint) == result


def test_a_damaged_checkpoint_that_cannot_be_set_aside_is_named_and_kept(public_folder):
    path = public_folder / "run.ckpt"
    path.write_bytes(b"precious")
    public_folder.chmod(0o555)
    with no_rights(), pytest.raises(OSError, match=f"{path} is damaged and cannot be renamed"):
        load_checkpoint(path)
    assert path.read_bytes() == b"precious" and list(public_folder.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_found_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"precious")
    monkeypatch.setattr(TrainingHelper, "_train_epoch", lambda *_: pytest.fail("it trained"))
    with pytest.raises(OSError, match=r"cannot write .*run\.ckpt"):
        train(tiny_run(), tmp_path / "file" / "below" / "run.ckpt")
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_a_checkpoint_that_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(checkpoint := tmp_path / "run.ckpt")
    with interrupted_after(20), pytest.raises(OSError, match=f"no regular file.*{checkpoint}"):
        train(tiny_run(), checkpoint)


def test_a_checkpoint_that_is_a_symbolic_link_stays_one(tmp_path):
    link, target = tmp_path / "run.ckpt", tmp_path / "elsewhere" / "run.ckpt"
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    link.symlink_to(target)
    with pytest.warns(UserWarning, match=r"run\.ckpt\.damaged"):
        train(tiny_run(), link)
    assert link.is_symlink() and epochs_in(target) == CONFIG.epochs
    assert (tmp_path / "elsewhere" / "run.ckpt.damaged").read_bytes() == b"damaged"


# --- one checkpoint, many readers and writers -----------------------------------------------------


@pytest.mark.slow
@counts(2, 4)
def test_processes_that_share_a_checkpoint_all_end_as_one_alone(count, alone, tmp_path, tell):
    checkpoint = tmp_path / "run.ckpt"
    victims = [Victim(checkpoint) for _ in range(count)]
    assert [victim.result() for victim in victims] == [alone.result()] * count
    assert digest(load_checkpoint(checkpoint)) == alone.states[-1]
    assert list(tmp_path.iterdir()) == [checkpoint]
    tell(f"processes on one checkpoint: {count} at once, {count} ended bit-identical")


def test_a_finished_run_is_loaded_and_not_trained_again(alone, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run.ckpt"
    checkpoint.write_bytes(alone.files[-1])
    run = new_run()
    monkeypatch.delattr(type(run.train_loader), "__iter__")  # no loader can be read
    assert train(run, checkpoint) == alone.result()
    assert checkpoint.read_bytes() == alone.files[-1]
    assert json.dumps(loaded(alone.files[-1])["history"])  # nothing in it but what JSON holds
