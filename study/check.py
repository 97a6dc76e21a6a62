"""python -m study check: what a network is, in seconds, before anything is trained."""

from __future__ import annotations

import sys

import torch
from torch import nn

from helpers.trial import trial_logits
from models import IMAGE_SHAPE, NETWORKS, count_parameters
from study.compare import runs_of
from study.network_file import load_network_file
from study.table import load

PICTURES = 64  # random ones, so that each place of a max pooling wins in some


def describe(model: nn.Module) -> dict:
    """Facts of a network, which is of no other use afterwards.

    Returns parameters; unused, those of layers that forward never calls (torchsummary leaves them
    out, parameters() counts them); multiply_adds of convolutions and linear layers for one image;
    layers, a list of (name, type, output shape, receptive field in pixels).

    Raises ValueError as trial_logits does.
    """
    trial_logits(model, torch.device("cpu"))
    model, outputs = model.double().eval(), {}
    names = {layer: name for name, layer in model.named_modules() if not list(layer.children())}

    def keep(layer: nn.Module, _: tuple, output: torch.Tensor) -> None:
        outputs.setdefault(names[layer], output)

    hooks = [layer.register_forward_hook(keep) for layer in names]
    # Weights are made positive, so that nothing cancels and ReLU passes everything.
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.fill_(0.0 if "running_mean" in name or "bias" in name else 0.1)
    images = torch.rand(PICTURES, *IMAGE_SHAPE, dtype=torch.float64).requires_grad_()
    model(images)
    for hook in hooks:
        hook.remove()
    modules, layers, multiply_adds = dict(model.named_modules()), [], 0
    for name, output in outputs.items():
        layer = modules[name]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            multiply_adds += output[0].numel() * layer.weight[0].numel()
        field = _receptive_field(output, images)
        layers.append((name, type(layer).__name__, tuple(output.shape[1:]), field))
    unused = sum(count_parameters(m) for m, name in names.items() if name not in outputs)
    facts = {"parameters": count_parameters(model), "unused": unused}
    return facts | {"multiply_adds": multiply_adds, "layers": layers}


def _receptive_field(output: torch.Tensor, images: torch.Tensor) -> int:
    """How far the pixels lie apart that the place in the middle depends on, by gradients."""
    if output.ndim == 4:
        output = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
    [gradient] = torch.autograd.grad(output.sum(), images, retain_graph=True)
    places = gradient.abs().amax((0, 1)).nonzero()
    return int((places.amax(0) - places.amin(0)).max()) + 1 if len(places) else 0


def check(name: str, model: nn.Module, limit: int | None = None) -> bool:
    """Print what describe gives; whether the network has no more parameters than the limit."""
    facts = describe(model)
    few = limit is None or facts["parameters"] <= limit
    verdict = "" if limit is None else f" (limit {limit:,}: {'ok' if few else 'too many'})"
    print(f"{name}: {facts['parameters']:,} parameters{verdict}")
    if facts["unused"]:
        print(f"  {facts['unused']:,} of them belong to layers that forward never calls")
    million = facts["multiply_adds"] / 1e6
    print(f"  {million:.2f} million multiply-adds an image (convolutions and linear layers)")
    kinds = {kind for _, kind, *_ in facts["layers"]}
    for part in ("BatchNorm", "Dropout", "AvgPool"):
        print(f"  {part}: {'yes' if any(part in kind for kind in kinds) else 'no'}")
    print(f"  {'layer':20}{'type':20}{'output':>14}  receptive field (of 28x28)")
    for layer, kind, shape, field in facts["layers"]:
        print(f"  {layer:20}{kind:20}{'x'.join(map(str, shape)):>14}  {field}x{field}")
    return few


def command(name: str, parameters: int | None, accuracy: float | None, last: int) -> None:
    """Check a file, or a network by its name; exit with status 1 if it does not pass.

    accuracy: in percent, that the last epochs of all trained seeds have to reach.

    Raises ValueError for a name that is no network, and as describe and runs_of do.
    """
    if not name.endswith(".py") and name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; name a .py file or one of NETWORKS.")
    file = load_network_file(name) if name.endswith(".py") else None
    passed = check(name, file.network() if file else NETWORKS[name].build(), parameters)
    if accuracy is not None:
        tables = load()
        runs = runs_of(name, tables).run
        epochs = tables.epochs[tables.epochs.run.isin(runs)].groupby("run").test_accuracy
        steady = sum(min(values[-last:]) >= accuracy for _, values in epochs)
        print(f"  {steady} of {len(runs)} seeds: the last {last} epochs are all at {accuracy:g}%")
        passed &= steady == len(runs)
    sys.exit(not passed)
