"""PerturBench's decoder without the perturbation: what context, context vector and dose alone say."""

from __future__ import annotations

from embbench.heads._perturbench import DecoderHead


class CovariateOnly(DecoderHead):
    """``covariate_only`` of PerturBench: x = softplus(D(c)), with c the one-hot context with context vector and dose.

    It needs no embedding: what beats it has learned something of perturbations. Trained as
    `embbench.heads._perturbench.PerturbenchHead` says: on cells where the screen has them, else on control mean plus
    effect. All cells of a condition get one prediction, so a population is control cells moved by the predicted effect.

    Parameters
    ----------
    As in `embbench.heads._perturbench.DecoderHead`.

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609, appendix on baselines (Decoder Only without perturbations).

    Examples
    --------
    >>> CovariateOnly(layers=0)
    Traceback (most recent call last):
    ValueError: CovariateOnly: layers must be a whole number >= 1, got 0
    """

    needs_embedding = False
