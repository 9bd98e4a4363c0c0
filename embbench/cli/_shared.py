"""What the verbs share: options, tables on the terminal, the progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from embbench.grid.schedule import Outcome

LOG_SECONDS = 60.0  # between lines about runs in flight, where no terminal shows them
RegistryOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--registry", envvar="EMBBENCH_REGISTRY", help="Further registry files (YAML): your screens, embeddings, heads."
    ),
]


def registry_paths(given: Sequence[Path] | None) -> tuple[str, ...]:
    """Absolute paths of the user's registry files."""
    return tuple(str(Path(p).resolve()) for p in given or ())


def split_list(text: str | None) -> list[str] | None:
    """``a,b`` -> [a, b]; None stays None."""
    from embbench.registry import split_specs

    return None if text is None else split_specs(text)


def show(title: str, records: Sequence[dict[str, Any]]) -> None:
    """Records as a plain table; numbers with three significant digits."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for name in records[0] if records else ():
        numeric = all(isinstance(r[name], int | float) for r in records)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=name == "name")
    for record in records:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in record.values()))
    console = console_of()
    console.print(title if records else f"{title}: none", highlight=False, markup=False)
    if records:
        console.print(table, highlight=False, markup=False)


def console_of() -> Console:
    """The terminal at its own width; 110 columns when output goes to a file."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=110)


def say(text: str) -> None:
    """One line for the user on standard error; results go to standard output."""
    typer.echo(text, err=True)


@contextmanager
def progress_bar(
    label: str,
) -> Iterator[tuple[Callable[[Outcome | None, int, int], None], Callable[[list[str]], None]]]:
    """A bar with runs done, failures and remaining time estimated from the runs of this start.

    Yields what takes outcomes, and what takes lines about runs in flight: a terminal shows them below the bar, a log
    gets them once a minute.
    """
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Bar(progress.Progress):
        lines: tuple[str, ...] = ()

        def get_renderables(self) -> Iterator[Any]:
            yield self.make_tasks_table(self.tasks)
            yield from (Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in self.lines)

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[failed]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, failed="")
        failed, said, minute = 0, 0, time.monotonic()

        def update(outcome: Outcome | None, finished: int, total: int) -> None:
            nonlocal failed, said
            failed += outcome is not None and outcome.status == "failed"
            bar.update(task, completed=finished, total=total, failed=f"{failed} failed" if failed else "")
            tenth = 10 * finished // max(1, total)
            if not console.is_terminal and outcome is not None and tenth > said:  # a log file wants few lines
                said = tenth
                say(f"{label}: {finished} of {total}" + (f", {failed} failed" if failed else ""))

        def watch(lines: list[str]) -> None:
            nonlocal minute
            bar.lines = tuple(lines)
            if not console.is_terminal and lines and time.monotonic() - minute >= LOG_SECONDS:
                minute = time.monotonic()
                say("; ".join(lines))

        yield update, watch
