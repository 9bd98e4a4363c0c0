"""`embbench export --format ro-crate | snakemake`: what is in the crate, what is not, and that the workflow runs."""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from _grid import FULL, write_registry, write_vectors

from embbench.core import UserError
from embbench.exchange._machine import Scrubber, machine_paths
from embbench.exchange.crate import write_crate
from embbench.exchange.workflow import write_workflow
from embbench.grid.config import Grid
from embbench.grid.names import registry_of, screens_behind
from embbench.grid.results import Results
from embbench.grid.schedule import run_grid

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".oracles" / "ro_crate" / "bin"
HAS_ROCRATE = importlib.util.find_spec("rocrate") is not None
needs_rocrate = pytest.mark.skipif(not HAS_ROCRATE, reason="needs rocrate (the extra crate)")
ORCID = "https://orcid.org/0000-0002-1825-0097"
PLAN_TIME, LAST_TIME = 1_700_000_000, 1_700_003_600  # 2023-11-14 22:13:20 and an hour later, UTC


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's home with vectors, a table and a results folder whose specs name them by their absolute paths."""
    home = tmp_path_factory.mktemp("machine") / "zaphod7"
    (home / "private").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("EMBBENCH_HOME", str(home / "cache"))
        patch.chdir(home)
        rng = np.random.default_rng(0)
        from embbench.grid.screens import screen

        names = list(screen("sim_small", "all", ()).entity_names)
        spec = write_vectors(home / "private" / "vec.csv", names, rng.normal(size=(len(names), 4)).astype(np.float32))
        grid = Grid(
            dataset=["sim_small"],
            split=["unseen_perturbation:2"],
            emb=[spec],
            head=["knn:k=3", "ridge:alpha=10"],
            features=["raw"],
            metrics=["l2_notarget"],
            permutations={"smoother": 1},
        )
        patch.setattr(sys, "argv", ["embbench", "grid", "--emb", spec, "--workers", "2"])
        tally = run_grid(grid, home / "res")
        assert not tally.failed, tally.messages
    results = home / "res"
    (results / "leaderboard.csv").write_text(f'embedding,l2\n"{spec}",1.0\n', encoding="utf-8")
    (results / "report.html").write_text(f"<script>{json.dumps({'x': spec})}</script></div>", encoding="utf-8")
    (results / "scores" / "0123456789abcdef.h5").write_bytes(b"of a run that was replaced")
    (results / "notes.xlsx").write_bytes(b"not ours")
    for path in results.rglob("*"):
        os.utime(path, (PLAN_TIME, PLAN_TIME))
    last = max((results / "predictions").glob("*.h5"))
    os.utime(last, (LAST_TIME, LAST_TIME))
    return home


@pytest.fixture(autouse=True)
def _as_that_user(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(secret))
    monkeypatch.setenv("EMBBENCH_HOME", str(secret / "cache"))
    monkeypatch.chdir(secret)


def graph_of(crate: Path) -> dict[str, dict[str, Any]]:
    """Entities of a crate by identifier."""
    document = json.loads((crate / "ro-crate-metadata.json").read_text("utf-8"))
    return {entity["@id"]: entity for entity in document["@graph"]}


def ids(value: Any) -> list[str]:
    """Identifiers that a property refers to."""
    return [v["@id"] for v in (value if isinstance(value, list) else [value])]


def kinds(graph: dict[str, dict[str, Any]], references: Any, kind: str) -> list[dict[str, Any]]:
    return [graph[i] for i in ids(references) if graph[i]["@type"] == kind]


def leaks(folder: Path, home: Path) -> list[str]:
    """Files that hold the user's name or a folder above the results."""
    words = [home.name.encode(), str(home.parent).encode()]
    return [str(p) for p in folder.rglob("*") if p.is_file() and any(w in p.read_bytes() for w in words)]


