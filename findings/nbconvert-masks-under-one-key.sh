#!/usr/bin/env bash
# Expected: ClearMetadataPreprocessor keeps all metadata that its mask names: with
#   ("language_info", "name") and ("language_info", "file_extension") in it, both.
# Seen: of several entries under one key only one survives, and the set's order decides which.
#   Without the name the result is no valid notebook, and nbconvert stops with an error.
# Seen with nbconvert 7.17.2: https://github.com/jupyter/nbconvert
# Matters: executed notebooks are cleared of times and paths before they are committed.
#   A mask that keeps what GitHub and nbconvert --to script need loses half of it.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q nbconvert==7.17.2 nbformat==5.11.1
"$tmp/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbformat.v4 import new_code_cell, new_notebook

about = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}

def kept(*masks):
    notebook = new_notebook(cells=[new_code_cell("1")], metadata={"language_info": dict(about)})
    clear = ClearMetadataPreprocessor(enabled=True, preserve_nb_metadata_mask=set(masks))
    return sorted(clear.preprocess(notebook, {})[0].metadata["language_info"])

name, ending = ("language_info", "name"), ("language_info", "file_extension")
seen = {"one": kept(name), "the other": kept(ending), "both": kept(name, ending), "whole": kept("language_info")}
print("nbconvert", version("nbconvert"))
for mask, keys in seen.items():
    print(f"{mask:10} {keys}")
sys.exit(not (seen["one"] == ["name"] and len(seen["both"]) == 1 and len(seen["whole"]) == 3))
PY
echo "Still so: of two masks under one key only one counts."
