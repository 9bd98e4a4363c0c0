"""Edge filters, graph wavelets and node2vec against dense formulas, brute force and hand-computed values."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.linalg import matrix_power
from scipy import linalg, sparse, special, stats

from embbench.core import UserError
from embbench.embeddings import _linalg, graph_node2vec
from embbench.embeddings._graph import GraphParameters
from embbench.embeddings._walks import biased_walks, skip_gram
from embbench.embeddings.graph_node2vec import GraphNode2Vec, leading, log_walk_matrix
from embbench.embeddings.graph_wavelet import GraphWavelet, _series, characteristic, role_scales, wavelets
from embbench.genes import harmonise
from embbench.graphs.edge_list import EdgeList
from embbench.numerics.edges import protein_names, read_edges, strongest

P = 0.041
DETAILED = (
    "protein1 protein2 neighborhood fusion cooccurence coexpression experimental database textmining combined_score"
)
TP53, MDM2, MYC, LOST = (f"9606.ENSP{i:011d}" for i in (269305, 258149, 478887, 999999))


def random_graph(n: int = 60, edges: int = 150, seed: int = 0) -> sparse.csr_matrix:
    """A connected weighted graph: a ring and random chords."""
    rng = np.random.default_rng(seed)
    A = np.zeros((n, n))
    A[np.arange(n), (np.arange(n) + 1) % n] = 1.0
    a, b = rng.integers(0, n, (2, edges))
    A[a[a != b], b[a != b]] = rng.uniform(0.5, 3.0, (a != b).sum())
    return sparse.csr_matrix(np.maximum(A, A.T))


def normalised(A: sparse.csr_matrix) -> np.ndarray:
    degree = A.toarray().sum(axis=1)
    return A.toarray() / np.sqrt(np.outer(degree, degree))


def write_graph(path: Path, A: sparse.csr_matrix) -> Path:
    upper = sparse.coo_matrix(sparse.triu(A, 1))
    rows = [f"n{i:03d},n{j:03d},{float(w)!r}" for i, j, w in zip(upper.row, upper.col, upper.data, strict=True)]
    path.write_text("\n".join(["source,target,weight", *rows]) + "\n")
    return path


def aligned(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """``expected`` with the signs of ``found``."""
    return expected * np.sign((found * expected).sum(axis=0))


# ---------------------------------------------------------------- filters


@pytest.fixture
def detailed(tmp_path: Path) -> Path:
    rows = [
        f"{TP53} {MDM2} 0 0 300 0 621 0 585 830",
        f"{MDM2} {TP53} 0 0 300 0 621 0 585 830",
        f"{TP53} {MYC} 0 0 0 700 0 0 0 700",
        f"{MDM2} {MYC} 0 0 0 0 0 0 900 900",
        f"{MYC} {LOST} 0 0 0 0 500 0 0 500",
    ]
    path = tmp_path / "links.detailed.txt.gz"
    path.write_bytes(gzip.compress("\n".join([DETAILED, *rows, ""]).encode()))
    return path


@pytest.fixture
def info(tmp_path: Path) -> Path:
    path = tmp_path / "protein.info.txt"
    head = "#string_protein_id\tpreferred_name\tprotein_size\tannotation"
    rows = [
        f'{protein}\t{gene}\t393\tsays "so; and so' for protein, gene in ((TP53, "TP53"), (MDM2, "MDM2"), (MYC, "MYC"))
    ]
    path.write_text("\n".join([head, *rows, ""]))
    return path


def test_channels_combine_as_string_does(detailed: Path) -> None:
    """The worked example of STRING's help page (0.621 and 0.585) and one more channel, by hand."""
    names, A = read_edges(detailed, channels=["experimental", "textmining"])
    at = {name: i for i, name in enumerate(names)}
    a, b, c = ((s - P) / (1 - P) for s in (0.621, 0.585, 0.3))
    two = 1 - (1 - a) * (1 - b)
    assert A[at[TP53], at[MDM2]] == pytest.approx(1000 * (two + P * (1 - two)), abs=1e-6)
    assert A[at[TP53], at[MDM2]] == pytest.approx(835.99, abs=0.01)
    assert A[at[MDM2], at[MYC]] == 900
    assert A[at[TP53], at[MYC]] == 0, "co-expression alone is no evidence here"
    names, A = read_edges(detailed, without="textmining")
    at = {name: i for i, name in enumerate(names)}
    rest = 1 - (1 - a) * (1 - c)
    assert A[at[TP53], at[MDM2]] == pytest.approx(1000 * (rest + P * (1 - rest)), abs=1e-6)
    assert A[at[MDM2], at[MYC]] == 0
    assert read_edges(detailed, without="textmining", threshold=700)[1].nnz == 4, "one channel of 700 stays 700"


