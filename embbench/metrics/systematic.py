"""Freed of what all perturbations share: Pearson about the perturbed centroid, and centroid accuracy (Systema)."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric
from embbench.metrics._retrieval import Retrieval, rank_rows
from embbench.metrics._rows import RESOLUTION, by_rows, centred, ratio


@by_rows(2, fields=("centroid", "centroid_truth"))
def _pearson_systema(p: np.ndarray, t: np.ndarray, mask: np.ndarray, c: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """Pearson correlation over scored genes of p - c and t - c, c = mean training effect of the row's context.

    Each side's centroid is against its own control half, so that the halves' noise cancels. The response that all
    perturbations share (stress, cell cycle, the batch of controls) lies in c and earns nothing.
    A prediction that is c up to float32 rounding, or differs from it by a constant, says nothing: NaN. No change
    scores, with -c: a perturbation without effect lies on the side of the controls.
    """
    size = [np.square(x).sum(axis=1) + np.square(m).sum(axis=1) for x, m in ((p, c), (t, ct))]
    (p, pp), (t, tt) = centred(p - c, mask), centred(t - ct, mask)
    pp, tt = (np.where(s > RESOLUTION**2 * whole, s, 0.0) for s, whole in zip((pp, tt), size, strict=True))
    return np.clip(ratio((p * t).sum(axis=1), np.sqrt(pp) * np.sqrt(tt)), -1.0, 1.0)


SOURCE = "Viñas Torné et al. (2025), Systema, Nature Biotechnology: "
PEARSON_SOURCE = SOURCE + "Pearson delta with the mean of the training perturbations' centroids as reference"
ACCURACY_SOURCE = SOURCE + "centroid accuracy, share of other true centroids strictly farther than the own one"

pearson_systema = Metric(
    _pearson_systema, best="high", lower=-1.0, upper=1.0, needs=("centroid", "centroid_truth"), source=PEARSON_SOURCE
)
centroid_accuracy = Retrieval(
    rank_rows, "high", ACCURACY_SOURCE, distance="l2", by="prediction", ties="pessimistic", form="position"
)
