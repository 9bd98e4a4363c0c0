"""An embedding fitted per fold: loadings of measured genes in the principal axes of training effects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset


class ResponseLoadings(ExtractorDefaults):
    """A measured gene's loadings; it reads training rows only, and covers genes that no training row perturbs."""

    reads = frozenset({"effects"})

    def __init__(self, dim: int = 5) -> None:
        if dim < 1:
            raise ValueError(f"ResponseLoadings: dim must be >= 1, got {dim}")
        self.dim = dim

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        Y = train.effects.astype(np.float64)
        axes, sizes, loadings = np.linalg.svd(Y - Y.mean(axis=0), full_matrices=False)
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        matrix = (loadings.T * sizes * signs)[:, : self.dim].astype(np.float32)
        where = {gene: i for i, gene in enumerate(train.genes.tolist())}
        chosen = list(where) if names is None else [n for n in dict.fromkeys(names) if n in where]
        facts = {"source": "training effects", "rows": len(train)}
        return Embedding(np.array(chosen, dtype=str), matrix[[where[n] for n in chosen]], "gene", provenance=facts)
