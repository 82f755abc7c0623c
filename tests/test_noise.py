"""The noise: known answers, the distribution, independence, and who draws what."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

import fastelbo
from fastelbo import _builds, reference
from tests.conftest import assert_close

vecmath = _builds.kernels("vecmath")
KEYS = [0, 1, 2**32 - 1, 2**32, 2**63 + 12345, 2**64 - 1]
DRAWS = 10_000_000


def normals(key, n, dtype, first_block=0):
    """Normals from 64 first_block on, at least n of them, straight from the kernel."""
    out = np.empty(-(-n // 64) * 64, dtype)
    vecmath.normals(key, first_block, out)
    return out[:n]


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def many(request):
    """Ten million draws as a user gets them; read-only."""
    zeros = np.zeros((DRAWS // 100, 100), request.param)
    z = fastelbo.reparameterize(zeros, zeros, rng=20260).ravel()
    z.flags.writeable = False
    return z


# Philox -----------------------------------------------------------------------------------------


def test_philox_known_answer():
    """The published vector of zeros; the others need words that are always zero here."""
    words = vecmath.philox(0, 0)[0]
    assert [f"{word:08x}" for word in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("key", [*KEYS, 0xA4093822_299F31D0])
@pytest.mark.parametrize("counter", [0, 1, 15, 16, 2**32 - 16, 2**32 - 3, 2**40 + 7, 2**64 - 16])
def test_philox_reference(key, counter):
    """The specification passes all published vectors; here, it on many counters and keys."""
    counters = [counter + i for i in range(16)]
    expected = reference.philox4x32(
        [[c & 0xFFFFFFFF, c >> 32, 0, 0] for c in counters], [key & 0xFFFFFFFF, key >> 32]
    )
    np.testing.assert_array_equal(np.array(vecmath.philox(counter, key), np.uint64), expected)


def test_philox_random_counters():
    rng = np.random.default_rng(0)
    for counter, key in rng.integers(0, 2**64 - 16, (200, 2), dtype=np.uint64).tolist():
        expected = reference.philox4x32(
            [counter & 0xFFFFFFFF, counter >> 32, 0, 0], [key % 2**32, key >> 32]
        )
        assert vecmath.philox(counter, key)[0] == expected.tolist()


def test_words_are_uniform():
    """Every bit of every word is set half of the time."""
    words = np.array([vecmath.philox(16 * i, 99) for i in range(4000)], np.uint32).reshape(-1, 4)
    bits = np.unpackbits(words.view(np.uint8), axis=1).mean(axis=0)
    assert abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(words))


# Normals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("n", [64, 128, 64 * 1001])
def test_normals_reference(key, n, dtype):
    assert_close(normals(key, n, dtype), reference.standard_normal(key, n, dtype), dtype)


@pytest.mark.parametrize("build", _builds.available())
def test_normals_of_every_build(build, dtype):
    kernels = __import__(f"fastelbo._kernels.{build}.vecmath", fromlist=["normals"])
    out = np.empty(64 * 500, dtype)
    kernels.normals(7, 123, out)
    expected = reference.standard_normal(7, 64 * 623, dtype)[64 * 123 :]
    assert_close(out, expected, dtype)
    assert kernels.philox(5, 6) == vecmath.philox(5, 6)


def test_far_blocks(dtype):
    """Counters beyond 32 bits, which no test can reach by drawing."""
    per_block = 16 if dtype == np.float32 else 32
    block = 2**40 + 3
    counters = np.arange(per_block, dtype=np.uint64) + np.uint64(block * per_block)
    zero = np.zeros_like(counters)
    counters = np.stack([counters & 0xFFFFFFFF, counters >> 32, zero, zero], axis=-1)
    words = reference.philox4x32(counters, (11, 0))
    single = dtype == np.float32
    uniforms = (reference.uniforms_float32 if single else reference.uniforms_float64)(words)
    radius = np.sqrt(-2 * np.log(uniforms[0]))
    got = np.sort(np.abs(normals(11, 64, dtype, block)))
    expected = np.abs([radius * f(2 * np.pi * uniforms[1]) for f in (np.sin, np.cos)])
    assert_close(got, np.sort(expected.ravel()), dtype)


def test_moments(many):
    n = many.size
    z = many.astype(np.float64)
    squares = z * z
    powers = {
        1: z,
        2: squares,
        3: squares * z,
        4: squares * squares,
        6: squares * squares * squares,
    }
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        score = (powers[power].mean() - mean) / np.sqrt(variance / n)
        assert abs(score) < 4, f"moment {power}: {score:.2f} standard errors off"


def test_kolmogorov_smirnov_and_anderson_darling(many):
    u = scipy.special.ndtr(np.sort(many.astype(np.float64)))
    n = u.size
    i = np.arange(n)
    distance = max((u - i / n).max(), ((i + 1) / n - u).max())
    assert scipy.stats.kstwo.sf(distance, n) > 1e-3
    odd = 2 * i + 1
    anderson_darling = -n - np.mean(odd * (np.log(u) + np.log1p(-u[::-1])))
    assert anderson_darling < 6.0  # the 0.1 % point where mean and variance are known


def test_tails(dtype):
    """How many lie beyond 1 .. 6 sigma on either side, of 5e7: binomial bounds."""
    edges = np.arange(1.0, 6.5, 0.5)
    above, below, n, chunk = np.zeros(edges.size), np.zeros(edges.size), 0, 1 << 20
    largest = 0.0
    for i in range(48):
        z = normals(777, chunk, dtype, first_block=i * (chunk // 64))
        above += [np.count_nonzero(z > e) for e in edges]
        below += [np.count_nonzero(z < -e) for e in edges]
        largest = max(largest, float(np.abs(z).max()))
        n += chunk
    p = scipy.stats.norm.sf(edges)
    for counted in (above, below):
        low, high = scipy.stats.binom.ppf([[5e-5], [1 - 5e-5]], n, p)
        assert np.all((low <= counted) & (counted <= high)), (counted, n * p)
    assert above[edges == 5.0] + below[edges == 5.0] > 0
    assert 5.0 < largest <= (6.67 if dtype == np.float32 else 9.5)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 128, 1024])
def test_neighbours_are_independent(many, lag):
    z = many[:2_000_000].astype(np.float64)
    root = np.sqrt(len(z) - lag)
    for f in (z, (z * z - 1) / np.sqrt(2), np.sign(z)):
        assert abs(f[:-lag] @ f[lag:] / root) < 4.5
    squares = (z * z - 1) / np.sqrt(2)
    assert abs(z[:-lag] @ squares[lag:] / root) < 4.5
    assert abs(squares[:-lag] @ z[lag:] / root) < 4.5


@pytest.mark.parametrize("offset", [1, 16, 32])
def test_pairs_fill_the_plane(many, offset):
    """Both normals of a Box-Muller pair (16 apart), and two of other pairs: 16 x 16 cells."""
    blocks = many[:6_400_000].reshape(-1, 64)
    first = np.arange(64) // offset % 2 == 0
    u = scipy.special.ndtr(blocks.astype(np.float64))
    x, y = u[:, first].ravel(), u[:, np.flatnonzero(first) + offset].ravel()
    cells = np.bincount((x * 16).astype(int) * 16 + (y * 16).astype(int), minlength=256)
    assert cells.size == 256
    assert scipy.stats.chisquare(cells).pvalue > 1e-3


@pytest.mark.parametrize("other", [1, 2, 3, 1 << 31, 1 << 32, 1 << 63, 2**64 - 1])
def test_keys_are_independent(other, dtype):
    n = 1 << 20
    a, b = (normals(key, n, dtype).astype(np.float64) for key in (0, other))
    assert np.count_nonzero(a == b) < 100 * n / 2**24 + 10
    for f in (lambda z: z, lambda z: (z * z - 1) / np.sqrt(2), np.sign):
        for shift in (0, 1, 16, 64):
            assert abs(f(a) @ f(np.roll(b, shift)) / np.sqrt(n)) < 4.5


# Who draws what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (31, 33), (64, 64), (7, 4097), (4097, 3)])
@pytest.mark.parametrize("samples", [None, 1, 3])
def test_chunks_are_bitwise_equal(shape, samples, dtype):
    """Element i takes normal i, whatever the shape, the samples and where a block starts."""
    rng = np.random.default_rng(1)
    mu, logvar = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    z = fastelbo.reparameterize(mu, logvar, rng=5, samples=samples)
    size = mu.size
    eps = normals(5, z.size, dtype).reshape(z.shape)
    for k in range(samples or 1):
        part = eps if samples is None else eps[k]
        expected = fastelbo.reparameterize(mu, logvar, noise=part)
        np.testing.assert_array_equal(z if samples is None else z[k], expected)
    head = max(1, shape[0] // 2)
    np.testing.assert_array_equal(
        fastelbo.reparameterize(mu[:head], logvar[:head], rng=5), z.reshape(-1, *shape)[0][:head]
    )
    flat = fastelbo.reparameterize(mu.reshape(1, size), logvar.reshape(1, size), rng=5)
    np.testing.assert_array_equal(flat.ravel(), z.ravel()[:size])


def test_every_function_draws_the_same(dtype):
    rng = np.random.default_rng(2)
    mu, logvar, grad_z = (rng.normal(size=(37, 11)).astype(dtype) for _ in range(3))
    x = rng.normal(size=(37, 5)).astype(dtype)
    z = fastelbo.reparameterize(mu, logvar, rng=9)
    z_kl, _ = fastelbo.reparameterize_kl(mu, logvar, rng=9)
    np.testing.assert_array_equal(z_kl, z)
    for reduction in ("mean", "sum", "none"):
        for free_bits in (0.0, 0.1, fastelbo.FreeBits(0.1, granularity="total")):
            options = {"reduction": reduction, "free_bits": free_bits, "rng": 9}
            np.testing.assert_array_equal(fastelbo.elbo(x, mu, logvar, x, **options).z, z)
            result, _ = fastelbo.elbo_and_grad(x, mu, logvar, x, **options)
            np.testing.assert_array_equal(result.z, z)
            np.testing.assert_array_equal(fastelbo.reparameterize_kl(mu, logvar, **options)[0], z)
    again = fastelbo.reparameterize_backward(grad_z, mu, logvar, None, rng=9)
    given = fastelbo.reparameterize_backward(
        grad_z, mu, logvar, None, noise=normals(9, mu.size, dtype).reshape(mu.shape)
    )
    np.testing.assert_array_equal(again, given)


def test_rng_kinds():
    zeros = np.zeros((4, 4))

    def draw(rng):
        return fastelbo.reparameterize(zeros, zeros, rng=rng)

    np.testing.assert_array_equal(draw(3), draw(np.int64(3)))
    assert not np.array_equal(draw(3), draw(4))
    assert not np.array_equal(draw(None), draw(None))
    for bits in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64):
        a, b = (np.random.Generator(bits(1)) for _ in range(2))
        first = draw(a)
        np.testing.assert_array_equal(first, draw(b))
        assert not np.array_equal(draw(a), first), "the generator did not move on"
    for wrong, error in [(-1, ValueError), (2**64, ValueError), (1.5, TypeError), ("a", TypeError)]:
        with pytest.raises(error, match="rng"):
            draw(wrong)
    with pytest.raises(ValueError, match="rng or noise"):
        fastelbo.reparameterize(zeros, zeros, rng=1, noise=zeros)
