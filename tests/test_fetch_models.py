"""Weights fetched by the command line: licences, mirrors, switched-off networks, and what a grid and a list say.

A loopback server plays the hub (HF_ENDPOINT) and holds tiny checkpoints under the published names, so that entries of
the packaged registry run unchanged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _cli import Said, embbench
from _server import Site, serving
from _tiny_models import FAMILIES, MODELS, good, tiny_folder, write_toy_registry
from tiny import aido_cell, geneformer, language, scgpt

from embbench.cache.sources import parse
from embbench.cache.weights import is_remote
from embbench.grid.results import Results

COMMIT = "c" * 40
V1, AIDO, ESM, OWN = "ctheodoris/Geneformer", "genbio-ai/AIDO.Cell-3M", "facebook/esm2_t6_8M_UR50D", "lab/own"
GENEFORMER = "geneformer-v1-10m"
MODEL = "Geneformer-V1-10M/model.safetensors"  # of it
SETTINGS = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "EMBBENCH_MIRROR")
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
CELLS = "--level gene --cells 5"
GRID = (
    "grid --dataset toy --split unseen_perturbation:2 --head knn:k=3 --permutations 0 --metrics l2_notarget --out r "
    f"--emb {GENEFORMER}:level=gene:cells=5:device=cpu"
)


def files_of(folder: Path) -> dict[str, bytes]:
    """Files below a folder by relative name; none when it does not exist."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny repositories as published, by ``org/name``; the toy screen's registry file; a gene list; proteins."""
    folder = tmp_path_factory.mktemp("published")
    geneformer.write(folder / V1, GENEFORMER)
    aido_cell.write(folder / AIDO)
    (folder / AIDO / aido_cell.GENE_LIST).rename(folder / aido_cell.GENE_LIST)  # it lies in another repository
    language.esm2(folder / ESM)
    language.proteome(folder / "proteins.fasta")
    scgpt.params(folder / OWN)
    write_toy_registry(folder / "toy.yaml")
    return folder


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SETTINGS, *PROXIES, "EMBBENCH_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def site(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The hub."""
    held = {f"{name}@main": files_of(base / name) for name in (V1, AIDO, ESM, OWN)}
    with serving(Site({}, held, dict.fromkeys(held, COMMIT))) as content:
        monkeypatch.setenv("HF_ENDPOINT", content.url)
        yield content


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every attempt to open a connection or to look up a host, all of which fail."""
    tried: list[object] = []

    def refuse(*address: object, **more: object) -> None:
        tried.append(address)
        raise OSError("the network is closed")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def extract(base: Path, home: Path, words: str, **environment: str) -> Said:
    """``embbench extract`` on the toy screen."""
    line = f"extract --dataset toy --registry {base / 'toy.yaml'} --device cpu {words}"
    return embbench(home, line, **environment)


def grid(base: Path, home: Path, more: str = "") -> tuple[Said, dict[str, str]]:
    """The grid `GRID`, and the reason of every embedding that was skipped in it."""
    said = embbench(home, f"{GRID} --registry {base / 'toy.yaml'} {more}")
    runs = [planned for kept in Results(home / "r").plans()[-1:] for planned in kept["runs"]]
    return said, {str(run["run"].get("embedding")): run["reason"] for run in runs if run.get("reason")}


def one_message(said: Said, *parts: str, lines: int = 1) -> None:
    """Exit code 2 and one message that says all of this, after lines about licence and transfers at most."""
    assert said.code == 2, said
    assert said.out == ""
    before, found, message = said.err.partition("embbench: ")
    assert found, said.err
    progress = ("weights under ", "fetching ", "copying ")
    assert all(any(word in line for word in progress) for line in before.splitlines()), said.err
    assert len(message.strip().splitlines()) == lines, said.err
    assert "embbench: " not in message
    assert "Traceback" not in said.err
    for part in parts:
        assert part in message, (part, message)


LICENCE = 4  # lines that show a licence and what it restricts


def root_of(home: Path, checkpoint: str) -> Path:
    """Where the files of a checkpoint lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBBENCH_HOME", str(home / "home"))
        return parse(checkpoint).root


def weights(home: Path) -> list[str]:
    """Files of weights below the home, whole or not; locks apart."""
    return sorted(name for name in files_of(home / "home" / "weights") if "/.locks/" not in f"/{name}")


