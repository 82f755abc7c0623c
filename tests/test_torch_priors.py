"""Priors of fastelbo.torch: modules whose parameters learn, in bounds and in losses."""

import copy
import math
import pickle

import numpy as np
import pytest

import fastelbo
from tests.torch_cases import CASE_BY_NAME, REDUCTIONS, torch

ft = pytest.importorskip("fastelbo.torch")
Parameter = torch.nn.Parameter

MU, LOGVAR, LOGITS = [[-1.0] * 3, [1.0] * 3], [[0.2] * 3, [-0.3] * 3], [0.5, -0.5]
ARRAYS = tuple(np.array(a) for a in (MU, LOGVAR, LOGITS))


def learned(kind=None):
    """A prior, and its parameters in the order of fastelbo's gradients."""
    parameters = [Parameter(torch.tensor(a)) for a in ARRAYS]
    return (kind or ft.MixtureOfGaussians)(*parameters), parameters


def encode(u):
    return u[:, :3] * 2, u[:, 3:].tanh()


def test_by_hand():
    """Half of N(0; -1, 1) and half of N(0; 1, 1): -1/2 - log(2 pi) / 2."""
    prior = ft.MixtureOfGaussians([[-1.0], [1.0]], [[0.0], [0.0]])
    value = prior.log_prob(torch.zeros(4, 2, 1))
    assert value.shape == (4, 2)
    assert value[0, 0].item() == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi))
    assert torch.equal(prior(torch.zeros(4, 2, 1)), value)


@pytest.mark.parametrize("kind", ["MixtureOfGaussians", "VampPrior"])
def test_gradients_are_those_of_fastelbo(kind, composite):
    prior, parameters = learned(getattr(ft, kind))
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(5, dtype=torch.float64)
    own = getattr(fastelbo, kind)(*ARRAYS)
    expected = own.backward(z.detach().numpy(), weights.numpy())
    for _ in range(2):
        total = (weights * prior.log_prob(z)).sum()
        for mine, theirs in zip(
            torch.autograd.grad(total, (z, *parameters)), expected, strict=True
        ):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-10, atol=1e-13)
        composite()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_elbo_is_that_of_fastelbo(forced, reduction, composite):
    """With z, and every gradient: of mu, logvar, the decoder's outputs and the prior."""
    x, mu, logvar, logits, noise = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    prior, parameters = learned()
    options = {"beta": 1.5, "reduction": reduction}
    if forced:
        composite()
    result = ft.elbo(
        x, mu, logvar, logits, likelihood=ft.Bernoulli(), prior=prior, noise=noise, **options
    )
    arrays = [t.detach().numpy() for t in (x, mu, logvar, logits)]
    own = fastelbo.MixtureOfGaussians(*ARRAYS)
    expected, by = fastelbo.elbo_and_grad(
        *arrays, likelihood="bernoulli", prior=own, noise=noise.numpy(), **options
    )
    for mine, theirs in zip(result, expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-12)
    weight = 1.5 / len(x) if reduction == "mean" else 1.5
    slopes = (*by, *own.backward(expected.z, weight)[1:])
    inputs = (mu, logvar, logits, *parameters)
    for mine, theirs in zip(torch.autograd.grad(result.elbo.sum(), inputs), slopes, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-12)


def test_a_narrow_posterior_keeps_its_gradient():
    """z - mu has no digit left there; the entropy's share, 1/2, is exact all the same."""
    mu = torch.full((1, 1), 1e4, requires_grad=True)
    logvar = torch.full((1, 1), -40.0, requires_grad=True)
    prior = ft.MixtureOfGaussians(torch.full((1, 1), 1e4), torch.zeros(1, 1))
    x = torch.zeros(1, 1)
    kl = ft.elbo(x, mu, logvar, x, prior=prior, rng=1).kl
    by_mu, by_logvar = torch.autograd.grad(kl, (mu, logvar))
    assert by_logvar.item() == pytest.approx(-0.5)
    assert by_mu.item() == pytest.approx(0.0, abs=1e-6)


