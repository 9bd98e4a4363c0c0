"""Splits to and from PerturBench, cell-load, GEARS and tables: equal folds, official readers, clear refusals."""

from __future__ import annotations

import gzip
import json
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from _grid import FULL, run, write_registry
from oracles import _arc_cases
from typer.testing import CliRunner

from embbench.cli.splits import app
from embbench.core import CellView, Fold, PerturbationDataset, Split, UserError
from embbench.datasets._import import import_h5ad
from embbench.exchange._arc import write as arc
from embbench.exchange._roles import Options, Roles, labels_of
from embbench.exchange.splits import Chosen, computed_split, export_split, import_split, write_split
from embbench.grid.results import Results
from embbench.grid.screens import forget
from embbench.registry import default
from embbench.splits.from_file import FromFile
from embbench.splits.given_column import GivenColumn

EXPECTED = Path(__file__).parent / "oracles" / "expected"
DEVEL = ("expression", "perturbench_norman19_mcfaline23_devel.h5ad")
FILE = {"impl": "embbench.splits.from_file:FromFile", "argument": "path"}


def screen(rows, **more) -> PerturbationDataset:
    """A dataset of (entities, context) pairs."""
    return PerturbationDataset(
        name="toy",
        effects=np.zeros((len(rows), 2), np.float32),
        unit="delta",
        genes=np.array(["TP53", "MYC"]),
        entities=tuple(tuple(sorted(e.split("+"))) for e, _ in rows),
        context=np.array([c for _, c in rows], dtype=object),
        **more,
    )


NAMES = ["KLF1", "MYC", "TP53", "GATA1", "KLF1+MYC", "GATA1+TP53"]
TOY = screen([(n, "K562") for n in NAMES])
TWO = screen([(n, c) for c in ("K562", "RPE1") for n in NAMES])