def listed(home: Path, name: str) -> dict[str, str]:
    """The row of ``embbench list embeddings`` about a model, without the spaces at which its cells are folded."""
    lines = embbench(home, "list embeddings").out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
    end = next((i for i in range(start + 1, len(lines)) if lines[i][:1] != " "), len(lines))
    head = next(line for line in reversed(lines[:start]) if line.startswith("name "))
    places = sorted((head.index(f" {column} "), column) for column in ("dim", "information", "state", "licence"))
    stops = [place for place, _ in places[1:]] + [len(head) + 1]
    cells = {c: [line[at:stop] for line in lines[start:end]] for (at, c), stop in zip(places, stops, strict=True)}
    return {column: "".join(parts).replace(" ", "") for column, parts in cells.items()}


# ---- the hub ------------------------------------------------------------------------------------------------------
def test_public_weights_are_fetched_once_and_verified(base: Path, site: Site, tmp_path: Path) -> None:
    said = extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}")
    assert said.code == 0, said
    assert "weights under Apache-2.0" in said.err
    assert f"of {V1} at {COMMIT[:12]} from the hub" in said.err
    wanted, root = files_of(base / V1), root_of(tmp_path, f"hf:{V1}@main")
    record = json.loads((root / "fetched.json").read_text(encoding="utf-8"))
    assert record["commit"] == COMMIT
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in wanted.items()}
    assert {name: facts["sha256"] for name, facts in record["files"].items()} == hashes
    assert files_of(root) == wanted | {"fetched.json": (root / "fetched.json").read_bytes()}
    asked = len(site.asked)
    assert asked > 0
    again = extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}")
    assert (again.code, again.out) == (0, said.out)
    assert "fetching" not in again.err
    other = extract(base, tmp_path, f"--model {GENEFORMER} --level static")
    assert other.code == 0, other
    assert len(site.asked) == asked, "it was asked for again"


def test_a_fetched_file_that_changed_is_refused(base: Path, site: Site, tmp_path: Path) -> None:
    assert extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}").code == 0
    path = root_of(tmp_path, f"hf:{V1}@main") / MODEL
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    one_message(
        extract(base, tmp_path, f"--model {GENEFORMER} --level static"), str(path), "changed since it was fetched"
    )
    path.unlink()
    assert extract(base, tmp_path, f"--model {GENEFORMER} --level static").code == 0
    assert path.read_bytes() == files_of(base / V1)[MODEL]


def test_a_checkpoint_named_on_the_line(base: Path, site: Site, tmp_path: Path) -> None:
    said = extract(base, tmp_path, f"--model scgpt --checkpoint hf:{OWN}@main {CELLS}")
    assert said.code == 0, said
    assert "best_model.pt" in {path.rpartition("/")[2] for _, path, *_ in site.asked}
    site.asked.clear()
    assert extract(base, tmp_path, f"--model scgpt --checkpoint hf:{OWN}@main --level static").code == 0
    assert site.asked == []


def test_an_encoder(base: Path, site: Site, tmp_path: Path) -> None:
    words = f"extract --dataset toy --registry {base / 'toy.yaml'} --model esm2-8m --source {base / 'proteins.fasta'}"
    assert "ready" not in listed(tmp_path, "esm2-8m")["state"]
    said = embbench(tmp_path, words)
    assert said.code == 0, said
    assert set(files_of(base / ESM)) == {path.rpartition("/")[2] for _, path, *_ in site.asked}
    site.asked.clear()
    assert embbench(tmp_path, words).code == 0
    assert site.asked == []


def moved(site: Site) -> None:
    del site.hub[f"{V1}@main"][MODEL]


def gated(site: Site) -> None:
    site.errors[f"/{V1}/resolve/main/Geneformer-V1-10M/config.json"] = (403, "GatedRepo")


def gone(site: Site) -> None:
    del site.hub[f"{V1}@main"]


def busy(site: Site) -> None:
    site.errors[f"/{V1}/resolve/main/Geneformer-V1-10M/config.json"] = (500, "")


HUB_FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "moved": (moved, f"the repository has no file {MODEL}"),
    "gated": (gated, "access on request only"),
    "gone": (gone, "no such repository"),
    "busy": (busy, "cannot be fetched"),
}


