"""fastelbo.torch under torch.func: the same numbers, or a clear error."""

import math

import pytest

from tests.torch_cases import CASES, FEW, each, flat, torch, weighted

ft = pytest.importorskip("fastelbo.torch")
func = pytest.importorskip("torch.func")

# torch's own modules warn when they differentiate forward, or trace.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

CLOSE = {"rtol": 1e-8, "atol": 1e-10}
SURE = [case for case in CASES if not case.draws_noise]


def given(case, seed=0):
    """Tensors without gradients, and which of them have one."""
    tensors = case.draw(requires_grad=False, seed=seed, **FEW)
    wanted = tuple(i for i, name in enumerate(tensors) if name not in case.constants)
    floating = [t.is_floating_point() for t in tensors.values()]
    return tuple(tensors.values()), tuple(i for i in wanted if floating[i])


def number(case, **options):
    return lambda *tensors: weighted(case.call(ft, *tensors, **options))


def by_autograd(f, tensors, wanted):
    leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    return torch.autograd.grad(f(*leaves), [leaves[i] for i in wanted])


@each(SURE, ("mean",))
def test_grad(case, reduction):
    tensors, wanted = given(case)
    f = number(case, **case.options(reduction))
    torch.testing.assert_close(
        func.grad(f, argnums=wanted)(*tensors), by_autograd(f, tensors, wanted), **CLOSE
    )


@each(SURE, ("none",))
def test_vmap(case, reduction):
    """Of values, and of gradients, over a leading axis of all tensors."""
    several = [given(case, seed)[0] for seed in (0, 1, 2)]
    wanted = given(case)[1]
    stacked = [torch.stack(tensors) for tensors in zip(*several, strict=True)]
    f = number(case, **case.options(reduction))

    def values(*tensors):
        return tuple(flat(case.call(ft, *tensors, **case.options(reduction))))

    expected = [torch.stack(v) for v in zip(*[values(*t) for t in several], strict=True)]
    torch.testing.assert_close(list(func.vmap(values)(*stacked)), expected, **CLOSE)
    slopes = zip(*[by_autograd(f, t, wanted) for t in several], strict=True)
    torch.testing.assert_close(
        func.vmap(func.grad(f, argnums=wanted))(*stacked),
        tuple(torch.stack(s) for s in slopes),
        **CLOSE,
    )


@each(SURE, ("none",))
def test_jacobians(case, reduction):
    """By reverse and by forward differentiation."""
    tensors, wanted = given(case)

    def first(*tensors):
        return flat(case.call(ft, *tensors, **case.options(reduction)))[0]

    at = wanted[-1]
    leaf = tensors[at].clone().requires_grad_()
    rows = first(*tensors[:at], leaf, *tensors[at + 1 :])
    expected = torch.stack(
        [torch.autograd.grad(row, leaf, retain_graph=True)[0] for row in rows.reshape(-1)]
    ).reshape(rows.shape + leaf.shape)
    for jacobian in (func.jacrev, func.jacfwd):
        torch.testing.assert_close(jacobian(first, argnums=at)(*tensors), expected, **CLOSE)


def test_gradients_of_samples():
    """What differentially private training takes: the loss of one sample, mapped."""
    x, mu, logvar = torch.rand(4, 5), *torch.randn(2, 4, 3)
    logits = torch.randn(4, 5, requires_grad=True)
    loss = ft.ElboLoss(likelihood=ft.Bernoulli())

    def of_one(logits, *others):
        x, mu, logvar = (t[None] for t in others)
        return loss(x, mu, logvar, logits[None])

    each_one = func.vmap(func.grad(of_one))(logits.detach(), x, mu, logvar)
    (together,) = torch.autograd.grad(4 * loss(x, mu, logvar, logits), logits)
    torch.testing.assert_close(each_one, together)


def test_gradient_by_some_beside_what_is_plain():
    """Tensors that no transform wraps, whose numbers PyTorch gives to none but it meanwhile."""
    x, logits, mu, logvar = torch.rand(4, 5), torch.randn(4, 5), *torch.randn(2, 4, 3)

    def bound(mu):
        return ft.elbo(x, mu, logvar, logits, likelihood="bernoulli").elbo

    torch.testing.assert_close(func.grad(bound)(mu), -mu / 4)


def test_over_samples_of_z():
    x, logits = torch.rand(4, 5), torch.randn(3, 4, 5)
    likelihood = ft.Bernoulli()
    mapped = func.vmap(lambda p: likelihood.log_prob(x, p, reduction="none"))(logits)
    torch.testing.assert_close(mapped, likelihood.log_prob(x, logits, reduction="none"))


