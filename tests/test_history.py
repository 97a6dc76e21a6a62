"""What a run leaves behind: its figures, what it says beside the publication, its file."""

import json
from math import sqrt

import pytest
import torch

from DataPipeline import make_loaders
from helpers.config import TrainingConfig
from helpers.history import History
from models import VARIANTS
from tests.helpers import CPU, PROJECT, build
from tests.helpers import history as history_of
from TrainingHelper import fit

PUBLISHED = {name: v.published for name, v in VARIANTS.items() if v.published}


def test_a_history_knows_its_figures():
    history = history_of([93.59, 98.99, 99.0, 99.4, 99.3])
    assert (history.first_epoch_at_99, history.convergence_rate) == (3, 2.0)
    assert (history.final_accuracy, history.best_accuracy) == (99.3, 99.4)
    assert history.gap == pytest.approx(1.0)
    history = history_of([98.0, 98.99])
    assert history.first_epoch_at_99 is history.convergence_rate is None
    with pytest.raises(ValueError, match="no complete epoch"):
        _ = history_of([]).final_accuracy


def test_the_convergence_rule_gives_the_published_rates():
    for page in (published.page for published in PUBLISHED.values()):
        accuracies = [98.0] * (page.first_epoch_at_99 - 1) + [99.1]
        assert history_of(accuracies).convergence_rate == page.convergence_rate


def test_a_history_beside_what_each_source_of_the_publication_says():
    table = history_of([93.6, 98.0, 99.12, 99.4]).beside(PUBLISHED["v1"], 17_938)
    expected = [
        ["17,938", "17,938", "17,938", "17,938"],
        ["70.51", "70.51", "70.51", "92.60"],
        ["93.59", "93.59", "93.59", "93.60"],
        ["8", "8", "8", "3"],
        ["99.13", "", "99.13", "99.12"],
        ["99.36", "99.36", "99.34", "99.40"],
        ["0.75", "0.90", "", "2.00"],
        ["+2.40", "", "+1.12", "+1.00"],
    ]
    assert table.to_numpy().tolist() == expected
    assert table.columns.str.contains("page|log|run").all() and "final" in table.index[5]
    slow = history_of([98.0]).beside(PUBLISHED["v2"], 17_938)["this run"]
    assert slow.tolist()[3:7] == ["", "", "98.00", ""]


@pytest.mark.parametrize(("away", "within"), [(0.9, "within"), (1.1, "outside")])
def test_the_conclusion_allows_for_the_error_of_two_accuracies(away, within):
    """Two standard errors of the difference of two binomial shares, written out again here."""
    p = 0.9934
    two_errors = 200 * sqrt(p * (1 - p) / 400 + p * (1 - p) / 400)
    history = history_of([98.0, 99.34 - away * two_errors])
    others = [history_of([accuracy]) for accuracy in (10.0, 99.9, 20.0)]
    told = history.conclusion(PUBLISHED["v1"].log, 400, others)
    for fact in (f"{-away * two_errors:+.2f}", f"{within} two", f"({two_errors:.2f}"):
        assert fact in told
    for fact in ("never", "epoch 8", "3 runs", "10.00 and 99.90", "2 are less accurate"):
        assert fact in told


def test_a_history_survives_its_file(small, tmp_path):
    config = TrainingConfig(epochs=2, setting="as run", watch="test_accuracy")
    loaders = make_loaders(small.first(64), config, CPU, num_workers=0)
    history = fit(build("v2_bn", setting="as run"), *loaders, config, CPU, progress=False)
    path = tmp_path / "new" / "run.json"
    history.save(path)
    back = History.load(path)
    assert back == history and back.setting == "as run" and list(path.parent.iterdir()) == [path]
    content = json.loads(path.read_text())
    assert content == json.loads(json.dumps(history.as_dict()))
    assert (content["variant"], content["seed"], content["train_images"]) == ("v2_bn", 42, 64)
    assert content["clean_train"] is None and len(content["code"]) == len(content["weights"]) == 64
    environment = content["environment"]
    assert environment["torch"] == torch.__version__.split("+")[0]
    assert environment["threads"] == torch.get_num_threads()
    assert environment["processor"] and environment["isa"]


def test_every_committed_run_loads():
    files = (PROJECT / "results").rglob("*.json")
    paths = [path for path in files if '"epochs": [' in path.read_text(encoding="utf-8")]
    assert len(paths) > 150
    for path in paths:
        run = History.load(path)
        assert len(run.epochs) <= run.config["epochs"] and run.status != "interrupted"
        folder = path.relative_to(PROJECT / "results").parts[0]
        if folder != "rounds":  # test_rounds.py holds each of them to its candidate's config
            as_run = folder in ("as_run", "final_as_run.json", "recipe", "one_cycle.json")
            as_run = as_run and path.parent.name != "half"  # the recipe's other network
            assert (run.setting == "as run") == as_run, path


def test_a_file_of_the_first_round_loads_as_from_the_page_with_nothing_it_did_not_record():
    content = history_of([98.0]).as_dict()
    for name in ("train_images", "mistakes", "clean_train", "code", "data", "weights"):
        assert content.pop(name) is None
    for name in ("watch", "setting"):
        del content["config"][name]
    history = History.from_dict(content)
    assert history.setting == "from the page" and history.mistakes is history.code is None


def test_an_interrupted_run_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="interrupted after 1 epochs"):
        history_of([98.0], status="interrupted").save(tmp_path / "v1.json")
    assert not list(tmp_path.iterdir())


RECORD = history_of([98.0]).epochs[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": [RECORD | {"extra": 1.0}]},
        {"epochs": [{k: v for k, v in RECORD.items() if k != "seconds"}]},
        {"epochs": [RECORD | {"train_loss": float("nan")}]},
        {"epochs": [RECORD | {"train_loss": float("inf")}]},
        {"epochs": [RECORD | {"test_accuracy": 100.01}]},
        {"epochs": [RECORD | {"test_accuracy": -0.01}]},
        {"clean_train": {"loss": 0.1, "accuracy": 101.0}},
        {"config": TrainingConfig(7).as_dict()},
        {"config": {"gama": 0.1}},
        {"mistakes": [[3, 10]]},
        {"mistakes": [[-1, 1]]},
        {"train_images": 0},
        {"status": "done"},
        {"environment": {"commit": 5}},
        {"code": 5},
    ],
)
def test_what_would_not_load_is_refused_when_it_is_saved_and_when_it_is_loaded(fields, tmp_path):
    path, run = tmp_path / "v1.json", history_of([98.0])
    for name, value in fields.items():
        setattr(run, name, value)
    with pytest.raises(ValueError, match="cannot be saved"):
        run.save(path)
    assert not path.exists()
    path.write_text(json.dumps(history_of([98.0]).as_dict() | fields))
    with pytest.raises(ValueError, match=r"v1\.json holds no training history"):
        History.load(path)


def test_a_file_that_holds_no_history_is_refused_by_name(tmp_path):
    path, text = tmp_path / "v1.json", json.dumps(history_of([98.0]).as_dict())
    for content in (text[:-1], "[]", "[" * 100_000, '{"extra": 1, ' + text[1:]):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"v1\.json holds no training history"):
            History.load(path)
