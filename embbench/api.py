"""The verbs of the command line as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embbench.core import Embedding, PerturbationDataset
from embbench.grid.apply import Applied, check_unchanged, find_run, refit
from embbench.grid.config import METRICS
from embbench.grid.frames import Frames, read_frames
from embbench.grid.metrics import metric_names
from embbench.grid.names import registry_of
from embbench.grid.results import Results
from embbench.grid.screens import screen
from embbench.grid.vectors import compute_embedding
from embbench.registry import Entry


def _paths(registry: Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(str(Path(p).resolve()) for p in registry)


def load_dataset(name: str, *, genes: str = "all", registry: Sequence[str | Path] = ()) -> PerturbationDataset:
    """A registered or imported screen; ``genes`` is ``all``, ``expressed`` or ``hvg:N``.

    Raises
    ------
    UserError
        Unknown name, with near misses.
    """
    return screen(name, genes, _paths(registry))


def extract(name: str, dataset: str | None = None, *, registry: Sequence[str | Path] = ()) -> Embedding:
    """The vectors of an embedding, computed once and cached.

    Parameters
    ----------
    name : embedding spec, e.g. ``go``, ``ppi:50``, ``table:path=my.csv``.
    dataset : screen that name-dependent and control-based embeddings refer to; default the demo screen.
    registry : further registry files.

    Examples
    --------
    >>> import embbench
    >>> embbench.extract("hallmark:4").matrix.shape[1]
    4
    """
    paths = _paths(registry)
    data = screen(dataset or "sim_demo", "all", paths)
    return compute_embedding(registry_of(paths), name, data, np.arange(len(data)))


def results(folder: str | Path, metrics: Sequence[str] = METRICS, *, registry: Sequence[str | Path] = ()) -> Frames:
    """Runs, scores, ceilings and facts of a results folder as data frames; nothing is refitted.

    Raises
    ------
    UserError
        The folder holds no results, or a metric does not exist or is ambiguous.
    """
    known = registry_of(_paths(registry))
    return read_frames(Results(Path(folder)), known, metric_names(known, list(metrics), "effects"))


def predict(
    folder: str | Path,
    run: str,
    perturbations: Sequence[str],
    contexts: Sequence[str] = (),
    *,
    registry: Sequence[str | Path] = (),
) -> Applied:
    """Refit configuration ``run`` on all conditions of its screen and predict ``perturbations`` (``A`` or ``A+B``).

    Raises
    ------
    UserError
        No or several configurations start with ``run``; it has changed since; an unknown context.
    """
    found, config = find_run(Results(Path(folder)), run)
    check_unchanged(found, config, _paths(registry))
    return refit(found, perturbations, contexts, _paths(registry))


def check(kind: str, impl: str, **params: Any) -> dict[str, str]:
    """Run every contract of a kind on ``package.module:object``; contract name -> what is broken (empty: nothing).

    UserError: unknown kind or object.
    """
    from embbench import checks

    entry = Entry(kind, impl, impl, params=params)
    return {contract.__name__: checks.run_check(contract, entry) for contract in checks.checks_for(kind)}
