"""Agreement of class probabilities with DE labels (down, none, up), within conditions and within genes.

Macro: the plain mean over the classes that count in the condition or gene. The predicted class is `decided`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from embbench.core import Metric, Truth
from embbench.metrics._per_gene import by_gene
from embbench.numerics import areas

CLASSES = (-1, 0, 1)  # order of the last axis of the probabilities
BLOCK = 1 << 20  # entries (rows x genes) of a block

Area = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Areas = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Share = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def decided(pred: np.ndarray) -> np.ndarray:
    """Predicted classes (n, g) in -1, 0, 1 of probabilities (n, g, 3): the most probable; every tie is 0 (none).

    Examples
    --------
    >>> decided(np.array([[[0.5, 0.4, 0.1], [0.4, 0.4, 0.2], [0.4, 0.2, 0.4]]])).tolist()
    [[-1, 0, 0]]
    """
    down, none, up = (pred[..., i] for i in range(3))
    return (up > np.maximum(down, none)).astype(np.int8) - (down > np.maximum(up, none))


def precision(hit: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Hits / entries predicted to be of the class; 0 where none is."""
    return hit / np.maximum(said, 1)


def recall(hit: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Hits / entries truly of the class (counts of any one shape)."""
    return hit / np.maximum(true, 1)


def f1(hit: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """2 hits / (predicted + true): the harmonic mean of precision and recall, 0 without a hit."""
    return 2 * hit / np.maximum(said + true, 1)


def _condition_counts(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, share: Share) -> np.ndarray:
    """Mean of the share over the classes that the condition's tested genes truly have."""
    labels, scored = _labels(truth, mask)
    out = np.empty(len(pred))
    for rows in _blocks(len(pred), mask.shape[1]):
        guess = decided(pred[rows])
        values = []
        for c in CLASSES:
            said, true = (guess == c) & scored[rows], (labels[rows] == c) & scored[rows]
            counts = [x.sum(axis=1) for x in (said & true, said, true)]
            values.append(np.where(counts[2] > 0, share(*counts), np.nan))
        out[rows] = _macro(values)
    return out


def _gene_counts(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, share: Share) -> np.ndarray:
    """Mean of the share over the classes that the gene truly has in the context's conditions that test it."""
    labels, scored = _labels(truth, mask)

    def part(rows: np.ndarray, genes: slice) -> tuple[np.ndarray, np.ndarray]:
        guess, known, actual = decided(pred[rows, genes]), scored[rows, genes], labels[rows, genes]
        whole, without = [], []
        for c in CLASSES:
            said, true = (guess == c) & known, (actual == c) & known
            own = [x.astype(np.int64) for x in (said & true, said, true)]
            counts = [x.sum(axis=0) for x in own]
            whole.append(np.where(counts[2] > 0, share(*counts), np.nan))
            left = [total - x for total, x in zip(counts, own, strict=True)]
            without.append(np.where(left[2] > 0, share(*left), np.nan))
        return _macro(whole), _macro(without).T

    return by_gene(scored, truth.context, part)


def _condition_area(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, area: Area) -> np.ndarray:
    """Mean of the area over the classes that some of the condition's tested genes have and some have not."""
    labels, scored = _labels(truth, mask)
    out = np.empty(len(pred))
    for rows in _blocks(len(pred), mask.shape[1]):
        known, values = scored[rows], []
        for i, c in enumerate(CLASSES):
            true = labels[rows] == c
            mixed = (true & known).any(axis=1) & (~true & known).any(axis=1)
            values.append(np.where(mixed, area(pred[rows, :, i], true, known), np.nan))
        out[rows] = _macro(values)
    return out


def _gene_area(pred: np.ndarray, truth: Truth, mask: np.ndarray, *, area: Areas) -> np.ndarray:
    """Mean of the area over the classes that the gene has in some of the context's tested conditions, not in all."""
    labels, scored = _labels(truth, mask)

    def part(rows: np.ndarray, genes: slice) -> tuple[np.ndarray, np.ndarray]:
        known, actual = (np.ascontiguousarray(x[rows, genes].T) for x in (scored, labels))
        whole, without = [], []
        for i, c in enumerate(CLASSES):
            true = (actual == c) & known
            value, left = area(np.ascontiguousarray(pred[rows, genes, i].T), true, known)
            others = known & ~true
            p, q = true.sum(axis=1, keepdims=True), others.sum(axis=1, keepdims=True)
            whole.append(np.where((p > 0) & (q > 0), value[:, None], np.nan)[:, 0])
            without.append(np.where((p > true) & (q > others), left, np.nan))
        return _macro(whole), _macro(without)

    return by_gene(scored, truth.context, part)


def _labels(truth: Truth, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scored entries, (n, g): in the gene set and tested."""
    if truth.labels is None or truth.labels_tested is None:
        raise ValueError("label metrics need labels and labels_tested, found none")
    return truth.labels, mask & truth.labels_tested


def _blocks(n: int, g: int) -> list[slice]:
    step = max(1, BLOCK // max(1, g))
    return [slice(start, start + step) for start in range(0, n, step)]


def _macro(values: list[np.ndarray]) -> np.ndarray:
    """Mean over classes where defined, NaN where none is; a stack of arrays of one shape."""
    stack = np.stack(values)
    count = np.isfinite(stack).sum(axis=0)
    return np.divide(np.nansum(stack, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


WHERE = {
    "condition": "Over the tested genes of a condition",
    "gene": "Of each gene over the tested conditions of a fold and context, then the mean over genes where defined; it "
    "depends on how many conditions a fold holds, so only scores of one split compare (row "
    "values are its linearisation: their mean over fold and context is the score, one of them may leave 0..1)",
}
COUNTED = (
    "The predicted class is the most probable, every tie is none. Classes absent from the truth of the {where} are "
    "left out (to predict them costs the others recall); precision of a class that is never predicted is 0."
)
RANKED = "A class counts where the {where} has tested entries of it and of others; equal probabilities are ties."


def _metric(fn: Callable[..., np.ndarray], level: str, what: str, rules: str, source: str) -> Metric:
    return Metric(
        fn,
        best="high",
        source=source,
        lower=0.0,
        upper=1.0,
        target="labels",
        level=level,
        needs=("labels", "labels_tested"),
        about=f"{WHERE[level]}: {what}, macro mean over down, none, up. {rules.format(where=level)}",
    )


def _hard(share: Share, level: str, what: str, name: str) -> Metric:
    fn = partial({"condition": _condition_counts, "gene": _gene_counts}[level], share=share)
    source = f"scikit-learn {name} (average macro, labels = the classes present, zero_division 0)"
    return _metric(fn, level, what, COUNTED, f"{source}; Sokolova and Lapalme (2009), Inf. Process. Manag. 45:427")


F1, PRECISION, RECALL = "2 hits / (predicted + true)", "hits / predicted", "hits / true"
f1_macro_condition = _hard(f1, "condition", F1, "f1_score")
f1_macro_gene = _hard(f1, "gene", F1, "f1_score")
precision_macro_condition = _hard(precision, "condition", PRECISION, "precision_score")
precision_macro_gene = _hard(precision, "gene", PRECISION, "precision_score")
recall_macro_condition = _hard(recall, "condition", RECALL, "recall_score")
recall_macro_gene = _hard(recall, "gene", RECALL, "recall_score")

AUROC = "one-vs-rest P(the class's probability is higher for a member) + P(tie) / 2"
ONE_VS_REST = "Provost and Domingos (2003), class areas; Fawcett (2006), Pattern Recognition Letters 27:861, section 9"
auroc_condition = _metric(partial(_condition_area, area=areas.auroc), "condition", AUROC, RANKED, ONE_VS_REST)
auroc_gene = _metric(partial(_gene_area, area=areas.auroc_without_each), "gene", AUROC, RANKED, ONE_VS_REST)

AP = "one-vs-rest sum over thresholds of recall gained x precision there (chance: the class's share)"
STEPS = "scikit-learn average_precision_score; Manning, Raghavan and Schütze (2008), section 8.4"
ap_condition = _metric(partial(_condition_area, area=areas.average_precision), "condition", AP, RANKED, STEPS)
ap_gene = _metric(partial(_gene_area, area=areas.average_precision_without_each), "gene", AP, RANKED, STEPS)
