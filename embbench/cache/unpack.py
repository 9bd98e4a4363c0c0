"""Single files out of a downloaded archive or .gz file, written only where they belong."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

from embbench.cache.fetched import listing, need_space
from embbench.cache.sources import safe
from embbench.core import UserError

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
TOP = ("", ".", "./", "/")  # the archive's own folder, which some tools store as a member


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
        Not an archive, damaged; a member's name leaves the folder; a wanted member is absent, a link or a device; the
        disk is full. Nothing written is left.
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
        No gzip file, or a damaged one; the disk is full. Nothing written is left.
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


def _damaged(error: Exception, origin: str, expected: str, file: Path, folder: Path) -> NoReturn:
    if isinstance(error, OSError) and error.errno is not None:  # the system's, not one of content
        raise UserError(
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
