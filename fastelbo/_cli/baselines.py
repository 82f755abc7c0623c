"""The code that fastelbo replaces, as users write it: the one home of what it is compared with.

Each class is one way to compute, with the same methods: arguments in the order of the fastelbo
function of that name, results a flat tuple ``(value, ...)`` of what it returns, gradients those of
the value. Methods that a class lacks are not compared there. A framework is imported when its
class is made, and ImportError says that it is absent.

``elbo_with_noise`` is the ELBO that also draws z, and returns (elbo, z).
"""

import math
from functools import partial

import numpy as np

from fastelbo._cli import function_cases, mixture_baselines
from fastelbo._cli.aggregate_baselines import NumPyAggregates, torch_aggregates
from fastelbo._cli.count_baselines import NumPyCounts, torch_counts
from fastelbo._cli.function_baselines import torch_plain_functions
from fastelbo._cli.likelihood_baselines import NumPyLikelihoods, torch_likelihoods


class Baseline:
    """What all share: how arrays come in, how a call is bound, how results come out."""

    label = ""
    #: Who owns the memory: "numpy" (every allocation is traced) or "process" (only its size is).
    memory = "numpy"

    def __init__(self, threads=1, dtype=np.float64):
        self.threads = threads
        self.dtype = np.dtype(dtype)

    def array(self, array):
        """A NumPy array as this framework wants it, outside the time that counts."""
        return array

    def bind(self, name, arrays):
        """The call of a method on these arrays, to be timed; None where there is no such method."""
        method = getattr(self, name, None)
        return None if method is None else partial(method, *map(self.array, arrays))

    def numpy(self, result):
        """A result as a tuple of float64 arrays."""
        return tuple(np.asarray(r, np.float64) for r in result)


