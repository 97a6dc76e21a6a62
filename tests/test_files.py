"""Files are written whole or not at all, and nothing but a file is ever replaced."""

import contextlib
import itertools
import os
import socket
import stat
from pathlib import Path

import pytest

from helpers.files import set_aside, write_atomically
from tests.helpers import full_disk, no_rights
from tests.victims import Interrupt


def device(path):
    """A device of its own, as the null device is, and never the system's."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def bound_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)  # a whole path may be too long


def read_only(path):
    path.write_bytes(b"old")
    path.chmod(0o444)


def loop(path):
    path.symlink_to(path.with_name("there"))
    path.with_name("there").symlink_to(path)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("make", [device, os.mkfifo, bound_socket, os.mkdir, read_only, loop])
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
    if fault is no_rights:
        public_folder.chmod(0o555)
    with fault(), pytest.raises(OSError, match=f"cannot write {path} .*unchanged"):
        write_atomically(path, bytes(10_000))
    assert path.read_bytes() == b"precious" and list(public_folder.iterdir()) == [path]


@pytest.fixture(params=[False, True], ids=["before it has happened", "after it has happened"])
def failing_disk(request, monkeypatch):
    """Makes every renaming fail with EIO; whether it has happened all the same."""
    replace = os.replace

    def renaming(source, target):
        if request.param:
            replace(source, target)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", renaming)
    monkeypatch.setattr(Path, "replace", renaming)
    return request.param


def test_a_renaming_that_fails_says_what_the_file_holds(tmp_path, failing_disk):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_atomically(path, b"new")
    assert path.read_bytes() == (b"new" if failing_disk else b"old")
    assert ("unchanged" in str(caught.value)) == (not failing_disk)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_that_cannot_be_set_aside_is_kept_and_leaves_no_empty_one(
    tmp_path, failing_disk
):
    path = tmp_path / "file"
    path.write_bytes(b"damaged")
    with pytest.raises(OSError, match="Input/output error"):
        set_aside(path)
    (left,) = tmp_path.iterdir()
    assert left.name == ("file.damaged" if failing_disk else "file")
    assert left.read_bytes() == b"damaged"
