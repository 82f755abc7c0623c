"""Rows of importance weights and of the bounds made of them."""

import math

import numpy as np

from fastelbo import reference
from fastelbo._catalogue import numba_peers
from fastelbo._catalogue._row import Bench, Case, Row, flatten, with_and_grad
from fastelbo._catalogue.jax_peers import by_jax
from fastelbo._catalogue.likelihoods import SQUARED_ERROR
from fastelbo._catalogue.posterior import LATENTS
from fastelbo._catalogue.sizes import STANDARD

#: Whose importance weights are a case.
IN_IWAE = (
    "SquaredError",
    "Gaussian-features",
    "Gaussian-learned",
    "Bernoulli",
    "Categorical",
    "NegativeBinomial-elements",
    "Poisson-sparse",
)
SAMPLES = {**STANDARD, "K": 64}
LOG_WEIGHTS = {"B": 128, "K": 64}


# Of models --------------------------------------------------------------------------------------


def latent_terms(z, mu, logvar):
    """The sizes of the terms of log p(z) - log q(z|x), (K, B)."""
    pull = (z - mu) ** 2 * np.exp(-logvar)
    return 0.5 * (z * z + pull + np.abs(logvar) + 2 * np.abs(z - mu)).sum(axis=2)


def log_weight_terms(variant, x, z, mu, logvar, *outputs):
    """The sizes of the terms that make up a log weight, (K, B)."""
    likelihood = variant.make(reference)
    rows = []
    for one in zip(*np.broadcast_arrays(*outputs), strict=True):
        size = variant.magnitudes(x, *one, reduction="none")[0]
        rows.append(size + np.abs(likelihood.log_prob(x, *one, reduction="none")))
    return np.array(rows) + latent_terms(z, mu, logvar)


def _of_bound(variant):
    def magnitudes(*arrays, reduction="mean", **options):
        terms = log_weight_terms(variant, *arrays)
        return reference.reduce_rows(terms.max(axis=0), reduction)

    return magnitudes


def _of_gradients(variant, call):
    """Weights inherit the rounding of log weights: twice that of the terms of the largest."""

    def magnitudes(*arrays, reduction="mean", **options):
        inherited = 2 * log_weight_terms(variant, *arrays).max(initial=1.0)
        _, gradients = call(reference, *arrays, reduction=reduction, **options)
        largest = (inherited * np.abs(g).max(initial=0.0) for g in flatten(gradients))
        return _of_bound(variant)(*arrays, reduction=reduction), *largest

    return magnitudes


def _call(variant, name):
    def run(module, x, z, mu, logvar, *outputs, **options):
        x_recon = outputs if len(outputs) > 1 else outputs[0]
        function = getattr(module, name)
        options = {"likelihood": variant.make(module), **options}
        result = function(variant.given(x), z, mu, logvar, x_recon, **options)
        return (result[0], tuple(result[1][:4])) if name.endswith("_and_grad") else result

    return run


def _inputs(variant):
    parameters = {p: f"K{axes}" for p, axes in variant.parameters.items()}
    return {"x": "BD", "z": "KBL", **LATENTS, **parameters}


def _log_weights_case(variant, name=None, peers=None):
    return Case(
        name or f"log_weights[{variant.label}]",
        _call(variant, "log_weights"),
        _inputs(variant),
        lambda *arrays, **options: log_weight_terms(variant, *arrays),
        draws=variant.draws,
        constants=("x",),
        fixed=variant.fixed,
        has_reduction=False,
        batched=False,
        twinned=not variant.sparse,
        sparse=variant.sparse,
        peers=peers or {},
    )


def model_cases(variant, name=None, peers=None):
    """The cases of iwae and iwae_and_grad with a likelihood."""
    name = name or f"iwae[{variant.label}]"
    inputs = _inputs(variant)
    common = {
        "draws": variant.draws,
        "constants": ("x",),
        "fixed": variant.fixed,
        "batched": not variant.sparse,
        "twinned": not variant.sparse,
        "sparse": variant.sparse,
        "peers": peers or {},
    }
    gradient = _call(variant, "iwae_and_grad")
    return (
        Case(name, _call(variant, "iwae"), inputs, _of_bound(variant), **common),
        Case(
            f"{name}_and_grad",
            gradient,
            inputs,
            _of_gradients(variant, gradient),
            outs=tuple(inputs)[1:],
            options=({"estimator": "stl"}, {"estimator": "dreg"}),
            **common,
        ),
    )


