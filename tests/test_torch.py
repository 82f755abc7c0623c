"""fastelbo.torch in eager mode: values, gradients, noise, errors."""

import copy
import pickle

import numpy as np
import pytest

import fastelbo
from tests.torch_cases import (
    BY_LABEL,
    CASE_BY_NAME,
    CASES,
    LIKELIHOODS,
    REDUCTIONS,
    each,
    flat,
    torch,
)

ft = pytest.importorskip("fastelbo.torch")
tensors_of = pytest.importorskip("fastelbo.torch._tensors")


@pytest.fixture
def composite(monkeypatch):
    """A function that makes every tensor take the composites from now on."""
    return lambda: monkeypatch.setattr(tensors_of, "always_composite", True)


def weighted(result, seed=1):
    """A number that depends on every value of a result, with weights of its own for each."""
    rng = np.random.default_rng(seed)
    return sum((torch.tensor(rng.normal(size=t.shape)).to(t.dtype) * t).sum() for t in flat(result))


def gradients(case, tensors, **options):
    inputs = [t for t in tensors.values() if t.requires_grad]
    return torch.autograd.grad(weighted(case.call(ft, *tensors.values(), **options)), inputs)


@each(CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_are_those_of_fastelbo(case, reduction, dtype):
    tensors = case.draw(dtype)
    options = case.options(reduction)
    got = flat(case.call(ft, *tensors.values(), **options))
    arrays = [t.detach().numpy() for t in tensors.values()]
    expected = flat(case.call(fastelbo, *arrays, **options))
    tolerance = {"rtol": 1e-6 if dtype == torch.float32 else 1e-14}
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine.detach().numpy(), theirs, **tolerance)


@each(CASES)
def test_gradcheck(case, reduction):
    tensors = case.draw()
    assert torch.autograd.gradcheck(
        lambda *t: tuple(flat(case.call(ft, *t, **case.options(reduction)))),
        tuple(tensors.values()),
    )


@each([case for case in CASES if not case.draws_noise])
def test_composites_agree_with_kernels(case, reduction, composite):
    tensors, options = case.draw(), case.options(reduction)
    values, slopes = (
        case.call(ft, *tensors.values(), **options),
        gradients(case, tensors, **options),
    )
    composite()
    others = case.call(ft, *tensors.values(), **options)
    torch.testing.assert_close(flat(values), flat(others), rtol=1e-10, atol=1e-12)
    other_slopes = gradients(case, tensors, **options)
    torch.testing.assert_close(slopes, other_slopes, rtol=1e-8, atol=1e-10)


def with_missing(row, x):
    """The likelihood with missing="nan", and x with NaN."""
    x = x.clone()
    x[0, 0] = x[2, 3] = float("nan")
    return type(row)(
        row.label, row.kind, row.arguments, {**row.options, "missing": "nan"}, *[None] * 3
    ), x


@pytest.mark.parametrize("row", LIKELIHOODS, ids=lambda row: row.label)
@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_missing_data_have_no_gradient(row, forced, composite):
    case = CASE_BY_NAME[f"{row.label}.log_prob"]
    x, *parameters = case.draw().values()
    mask = torch.ones(x.shape, dtype=torch.bool)
    mask[0, 0] = mask[2, 3] = False
    expected = row.make(fastelbo).log_prob_and_grad(
        x.numpy(), *[p.detach().numpy() for p in parameters], mask=mask.numpy()
    )
    missing, holes = with_missing(row, x)
    if forced:
        composite()
    for value in (
        row.make(ft).log_prob(x, *parameters, mask=mask),
        missing.make(ft).log_prob(holes, *parameters),
    ):
        assert value.item() == pytest.approx(expected[0], rel=1e-10)
        slopes = torch.autograd.grad(value, parameters)
        for mine, theirs in zip(slopes, expected[1], strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-8, atol=1e-12)


@each(CASES, ("mean",))
def test_partial_requires_grad(case, reduction):
    """Gradients by one input alone are those found with the others."""
    tensors, options = case.draw(), case.options(reduction)
    wanted = [name for name, t in tensors.items() if t.requires_grad]
    everything = dict(zip(wanted, gradients(case, tensors, **options), strict=True))
    for name in wanted:
        alone = {k: t.detach().requires_grad_(k == name) for k, t in tensors.items()}
        torch.testing.assert_close(gradients(case, alone, **options)[0], everything[name])


@each([case for case in CASES if case.constants and "x" not in case.draws], ("mean",))
def test_gradient_by_data_takes_the_composite(case, reduction):
    """What kernels hold constant has its gradient all the same."""
    tensors = case.draw()
    for name in case.constants:
        tensors[name].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *t: tuple(flat(case.call(ft, *t, **case.options(reduction)))),
        tuple(tensors.values()),
    )


