"""GO by its graph: Wang semantic similarity of genes, kernel PCA on landmark genes (BP, MF or CC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._graph import landmarks as hashed
from embbench.embeddings._knowledge import DATA, RELATIONS, go_ontology
from embbench.embeddings._linalg import top_eigenpairs
from embbench.embeddings._rows import check_dim, pick
from embbench.embeddings._wang import gene_similarity, s_values

BRANCHES = ("BP", "MF", "CC")
POSITIVE = 1e-9  # eigenvalues below this share of the largest are rounding noise (or negative: no Euclidean part)


class GoDag(ExtractorDefaults):
    """Genes whose terms lie close in the GO graph lie close: best-match-average Wang similarity, kernel PCA.

    ``K[g, l]`` is the similarity of gene g and landmark l (equation 4 of Wang et al. 2007), from direct annotations
    and the graph alone, so an unevenly annotated corpus does not move it. With ``K`` centred by the landmarks' means
    and ``K_LL = V diag(w) Vᵀ``, the vector of g is ``K[g, :] V diag(w)^-1/2`` over the largest positive w: kernel PCA
    with the Nyström extension. Best-match averages are no positive-definite kernel; the negative part is left out.

    Parameters
    ----------
    ontology : ``BP``, ``MF`` or ``CC``.
    dim : largest width.
    evidence : GO evidence codes to include (codes and groups, see `GeneSets`), None for all.
    exclude : codes to leave out; ND says that nothing is known, so a gene with nothing else has no vector.
    contributions : relation -> semantic contribution factor in (0, 1); the relations named are those followed. Wang et
        al. choose is_a 0.8 and part_of 0.6; GOSemSim gives 0.7 to any other.
    landmarks : genes, chosen by a hash of their names, that the others are compared with; null takes all (exact
        kernel PCA, quadratic memory).

    References
    ----------
    Wang et al. (2007), Bioinformatics 23(10), equations 1 to 4; Schölkopf, Smola and Müller (1998), Nonlinear component
    analysis as a kernel eigenvalue problem, Neural Computation 10, appendix B; Williams and Seeger (2001), Using the
    Nyström method to speed up kernel machines, NIPS 13.

    Examples
    --------
    >>> GoDag("bp")
    Traceback (most recent call last):
    ValueError: GoDag: ontology must be one of BP, MF, CC, got 'bp'
    """

    def __init__(
        self,
        ontology: str = "BP",
        dim: int = 100,
        evidence: Sequence[str] | None = None,
        exclude: Sequence[str] = ("ND",),
        contributions: Mapping[str, float] | None = None,
        landmarks: int | None = 1000,
    ) -> None:
        self.ontology, self.dim, self.landmarks = str(ontology), check_dim("GoDag", dim), landmarks
        self.evidence, self.exclude = None if evidence is None else tuple(evidence), tuple(exclude)
        self.contributions = {"is_a": 0.8, "part_of": 0.6} if contributions is None else dict(contributions)
        if self.ontology not in BRANCHES:
            raise ValueError(f"GoDag: ontology must be one of {', '.join(BRANCHES)}, got {ontology!r}")
        wrong = {r: w for r, w in self.contributions.items() if r not in RELATIONS or not 0 < w < 1}
        if wrong or not self.contributions:
            raise ValueError(
                f"GoDag: contributions must give {', '.join(RELATIONS)} numbers in (0, 1), got {contributions}"
            )
        if landmarks is not None and (not isinstance(landmarks, int) or landmarks < 2):
            raise ValueError(f"GoDag: landmarks must be an integer >= 2 or null, got {landmarks!r}")

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        return tuple(DATA / f"go_{part}.tsv.gz" for part in ("annotations", "parents", "terms"))

    def similarity(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Genes, numbers (l,) of the landmarks among them, and similarities of shape (genes, l), float64.

        Raises
        ------
        UserError
            No annotation has the evidence asked for, or the relations form a cycle.
        """
        go = go_ontology(self.ontology, self.evidence, self.exclude)
        used = np.unique(go.direct.indices)
        S = s_values(go.terms, go.parents, self.contributions, used)
        chosen = hashed(np.array(go.genes), self.landmarks)
        return go.genes, chosen, gene_similarity(go.direct[:, used].tocsr(), S, chosen)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, min(dim, positive rank)), float32, of the annotated genes asked for; no ``train``.

        Raises
        ------
        UserError
            See `similarity`; or the similarities tell no genes apart.
        """
        genes, chosen, K = self.similarity()
        vectors = kernel_pca(K, chosen, self.dim)
        if not vectors.shape[1]:
            raise UserError(f"GO {self.ontology}: expected genes of different similarity, found {len(genes)} alike")
        facts = {"source": f"GO {self.ontology}", "landmarks": len(chosen), "holds": "knowledge"}
        return pick(names, genes, vectors, self.entity, {**facts, "exclude": list(self.exclude)})


def kernel_pca(K: np.ndarray, landmarks: np.ndarray, dim: int) -> np.ndarray:
    """Scores of shape (n, r), r <= dim, of all rows on the positive principal axes of the landmarks.

    Parameters
    ----------
    K : of shape (n, l), similarities to the landmarks.
    landmarks : (l,) their row numbers.
    dim : largest r.

    Examples
    --------
    >>> kernel_pca(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]), 5).round(4).tolist()
    [[0.7071], [-0.7071]]
    """
    inner = K[landmarks]
    inner = (inner + inner.T) / 2  # equal but for rounding
    column = inner.mean(axis=0)
    values, axes = top_eigenpairs(inner - column - column[:, None] + column.mean(), dim)
    keep = values > POSITIVE * max(values.max(initial=0.0), np.finfo(float).tiny)
    centred = K - K.mean(axis=1, keepdims=True) - column + column.mean()
    return centred @ (axes[:, keep] / np.sqrt(values[keep]))
