"""The report states what its runs say, regenerates, and refuses any but the protocol's runs."""

import json
import re
import statistics
from collections import Counter
from dataclasses import replace
from itertools import combinations, product
from math import exp, sqrt

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from helpers.config import PROTOCOLS
from models import VARIANTS
from study import report, tables
from study.analysis import (
    Reproduction,
    consistent,
    effect,
    effect_of,
    passes,
    spread_ratio,
    verdicts,
)
from study.claims import ACCURACY, LATE, LOGGED, OTHERS, SIMPLE, SPEED, measured, per_seed
from study.runs import SEEDS, load_runs
from study.statistics import runs_needed
from tests.helpers import PROJECT, history, made_up_study

PILOT = PROJECT / "results" / "pilot"
WITH_BN = ("none_bn", "v2_bn", "late_bn", "v1_bn")
PICTURES = [
    "comparison.png",
    "comparison_runs.png",
    "comparison_curves.png",
    "comparison_hardest.png",
]


def save(runs, folder):
    for (variant, seed), run in runs.items():
        run.save(folder / f"{variant}-{seed}.json")


@pytest.fixture(scope="module")
def runs():
    """90 made-up runs; one ends early, and some of v1 never reach 99 %."""
    with_bn = dict.fromkeys((v for v in VARIANTS if VARIANTS[v].batch_norm), -0.5)
    runs = made_up_study(shifts=with_bn | {"v1": 0.3}, draw=3)
    stopped = runs["late_bn", 50]
    stopped.status = "early stopping"
    del stopped.epochs[15:-1]
    for record in stopped.epochs[6:]:  # ten epochs without improvement
        record["test_loss"] = stopped.epochs[5]["test_loss"]
    return runs


@pytest.fixture(scope="module")
def out(runs, tmp_path_factory):
    """A folder with the report on them, and with the runs themselves."""
    out = tmp_path_factory.mktemp("results")
    save(runs, out / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)  # where data/ is
        report.report(out / "runs", out, PILOT, out / "as_run")
    return out


@pytest.fixture(scope="module")
def text(out):
    return (out / "comparison.md").read_text(encoding="utf-8")


def section(text, heading):
    """What stands below a heading, up to the next."""
    return re.split(rf"^#+ {heading}$", text, maxsplit=1, flags=re.M)[1].split("\n#", 1)[0]


