"""Extractors against independent oracles: scikit-learn, dense linear algebra, published files."""

from __future__ import annotations

import gzip
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse, stats

from embbench.core import Embedding, PerturbationDataset, UserError
from embbench.embeddings._knowledge import DATA, RELATIONS, go_incidence, read_gmt
from embbench.embeddings._linalg import DENSE, centred, signed, top_eigenpairs, truncated_svd
from embbench.embeddings.coexpression import Coexpression
from embbench.embeddings.context_onehot import ContextOneHot
from embbench.embeddings.control_context_pca import ControlContextPCA
from embbench.embeddings.control_mean import ControlMean
from embbench.embeddings.control_pca import ControlPCA
from embbench.embeddings.effect_pca import EffectPCA
from embbench.embeddings.gene_sets import GeneSets
from embbench.embeddings.graph_diffusion import GraphDiffusion, restart_walk
from embbench.embeddings.graph_spectral import GraphSpectral
from embbench.embeddings.onehot import OneHot
from embbench.embeddings.oracle_pca import OraclePCA
from embbench.embeddings.permuted import Permuted
from embbench.embeddings.random import Random
from embbench.graphs.edge_list import EdgeList
from embbench.numerics.edges import graph_file, read_edges


class FakeCells:
    """Control cells of three contexts; the last gene is constant in context 1."""

    def __init__(self, genes: int, cells: tuple[int, ...] = (60, 50, 40)) -> None:
        rng = np.random.default_rng(1)
        mixing = rng.normal(size=(genes, genes))
        self.halves = {
            half: [(rng.normal(size=(m, genes)) @ mixing + 5 * c).astype(np.float32) for c, m in enumerate(cells)]
            for half in "AB"
        }
        self.halves["A"][1][:, -1] = 0.1

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        return self.halves[half][context]

    def perturbed(self, row: int) -> np.ndarray:
        raise PermissionError(f"nobody may read perturbed cells here, asked for row {row}")


def screen(n: int = 20, genes: int = 12, **more: object) -> PerturbationDataset:
    rng = np.random.default_rng(0)
    context = np.array(["a", "b", "c"])[np.arange(n) % 3]
    fields = {
        "name": "fake",
        "effects": rng.normal(size=(n, genes)).astype(np.float32),
        "unit": "delta",
        "genes": np.array([f"G{i}" for i in range(genes)]),
        "entities": tuple((f"G{i // 2}",) for i in range(n)),
        "context": context,
        "baseline": rng.normal(size=(3, genes)).astype(np.float32),
        "cells": FakeCells(genes),
    }
    return PerturbationDataset(**{**fields, **more})


def aligned(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """``expected`` with the column signs of ``found``."""
    return expected * np.sign((found * expected).sum(axis=0))


# -- linear algebra -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (DENSE + 300, DENSE + 60)])
def test_truncated_svd_equals_full_svd(shape: tuple[int, int]) -> None:
    X = sparse.random(*shape, density=0.05, random_state=0, format="csr")
    U, s, V = truncated_svd(X, 6)
    full_U, full_s, full_V = np.linalg.svd(X.toarray(), full_matrices=False)
    assert s == pytest.approx(full_s[:6], rel=1e-10)
    assert np.allclose(U * s, aligned(U, full_U[:, :6]) * full_s[:6], atol=1e-7)
    assert np.allclose(V * s, aligned(V, full_V[:6].T) * full_s[:6], atol=1e-7)
    assert (U[np.abs(U).argmax(axis=0), range(6)] > 0).all()
    again = truncated_svd(X, 6)
    assert all(np.array_equal(a, b) for a, b in zip((U, s, V), again, strict=True))


def test_truncated_svd_leaves_out_null_directions() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 20))
    assert truncated_svd(X, 10)[1].shape == (3,)
    assert truncated_svd(np.zeros((4, 5)), 2)[0].shape == (4, 0)


