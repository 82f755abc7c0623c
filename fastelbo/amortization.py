"""What amortized inference gives away: the posterior of each x by itself, and the gaps.

An encoder shares its weights among all x. For one x alone its (mu, logvar) are hardly ever the best
ones: `refine_posterior` finds those, `amortization_gap` says what they gain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_number, as_whole, positive_number, share_of
from fastelbo._ascent import Ascent
from fastelbo._decoders import as_decoder, is_model
from fastelbo._draws import balanced_noise
from fastelbo._named import as_likelihood
from fastelbo._reading import as_real, as_unmasked, sparse_rows
from fastelbo.bounds import reduce_rows
from fastelbo.divergences import kl_standard_normal
from fastelbo.likelihoods import check_reduction
from fastelbo.locations import SquaredError
from fastelbo.posterior import noise_key, reparameterize, reparameterize_backward
from fastelbo.priors import LOG_2PI, StandardNormal, as_prior, density

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import (
        AnyLikelihood,
        ByRow,
        DifferentiablePrior,
        Float64Array,
        FloatArray,
        Number,
        Reduced,
        Reduction,
        Rng,
        Threads,
    )

#: Rows of z that are decoded at once.
ROWS = 1 << 13
#: A variance may change by e^2 in a step.
MOST = 2.0
#: Draws of z by which a gap is told, at least.
JUDGES = 64


class RefinedPosterior(NamedTuple):
    """The best q(z|x) found of each x.

    ``mu`` and ``logvar`` (B, L); ``elbo`` (B,), by the noise that was climbed on; ``steps`` (B,),
    how often each row was evaluated; ``converged`` (B,), whether no step promised any more.
    """

    mu: FloatArray
    logvar: FloatArray
    elbo: Float64Array
    steps: np.ndarray
    converged: np.ndarray


class GeneralizationGap(NamedTuple):
    """Mean amortization gaps of data that were trained on and others, and ``gap``, test - train."""

    train: float
    test: float
    gap: float


class _Objective:
    """The ELBO of each row and its gradient, as a function of (mu, logvar), on fixed noise.

    What is climbed is the ELBO times `share`, by which a large `beta` becomes about 1:
    nothing overflows that the ELBO does not.
    """

    def __init__(self, decoder, x, mu, logvar, likelihood, prior, beta, mask, num_threads):
        if is_model(decoder):
            decoder._check_fitted()
            likelihood = decoder.likelihood_ if likelihood is None else likelihood
            prior = getattr(decoder, "prior_", None) if prior is None else prior
        self.likelihood = as_likelihood(SquaredError() if likelihood is None else likelihood)
        if self.likelihood._couples_rows():
            raise ValueError(
                'likelihood: scale="optimal" depends on the whole minibatch and gives no density '
                "of one sample to climb; use the scale that training ended with"
            )
        prior = as_prior(prior)
        self.prior = None if isinstance(prior, StandardNormal) else prior
        beta = as_number(beta, "beta", 0)
        self.share = share_of(beta)
        self.beta = beta * self.share
        self.num_threads = num_threads
        sparse = hasattr(x, "toarray")
        self.x = sparse_rows(x, "x") if sparse else as_real(x, "x")
        if self.x.ndim == 0 or len(self.x) == 0:
            raise _arrays.shape_error("x", self.x.shape, "(samples, ...)")
        self.decode = as_decoder(decoder, x)
        if mu is None and logvar is None and is_model(decoder):
            mu, logvar = decoder._posterior(decoder._checked_data(x))
        self.mu, self.logvar = _arrays.latents(mu, logvar, batch=len(self.x))
        if self.x.dtype == np.float64 and not is_model(decoder):
            self.mu, self.logvar = (_arrays.in_dtype(a, False) for a in (self.mu, self.logvar))
        for name, a in (("mu", self.mu), ("logvar", self.logvar)):
            if not np.isfinite(a).all():
                raise ValueError(f"{name} contains NaN or infinity")
        self.mask = None
        if mask is not None:
            mask = as_unmasked(mask, "mask")
            try:
                self.mask = np.broadcast_to(mask, self.x.shape)
            except ValueError:
                wanted = f"one that broadcasts to {self.x.shape}"
                raise _arrays.shape_error("mask", mask.shape, wanted) from None

    def draws(self, samples, rng, noise=None):
        """Noise (K, B or 1, L): what was given, or balanced draws, the same for all rows."""
        batch, latent_dim = self.mu.shape
        if noise is not None:
            if rng is not None or samples is not None:
                raise ValueError("give noise, or rng and samples, not both")
            noise = np.asarray(_arrays.as_floats(noise, "noise"), self.mu.dtype)
            if noise.ndim != 3 or noise.shape[1:] not in ((batch, latent_dim), (1, latent_dim)):
                wanted = f"(samples, {batch} or 1, {latent_dim})"
                raise _arrays.shape_error("noise", noise.shape, wanted)
            return noise
        if samples is None:
            samples = _usual_draws(latent_dim)
        samples = as_whole(samples, "samples", 2)
        if samples % 2:
            raise ValueError(f"samples must be even, since draws come in pairs, got {samples}")
        return balanced_noise(noise_key(rng), samples, latent_dim, self.mu.dtype)

    def of_rows(self, mu, logvar, rows, noise, with_gradient=True):
        """(ELBO of each of these rows, its gradients by mu and logvar or None), times `share`."""
        x = self.x[rows]
        mask = None if self.mask is None else self.mask[rows]
        noise = noise if noise.shape[1] == 1 else noise[:, rows]
        noise = np.ascontiguousarray(np.broadcast_to(noise, (len(noise), *mu.shape)))
        threads = self.num_threads
        z = reparameterize(mu, logvar, noise=noise, samples=len(noise), num_threads=threads)
        outputs, pullback = self.decode(z.reshape(-1, z.shape[-1]), rows)
        outputs = tuple(a.reshape(*z.shape[:2], *a.shape[1:]) for a in outputs)
        options = {"mask": mask, "reduction": "none", "num_threads": threads}
        if with_gradient:
            log_p, by_outputs = self.likelihood.log_prob_and_grad(x, *outputs, **options)
        else:
            log_p = self.likelihood.log_prob(x, *outputs, **options)
        if self.prior is None:
            kl = kl_standard_normal(mu, logvar, reduction="none", num_threads=threads)
        else:
            log_prior, of_prior = density(self.prior, z, with_gradient)
            entropy = 0.5 * (logvar.astype(np.float64) + 1 + LOG_2PI).sum(axis=1)
            kl = -log_prior.mean(axis=0) - entropy
        elbo = self.share * log_p.mean(axis=0) - self.beta * kl
        if not with_gradient:
            return elbo, None
        by_z = pullback(*(a.reshape(-1, *a.shape[2:]) for a in by_outputs)).reshape(z.shape)
        by_z = by_z * (self.share / len(z))
        if self.prior is not None:
            by_z += (self.beta / len(z)) * of_prior
        by_mu, by_logvar = reparameterize_backward(
            by_z,
            mu,
            logvar,
            None,
            noise=noise,
            kl_weight=self.beta if self.prior is None else 0.0,
            num_threads=threads,
        )
        if self.prior is not None:
            by_logvar += 0.5 * self.beta  # of the entropy of q
        return elbo, (by_mu, by_logvar)

    def chunks(self, samples):
        step = _step(samples)
        return [
            np.arange(start, min(start + step, len(self.x)))
            for start in range(0, len(self.x), step)
        ]

    def elbo(self, mu, logvar, noise):
        """The ELBO of all rows."""
        parts = [
            self.of_rows(mu[rows], logvar[rows], rows, noise, False)[0]
            for rows in self.chunks(len(noise))
        ]
        return np.concatenate(parts) / self.share

    def refine(self, noise, steps, learning_rate, tolerance):
        batch, latent_dim = self.mu.shape
        found = RefinedPosterior(
            np.empty_like(self.mu),
            np.empty_like(self.logvar),
            np.empty(batch),
            np.empty(batch, np.int64),
            np.empty(batch, bool),
        )
        most = np.repeat([np.inf, MOST], latent_dim).astype(self.mu.dtype)
        for chunk in self.chunks(len(noise)):

            def evaluate(points, rows, chunk=chunk):
                with np.errstate(over="ignore", invalid="ignore"):  # those steps are refused
                    elbo, grads = self.of_rows(*_halves(points), chunk[rows], noise)
                return elbo, np.concatenate(grads, axis=1)

            points = np.concatenate((self.mu[chunk], self.logvar[chunk]), axis=1)
            ascent = Ascent(
                evaluate, self._metric, points, most, tolerance * self.share, learning_rate
            )
            _check_begins("an ELBO", ascent.values[:, None], chunk, points.dtype)
            if steps > 0:
                _check_begins("a slope", ascent.gradients, chunk, points.dtype)
            for _ in range(steps):
                if len(ascent.active) == 0:
                    break
                ascent.step()
            found.mu[chunk], found.logvar[chunk] = _halves(points)
            found.elbo[chunk], found.steps[chunk] = ascent.values / self.share, ascent.steps
            found.converged[chunk] = ~np.isin(np.arange(len(chunk)), ascent.active)
        return found

    def _metric(self, points):
        """The inverse of q's Fisher information: at an optimum, of a Gaussian's curvature, too.

        A KL that rounding hides bends nothing.
        """
        with np.errstate(over="ignore"):
            variance = np.exp(_halves(points)[1])
        bends = self.beta if self.beta > np.finfo(points.dtype).eps else 1
        return np.concatenate((variance, np.full_like(variance, 2)), axis=1) / bends


def rows_at_once(latent_dim):
    """Rows that climb together by the usual number of draws."""
    return _step(_usual_draws(latent_dim))


def _usual_draws(latent_dim):
    return max(16, 2 * latent_dim)


def _step(samples):
    return max(1, ROWS // samples)


def _check_begins(what, numbers, rows, dtype):
    """Of no row may any of its numbers overflow where it begins."""
    finite = np.isfinite(numbers)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        wider = "; mu and logvar in float64 hold more" if dtype == np.float32 else ""
        raise ValueError(
            f"x[{rows[row]}] has {what} of {numbers[row, column]} at its mu and logvar: "
            f"there is nothing to climb from{wider}"
        )


def _halves(points):
    """mu and logvar, contiguous."""
    half = points.shape[1] // 2
    return np.ascontiguousarray(points[:, :half]), np.ascontiguousarray(points[:, half:])


def refine_posterior(
    decoder: Any,
    x: ArrayLike,
    mu: ArrayLike | None = None,
    logvar: ArrayLike | None = None,
    *,
    likelihood: AnyLikelihood | None = None,
    prior: DifferentiablePrior | None = None,
    beta: Number = 1.0,
    mask: ArrayLike | None = None,
    steps: int = 50,
    learning_rate: Number = 1.0,
    tolerance: Number = 1e-13,
    samples: int | None = None,
    rng: Rng = None,
    noise: ArrayLike | None = None,
    num_threads: Threads = None,
) -> RefinedPosterior:
    """The q(z|x) of highest ELBO for each x by itself, from (mu, logvar) on.

    Each row climbs its own ELBO by a limited-memory quasi-Newton method [1]_ that begins with the
    natural gradient (sigma^2 by mu, 2 by logvar), on noise that stays as it is. Its ELBO never
    falls: a step that does not raise it is shortened. Rows end one by one, and are not decoded any
    more. With a few `steps` from an encoder's (mu, logvar) this is semi-amortized inference [2]_.

    The draws are antithetic and whitened: their mean is zero and, from 2 L draws on, their
    covariance the identity. The expectation of whatever is quadratic in z is then exact, and so is
    the posterior of a linear decoder with Gaussian noise: if that is diagonal, it is found;
    otherwise the diagonal Gaussian nearest to it. Elsewhere the optimum is that of the draws: more
    of them bring it nearer to that of the expectation.

    Parameters
    ----------
    decoder : VAE, object, function or torch.nn.Module
        From z (N, L) to what the likelihood takes, arrays of N rows:

        - a fitted :class:`~fastelbo.VAE`, or a :class:`~fastelbo.SemiSupervisedVAE`, which decodes
          at the label that it predicts of each x;
        - an object with ``forward(z)``, or that is called, and ``backward(*gradients)``, which
          takes the gradients of its last outputs to that of z;
        - a function ``decoder(z) -> (outputs, pullback)`` with ``pullback(*gradients)`` the same;
        - a module of PyTorch, which autograd differentiates by z. Its parameters' gradients stay as
          they are, and so does its mode: call ``eval()`` where that matters.
    x : array_like, shape (B, ...)
    mu, logvar : array_like, shape (B, L)
        Where to begin. May be left out with a VAE, whose encoder knows. (This and `x` may be
        tensors on the CPU that require no gradient; results are arrays, since nothing is
        differentiated through the search.) Where one of these is float64, so is all.
    likelihood : Likelihood, optional
        None is the VAE's own, or SquaredError.
    prior : optional
        As in :func:`~fastelbo.elbo`; None is the VAE's own, or the standard normal. The KL to any
        other is estimated by the same draws.
    beta : float, optional
        Weight of the KL.
    mask : array_like of bool, shape of x, optional
        True where x was observed: the posterior given these alone.
    steps : int, optional
        At most so many evaluations of each row, besides the first; 0 leaves mu and logvar.
    learning_rate : float, optional
        The length that is tried first of each step, 1 being that of the quasi-Newton method.
    tolerance : float, optional
        A row ends where its next step promises less, in nats, or less than rounding hides.
    samples : int, optional
        Draws of z, an even number. None is 2 L, and 16 at least.
    rng : int, numpy.random.Generator or None, optional
        As in :func:`~fastelbo.reparameterize`. All rows have the same noise.
    noise : array_like, shape (K, B, L) or (K, 1, L), optional
        The draws themselves.
    num_threads : int, optional

    Returns
    -------
    RefinedPosterior
        ``(mu, logvar, elbo, steps, converged)``. By other draws the ELBO is a little lower than by
        those it was climbed on.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or the decoder gives other shapes, or NaN; nothing has been
        changed.

    References
    ----------
    .. [1] Nocedal, Wright. Numerical optimization, 2nd edition, 2006, chapter 7.2.
    .. [2] Kim, Wiseman, Miller, Sontag, Rush. Semi-amortized variational autoencoders. ICML 2018.

    See Also
    --------
    amortization_gap : What this gains.

    Examples
    --------
    x = 2 z + noise of variance 1, x = 5: the posterior is N(2, 1/5).

    >>> import numpy as np
    >>> import fastelbo
    >>> def decoder(z):
    ...     return 2 * z, lambda by_x: 2 * by_x
    >>> found = fastelbo.refine_posterior(
    ...     decoder, [[5.0]], [[0.0]], [[0.0]], likelihood=fastelbo.Gaussian(1.0), rng=0
    ... )
    >>> found.mu.round(6), np.exp(found.logvar).round(6), found.converged
    (array([[2.]]), array([[0.2]]), array([ True]))
    """
    steps, learning_rate, tolerance = _search(steps, learning_rate, tolerance)
    problem = _Objective(decoder, x, mu, logvar, likelihood, prior, beta, mask, num_threads)
    noise = problem.draws(samples, rng, noise)
    return problem.refine(noise, steps, learning_rate, tolerance)


def _search(steps, learning_rate, tolerance):
    return (
        as_whole(steps, "steps", 0),
        positive_number(learning_rate, "learning_rate"),
        as_number(tolerance, "tolerance", 0),
    )


@overload
def amortization_gap(
    decoder: Any,
    x: ArrayLike,
    mu: ArrayLike | None = ...,
    logvar: ArrayLike | None = ...,
    *,
    likelihood: AnyLikelihood | None = ...,
    prior: DifferentiablePrior | None = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    steps: int = ...,
    learning_rate: Number = ...,
    tolerance: Number = ...,
    samples: int | None = ...,
    rng: Rng = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def amortization_gap(
    decoder: Any,
    x: ArrayLike,
    mu: ArrayLike | None = ...,
    logvar: ArrayLike | None = ...,
    *,
    likelihood: AnyLikelihood | None = ...,
    prior: DifferentiablePrior | None = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    steps: int = ...,
    learning_rate: Number = ...,
    tolerance: Number = ...,
    samples: int | None = ...,
    rng: Rng = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
def amortization_gap(
    decoder: Any,
    x: ArrayLike,
    mu: ArrayLike | None = None,
    logvar: ArrayLike | None = None,
    *,
    likelihood: AnyLikelihood | None = None,
    prior: DifferentiablePrior | None = None,
    beta: Number = 1.0,
    mask: ArrayLike | None = None,
    steps: int = 50,
    learning_rate: Number = 1.0,
    tolerance: Number = 1e-13,
    samples: int | None = None,
    rng: Rng = None,
    reduction: Reduction = "mean",
    num_threads: Threads = None,
) -> float | Float64Array:
    """What an encoder's q(z|x) lacks: the ELBO of the best q* less that of (mu, logvar) [1]_.

    q* is :func:`refine_posterior`'s. Both are judged by further draws, the same for both, 64 at
    least: by those it was climbed on q* would look better than it is. So an encoder that lacks
    nothing has a gap of about zero, which may come out a little negative.

    Parameters
    ----------
    decoder, x, mu, logvar, likelihood, prior, beta, mask
        As in :func:`refine_posterior`.
    steps, learning_rate, tolerance, samples, rng, num_threads
        As there.
    reduction : {"mean", "sum", "none"}, optional

    Returns
    -------
    float, or ndarray of shape (B,) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError, TypeError
        As there.

    References
    ----------
    .. [1] Cremer, Li, Duvenaud. Inference suboptimality in variational autoencoders. ICML 2018.

    See Also
    --------
    generalization_gap : The same of data that were trained on, and of others.

    Examples
    --------
    x = 2 z + noise, x = 5: log p(x) = -4.2236, the ELBO of N(2, 1/5); N(2, 1) has 1.1953 less.

    >>> import fastelbo
    >>> def decoder(z):
    ...     return 2 * z, lambda by_x: 2 * by_x
    >>> gap = fastelbo.amortization_gap(
    ...     decoder, [[5.0]], [[2.0]], [[0.0]], likelihood=fastelbo.Gaussian(1.0), rng=0
    ... )
    >>> round(gap, 4)
    1.1953
    """
    steps, learning_rate, tolerance = _search(steps, learning_rate, tolerance)
    check_reduction(reduction)
    problem = _Objective(decoder, x, mu, logvar, likelihood, prior, beta, mask, num_threads)
    keys = np.random.default_rng(noise_key(rng))
    noise = problem.draws(samples, keys)
    found = problem.refine(noise, steps, learning_rate, tolerance)
    judges = problem.draws(max(JUDGES, len(noise)), keys)
    best = problem.elbo(found.mu, found.logvar, judges)
    return reduce_rows(best - problem.elbo(problem.mu, problem.logvar, judges), reduction)


def generalization_gap(
    decoder: Any,
    train: tuple[ArrayLike, ...],
    test: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood | None = None,
    prior: DifferentiablePrior | None = None,
    beta: Number = 1.0,
    steps: int = 50,
    learning_rate: Number = 1.0,
    tolerance: Number = 1e-13,
    samples: int | None = None,
    rng: Rng = None,
    num_threads: Threads = None,
) -> GeneralizationGap:
    """How much worse an encoder infers what it was not trained on [1]_.

    The amortization gap of test data less that of training data: what of the encoder's error is
    overfitting, the decoder being the same and each x having its own best q*.

    Parameters
    ----------
    decoder, likelihood, prior, beta, steps, learning_rate, tolerance, samples, rng, num_threads
        As in :func:`amortization_gap`.
    train, test : tuple of array_like
        ``(x, mu, logvar)``, or ``(x,)`` with a VAE.

    Returns
    -------
    GeneralizationGap
        ``(train, test, gap)`` in nats: both means, and test - train.

    Raises
    ------
    ValueError, TypeError
        As there.

    References
    ----------
    .. [1] Cremer, Li, Duvenaud. Inference suboptimality in variational autoencoders. ICML 2018.

    Examples
    --------
    An encoder that knows x = 5 and not x = 0.

    >>> import numpy as np
    >>> import fastelbo
    >>> def decoder(z):
    ...     return 2 * z, lambda by_x: 2 * by_x
    >>> variance = [[np.log(0.2)]]
    >>> gaps = fastelbo.generalization_gap(
    ...     decoder,
    ...     ([[5.0]], [[2.0]], variance),
    ...     ([[0.0]], [[1.0]], variance),
    ...     likelihood=fastelbo.Gaussian(1.0),
    ...     rng=0,
    ... )
    >>> round(abs(gaps.train), 6), round(gaps.test, 6), round(gaps.gap, 6)
    (0.0, 2.5, 2.5)
    """
    key = noise_key(rng)
    means = []
    for name, data in (("train", train), ("test", test)):
        if not isinstance(data, tuple | list) or len(data) not in (1, 3):
            raise TypeError(f"{name} must be (x, mu, logvar), or (x,) with a VAE")
        gap = amortization_gap(
            decoder,
            *data,
            likelihood=likelihood,
            prior=prior,
            beta=beta,
            steps=steps,
            learning_rate=learning_rate,
            tolerance=tolerance,
            samples=samples,
            rng=key,
            num_threads=num_threads,
        )
        means.append(gap)
    return GeneralizationGap(*means, means[1] - means[0])
