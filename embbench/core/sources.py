"""The control cells that a predicted population starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embbench.core.cells import CellView
from embbench.core.heads import Inputs


@dataclass(frozen=True)
class Sources:
    """Which control cell each predicted cell was made of.

    Parameters
    ----------
    context : shape (n, m), int64, context code of the control cell; -1 where a predicted cell has no control cell.
    position : shape (n, m), int64, its position in `CellView.controls` of that context; -1 where there is none.
    """

    context: np.ndarray
    position: np.ndarray

    def cells(self, view: CellView) -> np.ndarray:
        """The control cells themselves, shape (n, m, g), float32."""
        pools = {code: view.controls(code) for code in np.unique(self.context).tolist()}
        width = next(iter(pools.values())).shape[1]
        out = np.empty((*self.context.shape, width), dtype=np.float32)
        for code, pool in pools.items():
            here = self.context == code
            out[here] = pool[self.position[here]]
        return out


def draw_sources(inputs: Inputs, n_cells: int, seed: int) -> Sources:
    """Control cells for every row of ``inputs``, ``n_cells`` each, of the row's own context.

    Without repeats where the context has enough. A context whose controls are closed takes those of all open contexts.
    The draw of a row depends on ``seed`` and on what the row is (context, entities, dose), not on the other rows.

    Parameters
    ----------
    inputs : n query rows; ``cells`` must be there.
    n_cells : number of cells per row, >= 1.
    seed : >= 0.

    Raises
    ------
    ValueError
        The screen has no cells.
    """
    view = inputs.cells
    if view is None:
        raise ValueError("draw_sources: the screen has no single cells to start a population from")
    context = np.empty((len(inputs), n_cells), dtype=np.int64)
    position = np.empty_like(context)
    for row, code in enumerate(inputs.context.tolist()):
        opened = [code] if view.contexts is None or code in view.contexts else sorted(view.contexts)
        sizes = [view.n_controls(c) for c in opened]
        rng = np.random.default_rng([seed, *_address(inputs, row)])
        total = sum(sizes)
        drawn = rng.permutation(total)[:n_cells] if total >= n_cells else rng.integers(total, size=n_cells)
        owner = np.searchsorted(np.cumsum(sizes), drawn, side="right")
        context[row] = np.asarray(opened)[owner]
        position[row] = drawn - (np.cumsum(sizes) - sizes)[owner]
    return Sources(context, position)


def _address(inputs: Inputs, row: int) -> list[int]:
    """What a row is, as whole numbers."""
    dose = np.float32(0 if inputs.dose is None else inputs.dose[row]).view(np.uint32)
    return [int(inputs.context[row]), int(dose), *np.sort(inputs.entities[row].indices).tolist()]
