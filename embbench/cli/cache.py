"""``embbench cache``: ls, verify, prune."""

from __future__ import annotations

from typing import Annotated

import typer

from embbench.cli._shared import say, show

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("ls")
def ls() -> None:
    """List cached embeddings."""
    from embbench.cache import maintain
    from embbench.cache.home import home

    found = maintain.items()
    show(
        f"cache {home('cache')}",
        [
            {
                "embedding": i.spec,
                "shape": "x".join(map(str, i.shape)),
                "MB": i.size / 1e6,
                "days": i.age_days,
                "key": i.path.stem,
                "problem": i.problem,
            }
            for i in found
        ],
    )


@app.command("verify")
def verify() -> None:
    """Read every cached embedding through and compare its hash; exit code 1 when one is damaged."""
    from embbench.cache import maintain

    found = maintain.verify()
    drifted = [i for i in found if not i.problem and maintain.drift(i)]
    for item in drifted:
        changes = ", ".join(f"{k} {a} -> {b}" for k, (a, b) in maintain.drift(item).items())
        say(f"{item.path.name} ({item.spec}): written with other versions: {changes}")
    bad = [i for i in found if i.problem]
    for item in bad:
        say(f"{item.path}: {item.problem}")
    typer.echo(f"{len(found)} files, {len(bad)} damaged, {len(drifted)} written with other library versions")
    if bad:
        raise typer.Exit(1)


@app.command("prune")
def prune(
    name: Annotated[str | None, typer.Option(help="Only this embedding.")] = None,
    older_than: Annotated[float, typer.Option(min=0, help="Only files at least this many days old.")] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove cached embeddings, damaged files and abandoned temporaries."""
    from embbench.cache import maintain
    from embbench.grid.names import registry_of

    if name is not None and name not in {i.path.parent.name for i in maintain.items()}:
        registry_of(()).get("embeddings", name)  # of a user's registry it can only be known when it is cached
    if not yes:
        typer.confirm(f"Remove cached embeddings{f' of {name}' if name else ''}?", abort=True)
    gone = maintain.totals(maintain.prune(name, older_than))
    typer.echo(f"removed {gone['files']} files, {gone['megabytes']:.1f} MB")
