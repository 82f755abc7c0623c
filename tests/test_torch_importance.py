"""The gradient estimators of fastelbo.torch.iwae."""

import numpy as np
import pytest

import fastelbo
from tests.torch_cases import CASE_BY_NAME, REDUCTIONS, torch

ft = pytest.importorskip("fastelbo.torch")


def test_stl_leaves_out_the_score(composite):
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()

    def grads():
        options = {"likelihood": ft.Bernoulli(), "estimator": "stl"}
        bound = ft.iwae(x, z, mu, logvar, logits, **options)
        inputs = (z, mu, logvar, logits)
        found = torch.autograd.grad(bound, inputs, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)]

    mine = grads()
    assert not mine[1].any()
    assert mine[0].any()
    composite()
    torch.testing.assert_close(mine, grads())


@pytest.mark.parametrize("has_prior", [False, True], ids=["kernels", "prior"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_dreg_weighs_the_gradient_of_z(has_prior, reduction):
    """What a decoder's weights get is the standard gradient, and an encoder's has squared ones."""
    x, _, mu, logvar, _ = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    noise = torch.randn(5, *mu.shape, dtype=mu.dtype)
    decoder = torch.randn(mu.shape[1], x.shape[1], dtype=mu.dtype, requires_grad=True)
    z = ft.reparameterize(mu, logvar, noise=noise, samples=5)
    normal = torch.distributions.Normal(torch.zeros_like(mu[0]), torch.ones_like(mu[0]))
    prior = torch.distributions.Independent(normal, 1) if has_prior else None
    options = {"estimator": "dreg", "reduction": reduction}
    loss = ft.IwaeLoss(ft.Bernoulli(), prior=prior, **options)(x, z, mu, logvar, z @ decoder)
    mine = torch.autograd.grad(-loss.sum(), (mu, logvar, decoder))

    points, weights = z.detach().numpy(), decoder.detach().numpy()
    arrays = (x.numpy(), points, mu.detach().numpy(), logvar.detach().numpy(), points @ weights)
    value, grad = fastelbo.iwae_and_grad(*arrays, likelihood=fastelbo.Bernoulli(), **options)
    np.testing.assert_allclose(-loss.detach().numpy(), value, rtol=1e-12)
    total = grad.z + grad.weights[..., None] * (grad.x_recon @ weights.T)
    by_latents = fastelbo.reparameterize_backward(total, *arrays[2:4], points)
    by_decoder = np.einsum("kbl,kbd->ld", points, grad.x_recon)
    for one, other in zip(mine, (*by_latents, by_decoder), strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-9, atol=1e-12)


@pytest.fixture
def dreg():
    """Samples, weights of a decoder, and a function that gives the bound of other data."""
    x, _, mu, logvar, _ = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    z = ft.reparameterize(mu, logvar, rng=1, samples=5)
    decoder = torch.randn(mu.shape[1], x.shape[1], dtype=mu.dtype, requires_grad=True)

    def bound(scale=1.0):
        options = {"likelihood": ft.Bernoulli(), "estimator": "dreg"}
        return ft.iwae(scale * x, z, mu, logvar, z @ decoder, **options)

    return bound, mu, decoder


def test_dreg_of_a_bound_that_is_not_used_changes_nothing(dreg):
    bound, mu, _ = dreg
    used = bound()
    (expected,) = torch.autograd.grad(used, mu, retain_graph=True)
    other = bound(0.5)
    (mine,) = torch.autograd.grad(used, mu, retain_graph=True)
    assert torch.equal(mine, expected)
    torch.autograd.grad(other, mu, retain_graph=True)
    assert torch.equal(torch.autograd.grad(used, mu)[0], expected)


def test_dreg_after_a_pass_that_does_not_reach_z(dreg):
    bound, mu, decoder = dreg
    (expected,) = torch.autograd.grad(bound(), mu, retain_graph=True)
    torch.autograd.grad(bound(0.5), decoder, retain_graph=True)
    assert torch.equal(torch.autograd.grad(bound(), mu)[0], expected)


def test_dreg_refuses_two_bounds_in_one_pass(dreg):
    bound, mu, _ = dreg
    with pytest.raises(RuntimeError, match="two bounds"):
        torch.autograd.grad(bound() + bound(0.5), mu)


def test_dreg_of_samples_without_gradient_is_standard():
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    grads = [
        torch.autograd.grad(ft.iwae(x, z.detach(), mu, logvar, logits, estimator=estimator), logits)
        for estimator in ("standard", "dreg")
    ]
    assert torch.equal(*[g for (g,) in grads])


def test_a_merged_stream_is_in_the_wider_dtype():
    log_w = torch.randn(3, 4)
    single, double = (ft.StreamingBound().update(w) for w in (log_w, log_w.double()))
    assert single.merge(double).bound().dtype == torch.float64
    assert double.merge(ft.StreamingBound().update(log_w)).bound().dtype == torch.float64


def test_log_weights_of_what_is_there():
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    mask = torch.arange(x.numel()).reshape(x.shape) % 3 > 0
    given = [t.detach() for t in (x, z, mu, logvar, logits)]
    got = ft.log_weights(*given, likelihood=ft.Bernoulli(), mask=mask)
    arrays = [t.numpy() for t in given]
    expected = fastelbo.log_weights(*arrays, likelihood=fastelbo.Bernoulli(), mask=mask.numpy())
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert (got != ft.log_weights(*given, likelihood=ft.Bernoulli())).any()
