"""An unpickler which builds records and plain containers, and imports and runs nothing of what a pickle names.

What it does not know becomes a :class:`Placeholder`; tensors and arrays become records, to be checked before they are
made.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RUNNERS = {"os", "posix", "nt", "subprocess", "sys", "shutil", "runpy", "importlib", "socket", "pty", "ctypes"}
HOLDERS = {"builtins", "__builtin__", "io", "_io"}
RUNS = {"eval", "exec", "compile", "open", "breakpoint", "input", "__import__"}
PLAIN = re.compile("[biufc](1|2|4|8|16)|[US][0-9]{1,6}|O8?")  # numpy's names of numbers, strings and objects
_WIDTHS = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16"}
_WIDTHS |= {"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in _WIDTHS.items()}


class Placeholder:
    """An instance of a class that was not imported, or the result of a function that was not called.

    Attributes
    ----------
    name : ``module.qualified_name`` of the class or function.
    args : what it was called with.
    state : what ``__setstate__`` would have got; None without.
    entries : what dict or list subclasses hold.
    """

    name = ""
    args: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any] | list[Any] | None

    def __new__(cls, *args: Any, **options: Any) -> Placeholder:
        """Keep the arguments; call nothing."""
        made = object.__new__(cls)
        made.args, made.state, made.entries = (*args, *options.values()), None, None
        return made

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what ``__new__`` has kept."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries = self.entries if isinstance(self.entries, dict) else {}
        self.entries[key] = value

    def append(self, value: Any) -> None:
        """An entry of a list subclass, as unpicklers add it."""
        self.entries = self.entries if isinstance(self.entries, list) else []
        self.entries.append(value)

    def __repr__(self) -> str:
        return f"<{self.name}, not imported>"


@dataclass(frozen=True, eq=False)
class Storage:
    """Where a tensor's numbers lie in the archive, unread."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor, not yet made."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Dtype:
    """A numpy dtype by its name; numpy's own ``__setstate__`` crashes the process on made-up states."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.text = text
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """The dtype, of numbers, strings or objects."""
        if not isinstance(self.text, str) or not PLAIN.fullmatch(self.text) or self.order not in ("<", ">", "|", "="):
            shown = self.text[:40] if isinstance(self.text, str) else type(self.text).__name__
            raise pickle.UnpicklingError(f"an array of numpy type {shown!r}, which is not plain numbers or text")
        return np.dtype(self.text).newbyteorder(self.order)


class Array:
    """A numpy array, not yet made: what ``ndarray.__setstate__`` would get."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _filled(shape: Any, dtype: Any, data: Any, *, fortran: bool = False) -> Array:
    made = Array()
    made.state = (1, shape, dtype, fortran, data)
    return made


class Dict(dict[Any, Any]):
    """OrderedDict and its like without instance attributes, which could shadow its methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Forget it: torch keeps version numbers (``_metadata``) there."""


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    return Tensor(storage, offset, tuple(size), tuple(stride))


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes: ``_codecs.encode(text, 'latin1')`` and nothing else."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in another encoding than latin1")
    return text.encode("latin1")


def _bytearray(*args: Any) -> bytearray:
    if args and isinstance(args[0], int):
        raise pickle.UnpicklingError(f"a bytearray of {args[0]} zeros")
    return bytearray(_latin1(*args) if args and isinstance(args[0], str) else bytes(*args))


def _data() -> dict[tuple[str, str], Callable[..., Any]]:
    """What pickles of containers, numbers and arrays name."""
    table: dict[tuple[str, str], Callable[..., Any]] = {("numpy", "dtype"): Dtype, ("_codecs", "encode"): _latin1}
    for module in ("builtins", "__builtin__"):
        table |= {(module, kind.__name__): kind for kind in (set, frozenset, complex)}
        table[module, "bytearray"] = _bytearray
        table[module, "bytes"] = lambda: b""  # how protocol 2 writes the empty one; others go through _codecs.encode
    for module in ("numpy.core", "numpy._core"):  # numpy 2 renamed the package that old pickles name
        table[f"{module}.multiarray", "_reconstruct"] = Array
        table[f"{module}.multiarray", "scalar"] = lambda dtype, data: _filled((), dtype, data)
        table[f"{module}.numeric", "_frombuffer"] = lambda data, dtype, shape, order: _filled(
            shape, dtype, data, fortran=order == "F"
        )
    for name in ("OrderedDict", "Counter"):
        table["collections", name] = lambda *args: Dict(*args)
    table["collections", "defaultdict"] = lambda _factory=None, *args: Dict(*args)
    return table


def _torch() -> dict[tuple[str, str], Callable[..., Any]]:
    """What torch's files name beside it."""
    table: dict[tuple[str, str], Callable[..., Any]] = {}
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        table["torch._utils", name] = _tensor
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        table["torch._utils", name] = lambda data, *_: data
    table["torch", "Size"] = lambda sizes: tuple(int(n) for n in sizes)
    return table


DATA = _data()


class Inert(pickle.Unpickler):
    """Reads a pickle into records, placeholders and plain containers; messages never show an object of the pickle.

    (The text of a small object can be endless: lists may hold one list many times over.)
    """

    functions = DATA | _torch()

    def find_class(self, module: str, name: str) -> Any:
        """A function that rebuilds data, a name (storages, arrays), or a fresh placeholder class."""
        where, dotted = module.split(".")[0], f"{module}.{name}"
        if where in RUNNERS or (where in HOLDERS and name.split(".")[0] in RUNS):
            # a placeholder would be as harmless, but no honest checkpoint holds these
            raise pickle.UnpicklingError(f"it asks for {dotted}, which runs code")
        if dotted in DTYPES or dotted == "numpy.ndarray":
            return dotted
        if (module, name) in self.functions:
            function = self.functions[module, name]
            return lambda *args: function(*args)  # a pickle may set attributes of what it gets: never of ours
        return type("Placeholder", (Placeholder,), {"name": dotted})

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that a tensor refers to, unread."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError(f"found a {type(pid).__name__} in the place of a storage")
        _, kind, key, _, count = pid
        kind = getattr(kind, "name", kind)
        if not (isinstance(kind, str) and isinstance(key, str) and isinstance(count, int)):
            raise pickle.UnpicklingError(f"a storage named by {[type(part).__name__ for part in (kind, key, count)]}")
        return Storage(kind, key, count)
