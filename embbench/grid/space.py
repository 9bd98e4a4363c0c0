"""The space in which populations are compared: principal axes of training cells and half-A controls."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from embbench.cache.keys import array_digest
from embbench.core import PerturbationDataset, view_cells

CELLS = 20_000  # at most; more moves 50 axes by less than the choice of cells does
FEW = 20  # cells taken of every condition whatever their number


@dataclass(frozen=True)
class _Fold:
    """A screen's training rows, equal to others when the digests are."""

    key: tuple[str, str]
    data: PerturbationDataset = field(compare=False)
    train: np.ndarray = field(compare=False)


def population_basis(data: PerturbationDataset, train: np.ndarray, dim: int) -> np.ndarray:
    """Principal axes, shape (g, k), float32, of training cells and half-A controls of the training contexts.

    Every condition and every control half gives equally many cells at most, so that a large one does not own the
    axes; at most about 20,000 in all, drawn with a fixed seed. ``k`` is ``dim``, or less where genes or cells are few.

    Parameters
    ----------
    data : a screen with cells.
    train : (m,) training rows of the fold.
    dim : number of axes.
    """
    return _basis(_Fold((data.meta["digest"], array_digest(train)), data, train), dim)


@functools.lru_cache(maxsize=16)
def _basis(fold: _Fold, dim: int) -> np.ndarray:
    from scipy.linalg import eigh

    data, train = fold.data, fold.train
    view = view_cells(data.cells, train)  # type: ignore[arg-type]  # population runs have cells
    codes = np.unique(data.context_codes[train]).tolist()
    most = max(FEW, CELLS // (len(train) + len(codes)))
    rng = np.random.default_rng(50)

    def some(cells: np.ndarray) -> np.ndarray:
        return cells if len(cells) <= most else cells[np.sort(rng.choice(len(cells), most, replace=False))]

    parts = [some(view.controls(code)) for code in codes] + [some(view.perturbed(i)) for i in range(len(train))]
    cells = np.concatenate(parts).astype(np.float64)
    cells -= cells.mean(axis=0)
    k = min(dim, *cells.shape)
    wide = cells.shape[1] > cells.shape[0]
    size = min(cells.shape)
    values, vectors = eigh(cells @ cells.T if wide else cells.T @ cells, subset_by_index=[size - k, size - 1])
    axes = vectors if not wide else cells.T @ (vectors / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny)))
    axes = axes[:, ::-1]
    # an axis has no sign of its own: the largest loading is made positive
    flip = np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(k)])
    return np.ascontiguousarray(axes * np.where(flip == 0, 1, flip), dtype=np.float32)
