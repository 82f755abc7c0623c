"""The likelihoods as users write them in NumPy and SciPy, and in PyTorch: part of `baselines`.

Learned scales throughout; ``TRIALS`` for the binomials, 256 bins for pixels.
"""

import math

import numpy as np

TRIALS = 100
BINS = 256


class NumPyLikelihoods:
    """Methods of the contender NumPy: the density, and its gradient by hand."""

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

    def continuous_bernoulli(self, x, logits):
        safe = np.where(np.abs(logits) < 1e-2, 1e-2, logits)
        normaliser = np.log(np.expm1(safe) / safe)
        normaliser = np.where(safe == logits, normaliser, logits / 2 + logits**2 / 24)
        return (np.mean(np.sum(x * logits - normaliser, axis=1)),)

    def continuous_bernoulli_and_grad(self, x, logits):
        safe = np.where(np.abs(logits) < 1e-2, 1e-2, logits)
        mean = 1 / (1 - np.exp(-safe)) - 1 / safe
        mean = np.where(safe == logits, mean, 0.5 + logits / 12)
        return *self.continuous_bernoulli(x, logits), (x - mean) / len(x)

    def laplace(self, x, x_recon, log_scale):
        scaled = np.abs(x - x_recon) / np.exp(log_scale)
        return (-np.mean(np.sum(scaled + log_scale + np.log(2), axis=1)),)

    def laplace_and_grad(self, x, x_recon, log_scale):
        scale = np.exp(log_scale)
        scaled = np.abs(x - x_recon) / scale
        value = -np.mean(np.sum(scaled + log_scale + np.log(2), axis=1))
        return value, np.sign(x - x_recon) / scale / len(x), (scaled - 1) / len(x)

    def student_t(self, x, x_recon, log_scale, log_df):
        from scipy.special import gammaln

        df = np.exp(log_df)
        u = ((x - x_recon) / np.exp(log_scale)) ** 2 / df
        norm = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(np.pi * df) - log_scale
        return (np.mean(np.sum(norm - (df + 1) / 2 * np.log1p(u), axis=1)),)

    def student_t_and_grad(self, x, x_recon, log_scale, log_df):
        from scipy.special import digamma

        scale, df = np.exp(log_scale), np.exp(log_df)
        scaled = (x - x_recon) / scale
        u = scaled**2 / df
        pull = (df + 1) * scaled / df / (1 + u)
        by_df = (digamma((df + 1) / 2) - digamma(df / 2) - 1 / df - np.log1p(u)) / 2 * df
        by_df = by_df + pull * scaled / 2
        value = self.student_t(x, x_recon, log_scale, log_df)
        return *value, pull / scale / len(x), (pull * scaled - 1) / len(x), by_df / len(x)

    def poisson(self, counts, log_rate):
        from scipy.special import gammaln

        values = counts * log_rate - np.exp(log_rate) - gammaln(counts + 1)
        return (np.mean(np.sum(values, axis=1)),)

    def poisson_and_grad(self, counts, log_rate):
        gradient = (counts - np.exp(log_rate)) / len(counts)
        return *self.poisson(counts, log_rate), gradient

    def binomial(self, counts, logits):
        values = _log_choose(counts) + counts * logits - TRIALS * np.logaddexp(0, logits)
        return (np.mean(np.sum(values, axis=1)),)

    def binomial_and_grad(self, counts, logits):
        gradient = (counts - TRIALS / (1 + np.exp(-logits))) / len(counts)
        return *self.binomial(counts, logits), gradient

    def beta_binomial(self, counts, alpha, beta):
        from scipy.special import betaln

        values = _log_choose(counts) + betaln(counts + alpha, TRIALS - counts + beta)
        return (np.mean(np.sum(values - betaln(alpha, beta), axis=1)),)

    def beta_binomial_and_grad(self, counts, alpha, beta):
        from scipy.special import digamma

        both = digamma(TRIALS + alpha + beta) - digamma(alpha + beta)
        by_alpha = digamma(counts + alpha) - digamma(alpha) - both
        by_beta = digamma(TRIALS - counts + beta) - digamma(beta) - both
        value = self.beta_binomial(counts, alpha, beta)
        return *value, by_alpha / len(counts), by_beta / len(counts)

    def discretized_logistic(self, pixels, mean, log_scale):
        values, _, _ = _bins(pixels, mean, log_scale)
        return (np.mean(np.sum(values, axis=1)),)

    def discretized_logistic_and_grad(self, pixels, mean, log_scale):
        values, by_mean, by_scale = _bins(pixels, mean, log_scale)
        value = np.mean(np.sum(values, axis=1))
        return value, by_mean / len(pixels), by_scale / len(pixels)

    def discretized_logistic_mixture(self, pixels, logits, means, log_scales):
        masses, _, _ = _bins(pixels[:, None], means, log_scales)
        values = np.logaddexp.reduce(logits + masses, axis=1) - np.logaddexp.reduce(logits, axis=1)
        return (np.mean(np.sum(values, axis=1)),)

    def discretized_logistic_mixture_and_grad(self, pixels, logits, means, log_scales):
        masses, by_mean, by_scale = _bins(pixels[:, None], means, log_scales)
        joint = np.logaddexp.reduce(logits + masses, axis=1)
        prior = np.logaddexp.reduce(logits, axis=1)
        share = np.exp(logits + masses - joint[:, None])
        by_logits = share - np.exp(logits - prior[:, None])
        gradients = (by_logits, share * by_mean, share * by_scale)
        return np.mean(np.sum(joint - prior, axis=1)), *(g / len(pixels) for g in gradients)

    def categorical(self, labels, class_logits):
        m = class_logits.max(axis=-1)
        normaliser = m + np.log(np.exp(class_logits - m[..., None]).sum(axis=-1))
        chosen = np.take_along_axis(class_logits, labels[..., None], -1)[..., 0]
        return (np.mean(np.sum(chosen - normaliser, axis=1)),)

    def categorical_and_grad(self, labels, class_logits):
        e = np.exp(class_logits - class_logits.max(axis=-1, keepdims=True))
        share = e / e.sum(axis=-1, keepdims=True)
        gradient = (np.arange(share.shape[-1]) == labels[..., None]) - share
        return *self.categorical(labels, class_logits), gradient / len(labels)


