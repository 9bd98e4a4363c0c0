"""Contracts of composite scores."""

from __future__ import annotations

import numpy as np

from embbench.checks._contract import Make, require
from embbench.core import Composite


def composite_declares_itself(make: Make) -> None:
    """Parts, baseline, direction, range, formula and source are stated."""
    found = make()
    require(
        isinstance(found, Composite), f"composite: expected an embbench.core.Composite, found {type(found).__name__}"
    )
    named = bool(found.parts) and len(set(found.parts)) == len(found.parts) and bool(found.base)
    require(named, f"composite: needs distinct parts and a baseline, found {found.parts}, {found.base!r}")
    require(found.best in ("low", "high"), f"composite: best must be low or high, found {found.best!r}")
    require(found.lower < found.upper, f"composite: range {found.lower} .. {found.upper} is empty")
    require(bool(found.formula and found.source.strip()), "composite: formula or source is empty")


def composite_stays_in_range(make: Make) -> None:
    """One value per row, in the declared range whatever the means, undefined ones included; rows are independent."""
    found = make()
    rng = np.random.default_rng(3)
    means, base = rng.random((20, len(found.parts))), rng.uniform(0.2, 0.8, len(found.parts))
    means[0], means[1, 0] = base, np.nan
    values = found(means, base)
    require(values.shape == (20,), f"composite: expected (20,), found {values.shape}")
    inside = np.isfinite(values) & (values >= found.lower) & (values <= found.upper)
    require(bool(inside.all()), f"composite: {values[~inside][:3]} leave {found.lower} .. {found.upper}")
    alone = np.array([found(means[i : i + 1], base)[0] for i in range(20)])
    require(bool(np.allclose(alone, values, atol=1e-12)), "composite: a row scores differently alone")
