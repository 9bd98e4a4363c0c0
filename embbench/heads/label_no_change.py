"""No gene is differentially expressed."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._labels import ConstantLabels, known_labels


class LabelNoChange(ConstantLabels):
    """Probability 1 for none, everywhere: the "no change" baseline as labels.

    References
    ----------
    The "no change" baseline of Ahlmann-Eltze, Huber and Anders (2025), Nature Methods.

    Examples
    --------
    >>> rows = Inputs(np.zeros((1, 0)), np.zeros(1, int), None, ((0,),))
    >>> LabelNoChange().fit(rows, np.array([[1.0]])).predict_proba(rows).tolist()
    [[[0.0, 1.0, 0.0]]]
    """

    scope = "joint"

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Note the number of genes of ``Y`` (n, g)."""
        genes = known_labels(self, inputs, Y, observed)[0].shape[1]
        self.table_ = np.tile(np.array([0, 1, 0], dtype=np.float32), (genes, 1))
        return self
