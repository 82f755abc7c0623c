"""dci_from_importance, and dci, which trains trees for it."""

import numpy as np
import pytest

from fastelbo import dci, dci_from_importance, sap
from tests.disentanglement import known, noise


def test_one_code_for_two_factors_of_ten():
    got = dci_from_importance([[1.0, 1.0] + [0.0] * 8])
    assert got.disentanglement == pytest.approx(1 - np.log(2) / np.log(10), rel=1e-15)
    assert got.completeness == 1  # each factor has its one code


def test_diagonal_and_flat():
    best = dci_from_importance(np.diag([1.0, 5.0, 2.0]))
    assert (best.disentanglement, best.completeness) == (1, 1)
    worst = dci_from_importance(np.full((4, 3), 0.25))
    assert worst.disentanglement == pytest.approx(0, abs=1e-15)
    assert worst.completeness == pytest.approx(0, abs=1e-15)


def test_codes_are_weighed_by_their_importance():
    """3/4 of all is the first code's, for one factor; 1/4 the second's, for both alike."""
    got = dci_from_importance([[3.0, 0.0], [0.5, 0.5]])
    assert got.disentanglement == pytest.approx(0.75, rel=1e-15)
    np.testing.assert_allclose(got.by_code, [1, 0], atol=1e-15)
    entropy = (3.5 * np.log(3.5) - 3 * np.log(3) - 0.5 * np.log(0.5)) / 3.5 / np.log(2)
    assert got.completeness == pytest.approx((3.5 * (1 - entropy) + 0.5) / 4, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_limits(scale):
    assert dci_from_importance(scale * np.eye(3)).disentanglement == pytest.approx(1, rel=1e-14)
    nothing = dci_from_importance(np.zeros((2, 3)))
    assert (nothing.disentanglement, nothing.completeness) == (0, 0)
    unused = dci_from_importance([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(unused.by_code, [1, 1, 0])


def test_errors():
    for importance, named in (
        ([1.0], "importance has shape"),
        (np.zeros((0, 3)), "importance is empty"),
        ([[1.0, -1.0]], "importance must not be negative"),
        ([[1.0, np.nan]], "importance contains NaN"),
    ):
        with pytest.raises(ValueError, match=named):
            dci_from_importance(importance)


def small():
    ensemble = pytest.importorskip("sklearn.ensemble")
    return ensemble.GradientBoostingClassifier(n_estimators=15, random_state=0)


def test_dci_of_known_factors_and_of_noise():
    factors = known(700)
    best = dci(factors, factors, estimator=small())
    assert min(best.disentanglement, best.completeness) >= 0.95
    assert best.informativeness == best.accuracy.mean() == 1
    assert best.importance.shape == (3, 3)
    worst = dci(noise(700), factors, estimator=small())
    assert max(worst.disentanglement, worst.completeness) <= 0.05
    assert worst.informativeness < 0.35


def test_boosted_trees_are_what_dci_trains():
    ensemble = pytest.importorskip("sklearn.ensemble")
    factors = known(60)
    found = dci(factors, factors, random_state=1)
    known_to = ensemble.GradientBoostingClassifier(random_state=1)
    expected = dci(factors, factors, estimator=known_to, random_state=1)
    np.testing.assert_array_equal(found.importance, expected.importance)


def test_dci_does_not_depend_on_units():
    """Trees read float32, which codes of 1e100 are too large for."""
    factors, estimator = known(200), small()
    expected = dci(2.0 * factors, factors, estimator=estimator).importance
    for scale in (1e-100, 1e100):
        got = dci(scale * factors, factors, estimator=estimator).importance
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_what_cannot_be_trained_is_named():
    linear_model = pytest.importorskip("sklearn.linear_model")
    factors = known(50)
    for measure in (sap, dci):
        with pytest.raises(ValueError, match="test_size"):
            measure(factors, factors, test_size=1.0)
        with pytest.raises(ValueError, match="too few"):
            measure(factors[:3], factors[:3])
        with pytest.raises(TypeError, match="random_state"):
            measure(factors, factors, random_state="0")
    with pytest.raises(TypeError, match="estimator must have feature_importances_"):
        dci(factors, factors, estimator=linear_model.LogisticRegression())
    with pytest.raises(TypeError, match="continuous"):
        sap(factors, factors, continuous="yes")
