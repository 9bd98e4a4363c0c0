"""Linear smoothers: heads whose prediction is ``weights(train, query) @ Y_train``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from scipy import sparse

from embbench.core import HeadDefaults, Inputs
from embbench.numerics.smoothers import Weights


class Smoother(HeadDefaults):
    """Turns ``weights`` into ``fit`` and ``predict``; at fixed hyper-parameters the weights never read ``Y``.

    References
    ----------
    Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, section 5.4.1 (smoother matrices).

    Examples
    --------
    >>> class Sum(Smoother):
    ...     def weights(self, train, query):
    ...         return np.ones((len(query), len(train)))
    >>> rows = Inputs(np.zeros((2, 0)), np.zeros(2, int), sparse.eye(2), ((0,), (1,)))
    >>> Sum().fit(rows, np.array([[1.0], [2.0]])).predict(rows).tolist()
    [[3.0], [3.0]]
    """

    def weights(self, train: Inputs, query: Inputs) -> np.ndarray | sparse.csr_matrix:
        """Smoother matrix, shape (n_query, n_train), dense or CSR, float64."""
        raise NotImplementedError(f"{type(self).__name__} must implement weights")

    @classmethod
    def path(cls, heads: Sequence[Self], train: Inputs, query: Inputs) -> Iterator[Weights]:
        """Weights (n_query, n_train) of several settings of this class on the same rows, in order: the same bits as one
        by one. Classes that can share work (one neighbour search, one eigendecomposition) override it and say so by
        the form of their weights (`Neighbours`, `Spectral`), which share it when they are scored too.
        """
        for head in heads:
            yield head.weights(train, query)

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Keep the training rows: inputs (n, ...) and effects ``Y`` of shape (n, g); ``observed`` is not used, since
        unobserved entries of ``Y`` come filled.

        Raises
        ------
        ValueError
            ``Y`` has another number of rows than ``inputs``, or there is no training row.
        """
        check_rows(self, inputs, Y)
        # Cells may hold open files, which do not pickle, and no smoother reads them.
        self.train_, self.Y_ = replace(inputs, cells=None), Y
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "train_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        return np.asarray(self.weights(self.train_, inputs) @ self.Y_.astype(np.float64, copy=False), dtype=np.float32)


def check_rows(head: object, inputs: Inputs, Y: np.ndarray) -> None:
    """Training inputs and effects must have the same, positive number of rows; the ValueError names head and shapes.

    Examples
    --------
    >>> rows = Inputs(np.zeros((2, 0)), np.zeros(2, int), sparse.eye(2), ((0,), (1,)))
    >>> check_rows(Smoother(), rows, np.zeros((3, 4)))
    Traceback (most recent call last):
    ValueError: Smoother.fit: expected one row of Y per training row, found Y (3, 4), 2 rows
    """
    if Y.ndim != 2 or len(Y) != len(inputs) or not len(Y):
        name = type(head).__name__
        raise ValueError(f"{name}.fit: expected one row of Y per training row, found Y {Y.shape}, {len(inputs)} rows")


def positive(head: str, **values: float) -> None:
    """Hyper-parameters that must be finite and above 0; the ValueError names head, parameter and value.

    Examples
    --------
    >>> positive("Ridge", alpha=-1)
    Traceback (most recent call last):
    ValueError: Ridge: alpha must be > 0, got -1
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
            raise ValueError(f"{head}: {name} must be > 0, got {value!r}")


def whole(head: str, **values: int) -> None:
    """Hyper-parameters that must be whole numbers of at least 1; the ValueError names head, parameter and value.

    Examples
    --------
    >>> whole("KNN", k=0)
    Traceback (most recent call last):
    ValueError: KNN: k must be a whole number >= 1, got 0
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{head}: {name} must be a whole number >= 1, got {value!r}")
