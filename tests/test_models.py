"""The networks of both settings: counts, memory, layout, bits; and the publication's figures."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchsummary import summary

import models
from helpers.publication import FINAL, V1, V2, published_log
from models import (
    AS_RUN,
    SETTINGS,
    VARIANTS,
    Conv,
    Network,
    count_parameters,
    identify,
    receptive_fields,
)
from tests.helpers import build

PAGE, RUN, _ = SETTINGS
EVERY = [(setting, name) for setting, variants in SETTINGS.items() for name in variants]


@pytest.mark.parametrize(
    ("setting", "name", "parameters", "forward", "total"),
    [
        (PAGE, "v1", 17_938, "0.46", "0.53"),
        (PAGE, "v2", 17_938, "0.46", "0.53"),
        (PAGE, "final", 18_434, "0.85", "0.93"),
        (RUN, "v1", 17_938, "0.39", "0.46"),
        (RUN, "v2", 17_938, "0.39", "0.46"),
        (RUN, "v2_bn", 18_278, "0.76", "0.84"),
    ],
)
def test_parameters_and_torchsummarys_memory_are_the_published_ones(
    setting, name, parameters, forward, total, capsys
):
    model, published = build(name, setting=setting), SETTINGS[setting][name].published
    said = published.page.parameters if setting == PAGE else published.parameters_run
    assert count_parameters(model) == parameters == said
    summary(model, (1, 28, 28), device="cpu")
    printed = capsys.readouterr().out
    for line in (
        f"Forward/backward pass size (MB): {forward}",
        "Params size (MB): 0.07",
        f"Estimated Total Size (MB): {total}",
    ):
        assert f"{line}\n" in printed


def test_frozen_parameters_are_not_counted():
    model = build("v1")
    model.head.requires_grad_(False)
    assert count_parameters(model) == 17_938 - 330


def test_the_variants_are_the_factorial_and_the_pages_final():
    """Early and late dropout with and without batch normalization, each combination once."""
    both = ((0.0, 0.0), (0.1, 0.1))
    expected = set(itertools.product(both, both, (False, True)))
    for variants in ({k: v for k, v in VARIANTS.items() if k != "final"}, AS_RUN):
        cells = {(v.dropout[:2], v.dropout[2:], v.batch_norm) for v in variants.values()}
        assert cells == expected and len(variants) == 8
    assert VARIANTS["final"].dropout == (0.1, 0.1, 0.1, 0.0) and VARIANTS["final"].batch_norm
    published = [{k: v.published for k, v in s.items() if v.published} for s in SETTINGS.values()]
    of_page, of_run = {"v1": V1, "v2": V2, "final": FINAL}, {"v1": V1, "v2": V2, "v2_bn": FINAL}
    assert published == [of_page, of_run, {}]


BLOCKS = {  # per block the convolutions' (kernel size, outputs), and whether it ends in a pooling
    PAGE: [
        ([(3, 8), (3, 8), (3, 16), (1, 16)], True),
        ([(3, 16), (3, 16), (1, 16)], True),
        ([(3, 8), (3, 8), (3, 32), (1, 32)], True),
        ([(3, 8), (3, 32), (1, 32)], True),
    ],
    RUN: [
        ([(3, 6), (3, 12), (3, 24), (1, 8)], True),
        ([(3, 16), (3, 16), (1, 8)], True),
        ([(3, 16), (3, 16)], True),
        ([(3, 16), (3, 32)], False),
    ],
}
RECIPE_BLOCKS = {
    "three_pools": [(convs, block < 3) for block, (convs, _) in enumerate(BLOCKS[PAGE])],
    "two_pools": [(convs, block < 2) for block, (convs, _) in enumerate(BLOCKS[PAGE])],
    "three_blocks": [
        ([(3, 6), (3, 12), (3, 14), (1, 8)], True),
        ([(3, 16), (3, 16), (1, 8)], True),
        ([(3, 16), (3, 16)], False),
    ],
}
RATES = {"none": (0, 0), "v2": (0.1, 0), "late": (0, 0.1), "v1": (0.1, 0.1)}  # early, late


def written_out(setting, name):
    """A variant as a plain list of torch's layers."""
    blocks = RECIPE_BLOCKS.get(name) or BLOCKS[setting]
    rates = [0.1, 0.1, 0.1, 0] if name == "final" else len(blocks) * [0]
    if of := RATES.get(name.removesuffix("_bn")):
        rates = [of[0], of[0], of[1], of[1]]
    norm = name.endswith(("_bn", "final")) or name in RECIPE_BLOCKS
    layers, channels = [], 1
    for (convs, pooled), rate in zip(blocks, rates, strict=True):
        for kernel, outputs in convs:
            bias = setting == RUN or name == "three_blocks"
            layers.append(nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=bias))
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers.append(nn.ReLU())
            channels = outputs
        layers += [nn.MaxPool2d(2)] if pooled else []
        layers += [nn.Dropout2d(rate)] if rate else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers, *head)


