"""StreamingBound."""

import copy
import pickle

import numpy as np
import pytest

import fastelbo
from fastelbo import StreamingBound, effective_sample_size, importance_bound
from fastelbo._catalogue import REDUCTIONS
from tests.importance import LinearGaussian, peak_of
from tests.test_importance_bound import COLUMNS


def log_weights(samples=100_000, batch=3, spread=2.0, dtype=np.float64):
    return np.random.default_rng(0).normal(-90, spread, (samples, batch)).astype(dtype)


def exactly(log_w):
    """(bound, ESS) of each column, in more than double precision."""
    log_w = log_w.astype(np.longdouble)
    top = log_w.max(axis=0)
    w = np.exp(log_w - top)
    bound = top + np.log(w.mean(axis=0))
    effective = w.sum(axis=0) ** 2 / (w * w).sum(axis=0)
    return bound.astype(np.float64), effective.astype(np.float64)


def streamed(chunks):
    stream = StreamingBound()
    for chunk in chunks:
        assert stream.update(chunk) is stream
    return stream


@pytest.mark.parametrize("order", ["drawn", "rising", "falling"])
@pytest.mark.parametrize("chunk", [1, 64, 1000, 100_000])
def test_any_chunks_in_any_order(chunk, order):
    """As exact one by one, the largest last, as all at once."""
    samples = 10_000 if chunk == 1 else 100_000
    log_w = log_weights(samples, spread=30.0 if chunk == 64 else 2.0)
    if order != "drawn":
        log_w = np.sort(log_w, axis=0)[:: 1 if order == "rising" else -1]
    stream = streamed(log_w[i : i + chunk] for i in range(0, len(log_w), chunk))
    bound, effective = exactly(log_w)
    assert stream.samples == len(log_w)
    np.testing.assert_allclose(stream.bound(reduction="none"), bound, rtol=1e-15)
    np.testing.assert_allclose(stream.effective_sample_size(), effective, rtol=1e-14)


def test_is_what_the_functions_give(dtype):
    log_w = log_weights(500, dtype=dtype)
    stream = streamed([log_w])
    for reduction in REDUCTIONS:
        for alpha in (0, 1, -1):
            expected = importance_bound(log_w, alpha=alpha, reduction=reduction)
            got = stream.bound(alpha=alpha, reduction=reduction)
            np.testing.assert_allclose(got, expected, rtol=1e-14)
            assert type(got) is type(expected)
    np.testing.assert_array_equal(stream.effective_sample_size(), effective_sample_size(log_w))


@pytest.mark.parametrize("parts", [2, 7, 100])
def test_merge(parts):
    log_w = log_weights(spread=40.0)
    np.random.default_rng(1).shuffle(log_w)
    whole = StreamingBound()
    for part in np.array_split(log_w, parts):
        assert whole.merge(streamed(np.array_split(part, 3))) is whole
    bound, effective = exactly(log_w)
    assert whole.samples == len(log_w)
    np.testing.assert_allclose(whole.bound(reduction="none"), bound, rtol=1e-15)
    np.testing.assert_allclose(whole.effective_sample_size(), effective, rtol=1e-14)


def test_merge_leaves_the_other_as_it_was():
    one, other = streamed([log_weights(10)]), streamed([log_weights(20) + 50])
    before = other.bound()
    one.merge(other)
    assert (other.samples, other.bound()) == (20, before)
    fresh = StreamingBound().merge(other)
    fresh.update(log_weights(5))
    assert (other.samples, other.bound()) == (20, before)
    assert one.merge(StreamingBound()) is one
    assert one.samples == 30
    assert StreamingBound().merge(StreamingBound()).samples == 0


def test_merge_with_itself():
    stream = streamed([log_weights(10)])
    bound = stream.bound()
    assert stream.merge(stream).samples == 20
    assert stream.bound() == pytest.approx(bound, rel=1e-15)


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("alpha", [0, 1, -1])
def test_infinities_and_nan(kind, alpha):
    """The same whether they come in one chunk, one by one or by way of another stream."""
    if "very" in kind:
        return  # its square overflows
    log_w = np.array([COLUMNS[kind]]).T
    expected = importance_bound(log_w, alpha=alpha)
    apart = streamed(log_w[i : i + 1] for i in range(3))
    merged = streamed([log_w[2:]]).merge(streamed([log_w[:1]]).merge(streamed([log_w[1:2]])))
    for stream in (streamed([log_w]), apart, streamed(log_w[i : i + 1] for i in (2, 1, 0)), merged):
        np.testing.assert_allclose(stream.bound(alpha=alpha), expected, rtol=1e-14)
        np.testing.assert_allclose(
            stream.effective_sample_size(), effective_sample_size(log_w), rtol=1e-14
        )


