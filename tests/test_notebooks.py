"""The notebooks: a quick run of each, and what is committed against VARIANTS and results/."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest

from DataPipeline import load_mnist, make_loaders
from helpers.config import TrainingConfig
from helpers.history import History
from models import VARIANTS, count_parameters
from study.one_cycle import RECIPE, goal_runs, goal_table
from tests.helpers import CPU, PROJECT, build, without_seconds
from TrainingHelper import fit

NOTEBOOKS = {
    "v1": "MNIST_Classifier_v1.ipynb",
    "v2": "MNIST_Classifier_v2.ipynb",
    "final": "MNIST_Classifier_Final.ipynb",
    "one_cycle": "MNIST_Classifier_OneCycle.ipynb",
}
CONFIGS = {name: TrainingConfig() for name in NOTEBOOKS} | {"one_cycle": RECIPE.config(6)}
EPOCHS, IMAGES = 2, 1024  # of a quick run here
each_notebook = pytest.mark.parametrize("name", list(NOTEBOOKS))
each_variant = pytest.mark.parametrize("name", ["v1", "v2", "final"])


def variant_of(name):
    return RECIPE.variant if name == "one_cycle" else name


def committed(name):
    return nbformat.read(PROJECT / NOTEBOOKS[name], as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def shown(notebook, mimetype):
    """All outputs of a type as text; stream output counts as text/plain."""
    for output in outputs(notebook):
        if output.output_type == "stream" and mimetype == "text/plain":
            yield output.text
        elif mimetype in output.get("data", {}):
            yield output["data"][mimetype]


def run_notebook(name, target, **parameters):
    """Execute a notebook; as the quick run is unless parameters are given."""
    parameters = parameters or {"EPOCHS": EPOCHS, "TRAIN_IMAGES": IMAGES, "OUT_DIR": target.parent}
    command = [sys.executable, "-m", "helpers.execute", PROJECT / NOTEBOOKS[name], "--to", target]
    command += [f"{name}={value}" for name, value in parameters.items()]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def guarded_files():
    """What a quick run must leave alone, with its contents."""
    patterns = ("*.ipynb", "results/**/*", "checkpoints/*")
    paths = [path for pattern in patterns for path in PROJECT.glob(pattern)]
    return {path: path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture(scope="module")
def quick(mnist, tmp_path_factory):
    """The notebooks, executed on a few training images for two epochs, two at a time."""
    folder = tmp_path_factory.mktemp("quick")
    before = guarded_files()

    def run(name):
        done = run_notebook(name, folder / NOTEBOOKS[name])
        assert done.returncode == 0, done.stderr
        return nbformat.read(folder / NOTEBOOKS[name], as_version=4)

    with ThreadPoolExecutor(2) as pool:
        notebooks = dict(zip(NOTEBOOKS, pool.map(run, NOTEBOOKS), strict=True))
    assert guarded_files() == before
    return folder, notebooks


@each_notebook
def test_a_quick_run_leaves_its_history_where_it_was_told_and_claims_nothing(quick, name):
    folder, notebooks = quick
    history = History.load(folder / f"{name}.json")
    assert history.variant == variant_of(name) and history.seed == 42
    assert history.status == "finished" and len(history.epochs) == EPOCHS
    check_outputs(notebooks[name], history)
    told = "".join(shown(notebooks[name], "text/markdown"))
    assert "A quick run is compared with nothing" in told and "points" not in told


def test_run_all_trains_again_after_a_finished_run_and_resumes_after_a_crash(quick):
    folder, _ = quick
    assert not (folder / "v1.pt").exists()
    expected = History.load(folder / "v1.json")

    def crash(history):
        raise KeyboardInterrupt

    config = TrainingConfig(epochs=EPOCHS)
    loaders = make_loaders(load_mnist(PROJECT / "data").first(IMAGES), config, num_workers=0)
    broken = fit(build("v1"), *loaders, config, CPU, folder / "v1.pt", progress=crash)
    assert len(broken.epochs) == 1
    again = run_notebook("v1", folder / "again.ipynb")
    assert again.returncode == 0, again.stderr
    printed = "".join(shown(nbformat.read(folder / "again.ipynb", as_version=4), "text/plain"))
    assert "v1.pt holds this run up to epoch 1: it resumes with 2" in printed
    assert without_seconds(History.load(folder / "v1.json")) == without_seconds(expected)
    assert not (folder / "v1.pt").exists()


@pytest.mark.parametrize(
    "parameters",
    [
        {"EPOCHS": 1},
        {"EPOCHS": 1, "OUT_DIR": "results/runs"},
        {"OUT_DIR": "results/../results/new"},
    ],
)
def test_a_run_that_does_not_belong_into_results_is_refused(mnist, tmp_path, parameters):
    before = guarded_files()
    done = run_notebook("v1", tmp_path / "v1.ipynb", **parameters)
    assert done.returncode != 0 and "results/ is for full runs" in done.stderr
    assert guarded_files() == before


def check_outputs(notebook, history):
    """Executed from top to bottom without an error, and fit to be read on GitHub."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    found = outputs(notebook)
    assert {output.output_type for output in found} == {"stream", "display_data", "execute_result"}
    assert all(output.name == "stdout" for output in found if output.output_type == "stream")
    types = {key for output in found for key in output.get("data", {})}
    assert types == {"text/plain", "text/markdown", "image/png"}
    assert "widgets" not in notebook.metadata
    figures = 6 if history.variant in ("v1", "v2") else 7  # a picture read; others' accuracies
    assert len(list(shown(notebook, "image/png"))) == figures
    printed = "\n".join(shown(notebook, "text/plain"))
    assert "\r" not in printed and "\x1b" not in printed and len(printed.splitlines()) < 150

    total = history.config["epochs"]
    assert re.findall(r"^epoch .* s$", printed, re.MULTILINE) == [
        f"epoch {epoch:2}/{total}  train loss {r['train_loss']:.4f}, {r['train_accuracy']:5.2f} %  "
        f"test loss {r['test_loss']:.4f}, {r['test_accuracy']:5.2f} %  "
        f"lr {r['learning_rate']:.0e}  {r['seconds']:.1f} s"
        for epoch, r in enumerate(history.epochs, 1)
    ]


