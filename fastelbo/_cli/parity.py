"""``python -m fastelbo parity``: every public function against its reference.

A new function needs one entry: a generator of checks under its name, decorated with `covers`.
Those of importance weights are in `parity_importance`, of negative binomials in `parity_counts`.
SciPy and PyTorch, where installed, are held against it as well. Each build runs in a process of its
own, since the build is chosen on import.
"""

import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

import fastelbo
from fastelbo import _builds, reference
from fastelbo._cli import _common
from fastelbo._cli.parity_checks import REGISTRY, Check, Inputs, both, covers, in_torch
from fastelbo._cli.parity_likelihoods import gradient_scale, log_prob_scale

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
#: Elements of x where more would take minutes.
FEW = 1 << 14
KEY = 0x0123456789ABCDEF


def _torch_kl(torch, mu, logvar, mu_p=None, logvar_p=None):
    normal = torch.distributions.Normal
    q = normal(mu, (0.5 * logvar).exp())
    zero = torch.zeros_like(mu)
    p = normal(zero, zero + 1) if mu_p is None else normal(mu_p, (0.5 * logvar_p).exp())
    return torch.distributions.kl_divergence(q, p).sum(1).mean()


def _torch_elbo(torch, x, mu, logvar, x_recon):
    return -((x - x_recon) ** 2).sum(1).mean() - _torch_kl(torch, mu, logvar)


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
    reconstruction = log_prob_scale(likelihood, x, *parameters, reduction=reduction)
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
    return of_values, (0.0, 0.0, gradient_scale(x, *x_recon, reduction=reduction))


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


def sizes_of(name, sizes):
    """The sizes at which a function is compared: fewer rows where that takes minutes.

    The reference of the negative binomials is slow; fastelbo.torch calls the same kernels.
    """
    if not (name.startswith("torch.") or name.endswith("NegativeBinomial")):
        return [tuple(size) for size in sizes]
    return [(min(rows, max(1, FEW // event)), event, latent) for rows, event, latent in sizes]


def compare_build(names, sizes):
    """All that `compare` finds for the build in use, as dicts."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", module="torch")
        for name in names:
            for dtype in DTYPES:
                rows += compare(name, dtype, sizes_of(name, sizes))
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
    with ThreadPoolExecutor(fastelbo.get_num_threads()) as pool:
        compare_in = partial(
            _common.in_build,
            module="fastelbo._cli.parity",
            function="compare_build",
            names=names,
            sizes=sizes,
        )
        found = [pool.submit(compare_in, build) for build in _builds.available()]
        for future in _common.progress(found, "builds"):
            rows += [Worst(**row) for row in future.result()]
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


# Enters checks into the registry, with what is defined above.
from fastelbo._cli import (  # noqa: E402
    parity_aggregate,  # noqa: F401
    parity_counts,  # noqa: F401
    parity_importance,  # noqa: F401
    parity_mixtures,  # noqa: F401
    parity_torch,  # noqa: F401
)
