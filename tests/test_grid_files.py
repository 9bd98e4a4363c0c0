"""The grids that ship are data: each is read, planned and holds what its comment promises."""

from pathlib import Path

import pytest

from embbench.grid.config import read_grid
from embbench.grid.names import registry_of
from embbench.grid.plan import plan

HERE = Path(__file__).resolve().parent
FILES = sorted((HERE.parent / "grids").glob("*.yaml"))
SHARED = HERE.parents[1] / "shared" / "data"
REGISTRY = (str(HERE / "real_data.yaml"),)  # the comment of a grid of real data says where its screens come from


SLOW = {"embedding_or_architecture"}  # planning extracts every embedding of two screens
MARKED = [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_name_in_a_grid_file_is_registered(path):
    grid = read_grid(path)
    registry = registry_of(REGISTRY if "real_data.yaml" in path.read_text(encoding="utf-8") else ())
    axes = {"embeddings": grid.emb + grid.context_emb, "heads": grid.head, "features": grid.features}
    for kind, texts in axes.items():
        for text in (part for each in texts for part in each.split("+") if part not in ("default", "none")):
            assert registry.parse(kind, text).entry.kind == kind


@pytest.mark.parametrize("path", MARKED)
def test_every_grid_file_plans(path):
    real = "real_data.yaml" in path.read_text(encoding="utf-8")
    if real and not SHARED.exists():
        pytest.skip(f"{path.name} needs the shared real data ({SHARED} is absent)")
    planned = plan(read_grid(path), REGISTRY if real else ())
    assert planned
    assert len({p.key for p in planned}) == len(planned)
    assert not [p.reason for p in planned if p.reason]


def test_the_demo_is_a_real_crossing():
    grid = read_grid(FILES[0].with_name("demo.yaml"))
    assert len(grid.emb) >= 6
    assert len(grid.head) >= 5
    assert set(grid.dataset) == {"sim_demo", "sim_null"}
    kang = read_grid(FILES[0].with_name("demo_kang18.yaml"))
    assert {"no_change", "perturbation_mean", "nearest_context", "knn", "ridge"} <= set(kang.head)


def test_embedding_or_architecture_crosses_enough():
    grid = read_grid(HERE.parent / "grids" / "embedding_or_architecture.yaml")
    assert len(grid.emb) >= 8
    assert len(grid.head) >= 10
    assert {"flow_matching", "latent_diffusion", "schrodinger_bridge", "gears_gnn", "fusion", "knn"} <= set(grid.head)
    assert len(grid.dataset) == 2
