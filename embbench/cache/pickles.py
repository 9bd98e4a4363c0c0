"""Pickles of plain data, read without running code: containers, numbers, strings and numpy arrays, nothing else."""

from __future__ import annotations

import mmap
import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from embbench.cache.inert import DATA, Inert, Storage
from embbench.cache.opcodes import scan
from embbench.cache.plain import Plain
from embbench.cache.vetting import DAMAGED, reason, refuse_other_content, vet
from embbench.core import UserError


class _Data(Inert):
    """Reads nothing but data: what :class:`Inert` would keep as a placeholder is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The permitted function or name."""
        if (module, name) not in DATA and (module, name) != ("numpy", "ndarray"):
            raise UnpicklingError(f"it asks for {module}.{name}, which data never needs")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        """Refuse: only torch files hold storages."""
        raise UnpicklingError("it refers to what lies outside the file")


def read_pickle(path: Path) -> Any:
    """The data in a pickle file, arrays in the machine's byte order, subclasses of dict as dict.

    Raises
    ------
    UserError
        Not a pickle, truncated, or it names anything but containers, numbers, strings and numpy arrays, or would
        exhaust memory or stack; nothing of it has been run then.
    """
    refuse_other_content(path)
    try:
        with path.open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                scan(data)
            return Plain()(_Data(file, encoding="latin1").load())
    except DAMAGED as error:
        raise UserError(
            f"{path}: expected a pickle of plain containers and numpy arrays, refused or unreadable: {reason(error)}; "
            "save the table as .npz or .csv instead"
        ) from error


def read_torch(path: Path) -> Any:
    """The tensors in a torch file, loaded on the CPU with ``weights_only=True``.

    Raises
    ------
    UserError
        What `vet` refuses, or it holds more than tensors and plain containers.
    """
    import torch

    vet(path)
    try:
        with warnings.catch_warnings():  # torch remarks on the pickle's protocol before it refuses the file
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        found, text = reason(error), str(error)
        if "weights_only" in text:
            # torch's own words are twelve lines which advise to load it all the same
            if name := re.search(r"GLOBAL ([\w.]{1,200})", text):
                raise UserError(
                    f"{path}: expected tensors alone, found {name[1]}; nothing of it was run. Is it a whole training "
                    "state? take the file of weights, or .safetensors"
                ) from error
            line = re.search(r"WeightsUnpickler error: ([^\n]{1,200})", text)
            found = line[1] if line else "a pickle of another kind"
        raise UserError(f"{path}: expected a torch file of tensors, unreadable: {found}; download it again") from error
