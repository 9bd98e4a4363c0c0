"""Distances between clouds of cells against scipy, scikit-learn, closed forms and definitions written out."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

from embbench.core import CellView, Truth
from embbench.metrics import cell_moments, population
from embbench.metrics._cells import CellMetric, choose
from embbench.numerics import distances, transport
from embbench.numerics.distances import (
    edistance_euclidean_u,
    edistance_euclidean_v,
    edistance_half_euclidean_v,
    edistance_sqeuclidean_u,
    edistance_sqeuclidean_v,
    mmd_linear_v,
    mmd_rbf,
)

METRICS = {n: m for f in (population, cell_moments) for n, m in vars(f).items() if isinstance(m, CellMetric)}
METRICS |= {f"{n}_pca50": replace(m, space="pca50") for n, m in METRICS.items() if n in vars(population)}
GAMMAS = (0.02, 0.3)


def mmd_v(x, y):
    return mmd_rbf(x, y, GAMMAS, unbiased=False)


def ks_mean(x, y):
    return transport.kolmogorov_smirnov(x, y).mean()


def w1(x, y):
    return transport.wasserstein(x, y, 1)


def w2(x, y):
    return transport.wasserstein(x, y, 2)


def sw(x, y, order=2):
    return transport.sliced_wasserstein(x, y, transport.unit_directions(x.shape[1], 50), order)


def mean_variance(x, y):
    return cell_moments._mean_variance(x, y)


V_FORMS = (edistance_euclidean_v, edistance_half_euclidean_v, edistance_sqeuclidean_v, mmd_linear_v, mmd_v, ks_mean)
FORMS = (*V_FORMS, w1, w2, sw, mean_variance)
U_FORMS = (edistance_euclidean_u, edistance_sqeuclidean_u)


def test_five_energy_distances_of_one_pair_of_arrays():
    r = np.random.default_rng(0)
    X, Y = r.normal(size=(50, 5)), r.normal(size=(40, 5)) * 2 + 1
    # measured: cell-eval and pertpy 1.0.3; scperturb 0.1.0 (euclidean); CellFlow; scperturb's default; geomloss
    published = {
        edistance_euclidean_v: 1.4369,
        edistance_euclidean_u: 1.2261,
        edistance_sqeuclidean_v: 9.6587,
        edistance_sqeuclidean_u: 8.4539,
        edistance_half_euclidean_v: 0.7184,
    }
    for distance, value in published.items():
        assert distance(X, Y) == pytest.approx(value, abs=1e-4), distance.__name__


def pair(seed, n, m, d, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + offset, rng.normal(size=(m, d)) * 1.5 + offset + 0.5


SIZES = {"n": st.integers(2, 20), "m": st.integers(2, 20), "d": st.integers(1, 9), "seed": st.integers(0, 10_000)}


@settings(max_examples=40, deadline=None)
@given(offset=st.sampled_from([0.0, 1e3, -1e6]), **SIZES)
def test_definitions(n, m, d, seed, offset):
    x, y = pair(seed, n, m, d, offset)
    for power, v, u in (
        (1, edistance_euclidean_v, edistance_euclidean_u),
        (2, edistance_sqeuclidean_v, edistance_sqeuclidean_u),
    ):
        a, b, c = (cdist(p, q) ** power for p, q in ((x, y), (x, x), (y, y)))
        assert v(x, y) == pytest.approx(2 * a.mean() - b.mean() - c.mean(), rel=1e-6, abs=1e-8)
        unbiased = 2 * a.mean() - b.sum() / (n * (n - 1)) - c.sum() / (m * (m - 1))
        assert u(x, y) == pytest.approx(unbiased, rel=1e-6, abs=1e-8)
    x, y = pair(seed, n, m, d, 0.0)
    k = [np.mean([rbf_kernel(p, q, g) for g in GAMMAS], axis=0) for p, q in ((x, y), (x, x), (y, y))]
    assert mmd_v(x, y) == pytest.approx(k[1].mean() + k[2].mean() - 2 * k[0].mean(), abs=1e-12)
    off = [(z.sum() - len(z)) / (len(z) * (len(z) - 1)) for z in k[1:]]
    assert mmd_rbf(x, y, GAMMAS, unbiased=True) == pytest.approx(sum(off) - 2 * k[0].mean(), abs=1e-12)
    lin = [linear_kernel(p, q).mean() for p, q in ((x, x), (y, y), (x, y))]
    assert mmd_linear_v(x, y) == pytest.approx(lin[0] + lin[1] - 2 * lin[2], abs=1e-12)
    assert distances.median_square(x) == pytest.approx(np.median(pdist(x) ** 2), rel=1e-9)
    np.testing.assert_allclose(distances.squared_distances(x, y), cdist(x, y) ** 2, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_one_dimension_is_scipys(n, m, d, seed):
    x, y = pair(seed, n, m, 1)
    assert edistance_euclidean_v(x, y) == pytest.approx(stats.energy_distance(x[:, 0], y[:, 0]) ** 2, abs=1e-9)
    y = np.resize(y, x.shape) + np.arange(n)[:, None]
    assert w1(x, y) == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-9)
    quantiles = np.sqrt(np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2))
    assert w2(x, y) == pytest.approx(quantiles, rel=1e-9)
    assert sw(x, y, 1) == pytest.approx(w1(x, y), rel=1e-9)  # one axis: every direction is it
    assert sw(x, y, 2) == pytest.approx(w2(x, y), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(lam=st.sampled_from([0.1, 1.0, 30.0]), **SIZES)
def test_kolmogorov_smirnov_is_scipys_ties_included(n, m, d, seed, lam):
    rng = np.random.default_rng(seed)
    x, y = np.log1p(rng.poisson(lam, (n, d))).astype(np.float32), np.log1p(rng.poisson(lam * 1.5, (m, d)))
    want = [stats.ks_2samp(x[:, j], y[:, j], method="asymp").statistic for j in range(d)]
    np.testing.assert_allclose(transport.kolmogorov_smirnov(x, y), want, atol=1e-12)


def test_exact_wasserstein_beats_every_pairing():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) + 1
    cost = cdist(x, y)
    for order, distance in ((1, w1), (2, w2)):
        best = min(np.mean(cost[range(6), list(p)] ** order) for p in itertools.permutations(range(6)))
        assert distance(x, y) == pytest.approx(best ** (1 / order), rel=1e-12)
    with pytest.raises(ValueError, match="found 6 and 5"):
        w1(x, y[:5])


def test_translation_in_closed_form():
    rng = np.random.default_rng(5)
    x, shift = rng.normal(size=(30, 4)), np.array([1.0, -2.0, 0.0, 2.0])
    assert w1(x, x + shift) == pytest.approx(3.0)  # the optimal map between translates is the translation
    assert w2(x, x + shift) == pytest.approx(3.0)
    u = transport.unit_directions(4, 50)
    along = shift @ (u / np.linalg.norm(u, axis=0))
    assert sw(x, x + shift, 2) == pytest.approx(np.sqrt(np.mean(along**2)))
    assert sw(x, x + shift, 1) == pytest.approx(np.mean(np.abs(along)))
    many = transport.unit_directions(4, 20_000)
    assert transport.sliced_wasserstein(x, x + shift, many, 2) == pytest.approx(3 / 2, rel=0.02)  # |shift| / sqrt(d)
    assert edistance_sqeuclidean_v(x, x + shift) == pytest.approx(18.0)
    assert mean_variance(x, x + shift) == pytest.approx(1.5)


def test_gaussians_unbiased_in_expectation():
    rng, d, gap, gamma = np.random.default_rng(6), 3, np.array([0.6, -0.3, 0.2]), 0.4
    draws = {"sq": [], "euclid": [], "mmd": []}
    for _ in range(300):
        x, y = rng.normal(size=(15, d)), rng.normal(size=(12, d)) + gap
        draws["sq"].append(edistance_sqeuclidean_u(x, y))
        draws["mmd"].append(mmd_rbf(x, y, [gamma], unbiased=True))
        draws["euclid"].append(edistance_euclidean_u(x[:, :1], y[:, :1]))
    c = 1 + 4 * gamma  # x - y is normal with variance 2 in each axis
    folded = stats.foldnorm(abs(gap[0]) / np.sqrt(2), scale=np.sqrt(2)).mean()
    want = {
        "sq": 2 * gap @ gap,
        "mmd": 2 * c ** (-d / 2) * (1 - np.exp(-gamma * (gap @ gap) / c)),
        "euclid": 2 * folded - 2 * 2 / np.sqrt(np.pi),
    }
    for name, values in draws.items():
        assert abs(np.mean(values) - want[name]) < 4 * np.std(values) / np.sqrt(len(values)), name


def test_gaussians_in_the_limit():
    q = (np.arange(4000) + 0.5) / 4000
    x, y = stats.norm.ppf(q)[:, None], 0.7 + 1.8 * stats.norm.ppf(q)[:, None]
    assert sw(x, y, 2) == pytest.approx(np.sqrt(0.7**2 + 0.8**2), rel=2e-3)
    assert mean_variance(x, y) == pytest.approx(np.sqrt(0.7**2 + 0.8**2), rel=2e-3)
    assert ks_mean(x, x + 0.7) == pytest.approx(2 * stats.norm.cdf(0.35) - 1, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(n=SIZES["n"], d=SIZES["d"], seed=SIZES["seed"])
def test_properties_of_distances(n, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, d)) + 0.3
    rows, columns = rng.permutation(n), rng.permutation(d)
    for distance in (*FORMS, *U_FORMS):
        value = distance(x, y)
        assert distance(y, x) == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert distance(x[rows], y) == pytest.approx(value, rel=1e-9, abs=1e-12)
        if distance is not sw:  # its directions belong to columns
            assert distance(x[:, columns], y[:, columns]) == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert distance(x, y) == value  # the same bits
    for distance in FORMS:
        assert distance(x, y) >= 0
        assert distance(x, x) == pytest.approx(0, abs=1e-7)
        assert distance(x, x[rows]) == pytest.approx(0, abs=1e-7)
        assert distance(x, x + 1) < distance(x, x + 3) or distance in (ks_mean, mmd_v)
    assert all(distance(x, x) <= 1e-12 for distance in U_FORMS)  # below 0: closer than chance


def test_small_and_degenerate_clouds():
    one, two, none = np.ones((1, 3)), np.zeros((2, 3)), np.zeros((0, 3))
    for distance in (edistance_euclidean_v, edistance_sqeuclidean_v, mmd_linear_v, mmd_v, ks_mean):
        assert np.isnan(distance(none, two))
        assert np.isfinite(distance(one, two))
    for distance in (*U_FORMS, lambda x, y: mmd_rbf(x, y, GAMMAS, unbiased=True)):
        assert np.isnan(distance(one, two))
        assert distance(two, two) == 0
    assert np.isnan([w1(none, none), sw(none, none), distances.median_square(one)]).all()
    collapsed = np.full((5, 3), 1e4)  # all pairs cancel
    assert not distances.squared_distances(collapsed, collapsed).any()


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(8)
    x, y, masks = rng.normal(size=(23, 30)), rng.normal(size=(17, 30)), rng.random((6, 30)) < 0.95
    masks[0], masks[5] = True, rng.random(30) < 0.3
    whole = [f(x, y) for f in (edistance_euclidean_v, mmd_v)], distances.mean_self_distances(x, masks)
    ks, middle = transport.kolmogorov_smirnov(x, y), distances.median_square(x)
    np.testing.assert_allclose(whole[1], [cdist(x[:, k], x[:, k]).mean() for k in masks], rtol=1e-9)
    monkeypatch.setattr(distances, "PAIRS", 40)
    monkeypatch.setattr(transport, "SORTED", 90)
    np.testing.assert_allclose([f(x, y) for f in (edistance_euclidean_v, mmd_v)], whole[0], rtol=1e-12)
    np.testing.assert_allclose(distances.mean_self_distances(x, masks), whole[1], rtol=1e-12)
    np.testing.assert_array_equal(transport.kolmogorov_smirnov(x, y), ks)
    assert distances.median_square(x) == pytest.approx(middle, rel=1e-12)


class ToyCells:
    """Stated cells of every condition and context."""

    def __init__(self, perturbed, controls=()):
        self.cells, self.control = perturbed, controls

    def controls(self, context, half="A"):
        assert half == "B"
        return self.control[context]

    def perturbed(self, row):
        return self.cells[row]


def example(n=8, g=12, counts=(9, 14, 20), samples=14, seed=0, contexts=2, seen=None):
    """Sampled cells, and a truth whose conditions differ in strength and whose genes differ in spread."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(size=(n, g)) * np.linspace(0.2, 2, n)[:, None]
    spread = rng.gamma(3.0, 0.4, size=g)
    cells = [(rng.normal(size=(counts[i % len(counts)], g)) * spread + shift[i]).astype(np.float32) for i in range(n)]
    controls = [rng.normal(size=(25 + c, g)).astype(np.float32) for c in range(contexts)]
    truth = Truth(
        effects=shift.astype(np.float32),
        unit="delta",
        context=np.arange(n) % contexts,
        targets=tuple(np.array([i % g]) if i % 3 else np.array([], dtype=np.int64) for i in range(n)),
        observed=seen,
        cells=CellView(ToyCells(cells, controls), np.arange(n), half="B"),
        basis=np.linalg.qr(rng.normal(size=(g, 3)))[0].astype(np.float32),
    )
    pred = (rng.normal(size=(n, samples, g)) * 1.2 + shift[:, None] + rng.normal(size=(n, 1, g)) / 2).astype(np.float32)
    return pred, truth


