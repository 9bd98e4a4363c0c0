"""Everything that the page and the static figures show, as one JSON value.

Details
-------
What only a results folder with its screen knows comes as ``details``, a mapping. Every key may be absent, and so may
every field marked *; a panel without data says so. Arrays may be numpy arrays or lists; NaN is "no value".

``conditions`` : dataset -> {``row``, ``effect_norm`` *, ``n_cells`` *}
    Arrays over dataset rows: row number as in the scores, Euclidean norm of the observed effect, cells per condition.

``examples`` : list of single predictions of a few best runs, each
    {``dataset``, ``split``, ``genes``, ``embedding``, ``context_embedding`` *, ``head``, ``fold`` *, ``condition``,
    ``context``, ``unit`` * (of the effects), ``names`` (k gene names: the largest by |true| and a sample),
    ``true`` (k), ``predicted`` (k), ``top`` * (how many of the first names are the largest),
    ``scores`` * (metric -> value), ``neighbours`` * (of linear smoothers: list of [training perturbation, weight],
    largest |weight| first), ``effect_norm`` *, ``n_cells`` *}

``populations`` : list of predicted cell populations, each
    {``dataset``, ``split``, ``genes``, ``embedding``, ``context_embedding`` *, ``head``, ``fold`` *, ``condition``,
    ``context``, ``space`` * (what the axes are), ``explained`` * (share of variance of both axes),
    ``real``, ``predicted``, ``control`` * (lists of [x, y]),
    ``names`` * (k genes), ``mean_true`` *, ``mean_predicted`` *, ``variance_true`` *, ``variance_predicted`` *
    (k each), ``top`` * (names of the top DE genes of the truth)}

``flags`` * : word -> what it means, of the flags that a leaderboard may hold

Provenance
----------
Free: keys become headings, nested mappings and lists become lists. Usual keys: ``versions``, ``hashes``, ``seeds``,
``commands``, ``created``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from embbench.report.boards import BOARD, NAMES, OTHER, STATUSES, strip_permuted
from embbench.report.page.encode import DIGITS, encode, plain
from embbench.report.page.names import short_names
from embbench.report.page.points import conditions, points

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
PAIRS = 3000  # declared pairs that are kept, smallest p first
SCORE_DIGITS = {"leaderboard": 6, "by_context": 6, "composites": 6}  # where tables elsewhere show the same numbers
_COORDINATES = ("metric", "subset", *BOARD, *NAMES, *OTHER, "role")
_LEADERBOARD = (
    *("rank", "best", "mean", "low", "high", "n_units", "unit", "n_conditions", "n_contexts", "undefined"),
    *("coverage", "enough_coverage", "fallback", "dim", "query_controls", "candidates", "ceiling", "ceiling_note"),
    *("ceiling_conditions", "floor", "floor_name", "progress", "progress_low", "progress_high", "progress_note"),
    *("vs_permuted", "vs_permuted_low", "vs_permuted_high", "permutation_p", "beats_permuted", "draws"),
    *("vs_context_mean", "vs_context_mean_low", "vs_context_mean_high", "context_mean_p", "beats_context_mean"),
    *("verdicts", "pairs", "pairs_better", "pairs_worse", "flags", "information", "complexity", "complete"),
)
_NEEDED: dict[str, tuple[str, ...]] = {
    "examples": ("dataset", "embedding", "head", "condition", "names", "true", "predicted")
}
_NEEDED |= {"populations": ("dataset", "embedding", "head", "condition")}
_SAME_LENGTH = {
    "examples": ("names", "true", "predicted"),
    "populations": ("names", "mean_true", "mean_predicted", "variance_true", "variance_predicted"),
    "conditions": ("row", "effect_norm", "n_cells"),
}


def make_bundle(
    frames: Any, tables: Mapping[str, pd.DataFrame], details: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """One JSON value behind the page and the figures.

    Parameters
    ----------
    frames : has attributes runs, scores, ceilings, metrics, facts (`embbench.grid.frames.Frames`).
    tables : report tables by name: leaderboard (all metrics and subsets stacked), by_context, pairwise, decomposition,
        by_information, choice, ranks, rank_boxes, composites, problems, timings, chosen. Absent tables and columns
        leave their panel empty, with the reason; without composites there is no such panel.
    details : as described above; ``{}`` where there are none.
    provenance : versions, hashes, seeds, commands.

    Returns
    -------
    dict
        ``format``, ``metrics``, ``datasets``, ``embeddings``, ``labels`` (short names of embeddings and datasets, see
        `page.names`), ``counts``, ``tables`` (see `page.encode`), ``details``, ``provenance`` and ``notes`` (what was
        left out). The same input gives the same value.

    Raises
    ------
    ValueError
        Arrays of one detail differ in length, or a field that is needed is absent.
    """
    _check(details)
    leaderboard = _frame(tables, "leaderboard")
    kept: dict[str, pd.DataFrame] = {
        name: frame for name, frame in tables.items() if name not in ("by_group", "pairwise")
    }
    kept["leaderboard"] = _columns(leaderboard, (*_COORDINATES, *_LEADERBOARD))
    contexts = _frame(tables, "by_context")
    if len(contexts):
        shown = ((contexts["subset"] == "all") & (contexts["role"] != "permuted")).to_numpy()
        kept["by_context"] = _columns(contexts[shown], (*_COORDINATES, "context", "mean", "low", "high", "ceiling"))
    notes = []
    if "pairwise" in tables:
        kept["pairwise"], note = _pairs(tables["pairwise"])
        notes += [note] if note else []
    if "choice" in tables:
        kept["choice"] = tables["choice"][tables["choice"]["chosen"].astype(bool).to_numpy()]
    if "rank_boxes" in tables:
        boxes = _columns(tables["rank_boxes"], (*_COORDINATES, "fold", "context", "rank"))
        kept["rank_boxes"] = boxes.sort_values([str(c) for c in boxes if c != "rank"], kind="stable")
    if "composites" in tables:
        kept["composites"] = tables["composites"].drop(columns="config", errors="ignore")
    kept["points"] = points(frames.scores, frames.runs, frames.ceilings)
    known = details.get("conditions", {})
    kept["conditions"] = conditions(frames.scores, frames.runs, leaderboard, frames.metrics, known)
    kept["ceilings"] = _ceilings(frames.ceilings)
    embeddings = _embeddings(frames.runs)
    return {
        "format": FORMAT,
        "metrics": plain(dict(frames.metrics)),
        "datasets": plain(dict(frames.facts)),
        "embeddings": embeddings,
        "labels": {"embeddings": _labels(embeddings), "datasets": _labels(map(str, frames.runs["dataset"].unique()))},
        "counts": _counts(frames.runs),
        "tables": {name: encode(_worded(frame), SCORE_DIGITS.get(name, DIGITS)) for name, frame in kept.items()},
        "details": plain({key: details.get(key, []) for key in ("examples", "populations")})
        | {"flags": dict(details.get("flags", {}))},
        "provenance": plain(dict(provenance)),
        "notes": notes,
    }


def _worded(frame: pd.DataFrame) -> pd.DataFrame:
    """Coordinates as words, whatever type they had: they name entries."""
    import pandas as pd

    typed = [c for c in OTHER if c in frame and not pd.api.types.is_object_dtype(frame[c].dtype)]
    return frame.reset_index(drop=True).astype(dict.fromkeys(typed, str))


def _labels(names: Iterable[str]) -> dict[str, str]:
    """Short labels of the names that are too long to be shown."""
    return {name: label for name, label in short_names(names).items() if name != label}


def _frame(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    import pandas as pd

    return tables[name] if name in tables else pd.DataFrame()


def _columns(frame: pd.DataFrame, wanted: tuple[str, ...]) -> pd.DataFrame:
    """The wanted columns that are there; coordinates that do not vary are left out, except those that panels read."""
    always = ("metric", "subset", *BOARD, *NAMES, "role")
    chosen = [c for c in wanted if c in frame and (c not in OTHER or frame[c].nunique(dropna=False) > 1)]
    return frame[[c for c in chosen if c in always or frame[c].notna().any()]]


def _pairs(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Pairs with a declared difference, all conditions, smallest p first; and a sentence on what was left out."""
    if not len(frame):
        return frame, ""
    hit = frame["better"].isin(["–", ""]) | frame["better"].isna()
    declared = frame[(~hit & (frame["subset"] == "all")).to_numpy()] if "subset" in frame else frame[~hit.to_numpy()]
    order = ["p_holm"] if "p_holm" in declared else []
    kept = declared.sort_values(order, kind="stable").head(PAIRS) if order else declared.head(PAIRS)
    gone = len(declared) - len(kept)
    return kept, f"{gone} of {len(declared)} declared pairs are only in pairwise.csv." if gone else ""


