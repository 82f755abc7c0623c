"""VAE: its gradients, what it learns, its conventions, its files."""

import copy
import pickle
import sys
from itertools import pairwise

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import fastelbo
from fastelbo import VAE, Bernoulli, FreeBits, Gaussian, SquaredError, _blas
from fastelbo._network import Autoencoder
from fastelbo._visible import Visible
from fastelbo.vae import NotFittedError
from tests.conftest import numerical_gradient

QUICK = {"hidden": (16,), "latent_dim": 3, "epochs": 3, "random_state": 0}


@pytest.fixture(scope="module")
def bars():
    """Binary 4 x 4 pictures of horizontal bars, each there or not."""
    rows = np.random.default_rng(1).integers(0, 2, (300, 4))
    return rows.repeat(4, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(bars):
    return VAE(**QUICK).fit(bars)


# Training ---------------------------------------------------------------------------------------


COUNTS = fastelbo.Poisson, fastelbo.Binomial, fastelbo.NegativeBinomial


def plain_elbo(flat, model, x, noise, likelihood, beta, free_bits):
    """The objective of one step in NumPy, from a flat array of parameters."""

    def dense(h, widths):
        nonlocal start
        for i, (n, m) in enumerate(pairwise(widths)):
            w = flat[start : start + n * m].reshape(n, m)
            h = h @ w + flat[start + n * m : start + (n + 1) * m]
            start += (n + 1) * m
            if i < len(widths) - 2:
                h = np.maximum(h, 0)
        return h

    start = 0
    seen = np.log1p(x) if isinstance(likelihood, COUNTS) else x
    mu, logvar = np.split(dense(seen, model.encoder.widths), 2, axis=1)
    outputs = dense(mu + np.exp(logvar / 2) * noise, model.decoder.widths)
    outputs = np.split(outputs, len(model.visible.widths), axis=1)
    for i, name in enumerate(likelihood.parameters):
        if name in ("mean", "theta", "rate", "alpha", "beta"):
            outputs[i] = np.exp(outputs[i])
    kl = fastelbo.kl_standard_normal(mu, logvar, free_bits=free_bits)
    return likelihood.log_prob(x, *outputs) - beta * kl


@pytest.mark.parametrize(
    ("likelihood", "hidden", "beta", "free_bits"),
    [
        (Bernoulli(), (5,), 1.0, 0.0),
        (SquaredError(), (), 0.5, 0.0),
        (Gaussian(0.3), (6, 4), 2.0, 0.0),
        (Gaussian("learned"), (5,), 1.0, 0.0),
        (Bernoulli(), (5,), 1.5, FreeBits(0.2, granularity="sample")),
        (fastelbo.Poisson(log_input=False), (5,), 1.0, 0.0),
        (fastelbo.BetaBinomial(20), (5,), 1.0, 0.0),
        (fastelbo.NegativeBinomial(), (5,), 1.0, 0.0),
        (fastelbo.ZeroInflatedNegativeBinomial(1.5), (5,), 1.0, 0.0),
        (fastelbo.ZeroInflatedNegativeBinomial(), (5,), 1.0, 0.0),
    ],
    ids=repr,
)
def test_gradient_of_a_step(likelihood, hidden, beta, free_bits):
    rng = np.random.default_rng(0)
    of_counts = isinstance(likelihood, COUNTS)
    model = Autoencoder(
        Visible(likelihood, 4),
        hidden,
        2,
        np.float64,
    )
    model.initialise(rng)
    flat = model.adam.parameters.copy()
    x = rng.poisson(3, (7, 4)).astype(np.float64) if of_counts else rng.random((7, 4))
    rows = np.array([5, 0, 3])
    noise = fastelbo.reparameterize(np.zeros((3, 2)), np.zeros((3, 2)), rng=9)
    value, kl = model.step(x, rows, likelihood, beta, free_bits, 9, 1e-3, 1)

    def objective(parameters):
        return plain_elbo(parameters, model, x[rows], noise, likelihood, beta, free_bits)

    assert value - beta * kl == pytest.approx(objective(flat), rel=1e-12)
    expected = numerical_gradient(objective, flat, step=1e-5)
    np.testing.assert_allclose(model.adam.grads, expected, rtol=1e-5, atol=1e-8)
    # the first step of Adam is the learning rate in the direction of the gradient's sign
    moved = np.abs(expected) > 1e-4
    np.testing.assert_allclose(
        (model.adam.parameters - flat)[moved], 1e-3 * np.sign(expected[moved]), rtol=1e-3
    )


def test_learns_the_bars(bars):
    model = VAE(hidden=(64,), latent_dim=4, epochs=150, batch_size=50, random_state=0).fit(bars)
    # the entropy of four coins is 2.77 nats: an ELBO above -5 means that they were found,
    # and independent pixels give -11.09
    assert model.score(bars) > -5
    assert model.history_["elbo"][0] < -9
    recon = model.inverse_transform(model.transform(bars))
    assert ((recon > 0.5) == bars).mean() > 0.99
    drawn = model.sample(200, rng=1).reshape(-1, 4, 4)
    assert drawn.shape == (200, 4, 4)
    assert (drawn.std(axis=2) < 0.2).mean() > 0.9  # whole bars


@pytest.mark.parametrize("likelihood", ["gaussian", "squared_error", Gaussian("learned")], ids=repr)
def test_other_likelihoods_learn(likelihood):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 2)) @ rng.standard_normal((2, 8))
    X += 0.1 * rng.standard_normal(X.shape)
    model = VAE(
        hidden=(32,), latent_dim=2, likelihood=likelihood, epochs=80, batch_size=50,
        learning_rate=5e-3, random_state=0,
    ).fit(X)  # fmt: skip
    recon = model.inverse_transform(model.transform(X))
    assert np.mean((recon - X) ** 2) < 0.1 * X.var()
    assert model.score(X) > model.history_["elbo"][0]


