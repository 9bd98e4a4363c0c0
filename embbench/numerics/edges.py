"""Edge lists on disk -> a symmetric weighted adjacency matrix; filters by score, STRING channel and neighbour rank."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from embbench.core import UserError

if TYPE_CHECKING:
    import pandas as pd

PACKAGED = {"ppi": "ppi.tsv.gz"}
ENDS = (("source", "target"), ("gene1", "gene2"), ("g1", "g2"), ("protein1", "protein2"))
WEIGHTS = ("weight", "combined_score")
# STRING's evidence channels with the names that its detailed and full tables give them
CHANNELS = {
    **{name: (name,) for name in ("neighborhood", "fusion", "coexpression", "database", "textmining")},
    "cooccurence": ("cooccurence", "cooccurrence"),
    "experimental": ("experimental", "experiments"),
}
PRIOR = 0.041  # chance that two random proteins interact, which STRING builds into every channel's score
HOMOLOGY = ("cooccurence", "textmining")  # channels that STRING lowers by the homology of the two proteins
SYMBOLS = ("Ensembl_HGNC_symbol", "BioMart_HUGO", "Ensembl_gene")  # alias sources of STRING 12, 11 and both, best first
PROTEIN = re.compile(r"(\d+\.)?ENS[A-Z]*P\d{11}")


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
    *,
    channels: Sequence[str] | str | None = None,
    without: Sequence[str] | str | None = None,
    top_k: int | None = None,
    names: Path | str | None = None,
) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read a table of edges: one header line, tab-, comma- or space-separated, plain or gzip; spaces around names go.

    Parameters
    ----------
    path : file.
    source, target : columns of the two ends; default ``source,target``, ``gene1,gene2``, ``g1,g2`` or
        ``protein1,protein2`` when present, else the first two columns.
    weight : column of positive weights; None takes ``weight`` or ``combined_score`` (STRING) when present, else 1 for
        every edge; ``none`` forces 1.
    threshold : leave out edges of a smaller weight.
    channels, without : weight edges by these channels of a detailed or full STRING table (neighborhood, fusion,
        cooccurence, coexpression, experimental, database, textmining), or by all but these; see `channel_score`.
    top_k : keep an edge when it is among the ``top_k`` heaviest of either end (after the threshold); of equal weights
        the neighbour whose name sorts first counts as heavier.
    names : STRING's ``protein.info`` or ``protein.aliases`` file, to rename the proteins of its tables to genes;
        proteins that become one gene are merged, and one that the file lacks keeps its identifier.

    Returns
    -------
    names : of shape (m,), str, sorted, every end of a kept edge.
    adjacency : of shape (m, m), float64 CSR, symmetric, zero diagonal; of repeated edges (in either direction) the
        largest weight counts; self-loops are dropped.

    Raises
    ------
    UserError
        Unreadable file, missing column, ragged or empty table, an edge without both ends, a weight that is no positive
        number, a threshold without weights, channels that the table does not have, proteins that ``names`` does not
        know, or no edge left.
    ValueError
        See `check_filters`.
    """
    check_filters("read_edges", channels, without, top_k, weight)
    path = Path(path)
    header, separator = _header(path)
    if source is None and target is None:
        source, target = next((pair for pair in ENDS if set(pair) <= set(header)), (header[0], header[1]))
    scored = channels is not None or without is not None
    if weight is None and not scored:
        weight = next((name for name in WEIGHTS if name in header), None)
    weight = None if weight == "none" else weight
    columns = [source, target] if weight is None else [source, target, weight]
    if absent := [str(name) for name in columns if name not in header]:
        raise UserError(
            f"{path}: expected edge columns {absent}, found {header[:12]}; name them (source, target, weight)"
        )
    if threshold is not None and weight is None and not scored:
        raise UserError(
            f"{path}: threshold {threshold:g} needs a weight column, found {header[:12]}; give weight=COLUMN"
        )
    table = _table(path, separator)
    if scored:
        values = channel_score(path, table, _listed(channels), _listed(without))
    else:
        values = np.ones(len(table)) if weight is None else _weights(path, table[weight])
    keep = np.ones(len(table), bool) if threshold is None else values >= threshold
    genes = None if names is None else protein_names(Path(names))
    labels, ends = _ends(path, table[source], table[target], genes)
    found, adjacency = _adjacency(path, labels, ends[keep], values[keep])
    return found, adjacency if top_k is None else strongest(adjacency, top_k)


