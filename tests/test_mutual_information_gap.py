"""mutual_information_gap: worked by hand, by scikit-learn, and on factors that are known."""

import numpy as np
import pytest

import fastelbo
from fastelbo import mutual_information_gap, reference
from tests.disentanglement import known, noise


def test_worked_by_hand():
    """A code that knows one of two bits, and one that knows half of it."""
    factors = [[0], [0], [1], [1]]
    codes = np.array([[0, 0], [0, 0], [1, 0], [1, 1]])
    got = mutual_information_gap(codes, factors)
    half = np.log(4 / 3) / 2 + np.log(2 / 3) / 4 + np.log(2) / 4
    np.testing.assert_allclose(got.mutual_information, [[np.log(2)], [half]], rtol=1e-14)
    np.testing.assert_allclose(got.entropy, [np.log(2)], rtol=1e-15)
    assert got.score == pytest.approx(1 - half / np.log(2), rel=1e-14)


def test_information_is_that_of_scikit_learn():
    mutual_info_score = pytest.importorskip("sklearn.metrics").mutual_info_score
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 5, (500, 2))
    codes = factors[:, [0, 1, 0]] + rng.normal(size=(500, 3))
    got = mutual_information_gap(codes, factors).mutual_information
    for i, j in np.ndindex(got.shape):
        edges = np.histogram(codes[:, i], 20)[1]
        expected = mutual_info_score(np.digitize(codes[:, i], edges[:-1]), factors[:, j])
        assert got[i, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("estimator", ["histogram", "density"])
def test_known_factors_and_noise(estimator):
    factors = known(2000)
    options = {"estimator": estimator, "rng": 3} if estimator == "density" else {}
    logvar = np.full(factors.shape, -6.0)
    if options:
        options["logvar"] = logvar
    assert mutual_information_gap(factors, factors, **options).score >= 0.95
    mixed = np.repeat(factors[:, :1], 3, axis=1)  # all codes know the same
    gaps = mutual_information_gap(mixed, factors, **options).gaps
    assert np.abs(gaps).max() <= 0.05
    if options:
        options["logvar"] = np.zeros_like(logvar)
    assert abs(mutual_information_gap(noise(2000), factors, **options).score) <= 0.05


def test_a_density_that_is_known():
    """Two values at -4 and 4: narrow posteriors tell them apart, (nearly) log 2 nats."""
    factors = np.tile([[0], [1]], (50, 1))
    got = mutual_information_gap(
        8.0 * factors - 4, factors, estimator="density", logvar=np.zeros((100, 1)), rng=0
    )
    assert got.mutual_information[0, 0] == pytest.approx(np.log(2), abs=1e-3)
    blind = mutual_information_gap(
        0.0 * factors, factors, estimator="density", logvar=np.zeros((100, 1)), rng=0
    )
    assert blind.score == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("module", [fastelbo, reference])
def test_the_gap_of_a_single_code_is_what_it_knows(module):
    """Below zero, too, as few samples may have it."""
    rng = np.random.default_rng(0)
    codes, factors = rng.normal(size=(60, 1)), rng.integers(0, 2, (60, 12))
    logvar = np.zeros_like(codes)
    options = {"estimator": "density", "logvar": logvar, "samples": 20, "rng": 0}
    found = module.mutual_information_gap(codes, factors, **options)
    assert found.mutual_information.min() < 0
    np.testing.assert_array_equal(found.gaps, found.mutual_information[0] / found.entropy)


def test_information_does_not_depend_on_units():
    """Nor do bins of codes that are constant, far from 0, or as far apart as numbers are."""
    factors = known(500)
    codes = factors + 0.3 * np.random.default_rng(0).normal(size=factors.shape)
    expected = mutual_information_gap(codes, factors).mutual_information
    for scale in (2.0**-1000, 2.0**70, 2.0**1000):
        got = mutual_information_gap(scale * codes, factors).mutual_information
        np.testing.assert_array_equal(got, expected)
    bits = factors % 2
    assert mutual_information_gap(5e-324 * bits, bits).score > 0.99
    for code in (1e20 + 16384.0 * bits, np.where(bits, 1.7e308, -1.7e308)):
        ours, theirs = (m.mutual_information_gap(code, bits).gaps for m in (fastelbo, reference))
        assert ours.min() > 0.99
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert mutual_information_gap(np.full((500, 1), 1e20), factors).score == 0


def test_names_of_values_do_not_matter():
    codes, factors = noise(300), known(300)
    names = np.array([7.5, -2.0, 100.0, 0.25])[factors]
    for ours, theirs in zip(
        mutual_information_gap(codes, factors), mutual_information_gap(codes, names), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    constant = np.zeros((300, 1))
    assert reference.mutual_information_gap(constant, factors).score == pytest.approx(0, abs=1e-12)
    assert mutual_information_gap(constant, factors).score == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bins", [3, 7, 10, 49])
def test_codes_on_the_edges_of_bins(bins):
    """Whole numbers, of which rounding decides: kernel and specification put them alike."""
    codes = np.random.default_rng(0).integers(0, bins + 1, (300, 2)) * 0.1
    factors = np.arange(300)[:, None] % 4
    for ours, theirs in zip(
        mutual_information_gap(codes, factors, bins=bins),
        reference.mutual_information_gap(codes, factors, bins=bins),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_errors():
    codes = np.zeros((4, 2))
    factors = np.array([[0, 1], [1, 0], [0, 0], [1, 1]])
    for given, options, named in (
        ((codes[0], factors), {}, "codes has shape"),
        ((codes[:0], factors), {}, "codes is empty"),
        ((codes, factors[:3]), {}, "factors has shape"),
        ((codes, factors * [1, 0]), {}, r"factors\[:, 1\] has the one value 0"),
        ((codes + np.nan, factors), {}, "codes contains NaN"),
        ((codes, factors), {"bins": 0}, "bins"),
        ((codes, factors), {"samples": 0}, "samples"),
        ((codes, factors), {"estimator": "exact"}, "estimator"),
        ((codes, factors), {"logvar": codes}, "logvar is given"),
        ((codes, factors), {"estimator": "density"}, "logvar is None"),
        ((codes, factors), {"estimator": "density", "logvar": codes[:1]}, "logvar has shape"),
    ):
        with pytest.raises(ValueError, match=named):
            mutual_information_gap(*given, **options)
    for text in (codes.astype(str), codes.astype(bytes)):
        with pytest.raises(ValueError, match="codes must hold real numbers"):
            mutual_information_gap(text, factors)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_logvar_that_is_not_finite_is_refused(wrong):
    codes, logvar = np.eye(2), np.array([[0.0, 0.0], [0.0, wrong]])
    with pytest.raises(ValueError, match="logvar contains NaN or infinity"):
        mutual_information_gap(
            codes, [[0], [1]], estimator="density", logvar=logvar, samples=4, rng=0
        )
