"""VAE with each likelihood of fastelbo: files, and which ones it refuses."""

import inspect

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE
from tests.test_vae import QUICK
from tests.test_vae import bars as bars

PER_FEATURE = np.linspace(0.5, 1.5, 16)
#: Every likelihood that can be trained, with every argument somewhere.
TRAINED = [
    fastelbo.SquaredError(missing="nan"),
    fastelbo.Gaussian(PER_FEATURE.astype(np.float32), missing="nan"),
    fastelbo.Gaussian("learned"),
    fastelbo.Gaussian("optimal", missing="nan"),
    fastelbo.Laplace(0.5),
    fastelbo.Laplace("learned", missing="nan"),
    fastelbo.StudentT(3 + PER_FEATURE, 0.5, missing="nan"),
    fastelbo.StudentT("learned", "learned"),
    fastelbo.Bernoulli(validate=False, missing="nan"),
    fastelbo.ContinuousBernoulli(validate=False),
    fastelbo.Poisson(missing="nan"),
    fastelbo.Binomial(list(range(2, 18)), validate=False, missing="nan"),
    fastelbo.DiscretizedLogistic(bins=2, missing="nan"),
    fastelbo.DiscretizedLogistic(PER_FEATURE, bins=3, validate=False),
]
#: What needs an axis of classes or components, which the decoder does not have.
REFUSED = [fastelbo.Categorical(), fastelbo.DiscretizedLogisticMixture(bins=2)]


def arguments(likelihood):
    return {
        name: getattr(likelihood, name) for name in inspect.signature(type(likelihood)).parameters
    }


@pytest.mark.parametrize("likelihood", TRAINED, ids=repr)
def test_save_and_load(likelihood, bars, tmp_path):
    model = VAE(**QUICK, likelihood=likelihood).fit(bars)
    model.save(tmp_path / "model.npz")
    other = VAE.load(tmp_path / "model.npz")
    for one, before in (
        (other.likelihood, likelihood),
        (other.likelihood_, model.likelihood_),
    ):
        assert type(one) is type(before)
        np.testing.assert_equal(arguments(one), arguments(before))
    assert other.history_ == model.history_
    np.testing.assert_array_equal(other.score_samples(bars), model.score_samples(bars))
    np.testing.assert_array_equal(
        other.sample(5, rng=1),
        model.sample(5, rng=1),
    )
    for each in (model, other):
        each.partial_fit(bars)
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))


@pytest.mark.parametrize("likelihood", TRAINED, ids=repr)
def test_files_hold_nothing_to_execute(likelihood, bars, tmp_path):
    VAE(**QUICK, likelihood=likelihood).fit(bars).save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "fiub" for name in stored.files)


@pytest.mark.parametrize("likelihood", REFUSED, ids=repr)
def test_classes_and_components_are_refused(likelihood, bars):
    with pytest.raises(ValueError, match=r"needs decoder outputs with an axis of"):
        VAE(**QUICK, likelihood=likelihood).fit(bars)


def test_optimal_scale_keeps_what_else_was_asked_for(bars):
    likelihood = fastelbo.Gaussian("optimal", missing="nan")
    assert VAE(**QUICK, likelihood=likelihood).fit(bars).likelihood_.missing == "nan"


# Means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", TRAINED, ids=repr)
def test_means_of_p_of_x_given_z(likelihood, bars):
    """Samples and reconstructions are what the likelihood makes of the decoder's outputs."""
    model = VAE(**QUICK, likelihood=likelihood).fit(bars)
    z = model.transform(bars)
    outputs = model._model.decode(z, 1)
    expected = model.likelihood_.mean(*outputs)
    np.testing.assert_allclose(model.inverse_transform(z), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("likelihood", "top"),
    [
        (fastelbo.Poisson(), np.inf),
        (fastelbo.Binomial(3), 3),
        (fastelbo.ContinuousBernoulli(), 1),
        (fastelbo.DiscretizedLogistic(0.3, bins=4), 3),
    ],
    ids=repr,
)
def test_means_are_in_the_domain_and_near_the_data(likelihood, top, bars):
    X = bars if top == 1 else 3 * bars
    options = {"hidden": (64,), "latent_dim": 4, "learning_rate": 1e-2, "random_state": 0}
    model = VAE(**options, epochs=60, batch_size=50, likelihood=likelihood).fit(X)
    for means in (model.sample(50, rng=1), model.inverse_transform(model.transform(X))):
        assert ((means >= 0) & (means <= top)).all()
    assert np.abs(means - X).mean() < 0.2 * X.max()
