"""How the cells of a screen are tested for labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from embbench.core import UserError
from embbench.numerics import de

TESTS = ("wilcoxon", "welch", "donor")
MIN_CELLS = 30  # below it, tests lose what power they have or their level
PAIRED, UNPAIRED = 3, 2  # fewest donors of a paired test; on either side of an unpaired one


@dataclass(frozen=True)
class LabelOptions:
    """How labels are made; a value out of range is a `UserError`.

    Parameters
    ----------
    test : ``wilcoxon`` (rank-sum, tie and continuity corrected, cells of all batches together), ``welch`` (t test on
        log1p expression, variances moderated), both guarded by an exact test of detection for genes that too few
        cells express; or ``donor``: mean log1p expression per batch, paired over batches that hold perturbed and
        control cells where there are three or more, else Welch between batch means with two or more on either side.
        Cells of a donor are no independent repeats, so where batches are donors only this test keeps its level.
    level : of Benjamini-Hochberg p values within a condition over its tested genes.
    min_cells : conditions with fewer cells are not tested.
    min_expressed : a gene is tested when at least this share (below 1) or number (from 1) of the perturbed and control
        cells together has it detected, whichever they are; see `_rare.enough`.
    min_log2fc : smallest |log2fc| of a label other than 0.
    equal_cells : test this many cells of every condition, a seeded choice, because the number of significant genes
        grows with the number of cells; conditions with fewer are not tested. At least ``min_cells``.
    pseudocount : of log2fc, in counts per million.
    donor_cells : batches with fewer cells of a group have no mean of it (``donor``).
    seed : of the choice of cells.

    Examples
    --------
    >>> LabelOptions("welch", min_log2fc=0.25).test
    'welch'
    >>> LabelOptions("limma")
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: labels: test must be one of wilcoxon, welch, donor, got 'limma'
    """

    test: str = "wilcoxon"
    level: float = 0.05
    min_cells: int = MIN_CELLS
    min_expressed: float = 0.05
    min_log2fc: float = 0.0
    equal_cells: int | None = None
    pseudocount: float = de.PSEUDOCOUNT
    donor_cells: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise UserError(f"labels: test must be one of {', '.join(TESTS)}, got {self.test!r}")
        least = {"min_cells": 2, "min_expressed": 0, "min_log2fc": 0, "equal_cells": 2, "donor_cells": 1, "seed": 0}
        for name, low in least.items():
            whole = name not in ("min_expressed", "min_log2fc")
            if (value := getattr(self, name)) is not None or name != "equal_cells":
                _number(name, value, whole=whole)
                if value < low:
                    raise UserError(f"labels: {name} must be >= {low}, got {value}")
        if not 0 < _number("level", self.level) < 1:
            raise UserError(f"labels: level must lie between 0 and 1, got {self.level}")
        if not _number("pseudocount", self.pseudocount) > 0:
            raise UserError(f"labels: pseudocount must be > 0 counts per million, got {self.pseudocount}")
        if self.equal_cells is not None and self.equal_cells < self.min_cells:
            raise UserError(
                f"labels: equal_cells must be >= min_cells = {self.min_cells}, got {self.equal_cells}; tests of fewer "
                f"cells need min_cells={self.equal_cells} as well"
            )


def _number(name: str, value: object, *, whole: bool = False) -> float:
    """A finite (whole) number; `UserError` says what else it is."""
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise UserError(f"labels: {name} must be a {'whole ' if whole else ''}number, got {value!r}")
    return float(value)
