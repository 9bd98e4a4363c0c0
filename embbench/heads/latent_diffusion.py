"""Latent diffusion: perturbed cells from noise, conditional on the perturbation and on a control cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from embbench.heads._generative import Generative, Noise, Vector
from embbench.heads._smoother import whole

OBJECTIVES, SAMPLERS = ("v", "epsilon", "x0"), ("ddim", "ddpm")
OFFSET = 0.008  # of the cosine schedule
LAST = 0.9999  # sampling starts a little below 1, where the signal is not yet 0


def signal(t: torch.Tensor) -> torch.Tensor:
    """``sqrt(alpha-bar)`` of the cosine schedule at times in [0, 1]; the noise's share is ``sqrt(1 - signal^2)``.

    References
    ----------
    Nichol and Dhariwal (2021), equation 17.

    Examples
    --------
    >>> signal(torch.tensor([0.0, 1.0])).abs().round(decimals=4).tolist()
    [1.0, 0.0]
    """
    first = math.cos(OFFSET / (1 + OFFSET) * math.pi / 2)
    return torch.cos((t + OFFSET) / (1 + OFFSET) * math.pi / 2) / first


@dataclass(eq=False)
class LatentDiffusion(Generative):
    """Denoising diffusion of ``y``, the perturbed cell relative to the anchor's mean, in units of each axis' spread.

    ``y_t = c y + s e`` with ``c^2 + s^2 = 1`` on the cosine schedule; the network reads ``y_t`` and the control cell.
    What it learns is added to the optimum for standard normal ``y`` (0, ``s y_t``, ``c y_t`` for ``v``, ``epsilon``,
    ``x0``; for ``epsilon`` times ``c``), so that an untrained network generates Gaussian cells. The predicted mean
    effect is the mean of the estimate of ``y`` at time 1, where ``y_t`` is noise alone and the estimate is
    ``E[y | control cell]``. The other
    parameters are those of `embbench.heads._generative_settings.Settings`.

    Parameters
    ----------
    objective : ``v`` (``c e - s y``), ``epsilon`` (``e``) or ``x0`` (``y``).
    sampler : ``ddim`` or ``ddpm`` (ancestral).
    solver_steps : steps of either, >= 1.
    eta : in [0, 1], share of the ancestral noise in ``ddim``; ``ddpm`` is 1.

    References
    ----------
    Ho, Jain and Abbeel (2020), algorithms 1 and 2; Song, Meng and Ermon (2021), equations 12 and 16; v: Salimans and Ho
    (2022), appendix D.

    Examples
    --------
    >>> LatentDiffusion(solver_steps=25).evaluations
    25
    """

    coupling: str = "independent"
    objective: str = "v"
    sampler: str = "ddim"
    solver_steps: int = 25
    eta: float = 0.0

    outputs: ClassVar[int] = 1
    sees_source: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("LatentDiffusion", solver_steps=self.solver_steps)
        for name, value, known in (("objective", self.objective, OBJECTIVES), ("sampler", self.sampler, SAMPLERS)):
            if value not in known:
                raise ValueError(f"LatentDiffusion: {name} must be one of {known}, got {value!r}")
        if not isinstance(self.eta, int | float) or not 0 <= self.eta <= 1:
            raise ValueError(f"LatentDiffusion: eta must be in [0, 1], got {self.eta!r}")

    @property
    def evaluations(self) -> int:
        """Evaluations of the field that sampling a cell takes (twice as many with guidance)."""
        return self.solver_steps

    def practise(
        self, start: torch.Tensor, end: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy cells (b, k), and the objective less what is known without the network (b, 1, k)."""
        c = signal(t).clamp(0, 1)
        s = (1 - c * c).sqrt()
        points = c * end + s * noise
        target = {"v": c * noise - s * end, "epsilon": noise - s * points, "x0": end - c * points}[self.objective]
        return points, target[:, None]

    def gain(self, t: torch.Tensor) -> torch.Tensor | float:
        """``c`` for the objective ``epsilon`` (the network gives ``(e - s y_t) / c``, in the loss of ``e``), else 1."""
        return signal(t).clamp(0, 1) if self.objective == "epsilon" else 1.0

    def estimates(self, field: torch.Tensor, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimates of ``y`` and of the noise (b, k), from the network's field (b, k) at points with signal ``c``."""
        s = (1 - c * c).sqrt()
        if self.objective == "x0":
            clean = c * x + field
            return clean, (x - c * clean) / s.clamp(min=1e-6)
        # For ``epsilon`` this is (x - s e) / c without the division, which near time 1 multiplies errors by thousands.
        return c * x - s * field, s * x + c * field

    def carry(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Denoise from noise to cells along equally spaced times."""
        x = noise()
        times = torch.linspace(LAST, 0.0, self.solver_steps + 1).tolist()
        eta = 1.0 if self.sampler == "ddpm" else self.eta
        for now, then in pairwise(times):
            c, c_next = (signal(torch.tensor(t, dtype=x.dtype)).clamp(0, 1).to(x.device) for t in (now, then))
            field = vector(x, torch.full((len(x),), now, dtype=x.dtype, device=x.device))[:, 0]
            clean, e = self.estimates(field, x, c)
            left = 1 - c_next**2
            fresh = eta**2 * left / (1 - c * c) * (1 - (c / c_next) ** 2)  # variance of the new noise
            x = c_next * clean + (left - fresh).clamp(min=0).sqrt() * e
            if eta:
                x = x + fresh.clamp(min=0).sqrt() * noise()
        return x

    def mean_change(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """The estimate of ``y`` from noise alone, minus the start point."""
        x = noise()
        c = signal(torch.tensor(LAST, dtype=x.dtype)).clamp(0, 1).to(x.device)
        field = vector(x, torch.full((len(x),), LAST, dtype=x.dtype, device=x.device))[:, 0]
        return self.estimates(field, x, c)[0] - start
