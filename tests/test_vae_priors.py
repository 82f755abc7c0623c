"""VAE with a prior that is learned, or given."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, Bernoulli, reference
from fastelbo._network import Autoencoder
from fastelbo._vae_scores import DRAWS, balanced_noise
from fastelbo._visible import Visible
from tests.conftest import numerical_gradient
from tests.test_vae import bars as bars

PRIORS = ("mixture", "vamp")
LOGITS = np.array([0.5, -0.5])
GIVEN = np.array([[-1.0, 0.5], [1.0, -0.5]]), np.array([[0.3, -0.2], [-0.4, 0.1]])


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
    if model.prior_kind == "given":
        prior = reference.MixtureOfGaussians(*GIVEN, LOGITS)
    elif model.prior_kind == "vamp":
        prior = reference.VampPrior(*encode(rest.reshape(-1, x.shape[1])))
    else:
        logits, means = rest[: model.components], rest[model.components :]
        prior = reference.MixtureOfGaussians(*means.reshape(2, model.components, -1), logits)
    kl = np.mean(log_q - prior.log_prob(z))
    return reference.Bernoulli().log_prob(x, dense(z, *arrays[4:])) - beta * kl


@pytest.mark.parametrize("prior", [*PRIORS, fastelbo.MixtureOfGaussians(*GIVEN, LOGITS)], ids=str)
def test_gradient_of_a_step(prior):
    rng = np.random.default_rng(0)
    x = rng.random((7, 4))
    model = Autoencoder(Visible(fastelbo.Bernoulli(), 4), (5,), 2, np.float64, prior, 3)
    model.initialise(rng, x)
    if prior == "mixture":
        model.mixture[2][...] = rng.normal(size=3)
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


# Given ------------------------------------------------------------------------------------------


def two_clusters(kind=fastelbo.MixtureOfGaussians, dtype=np.float64):
    mu, logvar = np.array([[-6, 0], [6, 0]], dtype), np.full((2, 2), -2, dtype)
    if kind is fastelbo.VampPrior:
        return kind(mu, logvar)
    return kind(mu, logvar, np.array([0.0, np.log(3)], dtype))


GIVEN_KINDS = (fastelbo.MixtureOfGaussians, fastelbo.VampPrior)


def test_the_standard_normal_may_be_given(bars):
    models = [
        VAE(hidden=(8,), epochs=2, prior=p, random_state=0, free_bits=0.1).fit(bars)
        for p in ("standard", fastelbo.StandardNormal())
    ]
    assert models[0].history_ == models[1].history_
    assert isinstance(models[1].prior_, fastelbo.StandardNormal)


@pytest.mark.parametrize("kind", GIVEN_KINDS)
def test_a_given_prior_shapes_the_latents(kind, bars):
    prior = two_clusters(kind)
    before = copy.deepcopy(prior)
    model = fitted(bars, prior, latent_dim=2, epochs=100)
    for name in ("logits", "mu", "logvar"):
        np.testing.assert_equal(getattr(prior, name), getattr(before, name))
        np.testing.assert_equal(getattr(model.prior_, name), getattr(before, name))
    assert type(model.prior_) is kind
    assert model.prior is prior
    # the latents went where the prior has its mass, far from where the networks began
    z = model.transform(bars)
    assert (np.abs(np.abs(z[:, 0]) - 6) < 3).mean() > 0.9
    drawn = prior.sample(7, rng=1)
    np.testing.assert_array_equal(model.sample(7, rng=1), model.inverse_transform(drawn))
    standard = VAE(hidden=(64,), latent_dim=2, epochs=1).fit(bars)
    assert model.n_parameters_ == standard.n_parameters_


def test_scores_are_by_the_given_prior(bars):
    model = fitted(bars, two_clusters(), latent_dim=2, epochs=5)
    mu, logvar = model._model.encode(bars, 1)
    expected = 0
    for e in balanced_noise(3, DRAWS, 2, mu.dtype):
        z = mu + np.exp(0.5 * logvar) * e
        log_q = fastelbo.Gaussian("learned").log_prob(z, mu, logvar / 2, reduction="none")
        expected += (log_q - two_clusters().log_prob(z)) / DRAWS
    np.testing.assert_allclose(model.score_parts(bars, rng=3)[1], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", GIVEN_KINDS)
def test_a_changed_original_changes_no_model(kind, dtype, bars, tmp_path):
    prior = two_clusters(kind, dtype)
    model = fitted(bars, prior, latent_dim=2, epochs=3, dtype=dtype)
    expected = model.score_samples(bars)
    prior.mu += 1
    np.testing.assert_array_equal(model.score_samples(bars), expected)
    model.save(tmp_path / "model.npz")
    loaded = VAE.load(tmp_path / "model.npz")
    others = [loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in others:
        assert type(other.prior_) is kind
        assert other.prior_.mu.dtype == dtype
        np.testing.assert_array_equal(other.score_samples(bars), expected)
    assert repr(loaded.get_params()) == repr(model.get_params())
    model.partial_fit(bars)
    for other in others:
        other.partial_fit(bars)
        np.testing.assert_array_equal(other.score_samples(bars), model.score_samples(bars))


def test_saves_a_given_standard_normal(bars, tmp_path):
    model = VAE(hidden=(8,), epochs=1, prior=fastelbo.StandardNormal()).fit(bars)
    model.save(tmp_path / "model.npz")
    loaded = VAE.load(tmp_path / "model.npz")
    assert isinstance(loaded.prior, fastelbo.StandardNormal)
    np.testing.assert_array_equal(loaded.score_samples(bars), model.score_samples(bars))


def test_scikit_learn_clones_it(bars):
    base = pytest.importorskip("sklearn.base")
    from sklearn.model_selection import GridSearchCV

    model = VAE(hidden=(8,), latent_dim=2, epochs=1, prior=two_clusters(), random_state=0)
    twin = base.clone(model)
    np.testing.assert_array_equal(twin.prior.mu, model.prior.mu)
    assert twin.fit(bars).history_ == model.fit(bars).history_
    choices = [fastelbo.StandardNormal(), two_clusters(), "mixture"]
    search = GridSearchCV(model, {"prior": choices}, cv=2).fit(bars)
    assert search.best_params_["prior"] in choices


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"prior": "flow"}, ValueError, "prior must be one of"),
        ({"prior": 3}, ValueError, "prior must be one of"),
        ({"prior": "vamp", "prior_components": 0}, ValueError, "prior_components"),
        ({"prior": "vamp", "prior_components": 1.5}, TypeError, "prior_components"),
        ({"prior": "mixture", "free_bits": 0.5}, ValueError, "free_bits"),
        ({"prior": two_clusters(), "latent_dim": 2, "free_bits": 0.5}, ValueError, "free_bits"),
        (
            {"prior": two_clusters(), "latent_dim": 3},
            ValueError,
            "prior has 2 latent dimensions, but latent_dim is 3",
        ),
        ({"prior": fastelbo.VampPrior}, ValueError, "prior must be one of"),
    ],
)
def test_errors(options, error, match, bars):
    with pytest.raises(error, match=match):
        VAE(hidden=(8,), epochs=1, **options).fit(bars)
