"""The notebooks: a quick run of each, and what is committed against VARIANTS and results/."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from DataPipeline import load_mnist, make_loaders
from helpers.address import write_address
from helpers.checkpoint import weights_digest
from helpers.config import PROTOCOLS, TrainingConfig, set_seed
from helpers.history import History, Interrupted
from helpers.weights import load_weights, save_run
from models import FINAL_AS_RUN, SETTINGS, count_parameters, identify
from study.one_cycle import RECIPE
from study.report import reproductions
from study.runs import FOLDERS, histories, load_runs
from study.tables import reproduced, reproduction
from tests.helpers import CPU, PROJECT, bits, build, history, same_bits, without_seconds
from TrainingHelper import fit

NOTEBOOKS = {
    "v1": "MNIST_Classifier_v1.ipynb",
    "v2": "MNIST_Classifier_v2.ipynb",
    "final": "MNIST_Classifier_Final.ipynb",
    "one_cycle": "MNIST_Classifier_OneCycle.ipynb",
    "final_as_run": "MNIST_Classifier_AsRun.ipynb",
}
CONFIGS = {
    **{name: PROTOCOLS["from the page"] for name in ("v1", "v2", "final")},
    "one_cycle": RECIPE.config(8),
    "final_as_run": PROTOCOLS["as run"],
}
VARIANT_OF = {"one_cycle": RECIPE.variant, "final_as_run": FINAL_AS_RUN}
FIGURES = {"v1": 6, "v2": 6, "final": 7, "one_cycle": 7, "final_as_run": 4}
# Each whose cells differ from the others' by more than a network; v1 and v2 have Final's.
KINDS = ("final", "one_cycle", "final_as_run")
EPOCHS, IMAGES = 2, 1024  # of a quick run here
each_notebook = pytest.mark.parametrize("name", list(NOTEBOOKS))


def variant_of(name):
    return VARIANT_OF.get(name, name)


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


def execute(*arguments):
    """What python -m helpers.execute printed."""
    command = [sys.executable, "-m", "helpers.execute", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_quickly(source, target):
    """A notebook, executed on a few training images for two epochs."""
    settings = [f"EPOCHS={EPOCHS}", f"TRAIN_IMAGES={IMAGES}", f"OUT_DIR={target.parent}"]
    execute(source, "--to", target, *settings)
    return nbformat.read(target, as_version=4)


def guarded_files():
    """What a quick run must leave alone, with its contents."""
    patterns, passing = ("*.ipynb", "results/**/*"), (".pt", ".lock", ".tmp")  # a study's at work
    paths = [path for pattern in patterns for path in PROJECT.glob(pattern)]
    return {p: p.read_bytes() for p in paths if p.suffix not in passing and p.is_file()}


@pytest.fixture(scope="module")
def quick(mnist, tmp_path_factory):
    """A quick run of every kind of notebook, two at a time."""
    folder = tmp_path_factory.mktemp("quick")
    before = guarded_files()
    with ThreadPoolExecutor(2) as pool:
        files = [NOTEBOOKS[name] for name in KINDS]
        runs = pool.map(lambda file: run_quickly(PROJECT / file, folder / file), files)
        notebooks = dict(zip(KINDS, runs, strict=True))
    assert guarded_files() == before
    return folder, notebooks


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_quick_run_leaves_its_history_where_it_was_told_and_claims_nothing(quick, name):
    folder, notebooks = quick
    history = History.load(folder / f"{name}.json")
    assert history.variant == variant_of(name) and history.seed == 42
    assert history.status == "finished" and len(history.epochs) == EPOCHS
    check_outputs(name, notebooks[name], history)
    told = "".join(shown(notebooks[name], "text/plain"))
    told += "".join(shown(notebooks[name], "text/markdown"))
    assert "A quick run is compared with nothing" in told and "standard errors" not in told


@pytest.mark.slow
def test_run_all_trains_again_after_a_finished_run_and_resumes_after_a_crash(quick):
    folder, _ = quick
    assert not (folder / "final.pt").exists()
    expected = History.load(folder / "final.json")

    def crash(history):
        raise KeyboardInterrupt

    config = TrainingConfig(epochs=EPOCHS)
    loaders = make_loaders(load_mnist(PROJECT / "data").first(IMAGES), config, num_workers=0)
    broken = fit(build(), *loaders, config, CPU, folder / "final.pt", progress=crash)
    with pytest.raises(Interrupted, match="with 1 of 2 epochs complete") as stop:
        broken.complete()
    assert stop.value._render_traceback_() == [str(stop.value)]
    again, path = committed("final"), folder / "again.ipynb"
    again.cells = again.cells[: 1 + again.cells.index(save_cell(again))]
    nbformat.write(again, path)
    printed = "".join(shown(run_quickly(path, path), "text/plain"))
    assert "final.pt holds this run up to epoch 1: it resumes with 2" in printed
    assert without_seconds(History.load(folder / "final.json")) == without_seconds(expected)
    assert not (folder / "final.pt").exists()


def save_cell(notebook):
    """The one that keeps the run."""
    [cell] = [cell for cell in code_cells(notebook) if cell.source.startswith("save_run(")]
    return cell


def cell_with(name, text):
    [source] = [cell.source for cell in code_cells(committed(name)) if text in cell.source]
    return source


@each_notebook
def test_the_network_that_a_notebook_writes_out_is_its_variants(name):
    """Layer by layer, and bit by bit."""
    namespace = {"config": CONFIGS[name], "set_seed": set_seed}
    layers = "from torch.nn import *\nfrom functools import partial\nfrom models import *\n"
    exec(layers + cell_with(name, "model = Network("), namespace)
    setting = CONFIGS[name].setting
    model, expected = namespace["model"], build(variant_of(name), setting=setting)
    for (place, layer), (there, other) in zip(
        model.named_modules(), expected.named_modules(), strict=True
    ):
        assert (place, repr(layer)) == (there, repr(other)), f"the layer {place} is not the same"
    assert identify(model) == (setting, variant_of(name))
    assert same_bits(bits(model), bits(expected))


def test_v2_is_v1_with_two_items_struck_out():
    lines = [cell_with(name, "model = Network(").splitlines() for name in ("v1", "v2")]
    changed = [(a, b) for a, b in zip(*lines, strict=True) if a != b]
    assert [a.replace(", Dropout2d(0.1)", "") for a, _ in changed] == [b for _, b in changed]
    assert len(changed) == 2


@pytest.mark.parametrize("name", ["v2", "final"])
def test_the_three_notebooks_differ_in_their_network_and_its_name_only(name):
    """And Final ends in a picture that it reads."""

    def rest(of):
        cells = [cell.source for cell in code_cells(committed(of))]
        cells.remove(cell_with(of, "model = Network("))
        if of == "final":
            cells.remove(cell_with(of, "from predict import"))
        text = "\n".join(cells).replace("from functools import partial\n", "")
        return re.sub(rf"\b{of}\b", "v1", text)

    assert rest(name) == rest("v1")


@each_notebook
def test_a_run_is_saved_by_what_was_run_and_not_by_what_is_asked(name, tmp_path):
    setting = CONFIGS[name].setting
    model = build(variant_of(name), setting=setting)
    short = history([98.0], variant_of(name), config={"setting": setting, "epochs": 1})
    short.weights, short.train_images = weights_digest(model), 320
    cell, before = save_cell(committed(name)).source, guarded_files()
    known = {"Path": Path, "PROTOCOLS": PROTOCOLS, "RECIPE": RECIPE, "save_run": save_run}
    known |= {"TrainingConfig": TrainingConfig, "model": model, "history": short}
    with pytest.raises(
        ValueError, match=r"results/ is for .*; this one had 1 epochs on 320 images"
    ):
        exec(cell, known | {"OUT_DIR": PROJECT / "results"})
    assert guarded_files() == before
    exec(cell, known | {"OUT_DIR": tmp_path})
    names = {f"{name}.json", f"{name}.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.slow
def test_cells_in_another_order_keep_results_clean_and_say_why(mnist, tmp_path):
    """A quick run, then the parameters of a full one, then save, twice."""
    notebook = committed("v1")
    cells = code_cells(notebook)
    [fits] = [i for i, cell in enumerate(cells) if "history = fit(" in cell.source]
    save = save_cell(notebook).source
    summary = next(cell.source for cell in cells if cell.source.startswith("summary("))
    cells[1].source = f'EPOCHS, TRAIN_IMAGES, OUT_DIR = 1, 320, "{tmp_path}"'
    tries = [
        summary,
        f'OUT_DIR = "results"\ntry:\n    {save}\nexcept ValueError as error:\n    print(error)',
        f'OUT_DIR = "{tmp_path}"\n{save}\n{save}',
        f"history = history\n{save}",
    ]
    notebook.cells = cells[: fits + 1] + [nbformat.v4.new_code_cell(text) for text in tries]
    nbformat.write(notebook, tmp_path / "mixed.ipynb")
    before = guarded_files()
    printed = execute(tmp_path / "mixed.ipynb")
    assert "results/ is for complete runs by the protocol; this one had 1 epochs" in printed
    assert guarded_files() == before
    assert len(History.load(tmp_path / "v1.json").epochs) == 1


@pytest.mark.slow
def test_a_notebook_alone_fetches_its_project_or_says_what_to_do(mnist, tmp_path):
    """From a clone of the last commit, into a folder that holds the notebook and nothing else."""
    alone = tmp_path / "alone"
    alone.mkdir()
    notebook = committed("v1")
    notebook.cells = code_cells(notebook)[:3]  # set-up, parameters, imports
    setup = notebook.cells[0]
    assert setup.source.startswith('REPOSITORY = "')

    def run(repository):
        setup.source = re.sub('^REPOSITORY = ".*"', f'REPOSITORY = "{repository}"', setup.source)
        nbformat.write(notebook, alone / "v1.ipynb")
        code = f"from helpers.execute import execute; import os; os.chdir({str(alone)!r}); "
        code += "execute('v1.ipynb', 'out.ipynb', {})"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)

    said = run("")
    assert said.returncode != 0 and "Set REPOSITORY to the project's address" in said.stderr
    aside = (".venv*", "data", "build", "__pycache__", ".*_cache")
    shutil.copytree(PROJECT, tmp_path / "clone", ignore=shutil.ignore_patterns(*aside))
    for _ in range(2):  # and again, where the clone is there already
        done = run(tmp_path / "clone")
        assert done.returncode == 0, done.stderr
    assert (alone / "mnist-study" / "TrainingHelper.py").exists()


def check_outputs(name, notebook, history):
    """Executed from top to bottom without an error, and fit to be read on GitHub."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    found = outputs(notebook)
    assert {output.output_type for output in found} == {"stream", "display_data", "execute_result"}
    assert all(output.name == "stdout" for output in found if output.output_type == "stream")
    types = {key for output in found for key in output.get("data", {})}
    assert types <= {"text/plain", "text/markdown", "text/html", "image/png"}
    assert "widgets" not in notebook.metadata
    assert len(list(shown(notebook, "image/png"))) == FIGURES[name]
    printed = "\n".join(shown(notebook, "text/plain"))
    assert "\r" not in printed and "\x1b" not in printed and len(printed.splitlines()) < 150

    total = history.config["epochs"]
    assert re.findall(r"^epoch .* s$", printed, re.MULTILINE) == [
        f"epoch {epoch:2}/{total}  train loss {r['train_loss']:.4f}, {r['train_accuracy']:5.2f} %  "
        f"test loss {r['test_loss']:.4f}, {r['test_accuracy']:5.2f} %  "
        f"lr {r['learning_rate']:.0e}  {r['seconds']:.1f} s"
        for epoch, r in enumerate(history.epochs, 1)
    ]


