"""``python -m fastelbo parity``: every public function against its reference, and against others.

What is compared are the cases of the catalogue: on every build, which runs in a process of its own
since it is chosen on import, in both dtypes, with every option, over sizes around those of lanes,
tiles and units. What SciPy and PyTorch make of the same arrays is held against the reference.
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
from fastelbo._catalogue._compare import worst_error
from fastelbo._catalogue.twins import twins, value_and_grad
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
    """The worst error of a public thing against one other, over all cases, sizes and options."""

    name: str
    against: str
    dtype: str
    error: float
    bound: float
    checks: int
    build: str = ""
    raised: str = ""

    @property
    def is_out_of_bounds(self):
        return not self.error <= self.bound


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


def compare(name, dtype, sizes=SIZES):
    """The Worst of all cases of a row against their references."""
    dtype = np.dtype(dtype)
    worst = Worst(name, "reference", dtype.name, 0.0, TOLERANCE[dtype], 0)
    for case in ROWS[name].cases:
        for arrays, options in problems(case, dtype, sizes):
            try:
                actual = case.public(*arrays.values(), **options)
            except Exception as exception:
                worst.error = float("inf")
                worst.raised = f"{case.name}: {type(exception).__name__}: {exception}"
                return worst
            desired = case.reference(*arrays.values(), **options)
            scales = case.scales(arrays.values(), **options)
            worst.error = max(worst.error, worst_error(actual, desired, dtype, scales))
            worst.checks += 1
    return worst


# Others -----------------------------------------------------------------------------------------


def compare_others(name, sizes=SIZES):
    """A Worst for each other library, in float64: what users write there against the reference."""
    row, found = ROWS[name], []
    bound = max([THEIRS, *(entry.error for entry in row.bench)])
    for kind in (SciPy, PyTorch):
        try:
            other = kind()
        except ImportError:
            continue
        worst = Worst(name, kind.label, "float64", 0.0, bound, 0)
        for case in row.cases:
            for arrays, options in problems(case, "float64", sizes):
                call = other.bind(case, arrays) if options in PLAIN else None
                if call is None or case.draws_noise:
                    continue
                actual = case.shared(other.numpy(call()))
                desired = case.shared(flatten(case.reference(*arrays.values())))
                scales = case.shared(case.scales(arrays.values()))
                worst.error = max(worst.error, worst_error(actual, desired, "float64", scales))
                worst.checks += 1
        found += [worst] if worst.checks else []
    return found


def compare_torch(name, dtype, sizes=SIZES):
    """A Worst of fastelbo.torch against the reference: of its kernels, and of its composites.

    Composites, which serve other devices, are compared in float64.
    """
    from fastelbo.torch import _tensors

    found = []
    for against in ("reference", "composite") if dtype == "float64" else ("reference",):
        worst = Worst(f"torch.{name}", against, dtype, 0.0, TOLERANCE[np.dtype(dtype)], 0)
        _tensors.always_composite = against == "composite"
        try:
            for case, gradient in twins(ROWS[name]):
                for arrays, options in problems(gradient, dtype, sizes):
                    _, actual = value_and_grad(case, gradient, arrays, options)
                    desired = flatten(gradient.reference(*arrays.values(), **options))
                    scales = gradient.scales(arrays.values(), **options)
                    last = slice(-len(actual), None)
                    error = worst_error(actual, tuple(desired[last]), dtype, scales[last])
                    worst.error = max(worst.error, error)
                    worst.checks += 1
        finally:
            _tensors.always_composite = False
        found.append(worst)
    return found


# The command ------------------------------------------------------------------------------------


def compare_build(names, sizes):
    """All that `compare` finds for the build in use, as dicts."""
    with quiet_torch():
        return [
            {**asdict(compare(name, dtype, sizes)), "build": _builds.BUILD}
            for name in names
            for dtype in DTYPES
        ]


def compare_frameworks(names, sizes):
    """What does not depend on the build: others, and fastelbo.torch, as dicts."""
    found = []
    with quiet_torch():
        for name in names:
            found += compare_others(name, sizes)
            if importlib.util.find_spec("torch") is not None:
                for dtype in DTYPES:
                    found += compare_torch(name, dtype, sizes)
    return [{**asdict(worst), "build": _builds.BUILD} for worst in found if worst.checks]


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
    parser.add_argument("--quick", action="store_true", help="small sizes only")
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
            pool.submit(children.in_build, _builds.BUILD, function="compare_frameworks", **given),
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
