"""PerturBench's four: forward passes against numpy, matching of controls, and what they learn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import sparse

torch = pytest.importorskip("torch")

from embbench.core import CellView, Inputs  # noqa: E402
from embbench.heads._perturbench import _regressed  # noqa: E402
from embbench.heads._perturbench_cells import Matched, baseline_of  # noqa: E402
from embbench.heads._perturbench_nets import inverse_softplus, mlp  # noqa: E402
from embbench.heads.context_mean import ContextMean  # noqa: E402
from embbench.heads.covariate_only import CovariateOnly  # noqa: E402
from embbench.heads.decoder_only import DecoderOnly  # noqa: E402
from embbench.heads.latent_additive import LatentAdditive, straight_through  # noqa: E402
from embbench.heads.linear_additive import LinearAdditive  # noqa: E402
from embbench.heads.no_change import NoChange  # noqa: E402

HEADS = (LinearAdditive, LatentAdditive, DecoderOnly, CovariateOnly)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Few:
    """Cells of a screen whose batches can be told by the last gene: it holds the batch's number."""

    base: np.ndarray
    shifted: np.ndarray
    empty: int = -1

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        rng = np.random.default_rng([7, context, half == "B"])
        cells = rng.normal(self.base[context], 0.3, (60, self.base.shape[1])).astype(np.float32)
        cells[:, -1] = self.batches(context)
        return cells

    def n_controls(self, context: int, half: str = "A") -> int:
        return 60

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        return np.arange(60) % 3

    def perturbed(self, row: int) -> np.ndarray:
        m = 0 if row == self.empty else 20
        cells = np.random.default_rng([8, row]).normal(self.shifted[row], 0.3, (m, self.base.shape[1]))
        cells[:, -1] = self.perturbed_batches(row)
        return cells.astype(np.float32)

    def perturbed_batches(self, row: int) -> np.ndarray:
        return np.arange(0 if row == self.empty else 20) % 4  # batch 3 has no controls