def test_full_tables_have_transferred_scores_and_homology(tmp_path: Path) -> None:
    path = tmp_path / "full.txt"
    head = "protein1 protein2 homology experiments experiments_transferred textmining textmining_transferred"
    path.write_text(f"{head}\nA B 250 300 200 600 100\n")
    e1, e2, t1, t2 = ((s - P) / (1 - P) for s in (0.3, 0.2, 0.6, 0.1))
    text = (1 - (1 - t1) * (1 - t2)) * (1 - 0.25)
    both = 1 - (1 - e1) * (1 - e2) * (1 - text)
    assert read_edges(path, without=["coexpression"])[1][0, 1] == pytest.approx(
        1000 * (both + P * (1 - both)), abs=1e-6
    )
    direct = 1 - (1 - e1) * (1 - e2)
    found = read_edges(path, channels="experimental")[1][0, 1]
    assert found == pytest.approx(1000 * (direct + P * (1 - direct)), abs=1e-6)


@pytest.mark.shared
def test_channels_reproduce_the_published_scores(shared_data: Path) -> None:
    """All channels of a published table together give its combined score (which STRING rounds down)."""
    path = shared_data / "knowledge" / "string_v12_entrez_ntm_700_400_k3.tsv.gz"
    names, published = read_edges(path)
    same, found = read_edges(path, without="textmining")
    assert np.array_equal(names, same)
    gap = found.data - published.data
    assert gap.min() > -1e-6
    assert gap.max() < 2
    assert (gap < 1).mean() > 0.98
    nodes = GraphParameters(str(path), source="entrez1", target="entrez2").component()[0]
    assert len(set(nodes.tolist()) & set(names.tolist())) > 0.98 * len(nodes), "Entrez ids become symbols"


def test_proteins_become_genes(detailed: Path, info: Path, tmp_path: Path) -> None:
    names, A = read_edges(detailed, names=info)
    assert names.tolist() == sorted([LOST, "MDM2", "MYC", "TP53"]), "a protein that the file lacks keeps its identifier"
    assert A[names.tolist().index("TP53"), names.tolist().index("MDM2")] == 830
    head = "#string_protein_id\talias\tsource"
    rows = [f"{TP53}\tP53X\tEnsembl_gene", f"{TP53}\tTP53\tEnsembl_HGNC_symbol", f"{TP53}\tP04637\tUniProt_AC"]
    rows += [f"{MDM2}\tMDM2\tBLAST_KEGG_NAME BioMart_HUGO", f"{MYC}\tENSG00000136997\tEnsembl_gene"]
    aliases = tmp_path / "aliases.txt.gz"
    aliases.write_bytes(gzip.compress("\n".join([head, *rows, ""]).encode()))
    assert protein_names(aliases) == {TP53: "TP53", MDM2: "MDM2", MYC: "ENSG00000136997"}
    nodes, _, _ = GraphParameters(str(detailed), names=str(aliases)).component()
    assert {"TP53", "MDM2", "MYC"} < set(nodes.tolist())
    assert GraphParameters(str(detailed), names=str(info)).files() == (detailed, info)
    assert EdgeList(str(detailed), names=str(info), top_k=1).files() == (detailed, info)
    assert "TP53" in EdgeList(str(detailed), names=str(info)).load()[0]


