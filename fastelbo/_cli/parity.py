"""``python -m fastelbo parity``: every public function against its reference.

A new function needs one entry: a generator of checks under its name, decorated with `covers`.
SciPy and PyTorch, where installed, are held against it as well. Each build runs in a process of its
own, since the build is chosen on import.
"""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np

import fastelbo
from fastelbo import _builds, reference
from fastelbo._cli import _common

#: What is promised, relative. Values: to their own size, or that of the terms they are made of.
#: Arrays: to the largest entry.
BOUND = {"float64": 1e-13, "float32": 1e-6}
DTYPES = tuple(BOUND)

#: (batch, event, latent): odd and even, around the lanes and tiles of the kernels, and a large one.
SIZES = (
    (1, 1, 1),
    (2, 31, 1),
    (3, 33, 31),
    (31, 784, 33),
    (1, 4097, 20),
    (7, 512, 4097),
    (4097, 33, 2),
    (257, 1031, 64),
)
QUICK_SIZES = ((1, 1, 1), (3, 33, 31), (5, 1031, 33))
KEY = 0x0123456789ABCDEF


@dataclass
class Check:
    """One call, and what it should give.

    `desired` and the functions in `others` give what `actual` gives, all in (nested) tuples of
    numbers and arrays; None stands for what is not compared. `scale` gives the size of the terms
    that a result is a sum of, where they may cancel: in a tuple like the results, or one number for
    all of them.
    """

    actual: Callable
    desired: Callable
    scale: Callable = float
    others: dict = field(default_factory=dict)


REGISTRY = {}


def covers(name):
    """Enter a generator function (size, dtype) -> checks under the name of a public function."""

    def enter(function):
        REGISTRY[name] = function
        return function

    return enter


# Inputs and others ------------------------------------------------------------------------------


class Inputs:
    """Arrays of a size and dtype, drawn in a fixed order from a fixed seed."""

    def __init__(self, size, dtype):
        self.rng = np.random.default_rng([2026, *size])
        self.dtype = np.dtype(dtype)
        self.batch, self.event, self.latent = size

    def normal(self, *shape, scale=1.0, shift=0.0):
        return (shift + scale * self.rng.standard_normal(shape)).astype(self.dtype)

    def uniform(self, *shape):
        return self.rng.random(shape).astype(self.dtype)

    def latents(self):
        shape = self.batch, self.latent
        return self.normal(*shape), self.normal(*shape, scale=0.7, shift=-0.3)

    def data(self):
        x = self.uniform(self.batch, self.event)
        return x, (x + self.normal(*x.shape, scale=0.4)).astype(self.dtype)


def both(ours, theirs, *args, scale=None, others=None, **options):
    """The check that a function agrees with the reference, given the same arguments."""
    if callable(scale):
        scale = partial(scale, *args)
    return Check(
        partial(ours, *args, **options),
        partial(theirs, *args, **options),
        scale or float,
        others or {},
    )


def in_torch(function, arrays, gradients=None):
    """Evaluate with PyTorch in float64: the value, and the gradients of the arrays named by index.

    Returns a function that raises ImportError where PyTorch is absent.
    """

    def evaluate():
        import torch

        tensors = [torch.from_numpy(np.asarray(a, np.float64)) for a in arrays]
        if gradients is None:
            return function(torch, *tensors).item()
        wanted = [tensors[i].requires_grad_() for i in gradients]
        value = function(torch, *tensors)
        return value.item(), tuple(g.numpy() for g in torch.autograd.grad(value, wanted))

    return evaluate


def _torch_kl(torch, mu, logvar, mu_p=None, logvar_p=None):
    normal = torch.distributions.Normal
    q = normal(mu, (0.5 * logvar).exp())
    zero = torch.zeros_like(mu)
    p = normal(zero, zero + 1) if mu_p is None else normal(mu_p, (0.5 * logvar_p).exp())
    return torch.distributions.kl_divergence(q, p).sum(1).mean()


def _torch_elbo(torch, x, mu, logvar, x_recon):
    return -((x - x_recon) ** 2).sum(1).mean() - _torch_kl(torch, mu, logvar)


def _torch_bernoulli(torch, x, logits):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    return -loss(logits, x, reduction="none").sum(1).mean()


def _torch_normal(torch, x, x_recon, log_scale):
    return torch.distributions.Normal(x_recon, log_scale.exp()).log_prob(x).sum(1).mean()


