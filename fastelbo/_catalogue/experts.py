"""Rows of experts: posteriors of several modalities, made one."""

import math

import numpy as np

from fastelbo import reference
from fastelbo._catalogue._row import Bench, Case, Row
from fastelbo._catalogue.aggregate import shares_of
from fastelbo._catalogue.sizes import STANDARD

EXPERTS = {"mu": "EBL", "logvar": "EBL"}


def seen(rng, shape):
    """Masks in which a sample has its first expert."""
    mask = rng.random(shape) < 0.7
    mask[0] = True
    return mask


def _case(name, label, inputs, magnitudes, **others):
    """A function of experts; a mask comes last among the arrays, if at all."""

    def call(module, *arrays, **options):
        if "mask" in inputs:
            *arrays, options["mask"] = arrays
        suffix = "_and_grad" * label.endswith("_and_grad")
        return getattr(module, name + suffix)(*arrays, **options)

    return Case(
        name + label,
        call,
        inputs,
        magnitudes,
        draws={"mask": seen},
        constants=tuple({"mask"} & set(inputs)),
        batched=False,
        twinned=name != "mopoe",  # whose mask has no gradient
        **others,
    )


def _both(name, inputs, magnitudes, peers, **others):
    """Without a mask, and with one."""
    return (
        _case(name, "", inputs, magnitudes, peers=peers, **others),
        _case(name, "[masked]", {**inputs, "mask": "EB"}, magnitudes, **others),
    )


# What cancels -----------------------------------------------------------------------------------


def _shares(mu, logvar, present, prior):
    """Of each expert in the precision of the product: what d mean / d mu is."""
    ones, zeros = np.ones(mu.shape[1:]), np.zeros(mu.shape[1:])
    return reference.product_of_experts_backward(
        ones, zeros, mu, logvar, mask=present, prior=prior
    )[0]


def _all_or(mask, mu):
    return np.asarray(mask[0], bool) if mask else np.ones(mu.shape[:2], bool)


def _product_sizes(mu, logvar, present, prior):
    """A mean is a sum of shares; a precision one of precisions, and the result its logarithm."""
    mean = (_shares(mu, logvar, present, prior) * np.abs(mu)).sum(axis=0)
    return mean, np.ones_like(mean)


def _product_backward_sizes(grad_mu, grad_logvar, mu, logvar, present, prior):
    shares = _shares(mu, logvar, present, prior)
    distance = np.abs(mu) + (shares * np.abs(mu)).sum(axis=0)
    by_logvar = shares * (np.abs(grad_logvar) + np.abs(grad_mu) * distance)
    return shares * np.abs(grad_mu), by_logvar


def _product_magnitudes(mu, logvar, *mask, prior=True):
    return _product_sizes(mu, logvar, _all_or(mask, mu), prior)


def _product_backward_magnitudes(grad_mu, grad_logvar, mu, logvar, *mask, prior=True):
    present = _all_or(mask, mu)
    return _product_backward_sizes(grad_mu, grad_logvar, mu, logvar, present, prior)


def _present(mu, mask, prior):
    """For every subset, (E, B): its experts where all are there, and none where one is missing;
    and whether the prior is one more."""
    seen = _all_or(mask, mu)
    for members in _subsets(len(mu)):
        stands = len(members) == len(mu) if prior == "full" else prior
        inside = np.zeros_like(seen)
        inside[members] = seen[members].all(axis=0)
        yield inside, stands


def _subset_magnitudes(mu, logvar, *mask, prior=True):
    sizes = [_product_sizes(mu, logvar, *subset) for subset in _present(mu, mask, prior)]
    return *map(np.array, zip(*sizes, strict=True)), 0.0


def _subset_backward_magnitudes(grad_mu, grad_logvar, mu, logvar, *mask, prior=True):
    by_mu, by_logvar = np.zeros_like(mu), np.zeros_like(mu)
    for g, h, subset in zip(grad_mu, grad_logvar, _present(mu, mask, prior), strict=True):
        of_mu, of_logvar = _product_backward_sizes(g, h, mu, logvar, *subset)
        by_mu += of_mu
        by_logvar += of_logvar
    return by_mu, by_logvar


def _density_magnitudes(with_gradient):
    """Each expert's terms; its share inherits their rounding, and gradients are sums of shares."""

    def magnitudes(z, mu, logvar, *mask, reduction="mean"):
        samples = z.reshape(int(np.prod(z.shape[:-2])), 1, *mu.shape[1:])
        squares = 0.5 * (samples - mu) ** 2 * np.exp(-logvar)
        terms = float((squares + np.abs(logvar) + 2).sum(axis=-1).max(initial=1.0))
        value = terms * (np.prod(z.shape[:-1]) if reduction == "sum" else 1)
        if not with_gradient:
            return value
        seen = _all_or(mask, mu)
        log_p = np.where(seen, -(squares + 0.5 * logvar).sum(axis=-1), -np.inf)
        share = 2 * terms * reference.row_weight(np.prod(z.shape[:-1]), reduction)
        share = share * np.where(seen, shares_of(log_p)[0], 0.0)[..., None]
        distance = np.abs(samples - mu)
        pull = np.where(seen[..., None], share * distance * np.exp(-logvar), 0.0)
        by_logvar = np.where(seen[..., None], 0.5 * (pull * distance + share), 0.0)
        return value, pull.sum(axis=1).reshape(z.shape), pull.sum(axis=0), by_logvar.sum(axis=0)

    return magnitudes


# The code that users write ----------------------------------------------------------------------


def _numpy_product(mu, logvar):
    precision = np.exp(-logvar)
    total = precision.sum(axis=0) + 1
    return np.sum(mu * precision, axis=0) / total, -np.log(total)


