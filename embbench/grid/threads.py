"""One thread for everything that computes numbers, so that their bits depend on nothing else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS, torch and faiss: the number of threads can change the last bit of a sum.

    The environment is for libraries that are loaded later (torch takes seconds), the limits for those that are there.
    """
    from threadpoolctl import threadpool_limits

    torch, environment = sys.modules.get("torch"), {name: os.environ.get(name) for name in THREADS}
    threads = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        with threadpool_limits(1):
            yield
    finally:
        if torch:
            torch.set_num_threads(threads)
        for name, value in environment.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
