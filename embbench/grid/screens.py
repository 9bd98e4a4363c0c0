"""Screens, gene choices and splits by name, loaded once per process."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from embbench.cache.home import home
from embbench.cache.keys import array_digest, digest
from embbench.cache.screens import imported, load_imported, with_digest
from embbench.cache.store import lock, read_whole, write_h5
from embbench.core import PerturbationDataset, Split, UserError
from embbench.grid.names import registry_of
from embbench.grid.threads import one_thread
from embbench.grid.vectors import component_facts
from embbench.numerics.hvg import select_genes
from embbench.registry import Spec, unknown_name

JUDGED = ("labels", "labels_tested", "truth_labels", "truth_labels_tested", "log2fc", "padj")
_SUBSTITUTES: dict[str, PerturbationDataset] = {}  # digest -> what the audit of a component is shown instead


def screen(name: str, genes: str, paths: tuple[str, ...]) -> PerturbationDataset:
    """A registered or imported screen with its digest, cut to a gene choice (``all``, ``expressed``, ``hvg:N``).

    Raises
    ------
    UserError
        Unknown name (near misses of both lists are shown), or a gene choice that the screen cannot serve.
    """
    data = _screen(name, genes, paths)
    return _SUBSTITUTES.get(data.meta["digest"], data)


@contextlib.contextmanager
def substituted(digest: str, data: PerturbationDataset) -> Iterator[None]:
    """Show ``data`` to whoever asks for the screen of that digest by its name."""
    _SUBSTITUTES[digest] = data
    try:
        yield
    finally:
        del _SUBSTITUTES[digest]


@functools.lru_cache(maxsize=4)
def _screen(name: str, genes: str, paths: tuple[str, ...]) -> PerturbationDataset:
    registry = registry_of(paths)
    known = set(registry.names("datasets"))
    if name in imported() and name not in {e.name for e in registry.entries("datasets")}:  # it may be a further name
        data = load_imported(name)
    elif name.partition(":")[0] in known:
        spec = registry.parse("datasets", name)
        inner = spec.overrides.get("of")
        data = _over(spec, screen(inner, "all", paths)) if isinstance(inner, str) else spec.make().load()
        data = replace(data, meta={"dated": spec.entry.dated, **data.meta})
    else:
        raise UserError(unknown_name("datasets", name, known | set(imported())))
    data = replace(data, name=name)
    if genes != "all":
        columns = select_genes(genes, data.genes, data.baseline, data.baseline_variance)
        facts = {k: v for k, v in data.meta.items() if k != "digest"}
        data = replace(data.with_genes(columns), meta={**facts, "genes": genes})
    return with_digest(data)


def _over(spec: Spec, inner: PerturbationDataset) -> PerturbationDataset:
    """A screen made from another one; what it adds is kept by key, because testing every gene takes a while."""
    path = home("cache", spec.entry.name, f"{digest([component_facts(spec), inner.meta['digest']])}.h5")
    kept = read_whole(path, "labels")
    if kept is None:
        with lock(path), one_thread():
            made = spec.make(of=inner).load()
            tested = {name: getattr(made, name) for name in JUDGED if getattr(made, name) is not None}
            write_h5(path, "labels", tested, {"meta": made.meta})
            kept = tested, {"meta": made.meta}
    arrays, facts = kept
    added: dict[str, Any] = dict(arrays)
    return replace(inner, **added, meta=facts["meta"])


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


def forget() -> None:
    """Forget the screens and splits of this process: their files or code may have changed since."""
    _screen.cache_clear()
    split_of.cache_clear()


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
