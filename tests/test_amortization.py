"""Refined posteriors: exact where the posterior is known, never worse than where they began."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastelbo
from fastelbo import (
    VAE,
    Gaussian,
    amortization_gap,
    generalization_gap,
    reference,
    refine_posterior,
)

RNG = np.random.default_rng(3)
#: Orthogonal loadings, so that the posterior is diagonal: precision 1 + |w_l|^2 / 0.25.
W = np.linalg.qr(RNG.normal(size=(6, 3)))[0].T * [[0.3], [1.0], [5.0]]
X = RNG.normal(size=(7, 6)) + 1
START = np.zeros((7, 3))
NORMAL = Gaussian(0.5)


def linear(z, w=W):
    return z @ w, lambda by_x: by_x @ w.T


class Linear:
    """The same, as an object that is called."""

    def __call__(self, z):
        return z @ W

    def backward(self, by_x):
        return by_x @ W.T


def exact(x=X, w=W):
    """mu, logvar of the posterior (or the diagonal one nearest to it) and log p(x)."""
    precision = np.eye(len(w)) + w @ w.T / 0.25
    mu = np.linalg.solve(precision, w @ x.T / 0.25).T
    logvar = np.broadcast_to(-np.log(np.diag(precision)), mu.shape)
    covariance = w.T @ w + 0.25 * np.eye(w.shape[1])
    quadratic = np.einsum("bi,bi->b", x, np.linalg.solve(covariance, x.T).T)
    evidence = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return mu, logvar, evidence


def torch_linear():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 6, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(W.T))
    return layer


@pytest.mark.parametrize("decoder", [lambda: linear, Linear, torch_linear])
def test_a_linear_gaussian_model_has_its_exact_posterior(decoder):
    decoder = decoder()
    found = refine_posterior(decoder, X, START, START, likelihood=NORMAL)
    mu, logvar, evidence = exact()
    assert_allclose(found.mu, mu, atol=1e-6)
    assert_allclose(found.logvar, logvar, atol=1e-6)
    assert_allclose(found.elbo, evidence, atol=1e-9)  # the bound is tight there
    assert found.converged.all()
    assert (found.steps > 0).all()
    assert getattr(decoder, "weight", None) is None or decoder.weight.grad is None


def test_what_gradient_ascent_finds():
    """The reference's, on the same noise, of any likelihood and prior."""
    w, noise = RNG.normal(size=(3, 6)), RNG.normal(size=(8, 1, 3))
    bits, mask = (X > 1).astype(float), RNG.random(X.shape) < 0.8
    components = RNG.normal(size=(2, 3)), np.zeros((2, 3))
    for likelihood, x in (("Bernoulli", bits), ("Gaussian", X)):
        found, expected = (
            module.refine_posterior(
                lambda z: linear(z, w),
                x,
                START,
                START,
                likelihood=getattr(module, likelihood)(),
                prior=module.MixtureOfGaussians(*components),
                mask=mask,
                beta=1.5,
                noise=noise,
                steps=300,
            )
            for module in (fastelbo, reference)
        )
        assert_allclose(found.mu, expected[0], atol=1e-5)
        assert_allclose(found.logvar, expected[1], atol=1e-5)
        assert_allclose(found.elbo, expected[2], rtol=1e-12)


def test_a_search_from_far_away_ends_where_rounding_hides_the_rest():
    """Of the ELBO where it is, not of the far lower one where it began."""
    x, w, start = (np.asarray(a, np.float32) for a in (X, W, START + 30))
    found = refine_posterior(
        lambda z: linear(z, w), x, start, START.astype("f4"), likelihood=NORMAL
    )
    assert found.converged.all()
    assert_allclose(found.elbo, exact()[2], rtol=2e-6)


