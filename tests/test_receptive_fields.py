"""The receptive fields that follow from LAYOUT, against those that gradients show."""

import torch
import torch.nn.functional as F
from torch import nn

from models import LAYOUT, receptive_fields
from tests.helpers import build


def measured(blocks):
    """The pixels of a large input that one place in the middle of a block's output depends on.

    Positive weights and mean pooling over the windows of the maximum's let no gradient vanish.
    """
    model = build("none").double()
    image = torch.ones(1, 1, 192, 192, dtype=torch.float64, requires_grad=True)
    x = image
    for convs, pool in list(zip(model.convs, model.pools, strict=True))[:blocks]:
        for conv in convs:
            nn.init.constant_(conv[0].weight, 0.1)
            x = conv(x)
        x = F.avg_pool2d(x, pool[0].kernel_size, pool[0].stride)
    x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum().backward()
    return image.grad[0, 0].nonzero()


def test_a_place_of_each_blocks_output_depends_on_a_square_of_the_stated_side():
    for block, side in enumerate(receptive_fields(), start=1):
        pixels = measured(block)
        rows, columns = (pixels.max(dim=0).values - pixels.min(dim=0).values + 1).tolist()
        assert rows == columns == side and len(pixels) == side**2
    assert block == len(LAYOUT)


def test_from_the_third_block_on_the_square_is_larger_than_the_image():
    assert [side > 28 for side in receptive_fields()] == [False, False, True, True]
