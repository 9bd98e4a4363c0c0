"""Labels {-1, 0, 1} of a screen and its table of differential expression, tested on the single cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from embbench.core import CellView, PerturbationDataset, UserError, view_cells
from embbench.datasets import _rare
from embbench.datasets._label_options import MIN_CELLS, PAIRED, UNPAIRED, LabelOptions
from embbench.numerics import de

SHOWN = 8  # conditions that a report names
NOTE = "own target genes keep their labels; metrics in _notarget leave them out"

Arrays = dict[str, np.ndarray]


class _Controls:
    """What is kept of the control cells of one context and half."""

    def __init__(self, view: CellView, context: int, options: LabelOptions) -> None:
        cells = view.controls(context)
        self.options, self.cells = options, len(cells)
        self.detected, self.counts = _detected(cells), de.mean_counts(cells)
        if options.test == "wilcoxon":
            self.sorted = de.SortedControls(cells)
        elif options.test == "welch":
            self.mean, self.variance = _rare.moments(cells)
        else:
            self.donors = _rare.donor_means(cells, view.batches(context), options.donor_cells)

    def tested(self, cells: np.ndarray) -> np.ndarray:
        """Genes (g,) that enough of the cells of both groups together express."""
        return _rare.enough(_detected(cells) + self.detected, len(cells), self.cells, self.options.min_expressed)

    def p_values(self, cells: np.ndarray, batches: np.ndarray) -> tuple[np.ndarray, str]:
        """Two-sided p (g,), NaN where the test says nothing, and how it was tested."""
        test = self.options.test
        if test != "donor":
            if test == "wilcoxon":
                p = self.sorted.test(cells).p
            else:
                p = _rare.welch_p((*_rare.moments(cells), len(cells)), (self.mean, self.variance, self.cells))
            seen = _detected(cells)
            return _rare.guarded(p, seen, seen + self.detected, len(cells), self.cells, _rare.RARE[test]), test
        own = _rare.donor_means(cells, batches, self.options.donor_cells)
        both = sorted(own.keys() & self.donors.keys())
        if len(both) >= PAIRED:
            return de.paired(np.stack([own[b] - self.donors[b] for b in both]))[1], "paired over donors"
        if min(len(own), len(self.donors)) >= UNPAIRED:
            a, b = (np.stack([means[d] for d in sorted(means)]) for means in (own, self.donors))
            return de.welch(*_rare.moments(a), len(a), *_rare.moments(b), len(b))[1], "between donors"
        return np.full(cells.shape[1], np.nan), "too few donors"


def label_screen(data: PerturbationDataset, options: LabelOptions) -> PerturbationDataset:
    """The screen with labels and a DE table from its single cells.

    Tests against control half A give ``labels`` and ``labels_tested`` (training); tests of the same perturbed cells
    against half B give ``truth_labels``, ``truth_labels_tested``, ``log2fc`` and ``padj`` (what metrics judge by).
    Under shared controls both are one test against all controls, and ``meta["labels"]["controls"]`` says so. A label
    is the sign of log2fc where the adjusted p value is below the level and |log2fc| reaches its cut, else 0.

    Parameters
    ----------
    data : a screen with its perturbed and control cells.
    options : how to test.

    Returns
    -------
    PerturbationDataset
        ``meta["labels"]`` holds the options and a summary; ``meta["digest"]`` is gone, because the content changed.

    Raises
    ------
    UserError
        The screen has no (perturbed) cells, is labelled already, has no batches (``donor``), or nothing can be tested.
    """
    view = _cells(data)
    if options.test == "donor":
        _check_batches(data, view)
    shared = data.meta.get("controls") == "shared"
    halves = ("all",) if shared else ("A", "B")
    found = {half: _blank(data.effects.shape) for half in halves}
    how: Counter[str] = Counter()
    codes = data.context_codes
    for context in np.unique(codes).tolist():
        controls = {half: _Controls(replace(view, half=half), context, options) for half in halves}
        for row in np.flatnonzero(codes == context).tolist():
            how[_test_row(data, view, row, controls, found, options)] += 1
    judged, trained = found[halves[-1]], found[halves[0]]
    if not judged["labels_tested"].any():
        shown = ", ".join(f"{n} {why}" for why, n in how.items())
        raise UserError(f"labels of {data.name}: no condition could be tested ({shown}); loosen the options")
    meta = {k: v for k, v in data.meta.items() if k != "digest"}
    return replace(
        data,
        labels=trained["labels"],
        labels_tested=trained["labels_tested"],
        truth_labels=judged["labels"],
        truth_labels_tested=judged["labels_tested"],
        log2fc=judged["log2fc"],
        padj=judged["padj"],
        meta={**meta, "labels": _summary(judged, how, options, shared=shared) | {"small": _small(data, view)}},
    )


def label_report(data: PerturbationDataset) -> list[str]:
    """Lines that say how a screen was labelled and what came of it; empty for one that `label_screen` has not seen."""
    facts = data.meta.get("labels", {})
    if not facts:
        return []
    cells = "all" if facts["equal_cells"] is None else facts["equal_cells"]
    return [
        f"test: {facts['test']}, BH level {facts['level']:g} within a condition, |log2fc| >= {facts['min_log2fc']:g} "
        f"(pseudocount {facts['pseudocount']:g} CPM), cells per condition: {cells}",
        f"controls: {facts['controls']}",
        *(f"conditions: {n} {why}" for why, n in facts["conditions"].items()),
        *_notice(facts),
        f"tested genes per condition: median {facts['tested_median']:g}",
        f"genes labelled up or down per condition: median {facts['labelled_median']:g}, up {facts['up']}, "
        f"down {facts['down']} in all",
        facts["note"],
    ]


def _small(data: PerturbationDataset, view: CellView) -> dict[str, int]:
    """Cells of the conditions with fewer than `MIN_CELLS`, by name (and context where there are several)."""
    several = len(set(data.context_codes.tolist())) > 1
    names = [f"{c} ({x})" if several else c for c, x in zip(data.conditions, data.context, strict=True)]
    cells = {name: len(view.perturbed_batches(row)) for row, name in enumerate(names)}
    return {name: n for name, n in cells.items() if n < MIN_CELLS}


def _notice(facts: dict[str, Any]) -> list[str]:
    """The line that names conditions with few cells."""
    small = facts["small"]
    if not small:
        return []
    shown = ", ".join(f"{name} {n}" for name, n in list(small.items())[:SHOWN])
    more = f" and {len(small) - SHOWN} more" if len(small) > SHOWN else ""
    least = max(facts["min_cells"], facts["equal_cells"] or 0)
    what = "not tested" if least >= MIN_CELLS else f"hardly any power, and not tested below {least}"
    return [f"notice: {len(small)} conditions have fewer than {MIN_CELLS} cells ({what}): {shown}{more}"]


def _cells(data: PerturbationDataset) -> CellView:
    """The perturbed cells of all rows, opened."""
    if data.meta.get("labels"):
        raise UserError(f"labels: {data.name} is labelled already; name the screen itself, labelled:NAME")
    if data.cells is None:
        raise UserError(
            f"labels of {data.name}: this screen has no single cells; import it with --cells all, or read published "
            "labels with label_table"
        )
    kept = data.meta.get("cells")
    if kept in ("controls", "none"):
        raise UserError(f"labels of {data.name}: the screen was imported with --cells {kept}; import it with all")
    return view_cells(data.cells, np.arange(len(data)))


def _check_batches(data: PerturbationDataset, view: CellView) -> None:
    """`UserError` unless some context holds cells of two batches."""
    codes = data.context_codes
    for context in np.unique(codes).tolist():
        rows = np.flatnonzero(codes == context).tolist()
        own = [view.batches(context), *(view.perturbed_batches(row) for row in rows)]
        if len(np.unique(np.concatenate(own))) > 1:
            return
    raise UserError(
        f"labels of {data.name}: test=donor needs cells of several donors in a context; this screen has no batches; "
        "import it with --batch-key, or use test=wilcoxon or welch"
    )


def _blank(shape: tuple[int, int]) -> Arrays:
    nothing = np.full(shape, np.nan, np.float32)
    return {"labels": np.zeros(shape, np.int8), "labels_tested": np.zeros(shape, bool), "log2fc": nothing,
            "padj": nothing.copy()}  # fmt: skip


def _test_row(
    data: PerturbationDataset,
    view: CellView,
    row: int,
    controls: dict[str, _Controls],
    found: dict[str, Arrays],
    options: LabelOptions,
) -> str:
    """Fill one row of what was found against each half; how it was tested, or why not."""
    cells = view.perturbed(row)
    batches = view.perturbed_batches(row) if options.test == "donor" else np.zeros(len(cells), np.int64)
    least = max(options.min_cells, options.equal_cells or 0)
    if len(cells) < least:
        return f"not tested, fewer than {least} cells"
    if not all(control.cells for control in controls.values()):
        return "not tested, no control cells"
    if options.equal_cells is not None:
        order = np.random.default_rng([options.seed, row]).permutation(len(cells))[: options.equal_cells]
        cells, batches = (x[np.sort(order)] for x in (cells, batches))
    counts, ways = de.mean_counts(cells), []
    for half, control in controls.items():
        p, way = control.p_values(cells, batches)
        ways.append(way)
        tested = control.tested(cells) & np.isfinite(p)
        tested &= True if data.observed is None else data.observed[row]
        padj = de.benjamini_hochberg(np.where(tested, p, np.nan)).astype(np.float32)
        change = de.log2fc(counts, control.counts, options.pseudocount).astype(np.float32)
        significant = (np.nan_to_num(padj, nan=1.0) < options.level) & (np.abs(change) >= options.min_log2fc)
        values = {"labels": np.where(significant, np.sign(change), 0), "labels_tested": tested, "padj": padj,
                  "log2fc": np.where(tested, change, np.nan)}  # fmt: skip
        for name, value in values.items():
            found[half][name][row] = value
    if "too few donors" in ways:
        return f"not tested, fewer than {PAIRED} shared or {UNPAIRED} donors"
    return " / ".join(dict.fromkeys(ways))


def _detected(cells: np.ndarray) -> np.ndarray:
    """Cells that express each gene, (g,)."""
    return (cells > 0).sum(axis=0)


def _summary(judged: Arrays, how: Counter[str], options: LabelOptions, *, shared: bool) -> dict[str, object]:
    """Facts for ``meta``."""
    tested = judged["labels_tested"].sum(axis=1)
    significant = (np.nan_to_num(judged["padj"], nan=1.0) < options.level).sum(axis=1)
    rows = tested > 0
    labels = judged["labels"]
    return {
        **asdict(options),
        "controls": "shared: training and truth labels are one test against all controls"
        if shared
        else "half A for training labels, half B for truth labels",
        "conditions": dict(sorted(how.items())),
        "rows_untested": int((~rows).sum()),
        "tested_median": float(np.median(tested[rows])),
        "significant_median": float(np.median(significant[rows])),
        "labelled_median": float(np.median((labels != 0).sum(axis=1)[rows])),
        "up": int((labels > 0).sum()),
        "down": int((labels < 0).sum()),
        "note": NOTE,
    }