def _scipy_normal(x, x_recon, scale):
    from scipy.stats import norm

    x, x_recon, scale = (np.asarray(a, np.float64) for a in (x, x_recon, scale))
    return float(norm.logpdf(x, x_recon, scale).sum(axis=1).mean())


def _log_prob_scale(likelihood, x, *parameters, reduction="mean"):
    """The size of a log-density: of the largest sample's terms, or of all samples' for a sum."""
    arrays = (np.asarray(p, np.float64) for p in parameters)
    values, _ = likelihood.elements(np.asarray(x, np.float64) * likelihood.x_scale, *arrays)
    constant = 0.5 * reference.LOG_2PI if isinstance(likelihood, reference.Gaussian) else 0.0
    rows = (np.abs(values) + constant).sum(axis=1)
    return float({"mean": np.mean, "sum": np.sum, "none": np.max}[reduction](rows))


def _gradient_scale(x, *parameters, reduction="mean"):
    """A derivative by log_scale is ((x - x_recon) / scale)^2 - 1, times the weight of a sample."""
    weight = 1.0 / len(x) if reduction == "mean" else 1.0
    return (0.0, weight)[: len(parameters)]


# The posterior ----------------------------------------------------------------------------------


@covers("reparameterize")
def _reparameterize(size, dtype):
    inputs = Inputs(size, dtype)
    mu, logvar = inputs.latents()
    ours, theirs = fastelbo.reparameterize, reference.reparameterize
    yield both(ours, theirs, mu, logvar, noise=inputs.normal(*mu.shape))
    yield both(ours, theirs, mu, logvar, rng=KEY)
    yield both(ours, theirs, mu, logvar, rng=KEY, samples=3)


@covers("reparameterize_kl")
def _reparameterize_kl(size, dtype):
    inputs = Inputs(size, dtype)
    mu, logvar = inputs.latents()
    ours, theirs = fastelbo.reparameterize_kl, reference.reparameterize_kl
    for reduction in ("mean", "sum", "none"):
        yield both(ours, theirs, mu, logvar, rng=KEY, reduction=reduction)
    yield both(ours, theirs, mu, logvar, noise=inputs.normal(*mu.shape), free_bits=0.3)
    yield both(ours, theirs, mu, logvar, noise=inputs.normal(2, *mu.shape), samples=2)


@covers("reparameterize_backward")
def _reparameterize_backward(size, dtype):
    inputs = Inputs(size, dtype)
    mu, logvar = inputs.latents()
    noise = inputs.normal(*mu.shape)
    grad_z = inputs.normal(*mu.shape)
    z = (mu + np.exp(0.5 * logvar) * noise).astype(mu.dtype)
    ours, theirs = fastelbo.reparameterize_backward, reference.reparameterize_backward
    weights = inputs.uniform(mu.shape[1])

    def in_torch_graph():
        import torch

        m, v = (torch.from_numpy(np.asarray(a, np.float64)).requires_grad_() for a in (mu, logvar))
        e, g = (torch.from_numpy(np.asarray(a, np.float64)) for a in (noise, grad_z))
        objective = (g * (m + torch.exp(0.5 * v) * e)).sum()
        kl = 0.5 * (m**2 + v.exp() - 1 - v).sum()
        return tuple(g.numpy() for g in torch.autograd.grad(objective - 0.5 * kl, (m, v)))

    def scale(*arrays):
        terms = (np.abs(grad_z), np.abs(mu), np.abs(grad_z * noise), np.exp(logvar))
        return float(max(term.max() for term in terms))

    check = partial(both, ours, theirs, scale=scale)
    yield check(grad_z, mu, logvar, z)
    yield check(grad_z, mu, logvar, z, kl_weight=weights)
    yield check(grad_z, mu, logvar, None, rng=KEY, kl_weight=0.5)
    torch = {"PyTorch": in_torch_graph}
    yield check(grad_z, mu, logvar, None, noise=noise, kl_weight=0.5, others=torch)
    several = inputs.normal(3, *mu.shape)
    yield check(several, mu, logvar, (mu + several).astype(mu.dtype))


# Divergences ------------------------------------------------------------------------------------


def _floors():
    yield 0.0, 0.0
    yield 0.4, 0.4
    for granularity in ("dimension", "sample", "total"):
        for below in ("floor", "zero"):
            options = {"granularity": granularity, "below": below}
            yield fastelbo.FreeBits(0.5, **options), reference.FreeBits(0.5, **options)


