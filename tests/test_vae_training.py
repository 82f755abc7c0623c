"""How VAE is trained: activations, the optimizer's settings, validation, and what ends training."""

import copy
import signal
import sys

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, SemiSupervisedVAE, _builds
from fastelbo._adam import Adam
from fastelbo._class_network import ClassAutoencoder
from fastelbo._network import Autoencoder
from fastelbo._reading import Rows
from fastelbo._training import warn_of_scale
from fastelbo._visible import Visible
from tests.test_signals import timer as timer
from tests.test_vae import QUICK
from tests.test_vae import bars as bars

ACTIVATIONS = tuple(_builds.kernels("network").ACTIVATIONS)

# Activations ------------------------------------------------------------------------------------


def slopes_of(objective, start, at):
    """The derivatives of a function of flat parameters by some of them."""
    found = []
    for i in at:
        step = np.zeros_like(start)
        step[i] = 1e-6
        found.append((objective(start + step) - objective(start - step)) / 2e-6)
    return found


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_the_gradient_of_a_step_is_that_of_differences(activation, prior):
    rng = np.random.default_rng(0)
    x, likelihood = rng.random((7, 4)), fastelbo.Gaussian("learned")
    model = Autoencoder(Visible(likelihood, 4), (6, 5), 2, np.float64, prior, 3, activation)
    model.initialise(rng, x)
    start = model.adam.parameters + 0.1 * rng.standard_normal(model.adam.parameters.size)

    def objective(parameters):
        model.adam.parameters[...] = parameters
        value, kl = model.step(x, np.arange(7), likelihood, 0.7, 0.0, 11, 0.0, 1)
        return value - 0.7 * kl

    objective(start)
    gradient, at = model.adam.grads.copy(), range(0, start.size, 7)
    np.testing.assert_allclose(gradient[at], slopes_of(objective, start, at), rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_the_way_back_to_the_latents(activation):
    visible = Visible(fastelbo.SquaredError(), 4)
    model = Autoencoder(visible, (6, 5), 2, np.float64, activation=activation)
    model.initialise(np.random.default_rng(0))
    z, weights = np.random.default_rng(1).standard_normal((2, 3, 4))
    z = np.ascontiguousarray(z[:, :2])
    by_z = model.decode_and_pull(z, 1)[1](weights)

    def objective(flat):
        return float((model.decode(flat.reshape(3, 2), 1)[0] * weights).sum())

    expected = slopes_of(objective, z.ravel(), range(6))
    np.testing.assert_allclose(by_z.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_learn_and_are_saved(bars, tmp_path, activation):
    model = VAE(**{**QUICK, "epochs": 30, "learning_rate": 1e-2}, activation=activation).fit(bars)
    assert model.history_["elbo"][-1] > model.history_["elbo"][0] + 1
    model.set_params(activation="relu").save(tmp_path / "model.npz")  # which is for the next fit
    other = VAE.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))


def test_activations_of_semi_supervised_models():
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 5)), np.array([0, -1, 2, -1, 1, -1])
    model = ClassAutoencoder(
        Visible(fastelbo.SquaredError(), 5), 3, (7,), 2, "float64", activation="silu"
    )
    model.initialise(rng)
    start = model.adam.parameters.copy()

    def objective(parameters):
        model.adam.parameters[...] = parameters
        return model.step(x, y, fastelbo.SquaredError(), 2.0, 0.7, 11, 0.0, 1)[0]

    objective(start)
    gradient, at = model.adam.grads.copy(), range(0, start.size, 7)
    np.testing.assert_allclose(gradient[at], slopes_of(objective, start, at), rtol=2e-5, atol=1e-8)


# The optimizer ----------------------------------------------------------------------------------


