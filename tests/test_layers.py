"""Who may import whom (design.md): walked in the source, functions included, and tried in fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from _source import PACKAGE, Import, imports, modules, tree

BASE = {"core", "numerics"}
SOURCES = BASE | {"genes", "cache"}
GRID = SOURCES | {"registry"}
MAY = {
    "core": set(),
    "numerics": {"core"},
    "genes": {"core"},
    "cache": {"core"},
    "entries": {"core"},
    "registry": {"core", "entries"},
    "datasets": SOURCES,
    "embeddings": SOURCES,
    "graphs": SOURCES,
    "splits": BASE,
    "features": BASE,
    "heads": BASE,
    "metrics": BASE,
    "grid": GRID,
    "exchange": GRID | {"grid"},
    "report": {"core", "numerics", "cache"},
    "checks": {*BASE, "registry", "cache", "datasets.simulator"},
    "data": set(),
}
ANYTHING = {"cli", "api", ""}  # the command line, and the public API with embbench/__init__.py
COMPONENTS = ("datasets", "splits", "features", "graphs", "embeddings", "heads", "metrics")
HEAVY = {
    *("torch", "transformers", "faiss", "anndata", "sklearn", "pandas", "pydantic", "rich", "matplotlib", "pyarrow"),
    *("loky", "filelock", "dask"),
}
TORCH_HEADS = (  # trained heads, and what they share
    *("mlp", "flow_matching", "latent_diffusion", "schrodinger_bridge", "gears_gnn", "fusion", "label_fusion"),
    *("latent_additive", "decoder_only", "covariate_only", "linear_additive"),
    *("_torch", "_training", "_networks", "_generative", "_latent"),
    *("_autoencoder", "_carrier", "_conditions", "_coupling", "_fieldfit"),
)
TORCH_FAMILIES = ("_gears", "_fusion", "_perturbench", "_generative")  # prefixes of further helpers
AT_TOP = {  # files that nothing imports before they are needed
    **{f"heads/{name}.py": {"torch"} for name in TORCH_HEADS},
    **{f"heads/{p.name}": {"torch"} for part in TORCH_FAMILIES for p in (PACKAGE / "heads").glob(f"{part}*.py")},
    "embeddings/_gnn.py": {"torch"},
    **{f"embeddings/models/_{part}.py": {"torch"} for part in ("layers", "run", "depth", "performer")},
    **{f"embeddings/models/_{model}.py": {"torch"} for model in ("geneformer", "scfoundation", "scprint", "uce")},
    "embeddings/models/_transcriptformer.py": {"torch"},
    "grid/config.py": {"pydantic"},
}
BY_NAME = {"__init__.py", "entries.py", "heads/sklearn_any.py"}  # import what a user or a file names


def layer(module: str) -> str:
    """``embbench.heads.knn`` -> ``heads``; the package itself -> ``""``."""
    return [*module.split("."), ""][1]


def forbidden(module: str, found: Import) -> str:
    """Why an import breaks the table; empty when it does not."""
    if found.module.split(".")[0] != "embbench":
        return ""
    here, there = layer(module), layer(found.module)
    if here in ANYTHING or there == here or there in MAY[here]:
        return ""
    dotted = found.module.partition(".")[2]
    if any(dotted == allowed or dotted.startswith(f"{allowed}.") for allowed in MAY[here]):
        return ""
    return f"{here or 'embbench'} -> {there or 'embbench'} (may import {', '.join(sorted(MAY[here])) or 'nothing'})"


def test_every_folder_has_a_layer() -> None:
    assert {layer(m) for m in modules()} <= set(MAY) | ANYTHING
    assert {layer(m) for m in modules()} >= {"core", "registry", "heads", "checks"}, "the walk found no modules"


def test_layers_hold() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{found.line} {why}"
        for module, path in modules().items()
        for found in imports(module, path)
        if (why := forbidden(module, found))
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("embbench.heads.knn", "embbench.embeddings.random"),
        ("embbench.splits.given_column", "embbench.genes"),
        ("embbench.core.heads", "embbench.numerics"),
        ("embbench.report.table", "embbench.grid.run"),
        ("embbench.checks.heads", "embbench.datasets.table"),
        ("embbench.grid.run", "embbench.heads.ridge"),
        ("embbench.heads.knn", "embbench"),
        ("embbench.grid.run", "embbench.exchange.splits"),
        ("embbench.exchange.splits", "embbench.splits.given_column"),
    ],
)
def test_the_table_refuses(module: str, imported: str) -> None:
    assert forbidden(module, Import(imported, 1, at_load=False))


def test_the_table_allows() -> None:
    assert not forbidden("embbench.checks.datasets", Import("embbench.datasets.simulator", 1, at_load=True))
    assert not forbidden("embbench.datasets.table", Import("embbench.cache.keys", 1, at_load=True))


def test_component_helpers_stay_in_their_folder() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{found.line} {found.module}"
        for module, path in modules().items()
        for found in imports(module, path)
        if layer(found.module) in COMPONENTS
        and found.module.rpartition(".")[2].startswith("_")
        and layer(module) not in (layer(found.module), "cli")
    ]
    assert not wrong, wrong


def test_imports_are_absolute_and_static() -> None:
    """Relative imports, and modules named at run time outside the registry, would slip past the walk."""
    wrong = []
    for path in modules().values():
        for node in ast.walk(tree(path)):
            relative = isinstance(node, ast.ImportFrom) and node.level > 0
            called = isinstance(node, ast.Call) and ast.unparse(node.func)
            dynamic = called in ("__import__", "importlib.import_module", "import_module")
            name = path.relative_to(PACKAGE).as_posix()
            if relative or (dynamic and name not in BY_NAME):
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node)[:60]}")
    assert not wrong, wrong


def test_heavy_modules_are_imported_where_they_are_used() -> None:
    wrong = []
    for module, path in modules().items():
        name = path.relative_to(PACKAGE).as_posix()
        for found in imports(module, path):
            top = found.module.split(".")[0]
            if found.at_load and top in HEAVY - AT_TOP.get(name, set()):
                wrong.append(f"{name}:{found.line} imports {top} at its top")
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph = {
        module: {i.module for i in imports(module, path) if i.at_load and i.module in modules() and i.module != module}
        for module, path in modules().items()
    }
    done: set[str] = set()
    while ready := [m for m, needed in graph.items() if m not in done and needed <= done]:
        done.update(ready)
    assert set(graph) == done, f"modules in or behind a cycle: {sorted(set(graph) - done)}"


@pytest.mark.parametrize(
    "module", ["embbench", "embbench.core", "embbench.registry", "embbench.checks", "embbench.cli.main"]
)
def test_light_imports_stay_light(module: str, tmp_path: Path) -> None:
    if module not in modules():
        pytest.skip(f"{module} does not exist yet")
    heavy = ("torch", "pandas", "sklearn", "anndata", "matplotlib", "transformers", "faiss", "pydantic")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"import {module} pulls in {done.stdout}"


def test_the_inside_needs_few_libraries(tmp_path: Path) -> None:
    """core, numerics, heads and grid import with numpy, scipy, h5py, torch and YAML alone; grid files need pydantic."""
    inside = [
        m for m, p in modules().items() if layer(m) in ("core", "numerics", "heads", "grid") and p.name != "config.py"
    ]
    blocked = sorted(HEAVY - {"torch"} | {"typer", "platformdirs"})
    code = (
        "import importlib, sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        f"for name in {inside}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_core_is_numpy_only(tmp_path: Path) -> None:
    code = "import sys, embbench.core; print([m for m in ('scipy', 'h5py', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
