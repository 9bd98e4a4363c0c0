"""The public reference design of generative heads, written anew: a diffusion transformer over latent coordinates.

Every latent coordinate of a cell is a token; depth 4, width 128, 4 heads, adaLN-zero conditioning on time and on the
perturbation's vector (Peebles and Xie 2023, section 3.2). Three objectives on the same network:

- ``flow``: straight paths from a control to a perturbed cell (Lipman et al. 2023; Tong et al. 2024, independent
  coupling); midpoint rule, 25 steps of two evaluations (50 steps cost twice the 50 CPU s per 1,000 cells of the
  public design, these as much).
- ``diffusion``: noise to perturbed cell, epsilon objective on the linear schedule, 1,000 ancestral steps (Ho et al.
  2020, algorithms 1 and 2); the control cell is a second channel of every token.
- ``bridge``: Brownian bridges between the two cells, flow and score in two output channels, Euler-Maruyama, 1,000 steps
  (Tong et al. 2023, [SF]2M, equations 9 and 11).

Usage: ``python bench/_reference_dit.py [--steps 3] [--batch 256] [--latent 50] [--cells 32] [--device cpu]`` prints
parameters, seconds per training step and per 1,000 sampled cells (scaled up from a few) of each objective: CPU seconds
of one thread, or wall seconds on cuda. `bench/generative_speed.py` calls `train` and `sample` on real data.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

OBJECTIVES = ("flow", "diffusion", "bridge")
CHANNELS = {"flow": (1, 1), "diffusion": (2, 1), "bridge": (1, 2)}  # read and written per token
STEPS = {"flow": 25, "diffusion": 1000, "bridge": 1000}  # of sampling
SIGMA = 0.5  # of the bridges, in units of a coordinate's standard deviation
BETAS = (1e-4, 0.02)  # first and last of the diffusion's 1,000 levels
EDGE = 1e-3  # bridges are not looked at closer to their ends


def zeroed(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer whose output starts at 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm whose scale and shift, and a gate, come from the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), zeroed(width, 6 * width))

    def forward(self, tokens: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Tokens (b, k, width) given conditions (b, width)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition)[:, None].chunk(6, dim=-1)
        b, k, width = tokens.shape
        x = self.norms[0](tokens) * (1 + scale_a) + shift_a
        q, key, value = self.qkv(x).view(b, k, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, key, value).transpose(1, 2).reshape(b, k, width)
        tokens = tokens + gate_a * self.out(mixed)
        return tokens + gate_m * self.mlp(self.norms[1](tokens) * (1 + scale_m) + shift_m)


class DiT(nn.Module):
    """Channels (b, read, k) at times (b,) in [0, 1] given conditions (b, d) -> channels (b, written, k)."""

    def __init__(
        self, k: int, d: int, read: int = 1, written: int = 1, width: int = 128, depth: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        self.inlet, self.place = nn.Linear(read, width), nn.Parameter(0.02 * torch.randn(k, width))
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Sequential(nn.Linear(d, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), zeroed(width, 2 * width))
        self.outlet = zeroed(width, written)

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """See the class."""
        rates = torch.exp(-math.log(1e4) * torch.arange(128, device=x.device) / 128)
        angles = 1000.0 * t[:, None] * rates
        c = self.time(torch.cat([angles.cos(), angles.sin()], dim=1)) + self.condition(condition)
        tokens = self.inlet(x.transpose(1, 2)) + self.place
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)
        return self.outlet(self.norm(tokens) * (1 + scale) + shift).transpose(1, 2)


@dataclass(frozen=True)
class Trained:
    """A trained network, its objective, the latent coordinates' means and scales, and seconds per step (`clock`)."""

    objective: str
    net: DiT
    centre: np.ndarray
    scale: np.ndarray
    seconds_per_step: float

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.net.parameters())


