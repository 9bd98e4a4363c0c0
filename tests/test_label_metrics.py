"""Label metrics and areas against scikit-learn, and leave-one-out influences against scoring every subset of rows."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from embbench.core import Metric, Truth
from embbench.metrics import _per_gene, labels
from embbench.numerics import areas

CLASSES = np.array([-1, 0, 1])
FAMILIES = ("f1_macro", "precision_macro", "recall_macro", "auroc", "ap")
SKLEARN = {"f1_macro": sk.f1_score, "precision_macro": sk.precision_score, "recall_macro": sk.recall_score}


def example(n=9, g=12, contexts=2, seed=0, coarse=True, tested=0.8) -> tuple[np.ndarray, Truth]:
    """Probabilities with many ties, labels with classes missing here and there, and untested entries."""
    rng = np.random.default_rng(seed)
    lab = rng.choice(CLASSES, p=[0.2, 0.6, 0.2], size=(n, g)).astype(np.int8)
    lab[:, 0], lab[: n // 2, 1] = 0, np.abs(lab[: n // 2, 1])
    prob = rng.dirichlet(np.ones(3), size=(n, g))
    prob = np.round(prob * 4) / 4 if coarse else prob
    seen = rng.random((n, g)) < 0.9
    truth = Truth(
        effects=np.where(seen, 0.0, np.nan).astype(np.float32),
        unit="delta",
        context=np.arange(n) % contexts,
        targets=tuple(np.array([i % g]) if i % 3 else np.array([], dtype=np.int64) for i in range(n)),
        observed=seen,
        labels=lab,
        labels_tested=rng.random((n, g)) < tested,
    )
    return prob.astype(np.float32), truth


def class_of(prob: np.ndarray) -> np.ndarray:
    """The most probable class, none on any tie, one entry at a time."""
    best = [CLASSES[p == p.max()] for p in prob.reshape(-1, 3)]
    return np.array([b[0] if len(b) == 1 else 0 for b in best]).reshape(prob.shape[:-1])


def oracle(family: str, lab: np.ndarray, prob: np.ndarray) -> float:
    """scikit-learn's value of one gene or condition: labels (m,), probabilities (m, 3)."""
    present = np.unique(lab)
    if not len(present):
        return np.nan
    if family in SKLEARN:
        return SKLEARN[family](lab, class_of(prob), labels=present, average="macro", zero_division=0)
    if len(present) == 1:
        return np.nan
    area = sk.roc_auc_score if family == "auroc" else sk.average_precision_score
    return float(np.mean([area(lab == c, prob[:, c + 1]) for c in present]))


def gene_score(family: str, prob: np.ndarray, truth: Truth, scored: np.ndarray, rows: np.ndarray) -> float:
    """The mean over genes of the statistic over some rows, by scikit-learn."""
    values = []
    for j in range(scored.shape[1]):
        keep = rows[scored[rows, j]]
        values.append(oracle(family, truth.labels[keep, j], prob[keep, j]))
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


