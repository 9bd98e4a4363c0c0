"""Cells of the k nearest training perturbations, as they are or moved to the mean that ridge predicts."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._leave_out import left_out, unit_blocks
from embbench.heads._neighbours import WEIGHTS, neighbour_weights
from embbench.heads._pooling import Pooled
from embbench.heads._ridge import ridge_path
from embbench.heads._search import METRICS
from embbench.heads._smoother import positive, whole
from embbench.numerics.linalg import pca

MOVES = ("none", "ridge")
PENALTIES = tuple(float(f"{alpha:.3g}") for alpha in np.logspace(-2, 5, 15))
AXES = 64  # of the effects, when penalties are compared


class PooledCells(Pooled):
    """Population of the cells of the k nearest training rows, in proportion to the neighbours' weights.

    Parameters
    ----------
    k, metric, weights, temperature : of the neighbours, as in `KNN`.
    move : ``none``: cells as they are, and ``predict`` is kNN's. ``ridge``: all cells of a query's pool are moved by
        one vector, so that their weighted mean effect is what ridge predicts, and ``predict`` is ridge's.
    alpha : ridge penalty, > 0. None: of 15 from 1e-2 to 1e5, the one with the smallest leave-one-unit-out squared error
        on the training rows, in closed form (with a single unit: leave-one-row-out; with a single row: the largest).
    seed : of the draw.

    Notes
    -----
    See `Pooled` for the draw, for cells of other contexts, and for what unbalanced batches do. A moved cell may have
    negative values where it had zeros.

    References
    ----------
    Neighbours: Fix and Hodges (1951), USAF School of Aviation Medicine, report 4, here with the neighbours' samples in
    place of their mean: the conditional distribution estimate of Stone (1977), Annals of Statistics 5:595-620. Ridge:
    Hoerl and Kennard (1970), equation 2.1.

    Examples
    --------
    >>> PooledCells(move="lasso")
    Traceback (most recent call last):
    ValueError: PooledCells: move must be one of ('none', 'ridge'), got 'lasso'
    """

    def __init__(
        self, k: int = 10, metric: str = "l2", weights: str = "uniform", temperature: float = 1.0, move: str = "none",
        alpha: float | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        whole("PooledCells", k=k)
        positive("PooledCells", temperature=temperature, **({} if alpha is None else {"alpha": alpha}))
        for name, value, known in (("metric", metric, METRICS), ("weights", weights, WEIGHTS), ("move", move, MOVES)):
            if value not in known:
                raise ValueError(f"PooledCells: {name} must be one of {known}, got {value!r}")
        if weights == "distance" and metric == "inner_product":
            raise ValueError(f"PooledCells: weights {weights!r} need a distance (l2 or cosine), got metric {metric!r}")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"PooledCells: seed must be a whole number >= 0, got {seed!r}")
        self.k, self.metric, self.weighting, self.temperature = k, metric, weights, temperature
        self.shift, self.alpha, self.seed = move, alpha, seed

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """6 uniform neighbourhoods: selection scores sampled cells, which costs more than scoring effects."""
        return [{"k": k} for k in (1, 3, 5, 10, 20, 50)]

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Keep the training rows (see `Pooled.fit`), and choose the ridge penalty where cells are to be moved."""
        super().fit(inputs, Y, observed)
        if self.shift != "none":
            self.alpha_ = best_penalty(inputs, Y) if self.alpha is None else float(self.alpha)
        return self

    def pool(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Weights of the nearest training rows, shape (n_query, n_train), CSR."""
        return neighbour_weights(train.X, query.X, self.k, self.metric, self.weighting, self.temperature)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        self._check("predict")
        return super().predict(inputs) if self.shift == "none" else self._ridge(inputs).astype(np.float32)

    def _ridge(self, inputs: Inputs) -> np.ndarray:
        weights = next(ridge_path(self.train_.X, inputs.X, [self.alpha_]))
        return np.asarray(weights @ self.Y_.astype(np.float64))

    def move(self, cells: np.ndarray, weights: sparse.csr_matrix, inputs: Inputs) -> None:
        """Move the pooled ``cells`` (n_query, m, g) in place to the ridge prediction, where that is asked for."""
        if self.shift == "ridge":
            cells += (self._ridge(inputs) - weights @ self.Y_.astype(np.float64)).astype(np.float32)[:, None, :]


def best_penalty(inputs: Inputs, Y: np.ndarray) -> float:
    """The ridge penalty with the smallest squared error of effects ``Y`` (n, g) when whole units are left out (rows,
    where there is a single unit), over their first `AXES` principal axes; ties go to the larger penalty.
    """
    _, axes, _ = pca(Y, AXES)
    single = len({code for codes in inputs.units for code in codes}) < 2
    blocks = unit_blocks([(row,) for row in range(len(inputs))] if single else inputs.units)
    scores = Y.astype(np.float64) @ axes
    penalties = PENALTIES[::-1]
    errors = [
        np.nansum(np.square(left_out(smoother, scores, blocks)))
        for smoother in ridge_path(inputs.X, inputs.X, penalties)
    ]
    return penalties[int(np.argmin(errors))]
