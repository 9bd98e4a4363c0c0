"""Gene names against the packaged tables read by pandas, known biology, and labels as screens write them."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embbench.core import UserError
from embbench.genes import DATA, gene_table, harmonise, namespace, parse_perturbation

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SOME = sorted(name for name in gene_table().symbol if name.isalnum() and len(name) > 2)[::400]


def frame(name):
    return pd.read_csv(DATA / f"{name}.tsv.gz", sep="\t", dtype=str, keep_default_na=False)


def entities(label, **kwargs):
    return parse_perturbation([label], entity_type="gene", **kwargs).entities[label]


@pytest.mark.parametrize(
    ("name", "symbol", "status"),
    [
        ("TP53", "TP53", "exact"),
        ("ENSG00000141510", "TP53", "ensembl"),
        ("ENSG00000141510.12", "TP53", "ensembl"),
        ("7157", "TP53", "entrez"),
        ("7157.0", "TP53", "entrez"),
        ("LOC81691", "REXO5", "entrez"),
        ("MARCH8", "MARCHF8", "alias"),
        ("H1F0", "H1-0", "alias"),
        ("C9ORF72", "C9orf72", "case"),
        ("MT-CO2", "MT-CO2", "exact"),
        ("ENSG00000198712", "MT-CO2", "ensembl"),
        ("HBD", "HBD", "exact"),
        ("MLL2", "MLL2", "ambiguous"),
        ("COX2", "COX2", "ambiguous"),
        ("ENSG00000203668", "ENSG00000203668", "ambiguous"),
        ("RP11-34P13.7", "RP11-34P13.7", "unknown"),
        ("AC118549.1", "AC118549.1", "unknown"),
        ("Actb", "Actb", "unknown"),
        ("ENSMUSG00000059552", "ENSMUSG00000059552", "unknown"),
        ("ENSG00000141510x", "ENSG00000141510x", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_one_name(name, symbol, status):
    done = harmonise([name])
    assert (done.names, done.status) == ((symbol,), (status,))


def test_every_alias_against_pandas():
    alias, symbols = frame("gene_alias"), set(frame("gene_table").symbol)
    identifiers = alias.alias.str.fullmatch(r"(LOC)?\d+|ENSG\d{11}.*")
    alias = alias[~alias.alias.isin(symbols) & ~identifiers]
    single = alias.groupby("alias").symbol.agg(["nunique", "first"])
    done = [harmonise([name]) for name in single.index[::50]]
    expected = ["alias" if n == 1 else "ambiguous" for n in single["nunique"][::50]]
    assert [d.status[0] for d in done] == expected
    want = [first if n == 1 else name for name, n, first in single[::50].itertuples()]
    assert [d.names[0] for d in done] == want


def test_identifiers_against_pandas():
    table = frame("gene_table").drop_duplicates("symbol", keep=False)
    coding = table[(table.gene_type == "protein-coding") & (table.ensembl != "")].iloc[::37]
    assert harmonise(coding.entrez.tolist()).names == tuple(coding.symbol)
    assert harmonise(coding.symbol.tolist(), to="entrez").names == tuple(coding.entrez)
    first = coding.ensembl.str.split("|").str[0]
    assert harmonise(coding.symbol.tolist(), to="ensembl").names == tuple(first)
    assert namespace(coding.symbol.tolist()) == "symbol"
    assert namespace(first.tolist()) == "ensembl"
    assert namespace(coding.entrez.tolist()) == "entrez"


def test_collision_is_reported_and_the_better_name_wins():
    done = harmonise(["MARCH8", "MARCHF8", "ENSG00000165406", "MARCH8"])
    assert done.names == ("MARCH8", "MARCHF8", "ENSG00000165406", "MARCH8")
    assert done.status == ("collision", "exact", "collision", "collision")
    assert done.report.counts == {"collision": 2, "exact": 1}
    assert done.report.unmapped == 2
    assert any("MARCH8" in line for line in done.report.lines())


def test_unknown_ensembl_keeps_its_identity_without_version():
    assert harmonise(["ENSG00000999999.3"], to="ensembl").names == ("ENSG00000999999",)
    assert harmonise(["ENSG00000999999.3"]).names == ("ENSG00000999999.3",)
    twins = harmonise(["ENSG00000182378.14", "ENSG00000182378.14_PAR_Y"], to="ensembl")
    assert twins.names == ("ENSG00000182378", "ENSG00000182378.14_PAR_Y")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(SOME), st.sampled_from(sorted(gene_table().alias)), st.text()), unique=True))
def test_different_names_stay_different(names):
    done = harmonise(names)
    assert len(set(done.names)) == len(names)
    assert harmonise(done.names).names == done.names


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(SOME), min_size=1, max_size=4), st.sampled_from(["+", "_", ",", " + ", ";", "|"]))
def test_joined_genes_come_apart_as_a_set(genes, mark):
    want = tuple(sorted(set(genes)))
    assert entities(mark.join(genes)) == want
    assert entities("+".join([*genes, "ctrl"])) == want
    assert parse_perturbation([mark.join(genes)], entity_type="compound").entities[mark.join(genes)] == (
        mark.join(genes),
    )


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("KLF1+ctrl", ("KLF1",)),
        ("ctrl+KLF1", ("KLF1",)),
        ("MAP2K6+KLF1", ("KLF1", "MAP2K6")),
        ("KLF1+KLF1", ("KLF1",)),
        ("ARID1A_NegCtrl0__ARID1A_NegCtrl0", ("ARID1A",)),
        ("NegCtrl10_NegCtrl0__NegCtrl10_NegCtrl0", ()),
        ("HLA-DRA", ("HLA-DRA",)),
        ("NKX2-1", ("NKX2-1",)),
        ("NKX2-1_HLA-DRA", ("HLA-DRA", "NKX2-1")),
        ("AC118549.1", ("AC118549.1",)),
        ("RP11-34P13.7", ("RP11-34P13.7",)),
        ("ENSG00000141510.12_ENSG00000136997", ("MYC", "TP53")),
        ("7157+4609", ("MYC", "TP53")),
        ("C4B_2", ("C4B_2",)),
        ("C4B_2+KLF1", ("C4B_2", "KLF1")),
        ("STAT2g2", ("STAT2g2",)),
        ("TP53_2", ("TP53_2",)),
        ("TP53_P1P2", ("TP53_P1P2",)),
        ("foo+KLF1", ("foo+KLF1",)),
        ("foo+ctrl", ("foo",)),
        ("MARCH1+SEPT2", ("MARCHF1", "SEPT2")),
        ("+", ("+",)),
        ("_", ("_",)),
        ("KLF1+", ("KLF1+",)),
        *[
            (name, ())
            for name in ("ctrl", "Control", "NT", "non-targeting", "non_targeting_00012", "NegCtrl0_NegCtrl0")
        ],
    ],
)
def test_gene_labels(label, found):
    assert entities(label) == found


def test_named_controls_and_measured_genes_win():
    assert entities("GFP", controls=["GFP"]) == ()
    assert entities("GFP_KLF1", controls=["GFP"]) == ("KLF1",)
    assert entities("H1F0", known_genes=["H1F0"]) == ("H1F0",)
    assert entities("RP11-34P13.7_KLF1", known_genes=["RP11-34P13.7"]) == ("KLF1", "RP11-34P13.7")


def test_compounds_are_names():
    labels = ["(+)-JQ1", "TL_HRAS26", "5-(9-Isopropyl-8-methyl)+x", "ABT-199 (GDC-0199)", "DMSO", "Dimethyl Sulfoxide"]
    parsed = parse_perturbation(labels, controls=["Dimethyl Sulfoxide"])
    assert parsed.entity_type == "compound"
    assert [parsed.entities[label] for label in labels] == [*((label,) for label in labels[:4]), (), ()]


def test_report_counts_every_label_once():
    parsed = parse_perturbation(["KLF1", "KLF1", "H1F0", "KLF1+TP53", "sgX", "ctrl", "p40"], entity_type="gene")
    counts = {"exact": 1, "alias": 1, "combination": 1, "unknown": 1, "control": 1, "ambiguous": 1}
    assert parsed.report.counts == counts
    assert parsed.report.examples["alias"] == ("H1F0 -> H1-0",)
    assert parsed.report.unmapped == 2


@pytest.mark.parametrize("bad", ["", "  ", None, float("nan")])
def test_missing_label_is_refused(bad):
    with pytest.raises(UserError, match="expected text"):
        parse_perturbation(["KLF1", bad])


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="got 'hgnc'"):
        harmonise(["TP53"], to="hgnc")
    with pytest.raises(ValueError, match="got 'drug'"):
        parse_perturbation(["TP53"], entity_type="drug")


def test_packaged_data_is_small_and_licensed():
    files = [p for p in DATA.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 8e6
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for path in DATA.glob("*.gz"):
        rows = gzip.decompress(path.read_bytes()).decode("utf-8").count("\n") - path.name.endswith(".tsv.gz")
        assert f"| `{path.name}` | {rows:,} |" in readme, path.name
    assert len(list((DATA / "licences").glob("*.txt"))) == 7


@pytest.mark.slow
@pytest.mark.shared
def test_packaged_data_is_made_by_the_script(tmp_path):
    source = SHARED / "knowledge"
    if not source.is_dir():
        pytest.skip("shared data is absent")
    import runpy

    script = runpy.run_path(str(DATA.parents[1] / "bench" / "make_data.py"))
    script["main"](source, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".h5ad":
            assert path.read_bytes() == (DATA / path.relative_to(tmp_path)).read_bytes(), path.name


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "kind", "pairs"),
    [
        ("perturbench_norman19_mcfaline23_devel.h5ad", "gene", 15),
        ("papalexi2021_eccite_lowmoi_299genes.h5ad", "gene", 0),
        ("op3_neurips2023_rankscores_135drugs_4celltypes.h5ad", "compound", 0),
        ("tahoe_rankscores_10lines.h5ad", "compound", 0),
    ],
)
def test_real_labels(file, kind, pairs):
    path = SHARED / "expression" / file
    if not path.is_file():
        pytest.skip("shared data is absent")
    import anndata

    labels = anndata.read_h5ad(path, backed="r").obs["perturbation"].astype(str).unique()
    parsed = parse_perturbation(labels)
    assert parsed.entity_type == kind
    assert sum(len(e) == 2 for e in parsed.entities.values()) == pairs
    assert parsed.report.unmapped == 0
