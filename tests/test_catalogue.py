"""Every case of the catalogue against its reference; what users write against it, too."""

from dataclasses import replace

import numpy as np
import pytest

from fastelbo._catalogue import CASES, REDUCTIONS, ROWS, TOLERANCE, flatten
from fastelbo._catalogue._compare import errors, worst_error
from fastelbo._catalogue.likelihoods import cases_of
from fastelbo._cli import contenders
from tests.cases import check

#: Around the lanes, tiles and units of the kernels.
EXTENTS = [
    {"B": 1, "D": (1,), "L": 1},
    {"B": 33, "D": ()},
    {"B": 2, "D": (31,), "L": 31, "K": 5},
    {"B": 31, "D": (2,), "L": 2},
    {"B": 33, "D": (33,), "L": 33, "N": 40},
    {"B": 1, "D": (4095,), "L": 4095},
    {"B": 2, "D": (4097,), "L": 4097},
    {"B": 700, "D": (1,), "L": 1},
    {"B": 2, "D": (3, 5, 7), "L": 20},
]
#: Elements at most of what a reference makes.
MOST = 1 << 17

#: Of features of their own number, extremes would need as many columns.
WITH_EXTREMES = [n for n, case in CASES.items() if case.extremes and not case.fixed]


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(name, dtype):
    """At every size with one reduction, at the second with every one and all that can be asked."""
    case = CASES[name]
    for i, extents in enumerate(EXTENTS):
        arrays = case.draw(i, dtype, **case.within(MOST, **extents))
        every = REDUCTIONS if i == 1 else (REDUCTIONS[i % 3],)
        for options in [{"reduction": r} for r in every] if case.has_reduction else [{}]:
            check(name, arrays, dtype, **options)
        for options in case.options if i in (1, 2) else ():
            check(name, arrays, dtype, **options)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.likelihood])
def test_masks_agree_with_the_reference(name, dtype):
    case = CASES[name]
    for extents in ({"B": 5, "D": (33,)}, {"B": 3, "D": (2, 700)}):
        arrays = case.draw(3, dtype, **extents)
        mask = np.random.default_rng(1).random(arrays["x"].shape) < 0.7
        for reduction in REDUCTIONS:
            check(name, arrays, dtype, mask=mask, reduction=reduction)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.likelihood])
def test_missing_values_agree_with_the_reference(name, dtype):
    variant = CASES[name].likelihood
    marked = replace(variant, options={**variant.options, "missing": "nan"})
    case = cases_of(marked)[CASES[name].gives_gradients]
    arrays = case.draw(3, dtype, B=5, D=(33,))
    arrays["x"][np.random.default_rng(1).random(arrays["x"].shape) < 0.3] = np.nan
    for reduction in REDUCTIONS:
        check(case, arrays, dtype, reduction=reduction)


@pytest.mark.parametrize("name", WITH_EXTREMES)
def test_extremes_agree_with_the_reference(name, dtype):
    """Values at the limits, each with each other: a row each, so that none hides in a sum."""
    arrays = CASES[name].at_extremes(dtype)
    check(name, arrays, dtype, reduction="none")


@pytest.mark.parametrize("kind", [contenders.NumPy, contenders.SciPy, contenders.PyTorch])
def test_what_users_write_agrees_with_the_reference(kind):
    """In float64: the specification against code that knows nothing of it."""
    try:
        peer = kind()
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    found = 0
    for row in ROWS.values():
        bound = max([1e-9, *(bench.error for bench in row.bench)])
        for case in row.cases:
            arrays = case.draw(4, B=4, D=(7,), L=3)
            call = peer.bind(case, arrays)
            if call is None or case.draws_noise:
                continue
            found += 1
            actual = case.shared(peer.numpy(call()))
            desired = case.shared(flatten(case.reference(*arrays.values())))
            scales = case.shared(case.scales(arrays.values()))
            assert worst_error(actual, desired, "float64", scales) <= bound, case.name
    assert found >= 10


def test_the_tolerance_is_what_is_promised():
    assert {np.dtype("f4"): 1e-6, np.dtype("f8"): 1e-13} == TOLERANCE


@pytest.mark.parametrize(
    ("actual", "desired", "scale", "expected"),
    [
        (1.0, 1.0, 0.0, 0.0),
        (1.5, 1.0, 0.0, 0.5),
        (1.5, 1.0, 5.0, 0.1),
        (np.nan, 1.0, 0.0, np.inf),
        (np.nan, np.nan, 0.0, 0.0),
        (np.inf, -np.inf, 0.0, np.inf),
        (1.0, np.inf, 0.0, np.inf),
        (0.0, 0.0, 0.0, 0.0),
        (1e-9, 0.0, 0.0, np.inf),
        (np.array([1.0, 8.0]), np.array([2.0, 8.0]), 0.0, 0.5),
        (np.ones(3), np.ones(4), 0.0, np.inf),
    ],
)
def test_errors(actual, desired, scale, expected):
    assert np.max(errors(actual, desired, "f8", scale)) == pytest.approx(expected)
