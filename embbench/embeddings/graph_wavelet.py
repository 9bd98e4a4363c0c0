"""Spectral graph wavelets at several scales: where diffusion goes (position) or how it spreads (structure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy import fft, sparse

from embbench.core import Embedding, PerturbationDataset
from embbench.embeddings._graph import GraphParameters, landmarks
from embbench.embeddings._linalg import top_eigenpairs, truncated_svd
from embbench.embeddings._rows import pick

KERNELS: dict[str, Callable[[Any], Any]] = {"heat": lambda x: np.exp(-x), "mexican": lambda x: x * np.exp(-x)}
MODES = ("position", "structure")
POSITIONS = (1.0, 2.0, 4.0, 8.0)  # from direct partners (mean walk of one step) to complexes and pathways
TOLERANCE = 1e-12  # of the Chebyshev series; profiles multiply it by volume / degree, up to 1e6 on STRING
LARGEST = 1e6  # scale; its series has 8,000 terms, and e^-s of the largest eigenvalue is 0 long before
BLOCK = 64  # columns filtered together; fits the working set of a large graph into the cache
REACH = (0.85, 0.95)  # GraphWave: share of a wavelet's energy that the widest and the narrowest scale leave at its node
LAST = 100.0  # GraphWave evaluates characteristic functions on [0, 100]
SMALL = 0.1  # below this phase four Taylor terms of exp(ix) - 1 are exact to 1e-7


class GraphWavelet(GraphParameters):
    """Wavelets ``psi_s = U g(s Lambda) U^T`` of ``L = I - D^-1/2 A D^-1/2 = U Lambda U^T``, several scales s together.

    They are applied as Chebyshev polynomials of L, without eigenvectors, exact to 1e-12 (relative to the peak of g).

    ``position``: for every scale and landmark node j the wavelet is compared with chance,
    ``C_s(i, j) = vol psi_s(i, j) / sqrt(d_i d_j)``: under the heat kernel the probability that a continuous-time walk
    from i is at j after time s, over the share d_j / vol of all walks that are there. That takes the degree of both
    nodes out. ``sign(C) ln(1 + |C|)``, centred by column and scaled to Frobenius norm 1 per scale, is concatenated over
    scales, and ``U sqrt(S)`` of its truncated SVD is the embedding: nodes are alike when diffusion takes them to the
    same places. ``structure``: the characteristic function ``phi_a(t) = sum_m [exp(i t psi_s(m, a)) - 1]`` of the
    values of a node's wavelet, real and imaginary parts at equally spaced t in (0, 100]: nodes are alike when diffusion
    from them spreads alike, wherever they are (roles). The sum without its constant, not the mean of the paper, so that
    float32 keeps it; the same vectors up to an affine map.

    Only the largest connected component is embedded.

    Parameters
    ----------
    kernel : ``heat``, g(x) = exp(-x), or ``mexican``, g(x) = x exp(-x), a band-pass (no constant part).
    scales : s > 0, in units of 1 / eigenvalue of L (0 to 2); null takes 1, 2, 4, 8 for positions, and for structure
        ``-ln(0.95)`` and ``-ln(0.85)`` over ``sqrt(lambda_2 lambda_max)``.
    mode : ``position`` or ``structure``.
    landmarks : nodes whose wavelets make the profile of a position, drawn in proportion to their degree by a hash of
        their names; null takes all.
    **edges : see `GraphParameters`; ``dim`` is at most scales x landmarks, and for structure the points of t are as
        many as fit, ``dim / (2 scales)``.

    References
    ----------
    Hammond, Vandergheynst and Gribonval (2011), Wavelets on graphs via spectral graph theory, Applied and Computational
    Harmonic Analysis 30, sections 4.1 and 6 (wavelets, Chebyshev approximation); Donnat et al. (2018), Learning
    Structural Node Embeddings via Diffusion Wavelets, KDD, equations 2 to 4 and its rule for scales; the degree
    correction is that of Qiu et al. (2018), WSDM, equation 5, with heat in place of walks of fixed length.

    Examples
    --------
    >>> GraphWavelet(kernel="haar")
    Traceback (most recent call last):
    ValueError: GraphWavelet: kernel must be one of heat, mexican, got 'haar'
    """

    def __init__(
        self,
        graph: str = "ppi",
        dim: int = 100,
        kernel: str = "heat",
        scales: Sequence[float] | None = None,
        mode: str = "position",
        landmarks: int | None = 1000,
        **edges: Any,
    ) -> None:
        super().__init__(graph, dim, **edges)
        if kernel not in KERNELS:
            raise ValueError(f"GraphWavelet: kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if mode not in MODES:
            raise ValueError(f"GraphWavelet: mode must be one of {', '.join(MODES)}, got {mode!r}")
        if scales is not None and not (len(scales) and all(isinstance(s, Real) and 0 < s <= LARGEST for s in scales)):
            raise ValueError(f"GraphWavelet: scales must be positive numbers up to {LARGEST:g}, got {scales}")
        if landmarks is not None and (not isinstance(landmarks, int) or landmarks < 1):
            raise ValueError(f"GraphWavelet: landmarks must be an integer >= 1 or null, got {landmarks!r}")
        count = 2 if scales is None else len(scales)
        if mode == "structure" and dim < 2 * count:
            raise ValueError(f"GraphWavelet: structure needs dim >= 2 per scale, got {dim} for {count} scales")
        self.kernel, self.mode, self.landmarks = kernel, mode, landmarks
        self.scales = None if scales is None else tuple(float(s) for s in scales)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, dim or fewer), float32, of the asked nodes in the component; ``train`` is not read.

        Raises
        ------
        UserError
            The edges cannot be read or no component has 3 nodes.
        """
        nodes, adjacency, outside = self.component()
        degree = np.asarray(adjacency.sum(axis=1)).ravel()
        half = sparse.diags(1 / np.sqrt(degree))
        scaled = (half @ adjacency @ half).tocsr()
        if self.mode == "position":
            scales = self.scales or POSITIONS
            vectors = self._positions(scaled, degree, landmarks(nodes, self.landmarks, degree), scales)
        else:
            scales = self.scales or role_scales(scaled)
            vectors = self._roles(scaled, scales)
        facts = {"source": self.graph, "nodes": len(nodes), "outside_component": outside, "holds": "knowledge"}
        return pick(names, nodes.tolist(), vectors, self.entity, {**facts, "scales": list(scales)})

    def _positions(
        self, scaled: sparse.csr_matrix, degree: np.ndarray, columns: np.ndarray, scales: Sequence[float]
    ) -> np.ndarray:
        profile = np.empty((len(degree), len(scales), len(columns)))
        chance = np.sqrt(degree / degree.sum())
        for start in range(0, len(columns), BLOCK):
            block = columns[start : start + BLOCK]
            for s, psi in enumerate(wavelets(scaled, block, self.kernel, scales)):
                ratio = psi / chance[:, None] / chance[block]
                profile[:, s, start : start + BLOCK] = np.sign(ratio) * np.log1p(np.abs(ratio))
        profile -= profile.mean(axis=0)
        for s in range(len(scales)):
            profile[:, s] /= np.linalg.norm(profile[:, s]) or 1.0
        U, size, _ = truncated_svd(profile.reshape(len(degree), -1), self.dim)
        return U * np.sqrt(size)

    def _roles(self, scaled: sparse.csr_matrix, scales: Sequence[float]) -> np.ndarray:
        n = scaled.shape[0]
        points = np.linspace(0, LAST, self.dim // (2 * len(scales)) + 1)[1:]
        out = np.empty((n, len(scales), 2 * len(points)))
        for start in range(0, n, BLOCK):
            block = np.arange(start, min(start + BLOCK, n))
            for s, psi in enumerate(wavelets(scaled, block, self.kernel, scales)):
                phi = characteristic(psi, points)
                out[block, s] = np.concatenate([phi.real, phi.imag], axis=1)
        return out.reshape(n, -1)


def wavelets(scaled: sparse.csr_matrix, columns: np.ndarray, kernel: str, scales: Sequence[float]) -> list[np.ndarray]:
    """Columns of ``g(s (I - S))`` for every scale: shape (n, columns) each, from one Chebyshev recurrence for all.

    Parameters
    ----------
    scaled : S of shape (n, n), symmetric, spectrum in [-1, 1], e.g. ``D^-1/2 A D^-1/2``.
    columns : node numbers.
    kernel, scales : see `GraphWavelet`.

    Examples
    --------
    >>> pair = sparse.csr_matrix([[0.0, 1.0], [1.0, 0.0]])  # eigenvalues of I - S: 0 and 2
    >>> wavelets(pair, np.array([0]), "heat", [1.0])[0].ravel().round(6).tolist() == [0.567668, 0.432332]
    True
    """
    series = [_series(kernel, s) for s in scales]
    here = np.zeros((scaled.shape[0], len(columns)))
    here[columns, np.arange(len(columns))] = 1.0
    after = scaled @ here
    out = [c[0] * here + c[1] * after for c in series]
    for k in range(2, max(map(len, series))):
        here, after = after, 2 * (scaled @ after) - here
        for total, c in zip(out, series, strict=True):
            if k < len(c):
                total += c[k] * after
    return out


def _series(kernel: str, scale: float) -> np.ndarray:
    """Chebyshev coefficients on [-1, 1] of ``x -> g(scale (1 - x))``, cut where the rest is below the tolerance.

    The cosine transform of its values at ``x = cos t``, where ``1 - x = 2 sin^2(t / 2)`` does not cancel. Coefficients
    of both kernels fall as ``exp(-k^2 / 2s)`` for large s (they are Bessel functions: Abramowitz and Stegun, 9.6.34).
    """
    points = 40 + int(10 * np.sqrt(scale))  # exp(-10^2 / 2) is below rounding; 40 are enough where s is small
    angle = np.pi * (np.arange(points) + 0.5) / points
    c = fft.dct(KERNELS[kernel](2 * scale * np.sin(angle / 2) ** 2)) / points
    c[0] /= 2
    rest = np.cumsum(np.abs(c[::-1]))[::-1]
    return c[: max(2, int(np.searchsorted(-rest, -TOLERANCE * np.abs(c).max())))]


def role_scales(scaled: sparse.csr_matrix) -> tuple[float, float]:
    """GraphWave's range of scales, ``-ln(eta) / sqrt(lambda_2 lambda_max)`` for eta of 0.95 and 0.85.

    ``scaled`` is S of shape (n, n); ``lambda = 1 - eigenvalue of S``.
    """
    second = 1 - top_eigenpairs(scaled, 2)[0][1]
    largest = 1 + top_eigenpairs(-scaled, 1)[0][0]
    wide, narrow = (-np.log(share) / np.sqrt(second * largest) for share in REACH)
    return float(narrow), float(wide)


def characteristic(psi: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``sum_m [exp(i t psi[m, a]) - 1]`` for every column a of psi (n, columns) and point t (k,): (columns, k) complex.

    Most entries of a wavelet are tiny: those with ``t psi < 0.1`` for all t enter by their first four moments.
    """
    near = np.abs(psi) * points.max() < SMALL
    small = np.where(near, psi, 0.0)
    out = np.zeros((psi.shape[1], len(points)), dtype=np.complex128)
    power, factor = np.ones_like(psi), np.ones(len(points), dtype=np.complex128)
    for k in range(1, 5):
        power, factor = power * small, factor * (1j * points / k)
        out += power.sum(axis=0)[:, None] * factor
    column, row = np.nonzero(~near.T)
    values = np.expm1(1j * psi[row, column][:, None] * points)
    starts = np.searchsorted(column, np.arange(psi.shape[1] + 1))
    running = np.concatenate([np.zeros((1, len(points))), np.cumsum(values, axis=0)])
    return out + running[starts[1:]] - running[starts[:-1]]
