"""A published table by one command: fetched from a mirror, run, compared; wrong tasks, gaps and licences said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from _cli import Said, embbench
from _server import Site, serving
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from tiny import cole2026 as tiny

from embbench.core import UserError
from embbench.datasets.cole2026 import Cole2026
from embbench.embeddings.cole2026 import Cole2026 as Vectors
from embbench.genes import gene_table
from embbench.grid.config import Grid, read_grid
from embbench.grid.figures import Figure, PublishedTable, check_names, published_table, read_published
from embbench.grid.frames import Frames
from embbench.grid.names import registry_of
from embbench.grid.reproduce import MATCHED, SETTINGS, compare
from embbench.splits.given_column import GivenColumn

GRIDS = Path(__file__).resolve().parents[1] / "grids"
REPRODUCED = sorted(path for path in GRIDS.glob("*.yaml") if "published:" in path.read_text(encoding="utf-8"))
FILE, TABLE, OWN = "mini_deltas.h5ad", "STRING_network_(D=6)", "scGPT_essential_{line}_controls_(D=5)"
PLUS = 'mini:"scGenePT_NCBI\\x2BUniProt_(D=4)"'
N, G, WITHOUT = 30, 40, 2  # perturbations, genes, perturbations without a vector
REGISTRY = """\
datasets:
  mini_lfc:
    impl: embbench.datasets.cole2026:Cole2026
    params: {name: mini_lfc, files: [{name: %s, urls: ["%s/essential/%s"]}], keep: [symbol]}
    licence: Mini Licence
    restricted: non-commercial
