"""Ceilings: against closed forms of Gaussian cells, the known effects of simulated screens, and at the edges."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from embbench import registry as registries
from embbench.checks._toy import toy_screen
from embbench.core import Counts, DETable, Metric, PerturbationDataset, Truth
from embbench.datasets.labelled import Labelled
from embbench.datasets.simulator import Simulator
from embbench.grid import resample
from embbench.grid.ceiling import VARIANTS, Ceiling, ceilings
from embbench.grid.resample import Resampler
from embbench.grid.score import truth_of
from embbench.numerics.resample import Strata, batch_scale, draw_batches
from embbench.numerics.shrinkage import fit_mixture


@dataclass(frozen=True)
class Given:
    """Cells as they are given: arrays and batch codes per row, and per half of the one context."""

    rows: list[np.ndarray]
    row_batches: list[np.ndarray]
    control: dict[str, np.ndarray]
    control_batches: dict[str, np.ndarray]

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        return self.control[half]

    def perturbed(self, row: int) -> np.ndarray:
        return self.rows[row]

    def n_controls(self, context: int, half: str = "A") -> int:
        return len(self.control[half])

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        raise NotImplementedError(f"counts of context {context}")

    def names(self, context: int, half: str = "A") -> np.ndarray:
        return np.arange(len(self.control[half])).astype(str)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        return self.control_batches[half]

    def perturbed_batches(self, row: int) -> np.ndarray:
        return self.row_batches[row]


SD = 0.5


def gaussian(
    n: int = 30, g: int = 300, per_batch: int = 12, batches: int = 2, controls: int = 40, between: float = 0.0, *,
    seed: int = 0, effect: float = 0.15, shared: bool = False,
) -> PerturbationDataset:  # fmt: skip
    """Cells of standard deviation ``SD`` around Gaussian effects, which differ between batches by ``between``."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, effect, (n, g))
    shift = rng.normal(0, 1.0, (batches, g))  # of a batch, the same for all of its cells
    code = np.repeat(np.arange(batches), per_batch)
    inter = rng.normal(0, between, (n, batches, g))
    rows = [
        (signal[i] + shift[code] + inter[i][code] + rng.normal(0, SD, (len(code), g))).astype(np.float32)
        for i in range(n)
    ]
    where = np.repeat(np.arange(batches), controls)
    control = {h: (shift[where] + rng.normal(0, SD, (len(where), g))).astype(np.float32) for h in "AB"}
    if shared:
        control["A"] = control["B"]
    return made(rows, [code] * n, control, dict.fromkeys("AB", where), signal, shared=shared)


def made(rows, codes, control, where, signal, *, matching="batch", shared=False) -> PerturbationDataset:
    """A screen whose truth is what the cells give."""
    n, g = signal.shape
    data = PerturbationDataset(
        name="given",
        effects=np.zeros((n, g), np.float32),
        unit="delta",
        genes=np.array([f"G{i}" for i in range(g)]),
        entities=tuple((f"X{i}",) for i in range(n)),
        context=np.full(n, "one"),
        baseline=control["A"].mean(axis=0)[None],
        baseline_truth=control["B"].mean(axis=0)[None],
        cells=Given(rows, codes, control, where),
        meta={"controls": "shared" if shared else "halves", "matching": matching, "digest": "given"},
    )
    at = np.arange(n)
    point = Resampler(data, truth_of(data, at, at), at).point
    return replace(data, effects=point, truth=point)


def metric(name: str) -> Metric:
    return registries.default().parse("metrics", name).make()


def ceilings_of(data: PerturbationDataset, *names: str, **more) -> dict[tuple[str, str], Ceiling]:
    rows = np.arange(len(data))
    metrics = {name: metric(name) for name in names} | more.pop("extra", {})
    truth = more.pop("truth", None) or truth_of(data, rows, rows, cells=more.pop("cells", False))
    return {(c.metric, c.variant): c for c in ceilings(data, truth, rows, rows, metrics, **more)}


def mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


# ------------------------------------------------------------------------------------------------ closed forms


