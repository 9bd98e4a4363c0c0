"""Sums of groups of cells -> effects against half A, truth against half B, variances, baselines, knock-down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embbench.cache.cells import BOTH, CONTROL, A, B
from embbench.datasets._stream import Sums
from embbench.numerics.moments import batch_weights, mean_weights


@dataclass(frozen=True)
class Effects:
    """Arrays of a screen as they fill up, block by block.

    Parameters
    ----------
    effects, truth, variance : shape (n, g), float32; variance is that of ``truth``.
    baseline, baseline_truth, baseline_variance : shape (c, g), float32.
    n_cells : shape (n,), int64 cells that entered; 0 where no batch has both kinds of cell.
    residual : shape (n,), float64 linear-scale expression of the own target as a share of control, the largest share
        where there are several targets; NaN where one is not measured or not expressed in controls.
    controls : shape (c, 2), int64 control cells of half A and B.
    """

    effects: np.ndarray
    truth: np.ndarray
    variance: np.ndarray
    baseline: np.ndarray
    baseline_truth: np.ndarray
    baseline_variance: np.ndarray
    n_cells: np.ndarray
    residual: np.ndarray
    controls: np.ndarray

    @classmethod
    def empty(cls, rows: int, contexts: int, genes: int) -> Effects:
        """Zeros of the right shapes.

        Examples
        --------
        >>> Effects.empty(rows=3, contexts=2, genes=5).baseline.shape
        (2, 5)
        """
        wide = [np.zeros((rows, genes), dtype=np.float32) for _ in range(3)]
        base = [np.zeros((contexts, genes), dtype=np.float32) for _ in range(3)]
        counts = np.zeros((contexts, 2), dtype=np.int64)
        return cls(*wide, *base, np.zeros(rows, dtype=np.int64), np.full(rows, np.nan), counts)


@dataclass(frozen=True)
class _Controls:
    """Control cells of one context, by the ``batches`` that have both halves."""

    batches: np.ndarray
    size: np.ndarray
    mean_a: np.ndarray
    mean_b: np.ndarray
    variance: np.ndarray
    error: np.ndarray
    linear: np.ndarray


def fill(out: Effects, sums: Sums, targets: tuple[np.ndarray, ...], matching: str) -> None:
    """Write the rows and contexts of one block.

    The effect is ``sum_b w_b (mean pert_b - mean control_b)`` with the weights of `batch_weights`, where the number of
    controls is the mean size of the two halves, so that both halves get the same weights and ``effects`` and ``truth``
    differ by control noise alone. Its sampling variance is ``sum_b w_b^2 (var pert_b / n_pert,b + var control_b /
    n_control,b)`` with unbiased variances within batches; a batch with one cell borrows the pooled variance. Under
    ``batch-means`` perturbed and control cells have weights of their own, those of `mean_weights`.

    Parameters
    ----------
    targets : per row of the screen the measured columns of its own perturbed genes.
    """
    block = sums.block
    for context in block.contexts.tolist():
        chosen = np.flatnonzero((block.row_of == CONTROL) & (block.context_of == context))
        controls = _controls(out, sums, chosen, context)
        for row in block.rows.tolist():
            groups = np.flatnonzero(block.row_of == row)
            if len(groups) and block.context_of[groups[0]] == context:
                _row(out, sums, controls, row, groups, targets[row], matching)


def _controls(out: Effects, sums: Sums, groups: np.ndarray, context: int) -> _Controls:
    block = sums.block
    groups = groups[sums.moments.count[groups] > 0]
    of_a = groups[block.half_of[groups] == A]
    shared = (block.half_of[groups] == BOTH).any()
    of_a, of_b = (groups, groups) if shared else (of_a, groups[block.half_of[groups] == B])
    a, b = sums.moments.take(of_a), sums.moments.take(of_b)
    out.controls[context] = a.count.sum(), b.count.sum()
    out.baseline[context], out.baseline_variance[context] = a.merged().mean()[0], a.merged().variance()[0]
    out.baseline_truth[context] = b.merged().mean()[0]
    batches, in_a, in_b = np.intersect1d(block.batch_of[of_a], block.batch_of[of_b], return_indices=True)
    n_a, n_b = a.count[in_a], b.count[in_b]
    total = n_a if shared else n_a + n_b
    linear = sums.linear.total[of_a[in_a]] + (0 if shared else sums.linear.total[of_b[in_b]])
    variance = b.variance()[in_b]
    return _Controls(
        batches=batches,
        size=n_a if shared else total / 2,
        mean_a=a.mean()[in_a],
        mean_b=b.mean()[in_b],
        variance=variance,
        error=variance / np.maximum(n_b, 1)[:, None],
        linear=linear / np.maximum(total, 1)[:, None],
    )


def _row(
    out: Effects, sums: Sums, controls: _Controls, row: int, groups: np.ndarray, target: np.ndarray, matching: str
) -> None:
    groups = groups[sums.moments.count[groups] > 0]
    if matching == "batch-means":
        own, theirs = np.arange(len(groups)), np.arange(len(controls.batches))
    else:
        _, own, theirs = np.intersect1d(sums.block.batch_of[groups], controls.batches, return_indices=True)
    if not (len(own) and len(theirs)):
        return
    groups = groups[own]
    cells = sums.moments.take(groups)
    if matching == "batch-means":
        w, v = mean_weights(cells.count), mean_weights(controls.size)
    else:
        w = v = batch_weights(cells.count, controls.size[theirs], matching)
    mean = w @ cells.mean()
    out.effects[row] = mean - v @ controls.mean_a[theirs]
    out.truth[row] = mean - v @ controls.mean_b[theirs]
    lent = controls.variance[theirs] if matching != "batch-means" else v @ controls.variance  # to single cells
    spread = cells.variance() if (cells.count > 1).any() else lent
    out.variance[row] = w**2 @ (spread / cells.count[:, None]) + v**2 @ controls.error[theirs]
    out.n_cells[row] = cells.count.sum()
    measured = np.searchsorted(sums.columns, target)
    if len(target):
        level = w @ (sums.linear.total[np.ix_(groups, measured)] / cells.count[:, None])
        control = v @ controls.linear[np.ix_(theirs, measured)]
        if (control > 0).all():
            out.residual[row] = (level / control).max()
