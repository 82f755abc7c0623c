"""What `parity` checks of mixtures, of the MMD and of experts."""

from functools import partial

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._cli.parity import Inputs, both, covers, in_torch

#: Elements of the largest thing that a reference makes.
LARGEST = 1 << 21


def _mixture(size, dtype):
    """(z, log_weights, mu, logvar), as many components as there are features."""
    inputs = Inputs(size, dtype)
    components = min(inputs.event, LARGEST // (inputs.batch * inputs.latent) + 1)
    z = inputs.normal(inputs.batch, inputs.latent)
    log_weights = inputs.normal(components)
    mu = inputs.normal(components, inputs.latent)
    return z, log_weights, mu, inputs.normal(components, inputs.latent, scale=0.3)


def mixture_terms(z, log_weights, mu, logvar):
    """The largest sum of the absolute values of what makes up a joint density's logarithm."""
    z, log_weights, mu, logvar = (np.asarray(a, np.float64) for a in (z, log_weights, mu, logvar))
    z = z.reshape(int(np.prod(z.shape[:-1])), mu.shape[1])
    precision = np.exp(-logvar)
    square = (z * z) @ precision.T - 2 * z @ (mu * precision).T + (mu * mu * precision).sum(axis=1)
    other = np.abs(log_weights) + 0.5 * np.abs(logvar).sum(axis=1) + mu.shape[1]
    best = np.argmax(log_weights - 0.5 * (square + logvar.sum(axis=1)), axis=1)
    rows = np.arange(len(z))
    return float((0.5 * np.abs(square)[rows, best] + other[best]).max())


def mixture_scales(z, log_weights, mu, logvar, reduction="mean"):
    """Of value and gradients: weights of components inherit the rounding of the terms."""
    terms = mixture_terms(z, log_weights, mu, logvar)
    _, gradients = reference.mixture_log_prob_and_grad(
        z, log_weights, mu, logvar, reduction=reduction
    )
    largest = tuple(2 * terms * float(np.abs(g).max(initial=0.0)) for g in gradients)
    return terms * (np.prod(np.shape(z)[:-1]) if reduction == "sum" else 1.0), largest


def _torch_mixture(torch, z, log_weights, mu, logvar):
    normal = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
    log_p = normal.log_prob(z[:, None]).sum(2)
    return torch.logsumexp(log_weights + log_p, 1).mean()


@covers("mixture_log_prob")
def _mixture_log_prob(size, dtype):
    arrays = _mixture(size, dtype)
    torch = {"PyTorch": in_torch(_torch_mixture, arrays)}
    ours, theirs = fastelbo.mixture_log_prob, reference.mixture_log_prob
    yield both(ours, theirs, *arrays, scale=mixture_terms, others=torch)
    yield both(ours, theirs, *arrays, scale=mixture_terms, reduction="none")


@covers("mixture_log_prob_and_grad")
def _mixture_log_prob_and_grad(size, dtype):
    arrays = _mixture(size, dtype)
    torch = {"PyTorch": in_torch(_torch_mixture, arrays, (0, 1, 2, 3))}
    ours, theirs = fastelbo.mixture_log_prob_and_grad, reference.mixture_log_prob_and_grad
    yield both(ours, theirs, *arrays, scale=mixture_scales, others=torch)
    scale = partial(mixture_scales, reduction="sum")
    yield both(ours, theirs, *arrays, scale=scale, reduction="sum")


# Priors -----------------------------------------------------------------------------------------


@covers("StandardNormal")
def _standard_normal(size, dtype):
    inputs = Inputs(size, dtype)
    ours, theirs = fastelbo.StandardNormal(), reference.StandardNormal()
    for z in (
        inputs.normal(inputs.batch, inputs.latent),
        inputs.normal(2, inputs.batch, inputs.latent),
    ):
        yield both(ours.log_prob, theirs.log_prob, z)
        yield both(ours.log_prob_and_grad, theirs.log_prob_and_grad, z)


def _torch_prior(torch, z, logits, mu, logvar):
    return _torch_mixture(torch, z, torch.log_softmax(logits, 0), mu, logvar)


def _prior(ours, theirs, z, others=None):
    """Gradients inherit the rounding of the terms; that of the logits is a difference of shares."""
    terms = mixture_terms(z, theirs.log_weights, theirs.mu, theirs.logvar)
    weights = np.full(len(z), 1 / len(z))

    def inherited(gradient):
        return 2 * terms * float(np.abs(gradient).max())

    by_z, _, by_mu, by_logvar = theirs.backward(z, weights)
    of_value = terms, len(z) * inherited(by_z)
    of_backward = inherited(by_z), 2 * terms, inherited(by_mu), inherited(by_logvar)
    yield both(ours.log_prob, theirs.log_prob, z, scale=lambda *_: terms)
    yield both(ours.log_prob_and_grad, theirs.log_prob_and_grad, z, scale=lambda *_: of_value)
    yield both(
        ours.backward, theirs.backward, z, weights, scale=lambda *_: of_backward, others=others
    )


@covers("MixtureOfGaussians")
def _mixture_of_gaussians(size, dtype):
    z, *parameters = _mixture(size, dtype)

    def in_pytorch():
        return in_torch(_torch_prior, (z, *parameters), (0, 1, 2, 3))()[1]

    for logits in (parameters[0], None):
        ours, theirs = (
            module.MixtureOfGaussians(logits, *parameters[1:]) for module in (fastelbo, reference)
        )
        yield from _prior(ours, theirs, z, None if logits is None else {"PyTorch": in_pytorch})


@covers("VampPrior")
def _vamp_prior(size, dtype):
    z, logits, mu, logvar = _mixture(size, dtype)
    for options in ({}, {"logits": logits}):
        yield from _prior(
            fastelbo.VampPrior(mu, logvar, **options),
            reference.VampPrior(mu, logvar, **options),
            z,
        )


# Maximum mean discrepancy -----------------------------------------------------------------------


def _sets(size, dtype):
    inputs = Inputs(size, dtype)
    most = max(int(np.sqrt(LARGEST / inputs.latent)), 2)
    n, m = min(inputs.batch + 1, most), min(inputs.event + 1, most)
    return inputs.normal(n, inputs.latent), inputs.normal(m, inputs.latent, scale=1.2, shift=0.2)


def mmd_scales(z, y, kernel="rbf", with_gradient=True, **options):
    """Means of the kernel cancel, and so do pulls, of kernels as steep as at d = s at most."""
    scales = 7 if kernel == "imq" else 1
    if not with_gradient:
        return 3.0 * scales
    pull = 4.0 * scales * (1 + np.sqrt(z.shape[1]))
    return 3.0 * scales, (pull / len(z), pull / len(y))


def _torch_mmd(torch, z, y):
    def mean(a, b, without_self=False):
        k = torch.exp(-((a[:, None] - b) ** 2).sum(2) / (2 * a.shape[1]))
        if without_self:
            return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))
        return k.mean()

    return mean(z, z, True) + mean(y, y, True) - 2 * mean(z, y)


