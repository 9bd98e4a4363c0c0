"""Contexts by a precomputed table of cell vectors (scGPT, scVI, PCA ... any obsm): the mean over control cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embbench.core import CellView, Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._readers import read_table
from embbench.embeddings._rows import pick


class CellTable(ExtractorDefaults):
    """Mean vector of each context's half-A control cells, looked up by cell name.

    Cells are matched by the names (barcodes) that they had in the imported file. Control cells without a finite vector
    are left out; a context without any has no vector. What the vectors were fitted on is the table's own affair: an
    ``obsm`` of scVI or PCA has usually seen perturbed and held-out cells.

    Parameters
    ----------
    path, key, names : table of cell vectors; see `embbench.embeddings.table.Table` (an ``.h5ad`` takes ``key`` as the
        name of an ``obsm``).

    References
    ----------
    Lotfollahi et al. (2019), scGen, Nature Methods 16, 715-721: control cells of a context summarised by the mean of
    their latent vectors.
    """

    entity = "context"
    reads = frozenset({"controls"})
    needs_cells = True

    def __init__(self, path: str, key: str | None = None, names: str | None = None) -> None:
        self.path, self.key, self.names = Path(path).expanduser(), key, names

    def files(self) -> tuple[Path, ...]:
        """The table."""
        return (self.path,)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (c, d), float32, of the asked contexts with control cells in the table (None: all).

        Raises
        ------
        UserError
            The table cannot be read, repeats a cell, or holds none of the control cells.
        """
        if train is None or not isinstance(train.cells, CellView):
            found = "no dataset" if train is None else f"dataset {train.name!r} without cells"
            raise UserError(f"cell_table reads control cells, found {found}; import the screen from cells")
        raw = read_table(self.path, self.key, self.names)
        where = {name: row for row, name in enumerate(raw.names)}
        if len(where) < len(raw.names):
            raise UserError(f"{self.path}: expected every cell once, found {len(raw.names) - len(where)} repeats")
        finite = np.isfinite(raw.matrix).all(axis=1)
        means, known, used, asked = [], [], 0, 0
        for code, context in enumerate(train.contexts):
            if train.cells.contexts is not None and code not in train.cells.contexts:
                continue
            cells = train.cells.names(code).tolist()
            rows = np.array([where[c] for c in cells if c in where and finite[where[c]]], dtype=np.int64)
            used, asked = used + len(rows), asked + len(cells)
            if len(rows):
                known.append(context)
                means.append(raw.matrix[np.sort(rows)].mean(axis=0, dtype=np.float64))
        if not known:
            raise UserError(
                f"{self.path}: expected vectors of the control cells of {train.name!r} by their names in the imported "
                f"file, found none of {asked}; its first names are {', '.join(raw.names[:3])}"
            )
        facts = {"source": self.path.name, "control_cells": asked, "with_vector": used, "uses_query_controls": True}
        return pick(names, known, np.stack(means), self.entity, facts)
