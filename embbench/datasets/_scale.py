"""Which scale a matrix is on, and cells brought to log1p of counts scaled to 1e4."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.datasets._matrix import Matrix
from embbench.numerics.moments import log_normalise

SCALES = ("auto", "counts", "lognorm")
LOG_LIMIT = 15.0  # log1p of more than three million counts in one gene of one cell
MOST_WHOLE = 0.1  # logarithms of scaled counts are hardly ever whole
_CHOOSE = "choose another matrix with --layer, or state --scale counts or --scale lognorm if you know better"

_ZSCORED = (
    "with a column gem_group this is how Replogle et al. 2022 normalised their single cells (z-scores per gem_group "
    "against controls, no counts are left): embbench data fetch replogle22_k562_essential_raw (or _rpe1_raw, "
    "_k562_gwps_raw) brings the counts"
)


def detect_scale(matrix: Matrix, scale: str, path: str, columns: Iterable[str] = ()) -> str:
    """``counts`` or ``lognorm``, told by the user or from a sample of the stored values.

    Parameters
    ----------
    columns : of ``obs``; those of published files of z-scores are recognised.

    Raises
    ------
    UserError
        Negative (z-scored) values, or values that are neither whole numbers nor plausible logarithms.
    """
    values = matrix.sample().astype(np.float64)
    values = values[np.isfinite(values)]
    where = f"{path}: {matrix.label}"
    if not values.size or not values.any():
        raise UserError(f"{where} holds no expression (all values are 0); {_CHOOSE}")
    if values.min() < 0:
        advice = _ZSCORED if "gem_group" in columns else "choose a matrix that has them with --layer"
        raise UserError(
            f"{where} holds negative values (down to {values.min():.3g}), as z-scored data do; expected counts "
            f"or log-normalised values: {advice}"
        )
    if scale != "auto":
        return scale
    top, fractional = values.max(), values[values != np.rint(values)]
    if not fractional.size:
        return "counts"
    if top > LOG_LIMIT:
        raise UserError(
            f"{where} holds fractions up to {top:.6g}: too large for logarithms, not whole "
            f"as counts are (CPM or TPM?); {_CHOOSE}"
        )
    whole = 1 - fractional.size / np.count_nonzero(values)
    if whole > MOST_WHOLE:
        raise UserError(
            f"{where} mixes fractions with whole numbers ({whole:.0%} of the values above 0): corrected counts? "
            f"{_CHOOSE}"
        )
    back = np.expm1(fractional)
    if np.abs(back - np.rint(back)).max() < 1e-3 * max(1.0, back.max() / 1e3):
        raise UserError(
            f"{where} is log1p of whole numbers: cells still differ by their depth, so it is neither counts nor "
            f"log-normalised; {_CHOOSE}"
        )
    return "lognorm"


@dataclass
class Normaliser:
    """Chunks as they are stored -> log1p cells of shape (m, g), scaled as in Wolf et al. (2018), Genome Biology 19, 15,
    with every value checked.

    Parameters
    ----------
    path, label : named in errors.
    scale : ``counts`` or ``lognorm``.
    told : whether the user stated the scale (then counts need not be whole).
    depth : shape (m,); total counts of the file's cells, or None: the sum over the panel.
    genes : shape (g,); names for errors.
    sums : first cell of a chunk -> linear-scale sums of its cells, for the report, when the input is log-normalised.
    totals : first cell of a chunk -> total counts of its cells; NaN where the input is log-normalised.

    Examples
    --------
    >>> normalise = Normaliser("f.h5ad", "X", "counts", told=True, depth=None, genes=np.array(["A", "B"]))
    >>> normalise(0, sparse.csr_matrix([[1.0, 3.0]]))[0].toarray().astype(float).round(2).tolist()
    [[7.82, 8.92]]
    """

    path: str
    label: str
    scale: str
    told: bool
    depth: np.ndarray | None
    genes: np.ndarray
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    totals: dict[int, np.ndarray] = field(default_factory=dict)

    def __call__(self, start: int, block: sparse.csr_matrix) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Normalised cells of shape (m, g), float32, and the mask of shape (m,) of cells that have counts.

        Raises
        ------
        UserError
            A value is NaN, infinite, negative, or off the scale; the message names cell and gene.
        """
        self._check(start, block)
        if self.scale == "lognorm":
            values = block.data.astype(np.float32)
            linear = sparse.csr_matrix(
                (np.expm1(block.data.astype(np.float64)), block.indices, block.indptr), block.shape
            )
            self.totals[start] = np.full(block.shape[0], np.nan)
            self.sums[start] = np.asarray(linear.sum(axis=1)).ravel().astype(np.float32)
            return sparse.csr_matrix((values, block.indices, block.indptr), block.shape), np.ones(block.shape[0], bool)
        if self.depth is not None:
            self.totals[start] = depth = self.depth[start : start + block.shape[0]]
            return log_normalise(block, depth), np.ones(len(depth), dtype=bool)
        self.totals[start] = depth = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        return log_normalise(block, np.where(depth > 0, depth, 1.0)), depth > 0

    def _check(self, start: int, block: sparse.csr_matrix) -> None:
        values = block.data
        if not values.size:
            return
        low, high = values.min(), values.max()
        if np.isfinite(low) and np.isfinite(high) and low >= 0 and not self._off_scale(values, high):
            return
        off = (f"a value above {LOG_LIMIT:g} among logarithms", values > LOG_LIMIT)
        if self.scale == "counts":
            off = ("a fraction among counts", values != np.rint(values))
        for name, bad in (("a value that is not finite", ~np.isfinite(values)), ("a negative value", values < 0), off):
            if bad.any():
                at = int(np.flatnonzero(bad)[0])
                row = int(np.searchsorted(block.indptr, at, side="right")) - 1
                raise UserError(
                    f"{self.path}: {self.label} has {name}: {values[at]:.6g} in cell {start + row} (from 0), gene "
                    f"{self.genes[block.indices[at]]!r}; expected {self.scale} values >= 0: repair it, or {_CHOOSE}"
                )

    def _off_scale(self, values: np.ndarray, high: float) -> bool:
        if self.scale == "lognorm":
            return bool(high > LOG_LIMIT)
        return not self.told and values.dtype.kind == "f" and bool((values != np.rint(values)).any())

    def spread(self) -> str:
        """What the linear sums of log-normalised cells are like; information only (panels differ by nature)."""
        sums = np.concatenate(list(self.sums.values())) if self.sums else np.zeros(1, np.float32)
        low, middle, high = np.percentile(sums, [5, 50, 95])
        return f"linear sums per cell: median {middle:.4g}, 5 to 95 % {low:.4g} to {high:.4g}"
