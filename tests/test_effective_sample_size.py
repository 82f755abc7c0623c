"""effective_sample_size; what it shares with the bounds is in test_importance_bound.py."""

import numpy as np
import pytest

from fastelbo import effective_sample_size, reference
from tests.conftest import assert_close


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 100.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 31), (64, 33), (4097, 2)])
def test_reference(shape, spread, dtype):
    log_w = np.random.default_rng(0).normal(-900, spread, shape).astype(dtype)
    got = effective_sample_size(log_w)
    assert_close(got, reference.effective_sample_size(log_w), np.float64)
    assert got.dtype == np.float64
    assert np.all((got > 1 - 1e-12) & (got < len(log_w) * (1 + 1e-12)))


def test_by_hand():
    log_w = np.log([[1.0, 1.0, 3.0], [1.0, 2.0, 0.0001]])
    expected = [2.0, 9 / 5, 3.0001**2 / 9.00000001]
    np.testing.assert_allclose(effective_sample_size(log_w), expected, rtol=1e-14)
