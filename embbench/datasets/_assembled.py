"""Published files as one AnnData: columns by the names that the import asks for, cells of several files in one matrix.

Nothing is copied: values are read from the files when the import asks for them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.datasets._csc import Csc
from embbench.datasets._h5ad import column, column_names, describe, index_names
from embbench.datasets._matrix import Matrix, open_matrix


class Memory:
    """A column in memory as the readers see an `h5py.Dataset`; text is an object array of str, '' where missing."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.dtype = h5py.string_dtype() if values.dtype == object else values.dtype
        self.shape, self.ndim = values.shape, values.ndim
        self.attrs: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.values[key]

    def asstr(self) -> np.ndarray:
        """All values as objects of str."""
        return self.values


@dataclass(frozen=True)
class Part:
    """Cells of one open file.

    Parameters
    ----------
    file : what `embbench.datasets._open.open_anndata` gives.
    obs : columns that replace or extend those of the file, shape (m,): objects of str ('' missing), or float64; or what
        makes one, called when it is first read.
    gene_key : var column of gene names; None: the index.
    layer : layer of the values; None: ``X``.
    tag : short name; it makes cell names of several parts unique.
    matrix : the values, where they are not in the file.
    """

    file: Any
    obs: Mapping[str, np.ndarray | Callable[[], np.ndarray]] = field(default_factory=dict)
    gene_key: str | None = None
    layer: str | None = None
    tag: str = ""
    matrix: Callable[[int], Matrix] | None = None

    def __post_init__(self) -> None:
        kept = {name: functools.cache(each) if callable(each) else each for name, each in self.obs.items()}
        object.__setattr__(self, "obs", kept)

    def genes(self) -> np.ndarray:
        """Gene names of the file, shape (g,), objects of str."""
        if self.gene_key is None:
            return index_names(self.file, "var")
        return column(self.file, "var", self.gene_key, "gene_key").text()

    def read(self, name: str) -> np.ndarray:
        """A column of obs, shape (m,), float64 where it holds numbers, else objects of str."""
        if name in self.obs:
            own = self.obs[name]
            return own() if callable(own) else own
        found = column(self.file, "obs", name, "column")
        return found.text() if found.values is None else found.values

    def open(self, genes: int, chunk_values: int) -> Matrix:
        """Its values, all genes."""
        if self.matrix is not None:
            return self.matrix(chunk_values)
        cells = len(index_names(self.file, "obs"))
        return open_matrix(self.file, self.layer, (cells, genes), chunk_values)


class Table(Mapping[str, Any]):
    """``obs`` of all parts, or ``var``: its columns are made when they are read."""

    def __init__(
        self, names: Sequence[str], read: Callable[[str], np.ndarray], index: Callable[[], np.ndarray]
    ) -> None:
        self.names, self.read, self.index = list(names), read, index
        self.attrs = {"_index": "_index"}

    def __getitem__(self, name: str) -> Memory:
        if name == "_index":
            return Memory(self.index())
        if name not in self.names:
            raise KeyError(name)
        return Memory(self.read(name))

    def __iter__(self) -> Iterator[str]:
        return iter(["_index", *self.names])

    def __len__(self) -> int:
        return len(self.names) + 1


class Assembled(Mapping[str, Any]):
    """Parts as one AnnData with ``obs``, ``var`` and ``X``.

    Parameters
    ----------
    parts : one or more; of several, the genes that all have are kept, in the order of the first.
    filename : what messages call it.
    notes : what the reader did and left out, for the import report; columns that are made later may add to the list.
    genes : gene names to keep, shape (k,); None: all common ones.

    Raises
    ------
    UserError
        No gene is left: every name repeats, or several parts have none in common.
    """

    def __init__(
        self, parts: Sequence[Part], filename: str, notes: Sequence[str] = (), genes: np.ndarray | None = None
    ) -> None:
        self.parts, self.filename, self._told = list(parts), filename, notes
        self._own: list[str] = []
        named = [part.genes() for part in parts]
        once = [_unrepeated(each, self._own) for each in named]
        shared = set.intersection(*(set(each.tolist()) for each in once))
        kept = np.array([name for name in once[0].tolist() if name in shared], dtype=object)
        kept = kept if genes is None else kept[np.isin(kept, genes)]
        if not len(kept):
            raise UserError(f"{filename}: no gene is left; its files have no gene in common, or repeat every name")
        if len(parts) > 1:
            sizes = ", ".join(f"{len(g):,}" for g in named)
            self._own.append(f"{len(parts)} files of {sizes} genes: the {len(kept):,} that all have are kept")
        self.genes = kept
        self.columns = [_places(each, kept) for each in named]
        self.widths = [len(each) for each in named]

    @property
    def notes(self) -> list[str]:
        """What was done and left out; every column of the reader is made for it, so that none is missing."""
        for part in self.parts:
            for name in part.obs:
                part.read(name)
        return [*self._told, *self._own]

    def __getitem__(self, name: str) -> Any:
        if name == "var":
            return Table([], lambda key: self.genes, lambda: self.genes)
        if name == "obs":
            return Table(self._shared(), self._column, lambda: self._cells)
        if name == "X":
            return Stack(self)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(("X", "obs", "var"))

    def __len__(self) -> int:
        return 3

    def _shared(self) -> list[str]:
        named = [set(part.obs) | set(column_names(part.file, "obs")) for part in self.parts]
        return sorted(set.intersection(*named) - {"_index"})

    def _column(self, name: str) -> np.ndarray:
        found = [part.read(name) for part in self.parts]
        if len({values.dtype == object for values in found}) > 1:  # numbers in one file, text in another
            found = [v if v.dtype == object else np.array([f"{x:.12g}" for x in v], dtype=object) for v in found]
        return np.concatenate(found)

    @functools.cached_property
    def _cells(self) -> np.ndarray:
        names = [index_names(part.file, "obs") for part in self.parts]
        if len(names) == 1:
            return names[0]
        tags = [part.tag or str(i) for i, part in enumerate(self.parts)]
        return np.array([f"{name}-{tag}" for tag, each in zip(tags, names, strict=True) for name in each], dtype=object)


