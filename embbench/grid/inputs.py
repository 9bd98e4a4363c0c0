"""From names to `Inputs`: vectors of training and query rows, features fitted on training rows, what is covered."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from embbench.cache.keys import array_digest
from embbench.core import Embedding, Inputs, PerturbationDataset
from embbench.grid.kept import Kept
from embbench.grid.vectors import row_vectors
from embbench.registry import Spec


@dataclass(frozen=True)
class Rows:
    """Conditions by name, in the screen or not: n entity sets, contexts and doses."""

    entities: tuple[tuple[str, ...], ...]
    context: np.ndarray
    dose: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True)
class Tables:
    """The frozen vectors of one run: perturbation blocks, and context vectors or None."""

    blocks: tuple[tuple[str, Embedding], ...] = ()
    context: Embedding | None = None
    combine: str = "sum"
    graph: tuple[np.ndarray, sparse.csr_matrix] | None = None


_Featured = tuple[np.ndarray, tuple[tuple[str, slice], ...], list[int]]  # features, their blocks, and which those are
_FEATURES: Kept[_Featured] = Kept(1 << 28, lambda made: made[0].nbytes)


@dataclass(frozen=True)
class Raw:
    """Inputs before features: ``X`` holds raw vectors (0 where missing)."""

    inputs: Inputs

    @functools.cached_property
    def mark(self) -> str:
        """16 hex digits of what features are made of."""
        return array_digest(self.inputs.X, self.inputs.found, [f"{n}{w}" for n, w in self.inputs.blocks])

    def featured(self, features: Spec, fit: np.ndarray) -> Inputs:
        """Features fitted on rows ``fit`` (n,) bool or indices, applied to all rows.

        Each block is transformed by itself. With several blocks each is divided by its root-mean-square row norm over
        the fitting rows, so that a wide block does not drown a narrow one. A block that no fitting row has is left out.
        The heads of one embedding and fold share them.
        """
        spec = (features.entry.impl, str(features.entry.params), str(features.overrides))
        key = (self.mark, spec, array_digest(np.arange(len(self.inputs))[fit]))
        X, blocks, kept = _FEATURES.get(key, lambda: self._transformed(features, fit))
        return replace(self.inputs, X=X, blocks=blocks, found=np.asarray(self.inputs.found)[:, kept])

    def _transformed(self, features: Spec, fit: np.ndarray) -> _Featured:
        raw, start = self.inputs, 0
        parts: list[np.ndarray] = []
        blocks: list[tuple[str, slice]] = []
        kept: list[int] = []
        has = np.asarray(raw.found)
        for number, (name, where) in enumerate(raw.blocks):
            found = has[:, number]
            fitted = np.zeros(len(raw), dtype=bool)
            fitted[fit] = True
            fitted &= found
            if not fitted.any():
                continue
            transform = features.make().fit(raw.X[fitted, where])
            values = transform.transform(raw.X[found, where])
            part = np.zeros((len(raw), values.shape[1]), dtype=np.float32)
            part[found] = values
            if hasattr(transform, "fitted_"):  # a transform may have values of its own for the rows it was fitted on
                part[fitted] = transform.fitted_
            if len(raw.blocks) > 1:
                norm = np.sqrt(np.mean(np.sum(part[fitted].astype(np.float64) ** 2, axis=1)))
                part /= np.float32(norm) if norm > 0 else np.float32(1)
            parts.append(part)
            blocks.append((name, slice(start, start + part.shape[1])))
            kept.append(number)
            start += part.shape[1]
        X = np.hstack(parts) if parts else np.zeros((len(raw), 0), dtype=np.float32)
        X.setflags(write=False)
        return X, tuple(blocks), kept


def covered(inputs: Inputs, *, handles_missing: bool) -> np.ndarray:
    """(n,) bool rows that have the vectors a head needs: every block, or any where the head handles missing ones."""
    if not inputs.blocks:
        return np.ones(len(inputs), dtype=bool)
    found = np.asarray(inputs.found)
    return np.asarray(found.any(axis=1) if handles_missing else found.all(axis=1))


def assemble(
    data: PerturbationDataset,
    tables: Tables,
    train: np.ndarray,
    query: Rows,
    units: Sequence[tuple[int, ...]],
    *,
    strict: bool = False,
) -> tuple[Raw, int]:
    """Raw inputs of training rows followed by query rows; entity and context codes are shared.

    Parameters
    ----------
    data : the screen.
    tables : vectors of the run.
    train : training row numbers.
    query : conditions to predict.
    units : held-out unit codes per dataset row.
    strict : leave out what the controls of contexts without training rows would give.

    Returns
    -------
    raw, n_train
    """
    known = Rows(
        tuple(data.entities[i] for i in train), data.context[train], None if data.dose is None else data.dose[train]
    )
    entities = known.entities + query.entities
    context = np.concatenate([known.context, query.context])
    codes = {name: i for i, name in enumerate(data.contexts)}
    baseline, cells = data.controls(train, frozenset(data.context_codes[train].tolist()) if strict else None)
    X, found, blocks = _blocks(tables, entities, context.tolist())
    dose = None
    if data.dose is not None:
        asked = query.dose if query.dose is not None else np.full(len(query), np.nan)
        dose = np.nan_to_num(
            np.concatenate([known.dose, asked]).astype(np.float32), nan=float(np.nanmedian(data.dose[train]))
        )
    vectors = tables.context.lookup(list(data.contexts))[0] if tables.context is not None else None
    names = sorted({e for row in entities for e in row})
    inputs = Inputs(
        X=X,
        context=np.array([codes[c] for c in context.tolist()], dtype=np.int64),
        entities=_indicator(entities, names),
        units=tuple(units[i] for i in train) + ((),) * len(query),
        blocks=blocks,
        found=found,
        dose=dose,
        baseline=baseline,
        context_vector=vectors,
        graph=_graph(tables, names),
        cells=cells,
    )
    return Raw(inputs), len(train)


def query_part(inputs: Inputs, index: np.ndarray) -> Inputs:
    """Query rows: the same codes, half-A controls open, every perturbed cell closed."""
    part = replace(inputs, cells=None).rows(index)
    if inputs.cells is None:
        return part
    return replace(part, cells=replace(inputs.cells, rows=np.array([], dtype=np.int64)))


def _blocks(
    tables: Tables, entities: Sequence[tuple[str, ...]], context: list[str]
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[str, slice], ...]]:
    pairs = [*tables.blocks, *([("context", tables.context)] if tables.context is not None else [])]
    parts, found, blocks, start = [], [], [], 0
    for name, table in pairs:
        vectors, has = row_vectors(table, entities, context, tables.combine)
        parts.append(np.where(has[:, None], vectors, np.float32(0)))
        found.append(has)
        blocks.append((name, slice(start, start + vectors.shape[1])))
        start += vectors.shape[1]
    n = len(entities)
    X = np.hstack(parts) if parts else np.zeros((n, 0), dtype=np.float32)
    return X, np.stack(found, axis=1) if found else np.zeros((n, 0), dtype=bool), tuple(blocks)


def _indicator(entities: Sequence[tuple[str, ...]], names: list[str]) -> sparse.csr_matrix:
    column = {name: i for i, name in enumerate(names)}
    indptr = np.concatenate([[0], np.cumsum([len(e) for e in entities])])
    indices = np.array([column[name] for e in entities for name in e], dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(entities), len(names)))


def _graph(tables: Tables, names: list[str]) -> sparse.csr_matrix | None:
    if tables.graph is None:
        return None
    nodes, edges = tables.graph
    where = {name: i for i, name in enumerate(nodes.tolist())}
    index = np.array([where.get(name, -1) for name in names])
    chosen = index[index >= 0]
    out = sparse.lil_matrix((len(names), len(names)), dtype=np.float32)
    known = np.flatnonzero(index >= 0)
    if len(known):
        out[np.ix_(known, known)] = edges[chosen][:, chosen]
    return out.tocsr()