@covers("kl_standard_normal")
def _kl_standard_normal(size, dtype):
    latents = Inputs(size, dtype).latents()
    for floor, their_floor in _floors():
        for reduction in ("mean", "sum", "none"):
            ours = partial(fastelbo.kl_standard_normal, free_bits=floor)
            theirs = partial(reference.kl_standard_normal, free_bits=their_floor)
            check = both(ours, theirs, *latents, reduction=reduction)
            if reduction == "mean" and floor == 0.0:
                check.others = {"PyTorch": in_torch(_torch_kl, latents)}
            yield check
    small = [(1e-4 * a).astype(dtype) for a in latents]
    yield both(fastelbo.kl_standard_normal, reference.kl_standard_normal, *small)


@covers("kl_standard_normal_and_grad")
def _kl_standard_normal_and_grad(size, dtype):
    latents = Inputs(size, dtype).latents()
    torch = {"PyTorch": in_torch(_torch_kl, latents, (0, 1))}
    for floor, their_floor in _floors():
        for reduction in ("mean", "none"):
            ours = partial(fastelbo.kl_standard_normal_and_grad, free_bits=floor)
            theirs = partial(reference.kl_standard_normal_and_grad, free_bits=their_floor)
            check = both(ours, theirs, *latents, reduction=reduction)
            if reduction == "mean" and floor == 0.0:
                check.others = torch
            yield check


@covers("kl_normal")
def _kl_normal(size, dtype):
    inputs = Inputs(size, dtype)
    arrays = (*inputs.latents(), *inputs.latents())
    torch = {"PyTorch": in_torch(_torch_kl, arrays)}
    ours, theirs = fastelbo.kl_normal, reference.kl_normal
    yield both(ours, theirs, *arrays, others=torch)
    for reduction in ("sum", "none"):
        yield both(ours, theirs, *arrays, reduction=reduction)


@covers("kl_normal_and_grad")
def _kl_normal_and_grad(size, dtype):
    inputs = Inputs(size, dtype)
    arrays = (*inputs.latents(), *inputs.latents())
    torch = {"PyTorch": in_torch(_torch_kl, arrays, (0, 1, 2, 3))}
    ours, theirs = fastelbo.kl_normal_and_grad, reference.kl_normal_and_grad
    yield both(ours, theirs, *arrays, others=torch)
    yield both(ours, theirs, *arrays, reduction="none")


# Likelihoods ------------------------------------------------------------------------------------


def _likelihood(ours, theirs, x, *parameters, others=None, with_torch=None):
    """Value and gradient of a likelihood; `with_torch` is its value in PyTorch."""
    others = dict(others or {})
    autograd = {}
    if with_torch is not None:
        arrays = (x, *parameters)
        others["PyTorch"] = in_torch(with_torch, arrays)
        autograd["PyTorch"] = in_torch(with_torch, arrays, range(1, len(arrays)))
    scale = partial(_log_prob_scale, theirs)
    yield both(ours.log_prob, theirs.log_prob, x, *parameters, scale=scale, others=others)
    for reduction in ("mean", "sum", "none"):

        def scales(*arrays, reduction=reduction):
            return scale(*arrays, reduction=reduction), _gradient_scale(
                *arrays, reduction=reduction
            )

        yield both(
            ours.log_prob_and_grad,
            theirs.log_prob_and_grad,
            x,
            *parameters,
            scale=scales,
            others=autograd if reduction == "mean" else None,
            reduction=reduction,
        )


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
    scipy = {"SciPy": partial(_scipy_normal, x, x_recon, 0.7)}
    yield from _likelihood(ours(0.7), theirs(0.7), x, x_recon, others=scipy)
    scipy = {"SciPy": partial(_scipy_normal, x, x_recon, per_feature)}
    yield from _likelihood(ours(per_feature), theirs(per_feature), x, x_recon, others=scipy)
    learned = ours("learned"), theirs("learned")
    yield from _likelihood(*learned, x, x_recon, log_scale, with_torch=_torch_normal)
    yield from _likelihood(ours("optimal"), theirs("optimal"), x, x_recon)


@covers("Bernoulli")
def _bernoulli(size, dtype):
    inputs = Inputs(size, dtype)
    shape = inputs.batch, inputs.event
    logits = inputs.normal(*shape, scale=4.0)
    ours, theirs = fastelbo.Bernoulli, reference.Bernoulli
    for x in (inputs.uniform(*shape), np.round(inputs.uniform(*shape))):
        yield from _likelihood(ours(), theirs(), x, logits, with_torch=_torch_bernoulli)
    bytes_ = inputs.rng.integers(0, 256, shape, dtype=np.uint8)
    yield from _likelihood(ours(x_scale=1 / 255), theirs(x_scale=1 / 255), bytes_, logits)


