"""How a stored matrix is cut: blocks of rows, samples of its values, and the checks of what was read."""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np

from embbench.core import UserError
from embbench.datasets._h5ad import reading

CHUNK_VALUES = 1 << 23  # stored values per chunk: some 350 MB with what is derived from them and the chunk read ahead
CHUNK_ROWS = 1 << 15
SAMPLE, SAMPLES = 1 << 15, 16  # stored values per place, and places, that the scale is told from


def native(values: np.ndarray) -> np.ndarray:
    """Values in a type that sparse matrices know (not float16, not of foreign byte order)."""
    return values.astype(np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("="), copy=False)


def stored_sample(data: h5py.Dataset, path: str, label: str) -> np.ndarray:
    with reading(path, label):
        return np.concatenate([native(data[i : i + SAMPLE]) for i in starts(len(data), SAMPLE)])


def starts(size: int, step: int) -> np.ndarray:
    return np.unique(np.linspace(0, max(size - step, 0), SAMPLES).astype(np.int64))


def row_blocks(indptr: np.ndarray, values: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) rows with at most ``values`` stored values each (or one row)."""
    start, rows = 0, len(indptr) - 1
    while start < rows:
        stop = int(np.searchsorted(indptr, indptr[start] + values, side="right")) - 1
        stop = min(max(stop, start + 1), start + CHUNK_ROWS, rows)
        yield start, stop
        start = stop


def check_indices(indices: np.ndarray, limit: int, path: str, label: str) -> None:
    """Refuse sparse indices outside the matrix, which would otherwise read foreign memory."""
    if indices.size and (indices.min() < 0 or indices.max() >= limit):
        raise UserError(
            f"{path}: {label}/indices run from {indices.min()} to {indices.max()}, not 0 to {limit - 1}; rewrite it"
        )
