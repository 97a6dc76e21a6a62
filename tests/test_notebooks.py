"""The notebooks: a quick run of each kind, and what is committed against models.py and results/."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import nbformat
import pandas as pd
import papermill
import pytest

from DataPipeline import make_loaders
from helpers.checkpoint import load_weights, save_run, weights_digest
from helpers.config import TrainingConfig
from helpers.history import History
from helpers.publication import beside_published
from models import Network, network_name
from study.experiments import EXPERIMENTS
from tests.helpers import CPU, PROJECT, bits, build, same_bits, without_seconds
from TrainingHelper import fit, train_epoch

NOTEBOOKS = {  # by their networks
    "v1": "MNIST_Classifier_v1.ipynb",
    "v2": "MNIST_Classifier_v2.ipynb",
    "final": "MNIST_Classifier_Final.ipynb",
    "original_final": "MNIST_Classifier_Original.ipynb",
    "fast": "MNIST_Classifier_OneCycle.ipynb",
}
EXPERIMENT_OF = {"original_final": "original", "fast": "fast"}
RESULTS = PROJECT / "results"
each_notebook = pytest.mark.parametrize("name", list(NOTEBOOKS))


def read(name):
    return nbformat.read(PROJECT / NOTEBOOKS[name], as_version=4)


def sources(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """Everything that the cells print or show as text."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def run_quickly(notebook, folder, name="copy.ipynb"):
    """A notebook, executed on a few training images for two epochs."""
    path, settings = folder / name, {"EPOCHS": 2, "TRAIN_IMAGES": 1024, "OUT_DIR": f"{folder}"}
    nbformat.write(notebook, path)
    papermill.execute_notebook(path, path, settings, cwd=PROJECT, progress_bar=False)
    return nbformat.read(path, as_version=4)


# --- what is committed ----------------------------------------------------------------------------


@each_notebook
def test_a_notebook_is_committed_as_it_was_executed(name):
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 5
    assert notebook.metadata.language_info.file_extension == ".py"
    assert inspect.getsource(train_epoch) in texts(notebook)


@each_notebook
def test_its_numbers_are_its_runs(name):
    """Title, result and log against the JSON record and the table of all runs."""
    notebook, history = read(name), History.load(RESULTS / f"{name}.json")
    title = notebook.cells[0].source
    assert title.splitlines()[0].endswith(f"({history.final_accuracy:.2f}%)")
    runs = pd.read_csv(RESULTS / "runs.csv", low_memory=False)
    experiment = EXPERIMENT_OF.get(name, "page")
    seeds = runs[(runs.experiment == experiment) & (runs.network == name)].final
    assert f"ten seeds end at {seeds.mean():.2f}%" in title.replace("\n", " ")
    printed, planned = texts(notebook), history.config["epochs"]
    for number, record in enumerate(history.epochs, 1):
        line = rf"epoch +{number}/{planned} .*test loss {record['test_loss']:.4f}, +"
        assert re.search(line + rf"{record['test_accuracy']:.2f}%", printed), number
    config = EXPERIMENTS[experiment].config
    assert history.config == asdict(replace(config, seed=42)) and history.train_images == 60_000
    assert f"test images {history.final_accuracy:.2f}%" in printed


@each_notebook
def test_its_network_is_written_out_as_models_has_it_and_its_weights_are_saved(name):
    [cell] = [source for source in sources(read(name)) if "model = Network(" in source]
    [imports] = [source for source in sources(read(name)) if "from torch.nn import" in source]
    names = {"config": TrainingConfig()}
    imports = imports[imports.index("import inspect") :]  # not what the fast network sets before
    exec(f"{imports}\n{cell}", names)
    assert network_name(names["model"]) == name
    assert same_bits(bits(names["model"]), bits(build(name)))  # seeded alike
    assert f"{names['parameters']:,} parameters" in texts(read(name))
    weights = load_weights(RESULTS / f"{name}.safetensors")
    assert weights_digest(weights) == History.load(RESULTS / f"{name}.json").weights


def test_v2_is_v1_with_two_items_struck_out():
    [v1], [v2] = ([s for s in sources(read(n)) if "model = Network(" in s] for n in ("v1", "v2"))
    blocks = [line for line in v1.splitlines() if re.match(r" +block[34]", line)]
    for line in blocks:
        v1 = v1.replace(line, line.replace(", Dropout2d(0.1)", ""))
    assert len(blocks) == 2 and v1 == v2


