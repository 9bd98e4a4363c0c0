"""Smoother weights as heads make them, and what a Gram matrix tells of their predictions without a pass over genes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import numpy as np
from scipy import sparse

from embbench.numerics.jit import compiled, has_numba

DENSE = 0.08  # share of weights that are not 0 from which on a dense product costs less
GATHERED = 1 << 22  # Gram entries of neighbours held at a time (32 MB)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Weights of nearest neighbours; settings that use fewer of the same neighbours share ``index``.

    Parameters
    ----------
    index : (m, K) int64, training rows, nearest first.
    share : (m, k) float64, k <= K, what each of the first k counts.
    n : number of training rows.
    """

    index: np.ndarray
    share: np.ndarray
    n: int

    @property
    def base(self) -> object:
        """What settings of one search have in common."""
        return self.index

    def matrix(self) -> sparse.csr_matrix:
        """CSR of shape (m, n), columns ascending, without stored zeros."""
        m, k = self.share.shape
        parts = (self.share.ravel(), self.index[:, :k].ravel(), np.arange(m + 1) * k)
        out = sparse.csr_matrix(parts, shape=(m, self.n), copy=True)
        out.eliminate_zeros()
        out.sort_indices()
        return out


@dataclass(frozen=True, eq=False)
class Spectral:
    """``offset + (left * scale) @ right``: penalties on the same eigenvectors share ``left`` and ``right``.

    Parameters
    ----------
    left, scale, right : of shape (m, r), (r,) and (r, n), float64.
    offset : added to every weight, 1 / n for an intercept that is not penalised.
    """

    left: np.ndarray
    scale: np.ndarray
    right: np.ndarray
    offset: float = 0.0

    @property
    def base(self) -> object:
        """What settings of one decomposition have in common."""
        return self.right

    def matrix(self) -> np.ndarray:
        """Weights of shape (m, n), float64."""
        return self.offset + (self.left * self.scale) @ self.right


Weights = np.ndarray | sparse.csr_matrix | Neighbours | Spectral


def matrix_of(weights: Weights) -> np.ndarray | sparse.csr_matrix:
    """Weights as a dense or CSR matrix of shape (m, n).

    Examples
    --------
    >>> matrix_of(Neighbours(np.array([[1, 0]]), np.array([[1.0]]), 2)).toarray().tolist()
    [[0.0, 1.0]]
    """
    return weights.matrix() if isinstance(weights, Neighbours | Spectral) else weights


@dataclass(frozen=True)
class GramBlock:
    """Inner products over genes that selection may see: rows that are fitted, and rows that are held out.

    Parameters
    ----------
    products : (N, N) float64, of all training rows.
    totals : (N,), sums over genes.
    fit, held : (n,) and (m,) row numbers.
    genes : number of genes.
    """

    products: np.ndarray
    totals: np.ndarray
    fit: np.ndarray
    held: np.ndarray
    genes: int

    @functools.cached_property
    def inner(self) -> np.ndarray:
        """(n, n), among fitted rows."""
        return self.products[self.fit][:, self.fit]

    @functools.cached_property
    def cross(self) -> np.ndarray:
        """(m, n), of held rows with fitted rows."""
        return self.products[self.held][:, self.fit]

    @functools.cached_property
    def own(self) -> np.ndarray:
        """(m,), of held rows with themselves."""
        return self.products[self.held, self.held]

    @property
    def inner_total(self) -> np.ndarray:
        """(n,), sums of fitted rows over genes."""
        return self.totals[self.fit]


FLAT = 1e-12  # below this share of the square what is left after subtracting the mean is rounding


