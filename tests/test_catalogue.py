"""Every case of the catalogue against its reference; what users write against it, too."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastelbo
from fastelbo._catalogue import CASES, OF_ELEMENTS, REDUCTIONS, ROWS, TOLERANCE, flatten
from fastelbo._catalogue._compare import errors, errors_at_limits, worst_error
from fastelbo._catalogue.likelihoods import cases_of
from fastelbo._catalogue.twins import objective, with_gradient
from fastelbo._cli import contenders
from tests.cases import any_array, check
from tests.conftest import DTYPES, assert_close, numerical_gradient, together

#: Around the lanes, tiles and units of the kernels.
EXTENTS = [
    {"B": 1, "D": (1,), "L": 1, "K": 1},
    {"B": 33, "D": ()},
    {"B": 2, "D": (31,), "L": 31, "K": 5},
    {"B": 31, "D": (2,), "L": 2, "K": 33, "M": 10},
    {"B": 33, "D": (33,), "L": 33, "N": 40, "M": 70, "C": 65, "E": 4, "S": 15},
    {"B": 1, "D": (4095,), "L": 4095},
    {"B": 2, "D": (4097,), "L": 4097},
    {"B": 4097, "D": (1,), "L": 1},
    {"B": 9, "D": (513,), "L": 513},
    {"B": 3, "D": (80,), "L": 80},  # lanes that are left over, in whole steps
    {"B": 2, "D": (3, 5, 7), "L": 20},
]
#: Elements at most of what a reference makes.
MOST = 17_000

LIKELIHOODS = [name for name, case in CASES.items() if case.likelihood]
WITH_DOMAIN = [
    name
    for name in LIKELIHOODS
    if (made := CASES[name].likelihood.make(fastelbo))._domain and made.validate
]
#: Of features of their own number, extremes would need as many columns.
WITH_EXTREMES = [n for n, case in CASES.items() if case.extremes and not case.fixed]
WITH_GRADIENT = {
    gradient.name: (case, gradient)
    for row in ROWS.values()
    for case, gradient in with_gradient(row)
}


def couples_rows(case):
    """Whether a row's value depends on other rows."""
    return "optimal" in case.name or "BB" in case.largest


ALONE = [n for n, case in CASES.items() if case.has_reduction and not couples_rows(case)]


@pytest.mark.parametrize("name", CASES)
@together(dtype=DTYPES)
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


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.sizes])
@together(dtype=DTYPES)
def test_agrees_at_the_sizes_of_its_own(name, dtype):
    case = CASES[name]
    for i, extents in enumerate(case.sizes):
        arrays = case.draw(i, dtype, **extents)
        for options in ({}, *case.options):
            check(name, arrays, dtype, **options)


@pytest.mark.parametrize("name", LIKELIHOODS)
@together(dtype=DTYPES)
def test_masks_agree_with_the_reference(name, dtype):
    """What is left out counts nothing, whatever is there; by missing="nan", too."""
    case = CASES[name]
    variant = case.likelihood
    marked = replace(variant, options={**variant.options, "missing": "nan"})
    marked = cases_of(marked)[case.gives_gradients]
    for extents in ({"B": 5, "D": (33,)}, {"B": 3, "D": (2, 700), "C": 70}):
        arrays = case.draw(3, dtype, **extents)
        mask = np.random.default_rng(1).random(arrays["x"].shape) < 0.7
        spoilt = {**arrays, "x": np.where(mask, arrays["x"], np.nan).astype(dtype)}
        check(marked, spoilt, dtype)
        for reduction in OF_ELEMENTS:
            expected = flatten(check(name, arrays, dtype, mask=mask, reduction=reduction))
            for got in (
                case.public(*spoilt.values(), mask=mask, reduction=reduction),
                marked.public(*spoilt.values(), reduction=reduction),
            ):
                for mine, first in zip(flatten(got), expected, strict=True):
                    np.testing.assert_array_equal(mine, first)


