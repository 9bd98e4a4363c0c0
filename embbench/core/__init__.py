"""The nouns of embbench; numpy only, nothing else of the package is imported.

Shapes used in every docstring: ``n`` conditions (rows), ``g`` measured genes, ``c`` contexts, ``e`` perturbation
entities, ``d`` embedding width.
"""

from embbench.core.heads import Fold, Head, HeadDefaults, Inputs, Split
from embbench.core.run import Run
from embbench.core.scoring import Metric, Truth
from embbench.core.screen import ENTITY_TYPES, UNITS, Cells, CellView, PerturbationDataset, UserError, view_cells
from embbench.core.vectors import Embedding, Extractor, ExtractorDefaults

__all__ = [
    "ENTITY_TYPES",
    "UNITS",
    "CellView",
    "Cells",
    "Embedding",
    "Extractor",
    "ExtractorDefaults",
    "Fold",
    "Head",
    "HeadDefaults",
    "Inputs",
    "Metric",
    "PerturbationDataset",
    "Run",
    "Split",
    "Truth",
    "UserError",
    "view_cells",
]