def test_a_gradient_longer_than_max_grad_norm_is_cut(dtype):
    adam = [Adam(*np.ones((2, 50), dtype)) for _ in range(2)]
    for each in adam:
        each.grads[...] = np.random.default_rng(0).standard_normal(50) * 1e20
    whole = adam[0].grads.astype(np.float64)
    adam[0].ascend(1e-3, 1, max_grad_norm=2.5)
    np.testing.assert_allclose(adam[0].grads, 2.5 * whole / np.linalg.norm(whole), rtol=1e-6)
    adam[1].ascend(1e-3, 1, max_grad_norm=1e30)
    np.testing.assert_array_equal(adam[1].grads, whole.astype(dtype))


@pytest.mark.parametrize("options", [{"weight_decay": 0.5}, {"max_grad_norm": 0.1}])
def test_settings_of_the_optimizer_act(bars, options):
    plain, changed = (VAE(**QUICK, **more).fit(bars) for more in ({}, options))
    assert changed.history_ != plain.history_
    rng = np.random.default_rng(0)
    y = np.where(np.arange(300) < 30, rng.integers(0, 2, 300), -1)
    plain, changed = (SemiSupervisedVAE(**QUICK, **more).fit(bars, y) for more in ({}, options))
    assert changed.history_ != plain.history_


def test_weight_decay_shrinks_what_no_gradient_holds(bars):
    """Of a step with a learning rate of 0.1, the decay takes 0.1 x 5 of each weight."""
    options = {**QUICK, "epochs": 1, "batch_size": 300, "learning_rate": 0.1}
    start = VAE(**{**options, "learning_rate": lambda step: 0.0}).fit(bars)
    plain, decayed = (VAE(**options, weight_decay=w).fit(bars) for w in (0.0, 5.0))
    lost = plain._model.adam.parameters - decayed._model.adam.parameters
    np.testing.assert_allclose(lost, 0.5 * start._model.adam.parameters, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be finite and not negative"),
        ({"weight_decay": "much"}, TypeError, "weight_decay must be a number"),
        ({"max_grad_norm": 0.0}, ValueError, "max_grad_norm must be positive"),
        ({"max_grad_norm": [1]}, TypeError, "max_grad_norm must be a number"),
        ({"activation": "rleu"}, ValueError, "did you mean 'relu'"),
        ({"activation": np.tanh}, TypeError, "activation must be"),
        ({"warm_start": 1}, TypeError, "warm_start must be True or False"),
        ({"beta": fastelbo.BetaSchedule}, TypeError, "beta must be .* got the class BetaSchedule"),
        ({"callbacks": 3}, TypeError, "callbacks must be a function"),
        ({"callbacks": [print, dict]}, TypeError, r"callbacks must be .* got <class 'dict'>"),
    ],
)
def test_settings_that_do_not_fit(bars, options, error, message):
    for model in (VAE(**QUICK, **options), SemiSupervisedVAE(**QUICK, **options)):
        with pytest.raises(error, match=message):
            model.fit(bars, np.arange(300) % 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation_fraction": 0.0}, ValueError, r"validation_fraction must be in \(0, 1\)"),
        ({"validation_fraction": 1}, ValueError, r"validation_fraction must be in \(0, 1\)"),
        ({"validation_fraction": 0.999}, ValueError, "of 300 rows leaves none to train on"),
        ({"early_stopping": "yes"}, TypeError, "early_stopping must be True or False"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
        ({"tol": -1.0}, ValueError, "tol must be finite and not negative"),
    ],
)
def test_settings_of_validation_that_do_not_fit(bars, options, error, message):
    with pytest.raises(error, match=message):
        VAE(**QUICK, **options).fit(bars)


# Validation -------------------------------------------------------------------------------------


