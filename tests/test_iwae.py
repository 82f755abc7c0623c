"""iwae and iwae_and_grad."""

import numpy as np
import pytest

import fastelbo
from fastelbo import importance, iwae, iwae_and_grad, reference, reparameterize_backward
from fastelbo._catalogue import CASES, REDUCTIONS
from tests.conftest import TOLERANCE, assert_close, numerical_gradient
from tests.importance import (
    LinearGaussian,
    StandardNormal,
    draw,
    likelihoods,
    magnitudes,
    outputs_of,
    peak_of,
)

ESTIMATORS = importance.ESTIMATORS


def flat(grad):
    """The gradients of an IwaeGrad or of the reference, decoder outputs one by one."""
    *first, x_recon, weights = grad
    return [*first, *(x_recon if isinstance(x_recon, tuple) else (x_recon,)), weights]


def check(name, arrays, dtype, **options):
    """Against the reference; weights are as exact as the log weights that they come from."""
    ours, theirs = likelihoods(name)
    value, grad = iwae_and_grad(*arrays, likelihood=ours, **options)
    options.pop("num_threads", None)
    expected, desired = reference.iwae_and_grad(*arrays, likelihood=theirs, **options)
    sizes = magnitudes(*arrays, name)
    assert_close(value, expected, dtype, np.sum(sizes.max(axis=0)))
    inherited = 1 + 2 * sizes.max()
    for mine, specified in zip(flat(grad), flat(desired), strict=True):
        assert mine.dtype == dtype
        assert mine.shape == specified.shape
        largest = np.abs(specified).max(initial=0.0)
        assert_close(mine, specified, dtype, inherited * largest)
    return value, grad


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_reductions(reduction, estimator, dtype):
    arrays = draw(dtype)
    value, _ = check("Bernoulli", arrays, dtype, reduction=reduction, estimator=estimator)
    assert np.shape(value) == ((5,) if reduction == "none" else ())
    alone = iwae(*arrays, likelihood=fastelbo.Bernoulli(), reduction=reduction)
    np.testing.assert_array_equal(alone, value)


def test_by_hand():
    """Two samples, w = e^-1 and 1."""
    value, grad = iwae_and_grad([[1.0]], [[[0.0]], [[0.0]]], [[0.0]], [[0.0]], [[[0.0]], [[1.0]]])
    total = np.exp(-1) + 1
    assert value == pytest.approx(np.log(total / 2), rel=1e-14)
    np.testing.assert_allclose(grad.weights.ravel(), [np.exp(-1) / total, 1 / total], rtol=1e-14)
    np.testing.assert_allclose(grad.x_recon.ravel(), [2 * np.exp(-1) / total, 0.0], rtol=1e-14)


def test_one_sample_is_the_elbo_of_one_sample():
    x, z, mu, logvar, x_recon = draw(np.float64, samples=1)
    value = iwae(x, z, mu, logvar, x_recon)
    log_w = fastelbo.log_weights(x, z, mu, logvar, x_recon)
    np.testing.assert_allclose(value, log_w.mean(), rtol=1e-14)


# How the work is divided ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("name", ["Bernoulli", "Gaussian-learned"])
def test_does_not_depend_on_threads_or_groups(name, batch, dtype, monkeypatch):
    arrays = draw(dtype, 17, batch, (300,), 20, outputs_of(name))
    likelihood, _ = likelihoods(name)
    value, expected = iwae_and_grad(*arrays, likelihood=likelihood, num_threads=1)
    # All samples of a row by one worker; all samples of all rows, of some, of one.
    for rows, cache in ((0, 1), (1 << 30, 1 << 30), (1 << 30, 60_000), (1 << 30, 100)):
        monkeypatch.setattr(importance._kernels, "ROWS_A_THREAD", rows)
        monkeypatch.setattr(importance, "CACHE", cache)
        for threads in (1, 2, 3, 8):
            again, grad = iwae_and_grad(*arrays, likelihood=likelihood, num_threads=threads)
            assert again == value
            for mine, first in zip(flat(grad), flat(expected), strict=True):
                np.testing.assert_array_equal(mine, first)


