"""Variational-inference objectives on CPUs, value and gradient in one pass over memory."""

from fastelbo import reference as reference
from fastelbo._info import __version__ as __version__
from fastelbo._info import build_info
from fastelbo._threads import get_num_threads, num_threads, set_num_threads
from fastelbo.divergences import (
    FreeBits,
    GaussianGrad,
    KlNormalGrad,
    kl_normal,
    kl_normal_and_grad,
    kl_standard_normal,
    kl_standard_normal_and_grad,
)
from fastelbo.elbo import ElboGrad, ElboResult, elbo, elbo_and_grad, elbo_from_buffers
from fastelbo.likelihoods import Bernoulli, Gaussian, Likelihood, SquaredError
from fastelbo.posterior import reparameterize, reparameterize_backward, reparameterize_kl
from fastelbo.vae import VAE

__all__ = [
    "VAE",
    "Bernoulli",
    "ElboGrad",
    "ElboResult",
    "FreeBits",
    "Gaussian",
    "GaussianGrad",
    "KlNormalGrad",
    "Likelihood",
    "SquaredError",
    "build_info",
    "elbo",
    "elbo_and_grad",
    "elbo_from_buffers",
    "get_num_threads",
    "kl_normal",
    "kl_normal_and_grad",
    "kl_standard_normal",
    "kl_standard_normal_and_grad",
    "num_threads",
    "reparameterize",
    "reparameterize_backward",
    "reparameterize_kl",
    "set_num_threads",
]
