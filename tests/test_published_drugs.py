"""Readers of sci-Plex, OP3, Tahoe and converted R objects: what their formats make special, against hand results."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from _published import GENES, bare, gzipped, made, report
from scipy import io as sio
from tiny import op3, rds_folder, sciplex_geo, tahoe

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._dose_text import doses_of
from embbench.datasets._shards import Shard, opened
from embbench.datasets.op3_de import Op3De
from embbench.datasets.tahoe_parquet import chosen_shards
from embbench.registry import default

PLAIN = {"controls": "shared", "etest": False}


@pytest.fixture(autouse=True)
def _home(fresh_home: Path) -> None:
    """Imports of their own for each test."""


def by_hand(counts: np.ndarray, pert: np.ndarray, control: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Batch-matched difference of mean log1p at depth 1e4, weights n m / (n + m), of shape (g,)."""
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    total, weight = np.zeros(counts.shape[1]), 0.0
    for b in np.unique(batch):
        p, c = pert & (batch == b), control & (batch == b)
        w = p.sum() * c.sum() / (p.sum() + c.sum()) if p.any() and c.any() else 0.0
        if w:
            total, weight = total + w * (logs[p].mean(axis=0) - logs[c].mean(axis=0)), weight + w
    return total / weight


def row_of(data: PerturbationDataset, entities: tuple[str, ...], context: str, dose: float | None = None) -> int:
    hit = [
        i
        for i in range(len(data))
        if data.entities[i] == entities and data.context[i] == context and (dose is None or data.dose[i] == dose)
    ]
    assert len(hit) == 1
    return hit[0]


# sci-Plex 3


def test_sciplex_effects_doses_and_lines(tmp_path: Path) -> None:
    counts, rows = sciplex_geo.table()
    data = made("sciplex3_geo", tmp_path, sciplex_geo.files(counts, rows), **PLAIN).load()
    drug, dose, line, plate = (np.array(column) for column in zip(*rows, strict=True))
    assert data.contexts == ("A549", "K562", "MCF7")
    assert data.entity_type == "compound"
    assert set(data.dose.tolist()) == {10.0, 10000.0}
    assert len(data) == 5 * 2 * 3
    assert ("ENMD-2076 L-(+)-Tartaric acid",) in data.entities
    assert data.genes.tolist() == list(GENES)
    pert = (drug == "(+)-JQ1") & (dose == "10000") & (line == "K562")
    expected = by_hand(counts, pert, (drug == "Vehicle") & (line == "K562"), plate)
    np.testing.assert_allclose(data.effects[row_of(data, ("(+)-JQ1",), "K562", 10000.0)], expected, atol=2e-5)
    assert "cells without a context, dropped: 1" in report(data)
    assert "n.umi: 100.0%" in report(data)


def test_sciplex_is_converted_once_whatever_its_line_ends(tmp_path: Path) -> None:
    counts, rows = sciplex_geo.table()
    plain = made("sciplex3_geo", tmp_path / "a", sciplex_geo.files(counts, rows), **PLAIN)
    crlf = made("sciplex3_geo", tmp_path / "b", sciplex_geo.files(counts, rows, "\r\n"), **PLAIN)
    np.testing.assert_array_equal(plain.load().effects, crlf.load().effects)
    target = tmp_path / "a" / "converted.h5ad"
    before = target.stat().st_mtime_ns
    assert any("360 cells x 29 genes" in line for line in plain.check())
    assert target.stat().st_mtime_ns == before
    found = anndata.read_h5ad(target)
    np.testing.assert_array_equal(found.X.toarray(), counts)
    changed = counts.copy()
    changed[0, 0] += 1
    files = sciplex_geo.files(changed, rows)
    made("sciplex3_geo", tmp_path / "c", files, **PLAIN).load()
    shutil.copy(target, tmp_path / "c" / "converted.h5ad")  # of other sources: made anew
    made("sciplex3_geo", tmp_path / "c", files, **PLAIN).check()
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "c" / "converted.h5ad").X.toarray(), changed)


def test_sciplex_refuses_files_that_do_not_belong_together(tmp_path: Path) -> None:
    counts, rows = sciplex_geo.table()
    with pytest.raises(UserError, match=r"expected the totals .* n\.umi"):
        made("sciplex3_geo", tmp_path / "a", sciplex_geo.files(counts, rows, shift=7)).load()
    good = sciplex_geo.files(counts, rows)
    matrix = next(name for name in good if "count.matrix" in name)
    cut = dict(good) | {matrix: gzipped(b"1\t400\t2\n")}
    with pytest.raises(UserError, match=r"cell numbers from 1 to 360.*found 400 to 400"):
        made("sciplex3_geo", tmp_path / "b", cut).load()
    with pytest.raises(UserError, match="three numbers"):
        made("sciplex3_geo", tmp_path / "c", dict(good) | {matrix: good[matrix][:-400]}).load()
    left = [path.name for path in tmp_path.rglob("*converted*") if ".locks" not in path.parts]
    assert left == ["converted.h5ad"], "of the first, whose table is another; nothing of those that broke off"


