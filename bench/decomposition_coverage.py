"""Do the intervals of "embedding or head?" cover? Planted shares on a fixed crossed panel, many simulated score tables.

Usage: ``python bench/decomposition_coverage.py [--simulations 200] [--perturbations 60]``.
A panel of 5 embeddings x 4 heads in 2 contexts; main effects and interactions are drawn once, scaled to the planted
shares and fixed; every simulation draws perturbations: their difficulty (shared by all entries and both contexts), how
they take to each embedding and to each head, and noise. Printed per scenario: planted shares, mean estimate, and how
often the 95 % interval holds the planted share.
"""

from __future__ import annotations

import argparse

import numpy as np

from embbench.report.decomposition import PARTS, Block, decompose

EMBEDDINGS, HEADS, CONTEXTS = 5, 4, 2
SCENARIOS = {  # planted shares of embedding, head, interaction; standard deviation of the panel over that of the noise
    "embedding": ((0.7, 0.2, 0.1), 0.5),
    "head": ((0.15, 0.7, 0.15), 0.5),
    "even": ((0.34, 0.33, 0.33), 0.5),
    "weak": ((0.6, 0.3, 0.1), 0.25),
    "no interaction": ((0.6, 0.4, 0.0), 0.5),
}


def panel_effects(planted: tuple[float, ...], seed: int) -> np.ndarray:
    """Mean scores (contexts, a, b) whose components are exactly the planted shares of a variance of 1."""
    rng = np.random.default_rng(seed)
    out = np.zeros((CONTEXTS, EMBEDDINGS, HEADS))
    for context in range(CONTEXTS):
        alpha = rng.normal(size=(EMBEDDINGS, 1))
        beta = rng.normal(size=(1, HEADS))
        gamma = rng.normal(size=(EMBEDDINGS, HEADS))
        gamma -= gamma.mean(axis=0) + gamma.mean(axis=1, keepdims=True) - gamma.mean()
        for part, share in zip((alpha - alpha.mean(), beta - beta.mean(), gamma), planted, strict=True):
            out[context] += part * np.sqrt(share / part.var())
    return out


def simulate(mean: np.ndarray, size: float, n: int, rng: np.random.Generator) -> list[Block]:
    """Blocks of one simulated screen of ``n`` perturbations."""
    shared = 2.0 * rng.normal(size=(n, 1, 1))  # a hard perturbation is hard for everything
    blocks = []
    for context in range(CONTEXTS):
        own = 0.5 * rng.normal(size=(n, EMBEDDINGS, 1)) + 0.5 * rng.normal(size=(n, 1, HEADS))
        noise = own + 0.7 * rng.normal(size=(n, EMBEDDINGS, HEADS))
        blocks.append(Block(size * mean[context] + shared + noise, np.full(n, 1.0 / n), np.arange(n)))
    return blocks


def coverage(name: str, simulations: int, n: int, resamples: int = 500) -> tuple[np.ndarray, np.ndarray, int]:
    """Share of intervals that hold the planted share (3,), mean estimates (3,), and number of defined results."""
    planted, size = SCENARIOS[name]
    mean = panel_effects(planted, seed=1)
    hits, estimates = [], []
    for number in range(simulations):
        found = decompose(simulate(mean, size, n, np.random.default_rng([2, number])), resamples=resamples, seed=number)
        if found["note"]:
            continue
        hits.append([found[f"{p}_low"] <= s <= found[f"{p}_high"] for p, s in zip(PARTS, planted, strict=True)])
        estimates.append([found[p] for p in PARTS])
    return np.mean(hits, axis=0), np.mean(np.array(estimates, dtype=np.float64), axis=0), len(hits)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--perturbations", type=int, default=60)
    args = parser.parse_args()
    for name, (planted, _) in SCENARIOS.items():
        held, mean, defined = coverage(name, args.simulations, args.perturbations)
        parts = [
            f"{p} {s:.2f}: mean {m:.3f}, held {h:.1%}" for p, s, m, h in zip(PARTS, planted, mean, held, strict=True)
        ]
        print(f"{name} ({defined} of {args.simulations} defined): " + "; ".join(parts), flush=True)


if __name__ == "__main__":
    main()
