"""flow_elbo and flow_elbo_and_grad: a composition."""

import numpy as np
import pytest

import fastelbo
from fastelbo import flow_elbo, flow_elbo_and_grad
from tests.conftest import numerical_gradient

NAMES = ("x", "x_t", "t", "velocity", "mu", "logvar", "x_recon")


def draw(batch=6, features=4, latent=3):
    rng = np.random.default_rng(1)
    x, x_recon = rng.uniform(size=(2, batch, features))
    x_t, velocity, mu, logvar = rng.normal(size=(4, batch, latent))
    t = rng.uniform(0, 0.9, batch)
    return dict(zip(NAMES, (x, x_t, t, velocity, mu, logvar, x_recon), strict=True))


def test_by_hand():
    """v = (1 - 0) / (1 - 0.5) = 2; the error (2 - 1)^2; the KL 1/2; the reconstruction -4."""
    arrays = [[1.0, 2.0]], [[0.0]], 0.5, [[1.0]], [[1.0]], [[0.0]], [[1.0, 0.0]]
    result, grad = flow_elbo_and_grad(*arrays, weight=3.0, beta=2.0)
    assert result == (-4.0 - 2 * 0.5 - 3 * 1.0, -4.0, 0.5, 1.0)
    assert grad.velocity == 6.0
    assert grad.mu == -2.0 - 6.0 * 2
    assert grad.logvar == 0.0
    np.testing.assert_array_equal(grad.x_recon, [[0.0, 4.0]])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_what_its_parts_make(reduction):
    arrays = draw()
    result = flow_elbo(*arrays.values(), weight=0.3, beta=2.0, reduction=reduction)
    x, x_t, t, velocity, mu, logvar, x_recon = arrays.values()
    bound = fastelbo.elbo(x, mu, logvar, x_recon, beta=2.0, reduction=reduction)
    target = fastelbo.endpoint_velocity(mu, x_t, t)
    error = -fastelbo.SquaredError().log_prob(target, velocity, reduction=reduction)
    np.testing.assert_array_equal(result.velocity_error, error)
    np.testing.assert_allclose(result.objective, bound.elbo - 0.3 * error, rtol=1e-14)
    assert np.all(result.velocity_error > 0)


def test_several_times_are_several_rows():
    """The mean over rows is (1/T) sum_t."""
    at = [draw(batch=5), {**draw(batch=5), "t": np.full(5, 0.5)}]
    together = {name: np.concatenate([arrays[name] for arrays in at]) for name in NAMES}
    expected = np.mean([flow_elbo(*arrays.values()).objective for arrays in at])
    assert flow_elbo(*together.values()).objective == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("which", ["velocity", "mu", "logvar", "x_recon"])
def test_gradients_are_central_differences(which):
    arrays = draw(batch=3)
    _, grad = flow_elbo_and_grad(*arrays.values(), weight=0.7, beta=1.5)

    def value(moved):
        return flow_elbo(*{**arrays, which: moved}.values(), weight=0.7, beta=1.5).objective

    expected = numerical_gradient(value, arrays[which])
    np.testing.assert_allclose(getattr(grad, which), expected, rtol=1e-7, atol=1e-9)


def test_likelihoods_of_several_outputs_and_masks():
    arrays = draw()
    mask = np.random.default_rng(3).uniform(size=arrays["x"].shape) < 0.7
    arrays["x"] = np.where(mask, arrays["x"], np.nan)
    arrays["x_recon"] = (arrays["x_recon"], 0.3 * arrays["x_recon"])
    options = {"likelihood": fastelbo.Gaussian("learned"), "mask": mask}
    result, grad = flow_elbo_and_grad(*arrays.values(), **options)
    assert np.isfinite(result.objective)
    for gradient in grad.x_recon:
        np.testing.assert_array_equal(gradient[~mask], 0)


def test_out():
    arrays = draw()
    _, expected = flow_elbo_and_grad(*arrays.values())
    out = tuple(np.empty_like(a) for a in expected)
    _, grad = flow_elbo_and_grad(*arrays.values(), out=out)
    for mine, wanted, given in zip(grad, expected, out, strict=True):
        assert mine is given
        np.testing.assert_array_equal(mine, wanted)
    for wrong in ("x_t", "velocity", "mu", "logvar"):
        before = arrays[wrong].copy()
        for position in range(3):
            chosen = [None] * 4
            chosen[position] = arrays[wrong]
            with pytest.raises(ValueError, match="overlaps"):
                flow_elbo_and_grad(*arrays.values(), out=tuple(chosen))
        np.testing.assert_array_equal(arrays[wrong], before)
    with pytest.raises(TypeError, match="like FlowElboGrad"):
        flow_elbo_and_grad(*arrays.values(), out=out[:3])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": -1e-9}, "^weight must be finite and not negative"),
        ({"weight": np.nan}, "^weight must be finite"),
        ({"beta": -1.0}, "^beta"),
        ({"t": 1.0}, r"^t = 1\.0 lies outside \[0, 1\)"),
        ({"t": [0.5, 0.5]}, "^t has shape"),
        ({"velocity": [[1.0]]}, "^velocity has shape"),
        ({"x_t": [[1.0]]}, "^x_t has shape"),
        ({"mu": np.zeros(6)}, "^mu has shape"),
        ({"logvar": [[1.0]]}, "^logvar has shape"),
    ],
)
def test_errors_name_what_is_wrong(changed, message):
    given = {**draw(), **changed}
    out = tuple(np.full((6, n), 77.0) for n in (3, 3, 3, 4))
    with pytest.raises(ValueError, match=message):
        flow_elbo(**given)
    with pytest.raises(ValueError, match=message):
        flow_elbo_and_grad(**given, out=out)
    assert all((array == 77).all() for array in out)


def test_outputs_are_as_many_as_the_likelihood_reads():
    for function in (flow_elbo, flow_elbo_and_grad):
        with pytest.raises(TypeError, match=r"takes 1 decoder output\(s\) .* got 2"):
            function(**{**draw(), "x_recon": (draw()["x_recon"],) * 2})


def test_torch_refuses_a_negative_weight():
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    tensors = {name: torch.tensor(array) for name, array in draw().items()}
    with pytest.raises(ValueError, match=r"^weight must be finite and not negative"):
        ft.flow_elbo(**tensors, weight=-1.0)
    with pytest.raises(ValueError, match=r"^t = 1\.0 lies outside"):
        ft.flow_elbo(**{**tensors, "t": 1.0})
