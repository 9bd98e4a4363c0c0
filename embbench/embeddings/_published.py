"""Layouts of published tables that are more than names and numbers, and steps that make vectors of them."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from pathlib import Path

import numpy as np

from embbench.cache.weights import is_remote, local_file, local_folder
from embbench.core import UserError
from embbench.embeddings._knowledge import text_lines
from embbench.embeddings._linalg import truncated_svd
from embbench.embeddings._tables import MISSING, RawTable, numbers
from embbench.genes import gene_table

GENE_COLUMN = re.compile(r"(.+?)\s+\((\d+|Unknown|nan)\)")  # DepMap writes SYMBOL (ENTREZ)
SOURCE_FILES = ("meta.json", "embeddings.npy", "offsets.npy", "aliases.yaml")
OBSERVED = 0.5  # share of columns that must be there before a row's mean stands in for the rest


def located(path: str) -> Path:
    """Where a file or folder lies: a local path as it is, an address or ``hf:`` text where embbench fetches it to.

    Examples
    --------
    >>> located("hf:org/name@main/sub/x.h5ad").name
    'x.h5ad'
    """
    text = str(path)
    if not is_remote(text):
        return Path(text).expanduser()
    return local_folder(text) if text.startswith("hf:") else local_file(text)


def check_fetched(text: str, path: Path) -> None:
    """UserError when ``text`` is an address or ``hf:`` text of which nothing has been fetched to ``path`` yet."""
    if is_remote(text) and not path.exists():
        addressed = text.startswith(("http://", "https://"))
        how = "embbench extract --model NAME fetches what is public, or give" if addressed else "fetch it and give"
        raise UserError(f"{text} has not been fetched, expected at {path}; {how} a file of your own with path=")


def source_files(folder: Path) -> tuple[Path, ...]:
    """The files of a source folder (`read_source`) that are there."""
    return tuple(folder / name for name in SOURCE_FILES if (folder / name).is_file())


def read_source(folder: Path) -> RawTable:
    """A knowledge source of PIE: ``meta.json`` (layout, keys, dim), ``embeddings.npy`` and what they need.

    Layout ``dense`` has one row per key; ``token`` has the rows ``offsets[i]`` to ``offsets[i + 1]``, which are
    averaged. Names of ``aliases.yaml`` (alias: key) that are no keys themselves get the vector of their key.

    Raises
    ------
    UserError
        A file is missing or damaged, or its shape is not what ``meta.json`` says.

    References
    ----------
    Format version 1 of Arc Institute's PIE (2026), dataset arcinstitute/PIE_sources.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        keys, layout, dim = [str(key) for key in meta["keys"]], meta["layout"], int(meta["dim"])
        stored = np.load(folder / "embeddings.npy", allow_pickle=False)
        offsets = np.load(folder / "offsets.npy", allow_pickle=False) if layout == "token" else None
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: expected a source folder with meta.json (keys, layout, dim) and embeddings.npy, found: {error}"
        ) from error
    matrix = numbers(folder / "embeddings.npy", stored)
    if offsets is not None:
        matrix = _token_means(folder, matrix, offsets, len(keys))
    if matrix.shape != (len(keys), dim):
        raise UserError(f"{folder}: meta.json names {len(keys)} keys x {dim}, found a {matrix.shape} matrix")
    row = {key: i for i, key in enumerate(keys)}
    more = {alias: row[key] for alias, key in _aliases(folder).items() if key in row and alias not in row}
    return RawTable([*keys, *more], matrix[[*range(len(keys)), *more.values()]])


def _token_means(folder: Path, matrix: np.ndarray, offsets: np.ndarray, count: int) -> np.ndarray:
    steps = np.diff(offsets)
    if len(steps) != count or not len(steps) or offsets[0] != 0 or offsets[-1] != len(matrix) or (steps < 1).any():
        raise UserError(f"{folder}: offsets.npy must cut {len(matrix)} rows into {count} parts, found {len(steps)}")
    return np.add.reduceat(matrix.astype(np.float64), offsets[:-1], axis=0) / steps[:, None]


def _aliases(folder: Path) -> dict[str, str]:
    import yaml

    path = folder / "aliases.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: expected 'alias: name' lines, found: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected 'alias: name' lines, found {type(found).__name__}")
    return {str(alias): str(key) for alias, key in found.items()}


