"""The results folder: screens, splits, plans, predictions and scores; movable, and all that the report needs."""

from __future__ import annotations

import functools
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from embbench.cache.keys import digest
from embbench.cache.populations import content_of, read_population
from embbench.cache.screens import load_screen, save_screen
from embbench.cache.store import (
    DamagedFileError,
    Reader,
    check_seal,
    read_h5,
    read_whole,
    replacing,
    set_aside,
    write_h5,
)
from embbench.core import Fold, PerturbationDataset, Run, Sources, Split, UserError
from embbench.grid.plan import Planned
from embbench.grid.populations import read_cells, read_sources, source_arrays, store_cells
from embbench.grid.prediction import Prediction, product
from embbench.grid.screens import split_digest


@dataclass(frozen=True)
class Stored:
    """A stored prediction: ``weights`` over the training rows of ``effects`` (those of the screen) or ``given`` values,
    the contexts of its rows as ``groups``, and the control cells that a population was made of.
    """

    run: Run
    facts: dict[str, Any]
    rows: np.ndarray
    train: np.ndarray
    covered: np.ndarray
    groups: np.ndarray
    effects: np.ndarray
    given: np.ndarray | None
    weights: sparse.csr_matrix | None
    sources: Sources | None = None

    @functools.cached_property
    def values(self) -> np.ndarray:
        """Predictions as scored, float32; those of weights are made when somebody asks."""
        return self.given if self.weights is None else product(self.weights, self.effects, self.train, self.groups)  # type: ignore