def test_two_proteins_of_one_gene_are_merged(detailed: Path, tmp_path: Path) -> None:
    info = tmp_path / "info.txt"
    info.write_text(
        "\n".join(["#string_protein_id\tpreferred_name", f"{TP53}\tX", f"{MDM2}\tX", f"{MYC}\tMYC", f"{LOST}\tL"])
    )
    names, A = read_edges(detailed, names=info)
    assert names.tolist() == ["L", "MYC", "X"]
    assert A.toarray()[2].tolist() == [0, 900, 0], "the heaviest of parallel edges; the inner edge is dropped"


def test_two_spellings_of_one_gene_are_one_node(tmp_path: Path) -> None:
    """MLL is an old name of KMT2A: their edges meet, the heavier of parallel ones counts, the inner one goes."""
    path = tmp_path / "e.csv"
    path.write_text("source,target,weight\nMLL,TP53,5\nKMT2A,MYC,2\nTP53,KMT2A,3\nMLL,KMT2A,9\nEGFR,7157,4\n")
    expected = ["EGFR", "KMT2A", "MYC", "TP53"], [[0, 0, 0, 4], [0, 0, 2, 5], [0, 2, 0, 0], [4, 5, 0, 0]]
    names, A, outside = GraphParameters(str(path)).component()
    assert (names.tolist(), A.toarray().tolist(), outside) == (*expected, 0)
    names, A = EdgeList(str(path)).load()
    assert (names.tolist(), A.toarray().tolist()) == expected
    ensembl = EdgeList(str(path), to="ensembl").load()[0].tolist()
    assert ensembl == sorted(harmonise(expected[0], "ensembl").names)
    assert len(GraphParameters(str(path), to=None).component()[0]) == 4  # MLL, KMT2A, MYC, TP53
    path.write_text("source,target\nMLL,KMT2A\n")
    with pytest.raises(UserError, match="expected at least one edge"):
        EdgeList(str(path)).load()


