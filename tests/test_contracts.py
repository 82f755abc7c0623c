"""What holds for every public function: memory, layouts, `out`, errors, and any input at all."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastelbo
from fastelbo import reference
from tests.conftest import LAYOUTS, assert_close, lay_out
from tests.functions import BY_NAME, FUNCTIONS, REDUCTIONS, flatten
from tests.likelihoods import POSITIVE
from tests.test_importance_bound import FUNCTIONS as OF_LOG_WEIGHTS

NAMES = [f.name for f in FUNCTIONS]
WITH_OUT = [f.name for f in FUNCTIONS if f.outs]
WITH_X = [f.name for f in FUNCTIONS if "x" in f.inputs]
WITH_SAMPLES = [f.name for f in FUNCTIONS if f.samples]
#: Functions of all pairs of points, and of experts.
OF_SETS = {n for n in fastelbo.__all__ if n.startswith(("mixture_", "mmd", "mopoe", "product_"))}
#: What is tested in a file of its own: elbo_from_buffers, log_weights, and all that takes log_w.
ELSEWHERE = {
    "aggregate_posterior_log_density",
    "build_info",
    "elbo_from_buffers",
    "kl_full_normal",
    "kl_full_normal_and_grad",
    "log_weights",
    *OF_LOG_WEIGHTS,
    *OF_SETS,
}


def draw(name, dtype=np.float64, **shape):
    return BY_NAME[name].draw(np.random.default_rng(7), dtype, **shape)


def assert_same(got, expected, dtype, scales):
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, tuple(scales))


def test_every_public_function_is_in_the_table():
    for name in fastelbo.__all__:
        thing = getattr(fastelbo, name)
        if isinstance(thing, type):
            if issubclass(thing, fastelbo.Likelihood) and thing is not fastelbo.Likelihood:
                methods = {f.public.__self__.__class__ for f in FUNCTIONS if "log_prob" in f.name}
                assert thing in methods, f"no row in tests/functions.py for {name}"
        elif name not in ELSEWHERE and "threads" not in name:
            base = name.removesuffix("_and_grad")
            rows = [f for f in NAMES if f.startswith(base) and f.endswith(name[len(base) :])]
            assert rows, f"no row in tests/functions.py for {name}"


# Layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_layouts(name, layout, dtype, tmp_path):
    """Every layout gives the numbers of the contiguous one; no input is written to."""
    function = BY_NAME[name]
    arrays = draw(name, dtype)
    laid_out = [lay_out(a, layout, tmp_path) for a in arrays.values()]
    roots = [a.base if isinstance(getattr(a, "base", None), np.ndarray) else a for a in laid_out]
    before = [a.tobytes() if isinstance(a, np.ndarray) else repr(a) for a in roots]
    got = function.public(*laid_out)
    computed = np.dtype(np.float64) if layout == "list" else dtype
    expected = function.public(*(a.astype(computed) for a in arrays.values()))
    scales = function.scales(arrays.values())
    assert_same(got, expected, computed, scales)
    for mine, theirs in zip(flatten(got), flatten(expected), strict=True):
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype
    after = [a.tobytes() if isinstance(a, np.ndarray) else repr(a) for a in roots]
    assert before == after


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", WITH_X)
def test_cropped_events(name, reduction, dtype):
    """Events of two and three axes, cropped, flipped, transposed or one sample for all."""
    function = BY_NAME[name]
    rng = np.random.default_rng(3)
    crops = {
        "crop": lambda a: np.pad(a, [(0, 0), (4, 3), (2, 5), (1, 1)])[:, 4:-3, 2:-5, 1:-1],
        "rows backwards": lambda a: a[::-1].copy()[::-1],
        "inner axes swapped": lambda a: a.swapaxes(1, 2).copy().swapaxes(1, 2),
        "every other": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        "channels last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),
        "batch last": lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0),
        "empty axes": lambda a: a[:, None, :, None][:, 0, :, 0],
    }
    event = (6, 5, 7)
    arrays = function.draw(rng, dtype, batch=3, event=event)
    options = {"reduction": reduction}
    expected = function.reference(*arrays.values(), **options)
    scales = function.scales(arrays.values(), **options)
    for crop in crops.values():
        views = [crop(a) if a.shape[1:] == event else a for a in arrays.values()]
        assert_same(function.public(*views, **options), expected, dtype, scales)
        only_x = [crop(arrays["x"]), *list(arrays.values())[1:]]
        assert_same(function.public(*only_x, **options), expected, dtype, scales)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_broadcast_inputs(name, axis, dtype):
    """Strides of zero, in one input at a time, and next to another dtype."""
    function = BY_NAME[name]
    for which in function.inputs:
        for other in (np.float32, np.float64):
            arrays = draw(name, dtype)
            if which == "x" and "optimal" in name:
                continue
            first = np.take(arrays[which], [0], axis=axis)
            arrays[which] = np.broadcast_to(first.astype(other), arrays[which].shape)
            expected = function.reference(*arrays.values())
            got = function.public(*arrays.values())
            assert_same(got, expected, np.float32, function.scales(arrays.values()))
            if dtype == other:
                assert_same(got, expected, dtype, function.scales(arrays.values()))


@pytest.mark.parametrize("name", NAMES)
def test_many_axes_and_odd_strides(name):
    """Negative, huge and meaningless strides; axes of one; ten axes."""
    function = BY_NAME[name]
    arrays = draw(name, batch=1, event=(1,) if "features" not in name else (7,), latent=1)
    expected = function.public(*arrays.values())
    for stride in (1 << 40, -(1 << 40), 3, 0):
        strided = [
            np.lib.stride_tricks.as_strided(
                a,
                a.shape,
                [stride if n == 1 else s for n, s in zip(a.shape, a.strides, strict=True)],
            )
            for a in arrays.values()
        ]
        for mine, theirs in zip(flatten(function.public(*strided)), flatten(expected), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "name", [n for n in WITH_X if "features" not in n and n not in WITH_SAMPLES]
)
def test_ten_axes(name):
    function = BY_NAME[name]
    event = (2, 1, 2, 1, 2, 1, 2, 2, 2, 2)
    arrays = draw(name, batch=2, event=event)
    views = [
        np.pad(a, [(0, 0)] + [(1, 1)] * (a.ndim - 1))[(slice(None), *[slice(1, -1)] * (a.ndim - 1))]
        if a.ndim > 2
        else a
        for a in arrays.values()
    ]
    expected = function.reference(*arrays.values())
    scales = function.scales(arrays.values())
    assert_same(function.public(*views), expected, np.float64, scales)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", [n for n in NAMES if "optimal" not in n])
def test_nothing_to_add_up(name, reduction, dtype):
    """Events or latents of no elements count zero, as contiguous arrays and as views."""
    function = BY_NAME[name]
    options = {"reduction": reduction} if function.has_reduction else {}
    for event, latent in [((7,), 0), ((0,), 3), ((0,), 0), ((4, 0), 2), ((0, 4), 2)]:
        if "features" in name and event != (7,):
            continue
        arrays = draw(name, dtype, event=event, latent=latent)
        views = []
        for a in arrays.values():
            room = np.zeros([n + 3 for n in a.shape], dtype)
            views.append(room[tuple(slice(0, n) for n in a.shape)])
            views[-1][...] = a
        expected = function.reference(*arrays.values(), **options)
        scales = function.scales(arrays.values(), **options)
        for inputs in (arrays.values(), views):
            assert_same(function.public(*inputs, **options), expected, dtype, scales)


@pytest.mark.parametrize("granularity", ["dimension", "sample", "total"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_free_bits_of_no_dimensions(granularity, reduction):
    empty = np.zeros((4, 5))[:, :0]
    bits = fastelbo.FreeBits(0.5, granularity=granularity)
    got = fastelbo.kl_standard_normal_and_grad(empty, empty, free_bits=bits, reduction=reduction)
    expected = reference.kl_standard_normal(empty, empty, free_bits=bits, reduction=reduction)
    np.testing.assert_array_equal(got[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_other_dtypes(name):
    """float16 counts as float32, integers and longdouble as float64, in every input."""
    function = BY_NAME[name]
    for kind, computed in [
        (np.float16, np.float32),
        (np.longdouble, np.float64),
        (np.int8, np.float64),
        (np.uint16, np.float64),
        (np.int64, np.float64),
        (np.bool_, np.float64),
    ]:
        arrays = draw(name)
        for key, a in arrays.items():
            if np.dtype(kind).kind == "b":
                a = a > 0
            elif np.dtype(kind).kind in "iu":
                low = 1 if key in POSITIVE else 0
                a = np.clip(np.round(np.abs(a)), low, 1 if "Bernoulli" in name else 3)
            arrays[key] = a.astype(kind)
        if "optimal" in name:
            arrays["x"] = (
                arrays["x"].astype(arrays["x"].dtype) ^ 1 if kind is np.bool_ else arrays["x"]
            )
        got = function.public(*arrays.values())
        expected = function.reference(*arrays.values())
        scales = function.scales(arrays.values())
        assert_same(got, expected, computed, scales)
        for leaf in flatten(got):
            if isinstance(leaf, np.ndarray) and leaf.ndim > 1:
                assert leaf.dtype == computed


# Memory -----------------------------------------------------------------------------------------


def peak_of(f):
    """Bytes that NumPy and Python allocate at most during f()."""
    f()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = f()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    del result
    return peak


BATCH, DIM = 60, 3000
#: Room for results of the batch and a few Python objects; an input is DIM times a row.
SMALL = 16 * 8 * BATCH + 20_000
SPACIOUS = {
    "contiguous": lambda a: a,
    "rows": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 3)])[..., :-3],
    "rows backwards": lambda a: a[::-1],
    "every third row": lambda a: np.repeat(a, 3, axis=0)[::3],
    "one row for all": lambda a: np.broadcast_to(a[0], a.shape),
}


@pytest.mark.parametrize("name", [n for n in NAMES if "features" not in n])
def test_no_copies(name, dtype):
    """Nothing the size of an input is allocated but what is returned, and that once."""
    function = BY_NAME[name]
    latent = 3 if "elbo" in name else DIM
    arrays = draw(name, dtype, batch=BATCH, event=(DIM,), latent=latent)
    for view, spacious in SPACIOUS.items():
        if "optimal" in name and view == "one row for all":
            continue  # the error would be the same everywhere: fine, and nothing new
        given = [spacious(a) for a in arrays.values()]
        for reduction in ("mean", "none") if function.has_reduction else (None,):
            options = {"reduction": reduction} if reduction else {}
            returned = sum(
                leaf.nbytes
                for leaf in flatten(function.public(*given, **options))
                if isinstance(leaf, np.ndarray) and leaf.ndim > 1
            )
            peak = peak_of(lambda: function.public(*given, **options))  # noqa: B023
            assert peak < returned + SMALL, (view, reduction)


@pytest.mark.parametrize("name", [n for n in WITH_OUT if "features" not in n])
def test_out_needs_no_memory(name, dtype):
    function = BY_NAME[name]
    latent = 3 if "elbo" in name else DIM
    arrays = draw(name, dtype, batch=BATCH, event=(DIM,), latent=latent)
    outs = [np.empty(s, dtype) for s in function.out_shapes(arrays).values()]
    z = BATCH * 3 * 8 if "elbo" in name else 0
    out = function.as_out(outs)
    assert peak_of(lambda: function.public(*arrays.values(), out=out)) < SMALL + z


def as_images(a):
    """The axis of DIM features, if any, as pictures that are cropped."""
    if DIM not in a.shape:
        return a
    at = a.shape.index(DIM)
    pictures = a.reshape(*a.shape[:at], 60, 50, *a.shape[at + 1 :])
    return pictures[(slice(None),) * at + (slice(4, 56), slice(4, 46))]


@pytest.mark.parametrize("x_dtype", ["?", "u1", "i1", "u2", "i4", "i8", "f4"])
@pytest.mark.parametrize("name", [n for n in WITH_X if "and_grad" not in n and "features" not in n])
def test_x_is_never_converted(name, x_dtype):
    function = BY_NAME[name]
    arrays = draw(name, batch=BATCH, event=(DIM,))
    arrays["x"] = (arrays["x"] > 0.5).astype(x_dtype)
    assert peak_of(lambda: function.public(*arrays.values())) < SMALL
    if "Mixture" in name:
        return  # its parameters may be, where the event is no single run
    images = [as_images(a) for a in arrays.values()]
    assert peak_of(lambda: function.public(*images)) < SMALL


# out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_OUT)
def test_out(name, dtype):
    function = BY_NAME[name]
    arrays = draw(name, dtype)
    shapes = function.out_shapes(arrays)
    expected = [a for a in flatten(function.public(*arrays.values())) if np.ndim(a) > 1]
    expected = expected[-len(shapes) :]
    outs = [np.full(s, 77, dtype) for s in shapes.values()]
    got = flatten(function.public(*arrays.values(), out=function.as_out(outs)))
    got = [a for a in got if np.ndim(a) > 1][-len(shapes) :]
    for mine, out, wanted in zip(got, outs, expected, strict=True):
        assert mine is out or np.shares_memory(mine, out)
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_errors(name, dtype):
    """Each wrong `out` is named, and nothing has been written by then."""
    function = BY_NAME[name]
    arrays = draw(name, dtype)
    shapes = function.out_shapes(arrays)
    other = np.float32 if dtype == np.float64 else np.float64
    for position, (key, shape) in enumerate(shapes.items()):
        outs = [np.full(s, 77, dtype) for s in shapes.values()]
        read_only = np.full(shape, 77, dtype)
        read_only.flags.writeable = False
        taken = next(k for k, a in arrays.items() if a.shape == shape)
        overlapping = arrays[taken]
        room = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
        wrong = {
            "dtype": (np.full(shape, 77, other), TypeError),
            "byte order": (np.full(shape, 77, dtype.newbyteorder()), TypeError),
            "shape": (np.full((shape[0], shape[1] + 1), 77, dtype), ValueError),
            "axes": (np.full((1, *shape), 77, dtype), ValueError),
            "list": (np.zeros(shape).tolist(), TypeError),
            "read-only": (read_only, ValueError),
            "fortran": (np.full(shape, 77, dtype, order="F"), ValueError),
            "strided": (room[..., ::2], ValueError),
            "unaligned": (lay_out(np.full(shape, 77, dtype), "unaligned", None), ValueError),
            "overlap": (overlapping, ValueError),
        }
        for case, (bad, error) in wrong.items():
            chosen = [*outs[:position], bad, *outs[position + 1 :]]
            copies = {k: a.copy() for k, a in arrays.items()}
            label = "out" if isinstance(function.outs, str) else f"out.{key}"
            with pytest.raises(error, match=label):
                function.public(*arrays.values(), out=function.as_out(chosen))
            for k, a in arrays.items():
                np.testing.assert_array_equal(a, copies[k], err_msg=case)
            for i, a in enumerate(outs):
                if i != position:
                    np.testing.assert_array_equal(a, 77, err_msg=case)


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_may_not_touch_an_input_that_is_converted(name):
    """The caller's own array counts, not the copy that a pass would read."""
    function = BY_NAME[name]
    for which in function.inputs:
        arrays = draw(name)
        shapes = function.out_shapes(arrays)
        shape = next(iter(shapes.values()))
        room = np.zeros(4 * max(a.size for a in arrays.values()))
        size = arrays[which].size
        view = room[: 2 * size : 2].reshape(arrays[which].shape)
        view[...] = arrays[which]
        arrays[which] = view
        outs = [np.empty(s) for s in shapes.values()]
        outs[0] = room[: int(np.prod(shape))].reshape(shape)
        with pytest.raises(ValueError, match="overlaps"):
            function.public(*arrays.values(), out=function.as_out(outs))


