"""Categorical by logits."""

import numpy as np
import pytest

from fastelbo import Categorical, reference
from fastelbo._catalogue import REDUCTIONS
from tests.conftest import DTYPES, TOLERANCE, assert_close, together


def draw(shape, classes, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, shape), (3 * rng.normal(size=(*shape, classes))).astype(dtype)


@pytest.mark.parametrize("classes", [1, 2, 10, 63, 64, 65, 127, 1000, 4096, 4097, 10_001])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (70, 2), (5, 3, 2)])
@together(reduction=REDUCTIONS, dtype=DTYPES)
def test_classes(classes, shape, reduction, dtype):
    """Few classes, many, and more than are held at once."""
    if classes > 1000 and shape == (70, 2):
        return
    x, logits = draw(shape, classes, dtype)
    got = Categorical().log_prob_and_grad(x, logits, reduction=reduction)
    expected = reference.Categorical().log_prob_and_grad(x, logits, reduction=reduction)
    assert_close(got, expected, dtype, (10.0 * x[0].size, (1.0,)))
    if reduction != "none":
        assert got[0] == Categorical().log_prob(x, logits, reduction=reduction)


@pytest.mark.parametrize("classes", [3, 100])
def test_any_size_of_logits(classes, dtype):
    """Shifting all logits changes nothing; neither do those that are -inf."""
    x, logits = draw((40,), classes, dtype)
    value, (gradient,) = Categorical().log_prob_and_grad(x, logits, reduction="none")
    moved = np.round(logits * 64) / 64
    base = Categorical().log_prob(x, moved, reduction="none")
    for shift in (1000.0, -1000.0):
        got = Categorical().log_prob(x, moved + dtype.type(shift), reduction="none")
        np.testing.assert_array_equal(got, base)
    wider = np.concatenate([logits, np.full((40, 5), -np.inf, dtype)], axis=1)
    rows, (by_wider,) = Categorical().log_prob_and_grad(x, wider, reduction="none")
    np.testing.assert_allclose(rows, value, rtol=TOLERANCE[dtype], atol=5 * TOLERANCE[dtype])
    np.testing.assert_array_equal(by_wider[:, classes:], 0.0)
    assert_close(by_wider[:, :classes], gradient, dtype, 1.0)
    logits[3, 1] = np.nan
    rows = Categorical().log_prob(x, logits, reduction="none")
    assert np.isnan(rows[3])
    assert np.isnan(rows).sum() == 1


@pytest.mark.parametrize("classes", [3, 100])
def test_certain_label_keeps_its_digits(classes, dtype):
    logits = np.full((1, classes), -40.0, dtype)
    logits[0, 1] = 0
    value = Categorical().log_prob([1], logits)
    assert value == pytest.approx(0.0, abs=TOLERANCE[dtype])


@pytest.mark.parametrize("classes", [5, 200])
@pytest.mark.parametrize("bad", [-1, 0.5, 1e18, -np.inf, None])
def test_domain(classes, bad, dtype):
    x, logits = draw((70, 3), classes, dtype)
    x = x.astype(np.float64)
    x[66, 1] = classes if bad is None else bad
    with pytest.raises(ValueError, match=r"x\[66, 1\]"):
        Categorical().log_prob(x, logits)
    with pytest.raises(ValueError, match=r"x\[66, 1\]"):
        Categorical().log_prob_and_grad(x, logits)
    rows, (gradient,) = Categorical(validate=False).log_prob_and_grad(x, logits, reduction="none")
    assert np.isnan(rows[66])
    assert np.isnan(gradient[66, 1]).all()
    assert np.isnan(gradient).sum() == classes
    x[66, 1] = np.nan
    rows = Categorical(missing="nan").log_prob(x, logits, reduction="none")
    assert np.isfinite(rows).all()


def test_shapes():
    with pytest.raises(ValueError, match="logits"):
        Categorical().log_prob([0, 1], np.zeros((3, 2)))
    with pytest.raises(ValueError, match="no classes"):
        Categorical().log_prob([0, 1], np.zeros((2, 0)))
    with pytest.raises(ValueError, match="empty"):
        Categorical().log_prob(np.zeros(0, int), np.zeros((0, 3)))