def test_top_eigenpairs_lanczos_equals_dense() -> None:
    n = DENSE + 50
    A = sparse.random(n, n, density=0.01, random_state=1)
    A = (A + A.T).tocsr()
    values, vectors = top_eigenpairs(A, 5)
    assert values == pytest.approx(np.linalg.eigvalsh(A.toarray())[::-1][:5], rel=1e-10)
    assert np.allclose(A @ vectors, vectors * values, atol=1e-9)
    with pytest.raises(ValueError, match="got 0"):
        top_eigenpairs(A, 0)


def test_signed_is_safe_against_ties() -> None:
    v = np.array([[-1.0, 1.0], [1.0 + 1e-12, -1.0 - 1e-12]])
    assert np.array_equal(signed(v), [[1.0, 1.0], [-1.0 - 1e-12, -1.0 - 1e-12]])


# -- no information -----------------------------------------------------------------------------------------------


def test_random_is_standard_normal_and_depends_on_name_and_seed() -> None:
    names = [f"n{i}" for i in range(400)]
    table = Random(50).compute(names, None)
    assert table.matrix.dtype == np.float32
    assert table.matrix.shape == (400, 50)
    assert stats.kstest(table.matrix.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(table.matrix)[np.triu_indices(400, 1)]).max() < 0.75
    assert np.array_equal(Random(50).compute(names[::-1], None).matrix[::-1], table.matrix)
    assert not np.allclose(Random(50, seed=1).compute(names, None).matrix, table.matrix)
    with pytest.raises(UserError, match="found None"):
        Random().compute(None, None)
    with pytest.raises(ValueError, match="got 0"):
        Random(0)


def test_onehot_is_the_identity() -> None:
    assert np.array_equal(OneHot().compute(["b", "a", "b"], None).matrix, np.eye(2))
    assert ContextOneHot().compute(["K562"], None).entity == "context"
    with pytest.raises(UserError, match="onehot"):
        OneHot().compute(None, None)


def test_permuted_keeps_vectors_and_coverage() -> None:
    names = np.array([f"n{i}" for i in range(30)])
    table = Embedding(names, np.arange(60, dtype=np.float32).reshape(30, 2))
    asked = [*names[:20], "unknown"]
    drawn = [Permuted(table, draw).compute(asked, None) for draw in range(3)]
    for one in drawn:
        assert set(one.names) == set(names[:20])
        assert np.array_equal(np.sort(one.matrix, axis=0), table.matrix[:20])
        assert not np.array_equal(one.lookup(names[:20])[0], table.matrix[:20])
    assert not np.array_equal(drawn[0].matrix, drawn[1].matrix)
    assert np.array_equal(
        Permuted(table).compute(asked[::-1], None).lookup(names)[0][:20], drawn[0].lookup(names)[0][:20]
    )
    two = Embedding(names[:2], table.matrix[:2])
    assert all(Permuted(two, d).compute(None, None).matrix[0, 0] == 2.0 for d in range(5))
    with pytest.raises(ValueError, match="got str"):
        Permuted("go")  # type: ignore[arg-type]


def test_permuted_uses_one_permutation_in_all_contexts() -> None:
    names = np.array([f"n{i}" for i in range(6)] * 2)
    contexts = np.repeat(["a", "b"], 6)
    table = Embedding(names, np.arange(12, dtype=np.float32)[:, None], contexts=contexts)
    out = Permuted(table).compute(None, None)
    a, b = (out.lookup(names[:6], [c] * 6)[0].ravel() for c in "ab")
    assert np.array_equal(a + 6, b)
    assert not np.array_equal(a, np.arange(6))
    ragged = Embedding(names[:7], np.arange(7, dtype=np.float32)[:, None], contexts=contexts[:7])
    kept = Permuted(ragged).compute(None, None)
    assert set(zip(kept.names, kept.contexts, strict=True)) == set(zip(names[:7], contexts[:7], strict=True))


# -- gene sets ----------------------------------------------------------------------------------------------------


