"""``embbench extract``: compute an embedding once and cache it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embbench.cli._shared import RegistryOption, byte_bar, registry_paths, say, show, split_list

if TYPE_CHECKING:
    from embbench.core import Embedding
    from embbench.registry import Entry, Registry


def extract(
    model: Annotated[str, typer.Option("--model", help="Embedding(s), e.g. go, scgpt or aido-cell-10m.")],
    dataset: Annotated[
        str, typer.Option(help="Screen whose coverage is shown, and whose control cells are read.")
    ] = "sim_demo",
    genes: Annotated[str, typer.Option(help="all, expressed or hvg:N.")] = "all",
    checkpoint: Annotated[
        str | None, typer.Option(help="Folder or file of the weights, hf:org/name@revision or an address.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="Cell models: static, gene (contextual) or cell.")] = None,
    layer: Annotated[int | None, typer.Option(help="Layer to read; 0 is the input embedding.")] = None,
    cells: Annotated[int | None, typer.Option(help="Control cells per context.")] = None,
    mode: Annotated[str | None, typer.Option(help="Contextual vectors: pooled or per_context.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    edges: Annotated[str | None, typer.Option(help="Edge table of a network embedding.")] = None,
    names: Annotated[str | None, typer.Option(help="Table of names for the nodes, e.g. STRING's protein.info.")] = None,
    source: Annotated[str | None, typer.Option(help="Your file: gene sets, descriptions, SMILES, targets ...")] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hf:org/name@revision of a text encoder.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence of restricted weights, once.")
    ] = False,
    mirror: Annotated[
        str | None, typer.Option(envvar="EMBBENCH_MIRROR", help="Folder or address that holds the files offline.")
    ] = None,
    registry: RegistryOption = None,
) -> None:
    """Extract embeddings into the cache (fetching public weights first); prints size and coverage."""
    import numpy as np

    from embbench.cache.home import home
    from embbench.core import UserError
    from embbench.grid.names import registry_of
    from embbench.grid.screens import screen
    from embbench.grid.validate import check_spec
    from embbench.grid.vectors import compute_embedding, wanted_names

    paths = registry_paths(registry)
    known = registry_of(paths)
    choices = {"checkpoint": checkpoint, "level": level, "layer": layer, "cells": cells, "mode": mode}
    choices |= {
        "precision": precision,
        "device": device,
        "graph": edges,
        "names": names,
        "source": source,
        "encoder": encoder,
    }
    if not split_list(model):
        raise UserError(f"--model {model!r}: expected the name of an embedding (embbench list embeddings)")
    specs = [spelled(name, choices) for name in split_list(model) or []]
    for name in specs:
        check_spec(known, "embeddings", name)
    data, records = screen(dataset, genes, paths), []
    for name in specs:
        fetch_weights(known, name, accept=accept_licence, mirror=mirror)
        table = compute_embedding(known, name, data, np.arange(len(data)))
        wanted = set(wanted_names(table.entity, data))
        hits = len(wanted & set(table.names.tolist()))
        records.append(
            {
                "embedding": name,
                "vectors": len(table.names),
                "dim": table.matrix.shape[1],
                "entity": table.entity,
                f"covers of {data.name}": f"{hits}/{len(wanted)}",
            }
        )
        _convergence(name, table)
    show("extracted", records)
    say(f"cached under {home('cache')}; use an embedding by its name above, e.g. --emb {specs[0]!r}")


def spelled(name: str, choices: dict[str, Any]) -> str:
    """A spec with the options that were given, as ``--emb`` takes it.

    Examples
    --------
    >>> spelled("aido-cell-10m", {"level": "gene", "layer": 8, "cells": None, "checkpoint": "a:b"})
    "aido-cell-10m:level=gene:layer=8:checkpoint='a:b'"
    """
    given = ((k, v) for k, v in choices.items() if v is not None)
    return name + "".join(f":{k}={quoted(v) if isinstance(v, str) else v}" for k, v in given)


def quoted(value: str) -> str:
    """Text as the value of a spec, in quotes where a colon would end it or YAML would read it as something else.

    Examples
    --------
    >>> quoted("hf:org/name@main"), quoted("http://localhost:80/x"), quoted("2024_01")
    ('hf:org/name@main', "'http://localhost:80/x'", "'2024_01'")
    """
    import yaml

    plain = ":" not in value.removeprefix("hf:")
    with contextlib.suppress(yaml.YAMLError):
        plain = plain and yaml.safe_load(value) == value
        return value if plain else "'" + value.replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


def fetch_weights(known: Registry, name: str, *, accept: bool, mirror: str | None) -> None:
    """Fetch what an embedding (or the one it permutes or combines) needs and is public; licences are asked for.

    Raises
    ------
    UserError
        A licence that must be accepted, no network, a changed or damaged file.
    """
    from embbench.cache.weights import fetch, is_remote

    spec = known.parse("embeddings", name)
    inner = spec.overrides.get("of")
    if isinstance(inner, str):
        fetch_weights(known, inner, accept=accept, mirror=mirror)
        return
    if hasattr(made := spec.alone(), "collection"):
        if not made.own:
            _fetch_collection(made, spec.entry, accept=accept, mirror=mirror)
        return
    extractor = spec.make()
    fetched: Callable[[], Sequence[tuple[str, Sequence[str]]]] | None = getattr(extractor, "fetched", None)
    for where, files in fetched() if fetched else ():
        if is_remote(where):
            entry = spec.entry
            own = where in {str(v) for v in spec.overrides.values()}  # weights that the user named, not the entry's
            restricted = next((e.restricted for e in known.entries("embeddings") if _same_source(e, where)), "")
            fetch(
                where,
                files,
                name=entry.name,
                licence="not known to embbench: see their source" if own else entry.licence,
                restricted=restricted if own else entry.restricted,
                accept=accept,
                mirror=mirror,
                say=say,
            )


def _fetch_collection(made: Any, entry: Entry, *, accept: bool, mirror: str | None) -> None:
    """The files of a published collection of vectors that one embedding of it needs."""
    from embbench.cache.datafiles import bring

    with byte_bar() as progress:
        bring(
            made.collection,
            made.folder,
            made.sources,
            licence=entry.licence,
            restricted=entry.restricted,
            accept=accept,
            mirror=mirror,
            say=say,
            progress=progress,
        )


def _same_source(entry: Entry, where: str) -> bool:
    """Whether an entry with a restricted licence comes from the repository or address ``where``, at any revision."""
    repository = where.partition("@")[0]
    return bool(entry.restricted) and any(str(v).partition("@")[0] == repository for v in entry.params.values())


def _convergence(name: str, table: Embedding) -> None:
    """How far the vectors of each context have settled, to see whether the control cells are enough."""
    split = {c: by for c, by in (table.provenance.get("split_half") or {}).items() if by}
    sizes = sorted({int(cells) for by in split.values() for cells in by})
    if split:
        show(
            f"{name}: agreement (Pearson) of gene vectors between two halves of so many control cells",
            [
                {"context": c, **{f"{n:,}": "" if by.get(str(n)) is None else f"{by[str(n)]:.3f}" for n in sizes}}
                for c, by in split.items()
            ],
        )
