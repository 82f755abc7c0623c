"""The aggregate posterior q(z), the mean of q(z|x): its density, and its total correlation."""

import math
from typing import NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import MOST_WEIGHT, as_flag, as_number, as_whole, check_choice, share_of
from fastelbo._named import as_likelihood
from fastelbo._threads import threads_for
from fastelbo.bounds import reduce_rows
from fastelbo.divergences import weigh
from fastelbo.likelihoods import check_reduction, own_shapes
from fastelbo.locations import SquaredError

_kernels = _builds.kernels("aggregate")
_SQUARED_ERROR = SquaredError()
METHODS = ("mws", "mss")
VARIANTS = ("paper", "reference")

#: A sample and a data point in one dimension cost about this many of a squared error.
PAIR_COST = 4
#: Data points that a pass transposes at once.
POINTS_AT_ONCE = 4096


class TotalCorrelation(NamedTuple):
    """The parts of log q(z|x) - log p(z), in nats: floats, or (B,) for ``reduction="none"``."""

    mutual_information: float | np.ndarray
    total_correlation: float | np.ndarray
    dimension_wise_kl: float | np.ndarray


class TotalCorrelationGrad(NamedTuple):
    """Gradients of a weighted sum of the parts, each (B, L)."""

    z: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray


class BetaTcvaeResult(NamedTuple):
    """The parts of a beta-TCVAE objective, in nats: floats, or (B,) for ``reduction="none"``."""

    elbo: float | np.ndarray
    reconstruction: float | np.ndarray
    mutual_information: float | np.ndarray
    total_correlation: float | np.ndarray
    dimension_wise_kl: float | np.ndarray


class BetaTcvaeGrad(NamedTuple):
    """Gradients of a beta-TCVAE objective; x_recon is a tuple where the decoder gives several."""

    z: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    x_recon: np.ndarray | tuple[np.ndarray, ...]


class AggregateDensity(NamedTuple):
    """log q(z), (S,), and log q(z_l) of every dimension, (S, L), in nats."""

    joint: np.ndarray
    marginals: np.ndarray


def _latents(z, mu, logvar, batch=-1):
    """z, mu and logvar as (B, L) arrays of float dtypes, not yet the same."""
    mu, logvar = _arrays.latents(mu, logvar, batch=batch)
    z = _arrays.as_floats(z, "z")
    if z.shape != mu.shape:
        raise _arrays.shape_error("z", z.shape, f"that of mu, {mu.shape}")
    return z, mu, logvar


class Sampling:
    """How a minibatch of `batch` stands for a data set: the weights of its points."""

    def __init__(self, batch, dataset_size, method, normalize, mss):
        size = as_whole(dataset_size, "dataset_size", 1)
        check_choice(method, "method", METHODS)
        check_choice(mss, "mss", VARIANTS)
        normalize = as_flag(normalize, "normalize")
        if batch > size:
            raise ValueError(
                f"dataset_size is the number of points that minibatches are drawn from: at least "
                f"that of the batch, {batch}, got {size}"
            )
        self.weighting, self.first, self.second = "equal", 0.0, 0.0
        if method == "mws":
            self.log_weight = -math.log(batch * size) if normalize else 0.0
            return
        others = batch - 1
        if batch < 2:
            raise ValueError(f'method="mss" needs a batch of 2 samples or more, got {batch}')
        self.weighting = mss
        self.log_weight = -math.log(others)
        self.first = math.log2(others / size)
        self.second = math.log2((size - others) / size)

    def parts(self, latent, num_threads, weights=None, gradients=None):
        """(log q(z|x), log q(z), sum_l log q(z_l), log p(z)), (4, B); gradients are of the
        TotalCorrelation times weights."""
        batch, dims = latent[0].shape
        parts, share = np.empty((4, batch)), 1.0
        if gradients is not None:
            largest = max(map(abs, weights))
            if largest > MOST_WEIGHT:
                share = share_of(largest)
            elif 0 < largest < 1 / MOST_WEIGHT:
                share = 1 / share_of(1 / largest)
            a, b, c = (share * weight for weight in weights)
            weights = (a, b - a, c - b, -c)
        threads = threads_for(batch * batch * (dims + 1) * PAIR_COST, num_threads)
        _kernels.decompose(
            latent, self.weighting, self.first, self.second, parts, weights, gradients, threads
        )
        if share != 1:
            weigh(gradients, 1 / share, 1.0)
        parts[1] += self.log_weight
        parts[2] += dims * self.log_weight
        return parts


