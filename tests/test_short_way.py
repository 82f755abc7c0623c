"""The short way from dense arrays to the pass: it is taken, and gives what the ordinary does."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastelbo
from fastelbo import _objective, discrete_divergences, divergences, likelihoods
from fastelbo._catalogue import CASES, REDUCTIONS, VARIANTS, flatten
from tests.conftest import DTYPES, together

#: What may take it.
NAMES = [n for n, case in CASES.items() if case.likelihood or n.startswith(("elbo", "kl_"))]
NAMES.remove("elbo_from_buffers")
DENSE = [
    label for label, v in VARIANTS.items() if v.make(fastelbo)._term is not None and not v.sparse
]


class Other(np.ndarray):
    """No plain array: what holds one takes the ordinary way, on the same memory."""


class Taken(Exception):
    """The ordinary way was."""


@pytest.fixture
def short(monkeypatch):
    """As if there were no other way."""

    def ordinary(*arguments, **options):
        raise Taken

    monkeypatch.setattr(likelihoods.Likelihood, "_log_prob", ordinary)
    monkeypatch.setattr(_objective, "objective", ordinary)
    monkeypatch.setattr(divergences._arrays, "latents", ordinary)
    monkeypatch.setattr(discrete_divergences, "_ordinary", ordinary)


@pytest.mark.parametrize("name", NAMES)
@together(extents=[{}, {"B": 1, "D": (1,), "L": 1}, {"B": 70, "D": (13, 10)}], dtype=DTYPES)
def test_same_bits(name, extents, dtype):
    case = CASES[name]
    for data in (dtype, np.int16):
        arrays = case.draw(3, dtype, **extents)
        if "x" in arrays:
            arrays["x"] = arrays["x"].astype(data)
        given = case.given(arrays)
        others = [a.view(Other) if isinstance(a, np.ndarray) else a for a in given]
        for reduction in REDUCTIONS if case.has_reduction else (None,):
            options = {"reduction": reduction} if reduction else {}
            got, expected = case.public(*given, **options), case.public(*others, **options)
            assert type(got) is type(expected)
            for a, b in zip(flatten(got), flatten(expected), strict=True):
                np.testing.assert_array_equal(a, b)
                assert type(a) is type(b)


@pytest.mark.parametrize("label", DENSE)
def test_usual_calls_take_it(label, short, dtype):
    """A likelihood of any event, copied and unpickled, too; latents beside it."""
    variant = VARIANTS[label]
    made = variant.make(fastelbo)
    mu = np.zeros((5, 2), dtype)  # then z is the noise
    case = next(c for c in CASES.values() if c.likelihood is variant)
    for likelihood in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        for event in (7,), (2, 3), (7,):
            drawn = case.draw(1, dtype, D=event)
            x = drawn.pop("x")
            outputs = tuple(
                a if a.ndim > x.ndim else np.ascontiguousarray(np.broadcast_to(a, x.shape))
                for a in drawn.values()
            )
            likelihood.log_prob(x, *outputs)
            likelihood.log_prob_and_grad(x, *outputs, reduction="none")
            fastelbo.elbo_and_grad(x, mu, mu, outputs, likelihood=likelihood)
            drawn = fastelbo.elbo(x, mu, mu, outputs, likelihood=likelihood, rng=3).z
            given = fastelbo.elbo(x, mu, mu, outputs, likelihood=likelihood, noise=drawn).z
            assert drawn.any()
            np.testing.assert_array_equal(given, drawn)


def test_a_copy_may_be_changed():
    """What the short way knows of a likelihood is not what it knows of its copies."""
    x = np.array([[1.0, np.nan]])
    likelihood = fastelbo.Gaussian([1.0, 2.0])
    assert np.isnan(likelihood.log_prob(x, np.ones((1, 2))))
    some = copy.copy(likelihood)
    some._missing_nan = True
    assert np.isfinite(some.log_prob(x, np.ones((1, 2))))
    assert np.isnan(likelihood.log_prob(x, np.ones((1, 2))))


def test_threads_of_events_of_their_own():
    """What one thread's pass reads stays, whatever events others have meanwhile."""
    likelihood = fastelbo.Gaussian([[1.0], [2.0]])
    problems = [np.random.default_rng(n).normal(size=(50, 2, n)) for n in (3, 40, 400)]
    expected = [likelihood.log_prob(x, 0 * x) for x in problems]

    def same(i):
        return likelihood.log_prob(problems[i % 3], 0 * problems[i % 3]) == expected[i % 3]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(600)))


