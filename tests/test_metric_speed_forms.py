"""Fast forms of metrics against scipy, scikit-learn and their own slow forms: same ranks, bits and numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn import metrics as sk

from embbench.core import Metric, Truth
from embbench.metrics import _cityblock, _nearer, correlation, errors, r2, retrieval
from embbench.metrics._pairs import Vectors
from embbench.metrics._retrieval import Retrieval, rank_rows
from embbench.numerics.jit import has_numba
from embbench.numerics.ranks import average_ranks, rank_correlation

WIDE = 2300  # genes: more than `_nearer.WIDE` and no multiple of a chunk


def screen(n=60, g=WIDE, noise=40.0, seed=0, hidden=0.0, scale=1.0):
    """Effects around a shared response, noisy predictions, one gene of its own in most rows."""
    rng = np.random.default_rng(seed)
    effects = (rng.standard_normal(g) + rng.standard_normal((n, g))) * scale
    pred = effects + noise * scale * rng.standard_normal((n, g))
    seen = rng.random((n, g)) >= hidden
    targets = tuple(np.array([c]) if i % 5 else np.array([], int) for i, c in enumerate(rng.choice(g, n)))
    effects = np.where(seen, effects, np.nan).astype(np.float32)
    context = np.arange(n) % 2 * (n > 30)
    return pred.astype(np.float32), Truth(effects, "delta", context, targets, observed=seen if hidden else None)


@pytest.mark.parametrize("noise", [0.5, 40.0, 150.0])
@pytest.mark.parametrize("distance", ["l2", "cosine", "l1"])
def test_discrimination_is_the_position_in_a_stable_sort_of_float64_distances(distance, noise):
    pred, truth = screen(n=40, noise=noise)
    truth = replace(truth, context=np.zeros(40, int))
    p, t = pred.astype(np.float64), truth.effects.astype(np.float64)
    found = replace(getattr(retrieval, f"discrimination_{distance}_cell_eval"), genes="notarget")(pred, truth)
    for i, own in enumerate(truth.targets):
        use = np.delete(np.arange(WIDE), own)
        away = sk.pairwise_distances(t[:, use], p[i, use].reshape(1, -1), metric=distance).ravel()
        assert found[i] == pytest.approx(1 - np.flatnonzero(np.argsort(away, kind="stable") == i)[0] / 40, abs=1e-12)


@pytest.mark.parametrize("hidden", [0.0, 0.1])
@pytest.mark.parametrize("genes_of", ["row", "pair"])
@pytest.mark.parametrize("distance", ["l2", "cosine", "pearson"])
def test_float32_products_decide_as_float64_does(distance, genes_of, hidden, monkeypatch):
    asked = []
    exact = _nearer.products
    monkeypatch.setattr(_nearer, "products", lambda *a: asked.append(len(a[2])) or exact(*a))
    monkeypatch.setattr(_nearer, "FEW", 1.0)
    kinds = itertools.product(("prediction", "truth"), ("mid", "order"), ("notarget", "all"))
    metrics = [
        Retrieval(rank_rows, "low", "x", distance=distance, by=by, ties=ties, genes=genes, genes_of=genes_of)
        for by, ties, genes in kinds
    ]
    pred, truth = screen(n=40, hidden=hidden)
    pred[7], pred[9] = pred[5], pred[5] * np.float32(1 + 1e-7)  # ties and what float32 cannot tell apart
    fast = [metric(pred, truth) for metric in metrics]
    assert 0 < sum(asked) < 0.3 * len(metrics) * 40 * 20
    monkeypatch.setattr(_nearer, "FEW", -1.0)  # all of them again
    for metric, values in zip(metrics, fast, strict=True):
        np.testing.assert_array_equal(values, metric(pred, truth))
    monkeypatch.setattr(_nearer, "WIDE", 10**9)
    for metric, values in zip(metrics, fast, strict=True):
        np.testing.assert_array_equal(values, metric(pred, truth))
        np.testing.assert_array_equal(values, metric(np.asfortranarray(pred.astype(np.float64)), truth))


@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e25])
@pytest.mark.parametrize("distance", ["l2", "cosine", "pearson"])
def test_products_beyond_float32_are_decided_all_the_same(distance, scale):
    metric = getattr(retrieval, f"rank_{distance}_by_prediction")
    pred, truth = screen(noise=20.0)
    ordinary = metric(pred, truth)
    p, t = (np.multiply(x, scale, dtype=np.float64) for x in (pred, truth.effects))
    np.testing.assert_allclose(metric(p, replace(truth, effects=t)), ordinary, atol=1e-12)


def test_bound_of_the_product_holds():
    rng = np.random.default_rng(1)
    x = np.abs(rng.standard_normal((20, 5000))).astype(np.float32)  # one sign: rounding adds up
    product, left, right = _nearer.rough_products(Vectors(x), Vectors(x[:7]))
    bound = left * right
    error = np.abs(product - x.astype(np.float64) @ x[:7].astype(np.float64).T)
    assert (error <= bound).all()
    assert (bound <= 1e-4 * product.max()).all()
    assert error.max() > 0


def test_near_ties_are_tied_in_ranks_and_told_apart_in_the_order_of_a_package():
    rng = np.random.default_rng(2)
    effects = rng.standard_normal((3, 400))
    effects[1] = effects[0] + 1e-9 * effects[2]
    pred = np.stack([effects[0] + effects[2] / 2, effects[1], effects[2]])  # the second truth is nearer by 1e-9 of it
    truth = Truth(effects, "delta", np.zeros(3, int), ((),) * 3)
    for distance in ("l1", "l2"):
        mid = getattr(retrieval, f"rank_{distance}_by_prediction")
        assert mid(pred, truth)[0] == 0.25
        assert replace(mid, ties="order")(pred, truth)[0] == 0.5


@pytest.mark.skipif(not has_numba(), reason="numba is not installed")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (9, 600, 131), (4, 513, 66)])
def test_compiled_cityblock_has_scipys_bits(shape, dtype, monkeypatch):
    b, n, g = shape
    rng = np.random.default_rng(g)
    query, pool = rng.standard_normal((b, g)), rng.standard_normal((n, g)).astype(dtype)
    monkeypatch.setattr(_cityblock, "SMALL", 0)
    found = _cityblock.cityblock(query, pool.T)
    np.testing.assert_array_equal(found, cdist(query, pool.astype(np.float64), "cityblock"))
    monkeypatch.setattr(_cityblock, "has_numba", lambda: False)
    np.testing.assert_array_equal(found, _cityblock.cityblock(query, pool.T))


def tied(n, g, dtype, seed=3):
    values = np.random.default_rng(seed).standard_normal((n, g)).astype(dtype)
    values[:, ::3] = 0
    values[:, 3::6] = -0.0  # the same value as 0
    values[: n // 2] = np.round(values[: n // 2] * 2)
    values[-1] = 0.25
    return values


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(12, 37), (5, 1), (40, 3000)])
def test_ranks_and_their_correlation_equal_scipy(shape, dtype):
    a, b = tied(*shape, dtype), tied(*shape, dtype, seed=4)[:, ::-1]
    np.testing.assert_array_equal(average_ranks(a), stats.rankdata(a, axis=1))
    mask = np.random.default_rng(5).random(shape) < 0.7
    mask[0], mask[1] = False, np.arange(shape[1]) == 0
    holes = np.where(mask, a, np.nan).astype(dtype)
    whole, part = rank_correlation(a, b), rank_correlation(np.asfortranarray(holes), b, mask)
    for i, keep in enumerate(mask):
        for got, use in ((whole[i], np.ones_like(keep)), (part[i], keep)):
            p, t = a[i, use].astype(float), b[i, use].astype(float)
            constant = len(p) < 2 or np.ptp(p) == 0 or np.ptp(t) == 0
            assert np.isnan(got) if constant else got == pytest.approx(stats.spearmanr(p, t)[0], abs=1e-14)
    np.testing.assert_array_equal(average_ranks(holes, mask)[mask], average_ranks(np.where(mask, a, 99), mask)[mask])
    if shape[1] > 1:
        assert set(rank_correlation(a, a)[:-1]) == {1.0}
        assert set(rank_correlation(a, -a)[:-1]) == {-1.0}


def test_correlation_of_ranks_needs_finite_values_where_ranked():
    x = np.array([[1.0, np.nan, 3.0]])
    with pytest.raises(ValueError, match="must be finite, found 1 that are not"):
        rank_correlation(np.ones((1, 3)), x)
    assert rank_correlation(x, x, np.array([[True, False, True]])).tolist() == [1.0]
    assert rank_correlation(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)
    assert np.isnan(rank_correlation(np.zeros((2, 0)), np.zeros((2, 0)))).all()


@pytest.mark.parametrize("hidden", [0.0, 0.2])
def test_row_metrics_do_not_depend_on_layout_type_or_other_rows(hidden):
    pred, truth = screen(n=31, g=211, noise=1.0, hidden=hidden)
    base = np.random.default_rng(6).gamma(1.0, size=pred.shape).astype(np.float32)
    truth = replace(truth, baseline=base, variance=base)
    for metric in (m for module in (errors, correlation, r2) for m in vars(module).values() if isinstance(m, Metric)):
        values = metric(pred, truth)
        turned = replace(truth, effects=np.asfortranarray(truth.effects))
        np.testing.assert_array_equal(metric(np.asfortranarray(pred), turned), values)
        wide = np.repeat(pred, 2, axis=1)[:, ::2]
        np.testing.assert_array_equal(metric(wide.astype(np.float64), truth), values)
        for row in (0, 30):
            part = slice(row, row + 1)
            fields = ("effects", "context", "targets", "baseline", "variance", "observed")
            one = replace(truth, **{f: getattr(truth, f)[part] for f in fields if getattr(truth, f) is not None})
            np.testing.assert_array_equal(metric(pred[part], one), values[part])
        kept = pred.copy()
        metric(pred, truth)
        np.testing.assert_array_equal(pred, kept)
