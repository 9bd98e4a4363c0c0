"""Compounds: fingerprints against rdkit called another way, published values, and hand-computed target vectors."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny.chemistry import DRUGS, params

from embbench.checks import failures
from embbench.core import Embedding, UserError
from embbench.embeddings import fingerprint
from embbench.embeddings._compounds import read_smiles, same_structure
from embbench.embeddings.compound_targets import ACTIONS, CompoundTargets, target_table
from embbench.embeddings.fingerprint import DESCRIPTORS, KINDS, LOGGED, Fingerprint

pytest.importorskip("rdkit", reason="needs rdkit: pip install rdkit")
from rdkit import Chem, DataStructs
from rdkit.Chem import Descriptors, MACCSkeys, rdMolDescriptors

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "expression"
OP3, TAHOE = (
    SHARED / f"{name}.h5ad" for name in ("op3_neurips2023_rankscores_135drugs_4celltypes", "tahoe_rankscores_10lines")
)


def molecule(name: str) -> Chem.Mol:
    return Chem.MolFromSmiles(DRUGS[name][0])


def table_of(folder: Path, text: str, name: str = "t.tsv") -> str:
    """A small table with ``|`` for tabs."""
    (folder / name).write_text(text.replace("|", "\t") + "\n", encoding="utf-8")
    return str(folder / name)


@pytest.fixture(scope="module")
def drugs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return params(tmp_path_factory.mktemp("drugs"))["embeddings/morgan"]["source"]


# Fingerprints


@pytest.mark.parametrize("name", DRUGS)
def test_the_committed_structures_have_the_published_formula(name: str) -> None:
    assert rdMolDescriptors.CalcMolFormula(molecule(name)) == DRUGS[name][1]


LEGACY: dict[str, tuple[dict[str, Any], Callable[[Chem.Mol], Any]]] = {
    "bits": ({}, lambda m: rdMolDescriptors.GetMorganFingerprintAsBitVect(m, 2, nBits=2048)),
    "counts": ({"counts": True}, lambda m: rdMolDescriptors.GetHashedMorganFingerprint(m, 2, nBits=2048)),
    "narrow": ({"radius": 3, "bits": 512}, lambda m: rdMolDescriptors.GetMorganFingerprintAsBitVect(m, 3, nBits=512)),
    "chiral": (
        {"chirality": True},
        lambda m: rdMolDescriptors.GetMorganFingerprintAsBitVect(m, 2, nBits=2048, useChirality=True),
    ),
    "pairs": ({"kind": "atom_pair"}, lambda m: rdMolDescriptors.GetHashedAtomPairFingerprint(m, nBits=2048)),
    "pair counts": (
        {"kind": "atom_pair", "counts": True},
        lambda m: rdMolDescriptors.GetHashedAtomPairFingerprint(m, nBits=2048),
    ),
    "paths": ({"kind": "rdkit", "bits": 1024}, lambda m: Chem.RDKFingerprint(m, fpSize=1024)),
}


@pytest.mark.parametrize("case", LEGACY)
def test_hashed_fingerprints_are_those_of_the_older_functions(case: str, drugs: str) -> None:
    """rdkit's functions of before the generators, and another way to numpy."""
    given, legacy = LEGACY[case]
    table = Fingerprint(drugs, **given).compute(list(DRUGS), None)
    assert table.names.tolist() == list(DRUGS)
    for name, vector in zip(table.names.tolist(), table.matrix, strict=True):
        expected = np.zeros(0)
        DataStructs.ConvertToNumpyArray(legacy(molecule(name)), expected)
        expected = np.minimum(expected, np.inf if given.get("counts") else 1)
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, expected)


def test_tanimoto_of_the_vectors_is_that_of_datastructs(drugs: str) -> None:
    X = Fingerprint(drugs).compute(list(DRUGS), None).matrix.astype(np.float64)
    both = X @ X.T
    found = both / (X.sum(1)[:, None] + X.sum(1)[None] - both)
    prints = [Chem.rdFingerprintGenerator.GetMorganGenerator(2).GetFingerprint(molecule(n)) for n in DRUGS]
    expected = [DataStructs.BulkTanimotoSimilarity(one, prints) for one in prints]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["morgan", "rdkit"])
