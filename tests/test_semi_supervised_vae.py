"""SemiSupervisedVAE: M2 as a classifier."""

import copy
import json
import pickle

import numpy as np
import pytest

from fastelbo import (
    VAE,
    BetaSchedule,
    Categorical,
    ColumnLikelihood,
    Gaussian,
    LearningRateSchedule,
    Poisson,
    SemiSupervisedVAE,
    SquaredError,
    amortization_gap,
    refine_posterior,
)
from fastelbo._class_network import ClassAutoencoder
from fastelbo._sklearn import NotFittedError
from fastelbo._visible import Visible
from tests.test_vae_files import changed, write

SMALL = {
    "hidden": (16,),
    "latent_dim": 2,
    "epochs": 20,
    "batch_size": 50,
    "learning_rate": 0.01,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def data():
    """(X, y, true labels): three patterns with noise, 5 labels a class."""
    rng = np.random.default_rng(0)
    true = np.arange(200) % 3
    probs = np.array(
        [[0.9] * 4 + [0.1] * 8, [0.1] * 4 + [0.9] * 4 + [0.1] * 4, [0.1] * 8 + [0.9] * 4]
    )
    X = (rng.random((200, 12)) < probs[true]).astype(float)
    return X, np.where(np.arange(200) < 15, true, -1), true


@pytest.fixture(scope="module")
def model(data):
    return SemiSupervisedVAE(**SMALL).fit(*data[:2])


def test_learns_patterns(model, data):
    X, _, true = data
    assert model.score(X, true) > 0.95
    assert model.history_["objective"][-1] > model.history_["objective"][0] + 5
    assert model.history_["accuracy"][-1] == 1.0
    assert model.n_iter_ == len(model.history_["beta"]) == 20


def test_shares_and_what_is_predicted(model, data):
    X = data[0]
    shares = model.predict_proba(X)
    assert shares.shape == (200, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(X), shares.argmax(axis=1))


def test_samples_are_of_their_class(model):
    y = np.array([2, 0, 1, 0])
    samples = model.sample(y, rng=1)
    np.testing.assert_array_equal(model.predict(samples.round()), y)
    np.testing.assert_array_equal(samples, model.sample(y, rng=1))


def test_a_round_trip(model, data):
    X = data[0][:20]
    Z = model.transform(X)
    assert Z.shape == (20, 2)
    back = model.inverse_transform(Z, model.predict(X))
    assert np.mean((back - X) ** 2) < np.var(X) * 0.6
    of_each = [model.inverse_transform(Z, np.full(20, label)) for label in range(3)]
    np.testing.assert_allclose(model.inverse_transform(Z), sum(of_each) / 3, rtol=1e-5)


def test_labels_of_any_kind(model, data):
    X, y, true = data
    names = np.array(["ant", "bee", "cow"])
    mixed = np.where(y < 0, -1, names[y].astype(object))
    words = mixed.astype(str)
    for given in (mixed, words, words.astype(object), mixed.tolist()):
        of_names = SemiSupervisedVAE(**SMALL).fit(X, given)
        np.testing.assert_array_equal(of_names.predict(X), names[model.predict(X)])
        assert of_names.classes_.tolist() == names.tolist()
    assert of_names.score(X, names[true]) == model.score(X, true)
    np.testing.assert_array_equal(of_names.sample(["cow"], rng=0), model.sample([2], rng=0))
    kind = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else str
    assert SemiSupervisedVAE(**SMALL).fit(X, words.astype(kind)).classes_.dtype == "U3"
    assert SemiSupervisedVAE(**SMALL).fit(X, words.astype("S")).classes_.tolist() == [
        name.encode() for name in names.tolist()
    ]


@pytest.mark.parametrize("dtype", ["category", "string", object])
def test_labels_of_pandas(data, dtype):
    pandas = pytest.importorskip("pandas")
    X, y, _ = data
    words = pandas.Series(y).map({-1: "-1", 0: "ant", 1: "bee", 2: "cow"})
    model = SemiSupervisedVAE(**SMALL).fit(X, words.astype(dtype))
    assert model.classes_.tolist() == ["ant", "bee", "cow"]
    without = words.astype(dtype).where(words != "-1")
    with pytest.raises(ValueError, match=r"y\[\d+\] = (None|nan|<NA>) is no label.*-1 stands for"):
        model.fit(X, without)


def test_reproducible_and_copies(model, data):
    X, y, _ = data
    again = SemiSupervisedVAE(**SMALL).fit(X, y)
    shares = model.predict_proba(X)
    for other in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(X), shares)
    assert again.history_ == model.history_


