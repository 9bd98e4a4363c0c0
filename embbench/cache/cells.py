"""Single cells of an imported screen in one HDF5 file: float32 CSR, uncompressed, in the order of the source.

This is the layout that every later step reads, whatever the source was (compressed, by columns, dense, zarr): 8 bytes a
value. 500 random controls of 200,000 cells x 8,000 genes take 14 CPU ms and 1.8 MB of reading (1.6 are theirs), the 182
cells of a condition 6 ms; the whole file is read once per process, for its seal.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from embbench.cache.keys import array_digest, digest
from embbench.cache.store import FORMATS, SEAL, DamagedFileError, check_seal, replacing, seal, versions
from embbench.core import Counts, UserError

KIND = "cells"
CONTROL, UNUSED = -1, -2  # values of `row`: a control cell, a cell of a condition that was dropped later
A, B, BOTH = 0, 1, 2  # values of `half`; -1 for perturbed cells
HALVES = {"A": (A, BOTH), "B": (B, BOTH), "all": (A, B, BOTH)}
TYPES = {"row": np.int32, "context": np.int32, "half": np.int8, "batch": np.int32, "total": np.float64}
SCALE = 1e4  # counts per cell after scaling
ROUNDING = 1e-3  # float32 logarithms move a count by less than this share; told counts need not be whole
_CHUNK = 1 << 16
_BLOCK = 1 << 22
_GAP = 1 << 12  # stored values between two wanted cells that are cheaper to read than to skip


class H5Cells:
    """Cells behind a dataset (`embbench.core.Cells`): the path is kept, the file is opened on first use.

    Parameters
    ----------
    path : a file written by `cells_writer`.
    genes : shape (g,), names of the panel; needed for `counts`.

    Raises
    ------
    DamagedFileError
        On first use: not such a file, or incomplete.
    """

    def __init__(self, path: Path, genes: np.ndarray | None = None) -> None:
        self.path, self.genes = Path(path), genes
        self._opened: tuple[int, h5py.File, dict[str, np.ndarray]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "genes": self.genes, "_opened": None}

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells of shape (m, g), float32, of a context code and half, in source order."""
        return self._sparse(self._controls(context, half)).toarray()

    def n_controls(self, context: int, half: str = "A") -> int:
        """Number of control cells of a context code and half."""
        return len(self._controls(context, half))

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """Control cells as counts (see `Counts`), in source order; ``index`` chooses some by ascending position.

        The file holds ``v = ln(1 + 1e4 x / total)`` in float32; counts below 1e5 come back exactly by rounding
        ``(exp(v) - 1) total / 1e4``.
        """
        if self.genes is None:
            raise UserError(f"{self.path}: counts need the names of the panel's genes; open the screen by its name")
        chosen = self._controls(context, half)
        chosen = chosen if index is None else chosen[index]
        cells, total = self._sparse(chosen), self._file()[1]["total"][chosen]
        known = np.repeat(total, np.diff(cells.indptr))
        linear = np.expm1(cells.data.astype(np.float64))
        raw = linear * known / SCALE
        whole = np.abs(raw - np.rint(raw)) <= ROUNDING * np.maximum(raw, 1)
        cells.data = np.where(np.isfinite(known), np.where(whole, np.rint(raw), raw), linear).astype(np.float32)
        return Counts(cells, self.genes, total)

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names of control cells in the source file, shape (m,), str, in source order.

        Raises
        ------
        UserError
            A name repeats anywhere in the file: it would not say which cell is meant.
        """
        return np.char.decode(self._names()[self._controls(context, half)], "utf-8")

    def table(self) -> dict[str, np.ndarray]:
        """All kept cells in source order: ``name`` (str), and the codes of `columns`, each of shape (cells,).

        Raises
        ------
        UserError
            A name repeats.
        """
        return {"name": np.char.decode(self._names(), "utf-8"), **self.columns()}

    def _names(self) -> np.ndarray:
        names = self._file()[0]["name"][...]
        if repeats := len(names) - len(np.unique(names)):
            raise UserError(
                f"{self.path}: cell names must be unique to be looked up, found {repeats} repeats; "
                "make them unique (adata.obs_names_make_unique) and import the file again"
            )
        return names

    def _controls(self, context: int, half: str) -> np.ndarray:
        if half not in HALVES:
            raise ValueError(f"cells: half must be one of {', '.join(HALVES)}, got {half!r}")
        _, index = self._file()
        wanted = (index["row"] == CONTROL) & (index["context"] == context) & np.isin(index["half"], HALVES[half])
        return np.flatnonzero(wanted)

    def perturbed(self, row: int) -> np.ndarray:
        """Perturbed cells of shape (m, g), float32, of dataset row ``row``, in source order."""
        return self._sparse(self._perturbed(row)).toarray()

    def _perturbed(self, row: int) -> np.ndarray:
        _, index = self._file()
        lo, hi = np.searchsorted(index["sorted_row"], [row, row + 1])
        return index["order"][lo:hi]

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """Batch codes of control cells, shape (m,), in source order."""
        return self._file()[1]["batch"][self._controls(context, half)]

    def perturbed_batches(self, row: int) -> np.ndarray:
        """Batch codes of the perturbed cells of a row, shape (m,), in source order."""
        return self._file()[1]["batch"][self._perturbed(row)]

    def columns(self) -> dict[str, np.ndarray]:
        """Of shape (cells,): ``row`` (-1 control, -2 unused), ``context``, ``half`` (0 A, 1 B, 2 both), ``batch``."""
        _, index = self._file()
        return {k: index[k] for k in ("row", "context", "half", "batch")}

    def _file(self) -> tuple[h5py.File, dict[str, np.ndarray]]:
        # an HDF5 handle must not cross a fork, so each process opens its own
        if self._opened is None or self._opened[0] != os.getpid():
            file = open_cells(self.path)
            index = {name: file[name][...] for name in ("row", "context", "half", "batch", "indptr", "total")}
            index["order"] = np.argsort(index["row"], kind="stable")
            index["sorted_row"] = index["row"][index["order"]]
            self._opened = (os.getpid(), file, index)
        return self._opened[1], self._opened[2]

    def _sparse(self, cells: np.ndarray) -> sparse.csr_matrix:
        file, index = self._file()
        indptr, genes = index["indptr"], int(json.loads(file.attrs["attributes"])["genes"])
        lengths = indptr[cells + 1] - indptr[cells]
        out = np.concatenate([[0], np.cumsum(lengths)])
        data, indices = np.empty(out[-1], np.float32), np.empty(out[-1], np.int32)
        values, columns = file["data"], file["indices"]  # looking them up anew for every run costs a third of the time
        for run in _runs(cells, indptr):
            span = slice(int(indptr[cells[run][0]]), int(indptr[cells[run][-1] + 1]))
            own = _ranges(indptr[cells[run]] - span.start, lengths[run])
            to = slice(out[run.start], out[run.stop])
            data[to], indices[to] = values[span][own], columns[span][own]
        return sparse.csr_matrix((data, indices, out), shape=(len(cells), genes))


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``concatenate([arange(s, s + n) ...])`` for each start and length."""
    shift = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.arange(int(lengths.sum())) + shift


