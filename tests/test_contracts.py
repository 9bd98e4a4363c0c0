"""Every contract on every registered component, and on the components of tests/components."""

from __future__ import annotations

import functools
import importlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embbench import registry
from embbench.checks import checks_for, maker, toy_screen
from embbench.checks._toy import toy_vectors
from embbench.checks.embeddings import toy_names
from embbench.registry import KINDS, Entry, Registry

HERE = Path(__file__).resolve().parent


@functools.cache
def all_entries() -> tuple[Entry, ...]:
    """Entries of the packaged registry (or of $EMBBENCH_TEST_REGISTRY) and of the proving components."""
    named = os.environ.get("EMBBENCH_TEST_REGISTRY")
    packaged = registry.default() if named is None else Registry(Path(named))
    return (*packaged.entries(), *Registry(HERE / "components" / "registry.yaml").entries())


CASES = [(entry, check) for entry in all_entries() for check in checks_for(entry.kind)]


# writers of tiny files in published formats: one module per family, found by itself
TINY = [importlib.import_module(f"tiny.{path.stem}") for path in sorted((HERE / "tiny").glob("[a-z]*.py"))]
OWN_FILE = {"embeddings/table": {}, "datasets/table": {"unit": "delta", "context_key": "context"}}


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read a user's own file, with a toy one."""
    folder, screen = tmp_path_factory.mktemp("toy"), toy_screen().with_genes(np.arange(5))
    vectors = toy_vectors([*toy_names("gene"), *screen.contexts])
    rows = [",".join([name, *(f"{v:.6f}" for v in vector)]) for name, vector in vectors.items()]
    (folder / "vectors.csv").write_text("\n".join(["name,a,b,c,d,e,f", *rows]), encoding="utf-8")
    head = ",".join(["perturbation", "context", *screen.genes])
    kept = [i for i in range(len(screen)) if screen.dose[i] == 1]
    rows = [
        ",".join(["+".join(screen.entities[i]), screen.context[i], *(f"{v:.6f}" for v in screen.effects[i])])
        for i in kept
    ]
    (folder / "effects.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    files = {"embeddings/table": "vectors.csv", "datasets/table": "effects.csv"}
    tiny: dict[str, dict[str, Any]] = {}
    for module in TINY:
        (folder / module.__name__).mkdir()
        tiny |= module.params(folder / module.__name__)
    return tiny | {name: {"path": str(folder / file), **OWN_FILE[name]} for name, file in files.items()}


def reason_to_skip(entry: Entry) -> str:
    """Why an entry cannot be tested here; empty when it can."""
    if absent := entry.missing():
        return f"needs the modules {', '.join(absent)}"
    return ""


@pytest.mark.parametrize(("entry", "check"), CASES, ids=[f"{e.kind}/{e.name}-{c.__name__}" for e, c in CASES])
def test_contract(
    entry: Entry, check: Callable[[Callable[..., Any]], None], toy_files: dict[str, dict[str, Any]]
) -> None:
    if reason := reason_to_skip(entry):
        pytest.skip(reason)
    extra = toy_files.get(f"{entry.kind}/{entry.name}", {})
    told = entry.test or extra or not entry.needs_file
    assert told, f"{entry.name} needs a file ({entry.needs_file}): write a tiny one in tests/tiny"
    check(maker(replace(entry, test={**entry.test, **extra})))


def test_the_suite_is_alive() -> None:
    """A contract suite can die quietly: count it, and name what cannot be tested."""
    assert all(checks_for(kind) for kind in KINDS)
    per_kind = Counter(entry.kind for entry in all_entries())
    assert set(per_kind) == set(KINDS), f"no entry of {set(KINDS) - set(per_kind)}"
    assert len(CASES) == sum(n * len(checks_for(kind)) for kind, n in per_kind.items()) > 300
    untested = {f"{e.kind}/{e.name}": reason_to_skip(e) for e in all_entries() if reason_to_skip(e)}
    assert len(untested) < len(all_entries()) / 4, untested
    tested_kinds = {e.kind for e in all_entries() if not reason_to_skip(e)}
    assert tested_kinds == set(KINDS), f"nothing runs for {set(KINDS) - tested_kinds}"
