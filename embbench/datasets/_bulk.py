"""Rows of the pseudobulk files of Replogle et al. 2022: what they hold, which gene was targeted, how many cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embbench.core import UserError
from embbench.datasets._h5ad import column, column_names, describe, index_names
from embbench.datasets._matrix import open_matrix
from embbench.datasets._obs import ImportReport, gene_names
from embbench.datasets._open import open_anndata

COUNTS, ZSCORES = "counts", "zscores"
CONTROL = "non-targeting"
CELLS = "num_cells_filtered"
TARGET_SUM = 1e4
_ROW = re.compile(r"\d+_(?P<symbol>.+)_(?P<transcript>[^_]+)_(?P<gene_id>[^_]+)")  # 0_A1BG_P1_ENSG00000121410
_ENSEMBL = re.compile(r"ENSG\d{11}")


@dataclass(frozen=True)
class Rows:
    """A file, checked.

    Parameters
    ----------
    labels : length n; perturbed gene, ``non-targeting`` for control guides, '' for rows that are not used.
    cells : shape (n,), float64; ones where the file does not tell them (``counted`` is False).
    genes : shape (g,), in one namespace.
    values : shape (n, g), float32; mean counts or mean z-scores of the cells of a row.
    """

    labels: list[str]
    cells: np.ndarray
    counted: bool
    genes: np.ndarray
    values: np.ndarray

    def mean(self, at: np.ndarray) -> np.ndarray:
        """Mean over the cells of some rows, shape (g,), float64; of finite entries, NaN where there is none.

        Examples
        --------
        >>> rows = Rows(["A", "A"], np.array([1.0, 3.0]), True, np.array(["X", "Y"]), np.array([[0, np.inf], [4, 2]]))
        >>> rows.mean(np.array([0, 1])).tolist()
        [3.0, 2.0]
        """
        seen = np.isfinite(self.values[at])
        weight = self.cells[at] @ seen
        total = self.cells[at] @ np.where(seen, self.values[at], 0).astype(np.float64)
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan)

    def profile(self, at: np.ndarray) -> np.ndarray:
        """``log1p`` of the mean count of the cells of some rows scaled to a sum of 1e4, shape (g,), float64."""
        mean = self.mean(at)
        return np.log1p(mean / mean.sum() * TARGET_SUM)


def read_rows(name: str, path: Path, content: str, report: ImportReport) -> Rows:
    """The rows of a file; what is not used of them goes to the report.

    Parameters
    ----------
    name : of the screen, for messages.
    content : ``counts`` or ``zscores``, as published.

    Raises
    ------
    UserError
        No row is one of control guides, the values are of another kind, or cells are not told in numbers.
    """
    with open_anndata(path) as file:
        names, genes = index_names(file, "obs"), index_names(file, "var")
        if "gene_id" in column_names(file, "var"):
            genes = column(file, "var", "gene_id", "gene names").text()
        matrix = open_matrix(file, None, (len(names), len(genes)))
        values = np.zeros(matrix.shape, dtype=np.float32)
        for start, block in matrix.chunks():
            values[start : start + block.shape[0]] = block.toarray()
        counted = CELLS in column_names(file, "obs")
        cells = column(file, "obs", CELLS, "cells of a row").values if counted else np.ones(len(names))
    if cells is None:
        raise UserError(
            f"{name}: {path.name}: expected numbers in the column {CELLS} of obs, found text; fetch it again"
        )
    if not counted:
        report.lines.append(f"no column {CELLS}: rows of one gene count the same, no number of cells is known")
    _check_kind(f"{name}: {path.name}", values, content)
    labels = _labels(names.tolist(), cells, values, content, report)
    if CONTROL not in labels:
        raise UserError(
            f"{name}: {path.name}: expected rows named NUMBER_{CONTROL}_{CONTROL}_{CONTROL}, found none among "
            f"{len(names)} ({describe(names.tolist())}); the file is not the published one: fetch it again"
        )
    return Rows(labels, cells, counted, gene_names(path.name, genes, report), values)


def label_of(name: str) -> str:
    """The perturbed gene that a row name tells: its Ensembl identifier, else its symbol; '' where it tells none.

    Examples
    --------
    >>> [label_of(name) for name in ("0_A1BG_P1_ENSG00000121410", "7_X_Y_P1P2_nan", "9_nan_P1_nan", "A1BG")]
    ['ENSG00000121410', 'X_Y', '', '']
    >>> label_of("10748_non-targeting_non-targeting_non-targeting")
    'non-targeting'
    """
    found = _ROW.fullmatch(name)
    if found is None:
        return ""
    symbol = "" if found["symbol"] == "nan" else found["symbol"]
    return found["gene_id"] if _ENSEMBL.fullmatch(found["gene_id"]) else symbol


def _labels(names: list[str], cells: np.ndarray, values: np.ndarray, content: str, report: ImportReport) -> list[str]:
    """Perturbed gene of every row, '' for those that tell none, have no cells or no counts; they are counted."""
    labels = [label_of(name) for name in names]
    odd = [name for name, label in zip(names, labels, strict=True) if not label]
    report.add("rows_without_target", len(odd), "rows whose name tells no perturbed gene, dropped", odd)
    usable = np.isfinite(cells) & (cells > 0)
    if content == COUNTS:
        usable &= values.sum(axis=1) > 0
    empty = [name for name, label, use in zip(names, labels, usable.tolist(), strict=True) if label and not use]
    report.add("rows_without_cells", len(empty), "rows without cells or counts, dropped", empty)
    return [label if use else "" for label, use in zip(labels, usable.tolist(), strict=True)]


def _check_kind(where: str, values: np.ndarray, content: str) -> None:
    """Mean counts are finite and not negative; of z-scores about half are below 0."""
    finite = np.isfinite(values)
    low = values[finite].min(initial=0)
    if content == ZSCORES and low >= 0:
        raise UserError(
            f"{where}: expected z-scores in X, found no value below 0; the file holds mean counts (a *_raw_bulk file): "
            "fetch the published one"
        )
    if content == COUNTS and (low < 0 or not finite.all()):
        found = f"values down to {low:.3g}" if low < 0 else "values that are not finite"
        raise UserError(
            f"{where}: expected mean counts in X, found {found}; the file holds z-scores (a *_normalized_bulk file): "
            "fetch the published one"
        )