def _total_correlation(parts, reduction):
    own, joint, marginal, prior = parts
    with np.errstate(invalid="ignore"):
        rows = own - joint, joint - marginal, marginal - prior
    return TotalCorrelation(*(reduce_rows(part, reduction) for part in rows))


def _decompose(given, dataset_size, method, normalize, mss, reduction, num_threads):
    check_reduction(reduction)
    latent = _latents(*given)
    sampling = Sampling(len(latent[0]), dataset_size, method, normalize, mss)
    single = _arrays.computes_in_float32(latent)
    return sampling, tuple(_arrays.as_rows(a, "z", single) for a in latent), single


def total_correlation(
    z,
    mu,
    logvar,
    *,
    dataset_size,
    method="mws",
    normalize=True,
    mss="paper",
    reduction="mean",
    num_threads=None,
):
    """Mutual information, total correlation and dimension-wise KL, from one minibatch [1]_.

    The KL between q(z|x) and the prior N(0, I) falls into three parts,
    log q(z|x) - log q(z), log q(z) - sum_l log q(z_l) and sum_l (log q(z_l) - log p(z_l)), which
    add up exactly. The aggregate posterior q(z) is estimated from the minibatch itself, each
    sample against all others, in O(B L) memory.

    Parameters
    ----------
    z : array_like, shape (B, L)
        One sample of q(z|x) for each x.
    mu, logvar : array_like, shape (B, L)
        Parameters of q(z|x) = N(mu, diag(e^logvar)).
    dataset_size : int
        N, how many data points the minibatch was drawn from.
    method : {"mws", "mss"}
        Minibatch-weighted sampling, log q(z_i) ~ log sum_j q(z_i|x_j) / (B N), or
        minibatch-stratified sampling: weights 1/N for j = i, (N-B+1) / (N (B-1)) for one other j
        and 1/(B-1) elsewhere.
    normalize : bool, optional
        False leaves out 1 / (B N), as some implementations do: the parts then move by multiples of
        log(B N). For ``method="mws"`` only.
    mss : {"paper", "reference"}
        ``"paper"`` takes i + 1 (after the last, the first) for the other j. ``"reference"`` fills
        the first two columns of the weights instead, for all i, as the authors' code does.
    reduction : {"mean", "sum", "none"}
        Over the batch.
    num_threads : int, optional

    Returns
    -------
    TotalCorrelation
        ``mutual_information``, ``total_correlation``, ``dimension_wise_kl``, in nats.

    Raises
    ------
    ValueError, TypeError
        If shapes differ, the batch is empty, ``method="mss"`` has a batch of one sample or of more
        than the data set, or an option is unknown.

    References
    ----------
    .. [1] Chen, Li, Grosse, Duvenaud. Isolating sources of disentanglement in variational
       autoencoders. NeurIPS 2018.

    Examples
    --------
    >>> import fastelbo
    >>> z = mu = [[-3.0, 0.0], [3.0, 0.0]]
    >>> parts = fastelbo.total_correlation(z, mu, [[0.0, 0.0]] * 2, dataset_size=2)
    >>> [round(part, 6) for part in parts]
    [1.386294, 0.693147, 2.420558]
    """
    sampling, latent, _ = _decompose(
        (z, mu, logvar), dataset_size, method, normalize, mss, reduction, num_threads
    )
    return _total_correlation(sampling.parts(latent, num_threads), reduction)


