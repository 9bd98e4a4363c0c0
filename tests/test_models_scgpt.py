"""scGPT against the official package (scgpt 0.2.4), and what its loader refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _models import counts_of, official, run_model
from oracles import _write_scgpt

from embbench.core import Counts, UserError
from embbench.embeddings.models._run import Batch
from embbench.embeddings.models.scgpt import ScGPT, quantile_bins

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scgpt")
    _write_scgpt.write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def cells() -> Counts:
    return counts_of(*_write_scgpt.counts())


@pytest.mark.parametrize("ties", ["up", "mid", "low"])
def test_cells_and_genes_equal_the_official_package(folder: Path, cells: Counts, ties: str) -> None:
    expected = official("scgpt_official")
    got = run_model(ScGPT(str(folder), level="gene", ties=ties), cells)
    assert np.abs(got.cells - expected[f"cell_{ties}"]).max() < TOLERANCE
    got.near(expected["gene_names"], expected[f"gene_mean_{ties}"], expected["gene_count"], TOLERANCE)


@pytest.mark.parametrize("layout", ["in_proj", "Wqkv", "_impl"])
def test_every_attention_layout_gives_the_same(tmp_path: Path, folder: Path, cells: Counts, layout: str) -> None:
    _write_scgpt.write_checkpoint(tmp_path, layout=layout)
    one, two = (run_model(ScGPT(str(f), level="gene"), cells) for f in (folder, tmp_path))
    assert np.array_equal(one.mean, two.mean)


@pytest.mark.parametrize("layer", range(4))
def test_every_layer_equals_the_official_package(folder: Path, cells: Counts, layer: int) -> None:
    expected = official("scgpt_official")
    got = run_model(ScGPT(str(folder), level="gene", ties="up", layer=layer), cells)
    cls = expected["layers_cell"][layer]
    assert np.abs(got.cells - cls / np.linalg.norm(cls, axis=1, keepdims=True)).max() < TOLERANCE
    got.near(expected["gene_names"], expected["layers_gene_mean"][layer], expected["gene_count"], TOLERANCE)


def test_static_vectors_equal_the_official_encoder(folder: Path) -> None:
    expected = official("scgpt_official")
    network = ScGPT(str(folder)).network()
    place = {network.vocabulary[i]: row for row, i in enumerate(network.genes.tolist())}
    rows = [place[name] for name in expected["static_names"].tolist()]
    assert len(place) == len(_write_scgpt.KNOWN)
    assert np.abs(network.static().numpy()[rows] - expected["static"]).max() < TOLERANCE


@pytest.mark.shared
def test_the_published_vocabulary(shared_data: Path, tmp_path: Path) -> None:
    tokens = _write_scgpt.census_tokens(json.loads((shared_data / "vocab/scgpt_default_census_vocab.json").read_text()))
    _write_scgpt.write_checkpoint(tmp_path, _write_scgpt.CENSUS.seed, tokens=tokens, shape=_write_scgpt.CENSUS)
    expected = official("scgpt_official_census")
    got = run_model(ScGPT(str(tmp_path), level="gene", ties="up"), counts_of(*_write_scgpt.census_counts()))
    assert np.abs(got.cells - expected["cell_up"]).max() < TOLERANCE
    got.near(expected["gene_names"], expected["gene_mean_up"], expected["gene_count"], TOLERANCE)


@pytest.mark.shared
@pytest.mark.parametrize("case", ["expected", "expected_tiefree"])
def test_the_shared_fixture(shared_data: Path, case: str) -> None:
    from _models import read_counts

    source = shared_data / "oracles" / "scgpt"
    data = read_counts(source / ("counts_tiefree.h5ad" if "tiefree" in case else "counts.h5ad"))
    with np.load(source / f"{case}.npz") as expected:
        for layer, mean in ((None, "gene_mean"), (1, "layer1_gene_mean")):
            model = ScGPT(str(source / "checkpoint"), level="gene", ties="up", layer=layer)
            got = run_model(model, data)
            got.near(expected["gene_names"], expected[mean], expected["gene_count"], TOLERANCE)
        assert (
            np.abs(run_model(ScGPT(str(source / "checkpoint"), "gene", ties="up"), data).cells - expected["cell"]).max()
            < TOLERANCE
        )


@pytest.mark.shared
def test_a_truncated_cell_as_the_official_code_drew_it(shared_data: Path) -> None:
    source = shared_data / "oracles" / "scgpt"
    network = ScGPT(str(source / "checkpoint")).network()
    with np.load(source / "expected_truncated.npz") as expected, torch.inference_mode():
        ids, values = torch.from_numpy(expected["token_ids"]), torch.from_numpy(expected["token_values"])
        real = ids != int(network.pads[0])
        _, vectors = network.forward(Batch((ids, values), torch.zeros(len(ids), 0), real), network.layers)
        assert np.abs(vectors.numpy() - expected["cell"]).max() < TOLERANCE


def test_long_cells_keep_a_subset_that_their_content_decides(folder: Path, cells: Counts) -> None:
    whole = ScGPT(str(folder), "gene")
    short = {how: ScGPT(str(folder), "gene", max_length=12, truncate=how) for how in ("random", "top")}
    one, two = (run_model(short["random"], cells.rows(order)) for order in (np.arange(10), np.arange(10)[::-1]))
    assert np.abs(one.cells - two.cells[::-1]).max() < TOLERANCE
    assert (
        one.count.sum()
        == np.minimum(np.diff(cells.values[:, np.isin(cells.genes, _write_scgpt.KNOWN)].indptr), 11).sum()
    )
    top = run_model(short["top"], cells)
    assert np.abs(top.cells - run_model(whole, cells).cells).max() > 1e-3


def test_random_ties_are_seeded_by_content() -> None:
    values = np.array([1.0] * 40 + [2.0, 3.0, 9.0])
    one, two = (quantile_bins(values, 51, "random", np.random.default_rng(s)) for s in (0, 1))
    low, up = (quantile_bins(values, 51, ties, np.random.default_rng(0)) for ties in ("low", "up"))
    assert (low <= one).all()
    assert (one <= up).all()
    assert not np.array_equal(one, two)
    assert np.array_equal(one[-1:], up[-1:])  # the largest value equals one quantile only: nothing to draw


def _args(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "args.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _state(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        state = torch.load(folder / "best_model.pt", weights_only=True)
        for key, value in changes.items():
            key = key.replace("__", ".")
            if value is None:
                del state[key]
            else:
                state[key] = value
        torch.save(state, folder / "best_model.pt")

    return change


def _text(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


REFUSED = [
    (_args(embsize=7, nheads=1), r"expected .* of shape \(21, 7\), found"),
    (_args(nheads=7), "sizes that fit"),
    (_args(nheads=None), "sizes that fit"),
    (_args(nlayers=9), "9 layers, found 3"),
    (_args(input_emb_style="category"), "continuous"),
    (_args(pre_norm=True), "post-norm"),
    (_text("args.json", "{"), "expected JSON"),
    (_text("vocab.json", "[1]"), "JSON object"),
    (_text("vocab.json", '{"TP53": 7}'), "numbered 0 to 0"),
    (_text("best_model.pt", "text"), "torch file"),
    (_state(encoder__enc_norm__bias=None), "encoder.enc_norm.bias"),
    (_state(transformer_encoder__layers__1__norm2__weight=torch.ones(3)), r"norm2.weight.*found \(3,\)"),
    (_state(transformer_encoder__layers__0__extra=torch.ones(3)), "extra"),
    (_state(value_encoder__linear1__bias=torch.full((40,), float("nan"))), "NaN"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    _write_scgpt.write_checkpoint(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=says):
        ScGPT(str(tmp_path)).compute(None, None)


def test_without_weights_it_says_what_to_do(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"best_model\.pt.*weights.scgpt.*model zoo.*MIT.*--checkpoint"):
        ScGPT().compute(None, None)


@pytest.mark.parametrize(
    "wrong", [{"ties": "up-ish"}, {"max_length": 1}, {"level": "tissue"}, {"layer": 2}, {"metacells": 1}, {"cells": 0}]
)
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ScGPT"):
        ScGPT(**wrong)
