"""The study's runs: the notebooks' to the bit, resumed, claimed once, here and on a cluster."""

import contextlib
import functools
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import distributed
import psutil
import pytest

from DataPipeline import load_mnist, make_loaders
from helpers.checkpoint import weights_digest
from helpers.history import History
from helpers.weights import load_weights
from models import VARIANTS
from study import runs as study_runs
from study import workers
from study.__main__ import main
from study.runs import load_runs, run
from tests.helpers import CPU, PROJECT, build, wait_for, without_seconds
from tests.helpers import history as history_of
from TrainingHelper import TrainingConfig, evaluate, fit

TIMEOUT = 300  # seconds for a few runs of two epochs on IMAGES images
IMAGES = 320
SMALL = {"config": TrainingConfig(epochs=2), "train_images": IMAGES}


def without_times(run):
    """A history as a dict, without the seconds, and the commit that only the study records."""
    content = run.as_dict() | {"epochs": without_seconds(run)}
    content["environment"].pop("commit", None)
    return content


def histories(folder):
    return {name: without_times(run) for name, run in load_runs(folder).items()}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Where the command is meant to be called: data/ is there."""
    monkeypatch.chdir(PROJECT)


ARGUMENTS = {"variants": ["v1"], "seeds": [42, 43, 44], **SMALL}


@pytest.fixture(scope="module")
def undisturbed(mnist):
    """A function: runs by (variant, seed), trained once in this process by the notebooks' steps."""

    @functools.cache
    def train(variant, seed):
        config = TrainingConfig(seed, epochs=2)
        loaders = make_loaders(mnist.first(IMAGES), config, num_workers=2)
        model = build(variant, seed)
        history = fit(model, *loaders, config, "cpu", progress=False)
        loss, accuracy = evaluate(model, loaders[0].as_they_are(), CPU)
        history.clean_train = {"loss": loss, "accuracy": accuracy}
        return without_times(history)

    def undisturbed(variants=ARGUMENTS["variants"], seeds=ARGUMENTS["seeds"]):
        return {run: train(*run) for run in itertools.product(variants, seeds)}

    return undisturbed


