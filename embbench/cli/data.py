"""``embbench data``: list and fetch published screens, import your own, describe and label them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embbench.cli._shared import RegistryOption, byte_bar, registry_paths, say, show

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("import")
def import_screen(
    path: Annotated[
        Path, typer.Argument(help="Single cells, .h5ad or a zarr store of AnnData (CSR, CSC or dense; counts or logs).")
    ],
    name: Annotated[str, typer.Option(help="Name to use in --dataset.")],
    perturbation_key: Annotated[str, typer.Option(help="obs column of perturbation labels.")],
    control: Annotated[list[str], typer.Option(help="Label(s) of control cells.")],
    context_key: Annotated[
        list[str] | None, typer.Option(help="obs column(s) of the context; several are joined.")
    ] = None,
    batch_key: Annotated[str | None, typer.Option(help="obs column of batches, for matching.")] = None,
    size_factor: Annotated[str | None, typer.Option(help="obs column of total counts; needed for gene panels.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to read instead of X.")] = None,
    scale: Annotated[str, typer.Option(help="auto, counts or lognorm.")] = "auto",
    controls: Annotated[
        str, typer.Option(help="halves (default) or shared (as papers do; marked in every table).")
    ] = "halves",
    matching: Annotated[
        str, typer.Option(help="batch, equal-batch, pooled or batch-means (means over batches, unmatched).")
    ] = "batch",
    entity_type: Annotated[str, typer.Option(help="auto, gene or compound.")] = "auto",
    dose_key: Annotated[str | None, typer.Option(help="obs column of the dose.")] = None,
    gene_key: Annotated[str | None, typer.Option(help="var column of gene names (default: the index).")] = None,
    covariate: Annotated[
        list[str] | None, typer.Option(help="Further obs column(s) to keep, e.g. a published split.")
    ] = None,
    min_cells: Annotated[int, typer.Option(help="Drop conditions with fewer cells.")] = 10,
    max_residual: Annotated[
        float | None,
        typer.Option(help="Drop conditions whose own target keeps more than this share of its expression."),
    ] = None,
    cells: Annotated[str, typer.Option(help="Cells to keep beside the means: all, controls or none.")] = "all",
    etest: Annotated[bool, typer.Option(help="Compute an E-test p value per condition.")] = True,
    flag: Annotated[
        list[str] | None, typer.Option(help="What tables must say of it: 'genes selected on test rows'.")
    ] = None,
    dated: Annotated[str, typer.Option(help="When the screen was made public, e.g. 2021-03.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the control halves and of the E-test.")] = 0,
) -> None:
    """Import single cells into effects per condition; bounded memory whatever the number of cells."""
    from embbench.core import UserError
    from embbench.datasets._import import import_h5ad
    from embbench.grid.names import registry_of
    from embbench.grid.threads import one_thread

    if name in registry_of(()).names("datasets"):
        raise UserError(f"import: {name!r} is the name of a registered dataset; choose another --name")
    with one_thread():  # as in a grid: the same bits, and threads only cost here
        data = import_h5ad(
            path,
            name,
            perturbation_key,
            control,
            context_keys=tuple(context_key or ()),
            batch_key=batch_key,
            size_factor=size_factor,
            layer=layer,
            scale=scale,
            controls=controls,
            matching=matching,
            entity_type=entity_type,
            min_cells=min_cells,
            max_residual=max_residual,
            cells=cells,
            dose_key=dose_key,
            gene_key=gene_key,
            covariates=tuple(covariate or ()),
            etest=etest,
            flags=tuple(flag or ()),
            dated=dated,
            seed=seed,
        )
    typer.echo("\n".join(data.meta.get("import_report", [])))
    say(f"imported as {name!r}; next: embbench data describe {name}; embbench grid --dataset {name} --emb go")


@app.command("list")
def list_screens(registry: RegistryOption = None) -> None:
    """Every known screen: cells, perturbations, contexts, licence, size, and whether it is on this machine."""
    from embbench.cache.screens import imported
    from embbench.grid.names import registry_of
    from embbench.grid.obtain import catalogue, is_published, short_names

    known = registry_of(registry_paths(registry))
    own = [e.name for e in known.entries("datasets") if not is_published(e) and not e.argument]
    typer.echo(f"on this machine: {', '.join(own)}\n")
    show("published", catalogue(known))
    typer.echo("* must be accepted once (--accept-licence)")
    typer.echo("short names: " + ", ".join(f"{name} = {of}" for name, of in short_names(known).items()))
    if own := imported():
        typer.echo()
        show("imported", [{"name": n, "conditions": f["conditions"], "from": f["source"]} for n, f in own.items()])
    say("embbench data describe NAME tells more; embbench data fetch NAME brings what is not fetched")


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="A published screen, e.g. norman19 (embbench data list).")],
    only: Annotated[str | None, typer.Option(help="One part of a screen of several files, e.g. k562.")] = None,
    mirror: Annotated[
        str | None, typer.Option(envvar="EMBBENCH_MIRROR", help="Folder or address that holds the files offline.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept a licence that restricts the data's use, once.")
    ] = False,
    registry: RegistryOption = None,
) -> None:
    """Fetch a published screen: resumed, verified, never half a file; then look whether it is as published."""
    from embbench.grid.names import registry_of
    from embbench.grid.obtain import fetch_screen

    known = registry_of(registry_paths(registry))
    with byte_bar() as progress:
        found = fetch_screen(known, name, only=only, mirror=mirror, accept=accept_licence, say=say, progress=progress)
    typer.echo("\n".join(found))
    spec = name if only is None else f"{name}:only={only}"
    say(f"ready; next: embbench data describe {spec}; embbench grid --dataset {spec} --emb go")


@app.command("describe")
def describe_screen(
    name: Annotated[str, typer.Argument(help="A registered or imported dataset.")],
    genes: Annotated[str, typer.Option(help="all, expressed or hvg:N.")] = "all",
    registry: RegistryOption = None,
) -> None:
    """Conditions, contexts, cells, effect sizes, and the coverage of every static embedding."""
    from embbench.grid.describe import coverage, describe
    from embbench.grid.names import registry_of
    from embbench.grid.obtain import told_of
    from embbench.grid.screens import screen
    from embbench.grid.threads import one_thread

    paths = registry_paths(registry)
    facts, ready = told_of(registry_of(paths), name)
    if facts:
        show(f"{name}, as its source tells", facts)
    if not ready:
        say(f"not on this machine yet: embbench data fetch {name}")
        return
    data = screen(name, genes, paths)
    found = describe(data)
    show(name, [{"fact": k, "value": v} for k, v in found["facts"].items()])
    show("contexts (norm of the effect)", found["contexts"])
    typer.echo("\n".join(found["report"]))
    with one_thread():  # what is extracted here has the bits that a grid would give it
        show("static embeddings", coverage(data, registry_of(paths)))


@app.command("label")
def label_command(
    name: Annotated[str, typer.Argument(help="A registered or imported dataset with single cells.")],
    test: Annotated[str, typer.Option(help="wilcoxon, welch or donor (batches as donors).")] = "wilcoxon",
    level: Annotated[float, typer.Option(help="Level of Benjamini-Hochberg p values within a condition.")] = 0.05,
    min_cells: Annotated[int, typer.Option(help="Conditions with fewer cells are not tested.")] = 30,
    min_expressed: Annotated[
        float,
        typer.Option(help="Test genes detected in this share (below 1) or number of perturbed and control cells."),
    ] = 0.05,
    min_log2fc: Annotated[float, typer.Option(help="Smallest |log2fc| of a label.")] = 0.0,
    equal_cells: Annotated[int | None, typer.Option(help="Test this many cells of every condition.")] = None,
    registry: RegistryOption = None,
) -> None:
    """Test every gene of every condition on the cells, and say how to use the labels in a grid."""
    from embbench.datasets._labels import label_report
    from embbench.grid.names import registry_of
    from embbench.grid.screens import screen

    given = {"test": test, "level": level, "min_cells": min_cells, "min_expressed": min_expressed}
    given |= {"min_log2fc": min_log2fc} | ({"equal_cells": equal_cells} if equal_cells is not None else {})
    paths = registry_paths(registry)
    entry = registry_of(paths).get("datasets", "labelled")
    told = [f"{k}={v}" for k, v in given.items() if v != entry.params[k]]
    spec = ":".join(["labelled", name, *told])
    data = screen(spec, "all", paths)
    typer.echo("\n".join(label_report(data)))
    say(f"next: embbench grid --dataset {spec} --target labels --emb go --head label_logistic")
