"""Markdown tables of `heads_simulated.py`: means over seeds, paired differences, shares of a gap, costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from embbench.datasets._sim_settings import KINDS

METRICS = {
    "effects": ("l2_debiased_all", "pearson_all"),
    "population": ("edistance_euclidean_u_pca50", "mmd_rbf_u_pca50"),
}
POOLED = "pooled_training_cells"
RIVALS = ["knn", "pooled_cells", "pooled_cells:move=ridge"]
PLANTED = ("informative", "half", "permuted")


class Tables:
    """Markdown of what `collect` found.

    Parameters
    ----------
    scores, costs : its frames. Differences are taken from the context mean, those of populations from the pooled
        training cells where they were run.
    """

    def __init__(self, scores: pd.DataFrame, costs: pd.DataFrame) -> None:
        self.costs = costs
        self.metrics = list(dict.fromkeys(scores["metric"]))
        self.heads = list(dict.fromkeys(scores["head"]))
        index = ["metric", "group", "head", "embedding", "seed"]
        self.values = scores.set_index(index)["value"].sort_index()
        rows = scores[["head", "embedding"]].drop_duplicates()
        rank = {label: i for i, label in enumerate(("none", *PLANTED))}
        pairs = zip(rows["head"], rows["embedding"], strict=True)
        self.rows: list[tuple[str, str]] = sorted(pairs, key=lambda row: rank[row[1]])

    def of(self, metric: str, group: str, head: str, embedding: str) -> pd.Series:
        """Value per seed; of a head that reads no embedding, whatever the embedding; empty where there is none."""
        for name in (embedding, "none"):
            key = (metric, group, head, name)
            if key in self.values.index:
                return self.values.loc[key]
        return pd.Series(dtype=float)

    def page(self) -> str:
        """All tables."""
        parts = [self.scores(metric) for metric in self.metrics]
        if "l2_debiased_all" in self.metrics:
            parts.append(self.gap("l2_debiased_all", "context_mean"))
        for metric in METRICS["effects"]:
            parts.append(self.against("Permuted", metric, "all", "permuted", ["context_mean"]))
        for metric in METRICS["population"]:
            parts.append(self.against("Bimodal effects", metric, "bimodal", "informative", RIVALS))
            parts.append(self.against("Variance-only effects", metric, "variance", "informative", ["no_change"]))
            parts.append(self.against("Permuted", metric, "all", "permuted", [self.reference(metric)]))
        return "\n\n".join([*(part for part in parts if part), self.cost()])

    def reference(self, metric: str) -> str:
        """The head that differences in a metric are taken from."""
        return POOLED if metric in METRICS["population"] and POOLED in self.heads else "context_mean"

    def scores(self, metric: str) -> str:
        """Means over seeds and differences from the reference, per kind of effect."""
        reference = self.reference(metric)
        groups = ("all", *KINDS)
        lines = [f"## {metric}", "", f"In brackets: difference from `{reference}`, mean and 95 % interval.", ""]
        lines += ["| head | embedding | " + " | ".join(groups) + " |", "|---" * (2 + len(groups)) + "|"]
        for head, embedding in self.rows:
            cells = []
            for group in groups:
                own, other = self.of(metric, group, head, embedding), self.of(metric, group, reference, embedding)
                gap = "" if head in (reference, "ceiling") else f" ({interval(own - other)})"
                cells.append(f"{own.mean():.3f}{gap}" if own.notna().any() else "–")
            if set(cells) != {"–"}:
                lines.append(f"| {head} | {embedding} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def gap(self, metric: str, baseline: str, rival: str = "knn") -> str:
        """Share of the rival's gain over the baseline that each head closes, and what it has above 90 % of that."""
        if not {baseline, rival} <= set(self.heads):
            return ""
        lines = [f"## Share of {rival}'s gap closed, {metric}", ""]
        lines += [
            f"(`{baseline}` - head) / (`{baseline}` - {rival}), all kinds; margin = gain less 90 % of {rival}'s.",
            "",
        ]
        lines += ["| head | embedding | share | margin |", "|---|---|---|---|"]
        for head, embedding in self.rows:
            base, knn, own = (self.of(metric, "all", h, embedding) for h in (baseline, rival, head))
            if embedding in PLANTED and len(own):
                gain, theirs = (base - own).dropna(), (base - knn).dropna()
                share = f"{gain.mean() / theirs.mean():.2f}" if theirs.mean() > 0 else "–"
                lines.append(f"| {head} | {embedding} | {share} | {interval(gain - 0.9 * theirs)} |")
        return "\n".join(lines)

    def against(self, title: str, metric: str, group: str, embedding: str, rivals: list[str]) -> str:
        """Differences of every head from some others with one embedding; empty where nothing is to compare."""
        rivals = [head for head in rivals if head in self.heads]
        if metric not in self.metrics or not rivals:
            return ""
        lines = [f"## {title}, {metric}", "", f"{group.capitalize()}, {embedding} embedding: head less rival.", ""]
        lines += ["| head | " + " | ".join(rivals) + " |", "|---" * (1 + len(rivals)) + "|"]
        for head, where in self.rows:
            own = self.of(metric, group, head, where)
            if where in (embedding, "none") and head != "ceiling" and len(own):
                cells = ["" if r == head else interval(own - self.of(metric, group, r, embedding)) for r in rivals]
                lines.append(f"| {head} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def cost(self) -> str:
        """CPU seconds and peak memory of a run, means over seeds, with the informative embedding."""
        part = self.costs[self.costs["embedding"].isin(("none", "informative"))]
        table = part.groupby(["head", "target"], sort=False)[["cpu", "peak"]].mean().reset_index()
        lines = ["## Cost of a run", "", "| head | target | CPU s | peak MiB |", "|---|---|---|---|"]
        lines += [f"| {r.head} | {r.target} | {r.cpu:.2f} | {r.peak:.0f} |" for r in table.itertuples()]
        return "\n".join(lines)


def interval(difference: pd.Series) -> str:
    """``+0.10 [-0.05, +0.25]``: mean and 95 % t interval over seeds; the mean alone below two seeds."""
    values = difference.dropna().to_numpy()
    if not len(values):
        return "–"
    if len(values) == 1:
        return f"{values[0]:+.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}]"
