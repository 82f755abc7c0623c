"""total_correlation and total_correlation_and_grad."""

import numpy as np
import pytest

import fastelbo
from fastelbo import reference, total_correlation, total_correlation_and_grad
from fastelbo._catalogue import aggregate, flatten
from tests.conftest import TOLERANCE, assert_close

SIZE = 5000
VARIANTS = [
    {},
    {"normalize": False},
    {"method": "mss"},
    {"method": "mss", "mss": "reference"},
]


def draw(dtype=np.float64, batch=6, dims=3, seed=0, spread=0.5):
    """(z, mu, logvar), z from q."""
    rng = np.random.default_rng(seed)
    mu, logvar, noise = rng.normal(size=(3, batch, dims))
    logvar = spread * logvar
    arrays = mu + np.exp(0.5 * logvar) * noise, mu, logvar
    return tuple(a.astype(dtype) for a in arrays)


def check(arrays, dtype, **options):
    options = {"dataset_size": SIZE, "weights": (1.0, 6.0, 0.5), **options}
    got = total_correlation_and_grad(*arrays, **options)
    expected = reference.total_correlation_and_grad(*arrays, **options)
    scales = aggregate.magnitudes(*arrays, **options)
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, tuple(flatten(scales)))
    assert all(g.dtype == dtype for g in got[1])
    return got


def test_batches_around_the_chunks(dtype):
    """Chunks of samples end at 64, or where 2^16 numbers do."""
    for batch, dims in ((64, 2), (128, 2), (1030, 2), (2050, 1)):
        check(draw(dtype, batch, dims), dtype)


@pytest.mark.parametrize("spread", [3.0, 8.0])
def test_narrow_posteriors(dtype, spread):
    """Sums that underflow relative to the narrowest posterior are taken again."""
    check(draw(dtype, 100, 5, spread=spread), dtype)
    z, mu, logvar = draw(dtype, 100, 5, spread=spread)
    for options in VARIANTS:
        check((z + dtype.type(50), mu, logvar), dtype, **options)


# What is known of it ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS)
def test_the_parts_add_up(dtype, options):
    z, mu, logvar = draw(dtype, 70, 9)
    parts = total_correlation(z, mu, logvar, dataset_size=SIZE, **options)
    z, mu, logvar = (a.astype(np.float64) for a in (z, mu, logvar))
    log_q = -0.5 * ((z - mu) ** 2 * np.exp(-logvar) + logvar)
    expected = (log_q + 0.5 * z**2).sum(axis=1).mean()
    assert sum(parts) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_one_dimension_has_no_total_correlation():
    arrays = draw(dims=1, batch=40)
    parts = total_correlation(*arrays, dataset_size=SIZE)
    assert parts.total_correlation == pytest.approx(0.0, abs=1e-12)


def test_equal_posteriors_have_no_mutual_information():
    """q(z) is then q(z|x), but for the weights: their sum is 1 / N, or 1."""
    z, mu, logvar = draw(batch=10)
    mu, logvar = np.broadcast_to(mu[0], mu.shape), np.broadcast_to(logvar[0], mu.shape)
    parts = total_correlation(z, mu, logvar, dataset_size=SIZE)
    assert parts.mutual_information == pytest.approx(np.log(SIZE), rel=1e-12)
    parts = total_correlation(z, mu, logvar, dataset_size=SIZE, method="mss")
    assert parts.mutual_information == pytest.approx(0.0, abs=1e-12)
    assert parts.total_correlation == pytest.approx(0.0, abs=1e-12)


def test_normalize_moves_the_parts():
    arrays = draw()
    constant = np.log(len(arrays[0]) * SIZE)
    with_it = np.array(total_correlation(*arrays, dataset_size=SIZE))
    without = np.array(total_correlation(*arrays, dataset_size=SIZE, normalize=False))
    np.testing.assert_allclose(with_it - without, [constant, 2 * constant, -3 * constant])


