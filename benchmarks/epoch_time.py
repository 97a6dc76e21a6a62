"""An epoch of this project takes less than half the time of the usual loop, on two CPU cores.

The usual loop is what every reader would write: torchvision's PIL transforms image by image, a
DataLoader with two workers, Adam, .item() in every step. Both train the same network from the same
weights on the same images, with the same batch size and augmentation ranges, in turns; a round ends
with an evaluation on a sixth as many test images, as a full epoch does. The first round is dropped.

Both are measured twice: with as many threads as torch takes by itself, which is how the usual loop
comes, and with one, which is how the project does; OMP_NUM_THREADS gives it more. The ratio is the
time of the usual loop as it comes over that of the project as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from DataPipeline import ChunkLoader, load_mnist, make_loaders  # noqa: E402
from helpers.history import History  # noqa: E402
from models import GOAL, VARIANTS, SmallMNISTNet4Block  # noqa: E402
from study.one_cycle import BASELINE, GOAL_RUNS, LENGTHS, RECIPE  # noqa: E402
from study.report import histories  # noqa: E402
from study.runs import RUNS, load_runs  # noqa: E402
from TrainingHelper import TrainingConfig, fit, get_device, set_seed  # noqa: E402


def build(name: str, seed: int) -> SmallMNISTNet4Block:
    """A variant's network with the weights of a seed."""
    set_seed(seed)
    return VARIANTS[name].network()


