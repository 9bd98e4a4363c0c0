"""What the numbers of somebody's predictions are: effects, expression or cells; told from them, or refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.exchange._cell_eval import HIGHEST
from embbench.exchange._read import Table

CONTENTS = {"auto": "", "delta": "effects", "expression": "expression", "cells": "cells"}  # option -> content
NEAR = 0.4  # of the length of a control mean (under a half, so never both): means lie this near it, effects this near 0
ZERO = 1e-3  # what a control row of effects may hold where the screen has no control mean to measure by
SAY = "say --unit delta, --unit expression or --unit cells"


@dataclass(frozen=True)
class Placed:
    """Rows of a file, placed in a screen.

    Parameters
    ----------
    table, data : the file and the screen.
    values : (m, g) float64, genes as in the screen; may hold NaN.
    number : (m,) dataset rows, -1 for what is none.
    control : (m,) bool, rows of controls.
    context : (m,) names.
    keys : fold and dataset row of every row.
    """

    table: Table
    data: PerturbationDataset
    values: np.ndarray
    number: np.ndarray
    control: np.ndarray
    context: np.ndarray
    keys: list[tuple[str, int]]

    def repeated(self) -> str:
        """Which conditions have several rows, in words; empty where none has."""
        made = Counter(key for key in self.keys if key[1] >= 0)
        twice = [key for key, n in made.items() if n > 1]
        if not twice:
            return ""
        name = f"{self.data.conditions[twice[0][1]]} in {self.data.context[twice[0][1]]}"
        return f"{len(twice)} conditions have several rows, e.g. {name} ({made[twice[0]]} rows)"

    def off(self, at: np.ndarray, *, zero: bool) -> np.ndarray:
        """Distance of means from 0 or from the screen's control mean, in lengths of the latter.

        One value per context that rows ``at`` (bool) have and whose control mean is known and not 0.
        """
        out = []
        for code, name in enumerate(self.data.contexts):
            rows = at & (self.context == name)
            if self.data.baseline is None or not rows.any():
                continue
            base = self.data.baseline[code].astype(np.float64)
            from_ = np.zeros_like(base) if zero else base
            known = np.where(np.isfinite(self.values[rows]), self.values[rows], from_).mean(axis=0)
            if size := float(np.linalg.norm(base)):
                out.append(float(np.linalg.norm(known - from_)) / size)
        return np.array(out)


def content_of(placed: Placed, unit: str, folds: str = "") -> tuple[str, str]:
    """``effects``, ``expression`` or ``cells``, and by what it was told.

    Parameters
    ----------
    placed : the rows.
    unit : a key of `CONTENTS`; ``auto`` tells it from the file.
    folds : what is wrong with the column of folds, if anything is; it is said where rows are repeated.

    Notes
    -----
    ``auto``: what the file says where it is embbench's own. Else, with several rows of every condition, ``cells``, but
    never with negative values, which no log1p expression has. Control rows tell one row per condition: near 0 they are
    effects, near the screen's control mean expression, if the conditions agree. Without them negative values are
    effects, unless the conditions lie nearer to the control mean than to 0. All else is refused.

    Raises
    ------
    UserError
        It cannot be told, or values are counts.
    """
    table = placed.table
    if table.content and unit == "auto":
        return table.content, "as the file says"
    content, why = (CONTENTS[unit], "as --unit says") if unit != "auto" else _told(placed, folds)
    if content != "effects":
        _check_scale(placed)
    return content, why


def _told(placed: Placed, folds: str) -> tuple[str, str]:
    table, rows = placed.table, placed.number >= 0
    negative = int((placed.values[rows | placed.control] < 0).sum())
    if several := placed.repeated():
        counts = Counter(key for key in placed.keys if key[1] >= 0)
        if min(counts.values()) > 1 and not negative and not folds:
            return "cells", "every condition has several rows, no value is negative"
        found = f"; {negative} values are negative, which no log1p expression of cells is" if negative else ""
        raise UserError(
            f"{table.path}: {several}{found}{'; ' if folds else ''}{folds}; give one row each, a column fold that "
            "names the split's folds, or --unit cells where rows are cells"
        )
    like_means = bool((placed.off(rows, zero=False) < placed.off(rows, zero=True)).any())
    if placed.control.any():
        return _told_by_controls(placed, negative, like_means=like_means)
    if negative and not like_means:
        return "effects", "values are negative"
    found = f"{negative} values are negative, but means lie near those of controls" if negative else "none is negative"
    raise UserError(
        f"{table.path}: cannot tell whether values are effects or expression ({found}, no control row); {SAY}"
    )


def _told_by_controls(placed: Placed, negative: int, *, like_means: bool) -> tuple[str, str]:
    zero, base = (placed.off(placed.control, zero=z) for z in (True, False))
    if not zero.size:
        none = bool((np.abs(np.nan_to_num(placed.values[placed.control])) <= ZERO).all())
        if none or not negative:
            kind = "effects" if none else "expression"
            return kind, f"control rows are {'' if none else 'not '}0"
    elif zero.max() <= NEAR and not like_means:
        return "effects", "control rows lie near 0"
    elif base.max() <= NEAR and like_means:
        return "expression", f"control rows lie near the control means of {placed.data.name}"
    far = f"{zero.max():.2g} and {base.max():.2g} of its length" if zero.size else "no control mean to compare with"
    raise UserError(
        f"{placed.table.path}: cannot tell whether values are effects or expression ({negative} are negative): "
        f"expected control rows near 0 and conditions, too, or both near the control mean of {placed.data.name}, found "
        f"control rows off by {far}, and conditions nearer to {'the latter' if like_means else '0'}; {SAY}"
    )


def _check_scale(placed: Placed) -> None:
    """Expression is log1p: counts are refused."""
    used = placed.values[(placed.number >= 0) | placed.control]
    known = np.where(np.isfinite(used), used, 0.0)
    if known.size and known.max() >= HIGHEST:
        found = f"{int((known >= HIGHEST).sum())} values of {HIGHEST:g} or more (at most {known.max():.6g})"
    elif known.size and known.max() > 1 and not np.modf(known)[0].any():
        found = f"whole numbers only (0 to {known.max():.6g})"
    else:
        return
    raise UserError(
        f"{placed.table.path}: expected log1p expression as in {placed.data.name}, found {found}, as counts are; "
        "normalise and take log1p as for the screen, or give effects, --unit delta"
    )


def finite(placed: Placed) -> np.ndarray:
    """Values that are all finite; what is not counts only where the screen observes the entry.

    Raises
    ------
    UserError
        A predicted value that counts is missing or infinite.
    """
    values, number, control, data = placed.values, placed.number, placed.control, placed.data
    bad = ~np.isfinite(values) & ((number >= 0) | control)[:, None]
    if data.observed is not None:
        bad &= data.observed[np.maximum(number, 0)] | control[:, None]
    if bad.any():
        i, g = np.argwhere(bad)[0]
        raise UserError(
            f"{placed.table.path}: {int(bad.sum())} predicted values are missing or infinite, e.g. {data.genes[g]} of "
            f"{placed.table.labels[i]}; predict every gene (0 is no effect)"
        )
    return np.where(np.isfinite(values), values, 0.0)


def minus_controls(placed: Placed, values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Expression less the control mean of its context: of the file, else of half A of the screen.

    Raises
    ------
    UserError
        The screen's unit is no difference of expression, or it has no control means.
    """
    data, path = placed.data, placed.table.path
    if data.unit != "delta":
        raise UserError(f"{path}: expression cannot be compared with {data.unit} effects; give those, --unit delta")
    out, theirs = values.copy(), 0
    names = list(dict.fromkeys(placed.context.tolist()))
    for name in names:
        rows = placed.context == name
        own = placed.control & rows
        if own.any():
            out[rows] -= values[own].mean(axis=0)
            theirs += 1
        elif name in data.contexts:
            if data.baseline is None:
                raise UserError(f"{path}: {data.name} has no control means to take away; give effects, --unit delta")
            out[rows] -= data.baseline[data.contexts.index(name)].astype(np.float64)
    parts = [f"the file's own in {theirs} contexts"] if theirs else []
    parts += [f"half A of {data.name} in {len(names) - theirs} contexts"] if len(names) > theirs else []
    notes.append(f"expression less control means: {', '.join(parts)}")
    return out
