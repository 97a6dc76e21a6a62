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

import distributed
import psutil
import pytest
from filelock import FileLock

from DataPipeline import make_loaders
from helpers.checkpoint import load_checkpoint, save_checkpoint, weights_digest
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


ARGUMENTS = {"variants": ["v1"], "seeds": [42, 43], **SMALL}


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
    """And the bar counts their epochs and gives the time left."""
    grid = ["v1", "v2_bn"], [42]
    run(*grid, tmp_path, jobs=2, **SMALL)
    shown = re.findall(r"(\d)/4 \[\d\d:\d\d<(\S+),", capsys.readouterr().err)
    counts = [int(count) for count, _ in shown]  # two epochs may end at once
    assert counts == sorted(counts) and counts[-1] == 4 and len(set(counts)) >= 4
    assert all(left != "?" for count, left in shown if int(count) >= 2)
    assert histories(tmp_path) == undisturbed(*grid)
    names = {f"{variant}-{seed}" for variant, seed in undisturbed(*grid)}
    files = {f"{name}.{kind}" for name in names for kind in ("json", "safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == files
    for (variant, seed), history in load_runs(tmp_path).items():
        network = load_weights(tmp_path / f"{variant}-{seed}.safetensors")
        assert weights_digest(network) == history.weights
    run(*grid, tmp_path, scheduler="tcp://127.0.0.1:9", **SMALL)
    assert "all 2 runs are in" in capsys.readouterr().out  # and nobody was asked for more


@pytest.fixture
def trained(monkeypatch):
    """The (seed, variant) pairs that a study has trained, each at once: made up."""
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
    return trained


def test_runs_go_seed_by_seed(tmp_path, trained):
    """So that all of a seed come from one processor, as the protocol has it."""
    run(("v1", "v2_bn"), (42, 43), tmp_path, **SMALL)
    assert trained == [(seed, variant) for seed in (42, 43) for variant in ("v1", "v2_bn")]
    assert len(load_runs(tmp_path)) == 4


def test_what_another_process_trains_is_left_to_it(tmp_path, trained, capsys):
    with FileLock(tmp_path / "v1-42.lock"):
        run(("v1",), (42, 43), tmp_path, **SMALL)
    assert trained == [(43, "v1")]
    assert "Another process has taken 1 of the runs" in capsys.readouterr().out


def test_nothing_is_served_to_other_machines():
    with workers.workers(None, 2, print):
        found = [
            c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"
        ]
    assert set(found) <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_held_out_runs_and_taught_ones_are_those_of_fit_and_mix_with_no_others(tmp_path, mnist):
    teachers = [PROJECT / "results" / "one_cycle.safetensors"]
    config = TrainingConfig(5, 1, learning_rate=0.01, schedule="one-cycle", distillation=0.5)
    arguments = {"jobs": 1, "config": config, "train_images": IMAGES, "teachers": teachers}
    run(["none_bn"], [5], tmp_path, held_out=True, **arguments)
    data = mnist.held_out().first(IMAGES)
    networks = list(map(load_weights, teachers))
    loaders = make_loaders(data, config, num_workers=0, teachers=networks)
    history = fit(build("none_bn", 5), *loaders, config, "cpu", progress=False)
    [found] = load_runs(tmp_path).values()
    assert found.config == config.as_dict() and found.train_images == IMAGES
    assert without_seconds(found) == without_seconds(history) and found.mistakes == history.mistakes
    config = replace(config, distillation=0.0)
    loaders = make_loaders(data, config, num_workers=0)
    alone = fit(build("none_bn", 5), *loaders, config, "cpu", progress=False)
    assert without_seconds(alone) != without_seconds(found)
    with pytest.raises(ValueError, match=r"none_bn-5\.json holds a run on other images"):
        run(["none_bn"], [6], tmp_path, **arguments)
    with pytest.raises(ValueError, match=r"1 teachers, .*distillation is 0"):
        run(["none_bn"], [7], tmp_path / "new", teachers=teachers)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hit",
    [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.torture)],
)
def test_a_study_broken_off_is_finished_by_the_next_call(tmp_path, undisturbed, start, hit):
    """Hit when the first run is whole and the second has begun."""
    process = start(tmp_path, jobs=1)
    wait_for((tmp_path / "v1-43.pt").exists)
    if hit == signal.SIGINT:  # which the terminal sends to all processes of the group
        os.killpg(process.pid, hit)
    else:
        process.send_signal(hit)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    [whole] = tmp_path.glob("*.json")
    content = whole.read_bytes()
    run(folder=tmp_path, jobs=1, **ARGUMENTS)
    assert whole.read_bytes() == content
    assert histories(tmp_path) == undisturbed()
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
def test_a_killed_run_resumes_and_the_study_goes_on(tmp_path, undisturbed, start):
    process = start(tmp_path, jobs=2, variants=["v1"], seeds=[42])
    checkpoint = tmp_path / "v1-42.pt"
    size = wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_size)
    wait_for(lambda: checkpoint.stat().st_size != size)  # an epoch longer
    [kept] = load_checkpoint(checkpoint)["history"]["epochs"]
    children = psutil.Process(process.pid).children(recursive=True)
    [worker] = [child for child in children if "study.workers" in child.cmdline()]
    worker.kill()
    said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    assert histories(tmp_path) == undisturbed(seeds=[42])
    [found] = load_runs(tmp_path).values()
    assert found.epochs[0] == kept  # its seconds, too: it was not trained again


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
        run_ = history_of([98.0] * 20, train_images=IMAGES)
        for number, record in enumerate(run_.epochs):
            record["train_accuracy"] = 50.0
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