def test_log_weights_and_iwae_with_a_prior():
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    prior, parameters = learned()
    options = {"likelihood": ft.Bernoulli(), "prior": prior}
    log_w = ft.log_weights(x, z, mu, logvar, logits, **options)
    arrays = [t.detach().numpy() for t in (x, z, mu, logvar, logits)]
    own = {"likelihood": "bernoulli", "prior": fastelbo.MixtureOfGaussians(*ARRAYS)}
    np.testing.assert_allclose(
        log_w.detach().numpy(), fastelbo.log_weights(*arrays, **own), rtol=1e-12
    )
    bound, grad = fastelbo.iwae_and_grad(*arrays, **own)
    value = ft.iwae(x, z, mu, logvar, logits, **options)
    assert value.item() == pytest.approx(bound, rel=1e-12)
    slopes = (*grad[:4], *own["prior"].backward(arrays[1], grad.weights / len(x))[1:])
    inputs = (z, mu, logvar, logits, *parameters)
    for mine, theirs in zip(torch.autograd.grad(value, inputs), slopes, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["StandardNormal", "MixtureOfGaussians", "VampPrior"])
def test_priors_of_either_package_serve_both(kind):
    arguments = () if kind == "StandardNormal" else ARRAYS
    own, twin = getattr(fastelbo, kind)(*arguments), getattr(ft, kind)(*arguments)
    x, mu, logvar, logits, noise = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    tensors = (x, mu, logvar, logits)
    arrays = [t.detach().numpy() for t in tensors]
    values = [ft.elbo(*tensors, prior=prior, noise=noise).kl.item() for prior in (own, twin)]
    values += [fastelbo.elbo(*arrays, prior=prior, noise=noise.numpy()).kl for prior in (own, twin)]
    np.testing.assert_allclose(values, values[0], rtol=1e-13)
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    arrays = [t.detach().numpy() for t in (x, z, mu, logvar, logits)]
    np.testing.assert_array_equal(
        fastelbo.log_weights(*arrays, prior=twin), fastelbo.log_weights(*arrays, prior=own)
    )
    assert isinstance(ft.ElboLoss(prior=own).prior, getattr(ft, kind))


def test_a_prior_that_learns_is_refused_by_fastelbo():
    x = np.zeros((2, 3))
    prior, _ = learned()
    with pytest.raises(TypeError, match=r"prior holds tensors to differentiate.*fastelbo\.torch"):
        fastelbo.elbo(x, x, x, x, prior=prior, rng=1)
    with torch.no_grad():
        value = fastelbo.elbo(x, x, x, x, prior=prior, rng=1).kl
    assert value == fastelbo.elbo(x, x, x, x, prior=fastelbo.MixtureOfGaussians(*ARRAYS), rng=1).kl


def test_losses_register_what_a_prior_learns():
    prior, parameters = learned()
    for loss in (ft.ElboLoss(prior=prior), ft.IwaeLoss(prior=prior)):
        named = dict(loss.named_parameters())
        assert list(named) == ["prior.mu", "prior.logvar", "prior.logits"]
        assert all(a is b for a, b in zip(named.values(), parameters, strict=True))
        for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert len(list(again.parameters())) == 3
    fixed = ft.ElboLoss(prior=ft.MixtureOfGaussians(MU, LOGVAR))
    assert list(fixed.parameters()) == []
    assert list(fixed.state_dict()) == ["prior.mu", "prior.logvar"]
    assert "MixtureOfGaussians(2 components, 3 dimensions)" in repr(fixed)
    assert ft.ElboLoss(prior="standard").prior is None


