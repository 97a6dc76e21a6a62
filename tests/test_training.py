"""fit against a plain loop, its determinism, what ends it, and what it refuses."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from torchsummary import summary

from DataPipeline import make_loaders
from helpers.checkpoint import weights_digest
from helpers.config import derive_seed
from helpers.trial import memory_format
from tests.helpers import CPU, bits, build, same_bits, without_seconds
from TrainingHelper import (
    EarlyStopping,
    TrainingConfig,
    compute_logits,
    evaluate,
    fit,
    get_device,
    status,
)


def train(data, config, name="final", **options):
    model = build(name, config.seed)
    loaders = make_loaders(data, config, CPU, num_workers=0)
    return model, fit(model, *loaders, config, CPU, **({"progress": False} | options))


ONE_CYCLE = {"schedule": "one-cycle", "pct_start": 0.4, "beta2": 0.9, "augmentation": "wide"}
ORIGINAL = {"augmentation": "original", "monitor": "test_accuracy"}
FAST = ONE_CYCLE | {"cycle_momentum": True, "bfloat16": True, "label_smoothing": 0.05}
RUNS = [("v1", {}), ("final", {}), ("half", ONE_CYCLE), ("original_v1", ORIGINAL)]
RUNS += [("fast", FAST | {"plain_epochs": 1})]


@pytest.mark.parametrize(("name", "options"), RUNS)
def test_fit_does_what_the_plain_loop_does(small, name, options):
    """The loop every reader would write, with the same batches and the same dropout masks."""
    config = TrainingConfig(epochs=3, step_size=2, weight_decay=0.1, learning_rate=0.002, **options)
    schedule = config.schedule
    small = small.subset(140)  # so that the last batch is a smaller one
    ours, history = train(small, config, name)

    # Another memory format or Adam kernel rounds otherwise, which a few steps blow up.
    model = build(name).to(memory_format=torch.channels_last)
    train_loader, test_loader = make_loaders(small, config, CPU, num_workers=0)
    kind = torch.optim.Adam if schedule == "step" else torch.optim.AdamW
    betas = (0.9, config.beta2)
    optimizer = kind(model.parameters(), lr=0.002, betas=betas, weight_decay=0.1, fused=True)
    if schedule == "step":
        scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    else:
        scheduler = lr_scheduler.OneCycleLR(
            optimizer,
            0.002,
            epochs=3,
            steps_per_epoch=5,
            pct_start=0.4,
            cycle_momentum=config.cycle_momentum,
        )
    for epoch in (1, 2, 3):
        torch.manual_seed(derive_seed(42, epoch))
        train_loader.set_epoch(epoch)
        model.train()
        loss_sum = hits = seen = 0
        for images, labels in train_loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
            loss.backward()
            optimizer.step()
            if schedule == "one-cycle":
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
    assert history.misclassified == [[index, logits[index].argmax().item()] for index in wrong]
    assert (history.train_images, history.weights) == (140, weights_digest(model))
    assert (history.network, history.status) == (name, "finished")


def test_nothing_but_the_seed_changes_a_bit(small):
    """Not what was summarized, iterated or set between building and fitting."""
    config, small = TrainingConfig(epochs=2), small.subset(160)
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


@pytest.mark.parametrize(("steps", "rates"), [(1, [4e-6, 0.500002]), (2, [0.500002] * 2)])
def test_one_cycle_leaves_out_a_warm_up_of_a_single_step_and_no_longer_one(small, steps, rates):
    """By one of a single step, torch would divide by zero. After the last step it turns back."""
    cycle = {"schedule": "one-cycle", "learning_rate": 0.01, "pct_start": 0.5}
    config = TrainingConfig(epochs=2, **cycle)
    _, history = train(small.subset(32 * steps), config)
    assert [100 * record["learning_rate"] for record in history.epochs] == pytest.approx(rates)


def test_early_stopping_counts_epochs_that_improve_by_min_delta_or_less(small):
    """What they are compared with is the best epoch that counted."""
    _, history = train(small.subset(32), TrainingConfig(patience=2, min_delta=100.0))
    assert (history.status, len(history.epochs)) == ("early stopping", 3)  # the first improves
    stopping = EarlyStopping(patience=3, min_delta=0.1)
    losses = [1.0, 0.95, 0.91, 0.85, 0.76, 0.75, 0.9]
    assert [stopping.step(loss) for loss in losses] == [False] * 6 + [True]
    assert EarlyStopping(patience=1, min_delta=0).step(math.nan)
    config = TrainingConfig(epochs=20, patience=2, monitor="test_accuracy")

    def after(*accuracies):
        return status([{"test_accuracy": a, "test_loss": 1 / a} for a in accuracies], config)

    assert after(99.0, 98.0, 98.5) == after(99.0, 99.0005, 99.0009) == "early stopping"
    assert after(99.0, 98.0, 99.01, 98.0) == after(99.0, 99.01, 99.02) == "interrupted"
    assert after(*range(1, 21)) == after(*[99.0] * 20) == "finished"


def test_a_line_per_epoch_is_printed_or_a_function_called_instead(small, capsys):
    small, config, histories = small.subset(32), TrainingConfig(epochs=3), []
    _, history = train(small, config, progress=histories.append)
    assert histories == [history] * 3 and capsys.readouterr().out == ""
    assert all(0 < record["seconds"] < 60 for record in history.epochs)
    train(small, config, progress=True)
    *lines, last = (printed := capsys.readouterr()).out.splitlines()
    assert [line[:10] for line in lines] == ["epoch  1/3", "epoch  2/3", "epoch  3/3"]
    assert last.startswith("finished after 3 epochs") and printed.err == ""


def test_evaluate_agrees_with_numpy_and_leaves_the_model_as_it_was(small):
    (_, loader), model = make_loaders(small), build().train()
    before = weights_digest(model)
    loss, accuracy = evaluate(model, loader, CPU)
    assert model.training and weights_digest(model) == before
    logits, labels = (tensor.numpy() for tensor in compute_logits(model, loader, CPU))  # no dropout
    assert np.array_equal(labels, small.test_labels)
    log_sums = np.log(np.exp(logits.astype(np.float64)).sum(1))
    assert loss == pytest.approx((log_sums - logits[np.arange(100), labels]).mean(), rel=1e-5)
    assert accuracy == pytest.approx(100 * (logits.argmax(1) == labels).mean())


DEVICES = [(True, True, "cuda, cuda:0, mps, cpu"), (False, True, "mps, cpu"), (False, False, "cpu")]


@pytest.mark.parametrize(("cuda", "mps", "present"), DEVICES)
def test_the_device_is_the_fastest_present_and_no_absent_one(monkeypatch, cuda, mps, present):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert get_device() == torch.device(present.split(", ")[0])
    assert get_device("cpu") == get_device(CPU) == CPU
    for absent in {"cuda", "mps", "gpu"} - set(present.split(", ")):
        with pytest.raises(ValueError, match=f"no device '{absent}' here.*{present}"):
            get_device(absent)


def test_a_number_of_threads_that_is_none_is_refused(monkeypatch):
    for nonsense in ("0", "-1", "abc", "", "1.5"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        with pytest.raises(ValueError, match=f"OMP_NUM_THREADS is {nonsense!r}; expected"):
            get_device()


def test_channels_last_is_never_used_on_mps():
    """BatchNorm2d's gradients are wrong there (pytorch/pytorch issue 175189)."""
    assert memory_format(torch.device("mps")) is torch.contiguous_format
    assert memory_format(torch.device("cuda")) is memory_format(CPU) is torch.channels_last