def total_correlation_and_grad(
    z,
    mu,
    logvar,
    *,
    dataset_size,
    weights=(0.0, 1.0, 0.0),
    method="mws",
    normalize=True,
    mss="paper",
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`total_correlation` and the gradients of a weighted sum of its parts, in one call.

    Parameters
    ----------
    z, mu, logvar, dataset_size, method, normalize, mss, reduction, num_threads
        As in :func:`total_correlation`.
    weights : tuple of three floats, optional
        Of the mutual information, the total correlation and the dimension-wise KL in what the
        gradients are of; the total correlation alone by default.
    out : tuple of three ndarray, optional
        Where to write the gradients of z, mu and logvar.

    Returns
    -------
    parts : TotalCorrelation
    gradients : TotalCorrelationGrad
        ``z``, ``mu``, ``logvar``, three separate arguments: what reaches mu and logvar through z is
        added by :func:`~fastelbo.reparameterize_backward`. With ``reduction="none"``, of the sum
        over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`total_correlation`.

    Examples
    --------
    >>> import fastelbo
    >>> z = mu = [[-3.0], [3.0]]
    >>> parts, grad = fastelbo.total_correlation_and_grad(
    ...     z, mu, [[0.0], [0.0]], dataset_size=2, weights=(0, 0, 1), reduction="sum"
    ... )
    >>> grad.z.round(3)
    array([[-3.],
           [ 3.]])
    """
    given = z, mu, logvar
    weights = _as_weights(weights)
    sampling, latent, single = _decompose(
        given, dataset_size, method, normalize, mss, reduction, num_threads
    )
    shapes = [latent[0].shape] * 3
    gradients = _arrays.checked_outs(out, shapes, single, given, TotalCorrelationGrad._fields)
    share = 1.0 / len(latent[0]) if reduction == "mean" else 1.0
    weights = tuple(share * weight for weight in weights)
    parts = sampling.parts(latent, num_threads, weights, gradients)
    return _total_correlation(parts, reduction), TotalCorrelationGrad(*gradients)


def _as_weights(weights):
    try:
        weights = tuple(weights)
    except TypeError:
        raise TypeError(f"weights must be three numbers, got {weights!r}") from None
    if len(weights) != 3:
        raise ValueError(f"weights must be three numbers, got {len(weights)}")
    return tuple(as_number(weight, "weights") for weight in weights)


def _beta_tcvae(
    x,
    z,
    mu,
    logvar,
    x_recon,
    dataset_size,
    likelihood,
    weights,
    method,
    normalize,
    mss,
    mask,
    reduction,
    num_threads,
    out=None,
    with_gradient=False,
):
    check_reduction(reduction)
    likelihood = as_likelihood(likelihood)
    names = ("alpha", "beta", "gamma")
    weights = tuple(as_number(w, name, 0) for w, name in zip(weights, names, strict=True))
    several = type(x_recon) is tuple
    outputs = x_recon if several else (x_recon,)
    if len(outputs) != len(likelihood.parameters):
        likelihood._miscounted(outputs)
    given = (z, mu, logvar, *outputs)
    others = (x, mask)
    data, outputs = likelihood._event(x, outputs)
    batch = len(data)
    latent = _latents(z, mu, logvar, batch)
    sampling = Sampling(batch, dataset_size, method, normalize, mss)
    single = _arrays.computes_in_float32((data, *latent, *outputs))
    latent = tuple(_arrays.as_rows(a, "z", single) for a in latent)
    outputs = tuple(_arrays.in_dtype(a, single) for a in outputs)
    if mask is not None:
        mask = _arrays.as_mask(mask, data)
    gradients = by_outputs = None
    if with_gradient:
        gradients, by_outputs = _gradient_arrays(
            out,
            likelihood.parameters,
            latent[0],
            own_shapes(given[3:], outputs),
            single,
            (*others, *given),
        )
    share = 1.0 / batch if reduction == "mean" else 1.0
    rows = np.empty(batch)
    threads = threads_for(outputs[0].size, num_threads)
    likelihood._pass(data, outputs, by_outputs, share, rows, None, 1, threads, mask)
    shares = tuple(-share * weight for weight in weights)
    parts = sampling.parts(latent, num_threads, shares, gradients)
    reconstruction = reduce_rows(rows, reduction)
    parts = _total_correlation(parts, reduction)
    cost = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    result = BetaTcvaeResult(reconstruction - cost, reconstruction, *parts)
    if with_gradient:
        return result, BetaTcvaeGrad(*gradients, by_outputs if several else by_outputs[0])
    return result


def _gradient_arrays(out, names, z, shapes, single, given):
    """(those of z, mu and logvar, those of the decoder's outputs): the caller's where given."""
    if out is not None:
        if not isinstance(out, tuple) or len(out) != 4:
            raise TypeError(
                "out must be None or a tuple (z, mu, logvar, x_recon) like BetaTcvaeGrad"
            )
        out = (*out[:3], *(out[3] if isinstance(out[3], tuple) else (out[3],)))
    names = (*TotalCorrelationGrad._fields, *names)
    made = _arrays.checked_outs(out, [*[z.shape] * 3, *shapes], single, given, names)
    return made[:3], made[3:]


def beta_tcvae_elbo(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    dataset_size,
    likelihood=_SQUARED_ERROR,
    alpha=1.0,
    beta=6.0,
    gamma=1.0,
    method="mws",
    normalize=True,
    mss="paper",
    mask=None,
    reduction="mean",
    num_threads=None,
):
    """The beta-TCVAE objective: reconstruction - alpha MI - beta TC - gamma KL_dims [1]_.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data, as in :func:`~fastelbo.elbo`.
    z, mu, logvar, dataset_size, method, normalize, mss
        As in :func:`total_correlation`.
    x_recon : array_like, in the shape of x
        What the decoder makes of z. A tuple of arrays for a likelihood of several parameters.
    likelihood : Likelihood or str, optional
        log p(x | x_recon).
    alpha, beta, gamma : float, optional
        Weights of the mutual information, the total correlation and the dimension-wise KL. With all
        of them 1 this is a one-sample estimate of the ELBO.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the batch.
    num_threads : int, optional

    Returns
    -------
    BetaTcvaeResult
        ``elbo``, ``reconstruction``, ``mutual_information``, ``total_correlation``,
        ``dimension_wise_kl``, in nats.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or x lies outside the likelihood's domain. The
        message names the argument.

    References
    ----------
    .. [1] Chen, Li, Grosse, Duvenaud. Isolating sources of disentanglement in variational
       autoencoders. NeurIPS 2018.

    Examples
    --------
    >>> import fastelbo
    >>> x = x_recon = [[0.0], [1.0]]
    >>> z = mu = logvar = [[0.0], [0.0]]
    >>> result = fastelbo.beta_tcvae_elbo(x, z, mu, logvar, x_recon, dataset_size=2)
    >>> abs(round(result.elbo, 12))
    0.0
    """
    return _beta_tcvae(
        x,
        z,
        mu,
        logvar,
        x_recon,
        dataset_size,
        likelihood,
        (alpha, beta, gamma),
        method,
        normalize,
        mss,
        mask,
        reduction,
        num_threads,
    )


def beta_tcvae_elbo_and_grad(
    x,
    z,
    mu,
    logvar,
    x_recon,
    *,
    dataset_size,
    likelihood=_SQUARED_ERROR,
    alpha=1.0,
    beta=6.0,
    gamma=1.0,
    method="mws",
    normalize=True,
    mss="paper",
    mask=None,
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`beta_tcvae_elbo` and its gradients, to ascend.

    z, mu, logvar and x_recon count as separate arguments: the decoder's backward takes
    ``grad.x_recon`` and gives dz; ``reparameterize_backward(grad.z + dz, mu, logvar, z)`` is then
    added to ``grad.mu`` and ``grad.logvar``.

    Parameters
    ----------
    x, z, mu, logvar, x_recon, dataset_size, likelihood, alpha, beta, gamma
        As in :func:`beta_tcvae_elbo`.
    method, normalize, mss, mask, reduction, num_threads
        As in :func:`beta_tcvae_elbo`.
    out : tuple (z, mu, logvar, x_recon), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    result : BetaTcvaeResult
    gradients : BetaTcvaeGrad
        With ``reduction="none"``, of the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`beta_tcvae_elbo`.

    Examples
    --------
    >>> import fastelbo
    >>> z = mu = logvar = [[0.0], [0.0]]
    >>> result, grad = fastelbo.beta_tcvae_elbo_and_grad(
    ...     [[0.0], [1.0]], z, mu, logvar, [[0.0], [0.0]], dataset_size=2
    ... )
    >>> grad.x_recon
    array([[0.],
           [1.]])
    """
    return _beta_tcvae(
        x,
        z,
        mu,
        logvar,
        x_recon,
        dataset_size,
        likelihood,
        (alpha, beta, gamma),
        method,
        normalize,
        mss,
        mask,
        reduction,
        num_threads,
        out,
        True,
    )


def aggregate_posterior_log_density(z, mu, logvar, *, progress=None, num_threads=None):
    """Log-density of the aggregate posterior of a whole data set, joint and by dimension.

    log q(z) with q(z) = (1/N) sum_n N(z; mu_n, diag(e^logvar_n)), and the same for every z_l, in
    O(S L) memory: data points are streamed. What mutual information gaps and inspections of total
    correlation are estimated from [1]_.

    Parameters
    ----------
    z : array_like, shape (S, L)
        Where to evaluate it.
    mu, logvar : array_like, shape (N, L)
        Parameters of q(z|x_n) for every data point. A memmap is read piece by piece.
    progress : callable, optional
        Called with (data points done, N) now and then, in this thread.
    num_threads : int, optional

    Returns
    -------
    AggregateDensity
        ``joint`` (S,) and ``marginals`` (S, L), float64, in nats.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, or something is empty.

    References
    ----------
    .. [1] Chen, Li, Grosse, Duvenaud. Isolating sources of disentanglement in variational
       autoencoders. NeurIPS 2018.

    Examples
    --------
    >>> import fastelbo
    >>> density = fastelbo.aggregate_posterior_log_density([[0.0]], [[-1.0], [1.0]], [[0.0], [0.0]])
    >>> density.joint.round(6), density.marginals.round(6)
    (array([-1.418939]), array([[-1.418939]]))
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable or None, got {type(progress).__name__}")
    mu, logvar = _arrays.latents(mu, logvar)
    z = _arrays.as_floats(z, "z")
    points, dims = mu.shape
    if z.ndim != 2 or z.shape[1] != dims:
        raise _arrays.shape_error("z", z.shape, f"(samples, {dims}) like mu")
    if len(z) == 0:
        raise _arrays.empty_error("z", z.shape, "batch")
    single = _arrays.computes_in_float32((z, mu, logvar))
    z = _arrays.as_rows(z, "z", single)
    joint, marginals = np.full(len(z), -np.inf), np.full(z.shape, -np.inf)
    for first in range(0, points, POINTS_AT_ONCE):
        some = [_arrays.in_dtype(a[first : first + POINTS_AT_ONCE], single) for a in (mu, logvar)]
        threads = threads_for(len(z) * some[0].size * PAIR_COST, num_threads)
        _kernels.add_densities(z, *some, joint, marginals, threads)
        if progress is not None:
            progress(first + len(some[0]), points)
    return AggregateDensity(joint - math.log(points), marginals - math.log(points))
