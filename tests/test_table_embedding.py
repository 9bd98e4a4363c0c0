"""Every format of precomputed vectors: round trips, published files, and input that must be refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from embbench.cache.pickles import read_pickle
from embbench.core import UserError
from embbench.embeddings.table import Table

NAMES = ["TP53", "MYC", "NA", "HLA-A"]
MATRIX = np.array([[1.5, -2.0, 0.25], [0.0, 1e-3, 4.0], [7.0, 8.0, 9.0], [1.0, 1.0, 2.0]], dtype=np.float32)


def as_dict() -> dict[str, np.ndarray]:
    return dict(zip(NAMES, MATRIX, strict=True))


def frame() -> pd.DataFrame:
    return pd.DataFrame(MATRIX, index=NAMES, columns=["d0", "d1", "d2"])


def write_npz(path: Path) -> None:
    np.savez(path, names=np.array(NAMES), matrix=MATRIX)


def write_odd_npz(path: Path) -> None:
    np.savez(path, who=np.array(NAMES), emb=MATRIX, other=MATRIX * 2, width=np.array(3))


def write_csv(path: Path) -> None:
    frame().to_csv(path, index_label="gene")


def write_r_csv(path: Path) -> None:
    lines = path_lines(",")
    path.write_text("\n".join(["d0,d1,d2", *lines]))


def path_lines(separator: str) -> list[str]:
    return [separator.join([n, *map(str, row)]) for n, row in zip(NAMES, MATRIX.tolist(), strict=True)]


def write_tsv_gz(path: Path) -> None:
    frame().to_csv(path, sep="\t", compression="gzip")


def write_column_csv(path: Path) -> None:
    frame().assign(symbol=NAMES)[["d0", "symbol", "d1", "d2"]].to_csv(path, index=False)


def write_word2vec(path: Path) -> None:
    path.write_text("\n".join(["4 3", *path_lines(" ")]) + "\n")


def write_glove(path: Path) -> None:
    path.write_text("\n".join(path_lines(" ")) + "\n")


def write_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("names", data=np.array(NAMES, dtype=object), dtype=h5py.string_dtype())
        file["matrix"] = MATRIX


def write_store(path: Path) -> None:
    from embbench.cache.store import write_h5 as write

    write(path, "embedding", {"names": np.array(NAMES), "matrix": MATRIX.astype(np.float16)}, {"key": {}})


def write_h5ad(path: Path) -> None:
    import anndata
    from scipy import sparse

    table = anndata.AnnData(sparse.csr_matrix(MATRIX), obs=pd.DataFrame({"alias": list("abcd")}, index=NAMES))
    table.obsm["X_emb"] = MATRIX * 2
    table.write_h5ad(path)


def write_pt(path: Path) -> None:
    import torch

    torch.save({name: torch.tensor(row) for name, row in as_dict().items()}, path)


def write_pt_pair(path: Path) -> None:
    import torch

    torch.save({"names": NAMES, "matrix": torch.tensor(MATRIX, dtype=torch.bfloat16)}, path)


def write_pkl(path: Path) -> None:
    path.write_bytes(pickle.dumps({name: row.tolist() for name, row in as_dict().items()}))


def write_numpy_pkl(path: Path) -> None:
    path.write_bytes(pickle.dumps(OrderedDict(as_dict()), protocol=2))


GOOD: list[tuple[str, Callable[[Path], object], dict[str, str], float]] = [
    ("a.npz", write_npz, {}, 0),
    ("b.npz", write_odd_npz, {"key": "emb", "names": "who"}, 0),
    ("b2.npz", write_odd_npz, {}, 0),
    ("a.csv", write_csv, {}, 1e-6),
    ("r.csv", write_r_csv, {}, 1e-6),
    ("c.csv", write_column_csv, {"names": "symbol"}, 1e-6),
    ("a.tsv.gz", write_tsv_gz, {}, 1e-6),
    ("a.parquet", lambda path: frame().to_parquet(path), {}, 0),
    ("b.parquet", lambda path: frame().reset_index(names="gene").to_parquet(path), {}, 0),
    ("a.vec", write_word2vec, {}, 1e-6),
    ("a.txt", write_glove, {}, 1e-6),
    ("a.h5", write_h5, {}, 0),
    ("store.h5", write_store, {}, 1e-3),
    ("a.h5ad", write_h5ad, {}, 0),
    ("a.pt", write_pt, {}, 0),
    ("b.pt", write_pt_pair, {}, 1e-2),
    ("a.pkl", write_pkl, {}, 0),
    ("b.pkl", write_numpy_pkl, {}, 0),
]


@pytest.mark.parametrize(("name", "write", "options", "tolerance"), GOOD, ids=[g[0] for g in GOOD])
def test_round_trip(
    tmp_path: Path, name: str, write: Callable[[Path], object], options: dict[str, str], tolerance: float
) -> None:
    write(tmp_path / name)
    table = Table(str(tmp_path / name), **options).compute(None, None)
    assert table.names.tolist() == NAMES
    assert table.matrix.dtype == np.float32
    assert np.allclose(table.matrix, MATRIX, rtol=tolerance, atol=0)
    some = Table(str(tmp_path / name), **options).compute(["MYC", "nobody"], None)
    assert some.names.tolist() == ["MYC"]


def test_h5ad_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    write_h5ad(path)
    table = Table(str(path), key="X_emb", names="alias", entity="compound").compute(None, None)
    assert table.names.tolist() == list("abcd")
    assert table.entity == "compound"
    assert np.array_equal(table.matrix, MATRIX * 2)
    with pytest.raises(UserError, match=r"obsm 'nope', found X_emb"):
        Table(str(path), key="nope").compute(None, None)
    with pytest.raises(UserError, match="found alias"):
        Table(str(path), names="nope").compute(None, None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_hold_plain_data(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    data = {"a": np.arange(3.0), "b": [np.float32(1), 2], "c": (b"x", {1, 2}), "d": np.array(["u", "v"], dtype=object)}
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    again = read_pickle(path)
    assert np.array_equal(again["a"], data["a"])
    assert again["b"] == data["b"]
    assert again["c"] == data["c"]
    assert again["d"].tolist() == ["u", "v"]


class Evil:
    """Touches a file when it is unpickled by pickle itself."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def evil_pickles(flag: Path) -> dict[str, bytes]:
    calls = {
        "system": Evil(os.system, f"touch {flag}"),
        "eval": Evil(eval, f"open({str(flag)!r}, 'w')"),
        "open": Evil(open, str(flag), "w"),
        "getattr": Evil(getattr, flag, "touch"),
        "path": Evil(Path.touch, flag),
    }
    dumped = {name: pickle.dumps({"TP53": evil}) for name, evil in calls.items()}
    dumped["dotted"] = b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93."
    dumped["load"] = b"cnumpy\nload\n(S'x'\ntR."
    dumped["runstring"] = b"cnumpy.testing\nrunstring\n(S'1'\n}tR."
    return dumped


