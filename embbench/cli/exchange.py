"""``embbench export`` and ``score``: predictions for other tools, and other tools' predictions under our metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embbench.cli._shared import RegistryOption, registry_paths, say, show, split_list

WHOLE = ("ro-crate", "snakemake")  # formats of a whole results folder
SERVES = {  # option -> formats that heed it; registry and out serve all
    "--run": ("cell-eval", "h5ad", "openproblems"),
    "--fold": ("cell-eval", "h5ad", "openproblems"),
    "--control": ("cell-eval",),
    "--perturbation-key": ("cell-eval",),
    "--context-key": ("cell-eval",),
    "--id-map": ("openproblems",),
    "--author": ("ro-crate",),
    "--licence": ("ro-crate",),
    "--with-predictions": ("ro-crate",),
    "--link": ("ro-crate",),
}


def export(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="Of one configuration: cell-eval, h5ad, openproblems. Of all: ro-crate, snakemake."
        ),
    ],
    run: Annotated[
        str | None, typer.Option("--run", help="Configuration id from the leaderboard (its start is enough).")
    ] = None,
    fold: Annotated[str | None, typer.Option(help="One fold; default: all that are done.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: RESULTS/export/<id>-<format>.")] = None,
    control: Annotated[
        str | None, typer.Option(help="Label of control rows (cell-eval); default: non-targeting.")
    ] = None,
    perturbation_key: Annotated[
        str | None, typer.Option(help="Column of perturbations (cell-eval); default: target_gene.")
    ] = None,
    context_key: Annotated[str | None, typer.Option(help="Column of contexts (cell-eval); default: cell_type.")] = None,
    id_map: Annotated[
        Path | None, typer.Option(help="openproblems: the task's id_map.csv, whose order is followed.")
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help='ro-crate: "Name <ORCID>"; several times.')] = None,
    licence: Annotated[str, typer.Option(help="ro-crate: licence of the crate, e.g. CC-BY-4.0.")] = "",
    with_predictions: Annotated[
        bool, typer.Option("--with-predictions", help="ro-crate: copy predictions, too.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="ro-crate: hard links in place of copies.")] = False,
    registry: RegistryOption = None,
) -> None:
    """Write held-out predictions, or a whole results folder, in another tool's format."""
    from embbench.core import UserError
    from embbench.exchange.predictions import FORMATS, Names, gather
    from embbench.exchange.predictions import export as write
    from embbench.grid.results import Results
    from embbench.grid.threads import one_thread

    if not results.is_dir():
        raise UserError(f"{results}: expected a results folder (embbench grid --out {results}), found none")
    if form not in (known := (*FORMATS, *WHOLE)):
        raise UserError(f"--format {form!r}: expected one of {', '.join(known)}")
    values = (run, fold, control, perturbation_key, context_key, id_map, author, licence, with_predictions, link)
    given = [name for name, value in zip(SERVES, values, strict=True) if value not in (None, "", False, [])]
    if vain := [f"{name} ({', '.join(SERVES[name])})" for name in given if form not in SERVES[name]]:
        raise UserError(f"--format {form} has no use for {', '.join(vain)}; leave it out, or choose that format")
    paths = registry_paths(registry)
    if form in WHOLE:
        from embbench.exchange.crate import write_crate
        from embbench.exchange.workflow import write_workflow

        if form == "snakemake":
            made = write_workflow(results, out, paths=paths)
        else:
            told = tuple(author or ())
            made = write_crate(
                results, out, authors=told, licence=licence, paths=paths, predictions=with_predictions, link=link
            )
        for line in made.notes:
            say(line)
        typer.echo(str(made.folder))
        return
    if run is None:
        raise UserError(f"--format {form} is of one configuration: name it with --run (its id in the leaderboard)")
    with one_thread():
        found = gather(Results(results), run, paths, fold)
        folder = out or results / "export" / f"{found.config[:8]}-{form}"
        named: dict[str, Any] = {
            "control": control,
            "perturbation": perturbation_key,
            "context": context_key,
            "id_map": id_map,
        }
        written = write(found, form, folder, Names(**{k: v for k, v in named.items() if v is not None}))
    for line in written.notes:
        say(line)
    for path in written.files:
        typer.echo(str(path))


def score(
    file: Annotated[Path, typer.Argument(help="Predictions: .h5ad, .csv (also .gz), .tsv or .parquet.")],
    dataset: Annotated[str, typer.Option(help="Screen that they are predictions of.")],
    split: Annotated[
        str, typer.Option(help="Split whose test folds are scored; default: the dataset's own.")
    ] = "default",
    metrics: Annotated[str | None, typer.Option(help="Metrics, comma-separated (embbench list metrics).")] = None,
    perturbation_key: Annotated[str | None, typer.Option(help="Column of perturbations.")] = None,
    context_key: Annotated[str | None, typer.Option(help="Column of contexts; a|b joins two.")] = None,
    unit: Annotated[str, typer.Option(help="auto, delta (effects), expression (means) or cells.")] = "auto",
    id_map: Annotated[
        Path | None, typer.Option(help="openproblems: the id_map.csv of the file, whose rows are ids.")
    ] = None,
    genes: Annotated[str, typer.Option(help="all, expressed or hvg:N, as in a grid.")] = "all",
    fold: Annotated[str | None, typer.Option(help="Score one fold alone.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the score of every condition (.csv).")] = None,
    registry: RegistryOption = None,
) -> None:
    """Score somebody else's predictions like a configuration of the grid, with no change, context mean and ceiling."""
    from embbench.cache.store import replacing
    from embbench.core import UserError
    from embbench.exchange.score import Asked, score_file
    from embbench.grid.results import check_folder
    from embbench.grid.threads import one_thread

    if out is not None:
        if out.suffix != ".csv":
            raise UserError(f"--out {out}: expected a file that ends in .csv")
        if out.exists() and any(each is not None and each.exists() and out.samefile(each) for each in (file, id_map)):
            raise UserError(f"--out {out}: that is the file that is read, which would be lost; name another one")
        check_folder(out.parent, "the folder of the scores,", "--out")
    names = tuple(split_list(metrics) or ())
    asked = Asked(file, dataset, split, genes, seed, names, perturbation_key, context_key, unit, fold, id_map)
    with one_thread():
        made = score_file(asked, registry_paths(registry))
    for line in made.notes:
        say(line)
    show(f"{file.name} on {dataset}: {made.coverage:.0%} of test conditions covered", made.summary)
    if out is not None:
        with replacing(out.resolve()) as temporary:
            made.rows.to_csv(temporary, index=False, lineterminator="\n")
        say(f"wrote {out}")
