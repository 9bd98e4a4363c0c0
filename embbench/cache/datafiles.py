"""Files of published datasets: what a registry says of them, where they lie, and the call that brings them here."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from embbench.cache import licences
from embbench.cache.fetched import Fetched, listing
from embbench.cache.home import home
from embbench.cache.sources import MIRROR, RECORD, safe
from embbench.cache.store import lock
from embbench.core import UserError

PACKAGED = Path(__file__).resolve().parents[1] / "data"  # what ships with the package, scripts among it
HASHES = ("published", "third_party", "record")
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class DataFile:
    """One file as it is published.

    Parameters
    ----------
    name : under which mirrors hold it, POSIX, relative.
    urls : addresses, tried in this order.
    bytes : its size; 0 where it is not known. Another size is refused.
    md5, sha256 : of the file as published (before it is unpacked), hex; '' where not known.
    hashes : who says so: ``published`` by its host (a mismatch is refused), ``third_party`` (a mismatch is said, the
        file is kept and recorded), ``record`` (nobody: recorded at the first fetch, checked ever after).
    unpack : '' stored as it is; ``gzip`` stored without its ``.gz``; or names of members of a zip or tar archive, each
        stored under its last name, or under another with ``member -> name``.
    part : tag of files that can be fetched apart.
    manual : what a person must do to get it where a script cannot; in a record, ``{data}`` is the packaged folder.

    Raises
    ------
    ValueError
        A value that is none of these.

    Examples
    --------
    >>> DataFile("a.mtx.gz", unpack="gzip").stored, DataFile("x.zip", unpack=("x/a.h5ad", "x/b -> c")).stored
    (('a.mtx',), ('a.h5ad', 'c'))
    """

    name: str
    urls: tuple[str, ...] = ()
    bytes: int = 0
    md5: str = ""
    sha256: str = ""
    hashes: str = "record"
    unpack: str | tuple[str, ...] = ""
    part: str = ""
    manual: str = ""

    def __post_init__(self) -> None:
        for key, size in (("md5", 32), ("sha256", 64)):
            if not isinstance(value := getattr(self, key), str):
                raise ValueError(f"file {self.name!r}: {key} must be text, got {value!r}: put it in quotes")
            if value and not re.fullmatch(rf"[0-9a-fA-F]{{{size}}}", value):
                raise ValueError(f"file {self.name!r}: {key} must be {size} hex digits, got {value!r}")
        if self.hashes not in HASHES or (self.hashes == "record") == bool(self.md5 or self.sha256):
            expected = "published or third_party with an md5 or sha256, or record without"
            raise ValueError(f"file {self.name!r}: hashes must be {expected}, got {self.hashes!r}")
        if isinstance(self.bytes, bool) or not isinstance(self.bytes, int) or self.bytes < 0:
            raise ValueError(f"file {self.name!r}: bytes must be a whole number >= 0, got {self.bytes!r}")
        if isinstance(self.unpack, str) and self.unpack not in ("", "gzip"):
            raise ValueError(f"file {self.name!r}: unpack must be gzip or names of members, got {self.unpack!r}")
        if self.unpack == "gzip" and not self.name.endswith(".gz"):
            raise ValueError(f"file {self.name!r}: unpack is gzip, the name must end in .gz")
        if odd := [url for url in self.urls if not str(url).startswith(("http://", "https://"))]:
            raise ValueError(f"file {self.name!r}: urls must begin with http:// or https://, got {odd[0]!r}")
        for name in (self.name, *self.members, *self.stored):
            _named(name, self.name)

    @property
    def members(self) -> dict[str, str]:
        """Names in the archive -> stored names; empty where the file is no archive."""
        if isinstance(self.unpack, str):
            return {}
        pairs = [entry.partition("->") for entry in self.unpack]
        return {m.strip(): s.strip() or m.strip().rpartition("/")[2] for m, _, s in pairs}

    @property
    def stored(self) -> tuple[str, ...]:
        """Names that lie in the folder once the file was fetched."""
        if self.unpack == "gzip":
            return (self.name.removesuffix(".gz"),)
        return tuple(self.members.values()) or (self.name,)


def _named(name: str, file: str) -> None:
    try:
        same = safe(name, f"file {file!r}") == name
    except UserError as error:
        raise ValueError(str(error)) from error
    if not same or name == RECORD:
        raise ValueError(f"file {file!r}: a name must be plain, relative and not {RECORD}, got {name!r}")


def records(raw: Sequence[Mapping[str, Any]]) -> tuple[DataFile, ...]:
    """Files from the ``files:`` of a registry entry.

    Raises
    ------
    ValueError
        No list of records; an unknown field or value; two files that would be stored under one name.

    Examples
    --------
    >>> records([{"name": "a.zip", "urls": ["https://a.org/1"], "unpack": {"d/x": "y"}}])[0].unpack
    ('d/x -> y',)
    """
    if not isinstance(raw, list | tuple) or (odd := [each for each in raw if not isinstance(each, Mapping)]):
        found = odd[0] if isinstance(raw, list | tuple) else raw
        raise ValueError(f"files: expected a list of records, each with a name, found {found!r}")
    made = tuple(_record(each) for each in raw)
    names = [name for file in made for name in file.stored]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"files: {listing(twice)} would be stored more than once")
    return made


def _record(raw: Mapping[str, Any]) -> DataFile:
    known = [field.name for field in fields(DataFile)]
    if unknown := sorted(set(raw) - set(known)):
        raise ValueError(f"file {raw.get('name', '?')!r}: unknown field {listing(unknown)}; known: {', '.join(known)}")
    if not isinstance(raw.get("name"), str):
        raise ValueError(f"files: every file needs a name, got {dict(raw)!r}")
    told = {**raw, "urls": (raw["urls"],) if isinstance(raw.get("urls"), str) else tuple(raw.get("urls") or ())}
    unpack = raw.get("unpack") or ""
    if isinstance(unpack, Mapping):
        unpack = [f"{member} -> {stored}" for member, stored in unpack.items()]
    told["unpack"] = unpack if isinstance(unpack, str) else tuple(map(str, unpack))
    told["manual"] = str(raw.get("manual") or "").replace("{data}", str(PACKAGED))
    return DataFile(**told)


def folder_of(name: str) -> Path:
    """Where the files of an entry lie; it need not exist.

    Examples
    --------
    >>> folder_of("norman19").parts[-2:]
    ('published', 'norman19')
    """
    return home("published", name)


def chosen(files: Iterable[DataFile], part: str | None) -> tuple[DataFile, ...]:
    """The files of a part, and those that belong to all of them; all files for None. `UserError`: no such part."""
    files = tuple(files)
    parts = list(dict.fromkeys(file.part for file in files if file.part))
    if part is not None and part not in parts:
        raise UserError(f"there is no part {part!r}; {'known: ' + ', '.join(parts) if parts else 'it has no parts'}")
    return tuple(file for file in files if part is None or file.part in ("", part))


def state(folder: Path, files: Sequence[DataFile]) -> str:
    """``ready``, ``not fetched`` or ``incomplete: lacks ...``; nothing is read through, no network."""
    names = [name for file in files for name in file.stored]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent and len(absent) == len(names):
        return "not fetched"
    return f"incomplete: lacks {listing(absent)} ({len(absent)} of {len(names)} files)" if absent else "ready"


def announced(files: Iterable[DataFile]) -> tuple[int, int]:
    """Bytes to transfer as far as they are known, and the number of files whose size is not.

    Examples
    --------
    >>> announced([DataFile("a", ("https://a.org/a",), bytes=7), DataFile("b", ("https://a.org/b",))])
    (7, 1)
    """
    sizes = [file.bytes for file in files]
    return sum(sizes), sizes.count(0)


def require(name: str, folder: Path, files: Sequence[DataFile]) -> None:
    """`UserError` with the command that fetches them, when files of an entry are not there."""
    if (found := state(folder, files)) == "ready":
        return
    parts = {file.part for file in files} - {""}
    only = f" --only {parts.pop()}" if len(parts) == 1 else ""
    raise UserError(f"{name} is {found} (in {folder}): embbench data fetch {name}{only}")


def digests(folder: Path, files: Sequence[DataFile]) -> dict[str, str]:
    """sha256 of every stored file, from the record of the folder.

    A file whose size and time are as recorded is not read again; one that was placed by hand is read, compared with
    the published one and recorded (where the folder can be written). A hash of a third party that is another is
    warned of.

    Raises
    ------
    UserError
        A file is not there, changed since it was fetched, or was placed by hand and is not the published one.
    """
    from embbench.cache.verified import checked

    require(folder.name, folder, files)
    record = Fetched.read(folder, folder.name, "dataset")  # without the lock: another part may be on its way for hours
    step = f"remove it, then embbench data fetch {folder.name}"
    pairs = [(name, file) for file in files for name in file.stored]
    names = [name for name, _ in pairs]
    changed = [name for name, file in pairs if checked(record, file, name, step, _warn)]
    if changed and os.access(folder, os.W_OK):
        with lock(folder):
            now = Fetched.read(folder, folder.name, "dataset")
            now.files |= {name: record.files[name] for name in changed}
            now.write()
    return {name: record.files[name]["sha256"] for name in names}


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def bring(
    name: str,
    folder: Path,
    files: Sequence[DataFile],
    *,
    licence: str,
    restricted: str = "",
    accept: bool = False,
    mirror: str | None = None,
    say: Callable[[str], None],
    progress: Progress,
) -> list[str]:
    """Make files lie in ``folder``: those that are not there are fetched, all are verified.

    Files arrive in a hidden folder beside it, are checked and unpacked there, and moved. Whatever fails, ``folder``
    holds whole files only; the hidden folder keeps what arrived of a transfer that broke off, or was whole but found no
    space to be unpacked in, for the next call to continue, and nothing else. A file that lies in the folder of another
    dataset is linked from there.

    Parameters
    ----------
    name : of the entry; mirrors hold ``name/file`` or ``file``.
    licence, restricted : of the data; a restriction must be accepted once, by ``accept``.
    mirror : a folder or address to take files from instead of their own (default ``$EMBBENCH_MIRROR``).
    say : is told licence, number and size of what will be fetched before it is, and everything unusual.
    progress : is told a file's name, the bytes that are there and those that it has (None: not known), per block.

    Returns
    -------
    Names, as stored, of the files that were not there before; `withdraw` takes them back.

    Raises
    ------
    UserError
        The licence was not accepted; a file cannot be had, or is not the published one, or changed; no free space.
    """
    from embbench.cache.fetching import Fetching  # the network's modules, which readers need not load

    licences.require(name, licence, restricted, accept=accept, what="data")
    with lock(folder):
        record = Fetched.read(folder, name, "dataset")
        return Fetching(name, record, mirror or os.environ.get(MIRROR, ""), say, progress).run(files, licence)


def withdraw(name: str, folder: Path, arrived: Sequence[str]) -> list[str]:
    """Remove files that `bring` just brought and that turned out to be others than expected, with their records.

    A file whose hash is the known one is what was published, whatever its reader says of it: it stays. Any other may
    have been cut short or altered on its way, and would be taken for the right one ever after.

    Parameters
    ----------
    name, folder : as given to `bring`; ``arrived`` is what that returned.

    Returns
    -------
    Names of the files removed.
    """
    with lock(folder):
        record = Fetched.read(folder, name, "dataset")
        known = {each for each in arrived if each in record.files}
        doubtful = sorted(each for each in known if record.unproven(each))
        record.forget(doubtful)
    return doubtful