@needs_rocrate
def test_the_graph_says_who_what_and_with_what(secret: Path, tmp_path: Path) -> None:
    crate = tmp_path / "crate"
    write_crate(secret / "res", crate, authors=[f"Josiah Carberry <{ORCID}>", "Tricia"], licence="CC BY 4.0")
    graph = graph_of(crate)
    root, action = graph["./"], graph["#grid-1"]
    assert ids(root["conformsTo"]) == ["https://w3id.org/ro/wfrun/process/0.5"]
    assert ids(root["license"]) == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert ids(root["author"]) == ids(action["agent"]) == [ORCID, "#tricia"]
    assert ids(root["mentions"]) == ["#grid-1"]
    stamp = datetime.fromtimestamp(LAST_TIME, UTC).isoformat()
    assert root["datePublished"] == action["endTime"] == stamp == "2023-11-14T23:13:20+00:00"
    assert action["startTime"] == "2023-11-14T22:13:20+00:00"
    assert action["description"].startswith("embbench grid --emb table:vec.csv\n")  # no workers, no folder
    assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
    plan = Results(secret / "res").plans()[0]
    (tool,) = kinds(graph, action["instrument"], "SoftwareApplication")
    versions = plan["record"]["versions"]
    told = {graph[i]["name"]: graph[i]["version"] for i in ids(tool["softwareRequirements"])}
    assert {**told, "embbench": tool["version"], "machine": tool["processorRequirements"]} == versions
    assert ids(tool["license"]) == ["https://spdx.org/licenses/BSD-3-Clause"]
    values = {p["name"]: p["value"] for p in kinds(graph, action["object"], "PropertyValue")}
    assert values.keys() == plan["facts"]["grid"].keys()
    assert (values["head"], values["emb"], values["seed"]) == ("knn:k=3, ridge:alpha=10", "table:vec.csv", "0")
    works = {w["name"]: w for w in kinds(graph, action["object"], "CreativeWork")}
    digest = next(iter(plan["facts"]["marks"].values()))[0]
    assert works["sim_small"]["identifier"] == digest
    assert works["sim_small"]["citation"] == "simulated"
    assert ids(works["sim_small"]["license"]) == ["https://spdx.org/licenses/BSD-3-Clause"]
    assert {"table:vec.csv", "knn:k=3", "ridge:alpha=10", "context_mean"} <= works.keys()
    assert set(ids(action["result"])) == set(ids(root["hasPart"]))
    dangling = {r for e in graph.values() for v in e.values() for r in _references(v)} - graph.keys()
    assert not {d for d in dangling if not d.startswith("https://w3id.org/ro/crate/")}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [value["@id"]]
    return [r for v in value for r in _references(v)] if isinstance(value, list) else []


