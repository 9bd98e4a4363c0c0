"""What AIDO.Cell and scFoundation share: a fixed list of genes, depth tokens, values embedded by a learned lookup."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.cache.home import home
from embbench.cache.weights import is_remote, local_file
from embbench.core import UserError
from embbench.embeddings.models._model import CellModel

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._layers import Linear
    from embbench.embeddings.models._panel import Panel
    from embbench.embeddings.models._run import Network

GENE_LIST = "OS_scRNA_gene_index.19264.tsv"
GENE_LIST_URL = (
    "https://raw.githubusercontent.com/biomap-research/scFoundation/"
    f"d09626a5c1bc30b9c6227378677b61e0b987fe8b/{GENE_LIST}"
)
SCALE = 1e4  # counts that a cell is scaled to
SLOPE = 0.1  # of the leaky rectifier in the value embedding
DEPTH_TOKENS = 2
AVERAGES = ("all", "data", "expressed")
TOTALS = ("aligned", "whole")


class DepthModel(CellModel):
    """A model that is fed every gene of one published list, in its order, and two numbers of sequencing depth.

    Parameters
    ----------
    checkpoint, level : see `CellModel`.
    genes : file of the list (tab-separated ``gene_name``, ``index``) or its address; None looks in the checkpoint's
        folder, then in ``$EMBBENCH_HOME/weights``, then where ``embbench extract`` puts it.
    average : rows that a contextual gene vector is the mean of: ``all``: every gene in every cell, those which the
        screen does not measure are fed as 0 and have vectors too; ``data``: measured genes in every cell;
        ``expressed``: measured genes in the cells with a count.
    total : counts of a cell: ``aligned``, of the genes in the list (as the official code), or ``whole``, of the whole
        cell also where the screen holds a panel of its genes.
    run : see `CellModel`.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        genes: str | None = None,
        average: str = "all",
        total: str = "aligned",
        **run: Any,
    ) -> None:
        super().__init__(checkpoint, level, **run)
        if average not in AVERAGES or total not in TOTALS:
            name = type(self).__name__
            raise ValueError(f"{name}: average of {AVERAGES} and total of {TOTALS}, got {average!r} and {total!r}")
        self.genes = None if genes is None else str(genes)
        self.average, self.total = average, total

    def gene_list(self) -> Path:
        """The file of the gene list, existing or not."""
        if self.genes is not None:
            return local_file(self.genes) if is_remote(self.genes) else Path(self.genes).expanduser()
        places = (self.folder() / GENE_LIST, home("weights", GENE_LIST), local_file(GENE_LIST_URL))
        return next((path for path in places if path.is_file()), places[-1])

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on: weights, configuration, gene list."""
        return (*super().files(), self.gene_list())

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The checkpoint and the gene list, unless a file of it is in place or the user's own weights are not."""
        source, path = GENE_LIST_URL if self.genes is None else self.genes, self.gene_list()
        offered = is_remote(source) and path == local_file(source)
        if self.checkpoint is not None and not is_remote(self.checkpoint):
            offered = offered and all(file.is_file() for file in self.files() if file != path)
        return (*super().fetched(), *([(source, ())] if offered else []))

    def network(self) -> Network:
        """The loaded network.

        Raises
        ------
        UserError
            Weights or the gene list are missing (says how to get them) or are not what was published.
        """
        path = self.gene_list()
        if not path.is_file() and all(file.is_file() for file in self.files() if file != path):
            raise UserError(
                f"{self.title}: no gene list {path}. It is a file of scFoundation's repository (Apache-2.0), "
                f"{GENE_LIST_URL}: embbench extract --model {self.title} fetches it; or put it beside the weights or "
                f"into {home('weights')}, or give genes=FILE"
            )
        return super().network()


