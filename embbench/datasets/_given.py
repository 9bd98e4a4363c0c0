"""Values that a spec or an entry gives a reader of a published screen, checked: names, mappings, numbers, patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embbench.core import UserError


def words(value: str | Sequence[str], option: str) -> list[str]:
    """One name, or several, as a list.

    Raises
    ------
    UserError
        It is neither.

    Examples
    --------
    >>> words("cell_line", "context_keys"), words(("a", "b"), "context_keys")
    (['cell_line'], ['a', 'b'])
    """
    if not isinstance(value, str | list | tuple):
        raise UserError(
            f"{option} must be a name or a list of names, found {value!r}; a name that is a number needs quotes"
        )
    return [value] if isinstance(value, str) else list(value)


def names_of(option: str, value: Any) -> list[str]:
    """One name or more, as a list, of a parameter that must be given.

    Raises
    ------
    ValueError
        There is none, or one is no text.

    Examples
    --------
    >>> names_of("labels", "guide")
    ['guide']
    """
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not found or not all(isinstance(each, str) and each for each in found):
        raise ValueError(f"{option} must be a name or a list of names, got {value!r}")
    return list(found)


def text(option: str, value: Any) -> str:
    """The value; ValueError when it is no text.

    Examples
    --------
    >>> text("context", "K562")
    'K562'
    """
    if not isinstance(value, str):
        raise ValueError(f"{option} must be text, got {value!r}")
    return value


def texts(option: str, value: Any) -> dict[str, str]:
    """A mapping of text to text; empty for None. ValueError for anything else.

    Examples
    --------
    >>> texts("rename", {"(+)-JQ1": "JQ1"}), texts("rename", None)
    ({'(+)-JQ1': 'JQ1'}, {})
    """
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{option} must map names to names, got {value!r}")
    for key, each in (value or {}).items():
        if not isinstance(key, str) or not isinstance(each, str):
            raise ValueError(f"{option} must map names to names, got {key!r}: {each!r}; a number needs quotes")
    return dict(value or {})


def whole(option: str, value: Any, least: int | None = None) -> int:
    """The value; ValueError when it is no whole number, or below ``least``.

    Examples
    --------
    >>> whole("min_cells", 10, 1)
    10
    """
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise ValueError(f"{option} must be a whole number{'' if least is None else f' >= {least}'}, got {value!r}")
    return value


def pattern(option: str, value: Any) -> re.Pattern[str]:
    """A regular expression, compiled; ValueError when it is none.

    Examples
    --------
    >>> pattern("strip", "_pDS[0-9]+").sub("", "OST4_pDS353")
    'OST4'
    """
    try:
        return re.compile(text(option, value))
    except re.error as error:
        raise ValueError(f"{option} must be a regular expression, got {value!r} ({error})") from error


def numbers(values: np.ndarray, column: str, name: str) -> np.ndarray:
    """Numbers of a column of text, float64 of shape (m,); NaN where there is none ('').

    Parameters
    ----------
    values : objects of str, shape (m,).
    column : its name, for the message.
    name : of the screen, for the message.

    Raises
    ------
    UserError
        One is no number, or an infinite one.

    Examples
    --------
    >>> numbers(np.array(["14.1", "", "1e-2"], dtype=object), "dose_uM", "op3_counts").tolist()
    [14.1, nan, 0.01]
    """
    listed = values.tolist()
    found = {}
    for level in dict.fromkeys(listed):
        try:
            found[level] = float(level) if level else np.nan
        except ValueError:
            found[level] = np.inf
        if np.isinf(found[level]):
            raise UserError(
                f"{name}: expected a finite number in every line of {column}, found {level!r}; the file is not the "
                "published one, or has changed: embbench data import reads it with columns of your choice"
            )
    return np.array([found[level] for level in listed], dtype=np.float64)


def check_options(options: Mapping[str, Any]) -> None:
    """Import options whose type nothing else looks at; ValueError for another one.

    Examples
    --------
    >>> check_options({"seed": "x"})
    Traceback (most recent call last):
        ...
    ValueError: seed must be a whole number, got 'x'
    """
    for option, value in options.items():
        if option in ("min_cells", "seed"):
            whole(option, value)
        if option == "select" and not isinstance(value, Mapping):
            raise ValueError(f"select must map columns to a value or values, got {value!r}")
        if option == "layer" and value is not None:
            text(option, value)
