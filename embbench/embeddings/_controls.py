"""Shared by extractors that read control cells: within-context covariances, per context or pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from embbench.core import CellView, Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._rows import check_dim, generator, pick, text_array

CHUNK = 1000
MODES = ("pooled", "per_context")


class ControlExtractor(ExtractorDefaults):
    """Gene vectors from the covariance of half-A control cells; a subclass turns a covariance into vectors.

    A gene has a vector when it is measured and varies over the cells used.

    Parameters
    ----------
    mode : ``pooled``: one table from the within-context covariance over the contexts of the training rows;
        ``per_context``: one table per context with open controls, each from its own cells (its axes are its own:
        coordinates of two contexts are not comparable).
    dim : largest width.
    max_cells : cells used per context; a seeded subset when there are more.
    seed : seed of that subset.

    Examples
    --------
    >>> ControlExtractor(max_cells=1)
    Traceback (most recent call last):
    ValueError: ControlExtractor: max_cells must be >= 2, got 1
    """

    reads: ClassVar[frozenset[str]] = frozenset({"controls"})
    needs_cells: ClassVar[bool] = True

    def __init__(self, mode: str = "pooled", dim: int = 100, max_cells: int = 5000, seed: int = 0) -> None:
        name = type(self).__name__
        if mode not in MODES:
            raise ValueError(f"{name}: mode must be one of {', '.join(MODES)}, got {mode!r}")
        if max_cells < 2:
            raise ValueError(f"{name}: max_cells must be >= 2, got {max_cells}")
        self.mode, self.dim, self.max_cells, self.seed = mode, check_dim(name, dim), max_cells, int(seed)
        self.joins_contexts = mode == "pooled"

    def vectors(self, covariance: np.ndarray) -> np.ndarray:
        """Vectors of shape (m, k), k <= dim, of genes with a covariance of shape (m, m) and positive variances."""
        raise NotImplementedError(f"{type(self).__name__} must implement vectors")

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, k), float32, of the asked genes that are measured and vary (None: all such genes).

        Raises
        ------
        UserError
            No control cells, or no context with two different ones.
        """
        if train is None or train.cells is None:
            found = "no dataset" if train is None else f"dataset {train.name!r} without cells"
            raise UserError(f"{type(self).__name__} needs control cells, found {found}; import the screen from cells")
        rows = set(train.context_codes.tolist())
        pooled = self.mode == "pooled"
        groups = (
            [[code for code in _open_codes(train) if code in rows]] if pooled else [[c] for c in _open_codes(train)]
        )
        tables = [(codes, table) for codes in groups if (table := self._table(names, train, codes)) is not None]
        if not tables:
            tried = [train.contexts[code] for codes in groups for code in codes]
            raise UserError(
                f"{type(self).__name__} needs control cells, expected two different ones in a context, found none in "
                f"{tried} of {train.name!r}"
            )
        facts = {"uses_query_controls": not pooled, "holds": "controls", "max_cells": self.max_cells}
        if pooled:
            codes, table = tables[0]
            return replace(table, provenance={**facts, "contexts": [train.contexts[code] for code in codes]})
        width = max(table.matrix.shape[1] for _, table in tables)
        # a context of smaller rank has singular value 0 on the further axes
        padded = [np.pad(table.matrix, ((0, 0), (0, width - table.matrix.shape[1]))) for _, table in tables]
        where = [train.contexts[codes[0]] for codes, table in tables for _ in range(len(table.names))]
        every = np.concatenate([table.names for _, table in tables])
        return Embedding(every, np.concatenate(padded), self.entity, text_array(where), facts)

    def _table(self, names: Sequence[str] | None, train: PerturbationDataset, codes: list[int]) -> Embedding | None:
        covariance = control_covariance(train, codes, self.max_cells, self.seed)
        varies = np.array([], int) if covariance is None else np.flatnonzero(np.diag(covariance) > 0)
        if covariance is None or not len(varies):
            return None
        matrix = self.vectors(covariance[np.ix_(varies, varies)])
        return pick(names, train.genes[varies].tolist(), matrix, self.entity, {})


def control_covariance(train: PerturbationDataset, codes: list[int], max_cells: int, seed: int) -> np.ndarray | None:
    """Covariance of shape (g, g), float64, of half-A control cells within contexts, each centred by its own mean.

    Cells are read one context at a time and multiplied in chunks; None when no context has two cells.

    Parameters
    ----------
    train : dataset with cells, g genes.
    codes : contexts to read.
    max_cells, seed : seeded subset of a context's cells; it depends on the context's name, not on the other contexts.
    """
    scatter = np.zeros((len(train.genes), len(train.genes)))
    freedom = 0
    for code in codes:
        cells = train.cells.controls(code)  # type: ignore[union-attr]
        if len(cells) > max_cells:
            stream = generator("controls", seed, train.contexts[code])
            cells = cells[np.sort(stream.choice(len(cells), max_cells, replace=False))]
        if len(cells) < 2:
            continue
        mean = cells.mean(axis=0, dtype=np.float64)
        # a constant gene may keep rounding noise after centring: its variance is exactly 0
        mean = np.where((cells == cells[0]).all(axis=0), cells[0], mean)
        for start in range(0, len(cells), CHUNK):
            block = cells[start : start + CHUNK] - mean
            scatter += block.T @ block
        freedom += len(cells) - 1
    return scatter / freedom if freedom else None


def _open_codes(train: PerturbationDataset) -> list[int]:
    closed = isinstance(train.cells, CellView) and train.cells.contexts is not None
    codes = range(len(train.contexts))
    return [code for code in codes if code in train.cells.contexts] if closed else list(codes)  # type: ignore