def authors_weights(batch_size, dataset_size):
    """As published by the authors, stride and all."""
    N, M = dataset_size, batch_size - 1
    strat_weight = (N - M) / (N * M)
    W = np.full((batch_size, batch_size), 1 / M)
    W.reshape(-1)[:: M + 1] = 1 / N
    W.reshape(-1)[1 :: M + 1] = strat_weight
    W[M - 1, 0] = strat_weight
    return W


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_stratified_weights(batch):
    options = {"method": "mss", "normalize": True}
    own = np.exp(reference.importance_weights(batch, 50, mss="reference", **options))
    np.testing.assert_allclose(own, authors_weights(batch, 50))
    paper = np.exp(reference.importance_weights(batch, 50, mss="paper", **options))
    np.testing.assert_allclose(np.diagonal(paper), 1 / 50)
    np.testing.assert_allclose(paper.sum(axis=1), 1.0)


# Gradients --------------------------------------------------------------------------------------


def test_equal_weights_need_no_aggregate():
    """log q(z|x) - log p(z): no sample has to do with another."""
    z, mu, logvar = draw(batch=20)
    _, grad = total_correlation_and_grad(
        z, mu, logvar, dataset_size=SIZE, weights=(1, 1, 1), reduction="sum"
    )
    pull = (z - mu) * np.exp(-logvar)
    np.testing.assert_allclose(grad.z, z - pull, atol=1e-13)
    np.testing.assert_allclose(grad.mu, pull, atol=1e-13)
    np.testing.assert_allclose(grad.logvar, 0.5 * ((z - mu) * pull - 1), atol=1e-13)


# Promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", range(3))
def test_nan_and_infinity_spread_as_in_numpy(dtype, which, value):
    for options in VARIANTS:
        arrays = draw(dtype, 70, 5)
        arrays[which][9, 2] = value
        options = {"dataset_size": SIZE, "reduction": "none", **options}
        weights = (1.0, 6.0, 0.5)
        got = flatten(total_correlation_and_grad(*arrays, weights=weights, **options))
        expected = flatten(
            reference.total_correlation_and_grad(*arrays, weights=weights, **options)
        )
        for mine, theirs in zip(got, expected, strict=True):  # inf - inf depends on the order
            np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(theirs))
        if which == 0:
            for part in got[:3]:
                assert np.isfinite(np.delete(part, 9)).all()


def test_errors():
    arrays = draw()
    for options, error, match in [
        ({"dataset_size": 0}, ValueError, "dataset_size must be at least 1, got 0"),
        ({"dataset_size": 2.5}, TypeError, "dataset_size must be an int"),
        ({"method": "exact"}, ValueError, "method must be"),
        ({"mss": "theirs"}, ValueError, "mss must be"),
        ({"method": "mss", "dataset_size": 5}, ValueError, "that of the batch, 6, got 5"),
    ]:
        with pytest.raises(error, match=match):
            total_correlation(*arrays, **{"dataset_size": SIZE, **options})
    with pytest.raises(ValueError, match="batch of 2"):
        total_correlation(*draw(batch=1), dataset_size=SIZE, method="mss")
    with pytest.raises(TypeError, match="dataset_size"):
        total_correlation(*arrays)
    for weights, error in [((1, 2), ValueError), (1.0, TypeError), (("a", 1, 1), TypeError)]:
        with pytest.raises(error, match="weights"):
            total_correlation_and_grad(*arrays, dataset_size=SIZE, weights=weights)


def test_a_nan_with_a_payload():
    """Bits that ride on a NaN do not make it a number."""
    payload = np.array([0x7FC00001], np.uint32).view(np.float32)[0]
    z, mu, logvar = draw(np.float32)
    mu[2, 1] = payload
    assert np.isnan(fastelbo.total_correlation(z, mu, logvar, dataset_size=SIZE)).any()


@pytest.mark.parametrize(("dtype", "far"), [(np.float32, 12.0), (np.float64, 37.5)])
def test_gradients_of_a_point_that_is_far_from_all_samples(dtype, far):
    """It is nothing beside the others in any sum, and all there is in a gradient."""
    z, logvar = np.zeros((2, 2, 2), dtype)
    mu = np.array([[0, 0], [far, far]], dtype)
    _, grad = fastelbo.total_correlation_and_grad(z, mu, logvar, dataset_size=9, reduction="sum")
    share = 2 * np.exp(-0.5 * far**2)  # of two samples; the joint one is its square
    tolerance = TOLERANCE[np.dtype(dtype)] * (1 + 0.5 * far**2)  # a share has its logarithm's
    np.testing.assert_allclose(grad.mu[1], share * far, rtol=tolerance)
    np.testing.assert_allclose(grad.logvar[1], -0.5 * share * (far**2 - 1), rtol=tolerance)
