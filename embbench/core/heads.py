"""Folds, what a head may know about rows, and what a head promises."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from embbench.core.cells import CellView
from embbench.core.training import Monitor, Silent

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold; ``groups`` optionally labels test rows for separate reporting (e.g. singles seen).

    Examples
    --------
    >>> Fold("fold0", train=np.array([0, 1]), test=np.array([2])).validation.shape
    (0,)
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    validation: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Split:
    """Folds, and for every row the codes of the held-out units that it contains.

    Parameters
    ----------
    kind : what is unseen: ``perturbation``, ``context``, ``combination``, ``transfer`` or ``given``.
    folds : one or more.
    units : n tuples of integer unit codes; inner folds hold out whole units.
    """

    kind: str
    folds: tuple[Fold, ...]
    units: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Inputs:
    """All that a head may know about rows. Codes are shared by training and query rows; there are no names.

    Parameters
    ----------
    X : shape (n, d), float32 features, finite; columns of blocks that a row lacks are 0 (see ``found``).
    context : shape (n,), int64 codes 0..c-1.
    entities : shape (n, e), sparse float32 indicator of perturbation entities.
    units : n tuples of held-out unit codes (for inner validation).
    blocks : one (name, slice) per embedding in X.
    found : shape (n, len(blocks)), bool.
    dose : shape (n,), float32 or None.
    baseline : shape (c, g), float32 or None, half-A control means; NaN rows for contexts that give no controls.
    context_vector : shape (c, k), float32 or None.
    graph : shape (e, e), sparse float32 or None, symmetric, over entities.
    cells : half-A controls, and perturbed cells of training rows only; None without cells.
    """

    X: np.ndarray
    context: np.ndarray
    entities: csr_matrix
    units: tuple[tuple[int, ...], ...]
    blocks: tuple[tuple[str, slice], ...] = ()
    found: np.ndarray | None = None
    dose: np.ndarray | None = None
    baseline: np.ndarray | None = None
    context_vector: np.ndarray | None = None
    graph: csr_matrix | None = None
    cells: CellView | None = None

    def __len__(self) -> int:
        return len(self.X)

    def rows(self, index: np.ndarray) -> Inputs:
        """The same inputs for some rows (row numbers or a bool mask of length n).

        Examples
        --------
        >>> from scipy.sparse import csr_matrix
        >>> inputs = Inputs(np.ones((3, 2)), np.zeros(3, int), csr_matrix(np.eye(3)), ((0,), (1,), (2,)))
        >>> inputs.rows(np.array([True, False, True])).units
        ((0,), (2,))
        """
        index = np.arange(len(self))[index]
        return replace(
            self,
            X=self.X[index],
            context=self.context[index],
            entities=self.entities[index],
            units=tuple(self.units[i] for i in index),
            found=None if self.found is None else self.found[index],
            dose=None if self.dose is None else self.dose[index],
            cells=None if self.cells is None else self.cells.take(index),
        )


class Head(Protocol):
    """The predictor on top of frozen vectors; see `HeadDefaults` for what a head declares.

    The constructor takes hyper-parameters only and validates them. ``fit`` forgets earlier fits and returns self;
    ``predict`` treats rows independently; both leave their arguments alone and are deterministic given ``seed``.
    """

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Head:
        """Learn from training rows: finite ``Y`` of shape (n, g), unobserved entries filled with training means."""
        ...

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects of shape (n, g), float32. RuntimeError "... before fit" when not fitted."""
        ...


class HeadDefaults:
    """What a head declares; class attributes only. An unmet need makes the run ``skipped`` with that reason."""

    needs_embedding: ClassVar[bool] = True
    needs_cells: ClassVar[bool] = False
    needs_graph: ClassVar[bool] = False
    reads_graph: ClassVar[bool] = False  # takes a graph where there is one
    needs_baseline: ClassVar[bool] = False
    needs_context_vector: ClassVar[bool] = False
    handles_missing: ClassVar[bool] = False  # True: rows with some blocks missing are given too
    trained: ClassVar[bool] = False  # True: costly to fit, so permutations get 3 draws instead of 10
    scope: ClassVar[str] = "auto"  # "joint": always one fit over all contexts
    targets: ClassVar[tuple[str, ...]] = ("effects",)  # of "effects", "labels", "population"
    monitor: Monitor = Silent()  # the grid puts its own on a head before ``fit``

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """Hyper-parameter settings that selection tries, cheapest to explain first."""
        return [{}]
