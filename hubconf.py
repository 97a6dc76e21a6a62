"""The trained networks for torch.hub: torch.hub.load("OWNER/NAME", "final").

Each is in evaluation mode on the CPU. It takes float32 images [B, 1, 28, 28] of light digits on
black, in [0, 1] and then normalized, (images - 0.1307) / 0.3081, and returns logits [B, 10].
"""

import sys
from pathlib import Path as _Path

dependencies = ["torch", "numpy", "safetensors"]


def _entry(name: str, text: str):
    def load():
        folder = _Path(__file__).resolve().parent  # torch.hub has it first on sys.path
        ours = {path.stem for path in folder.iterdir()}
        theirs = {key: sys.modules.pop(key) for key in [*sys.modules] if key.split(".")[0] in ours}
        try:  # the caller's modules, such as a models.py, stay theirs
            from helpers.checkpoint import load_weights

            return load_weights(folder / "results" / f"{name}.safetensors")
        finally:
            for key in [key for key in sys.modules if key.split(".")[0] in ours]:
                del sys.modules[key]
            sys.modules.update(theirs)

    load.__doc__ = text
    return load


v1 = _entry("v1", "Dropout after all four blocks, no batch normalization.")
v2 = _entry("v2", "Dropout after the first two blocks, no batch normalization.")
final = _entry("final", "Dropout after the first three blocks, batch normalization.")
fast = _entry("fast", "Half resolution, batch normalization; 99.4% within half a minute.")