def test_optimal_scale_is_found():
    X = np.random.default_rng(0).normal(3.0, 0.7, (2000, 6))
    model = VAE(
        hidden=(8,), latent_dim=1, likelihood="gaussian", epochs=30, learning_rate=1e-2,
        random_state=0,
    ).fit(X)  # fmt: skip
    assert model.likelihood_.scale == pytest.approx(0.7, rel=0.05)
    # scored by that scale, a sample's score does not depend on what it is scored with
    assert model.score_samples(X[:1])[0] == pytest.approx(model.score_samples(X)[0], abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reproducible_whatever_the_threads(bars, dtype):
    runs = [
        VAE(hidden=(256,), latent_dim=20, epochs=2, dtype=dtype, random_state=5, num_threads=n)
        for n in (1, 2, None)
    ]
    with threadpool_limits(1, user_api="blas"):  # spinning threads of two kinds hold each other up
        runs = [run.fit(np.tile(bars, (1, 8))) for run in runs]
    for run in runs[1:]:
        assert run.history_ == runs[0].history_
        np.testing.assert_array_equal(run._model.adam.parameters, runs[0]._model.adam.parameters)
    assert runs[0].transform(np.tile(bars, (1, 8))).dtype == dtype


def test_random_states(bars):
    def first(state):
        return VAE(**{**QUICK, "epochs": 1, "random_state": state}).fit(bars).history_["elbo"][0]

    assert first(3) == first(3) == first(np.int64(3))
    assert first(3) != first(4)
    assert first(None) != first(None)
    assert first(np.random.default_rng(3)) == first(np.random.default_rng(3))
    assert first(np.random.RandomState(3)) == first(np.random.RandomState(3))
    for none in ("3", True, 3.0):
        with pytest.raises(TypeError, match="random_state must be an int"):
            first(none)
    with pytest.raises(ValueError, match="random_state must not be negative, got -1"):
        first(-1)
    with pytest.raises(ValueError, match="more than any array holds"):
        VAE(**QUICK).fit(bars).sample(1 << 61)


def test_partial_fit_is_an_epoch(bars):
    model = VAE(**QUICK)
    for n in (1, 2, 3):
        assert model.partial_fit(bars) is model
        assert model.n_iter_ == n
    whole = VAE(**QUICK).fit(bars)
    assert whole.history_ == model.history_
    assert whole.n_parameters_ == 16 * 17 + 17 * 6 + 3 * 16 + 16 + 17 * 16


def test_history_is_the_objective(bars):
    history = VAE(**{**QUICK, "beta": 0.25}).fit(bars).history_
    assert list(history) == ["elbo", "reconstruction", "kl", "beta", "active_units"]
    assert history["beta"] == [0.25] * 3
    for elbo, reconstruction, kl, *_ in zip(*history.values(), strict=True):
        assert elbo == pytest.approx(reconstruction - 0.25 * kl)


@pytest.mark.filterwarnings("ignore:the posterior has collapsed")
def test_beta_and_free_bits_act(bars):
    def kl(**options):
        options = {**QUICK, "epochs": 40, "learning_rate": 5e-3, **options}
        return VAE(**options).fit(bars).score_parts(bars)[1].mean()

    plain = kl()
    assert kl(beta=4.0) < 0.8 * plain
    assert kl(beta=30.0) < 0.1
    assert kl(beta=30.0, free_bits=0.5) > 0.5


@pytest.mark.filterwarnings("ignore:X is not scaled")
@pytest.mark.parametrize("likelihood", ["squared_error", "gaussian", Gaussian("learned")], ids=repr)
def test_divergence_is_an_error(likelihood, bars):
    unscaled = VAE(**{**QUICK, "likelihood": likelihood})
    likely = r"diverged in epoch \d .*likely cause is that X is not scaled.* reach 1e\+30: standard"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=likely):
        unscaled.fit(bars * 1e30)
    with pytest.raises(NotFittedError):
        unscaled.transform(bars)
    fast = VAE(**{**QUICK, "learning_rate": 1e12, "likelihood": likelihood, "epochs": 50})
    slower = r"diverged in epoch \d+ \([^)]*\): a learning_rate lower than 1e\+12 may help"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=slower):
        fast.fit(bars)


