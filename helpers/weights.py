"""A trained network in a file of safetensors, in which nothing can run."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch

from helpers.files import write_atomically
from helpers.history import History
from models import SmallMNISTNet4Block


def save_weights(model: SmallMNISTNet4Block, path: str | Path, history: History) -> None:
    """Write a trained network as safetensors, completely or not at all; equal ones to equal bytes.

    model: on any device; what it has learnt and batch normalisation's statistics are written.
    path: of the file; its folder is made if need be.
    history: of the run that trained the model. Its seed and final test accuracy (per cent) become
        metadata, as do the model's variant, dropout and batch_norm and the version of torch.

    Raises ValueError if the history is of another variant, OSError if the file cannot be written.
    """
    if history.variant != model.variant:
        raise ValueError(
            f"the history is of {history.variant} and the network is {model.variant}; pass the "
            "history of the run that trained this network."
        )
    metadata = {
        "variant": model.variant,
        "dropout": json.dumps(model.dropout),
        "batch_norm": json.dumps(model.batch_norm),
        "seed": str(history.seed),
        "accuracy": str(history.final_accuracy),
        "torch": torch.__version__,
    }
    # fit leaves a network in channels_last; safetensors takes contiguous tensors only.
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(tensors, metadata)
    # The file is the header's length in 8 bytes, the header as JSON, the numbers. The library
    # orders the metadata at random.
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    write_atomically(path, len(header).to_bytes(8, "little") + header + data[end:])


def load_weights(path: str | Path) -> SmallMNISTNet4Block:
    """The network that save_weights wrote, on the CPU and in evaluation mode: ready to use.

    Nothing in the file can run, whoever made it. Raises ValueError if save_weights did not write
    it, OSError if it cannot be read.
    """
    with open(path, "rb"):  # safe_open says less clearly what is wrong with a folder
        pass
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copied: they are the file itself, which could then not be replaced on Windows.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return _network(metadata, tensors).eval()
    except (ValueError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} holds no weights of this project ({error}); expected a file that save_weights "
            "wrote, as make notebooks leaves them in results/."
        ) from error


def _network(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> SmallMNISTNet4Block:
    """The network that a weights file describes and holds; ValueError or TypeError if neither."""
    names = ("variant", "dropout", "batch_norm", "seed", "accuracy", "torch")
    if missing := [name for name in names if name not in metadata]:
        raise ValueError(f"its metadata lacks {', '.join(missing)}")
    with torch.device("meta"):  # draws no weights from the global generator
        network = SmallMNISTNet4Block(
            json.loads(metadata["dropout"]), json.loads(metadata["batch_norm"])
        )
    if network.variant != metadata["variant"]:
        raise ValueError(f"its metadata describes {network.variant} as {metadata['variant']}")
    int(metadata["seed"])
    if not 0 <= float(metadata["accuracy"]) <= 100:
        raise ValueError(f"its accuracy is {metadata['accuracy']} %")
    expected = network.state_dict()
    if tensors.keys() != expected.keys():
        name = min(tensors.keys() ^ expected.keys())
        raise ValueError(f"the tensor {name} is {'missing' if name in expected else 'unknown'}")
    for name, tensor in tensors.items():
        if (tensor.dtype, tensor.shape) != (expected[name].dtype, expected[name].shape):
            raise ValueError(f"the tensor {name} is {tensor.dtype} {list(tensor.shape)}")
        if not tensor.isfinite().all():
            raise ValueError(f"the tensor {name} holds NaN or infinity")
    network.load_state_dict(tensors, assign=True)
    return network
