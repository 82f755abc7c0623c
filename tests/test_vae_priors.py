"""VAE with a prior that is learned."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, Bernoulli, reference
from fastelbo._network import Autoencoder
from tests.conftest import numerical_gradient
from tests.test_vae import bars as bars

PRIORS = ("mixture", "vamp")


def plain_elbo(parameters, model, x, noise, beta):
    """The ELBO of one hidden ReLU layer each, from the reference's parts alone."""
    sizes = []
    for widths in (model.encoder.widths, model.decoder.widths):
        sizes += [shape for n, m in pairwise(widths) for shape in ((n, m), (m,))]
    arrays, start = [], 0
    for shape in sizes:
        arrays.append(parameters[start : start + np.prod(shape)].reshape(shape))
        start += np.prod(shape)
    rest = parameters[start:]

    def dense(x, w0, b0, w1, b1):
        return np.maximum(x @ w0 + b0, 0) @ w1 + b1

    def encode(x):
        return np.split(dense(x, *arrays[:4]), 2, axis=1)

    mu, logvar = encode(x)
    z = mu + np.exp(logvar / 2) * noise
    log_q = -0.5 * (noise**2 + logvar + np.log(2 * np.pi)).sum(axis=1)
    if model.prior_kind == "vamp":
        prior = reference.VampPrior(*encode(rest.reshape(-1, x.shape[1])))
    else:
        logits, means = rest[: model.components], rest[model.components :]
        prior = reference.MixtureOfGaussians(logits, *means.reshape(2, model.components, -1))
    kl = np.mean(log_q - prior.log_prob(z))
    return reference.Bernoulli().log_prob(x, dense(z, *arrays[4:])) - beta * kl


@pytest.mark.parametrize("prior", PRIORS)
def test_gradient_of_a_step(prior):
    rng = np.random.default_rng(0)
    x = rng.random((7, 4))
    model = Autoencoder(4, (5,), 2, 1, np.float64, prior, 3)
    model.initialise(rng, x)
    if prior == "mixture":
        model.mixture[0][...] = rng.normal(size=3)
    model.pseudo_inputs += 0.1
    flat = model.adam.parameters.copy()
    rows = np.array([5, 0, 3])
    noise = fastelbo.reparameterize(np.zeros((3, 2)), np.zeros((3, 2)), rng=9)
    value, kl = model.step(x, rows, Bernoulli(), 0.7, 0.0, 9, 1e-3, 1)

    def objective(parameters):
        return plain_elbo(parameters, model, x[rows], noise, 0.7)

    assert value - 0.7 * kl == pytest.approx(objective(flat), rel=1e-12)
    expected = numerical_gradient(objective, flat, step=1e-5)
    assert np.abs(expected[-6:]).min() > 0  # the prior's own parameters take part
    np.testing.assert_allclose(model.adam.grads, expected, rtol=1e-5, atol=1e-8)


def fitted(bars, prior, **options):
    options = {"hidden": (64,), "latent_dim": 4, "epochs": 60, "batch_size": 50, **options}
    model = VAE(prior=prior, prior_components=16, random_state=0, learning_rate=3e-3, **options)
    return model.fit(bars)


@pytest.mark.parametrize("prior", PRIORS)
def test_learns_and_scores(prior, bars):
    model = fitted(bars, prior)
    assert model.score(bars) > -5.5
    assert model.history_["elbo"][-1] > model.history_["elbo"][0]
    parts = model.score_parts(bars)
    np.testing.assert_array_equal(model.score_samples(bars), parts[0] - parts[1])
    assert model.score_samples(bars, samples=50).mean() > model.score(bars)
    drawn = model.sample(200, rng=1)
    assert drawn.shape == (200, 16)
    np.testing.assert_array_equal(drawn, model.sample(200, rng=1))
    assert isinstance(
        model.prior_, {"mixture": fastelbo.MixtureOfGaussians}.get(prior, fastelbo.VampPrior)
    )
    standard = VAE(hidden=(64,), latent_dim=4, epochs=1).fit(bars)
    extra = {"mixture": 16 * 9, "vamp": 16 * 16}[prior]
    assert model.n_parameters_ == standard.n_parameters_ + extra
    assert isinstance(standard.prior_, fastelbo.StandardNormal)


def test_none_is_the_standard_normal(bars):
    models = [
        VAE(hidden=(8,), epochs=2, prior=p, random_state=0).fit(bars) for p in (None, "standard")
    ]
    assert models[0].history_ == models[1].history_


@pytest.mark.parametrize("prior", PRIORS)
def test_saves_and_goes_on(prior, bars, tmp_path):
    model = fitted(bars, prior, epochs=3)
    model.save(tmp_path / "model.npz")
    loaded = VAE.load(tmp_path / "model.npz")
    others = [loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    expected = model.score_samples(bars)
    for other in others:
        assert other.get_params() == model.get_params()
        np.testing.assert_array_equal(other.score_samples(bars), expected)
        np.testing.assert_array_equal(other.sample(5, rng=1), model.sample(5, rng=1))
    model.partial_fit(bars)
    for other in others:
        other.partial_fit(bars)
        np.testing.assert_array_equal(other.score_samples(bars), model.score_samples(bars))


@pytest.mark.parametrize("prior", PRIORS)
def test_threads_change_nothing(prior, bars):
    histories = [fitted(bars, prior, epochs=2, num_threads=n).history_ for n in (1, 2)]
    assert histories[0] == histories[1]


def test_more_pseudo_inputs_than_rows(bars):
    few = bars[:5]
    model = VAE(hidden=(8,), latent_dim=2, prior="vamp", prior_components=9, epochs=1).fit(few)
    assert len(model.prior_.mu) == 9


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"prior": "flow"}, ValueError, "prior must be one of"),
        ({"prior": 3}, ValueError, "prior must be one of"),
        ({"prior": "vamp", "prior_components": 0}, ValueError, "prior_components"),
        ({"prior": "vamp", "prior_components": 1.5}, TypeError, "prior_components"),
        ({"prior": "mixture", "free_bits": 0.5}, ValueError, "free_bits"),
    ],
)
def test_errors(options, error, match, bars):
    with pytest.raises(error, match=match):
        VAE(hidden=(8,), epochs=1, **options).fit(bars)
