"""Training checkpoints (PyTorch Lightning) read without running what they hold."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embbench.core import UserError
from embbench.embeddings.models._inert import DTYPES, Array, Dtype, Inert, Placeholder, Storage, Tensor
from embbench.embeddings.models._vetting import BROKEN, ZIP, reason, root, vet


def read_parts(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The named entries of the dict in a torch file; the tensors of others (optimizer states) are never read.

    Instances of classes come as :class:`Placeholder`, except that subclasses of dict, and argparse namespaces, come as
    dict; tensors are on the CPU. Nothing is imported, and no function of the file is called but those which rebuild
    tensors, numpy arrays and containers.

    Raises
    ------
    UserError
        What :func:`vet` refuses; the format before torch 1.6; not a dict; a name that only attacks need.
    """
    vet(path)
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            raise UserError(
                f"{path}: written by torch before 1.6, with more than tensors in it; such files are not read. Ask its "
                "makers for a newer file"
            )
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            folder = root(archive, path)
            found = Inert(io.BytesIO(archive.read(f"{folder}data.pkl")), encoding="latin1").load()
            if not isinstance(found, dict):
                raise pickle.UnpicklingError(f"found a {type(found).__name__}")
            plain = _Plain(archive, folder)
            return {name: plain(found[name]) for name in names if name in found}
    except BROKEN as error:
        raise UserError(
            f"{path}: expected the dict of a training checkpoint, refused or unreadable: {reason(error)}; "
            "download it again"
        ) from error


class _Plain:
    """Turns what :class:`Inert` returned into plain containers and tensors, shared things once."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.done: dict[int, tuple[Any, Any]] = {}  # id -> (the object, kept so that its id stays its own; plain form)
        self.storages: dict[tuple[str, str], Any] = {}

    def __call__(self, value: Any) -> Any:
        """The plain form of one object; objects are known by identity, so that cycles and sharing end."""
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
            done.update({key: self(item) for key, item in entries.items()})
        elif isinstance(value, Placeholder):
            self.done[id(value)] = value, done
            value.args, value.state, value.entries = self(value.args), self(value.state), self(value.entries)
        else:
            return value
        self.done[id(value)] = value, done
        return done

    def tensor(self, found: Tensor) -> Any:
        """One tensor; its storage is read on first use, and compared with the size in the archive."""
        import torch

        wanted = found.storage
        if not isinstance(wanted, Storage) or wanted.dtype not in DTYPES:
            shown = wanted.dtype if isinstance(wanted, Storage) else type(wanted).__name__
            raise pickle.UnpicklingError(f"a tensor of an unknown storage: {shown}")
        dtype = getattr(torch, DTYPES[wanted.dtype])
        name = wanted.key, wanted.dtype
        if name not in self.storages:
            data = self.archive.read(f"{self.folder}data/{wanted.key}")
            if len(data) != wanted.count * dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {wanted.key}: {wanted.count} {dtype} in {len(data)} bytes")
            filled = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self.storages[name] = filled
        return torch.as_strided(self.storages[name], found.size, found.stride, found.offset)

    def array(self, found: Array) -> Any:
        """One numpy array or scalar, in the machine's byte order; objects in it come plain too."""
        _, shape, dtype, fortran, data = found.state
        kind = dtype.numpy()
        order: Literal["C", "F"] = "F" if fortran else "C"
        if kind.hasobject:
            items = data if shape else [data]
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
