"""Resampled effects of one fold from its cells: every resample is a matrix (m, g) of deviations from the observed one.

Perturbed cells are resampled for each row, the controls of half B once for all rows of a context (their noise is shared
in the screen, so it is shared here), and not at all where the screen was made with shared controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embbench.core import CellView, PerturbationDataset, Truth, view_cells
from embbench.numerics.moments import batch_weights
from embbench.numerics.resample import Strata, batch_scale, draw_batches, signal_share
from embbench.numerics.shrinkage import Mixture, fit_mixture, moderated

LEAST_CELLS = 4  # two cells in each half
LEAST_BATCHES = 5  # with fewer, a draw of batches says nothing of their variance
SPLITS = 20  # random splits that tell the sampling error of a squared size
MEMORY = 1 << 28  # bytes of resampled effects that are held at once
KINDS = ("noise", "boot", "plain", "twin", "batches", "own", "posterior")
PERTURBED, CONTROLS = 0, 1

Column = tuple[str, tuple[int, ...]]  # kind and number: ("boot", (3,)), a resample of it ("boot", (3, 7)) ...


@dataclass(frozen=True)
class _Pool:
    """Half-B controls of a context by batch: ``codes`` and matching sizes (b,), means and their noise (b, g)."""

    cells: np.ndarray
    strata: Strata
    codes: np.ndarray
    size: np.ndarray
    mean: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class _Row:
    """One condition: where its cells lie by batch, matching weights (b,), their batches in the pool, batch factor."""

    order: np.ndarray
    strata: Strata
    weight: np.ndarray
    theirs: np.ndarray
    scale: float


class Resampler:
    """Resamples of the observed effects of some rows; the same numbers for the same seed, whatever is asked together.

    Parameters
    ----------
    data : the screen, with cells.
    truth : of ``rows``.
    rows : (m,) dataset rows.
    weights : ``equal`` or ``size``, see `embbench.numerics.resample.draw_batches`.
    seed : of all streams.

    Attributes
    ----------
    point : (m, g) float32, the observed effects, from the cells; those of ``truth`` where a row has no cells.
    noise : (m,) float64, expected sum over genes of the squared sampling error of ``point``.
    usable : (m,) bool, rows with enough perturbed and control cells to tell their noise.
    staged : (m,) bool, rows with enough batches to resample these too.
    shared : whether controls are held fixed.
    """

    def __init__(
        self, data: PerturbationDataset, truth: Truth, rows: np.ndarray, *, weights: str = "equal", seed: int = 0
    ) -> None:
        if weights not in ("equal", "size"):
            raise ValueError(f"ceilings: weights must be equal or size, got {weights!r}")
        if data.cells is None:
            raise ValueError(f"{data.name}: resampling needs cells, found none")
        self._view: CellView = replace(view_cells(data.cells, rows), half="B", share="all")
        self._rows, self._context, self._how, self._seed = rows, truth.context, weights, seed
        self._matching = str(data.meta.get("matching", "batch"))
        self.shared = data.meta.get("controls") == "shared"
        self.point = np.where(np.isfinite(truth.effects), truth.effects, 0.0).astype(np.float32)
        self.noise, self._error = np.zeros(len(rows)), np.zeros(len(rows))
        self._sizes = np.ones((len(rows), SPLITS))
        self.usable, self.staged = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        self._plan: dict[int, _Row] = {}
        self._own, self._lent = np.zeros((2, *self.point.shape), np.float32)  # noise of perturbed cells, of controls
        self._mixtures: dict[bool, tuple[np.ndarray, Mixture]] = {}
        self._batches = 1
        self._prepare()

    @property
    def at_once(self) -> int:
        """Columns whose effects fit into memory together."""
        return max(4, MEMORY // (4 * self.point.shape[1] * (len(self._rows) + self._batches)))

    def deviations(self, columns: Sequence[Column]) -> np.ndarray:
        """What each resample adds to ``point``: shape (k, m, g), float32; 0 in rows without cells.

        Kinds: ``noise`` has the variance of the sampling error of ``point`` and is uncorrelated with it (scaled half
        difference of a random split); ``boot`` draws batches (where there are enough) and cells, with the variance of
        the sampling error; ``boot`` with two numbers draws from a ``boot`` again; ``plain`` draws batches, then cells,
        without correction; ``twin`` draws cells only, without correction.
        """
        out = np.zeros((len(columns), *self.point.shape), np.float32)
        for context in np.unique(self._context[sorted(self._plan)]).tolist():
            pool = _read_pool(self._view, context, self._matching, self.shared)
            controls = None if self.shared else _control_columns(self._seed, pool, context, columns)
            for i in self._members(context):
                row = self._plan[i]
                cells = self._view.perturbed(i)[row.order]
                out[:, i] = self._row_columns(i, row, cells, pool, controls, columns)
        return out

    def _members(self, context: int) -> list[int]:
        return [i for i in np.flatnonzero(self._context == context).tolist() if i in self._plan]

    def _prepare(self) -> None:
        """Read everything once: batches, weights, observed effects, how far batches differ."""
        for context in np.unique(self._context).tolist():
            pool = _read_pool(self._view, context, self._matching, self.shared)
            self._batches = max(self._batches, len(pool.codes))
            known = self.shared or pool.strata.freedom > 0
            for i in np.flatnonzero(self._context == context).tolist():
                batch = _merged(self._view.perturbed_batches(i), self._matching)
                kept = np.flatnonzero(np.isin(batch, pool.codes))
                if not len(kept):
                    continue
                order = kept[np.argsort(batch[kept], kind="stable")]
                codes, size = np.unique(batch[kept], return_counts=True)
                theirs = np.searchsorted(pool.codes, codes)
                row = _Row(order, Strata(size), batch_weights(size, pool.size[theirs], self._matching), theirs, 0.0)
                self.usable[i] = known and len(kept) >= LEAST_CELLS and row.strata.freedom > 0
                self.staged[i] = self.usable[i] and len(codes) >= LEAST_BATCHES
                self._plan[i] = self._observe(i, row, pool)
            rows = np.array([i for i in self._members(context) if self.usable[i]], dtype=np.int64)
            if len(rows):
                freedom = np.array([self._plan[i].strata.freedom for i in rows.tolist()], dtype=np.float64)
                self._own[rows] = moderated(self._own[rows].astype(np.float64), freedom)

    def _observe(self, i: int, row: _Row, pool: _Pool) -> _Row:
        cells = self._view.perturbed(i)[row.order]
        mean, noise = _moments(cells, row.strata)
        difference = mean - pool.mean[row.theirs]
        self.point[i] = row.weight @ difference
        self._own[i] = row.weight**2 @ noise
        if not self.shared:
            self._lent[i] = row.weight**2 @ pool.noise[row.theirs]
        self.noise[i] = (row.weight**2 @ noise + self._lent[i]).sum()
        number, code = int(self._rows[i]), row.strata.code
        splits = [_shift(self._seed, "noise", row.strata, PERTURBED, number, (s,)) for s in range(SPLITS)]
        moved = (np.stack(splits) * row.weight[code]).astype(np.float32) @ cells
        size = np.square(moved, dtype=np.float64).sum(axis=1)
        self._error[i] = np.var(size + 2 * moved @ self.point[i], ddof=1)
        self._sizes[i] = size / size.mean() if size.mean() > 0 else 1.0
        if not self.staged[i]:
            return row
        away = np.square(difference - self.point[i]).sum(axis=1)
        # the noise of fixed controls sets batches apart too, and is no difference between them
        total = noise.sum(axis=1) + pool.noise[row.theirs].sum(axis=1)
        scale, variance = batch_scale(row.weight, away, total, self._how)
        if self.noise[i] > 0:  # few batches do not tell which genes differ between them: all do, as cells do
            self._own[i] += variance / self.noise[i] * (self._own[i] + self._lent[i])
        self.noise[i] += variance
        return replace(row, scale=scale)

    def signal_share(self, effects: np.ndarray) -> np.ndarray:
        """Share (m,) of the squared size of effects (m, g) that is not noise; see `numerics.resample.signal_share`."""
        groups = np.where(self.usable, self._context, -1)
        return signal_share(np.square(effects, dtype=np.float64).sum(axis=1), self.noise, self._error, groups)

    def stand_in(self, effects: np.ndarray) -> np.ndarray:
        """Noise-free stand-in of effects (m, g): each row shrunk to the size that its noise leaves it, float32.

        An observed effect is larger than the noise-free one by its noise, so that, left as it is, retrieval and
        correlations come out far too good. The square root of `signal_share` as factor keeps the spread of effects
        right (Ghosh 1992, Journal of the American Statistical Association 87:533, constrained shrinkage).
        """
        return (effects * np.sqrt(self.signal_share(effects))[:, None]).astype(np.float32)

    def posterior(self, number: int, *, fixed: bool = False) -> np.ndarray:
        """Draw ``number`` of the noise-free effects given ``point``, (m, g) float32; ``point`` where noise is unknown.

        Each gene is shrunk by itself (`numerics.shrinkage`), so that a few changed genes stand out from the others as
        they do in truth. ``fixed``: the noise of the controls counts as part of the effect.
        """
        if fixed not in self._mixtures:
            variance = np.where(self.usable[:, None], self._own if fixed else self._own + self._lent, 0.0)
            self._mixtures[fixed] = variance, fit_mixture(self.point, variance, self._context)
        variance, mixture = self._mixtures[fixed]
        out = self.point.copy()
        for i in np.flatnonzero(self.usable).tolist():
            rng = _stream(self._seed, "posterior", PERTURBED, int(self._rows[i]), (number, int(fixed)))
            out[i] = mixture.draw(i, self.point[i].astype(np.float64), variance[i], rng)
        return out

    def as_errors(self, moved: np.ndarray, number: int) -> np.ndarray:
        """Deviations (m, g) of resample ``number``, brought to the sizes that sampling errors have, float32.

        Few cells drawn with replacement give deviations whose size follows their multiplicities; the size of the mean
        of new cells hardly varies over many genes. A random split has about the right one.
        """
        size = np.square(moved, dtype=np.float64).sum(axis=1)
        wanted = self.noise * self._sizes[:, number % SPLITS]
        return (moved * np.sqrt(np.where(size > 0, wanted / np.where(size > 0, size, 1.0), 0.0))[:, None]).astype("f4")

    def _row_columns(
        self, i: int, row: _Row, cells: np.ndarray, pool: _Pool, controls: np.ndarray | None, columns: Sequence[Column]
    ) -> np.ndarray:
        """Deviations of one row's effect, shape (k, g), float32."""
        number, code = int(self._rows[i]), row.strata.code
        perturbed = np.empty((len(columns), len(code)))
        weights = np.tile(row.weight, (len(columns), 1))  # of the resampled control means
        moved = np.zeros_like(weights)  # what the draw of batches adds to the weights
        for k, (kind, path) in enumerate(columns):
            drawn = None
            if self.staged[i] and kind in ("boot", "plain"):
                drawn, moved[k] = self._batch_stage(kind, row, number, path)
            if kind == "plain" and drawn is not None:
                weights[k] = row.weight + moved[k]
                rng = _stream(self._seed, kind, PERTURBED, number, path)
                perturbed[k] = row.strata.two_stage(rng, drawn, weights[k], row.weight)
                continue
            perturbed[k] = _shift(self._seed, kind, row.strata, PERTURBED, number, path) * row.weight[code]
            perturbed[k] += (moved[k] / row.strata.size)[code]
            for steps in _borrowing(kind, path, row.strata):
                alone, lent, factors = row.strata.lend(_stream(self._seed, kind, PERTURBED, number, (*steps, 0)))
                perturbed[k] += row.strata.borrowed(factors * row.weight[alone], lent)
        out = perturbed.astype(np.float32) @ cells
        out -= (moved @ pool.mean[row.theirs]).astype(np.float32)
        if controls is not None:
            for b, theirs in enumerate(row.theirs.tolist()):
                out -= weights[:, b, None].astype(np.float32) * controls[theirs]
        return out

    def _batch_stage(self, kind: str, row: _Row, number: int, path: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Batches drawn (b,), and what that adds to the weights of the batches (b,)."""
        rng = _stream(self._seed, "batches", KINDS.index(kind), number, path[:1])
        slots, weight = draw_batches(row.weight, rng, self._how)
        if kind == "plain":
            return slots, weight - row.weight
        if len(path) > 1:
            again = _stream(self._seed, "batches", KINDS.index(kind), number, path)
            slots, weight = draw_batches(row.weight, again, self._how, slots)
        return slots, row.scale * (weight - row.weight)


def _read_pool(view: CellView, context: int, matching: str, shared: bool) -> _Pool:  # noqa: FBT001
    """Half-B controls of a context in the batches that have both halves."""
    batch = _merged(view.batches(context), matching)
    other = batch if shared else _merged(replace(view, half="A").batches(context), matching)
    codes = np.intersect1d(batch, other)
    kept = np.flatnonzero(np.isin(batch, codes))
    order = kept[np.argsort(batch[kept], kind="stable")]
    strata = Strata(np.array([(batch == c).sum() for c in codes.tolist()], dtype=np.int64))
    half_a = np.array([(other == c).sum() for c in codes.tolist()], dtype=np.int64)
    cells = view.controls(context)[order]
    mean, noise = _moments(cells, strata)
    return _Pool(cells, strata, codes, (strata.size + half_a) / 2, mean, noise)


def _control_columns(seed: int, pool: _Pool, context: int, columns: Sequence[Column]) -> np.ndarray:
    """Deviations of the control means of each batch, shape (b, k, g), float32."""
    strata = pool.strata
    shift = np.stack([_shift(seed, kind, strata, CONTROLS, context, path) for kind, path in columns])
    shift[[kind == "own" for kind, _ in columns]] = 0.0
    out = np.empty((len(strata.size), len(columns), pool.cells.shape[1]), np.float32)
    for b, (start, size) in enumerate(zip(strata.start, strata.size, strict=True)):
        part = slice(start, start + size)
        out[b] = shift[:, part].astype(np.float32) @ pool.cells[part]
    for k, (kind, path) in enumerate(columns):
        for steps in _borrowing(kind, path, strata) if kind != "own" else ():
            alone, cells, factors = strata.lend(_stream(seed, kind, CONTROLS, context, (*steps, 0)))
            away = pool.cells[cells] - pool.mean[strata.code[cells]]
            out[alone, k] += (factors[:, None] * away).astype(np.float32)
    return out


def _merged(batch: np.ndarray, matching: str) -> np.ndarray:
    return np.zeros_like(batch) if matching == "pooled" else batch


def _stream(seed: int, kind: str, who: int, number: int, path: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng([seed, KINDS.index(kind), who, number, len(path), *path])


def _shift(seed: int, kind: str, strata: Strata, who: int, number: int, path: tuple[int, ...]) -> np.ndarray:
    """Deviations (n,) of batch means under one column, batches as they are."""
    rng = _stream(seed, kind, who, number, path)
    if kind in ("noise", "own"):
        return strata.split(rng)
    drawn = strata.draw(rng)
    if kind != "boot":
        return strata.shift(drawn, rescale=False)
    if len(path) == 1:
        return strata.shift(drawn)
    first = strata.draw(_stream(seed, kind, who, number, path[:1]))
    return strata.shift(first) + strata.shift(strata.draw(rng, first), first)


def _borrowing(kind: str, path: tuple[int, ...], strata: Strata) -> list[tuple[int, ...]]:
    """Draws whose one-cell batches need noise from elsewhere: corrected kinds; a draw of a draw is two of them."""
    if kind not in ("noise", "own", "boot") or not len(strata.alone):
        return []
    return [path[: n + 1] for n in range(len(path))]


def _moments(cells: np.ndarray, strata: Strata) -> tuple[np.ndarray, np.ndarray]:
    """Means and their sampling variances, (b, g) float64; the variance pooled over batches for those of one cell."""
    sums, squares = np.zeros((2, len(strata.size), cells.shape[1]))
    for b, (start, size) in enumerate(zip(strata.start, strata.size, strict=True)):
        part = cells[start : start + size]
        sums[b] = part.sum(axis=0, dtype=np.float64)
        away = part - (sums[b] / size).astype(np.float32)
        squares[b] = np.einsum("ij,ij->j", away, away, dtype=np.float64)
    size = strata.size[:, None]
    pooled = squares.sum(axis=0) / max(strata.freedom, 1)
    return sums / size, np.where(size > 1, squares / np.maximum(size - 1, 1), pooled) / size
