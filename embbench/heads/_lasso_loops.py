"""Inner loops of the Lasso on a Gram matrix, for rows of genes: compiled where numba is installed, and in numpy."""

from __future__ import annotations

import numpy as np

from embbench.numerics.jit import compiled, has_numba

PIVOT = 1e-12  # share of a feature's variance below which it is a combination of others


def shrink(pull: np.ndarray, share: np.ndarray, spread: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Soft threshold of ``pull`` (d, g), times ``share`` (d,): coefficients (d, g), and the sums (2, g) over features
    of their sizes and of their sizes times ``spread`` (d,).

    Examples
    --------
    >>> one = np.ones(3)
    >>> shrink(np.array([[-3.0], [0.5], [2.0]]), one, one, 1.0)[0].ravel().tolist()
    [-2.0, 0.0, 1.0]
    """
    if has_numba():
        coef, sums = np.empty_like(pull), np.zeros((2, pull.shape[1]))
        _shrink_loop(pull, share, spread, alpha, coef, sums)
        return coef, sums
    coef = np.clip(pull, -alpha, alpha)
    np.subtract(pull, coef, out=coef)
    coef *= share[:, None]
    return coef, np.stack([np.ones_like(spread), spread]) @ np.abs(coef)


@compiled
def _shrink_loop(
    pull: np.ndarray, share: np.ndarray, spread: np.ndarray, alpha: float, coef: np.ndarray, sums: np.ndarray
) -> None:
    total, reach = sums[0], sums[1]
    for j in range(pull.shape[0]):
        line, out = pull[j], coef[j]
        for i in range(len(total)):
            value = (line[i] - min(max(line[i], -alpha), alpha)) * share[j]
            out[i] = value
            total[i] += abs(value)
            reach[i] += abs(value) * spread[j]


def violations(slope: np.ndarray, coef: np.ndarray, alpha: float, spread: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Largest violation of the optimality conditions of every gene, (m,), as a correlation of feature and residual.

    Parameters
    ----------
    slope : (d, m) covariances of features and residuals.
    coef : (d, m) coefficients.
    alpha : the penalty.
    spread, scale : (d,) and (m,) standard deviations of features and targets.
    """
    off = np.where(coef != 0, np.abs(slope - alpha * np.sign(coef)), np.maximum(np.abs(slope) - alpha, 0.0))
    off /= np.where(spread > 0, spread, np.inf)[:, None]
    out: np.ndarray = off.max(axis=0, initial=0.0) / np.where(scale > 0, scale, np.inf)
    return out


def sweeps(gram: np.ndarray, slope: np.ndarray, coef: np.ndarray, late: np.ndarray, alpha: float, count: int) -> None:
    """``count`` sweeps of cyclic coordinate descent for the rows ``late`` of ``coef`` (m, d), in place.

    ``slope`` (m, d) is ``cross - coef @ gram`` and kept so (Friedman et al. 2010, section 2.2, covariance updates).
    """
    if has_numba():
        _sweeps_loop(gram, slope, coef, late, alpha, count)
        return
    part, pull = coef[late], slope[late]
    size = np.diagonal(gram)
    for _ in range(count):
        for j in np.flatnonzero((size > 0) & ((part != 0) | (np.abs(pull) > alpha)).any(axis=0)):
            free = pull[:, j] + size[j] * part[:, j]
            step = (free - np.clip(free, -alpha, alpha)) / size[j] - part[:, j]
            part[:, j] += step
            pull -= step[:, None] * gram[j]
    coef[late], slope[late] = part, pull


@compiled
def _sweeps_loop(
    gram: np.ndarray, slope: np.ndarray, coef: np.ndarray, late: np.ndarray, alpha: float, count: int
) -> None:
    for i in late:
        w, q = coef[i], slope[i]
        for _ in range(count):
            for j in range(len(w)):
                size = gram[j, j]
                if size <= 0 or (w[j] == 0 and abs(q[j]) <= alpha):
                    continue
                free = q[j] + size * w[j]
                new = (free - min(max(free, -alpha), alpha)) / size
                step = new - w[j]
                if step != 0:
                    w[j] = new
                    for k in range(len(w)):
                        q[k] -= step * gram[j, k]


def finish(gram: np.ndarray, pull: np.ndarray, coef: np.ndarray, late: np.ndarray, alpha: float, rank: int) -> None:
    """The exact minimum of rows ``late`` of ``coef`` (m, d) on the features in use and their signs, in place.

    Where a coefficient would change its sign on the way, the row stops there and that feature is dropped (Lee et al.
    2006, feature-sign steps). Rows with more features in use than ``rank``, or with dependent ones, stay as they are.
    """
    if has_numba():
        _finish_loop(gram, pull, coef, late, alpha, rank, PIVOT)
        return
    for i in late:
        used = np.flatnonzero(coef[i])
        inner = gram[np.ix_(used, used)]
        if not 0 < len(used) <= rank:
            continue
        try:
            lower = np.linalg.cholesky(inner)
        except np.linalg.LinAlgError:
            continue
        if (np.diagonal(lower) ** 2 <= PIVOT * np.diagonal(inner)).any():
            continue
        now, sign = coef[i, used], np.sign(coef[i, used])
        goal = np.linalg.solve(lower.T, np.linalg.solve(lower, pull[i, used] - alpha * sign))
        share = np.full(len(used), 1.0)
        crossing = goal * sign <= 0
        share[crossing] = now[crossing] / (now - goal)[crossing]
        move = share.min()
        coef[i, used] = np.where(crossing & (share == move), 0.0, goal if move == 1 else now + move * (goal - now))


@compiled
def _finish_loop(
    gram: np.ndarray, pull: np.ndarray, coef: np.ndarray, late: np.ndarray, alpha: float, rank: int, pivot: float
) -> None:
    for i in late:
        used = np.flatnonzero(coef[i])
        m = len(used)
        if m == 0 or m > rank:
            continue
        # Rows of the upper triangle: what is subtracted lies side by side in memory.
        factor, goal = np.empty((m, m)), np.empty(m)
        for a in range(m):
            goal[a] = pull[i, used[a]] - alpha * np.sign(coef[i, used[a]])
            for b in range(a, m):
                factor[a, b] = gram[used[a], used[b]]
        whole = True
        for a in range(m):
            if factor[a, a] <= pivot * gram[used[a], used[a]]:
                whole = False
                break
            root = np.sqrt(factor[a, a])
            goal[a] /= root
            for b in range(a, m):
                factor[a, b] /= root
            for b in range(a + 1, m):
                ratio = factor[a, b]
                goal[b] -= ratio * goal[a]
                for c in range(b, m):
                    factor[b, c] -= ratio * factor[a, c]
        if not whole:
            continue
        move = 1.0
        for a in range(m - 1, -1, -1):
            for b in range(a + 1, m):
                goal[a] -= factor[a, b] * goal[b]
            goal[a] /= factor[a, a]
            now = coef[i, used[a]]
            if goal[a] * now <= 0:
                move = min(move, now / (now - goal[a]))
        for a in range(m):
            now = coef[i, used[a]]
            if goal[a] * now <= 0 and now / (now - goal[a]) == move:
                coef[i, used[a]] = 0.0
            else:
                coef[i, used[a]] = goal[a] if move == 1.0 else now + move * (goal[a] - now)
