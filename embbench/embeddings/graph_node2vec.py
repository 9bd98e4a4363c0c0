"""node2vec and DeepWalk embeddings: the closed form of the walks (NetMF), or biased walks with skip-gram."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Embedding, PerturbationDataset, UserError
from embbench.embeddings._graph import GraphParameters
from embbench.embeddings._linalg import signed, top_eigenpairs
from embbench.embeddings._rows import generator, pick
from embbench.embeddings._walks import biased_walks, skip_gram

WALKS: dict[str, float] = {"walks": 10, "length": 40, "epochs": 1, "rate": 0.1}  # defaults of what walks alone read
METHODS = ("factorise", "walks")
DENSE = 1000  # nodes up to which the matrix is decomposed by LAPACK in float64
BLOCK = 128  # columns computed and Krylov directions added together
SETTLED = 3e-6  # residual of singular vectors of larger matrices over the first value; float32 reaches about 1e-7
COST = 2e12  # multiplications of the exact method, about half an hour on one core


class GraphNode2Vec(GraphParameters):
    """Nodes that random walks visit near one another are alike.

    ``factorise`` decomposes what skip-gram on uniform walks converges to: ``M = vol / (b T) (sum_{r=1..T} P^r) D^-1``
    with ``P = D^-1 A``, window T and b negative samples; truncated SVD of ``ln max(1, M)``, ``U sqrt(S)``. Exact and
    deterministic; ``rank: h`` replaces the sum by its part in the h largest eigenvalues of ``D^-1/2 A D^-1/2``.
    ``walks`` draws node2vec walks with parameters p and q and trains skip-gram with negative sampling (seeded).

    Only the largest connected component is embedded.

    Parameters
    ----------
    method : ``factorise`` or ``walks``.
    window, negative : T and b; null takes 10 and 1 to factorise (as the paper of the closed form), 5 and 5 for walks.
    rank : null is exact; h is the approximation for graphs where window x edges x nodes is large.
    p, q : return and in-out parameters of walks (> 0); small q explores, small p stays.
    walks, length, epochs, rate, seed : walks per node, nodes per walk, passes, learning rate, random stream.
    **edges : see `GraphParameters`.

    References
    ----------
    Qiu et al. (2018), Network Embedding as Matrix Factorization, WSDM, theorem 2.3 and algorithms 3 and 4; Grover and
    Leskovec (2016), node2vec: Scalable Feature Learning for Networks, KDD; Perozzi et al. (2014), DeepWalk, KDD.

    Examples
    --------
    >>> GraphNode2Vec(method="factorise", q=0.5)
    Traceback (most recent call last):
    ValueError: GraphNode2Vec: p and q belong to method walks (factorise has p = q = 1), got p=1.0 and q=0.5
    """

    def __init__(
        self,
        graph: str = "ppi",
        dim: int = 100,
        method: str = "factorise",
        window: int | None = None,
        negative: int | None = None,
        rank: int | None = None,
        p: float = 1.0,
        q: float = 1.0,
        walks: int = 10,
        length: int = 40,
        epochs: int = 1,
        rate: float = 0.1,
        seed: int = 0,
        **edges: Any,
    ) -> None:
        super().__init__(graph, dim, **edges)
        if method not in METHODS:
            raise ValueError(f"GraphNode2Vec: method must be one of {', '.join(METHODS)}, got {method!r}")
        self.window = window if window is not None else 10 if method == "factorise" else 5
        self.negative = negative if negative is not None else 1 if method == "factorise" else 5
        whole = {"window": self.window, "negative": self.negative, "rank": rank, "walks": walks, "epochs": epochs}
        whole |= {"length": length}
        if bad := {k: v for k, v in whole.items() if v is not None and (not isinstance(v, int) or v < 1)}:
            raise ValueError(f"GraphNode2Vec: numbers must be integers >= 1, got {bad}")
        if length < 2 or not all(isinstance(x, Real) and x > 0 for x in (p, q, rate)):
            raise ValueError(f"GraphNode2Vec: need length >= 2 and p, q, rate > 0, got {length}, {p}, {q}, {rate}")
        if method == "factorise" and (p != 1 or q != 1):
            raise ValueError(
                f"GraphNode2Vec: p and q belong to method walks (factorise has p = q = 1), got p={p} and q={q}"
            )
        if rank is not None and method == "walks":
            raise ValueError(
                f"GraphNode2Vec: rank belongs to method factorise (walks are not approximated), got {rank}"
            )
        given = {"walks": walks, "length": length, "epochs": epochs, "rate": rate}
        if method == "factorise" and (idle := {k: v for k, v in given.items() if v != WALKS[k]}):
            raise ValueError(f"GraphNode2Vec: these belong to method walks, which factorise does not take, got {idle}")
        self.method, self.rank, self.p, self.q, self.seed = method, rank, float(p), float(q), int(seed)
        self.walks, self.length, self.epochs, self.rate = walks, length, epochs, float(rate)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, dim or fewer), float32, of the asked nodes in the component; ``train`` is not read.

        Raises
        ------
        UserError
            The edges cannot be read, no component has 3 nodes, or the graph is too large for the exact method.
        """
        nodes, adjacency, outside = self.component()
        if self.method == "factorise":
            matrix = self._closed_form(adjacency)
            size, vectors = leading(matrix, self.dim)
            vectors = vectors * np.sqrt(np.abs(size))
        else:
            rng = generator("node2vec", self.seed)
            walks = biased_walks(adjacency, self.walks, self.length, self.p, self.q, rng)
            rest = (self.window, self.negative, self.epochs, self.rate)
            vectors, _ = skip_gram(walks, len(nodes), self.dim, *rest, rng)
        facts = {"source": self.graph, "nodes": len(nodes), "outside_component": outside, "holds": "knowledge"}
        form = {"method": self.method, "approximation": "none" if self.rank is None else f"rank {self.rank}"}
        return pick(names, nodes.tolist(), vectors, self.entity, {**facts, **form})

    def _closed_form(self, adjacency: sparse.csr_matrix) -> np.ndarray:
        cost = self.window * adjacency.nnz * adjacency.shape[0]
        if self.rank is None and cost > COST:
            raise UserError(
                f"graph {self.graph!r}: exact factorisation of {adjacency.nnz // 2} edges between "
                f"{adjacency.shape[0]} nodes takes {cost:.1e} multiplications, expected at most {COST:.0e}; give fewer "
                f"edges (threshold=700, top_k=50) or an approximation (rank=256)"
            )
        return log_walk_matrix(adjacency, self.window, self.negative, self.rank)


