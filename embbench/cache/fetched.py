"""What was fetched into a folder: sha256, size and origin of every file, in a ``fetched.json`` beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from embbench.cache.sources import RECORD
from embbench.cache.store import replacing
from embbench.core import UserError

OWN, FIXED = {"checkpoint": " with --checkpoint"}, {"checkpoint": "name a fixed revision, or "}  # hints by kind
IN_PLACE = "found in place"  # where a file comes from that a person put there


class SpaceError(UserError):
    """The disk is too small, or fails: nothing is wrong with the files."""


class Arrival(NamedTuple):
    """One file that just arrived: its name, where it is staged, its origin; its commit (hub only), sha256 if known."""

    name: str
    path: Path
    origin: str
    commit: str = ""
    sha256: str = ""


@dataclass
class Fetched:
    """The record of one folder: the checkpoint or dataset (``kind``), its commit if it has one, and facts per file."""

    root: Path
    name: str
    kind: str = "checkpoint"
    commit: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path, name: str, kind: str = "checkpoint") -> Fetched:
        """The record of ``root``, empty where nothing was fetched yet; `UserError`: it cannot be read."""
        path = root / RECORD
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(root, name, kind, found["commit"], {str(k): dict(v) for k, v in found["files"].items()})
        except FileNotFoundError:
            return cls(root, name, kind)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not a readable record ({type(error).__name__}: {error}); remove it, then the files are "
                "checked as if they were placed by hand"
            ) from error

    def write(self) -> None:
        """Replace the record on disk."""
        text = json.dumps({self.kind: self.name, "commit": self.commit, "files": self.files}, indent=1)
        with replacing(self.root / RECORD) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def check(self, name: str, expected: str = "", seen: str = "", **facts: Any) -> bool:
        """Check a file that lies in the folder; returns whether the record changed.

        A file whose size and time are as recorded is not read again. One that nobody recorded (placed by hand) is
        recorded; ``seen`` is its sha256 where it was just read, ``facts`` (JSON values) are recorded beside that.
        `UserError`: it changed on this disk, or is not the one that ``expected`` (sha256) asks for.
        """
        path, known = self.root / name, self.files.get(name)
        stat = path.stat()
        now = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if not seen and known is not None and all(known.get(k) == v for k, v in now.items()):
            _compare(name, known["sha256"], expected, f"remove {path} and fetch it again")
            return False
        sha = seen or sha256(path)
        if known is not None and known["sha256"] != sha:
            raise UserError(
                f"{path}: changed since it was fetched: recorded sha256 {known['sha256']}, found {sha}; remove the "
                f"file and fetch it again, or give your own files their own folder{OWN.get(self.kind, '')}"
            )
        _compare(name, sha, expected, f"remove {path} and fetch it again")
        self.files[name] = {**(known or {"from": IN_PLACE}), "sha256": sha, **now, **facts}
        return True

    def unproven(self, name: str) -> bool:
        """Whether nobody's hash confirmed a recorded file: none was known, or it is another."""
        facts = self.files[name]
        return facts.get("hashes", "record") == "record" or "differs" in facts

    def forget(self, names: Sequence[str]) -> None:
        """Remove files and what is recorded of them; without any other file, the record and the folder too."""
        for name in names:
            path = self.root / name
            path.unlink(missing_ok=True)
            self.files.pop(name, None)
            for above in path.relative_to(self.root).parents[:-1]:
                with contextlib.suppress(OSError):
                    (self.root / above).rmdir()
        if self.files:
            self.write()
            return
        (self.root / RECORD).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody's own files lie there
            self.root.rmdir()

    def settle(self, arrival: Arrival, expected: str = "", **facts: Any) -> None:
        """Check a file that just arrived and move it to its place; `UserError`: it is another one than expected.

        ``facts`` (JSON values) are recorded beside its sha256, size and origin.
        """
        name, known = arrival.name, self.files.get(arrival.name)
        sha = arrival.sha256 or sha256(arrival.path)
        what = f"{name} from {arrival.origin}"
        _compare(what, sha, expected, "nothing was kept; the source altered the file, or is another")
        if known is not None and known["sha256"] != sha:
            raise UserError(
                f"{what} has changed: first fetched with sha256 {known['sha256']}, now {sha}; nothing was overwritten; "
                f"{FIXED.get(self.kind, '')}remove {self.root} to accept the new files"
            )
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with arrival.path.open("rb") as file:
                os.fsync(file.fileno())
            arrival.path.replace(path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; choose an EMBBENCH_HOME to write to") from error
        stat = path.stat()
        now = {"sha256": sha, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "from": arrival.origin}
        self.files[name] = {**now, **facts}
        self.commit = self.commit or arrival.commit
        self.write()

    def problems(self) -> list[str]:
        """Every recorded file read through: what is absent or altered."""
        found = []
        for name, facts in sorted(self.files.items()):
            path = self.root / name
            if not path.is_file():
                found.append(f"{path}: is gone")
            elif (sha := sha256(path)) != facts["sha256"]:
                found.append(f"{path}: expected sha256 {facts['sha256']}, found {sha}")
        return found


def twins(folder: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files of one name, stored as published in the folders beside ``folder``, with what is recorded of each."""
    for path in sorted(folder.parent.glob(f"*/{RECORD}")):
        try:
            facts = Fetched.read(path.parent, path.parent.name, "dataset").files.get(name)
        except UserError:
            continue  # said when that dataset is used
        if path.parent != folder and facts and "packed" not in facts and (path.parent / name).is_file():
            yield path.parent / name, facts


def _compare(what: str, found: str, expected: str, step: str) -> None:
    if expected and found != expected.lower():
        raise UserError(f"{what}: expected sha256 {expected.lower()}, found {found}; {step}")


def sha256(path: Path) -> str:
    """sha256 of a file, hex; `UserError`: it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; check its permissions and the disk") from error


def blob_problem(path: Path) -> str:
    """What is wrong with a file of the hub's own cache, whose blobs are named by sha256 or git's sha1; '' if none.

    Without symbolic links (some file systems) the blob's name is not known, and nothing is said.
    """
    name = path.resolve().name
    if len(name) == 64 and (sha := sha256(path)) != name:
        return f"{path}: the hub's cache names it {name}, its sha256 is {sha}; remove it there and fetch again"
    if len(name) == 40 and path.is_symlink():
        body = path.read_bytes()  # only small files are kept in git itself
        if name not in (hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest(), hashlib.sha1(body).hexdigest()):
            return f"{path}: the hub's cache names it {name}, its content is another; remove it there and fetch again"
    return ""


def need_space(folder: Path, size: int, what: str) -> None:
    """`SpaceError` when the disk of ``folder`` (the next existing one above it) has fewer than ``size`` bytes free."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise SpaceError(
            f"{what} needs {megabytes(size)}, {there} has {megabytes(free)} free; make space, or point EMBBENCH_HOME "
            "to a larger disk"
        )


def megabytes(size: int) -> str:
    """A size for people.

    Examples
    --------
    >>> megabytes(2_500_000), megabytes(700)
    ('2.5 MB', '0.7 kB')
    """
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def listing(names: Mapping[str, Any] | list[str], most: int = 6) -> str:
    """Names for a message, the first few of them.

    Examples
    --------
    >>> listing(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
