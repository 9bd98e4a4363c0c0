"""Cells through a network: chunks read ahead, batches of similar length, means per gene added up on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embbench.core import Counts, UserError
from embbench.embeddings.models._layers import to
from embbench.embeddings.models._panel import Panel, columns_of, need_counts, panel_of

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST, LARGEST = 64, 1024  # cells of the first and of the largest chunk; doubling gives the convergence figure
CPU_TOKENS = 9600  # 8 cells of 1,200 tokens: larger batches are no faster on a CPU and cost memory
SHARE = 0.3  # of the memory of an accelerator that the activations of a batch may take


@dataclass(frozen=True)
class Cell:
    """One tokenised cell of n tokens.

    Parameters
    ----------
    label : shape (n,), int64, the vocabulary number of the gene that output row i stands for, -1 for special tokens.
    fields : arrays of shape (n,): what the network reads for each token.
    facts : numbers of the whole cell (depth).
    """

    label: np.ndarray
    fields: tuple[np.ndarray, ...]
    facts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Batch:
    """b cells padded on the right to n tokens: ``fields`` (b, n), ``facts`` (b, k), ``real`` (b, n) bool."""

    fields: tuple[Tensor, ...]
    facts: Tensor
    real: Tensor

    @property
    def lengths(self) -> Tensor:
        """Real tokens of each cell, shape (b,)."""
        return self.real.sum(dim=1)


class Network(Protocol):
    """A loaded model: frozen tensors (a dataclass, so that `to` can move it) and three functions.

    Parameters
    ----------
    vocabulary : names of all tokens.
    genes : vocabulary numbers that are genes.
    aliases : spelling of a gene in the data -> vocabulary name, as the model's own tools rename genes.
    layers, default_layer : number of layers, and the one that official extraction reads (0: input embedding).
    width, inner : sizes of a token's activations, for the size of batches.
    pads : what fills the fields of padded positions.
    everything : every gene is fed for every cell, so means are over all cells; else over cells with the gene.
    needs_depth : reads raw counts.

    A network may also say ``collapse``: columns that its own names and aliases lead to one gene are added up.
    """

    vocabulary: tuple[str, ...]
    genes: np.ndarray
    aliases: Mapping[str, str]
    layers: int
    default_layer: int
    width: int
    inner: int
    pads: tuple[float, ...]
    everything: bool
    needs_depth: bool

    def static(self) -> Tensor:
        """Vectors of shape (len(genes), d) that need no cell."""
        ...

    def cell(self, panel: Panel, i: int) -> Cell:
        """Tokens of cell ``i``; depends on that cell alone."""
        ...

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows of shape (b, n, d) after ``layer`` and cell vectors of shape (b, k)."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a network is run: ``layer``, ``precision`` (of `PRECISIONS`), ``device``, cells per ``batch`` or None."""

    layer: int | None
    precision: str = "float32"
    device: str = "auto"
    batch: int | None = None

    def where(self) -> torch.device:
        """The device: ``auto`` is CUDA when there is one, else the CPU."""
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"device {self.device!r}: expected a CUDA device, found none; use device=auto or cpu")
        try:
            torch.empty(0, dtype=torch.float64, device=name)  # sums are kept in float64, which mps does not have
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"device {self.device!r}: expected auto, cpu or cuda, found: {reason}") from error
        return torch.device(name)


@dataclass(frozen=True)
class Means:
    """What a set of cells gives.

    Parameters
    ----------
    index : shape (p,), vocabulary numbers of genes seen.
    mean : shape (p, d), float64, mean row of each gene.
    count : shape (p,), float64, rows that the mean is over.
    cells : shape (m, k), float32, one vector per cell in the order given; (0, k) unless they are kept.
    cell_mean : shape (k,), float64, mean of the cell vectors.
    convergence : cells used so far -> Pearson correlation of centred gene vectors between two halves of them; None
        where fewer than two genes are in both.
    """

    index: np.ndarray
    mean: np.ndarray
    count: np.ndarray
    cells: np.ndarray
    cell_mean: np.ndarray
    convergence: dict[str, float | None]


