"""The ``embbench`` command: one verb per job, bad input ends with one message and exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

import typer

from embbench.cli import apply, cache, checks, data, exchange, grid, listing, report, reproduce, splits, vectors
from embbench.core import UserError

app = typer.Typer(
    help="Any frozen embedding x any head for single-cell perturbation prediction.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("list")(listing.list_components)
app.command("extract")(vectors.extract)
app.command("fit")(grid.fit)
app.command("grid")(grid.grid)
app.command("report")(report.report)
app.command("predict")(apply.predict)
app.command("explain")(apply.explain)
app.command("export")(exchange.export)
app.command("score")(exchange.score)
app.command("reproduce")(reproduce.reproduce)
app.command("check")(checks.check)
app.add_typer(data.app, name="data", help="List, fetch, import and describe screens.")
app.add_typer(splits.app, name="splits", help="Folds to and from PerturBench, Arc's cell-load and GEARS.")
app.add_typer(cache.app, name="cache", help="List, verify and prune cached embeddings.")


def main() -> None:
    """Entry point; ``--debug`` anywhere on the line shows tracebacks. A user's modules are found in the current folder,
    after everything installed.
    """
    sys.path.append(str(Path.cwd()))
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        os.environ["EMBBENCH_DEBUG"] = "1"
    if not os.environ.get("EMBBENCH_DEBUG"):
        sys.excepthook = _one_line
        import warnings

        warnings.showwarning = _notice
    try:
        typer.main.get_command(app)()  # not app(): it would replace the excepthook
    except UserError as error:
        if os.environ.get("EMBBENCH_DEBUG"):
            raise
        typer.echo(f"embbench: {error}", err=True)
        raise SystemExit(2) from None


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        typer.echo("embbench: interrupted; start the same command again to go on", err=True)
        return
    typer.echo(
        f"embbench: internal error: {kind.__name__}: {error}; run again with --debug for the traceback", err=True
    )


def _notice(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, UserWarning):
        typer.echo(f"embbench: notice: {message}", err=True)