def read_genes(path: Path) -> tuple[str, ...]:
    """Names of the gene list in its order.

    Raises
    ------
    UserError
        Not two columns ``gene_name`` and ``index`` with the numbers 0, 1, 2 ..., or a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected the gene list {GENE_LIST}, unreadable: {error}; fetch it again") from error
    rows = [line.split("\t") for line in lines if line]
    if len(rows) < 2 or rows[0] != ["gene_name", "index"]:
        found = lines[0][:60] if lines else "an empty file"
        raise UserError(f"{path}: expected the columns gene_name and index of {GENE_LIST}, found {found!r}")
    wrong = next((i for i, row in enumerate(rows[1:]) if len(row) != 2 or row[1] != str(i)), None)
    if wrong is not None:
        raise UserError(f"{path}: expected gene number {wrong} in line {wrong + 2}, found {rows[wrong + 1]}")
    names = tuple(row[0] for row in rows[1:])
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"{path}: expected every gene once, found {twice!r} again; fetch it again")
    return names


def check_rows(t: Tensors, key: str, more: int, genes: int) -> None:
    """`UserError` unless the table of positions has one row per gene of the list and ``more`` others."""
    rows = t.shape(key)[0]
    if rows != genes + more:
        raise UserError(
            f"{t.path}: {key} has {rows} rows, {rows - more} genes and {more} others; the gene list has {genes} genes. "
            f"Give {t.what} the list that it was trained with ({GENE_LIST})"
        )


def expression(panel: Panel, i: int, total: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Genes of cell ``i`` by ascending number, ``ln(1 + 1e4 count / total)``, and the total; an empty cell has none.

    Parameters
    ----------
    panel : see `Panel`.
    i : the cell.
    total : see `DepthModel`.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> from embbench.embeddings.models._panel import Panel
    >>> cells = Panel(csr_matrix([[3.0, 0, 1]]), np.array([7, 8, 2]), np.array([8.0]))
    >>> expression(cells, 0, "whole")[0].tolist(), expression(cells, 0, "aligned")[2]
    ([2, 7], 4.0)
    """
    gene, value = panel.cell(i)
    order = np.argsort(gene, kind="stable")
    gene, value = gene[order].astype(np.int64), value[order].astype(np.float64)
    depth = float(value.sum() if total == "aligned" else panel.total[i])
    return gene, np.log1p(SCALE * value / depth).astype(np.float32), depth


def labels(panel: Panel, genes: int, seen: np.ndarray, average: str) -> np.ndarray:
    """The gene of each row that counts in the means, else -1, shape (genes + 2,); ``seen`` are those expressed."""
    counted = {"all": np.arange(genes), "data": panel.index, "expressed": seen}[average]
    label = np.full(genes + DEPTH_TOKENS, -1, dtype=np.int64)
    label[counted] = counted
    return label


@dataclass(frozen=True)
class ValueEmbedding:
    """Numbers as mixtures of learned rows ("auto-discretisation").

    ``v = softmax(alpha u + W2 u + b2) E`` with ``u = leaky_relu(w1 x + b1)`` (Gong et al. 2023, xTrimoGene,
    arXiv:2311.15156, section 4; Hao et al. 2024, Nature Methods 21, 1481-1491, "Embedding module").
    """

    first: Linear
    second: Linear
    table: Tensor
    alpha: float

    def __call__(self, x: Tensor) -> Tensor:
        """Vectors of shape (b, n, d) of values (b, n), in float32 whatever the precision of the layers."""
        import torch
        from torch.nn import functional

        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round counts to 3 digits
            u = functional.leaky_relu(self.first(x[..., None]), SLOPE)
            return functional.softmax(self.second(u).add_(u, alpha=self.alpha), dim=-1) @ self.table


def value_embedding(t: Tensors, keys: tuple[str, str, str], width: int, config: dict[str, Any]) -> ValueEmbedding:
    """The value embedding of a checkpoint.

    Parameters
    ----------
    t, keys : the checkpoint; prefixes of the two maps and of the table.
    width : of the vectors.
    config : ``bin_num`` (compared with the table where given) and ``bin_alpha``.

    Raises
    ------
    UserError
        A tensor is missing or of another shape.
    """
    from embbench.embeddings.models._layers import linear

    table = t.take(f"{keys[2]}.weight", config.get("bin_num"), width)
    bins = int(table.shape[0])
    return ValueEmbedding(
        linear(t, keys[0], bins, 1), linear(t, keys[1], bins, bins), table, number(config, "bin_alpha", 1.0, t)
    )


def number(config: dict[str, Any], key: str, default: float, t: Tensors) -> float:
    """A number of a configuration, or the published code's default where it is left out; `UserError`: no number."""
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise t.error(f"expected a number as {key} of its configuration, found {value!r}")
    return float(value)


def masked_mean(rows: Tensor, kept: Tensor) -> Tensor:
    """Mean of shape (b, d), float32, of the kept (b, n) rows of (b, n, d), without a copy of all rows."""
    import torch

    with torch.autocast(rows.device.type, enabled=False):
        weight = kept.float()
        return (weight[:, None] @ rows.float())[:, 0] / weight.sum(1, keepdim=True)


def positive(sizes: dict[str, Any], path: Path, what: str) -> dict[str, int]:
    """The sizes of a configuration; `UserError`: one is missing or no positive integer."""
    wrong = {k: v for k, v in sizes.items() if not isinstance(v, int) or isinstance(v, bool) or v < 1}
    if wrong:
        raise UserError(f"{path}: expected positive integers, found {wrong}; is it {what}? download the folder again")
    return sizes
