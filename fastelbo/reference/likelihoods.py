"""Likelihoods over real numbers, and what all likelihoods share."""

import numpy as np

from fastelbo.reference._common import LOG_2PI, as_float64, quiet, reduce_rows, row_weight
from fastelbo.reference._gamma import half_rise, log1p_minus

LEAST = np.finfo(np.float64).tiny


def is_no_count(x):
    """Negative, or no whole number; NaN does not count."""
    return (x < 0) | ((np.floor(x) != x) & ~np.isnan(x))


def sum_to(array, shape):
    """The sum over the axes along which `shape` was broadcast to that of the array."""
    more = array.ndim - len(shape)
    axes = (*range(more), *(more + d for d, extent in enumerate(shape) if extent == 1))
    return array.sum(axis=axes, keepdims=True).reshape(shape)


class Likelihood:
    """What the likelihoods share: an element-wise log density and its reduction.

    ``elements(x, *parameters)`` returns log p of every element and a tuple of its derivatives by
    each parameter; ``outside`` says which elements lie outside the domain. ``missing="nan"``: NaN
    in x is a missing value, as False in ``mask`` is.
    """

    x_scale = 1.0
    validate = True
    missing = None

    def outside(self, x, *parameters):
        return np.zeros(x.shape, bool)

    def check(self, keep, x, *parameters):
        if self.validate and np.any(keep & self.outside(x, *parameters)):
            raise ValueError("x or a parameter lies outside the domain")

    def like_gradient(self, keep):
        """A mask in the shape of x, so that it broadcasts to a gradient."""
        return keep

    def log_prob(self, x, *parameters, mask=None, reduction="mean"):
        """log p(x | parameters), summed over the event unless ``reduction="elementwise"``."""
        return self.log_prob_and_grad(x, *parameters, mask=mask, reduction=reduction)[0]

    @quiet
    def log_prob_and_grad(self, x, *parameters, mask=None, reduction="mean"):
        """(log_prob, gradients by each parameter, in its own shape, in a tuple)."""
        x = as_float64(x) * self.x_scale
        parameters = tuple(as_float64(p) for p in parameters)
        keep = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
        if self.missing == "nan":
            keep = keep & ~np.isnan(x)
        self.check(keep, x, *parameters)
        values, grads = self.elements(x, *parameters)
        event = () if reduction == "elementwise" else tuple(range(-(x.ndim - 1), 0))
        rows = np.where(keep, values, 0.0).sum(axis=event)
        weight = row_weight(rows.size, reduction)
        keep = self.like_gradient(keep)
        grads = (
            sum_to(np.where(keep, weight * g, 0.0), p.shape)
            for g, p in zip(grads, parameters, strict=True)
        )
        return reduce_rows(rows, reduction), tuple(grads)


class SquaredError(Likelihood):
    """``-||x - x_recon||^2``, with no constant.

    Examples
    --------
    >>> SquaredError().log_prob_and_grad([[1.0, 0.0]], [[0.5, 1.0]])
    (-1.25, (array([[ 1., -2.]]),))
    """

    def __init__(self, *, x_scale=1.0, missing=None):
        self.x_scale = x_scale
        self.missing = missing

    def elements(self, x, x_recon):
        error = x - x_recon
        return -error * error, (2.0 * error,)


def is_word(value):
    """ "learned" or "optimal", and no number."""
    return isinstance(value, str)


def root_precision(scale, log_scale=None):
    """1 / sqrt(scale): multiplied by twice, where 1 / scale might be infinite and a factor zero."""
    if log_scale is None:
        return 1.0 / np.sqrt(as_float64(scale))
    return np.exp(np.minimum(-0.5 * log_scale, 709.7))