class NumPy(
    NumPyLikelihoods,
    NumPyCounts,
    NumPyAggregates,
    mixture_baselines.NumPyMixtures,
    Baseline,
):
    """Plain lines, one temporary an operator; the likelihoods with SciPy."""

    label = "NumPy"

    def elbo(self, x, mu, logvar, x_recon):
        reconstruction = -np.mean(np.sum((x - x_recon) ** 2, axis=1))
        kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))
        return (reconstruction - kl,)

    def elbo_with_noise(self, x, mu, logvar, x_recon):
        return *self.elbo(x, mu, logvar, x_recon), *self.reparameterize(mu, logvar)

    def elbo_and_grad(self, x, mu, logvar, x_recon):
        batch = len(x)
        error = x - x_recon
        sigma2 = np.exp(logvar)
        reconstruction = -np.mean(np.sum(error**2, axis=1))
        kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - sigma2, axis=1))
        gradients = (-mu / batch, -0.5 * (sigma2 - 1) / batch, 2 * error / batch)
        return reconstruction - kl, *gradients

    def elbo_and_grad_with_noise(self, x, mu, logvar, x_recon):
        return *self.elbo_and_grad(x, mu, logvar, x_recon), *self.reparameterize(mu, logvar)

    def elbo_from_buffers(self, x, mu, logvar, x_recon, batch, event, latent):
        x, x_recon = (np.frombuffer(b, self.dtype).reshape(batch, event) for b in (x, x_recon))
        mu, logvar = (np.frombuffer(b, self.dtype).reshape(batch, latent) for b in (mu, logvar))
        return self.elbo(x, mu, logvar, x_recon)

    def reparameterize(self, mu, logvar):
        eps = np.random.randn(*mu.shape)  # noqa: NPY002
        return (mu + np.exp(0.5 * logvar) * eps,)

    def reparameterize_kl(self, mu, logvar):
        return *self.reparameterize(mu, logvar), *self.kl_standard_normal(mu, logvar)

    def reparameterize_backward(self, grad_z, mu, logvar, z):
        return grad_z, 0.5 * grad_z * (z - mu)

    def kl_standard_normal(self, mu, logvar):
        return (-0.5 * np.mean(np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)),)

    def kl_standard_normal_and_grad(self, mu, logvar):
        batch = len(mu)
        sigma2 = np.exp(logvar)
        kl = -0.5 * np.mean(np.sum(1 + logvar - mu**2 - sigma2, axis=1))
        return kl, mu / batch, 0.5 * (sigma2 - 1) / batch

    def kl_normal(self, mu_q, logvar_q, mu_p, logvar_p):
        ratio = np.exp(logvar_q - logvar_p)
        distance = (mu_q - mu_p) ** 2 / np.exp(logvar_p)
        return (0.5 * np.mean(np.sum(ratio + distance - 1 - (logvar_q - logvar_p), axis=1)),)

    def kl_normal_and_grad(self, mu_q, logvar_q, mu_p, logvar_p):
        batch = len(mu_q)
        ratio = np.exp(logvar_q - logvar_p)
        pull = (mu_q - mu_p) / np.exp(logvar_p)
        distance = pull * (mu_q - mu_p)
        kl = 0.5 * np.mean(np.sum(ratio + distance - 1 - (logvar_q - logvar_p), axis=1))
        spread = 0.5 * (ratio - 1)
        gradients = (pull, spread, -pull, -spread - 0.5 * distance)
        return kl, *(gradient / batch for gradient in gradients)

    def elbo_bernoulli(self, x, mu, logvar, logits):
        return (self.bernoulli(x, logits)[0] - self.kl_standard_normal(mu, logvar)[0],)

    def elbo_bernoulli_and_grad(self, x, mu, logvar, logits):
        value, by_logits = self.bernoulli_and_grad(x, logits)
        kl, by_mu, by_logvar = self.kl_standard_normal_and_grad(mu, logvar)
        return value - kl, -by_mu, -by_logvar, by_logits

    def _log_ratio(self, z, mu, logvar):
        """log p(z) - log q(z|x), (K, B)."""
        log_p = -0.5 * np.sum(z**2, axis=2)
        return log_p + 0.5 * np.sum((z - mu) ** 2 * np.exp(-logvar) + logvar, axis=2)

    def _iwae_and_grad(self, log_p, by_output, z, mu, logvar):
        log_w = log_p + self._log_ratio(z, mu, logvar)
        w = self.normalized_weights(log_w)[0][..., None] / len(mu)
        pull = (z - mu) * np.exp(-logvar)
        by_logvar = 0.5 * (1 - (z - mu) * pull)
        gradients = (w * (pull - z), np.sum(-w * pull, 0), np.sum(w * by_logvar, 0), w * by_output)
        return *self.importance_bound(log_w), *gradients

    def log_weights(self, x, z, mu, logvar, x_recon):
        return (-np.sum((x - x_recon) ** 2, axis=2) + self._log_ratio(z, mu, logvar),)

    def iwae(self, x, z, mu, logvar, x_recon):
        return self.importance_bound(*self.log_weights(x, z, mu, logvar, x_recon))

    def iwae_and_grad(self, x, z, mu, logvar, x_recon):
        error = x - x_recon
        return self._iwae_and_grad(-np.sum(error**2, axis=2), 2 * error, z, mu, logvar)

    def iwae_bernoulli(self, x, z, mu, logvar, logits):
        log_p = np.sum(x * logits - np.logaddexp(0, logits), axis=2)
        return self.importance_bound(log_p + self._log_ratio(z, mu, logvar))

    def iwae_bernoulli_and_grad(self, x, z, mu, logvar, logits):
        log_p = np.sum(x * logits - np.logaddexp(0, logits), axis=2)
        return self._iwae_and_grad(log_p, x - 1 / (1 + np.exp(-logits)), z, mu, logvar)

    def importance_bound(self, log_w):
        top = np.max(log_w, axis=0)
        return (np.mean(top + np.log(np.mean(np.exp(log_w - top), axis=0))),)

    def importance_bound_and_grad(self, log_w):
        return *self.importance_bound(log_w), self.normalized_weights(log_w)[0] / log_w.shape[1]

    def streaming_bound(self, log_w):
        return self.importance_bound(log_w)

    def cubo(self, log_w):
        return (0.5 * self.importance_bound(2 * log_w)[0],)

    def cubo_and_grad(self, log_w):
        return *self.cubo(log_w), self.normalized_weights(2 * log_w)[0] / log_w.shape[1]

    def vimco(self, log_w):
        return self.importance_bound(log_w)

    def vimco_and_grad(self, log_w):
        samples, batch = log_w.shape
        others = (np.sum(log_w, axis=0) - log_w) / (samples - 1)
        replaced = np.where(np.eye(samples, dtype=bool)[:, :, None], others[:, None], log_w)
        top = np.max(replaced, axis=1)
        baseline = top + np.log(np.mean(np.exp(replaced - top[:, None]), axis=1))
        top = np.max(log_w, axis=0)
        bound = top + np.log(np.mean(np.exp(log_w - top), axis=0))
        weights = self.normalized_weights(log_w)[0] / batch
        return np.mean(bound), weights, (bound - baseline) / batch

    def reinforce(self, log_w):
        return (np.mean(log_w),)

    def reinforce_and_grad(self, log_w):
        others = (np.sum(log_w, axis=0) - log_w) / (len(log_w) - 1)
        weights = np.full_like(log_w, 1 / log_w.size)
        return np.mean(log_w), weights, (log_w - others) / log_w.size

    def effective_sample_size(self, log_w):
        w = np.exp(log_w - np.max(log_w, axis=0))
        return (np.sum(w, axis=0) ** 2 / np.sum(w**2, axis=0),)

    def normalized_weights(self, log_w):
        w = np.exp(log_w - np.max(log_w, axis=0))
        return (w / np.sum(w, axis=0),)


