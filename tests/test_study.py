"""The study: its arithmetic, its verdicts, its report, and runs that are broken off."""

import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from math import isnan, log, sqrt
from pathlib import Path

import numpy as np
import pytest

import models
import study
import Visualization
from DataPipeline import make_loaders
from models import SmallMNISTNet4Block
from study import (
    FINAL,
    FIRST_99,
    FIRST_99_OR_NEVER,
    LOG_FIRST_99,
    Check,
    Summary,
    summarise,
    verdict,
)
from TrainingHelper import History, TrainingConfig, fit, set_seed

PROJECT = Path(__file__).resolve().parent.parent
TIMEOUT = 120  # seconds for a few runs of two epochs on IMAGES images
IMAGES = 320
SMALL = {"epochs": 2, "train_images": IMAGES}


def history(variant, seed, accuracies, status="finished", **config):
    """A run with these test accuracies; its train accuracies lie 1 point below."""
    epochs = [
        {
            "train_loss": 0.1,
            "test_loss": 0.05,
            "train_accuracy": accuracy - 1,
            "test_accuracy": accuracy,
            "learning_rate": 0.001,
            "seconds": 1.0,
        }
        for accuracy in accuracies
    ]
    environment = {"python": "3", "device": "cpu", "threads": 1}
    return History(
        variant, seed, status, asdict(TrainingConfig(seed, **config)), environment, epochs
    )


def runs_of(**figures):
    """Runs by (variant, seed) from lists of final accuracies, seeds from 42 on."""
    return {
        (variant, seed): history(variant, seed, [98.0, accuracy])
        for variant, accuracies in figures.items()
        for seed, accuracy in enumerate(accuracies, 42)
    }


# --- statistics -----------------------------------------------------------------------------------

# The 97.5 % points of Student's t as printed tables have them, by degrees of freedom.
T_TABLE = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}


@pytest.mark.parametrize("freedom", T_TABLE)
def test_the_interval_is_students(freedom):
    values = [99 + (7 * k % 5) / 10 for k in range(freedom + 1)]
    found = summarise(values)
    half = T_TABLE[freedom] * statistics.stdev(values) / sqrt(len(values))
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.sd == pytest.approx(statistics.stdev(values))
    assert found.high - found.mean == pytest.approx(half, rel=1e-3)
    assert found.mean - found.low == pytest.approx(half, rel=1e-3)


def test_the_interval_of_five_covers_the_mean_19_times_in_20():
    draws = np.random.default_rng(0).normal(99.4, 0.05, size=(2000, 5))
    covered = sum(low <= 99.4 <= high for *_, low, high in map(summarise, draws))
    assert abs(covered / 2000 - 0.95) < 0.02  # four standard errors


def test_no_interval_is_made_of_one_value_or_none():
    one, none = summarise([99.4]), summarise([])
    assert one[:2] == (1, 99.4) and isnan(one.sd) and isnan(one.low) and isnan(one.high)
    assert none.n == 0 and isnan(none.mean)


