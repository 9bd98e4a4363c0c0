"""Splits of Arc's cell-load (STATE): a TOML file per fold that names held-out contexts and perturbations.

``[zeroshot]`` holds whole contexts, ``[fewshot."dataset.context"]`` lists the labels held out in one; what a dataset of
``[training]`` has beyond that is trained on. Checked against cell-load 0.10.4 (tests/oracles/cell_load_official.py).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

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
    labels_of,
    left_out,
    role_of,
    shown,
    text_of,
)

SUFFIX = ".toml"
SECTIONS = ("datasets", "training", "zeroshot", "fewshot")
UNREADABLE = re.compile(r'["\\\x00-\x1f\x7f]')  # cell-load's TOML reader (toml 0.10.2) mistakes them in headers


def write(data: PerturbationDataset, fold: Roles, options: Options) -> tuple[dict[str, bytes], list[str]]:
    """The file's bytes by suffix, and what it does not hold.

    Raises
    ------
    UserError
        Doses of one label in different sets, conditions in no set beside others that are in one (cell-load would train
        on them), or a context that cell-load would not read back.
    """
    labels, where = labels_of(data, options), f"fold {fold.name} as a TOML file of cell-load"
    step = "it tells a condition by label and context alone: name a column with labels of their own by --labels"
    parts = by_key(list(zip(labels, data.context.tolist(), strict=True)), fold.role, where, step)
    if bad := [c for c in set(data.context.tolist()) if UNREADABLE.search(c)]:
        raise UserError(f"{where}: its reader mistakes quotes, backslashes and tabs in contexts: {shown(bad)}; rename")
    held: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (label, context), role in parts.items():
        held[context][role].append(label)
    idle = [context for context, roles in held.items() if set(roles) == {UNUSED}]
    beside = [f"{label} in {c}" for c, roles in held.items() if c not in idle for label in roles.get(UNUSED, ())]
    if beside and options.unused != "train":
        raise UserError(
            f"{where}: {counted(len(beside), 'condition')} in no set ({shown(beside)}), but cell-load trains on all "
            "that val and test do not name; accept it with --unused train, or choose another format"
        )
    text, notes = _text(data, held, idle, options)
    if beside:
        notes.append(
            f"{counted(len(beside), 'condition')} of no set will be trained on ({shown(beside)}): a leak "
            "where they share a perturbation with a tested one"
        )
    if data.dose is not None and len(parts) < len(data):
        notes.append(f"doses are not told apart: {len(data)} conditions became {len(parts)} labels")
    if any("|" in c for c in held):
        notes.append("contexts of several columns are joined by '|': the data file needs a column that holds them so")
    if fold.groups is not None:
        notes.append("groups of test rows are not held by this format")
    return {SUFFIX: text.encode()}, notes


def _text(
    data: PerturbationDataset, held: dict[str, dict[str, list[str]]], idle: list[str], options: Options
) -> tuple[str, list[str]]:
    """The TOML text, and notes."""
    told = options.source or data.name
    name = re.sub(r"[^A-Za-z0-9_-]", "_", told)
    path = options.data or str(data.meta.get("source", f"{name}.h5ad"))
    lines = ["[datasets]", f"{name} = {_quoted(path)}", "", "[training]"]
    notes = [] if name == told else [f"the dataset is called {name!r}: cell-load's names have no dots or blanks"]
    if not options.data:
        notes.append(f"[datasets] names {path!r}; correct it, or give the file or folder by --data")
    whole: dict[str, str] = {}
    if idle:
        whole = {c: TRAIN for c, roles in held.items() if not {VAL, TEST} & set(roles) and c not in idle}
        notes.append(f"contexts without any condition in a set are left out of [training]: {shown(idle)}")
    else:
        lines.append(f'{name} = "train"')
        notes.append("what the data file holds beyond the screen's conditions is trained on, or tested in [zeroshot]")
    few: dict[str, dict[str, list[str]]] = {}
    for context, roles in held.items():
        used = set(roles) - {UNUSED}
        if len(roles) == 1 and used and used <= {VAL, TEST}:
            whole[context] = used.pop()
        elif used & {VAL, TEST}:
            few[context] = {part: sorted(roles.get(part, ())) for part in (VAL, TEST)}
    lines += ["", "[zeroshot]", *(f"{_quoted(f'{name}.{c}')} = {_quoted(r)}" for c, r in sorted(whole.items()))]
    for context, lists in sorted(few.items()):
        lines += ["", f"[fewshot.{_quoted(f'{name}.{context}')}]"]
        lines += [f"{part} = [{', '.join(map(_quoted, names))}]" for part, names in lists.items()]
    return "\n".join(lines) + "\n", notes


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)


def is_split(text: str) -> bool:
    """Whether a text is such a TOML file."""
    try:
        return bool(set(tomllib.loads(text)) & set(SECTIONS))
    except (ValueError, RecursionError):
        return False


def read(path: Path, data: PerturbationDataset, options: Options) -> tuple[list[Roles], list[str]]:
    """The fold of a TOML file, and what did not meet.

    Raises
    ------
    UserError
        No TOML, sections or lists of another name or shape, several datasets that speak of the same context, or an
        unknown role.
    """
    training, zero, few = _sections(path, options)
    contexts = set(data.context.tolist())
    role = np.full(len(data), UNUSED, dtype=object)
    rest = ~np.isin(data.context.astype(str), [*zero, *few])
    if training:
        role[rest] = TRAIN
    for context, told in zero.items():
        role[data.context == context] = role_of(told, f"{path}: [zeroshot] {context}")
    finder, lacking, twice = Labels(data, options), [], 0
    for context, lists in few.items():
        role[data.context == context] = TRAIN
        for part in (VAL, TEST):  # test last: what is in both lists is scored, never used to choose
            for label, rows in finder.find(lists.get(part, [])).items():
                here = [i for i in rows or () if data.context[i] == context]
                if not here and rows != [] and context in contexts:
                    lacking.append(f"{label} in {context}")
                twice += sum(role[i] == VAL for i in here if part == TEST)
                role[here] = part
    notes = []
    if absent := sorted({*zero, *few} - contexts):
        notes.append(f"{counted(len(absent), 'context')} of the file not in the screen ({shown(absent)})")
    if lacking:
        notes.append(f"{counted(len(lacking), 'label')} of the file not in the screen ({shown(lacking)})")
    if listed := [context for context, lists in few.items() if TRAIN in lists]:
        notes.append(
            f"lists called train ({shown(listed)}) restrict nothing: as in cell-load, what val and test leave trains"
        )
    if twice:
        notes.append(f"{counted(twice, 'condition')} in both val and test: taken as test")
    if rest.any() and not training:
        found = sorted(set(data.context[rest].tolist()))
        notes.append(f"contexts that the file does not name are in no set, not every dataset trains ({shown(found)})")
    named = [f"{path.name}: {note}" for note in notes]
    return [Roles(path.name.partition(".toml")[0], role)], named + left_out(data, role, path)


def _sections(path: Path, options: Options) -> tuple[bool, dict[str, str], dict[str, dict[str, list[str]]]]:
    """Whether unnamed contexts train, the whole contexts with their role, and lists of labels by context."""
    try:
        found = tomllib.loads(text_of(path))
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, or a number of thousands of digits
        raise UserError(f"{path}: expected a TOML file of cell-load, unreadable: {error}") from error
    if unknown := [f"[{name}]" for name in found if name not in SECTIONS]:
        raise UserError(
            f"{path}: expected the sections {', '.join(SECTIONS)}, found {shown(unknown)}, which cell-load does not "
            "read; correct or remove it"
        )
    parts: dict[str, dict[str, Any]] = {name: found.get(name, {}) for name in SECTIONS}
    few = parts["fewshot"]
    shaped = all(isinstance(part, dict) for part in parts.values()) and all(
        isinstance(lists, dict)
        and all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists.values())
        for lists in few.values()
    )
    if not shaped or not all(isinstance(r, str) for r in parts["zeroshot"].values()):
        raise UserError(
            f'{path}: expected [zeroshot] of text and [fewshot."dataset.context"] of lists of text, found other '
            "values; see cell-load's README"
        )
    if odd := [f"{part} of {key}" for key, lists in few.items() for part in lists if part not in (TRAIN, VAL, TEST)]:
        raise UserError(
            f"{path}: [fewshot] expected lists called val and test, found {shown(odd)}; rename or remove it"
        )
    known = {
        *parts["datasets"],
        *parts["training"],
        *(key.partition(".")[0] for part in (parts["zeroshot"], few) for key in part),
    }
    if options.source and options.source not in known:
        raise UserError(f"{path}: no dataset {options.source!r}; datasets: {shown(known) or 'none'}")
    chosen = {options.source} if options.source else known
    keys = [key for part in (parts["zeroshot"], few) for key in part if key.partition(".")[0] in chosen]
    contexts = [key.partition(".")[2] for key in keys]
    if len(set(contexts)) < len(contexts):
        same = {c for c in contexts if contexts.count(c) > 1}
        raise UserError(f"{path}: several datasets, or sections, name {shown(same)}; choose a dataset with --source")
    zero = {k.partition(".")[2]: v for k, v in parts["zeroshot"].items() if k in keys}
    lists = {k.partition(".")[2]: v for k, v in few.items() if k in keys}
    return bool(chosen) and all(parts["training"].get(name) == "train" for name in chosen), zero, lists
