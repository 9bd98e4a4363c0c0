"""Heads x {informative, half-informative, permuted} embedding on simulated screens of cells with known truth.

Usage: ``python bench/heads_simulated.py REPORT.md [--out results/heads_simulated] [--seeds 5] [--heads knn,ridge,...]
[--registry FILE] [--workers 2]``; started again it goes on where it was. Per seed one screen (mean shifts, variance
only and bimodal effects; two contexts) is drawn at rho = 1: the latent vectors behind the effects lie on the packaged
network entirely. The planted embeddings are those vectors (``informative``: rho = 1), the same with half of their
variance independent noise (``half``: rho = 0.5), the first with its names permuted (``permuted``: rho = 0). One fold of
unseen perturbations goes through the grid (its selection, keys and scores), every run in a process of its own. Mean
effects are scored where heads predict effects, cells where they predict populations; ``--targets population`` fits once
and takes means of the predicted cells, whose sampling error then counts too. Near-null perturbations are left out.
Differences are paired by seed, with 95 % t intervals over seeds.

Peak memory is that of the process (interpreter, libraries and screen included) when the prediction is stored, before it
is scored: what a head adds shows against ``no_change``. Seconds are CPU seconds of selection, fit and prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from simulated_tables import METRICS, PLANTED, Tables

from embbench.core import PerturbationDataset, Run
from embbench.datasets._sim_design import make_design
from embbench.datasets._sim_settings import KINDS, Settings
from embbench.datasets.simulator import latent_vectors
from embbench.grid.ceiling import ceilings
from embbench.grid.config import Grid
from embbench.grid.fit import fold_of
from embbench.grid.names import registry_of
from embbench.grid.plan import Planned, plan
from embbench.grid.results import Results
from embbench.grid.score import metrics_of, score_run, truth_of
from embbench.grid.screens import screen, split_of
from embbench.grid.threads import THREADS, one_thread
from embbench.grid.work import Errand, run_one

HEADS = (
    *("no_change", "context_mean", "knn", "ridge", "kernel_ridge", "mlp", "pooled_training_cells", "pooled_cells"),
    *("pooled_cells:move=ridge", "flow_matching", "latent_diffusion", "schrodinger_bridge", "gears_gnn", "fusion"),
    *("latent_additive", "decoder_only", "linear_additive"),
)
SCREEN = {"level": "cells", "rho": 1.0, "near_null": 0.3, "context_share": 0.7, "variance_only": 0.333}
SCREEN |= {"bimodal": 0.333, "n_contexts": 2}
NOISE = 0.1  # standard deviation added to the latent vectors, whose coordinates have unit variance


def settings_of(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Parameters of one seed's simulator."""
    own = {"n_perturbations": args.perturbations, "n_genes": args.genes, "cells_per_perturbation": args.cells}
    return SCREEN | own | {"controls_per_context": args.controls, "effect_size": args.effect_size, "seed": seed}


