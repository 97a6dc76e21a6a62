"""Runs that are killed, interrupted or out of room end as ones left alone; others are refused."""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

import DataPipeline
import TrainingHelper
from DataPipeline import MNIST, make_loaders
from helpers.checkpoint import load_checkpoint, weights_digest
from tests.helpers import CPU, PROJECT, build, full_disk, no_rights, without_seconds
from TrainingHelper import TrainingConfig, fit

pytestmark = pytest.mark.filterwarnings("error:the checkpoint")  # but where one is expected
CONFIG = TrainingConfig(epochs=3, step_size=1)


class Batches:
    """A loader of two batches of noise, the same in every epoch."""

    augmentation = None

    def __init__(self, config, data=0):
        noise, labels = torch.Generator().manual_seed(data), torch.arange(4)
        self.batches = [(torch.randn(4, 1, 28, 28, generator=noise), labels) for _ in range(2)]
        self.config, self.checksum, self.at_start = config, f"noise {data}", lambda epoch: None

    def __len__(self):
        return len(self.batches)

    def set_epoch(self, epoch):
        self.at_start(epoch)

    def __iter__(self):
        return iter(self.batches)


def tiny_run(config=CONFIG, activation=nn.ReLU, **loader):
    """What fit takes for a run of some milliseconds: model, loaders, config."""
    torch.manual_seed(config.seed)
    layers = nn.Conv2d(1, 2, 7, stride=7), nn.BatchNorm2d(2), activation(), nn.Dropout(0.2)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))
    return model, Batches(config, **loader), Batches(config), config


def train(run, checkpoint, progress=False, **options):
    """The history that fit returns, without seconds; it must be the model's."""
    history = fit(*run, CPU, checkpoint, progress, **options)
    assert history.weights == (weights_digest(run[0]) if history.epochs else None)
    return asdict(history) | {"epochs": without_seconds(history)}


def left_alone(run, checkpoint, **options):
    """Train undisturbed: the checkpoint's bytes after 0, 1, ... epochs; the history."""
    files = []
    run[1].at_start = lambda epoch: files.append(checkpoint.read_bytes())
    history = train(run, checkpoint, **options)
    return [*files, checkpoint.read_bytes()], history


def refused(run, checkpoint, reason, error=ValueError, **options):
    """Assert that fit refuses the checkpoint, and changes neither it nor the network."""
    before = checkpoint.read_bytes(), weights_digest(run[0])
    with pytest.raises(error, match=reason) as caught:
        train(run, checkpoint, **options)
    assert str(checkpoint) in str(caught.value)
    assert before == (checkpoint.read_bytes(), weights_digest(run[0]))


def own_sgd(model):
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    cycle = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6, cycle_momentum=True)
    return {"optimizer": optimizer, "scheduler": cycle, "interval": "step"}


ONE_CYCLE = {"config": replace(CONFIG, schedule="one-cycle")}
RUNS = [(None, {}), (None, ONE_CYCLE), (own_sgd, {})]


@pytest.mark.parametrize(("own", "options"), RUNS)
def test_a_run_resumes_from_each_of_its_epochs_to_the_same_end(own, options, tmp_path):
    def new_run():
        run = tiny_run(**options)
        return {"run": run, "checkpoint": tmp_path / "run.ckpt", **(own(run[0]) if own else {})}

    files, expected = left_alone(**new_run())
    rates = [record["learning_rate"] for record in expected["epochs"]]
    assert len(files) == CONFIG.epochs + 1 and len(set(rates)) == len(rates)
    for content in files:
        (tmp_path / "run.ckpt").write_bytes(content)
        assert train(**new_run()) == expected