def test_float64_anywhere_makes_it_float64():
    single = START.astype(np.float32)
    for x, dtype in ((X, np.float64), (X.astype(np.float32), np.float32), (X > 1, np.float32)):
        found = refine_posterior(linear, x, single, single, likelihood=NORMAL, steps=2, rng=0)
        assert found.mu.dtype == found.logvar.dtype == dtype


def test_what_overflows_is_not_the_decoders_fault():
    """A NaN of x is named as such; where a step overflows it is shortened."""
    with pytest.raises(ValueError, match=r"^x\[1\] has an ELBO of nan at its mu and logvar"):
        refine_posterior(linear, np.where(np.arange(7)[:, None] == 1, np.nan, X), START, START)
    far = refine_posterior(linear, 1e3 * X, START, START + 50, likelihood=NORMAL, steps=100)
    assert np.isfinite(far.elbo).all()


@pytest.mark.parametrize("prior", [None, fastelbo.MixtureOfGaussians(np.ones((1, 3)), START[:1])])
def test_beta_may_be_anything(prior, dtype):
    """Of a weight of the KL that its dtype cannot hold: q is the prior, or what no KL is given."""
    x, w, start = (np.asarray(a, dtype) for a in (X, W, START + 0.5))
    eps = np.finfo(dtype).eps

    def found(beta, mu=start, logvar=start, **options):
        options |= {"likelihood": NORMAL, "prior": prior, "beta": beta, "rng": 0}
        return refine_posterior(lambda z: linear(z, w), x, mu, logvar, **options)

    center = np.full_like(start, 0 if prior is None else 1)
    for beta in (1e40, 1e150, 1e300, np.finfo(np.float64).max):
        got = found(beta, steps=200)
        assert_allclose(got.mu, center, atol=np.sqrt(eps))  # it is flat there
        assert_allclose(got.logvar, 0, atol=np.sqrt(eps))
    best = found(0.0, steps=200)
    for beta in (5e-324, 1e-300, 1e-44, 1e-40):
        got = found(beta, steps=200)
        assert got.converged.all()
        assert_allclose(got.elbo, best.elbo, rtol=16 * eps)


def test_a_slope_that_overflows_is_told():
    """There is nothing to climb by; where nothing is climbed it is not asked for."""
    zeros, start = np.zeros((1, 6), "f4"), np.full((1, 3), 1e-3, "f4")
    narrow, w = {"likelihood": Gaussian(1e-21)}, W.astype("f4")
    with pytest.raises(
        ValueError, match=r"^x\[0\] has a slope of -?(inf|nan) at .* in float64 hold more"
    ):
        refine_posterior(lambda z: linear(z, w), zeros, start, start - 40, **narrow)
    still = refine_posterior(lambda z: linear(z, w), zeros, start, start - 40, steps=0, **narrow)
    assert np.isfinite(still.elbo).all()
    found = refine_posterior(linear, zeros, START[:1] + 1e-3, START[:1] - 40, **narrow)
    assert found.elbo > still.elbo


def test_of_a_full_posterior_the_nearest_diagonal_one():
    w = RNG.normal(size=(3, 6))
    found = refine_posterior(
        lambda z: linear(z, w), X, START, START, likelihood=NORMAL, steps=200, rng=1
    )
    mu, logvar, evidence = exact(w=w)
    assert_allclose(found.mu, mu, atol=1e-6)
    assert_allclose(found.logvar, logvar, atol=1e-6)
    assert (found.elbo < evidence).all()


def test_what_was_observed_alone():
    mask = np.array([True, True, False, True, False, True])
    found = refine_posterior(linear, X, START, START, likelihood=NORMAL, mask=mask, steps=200)
    mu, logvar, _ = exact(X[:, mask], W[:, mask])
    assert_allclose(found.mu, mu, atol=1e-6)
    assert_allclose(found.logvar, logvar, atol=1e-6)


