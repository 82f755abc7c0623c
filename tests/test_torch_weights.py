"""Log weights in fastelbo.torch: estimators of scores, and streams."""

import numpy as np
import pytest

import fastelbo
from tests.torch_cases import REDUCTIONS, torch

ft = pytest.importorskip("fastelbo.torch")
inf = float("inf")
FORCED = pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
ESTIMATORS = {
    "vimco": (ft.vimco, fastelbo.vimco_and_grad, {}),
    "reinforce": (ft.reinforce, fastelbo.reinforce_and_grad, {}),
    "none": (ft.reinforce, fastelbo.reinforce_and_grad, {"baseline": "none"}),
}
LOG_W = np.array([[-3.0, 2.0, 0.0], [1.0, 2.0, -800.0], [0.5, 2.0, 7.0], [-2.0, 2.5, 900.0]])
LIMITS = np.array([[0.0, -inf, -inf, 0.0], [-inf, -inf, 0.0, inf], [1.0, -inf, 1.0, 0.0]])


def draw(log_w, dtype=torch.float64):
    return torch.tensor(log_w, dtype=dtype).requires_grad_(), torch.zeros(
        log_w.shape, dtype=dtype, requires_grad=True
    )


@FORCED
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("log_w", "reduction"), [*((LOG_W, r) for r in REDUCTIONS), (LIMITS, "none")], ids=str
)
def test_gradients_are_the_estimates_of_fastelbo(log_w, name, reduction, forced, composite):
    twin, own, options = ESTIMATORS[name]
    if forced:
        composite()
    tensors = draw(log_w)
    value = twin(*tensors, reduction=reduction, **options)
    expected, by = own(log_w, reduction=reduction, **options)
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-13)
    upstream = torch.rand(value.shape, dtype=value.dtype)
    slopes = torch.autograd.grad(value, tensors, upstream)
    for mine, theirs in zip(slopes, by, strict=True):
        np.testing.assert_allclose(mine.numpy(), upstream.numpy() * theirs, rtol=1e-12)


@FORCED
@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_limits_of_bounds(alpha, forced, composite):
    if forced:
        composite()
    log_w, _ = draw(LIMITS)
    value = ft.importance_bound(log_w, alpha=alpha, reduction="none")
    expected, by = fastelbo.importance_bound_and_grad(LIMITS, alpha=alpha, reduction="none")
    np.testing.assert_array_equal(value.detach().numpy(), expected)
    np.testing.assert_allclose(
        torch.autograd.grad(value.sum(), log_w)[0].numpy(), by.log_w, rtol=1e-14
    )
    for name in ("normalized_weights", "effective_sample_size"):
        np.testing.assert_allclose(
            getattr(ft, name)(log_w).detach().numpy(), getattr(fastelbo, name)(LIMITS), rtol=1e-14
        )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scores_compile_and_map(name):
    torch._dynamo.reset()
    twin, _, options = ESTIMATORS[name]
    tensors = draw(LOG_W)

    def function(log_w, log_q):
        return twin(log_w, log_q, **options)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    pairs = [(f(*tensors), torch.autograd.grad(f(*tensors), tensors)) for f in (function, compiled)]
    torch.testing.assert_close(*pairs)
    plain = [t.detach() for t in tensors]
    torch.testing.assert_close(torch.func.grad(function, argnums=(0, 1))(*plain), pairs[0][1])
    stacked = [torch.stack([t, t.flip(0)]) for t in plain]
    mapped = torch.func.vmap(torch.func.grad(function, argnums=(0, 1)))(*stacked)
    torch.testing.assert_close([m[0] for m in mapped], list(pairs[0][1]))


def test_vimco_trains_discrete_latents():
    """Its estimate ascends the bound of a Bernoulli latent: q finds the posterior, 8 / 9."""
    torch.manual_seed(0)
    logit = torch.nn.Parameter(torch.tensor(-1.0))
    optimizer = torch.optim.Adam([logit], lr=0.05)
    joint = torch.tensor([0.05, 0.4]).log()
    for _ in range(300):
        q = torch.distributions.Bernoulli(logits=logit)
        z = q.sample((4, 64))
        log_q = q.log_prob(z)
        loss = -ft.vimco(joint[z.long()] - log_q, log_q)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logit.sigmoid().item() == pytest.approx(8 / 9, abs=0.08)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(half):
    tensors = draw(LOG_W[:, :2], half)
    value = ft.vimco(*tensors)
    assert value.dtype == half
    assert {g.dtype for g in torch.autograd.grad(value, tensors)} == {half}


@FORCED
def test_errors(forced, composite):
    if forced:
        composite()
    log_w, log_q = draw(LOG_W)
    for twin in (ft.vimco, ft.reinforce):
        with pytest.raises(ValueError, match=r"log_q has shape \(4, 2\), expected that of log_w"):
            twin(log_w, log_q[:, :2])
        with pytest.raises(ValueError, match="needs K > 1"):
            twin(log_w[:1], log_q[:1])
        with pytest.raises(TypeError, match="log_q must be a torch"):
            twin(log_w, None)
    with pytest.raises(ValueError, match="baseline"):
        ft.reinforce(log_w, log_q, baseline="mean")
    with pytest.raises(TypeError, match="alpha cannot be differentiated"):
        ft.importance_bound(log_w, alpha=torch.tensor(0.5, requires_grad=True))
    with pytest.raises(ValueError, match="n must be at least 1"):
        ft.cubo(log_w, n=0.5)
    with pytest.raises(ValueError, match="log_w has shape"):
        ft.effective_sample_size(log_w[0])


# Streams ----------------------------------------------------------------------------------------


def test_a_stream_of_chunks():
    log_w = torch.randn(90, 3) * 2 - 90
    stream = ft.StreamingBound()
    for chunk in log_w.split(7):
        assert stream.update(chunk) is stream
    for alpha in (0.0, 1.0, -1.0):
        torch.testing.assert_close(
            stream.bound(alpha=alpha), ft.importance_bound(log_w, alpha=alpha)
        )
    torch.testing.assert_close(stream.effective_sample_size(), ft.effective_sample_size(log_w))
    own = fastelbo.StreamingBound().update(log_w.numpy())
    torch.testing.assert_close(
        stream.standard_error(reduction="none"),
        torch.tensor(own.standard_error(reduction="none"), dtype=torch.float32),
    )
    assert stream.bound(reduction="none").shape == (3,)
    assert repr(stream) == "StreamingBound(samples=90, batch=3)"
    merged = ft.StreamingBound().merge(own).merge(stream)
    assert merged.samples == 180
    torch.testing.assert_close(merged.bound(), stream.bound())
    assert ft.StreamingBound().update(log_w.double()).update(log_w).bound().dtype == torch.float64
    assert ft.StreamingBound().update(log_w.bfloat16()).bound().dtype == torch.bfloat16


def test_a_stream_has_no_gradient():
    log_w = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(TypeError, match="log_w requires a gradient"):
        ft.StreamingBound().update(log_w)
    with pytest.raises(TypeError, match="log_w must be a torch"):
        ft.StreamingBound().update(log_w.detach().numpy())
    with pytest.raises(ValueError, match="no log weights yet"):
        ft.StreamingBound().bound()
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.func.vmap(lambda w: ft.StreamingBound().update(w[None]).bound())(log_w.detach())
