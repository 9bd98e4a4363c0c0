"""Runs in a peer's own environment: waits for calls, hands back results and times. Knows nothing of embbench.

``python serve.py MODULE`` imports ``MODULE.py`` of this folder and answers one JSON line for each on standard input:
``{"call", "arrays", "arguments", "out"}`` (arrays in a .npz file). Functions take the arrays and arguments by keyword
and give a dict of arrays.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np


def peak_mb() -> float:
    """Largest resident memory of this process so far; `resource` would count that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print as they like
    began = time.process_time(), time.perf_counter()
    module = importlib.import_module(sys.argv[1])
    took = {"cpu": time.process_time() - began[0], "wall": time.perf_counter() - began[1]}
    print(json.dumps(took), file=answers, flush=True)
    loaded: dict[str, dict[str, np.ndarray]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["arrays"] not in loaded:
            loaded.clear()
            with np.load(asked["arrays"], allow_pickle=False) as file:
                loaded[asked["arrays"]] = dict(file)
        given = loaded[asked["arrays"]]
        cpu, wall = time.process_time(), time.perf_counter()
        made = getattr(module, asked["call"])(**given, **asked["arguments"])
        told = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        told["peak_mb"] = peak_mb()
        np.savez(Path(asked["out"]), **made)
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
