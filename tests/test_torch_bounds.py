"""The bounds and losses of fastelbo.torch: parts, priors, what they stand in for."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastelbo
from tests.torch_cases import CASE_BY_NAME, REDUCTIONS, torch

ft = pytest.importorskip("fastelbo.torch")


@pytest.mark.parametrize("beta", [0.0, 0.5, 2])
def test_every_part_of_an_elbo_has_its_own_gradient(beta):
    x, mu, logvar, logits, noise = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    likelihood = ft.Bernoulli()
    result = ft.elbo(x, mu, logvar, logits, likelihood=likelihood, beta=beta, noise=noise)
    parts = ft.ElboResult(
        None,
        likelihood.log_prob(x, logits),
        ft.kl_standard_normal(mu, logvar),
        ft.reparameterize(mu, logvar, noise=noise),
    )
    parts = parts._replace(elbo=parts.reconstruction - beta * parts.kl)
    inputs = (mu, logvar, logits)
    for name in result._fields:
        alone, expected = (
            torch.autograd.grad(
                getattr(r, name).sum(), inputs, retain_graph=True, allow_unused=True
            )
            for r in (result, parts)
        )
        for mine, theirs in zip(alone, expected, strict=True):
            theirs = torch.zeros(()) if theirs is None else theirs
            mine = torch.zeros(()) if mine is None else mine
            np.testing.assert_allclose(mine, theirs.expand_as(mine), rtol=1e-12, atol=1e-15)


def test_weights_of_the_aggregate_have_gradients():
    """Of the objective by each: minus the part that it weighs."""
    arrays = CASE_BY_NAME["beta_tcvae_elbo"].draw().values()
    weights = torch.tensor([0.5, 6.0, 2.0], dtype=torch.float64, requires_grad=True)
    names = ("alpha", "beta", "gamma")
    given = dict(zip(names, weights, strict=True))
    result = ft.beta_tcvae_elbo(*arrays, dataset_size=100, **given)
    known = ft.beta_tcvae_elbo(
        *arrays, dataset_size=100, **dict(zip(names, weights.tolist(), strict=True))
    )
    torch.testing.assert_close(result.elbo, known.elbo)
    (slopes,) = torch.autograd.grad(result.elbo, weights, retain_graph=True)
    parts = (known.mutual_information, known.total_correlation, known.dimension_wise_kl)
    torch.testing.assert_close(slopes, -torch.stack(parts))
    free = [a for a in arrays if a.requires_grad]
    mine, theirs = (torch.autograd.grad(r.elbo, free) for r in (result, known))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_an_elbo_of_latents_in_another_dtype(beta):
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    single, options = logits.float(), {"likelihood": ft.Bernoulli(), "beta": beta}
    mine = ft.elbo(x, mu, logvar, single, **options)
    theirs = ft.elbo(x, mu, logvar, single.double(), **options)
    torch.testing.assert_close(mine.elbo, theirs.elbo)
    inputs = (mu, logvar, logits)
    mine, theirs = (
        torch.autograd.grad(r.elbo, inputs, allow_unused=True, materialize_grads=True)
        for r in (mine, theirs)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


def test_a_loss_hands_its_gradient_on_as_it_is():
    """Its upstream gradient is one: nothing is multiplied, nothing copied."""
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    seen = []
    hidden = logits * 1.0
    hidden.register_hook(lambda g: seen.append(g.data_ptr()))
    loss = ft.ElboLoss(ft.Bernoulli())(x, mu, logvar, hidden)
    kept = loss.grad_fn.saved_tensors[2].data_ptr()
    loss.backward()
    assert seen == [kept]


def test_losses_are_minus_the_bounds():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    for beta, reduction in [(1.0, "mean"), (0.0, "sum"), (4.0, "none")]:
        options = {"beta": beta, "free_bits": 0.1, "reduction": reduction}
        loss = ft.ElboLoss(ft.Bernoulli(), **options)(x, mu, logvar, logits)
        bound = ft.elbo(x, mu, logvar, logits, likelihood=ft.Bernoulli(), **options).elbo
        torch.testing.assert_close(loss, -bound)
        grads = [torch.autograd.grad(t.sum(), (mu, logvar, logits)) for t in (loss, -bound)]
        torch.testing.assert_close(*grads)
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    for reduction in REDUCTIONS:
        loss = ft.IwaeLoss(ft.Bernoulli(), reduction=reduction)(x, z, mu, logvar, logits)
        bound = ft.iwae(x, z, mu, logvar, logits, likelihood=ft.Bernoulli(), reduction=reduction)
        torch.testing.assert_close(loss, -bound)
        grads = [torch.autograd.grad(t.sum(), (z, mu, logvar, logits)) for t in (loss, -bound)]
        torch.testing.assert_close(*grads)
    x, z, mu, logvar, logits = CASE_BY_NAME["beta_tcvae_elbo"].draw().values()
    for reduction in REDUCTIONS:
        options = {"alpha": 0.5, "beta": 3.0, "gamma": 2.0, "reduction": reduction}
        loss = ft.BetaTCVAELoss(ft.Bernoulli(), dataset_size=9, **options)(x, z, mu, logvar, logits)
        bound = ft.beta_tcvae_elbo(
            x, z, mu, logvar, logits, dataset_size=9, likelihood=ft.Bernoulli(), **options
        ).elbo
        torch.testing.assert_close(loss, -bound)
        grads = [torch.autograd.grad(t.sum(), (z, mu, logvar, logits)) for t in (loss, -bound)]
        torch.testing.assert_close(*grads)


def test_a_loss_of_the_aggregate_runs_its_kernel_once(monkeypatch):
    """The gradient comes with the value; that of the parts alone is a second pass."""
    calls = []
    original = fastelbo.total_correlation_and_grad
    monkeypatch.setattr(
        fastelbo,
        "total_correlation_and_grad",
        lambda *a, **k: calls.append(k["weights"]) or original(*a, **k),
    )
    x, z, mu, logvar, logits = CASE_BY_NAME["beta_tcvae_elbo"].draw().values()
    ft.BetaTCVAELoss(ft.Bernoulli(), dataset_size=9, beta=3.0)(x, z, mu, logvar, logits).backward()
    assert calls == [(1.0, 3.0, 1.0)]
    ft.total_correlation(z, mu, logvar, dataset_size=9).mutual_information.backward()
    assert calls[1:] == [[1.0, 0.0, 0.0]]


def test_losses_mask_print_copy_and_pickle():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    loss = ft.ElboLoss(ft.Bernoulli(x_scale=0.5), beta=2.0)
    mask = x > 0.5
    value = loss(x, mu, logvar, logits, mask=mask)
    arrays = [t.detach().numpy() for t in (x, mu, logvar, logits)]
    likelihood = fastelbo.Bernoulli(x_scale=0.5)
    expected = fastelbo.elbo(*arrays, likelihood=likelihood, beta=2.0, mask=mask.numpy()).elbo
    assert value.item() == pytest.approx(-expected, rel=1e-14)
    assert "validate=True, x_scale=0.5)" in repr(loss)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin(x, mu, logvar, logits, mask=mask) == value
    assert "stl" in repr(ft.IwaeLoss(estimator="stl"))
    assert "beta=3.0" in repr(ft.BetaTCVAELoss(dataset_size=9, beta=3.0))


def test_vae_loss_is_the_line_of_the_example():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    line = bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    loss = ft.vae_loss(logits, x, mu, logvar)
    torch.testing.assert_close(loss, line)
    grads = [torch.autograd.grad(t, (logits, mu, logvar)) for t in (loss, line)]
    torch.testing.assert_close(*grads)


def test_drop_ins_validate():
    """In the words of what they replace; a swapped call is told the order."""
    x = torch.tensor([[3.0, 0.0]])
    mean, theta = torch.tensor([[1.0, -1.0]]), torch.ones(2)
    logits, latent = torch.tensor([[0.5, 9.0]]), torch.zeros(1, 3)
    for call, message in (
        (lambda **o: ft.negative_binomial_loss(x, mean, theta, **o), r"^mu\[0, 1\] = -1 lies"),
        (lambda **o: ft.negative_binomial_loss(x, mean.abs(), -theta, **o), r"^theta.* = -1 lies"),
        (
            lambda **o: ft.negative_binomial_loss(x + 0.5, theta[None], theta, **o),
            r"^x\[0, 0\] = 3.5",
        ),
        (
            lambda **o: ft.zero_inflated_negative_binomial_loss(x, mean, theta, mean, **o),
            r"^mu\[0, 1\] = -1 lies .*; the order is x, mu, theta, pi$",
        ),
        (
            lambda **o: ft.vae_loss(x / 3, logits, latent, latent, **o),
            r"^x\[0, 1\] = 9 lies .*; the order is logits, x, mu, logvar$",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
        assert call(validate=False).numel() == 1
        with pytest.raises(TypeError, match="validate must be True or False, got 1"):
            call(validate=1)
    assert ft.negative_binomial_loss(x, mean, theta, validate=False).isnan()


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_swapped_calls_of_drop_ins(forced, composite):
    if forced:
        composite()
    x, logits, latent = torch.ones(4, 5), torch.randn(4, 5), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"shape.*; the order is logits, x, mu, logvar"):
        ft.vae_loss(x, latent, latent, logits)
    with pytest.raises(ValueError, match=r"^mu has shape .*; the order is x, mu, theta"):
        ft.negative_binomial_loss(x, torch.ones(5), x)
    with pytest.raises(ValueError, match=r"^pi has shape .*; the order is x, mu, theta, pi"):
        ft.zero_inflated_negative_binomial_loss(x, x, torch.ones(5), torch.ones(4, 4))
    with pytest.raises(TypeError, match=r"logits must be a torch.Tensor"):
        ft.vae_loss(x.numpy(), x, latent, latent)
    with pytest.raises(TypeError, match=r"mu must be a torch.Tensor"):
        ft.negative_binomial_loss(x, 1.0, x)


def test_losses_have_one_order():
    """The likelihood comes first, all else goes by name; then data, samples, posterior, decoder."""
    for kind in (ft.ElboLoss, ft.IwaeLoss, ft.BetaTCVAELoss):
        first, *others = list(inspect.signature(kind).parameters.values())
        assert first.name == "likelihood"
        assert {p.kind for p in others} == {inspect.Parameter.KEYWORD_ONLY}
        taken = inspect.signature(kind.forward).parameters.values()
        by_position = [p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
        of_samples = [] if kind is ft.ElboLoss else ["z"]
        assert by_position == ["x", *of_samples, "mu", "logvar", "x_recon"]
    with pytest.raises(TypeError, match="likelihood must be"):
        ft.BetaTCVAELoss(9, dataset_size=9)


def log_nb_positive(x, mu, theta, eps=1e-8):
    """As in scvi-tools."""
    log_theta_mu_eps = torch.log(theta + mu + eps)
    return (
        theta * (torch.log(theta + eps) - log_theta_mu_eps)
        + x * (torch.log(mu + eps) - log_theta_mu_eps)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )


def log_zinb_positive(x, mu, theta, pi, eps=1e-8):
    """As in scvi-tools."""
    softplus = torch.nn.functional.softplus
    softplus_pi = softplus(-pi)
    log_theta_eps = torch.log(theta + eps)
    log_theta_mu_eps = torch.log(theta + mu + eps)
    pi_theta_log = -pi + theta * (log_theta_eps - log_theta_mu_eps)
    case_zero = softplus(pi_theta_log) - softplus_pi
    case_non_zero = (
        -softplus_pi
        + pi_theta_log
        + x * (torch.log(mu + eps) - log_theta_mu_eps)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )
    return (x < eps).type_as(x) * case_zero + (x > eps).type_as(x) * case_non_zero


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_count_losses_are_those_of_scvi(reduction):
    x, *parameters = CASE_BY_NAME["ZeroInflatedNegativeBinomial"].draw().values()
    reduce = {"mean": torch.mean, "sum": torch.sum, "none": lambda rows: rows}[reduction]
    for loss, line, n in [
        (ft.negative_binomial_loss, log_nb_positive, 2),
        (ft.zero_inflated_negative_binomial_loss, log_zinb_positive, 3),
    ]:
        mine = loss(x, *parameters[:n], reduction=reduction)
        theirs = reduce(-line(x, *parameters[:n]).sum(-1))
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
        grads = [torch.autograd.grad(t.sum(), parameters[:n]) for t in (mine, theirs)]
        torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


def test_an_impossible_count_is_an_infinite_loss():
    """Where scvi-tools adds a small number to the mean."""
    x, mean, theta = torch.tensor([[3.0]]), torch.zeros(1, 1), torch.ones(1)
    assert ft.negative_binomial_loss(x, mean, theta).item() == np.inf
    assert torch.isfinite(log_nb_positive(x, mean, theta)).all()
    assert "infinite" in ft.negative_binomial_loss.__doc__


class Mixture:
    """A prior of equal components at -1 and 1, as PyTorch and fastelbo see it."""

    mu, logvar = np.array([[-1.0] * 3, [1.0] * 3]), np.zeros((2, 3))

    def log_prob(self, z):
        mu, logvar, log_weights = map(torch.tensor, (self.mu, self.logvar, np.log([0.5, 0.5])))
        return ft.mixture_log_prob(z, mu, logvar, log_weights, reduction="none")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_elbo_with_a_prior(reduction):
    tensors = CASE_BY_NAME["elbo[Bernoulli]"].draw()
    x, mu, logvar, logits, noise = tensors.values()
    options = {"beta": 1.5, "reduction": reduction}

    def bound(mu, logvar, logits, noise):
        return ft.elbo(
            x,
            mu,
            logvar,
            logits,
            likelihood=ft.Bernoulli(),
            prior=Mixture(),
            noise=noise,
            **options,
        )

    result = bound(mu, logvar, logits, noise)
    arrays = [t.detach().numpy() for t in (x, mu, logvar, logits)]
    prior = fastelbo.MixtureOfGaussians(Mixture.mu, Mixture.logvar)
    expected, grad = fastelbo.elbo_and_grad(
        *arrays, likelihood=fastelbo.Bernoulli(), prior=prior, noise=noise.numpy(), **options
    )
    for mine, theirs in zip(result, expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-12)
    mine = torch.autograd.grad(result.elbo.sum(), (mu, logvar, logits))
    for one, other in zip(mine, grad, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-10, atol=1e-14)
    assert torch.autograd.gradcheck(
        lambda *t: tuple(bound(*t)), (mu, logvar, logits, noise.requires_grad_())
    )


def test_a_prior_needs_z_and_one_density_for_each():
    x, mu, logvar, logits, noise = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    normal = torch.distributions.Normal(torch.zeros_like(mu[0]), torch.ones_like(mu[0]))
    with pytest.raises(ValueError, match="rng or noise"):
        ft.elbo(x, mu, logvar, logits, prior=Mixture())
    with pytest.raises(ValueError, match="free_bits"):
        ft.elbo(x, mu, logvar, logits, prior=Mixture(), noise=noise, free_bits=0.1)
    with pytest.raises(ValueError, match=r"prior\.log_prob\(z\) has shape"):
        ft.elbo(x, mu, logvar, logits, prior=normal, noise=noise)


class ArraysOnly:
    """A prior for fastelbo, whose gradients are arrays."""

    def log_prob(self, z):
        return fastelbo.StandardNormal().log_prob(z)

    def log_prob_and_grad(self, z):
        return fastelbo.StandardNormal().log_prob_and_grad(z)


@pytest.mark.parametrize("prior", ["normal", ArraysOnly()], ids=["a word", "of arrays"])
def test_a_prior_of_arrays_is_an_error(prior):
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    with pytest.raises(TypeError, match=r"prior .*must"):
        ft.elbo(x, mu, logvar, logits[0], prior=prior, rng=1)
    with pytest.raises(TypeError, match=r"prior .*must"):
        ft.iwae(x, z, mu, logvar, logits, prior=prior)
    with pytest.raises(TypeError, match=r"prior .*must"):
        ft.IwaeLoss(prior=prior)(x, z, mu, logvar, logits)


def test_a_prior_of_pytorch_can_learn():
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    location = torch.zeros(z.shape[-1], dtype=z.dtype, requires_grad=True)
    normal = torch.distributions.Normal(location, torch.ones_like(location))
    prior = torch.distributions.Independent(normal, 1)
    options = {"likelihood": ft.Bernoulli()}
    with_prior = ft.iwae(x, z, mu, logvar, logits, prior=prior, **options)
    without = ft.iwae(x, z, mu, logvar, logits, **options)
    torch.testing.assert_close(with_prior, without)
    assert torch.autograd.grad(with_prior, location)[0].any()
