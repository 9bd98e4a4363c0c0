"""PerturBench's decoder: perturbation and covariates to expression, without a look at the control cell."""

from __future__ import annotations

from embbench.heads._perturbench import DecoderHead


class DecoderOnly(DecoderHead):
    """``decoder_only`` of PerturBench: x = softplus(D([p; c])), with p the embedding (the one-hot form is ``--emb
    onehot``) and c the one-hot context with context vector and dose.

    Trained as `embbench.heads._perturbench.PerturbenchHead` says: on cells where the screen has them, else on control
    mean plus effect. All cells of a condition get one prediction, so a population is control cells moved by the
    predicted effect, as for every head of means.

    Parameters
    ----------
    As in `embbench.heads._perturbench.DecoderHead`.

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609, appendix on baselines (Decoder Only).

    Examples
    --------
    >>> DecoderOnly(dropout=1)
    Traceback (most recent call last):
    ValueError: DecoderOnly: dropout must be in [0, 1), got 1
    """
