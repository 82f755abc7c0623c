"""The code that fastelbo replaces, as users write it: the one home of what it is compared with.

Each class is one way to compute, with the same methods: arguments in the order of the fastelbo
function of that name, results a flat tuple ``(value, ...)`` of what it returns, gradients those of
the value. Methods that a class lacks are not compared there. A framework is imported when its
class is made, and ImportError says that it is absent.

``elbo_with_noise`` is the ELBO that also draws z, and returns (elbo, z).
"""

from functools import partial

import numpy as np


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


class NumPy(Baseline):
    """Plain lines, one temporary an operator."""

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

    def squared_error(self, x, x_recon):
        return (-np.mean(np.sum((x - x_recon) ** 2, axis=1)),)

    def squared_error_and_grad(self, x, x_recon):
        error = x - x_recon
        return -np.mean(np.sum(error**2, axis=1)), 2 * error / len(x)

    def gaussian(self, x, x_recon, log_scale):
        scaled = (x - x_recon) / np.exp(log_scale)
        return (np.mean(np.sum(-0.5 * scaled**2 - log_scale - 0.5 * np.log(2 * np.pi), axis=1)),)

    def gaussian_and_grad(self, x, x_recon, log_scale):
        sigma = np.exp(log_scale)
        scaled = (x - x_recon) / sigma
        value = np.mean(np.sum(-0.5 * scaled**2 - log_scale - 0.5 * np.log(2 * np.pi), axis=1))
        return value, scaled / sigma / len(x), (scaled**2 - 1) / len(x)

    def bernoulli(self, x, logits):
        return (np.mean(np.sum(x * logits - np.logaddexp(0, logits), axis=1)),)

    def bernoulli_and_grad(self, x, logits):
        value = np.mean(np.sum(x * logits - np.logaddexp(0, logits), axis=1))
        return value, (x - 1 / (1 + np.exp(-logits))) / len(x)


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

    def bernoulli(x, logits):
        error = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return (-error.sum(1).mean(),)

    return {"elbo": elbo, "elbo_with_noise": elbo_with_noise, "bernoulli": bernoulli}


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
        x, *parameters = map(self.array, arrays)
        if base == name:
            return partial(self._value, function, x, parameters)
        parameters = [p.clone().requires_grad_() for p in parameters]
        return partial(self._value_and_grad, function, x, parameters)

    def _value(self, function, x, parameters):
        with self.torch.no_grad():
            return function(x, *parameters)

    def _value_and_grad(self, function, x, parameters):
        value, *rest = function(x, *parameters)
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
            for name, function in self.functions.items()
        }


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
ALL = (NumPy, NumPyGenerator, PyTorch, TorchCompile, Numba, NumbaFastmath, Jax)
