"""The means of likelihoods, against numbers worked out by hand."""

import mpmath
import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from fastelbo._catalogue import VARIANTS
from fastelbo._catalogue.likelihoods import cases_of
from tests.conftest import TOLERANCE

LOG2, LOG3 = np.log(2), np.log(3)

#: likelihood, parameters of one row, its means.
BY_HAND = [
    (fastelbo.SquaredError(), [[1.5, -2]], [1.5, -2]),
    (fastelbo.Gaussian(3.0), [[1.5, -2]], [1.5, -2]),
    (fastelbo.Gaussian("learned"), [[1.5, -2], [7, 7]], [1.5, -2]),
    (fastelbo.Laplace("learned"), [[1.5, -2], [7, 7]], [1.5, -2]),
    (fastelbo.StudentT("learned", "learned"), [[1.5, -2], [7, 7], [9, 9]], [1.5, -2]),
    (fastelbo.Bernoulli(), [[0, LOG3, -LOG3]], [1 / 2, 3 / 4, 1 / 4]),
    (fastelbo.Bernoulli(probs=True), [[0, 1 / 4, 1]], [0, 1 / 4, 1]),
    # at logits l: e^l / (e^l - 1) - 1 / l
    (fastelbo.ContinuousBernoulli(), [[0, LOG2, -LOG2]], [0.5, 2 - 1 / LOG2, 1 / LOG2 - 1]),
    (fastelbo.Poisson(), [[0, LOG3]], [1, 3]),
    (fastelbo.Poisson(log_input=False), [[0, 3]], [0, 3]),
    (fastelbo.Binomial(8), [[0, LOG3]], [4, 6]),
    (fastelbo.Binomial([2, 8]), [[0, LOG3]], [1, 6]),
    (fastelbo.BetaBinomial([10, 20]), [[1, 3], [4, 1]], [2, 15]),
    (fastelbo.Weibull(), [[2, 1], [1, 0.5]], [2, 2]),
    (fastelbo.NegativeBinomial(), [[0.5, 3], [1, 2]], [0.5, 3]),
    (fastelbo.NegativeBinomial(theta=2.0), [[0.5, 3]], [0.5, 3]),
    (fastelbo.ZeroInflatedNegativeBinomial(), [[8, 8], [1, 2], [0, LOG3]], [4, 2]),
    (fastelbo.ZeroInflatedNegativeBinomial(2.0), [[8, 8], [0, -LOG3]], [4, 6]),
    # bins around -1, -1/2, 0, 1/2, 1
    (fastelbo.DiscretizedLogistic(0.1, bins=5), [[-1, 0.25, 1, 3, -2]], [0, 2.5, 4, 4, 0]),
    (fastelbo.DiscretizedLogistic(bins=5), [[-0.5, 0.5], [2, 2]], [1, 3]),
]


@pytest.mark.parametrize(("likelihood", "parameters", "expected"), BY_HAND, ids=repr)
def test_by_hand(likelihood, parameters, expected, dtype):
    arrays = [np.array([p, p], dtype) for p in parameters]
    before = [a.copy() for a in arrays]
    got = likelihood.mean(*arrays)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, [expected] * 2, rtol=8 * np.finfo(dtype).eps, atol=0)
    got[...] = 77
    np.testing.assert_array_equal(arrays, before)
    np.testing.assert_allclose(likelihood.mean(*([p] for p in parameters)), [expected], rtol=1e-14)


def test_classes_and_components(dtype):
    tolerance = {"rtol": 8 * np.finfo(dtype).eps}
    got = fastelbo.Categorical().mean(np.array([[0, LOG3], [1e4, 0]], dtype))
    np.testing.assert_allclose(got, [[1 / 4, 3 / 4], [1, 0]], **tolerance)
    assert got.dtype == dtype
    # of two components at bins 0 and 4, the second three times as heavy; then two alike
    logits = np.array([[[0, 0], [LOG3, 0]]], dtype)
    means = np.array([[[-1, 0.5], [1, 0.5]]], dtype)
    got = fastelbo.DiscretizedLogisticMixture(bins=5).mean(logits, means, logits)
    np.testing.assert_allclose(got, [[3, 3]], **tolerance)


