"""Streaming moments against numpy and pandas, and the E-test against closed forms and its null."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from embbench.numerics.etest import e_statistic, e_test
from embbench.numerics.moments import GroupMoments, batch_weights, log_normalise


def counts(m=200, g=7, seed=0):
    return sparse.random(m, g, 0.4, "csr", random_state=seed, data_rvs=lambda n: np.arange(1.0, n + 1) % 9 + 1)


def test_log_normalise_is_numpy():
    x, depth = counts(), np.random.default_rng(1).uniform(1, 50, 200)
    np.testing.assert_array_equal(
        log_normalise(x, depth).toarray(), np.log1p(x.toarray() * (1e4 / depth)[:, None]).astype(np.float32)
    )


def test_moments_are_pandas():
    x, group = counts(), np.random.default_rng(0).integers(-1, 4, 200)
    moments = GroupMoments(4, 7).add(x, group)
    frame = pd.DataFrame(x.toarray()).groupby(group)
    np.testing.assert_allclose(moments.mean(), frame.mean().loc[0:], rtol=1e-13)
    np.testing.assert_allclose(moments.variance(), frame.var().loc[0:], rtol=1e-12)
    np.testing.assert_array_equal(moments.count, frame.size().loc[0:])
    whole = x.toarray()[group >= 0]
    np.testing.assert_allclose(moments.merged().variance()[0], whole.var(axis=0, ddof=1), rtol=1e-12)
    assert GroupMoments(4, 7, squares=False).add(x, group).squares.size == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=6), st.integers(0, 99))
def test_chunks_do_not_move_a_bit(cuts, seed):
    x, group = counts(seed=seed), np.random.default_rng(seed).integers(-1, 4, 200)
    x.data = np.log1p(x.data)
    whole, parts = GroupMoments(4, 7).add(x, group), GroupMoments(4, 7)
    bounds = [0, *sorted(cuts), 200]
    for lo, hi in itertools.pairwise(bounds):
        parts.add(x[lo:hi], group[lo:hi])
    assert (whole.total == parts.total).all()
    assert (whole.squares == parts.squares).all()


def test_one_cell_borrows_the_pooled_variance():
    x = sparse.csr_matrix(np.array([[1.0], [3.0], [10.0], [4.0], [8.0]]))
    moments = GroupMoments(3, 1).add(x, np.array([0, 0, 1, 2, 2]))
    np.testing.assert_allclose(moments.variance()[:, 0], [2, (2 + 8) / 2, 8])
    assert GroupMoments(1, 1).add(x[:1], np.array([0])).variance().tolist() == [[0.0]]


def test_batch_weights():
    p, c = np.array([10, 20, 5, 0]), np.array([30, 20, 0, 7])
    raw = np.array([10 * 30 / 40, 10, 0, 0])
    np.testing.assert_allclose(batch_weights(p, c), raw / raw.sum())
    np.testing.assert_allclose(batch_weights(p, c, "equal-batch"), [0.5, 0.5, 0, 0])
    assert batch_weights(np.array([3]), np.array([0])).tolist() == [0.0]
    with pytest.raises(ValueError, match=r"equal-batch.*got 'none'"):
        batch_weights(p, c, "none")


def test_e_statistic_is_the_energy_form():
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(50, 5)), rng.normal(size=(40, 5)) * 2 + 1
    pairs = [cdist(a, b, "sqeuclidean").mean() for a, b in ((x, c), (x, x), (c, c))]
    assert e_statistic(x, c) == pytest.approx(2 * pairs[0] - pairs[1] - pairs[2], rel=1e-10)


def test_e_test_equals_a_plain_permutation_loop():
    rng = np.random.default_rng(3)
    x, c = rng.normal(size=(30, 4)) + 0.3, rng.normal(size=(60, 4))
    both, observed, beaten = np.concatenate([x, c]), e_statistic(x, c), 0
    for _ in range(3000):
        order = rng.permutation(90)
        beaten += e_statistic(both[order[:30]], both[order[30:]]) >= observed
    p = e_test(x, c, np.random.default_rng(0), permutations=3000)
    assert p == pytest.approx((1 + beaten) / 3001, abs=4 * np.sqrt(0.25 / 3000))


def test_e_test_null_is_uniform_and_power_is_full():
    rng = np.random.default_rng(0)
    null = [
        e_test(rng.normal(size=(40, 6)), rng.normal(size=(80, 6)), np.random.default_rng(i), permutations=199)
        for i in range(300)
    ]
    assert stats.kstest(null, "uniform").pvalue > 0.01
    assert np.mean(np.array(null) <= 0.05) == pytest.approx(0.05, abs=0.04)
    shifted = e_test(rng.normal(size=(40, 6)) + 1, rng.normal(size=(80, 6)), rng)
    assert shifted == 0.001


def test_e_test_keeps_to_its_batches():
    """A batch effect that is confounded with the perturbation is not called an effect."""
    rng = np.random.default_rng(0)
    ps = []
    for i in range(200):
        batch_x, batch_c = np.repeat([0, 1], [50, 10]), np.repeat([0, 1], [20, 60])
        x, c = rng.normal(size=(60, 3)) + 3 * batch_x[:, None], rng.normal(size=(80, 3)) + 3 * batch_c[:, None]
        ps.append(e_test(x, c, np.random.default_rng(i), (batch_x, batch_c), permutations=199))
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert e_test(x, c, rng) == 0.001
    assert np.isnan(e_test(x, c, rng, (batch_x, batch_c + 5)))
