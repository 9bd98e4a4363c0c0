"""Splits of GEARS: ``set2conditions``, the labels of train, val and test, as pickle or JSON, and its subgroups.

Roohani, Huang and Leskovec (2024), GEARS, Nature Biotechnology 42:927: labels are ``A+ctrl``, ``A+B`` and ``ctrl``.
"""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.pickles import read_pickle
from embbench.core import PerturbationDataset, UserError
from embbench.exchange._roles import (
    TEST,
    TRAIN,
    UNUSED,
    VAL,
    Labels,
    Options,
    Roles,
    by_key,
    counted,
    first_byte,
    labels_of,
    left_out,
    one_each,
    role_of,
    row_names,
    shown,
    text_of,
)

CONTROL = "ctrl"
SUBGROUP = "_subgroup"  # ends the stem of GEARS' file of subgroups
KEYS = {"test_subgroup": TEST, "val_subgroup": VAL}
PROTOCOL = 4


def write(data: PerturbationDataset, fold: Roles, options: Options) -> tuple[dict[str, bytes], list[str]]:
    """Bytes of the pickle, the JSON and, where test rows have groups, the subgroups, by suffix; and what is not held.

    Raises
    ------
    UserError
        Contexts or doses of one label in different sets, or names that hold a ``+``.
    """
    where = f"fold {fold.name} as GEARS' set2conditions"
    labels, notes = _labels(data, options, where), []
    step = "GEARS knows no contexts and no doses: use perturbench-csv, arc-toml or columns"
    parts = by_key(labels, fold.role, where, step)
    sets: dict[str, list[str]] = {part: sorted(k for k, r in parts.items() if r == part) for part in (TRAIN, VAL, TEST)}
    sets[TRAIN] = [*sets[TRAIN], CONTROL]
    out = {".pkl": pickle.dumps(sets, protocol=PROTOCOL), ".json": json.dumps(sets, indent=1).encode()}
    if fold.groups is not None:
        groups: dict[str, set[str]] = defaultdict(set)
        for label, group, role in zip(labels, fold.groups.tolist(), fold.role.tolist(), strict=True):
            if role == TEST and group:
                groups[group].add(label)
        told = {"test_subgroup": {g: sorted(names) for g, names in sorted(groups.items())}, "val_subgroup": {}}
        out[f"{SUBGROUP}.pkl"] = pickle.dumps(told, protocol=PROTOCOL)
        if sum(map(len, groups.values())) > len(set().union(*groups.values())):
            notes.append("groups of test rows differ between contexts or doses of a label: it stands in each")
    if unused := sum(r == UNUSED for r in parts.values()):
        notes.append(f"{counted(unused, 'condition')} in no set: left out of every list")
    if len(parts) < len(data):
        notes.append(f"contexts and doses are not told apart: {len(data)} conditions became {len(parts)} labels")
    if not options.labels and any(len(e) > 1 for e in data.entities):
        notes.append(
            "genes of a set stand in alphabetical order; GEARS compares text, so where its data file has "
            "another order, name the column of its labels by --labels"
        )
    return out, notes


def _labels(data: PerturbationDataset, options: Options, where: str) -> list[str]:
    """GEARS' label of each row."""
    if options.labels:
        return labels_of(data, options)
    if odd := [name for name in data.entity_names if "+" in name]:
        raise UserError(
            f"{where}: GEARS splits labels at '+', found it in {len(odd)} names ({shown(odd)}); use columns"
        )
    return ["+".join(entities) if len(entities) > 1 else f"{entities[0]}+{CONTROL}" for entities in data.entities]


def is_json(text: str) -> bool:
    """Whether a text is a JSON object."""
    return text.lstrip().startswith("{")


def is_subgroup(content: dict[str, Any]) -> bool:
    """Whether it is GEARS' file of subgroups.

    Examples
    --------
    >>> is_subgroup({"test_subgroup": {}, "val_subgroup": {}}), is_subgroup({"train": []})
    (True, False)
    """
    return bool(content) and set(content) <= set(KEYS)