@pytest.mark.parametrize(("sd", "distance"), [(0.05, 0.085), (1.0, 1.0), (0.3, 0.01), (0, 1)])
def test_as_many_runs_as_needed_give_a_shorter_interval_and_one_fewer_does_not(sd, distance):
    n = study.runs_needed(sd, distance)

    def half(runs):  # of an interval of so many values, half at either side, with this sd
        found = summarise([0.0] * (runs % 2) + [-1.0, 1.0] * (runs // 2))
        return (found.high - found.low) / 2 * sd / found.sd

    assert n >= 2 and half(n) < distance
    assert n == 2 or half(n - 1) >= distance


@pytest.mark.parametrize("distance", [0.0, -1.0, float("nan")])
def test_no_number_of_runs_resolves_a_distance_of_nothing(distance):
    with pytest.raises(ValueError, match="distance is"):
        study.runs_needed(0.1, distance)


def test_differences_are_taken_seed_by_seed_where_both_are_there():
    runs = runs_of(v1=[99.1, 99.2, 99.3], v2=[99.0, 99.4])
    assert study.paired(runs, {"v1": 1, "v2": -1}, FINAL) == pytest.approx([0.1, -0.2])
    runs["v2", 44] = history("v2", 44, [98.0, 98.9])
    assert len(study.paired(runs, {"v1": 1, "v2": -1}, FINAL)) == 3


def test_a_run_that_never_reached_99_counts_as_one_epoch_after_the_last():
    runs = runs_of(v1=[99.1, 99.2], v2=[99.0, 98.9])
    assert study.paired(runs, {"v1": 1, "v2": -1}, FIRST_99) == [0]
    assert study.paired(runs, {"v1": 1, "v2": -1}, FIRST_99_OR_NEVER) == [0, 2 - 21]
    assert study.paired(runs, {"v1": 1, "v2": -1}, LOG_FIRST_99)[1] == pytest.approx(log(2 / 21))


def test_the_interaction_is_the_difference_of_the_two_differences():
    weights = study.CONTRASTS["interaction"]
    runs = runs_of(v1=[99.1], v2=[99.2], v1_bn=[99.6], v2_bn=[99.4])
    assert study.paired(runs, weights, FINAL) == pytest.approx([(99.6 - 99.4) - (99.1 - 99.2)])


# --- verdicts -------------------------------------------------------------------------------------

SIZE = Check({"v1": 1, "v2": -1}, FIRST_99, 0, 2)
NEGATIVE = Check({"v2": 1, "v1": -1}, FIRST_99, 0, -2)
DIRECTION = Check({"v1": 1}, FINAL, 99.4, 99.36, size=False)


@pytest.mark.parametrize(
    ("check", "low", "high", "expected", "why"),
    [
        (SIZE, 1.5, 2.5, "supported", "excludes 0 and contains"),
        (SIZE, -0.5, 2.5, "not decidable", "contains both 0 and"),
        (SIZE, -0.5, 0.5, "contradicted", "contains 0 and excludes"),
        (SIZE, 0.5, 1.5, "contradicted", "smaller than published"),
        (SIZE, 2.5, 3.5, "contradicted", "larger than published"),
        (SIZE, -2.5, -1.5, "contradicted", "other side of 0"),
        (NEGATIVE, -2.5, -1.5, "supported", "excludes 0 and contains"),
        (NEGATIVE, 1.5, 2.5, "contradicted", "other side of 0"),
        (NEGATIVE, -1.5, -0.5, "contradicted", "smaller than published"),
        (DIRECTION, 99.30, 99.38, "supported", "claimed side of 99.4"),
        (DIRECTION, 99.20, 99.30, "supported", "claimed side of 99.4"),
        (DIRECTION, 99.42, 99.50, "contradicted", "other side of 99.4"),
        (DIRECTION, 99.30, 99.50, "not decidable", "contains both 99.4 and"),
        (DIRECTION, 99.38, 99.46, "not decidable", "contains 99.4; about"),
    ],
)
def test_a_verdict_follows_from_where_the_interval_lies(check, low, high, expected, why):
    mean = (low + high) / 2
    said, reason = verdict(check, Summary(5, mean, (high - mean) * sqrt(5) / 2.776, low, high))
    assert said == expected and why in reason


def test_the_verdict_of_a_ratio_speaks_of_1():
    check = Check({"v1": 1, "v1_bn": -1}, LOG_FIRST_99, 0, log(4))
    said, why = verdict(check, Summary(5, log(1.1), 0.1, log(0.9), log(1.3)))
    assert said == "contradicted" and "contains 1 and" in why


def test_the_runs_said_to_decide_do():
    """With as many runs of the same spread, no interval can contain both values."""
    found = Summary(5, 1.0, 1.5, -0.86, 2.86)
    n = int(re.search(r"about (\d+) runs", verdict(SIZE, found)[1])[1])
    spread = np.resize([-1.0, 1.0], n)
    for mean in np.linspace(-3, 5, 81):
        values = mean + 1.5 * spread / spread.std(ddof=1)
        assert verdict(SIZE, summarise(values))[0] in ("supported", "contradicted")


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_runs_decide_nothing(n):
    assert verdict(SIZE, summarise([2.0] * n))[0] == "not decidable"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported"], "supported"),
        (["supported", "not decidable"], "not decidable"),
        (["supported", "not decidable", "contradicted"], "contradicted"),
    ],
)
def test_a_claim_stands_or_falls_with_its_deciding_checks(verdicts, expected):
    assert study.overall(verdicts) == expected


def published_differences():
    """Each check whose published value follows from the published figures of its variants."""
    figure = {
        FINAL: "final_accuracy",
        FIRST_99: "first_epoch_at_99",
        FIRST_99_OR_NEVER: "first_epoch_at_99",
        study.TEST_1: "epoch_1_test_accuracy",
        study.TRAIN_1: "epoch_1_train_accuracy",
    }
    for check in itertools.chain(*study.CLAIMS.values()):
        if check.measure in figure and set(check.weights) <= set(models.VARIANTS):
            yield check, figure[check.measure]