def pairs_of(pred, truth, genes):
    """What every metric must compare, written out."""
    for i, keep in enumerate(truth.mask(genes)):
        seen = truth.cells.perturbed(i)
        k = min(len(seen), pred.shape[1])
        yield tuple(choose(c, k)[:, keep].astype(np.float64) for c in (pred[i], seen))


def median_mmd(x, y, unbiased):
    gammas = np.array([0.25, 0.5, 1, 2, 4]) / np.median(pdist(y) ** 2)
    return mmd_rbf(x, y, gammas, unbiased=unbiased)


def scgen_r2(p, t):
    return stats.linregress(p, t).rvalue ** 2


KERNELS = {
    "edistance_euclidean_v": lambda x, y: 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean(),
    "edistance_half_euclidean_v": edistance_half_euclidean_v,
    "edistance_euclidean_u": edistance_euclidean_u,
    "edistance_sqeuclidean_v": edistance_sqeuclidean_v,
    "edistance_sqeuclidean_u": edistance_sqeuclidean_u,
    "mmd_rbf_v": lambda x, y: median_mmd(x, y, unbiased=False),
    "mmd_rbf_u": lambda x, y: median_mmd(x, y, unbiased=True),
    "mmd_linear_v": mmd_linear_v,
    "wasserstein_exact_w1": w1,
    "wasserstein_exact_w2": w2,
    "ks_gene": lambda x, y: np.mean([stats.ks_2samp(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]),
    "mean_variance": lambda x, y: np.sqrt(
        np.mean((x.mean(0) - y.mean(0)) ** 2 + (np.sqrt(x.var(0)) - np.sqrt(y.var(0))) ** 2)
    ),
    "r2_pearson_cells_mean": lambda x, y: scgen_r2(x.mean(0), y.mean(0)),
    "r2_pearson_cells_variance": lambda x, y: scgen_r2(x.var(0), y.var(0)),
}


@pytest.mark.parametrize("genes", ["all", "notarget", "top5"])
@pytest.mark.parametrize("name", KERNELS)
def test_metrics_compare_equally_many_cells_over_scored_genes(name, genes):
    pred, truth = example(seen=np.random.default_rng(1).random((8, 12)) < 0.8)
    got = replace(METRICS[name], genes=genes)(pred, truth)
    np.testing.assert_allclose(got, [KERNELS[name](x, y) for x, y in pairs_of(pred, truth, genes)], rtol=1e-9)


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if m.space == "pca50" and m.level != "set"])
def test_metrics_on_principal_axes(name):
    pred, truth = example()
    got = METRICS[name](pred, truth)
    kernels = KERNELS | {
        "mmd_rbf_cellflow_v": lambda x, y: np.mean(
            [
                rbf_kernel(x, x, g).mean() + rbf_kernel(y, y, g).mean() - 2 * rbf_kernel(x, y, g).mean()
                for g in (2, 1, 0.5, 0.1, 0.01, 0.005)
            ]
        ),
        **{
            f"wasserstein_sliced_w{p}": lambda x, y, p=p: transport.sliced_wasserstein(
                x, y, transport.unit_directions(3, 200), p
            )
            for p in (1, 2)
        },
    }
    kernel = kernels[name.removesuffix("_pca50")]
    want = [kernel(*(z @ truth.basis.astype(np.float64) for z in p)) for p in pairs_of(pred, truth, "all")]
    np.testing.assert_allclose(got, want, rtol=1e-7)
    with pytest.raises(ValueError, match="no basis"):
        METRICS[name](pred, replace(truth, basis=None))