@each_notebook
def test_committed_notebooks_are_executed_and_show_what_results_hold(name):
    notebook = committed(name)
    history = History.load(PROJECT / "results" / f"{name}.json")
    check_outputs(name, notebook, history)
    tables, told = list(shown(notebook, "text/html")), list(shown(notebook, "text/markdown"))
    if name == "one_cycle":
        assert f"after 8 epochs at {history.final_accuracy:.2f} %" in told[-1]
        return
    variant = SETTINGS[history.setting][history.variant]
    published, parameters = variant.published, count_parameters(variant.network())
    assert history.beside(published, parameters)._repr_html_() == tables[-1]
    runs = load_runs(PROJECT / FOLDERS[history.setting])
    others = histories(runs, history.variant)
    expected = [history.conclusion(published.log, 10_000, others)]
    if name == "final_as_run":
        held = reproductions(runs)
        expected.append(f"{reproduction(held)}\n\n{reproduced(held)}")
    assert told == expected and len(others) == 10


@each_notebook
def test_committed_results_are_whole_runs_by_their_protocol_as_good_as_asked(name):
    history = History.load(PROJECT / "results" / f"{name}.json")
    assert history.variant == variant_of(name) and history.follows(CONFIGS[name])
    assert (len(history.epochs) == CONFIGS[name].epochs) == (history.status == "finished")
    assert history.environment["torch"] == "2.8.0"
    assert weights_digest(load_weights(PROJECT / f"results/{name}.safetensors")) == history.weights
    least = {"v1": 99.1, "v2": 99.1, "final": 99.4, "one_cycle": 99.3, "final_as_run": 99.4}
    assert history.final_accuracy >= least[name]


