"""An embedding with its names shuffled: same geometry, no information; what every embedding must beat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset
from embbench.embeddings._rows import generator


class Permuted(ExtractorDefaults):
    """The vectors of the covered names, dealt out again among the covered names.

    Coverage is untouched: names are shuffled among names that have vectors in the same contexts, with one permutation
    of names for all contexts. Only when every such group has a single name are all names shuffled together, and a
    (name, context) whose donor has no vector there is absent.

    Parameters
    ----------
    of : the embedding to permute.
    draw : number of the permutation, >= 0.

    References
    ----------
    Fisher (1935), The Design of Experiments, section 21: the permutation test, with names as labels.
    """

    entity = "any"
    names_matter = True

    def __init__(self, of: Embedding, draw: int = 0) -> None:
        if not isinstance(of, Embedding):
            raise ValueError(f"Permuted: of must be an Embedding, got {type(of).__name__}; compute the embedding first")
        if draw < 0:
            raise ValueError(f"Permuted: draw must be >= 0, got {draw}")
        self.of, self.draw = of, int(draw)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors, shape (m, d), of the covered ``names`` (None: all names of the embedding); ``train`` is not read.

        Returns
        -------
        Embedding with as many rows as ``of`` has for these names; never the identity when two names are covered.

        Examples
        --------
        >>> table = Embedding(np.array(["A", "B"]), np.array([[1.0], [2.0]], np.float32))
        >>> Permuted(table).compute(["A", "B"], None).matrix.ravel().tolist()
        [2.0, 1.0]
        """
        wanted = None if names is None else set(names)
        rows_of: dict[str, dict[str, int]] = defaultdict(dict)
        contexts = [""] * len(self.of.names) if self.of.contexts is None else self.of.contexts.tolist()
        for row, (name, context) in enumerate(zip(self.of.names.tolist(), contexts, strict=True)):
            if wanted is None or name in wanted:
                rows_of[name][context] = row
        donor = self._donors(rows_of)
        pairs = [
            (row, rows_of[donor[name]][context])
            for name, rows in rows_of.items()
            for context, row in rows.items()
            if context in rows_of[donor[name]]
        ]
        kept, source = (
            np.array(column, dtype=np.int64) for column in (zip(*pairs, strict=True) if pairs else ((), ()))
        )
        return Embedding(
            self.of.names[kept],
            self.of.matrix[source],
            self.of.entity,
            None if self.of.contexts is None else self.of.contexts[kept],
            {**self.of.provenance, "permuted": True, "draw": self.draw},
        )

    def _donors(self, rows_of: dict[str, dict[str, int]]) -> dict[str, str]:
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in sorted(rows_of):
            groups[tuple(sorted(rows_of[name]))].append(name)
        members = list(groups.values())
        if all(len(group) == 1 for group in members):
            members = [sorted(rows_of)]
        donor: dict[str, str] = {}
        for number, group in enumerate(members):
            order = np.arange(len(group))
            stream = generator("permuted", self.draw, number, *group)
            while len(group) > 1 and (order == np.arange(len(group))).all():
                order = stream.permutation(len(group))
            donor.update(zip(group, (group[i] for i in order), strict=True))
        return donor
