"""The runner: runs equal fit's to the bit, on this machine and on a cluster, whatever dies."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import distributed
import pexpect
import psutil
import pytest

from DataPipeline import make_loaders
from helpers.checkpoint import load_checkpoint, save_checkpoint, save_weights
from helpers.config import TrainingConfig
from helpers.history import History
from study import __main__ as command
from study import runner
from study.experiments import EXPERIMENTS, Experiment
from study.table import load
from tests.helpers import PROJECT, build, interruptible, wait_for, without_seconds
from tests.helpers import history as history_of
from TrainingHelper import evaluate, fit, get_device

CONFIG, SEEDS, IMAGES = TrainingConfig(epochs=2), (47, 48), 64
STUDY = """if True:
    import functools, pathlib, sys
    from study import __main__ as command, runner
    from tests.test_runner import CONFIG, SEEDS, IMAGES
    experiment = runner.Experiment(("v1",), CONFIG, pathlib.Path(sys.argv[1]), SEEDS)
    runner.EXPERIMENTS["small"] = experiment
    command.TRAIN_IMAGES = IMAGES
    command.main(["run", "small", "--jobs", "1"])
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of an experiment "small": v1, two seeds."""
    monkeypatch.chdir(PROJECT)
    small = Experiment(("v1",), CONFIG, tmp_path / "runs", SEEDS)
    monkeypatch.setitem(EXPERIMENTS, "small", small)
    return small.folder


def train(*names, **arguments):
    runner.run(names or ["small"], train_images=IMAGES, **arguments)


@pytest.fixture(scope="module")
def undisturbed(mnist, tmp_path_factory):
    """By seed, the history and the safetensors file of "small", by the notebooks' steps."""
    runs, path = {}, tmp_path_factory.mktemp("undisturbed") / "weights"
    for seed in SEEDS:
        config, device = replace(CONFIG, seed=seed), get_device()
        loaders = make_loaders(mnist.subset(IMAGES), config, device, num_workers=2)
        model = build("v1", seed)
        history = fit(model, *loaders, config, device, progress=False)
        loss, accuracy = evaluate(model, loaders[0].unaugmented(), device)
        history.clean_train = {"loss": loss, "accuracy": accuracy}
        save_weights(model, path, "v1", seed=seed, accuracy=history.final_accuracy)
        runs[seed] = history, path.read_bytes()
    return runs


def assert_equal(folder, undisturbed, seeds=SEEDS):
    """The folder holds just these runs, equal to the undisturbed ones but for times and commit."""
    names = {f"v1-{seed}{ending}" for seed in seeds for ending in (".json", ".safetensors")}
    assert {path.name for path in folder.iterdir()} == names
    for seed in seeds:
        run, (expected, weights) = History.load(folder / f"v1-{seed}.json"), undisturbed[seed]
        assert re.fullmatch(r"[0-9a-f]{40}\+?|unknown", run.environment.pop("commit"))
        assert without_seconds(run) == without_seconds(expected)
        assert asdict(run) | {"epochs": []} == asdict(expected) | {"epochs": []}
        assert (folder / f"v1-{seed}.safetensors").read_bytes() == weights


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler with two workers, as docs/environment.md has them."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    variables = {"PYTHONPATH": ".", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}

    def dask(*arguments):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        call = [sys.executable, "-m", "dask", *arguments]
        return subprocess.Popen(call, env=os.environ | variables, cwd=PROJECT, **quiet)

    place = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0"]
    processes = [dask("scheduler", *place)]
    wait_for(lambda: file.exists() and file.stat().st_size)
    address = json.loads(file.read_text())["address"]
    processes.append(dask("worker", address, "--nthreads", "1", "--nworkers", "2"))
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield address
    for process in reversed(processes):
        process.kill()
        process.wait(60)


def epochs_in(checkpoint):
    return checkpoint.exists() and load_checkpoint(checkpoint)["history"]["epochs"]


