"""Edge lists on disk -> a symmetric weighted adjacency matrix."""

from __future__ import annotations

import csv
import gzip
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from embbench.core import UserError

if TYPE_CHECKING:
    import pandas as pd

PACKAGED = {"ppi": "ppi.tsv.gz"}
ENDS = (("source", "target"), ("gene1", "gene2"), ("g1", "g2"), ("protein1", "protein2"))
WEIGHTS = ("weight", "combined_score")


def graph_file(graph: str) -> Path:
    """The file of a packaged graph (``ppi``) or the path that ``graph`` itself is.

    Examples
    --------
    >>> graph_file("ppi").name
    'ppi.tsv.gz'
    """
    return Path(__file__).parents[1] / "data" / PACKAGED[graph] if graph in PACKAGED else Path(graph).expanduser()


def read_edges(
    path: Path,
    source: str | None = None,
    target: str | None = None,
    weight: str | None = None,
    threshold: float | None = None,
) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read a table of edges: one header line, tab-, comma- or space-separated, plain or gzip.

    Parameters
    ----------
    path : file.
    source, target : columns of the two ends; default ``source,target``, ``gene1,gene2``, ``g1,g2`` or
        ``protein1,protein2`` when present, else the first two columns.
    weight : column of positive weights; None takes ``weight`` or ``combined_score`` (STRING) when present, else 1 for
        every edge; ``none`` forces 1.
    threshold : leave out edges of a smaller weight.

    Returns
    -------
    names : of shape (m,), str, sorted, every end of a kept edge.
    adjacency : of shape (m, m), float64 CSR, symmetric, zero diagonal; of repeated edges (in either direction) the
        largest weight counts; self-loops are dropped.

    Raises
    ------
    UserError
        Unreadable file, missing column, ragged or empty table, a weight that is no positive number, a threshold
        without weights, or no edge left.
    """
    import pandas as pd

    path = Path(path)
    header, separator = _header(path)
    if source is None and target is None:
        source, target = next((pair for pair in ENDS if set(pair) <= set(header)), (header[0], header[1]))
    if weight is None:
        weight = next((name for name in WEIGHTS if name in header), None)
    weight = None if weight == "none" else weight
    columns = [source, target] if weight is None else [source, target, weight]
    if absent := [str(name) for name in columns if name not in header]:
        raise UserError(
            f"{path}: expected edge columns {absent}, found {header[:12]}; name them (source, target, weight)"
        )
    if threshold is not None and weight is None:
        raise UserError(
            f"{path}: threshold {threshold:g} needs a weight column, found {header[:12]}; give weight=COLUMN"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(path, sep=separator, dtype=str, na_filter=False, index_col=False)[columns]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, pd.errors.ParserWarning) as error:
        raise UserError(f"{path}: expected an edge table, one edge per line, found: {str(error).strip()}") from error
    values = np.ones(len(table)) if weight is None else _weights(path, table[weight])
    keep = np.ones(len(table), bool) if threshold is None else values >= threshold
    ends = table.loc[keep, [source, target]].to_numpy(dtype=object)
    return _adjacency(path, ends, values[keep])


def _header(path: Path) -> tuple[list[str], str]:
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as file:
            line = file.readline().rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a readable edge table (text or .gz), found: {error}") from error
    separator = "\t" if "\t" in line else "," if "," in line else " "
    header = next(csv.reader([line], delimiter=separator), [])
    if len(header) < 2:
        raise UserError(f"{path}: expected a header naming at least two columns, found {line[:60]!r}")
    return header, separator


def _weights(path: Path, column: pd.Series) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise UserError(
            f"{path}: {len(bad)} edges lack a finite weight >= 0, e.g. line {bad[0] + 2} has "
            f"{column.name} = {column.iloc[bad[0]]!r}"
        )
    return values


def _adjacency(path: Path, ends: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, sparse.csr_matrix]:
    import pandas as pd

    real = (ends[:, 0] != ends[:, 1]) & (values > 0) & (ends != "").all(axis=1)
    if not real.any():
        raise UserError(f"{path}: expected at least one edge, found none with positive weight among {len(ends)} rows")
    codes, names = pd.factorize(ends[real].ravel(), sort=True)
    low, high = np.sort(codes.reshape(-1, 2), axis=1).T
    order = np.lexsort((-values[real], high, low))
    low, high, values = low[order], high[order], values[real][order]
    first = np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])]
    half = sparse.csr_matrix((values[first], (low[first], high[first])), shape=(len(names), len(names)))
    adjacency = (half + half.T).tocsr()
    adjacency.sort_indices()
    return np.asarray(names, dtype=str), adjacency