def write_gmt(path: Path, sets: dict[str, list[str]]) -> Path:
    path.write_text("".join("\t".join([name, "note", *genes]) + "\n" for name, genes in sets.items()))
    return path


def test_gene_sets_equal_sklearn_lsa(tmp_path: Path) -> None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    rng = np.random.default_rng(0)
    genes = [f"zz{i}" for i in range(60)]
    sets = {f"s{j}": rng.choice(genes, rng.integers(6, 20), replace=False).tolist() for j in range(25)}
    table = GeneSets(str(write_gmt(tmp_path / "x.gmt", sets)), dim=5).compute(None, None)
    covered = table.names.tolist()
    X = np.array([[gene in sets[s] for s in sets] for gene in covered], dtype=float)
    X = normalize(X * np.log(len(covered) / X.sum(axis=0)))
    svd = TruncatedSVD(5, algorithm="arpack", random_state=0)
    expected = svd.fit_transform(X)
    assert np.allclose(table.matrix, aligned(table.matrix, expected), atol=1e-5)
    few = GeneSets(str(tmp_path / "x.gmt"), dim=5).compute(["zz3", "nobody", "zz1"], None)
    assert few.names.tolist() == ["zz3", "zz1"]
    assert np.array_equal(few.matrix, table.lookup(["zz3", "zz1"])[0])


def test_gene_sets_size_limits_and_old_symbols(tmp_path: Path) -> None:
    sets = {"small": ["TP53", "MYC"], "good": ["TP53", "H1F0", "H1-0", "MAX"], "rest": ["MYC", "MAX", "KRAS"]}
    path = write_gmt(tmp_path / "x.gmt", sets)
    genes, kept, X = GeneSets(str(path), min_size=3).sets()
    assert kept == ["good", "rest"]
    assert "H1F0" not in genes
    assert X.max() == 1.0
    assert X[:, 0].sum() == 3
    with pytest.raises(UserError, match="informative"):
        GeneSets(str(path), min_size=9).compute(None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\tb\n", "line 1"), ("", "empty"), ("s\tn\tA\ns\tn\tB\n", "twice"), (b"\xff\xfe\x00", "text file")],
)
def test_bad_gmt_is_explained(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "bad.gmt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_gmt(path)
    with pytest.raises(UserError, match=r"none\.gmt"):
        read_gmt(tmp_path / "none.gmt")


def test_gene_sets_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="regulated_by"):
        GeneSets("go", relations=("regulated_by",))
    with pytest.raises(ValueError, match="GO only"):
        GeneSets("hallmark", exclude=["IEA"])
    with pytest.raises(ValueError, match="got 9 and 3"):
        GeneSets(min_size=9, max_size=3)
    with pytest.raises(UserError, match=r"existing codes: .*IEA"):
        GeneSets("go_cc", evidence=["XXX"]).compute(None, None)


def test_go_is_fast() -> None:
    go_incidence.cache_clear()
    start = time.process_time()
    table = GeneSets("go").compute(None, None)
    assert time.process_time() - start < 10
    assert table.matrix.shape[1] == 100
    assert table.lookup(["TP53"])[1].all()


