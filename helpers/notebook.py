"""Execute a notebook, with live output: python -m helpers.notebook NOTEBOOK [NAME=VALUE ...]."""

import argparse
import ast
import contextlib
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from helpers.files import write_atomically

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# Without this, nbconvert gives a notebook's script no .py.
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}


class _LiveClient(NotebookClient):
    """Prints streams and tracebacks as they come."""

    def process_message(self, msg: dict, cell: dict, cell_index: int) -> dict | None:
        kind, content = msg["msg_type"], msg["content"]
        if kind in ("stream", "error"):
            text = content["text"] if kind == "stream" else "\n".join(content["traceback"]) + "\n"
            print(text, end="", file=getattr(sys, content.get("name", "stderr")), flush=True)
        return super().process_message(msg, cell, cell_index)


def execute(source: str | Path, target: str | Path, parameters: dict[str, object]) -> None:
    """Execute a notebook in the current folder; write it to target once all of its cells ran.

    Without times, paths and versions, the same run gives the same file. parameters are new values
    of names in the cell tagged "parameters". Raises ValueError for a name that is not there,
    OSError for a file that cannot be read or written, and nbclient's errors if a cell raises.
    """
    notebook = nbformat.read(source, as_version=4)
    cells = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", ())}
    cell = cells.get("parameters", {"source": ""})
    for name, value in parameters.items():
        line = rf"(?m)^({name} *(:[^=\n]+)?=)(?!=).*"  # an annotation stays
        cell["source"], count = re.subn(line, lambda m, v=value: f"{m[1]} {v!r}", cell["source"])
        if not count:
            raise ValueError(f"{source} has no parameter {name!r} in a cell tagged parameters.")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    options = {"iopub_timeout": 60, "raise_on_iopub_timeout": True}  # or late output is lost
    options |= {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]}  # no advice on encryption
    client = _LiveClient(notebook, startup_timeout=600, coalesce_streams=True, **options)
    with client.setup_kernel():  # client.execute would answer Ctrl-C itself, with a traceback
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
            cell.metadata = {key: cell.metadata[key] for key in cell.metadata if key == "tags"}
    write_atomically(target, nbformat.writes(notebook).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m helpers.notebook", description=__doc__)
    parser.add_argument("notebook")
    parser.add_argument("--to", metavar="FILE", help="the notebook itself unless given")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_intermixed_args()
    target, parameters = options.to or options.notebook, {}
    for text in options.parameters:
        name, _, parameters[name] = text.partition("=")
        with contextlib.suppress(SyntaxError, ValueError):  # no literal: a string
            parameters[name] = ast.literal_eval(parameters[name])
    print(f"== {target}", flush=True)
    try:
        execute(options.notebook, target, parameters)
    except (CellExecutionError, KeyboardInterrupt, OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "ename", f"{error}") or "interrupted"
        sys.exit(f"{target} was not written: {reason}")
