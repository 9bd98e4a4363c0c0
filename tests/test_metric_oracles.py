"""Every metric variant against what cell-eval, scperturb, pertpy, geomloss, scanpy, scikit-learn and scipy returned.

The oracles' values are stored with versions and the digests of their inputs (tests/oracles); ours are computed here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import _metric_compare as compare
from oracles._metric_cases import FILES, PREDICTORS, pair_of_arrays
from scipy import stats

from embbench.core import Truth
from embbench.numerics import de, distances
from embbench.registry import default

ROOT = Path(__file__).resolve().parents[1]
PAIRS = compare.pairs(default())
METRICS = {entry.name: entry.make() for entry in default().entries("metrics")}
CASES = [
    "kang18",
    *(
        pytest.param(
            name,
            marks=[
                pytest.mark.shared,
                pytest.mark.skipif(
                    not FILES[name].is_file(), reason="the shared real data is not beside this checkout"
                ),
            ],
        )
        for name in ("papalexi", "norman")
    ),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("oracle", compare.ORACLES)
def test_variants_equal_the_oracle(oracle: str, case: str) -> None:
    apart = {(p.variant, p.name): compare.difference(p, METRICS[p.variant], case) for p in PAIRS if p.oracle == oracle}
    assert apart
    assert {pair: x for pair, x in apart.items() if not x <= compare.TOLERANCE} == {}


def test_cell_eval_is_compared_in_every_metric_it_has() -> None:
    stored = compare.expected("cell_eval")["cases"]["kang18"]["values"]["replicate"]
    used = {p.name for p in PAIRS if p.oracle == "cell_eval"} | {"vcc"}
    # one gene list longer than all genes, counts (no score), precision without p values (another k)
    left = {c for c in stored if not re.search(r"_500|_200$|nsig|_effects", c)} - used
    assert left == set()


def test_five_e_distances_of_one_pair_of_arrays_by_naming_five_variants() -> None:
    found = {variant: (theirs, ours) for variant, _, _, theirs, ours in compare.five(default())}
    assert len(found) == 5
    assert sorted(round(ours, 4) for _, ours in found.values()) == [0.7185, 1.2261, 1.4369, 8.4539, 9.6587]
    for theirs, ours in found.values():
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_peers_agree_on_the_pair_where_they_mean_the_same() -> None:
    pair = {o: compare.expected(o)["pair_of_arrays"] for o in ("scperturb", "pertpy", "geomloss")}
    assert pair["pertpy"]["edistance"] == pytest.approx(pair["scperturb"]["euclidean_v"], abs=1e-9)
    assert 2 * pair["geomloss"]["energy"] == pytest.approx(pair["scperturb"]["euclidean_v"], abs=1e-7)
    clamp = 1e-4 * (1 / 50 + 1 / 40) / 2  # geomloss takes no distance below 1e-4
    assert pair["geomloss"]["energy_clamped"] + clamp == pytest.approx(pair["geomloss"]["energy"], abs=1e-8)


def test_five_e_distances_of_samples_of_one_size_by_the_metrics_themselves() -> None:
    case, truth = compare.case_of("kang18"), compare.truth_of("kang18")
    for variant, (oracle, name) in compare.FIVE.items():
        theirs = compare.expected(oracle)["cases"]["kang18"]["values"]["mixed"][name]
        assert METRICS[variant](case.predicted["mixed"], truth) == pytest.approx(np.array(theirs), abs=1e-6)


def test_gaussian_mmd_of_one_width_is_pertpys() -> None:
    case = compare.case_of("kang18")
    for predictor in PREDICTORS:
        stored = compare.expected("pertpy")["cases"]["kang18"]["values"][predictor]["mmd_rbf"]
        pairs = zip(case.predicted[predictor].astype("f8"), case.observed.astype("f8"), strict=True)
        found = [distances.mmd_rbf(x, y, [1 / x.shape[1]], unbiased=False) for x, y in pairs]
        assert found == pytest.approx(stored, abs=1e-9)


def test_exact_wasserstein_is_the_optimum_of_the_linear_programme() -> None:
    case = compare.case_of("kang18")
    found = compare.score(METRICS["wasserstein_exact_w1_all"], "kang18", "mixed")
    for row in range(2):
        x, y = (cells[row].astype(np.float64) for cells in (case.predicted["mixed"], case.observed))
        assert found[row] == pytest.approx(stats.wasserstein_distance_nd(x, y), abs=1e-6)


def test_linear_mmd_and_squared_energy_distance_see_the_means_alone() -> None:
    x, y = pair_of_arrays()
    square = float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2))
    stored = compare.expected("pertpy")["pair_of_arrays"], compare.expected("scperturb")["pair_of_arrays"]
    assert stored[0]["mmd"] == pytest.approx(square, abs=1e-9)
    assert stored[1]["sqeuclidean_v"] == pytest.approx(2 * square, abs=1e-9)


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("case", CASES)
def test_challenge_score_is_cell_evals(case: str, predictor: str) -> None:
    for entry in default().entries("composites"):
        ours, theirs = compare.challenge(entry.make(), case, predictor)
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("test", "ties"), [("wilcoxon", False), ("wilcoxon_ties", True)])
def test_rank_sum_without_continuity_is_scanpys(case: str, test: str, ties: bool) -> None:
    stored = compare.expected("scanpy")["cases"][case]["values"][test]
    cells = compare.case_of(case)
    controls = de.SortedControls(cells.controls)
    for row, (p, adjusted) in enumerate(zip(stored["pvals"], stored["pvals_adj"], strict=True)):
        found = controls.test(cells.observed[row], continuity=False, ties=ties).p
        assert found == pytest.approx(np.array(p, dtype=np.float64), abs=1e-9, rel=1e-6)
        assert de.benjamini_hochberg(found) == pytest.approx(np.array(adjusted, dtype=np.float64), abs=1e-9, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_welch_is_scanpys(case: str) -> None:
    stored = compare.expected("scanpy")["cases"][case]["values"]["welch"]
    cells = compare.case_of(case)
    y = cells.controls.astype(np.float64)
    for row, p in enumerate(stored["pvals"]):
        x = cells.observed[row].astype(np.float64)
        found = de.welch(x.mean(0), x.var(0, ddof=1), len(x), y.mean(0), y.var(0, ddof=1), len(y))[1]
        known = np.isfinite(found)  # genes without any variance: scanpy calls them p = 1
        assert found[known] == pytest.approx(np.array(p, dtype=np.float64)[known], abs=1e-9, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_rank_sum_with_continuity_and_ties_is_pdexs(case: str) -> None:
    stored = compare.expected("cell_eval")["cases"][case]["values"]["observed"]
    cells = compare.case_of(case)
    controls = de.SortedControls(cells.controls)
    p = np.stack([controls.test(x).p for x in cells.observed])
    assert p == pytest.approx(np.array(stored["p_value"], dtype=np.float64), abs=1e-9, rel=1e-6)
    assert de.benjamini_hochberg(p) == pytest.approx(np.array(stored["fdr"], dtype=np.float64), abs=1e-9, rel=1e-6)


def test_cell_eval_takes_the_predicted_files_own_controls() -> None:
    values = compare.expected("cell_eval")["cases"]["kang18"]["values"]
    own, same = values["replicate_own_controls"], values["replicate"]
    assert own["mae"] == same["mae"]
    assert np.abs(np.subtract(own["pearson_delta"], same["pearson_delta"])).max() > 0.01


def equal_predictions(n: int) -> tuple[np.ndarray, Truth]:
    rng = np.random.default_rng(n)
    targets = tuple(np.array([i]) for i in range(n))
    truth = Truth(rng.normal(size=(n, 30)), "delta", np.zeros(n, dtype=np.int64), targets)
    return np.repeat(rng.normal(size=(1, 30)), n, axis=0), truth


@pytest.mark.parametrize("n", [2, 6, 17])
def test_equal_predictions_have_the_closed_forms(n: int) -> None:
    pred, truth = equal_predictions(n)
    assert (METRICS["rank_l2_by_truth_notarget"](pred, truth) == 0.5).all()
    assert METRICS["rank_l2_over_n_by_truth_all"](pred, truth) == pytest.approx(np.full(n, (n - 1) / (2 * n)))
    score = METRICS["discrimination_l2_cell_eval_all"](pred, truth)
    assert score.mean() == pytest.approx((n + 1) / (2 * n))
    assert score.min() == pytest.approx(1 / n)
    by_prediction = METRICS["rank_l2_by_prediction_all"](pred, truth)
    assert sorted(by_prediction) == pytest.approx(np.arange(n) / (n - 1))


def test_worst_perturbench_rank_of_six_conditions() -> None:
    effects = np.eye(6)
    truth = Truth(effects, "delta", np.zeros(6, dtype=np.int64), ((),) * 6)
    pred = -10.0 * effects  # every other prediction is nearer to a truth than its own
    assert METRICS["rank_l2_over_n_by_truth_all"](pred, truth) == pytest.approx(np.full(6, 5 / 6))
    assert (METRICS["rank_l2_by_truth_all"](pred, truth) == 1.0).all()


def test_page_is_up_to_date_with_the_registry() -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import metrics_page
    finally:
        sys.path.pop(0)
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert metrics_page.definitions(default()) in text, "run python bench/metrics_page.py"
    assert metrics_page.five(default()) in text
    assert metrics_page.ties(default()) in text
    assert metrics_page.design() in text
    rows = set(
        re.findall(r"^\| `([a-z0-9_]+)` \| ([^|]+) \| (?:`([A-Za-z0-9_]+)`|functions and loops) \|", text, re.MULTILINE)
    )
    known = {(p.variant, compare.package(p.oracle), "" if p.oracle in compare.LOOPS else p.name) for p in PAIRS}
    assert known <= {(v, package.strip(), name) for v, package, name in rows}
    powers = [int(x) for x in re.findall(r"<= 1e(-?\d+)", text)]
    assert powers
    assert max(powers) <= -6
    assert "inf |" not in text.partition("## Largest")[2]
