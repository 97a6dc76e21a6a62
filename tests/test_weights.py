"""Weights on disk: what comes back, what is not saved, what a stranger's file is told."""

import pickle
import random

import msgspec
import pytest
import safetensors.torch
import torch
from torch import nn

from DataPipeline import normalize
from helpers.checkpoint import weights_digest
from helpers.config import TrainingConfig
from helpers.history import History
from helpers.weights import load_weights, save_run, save_weights
from models import FINAL_AS_RUN, Network, identify
from study.one_cycle import RECIPE
from tests.helpers import DRAWN, PROJECT, SEED, bits, build, counts, history, same_bits

NETWORKS = {  # the committed ones
    **{name: ("from the page", name) for name in ("v1", "v2", "final")},
    "one_cycle": (RECIPE.setting, RECIPE.variant),
    "final_as_run": ("as run", FINAL_AS_RUN),
}


def run_of(model):
    """A history that such a network's run might have left."""
    setting, name = identify(model) or ("from the page", "v1")
    digest = weights_digest(model)
    return history((98.0, 99.5), name, 7, config={"setting": setting}, weights=digest)


def trained(name="final", setting="from the page"):
    """A network that no other is like, batch normalization's statistics included; its history."""
    model = build(name, seed=7, setting=setting)
    model.train()(torch.rand(8, 1, 28, 28))
    return model, run_of(model)


@pytest.mark.parametrize(
    ("name", "setting"), [("v1", "from the page"), ("final", "from the page"), ("v2_bn", "as run")]
)
def test_a_network_comes_back_ready_to_use_with_the_same_bits_and_logits(name, setting, tmp_path):
    model, run = trained(name, setting)
    model.to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "new" / "w.safetensors", run)
    generator = torch.get_rng_state()
    back = load_weights(tmp_path / "new" / "w.safetensors")
    assert torch.equal(torch.get_rng_state(), generator)
    assert identify(back) == (setting, name)
    assert same_bits(bits(back), bits(model)) and not back.training
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(back(images), model.eval()(images), rtol=1e-5, atol=1e-6)
    back.train()(images).sum().backward()  # and it can be trained further
    assert all(p.grad is not None for p in back.parameters())


def test_a_file_says_which_run_trained_the_network_and_is_the_same_for_equal_ones(tmp_path):
    model, run = trained()
    save_weights(model, tmp_path / "w", run)
    with safetensors.safe_open(tmp_path / "w", framework="pt") as file:
        [label] = map(msgspec.json.decode, file.metadata().values())  # one: several have no order
    assert len(label.pop("digest")) == 64
    said = {"setting": "from the page", "variant": "final", "seed": 7, "accuracy": 99.5}
    assert label == said | {"torch": torch.__version__}
    model, run = trained()
    save_weights(model.to(memory_format=torch.channels_last), tmp_path / "again", run)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "w").read_bytes()


class Negative(Network):
    def forward(self, images):
        return -super().forward(images)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.half(),
        lambda model: setattr(model, "__class__", Negative),
        lambda model: model.block1.__setitem__(4, nn.AvgPool2d(2)),
        lambda model: model.head[-1].bias.data.fill_(torch.nan),
        lambda model: model.block1[0].norm.running_var[0].neg_(),
    ],
)
def test_what_would_not_load_as_trained_is_not_saved(change, tmp_path):
    model, _ = trained()
    change(model)
    with pytest.raises(ValueError):
        save_weights(model, tmp_path / "w", run_of(model))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "name", "facts"),
    [
        ("from the page", "v2", r"v2 \(from the page\) .*v1 \(from the page\)"),
        ("as run", "v1", r"v1 \(as run\) .*v1 \(from the page\)"),
        ("from the page", "v1", "not the weights"),
    ],
)
def test_weights_are_not_filed_under_another_runs_history(setting, name, facts, tmp_path):
    model, _ = trained("v1")
    run = run_of(build(name, seed=8, setting=setting))
    if facts != "not the weights":
        run.weights = weights_digest(model)
    with pytest.raises(ValueError, match=facts):
        save_weights(model, tmp_path / "w", run)
    assert not list(tmp_path.iterdir())