def _log_ratio(z, mu, logvar):
    """log p(z) - log q(z|x), (K, B)."""
    log_p = -0.5 * np.sum(z**2, axis=2)
    return log_p + 0.5 * np.sum((z - mu) ** 2 * np.exp(-logvar) + logvar, axis=2)


def numpy_bound(log_w):
    top = np.max(log_w, axis=0)
    return np.mean(top + np.log(np.mean(np.exp(log_w - top), axis=0)))


def numpy_weights(log_w):
    w = np.exp(log_w - np.max(log_w, axis=0))
    return w / np.sum(w, axis=0)


def numpy_log_weights(x, z, mu, logvar, x_recon):
    return -np.sum((x - x_recon) ** 2, axis=2) + _log_ratio(z, mu, logvar)


def _numpy_gradients(log_p, by_output, z, mu, logvar):
    log_w = log_p + _log_ratio(z, mu, logvar)
    w = numpy_weights(log_w)[..., None] / len(mu)
    pull = (z - mu) * np.exp(-logvar)
    by_logvar = 0.5 * (1 - (z - mu) * pull)
    gradients = (w * (pull - z), np.sum(-w * pull, 0), np.sum(w * by_logvar, 0), w * by_output)
    return numpy_bound(log_w), *gradients


def _numpy_iwae_and_grad(x, z, mu, logvar, x_recon):
    error = x - x_recon
    return _numpy_gradients(-np.sum(error**2, axis=2), 2 * error, z, mu, logvar)


def _numpy_bernoulli(x, z, mu, logvar, logits):
    log_p = np.sum(x * logits - np.logaddexp(0, logits), axis=2)
    return numpy_bound(log_p + _log_ratio(z, mu, logvar))


def _numpy_bernoulli_and_grad(x, z, mu, logvar, logits):
    log_p = np.sum(x * logits - np.logaddexp(0, logits), axis=2)
    return _numpy_gradients(log_p, x - 1 / (1 + np.exp(-logits)), z, mu, logvar)


def torch_bound(torch, log_w):
    return torch.logsumexp(log_w, 0).mean() - math.log(len(log_w))


def torch_log_weights(torch, x, z, mu, logvar, x_recon):
    log_ratio = 0.5 * ((z - mu) ** 2 * torch.exp(-logvar) + logvar - z**2).sum(2)
    return log_ratio - ((x - x_recon) ** 2).sum(2)


def _torch_iwae(torch, *arrays):
    return torch_bound(torch, torch_log_weights(torch, *arrays))


def _torch_bernoulli(torch, x, z, mu, logvar, logits):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    error = loss(logits, torch.broadcast_to(x, logits.shape), reduction="none")
    log_ratio = 0.5 * ((z - mu) ** 2 * torch.exp(-logvar) + logvar - z**2).sum(2)
    return torch_bound(torch, log_ratio - error.sum(2))


def model_rows(variants):
    """The rows of what takes a model, of likelihoods by label."""
    return (
        Row(
            "iwae",
            (
                *model_cases(
                    SQUARED_ERROR,
                    "iwae",
                    {
                        "numpy": lambda *arrays: numpy_bound(numpy_log_weights(*arrays)),
                        "numpy_and_grad": _numpy_iwae_and_grad,
                        "torch": _torch_iwae,
                        "jax": by_jax(_torch_iwae),
                        "numba": numba_peers.iwae,
                        "numba_and_grad": numba_peers.iwae_and_grad,
                    },
                ),
                *model_cases(
                    variants["Bernoulli"],
                    "iwae-Bernoulli",
                    {
                        "numpy": _numpy_bernoulli,
                        "numpy_and_grad": _numpy_bernoulli_and_grad,
                        "torch": _torch_bernoulli,
                        "jax": by_jax(_torch_bernoulli),
                        "numba": numba_peers.bernoulli_iwae,
                        "numba_and_grad": numba_peers.bernoulli_iwae_and_grad,
                    },
                ),
                *(case for label in IN_IWAE for case in model_cases(variants[label])),
            ),
            (
                Bench("iwae", "IWAE", SAMPLES),
                Bench("iwae_and_grad", "IWAE and gradient", SAMPLES),
                Bench("iwae-Bernoulli", "Bernoulli IWAE", SAMPLES),
                Bench(
                    "iwae-Bernoulli_and_grad",
                    "Bernoulli IWAE and gradient",
                    SAMPLES,
                ),
            ),
            native=True,
        ),
        Row(
            "log_weights",
            (
                _log_weights_case(
                    SQUARED_ERROR,
                    "log_weights",
                    {"numpy": numpy_log_weights, "torch": torch_log_weights},
                ),
                *(_log_weights_case(variants[label]) for label in IN_IWAE),
            ),
            (Bench("log_weights", "log weights", SAMPLES),),
        ),
    )


