"""E-distance of every perturbation to one control group, beside scperturb and pertpy; MMD beside scikit-learn.

Usage: ``python -m bench.edistance [--repeats N]``. 10,000 cells in 50 dimensions, 200 perturbations, one cell in ten a
control. scperturb 0.1.0: ``edist_to_control``, one job; pertpy 1.0.3: ``Distance("edistance").onesided_distances``, one
job, on a fresh object, and again on one whose 10,000 x 10,000 distances it has kept; MMD: three ``rbf_kernel`` calls of
scikit-learn per group and width, three widths. CPU seconds at one thread, turns alternate. Ends with an error unless
values are equal to a relative 1e-6.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import itertools  # noqa: E402
import statistics  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402
import scipy  # noqa: E402

from bench._peer import Peer, Times, ratio, side_by_side  # noqa: E402
from bench._screen import cells_of_a_screen, scores  # noqa: E402
from embbench.numerics.distances import Reference  # noqa: E402

EQUAL = 1e-6
HEAD = "| what | peer, CPU s (wall) | embbench, CPU s (wall) | ratio of CPU | asked | largest relative difference |"


def per_group(cells: np.ndarray, label: np.ndarray, distance: Callable[[Reference, np.ndarray], float]) -> np.ndarray:
    """``distance(control, cells of a perturbation)`` of each perturbation; label -1 is the control."""
    order = np.argsort(label, kind="stable")
    ends = np.searchsorted(label[order], np.arange(label.max() + 2))
    control = Reference(cells[order[: ends[0]]])
    groups = (cells[order[start:stop]] for start, stop in itertools.pairwise(ends))
    return np.array([distance(control, group) for group in groups])


def shown(times: Times) -> str:
    """CPU seconds and wall seconds."""
    return f"{statistics.median(times.cpu):.4f} ({statistics.median(times.wall):.4f})"


def line(what: str, ours: Callable[[], np.ndarray], theirs: Callable[[], tuple], asked: str, repeats: int) -> str:
    """One line of the table; ends the program when values differ."""
    mine, left, other, right = side_by_side(ours, theirs, repeats)
    (peer,) = other.values()
    worst = float(np.max(np.abs(mine - peer) / np.abs(peer)))
    if not worst <= EQUAL:
        raise SystemExit(f"{what}: values differ by a relative {worst:.3g}, more than {EQUAL:g}")
    return f"| {what} | {shown(right)} | {shown(left)} | {ratio(left, right):.0f}x | {asked} | {worst:.1g} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    counts, label = cells_of_a_screen()
    cells = scores(np.log1p(counts))
    arrays, rows = {"cells": cells, "label": label}, []
    with Peer("scperturb", "edistance_scperturb") as peer:
        for dist, correct, kind in (
            ("sqeuclidean", True, "sqeuclidean_u"),
            ("sqeuclidean", False, "sqeuclidean_v"),
            ("euclidean", True, "euclidean_u"),
            ("euclidean", False, "euclidean_v"),
        ):
            rows.append(
                line(
                    f"scperturb 0.1.0, {dist}, sample_correct={correct}: edistance_{kind}",
                    lambda kind=kind: per_group(cells, label, lambda c, x: getattr(c, kind)(x)),
                    lambda d=dist, c=correct: peer.call("distances", arrays, dist=d, correct=c),
                    "8x",
                    repeats,
                )
            )
    with Peer("pertpy", "edistance_pertpy") as peer:
        for again, note in ((False, ""), (True, ", its cell by cell distances kept from before")):
            rows.append(
                line(
                    f"pertpy 1.0.3 onesided_distances{note}: edistance_euclidean_v",
                    lambda: per_group(cells, label, lambda c, x: c.euclidean_v(x)),
                    lambda again=again: peer.call("distances", arrays, again=again),
                    "8x",
                    repeats,
                )
            )
    # widths not in powers of two, where kernels could be squares of one another, and then such widths
    middle = Reference(cells[label < 0][:500]).median_square
    with Peer("sklearn_scipy", "mmd_sklearn") as peer:
        for widths in ((0.3, 1.0, 3.0), (0.5, 1.0, 2.0)):
            gammas = [w / middle for w in widths]
            rows.append(
                line(
                    f"scikit-learn rbf_kernel, widths {', '.join(map(str, widths))} / median: mmd_rbf",
                    lambda g=gammas: per_group(cells, label, lambda c, x: c.mmd_rbf(x, g, unbiased=False)),
                    lambda g=gammas: peer.call("distances", arrays, gammas=g),
                    "15x",
                    repeats,
                )
            )
    print(f"load {os.getloadavg()[0]:.1f}, numpy {np.__version__}, scipy {scipy.__version__}; {repeats} repeats")
    print("\n".join([HEAD, "|---" * HEAD.count(" | ") + "|---|", *rows]))


if __name__ == "__main__":
    main()
