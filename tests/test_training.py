"""fit against a plain loop, its determinism, and what it is told before it starts."""

import copy
import dataclasses
import itertools
import math
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchsummary import summary

from DataPipeline import make_loaders
from helpers.checkpoint import weights_digest
from helpers.config import PROTOCOLS, derive_seed, get_device, memory_format, set_seed
from helpers.run import EarlyStopping, status
from tests.helpers import CPU, PROJECT, bits, build, same_bits, without_seconds
from TrainingHelper import TrainingConfig, compute_logits, evaluate, fit

AS_RUN = {"setting": "as run"}


def train(data, config, name="final", **options):
    model = build(name, config.seed, config.setting)
    loaders = make_loaders(data, config, CPU, num_workers=0)
    return model, fit(model, *loaders, config, CPU, progress=False, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v1", {}),
        ("final", {}),
        (
            "two_pools",
            {
                "schedule": "one-cycle",
                "warm_up": 0.4,
                "beta2": 0.9,
                "setting": "recipe",
                "augmentation": "wide",
            },
        ),
        ("v1", {"setting": "as run", "watch": "test_accuracy"}),
    ],
)
def test_fit_does_what_the_plain_loop_does(small, name, options):
    """The loop every reader would write, with the same batches and the same dropout masks."""
    config = TrainingConfig(epochs=3, step_size=2, weight_decay=0.1, learning_rate=0.002, **options)
    schedule = config.schedule
    small = small.first(140)  # so that the last batch is a smaller one
    ours, history = train(small, config, name)

    # Another memory format or Adam kernel rounds otherwise, which a few steps blow up.
    model = build(name, setting=config.setting).to(memory_format=torch.channels_last)
    train_loader, test_loader = make_loaders(small, config, CPU, num_workers=0)
    kind = torch.optim.Adam if schedule == "step" else torch.optim.AdamW
    betas = (0.9, config.beta2)
    optimizer = kind(model.parameters(), lr=0.002, betas=betas, weight_decay=0.1, fused=True)
    if schedule == "step":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.002, epochs=3, steps_per_epoch=5, pct_start=0.4, cycle_momentum=False
        )
    for epoch in (1, 2, 3):
        torch.manual_seed(derive_seed(42, epoch))
        train_loader.set_epoch(epoch)
        model.train()
        loss_sum = hits = seen = 0
        for images, labels in train_loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            if schedule == "one-cycle" and scheduler.last_epoch < 14:
                scheduler.step()
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
        record = history.epochs[epoch - 1]
        assert record["learning_rate"] == scheduler.get_last_lr()[0]
        if schedule == "step":
            scheduler.step()
        assert record["train_loss"] == pytest.approx(loss_sum / seen)
        assert record["train_accuracy"] == pytest.approx(100 * hits / seen)
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(images) for images, _ in test_loader])
        labels = small.test_labels
        assert record["test_loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
        accuracy = 100 * (logits.argmax(1) == labels).double().mean().item()
        assert record["test_accuracy"] == pytest.approx(accuracy)
    assert same_bits(bits(ours), bits(model))
    wrong = (logits.argmax(1) != labels).nonzero().flatten().tolist()
    assert history.mistakes == [(index, logits[index].argmax().item()) for index in wrong]
    assert (history.train_images, history.weights) == (140, weights_digest(model))
    assert (history.variant, history.setting, history.status) == (name, config.setting, "finished")


def test_labels_may_be_probabilities_of_which_the_likeliest_digit_counts(small):
    """One-hot ones train alike, to rounding, and so does the last batch of a smaller size."""
    config = TrainingConfig(epochs=1)
    _, expected = train(small, config)
    loader, test_loader = make_loaders(small, config, CPU, num_workers=0)
    loader.set_epoch(1)
    one_hot = [(images, F.one_hot(labels, 10).float()) for images, labels in loader]
    history = fit(build(), one_hot, test_loader, config, CPU, progress=False)
    for key in ("train_loss", "train_accuracy", "test_loss"):
        assert history.epochs[0][key] == pytest.approx(expected.epochs[0][key], rel=1e-4)
    images, labels = one_hot[0]
    for wrong in (labels / 2, labels - 0.1, labels[:, 1:], labels.double(), labels * math.nan):
        with pytest.raises(ValueError, match="batch 1 of the train loader"):
            fit(build(), [(images, wrong)], test_loader, config, CPU, progress=False)
    with pytest.raises(ValueError, match="batch 1 of the test loader"):
        fit(build(), one_hot, one_hot, config, CPU, progress=False)


def test_nothing_but_the_seed_changes_a_bit(small):
    """Not what was summarized, iterated or set between building and fitting."""
    config, small = TrainingConfig(epochs=2), small.first(160)
    undisturbed, expected = train(small, config)
    other, _ = train(small, dataclasses.replace(config, seed=43))
    assert not same_bits(bits(other), bits(undisturbed))

    model = build()
    loaders = make_loaders(small, config, CPU, num_workers=2)
    summary(copy.deepcopy(model), (1, 28, 28), device="cpu")
    for loader in loaders:
        list(loader)
    next(iter(loaders[0]))
    torch.rand(17), np.random.rand(3)
    model.eval()
    torch.use_deterministic_algorithms(False)
    history = fit(model, *loaders, config, CPU, progress=False)
    assert same_bits(bits(model), bits(undisturbed))
    assert without_seconds(history) == without_seconds(expected)
    assert torch.are_deterministic_algorithms_enabled()


def test_a_plain_dataloader_and_any_iterable_of_batches_drop_in(small):
    """And repeat: what torch's global generator shuffles is seeded, too."""
    images = (small.test_images / 255 - 0.1307) / 0.3081
    batches = list(zip(images.split(25), small.test_labels.split(25), strict=True))
    no_length = type("NoLength", (), {"__iter__": lambda _: iter(batches)})()
    shuffled = DataLoader(TensorDataset(images, small.test_labels), 32, shuffle=True)
    config = TrainingConfig(epochs=2)
    first, second = (fit(build(), shuffled, no_length, config, CPU, None, False) for _ in range(2))
    assert without_seconds(first) == without_seconds(second) and len(first.epochs) == 2
    assert len(fit(build(), no_length, batches, config, CPU, None, False).epochs) == 2


LOWEST = 0.01 / 250_000


@pytest.mark.parametrize(("steps", "end"), [(1, [LOWEST] * 2), (2, [(0.01 + LOWEST) / 2, LOWEST])])
def test_one_cycle_leaves_out_a_warm_up_of_a_single_step_and_no_longer_one(small, steps, end):
    """With a warm-up of two steps of four, the second has the highest rate, the third half."""
    cycle = {"schedule": "one-cycle", "learning_rate": 0.01, "warm_up": 0.5}
    _, history = train(small.first(32 * steps), TrainingConfig(epochs=2, **cycle))
    assert [record["learning_rate"] for record in history.epochs] == pytest.approx(end)
    with pytest.raises(ValueError, match="how many batches"):
        fit(build(), iter(()), [], TrainingConfig(**cycle), CPU, progress=False)


@pytest.mark.parametrize("watch", ["test_loss", "test_accuracy"])
def test_early_stopping_ends_a_run_that_no_longer_improves(small, watch):
    config = TrainingConfig(epochs=20, patience=2, min_delta=100.0, watch=watch)
    _, history = train(small.first(32), config)
    assert history.status == "early stopping"
    assert len(history.epochs) == 3  # the first counts as an improvement on nothing
    config = dataclasses.replace(config, epochs=3, step_size=1, gamma=1.0)
    _, history = train(small.first(32), config)
    assert history.status == "finished" and len(history.epochs) == 3  # it was the last anyway
    assert [record["learning_rate"] for record in history.epochs] == [0.001] * 3


def test_the_seconds_of_an_epoch_are_its_own(small):
    config, ends = TrainingConfig(epochs=3), []
    loaders = make_loaders(small.first(32), config, CPU, num_workers=0)
    history = fit(build(), *loaders, config, CPU, None, lambda _: ends.append(time.perf_counter()))
    for record, (start, end) in zip(history.epochs[1:], itertools.pairwise(ends), strict=True):
        assert 0 < record["seconds"] <= end - start


@pytest.mark.parametrize(
    ("config", "loaders", "setting", "facts"),
    [
        ({"seed": 7}, {}, "from the page", "train loader .*seed 42, .* 7"),
        ({"batch_size": 8}, {}, "from the page", "train loader .*batch_size 32, .* 8"),
        (AS_RUN, {}, "as run", "train loader .*setting 'from the page', .* 'as run'"),
        (AS_RUN, AS_RUN, "from the page", "network is v1 from the page, .* as run"),
        ({}, {}, "as run", "network is v1 as run, .* from the page"),
    ],
)
def test_what_was_made_for_another_config_is_refused(small, config, loaders, setting, facts):
    model = build("v1", setting=setting)
    loaders, before = make_loaders(small, TrainingConfig(**loaders), CPU), bits(model)
    with pytest.raises(ValueError, match=facts):
        fit(model, *loaders, TrainingConfig(**config), CPU, progress=False)
    assert same_bits(bits(model), before)


def test_what_a_terminal_or_a_file_shows_is_a_line_per_epoch(small, capsys):
    loaders = make_loaders(small, TrainingConfig(), CPU, num_workers=0)
    fit(build(), *loaders, TrainingConfig(epochs=2), CPU)
    printed = capsys.readouterr()
    first, second, last = printed.out.splitlines()
    assert first.startswith("epoch  1/2") and second.startswith("epoch  2/2")
    assert last.startswith("finished after 2 epochs") and printed.err == ""


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_agrees_with_numpy_and_leaves_the_model_as_it_was(small, training):
    model = build().train(training)
    before = bits(model)
    _, loader = make_loaders(small, TrainingConfig(), CPU)
    loss, accuracy = evaluate(model, loader, CPU)
    assert model.training == training and same_bits(before, bits(model))
    logits, labels = (tensor.numpy() for tensor in compute_logits(model, loader, CPU))  # no dropout
    assert np.array_equal(labels, small.test_labels)
    log_sums = np.log(np.exp(logits.astype(np.float64)).sum(1))
    assert loss == pytest.approx((log_sums - logits[np.arange(100), labels]).mean(), rel=1e-5)
    assert accuracy == pytest.approx(100 * (logits.argmax(1) == labels).mean())


@pytest.mark.parametrize(
    ("cuda", "mps", "present"),
    [
        (True, True, "cuda, cuda:0, mps, cpu"),
        (False, True, "mps, cpu"),
        (False, False, "cpu"),
    ],
)
def test_the_device_is_the_fastest_present_and_no_absent_one(monkeypatch, cuda, mps, present):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert get_device() == torch.device(present.split(", ")[0])
    assert get_device("cpu") == get_device(CPU) == CPU
    for absent in {"cuda", "mps", "gpu"} - set(present.split(", ")):
        with pytest.raises(ValueError, match=f"no device '{absent}' here.*{present}"):
            get_device(absent)


@pytest.mark.slow
def test_one_thread_trains_unless_the_user_asks_for_more(monkeypatch):
    """And importing changes nothing: it is get_device, which every run calls, that sets it."""
    code = """if True:
        import os
        import torch
        before = torch.get_num_threads()
        import DataPipeline, TrainingHelper, Visualization, models
        assert torch.get_num_threads() == before
        TrainingHelper.get_device()
        assert torch.get_num_threads() == 1
        os.environ["OMP_NUM_THREADS"] = "2"
        TrainingHelper.get_device()
        assert torch.get_num_threads() == 2"""
    # distributed, in another test of this process, may have left both behind.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.parametrize("nonsense", ["0", "-1", "abc", "", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(nonsense, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS is {nonsense!r}; expected"):
        get_device()


@pytest.mark.parametrize(
    ("device", "expected"),
    [("mps", "contiguous_format"), ("cuda", "channels_last"), ("cpu", "channels_last")],
)
def test_channels_last_is_never_used_on_mps(device, expected):
    """BatchNorm2d's gradients are wrong there (pytorch/pytorch issue 175189)."""
    assert memory_format(torch.device(device)) is getattr(torch, expected)


def test_seeding_repeats_every_generator():
    def draw(seed):
        set_seed(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw(5)
    assert all(a != b for a, b in zip(draw(6), first, strict=True))
    assert draw(5) == first
    for nonsense in (-1, 2**32, 1.5, "42", True):
        with pytest.raises(ValueError, match="seed is"):
            set_seed(nonsense)


def test_derived_seeds_differ_for_every_epoch_and_chunk():
    seeds = {derive_seed(42, epoch, chunk) for epoch in range(1, 41) for chunk in range(30)}
    assert len(seeds) == 1200
    assert derive_seed(42, 1) != derive_seed(1, 42)


def test_the_defaults_are_the_published_protocol_and_as_run_differs_in_two_things():
    adam = {"seed": 42, "batch_size": 32, "learning_rate": 0.001, "weight_decay": 0.0}
    schedule = {"epochs": 20, "step_size": 7, "gamma": 0.1, "patience": 10, "min_delta": 0.001}
    page = adam | schedule | {"watch": "test_loss", "setting": "from the page"}
    assert TrainingConfig().as_dict() == PROTOCOLS["from the page"].as_dict() == page
    run = page | {"watch": "test_accuracy", "setting": "as run"}
    assert PROTOCOLS["as run"].as_dict() == run


def test_a_config_is_what_its_dict_says_whatever_the_schedule():
    for config in (TrainingConfig(7, 3), TrainingConfig(7, 3, schedule="one-cycle", warm_up=0.2)):
        assert TrainingConfig(**config.as_dict()) == config
    assert "step_size" not in config.as_dict() and config.as_dict()["schedule"] == "one-cycle"
    later = {"beta2": 0.9, "augmentation": "wide", "plain_from": 3, "distillation": 0.5}
    assert not later.keys() & config.as_dict().keys()
    config = TrainingConfig(**later)
    assert later.items() <= config.as_dict().items()
    assert TrainingConfig(**config.as_dict()) == config


NONSENSE = {
    "seed": (-1, 1.0),
    "epochs": (0, 2.5, True),
    "batch_size": (0,),
    "learning_rate": (0, math.inf, "0.1"),
    "weight_decay": (-1e-4,),
    "step_size": (0,),
    "gamma": (0, 1.5),
    "patience": (0,),
    "min_delta": (math.nan,),
    "schedule": ("cosine",),
    "warm_up": (0, 1.0),
    "watch": ("train_loss",),
    "setting": ("as-run",),
    "beta2": (0, 1.0),
    "plain_from": (-1, 1.5),
    "distillation": (-0.1, 1.5),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in NONSENSE.items() for v in vs])
def test_a_config_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        TrainingConfig(**{name: value})


def test_early_stopping_follows_the_design():
    """An epoch improves if its loss is under best - min_delta, and best moves only then."""
    stopping = EarlyStopping(patience=3, min_delta=0.1)
    losses = [1.0, 0.95, 0.91, 0.85, 0.76, 0.75, 0.9]
    assert [stopping.step(loss) for loss in losses] == [False] * 6 + [True]
    assert stopping.best == 0.85
    assert EarlyStopping(patience=1, min_delta=0).step(math.nan)


def test_watching_the_accuracy_only_more_than_the_least_difference_improves():
    config = TrainingConfig(epochs=20, patience=2, watch="test_accuracy")

    def after(*accuracies):
        return status([{"test_accuracy": a, "test_loss": 1 / a} for a in accuracies], config)

    assert after(99.0, 98.0, 98.5) == after(99.0, 99.0005, 99.0009) == "early stopping"
    assert after(99.0, 98.0, 99.01, 98.0) == after(99.0, 99.01, 99.02) == "interrupted"
    assert after(*range(1, 21)) == after(*[99.0] * 20) == "finished"
