"""Execute a notebook and show meanwhile what it prints, its progress bar included.

python -m helpers.execute NOTEBOOK [--to FILE] [NAME=VALUE ...]

jupyter execute shows nothing before the end, and papermill no bar, as that is a display which
changes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from helpers.files import writable, write_atomically

# What a cell shows may arrive late on a busy machine, and would be lost without a word.
LATEST = 60  # seconds after the cell is done


class _LiveClient(NotebookClient):
    """Prints what the cells print and, on a terminal, the line of text that a display updates."""

    def process_message(self, msg: dict, cell: dict, cell_index: int) -> dict | None:
        content = msg["content"]
        if msg["msg_type"] == "stream":
            _show_line("")
            _print(content["text"], getattr(sys, content["name"]))
        elif msg["msg_type"] in ("display_data", "update_display_data"):
            _show_line(content["data"].get("text/plain", ""))
        return super().process_message(msg, cell, cell_index)


def _print(text: str, stream: TextIO) -> None:
    """Print at once, unless the console is closed or lacks a letter: that must not cost the run."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end="", file=stream, flush=True)


def _show_line(text: str) -> None:
    """Replace the terminal's last line; where stderr is no terminal, nothing."""
    if sys.stderr.isatty():
        _print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", sys.stderr)


def execute(source: str | Path, target: str | Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook in the current folder and write it, with its outputs, once it is done.

    It is saved without times, paths and versions, so that the same run gives the same file.

    source, target: files, which may be the same one.
    parameters: values in place of those in the cell tagged "parameters".

    Raises OSError before anything runs for a target that must not be replaced, ValueError for a
    parameter that the notebook does not have, and nbclient's errors if a cell raises, the kernel
    dies or what a cell shows does not arrive (a TimeoutError). The target is then left alone.
    """
    writable(target)  # or the run would be lost
    notebook = nbformat.read(source, as_version=4)
    for name, value in parameters.items():
        _set_parameter(notebook, name, value)
    client = _LiveClient(
        notebook,
        kernel_name="python3",
        coalesce_streams=True,
        iopub_timeout=LATEST,
        raise_on_iopub_timeout=True,
        # No advice on encryption, and no complaints of a kernel that is ended. What a cell raises
        # does not come by the log.
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )
    # client.execute would answer Ctrl-C itself, with a traceback from the middle of it.
    try:
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
    finally:
        _show_line("")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel}
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in cell.metadata if key == "tags"}
    write_atomically(target, nbformat.writes(notebook).encode())


def _set_parameter(notebook: nbformat.NotebookNode, name: str, value: object) -> None:
    assignment = rf"(?m)^({name} *(:[^=\n]+)?=)(?!=).*"  # an annotation stays
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source, found = re.subn(
                assignment, lambda match: f"{match[1]} {value!r}", cell.source
            )
            if found:
                return
    raise ValueError(f"the notebook has no parameter {name!r} in a cell tagged parameters.")


def _parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE as name and value; a VALUE that is no Python literal is a string."""
    name, _, value = text.partition("=")
    if not name.isidentifier() or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m helpers.execute", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--to", type=Path, metavar="FILE", help="in place unless told")
    parser.add_argument("parameters", nargs="*", type=_parameter, metavar="NAME=VALUE")
    options = parser.parse_intermixed_args()
    target = options.to or options.notebook
    sys.stdout.reconfigure(errors="replace")  # a console of cp1252, say
    print(f"== {target}", flush=True)
    try:
        execute(options.notebook, target, dict(options.parameters))
    except (CellExecutionError, DeadKernelError, OSError, ValueError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        logging.disable()  # asyncio would report the cell that was cut off
        sys.exit(f"interrupted; {target} is as it was.")