def test_large_counts_are_not_called_unscaled(bars):
    fast = VAE(**{**QUICK, "learning_rate": 1e12, "likelihood": fastelbo.Poisson(log_input=False)})
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"\): a learning_rate"):
        fast.fit(bars * 1e6)


def blas_threads():
    """Of NumPy's BLAS: SciPy may bring one of its own, which is left alone."""
    pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
    return {p["num_threads"] for p in [p for p in pools if "numpy" in p["filepath"]] or pools}


class Watching(VAE):
    """Notes the threads of BLAS at each epoch."""

    def _epoch(self, *data):
        self.seen = [*getattr(self, "seen", []), blas_threads()]
        return super()._epoch(*data)


def test_blas_is_limited_while_training(bars):
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        model = Watching(**QUICK).fit(bars)
        assert model.seen == [{1}] * 3
        model.partial_fit(bars)
        assert model.seen[3:] == [{1}]
        assert blas_threads() == before
        large = Watching(**{**QUICK, "hidden": (_blas.WORTH_SEVERAL // 128 // 16,), "epochs": 1})
        with np.errstate(all="ignore"):
            assert large.fit(bars[:2]).seen == [before]


def test_blas_limits_that_overlap_end_with_the_last():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = _blas.threads_worth(1), _blas.threads_worth(1)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before


def test_trains_without_threadpoolctl(bars, monkeypatch):
    monkeypatch.setattr(_blas, "_controller", None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert Watching(**QUICK).fit(bars).seen == [blas_threads()] * 3


# Use --------------------------------------------------------------------------------------------


def test_more_rows_than_a_chunk(fitted, bars):
    many = np.tile(bars, (10, 1))
    last = fitted.transform(many)[-300:]
    np.testing.assert_allclose(last, fitted.transform(bars), rtol=1e-5, atol=1e-6)
    assert fitted.score_samples(many).shape == (3000,)
    back = fitted.inverse_transform(fitted.transform(many))
    assert back.shape == many.shape
    assert ((back >= 0) & (back <= 1)).all()


def test_sample(fitted):
    assert fitted.sample().shape == (1, 16)
    np.testing.assert_array_equal(fitted.sample(5, rng=2), fitted.sample(5, rng=2))
    assert (fitted.sample(5) != fitted.sample(5)).any()
    with pytest.raises(ValueError, match="n must be at least 1"):
        fitted.sample(0)


def test_inputs_are_left_alone(bars):
    X = bars.copy()
    X.flags.writeable = False
    VAE(**QUICK).fit(X).transform(X)
    np.testing.assert_array_equal(X, bars)


@pytest.mark.parametrize("kind", ["list", "uint8", "float64", "fortran", "bool", "frame"])
def test_kinds_of_data(fitted, bars, kind):
    data = {
        "list": bars.tolist,
        "uint8": lambda: bars.astype(np.uint8),
        "float64": lambda: bars.astype(np.float64),
        "fortran": lambda: np.asfortranarray(bars),
        "bool": lambda: bars.astype(bool),
        "frame": lambda: bars.astype(object),
    }[kind]()
    np.testing.assert_array_equal(VAE(**QUICK).fit(data).transform(data), fitted.transform(bars))


def spoiled(bars, row, column, value):
    X = bars.copy()
    X[row, column] = value
    return X


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: spoiled(X, 17, 4, np.nan), ValueError, "infinity: nan at row 17, column 4"),
        (lambda X: spoiled(X, 2, 0, -np.inf), ValueError, "-inf at row 2, column 0"),
        (lambda X: X.astype(np.float64) + 1e300, ValueError, "NaN or infinity"),
        (lambda X: spoiled(X, 3, 5, 1.5), ValueError, r"X\[3, 5\] = 1.5 lies outside the domain"),
        (lambda X: X[0], ValueError, "Expected 2D array, got 1D array"),
        (lambda X: X[:0], ValueError, "X is empty"),
        (lambda X: X[:, :0], ValueError, "X is empty"),
        (lambda X: X + 1j, ValueError, "Complex data not supported"),
        (lambda X: np.full(X.shape, "a"), ValueError, "must hold real numbers"),
    ],
)
def test_bad_data(fitted, bars, change, error, message):
    with pytest.raises(error, match=message):
        VAE(**QUICK).fit(change(bars))
    with pytest.raises(error, match=message if "empty" not in message else "X"):
        fitted.score_samples(change(bars))


def test_data_outside_of_the_domain(fitted, bars):
    """Are encoded; scores name what takes them."""
    X = spoiled(bars, 3, 5, 1.5)
    assert np.isfinite(fitted.transform(X)).all()
    refining = copy.deepcopy(fitted).set_params(refine_steps=1)
    real = 'takes such data: likelihood="weibull", likelihood="gaussian", likelihood="laplace", '
    for method in (fitted.score, fitted.partial_fit, fitted.fit, refining.transform):
        with pytest.raises(
            ValueError, match=rf"\[0, 1\]: scale X by MinMaxScaler.clip=True.*{real}"
        ):
            method(X)
    with pytest.raises(ValueError, match='data: likelihood="poisson", likelihood="negative_bin'):
        fitted.score(3 * bars)
    with pytest.raises(ValueError, match=f"counts 0, 1, 2, ...: fit with a likelihood that {real}"):
        VAE(likelihood="poisson").fit(X)
    of_counts = VAE(**QUICK, likelihood="poisson").fit(bars)
    assert np.isfinite(of_counts.transform(X)).all()
    with pytest.raises(ValueError, match=r"X\[3, 5\] = -1 has no log\(1 \+ X\)"):
        of_counts.transform(spoiled(bars, 3, 5, -1))


def test_wrong_number_of_features(fitted, bars):
    for method in (fitted.transform, fitted.score_samples, fitted.score, fitted.partial_fit):
        with pytest.raises(ValueError, match="X has 15 features, but VAE is expecting 16"):
            method(bars[:, :15])
    with pytest.raises(ValueError, match="Z has 2 columns, expected 3"):
        fitted.inverse_transform(np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"latent_dim": 0}, ValueError),
        ({"latent_dim": 2.5}, TypeError),
        ({"hidden": (16, 0)}, ValueError),
        ({"hidden": "16"}, TypeError),
        ({"epochs": -1}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"learning_rate": 0.0}, ValueError),
        ({"learning_rate": "fast"}, TypeError),
        ({"beta": -1.0}, ValueError),
        ({"beta": np.nan}, ValueError),
        ({"free_bits": -1.0}, ValueError),
        ({"likelihood": "cauchy"}, ValueError),
        ({"likelihood": Bernoulli(x_scale=0.5)}, ValueError),
        ({"dtype": "float16"}, ValueError),
        ({"num_threads": 0}, ValueError),
    ],
)
def test_bad_parameters(bars, options, error):
    name = next(iter(options))
    with pytest.raises(error, match=name.replace("_", ".")):
        VAE(**{**QUICK, **options}).fit(bars)


