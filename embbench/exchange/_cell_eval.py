"""Pairs of files as cell-eval reads them: what was observed, and what was predicted.

cell-eval takes one control group per file, so contexts are told apart by a column (its ``--celltype-col``). It refuses
negative values (version 0.8.2 does, whatever its options say). Where a predicted or observed value would be negative,
the gene is raised by a constant in every row of that context of *both* files: differences from the controls, errors,
correlations, ranks and distances between cells stay what they are. Fold changes of raised genes do not: those are
counted and said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import UserError, view_cells
from embbench.exchange.predictions import MARK, Gathered, Names, Predicted, Written, place_of, save

if TYPE_CHECKING:
    import pandas as pd

HIGHEST = 15.0  # cell-eval takes larger values for counts
WHOLE = 1e-3  # and a file whose values are all this near above whole numbers


@dataclass(frozen=True)
class Block:
    """Rows of one context of a pair: labels, values of shape (k, g), whether a prediction is the head's own."""

    labels: np.ndarray
    context: str
    values: np.ndarray
    covered: np.ndarray


def write_pairs(gathered: Gathered, out: Path, names: Names) -> Written:
    """``<fold>/real.h5ad`` and ``<fold>/pred.h5ad`` for every fold.

    Parameters
    ----------
    gathered : the predictions.
    out : folder.
    names : of the columns and the control.

    Returns
    -------
    Written
        An effect run has one row per condition: the half-B control mean plus the predicted (true) effect, float64, and
        one control row per context, the half-B control mean: cell-eval's deltas are embbench's effects, batch-matched
        truth included. A population has the predicted cells against the observed half of the cells; both files hold
        the half-B control cells.

    Raises
    ------
    UserError
        The screen has no control means (effects) or no cells (population), a condition is called like the control, or
        names of columns collide.
    """
    data = gathered.data
    if data.unit != "delta":
        raise UserError(
            f"--format cell-eval holds log1p expression; {data.name} has {data.unit} effects, which no control mean "
            "turns into expression; use --format h5ad"
        )
    _check_names(names)
    if names.control in data.conditions:
        raise UserError(f"--control {names.control!r} is the name of a condition of {data.name}; choose another one")
    if gathered.cells and data.cells is None:
        raise UserError(
            f"a pair of populations needs the observed cells of {data.name}, found none: {gathered.without}; import it "
            "again under that name, or use --format h5ad"
        )
    if not gathered.cells and data.baseline_truth is None and data.baseline is None:
        raise UserError(f"{data.name} has no control means, which cell-eval needs; use --format h5ad")
    files, notes = [], _limits(gathered)
    for made in gathered.folds:
        real, pred, said = _cell_blocks(gathered, made, names) if gathered.cells else _blocks(gathered, made, names)
        raised = _raise(real, pred)
        said += _check([*real, *pred], raised, data.genes)
        for name, blocks in (("real", real), ("pred", pred)):
            files.append(
                save(_anndata(gathered, made, blocks, names, raised), out / place_of(gathered, made) / f"{name}.h5ad")
            )
        notes += [f"{made.fold}: {line}" for line in said]
    return Written(tuple(files), tuple(notes))


def _check_names(names: Names) -> None:
    """Columns of ``obs`` need names of their own."""
    keys = {"--perturbation-key": names.perturbation, "--context-key": names.context}
    bad = [f"{k} {v!r}" for k, v in keys.items() if not v.strip() or v in ("covered", "_index") or {"/", "|"} & {*v}]
    if bad or names.perturbation == names.context or not names.control.strip():
        given = ", ".join(bad or [f"{k} {v!r}" for k, v in {**keys, "--control": names.control}.items()])
        raise UserError(
            f"expected names of their own for two columns and the control, not empty, without / and |, and neither "
            f"'covered' nor '_index', which are taken; found {given}"
        )


def _limits(gathered: Gathered) -> list[str]:
    """What a pair cannot hold."""
    data = gathered.data
    lost = ["folds (one pair each)", "ceilings", "scores", "training rows"]
    lost += ["doses but in labels"] if data.dose is not None else []
    lost += ["the replicate half of the cells"] if gathered.cells else []
    out = ["not in the pair: " + ", ".join(lost)]
    if gathered.cells:
        out += [
            "predicted deltas are against the half-B controls of the file, embbench's against half A: they differ by "
            "control noise; observed ones are those of the observed half, not batch-matched; cells are the same"
        ]
    else:
        out += ["one row per condition: use cell-eval's --profile anndata; its DE metrics need cells"]
    if data.observed is not None:
        out += [f"{int((~data.observed).sum())} entries that the screen does not observe hold the control mean in both"]
    return out


def _blocks(gathered: Gathered, made: Predicted, names: Names) -> tuple[list[Block], list[Block], list[str]]:
    """Means of one fold by context, the control first."""
    data = gathered.data
    base = data.baseline_truth if data.baseline_truth is not None else data.baseline
    real: list[Block] = []
    pred: list[Block] = []
    for code in np.unique(data.context_codes[made.rows]):
        at = np.flatnonzero(data.context_codes[made.rows] == code)
        mean = np.asarray(base, dtype=np.float64)[code]
        labels = np.array([names.control, *(data.conditions[i] for i in made.rows[at])], dtype=object)
        covered = np.concatenate([[True], made.covered[at]])
        for blocks, effects in ((real, data.truth[made.rows[at]]), (pred, made.values[at])):
            known = effects if data.observed is None else np.where(data.observed[made.rows[at]], effects, 0.0)
            values = np.concatenate([mean[None], mean + known.astype(np.float64)])
            blocks.append(Block(labels, data.contexts[code], values, covered))
    return real, pred, []


