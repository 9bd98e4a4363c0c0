"""Screens, gene choices and splits by name, loaded once per process."""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace

import numpy as np

from embbench.cache.keys import array_digest
from embbench.cache.screens import imported, load_imported, with_digest
from embbench.core import PerturbationDataset, Split, UserError
from embbench.grid.names import registry_of
from embbench.numerics.hvg import select_genes
from embbench.registry import unknown_name


@functools.lru_cache(maxsize=4)
def screen(name: str, genes: str, paths: tuple[str, ...]) -> PerturbationDataset:
    """A registered or imported screen with its digest, cut to a gene choice (``all``, ``expressed``, ``hvg:N``).

    Raises
    ------
    UserError
        Unknown name (near misses of both lists are shown), or a gene choice that the screen cannot serve.
    """
    registry = registry_of(paths)
    known = {e.name for e in registry.entries("datasets")}
    if name in imported() and name not in known:
        data = load_imported(name)
    elif name.partition(":")[0] in known:
        data = registry.parse("datasets", name).make().load()
    else:
        raise UserError(unknown_name("datasets", name, known | set(imported())))
    data = replace(data, name=name)
    if genes != "all":
        columns = select_genes(genes, data.genes, data.baseline, data.baseline_variance)
        facts = {k: v for k, v in data.meta.items() if k != "digest"}
        data = replace(data.with_genes(columns), meta={**facts, "genes": genes})
    return with_digest(data)


@functools.lru_cache(maxsize=16)
def split_of(name: str, spec: str, genes: str, seed: int, paths: tuple[str, ...]) -> Split:
    """The split of a screen; a split that takes a seed gets it from (dataset, split, seed) only.

    Raises
    ------
    UserError
        The split does not fit the screen (one perturbation, one context ...).
    """
    data = screen(name, genes, paths)
    parsed = registry_of(paths).parse("splits", spec)
    takes = "seed" in inspect.signature(parsed.entry.load().__init__).parameters and "seed" not in parsed.overrides
    return parsed.make(**({"seed": seed} if takes else {})).split(data)


def split_digest(split: Split) -> str:
    """16 hex digits of all folds and units."""
    parts = [a for f in split.folds for a in (f.train, f.test, f.validation, f.groups)]
    return array_digest(*parts, [f.name for f in split.folds], [str(u) for u in split.units])


def detectable(data: PerturbationDataset) -> np.ndarray:
    """(n,) bool: conditions whose true effect stands out of noise, decided from the truth only.

    E-test p < 0.05 where the import computed one; else, where the sampling variance ``v`` of the truth is known, a
    squared norm above its null expectation by two null standard deviations, ``|t|^2 > sum v + 2 sqrt(2 sum v^2)``
    (independent Gaussian genes); else every condition counts.
    """
    if "etest_p" in data.covariates:
        return np.asarray(data.covariates["etest_p"], dtype=np.float64) < 0.05
    if data.truth_variance is None:
        return np.ones(len(data), dtype=bool)
    variance = data.truth_variance.astype(np.float64)
    squared = (data.truth.astype(np.float64) ** 2).sum(axis=1)
    return squared > variance.sum(axis=1) + 2 * np.sqrt(2 * (variance**2).sum(axis=1))
