"""Files are written whole or not at all, and nothing but a file is ever replaced."""

import contextlib
import os
import socket
import stat

import pytest

from helpers.files import set_aside, write_atomically


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
    path = tmp_path / "thing"
    make(path)
    before = {each: each.lstat() for each in tmp_path.iterdir()}
    target = path
    if linked:
        target = tmp_path / "link"
        target.symlink_to(path)
        before[target] = target.lstat()
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


@pytest.fixture
def failing_disk(monkeypatch):
    """Makes every renaming fail with EIO, before it has happened or after."""
    replace = os.replace

    def fail(after):
        def renaming(source, target):
            if after:
                replace(source, target)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "replace", renaming)
        monkeypatch.setattr("pathlib.Path.replace", renaming)

    return fail


@pytest.mark.parametrize("after", [False, True])
def test_a_renaming_that_fails_says_what_the_file_holds(tmp_path, failing_disk, after):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    failing_disk(after)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_atomically(path, b"new")
    assert ("unchanged" in str(caught.value), path.read_bytes()) in [
        (True, b"old"),
        (False, b"new"),
    ]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("after", [False, True])
def test_a_damaged_file_that_cannot_be_set_aside_is_kept_and_leaves_no_empty_one(
    tmp_path, failing_disk, after
):
    path = tmp_path / "file"
    path.write_bytes(b"damaged")
    failing_disk(after)
    with pytest.raises(OSError, match="Input/output error"):
        set_aside(path)
    (left,) = tmp_path.iterdir()
    assert left.name == ("file.damaged" if after else "file") and left.read_bytes() == b"damaged"
