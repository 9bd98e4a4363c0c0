"""From the records and placeholders of `inert` to plain containers and numpy arrays, checked one by one."""

from __future__ import annotations

import pickle
import sys
from typing import Any, Literal

import numpy as np

from embbench.cache.inert import Array, Dtype, Placeholder, Tensor

ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None)})


class Plain:
    """Turns what :class:`Inert` returned into plain containers and arrays, shared things once.

    Placeholders stay, with plain contents; subclasses of dict, and argparse namespaces, become dict.
    """

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, Any]] = {}  # id -> (the object, kept so that its id stays its own; plain form)

    def __call__(self, value: Any) -> Any:
        """The plain form of one object; objects are known by identity, so that cycles and sharing end."""
        if type(value) in ATOMS or _flat(value):
            return value
        if id(value) in self.done:
            return self.done[id(value)][1]
        done: Any = value
        if isinstance(value, Tensor):
            done = self.tensor(value)
        elif isinstance(value, Array):
            done = self.array(value)
        elif isinstance(value, Dtype):
            done = value.numpy()
        elif isinstance(value, tuple | frozenset | set):
            done = type(value)([self(item) for item in value])
        elif isinstance(value, list):
            done = []
            self.done[id(value)] = value, done
            done.extend([self(item) for item in value])
        elif (entries := _entries(value)) is not None:
            done = {}
            self.done[id(value)] = value, done
            done.update({self(key): self(item) for key, item in entries.items()})
        elif isinstance(value, Placeholder):
            self.done[id(value)] = value, done
            value.args, value.state, value.entries = self(value.args), self(value.state), self(value.entries)
        else:
            return value
        self.done[id(value)] = value, done
        return done

    def tensor(self, found: Tensor) -> Any:
        """One tensor, where the file holds numbers of tensors.

        Raises
        ------
        pickle.UnpicklingError
            It does not.
        """
        raise pickle.UnpicklingError(f"a tensor of shape {found.size}, outside a torch file")

    def array(self, found: Array) -> Any:
        """One numpy array or scalar, in the machine's byte order; objects in it come plain too."""
        _, shape, dtype, fortran, data = found.state
        kind = self(dtype)
        order: Literal["C", "F"] = "F" if fortran else "C"
        if kind.hasobject:
            items = data if isinstance(data, list) else [data]
            flat = np.empty(len(items), dtype=object)
            for i, item in enumerate(items):  # one by one: lists of one length would be taken for a matrix
                flat[i] = self(item)
            return flat.reshape(shape, order=order)[() if not shape else ...]
        data = data.encode("latin1") if isinstance(data, str) else data
        flat = np.frombuffer(data, dtype=kind).astype(kind.newbyteorder("="))
        if kind.kind == "U" and flat.view(np.uint32).max(initial=0) > sys.maxunicode:
            raise pickle.UnpicklingError(f"an array of {kind} with letters beyond Unicode")
        made = flat.reshape(shape, order=order)
        return made[()] if not shape else made


def _flat(value: Any) -> bool:
    """A list or tuple of atoms alone, plain as it is: a table of vectors holds tens of millions of numbers in such."""
    return type(value) in (list, tuple) and ATOMS.issuperset(map(type, value))


def _entries(value: Any) -> dict[Any, Any] | None:
    """The items of a dict, of a dict subclass that was not imported, or of a namespace; None for all else."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Placeholder) or value.args:
        return None
    if isinstance(value.entries, dict):
        return value.entries
    namespace = value.name in ("argparse.Namespace", "types.SimpleNamespace")
    return value.state if namespace and isinstance(value.state, dict) else None
