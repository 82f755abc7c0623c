"""sap: worked by hand, on factors that are known, and by an SVM written out."""

import numpy as np
import pytest

from fastelbo import reference, sap
from fastelbo.reference.disentanglement import _line
from tests.disentanglement import known, noise


def test_sap_of_known_factors_and_of_noise():
    pytest.importorskip("sklearn")
    factors = known(1500)
    assert sap(factors, factors, continuous=True).score >= 0.95
    assert sap(noise(1500), factors, continuous=True).score <= 0.05
    assert sap(noise(1500), factors).score <= 0.05
    bits = factors % 2
    got = sap(2.0 * bits - 1, bits)
    np.testing.assert_array_equal(np.diagonal(got.scores), 1)
    assert got.score == pytest.approx(0.5, abs=0.06)  # the second best guesses one of two


def test_a_continuous_factor_by_hand():
    """Squared correlations 1 and 1/5; a constant code has none."""
    factor = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    codes = np.column_stack([3 - factor[:, 0], [-2.0, 0.0, -1.0, 3.0], np.ones(4)])
    covariance = np.mean(codes[:, 1] * factor[:, 0])
    for module in (sap, reference.sap):
        got = module(codes, factor, continuous=True)
        expected = [1, covariance**2 / codes[:, 1].var(), 0]
        np.testing.assert_allclose(got.scores.ravel(), expected, rtol=1e-14)
        assert got.score == pytest.approx(1 - got.scores[1, 0], rel=1e-14)


def test_classes_leave_the_second_best_a_guess():
    """So true factors have less than 0.95: 1/2 of two values; of four less than 3/4, for one line
    each tells the outermost from the others."""
    pytest.importorskip("sklearn")
    factors = known(1500)
    bits = sap(factors % 2, factors % 2)
    assert bits.score == pytest.approx(0.5, abs=0.06)
    assert bits.scores.max() == 1
    four = sap(factors, factors)
    assert four.score < 0.75 < 0.95 <= sap(factors, factors, continuous=True).score
    assert four.scores.max() < 0.8


@pytest.mark.parametrize("values", [2, 3, 4])
def test_accuracies_are_those_of_the_lines_that_minimise(values):
    """The same points are held out, and LIBLINEAR is exact but for one point in a hundred."""
    pytest.importorskip("sklearn")
    factors = known(400)[:, :2] % values
    rng = np.random.default_rng(5)
    codes = np.column_stack([factors[:, 0] + 0.4 * rng.normal(size=400), factors[:, 1] ** 2])
    ours, theirs = (module(codes, factors) for module in (sap, reference.sap))
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=0.01)
    np.testing.assert_allclose(ours.gaps, theirs.gaps, atol=0.02)
    assert ours.score > 0.2


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("cost", [0.01, 1.0, 100.0])
def test_lines_of_the_reference_minimise(cost, scale):
    """Where the gradient of (w^2 + b^2) / 2 + the penalties is zero."""
    rng = np.random.default_rng(0)
    for points in (3, 6, 40) * 4:
        code, sign = scale * rng.normal(size=points), rng.choice([-1, 1], points)
        costs = cost * rng.uniform(0.5, 2, points)
        w, b = _line(code, sign, costs)
        slopes = 2 * costs * sign * np.maximum(0, 1 - sign * (w * code + b))
        size = np.abs(slopes) @ np.abs(code), np.abs(slopes).sum()
        gradient = np.abs([w - slopes @ code, b - slopes.sum()])
        assert (gradient <= 1e-10 * (1 + np.array(size))).all()


@pytest.mark.parametrize("scale", [1e3, 1e20, 1e100, 1e300])
def test_large_codes_score_as_others(scale):
    """Where the penalty of the SVM is nothing, and squares of codes overflow."""
    pytest.importorskip("sklearn")
    bits = known(600) % 2
    codes = bits + 0.3 * np.random.default_rng(0).normal(size=bits.shape)
    expected = sap(128 * codes, bits).scores
    np.testing.assert_allclose(sap(scale * codes, bits).scores, expected, atol=0.01)
    expected = sap(codes, bits, continuous=True).scores
    for factors in (bits, scale * bits):
        for module in (sap, reference.sap):
            got = module(scale * codes, factors, continuous=True).scores
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-14)
    assert sap(codes / 1e20, bits, continuous=True).score == 0  # next to no variance


def test_what_is_held_out_must_leave_something_to_learn():
    pytest.importorskip("sklearn")
    bits = known(20)[:, :1] % 2
    with pytest.raises(ValueError, match=r"test_size must lie between 0 and 1, got 1\.0"):
        sap(bits, bits, test_size=1.0)
    with pytest.raises(ValueError, match="codes has 20 points: too few to hold out"):
        sap(bits, bits, test_size=0.95)
    rare = np.zeros((20, 1))
    rare[np.random.RandomState(0).permutation(20)[0]] = 1  # the first is held out
    with pytest.raises(ValueError, match=r"factors\[:, 0\] has one value in what is not held out"):
        sap(bits, rare)
