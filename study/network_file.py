"""A reader's own network: a file that defines network(), and may define how it is trained.

examples/my_network.py is a template. network() returns any nn.Module from float32 [B, 1, 28, 28],
normalized, to logits [B, 10]. A file may also define CONFIG, a TrainingConfig; augment(images,
generator), float32 [N, 1, 28, 28] in [0, 1] of uint8 [N, 1, 28, 28]; optimizer(model) and
scheduler(optimizer, steps_per_epoch), torch's own; and INTERVAL, "epoch" or "step", after which the
scheduler takes its steps.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from helpers.config import TrainingConfig


class NetworkFile(NamedTuple):
    """What a file defines. Its text travels in the results.

    name: my_network-1a2b3c4d, of a file my_network.py with that digest: a changed file is another
        network.
    """

    name: str
    text: str
    network: Callable
    config: TrainingConfig
    augment: Callable | None
    optimizer: Callable | None
    scheduler: Callable | None
    interval: str


def load_network_file(path: str | Path) -> NetworkFile:
    """Run a file and take what it defines; OSError if it cannot be read, else as from_text."""
    path = Path(path)
    return from_text(path.stem, path.read_text(encoding="utf-8"))


def from_text(stem: str, text: str) -> NetworkFile:
    """The same of a file's name without .py, and its text.

    Raises ValueError, in a sentence, if the text does not run, which prints its own traceback, or
    does not define what it has to.
    """
    name = f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    module = ModuleType(name.replace("-", "_"))
    module.__file__ = f"{name}.py"
    sys.modules[module.__name__] = module  # where dataclasses and pickling look
    # Tracebacks show its lines, on another machine too.
    linecache.cache[module.__file__] = (len(text), None, text.splitlines(True), module.__file__)
    try:
        exec(compile(text, module.__file__, "exec"), vars(module))
    except Exception as error:
        traceback.print_exc()
        reason = f"{stem}.py does not run ({type(error).__name__}, above)"
        raise ValueError(f"{reason}: mend it, and call this again.") from error
    if not callable(getattr(module, "network", None)):
        raise ValueError(f"{stem}.py defines no network(): add a function that returns the module.")
    config = getattr(module, "CONFIG", TrainingConfig())
    if not isinstance(config, TrainingConfig):
        raise ValueError(f"CONFIG in {stem}.py is {config!r}; expected a TrainingConfig.")
    own = {key: getattr(module, key, None) for key in ("augment", "optimizer", "scheduler")}
    config = replace(config, augmentation="own") if own["augment"] else config
    interval = getattr(module, "INTERVAL", "epoch")
    return NetworkFile(name, text, module.network, config, **own, interval=interval)
