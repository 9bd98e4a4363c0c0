"""Small real screens and predictions of them, the same bits on every machine: what metric oracles are run on.

A case holds cells of a few conditions, controls, and predicted cells of five predictors, all on the log1p scale and
rounded to multiples of 1/1024: sums of them are exact in float64, so no order of summation and no last bit of a
logarithm moves a result. `kang18` is made of the packaged screen and always there; `papalexi` and `norman` are made of
the shared data beside the repository. Needs numpy and h5py alone, so that every oracle's environment can read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "expression"
GRID = 1024.0
RARE = 0.06  # share of control cells
PREDICTORS = ("perfect", "replicate", "mixed", "noisy", "collapsed")
FILES = {
    "kang18": ROOT / "embbench" / "data" / "kang18.h5ad",
    "papalexi": SHARED / "papalexi2021_eccite_lowmoi_299genes.h5ad",
    "norman": SHARED / "perturbench_norman19_mcfaline23_devel.h5ad",
}
KANG = {  # a marker gene of the panel names the condition, so that leaving the target gene out leaves something out
    "CCR7": "CD4 T cells",
    "CD8B": "CD8 T cells",
    "FCER1A": "Dendritic cells",
    "GNLY": "NK cells",
    "LYZ": "CD14+ Monocytes",
    "MS4A1": "B cells",
    "VMO1": "FCGR3A+ Monocytes",
}
PAPALEXI = ("CUL3", "IFNGR1", "IFNGR2", "IRF1", "JAK2", "STAT1", "STAT2")
NORMAN = ("CEBPE+RUNX1T1", "FOXO4", "KLF1", "KLF1+MAP2K6", "MAP2K6", "SLC38A2", "TMSB4X", "ZBTB10+PTPN12")


@dataclass(frozen=True)
class Case:
    """Cells of one context and predictions of them.

    Parameters
    ----------
    genes : shape (g,), str.
    conditions : n sorted names; one that is a gene of the panel is that condition's own gene.
    controls, other_controls : shape (m0, g), float32, disjoint control cells.
    observed : shape (n, m, g), float32.
    predicted : predictor -> shape (n, m, g), float32. ``perfect``: the observed cells. ``replicate``: other cells of
        the condition. ``mixed``: half of them from the next condition. ``noisy``: ``replicate`` with a random shift of
        every gene. ``collapsed``: the same other control cells, moved by the mean effect, for every condition.
    """

    name: str
    genes: np.ndarray
    conditions: tuple[str, ...]
    controls: np.ndarray
    other_controls: np.ndarray
    observed: np.ndarray
    predicted: dict[str, np.ndarray]

    @property
    def targets(self) -> tuple[np.ndarray, ...]:
        """Columns of the gene that a condition is called (a pair is called like no gene)."""
        return tuple(np.flatnonzero(self.genes == name) for name in self.conditions)

    @property
    def digest(self) -> str:
        """Hash of every name and value."""
        state = hashlib.sha256("\n".join([*self.genes, *self.conditions]).encode())
        for part in (self.controls, self.other_controls, self.observed, *(self.predicted[p] for p in PREDICTORS)):
            state.update(np.ascontiguousarray(part, dtype="<f4").tobytes())
        return state.hexdigest()

    def effects(self, cells: np.ndarray) -> np.ndarray:
        """Mean of each condition's cells minus the control mean, shape (n, g), float64."""
        return cells.mean(axis=1, dtype=np.float64) - self.controls.mean(axis=0, dtype=np.float64)

    @property
    def baseline(self) -> np.ndarray:
        """Control means in every row, shape (n, g), float64."""
        return np.repeat(self.controls.mean(axis=0, dtype=np.float64)[None], len(self.conditions), axis=0)

    @property
    def centroid_truth(self) -> np.ndarray:
        """Mean effect of the replicate cells in every row, shape (n, g), float64: what Systema subtracts."""
        return np.repeat(self.effects(self.predicted["replicate"]).mean(axis=0)[None], len(self.conditions), axis=0)

    @property
    def centroid(self) -> np.ndarray:
        """The same against the other controls: what is subtracted from predictions."""
        return self.centroid_truth + self.baseline - self.other_controls.mean(axis=0, dtype=np.float64)

    @property
    def variance(self) -> np.ndarray:
        """Sampling variance of the observed effects, shape (n, g), float64."""
        cells, controls = (x.astype(np.float64) for x in (self.observed, self.controls))
        return cells.var(axis=1, ddof=1) / cells.shape[1] + controls.var(axis=0, ddof=1) / len(controls)

    @property
    def basis(self) -> np.ndarray:
        """Fifty axes of a population space, shape (g, 50), float32; not orthogonal, which no metric asks for."""
        draw = np.random.default_rng(5).normal(size=(len(self.genes), 50))
        return (np.rint(draw * 64) / 1024).astype(np.float32)

    @property
    def labels(self) -> np.ndarray:
        """Down, none, up: -1, 0, 1 by an observed effect beyond 0.2; shape (n, g), int8."""
        effects = self.effects(self.observed)
        return (np.sign(effects) * (np.abs(effects) > 0.2)).astype(np.int8)

    @property
    def tested(self) -> np.ndarray:
        """Entries with a label: genes of more than the rarest fifth, but one gene in seven of each row; (n, g) bool."""
        mean = self.controls.mean(axis=0, dtype=np.float64)
        row, gene = np.arange(len(self.conditions))[:, None], np.arange(len(self.genes))[None]
        return (mean > np.quantile(mean, 0.2))[None] & ((row + gene) % 7 > 0)

    def probabilities(self, predictor: str) -> np.ndarray:
        """Of down, none and up by the predicted effect, shape (n, g, 3), float64; equal ones are frequent."""
        size = np.rint(self.effects(self.predicted[predictor]) * 32) / 32
        parts = np.stack([np.maximum(-size, 0) + 0.05, np.full(size.shape, 0.15), np.maximum(size, 0) + 0.05], axis=-1)
        return parts / parts.sum(axis=-1, keepdims=True)


