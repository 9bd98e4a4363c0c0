"""Plates of Tahoe-100M, one `.h5ad` of counts each: 50 cancer lines under some 380 drugs at three doses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from embbench.core import PerturbationDataset
from embbench.datasets._assembled import Assembled, Part
from embbench.datasets._dose_text import CONTROL, labels_and_doses
from embbench.datasets._h5ad import column, length
from embbench.datasets._published import Opened, Published, part_of, screen_of
from embbench.datasets._recipes import left_out

QUALITY = ("full", "all")


class Tahoe:
    """One plate or several; ``only: plate3`` takes one.

    The drug is in ``drug``, name and dose in ``drugname_drugconc`` as a text like ``[('name', 5.0, 'uM')]``, which is
    read without being run; dose 0 is the control (`CONTROL`), whatever the name: a drug whose name contains that of the
    solvent is none. Contexts are lines (``cell_line``, Cellosaurus), batches plates. Spaces around names are cut off.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    quality : ``full`` keeps cells whose ``pass_filter`` is full (the authors' strict filter), ``all`` keeps all.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    Raises
    ------
    ValueError
        ``quality`` is none of those.

    References
    ----------
    Zhang et al. (2025), Tahoe-100M, doi 10.1101/2025.02.20.639398.
    """

    piecemeal: ClassVar[bool] = True  # tens of gigabytes a plate: never all of them because nobody said which

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        quality: str = "full",
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        if quality not in QUALITY:
            raise ValueError(f"Tahoe: quality must be one of {', '.join(QUALITY)}, got {quality!r}")
        self.published, self.quality = Published.of(name, files, root, only), quality
        self.options = {"gene_key": ["gene_name", "gene_symbol", None], **options}
        keys = {"perturbation_key": "drug", "control": CONTROL, "dose_key": "dose", **self.options}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, "counts", recipe, {"quality": quality})

    def check(self) -> list[str]:
        """What the files hold, line by line; `UserError`: they are not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its files are not fetched, or not as published."""
        return self.screen.load()

    def _assemble(self, opened: Opened) -> Assembled:
        notes: list[str] = []
        parts = [self._part(stored, file, notes) for stored, file in opened.items()]
        return Assembled(parts, self.published.name, notes)

    def _part(self, stored: str, file: Any, notes: list[str]) -> Part:
        cells, tag = length(file, "obs"), stored.partition("_")[0]
        drug, text = (column(file, "obs", key, key) for key in ("drug", "drugname_drugconc"))
        labels, dose, odd = labels_and_doses(drug, text, self.published.name)
        notes.extend(f"{tag}: {line}" for line in odd)
        keep = np.ones(cells, dtype=bool)
        if self.quality == "full":
            found = column(file, "obs", "pass_filter", "pass_filter")
            keep = np.array([level == "full" for level in found.levels] + [False])[found.codes]
            notes.append(f"{tag}: cells whose pass_filter is not full, left out: {int((~keep).sum()):,} of {cells:,}")

        def read(name: str) -> np.ndarray:
            return labels if name == "drug" else column(file, "obs", name, name).text()

        out = left_out(self.screen.recipe, read, cells, notes) | ~keep
        labels[out] = ""
        return part_of(self.published.name, file, self.options, tag, drug=labels, dose=dose)
