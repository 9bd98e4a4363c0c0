"""A results folder as a Snakemake workflow that reruns its grids: one job per dataset, split, embedding and head."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embbench.core import UserError
from embbench.exchange._crate_terms import slug
from embbench.exchange._folders import Staged, Written, new_folder
from embbench.exchange._machine import Scrubber, machine_paths, strings
from embbench.grid.names import innermost, registry_of, screens_behind
from embbench.grid.results import Results
from embbench.registry import FILES, KEYED, PART, Registry, read_entries

INPUTS = "inputs"
AXES = ("dataset", "split", "emb", "head")
LIBRARIES = ("embbench", "numpy", "scipy", "torch", "h5py", "faiss-cpu", "numba", "scikit-learn")
SNAKEFILE = """\
# {title}
# Written by embbench export --format snakemake. Run it in this folder:
#     snakemake --cores 2
# One job per cell; every job writes into results/, which several jobs share (files are named by their content).
# requirements.txt has the versions that made the original; python {python}.
{notes}
EMBBENCH = config.get("embbench", "embbench")  # another executable: --config embbench=PATH
REGISTRY = [{registry}]
INPUTS = [{inputs}]
FETCHED = [{fetched}]
CELLS = [
{cells}
]


rule all:
    input:
        "report.html",


rule report:
    input:
        expand("done/{{cell}}", cell=CELLS),
    output:
        "report.html",
    params:
        registry=[f"--registry {{path}}" for path in REGISTRY],
    shell:
        "{{EMBBENCH}} report results --html {{output}} {{params.registry}}"


rule cell:
    input:
        grid="cells/{{cell}}.yaml",
        registry=REGISTRY,
        files=INPUTS,
        screens=expand("done/fetch-{{name}}", name=FETCHED),
    output:
        touch("done/{{cell}}"),
    params:
        registry=[f"--registry {{path}}" for path in REGISTRY],
    wildcard_constraints:
        cell="[0-9]+-.*",
    shell:
        "{{EMBBENCH}} grid {{input.grid}} --out results --workers {{threads}} {{params.registry}}"


rule fetch:
    output:
        touch("done/fetch-{{name}}"),
    shell:
        "{{EMBBENCH}} data fetch {{wildcards.name}}"
