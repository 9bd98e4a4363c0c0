"""Published screens through the command line: imports, small grids, numbers recomputed from the files themselves."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import embbench
from embbench.cli.main import app
from embbench.core import PerturbationDataset

pytestmark = pytest.mark.shared

HERE = Path(__file__).resolve().parent
REGISTRY = HERE / "real_data.yaml"


@pytest.fixture(autouse=True)
def expression(shared_data: Path) -> Path:
    """The folder of the screens' files; absent: skip."""
    return shared_data / "expression"


def grid(tmp_path: Path, *options: str) -> pd.DataFrame:
    """Run ``embbench grid`` on one screen and read its leaderboard (all conditions)."""
    out = tmp_path / "out"
    command = ["grid", *options, "--registry", str(REGISTRY), "--permutations", "0", "--out", str(out)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / "leaderboard.csv")
    table = table[table["subset"] == "all"]
    # a context mean has no correlation about the mean
    empty = table[~np.isfinite(table["mean"]) & ~table["metric"].str.startswith("pearson_systema")]
    assert not empty["n_conditions"].any(), empty  # undefined everywhere: the correlation of a prediction of zeros
    assert set(empty["head"]) <= {"no_change"}, empty
    return table


def score(table: pd.DataFrame, metric: str, head: str, embedding: str = "none") -> float:
    """The one score of a configuration."""
    hit = (table["metric"] == metric) & (table["head"] == head) & (table["embedding"] == embedding)
    assert hit.sum() == 1, table[["metric", "head", "embedding"]]
    return float(table.loc[hit, "mean"].iloc[0])


def screen(dataset: str, *shape: int) -> PerturbationDataset:
    """A screen of the registry file; it must have (conditions, entities, contexts, genes) as published."""
    data = embbench.load_dataset(dataset, registry=[REGISTRY])
    assert (len(data), len(data.entity_names), len(data.contexts), len(data.genes)) == shape
    return data


def test_norman_pairs(tmp_path: Path) -> None:
    """Unseen pairs: additive equals the sum of both single effects, condition by condition."""
    table = grid(
        tmp_path, "--dataset", "norman19", "--split", "unseen_combination:3", "--emb", "hallmark", "--head", "ridge:1.0"
    )
    data = screen("norman19", 33, 31, 1, 500)
    single = {row[0]: effect for row, effect in zip(data.entities, data.effects, strict=True) if len(row) == 1}
    mean = np.mean(list(single.values()), axis=0)
    pairs = [i for i, row in enumerate(data.entities) if len(row) == 2]
    sums = [sum(single.get(member, mean) for member in data.entities[i]) for i in pairs]
    wanted = np.mean([np.linalg.norm(data.truth[i] - made) for i, made in zip(pairs, sums, strict=True)])
    assert score(table, "l2_all", "additive") == pytest.approx(wanted, rel=1e-5)
    assert {"ridge:1.0", "no_change", "context_mean"} <= set(table["head"])


def test_mcfaline_unseen_line(tmp_path: Path) -> None:
    """Unseen cell line: the perturbation mean is the mean over the other two lines."""
    table = grid(
        tmp_path, "--dataset", "mcfaline23", "--metrics", "l2_all,pearson_notarget", "--head", "nearest_context"
    )
    data = screen("mcfaline23", 27, 9, 3, 500)
    cube = data.effects.reshape(3, 9, -1)  # rows are ordered by context, then perturbation
    assert data.entities[:9] == data.entities[9:18] == data.entities[18:]
    others = (cube.sum(axis=0) - cube) / 2
    wanted = np.linalg.norm(data.truth.reshape(3, 9, -1) - others, axis=2).mean()
    assert score(table, "l2_all", "perturbation_mean") == pytest.approx(wanted, rel=1e-5)
    assert set(table.loc[table["head"] == "nearest_context", "context_embedding"]) >= {"control_context_pca"}


def test_papalexi_counts_and_batches(tmp_path: Path) -> None:
    """Counts of a panel: the size factor is marked, batches are matched, every perturbation is held out once."""
    table = grid(
        tmp_path, "--dataset", "papalexi21", "--emb", "hallmark", "--head", "knn:k=3", "--metrics", "l2_notarget"
    )
    assert set(table["n_conditions"]) == {25}
    meta = screen("papalexi21", 25, 25, 1, 299).meta
    assert (meta["size_factor"], meta["matching"], meta["controls"]) == ("panel", "batch", "halves")


