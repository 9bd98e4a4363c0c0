"""Populations made of the cells of training perturbations, each counting as much as a smoother weighs it."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy import sparse

from embbench.core import CellView, HeadDefaults, Inputs, row_address
from embbench.heads._means import context_mean
from embbench.heads._smoother import check_rows, whole


class Pooled(HeadDefaults):
    """Turns the weights of ``pool`` into ``fit``, ``predict`` and ``sample``; they must be >= 0 and sum to 1.

    ``predict`` is the weighted mean effect. ``sample`` takes training rows in proportion to their weights and cells of
    each at random, without repeats where it has enough of them. Cells of the query's own context stay as they are;
    those of another context are moved by the difference of the two half-A control means (as they are, too, where
    either is closed). Rows without cells leave their weight to the others; a query none of whose rows has cells takes
    the rows with cells that its context mean weighs.

    Effects compare perturbed cells with controls of the same batches, and the baseline is the mean over all batches.
    Where a training row's batches are not mixed like the controls', the mean of its cells as they are therefore differs
    from baseline + effect by what those batches differ in controls: cells are not corrected for that, since the cells
    that predictions are judged against are not either.

    A fitted head refers to the cells and copies none: it pickles when their source does (files do, by their path).
    """

    needs_cells = True
    needs_baseline = True
    targets = ("effects", "population")
    seed: int = 0

    def pool(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Weights of training rows, shape (n_query, n_train)."""
        raise NotImplementedError(f"{type(self).__name__} must implement pool")

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Keep the training rows: inputs (n, ...) with their cells, and effects ``Y`` of shape (n, g); ``observed`` is
        not used, since unobserved entries of ``Y`` come filled.

        Raises
        ------
        ValueError
            There are no cells, or ``Y`` has another number of rows than ``inputs``.
        """
        check_rows(self, inputs, Y)
        if inputs.cells is None:
            raise ValueError(f"{type(self).__name__}.fit: expected single cells of {len(inputs)} training rows, found "
                             "none; a condition-level screen has no cells to pool")  # fmt: skip
        self.sizes_ = np.array([len(inputs.cells.perturbed_batches(i)) for i in range(len(inputs))])
        if not self.sizes_.any():
            raise ValueError(f"{type(self).__name__}.fit: none of the {len(inputs)} training rows has cells to pool")
        self.train_, self.Y_ = inputs, Y
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        self._check("predict")
        return np.asarray(self.pool(self.train_, inputs) @ self.Y_.astype(np.float64), dtype=np.float32)

    def sample(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        """Cells, shape (n_query, n_cells, g), float32, log1p expression; RuntimeError before ``fit``.

        A row's draw depends on ``seed`` and on what the row is (context, entities, dose), not on the other rows.
        """
        self._check("sample")
        whole(f"{type(self).__name__}.sample", n_cells=n_cells)
        weights = with_cells(sparse.csr_matrix(self.pool(self.train_, inputs)), self.sizes_, self.train_, inputs)
        row, position = draw_pool(inputs, weights, self.sizes_, n_cells, self.seed)
        cells = gather(self.train_.cells, row, position, self.Y_.shape[1])  # type: ignore[arg-type]  # fit saw them
        change_contexts(cells, row, self.train_, inputs)
        self.move(cells, weights, inputs)
        return cells

    def move(self, cells: np.ndarray, weights: sparse.csr_matrix, inputs: Inputs) -> None:
        """Change the pooled ``cells`` (n_query, m, g) in place, given the ``weights`` they were drawn by; here not."""

    def _check(self, method: str) -> None:
        if not hasattr(self, "train_"):
            raise RuntimeError(f"{type(self).__name__}.{method} called before fit")


def with_cells(weights: sparse.csr_matrix, sizes: np.ndarray, train: Inputs, query: Inputs) -> sparse.csr_matrix:
    """``weights`` (n_query, n_train) on the training rows with cells (``sizes``, shape (n_train,), > 0), summing to 1;
    where nothing is left, the context mean's weights on them.
    """
    has = np.flatnonzero(sizes)
    kept = weights[:, has]
    total = np.asarray(kept.sum(axis=1)).ravel()
    empty = np.flatnonzero(total <= 0)
    kept = sparse.diags(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)) @ kept
    fallback = sparse.lil_matrix(kept.shape)
    if len(empty):
        fallback[empty] = context_mean(query.context[empty], train.context[has])
    place = sparse.csr_matrix((np.ones(len(has)), (np.arange(len(has)), has)), shape=(len(has), len(sizes)))
    out = sparse.csr_matrix((kept + fallback.tocsr()) @ place)
    out.sort_indices()
    return out


def draw_pool(
    inputs: Inputs, weights: sparse.csr_matrix, sizes: np.ndarray, n_cells: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which cells make up each query's population, in random order.

    Returns
    -------
    row, position : shape (n_query, n_cells), int64: the training row, and the cell's number among its cells.
    """
    row = np.empty((len(inputs), n_cells), dtype=np.int64)
    position = np.empty_like(row)
    for query in range(len(inputs)):
        rng = np.random.default_rng([seed, *row_address(inputs, query)])
        part = slice(weights.indptr[query], weights.indptr[query + 1])
        rows = weights.indices[part]
        counts = systematic(weights.data[part], n_cells, rng)
        drawn = [draw_cells(int(sizes[r]), c, rng) for r, c in zip(rows, counts.tolist(), strict=True) if c]
        order = rng.permutation(n_cells)
        row[query], position[query] = np.repeat(rows, counts)[order], np.concatenate(drawn)[order]
    return row, position


