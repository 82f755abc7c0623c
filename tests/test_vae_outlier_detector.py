"""VAEOutlierDetector: what it finds, where it draws the line, what it refuses."""

import pickle

import numpy as np
import pytest

from fastelbo import VAE, VAEOutlierDetector
from fastelbo.vae import NotFittedError

OUT = [3, 50, 120]


@pytest.fixture(scope="module")
def X():
    """A line in three dimensions, and three rows off it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 1)) * [1.0, -1.0, 0.5] + 0.1 * rng.standard_normal((200, 3))
    X[OUT] = [[1.5, 1.5, 0.0], [-1.5, -1.5, 0.5], [0.0, 0.5, 2.0]]
    return X


@pytest.fixture(scope="module")
def vae():
    return VAE(
        hidden=(16,),
        latent_dim=1,
        likelihood="gaussian",
        epochs=60,
        learning_rate=0.01,
        random_state=0,
    )


@pytest.fixture(scope="module")
def detector(X, vae):
    return VAEOutlierDetector(vae, contamination=0.015).fit(X)


def test_finds_what_is_off_the_line(detector, X, vae):
    assert np.flatnonzero(detector.predict(X) == -1).tolist() == OUT
    new = [[1.0, -1.0, 0.5], [1.0, 1.0, 0.5], [0.5, -0.5, 0.25]]
    assert detector.predict(new).tolist() == [1, -1, 1]
    assert not hasattr(vae, "history_")  # a copy of it was fitted


def test_scores_are_those_of_the_model(detector, X):
    scores = detector.score_samples(X)
    np.testing.assert_array_equal(scores, detector.estimator_.score_samples(X))
    np.testing.assert_array_equal(detector.decision_function(X), scores - detector.offset_)
    np.testing.assert_array_equal(detector.predict(X) == 1, scores >= detector.offset_)
    assert detector.n_features_in_ == 3
    assert not hasattr(detector, "feature_names_in_")


@pytest.mark.parametrize("contamination", [0.005, 0.1, 0.25, 0.5])
def test_as_many_as_was_said(detector, X, contamination):
    """Of 200 rows, by a model that is fitted already."""
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator(detector.estimator_)
    found = VAEOutlierDetector(frozen, contamination=contamination).fit_predict(X)
    assert np.count_nonzero(found == -1) == 200 * contamination


def test_any_density_model_does(X):
    mixture = pytest.importorskip("sklearn.mixture").GaussianMixture(random_state=0)
    found = VAEOutlierDetector(mixture, contamination=0.015).fit_predict(X)
    assert np.flatnonzero(found == -1).tolist() == OUT


def test_the_model_by_default_is_of_real_numbers(X):
    detector = VAEOutlierDetector(contamination=0.1)
    assert detector._chosen().likelihood == "gaussian"
    quick = VAEOutlierDetector(VAE(epochs=1)).set_params(estimator__likelihood="gaussian")
    assert quick.fit(X).estimator_.likelihood == "gaussian"


def test_pickled(detector, X):
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.decision_function(X), detector.decision_function(X))


@pytest.mark.parametrize("contamination", [0.0, 0.51, -0.1, np.nan, np.inf])
def test_shares_that_are_none(X, vae, contamination):
    with pytest.raises(ValueError, match=r"contamination must be in \(0, 0.5\], got"):
        VAEOutlierDetector(vae, contamination=contamination).fit(X)


def test_what_does_not_fit(X, vae, detector):
    with pytest.raises(TypeError, match="contamination must be a number, got 'auto'"):
        VAEOutlierDetector(vae, contamination="auto").fit(X)
    for odd in (VAE, "vae", 3):
        with pytest.raises(TypeError, match="estimator must be a VAE or another density model"):
            VAEOutlierDetector(odd).fit(X)
    with pytest.raises(NotFittedError, match="VAEOutlierDetector instance is not fitted"):
        VAEOutlierDetector().predict(X)
    with pytest.raises(ValueError, match="X has 2 features, but VAE is expecting 3"):
        detector.predict(X[:, :2])
    failing = VAEOutlierDetector(vae)
    with pytest.raises(ValueError, match="X contains NaN or infinity"):
        failing.fit(np.where(X > 1, np.nan, X))
    assert not hasattr(failing, "offset_")
