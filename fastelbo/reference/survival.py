"""Likelihoods of times until an event."""

import numpy as np

from fastelbo.reference._common import as_float64
from fastelbo.reference.likelihoods import Likelihood


class Weibull(Likelihood):
    """log of the Weibull density, or of its survival function where the event was not observed.

    With z = k log(x / scale), k the concentration: log k - log scale + (k - 1) log(x / scale) - e^z
    where the event was observed, else -e^z. What is None is a parameter.

    Examples
    --------
    >>> round(Weibull(concentration=1.0).log_prob([[3.0]], [[1.0]]), 12)  # the exponential
    -3.0
    >>> round(Weibull(concentration=1.0, observed=False).log_prob([[3.0]], [[2.0]]), 12)
    -1.5
    """

    def __init__(
        self, scale=None, concentration=None, *, observed=None, validate=True, missing=None
    ):
        self.scale = scale
        self.concentration = concentration
        self.observed = True if observed is None else np.asarray(observed)
        self.validate = validate
        self.missing = missing

    def outside(self, x, *parameters):
        wrong = x < 0
        for parameter in parameters:
            wrong = wrong | (parameter <= 0)
        return wrong

    def elements(self, x, *parameters):
        given = list(parameters)
        scale = given.pop(0) if self.scale is None else as_float64(self.scale)
        k = given.pop(0) if self.concentration is None else as_float64(self.concentration)
        near = np.abs(x - scale) < 0.5 * scale
        log_ratio = np.where(near, np.log1p((x - scale) / scale), np.log(x) - np.log(scale))
        z = k * log_ratio
        hazard, less_one = np.exp(z), np.expm1(z)
        power = np.where(k == 1, 0.0, (k - 1) * log_ratio)
        density = np.log(k) - np.log(scale) + power - hazard
        values = np.where(self.observed, density, -hazard)
        pull = np.where(self.observed, less_one, hazard)
        slope = np.where(pull == 0, 0.0, log_ratio * pull)  # at x = 0, where nothing is pulled
        by_scale = k / scale * pull
        by_k = np.where(self.observed, 1 / k, 0.0) - slope
        grads = []
        if self.scale is None:
            grads.append(by_scale)
        if self.concentration is None:
            grads.append(by_k)
        return values, tuple(grads)
