"""Composites of fastelbo.torch at limits: values by mpmath, or worked by hand."""

from math import exp, inf, log, pi

import pytest

from tests.torch_cases import torch

ft = pytest.importorskip("fastelbo.torch")

HALF_LOG_2PI = 0.5 * log(2 * pi)
LEARNED = ft.StudentT("learned", "learned")
BLACK_OR_WHITE = ft.DiscretizedLogistic(bins=2)  # the edge lies at 0
SINGLE, DOUBLE = torch.float32, torch.float64
#: (likelihood, dtype, x, parameters, value, gradients, None where they are not tried)
LIMITS = [
    (ft.ContinuousBernoulli(), SINGLE, 0.25, (0.0,), 0.0, (-0.25,)),
    (ft.ContinuousBernoulli(), SINGLE, 0.25, (inf,), -inf, (-0.75,)),
    (ft.ContinuousBernoulli(), SINGLE, 0.25, (-inf,), -inf, (0.25,)),
    (ft.Bernoulli(), SINGLE, 1.0, (inf,), 0.0, (0.0,)),
    (ft.Bernoulli(), SINGLE, 0.0, (-inf,), 0.0, (0.0,)),
    (ft.Bernoulli(), SINGLE, 1.0, (-inf,), -inf, (1.0,)),
    (ft.Bernoulli(), SINGLE, 0.0, (-17.0,), -4.1399377e-8, (-4.1399376e-8,)),
    (ft.Bernoulli(probs=True), SINGLE, 1.0, (1.0,), 0.0, (1.0,)),
    (ft.Bernoulli(probs=True), SINGLE, 0.0, (0.0,), 0.0, (-1.0,)),
    (ft.Bernoulli(probs=True), SINGLE, 0.0, (1.0,), -inf, (-inf,)),
    (ft.Bernoulli(probs=True), SINGLE, 1.0, (1e-30,), -30 * log(10), (1e30,)),
    (ft.Gaussian("learned"), SINGLE, 0.0, (0.0, -89.0), 89 - HALF_LOG_2PI, (0.0, -1.0)),
    (ft.Gaussian(1e-45), SINGLE, 0.0, (0.0,), 45 * log(10) - HALF_LOG_2PI, (0.0,)),
    (ft.Gaussian("learned"), SINGLE, 1.0, (0.0, -inf), -inf, None),
    (ft.Laplace("learned"), SINGLE, 0.0, (0.0, -89.0), 89 - log(2), (0.0, -1.0)),
    (LEARNED, SINGLE, 0.0, (0.0, -89.0, 0.0), 89 - log(pi), None),
    (LEARNED, SINGLE, 1e3, (0.0, 0.0, 0.0), -14.960241, (1.999998e-3, 0.999998, -5.7146096)),
    (LEARNED, SINGLE, 1e5, (0.0, 0.0, 0.0), -24.170581, (2e-5, 1.0, -10.319779)),
    (LEARNED, SINGLE, 3.0, (0.0, -3.0, -4.0), -5.916021, (0.339437, 0.0183105, 0.88503)),
    (LEARNED, SINGLE, 1e18, (0.0, -3.0, 0.0), -87.037793, None),
    (LEARNED, SINGLE, 1e30, (0.0, 0.0, 0.0), -log(pi) - 60 * log(10), None),
    (LEARNED, SINGLE, 2.0, (0.0, 0.0, -1e3), -1e3 - 2 * log(2), (0.5, 0.0, 1.0)),
    (LEARNED, DOUBLE, 2.0, (0.0, 0.0, -1e3), -1e3 - 2 * log(2), (0.5, 0.0, 1.0)),
    (LEARNED, DOUBLE, 0.0, (0.0, 0.0, -1e3), -500 - log(2), (0.0, -1.0, 0.5)),
    (ft.StudentT(1e300), DOUBLE, 2.0, (0.0,), -2 - HALF_LOG_2PI, (2.0,)),
    (ft.Poisson(), SINGLE, 0.0, (-inf,), 0.0, (0.0,)),
    (ft.Poisson(), SINGLE, 2.0, (-inf,), -inf, (2.0,)),
    (ft.Poisson(), SINGLE, 2.0, (inf,), -inf, (-inf,)),
    (ft.Poisson(log_input=False), SINGLE, 2.0, (inf,), -inf, (-1.0,)),
    (ft.Poisson(log_input=False), SINGLE, 2.0, (0.0,), -inf, (inf,)),
    (ft.NegativeBinomial(), DOUBLE, 1.0, (1e-101, 1e12), -232.561094392399, None),
    (ft.NegativeBinomial(), DOUBLE, 1.0, (5e-324, 1.0), -744.440071921381, None),
    (ft.NegativeBinomial(), DOUBLE, 1.0, (1e40, 1e40), -1e40 * log(2), (-0.5, 0.5 - log(2))),
    (ft.NegativeBinomial(), DOUBLE, 0.0, (1.0, 5e-324), 0.0, None),
    (ft.NegativeBinomial(), SINGLE, 1.0, (1e-8, 1.0), -18.420681, (1e8, 1e-8)),
    (ft.BetaBinomial(2e7), SINGLE, 1e7, (1e7, 1e7), -8.977986, (1.25e-8, 1.25e-8)),
    (ft.BetaBinomial(4), DOUBLE, 1.0, (1e40, 1e40), log(0.25), (-1e-40, 1e-40)),
    (ft.DiscretizedLogistic(), SINGLE, 1.0, (0.0, 1e3), log(0.5 / 255) - 1e3, (0.0, -1.0)),
    (BLACK_OR_WHITE, SINGLE, 0.0, (2**-20, -90.0), -(2**-20) * exp(90), (-inf, 2**-20 * exp(90))),
    (BLACK_OR_WHITE, SINGLE, 0.0, (1.0, -100.0), -inf, (-inf, inf)),
    (BLACK_OR_WHITE, SINGLE, 1.0, (1.0, -100.0), 0.0, (0.0, 0.0)),
    (ft.Laplace("learned"), SINGLE, 1e-6, (0.0, -90.0), -1e-6 * exp(90), (inf, 1e-6 * exp(90))),
    (ft.Binomial(2), SINGLE, 2.0, (inf,), 0.0, (0.0,)),
    (ft.Binomial(2), SINGLE, 0.0, (inf,), -inf, (-2.0,)),
]