@dataclass(frozen=True)
class Forms:
    """Sums over genes of predictions p and of what they are judged against, t: all that some scores need.

    Parameters
    ----------
    dot, square, total : ``p.t``, ``p.p`` and the sum of p, of shape (m,) or (c, m) for c settings, float64.
    own, own_total : ``t.t`` and the sum of t, (m,).
    genes : number of genes, or (m,) numbers of them.
    """

    dot: np.ndarray
    square: np.ndarray
    total: np.ndarray
    own: np.ndarray
    own_total: np.ndarray
    genes: np.ndarray | int

    def squared_error(self) -> np.ndarray:
        """``|p - t|^2``, never negative."""
        return np.maximum(self.square - 2 * self.dot + self.own, 0.0)

    def cosine(self) -> np.ndarray:
        """``p.t / (|p| |t|)``; NaN where one of them is 0."""
        return _ratio(self.dot, self.square, self.own)

    def pearson(self) -> np.ndarray:
        """Correlation over genes; NaN where one of the two is constant to 1e-12 of its square."""
        genes = np.maximum(self.genes, 1)
        own, square = self.own - self.own_total**2 / genes, self.square - self.total**2 / genes
        own, square = (np.where(x > FLAT * y, x, 0.0) for x, y in ((own, self.own), (square, self.square)))
        return _ratio(self.dot - self.total * self.own_total / genes, square, own)


def error_of(score: str, squares: np.ndarray, genes: np.ndarray | int) -> np.ndarray:
    """``l2``, ``mse`` or ``rmse`` from squared errors (m,) or (c, m) over ``genes`` genes; NaN where there is none.

    Examples
    --------
    >>> error_of("rmse", np.array([8.0, 0.0]), np.array([2, 0])).tolist()
    [2.0, nan]
    """
    mean = squares / (1 if score == "l2" else np.maximum(genes, 1))
    return np.where(np.asarray(genes) > 0, mean if score == "mse" else np.sqrt(mean), np.nan)


ERRORS = ("l2", "mse", "rmse")  # scores of which squared errors are enough
SCORES: dict[str, Callable[[Forms], np.ndarray]] = {
    **{name: functools.partial(lambda name, f: error_of(name, f.squared_error(), f.genes), name) for name in ERRORS},
    "cosine": Forms.cosine,
    "pearson": lambda f: np.where(np.asarray(f.genes) > 1, f.pearson(), np.nan),
}  # by the name of the metric without its genes


def _ratio(dot: np.ndarray, square: np.ndarray, own: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.maximum(square, 0.0)) * np.sqrt(np.maximum(own, 0.0))
    return np.clip(np.where(size > 0, dot / np.where(size > 0, size, 1.0), np.nan), -1.0, 1.0)


def forms_of(path: Iterable[Weights], block: GramBlock) -> Forms:
    """What the settings of a path predict for the held rows of ``block``, from inner products alone.

    ``p.t = w K_t`` and ``p.p = w K w'`` with K = Y Y'; settings that share a search or a decomposition share its part
    of K. No prediction over genes is made.

    References
    ----------
    The kernel trick for linear smoothers: Hastie, Tibshirani and Friedman (2009), The Elements of Statistical
    Learning, section 18.5 (computations through the n x n matrix of inner products when genes outnumber rows).

    Examples
    --------
    >>> Y = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> block = GramBlock(Y @ Y.T, Y.sum(axis=1), np.array([0, 1]), np.array([2]), genes=2)
    >>> forms_of([np.array([[0.5, 0.5]])], block).squared_error().tolist()
    [[0.5]]
    """
    dots, squares, totals = [], [], []
    single = count(start=-1, step=-1)  # matrices share nothing and are large: one at a time
    for _, run in groupby(path, key=lambda w: id(w.base) if isinstance(w, Neighbours | Spectral) else next(single)):
        some = list(run)
        if isinstance(some[0], Neighbours):
            dot, square, total = _neighbour_forms(some, block)
        elif isinstance(some[0], Spectral):
            dot, square, total = _spectral_forms(some, block)
        else:
            made = (*quadratic(some[0], block.inner, block.cross), some[0] @ block.inner_total)
            dot, square, total = (part[None] for part in made)
        dots.append(dot)
        squares.append(square)
        totals.append(total)
    sums = (np.concatenate(part) for part in (dots, squares, totals))
    return Forms(*sums, block.own, block.totals[block.held], block.genes)


