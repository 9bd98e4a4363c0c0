"""Pairs of clouds to compare: sampled and observed cells of each condition, equally many, in one stated space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from embbench.core import Metric, Truth

LEAST = 2  # with fewer cells than this on one side nothing is compared
PAIRED = {
    "equal": " x, y: k sampled and k observed cells of the condition, k = the smaller number (of the other cloud the "
    "first k of a fixed permutation); log1p scale; NaN when k < 2 or no gene is scored.",
    "all": " x, y: all sampled and all observed cells of the condition; log1p scale; NaN below 2 cells or when no gene "
    "is scored.",
}

Kernel = Callable[[np.ndarray, np.ndarray], float]


def choose(cells: np.ndarray, k: int) -> np.ndarray:
    """``k`` of the cells (m, g): all of them, else the first k of a permutation that depends on m alone, in file order.

    Not simply the first k: files are sorted by batch.

    Examples
    --------
    >>> choose(np.arange(6)[:, None], 3).shape, choose(np.arange(3)[:, None], 3).ravel().tolist()
    ((3, 1), [0, 1, 2])
    """
    if k >= len(cells):
        return cells
    return cells[np.sort(np.random.default_rng([23, len(cells)]).permutation(len(cells))[:k])]


def place(cells: np.ndarray, keep: np.ndarray, basis: np.ndarray | None) -> np.ndarray:
    """Cells (m, g) in the space of comparison, float64: the scored genes, or the basis with all other genes at 0."""
    if not keep.all():
        cells, basis = cells[:, keep], None if basis is None else basis[keep]
    scored = cells.astype(np.float64)
    return scored if basis is None else scored @ basis.astype(np.float64)


@dataclass(frozen=True)
class Frame:
    """Where clouds are compared: ``genes`` or ``pcaK``, and whether equally many cells are taken of both."""

    space: str = "genes"
    cells: str = "equal"


def basis_of(truth: Truth, frame: Frame) -> np.ndarray | None:
    """Basis (g, k) of a ``pcaK`` space, None for ``genes``."""
    return None if frame.space == "genes" else truth.basis


def clouds(
    pred: np.ndarray, truth: Truth, mask: np.ndarray, frame: Frame
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Row, sampled and observed cells, of shape (k, d) and (l, d), of each row with a scored gene and enough cells.

    Energy distances, MMD and Wasserstein distances between finite samples depend on their size, so every entry and
    the ceiling must agree in ``k = l``, the smaller of the numbers of sampled and of observed cells.
    """
    if truth.cells is None:
        raise ValueError("population metric: needs the cells of the tested rows, found none")
    basis = basis_of(truth, frame)
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        seen = truth.cells.perturbed(row)
        k = min(pred.shape[1], len(seen))
        if k >= LEAST:
            pair = (pred[row], seen) if frame.cells == "all" else (choose(cells, k) for cells in (pred[row], seen))
            x, y = (place(cells, mask[row], basis) for cells in pair)
            yield row, x, y


def score_clouds(kernel: Kernel, frame: Frame, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """``kernel(sampled, observed)`` of every row, shape (n,); NaN without a scored gene or below 2 cells."""
    out = np.full(len(pred), np.nan)
    for row, x, y in clouds(pred, truth, mask, frame):
        out[row] = kernel(x, y)
    return out


@dataclass(frozen=True)
class CellMetric(Metric):
    """A metric between cells; ``fn`` follows the other fields, so that a spec may replace them (``:cells=all``).

    Parameters
    ----------
    scorer : ``scorer(kernel, frame, pred, truth, mask) -> (n,)``, e.g. `score_clouds`.
    kernel : its first argument.
    cells : ``equal`` (the same number on both sides, by which entries and ceilings can be compared) or ``all``.
    pairs : the kernel pairs cells one to one and needs equally many.
    """

    scorer: Callable[..., np.ndarray] = score_clouds
    kernel: object = None
    cells: str = "equal"
    pairs: bool = False
    settable: ClassVar[tuple[str, ...]] = ("cells",)

    def __post_init__(self) -> None:
        if self.pairs and self.cells == "all":
            raise ValueError("metric: pairs cells one to one, so cells must be 'equal', got 'all'")
        if self.cells not in PAIRED:
            raise ValueError(f"metric: cells must be one of {', '.join(PAIRED)}, got {self.cells!r}")
        object.__setattr__(self, "fn", partial(self.scorer, self.kernel, Frame(self.space, self.cells)))

    @property
    def formula(self) -> str:
        """The definition, and how cells are paired."""
        return self.about + PAIRED[self.cells]


def population_metric(
    scorer: Callable[..., np.ndarray], kernel: object, about: str, source: str, **declared: Any
) -> CellMetric:
    """A metric of cells with what it declares: low is best, from 0, of level population unless said otherwise.

    Parameters
    ----------
    scorer, kernel : see `CellMetric`.
    about : the formula; how cells are paired is added to it.
    source : paper and equation, or package.
    declared : other fields.
    """
    declared = {"best": "low", "lower": 0.0, "level": "population", **declared}
    own: dict[str, Any] = {"target": "population", "needs": ("cells",), "about": about, "source": source}
    return CellMetric(scorer, scorer=scorer, kernel=kernel, **own, **declared)
