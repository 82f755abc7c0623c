"""VAE.score_samples: what it estimates, how well, and that each score is of its row alone."""

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, Gaussian, reference
from fastelbo._draws import balanced_noise
from fastelbo._vae_scores import DRAWS
from tests.importance import peak_of
from tests.test_vae import bars as bars


@pytest.fixture(scope="module")
def fitted(bars):
    return VAE(hidden=(16,), latent_dim=3, epochs=3, random_state=0).fit(bars)


def test_scores(fitted, bars):
    scores = fitted.score_samples(bars)
    assert scores.shape == (300,)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, fitted.score_samples(bars))
    assert fitted.score(bars) == pytest.approx(scores.mean())
    other = fitted.score_samples(bars, rng=4)
    assert (other != scores).any()
    np.testing.assert_array_equal(other, fitted.score_samples(bars, rng=4))
    reconstruction, kl = fitted.score_parts(bars)
    np.testing.assert_array_equal(reconstruction - kl, scores)
    mu, logvar = fitted._model.encode(bars, 1)
    expected = reference.kl_standard_normal(mu, logvar, reduction="none")
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    assert (reconstruction < 0).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", Gaussian("learned")])
def test_importance_weighted_scores(likelihood, bars):
    """They are iwae's, draw by draw, and grow."""
    model = VAE(hidden=(16,), latent_dim=3, likelihood=likelihood, epochs=3, random_state=0)
    model.fit(bars)
    few = bars[:5]
    scores = model.score_samples(few, samples=7, rng=3)
    np.testing.assert_array_equal(scores, model.score_samples(few, samples=7, rng=3))
    mu, logvar = model._model.encode(np.asarray(few, np.float32), 1)
    one = np.zeros((1, 3), np.float32)
    noise = fastelbo.reparameterize(one, one, rng=np.random.default_rng(3), samples=7)
    z = mu + np.exp(0.5 * logvar) * noise
    outputs = [np.stack(one) for one in zip(*(model._model.decode(k, 1) for k in z), strict=True)]
    x_recon = tuple(outputs) if len(outputs) > 1 else outputs[0]
    expected = fastelbo.iwae(
        few.astype(np.float32),
        z,
        mu,
        logvar,
        x_recon,
        likelihood=model.likelihood_,
        reduction="none",
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-5)

    rows = bars[:25]

    def bounds(samples, keys):  # all rows have one noise, which the mean over rows does not lessen
        return [model.score_samples(rows, samples=samples, rng=k).mean() for k in range(keys)]

    single = bounds(1, 80)
    assert np.mean(single) < np.mean(bounds(8, 20)) < np.mean(bounds(1000, 2))
    error = np.std(single) / 80**0.5
    assert np.mean(single) == pytest.approx(model.score(rows), abs=4 * error)
    for samples in (0, 1.5, "2", 1 << 31):
        with pytest.raises((TypeError, ValueError), match="samples"):
            model.score_samples(few, samples=samples)


def test_scores_of_many_draws_need_no_more_memory(fitted, bars):
    few = bars[:20]
    assert peak_of(lambda: fitted.score_samples(few, samples=20_000)) < 3 * peak_of(
        lambda: fitted.score_samples(few, samples=2000)
    )


@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp"])
@pytest.mark.parametrize("samples", [None, 1, 5, 1500])
def test_a_score_is_a_function_of_its_row(samples, prior, bars):
    options = {"latent_dim": 2, "hidden": (8,), "epochs": 1, "random_state": 0}
    model = VAE(prior=prior, prior_components=4, **options).fit(bars)
    rows = np.random.default_rng(0).random((40, 16))
    scores = model.score_samples(rows, samples=samples)
    assert len(np.unique(scores)) == 40
    order = np.random.default_rng(1).permutation(40)
    for chosen in (order, order[:7], order[:1], np.repeat(order[:3], 5)):
        alone = model.score_samples(rows[chosen], samples=samples)
        np.testing.assert_array_equal(alone, scores[chosen])


def test_scores_are_more_precise_than_their_ranking_needs():
    """On digits, whose scores spread over some nats; the bounds are twice what was measured."""
    datasets = pytest.importorskip("sklearn.datasets")
    X = datasets.load_digits().data[::3] / 16
    model = VAE(epochs=20, random_state=0).fit(X)
    runs = np.array([model.score_samples(X, rng=key) for key in range(4)])
    spread, error = runs.mean(axis=0).std(), np.sqrt(runs.var(axis=0, ddof=1).mean())
    assert spread > 2
    assert error < 0.07
    ranks = runs.argsort(axis=1).argsort(axis=1)
    assert np.corrcoef(ranks)[0, 1] > 0.9995


@pytest.mark.parametrize("latent_dim", [1, 3, DRAWS // 2, DRAWS // 2 + 1, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_is_balanced(latent_dim, dtype):
    noise = balanced_noise(5, DRAWS, latent_dim, np.dtype(dtype))
    assert noise.shape == (DRAWS, 1, latent_dim)
    assert noise.dtype == dtype
    e = noise[:, 0].astype(np.float64)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    np.testing.assert_array_equal(e[: DRAWS // 2], -e[DRAWS // 2 :])
    if latent_dim <= DRAWS // 2:
        np.testing.assert_allclose(e.T @ e / DRAWS, np.eye(latent_dim), atol=tolerance)
    else:
        np.testing.assert_allclose((e * e).sum(axis=1), latent_dim, rtol=tolerance)
    assert (balanced_noise(6, DRAWS, latent_dim, np.dtype(dtype)) != noise).any()
