"""Splits to and from other tools: PerturBench's CSV, Arc's TOML, GEARS' set2conditions, and columns of a table."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embbench.cache.store import replacing
from embbench.core import PerturbationDataset, UserError
from embbench.exchange import _arc, _columns, _gears, _perturbench
from embbench.exchange._chosen import Chosen, computed_split, kept_split
from embbench.exchange._roles import (
    NAMES,
    TEST,
    TRAIN,
    UNUSED,
    Options,
    Roles,
    counted,
    first_byte,
    row_names,
    shown,
    text_of,
)

__all__ = [
    "FORMATS",
    "Chosen",
    "Exported",
    "Imported",
    "Options",
    "computed_split",
    "export_split",
    "guess",
    "import_split",
    "kept_split",
    "slug",
    "write_split",
]

FORMATS = ("perturbench-csv", "arc-toml", "gears", "columns")
Writer = Callable[[PerturbationDataset, Roles, Options], tuple[dict[str, bytes], list[str]]]
WRITERS: dict[str, Writer] = {"perturbench-csv": _perturbench.write, "arc-toml": _arc.write, "gears": _gears.write}
READERS = {"perturbench-csv": _perturbench.read, "arc-toml": _arc.read, "columns": _columns.read}


@dataclass(frozen=True)
class Exported:
    """Files written, and what the format does not hold."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """Folds read, as roles of the screen's rows, and what did not meet."""

    folds: tuple[Roles, ...]
    notes: tuple[str, ...]


def export_split(chosen: Chosen, form: str, folder: Path, fold: str = "", options: Options | None = None) -> Exported:
    """Write a split for another tool: a file per fold, or one table of ``columns`` with all of them.

    Parameters
    ----------
    chosen : see `computed_split` and `kept_split`.
    form : one of `FORMATS`.
    folder : created when it is not there; files of the same names are replaced.
    fold : only this one.
    options : see `Options`.

    Raises
    ------
    UserError
        Unknown format or fold, or a fold that the format cannot hold; nothing is written then.
    """
    if form not in FORMATS:
        raise UserError(f"splits: format must be one of {', '.join(FORMATS)}, found {form!r}")
    data, options = chosen.data, options or Options()
    folds = [f for f in chosen.split.folds if fold in ("", f.name)]
    if not folds:
        raise UserError(f"splits: no fold {fold!r}; folds: {', '.join(f.name for f in chosen.split.folds)}")
    names, roles = [f.name for f in folds], [Roles.of(f, len(data)) for f in folds]
    made: dict[str, bytes] = {}
    notes: dict[str, list[str]] = {}  # what is said, of which folds
    if form == "columns":
        made[f"{slug(chosen.name)}{_columns.SUFFIX}"] = _columns.table(data, roles)
        notes["what the split leaves unseen is not in the table: file:TABLE finds it from the rows"] = names
    else:
        for stem, each in zip(_stems(chosen.name, names), roles, strict=True):
            files, said = WRITERS[form](data, each, options)
            made |= {f"{stem}{suffix}": content for suffix, content in files.items()}
            for note in said:
                notes.setdefault(note, []).append(each.name)
    for name, content in made.items():
        _write(folder / name, content)
    told = [note if len(of) == len(folds) else f"{', '.join(of)}: {note}" for note, of in notes.items()]
    return Exported(tuple(folder / name for name in made), tuple(told))


def slug(text: str) -> str:
    """Letters, digits, ``_``, ``=`` and ``-`` of a text, for a file name.

    Examples
    --------
    >>> slug("kang18-unseen_context:few_shot=3"), slug("T/2 cells")
    ('kang18-unseen_context-few_shot=3', 'T-2-cells')
    """
    return re.sub(r"[^\w=]+", "-", text).strip("-") or "split"


