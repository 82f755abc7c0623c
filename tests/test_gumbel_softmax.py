"""gumbel_softmax, on arrays and on tensors."""

import numpy as np
import pytest

import fastelbo
from fastelbo import gumbel_softmax, reference
from fastelbo.relaxations import gumbel_noise
from tests.conftest import TOLERANCE

EULER = 0.5772156649015329


def test_two_classes_are_a_sigmoid():
    """Of the difference of what is perturbed, over tau."""
    y = gumbel_softmax([[1.0, 0.0]], tau=0.5, noise=[[0.25, 0.75]])
    assert y[0, 0] == pytest.approx(1 / (1 + np.exp(-1.0)), rel=1e-15)
    assert y.sum() == pytest.approx(1.0, rel=1e-15)


def test_noise_is_that_of_gumbel(dtype):
    """Its moments, and its distribution function e^-e^-g at a few places."""
    n = 400_000
    g = gumbel_noise(7, (n,), dtype)
    assert g.dtype == dtype
    assert g.mean() == pytest.approx(EULER, abs=4 * np.pi / np.sqrt(6 * n))
    assert g.var() == pytest.approx(np.pi**2 / 6, rel=0.02)
    for at in (-1.5, -0.5, 0.0, 1.0, 3.0):
        p = np.exp(-np.exp(-at))
        assert (g < at).mean() == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / n))


