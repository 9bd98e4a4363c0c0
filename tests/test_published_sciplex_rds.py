"""Faulty files of sci-Plex and of converted R objects: refused, or counted and said; labels stay with their cells."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _published import GENES, cells, gzipped, made, report
from tiny import rds_folder, sciplex_geo

from embbench.core import UserError
from embbench.datasets._lines import lines_of

PLAIN = {"controls": "shared", "etest": False}


@pytest.fixture(autouse=True)
def _home(fresh_home: Path) -> None:
    """Imports of their own for each test."""


def test_sciplex_table_shifted_in_part_is_refused(tmp_path: Path) -> None:
    counts, rows = sciplex_geo.table()
    name = "GSM4150378_sciPlex3_pData.txt.gz"
    files = dict(sciplex_geo.files(counts, rows))
    lines = gzip.decompress(files[name]).splitlines(keepends=True)
    total = counts.sum(axis=1)
    first = 331 + int(np.flatnonzero(total[330:] != np.roll(total[330:], 1))[0])
    files[name] = gzipped(b"".join([*lines[:331], lines[-1], *lines[331:-1]]))  # the last 30 of 360 moved by one
    with pytest.raises(UserError, match=rf"expected the totals.*the first other is cell {first}:"):
        made("sciplex3_geo", tmp_path, files, **PLAIN).load()


def test_sciplex_recipe_drops_cells(tmp_path: Path) -> None:
    recipes = {"mine": {"drop": [{"product_name": "Imatinib", "cell_type": ["K562", "MCF7"]}]}}
    files = sciplex_geo.files(*sciplex_geo.table())
    data = made("sciplex3_geo", tmp_path, files, recipes=recipes, recipe="mine", **PLAIN).load()
    assert {c for e, c in zip(data.entities, data.context, strict=True) if e == ("Imatinib",)} == {"A549"}
    assert "product_name Imatinib, cell_type K562 or MCF7 left out: 40" in report(data)


def test_conversions_of_other_code_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = made("sciplex3_geo", tmp_path, sciplex_geo.files(*sciplex_geo.table()), **PLAIN)
    reader.check()
    before = (tmp_path / "converted.h5ad").stat().st_mtime_ns
    monkeypatch.setattr("embbench.datasets._triplets.code_of", lambda module: f"another {module}")
    reader.check()
    assert (tmp_path / "converted.h5ad").stat().st_mtime_ns != before


@pytest.mark.parametrize("line", ["4 5", "1 1 NA", "1 1 inf", "1 1 2 3"])
def test_lines_without_a_count_are_refused(line: str) -> None:
    text = io.BytesIO(f"1 1 2\n{line}\n".encode())
    with pytest.raises(UserError, match=r"expected three numbers a line.*(value|line) 2"):
        list(lines_of(text, "matrix"))


def test_labels_of_separators_are_missing_and_numbers_are_one_context(tmp_path: Path) -> None:
    counts, names = cells(("NTC", *GENES[:3], ",") * 2, per_label=10)
    files: dict[str, bytes] = {}
    for element, doses in (("A172", ("0.0", "1e+05")), ("T98G", ("0", "100000")), ("U87MG", ("0", "1e5"))):
        dose = [doses[i >= len(names) // 2] for i in range(len(names))]
        obs = {"gene_id": names, "treatment": ["t"] * len(names), "dose": dose, "cell_type": ["line"] * len(names)}
        files |= rds_folder.triple(f"GSM7056149_sciPlexGxE_2_preprocessed_cds.list.{element}", counts, obs, GENES)
    files["GSM7056149_sciPlexGxE_2_preprocessed_cds.list.RDS.gz"] = gzipped(b"RDX3")
    data = made("mcfaline24_gxe2", tmp_path, files, **PLAIN).load()
    assert data.contexts == ("line|t|0", "line|t|100000")
    assert data.meta["import_counts"]["control_cells"] == 3 * 2 * 10
    assert "list.A172: dose '1e+05' read as '100000': 50 cells" in report(data)
    assert "list.A172: gene_id of separators only, read as missing: 20 cells" in report(data)


R_OBJECTS = """
suppressPackageStartupMessages({library(methods);library(Matrix)});set.seed(1)
m<-Matrix(matrix(rpois(80,3),8,10,dimnames=list(paste0('G',1:8),paste0('c',1:10))),sparse=TRUE);n<-colnames(m)
setClass('Assay',representation(counts='ANY'));setClass('LogMap',contains='matrix')
setClass('Assay5',representation(layers='list',cells='LogMap',features='LogMap'))
setClass('Seurat',representation(assays='list',meta.data='data.frame',active.assay='character'))
setClass('L',representation(listData='list'));setClass('A',representation(data='L'))
setClass('D',representation(listData='list',rownames='ANY'));setClass('C',representation(assays='A',colData='D'))
map<-function(x) new('LogMap',matrix(TRUE,length(x),1,dimnames=list(x,'counts')))
d<-data.frame(gene=paste0('g',1:10),nCount_RNA=colSums(m),row.names=n)[10:1,]
seurat<-function(assay,d) new('Seurat',assays=list(RNA=assay),meta.data=d,active.assay='RNA')
v3<-new('Assay',counts=m)
v5<-new('Assay5',layers=list(counts=unname(m)),cells=map(n),features=map(rownames(m)))
cds<-function(name) new('C',assays=new('A',data=new('L',listData=setNames(list(m),name))),
  colData=new('D',listData=as.list(d),rownames=rownames(d)))
other<-d;rownames(other)[1]<-'zz';totals<-d;totals$nCount_RNA<-rev(d$nCount_RNA)
bare<-m;colnames(bare)<-NULL
saveRDS(list(v3=seurat(v3,d),v5=seurat(v5,d),cds=cds('counts')),'good.rds')
saveRDS(seurat(v3,other),'other.rds');saveRDS(seurat(v3,totals),'totals.rds');saveRDS(cds('logcounts'),'log.rds')
saveRDS(seurat(new('Assay',counts=bare),d),'bare.rds')
"""


def test_the_r_script_keeps_each_cell_with_its_label(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "embbench" / "data" / "convert_rds.R"
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    (tmp_path / "make.R").write_text(R_OBJECTS)
    run: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["Rscript", "make.R"], **run)
    if done.returncode:
        pytest.skip(f"R cannot make the objects: {done.stderr[-200:]}")
    each = (  # one process for all, where the command line needs one for each that fails
        "for (name in c('good','other','totals','bare','log')) {commandArgs <- function(...) paste0(name, '.rds');"
        f"tryCatch(source('{script.as_posix()}'),"
        " error=function(e) message('failed ', name, ': ', conditionMessage(e)))}"
    )
    done = subprocess.run(["Rscript", "-e", each], **run)
    for element in ("v3", "v5", "cds"):
        assert f"good.{element}: 8 genes x 10 cells" in done.stderr
        lines = gzip.decompress((tmp_path / f"good.{element}.obs.csv.gz").read_bytes()).decode().splitlines()
        assert [line.replace('"', "").split(",")[:2] for line in lines[1:]] == [
            [f"c{i}", f"g{i}"] for i in range(1, 11)
        ]
    for name, message in (
        ("other", "other: expected the cells of the counts in the cell table, found no c10"),
        ("totals", "totals: expected nCount_RNA to be the sum of each cell"),
        ("bare", "bare: expected nCount_RNA to be the sum of each cell"),
        ("log", 'expected an assay "counts", found logcounts'),
    ):
        assert f"failed {name}: {message}" in done.stderr
        assert not list(tmp_path.glob(f"{name}.*.gz"))
