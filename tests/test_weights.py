"""Weights on disk: what comes back, what a stranger's file is told, and the committed ones."""

import pickle
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from DataPipeline import normalise
from helpers.history import History
from helpers.weights import load_weights, save_weights
from models import SmallMNISTNet4Block
from tests.helpers import PROJECT, bits, build, history, same_bits


def trained(name):
    """A network that no other is like, batch normalisation's statistics included."""
    model = build(name, seed=7)
    model.train()(torch.rand(8, 1, 28, 28))
    return model


@pytest.mark.parametrize("name", ["v1", "v2", "final"])
def test_a_network_comes_back_ready_to_use_with_the_same_bits_and_logits(name, tmp_path):
    model = trained(name).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "new" / "w.safetensors", history((98.0, 99.5), name))
    generator = torch.get_rng_state()
    back = load_weights(tmp_path / "new" / "w.safetensors")
    assert torch.equal(torch.get_rng_state(), generator)
    assert same_bits(bits(back), bits(model)) and not back.training
    images = torch.rand(4, 1, 28, 28)
    assert back.variant == name
    torch.testing.assert_close(back(images), model.eval()(images), rtol=1e-5, atol=1e-6)
    back.train()(images).sum().backward()  # and it can be trained further
    assert all(p.grad is not None for p in back.parameters())


def test_a_network_of_no_named_variant_comes_back_too(tmp_path):
    model = SmallMNISTNet4Block((0.25, 0, 0, 0.5), batch_norm=True)
    save_weights(model, tmp_path / "w", history(variant=model.variant))
    assert load_weights(tmp_path / "w").dropout == (0.25, 0, 0, 0.5)


def test_the_metadata_say_which_run_trained_the_network(tmp_path):
    save_weights(trained("final"), tmp_path / "w", history((98.0, 99.55), "final", seed=3))
    with safetensors.safe_open(tmp_path / "w", framework="pt") as file:
        assert file.metadata() == {
            "variant": "final",
            "dropout": "[0.1, 0.1, 0.1, 0.0]",
            "batch_norm": "true",
            "seed": "3",
            "accuracy": "99.55",
            "torch": torch.__version__,
        }


def test_equal_networks_give_equal_bytes_in_any_process(tmp_path):
    code = (
        "import sys; from helpers.weights import save_weights;"
        "from tests.helpers import build, history;"
        "save_weights(build('v2'), sys.argv[1], history(variant='v2'))"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], cwd=PROJECT, check=True)
    save_weights(build("v2"), tmp_path / "c", history(variant="v2"))
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_weights_are_not_filed_under_another_variants_history(tmp_path):
    with pytest.raises(ValueError, match="history is of v1 and the network is v2"):
        save_weights(build("v2"), tmp_path / "w", history(variant="v1"))
    assert not list(tmp_path.iterdir())


def rewritten(path, change):
    """A weights file of v2 with its tensors and metadata changed in place by a function."""
    save_weights(build("v2"), path, history(variant="v2"))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    safetensors.torch.save_file(tensors, path, metadata)


BIAS = "classifier.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: m.pop("accuracy"), "lacks accuracy"),
        (lambda m, t: m.clear(), "lacks variant, dropout"),
        (lambda m, t: m.update(variant="final"), "describes v2 as final"),
        (lambda m, t: m.update(dropout="[0.1]"), "1 rates; expected 4"),
        (lambda m, t: m.update(dropout="__import__('os')"), "Expecting value"),
        (lambda m, t: m.update(dropout="4"), "not iterable"),
        (lambda m, t: m.update(dropout="[" * 100_000), "recursion"),
        (lambda m, t: m.update(seed="none"), "none"),
        (lambda m, t: m.update(accuracy="nan"), "accuracy is nan"),
        (lambda m, t: t.pop(BIAS), f"{BIAS} is missing"),
        (lambda m, t: t.update(more=t[BIAS].clone()), "more is unknown"),
        (lambda m, t: t.update({BIAS: torch.zeros(11)}), rf"{BIAS} is torch.float32 \[11\]"),
        (lambda m, t: t.update({BIAS: t[BIAS].double()}), rf"{BIAS} is torch.float64 \[10\]"),
        (lambda m, t: t[BIAS].fill_(torch.nan), f"{BIAS} holds NaN"),
    ],
)
def test_a_file_that_save_weights_did_not_write_is_refused_in_one_sentence(
    change, message, tmp_path
):
    rewritten(tmp_path / "w", change)
    with pytest.raises(
        ValueError, match=f"w holds no weights of this project .*{message}"
    ) as error:
        load_weights(tmp_path / "w")
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_nothing_of_a_file_that_is_not_safetensors_runs(tmp_path):
    save_weights(build("v2"), tmp_path / "whole", history(variant="v2"))
    contents = [b"", b"{}", b"\x80" * 99, pickle.dumps(Evil())]
    for content in [*contents, (tmp_path / "whole").read_bytes()[:-4]]:
        (tmp_path / "w").write_bytes(content)
        with pytest.raises(ValueError, match="w holds no weights of this project"):
            load_weights(tmp_path / "w")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        load_weights(tmp_path / "none")
    with pytest.raises((IsADirectoryError, PermissionError)):
        load_weights(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1", "v2", "final"])
def test_the_committed_weights_have_the_accuracy_their_history_states(name, mnist):
    """To within two images: another processor's sums may tip one that stands on the edge."""
    path = PROJECT / "results" / f"{name}.safetensors"
    model, stated = load_weights(path), History.load(PROJECT / "results" / f"{name}.json")
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert model.variant == stated.variant == name
    assert (int(metadata["seed"]), float(metadata["accuracy"])) == (
        stated.seed,
        stated.final_accuracy,
    )
    with torch.inference_mode():
        predicted = torch.cat(
            [model(normalise(chunk / 255)).argmax(1) for chunk in mnist.test_images.split(500)]
        )
    hits = (predicted == mnist.test_labels).sum().item()
    assert abs(hits - len(predicted) * stated.final_accuracy / 100) <= 2
