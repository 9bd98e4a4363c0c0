"""A matrix stored by columns, read by rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from embbench.datasets._ahead import ahead
from embbench.datasets._h5ad import reading
from embbench.datasets._pieces import check_indices, native, row_blocks, stored_sample


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
    packed: str | None = None
    scratch: Path | None = None
    _blocks: list[tuple[int, int]] | None = None

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g); needs ``scratch``, a folder with room for 16 bytes per stored value."""
        if self.scratch is None:
            raise RuntimeError(
                f"{self.label}: a column-compressed matrix needs a scratch folder before it is read by rows"
            )
        return ahead(self._read(wanted, self.scratch))

    def _read(self, wanted: np.ndarray | None, scratch: Path) -> Iterator[tuple[int, sparse.csr_matrix]]:
        if self._blocks is None:
            self._blocks = self._deal(scratch)
        kind = self._record()
        for i, (start, stop) in enumerate(self._blocks):
            if wanted is not None and not wanted[start:stop].any():
                continue
            triples = np.fromfile(scratch / f"{i}.rows", dtype=kind)
            place = (triples["row"], triples["column"])
            yield start, sparse.coo_matrix((triples["value"], place), (stop - start, self.shape[1])).tocsr()

    @property
    def stored(self) -> int:
        """Number of stored values."""
        return int(self.indptr[-1])

    def sample(self) -> np.ndarray:
        """Some stored values from all over the matrix, shape (k,)."""
        return stored_sample(self.data, self.path, self.label)

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