# OP3


def test_op3_reads_the_counts_layer(tmp_path: Path) -> None:
    files = op3.counts()
    data = made("op3_counts", tmp_path, files, **PLAIN).load()
    raw = anndata.read_h5ad(io.BytesIO(next(iter(files.values()))))
    obs, counts = raw.obs, np.asarray(raw.layers["counts"])
    here = (obs.cell_type == "NK cells").to_numpy()
    pert, control = ((obs.sm_name == name).to_numpy() & here for name in ("R428", op3.CONTROL))
    expected = by_hand(counts, pert, control, obs.plate_name.to_numpy())
    np.testing.assert_allclose(data.effects[row_of(data, ("R428",), "NK cells", 1.0)], expected, atol=2e-5)
    assert data.contexts == op3.TYPES


def test_op3_recipe_drops_what_the_task_dropped(tmp_path: Path) -> None:
    data = made("op3_counts", tmp_path, op3.counts(), recipe="openproblems").load()
    pairs = set(zip(data.conditions, data.context.tolist(), strict=True))
    assert not any(name.startswith("Alvocidib") for name, _ in pairs)
    assert ("R428@1", "T cells") in pairs
    assert ("R428@1", "NK cells") not in pairs
    assert "sm_name R428, cell_type NK cells left out: 12" in report(data)


def test_op3_without_its_layer_or_control_is_refused(tmp_path: Path) -> None:
    name, data = next(iter(op3.counts().items()))
    raw = anndata.read_h5ad(io.BytesIO(data))
    for i, (change, match) in enumerate(
        (
            (lambda a: a.layers.clear(), "there is no layers/counts"),
            (lambda a: a.obs.drop(columns="cell_type", inplace=True), "cell_type"),
            (lambda a: a.layers.update(counts=a.X), "expected counts as published, found lognorm"),
        )
    ):
        wrong = raw.copy()
        change(wrong)
        wrong.write_h5ad(tmp_path / "wrong.h5ad")
        with pytest.raises(UserError, match=match):
            made("op3_counts", tmp_path / str(i), {name: (tmp_path / "wrong.h5ad").read_bytes()}).load()


def test_op3_de_tables(tmp_path: Path) -> None:
    files = op3.differential()
    data = made("op3_de", tmp_path, files).load()
    assert data.unit == "log2fc"
    assert len(data) == 21
    assert data.genes.tolist() == list(GENES[:-1])
    test = anndata.read_h5ad(io.BytesIO(files["de_test.h5ad"]))
    row = row_of(data, (str(test.obs.sm_name.iloc[0]),), str(test.obs.cell_type.iloc[0]))
    change, p = test.layers["logFC"][0], test.layers["adj.P.Value"][0]
    np.testing.assert_allclose(data.effects[row], change, rtol=1e-6)
    np.testing.assert_array_equal(data.labels[row], np.sign(change) * (p < 0.05))
    assert data.covariates["file_split"][row] == "test"
    assert data.covariates["split"][row] == "private_test"
    assert data.meta["controls"] == "shared"
    assert "not all files have, left out: 1" in report(data)
    scores = made("op3_de", tmp_path, files, values="clipped_sign_log10_pval").load()
    assert scores.unit == "rank_score"
    assert np.abs(scores.effects).max() <= 4
    with pytest.raises(ValueError, match="values must be one of"):
        Op3De("x", bare(default().get("datasets", "op3_de")), values="fold")


def test_op3_de_refuses_other_tables(tmp_path: Path) -> None:
    files = dict(op3.differential())
    with pytest.raises(UserError, match="each compound once in each cell type"):
        made("op3_de", tmp_path / "a", files | {"de_test.h5ad": files["de_train.h5ad"]}).load()
    raw = anndata.read_h5ad(io.BytesIO(files["de_train.h5ad"]))
    raw.layers["adj.P.Value"] = raw.layers["adj.P.Value"] * 9
    raw.write_h5ad(tmp_path / "wrong.h5ad")
    with pytest.raises(UserError, match=r"adj\.P\.Value between 0 and 1"):
        made("op3_de", tmp_path / "b", files | {"de_train.h5ad": (tmp_path / "wrong.h5ad").read_bytes()}).load()


