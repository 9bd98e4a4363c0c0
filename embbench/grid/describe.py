"""What a screen holds, and which static embeddings cover it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.grid.screens import detectable
from embbench.grid.vectors import compute_embedding
from embbench.registry import Entry, Registry


def describe(data: PerturbationDataset) -> dict[str, Any]:
    """Counts, effect sizes per context and facts of a screen.

    Returns
    -------
    dict
        ``facts`` (title values) and ``contexts`` (one record per context: conditions, cells, quartiles of the effect
        norm in the dataset's unit, share of detectable conditions).
    """
    norms = np.linalg.norm(data.truth, axis=1) if data.observed is None else _observed_norms(data)
    found = detectable(data)
    records = []
    for code, name in enumerate(data.contexts):
        rows = data.context_codes == code
        cells = "" if data.n_cells is None else int(data.n_cells[rows].sum())
        quartiles = np.percentile(norms[rows], [25, 50, 75]) if rows.any() else np.full(3, np.nan)
        records.append(
            {
                "context": name,
                "conditions": int(rows.sum()),
                "cells": cells,
                "norm q25": quartiles[0],
                "median": quartiles[1],
                "q75": quartiles[2],
                "detectable": float(found[rows].mean()) if rows.any() else 0.0,
            }
        )
    sets = sum(len(e) > 1 for e in data.entities)
    facts = {
        "name": data.name,
        "conditions": len(data),
        "perturbed": f"{len(data.entity_names)} {data.entity_type}s",
        "combinations": sets,
        "contexts": len(data.contexts),
        "genes": data.effects.shape[1],
        "unit": data.unit,
        "cells kept": data.cells is not None,
        **{k: v for k, v in data.meta.items() if isinstance(v, str | int | float)},
    }
    return {"facts": facts, "contexts": records, "report": [*data.meta.get("import_report", []), *_mapping(data)]}


def _mapping(data: PerturbationDataset) -> list[str]:
    """Lines on how names of a condition-level table were read, and what was left out."""
    found = data.meta.get("mapping", {})
    lines = []
    for what in ("genes", "perturbations"):
        if report := found.get(what):
            lines.append(f"{what}: " + ", ".join(f"{n} {status}" for status, n in report["counts"].items()))
            lines += [f"  {status}: {', '.join(shown)}" for status, shown in report["examples"].items()]
    return lines + [f"left out: {n:,} {what}" for what, n in found.get("left_out", {}).items() if n]


def _observed_norms(data: PerturbationDataset) -> np.ndarray:
    return np.sqrt(np.sum(np.where(np.asarray(data.observed), data.truth, 0).astype(np.float64) ** 2, axis=1))


def coverage(data: PerturbationDataset, registry: Registry) -> list[dict[str, Any]]:
    """Every static embedding of the registry: the share of perturbed entities with a vector, or why not."""
    names, out = set(data.entity_names), []
    for entry in registry.entries("embeddings"):
        if entry.missing() or _needs_argument(entry):
            continue
        kind = entry.load()
        if kind.reads or kind.names_matter or kind.needs_names or kind.entity not in ("any", data.entity_type):
            continue
        try:
            table = compute_embedding(registry, entry.name, data, np.arange(len(data)))
        except UserError as error:
            fetch = f"embbench extract --model {entry.name}"
            note = f"not fetched: {fetch}" if fetch in str(error) else str(error)
            out.append({"embedding": entry.name, "covered": 0, "share": float("nan"), "dim": 0, "note": note})
            continue
        hits, dim = len(names & set(table.names.tolist())), table.matrix.shape[1]
        out.append({"embedding": entry.name, "covered": hits, "share": hits / len(names), "dim": dim, "note": ""})
    return out


def _needs_argument(entry: Entry) -> bool:
    """Whether the entry waits for a value of the user's: a table's path, an edge list, the embedding to permute."""
    given = inspect.signature(entry.load()).parameters.get(entry.argument)
    if given is None or entry.argument in entry.params:
        return False
    own_file = bool(entry.needs_file) and entry.argument in ("path", "source", "graph")
    return own_file or given.default is inspect.Parameter.empty
