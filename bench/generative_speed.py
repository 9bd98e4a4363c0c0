"""Generative heads against the public reference design: a diffusion transformer over latent coordinates.

Usage: ``python bench/generative_speed.py [--peer-steps 400] [--objectives flow diffusion bridge] [--turns 5]``, about
8 CPU minutes per objective. The peer is `bench/_reference_dit.py`; both sides get the same cells, source cells and
perturbation vectors of one simulated screen, 50 latent coordinates, batches of 256 pairs and one thread.

- Seconds per step (an epoch of equal pairs has equally many steps): both sides take turns, medians over turns of CPU
  seconds. Ours are two epochs of a fit, with drawing, coupling and looks at held-out pairs; the peer's one step.
- Seconds per 1,000 sampled cells: ours a whole ``sample`` call; the peer's a few solver steps on a few cells, scaled
  up to its design's number of steps.
- Quality on unseen perturbations (near-null ones left out, each in one of the two contexts): L2 of the mean effect to
  the known one, and E-distance of cells on 50 axes. The peer works on those very axes, so that it loses nothing by
  them; the sampling error of its means is taken off (ours is not). Its two stochastic samplers make ``--solver-steps``
  steps here instead of 1,000, which would take hours. It is trained twice: for as many CPU seconds as our fit took, and
  for ``--peer-steps`` steps.
- Memory: peak of training (two epochs, one step) and sampling in a fork, above what it held at its start.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _reference_dit as peer
import numpy as np
import torch
from scipy import sparse

from embbench.core import CellView, Inputs, Silent, draw_sources
from embbench.datasets._sim_design import make_design
from embbench.datasets._sim_settings import Settings
from embbench.datasets.simulator import Simulator, latent_vectors
from embbench.grid.space import population_basis
from embbench.heads._generative import Generative
from embbench.heads.context_mean import ContextMean
from embbench.heads.flow_matching import FlowMatching
from embbench.heads.latent_diffusion import LatentDiffusion
from embbench.heads.schrodinger_bridge import SchrodingerBridge
from embbench.numerics.distances import edistance_euclidean_u

HEADS: dict[str, type[Generative]] = {"flow": FlowMatching, "diffusion": LatentDiffusion, "bridge": SchrodingerBridge}
SCREEN: dict[str, Any] = {"n_perturbations": 120, "n_genes": 300, "n_contexts": 2, "rho": 1.0, "level": "cells"}
SCREEN |= {"cells_per_perturbation": 50, "controls_per_context": 400, "near_null": 0.3, "variance_only": 1 / 3}
SCREEN |= {"bimodal": 1 / 3, "effect_size": 0.5, "escape": 0.1, "covered": 1.0}
EPOCHS = 66  # steps of two epochs, the length of our turns


@dataclass(frozen=True)
class Bed:
    """Training rows, effects (n, g); query rows, known effects (m, g), observed cells; axes (g, 50), baseline."""

    train: Inputs
    effects: np.ndarray
    query: Inputs
    truth: np.ndarray
    seen: list[np.ndarray]
    axes: np.ndarray
    baseline: np.ndarray

    def coded(self, cells: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Peer's coordinates (m, 50) of cells (m, g), relative to the control mean of their contexts (m,)."""
        return (cells - self.baseline[context]) @ self.axes

    def told(self, inputs: Inputs) -> np.ndarray:
        """Peer's conditions (n, d): perturbation vector and one-hot context."""
        return np.concatenate([inputs.X, np.eye(len(self.baseline), dtype=np.float32)[inputs.context]], axis=1)

    @functools.cached_property
    def material(self) -> dict[str, Any]:
        """What `_reference_dit.train` is given of the training rows."""
        view: Any = self.train.cells
        pools = [view.controls(code) for code in range(len(self.baseline))]
        rows = [view.perturbed(i) for i in range(len(self.train))]
        there, row = (np.repeat(np.arange(len(parts)), [len(p) for p in parts]) for parts in (pools, rows))
        home, both = self.train.context[row], (np.concatenate(pools), np.concatenate(rows))
        latent = {"controls": self.coded(both[0], there), "cells": self.coded(both[1], home)}
        return latent | {"conditions": self.told(self.train)[row], "control_context": there, "cell_context": home}


