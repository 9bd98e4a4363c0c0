"""Our metric variants beside the stored values of the oracles: the truth of a case, and every difference.

Shared by tests/test_metric_oracles.py and bench/metrics_page.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from oracles._metric_cases import PREDICTORS, Case, load, pair_of_arrays
from oracles._metric_expected import read

from embbench.core import CellView, Composite, Counts, DETable, Metric, Truth
from embbench.registry import Registry

ORACLES = ("cell_eval", "geomloss", "pertpy", "scperturb", "sklearn_scipy", "sklearn_scipy_de")
LOOPS = ORACLES[-2:]  # they call variants by our names
PACKAGES = {
    "cell_eval": ("cell-eval",),
    "geomloss": ("geomloss",),
    "pertpy": ("pertpy",),
    "scperturb": ("scperturb",),
    **dict.fromkeys(LOOPS, ("scikit-learn", "scipy")),
}
TOLERANCE = 1e-6
FIVE = {  # variant -> oracle, name there
    "edistance_half_euclidean_v_all": ("geomloss", "energy"),
    "edistance_euclidean_u_all": ("scperturb", "euclidean_u"),
    "edistance_euclidean_v_all": ("pertpy", "edistance"),
    "edistance_sqeuclidean_u_all": ("scperturb", "sqeuclidean_u"),
    "edistance_sqeuclidean_v_all": ("scperturb", "sqeuclidean_v"),
}


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _zero(values: np.ndarray) -> np.ndarray:
    """What cell-eval has for a condition without a significant gene."""
    return np.nan_to_num(values, nan=0.0)


def _distance(values: np.ndarray) -> np.ndarray:
    return 1.0 - values


@dataclass(frozen=True)
class Pair:
    """One variant and the peer's name for it; ``turn`` brings our value to the peer's form."""

    variant: str
    oracle: str
    name: str
    turn: Callable[[np.ndarray], np.ndarray] = _same


CELL_EVAL = {
    "pearson_all": ("pearson_delta",),
    "mse_all": ("mse", "mse_delta"),
    "mae_all": ("mae", "mae_delta"),
    **{f"discrimination_{d}_cell_eval_notarget": (f"discrimination_score_{d}",) for d in ("l1", "l2", "cosine")},
    "pearson_edistance_euclidean_v_all": ("pearson_edistance",),
    **{f"de_{kind}_{k.lower()}_cells_cell_eval_all": (f"{kind}_at_{k}",) for kind in ("overlap", "precision")
       for k in ("N", "50", "100")},
    "de_direction_match_cells_cell_eval_all": ("de_direction_match",),
    "de_spearman_lfc_sig_cells_cell_eval_all": ("de_spearman_lfc_sig",),
    "de_sig_recall_cells_all": ("de_sig_genes_recall",),
    "de_spearman_sig_cells_all": ("de_spearman_sig",),
    "de_auroc_cells_all": ("roc_auc",),
    "de_auprc_cells_all": ("pr_auc",),
    **{f"de_overlap_{k.lower()}_effects_all": (f"overlap_at_{k}_effects",) for k in ("N", "50", "100", "200")},
    "de_direction_match_all": ("de_direction_match_effects",),
    "de_spearman_lfc_sig_all": ("de_spearman_lfc_sig_effects",),
}  # fmt: skip
PERTPY = {
    "edistance_euclidean_v_all": ("edistance", _same),
    "mmd_linear_v_all": ("mmd", _same),
    "ks_gene_all": ("ks_test", _same),
    "l2_all": ("euclidean_effects", _same),
    "mse_all": ("mse_effects", _same),
    "mae_all": ("mean_absolute_error_effects", _same),
    "pearson_all": ("pearson_distance_effects", _distance),
    "spearman_all": ("spearman_distance_effects", _distance),
    "cosine_all": ("cosine_distance_effects", _distance),
    "r2_perturbench_all": ("r2_distance_effects", _distance),
}
SCPERTURB = {f"edistance_{d}_{form}_all": f"{d}_{form}" for d in ("euclidean", "sqeuclidean") for form in "uv"}


def pairs(registry: Registry) -> list[Pair]:
    """Every registered variant that an oracle knows, by variant and oracle."""
    known = {entry.name for entry in registry.entries("metrics")}
    found = [
        Pair(v, "cell_eval", name, _zero if v.startswith("de_overlap") else _same)
        for v, names in CELL_EVAL.items()
        for name in names
    ]
    found += [Pair(v, "pertpy", name, turn) for v, (name, turn) in PERTPY.items()]
    found += [Pair(v, "scperturb", name) for v, name in SCPERTURB.items()]
    found += [Pair("edistance_half_euclidean_v_all", "geomloss", "energy")]
    for oracle in LOOPS:
        found += [Pair(name, oracle, name) for name in expected(oracle)["cases"]["kang18"]["values"]["perfect"]]
    return sorted((p for p in found if p.variant in known), key=lambda p: (p.variant, p.oracle, p.name))


@functools.cache
def expected(oracle: str) -> dict:
    """The oracle's file."""
    return read(oracle)


def package(oracle: str) -> str:
    """The oracle's packages with their versions."""
    found = expected(oracle)["versions"]
    return ", ".join(f"{name} {found[name]}" for name in PACKAGES[oracle])