def test_rows_held_out(bars):
    """They are no part of the training, and their figures are those of a plain ELBO."""
    model = VAE(**QUICK, validation_fraction=0.25, beta=0.5).fit(bars)
    order = np.random.default_rng(0).permutation(300)
    alone = VAE(**QUICK, beta=0.5).fit(bars[order[75:]])
    np.testing.assert_array_equal(model.transform(bars), alone.transform(bars))
    assert list(alone.history_) == list(model.history_)[:5]
    assert {name: model.history_[name] for name in alone.history_} == alone.history_
    for elbo, reconstruction, kl in zip(*list(model.history_.values())[5:], strict=True):
        assert elbo == reconstruction - 0.5 * kl
    by_scores = [part.mean() for part in model.score_parts(bars[order[:75]])]
    assert model.history_["val_kl"][-1] == pytest.approx(by_scores[1], rel=1e-5)
    assert model.history_["val_reconstruction"][-1] == pytest.approx(by_scores[0], abs=0.3)


@pytest.mark.parametrize(
    "options",
    [{"likelihood": "gaussian"}, {"prior": "vamp"}, {"free_bits": 0.2}, {"refine_steps": 1}],
    ids=str,
)
def test_other_models_are_validated(bars, options):
    model = VAE(**QUICK, validation_fraction=0.3, prior_components=5, **options).fit(bars)
    for name in ("elbo", "kl"):
        difference = model.history_[f"val_{name}"][-1] - model.history_[name][-1]
        assert abs(difference) < 2
    if "free_bits" in options:
        assert min(model.history_["val_kl"]) >= 0.6


def noisy(rows=60, seed=0):
    """Rows from which networks soon learn what others have not."""
    return np.random.default_rng(seed).integers(0, 2, (rows, 12)).astype(float)


EAGER = {"hidden": (64,), "latent_dim": 6, "batch_size": 20, "learning_rate": 0.02}


def test_early_stopping_gives_the_best_epoch():
    states = []
    model = VAE(
        **EAGER, epochs=200, random_state=0, validation_fraction=0.3, early_stopping=True,
        n_iter_no_change=4, callbacks=lambda model, _: states.append(model.transform(noisy())),
    ).fit(noisy())  # fmt: skip
    found = np.array(model.history_["val_elbo"])
    best = int(found.argmax())
    assert model.n_iter_ == len(found) == best + 5 < 200
    np.testing.assert_array_equal(model.transform(noisy()), states[best])
    assert (states[-1] != states[best]).any()


def test_early_stopping_compares_at_one_beta():
    """A beta that rises makes the objective fall, but is no reason to stop."""
    options = {**EAGER, "learning_rate": 3e-4, "epochs": 30, "random_state": 0}
    schedule = fastelbo.BetaSchedule(stop=10.0, steps=60)
    model = VAE(**options, beta=schedule, early_stopping=True, n_iter_no_change=2)
    found = model.fit(np.tile(noisy(20), (3, 1))).history_["val_elbo"]
    assert (np.diff(found[:15]) < 0).all()
    assert len(found) == 30


def test_tol_is_what_counts_as_better(bars):
    model = VAE(**{**QUICK, "epochs": 9}, early_stopping=True, n_iter_no_change=2, tol=1e3)
    assert model.fit(bars).n_iter_ == 3


def test_without_rows_held_out_in_some_epochs(bars, tmp_path):
    model = VAE(**QUICK).fit(bars)
    model.set_params(validation_fraction=0.5, warm_start=True, epochs=1).fit(bars).partial_fit(bars)
    found = model.history_["val_elbo"]
    assert np.isnan(found).tolist() == [True] * 3 + [False, True]
    model.save(tmp_path / "model.npz")
    np.testing.assert_equal(VAE.load(tmp_path / "model.npz").history_, model.history_)


def test_active_units_are_those_of_the_means(bars):
    options = {**QUICK, "epochs": 20, "latent_dim": 8, "learning_rate": 5e-3, "beta": 4.0}
    model = VAE(**options).fit(bars)
    by_transform = fastelbo.active_units(model.transform(bars)).sum()
    assert model.history_["active_units"][-1] == by_transform
    assert 1 <= by_transform < 8


# Going on ---------------------------------------------------------------------------------------


