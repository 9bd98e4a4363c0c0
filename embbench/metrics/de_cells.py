"""Differential expression of predicted cells, tested like real ones, against the DE table of the observed cells.

Predicted cells of a condition are tested against the real half-B controls of its context, never against controls that
a head made: Wilcoxon rank-sum with tie and continuity correction, then Benjamini-Hochberg over the scored genes. The
number of significant genes grows with the number of cells: of every condition as many cells are tested as the half that
populations are judged against has, or as are predicted where these are fewer (``:cells=all`` tests every predicted
cell). Two fold changes: that of the DE table (log2 ratio of mean counts per million, pseudocount 1) and, in the
``cell_eval`` forms, cell-eval's.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from embbench.core import CellView, Truth
from embbench.metrics._cells import CellMetric, Frame, choose
from embbench.metrics._de import (
    AREAS,
    Judged,
    area_condition,
    direction_match,
    finite,
    judged,
    spearman_significant,
    table_of,
    top,
)
from embbench.metrics._rows import ratio
from embbench.numerics import de
from embbench.numerics.ranks import average_ranks

GEOMETRIC = "geometric"  # the fold change of the cell_eval forms
LEAST = 1e-10  # adjusted p values below it score alike
KEPT = 2  # results that are remembered: metrics come with one gene set and the other by turns


@dataclass(frozen=True)
class Compared:
    """Tests of predicted cells, all of shape (n, g).

    Parameters
    ----------
    padj : float32, NaN where not scored.
    change, geometric : float64, finite log2 fold changes of arithmetic mean counts (pseudocount 1 per million), and of
        geometric means ``exp(mean log1p) - 1`` without a pseudocount.
    observed : as ``geometric``, of the observed cells.
    """

    padj: np.ndarray
    change: np.ndarray
    geometric: np.ndarray
    observed: np.ndarray


Score = Callable[[Compared, Judged, np.ndarray, str], np.ndarray]


def compare_cells(pred: np.ndarray, truth: Truth, scored: np.ndarray, cells: str = "equal") -> Compared:
    """Tests of predicted cells (n, m, g) against the half-B controls of each row's context, over ``scored`` (n, g).

    ``cells``: ``equal`` tests at most as many cells of a condition as were observed, ``all`` tests all of them.
    """
    if truth.cells is None:
        raise ValueError("DE of predicted cells: needs the control cells of the tested rows, found none")
    padj = np.full(scored.shape, np.nan, np.float32)
    change, geometric, observed = np.zeros((3, *scored.shape))
    for context in np.unique(truth.context):
        rows = np.flatnonzero((truth.context == context) & scored.any(axis=1))
        controls = truth.cells.controls(int(context)) if len(rows) else np.zeros((0, scored.shape[1]), np.float32)
        if not len(controls) or not pred.shape[1]:
            continue
        prepared, counts, typical = de.SortedControls(controls), de.mean_counts(controls), _geometric(controls)
        for row in rows.tolist():
            seen = truth.cells.perturbed(row)
            drawn = pred[row] if cells == "all" else choose(pred[row], len(seen))
            if not len(drawn):
                continue
            padj[row] = de.benjamini_hochberg(np.where(scored[row], prepared.test(drawn).p, np.nan))
            change[row] = de.log2fc(de.mean_counts(drawn), counts)
            for out, some in ((geometric, drawn), (observed, seen)):
                out[row] = finite(de.log2fc(_geometric(some), typical, 0.0)) if len(some) else 0.0
    return Compared(padj, change, geometric, observed)


def _geometric(cells: np.ndarray) -> np.ndarray:
    """``exp(mean log1p) - 1`` (g,), counts per 1e4, at least 0."""
    return np.expm1(np.maximum(cells.mean(axis=0, dtype=np.float64), 0.0))


class _Last:
    """The tests of the last predictions, because dozens of metrics in a row ask for the same ones, set by set of genes.

    Nothing depends on it: the key is the content of the predicted cells and of the scored entries, and the very view
    through which the controls are read.
    """

    def __init__(self) -> None:
        self.kept: deque[tuple[CellView, str, Compared]] = deque(maxlen=KEPT)

    def tests(self, pred: np.ndarray, truth: Truth, scored: np.ndarray, cells: str) -> Compared:
        """`compare_cells`, computed unless it was among the last things asked for."""
        state = hashlib.blake2b(f"{pred.shape} {pred.dtype} {cells}".encode())
        for part in (pred, scored, truth.context):
            state.update(np.ascontiguousarray(part).data)
        key = state.hexdigest()
        for view, name, found in self.kept:
            if view is truth.cells and name == key:
                return found
        found = compare_cells(pred, truth, scored, cells)
        if truth.cells is not None:
            self.kept.append((truth.cells, key, found))
        return found


_LAST = _Last()


@dataclass(frozen=True)
class _Form:
    """What is made of the tests, by which fold change."""

    score: Score
    fold: str = "change"


def _scored(form: _Form, frame: Frame, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    table, level = judged(truth, mask), table_of(truth).level
    tested = _LAST.tests(pred, truth, table.scored, frame.cells)
    found = np.nan_to_num(tested.padj, nan=1.0) < level
    if form.fold == GEOMETRIC:
        table = replace(table, change=np.where(table.scored, tested.observed, 0.0))
    values = form.score(tested, table, found, form.fold)
    return np.where(np.isfinite(tested.padj).any(axis=1), values, np.nan)


def _overlap(tested: Compared, table: Judged, found: np.ndarray, fold: str, *, k: int | None) -> np.ndarray:
    return _common(tested, table, found, fold, table.count if k is None else np.minimum(k, table.count))


def _precision(tested: Compared, table: Judged, found: np.ndarray, fold: str, *, k: int | None) -> np.ndarray:
    n = found.sum(axis=1)
    return _common(tested, table, found, fold, n if k is None else np.minimum(k, n))


def _common(tested: Compared, table: Judged, found: np.ndarray, fold: str, size: np.ndarray) -> np.ndarray:
    """Genes in both of the ``size`` largest |log2fc| of significant genes, over ``size``."""
    shared = fold == "change"
    real = top(np.abs(table.change), table.significant, size, shared=shared)
    own = top(np.abs(getattr(tested, fold)), found, size, shared=shared)
    value = (real * own).sum(axis=1) / np.maximum(size, 1)
    return np.where(table.count > 0, value, np.nan) if shared else value


def _direction(tested: Compared, table: Judged, found: np.ndarray, fold: str) -> np.ndarray:
    return direction_match(getattr(tested, fold), table)


def _spearman(tested: Compared, table: Judged, found: np.ndarray, fold: str) -> np.ndarray:
    return spearman_significant(getattr(tested, fold), table)


def _recall(tested: Compared, table: Judged, found: np.ndarray, fold: str) -> np.ndarray:
    return ratio((found & table.significant).sum(axis=1).astype(np.float64), table.count)


def _area(tested: Compared, table: Judged, found: np.ndarray, fold: str, *, area: str) -> np.ndarray:
    score = -np.log10(np.clip(np.nan_to_num(tested.padj, nan=1.0).astype(np.float64), LEAST, 1.0))
    return area_condition(score, table, AREAS[area])


def _counts(kernel: None, frame: Frame, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """Rank agreement of the numbers of significant genes: the same value in every tested row of a context."""
    table = judged(truth, mask)
    tested = _LAST.tests(pred, truth, table.scored, frame.cells)
    said = (np.nan_to_num(tested.padj, nan=1.0) < table_of(truth).level).sum(axis=1)
    out = np.full(len(pred), np.nan)
    for context in np.unique(truth.context):
        rows = np.flatnonzero((truth.context == context) & (table.count > 0))
        pair = average_ranks(np.stack([said[rows], table.count[rows]]).astype(np.float64))
        if len(rows) > 1 and (np.ptp(pair, axis=1) > 0).all():
            out[(truth.context == context) & np.isfinite(tested.padj).any(axis=1)] = np.clip(
                np.corrcoef(pair)[0, 1], -1.0, 1.0
            )
    return out


CELL_EVAL = "cell-eval 0.8.2 (Arc Institute) {name}, tests as its pdex 0.3 (Mann and Whitney 1947); {how}"
OURS = (
    "against half-B controls, BH over the scored genes, fold changes as in the DE table, ties share places, NaN where "
    "undefined"
)
THEIRS = (
    "fold changes of predicted and of observed cells from geometric means without a pseudocount, ties to the smaller "
    "column, 0 without a significant gene"
)
WORDS = {
    "de_spearman_sig": "Spearman correlation, over a context's conditions, of the numbers of significant genes: "
    "predicted and true. Conditions without a truly significant gene take no part, but every tested row of the context "
    "has the one value. NaN with fewer than two of them or when either number is the same everywhere. Chance: 0.",
    "overlap": "Genes among the k_eff largest |log2fc| of the significant ones both in truth and in prediction, over "
    "k_eff = {size}. Chance: about k_eff / tested genes for as many random hits as there are true ones.",
    "precision": "Genes among the k_eff largest |log2fc| of the significant ones both in truth and in prediction, over "
    "k_eff = {size}; 0 when nothing is predicted. Chance: about the share of significant among tested genes.",
    "de_direction_match": "Share of truly significant genes whose log2fc in predicted cells has the true sign, "
    "whatever its p value. Chance: 0.5 for random signs; controls drawn again score about 0.5.",
    "de_sig_genes_recall": "Genes significant in truth and prediction over those significant in truth. Chance: the "
    "share of tested genes that is predicted significant.",
    "de_spearman_lfc_sig": "Spearman correlation over truly significant genes of log2fc in predicted cells and in "
    "truth; NaN with fewer than two or when either is constant. Chance: 0.",
    "roc_auc": "AUROC over tested genes: label = truly significant, score = -log10 of the predicted adjusted p (at "
    "least 1e-10); NaN unless both kinds are there. Chance: 0.5.",
    "pr_auc": "Average precision over tested genes: label = truly significant, score = -log10 of the predicted "
    "adjusted p (at least 1e-10); NaN unless both kinds are there. Chance: the share of significant genes.",
}
RULE = " Predicted cells by Wilcoxon and Benjamini-Hochberg at the DE table's level."
TESTED = {
    "equal": " Tested are at most as many predicted cells of a condition as the observed cells that populations are "
    "judged against (the first ones of a fixed permutation).",
    "all": " All predicted cells are tested.",
}


class TestedCells(CellMetric):
    """A metric between the tests of predicted cells and the DE table; ``kernel`` is a `_Form`, or None."""

    @property
    def formula(self) -> str:
        """The definition, and how many cells are tested."""
        return self.about + TESTED[self.cells]


def _metric(
    score: Score | None,
    name: str,
    words: str,
    fold: str = "change",
    *,
    lower: float = 0.0,
    level: str = "population",
    more: str = "",
) -> TestedCells:
    scorer: Any
    scorer, kernel = (_counts, None) if score is None else (_scored, _Form(score, fold))
    return TestedCells(
        scorer,
        scorer=scorer,
        kernel=kernel,
        best="high",
        source=CELL_EVAL.format(name=name, how=(OURS if fold == "change" else THEIRS) + more),
        lower=lower,
        upper=1.0,
        level=level,
        target="population",
        needs=("de", "cells"),
        about=words + RULE + ("" if fold == "change" else f" The cell-eval form: {THEIRS}."),
    )


def _at(kind: str, k: int | None, fold: str = "change") -> TestedCells:
    """Overlap (recall side) or precision at N or a fixed k."""
    n = "N, the number of significant genes in " + ("truth" if kind == "overlap" else "prediction")
    score = partial(_overlap if kind == "overlap" else _precision, k=k)
    size = n if k is None else f"min({k}, N), N = {n.removeprefix('N, ')}"
    return _metric(score, f"{kind}_at_{k or 'N'}", WORDS[kind].format(size=size), fold)


overlap_n, overlap_50, overlap_100 = (_at("overlap", k) for k in (None, 50, 100))
precision_n, precision_50, precision_100 = (_at("precision", k) for k in (None, 50, 100))
direction = _metric(_direction, "de_direction_match", WORDS["de_direction_match"])
sig_recall = _metric(_recall, "de_sig_genes_recall", WORDS["de_sig_genes_recall"])
spearman_lfc_sig = _metric(_spearman, "de_spearman_lfc_sig", WORDS["de_spearman_lfc_sig"], lower=-1.0)
auroc = _metric(partial(_area, area="auroc"), "roc_auc", WORDS["roc_auc"])
auprc = _metric(partial(_area, area="auprc"), "pr_auc", WORDS["pr_auc"])
spearman_sig = _metric(
    None,
    "de_spearman_sig",
    WORDS["de_spearman_sig"],
    lower=-1.0,
    level="set",
    more="; cell-eval gives 1 where no condition has a hit",
)

overlap_n_cell_eval, overlap_50_cell_eval, overlap_100_cell_eval = (
    _at("overlap", k, GEOMETRIC) for k in (None, 50, 100)
)
precision_n_cell_eval, precision_50_cell_eval, precision_100_cell_eval = (
    _at("precision", k, GEOMETRIC) for k in (None, 50, 100)
)
direction_cell_eval = _metric(_direction, "de_direction_match", WORDS["de_direction_match"], GEOMETRIC)
spearman_lfc_sig_cell_eval = _metric(
    _spearman, "de_spearman_lfc_sig", WORDS["de_spearman_lfc_sig"], GEOMETRIC, lower=-1.0
)
