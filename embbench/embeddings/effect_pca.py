"""PCA gene loadings of the training effects: the vector of a perturbed gene is its behaviour as a measured gene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._linalg import centred, truncated_svd
from embbench.embeddings._rows import check_dim, pick


class EffectPCA(ExtractorDefaults):
    """Loading of each measured gene on the principal axes of the training effects, times the axes' deviation.

    A gene whose effects do not vary over the training rows (or that is not measured) has no vector.

    Parameters
    ----------
    dim : largest width; at most training rows minus one.

    References
    ----------
    Ahlmann-Eltze, Huber and Anders (2025), Nature Methods, equation 1: the embedding G of ``Y = G W Pᵀ + b``, top
    principal components of the training data, b the mean over training perturbations.

    Examples
    --------
    >>> Y, genes = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32), np.array(["MYC", "FLAT"])
    >>> screen = PerturbationDataset("toy", Y, "delta", genes, (("A",), ("B",)), np.array(["K562", "K562"]))
    >>> EffectPCA().compute(None, screen).names.tolist()
    ['MYC']
    """

    reads = frozenset({"effects"})
    joins_contexts = True

    def __init__(self, dim: int = 10) -> None:
        self.dim = check_dim("EffectPCA", dim)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, min(dim, rank)), float32, of the asked genes that are measured, from ``train.effects``.

        Raises
        ------
        UserError
            Fewer than 2 training rows.
        """
        if train is None or len(train) < 2:
            raise UserError(f"EffectPCA needs at least 2 training rows, found {0 if train is None else len(train)}")
        Y = centred(train.effects, train.observed)
        varies = np.flatnonzero((Y != 0).any(axis=0))
        if not len(varies):
            raise UserError(f"EffectPCA: effects of {train.name!r} do not vary over {len(train)} training rows")
        U, s, _ = truncated_svd(Y[:, varies].T, self.dim)
        facts = {"source": f"training effects of {train.name}", "holds": "responses", "rows": len(train)}
        return pick(names, train.genes[varies].tolist(), U * s / np.sqrt(len(train) - 1), self.entity, facts)
