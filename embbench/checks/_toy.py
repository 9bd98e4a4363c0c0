"""The toy screen that the checks run on: real gene symbols, names that nobody knows, pairs, doses, cells, labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from embbench.core import CellView, Counts, DETable, Inputs, PerturbationDataset, Truth
from embbench.numerics import de

KNOWN = (
    *("TP53", "MDM2", "CDKN1A", "EP300", "BRCA1", "STAT1", "JAK1", "JAK2"),
    *("IRF1", "MYC", "MAX", "KRAS", "RAF1", "MAP2K1", "MAPK1", "CREBBP"),
)
UNKNOWN = ("NOTAGENE1", "NOTAGENE2", "NOTAGENE3")
PAIRS = (("MDM2", "TP53"), ("JAK1", "STAT1"), ("MAX", "MYC"), ("KRAS", "RAF1"), ("BRCA1", "EP300"))
MEASURED = ("CHEK2", "RB1", "E2F1", "CCND1", "RELA", "NFKB1", "IL6", "TNF", "EGFR", "GRB2", "AKT1", "PTEN", "GAPDH")
COMPOUNDS = ("(+)-JQ1", "TL_HRAS26", "imatinib", "sorafenib", "trametinib", "vorinostat", "NOTADRUG1")
CONTEXTS = ("A549", "K562", "RPE1")
WIDTH = 6  # of the toy vectors
BLOCKS = (("one", slice(0, 4)), ("two", slice(4, WIDTH)))


@dataclass(frozen=True)
class ToyCells:
    """Normal cells around stated means: a `Cells` source that always returns the same bits.

    Parameters
    ----------
    control : shape (c, g); mean control expression.
    shifted : shape (n, g); mean expression of perturbed cells.
    n_control, n_perturbed : cells per control half and per row.
    salt : another value gives other noise.
    genes : the g names.
    """

    control: np.ndarray
    shifted: np.ndarray
    n_control: int = 40
    n_perturbed: int = 24
    salt: int = 0
    genes: tuple[str, ...] = ()

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells of shape (m, g), float32, of a context code and half."""
        parts = [self._draw(self.control[context], self.n_control, 0, context, h) for h in (0, 1)]
        return {"A": parts[0], "B": parts[1], "all": np.concatenate(parts)}[half]

    def perturbed(self, row: int) -> np.ndarray:
        """Perturbed cells of shape (m, g), float32, of a row."""
        return self._draw(self.shifted[row], self.n_perturbed, 1, row, 0)

    def n_controls(self, context: int, half: str = "A") -> int:
        """Number of control cells of a half."""
        return self.n_control * (2 if half == "all" else 1)

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """The control cells as whole counts of cells with 10,000 counts, zero where expression is negative."""
        logs = self.controls(context, half)
        values = sparse.csr_matrix(np.rint(np.expm1(np.maximum(logs, 0))).astype(np.float32))
        cells = Counts(values, np.asarray(self.genes, dtype=object), np.full(len(logs), 1e4))
        return cells if index is None else cells.rows(index)

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names of the control cells."""
        return np.array([f"{half}{context}-{i}" for i in range(self.n_controls(context, half))], dtype=str)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """Batch codes of the control cells: six batches in turn."""
        return np.arange(self.n_controls(context, half)) % 6

    def perturbed_batches(self, row: int) -> np.ndarray:
        """Batch codes of the perturbed cells of a row: six batches in turn."""
        return np.arange(self.n_perturbed) % 6

    def _draw(self, mean: np.ndarray, cells: int, *address: int) -> np.ndarray:
        noise = np.random.default_rng([self.salt, *address]).normal(0.0, 0.3, (cells, len(mean)))
        return (mean + noise).astype(np.float32)


def toy_screen(seed: int = 0, entity_type: str = "gene") -> PerturbationDataset:
    """A screen with everything a component may ask for; equal for equal arguments.

    Perturbed entities are measured and unmeasured, known and unknown to public annotation, alone and in pairs, in
    three contexts; some rows repeat at a lower dose.

    Parameters
    ----------
    seed : of effects and cells; the rows are the same for every seed.
    entity_type : ``gene`` or ``compound`` (compounds: no pairs, no target genes).

    Returns
    -------
    PerturbationDataset with effects of shape (n, g), baselines (3, g), cells, labels and a ``split`` column.

    Examples
    --------
    >>> screen = toy_screen()
    >>> screen.entities[0], screen.contexts
    (('TP53',), ('A549', 'K562', 'RPE1'))
    """
    rng = np.random.default_rng([11, seed])
    rows = _rows(entity_type)
    genes = np.array([*KNOWN[:12], *UNKNOWN[:1], *MEASURED, "NOTAGENE4"], dtype=object)
    n, g = len(rows), len(genes)
    code = np.array([c for _, c, _ in rows])
    control = np.abs(rng.normal(1.5, 0.7, (len(CONTEXTS), g)))
    mean = _means(rows, rng, g)
    shifted = (control[code] + mean).astype(np.float32)
    cells = ToyCells(control.astype(np.float32), shifted, salt=seed, genes=tuple(genes))
    labels = (np.sign(mean) * (np.abs(mean) > np.quantile(np.abs(mean), 0.7))).astype(np.int8)
    return PerturbationDataset(
        name="toy",
        unit="delta",
        genes=genes,
        entities=tuple(e for e, _, _ in rows),
        context=np.array([CONTEXTS[c] for c in code], dtype=object),
        entity_type=entity_type,
        contexts=CONTEXTS,
        noise_free=mean.astype(np.float32),
        n_cells=np.full(n, cells.n_perturbed),
        dose=np.array([d for _, _, d in rows], dtype=np.float32),
        covariates={"split": np.where(np.arange(n) % 4 == 0, "test", "train").astype(object)},
        labels=labels,
        labels_tested=rng.random((n, g)) < 0.9,
        cells=cells,
        **_tested(mean),
        **_pseudobulk(cells, code),
    )


def _tested(mean: np.ndarray) -> dict[str, np.ndarray]:
    """A DE table in which the largest third of the effects is significant; the last gene is not tested."""
    log2fc, size = (mean / np.log(2)).astype(np.float32), np.abs(mean)
    padj = np.where(size > np.quantile(size, 2 / 3), 0.001, 0.5).astype(np.float32)
    log2fc[:, -1] = padj[:, -1] = np.nan
    return {"log2fc": log2fc, "padj": padj}


def _pseudobulk(cells: ToyCells, code: np.ndarray) -> dict[str, np.ndarray]:
    """Effects against either control half, and what is known of their noise, float32."""
    half = {h: np.stack([cells.controls(c, h) for c in range(len(CONTEXTS))]) for h in "AB"}
    base = {h: half[h].mean(axis=1, dtype=np.float64).astype(np.float32) for h in half}
    pert = np.stack([cells.perturbed(i) for i in range(len(code))])
    average = pert.mean(axis=1, dtype=np.float64)
    variance = pert.var(axis=1, ddof=1) / cells.n_perturbed + half["B"].var(axis=1, ddof=1)[code] / cells.n_control
    found = {
        "effects": average - base["A"][code],
        "truth": average - base["B"][code],
        "baseline": base["A"],
        "baseline_truth": base["B"],
        "baseline_variance": half["A"].var(axis=1, ddof=1),
        "truth_variance": variance,
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def _rows(entity_type: str) -> list[tuple[tuple[str, ...], int, float]]:
    singles = KNOWN + UNKNOWN if entity_type == "gene" else COMPOUNDS
    rows: list[tuple[tuple[str, ...], int, float]]
    rows = [((name,), c, 1.0) for name in singles for c in range(len(CONTEXTS))]
    rows += [((name,), 0, 0.1) for name in singles[:4]]
    if entity_type == "gene":
        rows += [(pair, c, 1.0) for pair in PAIRS for c in range(len(CONTEXTS) - 1)]
    return rows


def _means(rows: list[tuple[tuple[str, ...], int, float]], rng: np.random.Generator, g: int) -> np.ndarray:
    programmes = rng.normal(0.0, 0.35, (WIDTH, g))
    shared, shift = rng.normal(0.0, 0.4, g), rng.normal(0.0, 0.15, (len(CONTEXTS), g))
    vectors = toy_vectors([e for row, _, _ in rows for e in row])
    return np.stack([d * (shared + shift[c] + sum(vectors[e] for e in row) @ programmes) for row, c, d in rows])


def toy_vectors(names: list[str]) -> dict[str, np.ndarray]:
    """A fixed vector of shape (WIDTH,), float64, per name."""
    return {name: np.random.default_rng(list(name.encode())).normal(size=WIDTH) for name in dict.fromkeys(names)}


def toy_inputs(
    screen: PerturbationDataset, rows: np.ndarray | None = None, *, query: bool = False, missing: bool = False
) -> Inputs:
    """All that a head may know about ``rows`` of the toy screen: vectors, cells, graph, baselines, context vectors.

    Parameters
    ----------
    screen : from `toy_screen`; codes of rows from the same screen agree.
    rows : row numbers; None takes all.
    query : True closes the perturbed cells.
    missing : True marks the second block of every third entity as not found (its columns are 0).

    Returns
    -------
    Inputs with X of shape (n, WIDTH), float32, in two blocks.

    Examples
    --------
    >>> inputs = toy_inputs(toy_screen(), np.array([0, 3]))
    >>> inputs.X.shape, inputs.baseline.shape
    ((2, 6), (3, 27))
    """
    rows = np.arange(len(screen)) if rows is None else np.asarray(rows)
    names = list(screen.entity_names)
    vectors = toy_vectors(names)
    where = {name: i for i, name in enumerate(names)}
    entities = sparse.lil_matrix((len(screen), len(names)), dtype=np.float32)
    for i, row in enumerate(screen.entities):
        entities[i, [where[e] for e in row]] = 1.0
    X = entities.toarray().astype(np.float64) @ np.stack([vectors[n] for n in names])
    lost = np.array([missing and any(where[e] % 3 == 0 for e in row) for row in screen.entities])
    X[lost, BLOCKS[1][1]] = 0.0
    ring = sparse.diags([1.0, 1.0], [1, -1], shape=(len(names), len(names)), dtype=np.float32, format="csr")
    open_rows = np.array([], dtype=np.int64) if query else np.arange(len(screen))
    return Inputs(
        X=X.astype(np.float32),
        context=screen.context_codes,
        entities=sparse.csr_matrix(entities),
        units=tuple(tuple(where[e] for e in row) for row in screen.entities),
        blocks=BLOCKS,
        found=np.stack([np.ones(len(screen), bool), ~lost], axis=1),
        dose=screen.dose,
        baseline=screen.baseline,
        context_vector=np.asarray(screen.baseline[:, :5], dtype=np.float32),
        graph=ring,
        cells=CellView(screen.cells, open_rows),
    ).rows(rows)


@dataclass(frozen=True)
class Problem:
    """Training rows with their effects, labels and tested mask, and query rows whose perturbations are mostly new."""

    train: Inputs
    Y: np.ndarray
    query: Inputs
    labels: np.ndarray
    tested: np.ndarray


def toy_problem(seed: int = 0, *, missing: bool = False) -> Problem:
    """What the head checks fit and ask: about 44 training and 27 query rows of `toy_screen`."""
    screen = toy_screen(seed)
    held = {"JAK2", "MYC", "KRAS", "CREBBP", "NOTAGENE2", "EP300", "RAF1"}
    new = np.array([bool(held & set(row)) for row in screen.entities])
    train, query = np.flatnonzero(~new), np.flatnonzero(new)
    return Problem(
        toy_inputs(screen, train, missing=missing),
        screen.effects[train],
        toy_inputs(screen, query, query=True, missing=missing),
        screen.labels[train],
        screen.labels_tested[train],
    )


def own_de(truth: Truth, target: str) -> DETable:
    """The DE table that the truth's own effects (or, for ``population``, its own cells) agree with in every gene."""
    if target != "population" or truth.cells is None:
        return DETable(**_tested(np.nan_to_num(truth.effects, nan=0.0)))
    seen = np.ones(truth.effects.shape, bool) if truth.observed is None else truth.observed
    log2fc, padj = np.full((2, *seen.shape), np.nan, np.float32)
    for row, context in enumerate(truth.context.tolist()):
        cells, controls = truth.cells.perturbed(row), truth.cells.controls(context)
        p = np.where(seen[row], de.wilcoxon(cells, controls).p, np.nan)
        change = de.log2fc(de.mean_counts(cells), de.mean_counts(controls))
        padj[row], log2fc[row] = de.benjamini_hochberg(p), np.where(seen[row], change, np.nan)
    return DETable(log2fc, padj)