def _runs(cells: np.ndarray, indptr: np.ndarray) -> Iterator[slice]:
    """Slices of ``cells`` (ascending) that are worth one read: close to each other, and not more than a block."""
    start = 0
    for i in range(1, len(cells) + 1):
        gap = i == len(cells) or indptr[cells[i]] - indptr[cells[i - 1] + 1] > _GAP
        if gap or indptr[cells[i] + 1] - indptr[cells[start]] > _BLOCK:
            yield slice(start, i)
            start = i


def open_cells(path: Path) -> h5py.File:
    """A cells file opened for reading, its seal checked (once per process while the file stays the same).

    Raises
    ------
    DamagedFileError
        Not such a file, incomplete, truncated or altered.
    UserError
        There is no such file.

    Examples
    --------
    >>> open_cells(Path("absent.h5"))
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: absent.h5: the cells of this screen are gone; import it again
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: the cells of this screen are gone; import it again") from None
    _checked(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    try:
        # without a chunk cache HDF5 reads the rows that are asked for, with one the whole 256 kB around each of them
        file = h5py.File(path, "r", rdcc_nbytes=0)
    except OSError as error:
        raise DamagedFileError(f"{path}: not a readable HDF5 file: {error}") from error
    found = (file.attrs.get("embbench-type"), int(file.attrs.get("embbench-version", 0)))
    if found == (KIND, 1):
        file.close()
        raise DamagedFileError(f"{path}: written by an older embbench; import the screen again")
    if found != (KIND, FORMATS[KIND]) or not file.attrs.get("complete", False):
        file.close()
        raise DamagedFileError(f"{path}: expected a complete {KIND} file of version {FORMATS[KIND]}, found {found}")
    return file


@functools.lru_cache(maxsize=64)
def _checked(path: Path, inode: int, size: int, changed: int) -> None:
    """Remembers that these bytes were whole; a failed check raises and is not remembered."""
    check_seal(path)


class CellsWriter:
    """Appends cells to an open file; made by `cells_writer`."""

    def __init__(self, file: h5py.File, genes: int) -> None:
        self.file, self.genes = file, genes
        self._lengths: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in TYPES}
        self._names: list[np.ndarray] = [np.zeros(0, "S1")]
        self._sha = {name: hashlib.sha256() for name in ("data", "indices")}
        for name, kind in (("data", np.float32), ("indices", np.int32)):
            file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=kind, chunks=(_CHUNK,))

    def append(self, cells: sparse.csr_matrix, names: np.ndarray, **columns: np.ndarray) -> None:
        """Add cells of shape (m, g) with ``names`` and the columns of `TYPES`, each of shape (m,)."""
        self._names.append(np.char.encode(names.astype(str), "utf-8"))
        for name, sha in self._sha.items():
            stored = self.file[name]
            values = np.ascontiguousarray(getattr(cells, name), dtype=stored.dtype)
            stored.resize((len(stored) + len(values),))
            stored[len(stored) - len(values) :] = values
            sha.update(values.data)
        self._lengths.append(np.diff(cells.indptr).astype(np.int64))
        for name, parts in self._columns.items():
            parts.append(columns[name].astype(TYPES[name]))

    def summary(self) -> str:
        """What has been written and why, in one line for people."""
        cells, values = sum(len(part) for part in self._lengths) - 1, len(self.file["data"])
        return (
            f"cells kept: {cells:,} with {values:,} values, {8 * values / 1e6:,.0f} MB of uncompressed rows: heads and "
            "tests read the cells they ask for, and the source file is not needed again"
        )

    def finish(self, row_of: np.ndarray, context_of: np.ndarray) -> str:
        """Write the index columns; returns 16 hex digits of the content, the same for every chunking.

        Parameters
        ----------
        row_of, context_of : final code of each row and context used while appending, -2 and -1 where it was dropped.
        """
        columns = {name: np.concatenate([np.zeros(0, TYPES[name]), *p]) for name, p in self._columns.items()}
        perturbed = columns["row"] >= 0
        columns["row"][perturbed] = row_of[columns["row"][perturbed]]
        columns["context"] = context_of[columns["context"]].astype(np.int32)
        columns["row"][columns["context"] < 0] = UNUSED
        columns["indptr"] = np.cumsum(np.concatenate(self._lengths))
        columns["name"] = np.concatenate(self._names)
        for name, values in columns.items():
            self.file.create_dataset(name, data=values)
        facts = {"genes": self.genes, "cells": len(columns["row"])}
        content = [facts, {name: sha.hexdigest() for name, sha in self._sha.items()}]
        key = digest([content, array_digest(*columns.values())])
        attributes = {
            "embbench-type": KIND,
            "embbench-version": FORMATS[KIND],
            "attributes": json.dumps(facts),
            "digest": key,
        }
        self.file.attrs.update({**attributes, "written-with": json.dumps(versions()), "complete": True})
        return key


@contextlib.contextmanager
def cells_writer(path: Path, genes: int) -> Iterator[CellsWriter]:
    """A writer whose file appears at ``path`` when the block ends without an error; call `CellsWriter.finish` in it."""
    with replacing(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=SEAL) as file:
            yield CellsWriter(file, genes)
        seal(temporary)