def test_edges_as_people_write_them(tmp_path: Path) -> None:
    """A byte-order mark, and spaces around names and numbers."""
    (tmp_path / "e.csv").write_text(
        "\ufeffsource, target, weight\n TP53 , MDM2, 0.9\nMDM2,MYC ,0.5\n", encoding="utf-8"
    )
    names, A = read_edges(tmp_path / "e.csv")
    assert names.tolist() == ["MDM2", "MYC", "TP53"]
    assert A.toarray().tolist() == [[0, 0.5, 0.9], [0.5, 0, 0], [0.9, 0, 0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("TP53", "line 3: expected a name in column 'target', found none"),
        (",TP53", "line 3: expected a name in column 'source'"),
        ("TP53, ", "line 3: expected a name in column 'target'"),
        ("TP53,MYC,1", "expected an edge table"),
    ],
)
def test_edges_without_both_ends_are_explained(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "e.csv").write_text(f"source,target\nTP53,MDM2\n{row}\nMDM2,MYC\n")
    with pytest.raises(UserError, match=message):
        read_edges(tmp_path / "e.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "names=FILE"),
        ({"channels": ["fusion", "homology"]}, "got \\['homology'\\]"),
        ({"channels": []}, "channels are"),
        ({"channels": "fusion", "without": "textmining"}, "give one of"),
        ({"weight": "fusion", "without": "textmining"}, "give one of"),
        ({"to": "hgnc"}, "to must be symbol, ensembl, entrez or null, got 'hgnc'"),
        ({"top_k": 0}, "top_k must be an integer >= 1"),
        ({"names": "nowhere.txt"}, "nowhere.txt: expected a readable protein.info"),
        ({"names": "{links}"}, "expected STRING's protein.info"),
        ({"names": "{other}"}, "one STRING release"),
        ({"channels": "fusion", "names": "{info}"}, "at least one edge"),
    ],
)
def test_bad_filters_are_explained(detailed: Path, info: Path, options: dict, message: str) -> None:
    other = info.with_name("other.txt")
    other.write_text(f"#string_protein_id\tpreferred_name\n10090.ENSMUSP00000000001\tTrp53\n{MYC}\tMYC\n")
    files = {"{links}": str(detailed), "{info}": str(info), "{other}": str(other)}
    options = {k: files.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises((UserError, ValueError), match=message):
        GraphParameters(str(detailed), **options).component()


def test_a_table_without_channels_says_which_file_has_them(tmp_path: Path) -> None:
    path = tmp_path / "links.txt"
    path.write_text("protein1 protein2 combined_score\nA B 900\n")
    with pytest.raises(UserError, match=r"protein.links.detailed"):
        read_edges(path, without="textmining")
    path.write_text("protein1 protein2 database\nA B 900\n")
    with pytest.raises(UserError, match="expected STRING channels \\['fusion'\\]"):
        read_edges(path, channels=["database", "fusion"])
    path.write_text("protein1 protein2 database\nA B 1900\n")
    with pytest.raises(UserError, match="from 0 to 1000, found 1900"):
        read_edges(path, channels="database")


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_brute_force(k: int) -> None:
    A = random_graph(40, 200, seed=k).toarray().round()  # rounded: ties
    A = np.maximum(A, A.T)
    kept = np.zeros_like(A, dtype=bool)
    for i in range(len(A)):
        best = sorted((j for j in range(len(A)) if A[i, j] > 0), key=lambda j, i=i: (-A[i, j], j))[:k]
        kept[i, best] = kept[best, i] = True
    assert np.array_equal(strongest(sparse.csr_matrix(A), k).toarray(), np.where(kept, A, 0))


# ---------------------------------------------------------------- wavelets


@pytest.mark.parametrize("scale", [0.01, 0.3, 8.0, 200.0, 300.0, 1e4])
def test_chebyshev_series_are_bessel_functions(scale: float) -> None:
    """Abramowitz and Stegun, 9.6.34 and 9.6.26; and their sum is the kernel."""
    k = np.arange(40 + int(22 * np.sqrt(scale)))
    heat = 2 * special.ive(k, scale)
    mexican = scale * (heat - special.ive(np.abs(k - 1), scale) - special.ive(k + 1, scale))
    x = np.cos(np.linspace(0, np.pi, 2001))
    y = scale * (1 - x)
    for kernel, c, exact in (("heat", heat, np.exp(-y)), ("mexican", mexican, y * np.exp(-y))):
        c[0] /= 2
        found = _series(kernel, scale)
        loss = 1e-13 if kernel == "heat" else 1e-13 * (1 + scale)  # what the difference of Bessel functions loses
        assert np.abs(found - c[: len(found)]).max() < loss * np.abs(c).max()
        assert np.abs(np.polynomial.chebyshev.chebval(x, found) - exact).max() < 1e-12
        assert len(found) < 14 + 10 * np.sqrt(scale)


def test_wide_scales_end_in_equilibrium() -> None:
    A = random_graph()
    degree = A.toarray().sum(axis=1)
    (heat,) = wavelets(sparse.csr_matrix(normalised(A)), np.array([3, 40]), "heat", [3e4])
    expected = np.sqrt(degree[:, None] * degree[[3, 40]]) / degree.sum()
    assert np.abs(heat - expected).max() < 1e-11


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0, 50.0])
def test_heat_wavelets_equal_the_matrix_exponential(scale: float) -> None:
    A = random_graph()
    L = np.eye(60) - normalised(A)
    S = sparse.csr_matrix(normalised(A))
    columns = np.array([3, 40, 7])
    heat, small = wavelets(S, columns, "heat", [scale, 0.3])
    assert np.abs(heat - linalg.expm(-scale * L)[:, columns]).max() < 1e-11
    assert np.abs(small - linalg.expm(-0.3 * L)[:, columns]).max() < 1e-11
    band = scale * L @ linalg.expm(-scale * L)
    assert np.abs(wavelets(S, columns, "mexican", [scale])[0] - band[:, columns]).max() < 1e-11


