"""Write this repository's address where it is needed: python -m helpers.address OWNER/NAME

A notebook by itself fetches the rest from there, and its badge opens it in Colab.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from helpers.files import write_atomically


def write_address(root: str | Path, name: str) -> list[Path]:
    """Change README and notebooks in a folder; the files that changed.

    name: of a GitHub repository, OWNER/NAME. Raises ValueError for anything else.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"{name!r} is no repository; expected OWNER/NAME, as GitHub spells it.")
    address, changed = f"https://github.com/{name}", []
    for path in [Path(root, "README.md"), *sorted(Path(root).glob("MNIST_*.ipynb"))]:
        before = after = path.read_text(encoding="utf-8")
        for pattern, new in (
            (r"(?<=colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(?=/blob/)", name),
            (r'(?<="REPOSITORY = \\")[^"\\]*(?=\\")', address),
            (r"(?<=git clone )\S+(?= mnist-study)", address),
            (r'(?<=torch\.hub\.load\(")[\w.-]+/[\w.-]+(?=")', name),
            (r"Replace REPOSITORY with this page's address\. ", ""),
        ):
            after = re.sub(pattern, new, after)
        if after != before:
            write_atomically(path, after.encode())
            changed.append(path)
    return changed


if __name__ == "__main__":
    try:
        for file in write_address(Path(__file__).parent.parent, " ".join(sys.argv[1:])):
            print(file.name)
    except ValueError as error:
        sys.exit(f"{error}")
