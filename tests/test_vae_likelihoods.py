"""VAE with each likelihood of fastelbo: files, means, counts, and which ones it refuses."""

import inspect
import re

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE
from fastelbo._catalogue import VARIANTS
from fastelbo._catalogue.likelihoods import cases_of
from fastelbo._named import LIKELIHOODS
from fastelbo._vae_settings import trained_names
from tests.test_vae import QUICK
from tests.test_vae import bars as bars

PER_FEATURE = np.linspace(0.5, 1.5, 16)
#: Forms of likelihoods whose decoder outputs have an axis of classes or components, or must be
#: probabilities, or that would see other numbers than the encoder does.
REFUSED = [
    name
    for name, v in VARIANTS.items()
    if set("CM") & set("".join(v.parameters.values()))
    or "x_scale" in v.options
    or "probs" in v.parameters
]
#: The others, with data of their own.
TRAINED = {
    name: (v.make(fastelbo), cases_of(v)[0].draw(B=200, D=(16,))["x"])
    for name, v in VARIANTS.items()
    if name not in REFUSED
}
#: Arguments of each kind: arrays, flags.
SPECIAL = [
    fastelbo.SquaredError(missing="nan"),
    fastelbo.Gaussian(PER_FEATURE.astype(np.float32), missing="nan"),
    fastelbo.StudentT(3 + PER_FEATURE, 0.5, missing="nan"),
    fastelbo.Bernoulli(validate=False, missing="nan"),
    fastelbo.Binomial(list(range(2, 18)), validate=False, missing="nan"),
    fastelbo.NegativeBinomial(np.append(PER_FEATURE[1:], np.inf)),
    fastelbo.DiscretizedLogistic(PER_FEATURE, bins=3, validate=False),
]
BINARY = np.random.default_rng(0).integers(0, 2, (200, 16))
each_trained = pytest.mark.parametrize(
    ("likelihood", "X"),
    [*TRAINED.values(), *((likelihood, BINARY) for likelihood in SPECIAL)],
    ids=[*TRAINED, *map(repr, SPECIAL)],
)


def arguments(likelihood):
    found = {
        name: getattr(likelihood, name) for name in inspect.signature(type(likelihood)).parameters
    }
    if "blocks" in found:
        found["blocks"] = [(arguments(part), columns) for part, columns in found["blocks"]]
    return found


@each_trained
def test_save_and_load(likelihood, X, tmp_path):
    model = VAE(**QUICK, likelihood=likelihood).fit(X)
    model.save(tmp_path / "model.npz")
    other = VAE.load(tmp_path / "model.npz")
    for one, before in (
        (other.likelihood, likelihood),
        (other.likelihood_, model.likelihood_),
    ):
        assert type(one) is type(before)
        np.testing.assert_equal(arguments(one), arguments(before))
    assert other.history_ == model.history_
    np.testing.assert_array_equal(other.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(
        other.sample(5, rng=1),
        model.sample(5, rng=1),
    )
    for each in (model, other):
        each.partial_fit(X)
    np.testing.assert_array_equal(other.transform(X), model.transform(X))


@each_trained
def test_files_hold_nothing_to_execute(likelihood, X, tmp_path):
    VAE(**QUICK, likelihood=likelihood).fit(X).save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "fiub" for name in stored.files)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_network_cannot_serve_is_refused(name, bars):
    likelihood = VARIANTS[name].make(fastelbo)
    message = "needs decoder outputs with an axis|needs probabilities|has an x_scale, which only"
    with pytest.raises(ValueError, match=message):
        VAE(**QUICK, likelihood=likelihood).fit(bars)


def test_optimal_scale_keeps_what_else_was_asked_for(bars):
    likelihood = fastelbo.Gaussian("optimal", missing="nan")
    assert VAE(**QUICK, likelihood=likelihood).fit(bars).likelihood_.missing == "nan"


def test_those_that_need_no_argument_go_by_name(bars):
    """As for every function that takes a likelihood; the network says which it does not serve."""
    needed = {}
    kinds = [getattr(fastelbo, name) for name in fastelbo.__all__]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, fastelbo.Likelihood):
            try:
                kind()
            except TypeError:
                continue
            needed[re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()] = kind
    del needed["likelihood"]  # the base of all others
    assert {name: type(make()) for name, make in LIKELIHOODS.items()} == needed
    for name in LIKELIHOODS:
        model = VAE(**QUICK, likelihood=name)
        if name in trained_names():
            X = bars if "bernoulli" in name else 1 + bars
            assert np.isfinite(model.fit(X).score(X))
        else:
            with pytest.raises(ValueError, match="an axis of classes or components"):
                model.fit(bars)


# Means ------------------------------------------------------------------------------------------


@each_trained
def test_means_of_p_of_x_given_z(likelihood, X):
    """Samples and reconstructions are what the likelihood makes of the decoder's outputs."""
    model = VAE(**QUICK, likelihood=likelihood).fit(X)
    z = model.transform(X)
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