@pytest.fixture(scope="session")
def devel(shared_data: Path, session_home: Path) -> PerturbationDataset:
    """Norman and McFaline as PerturBench ships them for its tests, imported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBBENCH_HOME", str(session_home))
        options = {"context_keys": ("cell_type",), "min_cells": 5, "etest": False}
        return import_h5ad(shared_data.joinpath(*DEVEL), "devel", "perturbation", ("control",), **options)


def parts(fold: Fold | Roles) -> tuple[tuple[int, ...], ...]:
    """Rows of train, validation and test."""
    if isinstance(fold, Roles):
        return tuple(tuple(np.flatnonzero(fold.role == r).tolist()) for r in ("train", "val", "test"))
    return tuple(tuple(sorted(rows.tolist())) for rows in (fold.train, fold.validation, fold.test))


SPLITS = ["perturbench_transfer", "unseen_perturbation:3", "unseen_context", "unseen_context:few_shot=3"]
SPLITS += ["unseen_combination:2", "covariate_transfer:3"]
CANNOT = {  # what a format refuses of the real screen, and why
    **{(spec, "gears"): "knows no contexts" for spec in SPLITS if spec.partition(":")[0][-4:] in ("sfer", "text")},
    ("unseen_perturbation:3", "arc-toml"): "4 conditions in no set .* --unused train",
}


@pytest.mark.parametrize("form", ["perturbench-csv", "arc-toml", "gears", "columns"])
@pytest.mark.parametrize("spec", SPLITS)
def test_round_trips_on_the_real_screen_keep_every_fold(devel, spec, form, tmp_path):
    chosen = computed_split("devel", spec)
    if reason := CANNOT.get((spec, form)):
        with pytest.raises(UserError, match=reason):
            export_split(chosen, form, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    done = export_split(chosen, form, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in done.files}
    found = import_split([tmp_path / "out"], chosen.data)
    assert sorted(map(parts, found.folds)) == sorted(map(parts, chosen.split.folds))
    table = tmp_path / "folds.tsv"
    write_split(table, chosen.data, found)
    shuffled = chosen.data.rows(np.random.default_rng(0).permutation(len(chosen.data)))
    for data in (chosen.data, shuffled):  # rows are found by name
        split, names = FromFile(str(table)).split(data), np.array(data.conditions, dtype=object) + data.context
        own = np.array(chosen.data.conditions, dtype=object) + chosen.data.context
        told = sorted([sorted(names[list(rows)]) for rows in parts(f)] for f in split.folds)
        assert told == sorted([sorted(own[list(rows)]) for rows in parts(f)] for f in chosen.split.folds)
    if form == "columns":
        for before, after in zip(chosen.split.folds, FromFile(str(table)).split(chosen.data).folds, strict=True):
            assert before.name == after.name
            same = before.groups is None and after.groups is None
            assert same or (np.asarray(before.groups) == after.groups).all()


def test_cells_table_is_the_source_file(devel, shared_data):
    obs = anndata.read_h5ad(shared_data.joinpath(*DEVEL), backed="r").obs
    table = devel.cells.table()
    assert table["name"].tolist() == obs.index.tolist()
    control = (obs.condition == "control").to_numpy()
    assert ((table["row"] == -1) == control).all()
    assert [devel.contexts[c] for c in table["context"]] == obs.cell_type.tolist()
    assert set(table["half"][control].tolist()) == {0, 1}
    assert set(table["half"][~control].tolist()) == {-1}


def test_the_released_perturbench_splitter_is_read_back(devel, shared_data, tmp_path):
    """The answers of PerturBench's own code, as its saved split has them."""
    told = json.loads((EXPECTED / "perturbench_split_official.json").read_text())["parts"]["devel"]
    obs = anndata.read_h5ad(shared_data.joinpath(*DEVEL), backed="r").obs
    draw = np.random.default_rng(0).choice(["train", "val", "test"], len(obs))
    lines = [
        f"{cell},{draw[i] if p == 'control' else told[f'{p}|{c}'] or ''}"
        for i, (cell, p, c) in enumerate(zip(obs.index, obs.condition, obs.cell_type, strict=True))
    ]
    path = tmp_path / "split.csv.gz"
    path.write_bytes(gzip.compress("\r\n".join(["GONE-1,train", *lines, ""]).encode()))
    (fold,), notes = (found := import_split([path], devel)).folds, " ".join(found.notes)
    here = {
        f"{'+'.join(sorted(key.partition('|')[0].split('+')))}|{key.partition('|')[2]}": p for key, p in told.items()
    }
    want = [here[f"{'+'.join(e)}|{c}"] for e, c in zip(devel.entities, devel.context, strict=True)]
    assert fold.role.tolist() == want
    assert "5,961 cells of 5,961 found, 400 of them controls" in notes
    assert "1 cell of the file not in the screen" in notes
    lines[0], lines[1] = (f"{cell},{role}" for cell, role in zip(obs.index[:2], ("train", "test"), strict=True))
    path.write_bytes("\n".join(lines).encode())  # now KLF1+MAP2K6 has cells in two sets
    with pytest.raises(UserError, match=r"found 1 of 60 with several .KLF1.MAP2K6 in k562"):
        import_split([path], devel)


def test_perturbench_files_hold_every_cell_and_roles_for_controls(devel, tmp_path):
    chosen = computed_split("devel", "perturbench_transfer")
    (path,) = export_split(chosen, "perturbench-csv", tmp_path).files
    roles = dict(line.split(",") for line in path.read_text().splitlines())
    table = devel.cells.table()
    assert list(roles) == table["name"].tolist()
    for code in range(len(devel.contexts)):
        own = table["row"] == -1
        halves = [own & (table["context"] == code) & (table["half"] == h) for h in (0, 1)]
        a, b = ([roles[n] for n in table["name"][half]] for half in halves)
        assert set(a) == {"train"}
        assert set(b) == {"val", "test"}
        assert abs(b.count("val") - b.count("test")) <= 1
    assert parts(import_split([path], devel).folds[0]) == parts(chosen.split.folds[0])
    half = devel.rows(np.arange(0, len(devel), 2))  # cells of the other rows belong to no condition now
    assert isinstance(half.cells, CellView)
    assert (import_split([path], half).folds[0].role == import_split([path], devel).folds[0].role[::2]).all()


