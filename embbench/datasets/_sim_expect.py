"""Simulator: the expectation and sampling variance of every effect at its condition's depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from embbench.datasets._sim_depth import DepthMoments, Position
from embbench.datasets._sim_design import Design
from embbench.datasets._sim_settings import Settings

BLOCK = 128


@dataclass(frozen=True)
class Expected:
    """One condition: batch weights (b,), the effect's expectation and its perturbed part's variance, of shape (g,)."""

    perturbation: int
    weights: np.ndarray
    effect: np.ndarray
    variance: np.ndarray


def moments_for(s: Settings, design: Design) -> DepthMoments:
    """Tables over the range of depths of the screen."""
    low = float(design.log_depth.min() + min(design.depth_shift.min(), 0.0))
    return DepthMoments(s.dispersion, s.depth_sigma, low, float(design.log_depth.max()))


def control_moments(design: Design, moments: DepthMoments, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, shape (b, g), float32, of one control cell's log expression in each batch."""
    tables = [t.astype(np.float32) for t in moments.tables(design.log_depth[context])]
    where = [Position.of(row) for row in design.log_share[context]]
    mean, variance = (np.stack([p.read(t) for p, t in zip(where, table, strict=True)]) for table in tables)
    return mean, variance


def batch_weights(n_perturbed: np.ndarray, n_control: int) -> np.ndarray:
    """Matching weights ``n_p n_c / (n_p + n_c)``, normalised over batches, shape (b,), float64.

    Examples
    --------
    >>> batch_weights(np.array([10, 30]), 30).round(3).tolist()
    [0.333, 0.667]
    """
    w = n_perturbed * n_control / np.maximum(n_perturbed + n_control, 1)
    return w / w.sum()


def expectations(
    s: Settings, design: Design, moments: DepthMoments, context: int, control: tuple[np.ndarray, np.ndarray]
) -> Iterator[Expected]:
    """Every perturbation of one context, in order, a block of log fold changes at a time.

    A perturbed cell is drawn from one of the kind's `Settings.components`; the first has the moments of a control cell
    of its batch. A cell's mean and variance are those of the mixture. The expectation is given the cells per batch.
    """
    for start in range(0, len(design.entities), BLOCK):
        numbers = np.arange(start, min(start + BLOCK, len(design.entities)))
        changes = design.log_fold_change(context, numbers)
        levels = design.log_depth[context][None, :] + design.depth_shift[numbers, context][:, None]
        means, variances = (t.astype(np.float32).reshape(*levels.shape, -1) for t in moments.tables(levels.ravel()))
        for i, number in enumerate(numbers.tolist()):
            n = design.n_cells[number, context]
            w = batch_weights(n, s.controls_per_half)
            parts = [(p, m, design.multiplied(changes[i], number, m)) for p, m in s.components(design.kind[number])]
            effect, variance = np.zeros(changes.shape[1], np.float32), np.zeros(changes.shape[1], np.float32)
            for b in np.flatnonzero(n):
                cells = []
                for share, multiplier, change in parts:
                    where = Position.of(design.log_share[context, b].astype(np.float32) + change)
                    shift = where.read(means[i, b]) - control[0][b] if multiplier else np.zeros_like(effect)
                    cells.append((share, shift, where.read(variances[i, b]) if multiplier else control[1][b]))
                    effect += np.float32(w[b] * share) * shift
                variance += np.float32(w[b] ** 2 / n[b]) * _mixture_variance(cells)
            yield Expected(number, w, effect, variance)


def _mixture_variance(parts: list[tuple[float, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Variance (g,) of a mixture of parts (share, mean, variance); between parts it is a sum over pairs of them, which
    loses no digits where they are alike.
    """
    out = np.zeros_like(parts[0][1])
    for share, _, variance in reversed(parts):
        out += share * variance
    for (p, mean, _), (q, other, _) in combinations(parts, 2):
        out += p * q * (other - mean) * (other - mean)
    return out
