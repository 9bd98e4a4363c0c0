"""Tables on disk as pandas frames, with errors that say which file, column or cell is wrong and what to do."""

from __future__ import annotations

import difflib
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import UserError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
FORMATS = ".csv, .tsv or .txt (also .gz), .parquet or .h5ad"


def kind(path: Path) -> str:
    """``text``, ``parquet`` or ``h5ad``, from the file name; `UserError` when absent, a folder or of another kind.

    Examples
    --------
    >>> kind(Path("absent.csv"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: table absent.csv: expected a file, found nothing; ...
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"table {path}: expected a file, found {found}; relative paths start at the current folder")
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    known = {".parquet": "parquet", ".h5ad": "h5ad", **dict.fromkeys(SEPARATORS, "text")}
    if suffix not in known or (path.suffix == ".gz" and known[suffix] != "text"):
        raise UserError(f"table {path}: expected {FORMATS}, found {path.name!r}; rename or convert the file")
    return known[suffix]


def read_frame(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """A text or parquet table; an index column without a name is called ``index``.

    Parameters
    ----------
    path : the file.
    text : columns that are names and never numbers (``007`` stays ``007``).

    Raises
    ------
    UserError
        The file cannot be read, has no rows, or repeats a column.
    """
    import pandas as pd

    form = kind(path)
    try:
        frame = pd.read_parquet(path) if form == "parquet" else _read_text(path, text)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UserError(f"table {path}: cannot be read as {form}: {_first_line(error)}; expected {FORMATS}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.rename_axis(str(frame.index.name or "index")).reset_index()
    if frame.empty:
        raise UserError(f"table {path}: expected at least one row below the header, found none")
    check_unique(path, "column", [str(name) for name in frame.columns])
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _read_text(path: Path, text: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    header = pd.read_csv(path, sep=SEPARATORS[suffix], header=None, nrows=1, dtype=str, keep_default_na=False)
    names = [name or "index" for name in header.iloc[0].astype(str)]
    check_unique(path, "column", names)
    types = {name: str for name in text if name in names}
    return pd.read_csv(path, sep=SEPARATORS[suffix], header=0, names=names, dtype=types, index_col=False)


def read_h5ad(path: Path, gene_key: str | None) -> tuple[pd.DataFrame, tuple[str, ...], np.ndarray]:
    """Conditions, genes and the dense matrix of shape (n, g) of an AnnData file (observations are conditions);
    `UserError` when it is no such file, has no matrix, or no gene column ``gene_key``.
    """
    import anndata
    from scipy import sparse

    try:
        data = anndata.read_h5ad(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise UserError(f"table {path}: cannot be read as h5ad: {_first_line(error)}; expected {FORMATS}") from error
    if data.X is None or 0 in data.shape:
        found = "no X" if data.X is None else f"{data.n_obs} x {data.n_vars}"
        raise UserError(f"table {path}: expected conditions x genes in X, found {found}; write the effects to X")
    genes = data.var_names if gene_key is None else column(data.var, gene_key, path, "gene_key")
    values = data.X.toarray() if sparse.issparse(data.X) else np.asarray(data.X)
    if values.dtype.kind not in "fiu":
        raise UserError(f"table {path}: X must hold numbers, found {values.dtype}")
    obs = data.obs if "index" in data.obs else data.obs.reset_index(names="index")
    return obs, tuple(map(str, genes)), values


def check_unique(path: Path, what: str, names: Iterable[str]) -> None:
    """Raise `UserError` when a name is repeated.

    Examples
    --------
    >>> check_unique(Path("screen.csv"), "column", ["gene", "TP53", "TP53"])
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: table screen.csv: 1 column names are repeated, e.g. 'TP53'; make them unique
    """
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        shown = ", ".join(map(repr, repeated[:3]))
        raise UserError(f"table {path}: {len(repeated)} {what} names are repeated, e.g. {shown}; make them unique")


def column(frame: pd.DataFrame, name: str, path: Path, option: str) -> pd.Series:
    """A column by name; `UserError` with near misses, or the columns, when there is none.

    Examples
    --------
    >>> import pandas as pd
    >>> column(pd.DataFrame({"Gene": ["TP53"]}), "gene", Path("screen.csv"), "gene_key")
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: table screen.csv: no column 'gene' for gene_key; did you mean Gene? columns: Gene
    """
    if name in frame.columns:
        return frame[name]
    names = [str(c) for c in frame.columns]
    folded = [c for c in names if c.casefold() == name.casefold()]
    near = folded or difflib.get_close_matches(name, names, 3)
    listed = ", ".join(names[:12]) + (f" ... ({len(names)} in all)" if len(names) > 12 else "")
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(f"table {path}: no column {name!r} for {option}; {hint}columns: {listed}")


def words(frame: pd.DataFrame, name: str, path: Path, option: str) -> np.ndarray:
    """A column of names, shape (n,), as text; empty ones raise `UserError`."""
    series = column(frame, name, path, option)
    empty = series.isna().to_numpy() | (series.astype(str).str.strip() == "").to_numpy()
    if empty.any():
        raise UserError(
            f"table {path}: column {name!r} ({option}) is empty in {int(empty.sum())} of {len(empty)} rows, "
            f"first in row {int(empty.argmax()) + 1}; fill it in or leave those rows out"
        )
    return series.astype(str).to_numpy(dtype=str)


def numbers(frame: pd.DataFrame, names: Sequence[str], path: Path, *, gaps: bool = True) -> np.ndarray:
    """Numeric columns of shape (n, len(names)), float64, missing as NaN; `UserError` that names column, row and value
    when a cell holds text, an infinite number, or (with ``gaps=False``) nothing.

    Examples
    --------
    >>> import pandas as pd
    >>> numbers(pd.DataFrame({"TP53": ["1.5", None]}), ["TP53"], Path("screen.csv")).tolist()
    [[1.5], [nan]]
    """
    import pandas as pd

    out = np.empty((len(frame), len(names)), dtype=np.float64)
    for i, name in enumerate(names):
        read = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.isnan(read) & (frame[name].notna().to_numpy() if gaps else True)
        _refuse(path, name, bad, frame[name])
        out[:, i] = read
    finite(out, names, path)
    return out


def finite(values: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Raise `UserError` when one of the values, shape (n, g), is infinite or too large for float32."""
    for i, name in enumerate(names):
        _refuse(path, name, np.abs(values[:, i]) > np.finfo(np.float32).max, values[:, i])


def _refuse(path: Path, name: str, bad: np.ndarray, values: Any) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"table {path}: column {name!r} must hold finite numbers, found {values.tolist()[row]!r} in row {row + 1}; "
            "correct or empty the cell, or name a column that is no gene in keep"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