def test_standard_error():
    """What repetitions of the whole estimate scatter by."""
    model = LinearGaussian(batch=8)
    mu, logvar = model.mu + 0.2, model.logvar + 0.3
    estimates, errors = [], []
    for seed in range(300):
        z = model.sample(mu, logvar, 400, seed)
        log_w = fastelbo.log_weights(
            model.x, z, mu, logvar, model.decode(z), likelihood=model.likelihood
        )
        stream = streamed([log_w])
        estimates.append(stream.bound(reduction="none"))
        errors.append(stream.standard_error(reduction="none"))
    scatter, expected = np.std(estimates, axis=0), np.mean(errors, axis=0)
    np.testing.assert_allclose(expected, scatter, rtol=0.2)
    rows = stream.standard_error(reduction="none")
    assert stream.standard_error() == pytest.approx(np.sqrt((rows**2).sum()) / 8, rel=1e-14)
    assert stream.standard_error(reduction="sum") == pytest.approx(8 * stream.standard_error())


def test_standard_error_of_few():
    assert np.isnan(streamed([[[1.0]]]).standard_error())
    assert streamed([np.full((9, 2), -3.0)]).standard_error() == 0.0
    log_w = np.log([[1.0], [2.0], [6.0]])
    expected = np.std([1, 2, 6], ddof=1) / 3 / np.sqrt(3)
    assert streamed([log_w]).standard_error() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("chunk", [1, 100, 2500])
@pytest.mark.parametrize("spread", [1e-10, 1e-8, 1e-3, 1.0])
def test_standard_error_of_nearly_equal_weights(spread, chunk):
    """Whether streamed or merged; K / ESS - 1 would be rounding."""
    log_w = np.random.default_rng(0).normal(-9, spread, (2500, 3))
    excess = np.expm1((log_w - log_w[0]).astype(np.longdouble))
    expected = excess.std(axis=0, ddof=1) / (1 + excess.mean(axis=0)) / 50
    chunks = [log_w[i : i + chunk] for i in range(0, len(log_w), chunk)]
    one, merged = streamed(chunks), StreamingBound()
    for part in chunks:
        merged.merge(streamed([part]))
    for stream in (one, merged):
        got = stream.standard_error(reduction="none")
        np.testing.assert_allclose(got, expected.astype(np.float64), rtol=1e-13)


def test_standard_error_with_weights_of_zero():
    """A few among many that are equal: beside them, before them, in chunks of their own."""
    log_w = np.zeros((1000, 1))
    log_w[:2] = -np.inf
    expected = np.std(np.exp(log_w), ddof=1) / 0.998 / np.sqrt(1000)
    for chunks in ([log_w], [log_w[:2], log_w[2:]], [log_w[2:], log_w[:2]], np.split(log_w, 4)):
        one, merged = streamed(chunks), StreamingBound()
        for part in chunks:
            merged.merge(streamed([part]))
        for stream in (one, merged):
            assert stream.standard_error() == pytest.approx(expected, rel=1e-13)


def test_merging_loses_nothing():
    """Many streams of one sample: without compensated sums, 3e-15."""
    log_w = np.random.default_rng(0).normal(0, 1, (20_000, 3))
    whole = StreamingBound()
    for row in log_w:
        whole.merge(StreamingBound().update(row[None]))
    bound, _ = exactly(log_w)
    assert np.abs(whole.bound(reduction="none") - bound).max() < 1e-15


def test_memory_does_not_grow():
    chunk = log_weights(1000, 50)
    stream = streamed([chunk])

    def many():
        for _ in range(100):
            stream.update(chunk)

    assert peak_of(many) < 20_000


def test_copies_and_pickles():
    stream = streamed([log_weights(10)])
    for twin in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert twin.bound() == stream.bound()
        twin.update(log_weights(3))
        assert stream.samples == 10
    assert repr(stream) == "StreamingBound(samples=10, batch=3)"
    assert repr(StreamingBound()) == "StreamingBound(samples=0, batch=None)"


def test_errors():
    empty = StreamingBound()
    for method in (empty.bound, empty.effective_sample_size, empty.standard_error):
        with pytest.raises(ValueError, match="update"):
            method()
    stream = streamed([log_weights(10)])
    with pytest.raises(ValueError, match=r"log_w has shape \(10, 2\)"):
        stream.update(np.zeros((10, 2)))
    with pytest.raises(ValueError, match="2 columns"):
        stream.merge(streamed([np.zeros((10, 2))]))
    with pytest.raises(TypeError, match="other"):
        stream.merge(3)
    for alpha in (0.5, "0", None):
        with pytest.raises((TypeError, ValueError), match="alpha"):
            stream.bound(alpha=alpha)
    for method in (stream.bound, stream.standard_error):
        with pytest.raises(ValueError, match="reduction"):
            method(reduction="median")
    with pytest.raises(ValueError, match="log_w"):
        StreamingBound().update(np.zeros(3))
    with pytest.raises(ValueError, match="num_threads"):
        StreamingBound(num_threads=0).update(np.zeros((3, 3)))
