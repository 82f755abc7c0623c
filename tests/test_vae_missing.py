"""VAE(missing="nan"): what networks see of what is missing, and what is filled in."""

import copy
import pickle

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, Bernoulli, Categorical, ColumnLikelihood
from fastelbo._reading import Rows
from fastelbo._visible import Visible

OPTIONS = {
    "hidden": (24,),
    "latent_dim": 2,
    "learning_rate": 1e-2,
    "epochs": 60,
    "random_state": 0,
    "missing": "nan",
}
BLOCKS = [("gaussian", [0, 3]), (Bernoulli(), [1]), (Categorical(3), [2])]


@pytest.fixture(scope="module")
def whole():
    """Columns that all follow one number."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=500)
    noise = 0.05 * rng.normal(size=(500, 2))
    kinds = np.digitize(z, [-0.5, 0.5])
    return np.column_stack([z + noise[:, 0], z > 0, kinds, noise[:, 1] - 2 * z])


@pytest.fixture(scope="module")
def holed(whole):
    gaps = np.random.default_rng(1).random(whole.shape) < 0.25
    return np.where(gaps, np.nan, whole)


@pytest.fixture(scope="module")
def fitted(holed):
    return VAE(likelihood=ColumnLikelihood(BLOCKS), **OPTIONS).fit(holed)


def test_what_the_encoder_sees():
    likelihood = ColumnLikelihood(
        [(fastelbo.Poisson(), [0]), (Categorical(3), [2]), ("gaussian", 1)]
    )
    visible = Visible(likelihood, 3, np.zeros(0))
    x = np.array([[3.0, 1.0, 2.0], [0.0, np.nan, 0.0], [np.nan, 4.0, np.nan]])
    visible.learn(Rows(x, x.dtype, missing=True))
    np.testing.assert_allclose(visible.fill, [np.log(4) / 2, 2.5])
    expected = [
        [np.log(4), 1.0, 0, 0, 1, 0, 0, 0],
        [0.0, 2.5, 1, 0, 0, 0, 1, 0],
        [np.log(4) / 2, 4.0, 0, 0, 0, 1, 0, 1],
    ]
    np.testing.assert_allclose(visible.see(x), expected)
    empty = Visible(fastelbo.Gaussian(), 2, np.zeros(0))
    empty.learn(Rows([[np.nan, 1.0]], np.float64, missing=True))
    np.testing.assert_array_equal(empty.fill, [0, 1])


def test_fills_in_every_kind_of_column(whole, holed, fitted):
    filled = fitted.impute(holed)
    gaps = np.isnan(holed)
    np.testing.assert_array_equal(filled[~gaps], holed[~gaps])
    some = gaps & (gaps.sum(axis=1) < 3)[:, None]  # with two others to go by
    for column in (0, 3):
        at = some[:, column]
        error = np.sqrt(np.mean((filled - whole)[at, column] ** 2))
        assert error < 0.5 * whole[:, column].std()
    assert np.mean((filled[:, 1] > 0.5) == whole[:, 1], where=some[:, 1]) > 0.9
    assert np.mean(filled[:, 2] == whole[:, 2], where=some[:, 2]) > 0.8
    assert ((filled[:, 1] >= 0) & (filled[:, 1] <= 1)).all()


def test_what_is_filled_in_depends_on_its_row_alone(holed, fitted):
    filled = fitted.impute(holed[:20], samples=8)
    np.testing.assert_allclose(
        fitted.impute(holed[19:9:-1], samples=8), filled[19:9:-1], rtol=1e-3, atol=1e-3
    )  # products of other shapes round otherwise, and climbs end elsewhere
    assert (fitted.impute(holed[:20], samples=8, rng=1) != filled).any()
    complete = np.nan_to_num(holed[:5])
    np.testing.assert_array_equal(fitted.impute(complete), complete)
    single = fitted.impute(holed[:20].astype(np.float32), samples=8)
    assert single.dtype == np.float32


def test_scores_are_of_what_was_observed(holed, fitted):
    reconstruction, _ = fitted.score_parts(holed[:30])
    assert np.isfinite(reconstruction).all()
    assert fitted.transform(holed).shape == (500, 2)
    nothing = np.full((1, 4), np.nan)
    np.testing.assert_array_equal(fitted.score_parts(nothing)[0], [0])
    assert np.isfinite(fitted.impute(nothing)).all()
    assert np.isfinite(fitted.score_samples(holed[:3], samples=20)).all()


@pytest.mark.parametrize("likelihood", ["gaussian", "squared_error", fastelbo.Laplace("learned")])
def test_what_is_missing_adds_nothing_to_training(whole, holed, likelihood):
    """Whatever stands where values are missing: they are filled, and flagged, before."""
    X = holed[:, [0, 3]]
    model = VAE(likelihood=likelihood, **OPTIONS).fit(X)
    assert np.isfinite(model.history_["elbo"]).all()
    assert model.likelihood_.missing == "nan"
    gaps = np.isnan(X)
    error = np.sqrt(np.mean((model.impute(X) - whole[:, [0, 3]])[gaps] ** 2))
    assert error < 0.75 * X[~gaps].std()
    for prior in ("vamp", "mixture"):
        VAE(**{**OPTIONS, "epochs": 2, "refine_steps": 1}, likelihood=likelihood, prior=prior).fit(
            X
        )


def test_the_scale_is_that_of_what_was_observed():
    """A third is missing: the optimal variance is the mean over the others."""
    rng = np.random.default_rng(0)
    X = 0.7 * rng.normal(size=(2000, 6))
    X[rng.random(X.shape) < 1 / 3] = np.nan
    options = {**OPTIONS, "epochs": 10, "beta": 50.0}  # so that z says nothing
    with pytest.warns(fastelbo.TrainingWarning, match="collapsed"):
        model = VAE(likelihood="gaussian", **options).fit(X)
    assert model.likelihood_.scale == pytest.approx(0.7, rel=0.03)


def test_a_store_in_which_nothing_is_missing(whole, fitted):
    array = pytest.importorskip("dask.array")
    np.testing.assert_array_equal(fitted.impute(array.from_array(whole, chunks=(90, 4))), whole)


@pytest.mark.parametrize("refine_steps", [0, 2])
def test_minibatches_in_which_a_block_has_no_value(refine_steps):
    """Their scales are of the others, whose variance is 4."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) * [1.0, 2.0]
    X[rng.random(600) < 0.95, 1] = np.nan
    X[0] = np.nan
    blocks = ColumnLikelihood([("gaussian", [0]), ("gaussian", [1])])
    options = {**OPTIONS, "batch_size": 8, "epochs": 2, "beta": 50.0, "refine_steps": refine_steps}
    with pytest.warns(fastelbo.TrainingWarning, match="collapsed"):
        model = VAE(likelihood=blocks, **options).fit([X[:300], X[300:]])
    scales = [part.scale for part in model.likelihood_._members()]
    np.testing.assert_allclose(scales, [1.0, np.nanstd(X[:, 1])], rtol=0.15)