class UsualLoop:
    """The loop that every reader would write."""

    def __init__(self, images: int, device: torch.device, threads: int) -> None:
        self.device = device
        self.threads = threads
        normalise = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        augment = [
            transforms.RandomRotation(5),
            transforms.RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1), shear=5),
            transforms.ColorJitter(brightness=0.1, contrast=0.1),
        ]
        root = PROJECT / "data"
        train = datasets.MNIST(root, train=True, transform=transforms.Compose(augment + normalise))
        test = datasets.MNIST(root, train=False, transform=transforms.Compose(normalise))
        train, test = Subset(train, range(images)), Subset(test, range(images // 6))
        self.train_loader = DataLoader(train, batch_size=32, shuffle=True, num_workers=2)
        self.test_loader = DataLoader(test, batch_size=32, num_workers=2)

    def epoch(self, name: str, seed: int) -> dict[str, float]:
        """Train a fresh network for an epoch: seconds, mean training loss, images seen."""
        model = build(name, seed)
        torch.use_deterministic_algorithms(False)  # nobody's usual loop asks for them
        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        model.to(self.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        model.train()
        loss_sum = hits = seen = 0
        for images, labels in self.train_loader:
            images, labels = images.to(self.device), labels.to(self.device)
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
        model.eval()
        test_loss = test_hits = 0
        with torch.no_grad():
            for images, labels in self.test_loader:
                images, labels = images.to(self.device), labels.to(self.device)
                logits = model(images)
                test_loss += F.cross_entropy(logits, labels).item() * len(labels)
                test_hits += (logits.argmax(1) == labels).sum().item()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "loss": loss_sum / seen, "images": seen}


class Timed:
    """A loader that takes the time: until each batch is there, and from the first to the end."""

    def __init__(self, loader: ChunkLoader) -> None:
        self.loader = loader
        self.set_epoch = loader.set_epoch
        self.waiting = self.total = 0.0
        self.images = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.waiting, self.images = 0.0, 0
        begun = asked = time.perf_counter()
        for images, labels in self.loader:
            self.waiting += time.perf_counter() - asked
            self.images += len(labels)
            yield images, labels
            asked = time.perf_counter()
        self.total = time.perf_counter() - begun


class Project:
    """This project's own fit, with its own loaders."""

    def __init__(
        self,
        images: int,
        device: torch.device,
        threads: int = 1,
        config: TrainingConfig | None = None,
    ) -> None:
        self.threads = threads
        self.config = config or TrainingConfig(epochs=1)
        data = load_mnist(PROJECT / "data").first(images)
        self.data = data._replace(
            test_images=data.test_images[: images // 6], test_labels=data.test_labels[: images // 6]
        )
        self.device = device
        # The workers start in the dropped round: in a full run that is once in 20 epochs.
        loaders = make_loaders(self.data, self.config, device)
        self.train_loader, self.test_loader = (Timed(loader) for loader in loaders)

    def epoch(self, name: str, seed: int) -> dict[str, float]:
        """Train a fresh network for an epoch: seconds, how they split, loss, images seen."""
        model = build(name, seed)
        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        with patch.dict(os.environ, OMP_NUM_THREADS=f"{self.threads}"):  # or fit would take one
            history = fit(
                model, self.train_loader, self.test_loader, self.config, self.device, progress=False
            )
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "waiting": self.train_loader.waiting,
            "evaluating": self.test_loader.total,
            "loss": history.epochs[0]["train_loss"],
            "images": self.train_loader.images,
        }


def in_turns(
    contenders: Mapping[str, Callable[[int], dict]], rounds: int
) -> Iterator[tuple[int, str, dict]]:
    """Let each train an epoch, given a seed, in turns: the round, the name, the result.

    The first round, in which workers start, is dropped.
    """
    for number in range(rounds + 1):
        for name, epoch in contenders.items():
            result = epoch(42 + number)
            if number:
                yield number, name, result


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times as long theirs took, round by round; sorted."""
    return sorted(a / b for a, b in zip(theirs, ours, strict=True))


def compare(name: str, contenders: dict, rounds: int) -> dict[str, float]:
    """Let the contenders train in turns; the figures of one variant.

    Raises RuntimeError if they saw different numbers of images or came to different losses.
    """
    results = {contender: [] for contender in contenders}
    epochs = {contender: partial(loop.epoch, name) for contender, loop in contenders.items()}
    for number, contender, result in in_turns(epochs, rounds):
        results[contender].append(result)
        speed = 1000 * result["seconds"] / (result["images"] / 32)
        print(f"  round {number}  {contender:24} {speed:6.1f} ms a step", flush=True)
    seconds = {c: [result["seconds"] for result in rows] for c, rows in results.items()}

    def mid(contender: str, key: str) -> float:
        return median(result[key] for result in results[contender])

    usual, one_thread, project, threads = contenders
    images = {result["images"] for rows in results.values() for result in rows}
    if len(images) != 1:
        raise RuntimeError(f"the loops saw different numbers of images: {sorted(images)}")
    images = images.pop()
    losses = {contender: mid(contender, "loss") for contender in contenders}
    if max(losses.values()) > 1.25 * min(losses.values()):
        raise RuntimeError(f"the loops came to different losses: {losses}")

    steps = images / 32
    to_usual, to_one_thread = (ratios(seconds[c], seconds[project]) for c in (usual, one_thread))
    by_threads = ratios(seconds[project], seconds[threads])
    share = {
        part: median(result[part] / result["seconds"] for result in results[project])
        for part in ("waiting", "evaluating")
    }
    return {
        "ratio": median(to_usual),
        "ratio_min": to_usual[0],
        "ratio_max": to_usual[-1],
        "ratio_to_one_thread": median(to_one_thread),
        "ratio_to_one_thread_min": to_one_thread[0],
        "ratio_to_one_thread_max": to_one_thread[-1],
        "ratio_of_threads": median(by_threads),
        "ratio_of_threads_min": by_threads[0],
        "ratio_of_threads_max": by_threads[-1],
        "reference_ms_per_step": 1000 * mid(usual, "seconds") / steps,
        "reference_one_thread_ms_per_step": 1000 * mid(one_thread, "seconds") / steps,
        "project_ms_per_step": 1000 * mid(project, "seconds") / steps,
        "project_threads_ms_per_step": 1000 * mid(threads, "seconds") / steps,
        "reference_images_per_second": images / mid(usual, "seconds"),
        "project_images_per_second": images / mid(project, "seconds"),
        "share_waiting": share["waiting"],
        "share_evaluating": share["evaluating"],
        "share_stepping": 1 - share["waiting"] - share["evaluating"],
        "reference_loss": losses[usual],
        "project_loss": losses[project],
        "images": images,
        "rounds": rounds,
    }


def epochs_to_goal(runs: list[History]) -> int | None:
    """The first epoch after which the mean test accuracy of the runs is over the goal, or None."""
    by_epoch = zip(*(run.epochs for run in runs), strict=False)  # one may have stopped early
    means = [fmean(record["test_accuracy"] for record in records) for records in by_epoch]
    return next((epoch for epoch, mean in enumerate(means, 1) if mean > GOAL), None)


def to_the_goal(usual: UsualLoop, project: Project, rounds: int) -> dict[str, dict[str, float]]:
    """Minutes until the mean of the seeds passes the goal: epochs of the runs, time measured here.

    Three contenders train an epoch in turns: the usual loop and the project by the published
    protocol, both with BASELINE, and the project by the recipe. Each gets its minutes, its epochs,
    and, with its spread over the rounds, how many times as soon as the usual loop it is there.

    Raises ValueError if runs are missing or their mean never passes the goal.
    """
    runs = {
        "usual loop": histories(load_runs(PROJECT / RUNS), BASELINE),
        "project, recipe": histories(
            load_runs(PROJECT / GOAL_RUNS / f"{LENGTHS[0]}"), RECIPE.variant
        ),
    }
    epochs = {name: epochs_to_goal(of) for name, of in runs.items()}
    epochs["project"] = epochs["usual loop"]  # the same protocol
    if None in epochs.values():
        raise ValueError(
            "the runs are missing or do not pass the goal: python -m study run and python -m study "
            "goal train what is missing."
        )
    config = replace(RECIPE.config(LENGTHS[0]), epochs=1)
    by_recipe = Project(len(project.data.train_images), project.device, config=config)
    contenders = {
        "usual loop": partial(usual.epoch, BASELINE),
        "project": partial(project.epoch, BASELINE),
        "project, recipe": partial(by_recipe.epoch, RECIPE.variant),
    }
    minutes = {name: [] for name in contenders}
    for _, name, result in in_turns(contenders, rounds):
        epoch = result["seconds"] * 60_000 / result["images"]
        minutes[name].append(epochs[name] * epoch / 60)
    found = {}
    for name, times in minutes.items():
        sooner = ratios(minutes["usual loop"], times)
        found[name] = {
            "minutes": median(times),
            "epochs": epochs[name],
            "ratio": median(sooner),
            "ratio_min": sooner[0],
            "ratio_max": sooner[-1],
        }
        print(
            f"{GOAL} %: {name:16} {epochs[name]:2} epochs, {median(times):5.1f} minutes, "
            f"{median(sooner):.2f} times as soon ({sooner[0]:.2f} to {sooner[-1]:.2f})"
        )
    return found


def report(name: str, r: dict[str, float]) -> None:
    """Print one variant's figures."""
    print(
        f"{name}: {r['ratio']:.2f} times as fast as the usual loop "
        f"({r['ratio_min']:.2f} to {r['ratio_max']:.2f} over {r['rounds']} rounds), "
        f"{r['ratio_to_one_thread']:.2f} times as fast as with one thread "
        f"({r['ratio_to_one_thread_min']:.2f} to {r['ratio_to_one_thread_max']:.2f})\n"
        f"  with more threads {r['ratio_of_threads']:.2f} times as fast as with one "
        f"({r['ratio_of_threads_min']:.2f} to {r['ratio_of_threads_max']:.2f})\n"
        f"  usual loop {r['reference_ms_per_step']:6.1f} ms a step, "
        f"{r['reference_images_per_second']:6.0f} images a second, "
        f"loss {r['reference_loss']:.3f}\n"
        f"  project    {r['project_ms_per_step']:6.1f} ms a step, "
        f"{r['project_images_per_second']:6.0f} images a second, loss {r['project_loss']:.3f}\n"
        f"  of the project's time: waiting for data {100 * r['share_waiting']:.0f} %, stepping "
        f"{100 * r['share_stepping']:.0f} %, evaluating {100 * r['share_evaluating']:.0f} %"
    )


def profile(name: str, project: Project) -> None:
    """Print which operations the project's time goes into, by their own share of it."""
    project.epoch(name, seed=42)  # starts the workers
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        project.epoch(name, seed=43)
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    print(f"{name}: own share of each operation in the main process's time")
    for row in rows[:12]:
        print(f"  {100 * row.self_cpu_time_total / total:5.1f} %  {row.key}")


def main() -> None:
    """Measure both variants, print the figures and, if asked, write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--images", type=int, default=8192, help="training images a round")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the fastest present)")
    parser.add_argument("--profile", action="store_true", help="profile the project instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if options.rounds < 1 or not 32 <= options.images <= 60_000:
        parser.error("expected at least 1 round, and 32 to 60000 images")
    threads = torch.get_num_threads()  # torch's own choice, before the project makes its
    device = get_device(options.device)
    if options.profile:
        for name in ("v1", "final"):
            profile(name, Project(options.images, device))
        return
    load_mnist(PROJECT / "data")  # fetches it for the usual loop, too
    contenders = {
        f"usual loop ({threads} threads)": UsualLoop(options.images, device, threads),
        "usual loop, one thread": UsualLoop(options.images, device, 1),
        "project": Project(options.images, device),
        f"project ({threads} threads)": Project(options.images, device, threads),
    }
    print(f"{device.type}, {os.cpu_count()} cores, torch {torch.__version__}")
    figures = {}
    for name in ("v1", "final"):
        figures[name] = compare(name, contenders, options.rounds)
        report(name, figures[name])
    try:
        usual, _, project, _ = contenders.values()
        figures["goal"] = to_the_goal(usual, project, options.rounds)
    except ValueError as error:
        print(f"no time to the goal: {error}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