def test_outputs_of_ones_own_take_it(short):
    """Unless they overlap what is read or each other, which the ordinary way tells."""
    x, mu = np.ones((2, 5)), np.ones((2, 3))
    out = (np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 5)))
    _, grad = fastelbo.elbo_and_grad(x, mu, mu, x, out=out)
    assert all(a is b for a, b in zip(grad, out, strict=True))
    assert fastelbo.SquaredError().log_prob_and_grad(x, x, out=out[2:])[1][0] is out[2]
    _, grad = fastelbo.kl_standard_normal_and_grad(mu, mu, out=out[:2])
    assert fastelbo.kl_standard_normal_and_grad(mu, mu, out=grad)[1].mu is out[0]
    double = np.empty((2, 10))
    for wrong in (
        (out[0], out[0], out[2]),
        (out[0], out[1], x),
        (out[0], out[1], out[2][:, :4]),
        (out[0], out[1], double[:, ::2]),
        (out[0], None, out[2]),
        out[:2],
        list(out),
    ):
        with pytest.raises(Taken):
            fastelbo.elbo_and_grad(x, mu, mu, x, out=wrong)


def test_divergences_take_it(short, dtype):
    a = np.ones((2, 3), dtype)
    assert fastelbo.kl_standard_normal_and_grad(a, a, reduction="sum")[1].mu.dtype == dtype
    assert fastelbo.kl_normal(a, a, a, a) == 0
    with pytest.raises(Taken):
        fastelbo.kl_normal(a, a, a[:, :2], a[:, :2])
    tril = np.eye(3, dtype=dtype)
    for p in (tril, np.stack([tril, tril])):
        _, grad = fastelbo.kl_full_normal_and_grad(a, tril, a, p, reduction="none")
        assert grad.tril_p.shape == p.shape
        assert grad.tril_p.dtype == dtype
    for kl in (fastelbo.kl_categorical_and_grad, fastelbo.kl_bernoulli_and_grad):
        assert kl(a)[1].prior_logits is None
        assert kl(a, a)[1].prior_logits.shape == (2, 3)
        assert kl(a, a[0])[1].prior_logits.shape == (3,)
        with pytest.raises(Taken):
            kl(a[:, ::2])


@pytest.mark.parametrize("name", ["NegativeBinomial", "ZeroInflatedNegativeBinomial"])
@pytest.mark.parametrize("B", [1, 3, 200])
def test_theta_of_genes_takes_it(name, B, short, dtype):
    """As one row, or as clients hand it over, broadcast to all: whose gradients are by element."""
    rng = np.random.default_rng(B)
    x, logits = rng.poisson(1.0, (B, 600)), rng.normal(size=(B, 600)).astype(dtype)
    mean = np.exp(logits)
    theta = np.exp(rng.normal(size=600)).astype(dtype)
    likelihood, last = getattr(fastelbo, name)(), (logits,) * (name != "NegativeBinomial")
    shown = np.broadcast_to(theta, x.shape)
    whole, wanted = likelihood.log_prob_and_grad(x, mean, shown.copy(), *last)
    close = {"rtol": 100 * float(np.finfo(dtype).eps)}
    for given, by_theta in (theta, wanted[1].sum(0, dtype=np.float64)), (shown, wanted[1]):
        value, gradients = likelihood.log_prob_and_grad(x, mean, given, *last)
        assert value == pytest.approx(whole, rel=close["rtol"])
        assert likelihood.log_prob(x, mean, given, *last) == value
        np.testing.assert_allclose(gradients[1], by_theta, atol=abs(by_theta).max() * close["rtol"])
        np.testing.assert_allclose(gradients[0], wanted[0], **close)


def test_what_lies_outside_is_named_by_the_ordinary_way():
    x = np.full((2, 3), 2.0)
    with pytest.raises(ValueError, match=r"x\[0, 0\] = 2 lies outside the domain of Bernoulli"):
        fastelbo.Bernoulli().log_prob(x, x)
    mu = np.zeros((2, 1))
    with pytest.raises(ValueError, match=r"x\[0, 0\] = 2 lies outside"):
        fastelbo.elbo(x, mu, mu, x, likelihood="bernoulli")
    assert np.isfinite(fastelbo.Bernoulli(validate=False).log_prob(x, x))
    with pytest.raises(ValueError, match="theta has shape"):
        fastelbo.NegativeBinomial(theta=[1.0, 2.0]).log_prob(x, x)
