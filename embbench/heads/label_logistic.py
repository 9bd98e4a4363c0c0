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
SUM_TOL = 300.0  # tolerance for the sum of the losses, in units of that for their mean
LARGE = 500.0  # differences of logits beyond which exponentials are shifted
CONTRASTS = {2: np.array([[-0.5, 0.5]]), 3: np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])}


class LabelLogistic(LabelHead):
    """Per gene the minimum of C sum_i s_i log(1 / P(y_i | x_i)) + |w|^2 / 2 over the rows that test it.

    The optimum is scikit-learn's ``LogisticRegression`` of each gene: softmax over the classes that the gene has in
    training (two: one vector w of log odds), intercepts free of penalty. A class that it never has gets probability 0,
    a gene of one class that class, a gene that no row tests a third each.

    All genes share the rotated features X V (V: eigenvectors of the centred X'X, which leave the penalty alone), where
    the Hessian without effects is diagonal for every gene; full-batch L-BFGS starts from the class frequencies with
    that diagonal and ends where no derivative of the mean loss exceeds ``tol``, nor one of the whole sum 300 ``tol``
    (which bounds the error of the weights, as the penalty's curvature is 1).

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
    >>> fitted.predict_proba(rows)[1].astype(float).round(3).tolist()
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
        self.weights_ = np.zeros((*present.shape, design.shape[1]))  # intercepts first
        self.offset_ = np.where(present | (counted == 0)[:, None], 0.0, -np.inf)
        late = 0
        for k in CONTRASTS:
            members = np.flatnonzero(counted == k)
            for part in gene_blocks(len(members), k * len(rows), BLOCK):
                block = members[part]
                classes = np.nonzero(present[block])[1].reshape(len(block), k)
                hot = self._weighted(labels[:, block].T + 1, tested[:, block].T, classes)
                problem = _Softmax.of(design, hot, self.C)
                tol = self.tol * np.minimum(1.0, SUM_TOL / (self.C * hot.sum(axis=(1, 2))))
                found, open_ = minimise(problem, problem.start(), problem.curvature(), tol, self.max_iter)
                self.weights_[block[:, None], classes] = problem.logits(found)
                late += open_
        if late:
            warnings.warn(
                f"LabelLogistic: {late} of {len(present)} genes had not reached tol {self.tol:g} after "
                f"{self.max_iter} iterations; raise max_iter or lower C",
                RuntimeWarning,
                stacklevel=2,
            )
        return self

    def _weighted(self, code: np.ndarray, tested: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Weights (b, k, n) of the tested rows by class: ``code`` (b, n) in 0..2, ``classes`` (b, k)."""
        hot = ((code[:, None] == classes[:, :, None]) & tested[:, None]).astype(np.float64)
        if self.class_weight == "balanced":
            count = hot.sum(axis=2, keepdims=True)
            hot *= count.sum(axis=1, keepdims=True) / (classes.shape[1] * count)
        return hot

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """Probabilities (n, g, 3) of down, none, up, float32; RuntimeError before ``fit``."""
        if not hasattr(self, "weights_"):
            raise RuntimeError("LabelLogistic.predict called before fit")
        rows = (inputs.X - self.mean_) @ self.axes_
        out = np.empty((len(rows), *self.offset_.shape), dtype=np.float32)
        for genes in gene_blocks(len(self.offset_), len(CLASSES) * max(rows.shape), BLOCK):
            weights = self.weights_[genes]
            logits = np.tensordot(rows, weights[..., 1:], axes=(1, 2)) + (weights[..., 0] + self.offset_[genes])
            logits = np.exp(logits - logits.max(axis=2, keepdims=True))
            out[:, genes] = logits / logits.sum(axis=2, keepdims=True)
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
    binary penalty; three an orthonormal basis of the plane that sums to 0 (the penalised optimum lies in it), turned
    per gene so that the Hessian at the class frequencies is diagonal. Large arrays see only the k - 1 differences to
    the first class.

    Parameters
    ----------
    design : (n, r), a column of ones first.
    weight : (b, n) sample weights that sum to 1, 0 where untested.
    share : (b, k) weighted class frequencies.
    contrast : (b, k - 1, k).
    linear : (b, k - 1, r), the part of the mean log likelihood that is linear in the differences.
    penalty : (b, r), second derivative of the penalty in units of the mean loss.
    """

    design: np.ndarray
    weight: np.ndarray
    share: np.ndarray
    contrast: np.ndarray
    linear: np.ndarray
    penalty: np.ndarray

    @classmethod
    def of(cls, design: np.ndarray, hot: np.ndarray, C: float) -> _Softmax:
        """The problem of weighted one-hot labels ``hot`` (b, k, n)."""
        total = hot.sum(axis=(1, 2))
        share = hot.sum(axis=2) / total[:, None]
        hot = hot / total[:, None, None]
        penalty = np.repeat(1.0 / (C * total)[:, None], design.shape[1], axis=1)
        penalty[:, 0] = 0.0
        return cls(design, hot.sum(axis=1), share, _contrasts(share), _product(hot, design)[:, 1:], penalty)

    def start(self) -> np.ndarray:
        """(b, (k - 1) r): the logits of the class frequencies."""
        out = np.zeros(self.linear.shape)
        out[..., 0] = (self.contrast * np.log(self.share)[:, None]).sum(axis=2) / np.square(self.contrast).sum(axis=2)
        return out.reshape(len(out), -1)

    def curvature(self) -> np.ndarray:
        """(b, (k - 1) r): the diagonal of the Hessian at `start`, as if every gene were tested in all rows."""
        mean = (self.contrast * self.share[:, None]).sum(axis=2)
        spread = (np.square(self.contrast) * self.share[:, None]).sum(axis=2) - np.square(mean)
        out = np.square(self.design).mean(axis=0) * spread[:, :, None] + self.penalty[:, None]
        return out.reshape(len(out), -1)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Weights (b, k, r) of the classes' logits at coordinates ``x`` (b, (k - 1) r)."""
        return np.einsum("bqr,bqk->bkr", x.reshape(self.linear.shape), self.contrast)

    def take(self, which: np.ndarray) -> _Softmax:
        """The problems of some genes."""
        parts = (self.weight, self.share, self.contrast, self.linear, self.penalty)
        return _Softmax(self.design, *(part[which] for part in parts))

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (b,) and gradients (b, (k - 1) r) at coordinates ``x`` of that shape."""
        z = x.reshape(self.linear.shape)
        lift = self.contrast[:, :, 1:] - self.contrast[:, :, :1]
        lifted = _small(lift.transpose(0, 2, 1), z)
        odds = _product(lifted, self.design.T)
        top = np.maximum(odds.max(axis=1), 0.0) if odds.max(initial=0.0) > LARGE else None
        if top is not None:
            odds -= top[:, None]
        np.exp(odds, out=odds)
        total = odds[:, 0] + (1.0 if top is None else np.exp(-top))
        for c in range(1, odds.shape[1]):
            total += odds[:, c]
        odds *= (self.weight / total)[:, None]
        lse = np.log(total, out=total)
        if top is not None:
            lse += top
        value = np.einsum("bn,bn->b", lse, self.weight) - np.einsum("bqr,bqr->b", lifted, self.linear)
        pulled = self.penalty[:, None] * z
        value += np.einsum("bqr,bqr->b", z, pulled) / 2
        pulled += _small(lift, _product(odds, self.design) - self.linear)
        return value, pulled.reshape(x.shape)


def _contrasts(share: np.ndarray) -> np.ndarray:
    """Contrasts (b, k - 1, k) that are uncorrelated under the class shares (b, k)."""
    base = CONTRASTS[share.shape[1]]
    mean = share @ base.T
    spread = np.einsum("pk,qk,bk->bpq", base, base, share) - mean[:, :, None] * mean[:, None]
    return np.einsum("bpq,pk->bqk", np.linalg.eigh(spread)[1], base)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left`` (b, q, m) times ``right`` (m, n) as one matrix product, (b, q, n)."""
    return (left.reshape(-1, left.shape[2]) @ right).reshape(*left.shape[:2], right.shape[1])


def _small(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left`` (b, p, q) times ``right`` (b, q, r) for p and q of 1 or 2, (b, p, r)."""
    out = left[:, :, :1] * right[:, :1]
    for q in range(1, right.shape[1]):
        out += left[:, :, q : q + 1] * right[:, q : q + 1]
    return out
