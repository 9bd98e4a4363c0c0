"""Any precomputed matrix: h5ad, npz, parquet, csv, word2vec text, HDF5, torch, GCT, pickled dicts, PIE sources."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._published import (
    check_fetched,
    filled,
    located,
    principal,
    read_columns,
    renamed,
    source_files,
)
from embbench.embeddings._readers import RawTable, read_table
from embbench.embeddings._rows import check_dim, text_array
from embbench.genes import harmonise, namespace

ENTITIES = ("gene", "compound", "context", "cell", "any")


class Table(ExtractorDefaults):
    """Vectors from a file. Rows with a NaN or infinite value count as missing names.

    Parameters
    ----------
    path : ``.h5ad`` (obs names x X), ``.npz``, ``.h5`` (also of embbench's store, and STRING's), ``.parquet``,
        ``.csv``/``.tsv`` (first column = names), ``.txt``/``.vec`` (word2vec), ``.gct``, ``.pt``, ``.pkl`` (dict name
        -> vector; runs no code), a folder (PIE source); or an address, once fetched.
    key : which matrix: ``obsm`` key of h5ad, array of npz, h5 or a dict, group of h5; None finds the only or the usual
        one.
    names : where the names are: obs column, array, or column of a table.
    sha256 : expected hash of the file; None does not check.
    entity : what the names are: gene, compound, context, cell; None serves any.
    to : ``symbol``, ``ensembl`` or ``entrez``: bring gene names into that namespace; ``auto`` (symbols, as screens have
        them, where most names are genes) or None (names as they are).
    rename : table of two columns, name in the file and gene name, applied first; e.g. STRING's ``protein.info``.
    transpose : the names are the column headers of a .csv or .tsv, ``SYMBOL (ENTREZ)`` allowed (DepMap).
    log1p : take ``ln(1 + value)``, for expression that is not logarithmic.
    fill : ``mean`` replaces missing numbers by the mean of the name's other values, if at least half of them are there;
        None leaves the name out.
    zero_is_missing : a vector of zeros says that its name has none.
    pca : keep so many principal components (over all names of the file); None keeps the columns.

    References
    ----------
    Text format of Mikolov et al. (2013), word2vec; dictionaries as published with GenePT (Chen and Zou 2024).

    Examples
    --------
    >>> Table("vectors.csv", to="hgnc")
    Traceback (most recent call last):
    ValueError: Table: to must be auto, symbol, ensembl, entrez or null, got 'hgnc'
    """

    entity = "any"

    def __init__(
        self,
        path: str,
        key: str | None = None,
        names: str | None = None,
        sha256: str | None = None,
        entity: str | None = None,
        to: str | None = "auto",
        *,
        rename: str | None = None,
        transpose: bool = False,
        log1p: bool = False,
        fill: str | None = None,
        zero_is_missing: bool = False,
        pca: int | None = None,
    ) -> None:
        if entity is not None and entity not in ENTITIES:
            raise ValueError(f"Table: entity must be one of {', '.join(ENTITIES)}, got {entity!r}")
        if to not in (None, "auto", "symbol", "ensembl", "entrez"):
            raise ValueError(f"Table: to must be auto, symbol, ensembl, entrez or null, got {to!r}")
        if fill not in (None, "mean"):
            raise ValueError(f"Table: fill must be mean or null, got {fill!r}")
        if transpose and (key is not None or names is not None):
            raise ValueError(f"Table: a transposed table has one matrix and its headers, got key={key}, names={names}")
        self.path, self.key, self.names, self.to = located(path), key, names, to
        self.rename = None if rename is None else located(rename)
        self._texts = (str(path), str(rename))
        self.transpose, self.log1p, self.fill, self.zero_is_missing = transpose, log1p, fill, zero_is_missing
        self.pca = None if pca is None else check_dim("Table", pca)
        self.sha256 = None if sha256 is None else str(sha256)  # YAML reads digits alone as a number
        self.entity = entity or "any"  # type: ignore[misc]  # one class serves names of every kind

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        own = source_files(self.path) if self.path.is_dir() else (self.path,)
        return own if self.rename is None else (*own, self.rename)

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Addresses of single files that ``embbench extract`` can fetch."""
        return tuple((text, ()) for text in self._texts if text.startswith(("http://", "https://")))

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked names in the file (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            The file is missing, has another hash, is no table of numbers, repeats a name, or has no finite vector.
        """
        self._check_hash()
        raw = self._read()
        stayed = None
        if self.rename is not None:
            better, stayed = renamed(raw.names, self.rename)
            raw = raw._replace(names=better)
        labels = self._labels(raw.names)
        self._check_repeats(labels, raw)
        matrix = self._values(raw.matrix)
        finite = np.isfinite(matrix).all(axis=1) & np.array([bool(name.strip()) for name in labels], dtype=bool)
        zero = finite & ~matrix.any(axis=1)
        finite &= ~zero if self.zero_is_missing else True
        if not finite.any() or not matrix.shape[1]:
            raise UserError(f"{self.path}: expected finite vectors, found none in a {raw.matrix.shape} matrix")
        where = np.cumsum(finite) - 1
        vectors = matrix[finite] if self.pca is None else principal(matrix[finite], self.pca).astype(np.float32)
        if not vectors.shape[1]:
            raise UserError(f"{self.path}: expected vectors that differ, found {len(vectors)} alike; leave pca out")
        wanted = None if names is None else set(names)
        rows = [i for i in np.flatnonzero(finite).tolist() if wanted is None or labels[i] in wanted]
        facts = {"source": self.path.name, "not_finite": int((~finite & ~zero).sum()), "rows": len(labels)}
        facts |= {"all_zero": int(zero.sum())} if zero.any() else {}
        facts |= {} if stayed is None else {"not_renamed": stayed}
        contexts = None if raw.contexts is None else text_array([raw.contexts[i] for i in rows])
        chosen = text_array([labels[i] for i in rows])
        return Embedding(chosen, vectors[where[rows]], self.entity, contexts, facts)

    def _read(self) -> RawTable:
        for text, path in zip(self._texts, (self.path, self.rename), strict=True):
            if path is not None:
                check_fetched(text, path)
        if self.transpose and not self.path.is_file():
            raise UserError(f"{self.path}: expected a table with names as column headers, found no such file")
        raw = read_columns(self.path) if self.transpose else read_table(self.path, self.key, self.names)
        if len(raw.names) != len(raw.matrix):
            raise UserError(f"{self.path}: expected one name per vector, found {len(raw.names)} and {len(raw.matrix)}")
        return raw

    def _values(self, matrix: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            matrix = matrix.astype(np.float32)
        if self.log1p:
            if (matrix < 0).any():
                raise UserError(f"{self.path}: log1p needs values >= 0, found {np.nanmin(matrix):g}; leave log1p out")
            matrix = np.log1p(matrix)
        return matrix if self.fill is None else filled(matrix)

    def _labels(self, names: list[str]) -> list[str]:
        genes = self.entity in ("any", "gene") and self.to == "auto" and namespace(names) != "unknown"
        to = ("symbol" if genes else None) if self.to == "auto" else self.to
        return names if to is None else list(harmonise(names, to).names)

    def _check_hash(self) -> None:
        if self.sha256 is None or not self.path.is_file():
            return
        with self.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256.lower():
            raise UserError(f"{self.path}: expected sha256 {self.sha256}, found {found}; fetch the file again")

    def _check_repeats(self, labels: list[str], raw: RawTable) -> None:
        keys = labels if raw.contexts is None else list(zip(labels, raw.contexts, strict=True))
        repeats = [str(key) for key, count in Counter(keys).items() if count > 1]
        if repeats:
            raise UserError(
                f"{self.path}: expected every name once, found {len(repeats)} repeated, e.g. {', '.join(repeats[:3])}; "
                "average or drop them first"
            )
