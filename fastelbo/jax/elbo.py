"""The evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax

from fastelbo import _checks, reference
from fastelbo.jax._bridge import evaluate, options_of
from fastelbo.jax._inputs import as_weight, axes_from, narrowed, reduce, stand_in
from fastelbo.jax.divergences import counted, free_bits_of, kl_standard_normal, literal_free_bits
from fastelbo.jax.likelihoods import TWINS, OfLikelihood, as_likelihood, made, parted
from fastelbo.jax.posterior import drawn
from fastelbo.jax.priors import as_prior, log_density
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import ArrayLike

    from fastelbo._typing import Reduction
    from fastelbo.divergences import FreeBits
    from fastelbo.jax._typing import AnyLikelihood, AnyPrior, Outputs

SQUARED_ERROR = TWINS["SquaredError"]()


class ElboResult(NamedTuple):
    """The parts of an ELBO, in nats; (B,) each for ``reduction="none"``."""

    elbo: jax.Array
    reconstruction: jax.Array
    kl: jax.Array
    z: jax.Array | None


def elbo(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = SQUARED_ERROR,
    prior: AnyPrior | None = None,
    beta: ArrayLike = 1.0,
    free_bits: float | FreeBits = 0.0,
    rng: Array | None = None,
    noise: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> ElboResult:
    """Evidence lower bound with a diagonal Gaussian posterior; see :func:`fastelbo.elbo`.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data; uint8 and other integers are read as they are. It has no gradient: see :func:`plain`.
    mu, logvar : array_like, shape (B, L)
    x_recon : array_like, or a tuple of them
        What the decoder gives, as the likelihood reads it.
    likelihood : Likelihood or str, optional
        One of this module's, or of fastelbo's.
    prior : object, optional
        p(z); None is N(0, I). Else one of this module's or of fastelbo's, or anything with a method
        ``log_prob(z)`` that JAX can differentiate. The KL is then estimated by the one z drawn.
    beta : float or Array, optional
        Weight of the KL, a number; it may be traced. A weight of 0 leaves nothing of a KL in closed
        form, even if that is infinite; ``kl`` and its own gradient are then what they are.
    free_bits : float or FreeBits, optional
        A floor under the KL, by latent dimension if a number.
    rng, noise
        As in :func:`reparameterize`; without both there is no z.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    ElboResult
        ``elbo``, ``reconstruction``, ``kl``, in nats, and ``z``, which is None unless rng or noise
        is given.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit.
    jax.errors.JaxRuntimeError
        If, on the CPU, x lies outside the likelihood's domain.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from fastelbo.jax import elbo
    >>> x, mu = jnp.array([[1.0, 2.0]]), jnp.ones((1, 1))
    >>> elbo(x, mu, 0 * mu, 0 * x).elbo
    Array(-5.5, dtype=float32)
    >>> jax.grad(lambda x_recon: elbo(x, mu, 0 * mu, x_recon).elbo)(0 * x)
    Array([[2., 4.]], dtype=float32)
    """
    check_reduction(reduction)
    beta = as_weight(beta, "beta")
    likelihood, prior = as_likelihood(likelihood), as_prior(prior)
    outputs = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    half, x, mu, logvar, outputs, mask = likelihood._as_arrays(
        x, outputs, mask, mu=mu, logvar=logvar
    )
    likelihood, outputs = likelihood._joined(outputs)
    given = [stand_in(a) for a in (x, mu, logvar)]
    outs = tuple(map(stand_in, outputs))
    _checks.elbo(likelihood._checked(), *given, outs, stand_in(mask))
    z = eps = None
    if rng is not None or noise is not None:
        z, eps = drawn(mu, logvar, rng, noise)
    latents, missing = (mu, logvar), None
    if prior is None:
        latents, missing = counted(beta, mu, logvar)
    if prior is not None:
        rows = _kl_estimate(prior, mu, logvar, z, eps, free_bits)
        reconstruction = likelihood._log_prob(x, outputs, mask, reduction)
        kl = reduce(rows, reduction)
    elif reduction == "none" and likelihood._couples_rows():
        reconstruction = likelihood._log_prob(x, outputs, mask, reduction)
        kl = kl_standard_normal(*latents, free_bits=free_bits, reduction=reduction)
    else:
        operation, arrays = likelihood._operation(
            Elbo, x, outputs, mask, reduction, latents, literal_free_bits(free_bits)
        )
        reconstruction, kl = evaluate(operation, *arrays)
    bound = reconstruction - beta * kl
    if missing is not None:
        kl = kl + reduce(missing, reduction)
    return narrowed(ElboResult(bound, reconstruction, kl, z), half)


def _kl_estimate(prior, mu, logvar, z, eps, free_bits):
    """log q(z|x) - log p(z), (B,), of the z that moves with mu and logvar."""
    if z is None:
        raise ValueError("prior: its KL is estimated by z, so give rng or noise")
    if literal_free_bits(free_bits):
        raise ValueError("free_bits needs a KL in closed form, which only prior=None has")
    log_q = -0.5 * (eps * eps + logvar + reference.LOG_2PI).sum(-1)
    return log_q - log_density(prior, z)


@dataclass(frozen=True)
class Elbo(OfLikelihood):
    """The log-likelihood and the KL in one pass.

    Of arrays (x, mu, logvar, *outputs, *mask, *those of the likelihood).
    """

    free_bits: tuple

    latents = ("mu", "logvar")

    def planned(self):
        return None if self.free_bits else super().planned()

    def _given(self, module, arrays):
        (x, mu, logvar, *outputs), mask, held = parted(arrays, 3 + self.outputs, self.masked)
        options = {
            "likelihood": made(module, self.spec, held),
            "free_bits": free_bits_of(module, self.free_bits),
            "mask": mask,
            "reduction": self.reduction,
        }
        return (x, mu, logvar, tuple(outputs)), options

    def values(self, module, arrays):
        given, options = self._given(module, arrays)
        return module.elbo(*given, **options)[1:3]

    def gradients(self, module, arrays, out):
        given, options = self._given(module, arrays)
        out = None if out is None else (*out[:2], out[2:])
        result, gradients = module.elbo_and_grad(*given, **options_of(out, **options))
        return result[1:3], (*gradients[:2], *gradients[2])

    def slots(self, arrays):
        rows = axes_from(0, int(self.reduction == "none"))
        of_outputs = {slot: (0, rows) for slot in range(3, 3 + self.outputs)}
        return {1: (1, rows), 2: (1, rows), **of_outputs}

    def sign(self, value):
        """Gradients are those of the ELBO, which the KL is taken off."""
        return -1.0 if value else 1.0