class NumPyGenerator(NumPy):
    """The same with NumPy's newer generator, which draws in the dtype of the arrays."""

    label = "NumPy, default_rng"

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.rng = np.random.default_rng(0)

    def bind(self, name, arrays):
        return super().bind(name, arrays) if name.endswith("with_noise") else None

    def reparameterize(self, mu, logvar):
        return (mu + np.exp(0.5 * logvar) * self.rng.standard_normal(mu.shape, mu.dtype),)


def _torch_functions(torch):
    """What a PyTorch user writes; the same functions run eagerly and compiled."""
    functional = torch.nn.functional

    def elbo(x, mu, logvar, x_recon):
        reconstruction = -((x - x_recon) ** 2).sum(1).mean()
        kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
        return (reconstruction - kl,)

    def elbo_with_noise(x, mu, logvar, x_recon):
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return *elbo(x, mu, logvar, x_recon), z

    def elbo_bernoulli(x, mu, logvar, logits):
        error = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
        return (-error.sum(1).mean() - kl,)

    def iwae_bernoulli(x, z, mu, logvar, logits):
        error = functional.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        )
        log_ratio = 0.5 * ((z - mu).pow(2) * torch.exp(-logvar) + logvar - z.pow(2)).sum(2)
        log_w = log_ratio - error.sum(2)
        return (torch.logsumexp(log_w, 0).mean() - math.log(len(z)),)

    return {
        "elbo": elbo,
        "elbo_with_noise": elbo_with_noise,
        **torch_likelihoods(torch),
        "elbo_bernoulli": elbo_bernoulli,
        **torch_counts(torch),
        **mixture_baselines.torch_mixtures(torch),
        **torch_aggregates(torch),
        **torch_plain_functions(torch),
        "iwae_bernoulli": iwae_bernoulli,
    }


