"""DE metrics by loops over conditions with scipy and scikit-learn, tests of predicted cells included.

The table of the observed cells is the one that cell_eval_official.py wrote.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from oracles._metric_cases import Case
from oracles._metric_expected import read
from scipy import stats
from sklearn import metrics as skm

LEVEL = 0.05
Columns = Callable[[Case, int, str], np.ndarray]
Values = dict[str, list[float]]
NAN = float("nan")


def table(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Whether the observed cells are significant, and their log2 fold changes, (n, g), as cell-eval keeps them."""
    found = read("cell_eval")["cases"][case.name]["values"]["observed"]
    with np.errstate(over="ignore"):
        change = np.array(found["log2_fold_change"]).astype(np.float32)
    return np.array(found["fdr"]).astype(np.float32) < LEVEL, np.clip(change.astype(np.float64), -1e300, 1e300)


def of_effects(case: Case, cells: np.ndarray, columns: Columns) -> Values:
    """Overlap, precision, direction, rank agreement and areas of predicted effects."""
    (real, change), effects, out = table(case), case.effects(cells), {}
    for genes in ("all", "notarget"):
        kept = [columns(case, row, genes) for row in range(len(real))]
        rows = [(r[c], x[c], p[c]) for r, x, p, c in zip(real, change, effects, kept, strict=True)]
        for k in (None, 50, 100, 200):
            sizes = [int(r.sum()) if k is None else min(k, int(r.sum())) for r, _, _ in rows]
            pairs = [(top(abs(x), r, n), top(abs(p), r | True, n), r) for (r, x, p), n in zip(rows, sizes, strict=True)]
            parts = list(zip(pairs, sizes, strict=True))
            out[f"de_overlap_{k or 'n'}_effects_{genes}"] = [_share((a * b).sum(), n) for (a, b, _), n in parts]
            out[f"de_precision_{k or 'n'}_effects_{genes}"] = [_share(b[r].sum(), n) for (_, b, r), n in parts]
        out[f"de_direction_match_{genes}"] = [_direction(r, x, p) for r, x, p in rows]
        out[f"de_spearman_lfc_sig_{genes}"] = [_spearman(x[r], p[r]) for r, x, p in rows]
        scored = np.stack([np.isin(np.arange(real.shape[1]), c) for c in kept])
        within = list(zip(real.T, effects.T, scored.T, strict=True))
        for level, units in (("condition", [(r, abs(p)) for r, _, p in rows]),
                             ("gene", [(r[s], abs(p[s])) for r, p, s in within])):  # fmt: skip
            found = np.array([_areas(r, p) for r, p in units])
            for i, name in enumerate(("auroc", "auprc", "auprc_gain")):
                values = found[:, i]
                some = np.isfinite(values).any()
                mean = [float(np.nanmean(values))] if some else [NAN]
                out[f"de_{name}_{level}_{genes}"] = values.tolist() if level == "condition" else mean
    return out


def of_cells(case: Case, cells: np.ndarray, columns: Columns) -> Values:
    """The metrics of predicted cells, tested gene by gene against the case's controls."""
    (real, change), out = table(case), {}
    p = np.stack([stats.mannwhitneyu(x.astype("f8"), case.controls.astype("f8"), method="asymptotic").pvalue
                  for x in cells])  # fmt: skip
    p = np.where(np.isnan(p), 1.0, p)  # all values equal
    folds = {"": (change, _arithmetic(cells, case.controls)),
             "_cell_eval": (_geometric(case.observed, case.controls), _geometric(cells, case.controls))}  # fmt: skip
    for genes in ("all", "notarget"):
        kept = [columns(case, row, genes) for row in range(len(real))]
        fdr = [stats.false_discovery_control(q[c]).astype(np.float32) for q, c in zip(p, kept, strict=True)]
        found, true = [q < LEVEL for q in fdr], [r[c] for r, c in zip(real, kept, strict=True)]
        pairs = list(zip(true, found, strict=True))
        out[f"de_sig_recall_cells_{genes}"] = [_share((t & f).sum(), t.sum()) for t, f in pairs]
        score = [-np.log10(np.clip(q.astype(np.float64), 1e-10, 1.0)) for q in fdr]
        areas = [_areas(t, s) for t, s in zip(true, score, strict=True)]
        out[f"de_auroc_cells_{genes}"] = [a[0] for a in areas]
        out[f"de_auprc_cells_{genes}"] = [a[1] for a in areas]
        counts = np.array([(f.sum(), t.sum()) for t, f in pairs if t.any()])
        out[f"de_spearman_sig_cells_{genes}"] = [_spearman(*counts.T)] * len(real)
        for form, (theirs, ours) in folds.items():
            rows = [(t, f, x[c], y[c]) for (t, f), x, y, c in zip(pairs, theirs, ours, kept, strict=True)]
            out |= {f"{name}{form}_{genes}": values for name, values in _tops(rows, shared=not form).items()}
            out[f"de_direction_match_cells{form}_{genes}"] = [_direction(t, x, y) for t, _, x, y in rows]
            out[f"de_spearman_lfc_sig_cells{form}_{genes}"] = [_spearman(x[t], y[t]) for t, _, x, y in rows]
    return out


def _tops(rows: list[tuple[np.ndarray, ...]], *, shared: bool) -> Values:
    """Overlap and precision at N, 50 and 100; without a hit NaN, or 0 as cell-eval has it."""
    out = {}
    for kind in ("overlap", "precision"):
        for k in (None, 50, 100):
            values = []
            for true, found, x, y in rows:
                n = int((true if kind == "overlap" else found).sum())
                n = n if k is None else min(k, n)
                hits = (top(abs(x), true, n, shared=shared) * top(abs(y), found, n, shared=shared)).sum()
                values.append(NAN if shared and not true.any() else hits / n if n else 0.0)
            out[f"de_{kind}_{k or 'n'}_cells"] = values
    return out


def top(size: np.ndarray, among: np.ndarray, k: int, *, shared: bool = True) -> np.ndarray:
    """Membership of the k largest; equal ones at the border share the places left, or go to the smaller column."""
    chosen = np.zeros(len(size))
    order = sorted(np.flatnonzero(among).tolist(), key=lambda g: (-size[g], g))
    k = min(k, len(order))
    chosen[order[:k]] = 1.0
    if shared and k:
        level = [g for g in order if size[g] == size[order[k - 1]]]
        chosen[level] = (k - sum(size[g] > size[order[k - 1]] for g in order)) / len(level)
    return chosen


def _arithmetic(cells: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """log2 ratio of mean counts per million, pseudocount 1."""
    means = [np.expm1(z.astype(np.float64)).mean(axis=-2) * 100 + 1 for z in (cells, controls)]
    return np.log2(means[0] / means[1])


def _geometric(cells: np.ndarray, controls: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        ratio = [np.log2(np.expm1(z.astype(np.float64).mean(axis=-2))) for z in (cells, controls)]
    return np.clip(ratio[0] - ratio[1], -1e300, 1e300)


def _share(hits: float, n: int) -> float:
    return float(hits / n) if n else NAN


def _direction(real: np.ndarray, change: np.ndarray, pred: np.ndarray) -> float:
    return _share((np.sign(change[real]) == np.sign(pred[real])).sum(), real.sum())


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.spearmanr(a, b).statistic) if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0 else NAN


def _areas(real: np.ndarray, size: np.ndarray) -> tuple[float, float, float]:
    if not 0 < real.sum() < len(real):
        return NAN, NAN, NAN
    precision = skm.average_precision_score(real, size)
    return skm.roc_auc_score(real, size), precision, (precision - real.mean()) / (1 - real.mean())
