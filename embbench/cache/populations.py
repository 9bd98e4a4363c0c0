"""Predicted cells as files that `anndata.read_h5ad` opens, sealed like every artefact; written without anndata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.cache.store import FORMAT, SEAL, DamagedFileError, check_seal, content_hash, replacing, seal, versions

KIND = "population"
EMPTY = ("layers", "obsm", "varm", "obsp", "varp")  # parts of an AnnData that a population has none of
INDEX = "_index"


def write_population(
    path: Path, cells: np.ndarray, obs: Mapping[str, np.ndarray], genes: np.ndarray, uns: Mapping[str, Any]
) -> str:
    """Write cells atomically in AnnData's on-disk format, sealed in the user block, which HDF5 readers skip.

    Parameters
    ----------
    path : final file; an existing one is replaced.
    cells : (n, g) float32.
    obs : columns of length n; text becomes a categorical. ``_index`` holds the names of the cells.
    genes : (g,) names.
    uns : text, numbers and mappings of those.

    Returns
    -------
    str
        sha256 of the content.

    References
    ----------
    anndata, On-disk format (encoding-type and encoding-version of version 0.8 and later).
    """
    sha = _content(cells, obs, genes, uns)
    with replacing(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=SEAL) as file:
            _mark(file, "anndata", "0.1.0")
            _mark(file.create_dataset("X", data=cells), "array", "0.2.0")
            _frame(file.create_group("obs"), obs)
            _frame(file.create_group("var"), {INDEX: genes})
            _tree(file.create_group("uns"), uns)
            for name in EMPTY:
                _tree(file.create_group(name), {})
            file.attrs.update({"embbench-type": KIND, "embbench-version": FORMAT, "sha256": sha, "complete": True})
            file.attrs["written-with"] = json.dumps(versions())
        seal(temporary)
    return sha


def read_population(path: Path, kind: str = KIND) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """``{"cells": (n, g) float32}`` and ``{"sha256": ...}``, verified.

    Raises
    ------
    DamagedFileError
        Not a population of embbench, incomplete, truncated or altered.
    """
    check_seal(path)
    try:
        with h5py.File(path, "r") as file:
            if (found := file.attrs.get("embbench-type")) != kind:
                raise DamagedFileError(f"{path}: expected a {kind} file, found {found}")
            return {"cells": file["X"][...]}, {"sha256": str(file.attrs["sha256"])}
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DamagedFileError(f"{path}: not a readable HDF5 file: {error}") from error


def content_of(path: Path) -> str:
    """sha256 of the content that a population file says it has; empty when there is no such file."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("sha256", ""))
    except FileNotFoundError:
        return ""


def _content(cells: np.ndarray, obs: Mapping[str, np.ndarray], genes: np.ndarray, uns: Mapping[str, Any]) -> str:
    columns = {f"obs/{name}": np.asarray(values) for name, values in obs.items()}
    return content_hash({"X": cells, "var": np.asarray(genes, dtype=object), **columns}, {"uns": uns})


def _mark(item: h5py.Group | h5py.Dataset, kind: str, version: str) -> None:
    item.attrs.update({"encoding-type": kind, "encoding-version": version})


def _texts(group: h5py.Group, name: str, values: np.ndarray) -> None:
    data = np.asarray(values).astype(object)
    _mark(group.create_dataset(name, data=data, dtype=h5py.string_dtype()), "string-array", "0.2.0")


def _frame(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    _mark(group, "dataframe", "0.2.0")
    names = [name for name in columns if name != INDEX]
    group.attrs[INDEX] = INDEX
    group.attrs.create("column-order", np.array(names, dtype=object), shape=(len(names),), dtype=h5py.string_dtype())
    _texts(group, INDEX, columns[INDEX])
    for name in names:
        values = np.asarray(columns[name])
        if values.dtype.kind in "OU":
            _categorical(group.create_group(name), values)
        else:
            _mark(group.create_dataset(name, data=values), "array", "0.2.0")


def _categorical(group: h5py.Group, values: np.ndarray) -> None:
    """Text as codes into its sorted distinct values: cells repeat their condition hundreds of times."""
    categories, codes = np.unique(values.astype(str), return_inverse=True)
    _mark(group, "categorical", "0.2.0")
    group.attrs["ordered"] = False
    _texts(group, "categories", categories)
    smallest = np.min_scalar_type(-max(1, len(categories)))
    _mark(group.create_dataset("codes", data=codes.astype(smallest)), "array", "0.2.0")


def _tree(group: h5py.Group, content: Mapping[str, Any]) -> None:
    _mark(group, "dict", "0.1.0")
    for name, value in content.items():
        if isinstance(value, Mapping):
            _tree(group.create_group(name), value)
        elif isinstance(value, str):
            _mark(group.create_dataset(name, data=value, dtype=h5py.string_dtype()), "string", "0.2.0")
        else:
            _mark(group.create_dataset(name, data=value), "numeric-scalar", "0.2.0")