def screen(n: int = 100, g: int = 15, *, cells: bool = True, empty: int = -1):
    """Effects linear in the embedding, two contexts with means of their own; the last 25 perturbations are asked."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 3))
    base = rng.uniform(1.5, 4.0, size=(2, g))
    effect = np.concatenate([z @ rng.normal(size=(3, g)) * 0.4 + rng.normal(size=g) * 0.4] * 2)
    effect[n:] += 0.4
    effect[:, -1] = 0.0
    context = np.repeat([0, 1], n)
    source = Few(base, base[context] + effect, empty)
    index = np.tile(np.arange(n), 2)
    inputs = Inputs(
        X=z[index].astype(np.float32), context=context,
        entities=sparse.csr_matrix(sparse.eye(n, format="csr", dtype=np.float32)[index]),
        units=tuple((int(i),) for i in index), baseline=np.stack([source.controls(c).mean(axis=0) for c in (0, 1)]),
        cells=CellView(source, np.arange(2 * n)) if cells else None,
    )  # fmt: skip
    new = index >= n - 25
    query = inputs.rows(new)
    if cells:
        query = replace(query, cells=CellView(source, np.array([], dtype=int)))
    return inputs.rows(~new), effect[~new].astype(np.float32), query, effect[new]


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def block(x: np.ndarray, linear: torch.nn.Linear) -> np.ndarray:
    """Linear map, LayerNorm without parameters, ReLU."""
    h = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    h = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-5)
    return np.maximum(h, 0)


def last(h: np.ndarray, linear: torch.nn.Linear) -> np.ndarray:
    return h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()


def random_rows(d: int = 3, q: int = 2, g: int = 15) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.rand(6, g) * 3, torch.randn(6, d), torch.randn(6, q)]


def matched() -> Matched:
    train, Y, _, _ = screen()
    return Matched.of(train, Y, 0, CPU)


def test_linear_additive_is_its_equation():
    net = LinearAdditive().network(3, 2, matched())
    torch.nn.init.normal_(net.shift.weight)
    x0, p, c = random_rows()
    W, b = net.shift.weight.detach().numpy(), net.shift.bias.detach().numpy()
    expected = softplus(x0.numpy() + np.hstack([p.numpy(), c.numpy()]) @ W.T + b)
    assert np.allclose(net(x0, p, c).detach().numpy(), expected, atol=1e-5)


def test_linear_additive_starts_at_the_mean_cell():
    start = matched()
    net = LinearAdditive().network(3, 2, start)
    out = net(start.controls, torch.zeros(len(start.controls), 3), torch.zeros(len(start.controls), 2))
    assert torch.allclose(out.mean(dim=0), start.cells.mean(dim=0), atol=1e-3)


def test_decoders_are_their_equation():
    net = DecoderOnly(width=8, layers=2).network(3, 2, matched()).eval()
    x0, p, c = random_rows()
    first, second, out = (m for m in net.decode if isinstance(m, torch.nn.Linear))
    expected = softplus(last(block(block(np.hstack([p.numpy(), c.numpy()]), first), second), out))
    assert np.allclose(net(x0, p, c).detach().numpy(), expected, atol=1e-4)
    assert torch.equal(net(x0, p, c), net(x0 + 1, p, c))


@pytest.mark.parametrize("cell", ["expression", "pca"])
@pytest.mark.parametrize("mask", ["none", "bernoulli"])
def test_latent_additive_is_its_equation(cell, mask):
    net = LatentAdditive(width=8, latent=4, cell=cell, mask=mask).network(3, 2, matched()).eval()
    x0, p, c = random_rows()

    def apply(part: torch.nn.Module, x: np.ndarray) -> np.ndarray:
        first, out = (m for m in part if isinstance(m, torch.nn.Linear))
        return last(block(x, first), out)

    seen = x0.numpy() if cell == "expression" else (x0.numpy() - net.mean.numpy()) @ net.axes.numpy()
    moved = apply(net.perturb, p.numpy())
    if mask == "bernoulli":
        moved = moved * (apply(net.mask, p.numpy()) > 0)
    latent = apply(net.encode, np.hstack([seen, c.numpy()])) + moved
    expected = softplus(apply(net.decode, np.hstack([latent, c.numpy()])))
    assert np.allclose(net(x0, p, c).detach().numpy(), expected, atol=1e-4)


def test_straight_through_mask():
    logits = torch.full((200_000,), 1.0, requires_grad=True)
    torch.manual_seed(0)
    mask = straight_through(logits, random=True)
    p = 1 / (1 + np.exp(-1.0))
    assert torch.isclose(mask, mask.round(), atol=1e-6).all()
    assert mask.mean().item() == pytest.approx(p, abs=0.005)
    mask.sum().backward()
    assert torch.allclose(logits.grad, torch.full_like(logits, p * (1 - p)))


def test_inverse_softplus():
    y = torch.tensor([1e-3, 0.5, 30.0])
    assert torch.allclose(torch.nn.functional.softplus(inverse_softplus(y)), y, rtol=1e-4)
    assert torch.isfinite(inverse_softplus(torch.zeros(2))).all()


def test_mlp_has_the_published_blocks():
    kinds = [type(m).__name__ for m in mlp(3, 8, 2, 5, 0.1)]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert not list(mlp(3, 8, 1, 5, 0.1)[1].parameters())


def test_controls_are_of_the_cell_s_context_and_batch():
    train, Y, _, _ = screen()
    pool = Matched.of(train, Y, 0, CPU)
    torch.manual_seed(0)
    rows = torch.arange(len(train)).repeat(40)
    x, x0 = pool.draw(rows)
    batch, own = x[:, -1], x0[:, -1]
    assert torch.equal(own[batch < 3], batch[batch < 3])
    assert set(own[batch == 3].tolist()) == {0.0, 1.0, 2.0}
    tables = [{c.tobytes() for c in train.cells.controls(code)} for code in (0, 1)]
    for cell, row in list(zip(x0.numpy(), rows.tolist(), strict=True))[:400]:
        assert cell.tobytes() in tables[int(train.context[row])]


def test_rows_without_cells_are_left_out():
    train, Y, query, _ = screen(empty=0)
    pool = Matched.of(train, Y, 0, CPU)
    assert pool.count[0] == 0
    out = LinearAdditive(steps=25, patience=1, batch_size=16, device="cpu").fit(train, Y).predict(query)
    assert np.isfinite(out).all()
    with pytest.raises(ValueError, match="0 perturbed cells in 1 rows"):
        LinearAdditive(device="cpu").fit(train.rows(np.array([0])), Y[:1])


def test_screens_without_cells_use_control_means():
    train, Y, query, _ = screen(cells=False)
    pool = Matched.of(train, Y, 0, CPU)
    x, x0 = pool.draw(torch.arange(len(train)))
    assert np.allclose(x.numpy(), train.baseline[train.context] + Y, atol=1e-6)
    assert np.allclose(x0.numpy(), train.baseline[train.context], atol=1e-6)
    with pytest.raises(ValueError, match="needs control means"):
        DecoderOnly(device="cpu").fit(replace(train, baseline=None), Y)
    head = LatentAdditive(width=16, latent=4, steps=25, device="cpu").fit(train, Y)
    with pytest.raises(ValueError, match="no single cells"):
        head.sample(query, 3)


def test_baseline_of_a_context_without_controls():
    train, _, _, _ = screen()
    table = np.array([[1.0, 2.0], [3.0, 6.0], [np.nan, np.nan]])
    rows = replace(train, baseline=table)
    assert baseline_of(rows, 1).tolist() == [3.0, 6.0]
    assert baseline_of(rows, 2).tolist() == [2.0, 4.0]


def test_regression_estimator_is_exact_for_linear_outputs():
    rng = torch.Generator().manual_seed(0)
    starts, slope = torch.randn(500, 4, generator=rng, dtype=torch.float64), torch.tensor([0.5, -1.0, 0.0, 2.0])
    outputs = (starts * slope + 3.0)[None]
    found = _regressed(outputs[:, :50], starts[:50], starts.mean(dim=0))
    assert torch.allclose(found[0], (starts * slope + 3.0).mean(dim=0))
    assert torch.isfinite(_regressed(outputs[:, :1], starts[:1], starts.mean(dim=0))).all()


@pytest.mark.parametrize("cells", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_learns(head, cells):
    train, Y, query, truth = screen(cells=cells)
    more = {} if head is LinearAdditive else {"width": 64}
    fitted = head(steps=500, lr=5e-3, batch_size=128, device="cpu", **more).fit(train, Y)
    error, mean, still = (
        np.square(h.predict(query) - truth).mean()
        for h in (fitted, ContextMean().fit(train, Y), NoChange().fit(train, Y))
    )
    assert error < 0.9 * still
    assert error < (1.15 if head is CovariateOnly else 0.7) * mean


@pytest.mark.parametrize("head", [LinearAdditive, LatentAdditive])
def test_prediction_is_the_mean_over_all_controls(head):
    train, Y, query, _ = screen()
    fitted = head(steps=75, device="cpu").fit(train, Y)
    few = query.rows(np.array([0, 30]))
    found, cells = fitted.sources(few, 60), fitted.sample(few, 60)
    for row in range(2):
        assert np.array_equal(np.sort(found.position[row]), np.arange(60))
        expected = cells[row].mean(axis=0) - few.baseline[few.context[row]]
        assert np.allclose(fitted.predict(few)[row], expected, atol=1e-4)


def test_covariate_only_reads_no_embedding():
    train, Y, query, _ = screen()
    head = CovariateOnly(width=16, steps=50, device="cpu")
    a = head.fit(train, Y).predict(query)
    other = [replace(rows, X=np.zeros((len(rows), 0), np.float32)) for rows in (train, query)]
    assert np.array_equal(a, head.fit(other[0], Y).predict(other[1]))
    assert np.array_equal(a[0], a[1])


def test_closed_controls_take_those_of_open_contexts():
    train, Y, query, _ = screen()
    first = np.flatnonzero(train.context == 0)
    head = LatentAdditive(width=16, latent=4, steps=25, device="cpu").fit(train.rows(first), Y[first])
    asked = query.rows(query.context == 1)
    asked = replace(
        asked,
        cells=replace(asked.cells, contexts=frozenset({0})),
        baseline=np.where(np.array([[True], [False]]), asked.baseline, np.nan),
    )
    assert np.isfinite(head.predict(asked)).all()
    assert (head.sources(asked, 5).context == 0).all()
