"""``embbench list``: what exists, what it needs, what is missing and why."""

from __future__ import annotations

from typing import Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, show


def list_components(
    kind: Annotated[
        str, typer.Argument(help="embeddings, heads, datasets, splits, metrics, features, graphs or all")
    ] = "all",
    registry: RegistryOption = None,
) -> None:
    """List components, their needs and why one cannot be used here."""
    from embbench.cache.screens import imported
    from embbench.core import UserError
    from embbench.grid.names import registry_of
    from embbench.registry import KINDS

    if kind not in ("all", *KINDS):
        raise UserError(f"list {kind!r}: expected one of {', '.join(KINDS)}")
    loaded = registry_of(registry_paths(registry))
    for each in KINDS if kind == "all" else (kind,):
        records = []
        for entry in loaded.entries(each):
            facts = [f"needs {', '.join(entry.missing())}" if entry.missing() else "", entry.needs_file, entry.licence]
            name = f"{entry.name}:{entry.argument.upper()}" if entry.argument else entry.name
            records.append(
                {"name": name, "what": entry.summary(), "holds": entry.holds, "note": "; ".join(f for f in facts if f)}
            )
        if each == "datasets":
            records += [
                {"name": n, "what": "imported screen", "holds": "", "note": f.get("source", "")}
                for n, f in imported().items()
            ]
        columns = [c for c in ("name", "what", "holds", "note") if any(r[c] for r in records)]
        show(each, [{c: r[c] for c in columns} for r in records])
    if kind in ("all", "heads"):
        typer.echo(f"kNN search: {search_backend()}")


def search_backend() -> str:
    """Which exact search kNN will use, read from what is installed (nothing is imported)."""
    from importlib import metadata

    found = []
    for name in ("faiss-cpu", "faiss-cuda", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cuvs"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        return f"{' and '.join(found)} overwrite each other's files: uninstall all but one"
    return found[0] if found else "torch (exact; install embbench[cpu] or embbench[gpu] for faiss)"
