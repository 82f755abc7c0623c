"""The likelihoods of overdispersed counts: negative binomial, with an excess of zeros or without.

Their pass, ``_kernels/counts.pyx``, knows theta by the elements it belongs to, most often one a
column, so theta is not broadcast as the parameters of other likelihoods are.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_numbers
from fastelbo.discrete import is_no_count
from fastelbo.likelihoods import Likelihood, broadcasts, sigmoid

if TYPE_CHECKING:
    from fastelbo._typing import Missing, Numbers

_kernels = _builds.kernels("counts")


class NegativeBinomial(Likelihood):
    """Negative binomial distribution of counts by ``mean`` and inverse dispersion ``theta``.

    The variance is mean + mean^2 / theta:

        log p(x) = lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)
                   + theta log(theta / (theta + mean)) + x log(mean / (theta + mean)),

    evaluated in a form without cancellation [1]_, so that it keeps its digits for any theta, in
    float32, too, up to infinity, where it meets the Poisson distribution.

    Parameters
    ----------
    theta : float or array_like, optional
        Positive: a number, or an array that broadcasts to the event, one a gene. Not given: the
        second parameter, ``log_prob(x, mean, theta)``: a number, (G,) or (B, G), whatever
        broadcasts to the mean; its gradient comes in its own shape.
    validate : bool, optional
        Raise ValueError where x is no count, a mean is negative or a theta not positive. Without,
        fractional x are continued by the gamma function, and the rest gives NaN.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Notes
    -----
    x of any real dtype is read as it is. It may be a sparse matrix in CSR format, of SciPy or the
    like: nothing of it is made dense, and what is zero costs less. Several entries of one place add
    up; rows whose columns are in order, each once (``x.sum_duplicates()``), are read fastest.

    Where theta is given for columns (its shape that of the event, or less, or broadcast from that
    to all samples, by ``np.broadcast_to`` or ``Tensor.expand``), what it takes from theta alone is
    computed once. A theta that differs between samples but is shared within them,
    (B, 1) say, costs a temporary of the size of the mean for its gradient.

    References
    ----------
    .. [1] Loader. Fast and accurate computation of binomial probabilities. 2000.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.NegativeBinomial().log_prob([[0, 2]], [[1.0, 1.0]], 1.0), 6)  # log(1/2 1/8)
    -2.772589
    >>> likelihood = fastelbo.NegativeBinomial(theta=[1.0, float("inf")])
    >>> value, (gradient,) = likelihood.log_prob_and_grad([[0, 0]], [[1.0, 1.0]])
    >>> gradient
    array([[-0.5, -1. ]])
    >>> from scipy.sparse import csr_array
    >>> likelihood.log_prob_and_grad(csr_array([[0, 0]]), [[1.0, 1.0]])[1][0]
    array([[-0.5, -1. ]])
    """

    parameters: tuple[str, ...] = ("mean", "theta")
    _positive = parameters
    _of_counts = True
    _kernels = _kernels
    _term = "NegativeBinomial"
    _fuses_latents = False
    _reads_halves = False
    _layout = _arrays.Layout(kept="theta", sparse=True)
    _domain = "counts 0, 1, 2, ..."
    _learnable = MappingProxyType({"theta": None})

    def __init__(
        self, theta: Numbers | None = None, *, validate: bool = True, missing: Missing = None
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.theta = theta
        self._theta = None
        if theta is not None:
            self.parameters = tuple(name for name in self.parameters if name != "theta")
            self._theta = as_numbers(theta, "theta")
            if not (self._theta > 0).all():
                raise ValueError(f"theta must be positive, got {theta!r}")

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
        mean, theta, logits = self._split(parameters)
        d_mean, d_theta, d_logits = (None,) * 3 if gradients is None else self._split(gradients)
        if theta is None:
            (theta,) = self._own_parameters(mean.shape, batch_axes, mean.dtype)
        shape, event = mean.shape, mean.shape[batch_axes:]
        if theta.size and theta.strides[:batch_axes] == (0,) * batch_axes:
            theta = theta[(0,) * batch_axes + (...,)]  # one for all samples, if broadcast to each
        columns, theta_sums = _of_columns(theta, event), None
        if d_theta is not None and _of_columns(d_theta, event) is not None:
            theta_sums = np.empty(columns.size)
        logit_sums = None
        if d_logits is not None and d_logits.shape != shape:
            of_columns = _of_columns(d_logits, event)
            logit_sums = None if of_columns is None else np.empty(of_columns.size)
        every_theta = _room(d_theta, mean) if theta_sums is None else None
        every_logit = _room(d_logits, mean) if logit_sums is None else None
        value, outside = _kernels.evaluate(
            x,
            mask,
            self._missing_nan,
            mean,
            np.broadcast_to(theta, shape) if columns is None else None,
            columns,
            logits,
            None if gradients is None else (d_mean, every_theta, every_logit),
            theta_sums,
            logit_sums,
            weight,
            batch_axes,
            row_values,
            elements,
            threads,
        )
        if outside and self._validate:
            self._complain(x, self._of_domain(parameters, (theta,), mask), batch_axes, mask)
        for gradient, sums, every in (
            (d_theta, theta_sums, every_theta),
            (d_logits, logit_sums, every_logit),
        ):
            if sums is not None:
                gradient[...] = _sum_to(sums.reshape(event), gradient.shape)
            elif every is not gradient:
                gradient[...] = _sum_to(every, gradient.shape)
        return value, 0.0, None

    def _split(self, arrays):
        """(mean, theta, zero_logits), None for what is no parameter."""
        found = dict(zip(self.parameters, arrays, strict=True))
        return tuple(found.get(name) for name in ("mean", "theta", "zero_logits"))

    def _of_domain(self, parameters, own, mask):
        mean, theta, _ = self._split(parameters)
        theta = own[0] if theta is None else theta
        by_element = mask is not None or self._missing_nan
        return mean, np.broadcast_to(theta, mean.shape) if by_element else theta

    def _own_parameters(self, shape, batch_axes, dtype):
        if self._theta is None:
            return ()
        event = shape[batch_axes:]
        if not broadcasts(self._theta.shape, event):
            raise ValueError(
                f"theta has shape {self._theta.shape}, which does not broadcast to {event}"
            )
        with np.errstate(all="ignore"):
            return (self._theta.astype(dtype, copy=False),)

    def _is_outside(self, x):
        return is_no_count(x) | np.isposinf(x)

    def _offences(self, x, mean, theta):
        yield from super()._offences(x)
        yield "mean", mean, mean < 0, "means of at least 0"
        yield "theta", theta, ~(theta > 0), "positive theta"

    def __repr__(self):
        return f"{type(self).__name__}(theta={self.theta!r})"


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A :class:`NegativeBinomial` with an excess of zeros, of probability sigmoid(zero_logits).

    With pi = sigmoid(zero_logits), p(0) = pi + (1 - pi) NB(0), and p(x) = (1 - pi) NB(x) for x > 0.

    Parameters
    ----------
    theta : float or array_like, optional
        As in :class:`NegativeBinomial`. The decoder gives ``(mean, theta, zero_logits)``, or
        ``(mean, zero_logits)`` where theta is given here.
    validate, missing
        As in :class:`NegativeBinomial`.

    Examples
    --------
    >>> import fastelbo
    >>> likelihood = fastelbo.ZeroInflatedNegativeBinomial()
    >>> value, gradients = likelihood.log_prob_and_grad([[0]], [[1.0]], 1.0, [[0.0]])
    >>> round(value, 6)  # log(1/2 + 1/2 1/2)
    -0.287682
    >>> gradients[2]
    array([[0.16666667]])
    >>> likelihood.mean([[4.0]], 1.0, [[0.0]])  # half of the zeros come on top
    array([[2.]])
    """

    parameters: tuple[str, ...] = ("mean", "theta", "zero_logits")
    _term = "ZeroInflatedNegativeBinomial"

    def _mean(self, mean, *others):
        return mean * sigmoid(-others[-1])


def _of_columns(array, event):
    """One value for each element of the event, flat; None if an array differs over the batch.

    A view of the array if its strides allow one: a single number stays one.
    """
    more = max(0, array.ndim - len(event))
    if any(extent != 1 for extent in array.shape[:more]):
        return None
    own = array.reshape(array.shape[more:])
    return np.broadcast_to(own, event).reshape(-1)


def _room(gradient, mean):
    """The gradient itself, or room for one in the shape of the mean."""
    if gradient is None or gradient.shape == mean.shape:
        return gradient
    return np.empty(mean.shape, mean.dtype)


def _sum_to(array, shape):
    """The sum, in float64, over the axes along which `shape` was broadcast to that of the array."""
    if array.ndim < len(shape):  # one value a column, and a gradient that has batch axes, too
        return _sum_to(array, shape[len(shape) - array.ndim :]).reshape(shape)
    array = array.sum(axis=tuple(range(array.ndim - len(shape))), dtype=np.float64)
    axes = tuple(axis for axis, extent in enumerate(shape) if extent == 1)
    return array.sum(axis=axes, keepdims=True)
