"""Kernels over cells, many groups against one: scipy, scikit-learn and definitions written out; dense and CSR alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel

from embbench.core import CellView, Truth
from embbench.metrics import population
from embbench.metrics._cells import choose
from embbench.numerics import _pairs, de, distances
from embbench.numerics.distances import Reference
from embbench.numerics.moments import GroupMoments

KINDS = ("euclidean_v", "euclidean_u", "sqeuclidean_v", "sqeuclidean_u")


def definition(kind, x, y):
    power = 2 if kind.startswith("sq") else 1
    across, own, theirs = (cdist(a, b) ** power for a, b in ((x, y), (x, x), (y, y)))
    n, m = (len(x) - 1, len(y) - 1) if kind.endswith("u") else (len(x), len(y))
    return 2 * across.mean() - own.sum() / (len(x) * n) - theirs.sum() / (len(y) * m)


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    control = rng.normal(size=(61, 6)) + 3
    groups = [rng.normal(size=(n, 6)) * s + o for n, s, o in ((2, 1, 3), (17, 2, 3), (40, 1e-6, 400), (9, 1, -1e4))]
    groups.append(control[:5])  # the very cells
    groups.append(np.repeat(control[:1], 4, axis=0))  # collapsed on one of them
    return control, groups


@pytest.mark.parametrize("pairs", [7, 300, 1 << 17])
@pytest.mark.parametrize("kind", KINDS)
def test_edistances_to_one_control(clouds, kind, pairs, monkeypatch):
    monkeypatch.setattr(distances, "PAIRS", pairs)
    monkeypatch.setattr(_pairs, "MENDED", 30)
    control, groups = clouds
    shared = Reference(control)
    found = [getattr(shared, kind)(x) for x in groups]
    np.testing.assert_allclose(found, [definition(kind, x, control) for x in groups], rtol=1e-9, atol=1e-9)
    backwards = [getattr(Reference(control), kind)(x) for x in groups[::-1]][::-1]
    assert found == backwards  # neither the order nor the other groups move a bit
    assert found == pytest.approx([getattr(distances, f"edistance_{kind}")(x, control) for x in groups], rel=1e-12)
    assert getattr(shared, kind)(np.asfortranarray(groups[1])) == found[1]
    assert shared.spread == pytest.approx(cdist(control, control).mean(), rel=1e-12)


def test_float32_and_strided_cells_are_taken_as_they_are(clouds):
    control, groups = (clouds[0].astype(np.float32), [x.astype(np.float32) for x in clouds[1][:2]])
    wide = np.repeat(control, 2, axis=1)[:, ::2]
    for x in groups:
        want = definition("euclidean_u", x.astype(float), control.astype(float))
        assert Reference(control).euclidean_u(x) == pytest.approx(want, rel=1e-9)
        assert Reference(wide).euclidean_u(x) == Reference(control).euclidean_u(x)


def test_edistances_of_too_few_cells(clouds):
    control, _ = clouds
    none, one = np.zeros((0, 6)), control[:1]
    for cells, reference in ((none, control), (control, none), (none, none)):
        assert np.isnan([getattr(Reference(reference), kind)(cells) for kind in KINDS]).all()
    assert np.isnan([Reference(control).euclidean_u(one), Reference(one).sqeuclidean_u(control)]).all()
    assert Reference(control).euclidean_v(one) == pytest.approx(definition("euclidean_v", one, control))
    assert Reference(np.zeros((3, 0))).euclidean_v(np.zeros((2, 0))) == 0  # no dimension: nothing apart


@pytest.mark.parametrize("pairs", [11, 1 << 17])
@pytest.mark.parametrize("gammas", [(0.3,), (0.7, 0.05), (0.025, 0.05, 0.1, 0.2, 0.4), (0.4, 0.1, 0.2, 0.3, 0.6)])
def test_mmd_of_many_groups(clouds, gammas, pairs, monkeypatch):
    monkeypatch.setattr(distances, "PAIRS", pairs)
    control, groups = clouds
    shared = Reference(control)
    for x in groups:
        k = [
            np.mean([np.exp(-g * cdist(a, b) ** 2) for g in gammas], axis=0)
            for a, b in ((x, x), (control, control), (x, control))
        ]
        want = k[0].mean() + k[1].mean() - 2 * k[2].mean()
        assert shared.mmd_rbf(x, gammas, unbiased=False) == pytest.approx(max(want, 0), rel=1e-9, abs=1e-13)
        off = [(z.sum() - np.trace(z)) / (len(z) * (len(z) - 1)) for z in k[:2]]
        assert shared.mmd_rbf(x, gammas[::-1], unbiased=True) == pytest.approx(sum(off) - 2 * k[2].mean(), abs=1e-12)
    near = groups[1]  # scikit-learn's own distances lose digits far from 0
    want = [
        np.mean([rbf_kernel(a, b, g).mean() for g in gammas])
        for a, b in ((near, near), (control, control), (near, control))
    ]
    assert shared.mmd_rbf(near, gammas, unbiased=False) == pytest.approx(want[0] + want[1] - 2 * want[2], rel=1e-9)
    other = shared.mmd_rbf(groups[1], [5.0], unbiased=True)  # what is kept belongs to its widths
    assert other == Reference(control).mmd_rbf(groups[1], [5.0], unbiased=True)


def screen(kind, n, g, rng):
    counts = rng.poisson(rng.gamma(0.4, 1.0, g), (n, g)).astype(np.float64)
    counts[:, 0], counts[:, 1] = 0, 3
    if kind == "counts":
        return counts.astype(np.int32)
    if kind == "log":
        return np.log1p(counts).astype(np.float32)
    scaled = np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return scaled.astype(np.float32) if kind == "scaled" else scaled - (counts == 2)  # float64, some below 0


@pytest.mark.parametrize("block", [9, 64, 1 << 22])
@pytest.mark.parametrize("kind", ["counts", "log", "scaled", "signed"])
def test_rank_sums_of_csr_are_scipys(kind, block, monkeypatch):
    monkeypatch.setattr(de, "BLOCK", block)
    rng = np.random.default_rng(1)
    cells = screen(kind, 90, 14, rng)
    label = rng.integers(-1, 4, 90)
    rows, dense = sparse.csr_matrix(cells), de.SortedControls(cells[label < 0])
    shared = de.SortedControls(rows[np.flatnonzero(label < 0)])
    for k in range(4):
        for continuity in (False, True):
            found = shared.test(rows[np.flatnonzero(label == k)], continuity=continuity)
            with np.errstate(invalid="ignore"):
                want = stats.mannwhitneyu(cells[label == k].astype(float), cells[label < 0].astype(float), axis=0,
                                          method="asymptotic", use_continuity=continuity)  # fmt: skip
            np.testing.assert_array_equal(found.u, want.statistic)
            np.testing.assert_allclose(found.p, np.where(np.isnan(want.pvalue), 1.0, want.pvalue), rtol=1e-12)
        for mixed in (dense.test(cells[label == k]), dense.test(rows[np.flatnonzero(label == k)])):
            np.testing.assert_array_equal(mixed.p, found.p)


def test_what_csr_may_hold():
    messy = sparse.csr_matrix((np.array([1.0, 0.5, 0.0, 2.0]), np.array([1, 1, 0, 2]), np.array([0, 3, 3, 4])), (3, 4))
    before = messy.data.copy(), messy.indices.copy()
    control = np.array([[0.0, 1.5, 1.0, 0.0], [0.0, 0.0, 3.0, -1.0]])
    want = de.wilcoxon(messy.toarray(), control)
    for form in (messy, sparse.csr_array(messy), messy.tocsc(), sparse.coo_matrix(messy)):
        np.testing.assert_array_equal(de.wilcoxon(form, sparse.csr_matrix(control)).p, want.p)
        np.testing.assert_allclose(de.mean_counts(form), de.mean_counts(messy.toarray()), rtol=1e-12)
    np.testing.assert_array_equal(messy.data, before[0])
    np.testing.assert_array_equal(messy.indices, before[1])
    empty = sparse.csr_matrix((0, 4))
    assert np.isnan(de.wilcoxon(empty, control).p).all()
    assert np.isnan(de.wilcoxon(control, empty).p).all()
    assert np.isnan(de.mean_counts(empty)).all()
    assert (de.wilcoxon(sparse.csr_matrix((5, 4)), sparse.csr_matrix((3, 4))).p == 1).all()
    with pytest.raises(ValueError, match="finite, found 1"):
        de.wilcoxon(sparse.csr_matrix(np.array([[np.inf, 0.0]])), np.ones((2, 2)))


def test_a_group_in_float64_leaves_later_tests_as_they_were():
    rng = np.random.default_rng(2)
    control, group = screen("scaled", 40, 9, rng), screen("scaled", 12, 9, rng)
    shared = de.SortedControls(control)
    before = shared.test(group)
    fine = group.astype(np.float64) * (1 + 1e-12)  # no float32 numbers
    want = stats.mannwhitneyu(fine, control.astype(np.float64), axis=0, method="asymptotic")
    np.testing.assert_array_equal(shared.test(fine).u, want.statistic)
    np.testing.assert_array_equal(shared.test(sparse.csr_matrix(fine)).u, want.statistic)
    for a, b in zip(vars(before).values(), vars(shared.test(group)).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_welch_of_all_groups_from_streamed_moments():
    rng = np.random.default_rng(3)
    cells, label = screen("scaled", 120, 11, rng), rng.integers(0, 4, 120)
    label[:1], label[label == 3], label[5] = 0, 2, 3  # a group of one cell
    moments = GroupMoments(4, 11)
    for start in range(0, 120, 25):
        moments.add(sparse.csr_matrix(cells[start : start + 25]), label[start : start + 25])
    mean, var, n = moments.mean(), moments.variance(), moments.count[:, None]
    t, p = de.welch(mean[1:], var[1:], n[1:], mean[0], var[0], int(n[0, 0]))
    assert t.shape == p.shape == (3, 11)
    for k in (1, 2):
        want = stats.ttest_ind(cells[label == k].astype(float), cells[label == 0].astype(float), equal_var=False)
        np.testing.assert_allclose(t[k - 1, 2:], want.statistic[2:], rtol=1e-7)
        np.testing.assert_allclose(p[k - 1, 2:], want.pvalue[2:], rtol=1e-7)
        np.testing.assert_array_equal(p[k - 1], de.welch(mean[k], var[k], int(n[k, 0]), mean[0], var[0], n[0, 0])[1])
    assert np.isnan(t[2]).all()
    assert np.isnan(p[2]).all()
    adjusted = de.benjamini_hochberg(p)
    for row in range(2):
        tested = np.isfinite(p[row])
        assert tested.sum() > 5
        np.testing.assert_allclose(adjusted[row, tested], stats.false_discovery_control(p[row, tested]), rtol=1e-12)


class Toy:
    """Stated cells of each condition and of one context."""

    def __init__(self, seen, control):
        self.seen, self.control = seen, control

    def controls(self, context, half="A"):
        return self.control

    def perturbed(self, row):
        return self.seen[row]


@pytest.mark.parametrize("cells", ["equal", "all"])
@pytest.mark.parametrize("whole", [True, False])
def test_strengths_of_conditions_of_unequal_size(cells, whole):
    rng = np.random.default_rng(4)
    seen = [rng.normal(size=(m, 7)).astype(np.float32) + shift for m, shift in ((9, 0), (12, 1), (8, 2), (15, 0.5))]
    control, pred = rng.normal(size=(20, 7)).astype(np.float32), rng.normal(size=(4, 8, 7)).astype(np.float32)
    pred += np.array([0.2, 0.7, 1.4, 0.9], np.float32)[:, None, None]
    mask = np.ones((4, 7), bool)
    if not whole:
        mask[range(4), [1, 2, 3, 3]] = False
    view, nothing = CellView(Toy(seen, control), np.arange(4), half="B"), np.zeros(0, np.int64)
    truth = Truth(effects=np.zeros((4, 7), np.float32), unit="delta", context=np.zeros(4, np.int64), observed=mask,
                  targets=(nothing,) * 4, cells=view)  # fmt: skip
    metric = replace(population.pearson_edistance_euclidean_v, cells=cells)
    strengths = []
    for row in range(4):
        keep, k = mask[row], 8
        observed = seen[row] if cells == "all" else choose(seen[row], k)
        c = control[:, keep].astype(float)
        strengths.append([definition("euclidean_v", z[:, keep].astype(float), c) for z in (pred[row], observed)])
    want = np.corrcoef(np.array(strengths).T)[0, 1]
    np.testing.assert_allclose(metric(pred, truth), np.full(4, want), rtol=1e-9)


@pytest.mark.parametrize("name", ["edistance_euclidean_u", "mmd_rbf_u", "edistance_sqeuclidean_u"])
def test_rows_do_not_move_one_another(name):
    rng = np.random.default_rng(5)
    seen = [rng.normal(size=(m, 30)).astype(np.float32) for m in (9, 12, 8)]
    pred = rng.normal(size=(3, 10, 30)).astype(np.float32)
    metric = getattr(population, name)

    def score(rows):
        view = CellView(Toy([seen[i] for i in rows], seen[0]), np.arange(len(rows)), half="B")
        n, nothing = len(rows), np.zeros(0, np.int64)
        truth = Truth(effects=np.zeros((n, 30), np.float32), unit="delta", context=np.zeros(n, np.int64),
                      targets=(nothing,) * n, cells=view)  # fmt: skip
        return metric(pred[rows], truth)

    np.testing.assert_array_equal(score([0, 1, 2])[[2, 0]], score([2, 0]))