def test_warm_start_goes_on(bars):
    whole = VAE(**{**QUICK, "epochs": 5}).fit(bars)
    model = VAE(**QUICK, warm_start=True).fit(bars).set_params(epochs=2).fit(bars)
    assert model.history_ == whole.history_
    np.testing.assert_array_equal(model.transform(bars), whole.transform(bars))
    assert VAE(**QUICK).fit(bars).fit(bars).n_iter_ == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 4}, "whose latent_dim is 3, not 4: set warm_start=False"),
        ({"hidden": (8, 8)}, r"whose hidden is \(16,\), not \(8, 8\)"),
        ({"activation": "tanh"}, "whose activation is 'relu', not 'tanh'"),
        ({"dtype": "float64"}, "whose dtype is 'float32', not 'float64'"),
        ({"prior": "mixture"}, "whose prior is 'standard', not 'mixture'"),
        ({"likelihood": fastelbo.Gaussian("learned")}, "takes another network"),
    ],
)
def test_warm_start_of_another_network(bars, changes, message):
    model = VAE(**QUICK, warm_start=True).fit(bars)
    before = model.transform(bars)
    with pytest.raises(ValueError, match=message):
        model.set_params(**changes).fit(bars)
    np.testing.assert_array_equal(model.transform(bars), before)


def test_warm_start_of_another_prior(bars):
    mu, logvar = np.eye(3), np.zeros((3, 3))
    model = VAE(**QUICK, warm_start=True, prior=fastelbo.MixtureOfGaussians(mu, logvar)).fit(bars)
    model.set_params(prior=fastelbo.MixtureOfGaussians(mu.copy(), logvar)).fit(bars)
    with pytest.raises(ValueError, match="whose prior is 'given', not 'another'"):
        model.set_params(prior=fastelbo.MixtureOfGaussians(-mu, logvar)).fit(bars)
    model = VAE(**QUICK, warm_start=True, prior_components=5).fit(bars)
    model.set_params(prior_components=6).fit(bars)  # of none that is there
    for prior in ("mixture", "vamp"):
        model = VAE(**QUICK, warm_start=True, prior=prior, prior_components=5).fit(bars)
        with pytest.raises(ValueError, match="whose prior_components is 5, not 6"):
            model.set_params(prior_components=6).fit(bars)


def test_warm_start_of_a_classifier(bars):
    y = np.where(np.arange(300) < 60, bars[:, 0].astype(int), -1)
    whole = SemiSupervisedVAE(**{**QUICK, "epochs": 5}).fit(bars, y)
    model = SemiSupervisedVAE(**QUICK, warm_start=True).fit(bars, y)
    assert model.set_params(epochs=2).fit(bars, y).history_ == whole.history_
    np.testing.assert_array_equal(model.predict_proba(bars), whole.predict_proba(bars))
    with pytest.raises(ValueError, match=r"whose classes is \[0, 1\], not \[1, 2\]"):
        model.fit(bars, np.where(y < 0, y, y + 1))


# Callbacks --------------------------------------------------------------------------------------


def test_callbacks_see_the_model_and_its_figures(bars):
    seen = []

    def watch(model, figures):
        seen.append(figures)
        assert figures["elbo"] == model.history_["elbo"][-1]
        assert model.transform(bars).shape == (300, 3)

    model = VAE(**QUICK, callbacks=[watch, lambda *_: None], validation_fraction=0.1).fit(bars)
    assert [figures.pop("epoch") for figures in seen] == [1, 2, 3]
    assert seen == [
        dict(zip(model.history_, of, strict=True))
        for of in zip(*model.history_.values(), strict=True)
    ]
    plain = VAE(**QUICK, validation_fraction=0.1).fit(bars)
    np.testing.assert_array_equal(model.transform(bars), plain.transform(bars))


def test_a_copy_made_in_a_callback_has_no_data(bars):
    kept = []
    options = {**QUICK, "validation_fraction": 0.2}
    VAE(**options, callbacks=lambda model, _: kept.append(copy.deepcopy(model))).fit(bars)
    assert vars(kept[0]).keys() == vars(VAE(**QUICK).fit(bars)).keys()
    model = kept[0].set_params(callbacks=None).partial_fit(bars)
    assert np.isnan(model.history_["val_elbo"]).tolist() == [False, True]


