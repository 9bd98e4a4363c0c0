"""Shared by graph extractors: where edges come from, the largest connected component, landmark nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from embbench.core import ExtractorDefaults, UserError
from embbench.embeddings._rows import check_dim, generator, text_array
from embbench.genes import check_namespace, symbols_of
from embbench.numerics.edges import check_filters, graph_file, merged, read_edges, require_genes


class GraphParameters(ExtractorDefaults):
    """Where the edges come from, and the width; the common part of graph extractors.

    Parameters
    ----------
    graph : ``ppi`` (packaged) or an edge table, e.g. STRING with ``gene1, gene2, combined_score``.
    dim : largest width.
    source, target, weight, threshold, channels, without, top_k, names : columns and filters, see
        `embbench.numerics.edges.read_edges`; e.g. ``without: [textmining, coexpression]`` on a detailed STRING table,
        and ``names`` = STRING's protein.info file where nodes are 9606.ENSP identifiers.
    to : namespace that node names are brought into, as screens are, which makes spellings of one gene one node; None
        keeps them (compounds).

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
        channels: Sequence[str] | str | None = None,
        without: Sequence[str] | str | None = None,
        top_k: int | None = None,
        names: str | None = None,
    ) -> None:
        self.graph, self.dim, self.to = str(graph), check_dim(type(self).__name__, dim), to
        check_namespace(type(self).__name__, to)
        check_filters(type(self).__name__, channels, without, top_k, weight)
        self.columns = (source, target, weight, threshold)
        self.names = None if names is None else Path(names).expanduser()
        self.filters: dict[str, Any] = {"channels": channels, "without": without, "top_k": top_k, "names": self.names}

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        return (graph_file(self.graph), *([] if self.names is None else [self.names]))

    def component(self) -> tuple[np.ndarray, sparse.csr_matrix, int]:
        """Names and adjacency of shape (m, m) of the largest connected component, and how many nodes lie outside it.

        Of components of equal size the one with the alphabetically first name counts.

        Raises
        ------
        UserError
            The edges cannot be read, their nodes are proteins without ``names``, or the largest component has fewer
            than 3 nodes.
        """
        path = self.files()[0]
        names, adjacency = read_edges(path, *self.columns, **self.filters)
        if self.to is not None:
            require_genes(path, names)
            now = symbols_of(names.tolist(), self.to)
            names, adjacency = merged(path, text_array([now[name] for name in names.tolist()]), adjacency)
        _, label = connected_components(adjacency, directed=False)
        inside = np.flatnonzero(label == np.bincount(label).argmax())
        if len(inside) < 3:
            raise UserError(
                f"graph {self.graph!r}: expected a connected component of at least 3 nodes, found {len(inside)} "
                f"(of {len(names)} nodes); check columns and threshold"
            )
        return names[inside], adjacency[inside][:, inside].tocsr(), len(names) - len(inside)


def landmarks(nodes: np.ndarray, count: int | None, weight: np.ndarray | None = None) -> np.ndarray:
    """Sorted numbers of ``count`` of the ``nodes`` (m,), chosen by a hash of their names; all for None.

    With a ``weight`` (m,) > 0 a node is drawn in proportion to it, without replacement (Efraimidis and Spirakis 2006,
    Information Processing Letters 97, algorithm A, in logarithms).

    Examples
    --------
    >>> landmarks(np.array(["A", "B", "C"]), None).tolist()
    [0, 1, 2]
    >>> landmarks(np.array(["A", "B", "C"]), 1, np.array([1.0, 1e6, 1.0])).tolist()
    [1]
    """
    if count is None or count >= len(nodes):
        return np.arange(len(nodes))
    draw = np.array([generator("landmark", name).random() for name in nodes.tolist()])
    order = draw if weight is None else -np.log(draw) / weight
    return np.sort(np.argsort(order, kind="stable")[:count])
