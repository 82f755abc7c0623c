"""What `parity` checks of importance weights and of the bounds made of them."""

from functools import partial

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._cli.parity import Check, Inputs, both, covers, in_torch

SAMPLES = 3


def terms_of(x, z, mu, logvar, x_recon, likelihood):
    """The sum of the absolute values of what makes up a log weight, (K, B)."""
    x, z, mu, logvar = (np.asarray(a, np.float64) for a in (x, z, mu, logvar))
    x = x * likelihood.x_scale
    parameters = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    rows = []
    for one in zip(*(np.asarray(p, np.float64) for p in parameters), strict=True):
        values, _ = likelihood.elements(x, *one)
        terms = np.abs(values) + np.abs(x - one[0]) + np.abs(one[-1])
        rows.append(terms.reshape(len(x), -1).sum(axis=1))
    return np.array(rows) + latent_terms(z, mu, logvar)


def latent_terms(z, mu, logvar):
    """The same of log p(z) - log q(z|x) alone."""
    pull = (z - mu) ** 2 * np.exp(-logvar)
    return 0.5 * (z * z + pull + np.abs(logvar) + 2 * np.abs(z - mu)).sum(axis=2)


def _torch_iwae(torch, x, z, mu, logvar, x_recon):
    log_p = -((x - x_recon) ** 2).sum(2)
    normal = torch.distributions.Normal
    log_q = normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(2)
    log_w = log_p + normal(0.0, 1.0).log_prob(z).sum(2) - log_q
    return (torch.logsumexp(log_w, 0) - np.log(len(z))).mean()


def _models(size, dtype):
    """(arguments, our likelihood, the reference's)."""
    inputs = Inputs(size, dtype)
    mu, logvar = inputs.latents()
    noise = inputs.normal(SAMPLES, *mu.shape)
    z = (mu + np.exp(0.5 * logvar) * noise).astype(dtype)
    x = inputs.uniform(inputs.batch, inputs.event)
    outputs = [inputs.normal(SAMPLES, *x.shape, scale=0.5) for _ in range(2)]
    for name, arguments, x_recon in (
        ("SquaredError", (), outputs[0]),
        ("Gaussian", ("learned",), tuple(outputs)),
        ("Bernoulli", (), outputs[0]),
    ):
        likelihoods = (getattr(module, name)(*arguments) for module in (fastelbo, reference))
        yield ((x, z, mu, logvar, x_recon), *likelihoods)


@covers("log_weights")
def _log_weights(size, dtype):
    for arrays, ours, theirs in _models(size, dtype):
        yield Check(
            partial(fastelbo.log_weights, *arrays, likelihood=ours),
            partial(reference.log_weights, *arrays, likelihood=theirs),
            lambda arrays=arrays, theirs=theirs: float(terms_of(*arrays, theirs).max()),
        )


@covers("iwae")
def _iwae(size, dtype):
    for arrays, ours, theirs in _models(size, dtype):
        for reduction in ("mean", "none"):
            torch = {}
            if isinstance(theirs, reference.SquaredError) and reduction == "mean":
                torch = {"PyTorch": in_torch(_torch_iwae, arrays)}
            yield Check(
                partial(fastelbo.iwae, *arrays, likelihood=ours, reduction=reduction),
                partial(reference.iwae, *arrays, likelihood=theirs, reduction=reduction),
                lambda arrays=arrays, theirs=theirs: float(terms_of(*arrays, theirs).max()),
                torch,
            )


def _gradient_scales(arrays, likelihood, options):
    """Weights inherit the rounding of log weights: twice that of the terms of the largest."""
    inherited = 2.0 * float(terms_of(*arrays, likelihood).max())
    _, gradients = reference.iwae_and_grad(*arrays, likelihood=likelihood, **options)

    def scaled(tree):
        if isinstance(tree, tuple):
            return tuple(scaled(branch) for branch in tree)
        return inherited * float(np.abs(tree).max())

    return inherited, scaled(gradients)


@covers("iwae_and_grad")
def _iwae_and_grad(size, dtype):
    for arrays, ours, theirs in _models(size, dtype):
        for options in ({}, {"estimator": "stl"}, {"estimator": "dreg", "reduction": "none"}):
            torch = {}
            if isinstance(theirs, reference.SquaredError) and not options:
                torch = {"PyTorch": partial(_gradients_in_torch, arrays)}
            yield Check(
                partial(fastelbo.iwae_and_grad, *arrays, likelihood=ours, **options),
                partial(reference.iwae_and_grad, *arrays, likelihood=theirs, **options),
                partial(_gradient_scales, arrays, theirs, options),
                torch,
            )


