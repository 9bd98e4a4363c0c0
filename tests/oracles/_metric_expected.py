"""Where the values of metric oracles are kept: one JSON file per oracle, with versions and the inputs' digests."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from oracles._metric_cases import Case, available, load

FOLDER = Path(__file__).parent / "expected"

LARGE = 1e300  # stands for infinity, which JSON lacks; read as float32 it is infinite again
Values = Mapping[str, Mapping[str, Any]]  # predictor, or another group of inputs -> name -> number or array


def write(oracle: str, pinned: Mapping[str, str], others: tuple[str, ...], run: Callable[[Case], Values],
          extra: Mapping[str, Any] | None = None) -> None:  # fmt: skip
    """Run an oracle on every case and write ``expected/<oracle>_official.json``.

    SystemExit when a pinned package has another version, or a case's data is absent.
    """
    for package, wanted in pinned.items():
        if version(package) != wanted:
            raise SystemExit(f"expected {package} {wanted}, found {version(package)}")
    if missing := {"kang18", "papalexi", "norman"} - set(available()):
        raise SystemExit(f"expected the data of {', '.join(sorted(missing))} beside the repository, found none")
    cases = {}
    for name in available():
        case = load(name)
        cases[name] = {"digest": case.digest, "conditions": list(case.conditions), "values": _plain(run(case))}
    found = {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in (*pinned, *others)}},
        "cases": cases,
        **_plain(extra or {}),
    }
    text = json.dumps(found, indent=0, sort_keys=True, allow_nan=False)
    (FOLDER / f"{oracle}_official.json").write_text(_dense(text) + "\n", encoding="utf-8")


def read(oracle: str) -> dict[str, Any]:
    """What `write` wrote."""
    return json.loads((FOLDER / f"{oracle}_official.json").read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    """Numbers to 12 digits and lists for JSON; NaN (undefined, dropped by the peer) is null, infinity 1e300."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if value is None or type(value) in (str, bool, int):
        return value
    if np.isinf(value):
        return float(np.copysign(LARGE, value))
    return float(f"{value:.12g}") if np.isfinite(value) else None


def _dense(text: str) -> str:
    """Lists of numbers on one line each."""
    out: list[str] = []
    inside = 0
    for line in text.split("\n"):
        if inside:
            out[-1] += line
        else:
            out.append(line)
        inside += line.endswith("[") - (line.lstrip().startswith("]"))
    return "\n".join(out)