def _ceilings(frame: pd.DataFrame | None) -> pd.DataFrame:
    """Mean ceiling per board, metric and variant (contexts equal), with bias and origin."""
    import pandas as pd

    if frame is None or not len(frame):
        return pd.DataFrame()
    by = [c for c in (*BOARD, "metric", "variant", "note") if c in frame]
    texts = frame[by].astype(object).fillna("")
    values = frame.assign(**{c: texts[c] for c in by}, context=frame["context"].astype(object))
    means = {"value": "mean"} | ({"bias": "mean"} if "bias" in frame else {})
    each = values.groupby([*by, "context"], sort=True).agg(means).groupby(by, sort=True).mean()
    counts = values[values["value"].notna()].groupby(by).size().rename("conditions")
    return each.join(counts).fillna({"conditions": 0}).reset_index()


def _embeddings(runs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """What is known of each embedding (permutation draws under their common name): modality, information, date."""
    told = [c for c in ("modality", "information", "dated") if c in runs]
    out: dict[str, dict[str, str]] = {}
    for column in ("embedding", "context_embedding"):
        for _, row in runs.drop_duplicates([column, *told]).iterrows():
            facts = {name: str(row[name]) if row[name] == row[name] and row[name] else "" for name in told}
            label = strip_permuted(str(row[column]))[0]
            if label not in out or not any(out[label].values()):
                out[label] = facts
    return dict(sorted(out.items()))


def _counts(runs: pd.DataFrame) -> dict[str, dict[str, int]]:
    found = runs.groupby(["dataset", "status"]).size()
    return {
        str(name): {status: int(found.get((name, status), 0)) for status in STATUSES}
        for name in dict.fromkeys(runs["dataset"])
    }


def _check(details: Mapping[str, Any]) -> None:
    for section, names in _SAME_LENGTH.items():
        found = details.get(section, ())
        for part in found.values() if isinstance(found, Mapping) else found:
            if absent := [name for name in _NEEDED.get(section, (names[0],)) if name not in part]:
                raise ValueError(f"report: details[{section!r}] need {', '.join(absent)}, found {', '.join(part)}")
            sizes = {name: len(part[name]) for name in names if name in part}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"report: arrays of details[{section!r}] must have one length, found {sizes}")