@each_variant
def test_committed_notebooks_are_executed_and_show_what_results_hold(name):
    notebook = committed(name)
    history = History.load(PROJECT / "results" / f"{name}.json")
    check_outputs(notebook, history)
    published, parameters = VARIANTS[name].published, count_parameters(VARIANTS[name].network())
    table, conclusion = shown(notebook, "text/markdown")
    assert table == history.beside(published, parameters)
    assert conclusion == history.conclusion(published, 10_000)
    images = [line for line in shown(notebook, "text/plain") if "train_images" in line]
    assert "(60000, 1, 28, 28)" in images[0]


def test_the_committed_one_cycle_notebook_shows_what_results_hold(monkeypatch):
    monkeypatch.chdir(PROJECT)
    notebook, history = committed("one_cycle"), History.load("results/one_cycle.json")
    check_outputs(notebook, history)
    table, conclusion = shown(notebook, "text/markdown")
    assert table == goal_table(goal_runs())
    assert f"after 6 epochs at {history.final_accuracy:.2f} %" in conclusion


@each_notebook
def test_committed_results_are_whole_runs_by_their_protocol_as_good_as_asked(name):
    history = History.load(PROJECT / "results" / f"{name}.json")
    assert history.variant == variant_of(name) and history.seed == 42
    assert history.config == CONFIGS[name].as_dict()
    assert history.status in ("finished", "early stopping")
    assert (len(history.epochs) == CONFIGS[name].epochs) == (history.status == "finished")
    assert history.environment["torch"] == "2.8.0"
    least = {"v1": 99.1, "v2": 99.1, "final": 99.4, "one_cycle": 99.3}
    assert history.final_accuracy >= least[name]


@each_notebook
def test_committed_notebooks_are_small_and_carry_nothing_of_the_machine(name):
    path = PROJECT / NOTEBOOKS[name]
    assert path.stat().st_size < 1_000_000
    notebook = committed(name)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel}
    assert all(cell.metadata.keys() <= {"tags"} for cell in notebook.cells)
    for text in [cell.source for cell in notebook.cells] + list(shown(notebook, "text/plain")):
        assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\", text)


@each_notebook
def test_the_parameters_cell_holds_the_full_run(name):
    [cell] = [c for c in code_cells(committed(name)) if "parameters" in c.metadata.get("tags", [])]
    full = f'EPOCHS = {CONFIGS[name].epochs}\nTRAIN_IMAGES = 60_000\nOUT_DIR = "results"'
    assert cell.source == full
