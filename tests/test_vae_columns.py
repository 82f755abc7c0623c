"""VAE over tables of mixed kinds: what its networks see of columns, and names of a DataFrame."""

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, Bernoulli, Categorical, ColumnLikelihood, NegativeBinomial, Poisson
from fastelbo._network import Autoencoder
from fastelbo._visible import Visible

NAMES = ["age", "owns", "visits", "kind", "income"]
BLOCKS = [("gaussian", [4, 0]), (Bernoulli(), 1), (NegativeBinomial(), [2]), (Categorical(4), [3])]
BY_NAME = [
    ("gaussian", ["income", "age"]),
    (Bernoulli(), "owns"),
    (NegativeBinomial(), ["visits"]),
    (Categorical(4), ["kind"]),
]
OPTIONS = {"hidden": (24,), "latent_dim": 2, "learning_rate": 1e-2, "random_state": 0}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 2))
    noise = 0.1 * rng.normal(size=(400, 2))
    return np.column_stack(
        [
            z[:, 0] + noise[:, 0],
            z[:, 0] > 0,
            rng.poisson(np.exp(1 + 0.5 * z[:, 1])),
            np.clip(np.round(1.5 + z[:, 1]), 0, 3),
            z[:, 0] - z[:, 1] + noise[:, 1],
        ]
    )


@pytest.fixture(scope="module")
def fitted(table):
    return VAE(likelihood=ColumnLikelihood(BLOCKS), epochs=60, **OPTIONS).fit(table)


def test_learns_every_kind_of_column(table, fitted):
    guess = fitted.inverse_transform(fitted.transform(table))
    assert fitted.history_["elbo"][-1] > fitted.history_["elbo"][0] + 2
    for column in (0, 4):
        assert np.corrcoef(guess[:, column], table[:, column])[0, 1] > 0.9
    assert np.mean((guess[:, 1] > 0.5) == table[:, 1]) > 0.9
    assert np.mean(guess[:, 3] == table[:, 3]) > 0.6  # a chance of 0.4
    assert set(np.unique(guess[:, 3])) <= {0, 1, 2, 3}
    (scale,) = [part.scale for part, _ in fitted.likelihood_.blocks[:1]]
    assert 0.1 < scale < 0.6
    assert np.isfinite(fitted.score_samples(table[:5], samples=50)).all()
    assert fitted.sample(7, rng=0).shape == (7, 5)


def test_gradient_of_a_step():
    """By differences, of a block of every kind, for all parameters of the networks."""
    blocks = [(fastelbo.Gaussian("learned"), [4, 0]), *BLOCKS[1:]]
    likelihood = ColumnLikelihood(blocks)
    rng = np.random.default_rng(1)
    x = np.column_stack(
        [rng.normal(size=6), rng.integers(0, 2, 6), rng.poisson(3, 6), rng.integers(0, 4, 6)]
    )
    x = np.column_stack([x, rng.normal(size=6)])
    model = Autoencoder(Visible(likelihood, 5), (6,), 2, np.float64)
    model.initialise(rng, x)
    start = model.adam.parameters + 0.1 * rng.standard_normal(model.adam.parameters.size)

    def objective(parameters):
        model.adam.parameters[...] = parameters
        value, kl = model.step(x, np.arange(6), likelihood, 0.7, 0.0, 11, 0.0, 1)
        return value - 0.7 * kl

    objective(start)
    gradient = model.adam.grads.copy()
    for i in range(0, start.size, 3):
        step = 1e-5 * (np.arange(start.size) == i)
        slope = (objective(start + step) - objective(start - step)) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=2e-5, abs=1e-8)


def test_what_the_encoder_sees():
    likelihood = ColumnLikelihood([(Categorical(3), [1]), (Poisson(), 2), ("gaussian", [0])])
    visible = Visible(likelihood, 3)
    x = np.array([[0.5, 2.0, 3.0], [-1.0, 0.0, 0.0]])
    expected = [[0.5, np.log(4), 0, 0, 1], [-1.0, 0, 1, 0, 0]]
    np.testing.assert_allclose(visible.see(x), expected)
    assert visible.width == 5
    plain = Visible(fastelbo.Gaussian("learned"), 3)
    assert plain.see(x) is x
    assert (plain.width, plain.outputs, plain.widths) == (3, 6, (3, 3))
    np.testing.assert_allclose(Visible(Poisson(), 3).see(np.abs(x)), np.log1p(np.abs(x)))


def test_names_are_those_of_a_data_frame(table, fitted, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table, columns=NAMES)
    model = VAE(likelihood=ColumnLikelihood(BY_NAME), epochs=60, **OPTIONS).fit(frame)
    np.testing.assert_array_equal(model.score_samples(frame), fitted.score_samples(table))
    assert [columns for _, columns in model.likelihood_.blocks] == [[4, 0], [1], [2], [3]]
    model.save(tmp_path / "model.npz")
    other = VAE.load(tmp_path / "model.npz")
    for each in (model, other):
        each.partial_fit(frame)
    np.testing.assert_array_equal(other.transform(frame), model.transform(frame))
    with pytest.raises(ValueError, match=r"names, .* but x is no DataFrame"):
        VAE(likelihood=ColumnLikelihood(BY_NAME), epochs=1).fit(table)
    misspelt = ColumnLikelihood([("gaussian", ["agee"])])
    with pytest.raises(ValueError, match=r"'agee' is none of X, .*'age'"):
        VAE(likelihood=misspelt, epochs=1).fit(frame)


def test_columns_that_do_not_fit(table, fitted):
    with pytest.raises(ValueError, match=r"leave over columns \[3, 4\]"):
        VAE(likelihood=ColumnLikelihood([("gaussian", slice(0, 3))]), epochs=1).fit(table)
    bad = table.copy()
    bad[7, 3] = 4
    with pytest.raises(ValueError, match=r"X\[7, 3\] = 4 .* Categorical, the classes 0, 1, ..., 3"):
        fitted.score_samples(bad)
    with pytest.raises(ValueError, match="ColumnLikelihood"):
        VAE(likelihood=Categorical(4)).fit(table)
    probs = ColumnLikelihood([(Bernoulli(probs=True), slice(None))])
    with pytest.raises(ValueError, match="probabilities"):
        VAE(likelihood=probs).fit(table)
    other = ColumnLikelihood([("gaussian", [4, 0, 1]), *BLOCKS[2:]])
    with pytest.raises(ValueError, match="takes another network"):
        VAE(likelihood=ColumnLikelihood(BLOCKS), epochs=1).fit(table).set_params(
            likelihood=other
        ).partial_fit(table)


def test_semi_supervised(table):
    likelihood = ColumnLikelihood(
        [(fastelbo.Gaussian(0.3), [0, 3]), (Categorical(2), [1]), (Poisson(), 2)]
    )
    X, classes = table[:, [0, 1, 2, 4]], table[:, 3].astype(int)
    y = np.where(np.arange(400) < 100, classes, -1)
    model = fastelbo.SemiSupervisedVAE(likelihood=likelihood, epochs=30, **OPTIONS).fit(X, y)
    assert model.score(X, classes) > 0.6
    assert set(np.unique(model.sample(classes)[:, 1])) <= {0, 1}