@pytest.mark.parametrize(("likelihood", "dtype", "x", "given", "value", "gradients"), LIMITS)
def test_limits_of_likelihoods(likelihood, dtype, x, given, value, gradients, composite):
    composite()
    parameters = [torch.full((1, 1), p, dtype=dtype, requires_grad=True) for p in given]
    got = likelihood.log_prob(torch.full((1, 1), x, dtype=dtype), *parameters)
    close = {"rel": 1e-6, "abs": 1e-300}
    assert got.item() == pytest.approx(value, **close)
    slopes = torch.autograd.grad(got, parameters)
    assert not any(slope.isnan() for slope in slopes)
    if gradients is not None:
        assert [s.item() for s in slopes] == pytest.approx(gradients, **close)


def test_divergences_whose_inverse_variance_overflows(composite):
    composite()
    one, low = torch.ones(1, 1), torch.full((1, 1), -90.0)
    inputs = [t.requires_grad_() for t in (one, low)]
    kl = ft.kl_normal(one, low, one, low)
    assert kl == 0
    assert torch.autograd.grad(kl, inputs) == (0, 0)
    empty = torch.full((1, 1), -inf)
    assert ft.kl_standard_normal(one, empty) == inf


def test_a_component_without_a_width(composite):
    composite()
    z = torch.ones(1, 1, requires_grad=True)
    logvar = torch.tensor([[-inf], [0.0]], requires_grad=True)
    value = ft.mixture_log_prob(z, torch.zeros(2, 1), logvar, torch.zeros(2))
    assert value.item() == pytest.approx(-0.5 - HALF_LOG_2PI)
    d_z, d_logvar = torch.autograd.grad(value, (z, logvar))
    assert (d_z.item(), d_logvar.tolist()) == (-1.0, [[0.0], [0.0]])


def test_shares_of_components_add_up_far_from_all_of_them(composite):
    """Logarithms of thousands have few digits in float32; gradients are of their differences."""
    composite()
    z = torch.full((1, 1), 88.0, requires_grad=True)
    zeros = torch.zeros(2, 1)
    value = ft.mixture_log_prob(z, zeros, zeros, torch.zeros(2))
    assert torch.autograd.grad(value, z)[0].item() == pytest.approx(-88, rel=1e-6)
    mixture = ft.DiscretizedLogisticMixture()
    logits, means = (torch.zeros(1, 2, 1, requires_grad=True) for _ in range(2))
    value = mixture.log_prob(torch.full((1, 1), 255), logits, means, torch.full((1, 2, 1), -8.0))
    by_logits, by_means = torch.autograd.grad(value, (logits, means))
    assert value < -1000
    assert by_logits.tolist() == [[[0.0], [0.0]]]
    assert by_means.sum().item() == pytest.approx(exp(8), rel=1e-5)
    z = torch.full((2, 1), 88.0, requires_grad=True)
    parts = ft.total_correlation(z, zeros, zeros, dataset_size=2)
    assert torch.autograd.grad(sum(parts), z)[0].flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_a_weight_of_zero_leaves_nothing_of_an_infinite_kl(forced, composite):
    """Nor of its gradients; what lies beside it counts."""
    if forced:
        composite()
    x, x_recon = torch.ones(2, 1), torch.zeros(2, 1, requires_grad=True)
    latents = [torch.tensor([[value], [1.0]], requires_grad=True) for value in (inf, 800.0)]
    modalities = {"x": (x, "squared_error", x_recon)}
    for bound in (
        ft.elbo(x, *latents, x_recon, beta=0),
        ft.multimodal_elbo(modalities, *latents, beta=0.0),
    ):
        assert (bound.elbo, bound.kl) == (-1, inf)
        slopes = torch.autograd.grad(bound.elbo, (*latents, x_recon))
        assert [slope.flatten().tolist() for slope in slopes] == [[0, 0], [0, 0], [1, 1]]
