"""PCA scores of the true responses: what a perfect embedding of this screen could look like. Sees the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._linalg import centred, truncated_svd
from embbench.embeddings._rows import check_dim, pick


class OraclePCA(ExtractorDefaults):
    """Scores of every row's true response on the principal axes of all rows, averaged per entity.

    An upper reference for heads, never a competitor: test rows are among its inputs. Some published comparisons contain
    such a table unmarked. Rows of several entities give no vector, contexts and doses are averaged.

    Parameters
    ----------
    dim : largest width.

    References
    ----------
    Jolliffe (2002), Principal Component Analysis, section 2.1.
    """

    entity = "any"
    reads = frozenset({"truth"})
    oracle = True
    joins_contexts = True

    def __init__(self, dim: int = 100) -> None:
        self.dim = check_dim("OraclePCA", dim)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, min(dim, rank)), float32, of the asked entities that have a row of their own.

        Parameters
        ----------
        names : entities; None takes all.
        train : the whole dataset, test rows and their truth included.

        Raises
        ------
        UserError
            No dataset, or responses that do not vary.

        Examples
        --------
        >>> OraclePCA().compute(None, None)
        Traceback (most recent call last):
        embbench.core.screen.UserError: OraclePCA needs the whole dataset with its truth, found none
        """
        if train is None or train.truth is None:
            raise UserError("OraclePCA needs the whole dataset with its truth, found none")
        U, s, _ = truncated_svd(centred(train.truth, train.observed), self.dim)
        if not len(s):
            raise UserError(f"OraclePCA: responses of {train.name!r} do not vary over its {len(train)} rows")
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, entities in enumerate(train.entities):
            if len(entities) == 1:
                rows_of[entities[0]].append(row)
        known = sorted(rows_of)
        scores = U * s
        matrix = np.array([scores[rows_of[name]].mean(axis=0) for name in known]).reshape(len(known), len(s))
        facts = {"source": f"truth of {train.name}", "holds": "responses", "oracle": True}
        return pick(names, known, matrix, train.entity_type, facts)
