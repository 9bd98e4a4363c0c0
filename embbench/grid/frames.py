"""Results as data frames: runs, scores, ceilings and facts, in the form that the report reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import Metric, PerturbationDataset, Run, Truth, UserError
from embbench.grid.ceiling import ceiling
from embbench.grid.results import Results
from embbench.grid.score import metrics_of, reasons, row_facts, score_run, truth_of
from embbench.grid.screens import screen
from embbench.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

COORDINATES = tuple(f.name for f in fields(Run))


@dataclass(frozen=True)
class Frames:
    """What a report is made of.

    Parameters
    ----------
    runs : one row per run with its status.
    scores : one row per run, test row and metric.
    ceilings : one row per dataset row, gene choice and metric.
    metrics : metric name -> direction, range, level, source.
    facts : dataset name -> facts for titles and footers.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    ceilings: pd.DataFrame
    metrics: dict[str, dict[str, Any]]
    facts: dict[str, dict[str, Any]]


def read_frames(results: Results, registry: Registry, names: list[str]) -> Frames:
    """Frames of everything in a results folder; scores that are missing are computed from the stored predictions.

    Parameters
    ----------
    results : the folder.
    registry : of the metrics.
    names : registered metric names; those a screen cannot serve are left out there, with the reason in ``facts``.
    """
    import pandas as pd

    metrics = metrics_of(registry, names)
    runs = _runs(results)
    truths: dict[str, Truth] = {}
    parts, ceilings, facts = [], [], {}
    for where, group in runs[runs.status == "done"].groupby(["dataset", "split", "genes", "digest"], sort=False):
        dataset, _, genes, key = map(str, where)
        targets = set(group.target)
        data = results.screen(key)
        if "population" in targets:
            data = _with_cells(data, dataset, genes, registry)
        kind = group.kind.iloc[0]
        rows = row_facts(data, kind)
        facts[dataset] = _facts(data, kind, reasons(data, metrics, targets))
        for values in group.to_dict("records"):
            record = {str(k): v for k, v in values.items()}
            scores = score_run(results, record["key"], data, metrics, truths)
            parts.append(_scored(record, scores, rows, results))
        for _, fold in group.drop_duplicates(["seed", "fold"]).iterrows():
            ceilings.append(_ceilings(dataset, genes, data, results, fold["key"], metrics, rows))
    empty = pd.DataFrame(columns=[*COORDINATES, "key", "config", "role", "row", "metric", "value"])
    return Frames(
        runs.drop(columns=["digest", "kind"]),
        _categories(pd.concat(parts, ignore_index=True)) if parts else empty,
        pd.concat(ceilings, ignore_index=True).drop_duplicates(["dataset", "genes", "row", "metric"])
        if ceilings
        else pd.DataFrame(),
        {
            n: {"best": m.best, "lower": m.lower, "upper": m.upper, "level": m.level, "source": m.source}
            for n, (m, _) in metrics.items()
        },
        facts,
    )


def _with_cells(data: PerturbationDataset, name: str, genes: str, registry: Registry) -> PerturbationDataset:
    """The kept screen with the cells of the dataset it came from; without, when that is gone or has changed."""
    try:
        source = screen(name, genes, tuple(map(str, registry.paths[1:])))
    except UserError:
        return data
    return replace(data, cells=source.cells) if source.meta["digest"] == data.meta["digest"] else data


def _runs(results: Results) -> pd.DataFrame:
    import pandas as pd

    seen: dict[str, dict[str, Any]] = {}
    for stored in results.plans():
        for planned in stored["runs"]:
            run = Run(**planned["run"])
            record = {name: getattr(run, name) for name in COORDINATES}
            record |= {k: planned[k] for k in ("key", "config", "role", "reason")}
            record |= {"kind": stored["facts"]["kinds"][f"{run.dataset}|{run.split}"], "fallback": "context mean"}
            seen.setdefault(planned["key"], record)
    for key, record in seen.items():
        record |= _status(results, key, record["reason"])
    return pd.DataFrame(list(seen.values()))


def _status(results: Results, key: str, reason: str) -> dict[str, Any]:
    blank = {
        "digest": "",
        "n_train": 0,
        "n_test": 0,
        "coverage": np.nan,
        "dim": 0,
        "chosen": "",
        "trials": 0,
        "cpu_seconds": np.nan,
    }
    if reason:
        return {**blank, "status": "skipped"}
    if results.path("predictions", key).exists():
        facts = results.facts(key)
        chosen = {k: v["params"] for k, v in facts["chosen"].items()}
        return {
            "status": "done",
            "digest": facts["dataset"],
            "n_train": facts["n_train"],
            "n_test": facts["n_test"],
            "coverage": facts["coverage"],
            "dim": facts["dim"],
            "chosen": json.dumps(chosen, sort_keys=True),
            "trials": max([v["trials"] for v in facts["chosen"].values()], default=0),
            "cpu_seconds": facts.get("cpu_seconds"),
        }
    failed = results.failure(key)
    return {**blank, "status": "failed" if failed else "pending", "reason": failed}


def _scored(
    record: dict[str, Any], scores: dict[str, np.ndarray], rows: dict[str, Any], results: Results
) -> pd.DataFrame:
    import pandas as pd

    stored = results.rows(record["key"])
    index, m = stored["rows"], len(stored["rows"])
    base: dict[str, Any] = {name: record[name] for name in (*COORDINATES, "key", "config", "role")}
    columns = {
        k: np.tile(np.asarray(v, dtype=object if k != "detectable" else bool)[index], len(scores))
        for k, v in rows.items()
    }
    columns |= {
        "row": np.tile(index, len(scores)),
        "covered": np.tile(stored["covered"], len(scores)),
        "group": np.tile(stored["groups"], len(scores)),
    }
    columns |= {"metric": np.repeat(list(scores), m), "value": np.concatenate([*scores.values(), np.zeros(0)])}
    return pd.DataFrame({**columns}).assign(**base)


def _ceilings(
    dataset: str,
    genes: str,
    data: PerturbationDataset,
    results: Results,
    key: str,
    metrics: dict[str, tuple[Metric, str]],
    rows: dict[str, Any],
) -> pd.DataFrame:
    import pandas as pd

    stored = results.rows(key)
    index = stored["rows"]
    truth = truth_of(data, index, stored["train"])
    where: dict[str, Any] = {"dataset": dataset, "genes": genes}
    parts = []
    for name, (metric, _) in metrics.items():
        if metric.target != "effects" or metric.unmet(truth):
            continue
        values, note = ceiling(data, truth, index, name, metric)
        columns = {k: np.asarray(v, dtype=object if k != "detectable" else bool)[index] for k, v in rows.items()}
        parts.append(pd.DataFrame(columns | where | {"row": index, "metric": name, "value": values, "note": note}))
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=["dataset", "genes", "row", "metric", "value", "note"])
    )


def _categories(frame: pd.DataFrame) -> pd.DataFrame:
    text = [c for c in frame.columns if frame[c].dtype == object]
    return frame.astype(dict.fromkeys(text, "category"))


def _facts(data: PerturbationDataset, kind: str, undefined: dict[str, str]) -> dict[str, Any]:
    return {
        "n": len(data),
        "contexts": len(data.contexts),
        "entities": len(data.entity_names),
        "genes": data.effects.shape[1],
        "unit": data.unit,
        "entity_type": data.entity_type,
        "kind": kind,
        "controls": data.meta.get("controls", "none"),
        "simulated": bool(data.meta.get("simulated", False)),
        "footer": data.meta.get("footer", ""),
        "undefined": undefined,
    }