# Of log weights ---------------------------------------------------------------------------------


#: Of the log weights of one x and the next: from nearly equal ones to one that is all.
SPREADS = (3.0, 0.1, 100.0, 1e-9)
SIZES = tuple({"K": k, "B": b} for k, b in ((7, 31), (33, 32), (64, 33), (5, 129), (1025, 2)))


def log_weights(rng, shape):
    return -9.0 + rng.normal(size=shape) * np.resize(SPREADS, shape[-1])


def _function(name):
    return lambda module, suffix: getattr(module, name + suffix)


def _share_terms(log_w, power=1.0):
    """Of w^power / sum w^power: the rounding of a difference of logarithms, and of all in the sum.

    The largest difference counts least, since e^-d d is at most one.
    """
    d = power * log_w
    d = d.max(axis=0) - d
    w = np.exp(-d)
    own = w / w.sum(axis=0) * (1.0 + d)
    return own + w / w.sum(axis=0) * own.sum(axis=0)


def _of_bound_of(power_of):
    """Of value and gradient; `power_of` gives the power of the weights from the options."""

    def magnitudes(log_w, reduction="mean", **options):
        power = power_of(**options)
        weight = reference.row_weight(log_w.shape[1], reduction)
        rows = np.abs(log_w).max(axis=0)  # the largest weight, and what the mean adds to it
        if power == 0:
            return reference.reduce_rows(rows, reduction), 0.0
        rows = rows + np.log(len(log_w)) / abs(power)
        return reference.reduce_rows(rows, reduction), weight * _share_terms(log_w, power)

    return magnitudes


_bound_magnitudes = _of_bound_of(lambda alpha=0.0: 1.0 - alpha)


def _vimco_magnitudes(log_w, reduction="mean"):
    """The signal is a difference of two bounds."""
    value, shares = _bound_magnitudes(log_w, reduction)
    rows = np.abs(log_w).max(axis=0) + np.log(len(log_w))
    return value, shares, reference.row_weight(log_w.shape[1], reduction) * rows


def _reinforce_magnitudes(log_w, reduction="mean", baseline="leave-one-out"):
    size = np.abs(log_w)
    weight = reference.row_weight(log_w.shape[1], reduction) / len(log_w)
    others = (size.sum(axis=0) - size) / max(len(log_w) - 1, 1) if baseline != "none" else 0.0
    return reference.reduce_rows(size.mean(axis=0), reduction), 0.0, weight * (size + others)


def _effective_magnitudes(log_w):
    """(sum w)^2 / sum w^2, and the shares in both sums."""
    shares = _share_terms(log_w).sum(axis=0) + _share_terms(log_w, 2.0).sum(axis=0)
    return reference.effective_sample_size(log_w) * shares


def _numpy_vimco(log_w):
    samples, batch = log_w.shape
    others = (np.sum(log_w, axis=0) - log_w) / (samples - 1)
    replaced = np.where(np.eye(samples, dtype=bool)[:, :, None], others[:, None], log_w)
    top = np.max(replaced, axis=1)
    baseline = top + np.log(np.mean(np.exp(replaced - top[:, None]), axis=1))
    top = np.max(log_w, axis=0)
    bound = top + np.log(np.mean(np.exp(log_w - top), axis=0))
    return np.mean(bound), numpy_weights(log_w) / batch, (bound - baseline) / batch


def _numpy_reinforce(log_w):
    others = (np.sum(log_w, axis=0) - log_w) / (len(log_w) - 1)
    weights = np.full_like(log_w, 1 / log_w.size)
    return np.mean(log_w), weights, (log_w - others) / log_w.size


def _of_log_w(name, title, magnitudes, outs=("log_w",), **others):
    """The row of a function of log weights and of its gradient."""
    cases = with_and_grad(
        name,
        _function(name),
        {"log_w": "KB"},
        magnitudes,
        outs,
        draws={"log_w": log_weights},
        limits={"log_w": (*range(-9, 9), -800, 800, -np.inf, np.inf)},
        sizes=SIZES,
        batched=False,
        **others,
    )
    return Row(
        name,
        cases,
        (
            Bench(name, title, LOG_WEIGHTS),
            Bench(f"{name}_and_grad", f"{title} and gradient", LOG_WEIGHTS),
        ),
    )


