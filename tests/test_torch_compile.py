"""fastelbo.torch under torch.compile: one graph, the same numbers."""

import re
import sys

import pytest

from tests.torch_cases import CASE_BY_NAME, CASES, each, flat, torch

ft = pytest.importorskip("fastelbo.torch")
bridge = pytest.importorskip("fastelbo.torch._bridge")
divergences = pytest.importorskip("fastelbo.torch.divergences")
elbo = pytest.importorskip("fastelbo.torch.elbo")

# torch's own modules warn while they compile.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


def values_and_gradients(function, tensors):
    values = flat(function(*tensors))
    inputs = [t for t in tensors if t.requires_grad]
    return values, torch.autograd.grad(sum((v * v).sum() for v in values), inputs)


#: The name of the first case of each row.
FIRST = {re.match(r"\w+", case.name)[0]: case.name for case in reversed(CASES)}.values()


@each(CASES, ("mean", "none"), in_turn=True)
def test_one_graph(case, reduction):
    """Likelihoods made inside, too. What is traced is Python's part, case by case; how operators
    differentiate in graphs, `test_opcheck` says of each, and here the first case of a row."""
    tensors = tuple(case.draw().values())
    options = case.options(reduction)

    def function(*tensors):
        return case.call(ft, *tensors, **options)

    is_first = case.name in FIRST
    backend = "aot_eager" if is_first else "eager"
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    expected = values_and_gradients(function, tensors)
    torch.testing.assert_close(values_and_gradients(compiled, tensors), expected)
    if is_first:
        with torch.no_grad():
            torch.testing.assert_close(flat(compiled(*tensors)), expected[0])


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical", "DiscretizedLogisticMixture"])
def test_elements_in_one_graph(name):
    case = CASE_BY_NAME[name]
    tensors = tuple(case.draw().values())

    def function(*tensors):
        return case.call(ft, *tensors, reduction="elementwise")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = values_and_gradients(function, tensors)
    torch.testing.assert_close(values_and_gradients(compiled, tensors), expected)


def kind(operation, tensors):
    """What calls of the operator share that differ in options, lengths and numbers alone."""
    axes = [(t.ndim, t.dtype, t.requires_grad) for t in tensors]
    reduction = getattr(operation, "options", vars(operation)).get("reduction")
    return type(operation), getattr(operation, "name", None), reduction, *axes


def test_opcheck(monkeypatch):
    """PyTorch's own checks of every call of the operator that a function makes; those that
    compile, of each kind of call."""
    calls, seen = [], set()
    operator = bridge.differentiable

    def record(operation, *tensors):
        call = operation.call(any(t.requires_grad for t in tensors))
        calls.append((operation, tensors, call))
        return tuple(operator(list(tensors), call))

    for name, module in list(sys.modules.items()):
        if name.startswith("fastelbo.torch.") and hasattr(module, "run"):
            monkeypatch.setattr(module, "run", record)
    for i, case in enumerate(CASES):
        calls.clear()
        case.call(ft, *case.draw().values(), **case.options(("mean", "none")[i % 2]))
        for operation, tensors, call in calls:
            checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
            if (which := kind(operation, tensors)) not in seen:
                seen.add(which)
                checks.append("test_aot_dispatch_dynamic")
            try:
                torch.library.opcheck(operator, (list(tensors), call), test_utils=checks)
            except BaseException as error:
                error.add_note(f"in a call of {case.name}")
                raise
    assert len(seen) > 40


def training_loss(encoder, decoder, loss):
    def step(x, noise):
        mu, logvar = encoder(x).chunk(2, -1)
        z, _ = ft.reparameterize_kl(mu, logvar, noise=noise)
        return loss(x, mu, logvar, decoder(z))

    return step


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_model_with_inductor(dynamic):
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(6, 4), torch.nn.Linear(2, 6)
    loss = ft.ElboLoss(ft.Bernoulli())
    step = training_loss(encoder, decoder, loss)
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    for batch, beta in [(5, 1.0), (8, 0.5)]:
        loss.beta = beta
        x, noise = torch.rand(batch, 6), torch.randn(batch, 2)
        pairs = [(f, torch.autograd.grad(f(x, noise), parameters)) for f in (step, compiled)]
        torch.testing.assert_close(pairs[0][1], pairs[1][1])


@pytest.mark.parametrize("scale", [0.5, (0.5, 1.0, 2.0)], ids=["number", "by feature"])
def test_arguments_of_a_likelihood_stay_constants_in_dynamic_graphs(scale):
    likelihood = ft.Gaussian(scale, x_scale=0.25)
    compiled = torch.compile(likelihood.log_prob, fullgraph=True, dynamic=True, backend="aot_eager")
    x, mean = torch.rand(5, 3), torch.rand(5, 3)
    torch.testing.assert_close(compiled(x, mean), likelihood.log_prob(x, mean))


