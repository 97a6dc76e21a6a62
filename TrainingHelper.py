"""Training by the published protocol: device, seed, config, early stopping, fit, checkpoints.

One seed rules a run. `fit` seeds every generator anew from (seed, epoch) when an epoch starts, so
nothing that happened before it, a killed process included, changes a bit of what follows.
Losses and hits stay on the device and are read every READ_EVERY steps, never every step.
Importing this module sets torch to one CPU thread.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import hashlib
import io
import json
import math
import os
import platform
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

if TYPE_CHECKING:
    from models import Published

PROJECT = Path(__file__).resolve().parent
READ_EVERY = 64  # steps between two looks at the losses on the device: two a chunk of images
CLASSES = 10
Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]


def _set_up_cpu() -> None:
    """Make torch fit for small steps on a CPU; benchmarks/README.md has the measurements.

    One thread: a step is hundreds of small operations, at each of which two threads wait for each
    other, on a busy or virtual machine for longer than they save. It also makes a run's bits
    independent of the number of cores.

    glibc gives large freed blocks back to the system at once, so each step's activations would be
    mapped and zeroed anew; it is asked to keep them. Other C libraries are left as they are.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL(None)
            libc.mallopt(trim_threshold, 2**31 - 1)
            libc.mallopt(mmap_threshold, 2**30)


_set_up_cpu()


# --- device and seed ------------------------------------------------------------------------------


def get_device(preferred: str | torch.device | None = None) -> torch.device:
    """The device to train on: `preferred`, or else the first there is of CUDA, MPS and CPU.

    Raises ValueError if the preferred device is not there; the message lists those that are.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    name = present[0] if preferred is None else str(preferred)
    if name not in present:
        raise ValueError(f"there is no device {name!r} here; choose one of {', '.join(present)}.")
    return torch.device(name)


def memory_format(device: torch.device) -> torch.memory_format:
    """channels_last where it is faster; contiguous on MPS, where it is wrong.

    On MPS the backward pass of BatchNorm2d returns wrong gradients for channels_last inputs
    (pytorch/pytorch issue 175189): training would diverge without an error.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def set_seed(seed: int = 42) -> None:
    """Seed random, NumPy and torch (every backend), and use deterministic algorithms where any.

    Raises ValueError unless seed is an integer from 0 to 2**32 - 1 (NumPy's range).
    """
    _require(_is_int(seed) and 0 <= seed < 2**32, "seed", seed, "an integer from 0 to 2**32 - 1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Filling fresh memory would cost time and hides nothing here: all of it is written first.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed from non-negative integers such as (seed, epoch): any change gives another."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


# --- config ---------------------------------------------------------------------------------------


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; expected {expected}.")


@dataclass(frozen=True)
class TrainingConfig:
    """The published protocol; a value that makes no sense raises ValueError."""

    seed: int = 42
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    step_size: int = 7  # epochs between two drops of the learning rate ...
    gamma: float = 0.1  # ... by this factor
    patience: int = 10  # epochs without improvement before early stopping
    min_delta: float = 0.001  # test loss has to fall by more than this to count

    def __post_init__(self) -> None:
        valid_seed = _is_int(self.seed) and 0 <= self.seed < 2**32
        _require(valid_seed, "seed", self.seed, "an integer from 0 to 2**32 - 1")
        for name in ("epochs", "batch_size", "step_size", "patience"):
            value = getattr(self, name)
            _require(_is_int(value) and value >= 1, name, value, "an integer of at least 1")
        for name in ("learning_rate", "weight_decay", "gamma", "min_delta"):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            _require(is_number and math.isfinite(value), name, value, "a finite number")
            _require(value >= 0, name, value, "a number that is not negative")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        _require(0 < self.gamma <= 1, "gamma", self.gamma, "a number in (0, 1]")


class EarlyStopping:
    """Stop when the loss has not fallen under its best - min_delta for `patience` epochs."""

    def __init__(self, patience: int = 10, min_delta: float = 0.001) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.bad_epochs = 0

    def step(self, loss: float) -> bool:
        """Take note of an epoch's loss; True if training should stop."""
        if loss < self.best - self.min_delta:
            self.best = loss
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience


# --- files ----------------------------------------------------------------------------------------


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all, making its folder if need be.

    The bytes go to a temporary name of their own in the same folder, to the disk, then into place,
    so that neither a kill nor a second writer leaves half a file. Raises OSError with what went
    wrong; the file that was there before is then unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"cannot write {path} ({reason}): make room there, make the folder writable, or "
                "choose another place; what was there before is unchanged",
            ) from error
        raise


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
            target.unlink()
            raise
    raise FileExistsError(f"too many damaged copies of {path}; delete some of them.")


