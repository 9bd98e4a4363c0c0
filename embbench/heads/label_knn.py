"""DE labels by a vote of the k nearest training perturbations in the embedding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._labels import CLASSES, LabelHead, class_counts, frequencies, gene_blocks, known_labels
from embbench.heads._search import METRICS, nearest
from embbench.heads._smoother import positive, whole

WEIGHTS, TOWARDS = ("uniform", "softmax"), ("prior", "uniform")
BLOCK = 1 << 21  # numbers of a block of votes


class LabelKNN(LabelHead):
    """Class shares among the k nearest training rows that test the gene; equal distances go to the smaller row number.

    P(c) = (k V_c + s q_c) / (k V + s): V_c is the vote weight of neighbours with class c, V that of the neighbours that
    test the gene (weights of all k sum to 1), q the distribution that ``towards`` names, s the smoothing. With s = 0
    and no neighbour that tests the gene, P = q.

    Parameters
    ----------
    k : number of neighbours, >= 1; more than there are training rows means all of them.
    metric : ``l2``, ``cosine`` or ``inner_product``, as in ``knn``.
    weights : ``uniform``, or ``softmax``: exp(-(d_j - d_1) / (temperature * s)), as in ``knn``.
    temperature : > 0, of the softmax.
    smoothing : >= 0, in neighbours: 0 is the plain vote.
    towards : ``prior``, the gene's class frequencies in training, or ``uniform``, a third each (Laplace).

    References
    ----------
    Fix and Hodges (1951), USAF School of Aviation Medicine, report 4; softmax votes: Goldberger et al. (2005),
    Neighbourhood Components Analysis, equation 2; smoothing: Good (1965), The Estimation of Probabilities, chapter 3.

    Examples
    --------
    >>> rows = Inputs(np.array([[0.0], [1.0], [5.0]]), np.zeros(3, int), None, ((0,), (1,), (2,)))
    >>> LabelKNN(k=2).fit(rows, np.array([[1.0], [1.0], [0.0]])).predict_proba(rows)[2].tolist()
    [[0.0, 0.5, 0.5]]
    """

    def __init__(
        self,
        k: int = 10,
        metric: str = "l2",
        weights: str = "uniform",
        temperature: float = 1.0,
        smoothing: float = 0.0,
        towards: str = "prior",
    ) -> None:
        whole("LabelKNN", k=k)
        positive("LabelKNN", temperature=temperature)
        for name, value, known in (
            ("metric", metric, METRICS),
            ("weights", weights, WEIGHTS),
            ("towards", towards, TOWARDS),
        ):
            if value not in known:
                raise ValueError(f"LabelKNN: {name} must be one of {known}, got {value!r}")
        if isinstance(smoothing, bool) or not isinstance(smoothing, int | float) or not 0 <= smoothing < np.inf:
            raise ValueError(f"LabelKNN: smoothing must be >= 0, got {smoothing!r}")
        self.k, self.metric, self.weighting, self.temperature = k, metric, weights, temperature
        self.smoothing, self.towards = smoothing, towards

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """10 uniform neighbourhoods and 6 softmax ones; one neighbour's worth of the gene's prior in each."""
        uniform = [{"k": k, "smoothing": 1.0} for k in (1, 3, 5, 10, 15, 20, 30, 50, 70, 100)]
        soft = [
            {"k": k, "weights": "softmax", "temperature": t, "smoothing": 1.0}
            for k in (20, 50)
            for t in (0.25, 0.5, 1.0)
        ]
        return uniform + soft

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Keep features (n, d) and labels ``Y`` (n, g), with the mask ``observed`` (n, g) of those tested."""
        self.labels_, self.tested_ = known_labels(self, inputs, Y, observed)
        self.X_ = inputs.X.copy()
        prior = frequencies(class_counts(self.labels_, self.tested_))
        self.towards_ = prior if self.towards == "prior" else np.full(prior.shape, 1 / len(CLASSES))
        return self

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """Probabilities (n, g, 3) of down, none, up, float32; RuntimeError before ``fit``."""
        if not hasattr(self, "X_"):
            raise RuntimeError("LabelKNN.predict called before fit")
        index, distance = nearest(self.X_, inputs.X, self.k, self.metric)
        starts = np.arange(len(index) + 1) * index.shape[1]
        vote = sparse.csr_matrix(
            (self._shares(distance).ravel(), index.ravel(), starts), shape=(len(index), len(self.X_))
        )
        vote.sort_indices()
        out = np.empty((len(index), self.labels_.shape[1], len(CLASSES)), dtype=np.float32)
        for genes in gene_blocks(out.shape[1], 3 * (len(index) + len(self.X_)), BLOCK):
            out[:, genes] = self._probabilities(vote, genes, index.shape[1])
        return out

    def _probabilities(self, vote: sparse.csr_matrix, genes: slice, k: int) -> np.ndarray:
        labels, tested, base = self.labels_[:, genes], self.tested_[:, genes], self.towards_[genes]
        share = np.stack([vote @ ((labels == c) & tested).astype(np.float64) for c in CLASSES], axis=2)
        total = share.sum(axis=2, keepdims=True)
        # Neighbours without a tested label leave P to the base distribution, whatever the smoothing.
        smoothing = np.where(total > 0, self.smoothing, 1.0)
        return (k * share + smoothing * base) / (k * total + smoothing)

    def _shares(self, distance: np.ndarray) -> np.ndarray:
        """Vote weights (q, k) that sum to 1, of ascending distances: those of ``knn``."""
        if self.weighting == "uniform":
            return np.full(distance.shape, 1.0 / distance.shape[1])
        excess = distance - distance[:, :1]
        scale = np.median(excess, axis=1, keepdims=True) * self.temperature
        raw = np.where(scale > 0, np.exp(-excess / np.where(scale > 0, scale, 1.0)), excess == 0)
        return raw / raw.sum(axis=1, keepdims=True)
