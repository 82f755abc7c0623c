"""What scikit-learn expects of an estimator, without scikit-learn."""

from __future__ import annotations

import inspect
from numbers import Integral
from typing import Any, Self

import numpy as np

from fastelbo import _arrays


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fitted model was called before ``fit``."""


class Estimator:
    """Parameters are the keyword arguments of ``__init__``; ``_model`` is there once fitted."""

    @classmethod
    def _defaults(cls):
        signature = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **parameters: Any) -> Self:
        """Change constructor arguments; returns this object."""
        for name, value in parameters.items():
            if name not in self._defaults():
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}")
            setattr(self, name, value)
        return self

    def _check_fitted(self):
        if not hasattr(self, "_model"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' first."
            )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_model")

    def __sklearn_tags__(self):
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(),
        )

    def __repr__(self):
        default = self._defaults()
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(default[name])
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def check_random_state(random_state):
    """Complain unless `seed` takes it."""
    if random_state is None or isinstance(
        random_state, np.random.Generator | np.random.RandomState
    ):
        return
    if isinstance(random_state, bool) or not isinstance(random_state, Integral):
        raise TypeError(
            "random_state must be an int, a numpy.random.Generator, a numpy.random.RandomState or "
            f"None, got {random_state!r}"
        )
    if random_state < 0:
        raise ValueError(f"random_state must not be negative, got {random_state}")


def seed(random_state):
    """What numpy.random.default_rng takes."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(1 << 63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(1 << 31))
    return random_state


def finite_matrix(X, dtype, name="X"):
    """X as a C-contiguous matrix of finite numbers."""
    X = _arrays.as_any_array(X, name)
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {X.dtype}")
    if X.dtype.kind not in "fiub":
        try:
            X = X.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must hold real numbers: {error}") from None
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: {name} has shape {X.shape}. "
            f"Reshape your data to (samples, features)."
        )
    if 0 in X.shape:
        what = "sample" if X.shape[0] == 0 else "feature"
        raise ValueError(
            f"{name} is empty: 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required."
        )
    with np.errstate(over="ignore"):
        X = np.ascontiguousarray(X, dtype)
    finite = np.isfinite(X)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{name} contains NaN or infinity: {X[row, column]} at row {row}, column {column}"
        )
    return X
