"""Author files of Replogle et al. 2022 and Nadig et al. 2025: the merge, its pseudobulk, published bulk, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _published import ENSEMBL, Files, bare, h5ad, write
from tiny.weissman import CONTROL, FILES, MINIS, TARGETS, WHERE, bulk, line_file, table

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._h5ad import column
from embbench.datasets._import import import_h5ad
from embbench.genes import harmonise
from embbench.registry import default

LINES = {"K562": "K-562", "rpe1": "hTERT-RPE1", "hepg2": "Hep-G2", "jurkat": "Jurkat"}


@pytest.fixture(autouse=True)
def _home(fresh_home: Path) -> None:
    """A store of its own."""


def made(name: str, folder: Path, files: Files | None = None, **params: Any) -> Any:
    """The reader of an entry on files in a folder."""
    write(folder, MINIS[name]() if files is None else files)
    entry = default().get("datasets", name)
    return entry.make(**{"files": bare(entry), "root": str(folder), **params})


def loaded(*args: Any, **params: Any) -> PerturbationDataset:
    return made(*args, **params).load()


def symbol(gene: str) -> str:
    return harmonise([WHERE[gene]]).names[0]


def row_of(data: PerturbationDataset, gene: str, context: str) -> int:
    return [*zip(data.entities, data.context.tolist(), strict=True)].index(((symbol(gene),), context))


def cole(shared: list[str], counts: np.ndarray, obs: dict[str, Any], genes: list[str]) -> pd.DataFrame:
    """The pseudobulk of Cole et al. 2026 with pandas: gem groups averaged unweighted, the line's controls taken off."""
    frame = pd.DataFrame(counts[:, [genes.index(g) for g in shared]].astype(np.float64), columns=shared)
    frame = np.log1p(frame.div(frame.sum(axis=1), axis=0) * 1e4)
    frame["gene_id"], frame["gem_group"] = obs["gene_id"], obs["gem_group"]
    mean = frame.groupby(["gene_id", "gem_group"]).mean().groupby("gene_id").mean()
    return mean.drop(CONTROL) - mean.loc[CONTROL]


def uneven(line: str) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """A line in which one gene misses gem group 2, one has a single cell in group 3, and group 3 has no controls."""
    counts, obs, genes = table(line)
    label, gem = np.array(obs["gene"]), np.array(obs["gem_group"])
    lone = np.flatnonzero((label == TARGETS[1]) & (gem == 3))
    drop = ((label == TARGETS[0]) & (gem == 2)) | ((label == CONTROL) & (gem == 3))
    drop[lone[1:]] = True
    keep = np.flatnonzero(~drop)
    return counts[keep], {key: [np.asarray(v)[i] for i in keep] for key, v in obs.items()}, genes


def test_the_recipe_is_the_published_pseudobulk(tmp_path: Path) -> None:
    """Also for genes that miss gem groups and for gem groups without controls."""
    tables = {line: uneven(line) for line in FILES}
    files = {FILES[line]: h5ad(x, obs, {}, genes) for line, (x, obs, genes) in tables.items()}
    data = loaded("essential_raw", tmp_path, files, recipe="cole2026")
    shared = [gene for gene in tables["K562"][2] if all(gene in genes for _, _, genes in tables.values())]
    assert len(shared) == len(ENSEMBL) - 4 == len(data.genes)
    assert set(data.contexts) == set(LINES.values())
    assert len(data) == 4 * len(TARGETS)
    columns = [data.genes.tolist().index(name) for name in harmonise(shared).names]
    for line, (x, obs, genes) in tables.items():
        expected = cole(shared, x, obs, genes)
        for gene in TARGETS:
            row = row_of(data, gene, LINES[line])
            assert np.allclose(data.effects[row][columns], expected.loc[WHERE[gene]], atol=1e-5), (line, gene)
            assert data.n_cells[row] == obs["gene"].count(gene)
    assert np.array_equal(data.effects, data.truth)
    assert data.meta["controls"] == "shared"


def test_the_merge_names_lines_and_keeps_their_batches_apart(tmp_path: Path) -> None:
    data = loaded("essential_raw", tmp_path)
    assert set(data.contexts) == set(LINES.values())
    assert data.meta["size_factor"] == "UMI_count"
    assert data.meta["matching"] == "batch"
    assert (
        f"4 files of 28, 28, 28, 28 genes: the {len(data.genes)} that all have are kept" in data.meta["import_report"]
    )
    with made("essential_raw", tmp_path).screen.open() as file:
        batches = column(file, "obs", "batch", "batches").levels
    assert len(batches) == 12
    assert "Jurkat:1" in batches
    assert not np.array_equal(data.effects, data.truth)
    alone = loaded("essential_raw", tmp_path / "one", {FILES["rpe1"]: line_file("rpe1")}, only="rpe1")
    assert alone.contexts == ("hTERT-RPE1",)
    assert len(alone.genes) == len(ENSEMBL) - 1


