"""Conditions by genes: pivoting long tables and merging repeated conditions, without losing or guessing an entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embbench.core import UserError

if TYPE_CHECKING:
    import pandas as pd

UNTESTED = -128
IDENTITY = ("entities", "perturbation", "context", "dose")


@dataclass(frozen=True)
class Wide:
    """A condition-level table.

    Parameters
    ----------
    keys : n rows: perturbation, context, and where given dose, n_cells, ``keep:<name>``; later also entities.
    genes : g names as in the file.
    values : shape (n, g), float32, NaN where there is no entry.
    labels : shape (n, g), int8 in {-1, 0, 1}, ``UNTESTED`` where there is none; or None.
    """

    keys: pd.DataFrame
    genes: tuple[str, ...]
    values: np.ndarray
    labels: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Wide:
        """Some rows, by numbers of shape (k,)."""
        labels = None if self.labels is None else self.labels[rows]
        return Wide(self.keys.iloc[rows].reset_index(drop=True), self.genes, self.values[rows], labels)

    def genes_where(self, keep: np.ndarray) -> Wide:
        """Some genes, by mask of shape (g,).

        Examples
        --------
        >>> import pandas as pd
        >>> wide = Wide(pd.DataFrame({"context": ["x"]}), ("A", "B"), np.array([[1.0, 2.0]]), None)
        >>> wide.genes_where(np.array([False, True])).genes
        ('B',)
        """
        genes = tuple(gene for gene, kept in zip(self.genes, keep.tolist(), strict=True) if kept)
        return Wide(self.keys, genes, self.values[:, keep], None if self.labels is None else self.labels[:, keep])


@dataclass(frozen=True)
class Entries:
    """A long table, one row per entry.

    Parameters
    ----------
    keys : m rows, as in `Wide`.
    genes : shape (m,), str.
    values : shape (m,), float64.
    labels : shape (m,), int8 or None.
    """

    keys: pd.DataFrame
    genes: np.ndarray
    values: np.ndarray
    labels: np.ndarray | None

    def pivot(self, path: Path, keep: Sequence[str], *, average: bool, absent_label: int) -> Wide:
        """Conditions by genes, both in the order of the file; unlisted entries get ``absent_label``.

        `UserError`: an entry is listed twice and ``average`` is False, or a kept column varies.
        """
        import pandas as pd

        code, genes = pd.factorize(self.genes)
        row, first = _groups(self.keys, "entities")
        check_constant(path, self.keys, row, keep)
        size = (len(first), len(genes))
        at = row * len(genes) + code
        listed, start, counts = np.unique(at, return_index=True, return_counts=True)
        if len(listed) < len(at) and not average:
            worst = start[counts.argmax()]
            pair = f"{self.keys['perturbation'].iloc[worst]} and {self.genes[worst]}"
            raise UserError(
                f"table {path}: {len(at) - len(listed)} entries repeat a (perturbation, context, gene), e.g. {pair}; "
                "name the column that tells them apart (context_key, dose_key) or set combine=mean"
            )
        labels = None if self.labels is None else _agreed(at, self.labels, size)
        if labels is not None:
            unlisted = np.ones(labels.size, dtype=bool)
            unlisted[listed] = False
            labels[unlisted.reshape(size)] = absent_label
        keys = self.keys.iloc[first].reset_index(drop=True)
        return Wide(keys, tuple(map(str, genes)), _mean(at, self.values, size), labels)


def merge(path: Path, wide: Wide, keep: Sequence[str], *, average: bool) -> Wide:
    """One row per (entities, context, dose); values are averaged, cells added up, labels kept where they agree.

    `UserError`: a condition is repeated and ``average`` is False, or a kept column varies within one.

    Examples
    --------
    >>> import pandas as pd
    >>> keys = pd.DataFrame({"perturbation": ["TP53", "TP53"], "entities": [("TP53",)] * 2, "context": ["x", "x"]})
    >>> merge(Path("t.csv"), Wide(keys, ("A",), np.array([[1.0], [3.0]]), None), (), average=True).values.tolist()
    [[2.0]]
    """
    keys = wide.keys
    row, first = _groups(keys, "perturbation")
    if len(first) == len(row):
        return wide
    if not average:
        clash = keys[row == np.bincount(row).argmax()]
        shown = f"{', '.join(map(repr, clash['perturbation'][:3]))} in context {clash['context'].iloc[0]!r}"
        raise UserError(
            f"table {path}: {len(row) - len(first)} rows repeat a (perturbation, context, dose), e.g. {shown}; "
            "name the column that tells them apart (context_key, dose_key) or set combine=mean"
        )
    check_constant(path, keys, row, keep)
    size = (len(first), len(wide.genes))
    at = (row[:, None] * size[1] + np.arange(size[1])[None, :]).ravel()
    labels = None if wide.labels is None else _agreed(at, wide.labels.ravel(), size)
    merged = keys.iloc[first].reset_index(drop=True)
    if "n_cells" in keys:
        merged["n_cells"] = np.bincount(row, keys["n_cells"])
    return replace(wide, keys=merged, values=_mean(at, wide.values.ravel(), size), labels=labels)


def check_constant(path: Path, keys: pd.DataFrame, row: np.ndarray, keep: Sequence[str]) -> None:
    """Raise `UserError` when a kept column has several values within one condition."""
    for name in keep:
        values = keys[f"keep:{name}"].groupby(row).nunique(dropna=False)
        if (values > 1).any():
            which = keys["perturbation"][row == values.idxmax()].iloc[0]
            raise UserError(
                f"table {path}: column {name!r} (keep) must have one value per condition, found {values.max()} for "
                f"{which!r}; leave it out of keep or add it to context_key"
            )


def _groups(keys: pd.DataFrame, without: str) -> tuple[np.ndarray, np.ndarray]:
    """Condition number of each row (m,), numbered as they appear, and the first row of each condition."""
    identity = [name for name in IDENTITY if name in keys.columns and name != without]
    row = keys.groupby(identity, sort=False).ngroup().to_numpy()
    return row, np.unique(row, return_index=True)[1]


def _mean(at: np.ndarray, value: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Means (n, g) float32 of the finite values at each flat position; NaN where there is none."""
    finite = np.isfinite(value)
    total = np.bincount(at[finite], value[finite].astype(np.float64), size[0] * size[1])
    count = np.bincount(at[finite], minlength=size[0] * size[1])
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.reshape(size).astype(np.float32)


def _agreed(at: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (n, g) int8 at each flat position; untested where there is none or where the tested ones disagree."""
    tested = label != UNTESTED
    low, high = np.full(size[0] * size[1], 127, np.int8), np.full(size[0] * size[1], UNTESTED, np.int8)
    np.minimum.at(low, at[tested], label[tested])
    np.maximum.at(high, at[tested], label[tested])
    return np.where(low == high, high, UNTESTED).astype(np.int8).reshape(size)
