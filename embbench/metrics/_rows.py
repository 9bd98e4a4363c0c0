"""Row-wise kernels over scored entries: blocks of rows in float64, NaN where too few genes are scored."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from embbench.core import Truth

BLOCK = 1 << 16  # entries per block: its float64 copies stay in the processor's cache
CONSTANT = 1e-12  # a row whose spread is below this share of its size is constant up to float64 rounding
RESOLUTION = 2.0**-20  # relative, of stored float32 vectors: eight spacings

Kernel = Callable[..., np.ndarray]
Scorer = Callable[[np.ndarray, Truth, np.ndarray], np.ndarray]


def by_rows(
    least: int, *, expression: bool = False, fields: tuple[str, ...] = (), stored: bool = False
) -> Callable[[Kernel], Scorer]:
    """Make a metric function of a kernel on blocks of rows.

    Parameters
    ----------
    least : rows with fewer scored genes are NaN.
    expression : add the half-B control mean to effects and predictions first.
    fields : (n, g) fields of `Truth` that the kernel takes too, such as ``variance``; they must not be None.
    stored : hand over effects and predictions as they are stored, in any type and with anything outside the mask.

    Returns
    -------
    Decorator of ``kernel(p, t, mask, *fields) -> (b,)``; ``p``, ``t`` and the fields of shape (b, g), float64 and the
    kernel's own, are 0 outside the mask.
    """

    def decorate(kernel: Kernel) -> Scorer:
        @functools.wraps(kernel)
        def score(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
            out = np.full(len(pred), np.nan)
            step = max(1, BLOCK // max(1, mask.shape[1]))
            sides = (pred, truth.effects, *(getattr(truth, field) for field in fields))
            for start in range(0, len(pred), step):
                part = slice(start, start + step)
                block = [x[part] if stored else x[part].astype(np.float64, order="C") for x in sides]
                if expression and truth.baseline is not None:
                    for x in block[:2]:
                        x += truth.baseline[part]
                if not stored and not mask[part].all():
                    for x in block:
                        np.copyto(x, 0.0, where=~mask[part])
                values = kernel(block[0], block[1], mask[part], *block[2:])
                out[part] = np.where(mask[part].sum(axis=1) >= least, values, np.nan)
            return out

        return score

    return decorate


def inner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products of rows ``sum_g x_ig y_ig``, shape (b,); float64 (b, g) in the order of memory, no temporary.

    Examples
    --------
    >>> inner(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])).tolist()
    [11.0]
    """
    return np.einsum("ij,ij->i", x, y)


def centred(x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deviations, shape (b, g), of scored entries from their row mean, and sums of squares (b,), 0 if constant."""
    away = x - x.sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    if not mask.all():
        np.copyto(away, 0.0, where=~mask)
    squares = inner(away, away)
    return away, np.where(squares > CONSTANT**2 * inner(x, x), squares, 0.0)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """``top / bottom`` of shape (b,), NaN where ``bottom`` is 0.

    Examples
    --------
    >>> ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
    [0.5, nan]
    """
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)
