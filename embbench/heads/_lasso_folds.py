"""Squared errors of held rows under many penalties and folds at once, for selection: no coefficient is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from embbench.heads._lasso import BLOCK, TOLERANCE, correlation, gram_of

Part: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Fold:
    """One fold on uncorrelated features: what is asked of a block of genes.

    Parameters
    ----------
    left : (d + 1, n) centred features of fitted rows over their number, 0 for others; last, the mean over them.
    share : (d, 1) 1 / variance of the features, 0 for constant ones.
    query : (m, d) features of the held rows, centred alike.
    held : (m,) row numbers.
    """

    left: np.ndarray
    share: np.ndarray
    query: np.ndarray
    held: np.ndarray


def closed_errors(parts: Sequence[Part], Y: np.ndarray, alphas: Sequence[float]) -> list[np.ndarray] | None:
    """Squared errors of Lasso predictions, an array (len(alphas), m) for each fold; None where the closed form is not
    the solution in every fold.

    Parameters
    ----------
    parts : for each fold, features (n, d) of all rows and the row numbers that are fitted and held.
    Y : (n, g) targets of all rows.
    alphas : penalties.

    Notes
    -----
    Blocks of genes stay in the cache while the products of all folds with them are one matrix product, are shrunk and
    predict the held rows. In float32 where features and targets are, with sums over genes in float64.
    """
    exact = np.float32 if all(X.dtype == Y.dtype == np.float32 for X, _, _ in parts) else np.float64
    folds = [_fold(*part, exact) for part in parts]
    if any(fold is None for fold in folds):
        return None
    known = [fold for fold in folds if fold is not None]
    stack = np.concatenate([fold.left for fold in known])
    out = [np.zeros((len(alphas), len(fold.held))) for fold in known]
    for start in range(0, Y.shape[1], BLOCK):
        block = Y[:, start : start + BLOCK]
        target = np.subtract(block, block.mean(axis=0, dtype=exact), dtype=exact)
        sums, row = stack @ target, 0
        for fold, errors in zip(known, out, strict=True):
            mine, row = sums[row : row + len(fold.left)], row + len(fold.left)
            truth = target[fold.held] - mine[-1]
            for error, alpha in zip(errors, alphas, strict=True):
                error += _block_errors(fold, mine[:-1], truth, alpha)
    return out


def _fold(X: np.ndarray, fit: np.ndarray, held: np.ndarray, exact: type) -> _Fold | None:
    mean, gram = gram_of(X[fit])
    size = np.diagonal(gram)[:, None]
    if correlation(gram) * np.sqrt(len(gram)) > TOLERANCE:
        return None
    left: np.ndarray = np.zeros((len(gram) + 1, len(X)), exact)
    left[:-1, fit] = (X[fit] - mean).T / len(fit)
    left[-1, fit] = 1.0 / len(fit)
    share = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    return _Fold(left, share.astype(exact), (X[held] - mean).astype(exact), held)


def _block_errors(fold: _Fold, cross: np.ndarray, truth: np.ndarray, alpha: float) -> np.ndarray:
    """Squared errors (m,) over a block of genes from covariances (d, b) and effects less training means (m, b)."""
    coef = np.clip(cross, -alpha, alpha)
    np.subtract(cross, coef, out=coef)
    used = coef.any(axis=1)
    off = truth
    if used.all():
        coef *= fold.share
        off = fold.query @ coef
        off -= truth
    elif used.any():
        off = fold.query[:, used] @ (coef[used] * fold.share[used])
        off -= truth
    out: np.ndarray = np.einsum("mb,mb->m", off, off)
    return out
