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

    from embbench.grid.executors import Watch
    from embbench.grid.schedule import Progress
    from embbench.grid.work import Outcome

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


def spell(seconds: float) -> str:
    """A time that is estimated, with no more digits than it deserves.

    Examples
    --------
    >>> [spell(s) for s in (3.2, 100, 5000, 200_000)]
    ['5 s', '2 min', '1.4 h', '2.3 d']
    """
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 3300:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86_400 else f"{seconds / 86_400:.1f} d"


@contextmanager
def progress_bar(label: str) -> Iterator[tuple[Progress, Watch]]:
    """A bar with runs done, failures and the remaining time as the grid estimates it from the runs of this start.

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
        progress.TextColumn("{task.fields[left]}"),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, failed="", left="")
        failed, said, minute = 0, 0, time.monotonic()

        def update(outcome: Outcome | None, finished: int, total: int, left: float | None = None) -> None:
            nonlocal failed, said
            failed += outcome is not None and outcome.status == "failed"
            rest = "" if left is None else f"about {spell(left)} left"
            bar.update(task, completed=finished, total=total, failed=f"{failed} failed" if failed else "", left=rest)
            tenth = 10 * finished // max(1, total)
            if not console.is_terminal and outcome is not None and tenth > said:  # a log file wants few lines
                said = tenth
                rest = rest if finished < total else ""
                say(
                    f"{label}: {finished} of {total}"
                    + "".join(f", {t}" for t in (failed and f"{failed} failed", rest) if t)
                )

        def watch(lines: list[str]) -> None:
            nonlocal minute
            bar.lines = tuple(lines)
            if not console.is_terminal and lines and time.monotonic() - minute >= LOG_SECONDS:
                minute = time.monotonic()
                say("; ".join(lines))

        yield update, watch


@contextmanager
def byte_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Bytes of files as they arrive: a bar on a terminal, a line a minute in a log."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, progress.TaskID] = {}
        said: dict[str, float] = {}

        def update(name: str, done: int, total: int | None) -> None:
            if console.is_terminal:
                if name not in tasks:
                    tasks[name] = bar.add_task(name, total=total)
                bar.update(tasks[name], completed=done, total=total)
                return
            now = time.monotonic()
            if now - said.setdefault(name, now) >= LOG_SECONDS:  # a short transfer says nothing
                said[name] = now
                say(f"{name}: {done / 1e6:,.0f}" + (f" of {total / 1e6:,.0f} MB" if total else " MB"))

        yield update
