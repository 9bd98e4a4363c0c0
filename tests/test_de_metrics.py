"""DE metrics against scikit-learn, scipy, definitions written out as sets, and cell-eval's own numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import _metric_cases
from scipy import stats
from sklearn import metrics as sk

from embbench.core import CellView, DETable, Truth
from embbench.metrics import de, de_cells
from embbench.metrics._de import top
from embbench.numerics import de as tests_of_genes

EXPECTED = Path(__file__).parent / "oracles" / "expected" / "cell_eval_official.json"
EFFECTS = {n: m for n, m in vars(de).items() if isinstance(m, type(de.overlap_n))}
CELLS = {n: m for n, m in vars(de_cells).items() if isinstance(m, type(de.overlap_n))}


def example(n=14, g=40, seed=0, share=0.3, contexts=2):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n, g)).astype(np.float32)
    padj = np.where(rng.random((n, g)) < share, 0.01, 0.5).astype(np.float32)
    padj[rng.random((n, g)) < 0.1] = np.nan
    observed = rng.random((n, g)) < 0.9
    truth = Truth(
        effects=np.where(observed, effects, np.nan),
        unit="delta",
        context=np.arange(n) % contexts,
        targets=tuple(np.array([i % g]) for i in range(n)),
        observed=observed,
        de=DETable(np.where(np.isnan(padj), np.nan, effects * 1.5), padj),
    )
    pred = (effects + rng.normal(size=(n, g))).astype(np.float32)
    return pred, truth


def split(metric, truth):
    """Per row: scored and significant genes, from the definition."""
    scored = truth.mask(metric.genes) & np.isfinite(truth.de.padj)
    return scored, scored & (truth.de.padj < 0.05)


@pytest.mark.parametrize("genes", ["all", "notarget"])
@pytest.mark.parametrize(("kind", "k"), [(k, n) for k in ("overlap", "precision") for n in ("n", "50", "100", "200")])
def test_overlap_and_precision_are_sets(kind, k, genes):
    pred, truth = example(g=300, share=0.25)
    metric = replace(getattr(de, f"{kind}_{k}"), genes=genes)
    scored, hits = split(metric, truth)
    for row, value in enumerate(metric(pred, truth)):
        n = hits[row].sum()
        size = n if k == "n" else min(int(k), n)
        ranked = [j for j in np.argsort(-np.abs(pred[row]), kind="stable") if scored[row, j]][:size]
        real = [j for j in np.argsort(-np.abs(truth.de.log2fc[row]), kind="stable") if hits[row, j]]
        real = real[:size] if kind == "overlap" else real
        assert value == pytest.approx(len(set(real) & set(ranked)) / size)


@pytest.mark.parametrize("genes", ["all", "notarget"])
@pytest.mark.parametrize("name", ["auroc", "auprc", "auprc_gain"])
def test_condition_areas_are_scikit_learns(name, genes):
    pred, truth = example()
    pred[3] = 0.0
    pred[4] = np.round(pred[4])
    metric = replace(getattr(de, f"{name}_condition"), genes=genes)
    scored, hits = split(metric, truth)
    oracle = sk.roc_auc_score if name == "auroc" else sk.average_precision_score
    for row, value in enumerate(metric(pred, truth)):
        y = hits[row, scored[row]]
        want = oracle(y, np.abs(pred[row, scored[row]]))
        assert value == pytest.approx((want - y.mean()) / (1 - y.mean()) if name == "auprc_gain" else want)


def gene_mean(name, pred, scored, hits, rows):
    """Mean over genes of scikit-learn's area over some rows, where a gene has both kinds."""
    oracle, values = sk.roc_auc_score if name == "auroc" else sk.average_precision_score, []
    for j in range(pred.shape[1]):
        keep = rows[scored[rows, j]]
        y = hits[keep, j]
        if 0 < y.sum() < len(y):
            value = oracle(y, np.abs(pred[keep, j]))
            values.append((value - y.mean()) / (1 - y.mean()) if name == "auprc_gain" else value)
    return np.mean(values) if values else np.nan


@pytest.mark.parametrize("name", ["auroc", "auprc", "auprc_gain"])
def test_gene_areas_and_their_linearisation(name):
    """The mean over a context's rows is the mean over genes; row values follow from scores without each row."""
    pred, truth = example(n=16, g=9)
    pred = np.round(pred, 1)
    metric = getattr(de, f"{name}_gene")
    scored, hits = split(metric, truth)
    values = metric(pred, truth)
    for context in (0, 1):
        rows = np.flatnonzero(truth.context == context)
        whole = gene_mean(name, pred, scored, hits, rows)
        assert values[rows].mean() == pytest.approx(whole)
        without = np.array([gene_mean(name, pred, scored, hits, rows[rows != i]) for i in rows])
        np.testing.assert_allclose(values[rows], whole + (len(rows) - 1) * (without.mean() - without), atol=1e-12)


