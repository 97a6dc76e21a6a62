#!/usr/bin/env bash
# Expected: counting operations leaves the network as it was. torchinfo and thop
#   also switch to evaluation mode to count, but switch back afterwards.
# Seen: ptflops leaves every module in evaluation mode, with both of its backends.
#   Training that follows has no dropout, and BatchNorm stops tracking statistics.
#   Nothing warns about it.
# Seen with 0.7.5, the newest release: https://github.com/sovrasov/flops-counter.pytorch
# Matters: a one-file MNIST script often builds, counts, and trains without calling
#   net.train(). Such a run trains a different network from the one intended.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q torch==2.8.0 numpy==2.2.6 ptflops==0.7.5 torchinfo==1.8.0
"$tmp/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version
import torch
from torch import nn
from ptflops import get_model_complexity_info
from torchinfo import summary

def state_after(count):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                        nn.Dropout(0.5), nn.Linear(8 * 24 * 24, 10))
    count(net)
    images = torch.rand(16, 1, 28, 28)
    same = torch.equal(net(images), net(images))
    return {module.training for module in net.modules()}, same, int(net[1].num_batches_tracked)

def with_ptflops(backend):
    return lambda net: get_model_complexity_info(net, (1, 28, 28), print_per_layer_stat=False, backend=backend)

print("ptflops", version("ptflops"), "torchinfo", version("torchinfo"), "torch", torch.__version__)
counters = {"none": lambda net: None, "torchinfo": lambda net: summary(net, (1, 1, 28, 28), verbose=0),
            "ptflops, pytorch": with_ptflops("pytorch"), "ptflops, aten": with_ptflops("aten")}
seen = {name: state_after(count) for name, count in counters.items()}
for name, (modes, same, tracked) in seen.items():
    print(f"{name:17} training flags {modes}, dropout off: {same}, batches tracked: {tracked}")
good, bad = ({True}, False, 2), ({False}, True, 0)
sys.exit(list(seen.values()) != [good, good, bad, bad])
PY
echo "Still so: ptflops hands the network back in evaluation mode."