@pytest.mark.parametrize("name", [f.name for f in FUNCTIONS if len(f.outs) > 1 and f.outs != "out"])
def test_outs_may_not_overlap_each_other(name):
    function = BY_NAME[name]
    arrays = draw(name, event=(3,) if "features" not in name else (7,))
    shapes = list(function.out_shapes(arrays).values())
    outs = [np.empty(s) for s in shapes]
    last = max(i for i, s in enumerate(shapes) if shapes.count(s) > 1)
    outs[last] = outs[shapes.index(shapes[last])]
    with pytest.raises(ValueError, match="overlaps"):
        function.public(*arrays.values(), out=function.as_out(outs))


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_are_no_numbers(name):
    """Complex, text, objects, dates, records, masks, ragged lists, nothing: named."""
    function = BY_NAME[name]
    for position, which in enumerate(function.inputs):
        arrays = list(draw(name).values())
        shape = arrays[position].shape
        masked = np.ma.masked_array(np.zeros(shape), np.zeros(shape, bool))
        bad = [
            np.zeros(shape, complex),
            np.full(shape, "1.0"),
            np.full(shape, b"1"),
            np.zeros(shape, object),
            np.zeros(shape, "M8[s]"),
            np.zeros(shape, "m8[s]"),
            np.zeros(shape, "f8,f8"),
            masked,
            [[1.0], [1.0, 2.0]],
            "text",
            {"a": 1},
            object(),
        ]
        for wrong in bad:
            given = [*arrays[:position], wrong, *arrays[position + 1 :]]
            with pytest.raises(TypeError, match=which):
                function.public(*given)
        if which != "noise":
            with pytest.raises((TypeError, ValueError), match=which):
                function.public(*[*arrays[:position], None, *arrays[position + 1 :]])


