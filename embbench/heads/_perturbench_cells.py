"""Perturbed cells matched to control cells of the same context and batch, as tensors that minibatches index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from embbench.core import CellView, Inputs

BUDGET = 1 << 28  # numbers of perturbed cells that are kept (1 GB)
CONTROLS = 2000  # most control cells of a context


@dataclass(frozen=True)
class Matched:
    """Training cells x of n rows, and the control cells x0 that each may start from.

    On a screen without cells every row is one cell: its context's baseline plus its effect, started from the baseline.

    Parameters
    ----------
    cells, controls : (m, g), (k, g) float32.
    first, count : (n,) where a row's cells begin, and how many there are.
    start, choice : (m,) where the controls of a cell begin, and how many there are.
    """

    cells: torch.Tensor
    controls: torch.Tensor
    first: torch.Tensor
    count: torch.Tensor
    start: torch.Tensor
    choice: torch.Tensor

    @classmethod
    def of(cls, inputs: Inputs, Y: np.ndarray, seed: int, device: torch.device) -> Matched:
        """Cells of training rows (a seeded part of them where there are very many), or rows made of effects (n, g).

        Raises
        ------
        ValueError
            No training row has a perturbed cell, or no context has control means or cells.
        """
        if inputs.cells is None:
            codes, place = np.unique(inputs.context, return_inverse=True)
            base = np.stack([baseline_of(inputs, code) for code in codes.tolist()])
            ones = np.ones(len(Y), dtype=np.int64)
            parts = [base[place] + Y, base, np.arange(len(Y)), ones, place.astype(np.int64), ones]
        else:
            parts = _from_cells(inputs.cells, inputs.context, Y.shape[1], np.random.default_rng([seed, 0]))
        kinds = (np.float32,) * 2 + (np.int64,) * 4
        arrays = (np.ascontiguousarray(part, dtype=kind) for part, kind in zip(parts, kinds, strict=True))
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def draw(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A random cell x of each row of ``rows`` (b,), and a random control x0 of each: both (b, g)."""
        cell = self.first[rows] + self._below(self.count[rows])
        return self.cells[cell], self.controls[self.start[cell] + self._below(self.choice[cell])]

    def _below(self, bound: torch.Tensor) -> torch.Tensor:
        return (torch.rand(len(bound)).to(bound.device) * bound).long().minimum(bound - 1)


def baseline_of(inputs: Inputs, code: int) -> np.ndarray:
    """Control mean (g,) of a context; of the contexts that have one, where its controls are closed.

    Raises
    ------
    ValueError
        No context has control means.
    """
    table = inputs.baseline
    known = None if table is None else np.isfinite(table).all(axis=1)
    if table is None or known is None or not known.any():
        raise ValueError("this head predicts expression and needs control means (baseline), which no context has here")
    return np.asarray(table[code] if known[code] else table[known].mean(axis=0, dtype=np.float64), dtype=np.float32)


def controls_of(view: CellView, code: int) -> np.ndarray:
    """Control cells (m, g) of a context; of all open contexts where its own are closed."""
    closed = view.contexts is not None and code not in view.contexts
    codes = sorted(view.contexts or ()) if closed else [code]
    return np.concatenate([view.controls(c) for c in codes])


def _from_cells(view: CellView, context: np.ndarray, g: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The arrays of `Matched`, in order."""
    pools, offset = {}, 0
    for code in np.unique(context).tolist():
        batch = view.batches(code)
        kept = np.sort(rng.permutation(len(batch))[:CONTROLS])
        kept = kept[np.argsort(batch[kept], kind="stable")]
        pools[code] = (offset, view.controls(code)[kept], batch[kept])
        offset += len(kept)
    limit = max(8, BUDGET // max(1, len(context) * g))
    cells, start, choice = [], [], []
    for row, code in enumerate(context.tolist()):
        found, batch = view.perturbed(row), view.perturbed_batches(row)
        kept = np.sort(rng.permutation(len(found))[:limit])
        cells.append(found[kept])
        begin, _, own = pools[code]
        low, high = (np.searchsorted(own, batch[kept], side=side) for side in ("left", "right"))
        # A cell whose batch has no controls takes any of its context; a context without any, any at all.
        alone, bare = low == high, not len(own)
        start.append(np.where(alone, 0 if bare else begin, begin + low))
        choice.append(np.where(alone, offset if bare else len(own), high - low))
    count = np.array([len(part) for part in cells], dtype=np.int64)
    if not count.sum() or not offset:
        raise ValueError(f"no cells to train on: {count.sum()} perturbed cells in {len(count)} rows, {offset} controls")
    controls = np.concatenate([part for _, part, _ in pools.values()])
    return [
        np.concatenate(cells),
        controls,
        np.cumsum(count) - count,
        count,
        np.concatenate(start),
        np.concatenate(choice),
    ]