def check_folder(folder: Path, what: str, option: str) -> None:
    """Refuse a folder that cannot be there because it, or one above it, is a file.

    Raises
    ------
    UserError
        The file, what was expected, and the option that names another place.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file, expected {what} {folder}; name another one with {option}")


class Results:
    """One results folder.

    Parameters
    ----------
    folder : created on first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        check_folder(self.folder, "a results folder", "--out")

    def path(self, kind: str, key: str, suffix: str = "h5") -> Path:
        """File of an artefact: ``<folder>/<kind>/<key>.<suffix>``."""
        return self.folder / kind / f"{key}.{suffix}"

    def add_screen(self, data: PerturbationDataset) -> None:
        """Keep the condition level of a screen once, by digest."""
        path = self.path("datasets", data.meta["digest"])
        if self.valid(path, "screen") is None:
            save_screen(path, data)

    def screen(self, key: str) -> PerturbationDataset:
        """The kept screen of that digest (without cells)."""
        return load_screen(self._whole("datasets", key))

    def add_split(self, split: Split) -> str:
        """Keep the rows of every fold; returns the split's digest."""
        key = split_digest(split)
        path = self.path("splits", key)
        if self.valid(path, "split") is None:
            facts = {
                "kind": split.kind,
                "units": [list(u) for u in split.units],
                "folds": [f.name for f in split.folds],
            }
            write_h5(path, "split", _split_arrays(split), facts)
        return key

    def split(self, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays ``<fold>|train`` ... and facts (kind, units, folds) of a kept split."""
        return read_h5(self._whole("splits", key), "split")

    def valid(self, path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The artefact, or None when it is absent or damaged (then it is set aside, and said)."""
        return read_whole(path, kind)

    def _whole(self, kind: str, key: str, suffix: str = "h5") -> Path:
        """The path of an artefact whose every byte has been checked (once per process)."""
        path = self.path(kind, key, suffix)
        try:
            stat = path.stat()
            _check_once(path, stat.st_ino, stat.st_mtime_ns)
        except FileNotFoundError:
            raise UserError(f"{path} is gone; run embbench grid --out {self.folder} again") from None
        except DamagedFileError as error:
            raise DamagedFileError(
                f"{error}; run embbench grid --out {self.folder} again, it is computed anew"
            ) from None
        return path

    def add_plan(self, planned: list[Planned], facts: dict[str, Any], record: dict[str, Any] | None = None) -> None:
        """Keep what a grid consists of as the latest plan, ``plans/<number>-<digest>.json``.

        ``facts["marks"]`` holds the digests of screen and splits per `place`: what later plans must agree with.
        ``record`` (versions, command) is kept beside it; it is of the first time that the plan was made.
        """
        body = {"facts": facts, "runs": [{**asdict(p), "run": p.run.coordinates()} for p in planned]}
        name = digest(body)
        kept = [path for path in self._plan_paths() if _plan(path) is not None]
        if kept and kept[-1].stem.endswith(f"-{name}"):
            return
        number = 1 + max((int(path.stem.partition("-")[0]) for path in kept), default=0)
        with replacing(self.path("plans", f"{number:04d}-{name}", "json")) as temporary:
            temporary.write_text(json.dumps(body | {"record": record or {}}, indent=1), encoding="utf-8")
        for path in kept:  # the same plan, but no longer the latest
            if path.stem.endswith(f"-{name}"):
                path.unlink(missing_ok=True)

    def _plan_paths(self) -> list[Path]:
        return sorted((self.folder / "plans").glob("[0-9]*-*.json"), key=lambda p: int(p.stem.partition("-")[0]))

    def any_plans(self) -> list[dict[str, Any]]:
        """All kept plans, oldest first; none in a new folder."""
        return [body for path in self._plan_paths() if (body := _plan(path)) is not None]

    def plans(self) -> list[dict[str, Any]]:
        """All kept plans, oldest first, each without the runs that a later one has replaced.

        A run is replaced when a later plan holds its coordinates (code or reasons may have changed since), or its
        dataset and split under other digests: one table must not mix old and new data or code.

        Raises
        ------
        UserError
            The folder holds no whole one.
        """
        found = self.any_plans()
        if not found:
            raise UserError(
                f"{self.folder} holds no results (no plans/*.json); run embbench grid --out {self.folder} first"
            )
        return _latest(found)

    def done(self, key: str) -> bool:
        """Whether a whole, undamaged prediction of that key is there, with its cells where it is a population; what is
        damaged is set aside, and said.
        """
        if not _sound(self.path("predictions", key), "prediction", read_h5):
            return False
        cells, path = _attributes(self.path("predictions", key)).get("cells", ""), self.population_path(key)
        return not cells or (_sound(path, "population", read_population) and content_of(path) == cells)

    def population_path(self, key: str) -> Path:
        """The file of a predicted population, ``populations/<key>.h5ad``: `anndata.read_h5ad` opens it."""
        return self.path("populations", key, "h5ad")

    def add_prediction(
        self, planned: Planned, data: PerturbationDataset, fold: Fold, made: Prediction, audit: str = ""
    ) -> Stored | None:
        """Write a prediction as sparse weights or as values, whichever is smaller; clears an earlier failure.

        Returns what `prediction` would read; None for a population, whose cells are better read than kept.

        The cells of a population go to a file of their own, first: its record names their hash, so that a record
        without its cells is seen. ``audit`` is what `embbench.grid.honesty.audit` found.
        """
        facts = {
            "run": planned.run.coordinates(),
            "config": planned.config,
            "role": planned.role,
            "dataset": data.meta["digest"],
            "dim": made.dim,
            "query_controls": made.query_controls,
            "audit": audit,
            "chosen": {k: {"params": c.params, "trials": c.trials, "score": c.score} for k, c in made.choices.items()},
        }
        if made.sources is not None:
            content = store_cells(self.population_path(planned.key), planned, data, fold.test, made, made.sources)
            facts |= {"cells": content, "samples": planned.run.samples}
        arrays, record = _record_arrays(data, fold, made), {"cpu_seconds": made.cpu_seconds}
        write_h5(self.path("predictions", planned.key), "prediction", arrays, facts, record)
        self.path("failures", planned.key, "json").unlink(missing_ok=True)
        if made.sources is not None:
            return None
        rows, train, values = arrays["rows"], arrays["train"], arrays.get("values")
        codes = data.context_codes[rows]
        return Stored(planned.run, facts, rows, train, made.covered, codes, data.effects, values, _weights(arrays))

    def prediction(self, key: str, data: PerturbationDataset) -> Stored:
        """Read a prediction back; ``data`` is the screen it was made on.

        Raises
        ------
        UserError
            A file is gone, damaged, or the cells are not those of the record.
        """
        arrays, facts = read_h5(self._whole("predictions", key), "prediction")
        weights, values, sources = _weights(arrays), arrays.get("values"), None
        if "cells" in facts:
            sources = read_sources(arrays)
            cells = read_cells(self._whole("populations", key, "h5ad"), facts["cells"], self.folder)
            values = cells.reshape(len(arrays["rows"]), facts["samples"], -1)
        rows, train, covered = arrays["rows"], arrays["train"], arrays["covered"].astype(bool)
        codes = data.context_codes[rows]
        return Stored(Run(**facts["run"]), facts, rows, train, covered, codes, data.effects, values, weights, sources)

    def rows(self, key: str) -> dict[str, np.ndarray]:
        """Test rows, coverage and groups of a prediction, and its training rows, without the predicted values."""
        return self._summary(key)[0]

    def facts(self, key: str) -> dict[str, Any]:
        """Attributes and times of a prediction, without reading it through."""
        return self._summary(key)[1]

    def _summary(self, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        path = self._whole("predictions", key)
        stat = path.stat()
        return _read_summary(path, stat.st_ino, stat.st_mtime_ns)

    def add_failure(self, key: str, message: str) -> None:
        """Record why a run failed; the next start of the grid tries it again."""
        path = self.path("failures", key, "json")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"message": message}), encoding="utf-8")

    def failure(self, key: str) -> str:
        """The message of a failed run, empty when there is none."""
        path = self.path("failures", key, "json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))["message"]
        except FileNotFoundError:
            return ""
        except (ValueError, KeyError, TypeError):
            return f"failed; {path} is damaged, so the message is lost"


def _split_arrays(split: Split) -> dict[str, np.ndarray]:
    """Rows of every fold as ``<fold>|train`` ..., and the groups of test rows where there are some."""
    parts = ("train", "test", "validation")
    arrays = {f"{f.name}|{part}": getattr(f, part) for f in split.folds for part in parts}
    return arrays | {
        f"{f.name}|groups": np.asarray(f.groups, dtype=object) for f in split.folds if f.groups is not None
    }


def _record_arrays(data: PerturbationDataset, fold: Fold, made: Prediction) -> dict[str, np.ndarray]:
    """Rows and coverage of a prediction with its weights or its values; with its sources, where it is cells."""
    rows, train = fold.test, fold.train
    arrays = {"rows": rows, "train": train, "covered": made.covered}
    if fold.groups is not None:
        arrays["groups"] = np.asarray(fold.groups, dtype=object)
    weights, genes = made.weights, data.effects.shape[1]
    if weights is not None and 12 * weights.nnz + 8 * len(rows) < 4 * len(rows) * genes:
        arrays |= {
            "weights|data": weights.data,
            "weights|indices": weights.indices.astype(np.int32),
            "weights|indptr": weights.indptr.astype(np.int64),
        }
    elif made.sources is not None:
        arrays |= source_arrays(made.sources)
    else:
        arrays["values"] = (
            made.values if made.values is not None else product(weights, data.effects, train, data.context_codes[rows])
        )
    return arrays


def _weights(arrays: dict[str, np.ndarray]) -> sparse.csr_matrix | None:
    if "weights|data" not in arrays:
        return None
    parts = (arrays["weights|data"], arrays["weights|indices"], arrays["weights|indptr"])
    return sparse.csr_matrix(parts, shape=(len(arrays["rows"]), len(arrays["train"])))


def _sound(path: Path, kind: str, read: Reader) -> bool:
    """Whether a whole, undamaged artefact is there (checked once per process); a damaged one is set aside, and said."""
    try:
        stat = path.stat()
        _check_once(path, stat.st_ino, stat.st_mtime_ns)
    except FileNotFoundError:
        return False
    except DamagedFileError:
        return read_whole(path, kind, read) is not None
    return True


@functools.lru_cache(maxsize=100_000)
def _check_once(path: Path, inode: int, mtime_ns: int) -> None:
    check_seal(path)


def _attributes(path: Path) -> dict[str, Any]:
    """Facts of a whole artefact without its arrays: of thousands of runs, nothing is kept."""
    import h5py

    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["attributes"])