@pytest.mark.parametrize("name", ["system", "eval", "open", "getattr", "path", "dotted", "load", "runstring"])
def test_malicious_pickle_is_refused_unrun(tmp_path: Path, name: str) -> None:
    flag = tmp_path / "owned"
    path = tmp_path / "evil.pkl"
    path.write_bytes(evil_pickles(flag)[name])
    with pytest.raises(UserError, match="refused"):
        Table(str(path)).compute(None, None)
    assert not flag.exists()


def test_the_malicious_pickle_bites(tmp_path: Path) -> None:
    flag = tmp_path / "owned"
    pickle.loads(evil_pickles(flag)["path"])
    assert flag.exists()


def test_malicious_torch_and_npz_are_refused(tmp_path: Path) -> None:
    import torch

    flag = tmp_path / "owned"
    torch.save({"TP53": Evil(Path.touch, flag)}, tmp_path / "evil.pt")
    np.savez(tmp_path / "evil.npz", names=np.array(NAMES), matrix=np.array([Evil(Path.touch, flag)], dtype=object))
    for name in ("evil.pt", "evil.npz"):
        with pytest.raises(UserError, match=name):
            Table(str(tmp_path / name)).compute(None, None)
    assert not flag.exists()


BAD: list[tuple[str, bytes, str]] = [
    ("x.h5ad", b"just text", "AnnData file"),
    ("x.h5", b"just text", "HDF5 file"),
    ("x.npz", b"just text", "npz file"),
    ("x.npz", b"PK\x03\x04cut", "npz file"),
    ("x.parquet", b"just text", "parquet table"),
    ("x.pt", b"just text", "torch file"),
    ("x.pkl", b"just text", "pickle"),
    ("x.pkl", pickle.dumps([1, 2]), "dict name -> vector, found list"),
    ("x.pkl", pickle.dumps({"A": [1.0], "B": [1.0, 2.0]}), "one length"),
    ("x.pkl", pickle.dumps({"A": ["x"], "B": ["y"]}), "expected numbers"),
    ("x.pkl", pickle.dumps(as_dict())[:-30], "pickle"),
    ("x.csv", b"gene,a,b\nTP53,1,2\nMYC,1\n", "row 3 has 2 fields, expected 3"),
    ("x.csv", b"gene,a,b\nTP53,1,2\nMYC,1,2,3\n", "row 3 has 4 fields"),
    ("x.csv", b"gene,a,kind\nTP53,1,kinase\n", "text in kind"),
    ("x.csv", b"gene\nTP53\n", "no other column"),
    ("x.csv", b"", "found 0 lines"),
    ("x.csv", b"gene,a\nTP53,1\nTP53,2\n", "1 repeated, e.g. TP53"),
    ("x.csv", b"gene,a\nTP53,\nMYC,nan\n", "expected finite vectors"),
    ("x.csv", b"\xff\xfe\x00\x01", "UTF-8 text file"),
    ("x.csv.gz", b"gene,a\nTP53,1\n"[:3] + b"\xff", "UTF-8"),
    ("x.txt", b"TP53 1 2\nMYC 1\n", "line 2: expected a name and 2 numbers"),
    ("x.txt", b"TP53 one two\n", "line 1: expected 'name number"),
    ("x.txt", b"", "expected finite vectors"),
    ("x.docx", b"", "found suffix '.docx'"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD)])
