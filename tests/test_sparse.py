"""Sparse counts in CSR format: as dense ones, in any shape they come in, or a clear error."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastelbo
from fastelbo import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, _arrays
from fastelbo._catalogue import OF_ELEMENTS, VARIANTS, flatten
from tests.conftest import assert_close
from tests.importance import peak_of

sparse = pytest.importorskip("scipy.sparse")

LIKELIHOODS = [
    NegativeBinomial(),
    NegativeBinomial(theta=0.7),
    ZeroInflatedNegativeBinomial(),
    Poisson(),
    Poisson(log_input=False),
]
#: Around the tiles of the kernels, and where several rows share one.
SHAPES = [(1, 1), (3, 1), (1, 7), (70, 31), (2, 513), (9, 1100), (4, 0)]


def problem(likelihood, shape, dtype, share=0.1, seed=0):
    """Dense x and parameters; theta is one a column."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 9, shape) * (rng.random(shape) < share)
    draws = {
        "log_rate": rng.normal(size=shape),
        "zero_logits": rng.normal(size=shape),
        "theta": rng.uniform(0.5, 1.5, shape[1:]),
    }
    parameters = [draws.get(name, rng.uniform(0.1, 2.1, shape)) for name in likelihood.parameters]
    return x.astype(dtype), [p.astype(dtype) for p in parameters]


def assert_as_dense(likelihood, x, csr, parameters, **options):
    """Values within rounding of sums, gradients and elements bit for bit."""
    dtype = parameters[0].dtype
    for reduction in OF_ELEMENTS:
        given = {"reduction": reduction, **options}
        expected, by = likelihood.log_prob_and_grad(x, *parameters, **given)
        got, by_csr = likelihood.log_prob_and_grad(csr, *parameters, **given)
        assert_close(got, expected, dtype)
        np.testing.assert_array_equal(likelihood.log_prob(csr, *parameters, **given), got)
        if reduction == "elementwise" or not isinstance(likelihood, Poisson):
            np.testing.assert_array_equal(got, expected)
        for mine, other in zip(by_csr, by, strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_is_as_dense(likelihood, dtype):
    for shape in SHAPES:
        for share in (0.0, 0.1, 0.7, 1.0):
            x, parameters = problem(likelihood, shape, dtype, share)
            assert_as_dense(likelihood, x, sparse.csr_array(x), parameters)
            mask = np.random.default_rng(1).random(shape) < 0.7
            assert_as_dense(likelihood, x, sparse.csr_matrix(x), parameters, mask=mask)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_of_several_samples(likelihood, dtype):
    for shape in ((1, 1), (3, 1), (5, 513)):
        x, parameters = problem(likelihood, shape, dtype, 0.3)
        several = [np.stack([p, 2 * p, 3 * p]) if p.shape == shape else p for p in parameters]
        assert_as_dense(likelihood, x, sparse.csr_array(x), several)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_any_dtype_of_entries_and_places(likelihood, dtype):
    x, parameters = problem(likelihood, (9, 700), dtype)
    for kind in ("?", "u1", "i1", "u2", "i4", "u4", "i8", "u8", "f2", "f4", ">f4", "f8", ">i2"):
        given = (x > 0 if kind == "?" else x).astype(kind)
        csr = sparse.csr_array(
            given.astype("f4") if kind == "f2" else given.astype(given.dtype.newbyteorder("="))
        )
        dense = given.astype(given.dtype.newbyteorder("="))
        for places in ("i4", "i8", "u2", ">i4"):
            parts = SimpleNamespace(
                **{part: getattr(csr, part).astype(places) for part in ("indices", "indptr")},
                data=csr.data.astype(kind),
                shape=csr.shape,
                ndim=2,
                format="csr",
                toarray=csr.toarray,
            )
            expected = likelihood.log_prob(dense, *parameters, reduction="elementwise")
            got = likelihood.log_prob(parts, *parameters, reduction="elementwise")
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_entries_in_any_order_several_of_one_place_and_zeros(likelihood, dtype):
    """What has several entries is their sum: 0 and less are parts, too. Nothing is written to."""
    x, parameters = problem(likelihood, (6, 1100), dtype)
    rng = np.random.default_rng(2)
    rows, columns = np.nonzero(rng.random(x.shape) < 0.4)  # most of them zero
    part = rng.integers(-3, 4, len(rows))
    rows, columns = np.tile(rows, 2), np.tile(columns, 2)
    values = np.concatenate([x[rows[: len(part)], columns[: len(part)]] - part, part])
    left = x.copy()
    left[rows, columns] = 0
    more = np.nonzero(left)
    rows, columns = np.append(rows, more[0]), np.append(columns, more[1])
    values = np.append(values, left[more]).astype(dtype)
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]
    indptr = np.searchsorted(rows[order], np.arange(7))
    csr = sparse.csr_array((values[order], columns[order], indptr), x.shape)
    assert not csr.has_canonical_format
    np.testing.assert_array_equal(csr.toarray(), x)
    for array in (csr.data, csr.indices, csr.indptr):
        array.flags.writeable = False
    assert_as_dense(likelihood, x, csr, parameters)
    in_order = csr.copy()
    in_order.sort_indices()  # still with several of one place
    assert_as_dense(likelihood, x, in_order, parameters)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_nan_is_missing(likelihood, dtype):
    kind = type(likelihood)
    given = {"log_input": likelihood.log_input} if kind is Poisson else {"theta": likelihood.theta}
    marked = kind(missing="nan", **given)
    x, parameters = problem(likelihood, (6, 1100), dtype, 0.4)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    assert_as_dense(marked, x, sparse.csr_array(x), parameters)
    assert np.isnan(likelihood.log_prob(sparse.csr_array(x), *parameters))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_what_is_odd(likelihood, dtype):
    """Extreme parameters, at zeros and at counts, one by one as of dense x."""
    x, parameters = problem(likelihood, (8, 600), dtype, 0.3)
    rng = np.random.default_rng(1)
    for p in parameters:
        p[rng.random(p.shape) < 0.1] = 0.0 if p.ndim == 2 else 1e-30
        p[rng.random(p.shape) < 0.05] = np.inf
    x[x == 3] = 2e6
    assert_as_dense(likelihood, x, sparse.csr_array(x), parameters)