def test_one_line_by_hand(tmp_path: Path) -> None:
    """Batch-matched effect of one gene against half A, from the counts and the halves that were drawn."""
    data = loaded("nadig25_hepg2_raw", tmp_path, controls="shared")
    counts, obs, genes = table("hepg2")
    level = np.log1p(counts / np.array(obs["UMI_count"])[:, None] * 1e4)
    label, gem = np.array(obs["gene"]), np.array(obs["gem_group"])
    gene = TARGETS[2]
    effect = np.zeros(len(genes))
    for batch in (1, 2, 3):  # four cells of each kind in every gem group: equal weights
        own, control = ((label == what) & (gem == batch) for what in (gene, CONTROL))
        effect += (level[own].mean(axis=0) - level[control].mean(axis=0)) / 3
    columns = [data.genes.tolist().index(name) for name in harmonise(genes).names]
    assert np.allclose(data.effects[row_of(data, gene, "Hep-G2")][columns], effect, atol=1e-5)


def test_a_missing_gene_id_falls_back_to_the_symbol_and_is_counted(tmp_path: Path) -> None:
    counts, obs, genes = table("K562")
    obs["gene_id"] = [None if label == TARGETS[3] else i for label, i in zip(obs["gene"], obs["gene_id"], strict=True)]
    data = loaded("replogle22_k562_essential_raw", tmp_path, {FILES["K562"]: h5ad(counts, obs, {}, genes)})
    assert (symbol(TARGETS[3]),) in data.entities
    assert len(data) == len(TARGETS)
    assert "K-562: cells without gene_id, perturbed gene taken from gene: 12" in data.meta["import_report"]


def test_z_scored_cells_are_refused_by_fetch_and_by_import(tmp_path: Path) -> None:
    counts, obs, genes = table("K562")
    scores = ((counts - counts.mean(axis=0)) / counts.std(axis=0)).astype(np.float32)
    file = h5ad(scores, obs, {}, genes)
    with pytest.raises(UserError, match=r"expected counts as published.*z-scores per gem_group.*fetch replogle22_k562"):
        made("replogle22_k562_essential_raw", tmp_path, {FILES["K562"]: file}).check()
    write(tmp_path, {"normalized.h5ad": file})
    with pytest.raises(UserError, match=r"z-scores per gem_group.*embbench data fetch replogle22_k562_essential_raw"):
        import_h5ad(tmp_path / "normalized.h5ad", "mine", "gene")


def test_the_state_merge_is_refused_where_scores_were_normalised_again(tmp_path: Path) -> None:
    assert set(loaded("replogle_nadig_state", tmp_path / "good").contexts) == {"hepg2", "jurkat"}
    counts, obs, genes = table("K562")
    scores = (counts - counts.mean(axis=0)) / counts.std(axis=0)
    with np.errstate(invalid="ignore"):
        again = np.log1p(scores).astype(np.float32)
    more = {**obs, "cell_line": ["k562"] * len(obs["gene"])}
    with pytest.raises(UserError, match=r"expected lognorm as published.*negative values"):
        made("replogle_nadig_state", tmp_path, {"replogle.h5ad": h5ad(again, more, {}, genes)}).check()


def test_a_file_without_gem_group_or_with_other_controls_is_refused(tmp_path: Path) -> None:
    counts, obs, genes = table("rpe1")
    lacks = {key: value for key, value in obs.items() if key != "gem_group"}
    with pytest.raises(UserError, match=r"column gem_group for batches"):
        made("replogle22_rpe1_raw", tmp_path / "a", {FILES["rpe1"]: h5ad(counts, lacks, {}, genes)}).check()
    other = {**obs, "gene_id": [str(i).replace(CONTROL, "zero") for i in obs["gene_id"]]}
    with pytest.raises(UserError, match=r"expected the control 'non-targeting'"):
        made("replogle22_rpe1_raw", tmp_path / "b", {FILES["rpe1"]: h5ad(counts, other, {}, genes)}).check()
    with pytest.raises(UserError, match=r"data fetch replogle22_rpe1_raw"):
        made("replogle22_rpe1_raw", tmp_path / "c", {}).load()


def frame_of(files: Files) -> tuple[np.ndarray, pd.DataFrame]:
    """Values and obs of a bulk file, read by anndata."""
    import io

    import anndata

    data = anndata.read_h5ad(io.BytesIO(next(iter(files.values()))))
    return np.asarray(data.X, dtype=np.float64), data.obs


