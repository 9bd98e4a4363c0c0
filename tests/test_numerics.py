"""Folds, ranks, Gram matrices and gene selection against scipy, numpy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from embbench.core import UserError
from embbench.numerics.folds import first_fold, inner_folds, partition
from embbench.numerics.hvg import normalised_dispersion, select_genes
from embbench.numerics.linalg import gram, pca
from embbench.numerics.ranks import average_ranks


@given(n=st.integers(0, 60), k=st.integers(1, 12), seed=st.integers(0, 9))
def test_partition_is_balanced_and_seeded(n, k, seed):
    fold = partition(n, k, seed)
    sizes = np.bincount(fold, minlength=k)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(fold, partition(n, k, seed))


def test_partition_refuses_nonsense():
    with pytest.raises(ValueError, match="n_folds >= 1, got 4 and 0"):
        partition(4, 0, 0)
    with pytest.raises(ValueError, match="n_folds must be >= 2, got 1"):
        inner_folds([(0,), (1,)], 1, 0)
    with pytest.raises(ValueError, match="row 1 has no unit"):
        inner_folds([(0,), (), (1,)], 2, 0)


@settings(max_examples=80, deadline=None)
@given(
    units=st.lists(st.sets(st.integers(3, 14), min_size=1, max_size=3).map(tuple), min_size=1, max_size=30),
    k=st.integers(2, 6),
)
def test_inner_folds_hold_whole_units_out(units, k):
    pairs = inner_folds(units, k, seed=0)
    held = [i for _, rows in pairs for i in rows]
    assert len(held) == len(set(held))
    for fit, rows in pairs:
        assert len(fit)
        assert len(rows)
        fitted = {u for i in fit for u in units[i]}
        assert all(not set(units[i]) <= fitted for i in rows)
        assert not set(fit) & set(rows)
    if all(len(u) == 1 for u in units) and len(set(units)) > 1:
        assert sorted(held) == list(range(len(units)))
        assert len(pairs) == min(k, len(set(units)))


def test_inner_folds_of_one_unit():
    assert inner_folds([(4,), (4,)], 5, seed=0) == []
    assert inner_folds([], 5, seed=0) == []


def test_first_fold_is_the_lowest():
    home, touches = first_fold([(0, 2), (1,), (2,)], np.array([2, 1, 0]))
    assert home.tolist() == [0, 1, 0]
    assert touches.tolist() == [[True, False, True], [False, True, False], [True, False, False]]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_average_ranks_equal_scipy(data):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 12)))
    X = data.draw(hnp.arrays(np.float64, shape, elements=st.integers(-3, 3).map(float)))
    mask = data.draw(hnp.arrays(bool, shape))
    np.testing.assert_array_equal(average_ranks(X), stats.rankdata(X, axis=1))
    got = average_ranks(np.where(mask, X, np.nan), mask)
    for row, keep, values in zip(got, mask, X, strict=True):
        np.testing.assert_array_equal(row[keep], stats.rankdata(values[keep]))
        assert np.isnan(row[~keep]).all()


def test_average_ranks_refuses_nan():
    with pytest.raises(ValueError, match="found 1 that are not"):
        average_ranks(np.array([[1.0, np.nan]]))
    assert average_ranks(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_gram_in_float64(block):
    rng = np.random.default_rng(0)
    Y, Z = (rng.normal(size=(n, 50)).astype(np.float32) + 100 for n in (6, 4))
    np.testing.assert_allclose(gram(Y, block=block), Y.astype(float) @ Y.astype(float).T, rtol=1e-14)
    np.testing.assert_allclose(gram(Y, Z, block=block), Y.astype(float) @ Z.astype(float).T, rtol=1e-14)
    np.testing.assert_array_equal(gram(Y), gram(Y).T)
    with pytest.raises(ValueError, match="3 genes do not match 50"):
        gram(Y, Z[:, :3])


@pytest.mark.parametrize("shape", [(20, 6), (6, 20)])
def test_pca_reconstructs(shape):
    X = np.random.default_rng(0).normal(size=shape)
    mean, axes, singular = pca(X, 100)
    k = min(shape[0] - 1, shape[1])
    assert axes.shape == (shape[1], k)
    np.testing.assert_allclose(axes.T @ axes, np.eye(k), atol=1e-10)
    np.testing.assert_allclose((X - mean) @ axes @ axes.T + mean, X, atol=1e-10)
    np.testing.assert_allclose(singular, np.linalg.svd(X - mean, compute_uv=False)[:k], rtol=1e-10)


def test_pca_edges():
    assert pca(np.ones((1, 3)), 2)[1].shape == (3, 0)
    assert pca(np.ones((4, 3)), 2)[1].shape == (3, 0)
    with pytest.raises(ValueError, match="dim >= 1"):
        pca(np.ones((4, 3)), 0)


def slow_dispersion(mean, variance):
    """The definition gene by gene, with numpy's histogram of pandas-like right-closed bins."""
    d = np.log(variance / mean)
    edges = np.linspace(mean.min(), mean.max(), 21)
    bins = [next(b for b in range(20) if m <= edges[b + 1] or b == 19) for m in mean]
    out = []
    for value, b in zip(d, bins, strict=True):
        mates = np.array([x for x, c in zip(d, bins, strict=True) if c == b])
        out.append((value - mates.mean()) / mates.std(ddof=1) if len(mates) > 1 else 0.0)
    return np.array(out)


