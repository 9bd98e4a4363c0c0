"""The registry file: nothing dangles, nothing is orphaned, every entry says where it comes from; and how it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _source import PACKAGE, modules

from embbench import registry
from embbench.checks import maker
from embbench.core import Metric, UserError
from embbench.registry import KINDS, MODALITIES, Entry, Registry

NAMED = os.environ.get("EMBBENCH_TEST_REGISTRY")
REGISTRY = registry.default() if NAMED is None else Registry(Path(NAMED))
OWN_FILE = ("path", "source", "graph")  # arguments that name a user's own file, whose origin nobody can state


def entries(kind: str | None = None) -> list[Entry]:
    return REGISTRY.entries(kind)


def named(found: list[Entry]) -> list[str]:
    return [f"{e.kind}/{e.name}" for e in found]


# ---- the packaged file --------------------------------------------------------------------------------------------
def test_no_orphans() -> None:
    """Every public file of a component folder is used by an entry."""
    used = {e.module for e in entries()}
    files = {
        m
        for m, path in modules().items()
        if m.count(".") >= 2 and m.split(".")[1] in KINDS and not path.name.startswith("_")
    }
    assert files, "no component files found"
    assert not files - used, f"in no registry entry: {sorted(files - used)}"


@pytest.mark.parametrize("entry", entries(), ids=named(entries()))
def test_every_entry_resolves(entry: Entry) -> None:
    if entry.missing():
        pytest.skip(f"needs the modules {', '.join(entry.missing())}")
    folder = {"composites": "metrics"}.get(entry.kind, entry.kind)
    assert entry.module.startswith(f"embbench.{folder}."), f"{entry.impl} lies outside the folder of its kind"
    assert callable(entry.load())
    assert entry.summary(), f"{entry.module} has no docstring"


@pytest.mark.parametrize("entry", entries(), ids=named(entries()))
def test_parameters_fit(entry: Entry) -> None:
    if entry.missing():
        pytest.skip(f"needs the modules {', '.join(entry.missing())}")
    if not entry.needs_file and entry.argument not in ("of", "path"):
        entry.make()
    if entry.test or not entry.needs_file:
        assert maker(entry)() is not None


@pytest.mark.parametrize("entry", entries("embeddings"), ids=named(entries("embeddings")))
def test_embeddings_state_what_they_hold(entry: Entry) -> None:
    assert entry.modality in MODALITIES, f"{entry.name}: modality {entry.modality!r}"
    assert entry.information != "unknown" or entry.needs_file, f"{entry.name}: information is not declared"
    if not entry.missing():
        thing = entry.load()
        assert thing.oracle == entry.name.startswith("oracle_"), "oracle_ in the name and oracle = True go together"
    if entry.information in ("none", "prior knowledge"):
        assert entry.trained_on is not None or entry.needs_file, f"{entry.name}: trained_on is not stated"


def test_metric_names_say_the_gene_set() -> None:
    for entry in entries("metrics"):
        metric = entry.make()
        assert isinstance(metric, Metric)
        ends = metric.genes if metric.space == "genes" else metric.space
        assert entry.name.endswith(f"_{ends}"), f"{entry.name} scores {metric.genes} in {metric.space}"
    assert not {"r2", "edistance", "mmd"} & {e.name for e in entries("metrics")}, "a bare name hides the definition"


def test_provenance_is_stated() -> None:
    bare = [f"{e.kind}/{e.name}" for e in entries("heads") if not e.reference]
    fetched = [e for e in entries("embeddings") if e.needs_file and e.argument not in OWN_FILE]
    bare += [f"embeddings/{e.name}" for e in fetched if not e.licence or not e.reference]
    assert not bare, f"no reference or licence: {bare}"


def test_no_entry_names_a_folder_of_a_machine() -> None:
    text = (PACKAGE / "registry.yaml").read_text(encoding="utf-8") if NAMED is None else Path(NAMED).read_text()
    assert not [word for word in ("/home/", "/work", "/data/", "/mnt", "C:\\") if word in text]


def test_a_name_is_one_kind_of_spec() -> None:
    for entry in entries():
        assert not set(":+=, /") & set(entry.name), f"{entry.name!r}: these signs separate specs"
        assert entry.name.islower(), f"{entry.name!r}: names are lower case"


# ---- how a file is read -------------------------------------------------------------------------------------------
GOOD = """
heads:
  mean: {impl: "embbench.heads.context_mean:ContextMean"}
