"""What heads are fitted to, and what selection may score training rows against."""

from __future__ import annotations

import numpy as np

from embbench.core import CellView, PerturbationDataset, Truth, UserError

BLOCK = 256  # rows that are summed at a time


def target_values(
    data: PerturbationDataset, rows: np.ndarray, target: str, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """What heads are fitted to, (m, g) float32, and its observed mask (None: everything).

    Parameters
    ----------
    data : the screen.
    rows : (m,) training rows that are fitted.
    target : ``labels`` gives labels and their tested mask, everything else effects.
    train : all training rows of the fold. An unobserved effect is the gene's mean over those that observe it: of the
        row's context, else over contexts (equally), else 0.
    """
    if target == "labels":
        if data.labels is None:
            raise UserError(f"{data.name} has no labels; choose target effects")
        return data.labels[rows].astype(np.float32), None if data.labels_tested is None else data.labels_tested[rows]
    Y, seen = data.effects[rows], observed_of(data, rows)
    if seen is None:
        return Y, None
    means = observed_means(data, data.effects, train)
    return np.where(seen, Y, means[data.context_codes[rows]].astype(np.float32)), seen


def observed_of(data: PerturbationDataset, rows: np.ndarray) -> np.ndarray | None:
    """The observed mask (m, g) of some rows; None where they observe every gene."""
    if data.observed is None or data.observed[rows].all():
        return None
    return data.observed[rows]


def observed_means(data: PerturbationDataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean of every gene of ``values`` (n, g) in every context (contexts, g), float64, over those of ``rows`` that
    observe it; where none does, the mean over contexts (equally), else 0.
    """
    sums, counts = (np.zeros((len(data.contexts), values.shape[1])) for _ in range(2))
    codes = data.context_codes[rows]
    for code in np.unique(codes):
        some = rows[codes == code]
        for start in range(0, len(some), BLOCK):
            part = some[start : start + BLOCK]
            seen = None if data.observed is None else data.observed[part]
            block = values[part] if seen is None else np.where(seen, values[part], np.float32(0))
            sums[code] += block.sum(axis=0, dtype=np.float64)
            counts[code] += len(part) if seen is None else seen.sum(axis=0)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    known = (counts > 0).sum(axis=0)
    overall = np.divide(means.sum(axis=0), known, out=np.zeros(means.shape[1]), where=known > 0)
    return np.where(counts > 0, means, overall)


def training_truth(data: PerturbationDataset, rows: np.ndarray) -> Truth:
    """The `Truth` that selection may score training rows against: effects against control half A."""
    part = data.training(rows)
    baseline = None if part.baseline is None else part.baseline[part.context_codes]
    return Truth(
        part.effects,
        part.unit,
        part.context_codes,
        part.target_columns(),
        part.entities,
        part.observed,
        baseline,
        labels=part.labels,
        labels_tested=part.labels_tested,
        cells=part.cells if isinstance(part.cells, CellView) else None,
    )
