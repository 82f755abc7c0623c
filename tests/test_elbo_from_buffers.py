"""elbo_from_buffers: flat memory of any kind, never copied, never written."""

import ctypes
import mmap
import tracemalloc
from array import array

import numpy as np
import pytest

from fastelbo import Bernoulli, SquaredError, elbo, elbo_from_buffers

BATCH, DIM, LATENT = 5, 7, 3


def draw(dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, DIM), (BATCH, LATENT), (BATCH, LATENT), (BATCH, DIM)]
    return [rng.normal(size=s).astype(dtype) for s in shapes]


def as_mmap(a):
    memory = mmap.mmap(-1, a.nbytes)
    memory[:] = a.tobytes()
    return memory


def as_ctypes(a):
    kind = ctypes.c_float if a.itemsize == 4 else ctypes.c_double
    return (kind * a.size)(*a.ravel().tolist())


BUFFERS = {
    "bytes": lambda a: a.tobytes(),
    "bytearray": lambda a: bytearray(a.tobytes()),
    "memoryview": lambda a: memoryview(a.tobytes()),
    "mmap": as_mmap,
    "array": lambda a: array(a.dtype.char, a.ravel().tolist()),
    "memoryview of numbers": lambda a: memoryview(a.ravel()),
    "memoryview of rows": memoryview,
    "ndarray": lambda a: a,
    "flat ndarray": np.ravel,
    "ctypes": as_ctypes,
}


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_same_as_elbo(kind, reduction, dtype):
    arrays = draw(dtype)
    buffers = [BUFFERS[kind](a) for a in arrays]
    before = [bytes(memoryview(b)) for b in buffers]
    options = {"reduction": reduction, "rng": 4, "beta": 0.5}
    got = elbo_from_buffers(*buffers, BATCH, DIM, LATENT, dtype=dtype, **options)
    for mine, theirs in zip(got, elbo(*arrays, **options), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [bytes(memoryview(b)) for b in buffers] == before
    if kind not in ("bytes", "bytearray", "memoryview", "mmap"):  # they say what they hold
        again = elbo_from_buffers(*buffers, BATCH, DIM, LATENT, **options)
        np.testing.assert_array_equal(again.elbo, got.elbo)


def test_bytes_of_images(dtype):
    x = np.random.default_rng(0).integers(0, 256, (BATCH, DIM), dtype=np.uint8)
    _, mu, logvar, logits = draw(dtype)
    likelihood = Bernoulli(x_scale=1 / 255)
    buffers = [a.tobytes() for a in (x, mu, logvar, logits)]
    got = elbo_from_buffers(
        *buffers, BATCH, DIM, LATENT, dtype=dtype, x_dtype="uint8", likelihood=likelihood
    )
    assert got == elbo(x, mu, logvar, logits, likelihood=likelihood)
    mixed = elbo_from_buffers(
        *[x, *buffers[1:]], BATCH, DIM, LATENT, dtype=dtype, x_dtype=np.uint8, likelihood=likelihood
    )
    assert mixed == got


def test_nothing_is_copied():
    batch, dim = 100, 20_000
    x = bytes(batch * dim * 4)
    latents = bytes(batch * 4)
    arguments = (x, latents, latents, x, batch, dim, 1)
    elbo_from_buffers(*arguments, dtype="float32", num_threads=1)
    tracemalloc.start()
    try:
        elbo_from_buffers(*arguments, dtype="float32", num_threads=1)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_no_input_dimension():
    assert elbo_from_buffers(b"", bytes(16), bytes(16), b"", 2, 0, 1, dtype="f8").elbo == 0.0


GOOD = [bytes(16), bytes(8), bytes(8), bytes(16), 1, 2, 1]


def replaced(position, value):
    return [*GOOD[:position], value, *GOOD[position + 1 :]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (replaced(0, bytes(15)), {}, ValueError, "x holds 15 bytes"),
        (replaced(1, bytes(16)), {}, ValueError, "mu"),
        (replaced(2, b""), {}, ValueError, "logvar"),
        (replaced(3, bytes(24)), {}, ValueError, "x_recon"),
        (replaced(0, [1.0, 2.0]), {}, TypeError, "x must be a buffer"),
        (replaced(0, "text"), {}, TypeError, "x must be a buffer"),
        (replaced(0, None), {}, TypeError, "x must be a buffer"),
        (replaced(0, memoryview(bytes(32))[::2]), {}, ValueError, "x is not contiguous"),
        (replaced(0, array("f", [1, 2, 3, 4])), {}, TypeError, "x holds float32"),
        (replaced(0, np.zeros(2, complex)), {"dtype": None}, TypeError, "x"),
        (replaced(0, memoryview(np.zeros(2, "i4,f4"))), {}, TypeError, "x"),
        (GOOD, {"dtype": None}, TypeError, "dtype"),
        (GOOD, {"dtype": "nonsense"}, TypeError, "dtype"),
        (GOOD, {"dtype": "complex64"}, TypeError, "dtype"),
        (GOOD, {"dtype": object}, TypeError, "dtype"),
        (GOOD, {"dtype": "S8"}, TypeError, "dtype"),
        (GOOD, {"x_dtype": "M8[s]"}, TypeError, "x_dtype"),
        (replaced(4, 0), {}, ValueError, "x holds|empty batch"),
        (replaced(4, -1), {}, ValueError, "batch_size"),
        (replaced(5, 2.0), {}, TypeError, "input_dim"),
        (replaced(6, "1"), {}, TypeError, "latent_dim"),
        (replaced(5, 2**70), {}, ValueError, "input_dim"),
        ([b"", b"", b"", b"", 0, 0, 0], {}, ValueError, "empty batch"),
        (GOOD, {"reduction": "median"}, ValueError, "reduction"),
    ],
)
def test_errors(arguments, options, error, match):
    with pytest.raises(error, match=match):
        elbo_from_buffers(*arguments, **{"dtype": "float64", **options})


def test_a_buffer_stays_alive():
    """A result does not depend on the buffers any more, nor hold them."""
    memory = as_mmap(np.ones(BATCH * DIM))
    zeros = bytes(8 * BATCH * LATENT)
    result = elbo_from_buffers(
        memory, zeros, zeros, memory, BATCH, DIM, LATENT, dtype="f8", likelihood=SquaredError()
    )
    memory.close()
    assert result.reconstruction == 0.0
