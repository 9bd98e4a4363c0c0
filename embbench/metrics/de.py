"""Do predicted effects find the differentially expressed genes? Overlap, precision, direction, areas, rank agreement.

The truth is the DE table against control half B: genes tested there and scored by the metric; significant ones are
below its level. Predicted effects carry no p value, so their size |effect| ranks the genes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from embbench.core import Metric, Truth
from embbench.metrics._de import AREAS, above_chance, area_condition, direction_match, judged, spearman_significant, top
from embbench.metrics._per_gene import by_gene
from embbench.metrics._rows import ratio
from embbench.numerics import areas

LEAVE_ONE_OUT = {"auroc": areas.auroc_without_each, "auprc": areas.average_precision_without_each}


def _overlap(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, k: int | None) -> np.ndarray:
    """Significant genes with the k_eff largest |log2fc| that are among the k_eff largest |prediction|, over k_eff."""
    table = judged(truth, mask)
    size = table.count if k is None else np.minimum(k, table.count)
    real = top(np.abs(table.change), table.significant, size)
    found = top(np.abs(pred.astype(np.float64)), table.scored, size)
    return ratio((real * found).sum(axis=1), size)


def _precision(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, k: int | None) -> np.ndarray:
    """Share of significant genes among the k_eff genes with the largest |prediction|."""
    table = judged(truth, mask)
    size = table.count if k is None else np.minimum(k, table.count)
    found = top(np.abs(pred.astype(np.float64)), table.scored, size)
    return ratio((found * table.significant).sum(axis=1), size)


def _direction(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """Share of a condition's significant genes whose predicted effect has the sign of the true log2fc.

    A prediction of 0 is a miss. NaN without a significant gene. Chance: 0.5 for random signs; no change scores 0.
    """
    return direction_match(pred, judged(truth, mask))


def _spearman(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """Spearman correlation of predicted effect and true log2fc over a condition's significant genes, mid-ranks.

    NaN with fewer than two of them or when either is constant. Chance: 0.
    """
    return spearman_significant(pred.astype(np.float64), judged(truth, mask))


def _condition(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, area: str, gain: bool = False) -> np.ndarray:
    """The area of |prediction| for significant against other tested genes of the condition."""
    return area_condition(np.abs(pred), judged(truth, mask), AREAS[area], gain=gain)


def _gene(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, area: str, gain: bool = False) -> np.ndarray:
    """The area of |prediction| of a gene for the context's conditions that change it against those that do not."""
    table = judged(truth, mask)

    def part(rows: np.ndarray, genes: slice) -> tuple[np.ndarray, np.ndarray]:
        kept, positive = (np.ascontiguousarray(x[rows, genes].T) for x in (table.scored, table.significant))
        score = np.where(kept, np.abs(np.ascontiguousarray(pred[rows, genes].T)), 0.0)
        value, left = LEAVE_ONE_OUT[area](score, positive, kept)
        n, hits = kept.sum(axis=1, keepdims=True), positive.sum(axis=1, keepdims=True)
        value = _both(value[:, None], hits, n, gain=gain)[:, 0]
        return value, _both(left, hits - positive, n - kept, gain=gain)

    return by_gene(table.scored, truth.context, part)


def _both(value: np.ndarray, hits: np.ndarray, n: np.ndarray, *, gain: bool) -> np.ndarray:
    """Areas where there are positives and others, NaN elsewhere."""
    value = np.where((hits > 0) & (hits < n), value, np.nan)
    return above_chance(value, hits, n) if gain else value


def _metric(fn: Callable[..., np.ndarray], source: str, about: str = "", lower: float = 0.0, **more: Any) -> Metric:
    return Metric(fn, best="high", source=source, about=about, needs=("de",), **{"lower": lower, "upper": 1.0, **more})


