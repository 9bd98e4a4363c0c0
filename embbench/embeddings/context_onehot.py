"""One column per context: tells contexts apart and says nothing about an unseen one."""

from __future__ import annotations

from embbench.embeddings.onehot import OneHot


class ContextOneHot(OneHot):
    """Unit vectors of context names (see `OneHot`): dummy variables (Hastie et al. 2009, section 2.3).

    Examples
    --------
    >>> ContextOneHot().compute(["K562", "A549"], None).matrix.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    entity = "context"
