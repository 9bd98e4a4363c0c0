"""Simulator: counts of single cells, drawn anew whenever they are read, and their export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embbench.core import Counts, UserError
from embbench.datasets._sim_depth import SCALE, clip_share
from embbench.datasets._sim_design import Design
from embbench.datasets._sim_settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

HALVES = ("A", "B")


@dataclass(frozen=True)
class SimCells:
    """The cells of a simulated screen; each block of cells has its own random stream, so nothing is kept in memory.

    Parameters
    ----------
    settings, design : of the screen; rows are context by context, perturbations in the design's order.
    contexts : shape (c,); names.
    """

    settings: Settings
    design: Design
    contexts: tuple[str, ...]

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells, shape (m, g), float32, log1p of counts scaled to 1e4, of a half or ``all``, batch by batch."""
        if half not in (*HALVES, "all"):
            raise UserError(f"simulator: half must be A, B or all, found {half!r}")
        chosen = HALVES if half == "all" else (half,)
        return np.concatenate([normalise(*self.control_counts(context, h)[:2]) for h in chosen])

    def perturbed(self, row: int) -> np.ndarray:
        """Perturbed cells of shape (m, g), float32, log1p of counts scaled to 1e4, of one row, batch by batch."""
        return normalise(*self.perturbed_counts(row)[:2])

    def n_controls(self, context: int, half: str = "A") -> int:
        """Number of control cells of a half or ``all``."""
        return self.settings.controls_per_half * self.settings.n_batches * (2 if half == "all" else 1)

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """Control cells as counts, in the order of `controls`; ``index`` chooses some by position."""
        from scipy import sparse

        drawn = [self.control_counts(context, h)[:2] for h in (HALVES if half == "all" else (half,))]
        values, total = np.concatenate([d[0] for d in drawn]), np.concatenate([d[1] for d in drawn])
        cells = Counts(sparse.csr_matrix(values.astype(np.float32)), np.asarray(self.design.genes), total)
        return cells if index is None else cells.rows(index)

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names of control cells, shape (m,)."""
        chosen = HALVES if half == "all" else (half,)
        return np.array(
            [f"{self.contexts[context]}-{h}{i}" for h in chosen for i in range(self.n_controls(context, h))]
        )

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """Batch codes of control cells, shape (m,); batches of different contexts share no code."""
        chosen = HALVES if half == "all" else (half,)
        own = np.repeat(np.arange(self.settings.n_batches), self.settings.controls_per_half)
        return np.concatenate([own + context * self.settings.n_batches for _ in chosen])

    def perturbed_batches(self, row: int) -> np.ndarray:
        """Batch codes of the perturbed cells of a row, shape (m,)."""
        context, number = divmod(row, len(self.design.entities))
        own = np.repeat(np.arange(self.settings.n_batches), self.design.n_cells[number, context])
        return own + context * self.settings.n_batches

    def control_counts(self, context: int, half: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts of shape (m, g), int32, total counts and batch numbers (m,) of one half's control cells."""
        rng = np.random.default_rng([self.settings.seed, 20, context, HALVES.index(half)])
        batch = np.repeat(np.arange(self.settings.n_batches), self.settings.controls_per_half)
        counts, total = self._draw(self.design.log_share[context][batch], self.design.log_depth[context][batch], rng)
        return counts, total, batch

    def perturbed_counts(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts of shape (m, g), int32, total counts and batch numbers (m,) of one row's perturbed cells."""
        context, number = divmod(row, len(self.design.entities))
        rng = np.random.default_rng([self.settings.seed, 21, row])
        batch = np.repeat(np.arange(self.settings.n_batches), self.design.n_cells[number, context])
        shares, multipliers = np.array(self.settings.components(self.design.kind[number])).T
        component = np.searchsorted(np.cumsum(shares[:-1]), rng.random(len(batch)), side="right")
        change = self.design.log_fold_change(context, np.array([number]))[0]
        changes = np.stack([self.design.multiplied(change, number, m) for m in multipliers.tolist()])
        share = self.design.log_share[context][batch] + changes[component]
        hit = multipliers[component] != 0
        depth = self.design.log_depth[context][batch] + hit * self.design.depth_shift[number, context]
        counts, total = self._draw(share, depth, rng)
        return counts, total, batch

    def _draw(
        self, log_share: np.ndarray, log_depth: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        total = np.maximum(
            1, np.rint(np.exp(log_depth + self.settings.depth_sigma * rng.standard_normal(len(log_depth))))
        )
        mean = total[:, None] * np.exp(clip_share(log_share))
        rate = rng.gamma(1.0 / self.settings.dispersion, self.settings.dispersion * mean)
        return rng.poisson(rate).astype(np.int32), total

    def as_anndata(self) -> AnnData:
        """All cells as an AnnData of CSR counts.

        ``obs`` holds perturbation (controls are called ``control``, pairs ``A+B``), context, batch and total_counts:
        the cell's depth over the whole transcriptome, of which the panel is a part.
        """
        import pandas as pd
        from anndata import AnnData
        from scipy import sparse

        blocks, tables = [], []
        for context, name in enumerate(self.contexts):
            first = context * len(self.design.entities)
            parts = [("control", self.control_counts(context, half)) for half in HALVES]
            parts += [("+".join(e), self.perturbed_counts(first + i)) for i, e in enumerate(self.design.entities)]
            for label, (counts, total, batch) in parts:
                blocks.append(sparse.csr_matrix(counts))
                tables.append(
                    pd.DataFrame(
                        {
                            "perturbation": label,
                            "context": name,
                            "total_counts": total,
                            "batch": [f"{name}_batch{b + 1}" for b in batch],
                        }
                    )
                )
        obs = pd.concat(tables, ignore_index=True)
        obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
        return AnnData(
            sparse.vstack(blocks, format="csr"), obs=obs, var=pd.DataFrame(index=pd.Index(self.design.genes))
        )

    def write_h5ad(self, path: str | Path) -> None:
        """Write `as_anndata` to an ``.h5ad`` file."""
        self.as_anndata().write_h5ad(path)


def normalise(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    """``log1p(1e4 * counts / total)`` of counts of shape (m, g) and depths (m,), float32.

    Examples
    --------
    >>> normalise(np.array([[0, 1]]), np.array([10_000.0])).round(4).tolist()
    [[0.0, 0.6930999755859375]]
    """
    return np.log1p(counts * (SCALE / total)[:, None]).astype(np.float32)
