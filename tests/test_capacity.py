"""capacity and capacity_and_grad."""

import numpy as np
import pytest

from fastelbo import BetaSchedule, capacity, capacity_and_grad

#: KL 2, 0.5 and 0: 2.5 / 3 in the mean.
MU, LOGVAR = [[2.0], [-1.0], [0.0]], [[0.0]] * 3


def test_of_the_mean():
    value, grad = capacity_and_grad(MU, LOGVAR, 0.5, gamma=3.0)
    assert value == pytest.approx(1.0)
    np.testing.assert_allclose(grad.mu, [[2.0], [-1.0], [0.0]])
    value, grad = capacity_and_grad(MU, LOGVAR, 1.5, gamma=3.0)
    assert value == pytest.approx(2.0)
    np.testing.assert_allclose(grad.mu, [[-2.0], [1.0], [0.0]])


def test_of_samples():
    value, grad = capacity_and_grad(MU, LOGVAR, 0.5, gamma=3.0, of="sample")
    assert value == pytest.approx(2.0)  # 1.5, 0, 0.5
    np.testing.assert_allclose(grad.mu, [[2.0], [0.0], [0.0]])
    _, grad = capacity_and_grad([[0.0]], [[np.log(4.0)]], 9.0, gamma=2.0, of="sample")
    np.testing.assert_allclose(grad.logvar, [[-3.0]])


def test_at_the_target_it_is_flat():
    for of in ("mean", "sample"):
        value, grad = capacity_and_grad([[2.0], [2.0]], [[0.0], [0.0]], 2.0, of=of)
        assert value == 0.0
        np.testing.assert_array_equal(grad.mu, np.zeros((2, 1)))


def test_zero_target_is_gamma_times_the_kl():
    assert capacity(MU, LOGVAR, 0.0, gamma=4.0) == pytest.approx(4 * 2.5 / 3)
    assert capacity(MU, LOGVAR, 0.0, gamma=4.0, of="sample") == pytest.approx(4 * 2.5 / 3)


def test_a_schedule_is_a_target():
    schedule = BetaSchedule(stop=25.0, steps=100)
    assert capacity(MU, LOGVAR, schedule(10), gamma=1.0) == pytest.approx(2.5 - 2.5 / 3)


@pytest.mark.parametrize("of", ["mean", "sample"])
def test_overflow_is_infinite(of, dtype):
    mu = np.array([[np.finfo(dtype).max], [0.0]], dtype)
    value = capacity(mu, 0 * mu, 1.0, of=of)
    assert value == np.inf
    assert np.isnan(capacity(mu * np.nan, 0 * mu, 1.0, of=of))


@pytest.mark.parametrize("of", ["mean", "sample"])
def test_of_no_weight_infinity_counts_nothing(of, composite):
    """In value and gradient; what is NaN stays so. On tensors, too, by kernels or not."""
    mu, logvar = np.array([[1e200, 1.0], [0.0, -3.0]]), np.array([[800.0, 1.0], [0.0, 0.5]])
    value, grad = capacity_and_grad(mu, logvar, 1.0, gamma=0, of=of)
    assert value == capacity(mu, logvar, 1.0, gamma=0, of=of) == 0.0
    np.testing.assert_array_equal(grad, np.zeros((2, 2, 2)))
    assert np.isnan(capacity(np.nan * mu, logvar, 1.0, gamma=0, of=of))
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    for _ in range(2):
        tensors = [torch.tensor(a, requires_grad=True) for a in (mu, logvar)]
        value = ft.capacity(*tensors, 1.0, gamma=0, of=of)
        value.backward()
        assert value.item() == 0.0
        assert all((tensor.grad == 0).all() for tensor in tensors)
        composite()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((MU, LOGVAR, -1.0), {}, ValueError, "target must be finite and not negative"),
        ((MU, LOGVAR, [1.0]), {}, TypeError, "target must be a number"),
        ((MU, LOGVAR, 1.0), {"gamma": -1.0}, ValueError, "gamma must be finite and not negative"),
        ((MU, LOGVAR, 1.0), {"of": "batch"}, ValueError, "of must be"),
        ((MU, LOGVAR, 1.0), {"of": None}, TypeError, "of must be"),
        ((MU, [[0.0]], 1.0), {}, ValueError, "logvar has shape"),
    ],
)
def test_errors(arguments, options, error, message):
    for function in (capacity, capacity_and_grad):
        with pytest.raises(error, match=message):
            function(*arguments, **options)


def test_tensors_pull_on_the_target():
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    target = torch.tensor(1.5, requires_grad=True)
    mu, logvar = torch.tensor(MU), torch.tensor(LOGVAR)
    ft.capacity(mu, logvar, target, gamma=3.0).backward()
    assert target.grad == 3.0
    with pytest.raises(ValueError, match="target must be finite and not negative"):
        ft.capacity(mu, logvar, -1.0)
