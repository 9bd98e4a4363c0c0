"""The DE classification task on real screens, through the grid: labelled Papalexi, L1000 as a sparse label table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _grid import run, stored
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from embbench.core import PerturbationDataset
from embbench.grid.config import read_grid
from embbench.grid.frames import read_frames
from embbench.grid.names import registry_of
from embbench.grid.plan import Planned, plan
from embbench.grid.results import Results
from embbench.grid.screens import screen

pytestmark = pytest.mark.shared

ROOT = Path(__file__).resolve().parents[1]
REAL = (str(ROOT / "tests" / "real_data.yaml"),)
L1000 = "expression/lincs_l1000_overexpression_consensus_dysreg.parquet"
KEYS = "perturbation_key=pert_symbol:gene_key=symbol:label_key=direction:min_genes=20"
METRICS = ["auroc_gene_all", "ap_gene_all", "f1_macro_gene_all", "auroc_condition_all", "f1_macro_condition_all"]
HEADS = ["label_logistic:C=0.01", "label_knn:k=5:weights=uniform:temperature=1:smoothing=1"]


@pytest.fixture(autouse=True)
def _real(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the grids in bench/ start at the root of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def part(shared_data: Path, tmp_path: Path) -> str:
    """The spec of 60 perturbations of L1000 (with the most entries) and the 80 genes they change most often."""
    raw = pd.read_parquet(shared_data / L1000)
    raw = raw[raw.pert_symbol.isin(raw.pert_symbol.value_counts().index[:60])]
    raw = raw[raw.symbol.isin(raw.symbol.value_counts().index[:80])]
    raw.to_parquet(path := tmp_path / "part.parquet")
    return f"label_table:{path}:{KEYS}"


def of(planned: list[Planned], head: str, embedding: str = "none") -> list[Planned]:
    """The runs of one configuration, a fold each."""
    found = [p for p in planned if (p.run.head, p.run.embedding) == (head, embedding)]
    assert found
    return found


def scores(results: Results, planned: list[Planned], metric: str, paths: tuple[str, ...] = ()) -> np.ndarray:
    """Row values of these runs."""
    frame = read_frames(results, registry_of(paths), [metric]).scores
    return frame.loc[frame["key"].isin([p.key for p in planned]), "value"].to_numpy()


def by_hand(proba: np.ndarray, labels: np.ndarray, one: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """Per gene the mean over classes of scikit-learn's ``one(is class, probability)``; NaN without two classes."""
    out = np.full(labels.shape[1], np.nan)
    for gene in range(labels.shape[1]):
        classes = [c for c in (-1, 0, 1) if 0 < (labels[:, gene] == c).sum() < len(labels)]
        if classes:
            out[gene] = np.mean([one(labels[:, gene] == c, proba[:, gene, c + 1]) for c in classes])
    return out


@pytest.mark.parametrize("name", ["de_task", "de_l1000"])
def test_the_grids_plan(name: str) -> None:
    path, known = ROOT / "bench" / f"{name}.yaml", {e.name for e in registry_of(REAL).entries("embeddings")}
    assert set(read_grid(path).emb) <= known
    quick = {"emb": ["hallmark"], "permutations": {"smoother": 1, "trained": 1}}  # the others take a while to extract
    planned = plan(read_grid(path, **quick), REAL)
    assert not [p.reason for p in planned if p.reason]
    assert {"label_prior", "label_no_change", "label_most_frequent"} <= {p.run.head for p in planned}
    assert {"method", "permuted", "random", "baseline"} == {p.role for p in planned}


def test_l1000_has_253_perturbations() -> None:
    data = screen(read_grid(ROOT / "bench" / "de_l1000.yaml").dataset[0], "all", ())
    assert (len(data), len(data.entity_names), data.labels.shape) == (253, 253, (253, 5600))
    assert data.meta["published_labels"] == {"up": 17729, "down": 14202, "none": 253 * 5600 - 17729 - 14202}


