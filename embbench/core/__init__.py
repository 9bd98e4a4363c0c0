"""The nouns of embbench; numpy only, nothing else of the package is imported.

Shapes used in every docstring: ``n`` conditions (rows), ``g`` measured genes, ``c`` contexts, ``e`` perturbation
entities, ``d`` embedding width.
"""

from embbench.core.cells import SHARES, Cells, CellView, Counts, share_of, view_cells
from embbench.core.heads import Fold, Head, HeadDefaults, Inputs, Split
from embbench.core.run import Run
from embbench.core.scoring import Composite, DETable, Metric, Truth
from embbench.core.screen import ENTITY_TYPES, UNITS, PerturbationDataset, UserError
from embbench.core.sources import Sources, draw_sources, row_address
from embbench.core.training import Monitor, Silent
from embbench.core.vectors import ContextExtractor, Embedding, Extractor, ExtractorDefaults

__all__ = [
    "ENTITY_TYPES",
    "SHARES",
    "UNITS",
    "CellView",
    "Cells",
    "Composite",
    "ContextExtractor",
    "Counts",
    "DETable",
    "Embedding",
    "Extractor",
    "ExtractorDefaults",
    "Fold",
    "Head",
    "HeadDefaults",
    "Inputs",
    "Metric",
    "Monitor",
    "PerturbationDataset",
    "Run",
    "Silent",
    "Sources",
    "Split",
    "Truth",
    "UserError",
    "draw_sources",
    "row_address",
    "share_of",
    "view_cells",
]
