"""Screens published as R objects, after `embbench/data/convert_rds.R` wrote their counts and tables as text."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled, Part
from embbench.datasets._given import names_of, pattern, text, texts, words
from embbench.datasets._h5ad import Column, column, column_names
from embbench.datasets._lines import Pieces, matrix_market, read_table
from embbench.datasets._open import open_anndata
from embbench.datasets._published import Opened, Published, first_column, part_of, screen_of
from embbench.datasets._recipes import left_out
from embbench.datasets._triplets import Counts, converted, repeats_of

NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?")
MATRIX, CELLS, GENES = ".matrix.mtx.gz", ".obs.csv.gz", ".var.csv.gz"


class RdsFolder:
    """Per R object three files: ``NAME.matrix.mtx.gz`` (genes x cells), ``NAME.obs.csv.gz``, ``NAME.var.csv.gz``.

    The script writes them beside the R objects; an object that is a list (of lines) gives one triple for each element.
    Counts are converted once, beside them, into ``NAME.converted.h5ad`` (compressed rows).

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    labels : obs column(s) of perturbation labels: the first that there is.
    control : labels of controls, matched whole.
    separator : between the genes of one label, as in ``A,B``; they become ``A+B``. '': labels are not split.
    context_keys : obs columns of the context; ``source`` is the part of the file name that ``source`` matches.
    source : regular expression with one group, searched in the file names, e.g. ``Seurat_object_([A-Z]+)_``.
    typos : faulty text -> what is read instead, anywhere in labels, contexts and batches; cells are counted.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    References
    ----------
    Jiang et al. (2025), doi 10.1038/s41556-025-01622-z; McFaline-Figueroa et al. (2024), Cell Genomics.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        labels: str | Sequence[str] = "gene",
        control: str | Sequence[str] = "NT",
        separator: str = "",
        source: str = "",
        typos: Mapping[str, str] | None = None,
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published = Published.of(name, files, root, only)
        self.labels, self.control = names_of("labels", labels), names_of("control", control)
        self.separator, self.source = text("separator", separator), pattern("source", source)
        self.typos, self.options = texts("typos", typos), options
        keys = {"perturbation_key": "perturbation", "control": self.control, **options}
        own = {"labels": self.labels, "separator": separator, "source": source, "typos": self.typos}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, "counts", recipe, own, self._open)

    def check(self) -> list[str]:
        """What the files hold, line by line; they are converted for it. `UserError`: they are not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its files are not there, or not as published."""
        return self.screen.load()

    def _open(self, stack: contextlib.ExitStack) -> Opened:
        sums, out = self.published.digests(), {}
        for name in self.published.stored:
            if name.endswith(MATRIX):
                stem = name.removesuffix(MATRIX)
                own = {f"{stem}{kind}": sums[f"{stem}{kind}"] for kind in (MATRIX, CELLS, GENES)}
                target = self.published.path(f"{stem}.converted.h5ad")
                converted(target, own, functools.partial(self._counts, stem), __name__)
                out[stem] = stack.enter_context(open_anndata(target))
        return out

    def _counts(self, stem: str) -> Counts:
        """One object: its tables, and its matrix turned to cells x genes."""
        obs, var = (read_table(self.published.path(f"{stem}{kind}"), "", sep=",") for kind in (CELLS, GENES))
        obs, var = (_indexed(table) for table in (obs, var))
        rows, columns, pieces = matrix_market(self.published.path(f"{stem}{MATRIX}"))
        if (rows, columns) != (len(var["_index"]), len(obs["_index"])):
            raise UserError(
                f"{stem}{MATRIX}: expected {len(var['_index']):,} genes x {len(obs['_index']):,} cells, as its tables "
                f"list, found {rows:,} x {columns:,}; the files do not belong together: convert the object again"
            )

        def turned() -> Pieces:
            for genes, cells, values in pieces():
                yield cells, genes, values

        return Counts(f"{stem}{MATRIX}", obs, var, turned)

    def _assemble(self, opened: Opened) -> Assembled:
        notes: list[str] = []
        return Assembled([self._part(stem, file, notes) for stem, file in opened.items()], self.published.name, notes)

    def _part(self, stem: str, file: Any, notes: list[str]) -> Part:
        key = str(first_column(self.published.name, "perturbation labels", self.labels, column_names(file, "obs")))
        found = column(file, "obs", key, "perturbation labels")
        labels = self._named(self._spelled(found, stem, notes))
        if lost := int(((labels == "") & (found.codes >= 0)).sum()):
            notes.append(f"{stem}: {key} of separators only, read as missing: {lost:,} cells")
        controls = [level for level in found.levels if level in self.control]
        if len(controls) > 1:
            notes.append(f"{stem}: labels {', '.join(controls)} are all read as the control {self.control[0]}")
        changed: dict[str, np.ndarray] = {"perturbation": labels}
        if self.source.pattern:
            told = self.source.search(stem)
            if told is None:
                raise UserError(
                    f"{self.published.name}: {stem}: expected a name like {self.source.pattern}, found another"
                )
            changed["source"] = np.full(len(labels), told[1], dtype=object)
        changed |= self._repaired(file, stem, notes)
        if again := repeats_of(self.published.path(f"{stem}.converted.h5ad")):
            notes.append(f"{stem}: values that repeat a gene and cell, summed: {again:,}")

        def read(name: str) -> np.ndarray:
            return changed[name] if name in changed else column(file, "obs", name, name).text()

        labels[left_out(self.screen.recipe, read, len(labels), notes)] = ""
        return part_of(self.published.name, file, self.options, stem, **changed)

    def _repaired(self, file: Any, stem: str, notes: list[str]) -> dict[str, np.ndarray]:
        """The columns of contexts and batches that have typos or numbers written otherwise, without them."""
        asked = {option: self.options.get(option) or () for option in ("context_keys", "batch_key")}
        named = {
            str(key)
            for option, each in asked.items()
            for name in words(each, option)
            for key in words(name or (), option)
        }
        out = {}
        for name in sorted(named & set(column_names(file, "obs"))):
            found = column(file, "obs", name, name)
            new = self._spelled(found, stem, notes, _number).levels
            if new != tuple(found.levels):
                out[name] = np.array([*new, ""], dtype=object)[found.codes]
        return out

    def _spelled(
        self, found: Column, stem: str, notes: list[str], change: Callable[[str], str] = lambda level: level
    ) -> Column:
        """A column whose levels are without typos, then changed (levels may repeat), each said and counted."""
        number, levels = np.bincount(found.codes[found.codes >= 0], minlength=len(found.levels)), []
        for level, cells in zip(found.levels, number.tolist(), strict=True):
            new = level
            for typo, right in self.typos.items():
                new = new.replace(typo, right)
            new = change(new)
            if new != level:
                notes.append(f"{stem}: {found.name} {level!r} read as {new!r}: {cells:,} cells")
            levels.append(new)
        return Column(found.name, found.codes, tuple(levels))

    def _named(self, found: Column) -> np.ndarray:
        """Labels, objects of str, shape (m,): sets joined by ``+``, controls by their first name, '' without a name."""
        out = []
        for level in found.levels:
            parts = [part.strip() for part in level.split(self.separator)] if self.separator else [level.strip()]
            genes = {part for part in parts if part and part not in self.control}
            out.append("+".join(sorted(genes)) or (self.control[0] if any(parts) else ""))
        return np.array([*out, ""], dtype=object)[found.codes]


def _number(level: str) -> str:
    """A number as every object has it (R writes 1e+05 of doubles, 100000 of integers); other text as it is."""
    if NUMBER.fullmatch(level) is None or level.lstrip("-").isdecimal():
        return level
    value = float(level)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value) if np.isfinite(value) else level


def _indexed(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The table with its first column as the index."""
    first = next(iter(table))
    return {"_index": table[first]} | {name: values for name, values in table.items() if name != first}
