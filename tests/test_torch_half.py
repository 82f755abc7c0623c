"""bfloat16 and float16: the dtype of what is given comes back, arithmetic is in float32."""

import functools
import itertools

import numpy as np
import pytest

import fastelbo
from fastelbo._catalogue._compare import errors
from tests.conftest import together
from tests.torch_cases import CASES, each, flat, torch

ft = pytest.importorskip("fastelbo.torch")

HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
PATHS = pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
#: A kernel and a composite may round an element of their float32 to its other neighbour.
CLOSE = {"rtol": 1e-2, "atol": 1e-3}

#: The cases of which kernels read what the decoder gives, and x, as they are.
STORED = [
    case
    for case in CASES
    if case.of.halves
    and not case.draws_noise
    and "noise" not in case.of.draw(0, B=1)
    and case.options_of_it.get("beta") != 0
    and "free_bits" not in case.options_of_it
    and (case.of.likelihood is None or case.of.likelihood.make(fastelbo)._reads_halves)
]


class Conversions(torch.utils._python_dispatch.TorchDispatchMode):
    """How many numbers tensors have that were converted to another dtype meanwhile, at most."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.largest = max(self.largest, args[0].numel())
        return function(*args, **(kwargs or {}))


def results(case, tensors, **options):
    """Values, and gradients of their sum."""
    values = flat(case.call(ft, *tensors.values(), **options))
    leaves = [t for t in tensors.values() if t.requires_grad]
    return values, torch.autograd.grad(sum(v.float().sum() for v in values), leaves)


def exactly(case, half):
    """Tensors in half precision, and the same numbers in float32."""
    few = case.draw(half)
    return few, {
        name: (t.detach().float() if t.is_floating_point() else t).requires_grad_(t.requires_grad)
        for name, t in few.items()
    }


@each([case for case in CASES if not case.draws_noise], ("mean", "none"))
@together(half=[torch.float16, torch.bfloat16], forced=[False, True])
def test_arithmetic_is_in_float32(case, reduction, half, forced, composite):
    few, many = exactly(case, half)
    options = case.options(reduction)
    composite(forced)
    values, slopes = results(case, few, **options)
    expected, expected_slopes = results(case, many, **options)
    for mine, theirs in zip(values, expected, strict=True):
        assert mine.dtype == half
        torch.testing.assert_close(mine, theirs.to(half), rtol=0, atol=0, equal_nan=True)
    for mine, theirs in zip(slopes, expected_slopes, strict=True):
        assert mine.dtype == half
        torch.testing.assert_close(mine, theirs.to(half), equal_nan=True, **CLOSE)


@each(STORED)
@together(half=[torch.float16, torch.bfloat16], data=["half", "float32"])
def test_nothing_large_is_converted(case, reduction, half, data):
    """Neither what is read nor a gradient; these are float32's of the rounded inputs, rounded."""
    own = case.of.likelihood
    if own is not None and own.make(ft).couples_rows(reduction):
        return  # by PyTorch's operations, as in float32
    few = {n: t.detach() for n, t in case.draw(half, B=33, D=(1100,)).items()}
    many = {n: t.float().requires_grad_(n not in case.constants) for n, t in few.items()}
    few |= {"x": many["x"]} if data == "float32" else {}
    few = {n: t.requires_grad_(n not in case.constants) for n, t in few.items()}
    options = case.options(reduction)
    exact = flat(case.call(ft, *many.values(), **options))[0]
    with Conversions() as forward:
        value = flat(case.call(ft, *few.values(), **options))[0]
    with Conversions() as backward:
        wanted = [t for t in few.values() if t.requires_grad]
        slopes = torch.autograd.grad(value.sum(), wanted)
    assert forward.largest < few["x"].numel()
    if value.ndim == 0 or value.dtype == half:  # weights of rows in float32 are not rounded first
        assert backward.largest < few["x"].numel()
    scale = case.of.scales([t.detach().numpy() for t in many.values()], **options)[0]
    if data == "float32":
        found = errors(value.detach().numpy(), exact.detach().numpy(), np.float32, scale)
        assert (found <= 1e-6).all()
    assert value.dtype == (half if data == "half" else torch.float32)
    expected = torch.autograd.grad(exact.sum(), [t for t in many.values() if t.requires_grad])
    for mine, theirs in zip(slopes, expected, strict=True):
        assert torch.equal(mine, theirs.to(half))


