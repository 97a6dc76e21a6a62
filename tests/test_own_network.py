"""A reader's own network: the file, check, run and compare; and the public networks' files."""

import json

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode

from DataPipeline import rotate
from helpers import transforms
from models import NETWORKS, count_parameters, receptive_fields
from study.check import check, describe
from study.compare import LOOKS, compare, look, planned_looks, runs_of
from study.network_file import from_text, load_network_file
from study.table import load
from tests.helpers import PROJECT

PEERS = sorted((PROJECT / "peers").glob("*.py"))
SMALL = """from torch import nn
def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))"""


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PEERS, PROJECT / "examples/my_network.py"], ids=lambda p: p.stem)
def test_the_files_that_come_with_the_project_define_what_they_have_to(path):
    file, text = load_network_file(path), path.read_text()
    assert file.text == text and len(text.splitlines()) <= 35 and file.name.startswith(path.stem)
    model = file.network()
    if path in PEERS:
        assert count_parameters(model) == int(path.stem.rpartition("_")[2])
        assert file.config.patience == file.config.epochs  # nothing stops a run early
        assert "CLAIM = 99." in text
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    optimizer = file.optimizer(model) if file.optimizer else torch.optim.Adam(model.parameters())
    if file.scheduler:
        file.scheduler(optimizer, 938)
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    if file.augment:
        first, again = (file.augment(images, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again) and first.shape == images.shape
        assert first.dtype == torch.float32 and 0 <= first.min() < first.max() <= 1


def test_a_changed_file_is_another_network():
    first, second = from_text("mine", SMALL), from_text("mine", f"{SMALL}\n# changed")
    assert first.name != second.name and first.name == from_text("mine", SMALL).name
    assert first.name.startswith("mine-") and len(first.name) == len("mine-") + 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", r"mine\.py defines no network\(\)"),
        ("import nothing_like_it", r"mine\.py does not run \(ModuleNotFoundError, above\)"),
        ("def network(:", r"mine\.py does not run \(SyntaxError, above\)"),
        (f"{SMALL}\nCONFIG = 3", r"CONFIG in mine\.py is 3; expected a TrainingConfig"),
    ],
)
def test_a_file_that_does_not_work_is_named_in_a_sentence(text, reason):
    with pytest.raises(ValueError, match=reason):
        from_text("mine", text)


def test_transforms_are_torchvisions_image_by_image(mnist):
    images, n = mnist.train_images[:60], 60
    draw = torch.Generator().manual_seed(1)
    angles = torch.empty(n).uniform_(-15, 15, generator=draw)
    shifts = torch.randint(-3, 4, (2, n), generator=draw).float()
    turned = rotate(images.float() - 7, angles, "nearest", *shifts) + 7
    cropped = transforms.random_crop(images, draw, side=22, p=1.0)
    pairs = []
    for image, angle, shift, ours in zip(images, angles, shifts.T, turned, strict=True):
        picture = Image.fromarray(image[0].numpy())
        options = {"interpolation": InterpolationMode.NEAREST, "fill": 7}
        whole = [int(s) for s in shift]
        theirs = TF.affine(picture, -angle.item(), whole, 1.0, [0.0, 0.0], **options)
        pairs.append((torch.from_numpy(np.array(theirs)), ours[0]))
    assert np.mean([(a != b).float().mean() for a, b in pairs]) < 2e-4  # midway between two
    for image, ours in zip(images, cropped, strict=True):
        crop = TF.center_crop(Image.fromarray(image[0].numpy()), [22])
        theirs = torch.from_numpy(np.array(TF.resize(crop, [28, 28])))
        assert (theirs.float() - ours[0]).abs().max() <= 1
    untouched = transforms.random_crop(images, draw, 22, p=0.0)
    assert torch.equal(untouched, images.float())


def test_erasing_and_jitter_keep_to_their_ranges():
    images = torch.full((4000, 1, 28, 28), 100.0)
    draw = torch.Generator().manual_seed(2)
    erased = transforms.random_erasing(images, draw, 0.05, (0.02, 0.05), (0.3, 3.3), 33.0)
    boxes = erased == 33
    share = boxes.flatten(1).any(1)
    assert share.float().mean() == pytest.approx(0.05, abs=0.01)
    areas = boxes[share].sum((1, 2, 3)) / 784
    assert 0.014 <= areas.min() < 0.025 and 0.04 < areas.max() <= 0.06
    sides = boxes[share].any(3).sum((1, 2)), boxes[share].any(2).sum((1, 2))
    assert torch.equal(sides[0] * sides[1], boxes[share].sum((1, 2, 3)))  # a box, inside the image
    jittered = transforms.random_jitter(images, draw, 0.4).flatten(1)
    assert (jittered.amax(1) == jittered.amin(1)).all() and 59 <= jittered.min() < 65
    assert 135 < jittered.max() <= 140


# --- check ----------------------------------------------------------------------------------------