class Gaussian(Likelihood):
    """log N(x; x_recon, scale^2), normalised.

    ``scale`` is a number, an array that broadcasts to the event, ``"learned"`` (a second
    parameter, ``log_scale``) or ``"optimal"`` (sigma-VAE, Rybkin et al. 2021: the mean squared
    error of the minibatch as sigma^2).

    Examples
    --------
    >>> round(Gaussian(2.0).log_prob([[1.0]], [[0.0]]), 12)
    -1.737085713765
    >>> Gaussian("learned").log_prob_and_grad([[1.0]], [[0.0]], [[0.0]])[1]
    (array([[1.]]), array([[0.]]))
    """

    def __init__(self, scale=1.0, *, x_scale=1.0, missing=None):
        self.scale = scale
        self.x_scale = x_scale
        self.missing = missing

    def log_prob_and_grad(self, x, *parameters, mask=None, reduction="mean"):
        options = {"mask": mask, "reduction": reduction}
        if not (is_word(self.scale) and self.scale == "optimal"):
            return super().log_prob_and_grad(x, *parameters, **options)
        scaled = as_float64(x) * self.x_scale
        keep = np.isnan(scaled) if self.missing == "nan" else np.zeros(scaled.shape, bool)
        keep = ~keep if mask is None else ~keep & mask
        error = np.where(keep, scaled - as_float64(parameters[0]), 0.0)
        with np.errstate(all="ignore"):  # the derivative by this scale vanishes over the minibatch
            variance = (error * error).sum() / np.broadcast_to(keep, error.shape).sum()
            best = Gaussian(np.sqrt(variance), x_scale=self.x_scale)
        best.missing = self.missing
        return best.log_prob_and_grad(x, *parameters, **options)

    def elements(self, x, x_recon, log_scale=None):
        error = x - x_recon
        learned = log_scale is not None
        optimal = is_word(self.scale) and not learned
        scale = np.sqrt(np.mean(error * error)) if optimal else self.scale
        root = root_precision(scale, log_scale)
        log_scale = log_scale if learned else np.log(scale)
        scaled = error * root * root
        square = scaled * scaled
        values = -0.5 * square - log_scale - 0.5 * LOG_2PI
        values = np.where(square == np.inf, -np.inf, values)  # whatever log_scale adds
        by_mean = scaled * root * root
        return values, (by_mean, square - 1.0) if learned else (by_mean,)


class Laplace(Likelihood):
    """``-|x - x_recon| / scale - log(2 scale)``; ``scale`` as a number, array or ``"learned"``.

    Examples
    --------
    >>> value, gradients = Laplace(0.5).log_prob_and_grad([[1.0]], [[0.0]])
    >>> round(value, 12), gradients
    (-2.0, (array([[2.]]),))
    """

    def __init__(self, scale=1.0, *, x_scale=1.0, missing=None):
        self.scale = scale
        self.x_scale = x_scale
        self.missing = missing

    def elements(self, x, x_recon, log_scale=None):
        learned = is_word(self.scale)
        error = x - x_recon
        root = root_precision(self.scale, log_scale)
        log_scale = log_scale if learned else np.log(self.scale)
        size = np.abs(error) * root * root
        values = np.where(size == np.inf, -np.inf, -size - log_scale - np.log(2.0))
        by_recon = np.sign(error) * root * root
        return values, (by_recon, size - 1.0) if learned else (by_recon,)


class StudentT(Likelihood):
    """Student's t density; ``df`` and ``scale`` are numbers, arrays or ``"learned"``.

    Learned ones are the parameters ``log_scale`` and ``log_df``, in this order. With z the scaled
    error and u = z^2 / df: h - log(2 pi) / 2 - log scale - (df + 1) / 2 log(1 + u), where h is
    lgamma((df + 1) / 2) - lgamma(df / 2) - log(df / 2) / 2, which vanishes for large df. Where u is
    small df log(1 + u) is taken as z^2 (log(1 + u) / u), so that df may be infinite: a Gaussian.

    Examples
    --------
    >>> round(StudentT(1.0).log_prob([[0.0]], [[0.0]]), 12)  # -log(pi)
    -1.144729885849
    """

    def __init__(self, df, scale=1.0, *, x_scale=1.0, missing=None):
        self.df = df
        self.scale = scale
        self.x_scale = x_scale
        self.missing = missing

    def elements(self, x, x_recon, *learned):
        given = list(learned)
        log_scale = given.pop(0) if is_word(self.scale) else None
        root = root_precision(self.scale, log_scale)
        log_scale = np.log(self.scale) if log_scale is None else log_scale
        log_df = given.pop(0) if is_word(self.df) else np.log(self.df)
        df = np.exp(log_df) if is_word(self.df) else as_float64(self.df)
        root_df = np.exp(np.clip(0.5 * log_df, -709.0, 709.0)) if is_word(self.df) else np.sqrt(df)
        error = x - x_recon
        z = error * root * root
        h, by_h = half_rise(np.clip(0.5 * df, LEAST, 0.5 * np.finfo(np.float64).max))
        h = h + 0.5 * np.minimum(log_df - np.log(2.0 * LEAST), 0.0)  # where df is no number
        log_u = 2.0 * (np.log(np.abs(error)) - log_scale) - log_df
        u = np.where(log_df < -1418.0, np.exp(log_u), (z / root_df) ** 2)
        far = u > 1.0
        large, small = np.where(far, u, 1.0), np.where(far, 0.0, u)
        log_one_plus = np.where(u == np.inf, log_u, np.log1p(u))
        ratio = np.where(small > 1e-100, log1p_minus(small) / small, -0.5 * small)
        square = np.where(far, 0.0, z) ** 2
        df_log = np.where(far, df * log_one_plus, square * (1.0 + ratio))
        values = h - 0.5 * LOG_2PI - log_scale - 0.5 * (df_log + log_one_plus)
        of_scale_zero = (log_scale == -np.inf) & (np.abs(error) > 0.0)
        values = np.where((log_df == -np.inf) | of_scale_zero, -np.inf, values)
        share = np.where(far, 1.0 / (1.0 + 1.0 / large), small / (1.0 + small))
        pull = np.where(
            far,
            (df + 1.0) / np.where(far, error, 1.0) * share,
            (z + (z / root_df) / root_df) / (1.0 + small) * root * root,
        )
        grads = [pull]
        if is_word(self.scale):
            near = (square + small) / (1.0 + small) - 1.0
            grads.append(np.where(far, df * share - 1.0 / (1.0 + large), near))
        if is_word(self.df):
            lost = np.where(far, df * (log_one_plus - share), square * (ratio + share))
            lost = np.where(df == 0.0, 0.0, lost)
            grads.append(np.where(df == np.inf, 0.0, by_h) + 0.5 * (share - lost))
        return values, tuple(grads)


