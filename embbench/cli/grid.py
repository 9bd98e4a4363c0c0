"""``embbench grid`` and ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embbench.cli._shared import RegistryOption, progress_bar, registry_paths, say, split_list
from embbench.cli.report import Metrics, write_and_show

if TYPE_CHECKING:
    from embbench.grid.config import Grid
    from embbench.grid.schedule import Tally

Listed = str | None
Dataset = Annotated[Listed, typer.Option(help="Screen(s); default: the demo screen.")]
SplitOption = Annotated[Listed, typer.Option(help="Split(s); default: the dataset's own.")]
Emb = Annotated[Listed, typer.Option(help="Embedding(s), comma-separated; a+b gives one head several at once.")]
HeadOption = Annotated[Listed, typer.Option(help="Head(s), comma-separated, e.g. knn,ridge or knn:k=20.")]
ContextEmb = Annotated[Listed, typer.Option(help="Context embedding(s), e.g. control_pca; default: the dataset's own.")]
CellEmb = Annotated[
    Listed,
    typer.Option(help="Cell representation(s) in place of expression, e.g. scgpt or cell_table:FILE:key=X_scVI."),
]
Preset = Annotated[
    str | None,
    typer.Option(help="fast, default or reference: parameters of every head that has them and names none itself."),
]
Protocol = Annotated[
    str | None, typer.Option(help="A published protocol, e.g. cole2026: sets what you do not (docs/protocols.md).")
]
Out = Annotated[Path | None, typer.Option(help="Results folder; default: results/<name>.")]
Workers = Annotated[int, typer.Option(help="Processes; never changes a number.")]
Cluster = Annotated[
    str | None,
    typer.Option(help="Dask cluster in place of --workers: tcp://HOST:PORT or a scheduler file (docs/cluster.md)."),
]


def grid(
    file: Annotated[Path | None, typer.Argument(help="A grid file (YAML); options override it.")] = None,
    dataset: Dataset = None,
    split: SplitOption = None,
    emb: Emb = None,
    head: HeadOption = None,
    context_emb: ContextEmb = None,
    cell_emb: CellEmb = None,
    combine: Annotated[Listed, typer.Option(help="How sets combine: sum, mean, concat.")] = None,
    protocol: Protocol = None,
    features: Annotated[Listed, typer.Option(help="raw, standardise, pca:DIM.")] = None,
    svd: Annotated[
        str | None,
        typer.Option(help="Solver of PCA features: exact; randomized or auto as scikit-learn's, one for each --seed."),
    ] = None,
    graph: Annotated[Listed, typer.Option(help="Graph for graph heads, e.g. ppi.")] = None,
    preset: Preset = None,
    scope: Annotated[Listed, typer.Option(help="auto, per_context or joint.")] = None,
    target: Annotated[Listed, typer.Option(help="effects, labels or population.")] = None,
    select: Annotated[Listed, typer.Option(help="Metric that inner selection optimises.")] = None,
    genes: Annotated[Listed, typer.Option(help="all, expressed or hvg:N (from control cells).")] = None,
    seed: Annotated[Listed, typer.Option(help="Seed(s).")] = None,
    strict_context: Annotated[
        bool | None, typer.Option("--strict-context", help="Close the controls of unseen contexts.")
    ] = None,
    permutations: Annotated[
        int | None, typer.Option(help="Draws of each embedding's own permutation (0: none).")
    ] = None,
    baselines: Annotated[bool | None, typer.Option(help="Add the baselines and the random embedding.")] = None,
    metrics: Metrics = None,
    workers: Workers = 1,
    cluster: Cluster = None,
    out: Out = None,
    registry: RegistryOption = None,
) -> None:
    """Run a grid; killed and started again it goes on where it was. Exit code 1 when a run failed."""
    from embbench.core import UserError
    from embbench.grid.config import read_grid, with_solver

    draws = None if permutations is None else {"smoother": permutations, "trained": permutations}
    seeds = split_list(seed)
    if seeds and not all(s.isdigit() for s in seeds):
        raise UserError(f"--seed {seed}: expected non-negative integers such as 0,1,2")
    numbers = [int(s) for s in seeds] if seeds else []
    solves = svd not in (None, "exact")  # then the seeds are the solver's: folds and heads stay, its spread is seen
    wanted = read_grid(
        file,
        protocol=protocol,
        dataset=dataset,
        split=split,
        emb=emb,
        head=head,
        context_emb=context_emb,
        cell_emb=cell_emb,
        combine=combine,
        features=features,
        graph=graph,
        preset=preset,
        scope=scope,
        target=target,
        select=select,
        genes=genes,
        seed=None if solves else numbers,
        strict_context=strict_context,
        permutations=draws,
        baselines=baselines,
        metrics=metrics,
    )
    wanted = with_solver(wanted, svd, numbers)
    named = "-".join(d.partition(":")[0] for d in wanted.dataset) if protocol is None else protocol
    stem = file.stem if file else named
    _run(wanted, out or Path("results") / stem, workers, cluster, registry_paths(registry))


def fit(
    emb: Annotated[str, typer.Option(help="One embedding, e.g. go.")],
    head: Annotated[str, typer.Option(help="One head, e.g. knn.")],
    dataset: Annotated[str, typer.Option(help="Screen; default: the demo screen.")] = "sim_demo",
    split: Annotated[str, typer.Option(help="Split; default: the dataset's own.")] = "default",
    preset: Preset = None,
    metrics: Metrics = None,
    workers: Workers = 1,
    cluster: Cluster = None,
    out: Out = None,
    registry: RegistryOption = None,
) -> None:
    """Cross-validate one embedding under one head, with baselines and permutations beside it."""
    from embbench.grid.config import read_grid

    wanted = read_grid(None, dataset=dataset, split=split, emb=emb, head=head, preset=preset, metrics=metrics)
    _run(wanted, out or Path("results") / dataset.partition(":")[0], workers, cluster, registry_paths(registry))


def _run(wanted: Grid, out: Path, workers: int, cluster: str | None, paths: tuple[str, ...]) -> None:
    from embbench.grid.protocols import deviations
    from embbench.grid.schedule import run_grid

    for line in deviations(wanted, paths):
        say(f"deviates from {wanted.protocol}: {line}")
    with progress_bar("runs") as (update, watch):
        tally = run_grid(wanted, out, workers=workers, cluster=cluster, paths=paths, progress=update, watch=watch)
    write_and_show(out, wanted.metrics, wanted.target, paths, show=1)
    _close(tally, out)


def _close(tally: Tally, out: Path) -> None:
    say(
        f"{tally.done} runs done ({tally.reused} were there already), "
        f"{tally.skipped} skipped, {tally.failed} failed: {out}"
    )
    for text, count in tally.notices[:5]:
        say(f"notice from {count} runs: {text}")
    for message in tally.messages[:5]:
        say(f"failed: {message}")
    if tally.failed:
        raise typer.Exit(1)
