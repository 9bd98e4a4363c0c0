"""Tables of vectors on disk, by file suffix -> names and a matrix."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.cache.pickles import read_pickle, read_torch
from embbench.core import UserError
from embbench.embeddings._published import read_gct, read_source
from embbench.embeddings._tables import RawTable, frame_table, numbers, read_delimited, read_word2vec, texts

NAME_KEYS = ("names", "ensembl", "genes", "gene_names", "symbols", "proteins", "obs_names", "index", "ids")
MATRIX_KEYS = ("matrix", "embeddings", "embedding", "emb", "vectors", "X", "mean")
HUMAN = "species/9606"  # group of STRING's all-species file that holds human proteins


def read_table(path: Path, key: str | None, names: str | None) -> RawTable:
    """Read a table of vectors of shape (m, d); the format follows the suffix (`READERS`), ``.gz`` is allowed for text.

    A folder is read as a PIE source (`read_source`).

    Raises
    ------
    UserError
        Missing file, unknown suffix, or content that is no table of numbers.

    Examples
    --------
    >>> read_table(Path("absent.csv"), None, None)
    Traceback (most recent call last):
    embbench.core.screen.UserError: absent.csv: expected a file with vectors, found nothing
    """
    if (path / "meta.json").is_file() and key is None and names is None:
        return read_source(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{path}: expected a file with vectors, found {found}")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: expected one of {', '.join(READERS)} (text also .gz), found suffix {suffix!r}")
    return READERS[suffix](path, key, names)


def _choose(
    path: Path, found: Mapping[str, int], asked: str | None, usual: tuple[str, ...], ndim: int, what: str
) -> str:
    """The key asked for, else the first usual one, else the only array with ``ndim`` dimensions."""
    if asked is not None:
        if asked not in found:
            raise UserError(f"{path}: expected {what} {asked!r}, found {', '.join(found) or 'nothing'}")
        return asked
    fits = [name for name, dimensions in found.items() if dimensions == ndim]
    usual_fits = [name for name in usual if name in fits]
    if usual_fits or len(fits) == 1:
        return (usual_fits or fits)[0]
    option = "key" if ndim == 2 else "names"
    raise UserError(f"{path}: cannot tell which array is the {what}, found {', '.join(found)}; say {option}=NAME")


def _npz(path: Path, key: str | None, names: str | None) -> RawTable:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"{path}: expected an .npz archive of names and matrix, found a single array")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError) as error:
        found = error if zipfile.is_zipfile(path) else "a file of another kind"
        raise UserError(
            f"{path}: expected an .npz file without pickled objects, found: {found}; write it with numpy.savez"
        ) from error
    return _from_arrays(path, arrays, key, names)


def _from_arrays(path: Path, arrays: Mapping[str, Any], key: str | None, names: str | None) -> RawTable:
    text = {k: v.ndim for k, v in arrays.items() if np.asarray(v).dtype.kind in "UOS"}
    numeric = {k: v.ndim for k, v in arrays.items() if k not in text}
    labels = _choose(path, text, names, NAME_KEYS, 1, "array of names")
    matrix = _choose(path, numeric, key, MATRIX_KEYS, 2, "matrix")
    contexts = texts(arrays["contexts"]) if "contexts" in text and labels != "contexts" else None
    return RawTable(texts(arrays[labels]), numbers(path, arrays[matrix]), contexts)


def _h5(path: Path, key: str | None, names: str | None) -> RawTable:
    try:
        with h5py.File(path, "r") as file:
            group = HUMAN if key is None and HUMAN in file else "/"
            if key is not None and key in file and isinstance(file[key], h5py.Group):
                group, key = key, None
            arrays = {k: v[...] for k, v in file[group].items() if isinstance(v, h5py.Dataset)}
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: expected an HDF5 file with names and matrix, found: {error}") from error
    return _from_arrays(path, arrays, key, names)


def _h5ad(path: Path, key: str | None, names: str | None) -> RawTable:
    import anndata
    from scipy import sparse

    try:
        table = anndata.read_h5ad(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: expected an AnnData file (.h5ad), found: {str(error).splitlines()[0]}") from error
    if key not in (None, "X") and key not in table.obsm:
        raise UserError(f"{path}: expected obsm {key!r}, found {', '.join(table.obsm) or 'none'} (and X)")
    if names is not None and names not in table.obs:
        raise UserError(f"{path}: expected obs column {names!r}, found {', '.join(map(str, table.obs)) or 'none'}")
    matrix = table.X if key in (None, "X") else table.obsm[key]
    if matrix is None:
        raise UserError(f"{path}: X is empty; say which matrix with key=, found obsm {', '.join(table.obsm) or 'none'}")
    labels = table.obs_names if names is None else table.obs[names]
    return RawTable(texts(labels), numbers(path, matrix.toarray() if sparse.issparse(matrix) else matrix))


def _parquet(path: Path, key: str | None, names: str | None) -> RawTable:
    import pandas as pd
    import pyarrow

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: expected a parquet table, found: {str(error).splitlines()[0]}") from error
    if names is None and frame.index.dtype.kind not in "OUT" and len(frame.columns):
        names = str(frame.columns[0])
    return frame_table(path, frame, key, names)


def _torch(path: Path, key: str | None, names: str | None) -> RawTable:
    return _from_mapping(path, read_torch(path), key, names)


def _unpickled(path: Path, key: str | None, names: str | None) -> RawTable:
    return _from_mapping(path, read_pickle(path), key, names)


def _from_mapping(path: Path, data: Any, key: str | None, names: str | None) -> RawTable:
    """``{name: vector}``, or ``{"names": [...], "matrix": ...}`` under usual or given keys."""
    if not isinstance(data, dict) or not data or not all(isinstance(name, str) for name in data):
        raise UserError(f"{path}: expected a dict name -> vector, found {type(data).__name__}")
    values = {name: value.float().numpy() if hasattr(value, "detach") else value for name, value in data.items()}
    if key is not None or names is not None or {"names", "matrix"} <= set(values):
        return _from_arrays(path, {name: np.asarray(value) for name, value in values.items()}, key, names)
    lengths = {name: np.shape(value) for name, value in values.items()}
    if len(set(lengths.values())) > 1 or len(next(iter(lengths.values()))) != 1:
        raise UserError(f"{path}: expected vectors of one length, found shapes {sorted(set(lengths.values()))[:4]}")
    return RawTable(list(values), numbers(path, list(values.values())))


READERS: dict[str, Callable[[Path, str | None, str | None], RawTable]] = {
    ".h5ad": _h5ad,
    ".h5": _h5,
    ".npz": _npz,
    ".parquet": _parquet,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_word2vec,
    ".vec": read_word2vec,
    ".gct": read_gct,
    ".pt": _torch,
    ".pkl": _unpickled,
    ".pickle": _unpickled,
}