@pytest.mark.parametrize("case", HUB_FAULTS)
def test_a_hub_that_does_not_serve(case: str, base: Path, site: Site, tmp_path: Path) -> None:
    spoil, says = HUB_FAULTS[case]
    spoil(site)
    one_message(extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}"), V1, says)
    assert weights(tmp_path) == []
    assert files_of(tmp_path / "home" / "cache" / GENEFORMER) == {}


# ---- licences -----------------------------------------------------------------------------------------------------
def test_restricted_weights_are_accepted_once(base: Path, site: Site, tmp_path: Path) -> None:
    (tmp_path / "home" / "weights").mkdir(parents=True)
    shutil.copy(base / aido_cell.GENE_LIST, tmp_path / "home" / "weights")
    refused = extract(base, tmp_path, f"--model aido-cell-3m {CELLS}")
    entry = FAMILIES["aido_cell"]
    one_message(refused, entry.licence, entry.restricted, "nothing was fetched", "--accept-licence", lines=LICENCE)
    assert site.asked == []
    assert weights(tmp_path) == [aido_cell.GENE_LIST]
    assert "tobeaccepted" in listed(tmp_path, "aido-cell-3m")["licence"]
    assert "--accept-licence" in embbench(tmp_path, "list --why aido-cell-3m").out
    accepted = extract(base, tmp_path, f"--model aido-cell-3m {CELLS} --accept-licence")
    assert accepted.code == 0, accepted
    assert entry.licence in accepted.err
    asked = len(site.asked)
    free = extract(base, tmp_path, f"--model aido-cell-3m {CELLS}")
    assert (free.code, free.out) == (0, accepted.out)
    assert len(site.asked) == asked
    shutil.rmtree(root_of(tmp_path, f"hf:{AIDO}@main"))
    assert extract(base, tmp_path, f"--model aido-cell-3m {CELLS}").code == 0  # fetched anew, not asked again
    assert len(site.asked) > asked
    asked = len(site.asked)
    other = extract(base, tmp_path, f"--model aido-cell-10m {CELLS}")
    one_message(other, "aido-cell-10m", "--accept-licence", lines=LICENCE)
    assert len(site.asked) == asked, "one model's licence was taken for another's"


# ---- without network ----------------------------------------------------------------------------------------------
def mirror(base: Path, family: str, folder: Path) -> None:
    """What `--mirror` documents: ``org/name/revision/file``, and the last name of an address."""
    good(base, family)
    held = {path.name: path for path in sorted(tiny_folder(base, family).rglob("*")) if path.is_file()}
    own = Path(good(base, family)["checkpoint"])
    held |= {path.name: path for path in own.rglob("*") if path.is_file()}
    for where, names in FAMILIES[family].make().fetched():
        source = parse(where)
        folder.mkdir(exist_ok=True)
        if source.archive:
            with tarfile.open(folder / source.file, "w:gz") as archive:
                for name in names:
                    archive.add(held[Path(name).name], name)
            continue
        for name in names or (source.file,):
            stem = f"{source.repo}/{source.revision}/{source.name(name)}" if source.repo else source.file
            (folder / stem).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(held[Path(name).name], folder / stem)


def remote(family: str) -> bool:
    """Whether the family's entry says where its weights can be fetched."""
    made = FAMILIES[family].make()
    return made.checkpoint is not None and is_remote(made.checkpoint)


FETCHABLE = [family for family in MODELS if remote(family)]


@pytest.mark.parametrize("family", FETCHABLE)
def test_a_mirror_needs_no_network(family: str, base: Path, tmp_path: Path, opened: list[object]) -> None:
    """The entry as it is packaged, its files from a folder; then without the folder."""
    entry = FAMILIES[family]
    mirror(base, family, tmp_path / "mirror")
    words = f"--model {entry.name} {CELLS}"
    if entry.restricted:
        one_message(extract(base, tmp_path, f"{words} --mirror mirror"), "--accept-licence", lines=LICENCE)
    said = extract(base, tmp_path, f"{words} --mirror mirror --accept-licence")
    assert said.code == 0, said
    shutil.rmtree(tmp_path / "mirror")
    again = extract(base, tmp_path, f"--model {entry.name} --level static")
    assert again.code == 0, again
    assert extract(base, tmp_path, words).out == said.out
    assert opened == []
    assert listed(tmp_path, entry.name)["state"] == "ready"


