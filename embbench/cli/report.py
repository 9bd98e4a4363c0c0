"""``embbench report``: tables, one page, figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embbench.cli._shared import RegistryOption, console_of, registry_paths, say, split_list

if TYPE_CHECKING:
    import pandas as pd

    from embbench.grid.frames import Frames
    from embbench.grid.results import Results
    from embbench.registry import Registry

Metrics = Annotated[
    str | None, typer.Option(help="Metrics, comma-separated, by full name (embbench list metrics); or vcc_effects ...")
]
REMEDIES = {
    "no de": ": a DE table comes with labels, --dataset labelled:NAME",
    "no cells": ": import the screen with its cells",
}
TABLES = "leaderboard.md, leaderboard.csv, pairwise.csv, decomposition.csv, by_context.csv, chosen.csv, timings.csv"


def report(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    metrics: Metrics = None,
    html: Annotated[Path | None, typer.Option(help="Also write one page that opens offline (HTML).")] = None,
    figures: Annotated[Path | None, typer.Option(help="Also write the figures into this folder.")] = None,
    formats: Annotated[str, typer.Option(help="Of the figures: png, svg, pdf.")] = "png,svg,pdf",
    svg: Annotated[Path | None, typer.Option(help="Also write the first leaderboard as a picture (SVG).")] = None,
    ceiling: Annotated[
        str, typer.Option(help="noise_free, from_cells, replicate_vs_replicate, cole_q0.9 or cell_eval.")
    ] = "noise_free",
    coverage: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least share of conditions with a vector of what is ranked.")
    ] = 0.8,
    registry: RegistryOption = None,
) -> None:
    """Print the leaderboards and write leaderboard.csv, leaderboard.md and the tables beside them."""
    from embbench.core import UserError
    from embbench.grid.results import check_folder

    if not folder.is_dir():
        raise UserError(f"{folder}: expected a results folder (embbench grid --out {folder}), found none")
    for path, option in ((svg, "--svg"), (html, "--html")):
        if path is not None:
            check_folder(path.parent, f"the folder of {path.name},", option)
    if figures is not None:
        check_folder(figures, "the folder of the figures,", "--figures")
    wanted = split_list(formats) or []
    extras = {"svg": svg, "html": html, "figures": figures, "formats": wanted, "ceiling": ceiling}
    write_and_show(
        folder, split_list(metrics), None, registry_paths(registry), show=3, coverage=coverage, extras=extras
    )


def write_and_show(
    folder: Path,
    metrics: list[str] | None,
    target: str | None,
    paths: tuple[str, ...],
    *,
    show: int,
    coverage: float = 0.8,
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write every table of a results folder, print the first ``show`` metrics, and whatever ``extras`` ask for."""
    from embbench.grid.frames import read_frames
    from embbench.grid.metrics import composites_of, metric_names
    from embbench.grid.names import registry_of
    from embbench.grid.results import Results
    from embbench.report.composites import composite_table
    from embbench.report.write import report_frames, write_frames

    results, known, more = Results(folder), registry_of(paths), dict(extras or {})
    stored = [plan["facts"]["grid"] for plan in results.plans()]
    asked = metrics or stored[-1]["metrics"]
    targets = dict.fromkeys(grid["target"] for grid in reversed(stored))
    names = metric_names(known, asked, *([target] if target else targets))
    frames = read_frames(results, known, names)
    for dataset, facts in frames.facts.items():
        for name, why in facts["undefined"].items():
            say(f"not scored on {dataset}: {name} ({why}{REMEDIES.get(why, '')})")
    limits = _variant(frames.ceilings, more.get("ceiling", "noise_free"))
    given = (frames.scores, frames.runs, limits, frames.metrics, frames.facts)
    tables = report_frames(*given, names, coverage=coverage)
    wanted = {text.partition(":")[0] for text in asked}
    made = composite_table(tables["leaderboard"], composites_of(known, names, wanted), wanted)
    tables |= {"composites": made} if len(made) else {}
    write_frames(folder, tables, frames.metrics, frames.facts, names)
    sheets = _sheets(tables, frames, names[:show])
    console = console_of()
    from embbench.report.render import terminal

    console.print(terminal(sheets, width=console.width))
    say(f"tables: {folder}/{TABLES}{', composites.csv' if len(made) else ''}")
    if more.get("svg") is not None:
        from embbench.report.render import svg as picture

        picture(terminal(sheets[:1], width=120), more["svg"], width=120, title=f"embbench report {folder}")
    if more.get("html") is not None or more.get("figures") is not None:
        _page(results, known, frames, tables, names, {**more, "coverage": coverage})


def _variant(ceilings: pd.DataFrame, variant: str) -> pd.DataFrame:
    """The ceilings of one variant in the place of the default one."""
    from embbench.core import UserError
    from embbench.grid.ceiling import VARIANTS

    if variant not in VARIANTS:
        raise UserError(f"--ceiling {variant!r}: expected one of {', '.join(VARIANTS)}")
    if variant == "noise_free" or not len(ceilings):
        return ceilings
    chosen = ceilings[(ceilings["variant"] == variant).to_numpy()]
    return chosen.assign(variant="noise_free", note=variant + ": " + chosen["note"].astype(str))


def _sheets(tables: Mapping[str, pd.DataFrame], frames: Frames, names: list[str]) -> list[Any]:
    """Leaderboards of some metrics on all conditions, per context where contexts are held out, answers, problems."""
    from embbench.report import layout

    sheets: list[Any] = []
    board, contexts = tables["leaderboard"], tables["by_context"]
    for name in names:
        part = board[((board["metric"] == name) & (board["subset"] == "all")).to_numpy()] if len(board) else board
        sheets += layout.leaderboard_sheets(part, frames.metrics, frames.facts) if len(part) else []
        if any(facts["kind"] == "context" for facts in frames.facts.values()) and len(contexts):
            each = contexts[((contexts["metric"] == name) & (contexts["subset"] == "all")).to_numpy()]
            sheets += layout.context_sheets(each, frames.metrics, frames.facts) if len(each) else []
    first = {k: t[(t["metric"] == names[0]).to_numpy()] if "metric" in t else t for k, t in tables.items()}
    # small grids have no crossed panel and one kind of information: the CSV says so, the terminal need not
    first["decomposition"] = first["decomposition"][first["decomposition"]["embedding"].notna().to_numpy()]
    if first["by_information"]["information"].nunique() < 2:
        del first["by_information"]
    return sheets + layout.answer_sheets(first) + layout.problem_sheets(tables["problems"])


def _page(
    results: Results,
    known: Registry,
    frames: Frames,
    tables: Mapping[str, pd.DataFrame],
    names: list[str],
    more: Mapping[str, Any],
) -> None:
    """The page and the figures, from one bundle."""
    from embbench.grid.details import details_of, provenance_of
    from embbench.report.page.bundle import make_bundle

    metric = known.parse("metrics", names[0]).make()
    chosen = (names[0], metric)
    details = details_of(results, known, frames.runs, frames.scores, chosen, more["coverage"])
    page = f"embbench report {results.folder.name} --html report.html"
    bundle = make_bundle(frames, tables, details, provenance_of(results, page))
    if more.get("html") is not None:
        from embbench.report.page.write import write_page

        path = write_page(more["html"], bundle, title=f"embbench: {results.folder.name}")
        say(f"page: {path} ({path.stat().st_size / 1e6:.1f} MB, opens offline)")
    if more.get("figures") is not None:
        from embbench.report.figures.write import write_figures

        written = write_figures(more["figures"], bundle, tuple(more["formats"]))
        say(f"figures: {len(written)} files in {more['figures']}")
