"""Graph neural network by link prediction: layers against dense formulas, sampling, training, bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import roc_auc_score

from embbench.core import UserError
from embbench.embeddings._gnn import (
    GCNLayer,
    GINLayer,
    LinkNetwork,
    Links,
    Plan,
    SymmetricProduct,
    as_torch,
    link_loss,
    train_links,
    validation_auc,
)
from embbench.embeddings._links import hold_out, matched_negatives, pair_auc, propagation, weighted_graph
from embbench.embeddings.graph_gnn import GraphGNN

CPU = torch.device("cpu")


def blocks(n: int = 160, groups: int = 4, inside: float = 0.25, outside: float = 0.01, seed: int = 0) -> np.ndarray:
    """Edges of a stochastic block graph; node numbers modulo ``groups`` are the blocks."""
    rng = np.random.default_rng(seed)
    low, high = np.triu_indices(n, 1)
    same = low % groups == high % groups
    chosen = rng.random(len(low)) < np.where(same, inside, outside)
    return np.stack([low, high], axis=1)[chosen]


def weighted(n: int = 14, seed: int = 0) -> np.ndarray:
    """A dense symmetric weight matrix with some zeros and an empty diagonal."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.gamma(2.0, 300.0, (n, n)) * (rng.random((n, n)) < 0.5), 1)
    return upper + upper.T


def problem(seed: int = 0, share: float = 0.2) -> tuple[sparse.csr_matrix, Links]:
    """A block graph cut into training edges and held-out edges with their negatives."""
    pairs, rng = blocks(), np.random.default_rng(seed)
    n = int(pairs.max()) + 1
    held = hold_out(pairs, n, share, rng)
    links = Links(n, pairs[~held], pairs[held], matched_negatives(pairs[held], pairs, n, rng))
    return weighted_graph(links.train, np.ones(len(links.train)), n), links


# -- layers -------------------------------------------------------------------------------------------------------


def test_gcn_layer_is_the_published_formula() -> None:
    A, rng = weighted(), np.random.default_rng(1)
    layer, H = GCNLayer(5), rng.normal(size=(len(A), 5))
    torch.nn.init.normal_(layer.bias)
    looped = A / A[A > 0].mean() + np.eye(len(A))
    degree = looped.sum(axis=1)
    S = looped / np.sqrt(np.outer(degree, degree))
    weight, bias = layer.linear.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy()
    found = layer(as_torch(propagation("gcn", sparse.csr_matrix(A)), CPU), torch.from_numpy(H).float())
    assert np.allclose(found.detach().numpy(), S @ H @ weight.T + bias, atol=1e-5)


def test_gin_layer_is_the_published_formula() -> None:
    A, rng = weighted(seed=2), np.random.default_rng(1)
    layer, H = GINLayer(5), rng.normal(size=(len(A), 5))
    for value in layer.parameters():
        torch.nn.init.normal_(value)
    first, norm, _, second = (
        {name: value.detach().numpy().astype(np.float64) for name, value in part.named_parameters()}
        for part in layer.mlp
    )
    summed = (1 + layer.eps.item()) * H + A / A[A > 0].mean() @ H
    hidden = summed @ first["weight"].T + first["bias"]
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5) * norm["weight"] + norm["bias"]
    expected = np.maximum(hidden, 0) @ second["weight"].T + second["bias"]
    S = as_torch(propagation("gin", sparse.csr_matrix(A)), CPU)
    for mode in (True, False):  # no running statistics: training and use are the same function
        found = layer.train(mode)(S, torch.from_numpy(H).float())
        assert np.allclose(found.detach().numpy(), expected, atol=2e-5)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_network_puts_relu_between_layers_only() -> None:
    S = as_torch(propagation("gcn", sparse.csr_matrix(weighted())), CPU)
    net = LinkNetwork(torch.randn(14, 4), "gcn", 3, 0.5).eval()
    start, one, two, three = net(S)
    assert torch.equal(start, net.start)
    assert torch.equal(one, torch.relu(net.layers[0](S, start)))
    assert torch.equal(three, net.layers[2](S, two))
    assert (three < 0).any()


