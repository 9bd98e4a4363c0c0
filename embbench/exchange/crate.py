"""A results folder as an RO-Crate: files, versions, parameters, commands, authors and licences, for others to read.

The crate follows Process Run Crate 0.5 (https://w3id.org/ro/wfrun/process/0.5) on RO-Crate 1.1: one action per grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embbench.core import UserError
from embbench.exchange._crate_files import Packing, plan_digest
from embbench.exchange._crate_graph import write_graph
from embbench.exchange._crate_terms import read_author
from embbench.exchange._folders import Staged, Written, new_folder
from embbench.grid.names import registry_of, screens_behind
from embbench.grid.results import Results


def write_crate(
    folder: Path,
    out: Path | None = None,
    *,
    authors: Sequence[str] = (),
    licence: str = "",
    paths: tuple[str, ...] = (),
    predictions: bool = False,
    link: bool = False,
) -> Written:
    """Write an RO-Crate of a results folder; equal folders with equal file times give equal crates.

    No time is recorded in a results folder, and none is invented: an action starts when the file of its plan was
    written and ends when the last of its predictions was, by the times of those files (UTC). They are wrong where a
    copy of the folder did not keep times. ``datePublished`` is the last of them.

    Plans, splits, scores, ceilings, failures, tables, pages and figures are copied. Files of runs that a later grid has
    replaced are left out, and counted. Predictions, populations and condition-level screens are listed in
    ``manifest.csv`` with size and sha256; ``predictions`` copies them too, except those of screens whose licence
    restricts use (by whatever name a grid calls them).
    Folders of this machine are shortened to names in every copied file; ``embbench report`` reads the copies.

    Parameters
    ----------
    folder : results folder.
    out : the crate's folder, new or empty; default ``<folder>-ro-crate``.
    authors : ``Name``, or ``Name <ORCID>``; authors of the crate and agents of its actions.
    licence : of the crate as a whole, e.g. ``CC-BY-4.0``; empty: the crate says that none was chosen.
    paths : further registry files, for licences and references of their entries.
    predictions : copy predictions, populations and screens.
    link : hard links in place of copies where nothing has to be shortened (same file system only).

    Raises
    ------
    UserError
        No results, an output folder that is in use, an ORCID with a wrong check digit, files that cannot be linked, or
        the ``rocrate`` library is missing.
    """
    people = [read_author(text) for text in authors]
    _needs_rocrate()
    results = Results(Path(folder))
    plans = results.plans()
    target = new_folder(out, results.folder, "ro-crate")
    registry = registry_of(paths)
    named = {where.partition("|")[0] for plan in plans for where in plan["facts"]["marks"]}
    restricted = {spec for spec in named if any(e.restricted for e in screens_behind(registry, spec))}
    packing = Packing(results, plans, restricted, predictions=predictions, link=link)
    with Staged(target) as stage:
        parts = packing.fill(stage)
        write_graph(stage, _described(results, plans, packing), parts, people, licence, registry)
    return Written(target, packing.notes())


def _needs_rocrate() -> None:
    try:
        import rocrate.rocrate  # noqa: F401
    except ImportError as error:
        raise UserError(f"an RO-Crate needs the rocrate library, found none ({error}): pip install rocrate") from error


def _described(results: Results, plans: list[dict[str, Any]], packing: Packing) -> dict[str, Any]:
    """What the graph says about the grids: shortened plans with the times of their files, and the screens."""
    whole = {plan_digest(p): p for p in packing.whole_plans}
    files = {p.stem.partition("-")[2]: p for p in (results.folder / "plans").glob("*.json")}
    grids = []
    for plan, name in zip(plans, whole, strict=True):
        if not plan["runs"]:
            continue
        keys = [p["key"] for p in plan["runs"] if not p["reason"]]
        done = [path for key in keys if (path := results.path("predictions", key)).exists()]
        grids.append(
            packing.scrubber.value({"facts": plan["facts"], "record": plan.get("record", {})})
            | {"runs": [{**p, "run": packing.scrubber.value(p["run"])} for p in plan["runs"]]}
            | {"start": files[name].stat().st_mtime, "end": max((p.stat().st_mtime for p in done), default=None)}
            | {"done": len(done), "failed": sum(bool(results.failure(key)) for key in keys)}
        )
    marks = {m[0]: where for grid in grids for where, m in grid["facts"]["marks"].items()}
    screens = {}
    for mark, where in marks.items():
        data = results.screen(mark)
        told = {k: packing.scrubber.value(str(data.meta.get(k, ""))) for k in ("source", "licence", "reference")}
        size = f"{len(data):,} conditions x {data.effects.shape[1]:,} genes in {len(data.contexts)} contexts"
        screens[mark] = {**told, "spec": where.partition("|")[0], "size": f"{size}, unit {data.unit}"}
    return {"name": results.folder.absolute().name, "grids": grids, "screens": screens, "notes": packing.notes()}
