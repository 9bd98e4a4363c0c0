"""Blocks of several embeddings, each centred and on one scale, for heads that lay them side by side or average them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from embbench.core import Inputs


class Block(NamedTuple):
    """One embedding: features of training rows (n_train, d) and queries (n_query, d), float64, 0 where a row lacks it,
    and which rows have it.
    """

    train: np.ndarray
    query: np.ndarray
    has_train: np.ndarray
    has_query: np.ndarray


def blocks_of(train: Inputs, query: Inputs) -> list[Block]:
    """The blocks of ``train`` (one of all columns where they have no names), minus the mean over the training rows that
    have a block, divided by the root mean square norm of these rows.

    Examples
    --------
    >>> rows = Inputs(np.array([[1.0], [5.0]]), np.zeros(2, int), None, ())
    >>> blocks_of(rows, rows)[0].train.ravel().tolist()
    [-1.0, 1.0]
    """
    out = []
    named = train.blocks or (("X", slice(0, train.X.shape[1])),)
    for number, (_, where) in enumerate(named):
        has = [_has(rows, number) for rows in (train, query)]
        X = train.X[has[0], where].astype(np.float64)
        mean = X.mean(axis=0) if len(X) else np.zeros(X.shape[1])
        norm = float(np.sqrt(np.square(X - mean).sum(axis=1).mean())) if X.size else 1.0
        both = zip((train, query), has, strict=True)
        scaled = [np.where(h[:, None], (rows.X[:, where] - mean) / (norm or 1.0), 0.0) for rows, h in both]
        out.append(Block(*scaled, *has))
    return out


def _has(rows: Inputs, number: int) -> np.ndarray:
    if rows.found is None or not rows.blocks:
        return np.ones(len(rows), dtype=bool)
    return rows.found[:, number].astype(bool)
