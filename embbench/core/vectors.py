"""Frozen vectors: an embedding table, and what computes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from embbench.core.screen import PerturbationDataset


@dataclass(frozen=True)
class Embedding:
    """A table name -> vector, or (name, context) -> vector. A missing name is absent, never a zero vector.

    Parameters
    ----------
    names : shape (m,), str; unique, or unique together with ``contexts``.
    matrix : shape (m, d), float, every value finite.
    entity : ``gene``, ``compound``, ``context``, ``cell`` or ``any``.
    contexts : shape (m,), str or None: the context of each vector for embeddings with one tensor per context.
    provenance : JSON-able facts: source, licence, what information it holds, whether query controls were used.
    count : shape (m,), float64 or None: cells that a vector is the mean of.

    Examples
    --------
    >>> Embedding(np.array(["TP53"]), np.zeros((2, 3)))
    Traceback (most recent call last):
        ...
    ValueError: embedding: 1 names need a (1, d) matrix, found (2, 3)
    """

    names: np.ndarray
    matrix: np.ndarray
    entity: str = "gene"
    contexts: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    count: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.names):
            raise ValueError(
                f"embedding: {len(self.names)} names need a ({len(self.names)}, d) matrix, found {self.matrix.shape}"
            )
        if self.count is not None and self.count.shape != (len(self.names),):
            raise ValueError(f"embedding: count must have shape ({len(self.names)},), found {self.count.shape}")
        if not np.isfinite(self.matrix).all():
            bad = self.names[~np.isfinite(self.matrix).all(axis=1)][:3].tolist()
            raise ValueError(
                f"embedding: vectors must be finite (leave missing names out), found non-finite ones, e.g. {bad}"
            )
        keys = self._keys()
        if len(set(keys)) != len(keys):
            raise ValueError(f"embedding: names must be unique, found {len(keys) - len(set(keys))} repeats")

    def _keys(self) -> list[Any]:
        names = self.names.tolist()
        return names if self.contexts is None else list(zip(names, self.contexts.tolist(), strict=True))

    def lookup(self, names: Sequence[str], contexts: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of shape (len(names), d), float32, NaN where missing, and the mask of found names.

        Examples
        --------
        >>> table = Embedding(np.array(["A"]), np.ones((1, 2), np.float32))
        >>> table.lookup(["A", "B"])[1].tolist()
        [True, False]
        """
        where = {key: i for i, key in enumerate(self._keys())}
        wanted: Sequence[Any] = names
        if self.contexts is not None:
            if contexts is None:
                raise ValueError(
                    f"embedding has one vector per context; lookup of {len(names)} names needs their contexts"
                )
            wanted = list(zip(names, contexts, strict=True))
        rows = np.array([where.get(key, -1) for key in wanted], dtype=np.int64)
        found = rows >= 0
        out = np.full((len(rows), self.matrix.shape[1]), np.nan, dtype=np.float32)
        out[found] = self.matrix[rows[found]]
        return out, found


class Extractor(Protocol):
    """Computes an `Embedding`. The constructor takes parameters only and validates them.

    Class attributes: ``entity`` (gene, compound, context, any); ``reads`` (subset of ``{"controls", "effects",
    "truth"}``; empty means static: computed once for all datasets); ``names_matter`` (True when the table depends on
    which names are asked for, e.g. one-hot); ``needs_cells``; ``oracle`` (sees the truth of test rows).
    """

    entity: ClassVar[str]
    reads: ClassVar[frozenset[str]]
    names_matter: ClassVar[bool]

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d) for ``names`` (None: all that the source knows); ``train`` is None when static."""
        ...


class ContextExtractor(Extractor, Protocol):
    """An extractor whose tensors are one per context (``by_context`` is True): made once each, pooled at use."""

    def codes(self, train: PerturbationDataset) -> list[int]:
        """The contexts whose tensors `pool` needs."""
        ...

    def one_context(self, train: PerturbationDataset, code: int) -> Embedding:
        """The vectors of one context, from its own half-A control cells alone."""
        ...

    def pool(
        self, tables: Mapping[str, Embedding], names: Sequence[str] | None, train: PerturbationDataset
    ) -> Embedding:
        """One table from those of the contexts of `codes`, by name."""
        ...


class ExtractorDefaults:
    """Class attributes of the common extractor; no behaviour."""

    entity: ClassVar[str] = "gene"
    reads: ClassVar[frozenset[str]] = frozenset()
    names_matter: ClassVar[bool] = False
    needs_names: ClassVar[bool] = False  # True: has no vocabulary of its own (random), so names must be given
    needs_cells: ClassVar[bool] = False
    oracle: ClassVar[bool] = False  # True: sees the truth of test rows; named oracle_*, drawn apart, never ranked
    unkeyed: ClassVar[frozenset[str]] = frozenset()  # parameters that move numbers by rounding only (device, batch)
    by_context: bool = False  # True: has `one_context` and `pool`, so that each context's tensor is cached by itself