embeddings:
  mini:
    impl: embbench.embeddings.cole2026:Cole2026
    argument: table
    params: {address: "%s", lines: [K-562, Jurkat, Hep-G2]}
    needs_file: a name
    information: unknown
    licence: Mini Licence
    restricted: non-commercial
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The files of the collection in miniature, as a mirror holds them, and what is in them."""
    folder, rng = tmp_path_factory.mktemp("collection"), np.random.default_rng(5)
    ids = [n["ensembl"] for n in gene_table().names if n["ensembl"].startswith("ENSG")][: N + G]
    perturbed, measured = ids[:N], ids[N:]
    tiny.effects(folder / "mini_lfc" / FILE, perturbed, measured)
    vectors = rng.normal(size=(N, 6))
    tiny.gene_table(folder / "cole2026" / f"{TABLE}.h5ad", perturbed[WITHOUT:], vectors[WITHOUT:])
    tiny.gene_table(folder / "cole2026" / "scGenePT_NCBI+UniProt_(D=4).h5ad", perturbed, vectors[:, :4])
    own = {line: rng.normal(size=(N, 5)) for line in tiny.LINES}
    for line, values in own.items():
        tiny.gene_table(folder / "cole2026" / f"{OWN.replace('{line}', line)}.h5ad", perturbed, values)
    X = np.random.default_rng(0).normal(0.1, 1, (3 * N, G)).astype(np.float32)
    return {"folder": np.array(str(folder)), "Y": X.reshape(3, N, G).astype(np.float64), "vectors": vectors, **own}


def expected(made: dict[str, np.ndarray], head: str, vectors: str = "") -> dict[str, float]:
    """Mean L2 of each line, over the folds' means, in float64 by scikit-learn.

    With 24 training perturbations every k above 19 takes all of an inner fold: k ties, and 20, the first, is chosen.
    """
    out, fold = {}, np.arange(N) % tiny.FOLDS
    for line, Y in zip(tiny.LINES, made["Y"], strict=True):
        scores = []
        for k in range(tiny.FOLDS):
            fit, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            made_up = np.zeros((N, G)) if head == "no_change" else np.tile(Y[fit].mean(axis=0), (N, 1))
            if head == "knn":
                X, has = made[vectors if vectors == "vectors" else line], np.ones(N, dtype=bool)
                has[:WITHOUT] = vectors != "vectors"
                known, asked = fit[has[fit]], test[has[test]]
                scale = StandardScaler().fit(X[known])
                model = KNeighborsRegressor(20).fit(scale.transform(X[known]), Y[known])
                made_up[asked] = model.predict(scale.transform(X[asked]))
            scores.append(np.linalg.norm(made_up[test] - Y[test], axis=1).mean())
        out[line] = float(np.mean(scores))
    return out


def set_up(folder: Path, made: dict[str, np.ndarray], url: str = "https://mini.invalid") -> None:
    """A grid, its published table and a registry in ``folder``; Jurkat's figures are of other data."""
    (folder / "mini.yaml").write_text(REGISTRY % (FILE, url, FILE, url), encoding="utf-8")
    grid = {
        "protocol": "cole2026",
        "published": "published/mini.yaml",
        "dataset": ["mini_lfc"],
        "split": ["given:test_split"],
        "emb": [f"mini:{TABLE}", f"mini:{OWN}", PLUS, "mini:never_uploaded_(D=3)"],
        "head": ["knn"],
        "metrics": ["l2_all"],
        "permutations": {"smoother": 0, "trained": 0},
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    knn, own, none = expected(made, "knn", "vectors"), expected(made, "knn", "own"), expected(made, "no_change")
    rows = [
        {"name": "No Change", "head": "no_change", "values": {**none, "Jurkat": 1.03 * none["Jurkat"]}},
        {"name": "Train Mean", "head": "context_mean", "values": expected(made, "context_mean")},
        {"name": "STRING", "embedding": f"mini:{TABLE}", "head": "knn", "values": {k: v - 0.25 for k, v in knn.items()}}
        | {"spread": {"K-562": 0.125}},
        {"name": "scGPT", "embedding": f"mini:{OWN}", "head": "knn", "values": own, "note": "by line"},
        {"name": "NCBI+UniProt", "embedding": PLUS, "head": "knn", "values": {"Hep-G2": 1.0}},
        {"name": "Absent", "embedding": "mini:never_uploaded_(D=3)", "head": "knn", "values": {"K-562": 1.0}},
        {"name": "Lasso", "embedding": f"mini:{TABLE}", "head": "lasso", "values": {"K-562": 1.0}},
        {"name": "Of A14", "embedding": f"mini:{TABLE}", "head": "knn", "task": "advanced", "values": {"K-562": 1.0}},
        {"name": "Oracle", "head": "knn", "embedding": "oracle_pca", "values": {"K-562": 1.0}, "why": "an oracle"},
        {"name": "Other line", "head": "no_change", "values": {"hTERT-RPE1": 8.5}},
    ]
    table = {"title": "A miniature", "source": "made by the test", "task": "main", "metric": "l2_all", "rows": rows}
    (folder / "published").mkdir()
    (folder / "published" / "mini.yaml").write_text(yaml.safe_dump(table), encoding="utf-8")


@pytest.fixture(scope="module")
def done(collection: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The command, once: from a folder mirror."""
    folder = tmp_path_factory.mktemp("reproduced")
    set_up(folder, collection)
    line = f"reproduce grid.yaml --mirror {collection['folder']} --registry mini.yaml --out out"
    refused = embbench(folder, line)
    assert refused.code == 2
    assert "Mini Licence" in refused.err
    assert "--accept-licence" in refused.err
    assert not (folder / "out").exists()
    return folder, embbench(folder, f"{line} --accept-licence")


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / "reproduction.csv", keep_default_na=False, na_values={"ours": [""]})


def test_our_numbers_stand_beside_the_published_ones(
    done: tuple[Path, Said], collection: dict[str, np.ndarray]
) -> None:
    folder, said = done
    assert said.code == 0, said.err
    assert "deviates" not in said.err
    rows = rows_of(folder).set_index(["name", "context"])
    for name, given in (
        ("No Change", expected(collection, "no_change")),
        ("Train Mean", expected(collection, "context_mean")),
        ("STRING", expected(collection, "knn", "vectors")),
        ("scGPT", expected(collection, "knn", "own")),
    ):
        for line, value in given.items():
            assert float(rows.loc[(name, line), "ours"]) == pytest.approx(value, rel=1e-5), (name, line)
    assert float(rows.loc[("STRING", "K-562"), "difference"]) == pytest.approx(0.25, abs=1e-4)
    assert float(rows.loc[("STRING", "K-562"), "published_spread"]) == 0.125
    assert float(rows.loc[("STRING", "K-562"), "coverage"]) == pytest.approx(1 - WITHOUT / N)
    assert int(rows.loc[("STRING", "K-562"), "folds"]) == tiny.FOLDS
    assert float(rows.loc[("scGPT", "Hep-G2"), "difference"]) == pytest.approx(0, abs=1e-4)
    for text in ("A miniature", "STRING", "+0.250", "±0.125", "by line"):
        assert text in said.out


def test_what_cannot_be_compared_is_listed_with_its_reason(done: tuple[Path, Said]) -> None:
    folder, said = done
    rows = rows_of(folder).set_index(["name", "context"])
    told = {key: str(why) for key, why in rows["not_compared"].items() if why}
    assert "no_change" in told["Train Mean", "Jurkat"]  # 3 % off: other data, so nothing of that line is compared
    assert "another task or other data" in told["STRING", "Jurkat"]
    assert "advanced" in told["Of A14", "K-562"]
    assert told["Oracle", "K-562"] == "an oracle"
    assert "skipped" in told["Absent", "K-562"]
    assert "not in this grid" in told["Lasso", "K-562"]
    assert "hTERT-RPE1 is not tested" in told["Other line", "hTERT-RPE1"]
    assert ("NCBI+UniProt", "Hep-G2") not in told
    assert (rows["difference"].astype(str) == "").sum() == len(told)
    assert "not fetched: mini:never_uploaded_(D=3)" in said.err
    assert "not compared" in said.out
    assert f"{len(rows) - len(told)} of {len(rows)} figures compared" in said.out


def test_from_a_server_and_again_without_one(collection: dict[str, np.ndarray], tmp_path: Path) -> None:
    held = Path(str(collection["folder"]))
    files = {"/essential/" + FILE: (held / "mini_lfc" / FILE).read_bytes()}
    for path in (held / "cole2026").iterdir():
        files["/gene_embeddings/" + path.name] = path.read_bytes()
    with serving(Site(files=files | {_quoted(name): data for name, data in files.items()})) as site:
        set_up(tmp_path, collection, site.url)
        said = embbench(tmp_path, "reproduce grid.yaml --accept-licence --registry mini.yaml --out out")
    assert said.code == 0, said.err
    assert len(rows_of(tmp_path)) == 18
    again = embbench(tmp_path, "reproduce grid.yaml --registry mini.yaml --out out")
    assert again.code == 0, again.err
    assert again.out == said.out


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


def test_without_the_files_the_command_says_how_to_get_them(collection: dict[str, np.ndarray], tmp_path: Path) -> None:
    set_up(tmp_path, collection)
    said = embbench(tmp_path, "reproduce grid.yaml --no-fetch --registry mini.yaml --out out")
    assert said.code == 2
    assert "embbench data fetch mini_lfc" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", REPRODUCED, ids=lambda p: p.stem)
def test_every_published_table_is_read_and_belongs_to_its_grid(path: Path) -> None:
    grid = read_grid(path)
    table = published_table(grid, path)
    assert table.figures
    known = registry_of(())
    check_names(table, known, grid.target, path)
    metrics = {e.name for e in known.entries("metrics")}
    ran = {*grid.emb, "none", "random", "oracle_pca"}
    heads = {*grid.head, "no_change", "context_mean", "perturbation_mean"}
    for figure in table.figures:
        assert figure.metric in metrics
        assert figure.dataset in grid.dataset
        assert figure.split in (*grid.split, "default")
        if not figure.why and figure.task == table.task:
            assert figure.embedding in ran, figure
            assert figure.head in heads, figure
            needs = known.parse("heads", figure.head).entry.load().needs_embedding
            assert (figure.embedding != "none") == needs, figure


def test_the_two_tasks_of_the_benchmark_are_told_apart() -> None:
    tables = {p.stem: published_table(read_grid(p), p) for p in REPRODUCED}
    main, other = tables["cole2026_essential_lfc"], tables["cole2026_advanced_heads"]
    assert main.task != other.task
    value = {(t.task, f.name, f.context): f.value for t in (main, other) for f in t.figures if f.task == t.task}
    first, second = value[main.task, "No Change", "K-562"], value[other.task, "No Change", "K-562"]
    assert (first, round(second, 3)) == (5.077, 5.227)
    assert abs(first - second) > 2 * main.tolerance * second
    assert len({f.name for f in main.figures}) > 40
    assert {f.task for f in other.figures} == {main.task, other.task}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": []}, "list of rows"),
        ({"colour": "red"}, "colour"),
        ({"rows": [{"name": "x", "head": "knn"}]}, "row 1 needs"),
        ({"rows": [{"name": "x", "head": "knn", "values": {"K-562": "high"}}]}, "row 1 \\(x\\)"),
        ({"rows": [{"name": "x", "head": "knn", "values": {"K-562": 1}, "spread": {"Jurkat": 1}}]}, "row 1 \\(x\\)"),
        ({"title": [1, 2]}, "the file: expected title as text, found \\[1, 2\\]"),
        ({"task": 1}, "expected task as text, found 1"),
        ({"tolerance": "tight"}, "tolerance as a number of at least 0, found 'tight'"),
        ({"anchor": ["a"]}, "expected anchor as text"),
        ({"rows": [{"name": {"a": 1}, "head": "knn", "values": {"K-562": 1}}]}, "row 1: expected name as text"),
        ({"rows": [{"name": "x", "head": 3, "values": {"K-562": 1}}]}, "row 1: expected head as text, found 3"),
        ({"metric": None, "rows": [{"name": "x", "head": "knn", "values": {"K-562": 1}}]}, "needs metric"),
    ],
)
def test_a_wrong_table_is_told_by_file_and_row(tmp_path: Path, change: dict[str, object], told: str) -> None:
    content = {
        "title": "t",
        "source": "s",
        "task": "main",
        "metric": "l2_all",
        "dataset": "d",
        "split": "s",
        "rows": [],
    }
    content |= change
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
    with pytest.raises(UserError, match=told):
        read_published(path, Grid())
    with pytest.raises(UserError, match="names no published table"):
        published_table(Grid(), path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metric": "l2_al"}, "no metric named 'l2_al'; did you mean l2_all"),
        ({"metric": "auroc_condition_all"}, "scores labels, not effects"),
        ({"anchor": "nochange"}, "no head named 'nochange'; did you mean no_change"),
        ({"rows": [{"name": "x", "head": "knnn", "values": {"K-562": 1}}]}, "no head named 'knnn'"),
    ],
)
def test_wrong_names_are_told_before_anything_runs(
    collection: dict[str, np.ndarray], tmp_path: Path, change: dict[str, object], told: str
) -> None:
    set_up(tmp_path, collection)
    path = tmp_path / "published" / "mini.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    said = embbench(tmp_path, "reproduce grid.yaml --no-fetch --registry mini.yaml --out out")
    assert said.code == 2
    assert told in said.err
    assert not (tmp_path / "out").exists()


def test_a_context_called_all_is_no_mean_over_contexts() -> None:
    """A screen of one line that is called ``all`` has one number; another split's lines are averaged as ever."""
    facts = dict.fromkeys((*MATCHED, *SETTINGS), "x") | {"embedding": "none", "head": "no_change", "seed": 0}
    rows = [
        {**facts, "split": split, "fold": fold, "context": context, "metric": "l2_all", "value": value, "covered": True}
        for split, context, fold, value in (
            *(("one", "all", fold, value) for fold, value in (("a", 1.0), ("b", 3.0))),
            *(("two", line, "a", value) for line, value in (("K-562", 4.0), ("Jurkat", 8.0))),
        )
    ]
    runs = pd.DataFrame([{**facts, "split": split, "status": "done", "reason": ""} for split in ("one", "two")])
    figures = tuple(
        Figure("row", "no_change", "none", "x", split, context, "l2_all", 2.0, task="t")
        for split, context in (("one", "all"), ("two", "all"), ("two", "Jurkat"))
    )
    frames = Frames(runs, pd.DataFrame(rows), pd.DataFrame(), {}, {})
    found = compare(frames, PublishedTable("t", "s", "t", figures, anchor="none"))
    assert [(c.figure.split, c.ours, c.folds) for c in found] == [("one", 2.0, 2), ("two", 6.0, 1), ("two", 8.0, 1)]


def test_drugs_keep_their_names_and_folds(tmp_path: Path) -> None:
    genes = tiny.ensembl(["TP53", "MYC", "KLF1"])
    tiny.drugs(tmp_path / "t.h5ad", "pubchem_cid", [2244.0, 3672.0, 5.0, 6.0, 7.0, 8.0], genes)
    options = {"name": "tahoe", "root": str(tmp_path), "files": [{"name": "t.h5ad"}], "entity_type": "compound"}
    reader = Cole2026(perturbation_key="pubchem_cid", **options)
    data = reader.load()
    assert {"2244", "3672"} <= set(data.entity_names)
    assert data.meta["default_split"] == "given:test_split"
    folds = dict(zip(data.conditions, data.covariates["test_split"].tolist(), strict=True))
    assert folds == {"2244": "0", "3672": "1", "5": "2", "6": "3", "7": "4", "8": "train"}
    assert reader.check()[2:] == [
        "5 published folds",
        "2 conditions are never tested and train in every fold, 0 are in no fold",
    ]
    always = np.array(data.conditions) == "8"
    for fold in GivenColumn("test_split").split(data).folds:
        assert always[fold.train].sum() == 2
        assert len(fold.train) + len(fold.test) == len(data)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3))
    values[1, 0] = np.nan
    tiny.drug_table(tmp_path / "emb.h5ad", ["2244", "3672"], {"ecfp:2": values})
    table = Vectors("ecfp:2", drugs="tahoe/emb.h5ad", root=str(tmp_path)).compute(None, None)
    assert table.names.tolist() == ["2244"]
    with pytest.raises(UserError, match="ecfp:2"):
        Vectors("maccs", drugs="tahoe/emb.h5ad", root=str(tmp_path)).compute(None, None)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    names, genes = tiny.ensembl(["TP53", "MYC", "KLF1", "GATA1", "SPI1"]), tiny.ensembl(["BRCA1", "STAT1"])
    tiny.effects(tmp_path / "e.h5ad", names, genes)
    tiny.labels(tmp_path / "l.h5ad", names, genes)
    options = {"name": "mini", "root": str(tmp_path)}
    with pytest.raises(UserError, match="labels -1, 0 and 1"):
        Cole2026(files=[{"name": "e.h5ad"}], content="labels", **options).load()
    loaded = Cole2026(files=[{"name": "l.h5ad"}], content="labels", **options).load()
    assert loaded.labels is not None
    assert set(np.unique(loaded.labels).tolist()) == {-1, 0, 1}
    obs = tiny.conditions(names)
    tiny.write(tmp_path / "c.h5ad", np.ones((len(obs), 2), np.float32), obs, genes)
    with pytest.raises(UserError, match="no value below 0"):
        Cole2026(files=[{"name": "c.h5ad"}], **options).load()
    with pytest.raises(UserError, match="pubchem_cid"):
        Cole2026(files=[{"name": "e.h5ad"}], perturbation_key="pubchem_cid", **options).load()
    shutil.copy(tmp_path / "e.h5ad", tmp_path / "other.h5ad")
    with pytest.raises(UserError, match="lacks scGPT_Jurkat"):
        Vectors("scGPT_{line}", lines=["Jurkat"], root=str(tmp_path)).compute(None, None)