@pytest.mark.parametrize("kind", [VAE, SemiSupervisedVAE])
def test_a_callback_ends_training(bars, kind):
    model = kind(**QUICK, callbacks=lambda model, figures: figures["epoch"] == 2)
    assert model.fit(bars, np.arange(300) % 2).n_iter_ == 2


def test_a_callback_that_raises(bars):
    def stop(model, figures):
        if figures["epoch"] == 2:
            raise KeyError("callback")

    model = VAE(**QUICK, callbacks=stop)
    with pytest.raises(KeyError, match="callback"):
        model.fit(bars)
    two = VAE(**{**QUICK, "epochs": 2}).fit(bars)
    assert model.history_ == two.history_
    np.testing.assert_array_equal(model.transform(bars), two.transform(bars))


def test_callbacks_are_not_saved(bars, tmp_path):
    VAE(**QUICK, callbacks=print).fit(bars).save(tmp_path / "model.npz")
    assert VAE.load(tmp_path / "model.npz").callbacks is None


# What ends an epoch halfway ---------------------------------------------------------------------


def same(model, other, X):
    """Whether they are the same now, and will be after another epoch."""
    assert model.history_ == other.history_
    for each in (model, other):
        each.set_params(beta=1.0, callbacks=None)
    for _ in range(2):
        np.testing.assert_array_equal(model.transform(X), other.transform(X))
        assert model.likelihood_.__getstate__() == other.likelihood_.__getstate__()
        assert model.partial_fit(X).history_ == other.partial_fit(X).history_


def raising(error, at):
    """A beta of 1 that raises at a step."""

    def beta(step):
        if step == at:
            raise error
        return 1.0

    return beta


@pytest.mark.parametrize("step", [0, 4, 8])
@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian"}], ids=str)
def test_an_interruption_leaves_whole_epochs(bars, step, options):
    """Steps 3 e to 3 e + 2 are those of epoch e: what they had changed is undone."""
    model = VAE(**QUICK, **options, beta=raising(KeyboardInterrupt(), step))
    epoch = step // 3
    message = rf"fit was interrupted in epoch {epoch + 1} of 3: .* after {epoch} epochs"
    with pytest.warns(fastelbo.TrainingWarning, match=message) as caught:
        assert model.fit(bars) is model
    assert caught[0].filename == __file__
    other = VAE(**{**QUICK, "epochs": max(epoch, 1)}, **options)
    if epoch:
        same(model, other.fit(bars), bars)
    else:
        assert model.n_iter_ == 0
        assert np.isfinite(model.score(bars))
        assert model.set_params(beta=1.0).partial_fit(bars).history_ == other.fit(bars).history_


def test_an_error_leaves_whole_epochs(bars):
    model = VAE(**QUICK, beta=raising(KeyError("beta"), 7))
    with pytest.raises(KeyError, match="beta"):
        model.fit(bars)
    same(model, VAE(**{**QUICK, "epochs": 2}).fit(bars), bars)


@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError])
def test_partial_fit_raises(bars, error):
    model = VAE(**QUICK).fit(bars).set_params(beta=raising(error(), 10))
    with pytest.raises(error):
        model.partial_fit(bars)
    same(model, VAE(**QUICK).fit(bars), bars)


def test_an_interruption_of_a_classifier(bars):
    y = np.where(np.arange(300) < 60, bars[:, 0].astype(int), -1)
    model = SemiSupervisedVAE(**QUICK, beta=raising(KeyboardInterrupt(), 7))
    with pytest.warns(fastelbo.TrainingWarning, match="interrupted in epoch 3 of 3"):
        model.fit(bars, y)
    two = SemiSupervisedVAE(**{**QUICK, "epochs": 2}).fit(bars, y)
    assert model.history_ == two.history_
    np.testing.assert_array_equal(model.predict_proba(bars), two.predict_proba(bars))