def test_gaussian_cells_give_the_closed_forms():
    data = gaussian()
    v = SD**2 * (1 / 24 + 1 / 80)  # two equal batches of 12 and 40
    found = ceilings_of(data, "l2_all", "rmse_all", "mse_all", "pearson_all", "cosine_all", "mae_all", "r2_effect_all")
    at = {name: mean(c.values) for (name, variant), c in found.items() if variant == "noise_free"}
    reliability = 0.15**2 / (0.15**2 + v)
    assert at["l2_all"] == pytest.approx(np.sqrt(300 * v), rel=0.02)
    assert at["rmse_all"] == pytest.approx(np.sqrt(v), rel=0.02)
    assert at["mse_all"] == pytest.approx(v, rel=0.04)
    assert at["pearson_all"] == pytest.approx(np.sqrt(reliability), rel=0.02)
    assert at["cosine_all"] == pytest.approx(np.sqrt(reliability), rel=0.02)
    assert at["mae_all"] == pytest.approx(np.sqrt(2 / np.pi * v), rel=0.02)
    assert at["r2_effect_all"] == pytest.approx(1 - v / (0.15**2 + v), rel=0.05)
    assert "fewer than 5 batches" in found["mae_all", "noise_free"].note
    assert found["l2_all", "noise_free"].bias is None
    assert abs(found["mae_all", "noise_free"].bias) < 0.02 * at["mae_all"]


def test_the_other_variants_have_their_own_closed_forms():
    v = SD**2 * (1 / 24 + 1 / 80)
    found = ceilings_of(gaussian(), "l2_all", "pearson_all")
    half = found["l2_all", "replicate_vs_replicate"]
    assert mean(half.values) == pytest.approx(2 * np.sqrt(300 * v), rel=0.02)  # two halves, twice the variance each
    signal = 0.15**2
    assert mean(found["pearson_all", "replicate_vs_replicate"].values) == pytest.approx(
        signal / (signal + 2 * v), rel=0.04
    )
    lost = SD**2 * (11 / 12 / 24 + 39 / 40 / 80)  # a draw of n from n has (n - 1) / n of the variance
    twin = found["l2_all", "cell_eval"]
    assert mean(twin.values) == pytest.approx(np.sqrt(2 * 300 * lost), rel=0.02)
    assert mean(twin.values) < mean(half.values)
    assert "optimistic" in twin.note
    cole = found["l2_all", "cole_q0.9"]
    assert np.sqrt(300 * lost) < mean(cole.values) < 1.25 * np.sqrt(300 * lost)
    assert "quantile 0.9" in cole.note
    assert "quantile 0.1" in found["pearson_all", "cole_q0.9"].note
    assert [v for _, v in found][:4] == ["noise_free", "replicate_vs_replicate", "cole_q0.9", "cell_eval"]


SCREENS = [
    {"n_perturbations": 40, "n_genes": 200, "seed": 1},
    {"n_perturbations": 40, "n_genes": 300, "n_contexts": 1, "n_batches": 3, "seed": 2, "cells_per_perturbation": 40},
    {"n_perturbations": 30, "n_genes": 150, "n_batches": 6, "seed": 3, "combos": 6, "controls_per_context": 240},
]


@pytest.mark.parametrize("params", SCREENS, ids=["two_contexts", "few_cells", "combos_six_batches"])
def test_ceilings_from_cells_are_within_5_percent_of_the_known_ones(params):
    data = Simulator(level="cells", **params).load()
    names = ("l2_all", "l2_notarget", "pearson_all", "pearson_notarget")
    rows = np.arange(len(data))
    found = ceilings_of(data, *names, variants=("noise_free", "from_cells"))
    np.testing.assert_allclose(Resampler(data, truth_of(data, rows, rows), rows).point, data.truth, atol=2e-5)
    for name in names:
        known, cells = found[name, "noise_free"], found[name, "from_cells"]
        assert known.note == "simulated truth"
        np.testing.assert_array_equal(known.values, metric(name)(data.noise_free, truth_of(data, rows, rows)))
        assert mean(cells.values) == pytest.approx(mean(known.values), rel=0.05), name


def test_without_the_known_effect_the_default_is_from_cells():
    data = Simulator(level="cells", **SCREENS[1]).load()
    known = ceilings_of(data, "l2_all", variants=("noise_free", "from_cells"))
    blind = ceilings_of(replace(data, noise_free=None), "l2_all")
    assert ("l2_all", "from_cells") not in blind
    np.testing.assert_array_equal(blind["l2_all", "noise_free"].values, known["l2_all", "from_cells"].values)