def test_loaders_of_ones_own_or_for_another_config_are_refused(small):
    config, model = TrainingConfig(epochs=1), build("v1")
    loaders = make_loaders(small, config, CPU)
    own = DataLoader(TensorDataset(torch.zeros(4, 1, 28, 28), torch.arange(4)))
    for pair in (make_loaders(small, TrainingConfig(7, epochs=1)), (own, loaders[1]), (own, own)):
        with pytest.raises(ValueError, match=r"not for this config; make both: make_loaders"):
            fit(model, *pair, config, CPU, progress=False)
    assert len(fit(model, *loaders, config, CPU, progress=False).epochs) == 1


def test_a_scheduler_brings_its_optimizer_along_and_must_be_new(small):
    model = build()
    scheduler = lr_scheduler.StepLR(torch.optim.SGD(model.parameters(), lr=0.1), 1)
    config = TrainingConfig(epochs=2)
    run = (model, *make_loaders(small.subset(32), config, num_workers=0), config)
    history = fit(*run, progress=False, scheduler=scheduler)
    assert [record["learning_rate"] for record in history.epochs] == pytest.approx([0.1, 0.01])
    used, own = {"scheduler": scheduler}, torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = {"scheduler": lr_scheduler.ReduceLROnPlateau(own)}
    other = {"scheduler": lr_scheduler.StepLR(own, 1), "optimizer": scheduler.optimizer}
    for options in (used, plateau, other):
        with pytest.raises(ValueError, match="scheduler must be new, of the optimizer that is"):
            fit(*run, **options)
    with pytest.raises(ValueError, match="interval is 'batch'; expected"):
        fit(*run, interval="batch")


NONSENSE = {"seed": (-1, 1.0), "epochs": (0, 2.5, True), "batch_size": (0,), "step_size": (0,)}
NONSENSE |= {"learning_rate": (0, math.inf, "0.1"), "weight_decay": (-1e-4,), "gamma": (0, 1.5)}
NONSENSE |= {"patience": (0,), "min_delta": (math.nan,), "beta2": (0, 1.0), "pct_start": (0, 1.0)}
NONSENSE |= {"schedule": ("cosine",), "monitor": ("train_loss",), "plain_epochs": (-1, 1.5)}
NONSENSE |= {"bfloat16": (1,), "cycle_momentum": ("yes",)}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in NONSENSE.items() for v in vs])
def test_a_config_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        TrainingConfig(**{name: value})
