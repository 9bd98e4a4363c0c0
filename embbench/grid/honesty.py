"""What a table must say beside a score: what the embedding may know, and what breaks the rules of the comparison."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embbench.core import Counts, PerturbationDataset, Run, view_cells
from embbench.core.cells import Cells
from embbench.grid.fit import Job, predict, tables_for
from embbench.grid.prediction import Prediction, product
from embbench.grid.protocols import offered
from embbench.grid.screens import substituted
from embbench.grid.select import settings
from embbench.registry import INFORMATION, Registry

READS_TEST = "reads test rows"
FLAGS = {
    "oracle": "looks at the truth; drawn apart, never ranked",
    READS_TEST: "its predictions changed when the responses of the test rows were replaced by noise",
    "fitted on test rows": "a fixed table of this screen's responses: no fold can close its test rows",
    "information undeclared": "nobody said what the vectors may know; declare it as table:FILE:information=... or in a "
    "registry entry",
    "controls shared": "effects and truth share control noise, which predictions can profit from",
    "genes selected on test rows": "the screen's genes were chosen with its test rows in view",
    "exploded": "worse than the floor by over ten times its distance to the ceiling",
    "above ceiling": "scores better than the noise-free effect would: it has probably seen the truth",
}
SCREEN_FLAGS = ("controls shared", "genes selected on test rows")


def information(registry: Registry, run: Run) -> str:
    """What the vectors of a run may know, joined by `` + `` in the order of `INFORMATION`; empty without vectors.

    Examples
    --------
    >>> from embbench.registry import default
    >>> information(default(), Run("kang18", "unseen_context", "fold0", "ridge", embedding="ppi+permuted:pca"))
    "prior knowledge + this screen's controls"
    """
    used = [b for b in (*run.blocks(), run.context_embedding) if b != "none"]
    found = {kind for text in used for kind in _of_spec(registry, text)}
    known = [kind for kind in INFORMATION if kind in found]
    return " + ".join([kind for kind in known if kind != "none"] or known)


def _of_spec(registry: Registry, text: str) -> set[str]:
    """Kinds of information behind one spec; a wrapper (permuted, compound_targets) adds that of what it wraps."""
    spec = registry.parse("embeddings", text)
    inner = spec.overrides.get("of")
    return {spec.information} | (_of_spec(registry, inner) if isinstance(inner, str) else set())


def facts_of(registry: Registry, run: Run) -> dict[str, Any]:
    """Information, modality, date, kind of head and its settings that selection may try: columns of a run's table."""
    entries = [registry.parse("embeddings", text).entry for text in run.blocks()]
    spec = registry.parse("heads", run.head)
    head = spec.entry.load()
    return {
        "information": information(registry, run),
        "modality": " + ".join(dict.fromkeys(entry.modality for entry in entries if entry.modality)),
        "dated": "; ".join(dict.fromkeys(entry.dated for entry in entries if entry.dated)),
        "complexity": "complex" if head.trained else "simple",
        "budget": len(settings(offered(spec, run.protocol))),
    }


def flags_of(registry: Registry, data: PerturbationDataset, run: Run, role: str) -> list[str]:
    """Words of `FLAGS` that are known before the run: oracles, undeclared information, tables of responses, the screen.

    Permutations and random vectors know nothing, so only the screen's own flags are theirs.
    """
    out = []
    used = [b for b in (*run.blocks(), run.context_embedding) if b != "none"]
    if role == "oracle":
        out.append("oracle")
    elif role == "method":
        kinds = {kind for text in used for kind in _of_spec(registry, text)}
        out += ["information undeclared"] if "unknown" in kinds else []
        static = any(
            "this screen's responses" in _of_spec(registry, text)
            and "effects" not in registry.parse("embeddings", text).entry.load().reads
            for text in used
        )
        out += ["fitted on test rows"] if static else []
    out += ["controls shared"] if data.meta.get("controls") == "shared" else []
    return [*out, *(word for word in data.meta.get("flags", ()) if word in SCREEN_FLAGS)]


