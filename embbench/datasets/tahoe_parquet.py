"""Tahoe-100M as the parquet shards of its Hugging Face repository, read row group by row group."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled, Part, Table
from embbench.datasets._dose_text import CONTROL, labels_and_doses
from embbench.datasets._h5ad import Column
from embbench.datasets._published import Opened, Published, screen_of
from embbench.datasets._recipes import left_out
from embbench.datasets._shards import MARKER, Shard, distinct, opened, text_column

SHARD = re.compile(r"train-(\d{5})-of-(\d{5})\.parquet")
GENES = "gene_metadata.parquet"
WELLS = ("sample_metadata.parquet", "obs_metadata.parquet")  # what says the dose of a well; the first that is there
COLUMNS = ("genes", "expressions", "drug", "sample", "BARCODE_SUB_LIB_ID", "cell_line_id", "plate")


class TahoeParquet:
    """Shards ``data/train-00000-of-03388.parquet`` ... (one line a cell: lists of tokens and counts), and the tables
    ``metadata/gene_metadata.parquet`` (token to gene) and ``metadata/sample_metadata.parquet`` (well to dose).

    Shards lie in the order of the plates, cells of a plate in no order: the first shards of a plate hold some cells of
    each of its conditions. No shard is loaded whole. Values are read anew for every pass over the cells.

    Parameters
    ----------
    name, files, root : see `embbench.datasets._published.Published`; one shard is the pattern of the others.
    only : ``12`` or ``0-148``: these shards instead of those that are listed.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    Raises
    ------
    UserError
        ``layer`` or ``gene_key`` is among the options: shards have neither layers nor a choice of gene names.

    References
    ----------
    Zhang et al. (2025), Tahoe-100M, doi 10.1101/2025.02.20.639398.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str | int = "",
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        if given := [key for key in ("layer", "gene_key") if options.get(key) is not None]:
            raise UserError(
                f"{name}: {given[0]} is no option of parquet shards, found {options[given[0]]!r}; values are those of "
                "expressions, genes those of ensembl_id: leave it out"
            )
        only = str(only)  # a spec's only=0 is a number
        listed = Published.of(name, chosen_shards(files, only), root)
        self.published = Published(listed.name, listed.files, listed.folder, only)
        keys: dict[str, Any] = {"perturbation_key": "drug", "control": CONTROL, "dose_key": "dose"}
        keys |= {"context_keys": ["cell_line_id"], "batch_key": "plate", **options}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, "counts", recipe, None, self._open)

    def check(self) -> list[str]:
        """What the files hold, line by line; `UserError`: they are not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its files are not fetched, or not as published."""
        return self.screen.load()

    def _open(self, stack: contextlib.ExitStack) -> Opened:
        shards = sorted(name for name in self.published.stored if SHARD.search(name))
        return {name: stack.enter_context(opened(self.published.path(name), COLUMNS)) for name in shards}

    def _assemble(self, files: Opened) -> Assembled:
        genes, places = self._genes()
        wells, notes = self._wells(), [f"the first token of each cell, a marker of value {MARKER:g}, is left out"]
        parts = [self._part(name, file, genes, places, wells, notes) for name, file in files.items()]
        return Assembled(parts, self.published.name, notes)

    def _rows(self, wanted: Sequence[str], columns: Sequence[str]) -> list[tuple[str, ...]]:
        """Different rows of the first of some tables that was fetched."""
        found = [name for last in wanted for name in self.published.stored if name.endswith(last)]
        if not found:
            raise UserError(f"{self.published.name}: expected {' or '.join(wanted)} among its files, found none")
        path = self.published.path(found[0])
        with opened(path, columns) as file:
            return distinct(file, str(path), columns)

    def _genes(self) -> tuple[np.ndarray, np.ndarray]:
        """Ensembl ids, shape (g,), in the order of their tokens, and the column of each token, -1 where it has none."""
        told = self._rows((GENES,), ("token_id", "ensembl_id"))
        if odd := [row for row in told if not re.fullmatch(r"[0-9]{1,9}", row[0]) or not row[1]]:
            raise UserError(
                f"{self.published.name}: {GENES}: expected a whole token_id and an ensembl_id in every line, found "
                f"{odd[0][0]!r} and {odd[0][1]!r} (in all {len(odd):,} such lines, '' for none); fetch it again"
            )
        rows = sorted((int(token), name) for token, name in told)
        tokens = np.array([token for token, _ in rows], dtype=np.int64)
        if not len(tokens) or len(np.unique(tokens)) < len(tokens):
            raise UserError(f"{self.published.name}: {GENES}: expected one token_id for each gene, found others")
        places = np.full(int(tokens[-1]) + 1, -1, dtype=np.int64)
        places[tokens] = np.arange(len(tokens))
        return np.array([name for _, name in rows], dtype=object), places

    def _wells(self) -> dict[str, str]:
        """Well -> its dose text; `UserError` where a well has several."""
        rows = self._rows(WELLS, ("sample", "drugname_drugconc"))
        out = {row[0]: row[1] for row in rows}
        if len(out) < len(rows):
            raise UserError(f"{self.published.name}: expected one dose for each sample, found several for some of them")
        return out

    def _part(
        self, name: str, file: Any, genes: np.ndarray, places: np.ndarray, wells: Mapping[str, str], notes: list[str]
    ) -> Part:
        path = str(self.published.path(name))
        matrix = Shard(file, path, places, len(genes))

        @functools.lru_cache(maxsize=8)
        def text(column: str) -> Column:
            return text_column(file, path, column)

        sample, cells = text("sample"), matrix.shape[0]
        texts = sorted({wells.get(level, "") for level in sample.levels} - {""})
        code = np.array([texts.index(wells[level]) if level in wells else -1 for level in sample.levels] + [-1])
        doses = Column("drugname_drugconc", code[sample.codes], tuple(texts))
        labels, dose, odd = labels_and_doses(text("drug"), doses, self.published.name)
        tag = name.rpartition("/")[2].removesuffix(".parquet")
        notes.extend(f"{tag}: {line}" for line in odd)

        def read(column: str) -> np.ndarray:
            return labels if column == "drug" else text(column).text()

        labels[left_out(self.screen.recipe, read, cells, notes)] = ""
        kept = [key for key in COLUMNS[3:] if key != "BARCODE_SUB_LIB_ID"]
        obs = Table(kept, read, lambda: text("BARCODE_SUB_LIB_ID").text())
        tables = {"obs": obs, "var": Table([], lambda key: genes, lambda: genes)}
        return Part(Tables(tables, name), {"drug": labels, "dose": dose}, tag=tag, matrix=lambda size: matrix)


