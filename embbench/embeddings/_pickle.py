"""Pickles of plain data, read without running code: containers, numbers, strings and numpy arrays, nothing else."""

from __future__ import annotations

import collections
import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from embbench.core import UserError

_ARRAY_MODULES = ("numpy.core", "numpy._core")  # numpy 2 renamed the package that old pickles name


def _allowed() -> dict[tuple[str, str], Any]:
    core = importlib.import_module(f"{_ARRAY_MODULES[-1] if hasattr(np, '_core') else _ARRAY_MODULES[0]}.multiarray")
    numeric = importlib.import_module(core.__name__.replace("multiarray", "numeric"))
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _latin1,
    }
    for builtin in (set, frozenset, bytearray, complex):
        table["builtins", builtin.__name__] = builtin
        table["__builtin__", builtin.__name__] = builtin
    for module in _ARRAY_MODULES:
        table[f"{module}.multiarray", "_reconstruct"] = core._reconstruct
        table[f"{module}.multiarray", "scalar"] = core.scalar
        table[f"{module}.numeric", "_frombuffer"] = numeric._frombuffer
    return table


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes: ``_codecs.encode(text, 'latin1')`` and nothing else."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected latin1 bytes, found encoding {encoding!r}")
    return text.encode("latin1")


class _Restricted(pickle.Unpickler):
    table = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """The permitted object of that name."""
        if (module, name) not in self.table:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data never needs")
        return self.table[module, name]


# what unpicklers raise on bytes that are no pickle, or one cut short
DAMAGED = (pickle.UnpicklingError, AttributeError, AssertionError, EOFError, ImportError, LookupError, OSError)
DAMAGED += (OverflowError, RuntimeError, TypeError, ValueError)


def read_pickle(path: Path) -> Any:
    """The data in a pickle file.

    Raises
    ------
    UserError
        Not a pickle, truncated, or it names anything but containers, numbers, strings and numpy arrays; nothing of it
        has been run then.
    """
    try:
        with path.open("rb") as file:
            return _Restricted(file).load()
    except DAMAGED as error:
        raise UserError(
            f"{path}: expected a pickle of plain containers and numpy arrays, refused or unreadable: {error}; "
            "save the table as .npz or .csv instead"
        ) from error


def read_torch(path: Path) -> Any:
    """The tensors in a torch file, loaded on the CPU with ``weights_only=True``.

    Raises
    ------
    UserError
        Not a torch file, truncated, or it holds more than tensors and plain containers.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: expected a torch file of tensors, refused or unreadable: {reason}") from error
