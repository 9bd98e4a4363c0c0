"""k nearest training perturbations in the embedding: a weighted mean of their effects, by exact search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._neighbours import WEIGHTS, neighbour_shares
from embbench.heads._search import METRICS, backend, nearest
from embbench.heads._smoother import Smoother, positive, whole
from embbench.numerics.smoothers import Neighbours

__all__ = ["KNN", "backend"]


class KNN(Smoother):
    """Weighted mean over the k nearest training rows; equal distances go to the smaller training row number.

    Parameters
    ----------
    k : number of neighbours, >= 1; more than there are training rows means all of them.
    metric : ``l2``, ``cosine`` (1 - cosine) or ``inner_product`` (minus the inner product).
    weights : ``uniform``; ``distance``, 1 / distance, where neighbours at distance 0 share all the weight (not for
        ``inner_product``, which is no distance); ``softmax``, exp(-(d_j - d_1) / (temperature * s)) with d_1 the
        nearest neighbour's distance and s the median of d_j - d_1 over the query's k neighbours, so that neither scale
        nor offset of the distances matters (where s is 0, the neighbours at d_1 share all the weight).
    temperature : > 0, of the softmax: small is the nearest neighbour alone, large is uniform.

    References
    ----------
    Fix and Hodges (1951), USAF School of Aviation Medicine, report 4; distance weights: Dudani (1976), IEEE Trans. SMC
    6:325-327; softmax weights: the estimator of Nadaraya (1964) and Watson (1964) on the k nearest neighbours, in the
    manner of Goldberger et al. (2005), Neighbourhood Components Analysis, equation 1.

    Examples
    --------
    >>> rows = Inputs(np.array([[0.0], [1.0], [5.0]]), np.zeros(3, int), sparse.eye(3), ((0,), (1,), (2,)))
    >>> KNN(k=2).weights(rows, rows).toarray()[2].tolist()
    [0.0, 0.5, 0.5]
    """

    def __init__(self, k: int = 10, metric: str = "l2", weights: str = "uniform", temperature: float = 1.0) -> None:
        whole("KNN", k=k)
        positive("KNN", temperature=temperature)
        if metric not in METRICS:
            raise ValueError(f"KNN: metric must be one of {METRICS}, got {metric!r}")
        if weights not in WEIGHTS:
            raise ValueError(f"KNN: weights must be one of {WEIGHTS}, got {weights!r}")
        if weights == "distance" and metric == "inner_product":
            raise ValueError(f"KNN: weights {weights!r} need a distance (l2 or cosine), got metric {metric!r}")
        self.k, self.metric, self.weighting, self.temperature = k, metric, weights, temperature

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """13 uniform neighbourhoods and 9 softmax ones."""
        uniform = [{"k": k} for k in (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 100)]
        soft = [{"k": k, "weights": "softmax", "temperature": t} for k in (20, 50, 100) for t in (0.25, 0.5, 1.0)]
        return uniform + soft

    def neighbours(self, train: Inputs, query: Inputs, k_max: int) -> tuple[np.ndarray, np.ndarray]:
        """Training rows and distances, shape (n_query, min(k_max, n_train)), nearest first; columns serve smaller k."""
        return nearest(train.X, query.X, k_max, self.metric)

    def weights(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Smoother matrix, shape (n_query, n_train), CSR with at most k entries a row that sum to 1."""
        return next(self.path([self], train, query)).matrix()

    @classmethod
    def path(cls, heads: Sequence[Self], train: Inputs, query: Inputs) -> Iterator[Neighbours]:
        """Weights (n_query, n_train) of several settings from one search per metric, at the largest k."""
        largest = {head.metric: max(h.k for h in heads if h.metric == head.metric) for head in heads}
        found = {metric: nearest(train.X, query.X, k, metric) for metric, k in largest.items()}
        for head in heads:
            index, distance = found[head.metric]
            share = neighbour_shares(distance[:, : head.k], head.weighting, head.temperature)
            yield Neighbours(index, share, len(train))
