"""Whether a file is the published one: its first bytes, its end, its size, its hashes. No network."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from embbench.cache.datafiles import DataFile
from embbench.cache.fetched import IN_PLACE, Fetched, twins
from embbench.core import UserError

BLOCK = 1 << 20
PAGES = (".html", ".htm", ".xml", ".svg")
HDF5 = b"\x89HDF\r\n\x1a\n"


def is_page(head: bytes, name: str) -> bool:
    """Whether bytes begin as a web page does, and the file is none by its name.

    Examples
    --------
    >>> is_page(b"<!DOCTYPE html><html>", "a.h5ad"), is_page(b"<html>", "a.html"), is_page(b"TP53", "genes.txt")
    (True, False, False)
    """
    start = head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html")) and not name.endswith(PAGES)


def verified(
    path: Path, file: DataFile, what: str, step: str, say: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """The sha256 of a file that is the published one, and facts to record: whose hash it has, what differs.

    Parameters
    ----------
    what, step : for messages: what it is, what was or can be done.
    say : is told of a hash that a third party gave and that is another.

    Raises
    ------
    UserError
        A web page; another size or another published hash than expected; without such a hash, a file that ends early.
    """
    with path.open("rb") as opened:
        if is_page(opened.read(512), file.name):
            raise UserError(f"{what}: expected the file, found a web page (of a network login or a licence?); {step}")
    size = path.stat().st_size
    if not size or file.bytes not in (0, size):
        expected = f"{file.bytes} bytes" if file.bytes else "a file"
        raise UserError(f"{what}: expected {expected}, found {size} bytes; {step}")
    if file.hashes != "published" and (reason := ends_early(path, file)):
        raise UserError(f"{what}: expected a whole file, found {size} bytes that end early ({reason}); {step}")
    found, facts = _hashes(path, with_md5=bool(file.md5)), dict[str, Any](hashes=file.hashes)
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


def checked(record: Fetched, file: DataFile, name: str, step: str, say: Callable[[str], None]) -> bool:
    """Check a stored file that lies in the folder of ``record``; returns whether the record changed.

    A file that a person put there is compared with what is published, once, as if it had just arrived. One that the
    person unpacked can be compared with nothing, and is recorded.

    Parameters
    ----------
    name : of the file as stored; ``step`` and ``say`` as in `verified`.

    Raises
    ------
    UserError
        It changed since it was recorded, or is not the published one.
    """
    known = record.files.get(name, {"from": IN_PLACE})
    told = {key: value for key in ("bytes", "md5", "sha256") if (value := getattr(file, key))}
    if file.unpack or known.get("from") != IN_PLACE or known.get("compared") == told:
        return record.check(name)
    path = record.root / name
    sha, facts = verified(path, file, str(path), step, say)
    return record.check(name, seen=sha, compared=told, **facts)


def twin(
    record: Fetched, file: DataFile, *, mirrored: bool, say: Callable[[str], None]
) -> tuple[Path, str, str, dict[str, Any]] | None:
    """A file in the folder of another dataset that is this one: its path, origin, sha256, and facts to record.

    It has the hash that is known of this file, or came from this file's own address; and is read and checked as a file
    that arrives is.

    Parameters
    ----------
    record : of the folder that lacks the file.
    mirrored : whether a mirror replaces the addresses, so that they say nothing.
    """
    before = record.files.get(file.name)
    plain = [address for address, _, query in (url.partition("?") for url in file.urls) if query in ("", "download=1")]
    for path, facts in twins(record.root, file.name):
        sha, origin = str(facts.get("sha256")), str(facts.get("from"))
        own = origin in plain and not mirrored  # other queries are not recorded, and may tell files apart
        if not (own or file.md5 or file.sha256) or (before and before.get("sha256") != sha):
            continue
        try:
            found, more = verified(path, file if own else replace(file, hashes="published"), str(path), "not used", say)
        except (UserError, OSError):
            continue  # another file of that name
        if found == sha:  # as it was recorded
            return path, origin, found, {**more, "hashes": file.hashes}
    return None


def ends_early(path: Path, file: DataFile) -> str:
    """Why a file that is stored as published is not whole, from its own marks of the end; '' where there are none.

    HDF5: the end-of-file address of its superblock. Parquet: the mark at both ends. Zip: the directory at the end.
    """
    with path.open("rb") as opened:
        head, size = opened.read(64), path.stat().st_size
        opened.seek(-min(size, 4), 2)
        tail = opened.read()
    if (end := hdf5_end(head)) > size:
        return f"HDF5 of {end} bytes by its superblock"
    if file.unpack:
        return ""  # unpacking reads it to its end
    if file.name.endswith(".parquet") and head.startswith(b"PAR1") and tail != b"PAR1":
        return "Parquet without the mark at its end"
    if file.name.endswith((".zip", ".npz")) and head.startswith(b"PK\3\4") and not zipfile.is_zipfile(path):
        return "a zip archive without the directory at its end"
    return ""


def hdf5_end(head: bytes) -> int:
    """The end-of-file address in the superblock of an HDF5 file; 0 where its first 64 bytes have none that we know.

    Versions 0 to 3 (HDF5 File Format Specification 3.0, section II.A), without a user block: the base address is 0.

    Examples
    --------
    >>> hdf5_end(HDF5 + bytes([2, 8, 8, 0]) + bytes(16) + (4096).to_bytes(8, "little") + bytes(28)), hdf5_end(b"a,b")
    (4096, 0)
    """
    if not head.startswith(HDF5):
        return 0
    if len(head) < 64:
        return 64  # a superblock and the root group take more
    width, start = (head[9], 12) if head[8] in (2, 3) else (head[13], 24 + 4 * head[8])
    if head[8] > 3 or width not in (2, 4, 8):
        return 0
    base, _, end = (int.from_bytes(head[start + i * width : start + (i + 1) * width], "little") for i in range(3))
    return 0 if base or end == (1 << 8 * width) - 1 else end


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
