"""The table of all runs: equal to the JSON records, measures worked out by hand, faults named."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from study.table import load, measures, write
from tests.helpers import PROJECT

RESULTS = PROJECT / "results"


@pytest.fixture(scope="module")
def tables():
    return load(RESULTS)


def test_the_committed_csv_files_are_what_the_records_give(tables, tmp_path):
    write(tables, tmp_path)
    for name in ("runs.csv", "epochs.csv", "mistakes.csv"):
        assert (tmp_path / name).read_bytes() == (RESULTS / name).read_bytes(), name


def test_each_record_is_in_the_csv_files_as_it_is():
    """Read anew, by other code, from one record of each dialect."""
    runs = pd.read_csv(RESULTS / "runs.csv", low_memory=False).set_index("run")
    epochs = pd.read_csv(RESULTS / "epochs.csv")
    mistakes = pd.read_csv(RESULTS / "mistakes.csv")
    records = list(RESULTS.rglob("*.json"))
    assert len(runs) == len(records) >= 346 and runs.index.is_unique
    for path, run in {
        "runs/final-47.json": "page/final-47",
        "as_run/v2_bn-50.json": "original/original_final-50",
        "pilot/v1-42.json": "pilot/v1-42",
        "recipe/half/three_blocks-51.json": "recipe/half/half-51",
        "rounds/last_epoch_plain/three_pools-21.json": "rounds/last_epoch_plain/three_pools-21",
    }.items():
        record, row = json.loads((RESULTS / path).read_text()), runs.loc[run]
        assert row.seed == record["seed"] and row.machine == record["environment"]["machine"]
        assert row.learning_rate == record["config"]["learning_rate"]
        of_run = epochs[epochs.run == run]
        for key, value in record["epochs"][0].items():
            assert of_run[key].tolist() == [r[key] for r in record["epochs"]], (path, key, value)
        wrong = mistakes[mistakes.run == run][["image", "digit"]].to_numpy().tolist()
        assert wrong == [list(pair) for pair in record.get("mistakes") or []]
    assert runs.loc["rounds/last_epoch_plain/three_pools-21", "plain_epochs"] == 1
    assert runs.loc["original/original_final-50", "augmentation"] == "original"
    assert (runs.loc[runs.experiment == "page", "code"].isna()).all()


def test_measures_by_hand():
    test = [97.0, 98.2, 98.0, 99.0, 98.9, 99.4, 99.5, 99.3, 99.45]
    epochs = pd.DataFrame({"test_accuracy": test, "train_accuracy": np.linspace(90, 98, 9)})
    row = measures(epochs, planned=9)
    errors = [3.0, 1.8, 2.0, 1.0, 1.1, 0.6, 0.5]
    assert row["log_error"] == pytest.approx(np.log(np.prod(errors)) / 7)
    assert (row["final"], row["best"], row["first"]) == (99.45, 99.5, 97.0)
    assert (row["to_98"], row["to_98.5"], row["to_99"], row["to_99.4"]) == (2, 4, 4, 6)
    assert row["gap"] == pytest.approx(99.45 - 98) and row["epochs_run"] == 9
    assert (row["last_3"], row["last_5"]) == (False, False)
    assert measures(epochs[5:7], planned=20)["last_3"]  # of two epochs, both
    assert measures(epochs[:3], planned=20)["to_99"] == 21


def test_a_file_that_is_no_run_or_contradicts_itself_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no runs"):
        load(tmp_path)
    shutil.copy(RESULTS / "runs" / "v1-47.json", tmp_path / "a.json")
    shutil.copy(RESULTS / "runs" / "v1-47.json", tmp_path / "b.json")
    with pytest.raises(ValueError, match="holds the run notebooks/v1-47 twice"):
        load(tmp_path)
    record = json.loads((tmp_path / "a.json").read_text())
    record["mistakes"] = record["mistakes"][1:]
    (tmp_path / "b.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"b\.json has \d+ misclassified images"):
        load(tmp_path)
    (tmp_path / "b.json").write_text('{"views": []}')
    with pytest.raises(ValueError, match=r"b\.json holds no training history"):
        load(tmp_path)
