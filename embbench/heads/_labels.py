"""Shared by label heads: what labels look like, their frequencies, and an expected label for those who ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from embbench.core import HeadDefaults, Inputs
from embbench.heads._smoother import check_rows

CLASSES = (-1, 0, 1)  # down, none, up: the order of the last axis of probabilities


class LabelHead(HeadDefaults):
    """A head of DE labels: `predict_proba` gives (n, g, 3) probabilities of down, none and up.

    Examples
    --------
    >>> class Up(LabelHead):
    ...     def predict_proba(self, inputs):
    ...         return np.tile(np.array([0.0, 0.5, 0.5], np.float32), (len(inputs), 1, 1))
    >>> Up().predict(Inputs(np.zeros((1, 0)), np.zeros(1, int), None, ((0,),))).tolist()
    [[0.5]]
    """

    targets: ClassVar[tuple[str, ...]] = ("labels",)

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """Probabilities (n, g, 3) of down, none, up, float32; RuntimeError before ``fit``."""
        raise NotImplementedError(f"{type(self).__name__} must implement predict_proba")

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Expected label P(up) - P(down), shape (n, g), float32."""
        proba = self.predict_proba(inputs)
        return proba[:, :, 2] - proba[:, :, 0]


class ConstantLabels(LabelHead):
    """Label heads that say the same of every row: ``fit`` sets ``table_``, probabilities (g, 3) float32."""

    needs_embedding = False
    table_: np.ndarray

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """Probabilities (n, g, 3) of down, none, up, float32; RuntimeError before ``fit``."""
        if not hasattr(self, "table_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        return np.repeat(self.table_[None], len(inputs), axis=0)


def known_labels(
    head: object, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, g) int8, 0 where untested, and the tested mask (n, g).

    Raises
    ------
    ValueError
        ``Y`` or the mask has another shape than the training rows, or a tested label is not -1, 0 or 1.

    Examples
    --------
    >>> rows = Inputs(np.zeros((1, 0)), np.zeros(1, int), None, ((0,),))
    >>> known_labels(None, rows, np.array([[1.0, 7.0]]), np.array([[True, False]]))[0].tolist()
    [[1, 0]]
    """
    check_rows(head, inputs, Y)
    tested = np.ones(Y.shape, dtype=bool) if observed is None else observed.astype(bool)
    name = type(head).__name__
    if tested.shape != Y.shape:
        raise ValueError(f"{name}.fit: the tested mask must be {Y.shape} like the labels, found {tested.shape}")
    strange = tested & ~np.isin(Y, CLASSES)
    if strange.any():
        found = np.unique(Y[strange])[:5].tolist()
        raise ValueError(
            f"{name}.fit: labels must be -1 (down), 0 (none) or 1 (up), found {found}; choose target labels"
        )
    return np.where(tested, Y, 0).astype(np.int8), tested


def class_counts(labels: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Tested rows of each class, (g, 3) int64, of labels (n, g).

    Examples
    --------
    >>> class_counts(np.array([[1], [0], [1]]), np.array([[True], [True], [False]])).tolist()
    [[0, 1, 1]]
    """
    return np.stack([((labels == c) & tested).sum(axis=0) for c in CLASSES], axis=1)


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Class shares (g, 3) float64 of counts (g, 3); a third each where nothing was counted.

    Examples
    --------
    >>> frequencies(np.array([[1, 3, 0], [0, 0, 0]])).round(2).tolist()
    [[0.25, 0.75, 0.0], [0.33, 0.33, 0.33]]
    """
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full(counts.shape, 1 / len(CLASSES)), where=total > 0)


def gene_blocks(genes: int, per_gene: int, budget: int) -> Iterator[slice]:
    """Slices of genes such that ``per_gene`` numbers each stay within ``budget`` numbers a block (one gene at least).

    Examples
    --------
    >>> [(part.start, part.stop) for part in gene_blocks(5, per_gene=10, budget=25)]
    [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, budget // max(1, per_gene))
    for start in range(0, genes, step):
        yield slice(start, min(start + step, genes))
