"""The precomputed gene and drug vectors of Cole et al. 2026, by the names that they were published under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from embbench.cache.datafiles import DataFile, folder_of, state
from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._rows import text_array
from embbench.embeddings.table import Table

COLLECTION = "cole2026"  # folder below $EMBBENCH_HOME/published, and below a mirror
LINE = "{line}"
GENES = "gene_embeddings"


class Cole2026(ExtractorDefaults):
    r"""Vectors of one table of the collection.

    A gene table is a file of Ensembl identifiers x numbers (sparse); a gene without a vector has an empty row there and
    is absent here. A table of the controls of a cell line has ``{line}`` in its name: it stands for one file for each
    of ``lines``, and gives every context its own vectors. Drug tables are keys of one file; rows with NaN are absent.

    Parameters
    ----------
    table : published name, e.g. ``STRING_network_(D=512)``, ``scGPT_essential_{line}_controls_(D=512)``, or the key of
        a drug table (``ecfp:2``). A ``+`` in it is written ``\x2B`` in double quotes, since ``+`` joins embeddings.
    drugs : file of drug tables (``tahoe/tahoe_drug_embeddings.h5ad``: names are PubChem identifiers;
        ``sciplex/...``: names of drugs); "" for genes.
    lines : spellings of the cell lines in file names, as the screen spells its contexts.
    address : of the collection, below which the files lie.
    root : a folder that holds the files instead of the one that embbench fetches into.

    Raises
    ------
    ValueError
        No table is named, or ``{line}`` is in its name and no lines are given.

    References
    ----------
    Cole et al. (2026), doi 10.64898/2026.02.18.706454; data genbio-ai/foundation-models-perturbation.

    Examples
    --------
    >>> [file.name for file in Cole2026("scGPT_{line}_(D=4)", lines=["K-562", "Jurkat"], address="https://x").sources]
    ['scGPT_K-562_(D=4).h5ad', 'scGPT_Jurkat_(D=4).h5ad']
    """

    collection = COLLECTION

    def __init__(
        self, table: str = "", drugs: str = "", lines: Sequence[str] = (), address: str = "", root: str = ""
    ) -> None:
        if not table or not isinstance(table, str):
            raise ValueError(f"Cole2026: expected the name of a table, such as STRING_network_(D=512), got {table!r}")
        if LINE in table and not lines:
            raise ValueError(f"Cole2026: {table} is one table for each cell line; give lines=[K-562,Jurkat]")
        self.table, self.drugs = table, drugs
        self.entity = "compound" if drugs else "gene"  # type: ignore[misc]  # one class serves both
        names = (
            {line: f"{table.replace(LINE, line)}.h5ad" for line in lines} if LINE in table else {"": f"{table}.h5ad"}
        )
        self.names: Mapping[str, str] = {"": Path(drugs).name} if drugs else names
        self.folder, self.own = (Path(root), True) if root else (folder_of(COLLECTION), False)
        paths = [drugs] if drugs else [f"{GENES}/{name}" for name in self.names.values()]
        self.sources = tuple(
            DataFile(name=Path(path).name, urls=(f"{address.rstrip('/')}/{quote(path)}",) if address else ())
            for path in paths
        )

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on, once they are there."""
        return tuple(path for name in self.names.values() if (path := self.folder / name).is_file())

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked names (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            A file is not fetched, is no table of vectors, or lacks the key; the tables of the lines differ in width.
        """
        self._require()
        parts = {line: self._one(file).compute(names, None) for line, file in self.names.items()}
        if LINE not in self.table:
            return parts[""]
        widths = {line: part.matrix.shape[1] for line, part in parts.items()}
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{line} {width}" for line, width in widths.items())
            raise UserError(f"{self.table}: expected vectors of one width in all lines, found {told}")
        every = [name for part in parts.values() for name in part.names.tolist()]
        contexts = [line for line, part in parts.items() for _ in range(len(part.names))]
        matrix = np.concatenate([part.matrix for part in parts.values()])
        facts = {"source": self.table, "lines": {line: dict(part.provenance) for line, part in parts.items()}}
        return Embedding(text_array(every), matrix, "gene", text_array(contexts), facts)

    def _one(self, file: str) -> Table:
        if self.drugs:
            return Table(str(self.folder / file), key=self.table, entity="compound", to=None)
        return Table(str(self.folder / file), key="X", entity="gene", zero_is_missing=True)

    def _require(self) -> None:
        found = state(self.folder, self.sources)
        if self.own:
            absent = [name for name in self.names.values() if not (self.folder / name).is_file()]
            found = f"{self.folder} lacks {', '.join(absent)}" if absent else "ready"
        if found != "ready":
            raise UserError(
                f"{self.table} is not there: {found}; embbench extract --model with this name (or embbench reproduce "
                "--fetch) fetches it from the collection of Cole et al. 2026, or from the folder named by --mirror"
            )
