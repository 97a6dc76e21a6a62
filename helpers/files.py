"""Files that are written whole or not at all, and damaged ones that are kept beside the new."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file, and its folder if need be, or raise OSError and leave what was there.

    A symbolic link stays, and what it points to is written. Only a regular file is ever replaced.
    """
    path = Path(path)
    try:
        path = path.resolve() if path.is_symlink() else path
        if path.is_symlink() or (path.exists() and not path.is_file()):  # a link in a loop
            raise OSError(None, "it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # of links in a loop, RuntimeError
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"cannot write {path} ({reason}): make room there, make it writable, or choose another "
            "place; what was there is unchanged."
        ) from error


def read_file(path: str | Path) -> bytes:
    """The contents of a regular file; raises OSError, also for a pipe: reading would block."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"cannot read {path}: it is no regular file.")
    return Path(path).read_bytes()


def set_aside(path: str | Path) -> Path:
    """Rename a damaged file to the first free NAME.damaged, NAME.damaged-2, ...; the new name."""
    path, number = Path(path).resolve(), 1
    target = path.with_name(f"{path.name}.damaged")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{number}")
    try:
        return path.replace(target)
    except OSError as error:
        reason = f"{path} is damaged and cannot be renamed ({error.strerror})"
        raise OSError(f"{reason}: make its folder writable, or choose another place.") from error