class PyTorch(Baseline):
    """PyTorch eager; gradients by autograd."""

    label = "PyTorch eager"
    memory = "process"

    def __init__(self, threads=1, dtype=np.float64):
        import torch

        super().__init__(threads, dtype)
        self.torch = torch
        torch.set_num_threads(threads)
        self.functions = _torch_functions(torch)

    def array(self, array):
        return self.torch.from_numpy(array)

    def bind(self, name, arrays):
        base = name.replace("_and_grad", "")
        if base not in self.functions:
            return None
        function = self.functions[base]
        arrays = [self.array(a) for a in arrays]
        names = {**function_cases.ARRAYS, **mixture_baselines.ARRAYS}.get(base, ("x",))
        given = 1 if names[0] == "x" else 0  # data, which has no gradient
        data, parameters = arrays[:given], arrays[given:]
        if base == name:
            return partial(self._value, function, data, parameters)
        parameters = [p.clone().requires_grad_() for p in parameters]
        return partial(self._value_and_grad, function, data, parameters)

    def _value(self, function, data, parameters):
        with self.torch.no_grad():
            return function(*data, *parameters)

    def _value_and_grad(self, function, data, parameters):
        value, *rest = function(*data, *parameters)
        return value, *self.torch.autograd.grad(value, parameters), *rest

    def numpy(self, result):
        return tuple(r.detach().numpy().astype(np.float64) for r in result)


class TorchCompile(PyTorch):
    """The same functions through torch.compile, warmed up."""

    label = "torch.compile"

    def __init__(self, threads=1, dtype=np.float64):
        super().__init__(threads, dtype)
        self.functions = {
            name: self.torch.compile(function, dynamic=False)
            for name, function in self._written().items()
        }

    def _written(self):
        return self.functions


class TorchCompileProducts(TorchCompile):
    """Of what compares all pairs, the form that is mostly matrix products."""

    label = "torch.compile, GEMM"

    def _written(self):
        return mixture_baselines.torch_products(self.torch)


def _numba_functions(njit, prange):
    """Loops over rows in parallel, which is what prange is for; noise given, z written."""

    @njit
    def elbo(x, mu, logvar, x_recon):
        batch = x.shape[0]
        total = 0.0
        for i in prange(batch):
            reconstruction = 0.0
            kl = 0.0
            for j in range(x.shape[1]):
                error = x[i, j] - x_recon[i, j]
                reconstruction -= error * error
            for j in range(mu.shape[1]):
                kl -= 0.5 * (1 + logvar[i, j] - mu[i, j] ** 2 - np.exp(logvar[i, j]))
            total += reconstruction - kl
        return total / batch

    @njit
    def elbo_with_noise(x, mu, logvar, x_recon, noise):
        batch = x.shape[0]
        z = np.empty_like(mu)
        total = 0.0
        for i in prange(batch):
            reconstruction = 0.0
            kl = 0.0
            for j in range(x.shape[1]):
                error = x[i, j] - x_recon[i, j]
                reconstruction -= error * error
            for j in range(mu.shape[1]):
                sigma = np.exp(0.5 * logvar[i, j])
                z[i, j] = mu[i, j] + sigma * noise[i, j]
                kl -= 0.5 * (1 + logvar[i, j] - mu[i, j] ** 2 - sigma * sigma)
            total += reconstruction - kl
        return total / batch, z

    @njit
    def elbo_and_grad(x, mu, logvar, x_recon):
        batch = x.shape[0]
        d_mu = np.empty_like(mu)
        d_logvar = np.empty_like(logvar)
        d_recon = np.empty_like(x_recon)
        weight = x.dtype.type(1.0 / batch)
        total = 0.0
        for i in prange(batch):
            reconstruction = 0.0
            kl = 0.0
            for j in range(x.shape[1]):
                error = x[i, j] - x_recon[i, j]
                reconstruction -= error * error
                d_recon[i, j] = (error + error) * weight
            for j in range(mu.shape[1]):
                sigma2 = np.exp(logvar[i, j])
                kl -= 0.5 * (1 + logvar[i, j] - mu[i, j] ** 2 - sigma2)
                d_mu[i, j] = -mu[i, j] * weight
                d_logvar[i, j] = -0.5 * (sigma2 - 1) * weight
            total += reconstruction - kl
        return total / batch, d_mu, d_logvar, d_recon

    return elbo, elbo_with_noise, elbo_and_grad