def test_l1000_per_gene(part: str, tmp_path: Path) -> None:
    """The prior is 0.5 in every gene, and the grid's means are those of scikit-learn gene by gene."""
    axes = {"emb": ["hallmark"], "head": HEADS, "target": "labels", "baselines": True, "metrics": METRICS}
    results, planned = run(tmp_path / "out", (), dataset=part, split="unseen_perturbation:3", **axes)
    for fold in of(planned, "label_prior"):
        made, data = stored(results, fold, ())
        areas = by_hand(made.values, data.labels[made.rows], roc_auc_score)
        assert np.isfinite(areas).sum() > 60
        assert set(areas[np.isfinite(areas)]) == {0.5}
        assert set(scores(results, [fold], "auroc_gene_all")) == {0.5}
    for head in HEADS:
        fold = of(planned, head, "hallmark")[0]
        made, data = stored(results, fold, ())
        for metric, one in (("auroc_gene_all", roc_auc_score), ("ap_gene_all", average_precision_score)):
            want = np.nanmean(by_hand(made.values, data.labels[made.rows], one))
            assert scores(results, [fold], metric).mean() == pytest.approx(want, abs=1e-9)


def test_papalexi_end_to_end(tmp_path: Path) -> None:
    axes = {"emb": ["hallmark"], "head": HEADS, "target": "labels", "baselines": True, "metrics": METRICS}
    results, planned = run(tmp_path / "out", REAL, dataset="labelled:papalexi21", split="unseen_perturbation:3", **axes)
    changed = _changed(screen("labelled:papalexi21", "all", REAL))
    for head, embedding in (
        (HEADS[0], "hallmark"),
        (HEADS[1], "hallmark"),
        (HEADS[0], "random"),
        ("label_prior", "none"),
    ):
        runs = of(planned, head, embedding)
        for metric in METRICS:
            values = scores(results, runs, metric, REAL)
            assert len(values) == 25
            # a condition that changes nothing has one class: no area; every other value is there
            assert np.isfinite(values).sum() == ((changed > 0).sum() if metric == "auroc_condition_all" else 25)
        areas = scores(results, runs, "auroc_gene_all", REAL)
        assert (head == "label_prior") == (set(areas) == {0.5})


def test_papalexi_labels_are_scipys(shared_data: Path) -> None:
    """One strong and one weak perturbation against control half B: rank-sum p, BH over tested genes, sign of log2fc."""
    data = screen("labelled:papalexi21", "all", REAL)
    control = data.cells.controls(0, "B")
    for target in ("STAT1", "CMTM6"):
        row = data.conditions.index(target)
        cells = data.cells.perturbed(row)
        tested = data.truth_labels_tested[row]
        seen, sizes = (cells > 0).sum(axis=0), (len(cells), len(control))
        pooled = seen + (control > 0).sum(axis=0)
        np.testing.assert_array_equal(tested, pooled >= 0.05 * min(sum(sizes), 10 * min(sizes)))
        p = stats.mannwhitneyu(cells[:, tested], control[:, tested], method="asymptotic").pvalue
        tails = stats.hypergeom(sum(sizes), pooled[tested], len(cells))
        exact = np.minimum(2 * np.minimum(tails.cdf(seen[tested]), tails.sf(seen[tested] - 1)), 1)
        p = np.where(pooled[tested] * min(sizes) / sum(sizes) < 10, np.maximum(p, exact), p)
        change = np.expm1(cells[:, tested].astype(float)).mean(axis=0) > np.expm1(
            control[:, tested].astype(float)
        ).mean(axis=0)
        want = np.where(stats.false_discovery_control(p) < 0.05, np.where(change, 1, -1), 0)
        np.testing.assert_array_equal(data.truth_labels[row][tested], want)


def test_more_cells_more_labels_and_the_halves_agree() -> None:
    """The number of DE genes follows the number of tested cells; no gene has opposite labels against the two halves."""
    counts = []
    for cells in (50, 200, None):
        data = screen("labelled:papalexi21" + (f":equal_cells={cells}" if cells else ""), "all", REAL)
        counts.append(_changed(data).sum())
        both = data.labels_tested & data.truth_labels_tested
        assert not (data.labels * data.truth_labels < 0)[both].any()
        assert (data.labels == data.truth_labels)[both].mean() > 0.95
    assert counts[0] < counts[1] / 2 < counts[2] / 2


def _changed(data: PerturbationDataset) -> np.ndarray:
    """Genes labelled up or down per condition, (n,)."""
    return ((data.truth_labels != 0) & data.truth_labels_tested).sum(axis=1)