@pytest.mark.parametrize("genes", ["all", "notarget"])
@pytest.mark.parametrize("family", FAMILIES)
def test_conditions_equal_sklearn(family, genes):
    for seed in range(4):
        prob, truth = example(seed=seed)
        got = replace(getattr(labels, f"{family}_condition"), genes=genes)(prob, truth)
        scored = truth.mask(genes) & truth.labels_tested
        want = [oracle(family, truth.labels[i, k], prob[i, k]) for i, k in enumerate(scored)]
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("genes", ["all", "notarget"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tested", [0.3, 0.9])
def test_genes_equal_sklearn_and_influences_brute_force(family, genes, tested):
    for seed in range(3):
        prob, truth = example(seed=seed, tested=tested)
        metric = replace(getattr(labels, f"{family}_gene"), genes=genes)
        got, scored = metric(prob, truth), truth.mask(genes) & truth.labels_tested
        for c in np.unique(truth.context):
            rows = np.flatnonzero((truth.context == c) & scored.any(axis=1))
            theta = gene_score(family, prob, truth, scored, rows)
            left = np.array([gene_score(family, prob, truth, scored, rows[rows != i]) for i in rows])
            known = np.isfinite(left)
            want = theta + np.where(known, (len(rows) - 1) * (np.nanmean(left) - left), 0.0)
            np.testing.assert_allclose(got[rows], want, atol=1e-10)
            assert np.mean(got[rows]) == pytest.approx(theta, abs=1e-12)
        assert np.isnan(got[~scored.any(axis=1)]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", ["gene", "condition"])
def test_blocks_do_not_move_a_number(family, level, monkeypatch):
    prob, truth = example(n=14, g=30)
    metric = getattr(labels, f"{family}_{level}")
    whole = metric(prob, truth)
    monkeypatch.setattr(labels, "BLOCK", 40)
    monkeypatch.setattr(_per_gene, "BLOCK", 40)
    np.testing.assert_allclose(metric(prob, truth), whole, rtol=0, atol=1e-14)


def test_one_score_per_gene_has_per_gene_auroc_of_exactly_half():
    _, truth = example(n=31, g=50, contexts=3)
    constant = np.random.default_rng(1).dirichlet(np.ones(3), size=50).astype(np.float32)
    values = labels.auroc_gene(np.repeat(constant[None], 31, axis=0), truth)
    assert set(values.tolist()) == {0.5}


def test_perfect_wrong_and_undefined():
    _, truth = example(n=8, contexts=1)
    exact = np.eye(3, dtype=np.float32)[truth.labels + 1]
    for family in FAMILIES:
        for level in ("gene", "condition"):
            values = getattr(labels, f"{family}_{level}")(exact, truth)
            assert set(values[np.isfinite(values)].tolist()) == {1.0}, (family, level)
    one_class = replace(truth, labels=np.zeros_like(truth.labels))
    for level in ("gene", "condition"):
        assert np.isnan(getattr(labels, f"auroc_{level}")(exact, one_class)).all()
        assert np.isnan(getattr(labels, f"ap_{level}")(exact, one_class)).all()
    nothing = replace(truth, labels_tested=np.zeros_like(truth.labels_tested))
    for metric in all_metrics():
        assert np.isnan(metric(exact, nothing)).all()
        with pytest.raises(ValueError, match="no labels"):
            metric(exact, replace(truth, labels=None))


def all_metrics() -> list[Metric]:
    return [m for m in vars(labels).values() if isinstance(m, Metric)]


def test_zero_division_and_ties_as_stated():
    truth = Truth(
        np.zeros((1, 4), np.float32),
        "delta",
        np.zeros(1, int),
        (np.array([], int),),
        labels=np.array([[0, 0, 1, 1]], np.int8),
        labels_tested=np.ones((1, 4), bool),
    )
    never_up = np.tile(np.array([0.3, 0.4, 0.3], np.float32), (1, 4, 1))
    assert labels.precision_macro_condition(never_up, truth)[0] == (0.5 + 0.0) / 2  # up: never predicted, 0
    assert labels.recall_macro_condition(never_up, truth)[0] == (1.0 + 0.0) / 2
    assert labels.f1_macro_condition(never_up, truth)[0] == pytest.approx((2 / 3 + 0.0) / 2)
    assert labels.decided(np.array([[[0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.5, 0.5]]])).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: m.about[:30] + m.level)
def test_metrics_say_what_they_are(metric):
    assert metric.source
    assert metric.formula
    assert (metric.lower, metric.upper) == (0.0, 1.0)
    assert metric.needs == ("labels", "labels_tested")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 5), st.sampled_from([0.4, 0.9, 1.0]))
def test_areas_equal_sklearn_and_so_do_they_without_each_entry(seed, n, levels, seen):
    rng = np.random.default_rng(seed)
    score, positive = rng.integers(0, levels, (3, n)).astype(np.float32), rng.random((3, n)) < rng.random()
    mask = rng.random((3, n)) < seen
    cases = (
        (sk.roc_auc_score, areas.auroc, areas.auroc_without_each),
        (sk.average_precision_score, areas.average_precision, areas.average_precision_without_each),
    )
    for peer, area, without in cases:

        def value(row: int, keep: np.ndarray, peer=peer) -> float:
            truth = positive[row, keep]
            defined = truth.any() and not (peer is sk.roc_auc_score and truth.all())
            return float(peer(truth, score[row, keep])) if defined else np.nan

        whole, left = without(score, positive, mask)
        np.testing.assert_allclose(whole, [value(i, mask[i]) for i in range(3)], atol=1e-12)
        np.testing.assert_allclose(area(score, positive, mask), whole, atol=1e-14)
        want = [[value(i, mask[i] & (np.arange(n) != j)) for j in range(n)] for i in range(3)]
        np.testing.assert_allclose(left, want, atol=1e-12)


def test_areas_refuse_what_they_cannot_rank():
    score = np.array([[0.0, np.nan]])
    with pytest.raises(ValueError, match="finite, found 1"):
        areas.auroc(score, np.array([[True, False]]))
    assert np.isnan(areas.auroc(score, np.array([[True, False]]), np.array([[True, False]]))).all()
    with pytest.raises(ValueError, match=r"\(1, 2\), \(2, 1\)"):
        areas.average_precision(score, np.ones((2, 1), bool))
    assert areas.auroc_without_each(np.zeros((2, 0)), np.zeros((2, 0), bool))[1].shape == (2, 0)


def test_row_values_linearise_a_bootstrap_over_rows():
    """The standard error of the mean of the row values is that of the statistic under resampling of rows."""
    prob, truth = example(n=120, g=40, contexts=1, coarse=False, tested=1.0)
    prob = (prob + 0.5 * np.eye(3)[truth.labels + 1]).astype(np.float32)
    values = labels.auroc_gene(prob, truth)
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        rows = rng.integers(120, size=120)
        again = Truth(
            truth.effects[rows],
            "delta",
            truth.context,
            tuple(truth.targets[i] for i in rows),
            observed=truth.observed[rows],
            labels=truth.labels[rows],
            labels_tested=truth.labels_tested[rows],
        )
        found.append(labels.auroc_gene(prob[rows], again).mean())
    assert values.std() / np.sqrt(120) == pytest.approx(np.std(found), rel=0.2)


def test_no_warnings():
    prob, truth = example(tested=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in all_metrics():
            metric(prob, truth)