def test_cell_load_reads_what_we_export(tmp_path):
    """cell-load's own sets (tests/oracles/cell_load_official.py), and our reader of the same files."""
    stored = json.loads((EXPECTED / "cell_load_official.json").read_text(encoding="utf-8"))["cases"]
    data, cases = _arc_cases.screen(), _arc_cases.folds()
    assert set(stored) == set(cases)
    for case, (fold, column, unused) in cases.items():
        options = Options(labels=column, unused=unused, data="small.h5ad")
        roles = Roles.of(fold, len(data))
        text = arc(data, roles, options)[0][".toml"].decode()
        assert text == stored[case]["text"], "the file has changed: run make oracles/cell_load"
        pairs = [f"{x}|{c}" for x, c in zip(labels_of(data, options), data.context, strict=True)]
        told = {pair: part for part, found in stored[case]["parts"].items() for pair in found}
        idle = {c for c in data.contexts if not any(roles.role[data.context == c])}
        want = roles.role.copy()
        if unused == "train":
            want[[not r and c not in idle for r, c in zip(want, data.context, strict=True)]] = "train"
        assert [told.get(pair, "") for pair in pairs] == want.tolist(), case
        (tmp_path / f"{case}.toml").write_text(text, encoding="utf-8")
        again = import_split([tmp_path / f"{case}.toml"], data, options=options).folds[0]
        assert again.role.tolist() == want.tolist(), case


TOML = """
[datasets]
norman = "norman.h5"\r
other = "other/"
[training]
norman = "train"
[zeroshot]
"norman.HepG2" = "test"
[fewshot."norman.RPE1"]
train = ["KLF1"]
val = ["TP53", "MYC", "NOT_THERE"]
test = ["MYC+ctrl", "MYC_KLF1", "non-targeting"]
[fewshot."other.K562"]
test = ["GATA1"]
"""


def test_toml_of_others(tmp_path):
    (tmp_path / "a.toml").write_text(TOML, newline="")
    found = import_split([tmp_path], TWO, options=Options(source="norman"))
    want = ["train"] * 6 + ["train", "test", "val", "train", "test", "train"]
    assert found.folds[0].role.tolist() == want
    said = " ".join(found.notes)
    for note in ("read as arc-toml", "1 context of the file not in the screen (HepG2)", "1 condition in both"):
        assert note in said
    assert "1 label of the file not in the screen (NOT_THERE in RPE1)" in said
    assert "lists called train (RPE1) restrict nothing" in said
    both = import_split([tmp_path], TWO).folds[0].role.tolist()
    assert both == ["train"] * 3 + ["test"] + want[4:]
    with pytest.raises(UserError, match="no dataset 'x'; datasets: norman, other"):
        import_split([tmp_path], TWO, options=Options(source="x"))


def gears(folder: Path, sets, name="norman_simulation_1_0.75.pkl", protocol=4) -> Path:
    (folder / name).write_bytes(pickle.dumps(sets, protocol=protocol))
    return folder / name


