"""The passes between matrix products, each against a plain NumPy twin, on 1, 2 and 3 threads."""

import numpy as np
import pytest

from fastelbo import _builds

kernels = _builds.kernels("network")
SHAPES = [(1, 1), (2, 31), (31, 2), (33, 33), (128, 256), (129, 257), (1, 4097), (4097, 3)]
THREADS = (1, 2, 3)


def numbers(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def on_each_thread_count(run):
    """run(threads) gives the same bits on every number of threads: what it gives."""
    first, *others = (run(threads) for threads in THREADS)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)
    return first


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_add_bias(shape, activation, dtype):
    h, bias = numbers(shape, dtype), numbers(shape[1], dtype, 1)

    def run(threads):
        out = h.copy()
        kernels.add_bias(out, bias, activation, None, threads)
        return (out,)

    expected = np.maximum(h + bias, 0) if activation else h + bias
    np.testing.assert_array_equal(on_each_thread_count(run)[0], expected)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


SMOOTH = {
    "tanh": np.tanh,
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": gelu,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_activations(shape, activation, dtype):
    h, bias = 3 * numbers(shape, dtype), numbers(shape[1], dtype, 1)

    def run(threads):
        out, slopes = h.copy(), np.empty_like(h)
        kernels.add_bias(out, bias, activation, slopes, threads)
        return out, slopes

    value, slope = on_each_thread_count(run)
    x, eps = (h + bias).astype(np.float64), np.finfo(dtype).eps
    np.testing.assert_allclose(value, SMOOTH[activation](x), rtol=8 * eps, atol=8 * eps)
    by_steps = (SMOOTH[activation](x + 1e-6) - SMOOTH[activation](x - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, by_steps, rtol=8 * eps, atol=8 * eps + 1e-8)


@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_activations_agree_with_pytorch(activation):
    torch = pytest.importorskip("torch")
    twin = {"gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh")}
    x = np.array([[-800.0, -90, -20, -3, -0.1, -1e-9, 0, 1e-9, 0.2, 2, 25, 90, 800]])
    value, slope = x.copy(), np.empty_like(x)
    kernels.add_bias(value, np.zeros(x.size), activation, slope, 1)
    leaf = torch.tensor(x, requires_grad=True)
    expected = twin.get(activation, getattr(torch.nn.functional, activation))(leaf)
    expected.sum().backward()
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(slope, leaf.grad, rtol=1e-13, atol=1e-15)


def test_slopes_lead_back(dtype):
    grad, slopes = numbers((70, 33), dtype), numbers((70, 33), dtype, 1)
    sums, back = np.empty(33, dtype), grad.copy()
    kernels.bias_backward(back, None, slopes, None, sums, 1)
    np.testing.assert_array_equal(back, grad * slopes)
    expected = back.sum(0, dtype=np.float64)
    np.testing.assert_allclose(sums, expected, rtol=np.finfo(dtype).eps, atol=1e-13)


def test_relu_keeps_nan_and_infinity(dtype):
    h = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-45]], dtype)
    expected = np.maximum(h, 0)
    kernels.add_bias(h, np.zeros(5, dtype), "relu", None, 1)
    np.testing.assert_array_equal(h, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_bias_backward(shape, masked, copied, dtype):
    grad = numbers(shape, dtype)
    activation = np.maximum(numbers(shape, dtype, 1), 0) if masked else None

    def run(threads):
        g = grad.copy()
        room = np.full((shape[0], shape[1] + 3), 77, dtype)
        copy = room[:, 1 : shape[1] + 1] if copied else None
        sums = np.empty(shape[1], dtype)
        kernels.bias_backward(g, activation, None, copy, sums, threads)
        return g, sums, room

    g, sums, room = on_each_thread_count(run)
    expected = np.where(activation > 0, grad, 0) if masked else grad
    np.testing.assert_array_equal(g, expected)
    wide = expected.astype(np.float64)
    np.testing.assert_allclose(
        sums, wide.sum(0), rtol=np.finfo(dtype).eps, atol=1e-14 * np.abs(wide).sum(0).max()
    )
    if copied:
        np.testing.assert_array_equal(room[:, 1:-2], expected)
        room[:, 1:-2] = 77
    assert (room == 77).all()


def test_column_sums_are_float64():
    grad = np.full((3000, 2), 0.1, np.float32)
    grad[0] = 1e8
    sums = np.empty(2, np.float32)
    kernels.bias_backward(grad, None, None, None, sums, 1)
    np.testing.assert_array_equal(sums, grad.astype(np.float64).sum(0).astype(np.float32))


@pytest.mark.parametrize("size", [1, 2, 31, 33, 1023, 1025, 4097, 40_000])
def test_adam(size, dtype):
    def run(threads):
        state = [numbers(size, dtype, 0), *np.zeros((2, size), dtype)]
        for t in (1, 2, 3):
            grad = numbers(size, dtype, t)
            kernels.adam(state[0], grad, *state[1:], t, 1e-2, 0.9, 0.999, 1e-8, 0.0, threads)
        return state

    p, m, v = numbers(size, dtype, 0).astype(np.float64), 0.0, 0.0
    for t in (1, 2, 3):
        g = numbers(size, dtype, t).astype(np.float64)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p += 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    eps = np.finfo(dtype).eps
    got = on_each_thread_count(run)
    np.testing.assert_allclose(got[0], p, rtol=8 * eps, atol=8 * eps)
    np.testing.assert_allclose(got[1], m, rtol=8 * eps, atol=8 * eps)
    np.testing.assert_allclose(got[2], v, rtol=8 * eps, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_agrees_with_pytorch(weight_decay):
    torch = pytest.importorskip("torch")
    start = numbers(1000, np.float64)
    p, m, v = start.copy(), np.zeros(1000), np.zeros(1000)
    weight = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=3e-3, weight_decay=weight_decay)
    for t in range(1, 6):
        grad = numbers(1000, np.float64, t)
        kernels.adam(p, grad, m, v, t, 3e-3, 0.9, 0.999, 1e-8, weight_decay, 1)
        weight.grad = torch.tensor(-grad)  # PyTorch goes downhill
        optimizer.step()
    np.testing.assert_allclose(p, weight.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [1, 31, 33, 4097])
def test_sigmoid(size, dtype):
    x = (30 * numbers(size, dtype)).astype(dtype)

    def run(threads):
        out = x.copy()
        kernels.sigmoid(out, threads)
        return (out,)

    expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    got = on_each_thread_count(run)[0]
    limits = np.finfo(dtype)
    np.testing.assert_allclose(
        got, expected, rtol=3 * limits.eps, atol=float(limits.smallest_subnormal)
    )


def test_sigmoid_of_extremes(dtype):
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -1000.0, 1000.0], dtype)
    kernels.sigmoid(x, 1)
    np.testing.assert_array_equal(x, [0, 1, np.nan, 0.5, 0, 1])
