"""The matrix of an AnnData file as row chunks in CSR form, whatever its storage, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.datasets._h5ad import near, reading

CHUNK_VALUES = 1 << 22  # stored values per chunk: some 200 MB with everything that is derived from them
CHUNK_ROWS = 1 << 15
SAMPLE, SAMPLES = 1 << 15, 16  # stored values per place, and places, that the scale is told from


class Matrix(Protocol):
    """Cells x genes of ``shape`` (m, g), read by rows."""

    shape: tuple[int, int]
    label: str

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
        layers = sorted(file["layers"]) if isinstance(file.get("layers"), h5py.Group) else []
        hint = near(layer, layers) if layer else f"; layers: {', '.join(layers) or 'none'} (choose one with --layer)"
        raise UserError(f"{file.filename}: there is no {label}{hint}")
    with reading(file.filename, label):
        out = _matrix(file.filename, label, item, chunk_values)
        values = item if isinstance(item, h5py.Dataset) else item["data"]
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


def _matrix(path: str, label: str, item: h5py.Group | h5py.Dataset, chunk_values: int) -> Matrix:
    if isinstance(item, h5py.Dataset):
        if item.ndim != 2:
            raise UserError(f"{path}: {label} has shape {item.shape}, expected cells x genes")
        return Dense(label, (item.shape[0], item.shape[1]), item, chunk_values)
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
    chosen = Csr if kind == "csr" else Csc
    return chosen(label, shape, path, parts["data"], parts["indices"], indptr, chunk_values)


@dataclass(frozen=True)
class Dense:
    """A dense dataset of shape (m, g)."""

    label: str
    shape: tuple[int, int]
    values: h5py.Dataset
    chunk_values: int

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g); see `Matrix`."""
        step = max(1, min(CHUNK_ROWS, self.chunk_values // self.shape[1]))
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            if wanted is not None and not wanted[start:stop].any():
                continue
            with reading(self.values.file.filename, self.label):
                block = native(self.values[start:stop])
            yield start, sparse.csr_matrix(block)

    def sample(self) -> np.ndarray:
        """Some values from all over the matrix, shape (k,)."""
        rows = max(1, SAMPLE // self.shape[1])
        with reading(self.values.file.filename, self.label):
            return np.concatenate([native(self.values[i : i + rows]).ravel() for i in _starts(self.shape[0], rows)])


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

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g); see `Matrix`."""
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
        return _stored_sample(self.data, self.path, self.label)


def native(values: np.ndarray) -> np.ndarray:
    """Values in a type that sparse matrices know (not float16, not of foreign byte order)."""
    return values.astype(np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("="), copy=False)


def _stored_sample(data: h5py.Dataset, path: str, label: str) -> np.ndarray:
    with reading(path, label):
        return np.concatenate([native(data[i : i + SAMPLE]) for i in _starts(len(data), SAMPLE)])


def _starts(size: int, step: int) -> np.ndarray:
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


@dataclass
class Csc:
    """Compressed columns, turned into rows once: values are dealt into one scratch file per row block."""

    label: str
    shape: tuple[int, int]
    path: str
    data: h5py.Dataset
    indices: h5py.Dataset
    indptr: np.ndarray
    chunk_values: int
    scratch: Path | None = None
    _blocks: list[tuple[int, int]] | None = None

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g); needs ``scratch``, a folder with room for 16 bytes per stored value."""
        if self.scratch is None:
            raise RuntimeError(
                f"{self.label}: a column-compressed matrix needs a scratch folder before it is read by rows"
            )
        if self._blocks is None:
            self._blocks = self._deal(self.scratch)
        kind = self._record()
        for i, (start, stop) in enumerate(self._blocks):
            if wanted is not None and not wanted[start:stop].any():
                continue
            triples = np.fromfile(self.scratch / f"{i}.rows", dtype=kind)
            place = (triples["row"], triples["column"])
            yield start, sparse.coo_matrix((triples["value"], place), (stop - start, self.shape[1])).tocsr()

    def sample(self) -> np.ndarray:
        """Some stored values from all over the matrix, shape (k,)."""
        return _stored_sample(self.data, self.path, self.label)

    def _record(self) -> np.dtype:
        return np.dtype(
            [("row", np.int32), ("column", np.int32), ("value", native(np.zeros(0, self.data.dtype)).dtype)]
        )

    def _pieces(self) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, int(self.indptr[-1]), self.chunk_values):
            span = slice(start, min(start + self.chunk_values, int(self.indptr[-1])))
            with reading(self.path, self.label):
                rows = self.indices[span]
            check_indices(rows, self.shape[0], self.path, self.label)
            yield span, rows

    def _deal(self, scratch: Path) -> list[tuple[int, int]]:
        per_row = np.zeros(self.shape[0] + 1, dtype=np.int64)
        for _, rows in self._pieces():
            per_row[1:] += np.bincount(rows, minlength=self.shape[0])
        blocks = list(row_blocks(np.cumsum(per_row), self.chunk_values))
        starts = np.array([start for start, _ in blocks])
        for i in range(len(blocks)):
            (scratch / f"{i}.rows").write_bytes(b"")
        for span, rows in self._pieces():
            with reading(self.path, self.label):
                values = self.data[span]
            of = np.searchsorted(starts, rows, side="right") - 1
            out = np.empty(len(rows), dtype=self._record())
            out["row"], out["value"] = rows - starts[of], values
            out["column"] = np.searchsorted(self.indptr, np.arange(span.start, span.stop), side="right") - 1
            order = np.argsort(of, kind="stable")
            ends = np.cumsum(np.bincount(of, minlength=len(blocks)))
            for i, part in enumerate(np.split(out[order], ends[:-1])):
                if len(part):
                    with (scratch / f"{i}.rows").open("ab") as file:
                        part.tofile(file)
        return blocks
