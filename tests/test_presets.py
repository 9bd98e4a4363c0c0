"""Presets of heads: named sets of parameters in the registry, chosen in a spec, a grid file or on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from _cli import embbench
from _grid import write_registry

from embbench import registry as registries
from embbench.core import UserError
from embbench.grid.config import Grid, read_grid
from embbench.grid.names import registry_of
from embbench.grid.plan import Planned, plan
from embbench.registry import Registry, read_entries

COMPONENTS = str(Path(__file__).resolve().parent / "components" / "registry.yaml")
SMALL = {"impl": "embbench.datasets.simulator:Simulator", "params": {"n_perturbations": 24, "n_genes": 30}}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    datasets = {"tiny": {**SMALL, "params": {**SMALL["params"], "level": "condition"}}}
    return (*write_registry(tmp_path_factory.mktemp("presets"), datasets=datasets), COMPONENTS)


def planned(paths: tuple[str, ...], **axes: object) -> list[Planned]:
    base = {"dataset": "tiny", "split": "unseen_perturbation:2", "emb": "random:4", "baselines": False}
    return plan(Grid(**{**base, "permutations": {}, **axes}), paths)


@pytest.mark.parametrize(
    ("text", "steps", "seed"),
    [
        ("counter", 10, 0),
        ("counter:preset=default", 10, 0),
        ("counter:preset=fast", 4, 0),
        ("counter:preset=reference", 40, 3),
        ("counter:preset=reference:steps=7", 7, 3),
        ("counter:steps=7:preset=reference", 7, 3),
        ("counter:7:preset=reference", 7, 3),
        ("counter:preset=reference:seed=1", 40, 1),
    ],
)
def test_a_preset_stands_for_its_parameters_and_explicit_ones_win(text: str, steps: int, seed: int) -> None:
    head = Registry(Path(COMPONENTS)).parse("heads", text).make()
    assert (head.steps, head.seed) == (steps, seed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("counter:preset=quick", "heads 'counter': preset must be one of default, fast, reference, found 'quick'"),
        ("counter:preset=", "preset must be one of default, fast, reference, found 'None'"),
        ("block_vote:preset=fast", "heads 'block_vote' has no presets, found preset=fast"),
        ("block_vote:preset=default", "heads 'block_vote' has no presets"),
    ],
)
def test_unknown_presets_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Registry(Path(COMPONENTS)).parse("heads", text)


def test_keys_depend_on_the_resolved_parameters_only(paths: tuple[str, ...]) -> None:
    texts = ["counter:preset=fast", "counter:steps=4", "counter", "counter:preset=default", "counter:preset=reference"]
    keys = {text: [p.key for p in planned(paths, head=[text])] for text in texts}
    assert keys["counter:preset=fast"] == keys["counter:steps=4"]
    assert keys["counter"] == keys["counter:preset=default"]
    assert len({k for found in keys.values() for k in found}) == 3 * len(keys["counter"])


def test_the_preset_of_a_grid_goes_to_every_head_that_has_it(paths: tuple[str, ...], tmp_path: Path) -> None:
    heads = ["counter", "counter:steps=7", "counter:preset=reference", "knn:k=3"]
    wanted = ["counter:preset=fast", "counter:steps=7:preset=fast", "counter:preset=reference", "knn:k=3"]
    assert list(dict.fromkeys(p.run.head for p in planned(paths, head=heads, preset="fast"))) == wanted
    assert list(dict.fromkeys(p.run.head for p in planned(paths, head=heads, preset="default"))) == heads
    (tmp_path / "g.yaml").write_text("head: [counter]\npreset: fast\n")
    assert read_grid(tmp_path / "g.yaml").preset == "fast"
    assert read_grid(tmp_path / "g.yaml", preset="reference").preset == "reference"
    with pytest.raises(
        UserError,
        match=r"preset 'quick': no head of this grid has it; .*counter: default, fast, reference; knn: default",
    ):
        planned(paths, head=["counter", "knn"], preset="quick")


@pytest.mark.parametrize(
    ("presets", "words"),
    [
        ("[fast]", r"presets must be a mapping, found \['fast'\]"),
        ("{fast: 3}", "presets must map names .* found 'fast': 3"),
        ("{3: {steps: 1}}", "presets must map names .* found 3"),
        ("{default: {steps: 1}}", r"presets must map names \(other than default\)"),
    ],
)
def test_a_bad_presets_field_is_told(tmp_path: Path, presets: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(f'heads:\n  mine: {{impl: "a.b:C", presets: {presets}}}\n')
    with pytest.raises(UserError, match=f"heads/mine: {words}"):
        read_entries(tmp_path / "r.yaml")


def test_only_heads_have_presets(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text('embeddings:\n  mine: {impl: "a.b:C", presets: {fast: {dim: 3}}}\n')
    with pytest.raises(UserError, match="embeddings/mine: only heads have presets, found fast"):
        read_entries(tmp_path / "r.yaml")


def test_every_packaged_preset_makes_its_head() -> None:
    named = [(e, name) for e in registries.default().entries("heads") for name in e.presets]
    for entry, name in named:
        if not entry.missing():
            assert registries.default().parse("heads", f"{entry.name}:preset={name}").make() is not None
    assert set(registry_of((COMPONENTS,)).get("heads", "counter").presets) == {"fast", "reference"}


def test_the_command_line(paths: tuple[str, ...], tmp_path: Path) -> None:
    registry = " ".join(f"--registry {path}" for path in paths)
    line = f"{registry} --dataset tiny --split unseen_perturbation:2 --emb random:4 --metrics l2_all"
    said = embbench(tmp_path, f"grid {line} --head counter --no-baselines --permutations 0 --preset fast --out g")
    assert said.code == 0, said
    assert "counter:preset=fast" in said.out
    said = embbench(tmp_path, f"fit {line} --head counter --preset reference --out f")
    assert said.code == 0, said
    assert "counter:preset=reference" in said.out
    said = embbench(tmp_path, f"fit {line} --head counter --preset quick --out h")
    assert said.code == 2
    assert "preset 'quick': no head of this grid has it; they have counter: default, fast, reference" in said.err
    assert not (tmp_path / "h").exists()
    said = embbench(tmp_path, f"list heads --why counter {registry}")
    assert "  preset=fast: steps=4\n  preset=reference: steps=40, seed=3\n" in said.out