def test_shared_controls_lower_the_l2_ceiling():
    split = mean(ceilings_of(gaussian(), "l2_all")["l2_all", "noise_free"].values)
    data = gaussian(shared=True)
    fixed = ceilings_of(data, "l2_all", "mae_all")
    assert mean(fixed["l2_all", "noise_free"].values) == pytest.approx(np.sqrt(300 * SD**2 / 24), rel=0.02)
    assert mean(fixed["l2_all", "noise_free"].values) < split
    assert "shared controls fixed" in fixed["l2_all", "noise_free"].note
    assert mean(fixed["mae_all", "noise_free"].values) == pytest.approx(np.sqrt(2 / np.pi * SD**2 / 24), rel=0.02)


@pytest.mark.parametrize("weights", ["equal", "size"])
def test_effects_that_differ_between_batches_need_the_batch_stage(weights):
    between, b, per = 0.3, 10, 6
    data = gaussian(n=20, g=200, per_batch=per, batches=b, between=between)
    v = SD**2 * (1 / (b * per) + 1 / (b * 40))
    found = ceilings_of(data, "mae_all", weights=weights, variants=("noise_free",))["mae_all", "noise_free"]
    assert mean(found.values) == pytest.approx(np.sqrt(2 / np.pi * (v + between**2 / b)), rel=0.07)
    assert mean(found.values) > 1.5 * np.sqrt(2 / np.pi * v)
    assert found.note.startswith("resampled batches and cells")
    same = ceilings_of(gaussian(n=20, g=200, per_batch=per, batches=b), "mae_all", weights=weights)
    assert mean(same["mae_all", "noise_free"].values) == pytest.approx(np.sqrt(2 / np.pi * v), rel=0.05)
    few = ceilings_of(gaussian(n=20, g=200, per_batch=15, batches=4, between=between), "mae_all")[
        "mae_all", "noise_free"
    ]
    assert "cells only (fewer than 5 batches)" in few.note


def test_the_measured_bias_is_the_known_one():
    """The square of the size of the stand-in: E (|t|^2 - V)^2 is above |signal|^4 by the variance of |t|^2."""
    g, n = 40, 180
    data = gaussian(n=n, g=g, batches=1, per_batch=20, controls=2000, effect=0.2, seed=3)
    size = {"size_all": Metric(lambda p, t, m: np.square(np.square(p.astype(float)).sum(axis=1)), "high", "test")}
    found = []
    for rows in np.arange(n).reshape(-1, 3):  # few rows: no effect borrows from the others
        truth = truth_of(data, rows, rows)
        found += ceilings(data, truth, rows, rows, size, outer=60, inner=1, variants=("noise_free",))
    signal = np.square(np.random.default_rng(3).normal(0, 0.2, (n, g))).sum(axis=1)
    v = SD**2 * (1 / 20 + 1 / 2000)
    known = 2 * g * v**2 + 4 * signal.mean() * v
    assert np.mean([c.bias for c in found]) == pytest.approx(known, rel=0.25)
    assert np.mean([c.values for c in found]) == pytest.approx(np.square(signal).mean(), rel=0.06)


# ------------------------------------------------------------------------------------------- ranks and held tests


def test_ranks_from_cells_are_near_the_known_ones():
    """The observed effect itself would retrieve perfectly; its shrunken stand-in does not."""
    name, top = "rank_l2_by_truth_notarget", "pearson_top20"
    data = Simulator(level="cells", **SCREENS[2]).load()
    found, rows = ceilings_of(data, name, top, variants=("noise_free", "from_cells")), np.arange(len(data))
    known, cells = (mean(found[name, v].values) for v in ("noise_free", "from_cells"))
    assert known > 0.01
    assert cells == pytest.approx(known, abs=0.01)
    assert (
        mean(metric(name)(Resampler(data, truth_of(data, rows, rows), rows).point, truth_of(data, rows, rows))) == 0.0
    )
    known, cells = (mean(found[top, v].values) for v in ("noise_free", "from_cells"))
    assert cells == pytest.approx(known, rel=0.1)
    assert found[top, "from_cells"].bias > 0  # the stand-in is still too easy to retrieve, and that is measured