def _gradients_in_torch(arrays):
    value, gradients = in_torch(_torch_iwae, arrays, (1, 2, 3, 4))()
    return value, (*gradients, None)


# Of log weights alone ---------------------------------------------------------------------------


def _log_w(size, dtype, most=1 << 20):
    """(K, B), K > 1."""
    inputs = Inputs(size, dtype)
    return inputs.normal(min(inputs.event, most) + 1, inputs.batch, scale=3.0, shift=-9.0)


def _torch_bound(torch, log_w):
    return (torch.logsumexp(log_w, 0) - np.log(len(log_w))).mean()


def _largest(log_w):
    return float(np.abs(log_w).max())


@covers("importance_bound")
def _importance_bound(size, dtype):
    log_w = _log_w(size, dtype)
    ours, theirs = fastelbo.importance_bound, reference.importance_bound
    yield both(ours, theirs, log_w, others={"PyTorch": in_torch(_torch_bound, (log_w,))})
    for alpha in (0.5, 1, 2.0, -1.0):
        yield both(ours, theirs, log_w, alpha=alpha, reduction="none", scale=_largest)


@covers("importance_bound_and_grad")
def _importance_bound_and_grad(size, dtype):
    log_w = _log_w(size, dtype)
    ours, theirs = fastelbo.importance_bound_and_grad, reference.importance_bound_and_grad
    torch = {"PyTorch": in_torch(_torch_bound, (log_w,), (0,))}
    yield both(ours, theirs, log_w, others=torch)
    for alpha in (0.5, 1, 2.0, -1.0):
        yield both(ours, theirs, log_w, alpha=alpha, reduction="sum")


def _streamed(module, log_w):
    """Half of them and one more, merged with the other half."""
    one, other = (module.StreamingBound().update(half) for half in np.array_split(log_w, 2))
    return one.update(log_w[:1]).merge(other)


@covers("StreamingBound")
def _streaming_bound(size, dtype):
    log_w = _log_w(size, dtype)
    ours, theirs = (_streamed(module, log_w) for module in (fastelbo, reference))
    torch = {"PyTorch": in_torch(_torch_bound, (theirs.log_w,))}
    yield both(ours.bound, theirs.bound, others=torch)
    for alpha in (0, 1, -1):
        yield both(ours.bound, theirs.bound, alpha=alpha, reduction="none")
    yield both(ours.effective_sample_size, theirs.effective_sample_size)
    for reduction in ("mean", "sum", "none"):
        yield both(ours.standard_error, theirs.standard_error, reduction=reduction)


@covers("cubo")
def _cubo(size, dtype):
    for n in (1, 2, 3.5):
        yield both(fastelbo.cubo, reference.cubo, _log_w(size, dtype), n=n)


@covers("cubo_and_grad")
def _cubo_and_grad(size, dtype):
    for n in (1, 2, 3.5):
        yield both(fastelbo.cubo_and_grad, reference.cubo_and_grad, _log_w(size, dtype), n=n)


def _signals(name, size, dtype, **options):
    log_w = _log_w(size, dtype, most=40)
    ours, theirs = getattr(fastelbo, name), getattr(reference, name)
    for reduction in ("mean", "sum", "none"):
        weight = reference.row_weight(log_w.shape[1], reduction)
        scale = (_largest(log_w), (0.0, weight * _largest(log_w)))
        scale = scale if "grad" in name else scale[0]
        yield Check(
            partial(ours, log_w, reduction=reduction, **options),
            partial(theirs, log_w, reduction=reduction, **options),
            lambda scale=scale: scale,
        )


for _name in ("vimco", "vimco_and_grad", "reinforce", "reinforce_and_grad"):
    covers(_name)(partial(_signals, _name))


@covers("effective_sample_size")
def _effective_sample_size(size, dtype):
    for scale in (0.0, 0.1, 1.0):
        log_w = (scale * _log_w(size, dtype)).astype(dtype)
        yield both(fastelbo.effective_sample_size, reference.effective_sample_size, log_w)


@covers("normalized_weights")
def _normalized_weights(size, dtype):
    for scale in (0.0, 0.1, 1.0):
        log_w = (scale * _log_w(size, dtype)).astype(dtype)
        yield both(fastelbo.normalized_weights, reference.normalized_weights, log_w)