def row(text, start):
    """The cells of the first table row that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def numbers(cell):
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", cell)]


# --- what it states -------------------------------------------------------------------------------


def test_it_states_each_variants_mean_and_interval(out, text):
    for variant in VARIANTS:
        finals = [
            json.loads(path.read_text())["epochs"][-1]["test_accuracy"]
            for path in (out / "runs").glob(f"{variant}-*.json")
        ]
        half = 2.2622 * statistics.stdev(finals) / sqrt(10)
        mean = statistics.fmean(finals)
        name = f"**{variant}**" if VARIANTS[variant].published else variant
        cell = row(section(text, "Final accuracy"), name)[1]
        assert numbers(cell) == pytest.approx([mean, mean - half, mean + half], abs=6e-4)


def test_it_states_each_contrast_paired_by_seed(runs, text):
    values = per_seed(measured(runs), LATE, ACCURACY)
    found = row(text.split("## All contrasts")[1], LATE.name)
    half = 2.2622 * statistics.stdev(values) / sqrt(10)
    mean = statistics.fmean(values)
    assert numbers(found[1]) == pytest.approx([mean, mean - half, mean + half], abs=6e-4)
    assert len(found) == 8  # with p values, equivalence, and the interval over images


def test_it_answers_every_claim_in_one_sentence_with_its_word(runs, text):
    sentences = re.findall(r"^\d\. .+$", section(text, "The answer"), re.M)
    for number, (sentence, verdict) in enumerate(
        zip(sentences, verdicts(measured(runs)), strict=True), start=1
    ):
        assert sentence.startswith(f"{number}. ") and sentence.endswith(".")
        assert f"**{verdict.word}**" in sentence
        for quoted in verdict.claim.quoted:
            assert quoted.text() in sentence
        assert f"| {number}. {verdict.claim} | **{verdict.word}** |" in text


def test_it_says_beside_the_word_what_the_word_leaves_out(runs, text):
    """What one pair of runs may give, the published pair alone, how far Final is from the goal."""
    _, fast, gain, best, _ = re.findall(r"^\d\. .+$", section(text, "The answer"), re.M)
    low, high = verdicts(measured(runs))[1].predicted[0]
    assert f"a run of v1 and one of Final may give anything in [{low:.2f}, {high:.2f}];" in fast
    final, v2 = ([runs[v, s].final_accuracy for s in SEEDS] for v in ("final", "v2"))
    apart = statistics.fmean(final) - statistics.fmean(v2)
    assert f"and final - v2, the published pair, is {apart:+.3f} [" in gain
    over = [accuracy - 99.4 for accuracy in final]
    p = stats.t.sf((0.1 - abs(statistics.fmean(over))) / stats.sem(over), 9)
    shown = "shown" if p < 0.05 else "not shown"
    mean = f"{statistics.fmean(over):+.3f}"
    within = f"and {shown} to be within 0.10 points of it (p {tables.p_text(p)});"
    assert f"Final's mean is {mean} points from the goal, {within}" in best


def test_it_names_the_simple_effects_that_are_shown_after_holm(runs, text):
    table = measured(runs)
    said = " ".join(section(text, "What the words depend on").split())
    for measure, lead in ((ACCURACY, "final accuracy"), (SPEED, "where below 1 is faster,")):
        p_values = [effect_of(per_seed(table, c, measure), None).p for c in SIMPLE]
        order = sorted(range(8), key=p_values.__getitem__)
        steps = [p_values[k] * (8 - rank) < 0.05 for rank, k in enumerate(order)]
        shown = order[: steps.index(False)] if False in steps else order
        names = tables.listed([f"`{SIMPLE[k].name}`" for k in sorted(shown)])
        are = "are" if shown[1:] else "is"
        assert f"{lead} {len(shown)} of the 8 {are} shown, {names}:" in said or not shown
        assert shown or f"{lead} none of the 8 is shown:" in said


def test_it_tells_direction_size_and_plausibility_apart(runs, text):
    for number, verdict in enumerate(verdicts(measured(runs)), start=1):
        _, said, _, size, held = row(section(text, "The claims"), f"{number}. {verdict.claim}")
        assert said == f"**{verdict.word}**"
        means = [verdict.claim.parts[0].write(verdict.effects[0].estimate.mean)]
        assert all(mean in size for mean in means)
        assert held.count("plausible") + held.count("**not**") == len(verdict.claim.quoted)
    _, low, high = verdicts(measured(runs))[1].effects[0].estimate.ends(exp)
    size = row(section(text, "The claims"), "2. Batch normalization converges 4 times as fast")[3]
    assert ("a mean of 4 times is excluded" in size) == (not low <= 4 <= high)


def test_it_counts_who_waits_for_the_learning_rate_to_fall(runs, text):
    cells = row(section(text, "What the words depend on"), "first epoch with 99 % or more")
    for cell, variants in ((cells[3], ("none", "v2", "late", "v1")), (cells[4], WITH_BN)):
        first = [runs[v, s].first_epoch_at_99 or 21 for v in variants for s in SEEDS]
        assert cell == f"{sum(e <= 7 for e in first)}; {first.count(8)} of 40"


def test_epochs_have_the_smallest_delay_that_was_claimed_as_their_margin(text):
    said = section(text, "What the words depend on")
    rows = [line for line in said.splitlines() if "| epochs to 99 % |" in line]
    assert len(rows) == 2 and all("| 2.00 epochs |" in line for line in rows)


def test_it_says_what_two_seeds_change_and_how_many_runs_it_takes(runs, text):
    said = section(text, "What another seed changes")
    wrong = {s: dict(runs["v1", s].mistakes) for s in SEEDS}
    apart = [
        sum(wrong[a].get(i) != wrong[b].get(i) for i in wrong[a].keys() | wrong[b].keys())
        for a, b in combinations(SEEDS, 2)
    ]
    assert row(said.split("vote")[1], "**v1**")[1] == f"{statistics.fmean(apart) / 100:.2f}"
    finals = {v: [runs[v, s].final_accuracy for s in SEEDS] for v in ("v1", "v2", "final")}
    wins = sum(two > one for one in finals["v1"] for two in finals["v2"])
    assert f"v2 is more accurate than v1 in {wins} % of the pairs" in said
    for first, second, end in (("v1", "v2", "triples, and"), ("v2", "v1", "How many")):
        three = product(finals[first], finals[second], finals["final"])
        order = sum(one < two < best for one, two, best in three)
        assert re.search(rf"in {order / 10:.0f} %[. ]+(of the )?{end}", " ".join(said.split()))
    other = {s: dict(runs["v2", s].mistakes) for s in SEEDS}
    between = statistics.fmean(
        sum(wrong[s].get(i) != other[s].get(i) for i in wrong[s].keys() | other[s].keys())
        for s in SEEDS
    )
    assert f"with the same seed disagree on {between / 100:.2f} % of the images" in said
    assert row(said, "**final**")[4] == str(runs_needed(finals["final"], finals["v1"]))


def test_it_names_the_variants_that_final_is_and_is_not_shown_to_beat(runs, text):
    """Those made up with batch normalization differ from it by chance alone."""
    said = " ".join(section(text, "Is Final the most accurate\\?").split())
    assert (
        "more accurate than `none` and `late`, but not than "
        "`none_bn`, `v2_bn`, `late_bn` and `v1_bn`." in said
    )
    means = {v: statistics.fmean(runs[v, s].final_accuracy for s in SEEDS) for v in VARIANTS}
    best = max(means, key=means.get)
    assert f"The highest mean is that of `{best}`, {means[best]:.3f} %." in said


def test_final_is_shown_to_beat_others_after_the_correction_only():
    """By 0.08 points all six, which p = 0.03 says of each, and nothing after Holm's correction."""
    spread = np.arange(10) - 4.5
    table = pd.DataFrame({(ACCURACY.name, v): 99 + 0.001 * spread for v in VARIANTS})
    table[ACCURACY.name, "final"] += 0.08 + 0.033 * spread
    assert 0.02 < effect(table, OTHERS[0], ACCURACY).p < 0.04
    assert "more accurate than none of them. The highest" in tables.others_said(table)


