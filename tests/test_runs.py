"""The study's runs: the notebooks' to the bit, resumed, claimed once, on a cluster."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path

import distributed
import pytest

from DataPipeline import make_loaders
from helpers.history import History
from models import VARIANTS
from study import cluster as study_cluster
from study.__main__ import main
from study.runs import load_runs, run
from tests.helpers import CPU, PROJECT, build, wait_for, without_seconds
from tests.helpers import history as history_of
from TrainingHelper import TrainingConfig, evaluate, fit

TIMEOUT = 100  # seconds for a few runs of two epochs on IMAGES images
IMAGES = 320
SMALL = {"config": TrainingConfig(epochs=2), "train_images": IMAGES}


def without_times(run):
    """A history as a dict, without the seconds, and the commit that only the study records."""
    content = asdict(run) | {"epochs": without_seconds(run)}
    content["environment"].pop("commit", None)
    return content


def histories(folder):
    return {name: without_times(run) for name, run in load_runs(folder).items()}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Where the command is meant to be called: data/ is there."""
    monkeypatch.chdir(PROJECT)


@pytest.fixture(scope="module")
def undisturbed(mnist):
    """v1 and v2_bn with seeds 42 and 43, each trained in this process by the notebooks' steps."""
    found = {}
    for variant, seed in itertools.product(("v1", "v2_bn"), (42, 43)):
        config = TrainingConfig(seed, epochs=2)
        loaders = make_loaders(mnist.first(IMAGES), config, num_workers=2)
        model = build(variant, seed)
        history = fit(model, *loaders, config, "cpu", progress=False)
        loss, accuracy = evaluate(model, loaders[0].as_they_are(), CPU)
        history.clean_train = {"loss": loss, "accuracy": accuracy}
        found[variant, seed] = without_times(history)
    return found


ARGUMENTS = {"variants": ["v1", "v2_bn"], "seeds": [42, 43], **SMALL}


@pytest.fixture
def start():
    """A function that calls study.run in a process, and group of processes, of its own."""
    started = []
    imports = "from helpers.config import TrainingConfig; from study.runs import run"
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
def test_runs_side_by_side_are_those_of_the_notebooks(tmp_path, undisturbed):
    run(folder=tmp_path, jobs=2, **ARGUMENTS)
    assert histories(tmp_path) == undisturbed
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"v1-42.json", "v1-43.json", "v2_bn-42.json", "v2_bn-43.json"}


@pytest.mark.slow
def test_only_missing_runs_are_trained(tmp_path, capsys):
    run(["v1"], [42], tmp_path, jobs=1, **SMALL)
    before = (tmp_path / "v1-42.json").read_bytes()
    capsys.readouterr()
    run(["v1"], [42, 43], tmp_path, jobs=1, **SMALL)
    assert "seed 43" in (said := capsys.readouterr().out) and "seed 42" not in said
    assert (tmp_path / "v1-42.json").read_bytes() == before
    run(["v1"], [42, 43], tmp_path, scheduler="tcp://127.0.0.1:9", **SMALL)
    assert "all 2 runs are in" in capsys.readouterr().out  # and nobody was asked for more


def test_runs_go_seed_by_seed(tmp_path, monkeypatch):
    """So that all of a seed come from one processor, as the protocol has it."""
    trained = []

    @contextlib.contextmanager
    def at_once(jobs, tell):
        def submit(name, task):
            variant, config = task["variant"], task["config"]
            trained.append((config["seed"], variant))
            done = Future()
            run = history_of([98.0, 99.0], variant, config["seed"], config={"epochs": 2})
            done.set_result(asdict(run))
            return done

        yield submit, lambda: 1

    monkeypatch.setattr("study.runs.on_this_machine", at_once)
    run(("v1", "v2_bn"), (42, 43), tmp_path, **SMALL)
    assert trained == [(seed, variant) for seed in (42, 43) for variant in ("v1", "v2_bn")]


@pytest.mark.slow
def test_a_choice_is_made_on_training_images_held_out(tmp_path, mnist):
    config = TrainingConfig(epochs=1, schedule="one-cycle", learning_rate=0.01)
    run(["none_bn"], [5], tmp_path, jobs=1, config=config, train_images=IMAGES, held_out=True)
    config = replace(config, seed=5)
    loaders = make_loaders(mnist.held_out().first(IMAGES), config, num_workers=0)
    history = fit(build("none_bn", 5), *loaders, config, "cpu", progress=False)
    [found] = load_runs(tmp_path).values()
    assert found.config == config.as_dict() and found.train_images == IMAGES
    assert without_seconds(found) == without_seconds(history) and found.mistakes == history.mistakes


@pytest.mark.slow
def test_the_bar_counts_epochs_of_all_runs_and_gives_the_time_left(tmp_path, start):
    process = start(tmp_path, jobs=2, variants=["v1", "v2"], seeds=[42])
    said, _ = process.communicate(timeout=TIMEOUT)
    shown = re.findall(r"(\d)/4 \[\d\d:\d\d<(\S+),", said)
    counts = [int(count) for count, _ in shown]  # on a busy machine two epochs may end at once
    assert counts == sorted(counts) and counts[-1] == 4 and len(set(counts)) >= 4
    assert all(left != "?" for count, left in shown if int(count) >= 2)


