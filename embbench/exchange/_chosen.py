"""Which split is meant: one of a results folder, or one made on a screen as a grid would."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from embbench.core import Fold, PerturbationDataset, Run, Split, UserError
from embbench.exchange._roles import shown
from embbench.grid.results import Results, place
from embbench.grid.screens import screen, split_of
from embbench.grid.validate import split_spec


@dataclass(frozen=True)
class Chosen:
    """A split with its screen; ``name`` is what its files are called."""

    data: PerturbationDataset
    split: Split
    name: str


def computed_split(dataset: str, spec: str, paths: tuple[str, ...] = (), seed: int = 0) -> Chosen:
    """A split of a screen, as a grid would make it.

    Raises
    ------
    UserError
        Unknown names, or a split that does not fit.
    """
    data = screen(dataset, "all", paths)
    spec = split_spec(data, spec)
    return Chosen(data, split_of(dataset, spec, "all", seed, paths), f"{dataset}-{spec}")


def kept_split(
    folder: Path,
    dataset: str = "",
    spec: str = "",
    paths: tuple[str, ...] = (),
    *,
    seed: int | None = None,
    cells: bool = False,
) -> Chosen:
    """The split of a results folder, with the screen kept there; ``cells`` takes the screen of that name instead, which
    has its single cells. Where the folder has the split under several seeds, its name says which.

    Raises
    ------
    UserError
        No results; none or several of that dataset, split and seed; or the screen of that name has other rows by now.
    """
    results = Results(folder)
    runs = [Run(**planned["run"]) for body in results.plans() for planned in body["runs"]]
    marks = {where: mark for body in results.plans() for where, mark in body["facts"]["marks"].items()}
    found: dict[str, Run] = {}  # digest of the split -> a run of it
    for run in runs:
        if dataset in ("", run.dataset) and spec in ("", run.split) and seed in (None, run.seed):
            found.setdefault(marks[place(run)][1], run)
    if len(found) != 1:
        known = shown({f"--dataset {run.dataset} --split {run.split} --seed {run.seed}" for run in runs})
        raise UserError(f"{folder}: expected one split to export, found {len(found)}; choose from {known}")
    ((key, run),) = found.items()
    data = replace(results.screen(marks[place(run)][0]), name=run.dataset)
    if cells:
        data = _same_rows(screen(run.dataset, run.genes, paths), data, folder)
    alike = {marks[place(r)][1] for r in runs if (r.dataset, r.split) == (run.dataset, run.split)}
    name = f"{run.dataset}-{run.split}" + (f"-seed{run.seed}" if len(alike) > 1 else "")
    return Chosen(data, _split(results, key), name)


def _same_rows(now: PerturbationDataset, then: PerturbationDataset, folder: Path) -> PerturbationDataset:
    """The screen of today, which must have the rows of the results."""
    alike = now.conditions == then.conditions and now.context.tolist() == then.context.tolist()
    if not alike:
        raise UserError(
            f"{folder}: its dataset {then.name!r} has {len(then)} conditions that are not those of the screen of that "
            f"name today ({len(now)}); splits by cell need the same one: run the grid again"
        )
    return now


def _split(results: Results, key: str) -> Split:
    """A kept split as it was."""
    arrays, facts = results.split(key)
    folds = []
    for name in facts["folds"]:
        train, test, validation = (arrays[f"{name}|{part}"] for part in ("train", "test", "validation"))
        folds.append(Fold(name, train, test, validation, arrays.get(f"{name}|groups")))
    return Split(facts["kind"], tuple(folds), tuple(tuple(u) for u in facts["units"]))