def test_the_published_values_are_those_of_the_published_figures():
    checks = list(published_differences())
    assert len(checks) >= 10
    for check, name in checks:
        figures = {v: getattr(models.VARIANTS[v].published, name) for v in check.weights}
        assert check.claimed == pytest.approx(sum(w * figures[v] for v, w in check.weights.items()))


def test_every_claim_has_a_check_that_decides():
    assert all(any(check.decides for check in checks) for checks in study.CLAIMS.values())


# --- report ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """25 made-up runs, ragged, one of which never reaches 99 %."""
    generator = np.random.default_rng(1)
    for variant, seed in itertools.product(study.VARIANTS, study.SEEDS):
        epochs = 20 if generator.random() < 0.6 else 15
        accuracies = 99.4 - 3 / np.arange(1, epochs + 1) + generator.normal(0, 0.05, epochs)
        if (variant, seed) == ("v1", 44):
            accuracies -= 0.6
        status = "finished" if epochs == 20 else "early stopping"
        run = history(variant, seed, accuracies.round(2).tolist(), status)
        run.save(tmp_path / "runs" / f"{variant}-{seed}.json")
    return tmp_path / "runs"


def rows_of(text, start):
    """The cells of the first table row that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_states_each_variants_mean_and_interval(folder):
    text = study.compare(study.load_runs(folder))
    for place, variant in enumerate(study.VARIANTS, 1):
        finals = [
            json.loads(path.read_text())["epochs"][-1]["test_accuracy"]
            for path in sorted(folder.glob(f"{variant}-*.json"))
        ]
        half = 2.7764 * statistics.stdev(finals) / sqrt(5)
        mean = statistics.fmean(finals)
        stated = rows_of(text, "**final test accuracy, %**")[place]
        numbers = [float(number) for number in re.findall(r"[\d.]+", stated)]
        assert numbers == pytest.approx([mean, mean - half, mean + half], abs=6e-4)


def test_the_report_pairs_by_seed(folder):
    runs = study.load_runs(folder)
    pairs = [runs["v1", s].final_accuracy - runs["v2", s].final_accuracy for s in study.SEEDS]
    cell = rows_of(study.compare(runs), "v1 - v2 (")[1]
    assert cell.startswith(f"{statistics.fmean(pairs):+.3f} [") and cell.endswith("n = 5")


def test_the_report_counts_the_runs_that_reached_99(folder):
    text = study.compare(study.load_runs(folder))
    assert rows_of(text, "reached by")[1:] == ["4 of 5"] + 4 * ["5 of 5"]
    assert rows_of(text, "[v1-44]")[3] == "not reached"


def test_the_report_counts_the_runs_that_reached_99_at_the_first_learning_rate():
    early, late = history("v1", 42, [99.0, 99.2]), history("v1", 43, [98.0, 99.2])
    for run in (early, late):
        run.epochs[1]["learning_rate"] = 0.0001
    text = study.compare({("v1", 42): early, ("v1", 43): late})
    assert rows_of(text, "reached before the learning rate first falls")[1] == "1 of 2"


def test_the_report_says_in_how_many_pairs_99_was_never_reached(folder):
    text = study.compare(study.load_runs(folder))
    assert "never reached in 1 of them" in rows_of(text, "**v1 - v2: first epoch")[-1]
    assert "never reached" not in rows_of(text, "v1_bn - v2_bn: first epoch")[-1]


def test_a_ratio_of_epochs_is_a_geometric_mean(folder):
    runs = study.load_runs(folder)
    ratios = [
        runs["v2", s].first_epoch_at_99 / runs["v2_bn", s].first_epoch_at_99 for s in study.SEEDS
    ]
    cell = rows_of(study.compare(runs), "**v2 / v2_bn:")[2]
    assert float(cell.split()[0]) == pytest.approx(statistics.geometric_mean(ratios), abs=6e-3)


def test_the_report_lists_every_run_once(folder):
    listed = re.findall(
        r"^\| \[(\S+)\]\(runs/(\S+)\.json\)", study.compare(study.load_runs(folder)), re.M
    )
    assert sorted(name for name, _ in listed) == sorted(path.stem for path in folder.iterdir())
    assert all(name == link for name, link in listed)


@pytest.mark.parametrize("kept", ["v1-42", "v*-42", "final-4[23]", "*-4[2345]"])
def test_the_report_makes_do_with_what_there_is(folder, tmp_path, kept):
    keep = set(folder.glob(f"{kept}.json"))
    for path in set(folder.iterdir()) - keep:
        path.unlink()
    study.report(folder, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert f"{len(keep)} runs" in text.splitlines()[0] and "nan" not in text


def test_the_report_draws_its_figures(folder, tmp_path):
    study.report(folder, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text()
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(pictures) == 2
    for picture in pictures:
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_every_run_is_in_both_figures(folder):
    runs = study.load_runs(folder)
    of = {v: [runs[v, s] for s in study.SEEDS] for v in study.VARIANTS}
    top, bottom = Visualization.every_run(of, summarise).axes
    drawn = [line.get_ydata() for line in top.lines if len(line.get_ydata()) == 5]
    assert [list(y) for y in drawn] == [[h.final_accuracy for h in of[v]] for v in of]
    [never] = [text for text in bottom.texts if "never" in text.get_text()]
    assert never.xy[1] == 21
    drawn = [line.get_ydata() for line in bottom.lines if len(line.get_ydata()) == 5]
    assert [list(y) for y in drawn] == [[h.first_epoch_at_99 or 21 for h in of[v]] for v in of]
    panels = Visualization.accuracy_by_epoch(of, summarise).axes[2:]
    for axes, histories in zip(panels, of.values(), strict=True):
        curves = [list(line.get_ydata()) for line in axes.lines]
        for run in histories:  # to its own end, however early
            assert [record["test_accuracy"] for record in run.epochs] in curves
            assert [record["train_accuracy"] for record in run.epochs] in curves


def test_means_by_epoch_end_with_the_shortest_run():
    long, short = history("v1", 42, [97.0, 98.0, 99.0]), history("v1", 43, [97.5, 98.5])
    figure = Visualization.accuracy_by_epoch({"v1": [long, short]}, summarise)
    assert list(figure.axes[0].lines[0].get_ydata()) == [97.25, 98.25]


def test_a_band_that_passes_100_is_cut_off_there(recwarn):
    runs = [history("v1", 42, [90.0, 99.9]), history("v1", 43, [99.0, 99.0])]
    Visualization.accuracy_by_epoch({"v1": runs}, summarise)._repr_png_()
    assert not recwarn.list


@pytest.mark.parametrize("figure", [Visualization.every_run, Visualization.accuracy_by_epoch])
@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "one or more runs"),
        ({"v1": []}, "one or more runs of each"),
        ({"v1": [history("v1", 42, [])]}, "an epoch or more"),
        ({"v9": [history("v9", 42, [99.0])]}, "no variant 'v9'"),
    ],
)
def test_figures_refuse_what_they_cannot_show(figure, runs, message):
    with pytest.raises(ValueError, match=message):
        figure(runs, summarise)


def damage(folder, kind):
    """Put a file that does not belong into a folder of runs; its name."""
    path = folder / "v1-42.json"
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "foreign":
        path = folder / "package.json"
        path.write_text('{"name": "leftpad"}')
    elif kind == "another run's name":
        path.write_bytes((folder / "v1-43.json").read_bytes())
    elif kind == "unknown variant":
        path = folder / "v9-42.json"
        history("v9", 42, [99.0]).save(path)
    elif kind == "interrupted":
        text = path.read_text().replace('"early stopping"', '"interrupted"')
        path.write_text(text.replace('"finished"', '"interrupted"'))
    return path.name


@pytest.mark.parametrize(
    "kind", ["damaged", "foreign", "another run's name", "unknown variant", "interrupted"]
)
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_file_that_is_no_run_of_the_study_ends_it_in_one_sentence(folder, command, kind):
    name = damage(folder, kind)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    out = folder.parent
    (out / "comparison.md").write_text("an earlier report")
    arguments = ["--out", str(out)] if command == "report" else []
    with pytest.raises(SystemExit) as ended:
        study.main([command, "--folder", str(folder), *arguments])
    assert name in str(ended.value) and "\n" not in str(ended.value)
    assert "move it away" in str(ended.value)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    assert (out / "comparison.md").read_text() == "an earlier report"


def test_runs_of_different_configs_are_not_compared(folder, tmp_path):
    history("v1", 42, [99.0], epochs=1).save(folder / "v1-42.json")
    with pytest.raises(ValueError, match="different configs"):
        study.report(folder, tmp_path)


def test_a_folder_without_runs_is_said_to_be_one(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        study.report(tmp_path, tmp_path)


def test_the_committed_report_is_that_of_the_committed_runs(tmp_path):
    study.report(PROJECT / "results" / "runs", tmp_path)
    committed = PROJECT / "results" / "comparison.md"
    assert (tmp_path / "comparison.md").read_bytes() == committed.read_bytes()
    for name in ("comparison.png", "comparison_curves.png"):
        assert (PROJECT / "results" / name).read_bytes().startswith(b"\x89PNG")


def test_the_committed_runs_are_whole_and_by_the_published_protocol():
    runs = study.load_runs(PROJECT / "results" / "runs")
    assert set(runs) == set(itertools.product(study.VARIANTS, study.SEEDS))
    for (_, seed), run in runs.items():
        assert run.config == asdict(TrainingConfig(seed))
        assert len(run.epochs) == 20 or run.status == "early stopping"


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_the_study_and_the_notebooks_agree_to_the_bit(variant):
    """Without the times, and where they were made with the same versions on the same machine."""
    there = History.load(PROJECT / "results" / f"{variant}.json")
    here = History.load(PROJECT / "results" / "runs" / f"{variant}-{there.seed}.json")
    if there.environment == here.environment:
        assert without_times(there) == without_times(here)


# --- runs -----------------------------------------------------------------------------------------


def without_times(run):
    """A history as a dict, without the seconds."""
    content = asdict(run)
    for record in content["epochs"]:
        del record["seconds"]
    return content


def histories(folder):
    return {name: without_times(run) for name, run in study.load_runs(folder).items()}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Where the command is meant to be called: data/ is there."""
    monkeypatch.chdir(PROJECT)


