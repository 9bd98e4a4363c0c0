"""Values of cells as numbers that sort by gene and value, so that one sort and one search serve all genes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import sparse

STRETCH = 1 << 20  # values at a time
_SPAN, _LOW, _HIGH = 32, 1 << 31, np.int32(0x7FFFFFFF)

Cells: TypeAlias = np.ndarray | sparse.csr_matrix


def canonical(cells: Cells) -> Cells:
    """Cells (m, g) as an array, or as CSR that holds every entry once; what the caller has is not changed."""
    if not sparse.issparse(cells):
        return np.asarray(cells)
    rows = sparse.csr_matrix(cells)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def checked(cells: Cells) -> Cells:
    """`canonical` cells; ValueError unless they are finite numbers of shape (m, g)."""
    cells = canonical(cells)
    if cells.ndim != 2 or cells.dtype.kind not in "fiub":
        raise ValueError(f"rank-sum test: cells must be numbers (m, g), found {cells.dtype} of shape {cells.shape}")
    if bad := sum(int((~np.isfinite(part)).sum()) for part in _stretches(cells)):
        raise ValueError(f"rank-sum test: cells must be finite, found {bad} values that are not")
    return cells


def fits_float32(cells: Cells) -> bool:
    """Whether float32 holds every value exactly."""
    if cells.dtype.kind == "b" or cells.dtype in (np.float32, np.float16):
        return True
    with np.errstate(over="ignore"):
        return all(np.array_equal(x.astype(np.float32).astype(np.float64), x) for x in _stretches(cells))


def _stretches(cells: Cells) -> Iterator[np.ndarray]:
    """Values (the stored ones of CSR) some rows at a time, so that temporary copies stay small."""
    values = cells if isinstance(cells, np.ndarray) else np.asarray(cells.data)
    step = max(1, STRETCH // max(1, values[:1].size))
    yield from (values[start : start + step] for start in range(0, len(values), step))


def entries(cells: Cells, size: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of genes, and of the values in them that are not 0 the gene and the value.

    Parameters
    ----------
    cells : of shape (m, g), checked.
    size : bound on the entries of a block, of CSR on those that are stored (one gene at least).
    """
    if sparse.issparse(cells):
        yield from _sparse_entries(cells, size)
        return
    m, genes = cells.shape
    step = max(1, size // max(1, m))
    for start in range(0, genes, step):
        block = slice(start, min(start + step, genes))
        part = np.ascontiguousarray(cells[:, block]).ravel()
        at = np.flatnonzero(part)
        yield block, at % (block.stop - block.start) + block.start, part[at]


def _sparse_entries(cells: sparse.csr_matrix, size: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    genes = cells.shape[1]
    if cells.nnz <= size:
        kept = cells.data != 0
        yield slice(0, genes), cells.indices[kept].astype(np.int64), cells.data[kept]
        return
    columns = cells.tocsc()
    ends, start = columns.indptr, 0
    while start < genes:
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + size, side="right")) - 1)
        values = columns.data[ends[start] : ends[stop]]
        gene = np.repeat(np.arange(start, stop), np.diff(ends[start : stop + 1]))
        yield slice(start, stop), gene[values != 0], values[values != 0]
        start = stop


@dataclass(frozen=True)
class Runs:
    """Equal values of a gene together, in the order of (gene, value).

    Parameters
    ----------
    keys : one number per run, ascending.
    gene : of each run, counted from the first gene of the block.
    times : how many values each run has.
    count, negative : values that are not 0 and values below 0 of each gene of the block.
    """

    keys: np.ndarray
    gene: np.ndarray
    times: np.ndarray
    count: np.ndarray
    negative: np.ndarray


def runs(block: slice, gene: np.ndarray, values: np.ndarray, *, wide: bool) -> Runs:
    """Runs of the values of a block of genes, none of them 0."""
    width, local = block.stop - block.start, gene - block.start
    count = np.bincount(local, minlength=width)
    negative = np.bincount(local[values < 0], minlength=width)
    keys = packed(gene, values, wide=wide)
    keys.sort()
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    at = np.flatnonzero(new)
    return Runs(keys[at], np.repeat(np.arange(width), count)[at], np.diff(np.append(at, len(keys))), count, negative)


def packed(gene: np.ndarray, values: np.ndarray, *, wide: bool) -> np.ndarray:
    """Numbers that sort as (gene, value): 64-bit integers for values that float32 holds, else (``wide``) complex ones,
    which numpy orders by real, then imaginary part.
    """
    if wide:
        keys = gene.astype(np.complex128)
        keys.imag = values
        return keys
    bits = values.astype(np.float32).view(np.int32)
    return (gene.astype(np.int64) << _SPAN) + (bits ^ ((bits >> 31) & _HIGH)) + _LOW


def widened(keys: np.ndarray) -> np.ndarray:
    """Integer keys as complex ones."""
    bits = ((keys & ((1 << _SPAN) - 1)) - _LOW).astype(np.int32)
    return packed(keys >> _SPAN, (bits ^ ((bits >> 31) & _HIGH)).view(np.float32), wide=True)


def cubes(times: np.ndarray) -> np.ndarray:
    """t^3 - t, float64."""
    t = times.astype(np.float64)
    return t * t * t - t