@pytest.mark.slow
def test_missing_runs_equal_fits_present_ones_are_left_and_one_that_fails_stops_no_other(
    folder, undisturbed, scheduler, monkeypatch, capsys
):
    undisturbed[47][0].save(folder / "old_name.json")
    wild = Experiment(("none",), replace(CONFIG, learning_rate=1e30), folder / "wild", (1, 2))
    monkeypatch.setitem(EXPERIMENTS, "wild", wild)
    save_checkpoint(folder / "wild" / "none-2.pt", {"identity": {"network": "another"}})
    present = [folder / "old_name.json", folder / "wild" / "none-2.pt"]
    before = [path.read_bytes() for path in present]
    with pytest.raises(RuntimeError, match=r"^1 of 3 runs failed; none-2: the .*\.$"):
        train("wild", "small", scheduler=scheduler)
    output = capsys.readouterr().out
    assert f"1 of 2 runs of small are missing from {folder}\n" in output
    accuracy = undisturbed[48][0].final_accuracy
    assert f"v1 seed 48  {accuracy:.2f}%  finished after 2 epochs\n" in output
    assert "none seed 1  diverged after 0 epochs\n" in output
    assert History.load(folder / "wild" / "none-1.json").status == "diverged"
    with monkeypatch.context() as patch:
        for name in ("small", "wild"):
            patch.delitem(EXPERIMENTS, name)
        [row] = load(folder / "wild").runs.to_dict("records")
    assert row["status"] == "diverged" and "final" not in row  # and no other seed in its place
    assert re.search("none-2: the checkpoint .* belongs to another run", output)
    assert [path.read_bytes() for path in present] == before
    command.main(["run", "small"])
    assert capsys.readouterr().out == f"all 2 runs of small are in {folder}\n"
    present[0].unlink()
    wild.folder.rename(folder.parent / "wild")
    assert_equal(folder, undisturbed, [48])


@pytest.mark.slow
def test_validation_measures_on_held_out_writers(folder, mnist):
    train(seeds=[47], jobs=1, validation=True)
    run, held_out = History.load(folder / "v1-47.json"), mnist.validation_split()
    assert run.data == make_loaders(held_out.subset(IMAGES), CONFIG)[0].checksum
    errors = len(run.misclassified) / len(held_out.test_labels)
    assert run.final_accuracy == pytest.approx(100 * (1 - errors))


@pytest.mark.slow
def test_a_study_that_is_broken_off_ends_its_processes_and_is_resumed(
    folder, undisturbed, scheduler
):
    def start(seed):
        """A study in a terminal, when this seed has an epoch; its processes, and that epoch."""
        options = {"cwd": PROJECT, "encoding": "utf-8", "dimensions": (40, 120)}
        options["preexec_fn"] = interruptible
        terminal = pexpect.spawn(sys.executable, ["-c", STUDY, str(folder)], timeout=60, **options)
        [epoch] = wait_for(lambda: epochs_in(folder / f"v1-{seed}.pt"))[:1]
        terminal.expect(r"\d/4 \[\d\d:\d\d<\d\d:\d\d,")  # the bar, with the time left
        return terminal, psutil.Process(terminal.pid).children(recursive=True), epoch

    terminal, processes, kept = start(47)
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.before.splitlines()[-1] == "interrupted; run again to resume."
    assert not re.search("Traceback|rror|distributed|leaked", terminal.before), terminal.before
    assert terminal.exitstatus == 1
    assert processes and not psutil.wait_procs(processes, timeout=20)[1]
    terminal, processes, more = start(48)
    first = (folder / "v1-47.json").read_bytes()
    terminal.kill(signal.SIGKILL)
    assert processes and not psutil.wait_procs(processes, timeout=20)[1]
    terminal.close()
    train(scheduler=scheduler)
    assert (folder / "v1-47.json").read_bytes() == first
    assert_equal(folder, undisturbed)
    epochs = [History.load(folder / f"v1-{seed}.json").epochs[0] for seed in SEEDS]
    assert epochs == [kept, more]  # the seconds, too: they were not trained again