@pytest.mark.parametrize(
    ("dataset", "file", "context", "shape", "options"),
    [
        (
            "op3",
            "op3_neurips2023_rankscores_135drugs_4celltypes.h5ad",
            "cell_type",
            (540, 135, 4, 6349),
            ("--head", "nearest_context", "--context-emb", "lineage"),
        ),
        ("tahoe", "tahoe_rankscores_10lines.h5ad", "cell_line", (1034, 109, 10, 6474), ("--head", "perturbation_mean")),
    ],
    ids=["op3", "tahoe"],
)
def test_drug_tables(
    tmp_path: Path,
    expression: Path,
    dataset: str,
    file: str,
    context: str,
    shape: tuple[int, ...],
    options: tuple[str, ...],
) -> None:
    """Unseen contexts: the perturbation mean, recomputed from the file."""
    table = grid(tmp_path, "--dataset", dataset, "--metrics", "l2_all", *options)
    assert table["n_contexts"].eq(shape[2]).all()
    screen(dataset, *shape)
    raw = anndata.read_h5ad(expression / file)
    values = np.where(raw.X == 0, np.nan, raw.X) if dataset == "tahoe" else np.asarray(raw.X)
    drug, line = (raw.obs[key].astype(str).to_numpy() for key in ("perturbation", context))
    means = [held_out_error(values, drug, line, name) for name in np.unique(line)]
    assert score(table, "l2_all", "perturbation_mean") == pytest.approx(np.mean(means), rel=1e-5)


def held_out_error(values: np.ndarray, drug: np.ndarray, line: np.ndarray, name: str) -> float:
    """Mean l2 of the perturbation mean for one held-out line: an untested entry (NaN) counts as its line's mean, a gene
    that a line never tested as the mean over lines, a drug of no other line as the mean over lines."""
    lines = [other for other in np.unique(line) if other != name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing are NaN, filled in the next line
        known = {other: np.nanmean(values[line == other], axis=0, dtype=np.float64) for other in lines}
        overall = np.nan_to_num(np.nanmean(list(known.values()), axis=0))
    known = {other: np.where(np.isnan(mean), overall, mean) for other, mean in known.items()}
    errors = []
    for i in np.flatnonzero(line == name):
        rows = np.flatnonzero((drug == drug[i]) & (line != name))
        filled = [np.where(np.isnan(values[r]), known[line[r]], values[r]) for r in rows] or list(known.values())
        errors.append(np.sqrt(np.nansum((values[i] - np.mean(filled, axis=0)) ** 2)))
    return float(np.mean(errors))


def test_unseen_drugs_have_baselines_only(tmp_path: Path) -> None:
    """No packaged embedding knows compounds: the run is skipped, and says so."""
    table = grid(
        tmp_path,
        "--dataset",
        "op3",
        "--split",
        "unseen_perturbation:3",
        "--emb",
        "go",
        "--head",
        "knn",
        "--metrics",
        "l2_notarget",
    )
    assert "go" not in set(table["embedding"])
    problems = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert "embedding go holds genes, the dataset perturbs compounds" in set(problems["reason"])


def test_l1000_unseen_genes(tmp_path: Path) -> None:
    table = grid(
        tmp_path,
        "--dataset",
        "l1000_oe",
        "--emb",
        "hallmark",
        "--head",
        "ridge:100.0",
        "--metrics",
        "l2_notarget,pearson_notarget",
    )
    assert set(table.loc[table["head"] != "no_change", "n_conditions"]) == {253}
    assert screen("l1000_oe", 253, 253, 1, 5600).meta["missing"] == "zero"
    assert 0 < score(table, "l2_notarget", "ridge:100.0", "hallmark") < np.inf


def null_controls() -> ModuleType:
    spec = importlib.util.spec_from_file_location("null_controls", HERE.parent / "bench" / "null_controls.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_predicted_where_nothing_happened(tmp_path: Path, expression: Path, fresh_home: Path) -> None:
    """Papalexi controls cut into ten fake perturbations: the train mean scores 0 with control halves, 0.7 without."""
    source = expression / "papalexi2021_eccite_lowmoi_299genes.h5ad"
    found = list(null_controls().draws(source, "perturbation", "non-targeting", "bio_rep", 10, tmp_path))
    halves, shared = np.mean([f[1:] for f in found], axis=0)
    assert abs(halves) < 0.05, f"control halves {halves:+.3f}, shared controls {shared:+.3f}"
    assert shared > 0.4, f"control halves {halves:+.3f}, shared controls {shared:+.3f}"