def read_columns(path: Path) -> RawTable:
    """A table whose names are its column headers, transposed: DepMap's gene effects (a row per cell line).

    Read line by line, so memory is that of the numbers (float32). Headers ``SYMBOL (ENTREZ)`` become the Entrez
    identifier where it is known (it outlives symbols), else the symbol; empty fields and NA are missing numbers.

    Raises
    ------
    UserError
        Unreadable, no second column, a ragged line, text where numbers are expected.
    """
    rows: list[np.ndarray] = []
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            first = file.readline().rstrip("\r\n")
            separator = "\t" if "\t" in first else ","
            header = next(csv.reader([first], delimiter=separator), [])[1:]
            for number, line in enumerate(file, start=2):
                if line.strip():
                    rows.append(_row(path, number, line.rstrip("\r\n").split(separator)[1:], len(header)))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a readable table (text or .gz), found: {error}") from error
    if not header or not rows:
        raise UserError(f"{path}: expected a header of names and lines of numbers, found {len(rows)} such lines")
    return RawTable([_gene(name) for name in header], np.array(rows).T)


def _row(path: Path, number: int, fields: list[str], width: int) -> np.ndarray:
    if len(fields) != width:
        raise UserError(f"{path}: ragged table, row {number} has {len(fields)} numbers, expected {width}")
    try:
        return np.array([np.nan if field.strip() in MISSING else float(field) for field in fields], np.float32)
    except ValueError as error:
        raise UserError(f"{path}, row {number}: expected numbers beside the first field, found: {error}") from error


def _gene(header: str) -> str:
    parts = GENE_COLUMN.fullmatch(header.strip())
    if parts is None:
        return header.strip()
    return parts[2] if parts[2] in gene_table().entrez else parts[1]


def read_gct(path: Path, key: str | None, names: str | None) -> RawTable:
    """GCT 1.2 (GTEx): ``#1.2``, sizes, then ``Name``, ``Description`` and one column per sample or tissue.

    Raises
    ------
    UserError
        Not that format, or not the number of rows and columns that its second line says.
    """
    lines = text_lines(path)
    table = [line.split("\t") for line in lines[2:] if line]
    size = lines[1].split("\t") if len(lines) > 1 else []
    shape = (len(table) - 1, len(table[0]) - 2 if table else 0)
    if lines[0].strip() != "#1.2" or size[:2] != [str(n) for n in shape]:
        raise UserError(f"{path}: expected GCT 1.2 (#1.2, rows and columns), found {lines[0][:20]!r}, {size}, {shape}")
    column = table[0].index(names) if names in table[0] else 0
    if key is not None or (names is not None and column > 1):
        raise UserError(
            f"{path}: GCT has one table, named by {' or '.join(table[0][:2])}; got key={key}, names={names}"
        )
    return RawTable([row[column] for row in table[1:]], numbers(path, [row[2:] for row in table[1:]]))


def renamed(names: list[str], path: Path) -> tuple[list[str], int]:
    """``names`` as a table of two or more columns (name in the file, gene name) says, e.g. STRING's protein.info.

    Columns are separated by tabs, or by commas where the first line has no tab. Names it lacks stay. A gene name that
    two names have goes to the first; the other stays as it is.

    Returns
    -------
    names, and how many of them stayed as they were because of that.

    Raises
    ------
    UserError
        No table, two gene names for one name, or it names none of them.
    """
    lines = text_lines(path)
    separator = "\t" if "\t" in lines[0] else ","
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if separator in line:
            name, new = (field.strip() for field in line.split(separator)[:2])
            if pairs.setdefault(name, new) != new:
                raise UserError(
                    f"{path}, line {number}: expected one gene name for {name!r}, found {pairs[name]!r} and {new!r}; "
                    "keep one line per name"
                )
    if not set(names) & set(pairs):
        raise UserError(f"{path}: expected a table of names such as {', '.join(names[:2])}, found none of them")
    taken: dict[str, str] = {}
    for name in names:
        taken.setdefault(pairs.get(name, name), name)
    kept = {name for name in names if name not in pairs or taken[pairs[name]] != name}
    return [name if name in kept else pairs[name] for name in names], len(kept)


def filled(matrix: np.ndarray) -> np.ndarray:
    """Missing numbers of a row replaced by the mean of those there, if at least half of them are; shape kept.

    Examples
    --------
    >>> filled(np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, 1.0]])).tolist()
    [[1.0, 3.0, 2.0], [nan, nan, 1.0]]
    """
    known = np.isfinite(matrix)
    share = known.mean(axis=1)
    total = np.where(known, matrix, 0.0).sum(axis=1, dtype=np.float64)
    mean = total / np.maximum(known.sum(axis=1), 1)
    stand_in = (share >= OBSERVED)[:, None] & ~known
    return np.where(stand_in, mean[:, None], matrix).astype(matrix.dtype)


def principal(matrix: np.ndarray, dim: int) -> np.ndarray:
    """Scores ``U S`` of shape (n, min(dim, rank)), float64, of the column-centred rows."""
    centred = matrix.astype(np.float64)
    centred -= centred.mean(axis=0)
    U, s, _ = truncated_svd(centred, dim)
    return U * s
