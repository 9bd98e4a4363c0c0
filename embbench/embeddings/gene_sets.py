"""Gene sets as vectors: weighted gene x set incidence, truncated SVD (GO, Reactome, hallmark, Pfam, any GMT file)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._knowledge import DATA, RELATIONS, Incidence, go_incidence, information_content, read_gmt
from embbench.embeddings._linalg import truncated_svd
from embbench.embeddings._rows import check_dim, pick

GO_SOURCES = {"go": None, "go_bp": "BP", "go_cc": "CC", "go_mf": "MF"}
GMT_SOURCES = ("reactome", "hallmark", "pfam")
WEIGHTS = ("idf", "ic", "none")


class GeneSets(ExtractorDefaults):
    """Latent semantic analysis of gene sets: genes are documents, sets are words.

    Incidence ``X[gene, set] = weight(set)``, rows L2-normalised, ``X = U S Vᵀ`` truncated; the vector of a gene is its
    row of ``U S``. Genes in no set of an allowed size have no vector.

    Parameters
    ----------
    source : ``go``, ``go_bp``, ``go_cc``, ``go_mf``, ``reactome``, ``hallmark``, ``pfam`` (packaged), or a .gmt[.gz]
        file.
    dim : largest width; fewer columns when the sets have a smaller rank (hallmark has 50 sets).
    evidence : GO evidence codes to include, None for all: codes and groups, e.g. ``[EXP, IDA]`` or ``[experimental]``.
    exclude : GO evidence codes to leave out, e.g. ``[IEA]`` for annotations that no curator saw.
    relations : GO relations that annotations follow upwards.
    min_size, max_size : sets outside these sizes (after propagation) are left out.
    weight : ``idf``, ``ln(genes / size of the set)``; ``ic``, the information content of a GO term, ``-ln`` of its
        share of annotations (`information_content`); ``none``, 1 for every set.

    References
    ----------
    Deerwester et al. (1990), Indexing by Latent Semantic Analysis, JASIS 41(6), equations 1 to 3, with the inverse
    document frequency of Spärck Jones (1972), Journal of Documentation 28(1). Propagation is the true path rule of
    Gene Ontology Consortium (2000), Nature Genetics 25; information content: Resnik (1995), Lord et al. (2003).

    Examples
    --------
    >>> GeneSets("reactome", exclude=["IEA"])
    Traceback (most recent call last):
    ValueError: GeneSets: evidence codes exist for GO only, got source 'reactome'
    """

    def __init__(
        self,
        source: str = "go_bp",
        dim: int = 100,
        evidence: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        relations: Sequence[str] = ("is_a", "part_of"),
        min_size: int = 5,
        max_size: int = 1000,
        weight: str = "idf",
    ) -> None:
        self.source, self.dim = str(source), check_dim("GeneSets", dim)
        self.evidence = None if evidence is None else tuple(evidence)
        self.exclude, self.relations = tuple(exclude), tuple(relations)
        self.min_size, self.max_size, self.weight = min_size, max_size, str(weight)
        if not all(isinstance(size, int) for size in (min_size, max_size)) or not 1 <= min_size <= max_size:
            raise ValueError(f"GeneSets: need integers 1 <= min_size <= max_size, got {min_size!r} and {max_size!r}")
        if unknown := set(self.relations) - set(RELATIONS):
            raise ValueError(f"GeneSets: relations must be among {', '.join(RELATIONS)}, got {sorted(unknown)}")
        if self.source not in GO_SOURCES and (self.evidence is not None or self.exclude):
            raise ValueError(f"GeneSets: evidence codes exist for GO only, got source {self.source!r}")
        if self.weight not in WEIGHTS or (self.weight == "ic" and self.source not in GO_SOURCES):
            raise ValueError(
                f"GeneSets: weight must be {', '.join(WEIGHTS)} (ic for GO only), got {self.weight!r} "
                f"for source {self.source!r}"
            )

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        if self.source in GO_SOURCES:
            return tuple(DATA / f"go_{part}.tsv.gz" for part in ("annotations", "parents", "terms"))
        return (DATA / f"{self.source}.gmt.gz" if self.source in GMT_SOURCES else Path(self.source).expanduser(),)

    def sets(self) -> Incidence:
        """Genes, sets of an allowed size, and their binary incidence of shape (genes, sets), before weighting.

        Raises
        ------
        UserError
            The source cannot be read.
        """
        genes, names, X, kept = self._sized()
        return genes, [names[i] for i in kept], X[:, kept].tocsr()

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, min(dim, rank)), float32, of the asked genes in a set; ``train`` is not read.

        Raises
        ------
        UserError
            The source cannot be read or no set has an allowed size.
        """
        genes, _, X, kept = self._sized()
        X = X[:, kept].tocsr()
        covered = np.flatnonzero(np.diff(X.indptr))
        weighted = weigh(X[covered], self._weights(X[covered], kept))
        informative = np.diff(weighted.indptr) > 0
        if not informative.any():
            found = f"{len(kept)} sets of size {self.min_size} to {self.max_size} that tell genes apart"
            raise UserError(f"gene sets {self.source!r}: expected at least one informative set, found {found}")
        U, s, _ = truncated_svd(weighted[informative], self.dim)
        facts = {"source": Path(self.source).name, "sets": len(kept), "weight": self.weight, "holds": "knowledge"}
        return pick(names, [genes[i] for i in covered[informative]], U * s, self.entity, facts)

    def _sized(self) -> tuple[list[str], list[str], sparse.csr_matrix, np.ndarray]:
        """The whole incidence, and the columns of an allowed size."""
        if self.source in GO_SOURCES:
            genes, names, X = go_incidence(GO_SOURCES[self.source], self.relations, self.evidence, self.exclude)
        else:
            genes, names, X = read_gmt(self.files()[0])
        size = np.bincount(X.indices, minlength=X.shape[1])
        return genes, names, X, np.flatnonzero((size >= self.min_size) & (size <= self.max_size))

    def _weights(self, X: sparse.csr_matrix, kept: np.ndarray) -> np.ndarray:
        if self.weight == "none":
            return np.ones(X.shape[1])
        if self.weight == "ic":
            go = (GO_SOURCES[self.source], self.relations, self.evidence, self.exclude)
            return information_content(*go)[kept]
        return idf(X)


def idf(incidence: sparse.csr_matrix) -> np.ndarray:
    """``ln(genes / size)`` of every column of a binary genes x sets matrix, shape (s,); 0 for a set of all genes.

    Examples
    --------
    >>> idf(sparse.csr_matrix(np.array([[1.0, 1], [1, 0]]))).round(4).tolist()
    [0.0, 0.6931]
    """
    size = np.bincount(incidence.indices, minlength=incidence.shape[1])
    return np.log(incidence.shape[0] / np.maximum(size, 1))


def weigh(incidence: sparse.csr_matrix, weight: np.ndarray) -> sparse.csr_matrix:
    """Binary genes x sets of shape (m, s), its columns times ``weight`` (s,), rows of unit length where not empty.

    Examples
    --------
    >>> weigh(sparse.csr_matrix(np.array([[1.0, 1, 0], [1, 0, 1]])), np.array([0.0, 2, 3])).toarray().tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    weighted = incidence @ sparse.diags(weight)
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    weighted = (sparse.diags(1 / np.where(norm > 0, norm, 1.0)) @ weighted).tocsr()
    weighted.eliminate_zeros()
    return weighted
