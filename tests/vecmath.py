"""How far the vector maths of the kernels is from exact: for tests and for docs/accuracy.rst.

``python -m tests.vecmath --write`` measures on every build, in float32 at each argument that there
is (an hour); ``--every 17`` at each 17th, which varies all bits as it is odd; with names, of these
functions. Each is written to docs/measured/vecmath.json when it is whole.
"""

import argparse
import importlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import mpmath
import numpy as np

from fastelbo import _builds
from fastelbo._catalogue import TOLERANCE

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "measured" / "vecmath.json"
#: The worst errors that are promised, in ulp.
ULPS = {np.dtype(np.float32): 1.5, np.dtype(np.float64): 2.0}
WIDER = np.longdouble if np.finfo(np.longdouble).nmant > 60 else None
WIDE = {np.dtype(np.float32): np.float64, np.dtype(np.float64): WIDER}
#: What lambdas over mpmath numbers and over arrays are written with.
EXACTLY = SimpleNamespace(log=mpmath.log, where=lambda is_first, a, b: a if is_first else b)


def everywhere(x):
    return np.ones(x.shape, bool)


def between(least, most):
    return lambda x: (x >= least) & (x <= most)


@dataclass(frozen=True)
class Function:
    """What the kernels evaluate.

    Attributes
    ----------
    module, entry, results, which
        Where it is among the kernels, and which of so many results of a call.
    exact, wide : callable
        Over mpmath numbers, and over arrays of a wider dtype. Without `wide` the kernel's own
        float64 is what its float32 is held against.
    within : callable
        Where it is made for.
    size : callable, optional
        ``size(numpy, x)``, or with `EXACTLY` in place of NumPy: what an error is relative to, if it
        is not in ulp. It is the value itself at least.
    bounds : mapping, optional
        What is promised by dtype, if not `ULPS`, or, relative to a size, `TOLERANCE`.
    """

    module: str
    entry: str
    results: int
    which: int
    exact: Callable
    wide: Callable | None = None
    within: Callable = everywhere
    size: Callable | None = None
    bounds: dict | None = None

    def __call__(self, x, build=_builds.BUILD):
        """The kernels' result."""
        results = [np.full_like(x, 77) for _ in range(self.results)]
        module = importlib.import_module(f"fastelbo._kernels.{build}.{self.module}")
        getattr(module, self.entry)(x, *results)
        return results[self.which]

    def bound(self, dtype):
        """What is promised: ulp, or a relative error where there is a size."""
        return (self.bounds or (TOLERANCE if self.size else ULPS))[dtype]

    @np.errstate(all="ignore")
    def worst(self, got, exact, x):
        """The worst error of results, where `exact` is of a wider dtype."""
        return (
            worst_relative(got, exact, self.size(np, x.astype(exact.dtype)))
            if self.size
            else worst_ulps(got, exact)
        )

    def at(self, x):
        """What is exact, in a wider dtype; None if there is no such dtype."""
        if self.wide is None:
            return self(x.astype(np.float64)) if x.dtype == np.float32 else None
        wide = WIDE[x.dtype]
        with np.errstate(all="ignore"):
            return None if wide is None else self.wide(x.astype(wide))


def em1mx(x):
    """e^x - 1 - x in the dtype of x."""
    result, near = np.expm1(x) - x, np.abs(x) < 0.5
    t = x[near]
    tail = np.ones_like(t)
    for k in range(21, 2, -1):
        tail = 1 + tail * t / k
    result[near] = t * t / 2 * tail
    return result


def turn(x):
    """2 pi x."""
    return 2 * np.array("3.14159265358979323846264338327950288", dtype=x.dtype) * x


def softplus_of_decay(x):
    return np.log1p(np.exp(-np.abs(x)))


def sigmoid_of_decay(x):
    decay = np.exp(-np.abs(x))
    return decay / (1 + decay)


def exact_sigmoid(x):
    decay = mpmath.exp(-abs(x))
    return decay / (1 + decay)


def exact_em1mx(x):
    return mpmath.expm1(x) - x


