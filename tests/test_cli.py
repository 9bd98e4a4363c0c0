"""The command line as users type it: every verb does its job, writes where it should and says what it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from _cli import GENES, IMPORT, Said, embbench, embbench_process, run_id, screen, small_grid

from embbench import extract, load_dataset, registry
from embbench.grid import names
from embbench.grid.results import Results
from embbench.registry import KINDS, Registry

HEAVY = ("torch", "pandas", "anndata", "sklearn", "faiss", "matplotlib", "pyarrow", "loky", "scipy.stats")
OWN_HEAD = '''
"""A head of the user's."""
import numpy as np
from embbench.core import HeadDefaults


class Half(HeadDefaults):
    needs_embedding = False

    def __init__(self):
        self.mean = None

    def fit(self, inputs, Y, observed=None):
        self.mean = Y.mean(axis=0) / 2
        return self

    def predict(self, inputs):
        if self.mean is None:
            raise RuntimeError("Half: predict before fit")
        return np.tile(self.mean, (len(inputs), 1)).astype(np.float32)


class Forgetful(Half):
    """Breaks the contract: adds up over fits."""

    def fit(self, inputs, Y, observed=None):
        self.mean = Y.mean(axis=0) + (0 if self.mean is None else self.mean)
        return self


class Screen:
    def load(self):
        return 1 // 0
