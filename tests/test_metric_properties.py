"""Properties that every metric of effects has: truth is best, noise is worse, range, order of rows and genes, units.

And closed forms: what Gaussian effects with Gaussian errors must score.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embbench.checks.metrics import subset
from embbench.core import Metric, Truth
from embbench.metrics import correlation, errors, r2, retrieval, systematic

MODULES = (errors, correlation, r2, retrieval, systematic)
BASES = {name: m for module in MODULES for name, m in vars(module).items() if isinstance(m, Metric)}
SETS = ("all", "notarget", "top10", "expressed12")
every_metric = pytest.mark.parametrize("metric", list(BASES.values()), ids=list(BASES))
quick = settings(max_examples=6, deadline=None, derandomize=True)


def form(metric, genes):
    """The metric on a gene set; the pairwise ones have no top-k form."""
    pairwise = getattr(metric, "genes_of", "row") == "pair"
    return replace(metric, genes="notarget" if pairwise and genes.startswith("top") else genes)


def screen(seed, n=9, g=30, contexts=2, hidden=0.0, scale=1.0):
    """A truth with every field that metrics of effects may ask for; unobserved effects are NaN."""
    rng = np.random.default_rng(seed)
    context = np.sort(rng.integers(0, contexts, size=n))
    baseline, centroid = rng.gamma(2.0, size=(contexts, g)), rng.normal(size=(contexts, g))
    effects = centroid[context] + rng.normal(size=(n, g))
    seen = rng.random((n, g)) >= hidden
    return Truth(
        effects=(np.where(seen, effects, np.nan) * scale).astype(np.float32),
        unit="delta",
        context=context,
        targets=tuple(rng.choice(g, size=rng.integers(0, 3), replace=False) for _ in range(n)),
        entities=tuple((f"e{i}",) for i in range(n)),
        observed=seen if hidden else None,
        baseline=(baseline[context] * scale).astype(np.float32),
        centroid=(centroid[context] * scale).astype(np.float32),
        centroid_truth=(centroid[context] * scale).astype(np.float32),
        variance=(rng.gamma(1.0, 0.2, size=(n, g)) * scale**2).astype(np.float32),
    )


def own(truth):
    return np.nan_to_num(truth.effects)


def prediction(truth, seed, amount):
    noise = np.random.default_rng([seed, 1]).normal(size=truth.effects.shape)
    return (own(truth) + amount * noise).astype(np.float32)


def agree(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


seeds, shares, sets = st.integers(0, 2**20), st.sampled_from([0.0, 0.1]), st.sampled_from(SETS)


@every_metric
@quick
@given(seed=seeds, genes=sets, hidden=shares, amount=st.sampled_from([0.3, 3.0]))
def test_nothing_scores_better_than_the_truth(metric, seed, genes, hidden, amount):
    metric = form(metric, genes)
    truth = screen(seed, hidden=hidden)
    best, values = metric(own(truth), truth), metric(prediction(truth, seed, amount), truth)
    both = np.isfinite(best) & np.isfinite(values)
    sign = 1 if metric.best == "high" else -1
    assert (sign * best[both] >= sign * values[both] - 1e-9).all()
    bound = metric.upper if metric.best == "high" else metric.lower
    if np.isfinite(bound):
        agree(best[np.isfinite(best)], bound)


@every_metric
@pytest.mark.parametrize("genes", ["all", "notarget"])
def test_more_noise_is_worse_in_expectation(metric, genes):
    metric, sign = replace(metric, genes=genes), 1 if metric.best == "high" else -1
    means = []
    for amount in (0.0, 1.0, 2.0, 4.0, 20.0):
        draws = [(screen(s, n=60, g=25, contexts=1), s) for s in range(5)]
        means.append(np.mean([np.nanmean(metric(prediction(t, s, amount), t)) for t, s in draws]))
    steps = np.diff(sign * np.array(means))
    assert (steps <= 0).all(), means
    assert (steps[1:] < 0).all(), means


@every_metric
@quick
@given(seed=seeds, genes=sets, hidden=shares, factor=st.sampled_from([-3.0, 0.0, 1e-6, 1.0, 1e4]))
def test_values_stay_in_range(metric, seed, genes, hidden, factor):
    metric = form(metric, genes)
    truth = screen(seed, hidden=hidden)
    values = metric((prediction(truth, seed, 1.0) * factor).astype(np.float32), truth)
    values = values[~np.isnan(values)]
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert ((values >= metric.lower - 1e-9) & (values <= metric.upper + 1e-9)).all()


@every_metric
@quick
@given(seed=seeds, genes=sets, hidden=shares)
def test_order_of_rows_does_not_matter(metric, seed, genes, hidden):
    metric = form(metric, genes)
    truth = screen(seed, hidden=hidden)
    pred, order = prediction(truth, seed, 1.0), np.random.default_rng(seed).permutation(len(truth.effects))
    agree(metric(pred[order], subset(truth, order)), metric(pred, truth)[order])


@every_metric
@quick
@given(seed=seeds, genes=sets, hidden=shares)
def test_order_of_genes_does_not_matter(metric, seed, genes, hidden):
    metric = form(metric, genes)
    truth = screen(seed, hidden=hidden)
    pred, order = prediction(truth, seed, 1.0), np.random.default_rng(seed).permutation(truth.effects.shape[1])
    where = np.argsort(order)
    columns = ("effects", "observed", "baseline", "centroid", "centroid_truth", "variance")
    fields = {f: getattr(truth, f)[:, order] for f in columns if getattr(truth, f) is not None}
    moved = replace(truth, targets=tuple(where[t] for t in truth.targets), **fields)
    agree(metric(pred[:, order], moved), metric(pred, truth))


@every_metric
@quick
@given(seed=seeds, genes=sets, hidden=shares)
def test_other_contexts_do_not_matter(metric, seed, genes, hidden):
    metric = form(metric, genes)
    truth = screen(seed, hidden=hidden)
    pred, rows = prediction(truth, seed, 1.0), np.flatnonzero(truth.context == truth.context[0])
    agree(metric(pred[rows], subset(truth, rows)), metric(pred, truth)[rows])


@every_metric
@pytest.mark.parametrize("factor", [0.125, 64.0])
def test_values_scale_as_their_unit_says(metric, factor):
    """Effects, controls and standard errors in another unit: pure numbers stay, the others follow."""
    small, large = screen(5), screen(5, scale=factor)
    power = {"": 0, "effect": 1, "effect^2": 2}[metric.unit]
    pred = prediction(small, 5, 1.0)
    scaled = metric((pred * np.float32(factor)).astype(np.float32), large)
    np.testing.assert_allclose(scaled, metric(pred, small) * factor**power, rtol=1e-5, atol=1e-9)


@every_metric
@quick
@given(seed=seeds, n=st.integers(1, 3), g=st.integers(1, 3))
def test_small_screens_give_a_value_or_nan(metric, seed, n, g):
    truth = screen(seed, n=n, g=3)
    truth = replace(truth, observed=np.arange(3)[None, :] < np.full((n, 1), g))
    for pred in (prediction(truth, seed, 1.0), own(truth), np.zeros_like(truth.effects)):
        values = metric(pred, truth)
        assert values.shape == (n,)
        assert not np.isinf(values).any()


# closed forms ---------------------------------------------------------------------------------------------------------

S, A, V, B = 1.3, 0.8, 0.6, 2.0  # spread of effects, of the prediction's error, of the truth's noise, of the controls


def gaussian(n=40, g=20_000, seed=0):
    """Effects N(0, S^2) around a centroid N(0, B^2), predictions with error N(0, A^2), controls N(0, B^2)."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, S, size=(n, g))
    pred = (effects + rng.normal(0, A, size=(n, g))).astype(np.float32)
    baseline, centroid = (np.repeat(rng.normal(0, B, size=(1, g)), n, axis=0).astype(np.float32) for _ in range(2))
    truth = Truth(
        effects.astype(np.float32),
        "delta",
        np.zeros(n, int),
        ((),) * n,
        baseline=baseline,
        centroid=centroid,
        centroid_truth=centroid,
        variance=np.full((n, g), V**2, np.float32),
    )
    return pred, truth


