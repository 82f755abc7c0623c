"""Priors p(z) besides the standard normal, for ``prior=`` of the ELBO, of IWAE and of log weights.

A prior is anything with ``log_prob(z)`` and ``log_prob_and_grad(z)``: log densities in the leading
shape of z, and their derivative by z. Those here have ``backward``, too: the gradients by their own
parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_numbers, as_whole, shown, weighed
from fastelbo.mixtures import Components
from fastelbo.posterior import (
    noise_key,
    posterior_log_prob,
    reparameterize,
    reparameterize_backward,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import Float64Array, FloatArray, Rng, Threads

LOG_2PI = float(np.log(2 * np.pi))


class PriorGrad(NamedTuple):
    """Gradients by z and by a mixture's parameters; ``logits`` is None where those are fixed."""

    z: FloatArray
    mu: FloatArray
    logvar: FloatArray
    logits: FloatArray | None


class StandardNormal:
    """N(0, I), the prior that ``prior=None`` stands for.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.StandardNormal().log_prob_and_grad([[1.0, 2.0]])
    (array([-4.33787707]), array([[-1., -2.]]))
    """

    def log_prob(self, z: ArrayLike) -> Float64Array:
        """Log densities (...) of z (..., L), float64, in nats."""
        z = _points(z)
        return -0.5 * (np.einsum("...l,...l", z, z, dtype=np.float64) + z.shape[-1] * LOG_2PI)

    def log_prob_and_grad(self, z: ArrayLike) -> tuple[Float64Array, FloatArray]:
        """The same, and their derivative by z, in its shape and dtype."""
        z = _points(z)
        return self.log_prob(z), -z

    def __repr__(self):
        return "StandardNormal()"


class MixtureOfGaussians:
    """A mixture of K diagonal Gaussians with weights softmax(logits).

    Parameters
    ----------
    mu, logvar : array_like, shape (K, L)
        Means and log variances. Float arrays are kept, not copied: change them in place, and the
        prior has changed.
    logits : array_like of shape (K,), optional
        Logarithms of the weights, up to a constant: log weights serve as well. Without them weights
        are equal, and ``backward`` gives no gradient for them.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit; the message names the argument.

    Examples
    --------
    >>> import fastelbo
    >>> prior = fastelbo.MixtureOfGaussians([[-1.0], [1.0]], [[0.0], [0.0]], [0.0, 0.0])
    >>> values, by_z = prior.log_prob_and_grad([[0.0], [1.0]])
    >>> values.round(4), by_z.ravel().round(4)
    (array([-1.4189, -1.4852]), array([ 0.    , -0.2384]))
    >>> prior.backward([[0.0], [1.0]], 0.5).logits.round(4)
    array([-0.1904,  0.1904])
    """

    mu: FloatArray
    logvar: FloatArray
    logits: FloatArray | None

    def __init__(self, mu: ArrayLike, logvar: ArrayLike, logits: ArrayLike | None = None) -> None:
        equal = np.zeros(np.shape(mu)[:1], np.float32) if logits is None else logits
        try:
            checked = Components(mu, logvar, equal)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("log_weights", "logits")) from None
        self.mu, self.logvar = checked.mu, checked.logvar
        self.logits = None if logits is None else checked.log_weights

    @property
    def log_weights(self) -> FloatArray:
        """Logarithms of the components' weights, which add up to one; (K,)."""
        given = self.mu if self.logits is None else self.logits
        return self._exact_log_weights().astype(given.dtype)

    def _exact_log_weights(self):
        """In float64, for what is not computed in float32."""
        if self.logits is None:
            return np.full(len(self.mu), -np.log(len(self.mu)))
        logits = np.asarray(self.logits, np.float64)
        shifted = logits - logits.max()
        return shifted - np.log(np.exp(shifted).sum())

    def _run(self, z, weights=None, num_threads=None, with_gradient=True):
        """(log densities, PriorGrad of the sum of them times `weights`, or None)."""
        components = Components(self.mu, self.logvar, self.log_weights)
        points = components.points(z)
        if not components.is_single(points):
            components.log_weights = self._exact_log_weights()
        gradients = None
        if with_gradient:
            arrays = (points, components.mu, components.logvar, components.log_weights)
            single = components.is_single(points)
            gradients = tuple(_arrays.empty_like(a, single) for a in arrays)
        of_points = None
        if weights is not None:
            of_points = as_numbers(weights, "weights")
            try:
                of_points = np.broadcast_to(of_points, points.shape[:-1]).ravel()
            except ValueError:
                wanted = f"one that broadcasts to {points.shape[:-1]}"
                raise _arrays.shape_error("weights", of_points.shape, wanted) from None
        values = components.log_prob(points, gradients, 1.0, of_points, num_threads)
        if gradients is None:
            return values, None
        by_z, by_mu, by_logvar, by_logits = gradients
        if self.logits is None:
            by_logits = None
        else:
            by_logits -= np.exp(components.log_weights) * by_logits.sum(dtype=np.float64)
        return values, PriorGrad(by_z, by_mu, by_logvar, by_logits)

    def log_prob(self, z: ArrayLike, *, num_threads: Threads = None) -> Float64Array:
        """Log densities of points.

        Parameters
        ----------
        z : array_like, shape (..., L)
        num_threads : int, optional

        Returns
        -------
        ndarray of shape (...) and dtype float64
            In nats.
        """
        return self._run(z, None, num_threads, False)[0]

    def log_prob_and_grad(
        self, z: ArrayLike, *, num_threads: Threads = None
    ) -> tuple[Float64Array, FloatArray]:
        """:meth:`log_prob`, and its derivative by z, in the shape of z."""
        values, gradients = self._run(z, None, num_threads)
        return values, gradients.z

    def backward(
        self, z: ArrayLike, weights: ArrayLike = 1.0, *, num_threads: Threads = None
    ) -> PriorGrad:
        """Gradients of sum(weights * log_prob(z)).

        Parameters
        ----------
        z : array_like, shape (..., L)
        weights : array_like, broadcasts to (...)
            The derivative of an objective by each of ``log_prob(z)``: beta / B for the ELBO's mean
            over a batch, ``gradients.weights / B`` for that of ``iwae_and_grad``.
        num_threads : int, optional

        Returns
        -------
        PriorGrad
            ``z``, ``mu``, ``logvar`` and ``logits`` (None for equal weights).
        """
        return self._run(z, weights, num_threads)[1]

    def sample(self, n: int, *, rng: Rng = None) -> FloatArray:
        """n draws of z, (n, L); rng as in :func:`~fastelbo.reparameterize`."""
        n, key = as_whole(n, "n", 0), noise_key(rng)
        weights = np.exp(np.asarray(self.log_weights, np.float64))
        which = np.random.default_rng(key).choice(len(weights), n, p=weights / weights.sum())
        return reparameterize(self.mu[which], self.logvar[which], rng=key)

    def __repr__(self):
        return f"{type(self).__name__}({len(self.mu)} components, {self.mu.shape[1]} dimensions)"