@pytest.mark.parametrize("rows", [0, 1 << 30])
@pytest.mark.parametrize("name", ["Bernoulli", "Gaussian-learned"])
def test_long_rows_and_views(name, rows, dtype, monkeypatch):
    """Rows of several units, and of several runs."""
    monkeypatch.setattr(importance._kernels, "ROWS_A_THREAD", rows)
    arrays = draw(dtype, 3, 5, (2, 4500), 4, outputs_of(name))
    outputs = arrays[4] if isinstance(arrays[4], tuple) else (arrays[4],)
    views = tuple(np.repeat(a, 2, axis=2)[:, :, ::2] for a in outputs)
    assert not views[0].flags.c_contiguous
    check(name, arrays, dtype)
    check(name, (*arrays[:4], views if len(views) > 1 else views[0]), dtype)


@pytest.mark.parametrize("event", [(1024,), (1030,), (5000,), (13, 81)])
@pytest.mark.parametrize("name", ["SquaredError", "Bernoulli", "Gaussian-learned"])
def test_large_gradients_are_those_of_a_few_rows(name, event, dtype):
    """They wait for their weights elsewhere, and are written past the caches; no bit differs."""
    ours, _ = likelihoods(name)
    batch = -(-(8 << 20) // (24 * int(np.prod(event)) * np.dtype(dtype).itemsize))
    x, z, mu, logvar, outputs = draw(dtype, 24, batch + 16, event, outputs=outputs_of(name))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    mask = None if event[0] == 1024 else np.random.default_rng(1).random(x.shape) < 0.9
    if len(event) > 1:  # rows of several runs
        x, mask, *outputs = (a[..., ::-1, 1:] for a in (x, mask, *outputs))

    def bound_of(rows):
        some = tuple(a[:, rows] for a in outputs)
        arrays = (x[rows], z[:, rows], mu[rows], logvar[rows], some if len(some) > 1 else some[0])
        options = {"likelihood": ours, "mask": None if mask is None else mask[rows]}
        return iwae_and_grad(*arrays, reduction="none", **options)

    value, grad = bound_of(slice(None))
    few = slice(3, 19)
    expected, desired = bound_of(few)
    np.testing.assert_array_equal(value[few], expected)
    for whole, part in zip(flat(grad), flat(desired), strict=True):
        by_sample = whole.ndim > 2 or whole.shape[0] == 24
        np.testing.assert_array_equal(whole[:, few] if by_sample else whole[few], part)


def test_memory_besides_the_gradients():
    """A problem of 26 MB: the log weights take 64 KB."""
    arrays = draw(np.float32, 64, 128, (784,), 20)
    out = tuple(np.empty_like(a) for a in arrays[1:])
    likelihood = fastelbo.Bernoulli()
    for threads in (1, 2):
        options = {"likelihood": likelihood, "out": out, "num_threads": threads}
        assert peak_of(lambda: iwae_and_grad(*arrays, **options)) < 200_000  # noqa: B023


def test_very_many_samples():
    """K = 100 000 take their weights, (K, B), and log p(x|z) of one x and the next; no more."""
    arrays = draw(np.float32, 100_000, 2, (5,), 2)
    out = tuple(np.empty_like(a) for a in arrays[1:])
    of_weights = 100_000 * (2 * 8 + 2 * 4)
    assert peak_of(lambda: iwae(*arrays)) < of_weights + 20_000
    assert peak_of(lambda: iwae_and_grad(*arrays, out=out)) < of_weights + 20_000
    bound, *gradients = CASES["iwae_and_grad"].peers["numpy_and_grad"](*map(np.float64, arrays))
    assert iwae(*arrays) == pytest.approx(bound, rel=1e-6)
    for mine, desired in zip(out, gradients, strict=True):
        assert_close(mine, desired, np.float32, 100 * np.abs(desired).max())


# Likelihoods ------------------------------------------------------------------------------------


def check_likelihood(kind, arguments, arrays, **options):
    """Against the reference in float64, where the weights are not extreme."""
    ours, theirs = (getattr(module, kind)(*arguments) for module in (fastelbo, reference))
    value, grad = iwae_and_grad(*arrays, likelihood=ours, **options)
    expected, desired = reference.iwae_and_grad(*arrays, likelihood=theirs, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for mine, specified in zip(flat(grad), flat(desired), strict=True):
        assert mine.shape == specified.shape
        largest = np.abs(specified).max(initial=0.0)
        np.testing.assert_allclose(mine, specified, rtol=1e-10, atol=1e-12 * largest)
    options.pop("estimator", None)
    alone = iwae(*arrays, likelihood=ours, **options)
    np.testing.assert_allclose(alone, value, rtol=1e-14)
    return grad


@pytest.mark.parametrize("room", [1, 2000, 1 << 20])
@pytest.mark.parametrize("shape", [(), (7,), (5, 1), (5, 7), (4, 1, 1), (1, 5, 7), (4, 5, 7)])
@pytest.mark.parametrize("kind", ["Gaussian", "Laplace", "NegativeBinomial"])
def test_parameters_that_are_broadcast(kind, shape, room, monkeypatch):
    """Their gradients come in their own shape, whatever rows are taken at once."""
    monkeypatch.setattr(importance, "ROOM", room)
    x, z, mu, logvar, x_recon = draw(np.float64)
    other = 0.3 * np.random.default_rng(1).normal(size=shape)
    if kind == "NegativeBinomial":
        x, x_recon, other = np.round(4 * x), np.exp(x_recon), np.exp(other)
    arguments = () if kind == "NegativeBinomial" else ("learned",)
    for options in ({"reduction": "sum"}, {"estimator": "dreg"}):
        grad = check_likelihood(kind, arguments, (x, z, mu, logvar, (x_recon, other)), **options)
        assert np.shape(grad.x_recon[1]) == shape


@pytest.mark.parametrize("kind", ["NegativeBinomial", "ZeroInflatedNegativeBinomial"])
@pytest.mark.parametrize("theta", [1.5, np.linspace(0.1, 20.0, 7)])
def test_a_fixed_theta(kind, theta):
    x, z, mu, logvar, logits = draw(np.float64)
    mean = np.exp(logits)
    outputs = mean if kind == "NegativeBinomial" else (mean, logits)
    check_likelihood(kind, (theta,), (np.round(4 * x), z, mu, logvar, outputs))


def test_sums_over_rows_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(importance, "ROOM", 30_000)
    x, z, mu, logvar, x_recon = draw(np.float32, 9, 40, (100,), 5)
    given = (x, z, mu, logvar, (x_recon, np.full(100, 0.1, np.float32)))
    likelihood = fastelbo.Gaussian("learned")
    first = iwae_and_grad(*given, likelihood=likelihood, num_threads=1)[1].x_recon[1]
    for threads in (2, 3, 8):
        again = iwae_and_grad(*given, likelihood=likelihood, num_threads=threads)[1].x_recon[1]
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("kind", ["SquaredError", "Bernoulli", "Poisson", "Categorical"])
def test_missing_values(kind, monkeypatch):
    """By a mask or as NaN: what is missing counts nothing, whatever is there."""
    monkeypatch.setattr(importance, "VALUES_AT_ONCE", 8)
    x, z, mu, logvar, x_recon = draw(np.float64)
    if kind in ("Poisson", "Categorical"):
        x = np.round(3 * x)
    if kind == "Categorical":
        x_recon = np.stack([x_recon, -x_recon, 0.5 * x_recon, x_recon**2], axis=-1)
    mask = np.random.default_rng(2).random(x.shape) < 0.6
    given = (z, mu, logvar, x_recon)
    grad = check_likelihood(kind, (), (x, *given), mask=mask)
    assert np.all(grad.x_recon[:, ~mask] == 0.0)
    holes = np.where(mask, x, np.nan)
    likelihood = getattr(fastelbo, kind)(missing="nan")
    _, by_nan = iwae_and_grad(holes, *given, likelihood=likelihood)
    for mine, theirs in zip(flat(by_nan), flat(grad), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    log_w = fastelbo.log_weights(x, *given, likelihood=getattr(fastelbo, kind)(), mask=mask[0])
    expected = reference.log_weights(x, *given, likelihood=getattr(reference, kind)(), mask=mask[0])
    np.testing.assert_allclose(log_w, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="mask has shape"):
        iwae(x, *given, likelihood=getattr(fastelbo, kind)(), mask=mask[:3])


@pytest.mark.parametrize(
    ("likelihood", "where", "value", "message"),
    [
        (fastelbo.Bernoulli(), "x", 1.5, r"x\[7, 2\] = 1.5"),
        (fastelbo.Poisson(), "x", -1.0, r"x\[7, 2\] = -1"),
        (fastelbo.Poisson(log_input=False), "x_recon", -2.0, r"rate\[3, 7, 2\] = -2"),
        (fastelbo.Binomial(4), "x", 5.0, r"x\[7, 2\] = 5"),
        (fastelbo.Categorical(), "x", 7.0, r"x\[7\] = 7"),
        (fastelbo.NegativeBinomial(2.0), "x", 0.5, r"x\[7, 2\] = 0.5"),
        (fastelbo.NegativeBinomial(2.0), "x_recon", -2.0, r"mean\[3, 7, 2\] = -2"),
        (fastelbo.NegativeBinomial(), "theta", -2.0, r"theta\[2\] = -2"),
    ],
)
def test_offenders_are_named_in_the_callers_numbering(
    likelihood, where, value, message, monkeypatch
):
    monkeypatch.setattr(importance, "VALUES_AT_ONCE", 8)
    monkeypatch.setattr(importance, "CACHE", 1)
    monkeypatch.setattr(importance, "ROOM", 1)
    x, z, mu, logvar, x_recon = draw(np.float64, samples=4, batch=9)
    x, x_recon, theta = np.round(x), np.exp(x_recon), np.ones(7)
    if isinstance(likelihood, fastelbo.Categorical):
        x = x[:, 2]
    if where == "x":
        x[(7, 2)[: x.ndim]] = value
    elif where == "x_recon":
        x_recon[3, 7, 2] = value
    else:
        theta[2] = value
    outputs = (x_recon, theta) if len(likelihood.parameters) > 1 else x_recon
    for function in (iwae, iwae_and_grad, fastelbo.log_weights):
        with pytest.raises(ValueError, match=message):
            function(x, z, mu, logvar, outputs, likelihood=likelihood)


# Options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_prior_of_ones_own(estimator, dtype):
    arrays = draw(dtype)
    value, grad = iwae_and_grad(*arrays, estimator=estimator)
    again, same = iwae_and_grad(*arrays, estimator=estimator, prior=StandardNormal())
    sizes = magnitudes(*arrays, "SquaredError")
    assert again == pytest.approx(value, rel=20 * TOLERANCE[dtype])
    for mine, theirs in zip(flat(grad), flat(same), strict=True):
        assert_close(mine, theirs, dtype, 2 * sizes.max() * np.abs(theirs).max(initial=0.0))


def test_another_prior():
    """N(m, I): its gradient is m - z."""

    class Shifted(StandardNormal):
        def log_prob(self, z):
            return super().log_prob(np.asarray(z) - 0.5)

        def log_prob_and_grad(self, z):
            return self.log_prob(z), 0.5 - np.asarray(z)

    x, z, *rest = draw(np.float64, 3, 2, (4,), 2)
    value, grad = iwae_and_grad(x, z, *rest, prior=Shifted())
    assert value == iwae(x, z, *rest, prior=Shifted())
    assert value != iwae(x, z, *rest)
    numerical = numerical_gradient(lambda a: iwae(x, a, *rest, prior=Shifted()), z)
    np.testing.assert_allclose(grad.z, numerical, rtol=1e-7, atol=1e-9)
    with pytest.raises(TypeError, match="log_prob_and_grad"):
        iwae_and_grad(x, z, *rest, prior=type("P", (), {"log_prob": Shifted().log_prob})())


def test_out():
    arrays = draw(np.float64)
    out = tuple(np.empty_like(a) for a in arrays[1:])
    _, grad = iwae_and_grad(*arrays, out=out)
    _, fresh = iwae_and_grad(*arrays)
    for mine, given, expected in zip(grad, out, fresh, strict=False):
        assert mine is given
        np.testing.assert_array_equal(mine, expected)
    _, grad = iwae_and_grad(*arrays, out=(None, None, None, out[3]))
    assert grad.x_recon is out[3]
    for position, name in enumerate(("z", "mu", "logvar", "x_recon")):
        bad = [*out[:position], arrays[position + 1], *out[position + 1 :]]
        with pytest.raises(ValueError, match=f"out.{name} overlaps"):
            iwae_and_grad(*arrays, out=tuple(bad))
    for bad in (out[:3], list(out), out[0]):
        with pytest.raises(TypeError, match="out must be"):
            iwae_and_grad(*arrays, out=bad)


def test_out_of_two_decoder_outputs():
    arrays = draw(np.float64, outputs=2)
    likelihood = fastelbo.Gaussian("learned")
    room = tuple(np.empty_like(a) for a in arrays[4])
    _, grad = iwae_and_grad(*arrays, likelihood=likelihood, out=(None, None, None, room))
    assert grad.x_recon[0] is room[0]
    assert grad.x_recon[1] is room[1]
    with pytest.raises(TypeError, match="out must be"):
        iwae_and_grad(*arrays, likelihood=likelihood, out=(None, None, None, room[0]))


def test_unknown_options():
    arrays = draw(np.float64)
    with pytest.raises(ValueError, match="estimator"):
        iwae_and_grad(*arrays, estimator="best")
    for function in (iwae, iwae_and_grad):
        with pytest.raises(ValueError, match="reduction"):
            function(*arrays, reduction="median")
        with pytest.raises(ValueError, match="num_threads"):
            function(*arrays, num_threads=0)


def test_infinities_and_nan():
    """A weight of zero takes no part; NaN spoils its own x and no other."""
    x, z, mu, logvar, x_recon = draw(np.float64)
    far, spoiled = x_recon.copy(), x_recon.copy()
    far[1, 0] = 1e200
    spoiled[1, 0, 0] = np.nan
    rows, grad = iwae_and_grad(x, z, mu, logvar, far, reduction="none")
    fewer = iwae(x, z[[0, 2, 3]], mu, logvar, far[[0, 2, 3]], reduction="none")
    np.testing.assert_allclose(rows[0], fewer[0] + np.log(3 / 4), rtol=1e-13)
    assert grad.weights[1, 0] == 0.0
    np.testing.assert_array_equal(grad.z[1, 0], 0.0)
    clean, expected = iwae_and_grad(x, z, mu, logvar, x_recon, reduction="none")
    rows, grad = iwae_and_grad(x, z, mu, logvar, spoiled, reduction="none")
    np.testing.assert_array_equal(np.isnan(rows), [True, False, False, False, False])
    np.testing.assert_array_equal(rows[1:], clean[1:])
    np.testing.assert_array_equal(grad.x_recon[:, 1:], expected.x_recon[:, 1:])
    assert np.isnan(grad.z[:, 0]).all()


# The linear-Gaussian model ----------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 2, 5, 50, 500])
def test_exact_posterior_gives_the_evidence(samples):
    """Every L_K is log p(x), and sticking the landing leaves no gradient."""
    model = LinearGaussian()
    mu, logvar = model.mu, model.logvar
    z = model.sample(mu, logvar, samples, 0)
    rows, grad = iwae_and_grad(
        model.x,
        z,
        mu,
        logvar,
        model.decode(z),
        likelihood=model.likelihood,
        estimator="stl",
        reduction="none",
    )
    np.testing.assert_allclose(rows, model.log_evidence, rtol=1e-12)
    np.testing.assert_allclose(grad.weights, 1 / samples, rtol=1e-11)
    total = grad.z + grad.x_recon * model.slope
    np.testing.assert_allclose(total, 0.0, atol=1e-12)
    d_mu, d_logvar = reparameterize_backward(total, mu, logvar, z)
    np.testing.assert_allclose(d_mu + grad.mu, 0.0, atol=1e-12)
    np.testing.assert_allclose(d_logvar + grad.logvar, 0.0, atol=1e-12)


def test_wrong_posterior_grows_towards_the_evidence():
    model = LinearGaussian(batch=2000)
    mu, logvar = model.wrong(0.5)
    gaps = []  # to log p(x) of each x
    for samples in (1, 5, 50, 500):
        z = model.sample(mu, logvar, samples, samples)
        rows = iwae(
            model.x, z, mu, logvar, model.decode(z), likelihood=model.likelihood, reduction="none"
        )
        gaps.append(model.log_evidence - rows)
    means = [gap.mean() for gap in gaps]
    assert means[0] > means[1] > means[2] > means[3]
    assert means[2] > 3 * gaps[2].std() / np.sqrt(len(gaps[2]))  # still below, beyond chance
    assert means[3] < 0.02 < 0.5 < means[0]


def encoder_gradients(model, mu, logvar, samples, estimator, repetitions):
    """Estimates of d L_K / d(mu, logvar) summed over x, (repetitions, 2, features)."""
    shape = (repetitions, len(model.x), mu.shape[1])
    repeated = [np.broadcast_to(a, shape).reshape(-1, mu.shape[1]) for a in (model.x, mu, logvar)]
    x, mu, logvar = (np.ascontiguousarray(a) for a in repeated)
    z = model.sample(mu, logvar, samples, 2)
    _, grad = iwae_and_grad(
        x,
        z,
        mu,
        logvar,
        model.decode(z),
        likelihood=model.likelihood,
        estimator=estimator,
        reduction="sum",
    )
    dz = grad.x_recon * model.slope
    total = grad.z + (grad.weights[..., None] * dz if estimator == "dreg" else dz)
    parts = reparameterize_backward(total, mu, logvar, z)
    d_mu, d_logvar = parts.mu + grad.mu, parts.logvar + grad.logvar
    return np.stack([d_mu.reshape(shape).sum(1), d_logvar.reshape(shape).sum(1)], axis=1)


def test_dreg_agrees_with_the_standard_estimator_and_varies_less():
    model = LinearGaussian()
    mu, logvar = model.wrong(0.3)
    standard, dreg, stl = (
        encoder_gradients(model, mu, logvar, 16, estimator, 4000)
        for estimator in ("standard", "dreg", "stl")
    )
    error = np.sqrt((standard.var(axis=0) + dreg.var(axis=0)) / len(dreg))
    assert np.all(np.abs(standard.mean(axis=0) - dreg.mean(axis=0)) < 4.5 * error)
    assert np.all(dreg.var(axis=0) < 0.5 * standard.var(axis=0))
    # STL is biased for K > 1, which shows that the comparison above can fail.
    error = np.sqrt((standard.var(axis=0) + stl.var(axis=0)) / len(stl))
    assert np.any(np.abs(standard.mean(axis=0) - stl.mean(axis=0)) > 6 * error)


def test_standard_gradient_is_unbiased_for_the_bound():
    """Its mean is the slope of the mean bound, by common random numbers."""
    model = LinearGaussian(batch=3, features=2)
    mu, logvar = model.wrong(0.3)
    eps = np.random.default_rng(5).normal(size=(4, 3, 2))

    def bound(mu):
        z = mu + np.exp(0.5 * logvar) * eps
        return iwae(model.x, z, mu, logvar, model.decode(z), likelihood=model.likelihood)

    z = mu + np.exp(0.5 * logvar) * eps
    _, grad = iwae_and_grad(model.x, z, mu, logvar, model.decode(z), likelihood=model.likelihood)
    total = grad.z + grad.x_recon * model.slope
    d_mu = reparameterize_backward(total, mu, logvar, z).mu + grad.mu
    np.testing.assert_allclose(d_mu, numerical_gradient(bound, mu), rtol=1e-8, atol=1e-10)


# Against PyTorch --------------------------------------------------------------------------------


def torch_model(torch, estimator, x, eps, weights):
    """Encoder and decoder of one layer each, trained by surrogate losses as the papers state them.

    Returns the bound and the gradients by all four weight matrices.
    """
    tensors = [torch.from_numpy(w).requires_grad_() for w in weights]
    w_mu, w_logvar, w_decoder, bias = tensors
    x, eps = torch.from_numpy(x), torch.from_numpy(eps)
    mu, logvar = x @ w_mu, x @ w_logvar
    z = mu + torch.exp(0.5 * logvar) * eps
    loss = torch.nn.functional.binary_cross_entropy_with_logits

    def log_w(z, mu, logvar, w_decoder, bias):
        logits = z @ w_decoder + bias
        normal = torch.distributions.Normal
        log_p = -loss(logits, x.expand(logits.shape), reduction="none").sum(2)
        log_q = normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(2)
        return log_p + normal(0.0, 1.0).log_prob(z).sum(2) - log_q

    plain = log_w(z, mu, logvar, w_decoder, bias)
    w = torch.softmax(plain.detach(), 0)
    bound = (torch.logsumexp(plain, 0) - np.log(len(plain))).mean()
    if estimator == "standard":
        return bound.item(), [g.numpy() for g in torch.autograd.grad(bound, tensors)]
    stopped = log_w(z, mu.detach(), logvar.detach(), w_decoder.detach(), bias.detach())
    power = 2 if estimator == "dreg" else 1
    encoder = (w**power * stopped).sum(0).mean()
    decoder = (w * log_w(z.detach(), mu.detach(), logvar.detach(), w_decoder, bias)).sum(0).mean()
    of_encoder = torch.autograd.grad(encoder, tensors[:2])
    of_decoder = torch.autograd.grad(decoder, tensors[2:])
    return bound.item(), [g.numpy() for g in (*of_encoder, *of_decoder)]


def own_model(estimator, x, eps, weights):
    """The same with fastelbo, backward written as the docstring of iwae_and_grad says."""
    w_mu, w_logvar, w_decoder, bias = weights
    mu, logvar = x @ w_mu, x @ w_logvar
    z = fastelbo.reparameterize(mu, logvar, noise=eps, samples=len(eps))
    logits = z @ w_decoder + bias
    bound, grad = iwae_and_grad(
        x, z, mu, logvar, logits, likelihood=fastelbo.Bernoulli(), estimator=estimator
    )
    d_decoder = np.einsum("kbl,kbd->ld", z, grad.x_recon)
    d_bias = grad.x_recon.sum(axis=(0, 1))
    dz = grad.x_recon @ w_decoder.T
    total = grad.z + (grad.weights[..., None] * dz if estimator == "dreg" else dz)
    d_mu, d_logvar = reparameterize_backward(total, mu, logvar, z)
    return bound, [x.T @ (d_mu + grad.mu), x.T @ (d_logvar + grad.logvar), d_decoder, d_bias]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_whole_model_in_pytorch(estimator):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    batch, features, latent, samples = 6, 9, 4, 7
    x = rng.uniform(size=(batch, features))
    eps = rng.normal(size=(samples, batch, latent))
    shapes = [(features, latent), (features, latent), (latent, features), (features,)]
    weights = [0.5 * rng.normal(size=shape) for shape in shapes]
    expected, desired = torch_model(torch, estimator, x, eps, weights)
    value, gradients = own_model(estimator, x, eps, weights)
    assert value == pytest.approx(expected, rel=1e-13)
    for mine, theirs in zip(gradients, desired, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-13)


def test_estimators_differ():
    arrays = draw(np.float64)
    standard, stl, dreg = (iwae_and_grad(*arrays, estimator=e)[1] for e in ESTIMATORS)
    np.testing.assert_array_equal(standard.z, stl.z)
    np.testing.assert_allclose(dreg.z, standard.z * standard.weights[..., None], rtol=1e-13)
    for grad in (stl, dreg):
        np.testing.assert_array_equal(grad.x_recon, standard.x_recon)
        np.testing.assert_array_equal(grad.mu, 0.0)
        np.testing.assert_array_equal(grad.logvar, 0.0)
    assert np.abs(standard.mu).min() > 0
