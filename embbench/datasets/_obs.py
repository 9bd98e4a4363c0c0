"""Columns turned into codes: selection, contexts, batches, doses, size factors, covariates, gene names."""

from __future__ import annotations

from dataclasses import dataclass, field

import h5py
import numpy as np

from embbench.cache.screens import string_array
from embbench.core import UserError
from embbench.datasets._h5ad import Column, column, describe, near
from embbench.datasets._options import ImportOptions
from embbench.genes import harmonise, namespace

SINGLE = "all"  # the one context or batch of a file that names none


@dataclass
class ImportReport:
    """What was read, what was left out and why: text lines, counts, and the names behind them."""

    lines: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, key: str, number: int, text: str, names: list[str] | None = None) -> None:
        """Record a count; it becomes a line when it is not zero.

        Examples
        --------
        >>> report = ImportReport()
        >>> report.add("rows_dropped", 2, "conditions below the minimum", ["A", "B"])
        >>> report.lines
        ['conditions below the minimum: 2 (A, B)']
        """
        self.counts[key] = self.counts.get(key, 0) + int(number)
        if names:
            self.names[key] = [*self.names.get(key, []), *names]
        if number:
            self.lines.append(f"{text}: {int(number):,}" + (f" ({describe(names)})" if names else ""))

    def facts(self) -> dict[str, object]:
        """JSON-able form for ``meta``."""
        return {"import_report": self.lines, "import_counts": self.counts, "import_names": self.names}


def selected(file: h5py.File, options: ImportOptions, cells: int, report: ImportReport) -> np.ndarray:
    """Bool of shape (cells,): cells whose columns have one of the selected values; `UserError` for an unknown one."""
    keep = np.ones(cells, dtype=bool)
    for name, wanted in options.select.items():
        found = column(file, "obs", name, "--select")
        if absent := sorted(set(wanted) - set(found.levels)):
            raise UserError(
                f"{file.filename}: --select {name}={absent[0]} is not among its values{near(absent[0], found.levels)}"
            )
        keep &= np.isin(found.codes, [found.levels.index(v) for v in wanted])
    report.add("cells_not_selected", int((~keep).sum()), "cells left out by --select")
    if not keep.any():
        raise UserError(f"{file.filename}: no cell has all of --select {options.select}; widen the selection")
    return keep


def present(codes: np.ndarray, keep: np.ndarray, what: str, report: ImportReport) -> np.ndarray:
    """Bool of shape (cells,): where a column has a value; those missing among ``keep`` are counted.

    Examples
    --------
    >>> present(np.array([0, -1, 2]), np.ones(3, bool), "dose", ImportReport()).tolist()
    [True, False, True]
    """
    report.add(f"cells_without_{what}", int((keep & (codes < 0)).sum()), f"cells without a {what}, dropped")
    return codes >= 0


