"""Cells of a screen in a latent space that is fitted on training rows: what population heads learn on."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from embbench.core import CellView, Inputs
from embbench.numerics.linalg import pca

CONTROLS = 2000  # kept of every context, drawn once
PER_ROW = 500  # perturbed cells kept of every row
FITTED = 12_000  # cells that the axes are fitted on


class Space(Protocol):
    """A latent space of cells, each taken relative to the control mean of its context."""

    @property
    def scale(self) -> float:
        """What latent coordinates were divided by to have root mean square 1 over training cells."""
        ...

    def encode(self, cells: np.ndarray) -> np.ndarray:
        """Latent coordinates, shape (m, k), float32, of centred cells (m, g)."""
        ...

    def change(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Change of expression, shape (m, g), float32, between latent coordinates (m, k)."""
        ...


@dataclass(frozen=True)
class Axes:
    """Principal axes of training cells, in one common unit so that distances keep their proportions.

    Parameters
    ----------
    axes : shape (g, k), float32, orthonormal.
    scale : root mean square of the coordinates; latent coordinates are divided by it.
    """

    axes: np.ndarray
    scale: float

    def encode(self, cells: np.ndarray) -> np.ndarray:
        """Latent coordinates (m, k), float32, of centred cells (m, g)."""
        return (cells @ self.axes) / np.float32(self.scale)

    def change(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """What the move from ``start`` to ``end`` (m, k) adds to expression (m, g); a cell keeps the rest."""
        return ((end - start) * np.float32(self.scale)) @ self.axes.T


@dataclass(frozen=True)
class Material:
    """Training cells, read once.

    Parameters
    ----------
    controls : context code -> (m, g) float32, at most `CONTROLS` half-A control cells, minus their mean.
    control_batches : context code -> (m,) batch codes.
    perturbed : per training row (m, k) float32, latent coordinates of its cells, relative to the context's controls.
    batches : per training row (m,) batch codes.
    space : the latent space.
    spread : shape (k,), float32, standard deviation of the coordinates of control and perturbed cells.
    """

    controls: dict[int, np.ndarray]
    control_batches: dict[int, np.ndarray]
    perturbed: tuple[np.ndarray, ...]
    batches: tuple[np.ndarray, ...]
    space: Space
    spread: np.ndarray


@dataclass(frozen=True)
class _Asked:
    """What `_read` depends on: equal where the same cells of the same source are asked for."""

    digest: tuple[int, str, bytes, bytes, tuple[int, ...], int, str, int]
    view: CellView = field(compare=False)
    context: np.ndarray = field(compare=False)


def material(inputs: Inputs, width: int, kind: str = "pca", seed: int = 0) -> Material:
    """Cells of training rows and of their contexts' controls in ``width`` latent dimensions.

    Runs of one fold ask for the same cells whatever their embedding and head, so the last few answers are kept.

    Parameters
    ----------
    inputs : training rows with cells.
    width : latent dimensions wanted; fewer where cells or genes are few.
    kind : ``pca`` or ``autoencoder``.
    seed : of the choice of cells, and of the autoencoder.
    """
    view = inputs.cells
    if view is None:
        raise ValueError("material: the screen has no single cells")
    columns = b"" if view.columns is None else np.asarray(view.columns).tobytes()
    contexts = tuple(np.unique(inputs.context).tolist())
    opened = "all" if view.contexts is None else sorted(view.contexts)
    read = f"{view.half} {view.share} {opened}"  # what another view of the same rows may not read
    key = (id(view.source), read, np.asarray(view.rows).tobytes(), columns, contexts, width, kind, seed)
    return _read(_Asked(key, view, inputs.context))


@functools.lru_cache(maxsize=3)  # the kept view holds its source, so its id cannot be given to another one
def _read(asked: _Asked) -> Material:
    view, (*_, contexts, width, kind, seed) = asked.view, asked.digest
    rng = np.random.default_rng([5, seed])
    pools, batches, means = {}, {}, {}
    for code in contexts:
        cells, codes = view.controls(code), view.batches(code)
        means[code] = cells.mean(axis=0, dtype=np.float64).astype(np.float32)
        keep = _some(len(cells), CONTROLS, rng)
        pools[code], batches[code] = cells[keep] - means[code], codes[keep]
    rows, row_batches = [], []
    for i, code in enumerate(asked.context.tolist()):
        cells = view.perturbed(i)
        keep = _some(len(cells), PER_ROW, rng)
        rows.append(cells[keep] - means[code])
        row_batches.append(view.perturbed_batches(i)[keep])
    space = _fit([*pools.values()], rows, width, kind, seed)
    coded = tuple(space.encode(cells) for cells in rows)
    both = np.concatenate([*coded, *(space.encode(p) for p in pools.values())])
    spread = np.maximum(both.std(axis=0), 1e-6).astype(np.float32)
    return Material(pools, batches, coded, tuple(row_batches), space, spread)


def _some(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _fit(controls: list[np.ndarray], rows: list[np.ndarray], width: int, kind: str, seed: int) -> Space:
    """A space of about equally many cells of every row, and at most half controls."""
    rng = np.random.default_rng([6, seed])
    genes = controls[0].shape[1]
    most = min(FITTED, 4000) if genes > 2000 else FITTED  # the smaller side of the matrix bounds the work
    each = max(2, most // (2 * max(1, len(rows))))
    parts = [part[_some(len(part), each, rng)] for part in rows]
    parts += [part[_some(len(part), most // (2 * len(controls)), rng)] for part in controls]
    cells = np.concatenate(parts)
    if kind == "autoencoder":
        from embbench.heads._autoencoder import Autoencoder

        return Autoencoder.fitted(cells, width, seed)
    _, axes, singular = pca(cells, width)
    if not axes.shape[1]:  # all cells equal: one axis that nothing moves along
        return Axes(np.eye(genes, 1, dtype=np.float32), 1.0)
    scale = float(np.sqrt(np.square(singular).sum() / (len(cells) * len(singular))))
    return Axes(axes.astype(np.float32), scale)


def residual_axes(deviations: np.ndarray, width: int) -> tuple[Axes, np.ndarray, np.ndarray]:
    """A latent space of effects' deviations (n, g): its axes, the scores (n, k) and their standard deviations (k,)."""
    _, axes, singular = pca(deviations, width)
    if not axes.shape[1]:  # every row equals the anchor: one axis that nothing moves along
        axes, singular = np.eye(deviations.shape[1], 1), np.zeros(1)
    scale = float(np.sqrt(np.square(singular).mean() / len(deviations))) or 1.0
    space = Axes(axes.astype(np.float32), scale)
    scores = space.encode(deviations.astype(np.float32))
    return space, scores, np.maximum(scores.std(axis=0), 1e-6)
