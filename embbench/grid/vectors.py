"""Embeddings by name: their keys, the cache, and the vectors of rows (sets combined, contexts looked up)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.home import home
from embbench.cache.keys import REVISION, array_digest, code_of, digest
from embbench.cache.store import DamagedFileError, lock, read_h5, read_whole, write_h5
from embbench.cache.weights import is_remote
from embbench.core import CellView, ContextExtractor, Embedding, PerturbationDataset, UserError, view_cells
from embbench.grid.threads import one_thread
from embbench.registry import FILES, Registry, Spec


def component_facts(spec: Spec, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a component depends on: implementation, parameters, code, and the content of its files.

    Components that read files list them with ``files()``; a parameter that names one of them is left out: moving or
    renaming a file moves no key. So are those that a component calls ``unkeyed``, and ``without``.
    """
    kind = spec.entry.load()
    made: Any = spec.alone() if hasattr(kind, "files") or getattr(kind, "unkeyed", False) else None
    out = {"of", *without, *getattr(made, "unkeyed", ())}
    params = {k: v for k, v in {**spec.entry.params, **spec.overrides}.items() if k not in out}
    facts: dict[str, Any] = {"impl": spec.entry.impl, "code": code_of(spec.entry.module)}
    if hasattr(kind, "files"):
        files = tuple(made.files())
        facts["files"] = [file_digest(path) for path in files]
        params = {k: v for k, v in params.items() if not _names_one(k, v, files)}
    return {**facts, "params": params}


def _names_one(name: str, value: object, files: tuple[Path, ...]) -> bool:
    """Whether a parameter says where one of the files lies; only those of `FILES` may do so by a folder or address."""
    if not isinstance(value, str) or not value:
        return False
    path = Path(value).expanduser()
    inside = any(path in file.parents for file in files if file.is_absolute() == path.is_absolute())
    return path in files or (name in FILES and (inside or is_remote(value)))


def file_digest(path: Path) -> str:
    """``sha256:...`` of a file's bytes; ``missing`` where there is none (such a run is skipped with that reason)."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return _hash_files(path, stat.st_size, stat.st_mtime_ns) if path.is_file() else "missing"


@functools.lru_cache(maxsize=256)
def _hash_files(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def spec_facts(registry: Registry, text: str) -> list[dict[str, Any]]:
    """Facts of an embedding spec and, for ``permuted:x``, of the embedding it permutes."""
    spec = registry.parse("embeddings", text)
    inner = spec.overrides.get("of")
    return [component_facts(spec), *(spec_facts(registry, inner) if isinstance(inner, str) else [])]


def compute_embedding(
    registry: Registry,
    text: str,
    data: PerturbationDataset,
    train_rows: np.ndarray,
    *,
    strict: bool = False,
    extra: frozenset[str] = frozenset(),
) -> Embedding:
    """The vectors that a fold may use: from the cache where the key exists, else computed and stored.

    Parameters
    ----------
    registry : where ``text`` is looked up.
    text : embedding spec, e.g. ``go``, ``pca_per_context``, ``permuted:go:draw=2``.
    data : the whole screen; extractors get a training view of it (oracles, and only they, get all of it).
    train_rows : training rows of the fold.
    strict : close the controls of contexts without training rows.
    extra : names beyond the screen's own (predictions of new perturbations).

    Raises
    ------
    UserError
        Unknown name, missing weights or cells, a damaged source.
    """
    spec = registry.parse("embeddings", text)
    if isinstance(spec.overrides.get("of"), str):
        asks = spec.alone().inner_names if hasattr(spec.entry.load(), "inner_names") else None
        more = extra if asks is None else frozenset(asks())
        inner = compute_embedding(registry, spec.overrides["of"], data, train_rows, strict=strict, extra=more)
        outer = spec.make(of=inner)
        entity = inner.entity if outer.entity == "any" else outer.entity
        return outer.compute(wanted_names(entity, data, extra), None)
    extractor = spec.make()
    if extractor.needs_cells and data.cells is None:
        raise UserError(f"embedding {text!r} needs control cells; {data.name} has none (condition-level data)")
    wanted = wanted_names(extractor.entity, data, extra)
    if extractor.by_context:
        return _by_context(spec, extractor, data, train_rows, wanted, strict=strict)
    facts = [component_facts(spec), {"revision": REVISION}]
    names = wanted if extractor.names_matter or extractor.needs_names else None
    train = None
    if extractor.reads:
        train, seen = _view(extractor.reads, data, train_rows, strict=strict)
        names = wanted
        facts.append(seen)
    if names is not None:
        facts.append({"names": array_digest(list(names))})
    return cached(spec, facts, lambda: extractor.compute(names, train))


@dataclass(frozen=True)
class _Pooled:
    """A pooled table, equal to another one when their keys are."""

    key: str
    make: Callable[[], Embedding] = field(compare=False)


@functools.lru_cache(maxsize=8)
def _pooled(table: _Pooled) -> Embedding:
    """Pooling passes over all contexts' tensors: once for the runs of a fold, not once per run."""
    return table.make()