@pytest.mark.parametrize("protocol", [2, 4])
def test_gears_files_as_published(protocol, tmp_path):
    """Split and subgroups as GEARS caches them: lists or arrays of labels, ctrl on either side."""
    sets = {
        "test": np.array(["ctrl+GATA1", "TP53+GATA1"], dtype=object),
        "train": ["KLF1+ctrl", "ctrl", "MYC+KLF1", "BAK1+ctrl"],
        "val": ["TP53+ctrl"],
    }
    groups = {"test_subgroup": {"unseen_single": ["ctrl+GATA1"], "combo_seen1": ["TP53+GATA1"]}, "val_subgroup": {}}
    gears(tmp_path, sets, protocol=protocol)
    gears(tmp_path, groups, "norman_simulation_1_0.75_subgroup.pkl", protocol)
    found = import_split([tmp_path], TOY)
    assert found.folds[0].role.tolist() == ["train", "", "val", "test", "train", "test"]
    assert found.folds[0].groups.tolist() == ["", "", "", "unseen_single", "", "combo_seen1"]
    said = " ".join(found.notes)
    assert "1 label not in the screen (BAK1+ctrl)" in said
    assert "1 condition is in no set (MYC in K562)" in said
    write_split(tmp_path / "t.tsv", TOY, found)
    (fold,) = FromFile(str(tmp_path / "t.tsv")).split(TOY).folds
    assert dict(zip(fold.test.tolist(), fold.groups, strict=True)) == {3: "unseen_single", 5: "combo_seen1"}
    (tmp_path / "t.json").write_text(json.dumps({k: list(v) for k, v in sets.items()}), newline="\r\n")
    again = import_split([tmp_path / "t.json"], TOY)
    assert again.folds[0].role.tolist() == found.folds[0].role.tolist()


def test_gears_export_is_a_plain_dict(tmp_path):
    fold = Fold("f", np.array([0, 1, 4]), np.array([3, 5]), np.array([2]), np.array(["one", "two"]))
    files = export_split(Chosen(TOY, Split("given", (fold,), ()), "toy"), "gears", tmp_path).files
    assert [p.name for p in files] == ["toy-f.pkl", "toy-f.json", "toy-f_subgroup.pkl"]
    sets = pickle.loads(files[0].read_bytes())
    assert (
        sets
        == json.loads(files[1].read_text())
        == {
            "train": ["KLF1+MYC", "KLF1+ctrl", "MYC+ctrl", "ctrl"],
            "val": ["TP53+ctrl"],
            "test": ["GATA1+TP53", "GATA1+ctrl"],
        }
    )
    groups = {"test_subgroup": {"one": ["GATA1+ctrl"], "two": ["GATA1+TP53"]}, "val_subgroup": {}}
    assert pickle.loads(files[2].read_bytes()) == groups
    found = import_split([tmp_path], TOY).folds
    assert [(parts(f), f.groups.tolist()[3::2]) for f in found] == [(parts(fold), ["one", "two"])]


def test_columns_of_papers(tmp_path):
    """Fold numbers (GenBio's test_split), columns that say test (sci-Plex), and doses."""
    lines = [
        f"{n},{c},{i % 3 if n != 'MYC' else ''}" for i, (n, c) in enumerate(zip(NAMES * 2, TWO.context, strict=True))
    ]
    path = tmp_path / "obs.csv"
    path.write_text("\ufeffsymbol,cell_line,test_split\r\n" + "\r\n".join([*lines, "A,K562,1"]), encoding="utf-8")
    found = import_split([path], TWO)
    number = np.array([-1 if "+".join(e) == "MYC" else i % 3 for i, e in enumerate(TWO.entities)])
    for k, fold in enumerate(found.folds):
        assert parts(fold)[2] == tuple(np.flatnonzero(number == k))
        assert parts(fold)[0] == tuple(np.flatnonzero((number != k) & (number >= 0)))
    said = " ".join(found.notes)
    assert "1 condition of the file not in the screen (A K562)" in said
    assert "2 conditions are in no set (MYC in K562, MYC in RPE1)" in said
    drugs = screen(
        [("Dasatinib", "A549")] * 2 + [("(+)-JQ1", "A549")], dose=np.array([10.0, 0.1, 10]), entity_type="compound"
    )
    lines = ["drug\tcell_line\tdose\tfold_0\tfold_1", "Dasatinib\tA549\t1e1\ttest\t", "Dasatinib\tA549\t.1\t\ttest"]
    path.write_text("\n".join([*lines, "(+)-JQ1\tA549\t10.0\t\t"]))
    found = import_split([path], drugs)
    assert [parts(f) for f in found.folds] == [((1, 2), (), (0,)), ((0, 2), (), (1,))]
    assert "column fold_0 never says train" in " ".join(found.notes)
    write_split(tmp_path / "t.tsv", drugs, found)
    single = replace(drugs, dose=drugs.dose.astype(np.float32))
    assert [parts(f) for f in FromFile(str(tmp_path / "t.tsv")).split(single).folds] == [parts(f) for f in found.folds]
    for form, reason in (
        ("gears", "split.* at '.'|several roles"),
        ("arc-toml", r"1 of 2 with several roles .Dasatinib in A549"),
    ):
        chosen = Chosen(drugs, FromFile(str(tmp_path / "t.tsv")).split(drugs), "drugs")
        with pytest.raises(UserError, match=reason):
            export_split(chosen, form, tmp_path / "none")


