"""Student's t: scale and degrees of freedom fixed or learned."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

import fastelbo
from fastelbo import Gaussian, StudentT, reference
from tests.conftest import assert_close
from tests.likelihood_checks import exact


def density(x, m, s, v):
    df = mpmath.exp(v)
    z = (x - m) * mpmath.exp(-s)
    norm = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(mpmath.pi * df) / 2
    return norm - s - (df + 1) / 2 * mpmath.log1p(z * z / df)


@pytest.mark.parametrize("log_df", [-10.0, -2.0, -0.5, 0.0, 0.7, 1.0, 2.3, 3.0, 5.0, 12.0, 27.0])
@pytest.mark.parametrize(("x", "log_scale"), [(0.5, 0.0), (3.0, -1.0), (100.0, 0.5), (0.0, 2.0)])
def test_mpmath(x, log_scale, log_df, dtype):
    """Up to a trillion degrees of freedom, where lgamma has no digits to subtract."""
    z = abs(x + 0.25) * math.exp(-log_scale)
    size = 1 + abs(log_scale) + abs(log_df) * (log_df < 0) + math.log1p(z) * (1 + z)
    sizes = (size, size * math.exp(-log_scale), size, size)
    parameters = (-0.25, log_scale, log_df)
    digits = 120
    exact(
        StudentT("learned", "learned"),
        x,
        parameters,
        density,
        dtype,
        sizes=sizes,
        digits=digits,
    )


def test_against_scipy(dtype):
    rng = np.random.default_rng(0)
    x, x_recon, log_scale = (rng.normal(size=(20, 30)).astype(dtype) for _ in range(3))
    df = np.linspace(0.3, 40.0, 30)
    wide = [a.astype(np.float64) for a in (x, x_recon)]
    expected = scipy.stats.t.logpdf(wide[0], df, wide[1], 0.7)
    got = StudentT(df, 0.7).log_prob(x, x_recon, reduction="none")
    assert_close(got, expected.sum(axis=1), dtype, 100.0)
    expected = scipy.stats.t.logpdf(wide[0], 2.5, wide[1], np.exp(log_scale.astype(np.float64)))
    got = StudentT(2.5, "learned").log_prob(x, x_recon, log_scale, reduction="none")
    assert_close(got, expected.sum(axis=1), dtype, 200.0)


def test_meets_the_gaussian(dtype):
    rng = np.random.default_rng(0)
    x, x_recon = (rng.normal(size=(20, 30)).astype(dtype) for _ in range(2))
    normal = Gaussian(0.7).log_prob_and_grad(x, x_recon, reduction="none")
    for t in (StudentT(1e15, 0.7), StudentT(1e30, 0.7)):
        got = t.log_prob_and_grad(x, x_recon, reduction="none")
        assert_close(got, normal, dtype, (100.0, (9.0,)))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan, "best", [1.0, 0.0]])
def test_errors(bad):
    with pytest.raises(ValueError, match="df"):
        StudentT(bad)
    with pytest.raises(ValueError, match="scale"):
        StudentT(2.0, bad)
    with pytest.raises(ValueError, match="scale or df"):
        StudentT([1.0, 2.0]).log_prob(np.zeros((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize("learned_df", [False, True])
def test_a_scale_of_zero_has_its_density_at_the_location_alone(learned_df, dtype):
    """As Gaussian's."""
    x, zero = np.array([[0.0, 1.0, -2.0, np.nan]], dtype), np.zeros((1, 4), dtype)
    given = (zero, np.full_like(zero, -np.inf), *([zero] if learned_df else []))
    expected = [[np.inf, -np.inf, -np.inf, np.nan]]
    for module in (fastelbo, reference):
        likelihood = module.StudentT("learned" if learned_df else 2.0, "learned")
        got = likelihood.log_prob(x, *given, reduction="elementwise")
        np.testing.assert_array_equal(got, expected)
    by_scale = likelihood.log_prob_and_grad(x[:, :3], *[g[:, :3] for g in given], reduction="sum")[
        1
    ][1]
    df = 1.0 if learned_df else 2.0
    np.testing.assert_allclose(by_scale, [[-1.0, df, df]], rtol=1e-6)


def test_a_scale_of_zero_in_the_composite(composite):
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    composite()
    x, zero = torch.tensor([[0.0, 1.0, -2.0]]), torch.zeros(1, 3)
    got = ft.StudentT(2.0, "learned").log_prob(x, zero, zero - torch.inf, reduction="elementwise")
    assert got.tolist() == [[np.inf, -np.inf, -np.inf]]