def check_filters(
    who: str,
    channels: Sequence[str] | str | None,
    without: Sequence[str] | str | None,
    top_k: int | None,
    weight: str | None = None,
) -> None:
    """ValueError for an unknown channel, both or neither-nor of ``channels``, ``without``, ``weight``, or a bad top_k.

    Examples
    --------
    >>> check_filters("GraphWavelet", None, "text", None)
    Traceback (most recent call last):
    ValueError: GraphWavelet: channels are neighborhood, ..., got ['text']
    """
    for chosen in (channels, without):
        unknown = [name for name in _listed(chosen) or () if name not in CHANNELS]
        if unknown or (chosen is not None and not _listed(chosen)):
            raise ValueError(f"{who}: channels are {', '.join(CHANNELS)}, got {unknown}")
    if sum(given is not None for given in (channels, without, weight)) > 1:
        raise ValueError(f"{who}: give one of channels, without and weight, got {channels}, {without} and {weight}")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"{who}: top_k must be an integer >= 1 or null, got {top_k!r}")


def _listed(channels: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return (channels,) if isinstance(channels, str) else None if channels is None else tuple(channels)


def _table(path: Path, separator: str, what: str = "edge table, one edge per line", **options: Any) -> pd.DataFrame:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            # every distinct text once: STRING's 14 million rows as Python strings would take 10 GB
            table = pd.read_csv(path, sep=separator, dtype="category", na_filter=False, index_col=False, **options)
            table.columns = table.columns.str.strip()
            return table
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, pd.errors.ParserWarning) as error:
        raise UserError(f"{path}: expected an {what}, found: {str(error).strip()}") from error


def channel_score(
    path: Path, table: pd.DataFrame, channels: Sequence[str] | None, without: Sequence[str] | None
) -> np.ndarray:
    """STRING's combined score of chosen channels, shape (n,), in STRING's units (0 to 1000), not rounded.

    ``s'_i = max(0, (s_i - p) / (1 - p))`` takes the prior p = 0.041 off every score, ``s' = 1 - prod(1 - s'_i)``
    combines them, and ``s' + p (1 - s')`` puts the prior back once. Direct and ``_transferred`` scores of a channel
    are combined first; where the table has ``homology``, co-occurrence and text mining are multiplied by
    ``1 - homology``. A row without evidence in any chosen channel scores 0, so that it is no edge.

    Parameters
    ----------
    path : named in messages.
    table : rows of a STRING table with one column per channel, values 0 to 1000.
    channels : channels to combine; None takes those of the table but ``without``.

    References
    ----------
    von Mering et al. (2005), STRING, Nucleic Acids Research 33, D433-D437; prior and order of steps as in
    Szklarczyk et al. (2023), Nucleic Acids Research 51, D638-D646, and the scheme in STRING's help pages.
    """
    have = {
        c: [x + end for x in spelt for end in ("", "_transferred") if x + end in table] for c, spelt in CHANNELS.items()
    }
    chosen = [c for c in have if have[c] and c not in (without or ())] if channels is None else list(channels)
    if not chosen or not all(have[c] for c in chosen):
        raise UserError(
            f"{path}: expected STRING channels {[c for c in chosen if not have[c]] or 'to combine'}, found columns "
            f"{list(table)[:16]}; STRING's protein.links.detailed and protein.links.full have them"
        )

    def absent(column: str) -> np.ndarray:
        score = _weights(path, table[column]) / 1000
        if score.max(initial=0.0) > 1:
            raise UserError(f"{path}: expected {column} from 0 to 1000, found {1000 * score.max():g}")
        return 1 - np.maximum(0.0, (score - PRIOR) / (1 - PRIOR))

    none = np.ones(len(table))
    for channel in chosen:
        missing = np.prod([absent(column) for column in have[channel]], axis=0)
        if channel in HOMOLOGY and "homology" in table:
            missing = 1 - (1 - missing) * (1 - _weights(path, table["homology"]) / 1000)
        none *= missing
    # six decimals, so that one channel of 700 is 700 again and passes a threshold of 700
    return np.where(none < 1, np.round(1000 * (1 - none * (1 - PRIOR)), 6), 0.0)


