"""Any scikit-learn regressor, by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from embbench.core import HeadDefaults, Inputs
from embbench.heads._smoother import check_rows, whole
from embbench.numerics.linalg import pca


class SklearnRegressor(HeadDefaults):
    """A scikit-learn regressor (or one with its interface) from features to effects.

    Estimators without native multi-output are fitted gene by gene (``MultiOutputRegressor``). ``n_neighbors`` is cut
    to the number of training rows n, ``n_components`` to min(n - 1, d). With a single training row every regressor is
    that row, so none is fitted.

    Parameters
    ----------
    estimator : ``package.module:Class`` or ``package.module.Class``.
    seed : >= 0, given as ``random_state`` to estimators that take one (unless ``params`` sets it).
    params : constructor parameters of the estimator.
    rank : None, or >= 1: fit the scores of the effects on that many principal axes instead of the genes, and map
        predictions back. A fraction of the time for many genes; exact for tree and neighbour averages once it reaches
        the rank of the effects.
    more : further constructor parameters, for specs such as ``sklearn:sklearn.svm.SVR:C=10``.

    References
    ----------
    Pedregosa et al. (2011), JMLR 12:2825-2830.
    """

    trained = True

    def __init__(
        self,
        estimator: str = "sklearn.ensemble:RandomForestRegressor",
        seed: int = 0,
        params: dict[str, Any] | None = None,
        rank: int | None = None,
        **more: Any,
    ) -> None:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"{type(self).__name__}: seed must be a whole number >= 0, got {seed!r}")
        if rank is not None:
            whole(type(self).__name__, rank=rank)
        self.estimator, self.seed, self.rank = estimator, seed, rank
        self.params = {**(params or {}), **more}
        known = _load(estimator)().get_params()
        if unknown := sorted(set(self.params) - set(known)):
            raise ValueError(f"{type(self).__name__}: {estimator} has no parameters {unknown}, only {sorted(known)}")

    def _make(self, n: int, d: int) -> Any:
        """A fresh estimator for n rows of d features, wrapped where it knows one output only."""
        made = _load(self.estimator)(**self.params)
        fixed = made.get_params(deep=False)
        changes: dict[str, Any] = {}
        if "random_state" in fixed and "random_state" not in self.params:
            changes["random_state"] = self.seed
        if "n_jobs" in fixed:
            changes["n_jobs"] = 1
        for name, most in (("n_neighbors", n), ("n_components", max(1, min(n - 1, d)))):
            if isinstance(fixed.get(name), int) and fixed[name] > most:
                changes[name] = most
        made.set_params(**changes)
        if _many_outputs(made):
            return made
        from sklearn.multioutput import MultiOutputRegressor

        return MultiOutputRegressor(made, n_jobs=1)

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Fit on features of shape (n, d) and effects ``Y`` of shape (n, g); ``observed`` is not used, since unobserved
        entries of ``Y`` come filled.
        """
        check_rows(self, inputs, Y)
        X, target = inputs.X.astype(np.float64), Y.astype(np.float64)
        self.centre_, self.axes_ = np.zeros(Y.shape[1]), None
        if self.rank is not None:
            self.centre_, self.axes_, _ = pca(Y, self.rank)
            target = (target - self.centre_) @ self.axes_
        self.constant_ = target[0] if len(X) == 1 else None
        self.fitted_ = None
        if len(X) > 1 and target.shape[1]:
            with _own_stream(self.seed):
                self.fitted_ = self._make(*X.shape).fit(X, target)
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "centre_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        width = len(self.centre_) if self.axes_ is None else self.axes_.shape[1]
        if self.fitted_ is not None:
            out = np.asarray(self.fitted_.predict(inputs.X.astype(np.float64))).reshape(len(inputs), width)
        else:
            out = (
                np.zeros((len(inputs), width)) if self.constant_ is None else np.tile(self.constant_, (len(inputs), 1))
            )
        return (self.centre_ + (out if self.axes_ is None else out @ self.axes_.T)).astype(np.float32)


class PartialLeastSquares(SklearnRegressor):
    """Partial least squares regression on features and effects as they come (centred, not rescaled).

    Parameters
    ----------
    n_components : >= 1, number of latent directions; at most min(n - 1, d) are used.

    References
    ----------
    Wegelin (2000), A survey of partial least squares methods, section 4.2 (PLS2).

    Examples
    --------
    >>> PartialLeastSquares(n_components=0)
    Traceback (most recent call last):
    ValueError: PartialLeastSquares: n_components must be a whole number >= 1, got 0
    """

    trained = False

    def __init__(self, n_components: int = 4) -> None:
        whole("PartialLeastSquares", n_components=n_components)
        super().__init__(
            "sklearn.cross_decomposition:PLSRegression", params={"n_components": n_components, "scale": False}
        )

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """1 to 32 directions."""
        return [{"n_components": k} for k in (1, 2, 4, 8, 16, 32)]


@contextmanager
def _own_stream(seed: int) -> Iterator[None]:
    """Some estimators (libsvm's among them) draw from numpy's global stream whatever their parameters: inside the block
    it starts from ``seed``, and after it goes on as before.
    """
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _load(estimator: str) -> type:
    """The estimator class.

    Raises
    ------
    ValueError
        It cannot be imported or is no regressor; the message names it.
    """
    from sklearn.base import is_regressor

    module, _, name = estimator.rpartition(":" if ":" in estimator else ".")
    try:
        found = getattr(importlib.import_module(module), name)
        fits = isinstance(found, type) and hasattr(found, "get_params") and is_regressor(found())
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"SklearnRegressor: estimator must be an importable 'package.module:Class' that can be made without "
            f"arguments, got {estimator!r} ({error})"
        ) from error
    if not fits:
        raise ValueError(f"SklearnRegressor: {estimator!r} is no scikit-learn regressor class; choose one that is")
    return found


def _many_outputs(estimator: Any) -> bool:
    """Whether the estimator declares native multi-output regression."""
    import sklearn.utils

    if hasattr(sklearn.utils, "get_tags"):  # scikit-learn >= 1.6
        return bool(sklearn.utils.get_tags(estimator).target_tags.multi_output)
    return bool(estimator._get_tags()["multioutput"])
