"""KL divergences between categorical and Bernoulli distributions."""

import numpy as np

from fastelbo.reference._common import as_float64, quiet, reduce_rows, row_weight
from fastelbo.reference.likelihoods import sum_to


def log_softmax(logits):
    """log p over the last axis; infinite logits share everything."""
    top = logits.max(axis=-1, keepdims=True)
    infinite = np.where(logits == np.inf, 0.0, -np.inf)
    logits = np.where(top == np.inf, infinite, logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _with_prior(prior_logits, value, by_logits, by_prior, reduction):
    """Values and gradients of all samples as the caller asked for them."""
    rows = value.reshape(len(value), -1).sum(axis=1)
    weight = row_weight(len(rows), reduction)
    gradients = (weight * by_logits, None)
    if prior_logits is not None:
        gradients = (weight * by_logits, sum_to(weight * by_prior, np.shape(prior_logits)))
    return reduce_rows(rows, reduction), gradients


def kl_categorical(logits, prior_logits=None, *, reduction="mean"):
    """sum_c p_c (log p_c - log p0_c), p = softmax(logits); without a prior p0 is uniform.

    Examples
    --------
    >>> round(kl_categorical([[0.0, -np.inf]]), 12)  # log 2
    0.69314718056
    """
    return kl_categorical_and_grad(logits, prior_logits, reduction=reduction)[0]


@quiet
def kl_categorical_and_grad(logits, prior_logits=None, *, reduction="mean"):
    """(kl, (logits, prior_logits or None)).

    Where the prior lacks a class, gradients are limits for a prior logit that falls to -inf.

    Examples
    --------
    >>> kl_categorical_and_grad([[0.0, 0.0]])
    (0.0, (array([[0., 0.]]), None))
    """
    logits = as_float64(logits)
    prior = np.zeros(logits.shape[-1]) if prior_logits is None else as_float64(prior_logits)
    log_p, log_prior = log_softmax(logits), log_softmax(prior)
    p, p0 = np.exp(log_p), np.exp(log_prior)
    surprise = np.where(p == 0, 0.0, log_p - log_prior)
    kl = np.maximum(p * surprise - p + p0, 0).sum(axis=-1)  # whose terms are none of them negative
    pull = np.where(p == 0, 0.0, p * (surprise - kl[..., None]))
    lacks = surprise == np.inf
    has = (p > 0) & ~lacks
    limit = np.where(lacks, np.where(has.any(axis=-1, keepdims=True), np.inf, 0.0), 0.0)
    pull = np.where(kl[..., None] == np.inf, np.where(has, -np.inf, limit), pull)
    return _with_prior(prior_logits, kl, pull, p0 - p, reduction)


def kl_bernoulli(logits, prior_logits=None, *, reduction="mean"):
    """p log(p / p0) + (1 - p) log((1 - p) / (1 - p0)); without a prior p0 is 1/2.

    Examples
    --------
    >>> round(kl_bernoulli([[np.inf, 0.0]]), 12)  # log 2
    0.69314718056
    """
    return kl_bernoulli_and_grad(logits, prior_logits, reduction=reduction)[0]


@quiet
def kl_bernoulli_and_grad(logits, prior_logits=None, *, reduction="mean"):
    """(kl, (logits, prior_logits or None)).

    Examples
    --------
    >>> kl_bernoulli_and_grad([[0.0]])
    (0.0, (array([[0.]]), None))
    """
    logits = as_float64(logits)
    prior = as_float64(0.0 if prior_logits is None else prior_logits)
    costs, prior_costs = (
        (np.logaddexp(0.0, -a), np.logaddexp(0.0, a)) for a in (logits, prior)
    )  # minus log p, minus log(1 - p)
    kl = np.zeros(logits.shape)
    for cost, prior_cost in zip(costs, prior_costs, strict=True):
        p = np.exp(-cost)
        kl = kl + np.where(p == 0, 0.0, p * (prior_cost - cost))
    (p, q), (p0, q0) = ((np.exp(-a), np.exp(-b)) for a, b in (costs, prior_costs))
    pull = np.where(p * q == 0, 0.0, p * q * (logits - prior))
    push = np.where(prior > -logits, q - q0, p0 - p)  # the smaller of p and q keep their digits
    return _with_prior(prior_logits, np.maximum(kl, 0), pull, push, reduction)