def test_positions_equal_the_dense_formula(tmp_path: Path) -> None:
    A = random_graph()
    table = GraphWavelet(str(write_graph(tmp_path / "g.csv", A)), dim=6, scales=[0.5, 3], landmarks=None).compute(
        None, None
    )
    degree, L = A.toarray().sum(axis=1), np.eye(60) - normalised(A)
    parts = []
    for s in (0.5, 3):
        walk = np.diag(degree**-0.5) @ linalg.expm(-s * L) @ np.diag(degree**0.5)  # rows are probabilities
        assert np.allclose(walk.sum(axis=1), 1)
        profile = np.log1p(walk / (degree / degree.sum()))
        profile -= profile.mean(axis=0)
        parts.append(profile / np.linalg.norm(profile))
    U, size, _ = np.linalg.svd(np.concatenate(parts, axis=1), full_matrices=False)
    expected = (U * np.sqrt(size))[:, :6]
    assert np.allclose(table.matrix, aligned(table.matrix, expected), atol=1e-5)


def barbell(path: Path) -> Path:
    """Two cliques of six joined by a path of seven: mirrored nodes have the same role and different positions."""
    cliques = [(f"{side}{i}", f"{side}{j}") for side in "ab" for i in range(6) for j in range(i)]
    chain = ["a0", *(f"p{i}" for i in range(7)), "b0"]
    rows = [f"{x},{y}" for x, y in [*cliques, *pairwise(chain)]]
    path.write_text("\n".join(["source,target", *rows]) + "\n")
    return path


def test_structure_finds_roles_and_position_finds_places(tmp_path: Path) -> None:
    path = str(barbell(tmp_path / "barbell.csv"))
    roles = GraphWavelet(path, mode="structure", dim=100, to=None).compute(["a3", "b3", "p0", "p6", "p3"], None).matrix
    assert np.allclose(roles[0], roles[1], atol=1e-4)
    assert np.allclose(roles[2], roles[3], atol=1e-4)
    assert np.abs(roles[0] - roles[2]).max() > 0.1
    assert np.abs(roles[2] - roles[4]).max() > 1e-3
    # five columns: what tells the nodes of one clique apart has equal singular values, so a cut inside is arbitrary
    places = GraphWavelet(path, dim=5, to=None).compute(["a3", "a4", "b3"], None).matrix
    assert np.linalg.norm(places[0] - places[1]) < 1e-4 * np.linalg.norm(places[0] - places[2])


def test_characteristic_functions_and_scales_equal_the_definition(tmp_path: Path) -> None:
    A = random_graph()
    S = normalised(A)
    values = np.linalg.eigvalsh(np.eye(60) - S)
    spread = np.sqrt(values[1] * values[-1])
    scales = role_scales(sparse.csr_matrix(S))
    assert scales == pytest.approx((-np.log(0.95) / spread, -np.log(0.85) / spread))
    points = np.linspace(0, 100, 26)[1:]
    psi = linalg.expm(-scales[1] * (np.eye(60) - S))
    expected = np.exp(1j * points[:, None, None] * psi).sum(axis=1).T - 60
    assert np.abs(characteristic(psi, points) - expected).max() < 1e-5
    table = GraphWavelet(str(write_graph(tmp_path / "g.csv", A)), mode="structure", dim=100).compute(None, None)
    assert table.matrix.shape == (60, 100)
    found = table.matrix.reshape(60, 2, 2, 25)
    assert np.allclose(found[:, 1, 0], expected.real, atol=1e-4)
    assert np.allclose(found[:, 1, 1], expected.imag, atol=1e-4)


# ---------------------------------------------------------------- node2vec


def dense_netmf(A: np.ndarray, window: int, negative: int) -> np.ndarray:
    """The formula of Qiu et al. with explicit powers of the transition matrix."""
    degree = A.sum(axis=1)
    walk = A / degree[:, None]
    powers = sum(matrix_power(walk, r) for r in range(1, window + 1))
    return np.log(np.maximum(degree.sum() / (negative * window) * powers / degree[None, :], 1))


