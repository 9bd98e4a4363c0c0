"""The sci-Plex 3 chemical screen as its authors deposited it: lines of text at GEO (Srivatsan et al. 2020)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled
from embbench.datasets._given import numbers, texts
from embbench.datasets._h5ad import column, column_names
from embbench.datasets._lines import Pieces, lines_of, open_text, read_table
from embbench.datasets._open import open_anndata
from embbench.datasets._published import Opened, Published, part_of, screen_of
from embbench.datasets._recipes import left_out
from embbench.datasets._triplets import TOTAL, Counts, converted, repeats_of

KINDS = {"matrix": "UMI.count.matrix", "cells": "pData", "genes": "gene.annotations"}  # what their names contain
KEPT = (
    "cell",
    "cell_type",
    "product_name",
    "dose",
    "plate_oligo",
    "replicate",
    "time_point",
    "target",
    "pathway",
    "n.umi",
)
NEEDED = ("cell_type", "product_name", "dose")
AGREE = 0.999  # share of cells whose total is the published one, below which table and matrix do not belong together
CONVERTED = "converted.h5ad"


class SciplexGeo:
    """GSM4150378: three lines (A549, K562, MCF7), 188 compounds at four doses (nM), 24 h.

    ``...UMI.count.matrix.gz`` has three columns without a header: number of the gene, of the cell (from 1), count;
    ``...pData.txt.gz`` one line per cell, separated by spaces, with quotes; ``...gene.annotations.txt.gz`` Ensembl id
    and name. The counts are converted once, beside the files, into ``converted.h5ad`` (compressed rows). Cells are
    those of ``pData`` in its order; where it has ``n.umi`` the totals of the cells are compared with it. The vehicle
    has dose 0; cells without a line are left out.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    rename : label -> the name that is used instead.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    References
    ----------
    Srivatsan et al. (2020), Science 367:45, doi 10.1126/science.aax6234.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        rename: Mapping[str, str] | None = None,
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published = Published.of(name, files, root, only)
        self.rename, self.options = texts("rename", rename), options
        keys = {"perturbation_key": "product_name", "control": "Vehicle", "dose_key": "dose", **options}
        own = {"rename": self.rename}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, "counts", recipe, own, self._open)

    def check(self) -> list[str]:
        """What the files hold, line by line; they are converted for it. `UserError`: they are not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its files are not fetched, or not as published."""
        return self.screen.load()

    def _file(self, kind: str) -> str:
        found = [stored for stored in self.published.stored if KINDS[kind] in stored]
        if len(found) != 1:
            raise ValueError(
                f"{self.published.name}: expected one file *{KINDS[kind]}*, got {', '.join(found) or 'none'}"
            )
        return found[0]

    def _open(self, stack: contextlib.ExitStack) -> Opened:
        target = self.published.path(CONVERTED)
        converted(target, self.published.digests(), self._counts, __name__)
        return {CONVERTED: stack.enter_context(open_anndata(target))}

    def _counts(self) -> Counts:
        cells = read_table(self.published.path(self._file("cells")), sep=" ", quotechar='"')
        if absent := [name for name in NEEDED if name not in cells]:
            raise UserError(
                f"{self._file('cells')}: expected the columns {', '.join(NEEDED)}, found no {', '.join(absent)} "
                f"(there are: {', '.join(cells)}); fetch the published file"
            )
        names = cells.get("cell", cells.get("_index"))
        obs = {"_index": _numbered(len(cells["dose"])) if names is None else names}
        obs |= {name: values for name, values in cells.items() if name in KEPT}
        return Counts(self._file("matrix"), obs, {"_index": self._genes()}, self._pieces)

    def _genes(self) -> np.ndarray:
        """Ensembl ids without their versions, shape (g,); a header line, and numbers of lines, are passed over."""
        name = self._file("genes")
        with open_text(self.published.path(name)) as file:
            lines = file.read().decode("utf-8-sig").splitlines()
        found = [re.findall(r"\bENS[A-Z]*G\d+(?:\.\d+)?(?:_PAR_Y)?", line) for line in lines if line.strip()]
        if not found or not all(found[1:]):
            raise UserError(f"{name}: expected lines of an Ensembl id and a name, found others; fetch it again")
        ids = [each[0] for each in (found if found[0] else found[1:])]
        return np.array([each if "_PAR_" in each else each.partition(".")[0] for each in ids], dtype=object)

    def _pieces(self) -> Pieces:
        name = self._file("matrix")
        with open_text(self.published.path(name)) as file:
            for genes, cells, counts in lines_of(file, name):
                yield cells - 1, genes - 1, counts

    def _assemble(self, opened: Opened) -> Assembled:
        file, notes = opened[CONVERTED], [f"{self._file('matrix')} was converted to {CONVERTED} (compressed rows)"]
        if again := repeats_of(self.published.path(CONVERTED)):
            notes.append(f"lines that repeat a gene and cell, summed: {again:,}")
        labels = column(file, "obs", "product_name", "product_name").text()
        product = np.array([self.rename.get(label, label) for label in labels], dtype=object)
        dose = numbers(column(file, "obs", "dose", "dose").text(), "dose", self.published.name)
        dose = np.where(np.isin(product, ["Vehicle"]), 0.0, dose)
        notes.extend(self._totals(file))

        def read(name: str) -> np.ndarray:
            return product if name == "product_name" else column(file, "obs", name, name).text()

        product[left_out(self.screen.recipe, read, len(product), notes)] = ""
        part = part_of(self.published.name, file, self.options, "", product_name=product, dose=dose)
        return Assembled([part], self.published.name, notes)

    def _totals(self, file: Any) -> list[str]:
        """Compare the sum of each cell with the published one: a shifted table would give every cell another label."""
        if "n.umi" not in column_names(file, "obs"):
            return ["the cell table has no n.umi: that its lines are those of the matrix was not verified"]
        told = numbers(column(file, "obs", "n.umi", "n.umi").text(), "n.umi", self.published.name)
        found = np.asarray(column(file, "obs", TOTAL, TOTAL).values, dtype=np.float64)
        given = np.isfinite(told)
        other = np.flatnonzero(given & (told != found))
        same = 1.0 - len(other) / max(int(given.sum()), 1)
        if not given.any() or same < AGREE:
            first = f"; the first other is cell {other[0] + 1:,}: n.umi {told[other[0]]:g}, total {found[other[0]]:g}"
            raise UserError(
                f"{self.published.name}: expected the totals of the cells to be the published n.umi, found {same:.1%} "
                f"of {int(given.sum()):,} equal{first if len(other) else ''}; the table is of another matrix: fetch "
                "both again"
            )
        return [f"totals of the cells equal to the published n.umi: {same:.1%}, not equal: {len(other):,}"]


def _numbered(size: int) -> np.ndarray:
    return np.array([f"cell{i + 1}" for i in range(size)], dtype=object)
