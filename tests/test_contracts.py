"""What holds for every public function: memory, layouts, `out`, errors, and any input at all."""

import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from fastelbo._catalogue import CASES, REDUCTIONS, flatten
from fastelbo._catalogue.likelihoods import positive
from tests.conftest import DTYPES, LAYOUTS, assert_close, lay_out, together
from tests.importance import peak_of

NAMES = [name for name, case in CASES.items() if case.batched]
WITH_OUT = [name for name in NAMES if CASES[name].outs]
WITH_X = [name for name in NAMES if "x" in CASES[name].inputs and not CASES[name].fixed]
WITH_SAMPLES = [name for name in NAMES if any("K" in axes for axes in CASES[name].inputs.values())]
#: Of those whose inputs may lie in any one layout, too.
ANYWHERE = [name for name in CASES if name != "elbo_from_buffers"]
ANY_EVENT = [name for name in NAMES if not CASES[name].fixed]


def draw(name, dtype=np.float64, **extents):
    return CASES[name].draw(7, dtype, **extents)


def out_shapes(name):
    return CASES[name].out_shapes(draw(name))


def assert_same(got, expected, dtype, scales):
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, tuple(scales))


# Layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANYWHERE)
@together(dtype=DTYPES)
def test_layouts(name, dtype, tmp_path):
    """Every layout gives the numbers of the contiguous one; no input is written to."""
    function = CASES[name]
    arrays = draw(name, dtype)
    scales = function.scales(arrays.values())
    for layout in LAYOUTS:
        laid = [lay_out(a, layout, tmp_path) for a in arrays.values()]
        roots = [a.base if isinstance(getattr(a, "base", None), np.ndarray) else a for a in laid]
        before = [a.tobytes() if isinstance(a, np.ndarray) else repr(a) for a in roots]
        got = function.public(*laid)
        computed = np.dtype(np.float64) if layout == "list" else dtype
        plain = (a if a.dtype == bool else a.astype(computed) for a in arrays.values())
        expected = function.public(*plain)
        assert_same(got, expected, computed, scales)
        for mine, theirs in zip(flatten(got), flatten(expected), strict=True):
            assert np.asarray(mine).dtype == np.asarray(theirs).dtype, layout
        after = [a.tobytes() if isinstance(a, np.ndarray) else repr(a) for a in roots]
        assert before == after, layout


@pytest.mark.parametrize("name", WITH_X)
@together(reduction=["mean", "none"], dtype=DTYPES)
def test_cropped_events(name, reduction, dtype):
    """Events of two and three axes, cropped, flipped, transposed or one sample for all."""
    function = CASES[name]
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
    arrays = function.draw(rng, dtype, B=3, D=event)
    options = {"reduction": reduction}
    expected = function.reference(*arrays.values(), **options)
    scales = function.scales(arrays.values(), **options)
    for crop in crops.values():
        views = [crop(a) if a.shape[1:] == event else a for a in arrays.values()]
        assert_same(function.public(*views, **options), expected, dtype, scales)
        only_x = [crop(arrays["x"]), *list(arrays.values())[1:]]
        assert_same(function.public(*only_x, **options), expected, dtype, scales)


@pytest.mark.parametrize("name", NAMES)
@together(axis=[0, 1], dtype=DTYPES)
def test_broadcast_inputs(name, axis, dtype):
    """Strides of zero, in one input at a time, and next to another dtype."""
    function = CASES[name]
    for which in function.inputs:
        for other in (np.float32, np.float64):
            arrays = draw(name, dtype)
            if axis >= arrays[which].ndim or (which == "x" and "optimal" in name):
                continue
            first = np.take(arrays[which], [0], axis=axis)
            arrays[which] = np.broadcast_to(first.astype(other), arrays[which].shape)
            expected = function.reference(*arrays.values())
            got = function.public(*arrays.values())
            both = np.dtype(np.float32) if other == np.float32 else dtype
            assert_same(got, expected, both, function.scales(arrays.values()))


@pytest.mark.parametrize("name", NAMES)
def test_many_axes_and_odd_strides(name):
    """Negative, huge and meaningless strides; axes of one; ten axes."""
    function = CASES[name]
    arrays = draw(name, B=1, D=(1,), L=1)
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