def protein_names(path: Path) -> dict[str, str]:
    """Protein -> gene of STRING's ``protein.info`` (preferred_name) or ``protein.aliases`` (HGNC symbol, else Ensembl).

    Of several aliases of the best source the one that sorts first counts. `UserError`: another kind of file.
    """
    header, separator = _header(path, "protein.info or protein.aliases file")
    columns = [name.strip("# ") for name in header]
    table = _table(path, separator, "names file", quoting=csv.QUOTE_NONE, header=0, names=columns)
    protein = table[columns[0]].astype(object).to_numpy()
    if "preferred_name" in columns:
        return dict(zip(protein, table["preferred_name"].astype(object), strict=True))
    if not {"alias", "source"} <= set(columns):
        wanted = "STRING's protein.info (preferred_name) or protein.aliases (alias, source)"
        raise UserError(f"{path}: expected {wanted}, found columns {header[:12]}")
    out: dict[str, str] = {}
    for wanted in SYMBOLS:  # sources of release 11 are several words
        has = np.array([wanted in source.split() for source in table["source"].cat.categories], bool)
        rows = has[table["source"].cat.codes.to_numpy()]
        best: dict[str, str] = {}
        for name, alias in zip(protein[rows], table["alias"][rows].astype(object), strict=True):
            best[name] = min(alias, best.get(name, alias))
        out = best | out
    return out