def feed(
    network: Network, title: str, read: Callable[[np.ndarray], Counts], cells: int, how: Settings, *, keep: bool
) -> Means:
    """Gene means and cell vectors of ``cells`` cells that ``read`` gives by ascending positions (k,).

    Raises
    ------
    UserError
        No gene of the data is in the vocabulary, the layer does not exist, or the model needs counts and has none.
    """
    layer = network.default_layer if how.layer is None else how.layer
    if layer > network.layers:
        raise UserError(f"{title}: layer {layer} does not exist, expected 0 to {network.layers}")
    first = read(np.arange(min(cells, 1)))
    if network.needs_depth:
        need_counts(first, title)
    collapse = bool(getattr(network, "collapse", False))
    columns, index = columns_of(first.genes.tolist(), network.vocabulary, network.aliases, collapse=collapse)
    known = np.isin(index, network.genes)
    columns, index = columns[known], index[known]
    if not len(columns):
        raise UserError(
            f"{title}: expected genes of its vocabulary, found none among {len(first.genes)}, e.g. "
            f"{', '.join(map(str, first.genes[:3]))}"
        )
    wanted = np.unique(network.genes if network.everything else index)
    means = run(
        network, lambda at: panel_of(read(at), columns, index), cells, wanted, replace(how, layer=layer), keep=keep
    )
    if not (np.isfinite(means.mean).all() and np.isfinite(means.cell_mean).all()):
        raise UserError(f"{title}: activations overflow in {how.precision}; use precision=bfloat16 or float32")
    return means


def run(
    network: Network, panel: Callable[[np.ndarray], Panel], cells: int, index: np.ndarray, how: Settings, *, keep: bool
) -> Means:
    """Feed ``cells`` cells through a network; memory does not depend on their number unless they are kept.

    Parameters
    ----------
    network : on the CPU.
    panel : positions (k,) -> those cells.
    cells : how many there are.
    index : shape (p,), vocabulary numbers of the genes that rows are added up for.
    how : layer, precision, device, batch.
    keep : return every cell's vector, not their mean alone.
    """
    device = how.where()
    placed = to(network, device=device)
    place = np.full(len(network.vocabulary) + 1, -1, dtype=np.int64)  # the last entry serves label -1
    place[index] = np.arange(len(index))
    sums: Tensor | None = None
    counts = torch.zeros(2, len(index), dtype=torch.float64, device=device)
    vectors, total = np.empty((0, 0), dtype=np.float32), np.zeros(0)
    convergence: dict[str, float | None] = {}
    with all_threads(), torch.inference_mode():
        for positions, tokenised in _ahead(network, panel, cells):
            for chosen in _batches(tokenised, network, how.batch, device):
                group = [tokenised[i] for i in chosen]
                rows, whole = _forward(placed, group, how, device)
                found = whole.float().cpu().numpy()
                if sums is None:
                    sums = torch.zeros(2, len(index), rows.shape[-1], dtype=torch.float64, device=device)
                    # one block for all cells: small arrays kept per batch would pin freed activations in the heap
                    vectors = np.empty((cells if keep else 0, found.shape[1]), dtype=np.float32)
                    total = np.zeros(found.shape[1])
                _add(sums, counts, rows, group, place, positions[chosen] % 2)
                total += found.sum(axis=0, dtype=np.float64)
                if keep:
                    vectors[positions[chosen]] = found
            used = int(positions[-1]) + 1
            if sums is not None and (used == cells or used & (used - 1) == 0):
                convergence[str(used)] = _split_half(sums, counts)
    if sums is None:
        raise UserError("no control cell to feed to the model; import a screen with control cells")
    count = counts.sum(0).cpu().numpy()
    seen = count > 0
    mean = sums.sum(0).cpu().numpy()[seen] / count[seen, None]
    return Means(index[seen], mean, count[seen], vectors, total / cells, convergence)