def stirling(a):
    return (a - 0.5) * mpmath.log(a) - a + mpmath.log(2 * mpmath.pi) / 2


def log_factorial_rest(x):
    return mpmath.loggamma(x + 1) - (x * mpmath.log(x) if x else mpmath.mpf(0)) + x


def half_rise(v):
    return mpmath.loggamma(v + 0.5) - mpmath.loggamma(v) - mpmath.log(v) / 2


def below(ten, near, far):
    """A size: `near` of log a and a below ten, `far` beyond."""
    return lambda m, a: m.where(a < ten, near(abs(m.log(a)), a), far(a))


OF_EM1, NEAR = ("vecmath", "exp_minus_one", 3), ("vecmath", "exp_minus_one_near", 3)
SINES = ("vecmath", "sincos_eighth", 2)
GAMMA, EIGHTH, SMALL = between(1e-20, 1e20), between(-0.125, 0.125), lambda x: ~(np.abs(x) > 80)
#: Powers of two are terms of sums that are rounded elsewhere, too: `terms/power.pxd`.
TWICE = {dtype: 2 * bound for dtype, bound in TOLERANCE.items()}
OF_POWERS = {np.dtype(np.float32): 3.4, np.dtype(np.float64): 9.0}

FUNCTIONS = {
    "exp": Function("vecmath", "exp", 1, 0, mpmath.exp, np.exp),
    "log": Function("vecmath", "log", 1, 0, lambda x: mpmath.log(x), np.log),
    "exp by em1": Function(*OF_EM1, 0, mpmath.exp, np.exp),
    "em1": Function(*OF_EM1, 1, mpmath.expm1, np.expm1),
    "em1mx": Function(*OF_EM1, 2, exact_em1mx, em1mx, size=lambda m, x: 0),
    "exp by em1, near": Function(*NEAR, 0, mpmath.exp, np.exp, SMALL),
    "em1, near": Function(*NEAR, 1, mpmath.expm1, np.expm1, SMALL),
    "em1mx, near": Function(*NEAR, 2, exact_em1mx, em1mx, SMALL, size=lambda m, x: 0),
    "softplus": Function(
        *("vecmath", "logistic", 2, 0),
        lambda x: mpmath.log1p(mpmath.exp(-abs(x))),
        softplus_of_decay,
    ),
    "sigmoid": Function("vecmath", "logistic", 2, 1, exact_sigmoid, sigmoid_of_decay),
    "sigmoid by odds": Function("vecmath", "logistic_odds", 2, 1, exact_sigmoid, sigmoid_of_decay),
    "log1p": Function(
        "vecmath", "log_one_plus", 1, 0, mpmath.log1p, np.log1p, lambda x: ~(x <= -1)
    ),
    "sine": Function(
        *SINES, 0, lambda x: mpmath.sin(2 * mpmath.pi * x), lambda x: np.sin(turn(x)), EIGHTH
    ),
    "cosine": Function(
        *SINES, 1, lambda x: mpmath.cos(2 * mpmath.pi * x), lambda x: np.cos(turn(x)), EIGHTH
    ),
    "power of two": Function(
        *("vecmath", "power_of_two", 1, 0),
        *(lambda y: mpmath.power(2, y), np.exp2, between(-100, 0)),
        bounds=OF_POWERS,
    ),
    "power of two, to underflow": Function(
        *("vecmath", "power_to_underflow", 1, 0),
        *(lambda y: mpmath.power(2, y), np.exp2, lambda x: ~(x > 0)),
        bounds=OF_POWERS,
    ),
    "log1p of gamma": Function(
        *("vecmath", "log1p", 2, 0, mpmath.log1p, np.log1p, lambda x: ~(x <= -1)),
        size=lambda m, x: 0,
    ),
    # What remains of the gamma functions: `terms/gamma.pxd` names the sums that errors are of.
    "log-gamma's correction": Function(
        *("vecmath", "corrections", 2, 0, lambda a: mpmath.loggamma(a) - stirling(a)),
        within=GAMMA,
        size=below(10, lambda log, a: 1 + log, lambda a: 1 / a),
    ),
    "digamma's correction": Function(
        *("vecmath", "corrections", 2, 1),
        lambda a: mpmath.digamma(a) - mpmath.log(a) + 1 / (2 * a),
        within=GAMMA,
        size=below(10, lambda log, a: 1 / a + log, lambda a: 1 / a),
    ),
    "log-factorial's rest": Function(
        *("vecmath", "log_factorial_rest", 1, 0, log_factorial_rest),
        within=GAMMA,
        size=lambda m, x: 1 + abs(m.log(x)),
    ),
    "log-gamma's rise by 1/2": Function(
        *("vecmath", "half_rise", 2, 0, half_rise), within=GAMMA, size=lambda m, x: 0, bounds=TWICE
    ),
    "digamma's rise by 1/2": Function(
        *("vecmath", "half_rise", 2, 1),
        lambda v: v * (mpmath.digamma(v + 0.5) - mpmath.digamma(v)) - 0.5,
        within=GAMMA,
        size=lambda m, x: 0,
        bounds=TWICE,
    ),
}


