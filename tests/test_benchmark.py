"""The benchmark runs and writes its figures; how fast it is, is not judged here."""

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from statistics import fmean
from types import SimpleNamespace

import pytest

from DataPipeline import make_loaders
from tests.helpers import CPU, PROJECT, bits, build, history, same_bits
from TrainingHelper import TrainingConfig

FIGURES = PROJECT / "benchmarks" / "epoch_time.json"


@pytest.fixture
def benchmark():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("b", PROJECT / "benchmarks" / "epoch_time.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_tiny_benchmark_writes_the_ratios_of_what_it_timed(mnist, tmp_path):
    command = [sys.executable, PROJECT / "benchmarks" / "epoch_time.py", "--device", "cpu"]
    command += ["--rounds", "1", "--images", "128", "--json", tmp_path / "figures.json"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # two are slow where others are at work
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=one_thread)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.keys() == {"v1", "final", "goal"}
    for of in (figures["v1"], figures["final"]):
        assert (of["images"], of["rounds"]) == (128, 1)
        ours = of["project_ms_per_step"]
        assert of["ratio"] == pytest.approx(of["reference_ms_per_step"] / ours)
        to_one_thread = of["reference_one_thread_ms_per_step"] / ours
        assert of["ratio_to_one_thread"] == pytest.approx(to_one_thread)
    goal = figures["goal"]
    epochs = {name: of["epochs"] for name, of in goal.items()}
    assert epochs == {
        "ordinary loop": 12,
        "ordinary loop, one thread": 12,
        "project": 12,
        "project, v2_bn": 11,
        "project, recipe": 8,
    }
    minutes = 12 * 1875 * figures["final"]["project_ms_per_step"] / 60_000
    assert goal["project"]["minutes"] == pytest.approx(minutes)
    for of in goal.values():
        assert of["ratio"] == pytest.approx(goal["ordinary loop"]["minutes"] / of["minutes"])


@pytest.mark.slow
def test_both_loops_train_alike(mnist, benchmark):
    """From the same weights each takes as many steps of Adam, and they come about as far."""
    config = TrainingConfig(epochs=1)
    data = mnist.first(640)
    data = data._replace(test_images=data.test_images[:106], test_labels=data.test_labels[:106])
    theirs, ours, start = build("none_bn"), build("none_bn"), build("none_bn")
    losses = [
        benchmark.ordinary_epoch(theirs, benchmark.ordinary_loaders(640), CPU, threads=1),
        benchmark.project_epoch(ours, make_loaders(data, config), CPU, config),
    ]
    ways = [
        fmean(
            (here - there).abs().mean().item()
            for here, there in zip(model.parameters(), start.parameters(), strict=True)
        )
        for model in (theirs, ours)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert ways[0] == pytest.approx(ways[1], rel=0.15) and ways[0] > 0.001


def test_turns_start_from_the_same_weights_and_the_first_round_is_dropped(benchmark, monkeypatch):
    seen, ticks = [], iter([0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6])
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    turns = {
        (name, "v2"): partial(lambda name, model: seen.append((name, bits(model))), name)
        for name in "ab"
    }
    times = benchmark.in_turns(turns, rounds=2)
    assert [name for name, _ in seen] == list("ababab")
    assert all(same_bits(*(weights for _, weights in seen[n : n + 2])) for n in (0, 2, 4))
    assert times == {("a", "v2"): [3, 5], ("b", "v2"): [4, 6]}
    found = benchmark.ratio([6.0, 2.0, 9.0], [2.0, 1.0, 1.0])
    assert found == {"ratio": 3.0, "ratio_min": 2.0, "ratio_max": 9.0}


def test_the_goal_is_reached_when_the_whole_interval_of_the_mean_is_over_it(benchmark, monkeypatch):
    """And not when the mean is, or every run by itself is in some epoch."""
    accuracies = ([99.3, 99.5, 99.39, 99.45, 99.6], [99.3, 99.38, 99.6, 99.41, 99.4])
    runs = {("final", seed): history(of, "final", seed) for seed, of in enumerate(accuracies * 5)}
    monkeypatch.setattr(benchmark, "load_runs", lambda: runs)
    assert benchmark.epochs_to_goal("final") == 3
    means = [fmean(of) for of in zip(*accuracies, strict=True)]
    assert means[1] > 99.4  # whose interval reaches below


def spread(figures, name="ratio"):
    """A ratio with its smallest and largest."""
    return f"{figures[name]:.2f} ({figures[name + '_min']:.2f} to {figures[name + '_max']:.2f})"


def test_the_pages_give_the_figures_that_were_measured():
    figures = json.loads(FIGURES.read_text())
    page = (PROJECT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name, label in (("v1", "v1"), ("final", "Final")):
        of = figures[name]
        times = ("reference", "reference_one_thread", "project")
        cells = [f"{of[f'{time}_ms_per_step']:.1f}" for time in times]
        cells += [spread(of), spread(of, "ratio_to_one_thread")]
        assert f"| {label} | {' | '.join(cells)} |" in page
    goal = figures["goal"]
    for name, of in goal.items():
        assert f"| {name} | {of['epochs']} | {of['minutes']:.1f} | {spread(of)} |" in page
    recipe = goal["project, recipe"]["minutes"]
    readme = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    for name, loop in (
        ("ordinary loop", "as fast as an ordinary PyTorch loop that trains Final with two threads"),
        ("ordinary loop, one thread", "as fast as with one"),
        ("project", "as fast as this project's own"),
    ):
        assert f"{goal[name]['minutes'] / recipe:.1f} times {loop}" in readme
    v2_bn = goal["project, v2_bn"]["minutes"]
    assert f"takes eleven epochs and {v2_bn:.1f} minutes, the recipe {recipe:.1f}" in readme
