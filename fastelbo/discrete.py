"""Likelihoods over counts, pixels and classes, each with ``log_prob`` and ``log_prob_and_grad``.

Terms are in ``_kernels/terms/discrete.pxd``; what has an axis of classes or components has a pass
of its own, ``_kernels/classes.pyx``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_flag, as_number, as_numbers, as_whole
from fastelbo.likelihoods import Likelihood, broadcasts, is_word, positive_array, sigmoid

if TYPE_CHECKING:
    from fastelbo._typing import Missing, Number, Numbers

_kernels = _builds.kernels("discrete")
_classes = _builds.kernels("classes")
_vecmath = _builds.kernels("vecmath")


def is_no_count(x):
    """Negative, or no whole number; NaN does not count."""
    return (x < 0) | ((np.floor(x) != x) & ~np.isnan(x))


def counts_array(value, name):
    """Whole numbers of at least 0 as a float64 array of its own."""
    array = as_numbers(value, name)
    if not (np.isfinite(array) & ~is_no_count(array)).all():
        raise ValueError(f"{name} must hold whole numbers of at least 0, got {value!r}")
    return array


class Poisson(Likelihood):
    """Poisson distribution of counts by the logarithm of the rate, or the rate.

    log p(x | rate) = x log rate - rate - log x!, as a deviance and Stirling's remainder [1]_:
    no large terms cancel, so that counts of a million keep their digits in float32.

    Parameters
    ----------
    log_input : bool, optional
        The decoder gives ``log_rate``, any real number (default), or else ``rate``, at least 0.
    validate : bool, optional
        Raise ValueError where x is no count or the rate negative. Without, fractional x are
        continued by the gamma function.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Notes
    -----
    x may be a sparse matrix in CSR format, as for :class:`NegativeBinomial`.

    References
    ----------
    .. [1] Loader. Fast and accurate computation of binomial probabilities. 2000.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.Poisson().log_prob([[2]], [[0.0]]), 6)  # -1 - log 2
    -1.693147
    >>> fastelbo.Poisson(log_input=False).log_prob_and_grad([[0]], [[3.0]])
    (-3.0, (array([[-1.]]),))
    """

    _positive = ("rate",)
    _of_counts = True
    _kernels = _kernels
    _layout = _arrays.Layout(sparse=True)
    _domain = "counts 0, 1, 2, ..."

    def __init__(
        self, *, log_input: bool = True, validate: bool = True, missing: Missing = None
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.log_input = as_flag(log_input, "log_input")
        self.parameters = ("log_rate",) if log_input else ("rate",)
        self._term = "PoissonLog" if log_input else "Poisson"

    def _is_outside(self, x):
        return is_no_count(x)

    def _offences(self, x, *parameters):
        yield from super()._offences(x, *parameters)
        if not self.log_input:
            yield "rate", parameters[0], parameters[0] < 0, "rates of at least 0"

    def _mean(self, rate):
        return np.exp(rate) if self.log_input else rate

    def __repr__(self):
        return f"Poisson(log_input={self.log_input})"


class Binomial(Likelihood):
    """Binomial distribution of x successes in ``total_count`` trials, by logits.

    Computed, as :class:`Poisson` is, from deviances: no binomial coefficient is ever formed.

    Parameters
    ----------
    total_count : int or array_like of int
        The number of trials: for all, or an array that broadcasts to x: one a feature, or one for
        each sample, (B, 1) or (B, ...). Made for one batch, a likelihood takes that of its batch.
    validate : bool, optional
        Raise ValueError where x is no count of at most ``total_count``.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.Binomial(2).log_prob([[1]], [[0.0]]), 6)
    -0.693147
    >>> fastelbo.Binomial([2, 8]).mean([[0.0, 0.0]])
    array([[1., 4.]])
    """

    parameters = ("logits",)
    _kernels = _kernels
    _term = "Binomial"
    _of_counts = True
    _own_name = _by_sample = "total_count"
    _domain = "counts 0, 1, ..., total_count"

    def __init__(
        self, total_count: Numbers, *, validate: bool = True, missing: Missing = None
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.total_count = total_count
        n = counts_array(total_count, "total_count")
        rest = np.empty(n.size)
        _vecmath.log_factorial_rest(n.ravel(), rest)
        with np.errstate(divide="ignore"):
            own = (n, np.log(n), rest.reshape(n.shape))
        self._own = own[: 4 - len(self.parameters)]  # what the term has room for

    def _own_parameters(self, shape, batch_axes, dtype):
        if self._own[0].ndim <= len(shape) - batch_axes:
            return super()._own_parameters(shape, batch_axes, dtype)
        return self._of_samples([p.astype(dtype) for p in self._own], shape, batch_axes)

    def _is_outside(self, x):
        return is_no_count(x) | (x > self._own[0])

    def _offences(self, x, *parameters):
        wrong = self._is_outside(x)
        most = np.broadcast_to(self._own[0], wrong.shape)
        yield "x", x, wrong, lambda at: f"counts 0, 1, ..., {most[at]:.0f}, its total_count"

    def _check_over(self, arrays):
        super()._check_over(arrays)
        own, first = self._own[0].shape, arrays[0].shape
        if not broadcasts(own, first):
            raise _arrays.shape_error("total_count", own, f"one that broadcasts to {first}")

    def _mean(self, logits):
        return self._own[0] * sigmoid(logits)

    def __repr__(self):
        return f"{type(self).__name__}(total_count={self.total_count!r})"


class BetaBinomial(Binomial):
    """Binomial distribution whose probability is Beta(alpha, beta) distributed.

    The overdispersed :class:`Binomial`, which it meets where alpha + beta is large: of that limit
    and of large counts all digits are kept, in value and gradient.

    Parameters
    ----------
    total_count, validate, missing
        As in :class:`Binomial`; alpha and beta must be positive, too.

    Notes
    -----
    By its mean and concentration: alpha = mean concentration, beta = (1 - mean) concentration.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.BetaBinomial(4).log_prob([[1]], [[1.0]], [[1.0]]), 6)  # uniform over five
    -1.609438
    >>> fastelbo.BetaBinomial(4).mean([[1.0]], [[3.0]])
    array([[1.]])
    """

    parameters = _positive = ("alpha", "beta")
    _term = "BetaBinomial"

    def _offences(self, x, *parameters):
        yield from super()._offences(x, *parameters)
        for name, values in zip(self.parameters, parameters, strict=False):
            yield name, values, values <= 0, "positive numbers"

    def _mean(self, alpha, beta):
        return self._own[0] / (1 + beta / alpha)


class DiscretizedLogistic(Likelihood):
    """The mass that a logistic density puts into a pixel's bin, the outer bins being open [1]_.

    x are the numbers of the bins, uint8 pixels as they are; bin i lies around 2 i / (bins - 1) - 1,
    so the decoder's mean and scale are in units of an image on [-1, 1]. (Of a mean and scale on
    [0, 1] take 2 mean - 1 and 2 scale.) The difference of two sigmoids is computed as a product,
    and so never 0 for a finite mean and a scale whose inverse is finite, too.

    What ``mean`` gives is the location as the number of a bin, fractions included, no lower than
    the first and no higher than the last.

    Parameters
    ----------
    scale : float, array_like or "learned", optional
        ``"learned"`` (default): the decoder gives ``log_scale`` as a second output. A number, or an
        array that broadcasts to the event.
    bins : int, optional
        How many values x can take, at least 2.
    validate : bool, optional
        Raise ValueError where x is none of 0, 1, ..., bins - 1.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    References
    ----------
    .. [1] Kingma et al. Improved variational inference with inverse autoregressive flow. NeurIPS
       2016.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.DiscretizedLogistic(bins=2).log_prob([[1]], [[0.0]], [[0.0]]), 6)
    -0.693147
    >>> fastelbo.DiscretizedLogistic(0.1).mean([[-1.2, -1.0, 0.0, 1.0]])
    array([[  0. ,   0. , 127.5, 255. ]])
    """

    _kernels = _kernels
    _learnable = MappingProxyType({"scale": "learned"})

    def __init__(
        self,
        scale: Numbers | Literal["learned"] = "learned",
        *,
        bins: Number = 256,
        validate: bool = True,
        missing: Missing = None,
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.scale, self.bins = scale, _checked_bins(bins)
        self._domain = f"the bins 0, 1, ..., {self.bins - 1}"
        scale = positive_array(scale, "scale", ("learned",))
        top = np.array(self.bins - 1.0)
        if is_word(scale, "learned"):
            self.parameters = ("x_recon", "log_scale")
            self._term = "DiscretizedLogisticLogScale"
            self._own = (top, 1 / top)
        else:
            self._term = "DiscretizedLogistic"
            with np.errstate(all="ignore"):
                self._own = (1 / scale, top, 1 / top)

    def _is_outside(self, x):
        return is_no_count(x) | (x > self.bins - 1)

    def _mean(self, x_recon, *others):
        return _bin_of(x_recon, self.bins)

    def __repr__(self):
        return f"DiscretizedLogistic(scale={self.scale!r}, bins={self.bins})"


def _bin_of(location, bins):
    """The bin, fractions included, that a location on [-1, 1] belongs to."""
    return np.clip((location + 1) * ((bins - 1) / 2), 0, bins - 1)


def _softmax(logits, axis):
    weights = np.exp(logits - logits.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def _checked_bins(bins: Number) -> int:
    number = as_number(bins, "bins")
    if not (number >= 2 and number == int(min(number, 1e15))):
        raise ValueError(f"bins must be a whole number of at least 2, got {bins!r}")
    return int(number)


class DiscretizedLogisticMixture(Likelihood):
    """A mixture of :class:`DiscretizedLogistic` for every element of x, as in PixelCNN++ [1]_.

    The decoder gives ``logits`` (of the mixture's weights), ``means`` and ``log_scales``, each
    (B, M, ...) for x (B, ...): the axis of M components comes after the batch, like channels.
    Elements are independent given the parameters. One pass, with a log-sum-exp over components.
    ``mean``, in the shape of x, is that of the components' locations as numbers of bins.

    Parameters
    ----------
    bins : int, optional
        How many values x can take, at least 2.
    validate : bool, optional
        Raise ValueError where x is none of 0, 1, ..., bins - 1.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, as a mask would.

    References
    ----------
    .. [1] Salimans et al. PixelCNN++: improving the PixelCNN with discretized logistic mixture
       likelihood and other modifications. ICLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> same = np.zeros((1, 3, 1))  # three equal components are one
    >>> value = fastelbo.DiscretizedLogisticMixture(bins=2).log_prob([[1]], same, same, same)
    >>> round(value, 6)
    -0.693147
    """

    parameters = ("logits", "means", "log_scales")
    _kernels = _classes
    _term = "DiscretizedLogisticMixture"
    _layout = _arrays.Layout("components", 1)
    _outputs_each = None
    _fuses_latents = False
    _reads_halves = False

    def __init__(
        self, *, bins: Number = 256, validate: bool = True, missing: Missing = None
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.bins = _checked_bins(bins)
        self._own = (np.array(self.bins - 1.0),)
        self._domain = f"the bins 0, 1, ..., {self.bins - 1}"

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
        flat_mask = None if mask is None else _flat_event(mask, batch_axes)
        value, outside = _classes.mixture(
            _flat_event(x, batch_axes),
            flat_mask,
            self._missing_nan,
            tuple(_flat_event(p, batch_axes + 1) for p in parameters),
            None if gradients is None else tuple(_flat_event(g, batch_axes + 1) for g in gradients),
            self.bins - 1.0,
            weight,
            batch_axes,
            row_values,
            elements,
            threads,
        )
        if outside and self._validate:
            self._complain(x, parameters, batch_axes, mask)
        return value, 0.0, None

    def _is_outside(self, x):
        return is_no_count(x) | (x > self.bins - 1)

    def _mean(self, logits, means, log_scales):
        return (_softmax(logits, 1) * _bin_of(means, self.bins)).sum(1)

    def __repr__(self):
        return f"DiscretizedLogisticMixture(bins={self.bins})"


def _flat_event(array, axes):
    """(..., event): everything after the first axes as one axis, contiguous or broadcast."""
    shape = (*array.shape[:axes], int(np.prod(array.shape[axes:])))
    flat = array.reshape(shape)
    if shape[-1] > 1 and flat.strides[-1] not in (0, flat.itemsize):
        flat = np.ascontiguousarray(flat)
    return flat


class Categorical(Likelihood):
    """Categorical distribution of labels, by logits with a last axis of classes.

    log p(x | logits) = logits[x] - logsumexp(logits): minus the cross-entropy. x are labels
    0, 1, ... of any integer or float dtype, (B, ...), and logits (B, ..., C). ``mean``, of labels
    written as one-hot vectors, gives the probabilities, (B, ..., C).

    Parameters
    ----------
    classes : int, optional
        How many classes the decoder must give; None leaves it to the decoder.
    validate : bool, optional
        Raise ValueError where a label is out of range; without, value and gradient are NaN there.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing label, as a mask would.

    Examples
    --------
    >>> import fastelbo
    >>> value, (gradient,) = fastelbo.Categorical().log_prob_and_grad([1], [[0.0, 0.0]])
    >>> round(value, 6)
    -0.693147
    >>> gradient
    array([[-0.5,  0.5]])
    >>> fastelbo.Categorical().mean([[0.0, 0.0, -1000.0]])
    array([[0.5, 0.5, 0. ]])
    """

    parameters = ("logits",)
    _kernels = _classes
    _term = "Categorical"
    _layout = _arrays.Layout("classes", -1)
    _outputs_each = None
    _fuses_latents = False
    _reads_halves = False

    def __init__(
        self, classes: int | None = None, *, validate: bool = True, missing: Missing = None
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        self.classes = classes
        if classes is not None:
            self._outputs_each = as_whole(classes, "classes", 1)
            self._layout = _arrays.Layout("classes", -1, extent=self._outputs_each)
            self._domain = f"the classes 0, 1, ..., {self._outputs_each - 1}"

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
        value, outside = _classes.categorical(
            x,
            mask,
            self._missing_nan,
            parameters[0],
            None if gradients is None else gradients[0],
            weight,
            batch_axes,
            row_values,
            elements,
            threads,
        )
        if outside and self._validate:
            self._complain(x, parameters, batch_axes, mask)
        return value, 0.0, None

    def _is_outside(self, x):
        return is_no_count(x) | (x >= self.classes)

    def _offences(self, x, *parameters):
        classes = parameters[0].shape[-1]
        wrong = is_no_count(x) | (x >= classes)
        yield "x", x, wrong, f"the classes 0, 1, ..., {classes - 1}"

    def _check_over(self, arrays):
        super()._check_over(arrays)
        shape = arrays[0].shape
        if self.classes is not None and shape[-1:] != (self.classes,):
            raise _arrays.shape_error("logits", shape, f"(..., {self.classes})")

    def _mean(self, logits):
        return _softmax(logits, -1)

    def __repr__(self):
        return f"Categorical({'' if self.classes is None else self.classes})"
