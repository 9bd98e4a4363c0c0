"""Label heads against scikit-learn fitted gene by gene, counts written out, and a published sparse label table."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from embbench.checks import failures
from embbench.core import Inputs, Truth
from embbench.heads import _lbfgs, label_logistic
from embbench.heads.knn import KNN
from embbench.heads.label_knn import LabelKNN
from embbench.heads.label_logistic import LabelLogistic
from embbench.heads.label_most_frequent import LabelMostFrequent
from embbench.heads.label_no_change import LabelNoChange
from embbench.heads.label_prior import LabelPrior
from embbench.metrics import labels as metrics

HEADS = (LabelLogistic, LabelKNN, LabelPrior, LabelMostFrequent, LabelNoChange)
CLASSES = (-1, 0, 1)


def inputs_of(X: np.ndarray) -> Inputs:
    n = len(X)
    return Inputs(
        X.astype(np.float32), np.zeros(n, np.int64), sparse.csr_matrix(np.eye(n)), tuple((i,) for i in range(n))
    )


def example(n: int, d: int, g: int = 24, seed: int = 0) -> tuple[Inputs, np.ndarray, np.ndarray, Inputs]:
    """Correlated features off the origin, labels of 1 to 3 classes with a common or rare "none", tested 85 %."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + 30, d)) * np.linspace(2, 0.1, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 3.0
    score = (X - 3) @ rng.normal(size=(d, g)) / np.sqrt(d) + rng.normal(size=(n + 30, g))
    cut = np.abs(rng.normal(1.0, 0.8, size=g))
    Y = (score > cut).astype(np.float32) - (score < -1.3 * cut)
    Y[:, 0], Y[:, 1], Y[:, 2] = 0, np.maximum(Y[:, 1], 0), np.where(Y[:, 2] == 0, 1, Y[:, 2])
    return inputs_of(X[:n]), Y[:n], rng.random((n, g)) < 0.85, inputs_of(X[n:])


def per_gene(fit: object, train: Inputs, Y: np.ndarray, tested: np.ndarray, query: Inputs) -> np.ndarray:
    """Probabilities (q, g, 3) of one scikit-learn model per gene; a gene of one class is that class."""
    out = np.zeros((len(query), Y.shape[1], 3))
    for j in range(Y.shape[1]):
        keep = tested[:, j]
        y = Y[keep, j].astype(int)
        if len(np.unique(y)) == 1:
            out[:, j, y[0] + 1] = 1.0
            continue
        model = fit().fit(train.X[keep].astype(np.float64), y)
        out[:, j, model.classes_ + 1] = model.predict_proba(query.X.astype(np.float64))
    return out


@pytest.mark.parametrize("weight", [None, "balanced"])
@pytest.mark.parametrize(("n", "d", "C"), [(60, 5, 1.0), (90, 12, 0.01), (40, 70, 0.1), (50, 3, 100.0), (35, 35, 1e-4)])
def test_logistic_equals_sklearn_per_gene(n, d, C, weight):
    train, Y, tested, query = example(n, d)
    peer = per_gene(
        lambda: LogisticRegression(C=C, class_weight=weight, solver="newton-cholesky", tol=1e-10, max_iter=1000),
        train, Y, tested, query,
    )  # fmt: skip
    present = [len(np.unique(Y[tested[:, j], j])) for j in range(Y.shape[1])]
    assert set(present) == {1, 2, 3}
    ours = LabelLogistic(C=C, class_weight=weight).fit(train, Y, tested).predict_proba(query)
    assert np.abs(ours - peer).max() < 1e-4
    absent = np.array([[c not in Y[tested[:, j], j] for c in CLASSES] for j in range(Y.shape[1])])
    assert (ours[:, absent] == 0).all()


def test_logistic_reaches_the_stated_tolerance():
    """The gradient of the mean loss, written out from the weights of the logits."""
    train, Y, tested, _ = example(80, 6)
    head = LabelLogistic(C=0.5).fit(train, Y, tested)
    P = head.predict_proba(train).astype(np.float64)
    design = np.concatenate([np.ones((80, 1)), (train.X - head.mean_) @ head.axes_], axis=1)
    for j in range(3, Y.shape[1]):
        n, hot = tested[:, j].sum(), Y[:, j, None] == CLASSES
        if len(np.unique(Y[tested[:, j], j])) < 3:
            continue
        penalty = head.weights_[j].T / (0.5 * n)
        penalty[0] = 0
        gradient = design.T @ (tested[:, j, None] * (P[:, j] - hot)) / n + penalty
        assert np.abs(gradient).max() < 2e-6


def test_logistic_blocks_and_squeezing_do_not_move_it(monkeypatch):
    train, Y, tested, query = example(50, 6)
    whole = LabelLogistic(C=1.0).fit(train, Y, tested).predict_proba(query)
    monkeypatch.setattr(label_logistic, "BLOCK", 300)
    monkeypatch.setattr(_lbfgs, "SQUEEZE", 1.0)
    np.testing.assert_allclose(LabelLogistic(C=1.0).fit(train, Y, tested).predict_proba(query), whole, atol=2e-5)


