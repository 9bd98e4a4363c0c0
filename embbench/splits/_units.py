"""Codes of what a split holds out, and checks shared by the splits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

from embbench.core import Fold, PerturbationDataset, UserError


def whole_number(owner: str, name: str, value: object, least: int) -> int:
    """``value`` as int, ValueError when it is not an integer >= ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{owner}: {name} must be an integer >= {least}, got {value!r}")
    return int(value)


def codes(keys: Iterable[Hashable]) -> np.ndarray:
    """Positions of the keys among their sorted distinct values, shape (n,), int64: independent of row order.

    Examples
    --------
    >>> codes(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    keys = list(keys)
    where = {key: i for i, key in enumerate(sorted(set(keys)))}  # type: ignore[type-var]
    return np.array([where[key] for key in keys], dtype=np.int64)


def entity_units(data: PerturbationDataset) -> tuple[tuple[int, ...], ...]:
    """Per row the codes of its entities in ``data.entity_names``."""
    where = {name: i for i, name in enumerate(data.entity_names)}
    return tuple(tuple(where[e] for e in row) for row in data.entities)


def transfer_codes(data: PerturbationDataset) -> np.ndarray:
    """Codes, shape (n,), of (entity set, context): all doses of a perturbation in a context are one unit."""
    return codes(zip(data.entities, data.context.tolist(), strict=True))


def as_units(code: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """One unit per row, from codes of shape (n,).

    Examples
    --------
    >>> as_units(np.array([4, 2]))
    ((4,), (2,))
    """
    return tuple((int(c),) for c in code)


def members_in(rows: np.ndarray, data: PerturbationDataset, pool: set[str]) -> np.ndarray:
    """Number of each row's entities that are in ``pool``, of shape (len(rows),)."""
    return np.array([sum(e in pool for e in data.entities[i]) for i in rows], dtype=np.int64)


def enough(data: PerturbationDataset, found: int, needed: int, what: str, step: str) -> None:
    """UserError for data with fewer than ``needed`` of ``what``; ``step`` says what to do."""
    if found < needed:
        raise UserError(f"dataset {data.name!r}: expected at least {needed} {what}, found {found}; {step}")


def unseen_units(data: PerturbationDataset, folds: Iterable[Fold]) -> tuple[tuple[int, ...], ...]:
    """The unit that folds made elsewhere leave unseen: contexts when no tested context is ever trained, entities when
    some tested entity is not, else (entity set, context).
    """
    folds, code = list(folds), data.context_codes
    if not any(np.isin(code[f.test], code[f.train]).any() for f in folds):
        return as_units(code)
    units = entity_units(data)
    for fold in folds:
        trained = {u for i in fold.train for u in units[i]}
        if any(u not in trained for i in fold.test for u in units[i]):
            return units
    return as_units(transfer_codes(data))