@functools.lru_cache(maxsize=20_000)
def _read_summary(path: Path, inode: int, mtime_ns: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import h5py

    with h5py.File(path, "r") as file:
        rows = {name: file[name][...] for name in ("rows", "train", "covered")}
        rows["covered"] = rows["covered"].astype(bool)
        blank = np.full(len(rows["rows"]), "", dtype=object)
        rows["groups"] = file["groups"].asstr()[...] if "groups" in file else blank
        facts = {**json.loads(file.attrs["attributes"]), **json.loads(file.attrs.get("record", "{}"))}
    share = float(rows["covered"].mean()) if len(blank) else 0.0
    return rows, {**facts, "coverage": share, "n_test": len(blank), "n_train": len(rows["train"])}


def _latest(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Plans, oldest first, without the runs that a later one has replaced."""
    marks: dict[str, Any] = {}
    seen: set[str] = set()
    out = []
    for body in reversed(plans):
        own = body["facts"]["marks"]
        marks = {**own, **marks}
        runs = []
        for planned in body["runs"]:
            where, coordinates = place(Run(**planned["run"])), json.dumps(planned["run"], sort_keys=True)
            if own[where] == marks[where] and coordinates not in seen:
                seen.add(coordinates)
                runs.append(planned)
        out.append({**body, "runs": runs})
    return out[::-1]


def place(run: Run) -> str:
    """Where a run is compared with others: dataset, split, gene choice and seed."""
    return f"{run.dataset}|{run.split}|{run.genes}|{run.seed}"


def _plan(path: Path) -> dict[str, Any] | None:
    """A kept plan; None when it is absent or does not match its name (then it is set aside, and said)."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if digest({name: body[name] for name in ("facts", "runs")}) == path.stem.partition("-")[2]:
            return body
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    warnings.warn(
        f"{path}: does not match its name (a bit was changed); set aside as {set_aside(path).name}", stacklevel=2
    )
    return None