def plant(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Write the planted embeddings of a screen; label -> spec."""
    names, latent = latent_vectors(Settings(**settings))
    rng = np.random.default_rng([settings["seed"], 90])
    informative = (latent + NOISE * rng.standard_normal(latent.shape)) / np.sqrt(1.0 + NOISE**2)
    half = np.sqrt(0.5) * informative + np.sqrt(0.5) * rng.standard_normal(latent.shape)
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for label, matrix in (("informative", informative), ("half", half)):
        path = folder.resolve() / f"{label}-seed{settings['seed']}.csv"
        pd.DataFrame(matrix, index=list(names)).to_csv(path)
        out[label] = f"table:{path}:to=null:entity=gene"
    return out | {"permuted": f"permuted:{out['informative']}"}


def plans(args: argparse.Namespace, seed: int, target: str) -> tuple[list[Planned], dict[str, str]]:
    """Runs of the first fold of one seed's screen, and embedding spec -> label."""
    settings = settings_of(args, seed)
    specs = plant(args.out / "planted", settings)
    grid = Grid(
        dataset=[":".join(["simulator", *(f"{k}={v}" for k, v in settings.items())])],
        split=[f"unseen_perturbation:{args.folds}"],
        emb=[specs[label] for label in PLANTED],
        head=args.heads,
        target=target,
        samples=args.samples,
        baselines=False,
        permutations={"smoother": 0, "trained": 0},
        metrics=list(metrics_for(args, target)),
    )
    runs = plan(grid, args.paths)
    first = runs[0].run.fold
    return [p for p in runs if p.run.fold == first], {spec: label for label, spec in specs.items()}


def metrics_for(args: argparse.Namespace, target: str) -> tuple[str, ...]:
    """What the runs of a target are scored by: both families where populations are all there is."""
    both = target == "population" and "effects" not in args.targets
    return METRICS["effects"] + METRICS["population"] if both else METRICS[target]


def run_all(todo: list[Planned], args: argparse.Namespace, target: str) -> None:
    """Every run that is not there yet, each in its own process, ``args.workers`` at a time."""

    def start(planned: Planned) -> str:
        given = {"planned": asdict(planned), "out": str(args.out / target), "paths": args.paths}
        given |= {"metrics": metrics_for(args, target)}
        command, environment = [sys.executable, __file__, "--one"], os.environ | dict.fromkeys(THREADS, "1")
        done = subprocess.run(command, input=json.dumps(given), text=True, check=False, env=environment)
        return f"{planned.run.head}: exit code {done.returncode}" if done.returncode else ""

    open_runs = [p for p in todo if not finished(Results(args.out / target), p.key)]
    with ThreadPoolExecutor(args.workers) as pool:
        for number, message in enumerate(pool.map(start, open_runs), start=1):
            sys.stderr.write(f"\r{target}: {number}/{len(open_runs)} runs{', ' + message if message else ''} ")
    sys.stderr.write("\n" if open_runs else "")


def finished(results: Results, key: str) -> bool:
    """Whether a run is stored with its peak of memory, that is, whole."""
    return results.done(key) and results.path("peaks", key, "json").exists()


def run_here(given: dict[str, Any]) -> None:
    """One run in this process: fit, store, note the peak of memory, then score."""
    about = given["planned"]
    planned = Planned(**{**about, "run": Run(**about["run"])})
    paths, results = tuple(given["paths"]), Results(Path(given["out"]))
    outcome = run_one(planned, Errand(given["out"], paths))
    if outcome.status != "done":
        return
    peak = peak_mib()
    data = screen(planned.run.dataset, planned.run.genes, paths)
    score_run(results, planned.key, data, metrics_of(registry_of(paths), given["metrics"]), {})
    path = results.path("peaks", planned.key, "json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"peak_mib": peak}), encoding="utf-8")


def peak_mib() -> float:
    """Largest resident memory of this process; ``ru_maxrss`` would start from its parent's."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status: this benchmark measures memory on Linux")


def groups_of(data: PerturbationDataset, settings: dict[str, Any], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (m,) of rows that are not near-null: all, and of each kind of effect."""
    null = np.tile(make_design(Settings(**settings)).near_null, len(data.contexts))[rows]
    kind = data.covariates["kind"][rows]
    return {"all": ~null} | {k: ~null & (kind == k) for k in KINDS}


def collect(args: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Scores (seed, head, embedding, metric, group, value), costs, and what was skipped or failed."""
    parts = [_screen(args, s, t) for s in range(args.first, args.first + args.seeds) for t in args.targets]
    frames = [pd.DataFrame([line for part in parts for line in part[i]]) for i in (0, 1)]
    return frames[0], frames[1], list(dict.fromkeys(note for part in parts for note in part[2]))


def _screen(args: argparse.Namespace, seed: int, target: str) -> tuple[list[Any], list[Any], list[str]]:
    """The same of one seed and target; runs what is missing."""
    runs, labels = plans(args, seed, target)
    run_all([p for p in runs if not p.reason], args, target)
    results, run = Results(args.out / target), runs[0].run
    metrics = metrics_of(registry_of(args.paths), metrics_for(args, target))
    data = screen(run.dataset, run.genes, args.paths)
    fold = fold_of(split_of(run.dataset, run.split, run.genes, run.seed, args.paths), run.fold)
    groups = groups_of(data, settings_of(args, seed), fold.test)
    found = {("ceiling", "none"): best(data, fold.test, fold.train, metrics, args.samples)}
    costs, notes = [], []
    for p in runs:
        where = (p.run.head, labels.get(p.run.embedding, "none"))
        if p.reason or not finished(results, p.key):
            notes.append(f"{' x '.join(where)} ({target}): {p.reason or results.failure(p.key) or 'no result'}")
            continue
        found[where] = score_run(results, p.key, data, metrics, {})
        peak = json.loads(results.path("peaks", p.key, "json").read_text(encoding="utf-8"))["peak_mib"]
        cost = {"cpu": results.facts(p.key)["cpu_seconds"], "peak": peak}
        costs.append({"seed": seed, "target": target, "head": where[0], "embedding": where[1], **cost})
    scores = [
        {"seed": seed, "head": head, "embedding": embedding, "metric": metric, "group": group}
        | {"value": pd.Series(values[metric][mask]).mean()}
        for (head, embedding), values in found.items()
        for metric in values
        for group, mask in groups.items()
    ]
    return scores, costs, notes


def best(
    data: PerturbationDataset, rows: np.ndarray, train: np.ndarray, metrics: dict[str, Any], samples: int
) -> dict[str, np.ndarray]:
    """Scores of the known effect, and of the replicate half of the cells where populations are compared."""
    own = {name: metric for name, (metric, _) in metrics.items()}
    cells = [m for m in own.values() if m.target == "population"]
    truth = truth_of(data, rows, train, cells=bool(cells), spaces={m.space for m in cells})
    known = replace(data, cells=None)  # the effect itself is known, no cells need be resampled for it
    made = ceilings(known, truth, rows, train, own, samples=samples, variants=("noise_free",))
    return {c.metric: c.values for c in made if c.variant == "noise_free"}


def report(args: argparse.Namespace) -> str:
    """Run what is missing, then all tables."""
    scores, costs, notes = collect(args)
    given = ", ".join(f"{k}={v}" for k, v in settings_of(args, args.first).items() if k != "seed")
    seeds = f"{args.seeds} seeds from {args.first}, fold 1 of {args.folds}, {args.samples} cells sampled"
    parts = [f"# Heads on simulated screens\n\n{seeds}; {given}.", Tables(scores, costs).page()]
    parts += ["## Skipped or failed\n\n" + "\n".join(f"- {note}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line; ``paths`` and ``heads`` resolved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/heads_simulated"))
    parser.add_argument("--heads", default="", help="comma-separated; default: all of HEADS that are registered")
    parser.add_argument("--registry", action="append", type=Path, default=[])
    parser.add_argument("--targets", nargs="+", choices=list(METRICS), default=list(METRICS))
    parser.add_argument("--effect-size", type=float, default=0.5)
    sizes = {"seeds": 5, "first": 0, "workers": 1, "perturbations": 120, "genes": 250, "cells": 50, "controls": 400}
    for name, size in (sizes | {"folds": 4, "samples": 100}).items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args(given)
    args.paths = tuple(str(path.resolve()) for path in args.registry)
    known = {entry.name for entry in registry_of(args.paths).entries("heads")}
    args.heads = args.heads.split(",") if args.heads else [h for h in HEADS if h.partition(":")[0] in known]
    return args


def main(given: list[str] | None = None) -> None:
    """Write the report to a file and show it."""
    args = arguments(given)
    with one_thread():
        text = report(args)
    args.report.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    if sys.argv[1:] == ["--one"]:
        run_here(json.loads(sys.stdin.read()))
    else:
        main()