def halved(data: PerturbationDataset) -> tuple[np.ndarray, np.ndarray]:
    """Test and training rows: no entity is in both."""
    names = np.array(["+".join(e) for e in data.entities])
    unique = np.unique(names)
    test = np.isin(names, np.random.default_rng(0).permutation(unique)[: len(unique) // 2])
    return np.flatnonzero(test), np.flatnonzero(~test)


def both(data: PerturbationDataset, *names: str) -> dict[str, tuple[float, float]]:
    """Metric -> mean ceiling, known and from cells, of half of the conditions."""
    rows, train = halved(data)
    metrics = {name: metric(name) for name in names}
    found = ceilings(data, truth_of(data, rows, train), rows, train, metrics, variants=("noise_free", "from_cells"))
    at = {(c.metric, c.variant): mean(c.values) for c in found}
    return {name: (at[name, "noise_free"], at[name, "from_cells"]) for name in names}


@pytest.mark.parametrize("controls", [100, 1000])
def test_systema_is_free_of_control_noise(controls):
    """Control noise cancels against the centroid's on both sides, however few controls there are."""
    params = {"n_perturbations": 60, "n_genes": 300, "n_contexts": 1, "n_batches": 2, "cells_per_perturbation": 100}
    data = Simulator(level="cells", seed=101, controls_per_context=controls, **params).load()
    names = ("pearson_systema_all", "pearson_systema_notarget")
    for name, (known, cells) in both(data, *names).items():
        assert cells == pytest.approx(known, rel=0.04), name
        rows, train = halved(data)
        truth = truth_of(data, rows, train)
        assert mean(metric(name)(data.noise_free[rows], truth)) < known  # half A's noise is in the centroid alone
        assert mean(metric(name)(truth.effects, replace(truth, centroid=truth.centroid_truth))) == pytest.approx(1.0)


def test_tests_on_effects_and_spearman_are_near_the_known_ones():
    names = ("de_overlap_n_effects_all", "de_auprc_condition_all", "de_auroc_gene_all", "spearman_all")
    ratios = []
    for params in SCREENS:
        data = Labelled(of=Simulator(level="cells", **params).load()).load()
        ratios.append([cells / known for known, cells in both(data, *names).values()])
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, atol=0.06)
    np.testing.assert_allclose(ratios, 1.0, atol=0.13)


def test_debiased_errors_of_the_noise_free_effect_are_about_zero():
    data = gaussian(n=20)
    rows, v = np.arange(20), SD**2 * (1 / 24 + 1 / 80)
    truth = replace(truth_of(data, rows, rows), variance=np.full(data.truth.shape, v, np.float32))
    found = ceilings_of(data, "mse_debiased_all", "l2_debiased_all", truth=truth)
    assert (found["mse_debiased_all", "noise_free"].values == 0).all()
    away = np.random.default_rng(0).chisquare(300, 100_000) - 300
    want = np.mean(np.sign(away) * np.sqrt(np.abs(away))) * np.sqrt(v)
    sd = np.sqrt(np.abs(away).mean() * v)
    assert mean(found["l2_debiased_all", "noise_free"].values) == pytest.approx(want, abs=0.1 * sd)
    blind = ceilings_of(replace(data, cells=None), "mse_debiased_all", truth=truth)
    assert (blind["mse_debiased_all", "noise_free"].values == 0).all()
    assert blind["mse_debiased_all", "noise_free"].note == "from variance"
    unknown = replace(truth, variance=np.where(np.arange(300) < 1, np.nan, truth.variance))
    assert np.isnan(ceilings_of(data, "mse_debiased_all", truth=unknown)["mse_debiased_all", "noise_free"].values).all()


def test_some_metrics_have_no_ceiling_and_say_why():
    rows = np.arange(8)
    data = Simulator(level="cells", n_perturbations=8, n_genes=40, n_contexts=1, seed=1).load()
    truth = truth_of(data, rows, rows, cells=True)
    truth = replace(truth, de=DETable(truth.effects, np.full(truth.effects.shape, 0.01, np.float32)))
    names = {
        "r2_perturbench_all": "scores higher",
        "de_auroc_cells_all": "the DE table was made with the replicate's cells",
        "de_spearman_sig_cells_all": "the DE table was made with the replicate's cells",
        "edistance_euclidean_v_all:cells=all": "would differ in number",
    }
    found = ceilings_of(data, *names, truth=truth)
    for name, why in names.items():
        assert np.isnan(found[name, "noise_free"].values).all()
        assert found[name, "noise_free"].note.startswith("not available (")
        assert why in found[name, "noise_free"].note
    assert {variant for _, variant in found} == {"noise_free"}


def test_recipes_follow_the_gene_set_of_the_metric_and_not_its_name():
    data = gaussian(n=8, g=60)
    named = ceilings_of(data, "l2_top20")["l2_top20", "noise_free"]
    given = ceilings_of(data, extra={"l2_all:genes=top20": replace(metric("l2_all"), genes="top20")})
    np.testing.assert_array_equal(given["l2_all:genes=top20", "noise_free"].values, named.values)
    blind = replace(data, cells=None, noise_free=None)
    truth = truth_of(blind, np.arange(8), np.arange(8))
    truth = replace(truth, variance=np.ones(truth.effects.shape, np.float32))
    given = ceilings_of(blind, extra={"l2_all:genes=top20": replace(metric("l2_all"), genes="top20")}, truth=truth)
    assert given["l2_all:genes=top20", "noise_free"].note == "not available"


def test_predicted_cells_are_tested_at_the_number_of_observed_ones():
    rng = np.random.default_rng(0)
    data = gaussian(n=3, g=20, per_batch=20)
    data = replace(data, cells=replace(data.cells, rows=[np.abs(x) for x in data.cells.rows],
                                       control={h: np.abs(x) for h, x in data.cells.control.items()}))  # fmt: skip
    truth = truth_of(data, np.arange(3), np.arange(3), cells=True)
    padj = np.where(np.arange(20) % 2, 0.01, 0.9)[None].repeat(3, axis=0).astype(np.float32)
    truth = replace(truth, de=DETable(truth.effects, padj))
    pred = np.abs(rng.normal(0.3, 1, (3, 200, 20))).astype(np.float32)
    kept = np.sort(np.random.default_rng([23, 200]).permutation(200)[:20])  # half of 40 cells
    for name in ("de_auroc_cells_all", "de_sig_recall_cells_all", "de_spearman_sig_cells_all"):
        equal, whole = metric(name), metric(f"{name}:cells=all")
        np.testing.assert_array_equal(equal(pred, truth), whole(pred[:, kept], truth))
    assert not np.array_equal(
        metric("de_auroc_cells_all:cells=all")(pred, truth), metric("de_auroc_cells_all")(pred, truth)
    )


def test_metrics_that_read_tests_hold_them():
    data = gaussian()
    rows = np.arange(len(data))
    tests = DETable(data.truth, np.full(data.truth.shape, 0.01, np.float32))
    truth = replace(truth_of(data, rows, rows), de=tests)

    def against_test(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
        return np.array([np.corrcoef(p, t)[0, 1] for p, t in zip(pred, truth.de.log2fc, strict=True)])

    read = Metric(against_test, "high", "test", needs=("de",), lower=-1.0, upper=1.0)
    found = ceilings_of(data, extra={"de_all": read}, truth=truth)
    v = SD**2 * (1 / 24 + 1 / 80)
    assert mean(found["de_all", "noise_free"].values) == pytest.approx(np.sqrt(0.15**2 / (0.15**2 + v)), rel=0.03)
    assert "tests held, bias not measured" in found["de_all", "noise_free"].note
    assert found["de_all", "noise_free"].bias is None
    assert ("de_all", "cell_eval") not in found


# --------------------------------------------------------------------------------------------------------- edges


def test_small_conditions_are_nan_and_counted():
    rng = np.random.default_rng(0)
    sizes = [(1,), (3,), (1, 1, 1, 1, 1), (4,), (1, 1, 8), (2, 2), (0,)]
    rows = [rng.normal(0, 1, (sum(s), 20)).astype(np.float32) for s in sizes]
    codes = [np.repeat(np.arange(len(s)), s) for s in sizes]
    where = np.repeat(np.arange(5), 6)
    control = {h: rng.normal(0, 1, (30, 20)).astype(np.float32) for h in "AB"}
    data = made(rows, codes, control, dict.fromkeys("AB", where), np.zeros((7, 20)))
    found = ceilings_of(data, "l2_all", "mae_all", "pearson_all", "rank_l2_by_truth_all")
    for key, made_ in found.items():
        assert np.isnan(made_.values).tolist() == [True, True, True, False, False, False, True], key
        assert "4 of 7 rows too small (below 4 cells)" in made_.note
    assert np.isfinite(made_.values[3:6]).all()


def test_batches_of_one_cell_borrow_the_pooled_noise():
    rng = np.random.default_rng(0)
    n, g, size = 40, 200, np.array([1, 1, 1, 9])
    codes = np.repeat(np.arange(4), size)
    rows = [rng.normal(0, SD, (12, g)).astype(np.float32) for _ in range(n)]
    where = np.repeat(np.arange(4), [1, 1, 50, 50])
    control = {h: rng.normal(0, SD, (102, g)).astype(np.float32) for h in "AB"}
    data = made(rows, [codes] * n, control, dict.fromkeys("AB", where), np.zeros((n, g)), matching="equal-batch")
    v = SD**2 / 16 * ((1 + 1 + 1 + 1 / 9) + (1 + 1 + 1 / 50 + 1 / 50))
    found = ceilings_of(data, "l2_all", "mae_all")
    assert mean(found["l2_all", "noise_free"].values) == pytest.approx(np.sqrt(g * v), rel=0.04)
    assert mean(found["mae_all", "noise_free"].values) == pytest.approx(np.sqrt(2 / np.pi * v), rel=0.06)


def test_batches_without_controls_are_dropped_and_pooled_batches_merged():
    data = gaussian(n=6, g=50)
    cells = data.cells
    lone = [np.where(np.arange(len(c)) < 6, 99, c) for c in cells.row_batches]
    far = [np.where((c == 99)[:, None], 1e6, x).astype(np.float32) for c, x in zip(lone, cells.rows, strict=True)]
    changed = replace(data, cells=replace(cells, rows=far, row_batches=lone))
    rows = np.arange(6)
    assert np.abs(Resampler(changed, truth_of(changed, rows, rows), rows).point).max() < 10
    assert mean(ceilings_of(changed, "l2_all")["l2_all", "noise_free"].values) < 10
    pooled = replace(data, meta={**data.meta, "matching": "pooled"})
    want = np.stack([x.mean(axis=0) for x in cells.rows]) - cells.control["B"].mean(axis=0)
    np.testing.assert_allclose(Resampler(pooled, truth_of(data, rows, rows), rows).point, want, atol=1e-5)


def test_one_control_cell_tells_no_noise_unless_it_is_fixed():
    data = gaussian(n=4, g=30, batches=1, controls=1)
    found = ceilings_of(data, "l2_all")
    assert np.isnan(found["l2_all", "noise_free"].values).all()
    assert found["l2_all", "noise_free"].note == "not available"
    fixed = ceilings_of(gaussian(n=4, g=30, batches=1, controls=1, shared=True), "l2_all")
    assert np.isfinite(fixed["l2_all", "noise_free"].values).all()


def test_without_cells_only_variances_give_ceilings():
    data = Simulator(n_perturbations=12, n_genes=40).load()
    blind = replace(data, noise_free=None)
    names = ("l2_all", "pearson_notarget", "l2_top20", "spearman_all", "rank_l2_by_truth_all")
    found = ceilings_of(blind, *names)
    notes = {name: found[name, "noise_free"].note for name in names}
    assert [notes[n] for n in names] == ["from variance", "from variance", *["not available"] * 3]
    assert {variant for _, variant in found} == {"noise_free"}
    bare = ceilings_of(replace(blind, truth_variance=None), "l2_all")
    assert np.isnan(bare["l2_all", "noise_free"].values).all()
    empty = gaussian(n=3, g=20)
    empty = replace(empty, cells=replace(empty.cells, rows=[x[:0] for x in empty.cells.rows],
                                         row_batches=[c[:0] for c in empty.cells.row_batches]))  # fmt: skip
    assert ceilings_of(empty, "mae_all")["mae_all", "noise_free"].note == "not available"


def test_unobserved_entries_several_contexts_and_one_row():
    data = replace(toy_screen(), noise_free=None)
    observed = np.random.default_rng(1).random(data.truth.shape) < 0.8
    data = replace(data, observed=observed, truth=np.where(observed, data.truth, np.nan).astype(np.float32))
    found = ceilings_of(data, "l2_all", "pearson_notarget", "mae_all", "rank_cosine_by_prediction_notarget")
    assert all(np.isfinite(c.values).all() for c in found.values())
    full = ceilings_of(replace(toy_screen(), noise_free=None), "l2_all")
    ratio = mean(found["l2_all", "noise_free"].values) / mean(full["l2_all", "noise_free"].values)
    assert ratio == pytest.approx(np.sqrt(0.8), rel=0.03)
    one = np.array([7])
    made_ = ceilings(data, truth_of(data, one, one), one, one, {"l2_all": metric("l2_all")})
    np.testing.assert_allclose(made_[0].values, found["l2_all", "noise_free"].values[one], rtol=0.2)
    none = np.arange(0)
    assert ceilings(data, truth_of(data, none, one), none, one, {"l2_all": metric("l2_all")})[0].values.shape == (0,)


def test_populations_are_judged_by_the_replicate_half():
    data = gaussian(n=5, g=20, per_batch=20)
    seen: list[tuple[int, ...]] = []

    def shape(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
        seen.append(pred.shape)
        pairs = [(set(map(bytes, p)), set(map(bytes, truth.cells.perturbed(i)))) for i, p in enumerate(pred)]
        return np.array([float(len(a & b)) for a, b in pairs])

    row = Metric(shape, "low", "test", level="population", target="population", needs=("cells",))
    whole = replace(row, level="set")
    found = ceilings_of(data, extra={"shape_all": row, "set_all": whole}, cells=True, samples=15)
    assert seen == [(1, 15, 20)] * 5 + [(5, 15, 20)]
    assert (found["shape_all", "noise_free"].values == 0).all()  # disjoint from what it is scored against
    seen.clear()
    more = ceilings_of(data, extra={"shape_all": row}, cells=True, samples=1000)["shape_all", "noise_free"]
    assert seen == [(1, 20, 20)] * 5  # half of 40 cells
    assert "replicate half" in more.note


def test_label_metrics_have_no_ceiling():
    data = toy_screen()
    known = registries.default()
    name = next(e.name for e in known.entries("metrics") if known.parse("metrics", e.name).make().target == "labels")
    found = ceilings_of(data, name)
    assert {c.note for c in found.values()} <= {"not available"}


# -------------------------------------------------------------------------------------------- exactness, errors


def test_memory_and_company_change_nothing(monkeypatch):
    data = gaussian(n=8, g=40, batches=6)
    names = ("l2_all", "mae_all", "rank_l2_by_truth_all", "pearson_all")
    whole = ceilings_of(data, *names)
    monkeypatch.setattr(resample, "MEMORY", 1)
    parts = ceilings_of(data, *names)
    for key, made_ in whole.items():
        np.testing.assert_allclose(parts[key].values, made_.values, rtol=1e-5, atol=1e-6)
    alone = ceilings_of(data, "mae_all", variants=("noise_free",))
    np.testing.assert_allclose(alone["mae_all", "noise_free"].values, whole["mae_all", "noise_free"].values, rtol=1e-5)
    assert (
        whole["mae_all", "noise_free"].values.tolist()
        == ceilings_of(data, *names)["mae_all", "noise_free"].values.tolist()
    )
    other = ceilings_of(data, "mae_all", seed=1)["mae_all", "noise_free"]
    assert not np.array_equal(other.values, whole["mae_all", "noise_free"].values)


def test_metrics_with_unmet_needs_are_left_out_and_bad_weights_refused():
    data = gaussian(n=4, g=20)
    rank = Metric(lambda p, t, m: p[:, 0], "low", "test", units=("rank_score",))
    assert not ceilings_of(data, extra={"rank_all": rank})
    with pytest.raises(ValueError, match="equal or size, got 'big'"):
        ceilings_of(data, "l2_all", weights="big")
    assert VARIANTS[0] == "noise_free"


# ------------------------------------------------------------------------------------------------------ kernels


def test_posterior_draws_are_like_the_effects_they_stand_for():
    """Nine genes in ten without effect: what is drawn given noisy effects is as sparse, as large and as well known."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.05, 0.5, (6, 2000))
    changed = rng.random((6, 2000)) < 0.1
    signal = scale * changed * rng.normal(0, 6, (6, 2000))
    seen = signal + scale * rng.normal(size=(6, 2000))
    fitted = fit_mixture(seen, scale**2, np.zeros(6))
    draws = np.stack([[fitted.draw(i, seen[i], scale[i] ** 2, rng) for i in range(6)] for _ in range(20)])
    assert np.square(draws / scale).mean() == pytest.approx(np.square(signal / scale).mean(), rel=0.04)
    assert (np.abs(draws / scale) < 1).mean() == pytest.approx((np.abs(signal / scale) < 1).mean(), abs=0.03)
    # the mean of the draws is the Bayes estimate: compared with that under the mixture which the effects came from
    z = seen / scale
    big, none = (p * np.exp(-(z**2) / 2 / s) / np.sqrt(s) for p, s in ((0.1, 37.0), (0.9, 1.0)))
    best = np.square(big / (big + none) * 36 / 37 * z - signal / scale).mean()
    assert np.square(draws.mean(axis=0) / scale - signal / scale).mean() == pytest.approx(best, rel=0.12)
    again = fitted.draw(0, np.array([2.0]), np.array([0.0]), rng)
    assert again.tolist() == [2.0]  # nothing to draw without an error
    empty = fit_mixture(np.zeros((0, 5)), np.zeros((0, 5)), np.zeros(0))
    assert empty.weight.shape[0] == 0
    flat = fit_mixture(np.zeros((2, 5)), np.zeros((2, 5)), np.zeros(2))
    assert flat.draw(0, np.zeros(5), np.zeros(5), rng).tolist() == [0.0] * 5


def test_strata_deviations_have_the_variance_of_the_mean():
    rng = np.random.default_rng(0)
    strata, x = Strata(np.array([5, 2, 1, 30])), rng.normal(size=(38, 400))
    parts = [x[s : s + n] for s, n in zip(strata.start, strata.size, strict=True)]
    freedom = sum(len(p) - 1 for p in parts)
    pooled = sum(np.square(p - p.mean(axis=0)).sum(axis=0) for p in parts) / freedom
    want = np.array([(p.var(axis=0, ddof=1) if len(p) > 1 else pooled).mean() / len(p) for p in parts])

    def within(coefficients: np.ndarray) -> np.ndarray:
        return np.stack([coefficients[strata.code == b] @ x[strata.code == b] for b in range(4)])

    drawn: dict[str, list[np.ndarray]] = {"split": [], "boot": [], "again": []}
    for s in range(400):
        one = np.random.default_rng(s)
        drawn["split"].append(within(strata.split(one)))
        first = strata.draw(one)
        drawn["boot"].append(within(strata.shift(first)))
        drawn["again"].append(within(strata.shift(strata.draw(one, first), first)))
    for name, values in drawn.items():
        got = np.square(values).mean(axis=(0, 2))
        np.testing.assert_allclose(got[[0, 1, 3]], want[[0, 1, 3]], rtol=0.12, err_msg=name)
        assert got[2] == 0
    lent = []
    for s in range(4000):
        alone, cells, factors = strata.lend(np.random.default_rng(s))
        assert alone.tolist() == [2]
        lent.append(strata.borrowed(factors, cells) @ x)
    assert np.square(lent).mean() == pytest.approx(want[2], rel=0.05)
    assert np.abs(np.mean(lent)) < 0.01


@pytest.mark.parametrize("how", ["equal", "size"])
def test_batch_stage_has_the_variance_between_batches(how):
    rng = np.random.default_rng(0)
    weight = np.array([0.3, 0.1, 0.1, 0.2, 0.15, 0.15])
    tau, noise = 0.4, np.array([0.01, 0.05, 0.05, 0.02, 0.03, 0.03])
    ratios = []
    for _ in range(20):
        each = rng.normal(0, np.sqrt(tau**2 + noise)[:, None], (6, 500))
        away = np.square(each - weight @ each).sum(axis=1)
        scale, _ = batch_scale(weight, away, 500 * noise, how)
        moved = [(draw_batches(weight, rng, how)[1] - weight) @ each * scale for _ in range(100)]
        ratios.append(np.square(moved).mean() / (tau**2 * (weight**2).sum()))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.15)
    slots, kept = draw_batches(weight, np.random.default_rng(1), how, np.zeros(6, int))
    assert slots.tolist() == [0] * 6
    assert kept.tolist() == [1, 0, 0, 0, 0, 0]
    assert batch_scale(np.array([1.0]), np.zeros(1), np.zeros(1), how) == (0.0, 0.0)
