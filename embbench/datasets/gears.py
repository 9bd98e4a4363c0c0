"""Screens as GEARS serves them: zips of log-normalised cells of highly variable genes (Roohani et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled
from embbench.datasets._h5ad import column, column_names, describe, length
from embbench.datasets._published import Opened, Published, part_of, screen_of

LINE = "cell_line"  # the column of contexts, made here


class Gears:
    """One ``perturb_processed.h5ad`` of GEARS.

    Labels are in ``obs['condition']``: ``ctrl``, singles as ``A+ctrl`` or ``ctrl+A`` (Norman's file has both for the
    same gene), sets as ``A+B``; they are joined by what they perturb. ``X`` holds log1p of counts scaled over all
    genes, of which some 5,000 highly variable ones are kept; so it is read as it is, not ``layers['counts']`` of the
    kept genes. Symbols are in ``var['gene_name']``. Perturbations outside GEARS' graph of GO terms, which its own
    loader leaves out, are kept.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    context : the cell line of the study; ValueError when empty. ``obs['cell_type']`` of Norman's file names another.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    References
    ----------
    Roohani, Huang and Leskovec (2024), Nature Biotechnology 42:927, doi 10.1038/s41587-023-01905-6.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        context: str,
        root: str = "",
        only: str = "",
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        if not context or not isinstance(context, str):
            raise ValueError(f"{name}: context must name the cell line of the study, got {context!r}")
        self.published, self.context = Published.of(name, files, root, only), context
        columns = {"perturbation_key": "condition", "control": "ctrl", "context_keys": [LINE], "gene_key": "gene_name"}
        self.options = {**columns, **options}
        self.screen = screen_of(
            self.published, __name__, self._assemble, self.options, "lognorm", recipe, {"context": context}
        )

    def check(self) -> list[str]:
        """What the file holds, line by line; `UserError`: it is not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its file is not fetched, or not as published."""
        return self.screen.load()

    def _assemble(self, opened: Opened) -> Assembled:
        parts, notes = [], []
        for stored, file in opened.items():
            lines = np.full(length(file, "obs"), self.context, dtype=object)
            parts.append(part_of(self.published.name, file, self.options, stored.partition(".")[0], **{LINE: lines}))
            labels = column(file, "obs", self.options["perturbation_key"], "perturbation labels")
            notes += [*self._line(file), *both_orders(labels.levels)]
        return Assembled(parts, self.published.name, notes)

    def _line(self, file: Any) -> list[str]:
        """What to say of the cell line that the file names; `UserError` when it names several."""
        if "cell_type" not in column_names(file, "obs"):
            return []
        named = column(file, "obs", "cell_type", "cell line").levels
        if len(named) > 1:
            raise UserError(
                f"{self.published.name}: expected one cell line in 'cell_type', as published, found {len(named)} "
                f"({describe(named)}); the file is another one: use embbench data import with --context-key cell_type"
            )
        if not named or named[0].casefold() == self.context.casefold():
            return []
        return [f"cell_type reads {named[0]} in every cell; the study used {self.context}, which is taken"]


def both_orders(labels: Sequence[str]) -> list[str]:
    """A line on perturbations that occur under several labels; none where there are no such ones.

    Examples
    --------
    >>> both_orders(["ctrl", "KLF1+ctrl", "ctrl+KLF1", "A+B"])
    ['perturbations under labels in both orders, joined: 1 (KLF1+ctrl = ctrl+KLF1)']
    """
    same: dict[tuple[str, ...], list[str]] = {}
    for label in labels:
        same.setdefault(tuple(sorted(part.strip() for part in label.split("+"))), []).append(label)
    twice = [" = ".join(sorted(each)) for each in same.values() if len(each) > 1]
    return [f"perturbations under labels in both orders, joined: {len(twice)} ({describe(twice)})"] if twice else []
