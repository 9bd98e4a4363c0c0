"""One column per context: tells contexts apart and says nothing about an unseen one."""

from __future__ import annotations

from embbench.embeddings.onehot import OneHot


class ContextOneHot(OneHot):
    """Unit vectors of context names (see `OneHot`)."""

    entity = "context"