def test_it_counts_who_gets_to_99_and_who_does_before_the_learning_rate_falls(runs, text):
    for variant in VARIANTS:
        of = [[r["test_accuracy"] for r in runs[variant, s].epochs] for s in SEEDS]
        name = f"**{variant}**" if VARIANTS[variant].published else variant
        cells = row(text.split("learning rate first falls:")[1], name)[1:]
        for cell, threshold in zip(cells, (98, 98.5, 99, 99.4), strict=True):
            reached = sum(max(accuracies) >= threshold for accuracies in of)
            early = sum(max(accuracies[:7]) >= threshold for accuracies in of)
            assert cell.startswith(f"{reached} of 10 ") and cell.endswith(f"; {early}")
    never = [seed for seed in SEEDS if runs["v1", seed].best_accuracy < 99]
    assert 0 < len(never) < 10
    for seed in SEEDS:
        cell = row(section(text, "Every run"), f"[v1-{seed}](runs/v1-{seed}.json)")[4]
        assert cell == ("never" if seed in never else str(runs["v1", seed].first_epoch_at_99))


def test_it_lists_every_run_once(runs, text):
    listed = re.findall(r"^\| \[(\S+)\]\(runs/(\S+)\.json\)", text, re.M)
    assert sorted(name for name, _ in listed) == sorted(f"{v}-{s}" for v, s in runs)
    assert all(name == link for name, link in listed)
    assert row(section(text, "Every run"), "[late_bn-50](runs/late_bn-50.json)")[-1] == (
        "16, early stopping"
    )


def test_it_counts_the_images_that_no_network_gets_right(runs, text):
    wrong = Counter(index for run in runs.values() for index, _ in run.mistakes)
    never = sum(count == 90 for count in wrong.values())
    often = sum(count > 45 for count in wrong.values())
    of_variant = Counter((v, i) for (v, _), run in runs.items() for i, _ in run.mistakes)
    hard = [image for image in wrong if all(of_variant[v, image] > 5 for v in VARIANTS)]
    of_one = sum(wrong[image] for image in hard) / 90
    said = section(text, "The hardest digits")
    assert re.search(rf"{never or 'none'} (is|are) wrong in all 90 networks", said)
    assert f"More than half of the networks get {often} images wrong" in said
    assert f"and {10_000 - len(wrong):,} are wrong in none." in said
    assert (
        f"{len(hard)} are wrong in more than half of every variant's networks, and cost a single "
        f"network {of_one / 100:.2f} points of error on average." in " ".join(said.split())
    )


def test_it_counts_the_images_that_no_network_of_a_variant_gets_right(runs, text):
    _, _, said = section(text, "The hardest digits").partition("networks of a variant")
    for variant in VARIANTS:
        of = [{index for index, _ in runs[variant, seed].mistakes} for seed in SEEDS]
        assert f"`{variant}` {len(set.intersection(*of))}" in said


