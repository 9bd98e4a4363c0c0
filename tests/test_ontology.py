"""GO by ontology: information content, evidence, Wang similarity and its kernel PCA; GMT files; regulons."""

from __future__ import annotations

import gzip
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from _cli import embbench
from _server import Site, serving
from scipy import sparse
from tiny import regulons as tiny

from embbench.cache.weights import fetch
from embbench.core import UserError
from embbench.embeddings._evidence import EVIDENCE
from embbench.embeddings._knowledge import DATA, RELATIONS, go_incidence, go_ontology, information_content, read_gmt
from embbench.embeddings._regulons import read_regulons
from embbench.embeddings._wang import gene_similarity, s_values, term_similarity
from embbench.embeddings.gene_sets import GeneSets, weigh
from embbench.embeddings.go_dag import GoDag, kernel_pca
from embbench.embeddings.regulons import Regulons
from embbench.genes import symbols_of

# figure 1 of Wang et al. (2007): the graph above "intracellular membrane-bound organelle", and its table 1
FIGURE = [
    ("GO:0043231", "GO:0043229", "isa"),
    ("GO:0043231", "GO:0043227", "isa"),
    ("GO:0043229", "GO:0043226", "isa"),
    ("GO:0043227", "GO:0043226", "isa"),
    ("GO:0043229", "GO:0005622", "part of"),
    ("GO:0005622", "GO:0005623", "part of"),
    ("GO:0043226", "GO:0005575", "isa"),
    ("GO:0005623", "GO:0005575", "isa"),
]
S_VALUES = {
    "GO:0043231": 1.0,
    "GO:0043229": 0.8,
    "GO:0043227": 0.8,
    "GO:0005622": 0.48,
    "GO:0005623": 0.288,
    "GO:0043226": 0.64,
    "GO:0005575": 0.512,
}
WANG = {"is_a": 0.8, "part_of": 0.6}
ANNOTATIONS = [("g1", "GO:0043231"), ("g1", "GO:0005622"), ("g2", "GO:0043229"), ("g3", "GO:0043227")]


