"""The E-test: are perturbed cells further from control cells, in the mean, than a random relabelling puts them."""

from __future__ import annotations

import numpy as np


def e_statistic(perturbed: np.ndarray, control: np.ndarray) -> float:
    """Squared-Euclidean energy distance, V form: ``2 E|x-c|^2 - E|x-x'|^2 - E|c-c'|^2 = 2 |mean x - mean c|^2``.

    Parameters
    ----------
    perturbed, control : of shape (m, k) and (n, k).

    References
    ----------
    Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143:1249, equation 6.1 with exponent 2.

    Examples
    --------
    >>> e_statistic(np.array([[1.0], [3.0]]), np.array([[0.0]]))
    8.0
    """
    difference = perturbed.mean(axis=0) - control.mean(axis=0)
    return float(2 * difference @ difference)


def e_test(
    perturbed: np.ndarray,
    control: np.ndarray,
    rng: np.random.Generator,
    strata: tuple[np.ndarray, np.ndarray] | None = None,
    permutations: int = 999,
) -> float:
    """Permutation p value ``(1 + #{permuted >= observed}) / (1 + permutations)`` of `e_statistic`.

    With strata (batches), labels are permuted within each of them and the statistic is ``2 |sum_b w_b (mean x_b -
    mean c_b)|^2`` with ``w_b`` proportional to ``n_x,b n_c,b / (n_x,b + n_c,b)``; one stratum: the plain one.

    Parameters
    ----------
    perturbed, control : cells of shape (m, k) and (n, k), not used to choose the k axes.
    rng : source of the permutations.
    strata : codes (m,) and (n,); strata that lack one of the two are left out.
    permutations : number of relabellings, all in one matrix product.

    Returns
    -------
    float
        NaN when no stratum has both kinds of cell.

    References
    ----------
    Peidli et al. (2024), Nature Methods 21:531 (E-test for perturbation screens); Phipson and Smyth (2010), Statistical
    Applications in Genetics and Molecular Biology 9:39, equation 2 (the p value is never 0).

    Examples
    --------
    >>> e_test(np.full((9, 1), 5.0), np.zeros((9, 1)), np.random.default_rng(0), permutations=99)
    0.01
    """
    codes = strata or (np.zeros(len(perturbed), np.int64), np.zeros(len(control), np.int64))
    shared = np.intersect1d(codes[0], codes[1])
    sizes = [(int((codes[0] == s).sum()), int((codes[1] == s).sum())) for s in shared]
    raw = [n_x * n_c / (n_x + n_c) for n_x, n_c in sizes]
    gap: np.ndarray | float = 0.0
    for s, (n_x, n_c), r in zip(shared, sizes, raw, strict=True):
        cells = np.concatenate([perturbed[codes[0] == s], control[codes[1] == s]]).astype(np.float64)
        signs = np.empty((permutations + 1, n_x + n_c))
        signs[:, :n_x], signs[:, n_x:] = 1 / n_x, -1 / n_c
        rng.permuted(signs[1:], axis=1, out=signs[1:])
        gap = gap + (r / sum(raw)) * (signs @ (cells - cells.mean(axis=0)))
    if not len(shared):
        return float("nan")
    statistic = 2 * np.einsum("ij,ij->i", gap, gap)
    beaten = statistic[1:] >= statistic[0] * (1 - 1e-12)  # an identical relabelling may differ in the last bit
    return float((1 + beaten.sum()) / (1 + permutations))
