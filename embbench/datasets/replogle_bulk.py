"""Pseudobulk as Replogle et al. 2022 published it: one row per targeted promoter, mean counts or mean z-scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.cache.keys import stream
from embbench.cache.screens import string_array
from embbench.core import PerturbationDataset, UserError
from embbench.datasets._bulk import CONTROL, COUNTS, ZSCORES, Rows, read_rows
from embbench.datasets._given import text, whole
from embbench.datasets._obs import ImportReport
from embbench.datasets._options import CONTROLS
from embbench.datasets._published import Published, split_options
from embbench.genes import parse_perturbation

CONTENT = (COUNTS, ZSCORES)
Groups = Mapping[tuple[str, ...], np.ndarray]  # perturbed gene -> its rows


class ReplogleBulk:
    """One pseudobulk file; rows of one gene are brought together, weighted by their cells.

    Row names are ``NUMBER_SYMBOL_TRANSCRIPT_ENSEMBL``; those of control guides have ``non-targeting`` in all three
    places. Of raw files ``X`` is the mean count of a cell. An effect is then the difference of ``log1p`` of two mean
    profiles scaled to 1e4, which is not the difference of means of ``log1p`` of cells; and it is not matched by batch,
    because rows hold cells of all gem groups. Of normalized files ``X`` is the mean over cells of z-scores that were
    taken per gem group against controls; no control is left to subtract.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`; one file is read.
    content : ``counts`` (unit delta) or ``zscores`` (unit zscore).
    context : the cell line.
    controls : ``halves`` (rows of control guides in two halves: A for effects, B for truth) or ``shared``; counts only.
    min_cells : genes with fewer cells in all their rows are dropped.
    seed : of the halves.
    facts : for ``meta``: ``default_split``, ``default_context_embedding``.

    Raises
    ------
    ValueError
        A parameter is none of its choices or of another type, no context, or not exactly one file is named.

    References
    ----------
    Replogle et al. (2022), Cell 185:2559, doi 10.1016/j.cell.2022.05.013; files: figshare+ 20029387.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        content: str,
        context: str,
        root: str = "",
        only: str = "",
        controls: str = "halves",
        min_cells: int = 10,
        seed: int = 0,
        **facts: Any,
    ) -> None:
        for option, value, allowed in (("content", content, CONTENT), ("controls", controls, CONTROLS)):
            if value not in allowed:
                raise ValueError(f"ReplogleBulk: {option} must be one of {', '.join(allowed)}, got {value!r}")
        unknown, self.facts = split_options(facts)
        if unknown:
            raise ValueError(f"ReplogleBulk: unknown parameter {', '.join(sorted(unknown))}")
        self.published = Published.of(name, files, root, only)
        if len(self.published.stored) != 1:
            raise ValueError(f"ReplogleBulk: expected one file, got {', '.join(self.published.stored) or 'none'}")
        if not text("context", context):
            raise ValueError("ReplogleBulk: context must name the cell line, got ''")
        self.content, self.context, self.controls = content, context, controls
        self.min_cells, self.seed = whole("min_cells", min_cells, 1), whole("seed", seed)

    def check(self) -> list[str]:
        """What the file holds, line by line; `UserError`: it is not as published."""
        data = self.load()
        shape = f"{len(data):,} perturbed genes x {len(data.genes):,} genes, {self.content} ({data.unit})"
        return [shape, *data.meta["import_report"]]

    def load(self) -> PerturbationDataset:
        """The screen, shape (n, g), one row per perturbed gene.

        Raises
        ------
        UserError
            The file is not fetched, lacks rows of control guides, or holds values of another kind.
        """
        self.published.require()
        report = ImportReport()
        stored = self.published.stored[0]
        rows = read_rows(self.published.name, self.published.path(stored), self.content, report)
        known = [label for label in rows.labels if label]
        parsed = parse_perturbation(known, (CONTROL,), rows.genes.tolist(), entity_type="gene")
        report.lines.extend(parsed.report.lines())
        members: dict[tuple[str, ...], list[int]] = {}
        for i, label in enumerate(rows.labels):
            if label:
                members.setdefault(parsed.entities[label], []).append(i)
        control = np.array(members.pop(()), dtype=np.int64)
        groups = self._large(rows, members, report)
        effects_of = self._scores if self.content == ZSCORES else self._deltas
        made = effects_of(rows, groups, control, report)
        facts = {"source": stored, "source_sha256": self.published.digests()[stored], "min_cells": self.min_cells}
        cells = np.array([rows.cells[at].sum() for at in groups.values()])
        return PerturbationDataset(
            name=self.published.name,
            entities=tuple(groups),
            entity_type="gene",
            context=string_array([self.context] * len(groups)),
            n_cells=np.rint(cells).astype(np.int64) if rows.counted else None,
            meta={**facts, **made.pop("meta"), **report.facts(), **self.facts},
            **made,
        )

    def _large(self, rows: Rows, members: Mapping[tuple[str, ...], Sequence[int]], report: ImportReport) -> Groups:
        """Perturbed genes with enough cells, sorted, and the rows of each."""
        groups = {e: np.array(members[e]) for e in sorted(members)}
        small = [e for e, at in groups.items() if rows.counted and rows.cells[at].sum() < self.min_cells]
        names = ["+".join(e) for e in small]
        report.add("conditions_small", len(small), f"genes with fewer than {self.min_cells} cells, dropped", names)
        for each in small:
            del groups[each]
        if len(groups) < 2:
            raise UserError(
                f"{self.published.name}: expected two or more perturbed genes, found {len(groups)}. "
                + "; ".join(report.lines)
            )
        several = [at for at in groups.values() if len(at) > 1]
        joined = sum(map(len, several))
        report.add("rows_joined", joined, f"rows of {len(several):,} genes with several, averaged by cells")
        return groups

    def _scores(self, rows: Rows, groups: Groups, control: np.ndarray, report: ImportReport) -> dict[str, Any]:
        """Mean z-scores over cells; entries that are not finite in any row of a gene are not observed."""
        report.add("control_rows", len(control), "rows of control guides, left out (scores are against controls)")
        effects = np.stack([rows.mean(at) for at in groups.values()]).astype(np.float32)
        kept = np.isfinite(effects).any(axis=0)
        report.add("genes_not_finite", int((~kept).sum()), "genes without a finite entry, dropped")
        effects = effects[:, kept]
        observed = np.isfinite(effects)
        report.add("entries_not_finite", int((~observed).sum()), "entries that are not finite, not observed")
        return {
            "effects": effects,
            "observed": None if observed.all() else observed,
            "unit": "zscore",
            "genes": rows.genes[kept],
            "meta": {"controls": "shared", "effect": "mean over cells of z-scores per gem group against controls"},
        }

    def _deltas(self, rows: Rows, groups: Groups, control: np.ndarray, report: ImportReport) -> dict[str, Any]:
        """Profiles minus those of control rows, of half A for effects and of half B for the truth."""
        if self.controls == "halves" and len(control) < 2:
            raise UserError(
                f"{self.published.name}: expected two or more rows of control guides for two halves, found "
                f"{len(control)}; use controls=shared"
            )
        order = np.random.default_rng(stream(self.seed, "control halves", self.context)).permutation(control)
        cut = (len(order) + 1) // 2
        a, b = (order, order) if self.controls == "shared" else (order[:cut], order[cut:])
        report.add("control_rows", len(control), f"rows of control guides ({self.controls})")
        report.lines.append("size factor: sum over the panel (genes of the file)")
        base, base_truth = rows.profile(np.sort(a)), rows.profile(np.sort(b))
        effects = np.empty((len(groups), len(rows.genes)), dtype=np.float32)
        truth = np.empty_like(effects)
        for i, at in enumerate(groups.values()):
            level = rows.profile(at)
            effects[i], truth[i] = level - base, level - base_truth
        what = "difference of log1p of mean profiles scaled to 1e4, not of means of log1p of cells"
        return {
            "effects": effects,
            "truth": truth,
            "unit": "delta",
            "genes": rows.genes,
            "baseline": base[None].astype(np.float32),
            "baseline_truth": base_truth[None].astype(np.float32),
            "meta": {"controls": self.controls, "matching": "pooled", "size_factor": "panel", "effect": what},
        }