def test_raw_bulk_by_hand(tmp_path: Path) -> None:
    name = "replogle22_rpe1_bulk_raw"
    data = loaded(name, tmp_path, controls="shared")
    values, obs = frame_of(MINIS[name]())
    gene = np.array([row.split("_")[1] for row in obs.index])

    def level(rows: np.ndarray) -> np.ndarray:
        total = (values[rows] * obs["num_cells_filtered"].to_numpy()[rows, None]).sum(axis=0)
        return np.log1p(total / total.sum() * 1e4)

    for target in TARGETS[:3]:
        expected = level(np.flatnonzero(gene == target)) - level(np.flatnonzero(gene == CONTROL))
        assert np.allclose(data.effects[row_of(data, target, "hTERT-RPE1")], expected, atol=1e-5)
    counts = data.meta["import_counts"]
    assert counts["rows_joined"] == 4
    assert counts["rows_without_target"] == 1
    assert counts["control_rows"] == 4
    assert data.n_cells[row_of(data, TARGETS[0], "hTERT-RPE1")] == 20 + 21
    assert data.unit == "delta"
    halves = loaded(name, tmp_path)
    assert not np.array_equal(halves.effects, halves.truth)
    gap = halves.effects - halves.truth
    assert np.allclose(gap, gap[0], atol=1e-5), "halves differ by control noise alone, the same for every gene"
    assert np.allclose(gap[0], halves.baseline_truth[0] - halves.baseline[0], atol=1e-5)


def test_normalized_bulk_keeps_scores_and_masks_what_is_not_finite(tmp_path: Path) -> None:
    name = "replogle22_k562_gwps_bulk"
    data = loaded(name, tmp_path)
    values, obs = frame_of(MINIS[name]())
    assert data.unit == "zscore"
    assert data.baseline is None
    assert len(data.genes) == len(ENSEMBL) - 1
    weights = obs["num_cells_filtered"].to_numpy()[:2]
    kept = [i for i in range(values.shape[1]) if i != 7]
    expected = weights @ values[:2] / weights.sum()
    assert np.allclose(data.effects[row_of(data, TARGETS[0], "K-562")], expected[kept], atol=1e-5)
    row = row_of(data, TARGETS[1], "K-562")  # two rows, one of them infinite in gene 3: the other is left
    assert np.isclose(data.effects[row][3], values[3, 3], atol=1e-5)
    assert data.observed[row][3]
    assert not data.observed[row_of(data, TARGETS[2], "K-562")][5]
    counts = data.meta["import_counts"]
    assert counts["genes_not_finite"] == 1
    assert counts["entries_not_finite"] == 1
    json.dumps(data.meta)


@pytest.mark.parametrize(
    ("entry", "scores", "message"),
    [("replogle22_rpe1_bulk_raw", True, "expected mean counts"), ("replogle22_rpe1_bulk", False, "expected z-scores")],
)
def test_the_other_kind_of_bulk_is_refused(entry: str, scores: bool, message: str, tmp_path: Path) -> None:
    name = default().get("datasets", entry).params["files"][0]["name"]
    with pytest.raises(UserError, match=message):
        made(entry, tmp_path, bulk(name, scores=scores)).check()


def test_few_cells_and_few_genes(tmp_path: Path) -> None:
    name = "replogle22_rpe1_bulk_raw"
    data = loaded(name, tmp_path, min_cells=25)
    assert data.meta["import_counts"]["conditions_small"] == 1
    assert len(data) == len(TARGETS) - 1
    with pytest.raises(UserError, match="expected two or more perturbed genes, found 0"):
        made(name, tmp_path, min_cells=1000).load()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": ""}, "context must name the cell line, got ''"),
        ({"context": 3}, "context must be text, got 3"),
        ({"min_cells": "a"}, "min_cells must be a whole number >= 1, got 'a'"),
        ({"min_cells": 0}, "min_cells must be a whole number >= 1, got 0"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
    ],
)
def test_values_that_are_none_are_refused(given: dict[str, Any], message: str) -> None:
    entry = default().get("datasets", "replogle22_rpe1_bulk_raw")
    with pytest.raises(UserError, match=message):
        entry.make(**given)


def test_lines_must_be_named() -> None:
    entry = default().get("datasets", "essential_raw")
    with pytest.raises(UserError, match="lines must map names to names, got 3"):
        entry.make(lines=3)
    with pytest.raises(UserError, match="lines must name the cell line of every file, none for"):
        entry.make(lines={})