class Tables(dict[str, Table]):
    """``obs`` and ``var`` that lie in no AnnData file."""

    def __init__(self, tables: Mapping[str, Table], filename: str) -> None:
        super().__init__(tables)
        self.filename = filename


def chosen_shards(files: Sequence[Mapping[str, Any]], only: str) -> list[dict[str, Any]]:
    """The records of some shards, made after that of the first one, with all other records.

    Raises
    ------
    UserError
        ``only`` is no number or range of shards.

    Examples
    --------
    >>> first = {"name": "data/train-00000-of-03388.parquet", "urls": ["https://a.org/train-00000-of-03388.parquet"]}
    >>> [each["urls"][0][-28:] for each in chosen_shards([first], "7-8")]
    ['train-00007-of-03388.parquet', 'train-00008-of-03388.parquet']
    """
    shards = [dict(each) for each in files if SHARD.search(str(each["name"]))]
    if not only or not shards:
        return [dict(each) for each in files]
    number = int(SHARD.search(str(shards[0]["name"])).group(2))  # type: ignore[union-attr]
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", only)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last < number:
        raise UserError(f"--only {only!r}: expected a shard or a range of them, 0 to {number - 1}, e.g. 0-148")
    others = [dict(each) for each in files if not SHARD.search(str(each["name"]))]
    return [*others, *(_shard(shards[0], i, number) for i in range(first, last + 1))]


def _shard(record: Mapping[str, Any], i: int, number: int) -> dict[str, Any]:
    """The record of a shard after that of another; size and hash are the other's own."""

    def renamed(text: str) -> str:
        return SHARD.sub(f"train-{i:05d}-of-{number:05d}.parquet", text)

    urls = [renamed(url) for url in record.get("urls", ())]
    return {"name": renamed(str(record["name"])), "urls": urls, **{k: record[k] for k in ("manual",) if k in record}}