def _stems(name: str, folds: Sequence[str]) -> list[str]:
    """One file stem per fold, distinct on file systems that ignore case too."""
    stems = [slug(f"{name}-{fold}") for fold in folds]
    same = Counter(stem.casefold() for stem in stems)
    return [stem if same[stem.casefold()] == 1 else f"{stem}-{i}" for i, stem in enumerate(stems)]


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def import_split(
    paths: Sequence[Path], data: PerturbationDataset, form: str = "", options: Options | None = None
) -> Imported:
    """Read the split files of other tools, one fold each, or a table of folds.

    Parameters
    ----------
    paths : files, or folders of them; GEARS' subgroups go with the file of the same stem.
    data : the screen; with single cells by name for files that name cells.
    form : one of `FORMATS`; "" guesses from the content of each file.
    options : see `Options`.

    Raises
    ------
    UserError
        No files, an unknown format, a file that does not fit, folds that test the same rows, or a fold without training
        or test rows.
    """
    if form not in ("", *FORMATS):
        raise UserError(f"splits: format must be one of {', '.join(FORMATS)}, found {form!r}")
    options, notes = options or Options(), []
    folds: dict[str, Roles] = {}
    for path, subgroups in _files(paths):
        chosen = form or guess(path)
        if chosen == "gears":
            made, said = _gears.read(path, data, options, subgroups)
        else:
            made, said = READERS[chosen](path, data, options)
        notes += [f"{path.name}: read as {chosen}", *said]
        for fold in made:
            known = folds.setdefault(fold.name, fold)
            if known is not fold and (known.role != fold.role).any():
                raise UserError(f"{path}: a second fold called {fold.name!r} with other roles; rename one of the files")
            if known is not fold:
                notes.append(f"{path.name}: the same fold as a file before it")
    _check(list(folds.values()), data, [note for note in notes if ": read as " not in note])
    return Imported(tuple(folds.values()), tuple(notes))


def _check(folds: list[Roles], data: PerturbationDataset, notes: list[str]) -> None:
    """Refuse what no grid could run; ``notes`` may say why."""
    for fold in folds:
        counts = Counter(fold.role.tolist())
        if not counts[TRAIN] or not counts[TEST]:
            raise UserError(
                f"fold {fold.name}: expected training and test conditions of dataset {data.name!r}, found "
                f"{counts[TRAIN]} and {counts[TEST]}; is it a split of this screen?"
                + "".join(f" {note}" for note in notes[:2])
            )
    tested = np.sum([fold.role == TEST for fold in folds], axis=0)
    if len(twice := np.flatnonzero(tested > 1)):
        raise UserError(
            f"splits: expected every condition to be tested in one fold, found {len(twice)} in several "
            f"({shown(row_names(data, twice.tolist()))}); import files that overlap one at a time"
        )


def _files(paths: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """Split files with GEARS' subgroups of the same stem."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        folder = path.is_dir()
        found += sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".") if folder else [path]
    if not found:
        raise UserError(f"{', '.join(map(str, paths)) or 'splits'}: expected split files, found none")
    subgroups = {
        p.with_name(p.stem.removesuffix(_gears.SUBGROUP)): p for p in found if p.stem.endswith(_gears.SUBGROUP)
    }
    split = [p for p in found if p not in subgroups.values()]
    own = {p.with_suffix("") for p in split}
    if alone := [p.name for stem, p in subgroups.items() if stem not in own]:
        raise UserError(f"{alone[0]}: subgroups do not say what is trained; give the file of set2conditions as well")
    return [(path, subgroups.get(path.with_suffix(""))) for path in split]


def guess(path: Path) -> str:
    """The format of a file, from its content.

    Raises
    ------
    UserError
        It looks like none of them.
    """
    if first_byte(path) == b"\x80":
        return "gears"
    text = text_of(path)
    if _gears.is_json(text):
        return "gears"
    first, *rest = [line for line in text.splitlines() if line.strip()][:50] or [""]
    mark = "\t" if "\t" in first else ","
    if _columns.is_table(first.split(mark)):
        return "columns"
    last = [line.rpartition(",")[2].strip().lower() for line in rest or [first] if "," in line]
    if last and all(role in (UNUSED, *NAMES) for role in last):
        return "perturbench-csv"
    if _arc.is_split(text):
        return "arc-toml"
    raise UserError(
        f"{path}: expected a split of PerturBench (cell,role), Arc (TOML), GEARS (pickle or JSON) or a table with a "
        f"column of conditions, found {json.dumps(first[:60])}; name it by --format"
    )


def write_split(path: Path, data: PerturbationDataset, imported: Imported) -> str:
    """Write the folds as the table that ``file:`` reads; returns one line on them.

    Raises
    ------
    UserError
        Conditions that share their labels, or a file of that name with another content.
    """
    content = _columns.table(data, list(imported.folds))
    if path.exists() and (not path.is_file() or path.read_bytes() != content):
        raise UserError(f"splits: {path} is there with another content; name another one with --out, or remove it")
    _write(path, content)
    lines = []
    for fold in imported.folds:
        counts = Counter(fold.role.tolist())
        lines.append(f"{fold.name}: {', '.join(f'{counts[part]} {part}' for part in ('train', 'val', 'test'))}")
    return f"{counted(len(lines), 'fold')} of {len(data)} conditions: {'; '.join(lines)}"