def merged(path: Path, names: np.ndarray, adjacency: sparse.csr_matrix) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Nodes of one name made one node, as `read_edges` would have done had the file used these names.

    Parameters
    ----------
    path : named in messages.
    names : (m,) str, with repeats.
    adjacency : of shape (m, m), symmetric.

    Returns
    -------
    names, adjacency : sorted unique names that have an edge left, and the heaviest of parallel edges.

    Raises
    ------
    UserError
        All edges were between nodes of one name.

    Examples
    --------
    >>> path = sparse.csr_matrix([[0.0, 3, 0], [3, 0, 2], [0, 2, 0]])
    >>> found, edges = merged(Path("x"), np.array(["B", "A", "B"]), path)
    >>> found.tolist(), edges.toarray().tolist()
    (['A', 'B'], [[0.0, 3.0], [3.0, 0.0]])
    """
    labels, code = np.unique(names.astype(str), return_inverse=True)
    half = sparse.triu(adjacency, 1).tocoo()
    return _adjacency(path, labels, code[np.stack([half.row, half.col], axis=1)], half.data)


def require_genes(path: Path, names: np.ndarray) -> None:
    """`UserError` when most ``names`` of shape (m,) are Ensembl proteins, as in published STRING tables.

    Examples
    --------
    >>> require_genes(Path("links.txt"), np.array(["9606.ENSP00000269305", "9606.ENSP00000258149"]))
    Traceback (most recent call last):
    embbench.core.screen.UserError: links.txt: expected genes, found proteins such as 9606.ENSP00000269305; ...
    """
    proteins = [name for name in names.tolist() if PROTEIN.fullmatch(name)]
    if 2 * len(proteins) > len(names):
        raise UserError(
            f"{path}: expected genes, found proteins such as {proteins[0]}; give names=FILE, STRING's protein.info of "
            f"the same release (9606.protein.info.v12.0.txt.gz), or to=null to keep protein names"
        )


def strongest(adjacency: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """Edges that are among the ``k`` heaviest of either end; of equal weights the first column counts as heavier.

    Parameters
    ----------
    adjacency : of shape (m, m), symmetric.
    k : at least 1.

    Examples
    --------
    >>> path = sparse.csr_matrix([[0.0, 3, 0], [3, 0, 2], [0, 2, 0]])
    >>> strongest(path, 1).toarray().tolist()
    [[0.0, 3.0, 0.0], [3.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    """
    row = np.repeat(np.arange(adjacency.shape[0]), np.diff(adjacency.indptr))
    order = np.lexsort((adjacency.indices, -adjacency.data, row))
    kept = order[np.arange(len(row)) - adjacency.indptr[row[order]] < k]
    half = sparse.csr_matrix((adjacency.data[kept], (row[kept], adjacency.indices[kept])), shape=adjacency.shape)
    both = half.maximum(half.T).tocsr()
    both.sort_indices()
    return both


def _header(path: Path, what: str = "edge table") -> tuple[list[str], str]:
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            line = file.readline().rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a readable {what} (text or .gz), found: {error}") from error
    separator = "\t" if "\t" in line else "," if "," in line else " "
    header = [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    if len(header) < 2:
        raise UserError(f"{path}: expected a header naming at least two columns, found {line[:60]!r}")
    return header, separator


def _weights(path: Path, column: pd.Series) -> np.ndarray:
    import pandas as pd

    texts, codes = column.cat.categories, column.cat.codes.to_numpy()
    values = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(dtype=np.float64)[codes]
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise UserError(
            f"{path}: {len(bad)} edges lack a finite weight >= 0, e.g. line {bad[0] + 2} has "
            f"{column.name} = {texts[codes[bad[0]]]!r}"
        )
    return values


def _ends(
    path: Path, source: pd.Series, target: pd.Series, genes: Mapping[str, str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted names (m,) and the codes of both ends, shape (n, 2)."""
    found = [[str(name).strip() for name in side.cat.categories] for side in (source, target)]
    for names, side in zip(found, (source, target), strict=True):
        if "" in names:
            line = 2 + int(np.flatnonzero(np.isin(side.cat.codes, [i for i, name in enumerate(names) if not name]))[0])
            raise UserError(
                f"{path}, line {line}: expected a name in column {side.name!r}, found none; complete or drop such rows"
            )
    if genes is not None:
        known = [name for name in {*found[0], *found[1]} if name in genes]
        if 2 * len(known) < len({*found[0], *found[1]}):
            raise UserError(
                f"{path}: expected most nodes among the {len(genes)} proteins of the names file, found {len(known)}, "
                f"e.g. node {min({*found[0], *found[1]} - {*known})!r}; take both files from one STRING release"
            )
        found = [[genes.get(name, name) for name in names] for names in found]
    labels = sorted({*found[0], *found[1]})
    code = {label: i for i, label in enumerate(labels)}
    sides = [
        np.array([code[label] for label in names], dtype=np.int64)[side.cat.codes.to_numpy()]
        for names, side in zip(found, (source, target), strict=True)
    ]
    return np.array(labels, dtype=str), np.stack(sides, axis=1)


def _adjacency(
    path: Path, labels: np.ndarray, ends: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, sparse.csr_matrix]:
    real = (ends[:, 0] != ends[:, 1]) & (values > 0)
    if not real.any():
        raise UserError(f"{path}: expected at least one edge, found none with positive weight among {len(ends)} rows")
    used, codes = np.unique(ends[real], return_inverse=True)
    names = labels[used]
    low, high = np.sort(codes.reshape(-1, 2), axis=1).T
    order = np.lexsort((-values[real], high, low))
    low, high, values = low[order], high[order], values[real][order]
    first = np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])]
    half = sparse.csr_matrix((values[first], (low[first], high[first])), shape=(len(names), len(names)))
    adjacency = (half + half.T).tocsr()
    adjacency.sort_indices()
    return np.asarray(names.tolist(), dtype=str), adjacency
