"""Rows as a search sees them: float32, in a range and around a centre that single precision can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from embbench.heads._search_rank import unit_rows

SAMPLE = 64  # rows that say whether centring pays
PAYS = 0.2  # squared length of the centre as a share of the mean squared distance from it
RANGE = 1e-6, 1e6  # lengths that need no scaling: their squares and products are far from overflow and underflow


class Frame:
    """Float32 rows: centred where that pays (l2), scaled where the range asks for it, of unit length (cosine).

    Rows that need none of it are used where they lie: nothing is copied. Any centre serves l2, for distances do not
    depend on it; it decides only how many digits the rounding takes.

    Parameters
    ----------
    X, Q : finite arrays, or tensors on one device, of shapes (n, d) and (q, d).
    metric : ``l2``, ``cosine`` or ``inner_product``.
    """

    def __init__(self, X: Any, Q: Any, metric: str) -> None:
        self.metric = metric
        self.centre: np.ndarray | None = None
        self.scale = 1.0
        if metric == "cosine" or not X.shape[1]:
            return
        largest = max(_largest(X), _largest(Q)) if len(Q) else _largest(X)
        reach = largest * np.sqrt(X.shape[1])
        if 0 < reach < np.inf and not RANGE[0] < reach < RANGE[1]:
            self.scale = reach
        if metric == "l2":
            some = X[:: max(1, len(X) // SAMPLE)]
            some = np.asarray(some if isinstance(some, np.ndarray) else some.cpu(), dtype=np.float64) / self.scale
            centre = some.mean(axis=0)
            if np.square(centre).sum() * len(some) > PAYS * np.square(some - centre).sum():
                self.centre = centre * self.scale

    def __call__(self, rows: Any) -> Any:
        """Rows (m, d) in float32 and C order, an array or a tensor as they came."""
        if not isinstance(rows, np.ndarray):
            return self._tensor(rows)
        if self.metric == "cosine":
            return unit_rows(rows).astype(np.float32)
        moved = rows if self.centre is None else rows - self.centre
        return np.ascontiguousarray(moved if self.scale == 1.0 else moved / self.scale, dtype=np.float32)

    def _tensor(self, rows: Any) -> Any:
        wide = rows.double()
        if self.metric == "cosine":
            wide = wide / wide.abs().amax(dim=1, keepdim=True).clamp_min(5e-324)
            return (wide / wide.norm(dim=1, keepdim=True).clamp_min(5e-324)).float()
        centre = 0.0 if self.centre is None else wide.new_tensor(self.centre)
        return ((wide - centre) / self.scale).float()


def _largest(X: Any) -> float:
    """Largest absolute value, without a copy of the rows."""
    flat = X.reshape(-1)  # contiguous rows: a view, and one run of values instead of many
    return max(float(flat.max()), -float(flat.min()))
