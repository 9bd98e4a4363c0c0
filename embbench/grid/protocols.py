"""Published protocols as presets of a grid: what one fixes, what selection tries under it, what deviates from it."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.cache.keys import digest
from embbench.core import Inputs, UserError
from embbench.grid.published import dataset_spec, vectors_spec
from embbench.grid.screens import screen
from embbench.registry import Spec, split_specs

if TYPE_CHECKING:
    from embbench.grid.config import Grid

FOLDER = Path(__file__).resolve().parents[1] / "protocols"
DEFAULT = "default"


@dataclass(frozen=True)
class Protocol:
    """One preset, as its file in ``embbench/protocols`` says it.

    Parameters
    ----------
    name, title, reference : what it is called, what it is, where it comes from.
    grid : grid field -> the value it sets.
    within : grid field -> patterns (`fnmatch`) of further values that are no deviation.
    refused : grid fields that cannot be changed under it.
    candidates : head -> parameters that selection tries; other heads keep their own.
    inner : ``folds`` and ``seed`` of the inner k-fold cross-validation; empty: embbench's own.
    controls : how a screen's effects may have been taken (``shared``); others are said as a deviation.
    reads : options of the table reader for plain files given as dataset; a list of columns means the first there is.
    """

    name: str
    title: str
    reference: str
    grid: Mapping[str, Any]
    within: Mapping[str, list[str]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    candidates: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    inner: Mapping[str, int] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    reads: Mapping[str, Any] = field(default_factory=dict)


def protocols() -> tuple[str, ...]:
    """Names of all protocols.

    Examples
    --------
    >>> "cole2026" in protocols()
    True
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@functools.cache
def protocol(name: str) -> Protocol | None:
    """The protocol of that name; None for ``default``, which is none.

    Raises
    ------
    UserError
        Unknown name; near misses are shown.
    """
    import yaml

    if name == DEFAULT:
        return None
    known = protocols()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"no protocol named {name!r}; {hint} (default is none)")
    facts: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    facts |= {k: tuple(facts[k]) for k in ("refused", "controls") if k in facts}
    return Protocol(name, **facts)


def described(name: str) -> list[str]:
    """What a protocol fixes, line by line, for ``embbench list protocols``.

    Examples
    --------
    >>> described("cole2026")[2]
    '  sets split: given:test_split:folds=5'
    """
    told = protocol(name)
    if told is None:
        return [DEFAULT, "  sets nothing: embbench's own defaults"]
    lines = [name, f"  {told.title}"]
    lines += [f"  sets {k}: {', '.join(v) if isinstance(v, list) else v}" for k, v in told.grid.items()]
    for head, tried in told.candidates.items():
        lines.append(f"  {head} tries " + "; ".join(", ".join(f"{k}={v}" for k, v in c.items()) for c in tried))
    if told.inner:
        lines.append(f"  inner folds: KFold({told.inner['folds']}, shuffle=True, random_state={told.inner['seed']})")
    return [*lines, f"  source: {told.reference}"]


def expanded(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a grid with those that its protocol sets and the user does not; plain files become table specs.

    Raises
    ------
    UserError
        An unknown protocol, a field that it does not let be changed, or a file without the columns it needs.
    """
    told = protocol(str(content.get("protocol") or DEFAULT))
    if told is None:
        return dict(content)
    for name in told.refused:
        if name in content and content[name] != told.grid[name]:
            raise UserError(
                f"protocol {told.name} fixes {name} to {told.grid[name]!r}, found {content[name]!r}; leave {name} out, "
                "or run without the protocol"
            )
    out = {**told.grid, **content}
    if told.reads:
        readers: dict[str, Callable[[str], str]] = {
            "dataset": functools.partial(dataset_spec, told.reads["dataset"]),
            "emb": vectors_spec,
        }
        for name in readers.keys() & out.keys():
            texts = split_specs(out[name]) if isinstance(out[name], str) else out[name]
            out[name] = [readers[name](text) for text in texts]
    return out


def deviations(grid: Grid, paths: tuple[str, ...] = ()) -> list[str]:
    """What of a grid is not as its protocol has it, one line each; empty without a protocol.

    ``paths`` are further registry files. Screens are loaded, since the protocol may say against which controls.
    """
    told = protocol(grid.protocol)
    if told is None:
        return []
    out = []
    for name, value in told.grid.items():
        own = getattr(grid, name)
        listed = isinstance(value, list)
        found = [v for v in (own if listed else [own]) if not _allowed(told, name, v, value if listed else [value])]
        if found:
            expected = ", ".join(map(str, value)) if listed else value
            out.append(f"{name} {', '.join(map(str, found))} (the protocol: {expected})")
    for name in grid.dataset if told.controls else ():
        controls = str(screen(name, grid.genes, paths).meta.get("controls", "none"))
        if controls not in (*told.controls, "none"):
            out.append(
                f"controls {controls} of {name} (the protocol: {', '.join(told.controls)}; embbench data import "
                "--controls shared)"
            )
    return out


def _allowed(told: Protocol, name: str, value: object, fixed: list[Any]) -> bool:
    patterns = told.within.get(name, [])
    return value in fixed or any(fnmatchcase(str(value), pattern) for pattern in patterns)


def key_facts(name: str) -> dict[str, Any]:
    """What a run's numbers depend on beyond its coordinates, for its key; empty for ``default``."""
    told = protocol(name)
    return {} if told is None else {"protocol": digest([dict(told.candidates), dict(told.inner)])}


def offered(spec: Spec, name: str) -> Spec:
    """The head with the candidates that the protocol has for it; unchanged where it has none."""
    told = protocol(name)
    tried = None if told is None else told.candidates.get(spec.entry.name)
    return spec if tried is None else replace(spec, tried=tuple(tried))


def inner_units(inputs: Inputs, name: str) -> Inputs:
    """Training rows whose units are the protocol's inner folds, so that selection holds those out.

    Units are numbered as they first appear, shuffled and cut as scikit-learn's ``KFold(folds, shuffle=True,
    random_state=seed)`` does it: with one row per unit these are its folds of rows. A row of several units (a
    combination) belongs to the folds of all of them.
    """
    told = protocol(name)
    if told is None or not told.inner:
        return inputs
    order = list(dict.fromkeys(code for row in inputs.units for code in row))
    fold = kfold(len(order), min(told.inner["folds"], len(order)), told.inner["seed"])
    where = dict(zip(order, fold.tolist(), strict=True))
    return replace(inputs, units=tuple(tuple(sorted({where[code] for code in row})) for row in inputs.units))


def equal_folds(name: str) -> bool:
    """Whether each inner fold's mean counts once, whatever its size, as in scikit-learn's search; embbench's own
    selection takes the mean over rows.
    """
    told = protocol(name)
    return told is not None and bool(told.inner)


def kfold(n: int, folds: int, seed: int) -> np.ndarray:
    """Fold of each of ``n`` rows, shape (n,), int64, as scikit-learn's shuffled ``KFold`` deals them; 0 for one fold.

    Examples
    --------
    >>> kfold(5, 2, 42).tolist()
    [1, 0, 0, 1, 0]
    """
    from sklearn.model_selection import KFold

    fold = np.zeros(n, dtype=np.int64)
    if folds > 1:
        for number, (_, held) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(fold)):
            fold[held] = number
    return fold
