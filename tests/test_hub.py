"""torch.hub loads the trained networks."""

import pytest
import torch

from helpers.checkpoint import weights_digest
from helpers.history import History
from tests.helpers import PROJECT


@pytest.mark.parametrize("name", ["v1", "v2", "final", "one_cycle"])
def test_torch_hub_loads_the_network_of_a_notebook_that_reads_the_test_images(name, mnist):
    network = torch.hub.load(str(PROJECT), name, source="local", trust_repo=True)
    assert weights_digest(network) == History.load(PROJECT / "results" / f"{name}.json").weights
    assert not network.training
    with torch.inference_mode():
        found = network((mnist.test_images[:500] / 255 - 0.1307) / 0.3081).argmax(dim=1)
    assert (found == mnist.test_labels[:500]).sum() >= 490