class Bomb:
    def __reduce__(self):
        return (print, ("run",))


BAD = {
    "two.json": ('{"train": ["KLF1+ctrl"], "test": ["ctrl+KLF1"]}', "1 of 6 with several .KLF1 in K562."),
    "odd.json": ('{"train": ["KLF1"], "held": ["MYC"]}', "expected train, val, test or nothing, found 'held'"),
    "kind.json": ('{"train": 3, "test": []}', "lists of labels .* found a int"),
    "cut.json": ('{"train": ["KLF1"', "unreadable"),
    "none.json": ('{"train": ["KLF1"]}', "found 1 and 0"),
    "far.toml": (
        '[training]\na = "train"\n[zeroshot]\n"a.HepG2" = "test"\n',
        "found 6 and 0; .* not in the screen .HepG2",
    ),
    "sub.json": ('{"test_subgroup": {}, "val_subgroup": {}}', "do not say what is trained"),
    "cells.csv": ("c1,train\nc2,test\n", "need the names of single cells"),
    "text.txt": ("once upon a time", "expected a split of PerturBench"),
    "empty.csv": ("", "expected a split of PerturBench"),
    "bad.toml": ('[zeroshot]\n"a.K562" = 3\n', "expected .zeroshot. of text"),
    "zero.toml": ('[zero_shot]\n"a.K562" = "test"\n[training]\na = "train"\n', "found .zero_shot., which cell-load"),
    "few.toml": (
        '[training]\na = "train"\n[fewshot."a.K562"]\nvalid = ["MYC"]\ntests = ["TP53"]\n',
        "called val and test, found tests of a.K562, valid of a.K562",
    ),
    "change.csv": ("gene,fold_change\nKLF1,2\nMYC,0\n", "found fold_change with 0, 2; name it by --column"),
    "deep.json": ('{"train": ' + "[" * 100_000, "set2conditions as pickle or JSON, unreadable"),
    "digits.json": ('{"train": ' + "1" * 5000 + "}", "unreadable: Exceeds the limit"),
    "wide.csv": (f"c1,{'x' * 200_000}\nc2,test\n", "line 1 cannot be read: field larger than field limit"),
    "wide.tsv": (f"condition\tsplit\nKLF1\t{'x' * 200_000}\n", "line 2 cannot be read: field larger"),
    "roles.tsv": ("condition\tsplit\nKLF1\ttrain\nMYC\tmaybe\n", "called fold or split, found split with maybe, train"),
    "short.tsv": ("condition\tsplit\nKLF1\ttrain\nMYC\n", "expected 2 fields per line, found 1 in line 3"),
    "twice.tsv": ("condition\tfold:a\tfold:b\nKLF1\ttest\ttest\nMYC\ttrain\ttrain\n", "1 in several .KLF1"),
    "other.tsv": ("condition\tfold:a\nAAA\ttest\nBBB\ttrain\n", "no line names a condition"),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name, tmp_path):
    (tmp_path / name).write_text(BAD[name][0])
    with pytest.raises(UserError, match=BAD[name][1]):
        import_split([tmp_path / name], TOY)


