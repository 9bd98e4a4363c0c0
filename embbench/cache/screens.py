"""Condition-level screens as artefacts: `PerturbationDataset` <-> HDF5, and the name index of imported ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.home import home
from embbench.cache.keys import array_digest, digest
from embbench.cache.store import DamagedFileError, lock, map_h5, replacing, write_h5
from embbench.core import Cells, PerturbationDataset, UserError

ARRAYS = (
    "effects",
    "truth",
    "genes",
    "context",
    "observed",
    "baseline",
    "baseline_truth",
    "baseline_variance",
    "truth_variance",
    "noise_free",
    "n_cells",
    "dose",
    "labels",
    "labels_tested",
)
JUDGED = ("truth_labels", "truth_labels_tested", "log2fc", "padj")  # not in the digest of screens that lack them


def dataset_digest(data: PerturbationDataset) -> str:
    """16 hex digits of everything a run can see of the screen; ``meta`` is left out except what changes meaning."""
    parts = [getattr(data, name) for name in ARRAYS]
    if data.truth_labels is not data.labels or data.padj is not None:
        parts += [getattr(data, name) for name in JUDGED]
    covariates = {k: array_digest(v) for k, v in data.covariates.items()}
    words = [
        data.unit,
        data.entity_type,
        list(data.contexts),
        [list(e) for e in data.entities],
        covariates,
        data.meta.get("controls"),
        data.meta.get("cells_digest"),
    ]
    return digest([array_digest(*parts), words])


def save_screen(path: Path, data: PerturbationDataset) -> str:
    """Write the condition level of a screen (cells stay where they are); returns the dataset digest."""
    arrays = {name: getattr(data, name) for name in (*ARRAYS, *JUDGED) if getattr(data, name) is not None}
    if data.truth is data.effects:
        del arrays["truth"]
    if data.truth_labels is data.labels:
        arrays = {k: v for k, v in arrays.items() if not k.startswith("truth_labels")}
    arrays |= {f"covariate:{k}": v for k, v in data.covariates.items()}
    key = data.meta.get("digest") or dataset_digest(data)
    facts = {
        "name": data.name,
        "unit": data.unit,
        "entity_type": data.entity_type,
        "contexts": list(data.contexts),
        "entities": [list(e) for e in data.entities],
        "meta": {**data.meta, "digest": key},
    }
    write_h5(path, "screen", arrays, facts)
    return key


def load_screen(path: Path, cells: Cells | None = None) -> PerturbationDataset:
    """A screen written by `save_screen`; its arrays are read-only maps of the file, which processes share."""
    arrays, facts = map_h5(path, "screen")
    covariates = {k.removeprefix("covariate:"): v for k, v in arrays.items() if k.startswith("covariate:")}
    main = {k: v for k, v in arrays.items() if not k.startswith("covariate:")}
    return PerturbationDataset(
        name=facts["name"],
        unit=facts["unit"],
        entity_type=facts["entity_type"],
        contexts=tuple(facts["contexts"]),
        entities=tuple(tuple(e) for e in facts["entities"]),
        covariates=covariates,
        cells=cells,
        meta=facts["meta"],
        **main,
    )


def with_digest(data: PerturbationDataset) -> PerturbationDataset:
    """The screen with its digest in ``meta``.

    Examples
    --------
    >>> effects, genes = np.ones((1, 2), np.float32), np.array(["A", "B"])
    >>> data = PerturbationDataset("toy", effects, "delta", genes, entities=(("A",),), context=np.array(["K562"]))
    >>> with_digest(data).meta["digest"] == dataset_digest(replace(data, name="other"))
    True
    """
    return data if data.meta.get("digest") else replace(data, meta={**data.meta, "digest": dataset_digest(data)})


def imported() -> dict[str, dict[str, Any]]:
    """Name index of imported screens: name -> {digest, ...}."""
    path = home("data", "index.json")
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path}: not a readable name index ({error}); remove it and import again") from error


def register(name: str, facts: dict[str, Any]) -> None:
    """Bind a name to an imported screen (``facts`` holds its digest)."""
    path = home("data", "index.json")
    with lock(path):
        index = imported()
        index[name] = facts
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")


def screen_folder(key: str) -> Path:
    """Folder of an imported screen: ``screen.h5`` and, where cells were kept, ``cells.h5``."""
    return home("data", key)


def load_imported(name: str) -> PerturbationDataset:
    """The imported screen of that name, with its cells if kept; `UserError`: unknown name, or files that are gone."""
    from embbench.cache.cells import H5Cells

    facts = imported().get(name)
    if facts is None:
        raise UserError(f"no imported dataset named {name!r}; known: {', '.join(sorted(imported())) or 'none'}")
    folder = screen_folder(facts["digest"])
    if not (folder / "screen.h5").exists():
        raise UserError(f"dataset {name!r}: {folder / 'screen.h5'} is gone; import it again with embbench data import")
    cells = folder / "cells.h5"
    data = load_screen(folder / "screen.h5")
    return replace(data, cells=H5Cells(cells, data.genes) if cells.exists() else None, name=name)


def string_array(values: Any) -> np.ndarray:
    """Object array of str, shape (m,), as the store returns it.

    Examples
    --------
    >>> string_array(["TP53", 7])
    array(['TP53', '7'], dtype=object)
    """
    return np.array([str(v) for v in values], dtype=object)
