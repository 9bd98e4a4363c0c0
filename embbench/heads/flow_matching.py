"""Flow matching: a velocity field whose straight conditional paths carry control cells to perturbed ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from embbench.heads._generative import Generative, Noise, Vector
from embbench.heads._smoother import whole

# offsets and weights of the stages of a step; stage i starts from the point that stage i - 1's velocity leads to
SOLVERS = {"euler": ((0.0,), (1.0,)), "heun": ((0.0, 1.0), (0.5, 0.5)), "rk4": ((0.0, 0.5, 0.5, 1.0), (1, 2, 2, 1))}


@dataclass(eq=False)
class FlowMatching(Generative):
    """Conditional optimal-transport paths ``x_t = (1 - t) x_0 + t x_1``; the network learns ``x_1 - x_0``. The start
    ``x_0`` is a control cell with fresh noise in it, see ``noise``.

    Cells are sampled by ``dx = v(x, t) dt`` from 0 to 1; see `evaluations` for their number. The predicted mean effect
    is the mean of ``v(x_0, 0)``, which is ``E[x_1 - x_0 | x_0]``. The other parameters are those of
    `embbench.heads._generative_settings.Settings`.

    Parameters
    ----------
    solver : ``euler``, ``heun`` or ``rk4``.
    solver_steps : steps of the solver, >= 1.
    noise : in [0, 1], standard deviation of fresh noise in a start point, ``sqrt(1 - noise^2) control + noise e``
        in units of each axis' spread; 0 makes the population a function of the control cells.

    References
    ----------
    Lipman et al. (2023), Flow matching for generative modeling, equations 20 to 23; minibatch couplings: Tong et al.
    (2024), TMLR, equations 14 and 15 and section 3.2.4.

    Examples
    --------
    >>> FlowMatching(solver="heun", solver_steps=5).evaluations
    10
    """

    solver: str = "heun"
    solver_steps: int = 5
    noise: float = 0.5

    sees_source: ClassVar[bool] = True
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("FlowMatching", solver_steps=self.solver_steps)
        if self.solver not in tuple(SOLVERS):
            raise ValueError(f"FlowMatching: solver must be one of {tuple(SOLVERS)}, got {self.solver!r}")
        if not isinstance(self.noise, int | float) or not 0 <= self.noise <= 1:
            raise ValueError(f"FlowMatching: noise must be in [0, 1], got {self.noise!r}")

    @property
    def evaluations(self) -> int:
        """Evaluations of the field that sampling a cell takes (twice as many with guidance)."""
        return self.solver_steps * len(SOLVERS[self.solver][0])

    def practise(
        self, start: torch.Tensor, end: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points on the paths (b, k), and their velocity (b, 1, k)."""
        start = self._blurred(start, noise)
        return (1 - t) * start + t * end, (end - start)[:, None]

    def _blurred(self, start: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return math.sqrt(1 - self.noise**2) * start + self.noise * noise

    def carry(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Solve the ordinary differential equation from 0 to 1."""
        x, width = self._blurred(start, noise()), 1.0 / self.solver_steps
        offsets, weights = SOLVERS[self.solver]
        for step in range(self.solver_steps):
            slope, total = torch.zeros_like(x), torch.zeros_like(x)
            for offset, weight in zip(offsets, weights, strict=True):
                time = torch.full((len(x),), (step + offset) * width, dtype=x.dtype, device=x.device)
                slope = vector(x + offset * width * slope, time)[:, 0]
                total = total + weight * slope
            x = x + width / sum(weights) * total
        return x

    def mean_change(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """The velocity at time 0."""
        x = self._blurred(start, noise())
        return x - start + vector(x, torch.zeros(len(x), dtype=x.dtype, device=x.device))[:, 0]