def test_damaged_files_are_told(tmp_path):
    """A gzip stream that breaks off or has a flipped byte, through both readers; nothing ends in a traceback."""
    path, whole = tmp_path / "t.tsv.gz", gzip.compress(b"condition\tfold:a\nKLF1\ttest\nMYC\ttrain\n" * 50)
    for content in (whole[:12] + bytes([whole[12] ^ 255, whole[13] ^ 255]) + whole[14:], whole[:-9]):
        path.write_bytes(content)
        for read in (lambda: import_split([path], TOY), lambda: FromFile(str(path)).split(TOY)):
            with pytest.raises(UserError, match="cannot be read"):
                read()
    path.write_text(f"condition\tsplit\nKLF1\t{'x' * 200_000}\n")
    with pytest.raises(UserError, match="line 2 cannot be read: field larger"):
        FromFile(str(path)).split(TOY)


def test_columns_are_read_by_name_or_by_request(tmp_path):
    """Only a column called fold or split is taken for fold numbers; the columns that were read are said."""
    path = tmp_path / "t.csv"
    lines = [f"{n},{i % 2},{i % 3},{'train' if n == 'MYC' else i % 2}" for i, n in enumerate(NAMES)]
    path.write_text("\n".join(["gene,fold_change,batch,test_split", *lines]))
    found = import_split([path], TOY)
    said = " ".join(found.notes)
    assert "t.csv: folds of column test_split" in said
    assert "not read as folds: fold_change with 0, 1" in said
    assert [parts(f) for f in found.folds] == [((1, 3, 5), (), (0, 2, 4)), ((0, 1, 2, 4), (), (3, 5))]  # MYC trains
    asked = import_split([path], TOY, options=Options(columns=("batch",)))
    assert [parts(f)[2] for f in asked.folds] == [(0, 3), (1, 4), (2, 5)]
    for name, reason in (("bat", "no column bat; columns: gene, fold_change"), ("gene", "found gene with GATA1")):
        with pytest.raises(UserError, match=reason):
            import_split([path], TOY, options=Options(columns=(name,)))


def test_given_numbers_with_rows_that_always_train():
    values = np.array(["0", "train", "1", "", "0", "1"], dtype=object)
    folds = GivenColumn().split(replace(TOY, covariates={"split": values})).folds
    assert [parts(f) for f in folds] == [((1, 2, 5), (), (0, 4)), ((0, 1, 4), (), (2, 5))]
    with pytest.raises(UserError, match="found 0, validation"):
        GivenColumn().split(replace(TOY, covariates={"split": np.array(["0", "val"] * 3, dtype=object)}))


def test_pickles_never_run(tmp_path, capsys):
    for content in ({"train": Bomb(), "test": []}, OrderedDict(train=["KLF1+ctrl"], test=[Bomb()])):
        with pytest.raises(UserError, match="refused or unreadable"):
            import_split([gears(tmp_path, content)], TOY)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:.*in no fold")
