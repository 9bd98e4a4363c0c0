"""The JSON-LD of an RO-Crate: one action per grid, what made it, what it read, what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.exchange._crate_files import MANIFEST, Part
from embbench.exchange._crate_terms import Author, licence_id, media_type, slug
from embbench.registry import Entry, Registry

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

PROFILE, PROFILE_VERSION = "https://w3id.org/ro/wfrun/process/0.5", "0.5"
NONE_CHOSEN = (
    "No licence was chosen for these results. The screens, embeddings and code behind them keep their own licences, "
    "which this crate lists."
)
CODE_LICENCE = "BSD-3-Clause"
ABOUT = {
    "results/scores/": "One file per run: a value per tested condition and metric (HDF5).",
    "results/splits/": "Rows of every fold (HDF5).",
    "results/plans/": "What each grid consists of: every run with its key, and the grid as it was asked for (JSON).",
    "results/ceilings/": "What the noise-free effect would score, per fold (HDF5).",
    "results/failures/": "Why runs failed (JSON).",
    "results/predictions/": "One file per run: weights over the training rows, or predicted effects (HDF5).",
    "results/populations/": "Predicted cells (h5ad).",
    "results/datasets/": "Screens as they were scored: one effect per condition (HDF5).",
    MANIFEST: "Every file of the results folder with size and sha256, and why it is not in this crate if it is not.",
    "results/leaderboard.csv": "Means, ranks, ceilings and comparisons of every configuration.",
}


def write_graph(
    stage: Path,
    told: dict[str, Any],
    parts: Sequence[Part],
    authors: Sequence[Author],
    licence: str,
    registry: Registry,
) -> None:
    """Write ``ro-crate-metadata.json`` into the crate's folder.

    Parameters
    ----------
    stage : the folder, with its files.
    told : ``name`` of the folder, ``grids`` (plans with the times of their files), ``screens`` and ``notes``.
    parts : files and folders of the crate.
    authors, licence : of the crate.
    registry : licences and references of components.
    """
    graph = _Graph(told, parts, registry)
    graph.describe_root(authors, licence)
    for number, grid in enumerate(told["grids"], 1):
        graph.add_action(number, grid)
    graph.crate.metadata.extra_terms["sha256"] = "http://schema.org/sha256"  # RO-Crate 1.1 has no term for it
    graph.crate.metadata.write(stage)


class _Graph:
    """The entities of one crate; each is added once, whoever asks for it."""

    def __init__(self, told: dict[str, Any], parts: Sequence[Part], registry: Registry) -> None:
        from rocrate.rocrate import ROCrate

        self.told, self.registry = told, registry
        self.crate: ROCrate = ROCrate(version="1.1")
        self.entries = {(e.kind, name): e for e in registry.entries() for name in (*e.also, e.name)}
        self.entries |= {(e.kind, e.name): e for e in registry.entries()}  # a name goes before a further name
        self.files = [self._file(part) for part in parts]
        self.authors: list[Entity] = []
        self.actions: list[Entity] = []

    def describe_root(self, authors: Sequence[Author], licence: str) -> None:
        """Name, description, date, licence, authors and profile of the whole."""
        root, grids = self.crate.root_dataset, self.told["grids"]
        runs = sum(len(grid["runs"]) for grid in grids)
        notes = "; ".join(self.told["notes"])
        root["name"] = f"embbench results: {self.told['name']}"
        root["description"] = (
            f"{runs:,} runs of {len(grids)} grid{'s' * (len(grids) != 1)}: embeddings crossed with heads for the "
            "prediction of perturbation effects, scored by embbench."
        ) + (f" Not as in the results folder: {notes}." if notes else "")
        root["license"] = (
            self._licence(licence)
            if licence
            else self._add("#no-licence-chosen", "CreativeWork", name="no licence chosen", description=NONE_CHOSEN)
        )
        root["datePublished"] = _time(max(grid["end"] or grid["start"] for grid in grids))
        root["conformsTo"] = self._add(PROFILE, "CreativeWork", name="Process Run Crate", version=PROFILE_VERSION)
        self.authors = [self._add(a.orcid or f"#{slug(a.name)}", "Person", name=a.name) for a in authors]
        if self.authors:
            root["author"] = _one(self.authors)

    def add_action(self, number: int, grid: dict[str, Any]) -> None:
        """One grid: the tool, the screens, components and parameters, and what it left."""
        latest = number == len(self.told["grids"])
        facts = {"name": f"embbench grid {number}", "description": _account(grid, latest=latest)}
        facts |= {"startTime": _time(grid["start"])}
        facts |= {"endTime": _time(grid["end"])} if grid["end"] is not None else {}
        ended = "Failed" if grid["failed"] else "Completed"
        facts |= {"actionStatus": f"http://schema.org/{ended}ActionStatus"}
        action = self._add(f"#grid-{number}", "CreateAction", **facts)
        if grid["failed"]:
            action["error"] = f"{grid['failed']:,} runs failed; results/failures says why"
        action["instrument"] = self._software(grid["record"].get("versions", {}))
        marks = dict.fromkeys(m[0] for m in grid["facts"]["marks"].values())
        inputs = [self._screen(mark) for mark in marks] + list(self._components(grid))
        action["object"] = inputs + list(self._parameters(number, grid["facts"]))
        # tables are written anew by every grid, so those that lie there are of the latest
        action["result"] = [f for f in self.files if latest or f.id.endswith("/") or f.id == MANIFEST]
        if self.authors:
            action["agent"] = _one(self.authors)
        self.actions.append(action)
        self.crate.root_dataset["mentions"] = _one(self.actions)

    def _file(self, part: Part) -> Entity:
        facts: dict[str, Any] = {"name": part.path, "contentSize": str(part.size)}
        if about := ABOUT.get(part.path):
            facts["description"] = about + (f" {part.files:,} files." if part.files else "")
        if part.files:
            return self.crate.add_dataset(dest_path=part.path, properties=facts)
        facts |= {"encodingFormat": media_type(part.path), "sha256": part.sha256}
        return self.crate.add_file(dest_path=part.path, properties=facts)

    def _add(self, at: str, kind: str, /, **facts: Any) -> Entity:
        from rocrate.model.contextentity import ContextEntity

        found = self.crate.get(at)
        if found is None:
            told = {name: value for name, value in facts.items() if value not in ("", None)}
            found = self.crate.add(ContextEntity(self.crate, at, properties={"@type": kind, **told}))
        return found

    def _licence(self, text: str) -> Entity:
        return self._add(licence_id(text), "CreativeWork", name=text)

    def _software(self, versions: dict[str, str]) -> Entity:
        """The tool in that version with the libraries it ran on; two environments are two entities."""
        own = versions.get("embbench", "not recorded")
        tail = "-".join(sorted(f"{name}-{version}" for name, version in versions.items() if name != "embbench"))
        tool = self._add(f"#embbench-{slug(own)}--{slug(tail)}", "SoftwareApplication", name="embbench", version=own)
        tool["license"] = self._licence(CODE_LICENCE)
        if machine := versions.get("machine"):
            tool["processorRequirements"] = machine
        libraries = {name: v for name, v in versions.items() if name not in ("embbench", "machine")}
        needed = [
            self._add(f"#{slug(name)}-{slug(version)}", "SoftwareApplication", name=name, version=version)
            for name, version in libraries.items()
        ]
        if needed:
            tool["softwareRequirements"] = needed
        return tool

    def _screen(self, mark: str) -> Entity:
        told = self.told["screens"][mark]
        entry = self.entries.get(("datasets", told["spec"].partition(":")[0]))
        found = self._add(f"#screen-{mark}", "CreativeWork", name=told["spec"], identifier=mark)
        found["description"] = f"Screen: {told['size']}. The identifier is embbench's digest of its content."
        if told["source"]:
            found["isBasedOn"] = told["source"]
        return self._provenance(found, entry, told["licence"], told["reference"])

    def _components(self, grid: dict[str, Any]) -> Iterator[Entity]:
        """Embeddings, graphs and heads of the grid's own runs (permuted embeddings are made of them)."""
        runs = [p["run"] for p in grid["runs"] if p["role"] != "permuted"]
        used = [("embeddings", b) for run in runs for b in run.get("embedding", "none").split("+")]
        used += [("embeddings", run.get("context_embedding", "none")) for run in runs]
        used += [("graphs", run.get("graph", "none")) for run in runs] + [("heads", run["head"]) for run in runs]
        for kind, text in dict.fromkeys(used):
            if text == "none":
                continue
            entry = self.entries.get((kind, text.partition(":")[0]))
            found = self._add(f"#{kind}-{slug(text)}", "CreativeWork", name=text)
            about = f"{kind.removesuffix('s').capitalize()} of embbench"
            known = f", holds: {entry.information}" if entry is not None and kind == "embeddings" else ""
            found["description"] = f"{about}{known}." if entry is not None else f"{about}, of a registry not at hand."
            yield self._provenance(found, entry)

    def _provenance(self, found: Entity, entry: Entry | None, licence: str = "", reference: str = "") -> Entity:
        """Licence and citation: as the registry has them, else (also where it points to the file) as the thing says."""
        known = entry.licence if entry is not None else ""
        if text := (licence or known) if known.startswith("that of") else (known or licence):
            found["license"] = self._licence(text)
        if text := (entry.reference if entry is not None else "") or reference:
            found["citation"] = text
        if entry is not None and entry.dated:
            found["temporalCoverage"] = entry.dated
        return found

    def _parameters(self, number: int, facts: dict[str, Any]) -> Iterator[Entity]:
        for name, value in facts["grid"].items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield self._add(f"#grid-{number}-{slug(name)}", "PropertyValue", name=name, value=text or "none")


def _account(grid: dict[str, Any], *, latest: bool) -> str:
    """The action in words: the command, how its runs ended, where its times come from."""
    skipped = sum(bool(planned["reason"]) for planned in grid["runs"])
    left = len(grid["runs"]) - skipped - grid["done"] - grid["failed"]
    ends = {"done": grid["done"], "skipped": skipped, "failed": grid["failed"], "not run": left}
    told = ", ".join(f"{n:,} {what}" for what, n in ends.items() if n)
    lines = [grid["record"].get("command", "The command was not recorded."), f"Runs: {told}."]
    lines += ["Times are those of the files of plan and predictions."]
    if latest:
        lines += ["Tables and pages are listed here; embbench report may have written them again since."]
    return "\n".join(lines)


def _one(values: list[Any]) -> Any:
    """A single value as itself: RO-Crate wants no lists of one."""
    return values[0] if len(values) == 1 else values


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
