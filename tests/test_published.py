"""Every published screen in miniature: fetched from a folder and from a server, verified, imported, described, run.

The miniatures (tests/tiny) have the names, columns and label styles of the published files, and sizes of their own.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from _published import CHECKED, Files, write
from _server import Site, serving

from embbench.cache import download
from embbench.cache.home import home
from embbench.core import PerturbationDataset, UserError
from embbench.grid.config import read_grid
from embbench.grid.describe import describe
from embbench.grid.names import registry_of
from embbench.grid.obtain import catalogue, fetch_screen, is_published, short_names, told_of
from embbench.grid.schedule import run_grid
from embbench.grid.screens import forget, screen
from embbench.registry import default

TINY = Path(__file__).resolve().parent / "tiny"
MODULES = [importlib.import_module(f"tiny.{path.stem}") for path in sorted(TINY.glob("[a-z]*.py"))]
MINIS = {name: make for module in MODULES for name, make in getattr(module, "MINIS", {}).items()}
ENTRIES = [entry for entry in default().entries("datasets") if is_published(entry)]


@pytest.fixture(autouse=True)
def _surroundings(fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("EMBBENCH_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    forget()
    yield
    forget()


def registered(folder: Path, name: str, files: Files, address: str = "http://host.invalid") -> tuple[str, ...]:
    """A registry with the miniature as ``mini``: sizes and hashes of its own, served from ``address``."""
    entry = default().get("datasets", name)
    records = []
    for record in entry.params["files"]:
        data = files[record["name"]]
        own = {k: v for k, v in record.items() if k not in (*CHECKED, "urls")}
        own |= {"bytes": len(data), "md5": hashlib.md5(data).hexdigest(), "hashes": "published"}
        records.append(own | {"urls": [f"{address}/gone/{record['name']}", f"{address}/{record['name']}"]})
    params = {**entry.params, "name": "mini", "files": records}
    body = {"impl": entry.impl, "params": params, "licence": entry.licence, "reference": entry.reference}
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({"datasets": {"mini": body}}), encoding="utf-8")
    return (str(path),)


def part_of(name: str) -> str | None:
    """The first part of a screen that is only fetched part by part."""
    entry = default().get("datasets", name)
    return entry.params["files"][0]["part"] if getattr(entry.load(), "piecemeal", False) else None


def obtained(paths: tuple[str, ...], **how: Any) -> list[str]:
    return fetch_screen(registry_of(paths), "mini", accept=True, say=str, progress=lambda *_: None, **how)


def test_every_published_screen_has_a_miniature() -> None:
    assert {entry.name for entry in ENTRIES} == set(MINIS)


@pytest.mark.parametrize("name", sorted(MINIS))
def test_from_a_fetch_to_a_grid_cell(name: str, tmp_path: Path) -> None:
    files = MINIS[name]()
    paths = registered(tmp_path, name, files)
    facts, ready = told_of(registry_of(paths), "mini")
    assert facts
    assert not ready
    write(tmp_path / "mirror" / "mini", files)
    only = part_of(name)
    mini = "mini" if only is None else f"mini:only={only}"
    assert obtained(paths, mirror=str(tmp_path / "mirror"), only=only), "nothing was said of the files"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = screen(mini, "all", paths)
        told = describe(data)
        assert told["facts"]["conditions"] == len(data) >= 4
        assert data.meta["source"]
        split = "unseen_perturbation:2" if len(data.entity_names) > 1 else "unseen_context"
        wanted = {"dataset": mini, "split": [split], "emb": "random", "head": "knn", "permutations": {"smoother": 1}}
        if data.labels is not None:
            wanted |= {"target": "labels", "head": "label_knn"}
        grid = read_grid(None, **wanted)
        tally = run_grid(grid, tmp_path / "results", workers=1, paths=paths)
    assert not tally.failed, tally.messages
    assert tally.done > 2


@pytest.mark.parametrize("name", sorted(MINIS))
def test_the_same_from_a_server(name: str, tmp_path: Path) -> None:
    files = MINIS[name]()
    with serving(Site({f"/{file}": data for file, data in files.items()})) as site:
        paths = registered(tmp_path, name, files, site.url)
        found = obtained(paths, only=part_of(name))
        asked = len(site.asked)
        assert obtained(paths, only=part_of(name)) == found
        assert len(site.asked) == asked, "what is there is not fetched again"
    assert not [p for p in home().rglob("*") if p.suffix in (".part", ".incoming")]


def test_the_catalogue_names_every_screen() -> None:
    listed = {record["name"]: record for record in catalogue(default())}
    assert {entry.name for entry in ENTRIES} == set(listed)
    assert short_names(default())["norman19"] == "norman19_scperturb"
    for entry in ENTRIES:
        assert all((entry.licence, entry.reference, entry.dated)), entry.name
        assert not listed[entry.name]["here"]


def test_norman_reads_pairs_and_gemgroups(tmp_path: Path) -> None:
    files = MINIS["norman19_scperturb"]()
    paths = registered(tmp_path, "norman19_scperturb", files)
    write(tmp_path / "mirror" / "mini", files)
    obtained(paths, mirror=str(tmp_path / "mirror"))
    data: PerturbationDataset = screen("mini", "all", paths)
    assert ("MDM2", "TP53") in data.entities
    assert (data.contexts, data.meta["batch_key"]) == (("K562",), "gemgroup")
    assert "TP53" in data.genes, "Ensembl ids become symbols"


def test_plates_are_never_fetched_all_at_once(tmp_path: Path) -> None:
    paths = registered(tmp_path, "tahoe_plates", MINIS["tahoe_plates"]())
    with pytest.raises(UserError, match=r"fetched part by part, found no part .*--only, of plate1, plate2"):
        obtained(paths)


def test_a_file_without_a_hash_that_is_another_one_is_not_kept(tmp_path: Path) -> None:
    """Else the wrong file's own hash would be what every later fetch is held to."""
    files = dict(MINIS["dixit16_7d"]())
    (name,) = files
    entry = default().get("datasets", "dixit16_7d")
    body = {"impl": entry.impl, "params": {**entry.params, "name": "mini"}, "licence": "none"}
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump({"datasets": {"mini": body}}), encoding="utf-8")
    paths = (str(tmp_path / "mini.yaml"),)
    write(tmp_path / "mirror", {name: dict(MINIS["vcc25_h1_train"]())["adata_Training.h5ad"]})
    with pytest.raises(UserError, match=f"removed again, since no hash is known of them: {name}"):
        obtained(paths, mirror=str(tmp_path / "mirror"))
    write(tmp_path / "mirror", files)
    assert obtained(paths, mirror=str(tmp_path / "mirror"))