@pytest.fixture
def start():
    """A function that calls study.run in a process, and group of processes, of its own."""
    started = []
    imports = "from helpers.config import TrainingConfig; from study.runs import run; import signal"
    imports += "; signal.signal(signal.SIGINT, signal.default_int_handler)"  # else as we have it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def start(folder, **arguments):
        call = f"{imports}; run(folder={str(folder)!r}, **{ARGUMENTS | arguments!r})"
        command = [sys.executable, "-c", call]
        started.append(subprocess.Popen(command, cwd=PROJECT, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # all of the group have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_runs_side_by_side_are_those_of_the_notebooks_and_leave_their_weights(
    tmp_path, undisturbed, capsys
):
    grid = ["v1", "v2", "v2_bn"], [42]
    run(["v1"], [42], tmp_path, jobs=1, **SMALL)
    before = (tmp_path / "v1-42.json").read_bytes()
    capsys.readouterr()
    run(*grid, tmp_path, jobs=2, **SMALL)
    said = capsys.readouterr().out  # what was there is not trained again
    assert said.count("finished") == 2 and not re.search("v1 +seed 42", said)
    assert (tmp_path / "v1-42.json").read_bytes() == before
    assert histories(tmp_path) == undisturbed(*grid)
    names = {f"{variant}-{seed}" for variant, seed in undisturbed(*grid)}
    files = {f"{name}.{kind}" for name in names for kind in ("json", "safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == files
    for (variant, seed), history in load_runs(tmp_path).items():
        network = load_weights(tmp_path / f"{variant}-{seed}.safetensors")
        assert weights_digest(network) == history.weights
    run(*grid, tmp_path, scheduler="tcp://127.0.0.1:9", **SMALL)
    assert "all 3 runs are in" in capsys.readouterr().out  # and nobody was asked for more


def test_runs_go_seed_by_seed(tmp_path, monkeypatch):
    """So that all of a seed come from one processor, as the protocol has it."""
    trained = []

    @contextlib.contextmanager
    def at_once(scheduler, jobs, tell):
        def submit(name, task):
            trained.append((task["config"]["seed"], task["variant"]))
            done = Future()
            run = plausible(*reversed(trained[-1]), losses=len(trained))
            done.set_result((json.dumps(run.as_dict()).encode(), b"weights"))
            return done

        yield submit, lambda: 1

    monkeypatch.setattr(study_runs, "workers", at_once)
    run(("v1", "v2_bn"), (42, 43), tmp_path, **SMALL)
    assert trained == [(seed, variant) for seed in (42, 43) for variant in ("v1", "v2_bn")]
    assert len(load_runs(tmp_path)) == 4


def test_nothing_is_served_to_other_machines():
    with workers.workers(None, 2, print):
        found = [
            c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"
        ]
    assert set(found) <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_held_out_runs_are_of_training_images_and_mix_with_no_others(tmp_path, mnist):
    config = TrainingConfig(epochs=1, schedule="one-cycle", learning_rate=0.01)
    arguments = {"folder": tmp_path, "jobs": 1, "config": config, "train_images": IMAGES}
    run(["none_bn"], [5], held_out=True, **arguments)
    config = replace(config, seed=5)
    loaders = make_loaders(mnist.held_out().first(IMAGES), config, num_workers=0)
    history = fit(build("none_bn", 5), *loaders, config, "cpu", progress=False)
    [found] = load_runs(tmp_path).values()
    assert found.config == config.as_dict() and found.train_images == IMAGES
    assert without_seconds(found) == without_seconds(history) and found.mistakes == history.mistakes
    with pytest.raises(ValueError, match=r"none_bn-5\.json holds a run on other images"):
        run(["none_bn"], [6], **arguments)

    teachers = [tmp_path / "none_bn-5.safetensors"]
    arguments |= {"config": replace(config, distillation=0.5), "folder": tmp_path / "taught"}
    run(["none_bn"], [5], held_out=True, teachers=teachers, **arguments)
    config = replace(config, distillation=0.5)
    networks = list(map(load_weights, teachers))
    data = mnist.held_out().first(IMAGES)
    loaders = make_loaders(data, config, num_workers=0, teachers=networks)
    history = fit(build("none_bn", 5), *loaders, config, "cpu", progress=False)
    [taught] = load_runs(tmp_path / "taught").values()
    assert without_seconds(taught) == without_seconds(history) != without_seconds(found)
    with pytest.raises(ValueError, match=r"1 teachers, .*distillation is 0"):
        run(["none_bn"], [7], tmp_path / "new", teachers=teachers)


@pytest.mark.slow
def test_the_bar_counts_epochs_of_all_runs_and_gives_the_time_left(tmp_path, start):
    process = start(tmp_path, jobs=2, variants=["v1", "v2"], seeds=[42])
    said, _ = process.communicate(timeout=TIMEOUT)
    shown = re.findall(r"(\d)/4 \[\d\d:\d\d<(\S+),", said)
    counts = [int(count) for count, _ in shown]  # on a busy machine two epochs may end at once
    assert counts == sorted(counts) and counts[-1] == 4 and len(set(counts)) >= 4
    assert all(left != "?" for count, left in shown if int(count) >= 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hit",
    [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.torture)],
)
def test_a_study_broken_off_is_finished_by_the_next_call(tmp_path, undisturbed, start, hit):
    """Hit when the first run is whole: the others are broken, or have not begun."""
    process = start(tmp_path, jobs=2)
    wait_for(lambda: list(tmp_path.glob("*.json")))
    if hit == signal.SIGINT:  # which the terminal sends to all processes of the group
        os.killpg(process.pid, hit)
    else:
        process.send_signal(hit)
    # The output ends when the last of its processes does, workers included.
    process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    whole = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert whole
    run(folder=tmp_path, jobs=2, **ARGUMENTS)
    assert {path: path.read_bytes() for path in whole} == whole
    assert histories(tmp_path) == undisturbed()
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
def test_a_killed_run_resumes_and_the_study_goes_on(tmp_path, undisturbed, start):
    process = start(tmp_path, jobs=2, variants=["v1"], seeds=[42])
    checkpoint = tmp_path / "v1-42.pt"
    size = wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_size)
    wait_for(lambda: checkpoint.stat().st_size != size)  # an epoch longer
    [worker] = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    assert histories(tmp_path) == undisturbed(seeds=[42])


def children(pid):
    """The processes that a process's threads have started, and that train."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    found = [child for thread in threads for child in (thread / "children").read_text().split()]
    return [int(c) for c in found if "study.workers" in Path(f"/proc/{c}/cmdline").read_text()]


@pytest.mark.slow
def test_two_studies_on_one_folder_train_no_run_twice(tmp_path, undisturbed, start):
    """And a claim dies with its owner: the one that was killed left its run to the others."""
    studies = [start(tmp_path, jobs=1), start(tmp_path, jobs=1)]
    wait_for(lambda: len(list(tmp_path.glob("*.pt"))) == 2)
    studies[0].kill()
    studies.append(start(tmp_path, jobs=1))
    said = [process.communicate(timeout=TIMEOUT)[0] for process in studies]
    assert [process.returncode for process in studies[1:]] == [0, 0], said
    assert histories(tmp_path) == undisturbed()
    assert "".join(said).count("finished after 2 epochs") == len(undisturbed()), said
    assert not list(tmp_path.glob("*.lock"))


def plausible(variant="v1", seed=42, losses=0, **fields):
    """A run of two epochs that could be: by SMALL, unless told."""
    fields = {"train_images": IMAGES, "mistakes": [(3, 7), (6, 1)], **fields}
    run = history_of([98.0, 99.98], variant, seed, config={"epochs": 2}, **fields)
    for record in run.epochs:
        record["train_accuracy"], record["train_loss"] = 50.0, 0.1 + losses
    return run


@pytest.mark.parametrize("other", [{"config": {"seed": 42}}, {"train_images": 64}])
def test_a_run_of_another_config_or_on_other_images_is_left_alone(tmp_path, other):
    run_ = plausible(train_images=other.get("train_images", IMAGES))
    if "config" in other:
        run_ = history_of([98.0] * 20, train_images=100)
        for number, record in enumerate(run_.epochs):
            record["learning_rate"] *= 0.1 ** (number // 7)
            record["train_loss"] += number
            record["test_loss"] /= 1 + number
    run_.save(tmp_path / "v1-42.json")
    before = (tmp_path / "v1-42.json").read_bytes()
    with pytest.raises(ValueError, match=r"v1-42\.json holds a run by .* and not by"):
        run(folder=tmp_path, **ARGUMENTS)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def edit(*path_and_value):
    """A change of one place in a run's JSON."""
    *path, key, value = path_and_value

    def change(text):
        content = json.loads(text)
        place = content
        for part in path:
            place = place[part]
        place[key] = value
        return json.dumps(content)

    return change


def reorder(*numbers):
    def change(text):
        content = json.loads(text)
        content["epochs"] = [content["epochs"][number] for number in numbers]
        return json.dumps(content)

    return change


BAD_FILES = {  # what is written under which name, in place of v1's run with seed 42
    "damaged": ("v1-42.json", lambda t: t[:100]),
    "foreign": ("package.json", lambda t: '{"name": "leftpad"}'),
    "another run's name": ("v1-43.json", str),
    "another variant's name": ("v2-42.json", str),
    "unknown variant": ("v9-42.json", edit("variant", "v9")),
    "of the other setting": ("v1-42.json", edit("config", "setting", "nowhere")),
    "interrupted": ("v1-42.json", edit("status", "interrupted")),
    "stopped early for no reason": ("v1-42.json", edit("status", "early stopping")),
    "finished after one epoch": ("v1-42.json", reorder(0)),
    "an epoch too many": ("v1-42.json", reorder(0, 1, 1)),
    "another schedule's rate": ("v1-42.json", edit("epochs", 1, "learning_rate", 0.0001)),
    "no share of its images": ("v1-42.json", edit("epochs", 0, "test_accuracy", 98.004)),
    "no share of its train images": ("v1-42.json", edit("epochs", 0, "train_accuracy", 50.1)),
    "another number of mistakes": ("v1-42.json", edit("mistakes", [[3, 7]])),
    "a mistake twice": ("v1-42.json", edit("mistakes", [[3, 7], [3, 7]])),
    "a mistake that is the right digit": ("v1-42.json", edit("mistakes", [[0, 7], [6, 1]])),
    "a mistake beyond the images": ("v1-42.json", edit("mistakes", [[3, 7], [10_000, 7]])),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_file_that_is_no_run_of_the_study_ends_it_in_one_sentence(tmp_path, command, kind):
    name, change = BAD_FILES[kind]
    path = tmp_path / "runs" / name
    plausible().save(path)
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    said = refusal(command, "--folder", str(path.parent))
    assert name in said and "move it away" in said
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before


def test_a_run_copied_under_another_seed_or_variant_is_recognized(tmp_path):
    plausible().save(tmp_path / "v1-42.json")
    for variant, seed in (("v1", 43), ("v2", 42)):
        path = tmp_path / f"{variant}-{seed}.json"
        plausible(variant, seed).save(path)
        with pytest.raises(ValueError, match="the same epochs as v"):
            load_runs(tmp_path)
        path.unlink()


def test_the_recorded_commit_is_this_projects_and_marks_what_differs(tmp_path, monkeypatch):
    root = tmp_path / "project"
    (root / "study").mkdir(parents=True)
    monkeypatch.setattr(study_runs, "__file__", f"{root}/study/runs.py")
    assert study_runs._commit() == "unknown"  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "another's")
    assert study_runs._commit() == "unknown"  # a copy inside another repository
    git(root, "init", "-q")
    (root / "file").write_text("one")
    git(root, "add", "file")
    git(root, "commit", "-q", "-m", "ours")
    commit = git(root, "rev-parse", "HEAD")
    assert study_runs._commit() == commit
    (root / "file").write_text("another")
    assert study_runs._commit() == f"{commit}+"
    monkeypatch.setenv("PATH", "")
    assert study_runs._commit() == "unknown"


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", *who, "-C", folder, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_a_run_takes_no_module_from_the_current_folder_and_no_checkpoint_of_another(
    tmp_path, monkeypatch, undisturbed
):
    (tmp_path / "data").symlink_to(PROJECT / "data")
    (tmp_path / "models.py").write_text("raise ValueError('not these')")
    monkeypatch.chdir(tmp_path)
    task = {"variant": "v1", "config": replace(SMALL["config"], seed=42).as_dict()}
    task |= {"train_images": IMAGES, "held_out": False, "teachers": []}
    task["host"] = socket.gethostname()
    checkpoint = tmp_path / "run.pt"
    model = build("v1", 42)
    loaders = make_loaders(load_mnist().first(64), TrainingConfig(epochs=1), num_workers=0)
    fit(model, *loaders, TrainingConfig(epochs=1), CPU, checkpoint, progress=False)
    task["checkpoint"] = str(checkpoint)  # of another run: a study begins again
    told = []
    content, _ = workers.in_process(task, workers.snapshot(), told.append, None)
    found = History.from_dict(json.loads(content))
    assert without_times(found) == undisturbed(seeds=[42])["v1", 42] and told == [1, 2]