def test_noise_is_drawn_anew_in_every_call():
    mu, logvar = torch.zeros(3, 4), torch.zeros(3, 4)
    draw = torch.compile(ft.reparameterize, fullgraph=True)
    torch.manual_seed(1)
    first, second = draw(mu, logvar), draw(mu, logvar)
    torch.manual_seed(1)
    assert torch.equal(first, draw(mu, logvar))
    assert not torch.equal(first, second)


def test_double_backward_is_an_error():
    tensors = tuple(CASE_BY_NAME["kl_standard_normal"].draw().values())
    compiled = torch.compile(ft.kl_standard_normal, fullgraph=True, backend="aot_eager")
    first = torch.autograd.grad(compiled(*tensors), tensors, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        sum(g.sum() for g in first).backward()


#: More than torch.compile would compile again for.
THRESHOLDS = tuple(0.1 * i for i in range(1, 12))


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
@pytest.mark.parametrize(
    "free_bits",
    [float, lambda bits: ft.FreeBits(bits, granularity="total", below="zero")],
    ids=["number", "FreeBits"],
)
def test_a_changing_floor_is_compiled_once(free_bits, forced, monkeypatch):
    monkeypatch.setattr(ft._tensors, "always_composite", forced)
    tensors = tuple(CASE_BY_NAME["kl_standard_normal"].draw().values())

    def function(bits):
        return ft.kl_standard_normal(*tensors, free_bits=free_bits(bits))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for bits in THRESHOLDS:
        pairs = [(f(bits), torch.autograd.grad(f(bits), tensors)) for f in (function, compiled)]
        torch.testing.assert_close(*pairs)


def test_a_changing_floor_of_a_loss():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    loss = ft.ElboLoss(ft.Bernoulli())
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for loss.free_bits in THRESHOLDS:
        value = compiled(x, mu, logvar, logits)
        torch.testing.assert_close(value, loss(x, mu, logvar, logits))


def test_a_changing_beta_of_a_loss():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    loss = ft.ElboLoss(ft.Bernoulli())
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for loss.beta in THRESHOLDS:
        values = [f(x, mu, logvar, logits) for f in (compiled, loss)]
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*[torch.autograd.grad(v, (mu, logvar, logits)) for v in values])


def test_opcheck_of_beta():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    beta = torch.tensor(0.3, dtype=torch.float64)
    for masks in ((), (x.detach() > 0,)):
        call = elbo.WeightedElbo(ft.Bernoulli(), "mean", len(masks)).call(True)
        torch.library.opcheck(bridge.differentiable, ([mu, logvar, logits, x, beta, *masks], call))


def test_opcheck_of_minus_the_elbo():
    x, mu, logvar, logits, _ = CASE_BY_NAME["elbo[Bernoulli]"].draw().values()
    for reduction in ("mean", "none"):
        call = elbo.NegativeElbo(ft.Bernoulli(), 0.3, 0.0, reduction, 0, 0).call(True)
        torch.library.opcheck(bridge.differentiable, ([mu, logvar, logits, x], call))


def test_opcheck_of_the_floor():
    mu, logvar = CASE_BY_NAME["kl_standard_normal"].draw().values()
    threshold = torch.tensor(0.3, dtype=torch.float64)
    for reduction in ("mean", "none"):
        call = divergences.KlAboveThreshold("sample", "floor", reduction).call(True)
        torch.library.opcheck(bridge.differentiable, ([mu, logvar, threshold], call))


def test_a_generator_says_that_it_cannot_be_traced():
    mu = torch.zeros(3, 4)
    draw = torch.compile(ft.reparameterize, fullgraph=True, backend="aot_eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"noise=torch\.randn"):
        draw(mu, mu, rng=torch.Generator())


def test_dreg_says_that_it_cannot_be_traced():
    x, z, mu, logvar, logits = CASE_BY_NAME["iwae[Bernoulli]"].draw().values()
    loss = ft.IwaeLoss(ft.Bernoulli(), estimator="dreg")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="dreg"):
        compiled(x, z, mu, logvar, logits)


@pytest.mark.parametrize("name", ["importance_bound", "cubo", "gumbel_softmax"])
def test_options_left_as_they_are_in_dynamic_graphs(name):
    """What a function has by default may change there, as far as torch.compile knows."""
    torch._dynamo.reset()
    call, options = getattr(ft, name), {"rng": 3} if name == "gumbel_softmax" else {}
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (4, 7):
        logs = torch.randn(3, batch, dtype=torch.float64)
        torch.testing.assert_close(compiled(logs, **options), call(logs, **options))
