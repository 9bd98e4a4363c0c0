"""The Lasso against scikit-learn at tight tolerance: closed form, corrections, descent, paths and selection errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model

from embbench.core import Inputs
from embbench.features.pca import PCA
from embbench.heads import _lasso, _lasso_loops
from embbench.heads.lasso import Lasso

ALPHAS = (1e-3, 1e-2, 1e-1, 1.0)


def rows(X):
    return Inputs(X, np.zeros(len(X), np.int64), sparse.csr_matrix((len(X), 1)), tuple((i,) for i in range(len(X))))


def screen(n, d, g, seed=0, dtype=np.float32, shift=0.0):
    """Correlated features and effects of very different sizes, one gene constant, one zero."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 6))
    X = latent @ rng.normal(size=(6, d)) + 0.7 * rng.normal(size=(n, d))
    Y = latent @ rng.normal(size=(6, g)) * np.geomspace(0.01, 2, g) + 0.05 * rng.normal(size=(n, g)) + shift
    Y[:, 0], Y[:, -1] = 0.0, 0.25
    return X.astype(dtype), Y.astype(dtype)


def scores(X):
    return PCA(100).fit(X).transform(X)


def oracle(X, Y, alpha):
    return linear_model.Lasso(alpha, tol=1e-13, max_iter=300_000).fit(X.astype(float), Y.astype(float))


def forms(monkeypatch, form):
    if form == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(_lasso_loops, "has_numba", lambda: form == "numba")


def true_gap(head, X, Y):
    """Largest relative duality gap from residuals, not from Gram matrices."""
    x, y = X.astype(float) - X.mean(axis=0, dtype=float), Y.astype(float) - Y.mean(axis=0, dtype=float)
    left, n = y - x @ head.coef_, len(X)
    k = head.alpha / np.maximum(np.abs(x.T @ left / n).max(axis=0), head.alpha)
    primal = (left**2).sum(axis=0) / (2 * n) + head.alpha * np.abs(head.coef_).sum(axis=0)
    dual = (y**2).sum(axis=0) / (2 * n) - ((y - k * left) ** 2).sum(axis=0) / (2 * n)
    size = (y**2).sum(axis=0) / (2 * n)
    used = size > 1e-12
    return ((primal - dual)[used] / size[used]).max()


@pytest.mark.parametrize("form", ["numba", "numpy"])
@pytest.mark.parametrize(("n", "d", "dtype", "shift"), [(90, 40, "f4", 0), (30, 80, "f4", 3.0), (60, 20, "f8", 1e3)])
def test_closed_form_on_scores_equals_sklearn(monkeypatch, form, n, d, dtype, shift):
    forms(monkeypatch, form)
    X, Y = screen(n, d, 9, dtype=dtype, shift=shift)
    X = scores(X)
    for head in Lasso.fit_path([Lasso(a) for a in ALPHAS], rows(X), Y):
        want = oracle(X, Y, head.alpha)
        np.testing.assert_allclose(head.coef_.T, want.coef_, atol=2e-6 * np.abs(want.coef_).max() + 1e-9)
        np.testing.assert_allclose(head.predict(rows(X)), want.predict(X.astype(float)), rtol=1e-6, atol=1e-5)
        assert true_gap(head, X, Y) - 1e-9 <= head.gap_ < 1e-4
        assert head.coef_.dtype == np.float64


@pytest.mark.parametrize("size", [1e-6, 1e-4, 3e-3])
def test_nearly_uncorrelated_features_are_corrected(size):
    rng = np.random.default_rng(3)
    X = np.linalg.qr(rng.normal(size=(80, 8)))[0]
    X = np.linalg.qr(X - X.mean(axis=0))[0] * 9 @ (np.eye(8) + size * rng.uniform(-1, 1, size=(8, 8)))
    Y = X @ rng.normal(size=(8, 5)) * 0.2 + rng.normal(size=(80, 5))
    head = Lasso(0.02).fit(rows(X), Y)
    want = oracle(X, Y, 0.02).coef_.T
    np.testing.assert_allclose(head.coef_, want, atol=3e-6 * np.abs(want).max())
    assert 0 <= head.gap_ < 1e-4


