"""Gaussian noise per name: the floor that every embedding must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset
from embbench.embeddings._rows import check_dim, generator, required, text_array


class Random(ExtractorDefaults):
    """A fixed standard normal vector per name, drawn from a hash of the name and the seed.

    Parameters
    ----------
    dim : width of the vectors, >= 1.
    seed : another seed gives an independent table.

    References
    ----------
    Hewitt and Liang (2019), Designing and Interpreting Probes with Control Tasks: a control task, identity without
    content.
    """

    entity = "any"
    needs_names = True

    def __init__(self, dim: int = 100, seed: int = 0) -> None:
        self.dim, self.seed = check_dim("Random", dim), int(seed)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (len(names), dim) of every name; ``train`` is not read.

        Raises
        ------
        UserError
            ``names`` is None: every string has a vector.

        Examples
        --------
        >>> one, two = Random(3).compute(["TP53", "MYC"], None), Random(3).compute(["MYC"], None)
        >>> bool((one.matrix[1] == two.matrix[0]).all())
        True
        """
        asked = required(names, "random")
        rows = [generator("random", self.seed, name).standard_normal(self.dim) for name in asked]
        matrix = np.array(rows, dtype=np.float32).reshape(len(asked), self.dim)
        return Embedding(text_array(asked), matrix, "any", provenance={"source": "random", "seed": self.seed})
