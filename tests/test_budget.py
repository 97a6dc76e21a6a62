"""The ceilings: the project stays readable because it stays small."""

import subprocess

import pytest

from tests.helpers import PROJECT

CODE, TESTS, REPORT, README, MAKEFILE = 3500, 3000, 150, 130, 90  # lines


def lines(path):
    return len((PROJECT / path).read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def modules():
    """All Python files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs git and a clone")
    return [path for path in sorted(set(done.stdout.split())) if (PROJECT / path).exists()]


def test_the_code_stays_within_its_ceiling(modules):
    counts = {path: lines(path) for path in modules if not path.startswith("tests/")}
    assert "models.py" in counts
    assert sum(counts.values()) <= CODE, counts


def test_the_tests_stay_within_their_ceiling(modules):
    counts = {path: lines(path) for path in modules if path.startswith("tests/")}
    assert "tests/test_budget.py" in counts
    assert sum(counts.values()) <= TESTS, counts


@pytest.mark.parametrize(
    ("path", "most"), [("results/report.md", REPORT), ("README.md", README), ("Makefile", MAKEFILE)]
)
def test_a_page_stays_within_its_ceiling(path, most):
    assert lines(path) <= most
