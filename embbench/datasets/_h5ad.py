"""AnnData files read with h5py: opening, one column of ``obs`` or ``var`` at a time, and errors that name the place.

Zarr stores are read by the same functions: `embbench.datasets._zarr` gives them the interface of h5py.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.core import UserError

_BLOCK = 1 << 17
_MISSING = ("nan", "NaN", "None", "<NA>", "")


@dataclass(frozen=True)
class Column:
    """A column as codes into sorted levels, -1 where missing; numeric columns keep their ``values`` too.

    Parameters
    ----------
    name : column name.
    codes : shape (m,), int32.
    levels : text of each code.
    values : shape (m,), float64 or None.
    """

    name: str
    codes: np.ndarray
    levels: tuple[str, ...]
    values: np.ndarray | None = None

    def text(self) -> np.ndarray:
        """Object array of str, shape (m,), empty where missing.

        Examples
        --------
        >>> Column("batch", np.array([1, -1, 0]), ("a", "b")).text().tolist()
        ['b', '', 'a']
        """
        return np.array([*self.levels, ""], dtype=object)[self.codes]


@contextlib.contextmanager
def open_h5ad(path: Path) -> Iterator[h5py.File]:
    """An `.h5ad` file (Virshup et al. 2024, Journal of Open Source Software 9, 4371) opened for reading.

    `UserError`: not HDF5, truncated, or not AnnData.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        size = path.stat().st_size
        why = "truncated" if "truncated" in str(error) else "not HDF5"
        raise UserError(
            f"{path}: expected an .h5ad (HDF5) file, found {size} bytes that are {why} ({first_line(error)}); "
            "write it with anndata.write_h5ad, or copy it again"
        ) from error
    with file:
        check_parts(file, str(path))
        yield file


def check_parts(file: Mapping[str, Any], path: str) -> None:
    """Refuse what has no tables of cells and genes."""
    for part in ("obs", "var"):
        if not isinstance(file.get(part), Mapping):
            found = "an old-format table" if part in file else f"only {', '.join(sorted(file)) or 'nothing'}"
            raise UserError(f"{path}: expected a group {part!r} as AnnData >= 0.7 writes it, found {found}")