@pytest.mark.parametrize(("window", "negative"), [(1, 1), (10, 1), (4, 5)])
def test_closed_form_equals_explicit_powers(tmp_path: Path, window: int, negative: int) -> None:
    A = random_graph()
    expected = dense_netmf(A.toarray(), window, negative)
    assert np.abs(log_walk_matrix(A, window, negative, None) - expected).max() < 1e-10
    assert np.abs(log_walk_matrix(A, window, negative, 60) - expected).max() < 1e-9, "all eigenpairs are exact"
    path = str(write_graph(tmp_path / "g.csv", A))
    table = GraphNode2Vec(path, dim=5, window=window, negative=negative).compute(None, None)
    U, size, _ = np.linalg.svd(expected)
    assert np.allclose(table.matrix, aligned(table.matrix, (U * np.sqrt(size))[:, :5]), atol=1e-5)
    near = GraphNode2Vec(path, dim=5, window=window, negative=negative, rank=30).compute(None, None)
    assert near.provenance["approximation"] == "rank 30"


def test_large_matrices_have_the_singular_vectors_of_lapack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block Lanczos route in float32, with its limits lowered, against LAPACK in float64."""
    monkeypatch.setattr(graph_node2vec, "DENSE", 100)
    monkeypatch.setattr(graph_node2vec, "BLOCK", 16)
    A = random_graph(400, 1200)
    matrix = log_walk_matrix(A, 6, 1, None)
    assert matrix.dtype == np.float32
    assert np.abs(matrix - dense_netmf(A.toarray(), 6, 1)).max() < 1e-4
    values, vectors = leading(matrix, 12)
    everything, basis = np.linalg.eigh(matrix.astype(np.float64))
    order = np.argsort(-np.abs(everything))[:12]
    assert np.allclose(values, everything[order], atol=1e-5 * everything[order[0]])
    assert np.abs((vectors * basis[:, order]).sum(axis=0)).min() > 0.9999
    assert np.array_equal(vectors, leading(matrix, 12)[1])


def test_many_pairs_are_decomposed_by_lapack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanczos for an eighth of all pairs costs more than all of them."""
    X = np.random.default_rng(0).standard_normal((1300, 1200))
    monkeypatch.setattr(_linalg, "eigsh", None)
    found = _linalg.truncated_svd(sparse.csr_matrix(X), 150)[1]
    assert np.allclose(found, np.linalg.svd(X, compute_uv=False)[:150], rtol=1e-10)
    monkeypatch.undo()
    assert np.allclose(_linalg.truncated_svd(X, 149)[1], found[:149], rtol=1e-10)  # by Lanczos


def test_exact_factorisation_refuses_what_would_take_hours() -> None:
    with pytest.raises(UserError, match="rank=256"):
        GraphNode2Vec(window=10**6).compute(None, None)


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (4.0, 0.25), (0.2, 3.0)])
def test_walk_transitions_have_the_exact_probabilities(p: float, q: float) -> None:
    """Chi-square over every (previous, current) pair of a small weighted graph."""
    A = random_graph(8, 8, seed=2)
    W = A.toarray()
    walks = biased_walks(A, 400, 30, p, q, np.random.default_rng(5))
    assert walks.shape == (3200, 30)
    assert np.bincount(walks[:, 0], minlength=8).tolist() == [400] * 8
    counts = np.zeros((8, 8, 8))
    for step in range(2, 30):
        np.add.at(counts, (walks[:, step - 2], walks[:, step - 1], walks[:, step]), 1)
    statistic, freedom = 0.0, 0
    for t, v in zip(*np.nonzero(W), strict=True):
        alpha = np.where(np.arange(8) == t, 1 / p, np.where(W[t] > 0, 1, 1 / q))
        chance = alpha * W[v] / (alpha * W[v]).sum()
        assert counts[t, v][chance == 0].sum() == 0
        reach = chance > 0
        expected = counts[t, v].sum() * chance[reach]
        statistic += ((counts[t, v][reach] - expected) ** 2 / expected).sum()
        freedom += reach.sum() - 1
    assert stats.chi2.sf(statistic, freedom) > 0.01


def blocks(path: Path) -> tuple[Path, np.ndarray]:
    """A stochastic block model: two groups of forty, dense inside, sparse between."""
    rng = np.random.default_rng(4)
    side = np.arange(80) % 2
    A = np.triu(rng.random((80, 80)) < np.where(side[:, None] == side, 0.3, 0.02), 1).astype(float)
    return write_graph(path, sparse.csr_matrix(A + A.T)), side


