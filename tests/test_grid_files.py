"""The grids that ship are data: each is read, planned and holds what its comment promises."""

from pathlib import Path

import pytest

from embbench.grid.config import read_grid
from embbench.grid.metrics import metric_names
from embbench.grid.names import registry_of
from embbench.grid.plan import plan
from embbench.grid.validate import check_spec

HERE = Path(__file__).resolve().parent
FILES = sorted((HERE.parent / "grids").glob("*.yaml"))
SHARED = HERE.parents[1] / "shared" / "data"
REGISTRY = (str(HERE / "real_data.yaml"),)  # the comment of a grid of real data says where its screens come from


SLOW = {"embedding_or_architecture"}  # planning extracts every embedding of two screens
PUBLISHED = [p for p in FILES if read_grid(p).published]  # their screens and vectors are fetched, not here
MARKED = [
    pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in FILES if p not in PUBLISHED
]


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


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_a_grid_of_a_published_table_fits_together_before_anything_is_fetched(path):
    grid, registry = read_grid(path), registry_of(())
    assert all(registry.parse("datasets", name).entry.params["files"] for name in grid.dataset)
    axes = {"splits": grid.split, "features": grid.features, "heads": grid.head, "embeddings": grid.emb}
    for kind, texts in axes.items():
        for text in texts:
            check_spec(registry, kind, text)
    assert metric_names(registry, grid.metrics, grid.target)
    assert grid.permutations == {"smoother": 0, "trained": 0}


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
