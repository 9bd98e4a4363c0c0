"""Published checkpoints read strictly: plain tensors, every one of the expected shape, none left over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.pickles import read_torch
from embbench.cache.vetting import DAMAGED, refuse_other_content
from embbench.core import UserError
from embbench.embeddings.models._lightning import read_parts
from embbench.embeddings.models._tensors import Tensors, describe, few, short

if TYPE_CHECKING:
    import torch

__all__ = ["Tensors", "find_file", "present", "read_json", "read_lightning", "read_state"]

TORCH = (".pt", ".pth", ".bin", ".ckpt", ".torch")
INDEX = ".index.json"  # of a checkpoint in several files: {"weight_map": {key: file}}


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The flat dict of tensors in a ``.safetensors``, torch or sharded (``*.index.json``) file, on the CPU.

    Torch files are read with ``weights_only=True``.

    Raises
    ------
    UserError
        Absent, a folder, no such format, damaged, a git-lfs pointer or web page, or anything but a flat dict of tensors
        (the message says what was found).
    """
    if path.name.endswith(INDEX):
        return _sharded(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _flat(path, _safetensors(path))
    if suffix not in TORCH:
        raise UserError(f"{path}: expected a checkpoint (.safetensors, {', '.join(TORCH)}, *{INDEX}), found {suffix!r}")
    return _flat(path, read_torch(path))


def read_lightning(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """``state_dict`` and ``hyper_parameters`` of a PyTorch-Lightning checkpoint, without running code of it.

    Read with ``weights_only=True`` where that suffices. Else classes come as inert placeholders with ``name``, ``args``
    and ``state`` (dict subclasses and namespaces as dict), and only the two entries are read. Without
    ``hyper_parameters`` the second is empty.

    Raises
    ------
    UserError
        As :func:`read_state`; no ``state_dict`` in it; hyper-parameters that are no mapping; a pickle which asks for
        what only attacks need.
    """
    parts = ("state_dict", "hyper_parameters")
    try:
        content = read_torch(path)
    except UserError:
        content = read_parts(path, parts)
    if not isinstance(content, dict) or parts[0] not in content:
        raise UserError(f"{path}: expected a Lightning checkpoint with {parts[0]!r}, found {describe(content)}")
    given = dict.get(content, parts[1], {})  # the class's own method, as in _flat
    if not isinstance(given, dict):
        raise UserError(f"{path}: expected {parts[1]} as a dict, found {describe(given)}")
    return _flat(path, content[parts[0]]), dict(dict.items(given))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises
    ------
    UserError
        Absent, not JSON, or no object.
    """
    refuse_other_content(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8 and no JSON alike
        raise UserError(f"{path}: expected JSON, found: {error}; download the folder again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {describe(content)}; download the folder again")
    return content


def find_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of the candidates that is a file of the folder.

    Raises
    ------
    UserError
        None is; the message lists what is there.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise UserError(f"{what}: expected the model's folder, found {'a file' if folder.exists() else 'no'} {folder}")
    there = sorted(path.name for path in folder.iterdir())
    raise UserError(
        f"{what}: none of {', '.join(names)} in {folder}, which holds {few(there, 8) or 'nothing'}; "
        f"is it {what}? download the folder again"
    )


def present(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """For ``files()``: the candidates that exist, with the files which an index names; all candidates when none exists.

    Examples
    --------
    >>> [path.name for path in present(Path("nowhere"), ["model.safetensors", "pytorch_model.bin"])]
    ['model.safetensors', 'pytorch_model.bin']
    """
    found = [folder / name for name in names if (folder / name).is_file()]
    for index in [path for path in found if path.name.endswith(INDEX)]:
        try:
            found += [shard for shard in _shards(index) if shard not in found]
        except UserError:  # read_state will say it; the index alone is in the key meanwhile
            continue
    return tuple(found) or tuple(folder / name for name in names)


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    refuse_other_content(path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path}: reading it needs the package safetensors; pip install safetensors") from error
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *DAMAGED) as error:
        raise UserError(f"{path}: expected a safetensors file, unreadable: {error}; download it again") from error


def _shards(index: Path) -> list[Path]:
    """The files that an index names, beside it."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise UserError(f"{index}: expected weight_map {{key: file}}, found {describe(files)}")
    names = sorted(set(files.values()))
    if away := [name for name in names if Path(name).name != name or name.endswith(INDEX)]:
        raise UserError(f"{index}: expected names of files beside it, found {short(away[0])}")
    return [index.parent / name for name in names]


def _sharded(index: Path) -> dict[str, torch.Tensor]:
    shards = _shards(index)
    if absent := [shard.name for shard in shards if not shard.is_file()]:
        raise UserError(f"{index}: {len(absent)} of {len(shards)} files are missing: {few(absent)}; download them too")
    promised = read_json(index)["weight_map"]
    state: dict[str, torch.Tensor] = {}
    for shard in shards:
        part = read_state(shard)
        if wrong := [key for key in part if promised.get(key) != shard.name]:
            raise UserError(f"{shard}: {index.name} does not place {few(wrong)} here; download the folder again")
        state |= part
    if lost := [key for key in promised if key not in state]:
        raise UserError(
            f"{index}: {len(lost)} tensors are in none of its files: {few(lost)}; download the folder again"
        )
    return state


def _flat(path: Path, content: Any) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected a flat dict of tensors, found {describe(content)}")
    items = list(dict.items(content))  # the class's own: a pickle may give a dict another attribute of that name
    for key, value in items:
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: expected a flat dict of tensors, found {short(key)}: {describe(value)}")
    return dict(items)