def clock(device: str) -> float:
    """CPU seconds of this process; on cuda the time of day, once the device has nothing left to do."""
    if torch.device(device).type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def train(
    objective: str, controls: np.ndarray, cells: np.ndarray, conditions: np.ndarray, *, steps: int, batch: int = 256,
    lr: float = 1e-3, average: float = 0.99, seed: int = 0, control_context: np.ndarray | None = None,
    cell_context: np.ndarray | None = None, depth: int = 4, width: int = 128, heads: int = 4,
    device: str = "cpu",
) -> Trained:  # fmt: skip
    """Train on random pairs of a perturbed cell and a control cell of its context.

    Parameters
    ----------
    objective : one of `OBJECTIVES`.
    controls : shape (p, k), latent control cells.
    cells : shape (m, k), latent perturbed cells.
    conditions : shape (m, d), what the network is told of each perturbed cell (perturbation and context vectors).
    steps, batch, lr, average : AdamW steps (linear warm-up over a twentieth), batch size, learning rate, and the decay
        of the moving average of the weights, which is what is kept.
    control_context, cell_context : shapes (p,) and (m,), context codes; None: one context.
    depth, width, heads, device : of the network.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")
    both = np.concatenate([controls, cells]).astype(np.float64)
    centre, scale = both.mean(axis=0), np.where(both.std(axis=0) > 0, both.std(axis=0), 1.0)
    start, end, told = (
        torch.from_numpy(np.asarray(z, dtype=np.float32)).to(device)
        for z in ((controls - centre) / scale, (cells - centre) / scale, conditions)
    )
    home = np.zeros(len(cells), dtype=int) if cell_context is None else cell_context
    there = np.zeros(len(controls), dtype=int) if control_context is None else control_context
    pools = {code: torch.from_numpy(np.flatnonzero(there == code)) for code in np.unique(home).tolist()}
    codes = torch.from_numpy(np.asarray(home))
    torch.manual_seed(seed)
    read, written = CHANNELS[objective]
    net = DiT(cells.shape[1], told.shape[1], read, written, width, depth, heads).to(device)
    mean = copy.deepcopy(net).requires_grad_(requires_grad=False)
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.0)
    began = clock(device)
    for step in range(1, steps + 1):
        optimiser.param_groups[0]["lr"] = lr * min(1.0, step / max(1, steps // 20))
        rows = torch.randint(len(end), (batch,))
        partner = torch.empty(batch, dtype=torch.long)
        for code, pool in pools.items():
            own = codes[rows] == code
            partner[own] = pool[torch.randint(len(pool), (int(own.sum()),))]
        optimiser.zero_grad(set_to_none=True)
        loss(objective, net, *(z[i.to(device)] for z, i in ((start, partner), (end, rows), (told, rows)))).backward()
        optimiser.step()
        keep = min(average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(mean.parameters()), [p.detach() for p in net.parameters()], 1 - keep)
    seconds = (clock(device) - began) / max(1, steps)
    return Trained(objective, mean.eval(), centre, scale, seconds)


def loss(objective: str, net: nn.Module, x0: torch.Tensor, x1: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Mean squared error of one batch: control cells (b, k), perturbed cells (b, k), conditions (b, d)."""
    noise, kept = torch.randn_like(x1), signal(x1.device)
    if objective == "diffusion":
        level = torch.randint(STEPS["diffusion"], (len(x1),), device=x1.device)
        share = kept[level][:, None]
        x = torch.stack([share.sqrt() * x1 + (1 - share).sqrt() * noise, x0], dim=1)
        return functional.mse_loss(net(x, level / STEPS["diffusion"], told)[:, 0], noise)
    t = torch.rand(len(x1), 1, device=x1.device)
    middle = (1 - t) * x0 + t * x1
    if objective == "flow":
        return functional.mse_loss(net(middle[:, None], t[:, 0], told)[:, 0], x1 - x0)
    t = t.clamp(EDGE, 1 - EDGE)
    x = (1 - t) * x0 + t * x1 + SIGMA * (t * (1 - t)).sqrt() * noise
    return functional.mse_loss(net(x[:, None], t[:, 0], told), torch.stack([x1 - x0, noise], dim=1))


