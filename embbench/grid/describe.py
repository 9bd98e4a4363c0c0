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
    return {"facts": facts, "contexts": records, "report": list(data.meta.get("import_report", []))}


def _observed_norms(data: PerturbationDataset) -> np.ndarray:
    return np.sqrt(np.sum(np.where(data.observed, data.truth, 0).astype(np.float64) ** 2, axis=1))


def coverage(data: PerturbationDataset, registry: Registry) -> list[dict[str, Any]]:
    """Every static embedding of the registry: the share of perturbed entities with a vector, or why not."""
    names, out = set(data.entity_names), []
    for entry in registry.entries("embeddings"):
        if (entry.argument and not entry.params.get(entry.argument)) or entry.missing():
            continue
        kind = entry.load()
        if kind.reads or kind.names_matter or kind.needs_names or kind.entity not in ("any", data.entity_type):
            continue
        try:
            table = compute_embedding(registry, entry.name, data, np.arange(len(data)))
        except UserError as error:
            out.append({"embedding": entry.name, "covered": 0, "share": float("nan"), "dim": 0, "note": str(error)})
            continue
        hits = len(names & set(table.names.tolist()))
        out.append(
            {
                "embedding": entry.name,
                "covered": hits,
                "share": hits / len(names),
                "dim": table.matrix.shape[1],
                "note": "",
            }
        )
    return out


def _needs_argument(entry: Entry) -> bool:
    """Whether the entry makes nothing without a value of the user's (a table's path, the embedding to permute)."""
    given = inspect.signature(entry.load()).parameters.get(entry.argument)
    return given is not None and given.default is inspect.Parameter.empty and entry.argument not in entry.params