def test_direction_and_spearman():
    pred, truth = example()
    pred[0, :20] = 0.0
    hits = split(de.direction, truth)[1]
    lfc = truth.de.log2fc
    for row in range(len(pred)):
        keep = hits[row]
        assert de.direction(pred, truth)[row] == np.mean(np.sign(pred[row, keep]) == np.sign(lfc[row, keep]))
        want = stats.spearmanr(pred[row, keep], lfc[row, keep])[0]
        assert de.spearman_lfc_sig(pred, truth)[row] == pytest.approx(want)


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_undefined_is_nan(name):
    pred, truth = example(n=6, g=10, contexts=1)
    nothing = replace(truth, de=DETable(truth.de.log2fc, np.ones_like(truth.de.padj)))
    assert np.isnan(EFFECTS[name](pred, nothing)).all()
    untested = replace(truth, de=DETable(*np.full((2, 6, 10), np.nan, np.float32)))
    assert np.isnan(EFFECTS[name](pred, untested)).all()
    alone = replace(truth, **{f: getattr(truth, f)[:1] for f in ("effects", "context", "observed")},
                    targets=truth.targets[:1], de=DETable(truth.de.log2fc[:1, :], truth.de.padj[:1, :]))  # fmt: skip
    value = EFFECTS[name](pred[:1], alone)
    assert np.isnan(value).all() == name.endswith("_gene")


def test_a_collapsed_prediction_scores_chance():
    """All genes alike: overlap and precision N / tested, AUROC 0.5, AUPRC the share; in expectation of random ties."""
    pred, truth = example()
    scored, hits = split(de.overlap_n, truth)
    share = hits.sum(axis=1) / scored.sum(axis=1)
    same = np.ones_like(pred)
    np.testing.assert_allclose(de.overlap_n(same, truth), share)
    np.testing.assert_allclose(de.precision_50(same, truth), share)
    np.testing.assert_allclose(de.auroc_condition(same, truth), 0.5)
    np.testing.assert_allclose(de.auprc_condition(same, truth), share)
    np.testing.assert_allclose(de.auprc_gain_condition(same, truth), 0.0, atol=1e-12)
    for context in (0, 1):
        rows = truth.context == context
        assert de.auroc_gene(same, truth)[rows].mean() == pytest.approx(0.5)
        assert de.auprc_gain_gene(same, truth)[rows].mean() == pytest.approx(0, abs=1e-12)
    assert (de.direction(0 * same, truth) == 0).all()
    assert np.isnan(de.spearman_lfc_sig(same, truth)).all()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_gene_order_does_not_matter(seed):
    pred, truth = example(n=8, g=15, seed=seed)
    pred = np.round(pred)
    order = np.random.default_rng(seed).permutation(15)
    back = np.argsort(order)
    moved = replace(truth, effects=truth.effects[:, order], observed=truth.observed[:, order],
                    targets=tuple(back[t] for t in truth.targets),
                    de=DETable(truth.de.log2fc[:, order], truth.de.padj[:, order]))  # fmt: skip
    for metric in EFFECTS.values():
        np.testing.assert_allclose(metric(pred[:, order], moved), metric(pred, truth), atol=1e-12, equal_nan=True)


def test_top_shares_the_border():
    size, among = np.array([[5.0, 1.0, 1.0, 1.0, 9.0]]), np.array([[True, True, True, True, False]])
    np.testing.assert_allclose(top(size, among, np.array([2])), [[1, 1 / 3, 1 / 3, 1 / 3, 0]])
    np.testing.assert_allclose(top(size, among, np.array([2]), shared=False), [[1, 1, 0, 0, 0]])
    np.testing.assert_allclose(top(size, among, np.array([9])), among)
    assert not top(size, among, np.array([0])).any()


@dataclass(frozen=True)
class CaseCells:
    """Cells of a metric case."""

    case: _metric_cases.Case

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        return self.case.controls

    def perturbed(self, row: int) -> np.ndarray:
        return self.case.observed[row]


def truth_of(case):
    """The DE table as pdex has it, from our tests."""
    rows = len(case.observed)
    p = np.stack([tests_of_genes.wilcoxon(x, case.controls).p for x in case.observed])
    padj = tests_of_genes.benjamini_hochberg(p).astype(np.float32)
    means = [tests_of_genes.mean_counts(x) for x in (*case.observed, case.controls)]
    log2fc = tests_of_genes.log2fc(np.stack(means[:-1]), means[-1]).astype(np.float32)
    return Truth(case.effects(case.observed).astype(np.float32), "delta", np.zeros(rows, int), case.targets,
                 de=DETable(log2fc, padj), cells=CellView(CaseCells(case), np.arange(rows), half="B"))  # fmt: skip


