"""scFoundation: static, contextual gene and cell vectors from the published checkpoint (models.ckpt)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from embbench.cache.weights import local_file
from embbench.core import UserError
from embbench.embeddings.models._depth import GENE_LIST_URL, DepthModel, read_genes

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._scfoundation import Network

VERSIONS = ("cell", "gene", "rde")
READOUTS = ("all", "max")
TARGET = re.compile(r"(?P<kind>[taf])(?P<number>-?\d+(\.\d+)?)")


class ScFoundation(DepthModel):
    """scFoundation (Hao et al. 2024): an encoder of the expressed genes and a decoder of all 19,264.

    ``x = ln(1 + 1e4 count / total)``, then the tokens T (depth aimed at) and S (``log10 total``). Encoder: post-norm
    layers over expressed genes, T and S, from ``V(x) + P[gene]``. Decoder: the encoder's states where there are such,
    else ``V(0)``, plus ``P``, in performer layers over all positions. Static vectors are ``P``; contextual ones are
    decoder states; the cell vector joins the encoder's S and T states and the maximum and mean over genes.

    Parameters
    ----------
    checkpoint, level, layer, mode, cells, seed, metacells, precision, device, batch : see `CellModel`. ``layer`` counts
        decoder layers for level=gene and encoder layers for level=cell.
    genes, average, total : see `DepthModel`.
    version : entry of the checkpoint: ``cell``, ``gene`` or ``rde`` (read-depth enhancement); None is ``cell`` for
        level=cell and ``gene`` else, as the official code.
    target : T: ``t4`` is 4, ``a0.5`` is S + 0.5, ``f2`` is ``log10(2 total)``.
    readout : cell vector: ``all`` (S, T, maximum, mean) or ``max`` (maximum over all tokens).
    together : cells over whose keys the decoder lowers its exponents by one maximum. 1: each cell by itself, so that
        cells do not move one another; N: the official ``gene_batch`` mode with N cells (sets ``batch`` to N), which
        moves results by up to 1e-3.

    Notes
    -----
    Departs from the official code where that has no answer or none that means S and T: T and S are fed to the encoder
    whatever their value (S is 0 at a total of 1), S of an empty cell is 0, and its maximum and mean are of T and S.

    References
    ----------
    Hao et al. (2024), Nature Methods 21, 1481-1491, "Embedding module", "Encoder", "Decoder".

    Examples
    --------
    >>> ScFoundation(level="cell", target="a0.5").entry
    'cell'
    """

    title: ClassVar[str] = "scfoundation"
    wanted: ClassVar[tuple[str, ...]] = ("models.ckpt",)
    where: ClassVar[str] = (
        "Download models.ckpt, linked in model/README.md of github.com/biomap-research/scFoundation (weights for "
        f"non-commercial research), or take hf:genbio-ai/scFoundation@main; the list of its genes is {GENE_LIST_URL}"
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        version: str | None = None,
        target: str = "t4",
        readout: str = "all",
        together: int = 1,
        **more: Any,
    ) -> None:
        super().__init__(checkpoint, level, **more)
        for label, value, allowed in (("version", version or "cell", VERSIONS), ("readout", readout, READOUTS)):
            if value not in allowed:
                raise ValueError(f"ScFoundation: {label} must be one of {', '.join(allowed)}, got {value!r}")
        found = TARGET.fullmatch(str(target))
        if found is None or (found["kind"] == "f" and float(found["number"]) <= 0):
            raise ValueError(f"ScFoundation: target must be such as t4, a0.5 or f2 (f above 0), got {target!r}")
        if not isinstance(together, int) or isinstance(together, bool) or together < 1:
            raise ValueError(f"ScFoundation: together must be an integer >= 1, got {together!r}")
        self.entry = version or ("cell" if level == "cell" else "gene")
        self.target, self.readout, self.together = (found["kind"], float(found["number"])), readout, together
        if together > 1:
            self.batch = together

    def weights(self) -> Path:
        """The checkpoint file, existing or not."""
        name = self.wanted[0]
        return self.folder() / name if self.checkpoint is None else local_file(self.checkpoint, name)

    def files(self) -> tuple[Path, ...]:
        """The checkpoint and the gene list."""
        return (self.weights(), self.gene_list())

    def load(self, folder: Path) -> Network:
        """The chosen entry of the checkpoint; every tensor of it is checked."""
        from embbench.embeddings.models._checkpoint import Tensors
        from embbench.embeddings.models._scfoundation import UNUSED, Choices, network

        path = self.weights()
        config, state = _entry(path, self.entry)
        t = Tensors("scFoundation", path, state).ignore("model.to_final.").strip("model.").ignore(*UNUSED)
        choices = Choices(self.level != "cell", self.target, self.readout, self.together > 1, self.average, self.total)
        return network(t, read_genes(self.gene_list()), config, choices)


def _entry(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration of the network, and tensors, of one of the models in the file; the others are not read."""
    import torch

    from embbench.embeddings.models._lightning import read_parts
    from embbench.embeddings.models._tensors import describe, few

    entry = read_parts(path, (name,)).get(name)
    if not isinstance(entry, dict) or not isinstance(state := entry.get("state_dict"), dict):
        raise UserError(f"{path}: expected the model {name!r} with a state_dict, found {describe(entry)}")
    if odd := [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)]:
        raise UserError(f"{path}: expected tensors in {name!r}, found others at {few(odd)}")
    config: Any = entry.get("config")
    kind = config.get("model") if isinstance(config, dict) else None
    for key in ("model_config", "mae_autobin"):
        config = config.get(key) if isinstance(config, dict) else None
    if kind != "mae_autobin" or not isinstance(config, dict):
        raise UserError(f"{path}: expected the configuration of a mae_autobin in {name!r}, found {describe(entry)}")
    return config, state
