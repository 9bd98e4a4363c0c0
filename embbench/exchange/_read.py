"""Somebody else's predictions as a file holds them: h5ad, CSV (also gzipped) or parquet; nothing is interpreted yet."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embbench.core import UserError
from embbench.exchange._cell_eval import raised_of
from embbench.exchange._openproblems import COLUMNS, read_map
from embbench.exchange.predictions import MARK

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
KNOWN = ".h5ad, .csv, .tsv or .txt (also .gz), or .parquet"
PERTURBATION = ("perturbation", "condition", "target_gene", "target", "gene", "sm_name", "compound", "drug")
CONTEXT = ("context", "cell_type", "celltype", "cell_line", "cell_name")
MORE = ("dose", "fold", "covered")
ID, LINE, NAME = COLUMNS


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Parameters
    ----------
    path : the file.
    labels : (m,) perturbation labels, text.
    context : (m,) text, or None where the file has no such column.
    dose, fold, covered : (m,) columns of those names, or None.
    genes : g unique names.
    values : (m, g) floating.
    content : ``effects``, ``expression`` or ``cells`` where the file is embbench's own and says so, else empty.
    odd : columns of a wide table that are no numbers -> their first such value, in words.
    origin : what such a file says of itself (dataset_digest ...).
    """

    path: Path
    labels: np.ndarray
    context: np.ndarray | None
    dose: np.ndarray | None
    fold: np.ndarray | None
    covered: np.ndarray | None
    genes: tuple[str, ...]
    values: np.ndarray
    content: str
    origin: dict[str, str]
    odd: dict[str, str] = field(default_factory=dict)


def read_table(
    path: Path,
    perturbation_key: str | None = None,
    context_key: str | None = None,
    contexts: Sequence[str] = (),
    id_map: Path | None = None,
) -> Table:
    """Read a file of predictions.

    Parameters
    ----------
    path : the file; ``X`` of an h5ad, the numeric columns of a wide table (rows are predictions).
    perturbation_key, context_key : columns (of ``obs``); None looks for the usual names.
    contexts : further usual names of the context column, tried first; ``a|b`` is two columns joined.
    id_map : CSV of openproblems with id, cell_type and sm_name, for files whose rows have ids alone.

    Raises
    ------
    UserError
        Not such a file, no matching column, an id without a line, repeated genes or values that are no numbers.
    """
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if not path.is_file():
        raise UserError(f"{path}: expected a file of predictions ({KNOWN}), found {_what(path)}")
    if suffix == ".h5ad" and path.suffix != ".gz":
        obs, genes, values, origin = _h5ad(path)
    elif suffix in SEPARATORS or (suffix == ".parquet" and path.suffix != ".gz"):
        keys = [k for key in (perturbation_key, context_key, *contexts) if key for k in key.split("|")]
        obs = _frame(path, suffix, [*keys, *([ID] if id_map else [])])
        genes, values, origin = None, None, {}
    else:
        raise UserError(f"{path}: expected {KNOWN}, found {path.name!r}; convert or rename the file")
    if not len(obs):
        raise UserError(f"{path}: expected at least one prediction, found none")
    if id_map is not None:
        obs = _with_ids(path, obs, id_map)
        perturbation_key, context_key = perturbation_key or NAME, context_key or LINE
    label = _find(path, obs, perturbation_key, PERTURBATION, "--perturbation-key")
    if label is None:
        raise UserError(
            f"{path}: expected a column of perturbations ({', '.join(PERTURBATION)}), found {_some(obs.columns)}; name "
            "it with --perturbation-key; a file of openproblems, whose rows are ids, needs its --id-map"
        )
    where = _find(path, obs, context_key, (*contexts, *CONTEXT), "--context-key")
    parts = where.split("|") if where is not None else []
    odd: dict[str, str] = {}
    if genes is None or values is None:
        rest = {label, *parts, *MORE, "row", "n_cells", "index", *((ID, LINE, NAME) if id_map else ())}
        genes, values, odd = _measured(obs, [c for c in obs.columns if c not in rest])
    _unique(path, genes)
    context, dose, fold, covered = _more(path, obs, parts)
    text, content = _text(path, obs, label), origin.get("content", "")
    return Table(path, text, context, dose, fold, covered, genes, values, content, origin, odd)


def _more(path: Path, obs: pd.DataFrame, parts: list[str]) -> tuple[np.ndarray | None, ...]:
    """Context, dose, fold and covered, None where there is no such column."""
    columns = {name: obs[name].to_numpy() if name in obs else None for name in MORE}
    dose, fold, covered = (columns[name] for name in MORE)
    context = np.array(["|".join(p) for p in zip(*(_text(path, obs, c) for c in parts), strict=True)], dtype=object)
    return (
        context if parts else None,
        None if dose is None else _numbers(path, "dose", dose),
        None if fold is None else np.array([str(f) for f in fold], dtype=object),
        None if covered is None else np.array([str(v).strip().lower() in ("true", "1", "1.0", "yes") for v in covered]),
    )