def keep_the_signal_up(model):
    """Weights and statistics with which no decimal fades, as it does with the default ones."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            for statistic in (module.running_mean, module.running_var, module.bias):
                nn.init.uniform_(statistic, 0.5, 1.5)


@pytest.mark.parametrize(("setting", "name"), EVERY)
def test_a_network_is_the_one_written_out_layer_by_layer(setting, name):
    """Its first bits, its logits, and in training its dropout masks, drawn in the same order."""
    model = build(name, setting=setting)
    torch.manual_seed(42)
    reference = written_out(setting, name)
    pairs = list(zip(model.state_dict().values(), reference.state_dict().values(), strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert len(list(model.parameters())) == len(list(reference.parameters()))

    keep_the_signal_up(model)
    for ours, theirs in pairs:
        theirs.copy_(ours)
    images = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    for training in (False, True):
        logits = []
        for network in (model, reference):
            torch.manual_seed(1)
            logits.append(network.double().train(training)(images))
        torch.testing.assert_close(*logits)
        assert logits[0].std() > 0.01


@pytest.mark.parametrize("setting", [PAGE, RUN])
def test_receptive_fields_are_those_that_gradients_show(setting):
    """Positive weights, and mean pooling where the maximum's was, let no gradient vanish."""
    variant = SETTINGS[setting]["none"]
    model, fields = variant.network().double(), receptive_fields(variant.layout)
    assert len(fields) == 4 and [field > 28 for field in fields] == [False, False, True, True]
    for count, side in enumerate(fields, start=1):
        x = image = torch.ones(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
        for layer in itertools.chain(*list(model)[:count]):
            if isinstance(layer, Conv):
                nn.init.constant_(layer.conv.weight, 0.1)
                x = layer(x)
            else:
                x = F.avg_pool2d(x, 2)
        x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum().backward()
        pixels = image.grad[0, 0].nonzero()
        rows, columns = (pixels.amax(0) - pixels.amin(0) + 1).tolist()
        assert rows == columns == side and len(pixels) == side**2


def test_a_network_knows_its_setting_and_variant_and_nothing_else_has_one():
    model = build("v1")
    models._known.cache_clear()
    before = torch.get_rng_state()
    assert identify(model) == (PAGE, "v1") and torch.equal(torch.get_rng_state(), before)
    assert [identify(SETTINGS[s][n].network().eval()) for s, n in EVERY] == EVERY

    class Other(Network):
        def forward(self, images):
            return -super().forward(images)

    other, changed = Other(), build("v1")
    for name, block in build("v1").named_children():
        other.add_module(name, block)
    changed.block2[-1].p = 0.2
    Other.__name__ = "Network"
    assert repr(other) == repr(model)
    assert identify(other) is identify(changed) is identify(written_out(PAGE, "v1")) is None


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 28, 28), (2, 1, 14, 14)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images have shape .*expected"):
        build("v1")(torch.zeros(shape))


# --- the publication ------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [V1, V2, FINAL])
def test_the_page_says_what_is_in_the_log_but_for_the_first_epoch_at_99(published):
    page, corrected, log = published.page, published.corrected, published.log
    records = published_log(published.name)
    accuracies = [record["test_accuracy"] for record in records]
    keys = {"train_loss", "test_loss", "train_accuracy", "test_accuracy"}
    assert len(records) == 20 and all(record.keys() == keys for record in records)
    for name in ("epoch_1_train_accuracy", "epoch_1_test_accuracy"):
        assert getattr(page, name) == getattr(corrected, name) == getattr(log, name)
    assert page.final_accuracy == corrected.final_accuracy == max(accuracies)
    assert page.accuracy_at_99 == log.accuracy_at_99
    assert page.first_epoch_at_99 <= corrected.first_epoch_at_99 == log.first_epoch_at_99
    assert log.final_accuracy == accuracies[-1]
    assert log.gap == pytest.approx(accuracies[-1] - records[-1]["train_accuracy"])


def test_the_rates_and_the_gap_are_as_said():
    assert [p.corrected.convergence_rate for p in (V1, V2, FINAL)] == [0.9, 0.9, 1.2]
    assert [p.page.gap for p in (V1, V2, FINAL)] == [2.4, None, None]