def test_bad_tables_are_explained(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        Table(str(tmp_path / name)).compute(None, None)
    assert name in str(caught.value)


def test_missing_file_folder_and_parameters(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found nothing"):
        Table(str(tmp_path / "none.csv")).compute(None, None)
    with pytest.raises(UserError, match="found a folder"):
        Table(str(tmp_path)).compute(None, None)
    with pytest.raises(ValueError, match="got 'protein'"):
        Table("x.csv", entity="protein")
    with pytest.raises(ValueError, match="got 'uniprot'"):
        Table("x.csv", to="uniprot")
    np.savez(tmp_path / "two.npz", names=np.array(NAMES), one=MATRIX, two=MATRIX)
    with pytest.raises(UserError, match=r"found one, two; say key=NAME"):
        Table(str(tmp_path / "two.npz")).compute(None, None)
    write_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match="leave it out"):
        Table(str(tmp_path / "a.csv"), key="d0").compute(None, None)
    with pytest.raises(UserError, match="'symbol'"):
        Table(str(tmp_path / "a.csv"), names="symbol").compute(None, None)


def test_missing_numbers_leave_the_name_out(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("gene,a,b\nTP53,1,2\nMYC,,2\nMAX,inf,1\nNA,3,4\n")
    table = Table(str(path)).compute(None, None)
    assert table.names.tolist() == ["TP53", "NA"]
    assert table.provenance["not_finite"] == 2


def test_hash_and_namespace(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("gene,a\nENSG00000141510,1\nH1F0,2\n")
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    table = Table(str(path), sha256=right, to="symbol").compute(["TP53", "H1-0"], None)
    assert table.names.tolist() == ["TP53", "H1-0"]
    with pytest.raises(UserError, match=f"found {right}"):
        Table(str(path), sha256="0" * 64).compute(None, None)


def test_one_tensor_per_context_comes_back_from_the_store(tmp_path: Path) -> None:
    from embbench.cache.store import write_h5 as write

    arrays = {"names": np.array(["A", "A"]), "contexts": np.array(["k", "l"]), "matrix": MATRIX[:2]}
    write(tmp_path / "x.h5", "embedding", arrays, {})
    table = Table(str(tmp_path / "x.h5")).compute(None, None)
    assert np.array_equal(table.lookup(["A"], ["l"])[0], MATRIX[1:2])


@pytest.mark.shared
def test_published_tables(shared_data: Path) -> None:
    folder = shared_data / "embeddings"
    vectors = Table(str(folder / "genevector_tica.npz")).compute(None, None)
    assert vectors.matrix.shape == (1000, 100)
    cells = Table(
        str(folder / "transcriptformer_sapiens_cell_embeddings_1000cells.npz"), entity="cell", names="obs_names"
    )
    assert cells.compute(None, None).matrix.shape == (1000, 2048)
    tissues = Table(str(folder / "gtex_tissue_mean_31.npz"), key="mean", names="ensembl", to=None).compute(None, None)
    with np.load(folder / "gtex_tissue_mean_31.npz") as raw:
        row = raw["ensembl"].tolist().index("ENSG00000141510")
        assert np.array_equal(tissues.lookup(["ENSG00000141510"])[0][0], raw["mean"][row].astype(np.float32))
        symbols = Table(str(folder / "gtex_tissue_mean_31.npz"), key="mean", names="ensembl").compute(None, None)
        assert np.array_equal(symbols.lookup(["TP53"])[0][0], raw["mean"][row].astype(np.float32))


def test_gzip_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(gzip.compress(b"gene,a\nTP53,1\n"))
    assert Table(str(path)).compute(None, None).matrix.tolist() == [[1.0]]
