"""Results as data frames: runs, scores, ceilings and facts, in the form that the report reads."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import PerturbationDataset, Run, Truth, UserError
from embbench.grid.ceiling import Ceiling
from embbench.grid.limits import limits_of
from embbench.grid.results import Results
from embbench.grid.score import metrics_of, reasons, row_facts, score_run
from embbench.grid.screens import screen
from embbench.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

DECLARED = ("best", "lower", "upper", "level", "target", "genes", "space", "unit", "source")  # of a metric
_UNTOLD = {"information": "", "modality": "", "dated": "", "complexity": "", "budget": 0, "flags": ""}
COORDINATES = tuple(f.name for f in fields(Run))


@dataclass(frozen=True)
class Frames:
    """What a report is made of.

    Parameters
    ----------
    runs : one row per run with its status.
    scores : one row per run, test row and metric.
    ceilings : one row per dataset row, gene choice, metric and variant.
    metrics : metric name -> direction, range, unit, level, formula, source.
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
    table, ceilings, facts = _Scores([]), [], {}
    for where, group in runs[runs.status == "done"].groupby(["dataset", "split", "genes", "digest"], sort=False):
        dataset, split, genes, key = map(str, where)
        targets = set(group.target)
        data = results.screen(key)
        if "population" in targets:
            data = with_cells(data, dataset, genes, registry)
        kind = group.kind.iloc[0]
        rows = row_facts(data, kind)
        scored: set[str] = set()
        for values in group.to_dict("records"):
            record = {str(k): v for k, v in values.items()}
            scores = score_run(results, record["key"], data, metrics, truths)
            scored |= set(scores)
            table.add(record, scores, rows, results)
        undefined = {n: why for n, why in reasons(data, metrics, targets).items() if n not in scored}
        facts[dataset] = _facts(data, kind, undefined)
        source = functools.partial(with_cells, data, dataset, genes, registry)
        place = {"dataset": dataset, "split": split, "genes": genes}
        for fold in group.drop_duplicates(["seed", "fold", "target"])["key"]:
            limits = limits_of(results, fold, source, metrics)
            ceilings.append(_ceilings(place, limits, results.rows(fold)["rows"], rows))
        truths.clear()  # of this board: the next one has other rows
    empty = pd.DataFrame(columns=[*COORDINATES, "key", "config", "role", "row", "metric", "value"])
    return Frames(
        runs.drop(columns=["digest", "kind"]),
        table.frame() if table.parts else empty,
        _over_seeds(pd.concat(ceilings, ignore_index=True)) if ceilings else pd.DataFrame(),
        {n: {name: getattr(m, name) for name in DECLARED} | {"formula": m.formula} for n, (m, _) in metrics.items()},
        facts,
    )


def _over_seeds(ceilings: pd.DataFrame) -> pd.DataFrame:
    """One row per split, dataset row, metric and variant: a rank depends on the fold, so seeds are averaged."""
    by = ["dataset", "split", "genes", "row", "metric", "variant"]
    mean = ceilings.groupby(by, sort=False)[["value", "bias"]].mean().reset_index()
    first = ceilings.drop_duplicates(by).drop(columns=["value", "bias"])
    return first.merge(mean, on=by, how="left")


def with_cells(data: PerturbationDataset, name: str, genes: str, registry: Registry) -> PerturbationDataset:
    """The kept screen with the cells of the dataset it came from; without, when that is gone or has changed."""
    try:
        source = screen(name, genes, registry.users)
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
            record |= stored["facts"]["told"].get(planned["config"], _UNTOLD)
            record |= {k: planned[k] for k in ("key", "config", "role", "reason")}
            record |= {"kind": stored["facts"]["kinds"][f"{run.dataset}|{run.split}"], "fallback": "context mean"}
            seen.setdefault(planned["key"], record)
    for key, record in seen.items():
        record |= _status(results, key, record["reason"])
    return _flagged(pd.DataFrame(list(seen.values())))


def _status(results: Results, key: str, reason: str) -> dict[str, Any]:
    blank = {
        "digest": "",
        "n_train": 0,
        "n_test": 0,
        "coverage": np.nan,
        "dim": 0,
        "query_controls": "",
        "chosen": "",
        "trials": 0,
        "cpu_seconds": np.nan,
        "inner_score": np.nan,
        "audit": "",
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
            "query_controls": "yes" if facts.get("query_controls") else "",
            "chosen": json.dumps(chosen, sort_keys=True),
            "trials": max([v["trials"] for v in facts["chosen"].values()], default=0),
            "cpu_seconds": facts.get("cpu_seconds"),
            "inner_score": _inner(facts["chosen"]),
            "audit": facts.get("audit", ""),
        }
    failed = results.failure(key)
    return {**blank, "status": "failed" if failed else "pending", "reason": failed}


