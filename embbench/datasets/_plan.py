"""What will be computed, decided from ``obs`` alone: which cell belongs to which condition, batch and control half."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np

from embbench.cache.cells import CONTROL, UNUSED, A, B
from embbench.cache.keys import stream
from embbench.core import UserError
from embbench.datasets._h5ad import Column, column, describe, length, near
from embbench.datasets._obs import ImportReport, doses, joined, present, selected
from embbench.datasets._options import ImportOptions
from embbench.genes import Parsed, parse_perturbation

FEW_CONTROLS = 4


@dataclass(frozen=True)
class Plan:
    """Codes per cell of the file, and the conditions that they make.

    Parameters
    ----------
    contexts, batches : names; codes are positions.
    entities, dose, row_context : per condition: names, dose (NaN where none), context code.
    row : shape (cells,), int32 condition of each cell, -1 control, -2 left out.
    context, batch : shape (cells,), int32.
    half : shape (cells,), int8 of control cells (0 A, 1 B), -1 for others.
    entity_type : ``gene`` or ``compound``.
    """

    contexts: tuple[str, ...]
    batches: tuple[str, ...]
    entities: tuple[tuple[str, ...], ...]
    dose: np.ndarray
    row_context: np.ndarray
    row: np.ndarray
    context: np.ndarray
    batch: np.ndarray
    half: np.ndarray
    entity_type: str

    def labels(self) -> list[str]:
        """Condition and context of every row, for messages.

        Examples
        --------
        >>> cells, condition = np.zeros(3, np.int32), (("MYC", "TP53"),)
        >>> Plan(("K562",), ("all",), condition, np.array([np.nan]), np.array([0]), *[cells] * 4, "gene").labels()
        ['MYC+TP53 in K562']
        """
        doses = ["" if np.isnan(d) else f"@{d:g}" for d in self.dose]
        names = ["+".join(e) for e in self.entities]
        return [f"{n}{d} in {self.contexts[c]}" for n, d, c in zip(names, doses, self.row_context, strict=True)]

    def matching_batch(self, matching: str) -> np.ndarray:
        """Batches of shape (cells,), int32, as the matching sees them: one for all when pooled."""
        return np.zeros_like(self.batch) if matching == "pooled" else self.batch


@dataclass
class _Draft:
    """A plan in the making; ``keep`` shrinks step by step."""

    keep: np.ndarray
    entity: np.ndarray
    context: np.ndarray
    batch: np.ndarray
    sets: list[tuple[str, ...]]
    contexts: tuple[str, ...]
    batches: tuple[str, ...]

    @property
    def control(self) -> np.ndarray:
        return self.keep & (self.entity == CONTROL)

    @property
    def perturbed(self) -> np.ndarray:
        return self.keep & (self.entity >= 0)


def make_plan(file: h5py.File, options: ImportOptions, genes: np.ndarray, report: ImportReport) -> Plan:
    """Read the columns that matter and decide.

    Raises
    ------
    UserError
        Unknown columns or values, no control cells, or no condition left; the message says what was found.
    """
    cells = length(file, "obs")
    report.add("cells_read", cells, "cells read")
    keep = selected(file, options, cells, report)
    labels = column(file, "obs", options.perturbation_key, "--perturbation-key")
    keep &= present(labels.codes, keep, "perturbation label", report)
    parsed = _parse(file.filename, labels, keep, options, genes, report)
    of_level = [parsed.entities.get(level, ()) for level in labels.levels]
    sets = sorted({e for e in of_level if e})
    place = {e: i for i, e in enumerate(sets)}
    entity = np.array([place.get(e, CONTROL) for e in of_level], dtype=np.int32)[labels.codes]
    contexts, context = joined(file, options.context_keys, "--context-key")
    keep &= present(np.broadcast_to(context, cells), keep, "context", report)
    batches, batch = joined(file, (options.batch_key,) if options.batch_key else (), "--batch-key")
    keep &= present(np.broadcast_to(batch, cells), keep, "batch", report)
    context, batch = (np.broadcast_to(codes, cells).copy() for codes in (context, batch))
    draft = _Draft(keep, entity, context, batch, sets, contexts, batches)
    dose = doses(file, options, cells)
    if options.dose_key is not None:
        draft.keep &= present(np.where(np.isfinite(dose) | ~draft.perturbed, 0, -1), draft.keep, "dose", report)
    _drop_unmatched(draft, options, report)
    row, table = _conditions(draft, dose, options, report)
    if not len(table):
        raise UserError(f"{file.filename}: no condition is left to import. " + "; ".join(report.lines))
    return _finish(draft, row, table, parsed.entity_type, options, report)


def _parse(
    path: str, labels: Column, keep: np.ndarray, options: ImportOptions, genes: np.ndarray, report: ImportReport
) -> Parsed:
    present_levels = [labels.levels[i] for i in np.unique(labels.codes[keep])]
    for name in options.control:
        if name not in present_levels:
            raise UserError(f"{path}: --control {name!r} is not a value of {labels.name!r}{near(name, present_levels)}")
    parsed = parse_perturbation(present_levels, options.control, genes.tolist(), options.entity_type)
    controls = [level for level in present_levels if not parsed.entities[level]]
    if not controls:
        raise UserError(
            f"{path}: no control cells: none of the {len(present_levels)} values of {labels.name!r} is a control "
            f"({describe(present_levels)}); name it with --control"
        )
    report.add("control_labels", len(controls), "labels taken as controls", controls)
    report.lines.extend(parsed.report.lines())
    report.counts["labels_unmapped"] = parsed.report.unmapped
    report.names["labels_unmapped"] = [
        name for status in ("ambiguous", "collision", "unknown") for name in parsed.report.examples.get(status, ())
    ]
    return parsed


def _drop_unmatched(draft: _Draft, options: ImportOptions, report: ImportReport) -> None:
    """Leave out perturbed cells of contexts, and of batches, that cannot give controls to both halves (or at all)."""
    unmatched = options.matching in ("pooled", "batch-means")  # then any control of the context will do
    batch = np.zeros_like(draft.batch) if unmatched else draft.batch
    shape = (len(draft.contexts), len(draft.batches))
    need = 2 if options.controls == "halves" else 1
    control, perturbed = draft.control, draft.perturbed
    flat = draft.context.astype(np.int64) * shape[1] + batch
    have = np.bincount(flat[control], minlength=shape[0] * shape[1]).reshape(shape)
    want = np.bincount(flat[perturbed], minlength=shape[0] * shape[1]).reshape(shape)
    bad_context = (want.sum(axis=1) > 0) & (have.max(axis=1) < need)
    bad_batch = (want > 0) & (have < need) & ~bad_context[:, None]
    few = "controls" if need == 1 else "two controls"
    names = [draft.contexts[c] for c in np.flatnonzero(bad_context)]
    report.add("contexts_without_controls", len(names), f"contexts without {few}, dropped", names)
    report.add("cells_in_contexts_without_controls", want[bad_context].sum(), "cells in them")
    names = [f"{draft.batches[b]} of {draft.contexts[c]}" for c, b in np.argwhere(bad_batch)]
    report.add("batches_without_controls", len(names), f"batches without {few}, dropped", names)
    report.add("cells_in_batches_without_controls", want[bad_batch].sum(), "perturbed cells in them")
    bad = (bad_context[:, None] | bad_batch).ravel()
    draft.keep &= ~(perturbed & bad[np.where(draft.keep, flat, 0)])


def _conditions(
    draft: _Draft, dose: np.ndarray, options: ImportOptions, report: ImportReport
) -> tuple[np.ndarray, np.ndarray]:
    """Row (cells,) int32 (-2 elsewhere) and table (n, 3) of context, entity set and dose, sorted in that order."""
    cells = np.flatnonzero(draft.perturbed)
    row = np.full(len(draft.keep), UNUSED, dtype=np.int32)
    levels, dose_code = np.unique(dose[cells], return_inverse=True)
    key = (draft.context[cells].astype(np.int64) * len(draft.sets) + draft.entity[cells]) * max(len(levels), 1)
    found, inverse, counts = np.unique(key + dose_code.ravel(), return_inverse=True, return_counts=True)
    pair, d = np.divmod(found, max(len(levels), 1))
    c, e = np.divmod(pair, max(len(draft.sets), 1))
    large = counts >= options.min_cells
    names = [f"{'+'.join(draft.sets[e[i]])} in {draft.contexts[c[i]]}" for i in np.flatnonzero(~large)]
    report.add("conditions_small", len(names), f"conditions below {options.min_cells} cells, dropped", names)
    report.add("cells_in_small_conditions", counts[~large].sum(), "cells in them")
    place = np.where(large, np.cumsum(large) - 1, UNUSED)
    row[cells] = place[inverse.ravel()]
    return row, np.column_stack([c[large], e[large], levels[d[large]]]) if large.any() else np.zeros((0, 3))


def _finish(
    draft: _Draft, row: np.ndarray, table: np.ndarray, entity_type: str, options: ImportOptions, report: ImportReport
) -> Plan:
    used = np.unique(table[:, 0]).astype(np.int64)
    others = sorted(set(range(len(draft.contexts))) - set(used.tolist()))
    idle = [draft.contexts[c] for c in others if (draft.control & (draft.context == c)).any()]
    report.add("contexts_without_conditions", len(idle), "contexts with controls but no condition, dropped", idle)
    control = draft.control & np.isin(draft.context, used)
    half = _halves(control, draft, options.seed)
    row[control] = CONTROL
    recode = np.full(len(draft.contexts) + 1, -1, dtype=np.int32)
    recode[used] = np.arange(len(used))
    plan = Plan(
        contexts=tuple(draft.contexts[c] for c in used),
        batches=draft.batches,
        entities=tuple(draft.sets[int(e)] for e in table[:, 1]),
        dose=table[:, 2],
        row_context=recode[table[:, 0].astype(np.int64)],
        row=row,
        context=np.where(row == UNUSED, -1, recode[draft.context]).astype(np.int32),
        batch=np.where(row == UNUSED, -1, draft.batch).astype(np.int32),
        half=half,
        entity_type=entity_type,
    )
    return plan


def _halves(control: np.ndarray, draft: _Draft, seed: int) -> np.ndarray:
    """Half of every control cell, by a permutation per context and batch; an odd cell goes to the smaller half."""
    half = np.full(len(control), -1, dtype=np.int8)
    cells = np.flatnonzero(control)
    cells = cells[np.lexsort((draft.batch[cells], draft.context[cells]))]  # stable: file order within a group
    pairs = np.stack([draft.context[cells], draft.batch[cells]], axis=1)
    starts = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)]) if len(cells) else np.zeros(0, int)
    larger: dict[int, int] = {}
    for group in np.split(cells, starts[1:]) if len(cells) else []:
        c, b = int(draft.context[group[0]]), int(draft.batch[group[0]])
        order = np.random.default_rng(stream(seed, "control halves", draft.contexts[c], draft.batches[b])).permutation(
            len(group)
        )
        surplus = larger.get(c, 0)
        size = len(group) // 2 + (len(group) % 2 and surplus <= 0)
        larger[c] = surplus + 2 * size - len(group)
        half[group[order[:size]]], half[group[order[size:]]] = A, B
    return half