def measures():
    """Numbers and their weights in a sum or an integral: counts, [0, 1], above 0, all."""
    t = np.linspace(-4, 4, 2001)
    step, s, c = t[1] - t[0], np.pi / 2 * np.sinh(t), np.pi / 2 * np.cosh(t)
    yield np.arange(2000.0), np.ones(2000)
    yield 1 / (1 + np.exp(-2 * s)), step * c / (2 * np.cosh(s) ** 2)
    yield np.exp(s), step * c * np.exp(s)
    yield np.sinh(s), step * c * np.cosh(s)


#: Where the mean is not that of a density of x: sigma depends on the batch, classes have none,
#: that of bins is where the location lies, and columns differ. By hand, above.
OTHERS = ("optimal", "Categorical", "Discretized", "Column")


@pytest.mark.parametrize("label", [n for n in VARIANTS if not any(o in n for o in OTHERS)])
@np.errstate(all="ignore")
def test_means_are_those_of_the_density(label):
    """The mean under the reference's density, by the measure by which that sums to 1."""
    variant = VARIANTS[label]
    likelihood = variant.make(fastelbo)
    case = cases_of(variant)[0]
    rng = np.random.default_rng(5)
    least = 0 if "probs" in variant.parameters else 1
    for _ in range(3):
        given = [least + rng.random(case.shape(p, B=1, D=(1,))) for p in variant.parameters]
        for x, weights in measures():
            inside = ~likelihood._is_outside(x)
            x, weights = x[inside], weights[inside]
            axes = variant.parameters.values()
            many = [
                np.repeat(g, len(x), axis=0) if a[0] == "B" else g
                for a, g in zip(axes, given, strict=True)
            ]
            columns = np.broadcast_to(x[:, None], (len(x), many[0].shape[-1]))
            values, _ = variant.make(reference).elements(columns, *many)
            density = np.exp(values[:, 0]) * weights
            if abs(density.sum() - 1) < 1e-6:
                break
        expected = (density * x).sum() / density.sum()  # of SquaredError, which is not normalised
        np.testing.assert_allclose(likelihood.mean(*given).flat[0], expected, rtol=1e-6)


def test_continuous_bernoulli_near_zero_and_far(dtype):
    sizes = np.concatenate([np.logspace(-30, 2.5, 300), [0.09999, 0.1, 0.10001, 1e30]])
    logits = np.concatenate([-sizes, [0.0], sizes]).astype(dtype)
    with mpmath.workdps(100):
        exact = [
            float(1 / (1 - mpmath.exp(-a)) - 1 / a) if a else 0.5
            for a in map(mpmath.mpf, map(float, logits))
        ]
    got = fastelbo.ContinuousBernoulli().mean(logits)
    np.testing.assert_allclose(got, exact, rtol=TOLERANCE[dtype])
    ends = fastelbo.ContinuousBernoulli().mean(np.array([-np.inf, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(ends, [0, 1, np.nan])


def test_views_and_samples():
    logits = np.random.default_rng(0).normal(size=(6, 5, 4)).transpose(2, 1, 0)[:, ::2]
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(fastelbo.Bernoulli().mean(logits), expected, rtol=1e-14)
    same = np.broadcast_to(1.0, (3, 4))
    np.testing.assert_array_equal(fastelbo.Binomial(2).mean(0 * same), same)


def test_errors():
    with pytest.raises(TypeError, match=r"takes 2 decoder output\(s\) .* got 1"):
        fastelbo.Gaussian("learned").mean([[0.0]])
    with pytest.raises(TypeError, match="logits"):
        fastelbo.Bernoulli().mean([["a"]])
    with pytest.raises(ValueError, match=r"log_scale has shape \(3,\), expected one that broad"):
        fastelbo.Gaussian("learned").mean(np.zeros((2, 2)), np.zeros(3))
    logits, means = np.zeros((1, 2, 3)), np.zeros((1, 2, 4))
    with pytest.raises(ValueError, match=r"means has shape \(1, 2, 4\), expected that of logits"):
        fastelbo.DiscretizedLogisticMixture().mean(logits, means, logits)
    with pytest.raises(ValueError, match=r"outputs has shape \(2, 3\), expected \(\.\.\., 2\)"):
        fastelbo.ColumnLikelihood([("bernoulli", [0, 1])]).mean(np.zeros((2, 3)))