def test_a_run_passes_the_goal_from_one_image_over_it():
    assert [passes(history([last])) for last in (99.39, 99.4, 99.41)] == [False, False, True]


@pytest.mark.parametrize(("fifth", "expected"), [(99.4, True), (99.39, False)])
def test_a_run_is_consistent_if_its_last_five_epochs_have_the_goal(fifth, expected):
    assert consistent(history([98.0, fifth, 99.5, 99.4, 99.6, 99.4])) == expected


def test_the_ratio_of_spreads_is_of_those_without_batch_normalization_to_those_with(runs):
    def sd(variant):
        return statistics.stdev(runs[variant, seed].final_accuracy for seed in SEEDS)

    ratios = [sd(variant) / sd(f"{variant}_bn") for variant in ("none", "v2", "late", "v1")]
    assert spread_ratio(measured(runs)) == pytest.approx(statistics.geometric_mean(ratios))


def test_the_hardest_images_are_named_with_what_they_are_taken_for(runs):
    found = report._hardest(runs, [index % 10 for index in range(10_000)])
    wrong = Counter(index for run in runs.values() for index, _ in run.mistakes)
    counts = [wrong[index] for index, _ in found]
    assert counts == sorted(wrong.values(), reverse=True)[: len(found)]
    index, caption = found[0]
    taken = Counter(d for run in runs.values() for i, d in run.mistakes if i == index)
    assert caption.startswith(f"a {index % 10}; {counts[0]} of 90 wrong:\n")
    assert all(f"{digit} by {count}" in caption for digit, count in taken.most_common(3))


def test_it_says_what_trained_the_runs(text):
    assert f"Commit `{40 * 'c'}` trained all 90 runs: seeds 47, 48," in text
    assert "56 on a processor." in text
    assert "Early stopping ended 1 of the runs." in text


def test_nothing_in_it_is_left_open(out, text):
    assert not re.search(r"\$\w|\bnan\b|\binf\b|\bNone\b(?! that| of)", text)
    assert re.findall(r"!\[.+\]\((.+)\)", text) == PICTURES
    for picture in PICTURES:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_the_sentences_name_which_numbers_are_plausible():
    said = tables.plausibility(["1 %", "2 %", "3 %"], [True, False, True])
    assert said == "1 % and 3 % are plausible single runs, 2 % is not a plausible single run"
    assert tables.plausibility(["1 %"], [True]) == "1 % is a plausible single run"
    assert tables.plausibility(["1 %", "2 %"], [False] * 2) == (
        "1 % and 2 % are not plausible single runs"
    )


def test_where_the_two_tests_disagree_is_said(runs):
    found = verdicts(measured(runs))
    assert "the same side" in tables.on_different_sides(found)
    odd = found[0]._replace(effects=[found[0].effects[0]._replace(p=0.04, flip_p=0.06)])
    assert tables.on_different_sides([odd]).endswith(f"0.05 in claim 1, {LATE.name}.")


# --- as run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def as_run():
    """80 made-up runs with a large effect of batch normalization; one stops early."""
    runs = made_up_study(setting="as run", shifts=dict.fromkeys(WITH_BN, -0.5), draw=5)
    stopped = runs["v1", 47]
    stopped.status = "early stopping"
    del stopped.epochs[15:-1]
    for record in stopped.epochs[6:-1]:
        record["test_accuracy"] = stopped.epochs[5]["test_accuracy"]
    return runs


@pytest.fixture(scope="module")
def whole(runs, as_run):
    """The report on both settings."""
    return report.render(runs, load_runs(PILOT), as_run)


def test_it_regenerates_byte_for_byte_whatever_the_order_and_without_a_part(runs, as_run, text):
    """With the runs backwards and 79 of the 80 as run, of which nothing is computed."""
    part = dict(list(as_run.items())[:79])
    report.check(part, "results/as_run", "as run")
    written = report.render(dict(reversed(runs.items())), load_runs(PILOT), part)
    said = "79 of 80 runs are in; no verdict is computed before the last."
    assert said in section(written, "As run")
    assert written.replace(said, said.replace("79", "0")) == text


def test_both_settings_are_reported_with_every_run(as_run, text, whole):
    assert not re.search(r"\$\w|\bnan\b|\binf\b|\bNone\b(?! that| of)", whole)
    listed = re.findall(r"^\| \[(\S+)\]\(as_run/(\S+)\.json\)", whole, re.M)
    assert sorted(name for name, _ in listed) == sorted(f"{v}-{s}" for v, s in as_run)
    missing = [line for line in text.splitlines() if line not in whole.splitlines()]
    assert len(missing) <= 9  # "0 of 80", and the claims' table, which gets two columns


