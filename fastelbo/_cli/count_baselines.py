"""The negative binomials as users write them: part of `baselines`, and the arrays of their cases.

The formula is that of scvi-tools, with its eps, in NumPy with SciPy's lgamma and in PyTorch.
"""

import numpy as np

EPS = 1e-8

#: What counts look like: mostly zeros, none, or zeros among large ones.
KINDS = {"": "sparse_counts", "_dense": "dense_counts", "_large": "large_counts"}

#: As in `likelihood_cases.LIKELIHOODS`: theta is one a gene.
COUNT_LIKELIHOODS = {
    name + kind: (likelihood, (), (counts, "gene_mean", "gene_theta", *more))
    for name, likelihood, more in (
        ("negative_binomial", "NegativeBinomial", ()),
        ("zero_inflated_negative_binomial", "ZeroInflatedNegativeBinomial", ("zero_logits",)),
    )
    for kind, counts in KINDS.items()
}


def count_array(name, size, dtype, rng):
    """One of the arrays named above."""
    shape = size[:2]
    if name == "gene_mean":
        return rng.uniform(0.1, 2.1, shape).astype(dtype)
    if name == "gene_theta":
        return rng.uniform(0.5, 1.5, shape[1]).astype(dtype)
    if name == "zero_logits":
        return rng.standard_normal(shape).astype(dtype)
    largest = 10_000 if name == "large_counts" else 8
    counts = rng.integers(1, largest + 1, shape)
    if name != "dense_counts":
        counts[rng.random(shape) < 0.8] = 0
    return counts.astype(dtype)


class NumPyCounts:
    """Methods of the contender NumPy."""

    def negative_binomial(self, x, mu, theta):
        return (np.mean(np.sum(_negative_binomial(x, mu, theta), axis=1)),)

    def negative_binomial_and_grad(self, x, mu, theta):
        value = np.mean(np.sum(_negative_binomial(x, mu, theta), axis=1))
        by_mu, by_theta = _slopes(x, mu, theta)
        return value, by_mu / len(x), by_theta.sum(axis=0) / len(x)

    def zero_inflated_negative_binomial(self, x, mu, theta, logits):
        values, _, _ = _zero_inflated(x, mu, theta, logits)
        return (np.mean(np.sum(values, axis=1)),)

    def zero_inflated_negative_binomial_and_grad(self, x, mu, theta, logits):
        values, share, by_logits = _zero_inflated(x, mu, theta, logits)
        by_mu, by_theta = _slopes(x, mu, theta)
        value = np.mean(np.sum(values, axis=1))
        by_theta = (share * by_theta).sum(axis=0)
        return value, share * by_mu / len(x), by_theta / len(x), by_logits / len(x)

    negative_binomial_dense = negative_binomial_large = negative_binomial
    negative_binomial_dense_and_grad = negative_binomial_and_grad
    negative_binomial_large_and_grad = negative_binomial_and_grad
    zero_inflated_negative_binomial_dense = zero_inflated_negative_binomial
    zero_inflated_negative_binomial_large = zero_inflated_negative_binomial
    zero_inflated_negative_binomial_dense_and_grad = zero_inflated_negative_binomial_and_grad
    zero_inflated_negative_binomial_large_and_grad = zero_inflated_negative_binomial_and_grad


def _negative_binomial(x, mu, theta):
    from scipy.special import gammaln

    log_theta_mu = np.log(theta + mu + EPS)
    return (
        theta * (np.log(theta + EPS) - log_theta_mu)
        + x * (np.log(mu + EPS) - log_theta_mu)
        + gammaln(x + theta)
        - gammaln(theta)
        - gammaln(x + 1)
    )


def _slopes(x, mu, theta):
    """The derivatives by mu and theta."""
    from scipy.special import digamma

    total = theta + mu
    by_theta = digamma(x + theta) - digamma(theta) - np.log1p(mu / theta) + (mu - x) / total
    return theta * (x - mu) / (mu * total), by_theta


def _zero_inflated(x, mu, theta, logits):
    """Values, and their derivatives by the negative binomial's and by the logits."""
    log_p = _negative_binomial(x, mu, theta)
    log_count, log_both = -np.logaddexp(0, logits), np.logaddexp(logits, log_p)
    values = log_count + np.where(x == 0, log_both, log_p)
    excess = np.where(x == 0, np.exp(logits - log_both), 0)
    share = np.where(x == 0, np.exp(log_p - log_both), 1)
    return values, share, excess - 1 / (1 + np.exp(-logits))


def torch_counts(torch):
    """What a PyTorch user writes, or has from scvi-tools."""
    softplus = torch.nn.functional.softplus

    def elements(x, mu, theta):
        log_theta_mu = torch.log(theta + mu + EPS)
        return (
            theta * (torch.log(theta + EPS) - log_theta_mu)
            + x * (torch.log(mu + EPS) - log_theta_mu)
            + torch.lgamma(x + theta)
            - torch.lgamma(theta)
            - torch.lgamma(x + 1)
        )

    def negative_binomial(x, mu, theta):
        return (elements(x, mu, theta).sum(1).mean(),)

    def zero_inflated_negative_binomial(x, mu, theta, logits):
        softplus_pi = softplus(-logits)
        log_theta_eps, log_theta_mu_eps = torch.log(theta + EPS), torch.log(theta + mu + EPS)
        pi_theta_log = -logits + theta * (log_theta_eps - log_theta_mu_eps)
        zero = softplus(pi_theta_log) - softplus_pi
        some = (
            -softplus_pi
            + pi_theta_log
            + x * (torch.log(mu + EPS) - log_theta_mu_eps)
            + torch.lgamma(x + theta)
            - torch.lgamma(theta)
            - torch.lgamma(x + 1)
        )
        values = (x < EPS).to(x.dtype) * zero + (x > EPS).to(x.dtype) * some
        return (values.sum(1).mean(),)

    functions = (negative_binomial, zero_inflated_negative_binomial)
    return {function.__name__ + kind: function for function in functions for kind in KINDS}


# What becomes of lgamma(x + theta) - lgamma(theta) ---------------------------------------------

THETAS = (1.0, 1e2, 1e4, 1e6, 1e8)


def errors_by_theta():
    """{who: relative float32 errors of log p for each of THETAS}, on counts of mean 5."""
    import fastelbo
    from fastelbo import reference

    rng = np.random.default_rng(0)
    x = rng.poisson(5.0, (64, 64)).astype(np.float32)
    mu = rng.uniform(3.0, 7.0, x.shape).astype(np.float32)
    contenders = {"fastelbo": lambda theta: fastelbo.NegativeBinomial().log_prob(x, mu, theta)}
    contenders["scvi-tools' formula, SciPy"] = lambda theta: NumPyCounts().negative_binomial(
        x, mu, theta
    )[0]
    try:
        import torch

        function = torch_counts(torch)["negative_binomial"]
        contenders["scvi-tools' formula, PyTorch"] = lambda theta: function(
            *map(torch.from_numpy, (x, mu, theta))
        )[0]
    except ImportError:
        pass
    found = {name: [] for name in contenders}
    for theta in THETAS:
        array = np.full(x.shape[1], theta, np.float32)
        exact = reference.NegativeBinomial().log_prob(x, mu, array)
        for name, value in contenders.items():
            found[name].append(abs(float(value(array)) / exact - 1))
    return found
