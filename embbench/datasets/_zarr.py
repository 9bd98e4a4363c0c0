"""AnnData stores in zarr (a folder, or a zip of one; formats 2 and 3) behind the few calls that readers make of h5py.

A store may leave out chunks that hold nothing but the fill value: a lost chunk of a dense matrix or of a table
therefore reads as zeros. Chunks of a sparse matrix never are empty, so that a lost one is found.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.core import UserError
from embbench.datasets._h5ad import check_parts, first_line

MARKS = (".zgroup", "zarr.json")  # what lies at the top of a group of format 2 and of format 3
_DAMAGE = (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, EOFError, AssertionError)
DAMAGE = (*_DAMAGE, zipfile.BadZipFile, zlib.error)  # what zarr and its codecs raise on bytes that they cannot read


class ZarrArray:
    """An array of a store as the readers see an `h5py.Dataset`; text comes as str.

    Parameters
    ----------
    array : a `zarr.Array`.
    path, part : the store, and the place of the array in it, for errors.

    Raises
    ------
    UserError
        When values are read: the chunks are damaged, or chunks of a sparse matrix are missing.
    """

    def __init__(self, array: Any, path: str, part: str) -> None:
        self.array, self.path, self.part = array, path, part
        self.text = array.dtype.kind in "OTU"
        self.dtype = h5py.string_dtype() if self.text else np.dtype(array.dtype)
        self.shape, self.ndim, self.attrs = array.shape, array.ndim, array.attrs

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> np.ndarray:
        with _damage(self.path, self.part):
            values = np.asarray(self.array[key])
            return values.astype(object) if self.text else values

    def asstr(self) -> np.ndarray:
        """All values as objects of str."""
        return self[...]

    @property
    def compression(self) -> str | None:
        """Names of the codecs that pack the chunks, None where they are stored as they are."""
        with _damage(self.path, self.part):
            return "+".join(_codec(codec) for codec in self.array.compressors) or None

    def check_whole(self) -> None:
        """Refuse missing chunks, which zarr reads as zeros: those of the entries of a sparse matrix are not zero."""
        with _damage(self.path, self.part):
            chunks, held = int(self.array.nchunks), int(self.array.nchunks_initialized)
        if held < chunks:
            raise UserError(
                f"{self.path}: {self.part} has {held} of its {chunks} chunks; the store is incomplete: copy it again"
            )


class ZarrGroup(Mapping[str, Any]):
    """A group of a store as the readers see an `h5py.Group` or `h5py.File`.

    Parameters
    ----------
    group : a `zarr.Group`.
    path, part : the store, and the place of the group in it, for errors.
    """

    def __init__(self, group: Any, path: str, part: str = "") -> None:
        self.group, self.filename, self.part = group, path, part
        self.attrs = group.attrs

    def __getitem__(self, name: str) -> ZarrGroup | ZarrArray:
        part = f"{self.part}/{name}".lstrip("/")
        with _damage(self.filename, part):
            item = self.group.get(name)
        if item is None:
            raise KeyError(part)
        return ZarrArray(item, self.filename, part) if hasattr(item, "dtype") else ZarrGroup(item, self.filename, part)

    def __iter__(self) -> Iterator[str]:
        with _damage(self.filename, self.part or "the top group"):
            return iter(sorted(self.group.keys()))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@contextlib.contextmanager
def open_zarr(path: Path) -> Iterator[ZarrGroup]:
    """An AnnData store (Virshup et al. 2024, Journal of Open Source Software 9, 4371) opened for reading.

    Parameters
    ----------
    path : a folder, or a zip file of what lies in one.

    Raises
    ------
    UserError
        zarr is not installed, this is no zarr group or not AnnData, or its metadata cannot be read.
    """
    try:
        import zarr
        from zarr.storage import LocalStore, ZipStore
    except ImportError as error:
        raise UserError(f"{path}: reading a zarr store needs zarr >= 3 ({error}); pip install 'zarr>=3'") from error
    with contextlib.ExitStack() as stack:
        with _damage(str(path), "the top group"):
            if path.is_dir():
                store: Any = LocalStore(path, read_only=True)
            else:
                store = ZipStore(path, mode="r", read_only=True)
                stack.callback(store.close)
            # consolidated metadata is a copy that may be older than the arrays
            group = zarr.open_group(store, mode="r", use_consolidated=False)
        opened = ZarrGroup(group, str(path))
        check_parts(opened, str(path))
        yield opened


@contextlib.contextmanager
def _damage(path: str, part: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UserError(
            f"{path}: {part} cannot be read ({first_line(error)}); the store is damaged, incomplete or not AnnData: "
            "copy it again, or write it with anndata.write_zarr"
        ) from error


def _codec(codec: Any) -> str:
    """``zstd`` of a codec of either format."""
    return str(getattr(codec, "codec_id", None) or type(codec).__name__.removesuffix("Codec").lower())
