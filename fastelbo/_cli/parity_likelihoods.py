"""The parity checks of the likelihoods."""

from functools import partial

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._cli.parity_checks import Inputs, both, covers, in_torch

TRIALS = 40


def log_prob_scale(likelihood, x, *parameters, extra=0.0, reduction="mean"):
    """The size of a log-density: of the largest sample's terms, or of all samples' for a sum.

    ``extra`` is the size of the terms that cancel within an element.
    """
    arrays = (np.asarray(p, np.float64) for p in parameters)
    with np.errstate(all="ignore"):
        values, _ = likelihood.elements(np.asarray(x, np.float64) * likelihood.x_scale, *arrays)
    constant = 0.5 * reference.LOG_2PI if isinstance(likelihood, reference.Gaussian) else extra
    rows = (np.abs(values) + constant).sum(axis=1)
    return float({"mean": np.mean, "sum": np.sum, "none": np.max}[reduction](rows))


def gradient_scale(x, *parameters, reduction="mean", sizes=None):
    """The sizes of the terms in the derivatives, times the weight of a sample.

    Not given: a derivative by log_scale is ((x - x_recon) / scale)^2 - 1.
    """
    weight = 1.0 / len(x) if reduction == "mean" else 1.0
    sizes = (0.0, *(1.0 for _ in parameters[1:])) if sizes is None else sizes
    return tuple(weight * float(size) for size in sizes)


def _likelihood(
    ours, theirs, x, *parameters, others=None, with_torch=None, extra=0.0, sizes=None, masked=True
):
    """Value and gradient of a likelihood; `with_torch` is its value in PyTorch."""
    others = dict(others or {})
    autograd = {}
    if with_torch is not None:
        arrays = (x, *parameters)
        others["PyTorch"] = in_torch(with_torch, arrays)
        autograd["PyTorch"] = in_torch(with_torch, arrays, range(1, len(arrays)))
    scale = partial(log_prob_scale, theirs, extra=extra)

    def scales(*arrays, reduction="mean"):
        return scale(*arrays, reduction=reduction), gradient_scale(
            *arrays, reduction=reduction, sizes=sizes
        )

    yield both(ours.log_prob, theirs.log_prob, x, *parameters, scale=scale, others=others)
    for reduction in ("mean", "sum", "none"):
        yield both(
            ours.log_prob_and_grad,
            theirs.log_prob_and_grad,
            x,
            *parameters,
            scale=partial(scales, reduction=reduction),
            others=autograd if reduction == "mean" else None,
            reduction=reduction,
        )
    if masked:
        mask = np.random.default_rng(x.size).random(x.shape) < 0.7
        yield both(
            partial(ours.log_prob_and_grad, mask=mask),
            partial(theirs.log_prob_and_grad, mask=mask),
            x,
            *parameters,
            scale=scales,
        )


def _scipy(density, x, *parameters):
    """The mean over the batch of what a function of scipy.stats sums over the event."""

    def evaluate():
        import scipy.stats

        arrays = (np.asarray(a, np.float64) for a in (x, *parameters))
        return float(density(scipy.stats, *arrays).sum(axis=1).mean())

    return {"SciPy": evaluate}


@covers("SquaredError")
def _squared_error(size, dtype):
    inputs = Inputs(size, dtype)
    x, x_recon = inputs.data()
    ours, theirs = fastelbo.SquaredError, reference.SquaredError

    def in_pytorch(torch, x, x_recon):
        return -((x - x_recon) ** 2).sum(1).mean()

    yield from _likelihood(ours(), theirs(), x, x_recon, with_torch=in_pytorch)
    bytes_ = inputs.rng.integers(0, 256, x.shape, dtype=np.uint8)
    yield from _likelihood(ours(x_scale=1 / 255), theirs(x_scale=1 / 255), bytes_, x_recon)


@covers("Gaussian")
def _gaussian(size, dtype):
    inputs = Inputs(size, dtype)
    x, x_recon = inputs.data()
    log_scale = inputs.normal(*x.shape, scale=0.4)
    per_feature = np.exp(inputs.normal(x.shape[1], scale=0.4))
    ours, theirs = fastelbo.Gaussian, reference.Gaussian

    def density(stats, x, x_recon, scale):
        return stats.norm.logpdf(x, x_recon, scale)

    def in_pytorch(torch, x, x_recon, log_scale):
        return torch.distributions.Normal(x_recon, log_scale.exp()).log_prob(x).sum(1).mean()

    for scale in (np.array(0.7), per_feature):
        scipy = _scipy(density, x, x_recon, scale)
        yield from _likelihood(ours(scale), theirs(scale), x, x_recon, others=scipy)
    learned = ours("learned"), theirs("learned")
    yield from _likelihood(*learned, x, x_recon, log_scale, with_torch=in_pytorch)
    optimal = ours("optimal"), theirs("optimal")
    yield from _likelihood(*optimal, x, x_recon, masked=x.size > 1)


