"""Checkpoint files and pickles looked at before they are loaded: what went wrong, and what would do harm."""

from __future__ import annotations

import mmap
import pickle
import struct
import zipfile
from pathlib import Path

from embbench.cache.opcodes import scan
from embbench.core import UserError

# what readers raise on a file that is none of theirs, was cut short, or means harm
DAMAGED = (
    *(pickle.UnpicklingError, AttributeError, AssertionError, EOFError, ImportError, LookupError, OSError),
    *(OverflowError, RuntimeError, TypeError, ValueError, MemoryError, struct.error, zipfile.BadZipFile),
)
ZIP = b"PK\x03\x04"  # torch's format since 1.6
PICKLES = 5  # in torch's format before 1.6: magic number, protocol, machine, the object, names of its storages


def refuse_other_content(path: Path) -> None:
    """Recognise what lies in the place of a download that went wrong.

    Raises
    ------
    UserError
        Nothing there, a folder, an empty file, a git-lfs pointer, or a web page.
    """
    if path.is_dir():
        raise UserError(f"{path}: expected a file, found a folder")
    if not path.is_file():
        raise UserError(f"{path}: no such file; download the folder again")
    try:
        with path.open("rb") as file:
            head = file.read(512).lstrip().lower()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise UserError(f"{path}: the file is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: this is a git-lfs pointer, not the file itself; run git lfs pull in that folder")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: this is a web page, not the file itself; download it again, from the raw file's link")


def vet(path: Path) -> None:
    """Look through a torch file without loading anything of it.

    Raises
    ------
    UserError
        What :func:`refuse_other_content` refuses; no torch file; cut short; compressed; a TorchScript program; opcodes
        that would exhaust memory or stack.
    """
    refuse_other_content(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head == ZIP:
                with zipfile.ZipFile(file) as archive:
                    scan(archive.read(f"{root(archive, path)}data.pkl"))
            elif head.startswith(b"\x80"):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    end = 0
                    for _ in range(PICKLES):
                        end = scan(data, end) if end < len(data) else end
            else:
                raise pickle.UnpicklingError(f"it begins with {head!r}")
    except DAMAGED as error:
        raise UserError(f"{path}: expected a torch file, unreadable: {reason(error)}; download it again") from error


def reason(error: BaseException) -> str:
    """One line of what went wrong."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{text} (a download cut short?)" if isinstance(error, zipfile.BadZipFile) else text


def root(archive: zipfile.ZipFile, path: Path) -> str:
    """The folder of ``data.pkl`` in the archive, with its slash.

    Raises
    ------
    pickle.UnpicklingError
        Not as torch.save writes it: members are stored as they are, once each, little-endian, and hold no program.
    """
    members = archive.infolist()
    names = [member.filename for member in members]
    roots = [name.removesuffix("data.pkl") for name in names if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        raise pickle.UnpicklingError(f"a zip file with {len(roots)} data.pkl among {names[:3]}")
    if len(set(names)) < len(names):
        raise pickle.UnpicklingError(f"{len(names) - len(set(names))} repeated names in the zip file")
    if f"{roots[0]}constants.pkl" in names:
        raise pickle.UnpicklingError("a TorchScript program, not a dict of tensors")
    if squeezed := [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]:
        raise pickle.UnpicklingError(f"compressed members {squeezed[:2]}; torch.save stores them as they are")
    if (total := sum(member.file_size for member in members)) > path.stat().st_size:
        raise pickle.UnpicklingError(f"members of {total} bytes in a file of {path.stat().st_size}")
    order = f"{roots[0]}byteorder"
    if order in names and archive.read(order) != b"little":
        raise pickle.UnpicklingError("it was written on a big-endian machine")
    return roots[0]
