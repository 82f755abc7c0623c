"""Likelihoods log p(x | decoder output), each with ``log_prob`` and ``log_prob_and_grad``.

A likelihood names a term of ``_kernels/terms/likelihoods.pxd`` by its code, says which parameters
the decoder gives and which it adds itself, and leaves the work to one pass.
"""

import math

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._threads import threads_for

_evaluate = _builds.kernels("likelihood").evaluate

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")


def as_number(value, name):
    """A Python float."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def positive_scalar(value, name):
    """A positive finite Python float."""
    number = as_number(value, name)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be positive and finite, got {number}")
    return number


class Likelihood:
    """What every likelihood shares: checks, reductions and the call of the pass.

    ``log p(x | parameters)`` is ``factor`` times what the term sums plus ``constant`` per element.
    """

    #: Names of the decoder outputs, the arguments of ``log_prob`` after x.
    parameters = ("x_recon",)
    _code = 0
    _factor = 1.0
    _constant = 0.0
    _x_scale = 1.0
    _validate = True
    _domain = ""
    _has_own_parameters = False

    def _run(self, x, parameters, gradients, weight, row_values, latents, batch_axes, threads):
        """The pass over checked arrays; returns the total log-density (or fills row_values) and
        the KL of the latents, if any."""
        if self._has_own_parameters:
            first = parameters[0]
            parameters += self._own_parameters(first.shape, first.dtype.itemsize == 4)
        value, kl, outside = _evaluate(
            self._code,
            x,
            parameters,
            gradients,
            self._x_scale,
            weight * self._factor,
            batch_axes,
            row_values,
            latents,
            threads,
        )
        if outside and self._validate:
            self._complain(x)
        if row_values is None:
            value *= self._factor
            if self._constant:
                value += self._constant * parameters[0].size
        elif self._factor != 1.0 or self._constant:
            row_values *= self._factor
            row_values += self._constant * (parameters[0].size // row_values.size)
        return value, kl

    def _complain(self, x):
        with np.errstate(all="ignore"):
            scaled = np.asarray(x, np.float64) * self._x_scale
        where = np.argwhere(self._is_outside(scaled))
        if len(where) == 0:  # it is the rounding to float32 that took x outside
            return
        where = where[0]
        position = ", ".join(str(i) for i in where)
        raise ValueError(
            f"x[{position}] = {scaled[tuple(where)]:g} lies outside the domain of "
            f"{type(self).__name__}, {self._domain} (validate=False skips this check)"
        )

    def _is_outside(self, x):
        return np.zeros(x.shape, bool)

    def log_prob(self, x, *parameters, reduction="mean", num_threads=None):
        """Log-density of x, summed over the event.

        Parameters
        ----------
        x : array_like, shape (B, ...)
            Data of any real dtype; integers are read as they are, never converted in memory.
        *parameters : array_like
            The decoder outputs named in ``parameters``: the first has the shape of x, others
            broadcast to it.
        reduction : {"mean", "sum", "none"}
            Over the batch.
        num_threads : int, optional

        Returns
        -------
        float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
            In nats.

        Raises
        ------
        ValueError
            If shapes do not match or x lies outside the domain.
        """
        return self._log_prob(x, parameters, reduction, num_threads, None, False)

    def log_prob_and_grad(self, x, *parameters, reduction="mean", out=None, num_threads=None):
        """:meth:`log_prob` and its gradients in one pass over memory.

        Parameters
        ----------
        x, *parameters, reduction, num_threads
            As in :meth:`log_prob`.
        out : tuple of ndarray, optional
            Where to write the gradients, one array (or None) per parameter.

        Returns
        -------
        value : float or ndarray of shape (B,)
        gradients : tuple of ndarray
            One per parameter, in the shape of x: the gradient of the value returned (with
            ``reduction="none"``, of each sample's own).
        """
        return self._log_prob(x, parameters, reduction, num_threads, out, True)

    def _checked(self, x, parameters):
        if len(parameters) != len(self.parameters):
            self._miscounted(parameters)
        return _arrays.event(x, parameters, self.parameters)

    def _miscounted(self, parameters):
        raise TypeError(
            f"{type(self).__name__} takes {len(self.parameters)} decoder output(s) "
            f"{self.parameters}, got {len(parameters)}"
        )

    def _log_prob(self, x, parameters, reduction, num_threads, out, with_gradient):
        check_reduction(reduction)
        given = (x, *parameters)
        x, parameters = self._checked(x, parameters)
        single = _arrays.computes_in_float32((x, *parameters))
        parameters = tuple(_arrays.in_dtype(p, single) for p in parameters)
        batch = x.shape[0]
        gradients = None
        if with_gradient:
            shapes = [parameters[0].shape] * len(parameters)
            gradients = _arrays.checked_outs(out, shapes, single, given, self.parameters)
        rows = np.empty(batch) if reduction == "none" else None
        weight = 1.0 / batch if reduction == "mean" else 1.0
        threads = threads_for(parameters[0].size, num_threads)
        value, _ = self._run(x, parameters, gradients, weight, rows, None, 1, threads)
        if rows is not None:
            value = rows
        elif reduction == "mean":
            value /= batch
        return (value, gradients) if with_gradient else value

    def __repr__(self):
        return f"{type(self).__name__}()"


class SquaredError(Likelihood):
    """-||x - x_recon||^2 without a constant: the reconstruction term as NumPy code writes it.

    Parameters
    ----------
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.SquaredError().log_prob([[1.0, 2.0]], [[1.0, 0.0]])
    -4.0
    >>> value, (gradient,) = fastelbo.SquaredError().log_prob_and_grad([[1.0, 2.0]], [[1.0, 0.0]])
    >>> gradient
    array([[0., 4.]])
    """

    def __init__(self, *, x_scale=1.0):
        self._x_scale = positive_scalar(x_scale, "x_scale")


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

    def __init__(self, scale=1.0, *, x_scale=1.0):
        self._x_scale = positive_scalar(x_scale, "x_scale")
        self.scale = scale
        if isinstance(scale, str):
            if scale not in ("learned", "optimal"):
                raise ValueError(f'scale must be numbers, "learned" or "optimal", got {scale!r}')
            if scale == "learned":
                self.parameters = ("x_recon", "log_scale")
                self._code = 2
            return
        array = np.asarray(_arrays.as_floats(scale, "scale"), np.float64)
        if not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(f"scale must be positive and finite, got {scale!r}")
        if array.ndim == 0 and 1e-8 <= array <= 1e8:
            self._set_scale(float(array))
        else:  # one for each feature, or one whose square is out of reach of some dtype
            self._set_scales(array)

    def _set_scale(self, scale):
        """A scalar scale is the squared error times a factor."""
        self._factor = 0.5 / scale**2
        self._constant = -math.log(scale) - HALF_LOG_2PI

    def _set_scales(self, array):
        """The term that divides by the scale first."""
        self._code = 1
        self._has_own_parameters = True
        with np.errstate(all="ignore"):
            self._per_feature = (1 / array, np.log(array) + HALF_LOG_2PI)

    def _own_parameters(self, shape, single):
        """Parameters added to the decoder's, broadcast to `shape`."""
        dtype = np.float32 if single else np.float64
        try:
            with np.errstate(all="ignore"):
                own = [p.astype(dtype) for p in self._per_feature]
            return tuple(
                _arrays.few_axes(np.broadcast_to(_compact(p, shape[1:]), shape)) for p in own
            )
        except ValueError:
            raise ValueError(
                f"scale has shape {self._per_feature[0].shape}, which does not broadcast to the "
                f"event {shape[1:]}"
            ) from None

    def _run(self, x, parameters, gradients, weight, row_values, latents, batch_axes, threads):
        if not (isinstance(self.scale, str) and self.scale == "optimal"):
            return super()._run(
                x, parameters, gradients, weight, row_values, latents, batch_axes, threads
            )
        # The scale depends on the whole minibatch: one pass to find it, one that uses it.
        error = SquaredError(x_scale=self._x_scale)
        total, _ = error._run(x, parameters, None, 1.0, None, None, batch_axes, threads)
        size = parameters[0].size
        with np.errstate(all="ignore"):
            variance = float(np.float64(-total) / size)
        if not variance > 0 or not math.isfinite(variance):
            raise ValueError(
                f'scale="optimal" needs a positive, finite mean squared error, got {variance}'
            )
        fixed = Gaussian(math.sqrt(variance), x_scale=self._x_scale)
        return fixed._run(
            x, parameters, gradients, weight, row_values, latents, batch_axes, threads
        )

    def __repr__(self):
        return f"Gaussian(scale={self.scale!r})"


def _compact(array, event):
    """Broadcast to the event's last axis at least, so that it is contiguous there."""
    if array.ndim == 0 or not event:
        return array
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:-1], event[-1])))


class Bernoulli(Likelihood):
    """Bernoulli by logits; x anywhere in [0, 1].

    log p(x | l) = x l - softplus(l), computed as (x - [l > 0]) l - log(1 + e^-\\|l\\|), which keeps
    its digits where the two parts of the first form nearly cancel.

    Parameters
    ----------
    x_scale : float, optional
        What x is multiplied by as it is read, such as 1/255 for uint8 images.
    validate : bool, optional
        Raise ValueError where x lies outside [0, 1]. Found within the pass, at no extra cost.

    Examples
    --------
    >>> import fastelbo
    >>> round(fastelbo.Bernoulli().log_prob([[1.0, 0.0]], [[0.0, 0.0]]), 6)
    -1.386294
    """

    parameters = ("logits",)
    _code = 3
    _domain = "[0, 1]"

    def __init__(self, *, x_scale=1.0, validate=True):
        self._x_scale = positive_scalar(x_scale, "x_scale")
        self._validate = bool(validate)

    def _is_outside(self, x):
        return (x < 0) | (x > 1)
