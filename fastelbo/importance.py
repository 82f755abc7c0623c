"""Importance weights of K samples a data point, and the bound they give, value and gradient.

What follows from log weights alone is in ``bounds.py``.
"""

import math
from itertools import compress
from operator import not_
from typing import NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import check_choice
from fastelbo._named import as_likelihood
from fastelbo._threads import threads_for
from fastelbo.bounds import reduce_rows
from fastelbo.likelihoods import check_reduction, own_shapes, rows_of
from fastelbo.locations import SquaredError
from fastelbo.priors import arrays_of, as_prior, density

_kernels = _builds.kernels("importance")

_SQUARED_ERROR = SquaredError()
ESTIMATORS = ("standard", "stl", "dreg")
#: An element of z costs about this many of x_recon.
LATENT_COST = 8
#: Bytes of derivatives that are written before they are weighed.
CACHE = 32 << 20
#: Bytes of them where they are written to be added up.
ROOM = 1 << 20
#: Log weights whose likelihood is kept.
VALUES_AT_ONCE = 1 << 16


class IwaeGrad(NamedTuple):
    """Gradients of an importance-weighted bound, and the normalised weights, (K, B)."""

    z: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    x_recon: np.ndarray | tuple[np.ndarray, ...]
    weights: np.ndarray


