"""The one-cycle recipe: chosen on training images alone, and reported as its runs say."""

from statistics import fmean

import pytest
from scipy import stats

from study import one_cycle
from study.figures import DPI
from study.one_cycle import GRID, GRID_PAGE, LENGTHS, PEERS, RECIPE, RECIPE_RUNS
from study.runs import FOLDERS, SEEDS
from tests.helpers import PROJECT, history


def run_of(setting, accuracy, loss=0.05, seed=42, epochs=6):
    """A run of a setting that ends with this held-out accuracy (%) and loss."""
    found = history([90.0] * (epochs - 1) + [accuracy], setting.variant, seed)
    found.config = setting.config(epochs, seed).as_dict()
    found.epochs[-1]["test_loss"] = loss
    return found


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The calls of run, which writes what it is asked for in no time, in a folder of its own."""
    calls = []

    def run(variants, seeds, folder, jobs, **how):
        calls.append({"folder": folder, "seeds": seeds, **how})
        kept[folder] = [
            history([90.0] * (how["config"].epochs - 1) + [99.0 + seed / 100], variants[0], seed)
            for seed in seeds
        ]
        for found in kept[folder]:
            found.config |= how["config"].as_dict() | {"seed": found.seed}

    kept = {FOLDERS["from the page"]: [history([99.5] * 20, "final", seed) for seed in SEEDS]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(one_cycle, "run", run)
    monkeypatch.setattr(
        one_cycle, "load_runs", lambda folder: {(h.variant, h.seed): h for h in kept[folder]}
    )
    return calls, kept


def test_the_highest_mean_held_out_accuracy_is_chosen_then_the_lowest_loss():
    low, even, odd, best = GRID[:4]
    found = {
        low: [run_of(low, 99.6), run_of(low, 99.0)],
        even: [run_of(even, 99.5, 0.04), run_of(even, 99.4, 0.04)],
        odd: [run_of(odd, 99.4, 0.02), run_of(odd, 99.5, 0.03)],
    }
    assert [setting for setting, *_ in one_cycle.ranked(found)] == [odd, even, low]
    found[best] = [run_of(best, 99.46, 0.09)] * 2
    assert one_cycle.ranked(found)[0] == (best, 99.46, 0.09)
    page = one_cycle.grid_page(found)
    chosen = f"| **{best.variant}** | {best.maximum:g} | {best.warm_up:g} | {best.batch_size} |"
    assert chosen in page and page.count("**") == 2
    assert "| 99.300 | 99.60 99.00 | 0.0500 |" in page


def test_the_grid_trains_on_50000_images_and_never_stops_by_the_loss(trained):
    calls, _ = trained
    one_cycle.grid()
    assert [call["folder"] for call in calls] == [setting.folder for setting in GRID]
    assert len({setting.folder for setting in GRID}) == len(GRID) and RECIPE in GRID
    for call, setting in zip(calls, GRID, strict=True):
        config = call["config"]
        assert call["held_out"] and call["train_images"] == 50_000
        assert not set(call["seeds"]) & set(SEEDS)
        assert config.patience == config.epochs and config.schedule == "one-cycle"
        assert setting[1:] == (config.learning_rate, config.warm_up, config.batch_size)
    assert GRID_PAGE.read_text() == one_cycle.grid_page(one_cycle.grid_runs())


def test_the_recipe_is_ten_runs_on_all_images_by_its_config_and_no_others(trained):
    calls, kept = trained
    one_cycle.recipe()
    assert (RECIPE_RUNS / "recipe.png").exists()
    assert [call["config"] for call in calls] == [RECIPE.config(epochs) for epochs in LENGTHS]
    assert all(call["seeds"] == SEEDS for call in calls)
    assert not any({"held_out", "train_images"} & call.keys() for call in calls)
    folders = [call["folder"] for call in calls] + [FOLDERS["from the page"]]
    assert list(one_cycle.recipe_runs().values()) == [kept[folder] for folder in folders]
    runs = kept[folders[0]]
    other = history([90.0, 99.0], RECIPE.variant, 57)
    other.config = runs[0].config | {"seed": 57}
    tuned = history([90.0, 99.0], RECIPE.variant, SEEDS[-1])
    tuned.config = runs[-1].config | {"weight_decay": 0.01}
    for wrong in (runs[1:], [*runs[:-1], other], [*runs, other], [*runs[:-1], tuned]):
        kept[folders[0]] = wrong
        with pytest.raises(ValueError, match=f"{folders[0]}: expected runs of {RECIPE.variant} by"):
            one_cycle.recipe_runs()


def test_table_and_figure_give_the_mean_the_interval_and_the_share_of_the_runs():
    accuracies = [99.30 + 0.03 * number for number in range(10)]
    groups = {
        f"recipe, {epochs} epochs": [
            run_of(RECIPE, accuracy, seed=seed, epochs=epochs)
            for seed, accuracy in zip(SEEDS, accuracies, strict=True)
        ]
        for epochs in LENGTHS
    }
    groups["final, published protocol"] = [
        history([98.9, 99.0, 99.6, 99.5], "final", s) for s in SEEDS
    ]
    table, figure = one_cycle.recipe_table(groups), one_cycle.recipe_figure(groups)
    low, high = stats.t.interval(0.95, 9, loc=fmean(accuracies), scale=stats.sem(accuracies))
    mean = f"{fmean(accuracies):.3f} [{low:.3f}, {high:.3f}]"
    assert f"| final test accuracy, % | {mean} | {mean} | 99.500 [" in table
    assert "| runs over 99.4 % | 6 of 10 [31, 83] | 6 of 10 [31, 83] | 10 of 10 [72, 100]" in table
    assert "| first epoch at 99 % | 6.0 [6.0, 6.0] | 20.0 [20.0, 20.0] | 2.0 [2.0, 2.0]" in table
    assert "| 3.0 [3.0, 3.0] |" in table.splitlines()[-1]
    for axes, places in zip(figure.axes, ([6, 20, 20], [18_434] * 3), strict=True):
        ours = [line for line in axes.lines if line.get_marker() in "osD"]
        assert [line.get_xdata()[0] for line in ours] == places
        means = [fmean(accuracies), fmean(accuracies), 99.5]
        assert [line.get_ydata()[0] for line in ours] == pytest.approx(means)
        [others] = [line for line in axes.lines if line.get_marker() == "x"]
        assert list(others.get_ydata()) == [peer.accuracy for peer in PEERS]


def test_the_recipe_is_the_committed_grids_choice_and_its_figure_that_of_its_runs(monkeypatch):
    monkeypatch.chdir(PROJECT)
    found = one_cycle.grid_runs()
    assert one_cycle.ranked(found)[0][0] == RECIPE
    assert GRID_PAGE.read_text() == one_cycle.grid_page(found)
    figure = one_cycle.recipe_figure(one_cycle.recipe_runs()).png(DPI)
    assert (RECIPE_RUNS / "recipe.png").read_bytes() == figure