@torch.no_grad()
def sample(
    model: Trained, controls: np.ndarray, conditions: np.ndarray, *, seed: int = 0, steps: int | None = None
) -> np.ndarray:
    """Perturbed cells, shape (m, k), made of control cells (m, k) under conditions (m, d).

    Parameters
    ----------
    steps : of the solver; None: the design's own (`STEPS`). A step of ``flow`` evaluates the network twice.
    """
    device = next(model.net.parameters()).device
    x0 = torch.from_numpy(((controls - model.centre) / model.scale).astype(np.float32)).to(device)
    told = torch.from_numpy(np.asarray(conditions, dtype=np.float32)).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    carry = {"flow": _midpoint, "diffusion": _ancestral, "bridge": _euler_maruyama}[model.objective]
    out = carry(model.net, x0, told, steps or STEPS[model.objective], generator)
    return out.cpu().numpy().astype(np.float64) * model.scale + model.centre


def _midpoint(net: nn.Module, x: torch.Tensor, told: torch.Tensor, steps: int, _: torch.Generator) -> torch.Tensor:
    h = 1.0 / steps
    for i in range(steps):
        t = torch.full((len(x),), i * h, device=x.device)
        half = x + h / 2 * net(x[:, None], t, told)[:, 0]
        x = x + h * net(half[:, None], t + h / 2, told)[:, 0]
    return x


def signal(device: torch.device) -> torch.Tensor:
    """Share of the signal's variance at each of the diffusion's levels."""
    return torch.cumprod(1 - torch.linspace(*BETAS, STEPS["diffusion"], device=device), dim=0)


def _ancestral(
    net: nn.Module, source: torch.Tensor, told: torch.Tensor, steps: int, generator: torch.Generator
) -> torch.Tensor:
    levels = torch.linspace(STEPS["diffusion"] - 1, 0, steps).round().long().tolist()
    kept = signal(source.device)
    x = torch.randn(source.shape, generator=generator, device=source.device)
    for level, after in zip(levels, [*levels[1:], None], strict=True):
        a, b = kept[level], torch.ones_like(kept[0]) if after is None else kept[after]
        t = torch.full((len(x),), level / STEPS["diffusion"], device=x.device)
        noise = net(torch.stack([x, source], dim=1), t, told)[:, 0]
        x = (x - (1 - a / b) / (1 - a).sqrt() * noise) / (a / b).sqrt()
        if after is not None:
            x = x + ((1 - b) / (1 - a) * (1 - a / b)).sqrt() * torch.randn(
                x.shape, generator=generator, device=x.device
            )
    return x


def _euler_maruyama(
    net: nn.Module, x: torch.Tensor, told: torch.Tensor, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Drift ``flow + sigma^2 / 2 score``: with ``a`` the expected displacement and ``e`` the expected noise of a
    bridge, the flow is ``a + (1 - 2t) sigma / (2 s) e`` and the score ``-e / (sigma s)``, ``s = sqrt(t (1 - t))``; the
    drift is then ``a - sigma sqrt(t / (1 - t)) e``.
    """
    h = 1.0 / steps
    for i in range(steps):
        t = min(max(i * h, EDGE), 1 - EDGE)
        a, e = net(x[:, None], torch.full((len(x),), t, device=x.device), told).unbind(dim=1)
        x = x + h * (a - SIGMA * math.sqrt(t / (1 - t)) * e)
        if i < steps - 1:
            x = x + SIGMA * math.sqrt(h) * torch.randn(x.shape, generator=generator, device=x.device)
    return x


def main() -> None:
    """Costs of the three objectives on random cells."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("steps", 3), ("batch", 256), ("latent", 50), ("cells", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    controls, cells = rng.normal(size=(2, 1000, args.latent))
    conditions = rng.normal(size=(1000, 100))
    for objective in OBJECTIVES:
        model = train(objective, controls, cells, conditions, steps=args.steps, batch=args.batch, device=args.device)
        began = clock(args.device)
        sample(model, controls[: args.cells], conditions[: args.cells])
        per_thousand = (clock(args.device) - began) * 1000 / args.cells
        print(
            f"{objective}: {model.n_parameters / 1e6:.2f} M parameters, {model.seconds_per_step:.3f} s a step at "
            f"batch {args.batch}, {per_thousand:.3g} s per 1,000 sampled cells"
        )


if __name__ == "__main__":
    main()