def test_functional_call_exchanges_parameters():
    x, mu, logvar, mean = torch.rand(4, 5), *torch.randn(2, 4, 3), torch.rand(4, 5)
    name = "likelihood_parameters.scale"
    loss = ft.ElboLoss(likelihood=ft.Gaussian(torch.nn.Parameter(torch.ones(5))))
    scales = torch.rand(3, 5) + 0.5

    def at(scale):
        return func.functional_call(loss, {name: scale}, (x, mu, logvar, mean))

    expected = [ft.ElboLoss(likelihood=ft.Gaussian(s))(x, mu, logvar, mean) for s in scales]
    torch.testing.assert_close(func.vmap(at)(scales), torch.stack(expected))
    torch.testing.assert_close(
        func.grad(at)(scales[0]), torch.autograd.functional.jacobian(at, scales[0])
    )


def test_hessians():
    """Which kernels have none of."""
    mu, logvar = torch.randn(2, 1, 2).double()
    hessian = func.hessian(ft.kl_standard_normal, argnums=(0, 1))(mu, logvar)
    torch.testing.assert_close(hessian[0][0].reshape(2, 2), torch.eye(2).double())
    torch.testing.assert_close(
        hessian[1][1].reshape(2, 2), torch.diag(0.5 * logvar.exp().reshape(2))
    )


def test_forward_differentiation():
    logits = torch.randn(4, 5)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, torch.ones(4, 5))
        value = ft.Bernoulli().log_prob(torch.ones(4, 5), dual)
        tangent = torch.autograd.forward_ad.unpack_dual(value).tangent
    torch.testing.assert_close(tangent, torch.sigmoid(-logits).sum() / 4)


def test_noise_under_a_transform():
    """That of the kernels, where it is known."""
    mu, logvar = torch.randn(2, 4, 3)
    noise = ft.reparameterize(mu * 0, mu * 0, rng=7)
    for draw in (
        lambda m: ft.reparameterize(m, logvar, rng=7),
        lambda m: ft.reparameterize(m, logvar, noise=noise),
    ):
        value, slope = func.vjp(draw, mu)
        torch.testing.assert_close(value, ft.reparameterize(mu, logvar, rng=7))
        torch.testing.assert_close(slope(torch.ones(4, 3))[0], torch.ones(4, 3))
    torch.manual_seed(1)
    expected = ft.reparameterize(mu, logvar)
    torch.manual_seed(1)
    torch.testing.assert_close(func.vjp(lambda m: ft.reparameterize(m, logvar), mu)[0], expected)
    several = torch.randn(5, 4, 3)
    drawn = func.vmap(lambda m: ft.reparameterize(m, logvar * 0) - m, randomness="different")(
        several
    )
    assert len(set(drawn.flatten().tolist())) == drawn.numel()
    with pytest.raises(RuntimeError, match="randomness"):
        func.vmap(lambda m: ft.reparameterize(m, logvar))(several)


def test_relaxed_samples_of_a_map_have_noise_of_their_own():
    """Gumbel's: its mean is Euler's constant, its variance pi^2 / 6."""
    torch.manual_seed(2)
    logits = torch.randn(5, 2, 3, dtype=torch.float64)

    def log_y(logits):
        return ft.gumbel_softmax(logits, samples=4000).log()

    different = func.vmap(log_y, randomness="different")(logits)
    assert different.shape == (5, 4000, 2, 3)
    assert len(set(different.flatten().tolist())) == different.numel()
    # A difference of two is logistic about that of the logits.
    steps = (different - logits[:, None]).diff(dim=-1)
    assert steps.mean().abs() < 0.03
    torch.testing.assert_close(steps.var(), steps.new_tensor(math.pi**2 / 3), rtol=0.03, atol=0)


def test_what_is_not_supported_names_the_way_out():
    x, logits = torch.rand(4, 5), torch.randn(4, 5)
    for likelihood in (ft.Bernoulli(), ft.Gaussian()):
        with pytest.raises(NotImplementedError, match=r"torch\.export"):
            torch.jit.trace(lambda p, lk=likelihood: lk.log_prob(x, p), (logits,))
    z, mu = torch.randn(2, 4, 3), torch.zeros(4, 3)
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        func.grad(lambda z: ft.iwae(x, z, mu, mu, torch.randn(2, 4, 5), estimator="dreg"))(z)
