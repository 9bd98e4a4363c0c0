"""Miniatures of published screens: counts with planted effects, AnnData bytes, and placing them as a fetch would."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache import datafiles
from embbench.checks._toy import KNOWN, MEASURED
from embbench.core import PerturbationDataset
from embbench.genes import harmonise
from embbench.registry import Entry, default

GENES = (*KNOWN, *MEASURED)  # approved symbols that the toy embeddings know
ENSEMBL = tuple(harmonise(GENES, "ensembl").names)
Files = Mapping[str, bytes]
CHECKED = ("bytes", "md5", "sha256", "hashes")


def cells(
    labels: Sequence[str], per_label: int = 12, genes: int = len(GENES), seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Counts (cells, genes), float32, and the label of each cell; every label shifts some genes of its own."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(2.0, 3.0, genes)
    rows, names = [], []
    for i, label in enumerate(labels):
        rate = base * np.where(np.arange(genes) % (i + 2) == 0, 2.0, 1.0)
        rows.append(rng.poisson(rate, (per_label, genes)))
        names += [label] * per_label
    return np.concatenate(rows).astype(np.float32), names


def log_normalised(counts: np.ndarray) -> np.ndarray:
    """log1p of counts scaled to the median depth."""
    depth = counts.sum(axis=1, keepdims=True)
    return np.log1p(counts / depth * np.median(depth)).astype(np.float32)


def h5ad(
    X: Any, obs: Mapping[str, Sequence[Any]], var: Mapping[str, Sequence[Any]], index: Sequence[str], **more: Any
) -> bytes:
    """An `.h5ad` file as anndata writes it; ``index`` names the genes, ``more`` goes to AnnData (layers, obsm, uns)."""
    import anndata
    import pandas as pd

    frame = pd.DataFrame(dict(obs), index=[f"cell{i}" for i in range(X.shape[0])])
    for name in frame.columns:
        if frame[name].dtype == object or str(frame[name].dtype).startswith("str"):
            frame[name] = frame[name].astype("category")  # as released files have it
    made = anndata.AnnData(X, obs=frame, var=pd.DataFrame(dict(var), index=list(index)), **more)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.h5ad"
        made.write_h5ad(path)
        return path.read_bytes()


def zipped(members: Files) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def gzipped(data: bytes) -> bytes:
    """A gzip file without a time in it."""
    return gzip.compress(data, mtime=0)


def bare(entry: Entry) -> list[dict[str, Any]]:
    """The records of an entry without size and hashes: a miniature has others."""
    return [{k: v for k, v in record.items() if k not in CHECKED} for record in entry.params["files"]]


def placed(folder: Path, minis: Mapping[str, Callable[[], Files]]) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts: every miniature fetched from a mirror folder into a folder of its own."""
    out = {}
    for name, make in minis.items():
        entry = default().get("datasets", name)
        mirror, root = folder / "mirror" / name, folder / name
        write(mirror, make())
        records = bare(entry)
        files = datafiles.records(records)
        datafiles.bring(
            name, root, files, licence="", accept=True, mirror=str(mirror.parent), say=str, progress=lambda *_: None
        )
        out[f"datasets/{name}"] = {"root": str(root), "files": records}
    return out


def write(folder: Path, files: Files) -> None:
    """Files into a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def made(name: str, folder: Path, files: Files, **how: Any) -> Any:
    """The reader of an entry on files that were placed by hand."""
    entry = default().get("datasets", name)
    write(folder, dict(files))
    return entry.make(root=str(folder), files=bare(entry), **how)


def report(data: PerturbationDataset) -> str:
    """What the import says of a screen."""
    return "\n".join(data.meta["import_report"])
