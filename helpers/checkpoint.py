"""A run on disk: written atomically, with its own SHA-256, and never unpickled into code."""

from __future__ import annotations

import hashlib
import io
import reprlib
import warnings
from pathlib import Path

import torch

from helpers.files import set_aside, write_atomically


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a state of tensors and plain values: its SHA-256, a line end, then torch.save's bytes.

    Raises OSError if it cannot be written; an earlier checkpoint there is then unchanged.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def load_checkpoint(path: str | Path) -> object:
    """The state in a checkpoint, on the CPU, or None if there is none, or a damaged one.

    A damaged file is recognised by its SHA-256 before anything is unpickled, renamed, and reported
    by a warning.

    Raises ValueError if the path is no file (a pipe would block), or an undamaged file holds more
    than tensors and plain values: nothing that could run code is ever loaded. Raises OSError if the
    file cannot be read, or a damaged one not be renamed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file; choose another path for the checkpoint.")
    try:
        content = path.read_bytes()
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
    """Where two trees differ, a clause for each place.

    there: anything that torch.load gives; types are compared, too.
    here: dicts, lists, strided tensors and plain values. Of a tensor dtype and shape are compared,
        not the values; the one there must be finite. The order of a dict's keys does not count.
    """
    if type(there) is type(here) is dict:
        both = [(_join(name, key), there[key], here[key]) for key in here if key in there]
        return [
            *(f"{_join(name, key)} is missing there" for key in here if key not in there),
            *(f"{_join(name, key)} is missing here" for key in there if key not in here),
            *(d for name, a, b in both for d in differences(a, b, name)),
        ]
    if type(there) is type(here) is list:
        if len(there) != len(here):
            return [f"{name} has {len(there)} entries there and {len(here)} here"]
        pairs = enumerate(zip(there, here, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, _join(name, i))]
    if isinstance(here, torch.Tensor):
        if _kind(there) != _kind(here):
            return [f"{name} is {_kind(there)} there and {_kind(here)} here"]
        return [] if torch.isfinite(there).all() else [f"{name} holds NaN or infinity there"]
    if type(there) is type(here) and there == here:
        return []
    return [f"{name} is {reprlib.repr(there)} there and {reprlib.repr(here)} here"]


def _join(name: str, key: object) -> str:
    key = key if isinstance(key, str) else reprlib.repr(key)
    return f"{name}.{key}" if name else key


def _kind(value: object) -> str:
    """Dtype and shape of a tensor, unless it is an odd one: then, as of any other value, itself."""
    if (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and not (value.is_nested or value.is_meta)
    ):
        return f"{value.dtype} {list(value.shape)}"
    return reprlib.repr(value)
