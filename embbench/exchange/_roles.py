"""Folds as one role per row, and the labels that other tools' files use for rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from embbench.core import Fold, PerturbationDataset, UserError
from embbench.core.tables import read_text
from embbench.genes import parse_perturbation

TRAIN, VAL, TEST, UNUSED = "train", "val", "test", ""
NAMES = {"train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
BLANK = ("", "nan", "none", "<na>")
SHOWN = 5
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Roles:
    """One fold: ``role`` of shape (n,) in train, val, test or "" (in no set), and the groups of test rows, "" for none.

    Parameters
    ----------
    name : of the fold.
    role : shape (n,), object.
    groups : shape (n,), object, or None.
    """

    name: str
    role: np.ndarray
    groups: np.ndarray | None = None

    @classmethod
    def of(cls, fold: Fold, n: int) -> Roles:
        """The roles of a fold's row numbers.

        Examples
        --------
        >>> Roles.of(Fold("f", train=np.array([2]), test=np.array([0])), 3).role.tolist()
        ['test', '', 'train']
        """
        role = np.full(n, UNUSED, dtype=object)
        for name, rows in ((TRAIN, fold.train), (VAL, fold.validation), (TEST, fold.test)):
            role[rows] = name
        groups = None
        if fold.groups is not None:
            groups = np.full(n, "", dtype=object)
            groups[fold.test] = [str(g) for g in fold.groups]
        return cls(fold.name, role, groups)


@dataclass(frozen=True)
class Options:
    """How another tool's files write what embbench calls a condition.

    Parameters
    ----------
    labels : covariate of the screen with the labels of the tool's data file; "": labels are made from the names.
    join : between the perturbations of a set, where labels are made.
    control : labels of controls, besides the well-known ones.
    source : dataset within a TOML file, where it has several; on export its name there.
    data : file or folder of the cells, as the TOML should name it.
    columns : those of a table to read as folds; empty takes those whose name and values say so.
    unused : ``refuse`` or ``train``: what becomes of conditions in no set where a format trains on all it is not told.
    """

    labels: str = ""
    join: str = "+"
    control: tuple[str, ...] = ()
    source: str = ""
    data: str = ""
    unused: str = "refuse"
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unused not in ("refuse", "train"):
            raise ValueError(f"splits: unused must be refuse or train, got {self.unused!r}")


def shown(names: Iterable[object]) -> str:
    """The first few, sorted.

    Examples
    --------
    >>> shown("gfedcba")
    'a, b, c, d, e, ...'
    """
    ordered = sorted(map(str, names))
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Examples
    --------
    >>> counted(1, "cell"), counted(2000, "cell")
    ('1 cell', '2,000 cells')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def row_names(data: PerturbationDataset, rows: Iterable[int]) -> list[str]:
    """Rows for people: condition and context."""
    conditions = data.conditions
    return [f"{conditions[i]} in {data.context[i]}" for i in rows]


def role_of(text: str, where: str) -> str:
    """The role that a word means.

    Raises
    ------
    UserError
        Another word; ``where`` says in which place.
    """
    word = text.strip().lower()
    if word in BLANK:
        return UNUSED
    if word not in NAMES:
        raise UserError(f"{where}: expected train, val, test or nothing, found {text!r}")
    return NAMES[word]


def one_each(found: Mapping[int, set[str]], data: PerturbationDataset, where: str, step: str) -> np.ndarray:
    """Role of every row, shape (n,), from the roles that were found for it; those of unused cells do not count.

    Raises
    ------
    UserError
        Rows with several roles, counted; ``step`` says what to do.
    """
    several = [i for i, roles in found.items() if len(roles - {UNUSED}) > 1]
    if several:
        raise UserError(
            f"{where}: expected one role per condition, found {len(several)} of {len(data)} with several "
            f"({shown(row_names(data, several))}); {step}"
        )
    role = np.full(len(data), UNUSED, dtype=object)
    for i, roles in found.items():
        role[i] = next(iter(roles - {UNUSED}), UNUSED)
    return role


def by_key(keys: Sequence[K], role: np.ndarray, where: str, step: str) -> dict[K, str]:
    """Role of each key of the rows, in order of first appearance.

    Raises
    ------
    UserError
        Rows of one key have different roles (being in no set is one): the format cannot tell them apart.
    """
    found: dict[K, set[str]] = defaultdict(set)
    for key, told in zip(keys, role.tolist(), strict=True):
        found[key].add(told)
    if several := [key for key, roles in found.items() if len(roles) > 1]:
        names = [" in ".join(map(str, key)) if isinstance(key, tuple) else key for key in several]
        raise UserError(f"{where}: found {len(several)} of {len(found)} with several roles ({shown(names)}); {step}")
    return {key: next(iter(roles)) for key, roles in found.items()}


def labels_of(data: PerturbationDataset, options: Options) -> list[str]:
    """Label of each row as the tool's data file has it.

    Raises
    ------
    UserError
        No such covariate.
    """
    if not options.labels:
        return [options.join.join(entities) for entities in data.entities]
    if options.labels not in data.covariates:
        known = ", ".join(sorted(data.covariates)) or "none"
        raise UserError(
            f"dataset {data.name!r}: no column {options.labels!r} of labels; columns: {known} (keep one at import with "
            "--covariate)"
        )
    return [str(v) for v in np.asarray(data.covariates[options.labels]).tolist()]


class Labels:
    """Rows of a screen by the labels of another tool.

    A label is looked up in the covariate of ``options.labels``, then among the names of the screen's conditions, then
    read as the field writes perturbations (`parse_perturbation`).
    """

    def __init__(self, data: PerturbationDataset, options: Options) -> None:
        self.data, self.options = data, options
        self.rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self.named: dict[str, list[int]] = defaultdict(list)
        own = labels_of(data, options)
        for i, entities in enumerate(data.entities):
            self.rows[entities].append(i)
            self.named[own[i]].append(i)
        self.plain = {"+".join(entities): rows for entities, rows in self.rows.items()}

    def find(self, labels: Iterable[str]) -> dict[str, list[int] | None]:
        """Rows of each label; none for a control, None for a condition that the screen lacks."""
        out: dict[str, list[int] | None] = {}
        rest = []
        for label in dict.fromkeys(labels):
            text = label.strip()
            known = self.named.get(label) or self.plain.get(text)
            if known is None and text:
                rest.append(label)
            out[label] = known
        genes = {*self.data.genes.tolist(), *self.data.entity_names}
        parsed = parse_perturbation(rest, self.options.control, genes, self.data.entity_type).entities
        for label in rest:
            out[label] = self.rows.get(parsed[label]) if parsed[label] else []
        return out


def text_of(path: Path) -> str:
    """A split file as text; see `embbench.core.tables.read_text`."""
    return read_text(path, "a split file")


def first_byte(path: Path) -> bytes:
    """The first byte, which tells pickles from text.

    Raises
    ------
    UserError
        It cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return file.read(1)
    except OSError as error:
        raise UserError(f"{path}: expected a split file, cannot be read: {error.strerror}") from error


def left_out(data: PerturbationDataset, role: np.ndarray, path: Path) -> list[str]:
    """A line on the rows that a file leaves out; none when it speaks of all."""
    rows = np.flatnonzero(role == UNUSED).tolist()
    if not rows:
        return []
    verb = "is" if len(rows) == 1 else "are"
    return [f"{path.name}: {counted(len(rows), 'condition')} {verb} in no set ({shown(row_names(data, rows))})"]