def long_run(checkpoint):
    """A run of a second, with threads that prepare its batches in many chunks."""
    DataPipeline.TRAIN_CHUNK, noise = 64, torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (700, 1, 28, 28), dtype=torch.uint8, generator=noise)
    data = MNIST(images, torch.arange(700) % 10, images[:50], torch.arange(50) % 10)
    run = (build("final"), *make_loaders(data, CONFIG, CPU, num_workers=2), CONFIG)
    print("ready", flush=True)
    return train(run, checkpoint)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(DataPipeline, "TRAIN_CHUNK", None)  # long_run sets it
    started, kills = time.perf_counter(), 0
    expected = long_run(tmp_path / "left alone")
    seconds = time.perf_counter() - started
    code = "import json, sys, tests.test_resume as t; print(json.dumps(t.long_run(sys.argv[1])))"
    command = [sys.executable, "-W", "error:the checkpoint", "-c", code, tmp_path / "run.ckpt"]
    for moment in (random.uniform(0, seconds / 2), random.uniform(0, seconds / 2), 300):
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                printed, _ = process.communicate(timeout=moment)
            kills += process.poll() is None
            process.kill()  # by SIGKILL
    assert kills and json.loads(printed) == expected


FAULTS = [
    ("batch", 2, 0, KeyboardInterrupt),
    ("batch", 11, 2, KeyboardInterrupt),  # an epoch has two training and two test batches
    ("digest", 2, 1, KeyboardInterrupt),  # of the weights, while fit writes the history
    ("callback", 3, 3, KeyboardInterrupt),
    ("batch", 7, 1, ZeroDivisionError),
    *(("batch", call, 1, FloatingPointError) for call in (6, 8)),
]


@pytest.mark.parametrize(("place", "call", "epochs", "error"), FAULTS)
def test_what_breaks_a_run_off_costs_one_epoch_at_most(
    place, call, epochs, error, tmp_path, monkeypatch
):
    _, expected = left_alone(tiny_run(), tmp_path / "left alone")
    run, checkpoint = tiny_run(), tmp_path / "run.ckpt"
    calls = itertools.count(place != "batch")  # fit tries the network once before

    def strike(model, *_):
        if next(calls) == call:
            if error is not FloatingPointError:
                raise error
            model[-1].bias.data.fill_(math.inf)  # no loss is finite then
        return weights_digest(model) if place == "digest" else None

    if place == "batch":
        run[0].register_forward_pre_hook(strike)
    elif place == "digest":
        monkeypatch.setattr(TrainingHelper, "weights_digest", strike)
    with contextlib.nullcontext() if error is KeyboardInterrupt else pytest.raises(error):
        history = train(run, checkpoint, strike if place == "callback" else False)
        assert history["status"] == ("finished" if epochs == CONFIG.epochs else "interrupted")
        assert history["epochs"] == expected["epochs"][:epochs]
    kept = load_checkpoint(checkpoint)
    assert len(kept["history"]["epochs"]) == epochs
    assert all(torch.equal(kept["model"][k], v) for k, v in run[0].state_dict().items())
    assert train(run, checkpoint) == expected


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(tmp_path, monkeypatch):
    checkpoint, another = tmp_path / "run.ckpt", r"belongs to another run \(different: "
    left_alone(tiny_run(), checkpoint)
    refused(tiny_run(activation=nn.Tanh), checkpoint, another + "network")
    refused(tiny_run(replace(CONFIG, epochs=4)), checkpoint, another + "config")
    refused(tiny_run(data=1), checkpoint, another + "data")
    run = tiny_run()
    refused(run, checkpoint, another + "optimizer, scheduler", **own_sgd(run[0]))
    monkeypatch.setattr(TrainingHelper, "code_digest", lambda: "of another version")
    refused(run, checkpoint, another + "code")