def test_go_propagation_equals_a_walk_up_the_graph() -> None:
    """100 genes, every ancestor found by a plain recursive walk over the packaged files."""

    def rows(name: str) -> list[list[str]]:
        with gzip.open(DATA / name, "rt") as file:
            return [line.rstrip("\n").split("\t") for line in file][1:]

    parents: dict[str, set[str]] = {}
    for child, parent, relation in rows("go_parents.tsv.gz"):
        if relation in ("isa", "part of"):
            parents.setdefault(child, set()).add(parent)

    def walk(term: str) -> set[str]:
        return {term}.union(*(walk(parent) for parent in parents.get(term, ())))

    genes, terms, X = go_incidence(None, ("is_a", "part_of"), None, ())
    direct: dict[str, set[str]] = {}
    for gene, term, _, _ in rows("go_annotations.tsv.gz"):
        direct.setdefault(gene, set()).add(term)
    assert set(genes) == set(direct)
    for i in range(0, len(genes), len(genes) // 100):
        expected = set().union(*(walk(term) for term in direct[genes[i]]))
        assert {terms[j] for j in X[i].indices} == expected


@pytest.mark.shared
def test_propagated_sets_equal_the_published_ones(shared_data: Path) -> None:
    """GO.db's ancestors follow all five relations: then all 12,333 sets agree; the default follows two of them."""
    path = shared_data / "knowledge" / "GO_human_propagated_5to1000.gmt.gz"
    with gzip.open(path, "rt") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    # the publication writes mitochondrial genes as NCBI does (ND4), the package as HGNC does (MT-ND4)
    mitochondrial = {f"ND{i}" for i in (1, 2, 3, 4, "4L", 5, 6)} | {"ATP6", "ATP8"}
    hgnc = {**{f"COX{i}": f"MT-CO{i}" for i in (1, 2, 3)}, "CYTB": "MT-CYB", **{m: f"MT-{m}" for m in mitochondrial}}
    published = {line[0]: frozenset(hgnc.get(gene, gene) for gene in line[2:]) for line in lines}

    def sets(relations: tuple[str, ...]) -> dict[str, frozenset[str]]:
        genes, names, X = GeneSets("go", relations=relations).sets()
        X = X.tocsc()
        members = (X.indices[X.indptr[j] : X.indptr[j + 1]] for j in range(len(names)))
        return {name: frozenset(genes[i] for i in rows) for name, rows in zip(names, members, strict=True)}

    assert sets(RELATIONS) == published
    default = sets(("is_a", "part_of"))
    assert sum(published.get(name) == members for name, members in default.items()) == 9177
    assert all(members <= published[name] for name, members in default.items() if name in published)


# -- graphs -------------------------------------------------------------------------------------------------------


def write_ring(path: Path, n: int = 40) -> Path:
    rng = np.random.default_rng(3)
    edges = {(i, (i + 1) % n): 1.0 for i in range(n)}
    edges |= {tuple(sorted(rng.choice(n, 2, replace=False).tolist())): float(rng.integers(1, 5)) for _ in range(60)}
    lines = [f"n{i:02d},n{j:02d},{w}" for (i, j), w in edges.items()]
    path.write_text("\n".join(["source,target,weight", *lines, "island1,island2,1.0"]) + "\n")
    return path


def test_spectral_equals_dense_and_sklearn(tmp_path: Path) -> None:
    from sklearn.manifold import spectral_embedding

    path = write_ring(tmp_path / "ring.csv")
    table = GraphSpectral(str(path), dim=4, tau=0, unit_rows=False).compute(None, None)
    names, A = read_edges(path)
    inside = np.array([name.startswith("n") for name in names])
    A = A[inside][:, inside].toarray()
    degree = A.sum(axis=1)
    L = np.eye(40) - A / np.sqrt(np.outer(degree, degree))
    values, vectors = np.linalg.eigh(L)
    assert values[0] == pytest.approx(0, abs=1e-12)
    expected = vectors[:, 1:5] * np.sqrt(40)
    assert np.allclose(table.matrix, aligned(table.matrix, expected), atol=1e-5)
    theirs = spectral_embedding(A, n_components=4, random_state=0) * np.sqrt(degree)[:, None]
    theirs *= np.sqrt(40) / np.linalg.norm(theirs, axis=0)
    assert np.allclose(table.matrix, aligned(table.matrix, theirs), atol=1e-4)
    assert table.provenance["outside_component"] == 2
    assert not table.lookup(["island1"])[1].any()


def test_regularised_spectral_equals_dense(tmp_path: Path) -> None:
    path = write_ring(tmp_path / "ring.csv")
    table = GraphSpectral(str(path), dim=4, tau=0.5).compute(None, None)
    A = read_edges(path)[1][2:, 2:].toarray()
    A = A + 0.5 * A.sum(axis=1).mean() / 40
    degree = A.sum(axis=1)
    vectors = np.linalg.eigh(A / np.sqrt(np.outer(degree, degree)))[1][:, ::-1][:, 1:5]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(table.matrix, aligned(table.matrix, vectors), atol=1e-5)


def test_packaged_spectral_is_deterministic_and_not_localised() -> None:
    few = GraphSpectral(dim=6).compute(["TP53", "MYC", "nobody"], None)
    again = GraphSpectral(dim=6).compute(["MYC"], None)
    assert np.array_equal(few.lookup(["MYC"])[0], again.matrix)
    vectors = GraphSpectral(dim=6, unit_rows=False).compute(None, None).matrix.astype(np.float64)
    participation = (vectors**2).sum(axis=0) ** 2 / (vectors**4).sum(axis=0)
    assert (participation > 50).sum() >= 4


def test_diffusion_equals_dense_inverse(tmp_path: Path) -> None:
    path = write_ring(tmp_path / "ring.csv")
    A = read_edges(path)[1][2:, 2:]
    walk = A.toarray() / A.toarray().sum(axis=1, keepdims=True)
    P = 0.3 * np.linalg.inv(np.eye(40) - 0.7 * walk)
    assert np.allclose(restart_walk(A, np.arange(40), 0.3), P, atol=1e-9)
    assert np.allclose(restart_walk(A, np.array([7, 3]), 0.3), P[:, [7, 3]], atol=1e-9)
    U, s, _ = np.linalg.svd(np.log(P + 1 / 40) - np.log(1 / 40))
    table = GraphDiffusion(str(path), dim=5, restart=0.3, landmarks=None).compute(None, None)
    expected = (U * np.sqrt(s))[:, :5]
    assert np.allclose(table.matrix, aligned(table.matrix, expected), atol=1e-5)
    some = GraphDiffusion(str(path), dim=5, landmarks=10).compute(None, None)
    assert some.provenance["landmarks"] == 10
    with pytest.raises(ValueError, match="got 1"):
        GraphDiffusion(restart=1)


def test_edges_formats_repeats_and_threshold(tmp_path: Path) -> None:
    string = tmp_path / "string.tsv.gz"
    with gzip.open(string, "wt") as file:
        file.write("entrez1\tgene1\tgene2\tcombined_score\n1\tB\tA\t900\n1\tA\tB\t700\n2\tA\tC\t400\n3\tC\tC\t999\n")
    names, A = read_edges(string)
    assert names.tolist() == ["A", "B", "C"]
    assert A.toarray().tolist() == [[0, 900, 400], [900, 0, 0], [400, 0, 0]]
    assert read_edges(string, threshold=700)[0].tolist() == ["A", "B"]
    assert read_edges(string, weight="none")[1].sum() == 4
    assert read_edges(string, "gene2", "entrez1")[0].tolist() == ["1", "2", "3", "A", "B", "C"]
    spaced = tmp_path / "links.txt"
    spaced.write_text("protein1 protein2 combined_score\nNA B 1\n")
    assert read_edges(spaced)[0].tolist() == ["B", "NA"]
    packaged, graph = EdgeList("ppi").load()
    assert len(packaged) > 15000
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert graph_file("ppi").is_file()
    with pytest.raises(ValueError, match="directed"):
        EdgeList(directed=True)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a\tb\nx\ty\tz\tu\n", {}, "edge table"),
        ("a\tb\nx\ty\n", {"source": "q", "target": "b"}, r"expected edge columns \['q'\]"),
        ("a\tb\nx\ty\n", {"threshold": 3.0}, "needs a weight column"),
        ("a\tb\tweight\nx\ty\tmany\n", {}, "line 2 has weight = 'many'"),
        ("a\tb\tweight\nx\ty\t-1\n", {}, "weight >= 0"),
        ("a\tb\nx\tx\n", {}, "at least one edge"),
        ("", {}, "header"),
        (b"\x1f\x8b\x00broken", {}, "readable edge table"),
    ],
)
def test_bad_edges_are_explained(tmp_path: Path, content: str | bytes, options: dict, message: str) -> None:
    path = tmp_path / "edges.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_edges(path, **options)


