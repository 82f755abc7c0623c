"""``python -m fastelbo parity``: every public function against its reference, and against others.

What is compared are the cases of the catalogue: on every build, which runs in a process of its own
since it is chosen on import, in both dtypes, with every option, over sizes around those of lanes,
tiles and units, and at the values that a case names as extreme and as limits. What SciPy and
PyTorch make of the same arrays is held against the reference.
"""

import contextlib
import importlib.util
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

import fastelbo
from fastelbo import _builds
from fastelbo._catalogue import REDUCTIONS, ROWS, TOLERANCE, flatten
from fastelbo._catalogue._compare import errors, errors_at_limits, worst_errors
from fastelbo._catalogue.twins import jax_twins, jax_value_and_grad, twins, value_and_grad
from fastelbo._cli import _common
from fastelbo._cli._common import DTYPES
from fastelbo._cli.contenders import PyTorch, SciPy

#: (batch, event, latent): odd and even, around the lanes and tiles of kernels, and large ones.
SIZES = (
    (2, 31, 1),
    (3, 33, 31),
    (31, 784, 33),
    (1, 4097, 20),
    (7, 512, 4097),
    (4097, 33, 2),
    (257, 1031, 64),
)
QUICK_SIZES = ((3, 33, 31), (5, 1031, 33))
#: Elements of the largest array that a reference makes.
MOST = 1 << 19
#: Options that the formulas of others have.
PLAIN = ({}, {"reduction": "mean"})
#: What the formulas of others are allowed, relative to the terms, in float64.
THEIRS = 1e-9


@dataclass
class Worst:
    """The worst error of a public thing against one other, over all cases, sizes and options.

    ``of`` is "value" or "gradient", ``at`` "ordinary" inputs, "extremes" or "limits".
    """

    name: str
    against: str
    dtype: str
    bound: float
    of: str = "value"
    at: str = "ordinary"
    error: float = 0.0
    checks: int = 0
    build: str = ""
    raised: str = ""

    @property
    def is_out_of_bounds(self):
        return not self.error <= self.bound


class Found(dict):
    """The Worst of one public thing against one other, by what an error is of, and where."""

    def __init__(self, name, *common):
        self.is_backward = name.endswith("_backward")
        self.common = name, *common

    def add(self, case, at, found):
        """The errors of a flat result, of which the last, or all, are those of gradients."""
        gradients = len(case.outs) if case.gives_gradients else 0
        if self.is_backward:
            gradients = len(found)
        for i, error in enumerate(found):
            of = "gradient" if i >= len(found) - gradients else "value"
            worst = self.setdefault((at, of), Worst(*self.common, of, at))
            worst.error = max(worst.error, error)
            worst.checks += 1

    def raise_from(self, case, at, exception):
        """That a call has raised."""
        worst = self.setdefault((at, "value"), Worst(*self.common, "value", at))
        worst.error, worst.checks = float("inf"), worst.checks + 1
        worst.raised = worst.raised or f"{case.name}: {type(exception).__name__}: {exception}"


def variants(case):
    """The options of every comparison of a case."""
    yield from ({"reduction": r} for r in REDUCTIONS) if case.has_reduction else ({},)
    yield from case.options


def problems(case, dtype, sizes):
    """(arrays, options) of every comparison of a case."""
    for i, (batch, event, latent) in enumerate(sizes):
        extents = case.within(MOST, B=batch, D=event, L=latent)
        arrays = case.draw([2026, i], dtype, **extents)
        for options in variants(case):
            yield arrays, options


def places(case, dtype, sizes):
    """(where, arrays, options, how errors are taken) of every comparison of a case."""
    for arrays, options in problems(case, dtype, sizes):
        yield "ordinary", arrays, options, errors
    for at, how in (("extremes", errors), ("limits", errors_at_limits)):
        if getattr(case, at):
            arrays = case.at(at, dtype)
            for options in ({}, *case.options):  # a row each, so that none hides in a sum
                alone = {"reduction": "none"} if case.has_reduction else {}
                yield at, arrays, {**alone, **options}, how