def test_a_mirror_in_the_environment(base: Path, tmp_path: Path, opened: list[object]) -> None:
    mirror(base, "geneformer", tmp_path / "mirror")
    said = extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}", EMBBENCH_MIRROR="mirror", HF_HUB_OFFLINE="1")
    assert said.code == 0, said
    assert opened == []


def test_a_mirror_that_lacks_a_file(base: Path, tmp_path: Path, opened: list[object]) -> None:
    mirror(base, "geneformer", tmp_path / "mirror")
    (tmp_path / "mirror" / V1 / "main" / MODEL).unlink()
    said = extract(base, tmp_path, f"--model {GENEFORMER} {CELLS} --mirror mirror")
    one_message(said, "mirror", f"expected {V1}/main/{MODEL} in it")
    assert opened == []


def test_no_network(base: Path, tmp_path: Path, opened: list[object]) -> None:
    one_message(extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}"), V1, "cannot be fetched", "--checkpoint")
    assert opened, "vacuous: connections are not seen"
    assert weights(tmp_path) == []


def test_the_hub_switched_off(base: Path, site: Site, tmp_path: Path) -> None:
    words = f"--model {GENEFORMER} {CELLS}"
    said = extract(base, tmp_path, words, HF_HUB_OFFLINE="1")
    one_message(
        said, f"hf:{V1}@main", "model.safetensors", "HF_HUB_OFFLINE forbids fetching", "--checkpoint", "--mirror"
    )
    assert site.asked == []
    assert weights(tmp_path) == []
    assert extract(base, tmp_path, words).code == 0
    site.asked.clear()
    assert extract(base, tmp_path, words, HF_HUB_OFFLINE="1").code == 0
    assert extract(base, tmp_path, f"--model {GENEFORMER} --level static", HF_HUB_OFFLINE="1").code == 0
    assert site.asked == []


# ---- grid and list ------------------------------------------------------------------------------------------------
def test_a_grid_skips_what_was_not_fetched(base: Path, tmp_path: Path, opened: list[object]) -> None:
    said, reasons = grid(base, tmp_path, "--baselines")
    assert said.code == 0, said
    assert opened == [], "a grid fetches nothing"
    assert weights(tmp_path) == []
    (embedding,) = reasons
    assert embedding.startswith(GENEFORMER)
    assert "model.safetensors" in reasons[embedding]
    assert "embbench extract" in reasons[embedding]
    assert "2 skipped, 0 failed" in said.err  # one run per fold
    shown = "".join(said.out.split())
    assert GENEFORMER in shown
    assert "skipped" in shown


def test_a_grid_runs_what_was_fetched(base: Path, site: Site, tmp_path: Path) -> None:
    said, reasons = grid(base, tmp_path)
    assert reasons
    assert site.asked == []
    spec = f"{GENEFORMER}:level=gene:cells=5:device=cpu"
    assert extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}").code == 0
    asked = len(site.asked)
    said, reasons = grid(base, tmp_path)
    assert said.code == 0, said
    assert reasons == {}
    assert "0 skipped, 0 failed" in said.err
    done = [r for kept in Results(tmp_path / "r").plans()[-1:] for r in kept["runs"]]
    assert any(r["run"].get("embedding") == spec and Results(tmp_path / "r").done(r["key"]) for r in done)
    assert len(site.asked) == asked


def test_the_list_says_what_is_there(base: Path, site: Site, tmp_path: Path) -> None:
    before = listed(tmp_path, GENEFORMER)
    assert before["state"] == "fetch"
    told = embbench(tmp_path, f"list --why {GENEFORMER}").out
    assert "missing: config.json, model.safetensors (2 of 2 files)" in told
    assert f"embbench extract --model {GENEFORMER}" in told
    assert site.asked == [], "a list fetches nothing"
    assert extract(base, tmp_path, f"--model {GENEFORMER} {CELLS}").code == 0
    site.asked.clear()
    assert listed(tmp_path, GENEFORMER) == before | {"state": "ready"}
    assert listed(tmp_path, "geneformer-v1-30m")["state"] == "fetch"
    (root_of(tmp_path, f"hf:{V1}@main") / MODEL).unlink()
    assert listed(tmp_path, GENEFORMER)["state"] == "fetch"
    assert "missing: model.safetensors (1 of 2 files)" in embbench(tmp_path, f"list --why {GENEFORMER}").out
    assert site.asked == []
