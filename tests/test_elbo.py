"""elbo and elbo_and_grad."""

import numpy as np
import pytest

import fastelbo
from fastelbo import Bernoulli, FreeBits, Gaussian, SquaredError, elbo, elbo_and_grad, reference
from fastelbo._catalogue import REDUCTIONS, VARIANTS, flatten
from fastelbo._catalogue.elbo import elbo_cases
from tests.conftest import DTYPES, assert_close, together

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


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("label", "free_bits"), KINDS, ids=str)
@together(masked=[False, True], dtype=DTYPES)
def test_is_its_parts(label, free_bits, reduction, masked, dtype):
    """reconstruction, kl and z are, bit for bit, those of the functions for each alone."""
    for beta, sizes in [(0.7, (65, (7,), 20)), (0.0, (130, (7,), 33)), (4.0, (2, (7,), 600))]:
        x, mu, logvar, *outputs, eps = draw(label, dtype, *sizes).values()
        mask = np.random.default_rng(1).random(x.shape) < 0.7 if masked else None
        spoilt = np.where(mask, x, np.nan).astype(dtype) if masked else x
        options = {"reduction": reduction, "free_bits": free_bits}
        given = {"beta": beta, "mask": mask, **options}
        function = CASES[f"elbo[{label}]_and_grad"]
        result, grad = function.public(spoilt, mu, logvar, *outputs, eps, **given)
        likelihood = VARIANTS[label].make(fastelbo)
        alone, by_outputs = likelihood.log_prob_and_grad(
            VARIANTS[label].given(x), *outputs, reduction=reduction, mask=mask
        )
        np.testing.assert_array_equal(result.reconstruction, alone)
        kl, by_latents = fastelbo.kl_standard_normal_and_grad(mu, logvar, **options)
        np.testing.assert_array_equal(result.kl, kl)
        np.testing.assert_array_equal(result.elbo, alone - beta * kl)
        np.testing.assert_array_equal(result.z, fastelbo.reparameterize(mu, logvar, noise=eps))
        last = grad.x_recon if isinstance(grad.x_recon, tuple) else (grad.x_recon,)
        for mine, theirs in zip(last, by_outputs, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        for mine, theirs in zip(grad[:2], by_latents, strict=True):
            assert_close(mine, -beta * theirs.astype(np.float64), dtype)
        value = CASES[f"elbo[{label}]"].public(spoilt, mu, logvar, *outputs, eps, **given)
        for a, b in zip(value, result, strict=True):
            np.testing.assert_array_equal(a, b)


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
        ((A, Z, Z, A), {"likelihood": "mse"}, ValueError, "likelihood"),
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
        ((A, Z, Z, A), {"reduction": None}, TypeError, "reduction"),
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
