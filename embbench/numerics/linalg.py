"""Gram matrices and principal components: exact, in float64, with one fixed sign."""

from __future__ import annotations

import numpy as np
from scipy import linalg

GRAM_FLOOR = 1e-4  # below this share of the largest singular value the squared problem has lost too many digits
SIGN_TIE = 1e-6  # relative; without it rounding decides between loadings of equal size


def gram(Y: np.ndarray, other: np.ndarray | None = None, *, block: int = 1024) -> np.ndarray:
    """Inner products of rows over genes, ``Y Yᵀ`` or ``Y otherᵀ``, accumulated in float64.

    Parameters
    ----------
    Y : of shape (n, g), float32 or float64.
    other : of shape (m, g), or None (``Y`` itself; the result is then exactly symmetric).
    block : genes per block, so that no float64 copy of ``Y`` is made.

    Returns
    -------
    (n, n) or (n, m) float64.

    Raises
    ------
    ValueError
        ``other`` has another number of genes.

    Examples
    --------
    >>> gram(np.array([[1, 2], [0, 3]], np.float32)).tolist()
    [[5.0, 6.0], [6.0, 9.0]]
    """
    if other is not None and other.shape[1] != Y.shape[1]:
        raise ValueError(f"gram: {other.shape[1]} genes do not match {Y.shape[1]}")
    out = np.zeros((len(Y), len(Y if other is None else other)))
    for start in range(0, Y.shape[1], block):
        left = Y[:, start : start + block].astype(np.float64)
        right = left if other is None else other[:, start : start + block].astype(np.float64)
        out += left @ right.T
    return out


def pca(X: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal axes of the rows of ``X``: exact, never randomised.

    The eigenvectors of the smaller Gram matrix of the centred data are used where they keep their digits
    (``s_k >= 1e-4 s_1``), else the full singular value decomposition. Axes without variance are left out, since
    they are arbitrary. Each axis has the sign that makes its largest absolute loading positive (ties to 1e-6: the
    first one).

    Parameters
    ----------
    X : of shape (n, d), finite.
    dim : number of axes wanted, >= 1.

    Returns
    -------
    mean : (d,) float64.
    components : of shape (d, k), float64, orthonormal columns, ``k = min(dim, rank of the centred data)``.
    singular : (k,) float64, singular values of the centred data, descending.

    Raises
    ------
    ValueError
        ``dim`` < 1 or ``X`` is not a matrix with rows.

    References
    ----------
    Jolliffe (2002), Principal Component Analysis, section 3.5.

    Examples
    --------
    >>> pca(np.array([[0.0, 0.0], [3.0, 4.0]]), 2)[1].round(3).tolist()
    [[0.6], [0.8]]
    """
    _check("pca", X, dim)
    mean = X.mean(axis=0, dtype=np.float64)
    X = X - mean
    k = min(dim, len(X) - 1, X.shape[1])
    if k < 1 or not X.any():
        return mean, np.zeros((X.shape[1], 0)), np.zeros(0)
    axes, singular = _axes_by_gram(X, k)
    if singular[-1] < GRAM_FLOOR * singular[0]:
        _, s, vt = linalg.svd(X, full_matrices=False)
        rank = int((s > s[0] * max(X.shape) * np.finfo(np.float64).eps).sum())
        axes, singular = vt[: min(k, rank)].T, s[: min(k, rank)]
    return mean, _signed(axes), singular


def _check(name: str, X: np.ndarray, dim: int) -> None:
    if dim < 1 or X.ndim != 2 or not len(X):
        raise ValueError(
            f"{name}: needs dim >= 1 and a (rows, columns) matrix with rows, got dim {dim} and shape {X.shape}"
        )


def _signed(axes: np.ndarray) -> np.ndarray:
    """Columns of ``axes`` (d, k) flipped so that the first of the largest absolute entries (to 1e-6) is positive."""
    size = np.abs(axes)
    first = (size >= (1 - SIGN_TIE) * size.max(axis=0)).argmax(axis=0)
    return np.ascontiguousarray(axes * np.sign(axes[first, np.arange(axes.shape[1])]))


def _axes_by_gram(X: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Top ``k`` right singular vectors (d, k) and values of centred ``X``, from the smaller of ``XᵀX`` and ``XXᵀ``."""
    n, d = X.shape
    square = X.T @ X if d <= n else X @ X.T
    # Most of a small matrix's eigenvectors cost less than some of them.
    some = [len(square) - k, len(square) - 1] if 2 * k < len(square) else None
    values, vectors = linalg.eigh(
        square, subset_by_index=some, driver="evr" if some else "evd", overwrite_a=True, check_finite=False
    )
    values, vectors = values[len(values) - k :], vectors[:, len(values) - k :]
    singular = np.sqrt(np.maximum(values[::-1], 0.0))
    vectors = vectors[:, ::-1]
    if d <= n:
        return vectors, singular
    return (X.T @ vectors) / np.maximum(singular, np.finfo(np.float64).tiny), singular


def sklearn_pca(
    X: np.ndarray, dim: int, solver: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Principal axes as scikit-learn's ``PCA(n_components, svd_solver=solver, random_state=seed)`` returns them, signs
    included: for reproducing tables that were made with its randomised solver. `pca` is exact, and the default.

    Parameters
    ----------
    X : of shape (n, d), finite.
    dim : number of axes wanted, >= 1; cut to min(n - 1, d).
    solver : ``randomized``, or ``auto``: whichever scikit-learn's rule picks for this shape.
    seed : of the random test matrix, >= 0.

    Returns
    -------
    mean (d,), components (d, k) and singular values (k,), float64, as in `pca`; axes without variance are left out. And
    the scores (n, k) that its ``fit_transform`` gives: of a randomised solver they are not the projections of the rows.

    Raises
    ------
    ValueError
        ``dim`` < 1 or ``X`` is not a matrix with rows.

    References
    ----------
    Halko, Martinsson and Tropp (2011), SIAM Review 53:217-288, algorithm 4.3.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(9, 4))
    >>> bool(np.allclose(sklearn_pca(X, 2, "randomized", 0)[2], pca(X, 2)[2]))
    True
    """
    _check("sklearn_pca", X, dim)
    X = X.astype(np.float64)
    mean, k = X.mean(axis=0), min(dim, len(X) - 1, X.shape[1])
    if k < 1 or not (X - mean).any():
        return mean, np.zeros((X.shape[1], 0)), np.zeros(0), np.zeros((len(X), 0))
    from sklearn.decomposition import PCA

    made = PCA(n_components=k, svd_solver=solver, random_state=seed)
    scores = made.fit_transform(X)
    singular = made.singular_values_
    rank = int((singular > singular[0] * max(X.shape) * np.finfo(np.float64).eps).sum())
    return made.mean_, np.ascontiguousarray(made.components_[:rank].T), singular[:rank], scores[:, :rank]