def _log_choose(counts):
    from scipy.special import gammaln

    return gammaln(TRIALS + 1) - gammaln(counts + 1) - gammaln(TRIALS - counts + 1)


def _bins(pixels, mean, log_scale):
    """log-masses of discretized logistics, and derivatives by mean and log_scale."""
    inverse = np.exp(-log_scale)
    centre = 2 * pixels.astype(mean.dtype) / (BINS - 1) - 1 - mean
    hi, lo = (centre + 1 / (BINS - 1)) * inverse, (centre - 1 / (BINS - 1)) * inverse
    above = np.where(pixels == BINS - 1, 1, 1 / (1 + np.exp(-hi)))
    below = np.where(pixels == 0, 0, 1 / (1 + np.exp(-lo)))
    mass = above - below
    at_hi, at_lo = above * (1 - above) / mass, below * (1 - below) / mass
    return np.log(mass), (at_lo - at_hi) * inverse, lo * at_lo - hi * at_hi


def torch_likelihoods(torch):
    """What a PyTorch user writes, each (x, *parameters) -> (the mean log-density,)."""
    functional = torch.nn.functional
    distributions = torch.distributions
    options = {"validate_args": False}

    def reduced(values):
        return (values.sum(1).mean(),)

    def gaussian(x, x_recon, log_scale):
        return reduced(distributions.Normal(x_recon, log_scale.exp(), **options).log_prob(x))

    def bernoulli(x, logits):
        return reduced(-functional.binary_cross_entropy_with_logits(logits, x, reduction="none"))

    def continuous_bernoulli(x, logits):
        return reduced(distributions.ContinuousBernoulli(logits=logits, **options).log_prob(x))

    def laplace(x, x_recon, log_scale):
        return reduced(distributions.Laplace(x_recon, log_scale.exp(), **options).log_prob(x))

    def student_t(x, x_recon, log_scale, log_df):
        density = distributions.StudentT(log_df.exp(), x_recon, log_scale.exp(), **options)
        return reduced(density.log_prob(x))

    def poisson(counts, log_rate):
        return reduced(counts * log_rate - log_rate.exp() - torch.lgamma(counts + 1))

    def binomial(counts, logits):
        return reduced(distributions.Binomial(TRIALS, logits=logits, **options).log_prob(counts))

    def log_beta(a, b):
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    def beta_binomial(counts, alpha, beta):
        rest = TRIALS - counts
        log_choose = math.lgamma(TRIALS + 1) - torch.lgamma(counts + 1) - torch.lgamma(rest + 1)
        return reduced(log_choose + log_beta(counts + alpha, rest + beta) - log_beta(alpha, beta))

    def bins(pixels, mean, log_scale):
        """As in the public implementations of PixelCNN++."""
        inverse = torch.exp(-log_scale)
        centre = 2 * pixels.to(mean.dtype) / (BINS - 1) - 1 - mean
        hi = inverse * (centre + 1 / (BINS - 1))
        lo = inverse * (centre - 1 / (BINS - 1))
        inner = torch.log(torch.clamp(torch.sigmoid(hi) - torch.sigmoid(lo), min=1e-12))
        first = hi - functional.softplus(hi)
        last = -functional.softplus(lo)
        return torch.where(pixels == 0, first, torch.where(pixels == BINS - 1, last, inner))

    def discretized_logistic(pixels, mean, log_scale):
        return reduced(bins(pixels, mean, log_scale))

    def discretized_logistic_mixture(pixels, logits, means, log_scales):
        masses = bins(pixels[:, None], means, log_scales)
        return reduced(torch.logsumexp(torch.log_softmax(logits, 1) + masses, 1))

    def categorical(labels, class_logits):
        flat = class_logits.flatten(0, 1), labels.flatten()
        return (-functional.cross_entropy(*flat, reduction="sum") / len(labels),)

    return {
        "gaussian": gaussian,
        "bernoulli": bernoulli,
        "continuous_bernoulli": continuous_bernoulli,
        "laplace": laplace,
        "student_t": student_t,
        "poisson": poisson,
        "binomial": binomial,
        "beta_binomial": beta_binomial,
        "discretized_logistic": discretized_logistic,
        "discretized_logistic_mixture": discretized_logistic_mixture,
        "categorical": categorical,
    }