def test_gradients_equal_dense_autograd_and_finite_differences() -> None:
    dense = torch.from_numpy(propagation("gcn", sparse.csr_matrix(weighted())).toarray())
    S = as_torch(propagation("gcn", sparse.csr_matrix(weighted())), CPU)
    double = torch.sparse_csr_tensor(
        S.crow_indices(), S.col_indices(), S.values().double(), size=S.shape, check_invariants=True
    )
    X = torch.randn(14, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SymmetricProduct.apply(double, x), (X,))
    pairs, wrong = torch.tensor([[0, 1], [2, 5], [0, 7]]), torch.tensor([[3, 4], [0, 9]])
    assert torch.autograd.gradcheck(lambda x: link_loss(x, pairs, wrong), (X,))
    W = torch.randn(3, 3, dtype=torch.float64)
    sparse_way = torch.autograd.grad(link_loss(SymmetricProduct.apply(double, X @ W), pairs, wrong), X)[0]
    dense_way = torch.autograd.grad(link_loss(dense @ (X @ W), pairs, wrong), X)[0]
    assert torch.allclose(sparse_way, dense_way, atol=1e-6)


def test_loss_is_the_logistic_loss_of_inner_products() -> None:
    z = np.random.default_rng(0).normal(size=(6, 3))
    pairs, wrong = np.array([[0, 1], [2, 3], [4, 5]]), np.array([[0, 2], [1, 5]])
    p, q = (1 / (1 + np.exp(-(z[e[:, 0]] * z[e[:, 1]]).sum(axis=1))) for e in (pairs, wrong))
    found = link_loss(*(torch.from_numpy(part) for part in (z, pairs, wrong))).item()
    assert found == pytest.approx(-np.log(p).mean() - np.log(1 - q).mean(), rel=1e-12)


# -- held-out edges, negatives, AUC -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_holding_out_keeps_the_graph_in_one_piece(share: float) -> None:
    pairs = np.concatenate([blocks(outside=0.02), [[0, 160], [160, 161]]])  # a chain that may not be cut
    held = hold_out(pairs, 162, share, np.random.default_rng(0))
    assert held.sum() == int(np.ceil(share * len(pairs)))
    rest = weighted_graph(pairs[~held], np.ones((~held).sum()), 162)
    assert connected_components(rest, directed=False)[0] == 1
    assert not held[-2:].any()


