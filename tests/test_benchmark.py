"""The benchmark runs and writes its figures; how fast it is, is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def test_a_tiny_benchmark_prints_and_writes_its_figures(mnist, tmp_path):
    command = [sys.executable, PROJECT / "benchmarks" / "epoch_time.py", "--device", "cpu"]
    command += ["--rounds", "1", "--images", "128", "--json", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "waiting for data" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"v1", "final"}
    for measured in figures.values():
        assert measured["images"] == 128
        ratio = measured["reference_ms_per_step"] / measured["project_ms_per_step"]
        assert abs(measured["ratio"] - ratio) < 1e-9
        assert 0 < measured["share_waiting"] + measured["share_evaluating"] < 1
