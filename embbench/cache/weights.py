"""Checkpoints of models: where their files lie, and the only code that fetches them over the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from embbench.cache import licences
from embbench.cache.fetched import Fetched, blob_problem, listing, sha256
from embbench.cache.licences import accepted
from embbench.cache.sources import MIRROR, RECORD, Source, hub_snapshot, parse
from embbench.cache.store import lock
from embbench.core import UserError

__all__ = ["accepted", "fetch", "is_remote", "local_file", "local_folder", "status", "verify"]


def local_folder(checkpoint: str) -> Path:
    """The folder where the files of a checkpoint lie, or would lie once fetched; no network, nothing is created.

    Parameters
    ----------
    checkpoint : a folder; a file (then its parent, see `local_file`); ``hf:org/name@revision`` with an optional
        ``/sub/folder``; the ``https://`` address of one file or of a ``.tar.gz`` or ``.zip`` archive.

    Returns
    -------
    Path
        Of a hub revision: ``$EMBBENCH_HOME/weights/hf/org--name/revision`` once embbench has fetched into it, else an
        existing snapshot in the user's own hub cache, else the former. It need not exist.

    Raises
    ------
    UserError
        The text is none of these.

    Examples
    --------
    >>> local_folder("hf:facebook/esm2_t6_8M_UR50D@main/onnx").name
    'onnx'
    """
    source = parse(checkpoint)
    if source.kind == "path":
        return source.root.parent if source.root.is_file() else source.root
    if source.kind == "hub" and not (source.root / RECORD).exists():
        return (hub_snapshot(source) or source.root) / source.sub
    return source.root / source.sub


def local_file(checkpoint: str, name: str = "") -> Path:
    """The file itself if the checkpoint is one, else ``name`` (by default the last name of a URL) in `local_folder`."""
    source = parse(checkpoint)
    if source.kind == "path" and source.root.is_file():
        return source.root
    if not (name or source.file):
        raise UserError(f"checkpoint {checkpoint!r}: expected a file or the address of one, found a folder")
    return local_folder(checkpoint) / (name or source.file)


def is_remote(checkpoint: str) -> bool:
    """Whether a checkpoint is fetched over the network (``hf:`` or an address).

    Examples
    --------
    >>> is_remote("hf:org/name@main"), is_remote("~/scGPT_human")
    (True, False)
    """
    return parse(checkpoint).kind != "path"


def status(checkpoint: str, files: Sequence[str]) -> str:
    """``ready``, or what is missing; no network, nothing is read through (see `verify`).

    Parameters
    ----------
    checkpoint : as in `local_folder`.
    files : names wanted, relative to the repository, archive or folder.
    """
    source = parse(checkpoint)
    if source.kind == "path" and not source.root.exists():
        return f"missing: there is no {source.root}"
    if source.kind == "path" and source.root.is_file():
        return "ready"
    wanted = _wanted(source, files)
    folder = local_folder(checkpoint)
    absent = [name for name in wanted if not (folder / name).is_file()]
    return f"missing: {listing(absent)} ({len(absent)} of {len(wanted)} files)" if absent else "ready"


def verify(checkpoint: str) -> list[str]:
    """What is wrong with the files of a checkpoint, each read through; no network, empty when nothing is.

    Files that embbench fetched are compared with their record, files of the user's hub cache with the names of its
    blobs; of a folder of the user's own nothing is known but that it exists.
    """
    source = parse(checkpoint)
    if source.kind == "path":
        return [] if source.root.exists() else [f"{source.root}: does not exist"]
    record = Fetched.read(source.root, checkpoint)
    if record.files:
        return record.problems()
    folder = local_folder(checkpoint)
    if not folder.is_dir():
        return [f"{checkpoint}: not fetched yet, expected in {folder}"]
    return [why for path in sorted(folder.rglob("*")) if path.is_file() and (why := blob_problem(path))]


def _silent(text: str) -> None:
    """Say nothing."""


def fetch(
    checkpoint: str,
    files: Sequence[str],
    *,
    name: str,
    licence: str,
    restricted: str = "",
    accept: bool = False,
    mirror: str | None = None,
    hashes: Mapping[str, str] | None = None,
    say: Callable[[str], None] = _silent,
) -> Path:
    """Make the files of a checkpoint lie in `local_folder`, fetching those that are not there, and verify all.

    Parameters
    ----------
    checkpoint : as in `local_folder`; local ones are only checked for completeness.
    files : names wanted, relative to the repository or archive. The address of a single file takes one name, under
        which it is stored (none: the last name of the address).
    name, licence, restricted : of the model; a restriction must be accepted once, by ``accept``.
    mirror : a folder or URL (default ``$EMBBENCH_MIRROR``) to fetch from instead, holding
        ``org/name/revision/file`` for hub files and the last name of an address for others.
    hashes : sha256 (hex) per file of ``files``. Without, the first fetch records what came, and that holds ever after.
    say : is told what is fetched, from where and how large, before it is.

    Returns
    -------
    Path
        `local_folder`.

    Raises
    ------
    UserError
        The licence was not accepted; a file cannot be fetched; a file is not the expected one, or changed. Files that
        are in place stay as they are, and nothing half-written is left among them.
    """
    source = parse(checkpoint)
    if source.kind == "path":
        if (found := status(checkpoint, files)) != "ready":
            raise UserError(
                f"{name}: checkpoint {checkpoint}: {found}; name a folder that holds {listing(list(files))}"
            )
        return local_folder(checkpoint)
    wanted = {source.name(file): (hashes or {}).get(file, "") for file in _wanted(source, files)}
    licences.require(name, licence, restricted, accept=accept)
    with lock(source.root):
        folder = local_folder(checkpoint)
        if not folder.is_relative_to(source.root) and status(checkpoint, files) == "ready":
            _check_snapshot(folder, {file: (hashes or {}).get(file, "") for file in files})
            return folder
        record = Fetched.read(source.root, checkpoint)
        present = [file for file in wanted if (source.root / file).is_file()]
        noted = [record.check(file, wanted[file]) for file in present]
        if any(noted) and os.access(source.root, os.W_OK):  # a shared home may be read only
            record.write()
        if missing := {file: sha for file, sha in wanted.items() if file not in present}:
            from embbench.cache.arrivals import bring  # the network's modules, which extractors need not load

            say(f"{name}: weights under {licence or 'an unknown licence'}")
            bring(source, record, missing, mirror or os.environ.get(MIRROR, ""), say)
    return local_folder(checkpoint)


def _wanted(source: Source, files: Sequence[str]) -> list[str]:
    single = source.kind == "url" and (not source.archive or list(files) == [source.file])
    if single and len(files) > 1:
        raise ValueError(f"{source.text} is the address of one file, got {len(files)} names: {listing(list(files))}")
    if single and not files:
        return [source.file]
    if not files and source.kind != "path":
        raise ValueError(f"{source.text}: files must name the files wanted, got none")
    return list(files)


def _check_snapshot(folder: Path, hashes: Mapping[str, str]) -> None:
    """The user's hub cache is read only: a wrong file there is named, never replaced."""
    for file, expected in hashes.items():
        if why := blob_problem(folder / file):
            raise UserError(why)
        if expected and (found := sha256(folder / file)) != expected.lower():
            raise UserError(f"{folder / file}: expected sha256 {expected.lower()}, found {found}; remove it there")