@dataclass(frozen=True)
class Stack:
    """The matrix of an `Assembled`, opened by `embbench.datasets._matrix.open_matrix`."""

    of: Assembled

    def as_matrix(self, chunk_values: int) -> Matrix:
        """The cells of all parts, the kept genes."""
        whole = [part.open(width, chunk_values) for part, width in zip(self.of.parts, self.of.widths, strict=True)]
        return Joined("X", self.of.filename, tuple(whole), tuple(self.of.columns))


@dataclass(frozen=True)
class Joined:
    """Matrices below one another, some columns of each; see `embbench.datasets._matrix.Matrix`."""

    label: str
    path: str
    parts: tuple[Matrix, ...]
    columns: tuple[np.ndarray | None, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Cells of all parts, kept genes."""
        first = self.columns[0]
        genes = self.parts[0].shape[1] if first is None else len(first)
        return sum(part.shape[0] for part in self.parts), genes

    @property
    def packed(self) -> str | None:
        """How stored values are compressed, None where none are."""
        return next((part.packed for part in self.parts if part.packed), None)

    @property
    def stored(self) -> int:
        """Number of stored values."""
        return sum(part.stored for part in self.parts)

    def chunks(self, wanted: np.ndarray | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Row chunks of shape (rows, g), part by part."""
        offset = 0
        for part, places in zip(self.parts, self.columns, strict=True):
            own = None if wanted is None else wanted[offset : offset + part.shape[0]]
            for start, block in part.chunks(own):
                yield offset + start, block if places is None else block[:, places]
            offset += part.shape[0]

    def sample(self) -> np.ndarray:
        """Some stored values of every part, shape (k,)."""
        return np.concatenate([part.sample() for part in self.parts])

    def by_columns(self) -> list[Csc]:
        """Parts that need a scratch folder to be read by rows."""
        return [part for part in self.parts if isinstance(part, Csc)]


def with_scratch(matrix: Matrix, folder: Path) -> None:
    """Give matrices that are stored by columns a place to sort their rows in; a new folder for each.

    Examples
    --------
    >>> with_scratch(Joined("X", "file", (), ()), Path("scratch"))
    """
    stored = matrix.by_columns() if isinstance(matrix, Joined) else [matrix] if isinstance(matrix, Csc) else []
    for i, each in enumerate(stored):
        each.scratch = folder / f"scratch-{i}"
        each.scratch.mkdir()


def _unrepeated(names: np.ndarray, notes: list[str]) -> np.ndarray:
    """Names that occur once and are not empty: which of several columns of one name is meant cannot be known."""
    found, counts = np.unique(names, return_counts=True)
    bad = set(found[(counts > 1) | (found == "")].tolist())
    if bad:
        lost = int(sum(name in bad for name in names.tolist()))
        notes.append(f"genes whose name repeats or is empty, dropped: {lost:,} columns ({describe(sorted(bad))})")
    return np.array([name for name in names.tolist() if name not in bad], dtype=object)


def _places(names: np.ndarray, kept: np.ndarray) -> np.ndarray | None:
    """Column numbers of ``kept`` in ``names``; None where they are the same."""
    if len(names) == len(kept) and (names == kept).all():
        return None
    where = {name: i for i, name in enumerate(names.tolist())}
    return np.array([where[name] for name in kept.tolist()], dtype=np.int64)
