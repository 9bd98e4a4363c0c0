"""Look after the cache: list, verify and prune embeddings and Gram matrices of screens."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from embbench.cache.home import home
from embbench.cache.store import DamagedFileError, check_seal, read_h5, read_record, sweep, versions
from embbench.core import UserError


@dataclass(frozen=True)
class Item:
    """One cached embedding: its file, spec, shape (m, d), age, and what was found wrong (empty: nothing)."""

    path: Path
    spec: str
    shape: tuple[int, ...]
    size: int
    age_days: float
    written_with: dict[str, str]
    problem: str = ""


def items() -> list[Item]:
    """All cached embeddings, by name, each checked against its seal."""
    return [_item(path) for path in sorted(home("cache").glob("*/*.h5*")) if path.suffix in (".h5", ".damaged")]


def _item(path: Path) -> Item:
    stat = path.stat()
    age = (time.time() - stat.st_mtime) / 86_400
    if path.suffix == ".damaged":
        return Item(path, path.parent.name, (), stat.st_size, age, {}, "set aside as damaged")
    try:
        check_seal(path)
        spec = str(read_record(path).get("spec", path.parent.name))
        with h5py.File(path, "r") as file:
            return Item(path, spec, file["matrix"].shape, stat.st_size, age, json.loads(file.attrs["written-with"]))
    except (UserError, OSError, KeyError, ValueError, TypeError) as error:
        return Item(path, path.parent.name, (), stat.st_size, age, {}, f"unreadable: {error}")


def verify() -> list[Item]:
    """Every cached embedding read through: ``problem`` names damage; library drift is no damage (`drift`)."""
    return [_verified(item) for item in items()]


def _verified(item: Item) -> Item:
    if item.problem:
        return item
    try:
        read_h5(item.path, "gram" if item.path.parent.name == "gram" else "embedding")
    except (DamagedFileError, FileNotFoundError) as error:
        return Item(item.path, item.spec, item.shape, item.size, item.age_days, item.written_with, str(error))
    return item


def drift(item: Item) -> dict[str, tuple[str, str]]:
    """Libraries whose version differs from the one an item was written with: name -> (then, now).

    Examples
    --------
    >>> drift(Item(Path("go.h5"), "go", (2, 3), 64, 0.5, {"h5py": "0.1", "python": versions()["python"]}))["h5py"][0]
    '0.1'
    """
    now = versions()
    return {k: (v, now.get(k, "absent")) for k, v in item.written_with.items() if now.get(k) != v}


def prune(name: str | None = None, older_than_days: float = 0.0) -> list[Item]:
    """Remove cached embeddings (all, of one name, or older than some days), damaged and abandoned temporary files;
    returns the embeddings removed.
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
    """Number of files and megabytes.

    Examples
    --------
    >>> totals([Item(Path("go.h5"), "go", (2, 3), 64, 0.5, {})])
    {'files': 1, 'megabytes': 6.4e-05}
    """
    return {"files": len(found), "megabytes": sum(i.size for i in found) / 1e6}
