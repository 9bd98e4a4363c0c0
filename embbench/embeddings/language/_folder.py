"""What a local Hugging Face folder holds: its files, and how sentence-transformers would cut, pool and scale."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embbench.cache.weights import local_folder
from embbench.core import UserError

PACKAGE = "package:"  # a model that lies inside an installed package
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZERS: tuple[tuple[str, ...], ...] = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
TOKENIZERS += tuple((name,) for name in ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model"))
SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
MODULES, LENGTHS = "modules.json", "sentence_bert_config.json"
POOLINGS = ("mean", "cls", "max")
_BPE = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", WEIGHTS[2])
_ESM = ("config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_SENTENCE = ("config.json", "tokenizer.json", "tokenizer_config.json", MODULES, "1_Pooling/config.json", WEIGHTS[0])
# What to fetch of public repositories: one layout per kind of model, and the repositories that differ.
LAYOUTS = {"sentence": _SENTENCE, "esm": (*_ESM, WEIGHTS[0]), "smiles": _BPE}
OTHERS = {
    "sentence-transformers/all-MiniLM-L6-v2": (*_SENTENCE, LENGTHS, "special_tokens_map.json", "vocab.txt"),
    "facebook/esm2_t36_3B_UR50D": (*_ESM, WEIGHTS[3], *(f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2))),
    "DeepChem/ChemBERTa-77M-MTR": (*_BPE, "tokenizer.json"),
}
_MODES = re.compile(r"pooling_mode_(\w+?)(?:_tokens?)?")  # pooling_mode_mean_tokens, pooling_mode_cls_token ...


@dataclass(frozen=True)
class Recipe:
    """Where the encoder's own files lie, and what happens before and after it.

    Parameters
    ----------
    folder : config, weights and tokenizer of the encoder.
    pooling : ``mean``, ``cls`` or ``max`` over tokens.
    normalise : whether vectors are scaled to unit length.
    max_length : most tokens of a text, special ones included; None leaves it to the model.
    lower : whether texts are put in small letters first.
    """

    folder: Path
    pooling: str = "mean"
    normalise: bool = False
    max_length: int | None = None
    lower: bool = False


def encoder_folder(encoder: str) -> Path:
    """The folder that an ``encoder`` text means, existing or not: `local_folder`, or ``package:NAME``.

    Raises
    ------
    UserError
        The package is not installed or holds no model, or the text is no checkpoint.
    """
    if not encoder.startswith(PACKAGE):
        return local_folder(encoder)
    name = encoder.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"encoder {encoder!r}: expected an installed package that holds a model, found none; "
            f"pip install {name.replace('_', '-')}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if (folder / "config.json").is_file() or (folder / MODULES).is_file():
            return folder
    raise UserError(f"encoder {encoder!r}: expected a folder with config.json in {root}, found none")


def hub_files(encoder: str, layout: str) -> tuple[str, ...]:
    """Names of the files to fetch of ``hf:org/name@revision``, of a kind of model of `LAYOUTS`.

    Examples
    --------
    >>> hub_files("hf:facebook/esm2_t6_8M_UR50D@main", "esm")[-1]
    'model.safetensors'
    """
    return OTHERS.get(encoder.removeprefix("hf:").partition("@")[0], LAYOUTS[layout])


def folder_files(folder: Path, wanted: Sequence[str] = ()) -> tuple[Path, ...]:
    """The files of a model folder that vectors depend on; ``wanted`` ones of a folder that is not there."""
    if not folder.is_dir():
        return tuple(folder / name for name in wanted)
    modules = _modules(folder) if (folder / MODULES).is_file() else []
    inner = [folder / path for path, _ in modules if path]
    home = folder / next((path for path, kind in modules if kind == "Transformer"), "")
    names = [home / name for name in (*SETTINGS, LENGTHS, *sum(TOKENIZERS, ()))]
    found = [folder / MODULES, folder / LENGTHS, *names, *(path / "config.json" for path in inner), *_weights(home)]
    return tuple(dict.fromkeys(path for path in found if path.is_file()))


def _weights(folder: Path) -> list[Path]:
    """The weight file that will be read (safetensors first), and the shards that an index names."""
    chosen = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if chosen is None or chosen.suffix != ".json":
        return [] if chosen is None else [chosen]
    shards = read_json(chosen).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{chosen}: expected a weight_map from tensors to files, found {str(shards)[:60]}")
    return [chosen, *(folder / Path(name).name for name in sorted(set(shards.values())))]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; `UserError` for anything else."""
    content = _json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}; fetch the folder again")
    return content


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: expected JSON, found: {error}; fetch the folder again") from error


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Path and kind (Transformer, Pooling, Normalize ...) of the modules of a sentence-transformers folder."""
    modules = _json(folder / MODULES)
    try:
        return [(str(module["path"]), str(module["type"]).rpartition(".")[2]) for module in modules]
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{folder / MODULES}: expected a list of modules with path and type, found {modules}"
        ) from error


def read_recipe(folder: Path, pooling: str = "auto") -> Recipe:
    """The recipe of a folder: with ``auto`` that of its modules.json (plain mean where there is none).

    With a pooling named, the folder's own pooling and scaling are not used.

    Parameters
    ----------
    folder : a folder written by transformers or by sentence-transformers (any version's layout).
    pooling : ``auto`` or one of `POOLINGS`.

    Raises
    ------
    UserError
        No such folder; no config, weights or tokenizer; a module or pooling that is not known here.
    """
    if not folder.is_dir():
        raise UserError(
            f"encoder: expected a Hugging Face folder (config.json, model.safetensors, tokenizer) at {folder}, found "
            f"{'a file' if folder.exists() else 'nothing'}; give one with encoder=FOLDER, or fetch a public one with "
            "embbench extract --model NAME"
        )
    modules = _modules(folder) if (folder / MODULES).is_file() else []
    home = folder / next((path for path, kind in modules if kind == "Transformer"), "")
    _check_files(home)
    lengths = next((read_json(p / LENGTHS) for p in (home, folder) if (p / LENGTHS).is_file()), {})
    length, lower = lengths.get("max_seq_length"), bool(lengths.get("do_lower_case", False))
    if length is not None and (not isinstance(length, int) or length < 3):
        raise UserError(f"{home / LENGTHS}: expected max_seq_length to be a number of tokens, found {length!r}")
    if pooling != "auto" or not modules:
        return Recipe(home, "mean" if pooling == "auto" else pooling, max_length=length, lower=lower)
    if strange := [kind for _, kind in modules if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise UserError(f"{folder / MODULES}: cannot apply the module {strange[0]}; say pooling=mean to leave it out")
    pooled = next((_pooling(folder / path / "config.json") for path, kind in modules if kind == "Pooling"), "mean")
    return Recipe(home, pooled, any(kind == "Normalize" for _, kind in modules), length, lower)


def _pooling(path: Path) -> str:
    """The mode of a pooling module: a name (sentence-transformers >= 5) or one flag per mode (before)."""
    facts = read_json(path)
    mode = facts.get("pooling_mode")
    flags = [found[1] for key, on in facts.items() if on is True and (found := _MODES.fullmatch(key))]
    modes = flags or ["mean"] if mode is None else [mode] if isinstance(mode, str) else mode
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in POOLINGS:
        raise UserError(f"{path}: expected pooling {', '.join(POOLINGS)}, found {modes}; say pooling=mean or cls")
    return modes[0]


def _check_files(folder: Path) -> None:
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    wanted = {
        "config.json": "config.json" in found,
        f"weights ({WEIGHTS[0]} or {WEIGHTS[2]})": any(name in found for name in WEIGHTS),
        "a tokenizer (tokenizer.json, vocab.txt, or vocab.json with merges.txt)": any(
            found.issuperset(names) for names in TOKENIZERS
        ),
    }
    if absent := [what for what, there in wanted.items() if not there]:
        raise UserError(
            f"encoder {folder}: expected {' and '.join(absent)}, found {', '.join(sorted(found)[:8]) or 'nothing'}; "
            "fetch the whole folder"
        )
    if absent := [path.name for path in _weights(folder) if not path.is_file()]:
        raise UserError(f"encoder {folder}: its index names {', '.join(absent)}, found no such file; fetch it whole")
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise UserError(
            f"{folder / 'config.json'}: expected a model_type, found {', '.join(list(config)[:6]) or 'nothing'}"
        )
    width, heads = config.get("hidden_size"), config.get("num_attention_heads", 1)
    if not isinstance(heads, int) or heads < 1 or (isinstance(width, int) and width % heads):
        raise UserError(
            f"{folder / 'config.json'}: expected num_attention_heads that divide hidden_size {width!r}, found "
            f"{heads!r}; fetch the folder again"
        )
    # the tokenizers library raises a bare Exception on bytes that are no JSON, so they are read here first
    if "tokenizer.json" in found and not isinstance(read_json(folder / "tokenizer.json").get("model"), dict):
        raise UserError(f"{folder / 'tokenizer.json'}: expected a tokenizer with a model, found none; fetch it again")
