"""The networks: their counts, memory, names, layers, receptive fields and other forms."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Dropout2d, Flatten, Linear, MaxPool2d
from torchsummary import summary

import models
from models import NETWORKS, ORIGINAL, Conv, Network, count_parameters, network_name

CHAIN = nn.Sequential(Conv2d(1, 2, 5, padding=2), MaxPool2d(3, 2), Conv2d(2, 2, 3, dilation=2))


def test_each_network_has_the_parameters_dropout_and_pools_that_its_name_says():
    blocks = {"none": "", "v2": "12", "late": "34", "v1": "1234", "final": "123"}
    blocks |= {"original_final": "12", "half": "", "fast": ""}
    for name, variant in NETWORKS.items():
        normed, pools = (18_278, 3) if name in ORIGINAL else (18_434, 4)
        expected = normed if variant.batch_norm else 17_938
        expected = {"half": 9_872, "fast": 19_370}.get(name, expected)
        network = variant.build()
        assert count_parameters(network) == expected, name
        assert count_parameters(network.requires_grad_(False)) == 0
        key = name if name in blocks else name.removeprefix("original_").removesuffix("_bn")
        drops = [(n[5], m.p) for n, m in network.named_modules() if isinstance(m, Dropout2d)]
        assert drops == [(block, 0.1) for block in blocks[key]], name
        pools = {"half": 2, "fast": 1}.get(name, pools)
        assert sum(isinstance(m, MaxPool2d) for m in network.modules()) == pools, name
        assert network_name(network.eval()) == name


@pytest.mark.parametrize(("name", "memory"), [("v1", "0.46"), ("v2", "0.46"), ("final", "0.85")])
def test_torchsummary_prints_the_published_memory_of_the_pages_networks(name, memory, capsys):
    summary(NETWORKS[name].build(), (1, 28, 28), device="cpu")
    printed = capsys.readouterr().out
    assert f"Forward/backward pass size (MB): {memory}\nParams size (MB): 0.07\n" in printed


def typed_out(conv, *rates):
    drops = [[Dropout2d(rate)] if rate else [] for rate in rates]
    return Network(  # as the notebooks write it
        block1=[conv(1, 8), conv(8, 8), conv(8, 16), conv(16, 16, 1), MaxPool2d(2), *drops[0]],
        block2=[conv(16, 16), conv(16, 16), conv(16, 16, 1), MaxPool2d(2), *drops[1]],
        block3=[conv(16, 8), conv(8, 8), conv(8, 32), conv(32, 32, 1), MaxPool2d(2), *drops[2]],
        block4=[conv(32, 8), conv(8, 32), conv(32, 32, 1), MaxPool2d(2), *drops[3]],
        head=[AdaptiveAvgPool2d(1), Flatten(), Linear(32, 10)],
    )


def test_naming_knows_networks_typed_out_calls_others_by_class_and_draws_no_number():
    models._names.cache_clear()
    before = torch.get_rng_state()
    assert network_name(nn.Identity()) == "Identity"
    assert torch.equal(torch.get_rng_state(), before)
    assert network_name(typed_out(Conv, 0.1, 0.1, 0.1, 0.1)) == "v1"
    assert network_name(typed_out(Conv, 0.1, 0.1, 0, 0)) == "v2"
    assert network_name(typed_out(partial(Conv, batch_norm=True), 0.1, 0.1, 0.1, 0)) == "final"
    assert network_name(typed_out(Conv, 0.1, 0.1, 0.1, 0.2)) == "Network"


def test_a_seed_gives_the_weights_logits_and_dropout_masks_of_plain_torch_layers():
    images, layers, logits = torch.rand(8, 1, 28, 28), [], []
    torch.manual_seed(42)
    network = NETWORKS["original_final"].build()
    torch.manual_seed(42)
    for i, shape in enumerate(pairwise((1, 6, 12, 24, 8, 16, 16, 8, 16, 16, 16, 32))):
        last = i in (3, 6)  # of its block: 1x1, before dropout
        layers += [Conv2d(*shape, 3 - 2 * last, padding="same"), nn.BatchNorm2d(shape[1])]
        layers += [nn.ReLU()] + [MaxPool2d(2)] * (last or i == 8) + [Dropout2d(0.1)] * last
    plain = nn.Sequential(*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(32, 10))
    for model in (network.train(), plain.train(), network.eval(), plain.eval()):
        torch.manual_seed(1)
        logits.append(model(images))
    assert torch.equal(*logits[:2]) and torch.equal(*logits[2:]) and logits[2].std() > 0.01


@pytest.mark.parametrize("network", [NETWORKS[n].build() for n in ("v1", "half", "fast")] + [CHAIN])
def test_receptive_fields_are_those_that_gradients_show(network):
    x = image = torch.ones(1, 1, 160, 160, dtype=torch.float64, requires_grad=True)
    measured = {}  # with positive weights and mean pooling no gradient vanishes
    network.double().apply(lambda m: isinstance(m, Conv2d) and nn.init.constant_(m.weight, 0.1))
    for name, layer in network.named_modules():
        if isinstance(layer, (Conv2d, MaxPool2d, nn.PixelUnshuffle)):
            pool = isinstance(layer, MaxPool2d)
            x = (AvgPool2d(layer.kernel_size, layer.stride) if pool else layer)(x)
            inside = x[..., x.shape[2] // 2, x.shape[3] // 2].sum()  # no padding reaches it
            (gradient,) = torch.autograd.grad(inside, image, retain_graph=True)
            measured[name] = gradient.count_nonzero().sqrt()  # the side of a full square
    assert measured == models.receptive_fields(network)


def test_scripted_traced_exported_and_channels_last_networks_give_the_same_logits():
    network, images = NETWORKS["final"].build().eval(), torch.rand(4, 1, 28, 28)
    expected = network(images)
    exported = torch.export.export(network, (images,)).module()
    for other in (torch.jit.script(network), torch.fx.symbolic_trace(network), exported):
        assert torch.equal(other(images), expected)
    torch.testing.assert_close(network.to(memory_format=torch.channels_last)(images), expected)
