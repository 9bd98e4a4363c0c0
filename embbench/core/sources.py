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

    Raises
    ------
    ValueError
        The two are not of one shape (n, m).
    """

    context: np.ndarray
    position: np.ndarray

    def __post_init__(self) -> None:
        if self.context.ndim != 2 or self.context.shape != self.position.shape:
            raise ValueError(
                f"Sources: context and position must share a shape (n, m), got {self.context.shape} and "
                f"{self.position.shape}"
            )

    @classmethod
    def nowhere(cls, n: int, m: int) -> Sources:
        """Of n rows of m cells that no control cell stands behind.

        Examples
        --------
        >>> Sources.nowhere(2, 3).position.tolist()
        [[-1, -1, -1], [-1, -1, -1]]
        """
        return cls(np.full((n, m), -1, dtype=np.int64), np.full((n, m), -1, dtype=np.int64))

    def rows(self, index: np.ndarray) -> Sources:
        """Those of some rows (numbers or a mask)."""
        return Sources(self.context[index], self.position[index])

    def cells(self, view: CellView) -> np.ndarray:
        """The control cells themselves, shape (n, m, g), float32; NaN where there is none."""
        codes = np.unique(self.context[self.context >= 0]).tolist()
        some = view.controls(codes[0] if codes else min(view.contexts or {0}))
        out = np.full((*self.context.shape, some.shape[1]), np.nan, dtype=np.float32)
        for code in codes:
            here = self.context == code
            out[here] = view.controls(code)[self.position[here]]
        return out

    def names(self, view: CellView) -> np.ndarray:
        """Names of the control cells, shape (n, m), object of str; empty where there is none."""
        out = np.full(self.context.shape, "", dtype=object)
        for code in np.unique(self.context[self.context >= 0]).tolist():
            here = self.context == code
            out[here] = view.names(code)[self.position[here]]
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
        The screen has no cells, a context has no control cell, or ``n_cells`` is below 1.
    """
    view = inputs.cells
    if view is None:
        raise ValueError("draw_sources: the screen has no single cells to start a population from")
    if n_cells < 1:
        raise ValueError(f"draw_sources: n_cells must be >= 1, got {n_cells}")
    out = Sources.nowhere(len(inputs), n_cells)
    for row, code in enumerate(inputs.context.tolist()):
        opened = [code] if view.contexts is None or code in view.contexts else sorted(view.contexts)
        sizes = [view.n_controls(c) for c in opened]
        total = sum(sizes)
        if not total:
            raise ValueError(f"draw_sources: contexts {opened} have no control cells of half {view.half}")
        rng = np.random.default_rng([seed, *row_address(inputs, row)])
        drawn = rng.permutation(total)[:n_cells] if total >= n_cells else rng.integers(total, size=n_cells)
        owner = np.searchsorted(np.cumsum(sizes), drawn, side="right")
        out.context[row] = np.asarray(opened)[owner]
        out.position[row] = drawn - (np.cumsum(sizes) - sizes)[owner]
    return out


def row_address(inputs: Inputs, row: int) -> list[int]:
    """What a row is, as whole numbers."""
    dose = np.float32(0 if inputs.dose is None else inputs.dose[row]).view(np.uint32)
    return [int(inputs.context[row]), int(dose), *np.sort(inputs.entities[row].indices).tolist()]
