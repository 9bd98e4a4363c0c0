"""HDF5 artefacts: one file per key, written once under a temporary name and renamed, verified when read.

The HDF5 library may crash on a file with a flipped byte, so every artefact starts with a seal (in the user block that
HDF5 reserves for applications): a sha256 of all bytes that follow, checked before the library sees the file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.core import UserError

FORMAT = 1
FORMATS = {"cells": 2}  # of kinds that changed: cells of version 1 had no totals and no names
SEAL = 512  # bytes of the user block
IN_MEMORY = 1 << 22  # bytes of arrays up to which a file is put together before it is written
SLASH = "\x1f"  # in HDF5 a slash is a group, in names of contexts and columns it is a letter
MAGIC = b"embbench artefact, sha256 and number of the bytes after this block: "
Reader = Callable[[Path, str], tuple[dict[str, np.ndarray], dict[str, Any]]]
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{6})-(\d+)-(\d+)\.[^.]+\.tmp")


class DamagedFileError(UserError):
    """An artefact that is incomplete, altered or not ours; it is never read as data."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; on success it is fsynced and renamed, on failure removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.{_owner()}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror}; choose a folder that can be written"
        ) from error
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
    return _owner_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _owner_of(pid: int) -> str:
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    return f"{host}-{pid}-{_started(pid)}"


