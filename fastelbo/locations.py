"""Likelihoods around a location: squared error, Gaussian, Laplace, Student's t."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastelbo import _builds
from fastelbo._scales import HALF_LOG_2PI, LEAST, MOST
from fastelbo.likelihoods import Likelihood, is_word, positive_array

if TYPE_CHECKING:
    from fastelbo._typing import Missing, Number, Numbers

_vecmath = _builds.kernels("vecmath")


class SquaredError(Likelihood):
    """-||x - x_recon||^2 without a constant: the reconstruction term as NumPy code writes it.

    Parameters
    ----------
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.SquaredError().log_prob([[1.0, 2.0]], [[1.0, 0.0]])
    -4.0
    >>> value, (gradient,) = fastelbo.SquaredError().log_prob_and_grad([[1.0, 2.0]], [[1.0, 0.0]])
    >>> gradient
    array([[0., 4.]])
    """

    _term = "SquaredError"

    def __init__(self, *, x_scale: Number = 1.0, missing: Missing = None) -> None:
        super().__init__(x_scale=x_scale, missing=missing)


class Gaussian(Likelihood):
    """Normal density of x around the decoder's mean, all constants included.

    Parameters
    ----------
    scale : float, array_like, "learned" or "optimal", optional
        Standard deviation. A number, or an array that broadcasts to the event (one per feature).
        ``"learned"``: the decoder gives ``log_scale`` as a second output. ``"optimal"``: sigma-VAE
        [1]_, the maximum-likelihood scale of the minibatch, sigma^2 = mean of (x - x_recon)^2.
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    References
    ----------
    .. [1] Rybkin, Daniilidis, Levine. Simple and effective VAE training with calibrated decoders.
       ICML 2021.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.Gaussian().log_prob([[0.0]], [[0.0]]), 6)
    -0.918939
    >>> round(fastelbo.Gaussian("learned").log_prob([[0.0]], [[0.0]], [[1.0]]), 6)
    -1.918939
    """

    _learnable = MappingProxyType({"scale": "learned"})

    def __init__(
        self,
        scale: Numbers | Literal["learned", "optimal"] = 1.0,
        *,
        x_scale: Number = 1.0,
        missing: Missing = None,
    ) -> None:
        super().__init__(x_scale=x_scale, missing=missing)
        self.scale = scale
        scale = positive_array(scale, "scale", ("learned", "optimal"))
        if is_word(scale, "learned"):
            self.parameters = ("x_recon", "log_scale")
            self._term = "GaussianLogScale"
        elif is_word(scale, "optimal"):
            self._term = "SquaredError"  # of which the scale is found
        else:
            self._set_scale(scale)

    def _set_scale(self, scale):
        if scale.ndim == 0 and LEAST <= scale <= MOST:  # the squared error times a factor
            self._term = "SquaredError"
            self._factor = 0.5 / float(scale) ** 2
            self._constant = -math.log(scale) - HALF_LOG_2PI
            return
        # one for each feature, or one whose square is out of reach of some dtype
        self._term = "Gaussian"
        self._own = (1 / np.sqrt(scale), np.log(scale) + HALF_LOG_2PI)

    def _pass(
        self,
        x,
        parameters,
        gradients,
        weight,
        row_values,
        latents,
        batch_axes,
        threads,
        mask,
        follower=None,
        elements=None,
    ):
        rest = (gradients, weight, row_values, latents, batch_axes, threads, mask)
        rest += (follower, elements)
        if not is_word(self.scale, "optimal"):
            return super()._pass(x, parameters, *rest)
        # The scale depends on the whole minibatch: one pass to find it, one that uses it.
        variance = self._variance(x, parameters, batch_axes, threads, mask)
        return self._at_variances([variance])._pass(x, parameters, *rest)

    def _variance(self, x, parameters, batch_axes, threads, mask):
        """The mean squared error of checked arrays; NaN of none."""
        error = SquaredError(x_scale=self._x_scale, missing=self.missing)
        total, _, size = error._pass(
            x, parameters, None, 1.0, None, None, batch_axes, threads, mask
        )
        if size == 0:
            return math.nan
        with np.errstate(all="ignore"):
            variance = float(np.float64(-total) / size)
        if not variance > 0 or not math.isfinite(variance):
            raise NoOptimalScale(
                f'scale="optimal" needs a positive, finite mean squared error, got {variance}'
            )
        return variance

    def _couples_rows(self):
        return is_word(self.scale, "optimal")

    def _variances(self, x, outputs, threads):
        return [self._variance(x, outputs, 1, threads, None)] if self._couples_rows() else []

    def _at_variances(self, variances):
        if not self._couples_rows():
            return self
        variance = next(iter(variances))
        scale = 1.0 if math.isnan(variance) else math.sqrt(variance)  # of nothing any would do
        return Gaussian(scale, x_scale=self._x_scale, missing=self.missing)

    def __repr__(self):
        return f"Gaussian(scale={self.scale!r})"


class NoOptimalScale(ValueError):
    """No density is best: the errors of a minibatch are all zero, or not finite."""


class Laplace(Likelihood):
    """Laplace density of x around the decoder's median: the absolute error, normalised.

    log p(x | m) = -\\|x - m\\| / scale - log(2 scale). At x = m the gradient is 0.

    Parameters
    ----------
    scale : float, array_like or "learned", optional
        A number, or an array that broadcasts to the event (one per feature). ``"learned"``: the
        decoder gives ``log_scale`` as a second output.
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.Laplace(0.5).log_prob_and_grad([[1.0, 0.0]], [[0.0, 0.0]])
    (-2.0, (array([[2., 0.]]),))
    """

    _learnable = MappingProxyType({"scale": "learned"})

    def __init__(
        self,
        scale: Numbers | Literal["learned"] = 1.0,
        *,
        x_scale: Number = 1.0,
        missing: Missing = None,
    ) -> None:
        super().__init__(x_scale=x_scale, missing=missing)
        self.scale = scale
        scale = positive_array(scale, "scale", ("learned",))
        if isinstance(scale, str):
            self.parameters = ("x_recon", "log_scale")
            self._term = "LaplaceLogScale"
        else:
            self._term = "Laplace"
            with np.errstate(all="ignore"):
                self._own = (1 / scale, np.log(scale) + math.log(2))

    def __repr__(self):
        return f"Laplace(scale={self.scale!r})"


class StudentT(Likelihood):
    """Student's t density of x around the decoder's location: a Gaussian that forgives outliers.

    Its normaliser is computed as a difference that does not cancel, so large df meet the Gaussian.

    Parameters
    ----------
    df : float, array_like or "learned"
        Degrees of freedom: a number, or an array that broadcasts to the event. ``"learned"``: the
        decoder gives ``log_df`` as its last output.
    scale : float, array_like or "learned", optional
        Likewise; ``"learned"``: the decoder gives ``log_scale`` as its second output.
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.StudentT(1.0).log_prob([[0.0]], [[0.0]]), 6)  # Cauchy: 1 / pi
    -1.14473
    >>> fastelbo.StudentT("learned", "learned").parameters
    ('x_recon', 'log_scale', 'log_df')
    """

    _own_name = "scale or df"
    _learnable = MappingProxyType({"df": "learned", "scale": "learned"})

    def __init__(
        self,
        df: Numbers | Literal["learned"],
        scale: Numbers | Literal["learned"] = 1.0,
        *,
        x_scale: Number = 1.0,
        missing: Missing = None,
    ) -> None:
        super().__init__(x_scale=x_scale, missing=missing)
        self.df, self.scale = df, scale
        df = positive_array(df, "df", ("learned",))
        scale = positive_array(scale, "scale", ("learned",))
        names = ["x_recon"]
        if isinstance(scale, str):
            names.append("log_scale")
        if isinstance(df, str):
            names.append("log_df")
        self.parameters = tuple(names)
        if isinstance(scale, str):
            self._term = "StudentTLearned" if isinstance(df, str) else "StudentTLogScale"
            self._own = () if isinstance(df, str) else (_student_norm(df), df)
            return
        root, log_scale = 1 / np.sqrt(scale), np.log(scale)
        self._term = "StudentTLogDf" if isinstance(df, str) else "StudentT"
        if isinstance(df, str):
            self._own = (root, log_scale)
        else:
            self._own = (root, log_scale - _student_norm(df), df)

    def __repr__(self):
        return f"StudentT(df={self.df!r}, scale={self.scale!r})"


def _student_norm(df):
    """log of Student's t density at its centre, for scale 1."""
    value, slope = np.empty(df.size), np.empty(df.size)
    _vecmath.half_rise(0.5 * df.ravel(), value, slope)
    return value.reshape(df.shape) - HALF_LOG_2PI
