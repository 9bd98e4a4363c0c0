"""Deterministic spectral kernels: truncated SVD and leading eigenpairs with a fixed start vector and fixed signs."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, eigsh

DENSE = 1000  # up to this order a dense eigendecomposition is exact and about as fast as Lanczos
SHARE = 8  # matrices of up to this many times the pairs asked for are dense too: Lanczos then costs more than LAPACK
RANK_TOLERANCE = 1e-7  # singular values come from a Gram matrix, so smaller relative ones are rounding noise


def signed(vectors: np.ndarray) -> np.ndarray:
    """Flip columns of ``vectors`` of shape (n, k) so that the entry of largest magnitude is positive.

    Entries within 1e-6 of the largest count as tied and the first one decides, so that rounding cannot flip a column.

    Examples
    --------
    >>> signed(np.array([[0.1, -2.0], [-3.0, 2.0]])).tolist()
    [[-0.1, 2.0], [3.0, -2.0]]
    """
    size = np.abs(vectors)
    first = np.argmax(size >= (1 - 1e-6) * size.max(axis=0, initial=0.0), axis=0)
    lead = vectors[first, np.arange(vectors.shape[1])]
    return vectors * np.where(lead < 0, -1.0, 1.0)


def top_eigenpairs(matrix: np.ndarray | sparse.spmatrix | LinearOperator, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` algebraically largest eigenpairs of a real symmetric matrix of shape (n, n), largest first.

    Dense LAPACK up to order 1000 or 8 k, else implicitly restarted Lanczos (ARPACK, to machine precision) from a fixed
    start vector; the same input gives the same bits. ValueError for ``k`` < 1.

    Returns
    -------
    values : of shape (min(k, n),), float64, descending.
    vectors : of shape (n, min(k, n)), float64, orthonormal, signs fixed by `signed`.

    Examples
    --------
    >>> top_eigenpairs(np.diag([1.0, 3.0, 2.0]), 2)[0].round(6).tolist()
    [3.0, 2.0]
    """
    n = matrix.shape[0]
    if k < 1:
        raise ValueError(f"top_eigenpairs: k must be >= 1, got {k}")
    k = min(k, n)
    if n <= max(DENSE, SHARE * k):
        dense = _dense(matrix)
        values, vectors = linalg.eigh(dense, subset_by_index=(n - k, n - 1))
    else:
        start = np.random.default_rng(0).standard_normal(n)
        values, vectors = eigsh(matrix, k=k, which="LA", v0=start, **_restart_stream())
    order = np.argsort(-values, kind="stable")
    return values[order], signed(vectors[:, order])


def truncated_svd(matrix: np.ndarray | sparse.spmatrix, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leading singular triplets of ``matrix`` (n, m), without centring; directions of singular value 0 are left out.

    Eigenvectors of the smaller Gram operator, then an exact small SVD of the projected matrix. ValueError: ``k`` < 1.

    Returns
    -------
    U, s, V : of shape (n, r), (r,) descending and (m, r), all float64, ``r = min(k, rank)``; in each column of U the
    entry of largest magnitude is positive.

    References
    ----------
    Golub and Van Loan (2013), Matrix Computations, section 8.6.
    """
    matrix = matrix.astype(np.float64)
    if matrix.shape[0] < matrix.shape[1]:
        V, s, U = _tall_svd(matrix.T, k)
    else:
        U, s, V = _tall_svd(matrix, k)
    flips = np.sign((signed(U) * U).sum(axis=0))
    return U * flips, s, V * flips


def _tall_svd(matrix: np.ndarray | sparse.spmatrix, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    m = matrix.shape[1]
    if m <= max(DENSE, SHARE * k):
        gram: Any = _dense(matrix.T @ matrix)
    else:
        transposed: Any = sparse.csr_matrix(matrix.T) if sparse.issparse(matrix) else matrix.T
        gram = LinearOperator((m, m), matvec=lambda x: transposed @ (matrix @ x), dtype=np.float64)
    _, basis = top_eigenpairs(gram, k)
    basis, _ = np.linalg.qr(basis)
    U, s, rotation = np.linalg.svd(matrix @ basis, full_matrices=False)
    keep = s > RANK_TOLERANCE * s.max(initial=0.0)
    return U[:, keep], s[keep], (basis @ rotation.T)[:, keep]


def _dense(matrix: np.ndarray | sparse.spmatrix | LinearOperator) -> np.ndarray:
    if sparse.issparse(matrix):
        return sparse.csr_matrix(matrix).toarray()
    return matrix @ np.eye(matrix.shape[1]) if isinstance(matrix, LinearOperator) else np.asarray(matrix)


def _restart_stream() -> dict[str, Any]:
    # newer SciPy draws a new vector when the Krylov space is exhausted: from a fixed stream, else bits would vary
    return {"rng": np.random.default_rng(0)} if "rng" in inspect.signature(eigsh).parameters else {}


def centred(values: np.ndarray, observed: np.ndarray | None) -> np.ndarray:
    """``values`` of shape (n, g) minus the mean of each column's observed entries, float64; unobserved entries are 0.

    Examples
    --------
    >>> centred(np.array([[1.0, 5.0], [3.0, 9.0]]), np.array([[True, True], [True, False]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    if observed is None:
        return values - values.mean(axis=0, dtype=np.float64)
    filled = np.where(observed, values, 0.0).astype(np.float64)
    mean = filled.sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
    return np.where(observed, filled - mean, 0.0)
