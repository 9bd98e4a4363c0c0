"""Whether a file is the published one: its first bytes, its size, its hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embbench.cache.datafiles import DataFile
from embbench.cache.download import BLOCK, is_page
from embbench.core import UserError


def verified(
    path: Path, file: DataFile, what: str, step: str, say: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """The sha256 of a file that is the published one, and facts to record: of what it was unpacked, what differs.

    Parameters
    ----------
    what, step : for messages: what it is, what was or can be done.
    say : is told of a hash that a third party gave and that is another.

    Raises
    ------
    UserError
        A web page; another size or another published hash than expected.
    """
    with path.open("rb") as opened:
        if is_page(opened.read(512), file.name):
            raise UserError(f"{what}: expected the file, found a web page (of a network login or a licence?); {step}")
    size = path.stat().st_size
    if not size or file.bytes not in (0, size):
        expected = f"{file.bytes} bytes" if file.bytes else "a file"
        raise UserError(f"{what}: expected {expected}, found {size} bytes; {step}")
    found, facts = _hashes(path, with_md5=bool(file.md5)), dict[str, Any]()
    for kind, value in found.items():
        expected = getattr(file, kind).lower()
        if expected in ("", value):
            continue
        if file.hashes == "published":
            raise UserError(f"{what}: expected {kind} {expected} as published, found {value}; {step}")
        say(f"{what}: {kind} {value} is not {expected}, which a third party noted; kept, and recorded as it is")
        facts["differs"] = {**facts.get("differs", {}), kind: expected}
    if file.unpack:
        facts["packed"] = {"name": file.name, "bytes": size, **found}
    return found["sha256"], facts


def _hashes(path: Path, *, with_md5: bool) -> dict[str, str]:
    """sha256, and md5 where wanted, in one pass."""
    sums = {"sha256": hashlib.sha256()}
    if with_md5:
        sums["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            for each in sums.values():
                each.update(block)
    return {kind: each.hexdigest() for kind, each in sums.items()}
