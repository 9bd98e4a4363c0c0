"""The equations of the heads that generate cells, against closed forms: Gaussian transport, bridges, diffusion."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from sklearn.kernel_ridge import KernelRidge

from embbench.core import Inputs
from embbench.heads import _anchor
from embbench.heads._anchor import FLAT, Anchor
from embbench.heads._coupling import UNDERFLOW, couple, entropic_plan, matched_controls
from embbench.heads._leave_out import left_out, unit_blocks
from embbench.heads.flow_matching import FlowMatching
from embbench.heads.latent_diffusion import LatentDiffusion, signal
from embbench.heads.schrodinger_bridge import SchrodingerBridge

MANY = 100_000


def stream(seed=0):
    """A source of float64 normal draws."""
    return torch.Generator().manual_seed(seed)


def normal(shape, rng):
    return torch.randn(shape, generator=rng, dtype=torch.float64)


# ---- flow matching -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.6, 1.0])
def test_flow_points_targets_and_blurred_starts_follow_the_formula(noise):
    rng, head = stream(), FlowMatching(noise=noise)
    start, end, e = (normal((MANY, 1), rng) for _ in range(3))
    t = torch.rand(MANY, 1, generator=rng, dtype=torch.float64)
    points, target = head.practise(start, end, t, e)
    first = math.sqrt(1 - noise**2) * start + noise * e
    torch.testing.assert_close(points, first + t * (end - first))
    torch.testing.assert_close(target[:, 0], end - first)
    # standard normal controls stay standard normal; the correlation with the control cell is the root of 1 - noise^2
    assert first.var().item() == pytest.approx(1.0, abs=0.02)
    assert torch.corrcoef(torch.hstack([start, first]).T)[0, 1].item() == pytest.approx(
        math.sqrt(1 - noise**2), abs=0.02
    )


def test_flow_carries_a_gaussian_to_a_gaussian():
    mu, s = torch.tensor([1.5, -2.0], dtype=torch.float64), 0.4

    def vector(x, t):
        """E[x1 - x0 | x_t] of independent x0 ~ N(0, I), x1 ~ N(mu, s^2 I)."""
        t = t[:, None]
        variance = (1 - t) ** 2 + t**2 * s**2
        return (mu + (t * s**2 - (1 - t)) / variance * (x - t * mu))[:, None]

    start = normal((MANY, 2), stream())
    head = FlowMatching(solver="rk4", solver_steps=40, noise=0.0)
    end = head.carry(vector, start, lambda: torch.zeros_like(start))
    torch.testing.assert_close(end, mu + s * start, atol=1e-5, rtol=0)  # the exact map of this flow
    change = head.mean_change(vector, start, lambda: torch.zeros_like(start))
    torch.testing.assert_close(change, mu - start)  # E[x1 - x0 | x0]
    noisy = FlowMatching(solver="rk4", solver_steps=15, noise=0.7).carry(
        vector, start, lambda: normal((MANY, 2), stream(1))
    )
    assert noisy.mean(0).numpy() == pytest.approx(mu.numpy(), abs=0.01)
    assert noisy.std(0).numpy() == pytest.approx([s, s], abs=0.01)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_solvers_have_their_order(solver, order):
    start = torch.ones(1, 1, dtype=torch.float64)

    def error(steps):
        head = FlowMatching(solver=solver, solver_steps=steps, noise=0.0)
        # not autonomous, so that stage times count: x = exp(-t - t^2 / 2)
        end = head.carry(lambda x, t: -((1 + t)[:, None] * x)[:, None], start, lambda: torch.zeros_like(start))
        return abs(end.item() - math.exp(-1.5))

    assert math.log2(error(16) / error(32)) == pytest.approx(order, abs=0.35)


def test_evaluations_are_counted():
    start = torch.zeros(3, 2)
    for head in (
        *(FlowMatching(solver=s, solver_steps=3) for s in ("euler", "heun", "rk4")),
        *(SchrodingerBridge(sampler=s, solver_steps=3) for s in ("sde", "ode")),
        LatentDiffusion(solver_steps=3),
    ):
        calls = []

        def vector(x, t, calls=calls, head=head):
            calls.append(t[0].item())
            return torch.zeros(len(x), head.outputs, x.shape[1])

        head.carry(vector, start, lambda: torch.zeros(3, 2))
        assert len(calls) == head.evaluations
        assert all(0 <= time <= 1 for time in calls)


# ---- Schrödinger bridge --------------------------------------------------------------------------------------------


def test_bridge_marginals():
    head, x0, x1, rng = SchrodingerBridge(sigma=0.7), 1.0, -2.0, stream()
    start, end = torch.full((MANY, 1), x0, dtype=torch.float64), torch.full((MANY, 1), x1, dtype=torch.float64)
    for time in (0.0, 0.1, 0.5, 0.9, 1.0):
        t, e = torch.full((MANY, 1), time, dtype=torch.float64), normal((MANY, 1), rng)
        points, target = head.practise(start, end, t, e)
        assert points.mean().item() == pytest.approx((1 - time) * x0 + time * x1, abs=0.01)
        assert points.var().item() == pytest.approx(0.49 * time * (1 - time), abs=0.002)
        assert torch.equal(target[:, 0], end - start)
        assert torch.equal(target[:, 1], e)


def one_pair(head, x0, x1):
    """The exact fields where there is one pair: x1 - x0, and the noise that a point must have come from."""

    def vector(x, t):
        t = t[:, None]
        noise = (x - (1 - t) * x0 - t * x1) / (head.sigma * (t * (1 - t)).sqrt()).clamp(min=1e-12)
        return torch.stack([(x1 - x0).expand_as(x), noise], dim=1)

    return vector


def test_bridge_fields_give_the_published_flow_score_and_drift():
    head, rng = SchrodingerBridge(sigma=1.3), stream()
    x0, x1, x = (normal((50, 3), rng) for _ in range(3))
    t = 0.02 + 0.96 * torch.rand(50, generator=rng, dtype=torch.float64)
    fields, time = one_pair(head, x0, x1)(x, t), t[:, None]
    mean = (1 - time) * x0 + time * x1
    # [SF]2M equation 8, for the Brownian bridge
    u = (1 - 2 * time) / (2 * time * (1 - time)) * (x - mean) + (x1 - x0)
    score = (mean - x) / (head.sigma**2 * time * (1 - time))
    torch.testing.assert_close(head.flow(fields, t), u)
    torch.testing.assert_close(head.score(fields, t), score)
    torch.testing.assert_close(head.drift(fields, t), u + head.sigma**2 / 2 * score)
    torch.testing.assert_close(head.drift(fields, t), (x1 - x) / (1 - time))  # of a Brownian bridge


def test_bridge_processes_end_where_they_must():
    start, x1, rng = (
        torch.full((20_000, 1), 0.5, dtype=torch.float64),
        torch.tensor([2.0], dtype=torch.float64),
        stream(),
    )
    sde = SchrodingerBridge(sigma=0.8, sampler="sde", solver_steps=200)
    end = sde.carry(one_pair(sde, start, x1), start, lambda: normal(start.shape, rng))
    # the last step's drift leads to x1 exactly, and adds a last draw of noise
    assert end.mean().item() == pytest.approx(2.0, abs=0.01)
    assert end.std().item() == pytest.approx(0.8 * 200**-0.5, rel=0.05)
    ode = SchrodingerBridge(sigma=0.8, sampler="ode", solver_steps=200)
    end = ode.carry(one_pair(ode, start, x1), start, lambda: normal(start.shape, rng))
    assert end.mean().item() == pytest.approx(2.0, abs=0.03)
    assert end.std().item() == pytest.approx(0.8 * math.sqrt(0.01 * 0.99), rel=0.1)  # of the bridge at time 0.99


def gaussian_bridge(head, mu, s):
    """The exact fields of the Schrödinger bridge from N(0, 1) to N(mu, s^2), and the covariance of its ends.

    Entropic transport of Gaussians: Janati et al. (2020), theorem 1, with regularisation sigma^2 of squared distances
    / 2; all of x0, x1 and e are jointly normal with x_t, so the fields are regressions.
    """
    eps = head.sigma**2
    c = math.sqrt(s**2 + eps**2 / 4) - eps / 2

    def vector(x, t):
        t = t[:, None]
        v = (1 - t) ** 2 + t**2 * s**2 + 2 * t * (1 - t) * c + eps * t * (1 - t)
        gap = ((1 - t) * c + t * s**2) - ((1 - t) + t * c)
        noise = head.sigma * (t * (1 - t)).sqrt()
        return torch.stack([mu + gap / v * (x - t * mu), noise / v * (x - t * mu)], dim=1)

    return vector, c


@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_bridge_between_gaussians(sampler):
    head, mu, s = SchrodingerBridge(sigma=0.9, sampler=sampler, solver_steps=200), 1.2, 1.7
    vector, c = gaussian_bridge(head, mu, s)
    start, rng = normal((MANY // 4, 1), stream()), stream(1)
    end = head.carry(vector, start, lambda: normal(start.shape, rng))
    assert end.mean().item() == pytest.approx(mu, abs=0.03)
    assert end.std().item() == pytest.approx(s, rel=0.02)
    if sampler == "sde":  # the process couples its ends by the entropic plan
        assert torch.cov(torch.hstack([start, end]).T)[0, 1].item() == pytest.approx(c, abs=0.03)
    change = head.mean_change(vector, start, lambda: torch.zeros_like(start))
    torch.testing.assert_close(change, mu + (c - 1) * start)


# ---- couplings -----------------------------------------------------------------------------------------------------


def test_entropic_plan_of_gaussians():
    rng, m, s, eps = np.random.default_rng(0), 800, 1.5, 0.8
    quantiles = torch.special.ndtri((torch.arange(m, dtype=torch.float64) + 0.5) / m).numpy()
    x, y = quantiles[:, None], 2.0 + s * rng.permutation(quantiles)[:, None]
    plan = entropic_plan(cdist(x, y, "sqeuclidean") / 2, eps)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / m, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / m, rtol=1e-4)
    covariance = (x[:, 0] @ plan @ (y[:, 0] - 2.0)).item()
    assert covariance == pytest.approx(math.sqrt(s**2 + eps**2 / 4) - eps / 2, rel=0.02)


def test_both_branches_of_sinkhorn_give_one_plan(monkeypatch):
    rng = np.random.default_rng(1)
    cost = cdist(rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), "sqeuclidean") / 2
    plain = entropic_plan(cost, 0.5)
    monkeypatch.setattr("embbench.heads._coupling.UNDERFLOW", 0.0)
    np.testing.assert_allclose(entropic_plan(cost, 0.5), plain, rtol=1e-9, atol=1e-15)
    monkeypatch.undo()
    sharp = entropic_plan(cost, 1e-4 * cost.max(), iterations=3000)
    assert (cost.max() - cost.min()) / (1e-4 * cost.max()) > -UNDERFLOW
    best = cost[linear_sum_assignment(cost)].mean()
    assert np.isfinite(sharp).all()
    assert (sharp * cost).sum() == pytest.approx(best, rel=0.02)


def test_exact_coupling_is_the_assignment_and_stays_within_batches():
    rng = np.random.default_rng(2)
    x, y, batches = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)), rng.integers(0, 3, 30)
    cost = cdist(x, y, "sqeuclidean")
    order = couple(x, y, "exact", np.zeros(30, int))
    assert sorted(order) == list(range(30))
    assert cost[order, np.arange(30)].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum())
    for kind in ("exact", "sinkhorn"):
        order = couple(x, y, kind, batches, epsilon=0.5)
        assert (batches[order] == batches).all()
    order = couple(x, y, "exact", batches)
    want = sum(
        cost[np.ix_(b, b)][linear_sum_assignment(cost[np.ix_(b, b)])].sum()
        for b in (np.flatnonzero(batches == k) for k in range(3))
    )
    assert cost[order, np.arange(30)].sum() == pytest.approx(want)
    assert couple(x, y, "independent", batches).tolist() == list(range(30))
    assert couple(x[:1], y[:1], "exact", batches[:1]).tolist() == [0]


def test_sinkhorn_coupling_draws_from_the_plan():
    x, y = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [2.0], [2.5]])
    plan = entropic_plan(cdist(x, y, "sqeuclidean") / 2, 1.0, iterations=500)
    drawn = np.stack([couple(x, y, "sinkhorn", np.zeros(3, int), epsilon=1.0, seed=s) for s in range(3000)])
    for column in range(3):
        share = np.bincount(drawn[:, column], minlength=3) / 3000
        assert share == pytest.approx(3 * plan[:, column], abs=0.04)


def test_matched_controls():
    rng = np.random.default_rng(0)
    pool, wanted = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 2, 0])
    out = matched_controls(wanted, pool, rng)
    assert (pool[out[[0, 4]]] == 0).all()
    assert out[0] != out[4]
    assert (out[[1, 2]] == 3).all()
    assert 0 <= out[3] < 4


# ---- diffusion -----------------------------------------------------------------------------------------------------


def test_the_cosine_schedule():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    f = [math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 for u in t.tolist()]
    assert signal(t).square().numpy() == pytest.approx([value / f[0] for value in f], abs=1e-12)
    assert signal(torch.tensor([0.5], dtype=torch.float64)).item() ** 2 == pytest.approx(0.4938, abs=1e-4)


def gaussian_diffusion(head, mu, s):
    """The optimal field for y ~ N(mu, s^2): the objective's expectation given y_t, less the optimum for N(0, 1)."""

    def vector(x, t):
        c = signal(t)[:, None]
        n = (1 - c * c).sqrt()
        v = c**2 * s**2 + n**2
        y, e = mu + c * s**2 / v * (x - c * mu), n / v * (x - c * mu)
        return {"v": c * e - n * y, "epsilon": (e - n * x) / c, "x0": y - c * x}[head.objective][:, None]

    return vector


