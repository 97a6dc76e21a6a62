"""The benchmark runs and writes its figures; how fast it is, is not judged here."""

import json
import subprocess
import sys

import pytest

from study.experiments import EXPERIMENTS
from tests.helpers import PROJECT


@pytest.mark.slow
def test_a_tiny_benchmark_writes_the_ratios_of_what_it_timed(mnist, tmp_path):
    """What reaches 99.4% is held to Final's 12 epochs in the ordinary loop."""
    command = [sys.executable, PROJECT / "benchmarks" / "epoch_time.py"]
    command += ["--rounds", "1", "--images", "256", "--json", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    committed = json.loads((PROJECT / "benchmarks" / "epoch_time.json").read_text())
    assert (figures["images"], figures["rounds"]) == (256, 1)
    assert figures["loops"].keys() == committed["loops"].keys()
    assert figures["networks"].keys() >= committed["networks"].keys()  # new ones wait to be timed
    names = ("final, ordinary loop", "final, project", "fast, project")
    usual, final, fast = (figures["loops"][name] for name in names)
    assert final["ratio"] == pytest.approx(usual["seconds_per_epoch"] / final["seconds_per_epoch"])
    assert final["epochs_to_target"] == usual["epochs_to_target"] == 12
    assert fast["epochs_to_target"] == EXPERIMENTS["fast"].config.epochs
    for row in (usual, final, fast):
        seconds = row["epochs_to_target"] * row["seconds_per_epoch"]
        assert row["seconds_to_target"] == pytest.approx(seconds)
        assert row["ratio"] == pytest.approx(usual["seconds_to_target"] / seconds)
