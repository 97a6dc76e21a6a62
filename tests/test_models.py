"""The network: the published counts and memory, its layout, and what it refuses."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torchsummary import summary

from models import VARIANTS, SmallMNISTNet4Block, count_parameters
from tests.helpers import build


@pytest.mark.parametrize(
    ("name", "parameters", "memory"),
    [("v1", 17_938, "0.46"), ("v2", 17_938, "0.46"), ("final", 18_434, "0.85")],
)
def test_parameters_and_torchsummarys_memory_are_the_published_ones(
    name, parameters, memory, capsys
):
    assert count_parameters(build(name)) == parameters == VARIANTS[name].published.parameters
    summary(build(name), (1, 28, 28), device="cpu")
    printed = capsys.readouterr().out
    assert f"Forward/backward pass size (MB): {memory}\n" in printed
    assert "Params size (MB): 0.07\n" in printed


def test_the_variants_are_the_factorial_and_the_published_final():
    """Early and late dropout with and without batch normalisation, each combination once."""
    factors = {
        (variant.dropout[:2], variant.dropout[2:], variant.batch_norm)
        for name, variant in VARIANTS.items()
        if name != "final"
    }
    both = ((0.0, 0.0), (0.1, 0.1))
    assert factors == set(itertools.product(both, both, (False, True)))
    assert len(VARIANTS) == 9 and VARIANTS["final"].dropout == (0.1, 0.1, 0.1, 0.0)
    assert [name for name, v in VARIANTS.items() if v.published] == ["v2", "v1", "final"]
    with pytest.raises(AttributeError):
        VARIANTS["v1"].dropout = (0, 0, 0, 0)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_dropout_and_batch_norm_are_where_the_variant_says(name):
    model, variant = build(name), VARIANTS[name]
    dropouts = [[m.p for m in pool if isinstance(m, nn.Dropout2d)] for pool in model.pools]
    assert dropouts == [[rate] if rate else [] for rate in variant.dropout]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (14 if variant.batch_norm else 0)
    assert all(m.momentum == 0.1 for m in norms)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 14


def written_out(batch_norm):
    """The layout table of docs/choices.md, spelled out layer by layer, without dropout."""

    def conv(inputs, outputs, kernel):
        layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()] if batch_norm else [layer, nn.ReLU()]

    return nn.Sequential(
        *conv(1, 8, 3), *conv(8, 8, 3), *conv(8, 16, 3), *conv(16, 16, 1), nn.MaxPool2d(2),
        *conv(16, 16, 3), *conv(16, 16, 3), *conv(16, 16, 1), nn.MaxPool2d(2),
        *conv(16, 8, 3), *conv(8, 8, 3), *conv(8, 32, 3), *conv(32, 32, 1), nn.MaxPool2d(2),
        *conv(32, 8, 3), *conv(8, 32, 3), *conv(32, 32, 1), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["v1", "final"])
def test_the_network_computes_what_the_layout_table_says(name):
    """With weights that keep the signal up: the default ones let it fade to the last decimals."""
    model = build(name)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            for statistic in (module.running_mean, module.running_var, module.bias):
                nn.init.uniform_(statistic, 0.5, 1.5)
    reference = written_out(model.batch_norm)
    weights = zip(reference.state_dict(), model.state_dict().values(), strict=True)
    reference.load_state_dict(dict(weights))
    images = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    logits = model.double().eval()(images)
    torch.testing.assert_close(logits, reference.double().eval()(images))
    assert logits.std() > 0.01


def test_a_network_knows_its_variant():
    assert [build(name).variant for name in VARIANTS] == list(VARIANTS)
    other = SmallMNISTNet4Block(dropout=[0.1, 0, 0, 0.5], batch_norm=True)
    assert other.variant == "dropout=(0.1, 0, 0, 0.5), batch_norm=True"
    assert copy.deepcopy(other).variant == other.variant


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ((0.1, 0.1, 0.1), "3 rates; expected 4"),
        ((0.1, 1.0, 0, 0), r"block 2 is 1.0; expected a rate in \[0, 1\)"),
        ((0.1, 0, 0, -0.1), "block 4 is -0.1"),
    ],
)
def test_dropout_rates_that_make_no_sense_are_refused(dropout, message):
    with pytest.raises(ValueError, match=message):
        SmallMNISTNet4Block(dropout=dropout)


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 28, 28), (2, 1, 14, 14)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="one channel"):
        build("v1")(torch.zeros(shape))
