"""HDF5 artefacts: one file per key, written once under a temporary name and renamed, verified when read."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.core import UserError

FORMAT = 1


class DamagedFileError(UserError):
    """An artefact that is incomplete, altered or not ours; it is never read as data."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; on success it is fsynced and renamed, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.{_owner()}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _owner() -> str:
    return f"{hashlib.sha256(platform.node().encode()).hexdigest()[:6]}-{os.getpid()}"


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files below ``folder`` whose writer on this machine is dead; returns them.

    Files of other machines are left alone until they are a day old (their writer may be alive on a shared disk).
    """
    removed = []
    for path in folder.rglob(".*.tmp"):
        host, _, pid = path.name.split(".")[-3].partition("-")
        try:
            here = host == _owner().partition("-")[0]
            stale = not _alive(int(pid)) if here else time.time() - path.stat().st_mtime > 86_400
        except (ValueError, FileNotFoundError):
            continue
        if stale:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@functools.cache
def versions() -> dict[str, str]:
    """Library versions and machine, recorded beside artefacts but not part of any key."""
    names = ("embbench", "numpy", "scipy", "torch", "h5py", "faiss-cpu", "scikit-learn")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def content_hash(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> str:
    """sha256 over the names, dtypes, shapes and bytes of all arrays and over the attributes as JSON."""
    sha = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype.kind in "OU":
            body = json.dumps([v if isinstance(v, str) else v.decode() for v in array.ravel().tolist()]).encode()
            sha.update(f"{name}:str:{array.shape}".encode() + body)
        else:
            sha.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
            sha.update(memoryview(np.ascontiguousarray(array)).cast("B"))
    return sha.hexdigest()


def write_h5(
    path: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write one artefact atomically: contiguous, uncompressed datasets.

    Parameters
    ----------
    path : final file; an existing one is replaced.
    kind : type of the artefact, checked when it is read.
    arrays : numeric, bool or string arrays.
    attributes : JSON-able facts (the whole key among them).
    record : facts that may differ between identical computations (times); stored beside the content, not hashed.

    Returns
    -------
    str
        sha256 of the content; identical content gives an identical hash on every machine.
    """
    arrays = {k: np.asarray(v) for k, v in arrays.items()}
    sha = content_hash(arrays, attributes)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            if array.dtype.kind in "OU":
                file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=array)
        file.attrs.update(
            {
                "embbench-type": kind,
                "embbench-version": FORMAT,
                "attributes": json.dumps(attributes, sort_keys=True),
                "sha256": sha,
                "written-with": json.dumps(versions()),
                "record": json.dumps(record or {}),
                "complete": True,
            }
        )
        file.flush()
    return sha


def read_h5(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and verify one artefact.

    Returns
    -------
    arrays, attributes
        Strings come back as object arrays of str.

    Raises
    ------
    DamagedFileError
        Not HDF5, truncated, of another kind or version, or content that does not match its hash.
    """
    try:
        with h5py.File(path, "r") as file:
            if not file.attrs.get("complete", False):
                raise DamagedFileError(f"{path}: incomplete file (no 'complete' mark)")
            found = (file.attrs.get("embbench-type"), int(file.attrs.get("embbench-version", 0)))
            if found != (kind, FORMAT):
                raise DamagedFileError(f"{path}: expected a {kind} file of version {FORMAT}, found {found}")
            attributes, sha = json.loads(file.attrs["attributes"]), file.attrs["sha256"]
            arrays = {name: _read(item) for name, item in file.items()}
    except (OSError, KeyError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedFileError(f"{path}: not a readable HDF5 file: {error}") from error
    if content_hash(arrays, attributes) != sha:
        raise DamagedFileError(f"{path}: content does not match its sha256 {sha[:12]} (a bit was changed)")
    return arrays, attributes


def _read(item: h5py.Dataset) -> np.ndarray:
    return item.asstr()[...] if h5py.check_string_dtype(item.dtype) else item[...]


def read_record(path: Path) -> dict[str, Any]:
    """The unhashed facts stored beside an artefact (times), ``{}`` where there are none."""
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs.get("record", "{}"))


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that nobody reads it again; returns the new name."""
    aside = path.with_name(f"{path.name}.damaged")
    with contextlib.suppress(FileNotFoundError):  # another process may have set it aside first
        path.replace(aside)
    return aside


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Advisory lock beside ``path``, released by the kernel at death; without locking both compute, the last wins."""
    from filelock import FileLock

    target = path.parent / ".locks" / f"{path.name}.lock"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        guard = FileLock(target)
        guard.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        guard.release()
