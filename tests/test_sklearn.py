"""scikit-learn takes the estimators: its own checks, frames, pipelines; and they do without it."""

import pickle
from contextlib import suppress

import numpy as np
import pytest

import fastelbo
from fastelbo import (
    VAE,
    BetaSchedule,
    CountVAE,
    FreeBits,
    Gaussian,
    SemiSupervisedVAE,
    VAEOutlierDetector,
)
from fastelbo._catalogue import VARIANTS
from tests.conftest import run_python

base = pytest.importorskip("sklearn.base")
pd = pytest.importorskip("pandas")

import joblib  # noqa: E402
import sklearn  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

SMALL = {"hidden": (8,), "latent_dim": 2, "epochs": 2, "random_state": 0}
LEARNING = {**SMALL, "hidden": (16,), "epochs": 10, "learning_rate": 0.01}
REAL = {**SMALL, "likelihood": "gaussian"}


class RoundedCountVAE(CountVAE):
    """Of counts that any numbers are rounded to: scikit-learn's are no counts."""

    def _cells(self, X, batch, new=False):
        if hasattr(X, "toarray"):
            X = abs(X).floor()
        elif not hasattr(X, "columns"):
            X = np.asarray(X)
            with suppress(TypeError, ValueError):  # of which the model complains in its own words
                X = X if X.dtype.kind == "c" else np.floor(np.abs(X.astype(float)))
        return super()._cells(X, batch, new)


class LabelSpreading(SemiSupervisedVAE):
    """Under a name by which scikit-learn knows that -1 stands for no label."""