def test_graph_errors(tmp_path: Path) -> None:
    path = tmp_path / "pair.csv"
    path.write_text("source,target\na,b\n")
    with pytest.raises(UserError, match="found 2"):
        GraphSpectral(str(path)).compute(None, None)
    with pytest.raises(UserError, match="nowhere"):
        GraphSpectral("nowhere.tsv").compute(None, None)
    with pytest.raises(ValueError, match="tau"):
        GraphSpectral(tau=-1)


@pytest.mark.shared
def test_string_file_embeds(shared_data: Path) -> None:
    path = shared_data / "knowledge" / "string_v12_entrez_ntm_700_400_k3.tsv.gz"
    table = GraphSpectral(str(path), dim=4, threshold=700).compute(["TP53", "MDM2", "RPL3", "RPL5"], None)
    assert len(table.names) == 4
    cosine = table.matrix @ table.matrix.T
    assert cosine[2, 3] > cosine[0, 2]


# -- from control cells -------------------------------------------------------------------------------------------


def test_control_pca_equals_sklearn_per_context() -> None:
    from sklearn.decomposition import PCA

    data = screen()
    table = ControlPCA("per_context", dim=4).compute(None, data.training(np.arange(20)))
    for code, context in enumerate("abc"):
        X = data.cells.controls(code).astype(np.float64)
        pca = PCA(4, svd_solver="full").fit(X)
        expected = pca.components_.T * np.sqrt(pca.explained_variance_)
        varies = X.std(axis=0) > 1e-9
        mine, found = table.lookup(data.genes, [context] * 12)
        assert np.array_equal(found, varies)
        assert np.allclose(mine[found], aligned(mine[found], expected[varies]), atol=1e-4)
    assert table.provenance["uses_query_controls"]


