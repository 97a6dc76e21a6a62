"""The one-cycle recipe is chosen on held-out images, in rounds, by the mean and then the loss."""

from statistics import fmean

import pytest
from scipy import stats

from models import SETTINGS, count_parameters
from study import rounds, runs
from study.one_cycle import RECIPE, TAUGHT
from study.rounds import CANDIDATES, EPOCHS, PAGE, PUPILS, ROUNDS, TEACHERS
from study.runs import SEEDS
from tests.helpers import PROJECT, history


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls of run, which makes up what it is asked for: later candidates are better ones."""
    calls, kept = [], {}

    def run(variants, seeds, folder, jobs, scheduler, config, train_images, **how):
        calls.append((folder, seeds, config, how.get("teachers", ())))
        assert how["held_out"] and train_images == 50_000 and scheduler is None
        order = [rounds.folder(name) for name in CANDIDATES]
        ends = 99 + 0.01 * order.index(folder) if folder in order else 99.5
        for seed in seeds:
            at_last = ends + 0.1 * bool(how.get("teachers")) + 0.02 * (seed % 2)
            made = history([90.0] * (config.epochs - 1) + [at_last], variants[0], seed)
            made.config = config.as_dict() | {"seed": seed}
            kept.setdefault(folder, {})[variants[0], seed] = made

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rounds, "run", run)
    monkeypatch.setattr(runs, "load_runs", lambda folder: kept.get(folder, {}))
    return calls


def test_the_best_third_and_then_the_best_three_get_more_seeds_and_the_winner_teachers(calls):
    rounds.rounds()
    names, first = list(CANDIDATES), (21, 22)
    second, third = (*first, *range(23, 27)), (*first, *range(23, 35))
    folders = [rounds.folder(name) for name in [*names, *names[-1:-6:-1], *names[-1:-4:-1]]]
    assert [call[0] for call in calls[:-2]] == folders and len(set(folders)) == 15
    assert [call[1] for call in calls[:-2]] == 15 * [first] + 5 * [second] + 3 * [third]
    winner = CANDIDATES[names[-1]]
    files = [f"{winner.variant}-{seed}.safetensors" for seed in TEACHERS]
    alone, taught = calls[-2:]
    assert alone[1:] == (PUPILS, winner.config(20), ())
    assert taught[1:3] == (PUPILS, winner.config(20, distillation=0.7))
    assert taught[3] == [rounds.folder(names[-1]) / file for file in files]
    assert not {*third, *PUPILS} & set(SEEDS) and set(TEACHERS) <= set(third) - set(PUPILS)
    page = PAGE.read_text()
    assert page == rounds.page(*rounds.standings())
    assert f"So the recipe is **{names[-1]}**." in page and "trained with teachers, too." in page
    low, high = stats.t.interval(0.95, 13, loc=99.15, scale=stats.sem(7 * [99.14, 99.16]))
    mean = f"99.150 [{low:.3f}, {high:.3f}]"
    assert f"| {names[-1]} | 14 | {mean} | 99.14 to 99.16 | 0.0500 |" in page
    assert len([line for line in page.splitlines() if line.startswith("| peak 0.003")]) == 2


def test_of_equally_accurate_candidates_the_one_with_the_lowest_loss_is_best(calls):
    def level(folder, variant, config, seeds, **teachers):
        rounds.run([variant], seeds, folder, None, None, config, 50_000, held_out=True, **teachers)
        for run in runs.load_runs(folder).values():
            run.epochs[-1]["test_accuracy"] = 99.4 + 0.1 * (run.seed % 2)
            if folder == rounds.folder("peak 0.01"):
                run.epochs[-1]["test_loss"] = 0.04

    after, trial = rounds.standings(level)
    assert [next(iter(standing)) for standing in after] == 3 * ["peak 0.01"]
    assert [len(standing) for standing in after] == [count for count, _ in ROUNDS]
    assert fmean(run.final_accuracy for run in trial["alone"]) == pytest.approx(99.45)
    assert "is trained without teachers only." in rounds.page(after, trial)


def test_what_is_missing_or_by_another_config_is_named(calls):
    with pytest.raises(ValueError, match=r"three_pools: expected runs .* 21, 22; .*study rounds"):
        rounds.standings()
    rounds.rounds()
    run = runs.load_runs(rounds.folder("two pools"))["two_pools", 22]
    run.config["learning_rate"] = 0.1
    with pytest.raises(ValueError, match="two_pools: expected runs"):
        rounds.standings()


def test_the_candidates_are_all_different_and_small_and_never_stop_by_the_loss():
    configs = [candidate.config(EPOCHS) for candidate in CANDIDATES.values()]
    pairs = {(of.variant, repr(c)) for of, c in zip(CANDIDATES.values(), configs, strict=True)}
    assert len(pairs) == len(CANDIDATES) == ROUNDS[0][0] == 15
    for candidate, config in zip(CANDIDATES.values(), configs, strict=True):
        assert config.patience == config.epochs and config.schedule == "one-cycle"
        assert count_parameters(SETTINGS[candidate.setting][candidate.variant].network()) < 20_000


def test_the_recipe_is_the_choice_of_the_committed_rounds(monkeypatch):
    monkeypatch.chdir(PROJECT)
    after, trial = rounds.standings()
    assert [len(of) for of in after] == [15, 5, 3]
    assert CANDIDATES[next(iter(after[-1]))] == RECIPE
    alone, taught = (
        fmean(run.final_accuracy for run in trial[name]) for name in ("alone", "taught")
    )
    assert (taught > alone) == TAUGHT
    assert PAGE.read_text() == rounds.page(after, trial)
