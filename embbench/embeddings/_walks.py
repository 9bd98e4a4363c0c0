"""Biased random walks over a graph, all advancing together, and skip-gram with negative sampling on them."""

from __future__ import annotations

import numpy as np
from scipy import sparse

BATCH = 8192  # pairs per update
CHUNK = 2048  # walks whose pairs are shuffled together: about 100 MB of pairs at the defaults
SHARED = (
    64  # noise nodes drawn per batch and shared by its pairs: one small matrix product instead of a gather per pair
)
NOISE = 0.75  # exponent of the noise distribution (Mikolov et al. 2013)


def biased_walks(
    adjacency: sparse.csr_matrix, count: int, length: int, p: float, q: float, rng: np.random.Generator
) -> np.ndarray:
    """``count`` walks of ``length`` nodes from every node: shape (count * n, length), int32.

    After a step t -> v the next node x has probability proportional to ``alpha(t, x) w(v, x)`` with alpha 1/p when x is
    t, 1 when x is a neighbour of t, 1/q otherwise. All walks take a step at once: neighbours are drawn by weight, by a
    search in the running sum of weights, and accepted with probability alpha / max(alpha) until every walk has moved.

    Parameters
    ----------
    adjacency : of shape (n, n), symmetric, sorted indices, no isolated node.
    p, q : return and in-out parameters, > 0; 1 and 1 are first-order walks.
    rng : random stream.

    References
    ----------
    Grover and Leskovec (2016), node2vec, KDD, section 3.2; acceptance instead of alias tables per edge as in Yang et
    al. (2019), KnightKing, SOSP.
    """
    n = adjacency.shape[0]
    running = np.cumsum(adjacency.data)
    total = np.asarray(adjacency.sum(axis=1)).ravel()
    start, stop = adjacency.indptr[:-1], adjacency.indptr[1:]
    before = np.r_[0.0, running][start]
    edges = np.repeat(np.arange(n), np.diff(adjacency.indptr)) * n + adjacency.indices
    highest = max(1.0, 1 / p, 1 / q)

    def draw(node: np.ndarray) -> np.ndarray:
        at = np.searchsorted(running, before[node] + rng.random(len(node)) * total[node], side="right")
        return adjacency.indices[np.clip(at, start[node], stop[node] - 1)]  # rounding may step over the row's end

    def alpha(last: np.ndarray, after: np.ndarray) -> np.ndarray:
        key = last.astype(np.int64) * n + after
        near = edges[np.minimum(np.searchsorted(edges, key), len(edges) - 1)] == key
        return np.where(after == last, 1 / p, np.where(near, 1.0, 1 / q))

    out = np.empty((length, count * n), dtype=np.int32)
    out[0] = np.tile(np.arange(n), count)
    for step in range(1, length):
        out[step] = draw(out[step - 1])
        waiting = np.arange(count * n if step > 1 and (p != 1 or q != 1) else 0)
        while len(waiting):
            accept = alpha(out[step - 2, waiting], out[step, waiting])
            waiting = waiting[rng.random(len(waiting)) * highest >= accept]
            out[step, waiting] = draw(out[step - 1, waiting])
    return np.ascontiguousarray(out.T)


def skip_gram(
    walks: np.ndarray,
    nodes: int,
    dim: int,
    window: int,
    negative: int,
    epochs: int,
    rate: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and context vectors of skip-gram with negative sampling, shape (nodes, dim), float32.

    Maximises ``ln sigma(u_c . v_o) + negative E ln sigma(-u_c . v_noise)`` over pairs (c, o) at distance d <= window,
    taken with probability ``(window - d + 1) / window``; noise follows visits to the power 3/4. Minibatches with
    Adagrad, one learning rate per node.

    Parameters
    ----------
    walks : of shape (walks, length), node numbers.
    nodes : how many nodes there are.
    rate : learning rate.

    References
    ----------
    Mikolov et al. (2013), Distributed Representations of Words and Phrases, NeurIPS, equation 4; Duchi et al. (2011),
    Adaptive Subgradient Methods, JMLR 12, per row as in Lerer et al. (2019), PyTorch-BigGraph, section 3.1, which also
    shares the noise of a batch.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over threads are in another order, so bits would depend on their number
    try:
        return _trained(walks, nodes, dim, window, negative, epochs, rate, rng)
    finally:
        torch.set_num_threads(threads)


def _trained(
    walks: np.ndarray,
    nodes: int,
    dim: int,
    window: int,
    negative: int,
    epochs: int,
    rate: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    visits = np.bincount(walks.ravel(), minlength=nodes) ** NOISE
    noise = np.cumsum(visits) / visits.sum()
    centre = torch.from_numpy(rng.uniform(-0.5, 0.5, (nodes, dim)).astype(np.float32) / dim)
    context = torch.zeros(nodes, dim)
    squares = (torch.zeros(nodes), torch.zeros(nodes))

    def descend(table: torch.Tensor, square: torch.Tensor, index: torch.Tensor, gradient: torch.Tensor) -> None:
        square.index_add_(0, index, gradient.square().mean(dim=1))
        table.index_add_(0, index, gradient * (-rate / (square[index].sqrt() + 1e-10))[:, None])

    for _ in range(epochs):
        order = rng.permutation(len(walks))
        for first in range(0, len(walks), CHUNK):
            pairs = torch.from_numpy(_pairs(walks[order[first : first + CHUNK]], window, rng))
            for batch in pairs.split(BATCH):
                here, there = batch[:, 0], batch[:, 1]
                other = torch.from_numpy(np.searchsorted(noise, rng.random(SHARED), side="right"))
                u, v, w = centre[here], context[there], context[other]
                pull = torch.sigmoid((u * v).sum(dim=1)) - 1
                push = torch.sigmoid(u @ w.T) * (negative / SHARED)
                descend(centre, squares[0], here, pull[:, None] * v + push @ w)
                descend(context, squares[1], there, pull[:, None] * u)
                descend(context, squares[1], other, push.T @ u)
    return centre.numpy(), context.numpy()


def _pairs(walks: np.ndarray, window: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffled (centre, context) pairs of shape (k, 2), int64, both directions."""
    parts = []
    for d in range(1, min(window, walks.shape[1] - 1) + 1):
        pair = np.stack([walks[:, :-d].ravel(), walks[:, d:].ravel()], axis=1)
        for ends in (pair, pair[:, ::-1]):
            parts.append(ends[rng.random(len(ends)) * window < window - d + 1])
    return rng.permutation(np.concatenate(parts).astype(np.int64))
