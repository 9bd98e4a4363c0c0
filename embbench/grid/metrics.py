"""Which metrics a grid scores and selects by: names checked, composites taken apart, defaults per target."""

from __future__ import annotations

from embbench.core import Composite, UserError
from embbench.registry import Registry

METRICS = (
    "l2_notarget",
    "mse_notarget",
    "mae_notarget",
    "pearson_notarget",
    "pearson_systema_notarget",
    "spearman_notarget",
    "cosine_notarget",
    "rank_l2_by_truth_notarget",
    "l2_all",
    "pearson_all",
    "pearson_top20",
)
DEFAULT_METRICS = {
    "effects": METRICS,
    "labels": ("auroc_gene_all", "ap_gene_all", "f1_macro_gene_all", "auroc_condition_all", "f1_macro_condition_all"),
    "population": (
        "edistance_euclidean_v_pca50",
        "edistance_sqeuclidean_u_pca50",
        "mmd_rbf_v_pca50",
        "wasserstein_sliced_w2_pca50",
        "mean_variance_all",
        "l2_all",
        "pearson_all",
    ),
}
DEFAULT_SELECT = "l2_all"
SELECT = {"effects": DEFAULT_SELECT, "labels": "auroc_condition_all", "population": "edistance_euclidean_v_all"}


def metric_names(registry: Registry, names: list[str], target: str) -> list[str]:
    """Metrics of the target, in order; composite scores stand for their parts.

    A metric of another target is left out; where that leaves none, all registered metrics of the target are taken.

    Raises
    ------
    UserError
        A bare name that several metrics share (``r2``, ``pearson``, ``edistance``), or an unknown one.
    """
    out: list[str] = []
    for text in DEFAULT_METRICS[target] if tuple(names) == METRICS else names:
        known = [e.name for e in registry.entries("metrics")]
        name = text.partition(":")[0]
        variants = [k for k in known if k.startswith(f"{name}_")]
        if name not in known and variants:
            raise UserError(f"metric {name!r} is ambiguous: choose one of {', '.join(variants)}")
        made = {e.name: e for e in registry.entries("composites")}
        out += list(made[name].make().parts) if name in made else [registry.parse("metrics", text).text]
    fitting = [text for text in out if scores_target(registry, text, target)]
    return list(dict.fromkeys(fitting)) or list(DEFAULT_METRICS[target])


def scores_target(registry: Registry, text: str, target: str) -> bool:
    """Whether a metric scores what runs of ``target`` predict; a population also has a mean effect."""
    own = registry.parse("metrics", text).make().target
    return own == target or (own == "effects" and target == "population")


def selection_metric(registry: Registry, name: str, target: str) -> str:
    """The metric that selection optimises: ``name``, or for its default under another target that target's own.

    Raises
    ------
    UserError
        It does not score the target.
    """
    if registry.parse("metrics", name).make().target == target:
        return name
    if name != DEFAULT_SELECT:
        fitting = [e.name for e in registry.entries("metrics") if e.make().target == target]
        raise UserError(f"select {name!r} does not score {target}; choose one of {', '.join(fitting) or 'none'}")
    return SELECT[target]


def composites_of(registry: Registry, names: list[str]) -> dict[str, Composite]:
    """Composite scores all of whose parts are among ``names``."""
    made = {entry.name: entry.make() for entry in registry.entries("composites")}
    return {name: composite for name, composite in made.items() if set(composite.parts) <= set(names)}
