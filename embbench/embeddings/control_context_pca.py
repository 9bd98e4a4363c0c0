"""Contexts described by a PCA of their control means, with axes from training contexts only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._contexts import control_means
from embbench.embeddings._linalg import truncated_svd
from embbench.embeddings._rows import check_dim, pick


class ControlContextPCA(ExtractorDefaults):
    """Scores of each context's half-A control mean on the principal axes of the training contexts.

    Parameters
    ----------
    dim : largest width; at most training contexts minus one.

    References
    ----------
    Jolliffe (2002), Principal Component Analysis, section 2.1; query contexts are projected, never fitted.

    Examples
    --------
    >>> ControlContextPCA(dim=0)
    Traceback (most recent call last):
    ValueError: ControlContextPCA: dim must be an integer >= 1, got 0
    """

    entity = "context"
    reads = frozenset({"controls"})
    joins_contexts = True

    def __init__(self, dim: int = 10) -> None:
        self.dim = check_dim("ControlContextPCA", dim)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Scores of shape (m, min(dim, rank)), float32, of the asked contexts; axes from those of ``train``'s rows.

        Raises
        ------
        UserError
            No control expression, or fewer than 2 different training contexts.
        """
        contexts, means = control_means(train, "ControlContextPCA")
        fitted = set() if train is None else set(train.context.tolist())
        inside = np.array([context in fitted for context in contexts], dtype=bool)
        if inside.sum() < 2:
            raise UserError(
                f"ControlContextPCA needs controls of at least 2 training contexts, found {int(inside.sum())} "
                f"({', '.join(sorted(fitted))}); use control_mean or context_onehot"
            )
        centre = means[inside].mean(axis=0, dtype=np.float64)
        axes, s, _ = truncated_svd((means[inside] - centre).T, self.dim)
        if not len(s):
            raise UserError(f"ControlContextPCA: control means of {int(inside.sum())} training contexts are identical")
        facts = {"uses_query_controls": True, "holds": "controls", "axes_from": sorted(fitted)}
        return pick(names, contexts, (means - centre) @ axes, self.entity, facts)
