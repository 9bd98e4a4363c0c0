"""Multinomial logistic regression of the DE labels of all genes at once, by L-BFGS with one curvature for all genes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._labels import CLASSES, LabelHead, class_counts, gene_blocks, known_labels
from embbench.heads._lbfgs import minimise
from embbench.heads._smoother import positive, whole

BLOCK = 1 << 18  # logits of a block of genes (2 MB): they stay in the processor's cache
LARGE = 500.0  # differences of logits beyond which exponentials are shifted
CONTRASTS = {2: np.array([[-0.5, 0.5]]), 3: np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])}


class LabelLogistic(LabelHead):
    """Per gene the minimum of C sum_i s_i log(1 / P(y_i | x_i)) + |w|^2 / 2 over the rows that test it.

    The optimum is scikit-learn's ``LogisticRegression`` of each gene: softmax over the classes that the gene has in
    training (two: one vector w of log odds), intercepts free of penalty. A class that it never has gets probability 0,
    a gene of one class that class, a gene that no row tests a third each.

    All genes share the rotated features X V (V: eigenvectors of the centred X'X, which leave the penalty alone), where
    the Hessian without effects is diagonal for every gene; full-batch L-BFGS starts from the class frequencies with
    that diagonal and ends where no derivative of the mean loss exceeds ``tol``.

    Parameters
    ----------
    C : > 0, the inverse penalty, as scikit-learn's.
    class_weight : None (s_i = 1) or ``balanced``: s_i = tested rows / (classes present x tested rows of y_i's class).
    tol : > 0.
    max_iter : >= 1; genes that need more are counted in a RuntimeWarning.

    References
    ----------
    Theil (1969), International Economic Review 10:251 (multinomial logit); Liu and Nocedal (1989), Mathematical
    Programming 45:503, algorithm 2.1; balanced weights: King and Zeng (2001), Political Analysis 9:137, section 4.2.

    Examples
    --------
    >>> rows = Inputs(np.array([[-1.0], [1.0]]), np.zeros(2, int), None, ((0,), (1,)))
    >>> fitted = LabelLogistic(C=1.0).fit(rows, np.array([[0.0, 1.0], [1.0, 1.0]]))
    >>> fitted.predict_proba(rows)[1].round(3).tolist()
    [[0.0, 0.337, 0.663], [0.0, 0.0, 1.0]]
    """

    trained = True

    def __init__(
        self, C: float = 0.01, class_weight: str | None = None, tol: float = 1e-6, max_iter: int = 1000
    ) -> None:
        positive("LabelLogistic", C=C, tol=tol)
        whole("LabelLogistic", max_iter=max_iter)
        if class_weight not in (None, "balanced"):
            raise ValueError(f"LabelLogistic: class_weight must be None or 'balanced', got {class_weight!r}")
        self.C, self.class_weight, self.tol, self.max_iter = C, class_weight, tol, max_iter

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """7 penalties, C from 1e-5 (all but the prior) to 10."""
        return [{"C": float(f"{c:.3g}")} for c in np.logspace(-5, 1, 7)]

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Fit labels ``Y`` (n, g) where ``observed`` (n, g) says that they were tested to features (n, d).

        Warns
        -----
        RuntimeWarning
            Some genes have not converged after ``max_iter`` iterations.
        """
        labels, tested = known_labels(self, inputs, Y, observed)
        self.mean_ = inputs.X.mean(axis=0, dtype=np.float64)
        rows = inputs.X - self.mean_
        self.axes_ = _axes(rows)
        design = np.concatenate([np.ones((len(rows), 1)), rows @ self.axes_], axis=1)
        present = class_counts(labels, tested) > 0
        counted = present.sum(axis=1)
        genes = labels.shape[1]
        self.weights_ = np.zeros((design.shape[1], len(CLASSES), genes))  # intercepts first
        self.offset_ = np.where(present.T | (counted == 0), 0.0, -np.inf)
        late = 0
        for k in CONTRASTS:
            members = np.flatnonzero(counted == k)
            for part in gene_blocks(len(members), k * len(rows), BLOCK):
                block = members[part]
                classes = np.nonzero(present[block])[1].reshape(len(block), k).T
                hot = self._weighted(labels[:, block] + 1, tested[:, block], classes)
                contrast = _contrasts(hot.sum(axis=0) / hot.sum(axis=(0, 1)))
                problem = _Softmax.of(design, hot, contrast, self.C)
                found, open_ = minimise(problem, problem.start(), problem.curvature(), self.tol, self.max_iter)
                late += open_
                for c in range(k):
                    self.weights_[:, classes[c], block] = np.einsum("rqg,qg->rg", found, contrast[:, c])
        if late:
            warnings.warn(
                f"LabelLogistic: {late} of {genes} genes had a derivative above {self.tol:g} after {self.max_iter} "
                "iterations; raise max_iter or lower C",
                RuntimeWarning,
                stacklevel=2,
            )
        return self

    def _weighted(self, code: np.ndarray, tested: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Weights (n, k, b) of the tested rows by class: ``code`` (n, b) in 0..2, ``classes`` (k, b)."""
        hot = ((code[:, None] == classes) & tested[:, None]).astype(np.float64)
        if self.class_weight == "balanced":
            count = hot.sum(axis=0)
            hot *= count.sum(axis=0) / (len(classes) * count)
        return hot

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """Probabilities (n, g, 3) of down, none, up, float32; RuntimeError before ``fit``."""
        if not hasattr(self, "weights_"):
            raise RuntimeError("LabelLogistic.predict called before fit")
        rows = (inputs.X - self.mean_) @ self.axes_
        out = np.empty((len(rows), self.weights_.shape[2], len(CLASSES)), dtype=np.float32)
        for genes in gene_blocks(out.shape[1], 3 * max(rows.shape), BLOCK):
            weights = self.weights_[:, :, genes]
            logits = np.tensordot(rows, weights[1:], axes=1) + (weights[0] + self.offset_[:, genes])
            logits = np.exp(logits - logits.max(axis=1, keepdims=True))
            out[:, genes] = (logits / logits.sum(axis=1, keepdims=True)).transpose(0, 2, 1)
        return out


def _axes(rows: np.ndarray) -> np.ndarray:
    """Orthonormal columns (d, min(n, d)) that span the centred rows (n, d), along the eigenvectors of rows' rows."""
    n, d = rows.shape
    basis = np.linalg.qr(rows.T)[0] if d > n else np.eye(d)
    inside = rows @ basis
    return basis @ np.linalg.eigh(inside.T @ inside)[1]


@dataclass(frozen=True)
class _Softmax:
    """Penalised mean losses of b genes with k classes, in k - 1 coordinates per feature.

    The logits of k classes are contrasts of the coordinates: two classes (-z/2, z/2), so that |z|^2 is scikit-learn's
    binary penalty; three an orthonormal basis of the plane that sums to 0 (the penalised optimum lies in it), turned per
    gene so that the Hessian at the class frequencies is diagonal. Large arrays see only the k - 1 differences to the
    first class, which ``lift`` makes of the coordinates.

    Parameters
    ----------
    design : (n, r), a column of ones first.
    weight : (n, b) sample weights that sum to 1, 0 where untested.
    spread : (k - 1, b), variances of the coordinates' contrasts under the class frequencies.
    lift : (k - 1, k - 1, b), from coordinates to differences.
    linear : (r, k - 1, b), the part of the mean log likelihood that is linear in the differences.
    penalty : (r, 1, b), second derivative of the penalty in units of the mean loss.
    first : (k - 1, b), coordinates of the class frequencies' logits.
    """

    design: np.ndarray
    weight: np.ndarray
    spread: np.ndarray
    lift: np.ndarray
    linear: np.ndarray
    penalty: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, design: np.ndarray, hot: np.ndarray, contrast: np.ndarray, C: float) -> _Softmax:
        """The problem of weighted one-hot labels ``hot`` (n, k, b), with `_contrasts` of their frequencies."""
        total = hot.sum(axis=(0, 1))
        share = hot.sum(axis=0) / total
        hot /= total
        penalty = np.repeat(1.0 / (C * total)[None, None], design.shape[1], axis=0)
        penalty[0] = 0.0
        return cls(
            design,
            hot.sum(axis=1),
            (contrast**2 * share).sum(axis=1) - (contrast * share).sum(axis=1) ** 2,
            contrast[:, 1:] - contrast[:, :1],
            _product(design.T, hot)[:, 1:],
            penalty,
            (contrast * np.log(share)).sum(axis=1) / np.square(contrast).sum(axis=1),
        )

    def start(self) -> np.ndarray:
        """(r, k - 1, b): the logits of the class frequencies."""
        out = np.zeros(self.linear.shape)
        out[0] = self.first
        return out

    def curvature(self) -> np.ndarray:
        """(r, k - 1, b): the diagonal of the Hessian at `start`, as if every gene were tested in all rows."""
        return np.square(self.design).mean(axis=0)[:, None, None] * self.spread + self.penalty

    def take(self, genes: np.ndarray) -> _Softmax:
        """The problem of some genes."""
        parts = (self.weight, self.spread, self.lift, self.linear, self.penalty, self.first)
        return _Softmax(self.design, *(np.ascontiguousarray(part[..., genes]) for part in parts))

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (b,) and gradients (r, k - 1, b) at coordinates of that shape."""
        lifted = np.empty_like(z)
        for c in range(len(self.lift)):
            lifted[:, c] = sum(self.lift[q, c] * z[:, q] for q in range(len(self.lift)))
        odds = _product(self.design, lifted)
        top = np.maximum(odds.max(axis=1), 0.0) if odds.max(initial=0.0) > LARGE else None
        if top is not None:
            odds -= top[:, None]
        np.exp(odds, out=odds)
        total = odds.sum(axis=1)
        total += 1.0 if top is None else np.exp(-top)
        odds *= (self.weight / total)[:, None]
        lse = np.log(total, out=total)
        if top is not None:
            lse += top
        lse *= self.weight
        pull = _product(self.design.T, odds) - self.linear
        gradient = self.penalty * z
        value = lse.sum(axis=0) + (z * gradient).sum(axis=(0, 1)) / 2 - (lifted * self.linear).sum(axis=(0, 1))
        for q in range(len(self.lift)):
            gradient[:, q] += sum(self.lift[q, c] * pull[:, c] for c in range(len(self.lift)))
        return value, gradient


def _contrasts(share: np.ndarray) -> np.ndarray:
    """Contrasts (k - 1, k, b) that are uncorrelated under the class shares (k, b)."""
    base = CONTRASTS[len(share)]
    mean = base @ share
    spread = np.einsum("pk,qk,kb->bpq", base, base, share) - np.einsum("pb,qb->bpq", mean, mean)
    return np.einsum("bpq,pk->qkb", np.linalg.eigh(spread)[1], base)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left`` (m, n) times ``right`` (n, q, b) as one matrix product, (m, q, b)."""
    return (left @ right.reshape(len(right), -1)).reshape(len(left), *right.shape[1:])