def test_a_loss_takes_the_z_of_the_decoder():
    x, mu, logvar, logits, noise = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    prior, parameters = learned()
    z = ft.reparameterize(mu, logvar, noise=noise)
    options = {"beta": 0.7, "prior": prior}
    loss = ft.ElboLoss("bernoulli", **options)(x, mu, logvar, logits, z=z)
    bound = ft.elbo(x, mu, logvar, logits, likelihood="bernoulli", noise=noise, **options).elbo
    torch.testing.assert_close(loss, -bound)
    inputs = (mu, logvar, logits, *parameters)
    torch.testing.assert_close(
        torch.autograd.grad(loss, inputs, retain_graph=True), torch.autograd.grad(-bound, inputs)
    )
    with pytest.raises(ValueError, match="prior: its KL"):
        ft.ElboLoss(prior=prior)(x, mu, logvar, logits)
    with pytest.raises(ValueError, match="free_bits"):
        ft.ElboLoss(prior=prior, free_bits=0.1)


def test_the_components_follow_the_encoder():
    u = Parameter(torch.randn(4, 6, dtype=torch.float64))
    prior = ft.VampPrior.from_encoder(encode, u)
    z = torch.randn(5, 3, dtype=torch.float64)
    encoded = ft.VampPrior(*encode(u))
    torch.testing.assert_close(prior.log_prob(z), encoded.log_prob(z))
    assert repr(encoded) == "VampPrior(4 components, 3 dimensions)"
    assert torch.autograd.gradcheck(
        lambda u: ft.VampPrior.from_encoder(encode, u).log_prob(z), (u,)
    )
    before = prior.log_prob(z)
    with torch.no_grad():
        u += 1
    assert not torch.allclose(prior.log_prob(z), before)
    assert repr(prior) == "VampPrior(4 pseudo-inputs)"
    assert prior.sample(7, rng=3).shape == (7, 3)
    with torch.no_grad():
        assert torch.equal(prior.sample(7, rng=3), torch.from_numpy(prior.kernels.sample(7, rng=3)))
    with pytest.raises(TypeError, match=r"encoder must give a tuple \(mu, logvar\)"):
        ft.VampPrior.from_encoder(lambda u: u, u).log_prob(z)
    with pytest.raises(TypeError, match="encoder must be callable"):
        ft.VampPrior.from_encoder(u, encode)


def test_errors():
    with pytest.raises(ValueError, match="logits has shape"):
        ft.MixtureOfGaussians(MU, LOGVAR, LOGITS[:1])
    with pytest.raises(ValueError, match="logvar has shape"):
        ft.VampPrior(MU, LOGVAR[0])
    with pytest.raises(TypeError, match="mu must be a tensor or an array"):
        ft.MixtureOfGaussians("mu", LOGVAR)
    prior = ft.MixtureOfGaussians(MU, LOGVAR)
    with pytest.raises(ValueError, match="z has shape"):
        prior.log_prob(torch.zeros(2, 4))
    with pytest.raises(TypeError, match="z must be a torch"):
        prior.log_prob([[0.0] * 3])
    with pytest.raises(TypeError, match="got the class VampPrior: call it"):
        ft.ElboLoss(prior=ft.VampPrior)


def test_compiled():
    torch._dynamo.reset()
    prior, parameters = learned()
    loss = ft.ElboLoss("bernoulli", prior=prior)
    x, mu, logvar, logits, noise = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()

    def step(mu, logvar, logits):
        return loss(x, mu, logvar, logits, z=ft.reparameterize(mu, logvar, noise=noise))

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    inputs = (mu, logvar, logits, *parameters)
    pairs = [
        (f(*inputs[:3]), torch.autograd.grad(f(*inputs[:3]), inputs)) for f in (step, compiled)
    ]
    torch.testing.assert_close(*pairs)


