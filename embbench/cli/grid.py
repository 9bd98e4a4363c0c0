"""``embbench grid``, ``fit`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embbench.cli._shared import RegistryOption, console_of, progress_bar, registry_paths, say, split_list

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
Metrics = Annotated[
    Listed, typer.Option(help="Metrics, comma-separated, by full name (embbench list metrics); or vcc_effects ...")
]
Out = Annotated[Path | None, typer.Option(help="Results folder; default: results/<name>.")]
Workers = Annotated[int, typer.Option(help="Processes; never changes a number.")]


def grid(
    file: Annotated[Path | None, typer.Argument(help="A grid file (YAML); options override it.")] = None,
    dataset: Dataset = None,
    split: SplitOption = None,
    emb: Emb = None,
    head: HeadOption = None,
    context_emb: ContextEmb = None,
    cell_emb: CellEmb = None,
    combine: Annotated[Listed, typer.Option(help="How sets combine: sum, mean, concat.")] = None,
    features: Annotated[Listed, typer.Option(help="raw, standardise, pca:DIM.")] = None,
    graph: Annotated[Listed, typer.Option(help="Graph for graph heads, e.g. ppi.")] = None,
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
    out: Out = None,
    registry: RegistryOption = None,
) -> None:
    """Run a grid; killed and started again it goes on where it was. Exit code 1 when a run failed."""
    from embbench.core import UserError
    from embbench.grid.config import read_grid

    draws = None if permutations is None else {"smoother": permutations, "trained": permutations}
    seeds = split_list(seed)
    if seeds and not all(s.isdigit() for s in seeds):
        raise UserError(f"--seed {seed}: expected non-negative integers such as 0,1,2")
    wanted = read_grid(
        file,
        dataset=dataset,
        split=split,
        emb=emb,
        head=head,
        context_emb=context_emb,
        cell_emb=cell_emb,
        combine=combine,
        features=features,
        graph=graph,
        scope=scope,
        target=target,
        select=select,
        genes=genes,
        seed=[int(s) for s in seeds] if seeds else None,
        strict_context=strict_context,
        permutations=draws,
        baselines=baselines,
        metrics=metrics,
    )
    stem = file.stem if file else "-".join(d.partition(":")[0] for d in wanted.dataset)
    _run(wanted, out or Path("results") / stem, workers, registry_paths(registry))


def fit(
    emb: Annotated[str, typer.Option(help="One embedding, e.g. go.")],
    head: Annotated[str, typer.Option(help="One head, e.g. knn.")],
    dataset: Annotated[str, typer.Option(help="Screen; default: the demo screen.")] = "sim_demo",
    split: Annotated[str, typer.Option(help="Split; default: the dataset's own.")] = "default",
    metrics: Metrics = None,
    workers: Workers = 1,
    out: Out = None,
    registry: RegistryOption = None,
) -> None:
    """Cross-validate one embedding under one head, with baselines and permutations beside it."""
    from embbench.grid.config import read_grid

    wanted = read_grid(None, dataset=dataset, split=split, emb=emb, head=head, metrics=metrics)
    _run(wanted, out or Path("results") / dataset.partition(":")[0], workers, registry_paths(registry))


def _run(wanted: Grid, out: Path, workers: int, paths: tuple[str, ...]) -> None:
    from embbench.grid.schedule import run_grid

    with progress_bar("runs") as update:
        tally = run_grid(wanted, out, workers=workers, paths=paths, progress=update)
    _report(out, wanted.metrics, wanted.target, paths, show=1)
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


def report(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    metrics: Metrics = None,
    svg: Annotated[Path | None, typer.Option(help="Also write the first leaderboard as a picture (SVG).")] = None,
    registry: RegistryOption = None,
) -> None:
    """Print the leaderboards and write leaderboard.csv, leaderboard.md and the tables beside them."""
    from embbench.core import UserError
    from embbench.grid.results import check_folder

    if not folder.is_dir():
        raise UserError(f"{folder}: expected a results folder (embbench grid --out {folder}), found none")
    if svg is not None:
        check_folder(svg.parent, "the folder of the picture,", "--svg")
    _report(folder, split_list(metrics), None, registry_paths(registry), show=3, svg=svg)


def _report(
    folder: Path,
    metrics: list[str] | None,
    target: str | None,
    paths: tuple[str, ...],
    *,
    show: int,
    svg: Path | None = None,
) -> None:

    from embbench.grid.frames import read_frames
    from embbench.grid.metrics import metric_names
    from embbench.grid.names import registry_of
    from embbench.grid.results import Results
    from embbench.report import layout, tables
    from embbench.report.render import svg as picture
    from embbench.report.render import terminal
    from embbench.report.write import write_report

    results, known = Results(folder), registry_of(paths)
    stored = results.plans()[-1]["facts"]["grid"]
    names = metric_names(known, metrics or stored["metrics"], target or stored["target"])
    frames = read_frames(results, known, names)
    write_report(
        folder,
        scores=frames.scores,
        runs=frames.runs,
        ceilings=frames.ceilings,
        metrics=frames.metrics,
        facts=frames.facts,
        names=names,
    )
    console, sheets = console_of(), []
    for name in names[:show]:
        part = frames.scores[(frames.scores["metric"] == name).to_numpy()]
        board = tables.leaderboard(part, frames.runs, frames.ceilings, frames.metrics, metric=name)
        sheets += layout.leaderboard_sheets(board, frames.metrics, frames.facts) if len(board) else []
        if any(facts["kind"] == "context" for facts in frames.facts.values()):
            each = tables.by_context(part, frames.runs, frames.ceilings, frames.metrics, metric=name)
            sheets += layout.context_sheets(each, frames.metrics, frames.facts) if len(each) else []
    sheets += layout.problem_sheets(tables.problems(frames.runs))
    console.print(terminal(sheets, width=console.width))
    if svg is not None:
        picture(terminal(sheets[:1], width=120), svg, width=120, title=f"embbench report {folder}")
    say(f"tables: {folder / 'leaderboard.md'}, leaderboard.csv, by_context.csv, chosen.csv, timings.csv")