def _started(pid: int) -> int:
    """When a process started (clock ticks since boot), so that a reused process id is another process.

    0 where there is no /proc; then a process id alone decides.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files below ``folder`` whose writer on this machine is dead; returns them.

    Only names that `replacing` makes are touched. Files of other machines are left alone until they are a day old
    (their writer may be alive on a shared disk).
    """
    removed = []
    for path in folder.rglob(".*.tmp"):
        named = TEMPORARY.fullmatch(path.name)
        if named is None:
            continue
        host, pid, started = named.groups()
        try:
            here = host == _owner().partition("-")[0]
            stale = not _alive(int(pid), int(started)) if here else time.time() - path.stat().st_mtime > 86_400
        except FileNotFoundError:
            continue
        if stale:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _alive(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(pid) == started


@functools.cache
def versions() -> dict[str, str]:
    """Library versions and machine, recorded beside artefacts but not part of any key."""
    names = ("embbench", "numpy", "scipy", "torch", "h5py", "faiss-cpu", "numba", "scikit-learn")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def content_hash(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> str:
    """sha256 over the names, dtypes, shapes and bytes of all arrays and over the attributes as JSON.

    Examples
    --------
    >>> content_hash({"x": np.zeros(2)}, {}) == content_hash({"x": np.zeros((2, 1))}, {})
    False
    """
    sha = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype.kind in "OU":
            body = json.dumps([v if isinstance(v, str) else v.decode() for v in array.ravel().tolist()]).encode()
            sha.update(f"{name}:str:{array.shape}".encode() + body)
        else:
            sha.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def write_h5(
    path: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write one artefact atomically: contiguous, uncompressed datasets, sealed.

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
    arrays = {name.replace("/", SLASH): array for name, array in arrays.items()}
    facts = {"embbench-type": kind, "attributes": json.dumps(attributes, sort_keys=True), "sha256": sha}
    facts["record"] = json.dumps(record or {})
    if sum(array.nbytes for array in arrays.values()) > IN_MEMORY:
        with replacing(path) as temporary:
            with h5py.File(temporary, "w", userblock_size=SEAL) as file:
                _fill(file, arrays, facts)
            seal(temporary)
        return sha
    image = _image(arrays, facts)
    with replacing(path) as temporary:
        temporary.write_bytes(_sealed(hashlib.sha256(image).hexdigest(), len(image)).ljust(SEAL, b"\0") + image)
    return sha


def _image(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> bytes:
    """The bytes of a small file behind its user block, put together in memory by HDF5's own calls.

    A grid writes thousands of them: this takes a third of the time of `_fill`, and the file is written once.
    """
    access, creation = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_fapl_core(1 << 16, backing_store=False)
    creation.set_userblock(SEAL)
    creation.set_obj_track_times(False)  # the same content is the same bytes
    file = h5py.h5f.create(b"in memory", h5py.h5f.ACC_TRUNC, creation, access)
    plain, text = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.string_dtype()
    plain.set_obj_track_times(False)
    for name, array in arrays.items():
        array = np.asarray(array, order="C", dtype=text if array.dtype.kind in "OU" else None)
        space, kind = h5py.h5s.create_simple(array.shape), h5py.h5t.py_create(array.dtype, logical=True)
        dataset = h5py.h5d.create(file, name.encode(), kind, space, plain)
        if array.size:
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    for name, value in {**facts, **_shared()}.items():
        array = np.array(value, dtype=text if isinstance(value, str) else None)
        kind = h5py.h5t.py_create(array.dtype, logical=True)
        h5py.h5a.create(file, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR)).write(array)
    h5py.h5f.flush(file)
    image = file.get_file_image()
    file.close()
    return image


def _fill(file: h5py.File, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind in "OU":
            file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
        else:
            file.create_dataset(name, data=array)
    file.attrs.update({**facts, **_shared()})


def _shared() -> dict[str, Any]:
    return {"embbench-version": FORMAT, "written-with": _written_with(), "complete": True}


@functools.cache
def _written_with() -> str:
    return json.dumps(versions())


def _sealed(sha: str, size: int) -> bytes:
    return MAGIC + f"{sha} {size}\n".encode()


def seal(path: Path) -> None:
    """Write the sha256 and length of everything behind the user block into the user block of a finished file."""
    with path.open("r+b") as file:
        file.seek(SEAL)
        sha = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell() - SEAL
        file.seek(0)
        file.write(_sealed(sha, size))


def check_seal(path: Path) -> None:
    """Compare every byte of an artefact with its seal, before anything is parsed.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DamagedFileError
        Not sealed by embbench, truncated, or altered.
    UserError
        The file cannot be read at all (permissions, disk): that is no reason to set it aside.
    """
    try:
        with path.open("rb") as file:
            head = file.read(SEAL)
            sha = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell() - SEAL
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; check its permissions and the disk") from error
    stored, _, length = head.removeprefix(MAGIC).partition(b"\n")[0].partition(b" ")
    if not head.startswith(MAGIC) or len(stored) != 64:
        raise DamagedFileError(f"{path}: incomplete file, or not one of embbench (no seal in its first {SEAL} bytes)")
    if length != str(size).encode():
        raise DamagedFileError(f"{path}: expected {length.decode(errors='replace')} bytes after the seal, found {size}")
    if stored != sha.encode():
        raise DamagedFileError(
            f"{path}: content does not match its sha256 {stored[:12].decode(errors='replace')} (a bit was changed)"
        )


def read_h5(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays (strings as object arrays of str) and attributes of one artefact, verified.

    Raises
    ------
    DamagedFileError
        Not ours, incomplete, truncated or altered, of another kind or version.
    UserError
        It cannot be read (permissions, disk).
    """
    return _open(path, kind, _read)


def map_h5(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """As `read_h5`, with arrays of numbers as read-only maps of the file: processes share its pages.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.h5"
    >>> _ = write_h5(path, "gram", {"matrix": np.eye(2)}, {})
    >>> map_h5(path, "gram")[0]["matrix"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return _open(path, kind, _mapped)


def _open(
    path: Path, kind: str, take: Callable[[h5py.Dataset], np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    check_seal(path)
    try:
        with h5py.File(path, "r") as file:
            if not file.attrs.get("complete", False):
                raise DamagedFileError(f"{path}: incomplete file (no 'complete' mark)")
            found = (file.attrs.get("embbench-type"), int(file.attrs.get("embbench-version", 0)))
            version = FORMATS.get(kind, FORMAT)
            if found != (kind, version):
                raise DamagedFileError(f"{path}: expected a {kind} file of version {version}, found {found}")
            attributes = json.loads(file.attrs["attributes"])
            arrays = {name.replace(SLASH, "/"): take(item) for name, item in file.items()}
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DamagedFileError(f"{path}: not a readable HDF5 file: {error}") from error
    return arrays, attributes


def read_whole(
    path: Path, kind: str, read: Reader | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The artefact, or None when it is absent or damaged; a damaged one is set aside, and said in a warning."""
    while (seen := _identity(path)) is not None:
        try:
            return (read or read_h5)(path, kind)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            if _identity(path) != seen:  # another process has put a whole file in its place meanwhile
                continue
            warnings.warn(f"{error}; set aside as {set_aside(path).name} and computed again", stacklevel=2)
            return None
    return None


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _read(item: h5py.Dataset) -> np.ndarray:
    return item.asstr()[...] if h5py.check_string_dtype(item.dtype) else item[...]


def _mapped(item: h5py.Dataset) -> np.ndarray:
    offset = item.id.get_offset()  # None: strings, and arrays without a value
    if offset is None or h5py.check_string_dtype(item.dtype):
        return _read(item)
    return np.asarray(np.memmap(item.file.filename, item.dtype, "r", offset, item.shape))


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
