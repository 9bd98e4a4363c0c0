"""Co-expression over control cells: the gene-gene correlation matrix, truncated."""

from __future__ import annotations

import numpy as np

from embbench.embeddings._controls import ControlExtractor
from embbench.embeddings._linalg import RANK_TOLERANCE, top_eigenpairs


class Coexpression(ControlExtractor):
    """Rows of ``U S`` of the truncated SVD of the gene-gene Pearson correlation over control cells.

    Distances between vectors are distances between correlation profiles, whatever the genes' expression levels (which
    `ControlPCA` keeps). Parameters: see `ControlExtractor`.

    References
    ----------
    Zhang and Horvath (2005), A General Framework for Weighted Gene Co-Expression Network Analysis, section 2, without
    soft threshold. The matrix is positive semi-definite: its SVD is its eigensystem.
    """

    def vectors(self, covariance: np.ndarray) -> np.ndarray:
        """Truncated correlation profiles of shape (m, min(dim, rank)) from a covariance of shape (m, m).

        Examples
        --------
        >>> Coexpression(dim=1).vectors(np.array([[4.0, 2.0], [2.0, 1.0]])).round(4).tolist()
        [[1.4142], [1.4142]]
        """
        spread = np.sqrt(np.diag(covariance))
        values, axes = top_eigenpairs(covariance / np.outer(spread, spread), self.dim)
        real = values > RANK_TOLERANCE * values[0]
        return axes[:, real] * values[real]
