"""Predictions of a finished configuration in the formats of other tools: what is gathered, and which writer serves."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.cache.keys import array_digest
from embbench.cache.store import replacing
from embbench.core import PerturbationDataset, Run, UserError
from embbench.grid.apply import find_run
from embbench.grid.limits import limits_of
from embbench.grid.metrics import metric_names
from embbench.grid.names import registry_of
from embbench.grid.results import Results, check_folder
from embbench.grid.score import mean_effects, metrics_of, score_run
from embbench.grid.screens import screen
from embbench.registry import Registry

if TYPE_CHECKING:
    import anndata

CONTROL, PERTURBATION, CONTEXT = "non-targeting", "target_gene", "cell_type"  # what cell-eval's command line expects
MARK = "embbench"  # where a file says that it is ours, in ``uns``


def mark_of(train: np.ndarray, test: np.ndarray) -> str:
    """Digest of the dataset rows of a fold."""
    return array_digest(np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64))


@dataclass(frozen=True)
class Names:
    """What the columns and the control of a written file are called, and the order of an openproblems test set.

    Parameters
    ----------
    control : label of the control rows (cell-eval).
    perturbation, context : columns of ``obs`` (cell-eval).
    id_map : CSV with id, cell_type and sm_name whose order an openproblems file follows; None: the run's own order.
    """

    control: str = CONTROL
    perturbation: str = PERTURBATION
    context: str = CONTEXT
    id_map: Path | None = None


@dataclass(frozen=True, eq=False)
class Predicted:
    """The prediction of one fold.

    Parameters
    ----------
    fold, key : name of the fold and key of the run.
    rows : (m,) dataset rows.
    covered : (m,) bool; False rows took the fallback.
    values : (m, g) effects against half A, or (m, s, g) cells; float32.
    """

    fold: str
    key: str
    rows: np.ndarray
    covered: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Gathered:
    """All done folds of a configuration.

    Parameters
    ----------
    results, registry : where it lies, and the registry of its metrics.
    run, config : one run of the configuration, and its id.
    data : the screen, with cells where they can be had.
    folds : predictions, in the order of the plan.
    undone : names of folds that failed or have not run.
    without : why ``data`` has no cells, empty where it has.
    """

    results: Results
    registry: Registry
    run: Run
    config: str
    data: PerturbationDataset
    folds: tuple[Predicted, ...]
    undone: tuple[str, ...]
    without: str = ""

    @property
    def cells(self) -> bool:
        """Whether single cells are predicted, not effects."""
        return self.run.target == "population"

    @property
    def method(self) -> str:
        """Embedding and head in a word."""
        return self.run.head if self.run.embedding == "none" else f"{self.run.embedding} x {self.run.head}"

    def effects(self, made: Predicted) -> np.ndarray:
        """Predicted effects (m, g) of a fold; of cells their mean against the half-A control mean."""
        if not self.cells:
            return made.values
        return mean_effects(made.values, self.data, self.data.context_codes[made.rows])

    def scores(self) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
        """Scores and noise-free ceilings of every fold, each name -> (m,) float64, for the metrics of the latest grid.

        They are read where the results folder holds them, else computed from the stored predictions and kept there.
        """
        asked = self.results.plans()[-1]["facts"]["grid"]["metrics"]
        scored = {p["facts"]["grid"]["target"]: p["facts"]["grid"]["metrics"] for p in self.results.plans()}
        names = metric_names(self.registry, scored.get(self.run.target, asked), self.run.target)
        metrics, scores, ceilings = metrics_of(self.registry, names), [], []
        for made in self.folds:
            scores.append(score_run(self.results, made.key, self.data, metrics, {}))
            limits = limits_of(self.results, made.key, lambda: self.data, metrics)
            ceilings.append({c.metric: c.values for c in limits if c.variant == "noise_free"})
        return scores, ceilings

    def facts(self) -> dict[str, Any]:
        """What a file says of its origin; text and numbers only."""
        data, run, rows = self.data, self.run, {made.fold: self.results.rows(made.key) for made in self.folds}
        return {
            "content": "cells" if self.cells else "effects",
            "unit": data.unit,
            "dataset": run.dataset,
            "dataset_digest": str(data.meta["digest"]),
            "genes": run.genes,
            "split": run.split,
            "seed": run.seed,
            "config": self.config,
            "marks": json.dumps({name: mark_of(r["train"], r["rows"]) for name, r in rows.items()}),
            "run": json.dumps(run.coordinates() | {"fold": "all exported"}, sort_keys=True),
            "head": run.head,
            "embedding": run.embedding,
            "controls": str(data.meta.get("controls", "none")),
            "matching": str(data.meta.get("matching", "")),
            "licence": str(data.meta.get("licence", "")),
            "folds": ",".join(made.fold for made in self.folds),
            "folds_undone": ",".join(self.undone),
        }


@dataclass(frozen=True)
class Written:
    """What a writer wrote, and what it has to say: counts of what the format cannot hold."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


