"""Sparse CSR tensors of counts in fastelbo.torch: as dense ones, kernels and composites."""

import warnings

import numpy as np
import pytest

from tests.test_sparse import LIKELIHOODS as OWN
from tests.test_sparse import problem

torch = pytest.importorskip("torch")
ft = pytest.importorskip("fastelbo.torch")

LIKELIHOODS = [
    ft.NegativeBinomial(),
    ft.NegativeBinomial(theta=0.7),
    ft.ZeroInflatedNegativeBinomial(),
    ft.Poisson(),
    ft.Poisson(log_input=False),
]
each = pytest.mark.parametrize("i", range(len(OWN)), ids=map(repr, LIKELIHOODS))


def as_csr(x):
    with warnings.catch_warnings():  # PyTorch's own: that its sparse tensors are in beta state
        warnings.simplefilter("ignore")
        return x.to_sparse_csr()


def draw(i, dtype, shape=(6, 700)):
    """x, x in CSR format, and parameters that require gradients."""
    x, parameters = problem(OWN[i], shape, dtype, 0.2)
    x = torch.from_numpy(x)
    return x, as_csr(x), [torch.from_numpy(p).requires_grad_() for p in parameters]


def value_and_grad(function, leaves):
    value = function()
    return value.detach(), torch.autograd.grad(value.sum(), leaves)


def assert_equal(got, expected, rtol=0.0):
    torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)


@each
def test_likelihoods(i, dtype):
    likelihood = LIKELIHOODS[i]
    x, csr, parameters = draw(i, dtype)
    for reduction in ("mean", "sum", "none", "elementwise"):
        for mask in (None, torch.rand(x.shape) < 0.7):
            options = {"mask": mask, "reduction": reduction}
            expected, got = (
                value_and_grad(lambda: likelihood.log_prob(a, *parameters, **options), parameters)  # noqa: B023
                for a in (x, csr)
            )
            assert_equal(got[0], expected[0], 1e-6 if dtype == np.float32 else 1e-13)
            assert_equal(got[1], expected[1])
    with torch.no_grad():
        assert_equal(
            likelihood.log_prob(csr, *parameters), likelihood.log_prob(x, *parameters), 1e-6
        )


@each
def test_elbo_and_its_loss(i, dtype):
    likelihood = LIKELIHOODS[i]
    x, csr, parameters = draw(i, dtype)
    mu, logvar = torch.randn(2, 6, 3, dtype=parameters[0].dtype)
    mu.requires_grad_(), logvar.requires_grad_()
    leaves, outputs = [mu, logvar, *parameters], tuple(parameters)
    loss = ft.ElboLoss(likelihood)
    bounds = [
        lambda a: ft.elbo(a, mu, logvar, outputs, likelihood=likelihood).elbo,
        lambda a: ft.elbo(a, mu, logvar, outputs, likelihood=likelihood, reduction="none").elbo,
        lambda a: loss(a, mu, logvar, outputs),
    ]
    for bound in bounds:
        expected, got = (value_and_grad(lambda: bound(a), leaves) for a in (x, csr))  # noqa: B023
        assert_equal(got[0], expected[0], 1e-6 if dtype == np.float32 else 1e-13)
        assert_equal(got[1], expected[1])


@each
def test_composites(i, composite):
    """Where no kernel serves, x is made dense."""
    likelihood = LIKELIHOODS[i]
    _, csr, parameters = draw(i, np.float64)
    expected = value_and_grad(lambda: likelihood.log_prob(csr, *parameters), parameters)
    composite()
    got = value_and_grad(lambda: likelihood.log_prob(csr, *parameters), parameters)
    assert_equal(got[0], expected[0], 1e-12)
    assert_equal(got[1], expected[1], 1e-10)


def test_torch_compile():
    """The graph breaks there, and the kernels read x as ever; PyTorch refuses a whole graph."""
    _, csr, parameters = draw(1, np.float64)

    def mean(x, *outputs):
        return LIKELIHOODS[1].log_prob(x, *outputs)

    torch.compiler.reset()
    whole = torch.compile(mean, fullgraph=True, backend="aot_eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="does not support sparse Tensors"):
        whole(csr, *parameters)
    expected, got = (
        value_and_grad(lambda: function(csr, *parameters), parameters)  # noqa: B023
        for function in (mean, torch.compile(mean, backend="aot_eager"))
    )
    assert_equal(got, expected)


def test_a_theta_that_is_learned():
    x, csr, (mean, _) = draw(0, np.float64)
    theta = torch.nn.Parameter(torch.full((700,), 2.0, dtype=torch.float64))
    likelihood = ft.NegativeBinomial(theta=theta)
    expected, got = (
        value_and_grad(lambda: likelihood.log_prob(a, mean), [mean, theta])  # noqa: B023
        for a in (x, csr)
    )
    assert_equal(got, expected)


def test_dtypes_of_x():
    likelihood = ft.Poisson()
    x, _, (rate,) = draw(3, np.float64)
    for kind in (torch.int64, torch.int32, torch.uint8, torch.float32, torch.float64):
        given = x.to(kind)
        expected = likelihood.log_prob(given, rate, reduction="none")
        assert_equal(likelihood.log_prob(as_csr(given), rate, reduction="none"), expected, 1e-13)
    half, few = as_csr(x.half()), rate.half()
    assert likelihood.log_prob(half, few).dtype == torch.float16


def test_what_does_not_read_it(composite):
    x = torch.ones(2, 7)
    csr = as_csr(x)
    mu = torch.zeros(2, 3)
    for forced in (False, True):
        if forced:
            composite()
        for call in (
            lambda: ft.Bernoulli().log_prob(csr, x),
            lambda: ft.elbo(csr, mu, mu, x),
            lambda: ft.iwae(csr, mu[None], mu, mu, x[None]),
        ):
            with pytest.raises(TypeError, match=r"x is a sparse matrix: pass x.toarray\(\)"):
                call()
    for name, call in {
        "x": lambda: ft.Poisson().log_prob(x.to_sparse(), x),
        "mu": lambda: ft.elbo(x, as_csr(mu), mu, x),
        "parameters": lambda: ft.Poisson().log_prob(x, csr),
    }.items():
        with pytest.raises(TypeError, match=rf"{name} has the layout torch\.sparse"):
            call()


def test_columns_outside():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"size": (2, 4), "check_invariants": False}
        parts = torch.tensor([0, 1, 2]), torch.tensor([0, 4]), torch.ones(2)
        csr = torch.sparse_csr_tensor(*parts, **options)
    with pytest.raises(ValueError, match=r"x.indices\[1\] = 4, in row 1"):
        ft.Poisson().log_prob(csr, torch.zeros(2, 4))