def write_go(folder: Path, annotations: list[tuple[str, str, str]]) -> Path:
    """A folder of GO tables with the graph of `FIGURE` as CC and one BP term."""
    tables = {
        "terms": [["go_id", "term", "ontology"], *([t, t, "CC"] for t in S_VALUES), ["GO:0008150", "process", "BP"]],
        "parents": [["child", "parent", "relationship_type"], *FIGURE],
        "annotations": [
            ["symbol", "go_id", "evidence", "ontology"],
            *([g, t, e, "BP" if t == "GO:0008150" else "CC"] for g, t, e in annotations),
        ],
    }
    for name, rows in tables.items():
        with gzip.open(folder / f"go_{name}.tsv.gz", "wt") as file:
            file.write("".join("\t".join(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def small_go(tmp_path: Path) -> Path:
    return write_go(tmp_path, [(g, t, "IDA") for g, t in ANNOTATIONS] + [("g4", "GO:0008150", "IEA")])


# -- information content, evidence --------------------------------------------------------------------------------


def test_information_content_by_hand(small_go: Path) -> None:
    """Four annotations in CC: one at or below 0043231, two at or below 0043229, two below 0043227, one BP apart."""
    ic = dict(
        zip(
            go_ontology(None, None, (), small_go).terms,
            information_content(None, ("is_a", "part_of"), None, (), small_go),
            strict=True,
        )
    )
    expected = {
        "GO:0043231": math.log(4),
        "GO:0043229": math.log(2),
        "GO:0043227": math.log(2),
        "GO:0043226": math.log(4 / 3),
        "GO:0005622": math.log(4 / 3),  # itself, 0043229 and 0043231
        "GO:0005623": math.log(4 / 3),
        "GO:0005575": 0.0,
        "GO:0008150": 0.0,
    }
    assert ic.keys() == expected.keys()
    assert all(math.isclose(ic[t], v, abs_tol=1e-12) for t, v in expected.items())
    is_a = information_content("CC", ("is_a",), None, (), small_go)
    where = go_ontology("CC", None, (), small_go).terms
    assert math.isclose(is_a[where.index("GO:0005622")], math.log(4))  # part_of is not followed


def test_the_artificial_root_of_go_has_no_content() -> None:
    """``all`` is above BP, CC and MF: it counts more annotations than the branch that it is filed under."""
    options = (None, ("is_a", "part_of"), None, ())
    ic = dict(zip(go_ontology(None, None, ()).terms, information_content(*options), strict=True))
    assert ic["all"] == 0.0
    assert min(ic.values()) == 0.0


def test_information_content_of_go_equals_a_count_over_descendants() -> None:
    go = go_ontology("MF", None, ("IEA",))
    children: dict[int, set[int]] = {}
    for relation in ("is_a", "part_of"):
        pairs = go.parents[relation].tocoo()
        for child, parent in zip(pairs.row.tolist(), pairs.col.tolist(), strict=True):
            children.setdefault(parent, set()).add(child)
    annotated = Counter(go.direct.indices.tolist())

    def below(term: int) -> set[int]:
        return {term}.union(*(below(child) for child in children.get(term, ())))

    ic = information_content("MF", ("is_a", "part_of"), None, ("IEA",))
    total = sum(annotated.values())
    checked = np.flatnonzero(ic)[:: len(ic) // 40]
    for term in checked.tolist():
        assert math.isclose(ic[term], -math.log(sum(annotated[t] for t in below(term)) / total), rel_tol=1e-12)
    assert len(checked) > 10


def test_weights_change_columns_only() -> None:
    """The three weightings are the same incidence times a diagonal, rows of unit length, then an exact SVD."""
    tables = {
        w: GeneSets("go_cc", evidence=["HMP", "IC"], dim=300, min_size=2, weight=w) for w in ("idf", "ic", "none")
    }
    genes, sets, X = tables["ic"].sets()
    covered = np.flatnonzero(np.diff(X.indptr))
    terms = go_ontology("CC", ("HMP", "IC"), ()).terms
    ic = information_content("CC", ("is_a", "part_of"), ("HMP", "IC"), ())[[terms.index(s) for s in sets]]
    size = np.asarray(X.sum(axis=0)).ravel()
    expected = {"idf": np.log(len(covered) / size), "ic": ic, "none": np.ones(len(sets))}
    for name, table in tables.items():
        dense = X[covered].toarray() * expected[name]
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        got = table.compute(None, None)
        assert got.names.tolist() == [genes[i] for i in covered]
        assert np.allclose(got.matrix @ got.matrix.T, dense @ dense.T, atol=2e-5), name
    assert not np.allclose(expected["idf"], expected["ic"], atol=0.05)


def test_weight_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="ic for GO only"):
        GeneSets("reactome", weight="ic")
    with pytest.raises(ValueError, match="got 'tfidf'"):
        GeneSets("go", weight="tfidf")
    with pytest.raises(ValueError, match="got '5' and 1000"):
        GeneSets("go", min_size="5")
    assert np.allclose(weigh(sparse.csr_matrix([[1.0, 1.0]]), np.array([3.0, 4.0])).toarray(), [[0.6, 0.8]])


def test_evidence_groups_and_unknown_codes(small_go: Path) -> None:
    by_group = go_incidence("CC", ("is_a",), ("high_throughput",), ())
    by_code = go_incidence("CC", ("is_a",), EVIDENCE["high_throughput"], ())
    assert by_group[0] == by_code[0]
    assert (by_group[2] != by_code[2]).nnz == 0
    everything, curated = go_ontology("CC", None, ()), go_ontology("CC", None, ("electronic",))
    assert curated.direct.nnz < everything.direct.nnz
    assert go_ontology("CC", None, ("IEA",)).direct.nnz == curated.direct.nnz
    assert go_ontology("CC", None, ("IKR",), small_go).direct.nnz == 4  # a code of GO that nothing here has
    with pytest.raises(UserError, match=r"unknown evidence \['IAE'\].*existing codes: IDA; groups: experimental"):
        go_ontology("CC", None, ("IAE",), small_go)
    with pytest.raises(UserError, match="no annotation left"):
        go_ontology("CC", ("TAS",), (), small_go)


# -- Wang similarity ----------------------------------------------------------------------------------------------


def test_wang_published_example(small_go: Path) -> None:
    """Table 1 (S-values of GO:0043231) and the 0.7727 of section 2.2 (GO:0043231, GO:0043229)."""
    go = go_ontology("CC", None, (), small_go)
    S = s_values(go.terms, go.parents, WANG, np.arange(len(go.terms)))
    row = S[go.terms.index("GO:0043231")].toarray().ravel()
    assert {t: round(v, 6) for t, v in zip(go.terms, row, strict=True)} == S_VALUES
    a, b = (go.terms.index(t) for t in ("GO:0043231", "GO:0043229"))
    assert round(term_similarity(S, np.array([b]))[a, 0], 4) == 0.7727
    everything = term_similarity(S, np.arange(len(go.terms)))
    assert np.allclose(everything, everything.T, atol=1e-15)
    assert np.allclose(np.diag(everything), 1.0)


def test_wang_gene_similarity_by_hand(small_go: Path) -> None:
    go = go_ontology("CC", None, (), small_go)
    used = np.unique(go.direct.indices)
    S = s_values(go.terms, go.parents, WANG, used)
    K = gene_similarity(go.direct[:, used].tocsr(), S, np.arange(3))
    sim = term_similarity(S, np.arange(len(used)))
    at = {go.terms[t]: i for i, t in enumerate(used)}
    one, two, other = (at[t] for t in ("GO:0043231", "GO:0005622", "GO:0043229"))
    forward = sim[one, other] + sim[two, other]
    backward = max(sim[one, other], sim[two, other])
    assert math.isclose(K[0, 1], (forward + backward) / 3)
    assert np.allclose(K, K.T)
    assert np.allclose(np.diag(K), 1)


def brute_s(term: str, up: dict[str, list[tuple[str, float]]]) -> dict[str, float]:
    """S-values by every path upwards, no memory."""
    best: dict[str, float] = {}

    def walk(node: str, value: float) -> None:
        best[node] = max(best.get(node, 0.0), value)
        for parent, weight in up.get(node, ()):
            walk(parent, value * weight)

    walk(term, 1.0)
    return best


def brute_bma(one: set[str], two: set[str], up: dict[str, list[tuple[str, float]]]) -> float:
    values = {term: brute_s(term, up) for term in one | two}

    def sim(a: str, b: str) -> float:
        shared = values[a].keys() & values[b].keys()
        both = sum(values[a][t] + values[b][t] for t in shared)
        return both / (sum(values[a].values()) + sum(values[b].values()))

    rows = sum(max(sim(a, b) for b in two) for a in one)
    return (rows + sum(max(sim(a, b) for a in one) for b in two)) / (len(one) + len(two))


def test_similarity_of_real_genes_equals_brute_force() -> None:
    """Best-match averages of the packaged molecular functions, by loops over plain dictionaries."""

    def rows(name: str) -> list[list[str]]:
        with gzip.open(DATA / name, "rt") as file:
            return [line.rstrip("\n").split("\t") for line in file][1:]

    functions = {row[0] for row in rows("go_terms.tsv.gz") if row[2] == "MF"}
    up: dict[str, list[tuple[str, float]]] = {}
    for child, parent, relation in rows("go_parents.tsv.gz"):
        if relation in ("isa", "part of") and {child, parent} <= functions:
            up.setdefault(child, []).append((parent, {"isa": 0.8, "part of": 0.6}[relation]))
    direct: dict[str, set[str]] = {}
    for gene, term, code, ontology in rows("go_annotations.tsv.gz"):
        if ontology == "MF" and code == "IDA":
            direct.setdefault(gene, set()).add(term)
    genes, landmarks, K = GoDag("MF", evidence=["IDA"], landmarks=30).similarity()
    assert genes == sorted(direct)
    assert len(landmarks) == 30
    for g in range(0, len(genes), len(genes) // 25):
        for j in range(0, 30, 3):
            expected = brute_bma(direct[genes[g]], direct[genes[landmarks[j]]], up)
            assert math.isclose(K[g, j], expected, rel_tol=1e-12), (genes[g], genes[landmarks[j]])


def test_more_relations_and_cycles() -> None:
    ring = sparse.csr_matrix(np.array([[0.0, 1], [1, 0]]))
    with pytest.raises(UserError, match="cycle through"):
        s_values(["a", "b"], {"is_a": ring}, {"is_a": 0.8}, np.array([0]))
    contributions = {**WANG, "regulates": 0.7, "positively_regulates": 0.7, "negatively_regulates": 0.7}
    assert set(contributions) == set(RELATIONS)
    go = go_ontology("BP", ("IC",), ())
    used = np.unique(go.direct.indices)
    few = s_values(go.terms, go.parents, WANG, used)
    many = s_values(go.terms, go.parents, contributions, used)
    assert (many - few).min() >= 0
    assert many.nnz > few.nnz


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ontology": "go"}, "got 'go'"),
        ({"dim": 0}, "got 0"),
        ({"landmarks": 1}, "got 1"),
        ({"landmarks": "5"}, "integer >= 2 or null, got '5'"),
        ({"contributions": {"is_a": 1.0}}, r"is_a.: 1\.0"),
        ({"contributions": {"develops_from": 0.5}}, "develops_from"),
        ({"contributions": {}}, r"got \{\}"),
    ],
)
def test_go_dag_parameters_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GoDag(**options)


def test_kernel_pca_equals_sklearn() -> None:
    from sklearn.decomposition import KernelPCA

    X = np.random.default_rng(0).normal(size=(60, 5))
    K = np.exp(-((X[:, None] - X[None]) ** 2).sum(axis=2) / 10)
    landmarks = np.arange(0, 60, 2)
    official = KernelPCA(6, kernel="precomputed", eigen_solver="dense").fit(K[np.ix_(landmarks, landmarks)])
    expected, got = official.transform(K[:, landmarks]), kernel_pca(K[:, landmarks], landmarks, 6)
    assert np.allclose(got, expected * np.sign((got * expected).sum(axis=0)), atol=1e-9)


def test_only_the_positive_part_of_an_indefinite_kernel_counts() -> None:
    rng = np.random.default_rng(1)
    Q, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    Q = np.column_stack([np.ones(9) / 3, Q])  # centring removes the first direction
    Q, _ = np.linalg.qr(Q)
    K = Q @ np.diag([5.0, 3.0, 1.0, -2.0, -4.0, 0, 0, 0, 0]) @ Q.T
    got = kernel_pca(K, np.arange(9), 9)
    assert got.shape == (9, 2)
    assert np.allclose(got @ got.T, Q[:, 1:3] @ np.diag([3.0, 1.0]) @ Q[:, 1:3].T, atol=1e-9)


def test_go_dag_without_data_has_no_vector() -> None:
    """ND marks "nothing is known": such a gene is absent, not a point at the root."""
    known = go_ontology("MF", None, ("ND",)).genes
    only_nd = sorted(set(go_ontology("MF", ("ND",), ()).genes) - set(known))
    assert only_nd
    table = GoDag("MF", evidence=["IDA"], landmarks=20, dim=3).compute([*only_nd[:3], "TP53"], None)
    assert table.names.tolist() == ["TP53"]


def test_go_dag_is_fast_enough() -> None:
    go_ontology.cache_clear()
    start = time.process_time()
    table = GoDag("CC", exclude=["IEA", "ND", "IBA", "HDA"], landmarks=60, dim=20).compute(None, None)
    assert time.process_time() - start < 20
    assert len(table.names) > 10_000
    near, far = (table.lookup([g])[0][0] for g in ("RPL3", "GABRA1"))
    ribosome = table.lookup(["RPL5"])[0][0]
    assert np.linalg.norm(ribosome - near) < np.linalg.norm(ribosome - far)


# -- gene sets ----------------------------------------------------------------------------------------------------


def test_gmt_in_every_spelling(tmp_path: Path) -> None:
    """Descriptions with spaces, gzip, repeats, Enrichr numbers, Entrez and Ensembl identifiers, old symbols."""
    rows = [
        "A%WikiPathways_20260910%WP1%Homo sapiens\thttps://example.org/WP1\t7157\t4609\t7157",
        "B\ta note, with a comma\tENSG00000141510.12\tENSG00000136997\tENSG00000105856",
        "C\t\tTP53,1.0\tMYC,5e-05\tHBP1,-2.5E+2\t",
        "D\tna\tH1F0\tH1-0\tNOT,A,GENE\tA,1-2",
    ]
    path = tmp_path / "sets.gmt.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    genes, sets, X = read_gmt(path)
    members = [{genes[i] for i in X[:, j].tocoo().row} for j in range(4)]
    assert [s[:1] for s in sets] == ["A", "B", "C", "D"]
    assert members == [
        {"TP53", "MYC"},
        {"TP53", "MYC", "HBP1"},
        {"TP53", "MYC", "HBP1"},
        {"H1-0", "NOT,A,GENE", "A,1-2"},
    ]
    assert X.max() == 1.0


def test_pfam_is_packaged() -> None:
    table = GeneSets("pfam", min_size=2).compute(None, None)
    assert len(table.names) > 15_000
    with gzip.open(DATA / "pfam.gmt.gz", "rt") as file:
        families = {line.split("\t")[0]: set(line.rstrip("\n").split("\t")[2:]) for line in file}
    assert "JAK2" in families["PF07714"]  # the tyrosine kinase domain
    kinase, other = (np.linalg.norm(np.subtract(*table.lookup(["JAK1", g])[0])) for g in ("JAK2", "RPL3"))
    assert kinase < other


@pytest.mark.shared
def test_pfam_equals_its_source(shared_data: Path) -> None:
    with gzip.open(shared_data / "knowledge" / "orghs_pfam.tsv.gz", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    published = {(family, gene) for gene, _, family in rows if family.startswith("PF")}
    with gzip.open(DATA / "pfam.gmt.gz", "rt") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    packaged = {(line[0], gene) for line in lines for gene in line[2:]}
    renamed = {gene for _, gene in packaged - published}
    assert all(gene.startswith("MT-") for gene in renamed)
    assert len(packaged) == len(published)


# -- regulons -----------------------------------------------------------------------------------------------------


def dense_regulons(pairs: list[tuple[str, str, float]], genes: list[str]) -> np.ndarray:
    R = np.zeros((len(genes), len(genes)))
    for regulator, target, strength in pairs:
        R[genes.index(regulator), genes.index(target)] = strength
    return R


def test_regulons_equal_a_dense_svd(tmp_path: Path) -> None:
    tiny.collectri(tmp_path / "CollecTRI.csv")
    table = Regulons(str(tmp_path / "CollecTRI.csv"), dim=5).compute(None, None)
    pairs = [(r, t, float(w)) for r, t, w in tiny.edges()]
    genes = sorted({gene for r, t, _ in pairs for gene in (r, t)})
    assert table.names.tolist() == genes
    R = dense_regulons(pairs, genes)
    with np.errstate(divide="ignore"):
        left, right = (np.where(d > 0, 1 / np.sqrt(d), 0) for d in (abs(R).sum(axis=1), abs(R).sum(axis=0)))
    U, s, Vt = np.linalg.svd(left[:, None] * R * right)
    expected = np.hstack([U[:, :5] * np.sqrt(s[:5]), Vt[:5].T * np.sqrt(s[:5])])
    flips = np.tile(np.sign((table.matrix[:, :5] * expected[:, :5]).sum(axis=0)), 2)
    assert np.allclose(table.matrix, expected * flips, atol=1e-5)
    assert table.provenance["negative"] == sum(w < 0 for *_, w in pairs)
    product = table.matrix[:, :5] @ table.matrix[:, 5:].T  # the two halves give the matrix back
    assert np.allclose(product, (U[:, :5] * s[:5]) @ Vt[:5], atol=1e-5)


def test_regulon_sides_and_filters(tmp_path: Path) -> None:
    tiny.collectri(tmp_path / "c.csv")
    regulators = Regulons(str(tmp_path / "c.csv"), side="regulator", dim=3).compute(None, None)
    assert set(regulators.names.tolist()) == set(tiny.REGULATORS)
    assert regulators.matrix.shape[1] == 3
    targets = Regulons(str(tmp_path / "c.csv"), side="target", dim=3).compute(None, None)
    assert set(targets.names.tolist()) == {t for _, t, _ in tiny.edges()}
    assert symbols_of(["AP1"]) == {"AP1": "JUN"}  # the complex would be taken for a gene
    with_complexes = Regulons(str(tmp_path / "c.csv"), leave_out=()).matrix()[0]
    assert {"JUN", "NFKB"} <= set(with_complexes)
    R = Regulons(str(tmp_path / "c.csv"), min_targets=12).matrix()[1]
    assert min(n for n in np.diff(R.indptr) if n) >= 12
    with pytest.raises(UserError, match=">= 99 targets"):
        Regulons(str(tmp_path / "c.csv"), min_targets=99).matrix()


def test_regulon_layouts(tmp_path: Path) -> None:
    tiny.dorothea(tmp_path / "d.tsv")
    tiny.scenic(tmp_path / "s.tsv")
    doro = read_regulons(tmp_path / "d.tsv")
    assert list(zip(doro.source, doro.target, doro.strength, strict=True)) == [
        (r, t, float(w)) for r, t, w in tiny.edges()
    ]
    some = read_regulons(tmp_path / "d.tsv", confidence=["A", "B"])
    assert len(some.source) == sum(i % 5 < 2 for i in range(len(tiny.edges())))
    scenic = read_regulons(tmp_path / "s.tsv")
    assert (scenic.strength > 0).all()
    likely = "tf,target,mor,likelihood\nMYC,MAX,-1,0.5\nMYC,TP53,1,0.25\nMYC,EGFR,1,0\n"
    (tmp_path / "l.csv").write_text(likely)
    both = read_regulons(tmp_path / "l.csv", weight="likelihood")
    assert both.strength.tolist() == [-0.5, 0.25]  # sign of mor, strength 0 left out
    (tmp_path / "r.csv").write_text("source,target,weight\nH1F0,TP53,1\nH1-0,TP53,0.5\nMYC,7157,-1\n")
    genes, R = Regulons(str(tmp_path / "r.csv")).matrix()
    assert genes == ["H1-0", "MYC", "TP53"]
    assert R.toarray().tolist() == [[0, 0, 0.75], [0, 0, -1], [0, 0, 0]]


def test_regulon_rows_do_not_shift(tmp_path: Path) -> None:
    """A field too many is an error in the first row and later; separators at the end of every row are none."""
    for rows in ("MYC\tTP53\t1\t3\n", "MYC\tTP53\t1\nMYC\tMAX\t1\t3\n", "MYC\tTP53\t1\t3\nMYC\tMAX\t1\n"):
        (tmp_path / "r.tsv").write_text("source\ttarget\tweight\n" + rows)
        with pytest.raises(UserError, match=r"r\.tsv: expected a table of regulators and targets, found: "):
            read_regulons(tmp_path / "r.tsv")
    for head in ("source\ttarget\tweight\n", "source\ttarget\tweight\t\n"):
        (tmp_path / "r.tsv").write_text(head + "MYC\tTP53\t1\t\nMYC\tMAX\t-2\t\n")
        table = read_regulons(tmp_path / "r.tsv")
        assert (table.source, table.target, table.strength.tolist()) == (["MYC"] * 2, ["TP53", "MAX"], [1, -2])


def test_regulons_say_what_did_not_count(tmp_path: Path) -> None:
    rows = ["MYC,TP53,1", "MYC,P53,-1", "MYC,MAX,1", "AP1,TP53,1", "MYC,EGFR,0", ",TP53,1"]
    (tmp_path / "r.csv").write_text("\n".join(["source,target,weight", *rows]) + "\n")
    facts = Regulons(str(tmp_path / "r.csv")).compute(None, None).provenance
    assert {key: facts[key] for key in ("edges", "left_out", "cancelled")} == {
        "edges": 1,
        "left_out": 3,  # the complex, the strength 0, the row without regulator
        "cancelled": 1,  # two spellings of one target, of opposite signs
    }


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "expected a column source"),
        ("source,b\nMYC,2\n", {}, "expected a column target"),
        ("source,target,weight\nMYC,MAX,strong\n", {}, "'strong'"),
        ("source,target,weight\nMYC,MAX,inf\n", {}, "'inf'"),
        ("source,target,weight\nMYC,MAX,0\n", {}, "other than 0"),
        ("source,target\n", {}, "no edge"),
        ("source,target\nMYC,MAX\n", {"weight": "mor"}, "column 'mor'"),
        ("source,target\nMYC,MAX\n", {"confidence": ["A"]}, "needs a column confidence"),
        ("tf,target,confidence,mor\nMYC,MAX,B,1\n", {"confidence": ["A"]}, r"\['A'\], found B"),
    ],
)
def test_bad_regulons_are_explained(tmp_path: Path, content: str, options: dict[str, object], message: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        Regulons(str(tmp_path / "x.csv"), **options).compute(None, None)


def test_regulons_are_never_fetched(fresh_home: Path) -> None:
    with pytest.raises(UserError, match="has not been fetched"):
        Regulons("https://example.org/CollecTRI.csv").compute(None, None)
    with pytest.raises(ValueError, match="got 0"):
        Regulons("x.csv", min_targets=0)
    assert not list(fresh_home.iterdir())


def test_regulons_are_fetched_by_the_command_line(fresh_home: Path, tmp_path: Path) -> None:
    tiny.collectri(tmp_path / "CollecTRI.csv")
    expected = Regulons(str(tmp_path / "CollecTRI.csv"), dim=4).compute(None, None)
    assert Regulons(str(tmp_path / "CollecTRI.csv")).fetched() == ()
    with serving(Site({"/CollecTRI.csv": (tmp_path / "CollecTRI.csv").read_bytes()})) as site:
        made = Regulons(f"{site.url}/CollecTRI.csv", dim=4)
        ((where, files),) = made.fetched()
        fetch(where, files, name="collectri", licence="none")
        assert np.array_equal(made.compute(None, None).matrix, expected.matrix)
    line = f"extract --dataset sim_small --model collectri:dim=4 --mirror {tmp_path}"  # the entry as packaged
    said = embbench(tmp_path, line)
    assert said.code == 0, said
    assert "weights under GPL-3.0" in said.err
    assert f"{len(expected.names)}" in said.out
