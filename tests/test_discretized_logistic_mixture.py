"""Mixtures of discretized logistics."""

import numpy as np
import pytest

from fastelbo import DiscretizedLogistic, DiscretizedLogisticMixture, reference
from tests.conftest import TOLERANCE, assert_close


def draw(shape, components, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    logits, means, log_scales = rng.normal(size=(3, shape[0], components, *shape[1:]))
    return x, *(a.astype(dtype) for a in (logits, 0.5 * means, 0.4 * log_scales - 1))


@pytest.mark.parametrize("components", [1, 2, 10, 70])
@pytest.mark.parametrize("shape", [(5, 3), (2, 65), (2, 3, 4, 5), (7,)])
def test_components(components, shape, dtype):
    arrays = draw(shape, components, dtype)
    got = DiscretizedLogisticMixture().log_prob_and_grad(*arrays, reduction="none")
    expected = reference.DiscretizedLogisticMixture().log_prob_and_grad(*arrays, reduction="none")
    steep = np.exp(-arrays[3].astype(np.float64)).max()
    event = max(1, int(np.prod(shape[1:])))
    scales = (event * (5 + 2 * steep), (1 + steep, steep * (1 + steep), (1 + steep) ** 2))
    assert_close(got, expected, dtype, scales)


def test_one_component_is_no_mixture(dtype):
    x, logits, means, log_scales = draw((5, 65), 1, dtype)
    value, (by_logits, *rest) = DiscretizedLogisticMixture().log_prob_and_grad(
        x, logits, means, log_scales
    )
    plain = DiscretizedLogistic().log_prob_and_grad(x, means[:, 0], log_scales[:, 0])
    assert value == pytest.approx(plain[0], rel=TOLERANCE[dtype])
    np.testing.assert_allclose(by_logits, 0.0, atol=1e-7)
    for mine, theirs in zip(rest, plain[1], strict=True):
        assert_close(mine[:, 0], theirs, dtype, np.abs(theirs).max())


def test_masses_add_up_to_one(dtype):
    _, *parameters = draw((1, 1), 4, dtype)
    x = np.arange(256)[:, None]
    parameters = [np.broadcast_to(p, (256, 4, 1)) for p in parameters]
    rows = DiscretizedLogisticMixture().log_prob(x, *parameters, reduction="none")
    assert np.exp(rows).sum() == pytest.approx(1.0, abs=300 * TOLERANCE[dtype])


def test_a_component_can_be_switched_off(dtype):
    x, logits, means, log_scales = draw((5, 33), 3, dtype)
    logits[:, 1] = -np.inf
    with_it = DiscretizedLogisticMixture().log_prob_and_grad(x, logits, means, log_scales)
    keep = [0, 2]
    without = DiscretizedLogisticMixture().log_prob_and_grad(
        x, *(a[:, keep] for a in (logits, means, log_scales))
    )
    assert with_it[0] == pytest.approx(without[0], rel=1e-12)
    for mine, theirs in zip(with_it[1], without[1], strict=True):
        np.testing.assert_array_equal(mine[:, keep], theirs)
        np.testing.assert_array_equal(mine[:, 1], 0.0)


def test_domain_and_shapes():
    x, *parameters = draw((4, 70), 3, np.float64)
    likelihood = DiscretizedLogisticMixture(bins=200)
    x[:] = 7
    likelihood.log_prob(x, *parameters)
    x[2, 66] = 201
    with pytest.raises(ValueError, match=r"x\[2, 66\]"):
        likelihood.log_prob(x, *parameters)
    DiscretizedLogisticMixture(bins=200, validate=False).log_prob(x, *parameters)
    mask = x < 200
    likelihood.log_prob(x, *parameters, mask=mask)
    with pytest.raises(ValueError, match="means"):
        likelihood.log_prob(x, parameters[0], parameters[1][:, :2], parameters[2])
    with pytest.raises(ValueError, match="logits"):
        likelihood.log_prob(x, *(p[:, 0] for p in parameters))
    with pytest.raises(ValueError, match="no components"):
        likelihood.log_prob(x, *(p[:, :0] for p in parameters))
    with pytest.raises(ValueError, match="bins"):
        DiscretizedLogisticMixture(bins=1)
