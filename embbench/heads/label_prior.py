"""How often every gene was down, unchanged and up in training: the floor of every label score."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._labels import ConstantLabels, class_counts, frequencies, known_labels


class LabelPrior(ConstantLabels):
    """Class frequencies of each gene over the training rows that test it (a third each where none does).

    Under scope ``per_context`` these are the rows of one context, under ``joint`` those of all contexts. One score per
    gene ranks no condition: its per-gene AUROC is exactly 0.5.

    References
    ----------
    The class-prior classifier: Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, section
    4.3, with no features.

    Examples
    --------
    >>> rows = Inputs(np.zeros((4, 0)), np.zeros(4, int), None, ((0,), (1,), (2,), (3,)))
    >>> LabelPrior().fit(rows, np.array([[1.0], [0.0], [0.0], [0.0]])).predict_proba(rows)[0].tolist()
    [[0.0, 0.75, 0.25]]
    """

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Count labels ``Y`` (n, g) where ``observed`` (n, g) says that they were tested."""
        labels, tested = known_labels(self, inputs, Y, observed)
        self.table_ = frequencies(class_counts(labels, tested)).astype(np.float32)
        return self
