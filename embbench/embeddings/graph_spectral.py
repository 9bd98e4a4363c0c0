"""Spectral embedding of a graph: eigenvectors of its (regularised) normalised Laplacian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from embbench.core import Embedding, PerturbationDataset
from embbench.embeddings._graph import GraphParameters
from embbench.embeddings._linalg import top_eigenpairs
from embbench.embeddings._rows import pick


class GraphSpectral(GraphParameters):
    """Eigenvectors of ``L = I - D^-1/2 A D^-1/2`` for its smallest non-trivial eigenvalues, one row per node.

    Only the largest connected component is embedded: a smaller one has coordinates unrelated to the rest, so its genes
    have no vector. The plain Laplacian of a sparse protein network spends most eigenvectors on pendant groups of two to
    five genes; ``tau`` adds a weak edge between all pairs, which removes them.

    Parameters
    ----------
    tau : regularisation in mean degrees, >= 0: ``A + tau * mean degree / nodes`` takes the place of ``A``; 0 is plain.
    unit_rows : scale every vector to length 1; otherwise vectors are rows of the eigenvectors times sqrt(nodes).
    **edges : see `GraphParameters`; ``dim`` is at most the number of nodes minus one.

    References
    ----------
    Ng, Jordan and Weiss (2001), On Spectral Clustering, steps 2 to 4, without the trivial eigenvector (square roots of
    degrees); regularisation of Amini et al. (2013), Annals of Statistics 41(4), equation 2.9, with the mean degree of
    Qin and Rohe (2013); Zhang and Rohe (2018) show why: it penalises small pendant sets.

    Examples
    --------
    >>> GraphSpectral(tau=-1)
    Traceback (most recent call last):
    ValueError: GraphSpectral: tau must be >= 0, got -1
    """

    def __init__(
        self, graph: str = "ppi", dim: int = 100, tau: float = 1.0, *, unit_rows: bool = True, **edges: Any
    ) -> None:
        super().__init__(graph, dim, **edges)
        if not tau >= 0:
            raise ValueError(f"GraphSpectral: tau must be >= 0, got {tau}")
        self.tau, self.unit_rows = float(tau), bool(unit_rows)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, min(dim, nodes - 1)), float32, of asked nodes in the component; reads no ``train``.

        Raises
        ------
        UserError
            The edges cannot be read or no component has 3 nodes.
        """
        nodes, adjacency, outside = self.component()
        # the smallest eigenvalues of L are the largest of I - L, where Lanczos converges without a factorisation
        _, vectors = top_eigenpairs(self._operator(adjacency), self.dim + 1)
        vectors = vectors[:, 1:] * np.sqrt(len(nodes))
        if self.unit_rows:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        facts = {"source": self.graph, "nodes": len(nodes), "outside_component": outside, "holds": "knowledge"}
        return pick(names, nodes.tolist(), vectors, self.entity, facts)

    def _operator(self, adjacency: sparse.csr_matrix) -> sparse.csr_matrix | LinearOperator:
        degree = np.asarray(adjacency.sum(axis=1)).ravel()
        n, extra = len(degree), self.tau * degree.mean()
        half = 1 / np.sqrt(degree + extra)
        scaled = (sparse.diags(half) @ adjacency @ sparse.diags(half)).tocsr()
        if self.tau == 0:
            return scaled

        def times(x: np.ndarray) -> np.ndarray:
            return scaled @ x + half.reshape(-1, *[1] * (x.ndim - 1)) * (extra / n * (half @ x))

        return LinearOperator((n, n), matvec=times, matmat=times, dtype=np.float64)
