"""One pass over the cells of a file, or several when the sums of all groups do not fit into the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from embbench.cache.cells import CONTROL, UNUSED
from embbench.datasets._matrix import Matrix
from embbench.datasets._plan import Plan
from embbench.datasets._scale import Normaliser
from embbench.numerics.moments import GroupMoments

BUDGET = 640 * 2**20  # bytes of group sums held at once

Progress = Callable[[str, int, int], None]
Sink = Callable[[int, sparse.csr_matrix, np.ndarray], None]


@dataclass(frozen=True)
class Block:
    """Conditions that are summed up together, with the controls of their contexts.

    Parameters
    ----------
    rows, contexts : codes.
    group : shape (cells,), int32 number of each cell's group, -1 for cells of no group here.
    row_of, context_of, batch_of, half_of : shape (groups,); row is -1 for controls, half -1 for others.
    """

    rows: np.ndarray
    contexts: np.ndarray
    group: np.ndarray
    row_of: np.ndarray
    context_of: np.ndarray
    batch_of: np.ndarray
    half_of: np.ndarray


@dataclass(frozen=True)
class Sums:
    """Moments, shape (groups, g), of a block, and linear-scale means of the target genes ``columns``."""

    block: Block
    moments: GroupMoments
    linear: GroupMoments
    columns: np.ndarray


def blocks(
    plan: Plan, batch: np.ndarray, half: np.ndarray, bytes_per_group: int, budget: int = BUDGET
) -> Iterator[Block]:
    """Cut the conditions into blocks whose sums fit into ``budget`` bytes (one condition at least).

    Parameters
    ----------
    batch, half : shape (cells,); as the matching and the control halves see them.
    """
    limit = max(1, budget // bytes_per_group)
    keys, group_of_cell = _groups(plan, batch, half)
    per_row = np.bincount(keys["row"][keys["row"] >= 0], minlength=len(plan.entities))
    per_context = np.bincount(keys["context"][keys["row"] == CONTROL], minlength=len(plan.contexts))
    rows: list[int] = []
    inside: set[int] = set()
    size = 0
    for row, context in enumerate(plan.row_context.tolist()):
        more = int(per_row[row]) + (0 if context in inside else int(per_context[context]))
        if rows and size + more > limit:
            yield _block(np.array(rows), np.array(sorted(inside)), keys, group_of_cell)
            rows, inside, size = [], set(), 0
            more = int(per_row[row]) + int(per_context[context])
        rows.append(row)
        inside.add(context)
        size += more
    yield _block(np.array(rows), np.array(sorted(inside)), keys, group_of_cell)


def _groups(plan: Plan, batch: np.ndarray, half: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What each group is, and the group of each cell (-1: none)."""
    cells = np.flatnonzero(plan.row != UNUSED)
    span = (int(batch.max(initial=0)) + 1) * 4
    unit = np.where(plan.row[cells] >= 0, plan.row[cells], len(plan.entities) + plan.context[cells]).astype(np.int64)
    found, inverse = np.unique(unit * span + batch[cells].astype(np.int64) * 4 + half[cells] + 1, return_inverse=True)
    group = np.full(len(plan.row), -1, dtype=np.int32)
    group[cells] = inverse.ravel()
    unit, rest = np.divmod(found, span)
    control = unit >= len(plan.entities)
    context = np.where(control, unit - len(plan.entities), plan.row_context[np.where(control, 0, unit)])
    row = np.where(control, CONTROL, unit)
    return {"row": row, "context": context, "batch": rest // 4, "half": rest % 4 - 1}, group


def _block(rows: np.ndarray, contexts: np.ndarray, keys: dict[str, np.ndarray], group: np.ndarray) -> Block:
    chosen = np.flatnonzero(
        np.isin(keys["row"], rows) | ((keys["row"] == CONTROL) & np.isin(keys["context"], contexts))
    )
    recode = np.full(len(keys["row"]) + 1, -1, dtype=np.int32)
    recode[chosen] = np.arange(len(chosen))
    parts = (keys[k][chosen] for k in ("row", "context", "batch", "half"))
    return Block(rows, contexts, recode[group], *parts)


def sum_up(
    matrix: Matrix,
    normalise: Normaliser,
    block: Block,
    columns: np.ndarray,
    wanted: np.ndarray,
    sink: Sink | None,
    progress: Progress,
) -> Sums:
    """Read the ``wanted`` cells once and add them to the groups of a block.

    Parameters
    ----------
    columns : target genes whose linear-scale means are wanted too.
    sink : receives every chunk: first cell, normalised cells, and the mask of cells that are wanted and have counts.
    progress : called with a stage, cells done and cells in all.
    """
    moments = GroupMoments(len(block.row_of), matrix.shape[1])
    linear = GroupMoments(len(block.row_of), len(columns), squares=False)
    place = np.full(matrix.shape[1], -1, dtype=np.int32)
    place[columns] = np.arange(len(columns))
    for start, raw in matrix.chunks(wanted):
        stop = start + raw.shape[0]
        cells, alive = normalise(start, raw)
        alive &= wanted[start:stop]
        group = np.where(alive, block.group[start:stop], -1)
        moments.add(cells, group)
        if len(columns):
            linear.add(_linear(cells, place, len(columns)), group)
        if sink is not None:
            sink(start, cells, alive)
        progress("reading cells", stop, matrix.shape[0])
    return Sums(block, moments, linear, columns)


def _linear(cells: sparse.csr_matrix, place: np.ndarray, columns: int) -> sparse.csr_matrix:
    """Back-transformed values of shape (m, columns), float64, of the columns that have a ``place`` (not -1)."""
    at = place[cells.indices]
    kept = np.flatnonzero(at >= 0)
    values = np.expm1(cells.data[kept].astype(np.float64))
    return sparse.csr_matrix((values, at[kept], np.searchsorted(kept, cells.indptr)), (cells.shape[0], columns))
