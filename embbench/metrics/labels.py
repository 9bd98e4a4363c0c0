"""Agreement of class probabilities with DE labels (down, unchanged, up): macro one-vs-rest AUROC."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric, Truth
from embbench.numerics.ranks import average_ranks

CLASSES = (-1, 0, 1)  # order of the last axis of the probabilities


def _auroc_macro(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """Mean over classes of (R - P (P + 1) / 2) / (P Q), within a condition over its tested genes.

    P genes have the class, Q have another, R is the sum of the mid-ranks of the class's probability over the P genes.
    Classes with P = 0 or Q = 0 are left out; NaN when all are.
    """
    if truth.labels is None or truth.labels_tested is None:
        raise ValueError("auroc_macro: needs labels and labels_tested, found none")
    scored = mask & truth.labels_tested
    areas = np.full((len(CLASSES), len(pred)), np.nan)
    for i, label in enumerate(CLASSES):
        is_class = scored & (truth.labels == label)
        p, total = is_class.sum(axis=1), scored.sum(axis=1)
        ranks = average_ranks(pred[:, :, i], scored)
        above = np.where(is_class, ranks, 0.0).sum(axis=1) - p * (p + 1) / 2
        pairs = p * (total - p)
        areas[i] = np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)
    defined = np.isfinite(areas)
    mean = np.where(defined, areas, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    return np.where(defined.any(axis=0), mean, np.nan)


SOURCE = (
    "Hand and Till (2001), Machine Learning 45:171 (class areas); Fawcett (2006), Pattern Recognition Letters 27:861"
)

auroc_macro = Metric(
    _auroc_macro, best="high", lower=0.0, upper=1.0, target="labels", needs=("labels", "labels_tested"), source=SOURCE
)