def worst_ulps(got, exact):
    """The largest error in units in the last place of the dtype of `got`; `exact` is wider.

    Of what is not the nearest number, which is off by half a unit at most. What overflows or
    underflows must do so; NaN must be where they are expected.
    """
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        differ = got != rounded
        got, exact, rounded = got[differ], exact[differ], rounded[differ]
        np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
        # Within half an ulp of overflow, infinity is a right answer and so is the largest number.
        largest = np.finfo(got.dtype).max
        beyond = np.isinf(rounded)
        assert np.all(np.abs(got[beyond]) >= largest)
        np.testing.assert_array_equal(np.sign(got[beyond]), np.sign(exact[beyond]))
        finite = np.isfinite(rounded)
        got = np.clip(got[finite], -largest, largest).astype(exact.dtype)
        ulp = np.spacing(np.abs(rounded[finite])).astype(exact.dtype)
        error = np.abs(got - exact[finite]) / ulp
    return float(error.max(initial=0.0))


def worst_relative(got, exact, size):
    """The largest error relative to max(|exact|, size), an ulp of a denormal forgiven.

    Of what is not the nearest number, as in `worst_ulps`.
    """
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        differ = got != rounded
        got, exact, size = got[differ], exact[differ], np.broadcast_to(size, differ.shape)[differ]
        np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
        finite = np.isfinite(rounded[differ])
        np.testing.assert_array_equal(got[~finite], rounded[differ][~finite])
        error = np.abs(got.astype(exact.dtype) - exact)
        error -= np.finfo(got.dtype).smallest_subnormal
        relative = np.where(finite & (error > 0), error / np.maximum(np.abs(exact), size), 0)
    return float(relative.max(initial=0.0))


def sample(name, dtype, n):
    """n points over the whole domain, dense where something happens."""
    rng = np.random.default_rng(list(name.encode()))
    info, within = np.finfo(dtype), FUNCTIONS[name].within
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), n, dtype=f"u{dtype.itemsize}", endpoint=False)
    edge = np.log(float(info.max))
    pieces = [
        bits.view(dtype),  # any at all
        np.ldexp(rng.uniform(1, 2, n), rng.integers(info.minexp, info.maxexp, n)),
        rng.uniform(-1.1 * edge, 1.1 * edge, n),
        rng.uniform(-2.1, 2.1, n),
        rng.uniform(-0.125, 0.125, n),
        [-0.125, 0.0, -0.0, 0.125],
        np.arange(-40.0, 41.0),
        rng.normal(size=n) * 1e-4,
        rng.uniform(0.5, 2.0, n),
        1 + rng.normal(size=n) * float(info.eps) * 100,
        edge + rng.normal(size=n) * 1e-3,
        np.log(float(info.smallest_normal)) + rng.normal(size=n) * 10,
        float(info.smallest_subnormal) * rng.integers(1, 10**6, n),
        (np.arange(-2000, 2000) + 0.5) * np.log(2.0),  # between two exponents
        (np.arange(-2000, 2000)) * np.log(2.0),
    ]
    with np.errstate(all="ignore"):
        x = np.concatenate([np.asarray(p).astype(dtype) for p in pieces])
    return x[within(x)]


