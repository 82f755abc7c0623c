"""Bernoulli by logits, and by probabilities."""

import math

import mpmath
import numpy as np
import pytest

from fastelbo import VAE, Bernoulli, elbo, reference
from fastelbo._catalogue import REDUCTIONS, flatten
from tests.conftest import DTYPES, TOLERANCE, assert_close, together
from tests.likelihood_checks import exact, offends


def draw(shape, dtype, binary=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=shape)
    return [
        (np.round(x) if binary else x).astype(dtype),
        (4 * rng.normal(size=shape)).astype(dtype),
    ]


@pytest.mark.parametrize(
    "logit", [0.0, -0.0, 1e-8, 0.3, -1.0, 5.0, -17.0, 40.0, -90.0, 500.0, -800.0]
)
@pytest.mark.parametrize("x", [0.0, 1.0, 0.25])
def test_mpmath(x, logit, dtype):
    """Binary x keep all their digits however large the logit."""
    value, (grad,) = Bernoulli().log_prob_and_grad(
        np.array([[x]], dtype), np.array([[logit]], dtype)
    )
    with mpmath.workdps(600):
        exact_logit = mpmath.mpf(float(dtype.type(logit)))
        sigmoid = 1 / (1 + mpmath.exp(-exact_logit))
        exact = x * mpmath.log(sigmoid) + (1 - x) * mpmath.log(1 - sigmoid)
        slope = x - sigmoid
        tiny = float(np.finfo(dtype).smallest_subnormal)
        assert abs(value - exact) <= TOLERANCE[dtype] * abs(exact) + tiny
        cancels = 0 if x in (0.0, 1.0) else 1
        assert abs(grad[0, 0] - slope) <= TOLERANCE[dtype] * max(abs(slope), cancels) + tiny


def test_by_hand():
    value, (grad,) = Bernoulli().log_prob_and_grad([[1.0, 0.0]], [[0.0, math.log(3.0)]])
    assert value == pytest.approx(-math.log(2.0) - math.log(4.0), rel=1e-15)
    np.testing.assert_allclose(grad, [[0.5, -0.75]], rtol=1e-15)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(dtype):
    """As the plain formula, but for 0 times infinity, which the density does not have."""
    info = np.finfo(dtype)
    logits = [0.0, -0.0, info.max, -info.max, info.tiny, 90.0, -90.0, 800.0, -800.0, np.nan]
    x, a = (
        np.ravel(m)[:, None].astype(dtype) for m in np.meshgrid([0.0, 0.5, 1.0, np.nan], logits)
    )
    rows, (grad,) = Bernoulli().log_prob_and_grad(x, a, reduction="none")
    expected = reference.Bernoulli().log_prob_and_grad(x, a, reduction="none")
    assert_close(rows, expected[0], dtype)
    assert_close(grad, expected[1][0], dtype)
    for infinity in (np.inf, -np.inf):
        a = np.full((1, 1), infinity, dtype)
        for certain in (0.0, 1.0):
            x = np.full((1, 1), certain, dtype)
            got = Bernoulli().log_prob_and_grad(x, a)
            expected = reference.Bernoulli().log_prob_and_grad(x, a)
            assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype)


@pytest.mark.parametrize("event", [65, 784, 1023, 7680, 7681, 100_003])
@together(logit=[0.0, 1e-30, 1e-6, 0.1, 1.0, 5.0, 17.0, 40.0, 88.0, 1e30, np.inf], dtype=DTYPES)
def test_products_of_many_factors(event, logit, dtype):
    """log(1 + e) is taken of products: all factors 2, all next to 1, all of one size."""
    logits = np.full((2, event), logit, dtype) * np.where(np.arange(event) % 3, 1, -1).astype(dtype)
    x = (logits > 0).astype(dtype)
    got = Bernoulli().log_prob_and_grad(x, logits, reduction="none")
    expected = reference.Bernoulli().log_prob_and_grad(x, logits, reduction="none")
    assert_close(got, expected, dtype)
    for worst in (np.nan, np.finfo(dtype).max, -np.inf):
        logits[1, event // 2], x[1, event // 2] = worst, worst > 0
        rows, _ = Bernoulli().log_prob_and_grad(x, logits, reduction="none")
        wanted = reference.Bernoulli().log_prob(x, logits, reduction="none")
        assert_close(rows, wanted, dtype)


def test_scaled_images(dtype):
    x = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    logits = draw(x.shape, dtype)[1]
    got = Bernoulli(x_scale=1 / 255).log_prob_and_grad(x, logits, reduction="none")
    expected = reference.Bernoulli(x_scale=1 / 255).log_prob_and_grad(x, logits, reduction="none")
    size = np.abs(logits.astype(np.float64)).sum(axis=(1, 2))
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, (size, 1.0))


