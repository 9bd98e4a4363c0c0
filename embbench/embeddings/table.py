"""Any precomputed matrix: h5ad, npz, parquet, csv, word2vec text, HDF5, torch, pickled dicts of plain data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._readers import RawTable, read_table
from embbench.embeddings._rows import text_array
from embbench.genes import harmonise, namespace

ENTITIES = ("gene", "compound", "context", "cell", "any")


class Table(ExtractorDefaults):
    """Vectors from a file. Rows with a NaN or infinite value count as missing names.

    Parameters
    ----------
    path : ``.h5ad`` (obs names x X), ``.npz``, ``.h5`` (also of embbench's store), ``.parquet``, ``.csv``/``.tsv``
        (first column = names), ``.txt``/``.vec`` (word2vec), ``.pt``, ``.pkl`` (dict name -> vector; runs no code).
    key : which matrix: ``obsm`` key of h5ad, array of npz, h5 or a dict; None finds the only or the usual one.
    names : where the names are: obs column, array, or column of a table.
    sha256 : expected hash of the file; None does not check.
    entity : what the names are: gene, compound, context, cell; None serves any.
    to : ``symbol``, ``ensembl`` or ``entrez``: bring gene names into that namespace; ``auto`` (symbols, as screens have
        them, where most names are genes) or None (names as they are).

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
    ) -> None:
        if entity is not None and entity not in ENTITIES:
            raise ValueError(f"Table: entity must be one of {', '.join(ENTITIES)}, got {entity!r}")
        if to not in (None, "auto", "symbol", "ensembl", "entrez"):
            raise ValueError(f"Table: to must be auto, symbol, ensembl, entrez or null, got {to!r}")
        self.path, self.key, self.names, self.to = Path(path).expanduser(), key, names, to
        self.sha256 = None if sha256 is None else str(sha256)  # YAML reads digits alone as a number
        self.entity = entity or "any"  # type: ignore[misc]  # one class serves names of every kind

    def files(self) -> tuple[Path, ...]:
        """The file that the vectors depend on."""
        return (self.path,)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked names in the file (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            The file is missing, has another hash, is no table of numbers, repeats a name, or has no finite vector.
        """
        self._check_hash()
        raw = read_table(self.path, self.key, self.names)
        if len(raw.names) != len(raw.matrix):
            raise UserError(f"{self.path}: expected one name per vector, found {len(raw.names)} and {len(raw.matrix)}")
        labels = self._labels(raw.names)
        self._check_repeats(labels, raw)
        with np.errstate(over="ignore"):
            matrix = raw.matrix.astype(np.float32)
        finite = np.isfinite(matrix).all(axis=1) & np.array([bool(name.strip()) for name in labels], dtype=bool)
        if not finite.any() or not matrix.shape[1]:
            raise UserError(f"{self.path}: expected finite vectors, found none in a {raw.matrix.shape} matrix")
        wanted = None if names is None else set(names)
        rows = [i for i in np.flatnonzero(finite).tolist() if wanted is None or labels[i] in wanted]
        facts = {"source": self.path.name, "not_finite": int((~finite).sum()), "rows": len(labels)}
        contexts = None if raw.contexts is None else text_array([raw.contexts[i] for i in rows])
        return Embedding(text_array([labels[i] for i in rows]), matrix[rows], self.entity, contexts, facts)

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