@pytest.mark.parametrize("name", WITH_DOMAIN)
def test_what_a_mask_leaves_out_is_not_complained_of(name):
    """Whatever it is; and the first x outside the domain is the first of those that count."""
    case = CASES[name]
    arrays = case.draw(3, B=5, D=(33,))
    mask = np.ones(arrays["x"].shape, bool)
    for place in ((1, 2), (3, 4)):
        arrays["x"][place] = -7.5
        with pytest.raises(ValueError, match=rf"x\[{place[0]}, {place[1]}\] = "):
            case.public(*arrays.values(), mask=mask)
        mask[place] = False
        case.public(*arrays.values(), mask=mask)


@pytest.mark.parametrize("name", LIKELIHOODS)
@together(dtype=DTYPES)
def test_elements_agree_with_the_reference_and_add_up(name, dtype):
    """At sizes around lanes and tiles, of K samples, too; gradients are those of the rows."""
    case = CASES[name]
    for extents in ({"B": 33, "D": ()}, {"B": 2, "D": (1100,)}, {"B": 2, "D": (5, 7), "C": 70}):
        arrays = case.draw(3, dtype, **case.within(MOST, **extents))
        values, *gradients = flatten(check(name, arrays, dtype, reduction="elementwise"))
        assert values.dtype == dtype
        rows, *of_rows = flatten(case.public(*arrays.values(), reduction="none"))
        size = case.scales(arrays.values(), reduction="none")[0]
        assert_close(values.reshape(*rows.shape, -1).sum(-1, np.float64), rows, dtype, size)
        for mine, other in zip(gradients, of_rows, strict=True):
            np.testing.assert_array_equal(mine, other)
        x, *parameters = arrays.values()
        several = [
            np.stack([p, p]) if "B" in axes else p
            for p, axes in zip(parameters, list(case.inputs.values())[1:], strict=True)
        ]
        twice = flatten(case.public(x, *several, reduction="elementwise"))[0]
        if not couples_rows(case):
            np.testing.assert_array_equal(twice, np.stack([values, values]))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "mask" in case.inputs])
@together(dtype=DTYPES)
def test_what_a_mask_leaves_out_is_not_read(name, dtype):
    case = CASES[name]
    arrays = case.draw(3, dtype, B=31, L=13)
    expected = flatten(case.public(*arrays.values()))
    hidden = ~arrays["mask"]
    spoilt = {which: arrays[which].copy() for which in ("mu", "logvar")}
    for array in spoilt.values():
        array[hidden] = np.nan
    got = flatten(case.public(*{**arrays, **spoilt}.values()))
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
        if np.shape(mine) == arrays["mu"].shape:
            np.testing.assert_array_equal(mine[hidden], 0)
    if any("prior" in asked for asked in case.options):  # an expert that no mask leaves out
        arrays["mask"][:, 3] = False
        check(name, arrays, dtype)


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if not couples_rows(CASES[n])])
@together(classes=[4, 70], dtype=DTYPES)
def test_samples_are_as_one_by_one(name, classes, dtype):
    """K samples of what the decoder gives for each x: bit for bit."""
    case = CASES[name]
    x, *parameters = case.draw(0, dtype, B=6, D=(70,), C=classes).values()
    own = ["B" in axes for axes in list(case.inputs.values())[1:]]
    several = [case.draw(k, dtype, B=6, D=(70,), C=classes) for k in (1, 2, 3)]
    stacked = [
        np.stack([arrays[which] for arrays in several]) if mine else parameter
        for which, mine, parameter in zip(list(case.inputs)[1:], own, parameters, strict=True)
    ]
    together = flatten(case.public(x, *stacked, reduction="none"))
    specified = flatten(case.reference(x, *stacked, reduction="none"))
    total, sizes = 0, []
    for k in range(3):
        given = [s[k] if mine else s for s, mine in zip(stacked, own, strict=True)]
        rows, *alone = flatten(case.public(x, *given, reduction="none"))
        np.testing.assert_array_equal(together[0][k], rows)
        size, *by = case.scales([x, *given], reduction="none")
        sizes.append(np.broadcast_to(size, rows.shape))
        for mine, of_all, gradient in zip(own, together[1:], alone, strict=False):
            if mine:
                np.testing.assert_array_equal(of_all[k], gradient)
        total = total + (np.array(by[own.index(False)]) if by and not all(own) else 0)
    assert_close(together[0], specified[0], dtype, np.array(sizes))
    for mine, got, expected in zip(own, together[1:], specified[1:], strict=False):
        assert mine or assert_close(got, expected, dtype, total) is None


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in LIKELIHOODS
        if CASES[name].gives_gradients
        and not CASES[name].fixed
        and list(CASES[name].likelihood.parameters.values())[1:] in (["BD"], ["BD", "BD"])
    ],
)
@together(shape=[(), (5,), (6, 1), (6, 5), (1, 6, 5), (3, 1, 1), (1, 1, 5)], dtype=DTYPES)
def test_parameters_are_broadcast(name, shape, dtype):
    """One a feature, a sample or for all: gradients come in the parameter's own shape."""
    case = CASES[name]
    arrays = case.draw(3, dtype, B=3, D=(6, 5))
    names = list(arrays)[2:]
    others = case.draw(4, dtype, B=int(np.prod(shape)), D=())
    for which in names:
        arrays[which] = others[which].reshape(shape)
    for reduction in REDUCTIONS:
        check(name, arrays, dtype, reduction=reduction)