def foreign(job: Job) -> bool:
    """Whether a run uses a head or an embedding that does not ship with embbench, where nobody has tested for leaks."""
    return not _packaged(job.head.entry.module) or _foreign_vectors(job)


def _packaged(module: str) -> bool:
    return module.partition(".")[0] == "embbench"


def _foreign_vectors(job: Job) -> bool:
    used = [b for b in (*job.run.blocks(), job.run.context_embedding) if b != "none"]
    return any(not _packaged(job.registry.parse("embeddings", text).entry.module) for text in used)


def audit(job: Job, made: Prediction, rows: np.ndarray) -> str:
    """`READS_TEST` when predictions change once the responses of the test rows are noise, else empty.

    The run is repeated with a screen whose test rows (effects, truth, labels, cells) are noise, also for a component
    that looks the screen up by its name. Vectors are computed again, in a scratch folder, where they are not ours.

    Parameters
    ----------
    job, made : the run and its prediction.
    rows : test rows of the fold.
    """
    noisy = _noisy(job.data, rows)
    with contextlib.ExitStack() as stack:
        stack.enter_context(substituted(job.data.meta["digest"], noisy))
        tables = job.tables
        if _foreign_vectors(job):
            stack.enter_context(_scratch_home())
            tables = tables_for(job.run, job.registry, noisy, job.train)
        again = predict(replace(job, data=noisy, tables=tables))
    first, second = (_values(p, job) for p in (made, again))
    return "" if np.array_equal(first, second) else READS_TEST


def _values(made: Prediction, job: Job) -> np.ndarray:
    if made.values is not None or made.weights is None:
        return np.asarray(made.values)
    return product(made.weights, job.data.effects, job.train)  # training effects are the same in both screens


@contextlib.contextmanager
def _scratch_home() -> Iterator[None]:
    """An empty ``$EMBBENCH_HOME``: what was cached from the true screen must not be read."""
    before = os.environ.get("EMBBENCH_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMBBENCH_HOME"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["EMBBENCH_HOME"]
            else:
                os.environ["EMBBENCH_HOME"] = before


def _noisy(data: PerturbationDataset, rows: np.ndarray) -> PerturbationDataset:
    """The screen with noise for everything that is known of the responses of ``rows``."""
    rng = np.random.default_rng(20)

    def noise(value: np.ndarray) -> np.ndarray:
        value = value.copy()
        part = value[rows]
        drawn = rng.integers(-1, 2, part.shape) if value.dtype.kind in "iu" else rng.normal(0, 5, part.shape)
        value[rows] = np.where(np.isfinite(part), drawn, part).astype(value.dtype)
        return value

    names = ("effects", "truth", "noise_free", "labels", "truth_labels", "log2fc", "padj")
    cells = data.cells
    if cells is not None:
        view = view_cells(cells, np.arange(len(data)))
        cells = replace(view, source=_NoisyCells(view.source, frozenset(view.rows[rows].tolist())))
    changed: dict[str, Any] = {n: noise(getattr(data, n)) for n in names if getattr(data, n) is not None}
    return replace(data, **changed, cells=cells, meta={**data.meta, "audited": True})


@dataclass(frozen=True)
class _NoisyCells:
    """Cells whose perturbed cells of some rows are noise."""

    source: Cells
    closed: frozenset[int]

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """As they were."""
        return self.source.controls(context, half)

    def perturbed(self, row: int) -> np.ndarray:
        """Noise where the row is closed."""
        cells = self.source.perturbed(row)
        if row not in self.closed:
            return cells
        return np.random.default_rng(row).gamma(1.0, 2.0, cells.shape).astype(np.float32)

    def n_controls(self, context: int, half: str = "A") -> int:
        """As it was."""
        return self.source.n_controls(context, half)

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """As they were."""
        return self.source.counts(context, half, index)

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """As they were."""
        return self.source.names(context, half)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """As they were."""
        return self.source.batches(context, half)

    def perturbed_batches(self, row: int) -> np.ndarray:
        """As they were."""
        return self.source.perturbed_batches(row)