def _by_context(
    spec: Spec,
    extractor: ContextExtractor,
    data: PerturbationDataset,
    rows: np.ndarray,
    wanted: tuple[str, ...],
    *,
    strict: bool,
) -> Embedding:
    """Each context's tensor from the cache or computed, whatever the fold; pooled for this one."""
    facts = component_facts(spec, frozenset({"mode"}))
    cells = data.meta.get("cells_digest") or data.meta["digest"]

    def make() -> Embedding:
        view, _ = _view(extractor.reads, data, rows, strict=strict)
        tables = {}
        for code in extractor.codes(view):
            name, panel = data.contexts[code], _panel(view, code)
            key = [facts, {"revision": REVISION}, {"cells": cells, "panel": array_digest(panel), "context": name}]
            tables[name] = cached(spec, key, functools.partial(extractor.one_context, view, code))
        return extractor.pool(tables, wanted, view)

    trained = sorted(set(data.context_codes[rows].tolist()))
    home_and_data = [str(home("cache")), data.meta["digest"], trained, strict, array_digest(list(wanted))]
    return _pooled(_Pooled(digest([component_facts(spec), home_and_data]), make))


def _panel(view: PerturbationDataset, code: int) -> np.ndarray:
    """Gene names of the cells' panel, which the digest of the cells does not name."""
    empty = np.zeros(0, dtype=np.int64)
    return view.genes if not isinstance(view.cells, CellView) else view.cells.counts(code, empty).genes


def _view(
    reads: frozenset[str], data: PerturbationDataset, rows: np.ndarray, *, strict: bool
) -> tuple[PerturbationDataset, dict[str, Any]]:
    contexts = frozenset(data.context_codes[rows].tolist())
    seen: dict[str, Any] = {"dataset": data.meta["digest"], "contexts": sorted(contexts), "strict": strict}
    if "truth" in reads:
        return data, seen
    if "effects" in reads:
        seen["rows"] = array_digest(rows, data.effects[rows])
    view = data.training(rows, open_contexts=contexts if strict else None)
    if "effects" not in reads:  # what the key does not name cannot be read
        blank = np.zeros_like(view.effects)
        cells = None if view.cells is None else view_cells(view.cells, np.array([], dtype=np.int64))
        view = replace(view, effects=blank, truth=blank, labels=None, labels_tested=None, cells=cells)
    return view, seen


def wanted_names(entity: str, data: PerturbationDataset, extra: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The names of a screen (and ``extra`` perturbations) that an embedding of this entity kind can serve."""
    return data.contexts if entity == "context" else tuple(sorted({*data.entity_names, *extra}))


def cached(spec: Spec, facts: list[dict[str, Any]], compute: Any) -> Embedding:
    """Read the embedding of that key, or compute and write it under a lock (one file, whoever comes first)."""
    path = home("cache", spec.entry.name, f"{digest(facts)}.h5")
    found = _read(path)
    if found is None:
        with lock(path):
            found = _read(path) if read_whole(path, "embedding") is not None else None  # a damaged one is set aside
            if found is None:
                with one_thread():  # whoever asks first: the API, a verb or a grid
                    table = compute()
                _write(path, spec, facts, table)
                found = _read(path)
    if found is None:
        raise DamagedFileError(f"{path}: vanished right after it was written; is another program clearing the cache?")
    return found


def _read(path: Path) -> Embedding | None:
    try:
        stat = path.stat()
        return _load(path, stat.st_mtime_ns, stat.st_size)
    except (FileNotFoundError, DamagedFileError):  # `cached` looks again, and repairs, under the lock
        return None


@functools.lru_cache(maxsize=32)
def _load(path: Path, mtime: int, size: int) -> Embedding:
    arrays, facts = read_h5(path, "embedding")
    count = arrays.get("count")
    return Embedding(
        arrays["names"], arrays["matrix"], facts["entity"], arrays.get("contexts"), facts["provenance"], count
    )


def _write(path: Path, spec: Spec, facts: list[dict[str, Any]], table: Embedding) -> None:
    arrays = {"names": np.asarray(table.names, dtype=object), "matrix": table.matrix}
    if table.contexts is not None:
        arrays["contexts"] = np.asarray(table.contexts, dtype=object)
    if table.count is not None:
        arrays["count"] = table.count
    entry = {"information": spec.information, "licence": spec.entry.licence, "reference": spec.entry.reference}
    attributes = {"key": facts, "entity": table.entity, "provenance": {**entry, **dict(table.provenance)}}
    write_h5(path, "embedding", arrays, attributes, {"spec": spec.text})


def row_vectors(
    table: Embedding, entities: Sequence[tuple[str, ...]], contexts: Sequence[str], combine: str
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of rows whose perturbation is a set.

    Parameters
    ----------
    table : names are entities, or contexts for context embeddings.
    entities : n sets.
    contexts : n context names.
    combine : ``sum``, ``mean`` or ``concat`` (order-free: element-wise maximum beside element-wise minimum, so that
        (A, B) and (B, A) agree and a single gene is twice its own vector).

    Returns
    -------
    X : (n, d) or (n, 2 d) float32, NaN where a member has no vector.
    found : (n,) bool.
    """
    if table.entity == "context":
        return table.lookup(list(contexts))
    sizes = np.array([len(e) for e in entities])
    flat = [name for e in entities for name in e]
    where = np.repeat(np.asarray(contexts, dtype=object), sizes).tolist()
    vectors, found = table.lookup(flat, where if table.contexts is not None else None)
    if combine != "concat" and (sizes == 1).all():
        return vectors.astype(np.float32, copy=False), found
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    every = np.logical_and.reduceat(found, start)
    if combine == "concat":
        X = np.hstack([np.maximum.reduceat(vectors, start, axis=0), np.minimum.reduceat(vectors, start, axis=0)])
    else:
        X = np.add.reduceat(vectors, start, axis=0)
        if combine == "mean":
            X = X / sizes[:, None]
    return X.astype(np.float32), every