def test_rows_without_labels_help():
    """One label a class says little of 40 noisy features; how the others cluster says the rest."""
    rng = np.random.default_rng(3)
    true = np.arange(400) % 2
    X = (rng.random((400, 40)) < np.where(true, 0.65, 0.35)[:, None]).astype(float)
    y = np.where(np.arange(400) < 2, true, -1)
    options = {**SMALL, "alpha": 5.0, "epochs": 40}
    steps = {**options, "epochs": 8 * 40}  # as many of the optimizer's
    alone = SemiSupervisedVAE(**steps).fit(X[:2], y[:2]).score(X, true)
    both = SemiSupervisedVAE(**options).fit(X, y).score(X, true)
    assert both > alone + 0.05


def test_other_likelihoods(data):
    X, y, true = data
    options = {**SMALL, "labelled_repeats": 3, "beta": BetaSchedule("linear", steps=20)}
    for likelihood, scaled in ((Gaussian(0.3), X), (Poisson(), 3 * X), ("squared_error", X)):
        fitted = SemiSupervisedVAE(likelihood=likelihood, **options).fit(scaled, y)
        assert fitted.score(scaled, true) > 0.9
        assert fitted.history_["beta"][-1] == 1.0


@pytest.mark.parametrize("likelihood", [SquaredError(), Gaussian()])
def test_the_gradient_of_a_step_is_that_of_differences(likelihood):
    """Of an objective of the same noise, at some of the parameters of each network."""
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 5)), np.array([0, -1, 2, -1, 1, -1])
    model = ClassAutoencoder(Visible(likelihood, 5), 3, (7,), 2, "float64")
    model.initialise(rng)
    start = model.adam.parameters
    start += 0.1 * rng.standard_normal(start.size)
    start = start.copy()

    def objective(parameters):
        model.adam.parameters[...] = parameters
        return model.step(x, y, likelihood, 2.0, 0.7, 11, 0.0, 1)[0]

    objective(start)
    gradient = model.adam.grads.copy()
    for i in range(0, start.size, 7):
        h = np.zeros_like(start)
        h[i] = 1e-6
        slope = (objective(start + h) - objective(start - h)) / 2e-6
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([-1, -1, -1], "y has no labels at all"),
        ([0, 0, -1], "y has labels of one class only, 0"),
        ([0, 1], r"y has shape \(2,\), expected \(3,\)"),
        ([[0, 1, -1]], "y should be a 1d array, got an array of shape"),
        ([0, 1, np.nan], r"y\[2\] = nan is no label"),
        ([0, 1, 0.5], r"y\[2\] = 0.5 is no label, but of a continuous target"),
        (["a", "b", None], r"y\[2\] = None is no label, .* -1 stands for a row without one"),
    ],
)
def test_labels_that_do_not_fit(y, message):
    with pytest.raises(ValueError, match=message):
        SemiSupervisedVAE().fit(np.zeros((3, 2)), y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha must be finite and not negative"),
        ({"labelled_repeats": 0}, "labelled_repeats must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"beta": -1}, "beta must be finite and not negative"),
        ({"likelihood": "gaussian"}, 'likelihood has the scale "optimal"'),
    ],
)
def test_settings_that_do_not_fit(options, message):
    fitted = SemiSupervisedVAE(**options)
    with pytest.raises(ValueError, match=message):
        fitted.fit(np.zeros((3, 2)), [0, 1, -1])
    assert not hasattr(fitted, "classes_")


def test_use_that_does_not_fit(model):
    with pytest.raises(NotFittedError, match="SemiSupervisedVAE instance is not fitted"):
        SemiSupervisedVAE().predict([[0.0]])
    with pytest.raises(ValueError, match="X has 2 features, but SemiSupervisedVAE is expecting 12"):
        model.predict(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"y\[1\] = 7 is none of the classes, \[0, 1, 2\]"):
        model.sample([0, 7])
    with pytest.raises(ValueError, match="Z has 3 columns, expected 2"):
        model.inverse_transform(np.zeros((1, 3)), [0])
    with pytest.raises(ValueError, match=r"y has shape \(2,\), expected \(1,\)"):
        model.inverse_transform(np.zeros((1, 2)), [0, 1])