@pytest.mark.parametrize("bad", [-0.001, 1.001, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("where", [(0, 0), (3, 17), (8, 599)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_domain(bad, where, reduction, dtype):
    x, logits = draw((9, 600), dtype)
    x[where] = bad
    with pytest.raises(ValueError, match=rf"x\[{where[0]}, {where[1]}\].*\[0, 1\]"):
        Bernoulli().log_prob(x, logits, reduction=reduction)
    with pytest.raises(ValueError, match="x"):
        Bernoulli().log_prob_and_grad(x, logits, reduction=reduction)
    value = Bernoulli(validate=False).log_prob(x, logits, reduction=reduction)
    assert not np.all(np.isfinite(value)) or np.isfinite(bad)


def test_domain_after_scaling():
    with pytest.raises(ValueError, match="x"):
        Bernoulli().log_prob(np.array([[2]], np.uint8), [[0.0]])
    with pytest.raises(ValueError, match="x"):
        Bernoulli(x_scale=1 / 254).log_prob(np.array([[255]], np.uint8), [[0.0]])
    with pytest.raises(ValueError, match="x"):
        Bernoulli(x_scale=10.0).log_prob(np.array([[1e308]]), [[0.0]])


def test_rounding_alone_is_no_error():
    """x x_scale is at most 1 in float64; the rounding of x_scale to float32 takes it above."""
    rng = np.random.default_rng(0)
    found = 0
    for x_scale in rng.uniform(1e-3, 1.0, 3000):
        x = np.float32(1 / x_scale)
        for candidate in (x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(1e9))):
            if candidate * np.float32(x_scale) > 1 and float(candidate) * x_scale <= 1:
                found += 1
                Bernoulli(x_scale=x_scale).log_prob([[candidate]], np.zeros((1, 1), np.float32))
    x = np.array([[2**24 + 1]])  # float32 makes it even
    Bernoulli(x_scale=1 / (2**24 + 1)).log_prob(x, np.zeros((1, 1), np.float32))


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("p", [1e-30, 1e-3, 0.3, 0.5, 0.999, 1 - 2.0**-23])
def test_probabilities(x, p, dtype):
    def density(x, p):
        x = mpmath.mpf(float(x))
        hit = x * mpmath.log(p) if x else x
        return hit + ((1 - x) * mpmath.log1p(-p) if x != 1 else 0)

    exact(
        Bernoulli(probs=True), dtype.type(x), (p,), density, dtype, sizes=(0.0, 1e-60), digits=300
    )


def test_probabilities_at_zero_and_one(dtype):
    """The limit: an event that is certain, and one that is impossible."""
    p = np.array([[0, 1, 0, 1, 0, 1]], dtype)
    x = np.array([[0, 1, 1, 0, 0.5, 0.5]], dtype)
    value, (gradient,) = Bernoulli(probs=True).log_prob_and_grad(x, p, reduction="elementwise")
    np.testing.assert_array_equal(value, [[0, 0, *[-np.inf] * 4]])
    np.testing.assert_array_equal(gradient, [[-1, 1, np.inf, -np.inf, np.inf, -np.inf]])
    # 255 times 1 / 255 rounds to above 1 in float32
    white = np.full((1, 6), 255, np.uint8)
    pixels = Bernoulli(probs=True, x_scale=1 / 255)
    assert pixels.log_prob(white, np.ones_like(p)) == 0


def test_clamped_probabilities_are_those_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    x, p = np.meshgrid([0, 0.25, 1], [0, 1e-44, 1e-20, 1e-7, 0.3, 1 - 2.0**-24, 1])
    x, p = x.astype(dtype), p.astype(dtype)
    given = torch.tensor(p, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy(given, torch.tensor(x), reduction="none")
    loss.sum().backward()
    value, (gradient,) = Bernoulli(probs=True, clamp=True).log_prob_and_grad(
        x, p, reduction="elementwise"
    )
    tolerance = {"rtol": 4 * np.finfo(dtype).eps}
    np.testing.assert_allclose(value, -loss.detach(), **tolerance)
    np.testing.assert_allclose(gradient, -given.grad, **tolerance)
    assert value.min() == -100


def test_data_have_the_gradient_of_clamped_probabilities():
    torch = pytest.importorskip("torch")
    likelihood = pytest.importorskip("fastelbo.torch").Bernoulli(probs=True, clamp=True)
    x = torch.tensor([[0.0, 0.25, 1.0]], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([[1e-50, 0.8, 1.0]], dtype=torch.float64)
    likelihood.log_prob(x, p).backward()
    np.testing.assert_allclose(x.grad, [[-100, np.log(4), 100]], rtol=1e-12)


def test_probabilities_are_in_the_elbo_and_agree_with_logits(dtype):
    rng = np.random.default_rng(0)
    x, logits = rng.uniform(size=(6, 40)).astype(dtype), rng.normal(size=(6, 40)).astype(dtype)
    mu = np.zeros((6, 2), dtype)
    probs = Bernoulli().mean(logits)
    by_logits = elbo(x, mu, mu, logits, likelihood=Bernoulli(), reduction="none")
    for clamp in (False, True):
        likelihood = Bernoulli(probs=True, clamp=clamp)
        by_probs = elbo(x, mu, mu, probs, likelihood=likelihood, reduction="none")
        np.testing.assert_allclose(by_probs.elbo, by_logits.elbo, rtol=1e-5)
        np.testing.assert_array_equal(likelihood.mean(probs), probs)


def test_errors_of_probabilities(dtype):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(4, 18))
    likelihood = Bernoulli(probs=True)
    offends(likelihood, dtype, x, x, name="probs", bad=(-1e-7, 1.000001, np.inf))
    offends(likelihood, dtype, x, x, bad=(-1e-7, 1.000001))
    with pytest.raises(ValueError, match=r"probs\[0, 0\] = 2 .*of logits without probs=True"):
        likelihood.log_prob([[1.0]], [[2.0]])
    with pytest.raises(ValueError, match="clamp is for probabilities: give probs=True"):
        Bernoulli(clamp=True)
    for option in ("probs", "clamp"):
        with pytest.raises(TypeError, match=f"{option} must be True or False, got 1"):
            Bernoulli(**{option: 1})
    with pytest.raises(ValueError, match=r"needs probabilities.* use Bernoulli\(\)"):
        VAE(likelihood=likelihood).fit(x)
