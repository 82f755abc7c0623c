"""One posterior of several modalities; dicts by name, as in the public functions."""

import numpy as np

from fastelbo.reference._common import as_float64
from fastelbo.reference.experts import (
    mopoe,
    mopoe_backward,
    product_of_experts,
    product_of_experts_backward,
)
from fastelbo.reference.noise import noise_of
from fastelbo.reference.posterior import reparameterize, reparameterize_backward


def _stacked(experts, present):
    mu, logvar = (as_float64(np.stack(arrays)) for arrays in zip(*experts.values(), strict=True))
    seen = np.ones(mu.shape[:2], bool)
    for m, name in enumerate(experts):
        seen[m] = (present or {}).get(name, True)
    return mu, logvar, seen


def joint_posterior(
    experts,
    *,
    method="poe",
    present=None,
    prior=True,
    component=None,
    rng=None,
    noise=None,
):
    """(mu, logvar, mask, component, z) of a product, a mixture, or a mixture of products.

    Examples
    --------
    >>> experts = {"a": ([[3.0]], [[0.0]]), "b": ([[0.0]], [[0.0]])}
    >>> joint_posterior(experts, noise=[[0.0]])[4]
    array([[1.]])
    """
    mu, logvar, mask = _stacked(experts, present)
    dtypes = [a for pair in experts.values() for a in pair]
    if method == "poe":
        mu, logvar = (a[None] for a in product_of_experts(mu, logvar, mask=mask, prior=prior))
        mask = np.ones(mu.shape[:2], bool)
    elif method == "mopoe":
        mu, logvar, mask = mopoe(mu, logvar, mask=mask, prior=prior)
    else:
        mu, logvar = (np.where(mask[..., None], a, 0.0) for a in (mu, logvar))
    if component is None and len(mask) == 1:
        component = np.zeros(mask.shape[1], np.intp)
    elif component is None:
        which = np.random.default_rng(rng).integers(mask.sum(axis=0))
        component = [np.flatnonzero(m)[w] for m, w in zip(mask.T, which, strict=True)]
    at = np.asarray(component), np.arange(mask.shape[1])
    eps = noise_of(noise, rng, mu.shape[1:], *dtypes)
    return mu, logvar, mask, at[0], reparameterize(mu[at], logvar[at], noise=eps)


def joint_posterior_backward(
    grad_z,
    grad_mu,
    grad_logvar,
    experts,
    posterior,
    *,
    method="poe",
    present=None,
    prior=True,
):
    """{name: (mu, logvar)}.

    Examples
    --------
    >>> experts = {"a": ([[3.0]], [[0.0]]), "b": ([[0.0]], [[0.0]])}
    >>> q = joint_posterior(experts, noise=[[0.0]])
    >>> joint_posterior_backward([[3.0]], [[[0.0]]], [[[0.0]]], experts, q)["a"]
    (array([[1.]]), array([[-2.]]))
    """
    mu, logvar, seen = _stacked(experts, present)
    parts_mu, parts_logvar, _, component, z = posterior
    at = component, np.arange(mu.shape[1])
    flows = [np.array(g, np.float64) for g in (grad_mu, grad_logvar)]
    through_z = reparameterize_backward(grad_z, parts_mu[at], parts_logvar[at], z)
    for flow, more in zip(flows, through_z, strict=True):
        flow[at] += more
    options = {"mask": seen, "prior": prior}
    if method == "poe":
        flows = product_of_experts_backward(flows[0][0], flows[1][0], mu, logvar, **options)
    elif method == "mopoe":
        flows = mopoe_backward(*flows, mu, logvar, **options)
    flows = [np.where(seen[..., None], flow, 0.0) for flow in flows]
    return {name: tuple(flow[m] for flow in flows) for m, name in enumerate(experts)}