@covers("Laplace")
def _laplace(size, dtype):
    inputs = Inputs(size, dtype)
    x, x_recon = inputs.data()
    log_scale = inputs.normal(*x.shape, scale=0.4)
    ours, theirs = fastelbo.Laplace, reference.Laplace

    def density(stats, x, x_recon):
        return stats.laplace.logpdf(x, x_recon, 0.7)

    def in_pytorch(torch, x, x_recon, log_scale):
        return torch.distributions.Laplace(x_recon, log_scale.exp()).log_prob(x).sum(1).mean()

    scipy = _scipy(density, x, x_recon)
    yield from _likelihood(ours(0.7), theirs(0.7), x, x_recon, others=scipy, extra=0.7)
    learned = ours("learned"), theirs("learned")
    yield from _likelihood(*learned, x, x_recon, log_scale, with_torch=in_pytorch, extra=0.7)


@covers("StudentT")
def _student_t(size, dtype):
    inputs = Inputs(size, dtype)
    x, x_recon = inputs.data()
    log_scale = inputs.normal(*x.shape, scale=0.4)
    log_df = inputs.normal(*x.shape, shift=1.0)
    ours, theirs = fastelbo.StudentT, reference.StudentT

    def density(stats, x, x_recon):
        return stats.t.logpdf(x, 2.5, x_recon, 0.7)

    def in_pytorch(torch, x, x_recon, log_scale, log_df):
        t = torch.distributions.StudentT(log_df.exp(), x_recon, log_scale.exp())
        return t.log_prob(x).sum(1).mean()

    scipy = _scipy(density, x, x_recon)
    yield from _likelihood(ours(2.5, 0.7), theirs(2.5, 0.7), x, x_recon, others=scipy, extra=1.0)
    half = ours(2.5, "learned"), theirs(2.5, "learned")
    yield from _likelihood(*half, x, x_recon, log_scale, extra=1.0)
    other = ours("learned", 0.7), theirs("learned", 0.7)
    df = np.exp(log_df.astype(np.float64)).max()
    yield from _likelihood(*other, x, x_recon, log_df, extra=1.0, sizes=(0.0, df))
    both_ = ours("learned", "learned"), theirs("learned", "learned")
    arrays = (x, x_recon, log_scale, log_df)
    options = {"extra": 1.0, "sizes": (0.0, 1.0, df)}
    yield from _likelihood(*both_, *arrays, with_torch=in_pytorch, **options)


@covers("Bernoulli")
def _bernoulli(size, dtype):
    inputs = Inputs(size, dtype)
    shape = inputs.batch, inputs.event
    logits = inputs.normal(*shape, scale=4.0)
    ours, theirs = fastelbo.Bernoulli, reference.Bernoulli

    def in_pytorch(torch, x, logits):
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        return -loss(logits, x, reduction="none").sum(1).mean()

    for x in (inputs.uniform(*shape), np.round(inputs.uniform(*shape))):
        yield from _likelihood(ours(), theirs(), x, logits, with_torch=in_pytorch)
    bytes_ = inputs.rng.integers(0, 256, shape, dtype=np.uint8)
    yield from _likelihood(ours(x_scale=1 / 255), theirs(x_scale=1 / 255), bytes_, logits)


@covers("ContinuousBernoulli")
def _continuous_bernoulli(size, dtype):
    inputs = Inputs(size, dtype)
    shape = inputs.batch, inputs.event
    ours, theirs = fastelbo.ContinuousBernoulli(), reference.ContinuousBernoulli()
    x = inputs.uniform(*shape)
    for logits in (inputs.normal(*shape, scale=4.0), inputs.normal(*shape, scale=0.01)):
        size = float(np.abs(logits).max())
        yield from _likelihood(ours, theirs, x, logits, extra=size, sizes=(1.0,))


@covers("Poisson")
def _poisson(size, dtype):
    inputs = Inputs(size, dtype)
    log_rate = inputs.normal(inputs.batch, inputs.event, shift=1.0)
    rate = np.exp(log_rate)
    x = inputs.rng.poisson(rate)

    def density(stats, x, log_rate):
        return stats.poisson.logpmf(x, np.exp(log_rate))

    def in_pytorch(torch, x, log_rate):
        return torch.distributions.Poisson(log_rate.exp()).log_prob(x).sum(1).mean()

    options = {"extra": np.abs(x - rate), "sizes": (np.max(x + rate),)}
    scipy = {"others": _scipy(density, x, log_rate), "with_torch": in_pytorch}
    logs = fastelbo.Poisson(), reference.Poisson()
    yield from _likelihood(*logs, x, log_rate, **scipy, **options)
    rates = fastelbo.Poisson(log_input=False), reference.Poisson(log_input=False)
    options["sizes"] = (np.max(x / rate + 1),)
    yield from _likelihood(*rates, x.astype(np.uint16), rate, **options)


