"""Likelihoods of [0, 1]: Bernoulli, by logits or probabilities, and continuous Bernoulli."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastelbo._arguments import as_flag
from fastelbo.likelihoods import Likelihood, sigmoid

if TYPE_CHECKING:
    from fastelbo._typing import Missing, Number


class Bernoulli(Likelihood):
    """Bernoulli by logits, or probabilities; x anywhere in [0, 1].

    log p(x | l) = x l - softplus(l), computed as (x - [l > 0]) l - log(1 + e^-\\|l\\|), which keeps
    its digits where the two parts of the first form nearly cancel.

    Parameters
    ----------
    probs : bool, optional
        The decoder gives ``logits``, any real number (default), or else ``probs``, probabilities,
        as decoders do that end in a sigmoid: log p(x | p) = x log p + (1 - x) log(1 - p). At 0 and
        1 that is -inf where x disagrees. Logits keep digits that probabilities near 1 have lost.
    clamp : bool, optional
        With ``probs``: value and gradient of ``torch.nn.functional.binary_cross_entropy``, which
        takes no logarithm for less than -100, and in the gradient (x - p) / (p (1 - p)) no
        denominator for less than 1e-12. No exact density, but finite at 0 and 1.
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    validate : bool, optional
        Raise ValueError where x, or a probability, lies outside [0, 1]. Found within the pass, at
        no extra cost.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.Bernoulli().log_prob([[1.0, 0.0]], [[0.0, 0.0]]), 6)
    -1.386294
    >>> fastelbo.Bernoulli(probs=True).log_prob_and_grad([[1.0, 0.0]], [[0.5, 0.0]])
    (-0.6931471805599453, (array([[ 2., -1.]]),))
    >>> fastelbo.Bernoulli(probs=True, clamp=True).log_prob([[1.0]], [[0.0]])
    -100.0
    """

    parameters = ("logits",)
    _term = "Bernoulli"
    _domain = "[0, 1]"

    def __init__(
        self,
        *,
        probs: bool = False,
        clamp: bool = False,
        x_scale: Number = 1.0,
        validate: bool = True,
        missing: Missing = None,
    ) -> None:
        super().__init__(x_scale=x_scale, validate=validate, missing=missing)
        self.probs, self.clamp = as_flag(probs, "probs"), as_flag(clamp, "clamp")
        if self.clamp and not self.probs:
            raise ValueError("clamp is for probabilities: give probs=True, too")
        if self.probs:
            self.parameters = ("probs",)
            self._term = "BernoulliClamped" if self.clamp else "BernoulliProbs"

    def _is_outside(self, x):
        return (x < 0) | (x > 1)

    def _offences(self, x, *parameters):
        yield from super()._offences(x, *parameters)
        if self.probs:
            (probs,) = parameters
            yield "probs", probs, (probs < 0) | (probs > 1), "[0, 1]; of logits without probs=True"

    def _mean(self, given):
        return given if self.probs else sigmoid(given)

    def __repr__(self):
        clamped = ", clamp=True" if self.clamp else ""
        return f"Bernoulli(probs=True{clamped})" if self.probs else "Bernoulli()"


class ContinuousBernoulli(Likelihood):
    """Continuous Bernoulli by logits, for x in [0, 1]: the Bernoulli with its normaliser [1]_.

    log p(x | l) = x l - log((e^l - 1) / l), a density over [0, 1] that is uniform at l = 0, where
    the normaliser needs, and here has, a series.

    Parameters
    ----------
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    validate : bool, optional
        Raise ValueError where x lies outside [0, 1].
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    References
    ----------
    .. [1] Loaiza-Ganem, Cunningham. The continuous Bernoulli: fixing a pervasive error in
       variational autoencoders. NeurIPS 2019.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.ContinuousBernoulli().log_prob_and_grad([[0.25]], [[0.0]])
    (0.0, (array([[-0.25]]),))
    >>> fastelbo.ContinuousBernoulli().mean([[-10.0, 0.0, 10.0]]).round(4)
    array([[0.1, 0.5, 0.9]])
    """

    parameters = ("logits",)
    _term = "ContinuousBernoulli"
    _domain = "[0, 1]"

    def __init__(
        self, *, x_scale: Number = 1.0, validate: bool = True, missing: Missing = None
    ) -> None:
        super().__init__(x_scale=x_scale, validate=validate, missing=missing)

    def _is_outside(self, x):
        return (x < 0) | (x > 1)

    def _mean(self, logits):
        logits = np.asarray(logits, np.float64)
        square = logits * logits
        slope = 1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600))
        series = 0.5 + logits * slope
        return np.where(square < 0.01, series, -1 / np.expm1(-logits) - 1 / logits)
