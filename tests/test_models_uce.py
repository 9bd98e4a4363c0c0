"""UCE against the official repository's outputs, its sampled sentences, and what its loader refuses."""

from __future__ import annotations

import csv
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _models import counts_of, read_counts, run_model
from scipy import sparse
from tiny import uce as tiny
from torch import nn

from embbench.core import Counts, UserError
from embbench.embeddings.models._panel import columns_of, panel_of
from embbench.embeddings.models._run import Batch
from embbench.embeddings.models._uce import sentence
from embbench.embeddings.models.uce import UCE

TOLERANCE = 1e-5
FIXTURE = {"weights": "2layer_model.torch", "heads": 4, "chromosomes": 170, "sample_size": 48, "pad_length": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uce")
    tiny.write(path)
    return path


@pytest.fixture(scope="module")
def cells() -> Counts:
    rng = np.random.default_rng(0)
    names = [*tiny.GENES, "NOTAGENE1"]
    return counts_of(rng.poisson(rng.gamma(0.4, 4.0, (9, len(names)))), np.array(names)[rng.permutation(len(names))])


def gene(folder: Path, **parameters: Any) -> UCE:
    return UCE(str(folder), level="gene", device="cpu", **{**tiny.OWN, **parameters})


@pytest.mark.shared
def test_rows_cells_and_static_equal_the_official_code(shared_data: Path) -> None:
    """From the fixture's sentences, in its batches of four, with the padding mask as the official code passes it."""
    source = shared_data / "oracles" / "uce"
    network = UCE(str(source / "checkpoint"), level="gene", soft_mask=True, **FIXTURE).network()
    genome = network.genome
    number = np.full(genome.row.max() + 1, -1)
    number[genome.row] = np.arange(len(genome.row))
    with np.load(source / "expected.npz") as expected:
        wanted = {key: expected[key] for key in expected.files}
    sums, count = np.zeros((len(genome.row), wanted["cell"].shape[1])), np.zeros(len(genome.row))
    for at in range(0, len(wanted["cell"]), 4):
        n, these = int(wanted["batch_padded_length"][at]), slice(at, at + 4)
        token, real = number[wanted["sentences"][these, :n]], wanted["mask"][these, :n] > 0
        with torch.inference_mode():
            batch = Batch((torch.from_numpy(token),), torch.zeros(len(token), 0), torch.from_numpy(real))
            rows, vectors = network.forward(batch, network.layers)
        assert np.abs(vectors.numpy() - wanted["cell"][these]).max() < TOLERANCE
        assert np.abs(rows.numpy() - wanted["decoder_rows"][these, :n]).max() < TOLERANCE
        np.add.at(sums, token[real], rows.numpy()[real])
        np.add.at(count, token[real], 1)
    place = {network.vocabulary[i]: i for i in network.genes.tolist()}
    index = [place[name] for name in wanted["gene_names"].tolist()]
    assert np.array_equal(count[index], wanted["gene_token_count"])
    seen = wanted["gene_token_count"] > 0
    mean = sums[index][seen] / count[index][seen, None]
    assert np.abs(mean - wanted["gene_mean_over_tokens"][seen]).max() < TOLERANCE
    static = network.static().numpy()[np.array(index) - genome.first]
    assert np.abs(static - wanted["static"]).max() < TOLERANCE


@pytest.mark.shared
def test_sentences_equal_the_official_sampling(shared_data: Path) -> None:
    source = shared_data / "oracles" / "uce"
    network, data = UCE(str(source / "checkpoint"), **FIXTURE).network(), read_counts(source / "counts.h5ad")
    panel = panel_of(data, *columns_of(data.genes.tolist(), network.vocabulary, network.aliases))
    stream = np.random.RandomState(71)  # the official code draws all cells from one stream
    with np.load(source / "expected.npz") as expected:
        for i, (wanted, mask) in enumerate(zip(expected["sentences"], expected["mask"], strict=True)):
            token = sentence(*panel.cell(i), network.genome, FIXTURE["sample_size"], stream)
            assert np.array_equal(network.genome.row[token], wanted[mask > 0])


def reference(state: dict[str, np.ndarray], token: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Decoded rows and ``<cls>`` vector of one sentence of table rows, by torch's own transformer layers."""
    weights = {key: torch.from_numpy(value) for key, value in state.items()}

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}

    encoder = nn.Sequential(nn.Linear(tiny.TOKEN, tiny.WIDTH), nn.GELU(), nn.LayerNorm(tiny.WIDTH))
    encoder.load_state_dict(part("encoder."))
    with torch.no_grad():
        x = encoder(nn.functional.normalize(weights["pe_embedding.weight"][torch.from_numpy(token)], dim=1))
        x = (x * tiny.WIDTH**0.5 + weights["pos_encoder.pe"][: len(token), 0])[None]
        for i in range(layers):
            layer = nn.TransformerEncoderLayer(tiny.WIDTH, 2, tiny.HIDDEN, 0.0, batch_first=True)
            layer.load_state_dict(part(f"transformer_encoder.layers.{i}."))
            x = layer(x)
        for i, (inner, outer) in enumerate(((tiny.WIDTH, 20), (20, tiny.OUT), (tiny.OUT, tiny.OUT))):
            block = nn.Sequential(nn.Linear(inner, outer), nn.LayerNorm(outer), nn.GELU())
            block.load_state_dict(part(f"decoder.{i}."))
            x = block(x)
        last = nn.Linear(tiny.OUT, tiny.OUT)
        last.load_state_dict(part("decoder.3."))
        x = last(x)[0].numpy()
    return x, x[0] / np.linalg.norm(x[0])


def test_cells_and_genes_equal_torchs_own_layers(folder: Path, cells: Counts) -> None:
    model = gene(folder)
    network, got, state = model.network(), run_model(model, cells), tiny.state()
    panel = panel_of(cells, *columns_of(cells.genes.tolist(), network.vocabulary, network.aliases))
    rows, labels = [], []
    for i in range(len(cells)):
        cell = network.cell(panel, i)
        decoded, vector = reference(state, network.genome.row[cell.fields[0]], 2)
        assert np.abs(got.cells[i] - vector).max() < TOLERANCE
        rows.append(decoded)
        labels.append(cell.label)
    rows, labels = np.concatenate(rows), np.concatenate(labels)
    for name, mean, count in zip(got.names, got.mean, got.count, strict=True):
        own = rows[labels == network.vocabulary.index(name)]
        assert len(own) == count
        assert np.abs(own.mean(axis=0) - mean).max() < TOLERANCE


def test_a_sentence_follows_the_genome(folder: Path, cells: Counts) -> None:
    network = gene(folder).network()
    places = {}
    with (folder / "species_chrom.csv").open() as file:
        for row in csv.DictReader(file):
            places[row["gene_symbol"]] = (f"{row['species']}_{row['chromosome']}", int(row["start"]))
    every = sorted({place for place, _ in places.values()})
    names = {f"<chromosome {i}>": place for i, place in enumerate(every)}
    panel = panel_of(cells, *columns_of(cells.genes.tolist(), network.vocabulary, network.aliases))
    words = [network.vocabulary[i] for i in network.cell(panel, 0).fields[0]]
    assert words[0] == "<cls>"
    assert sum(word in places for word in words) == tiny.OWN["sample_size"]
    groups = " ".join(words[1:]).split("<right>")[:-1]
    opened = []
    for group in groups:
        first, number, *genes = group.split()  # "<chromosome 7>" is two words
        opened.append(names[f"{first} {number}"])
        assert all(places[name][0] == opened[-1] for name in genes)
        assert [places[name][1] for name in genes] == sorted(places[name][1] for name in genes)
    assert len(set(opened)) == len(opened)


def test_draws_follow_the_weights(folder: Path) -> None:
    genome = gene(folder).network().genome
    genes, value = genome.first + np.arange(4), np.array([1.0, 3.0, 0.5, 40.0])
    token = sentence(genes, value, genome, 200_000, np.random.default_rng(0))
    share = np.bincount(token, minlength=len(genome.row))[genes] / 200_000
    assert np.abs(share - np.log1p(value) / np.log1p(value).sum()).max() < 5e-3


def test_batches_order_genes_and_neighbours_do_not_matter(folder: Path, cells: Counts) -> None:
    one, many = (run_model(gene(folder, batch=b), cells) for b in (1, 32))
    order = np.arange(len(cells))[::-1]
    columns = np.random.default_rng(1).permutation(len(cells.genes))
    turned = replace(cells, values=cells.values[:, columns], genes=cells.genes[columns]).rows(order)
    for got, vectors in ((many, many.cells), (run := run_model(gene(folder), turned), run.cells[order])):
        assert np.abs(vectors - one.cells).max() < TOLERANCE
        got.near(one.names, one.mean, one.count, TOLERANCE)
    assert np.abs(run_model(gene(folder, seed=1), cells).cells - one.cells).max() > 1e-3


def test_the_official_mask_depends_on_the_batch(folder: Path, cells: Counts) -> None:
    hidden, official = (run_model(gene(folder, soft_mask=s, batch=1), cells).cells for s in (False, True))
    assert np.array_equal(hidden, official)  # nothing is padded in a batch of one
    apart = [np.abs(run_model(gene(folder, soft_mask=s, batch=9), cells).cells - hidden).max() for s in (False, True)]
    assert apart[0] < TOLERANCE < 1e-4 < apart[1]


def test_every_layer(folder: Path, cells: Counts) -> None:
    widths = [run_model(gene(folder, layer=layer), cells).mean.shape[1] for layer in range(4)]
    assert widths == [tiny.WIDTH] * 3 + [tiny.OUT]
    assert gene(folder).network().default_layer == 3
    with pytest.raises(UserError, match="layer 4 does not exist, expected 0 to 3"):
        run_model(gene(folder, layer=4), cells)


def test_empty_cells_one_gene_and_half_precision(folder: Path, cells: Counts) -> None:
    few = sparse.lil_matrix((3, len(cells.genes)), dtype=np.float32)
    few[1, int(np.flatnonzero(cells.genes == "TP53")[0])] = 2
    few[2] = cells.values[0]
    got = run_model(gene(folder), counts_of(few.tocsr(), cells.genes))
    assert np.isfinite(got.cells).all()
    assert np.abs(got.cells[2] - run_model(gene(folder), cells.rows(np.arange(1))).cells[0]).max() < TOLERANCE
    for soft in (False, True):
        half = run_model(gene(folder, precision="bfloat16", soft_mask=soft), cells).cells
        whole = run_model(gene(folder, soft_mask=soft), cells).cells
        assert 0 < np.abs(half - whole).max() < 0.05


def test_logarithms_are_refused(folder: Path, cells: Counts) -> None:
    with pytest.raises(UserError, match="uce reads raw counts"):
        run_model(gene(folder), replace(cells, total=np.full(len(cells), np.nan)))


def test_names_are_found_whatever_their_case(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    proteins = next((tmp_path / "protein_embeddings").iterdir())
    old = torch.load(proteins, weights_only=True)
    torch.save({("Tp53" if key == "TP53" else key): value for key, value in old.items()}, proteins)
    network = gene(tmp_path).network()
    found, index = columns_of(["tp53", "myc"], network.vocabulary, network.aliases)
    assert [network.vocabulary[i] for i in index] == ["Tp53", "MYC"]
    assert found.tolist() == [0, 1]


def _state(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / tiny.OWN["weights"]
        state = torch.load(path, weights_only=True)
        for key, value in changes.items():
            key = key.replace("__", ".")
            state.pop(key, None)
            state |= {} if value is None else {key: value}
        torch.save(state, path)

    return change


def _text(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


def _offsets(content: Any) -> Any:
    return lambda folder: (folder / "species_offsets.pkl").write_bytes(pickle.dumps(content))


class Bomb:
    """Asks for a call when it is read."""

    def __reduce__(self) -> Any:
        return (print, ("read",))


REFUSED = [
    (_state(encoder__0__weight=None), "encoder.0.weight"),
    (_state(encoder__0__weight=torch.ones(15, tiny.TOKEN)), "2 heads divide, found .* 15"),
    (_state(gene_embedding_layer__2__bias=None), "gene_embedding_layer.2.bias"),
    (_state(pe_embedding__weight=None), "pe_embedding.weight"),
    (_state(pe_embedding__weight=torch.ones(tiny.BASE, tiny.TOKEN)), "chromosomes= sets"),
    (_state(pos_encoder__pe=torch.ones(30, 1, tiny.WIDTH)), "pad_length 40"),
    (_state(transformer_encoder__layers__1__norm2__weight=torch.ones(3)), r"norm2.weight.*found \(3,\)"),
    (_state(decoder__1__1__bias=torch.full((tiny.OUT,), float("nan"))), "NaN"),
    (_state(lm_head__weight=torch.ones(3)), "lm_head"),
    (_text("4layer_model.torch", "text"), "torch file"),
    (_text("species_chrom.csv", "a,b\n1,2\n"), "columns species"),
    (_text("species_chrom.csv", "species,gene_symbol,chromosome,start\nhuman,TP53,1,x\n"), "unreadable"),
    (_text("species_chrom.csv", "species,gene_symbol,chromosome,start\nmouse,TP53,1,5\n"), "found none"),
    (_text("species_offsets.pkl", "text"), "pickle"),
    (_offsets({"mouse": 4}), "'human' -> its first row, found None"),
    (_offsets(Bomb()), "refused"),
    (lambda folder: (folder / "species_offsets.pkl").unlink(), "no species_offsets.pkl .*figshare"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    tiny.write(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=says):
        gene(tmp_path).network()


def test_a_sentence_that_does_not_fit_is_refused(folder: Path, cells: Counts) -> None:
    with pytest.raises(UserError, match="at most pad_length=23; lower sample_size"):
        run_model(gene(folder, pad_length=23), cells)


@pytest.mark.parametrize("wrong", [{"species": "yeast"}, {"sample_size": 0}, {"pad_length": 1026}, {"heads": True}])
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="UCE"):
        UCE(**wrong)
