"""Rows of a file brought to the rows and genes of a screen; whatever does not fit is counted or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.exchange._numbers import CONTENTS, Placed, content_of, finite, minus_controls
from embbench.exchange._read import Table
from embbench.genes import harmonise, namespace, parse_perturbation

ANY = ""  # the fold of a prediction that serves every fold
DOSE = 1e-5  # relative: what a dose of six digits may be off; never absolute, for a dose may be in mol/l


@dataclass(frozen=True)
class Aligned:
    """A file's predictions by dataset row.

    Parameters
    ----------
    content : ``effects`` (what was expression is one by now) or ``cells``.
    values : (fold name or `ANY`, dataset row) -> (g,) effects or (k, g) cells, float32, genes as in the screen.
    own : the same keys -> False where the file itself says that the prediction is a fallback.
    extra : labels with a context, of the file, that are no row of the screen.
    notes : what was done and counted, one line each.
    """

    content: str
    values: dict[tuple[str, int], np.ndarray]
    own: dict[tuple[str, int], bool]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def align(table: Table, data: PerturbationDataset, unit: str = "auto", folds: Sequence[str] = ()) -> Aligned:
    """Match labels, contexts, doses and genes with a screen's.

    Parameters
    ----------
    table : the file.
    data : the screen.
    unit : ``delta`` (effects, in the screen's unit), ``expression`` (condition means), ``cells``, or ``auto``
        (`embbench.exchange._numbers.content_of` says how it is told).
    folds : names of the split's folds; a column ``fold`` counts only where it names them.

    Notes
    -----
    Expression becomes an effect by taking away the control mean of the row's context: that of the file, where it has
    control rows (as cell-eval does), else the half-A control mean of the screen. Control rows are no predictions.

    Raises
    ------
    UserError
        A gene of the screen is missing, a value is not finite, a label is ambiguous, nothing fits, or what the numbers
        are cannot be told.
    """
    if unit not in CONTENTS:
        raise UserError(f"--unit {unit!r}: expected one of {', '.join(CONTENTS)}")
    notes: list[str] = []
    values = table.values[:, _columns(table, data, notes)].astype(np.float64)
    control, context = _is_control(table, data), _contexts(table, data)
    number = np.where(control, -1, _rows(table, data, control, context))
    if not (number >= 0).any():
        shown = ", ".join(sorted({f"{a} in {b}" for a, b in zip(table.labels, context, strict=True)})[:3])
        raise UserError(
            f"{table.path}: none of {len(number)} rows is a condition of {data.name}, found {shown}; the screen has "
            f"{data.conditions[0]} in {data.context[0]} and {len(data) - 1} more; name the columns with "
            "--perturbation-key and --context-key"
        )
    fold, unknown = _folds(table, folds)
    keys = list(zip(fold.tolist(), number.tolist(), strict=True))
    placed = Placed(table, data, values, number, control, context, keys)
    content, why = content_of(placed, unit, unknown)
    notes = [f"read as {content} ({why})", *([f"{unknown}: it is not used"] if unknown else []), *notes]
    if content != "cells" and (several := placed.repeated()):
        raise UserError(
            f"{table.path}: {several}{'; ' if unknown else ''}{unknown}; give one row each, a column fold that names "
            "the split's folds, or --unit cells where rows are cells"
        )
    values = finite(placed)
    if content == "expression":
        values = minus_controls(placed, values, notes)
    if content == "effects" and data.unit != "delta":
        notes.append(f"values are taken as {data.unit}, the unit of {data.name}")
    if content == "cells" and control.any():
        notes.append(f"{int(control.sum())} control cells of the file are not used: effects are against half A")
    return _collected(placed, content, values, notes)


def _collected(placed: Placed, content: str, values: np.ndarray, notes: list[str]) -> Aligned:
    """Predictions by fold and dataset row, and what is no row of the screen."""
    table, cells = placed.table, content == "cells"
    made: dict[tuple[str, int], list[int]] = {}
    for i in np.flatnonzero(placed.number >= 0).tolist():
        made.setdefault(placed.keys[i], []).append(i)
    own = {k: bool(table.covered is None or table.covered[at].all()) for k, at in made.items()}
    found = {k: values[at if cells else at[0]].astype(np.float32) for k, at in made.items()}
    dose = [""] * len(values) if table.dose is None else [f"@{d:.6g}" if np.isfinite(d) else "" for d in table.dose]
    out = np.flatnonzero(~placed.control & (placed.number < 0))
    extra = tuple(sorted({f"{table.labels[i]}{dose[i]} in {placed.context[i]}" for i in out}))
    return Aligned("cells" if cells else "effects", found, own, extra, tuple(notes))


def _columns(table: Table, data: PerturbationDataset, notes: list[str]) -> np.ndarray:
    """For each gene of the screen its column in the file: by name, else by its name in the screen's namespace."""
    where = {name: i for i, name in enumerate(table.genes)}
    wanted = [str(g) for g in data.genes]
    absent = [g for g in wanted if g not in where]
    if absent and (kind := namespace(wanted)) != "unknown":
        named, known = harmonise(table.genes, kind).names, set(wanted)
        other = {name: i for i, name in enumerate(named) if table.genes[i] not in known}
        renamed = [g for g in absent if g in other]
        where |= {g: other[g] for g in renamed}
        if renamed:
            notes.append(f"{len(renamed)} genes are matched by another name, e.g. {table.genes[other[renamed[0]]]}")
        absent = [g for g in absent if g not in where]
    if odd := [g for g in absent if g in table.odd]:
        raise UserError(
            f"{table.path}: {len(odd)} columns of genes hold what is no number, e.g. {odd[0]}: {table.odd[odd[0]]}; "
            "write plain numbers (1.5, 1e-3), and nothing or NaN where there is none"
        )
    if absent:
        raise UserError(
            f"{table.path}: {len(absent)} of {len(wanted)} genes of {data.name} are not in the file, e.g. "
            f"{', '.join(absent[:3])}; a score over fewer genes is another score: predict them (0 is no effect; in "
            "expression, the control mean), or choose genes that the file has (--genes hvg:N, as the grid did)"
            + "".join(
                f"; left out, for it holds no numbers: {name} ({what})" for name, what in [*table.odd.items()][:3]
            )
        )
    if more := len(table.genes) - len(wanted):
        notes.append(f"{more} columns of the file are no genes of {data.name} and are left out")
    return np.array([where[g] for g in wanted], dtype=np.int64)


def _is_control(table: Table, data: PerturbationDataset) -> np.ndarray:
    """(m,) bool: control labels, but no label that the screen itself has."""
    known = {*data.conditions, *data.entity_names}
    labels = list(dict.fromkeys(table.labels.tolist()))
    read = parse_perturbation(labels, known_genes=data.entity_names, entity_type=data.entity_type).entities
    controls = {label for label in labels if not read[label] and label not in known}
    return np.array([label in controls for label in table.labels], dtype=bool)


def _contexts(table: Table, data: PerturbationDataset) -> np.ndarray:
    if table.context is not None:
        return table.context
    if len(data.contexts) == 1:
        return np.full(len(table.labels), data.contexts[0], dtype=object)
    raise UserError(
        f"{table.path}: expected a column of contexts, for {data.name} has {len(data.contexts)} "
        f"({', '.join(data.contexts[:5])}); name it with --context-key"
    )


def _rows(table: Table, data: PerturbationDataset, control: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Dataset row of every row of the file, -1 for what is none."""
    exact = {(c, k): i for i, (c, k) in enumerate(zip(data.conditions, data.context.tolist(), strict=True))}
    sets: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for i, (entities, k) in enumerate(zip(data.entities, data.context.tolist(), strict=True)):
        sets.setdefault((entities, k), []).append(i)
    plain = {label: _undosed(label, data) for label in set(table.labels[~control].tolist())}
    told = [text for text, _ in plain.values()]
    read = parse_perturbation(told, known_genes=data.entity_names, entity_type=data.entity_type).entities
    whole = {"+".join(e): e for e in data.entities}  # compounds are never split: a set is found as the screen writes it
    out = np.full(len(control), -1, dtype=np.int64)
    for i in np.flatnonzero(~control).tolist():
        label, where = str(table.labels[i]), str(context[i])
        if (label, where) in exact and table.dose is None:
            out[i] = exact[label, where]
            continue
        text, dose = plain[label]
        dose = table.dose[i] if table.dose is not None and np.isfinite(table.dose[i]) else dose
        hits = sets.get((whole.get(text) or read[text], where), [])
        if dose is not None and data.dose is not None:
            hits = [h for h in hits if np.isclose(data.dose[h], dose, rtol=DOSE, atol=0.0)]
        if len(hits) > 1:
            raise UserError(
                f"{table.path}: {label} in {where} has {len(hits)} doses in {data.name}; add a column dose, or write "
                f"labels as {data.conditions[hits[0]]}"
            )
        out[i] = hits[0] if hits else -1
    return out


def _undosed(label: str, data: PerturbationDataset) -> tuple[str, float | None]:
    """``A+B@0.5`` -> its name and dose, where the screen has doses."""
    name, mark, dose = label.rpartition("@")
    if data.dose is None or not mark or not name.strip():
        return label, None
    try:
        return name, float(dose)
    except ValueError:
        return label, None


def _folds(table: Table, folds: Sequence[str]) -> tuple[np.ndarray, str]:
    """The fold of every row, and what is wrong with the file's column of folds (then every row serves every fold)."""
    every = np.full(len(table.labels), ANY, dtype=object)
    if table.fold is None:
        return every, ""
    unknown = [name for name in dict.fromkeys(table.fold.tolist()) if name not in {*folds, ANY}]
    if not unknown:
        return table.fold, ""
    return every, (
        f"its column fold names {', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}, no folds of the split "
        f"({', '.join(folds[:5])}{' ...' if len(folds) > 5 else ''})"
    )
