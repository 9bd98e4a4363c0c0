"""Exact nearest neighbours: a fast search proposes, float64 decides, equal distances go to the smaller row number.

How a neighbour is found never shows in the answer: every backend proposes with a proven bound on its rounding, and
`_search_rank` computes the distances and the order.
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

import numpy as np

from embbench.core import UserError
from embbench.heads._search_compiled import candidates
from embbench.heads._search_frame import Frame
from embbench.heads._search_library import Searcher, settle
from embbench.heads._search_rank import best
from embbench.numerics.jit import has_numba

METRICS = ("l2", "cosine", "inner_product")
BACKENDS = ("auto", "compiled", "faiss", "torch", "torch-cuda")
PRECISIONS = ("auto", "float32", "bf16")
# Features, queries and rows per neighbour from which bf16 pays, on a processor that multiplies it (bench/search.py):
# below, what is saved in the product is lost to the conversion, or to the further candidates.
PAYS = 256, 500, 64
ALL = 1 << 20  # distances of open queries to all rows that are held at a time (8 MB)


@functools.cache
def _library() -> tuple[str, Any]:
    """Name and module of the search library, loaded once."""
    try:
        import faiss
    except ImportError:
        import torch

        name = "torch-cuda" if torch.cuda.is_available() else "torch"
        warnings.warn(
            f"faiss is not installed: neighbours are searched with {name} (the same neighbours, another speed); "
            "for faiss: pip install faiss-cpu",
            stacklevel=2,
        )
        return name, torch
    return ("faiss-gpu" if faiss.get_num_gpus() > 0 else "faiss-cpu"), faiss


def backend() -> str:
    """The loaded search library: ``faiss-cpu``, ``faiss-gpu``, ``torch-cuda`` or ``torch``."""
    return _library()[0]


def nearest(
    X: Any, Q: Any, k: int, metric: str = "l2", backend: str = "auto", precision: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of ``X`` (n, d) for each row of ``Q`` (q, d), by (float64 distance, row number).

    Neither the backend nor the precision of the search changes a bit of the answer: candidates come with a bound on
    their rounding, and what the bound cannot settle is compared with all rows.

    Parameters
    ----------
    X, Q : arrays or tensors of shape (n, d) and (q, d), finite. Float32 stays float32; rows are read in tiles.
    k : number of neighbours; more than n means n.
    metric : ``l2`` (Euclidean distance), ``cosine`` (1 - cosine; 1 where a vector is zero) or ``inner_product``
        (minus the inner product).
    backend : ``compiled`` (blocks of a matrix product and a compiled pass over them; needs numba), ``faiss`` (on the
        GPU where faiss sees one), ``torch`` (on the device of the tensor ``X``), ``torch-cuda`` (an array, on the
        GPU), or ``auto``: torch for a tensor on a GPU, else faiss where it sees a GPU, else compiled, else faiss, else
        torch.
    precision : of the matrix product that proposes: ``float32``; ``bf16`` (compiled only, needs torch), which is
        faster on processors that multiply bfloat16; or ``auto``: bf16 there, where it was measured to pay
        (256 features, 500 queries and 64 rows per neighbour, or more), in a process that has loaded torch.

    Returns
    -------
    index, distance : of shape (q, min(k, n)), int64 and float64, nearest first, in main memory.

    Raises
    ------
    UserError
        A backend, precision or metric that does not exist or is not installed.

    Examples
    --------
    >>> index, distance = nearest(np.array([[0.0], [2.0], [-1.0], [1.0]]), np.array([[0.0]]), k=3)
    >>> index.tolist(), distance.tolist()
    ([[0, 2, 3]], [[0.0, 1.0, 1.0]])
    """
    X, Q = _rows(X), _rows(Q)
    name, library = _choose(X, metric, backend, precision)
    if name == "torch" and not isinstance(X, np.ndarray):
        Q = library.as_tensor(Q, device=X.device)
    else:
        X, Q = _array(X), _array(Q)
    k = min(k, len(X))
    index, distance = np.empty((len(Q), k), np.int64), np.empty((len(Q), k))
    open_ = np.arange(len(Q))
    if not index.size:
        return index, distance
    frame = Frame(X, Q, metric)
    if name == "compiled":
        pays = X.shape[1] >= PAYS[0] and len(Q) >= PAYS[1] and len(X) >= PAYS[2] * k
        if precision == "bf16" or (precision == "auto" and pays and _multiplies_bf16()):
            open_ = _compiled(X, Q, k, metric, "bf16", frame, open_, index, distance)
        open_ = _compiled(X, Q, k, metric, "float32", frame, open_, index, distance)
    elif X.shape[1]:
        open_ = settle(X, Q, k, metric, Searcher(X, Q, metric, name, library, frame), open_, index, distance)
    step = max(1, ALL // len(X))
    for start in range(0, len(open_), step):
        part = open_[start : start + step]
        every = np.tile(np.arange(len(X)), (len(part), 1))
        index[part], distance[part] = best(X, Q[part], every, k, metric)
    return index, distance


def _compiled(
    X: np.ndarray, Q: np.ndarray, k: int, metric: str, precision: str, frame: Frame, which: np.ndarray,
    index: np.ndarray, distance: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Neighbours of the queries ``which`` into ``index`` and ``distance``; the queries that stay open."""
    if not len(which):
        return which
    left = []
    queries = Q if len(which) == len(Q) else Q[which]
    for start, near in candidates(X, queries, k, metric, precision, frame):
        part = which[start : start + len(near)]
        settled = near[:, k - 1] < len(X) if near.shape[1] >= k else np.zeros(len(part), bool)
        left.append(part[np.logical_not(settled)])
        if not settled.all():
            near, part = near[settled], part[settled]
        if len(part):
            index[part], distance[part] = best(X, Q[part], near, k, metric)
    return np.concatenate(left)


def _rows(X: Any) -> Any:
    """Rows as a C-contiguous float32 or float64 array; a tensor on a GPU stays what it is."""
    if isinstance(X, np.ndarray) or not hasattr(X, "device"):
        X = np.asarray(X)
        return np.ascontiguousarray(X, dtype=np.float32 if X.dtype in (np.float32, np.float16) else np.float64)
    X = X.detach()
    X = X if X.is_floating_point() else X.double()
    return _rows(X.float().numpy() if X.element_size() < 4 else X.numpy()) if X.device.type == "cpu" else X.contiguous()


def _array(X: Any) -> np.ndarray:
    return X if isinstance(X, np.ndarray) else _rows(X.cpu())


def _choose(X: Any, metric: str, backend: str, precision: str) -> tuple[str, Any]:
    """Name and module of the backend that serves these rows."""
    for what, value, known in (
        ("metric", metric, METRICS), ("backend", backend, BACKENDS), ("precision", precision, PRECISIONS),
    ):  # fmt: skip
        if value not in known:
            raise UserError(f"neighbour search: {what} must be one of {known}, got {value!r}")
    if backend == "auto":
        if not isinstance(X, np.ndarray):
            backend = "torch"
        elif has_numba() and (precision == "bf16" or not _faiss_gpus()):
            backend = "compiled"
    if precision == "bf16" and backend != "compiled":
        raise UserError(f"neighbour search: precision 'bf16' needs backend 'compiled' (with numba), got {backend!r}")
    if backend == "compiled":
        if not has_numba():
            raise UserError("neighbour search: backend 'compiled' needs numba; pip install numba, or backend='auto'")
        return "compiled", None
    if backend.startswith("torch"):
        import torch

        return backend, torch
    name, library = _library()
    if backend == "faiss" and not name.startswith("faiss"):
        raise UserError("neighbour search: backend 'faiss' is not installed; pip install faiss-cpu, or backend='auto'")
    return name, library


@functools.cache
def _faiss_gpus() -> int:
    """Number of GPUs that faiss sees; 0 where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return 0
    return int(faiss.get_num_gpus())


def _multiplies_bf16() -> bool:
    """Whether torch is loaded (importing it takes longer than most searches) and the processor multiplies bfloat16."""
    torch = sys.modules.get("torch")
    return torch is not None and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