"""


def write_workflow(
    folder: Path, out: Path | None = None, *, paths: tuple[str, ...] = (), limit: int = 1 << 28
) -> Written:
    """Write ``Snakefile``, ``cells/*.yaml`` (grid files), ``requirements.txt``, registry files and inputs.

    A cell is one dataset, split, embedding and head of a grid; baselines and permutations belong to it, and those that
    several cells share are computed once (the results folder knows them by their content). Cells whose every run was
    skipped are left out, and counted. Tables, vectors and other files that specs name, found from the current folder,
    are copied into ``inputs/`` and specs point there, so that the workflow can be moved.

    Parameters
    ----------
    folder : results folder.
    out : the workflow's folder, new or empty; default ``<folder>-snakemake``.
    paths : the registry files that the grids ran with.
    limit : bytes; a larger input (or a folder, such as a checkpoint) is named in the notes and must be put into
        ``inputs/`` by hand.

    Raises
    ------
    UserError
        No results, registry files that were not given, or an output folder that is in use.
    """
    results = Results(Path(folder))
    plans = [plan for plan in results.plans() if plan["runs"]]
    _check_registries(plans, paths)
    target = new_folder(out, results.folder, "snakemake")
    registry = registry_of(paths)
    inputs = _inputs(plans, paths, limit)
    cells = list(_cells(plans, registry, inputs))
    notes = [*inputs.notes]
    if left := sum(cell is None for cell in cells):
        notes.append(f"{left:,} cells were left out: every run of theirs was skipped")
    named = [cell for cell in cells if cell is not None]
    screens = dict.fromkeys(d for c in named for d in c["dataset"])
    notes += _imports(list(screens), registry)
    with Staged(target) as stage:
        names = _write_cells(stage / "cells", named)
        inputs.copy(stage)
        _write_requirements(stage / "requirements.txt", plans[-1].get("record", {}).get("versions", {}))
        (stage / "Snakefile").write_text(
            _snakefile(results, plans, names, inputs, _fetched(list(screens), registry), notes), encoding="utf-8"
        )
    return Written(target, tuple(notes))


@dataclass
class _Inputs:
    """Files beside the grids: name within the workflow -> where it lies, how specs spell it -> that name."""

    files: dict[str, Path] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    registries: dict[str, str] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, text: str, limit: int) -> str:
        """Take in a file as a spec spells it; one that is large or gone keeps its place for the user to fill.

        Returns
        -------
        str
            Its name within the workflow.
        """
        path = Path(text).expanduser()
        name = f"{INPUTS}/{_plain(path.name)}"
        for number in itertools.count(2):
            if self.files.get(name, path.absolute()) == path.absolute():
                break
            name = f"{INPUTS}/{number}-{_plain(path.name)}"
        if name in self.files:
            self.spelled[text] = name
            return name
        self.files[name], self.spelled[text] = path.absolute(), name
        if path.is_file() and path.stat().st_size <= limit:
            self.copied.append(name)
        elif not path.exists():
            self.notes.append(f"put {path.name} at {name}: not found from the current folder")
        else:
            what = "a folder" if path.is_dir() else f"{path.stat().st_size / 1e6:,.0f} MB"
            self.notes.append(f"put {path.name} at {name}: {what}, which is not copied")
        return name

    def moved(self, spec: str) -> str:
        """A spec with its files where the workflow has them."""
        if not self.spelled:
            return spec
        ways = "|".join(re.escape(text) for text in sorted(self.spelled, key=len, reverse=True))
        return re.sub(rf"(?<![\w./\\-])(?:{ways})(?![\w/\\-])", lambda match: self.spelled[match[0]], spec)

    def copy(self, stage: Path) -> None:
        """Copy inputs and registry files; the latter with the files that they name beside them."""
        for name in dict.fromkeys(self.copied):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.files[name], stage / name)
        for name, text in self.registries.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_text(text, encoding="utf-8")


def _plain(name: str) -> str:
    """A file name without what Python, the shell, Snakemake's wildcards or a spec would read otherwise.

    Examples
    --------
    >>> _plain('fo"ld {a}.tsv'), _plain("v.csv")
    ('fo-ld-a-.tsv', 'v.csv')
    """
    return re.sub(r"[^\w.=+-]+", "-", name)


def _check_registries(plans: list[dict[str, Any]], paths: tuple[str, ...]) -> None:
    """Refuse when a grid ran with registry files that are not given: its cells could not be read."""
    wanted = dict.fromkeys(name for plan in plans for name in plan["facts"].get("registry", []))
    missing = [name for name in wanted if name not in {Path(path).name for path in paths}]
    if missing:
        given = ", ".join(Path(path).name for path in paths) or "none"
        raise UserError(f"the grids ran with registry files {', '.join(missing)}, found {given}; name them: --registry")


def _inputs(plans: list[dict[str, Any]], paths: tuple[str, ...], limit: int) -> _Inputs:
    inputs = _Inputs()
    grids = [plan["facts"]["grid"] for plan in plans]
    for text in dict.fromkeys(strings([list(grid.values()) for grid in grids])):
        for name in dict.fromkeys([*machine_paths([text]), *_relative_files(text)]):
            inputs.add(name, limit)
    for number, path in enumerate(paths, 1):
        inputs.registries[f"registry/{number}-{_plain(Path(path).name)}"] = _moved_registry(Path(path), inputs, limit)
    return inputs


def _moved_registry(path: Path, inputs: _Inputs, limit: int) -> str:
    """A registry file whose entries name their files in ``inputs/``; modules of components are not copied, but said."""
    import yaml

    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    modules: dict[str, None] = {}
    for entry in read_entries(path):
        facts = sections[entry.kind][entry.name]
        modules |= {} if entry.module.partition(".")[0] == "embbench" else {entry.module: None}
        for group in ("params", "test"):
            for name, value in facts.get(group, {}).items():
                if name in FILES and isinstance(value, str) and value and (path.parent / value).exists():
                    facts[group][name] = f"../{inputs.add(str(path.parent / value), limit)}"
    if modules:
        inputs.notes.append(f"{path.name} needs {', '.join(modules)}: install it, or put its folder on PYTHONPATH")
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=110)


def _relative_files(spec: str) -> Iterator[str]:
    """Parts of a spec that lie below the current folder: files with a suffix or a folder in their name, and what a
    parameter for files names.
    """
    for part in PART.findall(spec)[1:]:
        name, _, value = part.rpartition("=") if KEYED.match(part) else ("", "", part)
        value = value.strip("'\"")
        own = name in FILES or (set(value) & set("./") and Path(value).is_file())
        if value and own and not Path(value).is_absolute() and Path(value).exists():
            yield value


def _cells(plans: list[dict[str, Any]], registry: Registry, inputs: _Inputs) -> Iterator[dict[str, Any] | None]:
    """Every cell as a grid of its own, each once; None for one that cannot run."""
    seen: set[str] = set()
    for plan in plans:
        grid = plan["facts"]["grid"]
        runs = [p["run"] for p in plan["runs"] if not p["reason"]]
        able = {(r["dataset"], r.get("embedding", "none"), r["head"]) for r in runs}
        # without embeddings a head alone may have no run, so heads stay together
        heads = [[head] for head in grid["head"]] if grid["emb"] else [grid["head"]]
        embeddings = [[emb] for emb in grid["emb"]] or [[]]
        for dataset, split, emb, head in itertools.product(grid["dataset"], grid["split"], embeddings, heads):
            cell = {**grid, "dataset": [dataset], "split": [split], "emb": emb, "head": head}
            if not (grid["baselines"] or not emb or _able(able, dataset, emb[0], head[0], grid["preset"])):
                yield None
                continue
            moved = {k: [inputs.moved(v) for v in cell[k]] for k in (*AXES, "context_emb", "cell_emb", "graph")}
            cell |= moved
            if (mark := repr(sorted(cell.items()))) not in seen:
                seen.add(mark)
                yield cell


def _able(able: set[tuple[str, str, str]], dataset: str, emb: str, head: str, preset: str) -> bool:
    """Whether some run of the cell was not skipped; a head that needs no embedding is one run of ``none``."""
    heads = (head, f"{head}:preset={preset}")
    return any((dataset, each, name) in able for each in (emb, "none") for name in heads)


def _fetched(screens: list[str], registry: Registry) -> list[str]:
    """Screens whose registry entry lists files to fetch."""
    return list(dict.fromkeys(e.name for s in screens for e in screens_behind(registry, s) if e.params.get("files")))


def _imports(screens: list[str], registry: Registry) -> list[str]:
    known = set(registry.names("datasets"))
    names = dict.fromkeys(innermost(registry, spec).partition(":")[0] for spec in screens)
    return [f"import {name} first: embbench data import ... --name {name}" for name in names if name not in known]


def _write_cells(folder: Path, cells: list[dict[str, Any]]) -> list[str]:
    import yaml

    folder.mkdir()
    digits, names = len(str(len(cells))), []
    for number, cell in enumerate(cells, 1):
        words = "-".join(slug(text) for axis in AXES for text in cell[axis])
        names.append(f"{number:0{digits}d}-{words[:80].strip('-')}")
        content = yaml.safe_dump(cell, sort_keys=False, allow_unicode=True, width=110)
        (folder / f"{names[-1]}.yaml").write_text(content, encoding="utf-8")
    return names


def _write_requirements(path: Path, versions: dict[str, str]) -> None:
    # a local version such as 2.13.0+cpu names a build that no index has to hold
    lines = [f"{name}=={versions[name].partition('+')[0]}" for name in LIBRARIES if name in versions]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _snakefile(
    results: Results,
    plans: list[dict[str, Any]],
    cells: list[str],
    inputs: _Inputs,
    fetched: list[str],
    notes: list[str],
) -> str:
    listed = [", ".join(map(repr, names)) for names in (inputs.registries, inputs.files, fetched)]
    commands = [plan.get("record", {}).get("command", "") for plan in plans]
    scrubber = Scrubber(strings(commands), [results.folder.absolute().parent])
    said = [f"made by: {scrubber.text(command)}" for command in commands if command] + notes
    return SNAKEFILE.format(
        title=f"Reruns the grids behind {' '.join(results.folder.absolute().name.split())}.",
        python=plans[-1].get("record", {}).get("versions", {}).get("python", "not recorded"),
        notes="".join(f"# {line}\n" for text in said for line in text.splitlines()),
        registry=listed[0],
        inputs=listed[1],
        fetched=listed[2],
        cells="\n".join(f"    {name!r}," for name in cells),
    )
