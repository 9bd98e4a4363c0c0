"""Metrics against scipy, scikit-learn and definitions written out as loops."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial, stats
from sklearn import metrics as sk

from embbench.core import Metric, Truth
from embbench.metrics import _retrieval, correlation, errors, labels, population, r2, retrieval

ROWWISE = [
    errors.l2,
    errors.mse,
    errors.rmse,
    errors.mae,
    correlation.pearson,
    correlation.spearman,
    correlation.cosine,
]
ROWWISE += [r2.r2_effect, r2.r2_pearson_expression]
RANKS = {
    (distance, side): getattr(retrieval, f"rank_{distance}_by_{side}")
    for distance in ("l2", "cosine", "pearson")
    for side in ("prediction", "truth")
}
SCIPY = {"l2": spatial.distance.euclidean, "cosine": spatial.distance.cosine, "pearson": spatial.distance.correlation}


def example(n=9, g=30, seed=0, contexts=2, observed=False):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n, g)).astype(np.float32)
    seen = rng.random((n, g)) < 0.8 if observed else None
    if seen is not None:
        effects[~seen] = np.nan
    truth = Truth(
        effects=effects,
        unit="delta",
        context=np.arange(n) % contexts,
        targets=tuple(np.array([i % g]) if i % 3 else np.array([], dtype=np.int64) for i in range(n)),
        observed=seen,
        baseline=rng.gamma(1.0, size=(n, g)).astype(np.float32),
        variance=rng.gamma(1.0, size=(n, g)).astype(np.float32),
    )
    return (np.nan_to_num(effects) + rng.normal(size=(n, g))).astype(np.float32), truth


ORACLES = {
    "l2": lambda p, t, b: np.linalg.norm(p - t),
    "mse": lambda p, t, b: sk.mean_squared_error(t, p),
    "rmse": lambda p, t, b: sk.mean_squared_error(t, p) ** 0.5,
    "mae": lambda p, t, b: sk.mean_absolute_error(t, p),
    "pearson": lambda p, t, b: stats.pearsonr(p, t)[0],
    "spearman": lambda p, t, b: stats.spearmanr(p, t)[0],
    "cosine": lambda p, t, b: 1 - spatial.distance.cosine(p, t),
    "r2_effect": lambda p, t, b: sk.r2_score(t, p),
    "r2_pearson_expression": lambda p, t, b: stats.pearsonr(p + b, t + b)[0] ** 2,
}


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("genes", ["all", "notarget", "top10"])
@pytest.mark.parametrize(("metric", "oracle"), list(zip(ROWWISE, ORACLES.values(), strict=True)), ids=list(ORACLES))
def test_rowwise_equal_oracles(metric, oracle, genes, observed):
    pred, truth = example(observed=observed)
    got = replace(metric, genes=genes)(pred, truth)
    assert got.dtype == np.float64
    for i in range(len(pred)):
        keep = np.ones(30, bool) if truth.observed is None else truth.observed[i].copy()
        if genes != "all":
            keep[truth.targets[i]] = False
        if genes == "top10":
            size = np.where(keep, np.abs(truth.effects[i]) / np.sqrt(truth.variance[i]), -1)
            keep = np.isin(np.arange(30), np.argsort(-size)[:10])
        p, t, b = (x[i, keep].astype(float) for x in (pred, truth.effects, truth.baseline))
        assert got[i] == pytest.approx(oracle(p, t, b), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", ROWWISE, ids=list(ORACLES))
def test_blocks_do_not_move_a_number(metric, monkeypatch):
    pred, truth = example(n=20)
    whole = metric(pred, truth)
    monkeypatch.setattr("embbench.metrics._rows.BLOCK", 70)
    np.testing.assert_array_equal(metric(pred, truth), whole)


def naive_rank(distance, pred, truth, mask, by_truth):
    out = np.full(len(pred), np.nan)
    for i in range(len(pred)):
        mates = np.flatnonzero(truth.context == truth.context[i])
        d = {}
        for j in mates:
            keep = mask[i] & (True if truth.observed is None or by_truth else truth.observed[j])
            a, b = (pred[j], truth.effects[i]) if by_truth else (pred[i], truth.effects[j])
            scale = keep.sum() ** 0.5 if distance == "l2" else 1.0
            d[j] = SCIPY[distance](a[keep].astype(float), b[keep].astype(float)) / scale
        others = [x for j, x in d.items() if j != i]
        if others:
            out[i] = np.mean([(x < d[i]) + 0.5 * (x == d[i]) for x in others])
    return out


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("genes", ["all", "notarget", "top5"])
@pytest.mark.parametrize("key", list(RANKS), ids="-".join)
def test_ranks_equal_loops(key, genes, observed):
    pred, truth = example(n=21, g=40, contexts=3, observed=observed)
    metric = replace(RANKS[key], genes=genes)
    want = naive_rank(key[0], pred, truth, truth.mask(genes), key[1] == "truth")
    np.testing.assert_allclose(metric(pred, truth), want, atol=1e-12)


@pytest.mark.parametrize("key", list(RANKS), ids="-".join)
def test_rank_blocks_do_not_move_a_number(key, monkeypatch):
    pred, truth = example(n=21, contexts=2)
    whole = RANKS[key](pred, truth)
    monkeypatch.setattr(_retrieval, "BLOCK", 4)
    np.testing.assert_array_equal(RANKS[key](pred, truth), whole)


def test_target_gene_is_left_out_of_all_distances_of_its_row():
    truth = Truth(
        effects=np.array([[-5, 0.1, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        unit="delta",
        context=np.zeros(3, int),
        targets=(np.array([0]), np.array([], int), np.array([], int)),
    )
    pred = np.array([[-5, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)  # row 0 knows its knock-down and nothing else
    assert retrieval.rank_l2_by_prediction(pred, truth)[0] == 0.0
    assert replace(retrieval.rank_l2_by_prediction, genes="notarget")(pred, truth)[0] == 0.5


@pytest.mark.parametrize("noise", [0.0, 5e-8], ids=["equal", "float32-noise"])
@pytest.mark.parametrize("genes", ["all", "notarget"])
@pytest.mark.parametrize("distance", ["l2", "cosine", "pearson"])
def test_collapsed_predictions_rank_exactly_half(distance, genes, noise):
    _, truth = example(n=301, g=203, contexts=1)
    rng = np.random.default_rng(5)
    row = rng.normal(size=203).astype(np.float32)
    pred = (np.repeat(row[None], 301, axis=0) * (1 + noise * rng.standard_normal((301, 203)))).astype(np.float32)
    assert set(replace(RANKS[distance, "truth"], genes=genes)(pred, truth).tolist()) == {0.5}
    by_prediction = RANKS[distance, "prediction"](pred, truth)
    assert by_prediction.mean() == pytest.approx(0.5, abs=1e-12)
    no_change = np.zeros_like(pred)
    assert set(replace(RANKS[distance, "truth"], genes=genes)(no_change, truth).tolist()) == {0.5}


@pytest.mark.parametrize("key", list(RANKS), ids="-".join)
def test_rank_extremes_and_undefined(key):
    _, truth = example(n=12, contexts=1)
    assert (RANKS[key](truth.effects, truth) == 0).all()
    two = Truth(truth.effects[:2], "delta", np.zeros(2, int), truth.targets[:2])
    assert (RANKS[key](truth.effects[:2][::-1].copy(), two) == 1).all()
    alone = replace(truth, context=np.arange(12))
    assert np.isnan(RANKS[key](truth.effects, alone)).all()
    blind = replace(truth, observed=np.zeros(truth.effects.shape, bool))
    assert np.isnan(RANKS[key](truth.effects, blind)).all()


def test_random_predictions_rank_half_on_average():
    pred, truth = example(n=400, contexts=1)
    pred = np.random.default_rng(3).normal(size=pred.shape).astype(np.float32)
    for metric in RANKS.values():
        assert metric(pred, truth).mean() == pytest.approx(0.5, abs=0.06)


def test_undefined_is_nan_never_zero():
    pred, truth = example(n=4)
    pred[0] = 0.1
    pred[1] = 0.0
    for metric in (correlation.pearson, correlation.spearman):
        assert np.isnan(metric(pred, truth)).tolist() == [True, True, False, False]
    assert np.isnan(correlation.cosine(pred, truth)).tolist() == [False, True, False, False]
    flat = replace(truth, effects=np.full_like(truth.effects, 0.3))
    assert np.isnan(r2.r2_effect(pred, flat)).all()
    one = np.zeros(truth.effects.shape, bool)
    one[:, 0] = True
    few = replace(truth, observed=one)
    assert np.isnan(correlation.pearson(pred, few)).all()
    assert np.isfinite(errors.l2(pred, few)).all()
    none = replace(truth, observed=np.zeros_like(one))
    for metric in ROWWISE:
        assert np.isnan(metric(pred, none)).all()


def test_no_change_scores_high_on_expression_and_zero_on_effects():
    _, truth = example(n=5, g=400)
    small = replace(truth, effects=truth.effects * np.float32(0.05), baseline=truth.baseline * 3)
    nothing = np.zeros_like(small.effects)
    assert (r2.r2_pearson_expression(nothing, small) > 0.99).all()
    assert (r2.r2_effect(nothing, small) <= 0).all()
    with pytest.raises(ValueError, match="unit log2fc"):
        r2.r2_pearson_expression(nothing, replace(small, unit="log2fc"))
    with pytest.raises(ValueError, match="no baseline"):
        r2.r2_pearson_expression(nothing, replace(small, baseline=None))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_values_stay_in_range_and_rows_permute(seed, scale):
    pred, truth = example(n=7, g=6, seed=seed)
    pred = pred * np.float32(scale)
    order = np.random.default_rng(seed).permutation(7)
    moved = Truth(
        truth.effects[order],
        "delta",
        truth.context[order],
        tuple(truth.targets[i] for i in order),
        baseline=truth.baseline[order],
    )
    for metric in [*ROWWISE, *RANKS.values()]:
        values = metric(pred, truth)
        finite = values[np.isfinite(values)]
        assert ((finite >= metric.lower) & (finite <= metric.upper)).all()
        np.testing.assert_allclose(metric(pred[order], moved), values[order], rtol=1e-9, atol=1e-9)


def all_metrics():
    modules = (errors, correlation, r2, retrieval, labels, population)
    return [m for module in modules for m in vars(module).values() if isinstance(m, Metric)]


@pytest.mark.parametrize("metric", [m for m in all_metrics() if m.target == "effects"])
def test_truth_is_best_and_noise_is_worse(metric):
    _, truth = example(n=40, g=60, contexts=1)
    sign = 1 if metric.best == "low" else -1
    rng = np.random.default_rng(0)
    noise = rng.normal(size=truth.effects.shape).astype(np.float32)
    means = [sign * metric(truth.effects + s * noise, truth).mean() for s in (np.float32(x) for x in (0, 1, 3, 9))]
    assert means == sorted(means)
    bound = metric.lower if metric.best == "low" else metric.upper
    if np.isfinite(bound):
        assert means[0] == pytest.approx(sign * bound, abs=1e-7)


@pytest.mark.parametrize("metric", all_metrics())
def test_metrics_pickle_and_are_declared(metric):
    assert pickle.loads(pickle.dumps(metric)).source == metric.source
    assert metric.source
    assert metric.best in ("low", "high")


def label_example(n=6, g=50):
    rng = np.random.default_rng(2)
    truth = example(n, g)[1]
    lab = rng.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=(n, g)).astype(np.int8)
    probabilities = rng.dirichlet(np.ones(3), size=(n, g)).round(1)
    return probabilities, replace(truth, labels=lab, labels_tested=rng.random((n, g)) < 0.9)


@pytest.mark.parametrize("genes", ["all", "notarget"])
def test_auroc_equals_sklearn(genes):
    prob, truth = label_example()
    got = replace(labels.auroc_condition, genes=genes)(prob, truth)
    for i, keep in enumerate(truth.mask(genes) & truth.labels_tested):
        want = [sk.roc_auc_score(truth.labels[i, keep] == c, prob[i, keep, k]) for k, c in enumerate((-1, 0, 1))]
        assert got[i] == pytest.approx(np.mean(want), abs=1e-12)


def test_auroc_edges():
    prob, truth = label_example()
    lab = truth.labels.copy()
    lab[0] = 0
    lab[1] = np.where(np.arange(50) < 25, 0, 1)
    edge = replace(truth, labels=lab, labels_tested=np.ones_like(truth.labels_tested))
    got = labels.auroc_condition(prob, edge)
    assert np.isnan(got[0])
    assert got[1] == pytest.approx(np.mean([sk.roc_auc_score(lab[1] == c, prob[1, :, c + 1]) for c in (0, 1)]))
    perfect = (lab[:, :, None] == np.array([-1, 0, 1])).astype(float)
    assert np.nanmin(labels.auroc_condition(perfect, edge)) == 1.0
    with pytest.raises(ValueError, match="no labels"):
        labels.auroc_condition(prob, replace(truth, labels=None))


def test_wrong_predictions_are_refused():
    pred, truth = example()
    pred[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 predicted values are not finite"):
        errors.l2(pred, truth)