@pytest.mark.slow
def test_what_a_run_refuses_ends_the_study_in_its_sentence(tmp_path):
    nonsense = replace(SMALL["config"], learning_rate=1e30)
    with pytest.raises(RuntimeError, match=r"loss is nan in epoch 1.*; lower the learning rate"):
        run(["v1"], [42], tmp_path, jobs=1, config=nonsense, train_images=IMAGES)


def refusal(*arguments):
    """The one sentence that ends the command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_help_names_the_variants_and_the_seeds(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(variant in said for variant in VARIANTS) and "47 to 56" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "v9"], "no variant 'v9' from the page; choose from none, v2, late, v1"),
        (["--setting", "as run", "--variants", "final"], "no variant 'final' as run"),
        (["--variants", "v1", "v1"], "variant v1 is named twice"),
        (["--seeds", "42", "42"], "seed 42 is named twice"),
        (["--seeds", "-1"], "seed is -1; expected an integer from 0 to 2**32 - 1"),
        (["--jobs", "0"], "jobs is 0; expected at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence_and_no_run(tmp_path, arguments, message):
    folder = tmp_path / "runs"
    assert message in refusal("run", "--folder", str(folder), *arguments)
    assert not folder.exists()


@pytest.fixture
def cluster():
    """Two worker processes and a scheduler on the loopback interface."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit=0
    ) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_run_resumes_on_another_worker_when_its_own_is_killed(
    tmp_path, undisturbed, start, cluster
):
    process = start(tmp_path, scheduler=cluster.scheduler_address)
    wait_for(lambda: list(tmp_path.glob("*.pt")))
    kill_a_worker(cluster)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    assert histories(tmp_path) == undisturbed()
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
def test_a_cluster_of_this_process_leaves_its_modules_alone(tmp_path, undisturbed, cluster):
    run(["v1"], [42], tmp_path, scheduler=cluster.scheduler_address, **SMALL)
    assert histories(tmp_path) == undisturbed(seeds=[42])
    assert sys.modules["TrainingHelper"].History is History