@covers("mmd")
def _mmd(size, dtype):
    sets = _sets(size, dtype)
    ours, theirs = fastelbo.mmd, reference.mmd
    torch = {"PyTorch": in_torch(_torch_mmd, sets)}
    for kernel in ("rbf", "imq"):
        scale = partial(mmd_scales, kernel=kernel, with_gradient=False)
        others = torch if kernel == "rbf" else {}
        yield both(ours, theirs, *sets, kernel=kernel, scale=scale, others=others)
        yield both(ours, theirs, *sets, kernel=kernel, estimator="biased", scale=scale)


@covers("mmd_and_grad")
def _mmd_and_grad(size, dtype):
    sets = _sets(size, dtype)
    ours, theirs = fastelbo.mmd_and_grad, reference.mmd_and_grad
    torch = {"PyTorch": in_torch(_torch_mmd, sets, (0, 1))}
    for kernel in ("rbf", "imq"):
        scale = partial(mmd_scales, kernel=kernel)
        others = torch if kernel == "rbf" else {}
        yield both(ours, theirs, *sets, kernel=kernel, scale=scale, others=others)
        yield both(ours, theirs, *sets, kernel=kernel, estimator="biased", scale=scale)


# Experts ----------------------------------------------------------------------------------------

EXPERTS = 3


def _experts(size, dtype):
    """(inputs, mu, logvar, mask), some samples without some expert."""
    inputs = Inputs(size, dtype)
    shape = EXPERTS, inputs.batch, inputs.latent
    mask = inputs.uniform(*shape[:2]) < 0.7
    mask[0] = True
    return inputs, inputs.normal(*shape), inputs.normal(*shape, scale=0.7), mask


