"""Strangers' networks and loaders: trained, or refused in a sentence before the first epoch."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader

import DataPipeline
from DataPipeline import make_loaders
from helpers.checkpoint import load_weights, save_run
from models import NETWORKS, network_name
from tests.helpers import CPU, build
from TrainingHelper import TrainingConfig, compute_logits, fit, set_seed

CONFIG = TrainingConfig(epochs=1)


class Student(nn.Module):
    """A first network, as students write it."""

    def __init__(self, rate=0.0, classes=10):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 8, 5)
        self.out, self.rate = nn.Linear(128, classes), rate

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        return self.out(F.dropout(x.view(-1, 128), self.rate, self.training))


def train(model, data, **options):
    return fit(model, *make_loaders(data, CONFIG), CONFIG, CPU, progress=False, **options)


def test_a_network_that_views_its_maps_trains_and_works_outside_fit_afterwards(small, tmp_path):
    set_seed(1)
    model = Student()
    history = train(model, small)
    logits, _ = compute_logits(model, make_loaders(small)[1], CPU)
    images = DataPipeline.normalize(small.test_images / 255)
    assert history.network == "Student" and torch.allclose(model.eval()(images), logits, atol=1e-5)
    save_run(model, history, tmp_path)
    with pytest.raises(ValueError, match=r"holds no network of models\.NETWORKS"):
        load_weights(tmp_path / "Student.safetensors")


NONE = nn.Sequential(nn.Flatten(), nn.Softmax(1))
REFUSED = {
    "no parameters that train": NONE,
    "add some, or unfreeze them": nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).requires_grad_(
        False
    ),
    "lazy layers: call it once": nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
    r"returns \[2, 9\] for two images": Student(classes=9),
    r"returns \[2, 10, 1, 1\] for": nn.Conv2d(1, 10, 28),
    "returns tuple for two images": type("Two", (Student,), {"forward": lambda s, x: (x, x)})(),
    r"does not take images, float32 \[B, 1, 28, 28\] \(mat1": nn.Sequential(
        nn.Flatten(), nn.Linear(64, 10)
    ),
}


@pytest.mark.parametrize("reason", list(REFUSED))
def test_what_cannot_be_trained_is_refused_before_the_first_epoch(reason, small, tmp_path):
    with pytest.raises(ValueError, match=reason):
        train(REFUSED[reason], small, checkpoint=tmp_path / "run.pt")
    assert not list(tmp_path.iterdir())


def test_probabilities_are_warned_of_and_log_softmax_is_fine(small, recwarn):
    layers = [nn.Flatten(), nn.Linear(784, 10)]
    train(nn.Sequential(*layers, nn.LogSoftmax(1)), small)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="probabilities, .* leave out its softmax"):
        train(nn.Sequential(*layers, nn.Softmax(1)), small)


@pytest.mark.parametrize("tool", ["buffers", "pruning", "weight norm"])
def test_what_a_tool_leaves_in_a_network_is_trained_saved_and_not_called_ours(
    tool, small, tmp_path
):
    model = build("v1")
    conv = model.block1[0].conv
    if tool == "buffers":
        for module in model.modules():  # as counters of operations do
            module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
    elif tool == "pruning":
        prune.l1_unstructured(conv, "weight", amount=0.2)
    else:
        nn.utils.parametrizations.weight_norm(conv)
    history = train(model, small, checkpoint=tmp_path / "Network.pt")
    assert history.network == "Network"
    save_run(model, history, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"Network.json", "Network.safetensors"}


def test_another_rate_augmentation_or_name_is_another_run(small, tmp_path, monkeypatch):
    train(Student(0.1), small, checkpoint=tmp_path / "run.pt")
    train(Student(0.1), small, checkpoint=tmp_path / "run.pt")  # loaded
    with pytest.raises(ValueError, match="different: network's forward pass"):
        train(Student(0.2), small, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="different: network"):
        train(Student(0.1), small, checkpoint=tmp_path / "run.pt", name="mine")
    wider = dataclasses.replace(DataPipeline.AUGMENTATIONS["page"], rotation=9.0)
    monkeypatch.setitem(DataPipeline.AUGMENTATIONS, "page", wider)
    with pytest.raises(ValueError, match="different: data"):
        train(Student(0.1), small, checkpoint=tmp_path / "run.pt")


def test_a_loader_of_ours_is_a_dataloader(small):
    train_loader, test_loader = make_loaders(small, TrainingConfig(batch_size=50))
    assert isinstance(train_loader, DataLoader) and train_loader.batch_size == 50
    assert len(train_loader.dataset) == 320 and len(test_loader.dataset) == 100
    image, label = test_loader.dataset[3]
    assert torch.equal(image, small.test_images[3]) and label == small.test_labels[3]
    assert len(next(iter(train_loader))[0]) == 50


def test_an_own_augmentation_takes_the_place_of_the_configs(small):
    config = TrainingConfig(augmentation="own", epochs=2, plain_epochs=1)

    def brighter(images, generator):
        assert images.dtype == torch.uint8
        return (images / 255 + torch.rand(1, generator=generator)).clamp(0, 1)

    loader, _ = make_loaders(small, config, own_augment=brighter)
    first, second = (torch.cat([images for images, _ in loader]) for _ in range(2))
    loader.set_epoch(1)
    assert torch.equal(torch.cat([images for images, _ in loader]), first)
    assert first.mean() > second.mean() + 0.1
    with pytest.raises(ValueError, match="no augmentation 'own'; choose from"):
        make_loaders(small, config)
    with pytest.raises(ValueError, match="the config's augmentation is 'page'; expected \"own\""):
        make_loaders(small, own_augment=brighter)


def test_a_layer_of_an_own_class_is_not_ours():
    model = NETWORKS["v1"].build()
    assert network_name(model) == "v1"
    model.block1[0].__class__ = type("Conv", (type(model.block1[0]),), {})
    assert network_name(model) == "Network"