def test_pooled_pca_reads_training_contexts_only() -> None:
    data = screen()
    train = data.training(np.flatnonzero(data.context != "c"))
    table = ControlPCA(dim=12).compute(None, train)
    blocks = [data.cells.controls(code).astype(np.float64) for code in (0, 1)]
    within = sum((b - b.mean(axis=0)).T @ (b - b.mean(axis=0)) for b in blocks) / (60 + 50 - 2)
    assert np.allclose(table.matrix @ table.matrix.T, within, atol=1e-3 * within.max())
    assert not table.provenance["uses_query_controls"]
    assert table.provenance["contexts"] == ["a", "b"]
    closed = data.training(np.arange(20), open_contexts=frozenset({0}))
    assert ControlPCA("per_context").compute(None, closed).contexts.tolist() == ["a"] * 12
    assert ControlPCA().joins_contexts
    assert not ControlPCA("per_context").joins_contexts


def test_control_cells_are_capped_by_a_seeded_subset() -> None:
    train = screen().training(np.arange(20))
    a, b = (ControlPCA("per_context", dim=3, max_cells=20).compute(None, train) for _ in range(2))
    assert np.array_equal(a.matrix, b.matrix)
    other = ControlPCA("per_context", dim=3, max_cells=20, seed=1).compute(None, train)
    assert not np.allclose(a.matrix, other.matrix)


def test_coexpression_equals_truncated_correlation() -> None:
    data = screen()
    train = data.training(np.flatnonzero(data.context == "a"))
    table = Coexpression(dim=12).compute(None, train)
    R = np.corrcoef(data.cells.controls(0).astype(np.float64).T)
    assert np.allclose(table.matrix @ table.matrix.T, R @ R, atol=1e-4)
    U, s, _ = np.linalg.svd(R)
    short = Coexpression(dim=3).compute(["G4", "nobody"], train)
    assert np.allclose(np.abs(short.matrix[0]), np.abs(U[4, :3] * s[:3]), atol=1e-5)


