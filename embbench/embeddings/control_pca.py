"""PCA gene loadings of control cells: genes that vary together in unperturbed cells are neighbours."""

from __future__ import annotations

import numpy as np

from embbench.embeddings._controls import ControlExtractor
from embbench.embeddings._linalg import RANK_TOLERANCE, top_eigenpairs


class ControlPCA(ControlExtractor):
    """The loading of a gene on each principal axis of the control cells, times the axis' standard deviation.

    Inner products of two vectors approximate the covariance of the two genes. Parameters: see `ControlExtractor`.

    References
    ----------
    Ahlmann-Eltze, Huber and Anders (2025), Nature Methods, "linear models with pretrained embeddings": PCA of the
    unperturbed cells; Jolliffe (2002), Principal Component Analysis, section 2.3.
    """

    def vectors(self, covariance: np.ndarray) -> np.ndarray:
        """Scaled loadings of shape (m, min(dim, rank)) from a covariance of shape (m, m).

        Examples
        --------
        >>> ControlPCA(dim=1).vectors(np.array([[4.0, 2.0], [2.0, 1.0]])).round(6).tolist()
        [[2.0], [1.0]]
        """
        values, axes = top_eigenpairs(covariance, self.dim)
        real = values > RANK_TOLERANCE * values[0]
        return axes[:, real] * np.sqrt(values[real])