def compare(name, dtype, sizes=SIZES):
    """Each Worst of all cases of a row against their references."""
    dtype = np.dtype(dtype)
    found = Found(name, "reference", dtype.name, TOLERANCE[dtype])
    for case in ROWS[name].cases:
        for at, arrays, options, how in places(case, dtype, sizes):
            try:
                actual = case.public(*arrays.values(), **options)
            except Exception as exception:
                found.raise_from(case, at, exception)
                continue
            desired = case.reference(*arrays.values(), **options)
            scales = case.scales(arrays.values(), **options)
            found.add(case, at, worst_errors(actual, desired, dtype, scales, how))
    return list(found.values())


# Others -----------------------------------------------------------------------------------------


def compare_others(name, sizes=SIZES):
    """Likewise for each other library, in float64: what users write there against the reference."""
    row, every = ROWS[name], []
    bound = max([THEIRS, *(entry.error for entry in row.bench)])
    for kind in (SciPy, PyTorch):
        try:
            other = kind()
        except ImportError:
            continue
        found = Found(name, kind.label, "float64", bound)
        for case in row.cases:
            for arrays, options in problems(case, "float64", sizes):
                call = other.bind(case, arrays) if options in PLAIN else None
                if call is None or case.draws_noise:
                    continue
                actual = case.shared(other.numpy(call()))
                desired = case.shared(flatten(case.reference(*arrays.values())))
                scales = case.shared(case.scales(arrays.values()))
                found.add(case, "ordinary", worst_errors(actual, desired, "float64", scales))
        every += found.values()
    return every


def compare_torch(name, dtype, sizes=SIZES):
    """Likewise for fastelbo.torch against the reference: of its kernels, and of its composites.

    Composites, which serve other devices, are compared in float64.
    """
    from fastelbo.torch import _tensors

    every = []
    for against in ("reference", "composite") if dtype == "float64" else ("reference",):
        found = Found(f"torch.{name}", against, dtype, TOLERANCE[np.dtype(dtype)])
        _tensors.always_composite = against == "composite"
        try:
            for case, gradient in twins(ROWS[name]):
                for arrays, options in problems(gradient, dtype, sizes):
                    actual = value_and_grad(case, gradient, arrays, options)
                    desired = gradient.reference(*arrays.values(), **options)
                    scales = gradient.scales(arrays.values(), **options)
                    found.add(gradient, "ordinary", worst_errors(actual, desired, dtype, scales))
        finally:
            _tensors.always_composite = False
        every += found.values()
    return every


def compare_jax(name, dtype, sizes=SIZES):
    """Likewise for fastelbo.jax against the reference: under jit, of kernels, and of formulas.

    Formulas, which serve other devices, are compared in float64. What takes long is to compile: a
    case has one size, and one of the options, in turn.
    """
    import jax

    import fastelbo.jax

    jax.config.update("jax_enable_x64", True)
    every = []
    for turn, against in enumerate(("reference", "formulas")[: 1 + (dtype == "float64")]):
        found = Found(f"jax.{name}", against, dtype, TOLERANCE[np.dtype(dtype)])
        transform = fastelbo.jax.plain() if against == "formulas" else lambda function: function
        for i, (case, gradient) in enumerate(jax_twins(ROWS[name])):
            several = [p for p in problems(gradient, dtype, sizes[:1]) if "num_threads" not in p[1]]
            arrays, options = several[(i + turn) % len(several)]
            values, slopes = jax_value_and_grad(case, gradient, arrays, options, transform)
            actual = (*(() if case.draws_noise else values), *slopes)
            last = slice(-len(actual), None)
            desired = tuple(flatten(gradient.reference(*arrays.values(), **options))[last])
            scales = gradient.scales(arrays.values(), **options)[last]
            found.add(gradient, "ordinary", worst_errors(actual, desired, dtype, scales))
        every += found.values()
    return every


