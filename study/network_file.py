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
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import nn

from helpers.config import TrainingConfig
from study.experiments import EXPERIMENTS, RESULTS, Experiment
from TrainingHelper import make_optimizer


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

    def training(self, model: nn.Module, steps: int) -> dict:
        """Optimizer, scheduler and interval as fit takes them; steps: batches per epoch."""
        optimizer = (self.optimizer or partial(make_optimizer, config=self.config))(model)
        scheduler = self.scheduler(optimizer, steps) if self.scheduler else None
        return {"optimizer": optimizer, "scheduler": scheduler, "interval": self.interval}


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


def find_experiment(name: str) -> Experiment:
    """One of EXPERIMENTS, the first with that network, or that of a network file.

    Raises ValueError for a name that is none of them.
    """
    if name.endswith(".py"):
        file = load_network_file(name)
        kind = "peers" if Path(name).parent.name == "peers" else "networks"
        return Experiment((file.name,), file.config, RESULTS / kind / file.name, text=file.text)
    having = [e for e in EXPERIMENTS.values() if name in e.networks]
    if name not in EXPERIMENTS and not having:
        choices = ", ".join(EXPERIMENTS)
        raise ValueError(f"there is no experiment {name!r}; choose from {choices}, or name a file.")
    return EXPERIMENTS.get(name) or having[0]
