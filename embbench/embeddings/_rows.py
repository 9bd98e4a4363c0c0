"""Small shared steps of extractors: choosing the rows that were asked for, and random streams by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import Embedding, UserError


def text_array(values: Sequence[str]) -> np.ndarray:
    """Unicode array of shape (m,), also for m = 0."""
    return np.array(list(values), dtype=str) if len(values) else np.array([], dtype="<U1")


def required(names: Sequence[str] | None, extractor: str) -> list[str]:
    """Distinct ``names`` in the order given, for extractors that know no names of their own; UserError for None.

    Examples
    --------
    >>> required(["MYC", "TP53", "MYC"], "random")
    ['MYC', 'TP53']
    """
    if names is None:
        raise UserError(f"{extractor} knows no names of its own, expected a list of names, found None; give a dataset")
    return list(dict.fromkeys(names))


def pick(
    names: Sequence[str] | None,
    known: Sequence[str] | np.ndarray,
    matrix: np.ndarray,
    entity: str,
    provenance: Mapping[str, Any],
) -> Embedding:
    """The embedding of the asked names that are known, in the order asked (all known names for None).

    Parameters
    ----------
    names : names asked for; repeats are dropped.
    known : (m,) names of the rows of ``matrix``, unique.
    matrix : of shape (m, d), finite.
    entity, provenance : see `Embedding`.

    Returns
    -------
    Embedding with a float32 matrix.

    Examples
    --------
    >>> pick(["B", "X"], ["A", "B"], np.eye(2), "gene", {}).matrix.tolist()
    [[0.0, 1.0]]
    """
    where = {name: row for row, name in enumerate(known)}
    chosen = list(where) if names is None else [name for name in dict.fromkeys(names) if name in where]
    rows = np.array([where[name] for name in chosen], dtype=np.int64)
    return Embedding(text_array(chosen), matrix[rows].astype(np.float32), entity, provenance=dict(provenance))


def generator(*parts: str | int) -> np.random.Generator:
    """A random stream that depends on ``parts`` alone (128 bits of their sha256)."""
    text = "\x1f".join(str(part) for part in parts)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def check_dim(extractor: str, dim: int) -> int:
    """``dim`` if it is a positive integer, else ValueError.

    Examples
    --------
    >>> check_dim("Random", 0)
    Traceback (most recent call last):
    ValueError: Random: dim must be an integer >= 1, got 0
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ValueError(f"{extractor}: dim must be an integer >= 1, got {dim!r}")
    return dim
