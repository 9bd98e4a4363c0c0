"""Entries of a registry file: one registered component each, checked when the file is read, imported when asked."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import yaml

from embbench.core import Composite, Metric, UserError

KINDS = ("datasets", "splits", "features", "graphs", "embeddings", "heads", "metrics", "composites")
# parameters that may name a file or folder beside the registry file
FILES = (
    "path",
    "graph",
    "source",
    "checkpoint",
    "encoder",
    "fasta",
    "genes",
    "names",
    "rename",
    "mapping",
    "tokens",
    "medians",
)
OWN_FILES = ("path", "graph", "source")  # arguments that name a user's own file, for which there is no default
MODALITIES = (
    *("cell model", "network", "gene set", "knowledge graph", "text", "protein", "chemistry"),
    *("expression", "effects", "context", "table", "baseline"),
)


# What an embedding may know, least first: the report groups by it, and flags what is not declared.
INFORMATION = (
    "none",
    "prior knowledge",
    "unperturbed expression",
    "this screen's controls",
    "responses elsewhere",
    "unknown",
    "this screen's responses",
)
# both are safe loaders; libyaml's takes a tenth of the time, where PyYAML was built with it
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TUPLES = ("requires", "trained_on", "also")  # fields that are lists
KIND_NAMES = {dict: "mapping", list: "list", str: "text", int: "number"}


@dataclass(frozen=True)
class Entry:
    """One registered component: where it lives, with which parameters, and where it comes from.

    Parameters
    ----------
    kind, name : section and key of the YAML file.
    impl : ``package.module:object``.
    params : constructor parameters.
    argument : parameter that a positional part of a spec sets (``pca:100`` sets ``dim`` when ``argument: dim``).
    presets : of a head, name -> constructor parameters that make it cheaper or dearer; ``default`` is the constructor's
        own, and no preset.
    test : parameters small enough for the contract tests, offline.
    requires : importable modules.
    needs_file : what must be fetched by hand, and how; shown when it is missing.
    information : what an embedding may know, of `INFORMATION`; ``responses elsewhere`` are those of other screens, of
        other cell lines (DepMap) or of a model pretrained on perturbations.
    trained_on : datasets seen in pretraining; () none of ours, None not known.
    licence, reference : provenance.
    modality : what an embedding is made from, of `MODALITIES`.
    dim : its width; 0 where that depends on parameters or files.
    dated : release or date of the information it holds.
    restricted : what the licence of weights or data forbids; must be accepted before they are fetched.
    also : further names, e.g. ``norman19`` of its usual source.
    about : of a published screen, what its source says of it: ``cells``, ``genes``, ``perturbations``, ``contexts``
        (texts or numbers) and ``what``.
    uncertain : what of the record could not be verified before a first fetch.
    base : folder of the registry file; relative parameters of `FILES` that exist there were made absolute.
    """

    kind: str
    name: str
    impl: str
    params: dict[str, Any] = field(default_factory=dict)
    argument: str = ""
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    needs_file: str = ""
    information: str = "unknown"
    trained_on: tuple[str, ...] | None = None
    licence: str = ""
    reference: str = ""
    modality: str = ""
    dim: int = 0
    dated: str = ""
    restricted: str = ""
    also: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    uncertain: str = ""
    base: str = ""

    @property
    def module(self) -> str:
        """Dotted name of the module that holds the object."""
        return self.impl.partition(":")[0]

    def missing(self) -> list[str]:
        """Required modules that cannot be imported here.

        Examples
        --------
        >>> Entry("heads", "mine", "mine.heads:Mine", requires=("numpy", "no_such_module")).missing()
        ['no_such_module']
        """
        return [r for r in self.requires if not _importable(r)]

    def load(self) -> Any:
        """The class or `Metric` behind the entry."""
        if absent := self.missing():
            raise UserError(f"{self.kind} {self.name!r} needs {', '.join(absent)}: pip install {' '.join(absent)}")
        return load_object(self.impl)

    def make(self, **overrides: Any) -> Any:
        """A fresh component; metrics are declared objects, so their parameters replace fields."""
        thing, params = self.load(), {**self.params, **self._of_recipe(overrides), **overrides}
        if self.needs_file and self.argument in OWN_FILES and self.argument not in params:
            raise UserError(f"{self.kind} {self.name!r} needs {self.needs_file}")
        declared = isinstance(thing, Metric | Composite)
        if declared and (fixed := sorted(set(overrides) - set(getattr(thing, "settable", ())))):
            takes = ", ".join(getattr(thing, "settable", ())) or "no parameter"
            raise UserError(
                f"{self.kind} {self.name!r} takes {takes}, found {fixed[0]}; other variants have names of their own "
                f"(embbench list {self.kind})"
            )
        try:
            return replace(thing, **params) if declared else thing(**params)
        except TypeError as error:
            told = {k: v for k, v in params.items() if k != "of"}  # may be a whole screen or table
            taken = inspect.signature(type(thing) if declared else thing).parameters
            known = [name for name in taken if name != "self"]
            hint = f"; give {self.needs_file}" if self.needs_file else ""
            raise UserError(
                f"{self.kind} {self.name!r}: parameters {told} do not fit: {error}; "
                f"it takes {', '.join(known) or 'none'}{hint}"
            ) from error
        except ValueError as error:
            raise UserError(f"{self.kind} {self.name!r}: {error}") from error

    def _of_recipe(self, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
        """Import options of the recipe that is asked for; what the user gives beside it wins."""
        recipes = self.params.get("recipes", {}) if "recipe" in overrides else {}
        return recipes.get(overrides.get("recipe"), {}).get("options", {})

    def preset(self, name: str) -> dict[str, Any]:
        """Parameters of a preset; none of ``default``.

        Raises
        ------
        UserError
            The entry has no presets, or none of that name.

        Examples
        --------
        >>> Entry("heads", "mine", "mine.heads:Mine", presets={"fast": {"steps": 5}}).preset("fast")
        {'steps': 5}
        """
        if not self.presets:
            raise UserError(f"{self.kind} {self.name!r} has no presets, found preset={name}; leave it out")
        if name not in ("default", *self.presets):
            known = ", ".join(["default", *self.presets])
            raise UserError(f"{self.kind} {self.name!r}: preset must be one of {known}, found {name!r}")
        return self.presets.get(name, {})

    def summary(self) -> str:
        """First docstring line of the implementation's module, without importing it."""
        import ast

        spec = _found(self.module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def _found(module: str) -> ModuleSpec | None:
    """Where a module lies; None when it, or the package it should be in, cannot be found."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


@functools.cache
def _importable(module: str) -> bool:
    return _found(module) is not None


@functools.cache
def load_object(impl: str) -> Any:
    """Import ``package.module:object``; `UserError` when the module or the object does not exist.

    Examples
    --------
    >>> load_object("embbench.core:Fold").__name__
    'Fold'
    """
    module, _, attribute = impl.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load {impl!r}, expected an importable 'package.module:object': {error}") from error


def check_information(where: str, told: str) -> None:
    """Refuse a kind of information that is not one of `INFORMATION`."""
    if told not in INFORMATION:
        raise UserError(f"{where}: information must be one of {', '.join(INFORMATION)}, found {told!r}")


def read_entries(path: Path) -> list[Entry]:
    """Validated entries of one registry file."""
    try:
        sections = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=LOADER) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"registry {path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(sections, dict):
        raise UserError(f"registry {path}: expected sections {', '.join(KINDS)}, found {type(sections).__name__}")
    allowed = {f.name for f in fields(Entry)} - {"kind", "name", "base"}
    out = []
    for kind, section in sections.items():
        if kind not in KINDS:
            raise UserError(f"registry {path}: unknown section {kind!r}, expected one of {', '.join(KINDS)}")
        if not isinstance(section or {}, dict):
            found = type(section).__name__
            raise UserError(f"registry {path}: section {kind} must map names to entries, found {found}")
        for name, facts in (section or {}).items():
            _check_entry(f"registry {path}: {kind}/{name}", facts, allowed)
            facts = {k: tuple(v) if isinstance(v, list) and k in TUPLES else v for k, v in facts.items()}
            check_information(f"registry {path}: {kind}/{name}", facts.get("information", "unknown"))
            base = Path(path).resolve().parent
            facts |= {k: _with_files(facts[k], base) for k in ("params", "test") if isinstance(facts.get(k), dict)}
            out.append(Entry(kind, name, base=str(base), **facts))
    return out


def _check_entry(where: str, facts: Any, allowed: set[str]) -> None:
    """Refuse an entry that is no mapping, lacks ``impl``, has an unknown field or one of another type."""
    if not isinstance(facts, dict) or "impl" not in facts or set(facts) - allowed:
        found = ", ".join(map(str, facts)) if isinstance(facts, dict) else type(facts).__name__
        raise UserError(f"{where} needs 'impl' and may have {', '.join(sorted(allowed))}, found {found}")
    for name, value in facts.items():
        kind: type = dict if name in ("params", "test", "presets", "about") else list if name in TUPLES else str
        kind = int if name == "dim" else kind
        if not isinstance(value, kind):
            raise UserError(f"{where}: {name} must be a {KIND_NAMES[kind]}, found {value!r}")
    presets = facts.get("presets", {})
    if presets and not where.rpartition(": ")[2].startswith("heads/"):
        raise UserError(f"{where}: only heads have presets, found {', '.join(map(str, presets))}")
    for name, params in presets.items():
        if not isinstance(name, str) or name == "default" or not isinstance(params, dict):
            raise UserError(
                f"{where}: presets must map names (other than default) to parameters, found {name!r}: {params!r}"
            )


def _with_files(params: dict[str, Any], base: Path) -> dict[str, Any]:
    """The parameters with files named relative to ``base`` as absolute paths; names such as ``ppi`` stay names."""
    beside = {k: base / v for k, v in params.items() if k in FILES and isinstance(v, str) and v}
    return params | {
        k: str(p.resolve())
        for k, p in beside.items()
        if p.is_file() or (k in ("checkpoint", "encoder", "path") and p.is_dir())
    }
