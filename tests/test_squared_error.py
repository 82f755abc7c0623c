"""SquaredError, and with it what all likelihoods share: shapes, dtypes of x, reductions."""

import math

import numpy as np
import pytest

from fastelbo import SquaredError, reference
from fastelbo._catalogue import CASES, REDUCTIONS, flatten
from tests.cases import check
from tests.conftest import DTYPES, assert_close, together

X_DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "g"]


def draw(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("x_dtype", X_DTYPES)
@together(reduction=REDUCTIONS, x_scale=[1.0, 1 / 255, 3.0], dtype=DTYPES)
def test_dtypes_of_x(x_dtype, x_scale, reduction, dtype):
    """x of any real dtype next to x_recon of either; float64 anywhere makes it float64."""
    rng = np.random.default_rng(1)
    x_dtype = np.dtype(x_dtype)
    low = 0 if x_dtype.kind in "?bu" else -100
    x = rng.integers(low, 2 if x_dtype.kind == "b" else 120, (9, 5, 70)).astype(x_dtype)
    x_recon = (x_scale * 60 * rng.normal(size=x.shape)).astype(dtype)
    wide = x_dtype.kind == "f" and x_dtype.itemsize >= 8
    computed = np.dtype(np.float64) if wide else dtype
    public, ref = SquaredError(x_scale=x_scale), reference.SquaredError(x_scale=x_scale)
    got = public.log_prob_and_grad(x, x_recon, reduction=reduction)
    expected = ref.log_prob_and_grad(x, x_recon, reduction=reduction)
    assert got[1][0].dtype == computed
    scales = CASES["SquaredError_and_grad"].magnitudes(
        x_scale * x.astype(np.float64), x_recon.astype(np.float64), reduction=reduction
    )
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), computed, scales)
    value = public.log_prob(x, x_recon, reduction=reduction)
    assert_close(value, expected[0], computed, scales[0])


@pytest.mark.parametrize("x_dtype", ["u4", "i4", "u8", "i8"])
def test_large_integers(x_dtype, dtype):
    info = np.iinfo(x_dtype)
    x = np.array([[info.min, info.max // 4, info.max // 33, 2**24 + 1]], x_dtype)
    x_recon = np.array([[0.5, 1.0, -1e6, 1e3]], dtype)
    check("SquaredError_and_grad", [x, x_recon], dtype)


LINE = 64  # bytes


def placed(values, begins):
    """A copy that begins so many elements after a cache line, between two lines of 7."""
    room = np.full(values.size + 4 * LINE, 7, values.dtype)
    first = LINE + -room.ctypes.data % LINE // values.itemsize + begins
    copy = room[first : first + values.size].reshape(values.shape)
    copy[...] = values
    assert copy.ctypes.data % LINE == begins * values.itemsize
    return copy, (room[first - LINE : first], room[first + values.size :][:LINE])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("apart", [(0, 0), (1, 3), (0, 5), (7, 0)])
def test_no_bit_depends_on_where_arrays_begin(apart, threads, dtype):
    likelihood = SquaredError()
    x, x_recon = draw((3, 4096 + 80), dtype)  # several units of whole vectors, and a rest
    options = {"reduction": "sum", "num_threads": threads}
    value, (gradient,) = likelihood.log_prob_and_grad(
        placed(x, 0)[0], placed(x_recon, 0)[0], out=(placed(x, 0)[0],), **options
    )
    of_a_line = LINE // x.itemsize
    for begins in range(of_a_line):
        of_x, _ = placed(x, begins)
        of_recon, _ = placed(x_recon, (begins + apart[0]) % of_a_line)
        out, beside = placed(x, (begins + apart[1]) % of_a_line)
        assert likelihood.log_prob(of_x, of_recon, **options) == value
        got = likelihood.log_prob_and_grad(of_x, of_recon, out=(out,), **options)
        assert got[0] == value
        np.testing.assert_array_equal(got[1][0], gradient)
        np.testing.assert_array_equal(beside, 7)


def test_by_hand(dtype):
    x, x_recon = np.array([[1, 2], [3, 4]], dtype), np.array([[1, 0], [0, 4.5]], dtype)
    value, (grad,) = SquaredError().log_prob_and_grad(x, x_recon)
    assert value == -6.625
    np.testing.assert_array_equal(grad, [[0.0, 2.0], [3.0, -0.5]])
    rows = SquaredError().log_prob(x, x_recon, reduction="none")
    np.testing.assert_array_equal(rows, [-4.0, -9.25])
    assert SquaredError().log_prob(x, x_recon, reduction="sum") == -13.25


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    info = np.finfo(dtype)
    values = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, info.max, -info.max, 2 * info.max**0.5]
    values += [info.tiny, info.smallest_subnormal, info.tiny**0.5]
    x, x_recon = (np.ravel(a)[:, None].astype(dtype) for a in np.meshgrid(values, values))
    rows, (grad,) = SquaredError().log_prob_and_grad(x, x_recon, reduction="none")
    with np.errstate(all="ignore"):
        plain, plain_grad = -((x - x_recon) ** 2)[:, 0], 2 * (x - x_recon)
    assert_close(rows, plain, dtype)
    assert_close(grad, plain_grad, dtype)


@pytest.mark.parametrize(
    ("x_scale", "error"),
    [
        (0.0, ValueError),
        (-1.0, ValueError),
        (np.inf, ValueError),
        (np.nan, ValueError),
        ("big", TypeError),
        (None, TypeError),
        (1j, TypeError),
    ],
)
def test_x_scale_errors(x_scale, error):
    with pytest.raises(error, match="x_scale"):
        SquaredError(x_scale=x_scale)


def test_parameters_are_counted():
    with pytest.raises(TypeError, match="x_recon"):
        SquaredError().log_prob([[1.0]])
    with pytest.raises(TypeError, match="x_recon"):
        SquaredError().log_prob([[1.0]], [[1.0]], [[1.0]])


@pytest.mark.slow
def test_hundred_million_elements():
    """uint8 images against float32, 1e8 elements: still 1e-6, in less than 1 GB."""
    rows, columns = 1000, 100_000
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (rows, columns), dtype=np.uint8)
    x_recon = np.empty((rows, columns), np.float32)
    for row in x_recon:
        rng.random(out=row, dtype=np.float32)
    exact = np.array(
        [math.fsum((x[i] * (1 / 255) - x_recon[i].astype(np.float64)) ** 2) for i in range(rows)]
    )
    likelihood = SquaredError(x_scale=1 / 255)
    assert_close(likelihood.log_prob(x, x_recon, reduction="sum"), -math.fsum(exact), np.float32)
    assert_close(likelihood.log_prob(x, x_recon, reduction="none"), -exact, np.float32)