# The command ------------------------------------------------------------------------------------


def compare_build(names, sizes):
    """All that `compare` finds for the build in use, as dicts."""
    with quiet_torch():
        return [
            {**asdict(worst), "build": _builds.BUILD}
            for name in names
            for dtype in DTYPES
            for worst in compare(name, dtype, sizes)
        ]


def compare_frameworks(names, sizes, quick):
    """What does not depend on the build: others, fastelbo.torch and fastelbo.jax, as dicts."""
    adapters = {"torch": compare_torch} if quick else {"torch": compare_torch, "jax": compare_jax}
    found = []
    with quiet_torch():
        for name in names:
            found += compare_others(name, sizes)
            for framework, compare_adapter in adapters.items():
                if importlib.util.find_spec(framework) is not None:
                    for dtype in DTYPES:
                        found += compare_adapter(name, dtype, sizes)
    return [{**asdict(worst), "build": _builds.BUILD} for worst in found]


@contextlib.contextmanager
def quiet_torch():
    """Warnings are errors, but for PyTorch's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", module="torch")
        yield


def add_arguments(parser):
    """The options of ``fastelbo parity``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes only, and not in JAX")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args):
    """Compare and print. Returns 1 if an error is out of bounds, 2 for an unknown name."""
    problem = _common.unknown(args.names, ROWS)
    if problem:
        print(f"fastelbo parity: {problem}", file=sys.stderr)
        return 2
    sizes = QUICK_SIZES if args.quick else SIZES
    given = {"module": "fastelbo._cli.parity", "names": args.names or list(ROWS), "sizes": sizes}
    # The children end first: the pool waits for threads that wait for them.
    with ThreadPoolExecutor(fastelbo.get_num_threads()) as pool, _common.Children() as children:
        found = [
            pool.submit(
                children.in_build,
                _builds.BUILD,
                function="compare_frameworks",
                quick=args.quick,
                **given,
            ),
            *(
                pool.submit(children.in_build, build, function="compare_build", **given)
                for build in _builds.available()
            ),
        ]
        try:
            done = [future.result() for future in _common.progress(found, "builds")]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    rows = [Worst(**row) for rows in (*done[1:], done[0]) for row in rows]
    wrong = [row for row in rows if row.is_out_of_bounds]
    if args.json:
        report = {"rows": [{**asdict(r), "out_of_bounds": r.is_out_of_bounds} for r in rows]}
        print(json.dumps(report, indent=1))
        return 1 if wrong else 0
    print(text(rows))
    for row in rows:
        if row.raised:
            print(f"{row.name} ({row.build}, {row.dtype}) raised {row.raised}")
    bounds = ", ".join(f"{bound:g} {dtype.name}" for dtype, bound in TOLERANCE.items())
    print(
        f"\n{len(wrong)} of {len(rows)} out of bounds. Bounds: {bounds}, relative to the terms of "
        f"a sum; for others {THEIRS:g} and more.\n{sum(row.checks for row in rows)} checks; sizes "
        f"(batch, event, latent) {sizes}"
    )
    return 1 if wrong else 0


def text(rows):
    """A line per public thing and other, a column per build and dtype; ! marks out of bounds."""
    columns = dict.fromkeys((row.build, row.dtype) for row in rows)
    cells = {}
    for row in rows:
        line = cells.setdefault((row.name, row.of, row.at, row.against), {})
        line[row.build, row.dtype] = f"{row.error:.1e}{'!' * row.is_out_of_bounds}"
    header = ["worst relative error", "of", "at", "against"]
    header += (f"{build} {dtype}" for build, dtype in columns)
    lines = [[*line, *(found.get(c, "-") for c in columns)] for line, found in cells.items()]
    return _common.table(header, lines, left=4)
