"""``embbench list``: what exists, what it needs, what is missing and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embbench.cli._shared import RegistryOption, registry_paths, show

if TYPE_CHECKING:
    from embbench.core import Composite, Metric
    from embbench.registry import Entry, Registry

LEVELS = {
    "condition": "one value per condition",
    "set": "one value per condition; depends on the other tested conditions of its context",
    "gene": "a statistic of each gene over the tested conditions of a context; the mean over genes, linearised by row",
    "population": "one value per condition, between cells",
}
GENES = {"all": "all measured", "notarget": "all but the perturbed ones"}


def list_components(
    kind: Annotated[
        str, typer.Argument(help="embeddings, heads, datasets, splits, metrics, features, graphs, protocols or all")
    ] = "all",
    why: Annotated[
        str | None, typer.Option(help="Everything about one component: definition, parameters, licence, source.")
    ] = None,
    registry: RegistryOption = None,
) -> None:
    """List components, their needs and why one cannot be used here."""
    from embbench.cache.screens import imported
    from embbench.core import UserError
    from embbench.grid.names import registry_of
    from embbench.registry import KINDS, MODALITIES

    if kind == "protocols":
        from embbench.grid.protocols import described, protocols

        typer.echo("\n\n".join("\n".join(described(name)) for name in protocols() if why in (None, name)))
        return
    if kind not in ("all", *KINDS):
        raise UserError(f"list {kind!r}: expected one of {', '.join(KINDS)}, protocols")
    loaded = registry_of(registry_paths(registry))
    if why is not None:
        typer.echo("\n".join(details(_entry(loaded, kind, why))))
        return
    for each in KINDS if kind == "all" else (kind,):
        entries = loaded.entries(each)
        if each == "embeddings":
            typer.echo(each)
            for modality in MODALITIES:
                _table(modality, [embedding_row(e) for e in entries if e.modality == modality])
            typer.echo("fetch: embbench extract gets it; your file, pip install: embbench list --why NAME says what.")
            _table("other", [embedding_row(e) for e in entries if e.modality not in MODALITIES])
            continue
        rows = {"metrics": metric_row, "composites": composite_row}
        records = [rows.get(each, component_row)(entry) for entry in entries]
        if each == "datasets":
            records += [
                {"name": n, "what": "imported screen", "note": f.get("source", "")} for n, f in imported().items()
            ]
        _table(each, records)
    if kind in ("all", "heads"):
        typer.echo(f"kNN search: {search_backend()}")


def _table(title: str, records: list[dict[str, str]]) -> None:
    """Show what has content, without empty columns; nothing for no records."""
    columns = [c for c in (records[0] if records else ()) if any(r[c] for r in records)]
    if records:
        show(title, [{c: r[c] for c in columns} for r in records])


def _named(entry: Entry) -> str:
    return f"{entry.name}:{entry.argument.upper()}" if entry.argument else entry.name


def component_row(entry: Entry) -> dict[str, str]:
    """One line about a component: name, what it is, and what it lacks or its licence."""
    facts = (f"needs {', '.join(entry.missing())}" if entry.missing() else "", entry.needs_file, entry.licence)
    note = "; ".join(f for f in facts if f)
    return {"name": _named(entry), "what": entry.summary(), "note": note}


def metric_row(entry: Entry) -> dict[str, str]:
    """One line about a metric: name, which way is better, range, unit, what it scores and at which level."""
    made = entry.make()
    return {
        "name": entry.name,
        "best": made.best,
        "range": span(made),
        "unit": made.unit,
        "scores": made.target if made.space == "genes" else f"{made.target} in {made.space}",
        "level": made.level,
    }


def composite_row(entry: Entry) -> dict[str, str]:
    """One line about a composite score: name, direction, range and parts."""
    made = entry.make()
    return {"name": entry.name, "best": made.best, "range": span(made), "parts": ", ".join(made.parts)}


def span(made: Metric | Composite) -> str:
    """Range of a score, e.g. ``0 .. 1``; open ends are left out.

    Examples
    --------
    >>> from embbench.core import Metric
    >>> span(Metric(min, "low", "definition", lower=0.0))
    '0 ..'
    """
    low = f"{made.lower:g}" if math.isfinite(made.lower) else ""
    high = f"{made.upper:g}" if math.isfinite(made.upper) else ""
    return f"{low} .. {high}".strip() if low or high else ""


def _entry(loaded: Registry, kind: str, name: str) -> Entry:
    """The component of that name: of the kind asked for, else the only one of any kind."""
    from embbench.core import UserError
    from embbench.grid.metrics import scored_by
    from embbench.registry import unknown_name

    if kind in ("metrics", "composites"):
        return scored_by(loaded, name)
    if kind != "all":
        return loaded.get(kind, name)
    found = [e for e in loaded.entries() if e.name == name]
    if len(found) == 1:
        return found[0]
    if not found and any(e.name.startswith(f"{name}_") for e in loaded.entries("metrics")):
        return scored_by(loaded, name)
    if not found:
        raise UserError(unknown_name("components", name, [e.name for e in loaded.entries()]))
    raise UserError(
        f"--why {name}: found among {', '.join(e.kind for e in found)}; say which: embbench list KIND --why"
    )


def embedding_row(entry: Entry) -> dict[str, str]:
    """One line about an embedding: name, width, what information it holds, whether it is ready, licence."""
    return {
        "name": _named(entry),
        "dim": str(entry.dim or ""),
        "information": entry.information,
        "state": state(entry)[0],
        "licence": f"{entry.licence} (to be accepted)" if entry.restricted else entry.licence,
    }


def details(entry: Entry) -> list[str]:
    """The whole story of a component: what it is, what it needs, its parameters, licence and source.

    Of a metric its definition, direction, range and unit; of an embedding what it may know, as of when, how to get it.
    """
    if entry.kind in ("metrics", "composites"):
        return [entry.name, *(f"  {k}: {v}" for k, v in _defined(entry.make()).items() if v)]
    if entry.kind != "embeddings":
        told = {
            "what": entry.summary(),
            "lacks": ", ".join(entry.missing()),
            "file": entry.needs_file,
            "defaults": ", ".join(f"{k}={v}" for k, v in entry.params.items()),
            **{f"preset={name}": ", ".join(f"{k}={v}" for k, v in p.items()) for name, p in entry.presets.items()},
            "licence": entry.licence,
            "source": entry.reference,
        }
        return [_named(entry), *(f"  {k}: {v}" for k, v in told.items() if v)]
    ready, how = state(entry)
    told = {
        "what": entry.summary(),
        "state": f"{ready}: {how}" if how else ready,
        "information": ", as of ".join(part for part in (entry.information, entry.dated) if part),
        "pretrained on": "not known"
        if entry.trained_on is None
        else ", ".join(entry.trained_on) or "none of our screens",
        "width": str(entry.dim or "depends on its parameters or file"),
        "licence": f"{entry.licence}; {entry.restricted}" if entry.restricted else entry.licence,
        "source": entry.reference,
        "defaults": ", ".join(f"{k}={v}" for k, v in entry.params.items()),
    }
    return [_named(entry), *(f"  {k}: {v}" for k, v in told.items() if v)]


def _defined(made: Metric | Composite) -> dict[str, str]:
    """The definition of a score, part by part."""
    better = {"low": "lower is better", "high": "higher is better"}[made.best]
    told = {"formula": made.formula, "direction": better, "range": span(made), "source": made.source}
    if hasattr(made, "target"):
        needs = ", ".join(made.needs)
        units = ", ".join(made.units) or "any"
        told |= {"unit": made.unit or "none (a pure number)", "scores": f"{made.target}, unit of effects: {units}"}
        told |= {"level": LEVELS[made.level], "genes": GENES.get(made.genes, made.genes), "needs": needs}
        told |= {"space": "" if made.target != "population" else made.space}
    else:
        told |= {"parts": ", ".join(made.parts), "relative to": made.base}
    return told


def state(entry: Entry) -> tuple[str, str]:
    """``ready``, ``fetch``, ``your file`` or ``pip install``, and how; nothing is computed, no network is used."""
    from embbench.cache.weights import is_remote, status
    from embbench.core import UserError

    if entry.missing():
        return "pip install", " ".join(entry.missing())
    if entry.argument == "of":
        return ("your file", entry.needs_file) if entry.needs_file else ("ready", "")
    try:
        made = entry.make()
    except UserError:
        return "your file", entry.needs_file or "needs parameters"
    lacking = {where: why for where, files in _sources(made) if (why := status(where, files)) != "ready"}
    if any(is_remote(where) for where in lacking):
        accept = " --accept-licence" if entry.restricted else ""
        how = f"{'; '.join(lacking.values())}; embbench extract --model {entry.name}{accept}"
        return "fetch", f"{how}; {entry.needs_file}" if entry.needs_file else how
    absent = [path for path in made.files() if not path.is_file()] if hasattr(made, "files") else []
    return ("your file", entry.needs_file) if lacking or absent else ("ready", "")


def _sources(made: Any) -> Sequence[tuple[str, Sequence[str]]]:
    return made.fetched() if hasattr(made, "fetched") else ()


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
