"""Executing a notebook: it shows what the cells show, and no run is lost on the way."""

import io
import os
import runpy
import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from helpers import execute as module
from helpers.execute import execute
from tests.helpers import PROJECT


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook with a parameters cell and one of this source; its path."""

    def write(source, parameters="N = 1\nNAME: str = 'x'  # a name\nNAMES = ''"):
        parameters = nbformat.v4.new_code_cell(parameters)
        parameters.metadata = {"tags": ["parameters"], "scrolled": True}
        cells = [parameters, nbformat.v4.new_code_cell(source)]
        path = tmp_path / "notebook.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return write


def shown(path):
    """What the last cell of an executed notebook printed."""
    outputs = nbformat.read(path, as_version=4).cells[-1].outputs
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_a_notebook_is_executed_with_its_parameters_and_saved_without_times_and_versions(
    notebook, tmp_path, capsys
):
    source = notebook(
        "from IPython.display import display\n"
        "bar = display({'text/plain': '0 %'}, raw=True, display_id='bar')\n"
        "print(N, NAME)\n"
        "display({'text/plain': '100 %'}, raw=True, display_id='bar', update=True)\n"
        "print('ready')"
    )
    before = source.read_bytes()
    target = tmp_path / "new" / "out.ipynb"
    execute(source, target, {"N": 3, "NAME": "a\\b"})
    assert source.read_bytes() == before
    result = nbformat.read(target, as_version=4)
    parameters, cell = result.cells
    assert parameters.source == "N = 3\nNAME: str = 'a\\\\b'\nNAMES = ''"
    [bar] = [output for output in cell.outputs if output.output_type == "display_data"]
    assert bar.data == {"text/plain": "100 %"}
    assert capsys.readouterr().out == shown(target) == "3 a\\b\nready\n"
    assert result.metadata.keys() == {"kernelspec"}
    assert [dict(cell.metadata) for cell in result.cells] == [{"tags": ["parameters"]}, {}]


def test_a_cell_that_raises_leaves_the_notebook_as_it_was(notebook):
    path = notebook("print(1)\nraise ValueError('this went wrong')")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="this went wrong"):
        execute(path, path, {})
    assert path.read_bytes() == before


@pytest.mark.parametrize("parameters", ["M == 2", "MN = 2", "f(M=2)", "# M = 2"])
def test_a_parameter_that_the_notebook_does_not_have_is_refused(notebook, tmp_path, parameters):
    with pytest.raises(ValueError, match="no parameter 'M'"):
        execute(notebook("1", parameters), tmp_path / "unused", {"M": 2})


def test_a_target_that_must_not_be_replaced_is_refused_before_the_run(
    notebook, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="cannot write"):
        execute(notebook("open('ran', 'w')"), tmp_path, {})
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def run(monkeypatch):
    """python -m helpers.execute PATH, with this stream as stdout and perhaps stderr."""

    def run(path, stdout, stderr=sys.stderr):
        monkeypatch.setattr(sys, "argv", ["execute", str(path)])
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        runpy.run_path(PROJECT / "helpers" / "execute.py", run_name="__main__")

    return run


def test_a_console_that_lacks_a_letter_or_is_closed_meanwhile_loses_no_run(notebook, run):
    path = notebook("print('1 \N{RIGHTWARDS ARROW} 2', flush=True)\nprint('closed')")

    class Console(io.TextIOWrapper):
        def write(self, text):
            if "closed" in text:
                raise BrokenPipeError
            return super().write(text)

    console = Console(io.BytesIO(), encoding="cp1252")
    run(path, console)
    assert shown(path) == "1 \N{RIGHTWARDS ARROW} 2\nclosed\n"
    assert b"1 ? 2" in console.buffer.getvalue()


def test_what_a_cell_shows_is_not_lost_without_a_word(notebook, monkeypatch):
    monkeypatch.setattr(module, "LATEST", 1)
    # Holds back what is displayed, and does not wait for it when the cell ends.
    path = notebook("""
        import sys, time
        sys.stdout.flush = sys.stderr.flush = lambda: None
        get_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(3))
        display({"text/plain": "late"}, raw=True)
    """)
    with pytest.raises(CellTimeoutError):
        execute(path, path, {})


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_the_bar_while_the_cell_runs(notebook, run, capfd):
    import pty

    path = notebook(
        "from IPython.display import display\n"
        "for i in range(3):\n"
        "    display({'text/plain': f'step {i}'}, raw=True, display_id='bar', update=i > 0)\n"
        "print('done')"
    )
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        run(path, terminal, terminal)
        seen = os.read(ours, 2**16).decode()
    os.close(ours)
    for text in ("\r\033[Kstep 0", "\r\033[Kstep 2", "\r\033[Kdone"):
        assert text in seen
    assert capfd.readouterr() == ("", "")  # no advice on encryption from the kernel