BIAS, VARIANCE = "head.2.bias", "block1.0.norm.running_var"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda label, _: label.clear(), "setting"),
        (lambda label, _: label.update(more=1), "more"),
        (lambda label, _: label.update(variant="v1"), "norm"),
        (lambda label, _: label.update(setting="as run"), "variant 'final' as run"),
        (lambda label, _: label.update(setting="as run", variant="v2_bn"), "block"),
        (lambda label, _: label.update(accuracy=99.9), "a byte of it has changed"),
        (lambda _, tensors: tensors.update(more=tensors[BIAS].clone()), "more"),
        (lambda _, tensors: tensors.update({BIAS: torch.zeros(11)}), BIAS),
        (lambda _, tensors: tensors.update({BIAS: tensors[BIAS].double()}), f"{BIAS} is torch"),
        (lambda _, tensors: tensors[BIAS].fill_(torch.nan), BIAS),
        (lambda _, tensors: tensors[VARIANCE][0].neg_(), VARIANCE),
        (lambda _, tensors: tensors[BIAS][0].add_(0.01), "a byte of it has changed"),
    ],
)
def test_a_file_that_save_weights_did_not_write_is_refused_by_name(change, facts, tmp_path):
    model, run = trained()
    save_weights(model, tmp_path / "w", run)
    with safetensors.safe_open(tmp_path / "w", framework="pt") as file:
        label, tensors = msgspec.json.decode(file.metadata()["network"]), bits(model)
    change(label, tensors)
    metadata = {"network": msgspec.json.encode(label).decode()}
    safetensors.torch.save_file(tensors, tmp_path / "w", metadata)
    with pytest.raises(ValueError, match="(?s)w holds no weights of this project.*" + facts):
        load_weights(tmp_path / "w")


@pytest.mark.slow
@counts(200, 5000)
def test_no_flipped_bit_loads_in_silence(count, tmp_path, tell):
    model, run = trained()
    save_weights(model, tmp_path / "w", run)
    content, draw = (tmp_path / "w").read_bytes(), random.Random(SEED)
    label = content.index(b'{\\"setting')
    for number in range(count):
        # In the label, in the header, anywhere.
        start, stop = ((label, label + 250), (0, 5000), (0, len(content)))[number % 3]
        bit = draw.randrange(8 * start, 8 * stop)
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "w").write_bytes(flipped)
        with pytest.raises(ValueError, match="w holds no weights"):
            load_weights(tmp_path / "w")
    tell(f"flipped bits {DRAWN}: {count} tried, all refused")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_nothing_of_a_file_that_is_not_safetensors_runs(tmp_path):
    model, run = trained()
    save_weights(model, tmp_path / "whole", run)
    contents = [b"", b"{}", b"\x80" * 99, b"[" * 10**6, pickle.dumps(Evil())]
    for content in [*contents, (tmp_path / "whole").read_bytes()[:-4]]:
        (tmp_path / "w").write_bytes(content)
        with pytest.raises(ValueError, match="w holds no weights"):
            load_weights(tmp_path / "w")


@pytest.mark.parametrize(
    ("field", "value"), [("schedule", "one-cycle"), ("plain_from", 3), ("augmentation", "wide")]
)
def test_what_keeps_a_run_out_of_results_is_named(field, value):
    model, run = trained()
    run.train_images, run.config[field] = 60_000, value
    with pytest.raises(
        ValueError, match=f"results/ is for .* images, another seed, another {field}: set"
    ):
        save_run(model, run, PROJECT / "results" / "never_written", TrainingConfig())
    assert not list(PROJECT.glob("results/never_written*"))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        load_weights(tmp_path / "none")
    with pytest.raises(OSError, match="no regular file"):
        load_weights(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_committed_weights_make_the_mistakes_their_history_states(name, mnist):
    """To within two images: another processor's sums may tip one that stands on the edge."""
    model = load_weights(PROJECT / "results" / f"{name}.safetensors")
    stated = History.load(PROJECT / "results" / f"{name}.json")
    assert identify(model) == (stated.setting, stated.variant) == NETWORKS[name]
    with torch.inference_mode():
        predicted = torch.cat(
            [model(normalize(chunk / 255)).argmax(1) for chunk in mnist.test_images.split(500)]
        )
    hits = (predicted == mnist.test_labels).sum().item()
    assert abs(hits - len(predicted) * stated.final_accuracy / 100) <= 2
    wrong = (predicted != mnist.test_labels).nonzero().flatten().tolist()
    said = {(index, predicted[index].item()) for index in wrong}
    assert len(said ^ set(stated.mistakes)) <= 2