def test_logistic_extremes():
    train, Y, tested, query = example(30, 4)
    far = inputs_of(train.X * 1e4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tight = LabelLogistic(C=1e-12).fit(train, Y, tested).predict_proba(query)
        wide = LabelLogistic(C=1e-8).fit(far, Y, tested).predict_proba(far)
    prior = LabelPrior().fit(train, Y, tested).predict_proba(query)
    np.testing.assert_allclose(tight, prior, atol=1e-5)  # nothing but the intercept is left
    near = LabelLogistic(C=1.0).fit(train, Y, tested).predict_proba(train)
    np.testing.assert_allclose(wide, near, atol=1e-4)  # C goes with the square of the features
    with pytest.warns(RuntimeWarning, match=r"\d+ of 24 genes had not reached tol 1e-06 after 2 iterations"):
        LabelLogistic(C=1e3, max_iter=2).fit(train, Y, tested)
    blank = inputs_of(np.zeros((30, 4)))  # constant features say nothing
    np.testing.assert_allclose(LabelLogistic(C=1.0).fit(blank, Y, tested).predict_proba(query), prior, atol=1e-4)
    empty = inputs_of(np.zeros((30, 0)))
    np.testing.assert_allclose(LabelLogistic().fit(empty, Y, tested).predict_proba(empty), prior, atol=1e-5)


def test_logits_too_large_for_exponentials():
    """Steps that go astray must come back: the shifted branch equals the plain one where both are defined."""
    rng = np.random.default_rng(0)
    design = np.concatenate([np.ones((20, 1)), rng.normal(size=(20, 3))], axis=1)
    hot = np.eye(3)[rng.integers(3, size=(5, 20))].transpose(0, 2, 1)
    problem = label_logistic._Softmax.of(design, hot, C=1.0)
    x = rng.normal(size=(5, 8)) * 3
    value, gradient = problem(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_logistic, "LARGE", -1.0)
        shifted = problem(x)
    np.testing.assert_allclose(shifted[0], value, rtol=1e-12)
    np.testing.assert_allclose(shifted[1], gradient, atol=1e-12)
    assert np.isfinite(problem(x * 1e4)[0]).all()
    for p in range(8):  # the gradient is the derivative of the value
        step = np.eye(8)[p] * 1e-5
        slope = (problem(x + step)[0] - problem(x - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[:, p], slope, atol=1e-7)


@pytest.mark.parametrize("k", [1, 4, 200])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_vote_equals_sklearn_where_all_is_tested(k, metric):
    train, Y, _, query = example(60, 5)
    everything = np.ones(Y.shape, bool)
    name = {"l2": "euclidean", "cosine": "cosine"}[metric]
    peer = per_gene(
        lambda: KNeighborsClassifier(min(k, 60), metric=name, algorithm="brute"), train, Y, everything, query
    )
    np.testing.assert_allclose(LabelKNN(k, metric).fit(train, Y).predict_proba(query), peer, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"weights": "softmax", "temperature": 0.5}])
@pytest.mark.parametrize("smoothing", [0.0, 2.0])
@pytest.mark.parametrize("towards", ["prior", "uniform"])
def test_votes_of_tested_neighbours_with_the_weights_of_knn(options, smoothing, towards):
    train, Y, _, query = example(25, 3)
    tested = np.random.default_rng(4).random(Y.shape) < 0.3
    tested[:, 3] = False
    k = 4
    head = LabelKNN(k, smoothing=smoothing, towards=towards, **options).fit(train, Y, tested)
    ours, W = head.predict_proba(query), KNN(k, **options).weights(train, query).toarray()
    prior = LabelPrior().fit(train, Y, tested).predict_proba(query)[0]
    base = prior if towards == "prior" else np.full(prior.shape, 1 / 3)
    for i in range(len(query)):
        for j in range(Y.shape[1]):
            vote = np.array([W[i, tested[:, j] & (Y[:, j] == c)].sum() for c in CLASSES])
            counts = k * vote + smoothing * base[j]
            want = counts / counts.sum() if vote.sum() > 0 else base[j]
            np.testing.assert_allclose(ours[i, j], want, atol=1e-6)


