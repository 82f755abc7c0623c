"""What torch.compile traces, run as Python: the same numbers and errors."""

import pytest

from tests.torch_cases import CASE_BY_NAME, CASES, each, flat, torch

ft = pytest.importorskip("fastelbo.torch")


@pytest.fixture
def traced(monkeypatch):
    """A function that has what is traced run, from now on."""
    return lambda: monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def values_and_gradients(function, *tensors):
    values = flat(function(*tensors))
    inputs = [t for t in tensors if t.requires_grad]
    return values, torch.autograd.grad(sum((v * v).sum() for v in values), inputs)


@each([case for case in CASES if not case.options_of_it], ("mean", "none"), in_turn=True)
def test_what_is_traced_gives_the_same(case, reduction, traced):
    tensors, options = tuple(case.draw().values()), case.options(reduction)

    def function(*tensors):
        return case.call(ft, *tensors, **options)

    expected = values_and_gradients(function, *tensors)
    traced()
    torch.testing.assert_close(values_and_gradients(function, *tensors), expected)


TOTAL = {"granularity": "total", "below": "zero"}


@pytest.mark.parametrize(
    "options",
    [{}, {"beta": 0.3}, {"beta": 4.0, "reduction": "sum"}, {"free_bits": 2.0}],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_losses_give_the_same(options, masked, traced):
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    loss = ft.ElboLoss(ft.Bernoulli(), **options)
    mask = x > 0.4 if masked else None

    def function(mu, logvar, logits):
        return loss(x, mu, logvar, logits, mask=mask)

    expected = values_and_gradients(function, mu, logvar, logits)
    traced()
    torch.testing.assert_close(values_and_gradients(function, mu, logvar, logits), expected)


@pytest.mark.parametrize("free_bits", [0.5, ft.FreeBits(0.5, **TOTAL)], ids=["number", "FreeBits"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_floor_gives_the_same(free_bits, reduction, traced):
    tensors = tuple(CASE_BY_NAME["kl_standard_normal"].draw().values())

    def function(*tensors):
        return ft.kl_standard_normal(*tensors, free_bits=free_bits, reduction=reduction)

    expected = values_and_gradients(function, *tensors)
    traced()
    torch.testing.assert_close(values_and_gradients(function, *tensors), expected)


def test_an_int_seeds_the_noise_of_composites(traced, composite):
    mu, logvar = torch.ones(4, 3), torch.zeros(4, 3)
    traced()
    composite()
    eps = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(5))
    z = ft.reparameterize(mu, logvar, rng=5, samples=2)
    torch.testing.assert_close(z, 1 + eps)


ONE = torch.ones(4, 3)
REFUSED = {
    "give rng or noise, not both": lambda: ft.gumbel_softmax(ONE, rng=1, noise=ONE),
    "give rng or noise, not both ": lambda: ft.reparameterize(ONE, ONE, rng=1, noise=ONE),
    r"cannot trace a torch\.Generator; give noise": lambda: ft.reparameterize(
        ONE, ONE, rng=torch.Generator()
    ),
    "dreg.* needs a hook that torch.compile cannot trace": lambda: ft.iwae(
        ONE, ONE[None].clone().requires_grad_(), ONE, ONE, ONE[None], estimator="dreg"
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_traced_is_refused(words, traced, composite):
    traced()
    composite("not both" in words)
    with pytest.raises((ValueError, NotImplementedError), match=words.strip()):
        REFUSED[words]()