def test_check_describes_a_network(capsys):
    facts = describe(NETWORKS["v2"].build())
    fields = {name: field for name, _, _, field in facts["layers"]}
    expected = receptive_fields(NETWORKS["v2"].build())
    assert {n: min(side, 28) for n, side in expected.items()}.items() <= fields.items()
    assert facts["parameters"] == 17_938 and facts["unused"] == 0
    # By hand: each 1x1 or 3x3 convolution has outputs x inputs x kernel products per place.
    places, channels, total = 28 * 28, 1, 320
    for block, side in zip(NETWORKS["v2"].blocks, (28, 14, 7, 3), strict=True):
        for kernel, width in block:
            places = side * side
            total, channels = total + places * width * channels * kernel**2, width
    assert facts["multiply_adds"] == total
    assert (
        check("v2", NETWORKS["v2"].build(), 17_938)
        and "(limit 17,938: ok)" in capsys.readouterr().out
    )
    assert not check("v2", NETWORKS["v2"].build(), 17_937)
    assert "limit 17,937: too many" in capsys.readouterr().out


def test_check_counts_layers_that_forward_never_calls(capsys):
    class Idle(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x))

    model = Idle(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(32))
    assert check("idle", model) and "64 of them belong to layers" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"returns \[2, 9\]"):
        check("nine", nn.Sequential(nn.Flatten(), nn.Linear(784, 9)))


# --- compare --------------------------------------------------------------------------------------


def test_the_words_of_a_look():
    base, noise = np.full(10, 99.4), np.array([3, -3, 1, -1, 2, -2, 0, 1, -1, 0]) / 100
    words = {
        0.2: "better",
        -0.2: "worse",
        0.06: "better, by less than matters",
        0.005: "no practically relevant difference",
    }
    for difference, word in words.items():
        assert look(base + difference + noise, base).word == word
    wide = look(base + 0.08 + 8 * noise, base)
    assert wide.word == "inconclusive" and wide.needed > 10
    assert wide.mean == pytest.approx(0.08) and look(base[:4] + noise[:4], base).seeds == 4
    with pytest.raises(ValueError, match="there are 2 seeds"):
        look(base[:2], base)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.0, 0.01], ids=["normal", "ties"])
def test_looks_cover_in_95_percent_and_naive_peeking_does_not(step):
    """2,000 comparisons without a difference, looked at after 5, 10 and 20 seeds."""
    pairs = np.random.default_rng(1).normal(99.4, 0.06, (2000, 2, 20))
    pairs = np.round(pairs / step) * step if step else pairs

    def covered(alphas):
        looks = ((look(*pair[:, :n], alpha) for n, alpha in alphas.items()) for pair in pairs)
        return np.mean([all(v.low <= 0 <= v.high for v in verdicts) for verdicts in looks])

    planned, naive = covered(LOOKS), covered(dict.fromkeys(LOOKS, 0.05))
    print(f"covered: planned looks {planned:.3f}, naive peeking {naive:.3f}")
    assert planned >= 0.95 and naive < 0.92


def test_looks_end_with_the_first_that_decides():
    clear = np.array([99.50, 99.51, 99.52, 99.50, 99.51] * 4)
    assert [v.seeds for v in planned_looks(clear, clear - 0.3)] == [5]
    unclear = clear + np.tile([0.2, -0.2], 10)
    assert [v.seeds for v in planned_looks(unclear, clear)][:2] == [5, 10]


def test_runs_are_found_by_file_name_experiment_or_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    tables = load()
    assert set(runs_of("final", tables).experiment) == {"page"}
    assert len(runs_of("recipe/20/original_none_bn", tables)) == 10
    assert set(runs_of("fast", tables).epochs) == {8}  # and none of the other lengths'
    (tmp_path / "a.csv").write_text("accuracy\n99.1\n99.3\n")
    assert runs_of(str(tmp_path / "a.csv"), tables).final.tolist() == [99.1, 99.3]
    (tmp_path / "b.csv").write_text("0.991\n0.993\n")
    with pytest.raises(ValueError, match=r"b\.csv: expected accuracies in percent"):
        runs_of(str(tmp_path / "b.csv"), tables)
    for name in ("nobody", "page/original_v1", "accurate_e-9022009b", "examples/my_network.py"):
        with pytest.raises(ValueError, match=f"no runs of {name}: python -m study run"):
            runs_of(name, tables)


@pytest.mark.slow
def test_a_comparison_is_one_screen_and_a_file_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    compare("final", "v1", to=f"{tmp_path / 'c.json'}")
    lines = capsys.readouterr().out.splitlines()
    seeds = "final: 99.468% in 10 seeds; 10 reach 99% (epoch 5.0 on average), 7 have their last"
    assert lines[0] == f"{seeds} three epochs at 99.4%"
    assert lines[2] == "10 seeds: +0.289 [+0.164, +0.414] points (95% interval): better"
    [record] = json.loads((tmp_path / "c.json").read_text())
    assert record["word"] == "better" and record["needed"] is None
    compare("final", "v2_bn", by_looks=True, to=f"{tmp_path / 'c.png'}")
    printed = capsys.readouterr().out
    assert "5 seeds: " in printed and "(99% interval)" in printed and "would decide" in printed
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"ends in \.json, \.md or \.png"):
        compare("final", "v1", to="c.txt")


def test_readme_shows_what_compare_prints(capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    compare("final", "v1")
    assert f"```\n{capsys.readouterr().out}```" in (PROJECT / "README.md").read_text("utf-8")