def test_sliced_directions_belong_to_genes():
    pred, truth = example()
    u = transport.unit_directions(12, population.DIRECTIONS)
    got = replace(population.wasserstein_sliced_w2, genes="notarget")(pred, truth)
    masks = truth.mask("notarget")
    want = [
        transport.sliced_wasserstein(x, y, u[k], 2)
        for k, (x, y) in zip(masks, pairs_of(pred, truth, "notarget"), strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_the_observed_cells_are_the_bound_and_less_noise_is_better(name):
    metric = METRICS[name]
    _, truth = example(n=9, counts=(10,), contexts=1)
    own = np.stack([truth.cells.perturbed(i) for i in range(9)])
    rng = np.random.default_rng(3)
    noise = rng.normal(size=own.shape) * rng.gamma(2.0, size=(9, 1, 12)) + rng.normal(size=(9, 1, 12))
    scores = [metric((own + s * noise).astype(np.float32), truth).mean() for s in (0.0, 0.3, 3.0)]
    sign = 1 if metric.best == "low" else -1
    assert sign * scores[0] < sign * scores[1] < sign * scores[2]
    bound = metric.lower if metric.best == "low" else metric.upper
    assert scores[0] == pytest.approx(bound, abs=1e-7) if np.isfinite(bound) else scores[0] < 0


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_compared_is_nan(name):
    metric = METRICS[name]
    pred, truth = example(
        n=10, counts=(9, 14, 20, 1, 0), contexts=1, seen=np.arange(10)[:, None] % 10 != np.full(12, 5)
    )
    values = metric(pred, truth)
    assert np.isnan(values).tolist() == [i in (3, 4, 5, 8, 9) for i in range(10)]  # one cell, none, no gene
    assert np.isnan(metric(pred[:, :1], truth)).all()
    assert np.isnan(metric(pred, replace(truth, observed=np.zeros((10, 12), bool)))).all()
    assert pickle.loads(pickle.dumps(metric)).formula == metric.formula
    with pytest.raises(ValueError, match="no cells"):
        metric(pred, replace(truth, cells=None))


def test_constant_clouds():
    pred, truth = example(n=3, counts=(8,))
    flat = CellView(ToyCells([np.ones((8, 12), np.float32)] * 3, [np.zeros((5, 12))] * 2), np.arange(3), half="B")
    constant = replace(truth, cells=flat)
    assert np.isnan(population.mmd_rbf_v(pred, constant)).all()  # no distance between observed cells: no width
    for metric in (cell_moments.r2_pearson_cells_mean, cell_moments.r2_pearson_cells_variance):
        assert np.isnan(metric(pred, constant)).all()
        assert np.isnan(metric(np.ones_like(pred), truth)).all()
    same = np.ones((3, 8, 12), np.float32)
    for name in ("edistance_euclidean_v", "wasserstein_exact_w2", "ks_gene", "mean_variance"):
        assert METRICS[name](same, constant).tolist() == [0.0] * 3
        assert (METRICS[name](same, truth) > 0).all()


def brute_pearson_edistance(pred, truth, genes, basis=None):
    """cell-eval's definition, loop by loop, with controls of half B on both sides."""
    out, masks = np.full(len(pred), np.nan), truth.mask(genes)
    for code in np.unique(truth.context):
        rows = np.flatnonzero(truth.context == code)
        e = []
        for i in rows:
            k = min(pred.shape[1], len(truth.cells.perturbed(i)))
            clouds = [choose(pred[i], k), choose(truth.cells.perturbed(i), k), truth.cells.controls(code)]
            a, b, c = (z[:, masks[i]].astype(np.float64) for z in clouds)
            if basis is not None:
                a, b, c = (z @ basis[masks[i]] for z in (a, b, c))
            e.append([2 * cdist(z, c).mean() - cdist(z, z).mean() - cdist(c, c).mean() for z in (a, b)])
        out[rows] = stats.pearsonr(*np.array(e).T)[0]
    return out


@pytest.mark.parametrize("seen", [False, True])
def test_pearson_of_energy_distances(seen):
    keep = np.random.default_rng(1).random((8, 12)) < 0.8 if seen else None
    pred, truth = example(seen=keep)
    base = population.pearson_edistance_euclidean_v
    for genes in ("all", "notarget"):
        got = replace(base, genes=genes)(pred, truth)
        np.testing.assert_allclose(got, brute_pearson_edistance(pred, truth, genes), rtol=1e-7)
        assert len(set(got[::2])) == len(set(got[1::2])) == 1  # one number per context
    got = replace(base, space="pca50")(pred, truth)
    np.testing.assert_allclose(got, brute_pearson_edistance(pred, truth, "all", truth.basis.astype(float)), rtol=1e-7)


def test_pearson_of_energy_distances_undefined():
    metric = population.pearson_edistance_euclidean_v
    pred, truth = example(n=4)
    assert np.isnan(metric(pred, truth)).all()  # two conditions in each context
    pred, truth = example(n=6, counts=(14,))
    collapsed = np.broadcast_to(pred[:1], pred.shape)
    assert np.isnan(metric(collapsed, truth)).all()
    bare = CellView(ToyCells(truth.cells.source.cells, [np.zeros((0, 12))] * 2), np.arange(6), half="B")
    assert np.isnan(metric(pred, replace(truth, cells=bare))).all()


def test_choice_of_cells_is_fixed_and_spread():
    cells = np.arange(200)[:, None]
    chosen = choose(cells, 50)[:, 0]
    np.testing.assert_array_equal(chosen, choose(cells, 50)[:, 0])
    assert len(set(chosen.tolist())) == 50
    assert 20 < (chosen >= 100).sum() < 35  # not the first of a sorted file
    with pytest.raises(ValueError, match="cells must be one of equal, all, got 'some'"):
        replace(population.edistance_euclidean_v, cells="some")
