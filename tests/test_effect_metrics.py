"""Metrics of effects under the papers' conventions: against scikit-learn, scipy and the packages' recipes as loops."""

from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import spatial, stats
from sklearn import metrics as sk

from embbench import registry
from embbench.core import Metric, Truth, UserError
from embbench.metrics import correlation, errors, r2, retrieval, systematic
from embbench.metrics._retrieval import Retrieval, rank_rows

DISTANCES = {
    "l1": spatial.distance.cityblock,
    "l2": spatial.distance.euclidean,
    "cosine": spatial.distance.cosine,
    "pearson": spatial.distance.correlation,
}
CELL_EVAL = {d: getattr(retrieval, f"discrimination_{d}_cell_eval") for d in ("l1", "l2", "cosine")}


def example(n=12, g=40, seed=0, contexts=1, observed=False, knockdown=0.0):
    """Truth with one measured target in two of three rows, and a prediction that is partly right."""
    rng = np.random.default_rng(seed)
    centroid = np.repeat(rng.normal(size=(contexts, g)), -(-n // contexts), axis=0)[:n]
    effects = centroid + rng.normal(size=(n, g))
    targets = tuple(np.array([i % g]) if i % 3 else np.array([], dtype=np.int64) for i in range(n))
    for i, columns in enumerate(targets):
        effects[i, columns] -= knockdown
    seen = rng.random((n, g)) < 0.8 if observed else None
    pred = (effects + rng.normal(size=(n, g))).astype(np.float32)
    truth = Truth(
        effects=(effects if seen is None else np.where(seen, effects, np.nan)).astype(np.float32),
        unit="delta",
        context=np.repeat(np.arange(contexts), -(-n // contexts))[:n],
        targets=targets,
        observed=seen,
        baseline=np.repeat(rng.gamma(2.0, size=(contexts, g)), -(-n // contexts), axis=0)[:n].astype(np.float32),
        centroid=centroid.astype(np.float32),
        centroid_truth=centroid.astype(np.float32),
        variance=rng.gamma(1.0, 0.3, size=(n, g)).astype(np.float32),
    )
    return pred, truth


def kept(truth, genes, i):
    keep = np.ones(truth.effects.shape[1], bool) if truth.observed is None else truth.observed[i].copy()
    if genes == "notarget":
        keep[truth.targets[i]] = False
    return keep


def made(metric, genes="all", **params):
    return replace(metric, genes=genes, **params)


# errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("genes", ["all", "notarget"])
def test_debiased_errors_equal_their_definition(genes, observed):
    pred, truth = example(observed=observed)
    length, square = (made(m, genes)(pred, truth) for m in (errors.l2_debiased, errors.mse_debiased))
    for i in range(len(pred)):
        k = kept(truth, genes, i)
        p, t, v = (np.asarray(x[i, k], dtype=float) for x in (pred, truth.effects, truth.variance))
        x = spatial.distance.sqeuclidean(p, t) - v.sum()
        assert length[i] == pytest.approx(np.copysign(abs(x) ** 0.5, x), rel=1e-6)
        assert square[i] == pytest.approx(x / k.sum(), rel=1e-6)


def test_debiased_square_is_unbiased_and_l2_is_not():
    rng = np.random.default_rng(3)
    n, g = 20_000, 30
    noise_free, variance = rng.normal(size=g), rng.gamma(2.0, 0.5, size=g)
    pred = noise_free + rng.normal(size=g) * 0.3
    truth = Truth(
        rng.normal(noise_free, np.sqrt(variance), size=(n, g)).astype(np.float32),
        "delta",
        np.zeros(n, int),
        ((),) * n,
        variance=np.repeat(variance[None], n, axis=0).astype(np.float32),
    )
    every = np.repeat(pred[None], n, axis=0).astype(np.float32)
    values = errors.l2_debiased(every, truth)
    squares, want = np.sign(values) * values**2, spatial.distance.sqeuclidean(pred, noise_free)
    assert abs(squares.mean() - want) < 4 * squares.std() / n**0.5
    assert errors.mse_debiased(every, truth).mean() == pytest.approx(squares.mean() / g, rel=1e-6)
    assert (errors.l2(every, truth) ** 2).mean() > 3 * want
    perfect = errors.l2_debiased(np.repeat(noise_free[None], n, axis=0).astype(np.float32), truth)
    assert 0.4 < (perfect < 0).mean() < 0.6


def test_debiased_edges():
    pred, truth = example(n=4)
    assert (errors.l2_debiased(truth.effects, truth) == -np.sqrt(truth.variance.sum(axis=1, dtype=float))).all()
    holes = truth.variance.copy()
    holes[1, truth.targets[1]] = np.nan
    holes[2] = np.nan
    partly = replace(truth, variance=holes)
    assert np.isnan(errors.l2_debiased(pred, partly)).tolist() == [False, True, True, False]
    assert np.isnan(made(errors.l2_debiased, "notarget")(pred, partly)).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="no variance"):
        errors.l2_debiased(pred, replace(truth, variance=None))
    exact = replace(truth, variance=np.zeros_like(holes))
    np.testing.assert_array_equal(errors.l2_debiased(pred, exact), errors.l2(pred, exact))


@pytest.mark.parametrize(("metric", "oracle"), [(errors.l2, spatial.distance.euclidean), (correlation.pearson, None)])
def test_expressed_genes_are_those_of_the_controls(metric, oracle):
    pred, truth = example(contexts=2)
    got = made(metric, "expressed10")(pred, truth)
    for i in range(len(pred)):
        top = np.argsort(-truth.baseline[i])[:10]
        p, t = pred[i, top].astype(float), truth.effects[i, top].astype(float)
        assert got[i] == pytest.approx(stats.pearsonr(p, t)[0] if oracle is None else oracle(p, t), rel=1e-6)
    everything = made(metric, "expressed1000")(pred, truth)
    np.testing.assert_array_equal(everything, metric(pred, truth))
    with pytest.raises(ValueError, match="no baseline"):
        made(metric, "expressed10")(pred, replace(truth, baseline=None))


def test_errors_state_their_unit():
    units = {name: getattr(errors, name).unit for name in ("l2", "rmse", "mae", "l2_debiased", "mse", "mse_debiased")}
    assert units == dict.fromkeys(("l2", "rmse", "mae", "l2_debiased"), "effect") | dict.fromkeys(
        ("mse", "mse_debiased"), "effect^2"
    )


# R2 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("genes", ["all", "notarget"])
def test_r2_variants_equal_sklearn_and_scipy(genes, observed):
    pred, truth = example(observed=observed)
    names = ("r2_effect", "r2_perturbench", "r2_expression", "r2_pearson_expression")
    got = {name: made(getattr(r2, name), genes)(pred, truth) for name in names}
    for i in range(len(pred)):
        k = kept(truth, genes, i)
        p, t, b = (np.asarray(x[i, k], dtype=float) for x in (pred, truth.effects, truth.baseline))
        want = (sk.r2_score(t, p), sk.r2_score(p, t), sk.r2_score(t + b, p + b))
        want += (stats.linregress(t + b, p + b).rvalue ** 2,)
        for name, value in zip(names, want, strict=True):
            assert got[name][i] == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_r2_edges():
    pred, truth = example(n=3)
    flat = np.full_like(pred, 0.25)
    assert np.isnan(r2.r2_perturbench(flat, truth)).all()
    assert np.isfinite(r2.r2_effect(flat, truth)).all()
    assert np.isnan(r2.r2_effect(pred, replace(truth, effects=flat))).all()
    assert np.isnan(r2.r2_perturbench(pred, replace(truth, effects=flat))).all()
    level = replace(truth, effects=flat, baseline=flat)
    assert np.isnan(r2.r2_expression(pred, level)).all()
    huge = (pred * 1e4).astype(np.float32)
    assert (r2.r2_perturbench(huge, truth) > -0.2).all()  # what the reversed arguments do not see
    assert (r2.r2_effect(huge, truth) < -1e6).all()
    small = replace(truth, effects=(truth.effects * 0.05).astype(np.float32))
    assert (r2.r2_expression(np.zeros_like(pred), small) > 0.95).all()
    assert (r2.r2_effect(np.zeros_like(pred), small) <= 0).all()


# Systema -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("genes", ["all", "notarget"])
def test_systema_pearson_equals_scipy_on_expression(genes, observed):
    pred, truth = example(contexts=3, observed=observed)
    got = made(systematic.pearson_systema, genes)(pred, truth)
    for i in range(len(pred)):
        k = kept(truth, genes, i)
        p, t, b, c = (np.asarray(x[i, k], float) for x in (pred, truth.effects, truth.baseline, truth.centroid))
        reference = b + c  # mean of the perturbed centroids of the training perturbations
        assert got[i] == pytest.approx(stats.pearsonr((b + t) - reference, (b + p) - reference)[0], rel=1e-6)
    assert (got < correlation.pearson(pred, truth)).mean() > 0.6


def test_systema_pearson_of_the_training_mean_is_undefined():
    _, truth = example(contexts=2)
    mean = truth.centroid
    rounded = np.nextafter(mean, np.float32(np.inf))
    summed = (mean.astype(np.float64) * 3 / 3 + 1e-8).astype(np.float32)
    for pred in (mean, rounded, summed, mean + np.float32(0.5)):
        assert np.isnan(systematic.pearson_systema(pred, truth)).all()
    assert np.isnan(systematic.pearson_systema(truth.effects, replace(truth, effects=mean))).all()
    nothing = systematic.pearson_systema(np.zeros_like(mean), truth)
    for i in range(len(mean)):
        c, t = mean[i].astype(float), truth.effects[i].astype(float)
        assert nothing[i] == pytest.approx(stats.pearsonr(-c, t - c)[0], rel=1e-6)


def systema_accuracy(pred, truth, rows):
    d = spatial.distance.cdist(pred[rows].astype(float), truth.effects[rows].astype(float))
    return [(d[i] > d[i, i]).sum() / (len(rows) - 1) for i in range(len(rows))]


def test_centroid_accuracy_equals_systema():
    pred, truth = example(n=20, contexts=2)
    got = systematic.centroid_accuracy(pred, truth)
    for code in (0, 1):
        rows = np.flatnonzero(truth.context == code)
        np.testing.assert_allclose(got[rows], systema_accuracy(pred, truth, rows), atol=1e-12)
    assert (systematic.centroid_accuracy(truth.effects, truth) == 1).all()
    twins = truth.effects.copy()
    twins[1] = twins[0]
    same = replace(truth, effects=twins)
    assert systematic.centroid_accuracy(twins, same)[:3].tolist() == [8 / 9, 8 / 9, 1.0]  # ties count as wrong
    one_each = replace(truth, context=np.arange(20))
    assert np.isnan(systematic.centroid_accuracy(pred, one_each)).all()
    low = made(systematic.centroid_accuracy, form="rank")(pred, truth)
    np.testing.assert_allclose(1 - low, got, atol=1e-12)


# retrieval -----------------------------------------------------------------------------------------------------------


def pair_mask(truth, mask, i, j, by, genes_of):
    if genes_of == "pair":
        return mask[i] & mask[j]
    return mask[i] & (True if truth.observed is None or by == "truth" else truth.observed[j])


def naive(metric, pred, truth):
    """The definition as loops over pairs of rows."""
    mask, out = truth.mask(metric.genes), np.full(len(pred), np.nan)

    def distance(i, j, keep):
        a, b = (truth.effects[i], pred[j]) if metric.by == "truth" else (pred[i], truth.effects[j])
        value = DISTANCES[metric.distance](a[keep].astype(float), b[keep].astype(float))
        return value / {"l1": keep.sum(), "l2": keep.sum() ** 0.5}.get(metric.distance, 1)

    for i in range(len(pred)):
        closer = before = after = farther = 0
        for j in np.flatnonzero(truth.context == truth.context[i]):
            if i == j:
                continue
            keep = pair_mask(truth, mask, i, j, metric.by, metric.genes_of)
            own = distance(i, i, keep if metric.genes_of == "pair" else mask[i])
            gap = distance(i, j, keep) - own
            tied = abs(gap) < 1e-7
            closer, farther = closer + (gap < 0 and not tied), farther + (gap > 0 and not tied)
            before, after = before + (tied and j < i), after + (tied and j > i)
        others = closer + before + after + farther
        against = {"mid": (before + after) / 2, "optimistic": 0, "pessimistic": before + after, "order": before}
        for_own = against | {"optimistic": before + after, "pessimistic": 0}
        share = farther + for_own[metric.ties] if metric.form == "position" else closer + against[metric.ties]
        share /= others + (metric.over == "n")
        out[i] = 1 - share if metric.form == "score" else share
    return out


def tied_example(seed=0, observed=False):
    """Repeated truths and predictions, so that there are ties in both directions."""
    pred, truth = example(n=18, g=25, seed=seed, contexts=2)
    pred[[1, 4, 6]], pred[[11, 12]] = pred[0], pred[10]
    effects = truth.effects.copy()
    effects[[2, 3]], effects[13] = effects[0], effects[10]
    seen = None
    if observed:
        seen = np.repeat(np.random.default_rng(seed).random((1, 25)) < 0.7, 18, axis=0)
        seen[5, :4] = False
        effects = np.where(seen, effects, np.nan).astype(np.float32)
    return pred, replace(truth, effects=effects, observed=seen)


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("genes_of", ["row", "pair"])
@pytest.mark.parametrize("by", ["prediction", "truth"])
@pytest.mark.parametrize("distance", list(DISTANCES))
def test_every_convention_equals_loops(distance, by, genes_of, observed):
    pred, truth = tied_example(observed=observed)
    forms = itertools.product(
        ("mid", "optimistic", "pessimistic", "order"), ("n-1", "n"), ("rank", "score", "position")
    )
    for ties, over, form in forms:
        params = {"ties": ties, "over": over, "form": form, "genes_of": genes_of}
        for genes in ("all", "notarget"):
            metric = Retrieval(rank_rows, "low", "x", distance=distance, by=by, genes=genes, **params)
            np.testing.assert_allclose(metric(pred, truth), naive(metric, pred, truth), atol=1e-9)


@pytest.mark.parametrize("genes", ["top5", "expressed8"])
@pytest.mark.parametrize("by", ["prediction", "truth"])
def test_l1_of_few_genes_equals_loops(genes, by):
    pred, truth = example(n=15, contexts=2, observed=True)
    metric = made(getattr(retrieval, f"rank_l1_by_{by}"), genes)
    np.testing.assert_allclose(metric(pred, truth), naive(metric, pred, truth), atol=1e-9)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_discrimination_equals_cell_eval(distance):
    pred, truth = example(n=14, g=30, knockdown=3.0)
    names = np.array([f"g{i}" for i in range(30)])
    perts = np.array([names[t[0]] if len(t) else f"other{i}" for i, t in enumerate(truth.targets)])
    got = made(CELL_EVAL[distance], "notarget")(pred, truth)
    for i, pert in enumerate(perts):
        use = np.flatnonzero(names != pert)
        away = sk.pairwise_distances(truth.effects[:, use], pred[i, use].reshape(1, -1), metric=distance).ravel()
        rank = np.flatnonzero(np.argsort(away, kind="stable") == i)[0]
        assert got[i] == pytest.approx(1 - rank / len(perts), abs=1e-12)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_discrimination_of_truth_and_of_equal_predictions(distance):
    _, truth = example(n=8)
    assert (CELL_EVAL[distance](truth.effects, truth) == 1).all()
    same = np.repeat(truth.effects.mean(axis=0, keepdims=True), 8, axis=0)
    got = CELL_EVAL[distance](same, truth)
    assert sorted(got.tolist()) == [k / 8 for k in range(1, 9)]  # measured with cell-eval 0.8.2: .125 ... 1.0
    assert got.mean() == 0.5625
    tied = replace(truth, effects=np.repeat(truth.effects[:1], 8, axis=0))
    assert CELL_EVAL[distance](same, tied).tolist() == [1 - k / 8 for k in range(8)]


def perturbench_rank(matrix):
    """Sort each reference's predictions best first; position of its own one / n (PerturBench of 2024, no shuffle)."""
    table = pd.DataFrame(matrix)
    order = {c: table[c].sort_values(kind="stable").index.tolist() for c in table}
    return np.array([order[c].index(c) / len(table) for c in table])


@pytest.mark.parametrize("distance", ["l2", "cosine", "pearson"])
def test_over_n_equals_perturbench_of_2024(distance):
    pred, truth = example(n=13)
    d = [[DISTANCES[distance](p.astype(float), t.astype(float)) for t in truth.effects] for p in pred]
    metric = getattr(retrieval, f"rank_{distance}_over_n_by_truth")
    np.testing.assert_allclose(metric(pred, truth), perturbench_rank(d), atol=1e-12)
    same = np.repeat(pred[:1], 6, axis=0)
    six = Truth(truth.effects[:6], "delta", np.zeros(6, int), ((),) * 6)
    np.testing.assert_allclose(metric(same, six), 5 / 12)  # (n - 1) / (2 n), the expectation of its shuffled ties
    assert made(metric, ties="order")(same, six).max() == pytest.approx(5 / 6)  # measured: the worst
    assert made(metric, over="n-1")(same, six).tolist() == [0.5] * 6


def test_txpert_equals_its_recipe():
    pred, truth = example(n=13, seed=4)
    got = retrieval.retrieval_pearson_txpert(pred, truth)
    for i in range(13):
        sims = sorted((stats.pearsonr(pred[i], truth.effects[j])[0], j) for j in range(13))
        assert got[i] == pytest.approx([j for _, j in sims].index(i) / 13, abs=1e-12)
    assert set(retrieval.retrieval_pearson_txpert(truth.effects, truth)) == {12 / 13}
    same = np.repeat(pred[:1], 13, axis=0)
    assert retrieval.retrieval_pearson_txpert(same, truth).mean() == pytest.approx(12 / 26)


@pytest.mark.parametrize("distance", list(DISTANCES))
@pytest.mark.parametrize("by", ["prediction", "truth"])
def test_tie_policies_bracket_the_mid_rank(distance, by):
    pred, truth = tied_example()
    metric = getattr(retrieval, f"rank_{distance}_by_{by}")
    low, mid, order, high = (made(metric, ties=t)(pred, truth) for t in ("optimistic", "mid", "order", "pessimistic"))
    np.testing.assert_allclose((low + high) / 2, mid, atol=1e-12)
    assert ((low <= order) & (order <= high)).all()
    assert (low < high).any()


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("distance", list(DISTANCES))
def test_collapsed_predictions(distance, observed):
    """What the docstring of `retrieval` states: exact by truth, on average by prediction, biased without targets."""
    pred, truth = example(n=120, g=60, observed=observed, knockdown=6.0)
    same = np.repeat(pred[:1] * 0.1, 120, axis=0)
    by_truth, by_prediction = (getattr(retrieval, f"rank_{distance}_by_{side}") for side in ("truth", "prediction"))
    for genes in ("all", "notarget", "top10"):
        assert set(made(by_truth, genes)(same, truth).tolist()) == {0.5}
    if not observed:
        assert by_prediction(same, truth).mean() == pytest.approx(0.5, abs=1e-12)
    for genes in ("all", "notarget"):
        pairwise = made(by_prediction, genes, genes_of="pair")
        assert pairwise(same, truth).mean() == pytest.approx(0.5, abs=1e-12)
    assert made(by_prediction, "notarget")(same, truth).mean() < 0.45  # own knock-down left out, the others' kept


def test_pairwise_of_truth_is_perfect_and_needs_common_genes():
    _, truth = example(n=30, observed=True, knockdown=3.0)
    filled = np.nan_to_num(truth.effects)
    for distance in ("l2", "cosine", "pearson"):
        metric = made(getattr(retrieval, f"rank_{distance}_pairwise_by_prediction"), "notarget")
        assert (metric(filled, truth) == 0).all()
    with pytest.raises(ValueError, match="genes_of=pair needs genes all, notarget or expressedK, found 'top20'"):
        made(retrieval.rank_l2_pairwise_by_prediction, "top20")


def test_candidates_are_counted():
    pred, truth = example(n=9, g=4, contexts=2)
    seen = np.ones((9, 4), bool)
    seen[0, 1:], seen[1, 0], seen[2] = False, False, False
    some = replace(truth, observed=seen, targets=((),) * 9)
    mask = some.mask("all")
    for by, genes_of in itertools.product(("prediction", "truth"), ("row", "pair")):
        want = np.zeros(9, int)
        for i in range(9):
            mates = np.flatnonzero(some.context == some.context[i])
            shares = [pair_mask(some, mask, i, j, by, genes_of).any() for j in mates]
            want[i] = sum(shares) if mask[i].any() else 0
        got = retrieval.candidates(some, mask, by, genes_of)
        assert got.tolist() == want.tolist()
        metric = made(retrieval.rank_l2_by_prediction, by=by, genes_of=genes_of)
        assert metric.candidates(some).tolist() == want.tolist()
        assert np.isnan(metric(pred, some)).tolist() == (want < 2).tolist()
    assert retrieval.candidates(truth, truth.mask("notarget")).tolist() == [5] * 5 + [4] * 4


def test_edges_of_retrieval():
    pred, truth = example(n=1)
    for metric in ranks():
        assert np.isnan(metric(pred, truth)).all()
    pred, truth = example(n=4, g=1)
    for metric in ranks():
        values = metric(pred, replace(truth, targets=((),) * 4))
        assert np.isfinite(values).all()
    for metric in ranks():  # nothing scored: every row is its own only gene
        own = replace(truth, targets=tuple(np.array([0]) for _ in range(4)))
        assert np.isnan(made(metric, "notarget")(pred, own)).all()


def ranks():
    return [m for m in (*vars(retrieval).values(), systematic.centroid_accuracy) if isinstance(m, Retrieval)]


def test_parameters_are_checked_and_what_follows_is_derived():
    for name in ("distance", "by", "ties", "over", "form", "genes_of"):
        with pytest.raises(ValueError, match=f"Retrieval: {name} must be .*, found 'other'"):
            made(retrieval.rank_l2_by_truth, **{name: "other"})
    flipped = made(retrieval.rank_l2_by_truth, form="score")
    assert (flipped.best, flipped.lower, flipped.upper) == ("high", 0.0, 1.0)
    assert made(flipped, form="rank").best == "low"
    assert "ties count half" in retrieval.rank_l2_by_truth.formula
    assert "at most (n - 1) / n" in retrieval.retrieval_pearson_txpert.formula
    formulas = [m.formula for m in ranks()]
    assert len(set(formulas)) == len(formulas)


def test_registered_names_take_parameters():
    parse = registry.default().parse
    pred, truth = tied_example()
    for text in ("rank_l2_by_truth_all:ties=order", "rank_l2_by_truth_all:over=n"):
        metric = parse("metrics", text).make()
        key, value = text.partition(":")[2].split("=")
        assert getattr(metric, key) == value
        assert (metric(pred, truth) != retrieval.rank_l2_by_truth(pred, truth)).any()


@pytest.mark.parametrize("text", ["rank_l2_by_truth_all:distance=l1", "l2_all:best=high", "l2_all:genes=top20"])
def test_a_spec_cannot_make_a_name_mean_something_else(text):
    with pytest.raises(UserError, match="other variants have names of their own"):
        registry.default().parse("metrics", text).make()


def everything():
    modules = (errors, correlation, r2, retrieval, systematic)
    return [m for module in modules for m in vars(module).values() if isinstance(m, Metric)]


def score(metric, pred, truth):
    return metric(pred, truth)


def test_metrics_travel_to_other_processes():
    pred, truth = example()
    metrics = [made(m, "notarget") for m in everything()]
    assert all(isinstance(pickle.loads(pickle.dumps(m)), type(m)) for m in metrics)
    with ProcessPoolExecutor(1) as pool:
        for metric, far in zip(metrics, pool.map(score, metrics, [pred] * 99, [truth] * 99), strict=False):
            np.testing.assert_array_equal(far, metric(pred, truth))
