"""torch.hub loads the trained networks."""

import pytest
import torch

from predict import load_networks
from tests.helpers import PROJECT


@pytest.mark.parametrize("name", ["v1", "v2", "final", "one_cycle"])
def test_torch_hub_loads_a_trained_network_that_reads_the_test_images(name, mnist):
    network = torch.hub.load(str(PROJECT), name, source="local", trust_repo=True)
    assert not network.training
    with torch.inference_mode():
        found = network((mnist.test_images[:500] / 255 - 0.1307) / 0.3081).argmax(dim=1)
    assert (found == mnist.test_labels[:500]).sum() >= 490


def test_torch_hub_and_predict_load_the_same_networks():
    images = torch.rand(3, 1, 28, 28)
    for name, network in load_networks().items():
        loaded = torch.hub.load(str(PROJECT), name, source="local")
        assert torch.equal(loaded(images), network(images))
