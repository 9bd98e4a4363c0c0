"""The common part of single-cell foundation models: static and contextual gene vectors, and cell vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.cache.weights import is_remote, local_folder
from embbench.core import CellView, Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._rows import generator, pick, text_array

if TYPE_CHECKING:
    from embbench.core import Counts
    from embbench.embeddings.models._run import Means, Network

LEVELS = ("static", "gene", "cell")
MODES = ("pooled", "per_context")
PRECISIONS = ("float32", "bfloat16", "float16")
UNTOLD = {"layer": None, "metacells": None, "mode": "pooled", "cells": 1000, "precision": "float32"}  # no use to static


class CellModel(ExtractorDefaults):
    """Vectors of a frozen single-cell foundation model, from its checkpoint as published.

    Parameters
    ----------
    checkpoint : folder or file of the published checkpoint, ``hf:org/name@revision`` or a URL that ``embbench extract``
        fetched; None is ``$EMBBENCH_HOME/weights/<model>``.
    level : ``static``: gene vectors that need no cell; ``gene``: contextual gene vectors, means over half-A control
        cells; ``cell``: one vector per context, the mean of its control cells' vectors (a context embedding).
    layer : for ``gene`` (and ``cell`` where the model reads cells off its layers): 0 is the input embedding, the number
        of layers the final state; None is what the official extraction reads.
    mode : for ``gene``: ``pooled``: one table, the mean over control cells of the contexts of training rows;
        ``per_context``: each context its own table, query contexts included (their controls are used).
    cells : control cells per context; a seeded subset when there are more; None takes all.
    seed : of that subset, and of what the official code draws at random.
    metacells : None feeds cells; K: sums of about K similar cells; ``all``: the sum of all of them (pseudobulk).
    precision : ``float32``, or ``bfloat16`` / ``float16`` autocast.
    device : ``auto``, ``cpu``, ``cuda`` ...; moves numbers by rounding only.
    batch : cells per forward pass; None finds it from memory.

    Notes
    -----
    A subclass gives ``title``, ``wanted`` (files of the checkpoint) and `load`. Means are added up per gene in float64,
    so memory does not grow with the cells. Cells of a context are read one context at a time, half A only.
    """

    title: ClassVar[str] = ""
    wanted: ClassVar[tuple[str, ...]] = ()
    unkeyed: ClassVar[frozenset[str]] = frozenset({"device", "batch"})
    where: ClassVar[str] = ""  # how to get a checkpoint that cannot be fetched

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        layer: int | None = None,
        mode: str = "pooled",
        cells: int | None = 1000,
        seed: int = 0,
        metacells: int | str | None = None,
        precision: str = "float32",
        device: str = "auto",
        batch: int | None = None,
    ) -> None:
        told = {"layer": layer, "metacells": metacells, "mode": mode, "cells": cells, "precision": precision}
        _check(type(self).__name__, level, told, batch)
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.level, self.layer, self.mode, self.cells, self.seed = level, layer, mode, cells, int(seed)
        self.metacells, self.precision, self.device, self.batch = metacells, precision, device, batch
        reads_cells = level != "static"
        self.entity = "context" if level == "cell" else "gene"  # type: ignore[misc]  # one class serves both
        self.reads = frozenset({"controls"} if reads_cells else ())  # type: ignore[misc]
        self.needs_cells = self.by_context = reads_cells  # type: ignore[misc]
        self.joins_contexts = level == "gene" and mode == "pooled"
        self._network: Network | None = None

    def load(self, folder: Path) -> Network:
        """The network of a checkpoint folder; `UserError` where the files are not what was published."""
        raise NotImplementedError(f"{type(self).__name__} must implement load")

    def folder(self) -> Path:
        """The checkpoint folder, existing or not."""
        from embbench.cache.home import home

        return home("weights", self.title) if self.checkpoint is None else local_folder(self.checkpoint)

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        return tuple(self.folder() / name for name in self.wanted)

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Where the files come from: (checkpoint, files) to fetch when it is remote."""
        return () if self.checkpoint is None else ((self.checkpoint, self.wanted),)

    def network(self) -> Network:
        """The loaded network.

        Raises
        ------
        UserError
            Files are missing (says how to get them) or are not what was published.
        """
        if self._network is None:
            if absent := [path.name for path in self.files() if not path.is_file()]:
                remote = self.checkpoint is not None and is_remote(self.checkpoint)
                how = (
                    f"Fetch it once with embbench extract --model {self.title} (or the entry's own name)"
                    if remote
                    else self.where
                )
                raise UserError(
                    f"{self.title}: no {', '.join(absent)} in {self.folder()}. "
                    f"{how or 'Download the published folder'}; or give a folder with --checkpoint"
                )
            self._network = self.load(self.folder())
        return self._network

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked genes (or contexts) that the model knows (None: all).

        Raises
        ------
        UserError
            The checkpoint is missing or not what was published; or control cells, or their counts, are needed and
            the screen has none.
        """
        if self.level == "static":
            return self._static(names)
        if train is None or not isinstance(train.cells, CellView):
            found = "no dataset" if train is None else f"dataset {train.name!r} without cells"
            raise UserError(
                f"{self.title}:level={self.level} reads control cells, found {found}; import the screen from cells, or "
                f"use {self.title}:level=static"
            )
        tables = {train.contexts[code]: self.one_context(train, code) for code in self.codes(train)}
        return self.pool(tables, names, train)

    def codes(self, train: PerturbationDataset) -> list[int]:
        """Contexts with open control cells; for ``mode: pooled`` those of training rows."""
        trained = set(train.context_codes.tolist())
        return [code for code in open_codes(train) if not self.joins_contexts or code in trained]

    def one_context(self, train: PerturbationDataset, code: int) -> Embedding:
        """The vectors of one context: gene means (m, d) with counts, or its cell vector (1, k); float32."""
        from embbench.embeddings.models._panel import gene_names, metacells

        context, view = train.contexts[code], train.cells
        if not isinstance(view, CellView) or not view.n_controls(code):
            raise UserError(f"{self.title}: context {context!r} of {train.name!r} has no control cell in half A")
        chosen = sample(view.n_controls(code), self.cells, self.seed, context)
        if self.metacells is None:
            order = generator("order", self.seed, context).permutation(len(chosen))  # a file is often sorted by batch
            means = self.means(lambda at: view.counts(code, np.sort(chosen[order[at]])), len(chosen), keep=False)
        else:
            grouped = metacells(view.counts(code, chosen), self.metacells, self.seed)
            means = self.means(grouped.rows, len(grouped), keep=False)
        facts = {**self._facts(), "cells": len(chosen), "split_half": means.convergence}
        if self.level == "cell":
            vector = means.cell_mean[None].astype(np.float32)
            return Embedding(text_array([context]), vector, "context", None, facts, np.array([float(len(chosen))]))
        names = np.array(gene_names(self.network().vocabulary))[means.index]
        return Embedding(names, means.mean.astype(np.float32), "gene", None, facts, means.count)

    def means(self, read: Callable[[np.ndarray], Counts], cells: int, *, keep: bool = True) -> Means:
        """Gene means and, to ``keep``, cell vectors of ``cells`` cells that ``read`` gives by position (k,).

        Raises
        ------
        UserError
            No gene of the data is in the model's vocabulary, the layer does not exist, or counts are needed.
        """
        from embbench.embeddings.models._run import Settings, feed

        how = Settings(self.layer, self.precision, self.device, self.batch)
        return feed(self.network(), self.title, read, cells, how, keep=keep)

    def pool(
        self, tables: Mapping[str, Embedding], names: Sequence[str] | None, train: PerturbationDataset
    ) -> Embedding:
        """One table: contexts side by side, or for ``mode: pooled`` the mean weighted by cells over training contexts.

        `UserError` when no context has control cells. See `embbench.core.ContextExtractor`.
        """
        if not tables:
            raise UserError(f"{self.title}: no context of {train.name!r} has open control cells in half A")
        facts = {**self._facts(), "split_half": {c: t.provenance.get("split_half", {}) for c, t in tables.items()}}
        if self.level == "gene" and self.mode == "pooled":
            return weighted(tables, names, {**facts, "contexts": list(tables)})
        facts["uses_query_controls"] = bool(set(tables) - set(train.context.tolist()))
        if self.level == "gene":
            return side_by_side(tables, names, facts)
        return pick(names, list(tables), np.concatenate([t.matrix for t in tables.values()]), "context", facts)

    def _static(self, names: Sequence[str] | None) -> Embedding:
        from embbench.embeddings.models._panel import gene_names

        network = self.network()
        symbols = gene_names(network.vocabulary)
        known = [symbols[i] for i in network.genes.tolist()]
        return pick(names, known, network.static().numpy(), "gene", self._facts())

    def _facts(self) -> dict[str, Any]:
        holds = "knowledge" if self.level == "static" else "controls"
        return {"source": f"{self.title} checkpoint", "level": self.level, "layer": self.layer, "holds": holds}


def sample(available: int, cells: int | None, seed: int, context: str) -> np.ndarray:
    """Ascending positions of the control cells to read: all, or a subset that seed and context decide.

    Examples
    --------
    >>> sample(3, None, 0, "K562"), len(sample(9, 4, 0, "K562"))
    (array([0, 1, 2]), 4)
    """
    if cells is None or available <= cells:
        return np.arange(available)
    return np.sort(generator("controls", seed, context).choice(available, cells, replace=False))


def side_by_side(tables: Mapping[str, Embedding], names: Sequence[str] | None, facts: Mapping[str, Any]) -> Embedding:
    """Each context's vectors of the asked names, as one table with contexts."""
    wanted = None if names is None else set(names)
    rows = {c: [i for i, n in enumerate(t.names.tolist()) if wanted is None or n in wanted] for c, t in tables.items()}
    return Embedding(
        text_array([n for c, t in tables.items() for n in t.names[rows[c]].tolist()]),
        np.concatenate([t.matrix[rows[c]] for c, t in tables.items()]),
        "gene",
        text_array([c for c in tables for _ in rows[c]]),
        facts,
        np.concatenate([t.count[rows[c]] for c, t in tables.items() if t.count is not None]),
    )


