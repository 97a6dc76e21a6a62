"""What make promises: it says what it can do, sets up from the lock, deletes no work unasked."""

import os
import re
import shutil
import subprocess

import pytest

from tests.helpers import PROJECT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


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
        command = ["make", *arguments]
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        done = subprocess.run(command, cwd=folder, env=environment, **streams)
        return done.returncode, done.stdout + done.stderr

    return folder, call


def pinned(name):
    """The (package, version) pairs of a requirements file."""
    text = (PROJECT / name).read_text(encoding="utf-8")
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {(package.lower().replace("_", "-"), version) for package, version in pairs}


def test_the_lock_holds_every_requirement_in_its_version_and_no_address():
    wanted = pinned("requirements.txt")
    assert len(wanted) > 10 and wanted <= pinned("requirements.lock")
    assert "://" not in (PROJECT / "requirements.lock").read_text(encoding="utf-8")


def test_make_says_what_it_can_do_and_does_nothing_else(make):
    folder, call = make
    before = list(folder.iterdir())
    status, printed = call()
    assert (status, printed) == call("help") and status == 0 and list(folder.iterdir()) == before
    [phony] = re.findall(r"^\.PHONY: help (.*)$", (folder / "Makefile").read_text(), re.MULTILINE)
    for target in phony.replace("$(NOTEBOOKS) ", "").split():
        assert f"make {target} " in printed


def test_a_python_that_is_too_old_or_a_folder_with_spaces_is_named(make):
    _, call = make
    status, printed = call("data", "PYTHON=python9.9")
    assert status != 0 and "This needs Python 3.11, 3.12 or 3.13, and python9.9" in printed
    status, printed = call("data", "VENV=my folder")
    assert status != 0 and 'VENV is "my folder"; expected a path without spaces' in printed


def test_clean_keeps_checkpoints_unless_forced(make):
    folder, call = make
    for name in ("build/x", "results/runs/.v1.json.1.tmp", "results/runs/v1-47.pt", "data/kept"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    status, printed = call("clean")
    listed = "stay; make clean FORCE=1 deletes:results/runs/v1-47.pt"
    assert status == 0 and listed in printed.replace("\n", "")
    left = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    assert {"results/runs/v1-47.pt", "data/kept"} < set(left) and len(left) == 5
    assert call("clean", "FORCE=1")[0] == 0
    assert not (folder / "results/runs/v1-47.pt").exists() and (folder / "data/kept").exists()


@pytest.mark.slow
def test_pip_that_installs_for_the_user_by_default_is_no_obstacle(make, monkeypatch):
    folder, call = make
    monkeypatch.setenv("PIP_USER", "1")  # with it pip refuses to install into an environment
    for name in ("requirements.txt", "requirements.lock"):
        (folder / name).write_text("pip\n")
    status, output = call("env/.ready", "VENV=env")
    assert status == 0 and (folder / "env" / ".ready").exists(), output
