"""From a screen's genes to a model's vocabulary, and from cells to the inputs of a model."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import sparse

from embbench.core import Counts, UserError
from embbench.embeddings._rows import generator
from embbench.genes import UNMAPPED, harmonise


@dataclass(frozen=True)
class Panel:
    """Cells over the genes that a model knows, columns in the order of the data.

    Parameters
    ----------
    values : shape (m, p), float32 CSR with sorted columns: counts, or values in proportion to them.
    index : shape (p,), int64, vocabulary number of each column; unique.
    total : shape (m,), float64, depth of the whole cell, NaN where unknown.
    """

    values: sparse.csr_matrix
    index: np.ndarray
    total: np.ndarray

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def rows(self, chosen: slice | np.ndarray) -> Panel:
        """Some of the cells."""
        return replace(self, values=self.values[chosen], total=self.total[chosen])

    def cell(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Vocabulary numbers and values of the expressed genes of cell ``i``, in data order."""
        lo, hi = self.values.indptr[i], self.values.indptr[i + 1]
        value = self.values.data[lo:hi]
        kept = value > 0
        return self.index[self.values.indices[lo:hi][kept]], value[kept]


@functools.lru_cache(maxsize=16)
def gene_names(vocabulary: tuple[str, ...]) -> tuple[str, ...]:
    """The vocabulary as symbols, one per entry and unique; entries that mean no known gene keep their spelling."""
    return harmonise(vocabulary, "symbol").names


class AnyCase(dict[str, str]):
    """Aliases with names in capitals, found whatever the case of the name asked for.

    Examples
    --------
    >>> AnyCase({"C1ORF112": "ENSG00000000460"}).get("C1orf112")
    'ENSG00000000460'
    """

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]  # names are text
        """What the name means."""
        return super().get(key.upper(), default)


