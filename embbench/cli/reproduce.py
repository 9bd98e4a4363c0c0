"""``embbench reproduce``: a published table, fetched, run and compared by one command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embbench.cli._shared import RegistryOption, byte_bar, progress_bar, registry_paths, say, show
from embbench.cli.grid import Workers
from embbench.cli.vectors import fetch_weights

if TYPE_CHECKING:
    from embbench.grid.config import Grid
    from embbench.grid.figures import PublishedTable
    from embbench.grid.reproduce import Compared
    from embbench.registry import Registry

TABLE = "reproduction.csv"


def reproduce(
    file: Annotated[Path, typer.Argument(help="A grid file that names its published table, e.g. grids/cole2026_....")],
    fetch: Annotated[
        bool, typer.Option("--fetch/--no-fetch", help="Fetch the screens and embeddings that it needs first.")
    ] = True,
    mirror: Annotated[
        str | None, typer.Option(envvar="EMBBENCH_MIRROR", help="Folder or address that holds the files offline.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licences of restricted data, once.")
    ] = False,
    workers: Workers = 1,
    out: Annotated[Path | None, typer.Option(help="Results folder; default: results/<name>.")] = None,
    registry: RegistryOption = None,
) -> None:
    """Run a grid and print our numbers beside the published ones. Exit code 1 when a run failed."""
    from embbench.grid.config import read_grid
    from embbench.grid.figures import check_names, published_table
    from embbench.grid.names import registry_of
    from embbench.grid.protocols import deviations
    from embbench.grid.schedule import run_grid

    paths = registry_paths(registry)
    wanted = read_grid(file)
    table = published_table(wanted, file)
    check_names(table, registry_of(paths), wanted.target, file)
    if fetch:
        fetch_needed(registry_of(paths), wanted, accept=accept_licence, mirror=mirror)
    for line in deviations(wanted, paths):
        say(f"deviates from {wanted.protocol}: {line}")
    folder = out or Path("results") / file.stem
    with progress_bar("runs") as (update, watch):
        tally = run_grid(wanted, folder, workers=workers, paths=paths, progress=update, watch=watch)
    found = _compared(folder, wanted, table, paths)
    _print(found, table, folder)
    say(f"{tally.done} runs done, {tally.skipped} skipped, {tally.failed} failed: {folder} (embbench report {folder})")
    for message in tally.messages[:5]:
        say(f"failed: {message}")
    if tally.failed:
        raise typer.Exit(1)


def fetch_needed(known: Registry, wanted: Grid, *, accept: bool, mirror: str | None) -> None:
    """Fetch the screens of a grid, then its embeddings; an embedding that cannot be had is said and left to be skipped.

    Raises
    ------
    UserError
        A screen cannot be fetched, or a licence was not accepted.
    """
    from embbench.cache.licences import require
    from embbench.core import UserError
    from embbench.grid.names import innermost
    from embbench.grid.obtain import fetch_screen, is_published

    published = set(known.names("datasets"))
    for name in wanted.dataset:
        inner = innermost(known, name)  # labelled:NAME is made from NAME
        if inner.partition(":")[0] in published and is_published(known.parse("datasets", inner).entry):
            with byte_bar() as progress:
                found = fetch_screen(known, inner, mirror=mirror, accept=accept, say=say, progress=progress)
            say(f"{inner}: {'; '.join(found)}")
    texts = [part for text in wanted.emb for part in text.split("+")]
    texts += [text for text in wanted.context_emb if text not in ("default", "none")]
    specs = [known.parse("embeddings", text) for text in dict.fromkeys(texts)]
    for entry in {spec.entry.name: spec.entry for spec in specs if spec.entry.restricted}.values():
        name = getattr(entry.load(), "collection", entry.name)
        require(name, entry.licence, entry.restricted, accept=accept, what="data")
    for spec in specs:
        try:
            fetch_weights(known, spec.text, accept=accept, mirror=mirror)
        except UserError as error:
            say(f"not fetched: {spec.text}: {error}")


def _compared(folder: Path, wanted: Grid, table: PublishedTable, paths: tuple[str, ...]) -> list[Compared]:
    from embbench.cache.store import replacing
    from embbench.grid.frames import read_frames
    from embbench.grid.metrics import metric_names
    from embbench.grid.names import registry_of
    from embbench.grid.reproduce import compare, comparison_frame
    from embbench.grid.results import Results

    known = registry_of(paths)
    metrics = metric_names(known, list(dict.fromkeys([*wanted.metrics, *table.metrics])), wanted.target)
    found = compare(read_frames(Results(folder), known, metrics), table)
    with replacing(folder / TABLE) as temporary:
        comparison_frame(found).to_csv(temporary, index=False)
    return found


def _print(found: Sequence[Compared], table: PublishedTable, folder: Path) -> None:
    """The figures with their differences, then those without and why."""
    from embbench.grid.reproduce import agreement, unchecked

    rows = []
    for each in found:
        if each.difference is None:
            continue
        figure = each.figure
        mark = "" if figure.spread is None else f" ±{figure.spread:.3f}"
        ours = f"{each.ours:.3f}" + ("" if each.spread is None else f" ±{each.spread:.3f}")
        rows.append(
            {"name": figure.name, "head": figure.head, "context": figure.context, "metric": figure.metric}
            | {"published": f"{figure.value:.3f}{mark}", "ours": ours, "difference": f"{each.difference:+.3f}"}
            | {"coverage": f"{each.coverage:.0%}", "note": "; ".join(filter(None, (each.setting, figure.note)))}
        )
    show(table.title, rows)
    say(f"published: {table.source}")
    _print_others(found)
    typer.echo("\n".join(agreement(found)))
    if open_ := unchecked(found, table):
        say(f"not checked whether data and folds are theirs: {', '.join(open_)} (no number without a fit to compare)")
    say(f"all figures: {folder / TABLE}")


def _print_others(found: Sequence[Compared]) -> None:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for each in found:
        if each.difference is None:
            groups.setdefault((each.figure.name, each.figure.head, each.why), []).append(each.figure.context)
    if groups:
        records = [
            {"name": name, "head": head, "contexts": ", ".join(dict.fromkeys(contexts)), "why": why}
            for (name, head, why), contexts in groups.items()
        ]
        show("not compared", records)
