"""The benchmark runs and writes its figures; how fast it is, is not judged here."""

import json
import subprocess
import sys

import pytest

from tests.helpers import PROJECT


@pytest.mark.slow
def test_a_tiny_benchmark_writes_the_ratios_of_what_it_timed(mnist, tmp_path):
    """Final takes 12 epochs until its mean is surely over 99.4%, the recipe 8."""
    command = [sys.executable, PROJECT / "benchmarks" / "epoch_time.py", "--device", "cpu"]
    command += ["--rounds", "1", "--images", "128", "--json", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    committed = json.loads((PROJECT / "benchmarks" / "epoch_time.json").read_text())
    assert figures.keys() == committed.keys() and (figures["images"], figures["rounds"]) == (128, 1)
    usual, ours = figures["final, ordinary loop"], figures["final, project"]
    seconds = usual["seconds_per_epoch"], ours["seconds_per_epoch"]
    assert ours["ratio"] == pytest.approx(seconds[0] / seconds[1])
    assert ours["ms_per_step_of_32"] == pytest.approx(seconds[1] / 1.875)
    recipe = figures["original_none_bn, recipe"]
    assert (ours["to_target"]["epochs"], recipe["to_target"]["epochs"]) == (12, 8)
    assert recipe["to_target"]["minutes"] == pytest.approx(8 * recipe["seconds_per_epoch"] / 60)
    expected = 12 * seconds[0] / (8 * recipe["seconds_per_epoch"])
    assert recipe["to_target"]["ratio"] == pytest.approx(expected)
