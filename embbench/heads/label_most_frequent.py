"""The label that every gene had most often in training."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._labels import ConstantLabels, class_counts, known_labels


class LabelMostFrequent(ConstantLabels):
    """Probability 1 for each gene's most frequent training label over the rows that test it; every tie, and a gene that
    no row tests, is none. Rows: as in ``label_prior``.

    References
    ----------
    The majority classifier, "ZeroR" of Witten and Frank (2005), Data Mining, section 10.4.

    Examples
    --------
    >>> rows = Inputs(np.zeros((2, 0)), np.zeros(2, int), None, ((0,), (1,)))
    >>> LabelMostFrequent().fit(rows, np.array([[1.0, 1.0], [1.0, -1.0]])).predict_proba(rows)[0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Count labels ``Y`` (n, g) where ``observed`` (n, g) says that they were tested."""
        labels, tested = known_labels(self, inputs, Y, observed)
        down, none, up = class_counts(labels, tested).T
        winner = 1 + (up > np.maximum(down, none)).astype(np.int64) - (down > np.maximum(up, none))
        self.table_ = np.eye(3, dtype=np.float32)[winner]
        return self
