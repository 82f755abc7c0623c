"""mixture_of_experts and its gradients."""

import numpy as np
import pytest

from fastelbo import mixture_of_experts, mixture_of_experts_and_grad, reference
from tests.conftest import assert_close, numerical_gradient
from tests.experts import draw


def with_z(dtype, samples=None, **options):
    mu, logvar, seen = draw(dtype, **options)
    shape = mu.shape[1:] if samples is None else (samples, *mu.shape[1:])
    return np.random.default_rng(3).normal(size=shape).astype(dtype), mu, logvar, seen


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mask", ["all", "some"])
@pytest.mark.parametrize("samples", [None, 1, 3])
def test_reference(samples, mask, reduction, dtype):
    arrays = with_z(dtype, samples, experts=3, batch=17, cols=9, mask=mask)
    value, gradients = mixture_of_experts_and_grad(*arrays, reduction=reduction)
    expected, theirs = reference.mixture_of_experts_and_grad(*arrays, reduction=reduction)
    assert_close(value, expected, dtype, 100 + np.abs(np.asarray(expected)))
    for mine, other in zip(gradients, theirs, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, other, dtype, 100 * np.abs(other).max())
    got = mixture_of_experts(*arrays, reduction=reduction)
    assert_close(got, value, np.float64, np.abs(np.asarray(value)))


@pytest.mark.parametrize("mask", ["all", "some"])
def test_differences(mask):
    z, mu, logvar, seen = with_z(np.float64, 2, mask=mask)
    mu, logvar = np.nan_to_num(mu), np.nan_to_num(logvar)
    arrays = [z, mu, logvar]
    _, gradients = mixture_of_experts_and_grad(*arrays, seen)
    for i, mine in enumerate(gradients):

        def f(a, i=i):
            return mixture_of_experts(*arrays[:i], a, *arrays[i + 1 :], seen)

        np.testing.assert_allclose(mine, numerical_gradient(f, arrays[i]), rtol=1e-7, atol=1e-9)


def test_torch():
    torch = pytest.importorskip("torch")
    z, mu, logvar, _ = with_z(np.float64)
    t, m, v = (torch.from_numpy(a).requires_grad_() for a in (z, mu, logvar))
    normal = torch.distributions.Normal(m, torch.exp(0.5 * v))
    value = (torch.logsumexp(normal.log_prob(t).sum(2), 0) - np.log(3)).mean()
    got, gradients = mixture_of_experts_and_grad(z, mu, logvar)
    assert got == pytest.approx(value.item(), rel=1e-13)
    for mine, other in zip(gradients, torch.autograd.grad(value, (t, m, v)), strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-10, atol=1e-13)


def test_out_and_errors():
    z, mu, logvar, _ = with_z(np.float64)
    outs = tuple(map(np.empty_like, (z, mu, logvar)))
    _, gradients = mixture_of_experts_and_grad(z, mu, logvar, out=outs)
    assert gradients.logvar is outs[2]
    for name, arrays in [("z", (z[:3], mu, logvar)), ("z", (z[0], mu, logvar)), ("mu", (z, z, z))]:
        with pytest.raises(ValueError, match=f"^{name} has shape"):
            mixture_of_experts(*arrays)
    with pytest.raises(ValueError, match="mask leaves no expert"):
        mixture_of_experts(z, mu, logvar, np.zeros((3, 5), bool))
    with pytest.raises(ValueError, match="reduction"):
        mixture_of_experts(z, mu, logvar, reduction="median")
