"""Ceilings of a results folder: computed once per fold while the cells are at hand, kept beside the scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from embbench.cache.keys import REVISION, array_digest, code_of, digest
from embbench.cache.store import write_h5
from embbench.core import Metric, PerturbationDataset, Run
from embbench.grid.ceiling import Ceiling, ceilings
from embbench.grid.results import Results
from embbench.grid.score import truth_of

CODE = (
    *("embbench.grid.ceiling", "embbench.grid.halves", "embbench.grid.resample"),
    *("embbench.numerics.resample", "embbench.numerics.shrinkage"),
)
OUTER, INNER = 10, 10  # resamples of batches, and of cells within each


def limits_of(
    results: Results, key: str, source: Callable[[], PerturbationDataset], metrics: Mapping[str, tuple[Metric, str]]
) -> list[Ceiling]:
    """Ceilings of every metric for the test rows of one run's fold: read where they are kept, else computed and kept.

    Parameters
    ----------
    results : the folder.
    key : a run of the fold; its own predictions do not matter.
    source : gives the run's screen, with its cells where they can be had; asked only when something is missing. What
        is computed without the cells that the screen was made from is not kept: they may be there next time.
    metrics : name -> (metric, digest of its code).
    """
    at, run = results.rows(key), Run(**results.facts(key)["run"])
    own = {
        "data": results.facts(key)["dataset"],
        "rows": array_digest(at["rows"], at["train"]),
        "draws": [OUTER, INNER, run.samples],
        "code": [REVISION, *map(code_of, CODE)],
    }
    path = results.path("ceilings", digest(own))
    kept = results.valid(path, "ceilings")
    arrays, facts = kept if kept is not None else ({}, {"metrics": {}, "ceilings": []})
    # the mean of a few sampled cells is noisier than a predicted effect, so the ceiling of effects is not its ceiling
    metrics = {n: v for n, v in metrics.items() if v[0].target == run.target}
    missing = {n: m for n, (m, code) in metrics.items() if facts["metrics"].get(n) != code}
    if missing:
        data = source()
        spaces = {metric.space for metric in missing.values()}
        truth = truth_of(data, at["rows"], at["train"], cells=data.cells is not None, spaces=spaces)
        able = {n: m for n, m in missing.items() if not m.unmet(truth)}
        made = ceilings(data, truth, at["rows"], at["train"], able, outer=OUTER, inner=INNER, samples=run.samples)
        facts["ceilings"] = [c for c in facts["ceilings"] if c["metric"] not in missing]
        for c in made:
            arrays[f"{c.variant}|{c.metric}"] = np.asarray(c.values, dtype=np.float64)
            facts["ceilings"].append({"variant": c.variant, "metric": c.metric, "note": c.note, "bias": c.bias})
        if data.cells is not None or not data.meta.get("cells_digest"):
            facts["metrics"] |= {n: metrics[n][1] for n in missing}  # those with an unmet need too: nothing to look for
            write_h5(path, "ceilings", arrays, facts)
    return [
        Ceiling(c["variant"], c["metric"], arrays[f"{c['variant']}|{c['metric']}"], c["note"], c["bias"])
        for c in facts["ceilings"]
        if c["metric"] in metrics
    ]
