"""effective_sample_size; what it shares with the bounds is in test_importance_bound.py."""

import numpy as np

from fastelbo import effective_sample_size


def test_by_hand():
    log_w = np.log([[1.0, 1.0, 3.0], [1.0, 2.0, 0.0001]])
    expected = [2.0, 9 / 5, 3.0001**2 / 9.00000001]
    np.testing.assert_allclose(effective_sample_size(log_w), expected, rtol=1e-14)