def reorder(*numbers, status="finished"):
    def change(text):
        content = json.loads(text) | {"status": status}
        content["epochs"] = [content["epochs"][number] for number in numbers]
        return json.dumps(content)

    return change


BAD_FILES = {  # what is written under which name in place of v1's run with seed 42; what is said
    "damaged": ("v1-42.json", lambda t: t[:100], "no training history"),
    "foreign": ("package.json", lambda t: '{"name": "leftpad"}', "no training history"),
    "another run's name": ("v1-43.json", str, "holds the run v1-42"),
    "another variant's name": ("v2-42.json", str, "holds the run v1-42"),
    "unknown variant": ("v9-42.json", edit("variant", "v9"), "holds the run v9-42"),
    "of no setting": ("v1-42.json", edit("config", "setting", "nowhere"), "setting is 'nowhere'"),
    "interrupted": ("v1-42.json", reorder(0, status="interrupted"), "a run that is interrupted"),
    "stopped early for no reason": (
        "v1-42.json",
        edit("status", "early stopping"),
        "a run that is early stopping",
    ),
    "finished after one epoch": ("v1-42.json", reorder(0), "a run that is finished after 1"),
    "an epoch too many": ("v1-42.json", reorder(0, 1, 1), "the last came after its end"),
    "another schedule's rate": (
        "v1-42.json",
        edit("epochs", 1, "learning_rate", 0.0001),
        "learning rates that are not its schedule's",
    ),
    "no share of its images": (
        "v1-42.json",
        edit("epochs", 0, "test_accuracy", 98.004),
        "a test accuracy that is no share",
    ),
    "no share of its train images": (
        "v1-42.json",
        edit("epochs", 0, "train_accuracy", 50.1),
        "a train accuracy that is no share",
    ),
    "another number of mistakes": ("v1-42.json", edit("mistakes", [[3, 7]]), "1 mistakes, and"),
    "a mistake twice": ("v1-42.json", edit("mistakes", [[3, 7], [3, 7]]), "out of order"),
    "a mistake that is the right digit": (
        "v1-42.json",
        edit("mistakes", [[0, 7], [6, 1]]),
        "a mistake that is the right digit",
    ),
    "a mistake beyond the images": (
        "v1-42.json",
        edit("mistakes", [[3, 7], [10_000, 7]]),
        "beyond the test images",
    ),
}


@pytest.mark.parametrize(
    ("command", "kind"), [("run", "damaged"), *(("report", kind) for kind in BAD_FILES)]
)
def test_a_file_that_is_no_run_of_the_study_ends_it_in_one_sentence(tmp_path, command, kind):
    """run asks for another config than these have, and would refuse most of them for that."""
    name, change, reason = BAD_FILES[kind]
    path = tmp_path / "runs" / name
    plausible().save(path)
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    said = refusal(command, "--folder", str(path.parent))
    assert name in said and reason in said and "move it away" in said
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


def task_of(folder):
    """The arguments of workers.train for v1 with seed 42."""
    config = replace(SMALL["config"], seed=42).as_dict()
    task = {"variant": "v1", "config": config, "train_images": IMAGES, "held_out": False}
    return task | {"teachers": [], "host": socket.gethostname(), "checkpoint": f"{folder}/run.pt"}


def broken_off(path, mnist, config):
    """A checkpoint of that run of v1 after its first epoch."""

    def stop(history):
        raise KeyboardInterrupt

    loaders = make_loaders(mnist.first(IMAGES), config, num_workers=0)
    fit(build("v1", config.seed), *loaders, config, CPU, path, progress=stop)