features:
  pca: {impl: "embbench.features.pca:PCA", argument: dim, params: {dim: 7}}
embeddings:
  noise: {impl: "embbench.embeddings.random:Random", argument: dim}
  shuffled: {impl: "embbench.embeddings.permuted:Permuted", argument: of, params: {draw: 0}}
"""


@pytest.fixture
def small(tmp_path: Path) -> Registry:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return Registry(path)


def test_specs(small: Registry) -> None:
    assert small.parse("features", "pca").make().dim == 7
    assert small.parse("features", "pca:3").make().dim == 3
    assert small.parse("features", "pca:dim=4").make().dim == 4
    assert small.parse("embeddings", "noise:8:seed=2").make().seed == 2
    inner = small.parse("embeddings", "shuffled:noise:8:seed=2:draw=5")
    assert inner.overrides == {"of": "noise:8:seed=2", "draw": 5}


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [("heads", "maen", "did you mean mean"), ("heads", "xyz", "known: mean"), ("heads", "mean:3", "takes no ':3'")],
)
def test_bad_names(small: Registry, kind: str, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        small.parse(kind, text)


@pytest.mark.parametrize(
    ("spec", "says"), [("pca:dim=-1", "dim must be"), ("pca:size=3", "do not fit"), ("pca:dim=lots", "dim must be")]
)
def test_bad_parameters(small: Registry, spec: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        small.parse("features", spec).make()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("heads: [1, 2", "cannot be read as YAML"),
        ("[1, 2]", "expected sections"),
        ("haeds: {}", "unknown section 'haeds'"),
        ("heads: {a: {params: {}}}", "needs 'impl'"),
        ("heads: {a: {impl: 'x:y', colour: red}}", "colour"),
        ("heads: {a: text}", "found str"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        Registry(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        Registry(tmp_path / "absent.yaml")


def test_names_are_never_redefined(small: Registry, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"
    again.write_text('heads: {mean: {impl: "a:B"}}', encoding="utf-8")
    with pytest.raises(UserError, match="already registered"):
        Registry(*small.paths, again)


def test_unresolvable_objects_and_missing_modules(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        'heads: {gone: {impl: "embbench.heads.nowhere:X"}, far: {impl: "a:B", requires: [no_such_module]}}',
        encoding="utf-8",
    )
    own = Registry(path)
    with pytest.raises(UserError, match="cannot load"):
        own.get("heads", "gone").make()
    with pytest.raises(UserError, match="pip install no_such_module"):
        own.get("heads", "far").make()
    assert own.get("heads", "far").missing() == ["no_such_module"]


def test_listing_imports_nothing(small: Registry) -> None:
    assert small.get("heads", "mean").summary().startswith("The mean training effect")
    assert [e.name for e in small.entries("embeddings")] == ["noise", "shuffled"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("go,ppi", ["go", "ppi"]),
        (" go , ,ppi:dim=4 ", ["go", "ppi:dim=4"]),
        ("e:without=[a,b]:top_k=3,go", ["e:without=[a,b]:top_k=3", "go"]),
        ("t:path='a,b.csv',go", ["t:path='a,b.csv'", "go"]),
        ("broken:[a,go", ["broken:[a", "go"]),
        ("", []),
    ],
)
def test_specs_part_at_commas_outside_brackets(text: str, parts: list[str]) -> None:
    from embbench.grid.config import Grid

    assert registry.split_specs(text) == parts
    assert Grid(emb=text).emb == parts
