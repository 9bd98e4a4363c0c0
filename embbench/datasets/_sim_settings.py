"""Simulator: its parameters and their limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNIT_RANGE = (
    *("rho", "near_null", "covered", "programme_share", "sparse_share", "context_share"),
    *("variance_only", "bimodal"),
)
LEVELS = ("condition", "cells")
KINDS = ("mean", "variance", "bimodal")


@dataclass(frozen=True)
class Settings:
    """What a simulated screen looks like; `embbench.datasets.simulator.Simulator` takes these parameters.

    Parameters
    ----------
    n_perturbations : single genes perturbed, in every context.
    n_genes : measured genes.
    n_contexts, n_batches : contexts, and batches within each of them.
    rho : share of the variance of the latent vectors (and of the strengths' field) that lies on the packaged protein
        network; the rest lies on the same network with permuted names. 1: all of it; 0: names tell nothing.
    seed : of everything random.
    level : ``condition`` draws pseudobulks (Gaussian, exact mean and variance), ``cells`` draws counts of cells.
    cells_per_perturbation : median cells of a weak perturbation per context.
    controls_per_context : control cells per context, both halves, all batches.
    near_null : share of perturbations whose effect is far below the sampling noise, >= 0.5 in a realistic screen.
    covered : share of perturbed genes that bear a real symbol; the others are called SIMGENE00001 and so on.
    programme_share : share of an effect's variance over genes that lies on the programme all perturbations share.
    sparse_share : share of the rest that is particular to one perturbation and follows from no network.
    context_share : correlation of effects between contexts with unrelated context vectors.
    combos : pairs of genes perturbed together.
    interaction : size of a pair's non-additive part, relative to the geometric mean of its two effects.
    effect_size : median root mean square log fold change of the perturbations that are not near-null.
    effect_spread : standard deviation of its logarithm (lognormal: heavy-tailed).
    escape : expected share of perturbed cells that are in truth unperturbed.
    fitness : how fast cells and depth fall with strength: cells go with ``exp(-fitness * strength)``, where the
        strength is relative to ``effect_size``; the log depth with a quarter of that.
    depth, depth_sigma : median counts per control cell over the whole transcriptome, standard deviation of the log.
    dispersion : of the negative binomial counts.
    batch_effect : standard deviation of the log expression between batches, per gene.
    variance_only : share of the perturbations that spread cells without a mean shift of the log expected shares.
    bimodal : share of them where half of the cells shift twice as far and the others do not; the rest are mean shifts.
    name : of the dataset.

    Examples
    --------
    >>> Settings(rho=2.0)
    Traceback (most recent call last):
        ...
    ValueError: Simulator: rho must be between 0 and 1, got 2.0
    """

    n_perturbations: int = 200
    n_genes: int = 500
    n_contexts: int = 2
    rho: float = 0.7
    seed: int = 0
    level: str = "condition"
    cells_per_perturbation: int = 100
    controls_per_context: int = 1000
    n_batches: int = 2
    near_null: float = 0.5
    covered: float = 0.9
    programme_share: float = 0.45
    sparse_share: float = 0.1
    context_share: float = 0.7
    combos: int = 0
    interaction: float = 0.2
    effect_size: float = 0.25
    effect_spread: float = 0.4
    escape: float = 0.1
    fitness: float = 0.2
    depth: float = 5000.0
    depth_sigma: float = 0.4
    dispersion: float = 0.1
    batch_effect: float = 0.15
    variance_only: float = 0.0
    bimodal: float = 0.0
    name: str = "simulator"

    def __post_init__(self) -> None:
        lowest = {
            "n_perturbations": 4,
            "n_genes": 10,
            "n_contexts": 1,
            "seed": 0,
            "cells_per_perturbation": 4,
            "n_batches": 1,
            "combos": 0,
        }
        for name, low in lowest.items():
            self._check(
                name, isinstance(getattr(self, name), int) and getattr(self, name) >= low, f"a whole number >= {low}"
            )
        for name in UNIT_RANGE:
            self._check(name, 0.0 <= getattr(self, name) <= 1.0, "between 0 and 1")
        ranges = {
            "interaction": (0, 2),
            "effect_size": (0, 1),
            "effect_spread": (0, 1.5),
            "escape": (0, 0.9),
            "fitness": (0, 2),
            "depth": (200, 50_000),
            "depth_sigma": (0, 0.8),
            "dispersion": (0.01, 1),
            "batch_effect": (0, 1),
        }
        for name, (low, high) in ranges.items():
            self._check(name, low <= getattr(self, name) <= high, f"between {low} and {high}")
        self._check("level", self.level in LEVELS, f"one of {LEVELS}")
        least = 4 * self.n_batches
        self._check("controls_per_context", self.controls_per_context >= least, f">= {least} (two per batch and half)")
        most = self.n_perturbations * (self.n_perturbations - 1) // 2
        self._check("combos", self.combos <= most, f"<= {most}, the pairs of {self.n_perturbations} genes")
        rest = 1.0 - self.variance_only
        self._check("bimodal", self.bimodal <= rest + 1e-9, f"<= {rest:g}, what variance_only leaves")

    def _check(self, name: str, good: bool, expected: str) -> None:  # noqa: FBT001
        if not good:
            raise ValueError(f"Simulator: {name} must be {expected}, got {getattr(self, name)!r}")

    @property
    def controls_per_half(self) -> int:
        """Control cells of one half in one batch of one context.

        Examples
        --------
        >>> Settings(controls_per_context=1000, n_batches=2).controls_per_half
        250
        """
        return self.controls_per_context // (2 * self.n_batches)

    @property
    def kinds(self) -> bool:
        """Whether perturbations differ in how their cells respond.

        Examples
        --------
        >>> Settings().kinds, Settings(bimodal=0.3).kinds
        (False, True)
        """
        return self.variance_only > 0 or self.bimodal > 0

    def components(self, kind: int) -> tuple[tuple[float, float], ...]:
        """What the perturbed cells of a kind are made of: pairs of share and multiplier of the log fold change.

        The first component is that of cells like controls (escapers, and those that do not respond): multiplier 0.
        The multipliers of ``variance`` are the nodes of the three-point Gauss-Hermite rule, so that log shares spread
        as those of a normal multiplier do up to the fifth moment.

        Parameters
        ----------
        kind : index into `KINDS`.

        Notes
        -----
        Abramowitz and Stegun (1964), Handbook of Mathematical Functions, table 25.10, for a standard normal weight.

        Examples
        --------
        >>> for kind in range(3):
        ...     print(KINDS[kind], np.round(Settings(escape=0.2).components(kind), 2).tolist())
        mean [[0.2, 0.0], [0.8, 1.0]]
        variance [[0.73, 0.0], [0.13, -1.73], [0.13, 1.73]]
        bimodal [[0.6, 0.0], [0.4, 2.0]]
        """
        hit = 1.0 - self.escape
        if KINDS[kind] == "variance":
            root = float(np.sqrt(3.0))
            return (self.escape + hit * 2 / 3, 0.0), (hit / 6, -root), (hit / 6, root)
        if KINDS[kind] == "bimodal":
            return (self.escape + hit / 2, 0.0), (hit / 2, 2.0)
        return (self.escape, 0.0), (hit, 1.0)
