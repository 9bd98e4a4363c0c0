"""Whether the values of a matrix are stored compressed, and whether this machine can unpack them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py

from embbench.core import UserError
from embbench.datasets._zarr import ZarrArray

_REARRANGE = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}  # move or check bytes, pack nothing
_NAMES = {h5py.h5z.FILTER_DEFLATE: "gzip", h5py.h5z.FILTER_SZIP: "szip", h5py.h5z.FILTER_LZF: "lzf"}


def packing(item: Any, path: str, label: str) -> str | None:
    """How a stored matrix is compressed, ``gzip`` or ``blosc`` for example; None where it is not.

    Parameters
    ----------
    item : group of a sparse matrix or dense array, of a file or a store.
    path, label : for errors.

    Raises
    ------
    UserError
        Compressed by an HDF5 filter that is not installed.

    Examples
    --------
    >>> file = h5py.File("a.h5", "w", driver="core", backing_store=False)
    >>> packing(file.create_dataset("X", data=[[1.0]], compression="gzip"), "a.h5", "X")
    'gzip'
    """
    values = item["data"] if isinstance(item, Mapping) else item
    if isinstance(values, ZarrArray):
        return values.compression
    plan = values.id.get_create_plist()
    filters = {f[0]: f[3] for f in map(plan.get_filter, range(plan.get_nfilters()))}
    named = {code: _NAMES.get(code) or name.decode(errors="replace") for code, name in filters.items()}
    for code, name in named.items():
        if not h5py.h5z.filter_avail(code):
            raise UserError(
                f"{path}: {label} is compressed by HDF5 filter {code} ({name or 'without a name'}), which is not "
                "installed: pip install hdf5plugin and import it first, or write the file without compression"
            )
    return "+".join(name for code, name in named.items() if code not in _REARRANGE) or None
