"""The grid, the recipe's first choice: by held-out accuracy, then by loss."""

import pytest

from study import grid, runs
from study.grid import EPOCHS, GRID, GRID_PAGE
from study.one_cycle import RECIPE
from study.runs import SEEDS
from tests.helpers import PROJECT, history


def run_of(setting, accuracy, loss=0.05, seed=42):
    """A run of a setting that ends with this held-out accuracy (%) and loss."""
    found = history([90.0] * (EPOCHS - 1) + [accuracy], setting.variant, seed)
    found.config = setting.config(EPOCHS, seed).as_dict()
    found.epochs[-1]["test_loss"] = loss
    return found


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls of run, which makes up what it is asked for, in a folder of its own."""
    calls, kept = [], {}

    def run(variants, seeds, folder, jobs, **how):
        calls.append({"folder": folder, "seeds": seeds, **how})
        kept[folder] = {
            (variants[0], seed): history([90.0] * 5 + [99.0 + seed / 100], variants[0], seed)
            for seed in seeds
        }
        for found in kept[folder].values():
            found.config = how["config"].as_dict() | {"seed": found.seed}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid, "run", run)
    monkeypatch.setattr(runs, "load_runs", kept.get)
    return calls


def test_the_highest_mean_held_out_accuracy_is_chosen_then_the_lowest_loss():
    low, even, odd, best = GRID[:4]
    found = {
        low: [run_of(low, 99.6), run_of(low, 99.0)],
        even: [run_of(even, 99.5, 0.04), run_of(even, 99.4, 0.04)],
        odd: [run_of(odd, 99.4, 0.02), run_of(odd, 99.5, 0.03)],
    }
    assert [setting for setting, *_ in grid.ranked(found)] == [odd, even, low]
    found[best] = [run_of(best, 99.46, 0.09)] * 2
    assert grid.ranked(found)[0] == (best, 99.46, 0.09)
    page = grid.grid_page(found)
    chosen = f"| **{best.variant}** | {best.maximum:g} | {best.warm_up:g} | {best.batch_size} |"
    assert chosen in page and page.count("**") == 2
    assert "| 99.300 | 99.60 99.00 | 0.0500 |" in page


def test_the_grid_trains_on_50000_images_and_never_stops_by_the_loss(calls):
    grid.grid()
    assert [call["folder"] for call in calls] == [setting.folder for setting in GRID]
    assert len({setting.folder for setting in GRID}) == len(GRID)
    for call, setting in zip(calls, GRID, strict=True):
        config = call["config"]
        assert call["held_out"] and call["train_images"] == 50_000
        assert not set(call["seeds"]) & set(SEEDS)
        assert config.patience == config.epochs and config.schedule == "one-cycle"
        assert setting[1:] == (config.learning_rate, config.warm_up, config.batch_size)
    assert GRID_PAGE.read_text() == grid.grid_page(grid.grid_runs())


def test_the_recipe_is_the_committed_grids_choice(monkeypatch):
    monkeypatch.chdir(PROJECT)
    found = grid.grid_runs()
    chosen = grid.ranked(found)[0][0]
    assert chosen.config(EPOCHS) == RECIPE.config(EPOCHS) and chosen.variant == RECIPE.variant
    assert GRID_PAGE.read_text() == grid.grid_page(found)
