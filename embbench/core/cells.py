"""Single cells behind a screen: what a component may read of them, and control cells as raw counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Counts:
    """Cells as a foundation model reads them: the whole panel, before any normalisation.

    Parameters
    ----------
    values : shape (m, g), float32 CSR, counts >= 0; where the screen was imported from logarithms, values in
        proportion to counts within each cell.
    genes : shape (g,), str, the panel's gene names.
    total : shape (m,), float64, counts of the whole cell (the panel may hold a part of them); NaN where the screen was
        imported from logarithms, whose depth nobody knows.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> Counts(csr_matrix([[1.0, 0.0]]), np.array(["A", "B"]), np.array([np.nan])).known
    False
    """

    values: csr_matrix
    genes: np.ndarray
    total: np.ndarray

    @property
    def known(self) -> bool:
        """Whether the values are counts with a known depth."""
        return bool(np.isfinite(self.total).all())

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def rows(self, index: np.ndarray) -> Counts:
        """Some of the cells (numbers or a mask)."""
        return replace(self, values=self.values[index], total=self.total[index])


class Cells(Protocol):
    """Single cells behind a condition-level dataset, log1p of counts scaled to 1e4, genes as in the dataset."""

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells, shape (m, g), float32, of one context and half (``"A"``, ``"B"`` or ``"all"``)."""
        ...

    def perturbed(self, row: int) -> np.ndarray:
        """Perturbed cells, shape (m, g), float32, of dataset row ``row``."""
        ...

    def n_controls(self, context: int, half: str = "A") -> int:
        """Number of control cells of one context and half."""
        ...

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """Control cells as counts, in the order of `controls`; ``index`` chooses some by ascending position."""
        ...

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names (barcodes) of control cells, shape (m,), str, in the order of `controls`."""
        ...

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """Batch codes of control cells, shape (m,), int, in the order of `controls`."""
        ...

    def perturbed_batches(self, row: int) -> np.ndarray:
        """Batch codes of perturbed cells, shape (m,), int, in the order of `perturbed`; codes as in `batches`."""
        ...


SHARES = ("all", "observed", "replicate")


def share_of(cells: int, row: int, share: str) -> np.ndarray:
    """Positions of a condition's cells in one of two disjoint random halves of equal size, ascending; or of all.

    Populations are judged against one half, so that the other can say how well the truth itself would have done.

    Examples
    --------
    >>> sorted([*share_of(5, 0, "observed"), *share_of(5, 0, "replicate")]) != [0, 1, 2, 3, 4]
    True
    """
    if share == "all":
        return np.arange(cells)
    order = np.random.default_rng([row, cells]).permutation(cells)
    half = cells // 2
    return np.sort(order[:half] if share == "observed" else order[half : 2 * half])


@dataclass(frozen=True)
class CellView:
    """The cells that a component may read: half-A controls of every context, perturbed cells of ``rows`` only.

    Parameters
    ----------
    source : the dataset's cells.
    rows : dataset rows whose perturbed cells are open; empty for queries.
    contexts : context codes whose controls are open; None opens all.
    columns : gene columns to keep; None keeps all.
    half : control half; ``B`` only where predictions are judged, never in what a component is handed.
    share : of the perturbed cells, one of `SHARES`.
    """

    source: Cells
    rows: np.ndarray
    contexts: frozenset[int] | None = None
    columns: np.ndarray | None = None
    half: str = "A"
    share: str = "all"

    def controls(self, context: int) -> np.ndarray:
        """Control cells, shape (m, g), of a context code."""
        self._check(context)
        return self._cut(self.source.controls(context, self.half))

    def n_controls(self, context: int) -> int:
        """Number of control cells of a context code."""
        self._check(context)
        return self.source.n_controls(context, self.half)

    def counts(self, context: int, index: np.ndarray | None = None) -> Counts:
        """Control cells of a context code as counts of the whole panel, whatever ``columns`` says."""
        self._check(context)
        return self.source.counts(context, self.half, index)

    def names(self, context: int) -> np.ndarray:
        """Names of the control cells of a context code, shape (m,)."""
        self._check(context)
        return self.source.names(context, self.half)

    def batches(self, context: int) -> np.ndarray:
        """Batch codes of the control cells of a context code, shape (m,)."""
        self._check(context)
        return self.source.batches(context, self.half)

    def perturbed(self, position: int) -> np.ndarray:
        """Perturbed cells, shape (m, g), of the view's row number ``position``."""
        row = self._open(position)
        cells = self.source.perturbed(row)
        return self._cut(cells if self.share == "all" else cells[share_of(len(cells), row, self.share)])

    def perturbed_batches(self, position: int) -> np.ndarray:
        """Batch codes of the perturbed cells of the view's row number ``position``, shape (m,)."""
        row = self._open(position)
        codes = self.source.perturbed_batches(row)
        return codes[share_of(len(codes), row, self.share)]

    def _open(self, position: int) -> int:
        if position >= len(self.rows):
            raise PermissionError(f"perturbed cells of row {position} are closed here; {len(self.rows)} rows are open")
        return int(self.rows[position])

    def _check(self, context: int) -> None:
        if self.contexts is not None and context not in self.contexts:
            raise PermissionError(f"controls of context {context} are closed here; open: {sorted(self.contexts)}")

    def _cut(self, cells: np.ndarray) -> np.ndarray:
        return cells if self.columns is None else cells[:, self.columns]

    def take(self, index: np.ndarray) -> CellView:
        """The view of some of its rows; a query view (no open row) stays one."""
        return replace(self, rows=self.rows[index]) if len(self.rows) else self


def view_cells(cells: Cells | CellView, index: np.ndarray) -> CellView:
    """Open the perturbed cells of rows ``index`` (all controls stay open)."""
    return cells.take(index) if isinstance(cells, CellView) else CellView(cells, np.asarray(index))
