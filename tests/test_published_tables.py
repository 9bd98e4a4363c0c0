"""Gene vectors in the exact layouts in which they are published: read, harmonised, completed, refused."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny import tables as tiny

from embbench.core import UserError
from embbench.embeddings._published import read_columns
from embbench.embeddings.table import Table
from embbench.genes import harmonise

GENE_VECTORS: list[tuple[str, Callable[[Path], None], int]] = [
    ("gene2vec_dim_200_iter_9.txt", tiny.gene2vec, 200),
    ("GenePT_gene_embedding_ada_text.pickle", tiny.genept, 1536),
    ("NCBI_gene_embeddings-gpt3.5-ada.pickle", tiny.scgenept, 1536),
    ("genevector.npz", tiny.genevector, 100),
]


@pytest.mark.parametrize(("name", "write", "width"), GENE_VECTORS, ids=[v[0] for v in GENE_VECTORS])
def test_symbols_and_numbers(tmp_path: Path, name: str, write: Callable[[Path], None], width: int) -> None:
    write(tmp_path / name)
    table = Table(str(tmp_path / name), entity="gene").compute(None, None)
    assert table.names.tolist() == tiny.GENES
    assert np.allclose(table.matrix, tiny.vectors(width), rtol=1e-6)


def test_gene2vec_with_a_word2vec_header(tmp_path: Path) -> None:
    tiny.gene2vec(tmp_path / "plain.txt")
    body = (tmp_path / "plain.txt").read_text().replace("\t", " ")
    (tmp_path / "gene2vec_dim_200_iter_9_w2v.txt").write_text(f"{len(tiny.GENES)} 200\n{body}")
    table = Table(str(tmp_path / "gene2vec_dim_200_iter_9_w2v.txt")).compute(None, None)
    assert np.allclose(table.matrix, tiny.vectors(200), rtol=1e-6)


# -- DepMap -------------------------------------------------------------------------------------------------------


def effects(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and gaps (genes, lines) as pandas reads the file."""
    import pandas as pd

    frame = pd.read_csv(path, index_col=0)
    return frame.to_numpy().T, frame.isna().to_numpy().T


def test_depmap_genes_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "CRISPRGeneEffect.csv"
    tiny.depmap(path)
    values, gaps = effects(path)
    assert gaps.any()
    whole = Table(str(path), transpose=True, entity="gene").compute(None, None)  # a gap leaves the gene out
    kept = ~gaps.any(axis=1)
    assert whole.names.tolist() == [g for g, k in zip(tiny.REAL, kept, strict=True) if k]
    assert np.allclose(whole.matrix, values[kept], rtol=1e-6)
    full = Table(str(path), transpose=True, entity="gene", fill="mean").compute(None, None)
    assert full.names.tolist() == tiny.REAL
    expected = np.where(gaps, np.nanmean(values, axis=1, keepdims=True), values)
    assert np.allclose(full.matrix, expected, rtol=1e-5)
    assert not Table(str(path), transpose=True, fill="mean").compute(["nobody"], None).names.size


def test_depmap_pca_equals_sklearn(tmp_path: Path) -> None:
    from sklearn.decomposition import PCA

    path = tmp_path / "CRISPRGeneEffect.csv.gz"
    tiny.depmap(tmp_path / "x.csv")
    path.write_bytes(gzip.compress((tmp_path / "x.csv").read_bytes()))
    values, gaps = effects(tmp_path / "x.csv")
    expected = PCA(6, svd_solver="full").fit_transform(
        np.where(gaps, np.nanmean(values, axis=1, keepdims=True), values)
    )
    options: dict[str, Any] = {"transpose": True, "fill": "mean", "pca": 6}
    table = Table(str(path), **options).compute(None, None)
    assert np.allclose(table.matrix, expected * np.sign((table.matrix * expected).sum(axis=0)), atol=1e-4)
    few = Table(str(path), **options).compute(["MYC", "TP53"], None)
    assert np.array_equal(few.lookup(["TP53"])[0], table.lookup(["TP53"])[0])


def test_depmap_old_symbols_follow_their_entrez_identifier(tmp_path: Path) -> None:
    path = tmp_path / "CRISPRGeneEffect.csv"
    path.write_text(",H1F0 (3005),NEWGENE (999999999),NOID,MARCH1 (55016)\nACH-000001,1,2,3,4\nACH-000002,5,6,7,8\n")
    assert Table(str(path), transpose=True, to="symbol").compute(None, None).names.tolist() == [
        "H1-0",
        "NEWGENE",
        "NOID",
        "MARCHF1",
    ]