def test_normalised_dispersion():
    rng = np.random.default_rng(0)
    mean, variance = rng.gamma(1.0, 0.5, 300) + 1e-3, rng.gamma(2.0, 0.3, 300) + 1e-3
    np.testing.assert_allclose(normalised_dispersion(mean, variance), slow_dispersion(mean, variance), atol=1e-9)
    mean[5] = 0.0
    assert np.isnan(normalised_dispersion(mean, variance)[5])


def test_select_genes():
    rng = np.random.default_rng(1)
    mean, variance = rng.gamma(1.0, 0.5, (2, 200)) + 0.05, np.full((2, 200), 0.2)
    variance *= mean
    variance[:, [7, 90]] *= 50
    mean[:, 3] = 0.0
    names = [f"G{i}" for i in range(200)]
    assert select_genes("all", names, None, None).tolist() == list(range(200))
    assert select_genes("expressed", names, mean, None).tolist() == [i for i in range(200) if i != 3]
    assert select_genes("hvg:2", names, mean, variance).tolist() == [7, 90]
    assert len(select_genes("hvg:199", names, mean, variance)) == 199
    closed = np.vstack([mean, np.full((1, 200), np.nan)])
    closed_variance = np.vstack([variance, np.full((1, 200), np.nan)])
    np.testing.assert_array_equal(
        select_genes("hvg:20", names, closed, closed_variance), select_genes("hvg:20", names, mean, variance)
    )


@pytest.mark.parametrize(
    ("rule", "mean", "variance", "message"),
    [
        ("hvg:2", np.ones((1, 3)), None, "variance over control cells"),
        ("hvg:0", np.ones((1, 3)), np.ones((1, 3)), "from 1 to 3"),
        ("hvg:4", np.ones((1, 3)), np.ones((1, 3)), "from 1 to 3"),
        ("hvg:x", np.ones((1, 3)), np.ones((1, 3)), "found 'x'"),
        ("hvg", np.ones((1, 3)), np.ones((1, 3)), "expected all, expressed or hvg:N"),
        ("top", np.ones((1, 3)), None, "expected all, expressed or hvg:N"),
        ("expressed", None, None, "no control means"),
        ("expressed", np.zeros((1, 3)), None, "none of 3 genes"),
    ],
)
def test_select_genes_refuses(rule, mean, variance, message):
    with pytest.raises(UserError, match=message):
        select_genes(rule, ["a", "b", "c"], mean, variance)


def test_pca_sign_survives_tied_loadings():
    rng = np.random.default_rng(4)
    x = rng.normal(size=9)
    for noise in (0.0, 1e-9, -1e-9):
        axis = pca(np.column_stack([x, -x * (1 + noise)]), 1)[1][:, 0]
        assert axis[0] > 0 > axis[1]
