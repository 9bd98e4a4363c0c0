"""Contracts of feature transforms."""

from __future__ import annotations

import numpy as np

from embbench.checks._contract import ContractError, Make, name_of, require


def toy_features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training and query rows of shape (30, 8) and (12, 8), of unequal scales; training holds one column constant.

    Examples
    --------
    >>> [rows.shape for rows in toy_features()]
    [(30, 8), (12, 8)]
    """
    rng = np.random.default_rng([13, seed])
    X = (rng.normal(size=(42, 8)) * [1, 2, 0.1, 30, 1, 1, 1, 1] + 3).astype(np.float32)
    X[:30, 6] = 2.0
    return X[:30], X[30:]


def feature_gives_finite_float32(make: Make) -> None:
    """``fit`` returns self; ``transform`` gives one finite float32 row per row."""
    (train, query), feature = toy_features(), make()
    require(feature.fit(train) is feature, f"{name_of(feature)}.fit must return self")
    for X in (train, query):
        out = feature.transform(X)
        good = out.ndim == 2 and len(out) == len(X) and out.shape[1] > 0 and out.dtype == np.float32
        require(good, f"{name_of(feature)}: expected ({len(X)}, k) float32, found {out.shape} {out.dtype}")
        require(np.isfinite(out).all(), f"{name_of(feature)} gave non-finite values")


def feature_rows_are_independent(make: Make) -> None:
    """A row's features do not depend on the other rows transformed with it."""
    (train, query), feature = toy_features(), make()
    whole = feature.fit(train).transform(query)
    for rows in (np.array([3]), np.array([9, 0, 4])):
        same = np.allclose(feature.transform(query[rows]), whole[rows], rtol=1e-5, atol=1e-5)
        require(same, f"{name_of(feature)}: features of rows {rows.tolist()} change when they are transformed apart")


def feature_is_fitted_on_training_rows_only(make: Make) -> None:
    """Transforming other rows, before or after, never moves the features of training rows."""
    (train, query), feature = toy_features(), make()
    before = feature.fit(train).transform(train)
    feature.transform(query * 100)
    require(np.array_equal(before, feature.transform(train)), f"{name_of(feature)}: transform changes what was fitted")


def feature_is_deterministic(make: Make) -> None:
    """Two fresh fits give the same bits, also after a fit on other rows."""
    (train, query), (other, _) = toy_features(), toy_features(seed=1)
    a, b = make().fit(train).transform(query), make().fit(other).fit(train).transform(query)
    require(np.array_equal(a, b), f"{name_of(make())}: two fits on the same rows differ")


def feature_leaves_its_argument_alone(make: Make) -> None:
    """``fit`` and ``transform`` do not write into their argument."""
    (train, query), feature = toy_features(), make()
    copies = train.copy(), query.copy()
    feature.fit(train).transform(query)
    same = np.array_equal(train, copies[0]) and np.array_equal(query, copies[1])
    require(same, f"{name_of(feature)} changed its argument in place; copy before writing")


def feature_refuses_to_transform_before_fit(make: Make) -> None:
    """RuntimeError that says "before fit"."""
    feature = make()
    try:
        feature.transform(toy_features()[1])
    except RuntimeError as error:
        require("before fit" in str(error), f"{name_of(feature)}: the error must say 'before fit', found {error!r}")
    else:
        raise ContractError(f"{name_of(feature)}.transform before fit must raise RuntimeError('... before fit')")
