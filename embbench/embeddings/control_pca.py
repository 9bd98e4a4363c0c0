"""PCA gene loadings of control cells: genes that vary together in unperturbed cells are neighbours."""

from __future__ import annotations

import numpy as np

from embbench.embeddings._controls import ControlExtractor
from embbench.embeddings._linalg import RANK_TOLERANCE, top_eigenpairs


class ControlPCA(ControlExtractor):
    """The loading of a gene on each principal axis of the control cells, times the axis' standard deviation.

    Inner products of two vectors approximate the covariance of the two genes. Parameters: see `ControlExtractor`.

    Notes
    -----
    Gene embedding "PCA of the unperturbed cells" of Ahlmann-Eltze, Huber and Anders (2025), Nature Methods, section
    "linear models with pretrained embeddings"; PCA as in Jolliffe (2002), Principal Component Analysis, section 2.3.
    """

    def vectors(self, covariance: np.ndarray) -> np.ndarray:
        """Scaled loadings (m, min(dim, rank)) from a covariance (m, m)."""
        values, axes = top_eigenpairs(covariance, self.dim)
        real = values > RANK_TOLERANCE * values[0]
        return axes[:, real] * np.sqrt(values[real])
