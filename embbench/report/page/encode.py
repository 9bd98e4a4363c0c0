"""Tables <-> compact JSON: numbers of few significant digits, texts as codes, repeats counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 4


def number(value: float, digits: int = DIGITS) -> str:
    """Shortest text of a number at ``digits`` significant digits; empty where there is none (NaN and infinities).

    Examples
    --------
    >>> number(0.123456), number(-1234567.0), number(2.0), number(float("nan")), number(-0.05)
    ('.1235', '-1235000', '2', '', '-.05')
    """
    text = f"{value:.{digits}g}"
    if not math.isfinite(float(text)):  # the largest doubles round to infinity
        return ""
    if "e" in text and 1 <= abs(value) < 1e15:
        text = str(int(float(text)))
    if text.startswith("0."):
        return text[1:]
    if text.startswith("-0."):
        return f"-{text[2:]}"
    return "0" if text == "-0" else text


def pack(tokens: Sequence[str]) -> str:
    """Tokens joined by commas, runs of one token written once with their length.

    Examples
    --------
    >>> pack(["1", "1", "1", "", "2", "2"])
    '1*3,,2,2'
    """
    parts = []
    for token, run in groupby(tokens):
        n = sum(1 for _ in run)
        short = f"{token}*{n}"
        long = ",".join([token] * n)
        parts.append(short if len(short) < len(long) else long)
    return ",".join(parts)


def unpack(text: str, rows: int) -> list[str]:
    """The tokens that `pack` was given; ``rows`` tells no token from one empty token.

    Raises
    ------
    ValueError
        The text does not hold ``rows`` tokens.
    """
    out: list[str] = []
    for part in text.split(",") if rows else ():
        token, star, times = part.partition("*")
        out += [token] * (int(times) if star else 1)
    if len(out) != rows:
        raise ValueError(f"report: a packed column should hold {rows} values, found {len(out)}")
    return out


def encode(frame: pd.DataFrame, digits: int = DIGITS) -> dict[str, Any]:
    """A frame as ``{"rows": n, "columns": {name: {"data": packed, "levels": texts or absent}}}``.

    Numbers keep ``digits`` significant digits. Booleans become 0 and 1; whatever is neither number nor boolean becomes
    text, missing text ``""``.
    """
    return {"rows": len(frame), "columns": {str(name): _column(frame[name], digits) for name in frame.columns}}


def _column(values: pd.Series, digits: int) -> dict[str, Any]:
    import pandas as pd

    if pd.api.types.is_bool_dtype(values.dtype) and not values.isna().any():
        return {"data": pack(["1" if v else "0" for v in values.tolist()])}
    if pd.api.types.is_numeric_dtype(values.dtype):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan).tolist()
        return {"data": pack([number(v, digits) for v in numbers])}
    texts = ["" if missing else str(v) for v, missing in zip(values.tolist(), values.isna().tolist(), strict=True)]
    levels = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return {"levels": list(levels), "data": pack([str(levels[text]) for text in texts])}


def decode(table: Mapping[str, Any]) -> pd.DataFrame:
    """The frame behind an encoded table, numbers as rounded.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"head": ["knn", "knn"], "mean": [0.5, float("nan")]})
    >>> decode(encode(frame)).equals(frame)
    True
    """
    import pandas as pd

    out: dict[str, Any] = {}
    for name, column in table["columns"].items():
        tokens = unpack(column["data"], table["rows"])
        if "levels" in column:
            out[name] = [column["levels"][int(token)] for token in tokens]
        else:
            out[name] = np.array([float(token) if token else np.nan for token in tokens], dtype=np.float64)
    return pd.DataFrame(out, index=range(table["rows"]))


def plain(value: Any) -> Any:
    """Nested mappings, sequences and arrays as JSON values: floats at `DIGITS` digits, NaN and infinities as None.

    Examples
    --------
    >>> plain({"x": np.array([0.123456, np.nan]), 3: (True, "a")})
    {'x': [0.1235, None], '3': [True, 'a']}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        if not math.isfinite(short):
            return None
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return value if value is None or isinstance(value, bool | int | str) else str(value)
