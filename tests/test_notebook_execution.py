"""Executing a notebook: it shows what its cells show, and a run that fails changes nothing."""

import signal
import subprocess
import sys

import nbformat
import pytest
from nbconvert import ScriptExporter

from helpers.notebook import execute
from tests.helpers import PROJECT, interruptible

BAR = """for step in range(3):
    display({"text/plain": f"step {step}"}, raw=True, display_id="bar", update=step > 0)
print(N, NAME)
"""


@pytest.fixture
def notebook(tmp_path):
    def write(source, parameters="N = 1\nNAME: str = 'x'  # a name\nNAMES = ''"):
        cells = [nbformat.v4.new_code_cell(text) for text in (parameters, source)]
        cells[0].metadata = {"tags": ["parameters"], "scrolled": True}
        kernel = {"name": "mine", "display_name": "Mine"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, path := tmp_path / "notebook.ipynb")
        return path

    return write


def test_the_same_run_with_parameters_gives_the_same_file_without_times(notebook, tmp_path, capfd):
    source, targets = notebook(BAR), [tmp_path / "new" / "out.ipynb", tmp_path / "out.ipynb"]
    before = source.read_bytes()
    for target in targets:
        execute(source, target, {"N": 3, "NAME": "a\\b"})
    assert source.read_bytes() == before and targets[0].read_bytes() == targets[1].read_bytes()
    assert capfd.readouterr() == (2 * "3 a\\b\n", "")  # and no advice from the kernel
    result = nbformat.read(target, as_version=4)
    assert result.cells[0].source == "N = 3\nNAME: str = 'a\\\\b'\nNAMES = ''"
    bar, stream = result.cells[1].outputs
    assert bar.data == {"text/plain": "step 2"} and stream.text == "3 a\\b\n"
    assert [dict(cell.metadata) for cell in result.cells] == [{"tags": ["parameters"]}, {}]
    assert result.metadata.kernelspec.name == "python3" and len(result.metadata) == 2
    assert ScriptExporter().from_notebook_node(result)[1]["output_extension"] == ".py"


RAISES = "raise ValueError(NAME)", ": wrong\n{} was not written: ValueError\n"
SLEEPS = "import time; time.sleep(600)", "{} was not written: interrupted\n"


@pytest.mark.slow
@pytest.mark.parametrize(("source", "end"), [RAISES, SLEEPS], ids=["raises", "interrupted"])
def test_a_run_that_fails_ends_in_a_sentence_and_changes_nothing(notebook, source, end):
    path = notebook(f"print('ready', flush=True)\n{source}")
    before, pipes = path.read_bytes(), {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "helpers.notebook", path, "NAME=wrong"]
    with subprocess.Popen(
        command, cwd=PROJECT, text=True, preexec_fn=interruptible, **pipes
    ) as process:
        assert [process.stdout.readline() for _ in range(2)] == [f"== {path}\n", "ready\n"]
        if source == SLEEPS[0]:
            process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 1 and path.read_bytes() == before
    assert error.endswith(end.format(path)) and error.count("Traceback") <= 1


@pytest.mark.parametrize("parameters", ["M == 2", "MN = 2", "f(M=2)", "# M = 2"])
def test_a_parameter_that_the_notebook_lacks_is_refused(notebook, tmp_path, parameters):
    with pytest.raises(ValueError, match="no parameter 'M'"):
        execute(notebook("1", parameters), tmp_path / "unused", {"M": 2})