# The evidence bound -----------------------------------------------------------------------------


def _elbo_variants(inputs):
    """(x, x_recon, our options, those of the reference)."""
    x, x_recon = inputs.data()
    log_scale = inputs.normal(*x.shape, scale=0.4)
    noise = inputs.normal(inputs.batch, inputs.latent)
    floor = {"free_bits": 0.4}
    for options in (
        {},
        {"beta": 4.0, "rng": KEY},
        {"noise": noise, "reduction": "sum"},
        {"reduction": "none", "beta": 0.5},
        {"rng": KEY, "reduction": "none", **floor},
        floor,
    ):
        yield x, x_recon, options, options
    for name, scale, recon in (
        ("Bernoulli", None, inputs.normal(*x.shape, scale=3.0)),
        ("Gaussian", 0.5, x_recon),
        ("Gaussian", "learned", (x_recon, log_scale)),
        ("Gaussian", "optimal", x_recon),
    ):
        arguments = () if scale is None else (scale,)
        yield (
            x,
            recon,
            {"likelihood": getattr(fastelbo, name)(*arguments), "rng": KEY},
            {"likelihood": getattr(reference, name)(*arguments), "rng": KEY},
        )


def _elbo_scale(x, mu, logvar, x_recon, options):
    """For (elbo, reconstruction, kl, z): the sizes of the terms of the first two."""
    likelihood = options.get("likelihood", reference.SquaredError())
    parameters = x_recon if isinstance(x_recon, tuple) else (x_recon,)
    reduction = options.get("reduction", "mean")
    reconstruction = _log_prob_scale(likelihood, x, *parameters, reduction=reduction)
    kl = reference.kl_standard_normal(
        mu, logvar, free_bits=options.get("free_bits", 0.0), reduction=reduction
    )
    return reconstruction + options.get("beta", 1.0) * float(np.max(kl)), reconstruction, 0.0, 0.0


def _elbo_and_grad_scale(x, mu, logvar, x_recon, options):
    """The same, and for the gradients."""
    of_values = _elbo_scale(x, mu, logvar, x_recon, options)
    if not isinstance(x_recon, tuple):
        return of_values, 0.0
    reduction = options.get("reduction", "mean")
    return of_values, (0.0, 0.0, _gradient_scale(x, *x_recon, reduction=reduction))


def _elbo_checks(size, dtype, name, scale, in_pytorch):
    inputs = Inputs(size, dtype)
    mu, logvar = inputs.latents()
    for x, x_recon, our_options, options in _elbo_variants(inputs):
        arrays = (x, mu, logvar, x_recon)
        yield Check(
            partial(getattr(fastelbo, name), *arrays, **our_options),
            partial(getattr(reference, name), *arrays, **options),
            partial(scale, *arrays, options),
            {} if options else {"PyTorch": partial(in_pytorch, arrays)},
        )


@covers("elbo")
def _elbo(size, dtype):
    def in_pytorch(arrays):
        return in_torch(_torch_elbo, arrays)(), None, None, None

    yield from _elbo_checks(size, dtype, "elbo", _elbo_scale, in_pytorch)


@covers("elbo_and_grad")
def _elbo_and_grad(size, dtype):
    def in_pytorch(arrays):
        value, gradients = in_torch(_torch_elbo, arrays, (1, 2, 3))()
        return (value, None, None, None), gradients

    yield from _elbo_checks(size, dtype, "elbo_and_grad", _elbo_and_grad_scale, in_pytorch)


@covers("elbo_from_buffers")
def _elbo_from_buffers(size, dtype):
    inputs = Inputs(size, dtype)
    mu, logvar = inputs.latents()
    x, x_recon = inputs.data()
    arrays = (x, mu, logvar, x_recon)
    buffers = [a.tobytes() for a in arrays]
    yield Check(
        partial(fastelbo.elbo_from_buffers, *buffers, *size, dtype=dtype, rng=KEY),
        partial(reference.elbo, *arrays, rng=KEY),
        partial(_elbo_scale, *arrays, {}),
    )


# Comparison -------------------------------------------------------------------------------------


