"""What breaks an epoch off: interrupts at any moment, losses and batches that make no sense."""

import contextlib
import random
import re
import subprocess
import sys
import threading

import pytest
import torch

from helpers import run as run_state
from helpers.batches import checked
from helpers.checkpoint import load_checkpoint
from tests.helpers import CPU, DRAWN, PROJECT, SEED, TorchTo, counts, wait_for
from tests.victims import (
    CONFIG,
    Interrupt,
    at_pass,
    digest,
    epochs_in,
    interrupted_after,
    left_alone,
    loaded,
    new_run,
    tiny_run,
    train,
)
from TrainingHelper import fit

pytest_plugins = ["tests.victims"]

# --- interrupts -----------------------------------------------------------------------------------

# What fit calls before it has touched anything, or after all is done: an interrupt is raised.
OUTSIDE = {"get_device", "_check_arguments", "__init__", "end", None}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a __del__
@counts(12, 300)
def test_an_interrupt_at_any_line_costs_the_epoch_and_nothing_else(count, places, tell):
    """Be it torch's; and so does another one while the last complete epoch is restored."""
    files, result = left_alone(tiny_run(), next(places))
    states = [digest(loaded(content)) for content in files]
    with (undisturbed := Interrupt()).armed():
        train(tiny_run(), next(places))
    stations, struck = list(undisturbed.stations.values()), 0
    draw = random.Random(SEED)
    draw.shuffle(stations)
    restore = run_state.Run._restore
    for number, checkpoint in zip(range(count), places, strict=False):
        first = Interrupt(draw.choice(stations[number % len(stations)]))
        again = [Interrupt(draw.randrange(2000) + 1, restore)] * (number % 2)
        run = tiny_run()

        def restored(self, state, first=first, again=again):
            with again.pop().armed() if again and first.stations else contextlib.nullcontext():
                restore(self, state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_state.Run, "_restore", restored)
            try:
                with first.armed():
                    history = fit(*run, CPU, checkpoint, progress=False)
            except KeyboardInterrupt:
                assert first.stations.keys() <= OUTSIDE
            else:
                epochs = len(history.epochs)
                assert history.status == ("finished" if epochs == CONFIG.epochs else "interrupted")
                assert (history.mistakes is None) == (not epochs)
                # The signal may have struck between the checkpoint and what fit remembers.
                assert (epochs_in(checkpoint) or 0) - epochs in (0, 1)
                assert digest(run.model.state_dict()) == states[epochs]["model"]
                found, expected = digest(history.as_dict()), states[epochs]["history"]
                assert found == expected or (not epochs and "begin" in first.stations)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert train(run, checkpoint) == result, (first.stations, first.number)
        struck += bool(first.stations)
    assert struck > count / 2
    tell(f"interrupts at random lines {DRAWN}: {count} inflicted, {count} survived bit-identical")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a __del__
@pytest.mark.slow
@counts(6, 30)
def test_a_signal_at_a_random_moment_costs_the_epoch_and_nothing_else(count, alone, places, tell):
    moments, hit = random.Random(SEED), 0
    for number, checkpoint in zip(range(count), places, strict=False):
        seconds = moments.uniform(0, moments.choice((0.1, 0.7)) * alone.seconds)
        run, first = new_run(workers=number % 3), None
        with contextlib.suppress(KeyboardInterrupt), interrupted_after(seconds):
            first = train(run, checkpoint)
        hit += first != alone.result()
        if first is None:  # before fit, after it, or where it has touched nothing
            model = digest(run.model.state_dict())
            assert model in (alone.states[0]["model"], alone.states[-1]["model"])
        elif first["history"]["epochs"] or first["history"]["environment"]:
            assert first == alone.result(len(first["history"]["epochs"]))
        else:
            assert first["model"] == alone.states[0]["model"]
        assert train(run, checkpoint) == alone.result()
    tell(f"signals {DRAWN}: {count} inflicted, {hit} broke off, {count} survived bit-identical")


