"""Files named in a user's registry are found beside that registry, from whatever folder the command runs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from embbench import registry
from embbench.grid.vectors import component_facts
from embbench.registry import FILES, Registry

OWN = """
datasets:
  mine: {impl: "embbench.datasets.table:ConditionTable", params: {path: data/screen.csv, unit: delta, source: "my lab"}}
  away: {impl: "embbench.datasets.table:ConditionTable", params: {path: data/absent.csv, unit: delta}}
embeddings:
  vectors: {impl: "embbench.embeddings.table:Table", argument: path, params: {path: vectors.csv}}
  network: {impl: "embbench.embeddings.graph_spectral:GraphSpectral", argument: dim, params: {graph: ppi}}
  weighty: {impl: "embbench.embeddings.scgpt:ScGPT", argument: checkpoint, params: {checkpoint: model}}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Registry, Path]:
    """A registry in a folder of its own; the command runs in another one."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home / "data", home / "model", elsewhere):
        folder.mkdir(parents=True)
    (home / "data" / "screen.csv").write_text("perturbation,G1,G2\nTP53,1,2\nMYC,0,1\nKRAS,1,0\n", encoding="utf-8")
    (home / "vectors.csv").write_text("name,a\nTP53,1\nMYC,2\nKRAS,3\n", encoding="utf-8")
    (home / "mine.yaml").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    return Registry(home / "mine.yaml"), home


def test_files_beside_the_registry_are_found(own: tuple[Registry, Path]) -> None:
    known, home = own
    assert known.get("datasets", "mine").params["path"] == str(home / "data" / "screen.csv")
    assert len(known.get("datasets", "mine").make().load()) == 3
    assert known.get("embeddings", "weighty").params["checkpoint"] == str(home / "model")


def test_what_is_no_file_stays_as_written(own: tuple[Registry, Path]) -> None:
    known, _ = own
    assert known.get("embeddings", "network").params["graph"] == "ppi"
    assert known.get("datasets", "mine").params["source"] == "my lab"
    assert known.get("datasets", "away").params["path"] == "data/absent.csv"


def test_typed_paths_start_at_the_current_folder(own: tuple[Registry, Path]) -> None:
    known, home = own
    (home.parent / "elsewhere" / "vectors.csv").write_text("name,a\nA,1\nB,2\n", encoding="utf-8")
    typed = known.parse("embeddings", "vectors:vectors.csv").make().compute(None, None)
    named = known.parse("embeddings", "vectors").make().compute(None, None)
    assert (typed.names.tolist(), named.names.tolist()) == (["A", "B"], ["TP53", "MYC", "KRAS"])


def test_keys_hold_content_and_no_folder(own: tuple[Registry, Path]) -> None:
    """A registry that moves with its files recomputes nothing; a changed file does."""
    known, home = own
    before = component_facts(known.parse("embeddings", "vectors"))
    assert "path" not in before["params"]
    assert before["files"][0].startswith("sha256:")
    (home / "vectors.csv").write_text("name,a\nTP53,1\nMYC,2\nKRAS,4\n", encoding="utf-8")
    assert component_facts(known.parse("embeddings", "vectors")) != before


def test_the_packaged_registry_names_no_file_by_accident() -> None:
    """Its parameters are names (``go``, ``ppi``) or ``package:`` files; none may turn into a path of this machine."""
    values = [e.params[k] for e in registry.default().entries() for k in FILES if e.params.get(k) is not None]
    assert values
    assert not [v for v in values if isinstance(v, str) and Path(v).is_absolute()]