def _inner(chosen: dict[str, Any]) -> float:
    """Mean best inner score over the fits of a run; NaN where nothing was selected."""
    scores = [c["score"] for c in chosen.values() if c["score"] is not None]
    return float(np.mean(scores)) if scores else float("nan")


def _flagged(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the audit's finding, from whichever fold it comes, among the flags of their configuration."""
    found = runs[runs["audit"] != ""].groupby("config")["audit"].first()
    more = runs["config"].map(found).fillna("")
    joined = ["; ".join(part for part in pair if part) for pair in zip(runs["flags"], more, strict=True)]
    return runs.assign(flags=joined).drop(columns="audit")


@dataclass(frozen=True)
class _Scores:
    """Tidy rows run x metric x test row; what a run or a dataset row repeats is kept as codes."""

    parts: list[dict[str, Any]]

    def add(
        self, record: dict[str, Any], scores: dict[str, np.ndarray], rows: dict[str, Any], results: Results
    ) -> None:
        stored = results.rows(record["key"])
        index, times = stored["rows"], len(scores)
        columns = {k: np.tile(v[index], times) for k, v in rows.items()}
        _, where = np.unique(rows["context"][index].astype(str), return_inverse=True)
        own = {"row": index, "covered": stored["covered"], "group": stored["groups"]}
        own |= {"candidates": np.bincount(where)[where].astype(np.int32)}  # conditions that a rank is among
        columns |= {k: np.tile(v, times) for k, v in own.items()}
        columns |= {"metric": np.repeat(np.array(list(scores), dtype=object), len(index))}
        columns |= {"value": np.concatenate([*scores.values(), np.zeros(0)])}
        self.parts.append({"columns": columns, "record": record})

    def frame(self) -> pd.DataFrame:
        """All rows; text columns are categories."""
        import pandas as pd

        names = list(self.parts[0]["columns"])
        columns = {k: np.concatenate([p["columns"][k] for p in self.parts]) for k in names}
        run = np.repeat(np.arange(len(self.parts)), [len(p["columns"]["row"]) for p in self.parts])
        out = {k: pd.Categorical(v) if v.dtype == object else v for k, v in columns.items()}
        for name in (*COORDINATES, "key", "config", "role"):
            codes, values = pd.factorize(np.array([p["record"][name] for p in self.parts], dtype=object))
            out[name] = pd.Categorical.from_codes(codes[run], categories=pd.Index(values, dtype=object))
        return pd.DataFrame(out)


def _ceilings(where: dict[str, Any], limits: list[Ceiling], index: np.ndarray, rows: dict[str, Any]) -> pd.DataFrame:
    """One row per test row, metric and variant of the ceiling."""
    import pandas as pd

    facts = {k: v[index] for k, v in rows.items()} | where | {"row": index}
    parts = [
        pd.DataFrame(
            facts
            | {"metric": c.metric, "variant": c.variant, "value": c.values, "note": c.note}
            | {"bias": np.nan if c.bias is None else c.bias}
        )
        for c in limits
    ]
    names = [*facts, "metric", "variant", "value", "note", "bias"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def _facts(data: PerturbationDataset, kind: str, undefined: dict[str, str]) -> dict[str, Any]:
    return {
        "n": len(data),
        "contexts": len(data.contexts),
        "entities": len(data.entity_names),
        "genes": data.effects.shape[1],
        "unit": data.unit,
        "dated": data.meta.get("dated", ""),
        "study": data.name if data.meta.get("simulated") else data.meta.get("source") or data.name,
        "entity_type": data.entity_type,
        "kind": kind,
        "controls": data.meta.get("controls", "none"),
        "simulated": bool(data.meta.get("simulated", False)),
        "footer": " ".join(_caveats(data)),
        "undefined": undefined,
    }


def _caveats(data: PerturbationDataset) -> list[str]:
    """Sentences that belong under every table of the screen."""
    marks = {
        "Size factors: sums over the measured genes (no total-count column).": data.meta.get("size_factor") == "panel",
        "Entries that the file does not list count as 0: not significant, not measured.": data.meta.get("missing")
        == "zero",
        "Rank scores, not log fold changes: they order genes and say nothing of effect sizes.": data.unit
        == "rank_score",
    }
    own = str(data.meta.get("footer", ""))
    return [*([own] if own else []), *(text for text, holds in marks.items() if holds)]