def _numpy_product_backward(grad_mu, grad_logvar, mu, logvar):
    precision = np.exp(-logvar)
    share = precision / (precision.sum(axis=0) + 1)
    mean = np.sum(mu * share, axis=0)
    return share * grad_mu, share * (grad_logvar - grad_mu * (mu - mean))


def _subsets(experts):
    return [[m for m in range(experts) if s >> m & 1] for s in range(1, 2**experts)]


def _numpy_mopoe(mu, logvar):
    parts = [_numpy_product(mu[s], logvar[s]) for s in _subsets(len(mu))]
    return tuple(np.array(part) for part in zip(*parts, strict=True))


def _numpy_mopoe_backward(grad_mu, grad_logvar, mu, logvar):
    by_mu, by_logvar = np.zeros_like(mu), np.zeros_like(mu)
    for s, g, h in zip(_subsets(len(mu)), grad_mu, grad_logvar, strict=True):
        of_mu, of_logvar = _numpy_product_backward(g, h, mu[s], logvar[s])
        by_mu[s] += of_mu
        by_logvar[s] += of_logvar
    return by_mu, by_logvar


def _numpy_mixture_and_grad(z, mu, logvar):
    d = z - mu
    precision = np.exp(-logvar)
    log_p = -0.5 * np.sum(d**2 * precision + logvar + reference.LOG_2PI, axis=2)
    top = log_p.max(axis=0)
    value = top + np.log(np.mean(np.exp(log_p - top), axis=0))
    share = (np.exp(log_p - value) / (len(mu) * len(z)))[..., None]
    pull = share * d * precision
    return np.mean(value), -pull.sum(axis=0), pull, 0.5 * (pull * d - share)


def _torch_product(torch, mu, logvar):
    precision = torch.exp(-logvar)
    total = precision.sum(0) + 1
    return (mu * precision).sum(0) / total, -torch.log(total)


def _torch_mixture(torch, z, mu, logvar):
    log_p = -0.5 * ((z - mu) ** 2 * torch.exp(-logvar) + logvar + reference.LOG_2PI).sum(2)
    return torch.logsumexp(log_p, 0).mean() - math.log(len(mu))


# The rows ---------------------------------------------------------------------------------------

DENSITY = {"z": "BL", **EXPERTS}
MASKED_DENSITY = {**DENSITY, "mask": "EB"}
BACK = {"grad_mu": "BL", "grad_logvar": "BL", **EXPERTS}
BACK_OF_ALL = {"grad_mu": "SBL", "grad_logvar": "SBL", **EXPERTS}
PRIOR = {
    "options": ({"prior": False},),
    "has_reduction": False,
    "sizes": (
        {"E": 1, "S": 1, "B": 1, "L": 1},
        {"E": 2, "S": 3, "B": 5, "L": 3},
        {"E": 3, "S": 7, "B": 31, "L": 130},
        {"E": 5, "S": 31, "B": 40, "L": 20},
        {"E": 2, "S": 3, "B": 3, "L": 0},
    ),
}
OF_ALL = {**PRIOR, "options": ({"prior": False}, {"prior": "full"})}
ROWS = (
    Row(
        "product_of_experts",
        _both(
            "product_of_experts",
            EXPERTS,
            _product_magnitudes,
            {"numpy": _numpy_product, "torch": _torch_product},
            **PRIOR,
        ),
        (Bench("product_of_experts", "product of experts", STANDARD),),
    ),
    Row(
        "product_of_experts_backward",
        _both(
            "product_of_experts_backward",
            BACK,
            _product_backward_magnitudes,
            {"numpy": _numpy_product_backward},
            **PRIOR,
        ),
        (Bench("product_of_experts_backward", "product of experts, backward", STANDARD),),
        untwinned="autograd goes back",
    ),
    Row(
        "mixture_of_experts",
        (
            *_both(
                "mixture_of_experts",
                DENSITY,
                _density_magnitudes(False),
                {
                    "numpy": lambda *arrays: _numpy_mixture_and_grad(*arrays)[0],
                    "torch": _torch_mixture,
                },
            ),
            _case(
                "mixture_of_experts",
                "[masked]_and_grad",
                MASKED_DENSITY,
                _density_magnitudes(True),
                outs=tuple(DENSITY),
            ),
            *(
                _case(
                    "mixture_of_experts",
                    f"[samples]{suffix}",
                    {**MASKED_DENSITY, "z": "KBL"},
                    _density_magnitudes(bool(suffix)),
                    outs=tuple(DENSITY) if suffix else (),
                )
                for suffix in ("", "_and_grad")
            ),
            _case(
                "mixture_of_experts",
                "_and_grad",
                DENSITY,
                _density_magnitudes(True),
                outs=tuple(DENSITY),
                peers={"numpy_and_grad": _numpy_mixture_and_grad, "torch": _torch_mixture},
            ),
        ),
        (
            Bench("mixture_of_experts", "mixture of experts", STANDARD),
            Bench(
                "mixture_of_experts_and_grad",
                "mixture of experts and gradient",
                STANDARD,
            ),
        ),
    ),
    Row(
        "mopoe",
        _both("mopoe", EXPERTS, _subset_magnitudes, {"numpy": _numpy_mopoe}, **OF_ALL),
        (Bench("mopoe", "MoPoE", STANDARD),),
    ),
    Row(
        "mopoe_backward",
        _both(
            "mopoe_backward",
            BACK_OF_ALL,
            _subset_backward_magnitudes,
            {"numpy": _numpy_mopoe_backward},
            **OF_ALL,
        ),
        (Bench("mopoe_backward", "MoPoE, backward", STANDARD),),
        untwinned="autograd goes back",
    ),
)