# --- history --------------------------------------------------------------------------------------

RECORD = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "learning_rate",
    "seconds",
)
STATUSES = ("finished", "early stopping", "interrupted")


@dataclass
class History:
    """What one run did, epoch by epoch; the schema of results/*.json.

    variant: the network's name in models.VARIANTS, or what it is; seed: config["seed"];
    status: one of STATUSES; config: the TrainingConfig as a dict; environment: versions, device
    and threads; epochs: a dict for each whole epoch with the keys of RECORD (losses are means over
    images, accuracies per cent; those of the training set are taken while it trains, with dropout
    active; learning_rate is the one the epoch used; seconds include the evaluation);
    train_images: how many images an epoch trains on; mistakes: [index, predicted digit] of every
    test image that the last epoch's network got wrong; clean_train: that network's "loss" and
    "accuracy" (per cent) on the training images as they are, in evaluation mode. These three are
    None in files older than they are; clean_train also where nobody measured it.
    """

    variant: str
    seed: int
    status: str = "interrupted"
    config: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    train_images: int | None = None
    mistakes: list[list[int]] | None = None
    clean_train: dict[str, float] | None = None

    def _series(self, key: str) -> list[float]:
        if not self.epochs:
            raise ValueError(f"the history of {self.variant} holds no whole epoch; train first.")
        return [record[key] for record in self.epochs]

    @property
    def final_accuracy(self) -> float:
        """Test accuracy of the last epoch run, per cent: the accuracy this study reports."""
        return self._series("test_accuracy")[-1]

    @property
    def best_accuracy(self) -> float:
        """Highest test accuracy of any epoch, per cent: picked on the test set, so optimistic."""
        return max(self._series("test_accuracy"))

    @property
    def first_epoch_at_99(self) -> int | None:
        """The first epoch, counted from 1, with a test accuracy of 99 % or more, or None."""
        accuracies = self._series("test_accuracy")
        return next((e for e, accuracy in enumerate(accuracies, 1) if accuracy >= 99), None)

    @property
    def convergence_rate(self) -> float | None:
        """6 / first epoch at 99 %+, or None: the rule behind the published 0.75, 1.0 and 1.5."""
        return None if self.first_epoch_at_99 is None else 6 / self.first_epoch_at_99

    @property
    def gap(self) -> float:
        """Test minus train accuracy of the last epoch, in points."""
        return self.final_accuracy - self._series("train_accuracy")[-1]

    def beside(self, published: Published, parameters: int) -> str:
        """A Markdown table: the published figures, and beside them this run's.

        published: what models.VARIANTS holds of the variant; parameters: the network's count.
        """
        p, reached = published, self.first_epoch_at_99
        train, test = self._series("train_accuracy"), self._series("test_accuracy")
        at_99 = f"{reached} ({test[reached - 1]:.2f} %)" if reached else "not reached"
        rate = f"{self.convergence_rate:.2f}" if reached else "not reached"
        gap = "not published" if p.gap is None else f"{p.gap:+.1f} points"
        return f"""\
| | published | this run |
| --- | ---: | ---: |
| parameters | {p.parameters:,} | {parameters:,} |
| epoch 1, train accuracy | {p.epoch_1_train_accuracy:.2f} % | {train[0]:.2f} % |
| epoch 1, test accuracy | {p.epoch_1_test_accuracy:.2f} % | {test[0]:.2f} % |
| first epoch at 99 %+ (test) | {p.first_epoch_at_99} ({p.accuracy_at_99:.2f} %) | {at_99} |
| final test accuracy | {p.final_accuracy:.2f} % | {self.final_accuracy:.2f} % |
| convergence rate | {p.convergence_rate:.2f} | {rate} |
| gap, test - train, last epoch | {gap} | {self.gap:+.2f} points |
"""

    def save(self, path: str | Path) -> None:
        """Write the history as JSON, whole or not at all.

        Raises ValueError for an interrupted run under a folder named results, which holds whole
        runs only, and OSError if it cannot be written.
        """
        path = Path(path)
        folder = path.resolve().parent
        if folder.is_relative_to(PROJECT):
            folder = folder.relative_to(PROJECT)
        if self.status == "interrupted" and "results" in folder.parts:
            raise ValueError(
                f"this run of {self.variant} was interrupted after {len(self.epochs)} epochs, and "
                f"results/ holds whole runs only; finish it, or save it elsewhere than {path}."
            )
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        write_atomically(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history back; raises ValueError if the file does not hold one."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} holds no training history ({error}); move it away and run again."
            ) from error

    @classmethod
    def from_dict(cls, content: dict) -> History:
        """A history from its JSON form; raises ValueError if a field is missing, odd or extra."""
        expected = {f.name for f in fields(cls)}
        later = {"train_images", "mistakes", "clean_train"}  # not in the first round's files
        if not isinstance(content, dict) or not expected - later <= set(content) <= expected:
            raise ValueError(f"expected an object with exactly {', '.join(sorted(expected))}")
        if content["status"] not in STATUSES:
            raise ValueError(f"status is {content['status']!r}; expected one of {STATUSES}")
        if not isinstance(content["variant"], str) or not _is_int(content["seed"]):
            raise ValueError("expected a string as variant and an integer as seed")
        for number, record in enumerate(content["epochs"], 1):
            if set(record) != set(RECORD) or not all(
                isinstance(value, (int, float)) and math.isfinite(value)
                for value in record.values()
            ):
                raise ValueError(f"epoch {number} should hold finite {', '.join(RECORD)}, only")
        images = content.get("train_images")
        if not (images is None or (_is_int(images) and images >= 1)):
            raise ValueError(f"train_images is {images!r}; expected an integer of at least 1")
        mistakes = content.get("mistakes")
        if not (
            mistakes is None or (isinstance(mistakes, list) and all(map(_is_mistake, mistakes)))
        ):
            raise ValueError("mistakes should hold [index of a test image, predicted digit], only")
        clean = content.get("clean_train")
        if not (clean is None or (isinstance(clean, dict) and set(clean) == {"loss", "accuracy"})):
            raise ValueError(f"clean_train is {clean!r}; expected a loss and an accuracy")
        return cls(**content)