def test_not_fitted(bars):
    model = VAE()
    calls = [
        lambda: model.transform(bars),
        lambda: model.inverse_transform(np.zeros((1, 10))),
        lambda: model.sample(1),
        lambda: model.score(bars),
        lambda: model.save("nowhere.npz"),
        lambda: model.get_feature_names_out(),
    ]
    for call in calls:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()
    assert issubclass(NotFittedError, ValueError)
    assert issubclass(NotFittedError, AttributeError)


# Conventions ------------------------------------------------------------------------------------


def test_parameters():
    model = VAE(beta=2.0, hidden=[8])
    assert model.get_params()["beta"] == 2.0
    assert model.set_params(beta=3.0, epochs=7) is model
    assert (model.beta, model.epochs) == (3.0, 7)
    assert repr(model) == "VAE(beta=3.0, epochs=7, hidden=[8])"
    assert eval(repr(model)).get_params() == model.get_params()
    with pytest.raises(ValueError, match="Invalid parameter 'gamma'"):
        model.set_params(gamma=1)


def test_scikit_learn_takes_it(bars):
    base = pytest.importorskip("sklearn.base")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.utils.validation import check_is_fitted

    model = VAE(**QUICK, likelihood=Gaussian("learned"))
    twin = base.clone(model)
    assert twin is not model
    assert repr(twin.get_params()) == repr(model.get_params())
    chain = make_pipeline(MinMaxScaler(), VAE(**{**QUICK, "epochs": 100}), LogisticRegression())
    labels = bars[:, 0].astype(int)
    chain.fit(3 * bars, labels)
    assert chain.score(3 * bars, labels) > 0.75
    check_is_fitted(chain)
    assert list(chain[:-1].get_feature_names_out()) == ["vae0", "vae1", "vae2"]
    search = GridSearchCV(VAE(**QUICK), {"learning_rate": [1e-6, 3e-3]}, cv=2).fit(bars)
    assert search.best_params_ == {"learning_rate": 3e-3}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_training(bars, copied):
    model = VAE(**QUICK).fit(bars)
    other = copied(model)
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))
    model.partial_fit(bars)
    assert other.history_ != model.history_
    other.partial_fit(bars)
    assert other.history_ == model.history_
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))


def test_progress_bar(bars, capsys):
    pytest.importorskip("tqdm")
    VAE(**QUICK, verbose=True).fit(bars)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "elbo=" in shown
    VAE(**QUICK).fit(bars)
    assert capsys.readouterr().err == ""