class Numba(Baseline):
    """Explicit loops, compiled; the noise is drawn beforehand and does not count."""

    label = "Numba prange"
    fastmath = False

    def __init__(self, threads=1, dtype=np.float64):
        import numba

        super().__init__(threads, dtype)
        numba.set_num_threads(threads)
        njit = numba.njit(parallel=True, fastmath=self.fastmath)
        functions = _numba_functions(njit, numba.prange)
        self._elbo, self._elbo_with_noise, self._elbo_and_grad = functions
        self.noise = None

    def bind(self, name, arrays):
        if name == "elbo_with_noise":
            self.noise = np.random.default_rng(0).standard_normal(arrays[1].shape, self.dtype)
        return super().bind(name, arrays)

    def elbo(self, x, mu, logvar, x_recon):
        return (self._elbo(x, mu, logvar, x_recon),)

    def elbo_with_noise(self, x, mu, logvar, x_recon):
        return self._elbo_with_noise(x, mu, logvar, x_recon, self.noise)

    def elbo_and_grad(self, x, mu, logvar, x_recon):
        return self._elbo_and_grad(x, mu, logvar, x_recon)


class NumbaFastmath(Numba):
    """The same, free to add in any order, and so to vectorise."""

    label = "Numba prange, fastmath"
    fastmath = True


class Jax(Baseline):
    """jax.jit, and value_and_grad; on as many threads as the process has CPUs."""

    label = "JAX jit"
    memory = "process"

    def __init__(self, threads=1, dtype=np.float64):
        import jax

        super().__init__(threads, dtype)
        self.jax = jax
        jax.config.update("jax_enable_x64", True)
        jnp = jax.numpy
        self.key = jax.random.key(0)

        def elbo(mu, logvar, x_recon, x):
            reconstruction = -jnp.mean(jnp.sum((x - x_recon) ** 2, axis=1))
            kl = -0.5 * jnp.mean(jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar), axis=1))
            return reconstruction - kl

        def elbo_with_noise(mu, logvar, x_recon, x, key):
            key, use = jax.random.split(key)
            eps = jax.random.normal(use, mu.shape, mu.dtype)
            return elbo(mu, logvar, x_recon, x), (mu + jnp.exp(0.5 * logvar) * eps, key)

        which = (0, 1, 2)
        self._elbo = jax.jit(elbo)
        self._elbo_with_noise = jax.jit(elbo_with_noise)
        self._elbo_and_grad = jax.jit(jax.value_and_grad(elbo, which))
        self._both = jax.jit(jax.value_and_grad(elbo_with_noise, which, has_aux=True))

    def array(self, array):
        return self.jax.numpy.array(array)

    def elbo(self, x, mu, logvar, x_recon):
        return (self._elbo(mu, logvar, x_recon, x).block_until_ready(),)

    def elbo_with_noise(self, x, mu, logvar, x_recon):
        value, (z, self.key) = self._elbo_with_noise(mu, logvar, x_recon, x, self.key)
        return self.jax.block_until_ready((value, z))

    def elbo_and_grad(self, x, mu, logvar, x_recon):
        value, gradients = self._elbo_and_grad(mu, logvar, x_recon, x)
        return self.jax.block_until_ready((value, *gradients))

    def elbo_and_grad_with_noise(self, x, mu, logvar, x_recon):
        (value, (z, self.key)), gradients = self._both(mu, logvar, x_recon, x, self.key)
        return self.jax.block_until_ready((value, *gradients, z))


#: In the order of the tables.
ALL = (
    NumPy,
    NumPyGenerator,
    PyTorch,
    TorchCompile,
    TorchCompileProducts,
    Numba,
    NumbaFastmath,
    Jax,
)