def _is_mistake(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and all(_is_int(number) and number >= 0 for number in entry)
        and entry[1] < CLASSES
    )


def _processor() -> str:
    """The processor's model, as exactly as the system tells; a virtual one's name may be short."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = (line.partition(":") for line in lines)
    told = {key.strip(): value.strip() for key, _, value in entries}
    numbers = [f"{key} {told[key]}" for key in ("cpu family", "model", "stepping") if key in told]
    return ", ".join([told.get("model name", platform.machine()), *numbers])


@functools.cache
def _onednn() -> str:
    """The instruction set that oneDNN, which does the convolutions on a CPU, dispatches to.

    It says so once per process, on the standard output and if asked before it starts.
    """
    convolve = "import torch; torch.conv2d(torch.zeros(32, 8, 28, 28), torch.zeros(8, 8, 3, 3))"
    said = subprocess.run(
        [sys.executable, "-c", convolve],
        env={**os.environ, "ONEDNN_VERBOSE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    found = re.search(r"cpu,isa:(.+)", said)
    return found[1] if found else "not in use"


def environment(device: torch.device) -> dict[str, str | int]:
    """What a run's bits depend on beside its identity: versions, processor, device, threads."""
    packages = {}
    for name in ("torch", "torchvision", "kornia", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        **packages,
        "machine": f"{platform.system()} {platform.machine()} "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "processor": _processor(),
        "onednn": _onednn(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


# --- evaluation -----------------------------------------------------------------------------------


def _check_batch(batch: object, loader: str, step: int) -> None:
    """Raise ValueError unless a batch is what the network takes, before it goes to the device."""
    wrong = None
    is_pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    images, labels = batch if is_pair else (None, None)
    if not is_pair:
        wrong = "no pair of images and labels"
    elif not (isinstance(images, torch.Tensor) and isinstance(labels, torch.Tensor)):
        wrong = f"a {type(images).__name__} and a {type(labels).__name__}"
    elif images.dtype != torch.float32 or images.ndim != 4 or images.shape[1:] != (1, 28, 28):
        wrong = f"images that are {images.dtype} {list(images.shape)}"
    elif labels.dtype != torch.int64 or labels.ndim != 1 or len(labels) != len(images):
        wrong = f"labels that are {labels.dtype} {list(labels.shape)} for {len(images)} images"
    elif len(labels) == 0:
        wrong = "no image"
    # Labels already on the device were checked when they were loaded; reading them would wait.
    elif labels.device.type == "cpu" and not (labels.min() >= 0 and labels.max() < CLASSES):
        wrong = f"labels from {labels.min()} to {labels.max()}"
    if wrong:
        raise ValueError(
            f"batch {step} of the {loader} loader holds {wrong}; expected images float32 "
            f"[B, 1, 28, 28] and labels int64 [B] from 0 to {CLASSES - 1}."
        )


def _batches(loader: Loader, device: torch.device, name: str) -> Iterator:
    """The loader's batches on the device, each checked; raises ValueError if there is none."""
    step = 0
    for step, batch in enumerate(loader, 1):
        _check_batch(batch, name, step)
        images, labels = batch
        yield (
            images.to(device, non_blocking=True, memory_format=memory_format(device)),
            labels.to(device, non_blocking=True),
        )
    if step == 0:
        raise ValueError(f"the {name} loader yields no batch; give it at least one image.")


def predict(
    model: nn.Module, loader: Loader, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 [N, 10] and labels int64 [N] of a loader's images, on the CPU.

    The model, which must be on the device, is put in evaluation mode meanwhile.
    Raises ValueError for a loader without batches or with malformed ones.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            pairs = [(model(x), y) for x, y in _batches(loader, device, "test")]
    finally:
        model.train(was_training)
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def evaluate(model: nn.Module, loader: Loader, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy loss and accuracy (per cent) over a loader; errors as for predict."""
    logits, labels = predict(model, loader, device)
    return _loss_and_accuracy(logits, labels)


def _loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    hits = (logits.argmax(1) == labels).sum().item()
    return F.cross_entropy(logits, labels).item(), 100 * hits / len(labels)


# --- progress -------------------------------------------------------------------------------------


class _NotebookLine:
    """What tqdm takes for a terminal in a notebook: one line of text, replaced in place.

    tqdm's notebook widget does not render on GitHub, and its plain bar leaves every state it went
    through in the saved notebook.
    """

    encoding = "utf-8"
    _handle = None

    def write(self, text: str) -> None:
        """Show text in place of the line before; the blanks that clear a bar are left out."""
        from IPython.display import display

        if not text.strip():
            return
        line = {"text/plain": text.strip()}
        if self._handle is None:
            self._handle = display(line, raw=True, display_id=True)
        else:
            display(line, raw=True, display_id=self._handle.display_id, update=True)

    def flush(self) -> None:
        """Nothing waits: a line is shown as it is written."""


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return bool(ipython) and hasattr(ipython.get_ipython(), "kernel")


class _Progress:
    """A live bar an epoch long, and one line an epoch that stays; nothing if not enabled."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.line = _NotebookLine() if enabled and _in_notebook() else None

    def bar(self, description: str, steps: int | None) -> tqdm:
        """A bar over an epoch's steps, on stderr, where that is a terminal."""
        if self.line:
            return tqdm(desc=description, total=steps, file=self.line, ncols=90, leave=False)
        disable = None if self.enabled else True  # None leaves it to tqdm to look for a terminal
        return tqdm(desc=description, total=steps, disable=disable, leave=False)

    def say(self, text: str) -> None:
        """A line that stays, on stdout."""
        if self.enabled:
            print(text, flush=True)

    def epoch(self, history: History) -> None:
        """The line of the epoch just ended."""
        r = history.epochs[-1]
        self.say(
            f"epoch {len(history.epochs):2}/{history.config['epochs']}  "
            f"train loss {r['train_loss']:.4f}, {r['train_accuracy']:5.2f} %  "
            f"test loss {r['test_loss']:.4f}, {r['test_accuracy']:5.2f} %  "
            f"lr {r['learning_rate']:.0e}  {r['seconds']:.1f} s"
        )

    def close(self, history: History) -> None:
        """The closing line: in a notebook it takes the bar's place, above the epochs' lines."""
        minutes = sum(record["seconds"] for record in history.epochs) / 60
        text = f"{history.status} after {len(history.epochs)} whole epochs, {minutes:.1f} minutes"
        if self.line:
            self.line.write(text)
        else:
            self.say(text)


# --- checkpoints ----------------------------------------------------------------------------------


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

    A damaged file is recognised by its SHA-256 before anything is unpickled, renamed, and reported
    by a warning. Raises ValueError if an undamaged file holds more than tensors and plain values:
    nothing that could run code is ever loaded.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    digest, _, payload = content.partition(b"\n")
    if digest != hashlib.sha256(payload).hexdigest().encode():
        try:
            aside = set_aside(path)
        except FileNotFoundError:  # another process has set it aside just now
            return None
        warnings.warn(
            f"the checkpoint {path} is damaged (its SHA-256 does not match); it is kept as "
            f"{aside.name}, and training starts from the beginning.",
            stacklevel=3,
        )
        return None
    try:
        return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a file that is not its own is anything
        raise ValueError(
            f"{path} is no checkpoint of this project: it holds more than tensors and numbers. "
            "It was not loaded; choose another path, or move it away."
        ) from error


def delete_finished_checkpoints(folder: str | Path) -> None:
    """Delete the checkpoints of whole runs in a folder; those of broken ones stay, to go on with.

    Raises ValueError for a file there that is no checkpoint.
    """
    for path in sorted(Path(folder).glob("*.pt")):
        state = load_checkpoint(path)
        if state is not None and state["history"]["status"] != "interrupted":
            path.unlink()
            print(f"{path} held a finished run and was deleted: the run starts afresh.")


def _differences(there: dict, here: dict) -> str:
    """What two nested dicts differ in, in words, or '' if in nothing."""
    found = []
    for key in {**there, **here}:
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found.append(_differences(a, b))
        elif a != b:
            found.append(f"{key} is {a} there and {b} here")
    return "; ".join(filter(None, found))


# --- fit ------------------------------------------------------------------------------------------


class _Stops:
    """Notes Ctrl-C and SIGTERM, inside a with statement, for fit to obey between two steps.

    An exception raised wherever the signal finds the program is lost while a worker is forked, and
    may leave a lock of the workers' queues held for good. So only a second signal raises at once,
    for a loader that hangs, and none while fit puts things in order.
    """

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.at_once = True
        self.process = os.getpid()
        self.previous: dict[int, object] = {}

    def __enter__(self) -> _Stops:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self.previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self.previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() == self.process:
            self.arrived.append(number)
            if len(self.arrived) > 1 and self.at_once:
                raise KeyboardInterrupt
        elif number == signal.SIGTERM:  # in a worker just forked; an interrupt is not for it
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has arrived."""
        if self.arrived:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Let nothing raise from here on: no further signal, and no worker that dies of one."""
        self.at_once = False
        if hasattr(signal, "SIGCHLD") and callable(before := signal.getsignal(signal.SIGCHLD)):

            def quiet(number: int, frame: object) -> None:
                with contextlib.suppress(RuntimeError):  # a DataLoader finds it dead later, too
                    before(number, frame)

            signal.signal(signal.SIGCHLD, quiet)


class _Run:
    """What a run consists of: a checkpoint holds it, and an interrupt falls back to it."""

    def __init__(
        self, model: nn.Module, config: TrainingConfig, device: torch.device, data: str | None
    ) -> None:
        self.model = model.to(device, memory_format=memory_format(device))
        self.config = config
        self.device = device
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True if device.type in ("cpu", "cuda") else None,
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, config.step_size, config.gamma
        )
        self.stopping = EarlyStopping(config.patience, config.min_delta)
        network = {"variant": getattr(model, "variant", type(model).__name__)}
        if hasattr(model, "dropout") and hasattr(model, "batch_norm"):
            network |= {"dropout": list(model.dropout), "batch_norm": model.batch_norm}
        self.identity = {"network": network, "config": asdict(config), "data": data}
        self.history = History(
            variant=network["variant"],
            seed=config.seed,
            config=asdict(config),
            environment=environment(device),
        )

    def state(self) -> dict:
        """The run as it stands, copied."""
        return copy.deepcopy(
            {
                "identity": self.identity,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "early_stopping": vars(self.stopping),
                "history": asdict(self.history),
            }
        )

    def restore(self, state: dict) -> None:
        """Go back, or on, to a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        vars(self.stopping).update(state["early_stopping"])
        for name in ("status", "epochs", "train_images", "mistakes"):
            setattr(self.history, name, copy.copy(state["history"][name]))

    def resume(self, path: str | Path) -> bool:
        """Go on from a checkpoint, if there is one; ValueError if it is of another run."""
        state = load_checkpoint(path)
        if state is None:
            return False
        before = self.state()
        try:
            other = _differences(state["identity"], self.identity)
            moved = _differences(state["history"]["environment"], self.history.environment)
            if not other:
                self.restore(state)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            self.restore(before)
            raise ValueError(
                f"{path} is no checkpoint of fit; choose another path, or move it away."
            ) from error
        if other:
            raise ValueError(
                f"the checkpoint {path} belongs to another run: {other}. It was left alone; "
                "choose another path, or delete it to start afresh."
            )
        if moved:
            warnings.warn(
                f"the checkpoint {path} was written elsewhere: {moved}. Training goes on, but "
                "not bit for bit as it would have there.",
                stacklevel=3,
            )
        return True


def _read_losses(losses: list[torch.Tensor], epoch: int, step: int) -> list[float]:
    """Wait for the device, once for many steps; raises FloatingPointError at one not finite."""
    values = torch.stack(losses).tolist()
    for number, value in enumerate(values, step + 1):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the training loss is {value} in epoch {epoch}, step {number}; lower the "
                "learning rate, or look at that batch."
            )
    return values


def _train_epoch(
    run: _Run, loader: Loader, epoch: int, stops: _Stops, bar: tqdm
) -> tuple[float, float, int]:
    """Train for one epoch; the mean loss, the accuracy (per cent) and the number of its images."""
    losses: list[float] = []
    unread: list[torch.Tensor] = []
    hits: list[torch.Tensor] = []
    sizes: list[int] = []
    run.model.train()
    for images, labels in _batches(loader, run.device, "train"):
        stops.check()
        run.optimizer.zero_grad(set_to_none=True)
        logits = run.model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        run.optimizer.step()
        unread.append(loss.detach())
        hits.append((logits.detach().argmax(1) == labels).sum())
        sizes.append(len(labels))
        if len(unread) == READ_EVERY:
            losses += _read_losses(unread, epoch, len(losses))
            unread.clear()
            bar.update(READ_EVERY)
    if unread:
        losses += _read_losses(unread, epoch, len(losses))
    accuracy = 100 * torch.stack(hits).sum().item() / sum(sizes)
    return float(np.average(losses, weights=sizes)), accuracy, sum(sizes)


def _run_epoch(
    run: _Run, train_loader: Loader, test_loader: Loader, stops: _Stops, progress: _Progress
) -> None:
    """One whole epoch: train, evaluate, take the scheduler's and early stopping's step, record."""
    started = time.perf_counter()
    config, history = run.config, run.history
    epoch = len(history.epochs) + 1
    set_seed(derive_seed(config.seed, epoch))
    if hasattr(train_loader, "set_epoch"):
        train_loader.set_epoch(epoch)
    learning_rate = run.optimizer.param_groups[0]["lr"]
    steps = len(train_loader) if hasattr(train_loader, "__len__") else None
    with progress.bar(f"epoch {epoch:2}/{config.epochs}", steps) as bar:
        train_loss, train_accuracy, images = _train_epoch(run, train_loader, epoch, stops, bar)
        logits, labels = predict(run.model, test_loader, run.device)
    test_loss, test_accuracy = _loss_and_accuracy(logits, labels)
    if not math.isfinite(test_loss):
        raise FloatingPointError(
            f"the test loss is {test_loss} after epoch {epoch}; lower the learning rate."
        )
    run.scheduler.step()
    stop = run.stopping.step(test_loss)
    record = {
        "train_loss": train_loss,
        "test_loss": test_loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "learning_rate": learning_rate,
        "seconds": time.perf_counter() - started,
    }
    history.epochs.append(record)
    history.train_images = images
    predictions = logits.argmax(1)
    wrong = (predictions != labels).nonzero().flatten()
    history.mistakes = torch.stack([wrong, predictions[wrong]], 1).tolist()
    if epoch == config.epochs:
        history.status = "finished"
    elif stop:
        history.status = "early stopping"


def fit(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    config: TrainingConfig | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train by the protocol of config: Adam, StepLR, early stopping on the test loss.

    The loaders are iterables of (images float32 [B, 1, 28, 28], labels int64 [B]); one with a
    method set_epoch is told each epoch's number, from 1. The model is trained in place and left on
    the device with the weights of the last whole epoch, however fit ends.

    checkpoint: a file that holds the run after each whole epoch. Called again with the same
    arguments, fit goes on from there; on a CPU, with the same versions and threads, to exactly
    where it would have got without the break. A finished run is not trained again: its weights go
    into the model and its history comes back.
    progress: a live bar and a line for each epoch; False for silence.

    An interrupt (Ctrl-C, or the notebook's stop button) ends fit with the whole epochs so far and
    status "interrupted"; so does SIGTERM, which then takes its course.

    Raises ValueError for a loader without batches, malformed batches, a loader made for another
    seed or batch size, and a checkpoint of another run (which is left alone); FloatingPointError
    for a loss that is not finite; OSError if the checkpoint cannot be written; RuntimeError if a
    worker of the loader dies.
    """
    config = config or TrainingConfig()
    made_for = getattr(train_loader, "config", config)
    for name in ("seed", "batch_size"):
        there, here = getattr(made_for, name), getattr(config, name)
        if there != here:
            raise ValueError(
                f"the train loader was made for {name} {there}, and the config says {here}; "
                "make the loaders with the same config."
            )
    run = _Run(model, config, get_device(device), getattr(train_loader, "checksum", None))
    history = run.history
    show = _Progress(progress)
    resumed = checkpoint is not None and run.resume(checkpoint)
    done = len(history.epochs)
    if resumed and history.status != "interrupted":
        show.say(
            f"{checkpoint} holds this run, whole ({history.status}, {done} epochs): its weights "
            "are loaded, nothing is trained. Delete it to start afresh."
        )
        return history
    if resumed:
        show.say(f"{checkpoint} holds this run up to epoch {done}: going on with {done + 1}.")

    state = run.state()
    with _Stops() as stops:
        try:
            if checkpoint is not None and not resumed:
                save_checkpoint(checkpoint, state)  # a place that cannot be written is found now
            while history.status == "interrupted":
                _run_epoch(run, train_loader, test_loader, stops, show)
                whole = run.state()
                if checkpoint is not None:
                    save_checkpoint(checkpoint, whole)
                state = whole
                show.epoch(history)
        except BaseException as error:
            if stops.arrived:
                stops.hold()
            run.restore(state)
            worker_died = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
            if signal.SIGTERM in stops.arrived or (stops.arrived and worker_died):
                pass  # workers that got the signal too may fail in many ways
            elif worker_died:
                raise RuntimeError(
                    f"a worker process of the data loader died in epoch {len(history.epochs) + 1} "
                    f"({error}), perhaps for want of memory; call fit again"
                    + (" to go on from the checkpoint." if checkpoint is not None else ".")
                ) from error
            elif not isinstance(error, KeyboardInterrupt):
                raise
    show.close(history)
    if signal.SIGTERM in stops.arrived:
        signal.raise_signal(signal.SIGTERM)
    return history