def damaged(content):
    """Bad copies: a flipped bit, in the digest and after it; cut; lengthened; replaced."""
    for offset in (0, 63, 64, *random.sample(range(65, len(content)), 20)):
        yield content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]
    yield from (content[:size] for size in (0, 1, 64, 65, 66, len(content) // 2, -1))
    yield from (content + b"\0", bytes(len(content)), b"<!DOCTYPE html>\n<html>404 Not Found")


def test_a_damaged_checkpoint_is_noticed_before_unpickling_and_set_aside(tmp_path, monkeypatch):
    checkpoint, aside = tmp_path / "run.ckpt", tmp_path / "run.ckpt.damaged"
    files, expected = left_alone(tiny_run(), checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
        for content in damaged(files[1]):
            checkpoint.write_bytes(content)
            with pytest.warns(match=r"is damaged .* kept as run\.ckpt\.damaged"):
                assert load_checkpoint(checkpoint) is None
            assert aside.read_bytes() == content and not checkpoint.exists()
            aside.unlink()
    checkpoint.write_bytes(b"damaged")
    with pytest.warns(match=r"damaged, and training starts from the beginning"):
        assert train(tiny_run(), checkpoint) == expected


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path):
    marker, checkpoint = tmp_path / "owned", tmp_path / "run.ckpt"
    Evil.folder = str(marker)
    torch.save(Evil(), evil := io.BytesIO())
    torch.save({}, other := io.BytesIO())
    for payload in (evil.getvalue(), other.getvalue(), pickle.dumps(Evil(), 2), b"{}", b""):
        checkpoint.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
        refused(tiny_run(), checkpoint, "is no checkpoint of this project")
    assert not marker.exists()
    torch.load(io.BytesIO(evil.getvalue()), weights_only=False)
    assert marker.exists(), "the payload was harmless: this test tested nothing"


def test_a_checkpoint_from_another_environment_resumes_with_a_warning(tmp_path, monkeypatch):
    files, expected = left_alone(tiny_run(), tmp_path / "run.ckpt")
    ours = expected["environment"] | {"threads": 64}
    monkeypatch.setattr(TrainingHelper, "environment", lambda _: ours)
    assert train(tiny_run(), tmp_path / "run.ckpt") == expected  # it was finished there
    (tmp_path / "run.ckpt").write_bytes(files[2])
    with pytest.warns(match=r"another environment \(threads\): training resumes"):
        history = train(tiny_run(), tmp_path / "run.ckpt")
    assert history == expected | {"environment": ours}


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path, monkeypatch, capsys):
    files, expected = left_alone(tiny_run(), tmp_path / "run.ckpt")
    monkeypatch.delattr(Batches, "__iter__")  # no loader can be read
    assert train(tiny_run(), tmp_path / "run.ckpt", progress=True) == expected
    assert (tmp_path / "run.ckpt").read_bytes() == files[-1]
    assert "holds this run, complete: delete it to train again." in capsys.readouterr().out


def test_a_full_disk_costs_no_epoch_that_was_kept(tmp_path):
    files, expected = left_alone(tiny_run(), tmp_path / "left alone")
    checkpoint, run = tmp_path / "below" / "run.ckpt", tiny_run()
    with contextlib.ExitStack() as disk, pytest.raises(OSError, match=f"cannot write {checkpoint}"):
        run[1].at_start = lambda epoch: epoch == 2 and disk.enter_context(full_disk())
        train(run, checkpoint)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert checkpoint.stat().st_size == len(files[1]) > 4096
    assert len(load_checkpoint(checkpoint)["history"]["epochs"]) == 1
    assert train(tiny_run(), checkpoint) == expected


def test_a_place_that_cannot_be_written_is_noticed_before_training(public_folder):
    run, damaged = tiny_run(), public_folder / "damaged"
    run[1].at_start = lambda epoch: pytest.fail("it trained")
    damaged.write_bytes(b"damaged")
    public_folder.chmod(0o555)
    with no_rights(), pytest.raises(OSError, match=r"cannot write .*none"):
        train(run, public_folder / "none")
    with no_rights():
        refused(run, damaged, "is damaged and cannot be renamed", OSError)
    with pytest.raises(OSError, match=f"cannot read {public_folder}: it is no regular file"):
        train(run, public_folder)