def bed(seed: int) -> Bed:
    """Simulate the screen, with 30 % of the perturbations unseen."""
    settings = SCREEN | {"seed": seed}
    names, vectors = latent_vectors(Settings(**settings))
    data: Any = Simulator(**settings).load()
    for method in ("controls", "perturbed"):  # simulated cells are drawn once
        object.__setattr__(data.cells, method, functools.cache(getattr(data.cells, method)))
    data = replace(data, meta={**data.meta, "digest": f"seed {seed}"})
    vectors = vectors + 0.05 * np.random.default_rng([99, seed]).normal(size=vectors.shape)
    vectors = ((vectors - vectors.mean(axis=0)) / vectors.std(axis=0)).astype(np.float32)
    entity = np.array([names.index(next(iter(e))) for e in data.entities])
    held = np.isin(entity, np.random.default_rng(seed).permutation(len(names))[: len(names) * 3 // 10])
    null, train = np.tile(make_design(Settings(**settings)).near_null, len(data.contexts)), np.flatnonzero(~held)
    test = np.flatnonzero(held & ~null & (entity % 2 == data.context_codes))  # each in one context

    def rows(index: np.ndarray, opened: np.ndarray) -> Inputs:
        code, view = entity[index], CellView(data.cells, opened)
        told = vectors[code], data.context_codes[index], sparse.eye(len(names), format="csr")[code]
        return Inputs(*told, tuple((int(e),) for e in code), baseline=data.baseline, cells=view)

    both = data.noise_free[test], [data.cells.perturbed(int(row)) for row in test]
    given = rows(train, train), data.effects[train], rows(test, np.array([], dtype=int))
    return Bed(*given, *both, population_basis(data, train, 50), data.baseline)


@dataclass(frozen=True)
class Score:
    """Squared L2 (m,) of mean effects, E-distances (m,) of cells, of each query row."""

    squared: np.ndarray
    distance: np.ndarray

    def __str__(self) -> str:
        return f"{np.sqrt(max(self.squared.mean(), 0)):.3f} | {self.distance.mean():.3f}"

    def against(self, other: Score) -> str:
        """Differences to another score with standard errors over rows, for a table."""
        gaps = (self.squared - other.squared, self.distance - other.distance)
        return " | ".join(f"{g.mean():+.3f} ± {g.std(ddof=1) / len(g) ** 0.5:.3f}" for g in gaps)


def score(made: Bed, effects: np.ndarray, cells: np.ndarray, noise: np.ndarray | float = 0.0) -> Score:
    """Of predicted effects (m, g) and cells (m, n, g); ``noise`` (m,) is the expected squared error of sampling."""
    far = [edistance_euclidean_u(x @ made.axes, y @ made.axes) for x, y in zip(cells, made.seen, strict=True)]
    return Score(np.square(effects - made.truth).sum(axis=1) - noise, np.array(far))


def score_peer(made: Bed, model: peer.Trained, n: int, steps: int | None) -> Score:
    """Of a trained peer, ``n`` cells per row, from the same source cells as ours."""
    view: Any = made.query.cells
    context, source = made.query.context, draw_sources(made.query, n, 0).cells(view)
    latent = made.coded(source.reshape(-1, source.shape[2]), np.repeat(context, n))
    out = peer.sample(model, latent, np.repeat(made.told(made.query), n, axis=0), steps=steps)
    change = (out @ made.axes.T).reshape(source.shape)
    noise = change.var(axis=1, ddof=1).sum(axis=1) / n
    return score(made, change.mean(axis=1), change + made.baseline[context][:, None], noise)


class Clock(Silent):
    """A monitor that notes the CPU time after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def due(self) -> bool:
        """Never; it is asked after every step."""
        self.times.append(time.process_time())
        return False


def cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and its CPU seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def peak(work: Callable[[], Any]) -> float:
    """Peak memory in MiB of ``work`` in a fork, above what it held at its start (Linux)."""

    def status(name: str) -> float:
        return int(Path("/proc/self/status").read_text(encoding="utf-8").split(f"{name}:")[1].split()[0]) / 1024

    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.wait()
        return float(os.read(reader, 64) or "nan")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
        before = status("VmRSS")
        work()
        os.write(writer, str(status("VmHWM") - before).encode())
    finally:
        os._exit(0)


def fitted(made: Bed, head: Generative) -> tuple[Generative, list[float]]:
    """The head, fitted, and the CPU time after every step."""
    head.monitor = watch = Clock()
    return head.fit(made.train, made.effects), watch.times


def ours(made: Bed, objective: str) -> tuple[float, float]:
    """CPU seconds per step and per 1,000 sampled cells of our head."""
    head, times = fitted(made, HEADS[objective](device="cpu", steps=EPOCHS))
    step = (times[-1] - times[0]) / (len(times) - 1)
    return step, cpu(lambda: head.sample(made.query.rows(np.arange(10)), 100))[1]


def theirs(made: Bed, objective: str, cells: int = 128, solver: int = 5) -> tuple[float, float]:
    """The same of the peer, from one step and ``cells`` cells carried ``solver`` steps."""
    model = peer.train(objective, **made.material, steps=1)
    given = (made.material[name][:cells] for name in ("cells", "conditions"))
    seconds = cpu(lambda: peer.sample(model, *given, steps=solver))[1]
    return model.seconds_per_step, seconds * peer.STEPS[objective] / solver * 1000 / cells


def speed(made: Bed, objective: str, turns: int, room: list[float]) -> float:
    """Print the table row of times and memory; the peer's seconds per step."""
    turn = [(*ours(made, objective), *theirs(made, objective)) for _ in range(turns + 1)][1:]  # the first warms up
    step, drawn, step_peer, drawn_peer = (statistics.median(column) for column in zip(*turn, strict=True))
    costs = f"{step:.4f} | {step_peer:.3f} | {step_peer / step:.0f}x | {drawn:.2f} | {drawn_peer:.0f}"
    print(f"| {objective} | {costs} | {drawn_peer / drawn:.0f}x | {room[0]:.0f} | {room[1]:.0f} |", flush=True)
    return step_peer


def quality(made: Bed, objective: str, step: float, args: argparse.Namespace) -> None:
    """Print table rows of our default head and of the peer."""
    (head, times), seconds = cpu(lambda: fitted(made, HEADS[objective](device="cpu")))
    own = score(made, head.predict(made.query), head.sample(made.query, args.cells))
    print(f"| {objective} | ours, kept {head.steps_} | {len(times)} | {seconds:.0f} | {own} | | |", flush=True)
    solver = None if objective == "flow" else args.solver_steps
    for steps in sorted({max(1, round(seconds / step)), args.peer_steps}):
        model = peer.train(objective, **made.material, steps=steps)
        other = score_peer(made, model, args.cells, solver)
        costs = f"{steps} | {model.seconds_per_step * steps:.0f}"
        print(f"| {objective} | peer | {costs} | {other} | {own.against(other)} |", flush=True)


def main() -> None:
    """Parse, measure, print two markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", choices=list(HEADS), default=list(HEADS))
    for name, value in (("peer-steps", 400), ("turns", 5), ("cells", 20), ("solver-steps", 50), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = bed(args.seed)
    mean = ContextMean().fit(made.train, made.effects).predict(made.query)
    moved = draw_sources(made.query, args.cells, 0).cells(made.query.cells) + mean[:, None]  # type: ignore[arg-type]
    print(f"{len(made.train)} training rows, {len(made.query)} unseen; load {os.getloadavg()[0]:.1f}\n")
    print("| objective | ours, s a step | peer | ratio | ours, s per 1,000 cells | peer | ratio | ours, MiB | peer |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    # forks come first, while no memory is left over from earlier work
    room = {o: [peak(functools.partial(side, made, o)) for side in (ours, theirs)] for o in args.objectives}
    steps = {o: speed(made, o, args.turns, room[o]) for o in args.objectives}
    print("\n| objective | side | steps | CPU s | L2 | E-distance | ours - peer, squared L2 | E-distance |")
    print(f"|---|---|---|---|---|---|---|---|\n| | context mean | | | {score(made, mean, moved)} | | |", flush=True)
    for objective in args.objectives:
        quality(made, objective, steps[objective], args)


if __name__ == "__main__":
    main()
