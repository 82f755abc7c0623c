"""Composites of fastelbo.torch refuse what kernels refuse, in the same words."""

from functools import partial

import pytest

import fastelbo
from tests.torch_cases import CASE_BY_NAME, CASES, LIKELIHOODS, torch

ft = pytest.importorskip("fastelbo.torch")


def outcome(call):
    """What a call gives, or the error that it raises."""
    try:
        return "a value", call()
    except (TypeError, ValueError) as error:
        return type(error), str(error)


def both(call):
    """The outcomes by kernels and by the composite."""
    kernels = outcome(call)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ft._tensors, "always_composite", True)
        return kernels, outcome(call)


def spoiled(tensor):
    """(what was done to it, the tensor in a shape that may not fit)."""
    yield "empty", tensor[:0]
    for axis in range(tensor.ndim):
        yield f"less of axis {axis}", tensor.narrow(axis, 0, max(1, tensor.shape[axis] - 1))
        yield f"one of axis {axis}", tensor.narrow(axis, 0, 1)
    yield "one more axis", tensor.unsqueeze(0)
    yield "one axis less", tensor[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shapes_that_do_not_fit(case):
    """Each input in turn, with and without gradients; what kernels broadcast, composites do."""
    for reduction in ("mean", "none") if case.has_reduction else (None,):
        options = {} if reduction is None else case.options(reduction)
        refused = 0
        for name, tensor in case.draw(requires_grad=False).items():
            for what, other in spoiled(tensor):
                tensors = {**case.draw(), name: other}

                call = partial(case.call, ft, *tensors.values(), **options)
                (kind, kernels), (composite_kind, got) = both(call)
                assert kind == composite_kind, (name, what, kernels, got)
                if kind == "a value":
                    if not case.draws_noise:
                        torch.testing.assert_close(kernels, got, equal_nan=True)
                else:
                    refused += 1
                    assert kernels == got, (name, what)
        assert refused or case.name.startswith("StandardNormal")  # of points of any shape


def g(*shape):
    return torch.rand(shape, requires_grad=True)


def mask(*shape):
    return torch.ones(shape, dtype=torch.bool)


class OnesOwn(fastelbo.Bernoulli):
    """What no formula of PyTorch is known of."""


X = torch.rand(4, 5)
#: What no shape of a case's input spoils.
CALLS = {
    "mask": lambda: ft.Bernoulli().log_prob(X, g(4, 5), mask=mask(3)),
    "mask ": lambda: ft.elbo(X, g(4, 3), g(4, 3), g(4, 5), mask=mask(3)),
    "mask  ": lambda: ft.iwae(X, g(2, 4, 3), g(4, 3), g(4, 3), g(2, 4, 5), mask=mask(3)),
    "mask must be boolean": lambda: ft.Bernoulli().log_prob(X, g(4, 5), mask=torch.ones(4, 5)),
    "mask must be a torch": lambda: ft.Bernoulli().log_prob(X, g(4, 5), mask=[[True]]),
    "mask must be a torch ": lambda: ft.elbo(X, g(4, 3), g(4, 3), g(4, 5), mask=True),
    "noise": lambda: ft.reparameterize(g(4, 3), g(4, 3), noise=g(3)),
    "noise ": lambda: ft.elbo(X, g(4, 3), g(4, 3), g(4, 5), noise=g(3)),
    "noise must be a torch": lambda: ft.reparameterize(g(4, 3), g(4, 3), noise=[1.0]),
    "noise must be a torch ": lambda: ft.elbo(X, g(4, 3), g(4, 3), g(4, 5), noise=1.0),
    "not both": lambda: ft.reparameterize(g(4, 3), g(4, 3), noise=g(4, 3), rng=1),
    "rng must": lambda: ft.reparameterize(g(4, 3), g(4, 3), rng="a"),
    "rng must lie": lambda: ft.reparameterize(g(4, 3), g(4, 3), rng=-1),
    "samples": lambda: ft.reparameterize(g(4, 3), g(4, 3), samples=0),
    "bandwidth": lambda: ft.mmd(g(4, 3), g(4, 3), bandwidth=-1.0),
    "z is one sample": lambda: ft.mmd(g(1, 3), g(4, 3)),
    "needs a batch": lambda: ft.total_correlation(
        g(1, 3), g(1, 3), g(1, 3), dataset_size=3, method="mss"
    ),
    "optimal": lambda: ft.iwae(
        X, g(2, 4, 3), g(4, 3), g(4, 3), g(2, 4, 5), likelihood=ft.Gaussian("optimal")
    ),
    "2 decoder": lambda: ft.Gaussian("learned").log_prob(X, g(4, 5)),
    "and decoder outputs": lambda: ft.Bernoulli().log_prob(X),
    "got 2": lambda: ft.ColumnLikelihood([("bernoulli", [0, 1, 2, 3, 4])]).log_prob(
        X, g(4, 5), g(4, 5)
    ),
    "rng or noise, not both": lambda: ft.gumbel_softmax(g(4, 3), noise=g(4, 3), rng=1),
    "z has shape": lambda: ft.StandardNormal().log_prob(torch.ones(())),
    "torch has no OnesOwn": lambda: ft.ElboLoss(OnesOwn()),
    "1 decoder": lambda: ft.elbo(X, g(4, 3), g(4, 3), (g(4, 5), g(4, 5))),
    "scale has shape": lambda: ft.Gaussian([1.0, 2.0]).log_prob(X, g(4, 5)),
    "theta has shape": lambda: ft.NegativeBinomial([1.0, 2.0]).log_prob(X.round(), g(4, 5)),
    "observed has": lambda: ft.Weibull(observed=mask(3)).log_prob(X, g(4, 5), g(4, 5)),
    r"x\[0, 0\] = 9": lambda: ft.Bernoulli().log_prob(torch.full((4, 5), 9), g(4, 5)),
    r"x\[0, 0\] = 9 ": lambda: ft.Categorical().log_prob(torch.full((4, 5), 9), g(4, 5, 3)),
    r"mean\[0, 1\] = -1": lambda: ft.NegativeBinomial(theta=2.0).log_prob(
        torch.ones(1, 2), torch.tensor([[1.0, -1.0]]), mask=mask(1, 2)
    ),
    r"theta\[0, 1\] = -1": lambda: ft.ZeroInflatedNegativeBinomial().log_prob(
        torch.ones(1, 2), g(1, 2), torch.tensor([1.0, -1.0]), g(1, 2), mask=mask(1, 2)
    ),
}


@pytest.mark.parametrize("words", CALLS)
def test_what_else_does_not_fit(words):
    kernels, got = both(CALLS[words])
    assert kernels == got
    with pytest.raises((TypeError, ValueError), match=words.strip()):
        CALLS[words]()


def test_numbers_on_other_devices_are_not_looked_at():
    """Which would make them wait; shapes are known anyway."""
    x, logits = torch.full((2, 3), 9.0, device="meta"), torch.ones(2, 3, device="meta")
    assert ft.Bernoulli().log_prob(x, logits).is_meta
    with pytest.raises(ValueError, match="logits has shape"):
        ft.Bernoulli().log_prob(x, logits[:, :2])


#: Arguments of losses and functions that are no tensors, and what their errors name.
WRONG = {
    "reduction": lambda: ft.ElboLoss(reduction="men"),
    "reduction must": lambda: ft.ElboLoss(reduction=[3]),
    "beta": lambda: ft.ElboLoss(beta="4"),
    "beta must": lambda: ft.ElboLoss(beta=-1.0),
    "beta must be a number": lambda: ft.ElboLoss(beta=True),
    "free_bits": lambda: ft.ElboLoss(free_bits="a"),
    "likelihood": lambda: ft.ElboLoss("bernouli"),
    "likelihood must be": lambda: ft.ElboLoss(3),
    "likelihood must be an object": lambda: ft.ElboLoss(ft.Bernoulli),
    "estimator": lambda: ft.IwaeLoss(estimator="sti"),
    "estimator must": lambda: ft.IwaeLoss(estimator=[3]),
    "prior": lambda: ft.IwaeLoss(prior="vamp"),
    "dataset_size": lambda: ft.BetaTCVAELoss(dataset_size="4"),
    "method": lambda: ft.BetaTCVAELoss(dataset_size=100, method="mvs"),
    "mss": lambda: ft.BetaTCVAELoss(dataset_size=100, mss="papers"),
    "gamma": lambda: ft.BetaTCVAELoss(dataset_size=100, gamma=-2.0),
    "kernel": lambda: ft.mmd(g(4, 3), g(4, 3), kernel=[3]),
    "kernel must": lambda: ft.mmd(g(4, 3), g(4, 3), kernel="rfb"),
    "t must be a torch": lambda: ft.flow_matching(X, [0.5] * 4, g(4, 5)),
    "t must be a torch ": lambda: ft.endpoint_velocity(X, X, X.numpy()[:, 0]),
    "log_w must hold real": lambda: ft.importance_bound(g(3, 4).to(torch.complex64)),
    "mu must hold real": lambda: ft.kl_standard_normal(g(3, 4).to(torch.complex64), g(3, 4)),
    "alpha": lambda: ft.beta_tcvae_elbo(
        X, g(4, 3), g(4, 3), g(4, 3), g(4, 5), dataset_size=9, alpha=-1.0
    ),
}


@pytest.mark.parametrize("composite", [False, True])
@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_tensor(message, composite, monkeypatch):
    monkeypatch.setattr(ft._tensors, "always_composite", composite)
    with pytest.raises((TypeError, ValueError), match=message.strip()):
        WRONG[message]()


@pytest.mark.parametrize("beta", ["4", -1.0])
def test_weights_of_composites(beta, monkeypatch):
    monkeypatch.setattr(ft._tensors, "always_composite", True)
    with pytest.raises((TypeError, ValueError), match="beta"):
        ft.elbo(X, g(4, 3), g(4, 3), g(4, 5), beta=beta)


@pytest.mark.parametrize("row", LIKELIHOODS, ids=lambda row: row.label)
def test_likelihoods_of_either_package_serve_both(row):
    case = CASE_BY_NAME[f"{row.label}"]
    x, *parameters = case.draw(requires_grad=False).values()
    own, twin = row.make(fastelbo), row.make(ft)
    mu = torch.zeros(len(x), 2)
    arrays = (x.numpy(), mu.numpy(), mu.numpy(), tuple(p.numpy() for p in parameters))
    values = [
        ft.elbo(x, mu, mu, tuple(parameters), likelihood=likelihood).elbo
        for likelihood in (own, twin)
    ]
    values += [fastelbo.elbo(*arrays, likelihood=likelihood).elbo for likelihood in (own, twin)]
    assert len(set(map(float, values))) == 1


def test_likelihoods_go_by_name():
    x = torch.ones(2, 3)
    arguments = x, x[:, :1], x[:, :1], x
    named = ft.elbo(*arguments, likelihood="bernoulli").elbo
    assert named == ft.elbo(*arguments, likelihood=ft.Bernoulli()).elbo
    assert isinstance(ft.ElboLoss("gaussian").likelihood, ft.Gaussian)
    held = ft.Gaussian(torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(TypeError, match=r"likelihood holds tensors.*fastelbo.torch"):
        fastelbo.elbo(*(a.numpy() for a in arguments), likelihood=held)