def log_walk_matrix(adjacency: sparse.csr_matrix, window: int, negative: int, rank: int | None) -> np.ndarray:
    """``ln max(1, M)`` of shape (n, n), symmetric; float64 up to 1000 nodes, else float32 (4 n^2 bytes).

    Parameters
    ----------
    adjacency : of shape (n, n), symmetric, no isolated node.
    window, negative : T and b of M, see `GraphNode2Vec`.
    rank : None is exact; h takes the h algebraically largest eigenvalues (algorithm 4 of the paper).

    Examples
    --------
    >>> pair = sparse.csr_matrix([[0.0, 1.0], [1.0, 0.0]])
    >>> np.exp(log_walk_matrix(pair, 1, 1, None)).round(6).tolist()
    [[1.0, 2.0], [2.0, 1.0]]
    """
    n = adjacency.shape[0]
    kind = np.float64 if n <= DENSE else np.float32
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    half = sparse.diags(1 / np.sqrt(degree))
    scaled = (half @ adjacency @ half).tocsr()
    if rank is not None:
        value, vector = top_eigenpairs(scaled, rank)
        left = vector * sum(value**r for r in range(1, window + 1))
    scaled = scaled.astype(kind)
    chance = np.sqrt(degree * (negative * window / degree.sum())).astype(kind)
    out = np.empty((n, n), dtype=kind)
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        if rank is not None:
            walked = left @ vector[block].T
        else:
            step = np.eye(n, block.stop - start, -start, dtype=kind)
            walked = np.zeros_like(step)
            for _ in range(window):
                step = scaled @ step
                walked += step
        out[:, block] = np.log(np.maximum(walked / chance[:, None] / chance[block], 1.0))
    return out


def leading(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` eigenpairs of largest magnitude of a symmetric matrix of shape (n, n): its singular vectors.

    LAPACK up to 1000 nodes, else block Lanczos with full reorthogonalisation from a fixed start, until residuals are
    below 3e-6 of the first value. Directions of value 0 are left out.

    Returns
    -------
    values : of shape (r,), r <= k, descending in magnitude.
    vectors : of shape (n, r), orthonormal, signs fixed.

    References
    ----------
    Golub and Van Loan (2013), Matrix Computations, section 10.3.6 (block Lanczos).
    """
    n = len(matrix)
    if n <= max(DENSE, 4 * k):
        values, vectors = np.linalg.eigh(matrix)
    else:
        values, vectors = _block_lanczos(matrix, k)
    order = np.argsort(-np.abs(values), kind="stable")[:k]
    order = order[np.abs(values[order]) > 1e-7 * np.abs(values[order[0]])]
    return values[order], signed(vectors[:, order])


def _block_lanczos(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """``k`` Ritz pairs from the Krylov space of a fixed block of random directions; all of (n, n) at the latest."""
    n, kind = len(matrix), matrix.dtype
    more = np.linalg.qr(np.random.default_rng(0).standard_normal((n, BLOCK)).astype(kind))[0]
    basis, image, small = np.empty((n, 0), kind), np.empty((n, 0), kind), np.empty((0, 0))
    while True:
        after = matrix @ more
        side = (basis.T @ after).astype(np.float64)
        corner = (more.T @ after).astype(np.float64)
        small = np.block([[small, side], [side.T, (corner + corner.T) / 2]])
        basis, image = np.concatenate([basis, more], axis=1), np.concatenate([image, after], axis=1)
        width = basis.shape[1]
        if (width >= 2 * k and (width // BLOCK) % 2 == 0) or width >= n:  # the small problem is half of the cost
            values, turn = np.linalg.eigh(small)
            lead = np.argsort(-np.abs(values), kind="stable")[:k]
            values, turn = values[lead], turn[:, lead].astype(kind)
            vectors = basis @ turn
            rest = np.linalg.norm(image @ turn - vectors * values.astype(kind), axis=0)
            if rest.max() <= SETTLED * np.abs(values[0]) or width >= n:
                return values, vectors
        more = after[:, : n - width]
        for _ in range(2):  # once is not enough in finite precision
            more = np.linalg.qr(more - basis @ (basis.T @ more))[0]