@pytest.mark.parametrize("extractor", [ControlPCA(), Coexpression("per_context")])
def test_without_cells_the_reason_is_given(extractor: ControlPCA) -> None:
    with pytest.raises(UserError, match="needs control cells"):
        extractor.compute(None, screen(cells=None))
    with pytest.raises(UserError, match="needs control cells"):
        extractor.compute(None, None)
    with pytest.raises(UserError, match="two different"):
        extractor.compute(None, screen(cells=FakeCells(12, (1, 1, 1))).training(np.arange(20)))
    with pytest.raises(ValueError, match="pooled, per_context"):
        ControlPCA("both")
    with pytest.raises(ValueError, match="got 1"):
        ControlPCA(max_cells=1)


# -- from effects -------------------------------------------------------------------------------------------------


def test_effect_pca_equals_sklearn() -> None:
    from sklearn.decomposition import PCA

    data = screen()
    train = data.training(np.arange(15))
    table = EffectPCA(5).compute(None, train)
    pca = PCA(5, svd_solver="full").fit(data.effects[:15].astype(np.float64))
    expected = pca.components_.T * np.sqrt(pca.explained_variance_)
    assert np.allclose(table.matrix, aligned(table.matrix, expected), atol=1e-5)
    with pytest.raises(UserError, match="found 1"):
        EffectPCA().compute(None, data.training(np.array([0])))


def test_unobserved_entries_do_not_count() -> None:
    values = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 8.0]])
    assert centred(values, np.isfinite(values)).tolist() == [[-1.0, 0.0], [1.0, -2.0], [0.0, 2.0]]
    data = screen()
    observed = np.ones(data.effects.shape, bool)
    observed[:, 3] = False
    effects = np.where(observed, data.effects, np.nan).astype(np.float32)
    table = EffectPCA(3).compute(None, replace(data, effects=effects, observed=observed, truth=None))
    assert "G3" not in table.names.tolist()
    assert len(table.names) == 11


def test_oracle_pca_equals_sklearn_scores_of_the_truth() -> None:
    from sklearn.decomposition import PCA

    data = screen()
    rng = np.random.default_rng(9)
    data = replace(data, truth=rng.normal(size=data.effects.shape).astype(np.float32))
    data = replace(data, entities=(("G0", "G1"), *data.entities[1:]))
    table = OraclePCA(4).compute(None, data)
    scores = PCA(4, svd_solver="full").fit_transform(data.truth.astype(np.float64))
    expected = np.array(
        [scores[[i for i, e in enumerate(data.entities) if e == (name,)]].mean(0) for name in table.names]
    )
    assert np.allclose(table.matrix, aligned(table.matrix, expected), atol=1e-5)
    assert OraclePCA.oracle
    with pytest.raises(UserError, match="truth"):
        OraclePCA().compute(None, None)


# -- contexts -----------------------------------------------------------------------------------------------------


def test_context_embeddings() -> None:
    data = screen()
    train = data.training(np.flatnonzero(data.context != "c"))
    assert np.array_equal(ControlMean().compute(["c", "a", "z"], train).matrix, data.baseline[[2, 0]])
    closed = data.training(np.arange(20), open_contexts=frozenset({0, 1}))
    assert ControlMean().compute(None, closed).names.tolist() == ["a", "b"]
    table = ControlContextPCA(5).compute(None, train)
    assert table.matrix.shape == (3, 1)
    centre = data.baseline[:2].mean(axis=0)
    axis = (data.baseline[0] - data.baseline[1]) / np.linalg.norm(data.baseline[0] - data.baseline[1])
    assert np.allclose(np.abs(table.matrix.ravel()), np.abs((data.baseline - centre) @ axis), atol=1e-5)
    with pytest.raises(UserError, match=r"found 1 \(a\)"):
        ControlContextPCA().compute(None, data.training(np.flatnonzero(data.context == "a")))
    with pytest.raises(UserError, match="without baseline"):
        ControlMean().compute(None, screen(baseline=None))