@contextlib.contextmanager
def reading(path: str, part: str) -> Iterator[None]:
    """Turn damage met while reading ``part`` into a message that names it."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: {part} cannot be read ({first_line(error)}); the file is damaged, truncated or not AnnData: "
            "write it again with anndata.write_h5ad"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says in one line, its type when it says nothing.

    Examples
    --------
    >>> first_line(OSError("no space left")), first_line(KeyError())
    ('no space left', 'KeyError')
    """
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` or the list of what there is.

    Examples
    --------
    >>> near("batsh", ["batch", "cell_type"])
    '; did you mean batch? (there are: batch, cell_type)'
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    shown = ", ".join(known[:20]) + (f" ... ({len(known)} in all)" if len(known) > 20 else "")
    return f"{hint} (there are: {shown or 'none'})"


def column_names(file: h5py.File, axis: str) -> list[str]:
    """Columns of ``obs`` or ``var``, the index left out.

    Examples
    --------
    >>> file = h5py.File("a.h5ad", "w", driver="core", backing_store=False)
    >>> file["obs/_index"], file["obs/batch"] = ["cell1"], [0]
    >>> column_names(file, "obs"), length(file, "obs"), index_names(file, "obs").tolist()
    (['batch'], 1, ['cell1'])
    """
    index = _index_name(file, axis)
    return sorted(name for name in file[axis] if name not in (index, "__categories"))


def _index_name(file: h5py.File, axis: str) -> str:
    name = file[axis].attrs.get("_index", "_index")
    return name.decode() if isinstance(name, bytes) else str(name)


def index_names(file: h5py.File, axis: str) -> np.ndarray:
    """Row names of ``obs`` or ``var`` as an object array of str, shape (m,)."""
    name = _index_name(file, axis)
    with reading(file.filename, f"{axis} index {name!r}"):
        item = _values(file[axis][name])
        return _strings(item) if h5py.check_string_dtype(item.dtype) else item[...].astype(str).astype(object)


def _values(item: h5py.Group | h5py.Dataset) -> h5py.Dataset:
    """The entries of a plain or (AnnData 0.13 with pandas 3) nullable string array; an index has no missing ones."""
    return item["values"] if isinstance(item, Mapping) and "values" in item else item


def length(file: h5py.File, axis: str) -> int:
    """Number of rows of ``obs`` or ``var``."""
    name = _index_name(file, axis)
    with reading(file.filename, f"{axis} index {name!r}"):
        return len(_values(file[axis][name]))


def column(file: h5py.File, axis: str, name: str, option: str) -> Column:
    """One column of ``obs`` or ``var``, asked for by ``option``.

    `UserError`: no such column (near misses and all columns are listed), or a kind that cannot be used.
    """
    known = column_names(file, axis)
    if name not in known:
        raise UserError(f"{file.filename}: {option} {name!r} is not a column of {axis}{near(name, known)}")
    item = file[axis][name]
    with reading(file.filename, f"{axis}/{name}"):
        out = _read_column(file, axis, name, item)
    if len(out.codes) != length(file, axis):
        raise UserError(
            f"{file.filename}: {axis}/{name} has {len(out.codes)} values, expected {length(file, axis)}; write it again"
        )
    return out


def _read_column(file: h5py.File, axis: str, name: str, item: h5py.Group | h5py.Dataset) -> Column:
    if isinstance(item, Mapping):
        if "codes" in item:
            return _categorical(name, item["codes"][...], item["categories"])
        if "values" in item and "mask" in item:
            inner = _plain(name, item["values"])
            values = None if inner.values is None else np.where(item["mask"][...], np.nan, inner.values)
            return Column(name, np.where(item["mask"][...], -1, inner.codes).astype(np.int32), inner.levels, values)
        raise UserError(f"{file.filename}: {axis}/{name} is a {item.attrs.get('encoding-type', 'group')}, not a column")
    if "categories" in item.attrs:  # AnnData 0.7: codes that point to a shared group of categories
        return _categorical(name, item[...], file[item.attrs["categories"]])
    return _plain(name, item)


def _categorical(name: str, codes: np.ndarray, categories: h5py.Dataset) -> Column:
    if isinstance(categories, Mapping):
        categories = categories["values"]
    levels = _plain(name, categories)
    if codes.size and (codes.max() >= len(levels.codes) or codes.min() < -1):
        raise KeyError(f"codes of {name} reach {codes.max()}, there are {len(levels.codes)} categories")
    back = np.append(levels.codes, -1).astype(np.int32)[codes]
    used = np.unique(back[back >= 0])
    lookup = np.full(len(levels.levels) + 1, -1, dtype=np.int32)
    lookup[used] = np.arange(len(used))
    values = None if levels.values is None else np.append(levels.values, np.nan)[codes]
    return Column(name, lookup[back], tuple(levels.levels[i] for i in used), values)


def _plain(name: str, item: h5py.Dataset) -> Column:
    """Codes of a string, boolean or numeric dataset, read in blocks."""
    if item.ndim != 1:
        raise TypeError(f"{name} has shape {item.shape}, expected one value per row")
    if h5py.check_string_dtype(item.dtype):
        seen: dict[str, int] = {}
        parts = [
            np.fromiter((seen.setdefault(v, len(seen)) for v in item.asstr()[i : i + _BLOCK]), np.int32)
            for i in range(0, len(item), _BLOCK)
        ]
        return _sorted_levels(name, np.concatenate([np.zeros(0, np.int32), *parts]), list(seen))
    if item.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds {item.dtype}, expected text or numbers")
    raw = item[...]
    levels, codes = np.unique(raw, return_inverse=True)
    shown = [str(v) if raw.dtype.kind in "biu" else f"{v:.12g}" for v in levels.tolist()]
    out = _sorted_levels(name, codes.ravel().astype(np.int32), shown)
    return Column(name, out.codes, out.levels, raw.astype(np.float64) if raw.dtype.kind != "b" else None)


def _sorted_levels(name: str, codes: np.ndarray, levels: list[str]) -> Column:
    real = sorted({v for v in levels if v not in _MISSING})
    where = {v: i for i, v in enumerate(real)}
    lookup = np.array([where.get(v, -1) for v in levels], dtype=np.int32)
    return Column(name, lookup[codes] if len(levels) else codes, tuple(real))


def _strings(item: h5py.Dataset) -> np.ndarray:
    return np.array(item.asstr()[...], dtype=object)


def describe(values: Any) -> str:
    """A few values for a message.

    Examples
    --------
    >>> describe(range(7))
    '0, 1, 2, 3, 4 ... (7 in all)'
    """
    shown = [str(v) for v in list(values)[:5]]
    return ", ".join(shown) + (f" ... ({len(values)} in all)" if len(values) > 5 else "")
