"""Fusion of several embeddings: masks, modality dropout, what it learns, and the baselines that it has to beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

torch = pytest.importorskip("torch")

from embbench.core import Inputs  # noqa: E402
from embbench.heads._fusion import Tokens  # noqa: E402
from embbench.heads._fusion_net import FusionNet, Stack, drop_blocks  # noqa: E402
from embbench.heads._fusion_ridge import LinearPart  # noqa: E402
from embbench.heads._kernels import kernel_pair  # noqa: E402
from embbench.heads._neighbours import neighbour_weights  # noqa: E402
from embbench.heads._ridge import ridge_path  # noqa: E402
from embbench.heads.concat_pca import ConcatPCA  # noqa: E402
from embbench.heads.context_mean import ContextMean  # noqa: E402
from embbench.heads.fusion import Fusion  # noqa: E402
from embbench.heads.kernel_ridge import KernelRidge  # noqa: E402
from embbench.heads.label_fusion import LabelFusion  # noqa: E402
from embbench.heads.label_prior import LabelPrior  # noqa: E402
from embbench.heads.stacked_kernel import StackedKernel, _stacked  # noqa: E402

BLOCKS = (("signal", slice(0, 4)), ("noise", slice(4, 14)))
QUICK = {"width": 16, "heads": 2, "folds": 3, "steps": 300, "device": "cpu"}


def rows_of(X: np.ndarray, contexts: int = 1, found: np.ndarray | None = None, blocks: tuple = BLOCKS) -> Inputs:
    """Each row of ``X`` in every context."""
    n = len(X)
    index = np.tile(np.arange(n), contexts)
    found = np.ones((n, len(blocks)), dtype=bool) if found is None else found
    return Inputs(
        X=X[index].astype(np.float32), context=np.repeat(np.arange(contexts), n),
        entities=sparse.csr_matrix(sparse.eye(n, format="csr", dtype=np.float32)[index]),
        units=tuple((int(i),) for i in index), blocks=blocks, found=found[index],
    )  # fmt: skip


def screen(seed: int = 0, n: int = 160) -> tuple[Inputs, np.ndarray, Inputs, np.ndarray]:
    """Effects that are smooth in the first block and deaf to the second; the last 40 perturbations are asked."""
    rng = np.random.default_rng(seed)
    z, noise = rng.normal(size=(n, 4)), rng.normal(size=(n, 10))
    effect = np.tanh(z @ rng.normal(size=(4, 6))) @ rng.normal(size=(6, 30)) * 0.3 + rng.normal(size=30) * 0.3
    Y = np.concatenate([effect, effect + 0.5]) + rng.normal(size=(2 * n, 30)) * 0.1
    inputs = rows_of(np.hstack([z, noise]), contexts=2)
    new = np.array([unit[0] >= n - 40 for unit in inputs.units])
    return inputs.rows(~new), Y[~new].astype(np.float32), inputs.rows(new), np.concatenate([effect, effect + 0.5])[new]


def only(inputs: Inputs, block: int) -> Inputs:
    """The rows with one of their blocks alone."""
    name, where = inputs.blocks[block]
    width = where.stop - where.start
    return replace(inputs, X=inputs.X[:, where], blocks=((name, slice(0, width)),), found=inputs.found[:, [block]])


def error(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.square(predicted - truth).mean())


def net_and_rows(members: int = 2) -> tuple[FusionNet, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = FusionNet(members, 3, (slice(0, 2), slice(2, 5)), 2, 8, 2, 2, 0.0).eval()
    for stack in (net.outlet, net.direct):
        torch.nn.init.normal_(stack.weight)
    return net, torch.randn(members, 7, 5), torch.randn(members, 7, 2)


def test_masked_block_does_not_change_the_output():
    net, x, context = net_and_rows()
    keep = torch.ones(2, 7, 2, dtype=torch.bool)
    keep[:, :4, 1] = False
    other = x.clone()
    other[:, :4, 2:] = 1e3
    assert torch.equal(net(x, context, keep), net(other, context, keep))
    moved = net(other, context, torch.ones_like(keep))
    assert not torch.allclose(net(x, context, torch.ones_like(keep))[:, :4], moved[:, :4])


def test_members_do_not_mix():
    net, x, context = net_and_rows()
    keep = torch.ones(2, 7, 2, dtype=torch.bool)
    other = x.clone()
    other[1] += 1
    assert torch.equal(net(x, context, keep)[0], net(other, context, keep)[0])


def test_output_starts_at_zero():
    net = FusionNet(3, 4, (slice(0, 5),), 2, 8, 2, 1, 0.5)
    out = net(torch.randn(3, 6, 5), torch.randn(3, 6, 2), torch.ones(3, 6, 1, dtype=torch.bool))
    assert out.shape == (3, 6, 4)
    assert not out.any()


def test_attention_is_softmax_of_scaled_products():
    layer = net_and_rows(members=1)[0].layers[0]
    tokens = torch.randn(1, 1, 3, 8)
    seen = torch.tensor([[[True, True, False]]])
    with torch.no_grad():
        norm = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        q, k, v = (norm[0, 0] @ layer.qkv.weight[0] + layer.qkv.bias[0]).split(8, dim=1)
        parts = []
        for h in (slice(0, 4), slice(4, 8)):
            score = (q[:, h] @ k[:, h].T / 2.0).masked_fill(~seen[0, 0], -torch.inf)
            parts.append(torch.softmax(score, dim=1) @ v[:, h])
        after = tokens[0, 0] + torch.cat(parts, dim=1) @ layer.out.weight[0] + layer.out.bias[0]
        norm = (after - after.mean(-1, keepdim=True)) / (after.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        hidden = torch.nn.functional.gelu(norm @ layer.wide.weight[0] + layer.wide.bias[0])
        expected = after + hidden @ layer.narrow.weight[0] + layer.narrow.bias[0]
        assert torch.allclose(layer(tokens, seen)[0, 0], expected, atol=1e-5)


def test_stack_is_one_linear_map_per_member():
    stack, x = Stack(2, 3, 4), torch.randn(2, 5, 6, 3)
    torch.nn.init.normal_(stack.bias)
    for member in range(2):
        expected = x[member] @ stack.weight[member] + stack.bias[member]
        assert torch.allclose(stack(x)[member], expected, atol=1e-6)


def test_modality_dropout_never_drops_all_and_invents_nothing():
    torch.manual_seed(0)
    found = torch.rand(20_000, 3) < 0.6
    kept = drop_blocks(found, 0.5)
    assert not (kept & ~found).any()
    assert torch.equal(kept.any(dim=1), found.any(dim=1))
    alone = found.sum(dim=1) == 1
    assert torch.equal(kept[alone], found[alone])
    full = found.all(dim=1)
    # 1/2 each, and the eighth that lost all gets one back: (12/8 + 1/8) / 3 of the marks stay
    assert kept[full].float().mean().item() == pytest.approx(13 / 24, abs=0.02)
    assert torch.equal(drop_blocks(found, 0.0), found)


def test_tokens_ignore_what_a_missing_block_holds():
    rng = np.random.default_rng(0)
    found = np.array([[True, True], [True, False], [True, True], [False, True]])
    X = rng.normal(size=(4, 14))
    a, b = rows_of(X, found=found), rows_of(np.where(np.repeat(found, [4, 10], axis=1), X, 99.0), found=found)
    for left, right in zip(Tokens.fitted(a)(a), Tokens.fitted(b)(b), strict=True):
        assert np.array_equal(left, right)
    x = Tokens.fitted(a)(a)[0]
    assert np.allclose(x[[0, 2, 3], 4:].mean(axis=0), 0, atol=1e-6)
    assert np.square(x[[0, 2, 3], 4:]).mean() == pytest.approx(1.0, rel=1e-5)


def test_linear_part_is_multitask_ridge():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(24, 3)), rng.normal(size=(24, 2))
    context = np.arange(24) % 2
    hot = np.eye(2)[context]
    folds = [(np.arange(12, 24), np.arange(12)), (np.arange(12), np.arange(12, 24))]
    part = LinearPart.fitted(X, hot, Y, folds)
    kernel = (X @ X.T) * (part.share + (1 - part.share) * (context[:, None] == context))
    centre = np.eye(24) - 1 / 24
    dual = np.linalg.solve(centre @ kernel @ centre + part.alpha * np.eye(24), Y - Y.mean(axis=0))
    assert np.allclose(part(X, hot), Y.mean(axis=0) + centre @ kernel @ centre @ dual)
    fit, held = folds[0]
    K, k = kernel[np.ix_(fit, fit)], kernel[np.ix_(held, fit)]
    inner = np.eye(12) - 1 / 12
    dual = np.linalg.solve(inner @ K @ inner + part.alpha * np.eye(12), Y[fit] - Y[fit].mean(axis=0))
    expected = Y[fit].mean(axis=0) + (k - K.mean(axis=0)) @ inner @ dual
    assert np.allclose(part.out_of_fold[held], expected)


def test_fusion_uses_the_informative_block_and_survives_the_other():
    train, Y, query, truth = screen()
    both = error(Fusion(**QUICK).fit(train, Y).predict(query), truth)
    signal = error(Fusion(**QUICK).fit(only(train, 0), Y).predict(only(query, 0)), truth)
    noise = error(Fusion(**QUICK).fit(only(train, 1), Y).predict(only(query, 1)), truth)
    mean = error(ContextMean().fit(train, Y).predict(query), truth)
    assert noise == pytest.approx(mean, rel=0.05)
    assert both < 0.5 * noise
    assert both < 1.5 * signal
    concat = min(error(ConcatPCA(14, a).fit(train, Y).predict(query), truth) for a in (0.1, 1.0, 10.0))
    assert both < 1.05 * concat


def test_fusion_of_rows_that_lack_blocks():
    train, Y, query, truth = screen()
    rng = np.random.default_rng(1)
    lost = rng.random((len(train), 2)) < 0.3
    lost[lost.all(axis=1)] = False
    X = train.X * np.repeat(~lost, [4, 10], axis=1)
    head = Fusion(**QUICK).fit(replace(train, X=X, found=~lost), Y)
    assert error(head.predict(query), truth) < 0.6 * error(ContextMean().fit(train, Y).predict(query), truth)
    bare = replace(query, X=query.X * np.repeat([0.0, 1.0], [4, 10]).astype(np.float32))
    bare = replace(bare, found=np.tile([False, True], (len(query), 1)))
    filled = replace(bare, X=np.where(np.arange(14) < 4, np.float32(5), query.X))
    assert np.array_equal(head.predict(bare), head.predict(filled))


def test_fusion_without_anything_to_hold_out_is_the_context_mean():
    train, Y, query, _ = screen()
    one = np.array([0, 120])
    assert train.units[0] == train.units[120]
    predicted = Fusion(**QUICK).fit(train.rows(one), Y[one]).predict(query)
    assert np.allclose(predicted, ContextMean().fit(train.rows(one), Y[one]).predict(query), atol=1e-6)


def test_fusion_refuses_rows_with_other_blocks():
    train, Y, query, _ = screen()
    head = Fusion(**{**QUICK, "steps": 20}).fit(train, Y)
    with pytest.raises(ValueError, match="fitted on 2 blocks, found 1"):
        head.predict(only(query, 0))


def test_label_fusion_beats_the_prior_and_falls_back_to_it():
    train, Y, query, truth = screen()
    cut = 0.4
    labels = (np.sign(Y) * (np.abs(Y) > cut)).astype(np.float32)
    labels[:, 0] = 0
    code = (np.sign(truth) * (np.abs(truth) > cut)).astype(int) + 1

    def loss(proba: np.ndarray) -> float:
        return float(-np.log(np.maximum(np.take_along_axis(proba, code[:, 1:, None], 2), 1e-6)).mean())

    prior = LabelPrior().fit(train, labels).predict_proba(query)
    head = LabelFusion(**QUICK).fit(train, labels)
    proba = head.predict_proba(query)
    assert np.allclose(proba[:, 0], [0, 1, 0])
    assert loss(proba[:, 1:]) < 0.8 * loss(prior[:, 1:])
    noise = LabelFusion(**QUICK).fit(only(train, 1), labels).predict_proba(only(query, 1))
    assert loss(noise[:, 1:]) < 1.05 * loss(prior[:, 1:])
    one = LabelFusion(**QUICK).fit(train.rows(np.array([0])), labels[:1]).predict_proba(query)
    assert np.array_equal(one, LabelPrior().fit(train.rows(np.array([0])), labels[:1]).predict_proba(query))


def test_concat_pca_is_ridge_on_components():
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    train, Y, query, _ = screen()
    scaled = []
    for rows in (train, query):
        blocks = []
        for _, where in BLOCKS:
            centred = train.X[:, where] - train.X[:, where].mean(axis=0)
            norm = np.sqrt(np.square(centred).sum(axis=1).mean())
            blocks.append((rows.X[:, where] - train.X[:, where].mean(axis=0)) / norm)
        scaled.append(np.hstack(blocks).astype(np.float64))
    axes = PCA(5).fit(scaled[0])
    oracle = Ridge(alpha=3.0).fit(axes.transform(scaled[0]), Y).predict(axes.transform(scaled[1]))
    assert np.allclose(ConcatPCA(5, 3.0).fit(train, Y).predict(query), oracle, atol=1e-4)
    heads = [ConcatPCA(d, a) for d in (5, 2) for a in (0.1, 3.0)]
    for head, shared in zip(heads, ConcatPCA.path(heads, train, query), strict=True):
        assert np.allclose(shared.matrix(), head.weights(train, query), atol=1e-10)


def test_stacked_kernel_of_one_block_is_kernel_ridge():
    train, _, query, _ = screen()
    a, b = only(train, 0), only(query, 0)
    expected = KernelRidge(0.5, "rbf", 2.0).weights(a, b)  # neither centring nor scale moves its kernel
    assert np.allclose(StackedKernel(0.5, "rbf", 2.0).weights(a, b), expected, atol=1e-6)


def test_stacked_kernel_averages_over_shared_blocks():
    rng = np.random.default_rng(0)
    found = np.ones((6, 2), dtype=bool)
    found[1, 1] = found[2, 0] = False
    train = rows_of(rng.normal(size=(6, 14)), found=found)
    query = rows_of(rng.normal(size=(1, 14)), found=np.array([[True, False]]))
    mean = np.array([train.X[found[:, 0], :4].mean(axis=0)])
    norm = np.sqrt(np.square(train.X[found[:, 0], :4] - mean).sum(axis=1).mean())
    _, k = kernel_pair((train.X[found[:, 0], :4] - mean) / norm, (query.X[:, :4] - mean) / norm, "linear", 1.0)
    total, asked = _stacked(train, query, "linear", 1.0)
    assert np.allclose(asked[0, found[:, 0]], k[0], atol=1e-6)
    assert asked[0, 2] == 0  # the query has the first block alone, row 2 the second alone
    assert np.linalg.eigvalsh(total).min() > -1e-9
    weights = StackedKernel(0.1, "linear").weights(train, query)
    assert weights.sum() == pytest.approx(1.0)


def test_helpers_are_what_scikit_learn_computes():
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor

    rng = np.random.default_rng(0)
    X, Q, Y = rng.normal(size=(20, 4)), rng.normal(size=(5, 4)), rng.normal(size=(20, 3))
    for alpha, weights in zip((0.1, 7.0), ridge_path(X, Q, (0.1, 7.0)), strict=True):
        assert np.allclose(weights @ Y, Ridge(alpha=alpha).fit(X, Y).predict(Q))
    for weighting in ("uniform", "distance"):
        oracle = KNeighborsRegressor(4, weights=weighting).fit(X, Y).predict(Q)
        assert np.allclose(neighbour_weights(X, Q, 4, "l2", weighting) @ Y, oracle, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_block": 1.0}, "drop_block must be in"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"rank": 0}, "rank must be a whole number"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Fusion(**options)