'''


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small grid: ``small.yaml``, ``small/`` and ``home/``."""
    return small_grid(tmp_path_factory.getbasetemp())


def good(said: Said) -> str:
    assert said.code == 0, said
    assert "Traceback" not in said.err
    return said.out


def modules_of(line: str, folder: Path) -> set[str]:
    """Modules that one command loads."""
    code = (
        "import sys, atexit, json; sys.argv[0] = 'embbench'\n"
        "atexit.register(lambda: open('modules.json', 'w').write(json.dumps(sorted(sys.modules))))\n"
        "from embbench.cli.main import main; main()"
    )
    subprocess.run([sys.executable, "-c", code, *line.split()], cwd=folder, check=True, capture_output=True, timeout=60)
    return set(json.loads((folder / "modules.json").read_text()))


@pytest.mark.parametrize("line", ["--help", "grid --help", "list heads", "list datasets"])
def test_help_and_lists_load_nothing_heavy(line: str, tmp_path: Path) -> None:
    loaded = modules_of(line, tmp_path)
    assert "embbench.cli.main" in loaded
    assert not loaded & set(HEAVY)
    if line.endswith("--help"):
        assert not loaded & {"h5py", "scipy", "yaml"}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_name_every_component(kind: str, tmp_path: Path) -> None:
    out = good(embbench(tmp_path, f"list {kind}"))
    for entry in registry.default().entries(kind):
        assert entry.name in out
    assert ("kNN search: " in out) == (kind == "heads")


def test_the_list_of_all_has_every_kind(tmp_path: Path) -> None:
    out = good(embbench(tmp_path, "list"))
    assert [line for line in out.splitlines() if line.strip() in KINDS] == [
        next(line for line in out.splitlines() if line.strip() == kind) for kind in KINDS
    ]
    assert "kang18" in out
    told = good(embbench(tmp_path, "list --why scgpt"))
    assert "best_model.pt" in told
    assert "your file" in told


def test_a_registered_name_that_cannot_be_loaded_is_listed(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("heads: {far: {impl: 'no.such:Head', requires: [no.such]}}", encoding="utf-8")
    assert "needs no.such" in good(embbench(tmp_path, "list heads --registry my.yaml"))


def test_extract_as_the_readme_types_it(tmp_path: Path, session_home: Path) -> None:
    said = embbench(tmp_path, "extract --model go", EMBBENCH_HOME=str(session_home))
    assert "sim_demo" in good(said)
    words = next(line for line in said.out.splitlines() if line.startswith("go ")).split()
    assert words[2:4] == ["100", "gene"]
    table = extract("go")  # the same key from Python
    assert int(words[1]) == len(table.names)
    covered = set(table.names.tolist()) & set(load_dataset("sim_demo").entity_names)
    assert words[4] == f"{len(covered)}/{len(load_dataset('sim_demo').entity_names)}"
    assert list((session_home / "cache" / "go").glob("*.h5"))


def test_fit(small: Path, tmp_path: Path) -> None:
    line = "fit --emb hallmark:8 --head knn:k=3 --dataset sim_small --split unseen_perturbation:2 --metrics l2_notarget"
    said = embbench(tmp_path, line, EMBBENCH_HOME=str(small / "home"))
    out = good(said)
    assert not [w for w in ("l2_notarget", "permuted:hallmark:8", "context_mean", "noise ceiling") if w not in out]
    assert "SIMULATED" in out
    assert "0 skipped, 0 failed: results/sim_small" in said.err
    board = pd.read_csv(tmp_path / "results" / "sim_small" / "leaderboard.csv")
    assert set(board["head"]) == {"knn:k=3", "no_change", "context_mean", "additive"}
    assert board["mean"].notna().all()


def test_a_grid_from_a_file_goes_on_where_it_was(small: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (small / "small" / "predictions").iterdir()}
    again = embbench(small, "grid small.yaml --out small")
    good(again)
    assert f"{len(before)} runs done ({len(before)} were there already), 0 skipped, 0 failed" in again.err
    assert {p: p.stat().st_mtime_ns for p in (small / "small" / "predictions").iterdir()} == before
    other = embbench(tmp_path, f"grid {small / 'small.yaml'} --head ridge:alpha=10", EMBBENCH_HOME=str(small / "home"))
    board = pd.read_csv(tmp_path / "results" / "small" / "leaderboard.csv")  # the folder is named after the file
    assert "knn:k=3" not in good(other) + str(set(board["head"]))


def test_report(small: Path, tmp_path: Path) -> None:
    said = embbench(tmp_path, f"report {small / 'small'} --metrics pearson_all,l2_notarget --svg board.svg")
    out = good(said)
    assert out.index("pearson_all") < out.index("l2_notarget")
    assert (tmp_path / "board.svg").read_text().startswith("<svg")
    page = (small / "small" / "leaderboard.md").read_text()
    assert "# Leaderboard" in page
    assert "hallmark:8" in page
    board = pd.read_csv(small / "small" / "leaderboard.csv")
    assert set(board["metric"]) == {"pearson_all", "l2_notarget"}
    assert {"by_context.csv", "chosen.csv", "timings.csv", "problems.csv"} <= {
        p.name for p in (small / "small").iterdir()
    }


def test_predict_writes_what_it_says(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBBENCH_HOME", str(small / "home"))
    data = load_dataset("sim_small")
    known = sorted(set(extract("hallmark:8", "sim_small").names.tolist()) & set(data.entity_names))
    bare = sorted(set(data.entity_names) - set(known))[0]
    pair = f"{known[0]}+{known[1]}"
    key = run_id(small / "small", "hallmark:8", "knn:k=3")
    line = f"predict --run {key[:6]} --perturbation {known[0]} --perturbation {pair} --perturbation {bare} "
    said = embbench(
        tmp_path, f"{line} --out new/pred.h5ad --results {small / 'small'}", EMBBENCH_HOME=str(small / "home")
    )
    out = good(said)
    assert "cross-validated l2_notarget" in out
    assert "wrote new/pred.h5ad" in said.err
    made = anndata.read_h5ad(tmp_path / "new" / "pred.h5ad")
    contexts = list(data.contexts)
    assert made.var_names.tolist() == data.genes.tolist()
    assert made.obs["perturbation"].tolist() == [p for p in (known[0], pair, bare) for _ in contexts]
    assert made.obs["context"].tolist() == contexts * 3
    assert made.obs["covered"].tolist() == [True] * 4 + [False] * 2
    facts = made.uns["embbench"]
    assert (facts["unit"], facts["dataset"], facts["embedding"], facts["head"], facts["config"]) == (
        "delta", "sim_small", "hallmark:8", "knn:k=3", key,
    )  # fmt: skip
    assert all("cross-validated" in text for text in facts["errors"])
    rows = [contexts.index(c) for c in made.obs["context"]]
    np.testing.assert_allclose(made.layers["expression"], data.baseline[rows] + made.X, rtol=1e-6)
    fallback = [data.effects[data.context == c].mean(axis=0, dtype=np.float64) for c in contexts]
    np.testing.assert_allclose(
        made.X[4:], fallback, atol=1e-6
    )  # a gene without a vector gets the context mean, said so
    assert "no: context mean" in out


def test_predict_finds_the_folder_below_results(small: Path, tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(small)
    key = run_id(small / "small", "random:8", "ridge:alpha=10")
    line = f"predict --run {key} --perturbation TP53 --context context01 --out p.h5ad"
    good(embbench(tmp_path, line, EMBBENCH_HOME=str(small / "home")))
    assert anndata.read_h5ad(tmp_path / "p.h5ad").shape == (1, 80)


def test_explain_names_training_perturbations(small: Path, tmp_path: Path) -> None:
    data = load_dataset("sim_small")
    key = run_id(small / "small", "random:8", "knn:k=3")
    name = data.entity_names[0]
    line = f"explain --run {key} --perturbation {name} --results {small / 'small'}"
    out = good(embbench(tmp_path, line, EMBBENCH_HOME=str(small / "home")))
    rows = [words for words in map(str.split, out.splitlines()) if words and words[-1] in data.contexts]
    rows = [words for words in rows if len(words) == 3]
    assert "held-out prediction" in out
    assert len(rows) == 3 * len(data.contexts)
    np.testing.assert_allclose([float(row[0]) for row in rows], 1 / 3, atol=1e-3)
    used = {condition for _, condition, _ in rows}
    assert used <= set(data.conditions)
    assert name not in {part for condition in used for part in condition.split("+")}


@pytest.mark.parametrize("target", ["heads knn", "heads ridge:alpha=3", "splits unseen_perturbation", "metrics l2_all"])
def test_check_of_what_is_registered(target: str, tmp_path: Path) -> None:
    out = good(embbench(tmp_path, f"check {target}"))
    assert " ok" in out
    assert "broken" not in out


def installed(folder: Path, *words: str) -> Said:
    """The installed command, whose path does not hold the current folder."""
    command = [str(Path(sys.executable).with_name("embbench")), *words]
    if not Path(command[0]).exists():
        pytest.skip("embbench is not installed beside this Python")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"EMBBENCH_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def test_check_of_a_users_class(tmp_path: Path) -> None:
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "my.py").write_text(OWN_HEAD, encoding="utf-8")
    assert " ok" in good(installed(tmp_path, "check", "heads", "mypkg.my:Half"))
    broken = installed(tmp_path, "check", "heads", "mypkg.my:Forgetful")
    assert broken.code == 1
    assert "broken" in broken.out
    assert "head_forgets" in broken.out


def test_cache(tmp_path: Path) -> None:
    good(embbench(tmp_path, "extract --model hallmark:4,hallmark:5,random:3 --dataset sim_small"))
    out = good(embbench(tmp_path, "cache ls"))
    assert [sum(line.startswith(name) for line in out.splitlines()) for name in ("hallmark:4", "random:3")] == [1, 1]
    assert "3 files, 0 damaged" in good(embbench(tmp_path, "cache verify"))
    victim = next((tmp_path / "home" / "cache" / "random").glob("*.h5"))
    content = bytearray(victim.read_bytes())
    content[-40] ^= 1
    victim.write_bytes(content)
    verified = embbench(tmp_path, "cache verify")
    assert verified.code == 1
    assert "3 files, 1 damaged" in verified.out
    assert victim.name in verified.err
    assert "removed 2 files" in good(embbench(tmp_path, "cache prune --yes --name hallmark"))
    assert "removed 0 files" in good(embbench(tmp_path, "cache prune --yes --older-than 1"))
    assert "removed 1 files" in good(embbench(tmp_path, "cache prune --yes"))
    assert "none" in good(embbench(tmp_path, "cache ls"))


def test_a_screen_from_import_to_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen(seed=4).write_h5ad(tmp_path / "s.h5ad")
    said = embbench(tmp_path, IMPORT.replace("mine", "theirs") + " --batch-key batch --size-factor total")
    assert "cells read: 240" in good(said)
    assert "embbench data describe theirs" in said.err
    assert "theirs" in good(embbench(tmp_path, "list datasets"))
    (tmp_path / "few.yaml").write_text(
        "embeddings: {hallmark: {impl: 'embbench.embeddings.gene_sets:GeneSets', argument: dim, "
        "params: {source: hallmark}}}",
        encoding="utf-8",
    )
    with monkeypatch.context() as patch:  # the packaged ones take half a minute to extract
        patch.setattr(names, "registry_of", lambda paths: Registry(tmp_path / "few.yaml"))
        out = good(embbench(tmp_path, "data describe theirs"))
    assert [out.count(word) for word in ("conditions", "hallmark")] >= [1, 1]
    grid = "grid --dataset theirs --split unseen_context --emb hallmark:2 --head knn:1 --permutations 1"
    grid += " --metrics l2_notarget"
    good(embbench(tmp_path, grid))
    board = pd.read_csv(tmp_path / "results" / "theirs" / "leaderboard.csv")
    assert set(board["n_contexts"]) == {2}
    kept = next((tmp_path / "results" / "theirs" / "datasets").glob("*.h5"))
    assert Results(tmp_path / "results" / "theirs").screen(kept.stem).genes.tolist() == GENES


def test_a_traceback_only_with_debug(tmp_path: Path) -> None:
    line = "list --registry none.yaml"
    quiet, loud = embbench_process(tmp_path, line), embbench_process(tmp_path, f"{line} --debug")
    assert (quiet.code, quiet.err.count("\n")) == (2, 1)
    assert "Traceback" in loud.err
    assert "none.yaml" in loud.err


def test_a_mistake_of_ours_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_HEAD, encoding="utf-8")
    (tmp_path / "my.yaml").write_text("datasets: {mine: {impl: 'own:Screen'}}", encoding="utf-8")
    line = ("data", "describe", "mine", "--registry", "my.yaml")
    quiet, loud = installed(tmp_path, *line), installed(tmp_path, *line, "--debug")
    assert quiet.code == 1
    assert "internal error: ZeroDivisionError" in quiet.err
    assert "--debug" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err
