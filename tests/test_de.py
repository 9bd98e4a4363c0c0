"""Differential expression kernels against scipy, and labels of screens against tests written out row by row."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embbench.checks import toy_screen
from embbench.core import CellView, PerturbationDataset, UserError
from embbench.datasets import _rare
from embbench.datasets._labels import LabelOptions, label_report, label_screen
from embbench.datasets.labelled import Labelled
from embbench.datasets.simulator import Simulator
from embbench.numerics import de


def cells(kind, m, g, rng):
    counts = rng.poisson(rng.gamma(1.0, 1.0, g) * rng.choice([0.3, 1.5]), (m, g)).astype(np.float64)
    if kind == "counts":
        return counts
    if kind == "log":
        return np.log1p(1e4 * counts / rng.integers(500, 900, (m, 1))).astype(np.float32)
    if kind == "normal":
        return rng.normal(size=(m, g))
    return (counts - 1) * rng.choice([0.1, 0.3], (m, g))  # negative, tied, not float32


@pytest.mark.parametrize("kind", ["counts", "log", "normal", "signed"])
@pytest.mark.parametrize("block", [40, 1 << 22])
def test_wilcoxon_is_scipys(kind, block, monkeypatch):
    monkeypatch.setattr(de, "BLOCK", block)
    rng = np.random.default_rng(4)
    control = cells(kind, 31, 23, rng)
    control[:, 5], control[:, 6] = 0, 2
    sorted_once = de.SortedControls(control)
    for m in (1, 2, 17, 60):
        group = cells(kind, m, 23, rng)
        group[:, 5], group[:, 6] = 0, 2
        group[:, :3] = control[0, :3]
        for continuity in (True, False):
            found = sorted_once.test(group, continuity=continuity)
            with np.errstate(invalid="ignore"):
                want = stats.mannwhitneyu(group.astype(float), control.astype(float), axis=0, method="asymptotic",
                                          use_continuity=continuity)  # fmt: skip
            np.testing.assert_array_equal(found.u, want.statistic)
            p = np.where(np.isnan(want.pvalue), 1.0, want.pvalue)  # all values tied: no evidence
            np.testing.assert_allclose(found.p, p, rtol=1e-12, atol=0)
            direction = np.sign(want.statistic - m * 31 / 2)
            assert ((np.sign(found.z) == direction) | (found.z == 0)).all()


def test_wilcoxon_without_tie_correction_is_scanpys_formula():
    """scanpy: (R - m (N + 1) / 2) / sqrt(m k (N + 1) / 12), p = 2 (1 - Phi(|z|)), no continuity correction."""
    rng = np.random.default_rng(1)
    x, y = cells("counts", 12, 9, rng), cells("counts", 20, 9, rng)
    found = de.wilcoxon(x, y, continuity=False, ties=False)
    ranks = stats.rankdata(np.concatenate([x, y]), axis=0)[:12].sum(axis=0)
    z = (ranks - 12 * 33 / 2) / np.sqrt(12 * 20 * 33 / 12)
    np.testing.assert_allclose(found.z, z, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.p, 2 * stats.norm.sf(np.abs(z)), rtol=1e-12)


def test_float64_cells_against_float32_controls_stay_exact():
    control = np.array([[0.1], [0.2], [0.3]], np.float32)
    group = np.array([[0.1], [0.2]])  # not the float32 numbers: below and above them
    found = de.SortedControls(control).test(group)
    assert found.u == stats.mannwhitneyu(group, control.astype(float), axis=0).statistic
    big = np.array([[2**24 + 1.0], [2.0**24]])
    assert de.wilcoxon(big, np.array([[2.0**24]])).u == 1.5


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_wilcoxon_of_few_cells(seed, m, k):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-2, 3, (m, 4)) * 0.5, rng.integers(-2, 3, (k, 4)) * 0.5
    found, back = de.wilcoxon(x, y), de.wilcoxon(y, x)
    pairs = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    np.testing.assert_array_equal(found.u, pairs.sum(axis=(0, 1)))
    np.testing.assert_allclose(found.p, back.p)
    np.testing.assert_allclose(found.z, -back.z)
    order = rng.permutation(m)
    np.testing.assert_array_equal(de.wilcoxon(x[order], y).p, found.p)


def test_wilcoxon_edges():
    empty = np.zeros((0, 3))
    assert np.isnan(de.wilcoxon(empty, np.ones((2, 3))).p).all()
    assert np.isnan(de.wilcoxon(np.ones((2, 3)), empty).p).all()
    assert de.wilcoxon(np.zeros((4, 0)), np.zeros((3, 0))).p.shape == (0,)
    assert (de.wilcoxon(np.zeros((4, 2), np.float32), np.full((3, 2), -0.0)).p == 1).all()
    with pytest.raises(ValueError, match="finite, found 1"):
        de.wilcoxon(np.array([[np.nan]]), np.ones((2, 1)))
    with pytest.raises(ValueError, match="3 genes against controls of 2"):
        de.wilcoxon(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        de.wilcoxon(np.ones(3), np.ones((2, 2)))


def test_welch_and_paired_are_scipys():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(7, 40)), rng.normal(0.3, 2, size=(13, 40))
    x[:, 0], y[:, 0], x[:, 1], y[:, 1] = 1, 1, 1, 2  # no variance: NaN where equal, p = 0 where not
    t, p = de.welch(x.mean(axis=0), x.var(axis=0, ddof=1), 7, y.mean(axis=0), y.var(axis=0, ddof=1), 13)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy: nearly identical data
        want = stats.ttest_ind(x, y, equal_var=False)
    np.testing.assert_allclose(t, want.statistic, rtol=1e-10)
    np.testing.assert_allclose(p, want.pvalue, rtol=1e-10)
    assert np.isnan(p[0])
    assert p[1] == 0
    assert np.isnan(de.welch(x[0], x[0], 1, y[0], y[0], 13)[1]).all()
    want = stats.ttest_rel(x[:, 2:], y[:7, 2:])
    np.testing.assert_allclose(de.paired(x[:, 2:] - y[:7, 2:]), [want.statistic, want.pvalue], rtol=1e-10)
    assert np.isnan(de.paired(x[:1])[1]).all()


def test_benjamini_hochberg_is_scipys_over_tested_genes():
    rng = np.random.default_rng(3)
    p = rng.random((6, 50)) ** 3
    p[2, :10] = p[2, 10]
    np.testing.assert_allclose(de.benjamini_hochberg(p), stats.false_discovery_control(p, axis=1), rtol=1e-12)
    np.testing.assert_allclose(de.benjamini_hochberg(p, 0), stats.false_discovery_control(p, axis=0), rtol=1e-12)
    gone = rng.random(p.shape) < 0.3
    gone[5] = True
    found = de.benjamini_hochberg(np.where(gone, np.nan, p))
    assert np.isnan(found[gone]).all()
    for row in range(5):
        keep = ~gone[row]
        np.testing.assert_allclose(found[row, keep], stats.false_discovery_control(p[row, keep]), rtol=1e-12)
    assert de.benjamini_hochberg(np.zeros((2, 0))).shape == (2, 0)
    with pytest.raises(ValueError, match="found 1 that do not"):
        de.benjamini_hochberg(np.array([1.5]))


def test_log2fc():
    """On counts per million: 100 times the stored scale of counts per 1e4."""
    found = de.log2fc(np.array([0.5, 0.0, 0.0]), np.array([0.25, 0.25, 0.0]), 2.0)
    np.testing.assert_allclose(found, np.log2([52 / 27, 2 / 27, 1.0]))
    assert de.log2fc(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.0).tolist() == [-np.inf, np.inf]
    with pytest.raises(ValueError, match="got -1"):
        de.log2fc(np.ones(1), np.ones(1), -1)
    logs = np.log1p(np.array([[1.0, 0.0], [3.0, 5.0]]))
    np.testing.assert_allclose(de.mean_counts(logs), [2.0, 2.5])
    np.testing.assert_allclose(de.mean_counts(np.array([[-1.0]])), [0.0])
    assert np.isnan(de.mean_counts(np.zeros((0, 2)))).all()


@pytest.fixture(scope="module")
def screen():
    return Simulator(n_perturbations=10, n_genes=60, controls_per_context=120, level="cells").load()


def moderated_by_hand(x, y, borrowed=20):
    """Welch with each variance drawn to the pooled one; degrees of freedom grow with it."""
    freedom = len(x) - 1, len(y) - 1
    pooled = (freedom[0] * x.var(axis=0, ddof=1) + freedom[1] * y.var(axis=0, ddof=1)) / sum(freedom)
    own = [
        (borrowed * pooled + f * z.var(axis=0, ddof=1)) / (borrowed + f) / len(z)
        for z, f in zip((x, y), freedom, strict=True)
    ]
    df = sum(own) ** 2 / sum(s**2 / (borrowed + f) for s, f in zip(own, freedom, strict=True))
    return 2 * stats.t.sf(np.abs(x.mean(axis=0) - y.mean(axis=0)) / np.sqrt(sum(own)), df)


def by_hand(data, row, half, test="wilcoxon"):
    """p values of a row against one half, scipy alone."""
    x = data.cells.perturbed(row).astype(float)
    y = data.cells.controls(int(data.context_codes[row]), half).astype(float)
    m, k, seen = len(x), len(y), (x > 0).sum(axis=0)
    pooled, small = seen + (y > 0).sum(axis=0), min(m, k)
    keep = pooled >= 0.05 * min(m + k, 10 * small)
    if test == "wilcoxon":
        p, limit = stats.mannwhitneyu(x, y, axis=0, method="asymptotic").pvalue, 10
    else:
        p, limit = moderated_by_hand(x, y), 20
    tails = stats.hypergeom(m + k, pooled, m)
    exact = np.minimum(2 * np.minimum(tails.cdf(seen), tails.sf(seen - 1)), 1)
    p = np.where(pooled * small / (m + k) < limit, np.maximum(p, exact), p)
    padj = np.full(len(p), np.nan)
    padj[keep] = stats.false_discovery_control(p[keep])
    counts = [np.expm1(z).mean(axis=0) * 100 + 1 for z in (x, y)]
    return padj, np.log2(counts[0] / counts[1])


@pytest.mark.parametrize("test", ["wilcoxon", "welch"])
def test_labels_of_either_half(screen, test):
    out = label_screen(replace(screen, meta={**screen.meta, "digest": "old"}), LabelOptions(test, min_log2fc=0.2))
    assert (out.labels != 0).sum() > 20
    for row in (0, 7, 19):
        for half, labels, tested in (
            ("A", out.labels, out.labels_tested),
            ("B", out.truth_labels, out.truth_labels_tested),
        ):
            padj, change = by_hand(screen, row, half, test)
            np.testing.assert_array_equal(tested[row], np.isfinite(padj))
            want = np.where((np.nan_to_num(padj, nan=1) < 0.05) & (np.abs(change) >= 0.2), np.sign(change), 0)
            np.testing.assert_array_equal(labels[row], want)
        np.testing.assert_allclose(out.padj[row], padj, rtol=1e-5)
        np.testing.assert_allclose(out.log2fc[row], np.where(np.isfinite(padj), change, np.nan), rtol=1e-4, atol=1e-5)
    assert "digest" not in out.meta
    json.dumps(dict(out.meta))
    assert out.labels.dtype == np.int8
    assert any("20 " + test in line for line in label_report(out))
    assert label_report(screen) == []
    again = label_screen(screen, LabelOptions(test, min_log2fc=0.2))
    np.testing.assert_array_equal(again.padj, out.padj)


def test_shared_controls_are_one_test(screen):
    out = label_screen(replace(screen, meta={"controls": "shared"}), LabelOptions())
    assert out.labels is out.truth_labels
    assert "shared" in out.meta["labels"]["controls"]
    np.testing.assert_allclose(out.padj[3], by_hand(screen, 3, "all")[0], rtol=1e-5)


def test_views_label_as_the_screen_does(screen):
    whole = label_screen(screen, LabelOptions(min_expressed=0))
    rows, columns = np.array([11, 2]), np.array([5, 3, 40])
    part = label_screen(screen.rows(rows).with_genes(columns), LabelOptions(min_expressed=0))
    np.testing.assert_array_equal(part.log2fc, whole.log2fc[rows][:, columns])
    training = part.training(np.array([0]))
    assert training.padj is None
    assert training.truth_labels is training.labels


def test_equal_cells_and_untested_rows(screen):
    sizes = np.array([len(screen.cells.perturbed(i)) for i in range(len(screen))])
    least = int(np.sort(sizes)[5])
    out = label_screen(screen, LabelOptions(equal_cells=least, seed=1))
    np.testing.assert_array_equal(out.labels_tested.any(axis=1), sizes >= least)
    assert out.meta["labels"]["rows_untested"] == (sizes < least).sum() > 0
    assert np.isnan(out.padj[sizes < least]).all()
    np.testing.assert_array_equal(out.padj, label_screen(screen, LabelOptions(equal_cells=least, seed=1)).padj)
    other = label_screen(screen, LabelOptions(equal_cells=least, seed=2))
    assert not np.array_equal(out.padj, other.padj, equal_nan=True)
    few = label_screen(screen, LabelOptions(min_cells=least))
    np.testing.assert_array_equal(few.labels_tested.any(axis=1), sizes >= least)
    with pytest.raises(UserError, match="no condition could be tested"):
        label_screen(screen, LabelOptions(min_cells=10_000))


@dataclass(frozen=True)
class Donors:
    """Cells whose mean moves with the donor, and nothing else: cells are no independent repeats."""

    batches_of: tuple[int, ...]
    seed: int = 0

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        return self._draw(self.batches(context, half), "AB".find(half) + 1)

    def n_controls(self, context: int, half: str = "A") -> int:
        return len(self.batches(context, half))

    def perturbed(self, row: int) -> np.ndarray:
        return self._draw(self.perturbed_batches(row), 10 + row)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        return np.repeat(np.arange(5), 12)

    def perturbed_batches(self, row: int) -> np.ndarray:
        return np.repeat(np.array(self.batches_of), 12)

    def _draw(self, batches, salt):
        rng = np.random.default_rng([self.seed, salt])
        shift = np.random.default_rng([self.seed, salt, 1]).normal(0, 0.5, (20, 200))
        return (2 + shift[batches] + rng.normal(0, 0.3, (len(batches), 200))).astype(np.float32)


@pytest.mark.parametrize(
    ("batches", "how"), [((0, 1, 2, 3, 4), "paired over donors"), ((11, 12, 13), "between donors")]
)
def test_donor_test_keeps_its_level_where_the_cell_test_does_not(batches, how):
    names = np.array([f"G{i}" for i in range(200)])
    zero = np.zeros((4, 200), np.float32)
    data = PerturbationDataset("donors", zero, "delta", names, tuple((f"P{i}",) for i in range(4)),
                               np.array(["x"] * 4), cells=Donors(batches))  # fmt: skip
    out = label_screen(data, LabelOptions("donor"))
    assert out.meta["labels"]["conditions"] == {how: 4}
    assert (out.labels != 0).mean() < 0.02
    assert (label_screen(data, LabelOptions("wilcoxon")).labels != 0).mean() > 0.2
    view = CellView(data.cells, np.arange(4), half="B")
    own, control = view.perturbed(2), view.controls(0)
    a = [own[data.cells.perturbed_batches(2) == b].mean(axis=0, dtype=float) for b in batches]
    b = [control[data.cells.batches(0) == b].mean(axis=0, dtype=float) for b in range(5)]
    want = (stats.ttest_rel(a, b) if len(batches) == 5 else stats.ttest_ind(a, b, equal_var=False)).pvalue
    np.testing.assert_allclose(out.padj[2], stats.false_discovery_control(want), rtol=1e-5)


def test_one_donor_is_not_tested():
    data = toy_screen()
    cells = replace(data, cells=Donors((0,))).cells
    one = PerturbationDataset("one", np.zeros((1, 200), np.float32), "delta", np.array([f"G{i}" for i in range(200)]),
                              (("P",),), np.array(["x"]), cells=cells)  # fmt: skip
    with pytest.raises(UserError, match="shared or 2 donors"):
        label_screen(one, LabelOptions("donor", min_cells=2))


def test_min_expressed_counts_or_shares(screen):
    row, context = 4, int(screen.context_codes[4])
    seen = [(x > 0).sum(axis=0) for x in (screen.cells.perturbed(row), screen.cells.controls(context, "B"))]
    out = label_screen(screen, LabelOptions(min_expressed=30))
    np.testing.assert_array_equal(out.truth_labels_tested[row], sum(seen) >= 30)
    observed = np.ones(screen.effects.shape, bool)
    observed[row, 3] = False
    out = label_screen(replace(screen, observed=observed), LabelOptions(min_expressed=0))
    assert out.labels_tested[row].sum() == 59
    assert np.isnan(out.padj[row, 3])


def test_what_cannot_be_labelled(screen):
    with pytest.raises(UserError, match="no single cells"):
        label_screen(replace(screen, cells=None), LabelOptions())
    with pytest.raises(UserError, match="--cells controls"):
        label_screen(replace(screen, meta={"cells": "controls"}), LabelOptions())
    for wrong in ({"level": 0}, {"level": 1.0}, {"min_cells": 1}, {"min_expressed": -0.1}, {"equal_cells": 1},
                  {"pseudocount": 0}, {"seed": -1}, {"min_log2fc": float("nan")}, {"donor_cells": 0}):  # fmt: skip
        with pytest.raises(UserError, match=next(iter(wrong))):
            LabelOptions(**wrong)
    with pytest.raises(UserError, match="labelled already"):
        label_screen(label_screen(screen, LabelOptions()), LabelOptions())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"level": "abc"}, "level must be a number, got 'abc'"),
        ({"level": True}, "level must be a number, got True"),
        ({"equal_cells": 20.5}, "equal_cells must be a whole number, got 20.5"),
        ({"min_cells": None}, "min_cells must be a whole number, got None"),
        ({"min_log2fc": float("nan")}, "min_log2fc must be a number, got nan"),
        ({"equal_cells": 20}, "equal_cells must be >= min_cells = 30, got 20; .* min_cells=20"),
    ],
)
def test_options_say_what_is_wrong(wrong, says):
    with pytest.raises(UserError, match=f"^labels: {says}"):
        Labelled(of=object(), **wrong)


def test_options_may_be_numpy_numbers():
    assert LabelOptions(level=np.float32(0.01), equal_cells=np.int64(30)).equal_cells == 30


@dataclass(frozen=True)
class Null:
    """Cells of one population, sparse as counts are: whatever is labelled is false."""

    cells: int
    seed: int
    batch: int = 0

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        return self._draw(400, "AB".find(half) + 1)

    def perturbed(self, row: int) -> np.ndarray:
        return self._draw(self.cells, 10 + row)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        return np.full(400, self.batch)

    def perturbed_batches(self, row: int) -> np.ndarray:
        return np.full(self.cells, self.batch)

    def _draw(self, cells, salt):
        rng = np.random.default_rng([self.seed, salt])
        rate = np.exp(np.random.default_rng(self.seed).uniform(-5, 1.5, 250))
        return np.log1p(5 * rng.poisson(rate * rng.gamma(0.7, 1 / 0.7, (cells, 250)))).astype(np.float32)


def null(cells, conditions=40, seed=3):
    """A screen of conditions that change nothing."""
    return PerturbationDataset("null", np.zeros((conditions, 250), np.float32), "delta",
                               np.array([f"G{i}" for i in range(250)]), tuple((f"P{i}",) for i in range(conditions)),
                               np.array(["x"] * conditions), cells=Null(cells, seed))  # fmt: skip


@pytest.mark.parametrize("test", ["wilcoxon", "welch"])
@pytest.mark.parametrize("cells", [10, 30, 100])
def test_conditions_that_change_nothing_have_no_labels(test, cells):
    """P(any false label of a condition) is about the level."""
    out = label_screen(null(cells), LabelOptions(test, min_cells=10))
    assert out.truth_labels_tested.sum(axis=1).min() > 100
    false = np.concatenate([out.labels, out.truth_labels]) != 0
    assert false.any(axis=1).mean() <= 0.1


def test_what_only_a_small_group_expresses_is_found():
    """Off in 1,000 controls, on in 20 of 30 cells: 2 % of all cells, but no filter or guard hides it."""
    x, y = np.zeros((30, 2)), np.zeros((1000, 2))
    x[:20, 0], x[0, 1] = 1, 1
    seen = (x > 0).sum(axis=0)
    np.testing.assert_array_equal(_rare.enough(seen, 30, 1000, 0.05), [True, False])
    p = _rare.guarded(de.wilcoxon(x, y).p, seen, seen, 30, 1000, 10)
    back = _rare.guarded(de.wilcoxon(y, x).p, np.zeros(2, int), seen, 1000, 30, 10)
    np.testing.assert_allclose(p, back)
    assert p[0] < 1e-20
    assert p[1] == pytest.approx(stats.fisher_exact([[1, 29], [0, 1000]], "greater").pvalue * 2)


def test_small_conditions_are_named():
    out = label_screen(null(12, conditions=10), LabelOptions(min_cells=10))
    line = next(line for line in label_report(out) if line.startswith("notice"))
    assert line == (
        "notice: 10 conditions have fewer than 30 cells (hardly any power, and not tested below 10): "
        "P0 12, P1 12, P2 12, P3 12, P4 12, P5 12, P6 12, P7 12 and 2 more"
    )
    with pytest.raises(UserError, match="10 not tested, fewer than 30 cells"):
        label_screen(null(12, conditions=10), LabelOptions())


def test_donors_need_batches():
    with pytest.raises(UserError, match="this screen has no batches; import it with --batch-key"):
        label_screen(null(30, conditions=2), LabelOptions("donor"))
