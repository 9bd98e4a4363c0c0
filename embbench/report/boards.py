"""Result frames -> boards: what may be compared with what, as matrices of configurations x test rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

BOARD = ("dataset", "split", "genes")  # scores of different gene sets are different scores
NAMES = ("head", "embedding", "context_embedding")
OTHER = ("combine", "features", "scope", "target", "graph", "select", "samples", "strict_context", "protocol")
STATUSES = ("done", "failed", "skipped", "pending")
SUBSETS = ("all", "detectable")
SAID = ("information", "modality", "dated", "flags", "complexity")  # words about a run; absent columns read as empty


def strip_permuted(name: str) -> tuple[str, str, str]:
    """``permuted:go:draw=3`` -> label without the draw, the embedding behind it, the draw (empty: no permutation).

    Several embeddings are joined by ``+``; each is read by itself.

    Examples
    --------
    >>> strip_permuted("permuted:go:draw=3")
    ('permuted:go', 'go', '3')
    >>> strip_permuted("go+permuted:ppi")
    ('go+permuted:ppi', 'go+ppi', '0')
    """
    labels, origins, draws = [], [], []
    for block in name.split("+"):
        head, *parts = block.split(":")
        if head != "permuted":
            labels.append(block)
            origins.append(block)
            continue
        rest = ":".join(p for p in parts if not p.startswith("draw="))
        draws.append(next((p.removeprefix("draw=") for p in parts if p.startswith("draw=")), "0"))
        labels.append(f"permuted:{rest}")
        origins.append(rest)
    return "+".join(labels), "+".join(origins), ",".join(draws)


def vectors(table: pd.DataFrame) -> np.ndarray:
    """Shape (N,), the vectors of each row as one name: the embedding, and behind ``/`` the context embedding.

    Examples
    --------
    >>> import pandas as pd
    >>> vectors(pd.DataFrame({"embedding": ["go", "go", "none"], "context_embedding": ["none", "pca", "pca"]})).tolist()
    ['go', 'go / pca', 'none / pca']
    """
    first, second = (table[c].astype(str).to_numpy(dtype=object) for c in NAMES[1:])
    return np.where(second == "none", first, first + " / " + second) if len(table) else first


def informed(table: pd.DataFrame) -> np.ndarray:
    """Bool of shape (N,): some vectors, of conditions or contexts, that are not random."""
    blank = [~table[c].astype(str).str.fullmatch(r"none|random(:.*)?").to_numpy(dtype=bool) for c in NAMES[1:]]
    return blank[0] | blank[1]


@dataclass(frozen=True)
class Settings:
    """The configurations behind a frame of runs.

    Parameters
    ----------
    draws : one row per configuration and permutation draw (folds and seeds together).
    table : one row per configuration (draws together): `BOARD`, `NAMES`, `OTHER`, role, status counts and facts.
    of_run : shape (runs,); row of ``draws`` of each run.
    of_draw : shape (draws,); row of ``table`` of each row of ``draws``.
    keys : shape (runs,); run keys.
    """

    draws: pd.DataFrame
    table: pd.DataFrame
    of_run: np.ndarray
    of_draw: np.ndarray
    keys: np.ndarray


def settings(runs: pd.DataFrame | Settings) -> Settings:
    """Group runs into configurations; settings pass through, so that many tables share one grouping.

    Raises
    ------
    ValueError
        A run key or a status occurs that cannot be: a key twice, an unknown status.
    """
    if isinstance(runs, Settings):
        return runs
    runs = runs.reset_index(drop=True)
    if runs["key"].duplicated().any():
        raise ValueError(
            f"report: run keys must be unique, found {runs['key'][runs['key'].duplicated()].iloc[0]} twice"
        )
    if unknown := set(runs["status"]) - set(STATUSES):
        raise ValueError(f"report: status must be one of {STATUSES}, found {sorted(unknown)}")
    labels = runs[[*BOARD, *NAMES, *OTHER, "role"]].copy()
    draw = np.full(len(runs), "", dtype=object)
    for column in ("embedding", "context_embedding"):
        parts = {name: strip_permuted(name) for name in runs[column].unique()}
        labels[column] = runs[column].map({k: v[0] for k, v in parts.items()})
        labels[f"{column}_origin"] = runs[column].map({k: v[1] for k, v in parts.items()})
        draw = draw + runs[column].map({k: f"{v[2]};" if v[2] else "" for k, v in parts.items()}).to_numpy()
    labels["draw"] = draw
    coordinates = [*BOARD, *NAMES, *OTHER]
    draws, of_run = _groups(labels, [*coordinates, "draw"])
    table, of_draw = _groups(draws, coordinates)
    for status in STATUSES:
        hit = (runs["status"] == status).to_numpy()
        draws[status] = np.bincount(of_run, weights=hit, minlength=len(draws)).astype(np.int64)
        table[status] = np.bincount(of_draw, weights=draws[status], minlength=len(table)).astype(np.int64)
    whole = of_draw[of_run]
    for column in ("fallback", "query_controls", *SAID):
        table[column] = _join(runs[column], whole, len(table)) if column in runs else ""
    table["dim"] = _span(runs["dim"], whole, len(table))
    _selection(table, runs, whole)
    first = np.unique(whole, return_index=True)[1]
    table["config"] = runs["config"].to_numpy()[first] if "config" in runs else ""
    return Settings(draws, table.drop(columns="draw"), of_run, of_draw, runs["key"].to_numpy())


def _groups(frame: pd.DataFrame, by: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    codes = frame.groupby(by, sort=True, dropna=False).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    return frame.iloc[first].reset_index(drop=True), codes


def _selection(table: pd.DataFrame, runs: pd.DataFrame, codes: np.ndarray) -> None:
    """Add the mean best inner score (NaN unless every done run has one), trials per run and the budget of trials."""
    done = (runs["status"] == "done").to_numpy()
    for column, most in (("inner_score", False), ("trials", True), ("budget", True)):
        values = (
            runs[column].to_numpy(dtype=np.float64, na_value=np.nan) if column in runs else np.full(len(runs), np.nan)
        )
        out = np.full(len(table), -np.inf if most else 0.0)
        if most:
            np.maximum.at(out, codes[done], np.nan_to_num(values[done], nan=-np.inf))
        else:
            out = np.bincount(codes[done], weights=values[done], minlength=len(table))
            out = out / np.maximum(np.bincount(codes[done], minlength=len(table)), 1)
        known = np.bincount(codes[done], minlength=len(table)) > 0
        table[column] = np.where(known & np.isfinite(out), out, np.nan)


def _join(texts: pd.Series, codes: np.ndarray, n: int) -> np.ndarray:
    """Shape (n,): the different ``"; "``-separated words of the texts with each code, sorted, joined by ``"; "``."""
    import pandas as pd

    known = pd.Series(texts.astype(object).where(texts.notna(), "").to_numpy(), dtype=object).astype(str)
    pairs = pd.DataFrame({"code": codes, "text": known}).drop_duplicates()
    words: dict[int, set[str]] = {}
    for code, text in pairs[pairs["text"] != ""].itertuples(index=False):
        words.setdefault(code, set()).update(filter(None, text.split("; ")))
    out = np.full(n, "", dtype=object)
    for code, found in words.items():
        out[code] = "; ".join(sorted(found))
    return out


def _span(values: pd.Series, codes: np.ndarray, n: int) -> np.ndarray:
    known = values.notna().to_numpy()
    numbers = values[known].to_numpy(dtype=np.float64)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, codes[known], numbers)
    np.maximum.at(high, codes[known], numbers)
    spans = zip(low.tolist(), high.tolist(), strict=True)
    return np.array([f"{a:g}" if a == b else f"{a:g}-{b:g}" if a < b else "" for a, b in spans], dtype=object)


@dataclass(frozen=True)
class Board:
    """Scores of one metric on one dataset, split and gene set.

    Parameters
    ----------
    where : dataset, split, genes.
    rows : r test rows with row, condition, context, unit and, where known, candidates; sorted by row.
    draws, table : the board's part of `Settings`, with ``of_draw`` between them.
    values : shape (draws, r), float64, mean over seeds; NaN where absent or undefined.
    undefined : shape (draws, r); NaN scores (over seeds).
    present : shape (draws, r), bool, scored at all.
    covered : shape (draws, r); share of the row's scores (over seeds) that come from its own vector.
    """

    where: dict[str, str]
    rows: pd.DataFrame
    draws: pd.DataFrame
    table: pd.DataFrame
    of_draw: np.ndarray
    values: np.ndarray
    undefined: np.ndarray
    present: np.ndarray
    covered: np.ndarray

    @property
    def over_contexts(self) -> bool:
        """Whether contexts are the sample (the split holds out contexts: by its name, or its units are contexts)."""
        same = (self.rows["unit"].to_numpy() == self.rows["context"].to_numpy()).all()
        return self.where["split"].startswith("unseen_context") or bool(same)

    def per_table(self, matrix: np.ndarray) -> np.ndarray:
        """Mean of shape (table, r) over the draws of each configuration of ``matrix`` (draws, r), NaN left out."""
        finite = np.isfinite(matrix)
        total, count = (np.zeros((len(self.table), matrix.shape[1])) for _ in range(2))
        np.add.at(total, self.of_draw, np.where(finite, matrix, 0.0))
        np.add.at(count, self.of_draw, finite)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def boards(scores: pd.DataFrame, config: Settings, metric: str, subset: str) -> Iterator[Board]:
    """Boards of one metric in the order of dataset, split, genes; a board without scores is left out.

    Parameters
    ----------
    subset : ``all`` or ``detectable`` conditions.

    Raises
    ------
    ValueError
        Unknown subset, a score whose run is not listed, or a row scored twice by one run.
    """
    import pandas as pd

    if subset not in SUBSETS:
        raise ValueError(f"report: subset must be one of {SUBSETS}, found {subset!r}")
    if not len(scores):
        return
    keep = (scores["metric"] == metric).to_numpy()
    if subset == "detectable":
        keep = keep & scores["detectable"].to_numpy(dtype=bool)
    part = scores[keep]
    run = pd.Index(config.keys).get_indexer(part["key"])
    if (run < 0).any():
        raise ValueError(f"report: scores of run {part['key'].iloc[int(np.argmin(run))]} have no line in runs")
    order = np.lexsort((part["row"].to_numpy(), run))  # sums over seeds must not depend on the order of the frame
    part, run = part.iloc[order], run[order]
    twice = (np.diff(run) == 0) & (np.diff(part["row"].to_numpy()) == 0)
    if twice.any():
        at = int(np.argmax(twice))
        raise ValueError(f"report: run {config.keys[run[at]]} scores row {part['row'].iloc[at]} twice in {metric}")
    draw = config.of_run[run]
    names, number = _groups(config.table, list(BOARD))
    of_score = number[config.of_draw[draw]]
    for i, values in enumerate(names[list(BOARD)].itertuples(index=False)):
        where = dict(zip(BOARD, map(str, values), strict=True))
        if (hit := of_score == i).any():
            yield _board(part[hit], draw[hit], config, np.flatnonzero(number == i), where)


def _board(part: pd.DataFrame, draw: np.ndarray, config: Settings, members: np.ndarray, where: dict[str, str]) -> Board:
    scored = np.unique(config.of_draw[draw])
    done = members[config.table["done"].to_numpy()[members] > 0]
    target = config.table["target"]  # label heads have no effect scores and are not expected to
    alike = target.isin(target.iloc[scored].unique()).to_numpy()
    tried = np.union1d(scored, done[alike[done]])
    table = config.table.iloc[tried].reset_index(drop=True)
    position = np.full(len(config.table), -1)
    position[tried] = np.arange(len(tried))
    fine = np.flatnonzero(position[config.of_draw] >= 0)
    place = np.full(len(config.draws), -1)
    place[fine] = np.arange(len(fine))
    numbers, first, row = np.unique(part["row"].to_numpy(), return_index=True, return_inverse=True)
    facts = [c for c in ("row", "condition", "context", "unit", "candidates") if c in part]
    rows = part.iloc[first][facts].reset_index(drop=True)
    shape = (len(fine), len(numbers))
    cell = place[draw] * shape[1] + row
    value = part["value"].to_numpy(dtype=np.float64)
    finite = np.isfinite(value)

    def add(weights: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)

    total, count, seen = add(np.where(finite, value, 0.0)), add(finite), add(np.ones(len(cell)))
    covered = add(part["covered"].to_numpy(dtype=np.float64))
    return Board(
        where=where,
        rows=rows,
        draws=config.draws.iloc[fine].reset_index(drop=True),
        table=table,
        of_draw=position[config.of_draw[fine]],
        values=np.divide(total, count, out=np.full(shape, np.nan), where=count > 0),
        undefined=(seen - count).astype(np.int64),
        present=seen > 0,
        covered=np.divide(covered, seen, out=np.full(shape, np.nan), where=seen > 0),
    )