def _measured(obs: pd.DataFrame, names: list[str]) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    """Numeric columns, their values (m, g), and the first value of every other column that is no number."""
    import pandas as pd

    numeric = [c for c in names if obs[c].dtype.kind in "fiub"]
    odd = {}
    for name in (c for c in names if c not in set(numeric)):
        column = obs[name].astype(object)
        bad = (column.notna() & pd.to_numeric(column, errors="coerce").isna()).to_numpy()
        at = int(np.argmax(bad))  # row 0 where all are numbers that are kept as text
        odd[name] = f"{column.iloc[at]!r} in row {at}"
    return tuple(numeric), obs[numeric].to_numpy(dtype=np.float64), odd


def _with_ids(path: Path, obs: pd.DataFrame, id_map: Path) -> pd.DataFrame:
    """The rows with ``sm_name`` and ``cell_type`` of their ids, which are a column ``id`` or the names of the rows."""
    lines = {line[ID]: line for line in read_map(id_map)}
    ids = obs[ID if ID in obs else "index"].astype(str).tolist() if {ID, "index"} & {*obs.columns} else []
    absent = [name for name in ids if name not in lines]
    if absent or not ids:
        found = f"{len(absent)} of {len(ids)} ids without a line, e.g. {absent[0]!r}" if ids else "no column id"
        raise UserError(f"{path}: expected ids of {id_map.name}, found {found}; give the id_map of this very file")
    return obs.assign(**{name: [lines[i][name] for i in ids] for name in (NAME, LINE)})


def _what(path: Path) -> str:
    return "a folder" if path.is_dir() else "nothing"


def _some(names: Iterable[object]) -> str:
    shown = [str(n) for n in names]
    return ", ".join(shown[:8]) + (f" ... ({len(shown)} in all)" if len(shown) > 8 else "") if shown else "no column"


def _h5ad(path: Path) -> tuple[pd.DataFrame, tuple[str, ...], np.ndarray, dict[str, str]]:
    import anndata
    from scipy import sparse

    try:
        data = anndata.read_h5ad(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise UserError(f"{path}: cannot be read as h5ad: {str(error).splitlines()[0]}") from error
    matrix = data.X if data.X is not None else data.layers.get("prediction")  # openproblems has no X
    if matrix is None or 0 in data.shape:
        raise UserError(f"{path}: expected predictions x genes in X, found {data.n_obs} x {data.n_vars} or no X")
    values = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    if values.dtype.kind not in "fiu":
        raise UserError(f"{path}: X must hold numbers, found {values.dtype}")
    said = data.uns.get(MARK, {})
    plain = (str, int, np.integer)
    origin = {str(k): str(v) for k, v in said.items() if isinstance(v, plain)} if hasattr(said, "items") else {}
    if "raised" in data.varm and "context_key" in origin:  # by our writer of pairs, to be positive
        raised = np.asarray(data.varm["raised"], dtype=np.float64).T
        values = values - raised[raised_of(path, data.obs, origin, len(raised))]
    obs = data.obs if "index" in data.obs else data.obs.reset_index(names="index")
    return obs, tuple(map(str, data.var_names)), values, origin


def _frame(path: Path, suffix: str, keys: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(path)
            named = not isinstance(frame.index, pd.RangeIndex)
            frame = frame.rename_axis(str(frame.index.name or "index")).reset_index() if named else frame
        else:
            sep, code = SEPARATORS[suffix], "utf-8-sig"
            head = pd.read_csv(
                path, sep=sep, encoding=code, header=None, nrows=1, dtype=str, keep_default_na=False
            ).iloc[0]
            names = [name or "index" for name in head.tolist()]
            _unique(path, names)
            words = {*PERTURBATION, *CONTEXT, *keys, "fold", "index", "covered"}
            text: dict[str, Callable[[str], str]] = {n: str for n in names if n in words}  # NA may be a gene's name
            frame = pd.read_csv(
                path, sep=sep, encoding=code, header=0, names=names, converters=text, index_col=False, low_memory=False
            )
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}; expected {KNOWN}") from error
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _unique(path: Path, names: Sequence[str]) -> None:
    if repeats := [name for name, n in Counter(names).items() if n > 1]:
        raise UserError(
            f"{path}: {len(repeats)} names are repeated, e.g. {repeats[0]!r}; make genes and columns unique"
        )


def _find(path: Path, obs: pd.DataFrame, given: str | None, usual: Sequence[str], option: str) -> str | None:
    """The column asked for, or the first of the usual names; None where there is none."""
    if given is not None:
        if absent := [c for c in given.split("|") if c not in obs]:
            raise UserError(f"{option} {given!r}: {path} has no column {absent[0]!r}; it has {_some(obs.columns)}")
        return given
    return next((name for name in usual if all(c in obs for c in name.split("|"))), None)


def _text(path: Path, obs: pd.DataFrame, name: str) -> np.ndarray:
    column = obs[name].astype(object)
    blank = column.isna() | (column.astype(str).str.strip() == "")
    if blank.any():
        raise UserError(
            f"{path}: {int(blank.sum())} of {len(obs)} rows have no {name!r} (the first is row "
            f"{int(np.argmax(blank.to_numpy()))}); name them or leave them out"
        )
    return np.array([str(v).strip() for v in column], dtype=object)


def _numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{path}: column {name!r} must hold numbers, found {values[0]!r}") from None
