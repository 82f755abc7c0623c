"""elbo and elbo_and_grad."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastelbo
from fastelbo import Bernoulli, FreeBits, Gaussian, SquaredError, elbo, elbo_and_grad, reference
from fastelbo._catalogue import REDUCTIONS, VARIANTS, flatten
from fastelbo._catalogue.elbo import IN_ELBO, elbo_cases
from tests.cases import any_array, check
from tests.conftest import assert_close, numerical_gradient

#: With every likelihood, by name.
CASES = {case.name: case for variant in VARIANTS.values() for case in elbo_cases(variant)}
LABELS = list(VARIANTS)
FREE_BITS = [
    0.3,
    FreeBits(0.3, below="zero"),
    FreeBits(0.3, granularity="sample"),
    FreeBits(2.0, granularity="total"),
]
#: Every likelihood, and every kind of free bits.
KINDS = [*((label, 0.0) for label in LABELS), *(("Gaussian-learned", f) for f in FREE_BITS)]


def draw(label, dtype, batch=5, event=(7,), latent=3, seed=0):
    function = CASES[f"elbo[{label}]"]
    return function.draw(seed, dtype, B=batch, D=event, L=latent)


@pytest.mark.parametrize("label", LABELS)
def test_every_likelihood(label, dtype):
    for reduction in REDUCTIONS:
        for suffix in ("", "_and_grad"):
            check(
                CASES[f"elbo[{label}]{suffix}"], draw(label, dtype, 65), dtype, reduction=reduction
            )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label", LABELS)
def test_mask(label, reduction, dtype):
    """What is missing counts zero, whatever stands there."""
    row = VARIANTS[label]
    drawn = draw(label, dtype, 65)
    x, mu, logvar, *outputs, noise = drawn.values()
    mask = np.random.default_rng(1).random(x.shape) < 0.7
    outputs = tuple(outputs) if len(outputs) > 1 else outputs[0]
    options = {"mask": mask, "noise": noise, "reduction": reduction}
    arrays = mu, logvar, outputs
    expected = reference.elbo_and_grad(x, *arrays, likelihood=row.make(reference), **options)
    spoilt = np.where(mask, x, np.nan).astype(dtype)
    got = fastelbo.elbo_and_grad(spoilt, *arrays, likelihood=row.make(fastelbo), **options)
    scales = CASES[f"elbo[{label}]_and_grad"].scales(drawn.values(), reduction=reduction)
    assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, tuple(scales))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label", IN_ELBO)
@pytest.mark.parametrize("beta", [0.0, 0.25, 4.0, -1.0])
def test_beta(beta, label, reduction, dtype):
    check(
        CASES[f"elbo[{label}]_and_grad"], draw(label, dtype), dtype, reduction=reduction, beta=beta
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("free_bits", FREE_BITS, ids=str)
@pytest.mark.parametrize("label", ["SquaredError", "Bernoulli", "Gaussian-learned"])
@pytest.mark.parametrize("shape", [(5, (7,), 3), (130, (40,), 33), (2, (5,), 600)])
def test_free_bits(shape, label, free_bits, reduction, dtype):
    options = {"reduction": reduction, "free_bits": free_bits, "beta": 0.5}
    for suffix in ("", "_and_grad"):
        check(CASES[f"elbo[{label}]{suffix}"], draw(label, dtype, *shape), dtype, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("label", "free_bits"), KINDS, ids=str)
def test_is_its_parts(label, free_bits, reduction, dtype):
    """reconstruction, kl and z are, bit for bit, those of the functions for each alone."""
    arrays = list(draw(label, dtype, 65, (7,), 20).values())
    x, mu, logvar, *outputs, eps = arrays
    function = CASES[f"elbo[{label}]_and_grad"]
    options = {"reduction": reduction, "free_bits": free_bits}
    result, grad = function.public(*arrays, beta=0.7, **options)
    row = VARIANTS[label]
    likelihood = row.make(fastelbo)
    alone, by_outputs = likelihood.log_prob_and_grad(x, *outputs, reduction=reduction)
    np.testing.assert_array_equal(result.reconstruction, alone)
    kl, by_latents = fastelbo.kl_standard_normal_and_grad(mu, logvar, **options)
    np.testing.assert_array_equal(result.kl, kl)
    np.testing.assert_array_equal(result.elbo, alone - 0.7 * kl)
    np.testing.assert_array_equal(result.z, fastelbo.reparameterize(mu, logvar, noise=eps))
    last = grad.x_recon if isinstance(grad.x_recon, tuple) else (grad.x_recon,)
    for mine, theirs in zip(last, by_outputs, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(grad[:2], by_latents, strict=True):
        assert_close(mine, -0.7 * theirs.astype(np.float64), dtype)
    value = CASES[f"elbo[{label}]"].public(*arrays, beta=0.7, **options)
    for a, b in zip(value, result, strict=True):
        np.testing.assert_array_equal(a, b)


def test_plain_formula(dtype):
    """The eight lines of NumPy that it stands for."""
    arrays = draw("SquaredError", np.float64, 128, (784,), 20)
    x, mu, logvar, x_recon, _ = (a.astype(dtype) for a in arrays.values())
    wide = [a.astype(np.float64) for a in (x, mu, logvar, x_recon)]
    x_, mu_, logvar_, x_recon_ = wide
    reconstruction = -np.mean(np.sum((x_ - x_recon_) ** 2, 1))
    kl = -0.5 * np.mean(np.sum(1 + logvar_ - mu_**2 - np.exp(logvar_), 1))
    assert_close(elbo(x, mu, logvar, x_recon).elbo, reconstruction - kl, dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("label", "free_bits"), KINDS, ids=str)
def test_central_differences(label, free_bits, reduction):
    arrays = list(draw(label, np.float64, 3, (7,), 2).values())
    public = CASES[f"elbo[{label}]"].public
    options = {"reduction": reduction, "free_bits": free_bits, "beta": 1.5}
    _, grads = CASES[f"elbo[{label}]_and_grad"].public(*arrays, **options)
    for i, grad in enumerate(flatten(tuple(grads)), start=1):

        def value(a, i=i):
            return public(*arrays[:i], a, *arrays[i + 1 :], **options).elbo

        np.testing.assert_allclose(grad, numerical_gradient(value, arrays[i]), rtol=1e-7, atol=1e-7)


def test_z_only_where_asked(dtype):
    x, mu, logvar, x_recon, eps = draw("SquaredError", dtype).values()
    assert elbo(x, mu, logvar, x_recon).z is None
    assert elbo_and_grad(x, mu, logvar, x_recon)[0].z is None
    for source in ({"noise": eps}, {"rng": 3}, {"rng": np.random.default_rng(1)}):
        z = elbo(x, mu, logvar, x_recon, **source).z
        assert z.shape == mu.shape
        assert z.dtype == dtype
    with pytest.raises(ValueError, match="rng or noise"):
        elbo(x, mu, logvar, x_recon, rng=1, noise=eps)


def test_key_draws_in_the_dtype_of_the_pass():
    """Of all inputs together: float64 in one of them makes the pass, and its noise, float64."""
    x, mu, logvar, x_recon, _ = draw("SquaredError", np.float32).values()
    for arrays in [(x, mu, logvar, x_recon), (x.astype(float), mu, logvar, x_recon)]:
        got = elbo(*arrays, rng=9)
        expected = reference.elbo(*arrays, rng=9)
        dtype = np.float32 if arrays[0].dtype == np.float32 else np.float64
        assert got.z.dtype == dtype
        assert_close(tuple(flatten(got)), tuple(flatten(expected)), dtype, 10.0)
    integers = elbo(np.ones(x.shape, np.uint8), mu, logvar, x_recon, rng=9)
    assert integers.z.dtype == np.float32


@pytest.mark.parametrize("x_dtype", ["u1", "i2", "?", "f2", "f4", "f8"])
@pytest.mark.parametrize("likelihood", ["SquaredError", "Gaussian", "Bernoulli"])
def test_dtypes_of_x(likelihood, x_dtype, dtype):
    rng = np.random.default_rng(4)
    _, mu, logvar, x_recon, eps = draw("SquaredError", dtype, 9, (50,), 4).values()
    x = rng.integers(0, 2, x_recon.shape).astype(x_dtype)
    got = elbo(x, mu, logvar, x_recon, likelihood=getattr(fastelbo, likelihood)(), noise=eps)
    expected = reference.elbo(
        x, mu, logvar, x_recon, likelihood=getattr(reference, likelihood)(), noise=eps
    )
    computed = np.result_type(dtype, x_dtype) if np.dtype(x_dtype).kind == "f" else dtype
    assert got.z.dtype == computed
    assert_close(got[:3], expected[:3], dtype)


def test_out(dtype):
    for label in ("SquaredError", "Gaussian-learned"):
        function = CASES[f"elbo[{label}]_and_grad"]
        arrays = draw(label, dtype)
        outs = [np.empty(s, dtype) for s in function.out_shapes(arrays).values()]
        _, expected = function.public(*arrays.values())
        _, grad = function.public(*arrays.values(), out=function.as_out(outs))
        for got, out, wanted in zip(
            flatten(tuple(grad)), outs, flatten(tuple(expected)), strict=True
        ):
            assert np.shares_memory(got, out)
            np.testing.assert_array_equal(out, wanted)
        _, grad = elbo_and_grad(*[[[1.0]]] * 4, out=(None, np.empty((1, 1)), None))
        assert grad.mu.shape == (1, 1)


def test_nan_poisons_its_own_row(dtype):
    arrays = list(draw("SquaredError", dtype, 9, (33,), 5).values())
    public = CASES["elbo[SquaredError]"].public
    clean = public(*arrays, reduction="none")
    for i in range(4):
        dirty = [a.copy() for a in arrays]
        dirty[i][4, 2] = np.nan
        result = public(*dirty, reduction="none")
        assert np.isnan(result.elbo[4])
        np.testing.assert_array_equal(np.delete(result.elbo, 4), np.delete(clean.elbo, 4))
        assert np.isnan(public(*dirty).elbo)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_values(data):
    dtype = data.draw(st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)]))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    latents = (shape[0], data.draw(st.integers(1, 9)))
    arrays = [any_array(data, dtype, s, 20) for s in (shape, latents, latents, shape, latents)]
    options = {
        "reduction": data.draw(st.sampled_from(REDUCTIONS)),
        "beta": data.draw(st.just(0.0) | st.floats(1e-9, 10)),
    }
    check(CASES["elbo[SquaredError]_and_grad"], arrays, dtype, **options)
    arrays[0] = np.minimum(np.abs(arrays[0]) / 20, 1)
    check(CASES["elbo[Bernoulli]_and_grad"], arrays, dtype, **options)


A, Z = np.zeros((2, 3)), np.zeros((2, 1))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((A, Z, Z, A.T), {}, ValueError, "x_recon"),
        ((A, Z, Z, A[0]), {}, ValueError, "x_recon"),
        ((A, Z[:1], Z[:1], A), {}, ValueError, "mu"),
        ((A, Z, Z[:1], A), {}, ValueError, "logvar"),
        ((A, Z[:, 0], Z[:, 0], A), {}, ValueError, "mu"),
        ((1.0, Z, Z, 1.0), {}, ValueError, "x has"),
        ((A[:0], Z[:0], Z[:0], A[:0]), {}, ValueError, "x has an empty batch"),
        ((A, Z, Z, A), {"likelihood": SquaredError}, TypeError, "likelihood"),
        ((A, Z, Z, A), {"likelihood": "mse"}, TypeError, "likelihood"),
        ((A, Z, Z, (A, A)), {}, TypeError, "x_recon"),
        ((A, Z, Z, A), {"likelihood": Gaussian("learned")}, TypeError, "log_scale"),
        ((A, Z, Z, (A, A.T)), {"likelihood": Gaussian("learned")}, ValueError, "log_scale"),
        ((A + 2, Z, Z, A), {"likelihood": Bernoulli()}, ValueError, r"x\[0, 0\]"),
        ((A, Z, Z, A), {"beta": "big"}, TypeError, "beta"),
        ((A, Z, Z, A), {"beta": None}, TypeError, "beta"),
        ((A, Z, Z, A), {"beta": [1.0, 2.0]}, TypeError, "beta"),
        ((A, Z, Z, A), {"free_bits": -1.0}, ValueError, "free_bits"),
        ((A, Z, Z, A), {"free_bits": "few"}, TypeError, "free_bits"),
        ((A, Z, Z, A), {"free_bits": np.ones(2)}, TypeError, "free_bits"),
        ((A, Z, Z, A), {"reduction": "median"}, ValueError, "reduction"),
        ((A, Z, Z, A), {"reduction": None}, ValueError, "reduction"),
        ((A, Z, Z, A), {"num_threads": 0}, ValueError, "num_threads"),
        ((A, Z, Z, A), {"num_threads": 1.5}, TypeError, "num_threads"),
        ((A, Z, Z, A), {"noise": A}, ValueError, "noise"),
        ((A, Z, Z, A), {"rng": "dice"}, TypeError, "rng"),
    ],
)
@pytest.mark.parametrize("function", [elbo, elbo_and_grad])
def test_errors(function, arguments, options, error, match):
    with pytest.raises(error, match=match):
        function(*arguments, **options)


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        ((None, None), TypeError, "out"),
        ([None, None, None], TypeError, "out"),
        (A, TypeError, "out"),
        ((A, None, None), ValueError, "out.mu"),
        ((None, None, Z), ValueError, "out.x_recon"),
        ((None, None, (A, A)), TypeError, "out"),
        ((None, None, A.astype(np.float32)), TypeError, "out.x_recon"),
        (([[0.0], [0.0]], None, None), TypeError, "out.mu"),
    ],
)
def test_out_errors(out, error, match):
    with pytest.raises(error, match=match):
        elbo_and_grad(A, Z, Z, A, out=out)
