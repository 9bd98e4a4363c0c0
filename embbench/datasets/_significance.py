"""The E-test of every condition: which cells take part, their principal components, and the p values."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.cache.cells import A, B
from embbench.cache.keys import stream
from embbench.datasets._matrix import Matrix
from embbench.datasets._plan import Plan
from embbench.datasets._scale import Normaliser
from embbench.datasets._stream import Progress
from embbench.numerics.etest import e_test
from embbench.numerics.linalg import pca

COMPONENTS = 50
MOST_PERTURBED, MOST_CONTROLS, MOST_FITTED = 500, 1000, 1000  # cells per condition, per context, per context
FITTED_VALUES = 48_000_000  # bound on (cells kept for the axes) x genes


class Significance:
    """Collects cells for the axes in the first pass, projects the cells to be tested in a second one.

    Axes come from half A, the control cells of the test from half B, so that perturbed and control cells are
    exchangeable under the null. The cells are a seeded choice, made from ``obs`` alone. The E-test is that of
    Peidli et al. (2024), Nature Methods 21, 531-540.

    Parameters
    ----------
    plan : codes per cell.
    genes : number of genes.
    seed : of the choice and of the permutations.
    """

    def __init__(self, plan: Plan, genes: int, seed: int) -> None:
        self.plan, self.genes, self.seed = plan, genes, seed
        contexts = len(plan.contexts)
        fitted = int(np.clip(FITTED_VALUES // (genes * contexts), COMPONENTS + 1, MOST_FITTED))
        control = plan.half >= 0
        self.fit = self._choose(np.where(control & (plan.half == A), plan.context, -1), fitted, "axes")
        self.tested = self._choose(np.where(control & (plan.half == B), plan.context, -1), MOST_CONTROLS, "controls")
        self.tested |= self._choose(np.maximum(plan.row, -1), MOST_PERTURBED, "perturbed")
        self._parts: list[sparse.csr_matrix] = []
        self._contexts: list[np.ndarray] = []

    def _choose(self, group: np.ndarray, most: int, what: str) -> np.ndarray:
        """(cells,) bool: up to ``most`` cells of each group, those with the smallest of seeded random numbers."""
        cells = np.flatnonzero(group >= 0)
        draw = np.random.default_rng(stream(self.seed, "E-test", what)).random(len(group))[cells]
        cells = cells[np.lexsort((draw, group[cells]))]
        _, first, counts = np.unique(group[cells], return_index=True, return_counts=True)
        place = np.arange(len(cells)) - np.repeat(first, counts)
        out = np.zeros(len(group), dtype=bool)
        out[cells[place < most]] = True
        return out

    def collect(self, start: int, cells: sparse.csr_matrix, alive: np.ndarray) -> None:
        """Keep those of a chunk's cells, shape (m, g), that axes are fitted on."""
        chosen = np.flatnonzero(self.fit[start : start + len(alive)] & alive)
        if len(chosen):
            self._parts.append(cells[chosen])
            self._contexts.append(self.plan.context[start + chosen])

    def p_values(self, matrix: Matrix, normalise: Normaliser, batch: np.ndarray, progress: Progress) -> np.ndarray:
        """P values, shape (n,); NaN where a context has fewer than two cells for its axes, or a batch no pair."""
        axes = self._axes()
        self._parts.clear()
        scores, cell = self._scores(matrix, normalise, axes, progress)
        row, context = self.plan.row[cell], self.plan.context[cell]
        by_row = np.argsort(row, kind="stable")
        bounds = np.searchsorted(row[by_row], np.arange(len(self.plan.entities) + 1))
        controls = {c: np.flatnonzero((row < 0) & (context == c)) for c in axes}
        out = np.full(len(self.plan.entities), np.nan)
        for i, label in enumerate(self.plan.labels()):
            own, c = by_row[bounds[i] : bounds[i + 1]], int(self.plan.row_context[i])
            if c in axes and len(own) and len(controls[c]):
                rng = np.random.default_rng(stream(self.seed, "E-test", label))
                strata = (batch[cell[own]], batch[cell[controls[c]]])
                out[i] = e_test(scores[own], scores[controls[c]], rng, strata)
            progress("E-test", i + 1, len(out))
        return out

    def _axes(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        axes = {}
        codes = np.concatenate([np.zeros(0, np.int32), *self._contexts])
        for c in np.unique(codes).tolist():
            parts = (p[np.flatnonzero(k == c)] for p, k in zip(self._parts, self._contexts, strict=True))
            fitted = sparse.vstack(list(parts), format="csr")
            if fitted.shape[0] > 1:
                mean, components, _ = pca(fitted.toarray(), COMPONENTS)
                axes[c] = (mean, components)
        return axes

    def _scores(
        self, matrix: Matrix, normalise: Normaliser, axes: dict[int, tuple[np.ndarray, np.ndarray]], progress: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (t, 50) of the tested cells that have counts, and their numbers (t,)."""
        scores, cells = [np.zeros((0, COMPONENTS))], [np.zeros(0, np.int64)]
        for start, raw in matrix.chunks(self.tested):
            values, alive = normalise(start, raw)
            chosen = np.flatnonzero(alive & self.tested[start : start + len(alive)])
            part = np.zeros((len(chosen), COMPONENTS))
            for c in np.unique(self.plan.context[start + chosen]).tolist():
                here = np.flatnonzero(self.plan.context[start + chosen] == c)
                if c in axes:
                    mean, components = axes[c]
                    part[here, : components.shape[1]] = values[chosen[here]] @ components - mean @ components
            scores.append(part)
            cells.append(start + chosen)
            progress("E-test cells", start + len(alive), matrix.shape[0])
        return np.concatenate(scores), np.concatenate(cells)