def _alone(name, title, magnitudes, outs=(), **others):
    case = Case(
        name,
        lambda module, log_w, **options: getattr(module, name)(log_w, **options),
        {"log_w": "KB"},
        magnitudes,
        draws={"log_w": log_weights},
        sizes=SIZES,
        outs=outs,
        has_reduction=False,
        batched=False,
        **others,
    )
    return Row(name, (case,), (Bench(name, title, LOG_WEIGHTS),))


def _stream_of(log_w):
    """The log weights that `_streamed` puts into a stream."""
    return np.concatenate([log_w, log_w[:1]])


def _streamed(method):
    """Chunks of half of the samples and one more, merged with the other half."""

    def run(module, log_w, num_threads=None, **options):
        threads = {} if num_threads is None else {"num_threads": num_threads}
        halves = np.array_split(np.atleast_1d(log_w), 2)
        one, other = (module.StreamingBound(**threads).update(half) for half in halves)
        stream = one.update(log_w[:1]).merge(other)
        return getattr(stream, method)(**options)

    return run


def _streaming_case(method, magnitudes, label="", **others):
    return Case(
        f"StreamingBound{label}",
        _streamed(method),
        {"log_w": "KB"},
        lambda log_w, **options: magnitudes(_stream_of(log_w), **options),
        draws={"log_w": log_weights},
        least={"K": 2},
        batched=False,
        twinned=False,  # which has no gradient
        **others,
    )


ROWS = (
    _of_log_w(
        "importance_bound",
        "importance bound",
        _bound_magnitudes,
        options=tuple({"alpha": alpha} for alpha in (0.5, 1, 2.0, -3.5, 1 - 1e-4, 30.0)),
        peers={
            "numpy": numpy_bound,
            "numpy_and_grad": lambda w: (numpy_bound(w), numpy_weights(w) / w.shape[1]),
            "torch": torch_bound,
        },
    ),
    _of_log_w(
        "cubo",
        "CUBO",
        _of_bound_of(lambda n=2: n),
        options=({"n": 1}, {"n": 1.5}, {"n": 4}),
        peers={
            "numpy": lambda w: 0.5 * numpy_bound(2 * w),
            "numpy_and_grad": lambda w: (
                0.5 * numpy_bound(2 * w),
                numpy_weights(2 * w) / w.shape[1],
            ),
            "torch": lambda torch, w: 0.5 * torch_bound(torch, 2 * w),
        },
    ),
    _of_log_w(
        "vimco",
        "VIMCO",
        _vimco_magnitudes,
        ("log_w", "log_q"),
        twinned=False,  # it takes log_q, too
        largest="KKB",
        least={"K": 2},
        peers={"numpy": numpy_bound, "numpy_and_grad": _numpy_vimco},
    ),
    _of_log_w(
        "reinforce",
        "REINFORCE",
        _reinforce_magnitudes,
        ("log_w", "log_q"),
        twinned=False,
        options=({"baseline": "none"},),
        least={"K": 2},
        peers={"numpy": np.mean, "numpy_and_grad": _numpy_reinforce},
    ),
    _alone(
        "effective_sample_size",
        "effective sample size",
        _effective_magnitudes,
        peers={
            "numpy": lambda w: 1 / np.sum(numpy_weights(w) ** 2, axis=0),
            "torch": lambda torch, w: 1 / (torch.softmax(w, 0) ** 2).sum(0),
        },
    ),
    _alone(
        "normalized_weights",
        "normalised weights",
        _share_terms,
        outs="out",
        peers={"numpy": numpy_weights, "torch": lambda torch, w: torch.softmax(w, 0)},
    ),
    Row(
        "StreamingBound",
        (
            _streaming_case(
                "bound",
                lambda *arrays, **options: _bound_magnitudes(*arrays, **options)[0],
                options=tuple({"alpha": alpha} for alpha in (0, 1, -1)),
                peers={
                    "numpy": lambda w: numpy_bound(_stream_of(w)),
                    "torch": lambda torch, w: torch_bound(torch, torch.cat([w, w[:1]])),
                },
            ),
            _streaming_case(
                "effective_sample_size",
                _effective_magnitudes,
                ".effective_sample_size",
                has_reduction=False,
            ),
            _streaming_case(
                "standard_error",
                lambda log_w, **options: 0.0,  # squares of differences
                ".standard_error",
            ),
        ),
        (Bench("StreamingBound", "importance bound of a stream", LOG_WEIGHTS),),
        not_in_jax="it keeps numbers from call to call, which a function that is traced does not",
    ),
)