def test_thetas_of_any_shape(dtype):
    x, (mean, _) = problem(NegativeBinomial(), (6, 70), dtype, 0.3)
    for shape in ((), (1,), (70,), (6, 1), (6, 70)):
        theta = np.random.default_rng(1).uniform(0.5, 1.5, shape).astype(dtype)
        assert_as_dense(NegativeBinomial(), x, sparse.csr_array(x), (mean, theta))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_bounds_of_it(likelihood, dtype):
    """All that takes x and a likelihood reads it, too."""
    rng = np.random.default_rng(3)
    x, parameters = problem(likelihood, (7, 513), dtype, 0.2)
    csr, mask = sparse.csr_array(x), rng.random(x.shape) < 0.8
    mu, logvar, noise = (rng.normal(size=(7, 3)).astype(dtype) for _ in range(3))
    z = rng.normal(size=(2, 7, 3)).astype(dtype)
    outputs = tuple(parameters)
    samples = tuple(np.stack([p, 2 * p]) if p.shape == x.shape else p for p in outputs)
    given = {"likelihood": likelihood, "mask": mask}
    tcvae = {"dataset_size": 70, **given}
    calls = [
        (fastelbo.elbo, (mu, logvar, outputs), {"noise": noise, "free_bits": 0.1, **given}),
        (fastelbo.elbo_and_grad, (mu, logvar, outputs), {"reduction": "none", **given}),
        (fastelbo.log_weights, (z, mu, logvar, samples), given),
        (fastelbo.iwae, (z, mu, logvar, samples), given),
        (fastelbo.iwae_and_grad, (z, mu, logvar, samples), given),
        (fastelbo.beta_tcvae_elbo, (z[0], mu, logvar, outputs), tcvae),
        (fastelbo.beta_tcvae_elbo_and_grad, (z[0], mu, logvar, outputs), tcvae),
    ]
    for function, arrays, options in calls:
        expected, got = function(x, *arrays, **options), function(csr, *arrays, **options)
        for mine, other in zip(flatten(got), flatten(expected), strict=True):
            assert_close(mine, other, dtype, np.max(np.abs(other), initial=1.0))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_nothing_is_made_dense(likelihood, dtype):
    x, parameters = problem(likelihood, (60, 3000), dtype)
    csr = sparse.csr_array(x)
    out = tuple(np.empty(p.shape, dtype) for p in parameters)
    for call in (
        lambda: likelihood.log_prob(csr, *parameters),
        lambda: likelihood.log_prob_and_grad(csr, *parameters, out=out),
    ):
        call()
        assert peak_of(call) < 3 * 8 * 3000 + 20_000  # a few rows; all would be 60


