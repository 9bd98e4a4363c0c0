"""Shared by graph extractors: where edges come from, and the largest connected component."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from embbench.core import ExtractorDefaults, UserError
from embbench.embeddings._rows import check_dim, text_array
from embbench.genes import harmonise
from embbench.numerics.edges import graph_file, read_edges


class GraphParameters(ExtractorDefaults):
    """Where the edges come from, and the width; the common part of graph extractors.

    Parameters
    ----------
    graph : ``ppi`` (packaged) or an edge table, e.g. STRING with ``gene1, gene2, combined_score``.
    dim : largest width.
    source, target, weight, threshold : see `embbench.numerics.edges.read_edges`.
    to : namespace that node names are brought into, as screens are; None keeps them (compounds).

    Examples
    --------
    >>> GraphParameters(dim=50).files()[0].name
    'ppi.tsv.gz'
    """

    def __init__(
        self,
        graph: str = "ppi",
        dim: int = 100,
        source: str | None = None,
        target: str | None = None,
        weight: str | None = None,
        threshold: float | None = None,
        to: str | None = "symbol",
    ) -> None:
        self.graph, self.dim = str(graph), check_dim(type(self).__name__, dim)
        self.source, self.target, self.weight, self.threshold, self.to = source, target, weight, threshold, to

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        return (graph_file(self.graph),)

    def component(self) -> tuple[np.ndarray, sparse.csr_matrix, int]:
        """Names and adjacency of shape (m, m) of the largest connected component, and how many nodes lie outside it.

        Of components of equal size the one with the alphabetically first name counts.

        Raises
        ------
        UserError
            The edges cannot be read, or the largest component has fewer than 3 nodes.
        """
        names, adjacency = read_edges(self.files()[0], self.source, self.target, self.weight, self.threshold)
        names = names if self.to is None else text_array(harmonise(names.tolist(), self.to).names)
        _, label = connected_components(adjacency, directed=False)
        inside = np.flatnonzero(label == np.bincount(label).argmax())
        if len(inside) < 3:
            raise UserError(
                f"graph {self.graph!r}: expected a connected component of at least 3 nodes, found {len(inside)} "
                f"(of {len(names)} nodes); check columns and threshold"
            )
        return names[inside], adjacency[inside][:, inside].tocsr(), len(names) - len(inside)