@covers("Binomial")
def _binomial(size, dtype):
    inputs = Inputs(size, dtype)
    logits = inputs.normal(inputs.batch, inputs.event, scale=2.0)
    x = inputs.rng.binomial(TRIALS, 1 / (1 + np.exp(-logits)))

    def density(stats, x, logits):
        return stats.binom.logpmf(x, TRIALS, 1 / (1 + np.exp(-logits)))

    def in_pytorch(torch, x, logits):
        return torch.distributions.Binomial(TRIALS, logits=logits).log_prob(x).sum(1).mean()

    ours, theirs = fastelbo.Binomial(TRIALS), reference.Binomial(TRIALS)
    others = {"others": _scipy(density, x, logits), "with_torch": in_pytorch}
    options = {"extra": TRIALS, "sizes": (TRIALS,)}
    yield from _likelihood(ours, theirs, x.astype(np.uint8), logits, **others, **options)
    counts = inputs.rng.integers(1, TRIALS + 1, inputs.event)
    ours, theirs = fastelbo.Binomial(counts), reference.Binomial(counts)
    yield from _likelihood(ours, theirs, np.minimum(x, counts), logits, **options)


@covers("BetaBinomial")
def _beta_binomial(size, dtype):
    inputs = Inputs(size, dtype)
    shape = inputs.batch, inputs.event
    alpha, beta = (np.exp(inputs.normal(*shape)) for _ in range(2))
    x = inputs.rng.integers(0, TRIALS + 1, shape)

    def density(stats, x, alpha, beta):
        return stats.betabinom.logpmf(x, TRIALS, alpha, beta)

    ours, theirs = fastelbo.BetaBinomial(TRIALS), reference.BetaBinomial(TRIALS)
    yield from _likelihood(
        ours,
        theirs,
        x,
        alpha,
        beta,
        others=_scipy(density, x, alpha, beta),
        extra=TRIALS,
        sizes=(np.max(1 / alpha) + 5, np.max(1 / beta) + 5),
    )


def _logistics(inputs, *shape):
    """Means and log scales; the derivative of a sigmoid's argument is the inverse scale."""
    mean, log_scale = inputs.normal(*shape, scale=0.5), inputs.normal(*shape, scale=0.4, shift=-1)
    return mean, log_scale, float(np.exp(-log_scale).max())


@covers("DiscretizedLogistic")
def _discretized_logistic(size, dtype):
    inputs = Inputs(size, dtype)
    shape = inputs.batch, inputs.event
    mean, log_scale, steep = _logistics(inputs, *shape)
    x = inputs.rng.integers(0, 256, shape, dtype=np.uint8)

    def density(stats, x, mean, log_scale):
        scale, centre = np.exp(log_scale), 2 * x / 255 - 1
        hi = np.where(x == 255, np.inf, (centre + 1 / 255 - mean) / scale)
        lo = np.where(x == 0, -np.inf, (centre - 1 / 255 - mean) / scale)
        lo, hi = np.where(lo > 0, -hi, lo), np.where(lo > 0, -lo, hi)  # the tail keeps its digits
        return np.log(stats.logistic.cdf(hi) - stats.logistic.cdf(lo))

    others = _scipy(density, x, mean, log_scale) if dtype == "float32" else None
    ours, theirs = fastelbo.DiscretizedLogistic(), reference.DiscretizedLogistic()
    options = {"extra": steep, "sizes": (steep, 4 * steep)}
    yield from _likelihood(ours, theirs, x, mean, log_scale, others=others, **options)
    scale = np.exp(inputs.normal(inputs.event, scale=0.3, shift=-1).astype(np.float64))
    ours, theirs = fastelbo.DiscretizedLogistic(scale), reference.DiscretizedLogistic(scale)
    options = {"extra": 1 / scale, "sizes": (1 / scale.min(),)}
    yield from _likelihood(ours, theirs, x, mean, **options)


@covers("DiscretizedLogisticMixture")
def _discretized_logistic_mixture(size, dtype):
    inputs = Inputs(size, dtype)
    shape = inputs.batch, 3, inputs.event
    logits = inputs.normal(*shape)
    means, log_scales, steep = _logistics(inputs, *shape)
    x = inputs.rng.integers(0, 256, (inputs.batch, inputs.event), dtype=np.uint8)
    yield from _likelihood(
        fastelbo.DiscretizedLogisticMixture(),
        reference.DiscretizedLogisticMixture(),
        x,
        logits,
        means,
        log_scales,
        extra=steep,
        sizes=(steep, steep * steep, 4 * steep * steep),
    )


@covers("Categorical")
def _categorical(size, dtype):
    inputs = Inputs(size, dtype)

    def in_pytorch(torch, labels, logits):
        values = torch.distributions.Categorical(logits=logits).log_prob(labels)
        return values.reshape(len(labels), -1).sum(1).mean()

    likelihoods = fastelbo.Categorical(), reference.Categorical()
    for classes in (inputs.event, 3):
        logits = inputs.normal(inputs.batch, 2, classes, scale=2.0)
        labels = inputs.rng.integers(0, classes, (inputs.batch, 2))
        options = {"extra": 4.0, "sizes": (1.0,), "with_torch": in_pytorch}
        yield from _likelihood(*likelihoods, labels, logits, **options)