#: Parameters after the first: they broadcast to it.
BROADCAST = ("log_scale", "log_df", "beta", "theta", "zero_logits")


def broadcasts(shape, wanted):
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit(name):
    function = BY_NAME[name]
    for position, which in enumerate(function.inputs):
        arrays = list(draw(name).values())
        good = arrays[position]
        wrong = [good[:-1], good[:, :-1], good[0], good[..., None], np.vstack([good, good])]
        wrong += [np.float64(1.0), good[:0], good[None]]
        for bad in wrong:
            if which in BROADCAST and broadcasts(bad.shape, good.shape):
                continue
            if which == function.inputs[1] and bad.shape == (1, *good.shape) and "log_prob" in name:
                continue  # a sample, and below, samples of scalars
            if which == "x" and bad.shape == good[0].shape and "log_prob" in name:
                continue
            if which == "grad_z" and bad.ndim == 3 and "backward" in name:
                continue  # samples; then it is z that does not fit
            with pytest.raises(ValueError, match=r"shape|broadcast|empty"):
                function.public(*[*arrays[:position], bad, *arrays[position + 1 :]])


@pytest.mark.parametrize("name", NAMES)
def test_empty_batches(name):
    function = BY_NAME[name]
    with pytest.raises(ValueError, match="empty batch"):
        function.public(*(a[:0] for a in draw(name).values()))


@pytest.mark.parametrize("name", [f.name for f in FUNCTIONS if f.has_reduction])
def test_unknown_reduction(name):
    arrays = draw(name).values()
    for reduction in ["median", "", None, 0, b"mean", ["mean"]]:
        with pytest.raises(ValueError, match="reduction"):
            BY_NAME[name].public(*arrays, reduction=reduction)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options(name):
    with pytest.raises(TypeError, match="speed"):
        BY_NAME[name].public(*draw(name).values(), speed="fast")
    for wrong, error in [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError)]:
        with pytest.raises(error, match="num_threads"):
            BY_NAME[name].public(*draw(name).values(), num_threads=wrong)


# Any input at all -------------------------------------------------------------------------------

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
    function = BY_NAME[name]
    batch, *sides = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    event = (7,) if "features" in name else tuple(n - 1 if n == 6 else n for n in sides)
    latent = data.draw(st.sampled_from([0, 1, 2, 3, 33]))
    model = function.draw(np.random.default_rng(0), np.float64, batch, event, latent)
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
