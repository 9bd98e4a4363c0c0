"""Which control cell goes with which perturbed cell: independent, optimal, or entropic coupling in small blocks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

COUPLINGS = ("independent", "exact", "sinkhorn")
UNDERFLOW = -600.0  # exponent below which a float64 kernel is 0


def matched_controls(batches: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For every perturbed cell a control cell of its batch (of any batch where that one has none), drawn at random.

    Parameters
    ----------
    batches : shape (m,), batch codes of the perturbed cells.
    pool : shape (p,), batch codes of the control cells.
    rng : of the draw.

    Returns
    -------
    Positions in the pool, shape (m,), int64; without repeats within a batch where it has enough cells.

    Examples
    --------
    >>> matched_controls(np.array([1, 1]), np.array([0, 1, 1]), np.random.default_rng(0)).tolist() in ([1, 2], [2, 1])
    True
    """
    out = np.empty(len(batches), dtype=np.int64)
    for code in np.unique(batches):
        own = np.flatnonzero(pool == code)
        own = own if len(own) else np.arange(len(pool))
        wanted = np.flatnonzero(batches == code)
        drawn = [rng.permutation(own) for _ in range(-(-len(wanted) // len(own)))]
        out[wanted] = np.concatenate(drawn)[: len(wanted)]
    return out


def couple(
    start: np.ndarray, end: np.ndarray, kind: str, batches: np.ndarray, *, epsilon: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Reorder start cells so that row i of ``start[order]`` belongs to row i of ``end``.

    Parameters
    ----------
    start, end : shape (m, k), latent cells of one context and condition.
    kind : ``independent`` (as they come), ``exact`` (the assignment with the smallest sum of squared distances) or
        ``sinkhorn`` (drawn from the entropic plan with regularisation ``epsilon`` on squared distances / 2).
    batches : shape (m,), batch codes, equal for start and end; pairs stay within a batch.
    epsilon : > 0, for ``sinkhorn``.
    seed : of the draw from the entropic plan.

    Returns
    -------
    Positions in ``start``, shape (m,), int64; a permutation unless drawn from an entropic plan.

    References
    ----------
    Tong et al. (2024), TMLR, section 3.2 (minibatch couplings); Cuturi (2013), equation 2; for pairs of a Schrödinger
    bridge with variance sigma^2 the regularisation of squared distances / 2 is sigma^2: Léonard (2014), section 2.
    """
    order = np.arange(len(start))
    if kind == "independent":
        return order
    rng = np.random.default_rng(seed)
    for code in np.unique(batches):
        own = np.flatnonzero(batches == code)
        cost = cdist(start[own], end[own], "sqeuclidean") / 2
        if kind == "exact":
            rows, columns = linear_sum_assignment(cost)
            order[own[columns]] = own[rows]
        else:
            plan = entropic_plan(cost, epsilon)
            bound = np.cumsum(plan, axis=0) / plan.sum(axis=0)
            drawn = (bound < rng.random(len(own))[None, :]).sum(axis=0)
            order[own] = own[np.minimum(drawn, len(own) - 1)]
    return order


def entropic_plan(cost: np.ndarray, epsilon: float, iterations: int = 60) -> np.ndarray:
    """Sinkhorn's plan for uniform marginals, shape (m, m); columns sum to 1 / m exactly.

    Scaled kernels where float64 holds them, else the same iterations in the log domain, which cost ten times as much.

    Examples
    --------
    >>> entropic_plan(np.zeros((2, 2)), 1.0).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    m = len(cost)
    kernel = (cost.min(axis=0) - cost) / epsilon  # a factor per column is taken up by the scaling
    if kernel.min() > UNDERFLOW:
        scaled = np.exp(kernel)
        v = np.full(m, 1.0 / m)
        for _ in range(iterations):
            u = 1.0 / (m * (scaled @ v))
            v = 1.0 / (m * (scaled.T @ u))
        return u[:, None] * scaled * v[None, :]
    g = np.zeros(m)
    for _ in range(iterations):
        f = -_logsumexp(kernel + g[None, :], axis=1) - np.log(m)
        g = -_logsumexp(kernel + f[:, None], axis=0) - np.log(m)
    return np.exp(kernel + f[:, None] + g[None, :])


def _logsumexp(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis=axis, keepdims=True)
    return np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