@pytest.mark.parametrize(
    "name", [n for n, case in CASES.items() if "x" in case.inputs and n != "elbo_from_buffers"]
)
@together(dtype=DTYPES)
def test_data_of_any_dtype(name, dtype):
    """As it is, beside parameters of either dtype: float64 anywhere makes it float64."""
    case = CASES[name]
    for extents in ({"B": 5, "D": (33,)}, {"B": 9, "D": (7,), "C": 70}):
        arrays = case.draw(3, dtype, **extents)
        bits = np.clip(np.ceil(np.abs(arrays["x"])), 0, 1)
        for x_dtype in ("?", "u1", "i2", "u4", "i8", "f2", "f4", "f8"):
            arrays["x"] = bits.astype(x_dtype)
            check(name, arrays, np.dtype(np.float64) if x_dtype == "f8" else dtype)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_gradients_are_central_differences(name):
    """In float64, of all that can be asked."""
    case, gradient = WITH_GRADIENT[name]
    arrays = case.draw(11, B=3, D=(7,), L=2, M=3)
    every = [{"reduction": r} for r in ("mean", "sum")] if case.has_reduction else [{}]
    for options in [*every, *gradient.options]:
        if "estimator" in options:  # which gives another gradient on purpose
            continue
        found = flatten(gradient.public(*arrays.values(), **options))
        given = {key: value for key, value in options.items() if key != "weights"}
        alone = flatten(case.public(*arrays.values(), **given))
        for mine, other in zip(found[: -len(gradient.outs)], alone, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-14)
        for which, mine in zip(gradient.outs, found[-len(gradient.outs) :], strict=True):
            if which not in arrays:  # the signal of a score
                continue

            def value(array, which=which, given=given, options=options):
                moved = {**arrays, which: array}
                values = flatten(case.public(*moved.values(), **given))
                return float(objective(case, [np.asarray(v) for v in values], options))

            expected = numerical_gradient(value, arrays[which], step=1e-4)
            largest = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(mine, expected, rtol=1e-7, atol=1e-8 * largest)