def worst_of_float32(name, builds=(_builds.BUILD,), every=1):
    """The worst errors over all 2**32 arguments or each so manieth, by build; and how many."""
    function, count, chunk = FUNCTIONS[name], 0, every << 16
    worst = dict.fromkeys(builds, 0.0)
    for start in range(0, 1 << 32, chunk):
        x = np.arange(start, min(start + chunk, 1 << 32), every, dtype=np.uint32).view(np.float32)
        x = x[function.within(x)]
        if x.size:
            count += x.size
            exact = function.at(x)
            for build in builds:
                worst[build] = max(worst[build], function.worst(function(x, build), exact, x))
    return worst, count


def worst_by_mpmath(name, dtype, build=_builds.BUILD, most=500):
    """The worst error at some points, however wide the dtype; how many; and which is worst."""
    function = FUNCTIONS[name]
    x = sample(name, dtype, 100)
    x = x[np.isfinite(x)]
    if name == "log":
        x = x[x > 0]
    x = x[:: max(1, len(x) // most)].copy()
    worst, at = 0.0, None
    smallest = float(np.finfo(dtype).smallest_subnormal)
    with mpmath.workprec(2400 if "em1mx" in name else 300):  # x^2 next to x and 1
        for given, answer in zip(x, function(x, build).tolist(), strict=True):
            exact = function.exact(mpmath.mpf(float(given)))
            with np.errstate(over="ignore"):
                rounded = dtype.type(float(exact))
            if np.isinf(rounded):
                assert answer == rounded
                continue
            error = abs(mpmath.mpf(answer) - exact)
            if function.size is None:
                error /= float(np.spacing(abs(rounded)))
            elif error:
                size = max(abs(exact), abs(function.size(EXACTLY, mpmath.mpf(float(given)))))
                error = max(error - smallest, 0) / size
            if error > worst:
                worst, at = float(error), given
    return worst, len(x), at


def measure(name, dtype, every, builds):
    """A row a build, of a function and dtype."""
    function = FUNCTIONS[name]
    if dtype == np.float32:
        worst, count = worst_of_float32(name, builds, every)
        against = "float64" if function.wide else "the kernel's float64"
    else:
        found = {build: worst_by_mpmath(name, dtype, build, 1500) for build in builds}
        worst, count = {b: w for b, (w, *_) in found.items()}, found[builds[0]][1]
        against = "mpmath"
        if WIDER and function.wide:
            x, against = sample(name, dtype, 200_000), "long double, mpmath"
            exact, count = function.at(x), count + x.size
            for build in builds:
                here = function.worst(function(x, build), exact, x)
                worst[build] = max(worst[build], here)
    for build in builds:
        row = {"name": name, "dtype": dtype.name, "build": build, "error": worst[build]}
        row |= {"unit": "of its terms" if function.size else "ulp", "bound": function.bound(dtype)}
        yield row | {"inputs": count, "against": against}


def write(rows):
    """In place of what was measured of the same, all in order."""

    def key(row):
        return row["name"], row["dtype"], row["build"]

    told = json.loads(RESULTS.read_text())
    found = {key(row): row for row in (*told["rows"], *rows)}
    order = itertools.product(FUNCTIONS, [dtype.name for dtype in WIDE], _builds.NAMES)
    told["rows"] = [found[which] for which in order if which in found]
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*FUNCTIONS, []], metavar="FUNCTION")
    parser.add_argument("--every", type=int, default=1, help="of float32's arguments")
    parser.add_argument("--builds", nargs="*", default=_builds.available())
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args()
    for name, dtype in itertools.product(args.names or FUNCTIONS, WIDE):
        rows = list(measure(name, dtype, args.every, args.builds))
        for row in rows:
            print(json.dumps(row), flush=True)
        if args.write:
            write(rows)


if __name__ == "__main__":
    main()
