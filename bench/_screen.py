"""A made-up screen for measurements: counts of cells with many perturbations and one control group."""

from __future__ import annotations

import numpy as np


def cells_of_a_screen(
    cells: int = 10_000, genes: int = 2_000, perturbations: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (n, g), float32, and the perturbation of each cell (n,), -1 for the controls (one cell in ten).

    Gene means are Gamma(0.3, scale 0.8), counts Poisson; each perturbation doubles 5 % of the genes.
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(0, perturbations, cells)
    label[rng.choice(cells, cells // 10, replace=False)] = -1
    fold = np.where(rng.random((perturbations + 1, genes)) < 0.05, 2.0, 1.0)
    fold[-1] = 1.0
    mean = rng.gamma(0.3, 0.8, genes)
    counts = np.empty((cells, genes), np.float32)
    for start in range(0, cells, 1000):
        part = slice(start, start + 1000)
        counts[part] = rng.poisson(mean * fold[label[part]])
    return counts, label


def scores(values: np.ndarray, dims: int = 50, seed: int = 1) -> np.ndarray:
    """Centred cells (n, dims) on random orthonormal axes, float64."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(values.shape[1], dims)))[0]
    return (values - values.mean(axis=0, dtype=np.float64)) @ axes