def test_goes_on_where_it_stood(holed, fitted, tmp_path):
    fitted.save(tmp_path / "model.npz")
    loaded = VAE.load(tmp_path / "model.npz")
    for other in (loaded, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.impute(holed[:9]), fitted.impute(holed[:9]))
    again = VAE(likelihood=ColumnLikelihood(BLOCKS), **OPTIONS).fit(holed)
    for each in (loaded, again):
        each.partial_fit(holed[:100])
    np.testing.assert_array_equal(loaded.transform(holed), again.transform(holed))


@pytest.mark.parametrize("wrong", ["of another shape", "of another dtype", "not finite", "a word"])
def test_files_with_another_fill(wrong, fitted, tmp_path):
    other = copy.deepcopy(fitted)
    fill = other._model.visible.fill
    other._model.visible.fill = {
        "of another shape": fill[1:],
        "of another dtype": fill.astype(np.float64),
        "not finite": fill * np.nan,
        "a word": "mean",
    }[wrong]
    other.save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"cannot be loaded.*fill: no 3 finite numbers"):
        VAE.load(tmp_path / "model.npz")


def test_errors(whole, holed, fitted):
    model = VAE(likelihood="gaussian", epochs=1, random_state=0)
    with pytest.raises(ValueError, match=r"X contains NaN .* missing=\"nan\""):
        model.fit(holed)
    with pytest.raises(ValueError, match='fitted with missing="nan"'):
        model.fit(whole).impute(whole)
    with pytest.raises(ValueError, match="NaN"):
        model.transform(holed)
    with pytest.raises(ValueError, match="missing must be"):
        VAE(missing="NaN").fit(whole)
    bad = holed.copy()
    bad[2, 1] = np.inf
    with pytest.raises(ValueError, match="infinity: inf at row 2, column 1"):
        fitted.impute(bad)
    model.fit(whole).set_params(missing="nan")
    with pytest.raises(ValueError, match="missing has changed"):
        model.partial_fit(whole)
    with pytest.raises(ValueError, match="samples must be at least"):
        fitted.impute(holed, samples=0)
    with pytest.raises(ValueError, match="samples must be even"):
        fitted.impute(holed, samples=7)


def test_says_so_to_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils")
    assert sklearn.get_tags(VAE(missing="nan")).input_tags.allow_nan
    assert not sklearn.get_tags(VAE()).input_tags.allow_nan