@each(CASES, ("none",))
def test_non_contiguous_tensors(case, reduction):
    tensors, options = case.draw(), case.options(reduction)
    expected = gradients(case, tensors, **options)
    strided = {}
    for name, t in tensors.items():
        room = torch.full((*t.shape[:-1], 2 * t.shape[-1]), 77.0, dtype=t.dtype)
        room[..., ::2] = t.detach()
        strided[name] = room[..., ::2].requires_grad_(t.requires_grad)
        assert not strided[name].is_contiguous()
    torch.testing.assert_close(gradients(case, strided, **options), expected)
    transposed = {
        name: t.detach().mT.contiguous().mT.requires_grad_(t.requires_grad) if t.ndim > 1 else t
        for name, t in tensors.items()
    }
    torch.testing.assert_close(gradients(case, transposed, **options), expected)


@each(CASES, ("mean", "none"))
def test_retain_graph_and_no_grad(case, reduction):
    tensors, options = case.draw(), case.options(reduction)
    inputs = [t for t in tensors.values() if t.requires_grad]
    result = weighted(case.call(ft, *tensors.values(), **options))
    first = torch.autograd.grad(result, inputs, retain_graph=True)
    kept = [g.clone() for g in first]
    tripled = torch.autograd.grad(3.0 * result, inputs, retain_graph=True)
    torch.testing.assert_close(tripled, tuple(3.0 * g for g in kept))
    torch.testing.assert_close(torch.autograd.grad(result, inputs), tuple(kept))
    with torch.no_grad():
        for value in flat(case.call(ft, *tensors.values(), **options)):
            assert not value.requires_grad


@each(
    [CASE_BY_NAME[n] for n in ("kl_normal", "reparameterize", "Bernoulli.log_prob")]
    + [CASE_BY_NAME[n] for n in ("elbo[Bernoulli]", "iwae[Bernoulli]")],
    ("mean",),
)
def test_double_backward_is_an_error(case, reduction):
    tensors = case.draw()
    inputs = [t for t in tensors.values() if t.requires_grad]
    result = weighted(case.call(ft, *tensors.values(), **case.options(reduction)))
    with pytest.raises(RuntimeError, match="differentiate twice"):
        torch.autograd.grad(result, inputs, create_graph=True)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2])
def test_every_part_of_an_elbo_has_its_own_gradient(beta):
    x, mu, logvar, noise, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
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


def test_a_loss_hands_its_gradient_on_as_it_is():
    """Its upstream gradient is one: nothing is multiplied, nothing copied."""
    x, mu, logvar, _, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    seen = []
    hidden = logits * 1.0
    hidden.register_hook(lambda g: seen.append(g.data_ptr()))
    loss = ft.ElboLoss(ft.Bernoulli())(x, mu, logvar, hidden)
    kept = loss.grad_fn.saved_tensors[2].data_ptr()
    loss.backward()
    assert seen == [kept]


def test_losses_are_minus_the_bounds():
    x, mu, logvar, _, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
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
    x, z, mu, logvar, logits = CASE_BY_NAME["beta_tcvae_elbo[Bernoulli]"].draw().values()
    for reduction in REDUCTIONS:
        options = {"alpha": 0.5, "beta": 3.0, "gamma": 2.0, "reduction": reduction}
        loss = ft.BetaTCVAELoss(9, ft.Bernoulli(), **options)(x, z, mu, logvar, logits)
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
    x, z, mu, logvar, logits = CASE_BY_NAME["beta_tcvae_elbo[Bernoulli]"].draw().values()
    ft.BetaTCVAELoss(9, ft.Bernoulli(), beta=3.0)(x, z, mu, logvar, logits).backward()
    assert calls == [(1.0, 3.0, 1.0)]
    ft.total_correlation(z, mu, logvar, dataset_size=9).mutual_information.backward()
    assert calls[1:] == [[1.0, 0.0, 0.0]]


def test_losses_mask_print_copy_and_pickle():
    x, mu, logvar, _, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    loss = ft.ElboLoss(ft.Bernoulli(x_scale=0.5), beta=2.0)
    mask = x > 0.5
    value = loss(x, mu, logvar, logits, mask=mask)
    arrays = [t.detach().numpy() for t in (x, mu, logvar, logits)]
    likelihood = fastelbo.Bernoulli(x_scale=0.5)
    expected = fastelbo.elbo(*arrays, likelihood=likelihood, beta=2.0, mask=mask.numpy()).elbo
    assert value.item() == pytest.approx(-expected, rel=1e-14)
    assert "Bernoulli(validate=True, x_scale=0.5)" in repr(loss)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin(x, mu, logvar, logits, mask=mask) == value
    assert "stl" in repr(ft.IwaeLoss(estimator="stl"))
    assert "beta=3.0" in repr(ft.BetaTCVAELoss(9, beta=3.0))


def test_vae_loss_is_the_line_of_the_example():
    x, mu, logvar, _, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    line = bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    loss = ft.vae_loss(logits, x, mu, logvar)
    torch.testing.assert_close(loss, line)
    grads = [torch.autograd.grad(t, (logits, mu, logvar)) for t in (loss, line)]
    torch.testing.assert_close(*grads)


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
    x, *parameters = CASE_BY_NAME["ZeroInflatedNegativeBinomial.log_prob"].draw().values()
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


