"""Facts of the leaderboard's networks: parameters, multiply-adds, seconds an epoch on one thread.

The networks take turns, by their own recipes, on 8,192 images; run it on an idle machine. It writes
network_times.json beside it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from DataPipeline import load_mnist, make_loaders  # noqa: E402
from helpers.history import TRAIN_IMAGES  # noqa: E402
from models import NETWORKS  # noqa: E402
from study.check import describe  # noqa: E402
from study.experiments import EXPERIMENTS  # noqa: E402
from study.leaderboard import OURS  # noqa: E402
from study.network_file import load_network_file  # noqa: E402
from TrainingHelper import fit, get_device, set_seed  # noqa: E402

IMAGES, ROUNDS = 8192, 3  # and a warm-up


def main() -> None:
    """Measure, print and write."""
    data, device = load_mnist(PROJECT / "data").subset(IMAGES), get_device("cpu")
    data = data._replace(test_images=data.test_images[: IMAGES // 6])
    data = data._replace(test_labels=data.test_labels[: IMAGES // 6])
    files = {path.stem: load_network_file(path) for path in sorted(PROJECT.glob("peers/*.py"))}
    networks = {name: (file.network, file.config, file) for name, file in files.items()}
    for name, (experiment, network) in OURS.items():
        networks[name] = NETWORKS[network].build, EXPERIMENTS[experiment].config, None
    times = {name: [] for name in networks}
    for _ in range(ROUNDS + 1):
        for name, (network, config, file) in networks.items():
            set_seed(0)
            config = replace(config, epochs=1, patience=1, plain_epochs=0)
            loaders = make_loaders(data, config, device, 0, file and file.augment)
            model = network()
            own = file.training(model, len(loaders[0])) if file else {}
            started = time.perf_counter()
            fit(model, *loaders, config, device, progress=False, **own)
            times[name].append((time.perf_counter() - started) * TRAIN_IMAGES / IMAGES)
            print(f"{name:20}{times[name][-1]:7.1f} s", flush=True)
    facts = {}
    for name, (network, *_) in networks.items():
        described = describe(network())
        facts[name] = {key: described[key] for key in ("parameters", "multiply_adds")}
        facts[name]["seconds"] = round(median(times[name][1:]), 1)
    text = json.dumps(facts, indent=1) + "\n"
    Path(__file__).with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main()