# Tahoe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[('5\\'-Azacitidine', 5.0, 'uM')]", [("5'-Azacitidine", 5.0)]),
        ("[(\"5'-Azacitidine\", 500, 'nM')]", [("5'-Azacitidine", 0.5)]),
        ("[(Bestatin (hydrochloride), 0.05, 'uM')]", [("Bestatin (hydrochloride)", 0.05)]),
        ("[('A', 1.0, 'uM'), ('B', 2.0, 'uM')]", [("A", 1.0), ("B", 2.0)]),
    ],
)
def test_dose_texts(text: str, expected: list[tuple[str, float]]) -> None:
    assert doses_of(text, "tahoe") == expected


@pytest.mark.parametrize(
    "text", ["[]", "", "5 uM", "[('A', 5.0)]", "[('A', 5.0, 'mg')]", "__import__('os').getcwd()", "[" * 400, "1" * 600]
)
def test_other_dose_texts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected drugname_drugconc like"):
        doses_of(text, "tahoe")


def test_tahoe_plate_alone(tmp_path: Path) -> None:
    data = made("tahoe_plates", tmp_path, tahoe.plates((3,)), only="plate3", **PLAIN).load()
    assert ("Trametinib (DMSO_TF solvate)",) in data.entities
    assert ("Bestatin (hydrochloride)",) in data.entities
    assert set(data.dose.tolist()) == {5.0}
    assert data.contexts == tahoe.LINES
    assert "plate3: cells whose pass_filter is not full, left out: 16 of 168" in report(data)
    counts, obs = tahoe.rows(3, 5.0)
    column = {key: np.array(values) for key, values in obs.items()}
    here = (column["cell_line"] == "CVCL_1571") & (column["pass_filter"] == "full")
    pert, control = (here & (column["drug"] == name) for name in ("Verteporfin", "DMSO_TF"))
    expected = by_hand(counts, pert, control, column["plate"])
    np.testing.assert_allclose(data.effects[row_of(data, ("Verteporfin",), "CVCL_1571")], expected, atol=2e-5)
    with pytest.raises(UserError, match="embbench data fetch tahoe_plates --only plate4"):
        made("tahoe_plates", tmp_path, {}, only="plate4").load()


def test_tahoe_shards_hold_the_same_cells(tmp_path: Path) -> None:
    reader = made("tahoe_hf", tmp_path, tahoe.shards(), **PLAIN)
    counts, obs = tahoe.rows(3, 5.0)
    data = reader.load()
    column = {key: np.array(values) for key, values in obs.items()}
    here = column["cell_line"] == "CVCL_0023"
    pert, control = (here & (column["drug"] == name) for name in ("Homoharringtonine", "DMSO_TF"))
    row = row_of(data, ("Homoharringtonine",), "CVCL_0023", 5.0)
    np.testing.assert_allclose(data.effects[row], by_hand(counts, pert, control, column["plate"]), atol=2e-5)
    places = np.full(3 + 2 * len(GENES), -1)
    places[3::2][: len(GENES)] = np.arange(len(GENES))
    with opened(tmp_path / "data/train-00000-of-03388.parquet", ("genes",)) as file:
        shard = Shard(file, "shard", places, len(GENES))
        blocks = dict(shard.chunks())
        wanted = np.zeros(len(counts), dtype=bool)
        wanted[60] = True
        assert list(dict(shard.chunks(wanted))) == [50], "only the row group that holds cell 60 is read"
        np.testing.assert_array_equal(np.concatenate([b.toarray() for b in blocks.values()]), counts)
        with pytest.raises(UserError, match=r"expected tokens of the gene table, found \d+"):
            list(Shard(file, "shard", places[:9], len(GENES)).chunks())


def test_tahoe_shards_by_number() -> None:
    records = default().get("datasets", "tahoe_hf").params["files"]
    made_up = chosen_shards(records, "148-150")
    names = [record["name"] for record in made_up]
    assert [n for n in names if n.startswith("data")] == [
        f"data/train-{i:05d}-of-03388.parquet" for i in (148, 149, 150)
    ]
    assert len(names) == 3 + 3
    assert "00149" in made_up[-2]["urls"][0]
    first = default().get("datasets", "tahoe_hf").make(only=0)  # as a spec gives it
    assert [n for n in first.published.stored if n.startswith("data")] == ["data/train-00000-of-03388.parquet"]
    assert first.published.only == "0"
    for wrong in ("plate3", "5-4", "3388"):
        with pytest.raises(UserError, match="0 to 3387"):
            chosen_shards(records, wrong)