@pytest.mark.parametrize("form", ["numba", "numpy"])
@pytest.mark.parametrize(("n", "d"), [(150, 40), (25, 30), (40, 1)])
def test_descent_equals_sklearn(monkeypatch, form, n, d):
    forms(monkeypatch, form)
    X, Y = screen(n, d, 6)
    for head in Lasso.fit_path([Lasso(a) for a in (0.3, 0.004, 0.05)], rows(X), Y):
        want = oracle(X, Y, head.alpha)
        if d < n:
            np.testing.assert_allclose(head.coef_.T, want.coef_, atol=1e-4 * np.abs(want.coef_).max())
        np.testing.assert_allclose(head.predict(rows(X)), want.predict(X.astype(float)), atol=2e-4)
        assert abs(true_gap(head, X, Y)) < 1e-4
        assert head.gap_ == pytest.approx(true_gap(head, X, Y), abs=1e-6)


@pytest.mark.parametrize("features", [scores, lambda X: X], ids=["closed", "descent"])
def test_a_fit_alone_has_the_bits_of_the_path(features):
    X, Y = screen(60, 12, 7)
    asked = rows(features(X))
    for head in Lasso.fit_path([Lasso(a) for a in (0.02, 1.0, 1e-3, 0.37, 0.02)], asked, Y):
        alone = Lasso(head.alpha).fit(asked, Y)
        np.testing.assert_array_equal(alone.coef_, head.coef_)
        np.testing.assert_array_equal(alone.predict(asked), head.predict(asked))
        assert alone.gap_ == head.gap_
    assert list(Lasso.fit_path([], asked, Y)) == []


@pytest.mark.parametrize("features", [scores, lambda X: X], ids=["closed", "descent"])
@pytest.mark.parametrize(("dtype", "g", "shift"), [("f4", 700, 0.0), ("f4", 3, 50.0), ("f8", 5, 0.0)])
def test_held_errors_are_those_of_predictions(features, dtype, g, shift):
    X, Y = screen(50, 10, g, dtype=dtype, shift=shift)
    Y, order = np.asfortranarray(Y), np.random.default_rng(0).permutation(50)
    folds = []
    for held in np.array_split(order, 3):
        fit = np.setdiff1d(order, held)
        made = PCA(100).fit(X[fit])
        folds.append((rows(made.transform(X) if features is scores else X), fit, held))
    heads = [Lasso(a) for a in ALPHAS]
    for errors, (inputs, fit, held) in zip(Lasso.held_errors(heads, folds, Y), folds, strict=True):
        assert errors.shape == (4, len(held))
        for mine, alpha in zip(errors, ALPHAS, strict=True):
            want = oracle(inputs.X[fit], Y[fit], alpha).predict(inputs.X[held].astype(float)) - Y[held]
            np.testing.assert_allclose(np.sqrt(mine), np.linalg.norm(want, axis=1), rtol=2e-4, atol=1e-5)
    assert not any(hasattr(head, "coef_") for head in heads)


def test_held_errors_names_bad_shapes():
    X, Y = screen(8, 2, 3)
    fit, none = np.arange(5), np.array([], np.int64)
    with pytest.raises(ValueError, match=r"expected one row of Y .*\(5, 3\), 8 rows"):
        Lasso.held_errors([Lasso()], [(rows(X), fit, fit)], Y[:5])
    with pytest.raises(ValueError, match="a fold of 8 rows fits none of them"):
        Lasso.held_errors([Lasso()], [(rows(X), none, fit)], Y)
    assert Lasso.held_errors([Lasso()], [(rows(X), fit, none)], Y)[0].shape == (1, 0)


def test_the_gap_of_an_unfinished_solution_is_sklearns():
    X, Y = screen(60, 12, 6)
    made = _lasso.products(X, Y)
    with pytest.warns(UserWarning, match="Objective did not converge"):
        rough = linear_model.Lasso(0.01, max_iter=3, tol=1e-12).fit(X.astype(float), Y[:, 1:-1].astype(float))
    coef = np.zeros((12, 6))
    coef[:, 1:-1] = rough.coef_.T
    want = np.array(rough.dual_gap_) / (made.energy[1:-1] / 2)
    assert _lasso.gap(made, made.cross - made.gram @ coef, coef, 0.01) == pytest.approx(want.max(), rel=1e-6)


def test_one_column_and_copies_of_it():
    X, Y = screen(20, 1, 4)
    one = Lasso(0.01).fit(rows(X), Y)
    np.testing.assert_allclose(one.coef_.T, oracle(X, Y, 0.01).coef_, atol=1e-6)
    copies = Lasso(0.01).fit(rows(np.repeat(X, 3, axis=1)), Y)
    np.testing.assert_allclose(copies.coef_.sum(axis=0), one.coef_[0], atol=1e-5)
    assert abs(true_gap(copies, np.repeat(X, 3, axis=1), Y)) < 1e-4
