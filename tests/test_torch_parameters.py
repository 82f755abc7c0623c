"""Tensors to differentiate that constructors of fastelbo.torch take, and losses that hold them."""

import copy
import pickle

import pytest

import fastelbo
from tests.torch_cases import CASE_BY_NAME, LIKELIHOODS, REDUCTIONS, torch

ft = pytest.importorskip("fastelbo.torch")
nn = torch.nn

#: (variant, argument): every number of a constructor that has a gradient.
ARGUMENTS = [
    pytest.param(variant, name, id=f"{variant.label}-{name}")
    for variant in LIKELIHOODS
    for name in variant.make(ft)._learnable
    if isinstance(getattr(variant.make(ft), name), float | tuple)
]
PATHS = pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])


def held(variant, name, value):
    """The likelihood with this argument given as a tensor."""
    given = variant.make(ft)
    arguments = {field: getattr(given, field) for field in given.__dataclass_fields__}
    return type(given)(**{**arguments, name: value})


def drawn(variant):
    return CASE_BY_NAME[variant.label].draw().values()


def test_every_argument_that_could_be_differentiated_is_tried():
    tried = {(p.values[0].kind, p.values[1]) for p in ARGUMENTS}
    kinds = {variant.kind for variant in LIKELIHOODS}
    assert {kind for kind in kinds if getattr(ft, kind)._learnable} == {kind for kind, _ in tried}
    assert {("NegativeBinomial", "theta"), ("StudentT", "df"), ("Weibull", "scale")} <= tried


@PATHS
@pytest.mark.parametrize("shape", [(), (7,), (1, 7)], ids=str)
@pytest.mark.parametrize(("variant", "name"), ARGUMENTS)
def test_an_argument_is_differentiated(variant, name, shape, forced, composite):
    x, *outputs = drawn(variant)
    value = torch.rand(shape, dtype=torch.float64) + 0.7
    fixed = held(variant, name, value[0] if len(shape) > 1 else value)
    expected = {r: fixed.log_prob(x, *outputs, reduction=r) for r in REDUCTIONS}
    if forced:
        composite()
    leaf = value.requires_grad_()
    for tensor in (nn.Parameter(value.detach()), leaf, leaf.sqrt() ** 2):
        likelihood = held(variant, name, tensor)
        assert likelihood.parameters == fixed.parameters
        for reduction in REDUCTIONS:
            got = likelihood.log_prob(x, *outputs, reduction=reduction)
            torch.testing.assert_close(got, expected[reduction], rtol=1e-10, atol=1e-12)
            (slope,) = torch.autograd.grad(got.sum(), tensor, retain_graph=True)
            assert slope.shape == shape
            assert (slope != 0).all()
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(
            lambda tensor, *outputs, reduction=reduction: held(variant, name, tensor).log_prob(
                x, *outputs, reduction=reduction
            ),
            (leaf, *outputs),
            fast_mode=reduction == "none",  # every element once
        )


@PATHS
@pytest.mark.parametrize(("variant", "name"), ARGUMENTS)
def test_bounds_differentiate_it(variant, name, forced, composite):
    """elbo, iwae and the losses, of samples, too."""
    x, *outputs = drawn(variant)
    value = (torch.rand(7, dtype=torch.float64) + 0.7).requires_grad_()
    fixed, likelihood = held(variant, name, value.detach()), held(variant, name, value)
    mu, logvar = torch.randn(2, 4, 3).double()
    if forced:
        composite()
    several = tuple(outputs)
    samples = tuple(torch.stack([p, p + 0.1]) for p in outputs)
    z = torch.randn(2, 4, 3).double()
    sampling = {"dataset_size": 9}
    pairs = [
        lambda lk: ft.elbo(x, mu, logvar, several, likelihood=lk).elbo,
        lambda lk: -ft.ElboLoss(likelihood=lk)(x, mu, logvar, several),
        lambda lk: ft.iwae(x, z, mu, logvar, samples, likelihood=lk),
        lambda lk: ft.beta_tcvae_elbo(x, z[0], mu, logvar, several, likelihood=lk, **sampling).elbo,
    ]
    expected = None
    for bound in pairs:
        got = bound(likelihood)
        torch.testing.assert_close(got, bound(fixed), rtol=1e-10, atol=1e-12)
        (slope,) = torch.autograd.grad(got, value)
        assert (slope != 0).all()
        if bound is pairs[2]:
            continue  # whose weights are others
        expected = slope if expected is None else expected
        torch.testing.assert_close(slope, expected)