def quadratic(W: np.ndarray | sparse.csr_matrix, inner: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``w . c`` and ``w K w'`` of each row w of a matrix of weights, both (m,) float64.

    Parameters
    ----------
    W : (m, n), dense or CSR.
    inner : K, of shape (n, n).
    cross : of shape (m, n), one c for each row.

    Examples
    --------
    >>> quadratic(np.array([[1.0, 2.0]]), np.eye(2), np.array([[3.0, 4.0]]))
    (array([11.]), array([5.]))
    """
    if sparse.issparse(W) and W.nnz > DENSE * W.shape[0] * W.shape[1]:
        W = W.toarray()
    if not sparse.issparse(W):
        return np.einsum("mn,mn->m", W, cross), np.einsum("mn,mn->m", W @ inner, W)
    W = sparse.csr_matrix(W)
    dot = np.asarray(W.multiply(cross).sum(axis=1)).ravel()
    if not has_numba():
        return dot, np.asarray(W.multiply(W @ inner).sum(axis=1)).ravel()
    square = np.zeros(W.shape[0])
    _sparse_squares(W.data, W.indices, W.indptr, inner, square)
    return dot, square


@compiled
def _sparse_squares(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, products: np.ndarray, out: np.ndarray
) -> None:
    """``out[m] = w K w'`` of the rows w of a CSR matrix, K being ``products``."""
    for m in range(len(out)):
        start, stop = indptr[m], indptr[m + 1]
        for i in range(start, stop):
            row, total = products[indices[i]], 0.0
            for j in range(start, stop):
                total += data[j] * row[indices[j]]
            out[m] += data[i] * total


def _spectral_forms(some: Sequence[Spectral], block: GramBlock) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    right, fit, held = some[0].right, block.fit, block.held
    padded, fitted = np.zeros((len(right), len(block.products))), np.zeros(len(block.products))
    padded[:, fit], fitted[fit] = right, 1.0
    # One product with the whole matrix costs less than cutting blocks out of it.
    through, summed = padded @ block.products, block.products @ fitted
    core, crossed, sums = through[:, fit] @ right.T, through[:, held], through @ fitted
    whole, rows, through_total = fitted @ summed, summed[held], padded @ block.totals
    dot, square, total = (np.empty((len(some), len(block.own))) for _ in range(3))
    for i, w in enumerate(some):
        left = w.left * w.scale
        dot[i] = w.offset * rows + np.einsum("mr,rm->m", left, crossed)
        square[i] = w.offset**2 * whole + 2 * w.offset * (left @ sums) + np.einsum("mr,mr->m", left @ core, left)
        total[i] = w.offset * block.inner_total.sum() + left @ through_total
    return dot, square, total


def _neighbour_forms(some: Sequence[Neighbours], block: GramBlock) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index, sizes = some[0].index, np.array([w.share.shape[1] for w in some])
    index = block.fit[index[:, : sizes.max()]]
    near, level = block.products[block.held[:, None], index], block.totals[index]
    dot = np.stack([np.einsum("mk,mk->m", w.share, near[:, :k]) for w, k in zip(some, sizes, strict=True)])
    total = np.stack([np.einsum("mk,mk->m", w.share, level[:, :k]) for w, k in zip(some, sizes, strict=True)])
    square = np.zeros_like(dot)
    if has_numba():
        shares = np.zeros((len(some), *index.shape))
        for i, w in enumerate(some):
            shares[i, :, : sizes[i]] = w.share
        _squares(block.products, index, shares, sizes, square)
        return dot, square, total
    step = max(1, GATHERED // index.shape[1] ** 2)
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        among = block.products[index[part, :, None], index[part, None, :]]
        for i, (w, k) in enumerate(zip(some, sizes, strict=True)):
            share = w.share[part]
            square[i, part] = np.einsum("mk,mk->m", np.einsum("mjk,mj->mk", among[:, :k, :k], share), share)
    return dot, square, total


@compiled
def _squares(products: np.ndarray, index: np.ndarray, shares: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    """``out[c, m] = w K w'`` over the first ``sizes[c]`` neighbours of query m, K being ``products``."""
    settings, queries, largest = shares.shape
    among, through = np.empty((largest, largest)), np.empty(largest)
    for m in range(queries):
        for j in range(largest):
            row = products[index[m, j]]
            for k in range(largest):
                among[j, k] = row[index[m, k]]
        for c in range(settings):
            size = sizes[c]
            through[:size] = 0.0
            for j in range(size):
                weight = shares[c, m, j]
                for k in range(size):
                    through[k] += weight * among[j, k]
            total = 0.0
            for k in range(size):
                total += through[k] * shares[c, m, k]
            out[c, m] = total
