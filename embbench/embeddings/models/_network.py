"""What most networks answer alike; see `embbench.embeddings.models._run.Network` for all that a network offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class NetworkDefaults:
    """A stack of ``blocks`` read at its end, that is fed the genes a cell expresses, on any scale of counts."""

    blocks: Sequence[Any]
    everything: ClassVar[bool] = False
    needs_depth: ClassVar[bool] = False
    collapse: ClassVar[bool] = False

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)

    @property
    def default_layer(self) -> int:
        """The last layer."""
        return self.layers

    @property
    def inner(self) -> int:
        """Width inside the position-wise map."""
        return int(self.blocks[0].up.weight.shape[0])