def test_drugs_of_one_class_are_nearest(kind: str, drugs: str) -> None:
    names = list(DRUGS)
    X = Fingerprint(drugs, kind=kind).compute(names, None).matrix.astype(np.float64)
    both = X @ X.T
    tanimoto = both / (X.sum(1)[:, None] + X.sum(1)[None] - both) - 2 * np.eye(len(X))
    nearest = {name: names[i] for name, i in zip(names, tanimoto.argmax(1), strict=True)}
    for a, b in [("imatinib", "nilotinib"), ("sorafenib", "regorafenib"), ("selumetinib", "binimetinib")]:
        assert (nearest[a], nearest[b]) == (b, a)
    assert nearest["cytarabine"] == "gemcitabine"


def test_maccs_keys_are_the_public_166(tmp_path: Path) -> None:
    """Benzene sets aromatic (162), six-membered ring (163), ring (165); pyridine also N (161), aniline-free."""
    source = table_of(tmp_path, "name|smiles\nbenzene|c1ccccc1\nmethanol|CO\nimatinib|" + DRUGS["imatinib"][0])
    table = Fingerprint(source, kind="maccs").compute(["benzene", "methanol", "imatinib"], None)
    assert table.matrix.shape == (3, 166)
    keys = [set((np.flatnonzero(row) + 1).tolist()) for row in table.matrix]
    assert keys[0] == {162, 163, 165}
    assert {139, 157, 160, 164} <= keys[1]  # O-H, C-O, CH3, O
    assert not keys[1] & {161, 162, 163, 165}
    assert keys[2] == set(MACCSkeys.GenMACCSKeys(molecule("imatinib")).GetOnBits())


def test_descriptors_are_published_values(drugs: str) -> None:
    """PubChem, CID 5291 (imatinib): 493.6 g/mol, TPSA 86.3, 2 donors, 7 acceptors, 7 rotatable bonds."""
    table = Fingerprint(drugs, kind="descriptors").compute(["imatinib"], None)
    value = dict(zip(DESCRIPTORS, table.matrix[0].astype(float), strict=True))
    assert np.expm1(value["MolWt"]) == pytest.approx(493.6, abs=0.05)
    assert np.expm1(value["TPSA"]) == pytest.approx(86.3, abs=0.05)
    assert [value[n] for n in ("NumHDonors", "NumHAcceptors", "NumRotatableBonds", "RingCount")] == [2, 7, 7, 5]
    assert table.provenance["descriptors_version"] == 1


def test_descriptors_are_rdkits_one_by_one(drugs: str) -> None:
    table = Fingerprint(drugs, kind="descriptors").compute(list(DRUGS), None)
    for name, vector in zip(table.names.tolist(), table.matrix, strict=True):
        plain = Descriptors.CalcMolDescriptors(molecule(name))
        logged = {k: np.copysign(np.log1p(abs(plain[k])), plain[k]) for k in LOGGED}
        np.testing.assert_allclose(vector, [{**plain, **logged}[k] for k in DESCRIPTORS], rtol=1e-6, atol=1e-6)
    assert len(DESCRIPTORS) == len(set(DESCRIPTORS)) == 196
    assert "darinaparsin" in table.names.tolist()  # arsenic: rdkit's charge descriptors are not a number there


