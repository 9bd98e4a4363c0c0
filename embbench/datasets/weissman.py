"""Raw single cells as Replogle et al. 2022 and Nadig et al. 2025 published them, one line or several merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset
from embbench.datasets._assembled import Assembled, Part
from embbench.datasets._given import texts
from embbench.datasets._h5ad import column, column_names, length
from embbench.datasets._published import Opened, Published, first_column, part_of, screen_of

TARGET, LINE, BATCH = "target", "cell_line", "batch"  # columns that the reader makes
GENE_ID, GENE, GEM = "gene_id", "gene", "gem_group"  # as published


class Weissman:
    """Counts of CRISPRi screens with two guides per vector, genes by Ensembl identifier (symbols repeat).

    Perturbed genes are ``gene_id``, where it is missing ``gene``; controls are ``non-targeting`` in both. Several files
    are merged over the genes that all have, as Cole et al. 2026 do; one alone keeps all of its genes. Batches are
    ``LINE:gem_group``, because every line counts its own from 1.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    lines : published file name -> cell line, the context.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    Raises
    ------
    ValueError
        A file is of no line.

    References
    ----------
    Replogle et al. (2022), Cell 185:2559, doi 10.1016/j.cell.2022.05.013; Nadig et al. (2025), Nature Genetics 57:1228,
    doi 10.1038/s41588-025-02169-3; the merge: Cole et al. (2026), doi 10.64898/2026.02.18.706454.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        lines: Mapping[str, str],
        root: str = "",
        only: str = "",
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published, self.lines = Published.of(name, files, root, only), texts("lines", lines)
        if lost := [stored for stored in self.published.stored if stored not in self.lines]:
            raise ValueError(f"Weissman: lines must name the cell line of every file, none for {lost[0]!r}")
        self.options = options
        keys = {"perturbation_key": TARGET, "context_keys": [LINE], "batch_key": BATCH, **options}
        own = {"lines": self.lines}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, "counts", recipe, own)

    def check(self) -> list[str]:
        """What the files hold, line by line; `UserError`: they are not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: a file is not fetched, or not as published (z-scores instead of counts ...)."""
        return self.screen.load()

    def _assemble(self, opened: Opened) -> Assembled:
        notes: list[str] = []
        parts = [self._part(self.lines[stored], file, notes) for stored, file in opened.items()]
        return Assembled(parts, self.published.name, notes)

    def _part(self, line: str, file: Any, notes: list[str]) -> Part:
        gem = column(file, "obs", self._column("batches", [GEM], file), "batches").text()
        made = {
            TARGET: self._targets(line, file, notes),
            LINE: np.full(length(file, "obs"), line, dtype=object),
            BATCH: np.array([f"{line}:{number}" if number else "" for number in gem.tolist()], dtype=object),
        }
        return part_of(self.published.name, file, self.options, line, **made)

    def _targets(self, line: str, file: Any, notes: list[str]) -> np.ndarray:
        """Perturbed genes of shape (m,), objects of str, '' where neither column has one."""
        key = self._column("perturbed genes", [GENE_ID, GENE], file)
        found = column(file, "obs", key, "perturbed genes").text()
        absent = found == ""
        if key == GENE or GENE not in column_names(file, "obs") or not absent.any():
            return found
        symbols = column(file, "obs", GENE, "perturbed genes").text()
        named = int((absent & (symbols != "")).sum())
        notes.append(f"{line}: cells without {GENE_ID}, perturbed gene taken from {GENE}: {named:,}")
        return np.where(absent, symbols, found)

    def _column(self, what: str, wanted: Sequence[str], file: Any) -> str:
        """The first of some columns; `UserError`: there is none."""
        return str(first_column(self.published.name, what, wanted, column_names(file, "obs")))