class Mixture:
    """A prior of equal components at -1 and 1, as PyTorch and fastelbo see it."""

    mu, logvar = np.array([[-1.0] * 3, [1.0] * 3]), np.zeros((2, 3))

    def log_prob(self, z):
        log_weights, mu, logvar = map(torch.tensor, (np.log([0.5, 0.5]), self.mu, self.logvar))
        return ft.mixture_log_prob(z, log_weights, mu, logvar, reduction="none")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_elbo_with_a_prior(reduction):
    tensors = CASE_BY_NAME["elbo[Bernoulli]"].draw()
    x, mu, logvar, noise, logits = tensors.values()
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
    prior = fastelbo.MixtureOfGaussians(None, Mixture.mu, Mixture.logvar)
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
    x, mu, logvar, noise, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    normal = torch.distributions.Normal(torch.zeros_like(mu[0]), torch.ones_like(mu[0]))
    with pytest.raises(ValueError, match="rng or noise"):
        ft.elbo(x, mu, logvar, logits, prior=Mixture())
    with pytest.raises(ValueError, match="free_bits"):
        ft.elbo(x, mu, logvar, logits, prior=Mixture(), noise=noise, free_bits=0.1)
    with pytest.raises(ValueError, match=r"prior\.log_prob\(z\) has shape"):
        ft.elbo(x, mu, logvar, logits, prior=normal, noise=noise)


@pytest.mark.parametrize(
    "prior",
    [
        fastelbo.StandardNormal(),
        fastelbo.MixtureOfGaussians(None, Mixture.mu, Mixture.logvar),
        "normal",
    ],
    ids=str,
)
def test_a_prior_of_arrays_is_an_error(prior):
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    with pytest.raises(TypeError, match="prior must have"):
        ft.elbo(x, mu, logvar, logits[0], prior=prior, rng=1)
    with pytest.raises(TypeError, match="prior must have"):
        ft.iwae(x, z, mu, logvar, logits, prior=prior)
    with pytest.raises(TypeError, match="prior must have"):
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


# Noise ------------------------------------------------------------------------------------------


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


def test_drawn_noise_is_that_of_the_gradient():
    """Backward draws it again instead of keeping it."""
    mu = torch.randn(3, 4, requires_grad=True)
    logvar = torch.randn(3, 4, requires_grad=True)
    z, _ = ft.reparameterize_kl(mu, logvar, samples=5)
    grad_z = torch.randn(5, 3, 4)
    d_mu, d_logvar = torch.autograd.grad(z, (mu, logvar), grad_z)
    torch.testing.assert_close(d_mu, grad_z.sum(0))
    torch.testing.assert_close(d_logvar, (0.5 * grad_z * (z - mu)).sum(0))


# Dtypes, devices, threads, errors ---------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(half):
    x, mu, logvar, _, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw(half).values()
    loss = ft.ElboLoss(ft.Bernoulli())(x, mu, logvar, logits)
    assert loss.dtype == torch.float32
    loss.backward()
    floats = [t.detach().float().numpy() for t in (x, mu, logvar, logits)]
    result, grad = fastelbo.elbo_and_grad(*floats, likelihood=fastelbo.Bernoulli())
    assert loss.item() == pytest.approx(-result.elbo, rel=1e-6)
    assert logits.grad.dtype == half
    torch.testing.assert_close(logits.grad, torch.from_numpy(-grad.x_recon).to(half))


def test_mixed_dtypes_are_promoted():
    x, mu, logvar, _, logits = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
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


@each([case for case in CASES if not case.draws_noise])
def test_meta_tensors_have_shapes(case, reduction):
    """The path of every other device."""
    tensors, options = case.draw(), case.options(reduction)
    expected = flat(case.call(ft, *tensors.values(), **options))
    got = flat(case.call(ft, *[t.detach().to("meta") for t in tensors.values()], **options))
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.is_meta
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype


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


def test_inputs_are_borrowed_and_never_written():
    case = CASE_BY_NAME["elbo[Bernoulli]"]
    tensors = case.draw()
    before = {name: t.detach().clone() for name, t in tensors.items()}
    gradients(case, tensors)
    for name, t in tensors.items():
        assert torch.equal(t.detach(), before[name])


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
    with pytest.raises(TypeError, match=r"fastelbo\.torch"):
        ft.elbo(mu, mu, mu, mu, likelihood=fastelbo.Bernoulli())
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
    assert again.spec == mine.spec


def test_arguments_of_likelihoods_may_be_tensors():
    scales = torch.rand(7) + 0.5
    x, mean = torch.randn(4, 7), torch.randn(4, 7)
    value = ft.Gaussian(scales).log_prob(x, mean)
    assert value == ft.Gaussian(scales.tolist()).log_prob(x, mean)
    expected = fastelbo.Gaussian(scales.numpy()).log_prob(x.numpy(), mean.numpy())
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_every_likelihood_is_there():
    kinds = {name for name in fastelbo.__all__ if isinstance(getattr(fastelbo, name), type)}
    kinds = {name for name in kinds if issubclass(getattr(fastelbo, name), fastelbo.Likelihood)}
    assert kinds <= set(ft.__all__)
    assert {row.kind for row in BY_LABEL.values()} == kinds - {"Likelihood"}