# Counts -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells():
    """Counts of 30 genes in 400 cells, overdispersed, from 3 factors; and their true means."""
    rng = np.random.default_rng(0)
    factors, loadings = rng.normal(size=(400, 3)), rng.normal(size=(3, 30))
    means = np.exp(0.7 * factors @ loadings + rng.normal(1, 1, 30))
    counts = rng.poisson(means * rng.gamma(2.0, 0.5, means.shape))
    assert counts.max() > 500
    return counts, means


@pytest.mark.parametrize(
    "likelihood",
    [
        fastelbo.NegativeBinomial(),
        fastelbo.NegativeBinomial(theta=2.0),
        fastelbo.ZeroInflatedNegativeBinomial(),
        fastelbo.Poisson(log_input=False),
    ],
    ids=repr,
)
def test_counts_are_learned(likelihood, cells):
    counts, means = cells
    options = {"hidden": (64,), "latent_dim": 3, "learning_rate": 3e-3, "random_state": 0}
    model = VAE(**options, epochs=60, batch_size=50, likelihood=likelihood).fit(counts)
    found = model.inverse_transform(model.transform(counts))
    assert np.corrcoef(np.log(found).ravel(), np.log(means).ravel())[0, 1] > 0.85
    # better than what the data say of each gene alone, latents' cost included
    alone = np.broadcast_to(counts.mean(axis=0), counts.shape)
    if not isinstance(likelihood, fastelbo.Poisson):
        likelihood = fastelbo.NegativeBinomial(theta=2.0)
        alone = likelihood.log_prob(counts, alone)
        assert model.score(counts) > alone + 15


@pytest.mark.parametrize(
    ("likelihood", "bad", "domain"),
    [
        (fastelbo.Poisson(), -1, "counts 0, 1, 2"),
        (fastelbo.NegativeBinomial(), 0.5, "counts 0, 1, 2"),
        (fastelbo.ZeroInflatedNegativeBinomial(), -2, "counts 0, 1, 2"),
        (fastelbo.Binomial([5] * 11 + [9] + [5] * 4), 10, "counts 0, 1, ..., total_count"),
        (fastelbo.BetaBinomial(9), 10, "counts 0, 1, ..., total_count"),
        (fastelbo.DiscretizedLogistic(bins=10), 10, "the bins 0, 1, ..., 9"),
    ],
    ids=repr,
)
def test_no_counts_are_found_before_training(likelihood, bad, domain, bars):
    X = 4 * bars
    X[17, 11] = bad
    message = re.escape(f"X[17, 11] = {bad:g} lies outside the domain of") + f".*{domain}"
    with pytest.raises(ValueError, match=message):
        VAE(**QUICK, likelihood=likelihood).fit(X)
    X[17, 11] = 4
    model = VAE(**QUICK, likelihood=likelihood).fit(X)
    X[17, 11] = bad
    for method in (model.score, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X)


@pytest.mark.parametrize(
    "likelihood",
    [
        fastelbo.Binomial([3, 4]),
        fastelbo.Gaussian([1.0, 2.0]),
        fastelbo.NegativeBinomial([1.0, 2.0]),
    ],
    ids=repr,
)
def test_parameters_of_other_features(likelihood, bars):
    with pytest.raises(ValueError, match=r"has shape \(2,\), which does not broadcast to .*16"):
        VAE(**QUICK, likelihood=likelihood).fit(bars)


@pytest.mark.parametrize(
    "likelihood", [fastelbo.NegativeBinomial(), fastelbo.BetaBinomial(1000)], ids=repr
)
def test_divergence_of_positive_outputs(likelihood, bars):
    """Outputs that overflow, or vanish, are the training's fault, not that of the data."""
    model = VAE(**{**QUICK, "epochs": 50}, learning_rate=1e3, likelihood=likelihood)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="diverged in epoch"):
        model.fit(1000 * bars)


def test_pseudo_inputs_are_what_the_encoder_sees(cells):
    counts, _ = cells
    options = {**QUICK, "epochs": 1, "learning_rate": 1e-12, "likelihood": fastelbo.Poisson()}
    model = VAE(**options, prior="vamp", prior_components=40).fit(counts)
    z = model.transform(counts)
    for mu in model.prior_.mu:
        assert np.abs(z - mu).sum(axis=1).min() < 1e-4


@pytest.mark.parametrize(
    ("first", "then", "serves"),
    [
        (fastelbo.Poisson(), fastelbo.NegativeBinomial(2.0), False),
        (fastelbo.Bernoulli(), fastelbo.Binomial(1), False),
        (fastelbo.Gaussian(), fastelbo.Gaussian("learned"), False),
        (fastelbo.Gaussian("optimal"), fastelbo.Laplace(), True),
        (fastelbo.Bernoulli(), fastelbo.ContinuousBernoulli(), True),
    ],
    ids=repr,
)
def test_another_likelihood_half_way(first, then, serves, bars):
    model = VAE(**QUICK, likelihood=first).fit(bars).set_params(likelihood=then)
    if serves:
        assert repr(model.partial_fit(bars).likelihood_) == repr(then)
    else:
        with pytest.raises(ValueError, match="takes another network than"):
            model.partial_fit(bars)