class Bernoulli(Likelihood):
    """x l - softplus(l) for logits l and x in [0, 1]; or x log p + (1 - x) log(1 - p).

    The first evaluated as ``(x - [l > 0]) l - log(1 + e^-|l|)``, from which the large parts are
    gone: x = 1, l = 40 keeps all its digits. Its derivative is x - sigmoid(l) in the same manner.

    The second, of probabilities, for ``probs``. ``clamp``: logarithms of at least -100, and
    (x - p) / max(p (1 - p), 1e-12) for the derivative, as PyTorch's binary_cross_entropy.

    Examples
    --------
    >>> Bernoulli().log_prob([[1.0]], [[40.0]])
    -4.248354255291589e-18
    """

    def __init__(self, *, probs=False, clamp=False, x_scale=1.0, validate=True, missing=None):
        self.probs = probs
        self.clamp = clamp
        self.x_scale = x_scale
        self.validate = validate
        self.missing = missing

    def outside(self, x, given):
        outside = (x < 0.0) | (x > 1.0)
        return outside | (given < 0.0) | (given > 1.0) if self.probs else outside

    def elements(self, x, given):
        if self.clamp:
            return self._of_clamped(x, given)
        return self._of_probs(x, given) if self.probs else self._of_logits(x, given)

    def _of_clamped(self, x, p):
        log_p, log_rest = np.maximum(np.log(p), -100.0), np.maximum(np.log1p(-p), -100.0)
        slope = (x - p) / np.maximum(p * (1.0 - p), np.float32(1e-12))
        return x * log_p + (1.0 - x) * log_rest, (slope,)

    def _of_probs(self, x, p):
        x = np.where((x > 1.0) & (x < 1.0000003), 1.0, x)  # its scaling may have rounded up
        hit = np.where(x == 0.0, 0.0, x * np.log(p))
        missed = np.where(x == 1.0, 0.0, (1.0 - x) * np.log1p(-p))
        between = (x - p) / (p * (1.0 - p))
        slope = np.where(x == 0.0, -1.0 / (1.0 - p), np.where(x == 1.0, 1.0 / p, between))
        return hit + missed, (slope,)

    def _of_logits(self, x, logits):
        positive = np.where(logits > 0.0, 1.0, 0.0)
        small = np.exp(-np.abs(logits))
        values = np.where(x == positive, 0.0, (x - positive) * logits) - np.log1p(small)
        return values, ((x - positive) + np.where(logits > 0.0, small, -small) / (1.0 + small),)


class ContinuousBernoulli(Likelihood):
    """x l - log((e^l - 1) / l) for logits l (Loaiza-Ganem & Cunningham 2019).

    With t = ``|l|``: (x - [l > 0]) l - log((1 - e^-t) / t), by series near t = 0.

    Examples
    --------
    >>> ContinuousBernoulli().log_prob([[0.25]], [[0.0]])
    0.0
    """

    def __init__(self, *, x_scale=1.0, validate=True, missing=None):
        self.x_scale = x_scale
        self.validate = validate
        self.missing = missing

    def outside(self, x, *parameters):
        return (x < 0.0) | (x > 1.0)

    def elements(self, x, logits):
        positive = np.where(logits > 0.0, 1.0, 0.0)
        t = np.abs(logits)
        near = t < 1e-2
        inside = np.where(near, 1.0, t)
        linear = np.where(x == positive, 0.0, (x - positive) * logits)
        log_ratio = np.where(
            near,
            -t / 2 + t**2 / 24 - t**4 / 2880 + t**6 / 181440,
            np.log(-np.expm1(-inside) / inside),
        )
        mean = np.where(  # of the density at -t
            near,
            0.5 - t / 12 + t**3 / 720 - t**5 / 30240,
            1.0 / inside - 1.0 / np.expm1(inside),
        )
        values = np.where(linear == -np.inf, linear, linear - log_ratio)
        return values, ((x - positive) + np.where(logits > 0.0, mean, -mean),)
