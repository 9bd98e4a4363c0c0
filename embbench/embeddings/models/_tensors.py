"""A strict view of a model's tensors, and how messages show what a file holds."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embbench.core import UserError

if TYPE_CHECKING:
    import torch

SHOWN = 4


class Tensors:
    """A strict view of a state dict: what is taken must be there in the expected shape, and nothing may be left over.

    Parameters
    ----------
    what : the model's name, for messages.
    path : the file, for messages.
    tensors : the state dict.

    Examples
    --------
    >>> import torch
    >>> weights = Tensors("tiny", Path("tiny.pt"), {"model.a.weight": torch.ones(2, 3), "head.bias": torch.ones(3)})
    >>> weights = weights.ignore("head.").strip("model.")
    >>> tuple(weights.take("a.weight", 2, None).shape)
    (2, 3)
    >>> weights.finish()
    """

    def __init__(self, what: str, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        self.what, self.path = what, path
        self._tensors = dict(tensors)
        self._known: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether there is such a tensor."""
        return key in self._tensors

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises
        ------
        UserError
            There is none; the message shows near misses.
        """
        return tuple(self._find(key).shape)

    def take(self, key: str, *shape: int | None, dtype: Literal["float", "any"] = "float") -> torch.Tensor:
        """A tensor of exactly that shape (None: any length from 1; no number at all: a scalar), and mark it known.

        float32, contiguous, on the CPU and without gradient; no copy where it is all that already. float16, bfloat16
        and float64 are converted. With ``dtype="any"`` tensors of integers and booleans come as they are.

        Raises
        ------
        UserError
            No such key (shows near misses), another shape, no numbers of the expected kind, or NaN or infinite values.
        """
        import torch

        tensor = self._find(key)
        found = tuple(tensor.shape)
        fits = len(found) == len(shape) and all(
            n == want if want is not None else n > 0 for n, want in zip(found, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise self.error(f"expected {short(key)} of shape ({wanted}), found {found}")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise self.error(f"expected {short(key)} as a plain tensor, found {tensor.layout} {tensor.dtype}")
        floats = tensor.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        whole = not (tensor.is_floating_point() or tensor.is_complex())
        if not floats and not (dtype == "any" and whole):
            raise self.error(f"expected {short(key)} as floating-point numbers, found {tensor.dtype}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise self.error(f"{short(key)} of shape {found} has fewer numbers in the file than its shape says")
        tensor = tensor.detach().to("cpu", torch.float32 if floats else None).contiguous()
        if floats and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise self.error(
                f"expected finite numbers in {short(key)}, found {bad} NaN or infinite of {tensor.numel()}"
            )
        self._known.add(key)
        return tensor

    def ignore(self, *prefixes: str) -> Tensors:
        """Mark what inference does not need (decoders, buffers) as known; returns itself. Absent ones do not matter."""
        self._known.update(key for key in self._tensors if key.startswith(prefixes))
        return self

    def rename(self, old_prefix: str, new_prefix: str) -> Tensors:
        """A new view in which keys that begin with the old prefix begin with the new one; use it instead of this one.

        Keys without the prefix stay as they are, also when none has it (``take`` then says what is missing). What was
        taken or ignored stays known.

        Raises
        ------
        UserError
            Two keys would become one.
        """
        names = {
            key: new_prefix + key.removeprefix(old_prefix) if key.startswith(old_prefix) else key
            for key in self._tensors
        }
        return self._renamed(names)

    def strip(self, *prefixes: str) -> Tensors:
        """A new view without those prefixes ("module.", "model.", "bert."), tried in turn; use it instead of this one.

        A prefix goes only if every key that is neither taken nor ignored begins with it: ``ignore`` the heads beside
        ``bert.`` first. What was taken or ignored keeps its name and stays known.

        Raises
        ------
        UserError
            Two keys would become one.
        """
        view = self
        for prefix in prefixes:
            rest = [key for key in view._tensors if key not in view._known]
            if rest and all(key.startswith(prefix) for key in rest):
                view = view._renamed({key: key.removeprefix(prefix) for key in rest})
        return view

    def count(self, pattern: str) -> int:
        """The number of consecutive layers, numbered from 0 at ``{}`` of e.g. ``transformer.blocks.{}.``.

        Raises
        ------
        UserError
            No layer, or a gap in the numbers.
        ValueError
            A pattern without exactly one ``{}``.
        """
        if pattern.count("{}") != 1:
            raise ValueError(f"Tensors.count: expected one {{}} in the pattern, got {pattern!r}")
        before, after = (re.escape(part) for part in pattern.split("{}"))
        numbered = re.compile(f"{before}(0|[1-9][0-9]{{0,5}}){after}")
        found = sorted({int(match[1]) for key in self._tensors if (match := numbered.match(key))})
        if not found:
            raise self.error(
                f"expected layers {pattern.format(0)}, {pattern.format(1)}, ..., found {few(self._tensors)}"
            )
        if found != list(range(len(found))):
            gap = next(i for i, number in enumerate(found) if i != number)
            raise self.error(f"expected layers 0 to {found[-1]} of {pattern}, found {len(found)} and no {gap}")
        return len(found)

    def finish(self) -> None:
        """Say that all is taken.

        Raises
        ------
        UserError
            A tensor was neither taken nor ignored: another model, or another version of it.
        """
        if extra := [key for key in self._tensors if key not in self._known]:
            raise self.error(
                f"{len(extra)} of {len(self._tensors)} tensors are none of this model or version: {few(extra)}"
            )

    def error(self, found: str) -> UserError:
        """The exception, to be raised, of something wrong in this file: which, of which model, and what to do."""
        return UserError(f"{self.path}: {self.what}: {found}; is it {self.what}? download the folder again")

    def _find(self, key: str) -> torch.Tensor:
        if key not in self._tensors:
            near = difflib.get_close_matches(key, list(self._tensors), n=3)
            found = f"near {few(near)}" if near else f"found {few(self._tensors)}"
            raise self.error(f"no tensor {short(key)} among {len(self._tensors)}, {found}")
        return self._tensors[key]

    def _renamed(self, names: Mapping[str, str]) -> Tensors:
        new = {key: names.get(key, key) for key in self._tensors}
        if len(set(new.values())) < len(new):
            twice = Counter(new.values()).most_common(1)[0][0]
            raise self.error(f"two tensors would be called {short(twice)}")
        view = Tensors(self.what, self.path, {new[key]: tensor for key, tensor in self._tensors.items()})
        view._known = {new[key] for key in self._known}
        return view


def describe(value: Any) -> str:
    """What an object is, in a few words."""
    if isinstance(value, dict):
        return f"a dict of {few(value)}" if value else "an empty dict"
    if isinstance(value, str | int | float | None):
        return short(value)
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple) else "")


def short(value: Any) -> str:
    """A repr that fits a message, whatever a file holds; long keys keep both ends."""
    shown = isinstance(value, str | float | None) or (isinstance(value, int) and abs(value) < 10**20)
    text = repr(value) if shown else type(value).__name__  # Python refuses to write integers of 4300 digits
    return text if len(text) <= 80 else f"{text[:50]}...{text[-27:]}"


def few(names: Iterable[Any], shown: int = SHOWN) -> str:
    """The first names, and how many more."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(short(name) for name in names[:shown]) + more
