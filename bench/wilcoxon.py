"""Rank-sum tests of every perturbation and gene against one control group, beside pdex, scanpy and scipy.

Usage: ``python -m bench.wilcoxon [--repeats N] [--scanpy-repeats N]``. 10,000 cells x 2,000 genes, 200 perturbations,
one cell in ten a control; log1p of counts (few distinct values), and of counts scaled to 1e4 a cell (nearly all
distinct). All start from the same float32 cells, CSR (the faster form of pdex) unless a line says dense, and end with
U, p, Benjamini-Hochberg and log2 fold change of all pairs. The peers' AnnData objects are made before.

pdex 0.3.0: ``pdex(mode="ref", threads=1, is_log1p=True)``, compiled in the first turn, which is not counted; ours
beside it with the continuity correction that pdex has. scanpy 1.11.5: ``rank_genes_groups(wilcoxon, tie_correct=True,
reference=control, n_genes=all, pts=False)``; ours without continuity correction. Adjusted p values are compared too.
scipy: ``mannwhitneyu(method="asymptotic")`` on a sample of perturbations, all genes. All equal to 1e-9, or an error.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import statistics  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402
import scipy  # noqa: E402
from scipy import sparse, stats  # noqa: E402

from bench._peer import Peer, Times, ratio, side_by_side  # noqa: E402
from bench._screen import cells_of_a_screen  # noqa: E402
from embbench.numerics import de  # noqa: E402

EQUAL = 1e-9
SAMPLE = 3  # perturbations that scipy tests
HEAD = "| cells | peer | peer, CPU s (wall; first turn) | embbench, CPU s (wall) | ratio | asked | difference of p |"


def tables(cells: de.Cells, label: np.ndarray, *, continuity: bool) -> dict[str, np.ndarray]:
    """U, p, adjusted p and log2 fold change of mean counts, all (perturbations, genes)."""
    own = cells[np.flatnonzero(label < 0)]
    control, counts = de.SortedControls(own), de.mean_counts(own)
    found: dict[str, list[np.ndarray]] = {"u": [], "p": [], "change": []}
    for k in range(label.max() + 1):
        group = cells[np.flatnonzero(label == k)]
        test = control.test(group, continuity=continuity)
        for name, values in (("u", test.u), ("p", test.p), ("change", de.log2fc(de.mean_counts(group), counts))):
            found[name].append(values)
    out = {name: np.stack(values) for name, values in found.items()}
    return {**out, "fdr": de.benjamini_hochberg(out["p"])}


def check(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray], what: str) -> float:
    """Largest difference of p; ends the program above `EQUAL`. scanpy gives NaN-free p, ours too."""
    pairs = [(a, b) for a, b in (("p", "p"), ("fdr", "fdr"), ("fdr", "padj")) if b in theirs]
    worst = max(float(np.abs(mine[a] - theirs[b]).max()) for a, b in pairs)
    if not worst <= EQUAL:
        raise SystemExit(f"{what}: p or adjusted p values differ by {worst:.3g}, more than {EQUAL:g}")
    return worst


def scipys(cells: sparse.csr_matrix, label: np.ndarray, mine: dict[str, np.ndarray], *, continuity: bool) -> float:
    """Largest difference from scipy on the first perturbations, all genes; ends the program above `EQUAL`."""
    control, worst = cells[np.flatnonzero(label < 0)].toarray().astype(float), 0.0
    for k in range(SAMPLE):
        group = cells[np.flatnonzero(label == k)].toarray().astype(float)
        want = stats.mannwhitneyu(group, control, axis=0, method="asymptotic", use_continuity=continuity)
        p = np.where(np.isnan(want.pvalue), 1.0, want.pvalue)  # all values tied
        if not np.array_equal(mine["u"][k], want.statistic):
            raise SystemExit(f"perturbation {k}: U differs from scipy's")
        worst = max(worst, float(np.abs(mine["p"][k] - p).max()))
    if not worst <= EQUAL:
        raise SystemExit(f"p values differ from scipy's by {worst:.3g}, more than {EQUAL:g}")
    return worst


def shown(times: Times, *, first: bool = False) -> str:
    """CPU seconds, wall seconds and those of the first call."""
    more = f"; {times.first:.1f}" if first else ""
    return f"{statistics.median(times.cpu):.3f} ({statistics.median(times.wall):.3f}{more})"


def line(
    what: str,
    name: str,
    ours: Callable[[], dict[str, np.ndarray]],
    theirs: Callable[[], tuple],
    asked: str,
    repeats: int,
) -> tuple[str, dict[str, np.ndarray]]:
    """One line of the table, and our results."""
    mine, left, other, right = side_by_side(ours, theirs, repeats)
    worst = check(mine, other, name)
    cpu = f"{shown(right, first=True)} | {shown(left)} | {ratio(left, right):.1f}x"
    return f"| {what} | {name} | {cpu} | {asked} | {worst:.1g} |", mine


def measure(what: str, cells: sparse.csr_matrix, label: np.ndarray, repeats: int, slow: int) -> list[str]:
    """The lines of one kind of cells."""
    arrays = {"data": cells.data, "indices": cells.indices, "indptr": cells.indptr, "label": label}
    genes, dense, rows = cells.shape[1], cells.toarray(), []
    with Peer("cell_eval", "wilcoxon_pdex") as peer:
        for form, name in ((cells, "pdex 0.3.0"), (dense, "pdex 0.3.0 (ours dense)")):
            told, mine = line(
                what,
                name,
                lambda form=form: tables(form, label, continuity=True),
                lambda: peer.call("tests", arrays, genes=genes),
                "3x",
                repeats,
            )
            rows.append(told)
        note = f"{what}: p against scipy, continuity: {scipys(cells, label, mine, continuity=True):.1g}"
    with Peer("scanpy", "wilcoxon_scanpy") as peer:
        told, mine = line(
            what,
            "scanpy 1.11.5",
            lambda: tables(cells, label, continuity=False),
            lambda: peer.call("tests", arrays, genes=genes),
            "20x",
            slow,
        )
        rows.append(told)
    return [*rows, f"{note}, without: {scipys(cells, label, mine, continuity=False):.1g}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scanpy-repeats", type=int, default=5)
    args = parser.parse_args()
    counts, label = cells_of_a_screen()
    depth = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    kinds = {"log1p counts": np.log1p(counts), "log1p scaled": np.log1p(1e4 * counts / depth).astype(np.float32)}
    lines = [
        text
        for what, values in kinds.items()
        for text in measure(what, sparse.csr_matrix(values), label, args.repeats, args.scanpy_repeats)
    ]
    print(f"load {os.getloadavg()[0]:.1f}, numpy {np.__version__}, scipy {scipy.__version__}; {args.repeats} repeats")
    print("\n".join([HEAD, "|---" * HEAD.count(" | ") + "|---|", *(x for x in lines if x.startswith("|"))]))
    print("\n".join(x for x in lines if not x.startswith("|")))


if __name__ == "__main__":
    main()
