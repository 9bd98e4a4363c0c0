"""A walk over a pickle's opcodes, which builds nothing of it and finds what would take the process down.

A small file can ask for a memo of billions of slots, or for a tuple nested a million deep, which no unpickler survives.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from typing import NamedTuple

OPCODES = 50_000_000  # published checkpoints hold thousands to a few hundred thousand
TUPLES = (100, 10_000_000)  # depth and expanded size: hashing is recursive (crash at ~10^5) and repeats what is shared
ODD = ("EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER")  # data needs none
KEEPS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # leave what they change where it was
CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX")  # may return one of their operands
MEMO = ("PUT", "GET", "MEMOIZE")
RUN = 1024  # floats looked at together: vectors as lists are nearly all of their file
BINFLOAT = 9  # bytes of a float and its opcode G
PLAIN = (0, 1)  # depth and expanded size of all but tuples


class _Op(NamedTuple):
    """What an opcode does to the stack: takes all above the mark, then ``pops``, then puts ``pushes``."""

    name: str
    argument: int  # bytes, or one of pickletools' negative codes
    simple: bool  # puts a number, a text or an empty container, and that is all
    marked: bool
    pops: int
    pushes: int
    nests: bool


def _ops() -> dict[int, _Op]:
    table = {}
    for op in pickletools.opcodes:
        before, pushes = op.stack_before, len(op.stack_after)
        marked = pickletools.markobject in before
        pops = before.index(pickletools.markobject) if marked else len(before)
        if op.name in KEEPS:
            pops, pushes = pops - 1, 0
        name = next((kind for kind in ("PUT", "GET") if op.name.endswith(kind)), op.name)
        nests = name in CALLS or name.startswith("TUPLE")
        simple = not before and pushes == 1 and name not in ("MARK", "GET", "BINFLOAT")
        if name not in ODD:
            table[ord(op.code)] = _Op(name, op.arg.n if op.arg else 0, simple, marked, pops, pushes, nests)
    return table


_OPS = _ops()
_COUNTED = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}


def scan(data: bytes | mmap.mmap, at: int = 0) -> int:
    """Walk the opcodes of the pickle that begins there, without building anything of it.

    It is complete, holds no odd opcode, no memo slot beyond what it filled and no monstrous tuple; frames hold whole
    opcodes (C's unpickler drops the rest of a frame that an opcode outgrows, and would read others than were seen).

    Returns
    -------
    Where the pickle ends.

    Raises
    ------
    pickle.UnpicklingError, LookupError, ValueError
        It is not so.
    """
    walk, frame, size = _Walk(), 0, len(data)
    push, limit = walk.stack.append, size
    for count in range(OPCODES):
        code = data[at] if at < size else -1
        if code not in _OPS:
            found = f"opcode {data[at : at + 1]!r}" if at < size else "the end"
            raise pickle.UnpicklingError(f"found {found} after {count} opcodes; was it cut short or changed?")
        op = _OPS[code]
        name, argument, simple = op[:3]
        if at == frame:
            frame, limit = 0, size
        end = at + 1 + argument if argument >= 0 else _end(data, at + 1, op)
        if name == "FRAME" and not frame:
            limit = frame = end + int.from_bytes(data[at + 1 : end], "little")
        elif name == "FRAME" or end > limit:
            raise pickle.UnpicklingError(f"opcode {name} at byte {at} goes beyond byte {limit}; was it cut short?")
        if limit > size:
            raise pickle.UnpicklingError(f"a frame up to byte {limit} of {size}; was it cut short?")
        if simple:
            push(PLAIN)
        elif name == "BINFLOAT":
            codes = data[at : min(at + RUN * BINFLOAT, limit - BINFLOAT + 1) : BINFLOAT]
            alike = len(codes) - len(codes.lstrip(b"G"))
            walk.stack.extend([PLAIN] * alike)
            end = at + alike * BINFLOAT
        elif name in MEMO:
            text = data[at + 1 : end]
            slot = len(walk.memo) if not text else int(text) if argument < 0 else int.from_bytes(text, "little")
            walk.remember(name, at, slot)
        elif name == "STOP":
            walk.take(1)
            return end
        else:
            walk.step(op)
        at = end
    raise pickle.UnpicklingError(f"more than {OPCODES} opcodes")


def _end(data: bytes | mmap.mmap, at: int, op: _Op) -> int:
    """Where the opcode's argument ends, which may be beyond the data."""
    if op.argument in _COUNTED:
        width, signed = _COUNTED[op.argument]
        count = int.from_bytes(data[at : at + width], "little", signed=signed)
        return at + width + (count if count >= 0 else len(data))
    for _ in range(2 if op.name == "GLOBAL" else 1):  # text up to the end of a line, or of two
        at = (data.find(b"\n", at) + 1) or len(data) + 1
    return at


class _Walk:
    """The unpickler's stack and memo, holding (depth, expanded size) in the place of objects."""

    def __init__(self) -> None:
        self.stack: list[tuple[int, int]] = []
        self.marks: list[int] = []  # heights of the stack; nothing below the last is in reach
        self.memo: dict[int, tuple[int, int]] = {}

    def take(self, count: int) -> list[tuple[int, int]]:
        """Pop that many."""
        rest = len(self.stack) - count
        if rest < (self.marks[-1] if self.marks else 0):
            raise pickle.UnpicklingError("an opcode without its operands")
        taken = self.stack[rest:]
        del self.stack[rest:]
        return taken

    def remember(self, name: str, at: int, slot: int) -> None:
        """Store in a slot of the memo, or take from it."""
        if name == "GET":
            self.stack.append(self.memo[slot])
        elif 0 <= slot <= at:  # picklers number the slots in turn; the C unpickler allocates up to the slot named
            if not self.stack or (self.marks and self.marks[-1] == len(self.stack)):
                raise pickle.UnpicklingError("nothing to remember")
            self.memo[slot] = self.stack[-1]
        else:
            raise pickle.UnpicklingError(f"memo slot {slot} at byte {at}")

    def step(self, op: _Op) -> None:
        """Any other opcode."""
        if op.name == "MARK":
            self.marks.append(len(self.stack))
        elif op.name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()  # so the unpicklers do
        else:
            taken: list[tuple[int, int]] = []
            if op.marked:
                taken = self.take(len(self.stack) - self.marks[-1])
                self.marks.pop()
            if op.pops:
                taken += self.take(op.pops)
            if op.name == "DUP":
                self.stack += taken * 2
            elif op.pushes:
                self.stack.append(_made(op.name, taken) if op.nests else PLAIN)


def _made(name: str, taken: list[tuple[int, int]]) -> tuple[int, int]:
    """Depth and size of the tuple, or of what a call returns."""
    own = int(name not in CALLS and bool(taken))
    depth, size = 0, own
    for below, inner in taken:
        depth, size = max(depth, own + below), size + inner
    if depth > TUPLES[0] or size > TUPLES[1]:
        raise pickle.UnpicklingError(f"a tuple nested {depth} deep, of {size} entries")
    return depth, max(size, 1)
