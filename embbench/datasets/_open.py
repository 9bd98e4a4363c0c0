"""AnnData on disk, an HDF5 file or a zarr store: opening it, and what names its content."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embbench.core import UserError
from embbench.datasets._h5ad import open_h5ad
from embbench.datasets._zarr import MARKS, open_zarr


@contextlib.contextmanager
def open_anndata(path: Path) -> Iterator[Any]:
    """An `.h5ad` file, or a zarr store (folder or zip), as `h5py.File` or what reads like one.

    Raises
    ------
    UserError
        No such file, neither HDF5 nor zarr, or not AnnData.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; give the path of an .h5ad file or of a .zarr store")
    if path.is_dir() and not any((path / mark).exists() for mark in MARKS):
        raise UserError(f"{path} is a folder, expected an .h5ad file or a zarr store (with {' or '.join(MARKS)} in it)")
    with open_zarr(path) if path.is_dir() or zipfile.is_zipfile(path) else open_h5ad(path) as file:
        yield file


def content_digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files of a folder.

    Remembered within the process while sizes and modification times stay.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = ((p, p.stat()) for p in files)
    return _digest(path.resolve(), tuple((str(p), state.st_size, state.st_mtime_ns) for p, state in stats))


@functools.lru_cache(maxsize=64)
def _digest(root: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    if root.is_file():
        return _sha256(str(root))
    sha = hashlib.sha256()
    for name, size, _ in files:
        sha.update(f"{Path(name).resolve().relative_to(root).as_posix()}:{size}:{_sha256(name)};".encode())
    return sha.hexdigest()


def _sha256(name: str) -> str:
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
