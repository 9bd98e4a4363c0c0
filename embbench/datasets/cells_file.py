"""Published `.h5ad` files of counts: the studies that scPerturb harmonised, the Virtual Cell Challenge, Kang et al."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset
from embbench.datasets._assembled import Assembled
from embbench.datasets._given import names_of, pattern, text, texts
from embbench.datasets._h5ad import column, length
from embbench.datasets._published import Opened, Published, first_column, part_of, relabel, screen_of
from embbench.genes import parse_perturbation


class CellsFile:
    """A screen whose published files hold counts in ``X``, one line of ``obs`` per cell.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    labels : obs column(s) of perturbation labels: the first that there is.
    strip : regular expression that is cut out of labels, e.g. the plasmid tags of Adamson et al. 2016.
    rename : label -> the name that is used instead.
    constants : columns that the file lacks, the same for every cell, e.g. its only cell line.
    number : obs column of the number of perturbations of a cell, compared with what the labels say.
    keep_genes : what the names of genes begin with that are read, e.g. ``ENSG``; others are dropped and counted.
    expects : ``counts`` or ``lognorm``.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    References
    ----------
    Peidli et al. (2024), Nature Methods 21:531, doi 10.1038/s41592-023-02144-y (scPerturb).
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        labels: str | Sequence[str] = "perturbation",
        strip: str = "",
        rename: Mapping[str, str] | None = None,
        constants: Mapping[str, str] | None = None,
        number: str = "",
        keep_genes: str = "",
        expects: str = "counts",
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published = Published.of(name, files, root, only)
        self.labels, self.strip = names_of("labels", labels), pattern("strip", strip)
        self.rename, self.constants = texts("rename", rename), texts("constants", constants)
        self.number, self.keep_genes, self.options = text("number", number), text("keep_genes", keep_genes), options
        keys = {"perturbation_key": "perturbation", **options}
        own = {"labels": labels, "strip": strip, "rename": rename, "constants": constants, "keep_genes": keep_genes}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, expects, recipe, own)

    def check(self) -> list[str]:
        """What the file holds, line by line; `UserError`: it is not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its file is not fetched, or not as published."""
        return self.screen.load()

    def _assemble(self, opened: Opened) -> Assembled:
        parts, notes = [], []
        for stored, file in opened.items():
            key = str(first_column(self.published.name, "perturbation labels", self.labels, list(file["obs"])))
            found = column(file, "obs", key, "perturbation labels")
            changed = relabel(found.text(), self._named)
            cells = length(file, "obs")
            more = {name: np.full(cells, value, dtype=object) for name, value in self.constants.items()}
            parts.append(
                part_of(self.published.name, file, self.options, stored.partition(".")[0], perturbation=changed, **more)
            )
            notes += self._renamed(found.levels) + self._counted(file, changed)
        every = np.concatenate([part.genes() for part in parts])
        genes = np.array([gene for gene in every.tolist() if gene.startswith(self.keep_genes)], dtype=object)
        if lost := len(every) - len(genes):
            notes.append(f"genes that are not {self.keep_genes}..., dropped: {lost:,}")
        return Assembled(parts, self.published.name, notes, genes if lost else None)

    def _named(self, label: str) -> str:
        return self.rename.get(label, self.strip.sub("", label))

    def _renamed(self, levels: Sequence[str]) -> list[str]:
        pairs = [f"{old} -> {new}" for old in levels if (new := self._named(old)) != old]
        shown = ", ".join(pairs[:4]) + (" ..." if len(pairs) > 4 else "")
        return [f"labels renamed as the catalogue says: {len(pairs)} ({shown})"] if pairs else []

    def _counted(self, file: Any, labels: np.ndarray) -> list[str]:
        """Labels whose number of members is not the one that the file counts."""
        if not self.number or self.number not in file["obs"]:
            return []
        counts = column(file, "obs", self.number, "number").values
        known = sorted(set(labels.tolist()) - {""})
        if counts is None or not known:
            return []
        members = parse_perturbation(known, entity_type="gene").entities
        told = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        odd = [label for label in known if len(members[label]) != told[label]]
        shown = ", ".join(odd[:4]) + (" ..." if len(odd) > 4 else "")
        return (
            [f"labels read with another number of perturbations than {self.number} says: {len(odd)} ({shown})"]
            if odd
            else []
        )
