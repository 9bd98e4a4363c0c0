"""``embbench splits``: folds to and from PerturBench, Arc's cell-load and GEARS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, say

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
LabelsOption = Annotated[
    str, typer.Option(help="Covariate of the screen that holds the labels of the other tool's data file.")
]
SourceOption = Annotated[str, typer.Option(help="Name of the dataset in an arc-toml file.")]


@app.command("export")
def export_command(
    results: Annotated[
        Path | None, typer.Argument(help="Results folder; without one the split of --dataset and --split is made.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="perturbench-csv, arc-toml, gears or columns.")] = "columns",
    dataset: Annotated[str, typer.Option(help="Dataset, where the results hold several.")] = "",
    split: Annotated[str, typer.Option(help="Split, where the results hold several.")] = "",
    fold: Annotated[str, typer.Option(help="Only this fold.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("splits"),
    labels: LabelsOption = "",
    join: Annotated[str, typer.Option(help="Text between the perturbations of a set in arc-toml labels.")] = "+",
    source: SourceOption = "",
    data: Annotated[str, typer.Option(help="File or folder of cells that an arc-toml file should name.")] = "",
    unused: Annotated[
        str, typer.Option(help="refuse or train: conditions in no set, where arc-toml would train on them.")
    ] = "refuse",
    seed: Annotated[
        int | None, typer.Option(help="Seed, where the results hold several, or of a split that is made here (0).")
    ] = None,
    registry: RegistryOption = None,
) -> None:
    """Write the folds of a split as other tools read them, and say what they cannot hold."""
    from embbench.core import UserError
    from embbench.exchange.splits import Options, computed_split, export_split, kept_split

    paths = registry_paths(registry)
    if results is not None:
        chosen = kept_split(results, dataset, split, paths, seed=seed, cells=form == "perturbench-csv")
    elif dataset:
        chosen = computed_split(dataset, split or "default", paths, seed or 0)
    else:
        raise UserError("splits export: expected a results folder or --dataset NAME --split SPEC, found neither")
    try:
        options = Options(labels=labels, join=join, source=source, data=data, unused=unused)
    except ValueError as error:
        raise UserError(str(error)) from error
    done = export_split(chosen, form, out, fold, options)
    for note in done.notes:
        say(note)
    typer.echo("\n".join(map(str, done.files)))


@app.command("import")
def import_command(
    files: Annotated[list[Path], typer.Argument(help="Split file(s), a fold each, or a folder of them.")],
    dataset: Annotated[str, typer.Option(help="Registered or imported dataset that they split.")],
    form: Annotated[
        str, typer.Option("--format", help="perturbench-csv, arc-toml, gears or columns; guessed unless told.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Table to write (default: DATASET-FILE.tsv).")] = None,
    labels: LabelsOption = "",
    control: Annotated[list[str] | None, typer.Option(help="Further label(s) of controls in the files.")] = None,
    source: SourceOption = "",
    column: Annotated[
        list[str] | None, typer.Option(help="Column(s) of a table to read as folds; found by name unless told.")
    ] = None,
    registry: RegistryOption = None,
) -> None:
    """Read the folds of another tool into a table for ``--split file:TABLE``, and say what did not meet."""
    from embbench.core import UserError
    from embbench.exchange.splits import Options, import_split, slug, write_split
    from embbench.grid.screens import screen

    target = out or Path(f"{slug(f'{dataset}-{files[0].resolve().stem}')}.tsv")
    if target.exists() and any(target.resolve() in (f.resolve(), *f.resolve().parents) for f in files):
        raise UserError(f"splits import: {target} is the file to read; name another one with --out")
    data = screen(dataset, "all", registry_paths(registry))
    options = Options(labels=labels, control=tuple(control or ()), source=source, columns=tuple(column or ()))
    found = import_split(files, data, form, options)
    for note in found.notes:
        say(note)
    typer.echo(write_split(target, data, found))
    say(f"written {target}; next: embbench grid --dataset {dataset} --split file:{target} --emb go")
