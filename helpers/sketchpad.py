"""Write the networks in results/ into the page to draw on: python -m helpers.sketchpad."""

import json
import re
from base64 import b64encode

from torch import nn

from helpers.checkpoint import ROOT
from helpers.files import write_atomically
from predict import load_networks

PAGE = ROOT / "docs" / "draw.html"


def networks_line() -> str:
    """The page's line that holds the networks: per layer its class, its weights, its biases."""
    lists = {}
    for name, network in load_networks().items():
        lists[name] = layers = []
        for layer in network.double().modules():  # in double, what folding rounds does not show
            conv = getattr(layer, "conv", layer)
            if isinstance(layer, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
                layers.append([type(layer).__name__])
            elif conv is not layer or isinstance(layer, nn.Linear):
                conv = nn.utils.fuse_conv_bn_eval(*layer) if hasattr(layer, "norm") else conv
                bias = conv.weight.new_zeros(len(conv.weight)) if conv.bias is None else conv.bias
                texts = [b64encode(t.detach().float().numpy()) for t in (conv.weight, bias)]
                layers.append([type(layer).__name__, *(text.decode() for text in texts)])
    return f"const NETWORKS = {json.dumps(lists)};"


if __name__ == "__main__":
    page = re.sub("(?m)^const NETWORKS = .*$", networks_line(), PAGE.read_text("utf-8"))
    write_atomically(PAGE, page.encode())
