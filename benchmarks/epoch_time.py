"""The ordinary PyTorch loop and this project's fit, timed in turns: an epoch, and to 99.4%.

Both train one network from the same weights on the same images, and test on a sixth as many. The
ordinary loop takes its turn with torch's own number of threads, and with one, as the project does.
The fast network goes through both loops, so that what the network gives and what the code gives are
told apart. Then the leaderboard's networks take turns, by their own recipes, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from DataPipeline import MNIST, load_mnist, make_loaders  # noqa: E402
from helpers.history import TRAIN_IMAGES  # noqa: E402
from models import NETWORKS, TARGET_ACCURACY  # noqa: E402
from study import inference, leaderboard, table  # noqa: E402
from study.experiments import EXPERIMENTS, SEEDS  # noqa: E402
from study.runner import Run, seconds_per_epoch  # noqa: E402
from TrainingHelper import TrainingConfig, fit, get_device, set_seed  # noqa: E402


def ordinary_loaders(images: int, batch_size: int) -> tuple[DataLoader, DataLoader]:
    """So many training images, and a sixth as many test images, as every reader would load them."""
    to_tensor = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    affine = transforms.RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1), shear=5)
    augment = [transforms.RandomRotation(5), affine, transforms.ColorJitter(0.1, contrast=0.1)]
    train = datasets.MNIST(PROJECT / "data", True, transforms.Compose(augment + to_tensor))
    test = datasets.MNIST(PROJECT / "data", False, transforms.Compose(to_tensor))
    train, test = Subset(train, range(images)), Subset(test, range(images // 6))
    train = DataLoader(train, batch_size, shuffle=True, num_workers=2)
    return train, DataLoader(test, batch_size, num_workers=2)


def ordinary_epoch(model: nn.Module, loaders: Sequence, device: torch.device, threads: int) -> None:
    """Train an epoch and evaluate, as every reader would."""
    torch.use_deterministic_algorithms(False)  # the project asks for them
    torch.set_num_threads(threads)
    optimizer = torch.optim.Adam(model.to(device).parameters(), lr=0.001)
    total = hits = 0
    for loader, training in zip(loaders, (True, False), strict=True):
        model.train(training)
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            with torch.set_grad_enabled(training):
                logits = model(images)
                loss = nn.functional.cross_entropy(logits, labels)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            total += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()


def project(model: nn.Module, data: MNIST, config: TrainingConfig, threads: int = 1) -> None:
    """Train and evaluate by fit; with several threads for the network it augments in turn."""
    os.environ["OMP_NUM_THREADS"] = f"{threads}"
    device = get_device()
    loaders = make_loaders(data, config, device, num_workers=2 if threads == 1 else 0)
    fit(model, *loaders, config, device, progress=False)


def in_turns(turns: dict[tuple[str, str], Callable], rounds: int) -> dict[tuple, list[float]]:
    """The seconds of each (network, loop)'s turn, in every round but the first, a warm-up."""
    times = {turn: [] for turn in turns}
    for number in range(rounds + 1):
        for (network, loop), turn in turns.items():
            set_seed(number)
            model = NETWORKS[network].build()
            started = time.perf_counter()
            turn(model)
            times[network, loop].append(time.perf_counter() - started)
            print(f"{number}  {network:8}{loop:28}{times[network, loop][-1]:7.2f} s", flush=True)
    return {turn: seconds[1:] for turn, seconds in times.items()}


def networks_in_turns(images: int, rounds: int) -> dict[str, float]:
    """An epoch's seconds on one thread of each network of the leaderboard, by so many images."""
    os.environ["OMP_NUM_THREADS"], times = "1", {}
    for _ in range(rounds):
        for name, (_, network, e) in leaderboard.networks().items():
            run = Run("", network, e.config, TRAIN_IMAGES, e.text, False)
            times.setdefault(name, []).append(seconds_per_epoch(run, images))
            print(f"{name:36}{times[name][-1]:7.1f} s", flush=True)
    return {name: round(median(seconds), 1) for name, seconds in times.items()}


def epochs_to_target(tables: table.Tables) -> dict[str, int]:
    """The first epoch, or length, whose mean is over the target with its whole 95% interval."""
    final = tables.epochs[tables.epochs.run.isin(tables.of("page", "final").run)]
    final = final[final.groupby("epoch").run.transform("size") == len(SEEDS)]
    fast = tables.runs[tables.runs.experiment.str.fullmatch(r"fast(-\d)?")]
    samples = final.groupby("epoch").test_accuracy, fast.groupby("epochs").final
    lows = [groups.agg(lambda v: inference.estimate(v).interval()[0]) for groups in samples]
    firsts = [int(low.index[low > TARGET_ACCURACY].min()) for low in lows]
    return dict(zip(("final", "fast"), firsts, strict=True))


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="that count (default 5)")
    parser.add_argument("--images", type=int, default=8192, help="to train on (default 8192)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--memory", metavar="ROW", help="take one turn, such as 'v1, project'")
    options = parser.parse_args()
    threads = torch.get_num_threads()  # torch's own choice, before the project makes its
    images, device = options.images, get_device()
    data = load_mnist(PROJECT / "data").subset(images)  # fetches it for the ordinary loop, too
    data = MNIST(*data[:2], data.test_images[: images // 6], data.test_labels[: images // 6])
    # The fast network's turns have all of its epochs, as one alone would hardly outlast the setup.
    configs = {"v1": TrainingConfig(epochs=1), "final": TrainingConfig(epochs=1)}
    configs["fast"], turns = EXPERIMENTS["fast"].config, {}
    for network, config in configs.items():
        loaders = ordinary_loaders(images, config.batch_size)
        loop = partial(ordinary_epoch, loaders=loaders, device=device)
        turns[network, "ordinary loop"] = partial(loop, threads=threads)
        turns[network, "ordinary loop, one thread"] = partial(loop, threads=1)
        turns[network, "project"] = partial(project, data=data, config=config)
    turns["fast", "project, two threads"] = partial(turns["fast", "project"], threads=2)
    if row := options.memory:
        network, loop = row.split(", ", 1)
        turns[network, loop](NETWORKS[network].build())
        peaks = (resource.getrusage(who).ru_maxrss // 1024 for who in (0, -1))
        print("{}: {} MiB, and {} MiB in the largest worker process".format(row, *peaks))
        return
    to_target, figures = epochs_to_target(table.load(PROJECT / "results")), {}
    times = in_turns(turns, options.rounds)
    for network, loop in times:
        count = configs[network].epochs if "project" in loop else 1
        times[network, loop] = [t * TRAIN_IMAGES / images / count for t in times[network, loop]]
    for (network, loop), seconds in times.items():
        epoch, epochs = median(seconds), to_target.get(network)
        figures[f"{network}, {loop}"] = row = {"seconds_per_epoch": epoch}
        # Whatever reaches the target is held to the ordinary loop with Final.
        base = times["v1" if network == "v1" else "final", "ordinary loop"]
        gain = to_target["final"] / epochs if epochs else 1.0
        each = [gain * usual / taken for usual, taken in zip(base, seconds, strict=True)]
        row |= {"ratio": median(each), "ratio_min": min(each), "ratio_max": max(each)}
        if epochs:
            row |= {"epochs_to_target": epochs, "seconds_to_target": epochs * epoch}
    seconds = networks_in_turns(images, options.rounds)
    about = {"images": images, "rounds": options.rounds}
    text = json.dumps({"loops": figures, "networks": seconds} | about, indent=1)
    print(f"{device.type}, {threads} threads, torch {torch.__version__}\n{text}")
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
