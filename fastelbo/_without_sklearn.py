"""What stands in for scikit-learn's bases of estimators where it is not installed.

As much of each as estimators here need, under the same name.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from fastelbo._parameters import Parameterized
from fastelbo._reading import names_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastelbo._typing import FloatArray

UNUSED = None


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fitted model was called before ``fit``."""


class BaseEstimator(Parameterized):
    """Parameters are the arguments of ``__init__``."""

    def __repr__(self):
        default = self._defaults()
        changed = [
            f"{name}={value!r}"
            for name, value in sorted(self.get_params(deep=False).items())
            if repr(value) != repr(default[name])
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


class TransformerMixin:
    def fit_transform(self, X: ArrayLike, y: ArrayLike | None = None) -> FloatArray:
        """``fit(X, y).transform(X)``."""
        return self.fit(X, y).transform(X)

    def set_output(
        self, *, transform: Literal["default", "pandas", "polars"] | None = None
    ) -> Self:
        """What ``transform`` returns: needs scikit-learn."""
        raise ImportError('set_output needs scikit-learn: pip install "fastelbo[sklearn]"')


class ClassNamePrefixFeaturesOutMixin:
    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the latent dimensions: that of the class, and their numbers."""
        check_is_fitted(self)
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(self._n_features_out)], dtype=object)


class ClassifierMixin:
    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """The share of rows whose label is predicted.

        Parameters
        ----------
        X : array_like, shape (N, D)
        y : array_like, shape (N,)
            Labels of all of them.

        Returns
        -------
        float
        """
        return float(np.mean(self.predict(X) == column_or_1d(np.asarray(y))))


class DensityMixin:
    pass


class OutlierMixin:
    def fit_predict(self, X: ArrayLike, y: object = None) -> NDArray[np.int_]:
        """``fit(X).predict(X)``."""
        return self.fit(X).predict(X)


def check_is_fitted(estimator):
    if not estimator.__sklearn_is_fitted__():
        raise NotFittedError(
            f"This {type(estimator).__name__} instance is not fitted yet. Call 'fit' first."
        )


def clone(estimator):
    """An estimator of the same parameters, not fitted."""
    return type(estimator)(**copy.deepcopy(estimator.get_params(deep=False)))


def column_or_1d(y, *, warn=False):
    """An array (N,) of one that has this shape, or (N, 1)."""
    if y.ndim == 2 and y.shape[1] == 1:
        if warn:
            message = f"A column-vector y was passed when a 1d array was expected: ({len(y)},)"
            warnings.warn(message, UserWarning, stacklevel=4)
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead.")
    return y


def validate_data(estimator, X, *, reset, skip_check_array):
    """Keep the number of features and their names, or complain about others than are kept."""
    features, names = np.shape(X)[1], names_of(X)
    if reset:
        estimator.n_features_in_ = features
        vars(estimator).pop("feature_names_in_", None)
        if names is not None:
            estimator.feature_names_in_ = np.array(names, object)
        return
    known = getattr(estimator, "feature_names_in_", names)
    if names is not None and not np.array_equal(names, known):
        raise ValueError(
            "The feature names should match those that were passed during fit, "
            f"{list(known)}, got {names}"
        )
    if features != estimator.n_features_in_:
        raise ValueError(
            f"X has {features} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
