"""What is special about single files of counts: plasmid tags, renamed drugs, genes without id, recipes, refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from _published import GENES, cells, h5ad, placed
from tiny.scperturb import MINIS, SINGLES, released, turns

from embbench.core import PerturbationDataset, UserError
from embbench.datasets.cells_file import CellsFile
from embbench.registry import default

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))


def made(name: str, folder: Path, files: dict[str, bytes] | None = None, **more: object) -> object:
    """The reader of an entry on its miniature, or on other files."""
    params = placed(folder, {name: MINIS[name] if files is None else lambda: files})[f"datasets/{name}"]
    return default().get("datasets", name).make(**params, **more)


def load(name: str, folder: Path, files: dict[str, bytes] | None = None, **more: object) -> PerturbationDataset:
    return made(name, folder, files, **more).load()


def told(data: PerturbationDataset) -> str:
    return "\n".join(data.meta["import_report"])


def test_plasmid_tags_are_cut_and_control_guides_are_controls(tmp_path: Path) -> None:
    data = load("adamson16_pilot", tmp_path / "a")
    assert set(data.entity_names) == {"SNAI1", "SPI1", "BHLHE40", "EP300"}
    assert "BHLHE40_pDS258 -> BHLHE40" in told(data)
    assert "cells without a perturbation label, dropped: 12" in told(data), "* is no guide"
    assert data.meta["import_counts"]["control_labels"] == 2
    data = load("adamson16_epistasis", tmp_path / "b")
    known = {("ATF6",), ("EIF2AK3",), ("ERN1",), ("EIF2AK3", "ERN1"), ("ATF6", "EIF2AK3"), ("ATF6", "EIF2AK3", "ERN1")}
    assert set(data.entities) == known
    assert "Gal4-4(mod)" not in load("adamson16_upr", tmp_path / "c").entity_names


def test_guides_of_one_gene_are_one_perturbation(tmp_path: Path) -> None:
    data = load("papalexi21_scperturb", tmp_path)
    assert set(data.entity_names) == {"ATF2", "IFNGR2", "IFNGR1", "STAT1", "CUL3", "JAK2"}


def test_drugs_are_renamed_and_genes_without_an_id_dropped(tmp_path: Path) -> None:
    data = load("sciplex3_scperturb", tmp_path)
    assert {"JQ1", "ENMD-2076"} <= set(data.entity_names)
    assert data.contexts == ("A549", "K562")
    assert sorted(set(data.dose)) == [1000.0, 10000.0]
    assert len(data.genes) == len(GENES)
    assert "genes that are not ENSG..., dropped: 1" in told(data)
    assert "repeats" in told(data)


def test_frangieh_has_three_contexts_with_controls_of_their_own(tmp_path: Path) -> None:
    data = load("frangieh21_scperturb", tmp_path)
    assert data.contexts == ("Co-culture", "Control", "IFNγ")
    assert not np.allclose(data.baseline[0], data.baseline[1])


def test_effects_are_those_of_the_counts(tmp_path: Path) -> None:
    """Against numpy: matching by batch with the weights n_p n_c / (n_p + n_c), all controls shared."""
    data = load("replogle22_rpe1_scperturb", tmp_path, controls="shared")
    counts, labels = cells(SINGLES)
    batch, labels = np.arange(len(labels)) % 3 // 2, np.array(labels)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    row = data.conditions.index("TP53")
    parts, weights = [], []
    for b in (0, 1):
        own, control = ((labels == name) & (batch == b) for name in ("TP53", "control"))
        parts.append(values[own].mean(axis=0) - values[control].mean(axis=0))
        weights.append(own.sum() * control.sum() / (own.sum() + control.sum()))
    np.testing.assert_allclose(data.effects[row], np.average(parts, axis=0, weights=weights), atol=2e-6)


def test_recipes_keep_and_say(tmp_path: Path) -> None:
    whole = load("norman19_scperturb", tmp_path / "a")
    singles = load("norman19_scperturb", tmp_path / "b", recipe="cole2026")
    assert len(whole) - len(singles) == 2
    assert all(len(row) == 1 for row in singles.entities)
    assert "sets=singles dropped 2 conditions (CDKN1A+EP300, MDM2+TP53)" in told(singles)
    assert singles.meta["controls"] == "shared"
    assert singles.meta.get("digest") is None, "another screen than the imported one"
    highest = load(
        "sciplex3_scperturb", tmp_path / "c", recipe="perturbench", recipes={"perturbench": {"doses": "max"}}
    )
    assert set(highest.dose) == {10000.0}
    own = default().parse("datasets", "norman19:recipe=cole2026:controls=halves")
    params = placed(tmp_path / "e", {"norman19_scperturb": MINIS["norman19_scperturb"]})["datasets/norman19_scperturb"]
    data = own.make(**params).load()
    assert data.meta["controls"] == "halves", "what is given beside a recipe wins"
    assert "deviates, controls=halves (the recipe: shared)" in told(data)
    with pytest.raises(UserError, match=r"recipe must be one of embbench, perturbench, cole2026, found 'other'"):
        load("norman19_scperturb", tmp_path / "d", recipe="other")


def zscored() -> dict[str, bytes]:
    counts, labels = cells(SINGLES)
    obs = {"perturbation": labels, "cell_line": ["K562"] * len(labels), "gemgroup": [1] * len(labels)}
    name = "NormanWeissman2019_filtered.h5ad"
    return {name: h5ad(counts - counts.mean(axis=0), obs, {"ensemble_id": GENES}, GENES)}


def logs() -> dict[str, bytes]:
    counts, labels = cells(SINGLES)
    obs = {"perturbation": labels, "cell_line": ["K562"] * len(labels), "gemgroup": [1] * len(labels)}
    name = "NormanWeissman2019_filtered.h5ad"
    return {name: h5ad(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 9e3), obs, {"ensemble_id": GENES}, GENES)}


def without_controls() -> dict[str, bytes]:
    labels = {"perturbation": lambda n, names: names, "cell_line": turns("K562"), "gemgroup": turns(1)}
    return dict(released("norman19_scperturb", GENES[:4], var={"ensemble_id": GENES}, **labels))


def without_batches() -> dict[str, bytes]:
    labels = {"perturbation": lambda n, names: names, "cell_line": turns("K562")}
    return dict(released("norman19_scperturb", SINGLES, var={"ensemble_id": GENES}, **labels))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (zscored, r"expected counts as published.*negative values"),
        (logs, r"expected counts as published, found lognorm"),
        (without_controls, r"expected the control 'control' among the labels, found 4 labels"),
        (without_batches, r"expected the column gemgroup for batch_key, as published"),
    ],
)
def test_other_files_are_refused(files: object, message: str, tmp_path: Path) -> None:
    reader = made("norman19_scperturb", tmp_path, files())
    for act in (reader.check, reader.load):
        with pytest.raises(UserError, match=message):
            act()


def test_means_over_batches_need_batches(tmp_path: Path) -> None:
    columns = {"perturbation": lambda n, names: names, "cell_line": turns("RPE1")}
    files = dict(released("replogle22_rpe1_scperturb", SINGLES, var={"ensembl_id": GENES}, **columns))
    with pytest.raises(UserError, match="means over batches, found no batch column"):
        load("replogle22_rpe1_scperturb", tmp_path, files, recipe="cole2026")


def test_an_option_that_does_not_exist_is_told_before_anything_is_fetched() -> None:
    with pytest.raises(UserError, match="norman19_scperturb: there is no option 'foo'"):
        default().parse("datasets", "norman19:foo=1").make()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("strip", "(", "strip must be a regular expression, got '\\('"),
        ("strip", 3, "strip must be text, got 3"),
        ("control", 3, "control must be a name or a list of names, found 3; a name that is a number needs quotes"),
        ("context_keys", 3, "context_keys must be a name or a list of names, found 3"),
        ("batch_key", 3, "batch_key must be a column, .* found 3"),
        ("batch_key", [], r"batch_key must be a column, .* found \[\]"),
        ("gene_key", 3, "gene_key must be a column, .* found 3"),
        ("labels", [], r"labels must be a name or a list of names, got \[\]"),
        ("labels", 3, "labels must be a name or a list of names, got 3"),
        ("rename", {"MDM2": 3}, "rename must map names to names, got 'MDM2': 3"),
        ("constants", ["a"], "constants must map names to names, got"),
        ("number", 3, "number must be text, got 3"),
        ("keep_genes", 3, "keep_genes must be text, got 3"),
        ("seed", "x", "seed must be a whole number, got 'x'"),
        ("select", 3, "select must map columns to a value or values, got 3"),
    ],
)
def test_values_that_are_none_are_refused(
    option: str, value: object, message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "norman"  # the same files for all of these
    with pytest.raises(UserError, match=message):
        load("norman19_scperturb", folder, **{option: value})


def test_what_is_not_fetched_says_how(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"norman19_scperturb.*not fetched.*embbench data fetch norman19_scperturb"):
        default().get("datasets", "norman19").make().load()


def test_the_page_is_that_of_the_registry() -> None:
    import datasets_page

    text = (Path(__file__).resolve().parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert text == datasets_page.page(default()), "run python bench/datasets_page.py"


def two_files(folder: Path, first: str, second: str) -> CellsFile:
    """Two files of one screen, whose batches stand in columns of these names ('' none); one gene name twice in one."""
    for i, name in enumerate((first, second)):
        counts, labels = cells(SINGLES, seed=i)
        obs = {"perturbation": labels, "cell_line": [f"line{i}"] * len(labels)}
        genes = [*GENES[:-1], GENES[0]] if i else list(GENES)
        batches = {} if not name else {name: [f"b{j % 4 // 3}" for j in range(len(labels))]}
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.h5ad").write_bytes(
            h5ad(counts, obs | batches, {"id": genes}, [f"row{j}" for j in range(len(genes))])
        )
    options = {
        "control": "control",
        "context_keys": "cell_line",
        "batch_key": ["gem_group", "batch", None],
        "gene_key": "id",
    }
    return CellsFile("two", [{"name": "0.h5ad"}, {"name": "1.h5ad"}], root=str(folder), cells="none", **options)


def test_files_that_name_a_column_differently_keep_it(tmp_path: Path, fresh_home: Path) -> None:
    alike, apart = (
        two_files(tmp_path / name, *names).load()
        for name, names in {"a": ("batch", "batch"), "b": ("batch", "gem_group")}.items()
    )
    np.testing.assert_array_equal(alike.effects, apart.effects)
    assert alike.meta["batch_key"] == apart.meta["batch_key"] == "batch"
    assert "repeats or is empty, dropped: 2 columns (TP53)" in told(alike), "one of 29, as of a single file"
    assert len(alike.genes) == len(GENES) - 2
    with pytest.raises(UserError, match=r"in every file or in none, found 'batch' in 0, none in 1; .*batch_key=null"):
        two_files(tmp_path / "c", "batch", "").load()


def test_a_recipe_may_name_a_dose(tmp_path: Path) -> None:
    low = load("sciplex3_scperturb", tmp_path / "a", recipe="r", recipes={"r": {"doses": 1000}})
    assert set(low.dose) == {1000.0}
    assert "doses=1000 (1000 of 1000, 10000)" in told(low)
    with pytest.raises(UserError, match="keeps none of"):
        load("sciplex3_scperturb", tmp_path / "b", recipe="r", recipes={"r": {"doses": 5.0}})