@dataclass(frozen=True)
class CaseCells:
    """The cells of a case as metrics read them."""

    case: Case

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells; the other half is the case's other controls."""
        return self.case.controls if half == "B" else self.case.other_controls

    def perturbed(self, row: int) -> np.ndarray:
        """Observed cells of a condition."""
        return self.case.observed[row]

    def n_controls(self, context: int, half: str = "A") -> int:
        """Number of control cells."""
        return len(self.controls(context, half))

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """No metric reads counts."""
        raise NotImplementedError("counts of a metric case")

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names of control cells."""
        return np.array([f"{half}{i}" for i in range(self.n_controls(context, half))])

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """One batch."""
        return np.zeros(self.n_controls(context, half), dtype=np.int64)

    def perturbed_batches(self, row: int) -> np.ndarray:
        """One batch."""
        return np.zeros(len(self.case.observed[row]), dtype=np.int64)


@functools.cache
def case_of(name: str) -> Case:
    """The case, with the digest that every oracle saw; ValueError when the recipe has moved."""
    case = load(name)
    for oracle in ORACLES:
        stored = expected(oracle)["cases"][name]["digest"]
        if stored != case.digest:
            raise ValueError(f"{name}: {oracle} ran on inputs {stored[:12]}, here they are {case.digest[:12]}")
    return case


@functools.cache
def truth_of(name: str) -> Truth:
    """What the case's predictions are judged against; DE is what pdex found, in float32 as cell-eval keeps it."""
    case = case_of(name)
    n = len(case.conditions)
    found = expected("cell_eval")["cases"][name]["values"]["observed"]
    with np.errstate(over="ignore"):  # what stands for infinity becomes infinite
        table = {c: np.array(found[c], dtype=np.float64).astype(np.float32) for c in ("log2_fold_change", "fdr")}
    return Truth(
        effects=case.effects(case.observed),
        unit="delta",
        context=np.zeros(n, dtype=np.int64),
        targets=case.targets,
        entities=tuple((c,) for c in case.conditions),
        baseline=case.baseline,
        centroid=case.centroid,
        centroid_truth=case.centroid_truth,
        variance=case.variance,
        labels=case.labels,
        labels_tested=case.tested,
        de=DETable(table["log2_fold_change"], table["fdr"]),
        cells=CellView(CaseCells(case), np.arange(n), half="B"),
        basis=case.basis,
    )


def score(metric: Metric, name: str, predictor: str) -> np.ndarray:
    """Values (n,) of a metric for one predictor of a case."""
    case = case_of(name)
    cells = case.predicted[predictor]
    pred = {"effects": case.effects, "population": lambda x: x, "labels": lambda _: case.probabilities(predictor)}
    return metric(pred[metric.target](cells), truth_of(name))


def difference(pair: Pair, metric: Metric, name: str) -> float:
    """Largest absolute difference over predictors and conditions; infinite when one alone is undefined."""
    worst = 0.0
    for predictor in PREDICTORS:
        theirs = expected(pair.oracle)["cases"][name]["values"][predictor].get(pair.name)
        if theirs is None:  # a peer that drops a metric that is undefined everywhere
            continue
        ours = pair.turn(score(metric, name, predictor))
        if metric.level == "gene":
            ours = ours.mean(keepdims=True)
        worst = max(worst, gap(ours, np.array(theirs, dtype=np.float64)))
    return worst


def gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; equal where both are NaN, infinite where one is."""
    if (np.isnan(ours) != np.isnan(theirs)).any():
        return float("inf")
    apart = np.abs(ours - theirs)[~np.isnan(ours)]
    return float(apart.max()) if len(apart) else 0.0


class _One:
    """Cells of a single condition."""

    def __init__(self, cells: np.ndarray) -> None:
        self.cells = cells

    def perturbed(self, row: int) -> np.ndarray:
        """The cells."""
        return self.cells


def five(registry: Registry) -> Iterator[tuple[str, str, str, float, float]]:
    """Variant, oracle, its name there, its value and ours, of the pair of arrays that five packages disagree about."""
    x, y = pair_of_arrays()
    view = CellView(_One(y), np.zeros(1, np.int64), half="B")  # type: ignore[arg-type]
    truth = Truth(np.zeros((1, y.shape[1]), np.float32), "delta", np.zeros(1, np.int64), ((),), cells=view)
    for variant, (oracle, name) in FIVE.items():
        # the published pair has 50 and 40 cells, which `cells=equal` would cut to 40
        metric = registry.parse("metrics", f"{variant}:cells=all").make()
        yield variant, oracle, name, expected(oracle)["pair_of_arrays"][name], float(metric(x[None], truth)[0])


def challenge(composite: Composite, name: str, predictor: str) -> tuple[float, float]:
    """Ours and cell-eval's Virtual Cell Challenge score of a predictor, with ``collapsed`` as the baseline.

    Both are made of cell-eval's own three metrics.
    """
    values = expected("cell_eval")["cases"][name]["values"]
    parts = ("mae", "discrimination_score_l1", "overlap_at_N")
    means = np.array([[np.mean(values[p][part]) for part in parts] for p in (predictor, "collapsed")])
    return float(composite(means[:1], means[1])[0]), values[predictor]["vcc"][0]