@pytest.mark.parametrize("objective", ["v", "epsilon", "x0"])
def test_diffusion_objectives_agree_and_give_the_score(objective):
    mu, s, rng = 0.8, 0.5, stream()
    head = LatentDiffusion(objective=objective)
    x, t = 2 * normal((40, 3), rng), 0.05 + 0.9 * torch.rand(40, generator=rng, dtype=torch.float64)
    c = signal(t)[:, None]
    n = (1 - c * c).sqrt()
    clean, e = head.estimates(gaussian_diffusion(head, mu, s)(x, t)[:, 0], x, c)
    v = c**2 * s**2 + n**2
    torch.testing.assert_close(clean, mu + c * s**2 / v * (x - c * mu))
    torch.testing.assert_close(-e / n, -(x - c * mu) / v)  # the score of N(c mu, c^2 s^2 + n^2)
    # an untrained field is the optimum for a standard normal
    clean, e = head.estimates(torch.zeros_like(x), x, c)
    torch.testing.assert_close(clean, c * x)
    torch.testing.assert_close(e, n * x)


@pytest.mark.parametrize("objective", ["v", "epsilon", "x0"])
def test_diffusion_targets(objective):
    rng, head = stream(), LatentDiffusion(objective=objective)
    y, e = normal((60, 2), rng), normal((60, 2), rng)
    t = torch.rand(60, 1, generator=rng, dtype=torch.float64)
    points, target = head.practise(torch.zeros_like(y), y, t, e)
    c = signal(t)
    torch.testing.assert_close(points, c * y + (1 - c * c).sqrt() * e)
    # a network that hits its target recovers cell and noise
    clean, noise = head.estimates(target[:, 0] / head.gain(t), points, c)
    torch.testing.assert_close(clean, y)
    torch.testing.assert_close(noise, e)