@contextmanager
def all_threads() -> Iterator[None]:
    """Let torch use every core of the process, whatever the caller's limit.

    A model's numbers then depend on the machine, and not on the number of grid workers.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chunks(cells: int) -> list[np.ndarray]:
    """Positions 0..cells-1 in chunks of 64, 64, 128, 256 ... 1024, 1024.

    Examples
    --------
    >>> [len(c) for c in chunks(300)]
    [64, 64, 128, 44]
    """
    ends = [0]
    while ends[-1] < cells:
        ends.append(min(cells, ends[-1] + min(LARGEST, max(FIRST, ends[-1]))))
    return [np.arange(lo, hi) for lo, hi in pairwise(ends)]


def _ahead(
    network: Network, panel: Callable[[np.ndarray], Panel], cells: int
) -> Iterator[tuple[np.ndarray, list[Cell]]]:
    """Chunks of tokenised cells, the next one read and tokenised while the caller computes."""

    def prepare(positions: np.ndarray) -> tuple[np.ndarray, list[Cell]]:
        read = panel(positions)
        return positions, [network.cell(read, i) for i in range(len(read))]

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(prepare, positions) for positions in chunks(cells)[:1]]
        for following in [*chunks(cells)[1:], None]:
            ready = waiting.pop().result() if waiting else None
            if following is not None:
                waiting.append(pool.submit(prepare, following))
            if ready is not None:
                yield ready


def _batches(cells: list[Cell], network: Network, batch: int | None, device: torch.device) -> Iterator[np.ndarray]:
    """Cell numbers batch by batch, cells of similar length together, the longest first."""
    lengths = np.array([len(c.label) for c in cells])
    order = np.argsort(-lengths, kind="stable")
    budget = _tokens(network, device)
    start = 0
    while start < len(order):
        size = batch or max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _tokens(network: Network, device: torch.device) -> int:
    """Tokens of a batch: fixed on the CPU, on an accelerator a share of its memory (not of what is free just now)."""
    if device.type != "cuda":
        return CPU_TOKENS
    _, memory = torch.cuda.mem_get_info(device)
    per_token = 4 * (10 * network.width + 3 * network.inner)  # float32: states, q, k, v, their copies, the inner map
    return max(1, int(SHARE * memory) // per_token)


def _collate(cells: list[Cell], pads: tuple[float, ...], device: torch.device) -> Batch:
    n = max(len(c.label) for c in cells)
    fields = []
    for number, pad in enumerate(pads):
        kind = cells[0].fields[number].dtype
        block = np.full((len(cells), n), pad, dtype=kind)
        for row, cell in zip(block, cells, strict=True):
            row[: len(cell.label)] = cell.fields[number]
        fields.append(torch.from_numpy(block).to(device))
    real = np.arange(n) < np.array([len(c.label) for c in cells])[:, None]
    facts = torch.tensor([c.facts for c in cells], dtype=torch.float32, device=device)
    return Batch(tuple(fields), facts, torch.from_numpy(real).to(device))


def _forward(network: Network, cells: list[Cell], how: Settings, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (b, n, d) and cell vectors; a batch that does not fit the accelerator is halved."""
    kind = PRECISIONS[how.precision]
    try:
        with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            return network.forward(_collate(cells, network.pads, device), int(how.layer or 0))
    except torch.OutOfMemoryError:
        if len(cells) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(cells) // 2
    (rows, one), (more, two) = (_forward(network, part, how, device) for part in (cells[:half], cells[half:]))
    short = torch.nn.functional.pad(more, (0, 0, 0, rows.shape[1] - more.shape[1]))  # sorted: the first half is longer
    return torch.cat([rows, short]), torch.cat([one, two])


def _add(sums: Tensor, counts: Tensor, rows: Tensor, cells: list[Cell], place: np.ndarray, half: np.ndarray) -> None:
    """Add the rows of known genes to the sums of their cell's half, in float64."""
    cell = np.concatenate([np.full(len(c.label), b) for b, c in enumerate(cells)])
    token = np.concatenate([np.arange(len(c.label)) for c in cells])
    gene = place[np.concatenate([c.label for c in cells])]
    kept = gene >= 0
    flat = torch.from_numpy(half[cell[kept]] * sums.shape[1] + gene[kept]).to(sums.device)
    at = torch.from_numpy(cell[kept] * rows.shape[1] + token[kept]).to(sums.device)
    sums.view(-1, sums.shape[2]).index_add_(0, flat, rows.reshape(-1, rows.shape[2])[at].double())
    counts.view(-1).index_add_(0, flat, torch.ones(len(flat), dtype=torch.float64, device=sums.device))


def _split_half(sums: Tensor, counts: Tensor) -> float | None:
    """Pearson correlation over genes and coordinates of the two halves' centred means; None without both."""
    both = (counts > 0).all(0)
    if int(both.sum()) < 2:
        return None
    a, b = (sums[h][both] / counts[h][both][:, None] for h in (0, 1))
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / (a.norm() * b.norm()))
