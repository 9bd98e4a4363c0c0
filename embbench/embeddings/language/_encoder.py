"""Sequences of tokens to vectors with a transformers encoder: strict loading, trimmed batches, pooling, windows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from embbench.cache.weights import status
from embbench.core import ExtractorDefaults, UserError
from embbench.embeddings.language._folder import POOLINGS, Recipe, encoder_folder, folder_files, hub_files, read_recipe
from embbench.embeddings.language._load import capacity, load, special_tokens

PRECISIONS = ("float32", "bfloat16")
BATCH_TOKENS = 16384  # padded tokens of a batch: attention of 16 sequences of 1,024 tokens stays below 2 GB


class EncoderParameters(ExtractorDefaults):
    """The common part of extractors that run a transformers encoder.

    Parameters
    ----------
    encoder : a folder, ``hf:org/name@revision``, or ``package:NAME`` for a model inside an installed package.
    pooling : ``mean``, ``cls``, ``max`` over tokens; ``auto`` follows the folder's modules.json, else mean.
    layer : None for the output, else a hidden state: 0 the input embeddings, k after layer k, -1 the last.
    window : most tokens at a time without the special ones; None is what the model takes.
    batch : most sequences at a time.
    device : ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    precision : ``float32``, or ``bfloat16`` for autocast (weights and sums stay float32).

    Examples
    --------
    >>> EncoderParameters("./MiniLM", pooling="sum")
    Traceback (most recent call last):
    ValueError: EncoderParameters: pooling must be one of auto, mean, cls, max, got 'sum'
    """

    unkeyed: ClassVar[frozenset[str]] = frozenset({"batch", "device"})
    layout: ClassVar[str] = "sentence"  # of `LAYOUTS`

    def __init__(
        self,
        encoder: str,
        pooling: str = "auto",
        layer: int | None = None,
        window: int | None = None,
        batch: int = 64,
        device: str = "auto",
        precision: str = "float32",
    ) -> None:
        who = type(self).__name__
        if pooling not in ("auto", *POOLINGS):
            raise ValueError(f"{who}: pooling must be one of auto, {', '.join(POOLINGS)}, got {pooling!r}")
        if precision not in PRECISIONS:
            raise ValueError(f"{who}: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(device)):
            raise ValueError(f"{who}: device must be auto, cpu, cuda, cuda:N or mps, got {device!r}")
        for name, value, least in (("batch", batch, 1), ("window", window, 2), ("layer", layer, None)):
            whole = isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
            if not whole and (value is not None or name == "batch"):
                raise ValueError(f"{who}: {name} must be an integer{f' >= {least}' if least else ''}, got {value!r}")
        self.encoder, self.pooling, self.layer, self.window = str(encoder), pooling, layer, window
        self.batch, self.device, self.precision = batch, device, precision

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the encoder's files in its repository: what to fetch of an ``hf:`` encoder."""
        return hub_files(self.encoder, self.layout)

    def encoder_files(self) -> tuple[Path, ...]:
        """The files of the encoder that vectors depend on."""
        return folder_files(encoder_folder(self.encoder), self.wanted)

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Where the encoder comes from: (encoder, files) to fetch when it is remote."""
        return ((self.encoder, self.wanted),) if self.encoder.startswith("hf:") else ()

    def open(self, *, specials: bool = True, types: Sequence[str] = ()) -> Encoder:
        """The loaded encoder.

        Parameters
        ----------
        specials : whether pooling counts the special tokens (CLS, SEP), as sentence-transformers does.
        types : the ``model_type`` values that make sense here; () takes any encoder.

        Raises
        ------
        UserError
            The folder, a device or the layer does not exist; the folder is incomplete, damaged or of another model.
        """
        import torch

        if self.encoder.startswith("hf:") and (found := status(self.encoder, self.wanted)) != "ready":
            raise UserError(
                f"encoder {self.encoder}: {found}; embbench extract --model NAME fetches what is public, or give a "
                "folder of your own with encoder=FOLDER"
            )
        recipe = read_recipe(encoder_folder(self.encoder), self.pooling)
        tokenizer, model = load(recipe.folder, types)
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        try:
            model = model.float().to(name).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"device {name!r} cannot be used ({reason}); say device=cpu or auto") from error
        layers = getattr(model.config, "num_hidden_layers", 0)
        if self.layer is not None and not -layers - 1 <= self.layer <= layers:
            raise UserError(f"encoder {recipe.folder}: expected a layer from 0 to {layers}, found {self.layer}")
        return Encoder(self, recipe, tokenizer, model, specials=specials)


class Encoded(NamedTuple):
    """Vectors (m, d), float32, and JSON-able facts: what was cut, split or pooled, and how."""

    matrix: np.ndarray
    facts: dict[str, Any]


class Encoder:
    """A loaded model with its tokenizer: `tokens` of a text, `encode` for the vectors of token sequences.

    Parameters
    ----------
    settings, recipe : see `EncoderParameters` and `Recipe`.
    tokenizer, model : as `load` gives them.
    specials : whether pooling counts special tokens.
    """

    def __init__(
        self, settings: EncoderParameters, recipe: Recipe, tokenizer: Any, model: Any, *, specials: bool
    ) -> None:
        self.settings, self.recipe, self.tokenizer, self.model = settings, recipe, tokenizer, model
        self.specials = specials
        self.prefix, self.suffix = special_tokens(tokenizer, recipe.folder)
        if recipe.pooling == "cls" and not self.prefix:
            raise UserError(f"encoder {recipe.folder}: pooling cls needs a first special token, found none; say mean")
        most = capacity(model, tokenizer, recipe) - len(self.prefix) - len(self.suffix)
        if settings.window is not None and settings.window > most:
            raise UserError(f"encoder {recipe.folder}: takes at most {most} tokens, found window {settings.window}")
        self.room = most if settings.window is None else settings.window

    @property
    def said(self) -> str:
        """The encoder as the user said it, of a path its last part."""
        text = self.settings.encoder
        return text if ":" in text.partition("/")[0] else Path(text).name

    def tokens(self, text: str) -> list[int]:
        """Token numbers of a text, without special tokens, of any length."""
        text = text.strip().lower() if self.recipe.lower else text.strip()
        return list(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def encode(self, sequences: Sequence[Sequence[int]], *, windows: bool = False, overlap: int = 0) -> Encoded:
        """Vectors of token sequences, each non-empty.

        A sequence of more than `room` tokens is cut there, or with ``windows`` split: its vector is the mean over
        windows weighted by their tokens (``max``: the maximum over windows). Equal pieces are computed once, in batches
        of similar length, so nothing depends on the order asked for.

        Parameters
        ----------
        sequences : m lists of token numbers.
        windows : split instead of cut.
        overlap : tokens that neighbouring windows share.

        Raises
        ------
        UserError
            A token that the model does not have, or a vector that is not finite.
        """
        table = self.model.get_input_embeddings()
        if (top := max((max(ids) for ids in sequences), default=0)) >= table.num_embeddings:
            raise UserError(
                f"encoder {self.recipe.folder}: expected tokens below {table.num_embeddings}, found {top}; its "
                "tokenizer is that of another model"
            )
        if overlap >= self.room:
            raise UserError(f"overlap must be smaller than the window of {self.room} tokens, found {overlap}")
        owned: list[list[tuple[int, ...]]] = []
        for ids in sequences:
            starts = window_starts(len(ids), self.room, overlap) if windows else [0]
            owned.append([tuple(ids[start : start + self.room]) for start in starts])
        pieces = sorted({piece for own in owned for piece in own}, key=lambda piece: (len(piece), piece))
        vectors = dict(zip(pieces, self._vectors(pieces), strict=True))
        joined = [self._join(own, vectors) for own in owned]
        matrix = np.stack(joined) if joined else np.zeros((0, table.embedding_dim))
        if not np.isfinite(matrix).all():
            raise UserError(
                f"encoder {self.recipe.folder}: expected finite vectors, found others; are weights damaged?"
            )
        if self.recipe.normalise:
            matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
        long = sum(len(ids) > self.room for ids in sequences)
        facts = {"pooling": self.recipe.pooling, "normalised": self.recipe.normalise, "max_tokens": self.room}
        facts |= {"truncated": 0 if windows else long, "windowed": long if windows else 0, "overlap": overlap}
        facts |= {"layer": self.settings.layer, "precision": self.settings.precision, "device": self.model.device.type}
        return Encoded(matrix.astype(np.float32), facts)

    def unknown(self, sequences: Sequence[Sequence[int]]) -> int:
        """How many tokens the vocabulary does not hold."""
        return sum(list(ids).count(self.tokenizer.unk_token_id) for ids in sequences)

    def _join(self, pieces: list[tuple[int, ...]], vectors: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
        parts = np.stack([vectors[piece] for piece in pieces]).astype(np.float64)
        if self.recipe.pooling == "max":
            return parts.max(axis=0)
        return np.average(parts, axis=0, weights=[len(piece) for piece in pieces])

    def _vectors(self, pieces: list[tuple[int, ...]]) -> Iterator[np.ndarray]:
        extra = len(self.prefix) + len(self.suffix)
        batch: list[tuple[int, ...]] = []
        for piece in pieces:
            full = (len(piece) + extra) * (len(batch) + 1) > BATCH_TOKENS or len(batch) == self.settings.batch
            if batch and full:
                yield from self._forward(batch)
                batch = []
            batch.append(piece)
        if batch:
            yield from self._forward(batch)

    def _forward(self, pieces: list[tuple[int, ...]]) -> np.ndarray:
        """Pooled vectors (b, d), float32, of one batch, padded on the right to its longest piece."""
        import torch

        rows = [(*self.prefix, *piece, *self.suffix) for piece in pieces]
        length = torch.tensor([len(row) for row in rows])
        pad = self.tokenizer.pad_token_id or 0
        width = len(rows[-1])
        ids = torch.tensor([row + (pad,) * (width - len(row)) for row in rows])
        mask = torch.arange(width)[None] < length[:, None]
        kind, layer = self.model.device, self.settings.layer
        with torch.inference_mode(), torch.autocast(kind.type, torch.bfloat16, self.settings.precision == "bfloat16"):
            out = self.model(
                input_ids=ids.to(kind), attention_mask=mask.long().to(kind), output_hidden_states=layer is not None
            )
            hidden = (out.last_hidden_state if layer is None else out.hidden_states[layer]).float()
            return self._pool(hidden, mask.to(kind), length.to(kind)).cpu().numpy()

    def _pool(self, hidden: Any, mask: Any, length: Any) -> Any:
        import torch

        if self.recipe.pooling == "cls":
            return hidden[:, 0]
        inside = mask
        if not self.specials:
            place = torch.arange(mask.shape[1], device=mask.device)[None]
            inside = (place >= len(self.prefix)) & (place < (length - len(self.suffix))[:, None])
        if self.recipe.pooling == "max":
            return hidden.masked_fill(~inside[..., None], -torch.inf).amax(dim=1)
        return hidden.masked_fill(~inside[..., None], 0.0).sum(dim=1) / inside.sum(dim=1, keepdim=True)


def window_starts(length: int, window: int, overlap: int = 0) -> list[int]:
    """Where windows begin: every ``window - overlap`` tokens, the last moved back to end with the sequence.

    Examples
    --------
    >>> window_starts(10, 10), window_starts(10, 4, 1), window_starts(9, 4)
    ([0], [0, 3, 6], [0, 4, 5])
    """
    last = max(length - window, 0)
    return [*range(0, last, window - overlap), last]
