"""Rows of categorical and Bernoulli latents: KL divergences, and samples with gradients."""

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Case, Row, with_and_grad

KEY = 0x0123456789ABCDEF
#: Gumbel noise is rarely more: an error of the noise itself is relative to one, or to itself.
MOST_NOISE = 16.0
LATENTS = {"B": 128, "L": 20, "C": 10}


def _function(name):
    return lambda module, suffix: getattr(module, name + suffix)


def _of_own_prior(shape, size):
    """The size of a prior's gradient: over what it was broadcast to, a sum."""
    size = size.sum(axis=tuple(range(size.ndim - len(shape))))
    return size.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def _sizes(rows, by_logits, prior, by_prior, reduction):
    """Of value and gradients, from those of single elements."""
    weight = reference.row_weight(len(rows), reduction)
    value = reference.reduce_rows(rows.reshape(len(rows), -1).sum(axis=1), reduction)
    if prior is None:
        return value, weight * by_logits
    return value, weight * by_logits, _of_own_prior(prior.shape, weight * by_prior)


def _categorical_magnitudes(logits, prior=None, reduction="mean"):
    """log p is a difference of two, and its rounding is relative to p in p, too."""

    def parts(a):
        shifted = a - a.max(axis=-1, keepdims=True)
        total = np.exp(shifted).sum(axis=-1, keepdims=True)
        log_p = np.abs(shifted) + np.log(total)
        return np.exp(shifted) / total, np.where(np.isfinite(log_p), log_p, 0.0) + 1

    given = np.zeros(logits.shape[-1]) if prior is None else prior
    (p, size), (p0, prior_size) = parts(logits), parts(given)
    size = size + prior_size
    terms = p * size + p0 * prior_size
    kl = terms.sum(axis=-1)
    pull = p * size * (size + kl[..., None])
    return _sizes(kl, pull, prior, terms, reduction)


def _bernoulli_magnitudes(logits, prior=None, reduction="mean"):
    given = np.zeros(()) if prior is None else prior
    a, b = np.abs(logits), np.abs(given)
    q = 1 / (1 + np.exp(a))
    p = np.where(np.isfinite(a), (q + 1e-300) * (a + b + 1), 0.0)
    kl = np.log1p(np.exp(-b)) + np.maximum(-given * np.sign(logits), 0) + np.log1p(np.exp(-a)) + p
    share = 1 / (1 + np.exp(np.minimum(a, b)))
    pull = np.where(np.isfinite(a), q * (a + b) * (1 + a), 0.0)
    return _sizes(kl, pull, prior, share * (1 + np.minimum(a, b)), reduction)


def _kl_cases(name, label, inputs, magnitudes, **others):
    value, gradient = with_and_grad(
        f"{name}{label}",
        _function(name),
        inputs,
        magnitudes,
        tuple(inputs),
        batched=False,
        **others,
    )
    return value, gradient


def _numpy_categorical(logits, prior_logits):
    def log_softmax(a):
        a = a - a.max(axis=-1, keepdims=True)
        return a - np.log(np.exp(a).sum(axis=-1, keepdims=True))

    log_p = log_softmax(logits)
    terms = np.exp(log_p) * (log_p - log_softmax(prior_logits))
    return terms.reshape(len(terms), -1).sum(axis=1).mean()


def _numpy_categorical_and_grad(logits, prior_logits):
    def log_softmax(a):
        a = a - a.max(axis=-1, keepdims=True)
        return a - np.log(np.exp(a).sum(axis=-1, keepdims=True))

    log_p, log_prior = log_softmax(logits), log_softmax(prior_logits)
    p, batch = np.exp(log_p), len(logits)
    kl = (p * (log_p - log_prior)).sum(axis=-1, keepdims=True)
    pull = p * (log_p - log_prior - kl) / batch
    return kl.sum() / batch, pull, (np.exp(log_prior) - p) / batch


def _torch_categorical(torch, logits, prior_logits):
    categorical = torch.distributions.Categorical
    q, p = (categorical(logits=a) for a in (logits, prior_logits))
    return torch.distributions.kl_divergence(q, p).sum(1).mean()


def _numpy_bernoulli(logits, prior_logits):
    p = 1 / (1 + np.exp(-logits))
    terms = p * (logits - prior_logits) + np.logaddexp(0, prior_logits) - np.logaddexp(0, logits)
    return terms.sum(axis=1).mean()


def _numpy_bernoulli_and_grad(logits, prior_logits):
    p, prior = (1 / (1 + np.exp(-a)) for a in (logits, prior_logits))
    pull = p * (1 - p) * (logits - prior_logits)
    return _numpy_bernoulli(logits, prior_logits), pull / len(p), (prior - p) / len(p)


def _torch_bernoulli(torch, logits, prior_logits):
    bernoulli = torch.distributions.Bernoulli
    q, p = (bernoulli(logits=a) for a in (logits, prior_logits))
    return torch.distributions.kl_divergence(q, p).sum(1).mean()


def _relaxed_magnitudes(logits, noise, tau=1.0, **options):
    y = reference.gumbel_softmax(logits, noise=noise, tau=tau)
    size = (np.abs(logits) + np.abs(noise)) / tau
    return y * (1 + size + size.max(axis=-1, keepdims=True, initial=0.0))


def _drawn_magnitudes(logits, tau=1.0, **options):
    return 1 + (np.abs(logits).max(axis=-1, keepdims=True) + MOST_NOISE) / tau


def _back_sizes(grad_y, y, logits, tau):
    push = y * (np.abs(grad_y) + (y * np.abs(grad_y)).sum(axis=-1, keepdims=True)) / tau
    return push.sum(axis=tuple(range(push.ndim - logits.ndim)))


