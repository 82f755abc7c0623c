"""The evidence lower bound of dask arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dask.array as da
import numpy as np

from fastelbo import _arrays
from fastelbo import elbo as elbo_in_memory
from fastelbo._arguments import as_number
from fastelbo._named import as_likelihood
from fastelbo.dask._chunks import as_dask, over_chunks, partial_sums, total
from fastelbo.dask.likelihoods import is_single, log_prob
from fastelbo.divergences import as_free_bits, kl_standard_normal
from fastelbo.likelihoods import check_reduction
from fastelbo.locations import SquaredError
from fastelbo.posterior import NoiseFrom, noise_key, reparameterize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import AnyLikelihood, Number, Prior, Reduction, Rng, Threads
    from fastelbo.divergences import FreeBits

_SQUARED_ERROR = SquaredError()


class ElboResult(NamedTuple):
    """The parts of an ELBO, in nats: dask arrays, of no axes or (B,) for ``reduction="none"``."""

    elbo: da.Array
    reconstruction: da.Array
    kl: da.Array
    z: da.Array | None


def elbo(
    x: da.Array | ArrayLike,
    mu: da.Array | ArrayLike,
    logvar: da.Array | ArrayLike,
    x_recon: da.Array | ArrayLike | tuple[da.Array | ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = _SQUARED_ERROR,
    prior: Prior | None = None,
    beta: Number = 1.0,
    free_bits: Number | FreeBits = 0.0,
    rng: Rng = None,
    noise: da.Array | ArrayLike | None = None,
    mask: da.Array | ArrayLike | None = None,
    reduction: Reduction = "mean",
    num_threads: Threads = 1,
) -> ElboResult:
    """:func:`fastelbo.elbo` of dask arrays, lazily: the same numbers, whatever the chunks.

    Chunks of rows and of features of x add up to what the arrays in memory give, within 1e-12 in
    float64. Noise is the same for one key, too: an element's depends on its place in the whole.

    Parameters
    ----------
    x : dask array, shape (B, ...)
        Or an array of Zarr, HDF5 or NumPy, which becomes one.
    mu, logvar : dask array, shape (B, L)
        Their chunks become those of the batch of x; the latent dimensions come whole.
    x_recon : dask array, in the shape of x, or a tuple of them
    likelihood, prior, beta, free_bits, rng, reduction
        As in :func:`fastelbo.elbo`.
    noise : dask array, shape (B, L), optional
    mask : dask array of bool, optional
    num_threads : int or None, optional
        Threads of the kernels in each thread of a worker; None is fastelbo's own rule.

    Returns
    -------
    ElboResult
        Of dask arrays: ``dask.compute(*result)`` reads every chunk once for all of them.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        As :func:`log_prob`.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastelbo.dask
    >>> x, mu = da.ones((1000, 20), chunks=(100, 10)), da.zeros((1000, 2), chunks=(100, 2))
    >>> result = fastelbo.dask.elbo(x, mu, mu, 0 * x)
    >>> float(result.elbo.compute()), float(result.kl.compute())
    (-20.0, 0.0)
    """
    check_reduction(reduction)
    likelihood = as_likelihood(likelihood)
    beta = as_number(beta, "beta", 0)
    given = x_recon if type(x_recon) is tuple else (x_recon,)
    x, mu, logvar, noise = _latents(x, mu, logvar, noise)
    parameters = [p if np.ndim(p) == 0 else as_dask(p, "x_recon") for p in given]
    latents = [a for a in (mu, logvar) if a is not None]
    if not (x.dtype != np.float64 and all(map(is_single, (*parameters, *latents)))):
        parameters = [p.astype(np.float64) if isinstance(p, da.Array) else p for p in parameters]
        mu, logvar = mu.astype(np.float64), logvar.astype(np.float64)
    drawn = rng is not None or noise is not None
    key = noise_key(rng) if rng is not None and noise is None else rng
    options = {"prior": prior, "free_bits": free_bits}
    _check(mu, noise, key, options)
    reconstruction = log_prob(
        likelihood, x, *parameters, mask=mask, reduction=reduction, num_threads=num_threads
    )
    passed = {"mu": mu, "logvar": logvar, "noise": noise}
    z = None
    if drawn:
        z = over_chunks(_draw, passed, dtype=mu.dtype, num_threads=num_threads, key=key)
    kl = _kl(passed, reduction, num_threads, key=key, **options)
    return ElboResult(reconstruction - beta * kl, reconstruction, kl, z)


def _latents(x, mu, logvar, noise):
    """All of them in the chunks of the batch, and whole otherwise."""
    x = as_dask(x, "x")
    found = [mu, logvar, noise]
    for i, (name, array) in enumerate(zip(("mu", "logvar", "noise"), found, strict=True)):
        if array is None:
            continue
        array = as_dask(array, name)
        if array.ndim != 2 or array.shape[:1] != x.shape[:1]:
            wanted = f"(batch, latent dimensions) for x of shape {x.shape}"
            raise _arrays.shape_error(name, array.shape, wanted)
        found[i] = array.rechunk((x.chunks[0], (array.shape[1],)))
        if found[i].shape != found[0].shape:
            raise _arrays.shape_error(name, array.shape, f"that of mu, {found[0].shape}")
    return x, *found


def _check(mu, noise, key, options):
    """Complain now of what the chunks would complain of."""
    none = np.zeros((1, mu.shape[1]), np.float32)
    given = {} if noise is None else {"noise": none}
    elbo_in_memory(none[:, :1], none, none, none[:, :1], rng=key, **given, **options)


def _of_rows(key, place, latent_dim):
    """The noise of these rows."""
    return None if key is None else NoiseFrom(key, place[0].start * latent_dim)


def _draw(mu, logvar, noise, place, key):
    return reparameterize(mu, logvar, rng=_of_rows(key, place, mu.shape[1]), noise=noise)


def _kl(passed, reduction, num_threads, key, prior, free_bits):
    """The KL, reduced; what is floored by the mean of the batch needs all chunks first."""
    mu = passed["mu"]
    floor = as_free_bits(free_bits)
    by_dimension = floor is not None and floor.granularity == "dimension"
    if by_dimension:
        sums = over_chunks(
            _kl_of_dimensions,
            {"mu": mu, "logvar": passed["logvar"]},
            chunks=(partial_sums(mu)[0], mu.chunks[1]),
            num_threads=num_threads,
        )
        means = sums.sum(0) / len(mu)
        kept = ~(means <= floor.threshold)
        floored = (~kept).sum() * floor._value_below
        if reduction != "none":
            value = da.where(kept, means, 0.0).sum() + floored
            return value * len(mu) if reduction == "sum" else value
        passed = {"mu": mu, "logvar": passed["logvar"], "kept": kept[None]}
        rows = over_chunks(
            _kl_of_kept, passed, chunks=(mu.chunks[0], (1,)), num_threads=num_threads
        )
        return rows[:, 0] + floored
    by_row = reduction == "none"
    partials = over_chunks(
        _kl_of_chunk,
        passed,
        chunks=(mu.chunks[0], (1,)) if by_row else partial_sums(mu),
        num_threads=num_threads,
        key=key,
        by_row=by_row,
        prior=prior,
        free_bits=free_bits,
    )
    if by_row:
        return partials[:, 0]
    return total(partials, len(mu) if reduction == "mean" else 1)


def _kl_of_chunk(mu, logvar, noise, place, key, by_row, **options):
    """As the ELBO of nothing has it."""
    nothing = np.zeros((len(mu), 1), mu.dtype)
    rng = _of_rows(key, place, mu.shape[1])
    result = elbo_in_memory(
        nothing, mu, logvar, nothing, rng=rng, noise=noise, reduction="none", **options
    )
    return result.kl[:, None] if by_row else result.kl.sum().reshape(1, 1)


def _kl_of_dimensions(mu, logvar, place):
    return kl_standard_normal(mu.T, logvar.T, reduction="none")[None]


def _kl_of_kept(mu, logvar, kept, place):
    kept = kept[0]
    if not kept.any():
        return np.zeros((len(mu), 1))
    return kl_standard_normal(mu[:, kept], logvar[:, kept], reduction="none")[:, None]