def _torch_product(torch, mu, logvar):
    precision = torch.exp(-logvar)
    total = precision.sum(0) + 1
    return ((precision * mu).sum(0) / total + total.log()).sum()


@covers("product_of_experts")
def _product_of_experts(size, dtype):
    _, mu, logvar, mask = _experts(size, dtype)
    ours, theirs = fastelbo.product_of_experts, reference.product_of_experts
    scale = (8.0, 4.0)
    for options in ({}, {"prior": False}, {"mask": mask}):
        yield both(ours, theirs, mu, logvar, scale=lambda *_: scale, **options)


@covers("product_of_experts_backward")
def _product_of_experts_backward(size, dtype):
    inputs, mu, logvar, mask = _experts(size, dtype)
    grads = inputs.normal(*mu.shape[1:]), inputs.normal(*mu.shape[1:])
    ours, theirs = fastelbo.product_of_experts_backward, reference.product_of_experts_backward

    def in_pytorch():
        return in_torch(_torch_product, (mu, logvar), (0, 1))()[1]

    ones = np.ones_like(grads[0])
    torch = {"PyTorch": in_pytorch}
    yield both(ours, theirs, ones, -ones, mu, logvar, scale=lambda *_: 20.0, others=torch)
    for options in ({"prior": False}, {"mask": mask}):
        yield both(ours, theirs, *grads, mu, logvar, scale=lambda *_: 20.0, **options)


@covers("mopoe")
def _mopoe(size, dtype):
    _, mu, logvar, mask = _experts(size, dtype)
    for options in ({}, {"prior": False}, {"mask": mask}):
        yield both(
            fastelbo.mopoe, reference.mopoe, mu, logvar, scale=lambda *_: (8.0, 4.0, 1.0), **options
        )


@covers("mopoe_backward")
def _mopoe_backward(size, dtype):
    inputs, mu, logvar, mask = _experts(size, dtype)
    shape = 2**EXPERTS - 1, *mu.shape[1:]
    arrays = inputs.normal(*shape), inputs.normal(*shape), mu, logvar
    ours, theirs = fastelbo.mopoe_backward, reference.mopoe_backward
    for options in ({}, {"prior": False}, {"mask": mask}):
        yield both(ours, theirs, *arrays, scale=lambda *_: 60.0, **options)


def _torch_mixture_of_experts(torch, z, mu, logvar):
    normal = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
    return (torch.logsumexp(normal.log_prob(z).sum(2), 0) - np.log(len(mu))).mean()


def _density_scales(z, mu, logvar, *mask):
    """Each expert's terms; its share inherits their rounding."""
    terms = float((0.5 * (z - mu) ** 2 * np.exp(-logvar) + np.abs(logvar) + 2).sum(axis=2).max())
    _, gradients = reference.mixture_of_experts_and_grad(z, mu, logvar, *mask)
    return terms, tuple(2 * terms * float(np.abs(g).max()) for g in gradients)


@covers("mixture_of_experts")
def _mixture_of_experts(size, dtype):
    inputs, mu, logvar, mask = _experts(size, dtype)
    arrays = inputs.normal(*mu.shape[1:]), mu, logvar
    ours, theirs = fastelbo.mixture_of_experts, reference.mixture_of_experts
    scale = _density_scales(*arrays)[0]
    torch = {"PyTorch": in_torch(_torch_mixture_of_experts, arrays)}
    yield both(ours, theirs, *arrays, scale=lambda *_: scale, others=torch)
    yield both(ours, theirs, *arrays, mask, reduction="none", scale=lambda *_: scale)


@covers("mixture_of_experts_and_grad")
def _mixture_of_experts_and_grad(size, dtype):
    inputs, mu, logvar, mask = _experts(size, dtype)
    arrays = inputs.normal(*mu.shape[1:]), mu, logvar
    ours, theirs = fastelbo.mixture_of_experts_and_grad, reference.mixture_of_experts_and_grad
    torch = {"PyTorch": in_torch(_torch_mixture_of_experts, arrays, (0, 1, 2))}
    yield both(ours, theirs, *arrays, scale=_density_scales, others=torch)
    yield both(ours, theirs, *arrays, mask, scale=_density_scales)
