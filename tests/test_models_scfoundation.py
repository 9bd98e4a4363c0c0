"""scFoundation against the official code (shared fixture), torch's own layers and its equations in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _models import counts_of, read_counts, run_model
from scipy.special import erf
from test_models_aido_cell import GENE_LIST, aligned, some_cells
from tiny.aido_cell import GENES
from tiny.scfoundation import write

from embbench.core import UserError
from embbench.embeddings.models import _performer
from embbench.embeddings.models._layers import Linear
from embbench.embeddings.models.scfoundation import ScFoundation

TOLERANCE = 1e-5
N = len(GENES)


def linear(p: dict[str, np.ndarray], x: np.ndarray, key: str) -> np.ndarray:
    return x @ p[f"{key}.weight"].T.astype(np.float64) + p[f"{key}.bias"]


def normed(p: dict[str, np.ndarray], x: np.ndarray, key: str) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p[f"{key}.weight"] + p[f"{key}.bias"]


def embedded(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Vectors of values (n,) without positions."""
    u = linear(p, x[:, None], "token_emb.mlp")
    u = np.where(u > 0, u, 0.1 * u)
    w = np.exp(u + linear(p, u, "token_emb.mlp2"))
    return w / w.sum(-1, keepdims=True) @ p["token_emb.emb.weight"].astype(np.float64)


