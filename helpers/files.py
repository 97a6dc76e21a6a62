"""Files written completely or not at all, and damaged ones kept beside the new."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
from pathlib import Path


def writable(path: str | Path) -> Path:
    """Where the contents of that path belong, links followed, if a file may be put there.

    Raises OSError for what no file must replace: a device, a pipe, a socket or a folder, a file
    that is read-only, links that lead nowhere but to each other. Whether the folder takes a file is
    not tried.
    """
    path, refused = Path(path), ""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            refused = "it is no regular file"
        elif not mode & 0o222:  # even where the rights do allow it, as root's do
            refused = "it is read-only"
    except FileNotFoundError:
        pass
    except OSError as error:  # as of links in a loop
        refused = error.strerror
    if refused:
        raise OSError(f"cannot write {path} ({refused}): make it writable, or choose another place")
    return path.resolve() if path.is_symlink() else path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file completely or not at all, making its folder if need be.

    The bytes go to a temporary name of their own in the same folder, to the disk, then into place,
    so that neither a kill nor a second writer leaves half a file. A symbolic link stays, and what
    it points to is written.

    Raises OSError with what went wrong, and as writable does for what must not be replaced.
    """
    path = writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path} ({error.strerror}): make room there, make the folder writable, "
            "or choose another place; what was there is unchanged",
        ) from error


def read_file(path: str | Path) -> bytes:
    """The contents of a file; raises OSError, also for a pipe or a device: reading would block."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free NAME.damaged, NAME.damaged-2, ...; the new name."""
    for number in itertools.count(1):
        target = path.with_name(path.name + (".damaged" if number == 1 else f".damaged-{number}"))
        try:
            target.touch(exist_ok=False)  # claims the name, so that no other process takes it
        except FileExistsError:
            continue
        try:
            return path.replace(target)
        except OSError:
            target.unlink()
            raise