def toy_truth(unit: str = "delta", seed: int = 0) -> Truth:
    """What predictions of toy rows are judged against: every field of `Truth` is there, some genes unobserved.

    Unobserved effects are NaN: a metric that reads them shows it.
    """
    screen = toy_screen(seed)
    test = np.arange(0, len(screen), 2)
    train = np.setdiff1d(np.arange(len(screen)), test)
    code = screen.context_codes
    centroid = np.stack([screen.effects[train][code[train] == c].mean(axis=0) for c in range(len(CONTEXTS))])
    observed = np.random.default_rng([7, seed]).random((len(test), len(screen.genes))) < 0.9
    pooled = np.concatenate([screen.cells.perturbed(int(i)) for i in train[:20]])
    basis = np.linalg.svd(pooled - pooled.mean(axis=0), full_matrices=False)[2][:4].T
    return Truth(
        effects=np.where(observed, screen.truth[test], np.nan).astype(np.float32),
        unit=unit,
        context=code[test],
        targets=tuple(screen.target_columns()[i] for i in test),
        entities=tuple(screen.entities[i] for i in test),
        observed=observed,
        baseline=screen.baseline_truth[code[test]],
        centroid=centroid[code[test]],
        centroid_truth=centroid[code[test]],
        variance=screen.truth_variance[test],
        labels=screen.labels[test],
        labels_tested=screen.labels_tested[test],
        de=DETable(screen.log2fc[test], screen.padj[test]),
        cells=CellView(screen.cells, test, half="B", share="observed"),
        basis=np.ascontiguousarray(basis, dtype=np.float32),
    )
