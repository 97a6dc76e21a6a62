"""The one-cycle recipe: chosen on training images alone, and reported as its runs say."""

from statistics import fmean

import pytest
from scipy import stats

import study.one_cycle
from study.figures import DPI
from study.one_cycle import GOAL_RUNS, GRID, LENGTHS, RECIPE, RECIPE_PAGE, Setting
from study.runs import RUNS, SEEDS
from tests.helpers import PROJECT, history


def run_of(setting, accuracy, loss=0.05, seed=42, epochs=2):
    """A run of a setting that ends with this held-out accuracy (%) and loss."""
    content = history([90.0] * (epochs - 1) + [accuracy], setting.variant, seed)
    content.config = setting.config(epochs, seed).as_dict()
    content.epochs[-1]["test_loss"] = loss
    return content


def test_the_highest_mean_held_out_accuracy_is_chosen_then_the_lowest_loss():
    low, even, odd, best = GRID[:4]
    found = {
        low: [run_of(low, 99.6), run_of(low, 99.0)],
        even: [run_of(even, 99.5, 0.04), run_of(even, 99.4, 0.04)],
        odd: [run_of(odd, 99.4, 0.02), run_of(odd, 99.5, 0.03)],
    }
    assert study.one_cycle.ranked(found)[0] == odd
    found[best] = [run_of(best, 99.46, 0.09)] * 2
    assert study.one_cycle.ranked(found)[0] == best
    page = study.one_cycle.choice_page(found)
    assert (
        f"| **{best.variant}** | {best.maximum:g} | {best.warm_up:g} | {best.batch_size} |" in page
    )
    assert page.count("**") == 2 and "| 99.300 | 99.60 99.00 | 0.0500 |" in page


def test_the_grid_trains_on_50000_images_and_never_stops_by_the_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []

    def run(variants, seeds, folder, jobs, **how):
        calls.append((folder, how))
        for seed in seeds:
            setting = GRID[len(calls) - 1]
            assert variants == [setting.variant] and how["config"] == setting.config(6)
            run_of(setting, 99.0, seed=seed, epochs=6).save(folder / f"{variants[0]}-{seed}.json")

    monkeypatch.setattr(study.one_cycle, "run", run)
    study.one_cycle.grid()
    assert len({folder for folder, _ in calls}) == len(calls) == len(GRID)
    for _, how in calls:
        assert how["held_out"] and how["train_images"] == 50_000
        assert how["config"].patience == how["config"].epochs
    assert RECIPE_PAGE.read_text() == study.one_cycle.choice_page(study.one_cycle.grid_runs())
    (calls[3][0] / f"{GRID[3].variant}-42.json").unlink()
    with pytest.raises(ValueError, match=f"{GRID[3].folder} does not hold 2 runs: python -m"):
        study.one_cycle.grid_runs()


@pytest.fixture
def groups():
    """Ten runs each: of the recipe over 6 and 20 epochs, and of the published protocol."""
    accuracies = [99.30 + 0.03 * number for number in range(10)]
    found = {
        f"recipe, {epochs} epochs": [
            run_of(RECIPE, accuracy, seed=seed, epochs=epochs)
            for seed, accuracy in zip(SEEDS, accuracies, strict=True)
        ]
        for epochs in LENGTHS
    }
    published = [history([99.0, 99.5], "final", seed) for seed in SEEDS]
    return {**found, "final, published protocol": published}


def test_the_page_gives_the_mean_the_interval_and_the_share_of_the_runs(groups):
    page, figure = study.one_cycle.goal_page(groups), study.one_cycle.goal_figure(groups)
    accuracies = [run.final_accuracy for run in groups["recipe, 6 epochs"]]
    low, high = stats.t.interval(0.95, 9, loc=fmean(accuracies), scale=stats.sem(accuracies))
    assert f"| {fmean(accuracies):.3f} [{low:.3f}, {high:.3f}] |" in page
    assert "| runs over 99.4 % | 6 of 10 [31, 83] | 6 of 10 [31, 83] | 10 of 10 [72, 100] |" in page
    assert all(f"| {peer.name} | {peer.parameters:,} |" in page for peer in study.one_cycle.PEERS)
    for axes, places in zip(figure.axes, ([6, 20, 20], [18_434] * 3), strict=True):
        ours = [line for line in axes.lines if line.get_marker() in "osD"]
        assert [line.get_xdata()[0] for line in ours] == places
        means = [fmean(accuracies), fmean(accuracies), 99.5]
        assert [line.get_ydata()[0] for line in ours] == pytest.approx(means)


def test_a_group_without_a_run_for_every_seed_is_not_reported(groups, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [GOAL_RUNS / f"{epochs}" for epochs in LENGTHS] + [RUNS]
    for folder, runs in zip(folders, groups.values(), strict=True):
        for run in runs:
            run.save(folder / f"{run.variant}-{run.seed}.json")
    assert study.one_cycle.goal_runs() == groups
    (folders[0] / f"{RECIPE.variant}-50.json").unlink()
    with pytest.raises(ValueError, match="recipe, 6 epochs: expected a run for each of the seeds"):
        study.one_cycle.goal_runs()


def test_a_setting_is_what_its_runs_are_trained_by():
    for setting in GRID:
        config = setting.config(6, seed=7)
        assert (config.seed, config.epochs, config.schedule) == (7, 6, "one-cycle")
        assert setting[1:] == (config.learning_rate, config.warm_up, config.batch_size)


def test_a_setting_s_folder_tells_it_from_every_other():
    assert len({setting.folder for setting in GRID}) == len(GRID)
    assert RECIPE in GRID and isinstance(RECIPE, Setting)


def test_the_recipe_is_the_committed_grids_choice(monkeypatch):
    monkeypatch.chdir(PROJECT)
    found = study.one_cycle.grid_runs()
    assert study.one_cycle.ranked(found)[0] == RECIPE
    assert RECIPE_PAGE.read_text() == study.one_cycle.choice_page(found)


def test_the_committed_page_is_what_the_committed_runs_say(monkeypatch):
    monkeypatch.chdir(PROJECT)
    groups = study.one_cycle.goal_runs()
    assert (GOAL_RUNS / "goal.md").read_text() == study.one_cycle.goal_page(groups)
    assert (GOAL_RUNS / "goal.png").read_bytes() == study.one_cycle.goal_figure(groups).png(DPI)
