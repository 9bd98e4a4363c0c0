"""``embbench extract``: compute an embedding once and cache it."""

from __future__ import annotations

from typing import Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, say, show, split_list


def extract(
    model: Annotated[str, typer.Option("--model", help="Embedding(s), e.g. go or scgpt:weights=FOLDER.")],
    dataset: Annotated[
        str, typer.Option(help="Screen whose coverage is shown, and whose cells are read.")
    ] = "sim_demo",
    genes: Annotated[str, typer.Option(help="all, expressed or hvg:N.")] = "all",
    registry: RegistryOption = None,
) -> None:
    """Extract embeddings into the cache; prints size and coverage."""
    import numpy as np

    from embbench.cache.home import home
    from embbench.grid.names import registry_of
    from embbench.grid.schedule import one_thread
    from embbench.grid.screens import screen
    from embbench.grid.validate import check_spec
    from embbench.grid.vectors import compute_embedding, wanted_names

    paths = registry_paths(registry)
    known = registry_of(paths)
    for name in split_list(model) or []:
        check_spec(known, "embeddings", name)
    data, records = screen(dataset, genes, paths), []
    for name in split_list(model) or []:
        with one_thread():  # as a grid does: the same bits
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
    show("extracted", records)
    say(f"cached under {home('cache')}")
