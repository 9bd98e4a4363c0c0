"""Scores of smoothers that need no prediction over genes: they are read off inner products of effects and truths."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from scipy import sparse

from embbench.core import PerturbationDataset
from embbench.grid.gram import gram_of
from embbench.numerics.smoothers import SCORES, Forms, quadratic

ROWS = 4096  # products of truths with effects are made for screens of up to so many rows (134 MB)


def readable(names: Collection[str], data: PerturbationDataset) -> list[str]:
    """Those of the metrics ``names`` that inner products tell on a screen: ``<l2 ...>_all`` and ``_notarget`` where
    every gene is observed. Whether a metric is among them depends on the screen alone, so its bits do too.
    """
    if data.observed is not None or len(data) > ROWS:
        return []
    return [n for n in names if n.rpartition("_")[0] in SCORES and n.rpartition("_")[2] in ("all", "notarget")]


def read_scores(
    names: Collection[str], weights: sparse.csr_matrix, data: PerturbationDataset, rows: np.ndarray, train: np.ndarray
) -> dict[str, np.ndarray]:
    """Values (m,), float64, of `readable` metrics of the predictions ``weights`` (m, n) of rows ``rows`` (m,) from
    training rows ``train`` (n,).

    References
    ----------
    Equations of `embbench.numerics.smoothers.forms_of`; a left-out gene is a correction of rank one.
    """
    forms = {"all": _forms(weights, data, rows, train)}
    if any(n.endswith("_notarget") for n in names):
        forms["notarget"] = _without_targets(forms["all"], weights, data, rows, train)
    return {n: SCORES[n.rpartition("_")[0]](forms[n.rpartition("_")[2]]) for n in names}


def _forms(weights: sparse.csr_matrix, data: PerturbationDataset, rows: np.ndarray, train: np.ndarray) -> Forms:
    shared, m, codes = gram_of(data), len(rows), data.context_codes[rows]
    dot, square = np.zeros(m), np.zeros(m)
    for code in np.unique(codes):
        some = np.flatnonzero(codes == code)
        part = weights[some]
        used = np.unique(part.indices)  # of one context's training rows, where contexts are fitted by themselves
        if len(used):
            products = shared.among(train[used]), shared.against_truth(rows[some], train[used])
            dot[some], square[some] = quadratic(part[:, used], *products)
    truth = data.truth[rows].astype(np.float64)
    own = np.einsum("mg,mg->m", truth, truth)
    genes = np.full(m, truth.shape[1])
    return Forms(dot, square, weights @ shared.totals[train], own, truth.sum(axis=1), genes)


def _without_targets(
    forms: Forms, weights: sparse.csr_matrix, data: PerturbationDataset, rows: np.ndarray, train: np.ndarray
) -> Forms:
    """The same sums without the perturbed genes of each row."""
    targets = data.rows(rows).target_columns()
    row = np.repeat(np.arange(len(rows)), [len(t) for t in targets])
    column = np.concatenate([np.zeros(0, dtype=np.int64), *targets])
    p = np.zeros(len(row))
    for k, (i, g) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
        part = slice(weights.indptr[i], weights.indptr[i + 1])
        p[k] = weights.data[part] @ data.effects[train[weights.indices[part]], g].astype(np.float64)
    t = data.truth[rows[row], column].astype(np.float64)
    lost = {name: np.bincount(row, value, len(rows)) for name, value in _terms(p, t).items()}
    return Forms(
        forms.dot - lost["dot"],
        np.maximum(forms.square - lost["square"], 0.0),
        forms.total - lost["total"],
        np.maximum(forms.own - lost["own"], 0.0),
        forms.own_total - lost["own_total"],
        forms.genes - np.bincount(row, minlength=len(rows)),
    )


def _terms(p: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    return {"dot": p * t, "square": p * p, "total": p, "own": t * t, "own_total": t}
