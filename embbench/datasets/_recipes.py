"""How benchmarks curated a screen, as named presets: import options, which conditions and genes, what they dropped.

A recipe is written in the registry entry of its screen. Genes are chosen from control cells of half A and from names of
perturbed genes, never from responses: where a benchmark chose them with its test cells in view, the note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.numerics.hvg import select_genes

NONE = "embbench"


@dataclass(frozen=True)
class Recipe:
    """A curation.

    Parameters
    ----------
    name : ``embbench`` is none.
    options : import options that it sets.
    genes : ``all``, ``expressed`` or ``hvg:N``, from control cells of half A.
    keep_targets : keep measured genes that are perturbed, whatever ``genes`` says.
    sets : ``all``, ``singles`` (conditions of one perturbation) or ``measured`` (all perturbed genes measured).
    doses : ``all``, ``max`` (conditions at the highest dose of the screen), or a dose.
    drop : cells or conditions that are left out before anything is computed, each a mapping of columns to a value or
        values: ``{drug: A}`` or ``{drug: A, cell_type: [T, B]}`` (all must match). Readers apply them (`left_out`).
    changed : import options that the user gave in place of the recipe's.
    note : what of the published curation is not done, and why.
    """

    name: str = NONE
    options: Mapping[str, Any] = field(default_factory=dict)
    genes: str = "all"
    keep_targets: bool = False
    sets: str = "all"
    doses: str | float = "all"
    drop: Sequence[Mapping[str, Any]] = ()
    changed: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if self.doses not in ("all", "max") and not isinstance(self.doses, int | float):
            raise ValueError(f"recipe {self.name}: doses must be all, max or a number, got {self.doses!r}")
        if self.sets not in ("all", "singles", "measured"):
            raise ValueError(f"recipe {self.name}: sets must be all, singles or measured, got {self.sets!r}")


def recipe_of(name: str, known: Mapping[str, Mapping[str, Any]], screen: str) -> Recipe:
    """The recipe of that name among those of a screen.

    Raises
    ------
    UserError
        There is no such recipe.
    ValueError
        It has a field that recipes do not have.

    Examples
    --------
    >>> recipe_of("perturbench", {"perturbench": {"genes": "hvg:4000"}}, "norman19").genes
    'hvg:4000'
    """
    if name == NONE:
        return Recipe()
    if name not in known:
        raise UserError(f"{screen}: recipe must be one of {', '.join([NONE, *known])}, found {name!r}")
    if odd := sorted(set(known[name]) - {f.name for f in fields(Recipe)}):
        raise ValueError(f"{screen}: recipe {name!r} has no field {odd[0]!r}")
    return Recipe(name, **known[name])


def left_out(recipe: Recipe, read: Callable[[str], np.ndarray], size: int, notes: list[str]) -> np.ndarray:
    """Which of ``size`` cells or conditions a recipe drops, bool of shape (size,); ``notes`` gets a line per rule.

    Parameters
    ----------
    read : column name -> its values, shape (size,), objects of str.

    Examples
    --------
    >>> drugs, notes = np.array(["A", "B", "A"], dtype=object), []
    >>> left_out(Recipe("r", drop=[{"drug": "A"}, {"drug": "C"}]), lambda name: drugs, 3, notes).tolist(), notes
    ([True, False, True], ['recipe r: drug A left out: 2', 'recipe r: drug C left out: 0'])
    """
    out = np.zeros(size, dtype=bool)
    for rule in recipe.drop:
        hit, said = np.ones(size, dtype=bool), []
        for name, value in rule.items():
            wanted = [value] if isinstance(value, str) else [str(v) for v in value]
            hit &= np.fromiter((each in wanted for each in read(name)), dtype=bool, count=size)
            said.append(f"{name} {' or '.join(wanted)}")
        notes.append(f"recipe {recipe.name}: {', '.join(said)} left out: {int(hit.sum()):,}")
        out |= hit
    return out


def curate(data: PerturbationDataset, recipe: Recipe) -> PerturbationDataset:
    """The conditions and genes of a recipe, with lines in ``meta["import_report"]`` on what was dropped and why.

    Raises
    ------
    UserError
        No condition or gene is left.
    """
    if recipe == Recipe():
        return data
    options = {name: value for name, value in recipe.options.items() if name not in recipe.changed}
    lines = [f"recipe {recipe.name}: " + (", ".join(f"{k}={v}" for k, v in options.items()) or "no import options")]
    lines += [
        f"recipe {recipe.name}: deviates, {k}={v} (the recipe: {recipe.options[k]})" for k, v in recipe.changed.items()
    ]
    for what, keep in _kept(data, recipe):
        if not keep.any():
            raise UserError(f"{data.name}: recipe {recipe.name} keeps none of {len(data)} conditions ({what})")
        lost = [data.conditions[i] for i in np.flatnonzero(~keep)]
        shown = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
        lines.append(f"recipe {recipe.name}: {what} dropped {len(lost):,} conditions" + (f" ({shown})" if lost else ""))
        data = data.rows(np.flatnonzero(keep))
    if recipe.genes != "all":
        columns = select_genes(recipe.genes, data.genes, data.baseline, data.baseline_variance)
        if recipe.keep_targets:
            columns = np.union1d(columns, np.concatenate([columns, *data.target_columns()]))
        more = " and measured perturbed genes" if recipe.keep_targets else ""
        lines.append(
            f"recipe {recipe.name}: genes {recipe.genes} of control half A{more}: {len(columns):,} of "
            f"{data.effects.shape[1]:,} kept"
        )
        data = data.with_genes(columns.astype(np.int64))
    if recipe.note:
        lines.append(f"recipe {recipe.name}: {recipe.note}")
    kept = {name: value for name, value in data.meta.items() if name != "digest"}  # it is another screen now
    return replace(
        data, meta={**kept, "recipe": recipe.name, "import_report": [*kept.get("import_report", []), *lines]}
    )


def _kept(data: PerturbationDataset, recipe: Recipe) -> Iterator[tuple[str, np.ndarray]]:
    """Rules on conditions, and the rows (n,) that each keeps; the rules do not depend on one another."""
    rules = []
    if recipe.sets == "singles":
        rules.append(("sets=singles", np.array([len(row) == 1 for row in data.entities])))
    if recipe.sets == "measured":
        measured = set(data.genes.tolist())
        rules.append(("sets=measured", np.array([set(row) <= measured for row in data.entities])))
    if recipe.doses != "all":
        if data.dose is None:
            raise UserError(f"{data.name}: recipe {recipe.name} wants doses={recipe.doses}, the screen has no doses")
        dose = float(np.nanmax(data.dose)) if recipe.doses == "max" else float(recipe.doses)
        there = ", ".join(f"{d:g}" for d in np.unique(data.dose[np.isfinite(data.dose)])[:8])
        rules.append((f"doses={recipe.doses} ({dose:g} of {there})", np.isclose(data.dose, dose, rtol=1e-6, atol=0)))
    gone = np.zeros(len(data), dtype=bool)
    for what, keep in rules:
        yield what, keep[~gone]
        gone |= ~keep