@pytest.mark.slow
def test_a_run_survives_a_dead_worker_and_ends_in_a_sentence_after_two(
    folder, undisturbed, scheduler
):
    with ThreadPoolExecutor() as pool, distributed.Client(scheduler) as client:

        def busy():
            pids = client.run(os.getpid, on_error="ignore")
            return [pids[w] for w, keys in client.processing().items() if keys and w in pids]

        study = pool.submit(train, seeds=[47], scheduler=scheduler)
        [kept] = wait_for(lambda: epochs_in(folder / "v1-47.pt"))
        for _ in range(2):
            [pid] = wait_for(busy)
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"1 of 1 runs failed; v1-47: several workers died"):
            study.result()
    train(seeds=[47], scheduler=scheduler)
    assert_equal(folder, undisturbed, [47])
    assert History.load(folder / "v1-47.json").epochs[0] == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("huge", "there is no experiment 'huge'; choose from page, original, fast-2, "),
        ("small --seeds 0", "seeds is 0; expected at least 1"),
        ("small --jobs 0", "jobs is 0; expected at least 1"),
        ("small --scheduler nonsense", "no Dask scheduler with a worker answers at nonsense"),
        ("small --scheduler tcp://127.0.0.1:9", "no Dask scheduler with a worker answers at tcp"),
    ],
)
def test_bad_arguments_are_one_sentence(monkeypatch, arguments, message):
    monkeypatch.setattr(runner, "SECONDS", 1)
    with pytest.raises(SystemExit) as ended:
        command.main(["run", *arguments.split()])
    assert message in str(ended.value) and "\n" not in str(ended.value)


@pytest.mark.parametrize("other", [{"config": {"epochs": 3}}, {"network": "v2"}, None])
def test_a_foreign_file_in_the_folder_is_refused_and_left_alone(folder, other):
    folder.mkdir()
    path = folder / "v1-47.json"
    fields = {"seed": 47, "config": {"epochs": 2}} | (other or {})
    history_of(**fields).save(path) if other else path.write_text("{")
    before = path.read_bytes()
    reason = "a run by another network or config" if other else "no training history"
    with pytest.raises(SystemExit, match=f"{path} holds {reason}"):
        command.main(["run", "small"])
    assert list(folder.iterdir()) == [path] and path.read_bytes() == before


def test_runs_go_seed_by_seed_to_no_more_processes_than_runs(monkeypatch):
    """So that the runs of a seed come from one processor, as the protocol has it."""
    calls = []
    monkeypatch.setattr(runner, "_dask", lambda *where: contextlib.nullcontext(where))
    monkeypatch.setattr(runner, "_train", lambda *call: calls.append(call))
    monkeypatch.setitem(EXPERIMENTS, "small", replace(EXPERIMENTS["page"], networks=("v1", "v2")))
    monkeypatch.setattr(runner, "_present", lambda *_: {(1, "v1")})
    monkeypatch.setattr(runner, "_minutes", lambda *_: 1.0)
    train(jobs=5, seeds=[2, 1])
    [(runs, where)] = calls
    assert [(run.network, run.config.seed) for run in runs] == [("v1", 2), ("v2", 2), ("v2", 1)]
    assert where == (None, 3)


@pytest.mark.slow
def test_nothing_is_served_to_other_machines():
    process = psutil.Process()
    others = process.children(recursive=True)
    with runner._dask(None, 1):
        ours = [process, *(p for p in process.children(recursive=True) if p not in others)]
        connections = [c for p in ours for c in p.net_connections("inet") if c.status == "LISTEN"]
    assert connections and {c.laddr.ip for c in connections} <= {"127.0.0.1", "::1"}


def test_the_recorded_commit_is_this_projects_and_marks_what_differs(tmp_path, monkeypatch):
    def git(folder, *arguments):
        call = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", folder, *arguments]
        return subprocess.check_output(call, text=True).strip()

    root = tmp_path / "project"
    (root / "study").mkdir(parents=True)
    monkeypatch.setattr(runner, "__file__", f"{root}/study/runner.py")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "another's")
    assert runner._commit() == "unknown"  # a copy inside another repository
    git(root, "init", "-q")
    (root / "file").write_text("one")
    git(root, "add", "file")
    git(root, "commit", "-q", "-m", "ours")
    commit = git(root, "rev-parse", "HEAD")
    assert runner._commit() == commit
    (root / "file").write_text("another")
    assert runner._commit() == f"{commit}+"
    monkeypatch.setenv("PATH", "")
    assert runner._commit() == "unknown"