@HALVES
def test_what_no_pass_reads_is_converted(half):
    """Views that are not dense, several dtypes, data that is to be differentiated, bad data."""
    x, logits, mu = torch.rand(3, 5).to(half), torch.randn(5, 3).to(half), torch.randn(3, 2)
    loss = ft.ElboLoss(ft.Bernoulli())
    exact = loss(x.float(), mu, mu, logits.T.float())
    torch.testing.assert_close(loss(x, mu, mu, logits.T), exact)
    torch.testing.assert_close(loss(x.float().double(), mu, mu, logits.T), exact.double())
    other = torch.bfloat16 if half == torch.float16 else torch.float16
    torch.testing.assert_close(
        loss(x.round().to(other), mu, mu, logits.T.contiguous()),
        loss(x.float().round(), mu, mu, logits.T.float()),
    )
    x.requires_grad_()
    (slope,) = torch.autograd.grad(ft.Bernoulli().log_prob(x, logits.T.contiguous()), x)
    assert slope.dtype == half
    torch.testing.assert_close(slope, logits.T / 3, rtol=1e-2, atol=0)
    with pytest.raises(ValueError, match=r"x\[0, 0\] = 2 lies outside"):
        loss(torch.full((3, 5), 2.0, dtype=half), mu, mu, logits.T.contiguous())
    with pytest.raises(ValueError, match="x_recon has shape"):
        ft.SquaredError().log_prob(x.detach(), logits)


@HALVES
def test_reparameterize(half):
    mu, logvar = torch.randn(2, 3, 4).to(half)
    z, kl = ft.reparameterize_kl(mu.requires_grad_(), logvar, rng=3)
    assert z.dtype == kl.dtype == half
    exact = ft.reparameterize(mu.float(), logvar.float(), rng=3)
    assert torch.equal(z, exact.to(half))
    assert torch.autograd.grad(z.sum(), mu)[0].dtype == half


@PATHS
def test_autocast_is_that_of_losses(forced, composite):
    """PyTorch's own give float32, whatever they are given."""
    x, logits = torch.rand(4, 5), torch.randn(4, 5, dtype=torch.bfloat16, requires_grad=True)
    mu, logvar = torch.randn(2, 4, 3).bfloat16()
    if forced:
        composite()
    functional = torch.nn.functional
    with torch.autocast("cpu", torch.bfloat16):
        theirs = functional.mse_loss(logits, logits * 0)
        own = [
            ft.Bernoulli().log_prob(x.bfloat16(), logits),
            ft.ElboLoss(likelihood=ft.Bernoulli())(x.bfloat16(), mu, logvar, logits),
            ft.kl_standard_normal(mu, logvar),
            ft.mmd(mu, logvar),
            ft.total_correlation(mu, mu, logvar, dataset_size=9).total_correlation,
            ft.iwae(x.bfloat16(), mu[None], mu, logvar, logits[None]),
            ft.log_weights(x.bfloat16(), mu[None], mu, logvar, logits[None]),
            ft.endpoint_velocity(mu, logvar, 0.5),
        ]
    assert {value.dtype for value in own} == {theirs.dtype} == {torch.float32}
    assert torch.autograd.grad(own[1], logits)[0].dtype == torch.bfloat16


@HALVES
def test_half_precision_beside_float32(half):
    """Of a decoder under autocast, say: any tensor, the last one, too."""
    x, mu, logvar, logits = torch.rand(4, 2, 3)
    few = logits.to(half).requires_grad_()
    for f in (
        lambda p: ft.vae_loss(p, x, mu, logvar),
        lambda p: ft.elbo(x, mu, logvar, p).elbo,
        lambda p: ft.kl_standard_normal(mu, p),
    ):
        value, expected = f(few), f(few.float())
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        assert torch.autograd.grad(value, few)[0].dtype == half


@pytest.mark.parametrize(
    "dtypes", list(itertools.product([torch.float16, torch.bfloat16], repeat=4))
)
def test_one_half_precision_beside_the_other(dtypes, composite):
    """float32 is what holds both; each is read as what it is."""
    x, mu, logvar, logits = (t.to(d) for t, d in zip(torch.rand(4, 2, 3), dtypes, strict=True))
    leaves = [t.requires_grad_() for t in (mu, logvar, logits)]
    found = []
    for _ in range(2):
        value = ft.elbo(x, *leaves).elbo
        assert value.dtype == functools.reduce(torch.promote_types, dtypes)
        found.append((value, *torch.autograd.grad(value, leaves)))
        composite()
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, **CLOSE)


@HALVES
def test_meta_tensors_have_dtypes(half):
    """Where PyTorch knows no autocast."""
    x, mu = (torch.empty(2, n, dtype=half, device="meta") for n in (3, 2))
    assert ft.elbo(x, mu, mu, x).elbo.dtype == half


