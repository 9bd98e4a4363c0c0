"""A simulated screen with known truth, on a hidden network of stated alignment with the packaged protein network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._sim_cells import SimCells
from embbench.datasets._sim_depth import DepthMoments
from embbench.datasets._sim_design import Design, make_design
from embbench.datasets._sim_expect import control_moments, expectations, moments_for
from embbench.datasets._sim_latent import fields, streams_of
from embbench.datasets._sim_settings import KINDS, Settings

FOOTER = "simulated: a positive and a negative control of the tool, not evidence about embeddings"
FIELDS = ("effects", "truth", "truth_variance", "noise_free")


@dataclass(frozen=True)
class Simulator(Settings):
    """A screen drawn from a known model; see `Settings` for the parameters.

    Each perturbed gene has a latent vector ``z = sqrt(rho) z_network + sqrt(1 - rho) z_hidden``: a smooth field on
    dense modules of the packaged protein network, and one on the same network with permuted names. Its log fold
    changes are ``strength * (shared programme + loadings of tanh(z W) + a sparse part of its own)``, with directions
    that correlate between contexts; the own gene is knocked down. Counts are negative binomial, depths lognormal.
    ``noise_free`` is the expectation of ``truth`` given the number of cells per batch: means of ``log1p`` at the
    condition's own depth, integrated over counts, depth and the parts that the cells of a condition fall into (error
    below 1e-4), never ``log1p`` of means.

    With ``variance_only`` or ``bimodal`` above 0 the covariate ``kind`` says how the cells of a row respond: ``mean``
    (all but escapers alike), ``bimodal`` (half of those twice as far, half not at all) or ``variance`` (a third of
    them, half of these the opposite way: the mean of the log share stays, its variance is that of the log fold change).
    Kinds follow a latent coordinate: neighbours share them.

    All rows of a context share the noise of the control means of a half; ``effects`` and ``truth`` share the perturbed
    cells, as in a real screen.
    """

    def load(self) -> PerturbationDataset:
        """The screen, the same bits every time; ``cells`` only at ``level="cells"``.

        Raises
        ------
        UserError
            The protein network cannot be read, or has fewer genes than asked for.
        """
        design = make_design(self)
        contexts = tuple(f"context{i + 1:02d}" for i in range(self.n_contexts))
        q = len(design.entities)
        cells = SimCells(self, design, contexts) if self.level == "cells" else None
        source = _FromCells(cells) if cells else _FromMoments(self, design)
        moments = moments_for(self, design)
        arrays: dict[str, Any] = {f: np.empty((self.n_contexts * q, self.n_genes), np.float32) for f in FIELDS}
        base: dict[str, Any] = {
            f: np.empty((self.n_contexts, self.n_genes), np.float32)
            for f in ("baseline", "baseline_truth", "baseline_variance")
        }
        for context in range(self.n_contexts):
            rows = slice(context * q, (context + 1) * q)
            _fill(
                self,
                design,
                moments,
                context,
                source,
                {f: a[rows] for f, a in arrays.items()},
                {f: a[context] for f, a in base.items()},
            )
        return PerturbationDataset(
            name=self.name,
            unit="delta",
            genes=design.genes,
            entities=design.entities * self.n_contexts,
            context=np.repeat(contexts, q),
            contexts=contexts,
            n_cells=design.n_cells.sum(axis=2).T.ravel(),
            covariates={"kind": np.tile(np.array(KINDS)[design.kind], self.n_contexts)} if self.kinds else {},
            cells=cells,
            meta=self._meta(),
            **arrays,
            **base,
        )

    def _meta(self) -> dict[str, object]:
        return {
            "simulated": True,
            "footer": FOOTER,
            "controls": "halves",
            "matching": "batch",
            "rho": self.rho,
            "default_split": "unseen_perturbation",
            "source": "simulator",
            "licence": "BSD-3-Clause",
            "parameters": asdict(self),
        }


class _FromMoments:
    """Pseudobulks drawn from their exact mean and variance: gamma for control means, Gaussian for perturbed ones."""

    def __init__(self, settings: Settings, design: Design) -> None:
        self.s, self.design = settings, design

    def controls(
        self, context: int, half: str, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Control means of shape (b, g) of one half and the variance over its cells (g,), float32."""
        rng = np.random.default_rng([self.s.seed, 10, context, "AB".index(half)])
        n = self.s.controls_per_half
        drawn = rng.gamma(mean.astype(np.float64) ** 2 * n / variance, variance / (n * mean.astype(np.float64)))
        freedom = n * self.s.n_batches - 1
        spread = (variance.mean(axis=0) + mean.var(axis=0)) * rng.chisquare(freedom, mean.shape[1]) / freedom
        return drawn.astype(np.float32), spread.astype(np.float32)

    def perturbed(self, row: int, weights: np.ndarray, expected: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Weighted mean, shape (g,), of the perturbed cells of one row, given its expectation and variance."""
        rng = np.random.default_rng([self.s.seed, 11, row])
        return expected + np.sqrt(variance) * rng.standard_normal(len(expected), dtype=np.float32)


class _FromCells:
    """Pseudobulks of counted cells."""

    def __init__(self, cells: SimCells) -> None:
        self.cells = cells

    def controls(
        self, context: int, half: str, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Control means of shape (b, g) of one half and the variance over its cells (g,), float32."""
        drawn = self.cells.controls(context, half).astype(np.float64)
        by_batch = drawn.reshape(len(mean), -1, drawn.shape[1])
        return by_batch.mean(axis=1).astype(np.float32), drawn.var(axis=0, ddof=1).astype(np.float32)

    def perturbed(self, row: int, weights: np.ndarray, expected: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Weighted mean, shape (g,), over batches of the perturbed cells of one row."""
        context, number = divmod(row, len(self.cells.design.entities))
        n = self.cells.design.n_cells[number, context]
        per_cell = np.repeat(weights / np.maximum(n, 1), n)
        return (per_cell @ self.cells.perturbed(row)).astype(np.float32)


def _fill(
    s: Settings,
    design: Design,
    moments: DepthMoments,
    context: int,
    source: _FromMoments | _FromCells,
    rows: dict[str, np.ndarray],
    base: dict[str, np.ndarray],
) -> None:
    """Write one context's rows and baselines into the given views."""
    mean, variance = control_moments(design, moments, context)
    half_a, base["baseline_variance"][:] = source.controls(context, "A", mean, variance)
    half_b, _ = source.controls(context, "B", mean, variance)
    base["baseline"][:], base["baseline_truth"][:] = half_a.mean(axis=0), half_b.mean(axis=0)
    first = context * len(design.entities)
    for e in expectations(s, design, moments, context, (mean, variance)):
        w = e.weights.astype(np.float32)
        drawn = source.perturbed(first + e.perturbation, e.weights, e.effect + w @ mean, e.variance)
        i = e.perturbation
        rows["noise_free"][i] = e.effect
        rows["truth_variance"][i] = e.variance + w**2 @ variance / s.controls_per_half
        rows["effects"][i], rows["truth"][i] = drawn - w @ half_a, drawn - w @ half_b


def latent_vectors(s: Settings) -> tuple[tuple[str, ...], np.ndarray]:
    """What the perturbed singles are made of: names, and vectors of shape (n_perturbations, 7), float64.

    The first six columns shape directions of effect (the first of them also orders the kinds), the last orders the
    strengths; all have unit variance. At ``rho = 1`` they lie on the packaged network entirely. An embedding of them
    knows all that can be known of an unseen perturbation, but for the part that is particular to it.

    Raises
    ------
    UserError
        The protein network has too few genes, or cannot be read.

    Examples
    --------
    >>> names, vectors = latent_vectors(Settings(n_perturbations=20))
    >>> len(names), vectors.shape
    (20, (20, 7))
    """
    singles, latent, level, _ = fields(s, streams_of(s))
    return tuple(singles), np.column_stack([latent, level])


def true_ceiling(dataset: PerturbationDataset) -> dict[str, float]:
    """What a perfect predictor scores: ``noise_free`` against a fresh ``truth``, expected, mean over conditions.

    With ``v`` the sampling variances of a condition's ``g`` genes: ``mse = mean(v)``; ``l2`` (Euclidean) is the mean
    of the root of a sum of independent squares, ``sqrt(V) (1 - sum(v^2) / (4 V^2))`` to second order, ``V = sum(v)``;
    ``pearson = sqrt(S / (S + V (g - 1) / g))`` with ``S`` the centred sum of squares of ``noise_free`` (error of order
    ``1 / g``). Conditions without variation in ``noise_free`` count as 0.

    Notes
    -----
    `UserError` where there is no known truth. The expansion of the mean of a chi-like variable: Johnson et al. (1994),
    Continuous Univariate Distributions 1, section 18.3.

    Examples
    --------
    >>> one = np.array([[1.0, -1.0, 0.5, 0.0]], np.float32)
    >>> known = {"noise_free": one, "truth_variance": one**2}
    >>> data = PerturbationDataset("s", one, "delta", np.arange(4), (("A",),), np.array(["x"]), **known)
    >>> {name: round(value, 3) for name, value in true_ceiling(data).items()}
    {'l2': 1.347, 'mse': 0.562, 'pearson': 0.751}
    """
    if dataset.noise_free is None or dataset.truth_variance is None:
        raise UserError(
            f"{dataset.name}: the true ceiling needs noise_free and truth_variance, which only simulated "
            f"screens have; estimate one from the cells instead"
        )
    g = dataset.effects.shape[1]
    total = _per_row(dataset.truth_variance, lambda v: v.sum(axis=1))
    squares = _per_row(dataset.truth_variance, lambda v: (v * v).sum(axis=1))
    signal = _per_row(dataset.noise_free, lambda x: ((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    l2 = np.sqrt(total) * (1.0 - squares / (4.0 * np.maximum(total, 1e-300) ** 2))
    noise = total * (g - 1) / g
    pearson = np.sqrt(signal / np.maximum(signal + noise, 1e-300))
    return {"l2": float(l2.mean()), "mse": float(total.mean() / g), "pearson": float(pearson.mean())}


def _per_row(values: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``function`` over blocks of rows in float64."""
    blocks = np.array_split(values, max(1, len(values) // 512))
    return np.concatenate([function(b.astype(np.float64)) for b in blocks])
