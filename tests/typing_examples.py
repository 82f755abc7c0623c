"""Typical uses, for a type checker: ``mypy --strict`` must agree with every assert_type."""

from typing import Any, Literal, assert_type

import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray

import fastelbo
import fastelbo.dask
import fastelbo.jax as fj
import fastelbo.torch as ft

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.float64]

x = np.ones((4, 3), np.float32)
mu = logvar = np.zeros((4, 2), np.float32)


def objectives() -> None:
    result = fastelbo.elbo(x, mu, logvar, x, rng=1)
    assert_type(result.elbo, float)
    assert_type(result.z, Floats | None)
    rows = fastelbo.elbo([[1.0]], [[0.0]], [[0.0]], [[1.0]], reduction="none")
    assert_type(rows.kl, Rows)

    result, grad = fastelbo.elbo_and_grad(
        x, mu, logvar, x, beta=4, free_bits=fastelbo.FreeBits(0.5, granularity="sample")
    )
    assert_type(grad.x_recon, Floats)
    rows, several = fastelbo.elbo_and_grad(
        x,
        mu,
        logvar,
        (x, x),
        likelihood=fastelbo.Gaussian("learned"),
        prior=fastelbo.VampPrior(mu, logvar),
        reduction="none",
        out=(np.empty_like(mu), None, (None, np.empty_like(x))),
    )
    assert_type(rows.elbo, Rows)
    assert_type(several.x_recon, tuple[Floats, ...])
    assert_type(fastelbo.elbo_from_buffers(b"", b"", b"", b"", 0, 0, 0, beta=2.0).elbo, float)


def of_any_reduction(reduction: Literal["mean", "sum", "none"]) -> fastelbo.ElboResult:
    assert_type(fastelbo.kl_standard_normal(mu, logvar, reduction=reduction), float | Rows)
    return fastelbo.elbo(x, mu, logvar, x, reduction=reduction)


def samples() -> None:
    z = fastelbo.reparameterize(mu, logvar, rng=np.random.default_rng(0), samples=5)
    assert_type(z, Floats)
    log_w = fastelbo.log_weights(x, z, mu, logvar, np.stack([x] * 5))
    assert_type(log_w, Rows)
    bound, grad = fastelbo.importance_bound_and_grad(log_w, alpha=0.5)
    assert_type(bound, float)
    assert_type(grad.log_w, Floats)
    stream = fastelbo.StreamingBound().update(log_w)
    assert_type(stream.bound(), float)
    assert_type(stream.bound(alpha=1, reduction="none"), Rows)
    with fastelbo.num_threads(1):
        assert_type(fastelbo.build_info()["threads"], int)


def likelihoods() -> None:
    value, (_, by_theta) = fastelbo.NegativeBinomial().log_prob_and_grad(x, x, 1.0)
    assert_type(value, float)
    assert_type(by_theta, Floats)
    likelihood: fastelbo.Likelihood = fastelbo.Gaussian(np.ones(3), missing="nan")
    assert_type(likelihood.log_prob(x, x, reduction="none"), Rows)
    assert_type(likelihood.log_prob(x, x, reduction="elementwise"), Floats)


def estimator() -> None:
    model = fastelbo.VAE(hidden=(32,), likelihood="gaussian", random_state=0).fit(x)
    assert_type(model, fastelbo.VAE)
    assert_type(model.transform(x), Floats)
    assert_type(model.score(x), float)
    cells = fastelbo.CountVAE(likelihood="zinb", batch_key=None).fit(x, batch=["a", "a", "b", "b"])
    assert_type(cells, fastelbo.CountVAE)
    assert_type(
        cells.normalized_expression(x, transform_batch="a", library_size="observed"), Floats
    )
    assert_type(cells.sample(2, library_size=1e4, batch=["a", "b"]), NDArray[np.int64])
    assert_type(cells.theta_, Floats | None)
    assert_type(model.history_["elbo"], list[float])
    detector = fastelbo.VAEOutlierDetector(model, contamination=0.05).fit(x)
    assert_type(detector, fastelbo.VAEOutlierDetector)
    assert_type(detector.decision_function(x), Rows)
    assert_type(detector.fit_predict(x), NDArray[np.int_])
    fastelbo.VAE(beta=fastelbo.BetaSchedule("cosine", steps=100, cycles=4))
    assert_type(fastelbo.rate_distortion(model, x, [0.5, 1.0]).rate, Rows)


