"""Training checkpoints (PyTorch Lightning) read without running what they hold."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embbench.cache.inert import DTYPES, Inert, Storage, Tensor
from embbench.cache.plain import Plain
from embbench.cache.vetting import DAMAGED, ZIP, reason, root, vet
from embbench.core import UserError


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
    except DAMAGED as error:
        raise UserError(
            f"{path}: expected the dict of a training checkpoint, refused or unreadable: {reason(error)}; "
            "download it again"
        ) from error


class _Plain(Plain):
    """With the tensors of an archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__()
        self.archive, self.folder = archive, folder
        self.storages: dict[tuple[str, str], Any] = {}

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
