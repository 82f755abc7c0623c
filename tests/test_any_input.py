"""Any input at all: a right answer or a ValueError or TypeError, and no input changed."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastelbo._catalogue import CASES, REDUCTIONS, TOLERANCE, flatten
from tests.conftest import assert_close, lay_out
from tests.test_contracts import NAMES

DTYPES = ["f4", "f8", ">f4", ">f8", "f2", "g", "i1", "u1", "i4", ">i2", "u8", "i8", "?"]
AXES = ["every other", "backwards", "broadcast", "room"]
STRANGE = ["c8", "O", "U3", "M8[s]", "V4"]


RECIPE = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1 << 32),
        "dtype": st.sampled_from(DTYPES * 4 + STRANGE),
        "size": st.sampled_from([0.0, 1e-3, 1.0, 1.0, 5.0]),
        "special": st.sampled_from([None] * 9 + [np.nan, np.inf, -np.inf, "max"]),
        "axes": st.lists(st.sampled_from([*[""] * 5, *AXES]), min_size=4, max_size=4),
        "whole": st.sampled_from([*[""] * 6, "fortran", "unaligned", "read-only", "list", "shape"]),
    }
)


def cooked(recipe, shape):
    """An array of this shape, unless spoiled: of any dtype, strides, byte order, values."""
    rng = np.random.default_rng(recipe["seed"])
    dtype, whole = np.dtype(recipe["dtype"]), recipe["whole"]
    if whole == "shape":
        shape = tuple(rng.integers(0, 5, rng.integers(0, 4)))
    a = np.asarray(rng.normal(size=shape) * recipe["size"])
    if dtype.kind not in "fc":
        a = np.asarray(np.round(np.abs(a) if dtype.kind == "u" else a), int)
    a = np.zeros(shape, dtype) if dtype.kind == "V" else np.asarray(a, dtype)
    if dtype.kind == "f" and a.size and recipe["special"] is not None:
        largest = recipe["special"] == "max"
        value = np.finfo(dtype).max if largest else recipe["special"]
        a[np.unravel_index(rng.integers(a.size), a.shape)] = value
    for axis, how in zip(range(a.ndim), recipe["axes"], strict=False):
        if how == "every other":
            a = np.repeat(a, 2, axis=axis)[(slice(None),) * axis + (slice(None, None, 2),)]
        elif how == "backwards":
            a = np.flip(a, axis)
        elif how == "broadcast" and a.shape[axis]:
            a = np.broadcast_to(np.take(a, [0], axis=axis), a.shape)
        elif how == "room" and dtype.kind in "fiub":
            pad = [(0, 0)] * axis + [(1, 2)] + [(0, 0)] * (a.ndim - axis - 1)
            a = np.pad(a, pad)[(slice(None),) * axis + (slice(1, -2),)]
    if whole == "fortran":
        a = np.asfortranarray(a)
    elif whole == "unaligned" and dtype.kind in "fiu":
        a = lay_out(a, "unaligned", None)
    elif whole == "read-only":
        a = a.view()
        a.flags.writeable = False
    elif whole == "list":
        return a.tolist()
    return a


def right_or_refused(function, arrays, options):
    """A right answer, or a ValueError or TypeError; nothing else, no input changed."""
    before = [np.array(a) if isinstance(a, np.ndarray) else repr(a) for a in arrays]
    refused = False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            got = function.public(*arrays, **options)
        except (ValueError, TypeError):
            refused = True
        for a, b in zip(arrays, before, strict=True):
            if isinstance(a, np.ndarray):
                assert a.tobytes() == b.tobytes()
            else:
                assert repr(a) == b
        if refused:
            return False
        options = {k: v for k, v in options.items() if k != "num_threads"}
        if "beta" in options:
            options["beta"] = float(options["beta"])
        expected = flatten(function.reference(*arrays, **options))
        # What computes in float32: its overflows are compared for kind and shape alone.
        floats = [np.asarray(a) for a in arrays]
        single = all(
            a.dtype.kind == "f" and a.dtype.itemsize <= 4
            for a, which in zip(floats, function.inputs, strict=True)
            if which not in ("noise", "z", "grad_z") and (which != "x" or a.dtype.kind == "f")
        )
        wild = any(a.size and not np.abs(a.astype(float)).max() < 1e3 for a in floats)
        scales = function.scales(arrays, **options)
        for mine, theirs, scale in zip(flatten(got), expected, scales, strict=True):
            assert np.shape(mine) == np.shape(theirs)
            if np.asarray(mine).dtype == np.float16:  # rounded once more: a unit apart at most
                theirs = np.asarray(theirs, np.float16).astype(np.float64)
                unit = np.abs(np.spacing(theirs.astype(np.float16)), dtype=np.float64)
                unit = np.where(np.isfinite(theirs), unit, 0.0)
                scale = scale + unit / TOLERANCE[np.dtype(np.float32)]
            if wild:  # NaN and infinity in one place: elsewhere, all is as if they were not there
                clean = np.isfinite(theirs) & np.isfinite(mine)
                if not (np.all(np.isfinite(scale)) and np.max(scale, initial=0.0) < 1e30):
                    continue
                mine, theirs = np.asarray(mine)[clean], np.asarray(theirs)[clean]
                scale = np.broadcast_to(scale, clean.shape)[clean]
            assert_close(mine, theirs, np.float32 if single else np.float64, scale)
    return True


def any_call(data):
    """One call of one function with anything; whether it was answered."""
    name = data.draw(st.sampled_from(NAMES))
    function = CASES[name]
    batch, *sides = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    event = tuple(n - 1 if n == 6 else n for n in sides)
    latent = data.draw(st.sampled_from([0, 1, 2, 3, 33]))
    model = function.draw(0, np.float64, B=batch, D=event, L=latent)
    arrays = [cooked(data.draw(RECIPE), a.shape) for a in model.values()]
    if "Bernoulli" in name and isinstance(arrays[0], np.ndarray) and arrays[0].dtype.kind == "f":
        arrays[0] = np.clip(arrays[0], 0, 1)
    options = {"num_threads": data.draw(st.sampled_from([None, 1, 2]))}
    if function.has_reduction:
        options["reduction"] = data.draw(st.sampled_from([*REDUCTIONS * 3, "all"]))
    if "elbo" in name:
        options["beta"] = data.draw(st.sampled_from([0.0, 1.0, 3, np.float32(0.5)]))
    return right_or_refused(function, arrays, options)


answered = []


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_input(data):
    answered.append(any_call(data))


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(data=st.data())
def test_any_input_for_long(data):
    any_call(data)


def test_any_input_was_answered_often():
    """The fuzzing above reaches the comparison, and not just the refusals."""
    assert not answered or np.mean(answered) > 0.2
