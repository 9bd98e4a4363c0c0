"""AIDO.Cell against the official code (shared fixture), against its equations in numpy, and what its loader refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _models import counts_of, read_counts, run_model
from safetensors.torch import load_file, save_file
from tiny.aido_cell import GENES, write

from embbench.core import Counts, UserError
from embbench.embeddings.models.aido_cell import AidoCell

TOLERANCE = 1e-5
GENE_LIST = "vocab/OS_scRNA_gene_index.19264.tsv"


def some_cells(cells: int = 4, genes: tuple[str, ...] = (*GENES[5:22], "NOTAGENE1")) -> Counts:
    rng = np.random.default_rng(4)
    return counts_of(rng.poisson(2.0, (cells, len(genes))) * rng.integers(0, 2, (cells, len(genes))), genes)


def aligned(counts: Counts) -> np.ndarray:
    """Counts of shape (cells, genes of the list), float64, 0 where a gene was not measured."""
    out = np.zeros((len(counts), len(GENES)))
    for column, name in enumerate(counts.genes.tolist()):
        if name in GENES:
            out[:, GENES.index(name)] = counts.values[:, [column]].toarray()[:, 0]
    return out


def reference(p: dict[str, np.ndarray], counts: np.ndarray, heads: int = 2, eps: float = 1e-5) -> list[np.ndarray]:
    """Hidden states 0..L of shape (cells, n + 2, d) from the equations, in float64, attention row by row."""
    p = {key: value.astype(np.float64) for key, value in p.items()}

    def linear(x: np.ndarray, key: str) -> np.ndarray:
        return x @ p[f"{key}.weight"].T + p.get(f"{key}.bias", 0.0)

    def normed(x: np.ndarray, key: str) -> np.ndarray:
        if f"{key}.bias" not in p:
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p[f"{key}.weight"]
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p[f"{key}.weight"] + p[f"{key}.bias"]

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    total = counts.sum(1, keepdims=True)
    depth = np.maximum(np.log10(total), 5).repeat(2, 1)
    x = np.concatenate([np.log1p(1e4 * counts / total), depth], 1)[..., None]
    u = linear(x, "gene_embedding.linear1")
    u = np.where(u > 0, u, 0.1 * u)
    weights = softmax(u + linear(u, "gene_embedding.linear2"))
    h = weights @ p["gene_embedding.lookup_table.weight"] + p["position_embedding.weight"]
    states = [h]
    for i in range(2):
        at, d = f"encoder.layer.{i}", h.shape[-1] // heads
        a = normed(h, f"{at}.attention.ln")
        q, k, v = (linear(a, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        seen = np.zeros_like(q)
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            seen[..., own] = softmax(q[..., own] @ k[..., own].transpose(0, 2, 1) / np.sqrt(d)) @ v[..., own]
        h = h + linear(seen, f"{at}.attention.output.dense")
        a = normed(h, f"{at}.ln")
        gate = linear(a, f"{at}.mlp.gate_proj")
        h = h + linear(gate / (1 + np.exp(-gate)) * linear(a, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
        states.append(h)
    return [*states[:-1], normed(h, "encoder.ln")]


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_it_equals_its_equations(tmp_path: Path, layer: int, *, rms: bool) -> None:
    made, data = write(tmp_path, 1, rms=rms, bias=not rms), some_cells()
    state = reference(made, aligned(data))[layer]
    present = np.array([name in data.genes for name in GENES] + [True, True])
    got = run_model(AidoCell(str(tmp_path), "gene", layer=layer), data)
    assert np.abs(got.cells - state[:, present].mean(1)).max() < TOLERANCE
    got.near(np.array(GENES), state[:, :-2].mean(0), np.full(len(GENES), len(data)), TOLERANCE)
    everything = run_model(AidoCell(str(tmp_path), "cell", layer=layer, readout="all"), data)
    assert np.abs(everything.cells - state.mean(1)).max() < TOLERANCE


def test_forms_of_the_same_weights(tmp_path: Path) -> None:
    data = some_cells()
    plain = tmp_path / "plain"
    write(plain, 2)
    one = run_model(AidoCell(str(plain), "gene"), data)
    forms: list[dict[str, Any]] = [{"prefix": "bert."}, {"binary": True}, {"prefix": "model.", "binary": True}]
    for number, form in enumerate(forms):
        folder = tmp_path / str(number)
        write(folder, 2, **form)
        assert np.array_equal(run_model(AidoCell(str(folder), "gene"), data).mean, one.mean)
    (tmp_path / "2" / "config.json").write_text((plain / "config.json").read_text())
    assert [path.name for path in AidoCell(str(tmp_path / "2")).files()][:2] == ["config.json", "pytorch_model.bin"]


def test_deep_cells_have_their_own_depth_tokens(tmp_path: Path) -> None:
    """Below 1e5 counts the depth token is 5, so a multiple of a cell is the same cell; above it is not."""
    write(tmp_path, 1)
    data = some_cells(1)
    shallow, again, deep = (
        run_model(AidoCell(str(tmp_path), "cell"), Counts(data.values * k, data.genes, data.total * k)).cells
        for k in (1, 10, 10**6)
    )
    assert np.abs(shallow - again).max() < TOLERANCE
    assert np.abs(shallow - deep).max() > 1e-3


def _gene_list(shared_data: Path) -> str:
    return str(shared_data / GENE_LIST)


@pytest.mark.shared
def test_the_shared_fixture(shared_data: Path) -> None:
    source = shared_data / "oracles" / "aido_cell"
    data = read_counts(source / "counts.h5ad").rows(np.arange(1))
    with np.load(source / "expected.npz") as expected:
        names, measured = expected["gene_names"], expected["gene_in_data"]
        model = AidoCell(str(source / "checkpoint"), "gene", genes=_gene_list(shared_data))
        got = run_model(model, data)
        row = {name: i for i, name in enumerate(got.names.tolist())}
        chosen = [row[name] for name in names.tolist()]
        assert len(row) == 19264
        assert not measured.all()
        assert np.abs(got.mean[chosen] - expected["gene_vectors"][0]).max() < TOLERANCE
        assert np.abs(got.cells - expected["cell"][:1]).max() < TOLERANCE
        static = model.network().static().numpy()
        assert np.array_equal(static[expected["gene_index"]], expected["static"])
        for layer in (0, 1):
            model.layer = layer
            got = run_model(model, data)
            assert np.abs(got.mean[chosen] - expected["hidden_states"][0, layer]).max() < TOLERANCE
            assert np.abs(got.cells - expected["hidden_states_cell"][:1, layer]).max() < TOLERANCE


@pytest.mark.shared
@pytest.mark.slow
def test_all_cells_of_the_shared_fixture(shared_data: Path) -> None:
    source = shared_data / "oracles" / "aido_cell"
    data, genes = read_counts(source / "counts.h5ad"), _gene_list(shared_data)
    folder = str(source / "checkpoint")
    with np.load(source / "expected.npz") as expected:
        got = run_model(AidoCell(folder, "gene", genes=genes, average="data"), data)
        got.near(expected["data_gene_names"], expected["data_gene_mean"], expected["gene_count"], TOLERANCE)
        assert np.abs(got.cells - expected["cell"]).max() < TOLERANCE
        got = run_model(AidoCell(folder, "cell", genes=genes, readout="all"), data)
        assert np.abs(got.cells - expected["cell_mean_all_positions"]).max() < TOLERANCE


def _config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        settings = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))

    return change


def _state(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors") | {k.replace("__", "."): v for k, v in changes.items()}
        save_file({k: v for k, v in state.items() if v is not None}, folder / "model.safetensors")

    return change


REFUSED = [
    (_config(hidden_size=14), r"query.weight.* of shape \(14, 14\), found \(16, 16\)"),
    (_config(hidden_size="16"), "positive integers, found .*hidden_size"),
    (_config(num_attention_heads=None), "positive integers, found .*num_attention_heads"),
    (_config(num_attention_heads=3), "heads that divide"),
    (_config(num_hidden_layers=5), "5 layers, found 2"),
    (_config(intermediate_size=24), r"up_proj.weight.*\(24, 16\), found \(20, 16\)"),
    (_config(bin_num=50), r"lookup_table.*\(50, 16\), found \(100, 16\)"),
    (_config(bin_alpha="one"), "number as bin_alpha"),
    (_config(normalization_type="BatchNorm"), "BatchNorm"),
    (_config(normalization_type="RMSNorm"), "none of this model.*ln.bias"),
    (_config(add_linear_bias=False), "none of this model.*bias"),
    (_config(model_type="bert"), "cellfoundation.*bert"),
    (_config(position_embedding_type="rope"), "rope"),
    (lambda folder: (folder / "config.json").write_text("{"), "expected JSON"),
    (lambda folder: (folder / "model.safetensors").write_text("text"), "safetensors"),
    (_state(encoder__ln__weight=None), "encoder.ln.weight"),
    (_state(encoder__layer__1__ln__bias=torch.ones(3)), r"layer.1.ln.bias.*found \(3,\)"),
    (_state(encoder__extra=torch.ones(3)), "encoder.extra"),
    (_state(encoder__ln__bias=torch.full((16,), float("nan"))), "NaN"),
    (_state(position_embedding__weight=torch.ones(40, 16)), "40 rows, 38 genes and 2 others; the gene list has 29"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Path], object], says: str) -> None:
    write(tmp_path, 3)
    change(tmp_path)
    with pytest.raises(UserError, match=says):
        AidoCell(str(tmp_path)).compute(None, None)


def test_names_and_what_to_fetch(fresh_home: Path) -> None:
    model = AidoCell("hf:genbio-ai/AIDO.Cell-100M@main")
    assert model.title == "aido-cell-100m"
    assert model.fetched()[0] == ("hf:genbio-ai/AIDO.Cell-100M@main", ("config.json", "model.safetensors"))
    with pytest.raises(UserError, match=r"no config.json, model.safetensors.*extract --model aido-cell-100m"):
        model.compute(None, None)
    with pytest.raises(UserError, match=r"weights.aido-cell.*AIDO.Cell-3M.*non-commercial"):
        AidoCell().compute(None, None)
    with pytest.raises(ValueError, match="readout must be one of present, all, got 'cls'"):
        AidoCell(readout="cls")
