"""Parquet files of cells: lists of gene tokens and counts, read row group by row group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.datasets._ahead import ahead
from embbench.datasets._h5ad import Column, first_line
from embbench.datasets._pieces import SAMPLES, starts

MARKER = -2.0  # value of the first token of each cell, which is no gene


@contextlib.contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """`UserError` that names the file in place of what pyarrow raises on a damaged one."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read {what} ({first_line(error)}); fetch it again") from error


@contextlib.contextmanager
def opened(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """A parquet file that has these columns.

    Raises
    ------
    UserError
        It cannot be read, or lacks one of them.
    """
    import pyarrow.parquet as pq

    with reading(str(path), "as parquet"):
        file = pq.ParquetFile(path)
    with file:
        if absent := [name for name in columns if name not in file.schema_arrow.names]:
            raise UserError(
                f"{path}: expected the columns {', '.join(columns)}, found no {', '.join(absent)} (there are: "
                f"{', '.join(file.schema_arrow.names)}); the file is not the published one"
            )
        yield file


def distinct(file: Any, path: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The different rows of some columns, as text, sorted; `UserError`: a row group of ``path`` cannot be read."""
    found: set[tuple[str, ...]] = set()
    for i in range(file.metadata.num_row_groups):
        with reading(path, f"in row group {i}"):
            table = file.read_row_group(i, columns=list(columns), use_threads=False)
            rows = table.group_by(list(columns)).aggregate([]).to_pylist()
        found |= {tuple("" if row[name] is None else str(row[name]) for name in columns) for row in rows}
    return sorted(found)


def text_column(file: Any, path: str, name: str) -> Column:
    """A column of text of a parquet file; `UserError`: it cannot be read."""
    import pyarrow as pa

    with reading(path, f"in the column {name}"):
        whole = pa.chunked_array(file.read(columns=[name]).column(0)).cast(pa.string())
        found = whole.combine_chunks().dictionary_encode()
        found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        codes = found.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return Column(name, codes, tuple(found.dictionary.to_pylist()))


@dataclass(frozen=True)
class Shard:
    """The counts of a shard, see `embbench.datasets._matrix.Matrix`.

    Parameters
    ----------
    file : open parquet file.
    path : for messages.
    places : column of each token, -1 where it is no gene.
    genes : their number.
    """

    file: Any
    path: str
    places: np.ndarray
    genes: int
    label: str = "expressions"
    packed: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.file.metadata.num_rows, self.genes

    @property
    def stored(self) -> int:
        """Number of stored values, markers counted."""
        meta = self.file.metadata
        names = [meta.schema.column(j).path.partition(".")[0] for j in range(len(meta.schema))]
        at = names.index("expressions")
        return sum(meta.row_group(i).column(at).num_values for i in range(meta.num_row_groups))

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row groups of shape (rows, g); those without a wanted cell are not read."""
        return ahead(self._read(wanted))

    def sample(self) -> np.ndarray:
        """The values of some row groups, shape (k,)."""
        groups = starts(self.file.metadata.num_row_groups, 1)[:: max(1, SAMPLES // 4)]
        return np.concatenate([self._group(int(i)).data for i in groups])

    def _read(self, wanted: np.ndarray | None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        start = 0
        for i in range(self.file.metadata.num_row_groups):
            stop = start + self.file.metadata.row_group(i).num_rows
            if wanted is None or wanted[start:stop].any():
                yield start, self._group(i)
            start = stop

    def _group(self, i: int) -> sparse.csr_matrix:
        with reading(self.path, f"in row group {i}"):
            table = self.file.read_row_group(i, columns=["genes", "expressions"], use_threads=False)
        ends, tokens = _lists(table.column("genes"))
        same, values = _lists(table.column("expressions"))
        if not np.array_equal(ends, same):
            raise UserError(
                f"{self.path}: expected as many expressions as genes in each cell, found others in row group {i}"
            )
        first = ends[:-1][np.diff(ends) > 0]
        keep = np.ones(len(tokens), dtype=bool)
        keep[first[values[first] == MARKER]] = False
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])[ends]
        tokens, values = tokens[keep].astype(np.int64), values[keep].astype(np.float32)
        known = (tokens >= 0) & (tokens < len(self.places))
        columns = np.where(known, self.places[np.where(known, tokens, 0)], -1)
        if (columns < 0).any():
            raise UserError(
                f"{self.path}: expected tokens of the gene table, found {tokens[columns < 0][0]} in row group {i}; "
                "the tables are of different releases: fetch both again"
            )
        block = sparse.csr_matrix((values, columns, indptr), (len(ends) - 1, self.genes))
        block.sum_duplicates()
        return block


def _lists(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends, shape (rows + 1,), from 0, and values of a column of lists; a missing list is empty."""
    import pyarrow as pa

    found = column.combine_chunks()
    parts = found.chunks if isinstance(found, pa.ChunkedArray) else [found]
    sizes = np.concatenate([each.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for each in parts])
    values = np.concatenate([each.flatten().to_numpy(zero_copy_only=False) for each in parts])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)]), values