def test_noise_is_a_function_of_key_and_index(dtype):
    """Whatever the shape around an element, and as in the reference."""
    few, many = gumbel_noise(5, (3, 4), dtype), gumbel_noise(5, (7, 5, 4), dtype)
    np.testing.assert_array_equal(few.ravel(), many.ravel()[:12])
    expected = reference.relaxations.gumbel(5, (7, 5, 4), dtype)
    np.testing.assert_allclose(many, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    logits = np.zeros((2, 3, 4), dtype)
    np.testing.assert_array_equal(gumbel_softmax(logits, rng=3), gumbel_softmax(logits, rng=3))
    assert (gumbel_softmax(logits, rng=3) != gumbel_softmax(logits, rng=4)).all()
    generators = [np.random.default_rng(0) for _ in range(2)]
    np.testing.assert_array_equal(*[gumbel_softmax(logits, rng=g) for g in generators])
    with fastelbo.num_threads(2):
        np.testing.assert_array_equal(gumbel_noise(5, (50_000,), dtype)[:12], few.ravel())


def test_classes_are_drawn_as_often_as_softmax_says():
    p = np.array([0.1, 0.2, 0.3, 0.4])
    n = 100_000
    y = gumbel_softmax(np.log(p)[None], tau=0.3, hard=True, samples=n, rng=11)
    assert y.shape == (n, 1, 4)
    assert set(np.unique(y)) == {0.0, 1.0}
    error = np.sqrt(p * (1 - p) / n)
    assert (np.abs(y.mean(axis=0)[0] - p) < 4 * error).all()
    soft = gumbel_softmax(np.log(p)[None], tau=0.3, samples=n, rng=11)
    np.testing.assert_array_equal(soft.argmax(axis=-1), y.argmax(axis=-1))


@pytest.mark.parametrize("hard", [False, True])
def test_what_is_certain_is_so_whatever_its_noise(hard, composite):
    """A class without probability is never drawn, one of +inf always; noise of NaN is no noise."""
    logits = np.array([[-np.inf, 0.0, 0.0], [np.inf, 0.0, 0.0], [-np.inf, 0.0, 0.0]])
    noise = np.array([[np.inf, 0.0, 1.0], [-np.inf, 0.0, 1.0], [np.nan, 0.0, 1.0]])
    p = 1 / (1 + np.exp(-1))
    expected = [[0, 0, 1] if hard else [0, 1 - p, p], [1, 0, 0], [np.nan] * 3]
    for module in (fastelbo, reference):
        y = module.gumbel_softmax(logits, hard=hard, noise=noise)
        np.testing.assert_allclose(y, expected, rtol=1e-14)
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    y = ft.gumbel_softmax(torch.tensor(logits), hard=hard, noise=torch.tensor(noise))
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_no_latents_and_no_batch():
    """Of no latents there are no samples; an empty batch is named as that of logits."""
    assert gumbel_softmax(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    with pytest.raises(ValueError, match=r"^logits has an empty batch: shape \(0, 3\)"):
        gumbel_softmax(np.zeros((0, 3)))


def test_hard_agrees_with_the_reference(dtype):
    rng = np.random.default_rng(0)
    logits, noise = rng.normal(size=(2, 9, 3, 4)).astype(dtype)
    got = gumbel_softmax(logits, noise=noise, hard=True)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, reference.gumbel_softmax(logits, noise=noise, hard=True))
    logits[4, 1, 2] = np.nan
    for hard in (False, True):
        spoilt = gumbel_softmax(logits, noise=noise, hard=hard)
        assert np.isnan(spoilt[4, 1]).all()
        assert np.isnan(spoilt).sum() == 4


@pytest.mark.parametrize(
    ("logits", "tau", "expected"),
    [
        ([0.0, -np.inf], 1.0, [1, 0]),
        ([np.inf, 5.0], 1.0, [1, 0]),
        ([np.inf, np.inf, 0.0], 0.1, [0.5, 0.5, 0]),
        ([1e308, -1e308], 1.0, [1, 0]),
        ([1.0, 0.0], 1e-320, [1, 0]),
        ([1.0, 0.0], 1e300, [0.5, 0.5]),
    ],
)
def test_limits(logits, tau, expected):
    noise = np.zeros((1, len(logits)))
    for module in (fastelbo, reference):
        y = module.gumbel_softmax([logits], tau=tau, noise=noise)
        np.testing.assert_array_equal(y, [expected])


def test_errors():
    logits = np.zeros((2, 3))
    for options, error, named in (
        ({"tau": 0.0}, ValueError, "tau must be positive"),
        ({"tau": "cold"}, TypeError, "tau must be a number"),
        ({"hard": 1}, TypeError, "hard must be True or False"),
        ({"noise": logits[:1]}, ValueError, "noise has shape"),
        ({"noise": logits, "rng": 1}, ValueError, "rng or noise"),
        ({"noise": logits, "samples": 2}, ValueError, "noise has shape"),
        ({"samples": 0}, ValueError, "samples"),
        ({"samples": 1 << 61}, ValueError, "more than any array holds"),
        ({"rng": -1}, ValueError, "rng"),
        ({"out": logits}, ValueError, "overlaps"),
    ):
        with pytest.raises(error, match=named):
            gumbel_softmax(logits, **options)
    with pytest.raises(ValueError, match="logits has shape"):
        gumbel_softmax([0.0, 1.0])


def test_tensors_draw_the_same_numbers():
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    for options in ({"rng": 9}, {"rng": 9, "samples": 2, "tau": 0.4}, {"rng": 9, "hard": True}):
        expected = gumbel_softmax(logits.numpy(), **options)
        got = ft.gumbel_softmax(logits, **options)
        torch.testing.assert_close(got, torch.from_numpy(expected))
    with pytest.raises(TypeError, match="tau cannot be differentiated"):
        ft.gumbel_softmax(logits, tau=torch.ones((), requires_grad=True))
    with pytest.raises(ValueError, match="rng or noise"):
        ft.gumbel_softmax(logits, rng=1, noise=logits)


def test_straight_through_is_one_hot_with_the_soft_gradient():
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 4, dtype=torch.float64)
    gradients = []
    for hard in (False, True):
        y = ft.gumbel_softmax(logits, tau=0.7, hard=hard, rng=3)
        gradients.append(torch.autograd.grad((weights * y).sum(), logits)[0])
    assert set(y.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(*gradients)
    back = fastelbo.gumbel_softmax_backward(
        weights.numpy(), logits.detach().numpy(), None, tau=0.7, rng=3
    )
    torch.testing.assert_close(gradients[0], torch.from_numpy(back))


def test_a_temperature_below_what_float32_holds_is_the_limit():
    logits, noise = np.float32([[1.0, 1.0, 0.0]]), np.zeros((1, 3), np.float32)
    y = fastelbo.gumbel_softmax(logits, tau=1e-60, noise=noise)
    assert np.array_equal(y, [[0.5, 0.5, 0.0]])
    one = np.float32([[1.0, 0.0, 0.0]])
    assert np.array_equal(fastelbo.gumbel_softmax_backward(one, logits, one, tau=1e-60), 0 * one)