def remedies() -> None:
    assert_type(fastelbo.delta_posterior(mu, logvar, delta=0.1), tuple[Floats, Floats])
    value, grad = fastelbo.capacity_and_grad(mu, logvar, 5, of="sample")
    assert_type(value, float)
    assert_type(grad.mu, Floats)
    assert_type(fastelbo.Geco(20.0).update(25.0), float)
    assert_type(fastelbo.active_units(mu), NDArray[np.bool_])


def modules() -> None:
    data, latent = torch.ones(4, 3), torch.zeros(4, 2)
    loss = ft.ElboLoss(likelihood=ft.Bernoulli(), beta=2.0)
    assert_type(loss(data, latent, latent, data), torch.Tensor)
    result = ft.elbo(
        data, latent, latent, data, prior=torch.distributions.Normal(latent, 1.0), rng=1
    )
    assert_type(result.z, torch.Tensor | None)
    assert_type(ft.Gaussian().log_prob(data, data), torch.Tensor)
    assert_type(ft.capacity(*ft.delta_posterior(latent, latent, delta=0.1), 5.0), torch.Tensor)


def mistakes() -> None:
    """What a checker must not let pass: each needs its comment, or --strict complains."""
    fastelbo.elbo(x, mu, logvar, x, reduction="average")  # type: ignore[call-overload]
    fastelbo.Gaussian("learnt")  # type: ignore[arg-type]
    fastelbo.elbo(x, mu, logvar, x, likelihood="gauss")  # type: ignore[call-overload]
    ft.ElboLoss(beta=1.0)(data=x)  # type: ignore[call-arg]


def on_dask(lazy: da.Array, model: fastelbo.VAE) -> None:
    assert_type(fastelbo.dask.log_prob("bernoulli", lazy, x, reduction="elementwise"), da.Array)
    result = fastelbo.dask.elbo(lazy, mu, logvar, (lazy, x), rng=1, noise=None)
    assert_type(result.kl, da.Array)
    stream = fastelbo.dask.StreamingBound(num_threads=None).update(lazy)
    assert_type(stream.bound(alpha=1, reduction="none"), da.Array)
    assert_type(fastelbo.dask.transform(model, lazy), da.Array)
    assert_type(fastelbo.dask.fit(model, lazy, client=None), fastelbo.VAE)
    assert_type(model.transform(x), Floats)


def of_jax(key: jax.Array) -> None:
    x, mu = jnp.ones((4, 3)), jnp.zeros((4, 2))
    z = fj.reparameterize(mu, mu, rng=key, samples=2)
    assert_type(z, jax.Array)
    result = fj.elbo(x, mu, mu, (x, x), likelihood=fj.Gaussian("learned"), beta=jnp.ones(()))
    assert_type(result.kl, jax.Array)
    assert_type(result.z, jax.Array | None)
    counts = fj.NegativeBinomial(theta=jnp.ones(3))
    assert_type(counts.log_prob(x, x, reduction="elementwise"), jax.Array)
    assert_type(fj.elbo(x, mu, mu, x, likelihood="bernoulli").elbo, jax.Array)
    prior = fj.VampPrior(mu, mu)
    assert_type(fj.iwae(x, z, mu, mu, jnp.stack([x, x]), prior=prior), jax.Array)
    assert_type(fj.total_correlation(mu, mu, mu, dataset_size=9).total_correlation, jax.Array)
    with fj.plain():
        assert_type(fj.kl_standard_normal(mu, mu), jax.Array)
    fj.Gaussian("lerned")  # type: ignore[arg-type]
