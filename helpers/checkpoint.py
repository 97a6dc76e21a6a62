"""A run on disk: its checkpoint, which carries its own SHA-256, and its weights."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from helpers.files import read_file, set_aside, write_atomically
from helpers.history import History, old_network_name
from models import NETWORKS, Network

# What make_loaders computes of MNIST's 70,000 images and labels.
MNIST_CHECKSUM = "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf"
ROOT = Path(__file__).resolve().parent.parent
CORE = ("models.py", "DataPipeline.py", "TrainingHelper.py")  # what training runs through


def code_digest() -> str:
    """The SHA-256 of the three core modules, by which a run is resumed by the same code only."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in CORE)).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """The SHA-256 of a network's tensors and their names, whatever device and layout they have."""
    sha256 = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a state of tensors and plain values: its SHA-256, a line end, torch.save's bytes."""
    torch.save(state, file := io.BytesIO())
    payload = file.getvalue()
    write_atomically(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def load_checkpoint(path: str | Path) -> dict | None:
    """The state that save_checkpoint wrote, on the CPU; None if there is no whole one.

    A damaged file, which torch.load may not notice, is set aside with a warning. Nothing in it can
    run. Raises OSError if it cannot be read or set aside, ValueError if it is no checkpoint.
    """
    try:
        content = read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    digest, _, payload = content.partition(b"\n")
    if digest != hashlib.sha256(payload).hexdigest().encode():
        damage = f"the checkpoint {path} is damaged (its SHA-256 does not match)"
        kept = f"it is kept as {set_aside(path).name}, and training starts from the beginning."
        warnings.warn(f"{damage}; {kept}", stacklevel=3)
        return None
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        state["identity"]
        return state
    except Exception as error:  # what torch raises for a file that is not its own is anything
        reason = f"{path} is no checkpoint of this project: it was not loaded"
        raise ValueError(f"{reason}; choose another path, or move it away.") from error


def save_weights(model: nn.Module, path: str | Path, network: str, **label: object) -> None:
    """Write a network as safetensors, whole or not at all (OSError); equal ones to equal bytes.

    network: its name in models.NETWORKS, or any other. label: what else the file says, as JSON.
    """
    # One entry, as the library writes several in any order. It takes contiguous tensors only.
    metadata = {"network": json.dumps({"network": network} | label)}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_weights(path: str | Path) -> Network:
    """A network of models.NETWORKS as save_weights wrote it: on the CPU, in evaluation mode.

    Nothing in the file can run. Raises ValueError if it holds none, OSError if it cannot be read.
    """
    content = read_file(path)
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        label = json.loads(header["__metadata__"]["network"])
        if "variant" in label:
            label["network"] = old_network_name(label["setting"], label["variant"])
        with torch.device("meta"):  # draws no weights from the global generator
            network = NETWORKS[label["network"]].build()
        network.load_state_dict(tensors, assign=True)
    except (KeyError, RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
        reason = f"{path} holds no network of models.NETWORKS ({error})"
        expected = "a file that save_weights wrote, as make notebooks leaves them in results/."
        raise ValueError(f"{reason}; expected {expected}") from error
    return network.eval()


def save_run(model: nn.Module, history: History, folder: str | Path) -> Path:
    """Save a run as history.network's .json and .safetensors, and delete its checkpoint, .pt.

    Returns the JSON file's path. Raises ValueError, and writes nothing, for weights that the run
    did not end with; and in the project's results/ for other data than MNIST or another config than
    the file's before. Raises OSError if a file cannot be written.
    """
    path = Path(folder, f"{history.network}.json")
    if weights_digest(model) != history.weights:
        reason = f"these are not the weights that the run of {history.network} ended with"
        raise ValueError(f"{reason}; pass the network and the history as fit left them.")
    if path.resolve().parent == ROOT / "results":
        before = History.load(path) if path.exists() else history
        if history.data != MNIST_CHECKSUM or before.config != history.config:
            raise ValueError(
                f"{path} is for a complete run on all of MNIST by the same config as before; this "
                f"one had {len(history.epochs)} epochs on {history.train_images:,} images. Set "
                "OUT_DIR to another folder, say build/mine, and run this cell again."
            )
    label = {"seed": history.seed, "accuracy": history.final_accuracy}
    save_weights(model, path.with_suffix(".safetensors"), history.network, **label)
    history.save(path)
    path.with_suffix(".pt").unlink(missing_ok=True)
    return path
