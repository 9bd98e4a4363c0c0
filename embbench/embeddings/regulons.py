"""Regulons: signed, weighted tables of regulators and targets, factorised (CollecTRI, DoRothEA, SCENIC)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._linalg import truncated_svd
from embbench.embeddings._published import check_fetched, located
from embbench.embeddings._regulons import read_regulons
from embbench.embeddings._rows import check_dim, pick
from embbench.genes import symbols_of

SIDES = ("both", "regulator", "target")


class Regulons(ExtractorDefaults):
    """What a gene regulates and what regulates it: SVD of the signed regulator x target matrix.

    ``R[i, j]`` is the signed strength with which i regulates j; ``N = D_r^-1/2 R D_t^-1/2`` with the sums of ``|R|``
    over rows and columns; ``N = U S Vᵀ`` truncated. A gene's vector is ``[U sqrt(S), V sqrt(S)]``: as regulator, as
    target. A gene that regulates nothing (or is regulated by nothing) in the table has an empty row (column) of R, so
    zeros in that half; a gene that is in no row of the table has no vector.

    Parameters
    ----------
    path : TSV or CSV (.gz allowed) with columns ``source``/``tf``/``TF``, ``target``/``gene`` and, where there are
        any, a sign and a strength (see below); a file or its address once fetched.
    dim : largest width of one half.
    side : ``both``, or only the half as ``regulator`` (then only regulators have vectors) or ``target``.
    weight : column of the signed strength; null takes the first of ``weight``, ``importance``, ``mor`` in the table,
        else 1. ``mor`` (mode of regulation, DoRothEA) beside a weight without sign gives its sign.
    confidence : levels of a ``confidence`` column to keep, e.g. ``[A, B, C]`` of DoRothEA; null takes all.
    leave_out : regulators that are complexes and would be mistaken for a gene of that name (AP1 is an old name of JUN).
    min_targets : regulators with fewer targets are left out.

    References
    ----------
    Müller-Dott et al. (2023), CollecTRI, Nucleic Acids Research 51(20); Garcia-Alonso et al. (2019), DoRothEA, Genome
    Research 29; bipartite normalisation and SVD of Dhillon (2001), KDD, equations 10 to 12, with the signed degrees of
    Kunegis et al. (2010), SDM, equation 4.1.

    Examples
    --------
    >>> Regulons("regulons.tsv", side="left")
    Traceback (most recent call last):
    ValueError: Regulons: side must be one of both, regulator, target, got 'left'
    """

    def __init__(
        self,
        path: str,
        dim: int = 50,
        side: str = "both",
        weight: str | None = None,
        confidence: Sequence[str] | None = None,
        leave_out: Sequence[str] = ("AP1", "NFKB"),
        min_targets: int = 1,
    ) -> None:
        if side not in SIDES:
            raise ValueError(f"Regulons: side must be one of {', '.join(SIDES)}, got {side!r}")
        if min_targets < 1:
            raise ValueError(f"Regulons: min_targets must be >= 1, got {min_targets}")
        self.path, self._text = located(path), str(path)
        self.dim, self.side, self.weight, self.min_targets = check_dim("Regulons", dim), side, weight, min_targets
        self.confidence = None if confidence is None else tuple(map(str, confidence))
        self.leave_out = tuple(leave_out)

    def files(self) -> tuple[Path, ...]:
        """The file that the vectors depend on."""
        return (self.path,)

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The address of the table, which ``embbench extract`` can fetch; nothing for a file."""
        return ((self._text, ()),) if self._text.startswith(("http://", "https://")) else ()

    def matrix(self) -> tuple[list[str], sparse.csr_matrix]:
        """Genes, sorted, and ``R`` of shape (genes, genes), before normalisation; repeated pairs are averaged.

        Raises
        ------
        UserError
            The file cannot be read, lacks a column, or has no edge left.
        """
        genes, R, _ = self._matrix()
        return genes, R

    def _matrix(self) -> tuple[list[str], sparse.csr_matrix, dict[str, int]]:
        """`matrix`, and how many rows and pairs did not count."""
        check_fetched(self._text, self.path)
        table = read_regulons(self.path, self.weight, self.confidence)
        kept = [i for i, name in enumerate(table.source) if name not in self.leave_out]
        symbol = symbols_of(sorted({*table.source, *table.target}))
        pairs = [(symbol[table.source[i]], symbol[table.target[i]]) for i in kept]
        genes = sorted({gene for pair in pairs for gene in pair})
        where = {gene: i for i, gene in enumerate(genes)}
        ends = np.array([(where[a], where[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
        shape = (len(genes), len(genes))
        total = sparse.csr_matrix((table.strength[kept], (ends[:, 0], ends[:, 1])), shape=shape)
        count = sparse.csr_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=shape)
        total.data /= count.data  # both sum repeats in the same order of columns
        pairs_in_all = total.nnz
        total.eliminate_zeros()
        few = np.diff(total.indptr) < self.min_targets
        R = (sparse.diags(np.where(few, 0.0, 1.0)) @ total).tocsr()
        R.eliminate_zeros()
        if not R.nnz:
            raise UserError(f"{self.path}: expected regulators with >= {self.min_targets} targets, found none")
        left_out = len(table.source) - len(kept) + table.silent
        return genes, R, {"left_out": left_out, "cancelled": int(pairs_in_all - total.nnz)}

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, 2 r) or (m, r), r <= dim, float32, of the asked genes in the table; ``train`` unread.

        Raises
        ------
        UserError
            See `matrix`.
        """
        genes, R, dropped = self._matrix()
        row, column = (np.asarray(abs(R).sum(axis=axis)).ravel() for axis in (1, 0))
        scale = [np.divide(1.0, np.sqrt(d), out=np.zeros_like(d), where=d > 0) for d in (row, column)]
        U, s, V = truncated_svd((sparse.diags(scale[0]) @ R @ sparse.diags(scale[1])).tocsr(), self.dim)
        halves = {"regulator": U * np.sqrt(s), "target": V * np.sqrt(s)}
        inside = {"regulator": row > 0, "target": column > 0, "both": (row > 0) | (column > 0)}[self.side]
        vectors = np.hstack([halves[half] for half in halves if self.side in ("both", half)])
        rows = np.flatnonzero(inside)
        facts: dict[str, Any] = {"source": self.path.name, "edges": int(R.nnz), "regulators": int((row > 0).sum())}
        known = [genes[i] for i in rows]
        facts |= {"negative": int((R.data < 0).sum()), **dropped}
        return pick(names, known, vectors[rows], self.entity, facts)
