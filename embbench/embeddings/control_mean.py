"""Contexts described by the mean expression of their control cells."""

from __future__ import annotations

from collections.abc import Sequence

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset
from embbench.embeddings._contexts import control_means
from embbench.embeddings._rows import pick


class ControlMean(ExtractorDefaults):
    """The half-A control mean (g genes) of each context; a context whose controls are closed has no vector.

    References
    ----------
    Lotfollahi, Wolf and Theis (2019), scGen, Nature Methods 16, equation 4: conditioning on unperturbed expression,
    here at the level of means.
    """

    entity = "context"
    reads = frozenset({"controls"})

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, g), float32, of the asked contexts (None: all with controls).

        Raises
        ------
        UserError
            The dataset has no control expression.
        """
        contexts, means = control_means(train, "ControlMean")
        return pick(names, contexts, means, self.entity, {"uses_query_controls": True, "holds": "controls"})