@pytest.mark.slow
def test_the_first_fit_of_a_process_imports_nothing_of_torch():
    """An interrupt in the middle of such an import would break Adam for good."""
    code = """if True:
        import sys
        from tests.victims import tiny_run, train
        run, before = tiny_run(), set(sys.modules)
        train(run, None)
        print([name for name in sys.modules if "torch" in name and name not in before])"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT) == b"[]\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_no_thread_is_left_when_an_epoch_is_broken_off(error):
    before, run = set(threading.enumerate()), new_run(workers=2)

    def strike():
        assert len(set(threading.enumerate()) - before) == 2
        raise error

    with at_pass(run.model, 2, strike), contextlib.suppress(ZeroDivisionError):
        assert train(run, None)["history"]["status"] == "interrupted"
    wait_for(lambda: set(threading.enumerate()) <= before, seconds=10)


# --- losses and batches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "facts"),
    [
        (5, "training loss is nan in epoch 2, step 1"),
        (6, "training loss is nan in epoch 2, step 2"),
        (7, "test loss is nan after epoch 2"),
    ],
)
def test_a_loss_that_is_not_finite_is_named_and_never_kept(number, facts, tmp_path):
    """An epoch of the tiny run passes two training batches and two test batches."""
    files, result = left_alone(tiny_run(), tmp_path / "left alone")
    checkpoint, run = tmp_path / "run.ckpt", tiny_run()
    spoil = at_pass(run.model, number, lambda: run.model.out.bias.data.fill_(torch.nan))
    with spoil, pytest.raises(FloatingPointError, match=facts):
        train(run, checkpoint)
    kept = digest(loaded(files[1]))
    assert digest(load_checkpoint(checkpoint)) == kept
    assert digest(run.model.state_dict()) == kept["model"]
    assert train(run, checkpoint) == result


def batch(*shape, dtype=torch.float32, fill=0.0, labels=(0, 1, 2, 3)):
    """A batch, good unless told otherwise."""
    images = torch.zeros(shape or (4, 1, 28, 28), dtype=dtype)
    images.view(-1)[1234] = fill
    return images, torch.tensor(labels)


BAD_BATCHES = [
    ("images that are torch.float32 [4, 28, 28]", batch(4, 28, 28)),
    ("images that are torch.float32 [4, 3, 28, 28]", batch(4, 3, 28, 28)),
    ("images that are torch.uint8 [4, 1, 28, 28]", batch(dtype=torch.uint8)),
    ("images with NaN or infinity", batch(fill=torch.nan)),
    ("images with NaN or infinity", batch(fill=-torch.inf)),
    ("labels that are torch.float32 [4] for 4", batch(labels=[0.0, 1.0, 2.0, 3.0])),
    ("labels that are torch.int64 [4, 10] for 4", batch(labels=[[0] * 10] * 4)),
    ("labels that are torch.int64 [3] for 4", batch(labels=[0, 1, 2])),
    ("labels that are torch.int64 [0] for 0", (torch.zeros(0, 1, 28, 28), torch.arange(0))),
    ("labels from -1 to 2", batch(labels=[0, 1, -1, 2])),
    ("labels from 0 to 10", batch(labels=[0, 1, 10, 2])),
    ("a tuple", (batch()[0].numpy(), [0, 1, 2, 3])),
    ("a tuple", (*batch(), 1)),
    ("a NoneType", None),
]


@pytest.mark.parametrize("loader", ["train", "test"])
@pytest.mark.parametrize(("said", "bad"), [*BAD_BATCHES, ("yields no batch", "none")])
def test_a_malformed_batch_is_named_and_trains_nothing(said, bad, loader):
    loaders = {"train": [batch()] * 3, "test": [batch()] * 3}
    loaders[loader] = [] if bad == "none" else [batch(), batch(), bad]
    model = new_run().model
    before = digest(model.state_dict())
    where = "" if bad == "none" else "batch 3 of "
    with pytest.raises(ValueError, match=f"{where}the {loader} loader .*{re.escape(said)}"):
        fit(model, *loaders.values(), CONFIG, CPU, progress=False)
    assert digest(model.state_dict()) == before


@pytest.mark.parametrize(
    ("device", "pinned", "non_blocking"),
    [("cuda", True, True), ("cuda", False, False), ("mps", True, False)],
)
def test_only_from_pinned_memory_does_a_copy_go_unwaited_for(
    device, pinned, non_blocking, monkeypatch
):
    """From any other it may be gone before it is copied (pytorch/pytorch issue 189690)."""
    to = TorchTo(monkeypatch)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _: pinned)
    [(images, labels)] = checked([batch()], torch.device(device), "train")
    assert to.moves == [(torch.device(device), non_blocking)] * 2
    assert torch.equal(images, batch()[0]) and torch.equal(labels, batch()[1])
