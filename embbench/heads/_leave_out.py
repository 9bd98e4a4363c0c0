"""Errors of a linear smoother on rows that it has not seen, in closed form: whole units are left out at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def unit_blocks(units: Sequence[tuple[int, ...]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per distinct set of units: its row numbers, and those of all rows that contain any of these units.

    Examples
    --------
    >>> [(rows.tolist(), block.tolist()) for rows, block in unit_blocks([(0,), (1,), (0, 1), (0,)])]
    [([0, 3], [0, 2, 3]), ([1], [1, 2]), ([2], [0, 1, 2, 3])]
    """
    holders: dict[int, set[int]] = {}
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, codes in enumerate(units):
        groups.setdefault(tuple(codes), []).append(row)
        for code in codes:
            holders.setdefault(code, set()).add(row)
    blocks = [sorted({*rows}.union(*(holders[code] for code in codes))) for codes, rows in groups.items()]
    return [(np.array(rows), np.array(block)) for rows, block in zip(groups.values(), blocks, strict=True)]


def left_out(smoother: np.ndarray, Y: np.ndarray, blocks: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Errors, shape (n, r), of each row of ``Y`` when it is predicted without its block; NaN where none is left.

    With the smoother matrix ``H`` (n, n) of a least-squares fit with a fixed quadratic penalty, the errors of rows B
    after a fit without them are ``(I - H_BB)^-1 (Y - H Y)_B``.

    References
    ----------
    Cook and Weisberg (1982), Residuals and Influence in Regression, section 2.2 and equation 2.2.1's block form; with a
    single row it is the PRESS residual of Allen (1974), Technometrics 16:125-127.

    Examples
    --------
    >>> mean = np.full((3, 3), 1 / 3)
    >>> left_out(mean, np.array([[0.0], [3.0], [6.0]]), unit_blocks([(0,), (1,), (2,)])).round(9).ravel().tolist()
    [-4.5, 0.0, 4.5]
    """
    residual = Y - smoother @ Y
    out = np.full_like(residual, np.nan)
    for rows, block in blocks:
        if len(block) < len(Y):
            own = np.eye(len(block)) - smoother[np.ix_(block, block)]
            out[rows] = np.linalg.solve(own, residual[block])[np.searchsorted(block, rows)]
    return out