@pytest.mark.slow
@pytest.mark.parametrize("hit", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
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
    assert histories(tmp_path) == undisturbed
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
def test_a_killed_run_ends_the_study_in_one_sentence_and_resumes(tmp_path, undisturbed, start):
    process = start(tmp_path, jobs=2, variants=["v1"], seeds=[42])
    checkpoint = tmp_path / "v1-42.pt"
    size = wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_size)
    wait_for(lambda: checkpoint.stat().st_size != size)  # an epoch longer
    [worker] = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert "a worker process died" in said and not list(tmp_path.glob("*.json"))
    run(["v1"], [42], tmp_path, jobs=1, **SMALL)
    assert histories(tmp_path) == {("v1", 42): undisturbed["v1", 42]}


def children(pid):
    """The processes that a process's threads have started, and that train."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    found = [child for thread in threads for child in (thread / "children").read_text().split()]
    return [int(c) for c in found if "one_run" in Path(f"/proc/{c}/cmdline").read_text()]


@pytest.mark.slow
def test_two_studies_on_one_folder_share_the_runs(tmp_path, undisturbed, start):
    """And a claim dies with its owner: the one that was killed left its runs to a third."""
    first, second = start(tmp_path, jobs=1), start(tmp_path, jobs=1)
    wait_for(lambda: len(list(tmp_path.glob("*.pt"))) == 2)
    first.kill()
    first.communicate(timeout=TIMEOUT)
    said, _ = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 0, said
    run(folder=tmp_path, jobs=1, **ARGUMENTS)
    assert histories(tmp_path) == undisturbed
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.slow
def test_no_run_is_trained_twice_by_two_studies(tmp_path, undisturbed, start):
    both = [start(tmp_path, jobs=1), start(tmp_path, jobs=1)]
    said = "".join(process.communicate(timeout=TIMEOUT)[0] for process in both)
    assert histories(tmp_path) == undisturbed
    assert said.count("finished after 2 epochs") == len(undisturbed), said


@pytest.mark.parametrize("images", [False, True])
def test_a_run_of_another_config_or_on_other_images_is_left_alone(tmp_path, images):
    other = {"config": {"epochs": 2}, "train_images": 64} if images else {"config": {"epochs": 1}}
    history_of([99.0], **other).save(tmp_path / "v1-42.json")
    before = (tmp_path / "v1-42.json").read_bytes()
    with pytest.raises(ValueError, match=r"v1-42\.json holds a run by .* and not by"):
        run(folder=tmp_path, **ARGUMENTS)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


BAD_FILES = {  # what is written under which name, in place of v1's run with seed 42
    "damaged": ("v1-42.json", lambda t: t[:100]),
    "foreign": ("package.json", lambda t: '{"name": "leftpad"}'),
    "another run's name": ("v1-43.json", str),
    "unknown variant": ("v9-42.json", lambda t: t.replace('"v1"', '"v9"')),
    "interrupted": ("v1-42.json", lambda t: t.replace('"finished"', '"interrupted"')),
    "mistakes": ("v1-42.json", lambda t: t.replace('"mistakes": null', '"mistakes": [[3, 7]]')),
}


def refusal(*arguments):
    """The one sentence that ends the command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert "\n" not in str(ended.value)
    return str(ended.value)


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_file_that_is_no_run_of_the_study_ends_it_in_one_sentence(tmp_path, command, kind):
    name, change = BAD_FILES[kind]
    path = tmp_path / "runs" / name
    history_of([98.0, 99.0]).save(path)
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    assert re.fullmatch(f".*{name}.*move it away.*", refusal(command, "--folder", str(path.parent)))
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before


def test_help_names_the_variants_and_the_seeds(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(variant in said for variant in VARIANTS) and "47 to 56" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "v9"], "no variant 'v9'; choose from none, v2, late, v1"),
        (["--variants", "v1", "v1"], "variant v1 is named twice"),
        (["--seeds", "42", "42"], "seed 42 is named twice"),
        (["--jobs", "0"], "jobs is 0; expected at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence_and_no_run(tmp_path, arguments, message):
    folder = tmp_path / "runs"
    assert message in refusal("run", "--folder", str(folder), *arguments)
    assert not folder.exists()


@pytest.mark.parametrize("seed", ["x", "4.2", "-1", "4294967296", "42,43"])
def test_a_seed_that_is_none_is_refused_by_argparse(tmp_path, capsys, seed):
    assert refusal("run", "--folder", str(tmp_path / "runs"), "--seeds", seed) == "2"
    said = f"{seed!r} is no seed; expected integers from 0 to 2**32 - 1"
    assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.fixture
def cluster():
    """Two worker processes and a scheduler on the loopback interface."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit=0
    ) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_cluster_gives_the_same_runs_though_a_worker_is_killed(
    tmp_path, undisturbed, start, cluster
):
    process = start(tmp_path, scheduler=cluster.scheduler_address)
    kill_a_worker(cluster)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    assert histories(tmp_path) == undisturbed
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
def test_a_cluster_of_this_process_leaves_its_modules_alone(tmp_path, undisturbed, cluster):
    run(["v1"], [42], tmp_path, scheduler=cluster.scheduler_address, **SMALL)
    assert histories(tmp_path) == {("v1", 42): undisturbed["v1", 42]}
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
    yield scheduler, json.loads(file.read_text())["address"]
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


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_an_unreachable_scheduler_is_one_sentence(tmp_path, monkeypatch, address):
    monkeypatch.setattr(study_cluster, "SECONDS", 1)
    said = refusal("run", "--folder", str(tmp_path), "--scheduler", address)
    assert said.startswith(f"no Dask scheduler answers at {address}: start one")
    assert not list(tmp_path.iterdir())


def test_a_scheduler_without_workers_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(study_cluster, "SECONDS", 1)
    at = {"host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=0, **at) as empty:
        said = refusal("run", "--folder", str(tmp_path), "--scheduler", empty.scheduler_address)
    assert "has no worker: start some" in said
