"""An edge list (packaged or a file) as a graph over perturbation names, for graph heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from embbench.genes import harmonise
from embbench.numerics.edges import graph_file, read_edges


class EdgeList:
    """A graph read from a table of edges (see `embbench.numerics.edges.read_edges` for formats and defaults).

    Parameters
    ----------
    path : ``ppi`` (packaged protein interactions) or a file.
    source, target, weight : columns; None finds the usual ones, weight ``none`` makes all edges 1.
    threshold : leave out edges of a smaller weight.
    to : namespace that node names are brought into, as screens are; None keeps them (compounds).
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
        *,
        directed: bool = False,
    ) -> None:
        if directed:
            raise ValueError(f"EdgeList: directed must be False (graphs are symmetric), got {directed}")
        self.path = str(path)
        self.source, self.target, self.weight, self.threshold, self.to = source, target, weight, threshold, to

    def files(self) -> tuple[Path, ...]:
        """The files that the graph depends on."""
        return (graph_file(self.path),)

    def load(self) -> tuple[np.ndarray, sparse.csr_matrix]:
        """Names (m,) and the symmetric adjacency of shape (m, m), float64, without self-loops.

        Raises
        ------
        UserError
            The file cannot be read as edges.
        """
        names, edges = read_edges(self.files()[0], self.source, self.target, self.weight, self.threshold)
        return names if self.to is None else np.array(harmonise(names.tolist(), self.to).names, dtype=object), edges
