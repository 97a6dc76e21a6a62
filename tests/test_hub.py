"""torch.hub loads the trained networks, whatever the caller's own modules are called."""

import subprocess
import sys

import pytest
import torch

from tests.helpers import PROJECT


@pytest.mark.parametrize("name", ["v1", "v2", "final", "fast"])
def test_torch_hub_loads_a_network_that_reads_the_test_images(name, mnist):
    network = torch.hub.load(str(PROJECT), name, source="local")
    images = (mnist.test_images[:500] / 255 - 0.1307) / 0.3081
    with torch.inference_mode():
        digits = network(images).argmax(dim=1)
    assert not network.training and (digits == mnist.test_labels[:500]).sum() >= 490


@pytest.mark.slow
def test_the_callers_own_modules_stay_its_own(tmp_path):
    for name in ("models", "helpers", "TrainingHelper"):
        (tmp_path / f"{name}.py").write_text("mine = True")
    load = f"torch.hub.load({str(PROJECT)!r}, 'final', source='local')"
    code = f"import models, torch\n{load}\nimport helpers, TrainingHelper, models as again\n"
    code += "assert again is models and models.mine and helpers.mine and TrainingHelper.mine"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
