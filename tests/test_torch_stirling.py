"""fastelbo.torch's log-densities of gamma functions where lgamma has no digits left: in float32."""

import numpy as np
import pytest

import fastelbo
from fastelbo.reference import log_minus_digamma
from tests.torch_cases import torch

ft = pytest.importorskip("fastelbo.torch")
tensors_of = pytest.importorskip("fastelbo.torch._tensors")

SIZES = np.array([1e-3, 0.1, 0.7, 1, 2.9, 3.1, 20, 1e3, 1e5, 1e6, 1e7, 1e8])
COUNTS = np.array([0, 1, 2, 3, 4, 12, 100, 1e3, 1e6, 1e8])
LOGITS = np.array([-3.0, 0.0, 3.0])
MORE_LOGITS = np.array([-200.0, -30, -1, 0, 1e-3, 5, 13.8])


@pytest.fixture(autouse=True)
def composite(monkeypatch):
    monkeypatch.setattr(tensors_of, "always_composite", True)


def fall(a, x):
    """Of log - digamma, from a to a + x."""
    return log_minus_digamma(a) - log_minus_digamma(a + x)


def theta_terms(x, mean, theta, *rest):
    return 0.0, 2 * fall(theta, x), *(0.0 for _ in rest)


def digamma_terms(n):
    def rise(a, x):
        return np.log1p(x / a) + fall(a, x)

    def terms(x, alpha, beta):
        both = rise(alpha + beta, n)
        return rise(alpha, x) + both, rise(beta, n - x) + both

    return terms


def student_terms(x, x_recon, log_scale, log_df):
    squared, df = (x * np.exp(-log_scale)) ** 2, np.exp(log_df)
    u = squared / df
    return 0.0, 1.0, np.minimum(1 / df, 1) + u * (1 + squared) / (1 + u)


#: Likelihoods, axes of the grid of x and parameters, sizes of the terms of the derivatives.
GRIDS = {
    "NegativeBinomial()": ((COUNTS, SIZES, SIZES), theta_terms),
    "NegativeBinomial(1e8)": ((COUNTS, SIZES), lambda x, mean: (0.0,)),
    "NegativeBinomial(float('inf'))": ((COUNTS, SIZES), lambda x, mean: (0.0,)),
    "ZeroInflatedNegativeBinomial()": ((COUNTS, SIZES, SIZES, LOGITS), theta_terms),
    "Poisson()": (
        (COUNTS, np.array([-200.0, -30, 0, 1, 5, 13.8, 18.4])),
        lambda x, log_rate: (x + np.exp(log_rate),),
    ),
    "Poisson(log_input=False)": ((COUNTS, SIZES), lambda x, rate: (x / rate + 1,)),
    "Binomial(12)": (
        (COUNTS[:6], MORE_LOGITS),
        lambda x, logits: (np.where(logits < 0, x, 12 - x),),
    ),
    "Binomial(1e6)": (
        (COUNTS[:-1], MORE_LOGITS),
        lambda x, logits: (np.where(logits < 0, x, 1e6 - x),),
    ),
    "BetaBinomial(12)": ((COUNTS[:6], SIZES, SIZES), digamma_terms(12)),
    "BetaBinomial(1e6)": ((COUNTS[:-1], SIZES, SIZES), digamma_terms(1e6)),
    "StudentT('learned', 'learned')": (
        (
            np.array([0, 1e-3, 0.1, 1, 3, 30, 1000]),
            np.zeros(1),
            np.array([-1.0, 0, 2]),
            np.log(SIZES),
        ),
        student_terms,
    ),
}


@pytest.mark.parametrize("likelihood", GRIDS)
def test_values_and_gradients_in_float32(likelihood):
    axes, terms = GRIDS[likelihood]
    columns = [a.reshape(-1, 1).astype(np.float32) for a in np.meshgrid(*axes, indexing="ij")]
    x, *parameters = (torch.from_numpy(c) for c in columns)
    leaves = [p.requires_grad_() for p in parameters]
    values = eval(likelihood, {**vars(ft)}).log_prob(x, *leaves, reduction="none")
    slopes = torch.autograd.grad(values.sum(), leaves)
    exact = [c.astype(np.float64) for c in columns]
    kernels = eval(likelihood, {**vars(fastelbo)})
    expected, expected_slopes = kernels.log_prob_and_grad(*exact, reduction="none")
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs, size in zip(slopes, expected_slopes, terms(*exact), strict=True):
        error = np.abs(mine.numpy().astype(np.float64) - theirs)
        bound = 1e-5 * (np.abs(theirs) + size) + np.finfo(np.float32).tiny
        worst = np.argmax(error / bound)
        assert error[worst] <= bound[worst], [float(c[worst, 0]) for c in columns]


def test_the_edge_of_the_domain():
    """A mean of zero, and probabilities beyond float32."""
    zero = torch.zeros(1, 1, requires_grad=True)
    x = torch.tensor([[0.0]])
    for likelihood, slope in [
        (ft.NegativeBinomial(2.0), -1.0),
        (ft.NegativeBinomial(float("inf")), -1.0),
        (ft.Poisson(log_input=False), -1.0),
    ]:
        value = likelihood.log_prob(x, zero)
        assert value.item() == 0
        assert torch.autograd.grad(value, zero)[0].item() == slope
    assert ft.NegativeBinomial(2.0).log_prob(x + 3, zero).item() == -np.inf
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    value = ft.Binomial(4).log_prob(torch.tensor([[0.0, 4.0]]), logits)
    assert value.item() == 0
    assert not torch.autograd.grad(value, logits)[0].any()


DENSITIES = [
    (ft.NegativeBinomial(validate=False), 2),
    (ft.ZeroInflatedNegativeBinomial(validate=False), 3),
    (ft.Poisson(validate=False), 1),
    (ft.Poisson(log_input=False, validate=False), 1),
    (ft.Binomial(9, validate=False), 1),
    (ft.BetaBinomial(9, validate=False), 2),
    (ft.StudentT("learned", "learned"), 3),
]


def fractions(count):
    """Data of no whole numbers, which have a derivative by x, and parameters one a feature."""
    generator = torch.Generator().manual_seed(3)
    draw = {"generator": generator, "dtype": torch.float64}
    x = 6 * torch.rand(2, 3, **draw) + 0.5
    first, *rest = (torch.rand(3, **draw) + 0.5 for _ in range(count))
    tensors = (x, first.expand(2, 3).clone(), *rest)
    return tuple(t.requires_grad_() for t in tensors)


@pytest.mark.parametrize(("likelihood", "count"), DENSITIES, ids=str)
def test_derivatives_by_data_and_second_ones(likelihood, count):
    """Kernels have neither."""
    tensors = fractions(count)
    assert torch.autograd.gradcheck(likelihood.log_prob, tensors)
    constant = (tensors[0].detach(), *tensors[1:])
    assert torch.autograd.gradgradcheck(likelihood.log_prob, constant)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore::FutureWarning:torch")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize(("likelihood", "count"), DENSITIES, ids=str)
def test_one_graph(likelihood, count):
    torch._dynamo.reset()
    tensors = fractions(count)
    compiled = torch.compile(likelihood.log_prob, fullgraph=True, backend="aot_eager")
    values = [f(*tensors) for f in (likelihood.log_prob, compiled)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(v, tensors) for v in values))
