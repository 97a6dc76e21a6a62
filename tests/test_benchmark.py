"""The benchmark runs and writes its figures; how fast it is, is not judged here."""

import importlib.util
import json
import subprocess
import sys

import pytest

from study.one_cycle import RECIPE
from tests.helpers import CPU, PROJECT, history


def test_a_tiny_benchmark_prints_and_writes_its_figures(mnist, tmp_path):
    command = [sys.executable, PROJECT / "benchmarks" / "epoch_time.py", "--device", "cpu"]
    command += ["--rounds", "1", "--images", "128", "--json", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "waiting for data" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.keys() - {"goal"} == {"v1", "final"}
    for measured in (figures["v1"], figures["final"]):
        assert measured["images"] == 128
        ratio = measured["reference_ms_per_step"] / measured["project_ms_per_step"]
        assert abs(measured["ratio"] - ratio) < 1e-9
        assert 0 < measured["share_waiting"] + measured["share_evaluating"] < 1


def spread(figures, name="ratio"):
    """A ratio with its smallest and largest."""
    return f"{figures[name]:.2f} ({figures[name + '_min']:.2f} to {figures[name + '_max']:.2f})"


def test_the_page_and_the_readme_give_the_figures_that_were_measured():
    figures = json.loads((PROJECT / "benchmarks" / "epoch_time.json").read_text())
    page = (PROJECT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for name, label in (("v1", "v1"), ("final", "Final")):
        of = figures[name]
        times = ("reference", "reference_one_thread", "project", "project_threads")
        cells = [f"{of[f'{time}_ms_per_step']:.1f}" for time in times]
        cells += [spread(of), spread(of, "ratio_to_one_thread"), spread(of, "ratio_of_threads")]
        assert f"| {label} | {' | '.join(cells)} |" in page
        assert f"{of['ratio_of_threads']:.2f} times ({label})" in readme
    for name, of in figures["goal"].items():
        assert f"| {name} | {of['epochs']} | {of['minutes']:.1f} | {spread(of)} |" in page
    assert f"{figures['goal']['project, recipe']['ratio']:.1f} times as soon" in readme


@pytest.fixture
def benchmark():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("b", PROJECT / "benchmarks" / "epoch_time.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_goal_is_reached_when_the_mean_of_the_runs_is_over_it(benchmark):
    one, other = history([99.0, 99.5, 99.45, 99.6]), history([99.6, 99.3, 99.4])
    assert benchmark.epochs_to_goal([one, other]) == 3
    assert benchmark.epochs_to_goal([other, other]) == 1
    assert benchmark.epochs_to_goal([history([99.4, 99.4])]) is None
    assert benchmark.epochs_to_goal([]) is None


def test_minutes_to_the_goal_are_epochs_times_an_epochs_time(mnist, benchmark, monkeypatch):
    runs = {
        ("final", 47): history([99.0, 99.2, 99.5], "final", 47),
        (RECIPE.variant, 47): history([99.0, 99.5], RECIPE.variant, 47),
    }
    monkeypatch.setattr(benchmark, "load_runs", lambda folder: runs)
    loops = benchmark.UsualLoop(128, CPU, threads=1), benchmark.Project(128, CPU)
    found = benchmark.to_the_goal(*loops, rounds=1)
    assert {name: figures["epochs"] for name, figures in found.items()} == {
        "usual loop": 3,
        "project": 3,
        "project, recipe": 2,
    }
    usual = found["usual loop"]["minutes"]
    for figures in found.values():
        assert figures["ratio"] == pytest.approx(usual / figures["minutes"])
    runs.clear()
    with pytest.raises(ValueError, match="the runs are missing or do not pass the goal"):
        benchmark.to_the_goal(*loops, rounds=1)
