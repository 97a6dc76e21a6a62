"""Files written completely or not at all, and damaged ones kept beside the new."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file completely or not at all, making its folder if need be.

    The bytes go to a temporary name of their own in the same folder, to the disk, then into place,
    so that neither a kill nor a second writer leaves half a file. A symbolic link stays, and what
    it points to is written.

    Raises OSError with what went wrong; the file that was there before is then unchanged.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"cannot write {path} ({reason}): make room there, make the folder writable, or "
                "choose another place; what was there before is unchanged",
            ) from error
        raise


def read_file(path: str | Path) -> bytes:
    """The contents of a regular file; raises OSError, also for a pipe or a device: it would block.

    The OSError of a folder, a pipe or a device says so.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free NAME.damaged, NAME.damaged-2, ...; the new name."""
    for number in range(1, 10_000):
        target = path.with_name(path.name + (".damaged" if number == 1 else f".damaged-{number}"))
        try:
            target.touch(exist_ok=False)  # claims the name, so that no other process takes it
        except FileExistsError:
            continue
        try:
            return path.replace(target)
        except BaseException:
            target.unlink()
            raise
    raise FileExistsError(f"too many damaged copies of {path}; delete some of them.")
