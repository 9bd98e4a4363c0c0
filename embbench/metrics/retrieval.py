"""Rank of the true condition: does a prediction single its own condition out, 0 best, 0.5 chance or collapse, 1 worst.

Both directions are computed within a context, over its n tested conditions:

- by prediction: prediction i against the truths j at distance S_ij,
  ``rank_i = (#{j: S_ij < S_ii} + #{j != i: S_ij = S_ii} / 2) / (n - 1)``;
- by truth: truth i against the predictions j, the same with ``S_ij`` = distance of prediction j to truth i.

The genes scored are those of row i (its own targets left out of all its distances in the ``notarget`` form) that are
observed for both. Two distances that differ by less than the float32 resolution of the stored vectors are tied. With
``ties=order``, the packages' form, only those are that float64 sums cannot tell apart: a sort tells the others apart.

What a collapsed predictor (equal predictions for all conditions) gets, with mid ranks and n - 1:

- by truth exactly 0.5 in every row, in every gene set: all distances of a row are tied;
- by prediction, all genes, everything observed: exactly 0.5 on average over the rows of a context. All rows see the
  same distances to the truths, so of a pair of truths one is closer in both rows, or both are tied: the pair adds 1 to
  the sum of n (n - 1) / 2 pairs;
- by prediction without the targets, or with unobserved entries: *not* 0.5. Row i leaves its own knock-down out, so
  its own truth looks nearer than the others, whose knock-downs stay: a collapsed predictor scores below 0.5, better
  than chance, in screens whose largest effects are the targets themselves. cell-eval's discrimination score has this
  bias too. ``genes_of=pair`` (the registered ``by_prediction_notarget``; the other is ``own_by_prediction_notarget``)
  compares two truths on the genes scored for both rows, and is exactly 0.5 on average again.
"""

from __future__ import annotations

from embbench.metrics._retrieval import Retrieval, candidates, rank_rows

__all__ = ["candidates"]

BY_TRUTH = "Wu et al. (2024), PerturBench, arXiv:2408.10609: rank per reference; here mid-rank ties and n - 1"
BY_PREDICTION = (
    "Adduri et al. (2025), State, bioRxiv: perturbation discrimination score = 1 - rank; here mid-rank and n - 1"
)
PAIRWISE = BY_PREDICTION + "; two conditions are compared on the genes that are no target of either"
PERTURBENCH = (
    "Wu et al. (2024), PerturBench, arXiv:2408.10609, package of 2024: rank per reference / n; ties there are shuffled "
    "without a seed, here they count their expectation, one half"
)
CELL_EVAL = "cell-eval 0.8.2 (Adduri et al. 2025, State, bioRxiv), discrimination_score: 1 - rank / n on signed effects"
TXPERT = (
    "Wenkel et al. (2025), TxPert, arXiv:2505.14919, package's normed_retrieval: position of the own truth when the "
    "true effects are sorted ascending by Pearson correlation with the prediction, / n"
)


def _rank(distance: str, by: str, source: str, *, over: str = "n-1", genes_of: str = "row") -> Retrieval:
    return Retrieval(rank_rows, "low", source, distance=distance, by=by, over=over, genes_of=genes_of)


def _cell_eval(distance: str) -> Retrieval:
    return Retrieval(rank_rows, "high", CELL_EVAL, distance=distance, ties="order", over="n", form="score")


rank_l1_by_prediction = _rank("l1", "prediction", BY_PREDICTION)
rank_l2_by_prediction = _rank("l2", "prediction", BY_PREDICTION)
rank_cosine_by_prediction = _rank("cosine", "prediction", BY_PREDICTION)
rank_pearson_by_prediction = _rank("pearson", "prediction", BY_PREDICTION)
rank_l1_by_truth = _rank("l1", "truth", BY_TRUTH)
rank_l2_by_truth = _rank("l2", "truth", BY_TRUTH)
rank_cosine_by_truth = _rank("cosine", "truth", BY_TRUTH)
rank_pearson_by_truth = _rank("pearson", "truth", BY_TRUTH)
rank_l2_pairwise_by_prediction = _rank("l2", "prediction", PAIRWISE, genes_of="pair")
rank_cosine_pairwise_by_prediction = _rank("cosine", "prediction", PAIRWISE, genes_of="pair")
rank_pearson_pairwise_by_prediction = _rank("pearson", "prediction", PAIRWISE, genes_of="pair")
rank_l2_over_n_by_truth = _rank("l2", "truth", PERTURBENCH, over="n")
rank_cosine_over_n_by_truth = _rank("cosine", "truth", PERTURBENCH, over="n")
rank_pearson_over_n_by_truth = _rank("pearson", "truth", PERTURBENCH, over="n")
discrimination_l1_cell_eval = _cell_eval("l1")
discrimination_l2_cell_eval = _cell_eval("l2")
discrimination_cosine_cell_eval = _cell_eval("cosine")
retrieval_pearson_txpert = Retrieval(
    rank_rows, "high", TXPERT, distance="pearson", ties="order", over="n", form="position"
)