def test_diverging_is_told_and_nothing_is_left(data):
    X, y, _ = data
    fitted = SemiSupervisedVAE(likelihood="squared_error", learning_rate=1e30, epochs=3)
    with (
        pytest.raises(FloatingPointError, match="training diverged in epoch"),
        np.errstate(all="ignore"),
    ):
        fitted.fit(X, y)
    assert not hasattr(fitted, "classes_")


# One epoch more, files and refined posteriors ---------------------------------------------------


def test_partial_fit_is_an_epoch(model, data):
    X, y, _ = data
    one = SemiSupervisedVAE(**{**SMALL, "epochs": 5})
    for _ in range(20):
        assert one.partial_fit(X, y, classes=[2, 0, 1]) is one
    np.testing.assert_array_equal(one.predict_proba(X), model.predict_proba(X))
    assert one.history_ == model.history_
    few = SemiSupervisedVAE(**SMALL).partial_fit(X[:2], y[:2], classes=[0, 1, 2])
    assert few.classes_.tolist() == [0, 1, 2]
    assert few.partial_fit(X[2:], y[2:]).n_iter_ == 2


def test_partial_fit_that_fails_changes_nothing(model, data):
    X, y, _ = data
    fitted = copy.deepcopy(model)
    before = fitted.predict_proba(X), copy.deepcopy(fitted.history_)
    for given, message in (
        ((X, np.full(200, 7)), r"y\[0\] = 7 is none of the classes, \[0, 1, 2\]"),
        ((X, np.full(200, -1)), "y has no labels at all"),
        ((X, y, [0, 1, 2, 3]), r"classes is \[0, 1, 2, 3\], but training began with .*\[0, 1, 2\]"),
        ((X[:, :2], y), "X has 2 features"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.partial_fit(*given)
    with pytest.raises(ValueError, match="takes another network than"):
        fitted.set_params(likelihood=Gaussian()).partial_fit(X, y)
    fitted.set_params(likelihood="bernoulli", learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="diverged"), np.errstate(all="ignore"):
        fitted.partial_fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), before[0])
    assert fitted.history_ == before[1]
    new = SemiSupervisedVAE(**{**SMALL, "learning_rate": 1e30})
    with pytest.raises(FloatingPointError, match="diverged"), np.errstate(all="ignore"):
        new.partial_fit(X, y)
    assert vars(new) == new.get_params(deep=False)
    other = copy.deepcopy(model).partial_fit(X, y)
    fitted.set_params(learning_rate=0.01).partial_fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0], "classes has labels of one class only, 0"),
        ([[0, 1]], r"classes has shape \(1, 2\)"),
        ([0, 1, -1], "classes has -1, which stands for a row without a label"),
        (["a", "b"], r"y\[0\] = 0 is none of the classes, \['a', 'b'\]"),
        ([0, np.inf], r"classes\[1\] = inf is no label"),
    ],
)
def test_classes_that_do_not_fit(classes, message, data):
    fitted = SemiSupervisedVAE(**SMALL)
    with pytest.raises(ValueError, match=message):
        fitted.partial_fit(data[0], data[1], classes=classes)
    with pytest.raises(TypeError, match="classes must have labels of one kind"):
        fitted.partial_fit(data[0], data[1], classes=np.array([0, "a"], object))
    assert not hasattr(fitted, "classes_")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"likelihood": Gaussian(0.3), "dtype": "float64", "hidden": (9, 7), "epochs": 3},
        {"likelihood": Poisson(), "beta": BetaSchedule(steps=20), "random_state": None},
        {
            "likelihood": ColumnLikelihood(
                (("bernoulli", slice(9)), (Categorical(2), slice(9, 12)))
            ),
            "activation": "tanh",
            "learning_rate": LearningRateSchedule(0.01, steps=50, warmup=5),
            "weight_decay": 0.1,
            "callbacks": lambda *_: None,
        },
    ],
    ids=["usual", "Gaussian", "Poisson", "columns"],
)
@pytest.mark.parametrize("names", [None, ["ant", "bee", "cow"], [10.0, 20.0, 30.0]])
def test_save_and_load(options, names, data, tmp_path):
    """And training goes on where it stood."""
    X, y, _ = data
    if names is not None:
        y = np.where(y < 0, -1, np.array(names, object)[y]).tolist()
    fitted = SemiSupervisedVAE(**{**SMALL, "epochs": 3, **options}).fit(X, y)
    path = tmp_path / "model.npz"
    fitted.save(path)
    again = SemiSupervisedVAE.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    assert again.classes_.dtype == fitted.classes_.dtype
    np.testing.assert_array_equal(again.classes_, fitted.classes_)
    for _ in range(2):
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
        assert again.history_ == fitted.history_
        expected = {**fitted.get_params(deep=False), "callbacks": None}
        assert repr(again.get_params(deep=False)) == repr(expected)
        for each in (again, fitted):
            each.partial_fit(X, y)
    pickled = pickle.loads(pickle.dumps(again)).partial_fit(X, y)
    np.testing.assert_array_equal(pickled.transform(X), fitted.partial_fit(X, y).transform(X))


