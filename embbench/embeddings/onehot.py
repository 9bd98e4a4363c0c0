"""One column per name: identity without any notion of similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset
from embbench.embeddings._rows import required, text_array


class OneHot(ExtractorDefaults):
    """Unit vectors; columns follow the sorted names, so the table depends on which names are asked for.

    With it a head can recall seen perturbations and nothing else (the design matrix of a factorial model).

    References
    ----------
    Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, section 2.3.
    """

    entity = "any"
    needs_names = True
    names_matter = True

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Identity matrix of shape (m, m) over the m distinct names, rows in sorted order; ``train`` is not read.

        Raises
        ------
        UserError
            ``names`` is None.

        Examples
        --------
        >>> OneHot().compute(["B", "A"], None).names.tolist()
        ['A', 'B']
        """
        asked = sorted(required(names, "onehot"))
        matrix = np.eye(len(asked), dtype=np.float32)
        return Embedding(text_array(asked), matrix, self.entity, provenance={"source": "identity"})
