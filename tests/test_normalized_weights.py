"""normalized_weights; what it shares with the bounds is in test_importance_bound.py."""

import numpy as np
import pytest

from fastelbo import normalized_weights, reference
from tests.conftest import assert_close


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 100.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 31), (64, 33), (4097, 2)])
def test_reference(shape, spread, dtype):
    log_w = np.random.default_rng(0).normal(-900, spread, shape).astype(dtype)
    got = normalized_weights(log_w)
    assert got.dtype == dtype
    assert_close(got, reference.normalized_weights(log_w), dtype)
    np.testing.assert_allclose(got.sum(axis=0), 1.0, rtol=1e-5 if dtype == np.float32 else 1e-13)


def test_scipy():
    special = pytest.importorskip("scipy.special")
    log_w = np.random.default_rng(0).normal(-900, 30, (60, 50))
    expected = special.softmax(log_w, axis=0)
    np.testing.assert_allclose(normalized_weights(log_w), expected, rtol=1e-13)