@pytest.mark.parametrize("name", ALONE)
@together(dtype=DTYPES)
def test_a_row_is_spoilt_alone(name, dtype):
    """By NaN or infinity anywhere in its inputs; NaN makes it NaN, or is refused by name."""
    case = CASES[name]
    for extents in ({"B": 9, "D": (33,), "L": 33}, {"B": 5, "D": (2, 350), "L": 20}):
        arrays = case.draw(5, dtype, **extents)
        clean = flatten(case.public(*arrays.values(), reduction="none"))
        for which, axes in case.inputs.items():
            if "B" not in axes or arrays[which].dtype == bool:
                continue
            at = axes.index("B")
            for poison in (np.nan, np.inf):
                spoilt = arrays[which].copy()
                spoilt[(-1,) * at + (2,) + (-1,) * (spoilt.ndim - at - 1)] = poison
                given = {**arrays, which: spoilt}
                try:
                    got = flatten(case.public(*given.values(), reduction="none"))
                except ValueError as error:
                    assert str(error).startswith(which)  # noqa: PT017
                    continue
                if np.isnan(poison) and which != "noise" and "mask" not in case.inputs:
                    values = [a for a in got if np.shape(a)[-1:] == (extents["B"],)]
                    assert any(np.isnan(a[..., 2]).any() for a in values), which
                for mine, other in zip(got, clean, strict=True):
                    batch = [i for i, n in enumerate(mine.shape) if n == extents["B"]][:1]
                    for axis in batch:
                        rest = (np.delete(a, 2, axis) for a in (mine, other))
                        np.testing.assert_array_equal(*rest, err_msg=which)


@pytest.mark.parametrize("name", WITH_EXTREMES)
@together(dtype=DTYPES)
def test_extremes_agree_with_the_reference(name, dtype):
    """Values at the limits, each with each other: a row each, so that none hides in a sum."""
    arrays = CASES[name].at("extremes", dtype)
    check(name, arrays, dtype, reduction="none")


@pytest.mark.parametrize("name", WITH_EXTREMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_values_agree_with_the_reference(name, data):
    """Between the extremes, and of any shape."""
    case = CASES[name]
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    event = tuple(data.draw(st.lists(st.integers(1, 6), max_size=3)))
    batch, latent = (data.draw(st.integers(1, 9)) for _ in "BL")
    arrays = case.draw(5, dtype, B=batch, D=event, L=latent)
    for which, values in case.extremes.items():
        arrays[which] = any_array(data, dtype, arrays[which].shape, values)
    options = {"reduction": data.draw(st.sampled_from(REDUCTIONS))} if case.has_reduction else {}
    check(name, arrays, dtype, **options)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.limits])
@together(dtype=DTYPES)
def test_limits_agree_with_the_reference(name, dtype):
    """The limit, not NaN; what is no number of the dtype is infinite."""
    case = CASES[name]
    given = list(case.at("limits", dtype, 2000).values())
    for options in ({}, *case.options):
        options = {"reduction": "none", **options}
        got = flatten(case.public(*given, **options))
        expected = flatten(case.reference(*given, **options))
        scales = case.scales(given, **options)
        for mine, desired, scale in zip(got, expected, scales, strict=True):
            wrong = errors_at_limits(mine, desired, dtype, scale) > TOLERANCE[dtype]
            assert not wrong.any(), (options, *given, mine[wrong], desired[wrong])


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


def test_a_result_that_lacks_a_part_is_wrong():
    assert worst_error((1.0, 2.0), (1.0, 2.0), "f8") == 0
    assert worst_error((1.0,), (1.0, 2.0), "f8") == np.inf


@pytest.mark.parametrize("spoiled", ["x", "mu"])
def test_buffers_have_the_sizes_of_arrays(spoiled):
    case = CASES["elbo_from_buffers"]
    arrays = case.draw(0)
    found, desired = (f(*arrays.values()) for f in (case.public, case.reference))
    assert worst_error(found, desired, "f8") < 1e-12
    with pytest.raises(ValueError, match="do not say the sizes of buffers"):
        case.public(*{**arrays, spoiled: arrays[spoiled].ravel()[0]}.values())


def test_axes_that_there_are_none_of():
    with pytest.raises(ValueError, match=r"no axes: \['Q'\]"):
        CASES["elbo"].draw(0, Q=3)
