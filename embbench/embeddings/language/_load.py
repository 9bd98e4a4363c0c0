"""A transformers encoder from a local folder: nothing at random, no code of the folder run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embbench.cache.vetting import DAMAGED
from embbench.core import UserError
from embbench.embeddings.language._folder import Recipe

LENGTH = 512  # tokens, where neither model nor tokenizer says how many they take
UNLIMITED = 1_000_000  # tokenizers without a limit say 1e30
HEADLESS = ("pooler.", "contact_head.")  # parts that no vector here is read from; may be absent
BUFFERS = ("position_ids", "inv_freq")  # constants that old versions saved


def load(folder: Path, types: Sequence[str] = ()) -> tuple[Any, Any]:
    """Tokenizer and model of a local folder, every weight of the encoder read from it and none left over.

    No code of the folder runs: no remote code, safetensors or ``weights_only``.

    Parameters
    ----------
    folder : config, weights and tokenizer, see `read_recipe`.
    types : accepted ``model_type`` values, () for any encoder.

    Raises
    ------
    UserError
        Another kind of model, a damaged or unsafe file, a missing, extra or misshapen weight.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    safe = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # parts without weights (pooler) are drawn at random
            config = AutoConfig.from_pretrained(folder, **options)
            if (types and config.model_type not in types) or getattr(config, "is_encoder_decoder", False):
                wanted = f"a model of type {', '.join(types)}" if types else "an encoder"
                raise UserError(f"encoder {folder}: expected {wanted}, found model_type {config.model_type!r}")
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model, info = AutoModel.from_pretrained(
                folder,
                config=config,
                use_safetensors=safe,
                weights_only=True,
                ignore_mismatched_sizes=True,  # they are refused below, with their names
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        # tokenizers raises bare ones on a damaged vocabulary; what is neither that nor damage goes on as it is
        if isinstance(error, (*DAMAGED, SafetensorError, StrictDataclassError)) or type(error) is Exception:
            raise UserError(f"encoder {folder}: cannot be loaded: {_reason(error)}; fetch the folder again") from error
        raise
    _check_weights(folder, model, info)
    return tokenizer, model


def _reason(error: Exception) -> str:
    """What went wrong, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith(("Weights only", "Unable to load weights")):  # torch goes on to say how to run its code
        return "its weights are no file of tensors alone; a pickle could run code and is not read"
    return " ".join(lines[:2])[:300]


def _check_weights(folder: Path, model: Any, info: dict[str, Any]) -> None:
    """Refuse weights that the encoder lacks or has no place for; heads on top of it may be there."""
    parts = {name for name, _ in model.named_children()}
    missing, extra = (
        sorted(str(key).removeprefix(f"{model.base_model_prefix}.") for key in info[which])
        for which in ("missing_keys", "unexpected_keys")
    )
    missing = [key for key in missing if not key.startswith(HEADLESS) and not key.endswith(BUFFERS)]
    extra = [key for key in extra if key.partition(".")[0] in parts and not key.endswith(BUFFERS)]
    for what, keys in (("lacks", missing), ("does not fit the config: it also has", extra)):
        if keys:
            shown = ", ".join(keys[:3])
            raise UserError(
                f"encoder {folder}: the checkpoint {what} {len(keys)} weights of the {model.config.model_type} encoder "
                f"({shown}{', ...' if len(keys) > 3 else ''}); fetch the folder again"
            )
    for key, found, expected in sorted(info["mismatched_keys"], key=str):
        raise UserError(
            f"encoder {folder}: expected {key} of shape {tuple(expected)} as config.json says, found {tuple(found)} "
            f"({len(info['mismatched_keys'])} weights do not fit); fetch the folder again"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars, reports and warnings off the screen; its settings are put back."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():  # torch remarks on the protocol of pickles
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def special_tokens(tokenizer: Any, folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens that the tokenizer puts before and after a text, learnt from one letter; `UserError`: it eats it."""
    bare = tokenizer("A", add_special_tokens=False)["input_ids"]
    whole = tokenizer("A")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    raise UserError(f"encoder {folder}: its tokenizer turns 'A' into {bare}, with special tokens into {whole}")


def capacity(model: Any, tokenizer: Any, recipe: Recipe) -> int:
    """Most tokens of a sequence, special ones included: the smallest of what folder, tokenizer and model say."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    limits = [recipe.max_length, tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None]
    if table is not None and hasattr(table, "num_embeddings"):
        # RoBERTa's kind counts positions from the padding number on: 514 rows hold 512 tokens
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    else:
        limits.append(getattr(model.config, "max_position_embeddings", None))
    return min((limit for limit in limits if limit), default=LENGTH)
