"""From an open `.h5ad` file to a screen: plan, passes over the cells, effects, E-test, and what the user is told."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from embbench.cache.cells import BOTH, CONTROL, UNUSED, CellsWriter, cells_writer
from embbench.cache.screens import string_array, with_digest
from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import with_scratch
from embbench.datasets._effects import Effects, fill
from embbench.datasets._h5ad import column, column_names, index_names, length
from embbench.datasets._matrix import Matrix, open_matrix, packed_notice
from embbench.datasets._obs import ImportReport, covariate, depths, gene_names
from embbench.datasets._options import ImportOptions
from embbench.datasets._plan import FEW_CONTROLS, Plan, make_plan
from embbench.datasets._scale import Normaliser, detect_scale
from embbench.datasets._significance import Significance
from embbench.datasets._stream import Progress, Sink, blocks, sum_up


@dataclass
class _Job:
    """What the steps of one import share."""

    file: h5py.File
    options: ImportOptions
    matrix: Matrix
    genes: np.ndarray
    names: np.ndarray
    plan: Plan
    normalise: Normaliser
    report: ImportReport
    progress: Progress

    @property
    def batch(self) -> np.ndarray:
        """Batches of shape (cells,) as the matching sees them."""
        return self.plan.matching_batch(self.options.matching)

    @property
    def half(self) -> np.ndarray:
        """Halves of shape (cells,) as the effects see them."""
        half = self.plan.half
        return np.where(half >= 0, BOTH, half).astype(np.int8) if self.options.controls == "shared" else half


def compute(
    file: h5py.File, options: ImportOptions, folder: Path, source: dict[str, Any], progress: Progress
) -> PerturbationDataset:
    """The screen of an open file, with its digest; its cells are written to ``folder/cells.h5``.

    Raises
    ------
    UserError
        See `embbench.datasets._import.import_h5ad`.
    """
    job = _start(file, options, folder, progress)
    plan, targets = job.plan, _targets(job.plan, job.genes)
    tests = Significance(plan, len(job.genes), options.seed) if options.etest else None
    effects = Effects.empty(len(plan.entities), len(plan.contexts), len(job.genes))
    cells_digest = None
    with contextlib.ExitStack() as stack:
        writer = None
        if options.cells != "none":
            writer = stack.enter_context(cells_writer(folder / "cells.h5", len(job.genes)))
        _passes(job, effects, targets, writer, tests)
        keep = _kept(job, effects)
        contexts = np.unique(plan.row_context[keep])
        if writer is not None:
            cells_digest = writer.finish(
                _recode(keep, len(plan.entities), UNUSED), _recode(contexts, len(plan.contexts), -1)
            )
            job.report.lines.append(writer.summary())
    covariates = _covariates(job, effects, tests, keep)
    _tell(job, effects, contexts)
    meta = {**source, **_facts(job), "cells_digest": cells_digest, **job.report.facts()}
    return with_digest(_screen(job, effects, keep, contexts, covariates, meta))


def _start(file: h5py.File, options: ImportOptions, folder: Path, progress: Progress) -> _Job:
    report = ImportReport(list(getattr(file, "notes", ())))
    names = index_names(file, "var")
    if options.gene_key is not None:
        names = column(file, "var", options.gene_key, "--gene-key").text()
    matrix = open_matrix(file, options.layer, (length(file, "obs"), len(names)))
    report.lines.extend(packed_notice(matrix))
    scale = detect_scale(matrix, options.scale, file.filename, column_names(file, "obs"))
    genes = gene_names(file.filename, names, report)
    plan = make_plan(file, options, genes, report)
    depth = depths(file, options, plan.row != UNUSED) if scale == "counts" else None
    with_scratch(matrix, folder)
    normalise = Normaliser(file.filename, matrix.label, scale, options.scale != "auto", depth, genes)
    return _Job(file, options, matrix, genes, index_names(file, "obs"), plan, normalise, report, progress)


def _targets(plan: Plan, genes: np.ndarray) -> tuple[np.ndarray, ...]:
    place = {gene: i for i, gene in enumerate(genes.tolist())} if plan.entity_type == "gene" else {}
    return tuple(np.array([place[e] for e in row if e in place], dtype=np.int64) for row in plan.entities)


def _passes(
    job: _Job, effects: Effects, targets: tuple[np.ndarray, ...], writer: CellsWriter | None, tests: Significance | None
) -> None:
    """Fill the effects; the first pass reads all cells, further ones only those of their block."""
    columns = np.unique(np.concatenate(targets)) if targets else np.zeros(0, np.int64)
    width = 16 * len(job.genes) + 8 * len(columns)
    wanted = job.plan.row != UNUSED
    dead = 0

    def first(start: int, cells: sparse.csr_matrix, alive: np.ndarray) -> None:
        nonlocal dead
        dead += int(wanted[start : start + len(alive)].sum() - alive.sum())
        if tests is not None:
            tests.collect(start, cells, alive)
        if writer is not None:
            _write(writer, job, start, cells, alive)

    sink: Sink | None = first
    for block in blocks(job.plan, job.batch, job.half, width):
        needed = wanted if sink is not None else block.group >= 0
        fill(
            effects,
            sum_up(job.matrix, job.normalise, block, columns, needed, sink, job.progress),
            targets,
            job.options.matching,
        )
        sink = None
    job.report.add("cells_without_counts", dead, "cells without counts, dropped")


def _write(writer: CellsWriter, job: _Job, start: int, cells: sparse.csr_matrix, alive: np.ndarray) -> None:
    stop = start + len(alive)
    chosen = alive & (job.plan.row[start:stop] == CONTROL) if job.options.cells == "controls" else alive
    here = np.flatnonzero(chosen)
    codes = {"row": job.plan.row, "context": job.plan.context, "half": job.half, "batch": job.plan.batch}
    cells = cells if len(here) == len(alive) else cells[here]
    total = job.normalise.totals[start][here]
    writer.append(
        cells, job.names[start + here], total=total, **{name: values[start + here] for name, values in codes.items()}
    )


def _kept(job: _Job, effects: Effects) -> np.ndarray:
    """Rows that are still large enough without their empty cells, and knocked down as far as asked for."""
    options, labels = job.options, job.plan.labels()
    large = effects.n_cells >= options.min_cells
    names = [labels[i] for i in np.flatnonzero(~large)]
    job.report.add("conditions_small", len(names), "conditions too small without their empty cells, dropped", names)
    keep = large
    if options.max_residual is not None:
        weak = large & (effects.residual > options.max_residual)
        names = [f"{labels[i]}: {effects.residual[i]:.2f}" for i in np.flatnonzero(weak)]
        what = f"conditions whose target keeps more than {options.max_residual:g} of its expression, dropped"
        job.report.add("conditions_not_knocked_down", len(names), what, names)
        unknown = int((large & np.isnan(effects.residual)).sum())
        job.report.add("conditions_target_not_measured", unknown, "conditions whose target is not measured, kept")
        keep = large & ~weak
    if not keep.any():
        raise UserError(f"{job.file.filename}: no condition is left to import. " + "; ".join(job.report.lines))
    return np.flatnonzero(keep)


def _recode(kept: np.ndarray, size: int, missing: int) -> np.ndarray:
    out = np.full(size, missing, dtype=np.int32)
    out[kept] = np.arange(len(kept))
    return out


def _covariates(job: _Job, effects: Effects, tests: Significance | None, keep: np.ndarray) -> dict[str, np.ndarray]:
    out = {}
    labels = job.plan.labels()
    for name in job.options.covariates:
        out[name] = covariate(job.file, name, job.plan.row, labels)[keep]
    if np.isfinite(effects.residual[keep]).any():
        out["target_residual"] = effects.residual[keep]
    if tests is not None:
        out["etest_p"] = tests.p_values(job.matrix, job.normalise, job.batch, job.progress)[keep]
    return out


def _tell(job: _Job, effects: Effects, contexts: np.ndarray) -> None:
    """The last lines of the report: scale, size factors, control cells."""
    report, plan = job.report, job.plan
    report.lines.append(f"scale: {job.normalise.scale} ({'told' if job.normalise.told else 'detected'})")
    if job.normalise.scale == "lognorm":
        report.lines.append(job.normalise.spread())
        if job.options.size_factor:
            report.lines.append(f"size factor {job.options.size_factor!r} not used: the values are log-normalised")
    elif job.options.size_factor is None:
        report.lines.append("size factor: sum over the panel (no total-count column was named)")
    few = [c for c in contexts.tolist() if effects.controls[c].min() < FEW_CONTROLS]
    names = [f"{plan.contexts[c]}: {effects.controls[c].min()}" for c in few]
    report.add("contexts_few_controls", len(few), f"contexts with fewer than {FEW_CONTROLS} controls in a half", names)
    report.add("control_cells", int((plan.row == CONTROL).sum()), "control cells")
    report.add("perturbed_cells", int(effects.n_cells.sum()), "perturbed cells used")


def _facts(job: _Job) -> dict[str, Any]:
    """How the screen was made, for ``meta``."""
    options = job.options
    depth = "none" if job.normalise.scale == "lognorm" else options.size_factor or "panel"
    names = ("controls", "matching", "min_cells", "max_residual", "layer", "seed", "cells", "select", "flags", "dated")
    keys = ("perturbation_key", "batch_key", "dose_key", "gene_key")
    own = {name: getattr(options, name) for name in (*names, *keys)}
    return {**own, "context_keys": list(options.context_keys), "scale": job.normalise.scale, "size_factor": depth}


def _screen(
    job: _Job,
    effects: Effects,
    keep: np.ndarray,
    contexts: np.ndarray,
    covariates: dict[str, np.ndarray],
    meta: dict[str, Any],
) -> PerturbationDataset:
    plan, whole = job.plan, len(keep) == len(job.plan.entities)
    effect, truth, variance = (a if whole else a[keep] for a in (effects.effects, effects.truth, effects.variance))
    return PerturbationDataset(
        name=Path(meta["source"]).stem,
        effects=effect,
        truth=truth,
        truth_variance=variance,
        unit="delta",
        genes=job.genes,
        entities=tuple(plan.entities[i] for i in keep),
        entity_type=plan.entity_type,
        context=string_array(plan.contexts[c] for c in plan.row_context[keep]),
        contexts=tuple(plan.contexts[c] for c in contexts),
        baseline=effects.baseline[contexts],
        baseline_truth=effects.baseline_truth[contexts],
        baseline_variance=effects.baseline_variance[contexts],
        n_cells=effects.n_cells[keep],
        dose=plan.dose[keep] if job.options.dose_key else None,
        covariates=covariates,
        meta=meta,
    )
