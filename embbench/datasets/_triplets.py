"""Counts published as text, one line per value: turned once, in bounded memory, into a compressed-row `.h5ad`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from embbench.cache.keys import code_of
from embbench.cache.store import lock, replacing
from embbench.core import UserError
from embbench.datasets._lines import Pieces

ROWS = 4096  # cells per scratch file: some 30 million values, 400 MB, at the depth of published screens
GROW = 1 << 20  # values per chunk of the file that is written
MARK = "embbench_source"  # attribute of a converted file: what it was made of, and by which code
TOTAL = "embbench_total"  # obs column of a converted file: the sum of each cell
TRIPLE = np.dtype([("row", np.int32), ("column", np.int32), ("value", np.float32)])


@dataclass(frozen=True)
class Counts:
    """Cells x genes as text, ready to be converted.

    Parameters
    ----------
    label : what messages call it.
    obs, var : columns of the cells and of the genes, shapes (m,) and (g,): objects of str, or float64. ``_index`` names
        them.
    pieces : gives rows, columns (from 0) and values, shapes (k,), piece by piece.
    """

    label: str
    obs: Mapping[str, np.ndarray]
    var: Mapping[str, np.ndarray]
    pieces: Callable[[], Pieces]

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return len(self.obs["_index"]), len(self.var["_index"])


def converted(target: Path, sources: Mapping[str, str], make: Callable[[], Counts], reader: str) -> Path:
    """The `.h5ad` of some text files: written at the first call, found at the others.

    Values are dealt into one scratch file per block of cells beside ``target`` (12 bytes a value), then each block is
    sorted and appended. The file is written under a temporary name and renamed; one that was made of other sources,
    or by other code, is replaced.

    Parameters
    ----------
    target : where it lies.
    sources : name -> sha256 of the files that it is made of.
    make : reads their tables.
    reader : module of the reader that gives ``make``.

    Raises
    ------
    UserError
        The text is not as expected, or the folder cannot be written.
    """
    mark = json.dumps({"code": code_of(reader), "sources": dict(sources)}, sort_keys=True)
    with lock(target):
        if _mark(target) != mark:
            counts = make()
            try:
                scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            except OSError as error:
                raise UserError(
                    f"cannot write to {target.parent}: {error.strerror}; {counts.label} must be converted once, beside "
                    "its files: make the folder writable, or fetch them to an EMBBENCH_HOME of your own"
                ) from error
            try:
                with replacing(target) as temporary:
                    _write(temporary, counts, scratch, mark)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


def _mark(target: Path) -> str:
    try:
        with h5py.File(target, "r") as file:
            return str(file.attrs.get(MARK, ""))
    except OSError:  # not there, or cut off by a full disk of old
        return ""


def _write(path: Path, counts: Counts, scratch: Path, mark: str) -> None:
    cells, genes = counts.shape
    sizes = _deal(counts, scratch)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [cells, genes]})
        data = group.create_dataset("data", (0,), np.float32, maxshape=(None,), chunks=(GROW,))
        indices = group.create_dataset("indices", (0,), np.int32, maxshape=(None,), chunks=(GROW,))
        indptr, totals = [np.zeros(1, dtype=np.int64)], []
        for start in range(0, cells, ROWS):
            triples = np.fromfile(scratch / str(start // ROWS), dtype=TRIPLE)
            shape = (min(ROWS, cells - start), genes)
            block = sparse.coo_matrix((triples["value"], (triples["row"], triples["column"])), shape).tocsr()
            for item, values in ((data, block.data), (indices, block.indices)):
                item.resize((len(item) + len(values),))
                item[len(item) - len(values) :] = values
            indptr.append(block.indptr[1:] + indptr[-1][-1])
            totals.append(np.asarray(block.sum(axis=1), dtype=np.float64).ravel())
        group["indptr"] = np.concatenate(indptr)
        repeats = sizes - len(data)
        _table(file, "obs", {**counts.obs, TOTAL: np.concatenate([np.zeros(0), *totals])})
        _table(file, "var", counts.var)
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0", MARK: mark, "repeats": repeats})


def _deal(counts: Counts, scratch: Path) -> int:
    """Values into one file per block of cells; returns how many there were."""
    cells, genes = counts.shape
    for i in range(-(-cells // ROWS)):
        (scratch / str(i)).write_bytes(b"")
    done = 0
    for rows, columns, values in counts.pieces():
        for name, found, limit in (("cell", rows, cells), ("gene", columns, genes)):
            if len(found) and (found.min() < 0 or found.max() >= limit):
                raise UserError(
                    f"{counts.label}: expected {name} numbers from 1 to {limit:,}, as many as its table lists, found "
                    f"{int(found.min()) + 1:,} to {int(found.max()) + 1:,}; the files do not belong together"
                )
        out = np.empty(len(rows), dtype=TRIPLE)
        of, out["row"] = np.divmod(rows, ROWS)
        out["column"], out["value"] = columns, values
        order = np.argsort(of, kind="stable")
        ends = np.searchsorted(of[order], np.arange(-(-cells // ROWS)), side="right")
        for i, part in enumerate(np.split(out[order], ends[:-1])):
            if len(part):
                with (scratch / str(i)).open("ab") as file:
                    part.tofile(file)
        done += len(rows)
    return done


def _table(file: h5py.File, name: str, columns: Mapping[str, np.ndarray]) -> None:
    """A data frame as AnnData stores it; text of few values as categories."""
    group = file.create_group(name)
    order = [key for key in columns if key != "_index"]
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
    for key, values in columns.items():
        if values.dtype != object:
            group.create_dataset(key, data=values).attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            continue
        levels, codes = np.unique(values.astype(str), return_inverse=True)
        if key != "_index" and 2 * len(levels) < len(values):
            part = group.create_group(key)
            part.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
            empty = int(len(levels) > 0 and levels[0] == "")  # '' sorts first, and is a missing value
            _strings(part, "categories", levels[empty:])
            stored = part.create_dataset("codes", data=codes.ravel().astype(np.int32) - empty)
            stored.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        else:
            _strings(group, key, values)


def _strings(group: h5py.Group, name: str, values: np.ndarray) -> None:
    made = group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
    made.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def repeats_of(path: Path) -> int:
    """How many values of a converted file's sources named a place (cell, gene) again; they are summed."""
    with h5py.File(path, "r") as file:
        return int(file.attrs["repeats"])
