"""Binomial by logits."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

from fastelbo import VAE, BetaBinomial, Binomial, elbo, iwae, log_weights, reference
from tests.conftest import DTYPES, assert_close, together
from tests.likelihood_checks import exact, offends


@pytest.mark.parametrize(
    ("n", "x"),
    [(0, 0), (1, 1), (7, 0), (7, 3), (20, 20), (1000, 400), (10**6, 123_456), (10**8, 5 * 10**7)],
)
@together(logit=[-800.0, -90.0, -3.0, -0.41, 0.0, 0.4, 2.0, 20.0, 90.0, 500.0], dtype=DTYPES)
def test_mpmath(n, x, logit, dtype):
    """No binomial coefficient is formed; a certain event keeps its digits."""

    def density(x, a):
        choose = mpmath.loggamma(n + 1) - mpmath.loggamma(x + 1) - mpmath.loggamma(n - x + 1)
        return choose + x * a - n * mpmath.log1p(mpmath.exp(a))

    p = 1 / (1 + math.exp(-max(logit, -700.0)))
    sizes = (abs(x - n * p) + (1 if 0 < x < n else 0), n)
    exact(Binomial(n), x, (logit,), density, dtype, sizes=sizes, digits=500)


def test_against_scipy(dtype):
    rng = np.random.default_rng(0)
    n = rng.integers(1, 60, 30)
    logits = (2 * rng.normal(size=(20, 30))).astype(dtype)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    x = rng.binomial(n, p)
    expected = scipy.stats.binom.logpmf(x, n, p).sum(axis=1)
    got = Binomial(n).log_prob(x.astype(np.uint8), logits, reduction="none")
    assert_close(got, expected, dtype, np.abs(x - n * p).sum(axis=1))


def test_domain(dtype):
    rng = np.random.default_rng(0)
    x, logits = rng.integers(0, 10, (9, 600)), rng.normal(size=(9, 600))
    offends(Binomial(9), dtype, x, logits, bad=(-1, 10, 0.5, np.inf))


@pytest.mark.parametrize("bad", [-1, 0.5, np.nan, np.inf, [1, -1]])
def test_errors(bad):
    with pytest.raises(ValueError, match="total_count"):
        Binomial(bad)
    with pytest.raises(ValueError, match="total_count"):
        Binomial([1, 2]).log_prob(np.zeros((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(6, 1), (6, 5), (1, 5), (5,)])
def test_counts_by_sample(shape, dtype):
    """As the reference has it, and as by one likelihood a sample; in bounds, for K samples, too."""
    rng = np.random.default_rng(0)
    n = rng.integers(3, 30, shape)
    x = rng.integers(0, np.broadcast_to(n, (6, 5)) + 1)
    logits = rng.normal(size=(6, 5)).astype(dtype)
    for kind, given in ((Binomial, [logits]), (BetaBinomial, [np.exp(logits)] * 2)):
        twin = getattr(reference, kind.__name__)(n)
        rows, slopes = kind(n).log_prob_and_grad(x, *given, reduction="none")
        expected, of_reference = twin.log_prob_and_grad(x, *given, reduction="none")
        assert_close(rows, expected, dtype, 200.0)
        for mine, other in zip(slopes, of_reference, strict=True):
            assert_close(mine, other, dtype, 30.0)
        every = np.broadcast_to(n, (6, 5))
        alone = [
            kind(every[i]).log_prob(x[i : i + 1], *[g[i : i + 1] for g in given]) for i in range(6)
        ]
        assert_close(rows, np.array(alone), dtype)
        mu = np.zeros((6, 2), dtype)
        bound = elbo(x, mu, mu, tuple(given), likelihood=kind(n), reduction="none")
        np.testing.assert_allclose(bound.reconstruction, rows, rtol=1e-6)
        several = tuple(np.stack([g, g]) for g in given)
        weights = log_weights(x, np.zeros((2, 6, 2), dtype), mu, mu, several, likelihood=kind(n))
        np.testing.assert_allclose(weights, [rows, rows], rtol=1e-6)


def test_counts_by_sample_of_more_rows_than_a_group():
    n = np.arange(1, 3001)[:, None]
    x, logits = n // 2, np.zeros((100, 3000, 1))
    z, mu = np.zeros((100, 3000, 1)), np.zeros((3000, 1))
    got = iwae(x, z, mu, mu, logits, likelihood=Binomial(n), reduction="none")
    np.testing.assert_allclose(got, Binomial(n).log_prob(x, logits[0], reduction="none"), rtol=1e-9)


def test_errors_of_counts_by_sample():
    n = np.array([[2], [4]])
    with pytest.raises(
        ValueError, match=r"x\[0, 1\] = 3 lies outside.* 1, \.\.\., 2, its total_count"
    ):
        Binomial(n).log_prob([[1, 3], [3, 4]], np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"total_count has shape \(2, 1\).*that of x, \(3, 2\)"):
        Binomial(n).log_prob(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"total_count has shape \(2, 1\)"):
        Binomial(n).mean(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"total_count for each sample.*log_prob_and_grad"):
        VAE(likelihood=Binomial(n)).fit(np.ones((2, 3)))


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_counts_by_sample_of_tensors(forced, composite):
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    if forced:
        composite()
    n, x = torch.tensor([[2], [4]]), torch.tensor([[1, 2], [4, 3]])
    logits = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    got = ft.Binomial(n).log_prob(x, logits, reduction="elementwise")
    expected = torch.distributions.Binomial(n, logits=logits).log_prob(x)
    torch.testing.assert_close(got, expected)
    slopes = [torch.autograd.grad(v.sum(), logits)[0] for v in (got, expected)]
    torch.testing.assert_close(*slopes)
    with pytest.raises(ValueError, match="total_count has shape"):
        ft.Binomial(n).log_prob(x[:1], logits[:, :1])


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_beta_binomials_by_sample_of_tensors(forced, composite):
    """Each row as that of a likelihood of its own count; gradients, too."""
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    if forced:
        composite()
    n, x = torch.tensor([[2], [40]]), torch.tensor([[1, 2], [40, 3]])
    shapes = [torch.rand(2, 2).double().add(0.5).requires_grad_() for _ in range(2)]
    rows = ft.BetaBinomial(n).log_prob(x, *shapes, reduction="none")
    alone = torch.cat(
        [
            ft.BetaBinomial(int(n[i])).log_prob(x[[i]], *[s[[i]] for s in shapes], reduction="none")
            for i in range(2)
        ]
    )
    torch.testing.assert_close(rows, alone)
    for mine, theirs in zip(
        torch.autograd.grad(rows.sum(), shapes),
        torch.autograd.grad(alone.sum(), shapes),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", [Binomial, BetaBinomial])
def test_counts_by_sample_with_masks_threads_and_out(kind):
    rng = np.random.default_rng(0)
    n = rng.integers(1, 9, (70, 1))
    x, mask = rng.integers(0, n + 1, (70, 300)), rng.random((70, 300)) < 0.7
    given = [np.exp(rng.normal(size=(70, 300))) for _ in kind(n).parameters]
    out = tuple(np.empty((70, 300)) for _ in given)
    value, grads = kind(n).log_prob_and_grad(x, *given, mask=mask, out=out, num_threads=1)
    elements = kind(n).log_prob(x, *given, mask=mask, reduction="elementwise")
    assert value == pytest.approx(elements.sum() / 70, rel=1e-13)
    for counts, threads in ((n, 2), (n, 5), (np.repeat(n, 300, axis=1), 1)):
        again, theirs = kind(counts).log_prob_and_grad(x, *given, mask=mask, num_threads=threads)
        assert again == (value if counts is n else pytest.approx(value, rel=1e-14))
        for mine, written, other in zip(grads, out, theirs, strict=True):
            assert mine is written
            np.testing.assert_array_equal(mine, other)
            assert not mine[~mask].any()


def test_an_array_of_counts_compiles_once():
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    compiled = torch.compile(
        lambda x, n, logits: ft.Binomial(n).log_prob(x, logits), fullgraph=True, backend="aot_eager"
    )
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for seed in range(3):
        torch.manual_seed(seed)
        n = torch.randint(1, 9, (4, 1))
        x, logits = torch.zeros(4, 3), torch.randn(4, 3)
        torch.testing.assert_close(compiled(x, n, logits), ft.Binomial(n).log_prob(x, logits))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