def test_losses_register_parameters():
    theta = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    loss = ft.ElboLoss(likelihood=ft.NegativeBinomial(theta=theta))
    assert list(loss.parameters()) == [theta]
    assert loss.state_dict()["likelihood_parameters.theta"].tolist() == [1.0, 2.0, 3.0]
    x, mean = torch.tensor([[0.0, 2.0, 1.0]]), torch.ones(1, 3)
    mu = torch.zeros(1, 2)
    before = loss(x, mu, mu, mean)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    before.backward()
    optimizer.step()
    assert (theta != torch.tensor([1.0, 2.0, 3.0])).all()
    assert loss(x, mu, mu, mean) < before
    other = ft.ElboLoss(likelihood=ft.NegativeBinomial(theta=nn.Parameter(torch.ones(3))))
    for assign in (False, True):
        other.load_state_dict(loss.state_dict(), assign=assign)
        assert other(x, mu, mu, mean) == loss(x, mu, mu, mean)
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert again(x, mu, mu, mean) == loss(x, mu, mu, mean)
        (own,) = again.parameters()
        assert own is not theta
        own.data.fill_(50.0)
        assert again(x, mu, mu, mean) != loss(x, mu, mu, mean)
    loss.double()
    assert loss(x.double(), mu.double(), mu.double(), mean.double()).dtype == torch.float64
    assert theta.dtype == torch.float64
    loss.likelihood = ft.SquaredError()
    assert list(loss.parameters()) == []


def test_every_loss_registers_them():
    scale = nn.Parameter(torch.tensor(0.5))
    for loss in (
        ft.ElboLoss(likelihood=ft.Gaussian(scale)),
        ft.IwaeLoss(likelihood=ft.Gaussian(scale)),
        ft.BetaTCVAELoss(ft.Gaussian(scale), dataset_size=5),
    ):
        assert [name for name, _ in loss.named_parameters()] == ["likelihood_parameters.scale"]
    beta = nn.Parameter(torch.tensor(2.0))
    loss = ft.ElboLoss(beta=beta)
    assert dict(loss.named_parameters()) == {"beta": beta}
    one = torch.ones(1, 1)
    loss(one, one, one - 1, one).backward()
    assert beta.grad == 0.5  # the KL


def test_parameters_are_meant_to_be_frozen_and_thawed():
    scale = nn.Parameter(torch.tensor(0.5), requires_grad=False)
    likelihood = ft.Gaussian(scale)
    scale.requires_grad_()
    one = torch.ones(1, 1)
    likelihood.log_prob(one, one).backward()
    assert scale.grad == -2.0


def test_what_cannot_be_differentiated_says_so():
    one = torch.ones(2, 1)
    number = torch.tensor(1.0, requires_grad=True)
    for name, call in {
        "bandwidth": lambda: ft.mmd(one, one, bandwidth=number),
        "bandwidth ": lambda: ft.mmd(one, one, bandwidth=[1.0, number]),
        "free_bits": lambda: ft.kl_standard_normal(one, one, free_bits=number),
        "free_bits ": lambda: ft.elbo(one, one, one, one, free_bits=number),
        "free_bits  ": lambda: ft.ElboLoss(free_bits=number)(one, one, one, one),
        "threshold": lambda: ft.FreeBits(number),
        "x_scale": lambda: ft.Bernoulli(x_scale=number),
        "total_count": lambda: ft.Binomial(number),
    }.items():
        with pytest.raises(TypeError, match=rf"{name.strip()} .*cannot be differentiated"):
            call()
    compiled = torch.compile(ft.kl_standard_normal, backend="aot_eager")
    with pytest.raises(TypeError, match="free_bits cannot be differentiated"):
        compiled(one, one, free_bits=number)


@PATHS
def test_errors_of_arguments(forced, composite):
    one = torch.ones(2, 3)
    if forced:
        composite()
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        ft.Gaussian(nn.Parameter(torch.tensor([1.0, -1.0, 2.0]))).log_prob(one, one)
    with pytest.raises(ValueError, match=r"scale and concentration are both given"):
        ft.Weibull(nn.Parameter(one), nn.Parameter(one))
    with pytest.raises(TypeError, match=r"takes 1 decoder output\(s\) \('mean',\), got 2"):
        ft.NegativeBinomial(theta=nn.Parameter(one)).log_prob(one, one, one)
    with pytest.raises(ValueError, match=r"scale has shape \(2,\), expected one that broadcasts"):
        ft.Gaussian(nn.Parameter(torch.ones(2))).log_prob(one, one)
    with pytest.raises(ValueError, match=r"scale has shape \(2,\), expected one that broadcasts"):
        ft.Weibull(scale=nn.Parameter(torch.ones(2))).log_prob(one, one)