def test_the_table_is_checked(tmp_path):
    path, rows = tmp_path / "t.tsv", "MYC+KLF1,,test\nTP53,,train\nGATA1,,\n"
    path.write_text(f"condition,context,mine\n{rows.replace(',,', ', K562 ,')}NOPE,K562,test\n")
    with pytest.warns(UserWarning, match="t.tsv") as said:
        (fold,) = FromFile(str(path)).split(TOY).folds
    assert (fold.name, *parts(fold)) == ("mine", (2,), (), (4,))
    text = " ".join(str(w.message) for w in said)
    assert "1 line(s) name conditions that dataset 'toy' lacks (NOPE)" in text
    assert "3 condition(s) have no line and are in no fold (KLF1 in K562, MYC in K562, GATA1+TP53 in K562)" in text
    for content, reason in (
        ("condition,mine\nMYC,yes\n", "line 2: expected train, val, test or nothing in mine, found 'yes'"),
        ("condition,mine\nMYC,test\nMYC,train\n", "MYC in K562 has several roles"),
        ("condition,a,b\nMYC,test,test\nKLF1,train,train\n", "found 1 rows tested in several"),
        ("perturbation,a\nMYC,test\n", "expected a header with distinct names, condition"),
        ("condition,a\nMYC,test\n", "has 0 training and 1 test rows"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            FromFile(str(path)).split(TOY)
    with pytest.raises(UserError, match="1 that share theirs"):
        FromFile(str(path)).split(screen([("KLF1", "x"), ("KLF1", "x")]))
    with pytest.raises(UserError, match="cannot be read"):
        FromFile(str(tmp_path / "absent.tsv")).split(TOY)


def test_grid_export_import_and_grid_again(tmp_path, monkeypatch):
    """The verbs on a results folder, and a grid on what they wrote."""
    monkeypatch.chdir(tmp_path)
    own = {} if "file" in {e.name for e in default().entries("splits")} else {"splits": {"file": FILE}}
    paths = write_registry(tmp_path, datasets={"full": {"impl": FULL, "params": {"doses": True}}}, **own)
    axes = {"dataset": ["full"], "emb": ["none"], "head": ["context_mean"], "metrics": ["l2_notarget"]}
    run(Path("res"), paths, split=["covariate_transfer:2"], **axes)
    done = CliRunner().invoke(app, ["export", "res", "--out", "mine", "--registry", paths[0]], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.split() == ["mine/full-covariate_transfer-2.tsv"]
    line = [
        "import",
        "mine/full-covariate_transfer-2.tsv",
        "--dataset",
        "full",
        "--out",
        "t.tsv",
        "--registry",
        paths[0],
    ]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert "2 folds of" in done.stdout
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0  # the same content again
    forget()
    results, _ = run(Path("again"), paths, split=["file:t.tsv"], **axes)
    (old,), (new,) = (list(Path(r, "splits").glob("*.h5")) for r in ("res", "again"))
    before, after = Results(Path("res")).split(old.stem)[0], results.split(new.stem)[0]
    for name, rows in before.items():
        assert (rows == after[name]).all(), name
    Path("kept.tsv").write_text("mine")
    for told, reason in (
        (["export"], "expected a results folder or --dataset"),
        (["export", "res", "--dataset", "x"], "expected one split to export, found 0; choose from --dataset full"),
        (["export", "res", "--fold", "x"], "no fold 'x'; folds: fold0, fold1"),
        (["export", "res", "--format", "gears"], "with several roles"),
        (["export", "res", "--format", "perturbench-csv", "--registry", paths[0]], "names of single cells"),
        (["import", "t.tsv", "--dataset", "full", "--out", "t.tsv"], "is the file to read"),
        ([*line[:5], "kept.tsv", *line[6:]], "kept.tsv is there with another content; name another one with --out"),
    ):
        found = CliRunner().invoke(app, told).exception
        assert isinstance(found, UserError), (told, found)
        assert reason in str(found)
    assert Path("kept.tsv").read_text() == "mine"
    run(Path("res"), paths, split=["covariate_transfer:2"], seed=1, **axes)
    found = CliRunner().invoke(app, ["export", "res"]).exception
    assert "found 2; choose from --dataset full --split covariate_transfer:2 --seed 0, --dataset full" in str(found)
    texts = []
    for seed in "01":
        done = CliRunner().invoke(app, ["export", "res", "--seed", seed, "--out", "mine"], catch_exceptions=False)
        assert done.stdout.split() == [f"mine/full-covariate_transfer-2-seed{seed}.tsv"]
        texts.append(Path(done.stdout.strip()).read_text())
    assert texts[0] == Path("mine/full-covariate_transfer-2.tsv").read_text() != texts[1]
