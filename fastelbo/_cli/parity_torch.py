"""The parity checks of fastelbo.torch: the kernels' values and what autograd makes of them.

The reference is held against them, and the composites, which serve other devices, in float64. They
enter the registry only where PyTorch is installed.
"""

import importlib.util
from functools import partial

import numpy as np

from fastelbo import reference
from fastelbo._cli.parity_checks import REGISTRY, Check, Inputs


def _check(function, arrays, by, desired, scale=float):
    """`function` sees fastelbo.torch and the arrays as tensors; `desired` is (value, gradients)."""
    return Check(
        partial(_value_and_grad, function, arrays, by),
        desired,
        scale,
        {"composite": partial(_of_composite, function, arrays, by)},
    )


def _value_and_grad(function, arrays, by, dtype=None):
    import torch

    import fastelbo.torch

    tensors = [torch.tensor(np.asarray(a, dtype)) for a in arrays]
    leaves = [tensors[i].requires_grad_() for i in by]
    value = function(fastelbo.torch, *tensors)
    gradients = torch.autograd.grad(value.sum(), leaves)
    return value.detach().numpy(), tuple(g.numpy() for g in gradients)


def _of_composite(function, arrays, by):
    from fastelbo.torch import _tensors

    _tensors.always_composite = True
    try:
        return _value_and_grad(function, arrays, by, np.float64)
    finally:
        _tensors.always_composite = False


def _negative(function, *arrays, **options):
    """Minus what a function f_and_grad of the reference gives."""
    value, gradients = function(*arrays, **options)
    return -value, tuple(-g for g in gradients)


def _kl_standard_normal(size, dtype):
    latents = Inputs(size, dtype).latents()
    for options in ({}, {"free_bits": 0.4}, {"reduction": "sum"}):
        yield _check(
            lambda ft, *tensors, options=options: ft.kl_standard_normal(*tensors, **options),
            latents,
            (0, 1),
            partial(reference.kl_standard_normal_and_grad, *latents, **options),
        )


def _kl_normal(size, dtype):
    inputs = Inputs(size, dtype)
    arrays = (*inputs.latents(), *inputs.latents())
    yield _check(
        lambda ft, *tensors: ft.kl_normal(*tensors),
        arrays,
        range(4),
        partial(reference.kl_normal_and_grad, *arrays),
    )


def _elbo(size, dtype):
    inputs = Inputs(size, dtype)
    (mu, logvar), (x, x_recon) = inputs.latents(), inputs.data()
    for kind in ("SquaredError", "Bernoulli"):
        for options in ({}, {"beta": 4.0, "reduction": "sum"}):
            likelihood = getattr(reference, kind)()

            def ours(ft, *tensors, kind=kind, options=options):
                return ft.elbo(*tensors, likelihood=getattr(ft, kind)(), **options)[0]

            def desired(likelihood=likelihood, options=options):
                arrays = (x, mu, logvar, x_recon)
                value, grads = reference.elbo_and_grad(*arrays, likelihood=likelihood, **options)
                return value[0], tuple(grads)

            yield _check(ours, (x, mu, logvar, x_recon), (1, 2, 3), desired)


def _vae_loss(size, dtype):
    inputs = Inputs(size, dtype)
    (mu, logvar), (x, logits) = inputs.latents(), inputs.data()

    def desired():
        value, grads = reference.elbo_and_grad(
            x, mu, logvar, logits, likelihood=reference.Bernoulli(), reduction="sum"
        )
        return -value[0], (-grads[2], -grads[0], -grads[1])

    yield _check(
        lambda ft, *tensors: ft.vae_loss(*tensors), (logits, x, mu, logvar), (0, 2, 3), desired
    )


def _negative_binomial_loss(size, dtype):
    inputs = Inputs(size, dtype)
    x = inputs.rng.poisson(2.0, (inputs.batch, inputs.event)).astype(dtype)
    mean, theta = np.exp(inputs.normal(*x.shape)), np.exp(inputs.normal(inputs.event))
    likelihood = reference.NegativeBinomial()
    yield _check(
        lambda ft, *tensors: ft.negative_binomial_loss(*tensors),
        (x, mean, theta),
        (1, 2),
        partial(_negative, likelihood.log_prob_and_grad, x, mean, theta),
        lambda: (0.0, (1.0 / len(x), 1.0)),  # differences that may cancel
    )


if importlib.util.find_spec("torch") is not None:
    REGISTRY.update(
        {
            "torch.elbo": _elbo,
            "torch.kl_normal": _kl_normal,
            "torch.kl_standard_normal": _kl_standard_normal,
            "torch.negative_binomial_loss": _negative_binomial_loss,
            "torch.vae_loss": _vae_loss,
        }
    )
