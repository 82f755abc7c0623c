"""What fastelbo.torch promises of noise, dtypes, threads and errors."""

import numpy as np
import pytest

import fastelbo
from tests.torch_cases import CASE_BY_NAME, LIKELIHOODS, torch

ft = pytest.importorskip("fastelbo.torch")


def test_noise_follows_the_seed():
    mu, logvar = torch.zeros(3, 4), torch.zeros(3, 4)

    def draw(**options):
        return ft.reparameterize(mu, logvar, **options)

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.manual_seed(5)
    assert torch.equal(draw(), first)
    assert torch.equal(draw(), second)
    assert not torch.equal(first, second)
    generator = torch.Generator().manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(draw(rng=generator), first)
    assert torch.equal(state, torch.get_rng_state())
    for key in (0, 7, (1 << 64) - 1):
        expected = fastelbo.reparameterize(mu.numpy(), logvar.numpy(), rng=key)
        assert torch.equal(draw(rng=key), torch.from_numpy(expected))
    z = ft.elbo(mu, mu, logvar, mu, rng=7).z
    assert torch.equal(z, draw(rng=7))
    assert ft.elbo(mu, mu, logvar, mu).z is None


def test_what_is_saved_for_backward():
    """The gradients alone, for as long as the graph is kept; inputs may change in between."""
    x, *wanted = CASE_BY_NAME["elbo"].draw().values()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        loss = ft.ElboLoss()(x, *wanted)
    assert [t.shape for t in saved] == [t.shape for t in wanted]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    with torch.no_grad():
        wanted[-1].zero_()
    assert all(map(torch.equal, first, torch.autograd.grad(loss, wanted)))
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(loss, wanted)


def test_hooks_and_changes_of_what_is_saved():
    """A hook of the loss sees its gradient; what was saved may not change before it is used."""
    _, *wanted = tensors = CASE_BY_NAME["elbo"].draw().values()
    loss = ft.ElboLoss()(*tensors)
    kept = [g.clone() for g in torch.autograd.grad(loss, wanted, retain_graph=True)]
    loss.register_hook(lambda upstream: 2.0 * upstream)
    doubled = torch.autograd.grad(loss, wanted, retain_graph=True)
    assert all(torch.equal(g, 2.0 * k) for g, k in zip(doubled, kept, strict=True))
    loss.grad_fn.saved_tensors[0].zero_()
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(loss, wanted)


def test_drawn_noise_is_that_of_the_gradient():
    """Backward draws it again instead of keeping it."""
    mu = torch.randn(3, 4, requires_grad=True)
    logvar = torch.randn(3, 4, requires_grad=True)
    z, _ = ft.reparameterize_kl(mu, logvar, samples=5)
    grad_z = torch.randn(5, 3, 4)
    d_mu, d_logvar = torch.autograd.grad(z, (mu, logvar), grad_z)
    torch.testing.assert_close(d_mu, grad_z.sum(0))
    torch.testing.assert_close(d_logvar, (0.5 * grad_z * (z - mu)).sum(0))


def test_mixed_dtypes_are_promoted():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    few = [t.detach().float().requires_grad_() for t in (mu, logvar)]
    loss = ft.ElboLoss(ft.Bernoulli())(x, *few, logits)
    assert loss.dtype == torch.float64
    loss.backward()
    assert few[0].grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_integer_data_is_read_as_it_is(dtype):
    logits = torch.randn(3, 4, requires_grad=True)
    x = torch.tensor([[0, 1, 1, 0]] * 3)
    whole, floats = (ft.Bernoulli().log_prob(a, logits) for a in (x.to(dtype), x.float()))
    assert torch.equal(whole, floats)
    assert whole.dtype == torch.float32


def test_threads_are_those_of_pytorch(monkeypatch):
    seen = []
    original = fastelbo.kl_standard_normal

    def spy(*arguments, num_threads, **options):
        seen.append(num_threads)
        return original(*arguments, num_threads=num_threads, **options)

    monkeypatch.setattr(fastelbo, "kl_standard_normal", spy)
    before = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            ft.kl_standard_normal(torch.zeros(2, 2), torch.zeros(2, 2))
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_errors_name_the_argument():
    mu = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"mu must be a torch\.Tensor"):
        ft.kl_standard_normal(mu.numpy(), mu)
    with pytest.raises(ValueError, match="logvar has shape"):
        ft.kl_standard_normal(mu, mu[:, :2])
    with pytest.raises(ValueError, match="reduction"):
        ft.kl_standard_normal(mu, mu, reduction="max")
    with pytest.raises(ValueError, match="rng or noise"):
        ft.reparameterize(mu, mu, rng=1, noise=mu)
    with pytest.raises(TypeError, match="likelihood must be an object, got the class Bernoulli"):
        ft.elbo(mu, mu, mu, mu, likelihood=fastelbo.Bernoulli)
    with pytest.raises(ValueError, match=r"x\[0, 0\] = 2"):
        ft.Bernoulli().log_prob(mu + 2, mu)
    with pytest.raises(ValueError, match="scale"):
        ft.Gaussian(-1.0).log_prob(mu, mu)
    with pytest.raises(TypeError, match="decoder output"):
        ft.Gaussian("learned").log_prob(mu, mu)
    with pytest.raises(ValueError, match="dataset_size"):
        ft.total_correlation(mu, mu, mu, dataset_size=0)
    with pytest.raises(ValueError, match="mu has shape"):
        ft.beta_tcvae_elbo(mu[:1], mu, mu, mu, mu[:1], dataset_size=2)
    with pytest.raises(ValueError, match="log_weights has shape"):
        ft.mixture_log_prob(mu, mu, mu, mu)
    with pytest.raises(ValueError, match="kernel"):
        ft.mmd(mu, mu, kernel="laplace")
    with pytest.raises(ValueError, match="estimator"):
        ft.mmd(mu, mu, estimator="exact")
    with pytest.raises(ValueError, match="estimator"):
        ft.iwae(mu, mu[None], mu, mu, mu[None], estimator="vimco")


@pytest.mark.parametrize("row", LIKELIHOODS, ids=lambda row: row.label)
def test_likelihoods_are_those_of_fastelbo(row):
    """The same parameters; a description that is true; arguments may be tensors."""
    mine, theirs = row.make(ft), row.make(fastelbo)
    assert mine.parameters == theirs.parameters
    assert isinstance(mine.kernels, type(theirs))
    again = eval(repr(mine), {**vars(ft), "inf": np.inf})
    assert repr(again.spec) == repr(mine.spec)  # blocks are equal to themselves alone


def test_arguments_of_likelihoods_may_be_tensors():
    scales = torch.rand(7) + 0.5
    x, mean = torch.randn(4, 7), torch.randn(4, 7)
    value = ft.Gaussian(scales).log_prob(x, mean)
    assert value == ft.Gaussian(scales.tolist()).log_prob(x, mean)
    expected = fastelbo.Gaussian(scales.numpy()).log_prob(x.numpy(), mean.numpy())
    assert value.item() == pytest.approx(expected, rel=1e-6)