@HALVES
def test_no_part_beside_float32_is_rounded(half):
    """Where all that makes a part of the bound has half precision, and other parts have not."""
    x, mu, logvar, given, noise = torch.rand(5, 2, 3)
    prior = ft.MixtureOfGaussians(mu, logvar)
    x, few = x.to(half), given.to(half).requires_grad_()
    for f in (
        lambda x, p: ft.elbo(x, mu, logvar, p, beta=0.0).elbo,
        lambda x, p: ft.elbo(x, mu, logvar, p, beta=torch.tensor(0.5)).elbo,
        lambda x, p: ft.elbo(mu, x, p, logvar, beta=torch.tensor(0.5)).elbo,
        lambda x, p: ft.elbo(x, mu, logvar, p, prior=prior, noise=noise).elbo,
        lambda x, p: ft.multimodal_elbo({"of": (x, "squared_error", p)}, mu, logvar).elbo,
        lambda x, p: ft.multimodal_elbo({"of": (mu, "squared_error", mu)}, x, p).elbo,
        lambda x, p: ft.beta_tcvae_elbo(x, mu, mu, logvar, p, dataset_size=9).elbo,
        lambda x, p: ft.beta_tcvae_elbo(mu, x, p, x, logvar, dataset_size=9).elbo,
        lambda x, p: ft.flow_elbo(mu, x, 0.0, p, x, x, logvar).objective,
    ):
        value, expected = f(x, few), f(x.float(), few.float())
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        assert torch.autograd.grad(value, few)[0].dtype == half


def test_wider_arguments_widen():
    x, mean = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    theta = torch.full((3,), 1.2345678, requires_grad=True)
    value = ft.NegativeBinomial(theta=theta).log_prob(x, mean)
    torch.testing.assert_close(value, ft.NegativeBinomial(theta=theta).log_prob(x, mean.float()))
    assert [g.dtype for g in torch.autograd.grad(value, (mean, theta))] == [
        torch.bfloat16,
        torch.float32,
    ]


def test_a_module_in_bfloat16_trains():
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(6, 4).bfloat16(), torch.nn.Linear(2, 6).bfloat16()
    loss = ft.ElboLoss(likelihood=ft.Gaussian(torch.nn.Parameter(torch.ones(6)))).bfloat16()
    x = torch.randn(16, 6).bfloat16()
    parameters = [p for m in (encoder, decoder, loss) for p in m.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.02)
    seen = []
    for _ in range(20):
        mu, logvar = encoder(x).chunk(2, -1)
        value = loss(x, mu, logvar, decoder(ft.reparameterize(mu, logvar, rng=1)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert value.dtype == torch.bfloat16
    assert seen[-1] < seen[0]


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_gradients_are_scaled_and_unscaled(bound):
    """By GradScaler: those of a loss times a power of two, and back."""
    x, mu, logvar = torch.rand(4, 5), *torch.randn(2, 4, 3)
    weight = torch.nn.Parameter(torch.randn(3, 5))
    losses = {
        "elbo": lambda: ft.ElboLoss(likelihood=ft.Bernoulli())(x, mu, logvar, mu @ weight),
        "iwae": lambda: ft.IwaeLoss(likelihood=ft.Bernoulli())(
            x, mu[None], mu, logvar, (mu @ weight)[None]
        ),
    }
    optimizer = torch.optim.SGD([weight], lr=0.0)
    (expected,) = torch.autograd.grad(losses[bound](), weight)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(losses[bound]()).backward()
    torch.testing.assert_close(weight.grad, expected * 2.0**10)
    scaler.unscale_(optimizer)
    torch.testing.assert_close(weight.grad, expected)
    scaler.step(optimizer)
    scaler.update()


def test_dreg_in_half_precision():
    torch.manual_seed(0)
    x, mu = torch.rand(4, 5), torch.randn(4, 3)
    logvar, w = mu * 0, torch.randn(3, 5)
    slopes = []
    for dtype in (torch.float32, torch.bfloat16):
        z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
        z.requires_grad_()
        given = [t.to(dtype) for t in (x, z, mu, logvar, z @ w.to(dtype))]
        given[1] = z
        value = ft.iwae(*given, estimator="dreg")
        assert value.dtype == dtype
        slopes.append(torch.autograd.grad(value, z)[0].float())
    torch.testing.assert_close(*slopes, rtol=0.1, atol=0.05)


@HALVES
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_in_a_graph(half, autocast):
    """As outside: widened before the operator, to which no pass of half precision is known."""
    torch._dynamo.reset()
    loss = ft.ElboLoss(ft.Bernoulli())
    x, mu, logvar, logits = torch.rand(3, 4, 2).to(half).unbind(1)
    leaves = [t.clone().requires_grad_() for t in (mu, logvar, logits)]
    found = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        with torch.autocast("cpu", half, enabled=autocast):
            value = function(x.contiguous(), *leaves)
        found.append((value, *torch.autograd.grad(value, leaves)))
    assert found[0][0].dtype == (torch.float32 if autocast else half)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)