def test_missing_numbers_of_wide_tables(tmp_path: Path) -> None:
    """Empty, NA and NaN are missing; everything else is the float32 nearest to what is written."""
    values = np.random.default_rng(0).normal(size=(2, 3)) * [1e-3, 1, 1e5]
    rows = [f"ACH-{i}," + ",".join(repr(float(v)) for v in row) for i, row in enumerate(values)]
    text = "\n".join([",TP53 (7157),MYC (4609),EGFR (1956)", *rows, "ACH-8, ,NA,NaN", "ACH-9,1,2,3"]) + "\n"
    (tmp_path / "e.csv").write_text(text)
    raw = read_columns(tmp_path / "e.csv")
    assert raw.matrix.dtype == np.float32
    expected = np.vstack([values, np.full(3, np.nan), [1, 2, 3]]).astype(np.float32)
    assert np.array_equal(raw.matrix.T, expected, equal_nan=True)


def test_a_gene_seen_in_few_lines_has_no_vector(tmp_path: Path) -> None:
    path = tmp_path / "CRISPRGeneEffect.csv"
    path.write_text(",TP53 (7157),MYC (4609)\nA,1,\nB,2,\nC,,3\nD,4,\n")
    table = Table(str(path), transpose=True, fill="mean").compute(None, None)
    assert table.names.tolist() == ["TP53"]
    assert np.allclose(table.matrix, [[1, 2, 7 / 3, 4]])
    assert table.provenance["not_finite"] == 1


# -- STRING -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["", "species"])
def test_string_embeddings_of_one_and_of_all_species(tmp_path: Path, group: str) -> None:
    tiny.string_h5(tmp_path / "e.h5", 512, group)
    tiny.string_info(tmp_path / "info.txt")
    (tmp_path / "info.txt.gz").write_bytes(gzip.compress((tmp_path / "info.txt").read_bytes()))
    table = Table(str(tmp_path / "e.h5"), rename=str(tmp_path / "info.txt.gz"), entity="gene")
    assert table.files() == (tmp_path / "e.h5", tmp_path / "info.txt.gz")
    got = table.compute(None, None)
    assert got.names.tolist() == tiny.REAL
    assert np.array_equal(got.matrix, tiny.vectors(512, len(tiny.REAL)).astype(np.float16).astype(np.float32))
    if group:
        yeast = Table(str(tmp_path / "e.h5"), key="species/4932").compute(None, None)
        assert yeast.names.tolist()[0].startswith("4932.")
        assert not np.array_equal(yeast.matrix, got.matrix)


