"""Files written completely or not at all, and damaged ones kept beside the new."""

from __future__ import annotations

import contextlib
import errno
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

    Raises OSError with what went wrong, which says whether the file there before is unchanged; as
    writable does for what must not be replaced.
    """
    path, complete = writable(path), False
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        complete = True
        os.replace(temporary, path)
    except BaseException as error:
        # A disk that fails may rename and report an error all the same.
        renamed = complete and not os.path.lexists(temporary)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"cannot write {path} ({reason}): make room there, make the folder writable, or "
                "choose another place; "
                + ("it holds the new contents" if renamed else "what was there is unchanged"),
            ) from error
        raise


def read_file(path: str | Path) -> bytes:
    """The contents of a regular file; raises OSError, also for a pipe or a device: it would block.

    The OSError of a folder, a pipe or a device says so.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # one look, as others may rename it meanwhile
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
            if not target.stat().st_size:  # a disk that fails may have renamed it all the same
                target.unlink()
            raise
    raise FileExistsError(f"too many damaged copies of {path}; delete some of them.")