# --- quick runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(mnist, tmp_path_factory):
    """A quick run of each kind of notebook, and of Final with a stranger's network."""
    folder = tmp_path_factory.mktemp("quick")
    kinds = {name: read(name) for name in ("final", "original_final", "fast")}
    own = kinds["own"] = read("final")
    [cell] = [cell for cell in own.cells if "model = Network(" in cell.source]
    cell.source += "\nmodel = MyNet()\nparameters = count_parameters(model)"
    cell.source = f"from torch import nn\n\n\n{OWN}\n\n{cell.source}"
    before = {p: p.read_bytes() for p in RESULTS.glob("*.*") if p.is_file()}
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda name: run_quickly(kinds[name], folder, f"{name}.ipynb"), kinds)
        notebooks = dict(zip(kinds, done, strict=True))
    assert {p: p.read_bytes() for p in RESULTS.glob("*.*") if p.is_file()} == before
    return folder, notebooks


OWN = """class MyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5, stride=2)
        self.out = nn.Linear(4 * 12 * 12, 10)

    def forward(self, x):
        return self.out(self.conv(x).relu().flatten(1))"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["final", "original_final", "fast", "own"])
def test_a_quick_run_saves_its_history_and_compares_it_with_nothing(quick, name):
    folder, notebooks = quick
    network = "MyNet" if name == "own" else name
    history = History.load(folder / f"{network}.json")
    assert (history.network, history.status, len(history.epochs)) == (network, "finished", 2)
    assert (folder / f"{network}.safetensors").exists()
    assert not (folder / f"{network}.pt").exists()
    printed = texts(notebooks[name])
    assert "this run" in printed and "mean of" not in printed and "the page " not in printed
    assert f"{history.final_accuracy:.2f}" in printed


@pytest.mark.slow
def test_run_all_resumes_after_a_crash(quick, mnist):
    folder, _ = quick
    expected = History.load(folder / "final.json")

    def crash(_):
        raise KeyboardInterrupt

    config = TrainingConfig(epochs=2)
    loaders = make_loaders(mnist.subset(1024), config, num_workers=0)
    broken = fit(build(), *loaders, config, CPU, folder / "final.pt", progress=crash)
    assert broken.status == "interrupted"
    notebook = read("final")
    [last] = [n for n, cell in enumerate(notebook.cells) if "save_run(model" in cell.source]
    notebook.cells = notebook.cells[: last + 1]
    assert "final.pt holds this run, up to epoch 1" in texts(run_quickly(notebook, folder))
    assert without_seconds(History.load(folder / "final.json")) == without_seconds(expected)


# --- saving and comparing -------------------------------------------------------------------------


def test_results_are_for_complete_runs_on_mnist_by_the_same_config(small, tmp_path, monkeypatch):
    config = TrainingConfig(epochs=1)
    model = build()
    history = fit(model, *make_loaders(small, config), config, CPU, progress=False)
    before = (RESULTS / "final.json").read_bytes(), (RESULTS / "final.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"final\.json is for a complete run on all of MNIST"):
        save_run(model, history, RESULTS)
    assert before == tuple(
        (RESULTS / f"final.{kind}").read_bytes() for kind in ("json", "safetensors")
    )
    path = save_run(model, history, tmp_path)
    assert path == tmp_path / "final.json" and History.load(path) == history
    assert same_bits(bits(load_weights(tmp_path / "final.safetensors")), bits(model))
    with pytest.raises(ValueError, match="not the weights that the run of final ended with"):
        save_run(build(seed=1), history, tmp_path)


def test_a_run_stands_beside_the_page_its_log_and_the_means_of_ten_only_if_it_is_one_of_them():
    history = History.load(RESULTS / "v1.json")
    table = beside_published(history, 17_938, RESULTS / "runs.csv")
    assert list(table.columns) == ["the page", "its log", "this run", "mean of 10 runs"]
    final = table.loc["final test accuracy, %"].tolist()
    assert final == ["99.36", "99.34", f"{history.final_accuracy:.2f}", "99.18"]
    for other in (
        replace(history, network="MyNet"),
        replace(history, train_images=8192),
        replace(history, config=history.config | {"learning_rate": 0.01}),
    ):
        table = beside_published(other, 17_938, RESULTS / "runs.csv")
        assert list(table.columns) == ["this run"]
    fast = History.load(RESULTS / "fast.json")
    assert "mean of 10 runs" in beside_published(fast, 19_370, RESULTS / "runs.csv")


def test_a_network_of_other_layers_has_no_name_of_ours():
    assert network_name(Network(head=[])) == "Network"
