"""An edge list (packaged or a file) as a graph over perturbation names, for graph heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from embbench.genes import check_namespace, symbols_of
from embbench.numerics.edges import check_filters, graph_file, merged, read_edges, require_genes


class EdgeList:
    """A graph read from a table of edges (see `embbench.numerics.edges.read_edges` for formats and defaults).

    Parameters
    ----------
    path : ``ppi`` (packaged protein interactions) or a file.
    source, target, weight : columns; None finds the usual ones, weight ``none`` makes all edges 1.
    threshold : leave out edges of a smaller weight.
    to : namespace that node names are brought into, as screens are, which makes spellings of one gene one node; None
        keeps them (compounds).
    channels, without, top_k, names : filters by STRING channel and neighbour rank, and STRING's protein.info file.
    directed : only False: the graph of `Inputs` is symmetric.

    Examples
    --------
    >>> EdgeList(directed=True)
    Traceback (most recent call last):
    ValueError: EdgeList: directed must be False (graphs are symmetric), got True
    """

    def __init__(
        self,
        path: str = "ppi",
        source: str | None = None,
        target: str | None = None,
        weight: str | None = None,
        threshold: float | None = None,
        to: str | None = "symbol",
        channels: Sequence[str] | str | None = None,
        without: Sequence[str] | str | None = None,
        top_k: int | None = None,
        names: str | None = None,
        *,
        directed: bool = False,
    ) -> None:
        if directed:
            raise ValueError(f"EdgeList: directed must be False (graphs are symmetric), got {directed}")
        check_namespace("EdgeList", to)
        check_filters("EdgeList", channels, without, top_k, weight)
        self.path, self.to = str(path), to
        self.columns = (source, target, weight, threshold)
        self.names = None if names is None else Path(names).expanduser()
        self.filters: dict[str, Any] = {"channels": channels, "without": without, "top_k": top_k, "names": self.names}

    def files(self) -> tuple[Path, ...]:
        """The files that the graph depends on."""
        return (graph_file(self.path), *([] if self.names is None else [self.names]))

    def load(self) -> tuple[np.ndarray, sparse.csr_matrix]:
        """Names (m,) and the symmetric adjacency of shape (m, m), float64, without self-loops.

        Raises
        ------
        UserError
            The file cannot be read as edges, or its nodes are proteins and ``names`` is not given.
        """
        path = self.files()[0]
        names, edges = read_edges(path, *self.columns, **self.filters)
        if self.to is None:
            return names, edges
        require_genes(path, names)
        now = symbols_of(names.tolist(), self.to)
        names, edges = merged(path, np.array([now[name] for name in names.tolist()], dtype=str), edges)
        return names.astype(object), edges