def systematic(share: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """How many of ``n`` draws go to each item: ``n * share`` rounded up or down, and that on average.

    References
    ----------
    Systematic sampling with unequal probabilities: Madow (1949), Annals of Mathematical Statistics 20:333-354, after a
    random permutation of the items.

    Examples
    --------
    >>> systematic(np.array([0.25, 0.75]), 4, np.random.default_rng(0)).tolist()
    [1, 3]
    """
    order = rng.permutation(len(share))
    ends = np.cumsum(share[order])
    ends = np.floor(ends / ends[-1] * n + rng.random()).astype(np.int64)
    ends[-1] = n  # rounding of the sum must not lose the last draw
    counts = np.empty(len(share), dtype=np.int64)
    counts[order] = np.diff(ends, prepend=0)
    return counts


def draw_cells(size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` of ``size`` cells, shape (n,): every cell is taken equally often, up to one.

    Examples
    --------
    >>> sorted(draw_cells(2, 4, np.random.default_rng(0)).tolist())
    [0, 0, 1, 1]
    """
    whole_rounds, rest = divmod(n, size)
    return np.concatenate([np.tile(np.arange(size), whole_rounds), rng.permutation(size)[:rest]])


def gather(view: CellView, row: np.ndarray, position: np.ndarray, width: int) -> np.ndarray:
    """The cells, shape (n_query, m, width), float32, numbered ``position`` of training rows ``row`` (n_query, m); each
    training row is read once.
    """
    out = np.empty((row.size, width), dtype=np.float32)
    order = np.argsort(row, axis=None, kind="stable")
    used, starts = np.unique(row.ravel()[order], return_index=True)
    for training_row, where in zip(used.tolist(), np.split(order, starts[1:]), strict=False):
        out[where] = view.perturbed(training_row)[position.ravel()[where]]
    return out.reshape(*row.shape, width)


def change_contexts(cells: np.ndarray, row: np.ndarray, train: Inputs, query: Inputs) -> None:
    """Move ``cells`` (n_query, m, g) in place from the contexts of their training rows ``row`` (n_query, m) to the
    query's, by the difference of the half-A control means; not where either is closed.

    Raises
    ------
    ValueError
        Cells come from another context, and there are no control means.
    """
    home = train.context[row]
    for here, there in {(h, t) for t, own in zip(query.context.tolist(), home, strict=True) for h in np.unique(own)}:
        if here == there:
            continue
        if query.baseline is None:
            raise ValueError(f"expected control means to move cells from context {here} to {there}, found none")
        shift = query.baseline[there].astype(np.float64) - query.baseline[here]
        if np.isfinite(shift).all():
            cells[(query.context == there)[:, None] & (home == here)] += shift.astype(np.float32)
