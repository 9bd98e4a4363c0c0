"""The matrix of an AnnData file as row chunks in CSR form, whatever its storage, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import h5py
import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.datasets._ahead import ahead
from embbench.datasets._csc import Csc
from embbench.datasets._h5ad import near, reading
from embbench.datasets._packed import packing
from embbench.datasets._pieces import (
    CHUNK_ROWS,
    CHUNK_VALUES,
    SAMPLE,
    check_indices,
    native,
    row_blocks,
    starts,
    stored_sample,
)
from embbench.datasets._zarr import ZarrGroup

DEAR = 10_000_000  # compressed values whose unpacking is noticed: some 0.3 CPU s a pass with gzip


class Matrix(Protocol):
    """Cells x genes of ``shape`` (m, g), read by rows; the chunk after the one that is worked on is read meanwhile."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        ...

    @property
    def label(self) -> str:
        """Its name in the file, ``X`` or ``layers/NAME``."""
        ...

    @property
    def packed(self) -> str | None:
        """How the stored values are compressed, None where they are not."""
        ...

    @property
    def stored(self) -> int:
        """Number of stored values."""
        ...

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """First row and values of each chunk, in order; chunks without a row of ``wanted``, shape (m,), are skipped."""
        ...

    def sample(self) -> np.ndarray:
        """Some stored values from all over the matrix, shape (k,)."""
        ...


def open_matrix(file: h5py.File, layer: str | None, shape: tuple[int, int], chunk_values: int = CHUNK_VALUES) -> Matrix:
    """``X`` or a layer of an open file.

    Raises
    ------
    UserError
        Missing, of another shape than obs x var, not numbers, or of unknown storage.
    """
    label = "X" if layer is None else f"layers/{layer}"
    item = file.get(label)
    if item is None:
        layers = sorted(file["layers"]) if isinstance(file.get("layers"), Mapping) else []
        hint = near(layer, layers) if layer else f"; layers: {', '.join(layers) or 'none'} (choose one with --layer)"
        raise UserError(f"{file.filename}: there is no {label}{hint}")
    if hasattr(item, "as_matrix"):  # of several files (`embbench.datasets._assembled`), each checked when it is opened
        out = item.as_matrix(chunk_values)
    else:
        with reading(file.filename, label):
            out = _matrix(file.filename, label, item, chunk_values)
            values = item["data"] if isinstance(item, Mapping) else item
            if values.dtype.kind not in "iuf":
                raise UserError(
                    f"{file.filename}: {label} holds {values.dtype}, expected numbers (counts or log-normalised)"
                )
    if out.shape != shape or 0 in shape:
        raise UserError(
            f"{file.filename}: {label} has shape {out.shape}, expected {shape[0]} cells x {shape[1]} genes (obs, var), "
            "at least one of each; write the file again"
        )
    return out


def packed_notice(matrix: Matrix) -> list[str]:
    """What to tell of a matrix whose compression makes its import dearer; empty for a small or uncompressed one."""
    if matrix.packed is None or matrix.stored < DEAR:
        return []
    return [
        f"{matrix.label} is compressed ({matrix.packed}): unpacking its {matrix.stored:,} values takes up to 6 times "
        "the CPU of reading them plain, at this import alone (the cells that are kept are not compressed)"
    ]


def _matrix(path: str, label: str, item: Any, chunk_values: int) -> Matrix:
    if not isinstance(item, Mapping):
        if item.ndim != 2:
            raise UserError(f"{path}: {label} has shape {item.shape}, expected cells x genes")
        return Dense(label, (item.shape[0], item.shape[1]), path, item, chunk_values, packing(item, path, label))
    kind = item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", ""))
    kind = (kind.decode() if isinstance(kind, bytes) else str(kind)).removesuffix("_matrix")
    raw = item.attrs.get("shape", item.attrs.get("h5sparse_shape"))
    if kind not in ("csr", "csc") or raw is None:
        raise UserError(f"{path}: {label} is stored as {kind or 'an unnamed group'}, expected csr, csc or dense")
    shape = (int(raw[0]), int(raw[1]))
    parts = {name: item[name] for name in ("data", "indices", "indptr")}
    indptr = parts["indptr"][...].astype(np.int64)
    major = shape[0] if kind == "csr" else shape[1]
    counts = {len(parts["data"]), len(parts["indices"])}
    if len(indptr) != major + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any() or counts != {int(indptr[-1])}:
        raise UserError(
            f"{path}: {label}/indptr does not describe {major} {'rows' if kind == 'csr' else 'columns'} of "
            f"{sorted(counts)} values (found {len(indptr)} entries that end at {indptr[-1:].tolist()}); write it again"
        )
    if isinstance(item, ZarrGroup) and indptr[-1]:
        parts["data"].check_whole()
        parts["indices"].check_whole()
    chosen = Csr if kind == "csr" else Csc
    packed = packing(item, path, label)
    return chosen(label, shape, path, parts["data"], parts["indices"], indptr, chunk_values, packed)


@dataclass(frozen=True)
class Dense:
    """A dense dataset of shape (m, g)."""

    label: str
    shape: tuple[int, int]
    path: str
    values: h5py.Dataset
    chunk_values: int
    packed: str | None = None

    @property
    def stored(self) -> int:
        """Number of stored values."""
        return self.shape[0] * self.shape[1]

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g); see `Matrix`."""
        return ahead(self._read(wanted))

    def _read(self, wanted: np.ndarray | None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        step = max(1, min(CHUNK_ROWS, self.chunk_values // self.shape[1]))
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            if wanted is not None and not wanted[start:stop].any():
                continue
            with reading(self.path, self.label):
                block = native(self.values[start:stop])
            yield start, sparse.csr_matrix(block)

    def sample(self) -> np.ndarray:
        """Some values from all over the matrix, shape (k,)."""
        rows = max(1, SAMPLE // self.shape[1])
        with reading(self.path, self.label):
            return np.concatenate([native(self.values[i : i + rows]).ravel() for i in starts(self.shape[0], rows)])


@dataclass(frozen=True)
class Csr:
    """Compressed rows."""

    label: str
    shape: tuple[int, int]
    path: str
    data: h5py.Dataset
    indices: h5py.Dataset
    indptr: np.ndarray
    chunk_values: int
    packed: str | None = None

    @property
    def stored(self) -> int:
        """Number of stored values."""
        return int(self.indptr[-1])

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g); see `Matrix`."""
        return ahead(self._read(wanted))

    def _read(self, wanted: np.ndarray | None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        for start, stop in row_blocks(self.indptr, self.chunk_values):
            if wanted is not None and not wanted[start:stop].any():
                continue
            span = slice(int(self.indptr[start]), int(self.indptr[stop]))
            with reading(self.path, self.label):
                data, indices = native(self.data[span]), self.indices[span]
            check_indices(indices, self.shape[1], self.path, self.label)
            block = sparse.csr_matrix(
                (data, indices, self.indptr[start : stop + 1] - span.start), (stop - start, self.shape[1])
            )
            block.sum_duplicates()
            yield start, block

    def sample(self) -> np.ndarray:
        """Some stored values from all over the matrix, shape (k,)."""
        return stored_sample(self.data, self.path, self.label)