def test_early_stopping_keeps_the_best_when_interrupted(bars):
    """With a learning rate of 1 in the second, the first is the best."""
    options = {**QUICK, "epochs": 9, "early_stopping": True, "n_iter_no_change": 9}
    beta = raising(KeyboardInterrupt(), 7)
    model = VAE(**options, beta=beta, learning_rate=lambda step: 1e-3 if step < 3 else 1.0)
    with pytest.warns(fastelbo.TrainingWarning, match="interrupted in epoch 3 of 9"):
        model.fit(bars)
    assert model.history_["val_elbo"][0] > model.history_["val_elbo"][1]
    other = VAE(**{**options, "epochs": 1}).fit(bars)
    np.testing.assert_array_equal(model.transform(bars), other.transform(bars))


def test_a_signal_ends_fit(bars, timer):
    """Wherever it comes, the epochs that are told of are whole."""

    def interrupt(*_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    started = []

    def start(model, figures):
        if not started:
            started.append(figures)
            timer(interrupt)

    model = VAE(**{**QUICK, "epochs": 5_000}, callbacks=start)
    with pytest.warns(fastelbo.TrainingWarning, match="fit was interrupted in epoch"):
        model.fit(bars)
    assert model.n_iter_ >= 1
    same(model, VAE(**{**QUICK, "epochs": model.n_iter_}).fit(bars), bars)


# Warnings ---------------------------------------------------------------------------------------


def test_a_collapsed_posterior_is_told(bars):
    options = {**QUICK, "epochs": 30, "learning_rate": 1e-2}
    message = "none of the 3 latent dimensions .*smaller beta than 60 may help.*free_bits=0.1"
    with pytest.warns(fastelbo.TrainingWarning, match=message) as caught:
        model = VAE(**options, beta=60.0).fit(bars)
    assert caught[0].filename == __file__
    assert model.history_["active_units"][-1] == 0
    assert not fastelbo.active_units(model.transform(bars)).any()
    VAE(**options, beta=60.0, free_bits=0.1).fit(bars)  # what it names as the way out is one


@pytest.mark.parametrize("kind", [VAE, SemiSupervisedVAE])
def test_unscaled_data_are_told(kind):
    X, y = np.random.default_rng(0).normal(size=(200, 3)), np.arange(200) % 2
    X[:, 1] += 200
    model = kind(**{**QUICK, "latent_dim": 1, "epochs": 1}, likelihood=fastelbo.Gaussian(1.0))
    message = "values of feature 1 are about 200 in size, .* Standardise X"
    with pytest.warns(fastelbo.TrainingWarning, match=message) as caught:
        model.fit(X, y)
    assert caught[0].filename == __file__
    model.fit(X - X.mean(axis=0), y)  # no warning, which would be an error
    warn_of_scale(Rows(np.full((9, 2), 900.0), np.float64), fastelbo.Poisson())
    warn_of_scale(Rows(np.zeros((9, 2)), np.float64), fastelbo.Gaussian())
    small = Rows([[0.01, 0.0], [-0.01, 0.002]], np.float64)
    with pytest.warns(fastelbo.TrainingWarning, match="values of every feature are about 0.01 or"):
        warn_of_scale(small, fastelbo.Gaussian())


# Progress ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VAE, SemiSupervisedVAE])
def test_a_line_an_epoch_without_tqdm(bars, capsys, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    model = kind(**QUICK, verbose=True).fit(bars, np.arange(300) % 2)
    lines = capsys.readouterr().out.splitlines()
    name, values = next(iter(model.history_.items()))
    for i, line in enumerate(lines):
        assert line.startswith(f"epoch {i + 1}/3: {name}={values[i]:.2f}, ")
    assert len(lines) == 3
    assert ("active_units=" in lines[0]) == (kind is VAE)
    kind(**QUICK).fit(bars, np.arange(300) % 2)
    assert capsys.readouterr().out == ""