OFFICIAL = {
    "overlap_at_N": "overlap_n_cell_eval",
    "overlap_at_50": "overlap_50_cell_eval",
    "overlap_at_100": "overlap_100_cell_eval",
    "precision_at_N": "precision_n_cell_eval",
    "precision_at_50": "precision_50_cell_eval",
    "precision_at_100": "precision_100_cell_eval",
    "de_direction_match": "direction_cell_eval",
    "de_spearman_lfc_sig": "spearman_lfc_sig_cell_eval",
    "de_spearman_sig": "spearman_sig",
    "de_sig_genes_recall": "sig_recall",
    "pr_auc": "auprc",
    "roc_auc": "auroc",
}


@pytest.mark.parametrize("name", _metric_cases.available())
def test_predicted_cells_score_as_in_cell_eval(name):
    if not EXPECTED.is_file():
        pytest.skip("cell-eval's numbers are not here: make oracles/cell_eval")
    found = json.loads(EXPECTED.read_text("utf-8"))["cases"][name]["values"]
    case = _metric_cases.load(name)
    truth = truth_of(case)
    np.testing.assert_allclose(truth.de.padj, found["observed"]["fdr"], atol=1e-6)
    for predictor in _metric_cases.PREDICTORS:
        for official, ours in OFFICIAL.items():
            values = CELLS[ours](case.predicted[predictor], truth)
            want = np.array(found[predictor][official], dtype=float)
            np.testing.assert_allclose(values, want, atol=1e-6, err_msg=f"{predictor} {official}", equal_nan=True)


@pytest.fixture(scope="module")
def kang():
    case = _metric_cases.load("kang18")
    return case, truth_of(case)


def test_own_forms_differ_by_fold_change_and_by_undefined_rows(kang):
    case, truth = kang
    cells = case.predicted["mixed"]
    assert not np.allclose(de_cells.spearman_lfc_sig(cells, truth), de_cells.spearman_lfc_sig_cell_eval(cells, truth))
    padj = truth.de.padj.copy()
    padj[1] = 1.0
    nothing = replace(truth, de=replace(truth.de, padj=padj))
    for name in ("overlap_n", "overlap_50", "precision_n", "sig_recall", "direction"):
        assert np.isnan(CELLS[name](cells, nothing)[1])
        assert np.isfinite(CELLS[name](cells, nothing)[[0, 2, 3]]).all()
    assert de_cells.overlap_n_cell_eval(cells, nothing)[1] == 0
    controls = np.repeat(case.controls[None, :40], len(cells), axis=0)  # nothing predicted: no overlap, not undefined
    assert (de_cells.overlap_n(controls, truth) == 0).all()
    assert (de_cells.precision_n(controls, truth) == 0).all()


@pytest.mark.parametrize("name", sorted(CELLS))
def test_the_observed_cells_are_best(kang, name):
    case, truth = kang
    np.testing.assert_allclose(CELLS[name](case.observed, truth), 1.0, atol=1e-6)


def test_genes_that_are_not_scored_do_not_move_the_tests(kang):
    """Benjamini-Hochberg runs over scored genes, so an unscored gene cannot change anything."""
    case, truth = kang
    observed = np.ones(truth.effects.shape, bool)
    observed[:, ::3] = False
    part = replace(truth, observed=observed)
    cells = case.predicted["mixed"]
    junk = cells.copy()
    junk[..., ::3] += 3
    for metric in CELLS.values():
        np.testing.assert_array_equal(metric(junk, part), metric(cells, part))


def test_remembered_tests_are_those_of_the_same_cells(kang):
    """Metrics share the tests of the last prediction; cells changed in place are tested anew."""
    case, truth = kang
    cells = case.predicted["mixed"].copy()
    first = de_cells.auroc(cells, truth)
    np.testing.assert_array_equal(de_cells.auroc(cells, truth), first)
    cells[0] = case.observed[0]
    assert de_cells.auroc(cells, truth)[0] == pytest.approx(1.0) != pytest.approx(first[0])
    np.testing.assert_array_equal(de_cells.auroc(cells, truth)[1:], first[1:])


def test_metrics_say_what_they_need():
    truth = example()[1]
    for metric in (*EFFECTS.values(), *CELLS.values()):
        assert metric.unmet(replace(truth, de=None)).startswith("no de")
        assert "hance" in metric.formula
