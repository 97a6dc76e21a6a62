"""Files are whole or not there; histories and weights, old ones too, come back as they were."""

import json
import os
import pickle
import stat
from dataclasses import asdict
from unittest import mock

import pytest
import safetensors.torch
import torch
from torch import nn

from DataPipeline import AUGMENTATIONS, make_loaders
from helpers.checkpoint import load_weights, save_weights, weights_digest
from helpers.config import TrainingConfig
from helpers.files import read_file, write_atomically
from helpers.history import History
from models import NETWORKS, network_name
from study.network_file import from_text
from tests.helpers import CPU, PROJECT, bits, build, full_disk, history, no_rights, same_bits
from TrainingHelper import evaluate, fit

RESULTS = PROJECT / "results"


def make_device(path):
    """A device of its own, as the null device is, and never the system's."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def make_loop(path):
    path.symlink_to(path.with_name("back"))
    path.with_name("back").symlink_to(path)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("make", [make_device, os.mkfifo, os.mkdir, make_loop])
def test_what_is_no_regular_file_is_neither_written_over_nor_read(tmp_path, make, linked):
    def listing():
        return {path: (path.lstat().st_mode, path.lstat().st_ino) for path in tmp_path.iterdir()}

    make(path := tmp_path / "thing")
    if linked:
        (path := tmp_path / "link").symlink_to(tmp_path / "thing")
    before = listing()
    with pytest.raises(OSError, match=r"^cannot write .*: .*choose another place"):
        write_atomically(path, b"new")
    with pytest.raises(OSError, match=f"{path}"):
        read_file(path)
    assert listing() == before


def interrupted():
    return mock.patch("os.replace", side_effect=KeyboardInterrupt("cannot write, unchanged"))


@pytest.mark.parametrize("fault", [full_disk, no_rights, interrupted])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(public_folder, fault):
    path = public_folder / "file"
    path.write_bytes(b"precious")
    public_folder.chmod(0o555 if fault is no_rights else 0o777)
    with fault(), pytest.raises((OSError, KeyboardInterrupt), match=r"cannot write.* unchanged"):
        write_atomically(path, bytes(10_000))
    assert path.read_bytes() == b"precious" and list(public_folder.iterdir()) == [path]


def test_a_history_knows_its_figures():
    run = history([93.59, 98.99, 99.0, 99.4, 99.3])
    assert run.final_accuracy == 99.3
    assert (run.first_epoch_at(99), run.first_epoch_at(99.5)) == (3, None)
    with pytest.raises(ValueError, match="no complete epoch"):
        _ = history([]).final_accuracy


def test_a_history_comes_back_equal_from_its_file_and_an_interrupted_one_has_none(small, tmp_path):
    config = TrainingConfig(epochs=2, augmentation="original", monitor="test_accuracy")
    loaders = make_loaders(small.subset(64), config, CPU, num_workers=0)
    run = fit(build("original_final"), *loaders, config, CPU, progress=False)
    path = tmp_path / "new" / "run.json"
    run.save(path)
    assert History.load(path) == run and list(path.parent.iterdir()) == [path]
    content = json.loads(path.read_text())
    assert content == asdict(run) and content["config"] == asdict(config)
    assert (content["network"], content["train_images"]) == ("original_final", 64)
    environment = content["environment"]
    assert environment["torch"] == torch.__version__.split("+")[0]
    assert environment["threads"] == torch.get_num_threads() and environment["processor"]
    with pytest.raises(ValueError, match="interrupted after 1 epochs"):
        history([98.0], status="interrupted").save(tmp_path / "v1.json")
    assert not (tmp_path / "v1.json").exists()


def test_a_file_that_holds_no_history_is_refused_by_name(tmp_path):
    path, text = tmp_path / "v1.json", json.dumps(asdict(history([98.0])))
    unlikely, empty = (json.dumps(asdict(history(a))) for a in ([980.0], []))
    contents = [text[:-1], "[]", "[" * 100_000, '{"extra": 1, ' + text[1:], unlikely, empty]
    for content in [*contents, "{}", "\x00", '{"config": 1}']:
        path.write_text(content)
        with pytest.raises(ValueError, match=r"v1\.json holds no training history"):
            History.load(path)


def test_every_committed_run_loads():
    """Files of the first rounds lack what was recorded later; 14 had teachers."""
    paths = [path for path in RESULTS.rglob("*.json") if '"epochs": [' in path.read_text()]
    distilled = 0
    for path in paths:
        run = History.load(path)
        assert run.network in NETWORKS or run.source or "rounds" in path.parts, path
        assert run.status in ("finished", "early stopping")
        distilled += "distillation" in run.config
        config = TrainingConfig(**{k: v for k, v in run.config.items() if k != "distillation"})
        assert len(run.epochs) <= config.epochs and config.augmentation in {*AUGMENTATIONS, "own"}
        assert config.seed == run.seed
        if run.misclassified is not None:
            assert len(run.misclassified) == round(10_000 - 100 * run.final_accuracy)
    assert len(paths) >= 346 and distilled == 14


PAGE = {"augmentation": "page", "monitor": "test_loss", "plain_epochs": 0, "epochs": 20}
CYCLE = {"augmentation": "page", "schedule": "one-cycle", "batch_size": 64, "pct_start": 0.3}
OLD_RUNS = [
    ("pilot/v1_bn-42", "v1_bn", PAGE | {"schedule": "step", "step_size": 7, "beta2": 0.999}),
    ("runs/v2_bn-47", "v2_bn", PAGE),
    ("as_run/v2_bn-47", "original_final", {"augmentation": "original", "monitor": "test_accuracy"}),
    ("rounds/last_epoch_plain/three_pools-21", "three_pools", CYCLE | {"plain_epochs": 1}),
    ("recipe/half/three_blocks-47", "half", CYCLE | {"plain_epochs": 0, "epochs": 15}),
    ("recipe/8/none_bn-47", "original_none_bn", CYCLE),
]


@pytest.mark.parametrize(("name", "network", "config"), OLD_RUNS)
def test_an_old_record_means_what_its_file_says(name, network, config):
    run = History.load(RESULTS / f"{name}.json")
    assert run.network == network and config.items() <= run.config.items()


def test_every_committed_network_loads_as_the_one_its_run_trained():
    paths = list(RESULTS.rglob("*.safetensors"))
    for path in paths:
        run = History.load(path.with_suffix(".json"))
        if run.source:  # of a network file
            model = from_text("its", run.source).network()
            model.load_state_dict(safetensors.torch.load_file(path))
        else:
            model = load_weights(path)
            assert network_name(model) == run.network and not model.training
        assert run.weights in (None, weights_digest(model))
    assert len(paths) >= 153


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1", "v2", "final"])
def test_a_committed_network_has_the_accuracy_that_its_history_states(name, mnist):
    model = load_weights(RESULTS / f"{name}.safetensors")
    _, accuracy = evaluate(model, make_loaders(mnist)[1], CPU)
    expected = History.load(RESULTS / f"{name}.json").final_accuracy
    assert accuracy == pytest.approx(expected, abs=0.021)  # two images: a processor may round


@pytest.mark.parametrize("name", ["v1", "final", "original_final"])
def test_a_network_comes_back_with_the_same_bits_and_equal_ones_give_equal_files(name, tmp_path):
    model = build(name).train()
    model(torch.rand(8, 1, 28, 28))  # which batch normalization takes note of
    model.to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "new" / "w", name, seed=7, accuracy=99.5)
    generator = torch.get_rng_state()
    back = load_weights(tmp_path / "new" / "w")
    assert torch.equal(torch.get_rng_state(), generator)
    assert network_name(back) == name and same_bits(bits(back), bits(model)) and not back.training
    model.to(memory_format=torch.contiguous_format)
    save_weights(model, tmp_path / "w", name, seed=7, accuracy=99.5)
    assert (tmp_path / "w").read_bytes() == (tmp_path / "new" / "w").read_bytes()
    with safetensors.safe_open(tmp_path / "w", "pt") as file:
        label = json.loads(file.metadata()["network"])
    assert label == {"network": name, "seed": 7, "accuracy": 99.5}


def test_an_own_network_is_saved_as_plain_safetensors_and_not_loaded_by_name(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    save_weights(model, tmp_path / "w", network_name(model))
    assert same_bits(safetensors.torch.load_file(tmp_path / "w"), bits(model))
    with pytest.raises(ValueError, match=r"w holds no network of models.NETWORKS .*'Sequential'"):
        load_weights(tmp_path / "w")


def test_a_file_that_save_weights_did_not_write_is_refused_by_name(tmp_path):
    path, model, bias = tmp_path / "w", build(), "head.2.bias"
    tensors = bits(model)
    save_weights(model, path, "final")
    contents = [path.read_bytes()[:-4], b"", b"{}", b"\x80" * 99, pickle.dumps(print)]
    contents.append(safetensors.torch.save(tensors))  # without a label
    for label, changed in (
        ({}, tensors),
        ({"network": "v1"}, tensors),
        ({"network": "final"}, tensors | {"more": torch.zeros(1)}),
        ({"network": "final"}, tensors | {bias: torch.zeros(11)}),
        ({"network": "final"}, {k: v for k, v in tensors.items() if k != bias}),
    ):
        contents.append(safetensors.torch.save(changed, {"network": json.dumps(label)}))
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="w holds no network"):
            load_weights(path)
    with pytest.raises(FileNotFoundError, match="none"):
        load_weights(tmp_path / "none")