def test_threads_change_nothing():
    likelihood = NegativeBinomial()
    x, parameters = problem(likelihood, (200, 1100), np.float64)
    csr = sparse.csr_array(x)
    first = likelihood.log_prob_and_grad(csr, *parameters, num_threads=1)
    for threads in (2, 3, 7):
        again = likelihood.log_prob_and_grad(csr, *parameters, num_threads=threads)
        assert again[0] == first[0]
        for mine, other in zip(again[1], first[1], strict=True):
            np.testing.assert_array_equal(mine, other)


# Errors -----------------------------------------------------------------------------------------


def of_parts(indptr, indices, data, shape=(2, 4)):
    """What calls itself a matrix in CSR format, whatever its parts are."""
    parts = {"indptr": indptr, "indices": indices, "data": data}
    parts = {name: np.asarray(part) for name, part in parts.items()}
    return SimpleNamespace(
        format="csr", shape=shape, ndim=len(shape), toarray=lambda: np.zeros(shape), **parts
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0, 1, 2], [0, 4], [1, 1]), r"x.indices\[1\] = 4, in row 1: x has 4 columns"),
        (([0, 1, 2], [-1, 0], [1, 1]), r"x.indices\[0\] = -1, in row 0"),
        (([0, 2, 2], [2**62, 0], [1, 1]), r"x.indices\[0\] = 4611686018427387904"),
        (([0, 2, 2], [-(2**63), 2**63 - 1], [1, 1]), r"x.indices\[0\] = -9223372036854775808"),
        (([0, 3, 2], [0, 1, 2], [1, 1, 1]), r"x.indptr\[2\] = 2 is less than x.indptr\[1\] = 3"),
        (([0, -1, 2], [0, 1], [1, 1]), r"x.indptr\[1\] = -1 is less"),
        (([1, 1, 2], [0, 1], [1, 1]), r"x.indptr\[0\] = 1, expected 0"),
        (([0, 1, 9], [0, 1], [1, 1]), r"x.indptr\[2\] = 9, but x.indices has 2 elements"),
        (
            (np.array([0, 1, 2**63 + 1], np.uint64), [0, 1], [1, 1]),
            r"x.indptr\[2\] = -9223372036854775807 is less",
        ),
        (([0, 1], [0], [1]), r"x.indptr has shape \(2,\), expected \(3,\)"),
        (([0, 1, 2], [0, 1], [1]), r"x.data has shape \(1,\), expected that of x.indices"),
        (([0, 1, 2], [0.0, 1.0], [1, 1]), "x.indices must be a vector of integers"),
        (([[0, 1, 2]], [0, 1], [1, 1]), "x.indptr must be a vector of integers"),
        (([0, 1, 2], [0, 1], [1, -1]), r"x\[1, 1\] = -1 lies outside the domain"),
        (([0, 2, 2], [1, 1], [1, 0.5]), r"x\[0, 1\] = 1.5 lies outside the domain"),
    ],
)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
def test_parts_that_do_not_fit(likelihood, parts, message):
    _, parameters = problem(likelihood, (2, 4), np.float64)
    with pytest.raises(ValueError, match=message):
        likelihood.log_prob(of_parts(*parts), *parameters)


