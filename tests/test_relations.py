"""TransE and RotatE through pykeen, against the published scoring functions; reading triples needs no pykeen."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny.relations import params, triples

from embbench.checks import checks_for, maker
from embbench.checks._toy import KNOWN, UNKNOWN
from embbench.core import UserError
from embbench.embeddings._triples import gene_triples, read_triples
from embbench.embeddings.relations import Relations, _numbers
from embbench.registry import Entry

MODELS = ("transe", "rotate")


def toy(folder: Path, model: str, **more: Any) -> Relations:
    """A small model of the toy triples."""
    return Relations(**{**params(folder)[f"embeddings/{model}"], "model": model, **more})


# -- tables of triples --------------------------------------------------------------------------------------------


def test_tables_with_and_without_header(tmp_path: Path) -> None:
    rows = [("TP53", "binds", "MDM2"), ("MYC", "in", 'a "quoted" pathway')]
    body = "\n".join("\t".join(row) for row in rows)
    texts = {
        "plain.tsv": body,
        "header.tsv": f"head\trelation\ttail\n{body}\n",
        "hetionet.tsv": f"source\tmetaedge\ttarget\r\n{body}\r\n".replace("\n", "\r\n").replace("\r\r", "\r"),
        "commas.csv": 'relation,x_name,y_name,score\nbinds,TP53,MDM2,1\nin,MYC,"a ""quoted"" pathway",2\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "packed.tsv.gz").write_bytes(gzip.compress(body.encode()))
    for name in (*texts, "packed.tsv.gz"):
        columns = ("x_name", "relation", "y_name") if name == "commas.csv" else None
        assert read_triples(tmp_path / name, columns) == rows, name


def test_two_spellings_of_a_gene_are_one_node(tmp_path: Path) -> None:
    path = tmp_path / "triples.tsv"
    path.write_text("P53\tbinds\tMDM2\n7157\tbinds\tMDM2\nTP53\tbinds\tMDM2\nTP53\tin\tapoptosis\n", encoding="utf-8")
    found, genes = gene_triples(path, None, None)
    assert found.tolist() == [["TP53", "binds", "MDM2"], ["TP53", "in", "apoptosis"]]
    assert genes == {"TP53": "TP53", "MDM2": "MDM2"}
    path.write_text("Gene::7157\tbinds\tGene::4193\nGene::7157\tin\tTP53\n", encoding="utf-8")
    found, genes = gene_triples(path, None, "Gene::")
    assert found.tolist() == [["Gene::TP53", "binds", "Gene::MDM2"], ["Gene::TP53", "in", "TP53"]]
    assert genes == {"Gene::TP53": "TP53", "Gene::MDM2": "MDM2"}


@pytest.mark.parametrize(
    ("text", "columns", "found"),
    [
        ("TP53\tbinds\n", None, "line 1: expected head, relation and tail"),
        ("TP53\tbinds\tMDM2\nTP53\t\tMYC\n", None, "line 2"),
        ("a\tb\tc\td\n", None, "line 1"),
        ("head\trelation\ttail\n", None, "found none"),
        ("a\tb\tc\n", ("x", "b", "c"), r"expected columns \['x'\]"),
        ("nobody\tknows\tthis one\n", None, "expected gene nodes, found none, e.g. 'nobody'"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, columns: tuple[str, ...] | None, found: str) -> None:
    path = tmp_path / "triples.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=found):
        gene_triples(path, columns, None)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"model": "distmult"}, "'distmult'"),
        ({"nodes": "drugs"}, "'drugs'"),
        ({"columns": ["a", "b"]}, "head, relation and tail"),
        ({"epochs": 0}, "'epochs': 0"),
        ({"margin": 0}, "0.01, 0 and 0.0"),
        ({"validation": 0.9}, "0.9"),
    ],
)
def test_wrong_parameters(given: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        Relations("triples.tsv", **given)


# -- training (needs pykeen) --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_the_published_functions(tmp_path: Path, model: str) -> None:
    pytest.importorskip("pykeen")
    extractor = toy(tmp_path, model, dim=6)
    rows, _ = gene_triples(extractor.path, None, None)
    labels, net, _ = extractor.fit(rows)
    entities = _numbers(net.entity_representations[0]).astype(np.float64)
    relation = _numbers(net.relation_representations[0]).astype(np.float64)
    ids = np.random.default_rng(0).integers(0, [len(labels), len(relation), len(labels)], (40, 3))
    h, r, t = entities[ids[:, 0]], relation[ids[:, 1]], entities[ids[:, 2]]
    if model == "transe":
        expected = -np.abs(h + r - t).sum(axis=1)
        assert np.allclose(np.linalg.norm(entities, axis=1), 1, atol=1e-5)
    else:
        h, r, t = (v[:, :3] + 1j * v[:, 3:] for v in (h, r, t))
        assert np.allclose(np.abs(r), 1, atol=1e-5)
        expected = -np.linalg.norm(h * r - t, axis=1)
    found = net.score_hrt(torch.from_numpy(ids)).detach().numpy().ravel()
    assert np.allclose(found, expected, atol=1e-5)
    table = extractor.compute(None, None)
    rows_of = [labels.index(name) for name in table.names]
    assert np.allclose(table.matrix, entities[rows_of], atol=1e-6)


def test_rotate_loss_is_equation_5(tmp_path: Path) -> None:
    pytest.importorskip("pykeen")
    rng = np.random.default_rng(0)
    positive, negative = -rng.gamma(4.0, 1.0, (5, 1)), -rng.gamma(6.0, 1.0, (5, 7))
    from pykeen.losses import NSSALoss

    weight = np.exp(negative) / np.exp(negative).sum(axis=1, keepdims=True)

    def log_sigmoid(x: np.ndarray) -> np.ndarray:
        return -np.log1p(np.exp(-x))

    # equation 5 with distances d = -score; pykeen halves the sum of its two terms
    per_triple = -log_sigmoid(6 + positive[:, 0]) - (weight * log_sigmoid(-negative - 6)).sum(axis=1)
    loss = NSSALoss(margin=6.0, adversarial_temperature=1.0)
    found = loss.process_slcwa_scores(torch.from_numpy(positive), torch.from_numpy(negative)).item()
    assert found == pytest.approx(per_triple.mean() / 2, rel=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_same_bits_whatever_the_order_and_the_global_streams_stay(tmp_path: Path, model: str) -> None:
    pytest.importorskip("pykeen")
    first = toy(tmp_path, model).compute(None, None)
    states = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    path = tmp_path / "again.tsv"
    lines = ["\t".join(triple) for triple in [*triples()[::-1], *triples()[:9]]]
    path.write_text("\n".join(lines), encoding="utf-8")
    again = toy(tmp_path, model, path=str(path)).compute(None, None)
    assert np.array_equal(first.matrix, again.matrix)
    assert not np.allclose(toy(tmp_path, model, seed=1).compute(None, None).matrix, first.matrix, atol=1e-3)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_genes_or_all_nodes(tmp_path: Path) -> None:
    pytest.importorskip("pykeen")
    genes = toy(tmp_path, "rotate").compute(None, None)
    every = toy(tmp_path, "rotate", nodes="all").compute(None, None)
    assert set(genes.names) == set(KNOWN)
    assert set(every.names) == {*KNOWN, *UNKNOWN, "pathway one", "pathway two"}
    assert np.array_equal(every.lookup(genes.names.tolist())[0], genes.matrix)
    assert genes.matrix.shape == (len(KNOWN), 4)
    assert (genes.entity, every.entity) == ("gene", "any")


@pytest.mark.parametrize("model", MODELS)
def test_training_learns_a_functional_relation(tmp_path: Path, model: str) -> None:
    """A ring: ``next`` maps every node to its neighbour, so the true tail has to come first among all nodes."""
    pytest.importorskip("pykeen")
    path, n = tmp_path / "ring.tsv", 16
    names = [*KNOWN[:n]]
    path.write_text("\n".join(f"{names[i]}\tnext\t{names[(i + 1) % n]}" for i in range(n)), encoding="utf-8")
    extractor = Relations(str(path), model=model, dim=16, epochs=200, batch_size=16, negatives=8, lr=0.05)
    rows, _ = gene_triples(path, None, None)
    labels, net, facts = extractor.fit(rows)
    ids = torch.tensor([[labels.index(h), 0] for h, _, _ in rows.tolist()])
    scores = net.score_t(ids).detach().numpy()
    true = np.array([labels.index(t) for _, _, t in rows.tolist()])
    rank = 1 + (scores > scores[np.arange(n), true][:, None]).sum(axis=1)
    assert facts["epochs"] == 200
    assert (1 / rank).mean() > 0.6  # ranks at random: 0.21


def test_early_stopping_on_held_out_triples(tmp_path: Path) -> None:
    pytest.importorskip("pykeen")
    table = toy(tmp_path, "transe", epochs=100, validation=0.2, patience=1, lr=0.05).compute(None, None)
    facts = table.provenance
    assert facts["held_out"] > 0
    assert facts["epochs"] < 100
    assert 0 < facts["validation_mrr"] <= 1


@pytest.mark.parametrize("model", MODELS)
def test_contracts(tmp_path: Path, model: str) -> None:
    pytest.importorskip("pykeen")
    given = {**params(tmp_path)[f"embeddings/{model}"], "model": model}
    entry = Entry("embeddings", model, "embbench.embeddings.relations:Relations", test=given)
    for check in checks_for("embeddings"):
        check(maker(entry))
