"""What a file of predicted cells says about them: condition, context, and the control cell that each was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embbench.cache.populations import read_population, write_population
from embbench.cache.store import DamagedFileError
from embbench.core import PerturbationDataset, Sources, view_cells
from embbench.grid.plan import Planned
from embbench.grid.prediction import Prediction

CELL_UNIT = "log1p of counts scaled to 1e4"  # unless the screen says otherwise
TOLD = ("head", "embedding", "context_embedding", "split", "fold", "seed", "samples")


def source_arrays(sources: Sources) -> dict[str, np.ndarray]:
    """Control cells (m, s) behind a predicted population as arrays of the prediction's record."""
    return {"sources|context": sources.context.astype(np.int32), "sources|position": sources.position.astype(np.int32)}


def read_sources(arrays: dict[str, np.ndarray]) -> Sources:
    """The reverse of `source_arrays`."""
    return Sources(arrays["sources|context"].astype(np.int64), arrays["sources|position"].astype(np.int64))


def store_cells(
    path: Path, planned: Planned, data: PerturbationDataset, rows: np.ndarray, made: Prediction, sources: Sources
) -> str:
    """Write the cells of a population and what they are.

    Parameters
    ----------
    path : file to write, ``.h5ad``.
    planned : the run.
    data : its screen, with cells where the names of controls are wanted.
    rows : (m,) dataset rows.
    made : the prediction, ``values`` of shape (m, s, g).
    sources : (m, s) control cells behind it.

    Returns
    -------
    str
        sha256 of the content.
    """
    run = planned.run
    told = {name: getattr(run, name) for name in TOLD}
    return write_population(
        path,
        np.asarray(made.values, dtype=np.float32).reshape(-1, len(data.genes)),
        population_obs(data, rows, made.covered, sources),
        data.genes,
        {
            "unit": str(data.meta.get("cell_unit", CELL_UNIT)),
            "dataset": data.name,
            "dataset_digest": data.meta["digest"],
            "embbench": {**told, "config": planned.config, "key": planned.key, "controls": "half A"},
        },
    )


def read_cells(path: Path, content: str, folder: Path) -> np.ndarray:
    """Cells (m * s, g) of a population file.

    Raises
    ------
    DamagedFileError
        The file is damaged, or holds other cells than those whose hash is ``content``; the message names the results
        ``folder`` to compute again.
    """
    found, facts = read_population(path)
    if facts["sha256"] != content:
        raise DamagedFileError(
            f"{path} holds cells {facts['sha256'][:12]}, its record names {content[:12]}; run embbench grid --out "
            f"{folder} again, it is computed anew"
        )
    return found["cells"]


def population_obs(
    data: PerturbationDataset, rows: np.ndarray, covered: np.ndarray, sources: Sources
) -> dict[str, np.ndarray]:
    """What is known of each predicted cell, columns of length m * s, row by row.

    Parameters
    ----------
    data : the screen; with cells, from which the names of controls come.
    rows, covered : (m,) dataset rows, and whether the prediction is the head's own.
    sources : (m, s) control cells that the predicted ones were made of.

    Returns
    -------
    condition, context, row, covered; ``control`` and ``control_context``, empty where there is no control cell;
    ``_index``, the name of the cell: row, hyphen, number.
    """
    samples = sources.context.shape[1]
    names = np.full(sources.context.shape, "", dtype=object)
    if data.cells is not None:
        names = sources.names(view_cells(data.cells, np.array([], dtype=np.int64)))
    contexts = np.array([*data.contexts, ""], dtype=object)  # -1, of no control cell, takes the last
    numbers = np.tile(np.arange(samples), len(rows))
    each = np.repeat(rows, samples)
    return {
        "_index": np.array(
            [f"{row}-{i}" for row, i in zip(each.tolist(), numbers.tolist(), strict=True)], dtype=object
        ),
        "condition": np.repeat(np.array(data.conditions, dtype=object)[rows], samples),
        "context": np.repeat(np.asarray(data.context, dtype=object)[rows], samples),
        "row": each.astype(np.int64),
        "covered": np.repeat(np.asarray(covered, dtype=bool), samples),
        "control": names.ravel(),
        "control_context": contexts[sources.context].ravel(),
    }