def encoded(p: dict[str, np.ndarray], x: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Encoder states of the given tokens by torch.nn.TransformerEncoderLayer, one cell without padding."""
    h = torch.from_numpy(embedded(p, x) + p["pos_emb.weight"][place])[None]
    for i in range(2):
        layer = torch.nn.TransformerEncoderLayer(16, 2, 64, 0.0, batch_first=True, dtype=torch.float64).eval()
        at = f"encoder.transformer_encoder.{i}."
        layer.load_state_dict({k.removeprefix(at): torch.from_numpy(v) for k, v in p.items() if k.startswith(at)})
        h = layer(h)
    return normed(p, h[0].detach().numpy(), "encoder.norm")


def decoded(p: dict[str, np.ndarray], h: np.ndarray, heads: int = 3, head: int = 4) -> np.ndarray:
    """Decoder states of one cell; the attention matrix of the features is formed, (n, n) per head."""
    h = linear(p, h, "decoder_embed")
    for i in range(2):
        attend, feed = (f"decoder.performer.net.layers.{i}.{part}" for part in (0, 1))
        projection = p[f"{attend}.fn.fast_attention.projection_matrix"].astype(np.float64)
        a = normed(p, h, f"{attend}.norm")
        q, k, v = (linear(p, a, f"{attend}.fn.to_{part}").reshape(-1, heads, head) for part in "qkv")
        q, k = (x * head**-0.25 for x in (q, k))
        peak = (k @ projection.T).max()
        out = np.zeros_like(v)
        for j in range(heads):
            dash, keys = q[:, j] @ projection.T, k[:, j] @ projection.T
            fq = np.exp(dash - (q[:, j] ** 2).sum(-1, keepdims=True) / 2 - dash.max(-1, keepdims=True)) + 1e-4
            fk = np.exp(keys - (k[:, j] ** 2).sum(-1, keepdims=True) / 2 - peak) + 1e-4
            kernel = fq @ fk.T
            out[:, j] = kernel / kernel.sum(1, keepdims=True) @ v[:, j]
        h = h + linear(p, out.reshape(len(h), -1), f"{attend}.fn.to_out")
        up = linear(p, normed(p, h, f"{feed}.norm"), f"{feed}.fn.fn.w1")
        h = h + linear(p, up * (1 + erf(up / np.sqrt(2))) / 2, f"{feed}.fn.fn.w2")
    return normed(p, normed(p, h, "decoder.norm"), "norm")


def tokens(counts: np.ndarray, aim: Callable[[float], float] = lambda s: 4.0) -> np.ndarray:
    """Values of genes, T and S of one cell."""
    total = counts.sum()
    return np.concatenate([np.log1p(1e4 * counts / total), [aim(np.log10(total)), np.log10(total)]])


@pytest.mark.parametrize(
    ("target", "aim"), [("t4", lambda s: 4.0), ("a0.5", lambda s: s + 0.5), ("f2", lambda s: s + np.log10(2))]
)
@pytest.mark.parametrize("version", [None, "gene", "rde"])
def test_cells_equal_torch_layers(
    tmp_path: Path, version: str | None, target: str, aim: Callable[[float], float]
) -> None:
    made, data = write(tmp_path, 1), some_cells()
    got = run_model(ScFoundation(str(tmp_path), "cell", version=version, target=target), data).cells
    highest = run_model(ScFoundation(str(tmp_path), "cell", version=version, target=target, readout="max"), data).cells
    for i, counts in enumerate(aligned(data)):
        place = np.append(np.flatnonzero(counts), [N, N + 1])
        h = encoded(made[version or "cell"], tokens(counts, aim)[place], place)
        expected = np.concatenate([h[-1], h[-2], h[:-2].max(0), h[:-2].mean(0)])
        assert np.abs(got[i] - expected).max() < TOLERANCE
        assert np.abs(highest[i] - h.max(0)).max() < TOLERANCE


@pytest.mark.parametrize("version", [None, "cell"])
def test_gene_vectors_equal_the_equations(tmp_path: Path, version: str | None) -> None:
    made, data = write(tmp_path, 2), some_cells()
    p, rows = made[version or "gene"], []
    for counts in aligned(data):
        x, place = tokens(counts), np.append(np.flatnonzero(counts), [N, N + 1])
        h = embedded(p, x)
        h[place] = encoded(p, x[place], place)
        rows.append(decoded(p, h + p["pos_emb.weight"][: N + 2])[:N])
    got = run_model(ScFoundation(str(tmp_path), "gene", version=version), data)
    got.near(np.array(GENES), np.mean(rows, axis=0), np.full(N, len(data)), TOLERANCE)


def test_features_estimate_softmax_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the floor, attention by many Gaussian features tends to softmax attention (Choromanski et al. 2021)."""
    assert _performer.FLOOR == 1e-4  # the published code's, which alone moves these results by 2e-3
    monkeypatch.setattr(_performer, "FLOOR", 0.0)
    rng, d = np.random.default_rng(0), 4
    qkv = Linear(torch.from_numpy(rng.normal(0, 0.3, (3 * d, d)).astype(np.float32)))
    projection = torch.from_numpy(rng.normal(size=(200_000, d)).astype(np.float32))
    x = torch.from_numpy(rng.normal(size=(1, 7, d)).astype(np.float32))
    q, k, v = qkv(x).split(d, dim=-1)
    exact = torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v
    attend = _performer.FeatureAttention(qkv, Linear(torch.eye(d)), 1, projection, together=False)
    assert (exact - v.mean(1, keepdim=True)).abs().max() > 0.1  # it does attend
    assert (attend(x) - exact).abs().max() < 0.01
    with pytest.raises(ValueError, match="got a mask"):
        attend(x, torch.ones(1, 1, 1, 7, dtype=torch.bool))


def test_one_maximum_for_several_cells_is_a_choice(tmp_path: Path) -> None:
    write(tmp_path, 2)
    data = some_cells(4)
    alone, two, four = (run_model(ScFoundation(str(tmp_path), "gene", together=k), data).mean for k in (1, 2, 4))
    assert np.abs(alone - four).max() > 0
    assert np.abs(two - four).max() > 0
    assert ScFoundation(together=3).batch == 3


@pytest.mark.shared
def test_the_shared_fixture_of_cells(shared_data: Path) -> None:
    source = shared_data / "oracles" / "scfoundation"
    data, genes = read_counts(source / "counts.h5ad"), str(shared_data / GENE_LIST)
    cases: dict[str, dict[str, Any]] = {
        "cell": {},
        "cell_rde": {"version": "rde"},
        "cell_max_pool": {"readout": "max"},
        "cell_target_a05": {"target": "a0.5"},
    }
    with np.load(source / "expected.npz") as expected:
        for key, chosen in cases.items():
            got = run_model(ScFoundation(str(source / "checkpoint"), "cell", genes=genes, **chosen), data)
            assert np.abs(got.cells - expected[key]).max() < TOLERANCE, key


@pytest.mark.shared
def test_the_shared_fixture_of_genes(shared_data: Path) -> None:
    source = shared_data / "oracles" / "scfoundation"
    data, genes = read_counts(source / "counts.h5ad"), str(shared_data / GENE_LIST)
    folder = str(source / "checkpoint")
    with np.load(source / "expected.npz") as expected:
        model = ScFoundation(folder, "gene", genes=genes)
        got, first = run_model(model, data), run_model(model, data.rows(np.arange(1)))
        row = {name: i for i, name in enumerate(got.names.tolist())}
        chosen = [row[name] for name in expected["gene_names"].tolist()]
        measured = [row[name] for name in expected["data_gene_names"].tolist()]
        assert len(row) == 19264
        assert np.abs(got.mean[chosen] - expected["gene_vectors"].mean(0)).max() < TOLERANCE
        assert np.abs(first.mean[chosen] - expected["gene_vectors"][0]).max() < TOLERANCE
        assert np.abs(got.mean[measured] - expected["data_gene_mean_all_cells"]).max() < TOLERANCE
        static = model.network().static().numpy()
        assert np.array_equal(static[expected["gene_index"]], expected["static"])


@pytest.mark.shared
@pytest.mark.slow
def test_the_shared_fixture_of_expressed_genes_and_of_a_batch(shared_data: Path) -> None:
    source = shared_data / "oracles" / "scfoundation"
    data, genes = read_counts(source / "counts.h5ad"), str(shared_data / GENE_LIST)
    folder = str(source / "checkpoint")
    with np.load(source / "expected.npz") as expected:
        got = run_model(ScFoundation(folder, "gene", genes=genes, average="expressed"), data)
        means, counted = expected["data_gene_mean_expressed"], expected["n_expressed"]
        got.near(expected["data_gene_names"], means, counted, TOLERANCE)
        got = run_model(ScFoundation(folder, "gene", genes=genes, together=8), data)
        row = {name: i for i, name in enumerate(got.names.tolist())}
        chosen = [row[name] for name in expected["gene_names"].tolist()]
        assert np.abs(got.mean[chosen] - expected["gene_vectors_batch"].mean(0)).max() < TOLERANCE


def _config(part: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        inner = content["gene"]["config"]["model_config"]["mae_autobin"]
        (inner[part] if part else inner).update(changes)

    return change


def _state(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        state = content["gene"]["state_dict"]
        del state[next(iter(k for k in state if k == key), "model.to_final.bias")]
        if value is not None:
            state[key] = value

    return change


FUSED = "model.encoder.transformer_encoder.1.self_attn.in_proj_weight"
REFUSED = [
    (_config("encoder", hidden_dim=14), r"expected .*in_proj_weight.*\(42, 14\), found \(48, 16\)"),
    (_config("encoder", heads=3), "heads that divide"),
    (_config("encoder", depth=9), "9 encoder layers of its configuration, found 2"),
    (_config("encoder", module_type="performer"), "transformer layers as encoder"),
    (_config("encoder", norm_first=True), "post-norm transformer"),
    (_config("decoder", depth=3), "3 decoder layers of its configuration, found 2"),
    (_config("decoder", module_type="transformer"), "performer layers as decoder"),
    (_config("decoder", heads=0), "positive integers, found .'heads': 0"),
    (_config("decoder", heads=5), r"to_q.weight.*\(20, 12\), found \(12, 12\)"),
    (_config("decoder", dim_head=None), "positive integers, found .'dim_head': None"),
    (_config("", encoder=None), "layers as encoder, found 'None'"),
    (_config("", bin_num=7), r"\(7, 16\), found \(100, 16\)"),
    (_config("", bin_alpha=None), "number as bin_alpha"),
    (_state(FUSED, None), "in_proj_weight"),
    (_state(FUSED, torch.ones(3, 16)), r"found \(3, 16\)"),
    (_state(FUSED, "text"), "tensors in 'gene', found others at"),
    (_state("model.encoder.more", torch.ones(2)), "none of this model.*encoder.more"),
    (_state("model.norm.weight", torch.full((12,), float("inf"))), "norm.weight.*infinite"),
    (_state("model.pos_emb.weight", torch.ones(40, 16)), "40 rows, 37 genes and 3 others; the gene list has 29"),
    (lambda content: content.pop("gene"), "the model 'gene' with a state_dict, found None"),
    (lambda content: content["gene"].pop("config"), "configuration of a mae_autobin"),
    (lambda content: content["gene"]["config"].update(model="gau"), "configuration of a mae_autobin"),
    (lambda content: content["gene"]["config"].pop("model_config"), "configuration of a mae_autobin"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    write(tmp_path, 3, change=change)
    with pytest.raises(UserError, match=says):
        ScFoundation(str(tmp_path)).compute(None, None)


def test_cells_need_no_decoder(tmp_path: Path) -> None:
    def without(content: dict[str, Any]) -> None:
        state = content["cell"]["state_dict"]
        for key in [k for k in state if k.startswith("model.decoder")]:
            del state[key]

    write(tmp_path, 3, change=without)
    assert run_model(ScFoundation(str(tmp_path), "cell"), some_cells()).cells.shape == (4, 64)


def test_a_file_of_another_name(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = (tmp_path / "models.ckpt").rename(tmp_path / "default_model.ckpt")
    assert len(ScFoundation(str(path)).compute(None, None).names) == N
    path.write_text("text")
    with pytest.raises(UserError, match="expected a torch file"):
        ScFoundation(str(path)).compute(None, None)


def test_a_cell_without_genes_has_its_depth_tokens(tmp_path: Path) -> None:
    made = write(tmp_path, 1)["cell"]
    got = run_model(ScFoundation(str(tmp_path), "cell"), counts_of(np.array([[0, 0], [3, 0]]), GENES[:2])).cells
    h = encoded(made, np.array([4.0, 0.0]), np.array([N, N + 1]))
    assert np.abs(got[0] - np.concatenate([h[1], h[0], h.max(0), h.mean(0)])).max() < TOLERANCE


def test_without_weights_it_says_what_to_do(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"models\.ckpt.*weights.scfoundation.*non-commercial.*--checkpoint"):
        ScFoundation().compute(None, None)
    with pytest.raises(UserError, match=r"models\.ckpt.*extract --model scfoundation"):
        ScFoundation("hf:genbio-ai/scFoundation@main").compute(None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"version": "ce"}, {"readout": "cls"}, {"target": "4"}, {"target": "f0"}, {"target": "x1"}, {"together": 0}],
)
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ScFoundation"):
        ScFoundation(**wrong)