class _Problem:
    """The checked inputs of a call: K samples z of q(z|x), and what the decoder makes of them."""

    def __init__(self, x, z, mu, logvar, x_recon, likelihood, prior, mask, num_threads):
        likelihood = as_likelihood(likelihood)
        if likelihood._couples_rows():
            raise ValueError(
                'likelihood: scale="optimal" depends on the whole minibatch and gives no density '
                "of one sample to weigh; use the scale that training ended with"
            )
        outputs = x_recon if type(x_recon) is tuple else (x_recon,)
        if len(outputs) != len(likelihood.parameters):
            likelihood._miscounted(outputs)
        self.prior = prior = as_prior(prior)
        self.given = (x, z, mu, logvar, mask, *outputs, *arrays_of(prior))
        self.data, checked = likelihood._event(x, outputs, 1)
        self.mask = None if mask is None else _arrays.as_mask(mask, self.data, 1)
        self.shape = samples, batch = self.data.shape[:2]
        mu, logvar = _arrays.latents(mu, logvar, batch=batch)
        z = _arrays.as_floats(z, "z")
        if z.shape != (samples, *mu.shape):
            wanted = f"{(samples, *mu.shape)}, the samples of {likelihood.parameters[0]} and mu"
            raise _arrays.shape_error("z", z.shape, wanted)
        self.single = single = _arrays.computes_in_float32((self.data, z, mu, logvar, *checked))
        self.outputs = tuple(_arrays.in_dtype(a, single) for a in checked)
        self.output_shapes = own_shapes(outputs, self.outputs)
        self.mu, self.logvar = (_arrays.in_dtype(a, single) for a in (mu, logvar))
        self.z = _arrays.in_dtype(z, single)
        if z.ndim and z.strides[-1] == 0:  # one number for a whole row
            self.z = np.ascontiguousarray(self.z)
        self.likelihood = likelihood
        self.threads = threads_for(self.outputs[0].size + LATENT_COST * z.size, num_threads)

    def run(self, log_w=None, bound=None):
        """The passes, by groups of rows, which write what is given."""
        prior = self._of_prior(False)
        for rows in self._groups(VALUES_AT_ONCE // self.shape[0]):
            self._weigh(rows, self.outputs, None, True, prior, log_w, bound)

    def run_with_gradients(self, estimator, weight, bound, weights, by_latents, by_outputs):
        """The same with gradients: by z, mu and logvar, and by the decoder's outputs.

        The derivatives of log p(x|z) shall be in the cache when the weights are known: a worker
        takes all samples of a row, or else groups are small. Those by a parameter that is broadcast
        are then weighed and added up.
        """
        full = self.outputs[0].shape
        parameters = tuple([np.broadcast_to(a, full) for a in self.outputs])
        is_full = [a.shape == full for a in by_outputs]
        sums = [
            np.zeros((1,) * (len(full) - a.ndim) + a.shape) for a in by_outputs if a.shape != full
        ]
        by_row = all(is_full)
        groups = self._groups(self._at_once(by_row, len(by_outputs)))
        room_shape = (full[0], groups[0].stop, *full[2:])
        rooms = [None if f else np.empty(math.prod(room_shape), self.mu.dtype) for f in is_full]
        prior = self._of_prior(True)
        for rows in groups:
            shape = (full[0], rows.stop - rows.start, *full[2:])
            derivatives = tuple(
                a[:, rows] if room is None else room[: math.prod(shape)].reshape(shape)
                for a, room in zip(by_outputs, rooms, strict=True)
            )
            gradients = (weights, *by_latents, tuple(compress(by_outputs, is_full)))
            how = (gradients, estimator, weight)
            self._weigh(rows, parameters, derivatives, by_row, prior, None, bound, *how)
            for total, part in zip(sums, compress(derivatives, map(not_, is_full)), strict=True):
                _add_sums(total, part, weights, rows)
        for a, total in zip(compress(by_outputs, map(not_, is_full)), sums, strict=True):
            a[...] = weight * total.reshape(a.shape)

    def _groups(self, at_once):
        """Slices of so many rows, or of one."""
        batch, step = self.shape[1], max(at_once, 1)
        return [slice(first, min(first + step, batch)) for first in range(0, batch, step)]

    def _at_once(self, by_row, outputs):
        """Rows a group: whose derivatives the caches hold, unless each row is weighed at once."""
        values = VALUES_AT_ONCE // self.shape[0]
        if by_row and self._goes_by_row(min(values, self.shape[1])):
            return values
        row_bytes = max(1, outputs * self.outputs[0].nbytes // self.shape[1])
        return min(values, (CACHE if by_row else ROOM) // row_bytes)

    def _goes_by_row(self, rows):
        """Whether a group of rows is divided by rows, all samples of each."""
        return self.likelihood._fuses_latents and rows >= _kernels.ROWS_A_THREAD * self.threads

    def _weigh(self, rows, parameters, derivatives, by_row, prior, *outputs):
        """The passes over some rows; `outputs`: what a Weigher takes from log_w on."""
        log_p = np.empty((self.shape[0], rows.stop - rows.start))
        latents = (self.z, self.mu, self.logvar)
        weigher = _kernels.Weigher(log_p, rows.start, latents, prior, *outputs)
        by_row = by_row and self._goes_by_row(log_p.shape[1])
        self._log_prob(rows, parameters, derivatives, log_p, weigher.follower() if by_row else None)
        if not by_row:
            weigher.run(self.threads)

    def _log_prob(self, rows, parameters, derivatives, values, follower):
        """log p(x|z) of some rows, (K, rows), and its derivatives where they are wanted."""
        axes = parameters[0].ndim
        x, mask = (rows_of(a, self.data.ndim, rows) for a in (self.data, self.mask))
        some = tuple([rows_of(a, axes, rows) for a in parameters])
        run = self.likelihood._pass
        of_rows = self.likelihood._of_rows(rows, self.data.ndim)
        try:
            of_rows._pass(x, some, derivatives, 1.0, values, None, 2, self.threads, mask, follower)
        except ValueError:  # once more, to name the offender in the caller's numbering
            everything = np.empty(self.shape)
            run(self.data, self.outputs, None, 1.0, everything, None, 2, self.threads, self.mask)
            raise

    def _of_prior(self, with_gradient):
        """(log p(z), its gradient or None) of a prior that is no standard normal."""
        if self.prior is None:
            return None
        return density(self.prior, self.z, with_gradient)


def _add_sums(total, part, weights, rows):
    """Weigh a group of rows, and add it to the sums over what a parameter is broadcast along."""
    total = rows_of(total, part.ndim, rows)
    weights = weights[:, rows].reshape(*part.shape[:2], *(1,) * (part.ndim - 2))
    axes = tuple(d for d, extent in enumerate(total.shape) if extent == 1)
    with np.errstate(all="ignore"):
        part *= weights
        total += part.sum(axis=axes, keepdims=True, dtype=np.float64)


def log_weights(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    prior=None,
    mask=None,
    out=None,
    num_threads=None,
):
    """Log importance weights log p(x|z) + log p(z) - log q(z|x) of K samples z of each x.

    One pass over memory, in which nothing of the size of x_recon is allocated.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data; uint8 and other integers are read as they are (see the likelihood's ``x_scale``).
    z : array_like, shape (K, B, L)
        Samples of q(z|x), from ``reparameterize(mu, logvar, samples=K)`` for example.
    mu, logvar : array_like, shape (B, L)
        Parameters of q(z|x) = N(mu, diag(e^logvar)).
    x_recon : array_like, shape (K, B, ...)
        What the decoder makes of z, as the likelihood reads it. A tuple of such arrays for a
        likelihood of several parameters.
    likelihood : Likelihood or str, optional
        log p(x | x_recon). With ``SquaredError()``, which lacks a constant, so do the weights.
    prior : object, optional
        p(z); None is N(0, I). Else a :class:`~fastelbo.MixtureOfGaussians`, a
        :class:`~fastelbo.VampPrior`, or anything with a method ``log_prob(z)`` that gives (K, B)
        log-densities and, where a gradient is wanted, ``log_prob_and_grad(z)`` that gives these
        and their derivative by z, (K, B, L).
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x. Missing values add nothing to log p(x|z) and
        have no gradient.
    out : ndarray of shape (K, B) and dtype float64, optional
        Where to write them.
    num_threads : int, optional

    Returns
    -------
    ndarray of shape (K, B) and dtype float64
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or x lies outside the likelihood's domain. The
        message names the argument.

    Examples
    --------
    >>> import fastelbo
    >>> x, mu, logvar = [[1.0, 2.0]], [[0.0]], [[0.0]]
    >>> z, x_recon = [[[0.0]], [[1.0]]], [[[0.0, 0.0]], [[1.0, 2.0]]]
    >>> fastelbo.log_weights(x, z, mu, logvar, x_recon)
    array([[-5.],
           [ 0.]])
    """
    problem = _Problem(x, z, mu, logvar, x_recon, likelihood, prior, mask, num_threads)
    out = _arrays.checked_out(out, problem.shape, False, problem.given, "out")
    problem.run(log_w=out)
    return out


def iwae(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    prior=None,
    mask=None,
    reduction="mean",
    num_threads=None,
):
    """Importance-weighted bound L_K = log (1/K) sum_k w_k of log p(x) [1]_.

    w_k = p(x, z_k) / q(z_k|x). In expectation L_1 is the ELBO, and L_K grows with K towards
    log p(x).

    Parameters
    ----------
    x, z, mu, logvar, x_recon, likelihood, prior, mask, num_threads
        As in :func:`log_weights`.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As :func:`log_weights`.

    References
    ----------
    .. [1] Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. ICLR 2016.

    Examples
    --------
    >>> import fastelbo
    >>> x, mu, logvar = [[1.0, 2.0]], [[0.0]], [[0.0]]
    >>> z, x_recon = [[[0.0]], [[1.0]]], [[[0.0, 0.0]], [[1.0, 2.0]]]
    >>> round(fastelbo.iwae(x, z, mu, logvar, x_recon), 6)
    -0.686432
    """
    check_reduction(reduction)
    problem = _Problem(x, z, mu, logvar, x_recon, likelihood, prior, mask, num_threads)
    rows = np.empty(problem.shape[1])
    problem.run(bound=rows)
    return reduce_rows(rows, reduction)


def iwae_and_grad(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    prior=None,
    mask=None,
    estimator="standard",
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`iwae` and its gradients, in one pass over memory.

    All are partial derivatives: z, mu, logvar and x_recon count as separate arguments of log w.
    What reaches z through the decoder, and mu and logvar through z, is the caller's to add:

    - the decoder's backward takes ``grad.x_recon``; it gives the gradients of the decoder's own
      parameters, and ``dz``, (K, B, L);
    - ``total = grad.z + dz``, but for DReG ``grad.z + grad.weights[..., None] * dz``, because there
      the encoder sees squared weights and the decoder plain ones. (That row k, b of dz comes from
      row k, b of x_recon alone is taken for granted: no batch normalisation in the decoder.)
    - ``grad.mu`` and ``grad.logvar`` are added to what
      ``reparameterize_backward(total, mu, logvar, z)`` gives.

    Parameters
    ----------
    x, z, mu, logvar, x_recon, likelihood, prior, mask, reduction, num_threads
        As in :func:`iwae`.
    estimator : {"standard", "stl", "dreg"}
        With w~ the normalised weights, ``"standard"`` is the gradient of the bound,
        sum_k w~_k d log w_k. ``"stl"`` (sticking the landing [1]_) leaves out what reaches mu and
        logvar through log q(z|x) for given z: ``mu`` and ``logvar`` are zero. Its variance
        vanishes where q is exact, but it is unbiased at K = 1 only. ``"dreg"`` (doubly
        reparameterized [2]_) is unbiased and of low variance for all K: ``mu`` and ``logvar`` are
        zero, ``z`` is sum_k w~_k^2 d log w_k/dz_k.
    out : tuple (z, mu, logvar, x_recon), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    bound : float or ndarray of shape (B,)
    gradients : IwaeGrad
        ``z`` (K, B, L), ``mu`` and ``logvar`` (B, L), ``x_recon`` (K, B, ...) (a tuple if x_recon
        was one), to ascend (with ``reduction="none"``, of each sample's own bound), and
        ``weights`` (K, B), w~.

    Raises
    ------
    ValueError, TypeError
        As :func:`log_weights`.

    Notes
    -----
    Weights are differences of log weights, and inherit their rounding: about 1e-7 ``|log w|`` of
    their size in float32.

    References
    ----------
    .. [1] Roeder, Wu, Duvenaud. Sticking the landing: simple, lower-variance gradient estimators
       for variational inference. NeurIPS 2017.
    .. [2] Tucker, Lawson, Gu, Maddison. Doubly reparameterized gradient estimators for Monte Carlo
       objectives. ICLR 2019.

    Examples
    --------
    >>> import fastelbo
    >>> x, mu, logvar = [[1.0]], [[0.0]], [[0.0]]
    >>> z, x_recon = [[[0.0]], [[0.0]]], [[[0.0]], [[2.0]]]
    >>> bound, grad = fastelbo.iwae_and_grad(x, z, mu, logvar, x_recon)
    >>> grad.weights.ravel(), grad.x_recon.ravel()
    (array([0.5, 0.5]), array([ 1., -1.]))
    """
    return _bound_and_grad(
        x, z, mu, logvar, x_recon, likelihood, prior, mask, estimator, reduction, out, num_threads
    )


def _bound_and_grad(
    x,
    z,
    mu,
    logvar,
    x_recon,
    likelihood,
    prior,
    mask,
    estimator,
    reduction,
    out,
    num_threads,
    sign=1.0,
):
    """The bound, and the gradients of `sign` times it."""
    check_reduction(reduction)
    check_choice(estimator, "estimator", ESTIMATORS)
    problem = _Problem(x, z, mu, logvar, x_recon, likelihood, prior, mask, num_threads)
    batch = problem.shape[1]
    several = type(x_recon) is tuple
    if out is not None:
        if not isinstance(out, tuple) or len(out) != 4:
            raise TypeError("out must be None or a tuple (z, mu, logvar, x_recon)")
        out = (*out[:3], *(out[3] if several and isinstance(out[3], tuple) else (out[3],)))
    dz, dmu, dlogvar, *by_outputs = _arrays.checked_outs(
        out,
        [*(a.shape for a in (problem.z, problem.mu, problem.logvar)), *problem.output_shapes],
        problem.single,
        problem.given,
        ("z", "mu", "logvar", *problem.likelihood.parameters),
    )
    weights = np.empty(problem.shape, dz.dtype)
    rows = np.empty(batch)
    weight = sign / batch if reduction == "mean" else sign
    problem.run_with_gradients(estimator, weight, rows, weights, (dz, dmu, dlogvar), by_outputs)
    by_outputs = tuple(by_outputs) if several else by_outputs[0]
    return reduce_rows(rows, reduction), IwaeGrad(dz, dmu, dlogvar, by_outputs, weights)