@pytest.mark.parametrize(
    ("entry", "given", "message"),
    [
        ("jiang24_rds", {"control": 3}, "control must be a name or a list of names, got 3"),
        ("jiang24_rds", {"source": "("}, "source must be a regular expression"),
        ("jiang24_rds", {"typos": {"a": 3}}, "typos must map names to names"),
        ("sciplex3_geo", {"rename": {"a": 3}}, "rename must map names to names"),
        ("norman_lfc", {"context": 3}, "context must be text, got 3"),
        ("norman_lfc", {"keep": 3}, "keep must be a name or a list of names, found 3"),
    ],
)
def test_values_that_are_none_are_refused(entry: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        default().get("datasets", entry).make(**given)


# R objects


def test_jiang_pathways_are_contexts_and_the_typo_is_said(tmp_path: Path) -> None:
    data = made("jiang24_rds", tmp_path, rds_folder.jiang(), **PLAIN).load()
    assert len(data.contexts) == 10
    assert "BXPC3|IFNG" in data.contexts
    assert len(data) == 50
    assert "cell_type" not in report(data)
    assert "'BXCP3_IFNG_0' read as 'BXPC3_IFNG_0': 30 cells" in report(data)
    only = {k: v for k, v in rds_folder.jiang().items() if "TNFA" in k}
    part = made("jiang24_rds", tmp_path / "part", only, only="TNFA", **PLAIN).load()
    assert part.contexts == ("A549|TNFA", "BXPC3|TNFA")
    rows = [row_of(data, part.entities[i], str(part.context[i])) for i in range(len(part))]
    np.testing.assert_allclose(part.effects, data.effects[rows], atol=1e-6)


def test_mcfaline_sets_controls_and_treatments(tmp_path: Path) -> None:
    data = made("mcfaline24_gxe2", tmp_path, rds_folder.mcfaline(), **PLAIN).load()
    assert tuple(sorted((GENES[4], GENES[5]))) in data.entities
    assert (GENES[0],) in data.entities
    assert len(data.contexts) == 6
    assert "A172|trametinib|10" in data.contexts
    assert data.genes.tolist() == list(GENES)
    assert data.meta["import_counts"]["control_cells"] == 3 * 2 * 3 * 10
    assert "NTC" in report(data)
    assert not {"NA", "random"} & set(data.entity_names)


def test_converted_matrices_against_scipy_and_cut_off(tmp_path: Path) -> None:
    files = {k: v for k, v in rds_folder.jiang().items() if "INS" in k}
    made("jiang24_rds", tmp_path / "a", files, only="INS").check()
    stem = "Seurat_object_INS_Perturb_seq"
    truth = sio.mmread(io.BytesIO(gzip.decompress(files[f"{stem}.matrix.mtx.gz"]))).toarray()
    found = anndata.read_h5ad(tmp_path / "a" / f"{stem}.converted.h5ad")
    np.testing.assert_array_equal(found.X.toarray(), truth.T)
    lines = gzip.decompress(files[f"{stem}.matrix.mtx.gz"]).splitlines(keepends=True)
    for i, (body, match) in enumerate(
        (
            (b"".join(lines[:-5]), "as its header says"),
            (b"".join([lines[0], b"28 120 5\n", *lines[2:]]), "do not belong together"),
            (b"".join(lines[1:]), "MatrixMarket matrix coordinate"),
        )
    ):
        wrong = dict(files) | {f"{stem}.matrix.mtx.gz": gzipped(body)}
        with pytest.raises(UserError, match=match):
            made("jiang24_rds", tmp_path / f"w{i}", wrong, only="INS").load()


def test_the_r_script_writes_what_the_reader_reads(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "embbench" / "data" / "convert_rds.R"
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    make = (
        "suppressPackageStartupMessages({library(Matrix);library(SeuratObject)});set.seed(1);"
        "m<-Matrix(matrix(rpois(80,1),8,10,dimnames=list(paste0('G',1:8),paste0('c',1:10))),sparse=TRUE);"
        "d<-data.frame(gene=rep(c('NT','A,\"B'),5),row.names=colnames(m));"
        "s<-CreateSeuratObject(m,meta.data=d);saveRDS(list(x=s),'o.rds');write.csv(as.matrix(m),'truth.csv')"
    )
    run: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    if subprocess.run(["Rscript", "-e", make], **run).returncode:
        pytest.skip("R lacks Matrix or SeuratObject")
    done = subprocess.run(["Rscript", str(script), "o.rds"], **run)
    assert done.returncode == 0, done.stderr
    truth = np.loadtxt(tmp_path / "truth.csv", delimiter=",", skiprows=1, usecols=range(1, 11))
    with gzip.open(tmp_path / "o.x.matrix.mtx.gz") as file:
        np.testing.assert_array_equal(sio.mmread(file).toarray(), truth)
    head, first = gzip.decompress((tmp_path / "o.x.obs.csv.gz").read_bytes()).decode().splitlines()[:2]
    assert head.startswith('"name"')
    assert '"gene"' in head
    assert first.startswith('"c1"')
