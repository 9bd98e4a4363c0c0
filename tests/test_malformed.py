"""Bad input, as users type it: exit code 2, one message that names the thing and the next step, nothing written."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from _cli import GRID, IMPORT, embbench, embbench_process, run_id, screen, small_grid

TABLE = "grid --dataset table:t.csv:unit=delta --emb hallmark --head knn"
WIDE = "perturbation,KLF1,MYC\nTP53,0.1,0.2\nGATA1,0.3,-0.4\nSPI1,0.5,0.6\n"


@dataclass(frozen=True)
class Case:
    """A command line, what its message must say, and the files and environment that it finds."""

    line: str
    says: tuple[str, ...]
    make: Callable[[Path], object] = lambda folder: None
    environment: tuple[tuple[str, str], ...] = ()
    caches: bool = False  # a valid embedding may be extracted and kept before the mistake can be seen


def cells(change: Callable[[anndata.AnnData], object] = lambda data: None) -> Callable[[Path], None]:
    """Writes ``s.h5ad``, a good small screen that ``change`` has spoilt."""

    def make(folder: Path) -> None:
        data = screen()
        changed = change(data)
        (data if changed is None else changed).write_h5ad(folder / "s.h5ad")

    return make


def value(number: float) -> Callable[[Path], None]:
    """One bad number in the matrix."""

    def change(data: anndata.AnnData) -> None:
        data.X[17, 2] = number

    return cells(change)


def matrix(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """The whole matrix transformed."""

    def change(data: anndata.AnnData) -> None:
        data.X = function(data.X).astype(np.float32)

    return cells(change)


def column(name: str, values: object) -> Callable[[Path], None]:
    """One column of obs replaced, by values or by a function of the table."""

    def change(data: anndata.AnnData) -> None:
        data.obs[name] = values(data.obs) if callable(values) else values

    return cells(change)


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """A file of that content."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def truncated(folder: Path) -> None:
    cells()(folder)
    whole = (folder / "s.h5ad").read_bytes()
    (folder / "s.h5ad").write_bytes(whole[: len(whole) // 2])


def not_anndata(folder: Path) -> None:
    with h5py.File(folder / "s.h5ad", "w") as file:
        file["counts"] = np.ones((3, 3))


def short_column(folder: Path) -> None:
    cells()(folder)
    with h5py.File(folder / "s.h5ad", "r+") as file:
        del file["obs/total"]
        file["obs/total"] = np.ones(7)


def old_names(data: anndata.AnnData) -> None:
    data.var_names = ["KLF1", "KLF1", "MYC", "GATA1", "SPI1", "BRCA1"]


class Evil:
    """A pickle that leaves a file behind when it is loaded as pickles are."""

    def __reduce__(self):
        return Path.write_text, (Path("ran.txt"), "code was run")


def registry(content: str) -> Callable[[Path], object]:
    return text("my.yaml", content)


def imported(spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    """A screen imported as ``mine`` whose stored file ``spoil`` has damaged or removed."""

    def make(folder: Path) -> None:
        cells()(folder)
        assert embbench(folder, IMPORT).code == 0
        spoil(next((folder / "home" / "data").glob("*/screen.h5")))

    return make


IMPORTS = {
    "perturbation key": Case(
        IMPORT.replace("key gene", "key genes"), ("s.h5ad", "--perturbation-key 'genes'", "did you mean gene"), cells()
    ),
    "context key": Case(IMPORT + "s", ("--context-key 'lines'", "did you mean line", "batch"), cells()),
    "batch key": Case(IMPORT + " --batch-key bach", ("--batch-key 'bach'", "did you mean batch"), cells()),
    "size factor": Case(IMPORT + " --size-factor totals", ("--size-factor 'totals'", "did you mean total"), cells()),
    "size factor is text": Case(
        IMPORT + " --size-factor line", ("--size-factor 'line'", "must be numeric", "'A'", "name a column"), cells()
    ),
    "size factor is zero": Case(
        IMPORT + " --size-factor total",
        ("--size-factor 'total'", "found 0", "cell 5", "repair it or leave it out"),
        column("total", lambda obs: np.where(np.arange(len(obs)) == 5, 0.0, obs["total"])),
    ),
    "layer": Case(IMPORT + " --layer counts", ("layers/counts", "there are: none"), cells()),
    "dose key": Case(IMPORT + " --dose-key batch", ("--dose-key 'batch'", "must be numeric", "'b0'"), cells()),
    "gene key": Case(IMPORT + " --gene-key symbols", ("--gene-key 'symbols'", "did you mean symbol"), cells()),
    "covariate": Case(IMPORT + " --covariate bach", ("--covariate 'bach'", "did you mean batch"), cells()),
    "covariate varies": Case(
        IMPORT + " --covariate batch", ("--covariate 'batch'", "constant", "leave it out"), cells()
    ),
    "column of another length": Case(
        IMPORT + " --size-factor total", ("obs/total has 7 values", "expected 240", "write it again"), short_column
    ),
    "no labels": Case(IMPORT, ("--control 'non-targeting'", "there are: none"), column("gene", np.nan)),
    "column twice": Case(
        IMPORT.replace("key line", "key gene"), ("gene is used twice", "name each column once"), cells()
    ),
    "control label": Case(
        IMPORT.replace("non-targeting", "non-targetting"),
        ("--control 'non-targetting'", "is not a value of 'gene'", "did you mean non-targeting"),
        cells(),
    ),
    "no control cells": Case(
        IMPORT,
        ("--control 'non-targeting'", "there are: KLF1, TP53"),
        cells(lambda data: data[data.obs["gene"].isin(["KLF1", "TP53"]).to_numpy()].copy()),
    ),
    "control not named": Case(
        IMPORT.replace("--control non-targeting", ""), ("Missing option '--control'", "--help"), cells()
    ),
    "context without controls": Case(
        IMPORT,
        ("no condition is left", "contexts without two controls", "A, B"),
        column("line", lambda obs: np.where(obs["gene"] == "non-targeting", "C", obs["line"])),
    ),
    "empty contexts": Case(
        IMPORT, ("no condition is left", "cells without a context, dropped: 240"), column("line", np.nan)
    ),
    "too few cells": Case(IMPORT + " --min-cells 500", ("no condition is left", "conditions below 500 cells"), cells()),
    "NaN": Case(IMPORT, ("not finite", "nan", "cell 17", "'MYC'", "repair it"), value(np.nan)),
    "infinite": Case(IMPORT, ("not finite", "inf", "cell 17", "'MYC'", "repair it"), value(np.inf)),
    "negative counts": Case(IMPORT, ("negative value", "-3", "--layer"), value(-3)),
    "z-scored": Case(
        IMPORT, ("negative values", "z-scored", "--layer"), matrix(lambda X: (X - X.mean(axis=0)) / X.std(axis=0))
    ),
    "undecidable scale": Case(
        IMPORT, ("fractions up to", "CPM", "--scale"), matrix(lambda X: 1e6 * X / X.sum(axis=1, keepdims=True))
    ),
    "log of counts": Case(IMPORT, ("log1p of whole numbers", "--scale lognorm"), matrix(np.log1p)),
    "told logarithms, are counts": Case(
        IMPORT + " --scale lognorm", ("above 15 among logarithms", "--layer"), matrix(lambda X: 10 * X)
    ),
    "all zero": Case(IMPORT, ("all values are 0", "--layer"), matrix(np.zeros_like)),
    "duplicate genes": Case(IMPORT, ("unique", "KLF1", "var_names_make_unique", "--gene-key"), cells(old_names)),
    "no cells": Case(IMPORT, ("0 cells x 6 genes", "at least one of each"), cells(lambda data: data[:0].copy())),
    "no genes": Case(IMPORT, ("240 cells x 0 genes", "at least one of each"), cells(lambda data: data[:, :0].copy())),
    "truncated h5ad": Case(IMPORT, ("s.h5ad", "truncated", "copy it again"), truncated),
    "text as h5ad": Case(IMPORT, ("s.h5ad", "not HDF5", "write_h5ad"), text("s.h5ad", "gene,line\n")),
    "empty file": Case(IMPORT, ("s.h5ad", "0 bytes", "write_h5ad"), text("s.h5ad", "")),
    "HDF5 of another kind": Case(IMPORT, ("s.h5ad", "group 'obs'", "counts"), not_anndata),
    "no such file": Case(IMPORT, ("s.h5ad", "no such file", "give the path")),
    "folder as file": Case(IMPORT, ("s.h5ad", "is a folder"), lambda folder: (folder / "s.h5ad").mkdir()),
    "name with a space": Case(IMPORT.replace("mine", "'my screen'"), ("'my screen'", "choose another"), cells()),
    "name of a registered screen": Case(
        IMPORT.replace("mine", "sim_small"), ("'sim_small'", "choose another"), cells()
    ),
    "scale": Case(IMPORT + " --scale raw", ("scale", "'raw'", "counts, lognorm"), cells()),
    "controls": Case(IMPORT + " --controls both", ("controls", "'both'", "halves, shared"), cells()),
    "matching": Case(IMPORT + " --matching bach", ("matching", "'bach'", "batch"), cells()),
    "kept cells": Case(IMPORT + " --cells some", ("cells", "'some'", "all, controls, none"), cells()),
    "entity type": Case(IMPORT + " --entity-type drug", ("entity_type", "'drug'", "compound"), cells()),
    "min cells": Case(IMPORT + " --min-cells 0", ("min_cells", "at least 1", "got 0"), cells()),
    "min cells is text": Case(IMPORT + " --min-cells ten", ("--min-cells", "integer", "--help"), cells()),
    "knock-down": Case(IMPORT + " --max-residual 0", ("max_residual", "0.3", "got 0"), cells()),
    "imported screen is gone": Case(
        "data describe mine", ("'mine'", "screen.h5 is gone", "embbench data import"), imported(Path.unlink)
    ),
    "imported screen is damaged": Case(
        "fit --emb go --head knn --dataset mine",
        ("screen.h5", "bytes after the seal"),
        imported(lambda path: path.write_bytes(path.read_bytes()[:-9])),
    ),
    "index is damaged": Case(
        "list datasets",
        ("index.json", "import again"),
        imported(lambda path: (path.parents[1] / "index.json").write_text("{")),
    ),
    "home is a file": Case(
        IMPORT, ("EMBBENCH_HOME", "is not a folder"), lambda f: (cells()(f), (f / "home").write_text(""))
    ),
    "home cannot be made": Case(
        IMPORT,
        ("file/home", "EMBBENCH_HOME"),
        lambda f: (cells()(f), (f / "file").touch()),
        (("EMBBENCH_HOME", "file/home"),),
    ),
}
NAMES = {
    "list kind": Case("list heds", ("'heds'", "heads")),
    "verb": Case("gird", ("gird", "--help")),
    "option": Case("list --hed", ("--hed", "--help")),
    "embedding": Case("fit --emb rectome --head knn --dataset sim_small", ("'rectome'", "did you mean reactome")),
    "extract": Case("extract --model goo --dataset sim_small", ("'goo'", "did you mean", "go")),
    "head": Case("fit --emb go --head ridgee --dataset sim_small", ("'ridgee'", "did you mean ridge")),
    "dataset": Case("fit --emb go --head knn --dataset sim_smal", ("'sim_smal'", "did you mean sim_small")),
    "second dataset": Case(
        "grid --dataset sim_small,sim_nul --emb hallmark --head knn", ("'sim_nul'", "did you mean sim_null")
    ),
    "describe": Case("data describe kang", ("'kang'", "did you mean kang18")),
    "split": Case(
        "fit --emb go --head knn --dataset sim_small --split unseen_perturbatoin",
        ("'unseen_perturbatoin'", "did you mean unseen_perturbation"),
    ),
    "second split": Case(
        "grid --dataset sim_small --split unseen_perturbation:2,given:colour --emb hallmark --head knn",
        ("'colour'", "given:COLUMN"),
    ),
    "features": Case(
        "grid --dataset sim_small --emb go --head knn --features standardize", ("'standardize'", "standardise")
    ),
    "context embedding": Case(
        "grid --dataset sim_small --emb go --head knn --context-emb control_men", ("'control_men'", "control_mean")
    ),
    "graph": Case("grid --dataset sim_small --emb go --head knn --graph pip", ("'pip'", "did you mean ppi")),
    "metric": Case(
        "fit --emb go --head knn --dataset sim_small --metrics peerson", ("'peerson'", "pearson", "list metrics")
    ),
    "ambiguous metric": Case(
        "fit --emb go --head knn --dataset sim_small --metrics r2",
        ("'r2' is ambiguous", "r2_effect_all", "r2_pearson_expression_all"),
    ),
    "selection metric": Case("grid --dataset sim_small --emb go --head knn --select l2", ("'l2'", "l2_all")),
    "combine": Case("grid --dataset sim_small --emb go --head knn --combine product", ("'product'", "sum, mean")),
    "scope": Case("grid --dataset sim_small --emb go --head knn --scope both", ("scope", "'both'", "joint")),
    "target": Case("grid --dataset sim_small --emb go --head knn --target cells", ("target", "'cells'", "population")),
    "genes": Case("grid --dataset sim_small --emb go --head knn --genes top", ("'top'", "hvg:N")),
    "no gene": Case("grid --dataset sim_small --emb go --head knn --genes hvg:0", ("hvg:0", "number from 1 to")),
    "genes of a word": Case("extract --model go --dataset sim_small --genes hvg:x", ("hvg:x", "number from 1 to")),
    "genes without cells": Case(
        TABLE.replace("t.csv", "hvg.csv") + " --genes hvg:1",
        ("hvg:1", "no control means", "--genes all"),
        text("hvg.csv", WIDE),
    ),
    "check kind": Case("check hats knn", ("'hats'", "heads")),
    "check name": Case("check heads ridgee", ("'ridgee'", "did you mean ridge")),
    "check module": Case("check heads mypkg.my:Head", ("'mypkg.my:Head'", "package.module:object", "mypkg")),
    "check object": Case("check heads embbench.heads.knn:KNM", ("KNM", "package.module:object")),
    "check file": Case("check heads my.py", ("my.py", "package.module:object"), text("my.py", "")),
    "check without its file": Case("check embeddings table", ("'table'", "table of vectors", "table:FILE")),
    "check with a bad parameter": Case("check heads knn:k=0", ("KNN", "k", ">= 1", "got 0")),
    "prune": Case("cache prune --yes --name rectome", ("'rectome'", "reactome")),
}
PARAMETERS = {
    "k of 0": Case("fit --emb go --head knn:k=0 --dataset sim_small", ("KNN", "k", ">= 1", "got 0")),
    "k of a word": Case("fit --emb go --head knn:many --dataset sim_small", ("KNN", "k", "'many'")),
    "unknown parameter": Case(
        "fit --emb go --head knn:z=3 --dataset sim_small", ("'knn'", "'z'", "it takes k, metric")
    ),
    "negative alpha": Case("fit --emb go --head ridge:alpha=-1 --dataset sim_small", ("Ridge", "alpha", "> 0", "-1")),
    "no argument": Case("fit --emb go --head mlp:3 --dataset sim_small", ("mlp takes no ':3'", "mlp:key=value")),
    "bad value": Case("fit --emb go --head 'knn:k=[1' --dataset sim_small", ("'knn:k=[1'", "YAML")),
    "regressor": Case("fit --emb go --head sklearn:sklearn.svm:SVRR --dataset sim_small", ("SVRR", "sklearn")),
    "no component": Case("grid --dataset sim_small --emb go --head knn --features pca:0", ("PCA", "dim", ">= 1", "0")),
    "no dimension": Case("grid --dataset sim_small --emb go:0 --head knn", ("dim", ">= 1", "got 0")),
    "no dimension to extract": Case("extract --model hallmark:0 --dataset sim_small", ("dim", ">= 1", "got 0")),
    "one fold": Case(
        "fit --emb go --head knn --dataset sim_small --split unseen_perturbation:1", ("folds", ">= 2", "got 1")
    ),
    "support of all": Case(
        "fit --emb go --head knn --dataset sim_small --split unseen_context:few_shot=900",
        ("few_shot=900", "found 72", "use few_shot < 72"),
    ),
    "more folds than perturbations": Case(
        "fit --emb go --head knn --dataset sim_small --split unseen_perturbation:900",
        ("sim_small", "expected at least 900", "use fewer folds"),
    ),
    "one perturbation": Case(
        TABLE.replace("t.csv", "one.csv:context_key=line") + " --split unseen_perturbation",
        ("expected at least 2 perturbations", "found 1", "unseen_context"),
        text("one.csv", "perturbation,line,KLF1\nTP53,A,0.5\nTP53,B,0.4\n"),
    ),
    "one context": Case(
        TABLE.replace("t.csv", "context.csv") + " --split unseen_context",
        ("expected at least 2 contexts", "found 1", "use unseen_perturbation"),
        text("context.csv", WIDE),
    ),
    "no combination": Case(
        TABLE.replace("t.csv", "single.csv") + " --split unseen_combination",
        ("combinations", "found 0"),
        text("single.csv", WIDE),
    ),
    "permuted without inner": Case(
        "extract --model permuted --dataset sim_small", ("'permuted'", "permuted:NAME", "embbench list")
    ),
    "permuted nothing": Case(
        "fit --emb permuted: --head knn --dataset sim_small", ("'permuted:'", "permuted:NAME", "embbench list")
    ),
    "permuted unknown": Case("fit --emb permuted:rectome --head knn --dataset sim_small", ("'rectome'", "reactome")),
    "no workers": Case(GRID + " --workers 0", ("--workers", "at least 1", "got 0")),
    "seed": Case(GRID + " --seed x", ("--seed x", "0,1,2")),
    "negative seed": Case(GRID + " --seed=-1", ("--seed -1", "0,1,2")),
    "permutations": Case(GRID.replace("permutations 1", "permutations -1"), ("permutations", "-1")),
    "no run": Case("grid --dataset sim_small --head knn --no-baselines", ("no run", "knn", "--emb")),
    "no head": Case("grid --dataset sim_small --head ''", ("head", "at least 1 item", "fields")),
    "out is a file": Case(GRID, ("small", "is a file", "--out"), text("small", "")),
    "out below a file": Case(
        GRID.replace("--out small", "--out file/small"), ("file is a file", "file/small", "--out"), text("file", "")
    ),
}
GRIDS = {
    "bad YAML": Case("grid g.yaml", ("grid g.yaml", "cannot be read as YAML"), text("g.yaml", "dataset: [sim_small\n")),
    "YAML list": Case("grid g.yaml", ("grid g.yaml", "dataset, emb, head", "list"), text("g.yaml", "- sim_small\n")),
    "empty YAML": Case("grid g.yaml", ("grid g.yaml", "dataset, emb, head", "NoneType"), text("g.yaml", "")),
    "no YAML": Case("grid g.yaml", ("grid g.yaml", "No such file")),
    "folder as YAML": Case("grid g", ("grid g", "directory"), lambda folder: (folder / "g").mkdir()),
    "binary as YAML": Case("grid g.yaml", ("grid g.yaml", "YAML"), text("g.yaml", b"\xff\xfe\x00\x80")),
    "YAML that would run code": Case(
        "grid g.yaml",
        ("grid g.yaml", "cannot be read as YAML"),
        text("g.yaml", "head: !!python/object/apply:pathlib.Path.touch [ran.txt]\n"),
    ),
    "unknown field": Case("grid g.yaml", ("grid g.yaml", "heads", "fields: dataset"), text("g.yaml", "heads: [knn]\n")),
    "wrong type": Case("grid g.yaml", ("grid g.yaml", "seed", "'two'"), text("g.yaml", "seed: [two]\n")),
    "number as a name": Case("grid g.yaml", ("grid g.yaml", "emb", "string"), text("g.yaml", "emb: [{go: 1}]\n")),
    "key that is no word": Case(
        "grid g.yaml", ("grid g.yaml", "dataset, emb, head", "found 1"), text("g.yaml", "1: [knn]\n")
    ),
    "unknown draws": Case(
        "grid g.yaml", ("grid g.yaml", "permutations", "'smother'"), text("g.yaml", "permutations: {smother: 3}\n")
    ),
    "negative draws": Case(
        "grid g.yaml", ("grid g.yaml", "permutations", "-3"), text("g.yaml", "permutations: {smoother: -3}\n")
    ),
    "registry missing": Case("list heads --registry my.yaml", ("my.yaml", "No such file")),
    "registry not YAML": Case("list heads --registry my.yaml", ("my.yaml", "YAML"), registry("heads: {a: [}\n")),
    "registry section": Case("list --registry my.yaml", ("my.yaml", "'head'", "heads"), registry("head: {}\n")),
    "registry is a list": Case("list --registry my.yaml", ("my.yaml", "sections", "list"), registry("- heads\n")),
    "section is a list": Case("list --registry my.yaml", ("my.yaml", "heads", "list"), registry("heads: [knn]\n")),
    "entry without impl": Case(
        "list --registry my.yaml", ("my.yaml", "heads/mine", "'impl'"), registry("heads: {mine: {params: {k: 3}}}\n")
    ),
    "entry of a wrong type": Case(
        "list --registry my.yaml",
        ("my.yaml", "heads/mine", "params"),
        registry("heads: {mine: {impl: 'a:B', params: 3}}\n"),
    ),
    "entry redefines": Case(
        "list --registry my.yaml",
        ("my.yaml", "heads/knn", "already registered", "choose another name"),
        registry("heads: {knn: {impl: 'embbench.heads.ridge:Ridge'}}\n"),
    ),
    "entry of no module": Case(
        "fit --emb go --head mine --dataset sim_small --registry my.yaml",
        ("'nowhere.at:All'", "package.module:object"),
        registry("heads: {mine: {impl: 'nowhere.at:All'}}\n"),
    ),
    "registry from the environment": Case(
        "list", ("my.yaml", "heads/mine", "'impl'"), registry("heads: {mine: 3}\n"), (("EMBBENCH_REGISTRY", "my.yaml"),)
    ),
    "registered screen": Case(
        "data describe mine --registry my.yaml",
        ("perturbation_keys", "perturbation_key", "options are"),
        lambda folder: (
            cells()(folder),
            registry(
                "datasets: {mine: {impl: 'embbench.datasets.anndata_file:AnnDataFile', params: "
                "{path: s.h5ad, perturbation_key: gene, perturbation_keys: gene}}}\n"
            )(folder),
        ),
    ),
    "registered screen without controls": Case(
        "data describe bare --registry my.yaml",
        ("no control cells", "KLF1", "--control"),
        lambda folder: (
            cells(lambda data: data[data.obs["gene"].isin(["KLF1", "TP53"]).to_numpy()].copy())(folder),
            registry(
                "datasets: {bare: {impl: 'embbench.datasets.anndata_file:AnnDataFile', params: "
                "{path: s.h5ad, perturbation_key: gene, control: []}}}\n"
            )(folder),
        ),
    ),
}
RESULTS = {
    "report of nothing": Case("report results/none", ("results/none", "expected a results folder", "embbench grid")),
    "report of an empty folder": Case(
        "report results", ("results", "holds no results", "embbench grid"), lambda folder: (folder / "results").mkdir()
    ),
    "report of a file": Case("report results", ("results", "results folder"), text("results", "")),
    "report metric": Case("report {small} --metrics r2", ("'r2' is ambiguous", "r2_effect_all")),
    "report picture": Case("report {small} --svg file/board.svg", ("file is a file", "--svg"), text("file", "")),
    "unknown run": Case(
        "predict --run 0123456789 --perturbation TP53 --out p.h5ad --results {small}",
        ("--run 0123456789", "found none", "it has: ", "x knn:k=3"),
    ),
    "short id": Case(
        "predict --run {start} --perturbation TP53 --out p.h5ad --results {small}",
        ("--run {start}", "4 or more", "{id} (hallmark:8 x knn:k=3)"),
    ),
    "run without results": Case(
        "predict --run 0123456789 --perturbation TP53 --out p.h5ad", ("--run 0123456789", "--results")
    ),
    "results folder": Case(
        "explain --run {id} --perturbation TP53 --results none", ("none", "embbench grid --out none")
    ),
    "unknown context": Case(
        "predict --run {id} --perturbation TP53 --context liver --out p.h5ad --results {small}",
        ("--context 'liver'", "sim_small", "it has"),
    ),
    "suffix": Case("predict --run {id} --perturbation TP53 --out p.csv --results {small}", ("--out p.csv", ".h5ad")),
    "prediction below a file": Case(
        "predict --run {id} --perturbation TP53 --out file/p.h5ad --results {small}",
        ("file is a file", "--out"),
        text("file", ""),
    ),
    "no name": Case(
        "predict --run {id} --perturbation + --out p.h5ad --results {small}", ("--perturbation '+'", "KLF1+MAP2K6")
    ),
    "explain unknown": Case(
        "explain --run {id} --perturbation NOGENE --results {small}", ("NOGENE", "no vector", "fallback"), caches=True
    ),
    "explain top": Case(
        "explain --run {id} --perturbation TP53 --top 0 --results {small}", ("--top", "greater", "--help")
    ),
}
VECTORS = {
    "table without a file": Case("extract --model table --dataset sim_small", ("table", "table:FILE")),
    "table missing": Case("extract --model table:v.csv --dataset sim_small", ("v.csv", "expected a file", "nothing")),
    "folder as a table": Case(
        "extract --model table:v.csv --dataset sim_small", ("v.csv", "found a folder"), lambda f: (f / "v.csv").mkdir()
    ),
    "weights folder": Case(
        "fit --emb scgpt:checkpoint=here --head knn --dataset sim_small", ("here/best_model.pt", "nothing")
    ),
    "table missing in a grid": Case("fit --emb table:v.csv --head knn --dataset sim_small", ("v.csv", "nothing")),
    "table of NaN": Case(
        "extract --model table:nan.csv --dataset sim_small",
        ("nan.csv", "finite", "none"),
        text("nan.csv", "gene,a,b\nTP53,,\nMYC,nan,\n"),
    ),
    "ragged table": Case(
        "extract --model table:ragged.csv --dataset sim_small",
        ("ragged.csv", "row 3", "expected 3"),
        text("ragged.csv", "gene,a,b\nTP53,1,2\nMYC,1\n"),
    ),
    "table of words": Case(
        "extract --model table:words.csv --dataset sim_small",
        ("words.csv", "numbers", "text in b"),
        text("words.csv", "gene,a,b\nTP53,1,x\nMYC,1,y\n"),
    ),
    "repeated name": Case(
        "extract --model table:twice.csv --dataset sim_small",
        ("twice.csv", "TP53", "average or drop"),
        text("twice.csv", "gene,a\nTP53,1\nTP53,2\n"),
    ),
    "malicious pickle": Case(
        "extract --model table:evil.pkl --dataset sim_small",
        ("evil.pkl", "refused", "write_text", ".npz"),
        text("evil.pkl", pickle.dumps({"TP53": Evil()})),
    ),
    "text as npz": Case(
        "extract --model table:text.npz --dataset sim_small", ("text.npz", "expected an .npz"), text("text.npz", "TP53")
    ),
    "unknown format": Case(
        "extract --model table:v.xlsx --dataset sim_small", ("v.xlsx", ".parquet"), text("v.xlsx", "")
    ),
    "weights": Case("extract --model scgpt", ("scgpt", "best_model.pt", "model zoo", "--checkpoint")),
    "gene sets": Case(
        "extract --model gene_sets:s.gmt --dataset sim_small", ("s.gmt", "line 1", "TAB"), text("s.gmt", "one set\n")
    ),
    "edges": Case("extract --model edge_spectral:e.tsv --dataset sim_small", ("e.tsv",), text("e.tsv", "a\nTP53\n")),
    "hash": Case(
        "extract --model table:hash.csv:sha256=00 --dataset sim_small",
        ("hash.csv", "sha256 0", "fetch"),
        text("hash.csv", "gene,a\nTP53,1\n"),
    ),
}
TABLES = {
    "missing unit": Case(TABLE.replace(":unit=delta", ""), ("unit", "delta", "''"), text("t.csv", WIDE)),
    "wrong unit": Case(TABLE.replace("delta", "lfc"), ("unit", "log2fc", "'lfc'"), text("t.csv", WIDE)),
    "no table": Case(TABLE, ("t.csv", "expected a file", "nothing")),
    "no path": Case("data describe table", ("table", "table:FILE")),
    "no perturbation column": Case(
        TABLE,
        ("t.csv", "'perturbation'", "perturbation_key", "gene"),
        text("t.csv", WIDE.replace("perturbation", "gene")),
    ),
    "duplicate rows": Case(
        TABLE, ("t.csv", "1 rows repeat", "'TP53'", "combine=mean"), text("t.csv", WIDE + "TP53,1,2\n")
    ),
    "duplicate columns": Case(
        TABLE, ("t.csv", "'MYC'", "make them unique"), text("t.csv", WIDE.replace("KLF1", "MYC"))
    ),
    "word in a table": Case(TABLE, ("t.csv", "'KLF1'", "'high'", "row 4"), text("t.csv", WIDE + "BRCA1,high,2\n")),
    "infinite in a table": Case(TABLE, ("t.csv", "'KLF1'", "inf", "row 4"), text("t.csv", WIDE + "BRCA1,inf,2\n")),
    "only a header": Case(TABLE, ("t.csv", "expected at least one row"), text("t.csv", "perturbation,KLF1\n")),
    "empty table": Case(TABLE, ("t.csv", "cannot be read"), text("t.csv", "")),
    "one row": Case(TABLE, ("t.csv", "two or more perturbations or contexts"), text("t.csv", WIDE[:36])),
    "text as parquet": Case(
        TABLE.replace("t.csv", "t.parquet"), ("t.parquet", "cannot be read as parquet"), text("t.parquet", WIDE)
    ),
}
GROUPS = {
    "import": IMPORTS,
    "name": NAMES,
    "spec": PARAMETERS,
    "file": GRIDS,
    "use": RESULTS,
    "vec": VECTORS,
    "table": TABLES,
}
CASES = {f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()}
IN_A_PROCESS = ("import: context key", "name: embedding", "file: bad YAML", "vec: malicious pickle")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A results folder that stays as it is, and the id of its first configuration with an embedding."""
    results = small_grid(tmp_path_factory.getbasetemp()) / "small"
    return results, run_id(results, "hallmark:8", "knn:k=3")


def state(*folders: Path, without: str = ".locks") -> dict[str, str]:
    """Every file below and its content; lock files, which stay behind and hold nothing, are left out."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not {".locks", without} & set(path.parts)
    }


def check(case: Case, folder: Path, small: tuple[Path, str], run: Callable[..., object]) -> None:
    names = {"small": small[0], "id": small[1], "start": small[1][:3]}
    case.make(folder)
    ignored = "cache" if case.caches else ".locks"
    before = state(folder, small[0], without=ignored)
    said = run(folder, case.line.format(**names), **dict(case.environment))
    assert said.code == 2, said
    missing = [word for word in case.says if word.format(**names) not in " ".join(said.err.split())]
    assert not missing, (missing, said.err)
    assert "Traceback" not in said.err + said.out
    assert "internal error" not in said.err
    assert state(folder, small[0], without=ignored) == before
    assert not (folder / "results").is_dir() or case.line.startswith("report")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_with_a_message(name: str, tmp_path: Path, small: tuple[Path, str]) -> None:
    check(CASES[name], tmp_path, small, embbench)


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_the_same_in_a_process_of_its_own(name: str, tmp_path: Path, small: tuple[Path, str]) -> None:
    check(CASES[name], tmp_path, small, embbench_process)
