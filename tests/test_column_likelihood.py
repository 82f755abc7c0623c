"""ColumnLikelihood: the sum over its blocks, by hand, and columns that do not fit."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from scipy import stats

import fastelbo
from fastelbo import Bernoulli, Categorical, ColumnLikelihood, Gaussian
from tests.conftest import TOLERANCE

BLOCKS = [(Gaussian("learned"), [0, 4]), (Bernoulli(), slice(1, 3)), (Categorical(3), 3)]
X = np.array([[0.5, 1.0, 0.0, 2.0, -1.0], [2.0, 0.0, 1.0, 0.0, 0.25]])
OUTPUTS = np.array(
    [
        [0.0, -2.0, 0.5, -0.5, 3.0, -1.0, 0.1, 0.2, 0.3],
        [1.0, 1.0, 0.0, 1.0, 0.0, 2.0, -1.0, 0.0, 1.0],
    ]
)


def densities():
    """(2, 5): of each column, by SciPy."""
    normal = stats.norm.logpdf(X[:, [0, 4]], OUTPUTS[:, :2], np.exp(OUTPUTS[:, 2:4]))
    p = 1 / (1 + np.exp(-OUTPUTS[:, 4:6]))
    coins = stats.bernoulli.logpmf(X[:, 1:3], p)
    weights = np.exp(OUTPUTS[:, 6:])
    classes = np.log(weights / weights.sum(axis=1, keepdims=True))
    classes = classes[np.arange(2), X[:, 3].astype(int)]
    return np.column_stack([normal[:, 0], coins, classes, normal[:, 1]])


def test_is_the_sum_of_its_blocks(dtype):
    likelihood = ColumnLikelihood(BLOCKS)
    x, outputs = X.astype(dtype), OUTPUTS.astype(dtype)
    expected = densities()
    for reduction, value in (
        ("elementwise", expected),
        ("none", expected.sum(axis=1)),
        ("sum", expected.sum()),
        ("mean", expected.sum() / 2),
    ):
        got = likelihood.log_prob(x, outputs, reduction=reduction)
        np.testing.assert_allclose(got, value, rtol=20 * TOLERANCE[dtype])
        again, _ = likelihood.log_prob_and_grad(x, outputs, reduction=reduction)
        np.testing.assert_array_equal(again, got)


def test_gradients_lie_where_the_outputs_do():
    _, (gradient,) = ColumnLikelihood(BLOCKS).log_prob_and_grad(X, OUTPUTS, reduction="sum")
    mean, log_scale = OUTPUTS[:, :2], OUTPUTS[:, 2:4]
    scaled = (X[:, [0, 4]] - mean) / np.exp(log_scale)
    np.testing.assert_allclose(gradient[:, :2], scaled / np.exp(log_scale), rtol=1e-13)
    np.testing.assert_allclose(gradient[:, 2:4], scaled**2 - 1, rtol=1e-13)
    probabilities = 1 / (1 + np.exp(-OUTPUTS[:, 4:6]))
    np.testing.assert_allclose(gradient[:, 4:6], X[:, 1:3] - probabilities, rtol=1e-13)
    np.testing.assert_allclose(gradient[:, 6:].sum(axis=1), 0, atol=1e-15)


def test_split_and_mean():
    likelihood = ColumnLikelihood(BLOCKS)
    assert likelihood.n_outputs == 9
    (mean, log_scale), (coins,), (classes,) = likelihood.split(OUTPUTS)
    assert mean.base is OUTPUTS or np.shares_memory(mean, OUTPUTS)
    np.testing.assert_array_equal(log_scale, OUTPUTS[:, 2:4])
    np.testing.assert_array_equal(coins, OUTPUTS[:, 4:6])
    assert classes.shape == (2, 1, 3)
    got = likelihood.mean(OUTPUTS)
    np.testing.assert_array_equal(got[:, [0, 4]], mean)
    np.testing.assert_array_equal(got[:, 3], [2, 2])
    np.testing.assert_allclose(got[:, 1:3], 1 / (1 + np.exp(-coins)))


@pytest.mark.parametrize(
    "columns",
    [
        ([0, 4], slice(1, 3), 3),
        ([True, False, False, False, True], [1, 2], np.array([3])),
        ([0, -1], slice(1, -2), -2),
        ((0, 4), np.array([False, True, True, False, False]), slice(3, 4)),
        ([0, np.int64(4)], slice(2, 0, -1), [3]),
    ],
)
def test_columns_in_every_form(columns):
    blocks = [(likelihood, c) for (likelihood, _), c in zip(BLOCKS, columns, strict=True)]
    x, outputs = X, OUTPUTS
    if str(columns[1]) == "slice(2, 0, -1)":
        outputs = OUTPUTS[:, [0, 1, 2, 3, 5, 4, 6, 7, 8]]
    likelihood = ColumnLikelihood(blocks)
    value = likelihood.log_prob(x, outputs)
    assert value == pytest.approx(densities().sum() / 2, rel=1e-13)
    for other in (pickle.loads(pickle.dumps(likelihood)), copy.deepcopy(likelihood)):
        assert other.log_prob(x, outputs) == value


def test_missing_values_in_every_block_or_in_one():
    x = X.copy()
    x[0, 0] = x[0, 3] = x[1, 2] = np.nan
    seen = ~np.isnan(x)
    likelihood = ColumnLikelihood(BLOCKS, missing="nan")
    value, (gradient,) = likelihood.log_prob_and_grad(x, OUTPUTS, reduction="none")
    np.testing.assert_allclose(value, np.where(seen, densities(), 0).sum(axis=1), rtol=1e-13)
    assert not gradient[0, [0, 2, 6, 7, 8]].any()
    assert not gradient[1, 5]
    masked = ColumnLikelihood(BLOCKS).log_prob(X, OUTPUTS, mask=seen, reduction="none")
    np.testing.assert_array_equal(masked, value)
    of_one = ColumnLikelihood([(Gaussian("learned", missing="nan"), [0, 4]), *BLOCKS[1:]])
    rows = of_one.log_prob(x, OUTPUTS, reduction="none")
    assert np.isnan(rows).all()  # in columns of the others
    x[:, 1:4] = X[:, 1:4]
    expected = np.where(np.isnan(x), 0, densities()).sum(axis=1)
    np.testing.assert_allclose(of_one.log_prob(x, OUTPUTS, reduction="none"), expected, rtol=1e-13)


def test_an_optimal_scale_is_that_of_its_block():
    likelihood = ColumnLikelihood([(Gaussian("optimal"), [0, 2]), (Gaussian(2.0), 1)])
    x, means = np.array([[1.0, 0.0, 3.0], [0.0, 4.0, 1.0]]), np.zeros((2, 3))
    variance = (1 + 9 + 0 + 1) / 4
    expected = -2 * (np.log(2 * np.pi * variance) + 1) + stats.norm.logpdf([0.0, 4.0], 0, 2).sum()
    assert likelihood.log_prob(x, means, reduction="sum") == pytest.approx(expected, rel=1e-13)
    mu = np.zeros((2, 1))
    with pytest.raises(ValueError, match="optimal"):
        fastelbo.iwae(x, mu[None], mu, mu, means[None], likelihood=likelihood)


def test_what_is_set_of_a_block_counts_from_then_on():
    classes = Categorical(2)
    likelihood = ColumnLikelihood([(Bernoulli(), 0), (classes, 1)])
    x = [[1.0, 1.0]]
    assert likelihood.log_prob(x, np.zeros((1, 3))) == pytest.approx(-np.log(4))
    classes.set_params(classes=4)
    assert likelihood.n_outputs == 5
    assert likelihood.log_prob(x, np.zeros((1, 5))) == pytest.approx(-np.log(8))
    likelihood.set_params(blocks=[(Bernoulli(), [0, 1])])
    assert likelihood.log_prob(x, np.zeros((1, 2))) == pytest.approx(-np.log(4))


def test_a_call_leaves_nothing_to_save():
    likelihood = ColumnLikelihood([(Bernoulli(), slice(None))])
    before = pickle.dumps(likelihood)
    likelihood.log_prob(np.ones((1, 2)), np.zeros((1, 2)))
    assert pickle.dumps(likelihood) == before


def test_blocks_in_place_are_not_copied():
    """A block whose columns lie side by side needs no room for x, whatever its size."""
    rng = np.random.default_rng(0)
    x, outputs = rng.normal(size=(2, 256, 4000))
    likelihood = ColumnLikelihood(
        [(Gaussian(), slice(0, 1999)), (Gaussian(0.5), slice(1999, 4000))]
    )
    likelihood.log_prob(x, outputs)
    tracemalloc.start()
    likelihood.log_prob(x, outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 10


REFUSED = {
    "column 1 is in block 0 and in block 1": [(Gaussian(), [0, 1]), (Bernoulli(), slice(1, 5))],
    "has one twice": [(Gaussian(), [0, 1, 0])],
    r"leave over columns \[2, 3\]: .* one has, 4,": [(Gaussian(), [0, 1]), (Bernoulli(), 4)],
    r"leave over columns \[4\] .* shape is \(batch, 5\)": [(Gaussian(), slice(0, 4))],
    r"block 1: 5 is out of range .* \(batch, 5\)": [(Gaussian(), slice(0, 5)), (Bernoulli(), [5])],
    r"block 0: -6 is out of range": [(Gaussian(), [-6])],
    "mask of 3": [(Gaussian(), [True, True, True])],
    "mask without any": [(Gaussian(), [False, False])],
    r"slice\(7, 9, None\) has none": [(Gaussian(), slice(0, None)), (Bernoulli(), slice(7, 9))],
    "have names, 'age', but x is no DataFrame": [(Gaussian(), "age")],
    r"blocks\[0\] is Categorical\(\).*Categorical\(5\)": [(Categorical(), 0)],
    r"blocks\[0\] is DiscretizedLogisticMixture": [(fastelbo.DiscretizedLogisticMixture(), 0)],
    "is a ColumnLikelihood itself": [(ColumnLikelihood([(Gaussian(), 0)]), 0)],
    r"blocks\[0\] must be a pair": [Gaussian()],
    "must be a list of": Gaussian(),
    "blocks must be a list": [],
    "block 0 must be an int, a slice": [(Gaussian(), 1.5)],
    "list of ints, of booleans or of names, got": [(Gaussian(), [[0, 1], [2]])],
    "block 0 must be a slice of ints": [(Gaussian(), slice("a", "b"))],
    "likelihood must be": [("normal", 0)],
}


@pytest.mark.parametrize("message", REFUSED)
def test_columns_that_do_not_fit(message):
    with pytest.raises((TypeError, ValueError), match=message):
        ColumnLikelihood(REFUSED[message]).log_prob(X, np.zeros((2, 5)))


def test_of_many_columns_the_first_are_named():
    first = ColumnLikelihood([(Gaussian(), 0)])
    with pytest.raises(ValueError, match=r"columns \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10\] and 1 more"):
        first.log_prob(np.zeros((2, 12)), np.zeros((2, 1)))


def test_what_lies_outside_is_named_by_its_column():
    x = X.copy()
    x[1, 3] = 3
    with pytest.raises(ValueError, match=r"x\[1, 3\] = 3 .* Categorical"):
        ColumnLikelihood(BLOCKS).log_prob(x, OUTPUTS)
    assert np.isnan(ColumnLikelihood(BLOCKS, validate=False).log_prob(x, OUTPUTS))
    with pytest.raises(ValueError, match=r"outputs has shape \(2, 8\), expected \(2, 9\)"):
        ColumnLikelihood(BLOCKS).log_prob(X, OUTPUTS[:, 1:])
    with pytest.raises(ValueError, match="only x tells"):
        _ = ColumnLikelihood([(Gaussian(), slice(0, None))]).n_outputs


def test_categorical_of_so_many_classes():
    with pytest.raises(ValueError, match=r"logits has shape \(1, 4\), expected 3 classes"):
        Categorical(3).log_prob([1], np.zeros((1, 4)))
    with pytest.raises(ValueError, match="logits"):
        Categorical(3).mean(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="classes must be at least 1"):
        Categorical(0)