R = S / np.hypot(S, A)
CLOSED = {
    "mse": A**2,
    "rmse": A,
    "mae": A * np.sqrt(2 / np.pi),
    "l2": A * np.sqrt(20_000),
    "pearson": R,
    "cosine": R,
    "spearman": 6 / np.pi * np.arcsin(R / 2),
    "r2_effect": 1 - A**2 / S**2,
    "r2_perturbench": 1 - A**2 / (S**2 + A**2),
    "r2_expression": 1 - A**2 / (S**2 + B**2),
    "r2_pearson_expression": (S**2 + B**2) / (S**2 + B**2 + A**2),
}


@pytest.fixture(scope="module")
def gauss():
    return gaussian()


@pytest.mark.parametrize("name", list(CLOSED))
def test_gaussian_closed_forms(name, gauss):
    assert BASES[name](*gauss).mean() == pytest.approx(CLOSED[name], rel=0.01)


def test_gaussian_debiased_errors_forget_the_noise_of_the_truth(gauss):
    pred, truth = gauss
    noise = np.random.default_rng(1).normal(0, V, size=pred.shape)
    noisy = replace(truth, effects=(truth.effects + noise).astype(np.float32))
    assert errors.mse(pred, noisy).mean() == pytest.approx(A**2 + V**2, rel=0.01)
    assert errors.mse_debiased(pred, noisy).mean() == pytest.approx(A**2, rel=0.02)
    assert errors.l2_debiased(pred, noisy).mean() == pytest.approx(A * np.sqrt(20_000), rel=0.01)