@pytest.mark.parametrize("name", [n for n in WITH_X if n in ANY_EVENT and n not in WITH_SAMPLES])
def test_ten_axes(name):
    function = CASES[name]
    event = (2, 1, 2, 1, 2, 1, 2, 2, 2, 2)
    arrays = draw(name, B=2, D=event)
    views = [
        np.pad(a, [(0, 0)] + [(1, 1)] * (a.ndim - 1))[(slice(None), *[slice(1, -1)] * (a.ndim - 1))]
        if a.ndim > 2
        else a
        for a in arrays.values()
    ]
    expected = function.reference(*arrays.values())
    scales = function.scales(arrays.values())
    assert_same(function.public(*views), expected, np.float64, scales)


@pytest.mark.parametrize("name", [n for n in NAMES if "optimal" not in n])
@together(reduction=["mean", "none"], dtype=DTYPES)
def test_nothing_to_add_up(name, reduction, dtype):
    """Events or latents of no elements count zero, as contiguous arrays and as views."""
    function = CASES[name]
    options = {"reduction": reduction} if function.has_reduction else {}
    for event, latent in [((7,), 0), ((0,), 3), ((0,), 0), ((4, 0), 2), ((0, 4), 2)]:
        if CASES[name].fixed and event != (7,):
            continue
        arrays = draw(name, dtype, D=event, L=latent)
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
    """float16 counts as float32 (but see test_half.py), integers and longdouble as float64."""
    function = CASES[name]
    for kind, computed in [
        (np.float16, np.float32),
        (np.longdouble, np.float64),
        (np.int8, np.float64),
        (np.uint16, np.float64),
        (np.int64, np.float64),
        (np.bool_, np.float64),
    ]:
        if kind is np.float16 and function.halves:
            continue
        arrays = draw(name)
        for key, a in arrays.items():
            if np.dtype(kind).kind == "b":
                a = a > 0
            elif np.dtype(kind).kind in "iu":
                low = 1 if function.draws.get(key) is positive else 0
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


BATCH, DIM = 60, 1200
#: Room for results of the batch and a few Python objects; an input is DIM times a row.
SMALL = 16 * 8 * BATCH + 20_000
SPACIOUS = {
    "contiguous": lambda a: a,
    "rows": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 3)])[..., :-3],
    "rows backwards": lambda a: a[::-1],
    "every third row": lambda a: np.repeat(a, 3, axis=0)[::3],
    "one row for all": lambda a: np.broadcast_to(a[0], a.shape),
}


@pytest.mark.parametrize("name", ANY_EVENT)
@together(dtype=DTYPES)
def test_no_copies(name, dtype):
    """Nothing the size of an input is allocated but what is returned, and that once."""
    function = CASES[name]
    latent = 3 if "elbo" in name else DIM
    arrays = draw(name, dtype, B=BATCH, D=(DIM,), L=latent)
    for view, spacious in SPACIOUS.items():
        if "optimal" in name and view == "one row for all":
            continue  # the error would be the same everywhere: fine, and nothing new
        given = [spacious(a) for a in arrays.values()]
        for reduction in ("mean", "none") if function.has_reduction else (None,):
            options = {"reduction": reduction} if reduction else {}
            results = []

            def call(given=given, options=options, results=results):
                results[:] = flatten(function.public(*given, **options))

            peak = peak_of(call)
            returned = sum(np.asarray(leaf).nbytes for leaf in results if np.ndim(leaf) > 1)
            assert peak < returned + SMALL, (view, reduction)


@pytest.mark.parametrize("name", [n for n in WITH_OUT if n in ANY_EVENT])
@together(dtype=DTYPES)
def test_out_needs_no_memory(name, dtype):
    function = CASES[name]
    latent = 3 if "elbo" in name else DIM
    arrays = draw(name, dtype, B=BATCH, D=(DIM,), L=latent)
    outs = [np.empty(s, dtype) for s in function.out_shapes(arrays).values()]
    z = BATCH * 3 * 8 if "elbo" in name else 0
    out = function.as_out(outs)
    assert peak_of(lambda: function.public(*arrays.values(), out=out)) < SMALL + z


def as_images(a):
    """The axis of DIM features, if any, as pictures that are cropped."""
    if DIM not in a.shape:
        return a
    at = a.shape.index(DIM)
    pictures = a.reshape(*a.shape[:at], 40, 30, *a.shape[at + 1 :])
    return pictures[(slice(None),) * at + (slice(4, 36), slice(4, 26))]


