"""Checkpoint files looked at before they are loaded.

A small file can ask for gigabytes, for a memo of billions of slots, or for a tuple nested a million deep, which no
unpickler survives: :func:`vet` reads a pickle's opcodes first, in memory proportional to the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from embbench.core import UserError
from embbench.embeddings._pickle import DAMAGED

# what readers raise on a file that is none of theirs
BROKEN = (*DAMAGED, MemoryError, struct.error, zipfile.BadZipFile)
ZIP = b"PK\x03\x04"  # torch's format since 1.6
OPCODES = 50_000_000  # published checkpoints hold thousands to a few hundred thousand
TUPLES = (100, 10_000_000)  # depth and expanded size: hashing is recursive (crash at ~10^5) and repeats what is shared
ODD = ("EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER")  # torch.save writes none
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
            file.seek(0)
            if head == ZIP:
                with zipfile.ZipFile(file) as archive:
                    _scan(io.BytesIO(archive.read(f"{root(archive, path)}data.pkl")))
            elif head.startswith(b"\x80"):
                for _ in range(PICKLES):
                    _scan(file)
                    if not file.peek(1):
                        break
            else:
                raise pickle.UnpicklingError(f"it begins with {head!r}")
    except BROKEN as error:
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


def _scan(stream: IO[bytes]) -> None:
    """Walk one pickle's opcodes: complete, no odd ones, no memo slot beyond what it filled, no monstrous tuple.

    The stack holds (depth, expanded size) of tuples, (0, 1) for all else, None for marks.
    """
    stack: list[tuple[int, int] | None] = []
    memo: dict[int, tuple[int, int] | None] = {}
    for count, (op, arg, _) in enumerate(pickletools.genops(stream)):
        if op.name in ODD or count > OPCODES:
            raise pickle.UnpicklingError(f"opcode {op.name} as number {count}")
        if op.name.endswith("PUT") or op.name == "MEMOIZE":
            slot = len(memo) if arg is None else int(arg)
            if slot > count:  # picklers number the slots in turn; the C unpickler allocates up to the slot named
                raise pickle.UnpicklingError(f"memo slot {slot} after {count} opcodes")
            memo[slot] = stack[-1]
        elif op.name.endswith("GET"):
            stack.append(memo[int(arg or 0)])
        elif op.name in ("MARK", "DUP"):
            stack.append(None if op.name == "MARK" else stack[-1])
        elif op.name == "POP":
            stack.pop()
        else:
            depth, size = 0, 1
            for below, inner in _taken(op, stack):
                if op.name.startswith("TUPLE"):
                    depth, size = max(depth, below + 1), size + inner
            if depth > TUPLES[0] or size > TUPLES[1]:
                raise pickle.UnpicklingError(f"a tuple nested {depth} deep, of {size} entries")
            stack.extend([(depth, size)] * len(op.stack_after))


def _taken(op: pickletools.OpcodeInfo, stack: list[tuple[int, int] | None]) -> Iterator[tuple[int, int]]:
    """What the opcode pops."""
    plain = len(op.stack_before)
    if pickletools.markobject in op.stack_before:
        plain = op.stack_before.index(pickletools.markobject)
        while (item := stack.pop()) is not None:
            yield item
    for _ in range(plain):
        if (item := stack.pop()) is None:
            raise pickle.UnpicklingError(f"opcode {op.name} without its operands")
        yield item