def test_the_claims_stand_as_published_corrected_logged_and_measured_twice(as_run, whole):
    found = section(whole, "The publication, corrected and by its own logs")
    said = verdicts(measured(as_run), LOGGED)
    rows = [row(found, f"{n}. {verdict.claim}") for n, verdict in enumerate(said, start=1)]
    assert [cells[1].startswith("withdrawn") for cells in rows] == [True, True, False, False, False]
    assert "v1 - v2: 0 epochs<br>v1 - final: 3 epochs" in rows[0][2]
    assert "8 / 5 = 1.6 times" in rows[1][2] and "0.18 points" in rows[2][2]
    for cells, verdict in zip(rows, said, strict=True):
        assert cells[4].startswith(f"**{verdict.word}**") and len(cells) == 6
    for place in (found, section(whole, "The claims, by the publication's own protocol")):
        assert "a mean of 0.18 points" in row(place, f"3. {said[2].claim}")[-2]


def test_the_logs_are_held_against_final_as_run_by_its_other_name(as_run, whole):
    cells = row(
        section(whole, "Is the publication reproduced\\?"), "test accuracy after epoch 1, %"
    )
    first = [as_run["v2_bn", s].epochs[0]["test_accuracy"] for s in SEEDS]
    half = 2.2622 * statistics.stdev(first) * sqrt(1.1)
    mean = statistics.fmean(first)
    assert numbers(cells[3]) == pytest.approx([98.76, mean - half, mean + half], abs=6e-3)
    assert ("outside" in cells[3]) == (not mean - half <= 98.76 <= mean + half)


def test_as_run_every_claim_has_its_sentence_with_the_numbers_of_the_logs(as_run, whole):
    place = section(whole, "The claims, by the publication's own protocol")
    sentences = re.findall(r"^\d\. .+$", place, re.M)
    for sentence, verdict in zip(sentences, verdicts(measured(as_run), LOGGED), strict=True):
        assert f"**{verdict.word}**" in sentence
        assert all(quoted.text(LOGGED) in sentence for quoted in verdict.claim.quoted)
    assert "8 / 5 = 1.6 times (v1 / final)" in sentences[1]  # and not of one pair twice
    assert "8 / 5 = 1.6 times (v2 / final)" in sentences[1]
    assert "of the 4 variants with batch normalization" in sentences[3]


def test_equal_means_are_equal_whatever_their_sums_leave_over(runs):
    """Final's and v1_bn's accuracies are the same ten, in another order."""
    table = measured(runs)
    accuracies = [99.47, 99.49, 99.53, 99.44, 99.53, 99.52, 99.45, 99.55, 99.5, 99.53]
    table[ACCURACY.name, "final"], table[ACCURACY.name, "v1_bn"] = sorted(accuracies), accuracies
    for variant, accuracy in {"none_bn": 99.9, "v2_bn": 99.0, "late_bn": 99.0}.items():
        table[ACCURACY.name, variant] = accuracy
    means = table[ACCURACY.name].mean()
    assert means["final"] < means["v1_bn"]
    assert "the one with the second highest mean" in tables.answer(verdicts(table), table)


def test_as_run_final_is_compared_with_all_but_itself(as_run, whole):
    """With the same contrasts as from the page, by either name of its runs."""
    place = whole.split("### All contrasts as run")[1].split("### Every run as run")[0]
    names = [line.split(" | ")[0][2:] for line in place.splitlines() if line.startswith("| ")]
    kinds = (tables.CONTRASTS, tables.CONTRASTS, tables.OF_RATIOS, tables.CONTRASTS)
    expected = [c.name for of in kinds for c in of if c.formula != "final - v2_bn"]
    assert [name for name in names if name.strip() and name != "---"] == expected
    finals, others = ([as_run[v, s].final_accuracy for s in SEEDS] for v in ("v2_bn", "late_bn"))
    mean = statistics.fmean(finals) - statistics.fmean(others)
    cells = row(place, "final - late_bn")
    assert numbers(cells[1])[0] == pytest.approx(mean, abs=6e-4)
    low, high = numbers(cells[-1])  # over seeds and images
    assert low < mean < high
    assert "final - v2_bn" not in whole.split("## As run")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    "held, expected",
    [
        ("yyy", "So 3 of the 3 are reproduced: **v1, v2 and final**."),
        ("nyn", "So 1 of the 3 is reproduced: **v2**, not v1 and final."),
        ("nnn", "So 0 of the 3 are reproduced."),
    ],
)
def test_the_reproduced_are_counted_and_named(held, expected):
    of = {
        name: Reproduction([], [], [True] * 6, 11 if one == "n" else 1, 11)
        for name, one in zip(("v1", "v2", "final"), held, strict=True)
    }
    assert tables.reproduced(of) == expected