def test_constant_heads_count():
    Y = np.array([[1, -1, 0, -1], [1, 1, -1, 1], [0, 0, -1, 0], [-1, 0, 0, 0]], np.float32)
    tested = np.ones(Y.shape, bool)
    tested[2:, 0] = tested[:, 1] = tested[3, 3] = False
    rows = inputs_of(np.zeros((4, 1)))
    prior = LabelPrior().fit(rows, Y, tested).predict_proba(rows)
    np.testing.assert_allclose(prior[0], [[0, 0, 1], [1 / 3] * 3, [0.5, 0.5, 0], [1 / 3] * 3], atol=1e-7)
    assert all(np.array_equal(row, prior[0]) for row in prior)
    often = LabelMostFrequent().fit(rows, Y, tested)
    assert often.predict_proba(rows)[0].argmax(axis=1).tolist() == [2, 1, 1, 1]  # ties, and no test at all, are none
    assert often.predict(rows)[0].tolist() == [1, 0, 0, 0]
    no_change = LabelNoChange().fit(rows, Y, tested).predict_proba(rows)
    assert (no_change == np.array([0, 1, 0])).all()


@pytest.mark.parametrize("head", HEADS)
def test_contracts(head):
    assert failures("heads", head) == {}


@pytest.mark.parametrize("head", HEADS)
def test_untested_labels_never_matter_and_wrong_labels_are_refused(head):
    train, Y, tested, query = example(40, 4)
    junk = np.where(tested, Y, 5).astype(np.float32)
    want = head().fit(train, Y, tested).predict_proba(query)
    assert np.array_equal(head().fit(train, junk, tested).predict_proba(query), want)
    assert want.dtype == np.float32
    np.testing.assert_allclose(want.sum(axis=2), 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"labels must be -1 .*found \[5"):
        head().fit(train, junk)
    with pytest.raises(ValueError, match="one row of Y per training row"):
        head().fit(train, Y[:-1])
    with pytest.raises(ValueError, match="the tested mask must be"):
        head().fit(train, Y, tested[:, :-1])
    with pytest.raises(RuntimeError, match="before fit"):
        head().predict_proba(query)


@pytest.mark.parametrize(
    ("head", "bad", "message"),
    [
        (LabelLogistic, {"C": 0}, "C must be > 0, got 0"),
        (LabelLogistic, {"tol": -1}, "tol must be > 0"),
        (LabelLogistic, {"max_iter": 0}, "max_iter must be a whole number"),
        (LabelLogistic, {"class_weight": "equal"}, "class_weight must be None or 'balanced', got 'equal'"),
        (LabelKNN, {"k": 0}, "k must be a whole number"),
        (LabelKNN, {"metric": "l3"}, "metric must be one of"),
        (LabelKNN, {"weights": "distance"}, "weights must be one of"),
        (LabelKNN, {"temperature": 0.0}, "temperature must be > 0"),
        (LabelKNN, {"smoothing": -0.5}, "smoothing must be >= 0, got -0.5"),
        (LabelKNN, {"towards": "none"}, "towards must be one of"),
    ],
)
def test_parameters_are_validated(head, bad, message):
    with pytest.raises(ValueError, match=message):
        head(**bad)


@pytest.mark.shared
def test_l1000_label_table(shared_data: Path) -> None:
    """Consensus signatures of L1000 as sparse labels: up or down where listed, none elsewhere, half of the rows held
    out. The prior ranks no perturbation (0.5 exactly); vectors that know nothing rank them by chance.
    """
    table = pd.read_parquet(shared_data / "expression" / "lincs_l1000_overexpression_consensus_dysreg.parquet")
    table = table[table["status"] == "measured"]
    busy = table["pert_symbol"].value_counts()
    table = table[table["pert_symbol"].isin(busy.index[busy >= 10])]
    wide = table.pivot_table(index="pert_symbol", columns="symbol", values="z_score")
    wide = wide.loc[:, wide.notna().sum() >= 8]
    lab = np.nan_to_num(np.sign(wide.to_numpy())).astype(np.int8)
    n, g = lab.shape
    assert n > 150
    assert g > 500
    train, test = np.arange(0, n, 2), np.arange(1, n, 2)
    X = np.random.default_rng(0).normal(size=(n, 20))
    truth = Truth(
        np.zeros((len(test), g), np.float32),
        "zscore",
        np.zeros(len(test), int),
        tuple(np.array([], int) for _ in test),
        labels=lab[test],
        labels_tested=np.ones((len(test), g), bool),
    )

    def scores(head: object, matrix: np.ndarray) -> np.ndarray:
        fitted = head.fit(inputs_of(matrix[train]), lab[train].astype(np.float32))
        return metrics.auroc_gene(fitted.predict_proba(inputs_of(matrix[test])), truth)

    assert set(scores(LabelPrior(), X).tolist()) == {0.5}
    blind = scores(LabelLogistic(C=0.01), X)
    assert blind.mean() == pytest.approx(0.5, abs=4 * blind.std() / np.sqrt(len(test)))
    assert abs(blind.mean() - 0.5) < 0.06
    oracle = scores(LabelLogistic(C=0.01), np.linalg.svd(lab.astype(float), full_matrices=False)[0][:, :20] * 10)
    assert oracle.mean() > 0.7  # vectors made of the labels themselves: the score can move
