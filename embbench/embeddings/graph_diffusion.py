"""Random walks with restart on a graph: log diffusion profiles, reduced by SVD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Embedding, PerturbationDataset
from embbench.embeddings._graph import GraphParameters, landmarks
from embbench.embeddings._linalg import truncated_svd
from embbench.embeddings._rows import pick

BLOCK = 64  # landmark columns solved together; fits the working set of a large graph into the cache
TOLERANCE = 1e-10  # residual of the linear system


class GraphDiffusion(GraphParameters):
    """Where walks that restart at a node end: ``ln(P + 1/n) - ln(1/n)``, truncated SVD, ``U sqrt(S)``.

    ``P = restart (I - (1 - restart) D^-1 A)^-1``; row i is the stationary distribution of a walk that returns to i with
    probability ``restart``. A profile has one column per landmark node; with ``landmarks: null`` (all nodes, quadratic
    memory) or in a graph of fewer nodes this is the method of the paper. Only the largest connected component is
    embedded; the other genes have no vector.

    Parameters
    ----------
    restart : probability of a restart per step, in (0, 1); 0.5 in the paper, smaller reaches further.
    landmarks : nodes, chosen by a hash of their names, whose columns of P are used; null takes all.
    **edges : see `GraphParameters`.

    References
    ----------
    Cho, Berger and Peng (2016), Compact Integration of Multi-Network Topology (Mashup), Cell Systems 3, equations 1
    and 4 with the SVD of their supplement; landmarks as in de Silva and Tenenbaum (2004), Landmark MDS. The columns are
    solved to 1e-10 by Chebyshev iteration (Saad 2003, Iterative Methods, algorithm 12.1) on the symmetric system.
    """

    def __init__(
        self, graph: str = "ppi", dim: int = 100, restart: float = 0.2, landmarks: int | None = 500, **edges: Any
    ) -> None:
        super().__init__(graph, dim, **edges)
        if not 0 < restart < 1:
            raise ValueError(f"GraphDiffusion: restart must be in (0, 1), got {restart}")
        if landmarks is not None and landmarks < 1:
            raise ValueError(f"GraphDiffusion: landmarks must be >= 1 or null, got {landmarks}")
        self.restart, self.landmarks = float(restart), landmarks

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, min(dim, rank)), float32, of the asked nodes in the component; ``train`` is not read.

        Raises
        ------
        UserError
            The edges cannot be read or no component has 3 nodes.
        """
        nodes, adjacency, outside = self.component()
        columns = landmarks(nodes, self.landmarks)
        profile = np.log1p(len(nodes) * restart_walk(adjacency, columns, self.restart))
        U, s, _ = truncated_svd(profile, self.dim)
        facts = {"source": self.graph, "nodes": len(nodes), "outside_component": outside, "holds": "knowledge"}
        return pick(names, nodes.tolist(), U * np.sqrt(s), self.entity, {**facts, "landmarks": len(columns)})


def restart_walk(adjacency: sparse.csr_matrix, columns: np.ndarray, restart: float) -> np.ndarray:
    """Columns of ``restart (I - (1 - restart) D^-1 A)^-1``: probabilities, shape (n, landmarks), to be at one.

    Parameters
    ----------
    adjacency : of shape (n, n), symmetric, no isolated node.
    columns : landmark node numbers.
    restart : in (0, 1).

    Examples
    --------
    >>> restart_walk(sparse.csr_matrix([[0.0, 1.0], [1.0, 0.0]]), np.array([0]), 0.5).round(4).tolist()
    [[0.6667], [0.3333]]
    """
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    root = np.sqrt(degree)
    scaled = (sparse.diags(1 / root) @ adjacency @ sparse.diags(1 / root)).tocsr()
    out = np.empty((len(degree), len(columns)))
    for start in range(0, len(columns), BLOCK):
        block = columns[start : start + BLOCK]
        right = np.zeros((len(degree), len(block)))
        right[block, np.arange(len(block))] = 1.0
        solution = _chebyshev(scaled, 1 - restart, right)
        out[:, start : start + BLOCK] = restart * solution / root[:, None] * root[block]
    return np.maximum(out, 0.0)


def _chebyshev(scaled: sparse.csr_matrix, q: float, right: np.ndarray) -> np.ndarray:
    """Solve ``(I - q S) X = right``; the spectrum of S lies in [-1, 1], so that of the system in [1 - q, 1 + q]."""
    solution, residual = np.zeros_like(right), right.copy()
    step, rho = right.copy(), q
    while np.abs(residual).max() > TOLERANCE:
        solution += step
        residual -= step - q * (scaled @ step)
        rho_next = 1 / (2 / q - rho)
        step = rho_next * rho * step + (2 * rho_next / q) * residual
        rho = rho_next
    return solution