def test_functional_call_exchanges_a_prior():
    prior, parameters = learned()
    z = torch.randn(5, 3, dtype=torch.float64)

    def at(mu):
        return torch.func.functional_call(prior, {"mu": mu}, (z,)).sum()

    expected = torch.autograd.grad(prior(z).sum(), parameters[0])[0]
    torch.testing.assert_close(torch.func.grad(at)(parameters[0].detach()), expected)


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_a_prior_trains_with_its_model(kind):
    """Two clusters: what the prior learns moves, and the ELBO rises above that of N(0, I)."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(64, 4) * 0.1 + 2, torch.randn(64, 4) * 0.1 - 2])

    def train(prior_of):
        torch.manual_seed(1)
        encoder, decoder = torch.nn.Linear(4, 4), torch.nn.Linear(2, 4)
        loss = ft.ElboLoss(ft.Gaussian(0.3), prior=prior_of(encoder))
        parameters = [p for m in (encoder, decoder, loss) for p in m.parameters()]
        own = [p.detach().clone() for p in loss.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=0.03)
        seen = []
        for _ in range(150):
            mu, logvar = encoder(x).chunk(2, -1)
            z = ft.reparameterize(mu, logvar)
            value = loss(x, mu, logvar, decoder(z), z=z)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            seen.append(-value.item())
        for before, after in zip(own, loss.parameters(), strict=True):
            assert (after - before).abs().max() > 0.1
        return seen

    def mixture(encoder):
        return ft.MixtureOfGaussians(Parameter(torch.randn(4, 2)), Parameter(torch.zeros(4, 2)))

    def vamp(encoder):
        pseudo_inputs = Parameter(torch.randn(4, 4))
        return ft.VampPrior.from_encoder(lambda u: encoder(u).chunk(2, -1), pseudo_inputs)

    standard = train(lambda encoder: None)
    learns = train(mixture if kind == "mixture" else vamp)
    assert np.mean(learns[-10:]) > np.mean(learns[:10])
    assert np.mean(learns[-10:]) > np.mean(standard[-10:]) + 0.1


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(half):
    prior = ft.MixtureOfGaussians(MU, LOGVAR, LOGITS).to(half)
    assert prior.log_prob(torch.zeros(2, 3, dtype=half)).dtype == half
    assert ft.StandardNormal().log_prob(torch.zeros(2, 3, dtype=half)).dtype == half


@pytest.mark.parametrize("kind", [ft.ElboLoss, ft.IwaeLoss])
def test_a_loss_asks_what_it_is_given_now_or_later(kind):
    prior, parameters = learned()
    with pytest.raises(TypeError, match=r"likelihood must be .* MixtureOfGaussians"):
        kind(prior)
    with pytest.raises(TypeError, match=r"prior must be p.* got the likelihood Bernoulli"):
        kind(prior=ft.Bernoulli())
    loss = kind()
    with pytest.raises(TypeError, match="likelihood must be"):
        loss.likelihood = prior
    loss.prior = prior
    assert [*loss.parameters()] == parameters
    loss.prior = fastelbo.MixtureOfGaussians(MU, LOGVAR)
    assert isinstance(loss.prior, ft.MixtureOfGaussians)
    loss.prior = "standard"
    assert loss.prior is None


@pytest.mark.parametrize("prior", [None, ft.StandardNormal()])
def test_z_of_a_loss_is_one_of_each_row(prior):
    x = torch.zeros(2, 3)
    for z in (torch.zeros(4, 2, 3), torch.zeros(2, 1)):
        with pytest.raises(ValueError, match=r"z has shape .* that of mu, \(2, 3\)"):
            ft.ElboLoss(prior=prior, reduction="sum")(x, x, x, x, z=z)


def test_errors_have_the_names_of_arguments():
    for wrong in (None, torch.zeros(2, 3, dtype=torch.complex64)):
        with pytest.raises(TypeError, match="mu must"):
            ft.MixtureOfGaussians(wrong, LOGVAR)
    prior = ft.VampPrior.from_encoder(lambda u: (u, u), MU, torch.zeros(3))
    with pytest.raises(ValueError, match=r"logits has shape \(3,\), expected \(2,\)"):
        prior.log_prob(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="n must be at least 0"):
        ft.MixtureOfGaussians(MU, LOGVAR).sample(-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_takes_no_digits(dtype):
    z = torch.randn(4, 3).to(dtype)
    for prior in (ft.StandardNormal(), ft.MixtureOfGaussians(MU, LOGVAR)):
        expected = prior.log_prob(z.float())
        with torch.autocast("cpu", torch.bfloat16):
            value = prior.log_prob(z)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
