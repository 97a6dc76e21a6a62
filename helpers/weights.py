"""A trained network in a file of safetensors, in which nothing can run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import msgspec
import safetensors
import safetensors.torch
import torch

from helpers.checkpoint import weights_digest
from helpers.config import TrainingConfig
from helpers.files import read_file, write_atomically
from helpers.history import History
from models import SETTINGS, Network, identify


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """What a weights file says of its network, and of the run that trained it."""

    setting: str
    variant: str
    seed: int
    accuracy: float  # final test accuracy, per cent
    torch: str
    digest: str = ""  # the SHA-256 of all of the above and of the network's tensors

    def seal(self, network: Network) -> str:
        """What digest has to be, if neither label nor tensors have changed."""
        label = msgspec.structs.replace(self, digest=weights_digest(network))
        return hashlib.sha256(msgspec.json.encode(label)).hexdigest()


def save_weights(model: Network, path: str | Path, history: History) -> None:
    """Write a trained network as safetensors, completely or not at all; equal ones to equal bytes.

    model: one of models.SETTINGS, on any device, as its run left it.
    path: of the file; its folder is made if need be.
    history: of the run that trained the model.

    Raises ValueError if the history is of another network or of other weights, or the network is no
    variant; OSError if the file cannot be written.
    """
    known = identify(model)
    if known is None:
        raise ValueError(
            "this network is none of models.SETTINGS: save its state_dict, or make it a variant."
        )
    if known != (history.setting, history.variant):
        raise ValueError(
            f"the history is of {history.variant} ({history.setting}) and the network is "
            f"{known[1]} ({known[0]}); pass the history of the run that trained this network."
        )
    if weights_digest(model) != history.weights:
        raise ValueError(
            f"these are not the weights that the run of {history.variant} ended with; pass its "
            "history and the network that it left, untouched."
        )
    label = Label(*known, history.seed, history.final_accuracy, str(torch.__version__))
    label.digest = label.seal(model)
    # One entry: the library writes several in any order. fit leaves a network in channels_last, and
    # safetensors takes contiguous tensors only.
    metadata = {"network": msgspec.json.encode(label).decode()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    _network(label, tensors)  # what is saved loads
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def save_run(model: Network, history: History, path: str | Path, protocol: TrainingConfig) -> None:
    """Save a notebook's run as PATH.json and PATH.safetensors, and delete its checkpoint, PATH.pt.

    protocol: by which a run has to be, on all training images, to be kept in results/.

    Raises ValueError, and writes nothing, if the run is not by the protocol and the path is in
    results/; and what save_weights and History.save raise.
    """
    path = Path(path)
    results = Path(__file__).resolve().parent.parent / "results"
    if results in path.resolve().parents and not history.follows(protocol):
        asked, had = asdict(protocol), asdict(TrainingConfig(**history.config))
        others = [k for k, v in asked.items() if k != "epochs" and had[k] != v]
        raise ValueError(
            f"results/ is for complete runs by the protocol; this one had {len(history.epochs)} "
            f"epochs on {history.train_images:,} images"
            f"{''.join(f', another {name}' for name in others)}: set OUT_DIR to another folder, "
            "say build/quick, and run this cell again."
        )
    save_weights(model, path.with_suffix(".safetensors"), history)
    history.save(path.with_suffix(".json"))
    path.with_suffix(".pt").unlink(missing_ok=True)


def load_weights(path: str | Path) -> Network:
    """The network that save_weights wrote, on the CPU and in evaluation mode: ready to use.

    Nothing in the file can run, whoever made it. Raises ValueError if save_weights did not write
    it as it is, OSError if it cannot be read.
    """
    content = read_file(path)
    try:
        header = int.from_bytes(content[:8], "little")
        tensors = safetensors.torch.load(content)
        metadata = msgspec.json.decode(content[8 : 8 + header])["__metadata__"]
        label = msgspec.json.decode(metadata["network"], type=Label)
        return _network(label, tensors)
    except (KeyError, RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} holds no weights of this project ({error}); expected a file that save_weights "
            "wrote, as make notebooks leaves them in results/."
        ) from error


def _network(label: Label, tensors: dict[str, torch.Tensor]) -> Network:
    """The network that a weights file holds; ValueError or RuntimeError if it is not as labeled."""
    if label.variant not in SETTINGS.get(label.setting, ()):
        raise ValueError(f"there is no variant {label.variant!r} {label.setting}")
    with torch.device("meta"):  # draws no weights from the global generator
        network = SETTINGS[label.setting][label.variant].network()
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    for name, tensor in network.state_dict().items():
        if tensor.dtype != dtypes[name]:
            raise ValueError(f"the tensor {name} is {tensor.dtype}")
        if not tensor.isfinite().all() or ("running_var" in name and (tensor < 0).any()):
            raise ValueError(f"the tensor {name} holds what no training leaves")
    if label.seal(network) != label.digest:
        raise ValueError("it is not as it was saved: a byte of it has changed")
    return network.eval()
