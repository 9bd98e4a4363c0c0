"""Folds of units: balanced partitions, and inner folds of rows that contain several units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def partition(n_units: int, n_folds: int, seed: int) -> np.ndarray:
    """Fold number of each unit: a seeded permutation dealt into folds whose sizes differ by at most one.

    Parameters
    ----------
    n_units : number of units; may be smaller than ``n_folds`` (the last folds are then empty).
    n_folds : number of folds, >= 1.
    seed : seed of the permutation, >= 0.

    Returns
    -------
    (n_units,) int64, values in 0 .. n_folds - 1; ValueError when ``n_units`` < 0 or ``n_folds`` < 1.

    Examples
    --------
    >>> sorted(partition(5, 2, seed=0).tolist())
    [0, 0, 0, 1, 1]
    """
    if n_units < 0 or n_folds < 1:
        raise ValueError(f"partition: n_units must be >= 0 and n_folds >= 1, got {n_units} and {n_folds}")
    fold = np.empty(n_units, dtype=np.int64)
    fold[np.random.default_rng(seed).permutation(n_units)] = np.arange(n_units) % n_folds
    return fold


def first_fold(units: Sequence[tuple[int, ...]], fold_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each row is tested, and which folds it touches.

    Parameters
    ----------
    units : per row the codes of its units, each an index of ``fold_of``.
    fold_of : of shape (n_units,), fold number of each unit.

    Returns
    -------
    home : (n,) int64, the lowest fold number among the row's units.
    touches : of shape (n, folds), bool, folds that hold one of the row's units out.

    Raises
    ------
    ValueError
        A row has no unit.
    """
    lengths = np.fromiter((len(u) for u in units), dtype=np.int64, count=len(units))
    if len(lengths) and lengths.min() == 0:
        raise ValueError(f"folds: row {int(lengths.argmin())} has no unit; every row needs at least one")
    flat = np.fromiter((code for row in units for code in row), dtype=np.int64, count=int(lengths.sum()))
    touches = np.zeros((len(lengths), int(fold_of.max(initial=-1)) + 1), dtype=bool)
    touches[np.repeat(np.arange(len(lengths)), lengths), fold_of[flat]] = True
    return touches.argmax(axis=1) if touches.size else np.zeros(len(lengths), dtype=np.int64), touches


def inner_folds(units: Sequence[tuple[int, ...]], n_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation folds of rows, such that no unit of a held-out row is fitted.

    The distinct units are partitioned; a row is held out once, in the lowest-numbered fold among its units, and rows
    that contain any unit of a fold are absent from that fold's fit rows.

    Parameters
    ----------
    units : per row the codes of its units (any integers; a row of a combination has several).
    n_folds : number of folds wanted, >= 2; reduced to the number of units.
    seed : seed of the partition.

    Returns
    -------
    Pairs (fit rows, held-out rows) of ascending int64; folds that lack either are dropped. Fewer than 2 units: empty.

    Raises
    ------
    ValueError
        ``n_folds`` < 2, or a row without units.

    Examples
    --------
    >>> [(fit.tolist(), held.tolist()) for fit, held in inner_folds([(7,), (7,), (9,)], 5, seed=0)]
    [([2], [0, 1]), ([0, 1], [2])]
    """
    if n_folds < 2:
        raise ValueError(f"inner_folds: n_folds must be >= 2, got {n_folds}")
    codes = np.unique([code for row in units for code in row])
    if len(codes) < 2:
        return []
    n_folds = min(n_folds, len(codes))
    renumbered = [tuple(np.searchsorted(codes, row).tolist()) for row in units]
    home, touches = first_fold(renumbered, partition(len(codes), n_folds, seed))
    pairs = ((np.flatnonzero(~touches[:, k]), np.flatnonzero(home == k)) for k in range(n_folds))
    return [(fit, held) for fit, held in pairs if len(fit) and len(held)]
