"""Embeddings by name: their keys, the cache, and the vectors of rows (sets combined, contexts looked up)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.home import home
from embbench.cache.keys import REVISION, array_digest, code_of, digest
from embbench.cache.store import DamagedFileError, lock, read_h5, read_whole, write_h5
from embbench.core import ContextExtractor, Embedding, PerturbationDataset, UserError, view_cells
from embbench.registry import Registry, Spec


def component_facts(spec: Spec, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a component depends on: implementation, parameters, code, and the content of its files.

    Components that read files list them with ``files()``; a parameter that names one of them is left out: moving or
    renaming a file moves no key. So are those that a component calls ``unkeyed``, and ``without``.
    """
    out = {"of", *without, *getattr(spec.entry.load(), "unkeyed", ())}
    params = {k: v for k, v in {**spec.entry.params, **spec.overrides}.items() if k not in out}
    facts: dict[str, Any] = {"impl": spec.entry.impl, "code": code_of(spec.entry.module)}
    if hasattr(spec.entry.load(), "files"):
        files = tuple(spec.alone().files())
        facts["files"] = [file_digest(path) for path in files]
        params = {k: v for k, v in params.items() if not _names_one(v, files)}
    return {**facts, "params": params}


def _names_one(value: object, files: tuple[Path, ...]) -> bool:
    if not isinstance(value, str) or not value:
        return False
    path = Path(value).expanduser()
    return path in files or any(path in file.parents for file in files if file.is_absolute() == path.is_absolute())


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
        return _by_context(spec, extractor, data, _view(extractor.reads, data, train_rows, strict=strict)[0], wanted)
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


def _by_context(
    spec: Spec,
    extractor: ContextExtractor,
    data: PerturbationDataset,
    view: PerturbationDataset,
    wanted: tuple[str, ...],
) -> Embedding:
    """Each context's tensor from the cache or computed, whatever the fold; pooled for this one."""
    facts = [component_facts(spec, frozenset({"mode"})), {"revision": REVISION}]
    cells = data.meta.get("cells_digest") or data.meta["digest"]
    tables = {}
    for code in extractor.codes(view):
        name = data.contexts[code]
        key = [*facts, {"cells": cells, "context": name}]
        tables[name] = cached(spec, key, functools.partial(extractor.one_context, view, code))
    return extractor.pool(tables, wanted, view)


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
                _write(path, spec, facts, compute())
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
    entry = {"holds": spec.entry.holds, "licence": spec.entry.licence, "reference": spec.entry.reference}
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
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    every = np.logical_and.reduceat(found, start)
    if combine == "concat":
        X = np.hstack([np.maximum.reduceat(vectors, start, axis=0), np.minimum.reduceat(vectors, start, axis=0)])
    else:
        X = np.add.reduceat(vectors, start, axis=0)
        if combine == "mean":
            X = X / sizes[:, None]
    return X.astype(np.float32), every