@pytest.mark.filterwarnings("ignore::fastelbo.TrainingWarning")  # the data are not scaled
@parametrize_with_checks(
    [
        VAE(**REAL),
        VAE(**REAL, dtype="float64"),
        LabelSpreading(**LEARNING, likelihood=Gaussian()),
        VAEOutlierDetector(VAE(**REAL)),
        RoundedCountVAE(**SMALL),
    ]
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def frame():
    X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    return pd.DataFrame(X, columns=["age", "height", "weight"], index=range(100, 160))


@pytest.fixture(scope="module")
def fitted(frame):
    return VAE(**REAL).fit(frame)


def test_tags():
    assert base.is_classifier(SemiSupervisedVAE())
    assert not base.is_classifier(VAE())
    assert sklearn.utils.get_tags(VAE()).estimator_type == "density_estimator"
    assert isinstance(VAE(), base.TransformerMixin)
    assert base.is_outlier_detector(VAEOutlierDetector())


def test_frames_come_out_as_they_went_in(frame, fitted):
    plain = fitted.transform(frame)
    assert isinstance(plain, np.ndarray)
    framed = base.clone(fitted).set_output(transform="pandas")
    for given in (framed.fit_transform(frame), framed.fit(frame).transform(frame)):
        assert given.columns.tolist() == ["vae0", "vae1"]
        assert given.index.equals(frame.index)
        np.testing.assert_array_equal(given, plain)


def test_names_of_features(frame, fitted, tmp_path):
    fitted.save(tmp_path / "vae.npz")
    for model in (fitted, VAE.load(tmp_path / "vae.npz"), pickle.loads(pickle.dumps(fitted))):
        assert model.feature_names_in_.tolist() == frame.columns.tolist()
        assert model.n_features_in_ == 3
        for method in (model.transform, model.score_samples, model.score, model.partial_fit):
            with pytest.raises(ValueError, match="must be in the same order"):
                method(frame[["height", "age", "weight"]])
            with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- height"):
                method(frame[["age", "weight"]])
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            model.transform(frame.to_numpy())
    of_array = VAE(**REAL).fit(frame.to_numpy())
    assert not hasattr(of_array, "feature_names_in_")
    of_array.save(tmp_path / "vae.npz")
    assert not hasattr(VAE.load(tmp_path / "vae.npz"), "feature_names_in_")
    assert not hasattr(base.clone(fitted).fit(frame).fit(frame.to_numpy()), "feature_names_in_")


def test_frames_are_drawn(frame, fitted):
    framed = base.clone(fitted).set_output(transform="pandas").fit(frame)
    ax = pytest.importorskip("matplotlib.figure").Figure().subplots()
    assert framed.plot_latent(frame, ax=ax) is ax
    assert framed.plot_reconstructions(frame, 3, ax) is ax


def test_training_goes_on_with_names(frame):
    labelled = SemiSupervisedVAE(**SMALL, likelihood=Gaussian(), warm_start=True)
    y = np.arange(len(frame)) % 2
    for model in (VAE(**REAL, warm_start=True), labelled):
        assert model.fit(frame, y).fit(frame, y).n_iter_ == 4
        with pytest.raises(ValueError, match="must be in the same order"):
            model.fit(frame[["height", "age", "weight"]], y)


def test_names_that_are_refused_change_nothing(frame):
    model = VAE(**REAL).fit(frame)
    score = model.score(frame)
    with pytest.raises(TypeError, match="all input features have string names"):
        model.fit(frame.set_axis(["age", "height", 3], axis=1))
    assert model.score(frame) == score


def test_counts_come_out_as_frames():
    X = np.random.default_rng(0).poisson(2.0, (30, 4))
    model = CountVAE(**SMALL, batch_size=5).set_output(transform="pandas")
    frame = pd.DataFrame(X, columns=[*"abcd"], index=range(100, 130))
    found = model.fit_transform(frame, batch=["x", "y"] * 15)
    assert found.columns.tolist() == ["countvae0", "countvae1"]
    assert found.index.equals(frame.index)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.transform(frame[["b", "a", "c", "d"]], batch=["x"] * 30)
    assert "hidden" in model._repr_html_()


def test_shown_in_a_notebook(fitted):
    assert "likelihood" in fitted._repr_html_()
    assert str(VAE(latent_dim=3)) == "VAE(latent_dim=3)"


def test_searched_in_parallel(frame):
    chain = make_pipeline(StandardScaler(), VAE(**REAL))
    chain = pickle.loads(pickle.dumps(chain))  # as by processes, which take long to start
    grid = {"vae__learning_rate": [1e-6, 3e-2]}
    with joblib.parallel_config("threading", n_jobs=2):
        search = GridSearchCV(chain, grid, cv=2).fit(frame)
    assert search.best_params_ == {"vae__learning_rate": 3e-2}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.get_feature_names_out().tolist() == ["vae0", "vae1"]


def test_data_held_out_may_lie_outside_of_the_domain():
    """A scaler knows the least and the largest of what it was fitted to."""
    y = np.arange(60) % 2
    X = 5 * y[:, None] + np.random.default_rng(0).standard_normal((60, 16))
    vae = VAE(**{**SMALL, "epochs": 40, "batch_size": 20, "learning_rate": 0.03})
    chain = make_pipeline(MinMaxScaler(), vae, LogisticRegression())
    assert cross_val_score(chain, X, y, cv=3, error_score="raise").mean() > 0.9
    half = make_pipeline(MinMaxScaler(), vae).fit(X[:30])
    with pytest.raises(ValueError, match="clip=True"):
        half.score(X[30:])
    assert np.isfinite(make_pipeline(MinMaxScaler(clip=True), vae).fit(X[:30]).score(X[30:]))


def test_metadata_is_routed(frame):
    weights = np.ones(len(frame))
    with sklearn.config_context(enable_metadata_routing=True):
        classifier = LogisticRegression().set_fit_request(sample_weight=True)
        chain = make_pipeline(VAE(**REAL), classifier.set_score_request(sample_weight=True))
        search = GridSearchCV(chain, {"vae__epochs": [1, 2]}, cv=2)
        search.fit(frame, frame["age"] > 0, sample_weight=weights)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        for model in (VAE(), SemiSupervisedVAE()):
            assert not hasattr(model, "set_inverse_transform_request")  # Z is its X
        assert hasattr(SemiSupervisedVAE(), "set_score_request")  # of sample_weight


def test_parameters_of_parameters(frame):
    likelihood = Gaussian(scale=1)
    model = VAE(**{**SMALL, "likelihood": likelihood, "beta": BetaSchedule(steps=9)}).fit(frame)
    names = ("likelihood__scale", "likelihood__missing", "beta__steps")
    assert [model.get_params()[name] for name in names] == [1, None, 9]
    before, score = model.likelihood_, model.score(frame)
    twin = base.clone(model).set_params(likelihood__scale=2, beta__start=0.5, beta__steps=3)
    assert (likelihood.scale, twin.likelihood.scale, twin.beta(0), twin.beta(3)) == (1, 2, 0.5, 1)
    assert twin.likelihood.log_prob([[2.0]], [[0.0]]) == Gaussian(2).log_prob([[2.0]], [[0.0]])
    assert model.set_params(likelihood__scale=3, beta__steps=1).likelihood is likelihood
    assert likelihood.scale == 3
    assert model.likelihood_ is before
    assert model.score(frame) == score
    search = GridSearchCV(model, {"likelihood__scale": [1e-3, 1.0]}, cv=2).fit(frame)
    assert search.best_params_ == {"likelihood__scale": 1.0}


@pytest.mark.parametrize("name", VARIANTS)
def test_likelihoods_are_cloned(name):
    likelihood = VARIANTS[name].make(fastelbo)
    twin = base.clone(likelihood)
    assert type(twin) is type(likelihood)
    assert twin is not likelihood
    found, expected = twin.get_params(), likelihood.get_params()
    if "blocks" in expected:  # likelihoods, each equal to itself alone
        found, expected = repr(found), repr(expected)
    np.testing.assert_equal(found, expected)
    assert twin.set_params() is twin


def test_settings_change_whole_or_not_at_all():
    likelihood = Gaussian(2.0, missing="nan")
    with pytest.raises(ValueError, match="scale must be positive"):
        likelihood.set_params(missing=None, scale=-1)
    assert repr(likelihood.get_params()) == repr(Gaussian(2.0, missing="nan").get_params())
    with pytest.raises(
        ValueError, match=r"Invalid parameter 'shape' for estimator Gaussian.scale="
    ):
        likelihood.set_params(shape=1)
    assert likelihood.set_params(scale="learned").parameters == ("x_recon", "log_scale")
    assert FreeBits(1.0).set_params(threshold=2).threshold == 2.0
    with pytest.raises(ValueError, match="cycles must be at most steps"):
        BetaSchedule(steps=3).set_params(cycles=4)


def test_numpys_global_seed_counts(frame):
    def first():
        np.random.seed(7)  # noqa: NPY002
        return VAE(**{**REAL, "random_state": None}).fit(frame).history_["elbo"]

    assert first() == first()


#: Ends with `found`, which JSON can hold.
USE = """
import tempfile, warnings
import numpy as np
import fastelbo
from fastelbo.vae import NotFittedError

def complaint(function, *arguments, **named):
    try:
        function(*arguments, **named)
    except Exception as error:
        return [type(error).__name__, isinstance(error, NotFittedError)]

X = np.arange(60.0).reshape(20, 3) / 60
y = np.arange(20) % 2
vae = fastelbo.VAE(hidden=(8,), latent_dim=2, epochs=2, random_state=0)
found = [complaint(vae.transform, X), vae.fit_transform(X).tolist(), str(vae)]
found += [vae.get_feature_names_out().tolist(), vae.n_features_in_, vae.score(X)]
found += [complaint(vae.transform, X[:, :2]), complaint(vae.set_params, gamma=1)]
found += [vae.set_params(epochs=7).get_params()["epochs"]]
with tempfile.TemporaryDirectory() as folder:
    vae.save(f"{folder}/vae.npz")
    found += [fastelbo.VAE.load(f"{folder}/vae.npz").score(X)]
vae.set_params(likelihood=fastelbo.Gaussian(1.0), likelihood__scale=2.0)
found += [vae.get_params()["likelihood__scale"], complaint(vae.set_params, likelihood__scale=-1)]
detector = fastelbo.VAEOutlierDetector(vae)
found += [complaint(detector.predict, X), detector.fit_predict(X).tolist(), detector.offset_]
labels = fastelbo.SemiSupervisedVAE(hidden=(8,), epochs=2, random_state=0).fit(X, y)
found += [labels.score(X, y), labels.predict_proba(X).tolist(), complaint(labels.score, X, [y])]
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    found += [labels.score(X, y[:, None]), len(told)]
    found += [labels.fit(X, y[:, None]).score(X, y)]
found += [[issubclass(w.category, UserWarning), str(w.message)[:15]] for w in told]
"""
WITHOUT = """
import json, sys
sys.modules["sklearn"] = None
exec(sys.argv[1])
messages = []
for needs_it in (
    lambda: vae.set_output(transform="pandas"),
    lambda: fastelbo.sap(X, y[:, None]),
    lambda: fastelbo.dci(X, y[:, None]),
):
    try:
        needs_it()
    except ImportError as error:
        messages.append(str(error))
print(json.dumps([found, messages]))
"""


def test_whole_without_it():
    """On NumPy alone, the same numbers and kinds of errors."""
    without, messages = run_python(WITHOUT, USE, timeout=120)
    exec(USE, with_it := {})
    assert without == with_it["found"]
    for message, extra in zip(messages, ("sklearn", "metrics", "metrics"), strict=True):
        assert f'pip install "fastelbo[{extra}]"' in message
    assert without[-1] == [True, "A column-vector"]


FRAMES = """
import pandas
import fastelbo

frame = pandas.DataFrame({"a": [0.5, 2.0, -3.0, 0.0] * 9, "b": [0, 1, 1, 0] * 9})
blocks = fastelbo.ColumnLikelihood([("gaussian", ["a"]), ("bernoulli", ["b"])])
options = {"hidden": (8,), "latent_dim": 2, "epochs": 2, "random_state": 0}
vae = fastelbo.VAE(**options, likelihood=blocks).fit(frame)
found = [vae.feature_names_in_.tolist(), vae.score(frame), vae.partial_fit(frame).score(frame)]
try:
    vae.transform(frame[["b", "a"]])
except ValueError as error:
    found += [str(error)[:64]]
vae.set_params(likelihood="squared_error").fit(frame.to_numpy())
found += [hasattr(vae, "feature_names_in_")]
"""


def test_frames_without_it():
    pytest.importorskip("pandas")
    script = 'import json, sys\nsys.modules["sklearn"] = None\nexec(sys.argv[1])\n'
    without = run_python(script + "print(json.dumps(found))", FRAMES, timeout=120)
    exec(FRAMES, with_it := {})
    assert without == with_it["found"]