def joined(file: h5py.File, keys: tuple[str, ...], option: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and codes of shape (cells,), int32, of columns joined by ``|``; -1 where one is missing.

    Without keys, codes are 0 for every cell (an array of length 1 that broadcasts).
    """
    if not keys:
        return (SINGLE,), np.zeros(1, dtype=np.int32)
    columns = [column(file, "obs", key, option) for key in keys]
    codes, missing = np.zeros(len(columns[0].codes), dtype=np.int64), np.zeros(len(columns[0].codes), dtype=bool)
    for part in columns:
        codes = codes * max(len(part.levels), 1) + np.maximum(part.codes, 0)
        missing |= part.codes < 0
    used, codes = np.unique(codes, return_inverse=True)
    names = ["|".join(words) for words in (_unravel(int(u), columns) for u in used)]
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names), dtype=np.int32)
    rank[order] = np.arange(len(names))
    return tuple(names[i] for i in order), np.where(missing, -1, rank[codes.ravel()]).astype(np.int32)


def _unravel(code: int, columns: list[Column]) -> list[str]:
    words = []
    for part in reversed(columns):
        code, level = divmod(code, max(len(part.levels), 1))
        words.append(part.levels[level] if part.levels else "")
    return words[::-1]


def doses(file: h5py.File, options: ImportOptions, cells: int) -> np.ndarray:
    """Doses of shape (cells,), float64; NaN where missing or without a dose column; `UserError` when it holds text."""
    if options.dose_key is None:
        return np.full(cells, np.nan)
    return _numbers(file, options.dose_key, "--dose-key")


def _numbers(file: h5py.File, name: str, option: str) -> np.ndarray:
    found = column(file, "obs", name, option)
    if found.values is not None:
        return found.values
    levels = np.full(len(found.levels) + 1, np.nan)
    for i, level in enumerate(found.levels):
        try:
            levels[i] = float(level)
        except ValueError:
            raise UserError(
                f"{file.filename}: {option} {name!r} must be numeric, found {level!r}; name a column of numbers"
            ) from None
    return levels[found.codes]


def depths(file: h5py.File, options: ImportOptions, used: np.ndarray) -> np.ndarray | None:
    """Total counts of shape (cells,) from the size-factor column, or None without one.

    Raises
    ------
    UserError
        A used cell has a value that is not positive and finite; the cell is named.
    """
    if options.size_factor is None:
        return None
    values = _numbers(file, options.size_factor, "--size-factor")
    bad = np.flatnonzero(used & ~((values > 0) & np.isfinite(values)))
    if len(bad):
        raise UserError(
            f"{file.filename}: --size-factor {options.size_factor!r} must be positive and finite, found "
            f"{values[bad[0]]:g} in cell {bad[0]} (counted from 0; {len(bad)} such cells); repair it or leave it out"
        )
    return np.where(used, values, 1.0)


def covariate(file: h5py.File, name: str, row: np.ndarray, labels: list[str]) -> np.ndarray:
    """Values of shape (n,) of a column that is constant within each condition; text, or float64 for numbers.

    Parameters
    ----------
    row : shape (cells,); condition of each cell, negative elsewhere.
    labels : shape (n,); condition names for errors.

    Raises
    ------
    UserError
        The column changes within a condition, or is missing in one of its cells.
    """
    found = column(file, "obs", name, "--covariate")
    cells = np.flatnonzero(row >= 0)
    codes = found.codes[cells]
    low, high = np.full(len(labels), len(found.levels)), np.full(len(labels), -1)
    np.minimum.at(low, row[cells], codes)
    np.maximum.at(high, row[cells], codes)
    if len(bad := np.flatnonzero(low != high)):
        pair = [found.levels[c] if c >= 0 else "a missing value" for c in (low[bad[0]], high[bad[0]])]
        raise UserError(
            f"{file.filename}: --covariate {name!r} must be constant within a condition, found {pair[0]}, {pair[1]} in "
            f"{labels[bad[0]]}; leave it out, or make it a context key"
        )
    if found.values is None:
        return found.text()[_first_cell(row, len(labels))]
    return found.values[_first_cell(row, len(labels))]


def _first_cell(row: np.ndarray, rows: int) -> np.ndarray:
    first = np.full(rows, len(row))
    cells = np.flatnonzero(row >= 0)
    np.minimum.at(first, row[cells], cells)
    return first


def gene_names(path: str, names: np.ndarray, report: ImportReport) -> np.ndarray:
    """Gene names in one namespace: symbols where most of them are human genes, else as they are.

    Raises
    ------
    UserError
        Names are repeated or empty.
    """
    found, counts = np.unique(names, return_counts=True)
    if (counts > 1).any() or "" in found:
        repeated = found[(counts > 1) | (found == "")].tolist()
        raise UserError(
            f"{path}: gene names must be unique, not empty; found {len(repeated)} that are not ({describe(repeated)}); "
            "make them unique (anndata: var_names_make_unique) or name a better var column with --gene-key"
        )
    if namespace(names.tolist()) == "unknown":
        report.lines.append(f"genes: {len(names):,} names of no human namespace, kept as they are")
        return string_array(names)
    done = harmonise(names.tolist())
    report.lines.extend(done.report.lines())
    return string_array(done.names)
