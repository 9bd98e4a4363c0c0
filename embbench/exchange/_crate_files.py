"""The files of an RO-Crate: what of a results folder is copied, shortened, listed or left out."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embbench.cache.keys import digest
from embbench.cache.store import read_h5, read_record, write_h5
from embbench.core import UserError
from embbench.exchange._machine import Scrubber, strings
from embbench.grid.results import Results

LARGE = ("predictions", "populations", "datasets")  # copied when asked for, else listed
KINDS = {
    "predictions": "prediction",
    "datasets": "screen",
    "splits": "split",
    "scores": "scores",
    "ceilings": "ceilings",
}
OF_RUNS = ("scores", "failures", "predictions", "populations")  # one file per run, named by its key
TEXTS = (".csv", ".md", ".html", ".json", ".svg", ".txt", ".tsv")
PICTURES = (".png", ".pdf")
BLOCK = 1 << 24
MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class Part:
    """A file of the crate with its size and sha256; with ``files``, a folder of so many."""

    path: str
    size: int
    sha256: str
    files: int = 0


class Packing:
    """Copies what belongs into a crate and keeps the books about the rest; ``restricted`` has specs of screens."""

    def __init__(
        self, results: Results, plans: list[dict[str, Any]], restricted: set[str], *, predictions: bool, link: bool
    ) -> None:
        self.results, self.plans, self.large, self.link = results, plans, predictions, link
        runs = [planned for plan in plans for planned in plan["runs"]]
        self.keys = {planned["key"] for planned in runs}
        kept = [plan for plan in plans if plan["runs"]]
        marks = {(where, m[0]) for plan in kept for where, m in plan["facts"]["marks"].items()}
        self.metas = {mark: results.screen(mark).meta for _, mark in marks}
        self.closed = {mark for where, mark in marks if where.partition("|")[0] in restricted}
        self.closed |= {mark for mark, meta in self.metas.items() if meta.get("restricted")}
        # a further name or a copy of a closed screen is the same data
        specs = {where.partition("|")[0] for where, mark in marks if mark in self.closed}
        self.held = {planned["key"] for planned in runs if planned["run"]["dataset"] in specs}
        texts = [*strings(plans), *strings(list(self.metas.values()))]
        self.scrubber = Scrubber(texts, [results.folder, results.folder.absolute().parent])
        self.rows: list[tuple[str, int, str, str]] = []
        self.counts: Counter[str] = Counter()

    def fill(self, stage: Path) -> list[Part]:
        """Copy into ``stage``; what the crate's graph lists, one part per file or folder of many."""
        for path in self._files():
            inside = path.relative_to(self.results.folder)
            why = self._left_out(inside)
            if why == "replaced":
                self.counts["files of runs that a later grid replaced"] += 1
                continue
            self._add(path, Path("results") / inside, stage, why)
        self._write_manifest(stage / "manifest.csv")
        return self._parts()

    def _files(self) -> Iterable[Path]:
        known = {"plans", *KINDS, *OF_RUNS}
        for path in sorted(p for p in self.results.folder.rglob("*") if p.is_file()):
            inside = path.relative_to(self.results.folder)
            shown = path.suffix.lower() in TEXTS + PICTURES
            if any(part.startswith(".") for part in inside.parts):
                continue
            if (len(inside.parts) == 2 and inside.parts[0] in known) or (shown and inside.parts[0] not in known):
                yield path
            else:
                self.counts["files that are no results of embbench"] += 1

    def _left_out(self, inside: Path) -> str:
        top = inside.parts[0] if len(inside.parts) > 1 else ""
        if top in OF_RUNS and inside.stem not in self.keys:
            return "replaced"
        if top == "plans" and not any(inside.stem.endswith(f"-{plan_digest(plan)}") for plan in self.whole_plans):
            return "replaced"
        if (top == "datasets" and inside.stem in self.closed) or (top in LARGE and inside.stem in self.held):
            return "its licence restricts use"
        return "large; --with-predictions copies it" if top in LARGE and not self.large else ""

    @functools.cached_property
    def whole_plans(self) -> list[dict[str, Any]]:
        """All plans of the folder with all their runs."""
        return self.results.any_plans()

    def _add(self, path: Path, inside: Path, stage: Path, why: str) -> None:
        """Copy a file, shortened where it names a folder of this machine, or say in the manifest why not."""
        sha, named = _look(path, self.scrubber)
        target = stage / inside
        if not why and named and path.suffix == ".h5ad":
            why = "names a folder of this machine"
        elif not why and named:
            target = self._rewrite(path, target)
            inside, path, sha = target.relative_to(stage), target, _look(target, self.scrubber)[0]
            self.counts["files in which folders of this machine were shortened"] += 1
        elif not why:
            self._copy(path, target)
        if why:
            self.counts[f"files listed in manifest.csv only ({why})"] += 1
        self.rows.append((inside.as_posix(), path.stat().st_size, sha, why))

    def _copy(self, path: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self.link:
            shutil.copy2(path, target)
            return
        try:
            os.link(path, target)
        except OSError as error:
            raise UserError(f"cannot link {path} into {target.parent}: {error.strerror}; leave out --link") from error

    def _rewrite(self, path: Path, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = KINDS.get(path.parent.name)
        if path.suffix == ".h5" and kind is not None:
            arrays, facts = read_h5(path, kind)
            write_h5(target, kind, arrays, self.scrubber.value(facts), self.scrubber.value(read_record(path)))
        elif path.parent.name == "plans":
            body = next(p for p in self.whole_plans if path.stem.endswith(f"-{plan_digest(p)}"))
            target = target.with_name(f"{path.stem.partition('-')[0]}-{plan_digest(self.scrubber.value(body))}.json")
            target.write_text(json.dumps(self.scrubber.value(body), indent=1), encoding="utf-8")
        else:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            target.write_bytes(self.scrubber.text(text).encode("utf-8", "surrogateescape"))
        os.utime(target, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
        return target

    def _write_manifest(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["path", "bytes", "sha256", "left_out"])
            table.writerows(self.rows)
        self.manifest = Part("manifest.csv", path.stat().st_size, _look(path, self.scrubber)[0])

    def _parts(self) -> list[Part]:
        there = [(Path(path), size, sha) for path, size, sha, why in self.rows if not why]
        many: dict[str, list[int]] = {}
        for path, size, _ in there:
            if len(path.parts) > 2:
                many.setdefault(f"{path.parts[0]}/{path.parts[1]}/", []).append(size)
        single = [Part(path.as_posix(), size, sha) for path, size, sha in there if len(path.parts) == 2]
        folders = [Part(name, sum(sizes), "", len(sizes)) for name, sizes in many.items()]
        return [self.manifest, *single, *folders]

    def notes(self) -> tuple[str, ...]:
        """What was left out or changed, with counts."""
        return tuple(f"{n:,} {what}" for what, n in sorted(self.counts.items()))


def plan_digest(body: dict[str, Any]) -> str:
    """The digest that a plan's file is named by."""
    return digest({name: body[name] for name in ("facts", "runs")})


def _look(path: Path, scrubber: Scrubber) -> tuple[str, bool]:
    """sha256 of a file, and whether it names a folder of this machine; read once, in pieces."""
    sha, tail, named = hashlib.sha256(), b"", False
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            sha.update(piece)
            named = named or scrubber.names(tail + piece)
            tail = piece[-scrubber.longest :]
    return sha.hexdigest(), named
