"""Single cells of OP3, the NeurIPS 2023 competition: blood cells of three donors under 144 compounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset
from embbench.datasets._assembled import Assembled
from embbench.datasets._given import numbers
from embbench.datasets._h5ad import column, length
from embbench.datasets._published import Opened, Published, part_of, screen_of
from embbench.datasets._recipes import left_out


class Op3:
    """``sc_counts_reannotated_with_counts.h5ad``: counts in ``layers['counts']`` (``X`` is something else).

    Compounds are in ``sm_name`` (control ``Dimethyl Sulfoxide``), contexts in ``cell_type``, batches in ``plate_name``,
    doses in ``dose_uM`` (the vehicle's is 0 here). Cells that a recipe drops lose their label and are counted.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    References
    ----------
    Szałata et al. (2024), NeurIPS Datasets and Benchmarks, "A benchmark for prediction of transcriptomic responses to
    chemical perturbations across cell types"; GEO GSE279945.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published = Published.of(name, files, root, only)
        self.options = {"layer": "counts", **options}
        keys = {"perturbation_key": "sm_name", "control": "Dimethyl Sulfoxide", "dose_key": "dose_uM", **self.options}
        self.screen = screen_of(self.published, __name__, self._assemble, keys, "counts", recipe)

    def check(self) -> list[str]:
        """What the file holds, line by line; `UserError`: it is not as published."""
        return self.screen.check()

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its file is not fetched, or not as published."""
        return self.screen.load()

    def _assemble(self, opened: Opened) -> Assembled:
        (file,) = opened.values()
        notes: list[str] = []

        def read(name: str) -> np.ndarray:
            return column(file, "obs", name, name).text()

        labels = read("sm_name")
        out = left_out(self.screen.recipe, read, length(file, "obs"), notes)
        dose = column(file, "obs", "dose_uM", "dose_uM")
        values = numbers(dose.text(), "dose_uM", self.published.name) if dose.values is None else dose.values
        changed = {
            "sm_name": np.where(out, "", labels).astype(object),
            "dose_uM": np.where(labels == "Dimethyl Sulfoxide", 0.0, values),
        }
        return Assembled([part_of(self.published.name, file, self.options, "", **changed)], self.published.name, notes)
