"""One cell of the grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any


@dataclass(frozen=True, order=True)
class Run:
    """One cell of the grid: frozen coordinates. Fields at their default are left out of the key."""

    dataset: str
    split: str
    fold: str
    head: str
    embedding: str = "none"  # names joined by "+" give several blocks
    combine: str = "sum"
    context_embedding: str = "none"
    features: str = "pca:100"
    scope: str = "auto"
    target: str = "effects"
    graph: str = "none"
    select: str = "l2_all"
    samples: int = 100  # cells per condition of a population prediction
    genes: str = "all"
    strict_context: bool = False
    seed: int = 0
    protocol: str = "default"

    def coordinates(self) -> dict[str, Any]:
        """The fields that differ from their default (all that have none).

        Examples
        --------
        >>> Run("kang18", "unseen_context", "fold0", "ridge", embedding="go", seed=1).coordinates()
        {'dataset': 'kang18', 'split': 'unseen_context', 'fold': 'fold0', 'head': 'ridge', 'embedding': 'go', 'seed': 1}
        """
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.default is MISSING or getattr(self, f.name) != f.default
        }

    def blocks(self) -> Iterator[str]:
        """Perturbation embeddings of the run, in order.

        Examples
        --------
        >>> list(Run("kang18", "unseen_context", "fold0", "ridge", embedding="go+ppi").blocks())
        ['go', 'ppi']
        """
        return iter(()) if self.embedding == "none" else iter(self.embedding.split("+"))