def test_the_sixth_test_is_of_twenty_pairs(runs, as_run, whole):
    pairs = [
        r["v1", s].final_accuracy - r["v2", s].final_accuracy for r in (runs, as_run) for s in SEEDS
    ]
    said = re.search(r"\(20 pairs\): (\S+) \[", whole)
    assert float(said[1]) == pytest.approx(statistics.fmean(pairs), abs=6e-4)
    assert "The way claimed is the page's, -0.02 points; the logs have 0.02 points." in whole


def test_figures_show_both_settings_once_all_runs_are_in(runs, as_run):
    images = torch.zeros(10_000, 1, 28, 28, dtype=torch.uint8)
    one = report.draw(runs, dict(list(as_run.items())[:79]), images, [0] * 10_000)
    both = report.draw(runs, as_run, images, [0] * 10_000)
    assert both.keys() - one.keys() == {"comparison_band.png"}
    lines = [drawn["comparison.png"].axes[0].lines for drawn in (one, both)]
    markers = [[line.get_marker() for line in of] for of in lines]
    assert markers[0].count("D") == 0 and markers[1].count("D") == markers[1].count("o") == 7


# --- what it refuses ------------------------------------------------------------------------------


def _change(run, **fields):
    for name, value in fields.items():
        setattr(run, name, value)


FAULTS = {
    "holds v1-57, which is no run of the protocol": lambda r: r.update(
        {("v1", 57): history([99.0], "v1", 57)}
    ),
    "holds v2-47 by another config: epochs is 10 there and 20 here": lambda r: _change(
        r["v2", 47], config=r["v2", 47].config | {"epochs": 10}
    ),
    "holds v2-48 by another config: watch is": lambda r: _change(
        r["v2", 48], config=replace(PROTOCOLS["as run"], seed=48).as_dict()
    ),
    "holds final-56 with 320 training images": lambda r: _change(r["final", 56], train_images=320),
    "holds none-47 without its mistakes": lambda r: _change(r["none", 47], mistakes=None),
    "holds none-48 without its mistakes or its acc": lambda r: _change(
        r["none", 48], clean_train=None
    ),
    "holds late-51 without its commit": lambda r: r["late", 51].environment.pop("commit"),
    "the runs with seed 50 .* different environments, processor is": lambda r: r[
        "late_bn", 50
    ].environment.update(processor="another"),
    "different code, commit c+ and d+: expected one": lambda r: r["late_bn", 50].environment.update(
        commit=40 * "d"
    ),
    "different code, code None and d+: expected one": lambda r: _change(
        r["late_bn", 50], code=64 * "d"
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_runs_that_are_not_the_protocols_are_refused_in_one_sentence(message):
    runs = made_up_study()
    report.check(runs, "results/runs")
    FAULTS[message](runs)
    with pytest.raises(ValueError, match=message) as refused:
        report.check(runs, "results/runs")
    assert "\n" not in str(refused.value)


def test_a_refusal_leaves_the_earlier_report_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)  # where data/ is
    runs = made_up_study()
    del runs["late", 48]
    save(runs, tmp_path / "runs")
    for name in ("comparison.md", *PICTURES):
        (tmp_path / name).write_text("an earlier report")
    with pytest.raises(ValueError, match="1 of 90 runs are missing, the first is late-48: finish"):
        report.report(tmp_path / "runs", tmp_path, PILOT, tmp_path / "as_run")
    for name in ("comparison.md", *PICTURES):
        assert (tmp_path / name).read_text() == "an earlier report"


def test_the_pilot_is_not_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(ValueError, match="holds final-42, which is no run of the protocol"):
        report.report(PILOT, tmp_path)
    assert not list(tmp_path.iterdir())


# --- what is committed ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_committed_report_is_that_of_the_committed_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    report.report(out=tmp_path)
    for name in ("comparison.md", *PICTURES):
        assert (tmp_path / name).read_bytes() == (PROJECT / "results" / name).read_bytes(), name