def test_string_names_that_two_proteins_share(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["embeddings"] = np.eye(3)
        file["proteins"] = np.array(["9606.ENSP1", "9606.ENSP2", "9606.ENSP3"], dtype="S")
    (tmp_path / "info.tsv").write_text("#string_protein_id\tpreferred_name\n9606.ENSP1\tTP53\n9606.ENSP2\tTP53\n")
    table = Table(str(tmp_path / "e.h5"), rename=str(tmp_path / "info.tsv"), entity="gene").compute(None, None)
    assert table.names.tolist() == ["TP53", "9606.ENSP2", "9606.ENSP3"]
    (tmp_path / "other.tsv").write_text("#string_protein_id\tpreferred_name\n10090.ENSMUSP1\tTrp53\n")
    with pytest.raises(UserError, match=r"names such as 9606\.ENSP1"):
        Table(str(tmp_path / "e.h5"), rename=str(tmp_path / "other.tsv")).compute(None, None)


# -- GTEx, GenBio, PIE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\t", ","])
def test_names_that_the_renaming_lacks_are_counted(tmp_path: Path, separator: str) -> None:
    (tmp_path / "v.csv").write_text("id,a\nprot1,1\nprot2,2\nprot3,3\nprot4,4\n")
    rows = ["protein gene", "prot1 TP53", "prot2 MYC", "prot3 MYC", "prot1 TP53"]
    (tmp_path / "names.txt").write_text("\n".join(rows).replace(" ", separator) + "\n")
    table = Table(str(tmp_path / "v.csv"), rename=str(tmp_path / "names.txt")).compute(None, None)
    assert table.names.tolist() == ["TP53", "MYC", "prot3", "prot4"]
    assert table.provenance["not_renamed"] == 2
    (tmp_path / "names.txt").write_text("\n".join([*rows, "prot1 MYC"]).replace(" ", separator) + "\n")
    with pytest.raises(UserError, match="line 6: expected one gene name for 'prot1', found 'TP53' and 'MYC'"):
        Table(str(tmp_path / "v.csv"), rename=str(tmp_path / "names.txt")).compute(None, None)


def test_gtex_medians(tmp_path: Path) -> None:
    tiny.gtex_gct(tmp_path / "gene_median_tpm.gct")
    packed = tmp_path / "gene_median_tpm.gct.gz"
    packed.write_bytes(gzip.compress((tmp_path / "gene_median_tpm.gct").read_bytes()))
    table = Table(str(packed), log1p=True, entity="gene").compute(None, None)
    assert table.names.tolist() == tiny.REAL
    assert np.allclose(table.matrix, np.abs(tiny.vectors(5, len(tiny.REAL))), rtol=1e-4, atol=1e-5)
    by_symbol = Table(str(packed), names="Description", log1p=True).compute(None, None)
    assert np.array_equal(by_symbol.matrix, table.matrix)


def test_gtex_means_as_npz(tmp_path: Path) -> None:
    """Symbols repeat, so Ensembl identifiers name the rows; a float16 overflow (inf) is a missing vector."""
    arrays = {
        "genes": np.array(["TP53", "TP53", "HBB"]),
        "ensembl": np.array(["ENSG00000141510", "ENSG00000999999", "ENSG00000244734"]),
        "tissues": np.array(["Liver", "Lung"]),
        "mean": np.array([[1, 3], [2, 2], [np.inf, 0]], dtype=np.float16),
        "fraction_zero": np.zeros((3, 2), dtype=np.float16),
    }
    np.savez(tmp_path / "gtex.npz", **arrays)
    table = Table(str(tmp_path / "gtex.npz"), log1p=True, entity="gene").compute(None, None)
    assert table.names.tolist() == ["TP53", "ENSG00000999999"]
    assert np.allclose(table.matrix[0], [math.log(2), math.log(4)])
    np.savez(tmp_path / "negative.npz", names=np.array(["TP53"]), matrix=np.array([[-1.0]]))
    with pytest.raises(UserError, match="log1p needs values >= 0, found -1"):
        Table(str(tmp_path / "negative.npz"), log1p=True).compute(None, None)


def test_genbio_h5ad(tmp_path: Path) -> None:
    path = tmp_path / "ESM2_(D=8).h5ad"
    tiny.genbio(path)
    table = Table(str(path), entity="gene", zero_is_missing=True).compute(None, None)
    assert table.names.tolist() == tiny.REAL
    assert np.array_equal(table.matrix, tiny.vectors(8, len(tiny.REAL) + 1)[:-1])
    assert table.provenance["all_zero"] == 1
    assert len(Table(str(path)).compute(None, None).names) == len(tiny.REAL) + 1


def test_pie_dense_source(tmp_path: Path) -> None:
    tiny.pie(tmp_path / "esm2")
    source = Table(str(tmp_path / "esm2"), entity="gene")
    assert [p.name for p in source.files()] == ["meta.json", "embeddings.npy", "aliases.yaml"]
    table = source.compute(None, None)
    expected = tiny.vectors(8, len(tiny.REAL))
    assert np.array_equal(table.lookup(tiny.REAL)[0], expected)
    assert np.array_equal(table.lookup(["H1-0"])[0][0], expected[tiny.REAL.index("TP53")])  # an alias
    assert set(table.names.tolist()) == {*tiny.REAL, "H1-0"}  # MYC has a key of its own; NOBODY is no key


def test_pie_token_source(tmp_path: Path) -> None:
    tiny.pie(tmp_path / "ncbi_text", "token")
    table = Table(str(tmp_path / "ncbi_text")).compute(tiny.REAL, None)
    count = len(tiny.REAL)
    tokens = tiny.vectors(8, count * (count + 1) // 2).astype(np.float16).astype(float)
    starts = np.concatenate([[0], np.cumsum(np.arange(1, count + 1))])
    expected = [tokens[a:b].mean(axis=0) for a, b in itertools.pairwise(starts)]
    assert np.allclose(table.matrix, expected, atol=1e-6)


# -- refusals -----------------------------------------------------------------------------------------------------


def broken_pie(change: Callable[[Path], object], layout: str = "dense") -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        tiny.pie(folder / "src", layout)
        change(folder / "src")
        return {"path": str(folder / "src")}

    return write


def text_file(name: str, content: str, **options: object) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        (folder / name).write_text(content)
        return {"path": str(folder / name), **options}

    return write


def edit_meta(**facts: object) -> Callable[[Path], object]:
    return lambda src: (src / "meta.json").write_text(
        json.dumps({**json.loads((src / "meta.json").read_text()), **facts})
    )


GCT = "#1.2\n1\t2\nName\tDescription\ta\tb\nENSG00000141510.5\tTP53\t1\t2\n"
BAD: list[tuple[str, Callable[[Path], dict[str, Any]], str]] = [
    ("pie-no-array", broken_pie(lambda src: (src / "embeddings.npy").unlink()), "expected a source folder"),
    ("pie-meta", broken_pie(lambda src: (src / "meta.json").write_text("{")), "expected a source folder"),
    ("pie-keys", broken_pie(edit_meta(keys=["TP53"])), r"names 1 keys x 8, found a \(20, 8\)"),
    ("pie-dim", broken_pie(edit_meta(dim=9)), "keys x 9"),
    ("pie-no-layout", broken_pie(edit_meta(keys=None)), "expected a source folder"),
    ("pie-pickle", broken_pie(lambda src: np.save(src / "embeddings.npy", np.array([{}]))), "expected a source folder"),
    ("pie-offsets", broken_pie(edit_meta(keys=["A", "B"]), "token"), "into 2 parts"),
    ("pie-aliases", broken_pie(lambda src: (src / "aliases.yaml").write_text("- a\n")), "found list"),
    ("pie-yaml", broken_pie(lambda src: (src / "aliases.yaml").write_text("a: [")), "alias: name"),
    ("folder", lambda folder: {"path": str(folder)}, "found a folder"),
    ("gct-head", text_file("a.gct", GCT.replace("#1.2", "#1.3")), "expected GCT 1.2"),
    ("gct-size", text_file("a.gct", GCT.replace("1\t2\nName", "2\t2\nName")), r"found '#1\.2', \['2', '2'\], \(1, 2\)"),
    ("gct-key", text_file("a.gct", GCT, key="a"), "GCT has one table"),
    ("gct-cut", text_file("a.gct", "#1.2\n"), "expected GCT 1.2"),
    ("gct-text", text_file("a.gct", GCT.replace("\t2\n", "\tx\n", 2).replace("1\tx\nName", "1\t2\nName")), "numbers"),
    ("wide-ragged", text_file("e.csv", ",TP53 (7157),MYC (4609)\nA,1\n", transpose=True), "row 2 has 1 numbers"),
    ("wide-text", text_file("e.csv", ",TP53 (7157)\nA,high\n", transpose=True), "row 2: expected numbers"),
    ("wide-empty", text_file("e.csv", ",TP53 (7157)\n", transpose=True), "found 0 such lines"),
    ("wide-missing", lambda folder: {"path": str(folder / "no.csv"), "transpose": True}, "found no such file"),
    ("wide-twice", text_file("e.csv", ",A,A\nx,1,2\n", transpose=True), "found 1 repeated"),
    ("rename", text_file("v.csv", "gene,a\nTP53,1\n", rename="no such.tsv"), "readable UTF-8"),
    ("pca-alike", text_file("v.csv", "gene,a\nTP53,1\nMYC,1\n", pca=2), "found 2 alike"),
]


@pytest.mark.parametrize(("name", "write", "message"), BAD, ids=[b[0] for b in BAD])
def test_bad_tables_are_explained(
    tmp_path: Path, name: str, write: Callable[[Path], dict[str, Any]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Table(**write(tmp_path)).compute(None, None)


def test_addresses_are_never_fetched(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"https://example\.org/e\.h5 has not been fetched.*embbench extract"):
        Table("https://example.org/e.h5").compute(None, None)
    with pytest.raises(UserError, match=r"org/x@main/esm2 has not been fetched, .*; fetch it and give a file"):
        Table("hf:org/x@main/esm2").compute(None, None)
    with pytest.raises(UserError, match="has not been fetched"):
        Table("https://example.org/51064667", transpose=True).compute(None, None)
    assert not list(fresh_home.iterdir())


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="fill must be mean or null, got 'zero'"):
        Table("x.csv", fill="zero")
    with pytest.raises(ValueError, match="got key=a"):
        Table("x.csv", key="a", transpose=True)
    with pytest.raises(ValueError, match="got 0"):
        Table("x.csv", pca=0)


# -- the real files -----------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_gtex_and_genevector_as_published(shared_data: Path) -> None:
    path = shared_data / "embeddings" / "gtex_tissue_mean_31.npz"
    table = Table(str(path), log1p=True, entity="gene").compute(None, None)
    with np.load(path) as raw:
        mean, ensembl = raw["mean"].astype(np.float32), raw["ensembl"]
    finite = np.isfinite(mean).all(axis=1)
    assert table.provenance["not_finite"] == int((~finite).sum()) == 5  # float16 overflows, e.g. HBB in blood
    assert len(table.names) == int(finite.sum())
    row = ensembl.tolist().index("ENSG00000141510")
    assert np.allclose(table.lookup(["TP53"])[0][0], np.log1p(mean[row].astype(float)), rtol=1e-6)
    symbols = harmonise(ensembl[finite].tolist()).names
    assert table.names.tolist() == list(symbols)
    vectors = Table(str(path.with_name("genevector_tica.npz")), entity="gene").compute(None, None)
    assert vectors.matrix.shape == (1000, 100)