@pytest.mark.parametrize("method", ["walks", "factorise"])
def test_two_blocks_are_separated(tmp_path: Path, method: str) -> None:
    path, side = blocks(tmp_path / "blocks.csv")
    make = lambda seed: GraphNode2Vec(str(path), dim=8, method=method, seed=seed, q=1.0).compute(None, None)  # noqa: E731
    table = make(0)
    group = side[[int(name[1:]) for name in table.names]]
    unit = table.matrix / np.linalg.norm(table.matrix, axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = group[:, None] == group
    np.fill_diagonal(same, val=False)
    other = group[:, None] != group
    assert cosine[same].mean() > cosine[other].mean() + 0.2
    nearest = np.argsort(-(cosine - 2 * np.eye(len(cosine))), axis=1)[:, 0]
    assert (group[nearest] == group).mean() > 0.95
    assert np.array_equal(table.matrix, make(0).matrix)
    assert np.array_equal(table.matrix, make(1).matrix) == (method == "factorise")


def test_skip_gram_does_not_depend_on_threads() -> None:
    walks = biased_walks(random_graph(400, 4000), 10, 20, 1.0, 1.0, np.random.default_rng(0))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(skip_gram(walks, 400, 100, 5, 5, 1, 0.1, np.random.default_rng(0)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_skip_gram_approaches_its_optimum() -> None:
    """Levy and Goldberg (2014), equation 7: at the optimum u_c . v_o is ln P(o | c) - ln P_noise(o) - ln(negative)."""
    A = random_graph(12, 20, seed=1)
    walks = biased_walks(A, 300, 20, 1.0, 1.0, np.random.default_rng(3))
    centre, context = skip_gram(walks, 12, 12, 1, 2, 20, 0.1, np.random.default_rng(1))
    degree = A.toarray().sum(axis=1)
    noise = degree**0.75 / (degree**0.75).sum()
    near = A.toarray() > 0
    expected = np.log(np.where(near, A.toarray() / degree[:, None] / noise, 1.0)) - np.log(2)
    found = (centre @ context.T).astype(np.float64)
    assert np.corrcoef(found[near], expected[near])[0, 1] > 0.95
    assert np.abs(found - expected)[near].mean() < 0.15
    assert found[~near].max() < expected[near].min()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphWavelet(kernel="haar"), "got 'haar'"),
        (lambda: GraphWavelet(mode="roles"), "got 'roles'"),
        (lambda: GraphWavelet(scales=[1, 0]), r"got \[1, 0\]"),
        (lambda: GraphWavelet(scales=[1e9]), r"up to 1e\+06, got \[1000000000.0\]"),
        (lambda: GraphWavelet(scales=["1"]), r"got \['1'\]"),
        (lambda: GraphWavelet(landmarks="5"), "integer >= 1 or null, got '5'"),
        (lambda: EdgeList(to="hgnc"), "EdgeList: to must be symbol, ensembl, entrez or null, got 'hgnc'"),
        (lambda: GraphWavelet(mode="structure", dim=3), "got 3 for 2 scales"),
        (lambda: GraphWavelet(landmarks=0), "got 0"),
        (lambda: GraphNode2Vec(method="deepwalk"), "got 'deepwalk'"),
        (lambda: GraphNode2Vec(p=2), "got p=2 and q=1.0"),
        (lambda: GraphNode2Vec(window=0), "'window': 0"),
        (lambda: GraphNode2Vec(window=2.5), "integers >= 1, got {'window': 2.5}"),
        (lambda: GraphNode2Vec(method="walks", length="8"), "got {'length': '8'}"),
        (lambda: GraphNode2Vec(method="walks", q="1"), "got 40, 1.0, 1"),
        (lambda: GraphNode2Vec(method="walks", rank=5), "rank belongs to method factorise .*, got 5"),
        (lambda: GraphNode2Vec(walks=3, rate=0.5), "belong to method walks.*got {'walks': 3, 'rate': 0.5}"),
        (lambda: GraphNode2Vec(method="walks", q=0), "got 40, 1.0, 0"),
    ],
)
def test_bad_parameters_are_explained(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