def error(actual, desired, scale=0.0):
    """The worst relative error, infinite where shapes or non-finite values differ.

    Of a number relative to itself, of an array to its largest entry, or to `scale` where that is
    larger. Tuples are gone through, with their scales if those are a tuple; None is passed over.
    """
    if desired is None:
        return 0.0
    if isinstance(desired, tuple):
        if not isinstance(actual, tuple) or len(actual) != len(desired):
            return float("inf")
        scales = scale if isinstance(scale, tuple) else (scale,) * len(desired)
        return max(error(*item) for item in zip(actual, desired, scales, strict=True))
    if actual is None or np.shape(actual) != np.shape(desired):
        return float("inf")
    actual, desired = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    finite = np.isfinite(desired)
    if not np.array_equal(actual[~finite], desired[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    difference = np.abs(actual - desired)[finite].max()
    if difference == 0:
        return 0.0
    if np.isnan(difference):
        return float("inf")
    largest = max(np.abs(desired[finite]).max(), scale)
    return float(difference / largest) if largest else float("inf")


@dataclass
class Worst:
    """The worst error of a function against one other, over all sizes and options."""

    name: str
    against: str
    dtype: str
    error: float
    checks: int
    build: str = ""
    raised: str = ""

    @property
    def is_out_of_bounds(self):
        return not self.error <= BOUND[self.dtype]


def compare(name, dtype, sizes=SIZES):
    """A Worst for the reference and for each other library that is installed."""
    found = {}
    for size in sizes:
        for check in REGISTRY[name](size, dtype):
            try:
                actual, scale = check.actual(), check.scale()
            except Exception as exception:
                raised = f"{type(exception).__name__}: {exception}"
                found["reference"] = Worst(name, "reference", dtype, float("inf"), 1, "", raised)
                return list(found.values())
            for against, desired in {"reference": check.desired, **check.others}.items():
                try:
                    expected = desired()
                except ImportError:
                    continue
                worst = found.setdefault(against, Worst(name, against, dtype, 0.0, 0))
                worst.error = max(worst.error, error(actual, expected, scale))
                worst.checks += 1
    return list(found.values())


def compare_build(names, sizes):
    """All that `compare` finds for the build in use, as dicts."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", module="torch")
        for name in names:
            for dtype in DTYPES:
                rows += compare(name, dtype, [tuple(size) for size in sizes])
    return [{**asdict(row), "build": _builds.BUILD} for row in rows]


# The command ------------------------------------------------------------------------------------


def add_arguments(parser):
    """The options of ``fastelbo parity``."""
    parser.add_argument("names", nargs="*", metavar="FUNCTION", help="only these (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args):
    """Compare and print. Returns 1 if an error is out of bounds, 2 for an unknown function."""
    unknown = [name for name in args.names if name not in REGISTRY]
    if unknown:
        print(
            f"fastelbo parity: unknown function {unknown[0]!r}, expected among "
            f"{', '.join(REGISTRY)}",
            file=sys.stderr,
        )
        return 2
    names = args.names or list(REGISTRY)
    sizes = QUICK_SIZES if args.quick else SIZES
    rows = []
    for build in _common.progress(_builds.available(), "builds"):
        found = _common.in_build(
            build, "fastelbo._cli.parity", "compare_build", names=names, sizes=sizes
        )
        rows += [Worst(**row) for row in found]
    wrong = [row for row in rows if row.is_out_of_bounds]
    if args.json:
        report = {
            "bounds": BOUND,
            "rows": [{**asdict(row), "out_of_bounds": row.is_out_of_bounds} for row in rows],
        }
        print(json.dumps(report, indent=1))
    else:
        print(text(rows))
        for row in rows:
            if row.raised:
                print(f"{row.name} ({row.build}, {row.dtype}) raised {row.raised}")
        print(
            f"\n{len(wrong)} of {len(rows)} out of bounds. Bounds: "
            + ", ".join(f"{bound:g} {dtype}" for dtype, bound in BOUND.items())
            + f"\nrelative errors, {sum(row.checks for row in rows)} checks; sizes {sizes}"
        )
    return 1 if wrong else 0


def text(rows):
    """A line per function and other, a column per build and dtype; ! marks out of bounds."""
    columns = dict.fromkeys((row.build, row.dtype) for row in rows)
    found = {(row.name, row.against, row.build, row.dtype): row for row in rows}
    lines = []
    for name, against in dict.fromkeys((row.name, row.against) for row in rows):
        cells = []
        for column in columns:
            row = found.get((name, against, *column))
            cells.append("-" if row is None else f"{row.error:.1e}{'!' * row.is_out_of_bounds}")
        lines.append([name, against, *cells])
    header = ["worst relative error", "against", *(f"{build} {dtype}" for build, dtype in columns)]
    return _common.table(header, lines, left=2)
