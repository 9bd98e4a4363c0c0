"""Screens as PerturBench curated them: `.h5ad` of selected genes with raw counts in a layer, splits as CSV of cells."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embbench.cache.datafiles import records
from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled, Part
from embbench.datasets._given import names_of, texts, words
from embbench.datasets._h5ad import Column, column, column_names, describe, index_names, near
from embbench.datasets._published import Opened, Published, first_column, part_of, relabel, screen_of
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
    control : labels that are controls (``controls`` is the import option, as everywhere).
    splits : name of the covariate -> stored CSV file (cell name, role; no header). One that ``only`` leaves out is no
        covariate, and no default split; the report says so.
    layer : of raw counts; None reads ``X`` as log-normalised, effects are then in its unit.
    rename : label -> the name that is used instead.
    altered : tokens that curation replaced by ``control`` wherever they stood, also within symbols (``GNA13`` became
        ``Gcontrol13``); a label is restored where that gives one known gene.
    recipe : ``embbench`` (every condition and gene), or one of ``recipes``.
    options : of the import, see `embbench.datasets._published.Screen`.

    Raises
    ------
    ValueError
        ``splits`` names no file of the screen.

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
        control: str | Sequence[str] = CONTROL,
        splits: Mapping[str, str] | None = None,
        layer: str | None = "counts",
        rename: Mapping[str, str] | None = None,
        altered: Sequence[str] = (),
        recipe: str = "embbench",
        **options: Any,
    ) -> None:
        self.published = Published.of(name, files, root, only)
        self.labels, self.control, self.layer = names_of("labels", labels), names_of("control", control), layer
        told = texts("splits", splits)
        self.splits = {key: file for key, file in told.items() if file in self.published.stored}
        self.absent = _absent({key: file for key, file in told.items() if key not in self.splits}, files, only)
        if options.get("default_split") in {f"given:{key}" for key in told.keys() - self.splits.keys()}:
            del options["default_split"]
        self.rename, self.altered = texts("rename", rename), tuple(words(altered, "altered"))
        covariates = [*words(options.pop("covariates", ()), "covariates"), *self.splits]
        columns = {"perturbation_key": "condition", "control": CONTROL, "covariates": covariates, "layer": layer}
        self.options = {**options, **columns}
        own = {"labels": self.labels, "control": self.control, "splits": self.splits, "rename": self.rename}
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
        notes = list(self.absent)
        parts = [self._part(stored, file, notes) for stored, file in opened.items()]
        return Assembled(parts, self.published.name, notes)

    def _part(self, stored: str, file: Any, notes: list[str]) -> Part:
        """Cells with their labels; splits, of which a file may have millions of lines, are read when they are used."""
        self._check_layer(file)
        key = str(first_column(self.published.name, "perturbation labels", self.labels, list(file["obs"])))
        found = column(file, "obs", key, "perturbation labels")
        named, said = self._named(found.levels)
        notes += said
        part = part_of(self.published.name, file, self.options, stored.partition(".")[0])
        groups = functools.cache(lambda: self._conditions(file, found, named, part.genes()))

        def roles(name: str) -> np.ndarray:
            table = Roles.read(self.published.path(self.splits[name]))
            values, said = table.of_conditions(index_names(file, "obs"), groups(), name)
            notes.extend(said)
            if name in column_names(file, "obs"):
                notes.append(f"the file's own column {name!r} is not used: {table.name} has the split")
            return values

        made: dict[str, np.ndarray | Callable[[], np.ndarray]] = {
            "condition": relabel(found.text(), named.__getitem__),
            **{name: functools.partial(roles, name) for name in self.splits},
        }
        return replace(part, obs=made)

    def _check_layer(self, file: Any) -> None:
        layers = list(file["layers"]) if "layers" in file else []
        if self.layer and self.layer not in layers:
            raise UserError(
                f"{self.published.name}: expected raw counts in layers/{self.layer}, as published"
                f"{near(self.layer, layers)}; with layer=null the log-normalised X is read instead"
            )

    def _named(self, levels: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Label -> label that is used, and what was done."""
        named = {level: CONTROL if level in self.control else self.rename.get(level, level) for level in levels}
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
        for each in words(self.options.get("context_keys") or (), "context_keys"):
            key = first_column(self.published.name, "context_keys", each, column_names(file, "obs"))
            if key is None:
                continue
            context = column(file, "obs", key, "--context-key")
            joined = codes * len(context.levels) + context.codes
            codes = np.where(codes < 0, codes, np.where(context.codes < 0, Groups.NONE, joined))
            names = [f"{name} in {level}" for name in names for level in context.levels]
        return Groups(codes, names)


def _absent(splits: Mapping[str, str], files: Sequence[Mapping[str, Any]], only: str) -> list[str]:
    """What to say of splits whose files ``only`` leaves out; ValueError for files that the screen does not have."""
    part = {stored: file.part for file in records(files) for stored in file.stored}
    if strange := [(name, file) for name, file in splits.items() if file not in part]:
        name, file = strange[0]
        raise ValueError(f"splits: {name} must name one of the files ({', '.join(part)}), got {file!r}")
    return [
        f"the split {name!r} is in {file} (part {part[file]}), which only={only} leaves out: given:{name} is not there"
        for name, file in splits.items()
    ]