@pytest.mark.parametrize(
    ("objective", "sampler", "eta"),
    [("v", "ddim", 0.0), ("epsilon", "ddim", 0.0), ("x0", "ddim", 0.5), ("v", "ddpm", 0.0), ("epsilon", "ddpm", 0.0)],
)
def test_diffusion_samples_a_gaussian(objective, sampler, eta):
    mu, s, rng = 1.5, 0.6, stream()
    head = LatentDiffusion(objective=objective, sampler=sampler, eta=eta, solver_steps=200)
    start = torch.zeros(MANY // 10, 2, dtype=torch.float64)

    def noise():
        half = normal((len(start) // 2, 2), rng)
        return torch.cat([half, -half])  # draws and their mirror images: the mean is exact

    end = head.carry(gaussian_diffusion(head, mu, s), start, noise)
    assert end.mean(0).numpy() == pytest.approx([mu, mu], abs=2e-3)
    assert end.std(0).numpy() == pytest.approx([s, s], rel=0.03)
    change = head.mean_change(gaussian_diffusion(head, mu, s), start + 0.3, noise)
    assert change.numpy() == pytest.approx(mu - 0.3, abs=1e-3)


def test_ddim_ends_in_the_closed_form_of_its_steps():
    """For N(0, 1) the optimal field changes nothing at any step, whatever their number."""
    start = torch.zeros(50, 2, dtype=torch.float64)
    head = LatentDiffusion(solver_steps=3)
    drawn = normal(start.shape, stream())
    end = head.carry(lambda x, t: torch.zeros_like(x)[:, None], start, lambda: drawn)
    turn = 1.0
    times = torch.linspace(0.9999, 0.0, 4).tolist()
    for now, then in pairwise(times):
        a, b = (math.acos(min(1.0, float(signal(torch.tensor(t, dtype=torch.float64))))) for t in (now, then))
        turn *= math.cos(a - b)
    torch.testing.assert_close(end, turn * drawn)


# ---- guidance ------------------------------------------------------------------------------------------------------


def test_guidance_is_the_published_mixture():
    head = FlowMatching(guidance=2.5, latent_dim=2, width=8, depth=1)

    class Nothing:
        """Conditions whose hidden form is 0."""

        conditions = type("C", (), {"nothing": staticmethod(torch.zeros_like)})

    head.carrier_ = Nothing()

    def net(x, t, told, source):
        return (x * told[:, :1] + t[:, None] + source)[:, None]

    x, told = normal((5, 2), stream()), torch.full((5, 1), 3.0, dtype=torch.float64)
    t = torch.full((5,), 0.25, dtype=torch.float64)
    got = head._vector(net, told, x)(x, t)
    want = ((1 - 2.5) * (0.25 + x) + 2.5 * (3 * x + 0.25 + x))[:, None]  # (1 - w) nothing + w told
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


# ---- anchor --------------------------------------------------------------------------------------------------------


def rows(X, context, sets=None, dose=None):
    sets = [(i,) for i in range(len(X))] if sets is None else sets
    flat = [(i, code) for i, s in enumerate(sets) for code in s]
    table = sparse.csr_matrix((np.ones(len(flat), np.float32), tuple(zip(*flat, strict=True))), shape=(len(X), 99))
    return Inputs(np.asarray(X, np.float32), np.asarray(context), table, tuple(sets), dose=dose)


def two_contexts(n=24, g=7, seed=0):
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.normal(size=(n // 2, 4)), 2, axis=0)
    context = np.tile([0, 1], n // 2)
    Y = X @ rng.normal(size=(4, g)) + rng.normal(size=(2, g))[context] + 0.4 * rng.normal(size=(n, g))
    return rows(X, context, [(i // 2,) for i in range(n)]), Y.astype(np.float32)


def test_anchor_is_gaussian_process_regression():
    inputs, Y = two_contexts()
    anchor = Anchor.fitted(inputs, Y)
    query = rows(np.random.default_rng(9).normal(size=(5, 4)), [0, 1, 0, 1, 7], [(50,)] * 5)
    kernel = _anchor._prior(anchor.setting, anchor.train, anchor.train, anchor.train)
    across = _anchor._prior(anchor.setting, query, anchor.train, anchor.train)
    ridge = KernelRidge(alpha=anchor.penalty, kernel="precomputed").fit(kernel, Y)
    np.testing.assert_allclose(anchor.predict(query), ridge.predict(across), atol=1e-3)


@pytest.mark.parametrize(("share", "identity"), [(1.0, 0.0), (0.7, 1.0), (0.0, 1.0)])
def test_prior_is_the_stated_covariance(share, identity):
    inputs, Y = two_contexts()
    got = _anchor._prior(_anchor._Setting("linear", share, identity), inputs, inputs, inputs)
    X, n = inputs.X.astype(np.float64) - inputs.X.mean(axis=0, dtype=np.float64), len(Y)
    X /= math.sqrt(np.trace(X @ X.T) / n)
    want = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            here = inputs.context[i] == inputs.context[j]
            same = inputs.units[i] == inputs.units[j]
            want[i, j] = (X[i] @ X[j] + identity * same) * (share + (1 - share) * here) + FLAT[0] + FLAT[1] * here
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_anchor_with_linear_kernel_is_sklearns(monkeypatch):
    inputs, Y = two_contexts()
    inputs = rows(inputs.X, np.zeros(len(Y), int), list(inputs.units))
    monkeypatch.setattr(_anchor, "_settings", lambda rows: [_anchor._Setting("linear", 1.0, 0.0)])
    monkeypatch.setattr(_anchor, "PENALTIES", (0.3,))
    centre = inputs.X.mean(axis=0, dtype=np.float64)
    size = np.sqrt(np.square(inputs.X - centre).sum(axis=1).mean())
    kernel = DotProduct(sigma_0=math.sqrt(sum(FLAT)), sigma_0_bounds="fixed")
    process = GaussianProcessRegressor(kernel, alpha=0.3, optimizer=None).fit((inputs.X - centre) / size, Y)
    query = rows(np.random.default_rng(4).normal(size=(6, 4)), np.zeros(6, int))
    want = process.predict((query.X - centre) / size)
    np.testing.assert_allclose(Anchor.fitted(inputs, Y).predict(query), want, atol=1e-3)


def test_anchor_leaves_out_what_a_refit_leaves_out():
    inputs, Y = two_contexts()
    Y = Y.astype(np.float64)
    setting, penalty = _anchor._Setting("rbf", 0.7, 1.0), 0.3
    prior = _anchor._prior(setting, inputs, inputs, inputs)
    smoother = prior @ np.linalg.inv(prior + penalty * np.eye(len(Y)))
    errors = left_out(smoother, Y, unit_blocks(inputs.units))
    for unit in (0, 5):
        out = np.array([u == (unit,) for u in inputs.units])
        dual = np.linalg.solve(prior[np.ix_(~out, ~out)] + penalty * np.eye(int((~out).sum())), Y[~out])
        np.testing.assert_allclose(errors[out], Y[out] - prior[np.ix_(out, ~out)] @ dual, atol=1e-4)


def test_anchor_chooses_the_setting_with_the_smallest_error():
    inputs, Y = two_contexts()
    best = (np.inf, None)
    for setting in _anchor._settings(inputs):
        prior = _anchor._prior(setting, inputs, inputs, inputs)
        for penalty in _anchor.PENALTIES:
            smoother = np.linalg.solve(prior + penalty * np.eye(len(Y)), prior).T
            error = np.square(left_out(smoother, Y.astype(np.float64), unit_blocks(inputs.units))).sum()
            best = min(best, (error, (setting, penalty)), key=lambda pair: pair[0])
    anchor = Anchor.fitted(inputs, Y)
    assert (anchor.setting, anchor.penalty) == best[1]


def test_anchor_in_an_unseen_context_is_a_mean_over_contexts():
    inputs, Y = two_contexts(seed=3)
    Y -= Y.mean(axis=0)
    Y += 5.0 * (inputs.context == 1)[:, None]
    inputs = rows(np.zeros((len(Y), 4)), inputs.context, list(inputs.units))  # vectors that tell nothing
    query = rows(np.zeros((3, 4)), [0, 1, 4], [(60,), (61,), (62,)])
    got = Anchor.fitted(inputs, Y).predict(query)
    means = [Y[inputs.context == c].mean(axis=0) for c in (0, 1)]
    np.testing.assert_allclose(got[:2], means, atol=0.05 * np.abs(means).max())
    np.testing.assert_allclose(got[2], np.mean(means, axis=0), atol=0.02)


def test_anchor_of_one_unit_one_row_and_constant_effects():
    one = rows(np.ones((1, 4)), [0])
    np.testing.assert_allclose(Anchor.fitted(one, np.full((1, 3), 2.0, np.float32)).predict(one), 2.0, rtol=1e-2)
    inputs, Y = two_contexts()
    flat = np.full_like(Y, 1.5)
    np.testing.assert_allclose(Anchor.fitted(inputs, flat).predict(inputs), 1.5, rtol=1e-3)
