"""normalized_weights; what it shares with the bounds is in test_importance_bound.py."""

import numpy as np

from fastelbo import normalized_weights


def test_by_hand():
    log_w = np.log([[1.0, 1.0], [1.0, 2.0], [2.0, 0.0001]]) - 900
    expected = [[0.25, 1 / 3.0001], [0.25, 2 / 3.0001], [0.5, 0.0001 / 3.0001]]
    np.testing.assert_allclose(normalized_weights(log_w), expected, rtol=1e-12)