def test_negatives_are_no_edges_and_have_the_same_degrees() -> None:
    pairs = blocks(inside=0.1)
    drawn = [matched_negatives(pairs, pairs, 160, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    edges = {frozenset(pair) for pair in pairs.tolist()}
    for wrong in drawn:
        assert not {frozenset(pair) for pair in wrong.tolist()} & edges
        assert (wrong[:, 0] != wrong[:, 1]).all()
        assert np.array_equal(np.bincount(wrong.ravel(), minlength=160), np.bincount(pairs.ravel(), minlength=160))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    degree = np.bincount(pairs.ravel(), minlength=160).astype(float)[:, None]
    assert abs(pair_auc(degree, pairs, drawn[0]) - 0.5) < 0.05
    uniform = np.random.default_rng(0).integers(0, 160, pairs.shape)
    assert pair_auc(degree, pairs, uniform) > pair_auc(degree, pairs, drawn[0]) + 0.03


def test_a_complete_graph_has_no_negatives() -> None:
    complete = np.stack(np.triu_indices(6, 1), axis=1)
    with pytest.raises(UserError, match="6 nodes with 15 edges"):
        matched_negatives(complete, complete, 6, np.random.default_rng(0))
    assert len(matched_negatives(complete[:0], complete, 6, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("rounded", [0, 6])
def test_auc_equals_sklearn(rounded: int) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 4)).round(rounded)
    pairs, wrong = rng.integers(0, 40, (90, 2)), rng.integers(0, 40, (70, 2))
    scores = [(z[i] * z[j]).sum() for i, j in np.concatenate([pairs, wrong])]
    assert pair_auc(z, pairs, wrong) == pytest.approx(roc_auc_score([1] * 90 + [0] * 70, scores), abs=1e-12)


# -- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["gcn", "gin"])
@pytest.mark.parametrize("start", ["random", "spectral"])
def test_it_predicts_edges_it_never_saw(layer: str, start: str) -> None:
    graph, links = problem()
    options = {"dim": 16, "layer": layer, "start": start}
    trained, facts = GraphGNN(**options, epochs=40, patience=15).fit(graph)
    auc = pair_auc(trained, links.held, links.negative)
    assert auc > 0.7
    assert facts["validation_auc"] > 0.6
    assert facts["edges"] == len(links.train)
    if start == "random":
        untrained, _ = GraphGNN(**options, epochs=1, lr=1e-12).fit(graph)
        assert auc > pair_auc(untrained, links.held, links.negative) + 0.1


def test_early_stopping_restores_the_best_state() -> None:
    graph, links = problem()
    S = as_torch(propagation("gcn", graph), CPU)
    torch.manual_seed(0)
    net = LinkNetwork(torch.randn(160, 8) / 10, "gcn", 2, 0.1)
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    inner = net.forward

    def spy(S: torch.Tensor) -> list[torch.Tensor]:
        if not net.training:
            state = {name: value.clone() for name, value in net.state_dict().items()}
            out = inner(S)
            seen.append((pair_auc(out[-1].detach().numpy(), links.held, links.negative), state))
            return out
        return inner(S)

    net.forward = spy  # type: ignore[method-assign]
    found = train_links(net, S, links, Plan(lr=0.05, epochs=60, patience=5, steps=3), np.random.default_rng(0))
    aucs = [auc for auc, _ in seen]
    assert found["best_epoch"] == int(np.argmax(aucs))
    assert found["epochs"] == min(60, found["best_epoch"] + 5) == len(aucs) - 1
    assert found["validation_auc"] == max(aucs) == validation_auc(net, S, links)
    best = seen[found["best_epoch"]][1]
    assert all(torch.equal(value, best[name]) for name, value in net.state_dict().items())


def test_training_that_diverges_keeps_the_start() -> None:
    graph, links = problem()
    net = LinkNetwork(torch.randn(160, 4), "gcn", 1, 0.0)
    before = net.start.detach().clone()
    S, plan = as_torch(propagation("gcn", graph), CPU), Plan(lr=1e30, epochs=9, patience=2, steps=2)
    found = train_links(net, S, links, plan, np.random.default_rng(0))
    assert (found["best_epoch"], found["epochs"]) == (0, 2)
    assert torch.equal(net.start, before)


def test_same_bits_twice_and_the_global_streams_stay() -> None:
    graph, _ = problem()
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    states, threads = (torch.get_rng_state(), np.random.get_state()[1].copy()), torch.get_num_threads()  # noqa: NPY002
    runs = [GraphGNN(dim=6, epochs=4, seed=seed, layer="gin").fit(graph)[0] for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2], atol=1e-3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    graph, _ = problem()
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append(GraphGNN(dim=6, epochs=3, start="random").fit(graph)[0])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*runs)


# -- the extractor ------------------------------------------------------------------------------------------------


def edge_file(path: Path, pairs: np.ndarray, weights: np.ndarray | None = None) -> str:
    """A table of edges between nodes NODE0, NODE1 ..."""
    weights = np.ones(len(pairs)) if weights is None else weights
    rows = [f"NODE{i}\tNODE{j}\t{w}" for (i, j), w in zip(pairs.tolist(), weights.tolist(), strict=True)]
    path.write_text("\n".join(["gene1\tgene2\tweight", *rows]), encoding="utf-8")
    return str(path)


def test_layers_can_be_asked_for(tmp_path: Path) -> None:
    graph = edge_file(tmp_path / "edges.tsv", blocks())
    options = {"graph": graph, "dim": 5, "epochs": 2}
    tables = {output: GraphGNN(**options, output=output).compute(None, None) for output in ("last", "all", 0, 1, 2)}
    assert tables["all"].matrix.shape == (160, 15)
    assert np.array_equal(tables["all"].matrix, np.concatenate([tables[i].matrix for i in range(3)], axis=1))
    assert np.array_equal(tables["last"].matrix, tables[2].matrix)
    facts = tables["last"].provenance
    assert facts["held_out"] == int(np.ceil(0.05 * facts["edges"]))
    assert facts["device"] in ("cpu", "cuda")
    assert {"validation_auc", "epochs", "best_epoch", "seconds", "layer"} <= set(facts)
    one = GraphGNN(**options).compute(["NODE7", "NOBODY", "NODE3"], None)
    assert one.names.tolist() == ["NODE7", "NODE3"]
    assert np.array_equal(one.matrix, tables["last"].lookup(["NODE7", "NODE3"])[0])


def test_weights_matter_up_to_their_scale(tmp_path: Path) -> None:
    pairs = blocks()
    weights = 2.0 ** np.random.default_rng(0).integers(0, 4, len(pairs))
    options = {"dim": 4, "epochs": 2, "start": "random", "validation": 0}
    plain, heavy, scaled = (
        GraphGNN(edge_file(tmp_path / f"{i}.tsv", pairs, w), **options).compute(None, None)
        for i, w in enumerate((np.ones(len(pairs)), weights, 8 * weights))
    )
    assert np.array_equal(heavy.matrix, scaled.matrix)
    assert not np.allclose(heavy.matrix, plain.matrix, atol=1e-3)
    assert heavy.provenance["validation_auc"] is None
    assert (heavy.provenance["epochs"], heavy.provenance["best_epoch"], heavy.provenance["held_out"]) == (2, 2, 0)


def test_a_tree_has_nothing_to_hold_out(tmp_path: Path) -> None:
    chain = np.stack([np.arange(8), np.arange(1, 9)], axis=1)
    graph = edge_file(tmp_path / "chain.tsv", chain)
    with pytest.raises(UserError, match=r"none among 8 edges; give validation=0"):
        GraphGNN(graph).compute(None, None)
    assert GraphGNN(graph, dim=12, validation=0, epochs=2).compute(None, None).matrix.shape == (9, 12)


def test_an_unknown_device_is_a_user_error(tmp_path: Path) -> None:
    graph = edge_file(tmp_path / "edges.tsv", blocks())
    with pytest.raises(UserError, match="got 'abacus'"):
        GraphGNN(graph, device="abacus").compute(None, None)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"layer": "gat"}, "got 'gat'"),
        ({"start": "ones"}, "got 'ones'"),
        ({"layers": 0}, "got 0"),
        ({"output": 3}, "from 0 to 2, got 3"),
        ({"output": "first"}, "got 'first'"),
        ({"dropout": 1.0}, "got 1.0 and 0.01"),
        ({"lr": 0}, "got 0.1 and 0"),
        ({"validation": 0.7}, "got 0.7"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"dim": 0}, "got 0"),
    ],
)
def test_wrong_parameters(given: dict[str, object], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        GraphGNN(**given)


@pytest.mark.cuda
@pytest.mark.parametrize("layer", ["gcn", "gin"])
def test_cuda_agrees_with_cpu(layer: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    A, H = sparse.csr_matrix(weighted(200)), torch.randn(200, 8)
    net = LinkNetwork(H, layer, 2, 0.0)
    there, here = (
        net.to(device)(as_torch(propagation(layer, A), torch.device(device)))[-1] for device in ("cuda", "cpu")
    )
    assert torch.allclose(there.cpu(), here, atol=1e-4)
