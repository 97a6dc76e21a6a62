"""What a run leaves behind: its figures, what it says beside the publication, its file."""

import json
from dataclasses import asdict
from math import sqrt

import pytest
import torch

from DataPipeline import make_loaders
from helpers.config import TrainingConfig
from helpers.history import History
from models import VARIANTS
from tests.helpers import CPU, build
from tests.helpers import history as history_of
from TrainingHelper import fit

PUBLISHED = [name for name, variant in VARIANTS.items() if variant.published]


def test_a_history_knows_its_figures():
    history = history_of([93.59, 98.99, 99.0, 99.4, 99.3])
    assert (history.first_epoch_at_99, history.convergence_rate) == (3, 2.0)
    assert (history.final_accuracy, history.best_accuracy) == (99.3, 99.4)
    assert history.gap == pytest.approx(1.0)
    history = history_of([98.0, 98.99])
    assert history.first_epoch_at_99 is history.convergence_rate is None
    with pytest.raises(ValueError, match="no complete epoch"):
        _ = history_of([]).final_accuracy


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_convergence_rule_gives_the_published_rates(name):
    published = VARIANTS[name].published
    accuracies = [98.0] * (published.first_epoch_at_99 - 1) + [99.1]
    assert history_of(accuracies).convergence_rate == published.convergence_rate


def test_a_history_beside_the_published_figures():
    table = history_of([93.6, 98.0, 99.12, 99.4]).beside(VARIANTS["v1"].published, 17_938)
    assert table.splitlines()[2:] == [
        "| parameters | 17,938 | 17,938 |",
        "| epoch 1, train accuracy | 70.51 % | 92.60 % |",
        "| epoch 1, test accuracy | 93.59 % | 93.60 % |",
        "| first epoch at 99 %+ (test) | 8 (99.13 %) | 3 (99.12 %) |",
        "| final test accuracy | 99.36 % | 99.40 % |",
        "| convergence rate | 0.75 | 2.00 |",
        "| gap, test - train, last epoch | +2.4 points | +1.00 points |",
    ]
    slow = history_of([98.0]).beside(VARIANTS["v2"].published, 17_938)
    assert "| first epoch at 99 %+ (test) | 6 (99.20 %) | not reached |" in slow
    assert "| convergence rate | 1.00 | not reached |" in slow
    assert "| gap, test - train, last epoch | not published | +1.00 points |" in slow


@pytest.mark.parametrize(("away", "within"), [(0.9, "within"), (1.1, "outside")])
def test_the_conclusion_allows_for_the_error_of_two_accuracies(away, within):
    """Two standard errors of the difference of two binomial shares, written out again here."""
    p = 0.9936
    two_errors = 200 * sqrt(p * (1 - p) / 400 + p * (1 - p) / 400)
    history = history_of([98.0, 99.36 - away * two_errors])
    told = history.conclusion(VARIANTS["v1"].published, 400)
    assert f"{-away * two_errors:+.2f} points" in told and f"{within} two standard errors" in told
    assert f"({two_errors:.2f} points)" in told and "never; published is epoch 8" in told


def test_a_history_survives_its_file(small, tmp_path):
    config = TrainingConfig(epochs=2)
    loaders = make_loaders(small.first(64), config, CPU, num_workers=0)
    history = fit(build(), *loaders, config, CPU, progress=False)
    path = tmp_path / "new" / "run.json"
    history.save(path)
    assert History.load(path) == history and list(path.parent.iterdir()) == [path]
    content = json.loads(path.read_text())
    assert list(content) == [
        *("variant", "seed", "status", "config", "environment", "epochs"),
        *("train_images", "mistakes", "clean_train"),
    ]
    assert content["variant"] == "final" and content["seed"] == 42
    assert content["train_images"] == 64 and content["clean_train"] is None
    assert set(content["epochs"][0]) == {
        *("train_loss", "test_loss", "train_accuracy", "test_accuracy"),
        *("learning_rate", "seconds"),
    }
    assert content["environment"]["torch"] == torch.__version__.split("+")[0]
    assert content["environment"]["threads"] == torch.get_num_threads()
    assert content["environment"]["processor"] and content["environment"]["onednn"]


def test_files_of_the_first_round_load_with_nothing_where_nothing_was_recorded():
    content = asdict(history_of([98.0]))
    for name in ("train_images", "mistakes", "clean_train"):
        assert content.pop(name) is None
    assert History.from_dict(content) == history_of([98.0])


def test_an_interrupted_run_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="interrupted after 1 epochs"):
        history_of([98.0], status="interrupted").save(tmp_path / "v1.json")
    assert not list(tmp_path.iterdir())


def edited(**fields):
    return lambda text: json.dumps(json.loads(text) | fields)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"status": "finished"', '"status": "done"'),
        lambda text: text.replace('"seed": 42', '"seed": "42"'),
        lambda text: text.replace('"seconds"', '"minutes"'),
        lambda text: text.replace("98.0", "NaN"),
        lambda text: text.replace("98.0", "1000"),
        lambda text: text.replace('"variant"', '"extra": 1, "variant"'),
        lambda text: text.replace('"gamma"', '"gama"'),
        lambda text: text.replace('"mistakes": null', '"mistakes": [[3, 10]]'),
        edited(config=[]),
        edited(config={"epochs": "x"}),
        edited(config={"gamma": 10**400}),
        edited(epochs="x"),
        edited(environment={"threads": [1]}),
        edited(train_images=0),
    ],
)
def test_a_file_that_holds_no_history_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "v1.json"
    history_of([98.0]).save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=r"v1\.json holds no training history"):
        History.load(path)
