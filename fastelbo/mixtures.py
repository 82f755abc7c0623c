"""Mixtures of diagonal Gaussians: the log density of points, and all its gradients."""

from math import prod
from typing import NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._threads import threads_for
from fastelbo.bounds import reduce_rows
from fastelbo.likelihoods import check_reduction

_kernels = _builds.kernels("mixtures")


class MixtureGrad(NamedTuple):
    """Gradients of a mixture's log density, each in the shape of the argument it is named after."""

    z: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    log_weights: np.ndarray


class Components:
    """The checked parameters of a mixture."""

    def __init__(self, mu, logvar, log_weights):
        mu, logvar = _arrays.gaussians(mu, logvar, ("components",))
        log_weights = _arrays.as_floats(log_weights, "log_weights")
        if log_weights.shape != mu.shape[:1]:
            raise _arrays.shape_error("log_weights", log_weights.shape, f"({len(mu)},) like mu")
        self.mu, self.logvar, self.log_weights = mu, logvar, log_weights

    def points(self, z):
        """z as floats, of the right dimension and not empty."""
        z = _arrays.as_floats(z, "z")
        if z.ndim == 0 or z.shape[-1] != self.mu.shape[1]:
            raise _arrays.shape_error("z", z.shape, f"(..., {self.mu.shape[1]}) like mu")
        if 0 in z.shape[:-1]:
            raise _arrays.empty_error("z", z.shape, "batch")
        return z

    def is_single(self, z):
        """Whether all is computed in float32."""
        return _arrays.computes_in_float32((z, self.mu, self.logvar, self.log_weights))

    def log_prob(self, z, gradients=None, weight=1.0, point_weights=None, num_threads=None):
        """Log densities of the checked z, float64 of its leading shape; fills `gradients`."""
        single = self.is_single(z)
        cols = self.mu.shape[1]
        points = _arrays.as_rows(z, "z", single).reshape(prod(z.shape[:-1]), cols)
        mu, logvar = (_arrays.as_rows(a, "mu", single) for a in (self.mu, self.logvar))
        log_weights = np.ascontiguousarray(_arrays.in_dtype(self.log_weights, single))
        values = np.empty(len(points))
        threads = threads_for(len(points) * mu.size, num_threads)
        _kernels.mixture(
            points, mu, logvar, log_weights, point_weights, weight, values, gradients, threads
        )
        return values.reshape(z.shape[:-1])


def mixture_log_prob(z, mu, logvar, log_weights, *, reduction="mean", num_threads=None):
    """Log density log sum_k e^log_weights_k N(z; mu_k, diag(e^logvar_k)) of points z.

    The squared differences are summed directly, not as a matrix product of expanded squares, so
    that nothing cancels where components are sharp; memory is O((N + K) L).

    Parameters
    ----------
    z : array_like, shape (..., L)
        N points.
    mu, logvar : array_like, shape (K, L)
        Means and log variances of the components.
    log_weights : array_like, shape (K,)
        Logarithms of the components' weights, taken as they are: a density results where the
        weights add up to one, and where they do not, its logarithm plus that of their sum. -inf
        leaves a component out.
    reduction : {"mean", "sum", "none"}
        Over all points.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (...) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> mu, logvar = [[-1.0], [1.0]], [[0.0], [0.0]]
    >>> round(fastelbo.mixture_log_prob([[0.0]], mu, logvar, np.log([0.5, 0.5])), 6)
    -1.418939
    """
    check_reduction(reduction)
    components = Components(mu, logvar, log_weights)
    values = components.log_prob(components.points(z), num_threads=num_threads)
    return reduce_rows(values, reduction)


def mixture_log_prob_and_grad(
    z, mu, logvar, log_weights, *, reduction="mean", out=None, num_threads=None
):
    """:func:`mixture_log_prob` and its gradients.

    Parameters
    ----------
    z, mu, logvar, log_weights, reduction, num_threads
        As in :func:`mixture_log_prob`.
    out : tuple (z, mu, logvar, log_weights), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    value : float or ndarray of shape (...)
    gradients : MixtureGrad
        ``z``, ``mu``, ``logvar`` and ``log_weights``, to ascend; with ``reduction="none"`` those of
        the sum. That by log_weights takes them for free numbers, and is the expected number of
        points of each component; :class:`~fastelbo.MixtureOfGaussians` gives that by logits.

    Raises
    ------
    ValueError, TypeError
        As :func:`mixture_log_prob`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> mu, logvar = [[-1.0], [1.0]], [[0.0], [0.0]]
    >>> value, grad = fastelbo.mixture_log_prob_and_grad([[0.0]], mu, logvar, np.log([0.5, 0.5]))
    >>> grad.log_weights, grad.mu.ravel()
    (array([0.5, 0.5]), array([ 0.5, -0.5]))
    """
    check_reduction(reduction)
    components = Components(mu, logvar, log_weights)
    points = components.points(z)
    shapes = (points.shape, *(a.shape for a in vars(components).values()))
    gradients = _arrays.checked_outs(
        out,
        shapes,
        components.is_single(points),
        (z, mu, logvar, log_weights),
        MixtureGrad._fields,
    )
    weight = 1.0 / prod(points.shape[:-1]) if reduction == "mean" else 1.0
    values = components.log_prob(points, gradients, weight, num_threads=num_threads)
    return reduce_rows(values, reduction), MixtureGrad(*gradients)


def weighted_gradients(z, mu, logvar, log_weights, weights, *, num_threads=None):
    """The MixtureGrad of sum(weights * log densities), weights in the leading shape of z."""
    components = Components(mu, logvar, log_weights)
    points = components.points(z)
    single = components.is_single(points)
    arrays = points, components.mu, components.logvar, components.log_weights
    gradients = tuple(_arrays.empty_like(a, single) for a in arrays)
    weights = np.asarray(weights, np.float64).ravel()
    components.log_prob(points, gradients, 1.0, weights, num_threads)
    return MixtureGrad(*gradients)