@pytest.fixture(scope="module")
def undisturbed(mnist):
    """v1 and v2_bn with seeds 42 and 43, each trained in this process by the notebooks' steps."""
    found = {}
    for variant, seed in itertools.product(("v1", "v2_bn"), (42, 43)):
        config = TrainingConfig(seed, epochs=SMALL["epochs"])
        loaders = make_loaders(mnist.first(IMAGES), config, num_workers=2)
        set_seed(seed)
        model = SmallMNISTNet4Block(*study.VARIANTS[variant])
        run = fit(model, *loaders, config, "cpu", progress=False)
        run.variant = variant
        found[variant, seed] = without_times(run)
    return found


ARGUMENTS = {"variants": ["v1", "v2_bn"], "seeds": [42, 43], **SMALL}


@pytest.fixture
def start():
    """A function that calls study.run in a process, and group of processes, of its own."""
    started = []

    def start(folder, **arguments):
        call = f"import study; study.run(folder={str(folder)!r}, **{ARGUMENTS | arguments!r})"
        process = subprocess.Popen(
            [sys.executable, "-c", call],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=PROJECT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # all of the group have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition):
    """Wait until condition() is true; its value."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return value


@pytest.mark.slow
def test_runs_side_by_side_are_those_of_the_notebooks(tmp_path, undisturbed):
    study.run(folder=tmp_path, jobs=2, **ARGUMENTS)
    assert histories(tmp_path) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "v1-42.json",
        "v1-43.json",
        "v2_bn-42.json",
        "v2_bn-43.json",
    ]


@pytest.mark.slow
def test_only_missing_runs_are_trained(tmp_path, capsys):
    study.run(["v1"], [42], tmp_path, jobs=1, **SMALL)
    before = (tmp_path / "v1-42.json").read_bytes()
    capsys.readouterr()
    study.run(["v1"], [42, 43], tmp_path, jobs=1, **SMALL)
    assert "seed 43" in (said := capsys.readouterr().out) and "seed 42" not in said
    assert (tmp_path / "v1-42.json").read_bytes() == before
    study.run(["v1"], [42, 43], tmp_path, scheduler="tcp://127.0.0.1:9", **SMALL)
    assert "all 2 runs are in" in capsys.readouterr().out  # and nobody was asked for more


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
    study.run(folder=tmp_path, jobs=2, **ARGUMENTS)
    assert {path: path.read_bytes() for path in whole} == whole
    assert histories(tmp_path) == undisturbed
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
def test_a_broken_run_goes_on_from_its_checkpoint(tmp_path, undisturbed, start):
    """A killed worker ends the study in one sentence; the next call trains no epoch twice."""
    process = start(tmp_path, jobs=2, variants=["v1"], seeds=[42])
    checkpoint = tmp_path / "v1-42.pt"
    size = wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_size)
    wait_for(lambda: checkpoint.stat().st_size != size)  # an epoch longer
    [worker] = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert "a worker process died" in said and not list(tmp_path.glob("*.json"))
    study.run(["v1"], [42], tmp_path, jobs=1, **SMALL)
    assert histories(tmp_path) == {("v1", 42): undisturbed["v1", 42]}


def children(pid):
    """The worker processes among a process's children: those that have loaded torch."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if "torch" in Path(f"/proc/{child}/maps").read_text()]


def test_a_run_of_another_config_is_left_alone(tmp_path):
    history("v1", 42, [99.0], epochs=1).save(tmp_path / "v1-42.json")
    before = (tmp_path / "v1-42.json").read_bytes()
    with pytest.raises(ValueError, match=r"v1-42\.json holds a run with another config"):
        study.run(folder=tmp_path, **ARGUMENTS)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "v9"], "no variant 'v9'; choose of v1, v2, v1_bn, v2_bn, final"),
        (["--variants", "v1", "v1"], "variant v1 is named twice"),
        (["--seeds", "42", "42"], "seed 42 is named twice"),
        (["--jobs", "0"], "jobs is 0; expected at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence_and_no_run(tmp_path, arguments, message):
    folder = tmp_path / "runs"
    with pytest.raises(SystemExit, match=message) as ended:
        study.main(["run", "--folder", str(folder), *arguments])
    assert "\n" not in str(ended.value) and not folder.exists()


@pytest.mark.parametrize("seeds", [["x"], ["4.2"], ["-1"], ["4294967296"], ["42,43"]])
def test_a_seed_list_that_is_not_one_is_refused(tmp_path, capsys, seeds):
    with pytest.raises(SystemExit):
        study.main(["run", "--folder", str(tmp_path / "runs"), "--seeds", *seeds])
    said = capsys.readouterr().err
    assert f"{seeds[0]!r} is no seed; expected integers from 0 to 2**32 - 1" in said
    assert not (tmp_path / "runs").exists()


# --- on a cluster ---------------------------------------------------------------------------------


@pytest.fixture
def distributed():
    return pytest.importorskip("distributed", reason="needs requirements-dask.txt")


@pytest.fixture
def cluster(distributed):
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
    study.run(["v1"], [42], tmp_path, scheduler=cluster.scheduler_address, **SMALL)
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
def dask(tmp_path, distributed):
    """A scheduler and a worker, started as the README says, but where this project is not.

    Their processes, and the address.
    """
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    at = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = subprocess.Popen([*dask, "scheduler", *at, "--port", "0"], **quiet)
    wait_for(lambda: file.exists() and file.stat().st_size)
    worker = subprocess.Popen([*dask, "worker", *at, "--nthreads", "1"], **quiet)
    yield scheduler, worker, json.loads(file.read_text())["address"]
    for process in (worker, scheduler):
        process.terminate()
        process.wait(TIMEOUT)


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_study_in_one_sentence(tmp_path, start, dask):
    scheduler, _, address = dask
    process = start(tmp_path / "runs", scheduler=address)
    wait_for(lambda: list((tmp_path / "runs").glob("*.json")))
    scheduler.kill()
    said, _ = process.communicate(timeout=TIMEOUT)
    assert f"the Dask scheduler at {address} is gone" in said.splitlines()[-1]


@pytest.mark.usefixtures("distributed")
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_an_unreachable_scheduler_is_one_sentence(tmp_path, monkeypatch, address):
    monkeypatch.setattr(study, "CLUSTER_SECONDS", 1)
    with pytest.raises(SystemExit) as ended:
        study.main(["run", "--folder", str(tmp_path), "--scheduler", address])
    assert str(ended.value).startswith(f"no Dask scheduler answers at {address}: start one")
    assert "\n" not in str(ended.value) and not list(tmp_path.iterdir())


def test_a_scheduler_without_workers_is_one_sentence(tmp_path, monkeypatch, distributed):
    monkeypatch.setattr(study, "CLUSTER_SECONDS", 1)
    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as empty,
        pytest.raises(SystemExit, match="has no worker: start some") as ended,
    ):
        address = empty.scheduler_address
        study.main(["run", "--folder", str(tmp_path), "--scheduler", address])
    assert "\n" not in str(ended.value)
