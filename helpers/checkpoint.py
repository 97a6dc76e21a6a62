"""A run on disk: what tells it from other runs, and its file, which carries its own SHA-256."""

from __future__ import annotations

import hashlib
import inspect
import io
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from helpers import batches, config
from helpers.files import read_file, set_aside, write_atomically


def code_digest(*used: object) -> str:
    """The SHA-256 of the sources of what training runs through; torch's own are left out.

    used: modules, and objects such as layers and loaders, of which their class's module counts; of
        a class typed into a notebook its functions, and those of its ancestors there, do.
    """
    sources = {}
    for thing in (config, batches, *used):
        if not inspect.ismodule(thing):
            thing = type(thing)
            if thing.__module__.partition(".")[0] == "torch":
                continue
            if thing.__module__ == "__main__":
                typed = (kind for kind in thing.__mro__ if kind.__module__ == "__main__")
                parts = (part for kind in typed for part in vars(kind).values())
                # inspect finds a notebook's functions, and not its classes.
                sources |= {part.__qualname__: part for part in parts if inspect.isfunction(part)}
                continue
            thing = sys.modules[thing.__module__]
        sources[thing.__name__] = thing
    sha256 = hashlib.sha256()
    for name in sorted(sources):
        try:
            text = inspect.getsource(sources[name])
        except (OSError, TypeError):  # typed in where nothing keeps it
            text = ""
        sha256.update(f"{name}\n{text}\n".encode())
    return sha256.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """The SHA-256 of a network's tensors and their names, whatever device and layout they have."""
    sha256 = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a state of tensors and plain values: its SHA-256, a line end, then torch.save's bytes.

    Raises OSError if it cannot be written; an earlier checkpoint there is then unchanged.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def load_checkpoint(path: str | Path) -> dict | None:
    """The state in a checkpoint, on the CPU, or None if there is none, or a damaged one.

    A damaged file is recognized by its SHA-256 before anything is unpickled, renamed, and reported
    by a warning.

    Raises ValueError if an undamaged file holds more than tensors and plain values: nothing that
    could run code is ever loaded. Raises OSError if the path is no file (a pipe would block) or
    cannot be read, or a damaged one not be renamed.
    """
    path = Path(path)
    try:
        content = read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    digest, _, payload = content.partition(b"\n")
    if digest != hashlib.sha256(payload).hexdigest().encode():
        try:
            aside = set_aside(path.resolve())  # a symbolic link stays
        except FileNotFoundError:  # another process has set it aside just now
            return None
        except OSError as error:
            raise OSError(
                error.errno,
                f"the checkpoint {path} is damaged and cannot be renamed ({error.strerror}): make "
                "its folder writable, or choose another path",
            ) from error
        warnings.warn(
            f"the checkpoint {path} is damaged (its SHA-256 does not match); it is kept as "
            f"{aside.name}, and training starts from the beginning.",
            stacklevel=4,
        )
        return None
    try:
        return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a file that is not its own is anything
        raise ValueError(
            f"{path} is no checkpoint of this project: it holds more than tensors and numbers. "
            "It was not loaded; choose another path, or move it away."
        ) from error


def differences(there: object, here: object, name: str = "") -> list[str]:
    """Where two trees of dicts, lists and plain values differ, a clause for each place."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*here, *(key for key in there if key not in here)]
        pairs = [(key, there.get(key), here.get(key)) for key in keys]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(there, here, strict=True))]
    else:
        return [] if there == here else [f"{name} is {there!r:.80} there and {here!r:.80} here"]
    return [d for key, a, b in pairs for d in differences(a, b, f"{name}.{key}".lstrip("."))]