def content_of(path: Path) -> dict[str, Any]:
    """The dict in a pickle or JSON file; pickles through the restricted unpickler.

    Raises
    ------
    UserError
        Not such a file, or no dict.
    """
    if first_byte(path) == b"\x80":
        content = read_pickle(path)
    else:
        try:
            content = json.loads(text_of(path))
        except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number of thousands of digits
            raise UserError(f"{path}: expected GEARS' set2conditions as pickle or JSON, unreadable: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict of train, val and test, found a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def read(
    path: Path, data: PerturbationDataset, options: Options, subgroups: Path | None = None
) -> tuple[list[Roles], list[str]]:
    """The fold of ``set2conditions``, with the groups of its file of subgroups; and what did not meet.

    Raises
    ------
    UserError
        Other keys, values that are no lists of text, a condition in several sets, or subgroups alone.
    """
    content = content_of(path)
    if is_subgroup(content):
        raise UserError(f"{path}: subgroups do not say what is trained; give the file of set2conditions beside it")
    finder = Labels(data, options)
    found: dict[int, set[str]] = defaultdict(set)
    lacking: list[str] = []
    for key, names in content.items():
        part, labels = role_of(key, f"{path}: sets"), _texts(names, path, key)
        for label, rows in _find(finder, labels).items():
            lacking += [label] if rows is None else []
            for i in rows or ():
                found[i].add(part)
    role = one_each(found, data, str(path), "the sets of GEARS are disjoint: mend the file")
    notes = [f"{path.name}: {counted(len(lacking), 'label')} not in the screen ({shown(lacking)})"] if lacking else []
    notes += left_out(data, role, path)
    if len(set(data.context.tolist())) > 1:
        notes.append(f"{path.name}: GEARS knows no contexts: a label's role holds in all of them")
    groups = None
    if subgroups is not None:
        groups, more = _groups(subgroups, data, finder, role)
        notes += more
    return [Roles(path.name.partition(".")[0] if path.suffix == ".gz" else path.stem, role, groups)], notes


def _find(finder: Labels, labels: list[str]) -> dict[str, list[int] | None]:
    """Rows of GEARS' labels: parts named ctrl say that a gene is alone, on either side."""
    bare = {}
    for label in labels:
        parts = [part.strip() for part in label.split("+")]
        alone = [part for part in parts if part.casefold() not in (CONTROL, "control")]
        own = label in finder.named  # a column of labels has it as it is
        bare[label] = label if own else "+".join(alone) or CONTROL
    rows = finder.find(bare.values())
    return {label: rows[text] for label, text in bare.items()}


def _texts(names: Any, path: Path, key: str) -> list[str]:
    """Labels of a list or array."""
    listed = names.tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(n, str) for n in listed):
        found = type(names).__name__
        raise UserError(f"{path}: expected lists of labels such as KLF1+ctrl, found a {found} in {key!r}")
    return sorted(map(str, listed)) if isinstance(listed, set | frozenset) else [str(n) for n in listed]


def _groups(
    path: Path, data: PerturbationDataset, finder: Labels, role: np.ndarray
) -> tuple[np.ndarray | None, list[str]]:
    """Group of each test row, shape (n,); those of validation rows are not kept, and said."""
    content = content_of(path)
    groups = np.full(len(data), "", dtype=object)
    notes, other = [], []
    for key, lists in content.items():
        if key not in KEYS or not isinstance(lists, dict):
            raise UserError(f"{path}: expected test_subgroup and val_subgroup, each a dict of lists, found {key!r}")
        for group, names in lists.items():
            for label, rows in _find(finder, _texts(names, path, f"{key} {group}")).items():
                if KEYS[key] != TEST:
                    continue
                other += [label for i in rows or () if role[i] != TEST]
                for i in rows or ():
                    if groups[i] and groups[i] != group:
                        raise UserError(f"{path}: {row_names(data, [i])[0]} is in two subgroups; give it one")
                    groups[i] = str(group) if role[i] == TEST else ""
    if content.get("val_subgroup") and any(len(_texts(v, path, k)) for k, v in content["val_subgroup"].items()):
        notes.append(f"{path.name}: groups of validation conditions are not kept: they are never scored")
    if other:
        notes.append(f"{path.name}: {counted(len(other), 'condition')} of test_subgroup not tested ({shown(other)})")
    if bare := [i for i in np.flatnonzero(role == TEST).tolist() if not groups[i]]:
        notes.append(f"{path.name}: {counted(len(bare), 'test condition')} without a subgroup")
        groups[bare] = "no subgroup"
    return groups, notes