def test_a_compound_without_a_finite_descriptor_is_absent(drugs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the charge descriptors in the list the arsenic compound drops out, and only it."""
    monkeypatch.setattr(fingerprint, "DESCRIPTORS", (*DESCRIPTORS, "MaxPartialCharge"))
    table = Fingerprint(drugs, kind="descriptors").compute(["darinaparsin", "imatinib"], None)
    assert table.names.tolist() == ["imatinib"]
    assert table.provenance["not_finite"] == {"count": 1, "examples": ["darinaparsin"]}


SALTS = {
    "tofacitinib citrate": DRUGS["tofacitinib"][0] + ".C(C(=O)O)C(CC(=O)O)(C(=O)O)O",
    "sodium salicylate": "[Na+].C1=CC=C(C(=C1)C(=O)[O-])O",
    "imatinib mesylate": "CS(=O)(=O)O." + DRUGS["imatinib"][0],
}


@pytest.mark.parametrize("kind", KINDS)
def test_salts_agree_with_their_parents(kind: str, tmp_path: Path) -> None:
    parents = {"tofacitinib citrate": "tofacitinib", "sodium salicylate": "salicylic acid"}
    parents["imatinib mesylate"] = "imatinib"
    rows = {**SALTS, **{name: DRUGS[name][0] for name in parents.values()}}
    source = table_of(tmp_path, "\n".join(["drug|SMILES", *(f"{n}|{s}" for n, s in rows.items())]))
    for salt, parent in parents.items():
        pair = Fingerprint(source, kind=kind).compute([salt, parent], None).matrix
        np.testing.assert_array_equal(pair[0], pair[1])
    for salt, parent in [*parents.items()][::2]:  # a sodium ion alone has no bond and no pair
        whole = Fingerprint(source, kind=kind, fragment="all").compute([salt, parent], None).matrix
        assert not np.array_equal(whole[0], whole[1])


def test_stereoisomers_differ_only_with_chirality(tmp_path: Path) -> None:
    source = table_of(tmp_path, "name|smiles\nL|C[C@@H](C(=O)O)N\nD|C[C@H](C(=O)O)N")
    for kind in ("morgan", "atom_pair"):
        a, b = Fingerprint(source, kind=kind).compute(["L", "D"], None).matrix
        c, d = Fingerprint(source, kind=kind, chirality=True).compute(["L", "D"], None).matrix
        assert np.array_equal(a, b)
        assert not np.array_equal(c, d)


# Names and tables


def test_names_are_found_as_screens_write_them(tmp_path: Path) -> None:
    rows = "Imatinib|CC\n(+)-JQ1|CCC\nTofacitinib  Citrate|CCCC\nAZD1|CO\nazd1|CN\nBay 1|CO\nbay 1|OC\n5-Me|C\n5-me|CF"
    source = table_of(tmp_path, "Compound Name|Canonical SMILES\n" + rows)
    asked = ["imatinib ", "(+)-JQ1", "tofacitinib citrate", "AZD1", "Azd1", "BAY 1", "nobody", "5-me", "5-ME"]
    table = Fingerprint(source, bits=64).compute(asked, None)
    assert table.names.tolist() == ["imatinib ", "(+)-JQ1", "tofacitinib citrate", "AZD1", "BAY 1", "5-me"]
    facts = table.provenance
    assert facts["matched"] == 6
    assert facts["matched_by_folding"]["examples"] == ["imatinib ", "tofacitinib citrate", "BAY 1"]
    assert facts["ambiguous_names"]["examples"] == ["Azd1", "5-ME"]
    for name in asked:  # each alone as in company
        alone = Fingerprint(source, bits=64).compute([name], None)
        np.testing.assert_array_equal(alone.lookup([name])[0], table.lookup([name])[0])


def test_what_has_no_vector_is_absent_and_counted(drugs: str, capfd: pytest.CaptureFixture[str]) -> None:
    table = Fingerprint(drugs).compute(["broken", "TL_HRAS26", "NOTADRUG1", "imatinib"], None)
    assert table.names.tolist() == ["imatinib"]
    assert table.provenance["invalid_smiles"] == {"count": 1, "examples": ["broken"]}
    assert table.provenance["without_smiles"] == {"count": 1, "examples": ["TL_HRAS26"]}
    assert capfd.readouterr().err == "", "rdkit's log lines must stay silent"
    Chem.MolFromSmiles("C1CC(")
    assert "SMILES Parse Error" in capfd.readouterr().err, "and come back afterwards"


def test_names_that_the_table_lacks_give_an_empty_table(drugs: str) -> None:
    for kind in KINDS:
        made = Fingerprint(drugs, kind=kind)
        assert made.compute(["NOTADRUG1"], None).matrix.shape == (0, made.width)


@pytest.mark.parametrize(
    ("name", "separator"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv.gz", ","), ("t.tsv.gz", "\t")]
)
def test_tables_are_read_as_people_write_them(name: str, separator: str, tmp_path: Path) -> None:
    """BOM, CRLF, quotes, empty lines, other columns, repeats of one structure in another notation."""
    rows = [["id", "Pert-Name", "Isomeric_SMILES", "smiles"], ["1", '"a, b"', "OCC", "x"], ["2", "c", " C ", "x"], []]
    rows += [["3", "a, b" if separator == "\t" else '"a, b"', "C(O)C", "x"]]
    text = "\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n"
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read_smiles(tmp_path / name, None, None) == (["a, b", "c"], ["OCC", "C"])
    assert read_smiles(tmp_path / name, "id", "SMILES")[0] == ["1", "2", "3"]


def test_equal_structures() -> None:
    assert same_structure("C1=CC=CC=C1", "c1ccccc1")
    assert not same_structure("C[C@@H](C(=O)O)N", "C[C@H](C(=O)O)N")
    assert not same_structure("C1CC(", "C1CC((")


@dataclass(frozen=True)
class Bad:
    """A table that cannot be read, and what its message says."""

    text: str
    says: str
    given: tuple[tuple[str, str], ...] = ()
    file: str = "t.tsv"


SMILES_TABLES = {
    "no rows": Bad("name|smiles", "one line per compound, found 1 lines"),
    "suffix": Bad("name|smiles\na|C", "found suffix '.xlsx'", file="t.xlsx"),
    "no column": Bad("name|structure\na|C", "smiles.* for the SMILES, found none in name, structure"),
    "no names": Bad("id|smiles\na|C", "for the compound names, found none in id, smiles"),
    "absent column": Bad("name|smiles\na|C", "expected a column 'inchi'", (("smiles", "inchi"),)),
    "twice": Bad("name|smiles|SMILES\na|C|C", "found 2 of that name"),
    "ragged": Bad("name|smiles\na|C|C", "line 2: expected 2 fields as in the header, found 3"),
    "quotes": Bad('name|smiles\n"a|C\nb|C', "matching quotes"),
    "nameless": Bad("name|smiles\na|C\n |CC", "line 3: expected a compound name, found none beside 'CC'"),
    "two structures": Bad("name|smiles\na|C\nb|C\na|CC", "line 4: compound 'a' has two structures, C and CC"),
    "all blank": Bad("name|smiles\na|NA\nb|-666", "found 2 names and no SMILES"),
    "not smiles": Bad("name|smiles\na|hello\nb|world", "none among 2 compounds, e.g. 'a' has 'hello'"),
}


@pytest.mark.parametrize("case", SMILES_TABLES)
def test_malformed_smiles_tables(case: str, tmp_path: Path) -> None:
    bad = SMILES_TABLES[case]
    with pytest.raises(UserError, match=bad.says):
        Fingerprint(table_of(tmp_path, bad.text, bad.file), **dict(bad.given)).compute(None, None)


@pytest.mark.parametrize("made", [Fingerprint, lambda source: CompoundTargets(GENES, source)])
def test_files_that_are_no_tables(made: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "b.tsv").write_bytes(b"\xff\xfe\x00name")
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress(b"name\tsmiles\n" * 99)[:30])
    for name, says in [
        ("none.tsv", "found nothing"),
        (".", "found a folder"),
        ("b.tsv", "UTF-8"),
        ("c.tsv.gz", "ended"),
    ]:
        with pytest.raises(UserError, match=says):
            made(str(tmp_path / name)).compute(None, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "ecfp"}, "kind must be one of morgan, .* got 'ecfp'"),
        ({"fragment": "first"}, "fragment must be one of largest, all, got 'first'"),
        ({"radius": -1}, "radius must be an integer >= 0, got -1"),
        ({"bits": 0}, "bits must be an integer >= 1, got 0"),
        ({"bits": True}, "bits must be an integer >= 1, got True"),
        ({"kind": "maccs", "counts": True}, "maccs takes no counts"),
        ({"kind": "rdkit", "radius": 2}, "rdkit takes no radius, got 2"),
        ({"kind": "descriptors", "chirality": True}, "descriptors takes no chirality"),
    ],
)
def test_parameters_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fingerprint("drugs.tsv", **given)


# Targets

GENES = Embedding(
    np.array(["BRAF", "RAF1", "MAP2K1", "KMT2A"]),
    np.array([[1.0, 0], [3, 4], [-2, 8], [5, 5]], np.float32),
    "gene",
    provenance={"source": "toy"},
)
LISTS = "drug|target_genes\nsorafenib|BRAF;RAF1;NOTAGENE1\ntrametinib|MEK1, MAP2K1\nold|MLL\nnone|\nlost|NOTAGENE1|\n"


@pytest.mark.parametrize(
    ("combine", "expected"), [("mean", [[2, 2], [-2, 8]]), ("sum", [[4, 4], [-2, 8]]), ("max", [[3, 4], [-2, 8]])]
)
def test_targets_are_combined_by_hand(combine: str, expected: list[list[float]], tmp_path: Path) -> None:
    """MEK1 is an alias of MAP2K1 (one target), MLL of KMT2A; a target without vector is left out of the mean."""
    source = table_of(tmp_path, LISTS.replace("NOTAGENE1|", "NOTAGENE1"))
    made = CompoundTargets(GENES, source, combine)
    table = made.compute(["trametinib", "Sorafenib", "OLD", "lost", "none", "nobody"], None)
    assert table.names.tolist() == ["trametinib", "Sorafenib", "OLD"]
    np.testing.assert_array_equal(table.lookup(["Sorafenib", "trametinib"])[0], expected)
    np.testing.assert_array_equal(table.lookup(["OLD"])[0], [[5, 5]])
    assert table.entity == "compound"
    facts = table.provenance
    assert facts["source"] == "toy"
    assert facts["targets_with_vector"] == 4
    assert facts["targets_without_vector"] == {"count": 1, "examples": ["NOTAGENE1"]}
    assert facts["compounds_without_vector"] == {"count": 1, "examples": ["lost"]}
    assert facts["compounds_without_target"] == {"count": 1, "examples": ["none"]}
    assert made.compute(None, None).names.tolist() == ["sorafenib", "trametinib", "old"]


def test_weights_and_signs_by_hand(tmp_path: Path) -> None:
    rows = (
        "a|BRAF|2|inhibitor\na|RAF1|1|Positive Allosteric-Modulator\na|MAP2K1|9|binder\nb|RAF1|0|agonist\nc|BRAF|3|\n"
    )
    source = table_of(tmp_path, "compound|gene|weight|action\n" + rows)
    plain = CompoundTargets(GENES, source, strength="none").compute(None, None)
    np.testing.assert_allclose(plain.lookup(["a"])[0], [[2 / 3, 4]])
    weighted = CompoundTargets(GENES, source).compute(None, None)  # `weight` is found by its name
    np.testing.assert_allclose(weighted.lookup(["a"])[0], [[(2 + 3 - 18) / 12, (4 + 72) / 12]], rtol=1e-6)
    assert weighted.names.tolist() == ["a", "c"]  # a weight of nothing is no target
    signed = CompoundTargets(GENES, source, action="action").compute(None, None)
    np.testing.assert_allclose(signed.lookup(["a"])[0], [[(-2 + 3) / 3, 4 / 3]], rtol=1e-6)
    assert signed.names.tolist() == ["a"]
    assert signed.provenance["pairs_without_direction"] == 2
    highest = CompoundTargets(GENES, source, "max", action="action").compute(None, None)
    np.testing.assert_array_equal(highest.lookup(["a"])[0], [[3, 4]])


def test_contextual_genes_give_contextual_compounds(tmp_path: Path) -> None:
    source = table_of(tmp_path, "compound|target\na|X;Y\nb|Y")
    names, contexts = np.array(["X", "X", "Y"]), np.array(["K562", "RPE1", "RPE1"])
    of = Embedding(names, np.array([[1.0], [2], [4]], np.float32), "gene", contexts)
    table = CompoundTargets(of, source).compute(["b", "a"], None)
    found = dict(zip(zip(table.names.tolist(), table.contexts.tolist(), strict=True), table.matrix[:, 0], strict=True))
    assert found == {("a", "K562"): 1, ("a", "RPE1"): 3, ("b", "RPE1"): 4}


def test_inner_names_need_no_embedding(tmp_path: Path) -> None:
    made = CompoundTargets(
        None, table_of(tmp_path, "name|targets\na|MEK1;BRAF\nb|ENSG00000157764|\n".replace("|\n", "\n"))
    )
    assert made.inner_names() == ("BRAF", "MAP2K1")
    with pytest.raises(ValueError, match="needs the gene embedding"):
        made.compute(None, None)


TARGET_TABLES = {
    "no column": Bad("name|protein\na|X", "for the target genes, found none in name, protein"),
    "nameless": Bad("name|gene\n|X", "line 2: expected a compound name, found none beside 'X'"),
    "no target": Bad("name|gene\na|\nb|-", "found none for 2 compounds"),
    "weight": Bad("name|gene|weight\na|X|strong", "line 2: expected a finite weight, found 'strong'"),
    "nan": Bad("name|gene|weight\na|X|nan", "expected a finite weight, found 'nan'"),
    "empty weight": Bad("name|gene|weight\na|X|", "expected a finite weight, found ''"),
    "no strength": Bad("name|gene\na|X", "a column 'pKd' for the strength of targets", (("strength", "pKd"),)),
    "action": Bad("name|gene|moa\na|X|tickler", "found 'tickler'", (("action", "moa"),)),
    "no inhibitor": Bad("name|gene|moa\na|X|non-inhibitor", "found 'non-inhibitor'", (("action", "moa"),)),
    "conflict": Bad("name|gene|weight\na|BRAF|1\na|BRAF|2", "line 3: compound 'a' has two weights for target BRAF"),
    "spellings": Bad("name|gene|weight\na|MEK1|1\na|MAP2K1|2", "two weights for target MAP2K1, 1 and 2"),
    "huge": Bad("name|gene|weight\na|RAF1|1e200", "the weights weight overflow", (("combine", "sum"),)),
}


@pytest.mark.parametrize("case", TARGET_TABLES)
def test_malformed_target_tables(case: str, tmp_path: Path) -> None:
    bad = TARGET_TABLES[case]
    with pytest.raises(UserError, match=bad.says):
        CompoundTargets(GENES, table_of(tmp_path, bad.text, bad.file), **dict(bad.given)).compute(None, None)


def test_repeats_of_one_weight_are_one_target(tmp_path: Path) -> None:
    source = table_of(tmp_path, "name|gene|act\na|MEK1|inhibitor\na|MAP2K1|blocker\na|BRAF|unknown")
    assert target_table(Path(source), action="act").weights == {"a": {"MAP2K1": -1.0}}
    assert set(ACTIONS.values()) == {-1, 0, 1}


@pytest.mark.parametrize(
    ("action", "sign"),
    [
        ("Potassium channel blocker", -1),
        ("antisense inhibitor", -1),
        ("PARTIAL INVERSE AGONIST", -1),
        ("gene editing negative modulator", -1),
        ("full agonist", 1),
        ("adrenergic receptor agonist", 1),
        ("Cross-linking agent", None),
        ("hydrolytic enzyme", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_actions_are_read_from_their_end(action: str, sign: int | None, tmp_path: Path) -> None:
    source = table_of(tmp_path, f"name|gene|act\na|BRAF|{action}\nb|RAF1|inhibitor")
    expected = {"b": {"RAF1": -1.0}} | ({} if sign is None else {"a": {"BRAF": float(sign)}})
    assert target_table(Path(source), action="act").weights == expected


def test_target_parameters_are_checked() -> None:
    compounds = Embedding(np.array(["a"]), np.ones((1, 1), np.float32), "compound")
    for given, says in [
        ({"of": GENES}, "source must be a table"),
        ({"of": GENES, "source": "t.tsv", "combine": "median"}, "combine must be one of mean, sum, max, got 'median'"),
        ({"of": "go", "source": "t.tsv"}, "of must be an Embedding, got str"),
        ({"of": compounds, "source": "t.tsv"}, "of must hold vectors of genes, got vectors of entity 'compound'"),
    ]:
        with pytest.raises(ValueError, match=says):
            CompoundTargets(**given)


# Contracts, and real screens


class OwnVocabulary(Fingerprint):
    """As if the names came from the table: runs the contracts that ``needs_names`` is excused from."""

    needs_names = False


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_keep_every_contract(kind: str, drugs: str) -> None:
    assert not failures("embeddings", lambda **more: OwnVocabulary(**{"source": drugs, "kind": kind, **more}))


def test_compound_targets_keep_every_contract(tmp_path: Path) -> None:
    source = params(tmp_path)["embeddings/compound_targets"]["source"]
    assert not failures("embeddings", lambda **more: CompoundTargets(**{"of": GENES, "source": source, **more}))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("path", "known"),
    [
        (OP3, {"Belinostat", "Imatinib", "Nilotinib", "Selumetinib", "Trametinib", "Vorinostat"}),
        (TAHOE, {"Binimetinib", "Cytarabine", "Darinaparsin", "Gemcitabine", "Regorafenib", "Salicylic acid"}),
    ],
    ids=["op3", "tahoe"],
)
def test_names_of_real_screens_are_found(path: Path, known: set[str], drugs: str) -> None:
    """These files hold names and no SMILES; their capitals differ from the table's."""
    if not path.is_file():
        pytest.skip(f"needs {path.name} beside the repository")
    import anndata

    obs = anndata.read_h5ad(path, backed="r").obs
    assert not [column for column in obs if "smiles" in column.lower()]
    table = Fingerprint(drugs).compute(sorted(set(obs["perturbation"])), None)
    assert known <= set(table.names.tolist()) <= known | {"Tofacitinib", "Trametinib"}
    assert set(table.provenance["matched_by_folding"]["examples"]) <= set(table.names.tolist())
