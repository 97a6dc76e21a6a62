"""The ordinary PyTorch loop and this project's fit, timed in turns: an epoch, and to 99.4 %.

Both train the same network from the same weights, on the same images, with the same batch size and
ranges of augmentation, and then evaluate on a sixth as many test images, as a full epoch does. The
ordinary loop takes its turn with torch's own number of threads, as it comes, and with the one that
the project takes. The project takes two turns more: with v2_bn, and with the recipe, whose batches
are larger. The first round, a warm-up, is dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from DataPipeline import MNIST, ChunkLoader, load_mnist, make_loaders  # noqa: E402
from helpers.history import TRAIN_IMAGES  # noqa: E402
from models import SETTINGS, VARIANTS  # noqa: E402
from study.analysis import surely_passes  # noqa: E402
from study.one_cycle import BASELINE, RECIPE, first_length, recipe_runs  # noqa: E402
from study.runs import histories, load_runs  # noqa: E402
from TrainingHelper import TrainingConfig, fit, get_device, set_seed  # noqa: E402

NETWORKS = {**VARIANTS, RECIPE.variant: SETTINGS[RECIPE.setting][RECIPE.variant]}
Epoch = Callable[[nn.Module], object]  # trains a network for an epoch, and evaluates it


def ordinary_loaders(images: int) -> tuple[DataLoader, DataLoader]:
    """So many training images, and a sixth as many test images, as every reader would load them."""
    to_tensor = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    augment = [
        transforms.RandomRotation(5),
        transforms.RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1), shear=5),
        transforms.ColorJitter(brightness=0.1, contrast=0.1),
    ]
    root = PROJECT / "data"
    train = datasets.MNIST(root, train=True, transform=transforms.Compose(augment + to_tensor))
    test = datasets.MNIST(root, train=False, transform=transforms.Compose(to_tensor))
    train, test = Subset(train, range(images)), Subset(test, range(images // 6))
    return (
        DataLoader(train, batch_size=32, shuffle=True, num_workers=2),
        DataLoader(test, batch_size=32, num_workers=2),
    )


def ordinary_epoch(
    model: nn.Module, loaders: Sequence[DataLoader], device: torch.device, threads: int
) -> float:
    """Train an epoch and evaluate, as every reader would; the mean training loss."""
    torch.use_deterministic_algorithms(False)  # the project asks for them
    torch.set_num_threads(threads)
    train_loader, test_loader = loaders

    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    model.train()
    train_loss = train_hits = test_loss = test_hits = 0
    for images, labels in train_loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        train_loss += loss.item() * len(labels)
        train_hits += (logits.argmax(1) == labels).sum().item()
    model.eval()
    with torch.no_grad():
        for images, labels in test_loader:
            images, labels = images.to(device), labels.to(device)
            logits = model(images)
            test_loss += F.cross_entropy(logits, labels).item() * len(labels)
            test_hits += (logits.argmax(1) == labels).sum().item()
    return train_loss / len(train_loader.dataset)


def project_epoch(
    model: nn.Module, loaders: Sequence[ChunkLoader], device: torch.device, config: TrainingConfig
) -> float:
    """The same by this project."""
    return fit(model, *loaders, config, device, progress=False).epochs[0]["train_loss"]


def in_turns(turns: dict[tuple[str, str], Epoch], rounds: int) -> dict[tuple, list[float]]:
    """The seconds of each (name, variant)'s epoch, in every round but the first."""
    times = {turn: [] for turn in turns}
    for number in range(rounds + 1):
        for (name, variant), epoch in turns.items():
            set_seed(number)
            model = NETWORKS[variant].network()
            started = time.perf_counter()
            epoch(model)
            times[name, variant].append(time.perf_counter() - started)
            print(f"{number}  {variant:8}{name:26}{times[name, variant][-1]:7.2f} s", flush=True)
    return {turn: of[1:] for turn, of in times.items()}


def ratio(theirs: Sequence[float], ours: Sequence[float], name: str = "ratio") -> dict[str, float]:
    """How many times as long theirs took, round by round: the median, the least, the most."""
    found = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {name: median(found), f"{name}_min": min(found), f"{name}_max": max(found)}


def epochs_to_goal(variant: str) -> int:
    """The first epoch at which the study's runs of a variant are over the goal for sure."""
    runs = histories(load_runs(), variant)
    by_epoch = zip(*(run.epochs for run in runs), strict=False)  # one may have stopped early
    accuracies = ([record["test_accuracy"] for record in records] for records in by_epoch)
    return next(epoch for epoch, of in enumerate(accuracies, 1) if surely_passes(of))


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="that count (default 5)")
    parser.add_argument("--images", type=int, default=8192, help="to train on (default 8192)")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the fastest present)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    threads = torch.get_num_threads()  # torch's own choice, before the project makes its
    images, device = options.images, get_device(options.device)
    data = load_mnist(PROJECT / "data").first(images)  # fetches it for the ordinary loop, too
    data = MNIST(*data[:2], data.test_images[: images // 6], data.test_labels[: images // 6])
    ordinary = partial(ordinary_epoch, loaders=ordinary_loaders(images), device=device)
    project, recipe = (
        partial(project_epoch, loaders=make_loaders(data, c, device), device=device, config=c)
        for c in (TrainingConfig(epochs=1), RECIPE.config(1))
    )
    turns = {}
    for variant in ("v1", BASELINE):
        turns["ordinary loop", variant] = partial(ordinary, threads=threads)
        turns["ordinary loop, one thread", variant] = partial(ordinary, threads=1)
        turns["project", variant] = project
    turns["project, v2_bn", "v2_bn"] = project
    turns["project, recipe", RECIPE.variant] = recipe
    with contextlib.chdir(PROJECT):  # where the runs are, wherever this is called from
        epochs = {v: epochs_to_goal(v) for v in (BASELINE, "v2_bn")}
        epochs[RECIPE.variant] = first_length(recipe_runs())
    times = in_turns(turns, options.rounds)

    figures = {}
    for variant in ("v1", BASELINE):
        usual, one_thread, ours = (of for (_, v), of in times.items() if v == variant)
        figures[variant] = {
            **ratio(usual, ours),
            **ratio(one_thread, ours, "ratio_to_one_thread"),
            "reference_ms_per_step": 32_000 * median(usual) / images,
            "reference_one_thread_ms_per_step": 32_000 * median(one_thread) / images,
            "project_ms_per_step": 32_000 * median(ours) / images,
            "images": images,
            "rounds": options.rounds,
        }
    figures["goal"] = {}
    base = [epochs[BASELINE] * seconds for seconds in times["ordinary loop", BASELINE]]
    for (name, variant), of in times.items():
        if count := epochs.get(variant):
            ours = [count * seconds for seconds in of]
            minutes = median(ours) / 60 * TRAIN_IMAGES / images
            figures["goal"][name] = {"epochs": count, "minutes": minutes, **ratio(base, ours)}
    text = json.dumps(figures, indent=1)
    print(f"{device.type}, {threads} threads, torch {torch.__version__}\n{text}")
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