class VampPrior(MixtureOfGaussians):
    """Variational mixture of posteriors [1]_: the components are q(z|u_k) of pseudo-inputs u_k.

    What comes back from ``backward`` as ``mu`` and ``logvar`` goes on through the encoder to its
    weights and to the pseudo-inputs, like the gradients of any other q(z|x).

    Parameters
    ----------
    mu, logvar : array_like, shape (K, L)
        What the encoder makes of K pseudo-inputs.
    logits : array_like of shape (K,), optional
        Weights of the components, softmax(logits); equal ones by default.

    References
    ----------
    .. [1] Tomczak, Welling. VAE with a VampPrior. AISTATS 2018.

    Examples
    --------
    >>> import fastelbo
    >>> prior = fastelbo.VampPrior([[-1.0], [1.0]], [[0.0], [0.0]])
    >>> prior.log_prob([[0.0]]).round(4)
    array([-1.4189])
    """


def _points(z):
    z = _arrays.as_floats(z, "z")
    if z.ndim == 0:
        raise _arrays.shape_error("z", z.shape, "(..., latent dimensions)")
    return z


def check_prior(prior, wanted="log_prob"):
    """Complain unless prior is an object with the method that is wanted."""
    if isinstance(prior, str):
        raise TypeError(
            f"prior must be an object such as VampPrior(mu, logvar), or None, got {prior!r}: only "
            "fastelbo.VAE takes a name, of a prior that it learns"
        )
    if isinstance(prior, type):
        raise TypeError(f"prior must be an object, got the class {prior.__name__}: call it")
    if isinstance(getattr(prior, "parameters", None), tuple):
        raise TypeError(f"prior must be p(z), a density of latents, got the likelihood {prior!r}")
    if not callable(getattr(prior, wanted, None)):
        raise TypeError(f"prior must be None or have a method {wanted}, got {shown(prior)}")


def as_prior(prior):
    """The prior of a bound, or that which one of fastelbo.torch stands for; None, the standard
    normal, also goes by its name."""
    if isinstance(prior, str) and prior == "standard":
        return None
    own = getattr(prior, "kernels", None)
    return own if isinstance(own, StandardNormal | MixtureOfGaussians) else prior


def density(prior, z, with_gradient):
    """(log p(z), its derivative by z or None), checked; z (..., L) is what a pass will read."""
    wanted = "log_prob_and_grad" if with_gradient else "log_prob"
    check_prior(prior, wanted)
    result = getattr(prior, wanted)(z)
    if with_gradient and not (isinstance(result, tuple | list) and len(result) == 2):
        raise TypeError(
            f"prior.{wanted}(z) must return two arrays, log densities {z.shape[:-1]} and their "
            f"gradient {z.shape}, got {shown(result)}"
        )
    value, gradient = result if with_gradient else (result, None)
    value = np.ascontiguousarray(_arrays.as_floats(value, f"prior.{wanted}(z)"), np.float64)
    if value.shape != z.shape[:-1]:
        raise _arrays.shape_error(f"prior.{wanted}(z)", value.shape, str(z.shape[:-1]))
    if gradient is not None:
        name = f"the gradient of prior.{wanted}(z)"
        gradient = np.ascontiguousarray(_arrays.as_floats(gradient, name), z.dtype)
        if gradient.shape != z.shape:
            raise _arrays.shape_error(name, gradient.shape, str(z.shape))
    return value, gradient


def arrays_of(prior):
    """The arrays that a prior holds, which no output may overlap: it reads them once more."""
    held = vars(prior).values() if hasattr(prior, "__dict__") else ()
    return [a for a in held if isinstance(a, np.ndarray)]


def kl_estimate(prior, mu, logvar, z, gradients, weight, noise, key, threads):
    """log q(z|x) - log p(z), (B,), of one z each; `gradients` become -weight times its own.

    Those go through z = mu + e^(logvar/2) eps, where log q is constant but for -logvar/2.
    """
    log_p, by_z = density(prior, z, gradients is not None)
    log_q = posterior_log_prob(z, mu, logvar, reduction="none", num_threads=threads)
    if gradients is not None:
        by_z = weighed(weight, by_z)  # not in place: the array may be the prior's own
        drawn = {"noise": noise, "rng": key, "num_threads": threads}
        reparameterize_backward(by_z, mu, logvar, z, out=gradients, **drawn)
        gradients[1][...] += 0.5 * weight
    return log_q - log_p
