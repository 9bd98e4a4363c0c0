"""Schrödinger bridge: flow and score of Brownian bridges between entropically coupled control and perturbed cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from embbench.heads._generative import Generative, Noise, Vector
from embbench.heads._smoother import positive, whole

SAMPLERS = ("sde", "ode")
EDGE = 1e-2  # where the probability flow starts: its velocity has no limit at 0


@dataclass(eq=False)
class SchrodingerBridge(Generative):
    """[SF]2M: ``x_t = (1 - t) x_0 + t x_1 + sigma sqrt(t (1 - t)) e`` over pairs of the entropic plan.

    The network learns two bounded fields, ``a = E[x_1 - x_0 | x_t]`` and ``b = E[e | x_t]``; with ``s = sqrt(t (1 -
    t))`` the published flow is ``u = a + (1 - 2 t) / (2 s) sigma b``, the score ``-b / (sigma s)``, and the
    stochastic process has drift ``u + sigma^2 / 2 score = a - sigma sqrt(t / (1 - t)) b``. The predicted mean effect is
    the mean of ``a`` at time 0. The other parameters are those of `embbench.heads._generative_settings.Settings`.

    Parameters
    ----------
    sigma : > 0, diffusion of the reference process, in units of each axis' spread; the plan's regularisation follows
        from it.
    sampler : ``sde`` (Euler-Maruyama) or ``ode`` (probability flow, Heun).
    solver_steps : steps of either, >= 1.

    References
    ----------
    Tong et al. (2024), Simulation-free Schrödinger bridges via score and flow matching, equations 7 to 11 and
    algorithm 1.

    Examples
    --------
    >>> SchrodingerBridge(sampler="ode", solver_steps=10).evaluations
    20
    """

    coupling: str = "sinkhorn"
    sigma: float = 1.0
    sampler: str = "sde"
    solver_steps: int = 20

    outputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("SchrodingerBridge", solver_steps=self.solver_steps)
        positive("SchrodingerBridge", sigma=self.sigma)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"SchrodingerBridge: sampler must be one of {SAMPLERS}, got {self.sampler!r}")

    def _regularisation(self) -> float:
        return self.sigma**2

    @property
    def evaluations(self) -> int:
        """Evaluations of the fields that sampling a cell takes (twice as many with guidance)."""
        return self.solver_steps * (1 if self.sampler == "sde" else 2)

    def practise(
        self, start: torch.Tensor, end: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points of the bridges (b, k), and ``x_1 - x_0`` and ``e`` (b, 2, k)."""
        points = (1 - t) * start + t * end + self.sigma * (t * (1 - t)).sqrt() * noise
        return points, torch.stack([end - start, noise], dim=1)

    def flow(self, fields: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Velocity (b, k) of the probability flow from both fields (b, 2, k) at times (b,)."""
        t = t[:, None]
        return fields[:, 0] + (1 - 2 * t) / (2 * (t * (1 - t)).sqrt()) * self.sigma * fields[:, 1]

    def score(self, fields: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Gradient of the log density (b, k) at times (b,)."""
        return -fields[:, 1] / (self.sigma * (t * (1 - t)).sqrt()[:, None])

    def drift(self, fields: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Drift (b, k) of the stochastic process at times (b,), finite at 0."""
        return fields[:, 0] - self.sigma * (t / (1 - t)).sqrt()[:, None] * fields[:, 1]

    def carry(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Integrate the stochastic process, or the probability flow, from 0 to 1."""

        def at(time: float) -> torch.Tensor:
            return torch.full((len(start),), time, dtype=start.dtype, device=start.device)

        if self.sampler == "sde":
            x, width = start, 1.0 / self.solver_steps
            for step in range(self.solver_steps):
                time = at(step * width)
                x = x + width * self.drift(vector(x, time), time) + self.sigma * width**0.5 * noise()
            return x
        x, width = start + self.sigma * (EDGE * (1 - EDGE)) ** 0.5 * noise(), (1 - 2 * EDGE) / self.solver_steps
        for step in range(self.solver_steps):
            now, then = at(EDGE + step * width), at(EDGE + (step + 1) * width)
            first = self.flow(vector(x, now), now)
            last = vector(x + width * first, then)
            x = x + width / 2 * (first + self.flow(last, then))
        return x + 2 * EDGE * last[:, 0]  # what the two edges, which the solver leaves out, add to the mean

    def mean_change(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """The first field at time 0."""
        return vector(start, torch.zeros(len(start), dtype=start.dtype, device=start.device))[:, 0]
