"""active_units."""

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, active_units
from tests.test_vae import QUICK
from tests.test_vae import bars as bars


def test_by_hand():
    """Of +a and -a the variance is a squared; it must be above the threshold."""
    spread = np.array([0.0, 0.0625, 0.09, 0.11, 2.0])
    mu = 5.0 + np.stack([spread, -spread])
    assert active_units(mu).tolist() == [False, False, False, True, True]
    assert active_units(mu, threshold=3.9).sum() == 1
    assert active_units(mu, threshold=0.0).sum() == 4
    assert not active_units([[1.0, 2.0]]).any()  # of a single x nothing varies
    exactly = [[0.25], [-0.25]]
    assert not active_units(exactly, threshold=0.0625)


def test_far_from_zero(dtype):
    """The mean is taken away first: squares of what is left lose nothing."""
    mu = np.array([[4096.0, 4096.0], [4096.25, 4096.0]], dtype)
    assert active_units(mu).tolist() == [True, False]
    assert active_units([[1e200], [-1e200]])


def test_a_heavy_kl_collapses_a_vae(bars):
    options = {**QUICK, "epochs": 60, "learning_rate": 1e-2}
    assert active_units(VAE(**options).fit(bars).transform(bars)).any()
    with pytest.warns(fastelbo.TrainingWarning, match="collapsed"):
        collapsed = VAE(**options, beta=100.0).fit(bars)
    assert not active_units(collapsed.transform(bars)).any()


def test_tensors_are_read():
    torch = pytest.importorskip("torch")
    mu = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    for given in (mu, mu.bfloat16()):
        assert active_units(given).tolist() == [True, False]


@pytest.mark.parametrize(
    ("mu", "options", "error", "message"),
    [
        ([1.0, 2.0], {}, ValueError, "mu has shape"),
        (np.zeros((0, 2)), {}, ValueError, "mu is empty"),
        ([[0.0, np.nan]], {}, ValueError, "mu contains NaN or infinity: nan at row 0, column 1"),
        (np.full((2, 2), "a"), {}, ValueError, "mu must hold real numbers"),
        ([[0.0]], {"threshold": -1.0}, ValueError, "threshold must be finite and not negative"),
        ([[0.0]], {"threshold": "1"}, TypeError, "threshold must be a number"),
    ],
)
def test_errors(mu, options, error, message):
    with pytest.raises(error, match=message):
        active_units(mu, **options)
