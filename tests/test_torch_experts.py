"""What of the experts of fastelbo.torch has no row to sweep: masks, components, dicts by name."""

import numpy as np
import pytest

import fastelbo
from tests.conftest import assert_close

torch = pytest.importorskip("torch")
ft = pytest.importorskip("fastelbo.torch")

PRESENT = np.array([[True] * 5, [True, False, True, False, True], [True, True, False, False, True]])


def draw(rows, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rows, 5, 4)).astype(dtype) for _ in range(4)]


def leaf(array):
    return torch.tensor(array, requires_grad=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("prior", [True, False, "full"])
def test_mopoe_is_that_of_arrays(prior, masked):
    mu, logvar = draw(3)[:2]
    grad_mu, grad_logvar = draw(7)[2:]
    mask = PRESENT if masked else None
    expected = fastelbo.mopoe(mu, logvar, mask=mask, prior=prior)
    flows = fastelbo.mopoe_backward(grad_mu, grad_logvar, mu, logvar, mask=mask, prior=prior)
    leaves = leaf(mu), leaf(logvar)
    given = None if mask is None else torch.tensor(mask)
    got = ft.mopoe(*leaves, mask=given, prior=prior)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-13, atol=1e-14)
    total = (got.mu * torch.tensor(grad_mu) + got.logvar * torch.tensor(grad_logvar)).sum()
    for a, b in zip(torch.autograd.grad(total, leaves), flows, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-13)


def test_what_is_missing_is_never_read():
    mu, logvar = draw(3)[:2]
    holed = [np.where(PRESENT[..., None], a, np.nan) for a in (mu, logvar)]
    mask = torch.tensor(PRESENT)
    for function in (
        lambda *pair: ft.product_of_experts(*pair, mask=mask),
        lambda *pair: ft.mopoe(*pair, mask=mask)[:2],
        lambda *pair: [ft.mixture_of_experts(torch.zeros(5, 4).double(), *pair, mask)],
    ):
        found = []
        for arrays in (holed, (mu, logvar)):
            leaves = [leaf(a) for a in arrays]
            values = function(*leaves)
            total = sum(v.sum() for v in values)
            found.append((*values, *torch.autograd.grad(total, leaves)))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype):
    mu, logvar = (torch.tensor(a).to(dtype) for a in draw(3)[:2])
    in_float32 = ft.mopoe(mu.float(), logvar.float())
    for got, wide in zip(ft.mopoe(mu, logvar)[:2], in_float32[:2], strict=True):
        assert got.dtype is dtype
        torch.testing.assert_close(got, wide.to(dtype), rtol=0, atol=0)
    pairs = {str(m): (mu[m], logvar[m]) for m in range(3)}
    q = ft.joint_posterior(pairs, rng=0)
    assert {part.dtype for part in (q.mu, q.logvar, q.z)} == {dtype}


@pytest.mark.parametrize("method", ["poe", "moe", "mopoe"])
def test_joint_posterior_is_that_of_arrays(method):
    mu, logvar = draw(3)[:2]
    names = ("image", "text", "sound")
    experts = {name: (mu[m], logvar[m]) for m, name in enumerate(names)}
    present = {"text": PRESENT[1], "sound": PRESENT[2]}
    expected = fastelbo.joint_posterior(experts, method=method, present=present, rng=3)
    leaves = {name: (leaf(a), leaf(b)) for name, (a, b) in experts.items()}
    seen = {name: torch.tensor(flags) for name, flags in present.items()}
    got = ft.joint_posterior(leaves, method=method, present=seen, rng=3)
    for a, b in zip(got, expected, strict=True):
        assert_close(a.detach().numpy(), b, np.float64, scale=10.0)
    zero = np.zeros_like(expected.mu)
    options = {"method": method, "present": present}
    flows = fastelbo.joint_posterior_backward(
        np.ones_like(expected.z), zero, zero, experts, expected, **options
    )
    got.z.sum().backward()
    for name, pair in leaves.items():
        for tensor, flow in zip(pair, flows[name], strict=True):
            np.testing.assert_allclose(tensor.grad.numpy(), flow, rtol=1e-12, atol=1e-13)


def test_a_training_step_of_several_modalities():
    """joint_posterior, decoders, multimodal_elbo: every encoder learns of what it has seen."""
    torch.manual_seed(0)
    x = {"image": torch.rand(6, 8), "text": torch.rand(6, 3)}
    encoders = {name: torch.nn.Linear(data.shape[1], 4) for name, data in x.items()}
    decoders = {name: torch.nn.Linear(2, data.shape[1]) for name, data in x.items()}
    present = {"text": torch.tensor([True, True, False, True, False, True])}
    experts = {name: encoders[name](data).chunk(2, dim=1) for name, data in x.items()}
    q = ft.joint_posterior(experts, present=present, method="mopoe", prior="full", rng=0)
    modalities = {name: (x[name], "bernoulli", decoders[name](q.z)) for name in x}
    result = ft.multimodal_elbo(modalities, q.mu, q.logvar, q.mask, present=present)
    (-result.elbo).backward()
    for network in (*encoders.values(), *decoders.values()):
        assert network.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pow"}, "method must be"),
        ({"prior": "full"}, "prior must be True or False"),
        (
            {"method": "moe", "present": {"a": torch.zeros(5) > 0}},
            "present: sample 0",
        ),
        ({"present": {"b": torch.ones(5, dtype=torch.bool)}}, "a name in present"),
        ({"present": {"a": torch.ones(5)}}, r"present\['a'\] must be boolean"),
        ({"present": {"a": np.ones(5, bool)}}, "must be a torch.Tensor"),
        ({"component": torch.ones(5, dtype=torch.int64)}, r"component\[0\] = 1"),
        ({"noise": torch.zeros(5, 3)}, "noise has shape"),
    ],
)
def test_errors(options, message):
    experts = {"a": (torch.zeros(5, 4), torch.zeros(5, 4))}
    with pytest.raises((TypeError, ValueError), match=message):
        ft.joint_posterior(experts, **options)
    with pytest.raises(TypeError, match=r"experts\['a'\]"):
        ft.joint_posterior({"a": torch.zeros(5, 4)})
    with pytest.raises(TypeError, match="mu must be a torch"):
        ft.product_of_experts(np.zeros((1, 5, 4)), torch.zeros(1, 5, 4))