def test_names_of_features_are_kept(data, tmp_path):
    frame = pytest.importorskip("pandas").DataFrame(data[0]).add_prefix("pixel ")
    pytest.importorskip("sklearn")
    likelihood = ColumnLikelihood([("bernoulli", list(frame.columns))])
    fitted = SemiSupervisedVAE(**{**SMALL, "likelihood": likelihood}).fit(frame, data[1])
    fitted.save(tmp_path / "model.npz")
    again = SemiSupervisedVAE.load(tmp_path / "model.npz")
    assert again.feature_names_in_.tolist() == list(frame.columns)
    for each in (fitted, again):
        each.partial_fit(frame, data[1])
    np.testing.assert_array_equal(again.transform(frame), fitted.transform(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        again.partial_fit(frame.add_prefix("odd "), data[1])
    found = refine_posterior(again, frame, steps=0)
    np.testing.assert_array_equal(found.mu, again.transform(frame))


def test_saves_whole_or_not_at_all(model, tmp_path):
    path = tmp_path / "model.npz"
    path.write_text("old")
    for changes, message in (
        ({"beta": lambda step: 1.0}, "save knows no function"),
        ({"latent_dim": 0}, "latent_dim"),
    ):
        odd = copy.deepcopy(model).set_params(**changes)
        with pytest.raises((TypeError, ValueError), match=message):
            odd.save(path)
    odd = copy.deepcopy(model)
    odd.classes_ = np.array([(1,), (2,), 3], dtype=object)
    with pytest.raises(TypeError, match="save knows no labels of dtype object"):
        odd.save(path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(NotFittedError):
        SemiSupervisedVAE().save(path)


@pytest.mark.parametrize(
    ("at", "values"),
    [
        (("odd",), [1]),
        (("classes",), [..., [0, 1], [0, 1, 1], [0, 1, 2, 3], "abc", {}, [[0], [1], [2]], 3]),
        (("labels",), [..., "<U1", "V3", "odd", None]),
        (("steps",), [..., -1]),
        (("generator",), [..., {}]),
        (("history", "accuracy"), [..., [], ["a"] * 20]),
        (("parameters", "alpha"), [..., -1]),
        (("network", "features"), [..., 11, 1 << 70]),
        (("network", "hidden"), [[15], [1 << 40, 1 << 40]]),
        (("network", "dtype"), ["float64", "object"]),
        (("scored_by", "likelihood"), ["gaussian", 3]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_every_field_of_a_file_is_checked(model, tmp_path, at, values):
    path = tmp_path / "model.npz"
    model.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes())
    for value in values:
        write(path, changed(header, at, value), arrays)
        with pytest.raises(ValueError, match="its parts do not fit"):
            SemiSupervisedVAE.load(path)
    write(path, header, arrays)
    assert SemiSupervisedVAE.load(path).n_iter_ == 20
    with pytest.raises(ValueError, match=r"it is no fastelbo\.VAE file"):
        VAE.load(path)


def test_refined_posteriors_are_of_the_label_predicted(model, data):
    X = data[0][:30]
    found = refine_posterior(model, X, rng=0)
    start = refine_posterior(model, X, steps=0, rng=0)
    np.testing.assert_array_equal(start.mu, model.transform(X))
    assert (found.elbo >= start.elbo).all()
    assert (found.elbo - start.elbo).mean() > 0.05
    labels = model.predict(X)
    for label in np.unique(labels):
        rows = labels == label

        def decode(z, label=label):
            return model._model.decode_and_pull(z, np.full(len(z), label), 1)

        alone = refine_posterior(
            decode, X[rows], start.mu[rows], start.logvar[rows], likelihood="bernoulli", rng=0
        )
        np.testing.assert_allclose(alone.mu, found.mu[rows], atol=1e-2)
        np.testing.assert_allclose(alone.elbo, found.elbo[rows], atol=1e-3)
    assert amortization_gap(model, X, rng=0) > 0.05
    with pytest.raises(NotFittedError):
        refine_posterior(SemiSupervisedVAE(), X)
