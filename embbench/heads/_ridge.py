"""Ridge regression as a smoother, for several penalties from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from embbench.numerics.smoothers import Spectral


def ridge_path(train_X: np.ndarray, query_X: np.ndarray, alphas: Iterable[float]) -> Iterator[np.ndarray]:
    """Weights W of shape (n_query, n_train), float64, rows summing to 1, of one penalty after another (each > 0).

    With A the training features (n_train, d) minus their column means, W = 1/n + (x - mean) (A'A + alpha I)^-1 A',
    through the eigenvectors of A'A or of A A', whichever is smaller.

    References
    ----------
    Hoerl and Kennard (1970), Technometrics 12:55-67, equation 2.1; the dual form: Saunders, Gammerman and Vovk (1998).

    Examples
    --------
    >>> X = np.array([[-1.0], [1.0]])
    >>> next(ridge_path(X, X, [2.0])).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    return (weights.matrix() for weights in ridge_spectral(train_X, query_X, alphas))


def ridge_spectral(train_X: np.ndarray, query_X: np.ndarray, alphas: Iterable[float]) -> Iterator[Spectral]:
    """The same weights as `ridge_path` as factors, which all penalties share."""
    mean = train_X.mean(axis=0, dtype=np.float64)
    rows, asked = train_X - mean, query_X - mean
    n, d = rows.shape
    value, vector = np.linalg.eigh(rows.T @ rows if d <= n else rows @ rows.T)
    # Directions without variance carry no signal, only rounding that a tiny alpha would blow up.
    used = value > value.max(initial=0.0) * max(n, d) * np.finfo(np.float64).eps
    value, vector = value[used], vector[:, used]
    left, right = (asked @ vector, vector.T @ rows.T) if d <= n else (asked @ (rows.T @ vector), vector.T)
    for alpha in alphas:
        yield Spectral(left, 1.0 / (value + alpha), right, 1.0 / n)
