"""Contracts of splits."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np

from embbench.checks._contract import Make, name_of, require
from embbench.checks._toy import toy_screen
from embbench.core import Fold, PerturbationDataset, Split

KINDS = ("perturbation", "context", "combination", "transfer", "given")


def _split(make: Make, screen: PerturbationDataset | None = None) -> tuple[Any, PerturbationDataset, Split]:
    splitter, screen = make(), toy_screen() if screen is None else screen
    return splitter, screen, splitter.split(screen)


def split_gives_rows_of_the_screen(make: Make) -> None:
    """A known kind; folds with distinct names, each with training and test rows, which are row numbers, each once."""
    splitter, screen, split = _split(make)
    require(isinstance(split, Split), f"{name_of(splitter)}.split must give a Split, found {type(split).__name__}")
    require(split.kind in KINDS, f"{name_of(splitter)}: kind must be one of {KINDS}, found {split.kind!r}")
    require(split.folds, f"{name_of(splitter)} gives no fold")
    names = [fold.name for fold in split.folds]
    require(len(set(names)) == len(names), f"{name_of(splitter)}: fold names must be distinct, found {names}")
    for fold in split.folds:
        _require_rows(name_of(splitter), fold, len(screen))


def _require_rows(who: str, fold: Fold, n: int) -> None:
    for part, rows in (("train", fold.train), ("test", fold.test), ("validation", fold.validation)):
        whole = isinstance(rows, np.ndarray) and (rows.dtype.kind == "i" or not len(rows))
        inside = whole and len(set(rows.tolist())) == len(rows) and all(0 <= r < n for r in rows.tolist())
        require(inside, f"{who}: {part} rows of {fold.name} must be distinct row numbers below {n}, found {rows!r}")
        require(len(rows) or part == "validation", f"{who}: fold {fold.name} has no {part} rows")
    fits = fold.groups is None or len(fold.groups) == len(fold.test)
    require(fits, f"{who}: groups of {fold.name} must label each of {len(fold.test)} test rows")


def split_parts_are_disjoint(make: Make) -> None:
    """No row is in two of train, validation and test."""
    splitter, _, split = _split(make)
    for fold in split.folds:
        rows = np.concatenate([fold.train, fold.validation, fold.test]).tolist()
        twice = len(rows) - len(set(rows))
        require(not twice, f"{name_of(splitter)}: {twice} rows of {fold.name} are in two of train, validation, test")


def split_tests_a_row_at_most_once(make: Make) -> None:
    """Over all folds no row is scored twice."""
    splitter, _, split = _split(make)
    rows = np.concatenate([fold.test for fold in split.folds]).tolist()
    require(len(set(rows)) == len(rows), f"{name_of(splitter)}: {len(rows) - len(set(rows))} rows are tested twice")


def split_units_cover_every_row(make: Make) -> None:
    """One non-empty tuple of integer codes per row of the screen."""
    splitter, screen, split = _split(make)
    n = len(split.units)
    require(n == len(screen), f"{name_of(splitter)}: units must be {len(screen)} tuples, found {n}")
    good = all(isinstance(u, tuple) and u and all(isinstance(c, int) for c in u) for u in split.units)
    require(good, f"{name_of(splitter)}: every row needs a non-empty tuple of int codes, found e.g. {split.units[:2]}")


def split_holds_out_whole_units(make: Make) -> None:
    """What the kind calls unseen has no training row: an entity of every test row, its context (except the support of
    few-shot splits), its set, or its (set, context).
    """
    splitter, screen, split = _split(make)
    keys = _held_out(split.kind, screen, few_shot=bool(getattr(splitter, "few_shot", 0)))
    if keys is None:
        return
    for fold in split.folds:
        trained = {key for i in fold.train for key in keys(int(i))}
        seen = [int(i) for i in fold.test if trained.issuperset(keys(int(i)))]
        shown = [("+".join(screen.entities[i]), screen.context[i]) for i in seen[:3]]
        require(not seen, f"{name_of(splitter)}: unseen {split.kind} of {fold.name} is in training for {shown}")


def _held_out(kind: str, screen: PerturbationDataset, *, few_shot: bool) -> Callable[[int], list[Hashable]] | None:
    """What of a row must not all be trained."""
    entities, context = screen.entities, screen.context.tolist()
    if kind == "context" and few_shot:
        kind = "transfer"  # the support's perturbations are trained in the held-out context and never scored there
    keys: dict[str, Callable[[int], list[Hashable]]] = {
        "perturbation": lambda i: list(entities[i]),
        "context": lambda i: [context[i]],
        "combination": lambda i: [entities[i]],
        "transfer": lambda i: [(entities[i], context[i])],
    }
    return keys.get(kind)


def split_is_deterministic(make: Make) -> None:
    """Two fresh splits agree."""
    _require_same(make, _split(make)[2], _split(make)[2], "two fresh splits differ; seed it")


def split_never_reads_effects(make: Make) -> None:
    """Noise for effects, truth and labels leaves the split as it is."""
    screen = toy_screen()
    noise = np.random.default_rng(4).normal(size=screen.effects.shape).astype(np.float32)
    blind = replace(screen, effects=noise, truth=noise[::-1].copy(), noise_free=noise, labels=None, labels_tested=None)
    _require_same(make, _split(make, screen)[2], _split(make, blind)[2], "the split depends on the effects")


def _require_same(make: Make, a: Split, b: Split, message: str) -> None:
    def rows(split: Split) -> list[tuple[str, list[int], list[int], list[int]]]:
        return [(f.name, f.train.tolist(), f.test.tolist(), f.validation.tolist()) for f in split.folds]

    require(rows(a) == rows(b) and a.units == b.units, f"{name_of(make())}: {message}")
