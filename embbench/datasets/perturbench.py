"""Screens as PerturBench curated them: `.h5ad` of selected genes with raw counts in a layer, splits as CSV of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled
from embbench.datasets._h5ad import Column, column, column_names, describe, index_names, near
from embbench.datasets._published import Opened, Published, first_column, part_of, relabel, screen_of, words
from embbench.datasets._roles import Groups, Roles
from embbench.genes import UNMAPPED, harmonise, parse_perturbation

CONTROL = "control"


class PerturBench:
    """One dataset of PerturBench.

    Labels are in ``obs['condition']`` (``A+B`` for sets, ``control``), contexts in ``cell_type`` and ``treatment``.
    ``X`` holds log1p of counts scaled to their median, another unit than ours, so effects are computed from
    ``layers['counts']`` with the total counts of ``ncounts`` (the genes were selected, so their sum is no depth). Genes
    were selected on all cells, those of test conditions included, which tables say.

    A split has one role per cell. The role of a condition is that of its cells and becomes a covariate, for
    ``given:split``; conditions whose cells have several are in no fold, and controls are halved as ever: both are said.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    labels : obs column(s) of labels, the first that there is.
    controls : labels that are controls.
    splits : name of the covariate -> stored CSV file (cell name, role; no header). Files of a part that was not fetched
        are left out.
    layer : of raw counts; None reads ``X`` as log-normalised, effects are then in its unit.
    rename : label -> the name that is used instead.
    altered : tokens that curation replaced by ``control`` wherever they stood, also within symbols (``GNA13`` became
        ``Gcontrol13``); a label is restored where that gives one known gene.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    References
    ----------
    Wu, Wershof, Schmon, Nassar et al. (2024), PerturBench, arXiv 2408.10609.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        labels: str | Sequence[str] = "condition",
        controls: str | Sequence[str] = CONTROL,
        splits: Mapping[str, str] | None = None,
        layer: str | None = "counts",
        rename: Mapping[str, str] | None = None,
        altered: Sequence[str] = (),
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published = Published.of(name, files, root, only)
        self.labels, self.controls, self.layer = words(labels), words(controls), layer
        self.splits = {key: file for key, file in (splits or {}).items() if file in self.published.stored}
        self.rename, self.altered = dict(rename or {}), tuple(altered)
        covariates = [*words(options.pop("covariates", ())), *self.splits]
        columns = {"perturbation_key": "condition", "control": CONTROL, "covariates": covariates, "layer": layer}
        self.options = {**options, **columns}
        own = {"labels": self.labels, "controls": self.controls, "splits": self.splits, "rename": self.rename}
        self.screen = screen_of(
            self.published,
            __name__,
            self._assemble,
            self.options,
            "counts" if layer else "lognorm",
            recipe,
            {**own, "altered": list(self.altered)},
        )

    def check(self) -> list[str]:
        """What the files hold, line by line; `UserError`: they are not as published."""
        if self._cells():
            return self.screen.check()
        self.published.require()
        tables = [Roles.read(self.published.path(name)) for name in self.published.stored]
        return [f"{table.name}: {table.told()}; its cells are in another part" for table in tables]

    def load(self) -> PerturbationDataset:
        """The screen; `UserError`: its files are not fetched, or not as published."""
        if not self._cells():
            raise UserError(
                f"{self.published.name}: the part {self.published.only!r} has no cells; leave it out to use the screen"
            )
        return self.screen.load()

    def _cells(self) -> list[str]:
        return [name for name in self.published.stored if name.endswith(".h5ad")]

    def _assemble(self, opened: Opened) -> Assembled:
        parts, notes = [], []
        for stored, file in opened.items():
            self._check_layer(file)
            key = str(first_column(self.published.name, "perturbation labels", self.labels, list(file["obs"])))
            found = column(file, "obs", key, "perturbation labels")
            named, said = self._named(found.levels)
            notes += said
            made = {"condition": relabel(found.text(), named.__getitem__)}
            part = part_of(self.published.name, file, self.options, stored.partition(".")[0])
            groups = self._conditions(file, found, named, part.genes())
            for name, csv_name in self.splits.items():
                table = Roles.read(self.published.path(csv_name))
                made[name], said = table.of_conditions(index_names(file, "obs"), groups, name)
                notes += said
                if name in column_names(file, "obs"):
                    notes.append(f"the file's own column {name!r} is not used: {csv_name} has the split")
            parts.append(replace(part, obs=made))
        return Assembled(parts, self.published.name, notes)

    def _check_layer(self, file: Any) -> None:
        layers = list(file["layers"]) if "layers" in file else []
        if self.layer and self.layer not in layers:
            raise UserError(
                f"{self.published.name}: expected raw counts in layers/{self.layer}, as published"
                f"{near(self.layer, layers)}; with layer=null the log-normalised X is read instead"
            )

    def _named(self, levels: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Label -> label that is used, and what was done."""
        named = {level: CONTROL if level in self.controls else self.rename.get(level, level) for level in levels}
        odd = [level for level in levels if self.altered and CONTROL in level and named[level] != CONTROL]
        for level in odd:
            ways = {level.replace(CONTROL, token) for token in self.altered}
            known = [way for way in ways if harmonise([way]).status[0] not in UNMAPPED]
            named[level] = known[0] if len(known) == 1 else level
        lines = []
        for what, each in (
            ("labels renamed", [level for level in levels if level in self.rename]),
            ("labels that curation had altered, restored", [level for level in odd if named[level] != level]),
            ("labels that curation altered, kept as they are", [level for level in odd if named[level] == level]),
        ):
            if each:
                lines.append(f"{what}: {len(each)} ({describe([f'{level} -> {named[level]}' for level in each])})")
        return named, lines

    def _conditions(self, file: Any, labels: Column, named: Mapping[str, str], genes: np.ndarray) -> Groups:
        """Which condition each cell belongs to, as the import will see it."""
        kind = str(self.options.get("entity_type", "auto"))
        parsed = parse_perturbation([named[level] for level in labels.levels], (CONTROL,), genes.tolist(), kind)
        sets = [parsed.entities[named[level]] for level in labels.levels]
        rank = {each: i for i, each in enumerate(dict.fromkeys(each for each in sets if each))}
        names = ["+".join(each) for each in rank]
        codes = np.array([*(rank.get(each, Groups.CONTROL) for each in sets), Groups.NONE])[labels.codes]
        for key in words(self.options.get("context_keys", ())):
            context = column(file, "obs", key, "--context-key")
            joined = codes * len(context.levels) + context.codes
            codes = np.where(codes < 0, codes, np.where(context.codes < 0, Groups.NONE, joined))
            names = [f"{name} in {level}" for name in names for level in context.levels]
        return Groups(codes, names)
