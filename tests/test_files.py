"""Files are written whole or not at all, and nothing but a file is ever replaced."""

import contextlib
import itertools
import os
from pathlib import Path

import pytest

from helpers.files import set_aside, write_atomically
from tests.helpers import full_disk, no_rights
from tests.victims import Interrupt


def read_only(path):
    path.write_bytes(b"old")
    path.chmod(0o444)


def loop(path):
    path.symlink_to(path.with_name("there"))
    path.with_name("there").symlink_to(path)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, read_only, loop])
def test_what_no_file_must_replace_is_refused_and_left_as_it_was(tmp_path, make, linked):
    path = target = tmp_path / "thing"
    make(path)
    if linked:
        target = tmp_path / "link"
        target.symlink_to(path)
    before = {each: each.lstat() for each in tmp_path.iterdir()}
    with pytest.raises(OSError, match=f"^cannot write {target} .*: .*choose another place"):
        write_atomically(target, b"new")
    assert {each: each.lstat() for each in tmp_path.iterdir()} == before


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for content in (b"old", b"new"):  # the first makes what the link only names
        write_atomically(tmp_path / "link", content)
        assert (tmp_path / "there" / "file").read_bytes() == content
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_write_broken_off_at_any_line_leaves_the_old_file_or_the_new(before, tmp_path):
    """Python's own lines included."""
    path, found = tmp_path / "file", []
    for number in itertools.count(1):
        path.unlink(missing_ok=True)
        if before:
            path.write_bytes(before)
        broken = Interrupt(number, write_atomically)
        with contextlib.suppress(KeyboardInterrupt), broken.armed():
            write_atomically(path, b"new")
        found.append(path.read_bytes() if path.exists() else None)
        left = [other for other in tmp_path.iterdir() if other != path]
        assert len(left) <= 1  # where the cleaning up itself was hit
        for other in left:
            other.unlink()
        if broken.lines < number:
            break
    assert set(found) == {before, b"new"} and len(found) > 50


@pytest.mark.parametrize("fault", [full_disk, no_rights])
def test_a_file_that_cannot_be_written_stays_as_it_was(public_folder, fault):
    path = public_folder / "file"
    path.write_bytes(b"precious")
    public_folder.chmod(0o555)
    with fault(), pytest.raises(OSError, match=f"cannot write {path} .*unchanged"):
        write_atomically(path, bytes(10_000))
    assert path.read_bytes() == b"precious" and list(public_folder.iterdir()) == [path]


@pytest.mark.parametrize("use", [set_aside, lambda path: write_atomically(path, b"new")])
def test_a_renaming_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, use):
    def fail(*_):
        raise OSError(5, "Input/output error")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        use(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"