@each_notebook
def test_committed_notebooks_ask_for_the_full_run_and_carry_nothing_of_the_machine(name):
    assert (PROJECT / NOTEBOOKS[name]).stat().st_size < 1_000_000
    notebook = committed(name)
    [cell] = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    full = f'EPOCHS = {CONFIGS[name].epochs}\nTRAIN_IMAGES = 60_000\nOUT_DIR = "results"'
    assert cell.source == full
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel}
    assert all(cell.metadata.keys() <= {"tags"} for cell in notebook.cells)
    for text in [cell.source for cell in notebook.cells] + list(shown(notebook, "text/plain")):
        assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\", text)


def test_every_notebook_sets_itself_up_alike_and_has_its_badge():
    setups = {code_cells(committed(name))[0].source for name in NOTEBOOKS}
    assert len(setups) == 1
    [address] = re.findall('^REPOSITORY = "(.*?)"', *setups)
    name = address.removeprefix("https://github.com/") or "OWNER/REPOSITORY"
    for file in NOTEBOOKS.values():
        first = nbformat.read(PROJECT / file, as_version=4).cells[0].source
        assert f"colab.research.google.com/github/{name}/blob/main/{file})" in first


def test_one_command_writes_the_repositorys_address_everywhere(tmp_path):
    for file in ["README.md", *NOTEBOOKS.values()]:
        shutil.copy(PROJECT / file, tmp_path)
    for name in ("someone/mnist-study", "another/one"):  # it may move
        assert len(write_address(tmp_path, name)) == 1 + len(NOTEBOOKS)
        assert write_address(tmp_path, name) == []
    readme = (tmp_path / "README.md").read_text()
    assert "git clone https://github.com/another/one mnist-study" in readme
    assert 'torch.hub.load("another/one", "final")' in readme and "REPOSITORY" not in readme
    for file in NOTEBOOKS.values():
        first, *_, setup = nbformat.read(tmp_path / file, as_version=4).cells[:3]
        assert f"colab.research.google.com/github/another/one/blob/main/{file})" in first.source
        assert setup.source.startswith('REPOSITORY = "https://github.com/another/one"  #')
    with pytest.raises(ValueError, match="is no repository; expected OWNER/NAME"):
        write_address(tmp_path, "https://github.com/another/one")