@pytest.mark.slow
def test_a_run_takes_no_module_from_the_current_folder_and_no_checkpoint_by_other_code(
    tmp_path, monkeypatch, mnist, undisturbed
):
    (tmp_path / "data").symlink_to(PROJECT / "data")
    (tmp_path / "models.py").write_text("raise ValueError('not these')")
    monkeypatch.chdir(tmp_path)
    broken_off(tmp_path / "run.pt", mnist, SMALL["config"])
    state = load_checkpoint(tmp_path / "run.pt")
    state["identity"]["code"] = "another's"
    save_checkpoint(tmp_path / "run.pt", state)
    told = []
    content, _ = workers.in_process(task_of(tmp_path), workers.snapshot(), told.append, None)
    found = History.from_dict(json.loads(content))
    assert without_times(found) == undisturbed(seeds=[42])["v1", 42] and told == [1, 2]


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_left_alone(tmp_path, mnist):
    broken_off(tmp_path / "run.pt", mnist, replace(SMALL["config"], gamma=0.2))
    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(ValueError, match=r"another run: config\.gamma is 0\.2 there and 0\.1 here"):
        workers.train(tmp_path, **task_of(tmp_path))
    assert (tmp_path / "run.pt").read_bytes() == before


def test_on_another_machine_a_run_has_a_checkpoint_of_its_own(tmp_path, monkeypatch):
    def no_fit(model, train, test, config, device, checkpoint, tell):
        raise ArithmeticError(str(checkpoint))

    monkeypatch.setattr(workers, "fit", no_fit)
    there = task_of(tmp_path / "there") | {"host": "elsewhere"}
    for task, folder in ((task_of(tmp_path), tmp_path), (there, tmp_path / "here")):
        with pytest.raises(ArithmeticError, match=str(folder / "run.pt")):
            workers.train(tmp_path / "here", **task)


def test_a_process_that_dies_is_named_by_its_run(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho too large >&2\nexit 9\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    said = r"a process died \(status 9\) in the run of v1 with seed 42.* too large"
    with pytest.raises(RuntimeError, match=said):
        workers.in_process(task_of(tmp_path), b"", print, None)


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


def test_ctrl_c_ends_a_study_in_a_sentence(monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("study.__main__.report", interrupted)
    assert refusal("report") == "interrupted; run again to resume."


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
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_run_resumes_on_another_worker_when_its_own_is_killed(
    tmp_path, undisturbed, start, cluster
):
    process = start(tmp_path, scheduler=cluster.scheduler_address, seeds=[42])
    wait_for(lambda: list(tmp_path.glob("*.pt")))
    kill_a_worker(cluster)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    assert histories(tmp_path) == undisturbed(seeds=[42])
    assert not list(tmp_path.glob("*.pt"))


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
def dask(tmp_path, mnist):
    """A scheduler's process and address; and a worker, started where this project is not."""
    (tmp_path / "data").symlink_to(PROJECT / "data")
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    at = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = subprocess.Popen([*dask, "scheduler", *at, "--port", "0"], **quiet)
    wait_for(lambda: file.exists() and file.stat().st_size)
    worker = subprocess.Popen([*dask, "worker", *at, "--nthreads", "1", "--no-nanny"], **quiet)
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
    wait_for(lambda: list((tmp_path / "runs").glob("*.pt")) or process.poll() is not None)
    scheduler.kill()
    said, _ = process.communicate(timeout=TIMEOUT)
    assert f"the Dask scheduler at {address} is gone" in said.splitlines()[-1]


@pytest.mark.slow
def test_a_scheduler_that_is_gone_when_asked_for_its_workers_is_one_sentence(dask, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 3)
    scheduler, address = dask
    ends = pytest.raises(RuntimeError, match=f"the Dask scheduler at {address} is gone")
    close = distributed.Client.close

    def met_by_its_own(client):
        close(client)
        raise RuntimeError("Cannot change state of expiring Timeout")  # now and then, there

    monkeypatch.setattr(distributed.Client, "close", met_by_its_own)
    with ends, workers.workers(address, None, print) as (_, capacity):
        scheduler.kill()
        scheduler.wait()
        capacity()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_an_unreachable_scheduler_is_one_sentence(tmp_path, monkeypatch, address):
    monkeypatch.setattr(workers, "SECONDS", 3)
    said = refusal("run", "--folder", str(tmp_path), "--scheduler", address)
    assert said.startswith(f"no Dask scheduler answers at {address}: start one")
    assert not list(tmp_path.iterdir())


def test_a_scheduler_without_workers_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 3)
    at = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=0, **at) as empty:
        said = refusal("run", "--folder", str(tmp_path), "--scheduler", empty.scheduler_address)
    assert "has no worker: start some" in said