def columns_of(
    genes: Sequence[str],
    vocabulary: tuple[str, ...],
    aliases: Mapping[str, str] | None = None,
    *,
    collapse: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Which data columns a model knows.

    A gene is found by its own spelling, by the model's own table of ``aliases``, else by its current symbol. Of several
    columns that mean one entry the best route wins, then the first; the others are left out. With ``collapse`` every
    column that the model's own spelling or table leads to its entry stays (those of the current symbol where there is
    none), for `panel_of` to add up.

    Returns
    -------
    columns : shape (p,), ascending.
    index : shape (p,), vocabulary numbers; unique without ``collapse``.

    Examples
    --------
    >>> columns_of(["X", "TP53", "P53"], ("<pad>", "TP53"))
    (array([1]), array([1]))
    >>> columns_of(["P53", "TP53"], ("<pad>", "TP53"), {"P53": "TP53"}, collapse=True)
    (array([0, 1]), array([1, 1]))
    """
    own = {name: i for i, name in enumerate(vocabulary)}
    by_symbol = {name: i for i, name in reversed(list(enumerate(gene_names(vocabulary))))}
    current = harmonise(list(genes), "symbol")
    renamed = aliases or {}
    owners: dict[int, list[tuple[int, int]]] = {}
    for column, name in enumerate(genes):
        known = current.status[column] not in UNMAPPED
        routes = (
            own.get(name),
            own.get(renamed.get(name, "")),
            own.get(current.names[column]) if known else None,
            by_symbol.get(current.names[column]) if known else None,
        )
        rank, entry = next(((r, i) for r, i in enumerate(routes) if i is not None), (-1, -1))
        if rank >= 0:
            owners.setdefault(entry, []).append((rank, column))
    pairs = sorted((c, entry) for entry, found in owners.items() for c in _chosen(found, collapse=collapse))
    return np.array([c for c, _ in pairs], dtype=np.int64), np.array([e for _, e in pairs], dtype=np.int64)


def _chosen(found: list[tuple[int, int]], *, collapse: bool) -> list[int]:
    """Columns of an entry from (route, column) pairs; routes 0 and 1 are the model's own, 2 and 3 current symbols."""
    if not collapse:
        return [min(found)[1]]
    best = min(found)[0] // 2
    return [column for rank, column in found if rank // 2 == best]


def panel_of(counts: Counts, columns: np.ndarray, index: np.ndarray) -> Panel:
    """The columns that a model knows, sorted within each cell; those of one entry added up at the place of the first.

    Parameters
    ----------
    counts : of the whole panel.
    columns, index : what `columns_of` found.
    """
    values = counts.values[:, columns].tocsr()
    _, first, entry = np.unique(index, return_index=True, return_inverse=True)
    if len(first) < len(index):
        place = np.argsort(np.argsort(first))[entry]
        shape = (len(index), len(first))
        values = values @ sparse.csr_matrix((np.ones(len(index), values.dtype), (np.arange(len(index)), place)), shape)
        index = index[np.sort(first)]
    values.sort_indices()
    return Panel(values, index, counts.total)


def need_counts(counts: Counts, model: str) -> None:
    """Refuse cells of unknown depth for a model that reads counts.

    Raises
    ------
    UserError
        The screen was imported from logarithms.
    """
    if not counts.known:
        raise UserError(
            f"{model} reads raw counts, expected a screen imported from counts, found logarithms; import the file that "
            "holds the counts (embbench data import FILE --layer counts)"
        )


def metacells(counts: Counts, size: int | str, seed: int) -> Counts:
    """Sums of counts over groups of about ``size`` similar cells, shape (about m / size, g).

    Groups are k-means clusters (Lloyd 1982) of the first 20 principal components of log-normalised cells; a group of a
    cell type then stands for one deeply sequenced cell, as in Baran et al. (2019), Genome Biology 20, 206, whose
    balanced graph partition this does not reproduce.

    Parameters
    ----------
    counts : at least one cell.
    size : cells per group on average, >= 2; ``all`` sums all cells (pseudobulk).
    seed : of the clustering.
    """
    m = len(counts)
    counts = counts.rows(_by_content(counts.values))  # k-means starts from some of the cells: not from their order
    groups = max(1, m // size) if isinstance(size, int) else 1
    label = np.zeros(m, dtype=np.int64)
    if groups > 1:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import TruncatedSVD

        depth = np.asarray(counts.values.sum(axis=1), dtype=np.float64)
        logs = sparse.diags(1e4 / np.maximum(depth.ravel(), 1.0)) @ counts.values
        logs.data = np.log1p(logs.data)
        state = int(generator("metacells", seed).integers(2**31))
        width = min(20, m - 1, logs.shape[1] - 1)
        scores = TruncatedSVD(width, random_state=state).fit_transform(logs) if width > 0 else logs.toarray()
        label = KMeans(groups, n_init=1, random_state=state).fit_predict(scores)
    _, label = np.unique(label, return_inverse=True)
    member = sparse.csr_matrix((np.ones(m, np.float32), (label, np.arange(m))), shape=(int(label.max()) + 1, m))
    return Counts((member @ counts.values).tocsr(), counts.genes, member @ counts.total)


def _by_content(values: sparse.csr_matrix) -> np.ndarray:
    """An order of cells that their content decides, shape (m,)."""
    ends = values.indptr
    parts = [(values.indices[lo:hi].tobytes(), values.data[lo:hi].tobytes()) for lo, hi in pairwise(ends.tolist())]
    return np.array(
        sorted(range(len(parts)), key=lambda i: hashlib.sha256(b"".join(parts[i])).digest()), dtype=np.int64
    )


def stream_of(model: str, seed: int, gene: np.ndarray, value: np.ndarray) -> np.random.Generator:
    """A random stream of one cell: its content decides, not its place among other cells or its genes' order."""
    order = np.argsort(gene, kind="stable")
    content = hashlib.sha256(gene[order].astype(np.int64).tobytes() + value[order].astype(np.float64).tobytes())
    return generator(model, seed, content.hexdigest())
