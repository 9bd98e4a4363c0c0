"""Which metrics a grid scores and selects by: names checked, composites taken apart, defaults per target."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from embbench.core import Composite, UserError
from embbench.registry import Entry, Registry

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


def metric_names(registry: Registry, names: Sequence[str], *targets: str) -> list[str]:
    """Full names of metrics that score one of ``targets``, in order; composite scores stand for their parts.

    The defaults of effects stand for those of another target.

    Raises
    ------
    UserError
        A bare name that several metrics share (``r2``, ``pearson``, ``edistance``), an unknown one, or one that scores
        none of the targets.
    """
    told = [n for t in targets for n in DEFAULT_METRICS[t]] if tuple(names) == METRICS else list(names)
    out: list[str] = []
    for text in told:
        entry = scored_by(registry, text)
        made = entry.make() if entry.kind == "composites" else None
        out += [registry.parse("metrics", text).text] if made is None else list(made.parts)
    for text in out:
        if not any(scores_target(registry, text, target) for target in targets):
            own = registry.parse("metrics", text).make().target
            asked = "" if text in told else f", a part of {', '.join(n for n in told if n not in out)},"
            raise UserError(
                f"metric {text!r}{asked} scores {own}, not {' or '.join(targets)}; run a grid with --target {own}"
            )
    return list(dict.fromkeys(out))


def scored_by(registry: Registry, text: str) -> Entry:
    """The metric or composite of that name, parameters left aside; one shared by several variants is refused."""
    name = text.partition(":")[0]
    if name in {e.name for e in registry.entries("composites")}:
        return registry.get("composites", name)
    known = [e.name for e in registry.entries("metrics")]
    variants = [k for k in known if k.startswith(f"{name}_")]
    if name not in known and variants:
        raise UserError(f"metric {name!r} is ambiguous: choose one of {', '.join(variants)}")
    return registry.get("metrics", name)


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


def composites_of(registry: Registry, names: Sequence[str], asked: Collection[str] = ()) -> dict[str, Composite]:
    """Composite scores that were asked for, and those all of whose parts are among ``names``."""
    made = {entry.name: entry.make() for entry in registry.entries("composites")}
    return {name: each for name, each in made.items() if name in asked or set(each.parts) <= set(names)}