@needs_rocrate
def test_files_hashes_and_what_is_left_out(secret: Path, tmp_path: Path) -> None:
    crate = tmp_path / "crate"
    notes = " | ".join(write_crate(secret / "res", crate).notes)
    runs = [p for p in Results(secret / "res").plans()[0]["runs"] if not p["reason"]]
    with (crate / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    there = {p.relative_to(crate).as_posix() for p in crate.rglob("*") if p.is_file()}
    assert there == {p for p, row in rows.items() if not row["left_out"]} | {"manifest.csv", "ro-crate-metadata.json"}
    for path in there & rows.keys():
        content = (crate / path).read_bytes()
        assert (rows[path]["sha256"], rows[path]["bytes"]) == (hashlib.sha256(content).hexdigest(), str(len(content)))
    listed = {p: row for p, row in rows.items() if row["left_out"]}
    assert {p.split("/")[1] for p in listed} == {"predictions", "datasets"}
    assert sum(p.startswith("results/predictions/") for p in listed) == len(runs)
    for path, row in listed.items():
        content = (secret / "res" / path.removeprefix("results/")).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert f"{len(listed)} files listed in manifest.csv only" in notes
    assert "1 files of runs that a later grid replaced" in notes
    assert "1 files that are no results of embbench" in notes
    graph = graph_of(crate)
    files = [e for e in graph.values() if e["@type"] == "File"]
    for entity in files:
        assert entity["sha256"] == hashlib.sha256((crate / entity["@id"]).read_bytes()).hexdigest()
    folders = [e["@id"] for e in graph.values() if e["@type"] == "Dataset" and e["@id"] != "./"]
    assert set(folders) == {"results/plans/", "results/scores/", "results/splits/"}
    assert len(files) == len(there) - 1 - sum(len(list((crate / f).iterdir())) for f in folders)


@needs_rocrate
def test_no_folder_of_the_machine_leaves_it(secret: Path, tmp_path: Path) -> None:
    """Every kind of file: text, JSON, HDF5 attributes; and the shortened copies are read like the originals."""
    assert leaks(secret / "res", secret), "the results name no folder, so this would test nothing"
    write_crate(secret / "res", tmp_path / "crate", predictions=True)
    assert not leaks(tmp_path / "crate", secret)
    page = (tmp_path / "crate" / "results" / "report.html").read_text("utf-8")
    assert page == '<script>{"x": "table:vec.csv"}</script></div>'
    ours, copy = Results(secret / "res"), Results(tmp_path / "crate" / "results")
    assert [p["key"] for p in copy.plans()[0]["runs"]] == [p["key"] for p in ours.plans()[0]["runs"]]
    mark = next(iter(ours.plans()[0]["facts"]["marks"].values()))[0]
    for planned in copy.plans()[0]["runs"]:
        was, now = (r.prediction(planned["key"], r.screen(mark)) for r in (ours, copy))
        assert np.array_equal(was.values, now.values)
        assert now.run.embedding == was.run.embedding.replace(f"{secret}/private/", "")


@needs_rocrate
def test_the_same_folder_gives_the_same_bytes_and_links_share_them(secret: Path, tmp_path: Path) -> None:
    for name, link in (("a", False), ("b", True)):
        write_crate(secret / "res", tmp_path / name, link=link)
    one, two = ({p.relative_to(tmp_path / n): p for p in (tmp_path / n).rglob("*") if p.is_file()} for n in "ab")
    assert {k: p.read_bytes() for k, p in one.items()} == {k: p.read_bytes() for k, p in two.items()}
    split = next(iter((secret / "res" / "splits").glob("*.h5")))
    assert split.samefile(tmp_path / "b" / "results" / "splits" / split.name)


@needs_rocrate
def test_failures_several_grids_and_restricted_screens(secret: Path, tmp_path: Path) -> None:
    folder = tmp_path / "res"
    shutil.copytree(secret / "res", folder)
    closed = {"impl": FULL, "licence": "CC BY-NC 4.0", "restricted": "commercial use", "also": ["shut"]}
    paths = write_registry(tmp_path, datasets={"closed": closed})
    plain: dict[str, Any] = {"baselines": False, "permutations": {}, "metrics": ["l2_notarget"]}
    run_grid(Grid(dataset=["shut"], head=["no_change", "context_mean"], **plain), folder, paths=paths)  # further name
    known = registry_of(tuple(paths))
    for spec in ("closed", "shut", "labelled:shut:test=welch", "labelled:test=welch:closed"):
        assert any(entry.restricted for entry in screens_behind(known, spec)), spec
    assert screens_behind(known, "an_import") == []
    results = Results(folder)
    failed = results.plans()[0]["runs"][0]["key"]
    results.path("predictions", failed).unlink()
    results.add_failure(failed, "out of memory")
    notes = " | ".join(write_crate(folder, tmp_path / "crate", paths=paths, predictions=True).notes)
    held = len([p for p in results.plans()[1]["runs"] if not p["reason"]])
    assert (
        f"{held + 1} files listed in manifest.csv only (its licence restricts use)" in notes
    )  # predictions and screen
    kept = {p["key"] for p in results.plans()[0]["runs"] if not p["reason"]} - {failed}
    assert {p.stem for p in (tmp_path / "crate" / "results" / "predictions").iterdir()} == kept
    graph = graph_of(tmp_path / "crate")
    assert ids(graph["./"]["mentions"]) == ["#grid-1", "#grid-2"]
    assert graph["#grid-1"]["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert graph["#grid-1"]["error"].startswith("1 run")
    assert "results/leaderboard.csv" not in ids(graph["#grid-1"]["result"])
    assert "results/leaderboard.csv" in ids(graph["#grid-2"]["result"])
    assert "author" not in graph["./"]
    assert ids(graph["./"]["license"]) == ["#no-licence-chosen"]
    mark = results.plans()[1]["facts"]["marks"].popitem()[1][0]
    assert not (tmp_path / "crate" / "results" / "datasets" / f"{mark}.h5").exists()
    assert ids(graph[f"#screen-{mark}"]["license"]) == ["https://spdx.org/licenses/CC-BY-NC-4.0"]


@needs_rocrate
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"authors": ["J. C. <0000-0002-1825-0098>"]}, "0000-0002-1825-0098"),
        ({"authors": ["<0000-0002-1825-0097>"]}, "no name"),
        ({"out": "used"}, "new or empty"),
        ({"out": "res/crate"}, "lies in the results folder"),
        ({"folder": "nowhere"}, "no results"),
    ],
)
def test_mistakes_are_said_and_leave_nothing(secret: Path, options: dict[str, Any], message: str) -> None:
    (secret / "used").mkdir(exist_ok=True)
    (secret / "used" / "x").write_text("x", encoding="utf-8")
    before = sorted(p.name for p in secret.iterdir())
    given = {"folder": "res", **options}
    folder, out = Path(given.pop("folder")), given.pop("out", None)
    with pytest.raises(UserError, match=message):
        write_crate(folder, Path(out) if out else None, **given)
    assert sorted(p.name for p in secret.iterdir()) == before