CELL_EVAL = "cell-eval 0.8.2 (Arc Institute)"
EFFECTS = "applied to effects without p values: all tested genes are ranked by |predicted effect|, ties sharing places"
AT_N = "k_eff = N, the number of significant genes of the condition"
AT_K = "k_eff = min({k}, N), N = number of significant genes of the condition"
OVERLAP = (
    "|real & predicted| / k_eff: real = the k_eff significant genes with the largest |log2fc|, predicted = the k_eff "
    "tested genes with the largest |predicted effect|; {size}. NaN for N = 0. Chance: k_eff / tested genes."
)
PRECISION = (
    "share of significant genes among the k_eff tested genes with the largest |predicted effect|; {size} (so that 1 "
    "can be reached; at k_eff = N it is the overlap). NaN for N = 0. Chance: N / tested genes."
)


def _at(fn: Callable[..., np.ndarray], words: str, k: int | None) -> Metric:
    name = "overlap_at" if fn is _overlap else "precision_at"
    size = AT_N if k is None else AT_K.format(k=k)
    source = f"{CELL_EVAL} {name}_{k or 'N'}, {EFFECTS}"
    return _metric(partial(fn, k=k), source, words.format(size=size))


overlap_n = _at(_overlap, OVERLAP, None)
overlap_50 = _at(_overlap, OVERLAP, 50)
overlap_100 = _at(_overlap, OVERLAP, 100)
overlap_200 = _at(_overlap, OVERLAP, 200)
precision_n = _at(_precision, PRECISION, None)
precision_50 = _at(_precision, PRECISION, 50)
precision_100 = _at(_precision, PRECISION, 100)
precision_200 = _at(_precision, PRECISION, 200)
direction = _metric(_direction, f"{CELL_EVAL} de_direction_match, on predicted effects")
spearman_lfc_sig = _metric(_spearman, f"{CELL_EVAL} de_spearman_lfc_sig, on predicted effects", lower=-1.0)

WHERE = {
    "condition": "Over the tested genes of a condition",
    "gene": "Of each gene over the tested conditions of a fold and context, then the mean over genes where defined; it "
    "depends on how many conditions a fold holds, so only scores of one split compare (row values "
    "are its linearisation: their mean over fold and context is the score, one of them may leave the range 0 to 1)",
}
WHAT = {
    "auroc": "P(|prediction| is larger for a significant than for another entry) + P(tie) / 2. Chance: 0.5.",
    "auprc": "sum over thresholds of recall gained x precision there, of |prediction| for the significant entries. "
    "Chance: their share among the tested entries, another one in every {level}.",
    "gain": "(AP - share) / (1 - share): average precision AP of |prediction| for the significant entries above their "
    "share, which is what chance scores. Chance: 0 (a little above it in small {level}s).",
}
AREA_SOURCE = {
    "auroc": "Hanley and McNeil (1982), Radiology 143:29, equation 1; scikit-learn roc_auc_score",
    "auprc": "Manning, Raghavan and Schütze (2008), Introduction to Information Retrieval, section 8.4; scikit-learn "
    "average_precision_score",
    "gain": "average precision as scikit-learn; above chance as Cohen (1960), Educ. Psychol. Meas. 20:37, equation 1",
}


def _area(kind: str, level: str) -> Metric:
    gain, area = kind == "gain", "auroc" if kind == "auroc" else "auprc"
    fn = partial({"condition": _condition, "gene": _gene}[level], area=area, gain=gain)
    text = f"{WHERE[level]}: {WHAT[kind].format(level=level)} NaN unless some entries are significant and some are not."
    bounds = {"lower": -np.inf} if gain else {}
    return _metric(fn, AREA_SOURCE[kind], text, level=level, **bounds)


auroc_condition = _area("auroc", "condition")
auprc_condition = _area("auprc", "condition")
auprc_gain_condition = _area("gain", "condition")
auroc_gene = _area("auroc", "gene")
auprc_gene = _area("auprc", "gene")
auprc_gain_gene = _area("gain", "gene")
