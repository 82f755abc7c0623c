"""Likelihoods of times until an event, some of which are known to be longer only."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fastelbo import _arrays
from fastelbo.likelihoods import Likelihood, positive_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import Missing


class Weibull(Likelihood):
    """Weibull distribution of times until an event, right-censored where it was not observed.

    With z = concentration log(x / scale): an event at x has the log density log concentration -
    log scale + (concentration - 1) log(x / scale) - e^z, and a time x at which the event was still
    to come the log survival probability -e^z. Neither is formed from a probability that rounds to 0
    or 1: both tails keep their digits.

    Parameters
    ----------
    scale, concentration : float or array_like, optional
        Positive, one for all or one for each feature. What is not given here is given by the
        decoder, in this order: ``(scale, concentration)`` by default.
    observed : array_like of bool, optional
        False where x is the time at which the event had not been observed yet (right-censored);
        broadcasts to x. Made for one batch, a likelihood takes that of its batch.
    validate : bool, optional
        Raise ValueError where x is negative or a parameter not positive.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Notes
    -----
    At x = 0 the density is infinite for a concentration below 1, and 0 above.

    See Also
    --------
    Gaussian : of the logarithm of times, for a log-normal distribution.

    Examples
    --------
    >>> import fastelbo
    >>> exponential = fastelbo.Weibull(concentration=1.0)
    >>> round(exponential.log_prob([[3.0]], [[1.0]]), 12)
    -3.0
    >>> censored = fastelbo.Weibull(concentration=2.0, observed=[[True, False]])
    >>> value, (gradient,) = censored.log_prob_and_grad([[1.0, 3.0]], [[2.0, 2.0]])
    >>> round(value, 6), gradient  # log(1 / 2) - 1 / 4 and -(3 / 2)^2
    (-3.193147, array([[-0.75,  2.25]]))
    >>> fastelbo.Weibull().mean([[2.0]], [[1.0]])
    array([[2.]])
    """

    _names = ("scale", "concentration")
    _domain = "times of at least 0"
    _own_name = "scale or concentration"
    _by_sample = "observed"
    _learnable = MappingProxyType({"scale": None, "concentration": None})

    def __init__(
        self,
        scale: ArrayLike | None = None,
        concentration: ArrayLike | None = None,
        *,
        observed: ArrayLike | None = None,
        validate: bool = True,
        missing: Missing = None,
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.scale, self.concentration, self.observed = scale, concentration, observed
        given = dict(zip(self._names, (scale, concentration), strict=True))
        fixed = {n: positive_array(v, n) for n, v in given.items() if v is not None}
        if len(fixed) == 2:
            raise ValueError("scale and concentration are both given: the decoder must give one")
        self.parameters = self._positive = tuple(n for n in self._names if n not in fixed)
        self._term = "Weibull" if not fixed else f"Weibull{self.parameters[0].capitalize()}"
        self._own = (*fixed.values(), _as_observed(observed))

    def _own_parameters(self, shape, batch_axes, dtype):
        """What is fixed, which broadcasts to the event, and `observed`, which broadcasts to x."""
        *fixed, observed = self._own
        wide = self._of_samples((observed,), shape, batch_axes)
        return (*self._of_event(fixed, shape, batch_axes, dtype), *wide)

    def _is_outside(self, x):
        return x < 0

    def _offences(self, x, *parameters):
        yield from super()._offences(x, *parameters)
        for name, values in zip(self.parameters, parameters, strict=False):
            yield name, values, values <= 0, "positive numbers"

    def _mean(self, *given):
        given = dict(zip(self.parameters, given, strict=True))
        scale, concentration = (
            given[name] if name in given else getattr(self, name) for name in self._names
        )
        with np.errstate(divide="ignore", over="ignore"):
            return scale * _gamma(1 + 1 / np.asarray(concentration, np.float64))

    def __repr__(self):
        return f"Weibull(scale={self.scale!r}, concentration={self.concentration!r})"


def _as_observed(observed):
    """1 where an event was observed, as bytes."""
    if observed is None:
        return np.ones((), np.uint8)
    return _arrays.as_flags(observed, "observed", "the event").view(np.uint8)


@np.vectorize
def _gamma(a):
    """The gamma function, infinite beyond what a float holds."""
    try:
        return math.gamma(a)
    except OverflowError:
        return math.inf