def _cell_blocks(gathered: Gathered, made: Predicted, names: Names) -> tuple[list[Block], list[Block], list[str]]:
    """Cells of one fold by context, controls first; conditions without an observed or control cell are left out."""
    data = gathered.data
    view = replace(view_cells(data.cells, made.rows), half="B", share="observed")  # type: ignore[arg-type]
    real: list[Block] = []
    pred: list[Block] = []
    lost = 0
    for code in np.unique(data.context_codes[made.rows]).tolist():
        controls = view.controls(code)
        at = np.flatnonzero(data.context_codes[made.rows] == code)
        seen = {i: view.perturbed(i) for i in at.tolist()}
        kept = [i for i, cells in seen.items() if len(cells) and len(controls)]
        lost += len(at) - len(kept)
        if not kept:
            continue
        for blocks, cells in ((real, seen), (pred, dict(enumerate(made.values)))):
            sizes = [len(controls), *(len(cells[i]) for i in kept)]
            labels = np.array([names.control, *(data.conditions[made.rows[i]] for i in kept)], dtype=object)
            covered = np.repeat([True, *made.covered[kept].tolist()], sizes)
            values = np.concatenate([controls, *(cells[i] for i in kept)]).astype(np.float32)
            blocks.append(Block(np.repeat(labels, sizes), data.contexts[code], values, covered))
    said = [f"{lost} of {len(made.rows)} conditions left out: no observed cell or no half-B control"] if lost else []
    if not real:
        raise UserError(f"{made.fold}: no condition has both an observed cell and a half-B control; use --format h5ad")
    return real, pred, said


def _raise(real: list[Block], pred: list[Block]) -> np.ndarray:
    """Raise genes below 0 in both files, in place; returns the amounts, (contexts, g) float64."""
    amounts = []
    for seen, guess in zip(real, pred, strict=True):
        amount = np.maximum(0.0, -np.minimum(seen.values.min(axis=0), guess.values.min(axis=0)).astype(np.float64))
        for block in (seen, guess):
            block.values[...] += amount.astype(block.values.dtype)
            np.maximum(block.values, 0.0, out=block.values)  # what rounding left below 0, at most one unit of it
        amounts.append(amount)
    return np.stack(amounts)


def _check(blocks: list[Block], raised: np.ndarray, genes: np.ndarray) -> list[str]:
    said = []
    if raised.any():
        at = np.unravel_index(np.argmax(raised), raised.shape)[1]
        said.append(
            f"{int((raised > 0).sum())} of {raised.size} genes x contexts were raised so that no value is negative "
            f"(at most by {raised.max():.3g}, {genes[at]}), in both files alike; only fold changes feel it"
        )
    large = sum(int((b.values >= HIGHEST).sum()) for b in blocks)
    if large:
        said.append(f"{large} values are {HIGHEST:g} or more, which cell-eval refuses: give it --allow-discrete")
    elif not any(np.any(np.modf(b.values)[0] > WHOLE) for b in blocks):
        said.append("all values are whole, so cell-eval would take them for counts: give it --allow-discrete")
    return said


def _anndata(gathered: Gathered, made: Predicted, blocks: list[Block], names: Names, raised: np.ndarray) -> Any:
    import anndata
    import pandas as pd

    labels = np.concatenate([b.labels for b in blocks])
    frame = pd.DataFrame(
        {
            names.perturbation: pd.Categorical(labels),
            names.context: pd.Categorical(np.repeat([b.context for b in blocks], [len(b.labels) for b in blocks])),
            "covered": np.concatenate([b.covered for b in blocks]),
        },
        index=pd.Index([f"{i}" for i in range(len(labels))]),
    )
    out = anndata.AnnData(
        np.concatenate([b.values for b in blocks]), frame, pd.DataFrame(index=gathered.data.genes.astype(str))
    )
    content = "cells" if gathered.cells else "expression"
    facts = {
        **gathered.facts(),
        "content": content,
        "folds": made.fold,
        "key": made.key,
        "control": names.control,
        "context_key": names.context,
    }
    out.uns[MARK] = {**facts, "contexts": json.dumps([b.context for b in blocks])}
    out.varm["raised"] = np.ascontiguousarray(raised.T)  # by context, in the order of uns
    return out


def raised_of(path: Path, obs: pd.DataFrame, origin: dict[str, str], size: int) -> list[int]:
    """For every row of a pair that is read back the column of ``varm["raised"]``, by its context.

    Parameters
    ----------
    path, obs, origin : the file, its rows, and what `write_pairs` said in ``uns``.
    size : columns of ``varm["raised"]``.

    Raises
    ------
    UserError
        Contexts have been renamed or are gone, so that it cannot be told by how much a gene was raised.
    """
    try:
        where = {str(name): i for i, name in enumerate(json.loads(origin.get("contexts", "")))}
    except (ValueError, TypeError, RecursionError):
        where = {}
    found = [str(name) for name in obs[key]] if (key := origin["context_key"]) in obs else []
    unknown = [name for name in dict.fromkeys(found) if name not in where]
    if not found or unknown or len(where) != size:
        raise UserError(
            f"{path}: genes of this pair are raised by amounts per context (varm['raised'], column {key!r}: "
            f"{', '.join(where) or 'names are lost'}), found {', '.join(unknown[:3]) or 'no such column or names'}; "
            "keep the pair's contexts as they were exported, or export it again"
        )
    return [where[name] for name in found]
