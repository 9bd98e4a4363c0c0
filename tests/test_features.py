"""Features against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import decomposition, preprocessing

from embbench.features.pca import PCA
from embbench.features.raw import Raw
from embbench.features.standardise import Standardise


def table(n, d, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(n, min(n, d))) * np.geomspace(10, 0.1, min(n, d))
    return (low @ rng.normal(size=(min(n, d), d)) + rng.normal(size=d)).astype(dtype)


@pytest.mark.parametrize(
    ("n", "d", "dim"), [(60, 20, 100), (60, 20, 7), (30, 80, 100), (30, 80, 10), (40, 40, 40), (2, 5, 3)]
)
def test_pca_equals_sklearn(n, d, dim):
    X, new = table(n, d), table(13, d, seed=1)
    k = min(dim, d, n - 1)
    scaler = preprocessing.StandardScaler().fit(X)
    oracle = decomposition.PCA(k, svd_solver="full").fit(scaler.transform(X))
    ours = PCA(dim).fit(X)
    for rows in (X, new):
        want, got = oracle.transform(scaler.transform(rows)), ours.scores(rows)
        assert got.shape == want.shape
        sign = np.sign((got * want).sum(axis=0))
        np.testing.assert_allclose(got * sign, want, atol=1e-6 * np.abs(want).max())
        assert ours.transform(rows).dtype == np.float32


def test_pca_keeps_small_axes_exactly():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 6)))[0] for n in (50, 30))
    X = (left - left.mean(axis=0)) * np.geomspace(1, 1e-6, 6) @ right.T
    oracle = decomposition.PCA(6, svd_solver="full").fit(X)
    from embbench.numerics.linalg import pca

    mean, axes, singular = pca(X, 6)
    np.testing.assert_allclose(singular, oracle.singular_values_, rtol=1e-8)
    np.testing.assert_allclose(np.abs((axes * oracle.components_.T).sum(axis=0)), 1.0, atol=1e-9)
    np.testing.assert_allclose(mean, X.mean(axis=0), atol=1e-15)


def test_pca_leaves_axes_without_variance_out():
    X = np.repeat(table(5, 12), 6, axis=0)
    ours = PCA(100).fit(X)
    assert ours.transform(X).shape == (30, 4)
    assert PCA(3).fit(np.ones((4, 6))).transform(np.eye(6)).tolist() == [[0.0]] * 6
    assert PCA(3).fit(np.ones((1, 6))).transform(np.ones((2, 6))).shape == (2, 1)


def test_pca_sign_is_fixed():
    X = table(20, 8)
    axes = PCA(5).fit(X).components_
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(5)] > 0).all()
    np.testing.assert_array_equal(PCA(5).fit(X).transform(X), PCA(5).fit(X).transform(X))


def test_standardise_equals_sklearn_and_zeroes_constants():
    X, new = table(25, 9, dtype=np.float32), table(7, 9, seed=3, dtype=np.float32)
    X[:, 4] = 0.1
    want = preprocessing.StandardScaler().fit(X.astype(float)).transform(new.astype(float))
    want[:, 4] = 0.0
    np.testing.assert_allclose(Standardise().fit(X).transform(new), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [Raw, Standardise, PCA])
def test_contract(make):
    X = table(10, 6, dtype=np.float32)
    before = X.copy()
    feature = make()
    with pytest.raises(RuntimeError, match="before fit"):
        feature.transform(X)
    assert feature.fit(table(4, 6, seed=9)).fit(X) is feature
    whole = feature.transform(X)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, make().fit(X).transform(X))
    np.testing.assert_allclose(feature.transform(X[3:5]), whole[3:5], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(X, before)
    with pytest.raises(ValueError, match="fitted on 6 columns, got 5"):
        feature.transform(X[:, :5])


def test_bad_input():
    with pytest.raises(ValueError, match="dim must be an integer >= 1, got 0"):
        PCA(0)
    with pytest.raises(ValueError, match="finite matrix"):
        Standardise().fit(np.array([[np.nan, 1.0]]))


@pytest.mark.parametrize("kind", [Standardise, PCA])
def test_noise_columns_of_a_truncated_svd_are_constant(kind: type) -> None:
    """A gene family without a training row leaves rounding there and a real value in the new row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 5))
    X[:, 4] = 1e-13 * rng.normal(size=30)
    new = rng.normal(size=(3, 5))
    out = kind().fit(X).transform(new)
    assert np.abs(out).max() < 20
    without = kind().fit(X[:, :4]).transform(new[:, :4])
    assert np.abs(np.abs(out[:, : without.shape[1]]) - np.abs(without)).max() < 1e-4
