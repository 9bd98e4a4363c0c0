"""Look after the cache: list, verify and prune embedding artefacts."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from embbench.cache.home import home
from embbench.cache.store import DamagedFileError, read_h5, sweep, versions


@dataclass(frozen=True)
class Item:
    """One cached embedding: its file, what it is, and what was found wrong (empty: nothing)."""

    path: Path
    spec: str
    shape: tuple[int, ...]
    size: int
    age_days: float
    written_with: dict[str, str]
    problem: str = ""


def items() -> list[Item]:
    """All cached embeddings, by name, without checking their content."""
    return [_item(path) for path in sorted(home("cache").glob("*/*.h5*")) if path.suffix in (".h5", ".damaged")]


def _item(path: Path) -> Item:
    stat = path.stat()
    age = (time.time() - stat.st_mtime) / 86_400
    if path.suffix == ".damaged":
        return Item(path, path.parent.name, (), stat.st_size, age, {}, "set aside as damaged")
    try:
        with h5py.File(path, "r") as file:
            facts = json.loads(file.attrs["attributes"])
            return Item(
                path, facts["spec"], file["matrix"].shape, stat.st_size, age, json.loads(file.attrs["written-with"])
            )
    except (OSError, KeyError, ValueError) as error:
        return Item(path, path.parent.name, (), stat.st_size, age, {}, f"unreadable: {error}")


def verify() -> list[Item]:
    """Every cached embedding read through: ``problem`` names damage; library drift is no damage (`drift`)."""
    return [_verified(item) for item in items()]


def _verified(item: Item) -> Item:
    if item.problem:
        return item
    try:
        read_h5(item.path, "embedding")
    except (DamagedFileError, FileNotFoundError) as error:
        return Item(item.path, item.spec, item.shape, item.size, item.age_days, item.written_with, str(error))
    return item


def drift(item: Item) -> dict[str, tuple[str, str]]:
    """Libraries whose version differs from the one an item was written with: name -> (then, now)."""
    now = versions()
    return {k: (v, now.get(k, "absent")) for k, v in item.written_with.items() if now.get(k) != v}


def prune(name: str | None = None, older_than_days: float = 0.0) -> list[Item]:
    """Remove cached embeddings (all, of one name, or older than some days), damaged and abandoned temporary files.

    Returns
    -------
    list of Item
        What was removed.
    """
    gone = []
    for item in items():
        chosen = (name is None or item.path.parent.name == name) and item.age_days >= older_than_days
        if chosen or item.path.suffix == ".damaged":
            item.path.unlink(missing_ok=True)
            gone.append(item)
    sweep(home("cache"))
    return gone


def totals(found: list[Item]) -> dict[str, Any]:
    """Number of files and megabytes."""
    return {"files": len(found), "megabytes": sum(i.size for i in found) / 1e6}