def test_a_given_prior_and_beta():
    """The prior N(1, 4): as if z = 1 + 2 u; beta = 2: twice the precision of prior and of q."""
    prior = fastelbo.MixtureOfGaussians(np.ones((1, 3)), np.full((1, 3), np.log(4.0)))
    found = refine_posterior(linear, X, START, START, likelihood=NORMAL, prior=prior, beta=2)
    strength = (W**2).sum(axis=1) / 0.25
    precision = (strength + 2 / 4) / 2
    mu = (X @ W.T / 0.25 + 2 / 4) / (2 * precision)
    assert_allclose(found.mu, mu, atol=1e-6)
    assert_allclose(found.logvar, np.broadcast_to(-np.log(precision), mu.shape), atol=1e-6)


@pytest.fixture(scope="module")
def model():
    data = np.random.default_rng(0).integers(0, 2, (200, 8)).repeat(3, axis=1)
    return VAE(hidden=(16,), latent_dim=3, epochs=8, random_state=0).fit(data), data


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_step_lowers_any_elbo(model, dtype):
    fitted, data = model
    mu, logvar = (a.astype(dtype) for a in fitted._posterior(data.astype(np.float32)))
    before = None
    for steps in range(0, 12, 3):
        found = refine_posterior(fitted, data, mu, logvar, steps=steps, rng=2)
        assert found.mu.dtype == dtype
        assert (found.steps <= steps).all()
        if before is None:
            assert_array_equal(found.mu, mu)
            assert_array_equal(found.logvar, logvar)
        else:
            assert (found.elbo >= before).all()
        before = found.elbo
    start = refine_posterior(fitted, data, mu, logvar, steps=0, rng=2).elbo
    assert (before - start).mean() > 0.1


