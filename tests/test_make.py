"""What make promises: it sets up from the lock, refuses in a sentence, and executes notebooks."""

import os
import re
import shutil
import subprocess

import pytest

from helpers.files import write_atomically
from tests.helpers import PROJECT

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def make(tmp_path):
    """make, called in an empty folder that has the Makefile and a space in its name."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "requirements.lock"):
        shutil.copy(PROJECT / name, folder)

    def call(*arguments):
        # A make that runs these tests would hand its own options down.
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "VENV")}
        done = subprocess.run(
            ["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment
        )
        return done.returncode, done.stdout + done.stderr

    return folder, call


def pinned(name):
    """The (package, version) pairs of a requirements file."""
    text = (PROJECT / name).read_text(encoding="utf-8")
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {(package.lower().replace("_", "-"), version) for package, version in pairs}


def test_the_lock_holds_every_requirement_in_its_version_and_no_address():
    assert len(pinned("requirements.txt")) > 10
    assert pinned("requirements.txt") <= pinned("requirements.lock")
    assert "://" not in (PROJECT / "requirements.lock").read_text(encoding="utf-8")


@needs_make
def test_clean_removes_what_runs_and_killed_writers_left_and_no_result(make, monkeypatch):
    folder, call = make
    kept = ["results/v1.json", "results/runs/v1-42.json", "data/MNIST/raw/t10k", "v1.ipynb"]
    written = ["v1.ipynb", "results/v1.json", "results/runs/v1-42.json", "data/MNIST/raw/t10k"]
    gone = ["build/quick/v1.ipynb", "checkpoints/v1.pt", "results/runs/v1-43.pt"]
    for name in kept + gone:
        write_atomically(folder / name, b"")
    # A killed writer is one that has come as far as its last step and cleans nothing up.
    monkeypatch.setattr(os, "replace", lambda *_: None)
    for name in written:
        write_atomically(folder / name, b"")
    assert len(list(folder.rglob(".*.tmp"))) == len(written)
    assert call("clean")[0] == 0
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {*kept, "Makefile", "requirements.txt", "requirements.lock"}


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_git_ignores_links_to_data_and_environment_and_what_killed_writers_left(tmp_path):
    shutil.copy(PROJECT / ".gitignore", tmp_path)
    for name in (".venv", "data"):
        (tmp_path / name).symlink_to(tmp_path)
    for name in ("results/.v1.json.7-0badcafe.tmp", "results/runs/v1-42.lock", "results/v1.json"):
        write_atomically(tmp_path / name, b"")
    git = ["git", "-C", tmp_path]
    subprocess.run([*git, "init", "--quiet"], check=True)
    others = subprocess.run(
        [*git, "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True
    )
    assert others.stdout.split() == [".gitignore", "results/v1.json"]


@needs_make
def test_a_python_that_torch_does_not_support_is_refused_before_anything_is_set_up(make):
    folder, call = make
    (folder / "python").write_text("#!/bin/sh\necho Python 3.10.13\n")
    (folder / "python").chmod(0o755)
    status, said = call("test", "PYTHON=./python")
    assert status != 0 and "needs Python 3.11, 3.12 or 3.13" in said
    assert not (folder / ".venv").exists()


@needs_make
def test_a_venv_with_a_space_in_its_path_is_refused(make):
    folder, call = make
    status, said = call("test", "VENV=my venv")
    assert status != 0 and 'VENV is "my venv"; expected a path without spaces' in said
    assert not list(folder.glob("my*"))
