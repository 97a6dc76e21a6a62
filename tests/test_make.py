"""What make promises: it says what it can do, sets up from the lock, deletes no work unasked."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from helpers.files import write_atomically
from tests.helpers import PROJECT, history

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def make(tmp_path):
    """make, called in an empty folder that has the Makefile and a space in its name."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "requirements.lock"):
        shutil.copy(PROJECT / name, folder)

    def call(*arguments, stdin=subprocess.DEVNULL):
        # A make that runs these tests would hand its own options down.
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "VENV")}
        done = subprocess.run(
            ["make", *arguments],
            cwd=folder,
            stdin=stdin,
            capture_output=True,
            text=True,
            env=environment,
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
def test_make_says_what_it_can_do_and_does_nothing_else(make):
    folder, call = make
    before = list(folder.iterdir())
    status, said = call()
    assert (status, said) == call("help") and status == 0 and list(folder.iterdir()) == before
    [phony] = re.findall(r"^\.PHONY: help (.*)$", (folder / "Makefile").read_text(), re.MULTILINE)
    for target in phony.replace("$(NOTEBOOKS) ", "").split():
        assert f"make {target} " in said


@needs_make
def test_quick_ends_with_the_accuracies_of_its_runs(make):
    folder, call = make
    (folder / "build" / "quick").mkdir(parents=True)
    (folder / "build" / "quick" / "old.json").write_text("from before")
    # Instead of executing a notebook, what it leaves behind.
    run = history([97.0, 98.76], "final")
    record = json.dumps({"variant": run.variant, "epochs": run.epochs})
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"""#!/bin/sh
        case "$2" in
        helpers.execute) mkdir -p build/quick; echo '{record}' > "build/quick/${{3%.ipynb}}.json" ;;
        *DataPipeline*) ;;
        *) exec "{sys.executable}" "$@" ;;
        esac
    """)
    python.chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    status, said = call("quick")
    assert status == 0
    shown = re.findall(r"^(\S+) +final +2 +98\.76 %$", said, re.MULTILINE)
    assert shown == sorted(path.stem for path in PROJECT.glob("*.ipynb"))


@needs_make
@pytest.mark.parametrize(
    ("arguments", "answer", "deletes"),
    [([], None, False), (["FORCE=1"], None, True), ([], "\n", False), ([], "y\n", True)],
)
def test_clean_removes_no_result_and_a_studys_checkpoints_only_if_told(
    make, monkeypatch, arguments, answer, deletes
):
    folder, call = make
    kept = ["results/v1.json", "results/runs/v1-42.json", "data/MNIST/raw/t10k", "v1.ipynb"]
    checkpoints = ["results/runs/v1-43.pt", "results/other/runs/v1-43.pt"]
    checkpoints += ["results/runs/v1-43.lock"]  # perhaps of a study at work
    for name in [*kept, *checkpoints, "build/quick/v1.ipynb"]:
        write_atomically(folder / name, b"")
    with monkeypatch.context() as patch:  # what writers leave that are killed at their last step
        patch.setattr(os, "replace", lambda *_: None)
        for name in kept:
            write_atomically(folder / name, b"")
    assert len(list(folder.rglob(".*.tmp"))) == len(kept)
    if answer is None:
        status, said = call("clean", *arguments)
    else:
        ours, theirs = os.openpty()
        os.write(ours, answer.encode())
        status, said = call("clean", *arguments, stdin=theirs)
        os.close(ours)
        os.close(theirs)
        assert "2 unfinished runs" in said
    assert status == 0 and ("FORCE=1" in said) == (not deletes)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    files = {*kept, "Makefile", "requirements.txt", "requirements.lock"}
    assert left == (files if deletes else files | set(checkpoints))


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
@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("PYTHON=./python", "needs Python 3.11, 3.12 or 3.13"),
        ("VENV=my venv", 'VENV is "my venv"; expected a path without spaces'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_set_up(make, setting, reason):
    folder, call = make
    (folder / "python").write_text("#!/bin/sh\necho Python 3.10.13\n")
    (folder / "python").chmod(0o755)
    status, said = call("test", setting)
    assert status != 0 and reason in said
    assert not [*folder.glob(".venv"), *folder.glob("my*")]