def test_rows_that_have_converged_are_not_decoded():
    seen = []

    def counting(z):
        seen.append(len(z) // 16)
        return linear(z)

    mu, logvar, _ = exact()
    mu, logvar = mu.copy(), logvar.copy()
    mu[2] += 3
    found = refine_posterior(counting, X, mu, logvar, likelihood=NORMAL)
    assert seen[0] == 7
    assert set(seen[1:]) == {1}
    assert np.flatnonzero(found.steps).tolist() == [2]


def test_a_row_does_not_depend_on_the_others():
    whole = refine_posterior(linear, X, START, START, likelihood=NORMAL, rng=4, steps=3)
    alone = refine_posterior(
        linear, X[2:3], START[:1], START[:1], likelihood=NORMAL, rng=4, steps=3
    )
    assert_allclose(whole.mu[2:3], alone.mu, rtol=1e-12)


def test_gap_of_a_linear_gaussian_model():
    mu, logvar, _ = exact()
    gap = amortization_gap(linear, X, START, START, likelihood=NORMAL, reduction="none", rng=0)
    precision = np.exp(-logvar)
    kl = 0.5 * (precision * (1 + mu**2) - 1 - np.log(precision)).sum(axis=1)  # KL(q, posterior)
    assert_allclose(gap, kl, rtol=1e-9)
    for reduction in ("mean", "sum"):
        value = amortization_gap(
            linear, X, START, START, likelihood=NORMAL, reduction=reduction, rng=0
        )
        assert value == pytest.approx(getattr(kl, reduction)(), rel=1e-9)
    gaps = generalization_gap(linear, (X, mu, logvar), (X, START, START), likelihood=NORMAL, rng=0)
    assert gaps.train == pytest.approx(0, abs=1e-9)
    assert gaps.gap == pytest.approx(kl.mean(), rel=1e-9)


def test_a_vae_knows_where_to_begin(model):
    fitted, data = model
    gap = amortization_gap(fitted, data, rng=0)
    assert gap > 0.1
    mu, logvar = fitted._posterior(data.astype(np.float32))
    assert gap == amortization_gap(
        fitted, data, mu, logvar, likelihood=fitted.likelihood_, prior=None, rng=0
    )


@pytest.mark.parametrize("options", [{}, {"prior": "mixture"}, {"likelihood": "gaussian"}])
def test_a_semi_amortized_vae(model, options, tmp_path):
    from sklearn.base import clone

    data = model[1]
    settings = {"hidden": (16,), "latent_dim": 3, "epochs": 3, "random_state": 0, **options}
    refined = clone(VAE(refine_steps=3, **settings)).fit(data)
    plain = VAE(**settings).fit(data)
    assert refined.history_["elbo"][-1] > plain.history_["elbo"][-1]
    amortized = VAE(**settings)
    vars(amortized).update({k: v for k, v in vars(refined).items() if k != "refine_steps"})
    few = data[:20]
    assert refined.score(few) > amortized.score(few)
    assert_array_equal(refined.score_samples(few)[5:6], refined.score_samples(few[5:6]))
    refined.save(tmp_path / "model.npz")
    again = VAE.load(tmp_path / "model.npz")
    assert again.refine_steps == 3
    assert_array_equal(again.transform(few), refined.transform(few))


@pytest.mark.parametrize(
    ("decoder", "error", "match"),
    [
        (lambda z: z @ W, TypeError, "decoder must return"),
        (lambda z: (z[:1] @ W, None), TypeError, "decoder must return"),
        (lambda z: (z[:1] @ W, linear(z)[1]), ValueError, "decoder: its output"),
        (lambda z: (np.nan * z @ W, linear(z)[1]), ValueError, "decoder: its output has NaN"),
        (lambda z: (z @ W, lambda g: g), ValueError, "decoder: its gradient of z"),
        (lambda z: (z @ W, lambda g: np.nan * g @ W.T), ValueError, "gradient of z has NaN"),
        (3, TypeError, "decoder must be"),
        (VAE(), ValueError, "not fitted"),
    ],
)
def test_decoders_that_do_not_fit(decoder, error, match):
    given = START.copy()
    with pytest.raises(error, match=match):
        refine_posterior(decoder, X, given, given, likelihood=NORMAL)
    assert_array_equal(given, START)


def test_a_decoder_that_autograd_does_not_see():
    decoder = torch_linear().requires_grad_(False)
    decoder.register_forward_pre_hook(lambda module, given: (given[0].detach(),))
    with pytest.raises(ValueError, match="its output does not depend on z, as autograd sees it"):
        refine_posterior(decoder, X, START, START, likelihood=NORMAL)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"steps": -1}, ValueError, "steps"),
        ({"steps": 1.5}, TypeError, "steps"),
        ({"samples": 3}, ValueError, "samples must be even"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"tolerance": -1}, ValueError, "tolerance"),
        ({"beta": -1}, ValueError, "beta"),
        ({"noise": np.zeros((4, 2, 3))}, ValueError, "noise"),
        ({"noise": np.zeros((4, 1, 3)), "rng": 1}, ValueError, "noise"),
        ({"mask": np.ones((2, 2), bool)}, ValueError, "mask"),
        ({"mu": START[:2]}, ValueError, "mu"),
        ({"mu": START * np.nan}, ValueError, "mu contains NaN"),
        ({"likelihood": "gaussian"}, ValueError, "optimal"),
        ({"x": np.float64(1)}, ValueError, "x"),
        ({"prior": "mixture"}, TypeError, "prior"),
    ],
)
def test_arguments_that_do_not_fit(options, error, match):
    arguments = {"x": X, "mu": START, "logvar": START, "likelihood": NORMAL, **options}
    with pytest.raises(error, match=match):
        refine_posterior(linear, **arguments)


@pytest.mark.parametrize("bad", [-1, 1.5])
def test_refine_steps_that_do_not_fit(bad, model):
    with pytest.raises((TypeError, ValueError), match="refine_steps"):
        VAE(refine_steps=bad).fit(model[1])
    with pytest.raises(TypeError, match="train"):
        generalization_gap(model[0], model[1], (model[1],))