def test_numbers_stay_numbers():
    assert ft.Gaussian(torch.tensor([1.0, 2.0])).scale == (1.0, 2.0)
    assert ft.Gaussian(torch.tensor([1.0, 2.0])).held is None
    assert "Parameter(3,)" in repr(ft.Gaussian(nn.Parameter(torch.ones(3))))
    assert isinstance(ft.Gaussian(2.0).kernels, fastelbo.Gaussian)


@pytest.mark.parametrize(
    "expand",
    [
        lambda theta, mean: torch.broadcast_tensors(mean, theta)[1],
        lambda theta, mean: theta.expand_as(mean),
    ],
    ids=["broadcast", "expanded"],
)
@pytest.mark.parametrize(
    "likelihood",
    [ft.NegativeBinomial(), ft.Gaussian("learned")],
    ids=lambda one: type(one).__name__,
)
def test_what_is_expanded_over_the_batch_is_one_for_all(likelihood, expand):
    """As scvi-tools hands over theta. Where its own gradient is observed, that is by element."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(5, 3, generator=generator).round()
    mean, log_theta = (torch.rand(shape, generator=generator) for shape in ((5, 3), (3,)))
    mean, log_theta = mean.requires_grad_(), log_theta.requires_grad_()
    shapes = []

    def gradients(form):
        theta = log_theta.exp()
        given = mean, form(theta, mean)
        latents = mean[:, :2], mean[:, :2]
        value = likelihood.log_prob(x, *given)
        shapes.append([gradient.shape for gradient in value.grad_fn.saved_tensors])
        bound = ft.elbo(x, *latents, given, likelihood=likelihood).elbo
        return torch.autograd.grad(value + bound, (mean, log_theta))

    torch.testing.assert_close(gradients(expand), gradients(lambda theta, _: theta))
    assert shapes == [[(5, 3), (3,)]] * 2
    seen = expand(log_theta.exp(), mean)
    seen.retain_grad()
    likelihood.log_prob(x, mean, seen).backward()
    dense = seen.detach().clone().requires_grad_()
    likelihood.log_prob(x, mean, dense).backward()
    torch.testing.assert_close(seen.grad, dense.grad)
    leaf = expand(log_theta.detach().exp(), mean.detach()).requires_grad_()
    likelihood.log_prob(x, mean, leaf).backward()
    torch.testing.assert_close(leaf.grad, dense.grad)
    with torch.no_grad():
        value = likelihood.log_prob(x, mean, seen)
    torch.testing.assert_close(value, likelihood.log_prob(x, mean, dense))


class Reversed(torch.autograd.Function):
    """A view, whose gradient is another's."""

    @staticmethod
    def forward(ctx, tensor, *shape):
        return tensor.expand(shape or tensor.shape)

    @staticmethod
    def backward(ctx, gradient):
        whole = gradient.sum(0) if gradient.ndim > 1 else gradient
        return -whole, *[None] * (len(ctx.needs_input_grad) - 1)


def test_what_lies_before_an_expand_keeps_its_gradient():
    """A function that changes it, a hook and ``retain_grad()``, though it is a view of another."""
    x, mean = torch.ones(5, 3), torch.rand(5, 3) + 0.5
    scale = torch.zeros(3, requires_grad=True)

    def gradient(form):
        bound = ft.elbo(x, mean, mean, (mean, form(scale)), likelihood=ft.Gaussian("learned")).elbo
        value = bound + ft.Gaussian("learned").log_prob(x, mean, form(scale))
        return torch.autograd.grad(value, scale)[0]

    def hooked(scale):
        row = scale[None]
        row.register_hook(lambda gradient: -gradient)
        return row.expand_as(mean)

    expected = -gradient(lambda scale: scale)
    for form in (
        lambda scale: Reversed.apply(scale).expand(5, 3),
        lambda scale: Reversed.apply(scale, 5, 3),
    ):
        torch.testing.assert_close(gradient(form), expected)
    torch.testing.assert_close(gradient(hooked), expected)
    row = scale[None]
    row.retain_grad()
    ft.Gaussian("learned").log_prob(x, mean, row.expand_as(mean)).backward()
    torch.testing.assert_close(row.grad[0], scale.grad)


def test_compiled_with_arguments_made_inside():
    log_theta = torch.zeros(3, requires_grad=True)
    x, mean = torch.tensor([[0.0, 2.0, 1.0]]), torch.ones(1, 3)

    def loss(log_theta):
        return -ft.NegativeBinomial(theta=log_theta.exp()).log_prob(x, mean)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(log_theta), log_theta),
        torch.autograd.grad(loss(log_theta), log_theta),
    )
