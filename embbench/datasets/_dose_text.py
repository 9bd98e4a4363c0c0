"""Drugs and doses of Tahoe-100M, which are published as texts that look like Python."""

from __future__ import annotations

import ast
import re

import numpy as np

from embbench.core import UserError
from embbench.datasets._h5ad import Column

CONTROL = "DMSO_TF"
UNITS = {"uM": 1.0, "µM": 1.0, "μM": 1.0, "nM": 1e-3, "mM": 1e3}  # in uM
LONGEST = 500  # characters of a dose text


def labels_and_doses(drug: Column, text: Column, name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels (objects of str, '' where a cell cannot be used), doses in uM (NaN), shape (m,), and lines on what is odd.

    Cells whose text names another drug than ``drug`` keep the latter (at dose 0 they are controls); a line says how
    many they are.

    Raises
    ------
    UserError
        A dose text cannot be read.

    Examples
    --------
    >>> drug = Column("drug", np.array([0, 0]), (" A",))
    >>> text = Column("drugname_drugconc", np.array([0, 1]), ("[('A', 5.0, 'uM')]", "[('DMSO_TF', 0.0, 'uM')]"))
    >>> [part.tolist() for part in labels_and_doses(drug, text, "tahoe")[:2]]
    [['A', 'DMSO_TF'], [5.0, 0.0]]
    """
    told = [doses_of(level, name) for level in text.levels]
    level_dose = np.array([each[0][1] if len(each) == 1 else np.nan for each in told] + [np.nan])
    dose = level_dose[text.codes]
    labels = np.array([*(level.strip() for level in drug.levels), ""], dtype=object)[drug.codes]
    labels[dose == 0] = CONTROL
    labels[np.isnan(dose)] = ""
    lost = int(np.isnan(dose).sum())
    notes = [f"cells under several drugs or without a dose, left out: {lost:,}"] if lost else []
    return labels, dose, notes + _differing(drug, text, [each[0][0] if len(each) == 1 else "" for each in told])


def _differing(drug: Column, text: Column, told: list[str]) -> list[str]:
    """A line on the cells whose dose text names (``told``, of each level, '' several) another drug than their label."""
    code = {name: i for i, name in enumerate(dict.fromkeys([*told, *(level.strip() for level in drug.levels)]))}
    label = np.array([*(code[level.strip()] for level in drug.levels), -1])[drug.codes]
    named = np.array([*(code[name] if name else -1 for name in told), -1])[text.codes]
    other = np.flatnonzero((label >= 0) & (named >= 0) & (label != named))
    if not len(other):
        return []
    names = list(code)
    first = f"{names[label[other[0]]]!r} and {names[named[other[0]]]!r}"
    what = "cells whose drug is not the one in drugname_drugconc, kept under drug (at dose 0 as control)"
    return [f"{what}: {len(other):,} (first: {first})"]


def doses_of(text: str, name: str) -> list[tuple[str, float]]:
    """Names and doses in uM of a text like ``[('name', 5.0, 'uM')]``; nothing in it is ever run.

    Raises
    ------
    UserError
        It is longer than `LONGEST`, no such list, or of another unit.

    Examples
    --------
    >>> doses_of("[('Bestatin (hydrochloride)', 50, 'nM')]", "tahoe")
    [('Bestatin (hydrochloride)', 0.05)]
    """
    loose = re.fullmatch(r"\[\(([^,'\"]+), ([0-9.eE+-]+), '(\w+)'\)\]", text)  # some copies lack the name's quotes
    try:
        found = [loose.groups()] if loose else ast.literal_eval(text) if len(text) <= LONGEST else None
        return [
            (str(drug).strip(), round(float(dose) * UNITS[unit], 12)) for drug, dose, unit in found or ()
        ] or _none()
    except (ValueError, TypeError, SyntaxError, KeyError, MemoryError, RecursionError):
        raise UserError(
            f"{name}: expected drugname_drugconc like [('name', 5.0, 'uM')], found {text[:80]!r}; the file is not the "
            "published one, or has changed: embbench data import reads it with columns of your choice"
        ) from None


def _none() -> list[tuple[str, float]]:
    raise ValueError("an empty list")