def _backward_magnitudes(grad_y, logits, y, tau=1.0):
    y = np.abs(y)
    return _back_sizes(grad_y, y, logits, tau)


def _backward_given_magnitudes(grad_y, logits, noise, tau=1.0):
    return _back_sizes(grad_y, _relaxed_magnitudes(logits, noise, tau), logits, tau)


def _draw(module, logits, **options):
    return module.gumbel_softmax(logits, rng=KEY, **options)


def _given(module, logits, noise, **options):
    return module.gumbel_softmax(logits, noise=noise, **options)


def _given_samples(module, logits, noise, **options):
    return module.gumbel_softmax(logits, noise=noise, samples=len(noise), **options)


def _backward(module, *arrays, **options):
    return module.gumbel_softmax_backward(*arrays, **options)


def _backward_given(module, grad_y, logits, noise, **options):
    return module.gumbel_softmax_backward(grad_y, logits, None, noise=noise, **options)


def _back_case(label, call, inputs, magnitudes, **others):
    return Case(
        f"gumbel_softmax_backward{label}",
        call,
        inputs,
        magnitudes,
        has_reduction=False,
        batched=False,
        options=({"tau": 0.5},),
        **others,
    )


def _numpy_draw(logits):
    noise = np.random.default_rng(0).gumbel(size=logits.shape).astype(logits.dtype)
    weights = logits + noise
    weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _numpy_back(grad_y, logits, y):
    return y * (grad_y - (grad_y * y).sum(axis=-1, keepdims=True))


BOTH = {"logits": "BLC", "prior_logits": "BLC"}
BITS = {"logits": "BL", "prior_logits": "BL"}
WIDE = (-60.0, -1e-9, 0.0, 0.5, 40.0)
INFINITE = (-np.inf, -1e4, -90.0, 0.0, 90.0, 1e4, np.inf)

ROWS = (
    Row(
        "kl_categorical",
        (
            *_kl_cases(
                "kl_categorical",
                "",
                BOTH,
                _categorical_magnitudes,
                peers={
                    "numpy": _numpy_categorical,
                    "numpy_and_grad": _numpy_categorical_and_grad,
                    "torch": _torch_categorical,
                },
            ),
            *_kl_cases(
                "kl_categorical",
                "[uniform]",
                {"logits": "BLC"},
                _categorical_magnitudes,
            ),
            *_kl_cases(
                "kl_categorical",
                "[shared]",
                {"logits": "BLC", "prior_logits": "C"},
                _categorical_magnitudes,
                sizes=({"B": 300, "L": 20, "C": 3}, {"B": 2, "L": 90, "C": 100}),
            ),
        ),
        (
            Bench("kl_categorical", "KL of categorical latents", LATENTS),
            Bench("kl_categorical_and_grad", "KL of categorical latents and gradient", LATENTS),
        ),
    ),
    Row(
        "kl_bernoulli",
        (
            *_kl_cases(
                "kl_bernoulli",
                "",
                BITS,
                _bernoulli_magnitudes,
                extremes={"logits": WIDE, "prior_logits": WIDE},
                limits={"logits": INFINITE, "prior_logits": INFINITE},
                peers={
                    "numpy": _numpy_bernoulli,
                    "numpy_and_grad": _numpy_bernoulli_and_grad,
                    "torch": _torch_bernoulli,
                },
            ),
            *_kl_cases("kl_bernoulli", "[fair]", {"logits": "BL"}, _bernoulli_magnitudes),
            *_kl_cases(
                "kl_bernoulli",
                "[shared]",
                {"logits": "BL", "prior_logits": "L"},
                _bernoulli_magnitudes,
                sizes=({"B": 700, "L": 20},),
            ),
        ),
        (
            Bench("kl_bernoulli", "KL of bits", {"B": 128, "L": 200}),
            Bench("kl_bernoulli_and_grad", "KL of bits and gradient", {"B": 128, "L": 200}),
        ),
    ),
    Row(
        "gumbel_softmax",
        (
            Case(
                "gumbel_softmax",
                _given,
                {"logits": "BLC", "noise": "BLC"},
                _relaxed_magnitudes,
                outs="out",
                constants=("noise",),
                has_reduction=False,
                batched=False,
                options=({"tau": 0.5},),
            ),
            Case(
                "gumbel_softmax[samples]",
                _given_samples,
                {"logits": "BC", "noise": "KBC"},
                _relaxed_magnitudes,
                outs="out",
                constants=("noise",),
                has_reduction=False,
                batched=False,
            ),
            Case(
                "gumbel_softmax[drawn]",
                _draw,
                {"logits": "BLC"},
                _drawn_magnitudes,
                has_reduction=False,
                draws_noise=True,
                batched=False,
                options=({"samples": 2}, {"tau": 2.0}),
                peers={"numpy": _numpy_draw},
            ),
        ),
        (Bench("gumbel_softmax[drawn]", "Gumbel noise and softmax", LATENTS),),
        not_in_jax="one line that XLA fuses: softmax((logits + jax.random.gumbel(key)) / tau)",
    ),
    Row(
        "gumbel_softmax_backward",
        (
            _back_case(
                "",
                _backward,
                {"grad_y": "BLC", "logits": "BLC", "y": "BLC"},
                _backward_magnitudes,
                outs="out",
                peers={"numpy": _numpy_back},
            ),
            _back_case(
                "[samples]",
                _backward_given,
                {"grad_y": "KBC", "logits": "BC", "noise": "KBC"},
                _backward_given_magnitudes,
            ),
        ),
        (Bench("gumbel_softmax_backward", "back through y", LATENTS),),
        untwinned="autograd goes back",
    ),
)
