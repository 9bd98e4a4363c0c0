"""cell-eval 0.8.2's own ``discrimination_score`` on effects handed over by file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cell_eval._types import BulkArrays
from cell_eval.metrics._anndata import discrimination_score as of_pair


@dataclass
class Pair:
    """What ``discrimination_score`` reads of a pair of screens; controls of zero, so that means are effects."""

    perts: np.ndarray
    genes: np.ndarray
    real: np.ndarray
    pred: np.ndarray

    def iter_bulk_arrays(self, embed_key: str | None = None) -> Iterator[BulkArrays]:
        """Means of each perturbation, in the order of ``perts``."""
        control = np.zeros(len(self.genes), dtype=self.real.dtype)
        for name, real, pred in zip(self.perts, self.real, self.pred, strict=True):
            yield BulkArrays(key=name, pert_real=real, pert_pred=pred, ctrl_real=control, ctrl_pred=control)


def discrimination_score(
    real: np.ndarray, pred: np.ndarray, target: np.ndarray, *, distance: str
) -> dict[str, np.ndarray]:
    """Scores (n,); ``target`` (n,) is the column of each perturbation's own gene, after which it is called."""
    genes = np.array([f"gene{i}" for i in range(real.shape[1])])
    pair = Pair(genes[target], genes, real, pred)
    scores = of_pair(pair, metric=distance)
    return {"score": np.array([scores[str(name)] for name in pair.perts])}