def available() -> tuple[str, ...]:
    """Cases whose data is here."""
    return tuple(name for name, path in FILES.items() if path.is_file())


def load(name: str) -> Case:
    """The case of that name."""
    return {"kang18": _kang, "papalexi": _papalexi, "norman": _norman}[name]()


def pair_of_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Two samples of shapes (50, 5) and (40, 5), float64: the pair of the project's page on peers."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 5)), rng.normal(size=(40, 5)) * 2 + 1


def _read(path: Path, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Values (cells, genes) float64, gene names, and columns of ``obs`` as text or numbers."""
    with h5py.File(path) as file:
        x = file["X"]
        shape = tuple(x.attrs["shape"])
        values = sparse.csr_matrix((x["data"][:].astype(np.float64), x["indices"][:], x["indptr"][:]), shape=shape)
        var = file["var"]
        genes = var[var.attrs["_index"]].asstr()[:].astype(str)
        obs = {c: _column(file["obs"][c]) for c in columns}
    return np.asarray(values.todense()), genes, obs


def _column(item: h5py.Group | h5py.Dataset) -> np.ndarray:
    if isinstance(item, h5py.Group):
        return item["categories"].asstr()[:].astype(str)[item["codes"][:]]
    return item.asstr()[:].astype(str) if item.dtype.kind == "O" else item[:]


def _spaced(rows: np.ndarray, k: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, k).astype(np.int64)]


def _rounded(x: np.ndarray) -> np.ndarray:
    return (np.rint(np.maximum(x, 0.0) * GRID) / GRID).astype(np.float32)


def _kang() -> Case:
    values, genes, obs = _read(FILES["kang18"], ("celltype", "perturbation", "n_counts"))
    logs = np.log1p(values * (1e4 / obs["n_counts"].astype(np.float64))[:, None])
    stimulated = obs["perturbation"] == "IFNB1"
    control = np.flatnonzero(obs["perturbation"] == "control")

    def of(name: str) -> np.ndarray:
        return np.flatnonzero(stimulated & (obs["celltype"] == KANG[name]))

    return _case("kang18", logs, genes, tuple(sorted(KANG)), control, of, cells=40, most=250)


def _papalexi() -> Case:
    values, genes, obs = _read(FILES["papalexi"], ("perturbation",))
    logs = np.log1p(values * (1e3 / values.sum(axis=1))[:, None])
    label = obs["perturbation"]
    return _case("papalexi", logs, genes, PAPALEXI, np.flatnonzero(label == "non-targeting"),
                 lambda name: np.flatnonzero(label == name), cells=80, most=299)  # fmt: skip


def _norman() -> Case:
    values, genes, obs = _read(FILES["norman"], ("condition", "cell_type"))
    k562 = obs["cell_type"] == "k562"
    return _case("norman", values, genes, NORMAN, np.flatnonzero(k562 & (obs["condition"] == "control")),
                 lambda name: np.flatnonzero(k562 & (obs["condition"] == name)), cells=50, most=500)  # fmt: skip


def _case(
    name: str,
    logs: np.ndarray,
    genes: np.ndarray,
    conditions: tuple[str, ...],
    control: np.ndarray,
    of: Callable[[str], np.ndarray],
    *,
    cells: int,
    most: int,
) -> Case:
    """Cells by evenly spaced row numbers, alternately observed and replicate.

    Genes: every group expresses them, or so few control cells do that losing them is not significant: no significant
    gene has an infinite log fold change.
    """
    both = [_spaced(of(c), 2 * cells) for c in conditions]
    kept = _spaced(control, 4 * cells)
    here, there = kept[::2], kept[1::2]
    groups = [*both, here, there, there[:cells], *(b[::2] for b in both), *(b[1::2] for b in both)]
    share = np.stack([(logs[g] > 1 / GRID).mean(axis=0) for g in groups])
    seen = (share[len(both) :][:3] > 0).all(axis=0) & ((share > 0).all(axis=0) | (share[len(both)] < RARE))
    named = np.isin(genes, conditions)
    order = np.lexsort((genes, -logs[np.concatenate([*both, kept])].mean(axis=0), ~seen, ~named))
    columns = np.sort(order[: min(most, int((seen | named).sum()))])
    observed = np.stack([_rounded(logs[np.ix_(b[::2], columns)]) for b in both])
    replicate = np.stack([_rounded(logs[np.ix_(b[1::2], columns)]) for b in both])
    controls, others = (_rounded(logs[np.ix_(rows, columns)]) for rows in (here, there))
    half = cells // 2
    mixed = np.concatenate([replicate[:, :half], np.roll(replicate, -1, axis=0)[:, half:]], axis=1)
    shift = np.random.default_rng(7).normal(0.0, 0.2, (len(conditions), 1, len(columns)))
    move = observed.mean(axis=(0, 1), dtype=np.float64) - controls.mean(axis=0, dtype=np.float64)
    same = _rounded(others[:cells] + move)
    predicted = {
        "perfect": observed,
        "replicate": replicate,
        "mixed": mixed,
        "noisy": _rounded(replicate + shift),
        "collapsed": np.repeat(same[None], len(conditions), axis=0),
    }
    return Case(name, genes[columns], conditions, controls, others, observed, predicted)