def test_gaussian_systema_forgets_the_shared_response(gauss):
    pred, truth = gauss
    shared = replace(truth, effects=truth.effects + truth.centroid)
    lifted = pred + truth.centroid
    assert systematic.pearson_systema(lifted, shared).mean() == pytest.approx(R, rel=0.01)
    spread = S**2 + B**2
    assert correlation.pearson(lifted, shared).mean() == pytest.approx(np.sqrt(spread / (spread + A**2)), rel=0.01)


def one_gene(n=1500, seed=2):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n, 1))
    pred = (effects + rng.normal(0, A, size=(n, 1))).astype(np.float32)
    return pred, Truth(effects.astype(np.float32), "delta", np.zeros(n, int), ((),) * n)


BY_PREDICTION = np.arctan(np.sqrt(2) * A) / np.pi  # P(|t_j - p_i| < |e_i|), e_i = p_i - t_i, t_j - p_i ~ N(-e_i, 2)
BY_TRUTH = 2 / np.pi * np.arctan(A / np.sqrt(2 + A**2))  # P(|p_j - t_i| < |e_i|), p_j - t_i ~ N(0, 2 + A^2)


def test_gaussian_ranks_of_one_gene():
    pred, truth = one_gene()
    for distance in ("l1", "l2"):
        by_prediction, by_truth = (
            getattr(retrieval, f"rank_{distance}_by_{side}")(pred, truth).mean() for side in ("prediction", "truth")
        )
        assert by_prediction == pytest.approx(BY_PREDICTION, abs=0.015)
        assert by_truth == pytest.approx(BY_TRUTH, abs=0.015)
        score = getattr(retrieval, f"discrimination_{distance}_cell_eval")(pred, truth).mean()
        assert score == pytest.approx(1 - BY_PREDICTION, abs=0.015)
    assert systematic.centroid_accuracy(pred, truth).mean() == pytest.approx(1 - BY_PREDICTION, abs=0.015)