@pytest.mark.slow
def test_a_run_that_kills_its_workers_ends_the_study_in_one_sentence(tmp_path, start, cluster):
    cluster.scheduler.allowed_failures = 0
    process = start(tmp_path, scheduler=cluster.scheduler_address)
    kill_a_worker(cluster)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert "several workers died of one run" in said.splitlines()[-1]


def kill_a_worker(cluster):
    """Kill one of a LocalCluster's worker processes, as soon as one trains."""
    workers = cluster.scheduler.workers
    busy = wait_for(lambda: [worker for worker in workers.values() if worker.processing])
    os.kill(cluster.workers[busy[0].name].pid, signal.SIGKILL)


@pytest.fixture
def dask(tmp_path):
    """A scheduler's process and address; and a worker, started where this project is not."""
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    at = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = subprocess.Popen([*dask, "scheduler", *at, "--port", "0"], **quiet)
    wait_for(lambda: file.exists() and file.stat().st_size)
    worker = subprocess.Popen([*dask, "worker", *at, "--nthreads", "1"], **quiet)
    address = json.loads(file.read_text())["address"]
    with distributed.Client(address, timeout=TIMEOUT, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=TIMEOUT)
    yield scheduler, address
    for process in (worker, scheduler):
        process.terminate()
        process.wait(TIMEOUT)


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_study_in_one_sentence(tmp_path, start, dask):
    scheduler, address = dask
    process = start(tmp_path / "runs", scheduler=address)
    wait_for(lambda: list((tmp_path / "runs").glob("*.json")) or process.poll() is not None)
    scheduler.kill()
    said, _ = process.communicate(timeout=TIMEOUT)
    assert f"the Dask scheduler at {address} is gone" in said.splitlines()[-1]


@pytest.mark.slow
def test_a_scheduler_that_is_gone_when_asked_for_its_workers_is_one_sentence(dask, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 3)
    scheduler, address = dask
    ends = pytest.raises(RuntimeError, match=f"the Dask scheduler at {address} is gone")
    with ends, workers.workers(address, None, print) as (_, capacity):
        scheduler.kill()
        scheduler.wait()
        capacity()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_an_unreachable_scheduler_is_one_sentence(tmp_path, monkeypatch, address):
    monkeypatch.setattr(workers, "SECONDS", 1)
    said = refusal("run", "--folder", str(tmp_path), "--scheduler", address)
    assert said.startswith(f"no Dask scheduler answers at {address}: start one")
    assert not list(tmp_path.iterdir())


def test_a_scheduler_without_workers_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 1)
    at = {"host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=0, **at) as empty:
        said = refusal("run", "--folder", str(tmp_path), "--scheduler", empty.scheduler_address)
    assert "has no worker: start some" in said
