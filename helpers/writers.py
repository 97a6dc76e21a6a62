"""Who wrote MNIST's digits, from the extended labels of QMNIST.

mnist_writers.csv.gz: Yadav and Bottou 2019, arXiv:1905.10498, github.com/facebookresearch/qmnist,
under a BSD-style license; split, index, digit, NIST's series and writer of all 70,000 images.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import torch


@functools.cache
def _table() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("mnist_writers.csv.gz"))


def mnist_writers(part: str, labels: torch.Tensor) -> pd.DataFrame:
    """Per image its writer, and the series: 0 is Census employees, 4 high-school students.

    part: "train" or "test". Raises ValueError if the labels, int64 [N], are not MNIST's.
    """
    table = _table()[_table().split == part].reset_index(drop=True)
    if table.digit.tolist() != labels.tolist():
        raise ValueError(f"these are not the labels of MNIST's {part} set: no writers are known.")
    return table[["writer", "series"]]
