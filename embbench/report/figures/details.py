"""Single predictions and predicted cells: one figure per method of a board, one panel per condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embbench.report.figures.labels import COLOURS, entries, shortened, title

NAMED = 10  # genes of a panel that are named
NEAREST = 10
SOFT = "#8a939c"


def methods(parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The parts of each method of a board, in order: (entry, parts)."""
    import pandas as pd

    names = entries(pd.DataFrame(list(parts)), bundle).tolist() if parts else []
    for name in dict.fromkeys(names):
        yield name, [part for part, own in zip(parts, names, strict=True) if own == name]


def predictions(figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str) -> bool:
    """Predicted against observed effects; the largest observed ones are named."""
    for axes, part in _panels(figure, parts, bundle, name, (2.9, 2.6)):
        true, predicted = _numbers(part, "true"), _numbers(part, "predicted")
        top = int(part.get("top") or NAMED)
        axes.scatter(true[top:], predicted[top:], s=5, color=COLOURS[0], alpha=0.6, linewidths=0)
        axes.scatter(true[:top], predicted[:top], s=10, color=COLOURS[1], marker="D", alpha=0.7, linewidths=0)
        _diagonal(axes, true, predicted)
        _names(axes, true, predicted, part["names"], range(min(top, NAMED)))
    figure.supxlabel(f"observed effect{_unit(parts)}", fontsize=9)
    figure.supylabel(f"predicted effect{_unit(parts)}", fontsize=9)
    return True


def neighbours(figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str) -> bool:
    """The training perturbations a prediction is made of, with their weights."""
    parts = [part for part in parts if part.get("neighbours")]
    if not parts:
        return False
    for axes, part in _panels(figure, parts, bundle, name, (2.9, 2.3)):
        near = part["neighbours"][:NEAREST]
        weights = [float(weight) for _, weight in near]
        colours = [COLOURS[1] if weight < 0 else COLOURS[0] for weight in weights]
        axes.barh(range(len(near)), weights, color=colours, alpha=0.5)
        axes.set_yticks(range(len(near)), shortened(str(label) for label, _ in near), fontsize=6)
        axes.invert_yaxis()
        axes.axvline(0, color="#16191d", linewidth=0.8)
    figure.supxlabel("weight of the training perturbation", fontsize=9)
    return True


def cells(figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str) -> bool:
    """Control, real and predicted cells on two axes."""
    parts = [part for part in parts if part.get("real") or part.get("predicted")]
    if not parts:
        return False
    kinds = (("control", SOFT, "o"), ("real", COLOURS[0], "o"), ("predicted", COLOURS[1], "^"))
    for i, (axes, part) in enumerate(_panels(figure, parts, bundle, name, (2.6, 2.6))):
        for kind, colour, marker in kinds:
            points = np.array(part.get(kind) or np.empty((0, 2)), dtype=np.float64)
            style = {"color": colour, "marker": marker, "alpha": 0.5, "linewidths": 0, "s": 7}
            axes.scatter(points[:, 0], points[:, 1], label=None if i else f"{kind} cells", **style)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    figure.supxlabel(f"component 1 ({parts[0].get('space') or 'first two components'})", fontsize=8)
    figure.supylabel("component 2", fontsize=8)
    return True


def gene_means(figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str) -> bool:
    """Mean expression of genes in predicted against real cells; top DE genes are named."""
    return _genes(figure, parts, bundle, name, "mean")


def gene_variances(figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str) -> bool:
    """Variance of genes in predicted against real cells; top DE genes are named."""
    return _genes(figure, parts, bundle, name, "variance")


def _genes(figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str, what: str) -> bool:
    parts = [part for part in parts if part.get(f"{what}_true") and part.get(f"{what}_predicted")]
    if not parts:
        return False
    for axes, part in _panels(figure, parts, bundle, name, (2.6, 2.6)):
        true, predicted = _numbers(part, f"{what}_true"), _numbers(part, f"{what}_predicted")
        top = [i for i, gene in enumerate(part["names"]) if gene in set(part.get("top") or ())]
        axes.scatter(true, predicted, s=5, color=COLOURS[0], alpha=0.6, linewidths=0)
        axes.scatter(true[top], predicted[top], s=12, color=COLOURS[1], marker="D", linewidths=0)
        _diagonal(axes, true, predicted)
        _names(axes, true, predicted, part["names"], top)
    unit = "mean" if what == "mean" else "variance of"
    figure.supxlabel(f"{unit} expression, real cells", fontsize=9)
    figure.supylabel(f"{unit} expression, predicted cells", fontsize=9)
    return True


def _panels(
    figure: Any, parts: Sequence[Mapping[str, Any]], bundle: Mapping[str, Any], name: str, size: tuple[float, float]
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    columns = min(3, len(parts))
    lines = -(-len(parts) // columns)
    figure.set_size_inches(0.5 + size[0] * columns, 0.8 + size[1] * lines)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    where = {c: str(parts[0].get(c) or "") for c in ("dataset", "split")} | {
        "genes": str(parts[0].get("genes") or "all")
    }
    figure.suptitle(f"{title(where, bundle)} · {shortened([name])[0]}", fontsize=9, x=0.01, ha="left")
    for axes in grid[len(parts) :]:
        axes.set_visible(False)
    for axes, part in zip(grid, parts, strict=False):
        fold = f" · {part['fold']}" if part.get("fold") else ""
        axes.set_title(f"{part['condition']} · {part.get('context') or ''}{fold}", fontsize=7)
        axes.tick_params(labelsize=7)
        yield axes, part


def _numbers(part: Mapping[str, Any], key: str) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in part[key]], dtype=np.float64)


def _diagonal(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)]
    if len(both):
        axes.plot((both.min(), both.max()), (both.min(), both.max()), color="#535b66", linewidth=0.9, linestyle="--")


def _names(axes: Any, x: np.ndarray, y: np.ndarray, names: Sequence[str], which: Any) -> None:
    """Names beside points, those that would lie on one another left out."""
    spread = max(np.ptp(x[np.isfinite(x)]) if np.isfinite(x).any() else 0.0, 1e-12)
    height = max(np.ptp(y[np.isfinite(y)]) if np.isfinite(y).any() else 0.0, 1e-12)
    placed: list[tuple[float, float]] = []
    for i in which:
        near = any(abs(x[i] - a) < 0.22 * spread and abs(y[i] - b) < 0.06 * height for a, b in placed)
        if np.isfinite(x[i]) and np.isfinite(y[i]) and not near:
            placed.append((x[i], y[i]))
            axes.annotate(str(names[i]), (x[i], y[i]), xytext=(2, 2), textcoords="offset points", fontsize=6)


def _unit(parts: Sequence[Mapping[str, Any]]) -> str:
    return f" ({parts[0]['unit']})" if parts and parts[0].get("unit") else ""
