"""Single files out of a downloaded archive or .gz file, written only where they belong."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

from embbench.cache.fetched import SpaceError, listing, need_space
from embbench.cache.sources import safe
from embbench.core import UserError

DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, RuntimeError, ValueError),
)
TOP = ("", ".", "./", "/")  # the archive's own folder, which some tools store as a member
MAGIC = b"\x1f\x8b"  # of gzip
DENSEST = 1032  # deflate makes no file smaller than by this


def unpack(archive: Path, origin: str, wanted: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write the wanted members of a tar or zip archive to numbered files in ``folder``.

    Members are never written under their own names, so none can leave the folder; an archive that tries is refused as a
    whole. The archive is read to its end, which checks its own checksums.

    Parameters
    ----------
    archive : the file; ``origin`` is what messages call it.
    wanted : names of members as in the archive, POSIX, without a leading ``./``.
    folder : existing folder for the files written.

    Returns
    -------
    dict
        wanted name -> file written.

    Raises
    ------
    UserError
        Not an archive, damaged; a member's name leaves the folder; a wanted member is absent, a link or a device.
        Nothing written is left.
    SpaceError
        The disk is full, or fails. Nothing written is left.
    """
    places = {name: folder / f"member-{i}" for i, name in enumerate(wanted)}
    whole = False
    try:
        members = (_zip if zipfile.is_zipfile(archive) else _tar)(archive, origin, places)
        if missing := [name for name in wanted if not places[name].exists()]:
            held = listing(sorted(members))
            raise UserError(f"{origin}: expected {listing(missing)} in the archive, it holds {held}")
        whole = True
    except DAMAGE as error:
        _damaged(error, origin, "a whole .tar.gz or .zip archive", archive, folder)
    finally:
        for path in () if whole else places.values():
            path.unlink(missing_ok=True)
    return places


def gunzip(file: Path, origin: str, target: Path) -> None:
    """Write what a gzip file holds, read to its end (all its members, length and CRC checked).

    Raises
    ------
    UserError
        No gzip file, or a damaged one. Nothing written is left.
    SpaceError
        The disk is full, or fails. Nothing written is left.
    """
    whole = False
    try:
        with gzip.open(file, "rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        whole = True
    except (OSError, EOFError, zlib.error) as error:
        _damaged(error, origin, "a whole gzip file", file, target.parent)
    finally:
        if not whole:
            target.unlink(missing_ok=True)


def read_through(file: Path, origin: str) -> None:
    """Read a gzip file to its end, as `gunzip` does; anything else passes. `UserError`: it is damaged, or cut short."""
    try:
        with file.open("rb") as opened:
            if opened.read(2) != MAGIC:
                return
        with gzip.open(file, "rb") as source:
            while source.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        _damaged(error, origin, "a whole gzip file", file, file.parent)


def room(file: Path, wanted: Sequence[str] = ()) -> int:
    """Bytes that unpacking takes at least, as far as a file says so before it is read: nothing of a tar archive.

    A gzip file ends in its length modulo 2**32 (RFC 1952, ISIZE), of its last member where it has several: a file may
    unpack to more than that, never to less. Nor does it grow by a hundredth, whatever it holds.

    Parameters
    ----------
    file : gzip file, zip or tar archive; 0 for what is none of them, which unpacking says.
    wanted : names of the members of an archive that will be unpacked; none for a gzip file.
    """
    try:
        if wanted:
            with zipfile.ZipFile(file) as archive:
                return sum(info.file_size for info in archive.infolist() if info.filename.removeprefix("./") in wanted)
        with file.open("rb") as opened:
            if opened.read(2) != MAGIC:
                return 0
            opened.seek(-4, 2)
            size = file.stat().st_size
            return min(max(struct.unpack("<I", opened.read())[0], size * 99 // 100 - 1000), size * DENSEST)
    except DAMAGE:
        return 0


def _damaged(error: Exception, origin: str, expected: str, file: Path, folder: Path) -> NoReturn:
    if isinstance(error, OSError) and error.errno is not None:  # the system's, not one of content
        raise SpaceError(
            f"cannot unpack {origin} into {folder}: {error.strerror or error}; make space and run again"
        ) from error
    reason = str(error).partition("\n")[0].rstrip(":")  # tarfile goes on with a line per method it tried
    raise UserError(
        f"{origin}: expected {expected}, found {file.stat().st_size} bytes that cannot be unpacked "
        f"({type(error).__name__}: {reason}); fetch it again"
    ) from error


def _tar(archive: Path, origin: str, places: dict[str, Path]) -> list[str]:
    names = []
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.name in TOP:
                continue
            names.append(name := safe(member.name, origin))
            if name in places and not member.isdir():
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise UserError(f"{origin}: {name} is refused: expected a regular file, found a link or a device")
                _copy(file, places[name], member.size, origin)
        while tar.fileobj is not None and tar.fileobj.read(1 << 20):  # gzip compares its checksum at the very end only
            pass
    return names


def _zip(archive: Path, origin: str, places: dict[str, Path]) -> list[str]:
    names = []
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.filename in TOP:
                continue
            names.append(name := safe(info.filename, origin))
            kind = info.external_attr >> 28  # the type bits of a Unix mode: 0 none, 8 a regular file
            if name in places and not info.is_dir():
                if kind not in (0, 8):
                    raise UserError(f"{origin}: {name} is refused: expected a regular file, found type {kind:o}")
                with file.open(info) as member:
                    _copy(member, places[name], info.file_size, origin)
    return names


def _copy(source: IO[bytes], target: Path, size: int, origin: str) -> None:
    need_space(target.parent, size, f"unpacking {origin}")
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    if target.stat().st_size != size:
        raise ValueError(f"{target.stat().st_size} bytes unpacked, {size} announced")