def test_types_that_do_not_fit():
    likelihood, (mean, theta) = NegativeBinomial(), (np.ones((2, 4)), 1.0)
    for data in ([1j, 1], ["a", "b"], [None, None]):
        with pytest.raises(TypeError, match=r"x\.data must hold real numbers"):
            likelihood.log_prob(of_parts([0, 1, 2], [0, 1], data), mean, theta)
    with pytest.raises(ValueError, match=r"x has shape \(2,\)"):
        likelihood.log_prob(of_parts([0, 1, 2], [0, 1], [1, 1], (2,)), mean, theta)
    with pytest.raises(ValueError, match=r"mean has shape \(2, 4\), expected that of x, \(2, 5\)"):
        likelihood.log_prob(sparse.csr_array((2, 5)), mean, theta)
    with pytest.raises(ValueError, match="empty batch"):
        likelihood.log_prob(sparse.csr_array((0, 4)), mean[:0], theta)


def test_other_formats():
    x, parameters = problem(Poisson(), (3, 4), np.float64)
    for form in ("csc", "coo", "lil", "dok", "bsr", "dia"):
        with pytest.raises(TypeError, match=rf"format '{form}': pass x.tocsr\(\)"):
            Poisson().log_prob(sparse.csr_array(x).asformat(form), *parameters)


@pytest.mark.parametrize("label", [n for n, v in VARIANTS.items() if "sparse" not in n])
def test_other_likelihoods_name_those_that_read_it(label):
    likelihood = VARIANTS[label].make(fastelbo)
    if likelihood._layout.sparse:
        assert type(likelihood).__name__ in _arrays.READS_SPARSE
        return
    csr, parameters = sparse.csr_array((2, 7)), [np.ones((2, 7))] * len(likelihood.parameters)
    with pytest.raises(TypeError, match=rf"x is .*x.toarray\(\).*{_arrays.READS_SPARSE}"):
        likelihood.log_prob(csr, *parameters)


def test_only_x_may_be_sparse():
    x, (mean, theta) = problem(NegativeBinomial(), (2, 7), np.float64)
    for name, given in (("mean", (x, sparse.csr_array(mean), theta)), ("mask", (x, mean, theta))):
        options = {"mask": sparse.csr_array(x > 0)} if name == "mask" else {}
        with pytest.raises(TypeError, match=rf"{name} is a sparse matrix: pass {name}.toarray\(\)"):
            NegativeBinomial().log_prob(*given, **options)


def test_out_may_not_be_what_it_lies_in():
    x, (mean, theta) = problem(NegativeBinomial(), (2, 7), np.float64, 1.0)
    csr = sparse.csr_array(x)
    for part in (csr.data[:14].reshape(2, 7), csr.data[:7]):
        out = (part, None) if part.ndim == 2 else (None, part)
        with pytest.raises(ValueError, match="overlaps"):
            NegativeBinomial().log_prob_and_grad(csr, mean, theta, out=out)


def test_columns_changed_meanwhile_are_not_written_elsewhere():
    """The kernels look at every column themselves: checked rows whose entries change later."""
    likelihood = NegativeBinomial()
    x, (mean, theta) = problem(likelihood, (3, 700), np.float64, 0.5)
    csr = sparse.csr_array(x)
    rows = _arrays.csr(csr.shape, csr.indptr, csr.indices, csr.data)
    rng = np.random.default_rng(0)
    for low, high in ((-(2**31), 2**31), (0, 3), (-5, 900)):
        csr.indices[:] = rng.integers(low, high, len(csr.indices))
        assert isinstance(likelihood.log_prob(rows, mean, theta), float)
