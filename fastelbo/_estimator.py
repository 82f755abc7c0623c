"""What data and random states of estimators may be."""

from numbers import Integral

import numpy as np

from fastelbo._arguments import shown
from fastelbo._reading import Rows, as_real


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
        raise ValueError(f"random_state must not be negative, got {shown(random_state)}")


def seed(random_state):
    """What numpy.random.default_rng takes; None is NumPy's global state, as for scikit-learn."""
    if random_state is None:
        return np.random.randint(1 << 31)  # noqa: NPY002
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(1 << 63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(1 << 31))
    return random_state


def finite_matrix(X, dtype, name="X", missing=None):
    """X as a C-contiguous matrix of finite numbers; NaN are welcome if values may be `missing`."""
    return Rows(as_real(X, name), dtype, name, missing)[:]


def names_nothing(label):
    """Whether it is None, NaN or what pandas has in their place."""
    same = label == label
    return label is None or not isinstance(same, bool | np.bool_) or not same
