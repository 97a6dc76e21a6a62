"""The ceilings: the project stays readable because it stays small."""

import subprocess

import pytest

from tests.helpers import PROJECT

# Lines: of the house, and of all with what the fourth round adds to it.
CODE, TESTS, REPORT, README, MAKEFILE = 3500, 3000, 150, 130, 90
ALL_CODE, ALL_TESTS = 4150, 3400  # 4,000 and 3,400 when the round is over
FOURTH_ROUND = {
    "helpers/sketchpad.py",
    "helpers/transforms.py",
    "helpers/trial.py",
    "study/__main__.py",
    "study/check.py",
    "study/compare.py",
    "study/network_file.py",
    "study/handwriting.py",
    "study/leaderboard.py",
    "tests/test_handwriting.py",
    "tests/test_own_network.py",
    "tests/test_strangers.py",
}
DATA = ("peers/", "networks/", "examples/")  # networks as files, at most 35 lines each


def lines(path):
    return len((PROJECT / path).read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def counts():
    """The lines of every Python file that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs git and a clone")
    paths = [path for path in set(done.stdout.split()) if (PROJECT / path).exists()]
    return {path: lines(path) for path in paths if not path.startswith(DATA)}


@pytest.mark.parametrize(
    ("folder", "house", "everything"), [(False, CODE, ALL_CODE), (True, TESTS, ALL_TESTS)]
)
def test_code_and_tests_stay_within_their_ceilings(counts, folder, house, everything):
    part = {path: n for path, n in counts.items() if path.startswith("tests/") == folder}
    assert len(part) > 15 and sum(part.values()) <= everything, part
    assert sum(n for path, n in part.items() if path not in FOURTH_ROUND) <= house, part


@pytest.mark.parametrize(
    ("path", "most"), [("results/report.md", REPORT), ("README.md", README), ("Makefile", MAKEFILE)]
)
def test_a_page_stays_within_its_ceiling(path, most):
    assert lines(path) <= most