FORMATS = ("cell-eval", "h5ad", "openproblems")


def gather(results: Results, key: str, paths: tuple[str, ...] = (), fold: str | None = None) -> Gathered:
    """The predictions of a configuration, all folds or one.

    Parameters
    ----------
    results : the folder.
    key : start of a configuration id or of one of its run keys.
    paths : the user's registry files, for the screen's cells and the metrics.
    fold : name of a fold; None takes all.

    Raises
    ------
    UserError
        No or several configurations, an unknown fold, none that is done, or a run that predicts labels.
    """
    run, config = find_run(results, key)
    if run.target == "labels":
        raise UserError(
            f"--run {key}: {run.head} predicts labels (probabilities of down, none and up); these formats hold effects "
            "or cells, choose a configuration that predicts those"
        )
    runs = {p["key"]: Run(**p["run"]) for kept in results.plans() for p in kept["runs"] if p["config"] == config}
    if fold is not None and fold not in {r.fold for r in runs.values()}:
        names = ", ".join(sorted({r.fold for r in runs.values()}))
        raise UserError(f"--fold {fold!r}: {config[:8]} has {names}")
    wanted = {k: r for k, r in runs.items() if fold in (None, r.fold)}
    done = [k for k in wanted if results.path("predictions", k).exists()]
    undone = tuple(r.fold for k, r in wanted.items() if k not in done)
    if not done:
        raise UserError(
            f"--run {key}: none of {len(wanted)} folds is done ({', '.join(undone)}); run embbench grid --out "
            f"{results.folder} again, embbench report {results.folder} says why runs failed"
        )
    data, without = _screen(results, results.facts(done[0])["dataset"], run, paths)
    folds = []
    for k in done:
        kept = results.prediction(k, data)
        folds.append(Predicted(wanted[k].fold, k, kept.rows, kept.covered, np.asarray(kept.values, dtype=np.float32)))
    return Gathered(results, registry_of(paths), run, config, data, tuple(folds), undone, without)


def _screen(results: Results, digest: str, run: Run, paths: tuple[str, ...]) -> tuple[PerturbationDataset, str]:
    """The kept screen with the cells of the dataset that it came from, or why it has none."""
    data = results.screen(digest)
    try:
        source = screen(run.dataset, run.genes, paths)
    except UserError as error:
        return data, str(error)
    if source.meta["digest"] != digest:
        return data, f"{run.dataset} has changed since the grid ran"
    return replace(data, cells=source.cells), "" if source.cells is not None else f"{run.dataset} has no cells"


def export(gathered: Gathered, form: str, out: Path, names: Names | None = None) -> Written:
    """Write predictions in a format of `FORMATS` into the folder ``out``.

    Raises
    ------
    UserError
        An unknown format, or one that cannot hold these predictions.
    """
    if form not in FORMATS:
        raise UserError(f"--format {form!r}: expected one of {', '.join(FORMATS)}")
    check_folder(out, "the folder of the files,", "--out")
    from embbench.exchange._cell_eval import write_pairs
    from embbench.exchange._openproblems import write_openproblems
    from embbench.exchange._plain import write_plain

    writers = dict(zip(FORMATS, (write_pairs, write_plain, write_openproblems), strict=True))
    written = writers[form](gathered, out, names or Names())
    if not gathered.undone:
        return written
    late = f"{len(gathered.undone)} folds are not done and not in the files: {', '.join(gathered.undone)}"
    return Written(written.files, (late, *written.notes))


def save(made: anndata.AnnData, path: Path) -> Path:
    """Write an AnnData under a temporary name and rename it; returns the path."""
    with replacing(path) as temporary:
        made.write_h5ad(temporary)
    return path


def place_of(gathered: Gathered, made: Predicted) -> str:
    """A folder's name for a fold: folds may be called like contexts, with characters that no path should have."""
    names = ["".join(c if c.isalnum() or c in " +-_." else "_" for c in p.fold).strip(". ") for p in gathered.folds]
    own = gathered.folds.index(made)
    return names[own] if names[own] and names.count(names[own]) == 1 else f"{names[own]}_{own}"