def test_without_the_library_the_crate_names_it(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocrate", None)
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(UserError, match="pip install rocrate"):
        write_crate(secret / "res")


@needs_rocrate
def test_the_communitys_validator_passes_the_crate(secret: Path, tmp_path: Path) -> None:
    python = ENVIRONMENT / "python"
    if importlib.util.find_spec("rocrate_validator") is not None:
        python = Path(sys.executable)
    elif not python.exists():
        pytest.skip("roc-validator is in an environment of its own: make oracles/ro_crate")
    write_crate(secret / "res", tmp_path / "crate", authors=[f"J. Carberry <{ORCID}>"], predictions=True)
    write_crate(secret / "res", tmp_path / "plain")
    script = ROOT / "tests" / "oracles" / "ro_crate_official.py"
    command = [str(python), str(script), str(tmp_path / "crate"), str(tmp_path / "plain")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found == [{"passed": True, "issues": []}] * 2, (found, done.stderr[-2000:])


def test_specs_and_texts_lose_folders_and_nothing_else() -> None:
    texts = ["table:/a/b/v.csv:names=keep", "x:path='/a/c d/w.h5'", "minilm:source=https://h/f", r"table:C:\u\v.csv"]
    found = machine_paths(texts[:3])
    assert found == ["/a/b/v.csv", "/a/c d/w.h5"]
    scrubber = Scrubber(texts, [Path("/data/ünlü/res")])
    assert [scrubber.text(t) for t in texts[:3]] == ["table:v.csv:names=keep", "x:path='w.h5'", texts[2]]
    assert scrubber.text(json.dumps("/data/ünlü/res/x")) == '"x"'  # as JSON spells it
    assert scrubber.text("/data/ünlü/results") == "/data/ünlü/results"  # another folder
    assert scrubber.value({"k": ["/a/b/v.csv", 1, None]}) == {"k": ["v.csv", 1, None]}


def test_the_workflow_holds_cells_inputs_and_versions(secret: Path, tmp_path: Path) -> None:
    made = write_workflow(secret / "res", tmp_path / "flow")
    assert made.notes == ()
    assert not leaks(tmp_path / "flow", secret)
    cells = [yaml.safe_load(p.read_text("utf-8")) for p in sorted((tmp_path / "flow" / "cells").iterdir())]
    assert [c["head"] for c in cells] == [["knn:k=3"], ["ridge:alpha=10"]]
    assert {(*c["dataset"], *c["emb"]) for c in cells} == {("sim_small", "table:inputs/vec.csv")}
    first, whole = cells[0], Results(secret / "res").plans()[0]["facts"]["grid"]
    assert {k for k in whole if first[k] != whole[k]} == {"emb", "head"}
    same = (tmp_path / "flow" / "inputs" / "vec.csv").read_bytes()
    assert same == (secret / "private" / "vec.csv").read_bytes()
    pins = (tmp_path / "flow" / "requirements.txt").read_text("utf-8").split()
    assert f"numpy=={np.__version__}" in pins
    assert not any("+" in pin for pin in pins)


def test_a_workflow_says_what_must_be_brought(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.csv").write_bytes((secret / "private" / "vec.csv").read_bytes())
    mine = {"impl": "embbench.embeddings.table:TableEmbedding", "params": {"path": "beside.csv"}}
    entry = yaml.safe_load((ROOT / "embbench" / "registry.yaml").read_text("utf-8"))["embeddings"]["table"]
    paths = write_registry(
        tmp_path, datasets={"mine": {"impl": FULL}}, embeddings={"own": {**mine, "impl": entry["impl"]}}
    )
    plain: dict[str, Any] = {"baselines": False, "permutations": {}, "metrics": ["l2_notarget"]}
    run_grid(Grid(dataset=["mine"], head=["no_change"], **plain), tmp_path / "res", paths=paths)
    with pytest.raises(UserError, match=r"user\.yaml, found none"):
        write_workflow(tmp_path / "res", tmp_path / "flow")
    notes = write_workflow(tmp_path / "res", tmp_path / "flow", paths=paths).notes
    assert notes == ("user.yaml needs components.full_screen: install it, or put its folder on PYTHONPATH",)
    sections = yaml.safe_load((tmp_path / "flow" / "registry" / "1-user.yaml").read_text("utf-8"))
    assert sections["embeddings"]["own"]["params"] == {"path": "../inputs/beside.csv"}
    assert (tmp_path / "flow" / "inputs" / "beside.csv").exists()
    (note,) = write_workflow(secret / "res", tmp_path / "small", limit=10).notes
    assert note.startswith("put vec.csv at inputs/vec.csv")


def test_no_name_of_a_file_breaks_the_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes, braces, blanks and dollars in names of inputs and registry files; the Snakefile names plain copies."""
    monkeypatch.chdir(tmp_path)
    paths = write_registry(tmp_path, datasets={"mine": {"impl": FULL}})
    odd = shutil.move(paths[0], tmp_path / "my reg $(touch x).yaml")
    table = tmp_path / 'fo"ld {a}; x.tsv'
    from embbench.grid.screens import screen

    names = dict.fromkeys("+".join(e) for e in screen("mine", "all", (str(odd),)).entities)
    lines = [f"{name}\t{'test' if i % 2 else 'train'}" for i, name in enumerate(names)]
    table.write_text("\n".join(["condition\tfold:a", *lines]), encoding="utf-8")
    plain: dict[str, Any] = {"baselines": False, "permutations": {}, "metrics": ["l2_notarget"]}
    grid = Grid(dataset=["mine"], split=[f"file:'{table.name}'"], head=["no_change"], **plain)
    assert not run_grid(grid, tmp_path / "res", paths=(str(odd),)).failed
    write_workflow(tmp_path / "res", tmp_path / "flow", paths=(str(odd),))
    flow = tmp_path / "flow"
    text = (flow / "Snakefile").read_text("utf-8")
    lists = {k: ast.literal_eval(v) for k, v in re.findall(r"^(REGISTRY|INPUTS) = (.*)$", text, re.MULTILINE)}
    assert lists == {"REGISTRY": ["registry/1-my-reg-touch-x-.yaml"], "INPUTS": ["inputs/fo-ld-a-x.tsv"]}
    assert (flow / lists["INPUTS"][0]).read_bytes() == table.read_bytes()
    assert (flow / lists["REGISTRY"][0]).is_file()
    (cell,) = (flow / "cells").iterdir()
    assert yaml.safe_load(cell.read_text("utf-8"))["split"] == ["file:'inputs/fo-ld-a-x.tsv'"]


@pytest.mark.slow
def test_the_workflow_reruns_a_grid_of_two_cells(secret: Path, tmp_path: Path) -> None:
    beside = Path(sys.executable).parent
    own = next((b / "snakemake" for b in (beside, ENVIRONMENT) if (b / "snakemake").exists()), None)
    if own is None:
        pytest.skip("snakemake is in an environment of its own: make oracles/ro_crate")
    write_workflow(secret / "res", tmp_path / "flow")
    moved = tmp_path / "elsewhere"
    (tmp_path / "flow").rename(moved)
    tool = tmp_path / "embbench"
    line = f"exec {sys.executable} -c 'from embbench.cli.main import main; main()' \"$@\""
    tool.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    tool.chmod(0o755)
    command = [str(own), "--cores", "2", "--config", f"embbench={tool}"]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "xdg"), "EMBBENCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=moved, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (moved / "report.html").stat().st_size > 10_000
    ours, theirs = Results(secret / "res"), Results(moved / "results")
    keys = {p["key"] for p in ours.plans()[0]["runs"]}
    assert {p["key"] for plan in theirs.plans() for p in plan["runs"]} == keys
    mark = next(iter(ours.plans()[0]["facts"]["marks"].values()))[0]
    for key in keys:  # to the same bits
        was, now = (r.prediction(key, r.screen(mark)).values for r in (ours, theirs))
        assert np.array_equal(was, now)