@pytest.mark.parametrize("name", [n for n in WITH_X if "and_grad" not in n and n in ANY_EVENT])
@together(x_dtype=["?", "u1", "i1", "u2", "i4", "i8", "f2", "f4"])
def test_x_is_never_converted(name, x_dtype):
    function = CASES[name]
    arrays = draw(name, B=BATCH, D=(DIM,))
    arrays["x"] = (arrays["x"] > 0.5).astype(x_dtype)
    assert peak_of(lambda: function.public(*arrays.values())) < SMALL
    if "Mixture" in name:
        return  # its parameters may be, where the event is no single run
    images = [as_images(a) for a in arrays.values()]
    assert peak_of(lambda: function.public(*images)) < SMALL


# out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ANYWHERE if CASES[n].outs and CASES[n].takes_out])
@together(dtype=DTYPES)
def test_out(name, dtype):
    """Gradients are written into all that is given, or the last; an input is refused."""
    function = CASES[name]
    arrays = draw(name, dtype)
    shapes = list(function.out_shapes(arrays).values())

    def written(**options):
        result = flatten(function.public(*arrays.values(), **options))
        return result[-len(shapes) :] if isinstance(function.outs, tuple) else result[:1]

    expected = written()
    outs = [np.full(shape, 77, dtype) for shape in shapes]
    for given in (outs, [*[None] * (len(outs) - 1), np.full(shapes[-1], 77, dtype)]):
        got = written(out=function.as_out(given))
        for mine, out, wanted in zip(got, given, expected, strict=True):
            assert out is None or np.shares_memory(mine, out)
            np.testing.assert_array_equal(mine, wanted)
    for i, shape in enumerate(shapes):
        for which, a in arrays.items():
            copied = function.sparse and which == "x"
            if a.shape == shape and a.dtype == dtype and not copied:
                chosen = [*outs[:i], a, *outs[i + 1 :]]
                with pytest.raises(ValueError, match="overlaps"):
                    function.public(*arrays.values(), out=function.as_out(chosen))


@pytest.mark.parametrize("name", WITH_OUT)
@together(dtype=DTYPES)
def test_out_errors(name, dtype):
    """Each wrong `out` is named, and nothing has been written by then."""
    function = CASES[name]
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
    function = CASES[name]
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


@pytest.mark.parametrize(
    "name", [n for n in WITH_OUT if len(CASES[n].outs) > 1 and CASES[n].outs != "out"]
)
def test_outs_may_not_overlap_each_other(name):
    function = CASES[name]
    arrays = draw(name, D=(3,))
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
    function = CASES[name]
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
BROADCAST = ("concentration", "log_scale", "log_df", "beta", "theta", "zero_logits")


def broadcasts(shape, wanted):
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit(name):
    function = CASES[name]
    for position, which in enumerate(function.inputs):
        arrays = list(draw(name).values())
        good = arrays[position]
        fewer = good[:, :-1] if good.ndim > 1 else good[1:]
        wrong = [good[:-1], fewer, good[0], good[..., None], np.vstack([good, good])]
        wrong += [np.float64(1.0), good[:0], good[None]]
        for bad in wrong:
            if which in BROADCAST and broadcasts(bad.shape, good.shape):
                continue
            first = list(function.inputs)[1]
            if function.likelihood and which == first and bad.shape == (1, *good.shape):
                continue  # a sample, and below, samples of scalars
            if function.likelihood and which == "x" and bad.shape == good[0].shape:
                continue
            if which == "grad_z" and bad.ndim == 3 and "backward" in name:
                continue  # samples; then it is z that does not fit
            with pytest.raises(ValueError, match=r"shape|broadcast|empty"):
                function.public(*[*arrays[:position], bad, *arrays[position + 1 :]])


@pytest.mark.parametrize("name", NAMES)
def test_empty_batches(name):
    function = CASES[name]
    with pytest.raises(ValueError, match="empty batch"):
        function.public(*(a[:0] for a in draw(name).values()))


@pytest.mark.parametrize("name", [n for n in NAMES if CASES[n].has_reduction])
def test_unknown_reduction(name):
    arrays = draw(name).values()
    for reduction in ["median", "", None, 0, b"mean", ["mean"]]:
        error = ValueError if isinstance(reduction, str) else TypeError
        with pytest.raises(error, match="reduction"):
            CASES[name].public(*arrays, reduction=reduction)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options(name):
    with pytest.raises(TypeError, match="speed"):
        CASES[name].public(*draw(name).values(), speed="fast")
    for wrong, error in [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError)]:
        with pytest.raises(error, match="num_threads"):
            CASES[name].public(*draw(name).values(), num_threads=wrong)