def weighted(tables: Mapping[str, Embedding], names: Sequence[str] | None, facts: Mapping[str, Any]) -> Embedding:
    """Mean of the contexts' vectors, each weighted by the cells behind it."""
    wanted = None if names is None else set(names)
    order = list(dict.fromkeys(n for t in tables.values() for n in t.names.tolist() if wanted is None or n in wanted))
    where = {name: i for i, name in enumerate(order)}
    width = next(iter(tables.values())).matrix.shape[1]
    sums, counts = np.zeros((len(order), width)), np.zeros(len(order))
    for table in tables.values():
        own = np.array([i for i, n in enumerate(table.names.tolist()) if n in where], dtype=np.int64)
        rows = np.array([where[n] for n in table.names[own].tolist()], dtype=np.int64)
        weight = np.ones(len(rows)) if table.count is None else table.count[own]
        sums[rows] += table.matrix[own].astype(np.float64) * weight[:, None]
        counts[rows] += weight
    made = pick(names, order, sums / counts[:, None], "gene", facts)
    kept = np.array([where[str(n)] for n in made.names], dtype=np.int64)
    return Embedding(made.names, made.matrix, "gene", None, made.provenance, counts[kept])


def open_codes(train: PerturbationDataset) -> list[int]:
    """Codes of the contexts whose controls are open and not empty."""
    view = train.cells
    codes = range(len(train.contexts))
    if not isinstance(view, CellView):
        return []
    return [code for code in codes if (view.contexts is None or code in view.contexts) and view.n_controls(code)]


def _check(name: str, level: str, told: dict[str, Any], batch: int | None) -> None:
    """Refuse what is out of range, and what would say nothing at that level."""
    _choice(name, "level", level, LEVELS)
    _choice(name, "mode", told["mode"], MODES)
    _choice(name, "precision", told["precision"], PRECISIONS)
    for label, least in (("layer", 0), ("cells", 1), ("metacells", 2)):
        _whole(name, label, None if (label, told[label]) == ("metacells", "all") else told[label], least)
    _whole(name, "batch", batch, 1)
    idle = {k for k, v in told.items() if v != UNTOLD[k]} & (set(UNTOLD) if level == "static" else {"mode"})
    if idle and level != "gene":
        raise ValueError(f"{name}: {', '.join(sorted(idle))} say nothing to level={level}; give level=gene with them")


def _choice(name: str, what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {what} must be one of {', '.join(allowed)}, got {value!r}")


def _whole(name: str, what: str, value: object, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ValueError(f"{name}: {what} must be an integer >= {least} or null, got {value!r}")
